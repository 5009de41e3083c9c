//! The feed as it was in 2020: the same paths, parameters and fields, so that what was written for it works as it is. Beside them
//! stand the two marks whose absence misled people then, `stale` and `unverified`. Nothing in it is null, on which programs of then fall
//! over: sites without a position, and stocks of which nobody knows anything, are left out; its own form beside it has them. Parameters that it does not know it ignores, as
//! it did: its callers are what they are.

use crate::ids::ProgrammeCode;

use super::addresses;
use super::answer::{Answer, JSON};
use super::asked::{Asked, Problem};
use super::rendered::View;

/// How many rows a page may have; the first is also how many it has unless it is asked for otherwise.
const PAGE: std::ops::RangeInclusive<usize> = 500..=5_000;
/// The farthest that may be looked, in metres.
const METRES: f64 = 5_000.0;

/// Where and what the sites are.
pub(super) fn stores(view: &View, asked: Asked) -> Result<Answer, Problem> {
    let rows = view.places.iter().filter_map(|place| Some(("", place.of_2020.as_deref()?)));
    page(rows.collect(), asked, "storeInfos")
}

/// What they have.
pub(super) fn sales(view: &View, programme: ProgrammeCode, asked: Asked) -> Result<Answer, Problem> {
    let rows = view.places.iter().zip(view.of(programme));
    let rows = rows.filter_map(|(place, stock)| Some((place.code_of_2020.as_str(), stock.of_2020.as_deref()?)));
    page(rows.collect(), asked, "sales")
}

/// A page of these rows, each of two parts.
fn page(all: Vec<(&str, &str)>, mut asked: Asked, name: &str) -> Result<Answer, Problem> {
    let page = asked.number("page", 1..=1_000_000)?.unwrap_or(1);
    let size = asked.number("perPage", PAGE)?.unwrap_or(*PAGE.start());
    let rows = all.chunks(size).nth(page - 1).unwrap_or_default();
    let (pages, total, count) = (all.len().div_ceil(size), all.len(), rows.len());
    let rows: Vec<_> = rows.iter().map(|(first, second)| format!("{{{first}{second}}}")).collect();
    let rows = rows.join(",");
    let body = format!(
        "{{\"totalPages\":{pages},\"totalCount\":{total},\"page\":{page},\"count\":{count},\"{name}\":[{rows}]}}"
    );
    Ok(Answer::new(JSON, body))
}

/// The sites near a place and what they have, the nearest first.
pub(super) fn by_geo(view: &View, programme: ProgrammeCode, mut asked: Asked) -> Result<Answer, Problem> {
    let lat = asked.measure("lat", 33.0..=43.0)?;
    let lng = asked.measure("lng", 124.0..=132.0)?;
    let metres = asked.measure("m", 1.0..=METRES)?;
    let near = view.map.within(lat, lng, metres);
    let (count, stores) = both(view, programme, near.iter().filter_map(|(site, _)| view.nth(site.id)));
    Ok(Answer::new(JSON, format!("{{\"count\":{count},\"stores\":[{stores}]}}")).private())
}

/// The sites whose address has these words and what they have, in the order of the codes.
pub(super) fn by_address(view: &View, programme: ProgrammeCode, mut asked: Asked) -> Result<Answer, Problem> {
    let address = asked.required("address", "Seoul%20Jongno-gu")?;
    if addresses::count(&address) < 2 {
        let problem = "must name a district at least; write two words or more, such as Seoul Jongno-gu";
        return Err(Problem::bad("address", problem));
    }
    let found = view.addresses.with(&address);
    if found.len() > *PAGE.end() {
        let problem = format!("is that of more than {} stores; write more of it, such as Seoul Jongno-gu", PAGE.end());
        return Err(Problem::bad("address", problem));
    }
    let (count, stores) = both(view, programme, found.into_iter());
    let address = serde_json::Value::from(address);
    Ok(Answer::new(JSON, format!("{{\"address\":{address},\"count\":{count},\"stores\":[{stores}]}}")))
}

/// Where sites are and what they have, one after the other, and how many they are.
fn both(view: &View, programme: ProgrammeCode, sites: impl Iterator<Item = usize>) -> (usize, String) {
    let stocks = view.of(programme);
    let (mut count, mut rows) = (0, String::new());
    for nth in sites {
        let place = view.places.get(nth).and_then(|place| place.of_2020.as_deref());
        let stock = stocks.get(nth).and_then(|stock| stock.of_2020.as_deref());
        let Some((place, stock)) = place.zip(stock) else { continue };
        let begins = if count == 0 { "{" } else { ",{" };
        rows.extend([begins, place, ",", stock, "}"]);
        count += 1;
    }
    (count, rows)
}
