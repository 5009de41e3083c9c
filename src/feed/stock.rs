//! The feed in its own words, as JSON and as CSV: one programme's stock, of one site, a region, an address, around a place or of all.

use axum::http::HeaderName;
use serde_json::json;

use crate::ids::SiteId;
use crate::stock::intake::Stocks;
use crate::time::Timestamp;

use super::addresses;
use super::answer::{Answer, JSON};
use super::asked::{Asked, Problem};
use super::rendered::{Place, Stock, View, level_word, source_word};

/// The farthest that may be looked, in metres.
const METRES: f64 = 20_000.0;
/// How many rows a page has unless it is asked for otherwise, and at most.
const PAGE: usize = 500;
const LARGEST_PAGE: usize = 5_000;

const PARAMETERS: [&str; 9] =
    ["programme", "site", "region", "address", "lat", "lng", "metres", "page_size", "page_token"];

/// Until when everything that happened is in an answer of rows alone.
pub(super) const READ_UNTIL: HeaderName = HeaderName::from_static("read-until");
/// The token of the page after this one, of rows alone.
pub(super) const NEXT_PAGE_TOKEN: HeaderName = HeaderName::from_static("next-page-token");

const COLUMNS: [&str; 16] = [
    "site",
    "name",
    "channel",
    "region",
    "address",
    "lat",
    "lng",
    "distance_metres",
    "programme",
    "level",
    "as_of",
    "source",
    "delivered_at",
    "counted_at",
    "stale",
    "unverified",
];

/// The programmes of which there is stock.
pub(super) fn programmes(stocks: &Stocks, asked: Asked) -> Result<Answer, Problem> {
    asked.done(&[])?;
    let told = stocks.programmes().into_iter().map(|(code, id, title)| {
        let from = stocks.thresholds(code);
        let from = json!({ "plenty": from.plenty, "some": from.some, "few": from.few });
        json!({ "programme": id, "title": title, "units_from": from })
    });
    let told: Vec<_> = told.collect();
    Ok(Answer::new(JSON, json!({ "programmes": told }).to_string()))
}

/// The stock as JSON.
pub(super) fn json(stocks: &Stocks, view: &View, asked: Asked) -> Result<Answer, Problem> {
    let found = find(stocks, view, asked)?;
    let mut rows = String::new();
    for (row, far) in found.rows(view) {
        let begins = if rows.is_empty() { "{" } else { ",{" };
        rows.extend([begins, &row.0.json]);
        if let Some(far) = far {
            rows.extend([",\"distance_metres\":", &far]);
        }
        rows.extend([",", &row.1.json, "}"]);
    }
    let programme = &found.programme;
    let read_until = serde_json::Value::from(view.read_until.map(|at| at.to_string()));
    let next = serde_json::Value::from(found.next.clone());
    let body = format!(
        "{{\"programme\":\"{programme}\",\"read_until\":{read_until},\"stock\":[{rows}],\"next_page_token\":{next}}}"
    );
    let answer = Answer::new(JSON, body).tagged_by(format!("{programme} {next} {rows}"));
    Ok(if found.around { answer.private() } else { answer })
}

/// The same as CSV. What is not in a row stands in headers.
pub(super) fn csv(stocks: &Stocks, view: &View, asked: Asked) -> Result<Answer, Problem> {
    let found = find(stocks, view, asked)?;
    let mut table = csv::Writer::from_writer(Vec::new());
    let columns = COLUMNS.into_iter().filter(|column| found.around || *column != "distance_metres");
    // Into memory: there is nothing that could fail.
    let _ = table.write_record(columns);
    for ((place, stock), far) in found.rows(view) {
        let _ = table.write_record(cells(&found.programme, place, stock, far));
    }
    let answer = Answer::new("text/csv; charset=utf-8", table.into_inner().unwrap_or_default());
    let read_until = view.read_until.map(|at| at.to_string()).unwrap_or_default();
    let answer = if found.around { answer.private() } else { answer };
    Ok(answer.with(READ_UNTIL, &read_until).with(NEXT_PAGE_TOKEN, &found.next.unwrap_or_default()))
}

fn cells(programme: &str, place: &Place, stock: &Stock, far: Option<String>) -> Vec<String> {
    let (site, shown) = (&place.site, stock.shown);
    let (lat, lng) = site.position.unzip();
    let degrees = |degrees: Option<f64>| degrees.map(|degrees| degrees.to_string()).unwrap_or_default();
    let at = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let mut cells = vec![site.id.to_string(), cell(&site.name), site.channel.to_string(), cell(&site.region)];
    cells.extend([cell(&site.address), degrees(lat), degrees(lng)]);
    cells.extend(far);
    cells.extend([programme.to_owned(), level_word(shown.map(|shown| shown.level)).to_owned()]);
    cells.push(at(shown.map(|shown| shown.as_of)));
    cells.push(shown.map(|shown| source_word(shown.source)).unwrap_or_default().to_owned());
    cells.push(at(shown.and_then(|shown| shown.delivered_at)));
    cells.push(at(shown.and_then(|shown| shown.counted_at)));
    cells.push(shown.is_some_and(|shown| shown.stale).to_string());
    cells.push(shown.is_some_and(|shown| shown.unverified).to_string());
    cells
}

