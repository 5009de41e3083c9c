//! Calls counted by what was answered, and timed.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::counter::NO_SESSION;
use crate::load::history::{Asked, Outcome};

/// The longest latency that is told apart from longer ones: ten minutes, in microseconds.
const LONGEST: u64 = 600_000_000;

/// How long things took.
#[derive(Debug, Clone)]
pub(in crate::load) struct Latency(Option<Histogram<u64>>);

impl Default for Latency {
    /// Three digits are kept.
    fn default() -> Self {
        Self::with_digits(3)
    }
}

impl Latency {
    pub(in crate::load) fn with_digits(digits: u8) -> Self {
        // `None` would mean bounds or digits that no histogram can have.
        Self(Histogram::new_with_bounds(1, LONGEST, digits).ok())
    }

    pub(in crate::load) fn record(&mut self, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(microseconds);
        }
    }

    pub(in crate::load) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// Milliseconds within which this share (0 to 1) of them was answered; `None` if there are none.
    pub(in crate::load) fn quantile(&self, share: f64) -> Option<f64> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        // A histogram names the upper end of a step, which may lie above the longest of all.
        Some(histogram.value_at_quantile(share).min(histogram.max()) as f64 / 1000.0)
    }

    /// Milliseconds of the longest; `None` if there are none.
    pub(in crate::load) fn max(&self) -> Option<f64> {
        self.quantile(1.0)
    }
}

/// Calls by what became of them.
#[derive(Debug, Clone, Default)]
pub(in crate::load) struct Tally {
    /// All of them.
    pub calls: u64,
    /// A receipt was given.
    pub approved: u64,
    /// Units are held.
    pub held: u64,
    /// Do not sell.
    pub refused: u64,
    /// Any other decision: given back, taken back, not found …
    pub other: u64,
    /// Answered by a failure that means that nothing was written.
    pub turned_away: u64,
    /// Recorded or not, nobody can say; those that got another call's answer with them.
    pub unknown: u64,
    /// From the intended time to the answer, or to where there was none; without those turned away.
    pub latency: Latency,
    /// The same of those that the service turned away; a terminal without a session asks nobody.
    pub turned_away_latency: Latency,
}

impl Tally {
    pub(in crate::load) fn add(&mut self, call: &Asked) {
        self.calls += 1;
        let took = latency(call);
        match &call.outcome {
            Outcome::NotExecuted(reason) if reason == NO_SESSION => {}
            Outcome::NotExecuted(_) => self.turned_away_latency.record(took),
            _ => self.latency.record(took),
        }
        *match call.outcome {
            Outcome::Approved { .. } => &mut self.approved,
            Outcome::Held { .. } => &mut self.held,
            Outcome::Refused(_) => &mut self.refused,
            Outcome::NotExecuted(_) => &mut self.turned_away,
            Outcome::Unknown(_) | Outcome::OfAnother(_) => &mut self.unknown,
            _ => &mut self.other,
        } += 1;
    }

    pub(in crate::load) fn accepted(&self) -> u64 {
        self.approved + self.held
    }

    pub(in crate::load) fn errors(&self) -> u64 {
        self.turned_away + self.unknown
    }

    pub(in crate::load) fn decisions(&self) -> u64 {
        self.calls - self.errors()
    }
}

/// Latency counts from when the call was to be sent, so that a stall is not hidden.
pub(in crate::load) fn latency(call: &Asked) -> Duration {
    call.answered.saturating_sub(call.intended)
}
