//! Between the counter's words and the screen's. Pure.

use std::sync::Arc;

use crate::grpc::v1::{self, purchase_result::Outcome};
use crate::ids::{ProgrammeId, RequestId};
use crate::policy::Programme;
use crate::terminal::counter::{Line, NotTaken};
use crate::terminal::journal::{self, Became, Buyer, Damage, Sale, Stands, Verdict, WhenAway};
use crate::terminal::screen::{
    Answer, Door, Earlier, Failure, Moment, Offline, Purchase, Reason, Refusal, RowState, Standing, Uploaded, Weekday,
};
use crate::terminal::{CallError, WireTimestamp, instant};
use crate::time::{Date, Timestamp};

/// Korea's clocks, for a programme that this build does not know.
const KOREA: std::time::Duration = std::time::Duration::from_secs(9 * 3_600);

/// Where it is what time: in the zone of the programme, if this build knows it.
#[derive(Clone)]
pub(super) struct Local(pub(super) Option<Arc<Programme>>);

impl Local {
    pub(super) fn moment(&self, at: Timestamp) -> Moment {
        let stamp = self.0.as_ref().map_or_else(|| at.plus(KOREA).to_string(), |programme| programme.stamp(at));
        let epoch = Moment { date: Date { year: 1970, month: 1, day: 1 }, hour: 0, minute: 0 };
        read(&stamp).unwrap_or(epoch)
    }

    pub(super) fn earlier(&self, sale: &journal::Earlier) -> Earlier {
        Earlier { at: self.moment(sale.at), quantity: sale.quantity, district: String::new() }
    }

    fn wire(&self, at: Option<&WireTimestamp>) -> Moment {
        self.moment(at.map_or(Timestamp::EPOCH, instant))
    }
}

/// From `2020/03/14 09:05:00` or `2020-03-14T09:05:00Z`.
fn read(stamp: &str) -> Option<Moment> {
    let date = stamp.get(..10)?.replace('/', "-").parse().ok()?;
    Some(Moment { date, hour: stamp.get(11..13)?.parse().ok()?, minute: stamp.get(14..16)?.parse().ok()? })
}

pub(super) fn sale(programme: ProgrammeId, purchase: &Purchase) -> Sale {
    let buyer = Buyer::Resident(purchase.number.as_str().to_owned());
    Sale {
        relation: purchase.proxy.map(|proxy| proxy.relation),
        agent_birth_year: purchase.proxy.map(|proxy| proxy.agent_birth_year),
        papers: purchase.papers.clone(),
        ..Sale::in_person(programme, buyer, purchase.quantity)
    }
}

pub(super) fn looked_up(result: v1::PurchaseResult, local: &Local) -> Answer {
    let v1::PurchaseResult { outcome, standing: left, echo, .. } = result;
    match outcome {
        Some(Outcome::MayBuy(_)) => Answer::MayBuy(standing(left, echo.as_ref(), local)),
        Some(Outcome::Refused(refused)) => Answer::Refused {
            reasons: refused.reasons.into_iter().map(reason).collect(),
            standing: standing(left, echo.as_ref(), local),
        },
        Some(Outcome::NotRequired(not_required)) => Answer::NotRequired { why: not_required.why },
        _ => Answer::Failed(Failure::Other {
            reason: "NO_ANSWER".into(),
            message: "the service gave an answer that this program does not know".into(),
        }),
    }
}

pub(super) fn reason(reason: v1::Reason) -> Reason {
    let refusal = match reason.refusal() {
        v1::Refusal::ChannelNotEnrolled => Refusal::ChannelNotEnrolled,
        v1::Refusal::NotEligible => Refusal::NotEligible,
        v1::Refusal::ProxyNotAllowed => Refusal::ProxyNotAllowed,
        v1::Refusal::NotYourDay => Refusal::NotYourDay,
        v1::Refusal::QuotaExhausted => Refusal::QuotaExhausted,
        v1::Refusal::Unspecified => Refusal::Other,
    };
    Reason { refusal, why: reason.why }
}

pub(super) fn standing(left: Option<v1::Standing>, echo: Option<&v1::Echo>, local: &Local) -> Option<Standing> {
    let v1::Standing { units_left, purchases_left, next_chance, earlier } = left?;
    let purchase = |earlier: v1::EarlierPurchase| Earlier {
        at: local.wire(earlier.at.as_ref()),
        quantity: earlier.quantity,
        district: earlier.district,
    };
    Some(Standing {
        units_left,
        purchases_left,
        next: next_chance.and_then(|chance| chance.date.parse().ok()),
        earlier: earlier.into_iter().map(purchase).collect(),
        own_day: echo.and_then(|echo| Weekday::from_english(&echo.rotation_day)),
    })
}

