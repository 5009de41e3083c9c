//! The waiting room: a place and its number stay, first terminals go first, the capacity holds, and those who have gone
//! away cost nobody a seat. And what a mass expiry and an admission cost Redis.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rationd::session::registry::Configured;
use rationd::session::{
    ADMITTED, Attending, BATCH, Beat, Change, Cursor, Door, Opened, Place, Presence, Registry, Renewal, Seat, Standing,
    Terms,
};
use tokio::task::JoinSet;

use super::stands::{BEAT, LEASE, OPEN, Plainly, RedisStand, Stand, TestClock, configured, opening, redis_command};

/// Nobody new gets a seat.
const NO_SEATS: Terms = Terms { capacity: 0, ..OPEN };

/// Numbers that look random and are the same in every run (xorshift).
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        for shift in [13, -7, 17_i32] {
            self.0 ^= if shift > 0 { self.0 << shift } else { self.0 >> -shift };
        }
        usize::try_from(self.0 >> 11).unwrap() % bound
    }
}

async fn waits(door: &impl Door, at: &str, who: &str, cap: u16) -> (Place, bool) {
    match door.open(opening(at, who, cap), NO_SEATS).await.expect("the door answers") {
        Opened::Waiting { place, is_new } => (place, is_new),
        other => panic!("{who} at {at}: {other:?}"),
    }
}

/// One terminal for each name and site, thirty-two calls at a time; in no certain order.
async fn all_wait(door: &impl Door, sites: usize, names: &[&'static str]) -> Vec<Place> {
    let mut work = JoinSet::new();
    for worker in 0..32 {
        let (door, names) = (door.clone(), names.to_vec());
        work.spawn(async move {
            let mut places = Vec::new();
            for n in (worker..sites).step_by(32) {
                for who in &names {
                    places.push(waits(&door, &format!("s{n}"), who, 3).await.0);
                }
            }
            places
        });
    }
    work.join_all().await.concat()
}

/// A sign of life of each.
async fn attend(door: &impl Door, places: impl IntoIterator<Item = &Place>) -> Vec<Option<Place>> {
    let alive = |place: &Place| Attending { site: place.key.site, terminal: place.terminal, due_in: Duration::ZERO };
    let attending: Vec<Attending> = places.into_iter().map(alive).collect();
    door.attend(&attending).await.expect("the door answers")
}

async fn renew(door: &impl Door, seats: &[Seat]) {
    let renewals: Vec<Renewal> = seats.iter().map(|seat| Renewal { seat: *seat, sold_ago: None }).collect();
    let standings = door.renew(&renewals).await.expect("the door answers");
    assert!(standings.iter().all(|standing| *standing == Standing::Live));
}

/// Everybody who is admitted now, in order.
async fn admitted(door: &impl Door, terms: Terms, cursor: &mut Cursor) -> Vec<(Seat, u64)> {
    while door.admit(terms).await.expect("the door answers").more {}
    let read = door.changes(*cursor).await.expect("the door answers");
    assert!(!read.gap);
    *cursor = read.upto;
    let of = |change: Change| match change {
        Change::Admitted { seat, seq } => Some((seat, seq)),
        _ => None,
    };
    read.changes.into_iter().filter_map(of).collect()
}

/// Every place, in order.
async fn places_of(door: &impl Door) -> Vec<Place> {
    let line = door.line().await.expect("the door answers");
    let waits = line.into_iter().filter(|it| !matches!(it.presence, Presence::Granted { .. }));
    let mut places: Vec<Place> = waits.map(|it| it.place).collect();
    places.sort_by_key(|place| place.key);
    places
}

async fn newest(door: &impl Door) -> Cursor {
    door.changes(Cursor::default()).await.expect("the door answers").upto
}

pub async fn asking_again_keeps_place_and_number(stand: impl Stand) {
    const SITES: usize = 100;
    const QUESTIONS: usize = 4_000;
    let doors = [stand.door(), stand.other_door(), stand.other_door()];
    let places = all_wait(&doors[0], SITES, &["a", "b"]).await;
    let numbers: HashSet<u64> = places.iter().map(|place| place.seq).collect();
    assert_eq!(numbers.len(), places.len(), "no number is given out twice");
    let mut draws = Draws(9);
    for _ in 0..QUESTIONS {
        let place = places[draws.below(places.len())];
        let door = &doors[draws.below(doors.len())];
        if draws.below(2) == 0 {
            let (at, who) = (place.key.site.to_string(), place.terminal.to_string());
            assert_eq!(waits(door, &at, &who, 3).await, (place, false), "asking again changes nothing");
        } else {
            assert_eq!(attend(door, [&place]).await, [Some(place)]);
        }
    }
    let newcomer = waits(&doors[1], "later", "a", 3).await.0;
    assert_eq!(newcomer.seq, 1 + numbers.into_iter().max().unwrap(), "asking has used no number up");
    println!("{}: {QUESTIONS} questions of {} terminals, every place as before", stand_name(&stand), places.len());
}

fn stand_name<S: Stand>(_: &S) -> &'static str {
    S::NAME
}

