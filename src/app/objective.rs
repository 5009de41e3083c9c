//! Whether sales and look-ups are slow just now: what lets a new channel in gradually waits while they are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A look-up's 99th percentile under load is to be no longer than this (G27).
const SLOW: Duration = Duration::from_millis(50);
/// Fewer slow trips than this are an accident.
const ENOUGH: u64 = 3;

/// What was seen since it was asked last.
#[derive(Debug, Default)]
pub(super) struct Objective {
    trips: AtomicU64,
    slow: AtomicU64,
}

impl Objective {
    /// A trip of a sale or a look-up took so long; a failed one is slow however fast it failed.
    pub(super) fn took(&self, span: Duration, failed: bool) {
        self.trips.fetch_add(1, Ordering::Relaxed);
        if failed || span > SLOW {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether more than one trip in a hundred was slow since this was asked last.
    pub(super) fn burns(&self) -> bool {
        let (trips, slow) = (self.trips.swap(0, Ordering::Relaxed), self.slow.swap(0, Ordering::Relaxed));
        slow >= ENOUGH && slow * 100 > trips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_trip_in_a_hundred_is_within_the_objective() {
        let objective = Objective::default();
        let seen = |fast: u64, slow: u64| {
            (0..fast).for_each(|_| objective.took(SLOW, false));
            (0..slow).for_each(|_| objective.took(SLOW + Duration::from_nanos(1), false));
            objective.burns()
        };
        assert!(!seen(0, 0) && !seen(0, 2) && !seen(396, 4));
        assert!(seen(395, 4) && seen(0, 3));
        assert!(!seen(10, 0), "what was asked once is forgotten");
        (0..3).for_each(|_| objective.took(Duration::ZERO, true));
        assert!(objective.burns(), "a failed trip is slow");
    }
}
