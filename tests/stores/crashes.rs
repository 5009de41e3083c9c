//! Killed under load, restarted, and asked about every sale that was acknowledged: none may be missing, and what nobody
//! can say must turn out to be one of the two, for good.
//!
//! `RATIOND_KILLS` says how often each store is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rationd::ids::RequestId;
use rationd::ledger::embedded::EmbeddedLedger;
use rationd::ledger::{Health, Ledger, LedgerError, State};

use tokio::task::JoinSet;

use super::disk::{Disk, Fate};
use super::histories::setting;
use super::places::{self, terms};
use super::steps::{Reply, Step, Verb, at, buyer, call, sale, week};
use super::workers;
use crate::support::workers::say;

const KILLS: u64 = 8;
/// Sellers at work at the same time.
const SELLERS: u64 = 32;

fn kills() -> u64 {
    setting("RATIOND_KILLS").map_or(KILLS, |n| n.parse().unwrap())
}

/// Up to so many milliseconds, at random.
fn random_moment(most_ms: u64) -> Duration {
    let random = RequestId::random();
    let low = u64::from(u16::from_le_bytes([random.as_bytes()[0], random.as_bytes()[1]]));
    Duration::from_millis(low % most_ms)
}

fn sell_to(number: u64) -> Step {
    Step { key: buyer(number), call: call(1, number % 7, at(0)), verb: Verb::Claim(sale(2, &[week(2)])) }
}

fn void_of(number: u64) -> Step {
    Step { verb: Verb::Void, ..sell_to(number) }
}

/// What the killed process does: sells to one new buyer after another, takes every fourth sale back, and says so each
/// time the ledger has.
pub async fn sell(directory: &str, from: u64) {
    let ledger = EmbeddedLedger::open(Path::new(directory), &terms()).unwrap();
    let next = Arc::new(AtomicU64::new(from));
    let mut sellers = JoinSet::new();
    for _ in 0..SELLERS {
        let (ledger, next) = (ledger.clone(), Arc::clone(&next));
        sellers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                assert_eq!(sell_to(number).ask(&ledger).await.unwrap().outcome, "Recorded");
                say(&format!("sold {number}"));
                if number.is_multiple_of(4) {
                    assert_eq!(void_of(number).ask(&ledger).await.unwrap().outcome, "Voided");
                    say(&format!("voided {number}"));
                }
            }
        });
    }
    sellers.join_all().await;
}

