//! The run cut into slices of equal length.

use std::time::Duration;

use super::tally::{Latency, latency};
use crate::load::history::{Asked, Outcome};

/// Lengths of a slice, milliseconds: the first that gives few enough of them is taken.
const LENGTHS: [u64; 13] =
    [100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 3_600_000];

/// The most slices, as long as the run is shorter than four days.
const MANY: u128 = 100;

/// One slice. Calls are offered when they were to be sent and counted as anything else when they were answered.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub offered: u64,
    pub accepted: u64,
    pub refused: u64,
    pub decisions: u64,
    pub errors: u64,
    /// Of calls that were to be sent in it, without those turned away.
    pub latency: Latency,
}

/// Slices from the beginning of the run to its end.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    length: Duration,
    elapsed: Duration,
    slices: Vec<Slice>,
}

impl Timeline {
    pub(super) fn new(elapsed: Duration) -> Self {
        let fits = |length: &&u64| elapsed.as_millis() / u128::from(**length) <= MANY;
        let length =
            LENGTHS.iter().find(fits).or(LENGTHS.last()).map_or(Duration::from_secs(1), |l| Duration::from_millis(*l));
        // What is left over at the end belongs to the last one.
        let many = usize::try_from(elapsed.as_millis() / length.as_millis()).unwrap_or(usize::MAX).max(1);
        let empty =
            Slice { offered: 0, accepted: 0, refused: 0, decisions: 0, errors: 0, latency: Latency::with_digits(2) };
        Self { length, elapsed, slices: vec![empty; many] }
    }

    fn slice(&mut self, at: Duration) -> Option<&mut Slice> {
        let which = usize::try_from(at.as_millis() / self.length.as_millis()).unwrap_or(usize::MAX);
        let last = self.slices.len().saturating_sub(1);
        self.slices.get_mut(which.min(last))
    }

    pub(super) fn add(&mut self, call: &Asked) {
        if let Some(slice) = self.slice(call.intended) {
            slice.offered += 1;
            if !matches!(call.outcome, Outcome::NotExecuted(_)) {
                slice.latency.record(latency(call));
            }
        }
        if let Some(slice) = self.slice(call.answered) {
            match call.outcome {
                Outcome::NotExecuted(_) | Outcome::Unknown(_) | Outcome::OfAnother(_) => {
                    slice.errors += 1;
                    return;
                }
                Outcome::Refused(_) => slice.refused += 1,
                Outcome::Approved { .. } | Outcome::Held { .. } => slice.accepted += 1,
                _ => {}
            }
            slice.decisions += 1;
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed
    }

    pub(super) fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// The length of all slices but the last, which ends with the run.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// From when to when a slice is, seconds since the run began.
    pub(super) fn span(&self, which: usize) -> (f64, f64) {
        let from = self.length.as_secs_f64() * which as f64;
        let is_last = which + 1 == self.slices.len();
        let until = if is_last { self.elapsed.as_secs_f64() } else { from + self.length.as_secs_f64() };
        (from, until.max(from + 0.001))
    }

    /// Something counted in each slice, per second.
    pub(super) fn rates(&self, count: impl Fn(&Slice) -> u64) -> Vec<f64> {
        let rate = |(which, slice)| {
            let (from, until) = self.span(which);
            count(slice) as f64 / (until - from)
        };
        self.slices.iter().enumerate().map(rate).collect()
    }

    /// A latency of each slice, milliseconds; `None` where nothing was offered.
    pub(super) fn latencies(&self, share: f64) -> Vec<Option<f64>> {
        self.slices.iter().map(|slice| slice.latency.quantile(share)).collect()
    }
}