pub async fn places_survive_a_restart(mut stand: impl Stand) {
    const SITES: usize = 150;
    const RESTARTS: usize = 3;
    let mut places = all_wait(&stand.door(), SITES, &["a", "b"]).await;
    for restart in 0..RESTARTS {
        // Long enough for some to be absent; what they are told afterwards is the same.
        stand.pass_for(LEASE.length).await;
        attend(&stand.door(), places.iter().skip(places.len() / 2)).await;
        let _ = stand.pass().await;
        stand.restart().await;
        let door = stand.door();
        let line: HashMap<_, _> = door.line().await.unwrap().into_iter().map(|it| (it.place.key, it.place)).collect();
        assert_eq!(line.len(), places.len());
        for place in &places {
            assert_eq!(line.get(&place.key), Some(place));
            let (at, who) = (place.key.site.to_string(), place.terminal.to_string());
            assert_eq!(waits(&door, &at, &who, 3).await, (*place, false));
        }
        let newcomer = waits(&door, &format!("new{restart}"), "a", 3).await.0;
        assert!(places.iter().all(|place| place.seq < newcomer.seq), "its number is given out for the first time");
        places.push(newcomer);
    }
    println!("{}: {RESTARTS} restarts, {} places, every one as before", stand_name(&stand), places.len());
}

/// The seats of those whose turn it was run out, and they have their places again: on the same terms as before.
pub async fn a_turn_that_comes_while_the_terminal_is_away_is_not_lost(mut stand: impl Stand) {
    const SITES: usize = 20;
    const AWAY: usize = 8;
    let mut places = all_wait(&stand.door(), SITES, &["a", "b"]).await;
    places.sort_by_key(|place| (place.key.slot, place.seq));
    let (away, present) = places.split_at(AWAY);
    let terms = Terms { capacity: AWAY as u32, ..OPEN };
    let mut cursor = newest(&stand.door()).await;
    let granted = admitted(&stand.door(), terms, &mut cursor).await;
    let granted: Vec<Seat> = granted.into_iter().map(|(seat, _)| seat).collect();
    assert!(granted.iter().map(|seat| seat.key).eq(away.iter().map(|place| place.key)), "first come first served");

    // One of them comes for its seat; of the others the seat remembers what it was, over a restart too.
    let (came, who) = (away[0].key.site.to_string(), away[0].terminal.to_string());
    let seat = super::granted(&stand.door(), &came, &who, 3).await;
    stand.restart().await;
    let door = stand.door();
    for _ in 0..=LEASE.length.as_secs() {
        attend(&door, present).await;
        renew(&door, &[seat]).await;
        let _ = stand.pass().await;
        while door.ticked().await.unwrap().more {}
    }
    let mut expected: Vec<Place> = places.iter().skip(1).copied().collect();
    expected.sort_by_key(|place| place.key);
    assert_eq!(places_of(&door).await, expected);
    let absent = door.line().await.unwrap().iter().filter(|it| it.presence == Presence::Absent).count();
    assert_eq!((absent, door.live().await.unwrap()), (AWAY - 1, 1));

    // The absent are skipped, and first again as soon as they are back.
    let mut cursor = newest(&door).await;
    let next = admitted(&door, Terms { capacity: 2, ..OPEN }, &mut cursor).await;
    assert_eq!(next.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [present[0].seq]);
    for place in &away[1..] {
        let (at, who) = (place.key.site.to_string(), place.terminal.to_string());
        assert_eq!(waits(&door, &at, &who, 3).await, (*place, false));
    }
    let next = admitted(&door, Terms { capacity: 3, ..OPEN }, &mut cursor).await;
    assert_eq!(next.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [away[1].seq]);

    // Who has come and falls silent then has had its turn.
    for _ in 0..=LEASE.length.as_secs() {
        let _ = stand.pass().await;
    }
    assert_eq!(door.live().await.unwrap(), 0);
    assert!(!places_of(&door).await.iter().any(|place| place.key == seat.key));
    println!("{}: {AWAY} seats granted to nobody, {} places as before", stand_name(&stand), expected.len());
}

