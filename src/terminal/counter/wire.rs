//! Between the journal's words and those of the wire. Pure.

use crate::grpc::v1::{self, Line, PurchaseResult, purchase_result::Outcome, upload_sales_response::Verdict as Told};
use crate::ids::{LedgerId, ProgrammeId, RequestId, SiteId};
use crate::terminal::journal::{Became, EarlierElsewhere, Entry, Sale, Verdict, WhenAway};
use crate::terminal::{WireTimestamp, instant};
use crate::time::Timestamp;

fn line(sale: &Sale, id: Option<RequestId>) -> Line {
    Line {
        request_id: id.map(|id| id.to_string()).unwrap_or_default(),
        buyer: Some((&sale.buyer).into()),
        quantity: sale.quantity,
        relation: sale.relation.map(|relation| relation.to_string()).unwrap_or_default(),
        papers: sale.papers.iter().map(ToString::to_string).collect(),
    }
}

fn agent(sale: &Sale) -> Option<v1::Agent> {
    sale.agent_birth_year.map(|birth_year| v1::Agent { birth_year })
}

/// A purchase, which means something only under this ledger.
pub(super) fn purchase(sale: &Sale, id: RequestId, ledger: LedgerId) -> v1::PurchaseRequest {
    v1::PurchaseRequest {
        programme: sale.programme.to_string(),
        agent: agent(sale),
        lines: vec![line(sale, Some(id))],
        family_birth_years: Vec::new(),
        ledger_id: ledger.to_string(),
    }
}

/// What makes a hold a sale; `None`: its number is gone.
pub(super) fn confirm(entry: &Entry) -> Option<v1::ConfirmHoldRequest> {
    let v1::VoidPurchaseRequest { programme, buyer, request_id, ledger_id } = void(entry)?;
    Some(v1::ConfirmHoldRequest { programme, buyer, request_id, ledger_id })
}

pub(super) fn check(sale: &Sale) -> v1::CheckPurchaseRequest {
    v1::CheckPurchaseRequest {
        programme: sale.programme.to_string(),
        agent: agent(sale),
        lines: vec![line(sale, None)],
        family_birth_years: Vec::new(),
    }
}

/// What asks about an entry; `None`: its number is gone.
pub(super) fn get(entry: &Entry) -> Option<v1::GetPurchaseRequest> {
    let v1::VoidPurchaseRequest { programme, buyer, request_id, ledger_id } = void(entry)?;
    Some(v1::GetPurchaseRequest { programme, buyer, request_id, ledger_id })
}

/// What takes an entry back; `None`: its number is gone.
pub(super) fn void(entry: &Entry) -> Option<v1::VoidPurchaseRequest> {
    Some(v1::VoidPurchaseRequest {
        programme: entry.programme.to_string(),
        buyer: Some((&entry.sale.as_ref()?.buyer).into()),
        request_id: entry.id.to_string(),
        ledger_id: entry.asked_only().map(|ledger| ledger.to_string()).unwrap_or_default(),
    })
}

/// What is uploaded of an entry; `None`: it was not sold offline.
pub(super) fn offline_sale(entry: &Entry, site: SiteId) -> Option<v1::OfflineSale> {
    let (sale, sold_at) = (entry.sale.as_ref()?, entry.sold_offline?);
    let Line { request_id, buyer, quantity, relation, papers } = line(sale, Some(entry.id));
    Some(v1::OfflineSale {
        request_id,
        programme: sale.programme.to_string(),
        site_code: site.to_string(),
        buyer,
        quantity,
        sold_at: Some(wire_instant(sold_at)),
        relation,
        papers,
    })
}

fn wire_instant(millis: i64) -> WireTimestamp {
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
    WireTimestamp { seconds: millis.div_euclid(1_000), nanos }
}