pub(super) fn offline(rule: WhenAway) -> Offline {
    match rule {
        WhenAway::Stop => Offline::Stop,
        WhenAway::SellAndRecord => Offline::SellAndRecord,
    }
}

pub(super) fn door(line: &Line) -> Door {
    match line {
        Line::Connecting | Line::Away => Door::Connecting,
        Line::Waiting { rank, position, about } => {
            Door::Waiting { position: *position, rank: *rank, seconds: about.map(|about| about.as_secs()) }
        }
        Line::Selling { slot } => Door::Open { slot: *slot },
        Line::SiteFull { cap, holders } => Door::SiteFull { cap: *cap, holders: holders.clone() },
        Line::Shut => Door::Shut,
        Line::Busy => Door::Busy,
        Line::TurnedAway(reason) => Door::TurnedAway(reason.clone()),
    }
}

pub(super) fn failure(error: &CallError) -> Failure {
    let CallError::NotExecuted { reason, message, .. } = error else { return Failure::Unreachable };
    match reason.as_str() {
        "SESSION_REQUIRED" | "SESSION_REPLACED" | "SESSION_LOST" | "SESSION_INVALID" => Failure::NoSession,
        "OVERLOADED" => Failure::Busy,
        "STORE_UNAVAILABLE" | "REPLICAS_MISSING" | "CLOCKS_APART" => Failure::StoreAway,
        "LOOK_UPS_WITHOUT_SALES" | "LOOK_UPS_LIMITED" => Failure::TooManyLookUps,
        _ => Failure::Other { reason: reason.clone(), message: message.clone() },
    }
}

/// It could not be written down.
pub(super) fn journal(error: &dyn std::fmt::Display) -> Failure {
    Failure::Other { reason: "JOURNAL".into(), message: error.to_string() }
}

pub(super) fn not_taken(error: &NotTaken) -> Failure {
    match error {
        NotTaken::NotOurs(_) | NotTaken::NotSold(_) | NotTaken::OtherNumber => Failure::NotOurs,
        NotTaken::NotWritten(error) => journal(error),
        NotTaken::NumberGone => Failure::NumberGone,
    }
}

/// How a sale stands. `is_open`: it was unknown, and nobody has said what became of the goods.
pub(super) fn state(stands: &Stands, is_open: bool) -> RowState {
    match stands {
        Stands::Unknown => RowState::Unknown,
        Stands::Became(Became::Sold) => RowState::Sold,
        Stands::Became(_) if is_open => RowState::Unsettled,
        Stands::Became(Became::Voided) | Stands::Voided | Stands::Withdrawn => RowState::Voided,
        Stands::Became(_) => RowState::NotSold,
        Stands::Waits => RowState::Waiting,
        Stands::Voiding => RowState::Voiding,
        Stands::Uploaded(Verdict::Recorded) => RowState::Late,
        Stands::Uploaded(Verdict::OverQuota(_)) => RowState::OverQuota,
        // It was handed over and stands no more: somebody must say which is true.
        Stands::Uploaded(Verdict::AlreadyRecorded { voided: true, .. } | Verdict::Quarantined(_)) => RowState::PutAside,
        Stands::Uploaded(Verdict::AlreadyRecorded { over_quota: true, .. }) => RowState::OverQuota,
        Stands::Uploaded(Verdict::AlreadyRecorded { .. }) => RowState::Late,
        Stands::Uploaded(Verdict::Invalid(_)) => RowState::ToMend,
    }
}

/// Whether only an answer that did not come can have ended so: of any other purchase it was told what became of it.
pub(super) fn was_unknown(stands: &Stands) -> bool {
    matches!(stands, Stands::Unknown | Stands::Became(Became::NotRecorded | Became::Released))
}

/// What a purchase whose outcome was unknown is answered now.
pub(super) fn known(row: RequestId, stands: &Stands, offline: Offline) -> Answer {
    match state(stands, true) {
        RowState::Sold => Answer::Sold { row, standing: None },
        RowState::Waiting | RowState::Late | RowState::OverQuota | RowState::PutAside | RowState::ToMend => {
            Answer::WrittenDown { row }
        }
        RowState::Unknown => Answer::Unknown { row, offline },
        RowState::Unsettled => Answer::NotSold { row, offline },
        RowState::NotSold | RowState::Voiding | RowState::Voided => Answer::Failed(Failure::NotRecorded),
    }
}