pub async fn first_terminals_go_before_anyones_second(stand: impl Stand) {
    const SITES: usize = 200;
    let door = stand.door();
    // Of each site the first terminal has a seat, so that the others wait in the second and the third slot.
    let mut firsts = Vec::new();
    for n in 0..SITES {
        firsts.push(super::granted(&door, &format!("s{n}"), "a", 3).await);
    }
    let later = all_wait(&door, SITES, &["b", "c"]).await;
    assert!(later.iter().all(|place| place.key.slot > 0));
    // Then every first terminal begins anew, behind all of them.
    for seat in firsts {
        assert!(door.close(seat).await.unwrap());
    }
    let first = all_wait(&door, SITES, &["a"]).await;
    assert!(first.iter().all(|place| place.key.slot == 0));

    let mut cursor = newest(&door).await;
    let (mut order, mut capacity) = (Vec::new(), 0);
    while order.len() < 3 * SITES {
        capacity += 60;
        order.extend(admitted(&door, Terms { capacity, ..OPEN }, &mut cursor).await);
        assert_eq!(order.len(), usize::try_from(capacity).unwrap().min(3 * SITES), "no seat stays idle");
    }
    let order: Vec<(u16, u64)> = order.into_iter().map(|(seat, seq)| (seat.key.slot, seq)).collect();
    assert!(order.is_sorted(), "rank, then number: {order:?}");
    assert!(order[SITES..].iter().all(|(slot, _)| *slot > 0));
    println!("{}: {} admitted, {SITES} first terminals before all others", stand_name(&stand), order.len());
}

/// Two instances read the line at different times. What each shows of a place never rises, and is never lower than the
/// truth, which counts absent places: they may come back.
pub async fn positions_never_rise_and_are_never_lower_than_the_truth(stand: impl Stand) {
    const ROUNDS: usize = 60;
    let door = stand.door();
    let full = || Configured { capacity: 0, ..configured(3) };
    let instances: Vec<_> =
        (0..2).map(|_| Registry::new(stand.other_door(), TestClock::default(), LEASE, full())).collect();
    let mut places = all_wait(&door, 60, &["a", "b"]).await;
    let mut draws = Draws(4);
    let mut shown: Vec<HashMap<Place, u64>> = vec![HashMap::new(); instances.len()];
    let (mut samples, mut absent) = (0, 0);
    for round in 0..ROUNDS {
        // Most give signs of life now and then, some are away for a while; a few leave, and a few come.
        let alive: Vec<Place> =
            places.iter().filter(|place| !(place.seq + round as u64 / 14).is_multiple_of(3)).copied().collect();
        attend(&door, &alive).await;
        let _ = stand.pass().await;
        let leaver = places.swap_remove(draws.below(places.len()));
        let _ = door.leave(leaver).await.unwrap();
        let _ = waits(&door, &format!("n{round}"), "a", 3).await;
        if round % 7 == 0 {
            let _ = door.admit(Terms { capacity: 1 + round as u32 / 7, ..OPEN }).await.unwrap();
        }
        let line = door.line().await.unwrap();
        places = line.iter().map(|it| it.place).collect();
        absent += line.iter().filter(|it| it.presence == Presence::Absent).count();
        for (instance, shown) in instances.iter().zip(&mut shown) {
            if draws.below(3) > 0 {
                instance.read_changes().await.unwrap();
            }
            for place in &places {
                let before =
                    line.iter().map(|it| it.place).filter(|it| it.key.slot == place.key.slot && it.seq < place.seq);
                let truth = 1 + before.count() as u64;
                let Some(position) = instance.update(place).position else { continue };
                assert!(position >= truth, "{place:?}: {position} is shown, and {truth} is true");
                let last = shown.insert(*place, position).unwrap_or(u64::MAX);
                assert!(position <= last, "{place:?}: {last} was shown, and now {position}");
                samples += 1;
            }
        }
    }
    println!("{}: {samples} positions, {absent} times a place was absent, none rose", stand_name(&stand));
    assert!(samples > 5_000 && absent > 500);
}

