//! The door as a slow, obvious model, written from the contract and not from the limiter: one flat list of seats and one of
//! places. Random operations run on it and on a real door, and every answer and every change must be the same.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use rationd::ids::SiteId;
use rationd::session::{
    Admitted, Attending, BURNS_FOR, Beat, Change, Cursor, Door, Ended, EndedWhy, Holder, InLine, Kept, LeftWhy, Mode,
    Opened, Opening, Place, Presence, Renewal, Seat, SeatKey, Standing, Terms, Tick,
};

use super::stands::{EmbeddedStand, LEASE, Plainly, RedisStand, Stand, opening, redis_command, site, terminal};

#[derive(Debug, Clone)]
enum Operation {
    Open {
        site: u8,
        terminal: u8,
        cap: u16,
        ramped: bool,
        due_in: u8,
        terms: (Mode, u32),
        stale: bool,
    },
    /// Of the seats ever granted, counted from the newest; with how long ago they sold.
    Renew(Vec<(usize, Option<u8>)>),
    Attend(Vec<(u8, u8, u8)>),
    Close(usize),
    /// Of the places ever given out, counted from the newest.
    Leave(usize),
    LookUp(usize),
    Admit((Mode, u32), bool),
    Pass {
        mode: Mode,
        ramp: Option<u32>,
        burning: bool,
        stale: bool,
        times: u8,
    },
    ClockStepsBack,
    Trim(u8, u16, bool),
    Switch {
        new_ramp: bool,
        stale: bool,
    },
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        6 => Just(Mode::Open),
        1 => Just(Mode::QueueAll),
        2 => Just(Mode::FirstTerminalsOnly),
        1 => Just(Mode::Drain),
        1 => Just(Mode::Closed),
    ]
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.05)
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let open = (0..3u8, 0..5u8, 0..4u16, prop::bool::weighted(0.2), 0..4u8, (mode(), 0..4u32), rarely());
    let pass = (mode(), prop::option::weighted(0.8, 300..4_000u32), rarely(), rarely(), 1..6u8);
    let operation = prop_oneof![
        9 => open.prop_map(|(site, terminal, cap, ramped, due_in, terms, stale)| {
            Operation::Open { site, terminal, cap, ramped, due_in, terms, stale }
        }),
        2 => prop::collection::vec((0..12usize, prop::option::of(0..5u8)), 1..5).prop_map(Operation::Renew),
        4 => prop::collection::vec((0..3u8, 0..5u8, 0..4u8), 1..6).prop_map(Operation::Attend),
        2 => (0..12usize).prop_map(Operation::Close),
        1 => (0..12usize).prop_map(Operation::Leave),
        1 => (0..12usize).prop_map(Operation::LookUp),
        4 => ((mode(), 0..5u32), rarely()).prop_map(|(terms, stale)| Operation::Admit(terms, stale)),
        6 => pass.prop_map(|(mode, ramp, burning, stale, times)| Operation::Pass { mode, ramp, burning, stale, times }),
        1 => Just(Operation::ClockStepsBack),
        1 => (0..3u8, 0..3u16, rarely()).prop_map(|(site, cap, stale)| Operation::Trim(site, cap, stale)),
        1 => (any::<bool>(), rarely()).prop_map(|(new_ramp, stale)| Operation::Switch { new_ramp, stale }),
    ];
    prop::collection::vec(operation, 1..80)
}

#[derive(Debug, Clone, Copy)]
struct Row {
    seat: Seat,
    granted: Duration,
    renewed: Duration,
    sold: Duration,
    /// The number of the place that it was, until its terminal comes.
    was: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Waits {
    place: Place,
    due: Duration,
    absent: bool,
    held_back: bool,
}

#[derive(Debug, Default)]
struct Model {
    now: Duration,
    rows: Vec<Row>,
    line: Vec<Waits>,
    /// Every grant ever made; a site's fence is how many of them are its own.
    grants: Vec<Seat>,
    /// Every place ever given out.
    places: Vec<Place>,
    seq: u64,
    version: u64,
    ramped: BTreeSet<SiteId>,
    /// Sites, in millionths.
    budget: u128,
    burns_until: Duration,
    changes: Vec<Change>,
    admitted: usize,
}

impl Model {
    fn end(&mut self, which: impl Fn(&Row) -> bool, why: impl Fn(&Row) -> EndedWhy) {
        let (gone, kept) = self.rows.iter().partition(|row| which(row));
        self.rows = kept;
        self.changes.extend(
            gone.iter()
                .map(|row: &Row| Change::Ended(Ended { seat: row.seat.key, fence: row.seat.fence, why: why(row) })),
        );
    }

