//! What an id is tied to: its content, its site, and the room for ids in a record.

use rationd::ledger::outbox::Outbox;
use rationd::ledger::{DEAD_ENTRIES_PER_SITE, Ledger, LedgerError, RecordKey};

use super::Bench;
use crate::stores::steps::{Verb, at, call, hold, id, paper, sale, week};

/// One id in each state that an entry can be in: 1 sold, 2 held, 3 released, 4 voided, 5 refused, 6 closed; all of site 1
/// and, but for the last, of 2 units. Odd claims and the fourth were sales, the others holds.
async fn one_of_each<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) -> RecordKey {
    let key = bench.buyer();
    let open = [week(99)];
    bench.says("Recorded", key, call(1, 1, at(0)), Verb::Claim(sale(2, &open))).await;
    bench.says("Held", key, call(2, 1, at(0)), Verb::Claim(hold(2, 60_000, &open))).await;
    bench.says("Held", key, call(3, 1, at(0)), Verb::Claim(hold(2, 60_000, &open))).await;
    bench.says("Released", key, call(3, 1, at(0)), Verb::Release).await;
    bench.says("Recorded", key, call(4, 1, at(0)), Verb::Claim(sale(2, &open))).await;
    bench.says("Voided", key, call(4, 1, at(0)), Verb::Void).await;
    bench.says("Refused", key, call(5, 1, at(0)), Verb::Claim(sale(2, &[week(1)]))).await;
    bench.says("NotRecorded", key, call(6, 1, at(0)), Verb::Resolve).await;
    key
}

pub async fn other_content_is_an_error<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let key = one_of_each(bench).await;
    let open = [week(99)];
    let now = at(1);
    for request in 1..=6 {
        let was_hold = [2, 3].contains(&request);
        let claim = |quantity, as_hold: bool| {
            Verb::Claim(if as_hold { hold(quantity, 60_000, &open) } else { sale(quantity, &open) })
        };
        let error = || if request == 6 { LedgerError::RequestIdClosed } else { LedgerError::RequestIdReused };
        bench.fails(error(), key, call(request, 1, now), claim(3, was_hold)).await;
        bench.fails(error(), key, call(request, 2, now), claim(2, was_hold)).await;
        bench.fails(error(), key, call(request, 1, now), claim(2, !was_hold)).await;
        if request != 6 {
            bench.fails(error(), key, call(request, 1, now), Verb::Late(paper(3, at(-9), &open))).await;
            bench.fails(error(), key, call(request, 2, now), Verb::Late(paper(2, at(-9), &open))).await;
            // The windows, the length of the hold and the terminal are not its content.
            let same = if was_hold { hold(2, 5, &[]) } else { sale(2, &[]) };
            assert!(bench.ask(key, call(request, 1, now), Verb::Claim(same)).await.unwrap().replayed);
        }
    }
    // The scope of an id is the buyer: another's is another id.
    let other = bench.buyer();
    bench.says("Recorded", other, call(1, 2, now), Verb::Claim(sale(3, &open))).await;
}

pub async fn another_site_is_told_nothing<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let key = one_of_each(bench).await;
    // Live at first, and then run out: not even that is written down for another site.
    for now in [at(1), at(60_000)] {
        for request in 1..=6 {
            for verb in [Verb::Confirm, Verb::Release, Verb::Void, Verb::Resolve] {
                let before = bench.model.record(key);
                let reply = bench.says("NotYours", key, call(request, 2, now), verb).await;
                assert_eq!((reply.entry, reply.record), (None, before));
            }
        }
    }
}

pub async fn dead_entries_are_bounded<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let key = bench.buyer();
    let (open, shut) = ([week(99)], [week(0)]);
    // What counts is not dead, however much of it there is.
    for request in 100..120 {
        bench.says("Recorded", key, call(request, 1, at(0)), Verb::Claim(sale(1, &open))).await;
    }
    bench.says("Held", key, call(1, 1, at(0)), Verb::Claim(hold(1, 10, &open))).await;
    for request in 2..=DEAD_ENTRIES_PER_SITE as u64 {
        bench.says("Refused", key, call(request, 1, at(0)), Verb::Claim(sale(1, &shut))).await;
    }
    // Fifteen are dead; the hold is the sixteenth from its last millisecond on.
    bench.says("Recorded", key, call(50, 1, at(9)), Verb::Claim(sale(1, &open))).await;
    for verb in [
        Verb::Claim(sale(1, &open)),
        Verb::Claim(hold(1, 10, &open)),
        Verb::Confirm,
        Verb::Release,
        Verb::Void,
        Verb::Resolve,
    ] {
        bench.fails(LedgerError::BuyerRecordFull, key, call(51, 1, at(10)), verb).await;
    }
    // What is known still answers, another site has room of its own, and paper is never turned away.
    bench.says("Refused", key, call(2, 1, at(10)), Verb::Claim(sale(1, &open))).await;
    bench.says("Recorded", key, call(100, 1, at(10)), Verb::Resolve).await;
    bench.says("Recorded", key, call(52, 2, at(10)), Verb::Claim(sale(1, &open))).await;
    bench.says("Sold", key, call(53, 1, at(10)), Verb::Late(paper(1, at(-9), &open))).await;
    assert!(bench.model.record(key).find(id(51)).is_none());
}
