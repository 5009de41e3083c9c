//! The rules of the door as a pure state machine: no I/O, no clock, nothing async. `embedded/` drives it; the Lua scripts in
//! `redis/` state the same rules and must agree with it.
//!
//! Invariants: a terminal has at most one seat of a site; no grant makes the live seats of a site more than the cap of
//! that grant; a fence is never given out twice; logical time never goes back.
//!
//! Knows nothing about tokens, instances, or how its state is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{BATCH, Ended, EndedWhy, Holder, Lease, Opened, Seat, SeatKey, Standing, millis};
use crate::ids::{SiteId, TerminalId};

/// Every site's seats and the logical time.
#[derive(Debug)]
pub struct Limiter {
    lease: Lease,
    now_ms: u64,
    /// The store's own time at the last tick; `None` before the first.
    last_ms: Option<u64>,
    sites: HashMap<SiteId, SiteSeats>,
    /// Every seat by the time of its last renewal, so that a tick finds the silent ones without looking at the others.
    by_renewal: BTreeSet<(u64, SeatKey)>,
}

/// The seats of one site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteSeats {
    /// The last fence given out; kept when the seats are gone.
    pub fence: u64,
    /// Who holds which slot. Boxed, because most sites have one seat and a tree sets room for eleven aside.
    pub seats: BTreeMap<u16, Box<Held>>,
}

/// A slot that is held. Times are logical milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// By whom.
    pub terminal: TerminalId,
    /// By which grant.
    pub fence: u64,
    /// Since when.
    pub granted_ms: u64,
    /// When the lease began last.
    pub renewed_ms: u64,
}

impl Limiter {
    /// A door at this logical time with these seats, every one of them renewed now: whatever time the store was away
    /// does not count.
    pub fn new(lease: Lease, now_ms: u64, sites: impl IntoIterator<Item = (SiteId, SiteSeats)>) -> Self {
        let mut limiter =
            Self { lease, now_ms, last_ms: None, sites: sites.into_iter().collect(), by_renewal: BTreeSet::new() };
        for (site, seats) in &mut limiter.sites {
            for (slot, held) in &mut seats.seats {
                held.renewed_ms = now_ms;
                limiter.by_renewal.insert((now_ms, SeatKey { site: *site, slot: *slot }));
            }
        }
        limiter
    }

    /// Logical time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The seats of a site; `None` if nobody ever opened a session there.
    pub fn site(&self, site: &SiteId) -> Option<&SiteSeats> {
        self.sites.get(site)
    }

    /// See [`super::Door::open`]. Besides the answer, the seats that this ended, for the stream of changes.
    pub fn open(&mut self, site: SiteId, terminal: TerminalId, cap: u16) -> (Opened, Vec<Ended>) {
        let mut ended = Vec::new();
        let here = self.sites.entry(site).or_default();
        let own = here.seats.iter().find(|(_, held)| held.terminal == terminal).map(|(slot, held)| (*slot, **held));

        // What has expired is free. The terminal's own seat is not: it is about to be replaced.
        let lease_ms = millis(self.lease.length);
        let silent = |held: &Held| self.now_ms - held.renewed_ms > lease_ms;
        let expired: Vec<u16> =
            here.seats.iter().filter(|(_, h)| h.terminal != terminal && silent(h)).map(|(s, _)| *s).collect();
        for slot in expired {
            ended.extend(self.end(SeatKey { site, slot }, EndedWhy::Expired));
        }

        // The own slot if it is still below the cap; else the lowest free one, if the others leave one within the cap.
        let here = self.sites.entry(site).or_default();
        let slot = match own {
            Some((slot, _)) if slot < cap => Some(slot),
            _ => {
                let others = here.seats.len() - usize::from(own.is_some());
                (others < usize::from(cap)).then(|| (0..cap).find(|slot| !here.seats.contains_key(slot))).flatten()
            }
        };
        let Some(slot) = slot else {
            let holders = here.seats.iter().map(|(slot, held)| Holder {
                terminal: held.terminal,
                slot: *slot,
                held_for: Duration::from_millis(self.now_ms - held.granted_ms),
                free_after: Duration::from_millis((held.renewed_ms + lease_ms).saturating_sub(self.now_ms)),
            });
            return (Opened::SiteFull { holders: holders.collect() }, ended);
        };

        let replaced = own.map(|(slot, held)| Seat { key: SeatKey { site, slot }, terminal, fence: held.fence });
        if let Some(seat) = replaced {
            ended.extend(self.end(seat.key, EndedWhy::Replaced));
        }
        let key = SeatKey { site, slot };
        let here = self.sites.entry(site).or_default();
        here.fence += 1;
        let fence = here.fence;
        let held = Held { terminal, fence, granted_ms: self.now_ms, renewed_ms: self.now_ms };
        here.seats.insert(slot, Box::new(held));
        self.by_renewal.insert((self.now_ms, key));
        (Opened::Granted { seat: Seat { key, terminal, fence }, replaced }, ended)
    }

    /// See [`super::Door::look_up`].
    pub fn standing(&self, seat: &Seat) -> Standing {
        let Some(here) = self.sites.get(&seat.key.site) else { return Standing::Lost };
        match here.seats.get(&seat.key.slot) {
            Some(held) if held.fence == seat.fence && held.terminal == seat.terminal => Standing::Live,
            Some(_) => Standing::Replaced,
            None if here.seats.values().any(|held| held.terminal == seat.terminal) => Standing::Replaced,
            None => Standing::Lost,
        }
    }