    fn leave(&mut self, place: Place, why: LeftWhy) {
        self.line.retain(|waits| waits.place.key != place.key);
        if why != LeftWhy::Admitted {
            self.changes.push(Change::Left { key: place.key, seq: place.seq, why });
        }
    }

    fn over(&self, since: Duration) -> bool {
        self.now > since + LEASE.length
    }

    /// A seat that nobody came for is the place again that it was.
    fn run_out(&mut self, which: impl Fn(&Row) -> bool, why: impl Fn(&Row) -> EndedWhy) {
        let back: Vec<Row> = self.rows.iter().filter(|row| which(row) && row.was.is_some()).copied().collect();
        self.end(which, why);
        for row in back {
            let place = Place { key: row.seat.key, terminal: row.seat.terminal, seq: row.was.unwrap() };
            let absent = self.over(row.renewed);
            self.line.push(Waits { place, due: row.renewed, absent, held_back: false });
            self.changes.push(Change::Waits(place));
            if absent {
                self.changes.push(Change::Absent(place.key));
            }
        }
    }

    fn grant(&mut self, key: SeatKey, who: rationd::ids::TerminalId, not_before: Duration) -> Seat {
        let fence = 1 + self.grants.iter().filter(|seat| seat.key.site == key.site).count() as u64;
        let seat = Seat { key, terminal: who, fence };
        self.grants.push(seat);
        let renewed = self.now.max(not_before);
        self.rows.push(Row { seat, granted: self.now, renewed, sold: Duration::ZERO, was: None });
        seat
    }

    fn stand(&mut self, key: SeatKey, who: rationd::ids::TerminalId, due: Duration, held_back: bool) -> Place {
        self.seq += 1;
        let place = Place { key, terminal: who, seq: self.seq };
        self.places.push(place);
        self.line.push(Waits { place, due, absent: false, held_back });
        self.changes.push(Change::Waits(place));
        place
    }

    fn sign_of_life(&mut self, key: SeatKey, due: Duration) {
        for waits in self.line.iter_mut().filter(|waits| waits.place.key == key) {
            waits.due = due;
            if std::mem::take(&mut waits.absent) {
                self.changes.push(Change::Present(key));
            }
        }
    }

