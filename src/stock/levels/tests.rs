#[cfg(test)]
mod histories;
#[cfg(test)]
mod model;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod speed;

use super::*;
use crate::ids::{RequestId, SiteId, TerminalId};
use crate::ledger::{Entry, Kind, State};
use crate::stock::Place;

/// 11 March 2020, 09:00 in Seoul.
const NINE: i64 = 1_583_884_800_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(NINE + millis)
}

fn id(number: u32) -> RequestId {
    RequestId::from_bytes((u128::from(number) + 1).to_be_bytes()).unwrap()
}

fn key() -> Key {
    Key { programme: "km".parse().unwrap(), site: "11000001".parse().unwrap() }
}

fn place(low: u64) -> Place {
    Place { high: 0, low }
}

/// An event of two instants, the entry as it stood after each kind of it.
fn told(kind: EventKind, key: Key, number: u32, quantity: u32, at: Timestamp, mark: Timestamp) -> Told {
    let state = match kind {
        EventKind::Sold | EventKind::Confirmed | EventKind::Late => State::Sold,
        EventKind::Held => State::Held,
        EventKind::Released => State::Released,
        EventKind::Voided => State::Voided,
    };
    let is_hold = matches!(kind, EventKind::Held | EventKind::Confirmed | EventKind::Released);
    let entry = Entry {
        request: id(number),
        state,
        kind: if is_hold { Kind::Hold } else { Kind::Sale },
        late: kind == EventKind::Late,
        over: false,
        quantity,
        at,
        mark,
        site: key.site,
    };
    let terminal: TerminalId = "w1".parse().unwrap();
    Told { event: Event { kind, entry }, programme: key.programme, terminal, stated: String::new() }
}

/// The levels of one stock, whatever happens at so many milliseconds after [`NINE`].
#[derive(Default)]
struct One {
    levels: Levels,
    reports: u64,
}

impl One {
    fn event(&mut self, kind: EventKind, number: u32, quantity: u32, from: i64, mark: i64) -> &mut Self {
        self.levels.event(&told(kind, key(), number, quantity, at(from), at(mark)));
        self
    }

    fn sold(&mut self, quantity: u32, when: i64) -> &mut Self {
        self.event(EventKind::Sold, 1_000, quantity, when, when)
    }

    fn late(&mut self, quantity: u32, sold: i64, entered: i64) -> &mut Self {
        self.event(EventKind::Late, 1_000, quantity, sold, entered)
    }

    /// A report that was so at the one time and received at the other.
    fn says(&mut self, what: What, when: i64, received: i64) -> &mut Self {
        self.reports += 1;
        let report = Report { request: id(0), key: key(), what, at: at(when), received: at(received) };
        self.levels.report(place(self.reports), &report);
        self
    }

    fn delivered(&mut self, units: u32, when: i64) -> &mut Self {
        self.says(What::Delivered(units), when, when)
    }

    fn counted(&mut self, units: u32, when: i64) -> &mut Self {
        self.says(What::Counted(units), when, when)
    }

    fn settle(&mut self, when: i64) -> &mut Self {
        self.levels.settle(at(when));
        self
    }

    fn maybe(&self, now: i64) -> Option<Shown> {
        let shown = self.levels.shown(at(now), true, |_| Thresholds::OF_2020);
        assert!(shown.iter().all(|(of, _)| *of == key()));
        shown.first().map(|(_, shown)| *shown)
    }

    fn shown(&self, now: i64) -> Shown {
        self.maybe(now).unwrap()
    }

    /// Units that are offered, and that are promised.
    fn units(&self, now: i64) -> (u32, u32) {
        let shown = self.shown(now);
        (shown.offered, shown.promised)
    }

    /// Sounds that change nothing, every so many minutes from one minute to another.
    fn sounds(&mut self, from: i64, to: i64, every: i64) -> &mut Self {
        for minute in (from..=to).step_by(usize::try_from(every).unwrap()) {
            self.event(EventKind::Held, 999, 0, minute * MINUTE, minute * MINUTE);
        }
        self
    }

    fn movements(&self) -> usize {
        self.levels.stocks.values().map(|stock| stock.movements.len()).sum()
    }
}

