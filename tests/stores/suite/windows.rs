//! What counts, in which window, and by which time.

use rationd::ledger::outbox::Outbox;
use rationd::ledger::{Claim, Ledger};
use rationd::policy::Window;
use rationd::time::Timestamp;

use super::Bench;
use crate::stores::steps::{DAY, Verb, at, call, hold, paper, sale, units, week};

pub async fn two_windows_check_all_then_write_all<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let today = |max| units(at(0), at(DAY), max);
    for (windows, outcome) in [
        ([today(3), week(10)], "Recorded"),
        ([today(2), week(10)], "Refused"),
        ([today(10), week(2)], "Refused"),
        ([week(2), today(10)], "Refused"),
        ([today(2), week(2)], "Refused"),
    ] {
        let key = bench.buyer();
        let reply = bench.says(outcome, key, call(1, 1, at(0)), Verb::Claim(sale(3, &windows))).await;
        // What was refused used up nothing of either.
        let left = if outcome == "Refused" { [today(3), week(3)] } else { [today(6), week(6)] };
        bench.says("Recorded", key, call(2, 1, at(0)), Verb::Claim(sale(3, &left))).await;
        bench.says("Refused", key, call(3, 1, at(0)), Verb::Claim(sale(1, &left))).await;
        assert_eq!(reply.record.entries().len(), 1);
    }
    // Without any window everything goes; the most units there are do not overflow.
    let key = bench.buyer();
    bench.says("Recorded", key, call(1, 1, at(0)), Verb::Claim(sale(u32::MAX, &[]))).await;
    bench.says("Recorded", key, call(2, 1, at(0)), Verb::Claim(sale(u32::MAX, &[]))).await;
    bench.says("Refused", key, call(3, 1, at(0)), Verb::Claim(sale(1, &[week(u32::MAX)]))).await;
}

pub async fn purchases_are_counted<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let key = bench.buyer();
    let twice = [Window { max_units: None, max_purchases: Some(2), ..week(0) }];
    bench.says("Recorded", key, call(1, 1, at(0)), Verb::Claim(sale(500, &twice))).await;
    bench.says("Held", key, call(2, 1, at(0)), Verb::Claim(hold(500, 10, &twice))).await;
    bench.says("Refused", key, call(3, 1, at(0)), Verb::Claim(sale(1, &twice))).await;
    // The hold is no purchase any more once it has run out; the refusal never was one.
    bench.says("Recorded", key, call(4, 1, at(10)), Verb::Claim(sale(1, &twice))).await;
    bench.says("Refused", key, call(5, 1, at(10)), Verb::Claim(sale(1, &twice))).await;
    // Both limits in one window.
    let key = bench.buyer();
    let both = [Window { max_units: Some(3), max_purchases: Some(2), ..week(0) }];
    bench.says("Recorded", key, call(1, 1, at(0)), Verb::Claim(sale(3, &both))).await;
    bench.says("Refused", key, call(2, 1, at(0)), Verb::Claim(sale(1, &both))).await;
    let none = [Window { max_units: None, max_purchases: Some(0), ..week(0) }];
    let key = bench.buyer();
    bench.says("Refused", key, call(1, 1, at(0)), Verb::Claim(sale(1, &none))).await;
}

