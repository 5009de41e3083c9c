//! Who was cut off comes back slowly: its next connections begin one after the other, for a while. Otherwise it would bring a whole
//! new allowance as often as it can connect, and what it costs to cut it off would be the flood.
//!
//! Whoever is nobody in particular, because one address is everybody, is not held back: that would stop everybody.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::crowd::Who;
use super::limits::{GREETED_WITHIN, HELD_AGAINST, HELD_AT_ONCE, RETURNS_EVERY};
use crate::museum::Mutant;

/// Those of whom one was cut off.
#[derive(Default)]
pub(super) struct Returns {
    held: Mutex<HashMap<Who, Held>>,
}

/// What is held against one of them.
struct Held {
    until: Instant,
    /// When its next connection may begin.
    next: Instant,
}

/// It would have to wait for longer than it would be waited for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Returns {
    /// One of them was cut off. Of more of them than are remembered, those stay that were there before.
    pub(super) fn cut_off(&self, who: Who, now: Instant) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if Mutant::ReturnsAtOnce.is_on() {
            return;
        }
        if held.len() >= HELD_AT_ONCE {
            held.retain(|_, held| held.until > now);
        }
        let until = now + HELD_AGAINST;
        if let Some(held) = held.get_mut(&who) {
            held.until = until;
        } else if held.len() < HELD_AT_ONCE {
            held.insert(who, Held { until, next: now + RETURNS_EVERY });
        }
    }

    /// When a connection of it begins; `None`: at once.
    pub(super) fn begins(&self, who: Who, now: Instant) -> Result<Option<Instant>, TooMany> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(one) = held.get_mut(&who) else { return Ok(None) };
        if one.until <= now {
            held.remove(&who);
            return Ok(None);
        }
        let begins = one.next.max(now);
        if begins - now > GREETED_WITHIN {
            return Err(TooMany);
        }
        one.next = begins + RETURNS_EVERY;
        Ok(Some(begins).filter(|begins| *begins > now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> Who {
        Who::At([192, 0, 2, last].into())
    }

    #[test]
    fn who_was_cut_off_begins_one_after_the_other_and_nobody_else_does() {
        let (returns, now) = (Returns::default(), Instant::now());
        assert_eq!(returns.begins(at(1), now), Ok(None));
        returns.cut_off(at(1), now);
        for nth in 1..=3 {
            assert_eq!(returns.begins(at(1), now), Ok(Some(now + nth * RETURNS_EVERY)));
        }
        assert_eq!(returns.begins(at(2), now), Ok(None));
        // Whoever takes its time does not wait, and saves nothing up.
        let later = now + HELD_AGAINST / 2;
        assert_eq!(returns.begins(at(1), later), Ok(None));
        assert_eq!(returns.begins(at(1), later), Ok(Some(later + RETURNS_EVERY)));
        // It counts from the last time.
        returns.cut_off(at(1), later);
        let over = later + HELD_AGAINST;
        returns.begins(at(1), over - RETURNS_EVERY / 2).unwrap();
        assert!(matches!(returns.begins(at(1), over - RETURNS_EVERY / 2), Ok(Some(_))));
        assert_eq!(returns.begins(at(1), over), Ok(None));
    }

    #[test]
    fn those_who_would_wait_too_long_are_turned_away() {
        let (returns, now) = (Returns::default(), Instant::now());
        returns.cut_off(at(1), now);
        let wait = std::iter::from_fn(|| returns.begins(at(1), now).ok()).count();
        assert_eq!(wait as u128, GREETED_WITHIN.as_millis() / RETURNS_EVERY.as_millis());
        assert_eq!(returns.begins(at(1), now), Err(TooMany));
        // Being turned away is not held against it.
        assert!(returns.begins(at(1), now + RETURNS_EVERY).is_ok());
    }

    #[test]
    fn so_many_are_remembered_and_those_that_are_over_make_room() {
        let (returns, now) = (Returns::default(), Instant::now());
        let who = |nth: usize| Who::At(u32::try_from(nth).map(std::net::Ipv4Addr::from).unwrap().into());
        (0..=HELD_AT_ONCE).for_each(|nth| returns.cut_off(who(nth), now));
        assert!(matches!(returns.begins(who(0), now), Ok(Some(_))));
        assert_eq!(returns.begins(who(HELD_AT_ONCE), now), Ok(None));
        returns.cut_off(who(HELD_AT_ONCE), now + HELD_AGAINST);
        assert_eq!(returns.held.lock().unwrap().len(), 1);
    }
}
