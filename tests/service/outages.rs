//! Redis away: what the counter is told, and that every id comes to one truth afterwards. Clients that hang up.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rationd::grpc::{PURCHASE_SERVICE, SESSION_SERVICE};
use tokio::task::JoinSet;
use tonic::Code;

use super::harness::*;
use crate::support::lossy::{Loss, LossyRelay};
use crate::support::redis::RedisServer;

/// What a counter may be told while the store is away; all but the last mean that this attempt wrote nothing.
const AWAY: [&str; 3] = ["STORE_UNAVAILABLE", "SESSION_UNCONFIRMED", "COMMIT_UNCONFIRMED"];
/// No counter waits longer than this for an answer, whatever the store does.
const ANSWERED_WITHIN: Duration = Duration::from_millis(3_500);

fn masks(serial: u32) -> Visit {
    Visit::in_person(&number("900101", '1', serial), 1)
}

pub fn signal(server: &RedisServer, signal: &str) {
    assert!(Command::new("kill").args([signal, &server.pid().to_string()]).status().unwrap().success());
}

async fn serving(service: &Service, expected: bool) -> Duration {
    until("health to follow the store", || async {
        let both = (service.is_serving(PURCHASE_SERVICE).await, service.is_serving(SESSION_SERVICE).await);
        assert!(service.is_serving("").await, "the process lives whatever the store does");
        both == (expected, expected)
    })
    .await
}