pub async fn boundaries_are_exact_to_the_millisecond<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let (from, until) = (1_000, 2_000);
    for (sold, counts) in [(from - 1, false), (from, true), (until - 1, true), (until, false)] {
        let key = bench.buyer();
        bench.says("Recorded", key, call(1, 1, at(sold)), Verb::Claim(sale(1, &[]))).await;
        let window = [units(at(from), at(until), 1)];
        let outcome = if counts { "Refused" } else { "Recorded" };
        bench.says(outcome, key, call(2, 1, at(until)), Verb::Claim(sale(1, &window))).await;
        // The same on paper, whose own time makes no difference.
        let late = bench.says("Sold", key, call(3, 2, at(until)), Verb::Late(paper(1, at(from), &window))).await;
        assert_eq!(late.entry.unwrap().over, counts);
    }
    // A rolling window has no upper end: what a clock ahead has dated later counts too.
    let key = bench.buyer();
    bench.says("Recorded", key, call(1, 1, at(10 * DAY)), Verb::Claim(sale(1, &[]))).await;
    let rolling = [units(at(3 * DAY), Timestamp::NEVER, 1)];
    bench.says("Refused", key, call(2, 1, at(10 * DAY)), Verb::Claim(sale(1, &rolling))).await;
    let rolling = [units(at(10 * DAY + 1), Timestamp::NEVER, 1)];
    bench.says("Recorded", key, call(3, 1, at(10 * DAY + 1)), Verb::Claim(sale(1, &rolling))).await;
}

pub async fn a_void_credits_the_window_of_the_sale<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let key = bench.buyer();
    let (first, second) = (units(at(0), at(7 * DAY), 2), units(at(7 * DAY), at(14 * DAY), 2));
    bench.says("Recorded", key, call(1, 1, at(0)), Verb::Claim(sale(2, &[first]))).await;
    bench.says("Recorded", key, call(2, 1, at(8 * DAY)), Verb::Claim(sale(2, &[second]))).await;
    let voided = bench.says("Voided", key, call(1, 1, at(9 * DAY)), Verb::Void).await;
    assert_eq!(voided.entry.map(|e| (e.at, e.mark)), Some((at(0), at(9 * DAY))), "by whom and when it was");
    // The second week is as full as before; the first has room again, for paper of that week.
    bench.says("Refused", key, call(3, 1, at(9 * DAY)), Verb::Claim(sale(1, &[second]))).await;
    let late = bench.says("Sold", key, call(4, 1, at(9 * DAY)), Verb::Late(paper(2, at(DAY), &[first]))).await;
    assert!(!late.entry.unwrap().over);
    // A voided sale asked for again has no receipt.
    bench.says("Voided", key, call(1, 1, at(9 * DAY)), Verb::Claim(sale(2, &[first]))).await;
    bench.says("Voided", key, call(1, 1, at(9 * DAY)), Verb::Resolve).await;
}

pub async fn paper_is_within_or_over<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let over = |reply: crate::stores::steps::Reply| reply.entry.unwrap().over;
    let key = bench.buyer();
    bench.says("Recorded", key, call(1, 1, at(0)), Verb::Claim(sale(2, &[week(2)]))).await;
    assert!(over(bench.says("Sold", key, call(2, 1, at(0)), Verb::Late(paper(1, at(-9), &[week(2)]))).await));
    assert!(over(bench.says("Sold", key, call(3, 1, at(0)), Verb::Late(paper(1, at(-9), &[week(9), week(3)]))).await));
    assert!(!over(bench.says("Sold", key, call(4, 1, at(0)), Verb::Late(paper(1, at(-9), &[week(5)]))).await));
    // It counts like any other sale, over or not.
    bench.says("Refused", key, call(5, 1, at(0)), Verb::Claim(sale(1, &[week(5)]))).await;
    bench.says("Recorded", key, call(6, 1, at(0)), Verb::Claim(sale(1, &[week(6)]))).await;
    // A hold that was sold on paper: its own units are not in its way.
    let key = bench.buyer();
    bench.says("Held", key, call(1, 1, at(0)), Verb::Claim(hold(2, 60_000, &[week(2)]))).await;
    let sold = bench.says("Sold", key, call(1, 1, at(9)), Verb::Late(paper(2, at(5), &[week(2)]))).await;
    let entry = sold.entry.unwrap();
    assert!(entry.late && !entry.over && entry.at == at(5) && entry.mark == at(9));
    bench.says("Recorded", key, call(1, 1, at(9)), Verb::Claim(hold(2, 60_000, &[week(2)]))).await;
    // Other holds are in its way while they live, and refused first means over whatever the room.
    let key = bench.buyer();
    bench.says("Held", key, call(1, 1, at(0)), Verb::Claim(hold(2, 10, &[week(2)]))).await;
    bench.says("Refused", key, call(2, 1, at(0)), Verb::Claim(sale(1, &[week(2)]))).await;
    assert!(over(bench.says("Sold", key, call(3, 1, at(9)), Verb::Late(paper(1, at(5), &[week(2)]))).await));
    assert!(!over(bench.says("Sold", key, call(4, 1, at(10)), Verb::Late(paper(1, at(5), &[week(2)]))).await));
    assert!(over(bench.says("Sold", key, call(2, 1, at(10)), Verb::Late(paper(1, at(5), &[week(99)]))).await));
}

