//! Every state that a small door can get into: two sites of two terminals, at most two seats in the nation, and everything
//! that terminals, time, operators and failures can do to them in any order. It is the limiter itself that is driven, no
//! model of it.
//!
//! Two states count as one when nothing can tell them apart: times count from now, numbers and fences by their order alone,
//! and sites, and the terminals of a site, are interchangeable. So there are finitely many without a bound on time.
//!
//! What one step must not do is looked at in the step, and what it did wrong stays with the state, for the checker to find.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rationd::ids::{SiteId, TerminalId};
use rationd::session::limiter::{Gate, Held, Limiter, SiteSlots, Waiting};
use rationd::session::{
    Attending, Beat, Change, EndedWhy, Lease, LeftWhy, Mode, Opened, Opening, Place, Renewal, Seat, SeatKey, Standing,
    Terms,
};
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::stands::{site, terminal};

/// A seat lives for a step without a sign of life, a place for one until it is absent and for two until it is removed.
const LEASE: Lease = Lease { length: STEP, max_step: STEP, grace: Duration::from_secs(2) };
const STEP: Duration = Duration::from_secs(1);
const STEP_MS: u64 = 1_000;
/// Logical time at the beginning: later than any span.
const BEGINNING_MS: u64 = 1_000_000;
/// The sites, and the terminals of each.
static IDS: LazyLock<([SiteId; 2], [TerminalId; 2])> =
    LazyLock::new(|| (["s0", "s1"].map(site), ["t0", "t1"].map(terminal)));

/// What operators may have switched: mode, cap of a site, capacity.
const SETTINGS: [(Mode, u16, u32); 5] = [
    (Mode::Open, 2, 2),
    (Mode::Open, 1, 2),
    (Mode::Open, 2, 1),
    (Mode::FirstTerminalsOnly, 2, 1),
    (Mode::Closed, 2, 2),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Open(usize, usize),
    Attend(usize, usize),
    Leave(usize, usize),
    Close(usize, usize),
    Renew(usize, usize, bool),
    Admit,
    Trim(usize),
    Switch(usize),
    /// The store's clock goes on by a step, by a day, or back by a day.
    Tick,
    ClockJumps,
    ClockStepsBack,
    /// The store comes back with what the file keeps.
    StoreRestarts,
    /// The instance comes back and has not read the switches.
    InstanceRestarts,
}

/// The door, and what the test knows of its past.
#[derive(Debug, Clone)]
struct World {
    door: Limiter,
    store_ms: u64,
    /// Whether the door has been ticked since its start: the first tick is no time.
    ticked: bool,
    setting: usize,
    /// Whether the instance knows the switches.
    knows: bool,
    /// What was given out last.
    fences: [u64; 2],
    seq: u64,
    /// Rules that were broken on the way here.
    broken: BTreeSet<&'static str>,
}

/// The rules of a step.
const CAPACITY: &str = "no grant makes the seats more than the capacity";
const CAP: &str = "no opening makes the slots of a site more than its cap, and a trim leaves no more";
const FENCES: &str = "no fence is given out twice";
const NUMBERS: &str = "no number is given out twice";
const ORDER: &str = "nobody is admitted before a present place of a lower rank, or of the same with a smaller number";
const KEPT_NUMBER: &str = "a place keeps its number while its terminal gives signs of life";
const TURN: &str = "whose turn comes while it is away has its place again";
const TIME: &str = "logical time goes on by a step at the most, and never back";
const RESTART: &str = "a restart ends nothing";
const STALE: &str = "under other switches nobody comes in, is admitted or is trimmed";
const STRANGERS: &str = "an older fence is no seat";

impl World {
    fn here(&self, at: usize) -> Option<&SiteSlots> {
        self.door.site(&IDS.0[at])
    }

    fn slots(&self, at: usize) -> usize {
        self.here(at).map_or(0, |here| here.seats.len() + here.places.len())
    }

