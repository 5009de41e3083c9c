//! Everything that the clients of a morning saw, taken down as it happens.
//!
//! A terminal surely has a seat from when it hears that it is admitted until just before it gives it back or hangs up. Of one
//! that the service took away nobody can say here when that was, so only the moment of its admission counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::StormTick;
use super::checks::{self, Counted, Switch};
use super::store::Seen;
use crate::grpc::v1;
use crate::load::history::{Asked, Outcome};
use crate::load::recorder::RunClock;
use crate::load::report::tally::Latency;

/// A wait that was told of less often makes no line in a picture.
const WORTH_A_LINE: usize = 4;
/// The most waits that are kept for the picture.
const KEPT: usize = 4_000;

/// A seat as its terminal had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stay {
    /// The site's place among all sites.
    pub(super) site: usize,
    pub(super) from: Duration,
    /// As long as its terminal surely had it; `None` while it lasts.
    pub(super) until: Option<Duration>,
    /// When its terminal knew that it was over; `None` while it does not.
    pub(super) known: Option<Duration>,
}

/// How many sessions and places there were at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Duration,
    /// What the store had; `None` where it did not say.
    pub(super) store: Option<Seen>,
}

/// What one terminal was told of its place: when, its rank, its position.
pub(super) type Trace = Vec<(Duration, u32, u64)>;

/// Everything, when the run is over.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) stays: Vec<Stay>,
    pub(super) sales: Vec<Asked>,
    pub(super) samples: Vec<Sample>,
    pub(super) traces: Vec<Trace>,
    pub(super) logins: u64,
    pub(super) admitted: u64,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) ended: BTreeMap<String, u64>,
    pub(super) place_resets: Counted,
    pub(super) position_rises: Counted,
    pub(super) bypasses: Counted,
    /// What was said to those who came with what is no session's token.
    pub(super) tries: BTreeMap<String, u64>,
    /// Terminals that came back to their places, by second.
    pub(super) returns: BTreeMap<u64, u64>,
    /// When an operator switched to one terminal a site.
    pub(super) switched: Option<Duration>,
    refused_by_second: BTreeMap<u64, u64>,
    phases: Vec<(Duration, &'static str)>,
}

/// Where it is taken down.
pub(super) struct Notes {
    clock: RunClock,
    taken: Mutex<Taken>,
    held: AtomicU64,
    waiting: AtomicU64,
}

impl Notes {
    pub(super) fn new(clock: RunClock) -> Self {
        Self { clock, taken: Mutex::default(), held: AtomicU64::new(0), waiting: AtomicU64::new(0) }
    }

