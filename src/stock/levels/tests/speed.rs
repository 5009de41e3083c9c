use super::*;
use crate::ids::LedgerId;
use crate::time::{Clock, SystemClock};

/// 24,000 sites, whose sums and whose picture are right; how long each step took is printed.
#[test]
fn a_nation_is_folded_shown_and_pictured() {
    let clock = SystemClock::real();
    let (sites, sales) = (24_000_u32, 100_000_u32);
    let keys: Vec<Key> = (0..sites)
        .map(|nth| Key { programme: "km".parse().unwrap(), site: format!("{}", 11_000_000 + nth).parse().unwrap() })
        .collect();
    let mut levels = Levels::new();
    for (nth, key) in (0..).zip(&keys) {
        let report = Report { request: id(0), key: *key, what: What::Counted(500), at: at(0), received: at(0) };
        levels.report(place(nth), &report);
    }
    let events: Vec<Told> = (0..sales)
        .map(|nth| {
            let when = at(i64::from(nth) * 70 + 1);
            // Not one site after another, as it would be in a picture.
            let site = nth.wrapping_mul(2_654_435_761) % sites;
            told(EventKind::Sold, keys[usize::try_from(site).unwrap()], nth, 2, when, when)
        })
        .collect();
    let timed = |what: &str, from: std::time::Duration| {
        let took = clock.monotonic().saturating_sub(from);
        println!("{what}: {took:?}");
        took
    };

    let from = clock.monotonic();
    events.iter().for_each(|told| levels.event(told));
    let took = timed("fold", from);
    println!("{:.0} events/s", f64::from(sales) / took.as_secs_f64());

    let now = at(7_000_000);
    let from = clock.monotonic();
    levels.settle(now);
    timed("settle, the first", from);
    let from = clock.monotonic();
    levels.settle(now.plus(std::time::Duration::from_millis(250)));
    timed("settle, the next", from);
    let from = clock.monotonic();
    let shown = levels.shown(now, true, |_| Thresholds::OF_2020);
    timed("shown", from);
    assert_eq!(shown.len(), keys.len());
    assert_eq!(shown.iter().map(|(_, shown)| u64::from(shown.offered)).sum::<u64>(), 24_000 * 500 - 200_000);

    let cursor = Cursor::beginning(LedgerId::random());
    let from = clock.monotonic();
    let bytes = levels.to_bytes(&cursor, Place::FIRST);
    timed("to_bytes", from);
    println!("{} bytes", bytes.len());
    let from = clock.monotonic();
    let (again, ..) = Levels::from_bytes(&bytes).unwrap();
    timed("from_bytes", from);
    assert!(again == levels);
}
