//! Random histories: sequences of calls over a few buyers, ids, sites and times, step by step on the store and on the
//! model. In the middle of each the key ring turns, which the model knows nothing of: it must not show. From then on a call under
//! the ring that was left is refused, and changes nothing. A history that differs is shrunk to the shortest that still does.
//!
//! `RATIOND_HISTORIES` says how many, `RATIOND_SEED` repeats a run.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rationd::buyer::{Side, Turn};
use rationd::ids::RequestId;
use rationd::ledger::outbox::Outbox;
use rationd::ledger::{Claim, Late, Ledger, LedgerError, RecordKey};
use rationd::policy::Window;
use rationd::time::Timestamp;

use super::model::Model;
use super::places;
use super::steps::{Step, Verb, at, beside, buyer, call, kept, ring, turned};

const HISTORIES: u64 = 300;
/// The most calls of a history; half of it on average.
const STEPS: usize = 80;
/// Histories under way at once: the store groups their calls.
const AT_ONCE: usize = 64;
/// Buyers of a history. Fewer histories at once than there are partitions, so that the order of every outbox is known.
const BUYERS: u64 = 2;

#[tokio::test]
async fn embedded_agrees_with_the_model() {
    let (ledger, _place) = places::embedded().await;
    agree("embedded", &ledger).await;
}

#[tokio::test]
async fn redis_agrees_with_the_model() {
    let (ledger, _place) = places::redis().await;
    agree("redis", &ledger).await;
}

/// A call as it is drawn: small numbers, so that ids, sites and times meet.
#[derive(Debug, Clone)]
struct Draw {
    buyer: u64,
    request: u64,
    site: u64,
    now: Moment,
    verb: DrawnVerb,
    /// Asked first by an instance that has not heard of the turn of the ring.
    stale: bool,
}

/// The service's clock at a call.
#[derive(Debug, Clone)]
enum Moment {
    /// Two milliseconds for each call before, and so many more.
    On(i64),
    /// Stepped to this.
    To(i64),
}

#[derive(Debug, Clone)]
enum DrawnVerb {
    Claim { quantity: u32, hold_for: Option<u64>, windows: Vec<DrawnWindow>, good_until: Option<i64> },
    Confirm,
    Release,
    Void,
    Late { quantity: u32, sold_at: i64, windows: Vec<DrawnWindow> },
    Resolve,
}

#[derive(Debug, Clone)]
struct DrawnWindow {
    from: i64,
    length: Option<i64>,
    units: Option<u32>,
    purchases: Option<u32>,
}

fn window() -> impl Strategy<Value = DrawnWindow> {
    (
        -20..80i64,
        prop::option::weighted(0.7, 1..90i64),
        prop::option::weighted(0.8, 0..7u32),
        prop::option::weighted(0.3, 0..5u32),
    )
        .prop_map(|(from, length, units, purchases)| DrawnWindow { from, length, units, purchases })
}

fn verb() -> impl Strategy<Value = DrawnVerb> {
    let windows = || prop::collection::vec(window(), 0..3);
    let hold_for = || prop::option::weighted(0.5, 0..40u64);
    let good_until = prop::option::weighted(0.15, 0..90i64);
    prop_oneof![
        6 => (1..4u32, hold_for(), windows(), good_until).prop_map(|(quantity, hold_for, windows, good_until)| {
            DrawnVerb::Claim { quantity, hold_for, windows, good_until }
        }),
        2 => Just(DrawnVerb::Confirm),
        1 => Just(DrawnVerb::Release),
        2 => Just(DrawnVerb::Void),
        2 => (1..4u32, -10..90i64, windows())
            .prop_map(|(quantity, sold_at, windows)| DrawnVerb::Late { quantity, sold_at, windows }),
        1 => Just(DrawnVerb::Resolve),
    ]
}

fn history() -> impl Strategy<Value = Vec<Draw>> {
    let now = prop_oneof![4 => (0..6i64).prop_map(Moment::On), 1 => (0..90i64).prop_map(Moment::To)];
    let stale = prop::bool::weighted(0.1);
    let draw = (0..BUYERS, 1..8u64, prop_oneof![4 => Just(1u64), 1 => Just(2u64)], now, verb(), stale)
        .prop_map(|(buyer, request, site, now, verb, stale)| Draw { buyer, request, site, now, verb, stale });
    prop::collection::vec(draw, 1..=STEPS)
}