    /// See [`super::Door::renew`]. A seat that is live is renewed even when its lease is over: nobody has taken it.
    pub fn renew(&mut self, seat: &Seat) -> Standing {
        let standing = self.standing(seat);
        if standing == Standing::Live
            && let Some(held) = self.sites.get_mut(&seat.key.site).and_then(|here| here.seats.get_mut(&seat.key.slot))
        {
            self.by_renewal.remove(&(held.renewed_ms, seat.key));
            held.renewed_ms = self.now_ms;
            self.by_renewal.insert((self.now_ms, seat.key));
        }
        standing
    }

    /// See [`super::Door::close`]: the ending, or `None` when the seat was not live any more.
    pub fn close(&mut self, seat: &Seat) -> Option<Ended> {
        (self.standing(seat) == Standing::Live).then(|| self.end(seat.key, EndedWhy::Closed)).flatten()
    }

    /// See [`super::Door::tick`]; `store_ms` is the store's own time from any start. When it went back, this tick counts as
    /// no time and the next one counts from there.
    pub fn tick(&mut self, store_ms: u64) -> Vec<Ended> {
        let passed = self.last_ms.map_or(0, |last| store_ms.saturating_sub(last));
        self.last_ms = Some(store_ms);
        self.now_ms += passed.min(millis(self.lease.max_step));
        let Some(before) = self.now_ms.checked_sub(millis(self.lease.length)) else { return Vec::new() };
        let silent: Vec<SeatKey> = self
            .by_renewal
            .iter()
            .take_while(|(renewed, _)| *renewed < before)
            .take(BATCH)
            .map(|(_, key)| *key)
            .collect();
        silent.into_iter().filter_map(|key| self.end(key, EndedWhy::Expired)).collect()
    }

    fn end(&mut self, key: SeatKey, why: EndedWhy) -> Option<Ended> {
        let held = self.sites.get_mut(&key.site)?.seats.remove(&key.slot)?;
        self.by_renewal.remove(&(held.renewed_ms, key));
        Some(Ended { seat: key, fence: held.fence, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Lease = Lease { length: Duration::from_secs(15), max_step: Duration::from_secs(2) };

    fn door() -> Limiter {
        Limiter::new(LEASE, 0, [])
    }

    fn site() -> SiteId {
        "12345678".parse().unwrap()
    }

    fn granted(limiter: &mut Limiter, terminal: &str, cap: u16) -> Seat {
        match limiter.open(site(), terminal.parse().unwrap(), cap).0 {
            Opened::Granted { seat, .. } => seat,
            full @ Opened::SiteFull { .. } => panic!("{full:?}"),
        }
    }

    fn is_full(limiter: &mut Limiter, terminal: &str, cap: u16) -> bool {
        matches!(limiter.open(site(), terminal.parse().unwrap(), cap).0, Opened::SiteFull { .. })
    }

    #[test]
    fn the_lowest_free_slot_is_granted_and_never_one_more_than_the_cap() {
        let mut door = door();
        let (a, b) = (granted(&mut door, "a", 2), granted(&mut door, "b", 2));
        assert_eq!((a.key.slot, a.fence, b.key.slot, b.fence), (0, 1, 1, 2));
        assert!(is_full(&mut door, "c", 2));
        assert!(door.close(&a).is_some());
        assert!(door.close(&a).is_none(), "closing again frees nobody else's seat");
        assert_eq!(granted(&mut door, "c", 2).key.slot, 0);
    }

    #[test]
    fn a_lower_cap_counts_seats_above_it_and_grants_none_of_their_slots_again() {
        let mut door = door();
        let held: Vec<Seat> = ["a", "b", "c"].map(|t| granted(&mut door, t, 3)).into();
        assert!(door.close(&held[0]).is_some());
        assert!(is_full(&mut door, "d", 2), "slot 0 is free, but two seats are live");
        assert!(is_full(&mut door, "c", 1), "b is live and the cap is 1: c's slot is not granted again");
        assert_eq!(granted(&mut door, "c", 2).key.slot, 0, "c moves below the cap");
        assert_eq!(door.standing(&held[2]), Standing::Replaced);
        assert!(is_full(&mut door, "a", 0));
    }

    #[test]
    fn time_goes_by_the_store_in_bounded_steps_and_never_back() {
        let mut door = door();
        let seat = granted(&mut door, "a", 1);
        for (store_ms, now_ms) in [(5_000, 0), (6_000, 1_000), (86_400_000, 3_000), (0, 3_000), (1_500, 4_500)] {
            assert!(door.tick(store_ms).is_empty());
            assert_eq!(door.now_ms(), now_ms);
        }
        for step in 1..=5 {
            assert!(door.tick(1_500 + step * 2_000).is_empty());
        }
        assert_eq!(door.now_ms(), 14_500);
        assert!(door.tick(12_000).is_empty(), "15 s are the lease, not more than it");
        let expired = Ended { seat: seat.key, fence: 1, why: EndedWhy::Expired };
        assert_eq!(door.tick(12_001), vec![expired]);
    }

    #[test]
    fn the_reaper_works_in_bounded_batches() {
        let mut door = door();
        for n in 0..600 {
            let _ = granted(&mut door, &format!("t{n}"), 600);
        }
        assert_eq!(door.tick(0).len(), 0);
        let reaped: Vec<usize> = (1..=11).map(|n| door.tick(n * 2_000).len()).collect();
        assert_eq!(reaped, [0, 0, 0, 0, 0, 0, 0, 256, 256, 88, 0]);
    }
}
