use super::*;

const LEASE: Lease =
    Lease { length: Duration::from_secs(15), max_step: Duration::from_secs(2), grace: Duration::from_secs(120) };
const OPEN: Terms = Terms { version: 0, mode: Mode::Open, capacity: 1_000 };

fn door() -> Limiter {
    Limiter::new(LEASE, Gate::default(), [])
}

fn site() -> SiteId {
    "12345678".parse().unwrap()
}

fn opening(at: &str, who: &str, cap: u16) -> Opening {
    let (site, terminal) = (at.parse().unwrap(), who.parse().unwrap());
    Opening { site, terminal, cap, ramped: false, due_in: Duration::ZERO }
}

fn granted(limiter: &mut Limiter, who: &str, cap: u16) -> Seat {
    match limiter.open(opening("12345678", who, cap), OPEN).0 {
        Opened::Granted { seat, .. } => seat,
        other => panic!("{other:?}"),
    }
}

fn is_full(limiter: &mut Limiter, who: &str, cap: u16) -> bool {
    matches!(limiter.open(opening("12345678", who, cap), OPEN).0, Opened::SiteFull { .. })
}

fn waits(limiter: &mut Limiter, at: &str, who: &str, terms: Terms) -> Place {
    match limiter.open(opening(at, who, 9), terms).0 {
        Opened::Waiting { place, .. } => place,
        other => panic!("{other:?}"),
    }
}

fn tick(limiter: &mut Limiter, store_ms: u64) -> (Tick, Vec<Change>) {
    limiter.tick(store_ms, Beat { terms: OPEN, ramp: None, burning: false })
}

fn admitted(limiter: &mut Limiter, terms: Terms) -> Vec<String> {
    let who = |change: Change| match change {
        Change::Admitted { seat, .. } => Some(format!("{} {}", seat.key, seat.terminal)),
        _ => None,
    };
    limiter.admit(terms).1.into_iter().filter_map(who).collect()
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
        assert!(tick(&mut door, store_ms).1.is_empty());
        assert_eq!(door.now_ms(), now_ms);
    }
    for step in 1..=5 {
        assert!(tick(&mut door, 1_500 + step * 2_000).1.is_empty());
    }
    assert_eq!(door.now_ms(), 14_500);
    assert!(tick(&mut door, 12_000).1.is_empty(), "15 s are the lease, not more than it");
    let expired = Change::Ended(Ended { seat: seat.key, fence: 1, why: EndedWhy::Expired });
    assert_eq!(tick(&mut door, 12_001).1, vec![expired]);
}

#[test]
fn the_reaper_works_in_bounded_batches() {
    let mut door = door();
    for n in 0..600 {
        let _ = granted(&mut door, &format!("t{n}"), 600);
    }
    assert_eq!(tick(&mut door, 0).0.expired, 0);
    let reaped: Vec<(usize, bool)> = (1..=11)
        .map(|n| {
            let tick = tick(&mut door, n * 2_000).0;
            (tick.expired, tick.more)
        })
        .collect();
    assert_eq!(reaped[..7], [(0, false); 7]);
    assert_eq!(reaped[7..], [(256, true), (256, true), (88, false), (0, false)]);
}

#[test]
fn first_terminals_go_before_anyones_second_and_nobody_exceeds_the_capacity() {
    let mut door = door();
    let none = Terms { capacity: 0, ..OPEN };
    for who in ["1", "2", "3"] {
        let _ = waits(&mut door, "a", who, none);
    }
    let _ = waits(&mut door, "b", "1", none);
    let again = waits(&mut door, "a", "2", none);
    assert_eq!((again.key.slot, again.seq), (1, 2), "asking again changes nothing");
    assert_eq!(admitted(&mut door, Terms { capacity: 3, ..OPEN }), ["a/0 1", "b/0 1", "a/1 2"]);
    assert_eq!(door.live(), 3);
    assert_eq!(admitted(&mut door, Terms { capacity: 2, ..OPEN }), [""; 0]);
    assert_eq!(admitted(&mut door, Terms { mode: Mode::FirstTerminalsOnly, ..OPEN }), [""; 0]);
    assert_eq!(admitted(&mut door, OPEN), ["a/2 3"]);
}

