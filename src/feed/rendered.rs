//! What answers are put together from: every site and every stock as JSON, made once for a version of the board, so that an
//! answer is a joining of texts. At most once a second one request makes the next version; the others are answered from the one
//! before meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinError;

use crate::ids::{ProgrammeCode, ProgrammeId, SiteId};
use crate::sites::near::Map;
use crate::sites::{Site, Sites};
use crate::stock::board::Picture;
use crate::stock::intake::Stocks;
use crate::stock::{Level, Shown, Source};
use crate::time::Timestamp;

use super::addresses::Addresses;

/// When nothing has been read for so long, whatever the board says may be otherwise: then every figure is stale.
const BEHIND: Duration = Duration::from_secs(60);

/// For so long answers are put together from what was made last: what changes every moment is not made anew every moment.
const MADE_EVERY: Duration = Duration::from_secs(1);

/// A site as it stands in answers, without the braces around it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) site: Arc<Site>,
    pub(super) json: Box<str>,
    /// Its code in the feed of 2020, with a comma behind it.
    pub(super) code_of_2020: String,
    /// `None`: nobody knows where it is.
    pub(super) of_2020: Option<Box<str>>,
}

/// What a site has of one thing as it stands in answers, without the braces around it.
#[derive(Debug)]
pub(super) struct Stock {
    /// `None`: nobody knows.
    pub(super) shown: Option<Shown>,
    pub(super) json: Box<str>,
    /// `None`: nobody knows.
    pub(super) of_2020: Option<Box<str>>,
}

/// All of it.
pub(super) struct Rendered {
    sites: Arc<Sites>,
    version: u64,
    read_until: Option<Timestamp>,
    made: Timestamp,
    behind: bool,
    /// In the order of the codes.
    pub(super) places: Arc<[Place]>,
    /// Which place has which code: a search among the places would touch the memory of a dozen for each that it finds.
    nth: Arc<HashMap<SiteId, usize>>,
    pub(super) map: Arc<Map>,
    pub(super) addresses: Arc<Addresses>,
    /// Of each programme, in the order of the places.
    stocks: BTreeMap<ProgrammeCode, Vec<Arc<Stock>>>,
}

/// What one request is answered from.
pub(super) struct View {
    pub(super) rendered: Arc<Rendered>,
    /// Until when everything that happened is in it; `None`: nothing was read yet.
    pub(super) read_until: Option<Timestamp>,
}

impl std::ops::Deref for View {
    type Target = Rendered;

    fn deref(&self) -> &Rendered {
        &self.rendered
    }
}

impl Rendered {
    /// Which place has this code.
    pub(super) fn nth(&self, site: SiteId) -> Option<usize> {
        self.nth.get(&site).copied()
    }

    /// The stocks of this programme, in the order of the places.
    pub(super) fn of(&self, programme: ProgrammeCode) -> &[Arc<Stock>] {
        self.stocks.get(&programme).map(Vec::as_slice).unwrap_or_default()
    }

    /// Made anew it would be the same.
    fn is_of(&self, now: &Moment) -> bool {
        self.version == now.picture.version && self.is_of_the_kind(now)
    }

    /// Levels may have changed, and it has only just been made.
    fn is_good_for(&self, now: &Moment) -> bool {
        (self.made..self.made.plus(MADE_EVERY)).contains(&now.at) && self.is_of_the_kind(now)
    }

    fn is_of_the_kind(&self, now: &Moment) -> bool {
        self.behind == now.behind
            && Arc::ptr_eq(&self.sites, &now.sites)
            && self.stocks.keys().copied().eq(now.programmes.keys().copied())
    }
}

/// What there is to be rendered.
struct Moment {
    at: Timestamp,
    picture: Arc<Picture>,
    behind: bool,
    sites: Arc<Sites>,
    programmes: BTreeMap<ProgrammeCode, ProgrammeId>,
}

/// The newest that was made. Clones share it.
#[derive(Clone)]
pub(super) struct Cache {
    stocks: Stocks,
    kept: Arc<ArcSwapOption<Rendered>>,
    making: Arc<Mutex<()>>,
}

