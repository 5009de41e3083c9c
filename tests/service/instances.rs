//! Two instances on one Redis whose clocks are half a second apart at the edge of a week, and weeks of a zone with
//! summer time.

use super::harness::*;

const SUNDAY: &str = "2020-03-15T23:59:59.750+09:00";
const MONDAY: &str = "2020-03-16T00:00:00.250+09:00";

/// Two pharmacies, one at each instance.
async fn two_instances(world: &World) -> (Service, Service, Counter, Counter) {
    let (behind, ahead) = (world.serve(SUNDAY).await, world.serve(MONDAY).await);
    let (one, other) = (behind.counter(SEJONG).await, ahead.counter(BOM).await);
    (behind, ahead, one, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_second_apart_at_midnight_nobody_buys_twice_in_a_week() {
    let world = World::redis();
    let (behind, _ahead, sunday, monday) = two_instances(&world).await;

    // The week has begun for the ledger once it was sold in: the instance that is behind is judged by that time.
    let buyer = Visit::in_person(&number("810305", '1', 1), 2);
    assert_eq!(said(&monday.sell(&buyer).await), "APPROVED");
    let refused = sunday.sell(&buyer.anew()).await;
    assert_eq!((said(&refused), units_left(&refused)), ("QUOTA_EXHAUSTED", Some(0)), "this is the new week already");
    let looked_up = sunday.look_up(&buyer).await;
    assert_eq!(said(&looked_up), "QUOTA_EXHAUSTED");

    // Monday is not the day of those born in 1982, so what Sunday alone allowed is refused by the rules of Monday.
    let stranger = Visit::in_person(&number("820305", '1', 2), 2);
    assert_eq!(said(&monday.sell(&stranger).await), "NOT_YOUR_DAY");
    assert_eq!(said(&sunday.sell(&stranger).await), "APPROVED", "nothing was sold on Monday: it is Sunday still");
    assert_eq!(said(&monday.sell(&stranger.anew()).await), "NOT_YOUR_DAY");

    // The other way round, each week is bought in its own; and no third.
    let buyer = Visit::in_person(&number("810305", '1', 3), 2);
    let old_week = sunday.sell(&buyer).await;
    assert_eq!(instant(receipt(&old_week).sold_at), at(SUNDAY));
    let new_week = monday.sell(&buyer.anew()).await;
    assert_eq!(instant(receipt(&new_week).sold_at), at(MONDAY));
    assert_eq!(said(&sunday.sell(&buyer.anew()).await), "QUOTA_EXHAUSTED");
    assert_eq!(said(&monday.sell(&buyer.anew()).await), "QUOTA_EXHAUSTED");
    // The sale is the same sale at either instance; its time is the ledger's.
    let at_the_other = Caller { channel: behind.channel.clone(), ..monday.caller.clone() };
    let elsewhere = Visit::in_person(&number("860305", '1', 4), 2);
    let proof = receipt(&monday.sell(&elsewhere).await);
    let again = at_the_other.sell(&elsewhere).await;
    assert_eq!((receipt(&again), again.replayed), (proof, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_second_apart_at_midnight_races_sell_each_week_once() {
    const BUYERS: u32 = 150;
    let world = World::redis();
    let (_behind, _ahead, sunday, monday) = two_instances(&world).await;
    let (mut both, mut one_only) = (0, 0);
    for serial in 0..BUYERS {
        let visit = Visit::in_person(&number("810305", '1', serial), 2);
        let copies: Vec<Visit> = (0..4).map(|_| visit.anew()).collect();
        let (a, b, c, d) = tokio::join!(
            sunday.sell(&copies[0]),
            monday.sell(&copies[1]),
            sunday.sell(&copies[2]),
            monday.sell(&copies[3])
        );
        let sold: Vec<_> = [&a, &b, &c, &d]
            .into_iter()
            .filter(|answer| said(answer) == "APPROVED")
            .map(|answer| instant(receipt(answer).sold_at))
            .collect();
        let in_the_new = sold.iter().filter(|&&sold_at| sold_at >= at("2020-03-16T00:00:00+09:00")).count();
        assert_eq!(in_the_new, 1, "sold at {sold:?}");
        match sold.len() {
            1 => one_only += 1,
            2 => both += 1,
            _ => panic!("sold at {sold:?}"),
        }
    }
    println!("midnight race: {BUYERS} buyers, {both} bought in both weeks, {one_only} in the new one only");
}

const BERLIN: &str = r#"id = "test-berlin"
code = "tb"
title = "Goods of a test"
unit = "piece"
zone = "Europe/Berlin"
buyer_id = "opaque"
max_hold_minutes = 60

[[periods]]
from = 2020-01-01
windows = [{ kind = "week", starts = "mon", units = 2 }]

[[channels]]
from = 2020-01-01
channel = "pharmacy"
"#;

on_both_stores!(a_week_with_a_change_of_the_clocks_ends_at_midnight_all_the_same);

async fn a_week_with_a_change_of_the_clocks_ends_at_midnight_all_the_same(world: World) {
    world.write("policies/berlin.toml", BERLIN);
    let policies = world.path("policies");
    let settings = [("POLICIES", policies.to_str().unwrap())];
    let service = world.serve_with("2020-03-23T00:00:00+01:00", &settings).await;
    let seller = service.counter(SEJONG).await;
    // Summer time begins on 29 March and ends on 25 October: weeks of 167 and of 169 hours.
    for (card, first, last, next, next_date) in [
        (
            "SPRING",
            "2020-03-23T00:00:00+01:00",
            "2020-03-29T23:59:59.999+02:00",
            "2020-03-30T00:00:00+02:00",
            "2020-03-30",
        ),
        (
            "AUTUMN",
            "2020-10-19T00:00:00+02:00",
            "2020-10-25T23:59:59.999+01:00",
            "2020-10-26T00:00:00+01:00",
            "2020-10-26",
        ),
    ] {
        let visit = Visit::of(vec![line(opaque(card, "1981-03-05"), 2, "", &[])]).under("test-berlin");
        service.set(first);
        assert_eq!(said(&seller.sell(&visit).await), "APPROVED", "{card}");
        service.set(last);
        let refused = seller.sell(&visit.anew()).await;
        assert_eq!((said(&refused), next_date_of(&refused)), ("QUOTA_EXHAUSTED", (next_date, at(next))), "{card}");
        service.set(next);
        assert_eq!(said(&seller.sell(&visit.anew()).await), "APPROVED", "{card}");
    }
}

fn next_date_of(result: &rationd::grpc::v1::PurchaseResult) -> (&str, rationd::time::Timestamp) {
    let chance = result.standing.as_ref().unwrap().next_chance.as_ref().unwrap();
    (&chance.date, instant(chance.at))
}