    fn open(&mut self, o: Opening, terms: Terms) -> Opened {
        if terms.version != self.version {
            return Opened::OtherSwitches;
        }
        let (here, who) = (o.site, o.terminal);
        let now = self.now;
        self.run_out(
            |row| row.seat.key.site == here && row.seat.terminal != who && now > row.renewed + LEASE.length,
            |_| EndedWhy::Expired,
        );
        let seats: Vec<Row> = self.rows.iter().filter(|row| row.seat.key.site == here).copied().collect();
        let places: Vec<Waits> = self.line.iter().filter(|waits| waits.place.key.site == here).copied().collect();
        let own = seats.iter().find(|row| row.seat.terminal == who).copied();
        let waits = places.iter().find(|waits| waits.place.terminal == who).copied();
        if let Some(waits) = waits.filter(|waits| waits.place.key.slot < o.cap) {
            self.sign_of_life(waits.place.key, now + o.due_in);
            return Opened::Waiting { place: waits.place, is_new: false };
        }
        if terms.mode == Mode::Closed {
            return Opened::Shut;
        }
        let others = seats.iter().filter(|r| r.seat.terminal != who).count()
            + places.iter().filter(|w| w.place.terminal != who).count();
        let room = others < usize::from(o.cap);
        let slot = (0..o.cap).find(|slot| {
            let seat = seats.iter().any(|row| row.seat.key.slot == *slot);
            let place = places.iter().find(|waits| waits.place.key.slot == *slot);
            match place {
                // Somebody else's place can be gone on with; one's own above the cap counts as nobody's.
                Some(place) => own.is_none() && self.over(place.due) && others <= usize::from(o.cap),
                None => !seat && room,
            }
        });
        let slot = own.map(|row| row.seat.key.slot).filter(|slot| *slot < o.cap).or(slot);
        let Some(slot) = slot else {
            let until = |since: Duration| (since + LEASE.length).saturating_sub(now);
            let mut holders: Vec<Holder> = seats
                .iter()
                .map(|row| Holder {
                    terminal: row.seat.terminal,
                    slot: row.seat.key.slot,
                    waiting: false,
                    held_for: now - row.granted,
                    free_after: until(row.renewed),
                })
                .collect();
            holders.extend(places.iter().map(|waits| Holder {
                terminal: waits.place.terminal,
                slot: waits.place.key.slot,
                waiting: true,
                held_for: Duration::ZERO,
                free_after: until(waits.due),
            }));
            holders.sort_by_key(|holder| holder.slot);
            return Opened::SiteFull { holders };
        };
        let key = SeatKey { site: here, slot };
        if let Some(own) = own {
            self.end(|row| row.seat == own.seat, |_| EndedWhy::Replaced);
            let seat = self.grant(key, who, Duration::ZERO);
            self.rows.last_mut().unwrap().sold = own.sold;
            return Opened::Granted { seat, replaced: Some(own.seat) };
        }
        if let Some(taken) = places.iter().find(|waits| waits.place.key == key) {
            if let Some(old) = waits {
                self.leave(old.place, LeftWhy::Moved);
            }
            let place = Place { terminal: who, ..taken.place };
            for waits in self.line.iter_mut().filter(|waits| waits.place.key == key) {
                *waits = Waits { place, due: now + o.due_in, absent: false, ..*waits };
            }
            self.changes.push(Change::Waits(place));
            return Opened::Waiting { place, is_new: false };
        }
        if terms.mode == Mode::Drain {
            return Opened::Shut;
        }
        if let Some(old) = waits {
            self.leave(old.place, LeftWhy::Moved);
        }
        let held_back = o.ramped && !self.ramped.contains(&here);
        let nobody_ready = self.line.iter().all(|waits| waits.absent || waits.held_back);
        let lets_in = terms.mode == Mode::Open || terms.mode == Mode::FirstTerminalsOnly && slot == 0;
        if lets_in && !held_back && nobody_ready && (self.rows.len() as u32) < terms.capacity {
            return Opened::Granted { seat: self.grant(key, who, Duration::ZERO), replaced: None };
        }
        let place = self.stand(key, who, now + o.due_in, held_back);
        Opened::Waiting { place, is_new: true }
    }

    fn standing(&self, seat: Seat) -> Standing {
        if self.rows.iter().any(|row| row.seat == seat) {
            Standing::Live
        } else if self.rows.iter().any(|row| {
            row.seat.key == seat.key || (row.seat.key.site == seat.key.site && row.seat.terminal == seat.terminal)
        }) {
            Standing::Replaced
        } else {
            Standing::Lost
        }
    }

    fn renew(&mut self, renewal: Renewal) -> Standing {
        for row in self.rows.iter_mut().filter(|row| row.seat == renewal.seat) {
            row.renewed = row.renewed.max(self.now);
            if let Some(ago) = renewal.sold_ago {
                row.sold = row.sold.max(self.now.saturating_sub(ago));
            }
        }
        self.standing(renewal.seat)
    }

    fn attend(&mut self, a: Attending) -> Option<Place> {
        let waits = self.line.iter().find(|w| w.place.key.site == a.site && w.place.terminal == a.terminal);
        let Some(waits) = waits.copied() else {
            // Admitted meanwhile: the seat is kept until the terminal hears of it.
            let until = self.now + a.due_in;
            let own = |row: &&mut Row| row.seat.key.site == a.site && row.seat.terminal == a.terminal;
            self.rows.iter_mut().filter(own).for_each(|row| row.renewed = row.renewed.max(until));
            return None;
        };
        let taken = |slot: &u16| {
            let key = SeatKey { site: a.site, slot: *slot };
            self.rows.iter().any(|row| row.seat.key == key) || self.line.iter().any(|waits| waits.place.key == key)
        };
        match (0..waits.place.key.slot).find(|slot| !taken(slot)) {
            None => {
                self.sign_of_life(waits.place.key, self.now + a.due_in);
                Some(waits.place)
            }
            Some(slot) => {
                self.leave(waits.place, LeftWhy::Moved);
                let key = SeatKey { site: a.site, slot };
                Some(self.stand(key, a.terminal, self.now + a.due_in, waits.held_back))
            }
        }
    }

    fn close(&mut self, seat: Seat) -> bool {
        let live = self.standing(seat) == Standing::Live;
        self.end(|row| row.seat == seat, |_| EndedWhy::Closed);
        live
    }

