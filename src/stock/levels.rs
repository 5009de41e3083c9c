//! The fold: facts in any order, levels out. Pure.
//!
//! What is shown depends on which facts were applied and not on their order: the partitions of the outbox and the reports come as
//! they come. Two things are asked of whoever applies them. Each fact comes once, and what happened to one hold comes in its order.
//! And [`Levels::settle`] is told of a time only when everything that had happened, and was reported, by then has been applied:
//! what is older is added up and forgotten.
//!
//! - What is there: the units of the newest count, and every movement after its instant. A sale leaves when it is made (on paper too,
//!   however late it is entered), a hold when it is confirmed; what is taken back returns when it is taken back. Of two counts or
//!   two pauses of one instant the one that was recorded later is the newer.
//! - What is promised: the live holds, at most what is there. What is offered: the rest.
//! - Nobody knows what a site has that never reported a delivery or a count: its sales alone show nothing. If it says that it is
//!   paused, that is shown.
//! - Whether something may be missing: `silence` says when a site was cut off; it may have sold on paper meanwhile.

mod picture;
mod silence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::ids::{ProgrammeCode, RequestId};
use crate::ledger::outbox::{Cursor, Told};
use crate::ledger::{Event, EventKind};
use crate::time::Timestamp;

use self::silence::Heard;
use super::{Key, Level, Place, Report, Shown, Source, Thresholds, What};

/// How far back a count may be dated when it is reported: whoever reports an older one is asked to count again.
pub const COUNTS_REACH_BACK: Duration = Duration::from_secs(2 * 60 * 60);

/// How much longer than it must be everything is kept apart: no two clocks are alike.
const SLACK: Duration = Duration::from_secs(60);

/// These bytes are no picture of levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no picture of levels")]
pub struct NoPicture;

/// What is known of every stock.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Levels {
    stocks: BTreeMap<Key, Stock>,
    missed_until: Option<Timestamp>,
    settled: Settled,
}

/// Up to when everything is there.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Settled(Option<Timestamp>);

impl Settled {
    /// No count that is yet to come is dated at this instant: movements need not be told apart.
    fn is_past_counts(self, at: Timestamp) -> bool {
        self.0.is_some_and(|settled| at <= settled.minus(COUNTS_REACH_BACK.saturating_add(SLACK)))
    }

    /// Nothing that is yet to come happened at this instant.
    fn is_past_all(self, at: Timestamp) -> bool {
        self.0.is_some_and(|settled| at <= settled.minus(SLACK))
    }
}

/// What is known of one stock.
#[derive(Debug, Clone, Default, PartialEq)]
struct Stock {
    /// The newest count.
    count: Option<Count>,
    /// The newest pause or resumption.
    pause: Option<Pause>,
    /// When goods came in last.
    delivered_at: Option<Timestamp>,
    /// When something was last sold, held, given back or taken back.
    sold_at: Option<Timestamp>,
    /// The sum of every movement after the newest count.
    moved: i64,
    /// Those of them that a count might still come for that is dated later than they are; by time.
    movements: VecDeque<Movement>,
    /// The holds that are not known to have ended.
    promises: BTreeMap<RequestId, Promise>,
    /// When the site was online, as far as it is not yet in `heard`; by time.
    sounds: VecDeque<Timestamp>,
    /// What is learned from its silence.
    heard: Heard,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Count {
    at: Timestamp,
    place: Place,
    units: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Pause {
    at: Timestamp,
    place: Place,
    is_paused: bool,
}

/// Units that came in, or with a minus went out. There may be a million of these: they are small.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Movement {
    at: Timestamp,
    units: i64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Promise {
    until: Timestamp,
    units: u32,
}

impl Levels {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An event of the outbox. Each is to be applied once.
    pub fn event(&mut self, told: &Told) {
        let Event { kind, entry } = told.event;
        let stock = self.stocks.entry(Key { programme: told.programme, site: entry.site }).or_default();
        let units = i64::from(entry.quantity);
        // Whoever enters paper was not online when it was written. That a hold ran out is found by whoever comes by.
        let (at, moved, is_sound) = match kind {
            EventKind::Sold => (entry.at, -units, true),
            EventKind::Held => (entry.at, 0, true),
            EventKind::Confirmed => (entry.mark, -units, true),
            EventKind::Released => (entry.mark, 0, false),
            EventKind::Voided => (entry.mark, units, true),
            EventKind::Late => (entry.at, -units, false),
        };
        match kind {
            EventKind::Held => {
                stock.promises.insert(entry.request, Promise { until: entry.mark, units: entry.quantity });
            }
            EventKind::Confirmed | EventKind::Released | EventKind::Late => {
                stock.promises.remove(&entry.request);
            }
            EventKind::Sold | EventKind::Voided => {}
        }
        stock.sold_at = stock.sold_at.max(Some(at));
        stock.moves(Movement { at, units: moved }, self.settled);
        if is_sound {
            stock.sounds(at, self.settled);
        }
    }

    /// A report. Each is to be applied once.
    pub fn report(&mut self, place: Place, report: &Report) {
        let Report { key, what, at, received, .. } = *report;
        let stock = self.stocks.entry(key).or_default();
        match what {
            What::Delivered(units) => {
                stock.delivered_at = stock.delivered_at.max(Some(at));
                stock.moves(Movement { at, units: i64::from(units) }, self.settled);
            }
            What::Counted(units) => stock.counts(Count { at, place, units }, self.settled),
            What::Paused | What::Resumed => {
                if stock.pause.is_none_or(|newest| (newest.at, newest.place) < (at, place)) {
                    stock.pause = Some(Pause { at, place, is_paused: what == What::Paused });
                }
            }
        }
        stock.sounds(received, self.settled);
    }

    /// Facts up to this time may be missing from here on: every level is unverified until somebody has counted after it.
    pub fn missed_until(&mut self, at: Timestamp) {
        self.missed_until = self.missed_until.max(Some(at));
    }

    /// Everything that had happened, and was reported, by this time has been applied.
    pub fn settle(&mut self, read_until: Timestamp) {
        if self.settled.0.is_some_and(|settled| settled > read_until.plus(SLACK)) {
            // A clock was ahead, and counts were taken for older than they may be.
            self.settled = Settled(Some(read_until));
            self.missed_until = Some(read_until);
        }
        if self.settled.0 < Some(read_until) {
            self.settled = Settled(Some(read_until));
            for stock in self.stocks.values_mut() {
                stock.settle(self.settled);
            }
        }
    }

    /// Everything that is shown at this time, in the order of the keys. `fresh`: what happens is being read.
    pub fn shown(
        &self,
        now: Timestamp,
        fresh: bool,
        thresholds: impl Fn(ProgrammeCode) -> Thresholds,
    ) -> Vec<(Key, Shown)> {
        let shown = |(key, stock): (&Key, &Stock)| {
            let shown = stock.shown(now, self.missed_until, || thresholds(key.programme))?;
            Some((*key, Shown { stale: shown.stale || !fresh, ..shown }))
        };
        self.stocks.iter().filter_map(shown).collect()
    }

    /// These levels with where the reading of events and of reports stood, as bytes.
    pub fn to_bytes(&self, events: &Cursor, reports: Place) -> Vec<u8> {
        picture::write(self, events, reports)
    }

    /// What [`Levels::to_bytes`] has made.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, Cursor, Place), NoPicture> {
        picture::read(bytes).ok_or(NoPicture)
    }
}

impl Stock {
    fn moves(&mut self, movement: Movement, settled: Settled) {
        if movement.units == 0 || self.count.is_some_and(|count| movement.at <= count.at) {
            return;
        }
        self.moved = self.moved.saturating_add(movement.units);
        if !settled.is_past_counts(movement.at) {
            // Nearly always the last.
            let nth = self.movements.partition_point(|earlier| earlier.at <= movement.at);
            self.movements.insert(nth, movement);
        }
    }