#[test]
fn what_comes_in_less_what_is_sold_is_offered() {
    let mut one = One::default();
    one.delivered(250, 0).sold(2, 1).sold(3, 2);
    assert_eq!(
        one.shown(10),
        Shown {
            level: Level::Plenty,
            offered: 245,
            promised: 0,
            as_of: at(2),
            source: Source::Sales,
            delivered_at: Some(at(0)),
            counted_at: None,
            stale: false,
            unverified: false,
        }
    );
    one.event(EventKind::Voided, 1, 3, 2, 5);
    assert_eq!((one.units(10), one.shown(10).as_of), ((248, 0), at(5)));
}

#[test]
fn levels_are_those_of_the_thresholds() {
    for (units, level) in [
        (100, Level::Plenty),
        (99, Level::Some),
        (30, Level::Some),
        (29, Level::Few),
        (2, Level::Few),
        (1, Level::Empty),
        (0, Level::Empty),
    ] {
        assert_eq!(One::default().counted(units, 0).shown(1).level, level, "{units}");
    }
    let mut one = One::default();
    one.counted(5, 0);
    let own = |code: ProgrammeCode| {
        assert_eq!(code, key().programme);
        Thresholds { plenty: 5, some: 4, few: 3 }
    };
    assert_eq!(one.levels.shown(at(1), true, own)[0].1.level, Level::Plenty);
}

#[test]
fn nobody_knows_what_a_site_has_that_never_reported_it() {
    let mut one = One::default();
    one.sold(2, 0).event(EventKind::Held, 1, 1, 1, 60_000);
    assert_eq!(one.maybe(10), None);
    one.says(What::Resumed, 2, 2);
    assert_eq!(one.maybe(10), None);
    one.says(What::Paused, 3, 3);
    assert_eq!((one.shown(10).level, one.shown(10).as_of, one.shown(10).source), (Level::Paused, at(3), Source::Sales));
    one.says(What::Resumed, 4, 4);
    assert_eq!(one.maybe(10), None);
    // What was sold before the first delivery that is known is sold all the same.
    assert_eq!(one.delivered(10, 5).units(10), (7, 1));
}

#[test]
fn a_count_stands_for_everything_up_to_its_instant() {
    let mut one = One::default();
    one.delivered(100, 0).sold(1, 10).sold(2, 20).sold(4, 21).counted(50, 20);
    assert_eq!(one.units(99), (46, 0));
    // What is told afterwards and was before it is in it; what was after it is not.
    one.sold(8, 20).late(16, 19, 90).says(What::Delivered(300), 20, 91).event(EventKind::Confirmed, 1, 5, 3, 20);
    assert_eq!(one.units(99), (46, 0));
    one.late(3, 21, 92).says(What::Delivered(7), 22, 93).event(EventKind::Voided, 2, 1, 3, 23);
    assert_eq!((one.units(99), one.shown(99).counted_at), ((51, 0), Some(at(20))));
    assert_eq!(one.movements(), 4, "what is in the count is not kept");
}

#[test]
fn the_newest_count_stands_however_they_come() {
    let mut one = One::default();
    one.sold(1, 5).counted(50, 10).sold(1, 15).says(What::Counted(70), 7, 20).counted(40, 12).sold(1, 12);
    assert_eq!(one.units(99), (39, 0));
    // Two of one instant: the one that was recorded later, whichever comes first.
    for order in [[1, 2], [2, 1]] {
        let mut levels = Levels::new();
        for nth in order {
            let what = What::Counted(u32::try_from(nth * 10).unwrap());
            levels.report(place(nth), &Report { request: id(0), key: key(), what, at: at(0), received: at(3) });
        }
        assert_eq!(levels.shown(at(9), true, |_| Thresholds::OF_2020)[0].1.offered, 20, "{order:?}");
    }
}