impl DrawnWindow {
    fn real(&self) -> Window {
        Window {
            from: at(self.from),
            until: self.length.map_or(Timestamp::NEVER, |length| at(self.from + length)),
            max_units: self.units,
            max_purchases: self.purchases,
        }
    }
}

impl Draw {
    fn real(&self, nth: u64, place: usize) -> Step {
        let now = match self.now {
            Moment::On(jitter) => 2 * place as i64 + jitter,
            Moment::To(now) => now,
        };
        let windows = |drawn: &[DrawnWindow]| drawn.iter().map(DrawnWindow::real).collect::<Vec<_>>();
        let stated = format!("said at {now}");
        let verb = match &self.verb {
            DrawnVerb::Claim { quantity, hold_for, windows: drawn, good_until } => Verb::Claim(Claim {
                quantity: *quantity,
                hold_for: hold_for.map(Duration::from_millis),
                windows: windows(drawn).into_iter().collect(),
                good_until: good_until.map_or(Timestamp::NEVER, at),
                stated,
            }),
            DrawnVerb::Confirm => Verb::Confirm,
            DrawnVerb::Release => Verb::Release,
            DrawnVerb::Void => Verb::Void,
            DrawnVerb::Late { quantity, sold_at, windows: drawn } => {
                Verb::Late(Late { quantity: *quantity, sold_at: at(*sold_at), windows: windows(drawn), stated })
            }
            DrawnVerb::Resolve => Verb::Resolve,
        };
        let key = buyer_of(nth, self.buyer);
        Step { key, call: call(self.request, self.site, at(now)), verb }
    }
}

/// Every history has buyers of its own, and they share a partition.
fn buyer_of(nth: u64, number: u64) -> RecordKey {
    buyer(((nth * BUYERS + number) << 8) | (nth & 0xff))
}

/// A history under way.
#[derive(Clone)]
struct Life {
    draws: Arc<[Draw]>,
    nth: u64,
    model: Model,
}

/// Which of its calls: those before the ring turns, in the middle of the history, or those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Before,
    After,
}

/// In which turn of the ring calls are made, and stale ones: from the key of this number to the next.
fn turns(half: Half, from: u32) -> (Turn, Option<Turn>) {
    match half {
        Half::Before if from.is_multiple_of(2) => (beside(from, Side::Next), None),
        Half::Before => (Turn::at(ring(from)), None),
        Half::After if from.is_multiple_of(2) => (beside(from + 1, Side::Previous), Some(beside(from, Side::Next))),
        Half::After => (beside(from + 1, Side::Previous), Some(Turn::at(ring(from)))),
    }
}

impl Life {
    fn new(draws: Vec<Draw>, nth: u64) -> Self {
        Self { draws: draws.into(), nth, model: Model::default() }
    }

    /// Lives through a half of the history; says where the store and the model part.
    async fn live<L: Ledger>(mut self, ledger: &L, half: Half, from: u32) -> Result<Self, String> {
        let (turn, stale) = turns(half, from);
        let middle = self.draws.len() / 2;
        let draws = Arc::clone(&self.draws);
        for (place, draw) in draws.iter().enumerate().filter(|(place, _)| (*place < middle) == (half == Half::Before)) {
            let step = draw.real(self.nth, place);
            if let Some(left) = stale.filter(|_| draw.stale) {
                let step = Step { key: turned(step.key, left), ..step.clone() };
                let found = step.ask_patiently(ledger).await;
                if !matches!(found, Err(LedgerError::OtherRing(_))) {
                    return Err(format!("call {place} under the ring that was left: {step:#?}\nthe store: {found:#?}"));
                }
            }
            let expected = self.model.ask(&step);
            let found = Step { key: turned(step.key, turn), ..step.clone() }.ask_patiently(ledger).await;
            if found != expected {
                return Err(format!("call {place}: {step:#?}\nthe model: {expected:#?}\nthe store: {found:#?}"));
            }
        }
        for number in 0..BUYERS {
            let key = buyer_of(self.nth, number);
            // An instance that has only prepared the turn reads what is written after it.
            let readers = stale.filter(|stale| stale.neighbour.is_some()).into_iter().chain([turn]);
            for reader in readers {
                let usage = ledger.usage(turned(key, reader)).await.map_err(|e| e.to_string())?;
                if usage != self.model.record(key) {
                    return Err(format!(
                        "{half:?} the store keeps {usage:#?}\nthe model: {:#?}",
                        self.model.record(key)
                    ));
                }
            }
        }
        Ok(self)
    }
}

