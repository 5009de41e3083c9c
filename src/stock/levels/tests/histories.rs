//! Whole histories in any order, against the slow model.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::model::Fact;
use super::*;
use crate::ids::LedgerId;

/// What somebody does next, and how it comes to be known.
#[derive(Debug, Clone)]
struct Step {
    /// After so much time.
    after: i64,
    /// At which of the [`keys`].
    stock: usize,
    act: Act,
    /// How much later than it might be it is applied.
    delay: i64,
    /// What is done once it has been applied.
    then: Then,
}

#[derive(Debug, Clone)]
enum Act {
    Sell(u32),
    /// Units, and for how long.
    Hold(u32, i64),
    /// One of the holds that are open, or none if there is none.
    Confirm(Index),
    Release(Index),
    /// One of the sales.
    Void(Index),
    /// Units, and how long ago.
    Late(u32, i64),
    /// One of the holds that are open, sold so long ago.
    LateOfHold(Index, i64),
    /// Each dated back.
    Deliver(u32, i64),
    Count(u32, i64),
    Pause(i64),
    Resume(i64),
    /// Facts up to so long ago may be missing.
    Miss(i64),
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    /// At the latest time that may be, or so much before.
    Settle(i64),
    Restart,
}

/// Two of one site, and one more of one of the programmes: nothing of one may show at another.
fn keys() -> Vec<Key> {
    [("km", "A"), ("km", "B"), ("sn", "A")]
        .map(|(programme, site)| Key { programme: programme.parse().unwrap(), site: site.parse().unwrap() })
        .to_vec()
}

/// Spans that meet, and those at the edges of rules.
fn after() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => (0..20_i64).prop_map(|minutes| minutes * MINUTE),
        3 => prop::sample::select(vec![0, 0, 1, MINUTE, 10 * MINUTE]),
        1 => prop::sample::select(vec![20 * MINUTE, HOUR, HOUR + 1, 3 * HOUR, 6 * HOUR - 1, 6 * HOUR]),
        1 => 0..14 * HOUR,
    ]
}

fn back(most: i64) -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => Just(0),
        3 => (0..=most / MINUTE).prop_map(|minutes| minutes * MINUTE),
        1 => 0..=most,
        1 => Just(most),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<Index>;
    prop_oneof![
        6 => (1..6_u32).prop_map(Act::Sell),
        4 => (1..6_u32, after()).prop_map(|(units, span)| Act::Hold(units, span)),
        3 => index().prop_map(Act::Confirm),
        1 => index().prop_map(Act::Release),
        2 => index().prop_map(Act::Void),
        2 => (1..6_u32, back(12 * HOUR)).prop_map(|(units, ago)| Act::Late(units, ago)),
        1 => (index(), back(2 * HOUR)).prop_map(|(hold, ago)| Act::LateOfHold(hold, ago)),
        2 => (1..150_u32, back(24 * HOUR)).prop_map(|(units, ago)| Act::Deliver(units, ago)),
        4 => (0..150_u32, back(2 * HOUR)).prop_map(|(units, ago)| Act::Count(units, ago)),
        1 => back(3 * HOUR).prop_map(Act::Pause),
        1 => back(3 * HOUR).prop_map(Act::Resume),
        1 => back(5 * HOUR).prop_map(Act::Miss),
    ]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    // In order, nearly in order, or all at once in any order.
    let delays = prop::sample::select(vec![0, 2 * MINUTE, 40 * MINUTE, 1_000 * HOUR]);
    let then = || {
        prop_oneof![
            3 => Just(Then::Nothing),
            4 => prop_oneof![2 => Just(0), 1 => 0..3 * HOUR].prop_map(Then::Settle),
            1 => Just(Then::Restart),
        ]
    };
    delays.prop_flat_map(move |most| {
        let step = (after(), 0..keys().len(), act(), 0..=most, then())
            .prop_map(|(after, stock, act, delay, then)| Step { after, stock, act, delay, then });
        prop::collection::vec(step, 1..80)
    })
}

/// A fact, as it comes to be applied.
#[derive(Debug, Clone)]
struct Arrival {
    fact: Fact,
    /// When it was recorded: only with it may anything from then on be settled.
    known: i64,
    then: Then,
}