    fn seat(&self, at: usize, who: usize) -> Option<Seat> {
        let who = IDS.1[who];
        let (slot, held) = self.here(at)?.seats.iter().find(|(_, held)| held.terminal == who)?;
        Some(Seat { key: SeatKey { site: IDS.0[at], slot: *slot }, terminal: who, fence: held.fence })
    }

    fn place(&self, at: usize, who: usize) -> Option<Place> {
        let terminal = IDS.1[who];
        let (slot, waiting) = self.here(at)?.places.iter().find(|(_, waiting)| waiting.terminal == terminal)?;
        Some(Place { key: SeatKey { site: IDS.0[at], slot: *slot }, terminal, seq: waiting.seq })
    }

    fn seats(&self) -> Vec<Seat> {
        (0..2).flat_map(|at| (0..2).filter_map(move |who| self.seat(at, who))).collect()
    }

    /// Every place, and whether its terminal is present.
    fn places(&self) -> Vec<(Place, bool)> {
        let of = |at: usize| {
            let places = self.here(at).into_iter().flat_map(|here| &here.places);
            places.map(move |(slot, waiting)| {
                let key = SeatKey { site: IDS.0[at], slot: *slot };
                let overdue = self.door.now_ms() > waiting.due_ms + STEP_MS;
                (Place { key, terminal: waiting.terminal, seq: waiting.seq }, !waiting.absent && !overdue)
            })
        };
        (0..2).flat_map(of).collect()
    }

    /// The places that the seats were for which nobody has come.
    fn granted(&self) -> Vec<Place> {
        let of = |seat: &Seat| {
            let seq = self.door.site(&seat.key.site)?.seats.get(&seat.key.slot)?.place?;
            Some(Place { key: seat.key, terminal: seat.terminal, seq })
        };
        self.seats().iter().filter_map(of).collect()
    }

    fn terms(&self) -> Terms {
        let (mode, _, capacity) = SETTINGS[self.setting];
        let version = self.door.switches().version;
        Terms { version: if self.knows { version } else { version + 1 }, mode, capacity }
    }

    /// A site as far as the future depends on it, its terminals in this order.
    fn written(&self, at: usize, numbers: &BTreeSet<u64>, terminals: [usize; 2]) -> Vec<u8> {
        let Some(here) = self.here(at) else { return Vec::new() };
        let age = |since_ms: u64| u8::try_from(((self.door.now_ms() + STEP_MS - since_ms) / STEP_MS).min(9)).unwrap();
        let rank = |all: &BTreeSet<u64>, it: u64| u8::try_from(all.range(..it).count()).unwrap();
        let who = |it: TerminalId| u8::from(it != IDS.1[terminals[0]]);
        let fences: BTreeSet<u64> = here.seats.values().map(|held| held.fence).collect();
        let sales: BTreeSet<u64> = here.seats.values().map(|held| held.sold_ms).filter(|sold| *sold > 0).collect();
        let mut text = vec![u8::try_from(here.fence.abs_diff(self.fences[at]).min(9)).unwrap()];
        for (slot, held) in &here.seats {
            let Held { terminal, fence, renewed_ms, sold_ms, place, .. } = **held;
            let sold = if sold_ms == 0 { 0 } else { 1 + rank(&sales, sold_ms) };
            let was = place.map_or(0, |seq| 1 + rank(numbers, seq));
            text.extend([1, *slot as u8, who(terminal), rank(&fences, fence), age(renewed_ms), sold, was]);
        }
        for (slot, waiting) in &here.places {
            let Waiting { terminal, seq, due_ms, absent } = **waiting;
            text.extend([2, *slot as u8, who(terminal), rank(numbers, seq), age(due_ms), u8::from(absent)]);
        }
        text
    }

