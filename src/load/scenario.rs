//! What a run is to be: a file that says how many sites, people and calls there are, and which of the things happen that go
//! wrong at real counters. What comes out of a file is valid as a whole; what is wrong is told all at once.

mod reader;

use std::time::Duration;

pub use reader::{ScenarioError, ScenarioErrors};

use super::programme::{CARRIED, Carried};
use super::run::{Arrivals, Phase, Wire};
use crate::ids::Channel;
use crate::time::Timestamp;
use reader::Reader;

/// The scenarios that come with the program: name and file.
pub const BUILT_IN: [(&str, &str); 2] =
    [("canonical", include_str!("scenarios/canonical.toml")), ("morning", include_str!("scenarios/morning.toml"))];

/// Calls under way at once that a process holds, unless the scenario says otherwise: a second of what one process can send.
const IN_FLIGHT: u32 = 8192;
/// The longest phase: a day.
const LONGEST_SECONDS: f64 = 86_400.0;
/// The highest rate per second: more than any service of one machine can take.
const HIGHEST_RATE: f64 = 1_000_000.0;

/// What a run is to be. Every value has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it is about, one line.
    pub title: String,
    /// Where every random choice comes from.
    pub seed: u64,
    /// The programme that is sold under, one of the harness's own.
    pub programme: &'static str,
    /// How calls travel.
    pub wire: Wire,
    /// Where the clock of a service of the harness's own starts; `None`: the machine's time.
    pub clock: Option<Timestamp>,
    /// The most calls under way at once, in each process.
    pub in_flight: u32,
    /// Who sells.
    pub sites: SiteMix,
    /// Who buys.
    pub people: Crowd,
    /// What they ask for.
    pub purchases: PurchaseMix,
    /// What becomes of holds.
    pub holds: HoldMix,
    /// When purchases begin.
    pub arrivals: Arrivals,
}

/// Who sells.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteMix {
    /// How many sites take part.
    pub count: u32,
    /// Counters of each site.
    pub terminals: u32,
    /// HTTP/2 connections of each process; `None`: as many as suit the terminals.
    pub connections: Option<u32>,
    /// The sessions are opened spread over so long before the first purchase.
    pub opening: Duration,
    /// The registry file that the sites are taken from; `None`: they are made up.
    pub file: Option<String>,
    /// The channels of made-up sites, by weight. Sites of a file have their own.
    pub channels: Vec<(Channel, f64)>,
}

/// Who buys. Shares are of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Crowd {
    /// How many people there are.
    pub count: u64,
    /// How many of them come again and again.
    pub hot: u64,
    /// The share of purchases that is theirs.
    pub hot_share: f64,
    /// The share of purchases that the buyer tries at another site too, at the same moment.
    pub twice_share: f64,
}

/// What is asked for. Shares are of one.
#[derive(Debug, Clone, PartialEq)]
pub struct PurchaseMix {
    /// Units of one purchase, by weight.
    pub units: Vec<(u32, f64)>,
    /// The share that is sent again with the same request id, answered or not.
    pub retry_share: f64,
    /// The share that are holds.
    pub hold_share: f64,
    /// The share of sales that is taken back.
    pub void_share: f64,
    /// The share that is asked about afterwards.
    pub resolve_share: f64,
}

/// What becomes of holds. Shares are of one; what is left over is forgotten and runs out.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldMix {
    /// How long a hold lasts.
    pub length: Duration,
    /// The share that is confirmed in time.
    pub confirmed: f64,
    /// The share that is given back in time.
    pub released: f64,
    /// The share that is confirmed when it has run out already.
    pub late: f64,
}

impl Scenario {
    /// Reads a scenario; `file` names it in what is reported.
    pub fn parse(text: &str, file: &str) -> Result<Self, ScenarioErrors> {
        let mut reader = Reader::parse(text, file)?;
        let scenario = read(&mut reader);
        reader.finish(scenario)
    }