/// Several tasks open, close, admit and tick at random; after every one of these the door is asked how many seats are live.
pub async fn capacity_is_never_exceeded(stand: impl Stand) {
    const TASKS: usize = 16;
    const STEPS: usize = 650;
    const CAPACITY: usize = 40;
    let terms = Terms { capacity: CAPACITY as u32, ..OPEN };
    let (highest, full) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (admissions, grants) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut work = JoinSet::new();
    for task in 0..TASKS {
        let door = stand.other_door();
        let (highest, full, admissions, grants) = (highest.clone(), full.clone(), admissions.clone(), grants.clone());
        work.spawn(async move {
            let mut draws = Draws(1 + task as u64);
            // Every task has sites of its own, and all of them share the capacity.
            let mut seats: BTreeMap<usize, Seat> = BTreeMap::new();
            for _ in 0..STEPS {
                let n = draws.below(8);
                match draws.below(20) {
                    0..10 => match door.open(opening(&format!("t{task}s{n}"), "a", 1), terms).await.unwrap() {
                        Opened::Granted { seat, .. } => {
                            grants.fetch_add(1, Ordering::SeqCst);
                            seats.insert(n, seat);
                        }
                        // It hears of its seat when it asks again.
                        Opened::Waiting { .. } => {}
                        other => panic!("{other:?}"),
                    },
                    10..15 => {
                        if let Some((_, seat)) = seats.pop_first() {
                            let _ = door.close(seat).await.unwrap();
                        }
                    }
                    15..19 => {
                        let done = door.admit(terms).await.unwrap();
                        admissions.fetch_add(done.admitted, Ordering::SeqCst);
                        assert!(done.live as usize <= CAPACITY, "{} seats are live", done.live);
                    }
                    _ => {
                        let _ = door.tick(Beat { terms, ..BEAT }).await.unwrap();
                    }
                }
                let live = door.admit(NO_SEATS).await.unwrap().live as usize;
                assert!(live <= CAPACITY, "{live} seats are live, and the capacity is {CAPACITY}");
                highest.fetch_max(live, Ordering::SeqCst);
                full.fetch_add(usize::from(live == CAPACITY), Ordering::SeqCst);
            }
        });
    }
    work.join_all().await;
    let [highest, full, admissions, grants] =
        [highest, full, admissions, grants].map(|count| count.load(Ordering::SeqCst));
    println!(
        "{}: {} operations of {TASKS} tasks, {grants} grants and {admissions} admissions; after each the live seats were \
         counted: at most {highest} of {CAPACITY}, {full} times all of them",
        stand_name(&stand),
        2 * TASKS * STEPS,
    );
    assert_eq!(highest, CAPACITY, "it was full");
    assert!(admissions > 100, "there was a line");
}

/// Half of those who wait are silent. While present ones wait no seat stays idle, and the silent ones are gone in time.
pub async fn ghosts_leave_no_seat_idle(stand: impl Stand) {
    const PLACES: usize = 2_000;
    const CAPACITY: usize = 500;
    let door = stand.door();
    let terms = Terms { capacity: CAPACITY as u32, ..OPEN };
    let places = all_wait(&door, PLACES, &["a"]).await;
    let (present, ghosts): (Vec<Place>, Vec<Place>) = places.iter().partition(|place| place.seq.is_multiple_of(2));
    let steps = LEASE.length.as_secs() + 1;
    for step in 0..steps {
        if step == steps / 2 {
            attend(&door, &present).await;
        }
        while door.tick(Beat { terms: NO_SEATS, ..BEAT }).await.unwrap().more {}
        let _ = stand.pass().await;
    }
    while door.ticked().await.unwrap().more {}
    let absent = door.line().await.unwrap().iter().filter(|it| it.presence == Presence::Absent).count();
    assert_eq!(absent, ghosts.len(), "the silent ones are absent, and they alone");

    let mut cursor = newest(&door).await;
    let mut waiting: HashMap<_, Place> = present.iter().map(|place| (place.key, *place)).collect();
    let (mut live, mut used): (Vec<Seat>, Vec<f64>) = (Vec::new(), Vec::new());
    let mut draws = Draws(7);
    let mut passed = steps;
    while !waiting.is_empty() {
        // One seat in twenty is given back in a second.
        for _ in 0..live.len() / 20 {
            let seat = live.swap_remove(draws.below(live.len()));
            assert!(door.close(seat).await.unwrap());
        }
        for (seat, _) in admitted(&door, terms, &mut cursor).await {
            assert!(waiting.remove(&seat.key).is_some(), "only those who are present are admitted");
            live.push(seat);
        }
        if !waiting.is_empty() {
            used.push(live.len() as f64 / CAPACITY as f64);
        }
        renew(&door, &live).await;
        attend(&door, waiting.values()).await;
        let _ = stand.pass().await;
        passed += 1;
    }
    let mean = used.iter().sum::<f64>() / used.len() as f64;
    println!("{}: {} seconds with a line, {:.1} % of the seats used", stand_name(&stand), used.len(), mean * 100.0);
    assert!(mean >= 0.95 && used.len() > 10, "{used:?}");

    while passed < LEASE.grace.as_secs() + 5 {
        renew(&door, &live).await;
        let _ = stand.pass().await;
        while door.ticked().await.unwrap().more {}
        passed += 1;
    }
    assert_eq!(places_of(&door).await, [], "grace and five seconds are over");
}

