//! Replay comes before rules: what was recorded stands when the day, the programme or its file have changed since.

use std::time::Duration;

use rationd::grpc::v1::purchase_result::Outcome;

use super::harness::*;

on_both_stores!(
    a_sale_of_the_last_second_is_the_same_sale_after_midnight,
    what_was_recorded_stands_under_each_refusal_of_the_rules,
    a_reload_is_seen_however_the_file_is_changed_and_replays_stand,
    a_reload_under_which_sales_would_not_be_found_is_refused,
);

async fn a_sale_of_the_last_second_is_the_same_sale_after_midnight(world: World) {
    let service = world.serve("2020-03-09T23:59:59+09:00").await;
    let seller = service.counter(SEJONG).await;
    let visit = Visit::in_person("810305-1000112", 2);
    // The client does not wait for the reply: what it gets is lost.
    let lost = seller.sell(&visit).await;
    let sold_at = at("2020-03-09T23:59:59+09:00");
    for now in ["2020-03-10T00:00:01+09:00", "2020-03-11T10:00:00+09:00", "2020-03-16T00:00:01+09:00"] {
        service.set(now);
        let again = seller.sell(&visit).await;
        assert_eq!((receipt(&again), again.replayed), (receipt(&lost), true), "{now}");
        assert_eq!(instant(receipt(&again).sold_at), sold_at);
    }
    // Nobody else of that year may buy on a Tuesday, nor this person under another id.
    service.set("2020-03-10T00:00:01+09:00");
    assert_eq!(said(&seller.sell(&visit.anew()).await), "NOT_YOUR_DAY");
    assert_eq!(said(&seller.sell(&Visit::in_person(&number("810305", '1', 7), 2)).await), "NOT_YOUR_DAY");
}

/// When and what is sold, and when the rules would refuse it, by which name. The clock may have stepped back.
struct Turn {
    sold: &'static str,
    later: &'static str,
    refusal: &'static str,
    site: &'static str,
    visit: Visit,
}

fn turns() -> Vec<Turn> {
    let turn = |sold, later, refusal, site, visit| Turn { sold, later, refusal, site, visit };
    let pregnant = line(
        resident(&number("920416", '2', 21)),
        2,
        "same_household",
        &["resident_register", "pregnancy_certificate"],
    );
    let foreigner = line(resident(&number("950505", '5', 22)), 2, "", &["alien_registration_card"]);
    let citizen = |serial| Visit::in_person(&number("810305", '1', serial), 2);
    vec![
        turn("2020-03-09T10:00+09:00", "2020-03-10T10:00+09:00", "NOT_YOUR_DAY", SEJONG, citizen(23)),
        turn("2020-03-14T10:00+09:00", "2020-03-10T10:00+09:00", "CHANNEL_NOT_ENROLLED", DAEGU_POST, citizen(24)),
        turn(
            "2020-03-24T10:00+09:00",
            "2020-03-17T10:00+09:00",
            "PROXY_NOT_ALLOWED",
            SEJONG,
            Visit::of(vec![pregnant]).by(1991),
        ),
        turn("2020-04-24T10:00+09:00", "2020-04-17T10:00+09:00", "NOT_ELIGIBLE", SEJONG, Visit::of(vec![foreigner])),
        turn("2020-03-09T10:00+09:00", "2020-03-14T10:00+09:00", "QUOTA_EXHAUSTED", SEJONG, citizen(25)),
        turn("2020-07-07T10:00+09:00", "2020-07-08T10:00+09:00", "NOT_REQUIRED", SEJONG, citizen(26)),
    ]
}

