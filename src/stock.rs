//! Stock that tells the truth: what each site has left of each rationed thing, derived from what happened and from nothing else.
//!
//! What happened comes from two places: sales, holds and voids from the ledger's outbox, and from the sites their own reports
//! (deliveries, counts, pauses) through [`intake`], kept on the [`Shelf`]. [`levels`] folds both, and is pure; [`follow`] reads them
//! and publishes on the [`board`], from which everybody is answered, from memory.
//!
//! Goods are counted once: a level is the newest count, the deliveries after it, less the sales after it by the time at which they
//! were made, however late they are entered. What is promised (a live hold) stands in the shop and is not offered.
//!
//! Knows nothing about buyers, rules of purchase, the wire or who looks.

pub mod board;
pub mod embedded;
pub mod follow;
pub mod intake;
pub mod levels;
mod packed;
pub mod redis;

use std::future::Future;

use crate::ids::{ProgrammeCode, RequestId, SiteId};
use crate::ledger::LedgerError;
use crate::ledger::outbox::following;
use crate::time::Timestamp;

pub use crate::ledger::outbox::Place;

/// Whose stock of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The programme's code.
    pub programme: ProgrammeCode,
    /// The site.
    pub site: SiteId,
}

/// What a site says of its stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// So many units came in.
    Delivered(u32),
    /// So many units were there when somebody counted, those promised included. It stands for everything before it.
    Counted(u32),
    /// The site does not sell for now, whatever it has.
    Paused,
    /// It sells again.
    Resumed,
}

/// One report of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Made by the site before its first attempt; the same for every retry. Its scope is the site.
    pub request: RequestId,
    /// Whose stock of what.
    pub key: Key,
    /// What is said.
    pub what: What,
    /// When it was so, by the site.
    pub at: Timestamp,
    /// When the service took it, by its own clock.
    pub received: Timestamp,
}

/// How many units make a level. Those of 2020 unless the programme has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// From so many on: plenty.
    pub plenty: u32,
    /// From so many on: some.
    pub some: u32,
    /// From so many on: few; below it: empty.
    pub few: u32,
}

impl Thresholds {
    /// The levels of the public feed of 2020.
    pub const OF_2020: Self = Self { plenty: 100, some: 30, few: 2 };

    /// The level of so many units.
    pub fn level(&self, units: u32) -> Level {
        match units {
            units if units >= self.plenty => Level::Plenty,
            units if units >= self.some => Level::Some,
            units if units >= self.few => Level::Few,
            _ => Level::Empty,
        }
    }
}

/// How much there is, in the words that people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Green.
    Plenty,
    /// Yellow.
    Some,
    /// Red.
    Few,
    /// Grey: nothing that could be sold.
    Empty,
    /// The site does not sell for now.
    Paused,
}

/// What the newest thing was that a level rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Somebody counted.
    Count,
    /// Goods came in.
    Delivery,
    /// Something was sold, held or taken back.
    Sales,
}

/// What is shown of one site's stock of one thing. Of a site that never reported there is none: nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shown {
    /// How much is offered.
    pub level: Level,
    /// Units that are offered: those that are there and promised to nobody; not below 0.
    pub offered: u32,
    /// Units that are there and promised to somebody.
    pub promised: u32,
    /// When the newest thing happened that is known of this stock: it was so then.
    pub as_of: Timestamp,
    /// What that was.
    pub source: Source,
    /// When goods came in last; `None`: never since it is known.
    pub delivered_at: Option<Timestamp>,
    /// When somebody counted last.
    pub counted_at: Option<Timestamp>,
    /// Nothing was heard from the site for longer than is usual for it, or the service cannot read what happens: it may be
    /// otherwise by now.
    pub stale: bool,
    /// Something may be missing from what is known (a gap, more sold than there was): true again when somebody has counted.
    pub unverified: bool,
}

/// How many reports of a day are taken of a site in Redis: more than one a minute, and nobody who reports without end can fill the store
/// that sales are recorded in.
pub const REPORTS_A_DAY: u64 = 2_000;

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It stands, as it is given back; `replayed`: it stood already, and `received` is when it was first taken.
    Stands {
        /// As it stands.
        report: Report,
        /// Whether it stood already.
        replayed: bool,
    },
    /// The same id stands for another report of this site; nothing was changed.
    OtherReport,
}

