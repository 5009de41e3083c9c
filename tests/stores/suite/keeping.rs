//! What is told to the outbox, and what is forgotten.

use std::collections::BTreeSet;

use rationd::ids::ProgrammeCode;
use rationd::ledger::outbox::Outbox;
use rationd::ledger::{Ledger, RecordKey};
use rationd::time::Timestamp;

use super::Bench;
use crate::stores::steps::{DAY, Verb, at, call, hold, id, paper, sale, week};

pub async fn one_event_for_each_change<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let key = bench.buyer();
    let open = [week(99)];
    let mut seen = bench.told_since(key, 0).await.len();
    let mut stated = sale(2, &open);
    stated.stated = "family: resident_register \"1\"\n".to_owned();
    let held = hold(3, 60_000, &open);
    for (verb, request, kind) in [
        (Verb::Claim(stated.clone()), 1, Some("sold")),
        (Verb::Claim(stated.clone()), 1, None),
        (Verb::Resolve, 1, None),
        (Verb::Confirm, 1, None),
        (Verb::Claim(held.clone()), 2, Some("held")),
        (Verb::Claim(held.clone()), 2, None),
        (Verb::Confirm, 2, Some("confirmed")),
        (Verb::Confirm, 2, None),
        (Verb::Release, 2, None),
        (Verb::Claim(held.clone()), 3, Some("held")),
        (Verb::Release, 3, Some("released")),
        (Verb::Void, 3, None),
        (Verb::Void, 1, Some("voided")),
        (Verb::Void, 1, None),
        (Verb::Late(paper(2, at(-9), &open)), 1, None),
        (Verb::Late(paper(2, at(-9), &open)), 4, Some("late")),
        (Verb::Late(paper(2, at(-9), &open)), 4, None),
        (Verb::Claim(sale(1, &[week(0)])), 5, None),
        (Verb::Resolve, 6, None),
    ] {
        bench.ask(key, call(request, 1, at(0)), verb.clone()).await.unwrap();
        let told = bench.told_since(key, seen).await;
        seen += told.len();
        assert_eq!(told.len(), usize::from(kind.is_some()), "{verb:?} of {request}");
        let Some((event, kind)) = told.first().zip(kind) else { continue };
        assert_eq!((event["kind"].as_str(), event["request"].clone()), (kind, id(request).to_string()));
        let mut fields = vec!["at", "kind", "programme", "quantity", "request", "site", "stated", "terminal"];
        if kind == "held" {
            fields.push("until");
            assert_eq!(event["until"], at(60_000).as_millis().to_string());
        }
        // Exactly these: nothing that could name the buyer.
        assert_eq!(event.keys().map(String::as_str).collect::<BTreeSet<_>>(), fields.into_iter().collect());
        assert_eq!(event["stated"], if kind == "sold" { stated.stated.as_str() } else { "" });
    }
}

pub(super) fn in_programme(key: RecordKey, code: &str) -> RecordKey {
    RecordKey { programme: code.parse().unwrap(), ..key }
}

/// Sweeps to the end; returns what was removed in each step.
pub(super) async fn sweep<L: Ledger + Outbox>(bench: &mut Bench<'_, L>, code: &str, before: Timestamp) -> Vec<u64> {
    let programme: ProgrammeCode = code.parse().unwrap();
    let (mut removed, mut from) = (Vec::new(), None);
    loop {
        let step = bench.ledger.sweep(programme, before, from).await.unwrap();
        removed.push(step.removed);
        from = step.next;
        if from.is_none() {
            break;
        }
        assert!(removed.len() < 10_000, "the sweep does not end");
    }
    assert_eq!(removed.iter().sum::<u64>(), bench.model.sweep(programme, before));
    removed
}

