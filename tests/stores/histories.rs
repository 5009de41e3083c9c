//! Random histories: sequences of calls over a few buyers, ids, sites and times, step by step on the store and on the
//! model. A history that differs is shrunk to the shortest that still does.
//!
//! `RATIOND_HISTORIES` says how many, `RATIOND_SEED` repeats a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rationd::ids::RequestId;
use rationd::ledger::{Claim, Late, Ledger, RecordKey};
use rationd::policy::Window;
use rationd::time::Timestamp;

use super::model::Model;
use super::places::{self, Outbox};
use super::steps::{Step, Verb, at, buyer, call};

const HISTORIES: u64 = 300;
/// The most calls of a history; half of it on average.
const STEPS: usize = 80;
/// Histories under way at once: the store groups their calls.
const AT_ONCE: usize = 64;
/// Buyers of a history. Fewer histories at once than there are partitions, so that the order of every outbox is known.
const BUYERS: u64 = 2;

#[tokio::test]
async fn embedded_agrees_with_the_model() {
    let (ledger, place) = places::embedded().await;
    agree("embedded", &ledger, &place).await;
}

#[tokio::test]
async fn redis_agrees_with_the_model() {
    let (ledger, place) = places::redis().await;
    agree("redis", &ledger, &place).await;
}

/// A call as it is drawn: small numbers, so that ids, sites and times meet.
#[derive(Debug, Clone)]
struct Draw {
    buyer: u64,
    request: u64,
    site: u64,
    now: Moment,
    verb: DrawnVerb,
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
    let draw = (0..BUYERS, 1..8u64, prop_oneof![4 => Just(1u64), 1 => Just(2u64)], now, verb())
        .prop_map(|(buyer, request, site, now, verb)| Draw { buyer, request, site, now, verb });
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

/// Lives through a history; says where the store and the model part.
async fn live<L: Ledger>(ledger: &L, draws: &[Draw], nth: u64) -> Result<Model, String> {
    let mut model = Model::default();
    for (place, draw) in draws.iter().enumerate() {
        let step = draw.real(nth, place);
        let (expected, found) = (model.ask(&step), step.ask_patiently(ledger).await);
        if found != expected {
            return Err(format!("call {place}: {step:#?}\nthe model: {expected:#?}\nthe store: {found:#?}"));
        }
    }
    for number in 0..BUYERS {
        let key = buyer_of(nth, number);
        let usage = ledger.usage(key).await.map_err(|e| e.to_string())?;
        if usage != model.record(key) {
            return Err(format!("in the end the store keeps {usage:#?}\nthe model: {:#?}", model.record(key)));
        }
    }
    Ok(model)
}

async fn agree<L: Ledger, P: Outbox>(store: &str, ledger: &L, place: &P) {
    let histories = setting("RATIOND_HISTORIES").map_or(HISTORIES, |n| n.parse().unwrap());
    let seed = setting("RATIOND_SEED").map_or_else(RequestId::random, |seed| seed.parse().unwrap());
    println!("{store}: {histories} random histories of up to {STEPS} calls, RATIOND_SEED={seed}");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed.as_bytes().repeat(2));
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let buyers = Arc::new(AtomicU64::new(0));
    let (mut steps, mut outcomes) = (0, std::collections::BTreeSet::new());
    let mut told: Vec<Vec<_>> = vec![Vec::new(); 256];
    let mut lived = 0;
    while lived < histories {
        let batch = AT_ONCE.min(usize::try_from(histories - lived).unwrap());
        let mut trees: Vec<_> = (0..batch).map(|_| history().new_tree(&mut runner).unwrap()).collect();
        let running: Vec<_> = trees
            .iter()
            .map(|tree| {
                let (ledger, draws, nth) = (ledger.clone(), tree.current(), buyers.fetch_add(1, Ordering::Relaxed));
                steps += draws.len();
                (nth, tokio::spawn(async move { live(&ledger, &draws, nth).await }))
            })
            .collect();
        for ((nth, run), tree) in running.into_iter().zip(&mut trees) {
            match run.await.unwrap() {
                Ok(model) => {
                    let partition = (nth & 0xff) as u8;
                    for event in model.told(partition) {
                        outcomes.insert(event["kind"].clone());
                        told[usize::from(partition)].push(event);
                    }
                }
                Err(found) => shrink(ledger, tree, &buyers, found).await,
            }
        }
        lived += batch as u64;
    }
    for partition in 0..=u8::MAX {
        assert_eq!(place.told(partition).await, told[usize::from(partition)], "outbox {partition}");
    }
    println!("{store}: {lived} histories, {steps} calls, no difference; events of kinds {outcomes:?}");
    assert_eq!(outcomes.len(), 6, "the histories reach every kind of event");
}

/// Looks for a shorter history that still differs, and fails with it.
async fn shrink<L: Ledger>(
    ledger: &L,
    tree: &mut impl ValueTree<Value = Vec<Draw>>,
    buyers: &AtomicU64,
    found: String,
) {
    let (mut shortest, mut found) = (tree.current(), found);
    let mut changed = tree.simplify();
    for _ in 0..5_000 {
        if !changed {
            break;
        }
        let draws = tree.current();
        changed = match live(ledger, &draws, buyers.fetch_add(1, Ordering::Relaxed)).await {
            Err(why) => {
                (shortest, found) = (draws, why);
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
    }
    panic!("the shortest history that differs: {shortest:#?}\n{found}");
}

/// A setting of a test run.
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