#[test]
fn what_is_promised_is_there_and_not_offered() {
    let mut one = One::default();
    one.counted(10, 0).event(EventKind::Held, 1, 3, 10, 1_000).event(EventKind::Held, 2, 4, 10, 2_000);
    assert_eq!(one.units(999), (3, 7));
    assert_eq!(one.units(1_000), (6, 4), "a hold ends at its mark, and nobody need say so");
    assert_eq!(one.units(2_000), (10, 0));
    assert_eq!(one.shown(999).as_of, at(10));
    // Sold once, not twice.
    one.event(EventKind::Confirmed, 1, 3, 10, 500);
    assert_eq!(one.units(999), (3, 4));
    one.event(EventKind::Released, 2, 4, 10, 600);
    assert_eq!((one.units(999), one.shown(999).as_of), ((7, 0), at(600)));
    // Nothing to be given back.
    one.event(EventKind::Released, 3, 9, 10, 700);
    assert_eq!(one.units(999), (7, 0));
    // A hold whose confirmation never arrived, sold and written down.
    one.event(EventKind::Held, 4, 2, 800, 5_000);
    assert_eq!(one.units(999), (5, 2));
    one.event(EventKind::Late, 4, 2, 850, 900);
    assert_eq!(one.units(999), (5, 0));
    // No more is promised than there is.
    one.event(EventKind::Held, 5, 9, 910, 5_000);
    assert_eq!((one.units(999), one.shown(999).unverified), ((0, 5), false));
}

#[test]
fn a_hold_counts_as_sold_when_it_is_confirmed() {
    // Counted between the two: it was still there.
    let mut one = One::default();
    one.event(EventKind::Held, 1, 3, 10, 9_000).counted(10, 50).event(EventKind::Confirmed, 1, 3, 10, 60);
    assert_eq!(one.units(99), (7, 0));
}

#[test]
fn a_sale_on_paper_counts_from_when_it_was_made() {
    let mut one = One::default();
    one.counted(10, 100).late(3, 50, 200);
    assert_eq!(one.units(999), (10, 0));
    assert_eq!(one.late(3, 101, 300).units(999), (7, 0));
    assert_eq!((one.shown(999).as_of, one.shown(999).source), (at(101), Source::Sales));
}

#[test]
fn more_sold_than_there_was_is_unverified() {
    let mut one = One::default();
    one.delivered(2, 0).sold(3, 1);
    assert_eq!((one.units(9), one.shown(9).unverified, one.shown(9).level), ((0, 0), true, Level::Empty));
    one.counted(4, 2);
    assert_eq!((one.units(9), one.shown(9).unverified), ((4, 0), false));
}

#[test]
fn a_pause_hides_the_level_and_changes_no_units() {
    let mut one = One::default();
    one.counted(50, 0).says(What::Paused, 10, 10);
    let shown = one.shown(99);
    assert_eq!((shown.level, shown.offered, shown.as_of, shown.source), (Level::Paused, 50, at(10), Source::Count));
    one.says(What::Resumed, 5, 20);
    assert_eq!(one.shown(99).level, Level::Paused, "an older one that came later");
    one.says(What::Resumed, 10, 30);
    assert_eq!(one.shown(99).level, Level::Some, "of one instant, and recorded later");
}

#[test]
fn the_newest_thing_is_what_it_rests_on() {
    let mut one = One::default();
    one.delivered(9, 30).counted(50, 20).sold(1, 10);
    assert_eq!((one.shown(99).as_of, one.shown(99).source), (at(30), Source::Delivery));
    one.counted(50, 30);
    assert_eq!(one.shown(99).source, Source::Count);
    one.sold(1, 30);
    assert_eq!((one.shown(99).source, one.shown(99).offered), (Source::Count, 50));
    one.sold(1, 31);
    assert_eq!((one.shown(99).as_of, one.shown(99).source), (at(31), Source::Sales));
    assert_eq!(one.shown(30).as_of, at(30), "never a time to come");
    assert_eq!(one.shown(99).delivered_at, Some(at(30)));
}

#[test]
fn what_was_missed_is_unverified_until_somebody_counts() {
    let mut one = One::default();
    one.delivered(9, 0);
    one.levels.missed_until(at(50));
    one.levels.missed_until(at(40));
    assert!(one.shown(99).unverified);
    assert!(one.counted(9, 50).shown(99).unverified);
    assert!(!one.counted(9, 51).shown(99).unverified);
}

