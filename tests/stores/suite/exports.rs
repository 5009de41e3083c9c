//! The records of a programme, read one step after the other.

use std::collections::HashMap;

use rationd::buyer::BuyerKey;
use rationd::ids::ProgrammeCode;
use rationd::ledger::outbox::Outbox;
use rationd::ledger::{Ledger, Record, RecordKey};

use super::Bench;
use super::keeping::{in_programme, sweep};
use crate::stores::steps::{DAY, Verb, at, call, sale, turn};

/// One step: what it gave, and where the next one begins.
async fn step<L: Ledger>(
    ledger: &L,
    programme: ProgrammeCode,
    from: Option<Vec<u8>>,
) -> (Vec<(BuyerKey, Record)>, Option<Vec<u8>>) {
    let step = ledger.export(programme, from).await.unwrap();
    assert!(step.records.len() < 1_000, "a step is bounded: {}", step.records.len());
    let readable = |(buyer, record): (BuyerKey, Option<Record>)| (buyer, record.expect("a record that can be read"));
    (step.records.into_iter().map(readable).collect(), step.next)
}

pub async fn an_export_gives_what_usage_says<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    // Names that one finds by looking for the other.
    for code in ["e", "ex", "exx"] {
        let key = in_programme(bench.buyer(), code);
        bench.says("Recorded", key, call(1, 1, at(0)), Verb::Claim(sale(1, &[]))).await;
        bench.says("Recorded", in_programme(key, "ex1"), call(2, 1, at(0)), Verb::Claim(sale(2, &[]))).await;
    }
    let mut programmes = bench.model.programmes();
    assert!(programmes.len() >= 5, "{programmes:?}");
    programmes.insert("none".parse().unwrap());
    let (mut most_steps, mut read) = (0, 0);
    for programme in programmes {
        let (mut found, mut from, mut steps) = (HashMap::new(), None, 0);
        loop {
            let (records, next) = step(bench.ledger, programme, from).await;
            for (buyer, record) in records {
                assert_eq!(bench.ledger.usage(RecordKey { programme, buyer, turn: turn() }).await.unwrap(), record);
                assert_eq!(found.insert(buyer, record), None, "nothing moves: nothing is given twice");
            }
            (from, steps) = (next, steps + 1);
            if from.is_none() {
                break;
            }
        }
        assert_eq!(found, bench.model.records(programme), "{programme}");
        (most_steps, read) = (most_steps.max(steps), read + found.len());
    }
    assert!(most_steps > 2 && read > 600, "{most_steps} steps, {read} records");
}

/// The store grows and shrinks while it is read: Redis moves its keys then, and redb its pages.
pub async fn what_stands_still_is_exported_while_others_come_and_go<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let programme: ProgrammeCode = "mov".parse().unwrap();
    let mut some = |count: usize, code: &str| -> Vec<RecordKey> {
        (0..count).map(|_| in_programme(bench.buyer(), code)).collect()
    };
    let (still, moving, mut coming) = (some(1_000, "mov"), some(100, "mov"), some(3_000, "mov"));
    let crowd = some(3_000, "crow");
    for keys in [&still, &moving, &crowd] {
        bench.sell_to_all(keys, |_| call(1, 1, at(0))).await;
    }
    let (mut given, mut from, mut steps) = (HashMap::<BuyerKey, Vec<Record>>::new(), None, 0);
    loop {
        let (records, next) = step(bench.ledger, programme, from).await;
        for (buyer, record) in records {
            given.entry(buyer).or_default().push(record);
        }
        (from, steps) = (next, steps + 1);
        if from.is_none() {
            break;
        }
        match steps {
            1 | 2 => bench.sell_to_all(&coming.split_off(coming.len() / 2), |_| call(1, 1, at(0))).await,
            3 => assert_eq!(sweep(bench, "crow", at(DAY)).await.iter().sum::<u64>(), 3_000),
            _ => {
                for (request, key) in (100 + steps..).zip(&moving) {
                    bench.says("Recorded", *key, call(request, 1, at(0)), Verb::Claim(sale(1, &[]))).await;
                }
            }
        }
    }
    assert!(steps > 4, "{steps} steps");
    for key in &still {
        let given = given.get(&key.buyer).map(Vec::as_slice).unwrap_or_default();
        assert!(!given.is_empty(), "one that stood still was left out");
        assert!(given.iter().all(|record| *record == bench.model.record(*key)));
    }
    for key in &moving {
        let given = given.get(&key.buyer).expect("one that was there all the time");
        assert!(given.iter().all(|record| record.entries().len() <= bench.model.record(*key).entries().len()));
    }
    let twice = given.values().filter(|records| records.len() > 1).count();
    println!("  {} records exported in {steps} steps, {twice} of them more than once", given.len());
}
