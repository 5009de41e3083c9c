//! Which calls are traced, by OpenTelemetry's variables and by its rules. The SDK makes a span first and asks then, which costs a
//! call that is not traced nearly as much as one that is; here nothing is made for it.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::trace::SpanContext;
use tokio::time::Instant;

/// Every trace.
const ALL: u64 = 1 << 63;

/// The most calls that are traced in a second where callers may ask for it and not all are traced anyway.
const MOST_ASKED_FOR: u32 = 1_000;

/// So many of all traces, and whether a caller's word counts before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Of 2^63.
    share: u64,
    heeds_parent: bool,
    /// The most calls in a second, whoever asks for more.
    most: u32,
}

impl Sampling {
    /// What is done unless OpenTelemetry's variables say otherwise: as the caller says, and one trace in a hundred where nobody says
    /// anything. Every trace would cost more than a quarter of the throughput, and so it would if all callers asked for theirs.
    pub const DEFAULT: Self = Self { share: ALL / 100, heeds_parent: true, most: MOST_ASKED_FOR };
    /// Nothing.
    pub const NEVER: Self = Self { share: 0, heeds_parent: false, most: 0 };

    /// This share of all traces, from 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "as the SDK does it, so that all agree on a trace"
    )]
    pub fn of(ratio: f64, heeds_parent: bool) -> Self {
        let share = if ratio < 1.0 { (ratio.max(0.0) * ALL as f64) as u64 } else { ALL };
        let most = if heeds_parent && share < ALL { MOST_ASKED_FOR } else { u32::MAX };
        Self { share, heeds_parent, most }
    }

    /// Whether a call is traced whose caller is in this span, or that begins a trace.
    fn takes(self, parent: Option<&SpanContext>, chance: impl FnOnce() -> u64) -> bool {
        match parent {
            Some(parent) if self.heeds_parent => parent.is_sampled(),
            // Whoever else is asked about this trace decides alike.
            Some(parent) => {
                let [.., a, b, c, d, e, f, g, h] = parent.trace_id().to_bytes();
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.share
            }
            None => self.share > 0 && chance() >> 1 < self.share,
        }
    }
}

/// How many calls are traced in one second.
struct Second {
    begun: Option<Instant>,
    taken: u32,
}

impl Second {
    const NONE: Self = Self { begun: None, taken: 0 };

    /// Whether another one is within the bound.
    fn takes(&mut self, most: u32, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= Duration::from_secs(1)) {
            *self = Self { begun: Some(now), taken: 0 };
        }
        let takes = self.taken < most;
        self.taken += u32::from(takes);
        takes
    }
}

/// What holds in this process, as its propagator does.
static SAMPLING: OnceLock<Sampling> = OnceLock::new();
/// Locked for those calls alone that would be traced.
static SECOND: Mutex<Second> = Mutex::new(Second::NONE);

/// From now on, and until the process ends. Nobody says it twice.
pub(super) fn set(sampling: Sampling) {
    let _ = SAMPLING.set(sampling);
}

/// Whether a call is traced whose caller is in this span, or that begins a trace.
pub(super) fn takes(parent: Option<&SpanContext>) -> bool {
    let sampling = SAMPLING.get().copied().unwrap_or(Sampling::DEFAULT);
    sampling.takes(parent, || RandomState::new().hash_one(()))
        && SECOND.lock().unwrap_or_else(PoisonError::into_inner).takes(sampling.most, Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    fn parent(trace: u128, flags: TraceFlags) -> SpanContext {
        SpanContext::new(TraceId::from(trace), SpanId::from(7), flags, true, TraceState::default())
    }

    #[test]
    fn a_share_of_the_traces_that_begin_here_is_taken() {
        let taken = |ratio| {
            let sampling = Sampling::of(ratio, true);
            (0..100_000).filter(|_| sampling.takes(None, || RandomState::new().hash_one(()))).count()
        };
        assert_eq!((taken(0.0), taken(1.0), taken(7.0)), (0, 100_000, 100_000));
        let tenth = taken(0.1);
        assert!((9_000..11_000).contains(&tenth), "{tenth}");
        assert!(!Sampling::NEVER.takes(None, || 0));
        // Of 2^63 a share of 0.01 is not written exactly.
        let named = Sampling::of(0.01, true);
        assert!(Sampling::DEFAULT.share.abs_diff(named.share) < 16);
        // Who has less traced is asked for no more by that.
        assert_eq!((Sampling::DEFAULT.most, Sampling::of(1.0, true).most), (named.most, u32::MAX));
    }

    #[test]
    fn no_more_are_traced_in_a_second_whoever_asks() {
        let (mut second, begun) = (Second::NONE, Instant::now());
        let mut taken = |at: u64| (0..7).filter(|_| second.takes(5, begun + Duration::from_millis(at))).count();
        assert_eq!([taken(0), taken(999), taken(1_000), taken(5_000)], [5, 0, 5, 5]);
    }

    #[test]
    fn a_callers_word_counts_where_it_is_heeded_and_its_trace_where_not() {
        let (yes, no) = (parent(u128::MAX, TraceFlags::SAMPLED), parent(0, TraceFlags::NOT_SAMPLED));
        for sampling in [Sampling::DEFAULT, Sampling::of(0.0, true)] {
            assert!(sampling.takes(Some(&yes), || 0) && !sampling.takes(Some(&no), || 0), "{sampling:?}");
        }
        // The SDK's own sampler takes a trace by the last eight bytes of its id.
        let half = Sampling::of(0.5, false);
        assert!(!half.takes(Some(&yes), || 0) && half.takes(Some(&no), || 0));
        assert!(!Sampling::NEVER.takes(Some(&yes), || 0));
    }
}
