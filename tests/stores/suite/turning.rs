//! The key ring turns in the middle of a purchase, and nobody sees it.

use std::time::Duration;

use rationd::buyer::{OtherRing, Side, Turn};
use rationd::ledger::outbox::Outbox;
use rationd::ledger::{Call, Kept, Ledger, LedgerError, RecordKey};

use super::Bench;
use crate::stores::steps::{Reply, Step, Verb, at, beside, call, hold, kept, paper, ring, sale, turned, week};

/// Makes the call in a turn of the ring; insists on what the model says, which knows of none, and on this outcome.
async fn says<L: Ledger + Outbox>(
    bench: &mut Bench<'_, L>,
    turn: Turn,
    outcome: &str,
    key: RecordKey,
    call: Call,
    verb: Verb,
) -> Reply {
    let step = Step { key, call, verb };
    let expected = bench.model.ask(&step);
    let found = Step { key: turned(key, turn), ..step.clone() }.ask(bench.ledger).await;
    assert_eq!(found, expected, "{step:?}");
    assert_eq!(bench.ledger.usage(turned(key, turn)).await.unwrap(), bench.model.record(key), "after {step:?}");
    bench.calls += 1;
    let found = found.unwrap();
    assert_eq!(found.outcome, outcome, "{step:?}");
    found
}

/// Runs last: from here on the ledger is written under the second key.
pub async fn a_turn_of_the_ring_shows_nowhere<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let windows = [week(5)];
    let (first, prepared, second) = (Turn::at(ring(1)), beside(1, Side::Next), beside(2, Side::Previous));
    let (one, two, still) = (bench.buyer(), bench.buyer(), bench.buyer());
    let one_hold = || Verb::Claim(hold(1, 60_000, &windows));
    for key in [one, two, still] {
        says(bench, first, "Recorded", key, call(1, 1, at(0)), Verb::Claim(sale(2, &windows))).await;
        // Some instances have the prepared key file, some not yet: both write under the first key.
        says(bench, prepared, "Held", key, call(2, 1, at(1)), one_hold()).await;
        says(bench, first, "Held", key, call(3, 1, at(2)), one_hold()).await;
        says(bench, prepared, "NotRecorded", key, call(4, 1, at(3)), Verb::Resolve).await;
        says(bench, first, "Refused", key, call(5, 1, at(4)), Verb::Claim(sale(2, &windows))).await;
    }
    bench.ledger.turn(second, kept(0)).await.unwrap();

    // What only reads finds it where it was, under either key file; then it goes over with the first write.
    for _ in 0..2 {
        for reader in [prepared, second] {
            let usage = bench.ledger.usage(turned(one, reader)).await.unwrap();
            assert_eq!(usage, bench.model.record(one), "{reader:?}");
        }
        let sold = says(bench, second, "Recorded", one, call(1, 1, at(5)), Verb::Claim(sale(2, &windows))).await;
        assert!(sold.replayed, "a request id of before the turn");
        says(bench, second, "Refused", one, call(6, 1, at(6)), Verb::Claim(sale(2, &windows))).await;
        says(bench, second, "Refused", one, call(5, 1, at(6)), Verb::Claim(sale(2, &windows))).await;
    }
    says(bench, second, "Sold", one, call(2, 1, at(7)), Verb::Confirm).await;
    says(bench, second, "Released", one, call(3, 1, at(8)), Verb::Release).await;
    says(bench, second, "NotRecorded", one, call(4, 1, at(9)), Verb::Resolve).await;
    says(bench, second, "Recorded", one, call(7, 1, at(9)), Verb::Claim(sale(2, &windows))).await;
    says(bench, second, "Voided", two, call(1, 1, at(10)), Verb::Void).await;
    says(bench, second, "Recorded", two, call(8, 1, at(11)), Verb::Claim(sale(3, &windows))).await;
    let late = Verb::Late(paper(1, at(12), &windows));
    assert!(says(bench, second, "Sold", two, call(9, 1, at(12)), late).await.entry.unwrap().over);

    // Nobody writes under the ring that was left, whatever is asked, and nothing changes.
    for (stale, said) in [
        (prepared, OtherRing::Behind { ours: 1, theirs: 2 }),
        (first, OtherRing::FarBehind { ours: 1, theirs: 2 }),
        (Turn::at(ring(3)), OtherRing::FarAhead { ours: 3, theirs: 2 }),
        (beside(4, Side::Previous), OtherRing::FarAhead { ours: 4, theirs: 2 }),
    ] {
        for (request, verb) in [
            (20, Verb::Claim(sale(1, &[]))),
            (1, Verb::Claim(sale(2, &windows))),
            (2, Verb::Confirm),
            (3, Verb::Release),
            (8, Verb::Void),
            (21, Verb::Late(paper(1, at(12), &windows))),
            (22, Verb::Resolve),
        ] {
            for key in [one, two, still] {
                let step = Step { key: turned(key, stale), call: call(request, 1, at(13)), verb: verb.clone() };
                assert_eq!(step.ask(bench.ledger).await, Err(LedgerError::OtherRing(said)), "{step:?}");
                assert_eq!(bench.ledger.usage(turned(key, second)).await.unwrap(), bench.model.record(key), "{step:?}");
            }
        }
        let read = bench.ledger.usage(turned(one, stale)).await;
        match stale {
            _ if stale == prepared => assert_eq!(read.unwrap(), bench.model.record(one)),
            _ => assert_eq!(read, Err(LedgerError::OtherRing(said))),
        }
    }

    // Each buyer has one record, whichever key it stands under, and the sweep takes from both.
    let (mut found, mut from) = (Vec::new(), None);
    loop {
        let step = bench.ledger.export(one.programme, from).await.unwrap();
        found.extend(step.records.into_iter().filter(|(buyer, _)| {
            [one, two, still].iter().any(|key| [first, second].iter().any(|turn| turned(*key, *turn).buyer == *buyer))
        }));
        from = step.next;
        if from.is_none() {
            break;
        }
    }
    let expected = [(one, second), (two, second), (still, first)];
    assert_eq!(found.len(), expected.len());
    for (key, turn) in expected {
        assert!(found.contains(&(turned(key, turn).buyer, Some(bench.model.record(key)))), "{turn:?}");
    }

    // The previous key is forgotten when nothing that stands under it is needed any more, and not before.
    let until = kept(15).now;
    for (without, days, said) in [
        (Turn::at(ring(2)), 14, OtherRing::StillNeeded { ours: 2, until }),
        (beside(2, Side::Next), 14, OtherRing::StillNeeded { ours: 2, until }),
        (prepared, 99, OtherRing::Behind { ours: 1, theirs: 2 }),
        (Turn::at(ring(3)), 99, OtherRing::FarAhead { ours: 3, theirs: 2 }),
    ] {
        assert_eq!(bench.ledger.turn(without, kept(days)).await, Err(LedgerError::OtherRing(said)));
    }
    bench.ledger.turn(Turn::at(ring(2)), kept(16)).await.unwrap();
    // A programme that comes later and keeps purchases longer does not bring it back.
    let longer = Kept { length: Duration::from_secs(99 * 86_400), ..kept(16) };
    bench.ledger.turn(Turn::at(ring(2)), longer).await.unwrap();
}