/// A text that no program for tables takes for a formula: a quote stands before it, as is usual there.
fn cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() }
}

/// One page of what was asked for.
struct Found<'a> {
    programme: String,
    stocks: &'a [std::sync::Arc<Stock>],
    /// Which places, each with how far it is where that was asked.
    places: Vec<(usize, Option<f64>)>,
    around: bool,
    next: Option<String>,
}

impl<'a> Found<'a> {
    /// The rows, each with its distance in whole metres where that was asked.
    fn rows(&self, view: &'a View) -> impl Iterator<Item = ((&'a Place, &'a Stock), Option<String>)> {
        self.places.iter().filter_map(move |(nth, far)| {
            let (place, stock) = (view.places.get(*nth)?, self.stocks.get(*nth)?);
            Some(((place, &**stock), far.map(|far| format!("{far:.0}"))))
        })
    }
}

fn find<'a>(stocks: &Stocks, view: &'a View, mut asked: Asked) -> Result<Found<'a>, Problem> {
    let missing = || {
        let known: Vec<_> = stocks.programmes().into_iter().map(|(_, id, _)| id.to_string()).collect();
        Problem::bad("programme", format!("is missing; known: {}", known.join(", ")))
    };
    let programme = asked.text("programme")?.ok_or_else(missing)?;
    let code = stocks.programme(&programme).map_err(|why| Problem::unknown("programme", why))?;
    let around = ["lat", "lng", "metres"].into_iter().any(|name| asked.has(name));
    one_of(&asked, around)?;
    let size = asked.number("page_size", 1..=LARGEST_PAGE)?.unwrap_or(PAGE);
    let token = asked.text("page_token")?.map(|token| Token::parse(&token, around)).transpose()?;
    let mut places = if around { near(view, &mut asked)? } else { by_code(view, &mut asked)? };
    asked.done(&PARAMETERS)?;

    let token_of = |(nth, far): &(usize, Option<f64>)| {
        let site = view.places.get(*nth)?.site.id;
        Some(Token { far: far.unwrap_or_default(), site })
    };
    if let Some(token) = token {
        places.drain(..places.partition_point(|place| token_of(place).is_some_and(|at| !at.is_after(&token))));
    }
    let more = places.len() > size;
    places.truncate(size);
    let last = places.last().filter(|_| more).and_then(token_of);
    Ok(Found { programme, stocks: view.of(code), places, around, next: last.map(|last| last.write(around)) })
}

/// Two of them would be read as "both" by one and as "either" by another.
fn one_of(asked: &Asked, around: bool) -> Result<(), Problem> {
    let mut given: Vec<_> = ["site", "region", "address"].into_iter().filter(|name| asked.has(name)).collect();
    given.extend(around.then_some("lat"));
    match given[..] {
        [_, second, ..] => Err(Problem::bad(second, "write one of site, region, address, or lat with lng and metres")),
        _ => Ok(()),
    }
}

fn near(view: &View, asked: &mut Asked) -> Result<Vec<(usize, Option<f64>)>, Problem> {
    let lat = asked.measure("lat", -90.0..=90.0)?;
    let lng = asked.measure("lng", -180.0..=180.0)?;
    let metres = asked.measure("metres", 1.0..=METRES)?;
    let near = view.map.within(lat, lng, metres);
    Ok(near.into_iter().filter_map(|(site, far)| Some((view.nth(site.id)?, Some(far)))).collect())
}

fn by_code(view: &View, asked: &mut Asked) -> Result<Vec<(usize, Option<f64>)>, Problem> {
    let found: Vec<usize> = if let Some(site) = asked.text("site")? {
        let code = site.parse().map_err(|error| Problem::bad("site", format!("{error}")))?;
        vec![view.nth(code).ok_or_else(|| Problem::unknown("site", "no site has this code"))?]
    } else if let Some(region) = asked.text("region")? {
        let here = |(_, place): &(usize, &Place)| place.site.region == region;
        view.places.iter().enumerate().filter(here).map(|(nth, _)| nth).collect()
    } else if let Some(address) = asked.text("address")? {
        if addresses::count(&address) == 0 {
            return Err(Problem::bad("address", "has no word in it; write it as Seoul Jongno-gu"));
        }
        view.addresses.with(&address)
    } else {
        (0..view.places.len()).collect()
    };
    Ok(found.into_iter().map(|nth| (nth, None)).collect())
}

/// The last row of a page. Not which page it was: rows that come and go between two pages move no other.
struct Token {
    far: f64,
    site: SiteId,
}

impl Token {
    fn is_after(&self, other: &Self) -> bool {
        self.far.total_cmp(&other.far).then_with(|| self.site.cmp(&other.site)).is_gt()
    }

    fn write(&self, around: bool) -> String {
        if around { format!("{:x}.{}", self.far.to_bits(), self.site) } else { self.site.to_string() }
    }

    fn parse(text: &str, around: bool) -> Result<Self, Problem> {
        let read = || {
            let (far, site) = if around { text.split_once('.')? } else { ("0", text) };
            Some(Self { far: f64::from_bits(u64::from_str_radix(far, 16).ok()?), site: site.parse().ok()? })
        };
        let remedy = "must be the next_page_token of the same question's page before; leave it out to begin";
        read().ok_or_else(|| Problem::bad("page_token", remedy))
    }
}
