//! What became of sales: domain to wire.

use super::asked::Wanted;
use crate::grpc::convert::{self, instant};
use crate::grpc::status::{self, BadField};
use crate::grpc::v1::{self, upload_sales_response::Verdict as Wire};
use crate::ids::{RequestId, SiteId};
use crate::journal::{Conflict, Row, Taken, Verdict, Why};

/// A sale that could not be read.
pub(super) fn invalid(bad: Vec<BadField>) -> Wire {
    let field = |BadField { path, problem }| v1::InvalidField { field: path, problem };
    Wire::Invalid(v1::LateInvalid { fields: bad.into_iter().map(field).collect() })
}

/// What became of a sale. `district` tells where a site is.
pub(super) fn verdict(taken: Taken, district: impl Fn(SiteId) -> String) -> Wire {
    match taken {
        Taken::Recorded(receipt) => Wire::Recorded(v1::LateRecorded { receipt: Some(convert::receipt(receipt)) }),
        Taken::OverQuota(receipt, earlier) => Wire::OverQuota(v1::LateOverQuota {
            receipt: Some(convert::receipt(receipt)),
            earlier: earlier.into_iter().map(|earlier| convert::earlier(earlier, &district)).collect(),
        }),
        Taken::AlreadyRecorded { voided, over } => {
            Wire::AlreadyRecorded(v1::LateAlreadyRecorded { voided, over_quota: over })
        }
        Taken::Quarantined(why) => {
            Wire::Quarantined(v1::LateQuarantined { reason: reason(why).into(), why: why.advice().to_owned() })
        }
        Taken::Full => Wire::Failure(convert::failure(status::book_full())),
        Taken::Failed(error) => Wire::Failure(convert::failure(status::sale_not_taken(error))),
    }
}

fn reason(why: Why) -> v1::QuarantineReason {
    match why {
        Why::InTheFuture => v1::QuarantineReason::InTheFuture,
        Why::TooOld => v1::QuarantineReason::TooOld,
        Why::NotInForce => v1::QuarantineReason::NotInForce,
        Why::EnteredDifferently => v1::QuarantineReason::EnteredDifferently,
        Why::TooMany => v1::QuarantineReason::TooMany,
    }
}

/// The rows of a page, and the token of the next one; empty: there is none.
pub(super) fn page<'a>(rows: &'a [Row], wanted: &Wanted) -> Result<(&'a [Row], String), Vec<BadField>> {
    // A token is the last row of its page, and what was asked for: it means nothing elsewhere.
    let asked = format!("{} {}", wanted.programme, wanted.date.map(|date| date.to_string()).unwrap_or_default());
    let name = |row: &Row| format!("{}-{:x}", row.sale.request, u64::from_be_bytes(row.sale.mark));
    let begins = match wanted.after.split_once(' ') {
        None if wanted.after.is_empty() => Some(0),
        Some((last, of)) if of == asked => place(last)
            .and_then(|last| rows.iter().position(|row| (row.sale.request, row.sale.mark) == last).map(|at| at + 1)),
        _ => None,
    };
    let problem = "was not given for this programme and date: begin without it";
    let rest = begins.and_then(|begins| rows.get(begins..));
    let rest = rest.ok_or_else(|| vec![BadField::new("page_token", problem)])?;
    let page = rest.get(..wanted.size).unwrap_or(rest);
    let is_last = page.len() == rest.len();
    let next = page.last().filter(|_| !is_last).map(|last| format!("{} {asked}", name(last))).unwrap_or_default();
    Ok((page, next))
}

/// Which row a token names.
fn place(last: &str) -> Option<(RequestId, [u8; 8])> {
    let (request, mark) = last.rsplit_once('-')?;
    Some((request.parse().ok()?, u64::from_str_radix(mark, 16).ok()?.to_be_bytes()))
}

/// A row of a site's book. `district` tells where a site is.
pub(super) fn row(row: &Row, district: impl Fn(SiteId) -> String) -> v1::UploadedSale {
    let conflict = |conflict: &Conflict| v1::ConflictingSale {
        at: Some(instant(conflict.at)),
        quantity: conflict.quantity,
        district: district(conflict.site),
    };
    let (verdict, reason, conflicts) = match &row.verdict {
        Verdict::Pending => (v1::UploadVerdict::Pending, None, Vec::new()),
        Verdict::Recorded => (v1::UploadVerdict::Recorded, None, Vec::new()),
        Verdict::OverQuota(conflicts) => (v1::UploadVerdict::OverQuota, None, conflicts.iter().map(conflict).collect()),
        Verdict::AlreadyRecorded => (v1::UploadVerdict::AlreadyRecorded, None, Vec::new()),
        Verdict::AlreadyVoided => (v1::UploadVerdict::AlreadyVoided, None, Vec::new()),
        Verdict::Quarantined(why) => (v1::UploadVerdict::Quarantined, Some(reason(*why)), Vec::new()),
    };
    v1::UploadedSale {
        request_id: row.sale.request.to_string(),
        quantity: row.sale.quantity,
        sold_at: Some(instant(row.sale.sold_at)),
        received_at: Some(instant(row.received)),
        verdict: verdict.into(),
        reason: reason.unwrap_or_default().into(),
        conflicts,
    }
}