    /// A count that reaches back further than it may is none: what moved since then is no longer told apart.
    fn counts(&mut self, count: Count, settled: Settled) {
        if settled.is_past_counts(count.at)
            || self.count.is_some_and(|newest| (count.at, count.place) <= (newest.at, newest.place))
        {
            return;
        }
        self.count = Some(count);
        self.movements.drain(..self.movements.partition_point(|movement| movement.at <= count.at));
        self.moved = self.movements.iter().fold(0, |sum: i64, movement| sum.saturating_add(movement.units));
    }

    fn sounds(&mut self, at: Timestamp, settled: Settled) {
        if settled.is_past_all(at) {
            self.heard.too_late(at);
        } else {
            let nth = self.sounds.partition_point(|earlier| *earlier <= at);
            self.sounds.insert(nth, at);
        }
    }

    fn settle(&mut self, settled: Settled) {
        self.movements.drain(..self.movements.partition_point(|movement| settled.is_past_counts(movement.at)));
        for at in self.sounds.drain(..self.sounds.partition_point(|at| settled.is_past_all(*at))) {
            self.heard.hears(at);
        }
        self.promises.retain(|_, promise| !settled.is_past_all(promise.until));
        // A busy day, or the first reading of many, leaves room that nobody needs.
        shrink(&mut self.movements);
        shrink(&mut self.sounds);
    }

    /// `None`: nobody knows.
    fn shown(
        &self,
        now: Timestamp,
        missed_until: Option<Timestamp>,
        thresholds: impl Fn() -> Thresholds,
    ) -> Option<Shown> {
        let counted_at = self.count.map(|count| count.at);
        let is_paused = self.pause.is_some_and(|pause| pause.is_paused);
        if counted_at.or(self.delivered_at).is_none() && !is_paused {
            return None;
        }
        let there = self.count.map_or(0, |count| i64::from(count.units)).saturating_add(self.moved);
        let live = self.promises.values().filter(|promise| now < promise.until);
        let promised = live.map(|promise| i64::from(promise.units)).sum::<i64>().min(there.max(0));
        let offered = units(there - promised);

        let mut heard = self.heard;
        self.sounds.iter().for_each(|at| heard.hears(*at));
        // What was missed may lie at that very instant.
        let may_be_missing =
            missed_until.is_some_and(|missed| counted_at <= Some(missed)) || heard.gap_since(counted_at);

        // Of what is of one instant the last here is the newest: a count stands for all of it.
        let known = [(self.sold_at, Source::Sales), (self.delivered_at, Source::Delivery), (counted_at, Source::Count)];
        let newest = known.into_iter().filter_map(|(at, source)| Some((at?, source))).max_by_key(|(at, _)| *at);
        let paused_at = self.pause.map(|pause| pause.at);
        Some(Shown {
            level: if is_paused { Level::Paused } else { thresholds().level(offered) },
            offered,
            promised: units(promised),
            as_of: newest.map(|(at, _)| at).max(paused_at).map_or(now, |at| at.min(now)),
            // A pause says nothing about units, and is no source of them.
            source: newest.map_or(Source::Sales, |(_, source)| source),
            delivered_at: self.delivered_at,
            counted_at,
            stale: heard.is_overdue(now),
            unverified: there < 0 || may_be_missing,
        })
    }
}

/// Gives back most of what is no longer used.
fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > 64 && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(2 * queue.len());
    }
}

/// Units as they are shown: not below 0.
fn units(units: i64) -> u32 {
    u32::try_from(units.max(0)).unwrap_or(u32::MAX)
}