#[tokio::test]
async fn embedded_keeps_what_it_acknowledged_through_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<u64, State> = BTreeMap::new();
    let (mut identity, mut from, mut unheard) = (None, 0, 0);
    for _ in 0..kills() {
        let mut worker = workers::start(&format!("sell {} {from}", directory.path().display()));
        std::thread::sleep(Duration::from_millis(20) + random_moment(400));
        worker.kill();
        let mut last = from;
        while let Some(said) = worker.hear() {
            let (what, number) = said.split_once(' ').unwrap();
            let number = number.parse().unwrap();
            acknowledged.insert(number, if what == "sold" { State::Sold } else { State::Voided });
            last = last.max(number);
        }
        let ledger = EmbeddedLedger::open(directory.path(), &terms()).unwrap();
        let Health::Serving(id) = ledger.health() else { panic!("it serves again") };
        assert_eq!(*identity.get_or_insert(id), id, "the same ledger");
        // Sales under way when the process died may be there or not, but whole.
        let until = last + 2 * SELLERS;
        for number in from..until {
            let record = ledger.usage(buyer(number)).await.unwrap();
            if record.entries().len() == 1 && !acknowledged.contains_key(&number) {
                unheard += 1;
            }
            assert!(record.entries().len() <= 1);
        }
        from = until;
        for (number, state) in &acknowledged {
            let found = ledger.usage(buyer(*number)).await.unwrap().entries().first().map(|e| e.state);
            let also = if number.is_multiple_of(4) { State::Voided } else { State::Sold };
            assert!(found == Some(*state) || found == Some(also), "buyer {number}: {state:?} became {found:?}");
        }
        drop(ledger);
    }
    let (ledger, mut events) =
        (EmbeddedLedger::open(directory.path(), &terms()).unwrap(), BTreeMap::<String, u64>::new());
    for partition in 0..=u8::MAX {
        for event in places::told(&ledger, partition).await {
            *events.entry(event["kind"].clone()).or_insert(0) += 1;
        }
    }
    let total = acknowledged.len() as u64 + unheard;
    assert_eq!(events.get("sold").copied().unwrap_or(0), total, "as many events as sales");
    println!(
        "embedded: {} kills, {} sales acknowledged, 0 lost; {unheard} recorded unheard",
        kills(),
        acknowledged.len()
    );
    assert!(!acknowledged.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_what_it_acknowledged_through_kill_9() {
    let (ledger, mut place) = places::redis().await;
    let (mut from, mut sold, mut unknown) = (0, 0, BTreeMap::<&str, u64>::new());
    for _ in 0..kills() {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(from));
        let answers = Arc::new(Mutex::new(BTreeMap::<u64, Result<Reply, LedgerError>>::new()));
        let sellers: Vec<_> = (0..SELLERS)
            .map(|_| {
                let (ledger, next) = (ledger.clone(), Arc::clone(&next));
                let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let answer = sell_to(number).ask(&ledger).await;
                        let gone = answer.is_err();
                        answers.lock().unwrap().insert(number, answer);
                        if gone {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20) + random_moment(200)).await;
        place.kill();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.store(true, Ordering::Relaxed);
        for seller in sellers {
            seller.await.unwrap();
        }
        place.restart(&ledger).await;
        let answers = std::mem::take(&mut *answers.lock().unwrap());
        for (number, answer) in &answers {
            let record = ledger.usage(buyer(*number)).await.unwrap();
            match answer {
                Ok(reply) => {
                    assert_eq!(record.entries(), reply.record.entries(), "buyer {number}");
                    sold += 1;
                }
                Err(LedgerError::Unconfirmed(_)) => {
                    *unknown.entry(resolves_to_one_truth(&ledger, *number).await).or_insert(0) += 1;
                }
                Err(error) => assert_eq!(record.entries(), [], "{error} means that nothing was written"),
            }
        }
        from = next.load(Ordering::Relaxed);
    }
    println!("redis: {} kills, {sold} sales acknowledged, 0 lost; unknown outcomes resolved: {unknown:?}", kills());
    assert!(sold > 0);
}

/// Asks what became of an id, and insists that it stays so whatever is tried afterwards.
async fn resolves_to_one_truth<L: Ledger>(ledger: &L, number: u64) -> &'static str {
    let resolve = Step { verb: Verb::Resolve, ..sell_to(number) };
    let truth = resolve.ask(ledger).await.unwrap().outcome;
    let retried = sell_to(number).ask(ledger).await.map(|reply| (reply.outcome, reply.replayed));
    match truth {
        "Recorded" => assert_eq!(retried, Ok(("Recorded", true))),
        _ => assert_eq!((truth, retried), ("NotRecorded", Err(LedgerError::RequestIdClosed))),
    }
    assert_eq!(resolve.ask(ledger).await.unwrap().outcome, truth);
    truth
}