#[test]
fn an_absent_place_is_skipped_kept_for_the_grace_and_then_inherited() {
    let mut door = door();
    let none = Terms { capacity: 0, ..OPEN };
    let (ghost, heir) = (waits(&mut door, "a", "1", none), waits(&mut door, "a", "2", none));
    let other = waits(&mut door, "b", "1", none);
    let mut now = 0;
    let mut all = Vec::new();
    let mut pass = |door: &mut Limiter, seconds: u64| {
        for _ in 0..seconds {
            now += 1_000;
            for place in [heir, other] {
                let attending = Attending { site: place.key.site, terminal: place.terminal, due_in: Duration::ZERO };
                let _ = door.attend(&attending);
            }
            all.extend(tick(door, now).1);
        }
        std::mem::take(&mut all)
    };
    let _ = tick(&mut door, 0);
    assert_eq!(pass(&mut door, 16), [Change::Absent(ghost.key)]);
    let mut skipping = door.clone();
    assert_eq!(admitted(&mut skipping, OPEN), ["b/0 1", "a/1 2"]);
    let back = waits(&mut skipping, "a", "1", OPEN);
    assert_eq!(back.seq, ghost.seq, "it keeps its number");

    assert_eq!(pass(&mut door, 104), []);
    let inherited = Place { key: ghost.key, terminal: heir.terminal, seq: ghost.seq };
    assert_eq!(
        pass(&mut door, 1),
        [
            Change::Left { key: ghost.key, seq: ghost.seq, why: LeftWhy::Absent },
            Change::Left { key: heir.key, seq: heir.seq, why: LeftWhy::Moved },
            Change::Waits(inherited),
        ]
    );
    assert_eq!(admitted(&mut door, OPEN), ["a/0 2", "b/0 1"]);
}

#[test]
fn another_terminal_of_the_site_goes_on_in_an_absent_place_and_none_is_added() {
    let mut door = door();
    let none = Terms { capacity: 0, ..OPEN };
    let place = waits(&mut door, "a", "1", none);
    let _ = waits(&mut door, "b", "1", none);
    assert!(matches!(door.open(opening("a", "2", 1), none).0, Opened::SiteFull { .. }));
    for second in 0..=16 {
        let _ = tick(&mut door, second * 1_000);
    }
    let Opened::Waiting { place: taken, is_new } = door.open(opening("a", "2", 1), none).0 else { panic!() };
    assert_eq!((taken.key, taken.seq, is_new), (place.key, place.seq, false));
    assert!(matches!(door.open(opening("a", "1", 1), none).0, Opened::SiteFull { .. }), "it is taken");
}

#[test]
fn a_waiting_terminal_moves_to_a_slot_that_its_site_has_given_up() {
    let mut door = door();
    let seat = granted(&mut door, "1", 2);
    let none = Terms { capacity: 0, ..OPEN };
    let Opened::Waiting { place: second, .. } = door.open(opening("12345678", "2", 2), none).0 else { panic!() };
    let first = waits(&mut door, "b", "1", none);
    let attending = Attending { site: site(), terminal: second.terminal, due_in: Duration::ZERO };
    assert_eq!(door.attend(&attending).0, Some(second));
    assert!(door.close(&seat).is_some());
    let moved = door.attend(&attending).0.unwrap();
    assert_eq!((moved.key.slot, moved.seq), (0, first.seq + 1), "behind those who wait in that rank");
}

#[test]
fn a_lowered_cap_keeps_the_seat_that_sold_last() {
    let mut door = door();
    let seats: Vec<Seat> = ["a", "b", "c"].map(|t| granted(&mut door, t, 3)).into();
    let _ = tick(&mut door, 0);
    let _ = tick(&mut door, 2_000);
    let ago = |seconds| Some(Duration::from_secs(seconds));
    for (seat, sold_ago) in [(seats[0], None), (seats[1], ago(0)), (seats[2], ago(1))] {
        assert_eq!(door.renew(&Renewal { seat, sold_ago }), Standing::Live);
    }
    assert_eq!(door.trim(site(), 1, 1), [], "under other switches nothing happens");
    let ended = |seat: Seat| Change::Ended(Ended { seat: seat.key, fence: seat.fence, why: EndedWhy::CapLowered });
    assert_eq!(door.trim(site(), 2, 0), [ended(seats[0])]);
    assert_eq!(door.trim(site(), 1, 0), [ended(seats[2])]);
    assert_eq!(door.trim(site(), 1, 0), []);
    assert_eq!(door.standing(&seats[1]), Standing::Live);
}