async fn what_was_recorded_stands_under_each_refusal_of_the_rules(world: World) {
    let service = world.serve("2020-03-09T10:00:00+09:00").await;
    let counters = [service.counter(SEJONG).await, service.counter(DAEGU_POST).await];
    for Turn { sold, later, refusal, site, visit } in turns() {
        let seller = counters.iter().find(|counter| counter.site == site).unwrap();
        let buyers: Vec<Visit> = (0..4u32).map(|n| sibling(&visit, n)).collect();
        let [sale, voided, held, released] = buyers.as_slice() else { panic!() };

        service.set(sold);
        let proof = receipt(&seller.sell(sale).await);
        assert_eq!(said(&seller.sell(voided).await), "APPROVED", "{refusal}");
        assert_eq!(said(&seller.void(&voided.known(0)).await.unwrap()), "VOIDED");
        for hold in [held, released] {
            assert_eq!(said(&one(seller.hold(hold, Duration::from_secs(3_600)).await.unwrap())), "HELD");
        }
        assert_eq!(said(&seller.release(&released.known(0)).await.unwrap()), "RELEASED");

        service.set(later);
        let stranger = if refusal == "QUOTA_EXHAUSTED" { sale.anew() } else { sibling(&visit, 9).anew() };
        assert_eq!(said(&seller.sell(&stranger).await), refusal, "the rules say no");
        let again = seller.sell(sale).await;
        assert_eq!(said(&again), "APPROVED", "a recorded sale under {refusal}");
        assert_eq!((receipt(&again), again.replayed), (proof, true));
        let again = seller.sell(voided).await;
        assert!(matches!(again.outcome, Some(Outcome::Voided(_))), "a voided sale under {refusal}: {again:?}");
        let again = one(seller.hold(released, Duration::from_secs(3_600)).await.unwrap());
        assert_eq!(said(&again), "RELEASED", "a hold given back under {refusal}");
        let again = one(seller.hold(held, Duration::from_secs(3_600)).await.unwrap());
        let expected = if at(later) > at(sold) { "HOLD_EXPIRED" } else { "HELD" };
        assert_eq!(said(&again), expected, "a hold under {refusal}");
    }
}

/// The same visit of another person born on the same day.
fn sibling(visit: &Visit, nth: u32) -> Visit {
    use rationd::grpc::v1::buyer::Id;
    let mut sibling = visit.anew();
    for line in &mut sibling.lines {
        let Some(Id::ResidentNumber(own)) = line.buyer.clone().and_then(|buyer| buyer.id) else { panic!() };
        let (birth, century) = (&own[..6], own.chars().nth(6).unwrap());
        line.buyer = resident(&number(birth, century, own[7..12].parse::<u32>().unwrap() + 1_000 * (nth + 1)));
    }
    sibling
}

const GOODS: &str = r#"id = "test-goods"
code = "tg"
title = "Goods of a test"
unit = "piece"
zone = "Asia/Seoul"
buyer_id = "opaque"
max_hold_minutes = 60

[[periods]]
from = 2020-01-01
windows = [{ kind = "week", starts = "mon", units = 2 }]

[[channels]]
from = 2020-01-01
channel = "pharmacy"
"#;