/// What an answer says of the purchase that it is about; `None`: nothing that settles it.
pub(super) fn became(result: &PurchaseResult) -> Option<Became> {
    let name = |reason: &v1::Reason| {
        let name = reason.refusal().as_str_name();
        name.strip_prefix("REFUSAL_").unwrap_or(name).to_owned()
    };
    Some(match result.outcome.as_ref()? {
        Outcome::Approved(_) | Outcome::AlreadySold(_) => Became::Sold,
        Outcome::Refused(refused) => Became::Refused(refused.reasons.iter().map(name).collect()),
        Outcome::NotRequired(_) => Became::NotRequired,
        Outcome::Held(held) => Became::Held { until: held.until.as_ref().map_or(Timestamp::EPOCH, instant) },
        Outcome::Released(_) | Outcome::HoldExpired(_) => Became::Released,
        Outcome::Voided(_) => Became::Voided,
        Outcome::NotRecorded(_) | Outcome::NotFound(_) => Became::NotRecorded,
        Outcome::NotYours(_) => Became::NotYours,
        Outcome::MayBuy(_) | Outcome::Failure(_) => return None,
    })
}

/// The number, as an echo shows it.
pub(super) fn masked(echo: Option<v1::Echo>) -> Option<String> {
    echo.map(|echo| echo.masked_number).filter(|masked| !masked.is_empty())
}

/// What is said of an upload. A failure is no verdict.
pub(super) fn verdict(told: Told) -> Result<Verdict, v1::Failure> {
    let earlier = |purchase: v1::EarlierPurchase| EarlierElsewhere {
        at: purchase.at.as_ref().map_or(Timestamp::EPOCH, instant),
        quantity: purchase.quantity,
        district: purchase.district,
    };
    Ok(match told {
        Told::Recorded(_) => Verdict::Recorded,
        Told::OverQuota(over) => Verdict::OverQuota(over.earlier.into_iter().map(earlier).collect()),
        Told::AlreadyRecorded(v1::LateAlreadyRecorded { voided, over_quota }) => {
            Verdict::AlreadyRecorded { voided, over_quota }
        }
        Told::Quarantined(quarantined) => Verdict::Quarantined(quarantined.why),
        Told::Invalid(invalid) => {
            Verdict::Invalid(invalid.fields.into_iter().map(|bad| (bad.field, bad.problem)).collect())
        }
        Told::Failure(failure) => return Err(failure),
    })
}

/// What the service told of its programmes. One whose name cannot be read is not sold offline.
pub(super) fn when_away(told: &[v1::OfflinePolicy]) -> Vec<(ProgrammeId, WhenAway)> {
    let mode = |policy: &v1::OfflinePolicy| match policy.mode() {
        v1::OfflineMode::SellAndRecord => WhenAway::SellAndRecord,
        v1::OfflineMode::Stop | v1::OfflineMode::Unspecified => WhenAway::Stop,
    };
    told.iter().filter_map(|policy| Some((policy.programme.parse().ok()?, mode(policy)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_goes_there_and_back() {
        for millis in [0, 1, 999, 1_583_884_800_123, -1] {
            assert_eq!(instant(&wire_instant(millis)), Timestamp::from_millis(millis));
        }
    }

    #[test]
    fn a_failure_is_no_verdict_and_a_failed_line_no_outcome() {
        assert!(verdict(Told::Failure(v1::Failure::default())).is_err());
        let failed = PurchaseResult { outcome: Some(Outcome::Failure(v1::Failure::default())), ..Default::default() };
        assert_eq!(became(&failed), None);
        assert_eq!(became(&PurchaseResult::default()), None);
    }

    #[test]
    fn what_is_not_said_is_not_sold() {
        let told = |mode: v1::OfflineMode| v1::OfflinePolicy { programme: "masks".into(), mode: mode.into() };
        let modes = [v1::OfflineMode::Unspecified, v1::OfflineMode::SellAndRecord, v1::OfflineMode::Stop];
        let read = when_away(&modes.map(told)).into_iter().map(|(_, mode)| mode).collect::<Vec<_>>();
        assert_eq!(read, [WhenAway::Stop, WhenAway::SellAndRecord, WhenAway::Stop]);
        assert!(when_away(&[v1::OfflinePolicy { programme: "No Name".into(), mode: 1 }]).is_empty());
    }
}