    fn give_up(&mut self, place: Place) -> bool {
        let was =
            |row: &Row| row.seat.key == place.key && row.seat.terminal == place.terminal && row.was == Some(place.seq);
        if self.rows.iter().any(was) {
            self.end(was, |_| EndedWhy::Closed);
            return true;
        }
        let waits = self.line.iter().any(|waits| waits.place == place);
        if waits {
            self.leave(place, LeftWhy::Closed);
        }
        waits
    }

    fn admit(&mut self, terms: Terms) -> Admitted {
        let other_switches = terms.version != self.version;
        let mut admitted = 0;
        while !other_switches && (self.rows.len() as u32) < terms.capacity {
            let ready = self.line.iter().filter(|waits| !waits.absent && !waits.held_back);
            let Some(next) = ready.min_by_key(|w| (w.place.key.slot, w.place.seq)).copied() else { break };
            let slot = next.place.key.slot;
            if !(terms.mode == Mode::Open || terms.mode == Mode::FirstTerminalsOnly && slot == 0) {
                break;
            }
            if self.over(next.due) {
                self.line.iter_mut().filter(|w| w.place == next.place).for_each(|w| w.absent = true);
                self.changes.push(Change::Absent(next.place.key));
                continue;
            }
            self.leave(next.place, LeftWhy::Admitted);
            let seat = self.grant(next.place.key, next.place.terminal, next.due);
            self.rows.last_mut().unwrap().was = Some(next.place.seq);
            self.changes.push(Change::Admitted { seat, seq: next.place.seq });
            admitted += 1;
        }
        self.admitted += admitted;
        Admitted { admitted, more: false, live: self.rows.len() as u32, other_switches }
    }

    fn pass(&mut self, step: Duration, beat: Beat) -> Tick {
        self.now += step;
        let other_switches = beat.terms.version != self.version;
        let before = self.rows.len();
        let (now, shut) = (self.now, !other_switches && beat.terms.mode == Mode::Closed);
        let late = |row: &Row| now > row.renewed + LEASE.length;
        self.run_out(|row| shut || late(row), |row| if late(row) { EndedWhy::Expired } else { EndedWhy::Shut });
        let expired = before - self.rows.len();
        for waits in &mut self.line {
            if !waits.absent && now > waits.due + LEASE.length {
                waits.absent = true;
                self.changes.push(Change::Absent(waits.place.key));
            }
        }
        let mut gone: Vec<Waits> =
            self.line.iter().filter(|waits| waits.absent && now > waits.due + LEASE.grace).copied().collect();
        gone.sort_by_key(|waits| (waits.due, waits.place.key));
        for gone in gone {
            self.leave(gone.place, LeftWhy::Absent);
            let here = |waits: &&Waits| waits.place.key.site == gone.place.key.site && !waits.absent;
            let higher = self.line.iter().filter(here).filter(|waits| waits.place.key.slot > gone.place.key.slot);
            let Some(heir) = higher.min_by_key(|waits| waits.place.key.slot).copied() else { continue };
            self.leave(heir.place, LeftWhy::Moved);
            let place = Place { terminal: heir.place.terminal, ..gone.place };
            self.line.push(Waits { place, ..heir });
            self.changes.push(Change::Waits(place));
        }
        if !other_switches {
            self.ramp(step, beat);
        }
        Tick { expired, more: false, other_switches }
    }

    fn ramp(&mut self, step: Duration, beat: Beat) {
        if beat.burning {
            self.burns_until = self.now + BURNS_FOR;
        }
        let mut allowed = usize::MAX;
        if let Some(rate) = beat.ramp {
            let rate = u128::from(rate);
            self.budget = (self.budget + rate * step.as_millis()).min(rate * 1_000 + 1_000_000);
            if self.now < self.burns_until {
                self.budget = 0;
            }
            allowed = usize::try_from(self.budget / 1_000_000).unwrap();
        } else {
            self.ramped.clear();
        }
        for _ in 0..allowed {
            let held = self.line.iter().filter(|waits| waits.held_back);
            let Some(first) = held.min_by_key(|w| (w.place.key.slot, w.place.seq)).copied() else { break };
            let at = first.place.key.site;
            self.line.iter_mut().filter(|w| w.place.key.site == at).for_each(|w| w.held_back = false);
            if beat.ramp.is_some() {
                self.ramped.insert(at);
                self.budget -= 1_000_000;
            }
        }
    }