/// Counts a verdict.
pub(super) fn count(uploaded: &mut Uploaded, state: RowState) {
    let Uploaded { recorded, over_quota, put_aside, to_mend } = uploaded;
    let counted = match state {
        RowState::Late | RowState::Sold => recorded,
        RowState::OverQuota => over_quota,
        RowState::PutAside => put_aside,
        RowState::ToMend => to_mend,
        RowState::Unknown
        | RowState::Unsettled
        | RowState::NotSold
        | RowState::Waiting
        | RowState::Voiding
        | RowState::Voided => return,
    };
    *counted = counted.saturating_add(1);
}

/// How many facts a damaged journal has lost at least.
pub(super) fn lost(damage: &Damage) -> u32 {
    let lost: u64 = damage.missing.iter().map(|range| range.end.saturating_sub(range.start)).sum();
    u32::try_from(lost).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policies;

    #[test]
    fn a_moment_is_that_of_the_programmes_country() {
        let at: Timestamp = "2020-03-11T00:05:59Z".parse().unwrap();
        let expected = Moment { date: "2020-03-11".parse().unwrap(), hour: 9, minute: 5 };
        let known = Policies::built_in().get("weekly-essentials".parse().unwrap()).cloned();
        assert!(known.is_some());
        assert_eq!([known, None].map(|programme| Local(programme).moment(at)), [expected; 2]);
    }

    #[test]
    fn only_what_the_service_has_recorded_is_told_as_sold() {
        let (row, offline) = (RequestId::random(), Offline::Stop);
        let voided = Verdict::AlreadyRecorded { voided: true, over_quota: false };
        for (stands, expected) in [
            (Stands::Became(Became::Sold), Answer::Sold { row, standing: None }),
            // The goods may be gone: the question stays open.
            (Stands::Became(Became::NotRecorded), Answer::NotSold { row, offline }),
            (Stands::Became(Became::Refused(Vec::new())), Answer::NotSold { row, offline }),
            (Stands::Became(Became::Released), Answer::NotSold { row, offline }),
            (Stands::Became(Became::Voided), Answer::NotSold { row, offline }),
            (Stands::Voiding, Answer::Failed(Failure::NotRecorded)),
            (Stands::Waits, Answer::WrittenDown { row }),
            (Stands::Uploaded(voided), Answer::WrittenDown { row }),
            (Stands::Unknown, Answer::Unknown { row, offline }),
        ] {
            assert_eq!(known(row, &stands, offline), expected, "{stands:?}");
        }
    }

    #[test]
    fn what_is_no_sale_is_a_question_where_it_was_unknown() {
        for became in [Became::Refused(Vec::new()), Became::NotRecorded, Became::Released, Became::NotRequired] {
            let stands = Stands::Became(became);
            assert_eq!([false, true].map(|open| state(&stands, open)), [RowState::NotSold, RowState::Unsettled]);
        }
        let voided = Stands::Became(Became::Voided);
        assert_eq!([false, true].map(|open| state(&voided, open)), [RowState::Voided, RowState::Unsettled]);
        assert_eq!(state(&Stands::Voided, true), RowState::Voided, "taken back by this terminal");
    }

    #[test]
    fn a_look_up_is_told_with_what_is_left_and_when_next() {
        let result = v1::PurchaseResult {
            outcome: Some(Outcome::Refused(v1::Refused {
                reasons: vec![v1::Reason { refusal: v1::Refusal::NotYourDay.into(), why: "Not today.".into() }],
            })),
            standing: Some(v1::Standing {
                units_left: Some(2),
                next_chance: Some(v1::NextChance { at: None, date: "2020-03-16".into() }),
                ..v1::Standing::default()
            }),
            echo: Some(v1::Echo { rotation_day: "Monday".into(), ..v1::Echo::default() }),
            ..v1::PurchaseResult::default()
        };
        let Answer::Refused { reasons, standing: Some(standing) } = looked_up(result, &Local(None)) else { panic!() };
        assert_eq!(reasons, [Reason { refusal: Refusal::NotYourDay, why: "Not today.".into() }]);
        assert_eq!((standing.units_left, standing.own_day), (Some(2), Some(Weekday::Monday)));
        assert_eq!(standing.next, "2020-03-16".parse().ok());
        assert!(matches!(looked_up(v1::PurchaseResult::default(), &Local(None)), Answer::Failed(_)));
    }
}
