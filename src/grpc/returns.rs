//! Who was cut off comes back slowly: its next connections begin one after the other, for a while. Otherwise it would bring a whole
//! new allowance as often as it can connect, and what it costs to cut it off would be the flood.
//!
//! Only whom a certificate names is held back, and only it: others at its site, or at its address, have done nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::identity::{Identity, Peer, Seller};
use super::limits::{HELD_AGAINST, HELD_AT_ONCE, RETURNS_EVERY, RETURNS_OF_A_GATEWAY_EVERY, RETURNS_WITHIN};
use crate::museum::Mutant;

/// Those of whom one was cut off.
#[derive(Default)]
pub(super) struct Returns {
    held: Mutex<HashMap<Identity, Held>>,
}

/// What is held against one of them.
struct Held {
    until: Instant,
    /// When its next connection may begin.
    next: Instant,
}

/// It would have to wait for longer than it is waited for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Returns {
    /// One of them was cut off. Of more of them than are remembered, those stay that were there before.
    pub(super) fn cut_off(&self, peer: Peer, now: Instant) {
        let Peer::Certified(who, _) = peer else { return };
        if Mutant::ReturnsAtOnce.is_on() {
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD_AT_ONCE {
            held.retain(|_, held| held.until > now);
        }
        let until = now + HELD_AGAINST;
        if let Some(held) = held.get_mut(&who) {
            held.until = until;
        } else if held.len() < HELD_AT_ONCE {
            held.insert(who, Held { until, next: now + every(who) });
        }
    }

    /// When a connection of it begins; `None`: at once.
    pub(super) fn begins(&self, peer: Peer, now: Instant) -> Result<Option<Instant>, TooMany> {
        let Peer::Certified(who, _) = peer else { return Ok(None) };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(one) = held.get_mut(&who) else { return Ok(None) };
        if one.until <= now {
            held.remove(&who);
            return Ok(None);
        }
        let begins = one.next.max(now);
        if begins - now > RETURNS_WITHIN {
            return Err(TooMany);
        }
        one.next = begins + every(who);
        Ok(Some(begins).filter(|begins| *begins > now))
    }
}

fn every(who: Identity) -> Duration {
    match who {
        // One of the many for whom it speaks is not all of them.
        Identity::Seller(Seller::Gateway(_)) => RETURNS_OF_A_GATEWAY_EVERY,
        Identity::Seller(Seller::Site(..)) | Identity::Operator(_) | Identity::Feed(_) => RETURNS_EVERY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::token::Thumbprint;

    fn peer(name: &str) -> Peer {
        Peer::Certified(format!("rationd://{name}").parse().unwrap(), Thumbprint::of(b"key"))
    }

    #[test]
    fn who_was_cut_off_begins_one_after_the_other_and_nobody_else_does() {
        let (returns, now) = (Returns::default(), Instant::now());
        let (one, gateway) = (peer("site/11000001/w1"), peer("gateway/pos"));
        assert_eq!(returns.begins(one, now), Ok(None));
        for peer in [one, gateway, Peer::Clear, Peer::Uncertified] {
            returns.cut_off(peer, now);
        }
        for nth in 1..=3 {
            assert_eq!(returns.begins(one, now), Ok(Some(now + nth * RETURNS_EVERY)));
            assert_eq!(returns.begins(gateway, now), Ok(Some(now + nth * RETURNS_OF_A_GATEWAY_EVERY)));
        }
        for other in [peer("site/11000001/w2"), peer("site/11000001"), Peer::Clear, Peer::Uncertified] {
            assert_eq!(returns.begins(other, now), Ok(None));
        }
        // Whoever takes its time does not wait, and saves nothing up.
        let later = now + HELD_AGAINST / 2;
        assert_eq!(returns.begins(one, later), Ok(None));
        assert_eq!(returns.begins(one, later), Ok(Some(later + RETURNS_EVERY)));
        // It counts from the last time.
        returns.cut_off(one, later);
        let over = later + HELD_AGAINST;
        returns.begins(one, over - RETURNS_EVERY / 2).unwrap();
        assert!(matches!(returns.begins(one, over - RETURNS_EVERY / 2), Ok(Some(_))));
        assert_eq!(returns.begins(one, over), Ok(None));
    }

    #[test]
    fn those_who_would_wait_too_long_are_turned_away() {
        let (returns, now) = (Returns::default(), Instant::now());
        let one = peer("site/11000001");
        returns.cut_off(one, now);
        let wait = std::iter::from_fn(|| returns.begins(one, now).ok()).count();
        assert_eq!(wait as u128, RETURNS_WITHIN.as_millis() / RETURNS_EVERY.as_millis());
        assert_eq!(returns.begins(one, now), Err(TooMany));
        // Being turned away is not held against it.
        assert!(returns.begins(one, now + RETURNS_EVERY).is_ok());
    }

    #[test]
    fn so_many_are_remembered_and_those_that_are_over_make_room() {
        let (returns, now) = (Returns::default(), Instant::now());
        let who = |nth: usize| peer(&format!("site/{:08}", 11_000_000 + nth));
        (0..=HELD_AT_ONCE).for_each(|nth| returns.cut_off(who(nth), now));
        assert!(matches!(returns.begins(who(0), now), Ok(Some(_))));
        assert_eq!(returns.begins(who(HELD_AT_ONCE), now), Ok(None));
        returns.cut_off(who(HELD_AT_ONCE), now + HELD_AGAINST);
        assert_eq!(returns.held.lock().unwrap().len(), 1);
    }
}
