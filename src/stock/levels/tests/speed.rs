use super::*;
use crate::ids::LedgerId;
use crate::time::{Clock, SystemClock};

/// A million sales at 24,000 sites within two hours, which is the most that is kept apart.
#[test]
#[ignore = "measures; run it by itself in release, with --nocapture"]
fn a_nation_is_folded_shown_and_pictured_in_time() {
    let clock = SystemClock::real();
    let (sites, sales) = (24_000_u32, 1_000_000_u32);
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
            let when = at(i64::from(nth) * 7 + 1);
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
    assert!(took.as_secs_f64() < f64::from(sales) / 50_000.0);

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
    assert_eq!(shown.iter().map(|(_, shown)| u64::from(shown.offered)).sum::<u64>(), 24_000 * 500 - 2_000_000);

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