    /// One that comes with the program.
    pub fn built_in(name: &str) -> Option<Result<Self, ScenarioErrors>> {
        let (name, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
        Some(Self::parse(text, &format!("built-in {name}.toml")))
    }

    /// The programme that is sold under.
    pub fn carried(&self) -> &'static Carried {
        let [first, ..] = &CARRIED;
        Carried::named(self.programme).unwrap_or(first)
    }

    /// The same in so many seconds: every phase is stretched or pressed together alike.
    pub fn lasting(mut self, seconds: f64) -> Self {
        let whole = self.arrivals.length().as_secs_f64();
        match &mut self.arrivals {
            Arrivals::Open(phases) => {
                for phase in phases {
                    phase.length = Duration::from_secs_f64(phase.length.as_secs_f64() * seconds / whole);
                }
            }
            Arrivals::Closed { length, .. } => *length = Duration::from_secs_f64(seconds),
        }
        self
    }

    /// The same with so many purchases a second at its height: every phase is raised or lowered alike. `None` for a closed
    /// loop, which has no rate.
    pub fn at_rate(mut self, rate: f64) -> Option<Self> {
        let Arrivals::Open(phases) = &mut self.arrivals else { return None };
        let highest = phases.iter().map(|phase| phase.from.max(phase.to)).fold(0.0, f64::max);
        for phase in phases {
            phase.from *= rate / highest;
            phase.to *= rate / highest;
        }
        Some(self)
    }
}

fn read(r: &mut Reader) -> Option<Scenario> {
    let name = required(r, "name", "name = \"rehearsal\"", |r, f| r.text(f, short));
    let title = required(r, "title", "title = \"what it is about\"", |r, f| r.text(f, short));
    let seed = required(r, "seed", "seed = 1", |r, f| r.whole(f, 0, i64::MAX));
    let programme = required(r, "programme", "programme = \"load-canonical\"", |r, f| r.text(f, own_programme));
    let wire = optional(r, "wire", Wire::Unary, |r, f| r.text(f, wire));
    let clock = optional(r, "clock", None, |r, f| r.text(f, str::parse::<Timestamp>).map(Some));
    let in_flight = optional(r, "in_flight", IN_FLIGHT, |r, f| r.whole(f, 1, 1_000_000));
    let (sites, people) = (read_sites(r), read_people(r));
    let (purchases, holds) = (read_purchases(r), read_holds(r));
    let arrivals = read_arrivals(r);
    Some(Scenario {
        name: name?,
        title: title?,
        seed: seed?,
        programme: programme?,
        wire: wire?,
        clock: clock?,
        in_flight: in_flight?,
        sites: sites?,
        people: people?,
        purchases: purchases?,
        holds: holds?,
        arrivals: arrivals?,
    })
}

fn read_sites(r: &mut Reader) -> Option<SiteMix> {
    let count = required(r, "sites.count", "count = 40", |r, f| r.whole(f, 1, 30_000));
    let terminals = required(r, "sites.terminals", "terminals = 1", |r, f| r.whole(f, 1, 100));
    let connections = optional(r, "sites.connections", None, |r, f| r.whole(f, 1, 20_000).map(Some));
    let opening = required(r, "sites.opening_seconds", "opening_seconds = 1", |r, f| r.number(f, 0.0, 600.0));
    let file = optional(r, "sites.file", None, |r, f| r.text(f, short).map(Some));
    let channels = match file {
        Some(Some(_)) if !r.has("sites.channels") => Some(Vec::new()),
        _ => {
            weights(r, "sites.channels", "channels = { pharmacy = 1 }, or file = \"sites.csv\"", str::parse::<Channel>)
        }
    };
    Some(SiteMix {
        count: count?,
        terminals: terminals?,
        connections: connections?,
        opening: Duration::from_secs_f64(opening?),
        file: file?,
        channels: channels?,
    })
}