/// The power goes at every sync in turn, and with it all, none or a part of what was not synced.
#[tokio::test]
async fn embedded_survives_power_cuts_at_every_sync() {
    let born = Disk::default();
    drop(EmbeddedLedger::open_with_backend(born.clone(), &terms()).unwrap());
    let mut cuts = BTreeMap::<&str, u64>::new();
    let (mut acknowledged, mut unknown_there, mut unknown_gone) = (0, 0, 0);
    for (name, fate) in [("none", Fate::Lost), ("all", Fate::Kept), ("a part", Fate::Torn)] {
        for cut in 1.. {
            let disk = born.survivor();
            disk.cut_at(cut, fate);
            let answers = sell_until_dark(&disk).await;
            if !disk.is_dark() {
                assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
                break;
            }
            *cuts.entry(name).or_insert(0) += 1;
            let ledger = EmbeddedLedger::open_with_backend(disk.survivor(), &terms()).unwrap();
            let mut events = BTreeSet::new();
            for partition in 0..=u8::MAX {
                events.extend(places::told(&ledger, partition).await.into_iter().map(|event| (partition, event)));
            }
            for (number, answer) in &answers {
                let step = sell_to(*number);
                let record = ledger.usage(step.key).await.unwrap();
                let told = events.iter().filter(|(partition, _)| *partition == step.key.buyer.partition).count();
                assert_eq!(told, record.entries().len(), "the event and the record stand or fall together");
                match answer {
                    Ok(reply) => {
                        assert_eq!(record, reply.record, "acknowledged, cut {cut}, unsynced {name}");
                        acknowledged += 1;
                    }
                    Err(LedgerError::Unconfirmed(_)) if told == 1 => unknown_there += 1,
                    Err(LedgerError::Unconfirmed(_)) => unknown_gone += 1,
                    Err(LedgerError::StoreUnavailable(_)) => assert_eq!(told, 0, "nothing was written"),
                    Err(other) => panic!("{other}"),
                }
                // Whatever it was, the same id is one sale in the end.
                let again = step.ask(&ledger).await.unwrap();
                assert_eq!((again.outcome, again.replayed), ("Recorded", told == 1));
            }
        }
    }
    println!(
        "embedded: power cut at every sync, unsynced writes surviving {cuts:?}; {acknowledged} acknowledged, 0 lost; \
         unconfirmed: {unknown_there} there, {unknown_gone} gone"
    );
    assert!(cuts.values().all(|cuts| *cuts >= 10));
}

/// Groups of four sales until the power goes or the day ends; every answer.
async fn sell_until_dark(disk: &Disk) -> Vec<(u64, Result<Reply, LedgerError>)> {
    let Ok(ledger) = EmbeddedLedger::open_with_backend(disk.clone(), &terms()) else { return Vec::new() };
    let mut answers = Vec::new();
    for group in 0..12 {
        let asked: Vec<_> = (0..4)
            .map(|place| {
                let (number, ledger) = (group * 4 + place, ledger.clone());
                tokio::spawn(async move { (number, sell_to(number).ask(&ledger).await) })
            })
            .collect();
        for answer in asked {
            answers.push(answer.await.unwrap());
        }
    }
    if answers.iter().any(|(_, answer)| answer.is_err()) {
        assert!(matches!(ledger.health(), Health::NotServing(_)), "closed for good");
    }
    answers
}

/// Nothing leaves before its sync, not even an answer that wrote nothing itself but shares the group; and what waits is
/// bounded.
#[tokio::test]
async fn embedded_answers_after_the_sync_and_queues_so_much() {
    let disk = Disk::default();
    let ledger = EmbeddedLedger::open_with_backend(disk.clone(), &terms()).unwrap();
    assert_eq!(sell_to(0).ask(&ledger).await.unwrap().outcome, "Recorded");
    disk.stall(true);
    let mut waiting = Vec::new();
    let mut turned_away = 0;
    // The group under way, what may queue, and some more than that; among them many that only ask again.
    for number in 1..=5_000 {
        let (step, ledger) = (sell_to(number % 1_000), ledger.clone());
        waiting.push(tokio::spawn(async move { step.ask(&ledger).await }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for answer in waiting.iter_mut().filter(|answer| answer.is_finished()) {
        assert_eq!(answer.await.unwrap(), Err(LedgerError::Overloaded), "the only answer before the sync");
        turned_away += 1;
    }
    assert!((400..=904).contains(&turned_away), "{turned_away} of 5000 were turned away");
    assert_eq!(ledger.usage(buyer(1)).await.unwrap().entries(), [], "what is not synced is not seen");
    disk.stall(false);
    waiting.retain(|answer| !answer.is_finished());
    let mut recorded = BTreeMap::new();
    for answer in waiting {
        match answer.await {
            Ok(answer) => *recorded.entry(answer.unwrap().replayed).or_insert(0) += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!("embedded: {turned_away} of 5000 turned away while the disk stood still; replayed: {recorded:?}");
    // Every buyer but the first is new, and asked for more than once.
    assert_eq!(recorded[&false], 999);
}