    /// The same for all states that nothing can tell apart.
    fn canonical(&self) -> [Vec<u8>; 3] {
        let numbers_of = |here: &SiteSlots| -> Vec<u64> {
            let granted = here.seats.values().filter_map(|held| held.place);
            here.places.values().map(|it| it.seq).chain(granted).collect()
        };
        let numbers = (0..2).filter_map(|at| self.here(at)).flat_map(numbers_of).collect();
        let [first, second] =
            [0, 1].map(|at| self.written(at, &numbers, [0, 1]).min(self.written(at, &numbers, [1, 0])));
        let lost = u8::try_from(self.door.gate().seq.abs_diff(self.seq).min(9)).unwrap();
        let setting = u8::try_from(self.setting).unwrap();
        let beside = vec![setting, u8::from(self.knows), u8::from(self.ticked), lost];
        if first < second { [beside, first, second] } else { [beside, second, first] }
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
        self.broken.hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical() && self.broken == other.broken
    }
}

/// How often what is worth seeing was seen.
#[derive(Default)]
struct SmallDoor {
    admitted: AtomicUsize,
    replaced: AtomicUsize,
    expired: AtomicUsize,
    capped: AtomicUsize,
    removed: AtomicUsize,
    /// The heir was given the number of a place that was removed, or went on in an absent one.
    inherited: AtomicUsize,
    taken_over: AtomicUsize,
    moved_up: AtomicUsize,
    /// A seat that nobody came for is the place again that it was.
    came_back: AtomicUsize,
    full: AtomicUsize,
    shut: AtomicUsize,
}

impl SmallDoor {
    fn saw(&self, what: &AtomicUsize) {
        what.fetch_add(1, Ordering::Relaxed);
    }

    fn look_at(&self, before: &World, action: Action, changes: &[Change]) {
        let mut removed = Vec::new();
        for change in changes {
            match change {
                Change::Admitted { .. } => self.saw(&self.admitted),
                Change::Ended(ended) => match ended.why {
                    EndedWhy::Replaced => self.saw(&self.replaced),
                    EndedWhy::Expired => self.saw(&self.expired),
                    EndedWhy::CapLowered => self.saw(&self.capped),
                    EndedWhy::Shut => self.saw(&self.shut),
                    EndedWhy::Closed => {}
                },
                Change::Left { seq, why: LeftWhy::Absent, .. } => {
                    removed.push(*seq);
                    self.saw(&self.removed);
                }
                Change::Left { why: LeftWhy::Moved, .. } if matches!(action, Action::Attend(..)) => {
                    self.saw(&self.moved_up);
                }
                Change::Waits(place) if before.granted().iter().any(|it| it.seq == place.seq) => {
                    self.saw(&self.came_back);
                }
                Change::Waits(place) if removed.contains(&place.seq) => self.saw(&self.inherited),
                Change::Waits(place) if before.places().iter().any(|(it, _)| it.seq == place.seq) => {
                    self.saw(&self.taken_over);
                }
                _ => {}
            }
        }
    }
}