pub async fn the_sweep_takes_exactly_what_is_past<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let horizon = at(15 * DAY);
    let key = in_programme(bench.buyer(), "sw");
    let (other, gone) = (in_programme(key, "sw2"), in_programme(bench.buyer(), "sw"));
    // Just before the horizon: one of each. They go, in whatever state they are, but for the hold that lives on.
    let old = at(15 * DAY - 1);
    for key in [key, other] {
        bench.says("Recorded", key, call(1, 1, old), Verb::Claim(sale(1, &[]))).await;
        bench.says("Held", key, call(2, 1, old), Verb::Claim(hold(1, 1, &[]))).await;
        bench.says("Held", key, call(3, 1, old), Verb::Claim(hold(1, 1_000, &[]))).await;
        bench.says("NotRecorded", key, call(5, 1, old), Verb::Resolve).await;
        bench.says("Refused", key, call(6, 1, old), Verb::Claim(sale(1, &[week(0), weekless()]))).await;
        bench.says("Sold", key, call(7, 1, old), Verb::Late(paper(1, at(0), &[]))).await;
        // On the horizon: it stays.
        bench.says("Recorded", key, call(8, 1, horizon), Verb::Claim(sale(1, &[]))).await;
        bench.says("Sold", key, call(9, 1, horizon), Verb::Late(paper(1, horizon, &[]))).await;
        // What is told on the horizon of something older stays as well: its retries are still to come.
        bench.says("Sold", key, call(10, 1, horizon), Verb::Late(paper(1, at(0), &[]))).await;
    }
    bench.says("Recorded", gone, call(1, 1, old), Verb::Claim(sale(1, &[]))).await;
    let untouched = bench.model.record(other);

    let removed = sweep(bench, "sw", horizon).await;
    let left = bench.ledger.usage(key).await.unwrap();
    assert_eq!(left, bench.model.record(key));
    let ids: BTreeSet<_> = left.entries().iter().map(|e| e.request).collect();
    // 2 was written down as released by the claim at the horizon, since it ran out; 3 may still be confirmed.
    assert_eq!(ids, [2, 3, 8, 9, 10].map(id).into_iter().collect());
    assert_eq!(removed.iter().sum::<u64>(), 5);
    assert_eq!(bench.ledger.usage(gone).await.unwrap().entries(), []);
    assert_eq!(bench.ledger.usage(other).await.unwrap(), untouched, "another programme");
    let later = at(15 * DAY + 900);
    bench.says("Sold", key, call(3, 1, later), Verb::Confirm).await;
    bench.says("Voided", key, call(8, 1, later), Verb::Void).await;
    bench.says("Held", key, call(11, 1, later), Verb::Claim(hold(1, 1_000, &[]))).await;
    bench.says("Released", key, call(11, 1, later), Verb::Release).await;
    assert_eq!(sweep(bench, "sw", later).await.iter().sum::<u64>(), 3, "2, 9 and 10");
    let kept = bench.says("Sold", key, call(3, 1, later), Verb::Confirm).await;
    assert!(kept.replayed, "a hold of long ago is kept for the retries of its confirmation");
    assert_eq!(sweep(bench, "sw", at(15 * DAY + 901)).await.iter().sum::<u64>(), 3, "3, 8 and 11");
    assert_eq!(bench.ledger.usage(key).await.unwrap().entries(), []);
    // What was swept is unknown; this is why a client never retries an id from before the horizon.
    bench.says("NotFound", gone, call(1, 1, horizon), Verb::Void).await;
}

/// A window that a sale of one unit never fits.
fn weekless() -> rationd::policy::Window {
    crate::stores::steps::units(Timestamp::EPOCH, Timestamp::NEVER, 0)
}

pub async fn the_sweep_goes_in_bounded_steps<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    const BUYERS: usize = 1_200;
    let keys: Vec<RecordKey> = (0..BUYERS).map(|_| in_programme(bench.buyer(), "sw3")).collect();
    bench.sell_to_all(&keys, |batch| call(1, 1, at((batch % 2) as i64 * DAY))).await;
    let removed = sweep(bench, "sw3", at(1)).await;
    assert!(removed.len() > 1 && removed.iter().all(|step| *step < 1_000), "{removed:?}");
    for key in keys {
        assert_eq!(bench.ledger.usage(key).await.unwrap(), bench.model.record(key));
    }
}