    fn trim(&mut self, at: SiteId, cap: u16, version: u64) -> usize {
        if version != self.version {
            return 0;
        }
        let mut seats: Vec<Row> = self.rows.iter().filter(|row| row.seat.key.site == at).copied().collect();
        seats.sort_by_key(|row| (std::cmp::Reverse(row.sold), row.seat.fence));
        let mut places: Vec<Waits> = self.line.iter().filter(|w| w.place.key.site == at).copied().collect();
        places.sort_by_key(|waits| waits.place.key.slot);
        let cap = usize::from(cap);
        let left = cap.saturating_sub(seats.len());
        let (seats, places) = (seats.split_off(seats.len().min(cap)), places.split_off(places.len().min(left)));
        for row in &seats {
            self.end(|it| it.seat == row.seat, |_| EndedWhy::CapLowered);
        }
        for waits in &places {
            self.leave(waits.place, LeftWhy::CapLowered);
        }
        seats.len() + places.len()
    }

    fn switch(&mut self, version: u64, new_ramp: bool) -> bool {
        let switched = version == self.version;
        if switched {
            self.version += 1;
            if new_ramp {
                self.ramped.clear();
                self.budget = 0;
            }
            self.changes.push(Change::Switched);
        }
        switched
    }
}

/// How much of everything happened in a history, or in all of them.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    grants: usize,
    admitted: usize,
    places: usize,
    changes: usize,
}

/// One history on a door and on the model, compared step by step.
async fn compare(stand: &impl Stand, history: &[Operation]) -> Counts {
    let door = stand.door();
    let mut model = Model::default();
    let mut cursor: Cursor = door.changes(Cursor::default()).await.unwrap().upto;
    let mut counts = Counts::default();
    let at = |n: &u8| site(&format!("s{n}"));
    let seconds = |n: &u8| Duration::from_secs((*n).into());
    for operation in history {
        let terms = |model: &Model, (mode, capacity): (Mode, u32), stale: bool| Terms {
            version: model.version + u64::from(stale),
            mode,
            capacity,
        };
        match operation {
            Operation::Open { site: at, terminal: who, cap, ramped, due_in, terms: wanted, stale } => {
                let opening = Opening {
                    ramped: *ramped,
                    due_in: seconds(due_in),
                    ..opening(&format!("s{at}"), &format!("t{who}"), *cap)
                };
                let terms = terms(&model, *wanted, *stale);
                assert_eq!(door.open(opening, terms).await.unwrap(), model.open(opening, terms));
            }
            Operation::Renew(which) => {
                let renewals: Vec<Renewal> = which
                    .iter()
                    .filter_map(|(back, ago)| {
                        let seat = *model.grants.iter().rev().nth(*back)?;
                        Some(Renewal { seat, sold_ago: ago.as_ref().map(seconds) })
                    })
                    .collect();
                let expected: Vec<Standing> = renewals.iter().map(|renewal| model.renew(*renewal)).collect();
                assert_eq!(door.renew(&renewals).await.unwrap(), expected);
            }
            Operation::Attend(who) => {
                let attending: Vec<Attending> = who
                    .iter()
                    .map(|(n, who, due)| Attending {
                        site: at(n),
                        terminal: terminal(&format!("t{who}")),
                        due_in: seconds(due),
                    })
                    .collect();
                let expected: Vec<Option<Place>> = attending.iter().map(|a| model.attend(*a)).collect();
                assert_eq!(door.attend(&attending).await.unwrap(), expected);
            }
            Operation::Close(back) => {
                let Some(seat) = model.grants.iter().rev().nth(*back).copied() else { continue };
                assert_eq!(door.close(seat).await.unwrap(), model.close(seat));
            }
            Operation::Leave(back) => {
                let Some(place) = model.places.iter().rev().nth(*back).copied() else { continue };
                assert_eq!(door.leave(place).await.unwrap(), model.give_up(place));
            }
            Operation::LookUp(back) => {
                let Some(seat) = model.grants.iter().rev().nth(*back).copied() else { continue };
                assert_eq!(door.look_up(seat).await.unwrap(), model.standing(seat));
            }
            Operation::Admit(wanted, stale) => {
                let terms = terms(&model, *wanted, *stale);
                let (admitted, expected) = (door.admit(terms).await.unwrap(), model.admit(terms));
                assert_eq!(admitted, expected);
            }
            Operation::Pass { mode, ramp, burning, stale, times } => {
                let beat = Beat { terms: terms(&model, (*mode, 0), *stale), ramp: *ramp, burning: *burning };
                for _ in 0..*times {
                    assert_eq!(stand.passes(beat).await, model.pass(LEASE.max_step, beat));
                }
            }
            Operation::ClockStepsBack => {
                let beat = Beat { terms: terms(&model, (Mode::Open, 0), false), ramp: Some(1), burning: false };
                assert_eq!(stand.goes_back(beat).await, model.pass(Duration::ZERO, beat));
            }
            Operation::Trim(n, cap, stale) => {
                let version = model.version + u64::from(*stale);
                assert_eq!(door.trim(&[(at(n), *cap)], version).await.unwrap(), model.trim(at(n), *cap, version));
            }
            Operation::Switch { new_ramp, stale } => {
                let version = model.version + u64::from(*stale);
                let switched = model.switch(version, *new_ramp);
                let document = format!("# {}", version + 1);
                assert_eq!(door.switch(version, &document, *new_ramp).await.unwrap(), switched);
                let kept = door.switches().await.unwrap();
                let document = if model.version == 0 { String::new() } else { format!("# {}", model.version) };
                assert_eq!(kept, Kept { version: model.version, document });
            }
        }
        // A history may begin before the first change ever, when there is nothing to go on from.
        let read = door.changes(cursor).await.unwrap();
        let expected = std::mem::take(&mut model.changes);
        if cursor != Cursor::default() {
            assert!(!read.gap);
            let sorted = |changes: Vec<Change>| {
                let mut texts: Vec<String> = changes.iter().map(|change| format!("{change:?}")).collect();
                texts.sort();
                texts
            };
            counts.changes += expected.len();
            assert_eq!(sorted(read.changes), sorted(expected));
        }
        cursor = read.upto;
    }
    assert_eq!(door.live().await.unwrap(), model.rows.len() as u32);
    let mut line: Vec<InLine> = door.line().await.unwrap();
    line.sort_by_key(|it| it.place.key);
    let granted = model.rows.iter().filter_map(|row| {
        let place = Place { key: row.seat.key, terminal: row.seat.terminal, seq: row.was? };
        Some(InLine { place, presence: Presence::Granted { fence: row.seat.fence } })
    });
    let places = model.line.iter().map(|waits| InLine {
        place: waits.place,
        presence: if waits.absent { Presence::Absent } else { Presence::Present },
    });
    let mut expected: Vec<InLine> = places.chain(granted).collect();
    expected.sort_by_key(|it| it.place.key);
    assert_eq!(line, expected);
    let mut occupancy = door.occupancy().await.unwrap();
    occupancy.sort_unstable();
    let taken = |at: SiteId| {
        let seats = model.rows.iter().filter(|row| row.seat.key.site == at).count();
        let places = model.line.iter().filter(|waits| waits.place.key.site == at).count();
        (at, u16::try_from(seats + places).unwrap())
    };
    let expected: Vec<(SiteId, u16)> = (0..3).map(|n| taken(at(&n))).filter(|(_, taken)| *taken > 0).collect();
    assert_eq!(occupancy, expected);
    Counts { grants: model.grants.len(), admitted: model.admitted, places: model.places.len(), ..counts }
}