pub async fn time_never_goes_back<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let key = bench.buyer();
    let open = [week(99)];
    bench.says("Recorded", key, call(1, 1, at(1_000)), Verb::Claim(sale(1, &open))).await;
    // The clock was set back, or another instance's is behind.
    let behind = bench.says("Recorded", key, call(2, 1, at(400)), Verb::Claim(sale(1, &open))).await;
    assert_eq!((behind.at, behind.entry.unwrap().at), (at(1_000), at(1_000)));
    let held = bench.says("Held", key, call(3, 1, at(400)), Verb::Claim(hold(1, 50, &open))).await;
    assert_eq!(held.entry.unwrap().held_until(), Some(at(1_050)));
    // Refusals and closed ids are online entries as well.
    let refused = bench.says("Refused", key, call(4, 1, at(1_010)), Verb::Claim(sale(1, &[week(0)]))).await;
    assert_eq!(refused.at, at(1_010));
    assert_eq!(bench.says("NotRecorded", key, call(5, 1, at(1_020)), Verb::Resolve).await.at, at(1_020));
    assert_eq!(bench.says("Recorded", key, call(1, 1, at(0)), Verb::Resolve).await.at, at(1_020));
    // The time of a paper sale is data: not even one from tomorrow moves the ledger's time.
    bench.says("Sold", key, call(6, 1, at(1_030)), Verb::Late(paper(1, at(DAY), &open))).await;
    assert_eq!(bench.says("Recorded", key, call(7, 1, at(1_031)), Verb::Claim(sale(1, &open))).await.at, at(1_031));
    // Nor does a confirmation or a void: they do not change when a claim counts.
    bench.says("Sold", key, call(3, 1, at(1_040)), Verb::Confirm).await;
    bench.says("Voided", key, call(1, 1, at(1_045)), Verb::Void).await;
    assert_eq!(bench.says("Recorded", key, call(8, 1, at(0)), Verb::Claim(sale(1, &open))).await.at, at(1_031));
}

pub async fn stale_windows_are_not_judged<L: Ledger + Outbox>(bench: &mut Bench<'_, L>) {
    let until = |good_until| Verb::Claim(Claim { good_until, ..sale(1, &[week(99)]) });
    let key = bench.buyer();
    bench.says("Held", key, call(9, 1, at(0)), Verb::Claim(hold(1, 10, &[week(99)]))).await;
    let reply = bench.says("AssessAgain", key, call(1, 1, at(100)), until(at(100))).await;
    assert!(!reply.replayed && reply.at == at(100));
    assert_eq!(reply.record.entries().len(), 1, "not even the hold that has run out is touched");
    bench.says("Recorded", key, call(1, 1, at(99)), until(at(100))).await;
    // A retry after the boundary is told what became of the id, not to assess again.
    assert!(bench.says("Recorded", key, call(1, 1, at(5_000)), until(at(100))).await.replayed);
    // It is the ledger's time that decides, not the clock that is behind.
    let reply = bench.says("AssessAgain", key, call(2, 1, at(0)), until(at(99))).await;
    assert_eq!(reply.at, at(99));
}