impl Model for SmallDoor {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let gate = Gate { now_ms: BEGINNING_MS, ..Gate::default() };
        vec![World {
            door: Limiter::new(LEASE, gate, []),
            store_ms: 0,
            ticked: false,
            setting: 0,
            knows: true,
            fences: [0; 2],
            seq: 0,
            broken: BTreeSet::new(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for at in 0..2 {
            for who in 0..2 {
                actions.push(Action::Open(at, who));
                if world.place(at, who).is_some() {
                    actions.extend([Action::Attend(at, who), Action::Leave(at, who)]);
                }
                let granted = world.granted();
                if granted.iter().any(|it| (it.key.site, it.terminal) == (IDS.0[at], IDS.1[who])) {
                    // It knows of no seat that it could use.
                    actions.extend([Action::Attend(at, who), Action::Leave(at, who)]);
                } else if world.seat(at, who).is_some() {
                    actions.extend([
                        Action::Close(at, who),
                        Action::Renew(at, who, false),
                        Action::Renew(at, who, true),
                    ]);
                }
            }
            actions.push(Action::Trim(at));
        }
        // Every other setting is as many switches away.
        actions.push(Action::Switch((world.setting + 1) % SETTINGS.len()));
        actions.extend([Action::Admit, Action::Tick, Action::ClockJumps, Action::ClockStepsBack]);
        actions.extend([Action::StoreRestarts, Action::InstanceRestarts]);
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        // A path ends where a rule was broken: what comes after it says nothing.
        if !before.broken.is_empty() {
            return None;
        }
        let mut world = before.clone();
        let changes = self.act(&mut world, action);
        self.look_at(before, action, &changes);
        judge(before, &mut world, action, &changes);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! rules {
            ($($rule:ident),*) => {
                vec![$(Property::<Self>::always($rule, |_, world| !world.broken.contains($rule))),*]
            };
        }
        let mut properties =
            rules![CAPACITY, CAP, FENCES, NUMBERS, ORDER, KEPT_NUMBER, TURN, TIME, RESTART, STALE, STRANGERS];
        properties.extend([
            Property::<Self>::always("a terminal has at most one slot of a site", |_, world| {
                (0..2).all(|at| {
                    let here = world.here(at);
                    let seats = here.into_iter().flat_map(|here| here.seats.values().map(|held| held.terminal));
                    let places = here.into_iter().flat_map(|here| here.places.values().map(|w| w.terminal));
                    let all: Vec<_> = seats.chain(places).collect();
                    all.iter().collect::<BTreeSet<_>>().len() == all.len()
                })
            }),
            Property::<Self>::always(
                "no two places have one number, and no slot has a seat and a place",
                |_, world| {
                    let of_seats = world.granted().into_iter().map(|place| place.seq);
                    let all: Vec<u64> = world.places().iter().map(|(place, _)| place.seq).chain(of_seats).collect();
                    let slots: BTreeSet<SeatKey> = world.places().iter().map(|(place, _)| place.key).collect();
                    all.iter().collect::<BTreeSet<_>>().len() == all.len()
                        && world.seats().iter().all(|seat| !slots.contains(&seat.key))
                },
            ),
            Property::<Self>::always(
                "the count of live seats is right and never above the highest capacity",
                |_, world| world.door.live() == world.seats().len() && world.door.live() <= 2,
            ),
            Property::<Self>::sometimes("both sites' terminals all wait", |_, world| world.places().len() == 4),
            Property::<Self>::sometimes("a place is absent beside one that is present", |_, world| {
                let places = world.places();
                places.iter().any(|(_, present)| *present) && places.iter().any(|(_, present)| !present)
            }),
            Property::<Self>::sometimes("more seats are live than a lowered capacity", |_, world| {
                world.door.live() > world.terms().capacity as usize
            }),
        ]);
        macro_rules! seen {
            ($($what:ident),*) => {
                vec![$(Property::<Self>::sometimes(stringify!($what), |door, _| door.$what.load(Ordering::Relaxed) > 0)),*]
            };
        }
        properties.extend(seen![
            admitted, replaced, expired, capped, removed, inherited, taken_over, moved_up, came_back, full, shut
        ]);
        properties
    }
}

impl SmallDoor {
    /// Does it, as an instance does: who knows other switches reads them when the door says so.
    fn act(&self, world: &mut World, action: Action) -> Vec<Change> {
        let terms = world.terms();
        let (_, cap, _) = SETTINGS[world.setting];
        let tick = |world: &mut World, store_ms: u64| {
            world.store_ms = store_ms;
            let (tick, changes) = world.door.tick(store_ms, Beat { terms, ramp: None, burning: false });
            (world.ticked, world.knows) = (true, world.knows || tick.other_switches);
            changes
        };
        match action {
            Action::Open(at, who) => {
                let (site, terminal) = (IDS.0[at], IDS.1[who]);
                let opening = Opening { site, terminal, cap, ramped: false, due_in: Duration::ZERO };
                let (opened, changes) = world.door.open(opening, terms);
                match opened {
                    Opened::SiteFull { .. } => self.saw(&self.full),
                    Opened::Shut => self.saw(&self.shut),
                    Opened::OtherSwitches => world.knows = true,
                    Opened::Granted { .. } | Opened::Waiting { .. } => {}
                }
                changes
            }
            Action::Attend(at, who) => {
                let (site, terminal) = (IDS.0[at], IDS.1[who]);
                world.door.attend(&Attending { site, terminal, due_in: Duration::ZERO }).1
            }
            Action::Leave(at, who) => {
                let was = world.granted().into_iter().find(|it| (it.key.site, it.terminal) == (IDS.0[at], IDS.1[who]));
                let left = world.door.leave(&world.place(at, who).or(was).unwrap());
                assert!(left.is_some());
                left.into_iter().collect()
            }
            Action::Close(at, who) => {
                let seat = world.seat(at, who).unwrap();
                world.door.close(&seat).into_iter().collect()
            }
            Action::Renew(at, who, sold) => {
                let seat = world.seat(at, who).unwrap();
                let standing = world.door.renew(&Renewal { seat, sold_ago: sold.then_some(Duration::ZERO) });
                assert_eq!(standing, Standing::Live);
                Vec::new()
            }
            Action::Admit => {
                let (admitted, changes) = world.door.admit(terms);
                world.knows |= admitted.other_switches;
                changes
            }
            Action::Trim(at) => {
                let changes = world.door.trim(IDS.0[at], cap, terms.version);
                world.knows = true;
                changes
            }
            Action::Switch(setting) => {
                let version = world.door.switches().version;
                let switched = world.door.switch(version, &format!("{setting}"), false);
                (world.setting, world.knows) = (setting, false);
                switched.into_iter().collect()
            }
            Action::Tick => tick(world, world.store_ms + STEP_MS),
            Action::ClockJumps => tick(world, world.store_ms + 86_400_000),
            Action::ClockStepsBack => tick(world, world.store_ms.saturating_sub(86_400_000)),
            Action::StoreRestarts => {
                world.door = restarted(&world.door);
                (world.store_ms, world.ticked) = (0, false);
                Vec::new()
            }
            Action::InstanceRestarts => {
                world.knows = false;
                Vec::new()
            }
        }
    }
}

/// A door that begins with what the file keeps of this one (`embedded/file.rs`): neither renewals nor sales, nor who is
/// absent and when a place is due.
fn restarted(door: &Limiter) -> Limiter {
    let kept = |at: SiteId| {
        let here = door.site(&at)?;
        let seats =
            here.seats.iter().map(|(slot, held)| (*slot, Box::new(Held { renewed_ms: 0, sold_ms: 0, ..**held })));
        let places =
            here.places.iter().map(|(slot, it)| (*slot, Box::new(Waiting { due_ms: 0, absent: false, ..**it })));
        Some((at, SiteSlots { fence: here.fence, seats: seats.collect(), places: places.collect() }))
    };
    Limiter::new(LEASE, door.gate(), IDS.0.into_iter().filter_map(kept))
}

/// What this step broke.
fn judge(before: &World, after: &mut World, action: Action, changes: &[Change]) {
    let mut broken = BTreeSet::new();
    let mut rule = |rule: &'static str, holds: bool| {
        if !holds {
            broken.insert(rule);
        }
    };
    let (_, cap, capacity) = SETTINGS[after.setting];
    let (was, is) = (before.seats(), after.seats());
    let (waited, wait) = (before.places(), after.places());

    rule(CAPACITY, is.len() <= was.len() || is.len() <= capacity as usize);
    for at in 0..2 {
        let trimmed = action == Action::Trim(at) && before.knows;
        let grew = after.slots(at) > before.slots(at);
        rule(CAP, !(grew || trimmed) || after.slots(at) <= usize::from(cap));
    }

    for seat in is.iter().filter(|seat| !was.contains(seat)) {
        let at = IDS.0.iter().position(|site| *site == seat.key.site).unwrap();
        rule(FENCES, seat.fence > before.fences[at]);
        after.fences[at] = after.fences[at].max(seat.fence);
    }
    let granted = before.granted();
    for (place, _) in &wait {
        let known = waited.iter().map(|(it, _)| it).chain(&granted).any(|it| it.seq == place.seq);
        rule(NUMBERS, known || place.seq > before.seq);
        after.seq = after.seq.max(place.seq);
    }

    // Those who were admitted, or came in past the line, against those who are still waiting.
    let came_in =
        is.iter().filter(|seat| !was.iter().any(|it| it.key.site == seat.key.site && it.terminal == seat.terminal));
    for seat in came_in {
        let seq = changes.iter().find_map(|change| match change {
            Change::Admitted { seat: it, seq } if it == seat => Some(*seq),
            _ => None,
        });
        let later = |place: &Place| seq.is_some_and(|seq| (place.key.slot, place.seq) > (seat.key.slot, seq));
        rule(ORDER, wait.iter().all(|(place, present)| !present || later(place)));
    }

    if let Action::Open(at, who) = action
        && let (Some(place), Some(now)) = (before.place(at, who), after.place(at, who))
    {
        rule(KEPT_NUMBER, place == now || place.key.slot >= cap);
    }
    if let Action::Attend(at, who) = action {
        let (place, now) = (before.place(at, who), after.place(at, who));
        let kept = |place: Place| now.is_some_and(|now| place == now || now.key.slot < place.key.slot);
        rule(KEPT_NUMBER, place.is_none_or(kept));
    }

    for place in &granted {
        // Or a better one: that of a terminal that was away for too long.
        let better = |it: &Place| (it.key.site, it.terminal) == (place.key.site, place.terminal) && it.key <= place.key;
        let again = wait.iter().any(|(it, _)| it.seq == place.seq || better(it)) || after.granted().contains(place);
        let came =
            matches!(action, Action::Open(at, who) if (IDS.0[at], IDS.1[who]) == (place.key.site, place.terminal));
        let given_up = matches!(action, Action::Leave(..) | Action::Trim(_));
        rule(TURN, again || came || given_up);
    }

    let passed = after.door.now_ms().checked_sub(before.door.now_ms());
    let most = match action {
        Action::Tick | Action::ClockJumps if before.ticked => STEP_MS,
        _ => 0,
    };
    rule(TIME, passed == Some(most));

    if action == Action::StoreRestarts {
        let same = |places: &[(Place, bool)]| places.iter().map(|(place, _)| *place).collect::<Vec<_>>();
        rule(RESTART, was == is && same(&waited) == same(&wait) && wait.iter().all(|(_, present)| *present));
        // However long it was away, and whatever its clock says now.
        let mut door = after.door.clone();
        let beat = Beat { terms: Terms { mode: Mode::Open, ..after.terms() }, ramp: None, burning: false };
        let changes = [0, 86_400_000].map(|store_ms| door.tick(store_ms, beat).1);
        rule(RESTART, changes.concat().is_empty());
    }

    if !before.knows {
        let moved = match action {
            Action::Open(..) | Action::Admit | Action::Trim(_) => !changes.is_empty() || was != is || waited != wait,
            Action::Tick | Action::ClockJumps | Action::ClockStepsBack => {
                changes.iter().any(|change| matches!(change, Change::Ended(it) if it.why == EndedWhy::Shut))
            }
            _ => false,
        };
        rule(STALE, !moved);
    }

    for seat in &is {
        rule(STRANGERS, after.door.standing(&Seat { fence: seat.fence - 1, ..*seat }) == Standing::Replaced);
    }
    after.broken = broken;
}

#[test]
fn every_state_of_a_small_door_keeps_the_rules() {
    let began = Instant::now();
    let checker = SmallDoor::default().checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "{} states, {} steps, at most {} from the beginning, in {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    checker.assert_properties();
    assert!(checker.unique_state_count() >= 10_000);
}