/// What the ledger and the shelf make of it, in the order in which it arrives.
fn arrivals(steps: &[Step]) -> Vec<Arrival> {
    let keys = keys();
    let (mut now, mut number) = (0, 0);
    let mut holds: Vec<(Key, u32, u32, i64, i64)> = Vec::new();
    let mut sales: Vec<(Key, u32, u32, i64)> = Vec::new();
    // What happened to one hold stands in one partition, and is read in its order.
    let mut read: HashMap<RequestId, i64> = HashMap::new();
    let mut arrivals = Vec::new();
    for (nth, step) in steps.iter().enumerate() {
        now += step.after;
        number += 1;
        let key = keys[step.stock];
        let event =
            |kind, key, number, units, from, mark| Fact::Event(told(kind, key, number, units, at(from), at(mark)));
        let report = |what, ago| {
            let report = Report { request: id(number), key, what, at: at(now - ago), received: at(now) };
            Fact::Report(place(u64::from(number)), report)
        };
        let fact = match &step.act {
            Act::Sell(units) => {
                sales.push((key, number, *units, now));
                event(EventKind::Sold, key, number, *units, now, now)
            }
            Act::Hold(units, span) => {
                holds.push((key, number, *units, now, now + span));
                event(EventKind::Held, key, number, *units, now, now + span)
            }
            Act::Confirm(index) | Act::Release(index) | Act::LateOfHold(index, _) if !holds.is_empty() => {
                let (key, number, units, from, until) = holds.remove(index.index(holds.len()));
                match step.act {
                    Act::Confirm(_) if now < until => {
                        sales.push((key, number, units, from));
                        event(EventKind::Confirmed, key, number, units, from, now)
                    }
                    Act::LateOfHold(_, ago) => {
                        sales.push((key, number, units, now - ago));
                        event(EventKind::Late, key, number, units, now - ago, now)
                    }
                    _ => event(EventKind::Released, key, number, units, from, until.min(now)),
                }
            }
            Act::Void(index) if !sales.is_empty() => {
                let (key, number, units, from) = sales.remove(index.index(sales.len()));
                event(EventKind::Voided, key, number, units, from, now)
            }
            Act::Late(units, ago) => {
                sales.push((key, number, *units, now - ago));
                event(EventKind::Late, key, number, *units, now - ago, now)
            }
            Act::Confirm(_) | Act::Release(_) | Act::LateOfHold(..) | Act::Void(_) => continue,
            Act::Deliver(units, ago) => report(What::Delivered(*units), ago),
            Act::Count(units, ago) => report(What::Counted(*units), ago),
            Act::Pause(ago) => report(What::Paused, ago),
            Act::Resume(ago) => report(What::Resumed, ago),
            Act::Miss(ago) => Fact::Missed(at(now - ago)),
        };
        let mut arrives = now + step.delay;
        if let Fact::Event(told) = &fact {
            let last = read.entry(told.event.entry.request).or_insert(arrives);
            arrives = arrives.max(*last);
            *last = arrives;
        }
        arrivals.push((arrives, nth, Arrival { fact, known: now, then: step.then }));
    }
    arrivals.sort_by_key(|(arrives, nth, _)| (*arrives, *nth));
    arrivals.into_iter().map(|(.., arrival)| arrival).collect()
}

fn apply(levels: &mut Levels, fact: &Fact) {
    match fact {
        Fact::Event(told) => levels.event(told),
        Fact::Report(place, report) => levels.report(*place, report),
        Fact::Missed(until) => levels.missed_until(*until),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_history_in_any_order_shows_what_the_model_shows(steps in history(), later in after()) {
        let arrivals = arrivals(&steps);
        let mut levels = Levels::new();
        let (mut applied, mut settled) = (Vec::new(), i64::MIN);
        let cursor = Cursor::beginning(LedgerId::random());
        for (nth, arrival) in arrivals.iter().enumerate() {
            apply(&mut levels, &arrival.fact);
            applied.push(arrival.fact.clone());
            // Everything up to here has been applied.
            let newest = arrivals[..=nth].iter().map(|arrival| arrival.known).max().unwrap();
            let whole = arrivals[nth + 1..].iter().map(|arrival| arrival.known - 1).min().unwrap_or(newest);
            match arrival.then {
                Then::Nothing => {}
                Then::Settle(less) => {
                    settled = settled.max(whole - less);
                    levels.settle(at(settled));
                }
                Then::Restart => {
                    let (again, ..) = Levels::from_bytes(&levels.to_bytes(&cursor, Place::FIRST)).unwrap();
                    prop_assert_eq!(&again, &levels);
                    levels = again;
                }
            }
            for now in [newest.max(settled), newest.max(settled) + later] {
                let model = model::shown(&applied, NINE + now, true);
                prop_assert_eq!(levels.shown(at(now), true, |_| Thresholds::OF_2020), model, "after {}", nth);
            }
        }
        let now = arrivals.iter().map(|arrival| arrival.known).max().unwrap_or(0);
        let model = model::shown(&applied, NINE + now, false);
        prop_assert_eq!(levels.shown(at(now), false, |_| Thresholds::OF_2020), model);
        // Late enough nothing that is shown rests on what is still kept apart.
        levels.settle(at(now + 15 * 24 * HOUR));
        let kept = |stock: &Stock| stock.movements.len() + stock.sounds.len() + stock.promises.len();
        prop_assert_eq!(levels.stocks.values().map(kept).sum::<usize>(), 0);
        let now = now + 15 * 24 * HOUR;
        prop_assert_eq!(levels.shown(at(now), true, |_| Thresholds::OF_2020), model::shown(&applied, NINE + now, true));
    }
}