async fn a_reload_is_seen_however_the_file_is_changed_and_replays_stand(world: World) {
    let closed = GOODS.replace("\"pharmacy\"", "\"post_office\"");
    let broken = GOODS.replace("units = 2", "units = 2, unit = 2");
    // The file is a link to a file behind a linked directory, as a mounted ConfigMap has it.
    world.write("mounted/first/goods.toml", GOODS);
    world.write("mounted/second/goods.toml", &closed);
    std::fs::create_dir_all(world.path("policies")).unwrap();
    let (data, link) = (world.path("mounted/data"), world.path("policies/goods.toml"));
    std::os::unix::fs::symlink("first", &data).unwrap();
    std::os::unix::fs::symlink("../mounted/data/goods.toml", &link).unwrap();
    let policies = world.path("policies");
    let service = world.serve_with("2020-03-09T10:00:00+09:00", &[("POLICIES", policies.to_str().unwrap())]).await;
    let seller = service.counter(SEJONG).await;
    let visit = |name: &str| Visit::of(vec![line(opaque(name, "1981-03-05"), 1, "", &[])]).under("test-goods");

    let sale = visit("CARD-1");
    let proof = receipt(&seller.sell(&sale).await);
    let (seller, sale, proof, fresh) = (&seller, &sale, &proof, &visit("CARD-2"));
    let says = |decision: &'static str| async move {
        let took = until(decision, || async { said(&seller.look_up(fresh).await) == decision }).await;
        let again = seller.sell(sale).await;
        assert_eq!(
            (&receipt(&again), again.replayed),
            (proof, true),
            "a recorded sale, now that new ones are {decision}"
        );
        took
    };
    says("MAY_BUY").await;

    // The directory behind the link is swapped, as Kubernetes does it.
    std::os::unix::fs::symlink("second", world.path("mounted/next")).unwrap();
    std::fs::rename(world.path("mounted/next"), &data).unwrap();
    let swapped = says("CHANNEL_NOT_ENROLLED").await;

    // Another file is renamed over it.
    world.write("new.toml", GOODS);
    std::fs::rename(world.path("new.toml"), &link).unwrap();
    let renamed = says("MAY_BUY").await;

    // It is edited in place.
    std::fs::write(&link, &closed).unwrap();
    let edited = says("CHANNEL_NOT_ENROLLED").await;
    println!("reloads on {}: swapped {swapped:?}, renamed {renamed:?}, edited {edited:?}", world.name());

    // A bad file is refused and the old one stays; so does a directory that holds none.
    std::fs::write(&link, &broken).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    says("CHANNEL_NOT_ENROLLED").await;
    std::fs::remove_file(&link).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    says("CHANNEL_NOT_ENROLLED").await;
    world.write("policies/goods.toml", GOODS);
    says("MAY_BUY").await;
}

async fn a_reload_under_which_sales_would_not_be_found_is_refused(world: World) {
    let policies = world.write("policies/goods.toml", GOODS).replace("/goods.toml", "");
    let service = world.serve_with("2020-03-09T10:00:00+09:00", &[("POLICIES", &policies)]).await;
    let seller = service.counter(SEJONG).await;
    let visit = |name: &str| Visit::of(vec![line(opaque(name, "1981-03-05"), 2, "", &[])]).under("test-goods");
    assert_eq!(said(&seller.sell(&visit("CARD-1")).await), "APPROVED");

    // Each of them closes the channel too, which would show at once if it were taken.
    let closed = GOODS.replace("\"pharmacy\"", "\"post_office\"");
    let bad = [
        closed.replace("code = \"tg\"", "code = \"tx\""),
        closed.replace("\"opaque\"", "\"kr_resident\""),
        closed.replace("\"test-goods\"", "\"other-goods\""),
        closed.replace("\"test-goods\"", "\"other-goods\"").replace("code = \"tg\"", "code = \"tx\""),
    ];
    for text in &bad {
        world.write("policies/goods.toml", text);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(said(&seller.look_up(&visit("CARD-2")).await), "MAY_BUY", "{text}");
        assert_eq!(said(&seller.sell(&visit("CARD-1")).await), "QUOTA_EXHAUSTED", "{text}");
    }

    // A new programme beside the old one, with a code of its own, is what the refusal asks for.
    world.write("policies/goods.toml", GOODS);
    world.write("policies/others.toml", &bad[3].replace("post_office", "pharmacy"));
    until("the new programme to sell", || async {
        seller.purchase(&visit("CARD-1").under("other-goods")).await.is_ok()
    })
    .await;
    assert_eq!(said(&seller.sell(&visit("CARD-1")).await), "QUOTA_EXHAUSTED");

    // A longer memory is taken.
    world
        .write("policies/goods.toml", &closed.replace("units = 2 }]", "units = 2 }, { kind = \"month\", units = 9 }]"));
    until("the longer memory", || async { said(&seller.look_up(&visit("CARD-2")).await) == "CHANNEL_NOT_ENROLLED" })
        .await;
}