fn run(name: &str, one: impl Fn(&[Operation]) -> Counts) {
    let all = std::cell::Cell::new((0, Counts::default()));
    let failures = Box::new(FileFailurePersistence::Direct("tests/sessions/model.proptest-regressions"));
    let config = ProptestConfig { cases: 200, failure_persistence: Some(failures), ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let ran = runner.run(&operations(), |history| {
        let counts = one(&history);
        let (cases, sum) = all.get();
        let sum = Counts {
            grants: sum.grants + counts.grants,
            admitted: sum.admitted + counts.admitted,
            places: sum.places + counts.places,
            changes: sum.changes + counts.changes,
        };
        all.set((cases + 1, sum));
        Ok(())
    });
    let (cases, counts) = all.get();
    println!("{name} and the model agree on {cases} histories: {counts:?}");
    if let Err(error) = ran {
        panic!("{name}: {error}");
    }
    assert!(counts.admitted > 100 && counts.places > 500, "there was a line");
}

#[test]
fn random_histories_on_redis_agree_with_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stand = runtime.block_on(RedisStand::start());
    run("Redis", |history| {
        runtime.block_on(async {
            redis_command(&stand.server.url(), &["FLUSHALL"]).await;
            let _ = stand.door().ticked().await.unwrap();
            compare(&stand, history).await
        })
    });
}

#[test]
fn random_histories_on_the_file_agree_with_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    run("the file", |history| runtime.block_on(async { compare(&EmbeddedStand::start().await, history).await }));
}
