//! The rules of the door as a pure state machine: no I/O, no clock, nothing async. `embedded/` drives it; the Lua scripts in
//! `redis/` state the same rules and must agree with it.
//!
//! Invariants: a terminal has at most one slot of a site, with a seat or a place; no opening makes the seats and places of
//! a site more than the cap of that opening; no grant makes the nation's seats more than the capacity of that grant; a
//! fence and a `seq` are never given out twice; a place's `seq` never changes unless its rank does; logical time never
//! goes back.
//!
//! Knows nothing about tokens, instances, what a switch says, or how its state is kept.

mod line;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{
    ADMITTED, Admitted, Attending, BATCH, Beat, Change, Ended, EndedWhy, Holder, InLine, Kept, Lease, LeftWhy, Mode,
    Opened, Opening, Place, Presence, Renewal, Seat, SeatKey, Standing, Terms, Tick, millis,
};
use crate::ids::{SiteId, TerminalId};
use crate::museum::Mutant;
use line::Line;

/// Every site's seats and places, the line, the switches and the logical time.
#[derive(Debug, Clone)]
pub struct Limiter {
    lease: Lease,
    now_ms: u64,
    /// The store's own time at the last tick; `None` before the first.
    last_ms: Option<u64>,
    sites: HashMap<SiteId, SiteSlots>,
    /// Every seat by the time of its last renewal, so that a tick finds the silent ones without looking at the others.
    by_renewal: BTreeSet<(u64, SeatKey)>,
    line: Line,
    kept: Kept,
}

/// The seats and places of one site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteSlots {
    /// The last fence given out; kept when the seats are gone.
    pub fence: u64,
    /// Who holds which slot. Boxed, because most sites have one seat and a tree sets room for eleven aside.
    pub seats: BTreeMap<u16, Box<Held>>,
    /// Who waits in which slot; never one of `seats`.
    pub places: BTreeMap<u16, Box<Waiting>>,
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
    /// When it sold last, as far as its instance has said; 0 if never.
    pub sold_ms: u64,
    /// The number of the place that it was, until its terminal has come for it.
    pub place: Option<u64>,
}

/// A slot that somebody waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Who.
    pub terminal: TerminalId,
    /// The place's number.
    pub seq: u64,
    /// The logical millisecond at which the next sign of life is due.
    pub due_ms: u64,
    /// Whether it was found overdue.
    pub absent: bool,
}

/// What a store keeps of a door beside its sites.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// Logical time in milliseconds.
    pub now_ms: u64,
    /// The last `seq` given out.
    pub seq: u64,
    /// The switches.
    pub switches: Kept,
    /// The sites that have come off the ramp.
    pub ramped: BTreeSet<SiteId>,
}

impl Limiter {
    /// A door of this state with every seat renewed and every place due now: whatever time the store was away does not
    /// count.
    pub fn new(lease: Lease, gate: Gate, sites: impl IntoIterator<Item = (SiteId, SiteSlots)>) -> Self {
        let now_ms = gate.now_ms;
        let mut limiter = Self {
            lease,
            now_ms,
            last_ms: None,
            sites: sites.into_iter().collect(),
            by_renewal: BTreeSet::new(),
            line: Line::new(gate.seq, gate.ramped),
            kept: gate.switches,
        };
        for (site, here) in &mut limiter.sites {
            for (slot, held) in &mut here.seats {
                held.renewed_ms = now_ms;
                limiter.by_renewal.insert((now_ms, SeatKey { site: *site, slot: *slot }));
            }
            for (slot, waiting) in &mut here.places {
                (waiting.due_ms, waiting.absent) = (now_ms, false);
                limiter.line.join(SeatKey { site: *site, slot: *slot }, waiting, false);
            }
        }
        limiter
    }

    /// What a store must keep beside the sites.
    pub fn gate(&self) -> Gate {
        Gate {
            now_ms: self.now_ms,
            seq: self.line.last_seq(),
            switches: self.kept.clone(),
            ramped: self.line.ramped().clone(),
        }
    }

    /// Logical time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The seats and places of a site; `None` if nobody ever opened a session there.
    pub fn site(&self, site: &SiteId) -> Option<&SiteSlots> {
        self.sites.get(site)
    }

