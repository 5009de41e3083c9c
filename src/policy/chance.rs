//! When a buyer may next buy: the first instant at which every rule says yes and every window has room.

use super::programme::{Programme, Question};
use super::windows::used;
use super::{Chance, Counted, LineSet, Place, Visit, Window, Windows};
use crate::time::Timestamp;

/// Further ahead than this nobody is sent home to wait.
const DAYS_AHEAD: usize = 400;

impl Programme {
    /// The first instant, `at` or later, at which the quantity asked for (or, if that is less, all that the rules of
    /// that time allow anybody) would be approved for this line: channel, eligibility, proxy, day and all windows at
    /// once, given what counts already. A live hold counts as if it will be confirmed. A time at which the programme is
    /// not in force is a chance too. `None` if there is no such instant in the next 400 days.
    ///
    /// An agent's own line gets no help here from the people he buys for: it may stand alone next time.
    pub fn next_chance(
        &self,
        visit: &Visit,
        line: usize,
        place: &Place,
        at: Timestamp,
        history: &[Counted],
    ) -> Option<Chance> {
        let taker = visit.lines.get(line)?;
        let question = Question { visit, index: line, line: taker, place, approved: LineSet::default() };
        let counting = history.iter().filter(|c| c.held_until.is_none_or(|until| at < until));
        let bought: Vec<Counted> = counting.map(|c| Counted { held_until: None, ..*c }).collect();
        let horizon = self.zone.midnight_from(self.zone.day(at), i64::try_from(DAYS_AHEAD).unwrap_or(0));
        let mut then = at;
        // Between two of these instants no answer changes, so it is enough to look at each.
        while then < horizon {
            let day = self.zone.day(then);
            let Some(period) = self.in_force(then) else { return Some(self.chance(then)) };
            let windows: Windows = self.windows(period, day, taker.buyer, then).collect();
            if self.verdict(period, day, question, then).is_yes() && fits(&windows, taker.quantity, &bought, then) {
                return Some(self.chance(then));
            }
            let next = self.good_until(&windows, day, then);
            if next <= then {
                return None;
            }
            then = next;
        }
        None
    }

    fn chance(&self, at: Timestamp) -> Chance {
        Chance { at, date: self.date(at) }
    }
}

/// Whether the quantity, or all that anybody may have, fits into every window.
fn fits(windows: &[Window], quantity: u32, bought: &[Counted], at: Timestamp) -> bool {
    let most = windows.iter().filter_map(|window| window.max_units).min().unwrap_or(u32::MAX);
    windows.iter().all(|window| window.allows(used(window, bought, at), quantity.min(most)))
}