fn read_people(r: &mut Reader) -> Option<Crowd> {
    let count = required(r, "people.count", "count = 20_000", |r, f| r.whole(f, 1, 60_000_000));
    let hot_line = r.line("people.hot").unwrap_or(1);
    let hot = optional(r, "people.hot", 0, |r, f| r.whole(f, 0, 1_000_000));
    let hot_share = share(r, "people.hot_share");
    let twice_share = share(r, "people.twice_share");
    if let (Some(hot), Some(count)) = (hot, count)
        && hot > count
    {
        r.problem(hot_line, "people.hot", format!("must be at most people.count, {count}"));
    }
    if let (Some(0), Some(share)) = (hot, hot_share)
        && share > 0.0
    {
        r.problem(hot_line, "people.hot", "must be at least 1 where people.hot_share is not 0");
    }
    Some(Crowd { count: count?, hot: hot?, hot_share: hot_share?, twice_share: twice_share? })
}

fn read_purchases(r: &mut Reader) -> Option<PurchaseMix> {
    let units = weights(r, "purchases.units", "units = { 1 = 1, 2 = 1 }", |text| {
        let units = text.parse().ok().filter(|units| (1..=100).contains(units));
        units.ok_or("a number of units is a whole number from 1 to 100")
    });
    let retry_share = share(r, "purchases.retry_share");
    let hold_share = share(r, "purchases.hold_share");
    let void_share = share(r, "purchases.void_share");
    let resolve_share = share(r, "purchases.resolve_share");
    Some(PurchaseMix {
        units: units?,
        retry_share: retry_share?,
        hold_share: hold_share?,
        void_share: void_share?,
        resolve_share: resolve_share?,
    })
}

fn read_holds(r: &mut Reader) -> Option<HoldMix> {
    let line = r.line("holds").unwrap_or(1);
    let seconds = optional(r, "holds.seconds", 10.0, |r, f| r.number(f, 1.0, 3_600.0));
    let (confirmed, released, late) = (share(r, "holds.confirmed"), share(r, "holds.released"), share(r, "holds.late"));
    if let (Some(confirmed), Some(released), Some(late)) = (confirmed, released, late)
        && confirmed + released + late > 1.0 + 1e-9
    {
        r.problem(line, "holds", "confirmed, released and late together must be at most 1");
    }
    Some(HoldMix { length: Duration::from_secs_f64(seconds?), confirmed: confirmed?, released: released?, late: late? })
}

fn read_arrivals(r: &mut Reader) -> Option<Arrivals> {
    match (r.has("phases"), r.has("closed")) {
        (true, false) => {
            let phases: Vec<Option<Phase>> = (1..=r.count("phases")).map(|nth| read_phase(r, nth)).collect();
            let phases = phases.into_iter().collect::<Option<Vec<_>>>()?;
            if phases.iter().all(|phase| phase.from <= 0.0 && phase.to <= 0.0) {
                let line = r.line("phases.1").unwrap_or(1);
                r.problem(line, "phases", "no phase has a rate above 0: there is nothing to send");
                return None;
            }
            Some(Arrivals::Open(phases))
        }
        (false, true) => {
            let callers = required(r, "closed.callers", "callers = 64", |r, f| r.whole(f, 1, 100_000));
            let think = optional(r, "closed.think_ms", 0, |r, f| r.whole::<u64>(f, 0, 600_000));
            let seconds = required(r, "closed.seconds", "seconds = 20", |r, f| r.number(f, 0.1, LONGEST_SECONDS));
            Some(Arrivals::Closed {
                callers: callers?,
                think: Duration::from_millis(think?),
                length: Duration::from_secs_f64(seconds?),
            })
        }
        (true, true) => {
            let line = r.line("closed").unwrap_or(1);
            r.problem(line, "closed", "a scenario has either [[phases]], an open loop, or [closed], not both");
            None
        }
        (false, false) => {
            r.problem(1, "phases", "is missing: write one or more [[phases]] with seconds and rate, or [closed]");
            None
        }
    }
}

