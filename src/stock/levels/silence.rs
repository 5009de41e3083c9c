//! What the silence of a site tells. It is heard whenever it does something online; a sale on paper is no sound of it.
//!
//! How long a site is usually silent is learned from the silences between its sounds, one after the other:
//!
//! ```text
//! silence >= CLOSED   it was closed: teaches nothing, is no gap
//! silence >  habit    habit += (silence - habit) / 4
//! otherwise           habit -= (habit - silence) / 64
//! ```
//!
//! So the habit is quickly as long as the longer silences of a day, and forgets them slowly: a busy hour does not make a quiet
//! one suspicious. More than twice the habit without a sound is overdue. If a sound follows such a silence, and the site was not
//! closed, it was a gap: it may have been cut off, and have sold on paper.
//!
//! The numbers are ours; nobody published any. A pharmacy that sells rationed things is rarely silent for half an hour, which
//! is where every site begins. One that sells every minute may go for coffee (10 min at least), one that sells next to nothing must
//! not be believed all day (3 h at most), and who is silent for 6 h was closed: a mart that sells until eleven opens at eight. Whoever
//! counts after a gap looks first and reports then: what was counted up to 10 min before its first sound is of after it.

use crate::time::Timestamp;

const MINUTE_MS: i64 = 60_000;
const HABIT_AT_FIRST_MS: i64 = 30 * MINUTE_MS;
const HABIT_LEAST_MS: i64 = 10 * MINUTE_MS;
const HABIT_MOST_MS: i64 = 180 * MINUTE_MS;
const CLOSED_MS: i64 = 360 * MINUTE_MS;
const COUNTING_MS: i64 = 10 * MINUTE_MS;

/// What was learned from all sounds so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Heard {
    last: Option<Timestamp>,
    habit_ms: i64,
    gap_ended: Option<Timestamp>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { last: None, habit_ms: HABIT_AT_FIRST_MS, gap_ended: None }
    }
}

impl Heard {
    /// The next sound by time.
    pub(super) fn hears(&mut self, at: Timestamp) {
        let Some(last) = self.last.replace(at) else { return };
        let silence = between_ms(last, at);
        if silence >= CLOSED_MS {
            return;
        }
        if silence > 2 * self.habit_ms {
            self.gap_ended = Some(at);
        }
        let over = silence - self.habit_ms;
        self.habit_ms += if over > 0 { over / 4 } else { over / 64 };
        self.habit_ms = self.habit_ms.clamp(HABIT_LEAST_MS, HABIT_MOST_MS);
    }

    /// A sound from before one that was heard already: it teaches nothing, whenever it comes.
    pub(super) fn too_late(&mut self, at: Timestamp) {
        self.last = self.last.max(Some(at));
    }

    /// Whether there was a gap, and nobody has counted since; `counted` says when somebody did.
    pub(super) fn gap_since(&self, counted: Option<Timestamp>) -> bool {
        self.gap_ended.is_some_and(|ended| counted.is_none_or(|at| between_ms(at, ended) > COUNTING_MS))
    }

    /// Whether a sound is overdue, or there was none yet.
    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        self.last.is_none_or(|last| between_ms(last, now) > 2 * self.habit_ms)
    }

    /// The last sound, the habit in milliseconds and the end of the last gap.
    pub(super) fn parts(&self) -> (Option<Timestamp>, i64, Option<Timestamp>) {
        (self.last, self.habit_ms, self.gap_ended)
    }

    /// What [`Heard::parts`] gave; `None`: it never gave that.
    pub(super) fn from_parts(last: Option<Timestamp>, habit_ms: i64, gap_ended: Option<Timestamp>) -> Option<Self> {
        (HABIT_LEAST_MS..=HABIT_MOST_MS).contains(&habit_ms).then_some(Self { last, habit_ms, gap_ended })
    }
}

/// 0 if it is not later.
fn between_ms(earlier: Timestamp, later: Timestamp) -> i64 {
    later.as_millis().saturating_sub(earlier.as_millis()).max(0)
}