impl Recorded {
    /// What becomes of a report under an id that stands already. Where a site leaves the time out, or its clock is ahead, a report is
    /// dated by when it came, and so is every retry: they are the same report whenever they come.
    fn again(stood: Report, report: &Report) -> Self {
        let dated_by_us = |report: &Report| report.at == report.received;
        let is_same_time =
            stood.at == report.at || (dated_by_us(&stood) && (dated_by_us(report) || report.at > stood.received));
        match (stood.key, stood.what) == (report.key, report.what) && is_same_time {
            true => Self::Stands { report: stood, replayed: true },
            false => Self::OtherReport,
        }
    }
}

/// What stands after a place among the reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reports {
    /// The next ones, each with its place, oldest first; as many as were asked for, or all that there are.
    Next(Vec<(Place, Report)>),
    /// The report of this place is gone, and so may be some that followed it.
    Gone,
}

impl Reports {
    /// See [`following`].
    fn of(place: Place, reports: Vec<(Place, Report)>, is_whole: bool, most: usize) -> Self {
        following(place, reports, is_whole, most).map_or(Self::Gone, Self::Next)
    }
}

/// How many reports a shelf keeps, about: those of two weeks where each of 24,000 sites reports six times a day. The oldest go,
/// however slow a reader is.
pub const REPORTS_KEPT: u64 = 2_000_000;

/// Where reports are kept, and pictures of what was made of them. Gives what is confirmed and nothing else: what was read here, or
/// was answered, will not be lost and told otherwise.
pub trait Shelf: Clone + Send + Sync + 'static {
    /// Puts a report there, once for each (site, request id). An error that is not [`LedgerError::StoreUnavailable`] may leave it
    /// there: the same report, sent again, tells.
    fn record(&self, report: Report) -> impl Future<Output = Result<Recorded, LedgerError>> + Send;

    /// What stands after this place ([`Place::BEGINNING`]: from the oldest that is kept on; [`Place::FIRST`]: of a shelf on which
    /// there was nothing), at most so many.
    fn after(&self, place: Place, most: usize) -> impl Future<Output = Result<Reports, LedgerError>> + Send;

    /// Keeps these bytes instead of those before; whole or not at all.
    fn keep(&self, picture: Vec<u8>) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The bytes that were kept last; `None`: there are none.
    fn kept(&self) -> impl Future<Output = Result<Option<Vec<u8>>, LedgerError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(at: i64, received: i64) -> Report {
        Report {
            request: RequestId::from_bytes([7; 16]).unwrap(),
            key: Key { programme: "km".parse().unwrap(), site: "11000001".parse().unwrap() },
            what: What::Counted(250),
            at: Timestamp::from_millis(at),
            received: Timestamp::from_millis(received),
        }
    }

    #[test]
    fn a_retry_is_the_same_report_and_nothing_else_is() {
        let stood = report(1_000, 5_000);
        let again = |stood, report| Recorded::again(stood, &report);
        assert_eq!(again(stood, report(1_000, 9_000)), Recorded::Stands { report: stood, replayed: true });
        for other in [
            report(1_001, 9_000),
            report(9_000, 9_000),
            Report { what: What::Counted(251), ..stood },
            Report { what: What::Delivered(250), ..stood },
            Report { key: Key { programme: "kx".parse().unwrap(), ..stood.key }, ..stood },
        ] {
            assert_eq!(again(stood, other), Recorded::OtherReport, "{other:?}");
        }
    }

    #[test]
    fn a_retry_of_what_the_service_has_dated_is_the_same_whenever_it_comes() {
        let stood = report(5_000, 5_000);
        // Left out again, by a service whose clock is behind, and of a clock ahead of ours that ours has come up to.
        for same in [report(9_000, 9_000), report(4_990, 4_990), report(5_100, 9_000)] {
            assert_eq!(Recorded::again(stood, &same), Recorded::Stands { report: stood, replayed: true }, "{same:?}");
        }
        assert_eq!(Recorded::again(stood, &report(4_000, 9_000)), Recorded::OtherReport);
        assert_eq!(
            Recorded::again(stood, &Report { what: What::Paused, ..report(9_000, 9_000) }),
            Recorded::OtherReport
        );
    }
}
