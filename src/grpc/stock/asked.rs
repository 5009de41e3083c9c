//! What is reported and asked for: wire to domain, with every bad field by its path.

use std::collections::BTreeSet;

use super::super::convert;
use super::super::status::BadField;
use super::super::v1::{self, list_stock_request::Area, report_stock_request::Report as WireReport};
use crate::ids::{ProgrammeCode, SiteId};
use crate::sites::Sites;
use crate::stock::What;
use crate::stock::board::{Resume, Watcher};
use crate::stock::intake::{MOST_UNITS, Said, Stocks};

/// Rows of a page where nobody says how many.
const PAGE: usize = 100;
/// The most that there may be.
const LONGEST_PAGE: usize = 1000;
/// The longest beginning of an address, in characters: as long as an address.
const MAX_ADDRESS: usize = 200;
/// How far somebody may look, in metres.
const MAX_METRES: i32 = 20_000;
/// Of so many regions the names are told to whoever names one that there is not.
const REGIONS_TOLD: usize = 20;

/// What this site says.
pub(super) fn said(site: SiteId, wire: v1::ReportStockRequest) -> Result<Said, Vec<BadField>> {
    let request = convert::request_id(&wire.request_id, "request_id".into());
    let at = wire.at.map(|at| convert::moment(at, "at")).transpose();
    match (request, at, what(wire.report.as_ref())) {
        (Ok(request), Ok(at), Ok(what)) => Ok(Said { request, programme: wire.programme, site, what, at }),
        (request, at, what) => Err(request.err().into_iter().chain(at.err()).chain(what.err()).collect()),
    }
}

fn what(wire: Option<&WireReport>) -> Result<What, BadField> {
    let units = |units: i32, field: &str, least: u32| {
        let problem = || BadField::new(field, format!("must be {least} to {MOST_UNITS}"));
        u32::try_from(units).ok().filter(|units| (least..=MOST_UNITS).contains(units)).ok_or_else(problem)
    };
    match wire {
        Some(WireReport::Delivery(delivery)) => units(delivery.units, "delivery.units", 1).map(What::Delivered),
        Some(WireReport::Count(count)) => units(count.units, "count.units", 0).map(What::Counted),
        Some(WireReport::Pause(v1::Pause {})) => Ok(What::Paused),
        Some(WireReport::Resume(v1::Resume {})) => Ok(What::Resumed),
        None => Err(BadField::new("report", "is required: a delivery, a count, a pause or a resume")),
    }
}

/// A site of a page, and how far away it is where that is asked.
pub(super) type Found = (SiteId, Option<u32>);

/// The sites of a page, and the token of the next one; empty: there is none.
pub(super) fn page(stocks: &Stocks, wanted: &v1::ListStockRequest) -> Result<(Vec<Found>, String), Vec<BadField>> {
    let found = found(stocks, wanted.area.as_ref());
    let size = match usize::try_from(wanted.page_size) {
        Ok(0) => Ok(PAGE),
        Ok(size) if size <= LONGEST_PAGE => Ok(size),
        _ => Err(vec![BadField::new("page_size", format!("must be 1 to {LONGEST_PAGE}; 0 is {PAGE}"))]),
    };
    let (found, size) = match (found, size) {
        (Ok(found), Ok(size)) => (found, size),
        (found, size) => return Err(found.err().into_iter().chain(size.err()).flatten().collect()),
    };
    // A token is the last site of its page, and what was asked for: it means nothing elsewhere.
    let asked = format!("{} {:?}", wanted.programme, wanted.area);
    let begins = match wanted.page_token.split_once(' ') {
        None if wanted.page_token.is_empty() => Some(0),
        Some((last, of)) if of == asked => found.iter().position(|(site, _)| site.as_str() == last).map(|at| at + 1),
        _ => None,
    };
    let problem = "was not given for this programme and area, or the registry has changed: begin without it";
    let begins = begins.ok_or_else(|| vec![BadField::new("page_token", problem)])?;
    let page: Vec<Found> = found.iter().skip(begins).take(size).copied().collect();
    let is_last = begins + page.len() == found.len();
    let next = page.last().filter(|_| !is_last).map(|(last, _)| format!("{last} {asked}")).unwrap_or_default();
    Ok((page, next))
}

/// Every site of an area, in the order in which it is told.
fn found(stocks: &Stocks, area: Option<&Area>) -> Result<Vec<Found>, Vec<BadField>> {
    let one = |field: &str, problem: String| vec![BadField::new(field, problem)];
    let (sites, map) = stocks.map();
    let all = sites.iter();
    Ok(match area {
        None => all.map(|site| (site.id, None)).collect(),
        Some(Area::Region(name)) => {
            region(&sites, name, "region").map_err(|bad| vec![bad])?;
            all.filter(|site| site.region == *name).map(|site| (site.id, None)).collect()
        }
        Some(Area::Address(begins)) => {
            let words: Vec<&str> = begins.split_whitespace().collect();
            if words.is_empty() || begins.chars().count() > MAX_ADDRESS {
                let problem = format!("must be the first words of an address, at most {MAX_ADDRESS} characters");
                return Err(one("address", problem));
            }
            let is_there = |address: &str| {
                let mut its = address.split_whitespace();
                words.iter().all(|word| its.next() == Some(word))
            };
            all.filter(|site| is_there(&site.address)).map(|site| (site.id, None)).collect()
        }
        Some(Area::Near(v1::Near { lat, lng, metres })) => {
            let mut bad = Vec::new();
            for (field, degrees, most) in [("near.lat", lat, 90.0), ("near.lng", lng, 180.0)] {
                if !(-most..=most).contains(degrees) {
                    bad.push(BadField::new(field, format!("must be degrees from -{most} to {most}")));
                }
            }
            if !(1..=MAX_METRES).contains(metres) {
                bad.push(BadField::new("near.metres", format!("must be 1 to {MAX_METRES}")));
            }
            if !bad.is_empty() {
                return Err(bad);
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "no farther than was asked for"
            )]
            let metres_of = |far: f64| far.round() as u32;
            let near = map.within(*lat, *lng, f64::from(*metres));
            near.into_iter().map(|(site, far)| (site.id, Some(metres_of(far)))).collect()
        }
    })
}

fn region(sites: &Sites, name: &str, field: &str) -> Result<(), BadField> {
    if sites.iter().any(|site| site.region == name) {
        return Ok(());
    }
    let there: BTreeSet<&str> = sites.iter().map(|site| site.region.as_str()).collect();
    let names: Vec<_> = there.iter().copied().take(REGIONS_TOLD).collect();
    let more = if there.len() > names.len() { " and more" } else { "" };
    Err(BadField::new(field, format!("no site is in this region; there are {}{more}", names.join(", "))))
}

/// Whoever watches, from where they say.
pub(super) fn watcher(
    stocks: &Stocks,
    programme: ProgrammeCode,
    wanted: &v1::WatchStockRequest,
) -> Result<Watcher, Vec<BadField>> {
    if !wanted.region.is_empty() {
        region(&stocks.sites(), &wanted.region, "region").map_err(|bad| vec![bad])?;
    }
    if wanted.resume_token.is_empty() {
        return Ok(stocks.board.watch(programme));
    }
    let problem = match Resume::from_bytes(&wanted.resume_token) {
        Some(resume) if resume.programme() != programme => "is of another programme; begin without it",
        Some(resume) if resume.scope() != wanted.region => "is of another region; begin without it",
        Some(resume) => return Ok(stocks.board.watch_from(&resume)),
        None => "was never given by this service; begin without it",
    };
    Err(vec![BadField::new("resume_token", problem)])
}