/// Sells to one buyer after the other while `away` happens, then comes back and finds out what became of each id.
async fn no_sale_is_lost_or_made_twice(
    name: &str,
    world: World,
    away: impl FnOnce(&mut RedisServer),
    back: impl FnOnce(&mut RedisServer),
) {
    const CALLERS: u32 = 8;
    let mut world = world;
    let service = Arc::new(world.serve("2020-06-15T09:00:00+09:00").await);
    serving(&service, true).await;
    let seller = Arc::new(service.counter(SEJONG).await);
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (seller, ended) = (seller.clone(), ended.clone());
        callers.spawn(async move {
            let mut answers = Vec::new();
            for n in 0.. {
                let visit = masks(caller * 1_000 + n);
                let asked = Instant::now();
                let answer = seller.purchase(&visit).await.map(one);
                assert!(asked.elapsed() < ANSWERED_WITHIN, "answered after {:?}: {answer:?}", asked.elapsed());
                let over = ended.load(std::sync::atomic::Ordering::SeqCst);
                if answer.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answers.push((visit, answer));
                if over {
                    break;
                }
            }
            answers
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let redis = world.redis.as_mut().unwrap();
    away(redis);
    let noticed = serving(&service, false).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ended.store(true, std::sync::atomic::Ordering::SeqCst);
    let answers: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let down = told(&seller.check(&masks(0)).await.unwrap_err());
    assert_eq!((down.code, down.reason.as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"), "no store, no answer");
    back(redis);
    let healed = serving(&service, true).await;
    // A session outlives the outage; nobody has to stand in line again.
    until("the session to be confirmed", || async { seller.purchase(&masks(90_000)).await.is_ok() }).await;

    let mut counted: BTreeMap<String, u32> = BTreeMap::new();
    for (nth, (visit, answer)) in answers.iter().enumerate() {
        let known = visit.known(0);
        let first = match answer {
            Ok(result) => {
                assert_eq!(said(result), "APPROVED");
                *counted.entry("APPROVED".into()).or_default() += 1;
                assert_eq!(receipt(&seller.resolve(&known).await.unwrap()), receipt(result), "an acknowledged sale");
                continue;
            }
            Err(status) => told(status),
        };
        assert_eq!(first.code, Code::Unavailable, "{first:?}");
        assert!(first.retry_after.is_some_and(|after| after > Duration::ZERO), "when to come back: {first:?}");
        assert!(AWAY.contains(&first.reason.as_str()), "{first:?}");
        *counted.entry(first.reason.clone()).or_default() += 1;
        if nth % 2 == 0 {
            // Asked what became of it: a call that was said not to be executed was not.
            let resolved = seller.resolve(&known).await.unwrap();
            let again = seller.purchase(visit).await.map(one);
            match said(&resolved) {
                "APPROVED" if first.reason == "COMMIT_UNCONFIRMED" => {
                    assert_eq!(receipt(&again.unwrap()), receipt(&resolved))
                }
                "NOT_RECORDED" => assert_eq!(reason(again, Code::FailedPrecondition), "REQUEST_ID_CLOSED"),
                other => panic!("{first:?} became {other}"),
            }
        } else {
            // Repeated under the same id: one sale, whichever attempt made it.
            let again = seller.sell(visit).await;
            assert!(!again.replayed || first.reason == "COMMIT_UNCONFIRMED", "{first:?} had been executed");
            assert_eq!((said(&again), units_left(&again)), ("APPROVED", Some(2)), "one debit");
            assert_eq!(receipt(&seller.resolve(&known).await.unwrap()), receipt(&again));
        }
    }
    println!("{name}: noticed after {noticed:?}, healed after {healed:?}; {} ids, told {counted:?}", answers.len());
    assert!(counted["APPROVED"] > 0 && counted.len() > 1, "it struck in the middle of selling");
    drop(seller);
    Arc::into_inner(service).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stopped_in_the_middle_of_selling() {
    let back = |redis: &mut RedisServer| signal(redis, "-CONT");
    no_sale_is_lost_or_made_twice("SIGSTOP", World::redis(), |redis| signal(redis, "-STOP"), back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_in_the_middle_of_selling() {
    no_sale_is_lost_or_made_twice("SIGKILL", World::redis(), RedisServer::kill, RedisServer::restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_or_reply_that_is_lost_leaves_one_truth_under_its_id() {
    let world = World::redis();
    let relay = LossyRelay::to(world.redis.as_ref().unwrap().port()).await;
    let url = relay.url();
    let service = world.serve_with("2020-03-09T23:59:59+09:00", &[("STORE", &url)]).await;
    let seller = service.counter(SEJONG).await;
    let buyer = |serial| Visit::in_person(&number("810305", '1', serial), 2);
    let lost = async |visit: &Visit, loss| {
        relay.lose(loss, &["EVALSHA", ":km:"]);
        let told = told(&seller.purchase(visit).await.unwrap_err());
        assert!(relay.has_lost());
        assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "COMMIT_UNCONFIRMED"), "{told:?}");
        assert!(told.message.contains("GetPurchase") && told.retry_after.is_some(), "{told:?}");
    };
    for (serial, loss, truth) in [(1, Loss::Reply, "APPROVED"), (2, Loss::Call, "NOT_RECORDED")] {
        let visit = buyer(serial);
        lost(&visit, loss).await;
        // Nobody needs a session to find out, and the answer stays the same.
        for _ in 0..2 {
            let resolved = seller.without_session().resolve(&visit.known(0)).await.unwrap();
            assert_eq!(said(&resolved), truth, "{loss:?}");
        }
    }
    // Sold in the last second of Monday, the reply lost, repeated on Tuesday, which is not this buyer's day.
    let (recorded, not_recorded) = (buyer(3), buyer(4));
    lost(&recorded, Loss::Reply).await;
    lost(&not_recorded, Loss::Call).await;
    service.set("2020-03-10T00:00:01+09:00");
    let again = seller.sell(&recorded).await;
    assert_eq!((said(&again), again.replayed), ("APPROVED", true));
    assert_eq!(instant(receipt(&again).sold_at), at("2020-03-09T23:59:59+09:00"));
    assert_eq!(said(&seller.sell(&not_recorded).await), "NOT_YOUR_DAY", "it was never sold");

    // The same for the calls that follow a purchase.
    service.set("2020-03-14T10:00:00+09:00");
    for loss in [Loss::Call, Loss::Reply] {
        let visit = buyer(if loss == Loss::Call { 5 } else { 6 });
        assert_eq!(said(&one(seller.hold(&visit, Duration::from_secs(600)).await.unwrap())), "HELD");
        relay.lose(loss, &["EVALSHA", ":km:"]);
        assert_eq!(reason(seller.confirm(&visit.known(0)).await, Code::Unavailable), "COMMIT_UNCONFIRMED");
        let sold = seller.confirm(&visit.known(0)).await.unwrap();
        assert_eq!((said(&sold), sold.replayed), ("APPROVED", loss == Loss::Reply), "{loss:?}");
        relay.lose(loss, &["EVALSHA", ":km:"]);
        assert_eq!(reason(seller.void(&visit.known(0)).await, Code::Unavailable), "COMMIT_UNCONFIRMED");
        let voided = seller.void(&visit.known(0)).await.unwrap();
        assert_eq!((said(&voided), voided.replayed), ("VOIDED", loss == Loss::Reply), "{loss:?}");
    }
}

on_both_stores!(
    a_client_that_hangs_up_leaves_all_or_nothing,
    thousands_of_resets_leave_no_place_taken_and_every_id_resolvable,
    a_visit_goes_on_to_its_end_when_the_client_hangs_up,
);

async fn a_client_that_hangs_up_leaves_all_or_nothing(world: World) {
    const CALLS: u32 = 300;
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let started = Instant::now();
    assert_eq!(said(&seller.sell(&masks(99_999)).await), "APPROVED");
    let usual = started.elapsed();
    let visits: Vec<Visit> = (0..CALLS).map(masks).collect();
    let mut heard = Vec::new();
    for (nth, visit) in (0..CALLS).zip(&visits) {
        // Hung up at every stage of a call, from before it was sent to after it was answered.
        let patience = usual * 2 * nth / CALLS;
        heard
            .push(tokio::time::timeout(patience, seller.purchase(visit)).await.ok().map(|answer| one(answer.unwrap())));
    }
    // Stopping waits for what is under way, and for nothing else.
    drop(seller);
    let stopping = Instant::now();
    service.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(5), "stopped after {:?}", stopping.elapsed());

    let service = world.serve("2020-06-15T10:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let (mut recorded, mut unheard) = (0, 0);
    for (visit, heard) in visits.iter().zip(&heard) {
        let resolved = seller.resolve(&visit.known(0)).await.unwrap();
        // An id that nobody recorded tells nothing of anybody.
        let asked = if resolved.standing.is_none() { seller.look_up(visit).await } else { resolved.clone() };
        let used = 3 - units_left(&asked).unwrap();
        match (said(&resolved), heard) {
            ("APPROVED", heard) => {
                assert_eq!(used, 1);
                assert!(heard.as_ref().is_none_or(|heard| receipt(heard) == receipt(&resolved)));
                recorded += 1;
                unheard += u32::from(heard.is_none());
            }
            ("NOT_RECORDED", None) => assert_eq!(used, 0),
            other => panic!("{other:?}"),
        }
    }
    println!("hanging up on {}: {CALLS} calls, {recorded} recorded, {unheard} of them unheard", world.name());
    assert!(unheard > 0 && unheard < recorded, "hung up too late or too early to show anything");
}

/// Far more resets than there are places: were one in a hundred of them not given back, no call could be made afterwards.
async fn thousands_of_resets_leave_no_place_taken_and_every_id_resolvable(world: World) {
    const CLIENTS: u32 = 8;
    const RESETS: u32 = 400;
    const PLACES: u32 = 32;
    let places = PLACES.to_string();
    let service = world.serve_with("2020-06-15T09:00:00+09:00", &[("MAX_IN_FLIGHT", &places)]).await;
    let seller = Arc::new(service.counter(SEJONG).await);
    let started = Instant::now();
    assert_eq!(said(&seller.sell(&masks(99_999)).await), "APPROVED");
    let usual = started.elapsed();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let seller = seller.clone();
        clients.spawn(async move {
            let mut left = Vec::new();
            for nth in 0..RESETS {
                let visit = masks(client * RESETS + nth);
                // As good as at random, and the same in every run.
                let patience = usual * 3 * (nth * 7_919 % RESETS) / RESETS;
                let heard = tokio::time::timeout(patience, seller.purchase(&visit)).await;
                // Our own end gives a connection up that has seen so many resets: what it carried was not heard.
                let heard = match heard {
                    Ok(Ok(answer)) => said(&one(answer)) == "APPROVED",
                    // What the service itself says has no cause underneath it, and would be a failure.
                    Ok(Err(status)) => {
                        assert!(std::error::Error::source(&status).is_some(), "{status:?}");
                        false
                    }
                    Err(_) => false,
                };
                left.push((visit, heard));
            }
            left
        });
    }
    let left: Vec<(Visit, bool)> = clients.join_all().await.into_iter().flatten().collect();
    // The work of a call that was reset goes on to its end, and has its place until then.
    let begun = Instant::now();
    for round in 0.. {
        let mut calls = JoinSet::new();
        for nth in 0..PLACES {
            let (seller, visit) = (seller.clone(), masks(50_000 + round * PLACES + nth));
            calls.spawn(async move { seller.purchase(&visit).await.map(|answer| said(&one(answer)).to_owned()) });
        }
        let refused = calls.join_all().await.into_iter().filter_map(|answer| match answer {
            Ok(said) => (said != "APPROVED").then_some(said),
            Err(status) => Some(status.to_string()),
        });
        let Some(refused) = refused.last() else { break };
        assert!(begun.elapsed() < Duration::from_secs(10), "not every place is free again: {refused}");
    }
    let (mut recorded, mut reset) = (0, 0);
    for (visit, heard) in &left {
        let resolved = seller.resolve(&visit.known(0)).await.unwrap();
        match said(&resolved) {
            "APPROVED" => recorded += 1,
            "NOT_RECORDED" => assert!(!heard, "a receipt was given for it"),
            other => panic!("{other}"),
        }
        reset += u32::from(!heard);
    }
    println!("resets on {}: {reset} of {} calls, {recorded} recorded all the same", world.name(), left.len());
    assert!(reset > RESETS, "there were resets");
    drop(seller);
    service.stop().await;
}

async fn a_visit_goes_on_to_its_end_when_the_client_hangs_up(world: World) {
    const VISITS: u32 = 40;
    // A Tuesday on which the family of somebody born in a year that ends in 2 may buy.
    let service = world.serve("2020-05-19T10:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let member = |serial| line(resident(&number("820101", '1', serial)), 1, "family", &["family_relation_certificate"]);
    let family = |nth: u32| Visit::of((nth * 16..nth * 16 + 16).map(member).collect()).by(1985);
    let started = Instant::now();
    assert_eq!(all_said(&seller.purchase(&family(VISITS)).await.unwrap()), ["APPROVED"; 16]);
    let usual = started.elapsed();
    let visits: Vec<Visit> = (0..VISITS).map(family).collect();
    let mut unheard = 0;
    for (nth, visit) in (0..VISITS).zip(&visits) {
        let patience = usual * nth / VISITS;
        unheard += u32::from(tokio::time::timeout(patience, seller.purchase(visit)).await.is_err());
    }
    drop(seller);
    service.stop().await;

    let service = world.serve("2020-05-19T11:00:00+09:00").await;
    let seller = service.caller(SEJONG, "w1");
    let mut whole = 0;
    for visit in &visits {
        let mut became = Vec::new();
        for nth in 0..visit.lines.len() {
            became.push(said(&seller.resolve(&visit.known(nth)).await.unwrap()));
        }
        // Once begun, every line is tried: nobody finds half a family served and the rest never asked for.
        assert!(became == ["APPROVED"; 16] || became == ["NOT_RECORDED"; 16], "{became:?}");
        whole += u32::from(became[0] == "APPROVED");
    }
    println!("hanging up on {}: {VISITS} visits of 16 lines, {unheard} unheard, {whole} sold whole", world.name());
    assert!(unheard > VISITS / 4 && whole > 0, "hung up too late or too early to show anything");
}
