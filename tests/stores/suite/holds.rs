//! Holds that run out.

use rationd::ledger::outbox::Outbox;
use rationd::ledger::{Ledger, State};

use super::Bench;
use crate::stores::steps::{Verb, at, call, hold, id, sale, week};

pub async fn an_expired_hold_is_released_by_whoever_passes<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    for (windows, outcome) in [([week(2)], "Recorded"), ([week(1)], "Refused")] {
        let key = bench.buyer();
        bench.says("Held", key, call(2, 2, at(0)), Verb::Claim(hold(1, 10, &[week(2)]))).await;
        bench.says("Held", key, call(1, 1, at(0)), Verb::Claim(hold(1, 11, &[week(2)]))).await;
        let seen = bench.told_since(key, 0).await.len();
        // A replay passes over nothing.
        bench.says("Held", key, call(1, 1, at(10)), Verb::Claim(hold(1, 11, &[week(2)]))).await;
        assert_eq!(bench.model.record(key).find(id(2)).unwrap().state, State::Held);
        // A claim does, whether it fits or not; the live hold stays and counts.
        let two = if outcome == "Recorded" { 1 } else { 2 };
        let reply = bench.says(outcome, key, call(3, 3, at(10)), Verb::Claim(sale(two, &windows))).await;
        let of = |request| reply.record.find(id(request)).copied().unwrap();
        assert_eq!((of(2).state, of(2).mark), (State::Released, at(10)));
        assert_eq!(of(1).state, State::Held);
        let told = bench.told_since(key, seen).await;
        let released: Vec<_> = told.iter().filter(|event| event["kind"] == "released").collect();
        assert_eq!(released.len(), 1);
        assert_eq!((&released[0]["request"], &released[0]["site"]), (&id(2).to_string(), &"site-2".to_owned()));
        // Its own site finds it released, not expired: that has been told.
        bench.says("Released", key, call(2, 2, at(12)), Verb::Claim(hold(1, 10, &[week(2)]))).await;
        bench.says("HoldExpired", key, call(2, 2, at(12)), Verb::Confirm).await;
        let mut retry = hold(1, 11, &[week(2)]);
        retry.stated = "in person".to_owned();
        bench.says("HoldExpired", key, call(1, 1, at(12)), Verb::Claim(retry)).await;
        let told = bench.told_since(key, seen).await;
        assert!(told.iter().all(|event| event["stated"].is_empty()), "what is stated belongs to a purchase");
    }
}

pub async fn a_hold_counts_until_its_last_millisecond<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let one = [week(1)];
    for (now, other, own) in [(at(9), "Refused", "Sold"), (at(10), "Recorded", "HoldExpired")] {
        let key = bench.buyer();
        bench.says("Held", key, call(1, 1, at(0)), Verb::Claim(hold(1, 10, &one))).await;
        bench.says(other, key, call(2, 1, now), Verb::Claim(sale(1, &one))).await;
        let key = bench.buyer();
        bench.says("Held", key, call(1, 1, at(0)), Verb::Claim(hold(1, 10, &one))).await;
        bench.says(own, key, call(1, 1, now), Verb::Confirm).await;
    }
    // Confirmed, it counts at the time it was made, and for ever.
    let key = bench.buyer();
    bench.says("Held", key, call(1, 1, at(0)), Verb::Claim(hold(1, 10, &one))).await;
    let sold = bench.says("Sold", key, call(1, 1, at(9)), Verb::Confirm).await.entry.unwrap();
    assert_eq!((sold.at, sold.mark), (at(0), at(9)));
    bench.says("Refused", key, call(2, 1, at(11)), Verb::Claim(sale(1, &one))).await;
    bench.says("Recorded", key, call(1, 1, at(11)), Verb::Claim(hold(1, 10, &one))).await;
    bench.says("AlreadySold", key, call(1, 1, at(11)), Verb::Release).await;
    bench.says("Voided", key, call(1, 1, at(11)), Verb::Void).await;
}