impl Cache {
    pub(super) fn new(stocks: Stocks) -> Self {
        Self { stocks, kept: Arc::default(), making: Arc::default() }
    }

    /// What is shown at this time.
    pub(super) async fn view(&self, now: Timestamp) -> Result<View, JoinError> {
        let moment = self.moment(now);
        let making = match self.kept.load_full() {
            Some(rendered) if rendered.is_of(&moment) => {
                return Ok(View { rendered, read_until: moment.picture.read_until });
            }
            Some(rendered) if rendered.is_good_for(&moment) => {
                return Ok(View { read_until: rendered.read_until, rendered });
            }
            Some(rendered) => match self.making.clone().try_lock_owned() {
                Ok(making) => making,
                Err(_) => return Ok(View { read_until: rendered.read_until, rendered }),
            },
            None => self.making.clone().lock_owned().await,
        };
        let cache = self.clone();
        // Goes on when whoever asked has hung up: somebody else waits for it.
        tokio::task::spawn_blocking(move || {
            let view = cache.make(&cache.moment(now));
            drop(making);
            view
        })
        .await
    }

    fn moment(&self, now: Timestamp) -> Moment {
        let picture = self.stocks.board.picture();
        let behind = picture.read_until.is_none_or(|until| now.since(until) > BEHIND);
        let programmes = self.stocks.programmes().into_iter().map(|(code, id, _)| (code, id)).collect();
        Moment { at: now, picture, behind, sites: self.stocks.sites(), programmes }
    }

    fn make(&self, moment: &Moment) -> View {
        let kept = self.kept.load_full();
        let read_until = moment.picture.read_until;
        if let Some(rendered) = kept.as_ref().filter(|kept| kept.is_of(moment)) {
            // Somebody else was first.
            return View { rendered: rendered.clone(), read_until };
        }
        let (sites, map) = self.stocks.map();
        let before = kept.filter(|kept| Arc::ptr_eq(&kept.sites, &sites));
        let (places, nth, addresses) = before.as_ref().map_or_else(
            || {
                let addresses = Addresses::of(sites.iter().map(|site| &**site));
                let nth = sites.iter().enumerate().map(|(nth, site)| (site.id, nth)).collect();
                (sites.iter().map(Place::of).collect(), Arc::new(nth), Arc::new(addresses))
            },
            |before| (before.places.clone(), before.nth.clone(), before.addresses.clone()),
        );
        let stocks = moment.programmes.iter().map(|(code, id)| {
            let before = before.as_ref().map(|before| before.of(*code)).unwrap_or_default();
            (*code, self.stocks_of(*code, *id, moment, &places, before))
        });
        let stocks = stocks.collect();
        let (version, made, behind) = (moment.picture.version, moment.at, moment.behind);
        let rendered =
            Arc::new(Rendered { sites, version, read_until, made, behind, places, nth, map, addresses, stocks });
        self.kept.store(Some(rendered.clone()));
        View { rendered, read_until }
    }

    /// The stocks of this programme at these places; `before`: as they were at the same places, as far as they were made.
    fn stocks_of(
        &self,
        code: ProgrammeCode,
        id: ProgrammeId,
        moment: &Moment,
        places: &[Place],
        before: &[Arc<Stock>],
    ) -> Vec<Arc<Stock>> {
        let mut rows = moment.picture.of(code).iter().peekable();
        let mut before = before.iter();
        let stock = |place: &Place| {
            while rows.next_if(|(key, _)| key.site < place.site.id).is_some() {}
            let shown = rows.next_if(|(key, _)| key.site == place.site.id).map(|(_, shown)| *shown);
            let shown = shown.map(|shown| Shown { stale: shown.stale || moment.behind, ..shown });
            let same = before.next().filter(|stock| stock.shown == shown);
            same.cloned().unwrap_or_else(|| Arc::new(self.stock(code, id, shown)))
        };
        places.iter().map(stock).collect()
    }

