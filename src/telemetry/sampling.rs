//! Which calls are traced, by OpenTelemetry's variables and by its rules. The SDK makes a span first and asks then, which costs a
//! call that is not traced nearly as much as one that is; here nothing is made for it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opentelemetry::trace::SpanContext;

/// Every trace.
const ALL: u64 = 1 << 63;

/// So many of all traces, and whether a caller's word counts before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Of 2^63.
    share: u64,
    heeds_parent: bool,
}

impl Sampling {
    /// What OpenTelemetry does unless told otherwise: as the caller says, and every trace where nobody says anything.
    pub const DEFAULT: Self = Self { share: ALL, heeds_parent: true };
    /// Nothing.
    pub const NEVER: Self = Self { share: 0, heeds_parent: false };

    /// This share of all traces, from 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "as the SDK does it, so that all agree on a trace"
    )]
    pub fn of(ratio: f64, heeds_parent: bool) -> Self {
        Self { share: if ratio < 1.0 { (ratio.max(0.0) * ALL as f64) as u64 } else { ALL }, heeds_parent }
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

/// What holds in this process, as its propagator does; at first [`Sampling::DEFAULT`].
static SHARE: AtomicU64 = AtomicU64::new(ALL);
/// See [`SHARE`].
static HEEDS_PARENT: AtomicBool = AtomicBool::new(true);

/// From now on.
pub(super) fn set(sampling: Sampling) {
    SHARE.store(sampling.share, Ordering::Relaxed);
    HEEDS_PARENT.store(sampling.heeds_parent, Ordering::Relaxed);
}

/// Whether a call is traced whose caller is in this span, or that begins a trace.
pub(super) fn takes(parent: Option<&SpanContext>) -> bool {
    let sampling =
        Sampling { share: SHARE.load(Ordering::Relaxed), heeds_parent: HEEDS_PARENT.load(Ordering::Relaxed) };
    sampling.takes(parent, || RandomState::new().hash_one(()))
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