#[test]
fn every_mode_lets_in_whom_it_says() {
    let modes = |mode| Terms { mode, ..OPEN };
    let mut door = door();
    let seat = granted(&mut door, "a", 9);
    let place = waits(&mut door, "b", "1", modes(Mode::QueueAll));
    let second = waits(&mut door, "12345678", "b", modes(Mode::FirstTerminalsOnly));
    assert_eq!(admitted(&mut door, modes(Mode::QueueAll)), [""; 0]);
    for mode in [Mode::Drain, Mode::Closed] {
        assert_eq!(door.open(opening("c", "1", 9), modes(mode)).0, Opened::Shut);
        assert_eq!(admitted(&mut door, modes(mode)), [""; 0]);
    }
    assert_eq!(waits(&mut door, "b", "1", modes(Mode::Drain)), place);
    let Opened::Granted { replaced, .. } = door.open(opening("12345678", "a", 9), modes(Mode::Drain)).0 else {
        panic!()
    };
    assert_eq!(replaced, Some(seat), "who is in may log in again");
    assert_eq!(admitted(&mut door, modes(Mode::FirstTerminalsOnly)), ["b/0 1"]);

    let shut = Beat { terms: modes(Mode::Closed), ramp: None, burning: false };
    let (ticked, changes) = door.tick(0, shut);
    assert_eq!(ticked.expired, 2);
    let shut = |c: &Change| matches!(c, Change::Ended(Ended { why: EndedWhy::Shut, .. }));
    assert_eq!(changes.iter().filter(|change| shut(change)).count(), 2, "{changes:?}");
    let line: Vec<Place> = door.line().into_iter().map(|it| it.place).collect();
    assert!(
        line.len() == 2 && line.contains(&place) && line.contains(&second),
        "nobody had come for b's seat: {line:?}"
    );
}

#[test]
fn a_ramp_lets_sites_in_at_its_rate_and_pauses_while_sales_are_slow() {
    let mut door = door();
    let ramped = |at: &str, who: &str| Opening { ramped: true, ..opening(at, who, 9) };
    for at in 0..20 {
        for who in ["1", "2"] {
            let opened = door.open(ramped(&format!("s{at}"), who), OPEN).0;
            assert!(matches!(opened, Opened::Waiting { .. }), "{opened:?}");
        }
    }
    assert!(matches!(door.open(opening("x", "1", 9), OPEN).0, Opened::Granted { .. }), "others are not held up");
    let mut now = 0;
    let mut second = |door: &mut Limiter, burning: bool| {
        now += 1_000;
        for place in door.line() {
            let place = place.place;
            let _ = door.attend(&Attending { site: place.key.site, terminal: place.terminal, due_in: Duration::ZERO });
        }
        let _ = door.tick(now, Beat { terms: OPEN, ramp: Some(2_500), burning });
        admitted(door, OPEN).len()
    };
    let counts: Vec<usize> = (0..5).map(|_| second(&mut door, false)).collect();
    assert_eq!(counts, [0, 4, 6, 4, 6], "two and a half sites a second, both terminals of each");
    assert_eq!(second(&mut door, true), 0);
    let counts: Vec<usize> = (0..6).map(|_| second(&mut door, false)).collect();
    assert_eq!(counts, [0, 0, 0, 0, 4, 6], "five seconds after the last word of slow sales it goes on");
    assert!(matches!(door.open(ramped("s0", "3"), OPEN).0, Opened::Granted { .. }), "s0 has come off");

    assert!(door.switch(0, "", true).is_some());
    let terms = Terms { version: 1, ..OPEN };
    assert_eq!(door.open(ramped("s0", "4"), OPEN).0, Opened::OtherSwitches);
    assert!(matches!(door.open(ramped("s0", "4"), terms).0, Opened::Waiting { .. }), "a new ramp begins");
    let _ = door.tick(now + 1_000, Beat { terms, ramp: None, burning: false });
    assert!(!admitted(&mut door, terms).is_empty(), "without a ramp everybody comes off");
}
