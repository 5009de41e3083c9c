//! When a call is made again, and when a terminal that lost its connection comes back. Time and chance are the caller's: what
//! is decided here can be tried without either.
//!
//! * A call is made again as it stands, request ids included: whatever became of the first attempt, it is recorded once.
//! * Never sooner than the service asks, and never at a fixed moment: thousands were told the same.
//! * In any ten seconds at most a tenth as many repeats as calls, and one where there are fewer than ten. A service that is
//!   away or overloaded is not buried under its own clients.

use std::time::Duration;

use super::CallError;
use crate::museum::Mutant;

/// The first reconnect after a lost instance falls evenly into so long: well inside of the lease.
pub const COMES_BACK_WITHIN: Duration = Duration::from_secs(8);
/// Later ones fall into more, and never into more than this.
const COMES_BACK_LATER: Duration = Duration::from_secs(30);
/// What the service itself asks for where it asks.
const REPEATS_AFTER: Duration = Duration::from_millis(500);
/// No pause is longer unless the service asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// So many calls pay for one repeat.
const CALLS_A_REPEAT: u32 = 10;
/// The seconds over which calls pay.
const PAID_FOR: usize = 10;

/// How long a terminal stays away that lost its connection for the nth time in a row, from 0 on. `chance` is from 0 to 1.
pub(super) fn comes_back_after(nth: u32, chance: f64) -> Duration {
    COMES_BACK_LATER.min(COMES_BACK_WITHIN.saturating_mul(2_u32.saturating_pow(nth))).mul_f64(chance)
}

/// How long to wait before the nth repeat, from 0 on, of a call that failed like this; `None` where repeating does not help.
pub(super) fn pause(error: &CallError, nth: u32, chance: f64) -> Option<Duration> {
    match error {
        CallError::NotExecuted { retry_after: None, .. } => None,
        CallError::NotExecuted { retry_after: Some(after), .. } => Some(after.mul_f64(1.0 + chance)),
        CallError::Unknown(_) => {
            let span = LONGEST_PAUSE.min(REPEATS_AFTER.saturating_mul(2_u32.saturating_pow(nth)));
            Some(REPEATS_AFTER + span.mul_f64(chance))
        }
    }
}

/// What the repeats of a client are paid from: its calls of the last ten seconds.
#[derive(Default)]
pub(super) struct Budget {
    /// The second that stands first.
    second: u64,
    /// Calls and repeats of that second and of those before it: one more than calls pay for, so that no repeat of the last ten
    /// seconds is ever forgotten.
    spent: [(u32, u32); PAID_FOR + 1],
}

impl Budget {
    /// A call is made for the first time.
    pub(super) fn call(&mut self, now: Duration) {
        self.go_on(now);
        let [(calls, _), ..] = &mut self.spent;
        *calls = calls.saturating_add(1);
    }

    /// Whether a call may be made again, which is then spent.
    pub(super) fn repeat(&mut self, now: Duration) -> bool {
        self.go_on(now);
        let calls = self.spent.iter().take(PAID_FOR).fold(0_u32, |sum, (calls, _)| sum.saturating_add(*calls));
        let repeats = self.spent.iter().fold(0_u32, |sum, (_, repeats)| sum.saturating_add(*repeats));
        let may = repeats < (calls / CALLS_A_REPEAT).max(1) || Mutant::RepeatsForFree.is_on();
        if may {
            let [(_, repeats), ..] = &mut self.spent;
            *repeats = repeats.saturating_add(1);
        }
        may
    }

    /// Seconds that have passed make room. A clock that stands still or goes back adds to the second that stands first.
    fn go_on(&mut self, now: Duration) {
        let passed = usize::try_from(now.as_secs().saturating_sub(self.second)).unwrap_or(usize::MAX);
        let passed = passed.min(self.spent.len());
        self.spent.rotate_right(passed);
        if let Some(new) = self.spent.get_mut(..passed) {
            new.fill((0, 0));
        }
        self.second = self.second.max(now.as_secs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shed(after: Option<Duration>) -> CallError {
        CallError::NotExecuted { reason: "OVERLOADED".into(), message: String::new(), retry_after: after }
    }

    proptest! {
        /// Steps of time, each with so many calls and wishes to repeat.
        #[test]
        fn no_repeat_is_more_than_a_tenth_of_the_calls_of_the_ten_seconds_before_it(
            steps in prop::collection::vec((0_u64..3_000, 0_u32..40, 0_u32..40), 1..80)
        ) {
            let (mut budget, mut now) = (Budget::default(), Duration::ZERO);
            let (mut calls, mut repeats) = (Vec::new(), Vec::new());
            for (millis, called, wished) in steps {
                now += Duration::from_millis(millis);
                for _ in 0..called {
                    budget.call(now);
                    calls.push(now);
                }
                for _ in (0..wished).filter(|_| budget.repeat(now)) {
                    repeats.push(now);
                    let lately = |made: &[Duration]| made.iter().filter(|at| now - **at < Duration::from_secs(10)).count();
                    prop_assert!(lately(&repeats) <= (lately(&calls) / 10).max(1));
                }
            }
        }

        #[test]
        fn nobody_comes_sooner_than_asked_or_later_than_said(nth: u32, chance in 0.0..=1.0_f64, millis in 0_u64..100_000) {
            let after = Duration::from_millis(millis);
            let pause_of = |error| pause(&error, nth, chance);
            prop_assert!(pause_of(shed(Some(after))).is_some_and(|pause| (after..=2 * after).contains(&pause)));
            prop_assert_eq!(pause_of(shed(None)), None);
            let unknown = pause_of(CallError::Unknown(String::new())).unwrap();
            prop_assert!((REPEATS_AFTER..=REPEATS_AFTER + LONGEST_PAUSE).contains(&unknown));
            prop_assert!(comes_back_after(0, chance) <= COMES_BACK_WITHIN);
            prop_assert!(comes_back_after(nth, chance) <= COMES_BACK_LATER);
        }
    }

    #[test]
    fn the_first_reconnect_falls_evenly_into_eight_seconds_and_later_ones_into_thirty() {
        let latest = |nth| comes_back_after(nth, 1.0).as_secs();
        assert_eq!([0, 1, 2, 3, 1_000].map(latest), [8, 16, 30, 30, 30]);
        assert_eq!(comes_back_after(0, 0.25).as_secs(), 2);
    }

    #[test]
    fn a_budget_is_used_up_and_comes_back() {
        let (mut budget, at) = (Budget::default(), Duration::from_secs);
        assert!(budget.repeat(at(100)), "whoever calls rarely may repeat once");
        assert!(!budget.repeat(at(109)));
        assert!(budget.repeat(at(111)));
        for _ in 0..50 {
            budget.call(at(111));
        }
        assert_eq!((0..50).filter(|_| budget.repeat(at(112))).count(), 4, "and one before");
    }
}
