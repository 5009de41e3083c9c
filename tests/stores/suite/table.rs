//! Every cell of the table: each state of an entry under each verb.

use rationd::ledger::outbox::Outbox;
use rationd::ledger::{Ledger, LedgerError, RecordKey};

use super::Bench;
use crate::stores::model::{row, rows};
use crate::stores::steps::{Verb, at, call, hold, id, paper, sale, week};

/// How long the holds of the table last, ms.
const HOLD_MS: u64 = 60_000;
/// The columns, by a letter each.
const VERBS: [char; 6] = ['c', 'f', 'r', 'v', 'l', 's'];

/// The ways into a row: what is done before, and whether the claim was a hold.
const WAYS: [(&str, &str, bool); 13] = [
    ("absent", "sale", false),
    ("absent", "hold", true),
    ("absent", "too much", false),
    ("SOLD", "claimed", false),
    ("SOLD", "a confirmed hold", true),
    ("SOLD", "on paper", false),
    ("HELD, live", "", true),
    ("HELD, expired", "", true),
    ("RELEASED", "given back", true),
    ("RELEASED", "run out", true),
    ("VOIDED", "", false),
    ("REFUSED", "", false),
    ("CLOSED", "", false),
];

pub async fn every_cell<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    for wanted in rows() {
        assert!(WAYS.iter().any(|(row, ..)| *row == wanted), "{wanted} is never reached");
    }
    for (wanted, way, held) in WAYS {
        for verb in VERBS {
            // A late entry, and the first judgement, both with and without room in the windows.
            for room in [9, 0] {
                let key = bench.buyer();
                prepare(bench, key, wanted, way).await;
                let now = if wanted == "HELD, expired" { at(HOLD_MS as i64) } else { at(HOLD_MS as i64 - 1) };
                let before = bench.model.record(key);
                assert_eq!(row(before.find(id(1)), now), wanted, "{way}");
                let windows = [week(room)];
                let verb = match verb {
                    'c' if held => Verb::Claim(hold(2, HOLD_MS, &windows)),
                    'c' => Verb::Claim(sale(2, &windows)),
                    'f' => Verb::Confirm,
                    'r' => Verb::Release,
                    'v' => Verb::Void,
                    'l' => Verb::Late(paper(2, at(-5_000), &windows)),
                    _ => Verb::Resolve,
                };
                let first = bench.ask(key, call(1, 1, now), verb.clone()).await;
                let after = bench.model.record(key);
                match &first {
                    Ok(first) => assert_eq!(first.replayed, before == after, "replayed means unchanged: {first:?}"),
                    Err(error) => assert_eq!((error, wanted), (&LedgerError::RequestIdClosed, "CLOSED")),
                }
                // The same call again changes nothing more and gives the same entry, unless a hold has run out between.
                let again = bench.ask(key, call(1, 1, now), verb.clone()).await;
                assert_eq!(bench.model.record(key), after, "{wanted} {verb:?} twice");
                if let (Ok(first), Ok(again)) = (first, again) {
                    assert!(again.replayed, "{wanted} {verb:?} twice");
                    assert_eq!(again.entry, first.entry, "the same receipt");
                }
            }
        }
    }
}

async fn prepare<L: Ledger + Outbox>(bench: &mut Bench<'_, L>, key: RecordKey, row: &str, way: &str) {
    let (open, first) = ([week(9)], call(1, 1, at(0)));
    match row {
        "absent" => {}
        "SOLD" if way == "on paper" => {
            bench.says("Sold", key, first, Verb::Late(paper(2, at(-9_000), &open))).await;
        }
        "SOLD" if way == "claimed" => {
            bench.says("Recorded", key, first, Verb::Claim(sale(2, &open))).await;
        }
        "VOIDED" => {
            bench.says("Recorded", key, first, Verb::Claim(sale(2, &open))).await;
            bench.says("Voided", key, call(1, 1, at(10)), Verb::Void).await;
        }
        "REFUSED" => {
            bench.says("Refused", key, first, Verb::Claim(sale(2, &[week(1)]))).await;
        }
        "CLOSED" => {
            bench.says("NotRecorded", key, first, Verb::Resolve).await;
        }
        _ => {
            let span = if way == "run out" { 5 } else { HOLD_MS };
            bench.says("Held", key, first, Verb::Claim(hold(2, span, &open))).await;
            match (row, way) {
                ("SOLD", _) => drop(bench.says("Sold", key, call(1, 1, at(10)), Verb::Confirm).await),
                ("RELEASED", "run out") => drop(bench.says("Released", key, call(1, 1, at(10)), Verb::Resolve).await),
                ("RELEASED", _) => drop(bench.says("Released", key, call(1, 1, at(10)), Verb::Release).await),
                _ => {}
            }
        }
    }
}