    /// Live seats in the nation.
    pub fn live(&self) -> usize {
        self.by_renewal.len()
    }

    /// See [`super::Door::open`]. Besides the answer, what this changed.
    pub fn open(&mut self, opening: Opening, terms: Terms) -> (Opened, Vec<Change>) {
        let Opening { site, terminal, cap, ramped, due_in } = opening;
        let mut changes = Vec::new();
        if terms.version != self.kept.version {
            return (Opened::OtherSwitches, changes);
        }
        // What has expired is free. The terminal's own seat is not: it is about to be replaced.
        let (now, lease) = (self.now_ms, millis(self.lease.length));
        let here = self.sites.entry(site).or_default();
        let over = |h: &Held| h.terminal != terminal && now > h.renewed_ms.saturating_add(lease);
        let expired: Vec<u16> = here.seats.iter().filter(|(_, h)| over(h)).map(|(slot, _)| *slot).collect();
        for slot in expired {
            changes.extend(self.runs_out(SeatKey { site, slot }, EndedWhy::Expired));
        }

        let here = self.sites.entry(site).or_default();
        let is_own = |held: &Held| held.terminal == terminal && !Mutant::SeatByConnection.is_on();
        let own = here.seats.iter().find(|(_, held)| is_own(held)).map(|(slot, held)| (*slot, **held));
        let waits = here.places.iter().find(|(_, w)| w.terminal == terminal).map(|(slot, w)| (*slot, **w));
        if let Some((slot, waiting)) = waits.filter(|(slot, _)| *slot < cap) {
            if Mutant::NumberBeforeLook.is_on() {
                changes.extend(self.remove(SeatKey { site, slot }, LeftWhy::Moved));
                let place = self.stand(SeatKey { site, slot }, terminal, due_in, false);
                changes.push(Change::Waits(place));
                return (Opened::Waiting { place, is_new: true }, changes);
            }
            changes.extend(self.comes(SeatKey { site, slot }, due_in));
            return (waiting_in(site, slot, &waiting), changes);
        }
        if terms.mode == Mode::Closed {
            return (Opened::Shut, changes);
        }
        // An absent place is its site's: another terminal of the site goes on waiting in it. One that is overdue is absent, also
        // before a tick has found it.
        let absent = |w: &Waiting| w.absent || now > w.due_ms.saturating_add(lease);
        let others = here.seats.len() + here.places.len() - usize::from(own.is_some()) - usize::from(waits.is_some());
        let free = |slot: &u16| match here.places.get(slot) {
            Some(waiting) => own.is_none() && absent(waiting) && others <= usize::from(cap),
            None => !here.seats.contains_key(slot) && others < usize::from(cap),
        };
        let slot = match own {
            Some((slot, _)) if slot < cap => Some(slot),
            _ => (0..cap).find(free),
        };
        let Some(slot) = slot else { return (Opened::SiteFull { holders: self.holders(site) }, changes) };
        let key = SeatKey { site, slot };

        if let Some((old, held)) = own {
            let replaced = Seat { key: SeatKey { site, slot: old }, terminal, fence: held.fence };
            changes.extend(self.end(replaced.key, EndedWhy::Replaced));
            let seat = self.grant(key, terminal, 0, None);
            // It is the same terminal in the same session of work: what it sold stays known.
            self.sold(key, held.sold_ms);
            return (Opened::Granted { seat, replaced: Some(replaced) }, changes);
        }
        if let Some(waiting) = here.places.get_mut(&slot) {
            waiting.terminal = terminal;
            let taken = **waiting;
            // Of the place above the cap, if it had one.
            if let Some((old, _)) = waits {
                changes.extend(self.remove(SeatKey { site, slot: old }, LeftWhy::Moved));
            }
            let _ = self.comes(key, due_in);
            changes.push(Change::Waits(Place { key, terminal, seq: taken.seq }));
            return (waiting_in(site, slot, &taken), changes);
        }
        if terms.mode == Mode::Drain {
            return (Opened::Shut, changes);
        }
        if let Some((old, _)) = waits {
            changes.extend(self.remove(SeatKey { site, slot: old }, LeftWhy::Moved));
        }
        let held_back = ramped && !self.line.is_off_the_ramp(&site);
        let at_once = terms.mode.admits(slot) && !held_back && self.line.nobody_is_ready();
        if at_once && self.by_renewal.len() < capacity(terms) {
            return (Opened::Granted { seat: self.grant(key, terminal, 0, None), replaced: None }, changes);
        }
        let place = self.stand(key, terminal, due_in, held_back);
        changes.push(Change::Waits(place));
        (Opened::Waiting { place, is_new: true }, changes)
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
    pub fn renew(&mut self, renewal: &Renewal) -> Standing {
        let Renewal { seat, sold_ago } = renewal;
        let standing = self.standing(seat);
        if standing == Standing::Live {
            self.renewed(seat.key, self.now_ms);
            if let Some(ago) = sold_ago {
                self.sold(seat.key, self.now_ms.saturating_sub(millis(*ago)));
            }
        }
        standing
    }

    /// See [`super::Door::attend`].
    pub fn attend(&mut self, attending: &Attending) -> (Option<Place>, Vec<Change>) {
        let Attending { site, terminal, due_in } = *attending;
        let mut changes = Vec::new();
        let Some(here) = self.sites.get(&site) else { return (None, changes) };
        let Some((slot, waiting)) = here.places.iter().find(|(_, w)| w.terminal == terminal) else {
            // It may have been admitted and not have heard of it: the seat is kept until it does.
            if let Some(slot) = here.seats.iter().find(|(_, h)| h.terminal == terminal).map(|(slot, _)| *slot) {
                self.renewed(SeatKey { site, slot }, self.now_ms.saturating_add(millis(due_in)));
            }
            return (None, changes);
        };
        let (slot, waiting) = (*slot, **waiting);
        let lower = (0..slot).find(|lower| !here.seats.contains_key(lower) && !here.places.contains_key(lower));
        let Some(lower) = lower else {
            let key = SeatKey { site, slot };
            changes.extend(self.comes(key, due_in));
            return (Some(Place { key, terminal, seq: waiting.seq }), changes);
        };
        let held_back = self.line.is_held_back(SeatKey { site, slot }, waiting.seq);
        changes.extend(self.remove(SeatKey { site, slot }, LeftWhy::Moved));
        let place = self.stand(SeatKey { site, slot: lower }, terminal, due_in, held_back);
        changes.push(Change::Waits(place));
        (Some(place), changes)
    }

    /// See [`super::Door::close`]: the ending, or `None` when the seat was not live any more.
    pub fn close(&mut self, seat: &Seat) -> Option<Change> {
        (self.standing(seat) == Standing::Live).then(|| self.end(seat.key, EndedWhy::Closed)).flatten()
    }

    /// See [`super::Door::leave`].
    pub fn leave(&mut self, place: &Place) -> Option<Change> {
        let was = |held: &Held| held.terminal == place.terminal && held.place == Some(place.seq);
        if self.held(place.key).is_some_and(was) {
            return self.end(place.key, EndedWhy::Closed);
        }
        let waiting = self.sites.get(&place.key.site)?.places.get(&place.key.slot)?;
        let same = waiting.terminal == place.terminal && waiting.seq == place.seq;
        same.then(|| self.remove(place.key, LeftWhy::Closed)).flatten()
    }

    /// See [`super::Door::line`].
    pub fn line(&self) -> Vec<InLine> {
        let of_site = |(site, here): (&SiteId, &SiteSlots)| -> Vec<InLine> {
            let in_line = |slot: &u16, terminal, seq, presence| InLine {
                place: Place { key: SeatKey { site: *site, slot: *slot }, terminal, seq },
                presence,
            };
            let granted = here.seats.iter().filter_map(|(slot, held)| {
                Some(in_line(slot, held.terminal, held.place?, Presence::Granted { fence: held.fence }))
            });
            let places = here.places.iter().map(|(slot, w)| {
                in_line(slot, w.terminal, w.seq, if w.absent { Presence::Absent } else { Presence::Present })
            });
            granted.chain(places).collect()
        };
        self.sites.iter().flat_map(of_site).collect()
    }

    /// See [`super::Door::admit`].
    pub fn admit(&mut self, terms: Terms) -> (Admitted, Vec<Change>) {
        let mut changes = Vec::new();
        let other_switches = terms.version != self.kept.version;
        let (mut admitted, mut looked_at) = (0, 0);
        while !other_switches
            && looked_at < ADMITTED
            && self.by_renewal.len() < capacity(terms)
            && let Some(key) = self.line.next().filter(|key| terms.mode.admits(key.slot))
        {
            looked_at += 1;
            let Some(waiting) = self.waiting(key) else { break };
            if self.now_ms > waiting.due_ms.saturating_add(millis(self.lease.length)) {
                changes.extend(self.goes_absent(key));
                continue;
            }
            let _ = self.remove(key, LeftWhy::Admitted);
            // Whoever asks now and then learns of the seat when its next question is due: its lease begins then.
            let seat = self.grant(key, waiting.terminal, waiting.due_ms, Some(waiting.seq));
            changes.push(Change::Admitted { seat, seq: waiting.seq });
            admitted += 1;
        }
        let live = u32::try_from(self.by_renewal.len()).unwrap_or(u32::MAX);
        (Admitted { admitted, more: looked_at == ADMITTED, live, other_switches }, changes)
    }

    /// See [`super::Door::tick`]; `store_ms` is the store's own time from any start. When it went back, this tick counts as
    /// no time and the next one counts from there.
    pub fn tick(&mut self, store_ms: u64, beat: Beat) -> (Tick, Vec<Change>) {
        let passed = self.last_ms.map_or(0, |last| store_ms.saturating_sub(last)).min(self.lease.step_ms());
        self.last_ms = Some(store_ms);
        self.now_ms += passed;
        let other_switches = beat.terms.version != self.kept.version;
        let shut = !other_switches && beat.terms.mode == Mode::Closed;
        let mut changes = Vec::new();

        let ripe = |lease: Duration| self.now_ms.checked_sub(millis(lease));
        let (silent, gone) = (ripe(self.lease.length), ripe(self.lease.grace));
        let over: Vec<SeatKey> = self
            .by_renewal
            .iter()
            .take_while(|(renewed, _)| shut || silent.is_some_and(|silent| *renewed < silent))
            .take(BATCH)
            .map(|(_, key)| *key)
            .collect();
        let expired = over.len();
        for key in over {
            let late = self.held(key).is_some_and(|held| silent.is_some_and(|silent| held.renewed_ms < silent));
            changes.extend(self.runs_out(key, if late { EndedWhy::Expired } else { EndedWhy::Shut }));
        }

        let overdue = self.line.overdue(silent);
        let absent = overdue.len();
        for key in overdue {
            changes.extend(self.goes_absent(key));
        }

        let forgotten = self.line.forgotten(gone);
        let removed = forgotten.len();
        for key in forgotten {
            changes.extend(self.forget(key));
        }

        let off = if other_switches { 0 } else { self.off_the_ramp(beat, passed) };
        (Tick { expired, more: [expired, absent, removed, off].contains(&BATCH), other_switches }, changes)
    }

    /// See [`super::Door::trim`], for one site.
    pub fn trim(&mut self, site: SiteId, cap: u16, version: u64) -> Vec<Change> {
        let Some(here) = self.sites.get(&site).filter(|_| version == self.kept.version) else { return Vec::new() };
        // The seat that sold last stays; of those that sold nothing, the one that was granted first; then who waits, by rank.
        let mut seats: Vec<(u16, Held)> = here.seats.iter().map(|(slot, held)| (*slot, **held)).collect();
        seats.sort_by_key(|(slot, held)| (std::cmp::Reverse(held.sold_ms), held.fence, *slot));
        let places: Vec<u16> = here.places.keys().copied().collect();
        let (cap, seated) = (usize::from(cap), seats.len());
        let mut changes = Vec::new();
        for (slot, _) in seats.into_iter().skip(cap) {
            changes.extend(self.end(SeatKey { site, slot }, EndedWhy::CapLowered));
        }
        for slot in places.into_iter().skip(cap.saturating_sub(seated)) {
            changes.extend(self.remove(SeatKey { site, slot }, LeftWhy::CapLowered));
        }
        changes
    }

    /// See [`super::Door::occupancy`].
    pub fn occupancy(&self) -> Vec<(SiteId, u16)> {
        let taken = |here: &SiteSlots| u16::try_from(here.seats.len() + here.places.len()).unwrap_or(u16::MAX);
        self.sites.iter().map(|(site, here)| (*site, taken(here))).filter(|(_, taken)| *taken > 0).collect()
    }

    /// See [`super::Door::switches`].
    pub fn switches(&self) -> &Kept {
        &self.kept
    }

    /// See [`super::Door::switch`].
    pub fn switch(&mut self, version: u64, document: &str, new_ramp: bool) -> Option<Change> {
        if version != self.kept.version {
            return None;
        }
        self.kept = Kept { version: version + 1, document: document.to_owned() };
        if new_ramp {
            self.line.begin_a_ramp();
        }
        Some(Change::Switched)
    }

    /// Lets sites off the ramp, those first that have waited longest.
    fn off_the_ramp(&mut self, beat: Beat, passed_ms: u64) -> usize {
        let allowed = self.line.may_come_off(beat, self.now_ms, passed_ms);
        let mut off = 0;
        while off < allowed
            && let Some(site) = self.line.first_held_back()
        {
            self.line.comes_off(site, beat.ramp.is_some());
            for (slot, waiting) in self.sites.get(&site).into_iter().flat_map(|here| &here.places) {
                self.line.release(SeatKey { site, slot: *slot }, waiting);
            }
            off += 1;
        }
        off
    }

    fn held(&self, key: SeatKey) -> Option<&Held> {
        self.sites.get(&key.site)?.seats.get(&key.slot).map(|held| &**held)
    }

    fn waiting(&self, key: SeatKey) -> Option<Waiting> {
        self.sites.get(&key.site)?.places.get(&key.slot).map(|waiting| **waiting)
    }

    fn grant(&mut self, key: SeatKey, terminal: TerminalId, not_before_ms: u64, place: Option<u64>) -> Seat {
        let here = self.sites.entry(key.site).or_default();
        here.fence += 1;
        let (fence, renewed_ms) = (here.fence, self.now_ms.max(not_before_ms));
        let held = Held { terminal, fence, granted_ms: self.now_ms, renewed_ms, sold_ms: 0, place };
        here.seats.insert(key.slot, Box::new(held));
        self.by_renewal.insert((renewed_ms, key));
        Seat { key, terminal, fence }
    }

    /// The lease begins then, if it does not begin later: that of a terminal that asks now and then does.
    fn renewed(&mut self, key: SeatKey, at_ms: u64) {
        if let Some(held) = self.sites.get_mut(&key.site).and_then(|here| here.seats.get_mut(&key.slot)) {
            self.by_renewal.remove(&(held.renewed_ms, key));
            held.renewed_ms = held.renewed_ms.max(at_ms);
            self.by_renewal.insert((held.renewed_ms, key));
        }
    }

    fn sold(&mut self, key: SeatKey, at_ms: u64) {
        if let Some(held) = self.sites.get_mut(&key.site).and_then(|here| here.seats.get_mut(&key.slot)) {
            held.sold_ms = held.sold_ms.max(at_ms);
        }
    }

    fn end(&mut self, key: SeatKey, why: EndedWhy) -> Option<Change> {
        let held = self.sites.get_mut(&key.site)?.seats.remove(&key.slot)?;
        self.by_renewal.remove(&(held.renewed_ms, key));
        Some(Change::Ended(Ended { seat: key, fence: held.fence, why }))
    }

    /// Ends a seat that its terminal has not given up. If it never came for it, its turn came while it was away: the seat is the
    /// place again that it was.
    fn runs_out(&mut self, key: SeatKey, why: EndedWhy) -> Vec<Change> {
        let Some(Held { terminal, renewed_ms, place, .. }) = self.held(key).copied() else { return Vec::new() };
        let mut changes: Vec<Change> = self.end(key, why).into_iter().collect();
        if let Some(seq) = place.filter(|_| !Mutant::TurnSpentAway.is_on()) {
            let absent = why == EndedWhy::Expired;
            let waiting = Waiting { terminal, seq, due_ms: renewed_ms, absent };
            self.line.join(key, &waiting, false);
            self.sites.entry(key.site).or_default().places.insert(key.slot, Box::new(waiting));
            changes.push(Change::Waits(Place { key, terminal, seq }));
            changes.extend(absent.then_some(Change::Absent(key)));
        }
        changes
    }

    /// A new place, with the next number.
    fn stand(&mut self, key: SeatKey, terminal: TerminalId, due_in: Duration, held_back: bool) -> Place {
        let seq = self.line.take_seq();
        let due_ms = self.now_ms.saturating_add(millis(due_in));
        let waiting = Waiting { terminal, seq, due_ms, absent: false };
        self.line.join(key, &waiting, held_back);
        self.sites.entry(key.site).or_default().places.insert(key.slot, Box::new(waiting));
        Place { key, terminal, seq }
    }

    fn remove(&mut self, key: SeatKey, why: LeftWhy) -> Option<Change> {
        let waiting = self.sites.get_mut(&key.site)?.places.remove(&key.slot)?;
        self.line.leave(key, &waiting);
        Some(Change::Left { key, seq: waiting.seq, why })
    }

    /// A sign of life.
    fn comes(&mut self, key: SeatKey, due_in: Duration) -> Option<Change> {
        let due_ms = self.now_ms.saturating_add(millis(due_in));
        let waiting = self.sites.get_mut(&key.site)?.places.get_mut(&key.slot)?;
        let was_absent = waiting.absent;
        self.line.change(key, waiting, due_ms, false);
        was_absent.then_some(Change::Present(key))
    }

    fn goes_absent(&mut self, key: SeatKey) -> Option<Change> {
        let waiting = self.sites.get_mut(&key.site)?.places.get_mut(&key.slot)?;
        let due_ms = waiting.due_ms;
        self.line.change(key, waiting, due_ms, true);
        Some(Change::Absent(key))
    }

    /// Removes a place that was absent for the grace. The site's present terminal of the next rank inherits its number.
    fn forget(&mut self, key: SeatKey) -> Vec<Change> {
        let (Some(gone), Some(here)) = (self.waiting(key), self.sites.get(&key.site)) else { return Vec::new() };
        let heir = here.places.range(key.slot..).find(|(_, waiting)| !waiting.absent).map(|(slot, w)| (*slot, **w));
        let mut changes: Vec<Change> = self.remove(key, LeftWhy::Absent).into_iter().collect();
        if let Some((slot, heir)) = heir {
            let old = SeatKey { site: key.site, slot };
            let held_back = self.line.is_held_back(old, heir.seq);
            changes.extend(self.remove(old, LeftWhy::Moved));
            let waiting = Waiting { seq: gone.seq, ..heir };
            self.line.join(key, &waiting, held_back);
            self.sites.entry(key.site).or_default().places.insert(key.slot, Box::new(waiting));
            changes.push(Change::Waits(Place { key, terminal: heir.terminal, seq: gone.seq }));
        }
        changes
    }

    fn holders(&self, site: SiteId) -> Vec<Holder> {
        let Some(here) = self.sites.get(&site) else { return Vec::new() };
        let (now, lease) = (self.now_ms, millis(self.lease.length));
        let until = |since: u64| Duration::from_millis(since.saturating_add(lease).saturating_sub(now));
        let seats = here.seats.iter().map(|(slot, held)| Holder {
            terminal: held.terminal,
            slot: *slot,
            waiting: false,
            held_for: Duration::from_millis(now - held.granted_ms),
            free_after: until(held.renewed_ms),
        });
        let places = here.places.iter().map(|(slot, waiting)| Holder {
            terminal: waiting.terminal,
            slot: *slot,
            waiting: true,
            held_for: Duration::ZERO,
            free_after: until(waiting.due_ms),
        });
        let mut holders: Vec<Holder> = seats.chain(places).collect();
        holders.sort_by_key(|holder| holder.slot);
        holders
    }
}

fn waiting_in(site: SiteId, slot: u16, waiting: &Waiting) -> Opened {
    let place = Place { key: SeatKey { site, slot }, terminal: waiting.terminal, seq: waiting.seq };
    Opened::Waiting { place, is_new: false }
}

fn capacity(terms: Terms) -> usize {
    usize::try_from(terms.capacity).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
