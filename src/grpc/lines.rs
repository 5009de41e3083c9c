//! What the log says of connections that ended badly. Strangers bring that about as often as they like, and would fill the log: beyond
//! so many lines the next one says how many were left out. What is counted in metrics is counted in full.

use std::mem;
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::guard::Allowance;
use super::limits::LINES;

/// One kind of lines: how many more there may be, and how many were left out since the last one.
pub(super) struct Lines(Mutex<(Allowance, u64)>);

impl Lines {
    pub(super) fn new() -> Self {
        Self(Mutex::new((Allowance::new(LINES, Instant::now()), 0)))
    }

    /// Says it, and how many lines were left out before it if there were any; or leaves it out.
    pub(super) fn say(&self, say: impl FnOnce(Option<NonZeroU64>)) {
        let left_out = {
            // Whole after every change.
            let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (allowance, left_out) = &mut *said;
            if !allowance.take(Instant::now) {
                *left_out = left_out.saturating_add(1);
                return;
            }
            mem::take(left_out)
        };
        say(NonZeroU64::new(left_out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_log_is_not_filled_and_says_how_much_it_leaves_out() {
        let (lines, mut said) = (Lines::new(), Vec::new());
        for _ in 0..1_000 {
            lines.say(|left_out| said.push(left_out));
        }
        assert_eq!(said, [None; 10]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..3 {
            lines.say(|left_out| said.push(left_out));
        }
        assert_eq!(said[10..], [NonZeroU64::new(990), None]);
    }
}