fn read_phase(r: &mut Reader, nth: usize) -> Option<Phase> {
    let field = |name: &str| format!("phases.{nth}.{name}");
    let rates = |r: &mut Reader, name: &str| r.number(&field(name), 0.0, HIGHEST_RATE);
    let line = r.line(&format!("phases.{nth}")).unwrap_or(1);
    let (has_rate, has_from, has_to) = (r.has(&field("rate")), r.has(&field("from")), r.has(&field("to")));
    let name = optional(r, &field("name"), format!("phase {nth}"), |r, f| r.text(f, short));
    let seconds = required(r, &field("seconds"), "seconds = 10", |r, f| r.number(f, 0.1, LONGEST_SECONDS));
    let (rate, from, to) = (rates(r, "rate"), rates(r, "from"), rates(r, "to"));
    let (from, to) = match (has_rate, has_from, has_to) {
        (true, false, false) => (rate?, rate?),
        (false, true, true) => (from?, to?),
        _ => {
            r.problem(line, &field("rate"), "write either rate, or from and to, in purchases per second");
            return None;
        }
    };
    Some(Phase { name: name?, length: Duration::from_secs_f64(seconds?), from, to })
}

/// A field that must be there.
fn required<T>(
    r: &mut Reader,
    field: &str,
    remedy: &str,
    read: impl FnOnce(&mut Reader, &str) -> Option<T>,
) -> Option<T> {
    if !r.has(field) {
        r.missing(field, &format!("write {remedy}"));
        return None;
    }
    read(r, field)
}

/// A field that may be left out.
fn optional<T>(
    r: &mut Reader,
    field: &str,
    default: T,
    read: impl FnOnce(&mut Reader, &str) -> Option<T>,
) -> Option<T> {
    if r.has(field) { read(r, field) } else { Some(default) }
}

/// A share of one; 0 if it is left out.
fn share(r: &mut Reader, field: &str) -> Option<f64> {
    optional(r, field, 0.0, |r, f| r.number(f, 0.0, 1.0))
}

/// A table of weights under names that `make` reads.
fn weights<T, E: std::fmt::Display>(
    r: &mut Reader,
    table: &str,
    remedy: &str,
    make: impl Fn(&str) -> Result<T, E>,
) -> Option<Vec<(T, f64)>> {
    let names = r.names(table);
    if names.is_empty() {
        r.missing(table, &format!("write {remedy}"));
        return None;
    }
    let mut weights = Vec::new();
    for (name, line) in names {
        let field = format!("{table}.{name}");
        let weight = r.number(&field, 0.0, 1e9);
        match (make(&name), weight) {
            (Ok(made), Some(weight)) => weights.push((made, weight)),
            (Err(error), _) => r.problem(line, &field, error.to_string()),
            (_, None) => {}
        }
    }
    if weights.iter().all(|(_, weight)| *weight <= 0.0) {
        let line = r.line(table).unwrap_or(1);
        r.problem(line, table, "at least one weight must be above 0");
    }
    Some(weights)
}

fn short(text: &str) -> Result<String, &'static str> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 100 && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("must be 1 to 100 characters on one line") }
}

fn wire(text: &str) -> Result<Wire, &'static str> {
    match text {
        "unary" => Ok(Wire::Unary),
        "stream" => Ok(Wire::Stream),
        _ => Err("must be \"unary\" or \"stream\""),
    }
}

fn own_programme(text: &str) -> Result<&'static str, String> {
    let names = CARRIED.map(|programme| programme.name).join(" or ");
    let known = Carried::named(text).map(|programme| programme.name);
    known.ok_or_else(|| {
        format!("must be {names}: the harness sells under programmes of its own and never under a real one")
    })
}

#[cfg(test)]
mod tests;