/// The ring of the ledger turns from this key to the next.
async fn turn_on<L: Ledger>(ledger: &L, from: u32) {
    ledger.turn(beside(from + 1, Side::Previous), kept(0)).await.unwrap();
}

async fn agree<L: Ledger + Outbox>(store: &str, ledger: &L) {
    let histories = setting("RATIOND_HISTORIES").map_or(HISTORIES, |n| n.parse().unwrap());
    let seed = setting("RATIOND_SEED").map_or_else(RequestId::random, |seed| seed.parse().unwrap());
    println!("{store}: {histories} random histories of up to {STEPS} calls, RATIOND_SEED={seed}");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.as_bytes().repeat(2));
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let (mut buyers, mut key) = (0, 1);
    let (mut steps, mut outcomes) = (0, std::collections::BTreeSet::new());
    let mut told: Vec<Vec<_>> = vec![Vec::new(); 256];
    let mut lived = 0;
    while lived < histories {
        let batch = AT_ONCE.min(usize::try_from(histories - lived).unwrap());
        let mut trees: Vec<_> = (0..batch).map(|_| history().new_tree(&mut runner).unwrap()).collect();
        let mut lives: Vec<Life> = Vec::new();
        for tree in &trees {
            lives.push(Life::new(tree.current(), buyers));
            buyers += 1;
        }
        steps += lives.iter().map(|life| life.draws.len()).sum::<usize>();
        for half in [Half::Before, Half::After] {
            if half == Half::After {
                turn_on(ledger, key).await;
            }
            let running: Vec<_> = lives
                .drain(..)
                .map(|life| {
                    let ledger = ledger.clone();
                    tokio::spawn(async move { life.live(&ledger, half, key).await })
                })
                .collect();
            for (run, tree) in running.into_iter().zip(&mut trees) {
                match run.await.unwrap() {
                    Ok(life) => lives.push(life),
                    Err(found) => shrink(ledger, tree, buyers, key + u32::from(half == Half::After), found).await,
                }
            }
        }
        key += 1;
        for life in lives {
            let partition = (life.nth & 0xff) as u8;
            for event in life.model.told(partition) {
                outcomes.insert(event["kind"].clone());
                told[usize::from(partition)].push(event);
            }
        }
        lived += batch as u64;
    }
    for partition in 0..=u8::MAX {
        assert_eq!(places::told(ledger, partition).await, told[usize::from(partition)], "outbox {partition}");
    }
    println!(
        "{store}: {lived} histories, {steps} calls, the ring at key {key} in the end, no difference; events of kinds {outcomes:?}"
    );
    assert_eq!(outcomes.len(), 6, "the histories reach every kind of event");
}

/// Looks for a shorter history that still differs, and fails with it.
async fn shrink<L: Ledger>(
    ledger: &L,
    tree: &mut impl ValueTree<Value = Vec<Draw>>,
    mut nth: u64,
    mut key: u32,
    found: String,
) {
    let (mut shortest, mut found) = (tree.current(), found);
    let mut changed = tree.simplify();
    for _ in 0..5_000 {
        if !changed {
            break;
        }
        let draws = tree.current();
        let lived = async {
            let life = Life::new(draws.clone(), nth).live(ledger, Half::Before, key).await?;
            turn_on(ledger, key).await;
            life.live(ledger, Half::After, key).await
        };
        changed = match lived.await {
            Err(why) => {
                (shortest, found) = (draws, why);
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
        // Whether it turned or not: a ring that stands there already is gone over to again.
        let _ = ledger.turn(beside(key + 1, Side::Previous), kept(0)).await;
        (nth, key) = (nth + 1, key + 1);
    }
    panic!("the shortest history that differs: {shortest:#?}\n{found}");
}

/// A setting of a test run.
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