#[test]
fn a_site_that_is_silent_for_longer_than_usual_is_stale() {
    let mut one = One::default();
    one.counted(9, 0);
    assert!(!one.shown(60 * MINUTE).stale, "twice half an hour");
    assert!(one.shown(60 * MINUTE + 1).stale);
    assert!(one.levels.shown(at(1), false, |_| Thresholds::OF_2020)[0].1.stale, "nothing is being read");
    // Busy for long: 10 min is the least that is usual.
    one.sounds(0, 300, 1);
    assert!(!one.shown(320 * MINUTE).stale);
    assert!(one.shown(320 * MINUTE + 1).stale);
    // One silence of two hours: a quarter of the way there.
    one.event(EventKind::Held, 999, 0, 420 * MINUTE, 420 * MINUTE);
    assert!(!one.shown((420 + 75) * MINUTE).stale);
    assert!(one.shown((420 + 75) * MINUTE + 1).stale);
    // A night teaches nothing.
    one.event(EventKind::Held, 999, 0, (420 + 600) * MINUTE, 0);
    assert!(!one.shown((420 + 600 + 75) * MINUTE).stale);
    assert!(one.shown((420 + 600 + 75) * MINUTE + 1).stale);
}

#[test]
fn every_sound_and_nothing_else_is_a_sound() {
    let heard = |kind: EventKind, mark: i64| {
        let mut one = One::default();
        one.counted(9, 0).event(kind, 1, 1, 50 * MINUTE, mark);
        !one.shown(100 * MINUTE).stale
    };
    for kind in [EventKind::Sold, EventKind::Held] {
        assert!(heard(kind, 50 * MINUTE), "{kind:?}");
    }
    for kind in [EventKind::Confirmed, EventKind::Voided] {
        assert!(heard(kind, 50 * MINUTE) && !heard(kind, MINUTE), "{kind:?} is heard at its mark");
    }
    for kind in [EventKind::Released, EventKind::Late] {
        assert!(!heard(kind, 50 * MINUTE), "{kind:?}");
    }
    // Reports are heard when they are received.
    for what in [What::Delivered(1), What::Counted(1), What::Paused, What::Resumed] {
        assert!(!One::default().counted(9, 0).says(what, 0, 50 * MINUTE).shown(100 * MINUTE).stale, "{what:?}");
    }
}

#[test]
fn after_a_gap_it_is_unverified_until_somebody_counts() {
    let after = |silence: i64| {
        let mut one = One::default();
        one.counted(9, 0);
        one.sold(1, silence);
        one
    };
    assert!(!after(60 * MINUTE).shown(60 * MINUTE).unverified);
    assert!(after(60 * MINUTE + 1).shown(60 * MINUTE + 1).unverified);
    assert!(after(6 * HOUR - 1).shown(6 * HOUR).unverified);
    assert!(!after(6 * HOUR).shown(6 * HOUR).unverified, "it was closed");
    let mut one = One::default();
    one.counted(9, 0);
    assert!(!one.shown(3 * HOUR).unverified, "a gap ends with a sound");
    one.sold(1, 3 * HOUR).says(What::Counted(8), 3 * HOUR - 10 * MINUTE - 1, 3 * HOUR + 5);
    assert!(one.shown(3 * HOUR + 9).unverified, "counted long before it ended");
    one.says(What::Counted(8), 3 * HOUR - 10 * MINUTE, 3 * HOUR + 6);
    assert!(!one.shown(3 * HOUR + 9).unverified);
    // What is learned from what is settled is the same.
    one.sold(1, 7 * HOUR).settle(7 * HOUR + MINUTE);
    assert!(one.shown(7 * HOUR + 9).unverified);
    assert!(one.levels.stocks.values().all(|stock| stock.sounds.is_empty()));
}

#[test]
fn the_habit_stays_within_its_bounds() {
    let mut one = One::default();
    one.counted(9, 0).sounds(0, 60 * 350, 350);
    let last = 60 * 350 * MINUTE;
    assert!(!one.shown(last + 6 * HOUR).stale);
    assert!(one.shown(last + 6 * HOUR + 1).stale);
}