/// A number that Redis answered.
fn int(value: redis::Value) -> i64 {
    redis::from_redis_value(value).expect("a number")
}

/// How long the calls of scripts took since the log was emptied: how many, the median and the longest.
async fn script_times(url: &str) -> String {
    let entries: Vec<Vec<redis::Value>> =
        redis::from_redis_value(redis_command(url, &["SLOWLOG", "GET", "-1"]).await).expect("entries");
    let scripts = entries.iter().filter(|entry| {
        let words: Vec<String> = redis::from_redis_value(entry[3].clone()).unwrap_or_default();
        words.first().is_some_and(|word| word.to_uppercase().starts_with("EVAL"))
    });
    let mut took: Vec<i64> = scripts.map(|entry| int(entry[2].clone())).collect();
    took.sort_unstable();
    let at = |part: usize| took.get((took.len() * part / 100).min(took.len() - 1)).copied().unwrap_or(0);
    format!(
        "{} script calls took {} us in the middle, {} at the 99th percentile, {} at most",
        took.len(),
        at(50),
        at(99),
        at(100)
    )
}

async fn log_all_scripts(url: &str) {
    redis_command(url, &["CONFIG", "SET", "slowlog-log-slower-than", "100"]).await;
    redis_command(url, &["CONFIG", "SET", "slowlog-max-len", "100000"]).await;
    redis_command(url, &["SLOWLOG", "RESET"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_thousand_seats_that_expire_at_once_are_reaped_in_ten_seconds() {
    const SEATS: usize = 60_000;
    let stand = RedisStand::start().await;
    let (door, url) = (stand.door(), stand.server.url());
    let mut work = JoinSet::new();
    for worker in 0..64 {
        let door = door.clone();
        work.spawn(async move {
            for n in (worker..SEATS).step_by(64) {
                let _ = super::granted(&door, &format!("s{}", n / 3), &format!("t{}", n % 3), 3).await;
            }
        });
    }
    work.join_all().await;
    stand.pass_for(LEASE.length).await;
    log_all_scripts(&url).await;
    let started = Instant::now();
    let (mut reaped, mut ticks) = (stand.pass().await, 1);
    let mut longest = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let tick = door.ticked().await.unwrap();
        longest = longest.max(asked.elapsed());
        (reaped, ticks) = (reaped + tick.expired, ticks + 1);
        assert!(tick.expired <= BATCH);
        if !tick.more {
            break;
        }
    }
    let took = started.elapsed();
    let scripts = script_times(&url).await;
    println!(
        "{reaped} seats reaped in {took:?} by {ticks} ticks; {scripts}; the longest tick with its trip {longest:?}"
    );
    assert_eq!(reaped, SEATS);
    assert_eq!(int(redis_command(&url, &["ZCARD", "{door}:renewed"]).await), 0);
    assert!(took <= Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_is_admitted_in_bounded_steps() {
    const PLACES: usize = 20_000;
    let stand = RedisStand::start().await;
    let (door, url) = (stand.door(), stand.server.url());
    all_wait(&door, PLACES / 2, &["a", "b"]).await;
    log_all_scripts(&url).await;
    let (mut admitted, mut calls) = (0, 0);
    let started = Instant::now();
    loop {
        let done = door.admit(OPEN).await.unwrap();
        (admitted, calls) = (admitted + done.admitted, calls + 1);
        assert!(done.admitted <= ADMITTED);
        if !done.more {
            break;
        }
    }
    let took = started.elapsed();
    let scripts = script_times(&url).await;
    println!(
        "{admitted} admitted in {took:?} by {calls} calls, {:.0} a second; {scripts}",
        admitted as f64 / took.as_secs_f64()
    );
    assert_eq!(admitted, PLACES);
}