    fn stock(&self, code: ProgrammeCode, id: ProgrammeId, shown: Option<Shown>) -> Stock {
        let in_utc = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let delivered_at = shown.and_then(|shown| shown.delivered_at);
        let as_of = shown.map(|shown| shown.as_of);
        let (stale, unverified) = shown.map(|shown| (shown.stale, shown.unverified)).unwrap_or_default();
        let level = shown.map(|shown| shown.level);
        let of_2020 = shown.map(|shown| StockOf2020 {
            // What was counted and never delivered, as far as anybody knows, was there then.
            stock_at: self.stocks.local(code, shown.delivered_at.or(shown.counted_at).unwrap_or(shown.as_of)),
            remain_stat: level_of_2020(shown.level),
            created_at: self.stocks.local(code, shown.as_of),
            stale,
            unverified,
        });
        let json = StockFields {
            programme: id,
            level: level_word(level),
            as_of: in_utc(as_of),
            source: shown.map(|shown| source_word(shown.source)),
            delivered_at: in_utc(delivered_at),
            counted_at: in_utc(shown.and_then(|shown| shown.counted_at)),
            stale,
            unverified,
        };
        Stock { shown, json: fields(&json), of_2020: of_2020.as_ref().map(fields) }
    }
}

impl Place {
    fn of(site: &Arc<Site>) -> Self {
        let (lat, lng) = site.position.unzip();
        let Site { id: code, name, region, address, channel, .. } = &**site;
        let kind = kind_of_2020(channel.as_str());
        let of_2020 = site.position.map(|(lat, lng)| PlaceOf2020 { code: *code, name, addr: address, kind, lat, lng });
        let json = PlaceFields { site: *code, name, channel: channel.as_str(), region, address, lat, lng };
        let code_of_2020 = format!("\"code\":\"{code}\",");
        Self { site: site.clone(), json: fields(&json), code_of_2020, of_2020: of_2020.as_ref().map(fields) }
    }
}

#[derive(Serialize)]
struct PlaceFields<'a> {
    site: SiteId,
    name: &'a str,
    channel: &'a str,
    region: &'a str,
    address: &'a str,
    lat: Option<f64>,
    lng: Option<f64>,
}

#[derive(Serialize)]
struct PlaceOf2020<'a> {
    code: SiteId,
    name: &'a str,
    addr: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    lat: f64,
    lng: f64,
}

#[derive(Serialize)]
struct StockFields {
    programme: ProgrammeId,
    level: &'static str,
    as_of: Option<String>,
    source: Option<&'static str>,
    delivered_at: Option<String>,
    counted_at: Option<String>,
    stale: bool,
    unverified: bool,
}

#[derive(Serialize)]
struct StockOf2020 {
    stock_at: String,
    remain_stat: &'static str,
    created_at: String,
    stale: bool,
    unverified: bool,
}

/// The fields of an object without its braces: others are put beside them.
fn fields(object: &impl Serialize) -> Box<str> {
    let json = serde_json::to_string(object).unwrap_or_default();
    json.strip_prefix('{').and_then(|json| json.strip_suffix('}')).unwrap_or_default().into()
}

/// How a level is called; `None`: nobody knows it.
pub(super) fn level_word(level: Option<Level>) -> &'static str {
    match level {
        Some(Level::Plenty) => "plenty",
        Some(Level::Some) => "some",
        Some(Level::Few) => "few",
        Some(Level::Empty) => "empty",
        Some(Level::Paused) => "paused",
        None => "unknown",
    }
}

/// How it was called in 2020, where "paused" was "break".
fn level_of_2020(level: Level) -> &'static str {
    match level {
        Level::Paused => "break",
        level => level_word(Some(level)),
    }
}

/// What a level rests on.
pub(super) fn source_word(source: Source) -> &'static str {
    match source {
        Source::Count => "count",
        Source::Delivery => "delivery",
        Source::Sales => "sales",
    }
}

/// The `type` of 2020: a pharmacy, a post office, or what else sells.
fn kind_of_2020(channel: &str) -> &'static str {
    match channel {
        "pharmacy" => "01",
        "post_office" => "02",
        _ => "03",
    }
}