#[test]
fn a_sound_that_comes_after_its_time_teaches_nothing() {
    let mut one = One::default();
    one.counted(9, 0).settle(3 * HOUR);
    let before = one.shown(3 * HOUR);
    one.event(EventKind::Held, 999, 0, 2 * HOUR, 2 * HOUR);
    let after = one.shown(3 * HOUR);
    assert_eq!((before.unverified, after.unverified), (false, false));
    assert!(!after.stale, "it was heard all the same");
}

#[test]
fn what_no_count_can_be_dated_before_is_added_up_and_forgotten() {
    let mut one = One::default();
    one.counted(1_000, 0);
    for minute in 1..=300 {
        one.sold(1, minute * MINUTE);
    }
    assert_eq!(one.movements(), 300);
    one.settle(300 * MINUTE);
    assert_eq!((one.movements(), one.units(300 * MINUTE)), (121, (700, 0)), "two hours and a minute");
    one.settle(300 * MINUTE - 60_000);
    assert_eq!((one.movements(), one.shown(300 * MINUTE).unverified), (121, false), "clocks differ by a little");
    // Paper from long ago, and from lately.
    one.late(5, 30 * MINUTE, 300 * MINUTE).late(7, 250 * MINUTE, 300 * MINUTE);
    assert_eq!((one.movements(), one.units(300 * MINUTE)), (122, (688, 0)));
    // The oldest count that may still come.
    one.says(What::Counted(900), 180 * MINUTE, 300 * MINUTE + 1);
    assert_eq!((one.movements(), one.units(301 * MINUTE)), (121, (773, 0)));
    assert_eq!(size_of::<Movement>(), 16);
}

#[test]
fn who_reads_by_a_clock_that_was_far_ahead_says_so_and_hears_counts_again() {
    let mut one = One::default();
    one.counted(100, 0).settle(30 * HOUR);
    one.says(What::Counted(50), HOUR, HOUR);
    assert_eq!(one.units(HOUR), (100, 0), "it was taken for too old");
    one.settle(HOUR);
    assert!(one.shown(HOUR).unverified);
    one.says(What::Counted(40), HOUR + 1, HOUR + 1);
    assert_eq!((one.units(2 * HOUR), one.shown(HOUR + 1).unverified), ((40, 0), false));
}

#[test]
fn a_count_from_before_what_is_forgotten_is_none() {
    let mut one = One::default();
    one.delivered(100, 0).sold(1, HOUR).settle(9 * HOUR).says(What::Counted(7), 2 * HOUR, 9 * HOUR);
    assert_eq!((one.units(9 * HOUR), one.shown(9 * HOUR).counted_at), ((99, 0), None));
}

#[test]
fn holds_that_have_run_out_are_forgotten() {
    let mut one = One::default();
    one.counted(9, 0).event(EventKind::Held, 1, 1, 0, MINUTE).event(EventKind::Held, 2, 1, 0, HOUR).settle(5 * MINUTE);
    let kept: Vec<_> = one.levels.stocks.values().flat_map(|stock| stock.promises.keys()).collect();
    assert_eq!((kept, one.units(5 * MINUTE)), (vec![&id(2)], (8, 1)));
    // Told of it afterwards, nothing changes.
    assert_eq!(one.event(EventKind::Released, 1, 1, 0, MINUTE).units(5 * MINUTE), (8, 1));
}

#[test]
fn stocks_are_apart_and_in_the_order_of_their_keys() {
    let mut levels = Levels::new();
    let keys: Vec<Key> = [("b", "2"), ("a", "3"), ("b", "1"), ("a", "10")]
        .map(|(programme, site)| Key { programme: programme.parse().unwrap(), site: site.parse::<SiteId>().unwrap() })
        .to_vec();
    for (nth, key) in (1_u32..).zip(&keys) {
        let report = Report { request: id(0), key: *key, what: What::Counted(nth), at: at(0), received: at(0) };
        levels.report(place(nth.into()), &report);
    }
    levels.event(&told(EventKind::Sold, keys[3], 1, 1, at(1), at(1)));
    let shown = levels.shown(at(2), true, |_| Thresholds::OF_2020);
    let found: Vec<(Key, u32)> = shown.iter().map(|(key, shown)| (*key, shown.offered)).collect();
    assert_eq!(found, [(keys[3], 3), (keys[1], 2), (keys[2], 3), (keys[0], 1)]);
}