    pub(super) fn clock(&self) -> &RunClock {
        &self.clock
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(super) fn phases(&self, phases: &[(Duration, &'static str)]) {
        self.taken().phases = phases.to_vec();
    }

    /// Sessions that are held now.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// A clerk logs in, as planned.
    pub(super) fn login(&self) {
        self.taken().logins += 1;
    }

    /// A log-in that came to nothing, or something that broke.
    pub(super) fn refused(&self, reason: &str) {
        let second = self.now().as_secs();
        let mut taken = self.taken();
        *taken.refused.entry(reason.to_owned()).or_default() += 1;
        *taken.refused_by_second.entry(second).or_default() += 1;
    }

    /// A terminal of this site was let in. The seat is its own until what is returned is dropped.
    pub(super) fn admitted(self: &Arc<Self>, site: usize) -> Held {
        let from = self.now();
        let mut taken = self.taken();
        let stay = taken.stays.len();
        taken.stays.push(Stay { site, from, until: None, known: None });
        taken.admitted += 1;
        drop(taken);
        self.held.fetch_add(1, Ordering::Relaxed);
        Held { notes: self.clone(), stay, over: false }
    }

    /// A terminal waits until what is returned is dropped.
    pub(super) fn waits(self: &Arc<Self>) -> Waits {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waits(self.clone())
    }

    /// A terminal that has a place opens another stream, or asks again after it was away.
    pub(super) fn comes_back(&self) {
        let second = self.now().as_secs();
        *self.taken().returns.entry(second).or_default() += 1;
    }

    /// The service has said to somebody who waited that the place is no more.
    pub(super) fn lost_place(&self) {
        self.taken().place_resets.add(true);
    }

    /// What a waiting terminal was told. `returned`: it has come back to a place; `lost`: this is another one.
    pub(super) fn told(&self, trace: &mut Trace, waiting: &v1::Waiting, returned: bool, lost: bool) {
        if lost {
            // Whatever was shown of the other place says nothing of this one, also when this one is counted only later.
            self.waited(trace);
        }
        let now = self.now();
        let mut taken = self.taken();
        // What a site may not have any more is lost by the operator's will.
        if (returned || lost) && taken.switched.is_none() {
            taken.place_resets.add(lost);
        }
        let Some(position) = waiting.position else { return };
        if let Some((_, rank, before)) = trace.last()
            && let Some(rises) = checks::rises((*rank, *before), (waiting.rank, position))
        {
            taken.position_rises.add(rises);
        }
        trace.push((now, waiting.rank, position));
    }

    /// A wait is over.
    pub(super) fn waited(&self, trace: &mut Trace) {
        let trace = std::mem::take(trace);
        let mut taken = self.taken();
        if trace.len() >= WORTH_A_LINE && taken.traces.len() < KEPT {
            taken.traces.push(trace);
        }
    }

    /// Somebody without a seat tried to sell; whether the service took it for one who has one.
    pub(super) fn tried(&self, succeeded: bool) {
        self.taken().bypasses.add(succeeded);
    }

    /// What was said to somebody who came with what is no session's token, and whether that proves something.
    pub(super) fn try_answered(&self, what: &str, succeeded: Option<bool>) {
        let mut taken = self.taken();
        match taken.tries.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                taken.tries.insert(what.to_owned(), 1);
            }
        }
        if let Some(succeeded) = succeeded {
            taken.bypasses.add(succeeded);
        }
    }

    pub(super) fn sale(&self, sale: Asked) {
        self.taken().sales.push(sale);
    }

    pub(super) fn sales(&self) -> Vec<Asked> {
        self.taken().sales.clone()
    }

    pub(super) fn sample(&self, store: Option<Seen>) {
        let sample = Sample { at: self.now(), store };
        self.taken().samples.push(sample);
    }

    /// The switch to one terminal a site is asked for now.
    pub(super) fn switched(&self) {
        let now = self.now();
        self.taken().switched = Some(now);
    }

    /// What the switch has come to so far; `None` before it.
    pub(super) fn switch(&self) -> Option<Switch> {
        let taken = self.taken();
        taken.switched.map(|at| Switch::of(&taken.stays, at))
    }

    /// One second, as far as it is known.
    pub(super) fn tick(&self, second: u64) -> StormTick {
        let taken = self.taken();
        let of_second = |at: Duration| at.as_secs() == second;
        let mut latency = Latency::with_digits(2);
        let mut sold = 0;
        // Sales stand in the order of their answers, so those of the last seconds stand at the end.
        let recent = taken.sales.iter().rev().take_while(|sale| sale.answered.as_secs() >= second);
        for sale in recent.filter(|sale| of_second(sale.answered)) {
            sold += u64::from(matches!(sale.outcome, Outcome::Approved { .. }));
            latency.record(sale.answered.saturating_sub(sale.intended));
        }
        let phase = taken.phases.iter().rev().find(|(from, _)| from.as_secs() <= second);
        StormTick {
            second,
            phase: phase.map_or("pharmacies open", |(_, name)| *name),
            live: self.held(),
            line: self.waiting.load(Ordering::Relaxed),
            sold,
            p99: latency.quantile(0.99),
            refused: taken.refused_by_second.get(&second).copied().unwrap_or_default(),
        }
    }

    /// All of it. Whatever still lasts ends now.
    pub(super) fn take(&self) -> Taken {
        let now = self.now();
        let mut taken = std::mem::take(&mut *self.taken());
        for stay in &mut taken.stays {
            stay.until.get_or_insert(now);
        }
        taken
    }

    /// Whole whenever the lock is free, so a panic elsewhere does not spoil it.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat that a client has. Dropped just before it is given back.
pub(super) struct Held {
    notes: Arc<Notes>,
    stay: usize,
    over: bool,
}

impl Held {
    /// The service has ended it, at some time before now.
    pub(super) fn ended(mut self, why: &str) {
        self.over = true;
        let now = self.notes.now();
        let mut taken = self.notes.taken();
        *taken.ended.entry(why.to_owned()).or_default() += 1;
        if let Some(stay) = taken.stays.get_mut(self.stay) {
            stay.until = Some(stay.from);
            stay.known = Some(now);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.notes.held.fetch_sub(1, Ordering::Relaxed);
        let now = self.notes.now();
        if !self.over
            && let Some(stay) = self.notes.taken().stays.get_mut(self.stay)
        {
            (stay.until, stay.known) = (Some(now), Some(now));
        }
    }
}

/// A terminal that waits.
pub(super) struct Waits(Arc<Notes>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
