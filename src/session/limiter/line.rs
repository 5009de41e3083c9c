//! The order of the line: who is next, who is overdue, who has been absent for too long, and who is held back by the ramp.
//!
//! It holds indexes over the places and not the places themselves.

use std::collections::BTreeSet;

use super::Waiting;
use crate::ids::SiteId;
use crate::museum::Mutant;
use crate::session::{BATCH, BURNS_FOR, Beat, SeatKey, millis};

/// Rank, number, place: the order in which places are admitted.
type Order = (u16, u64, SeatKey);

fn order(key: SeatKey, seq: u64) -> Order {
    let rank = if Mutant::RankIgnored.is_on() { 0 } else { key.slot };
    (rank, seq, key)
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Line {
    seq: u64,
    /// Places that are present and not held back.
    ready: BTreeSet<Order>,
    /// Places of sites that have not come off the ramp, present or absent.
    held_back: BTreeSet<Order>,
    /// Places that are present, by when they are due.
    present: BTreeSet<(u64, SeatKey)>,
    /// Places that are absent, by when they were due.
    absent: BTreeSet<(u64, SeatKey)>,
    /// The sites that have come off the ramp.
    ramped: BTreeSet<SiteId>,
    /// How many sites may come off now, in millionths.
    budget: u64,
    /// Until when nobody does.
    burns_until_ms: u64,
}

impl Line {
    pub(super) fn new(seq: u64, ramped: BTreeSet<SiteId>) -> Self {
        let (ready, held_back, present, absent) = Default::default();
        Self { seq, ready, held_back, present, absent, ramped, budget: 0, burns_until_ms: 0 }
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn take_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    pub(super) fn ramped(&self) -> &BTreeSet<SiteId> {
        &self.ramped
    }

    pub(super) fn is_off_the_ramp(&self, site: &SiteId) -> bool {
        self.ramped.contains(site)
    }

    pub(super) fn is_held_back(&self, key: SeatKey, seq: u64) -> bool {
        self.held_back.contains(&order(key, seq))
    }

    pub(super) fn nobody_is_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// Who is to be admitted next.
    pub(super) fn next(&self) -> Option<SeatKey> {
        self.ready.first().map(|(_, _, key)| *key)
    }

    pub(super) fn join(&mut self, key: SeatKey, waiting: &Waiting, held_back: bool) {
        let order = order(key, waiting.seq);
        if held_back {
            self.held_back.insert(order);
        } else if !waiting.absent {
            self.ready.insert(order);
        }
        let by_due = if waiting.absent { &mut self.absent } else { &mut self.present };
        by_due.insert((waiting.due_ms, key));
    }

    pub(super) fn leave(&mut self, key: SeatKey, waiting: &Waiting) {
        let order = order(key, waiting.seq);
        self.ready.remove(&order);
        self.held_back.remove(&order);
        self.present.remove(&(waiting.due_ms, key));
        self.absent.remove(&(waiting.due_ms, key));
    }

    /// The place is due then, and present or absent.
    pub(super) fn change(&mut self, key: SeatKey, waiting: &mut Waiting, due_ms: u64, absent: bool) {
        let held_back = self.is_held_back(key, waiting.seq);
        self.leave(key, waiting);
        (waiting.due_ms, waiting.absent) = (due_ms, absent);
        self.join(key, waiting, held_back);
    }

    /// Present places that were due before this.
    pub(super) fn overdue(&self, before_ms: Option<u64>) -> Vec<SeatKey> {
        first(&self.present, before_ms)
    }

    /// Absent places that were due before this.
    pub(super) fn forgotten(&self, before_ms: Option<u64>) -> Vec<SeatKey> {
        first(&self.absent, before_ms)
    }

    pub(super) fn begin_a_ramp(&mut self) {
        self.ramped.clear();
        self.budget = 0;
    }

    /// How many sites may come off the ramp now, [`BATCH`] at the most; without a ramp everybody may.
    pub(super) fn may_come_off(&mut self, beat: Beat, now_ms: u64, passed_ms: u64) -> usize {
        if beat.burning {
            self.burns_until_ms = now_ms.saturating_add(millis(BURNS_FOR));
        }
        let Some(rate) = beat.ramp.map(u64::from) else {
            self.ramped.clear();
            return BATCH;
        };
        if now_ms < self.burns_until_ms {
            self.budget = 0;
            return 0;
        }
        // Thousandths a second times milliseconds. What nobody uses is kept for a second and one site, and no longer, so that
        // a ramp to which nobody came for a while is no sluice.
        self.budget = (self.budget + rate * passed_ms).min(rate * 1_000 + SITE);
        usize::try_from(self.budget / SITE).unwrap_or(BATCH).min(BATCH)
    }

    /// The site on the ramp that has waited longest.
    pub(super) fn first_held_back(&self) -> Option<SiteId> {
        self.held_back.first().map(|(_, _, key)| key.site)
    }

    /// The site has come off the ramp, at the ramp's cost if there is one.
    pub(super) fn comes_off(&mut self, site: SiteId, at_cost: bool) {
        if at_cost {
            self.budget = self.budget.saturating_sub(SITE);
            self.ramped.insert(site);
        }
    }

    /// The place is held back no more.
    pub(super) fn release(&mut self, key: SeatKey, waiting: &Waiting) {
        self.leave(key, waiting);
        self.join(key, waiting, false);
    }
}

/// What one site costs of the ramp's budget.
const SITE: u64 = 1_000_000;

fn first(places: &BTreeSet<(u64, SeatKey)>, before_ms: Option<u64>) -> Vec<SeatKey> {
    let Some(before) = before_ms else { return Vec::new() };
    places.iter().take_while(|(due, _)| *due < before).take(BATCH).map(|(_, key)| *key).collect()
}
