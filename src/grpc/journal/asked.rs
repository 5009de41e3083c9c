//! What is uploaded and asked for: wire to domain, with every bad field by its path.

use crate::grpc::convert;
use crate::grpc::status::BadField;
use crate::grpc::v1;
use crate::ids::{ProgrammeId, RequestId, SiteId};
use crate::purchase::{AskedSale, Invalid};
use crate::time::Date;

/// Rows of a page where nobody says how many.
const PAGE: usize = 100;
/// The most that there may be.
const LONGEST_PAGE: usize = 1_000;

/// A sale of this site.
pub(super) fn sale(wire: Option<&v1::OfflineSale>, own: SiteId) -> Result<AskedSale<'_>, Vec<BadField>> {
    let wire = wire.ok_or_else(|| vec![BadField::new("sale", "is required")])?;
    let mut bad = Vec::new();
    if wire.site_code.parse() != Ok(own) {
        let problem =
            format!("must be the calling site's own, {own}: a journal of another site is uploaded by that site");
        bad.push(BadField::new("sale.site_code", problem));
    }
    let sold_at = match wire.sold_at {
        None => Err(BadField::new("sale.sold_at", "is required: when it was sold, as the paper says")),
        Some(at) => convert::moment(at, "sale.sold_at"),
    };
    let (relation, papers) = convert::stated(&wire.relation, &wire.papers, |field| format!("sale.{field}"), &mut bad);
    let programme = convert::programme(&wire.programme)
        .map_err(|BadField { problem, .. }| BadField::new("sale.programme", problem));
    let request = convert::request_id(&wire.request_id, "sale.request_id".into());
    let buyer = convert::buyer(wire.buyer.as_ref(), "sale.buyer");
    match (programme, request, buyer, sold_at) {
        (Ok(programme), Ok(request), Ok(buyer), Ok(sold_at)) if bad.is_empty() => {
            Ok(AskedSale { programme, request, buyer, quantity: wire.quantity, sold_at, relation, papers })
        }
        (programme, request, buyer, sold_at) => {
            let fields = [request.err(), programme.err(), buyer.err(), sold_at.err()];
            Err(fields.into_iter().flatten().chain(bad).collect())
        }
    }
}

/// The id of a sale, to be said back: whatever is none is not.
pub(super) fn echo(wire: Option<&v1::OfflineSale>) -> String {
    let id = wire.and_then(|sale| sale.request_id.parse::<RequestId>().ok());
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// A field of a sale that the use case did not accept.
pub(super) fn bad_field(invalid: Invalid) -> BadField {
    BadField::new(format!("sale.{}", invalid.field), invalid.problem)
}

/// Which rows are wanted.
pub(super) struct Wanted {
    pub(super) programme: ProgrammeId,
    /// `None`: of every day.
    pub(super) date: Option<Date>,
    pub(super) size: usize,
    pub(super) after: String,
}

pub(super) fn list(wire: &v1::ListUploadsRequest) -> Result<Wanted, Vec<BadField>> {
    let date = match wire.date.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| BadField::new("date", "must be a day such as 2020-03-11, or empty")),
    };
    let size = match usize::try_from(wire.page_size) {
        Ok(0) => Ok(PAGE),
        Ok(size) if size <= LONGEST_PAGE => Ok(size),
        _ => Err(BadField::new("page_size", format!("must be 1 to {LONGEST_PAGE}; 0 is {PAGE}"))),
    };
    match (convert::programme(&wire.programme), date, size) {
        (Ok(programme), Ok(date), Ok(size)) => Ok(Wanted { programme, date, size, after: wire.page_token.clone() }),
        (programme, date, size) => Err([programme.err(), date.err(), size.err()].into_iter().flatten().collect()),
    }
}
