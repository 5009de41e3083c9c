//! Streams under pressure: clients that hang up, do not read or ask for everything at once, and a service that stops.

use std::collections::BTreeMap;
use std::time::Duration;

use rationd::grpc::v1::{self, purchase_stream_request::Call};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::harness::*;
use super::outages::signal;
use super::stream::{Stream, is_sold, masks};

on_both_stores!(
    what_was_read_is_finished_when_the_client_hangs_up,
    a_client_that_does_not_read_is_read_no_further,
    a_greedy_stream_keeps_no_other_waiting,
    a_stop_answers_what_was_read_and_reads_no_more,
);

const MONDAY: &str = "2020-06-15T09:00:00+09:00";

async fn what_was_read_is_finished_when_the_client_hangs_up(world: World) {
    const VISITS: u32 = 100;
    // A Tuesday on which the family of somebody born in a year that ends in 2 may buy.
    let service = world.serve("2020-05-19T10:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let member = |serial| line(resident(&number("820101", '1', serial)), 1, "family", &["family_relation_certificate"]);
    // Four lines each, two of them for the same people as the next visit's: not everybody can get all they ask for.
    let family = |nth: u32| Visit::of((nth * 2..nth * 2 + 4).map(member).collect()).by(1985);
    let visits: Vec<Visit> = (0..VISITS).map(family).collect();
    let mut heard = BTreeMap::new();
    let mut stream = Stream::open(&seller).await;
    stream.sell_all(&visits).await.unwrap();
    // All of them are on their way; the client is gone as soon as it has heard the first answers.
    while heard.len() < 3 {
        let answer = stream.next().await.unwrap().unwrap();
        heard.insert(answer.call_id, answer);
    }
    drop(stream);
    drop(seller);
    service.stop().await;

    let service = world.serve("2020-05-19T11:00:00+09:00").await;
    let site = service.caller(SEJONG, "w1");
    let (mut sold, mut unheard) = (0, 0);
    let mut units = BTreeMap::<String, u32>::new();
    for (nth, visit) in (0..).zip(&visits) {
        let mut became = Vec::new();
        for line in 0..visit.lines.len() {
            let resolved = site.resolve(&visit.known(line)).await.unwrap();
            let Some(v1::buyer::Id::ResidentNumber(buyer)) = visit.lines[line].buyer.clone().unwrap().id else {
                panic!()
            };
            *units.entry(buyer).or_default() += u32::from(said(&resolved) == "APPROVED");
            became.push(said(&resolved));
        }
        // Once begun, every line is tried.
        let begun = became.iter().all(|said| ["APPROVED", "QUOTA_EXHAUSTED"].contains(said));
        assert!(begun || became == ["NOT_RECORDED"; 4], "{nth}: {became:?}");
        sold += u32::from(begun);
        match heard.get(&nth) {
            Some(answer) => assert_eq!(all_said(&answer.results), became),
            None => unheard += u32::from(begun),
        }
    }
    assert!(units.values().all(|units| *units <= 3), "{units:?}");
    println!("hanging up on {}: {VISITS} visits on a stream, {sold} done, {unheard} of them unheard", world.name());
    assert!(unheard > 0, "hung up too late to show anything");
}

/// How many of these have been sold, without changing anything.
async fn sold(service: &Service, visits: &[Visit]) -> usize {
    let mut lookers = JoinSet::new();
    for part in visits.chunks(visits.len().div_ceil(3)) {
        let (looker, part) = (service.caller(BOM, "looker"), part.to_vec());
        lookers.spawn(async move {
            let mut sold = 0;
            for visit in &part {
                let looked = loop {
                    match looker.check(visit).await {
                        Ok(results) => break one(results),
                        Err(status) => assert!(told(&status).retry_after.is_some(), "{status:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                };
                sold += usize::from(units_left(&looked) == Some(2));
            }
            sold
        });
    }
    lookers.join_all().await.into_iter().sum()
}

async fn a_client_that_does_not_read_is_read_no_further(world: World) {
    const CALLS: usize = 1_000;
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let visits: Vec<Visit> = (0..1_000).map(masks).collect();
    // What the client's own buffers would take is not what is asked about here.
    let endpoint = Endpoint::from_shared(service.address()).unwrap().initial_stream_window_size(4 * 1024);
    let idle = Caller { channel: endpoint.connect().await.unwrap(), ..seller.caller.clone() };
    let stream = Stream::open(&idle).await;
    stream.sell_all(&visits);
    let mut answers = stream.no_more();
    // To look at all of them takes long, and who has read nothing for some seconds is cut off.
    let every_tenth: Vec<Visit> = visits.iter().step_by(10).cloned().collect();
    let stood_at = loop {
        let before = sold(&service, &every_tenth).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if before > 0 && sold(&service, &every_tenth).await == before {
            break 10 * before;
        }
    };
    // What is pending, and the one frame that HTTP/2 holds back for the client.
    println!("not reading on {}: some {stood_at} of {CALLS} were sold", world.name());
    assert!(stood_at < 700, "{stood_at}");
    let mut answered = [0; 2];
    while let Some(answer) = answers.message().await.unwrap() {
        answered[usize::from(is_sold(answer))] += 1;
    }
    assert_eq!(answered.iter().sum::<usize>(), CALLS, "all of them once it reads");
    assert_eq!(sold(&service, &visits).await, answered[1]);
}

async fn a_greedy_stream_keeps_no_other_waiting(world: World) {
    const QUEUED: u32 = 10_000;
    let service = world.serve(MONDAY).await;
    let (greedy, modest) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let mut stream = Stream::open(&greedy).await;
    let asking = stream.sell_all(&(0..QUEUED).map(masks).collect::<Vec<_>>());
    stream.next().await.unwrap().expect("much to answer");
    let mut lone = Stream::open(&modest).await;
    let (mut overtaken, mut sold_alone) = (0, 0);
    for call_id in 0..5 {
        let visit = masks(QUEUED + u32::try_from(call_id).unwrap());
        lone.ask(call_id, Call::Purchase(visit.purchase())).await;
        loop {
            tokio::select! {
                biased;
                answer = lone.answers.message() => {
                    let answer = answer.unwrap().unwrap();
                    assert_eq!(answer.call_id, call_id);
                    sold_alone += u32::from(is_sold(answer));
                    break;
                }
                answer = stream.answers.message() => {
                    is_sold(answer.unwrap().expect("it still has much to ask"));
                    overtaken += 1;
                }
            }
        }
    }
    println!("fairness on {}: {overtaken} answers to the greedy one while the other got 5, one by one", world.name());
    assert!(!asking.is_finished(), "the greedy one had its calls taken before their turn");
    assert!(overtaken < 5_000 && sold_alone > 0, "{overtaken}, {sold_alone}");
}

async fn a_stop_answers_what_was_read_and_reads_no_more(world: World) {
    const CALLS: u32 = 5_000;
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let visits: Vec<Visit> = (0..CALLS).map(masks).collect();
    let mut stream = Stream::open(&seller).await;
    let asking = stream.sell_all(&visits);
    let mut answered = vec![false; visits.len()];
    let mut take = |answer: v1::PurchaseStreamResponse| {
        let call = usize::try_from(answer.call_id).unwrap();
        answered[call] = is_sold(answer);
    };
    for _ in 0..300 {
        take(stream.next().await.unwrap().unwrap());
    }
    drop(seller);
    let mut answers = stream.no_more();
    let (rest, ()) = tokio::join!(
        async {
            let mut rest = 0;
            while let Some(answer) = answers.message().await.expect("a good end") {
                take(answer);
                rest += 1;
            }
            rest
        },
        service.stop()
    );
    asking.await.unwrap();
    drop(answers);

    let service = world.serve("2020-06-15T10:00:00+09:00").await;
    let site = service.caller(SEJONG, "w1");
    let count = answered.iter().filter(|answered| **answered).count();
    println!("stopping on {}: {count} of {CALLS} sold, {rest} of them after the stop began", world.name());
    assert!(rest > 0 && count < visits.len(), "stopped too early or too late to show anything");
    let mut resolving = JoinSet::new();
    for (answered, visit) in answered.into_iter().zip(visits) {
        let site = site.clone();
        let known = visit.known(0);
        if resolving.len() >= 64 {
            resolving.join_next().await.unwrap().unwrap();
        }
        resolving.spawn(async move {
            // What was answered with a receipt stands, and nothing was begun that was not answered.
            let expected = if answered { "APPROVED" } else { "NOT_RECORDED" };
            assert_eq!(said(&site.resolve(&known).await.unwrap()), expected);
        });
    }
    while let Some(resolved) = resolving.join_next().await {
        resolved.unwrap();
    }
}

/// Whether the store was given up on this call.
fn waited_in_vain(answer: &v1::PurchaseStreamResponse) -> bool {
    answer.failure.as_ref().is_some_and(|failure| failure.code == i32::from(tonic::Code::Unavailable))
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_together_leave_room_for_calls_by_themselves() {
    let world = World::redis();
    let service = world.serve_with(MONDAY, &[("MAX_IN_FLIGHT", "8")]).await;
    let (seller, other) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let mut streams = [Stream::open(&seller).await, Stream::open(&seller).await];
    // The store stands still for half a second, which it may for a whole one; a machine that is busier than that shows nothing.
    let mut rounds = (0..5).map(|round| round * 1_000);
    let (visits, first, alone) = loop {
        let buyers = rounds.next().expect("a round in which the store was not waited for in vain");
        let fresh = [buyers + 100, buyers + 101, buyers + 102];
        // The lanes' connections have just been used, so that nothing is asked of the store but what is counted here.
        let warm: Vec<_> = fresh.iter().map(|buyer| masks(*buyer)).collect();
        for visit in &warm {
            assert_eq!(said(&seller.sell(visit).await), "APPROVED");
        }
        let visits: Vec<Visit> = (buyers..buyers + 20).map(masks).collect();
        let redis = world.redis.as_ref().unwrap();
        signal(redis, "-STOP");
        for (stream, visits) in streams.iter_mut().zip(visits.chunks(10)) {
            stream.sell_all(visits).await.unwrap();
        }
        // Eight calls wait for the store; the others wait for a place, and are told to come back when there is none in time.
        let (mut first, mut missing) = (Vec::new(), [10, 10]);
        let [left, right] = &mut streams;
        while first.len() < 12 {
            let (of, answer) = tokio::select! {
                answer = left.next() => (0, answer),
                answer = right.next() => (1, answer),
            };
            missing[of] -= 1;
            first.push(answer.unwrap().unwrap());
        }
        // Calls by themselves have places of their own.
        let (one_more, another) = (masks(buyers + 200), masks(buyers + 201));
        let alone = async { tokio::join!(other.purchase(&one_more), other.purchase(&another)) };
        let resumed = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            signal(redis, "-CONT");
        };
        let (alone, ()) = tokio::join!(alone, resumed);
        let mut rest = Vec::new();
        for (stream, missing) in streams.iter_mut().zip(missing) {
            for _ in 0..missing {
                rest.push(stream.next().await.unwrap().unwrap());
            }
        }
        if !first.iter().chain(&rest).any(waited_in_vain) {
            assert!(rest.into_iter().all(is_sold));
            break (visits, first, alone);
        }
        until("the store to be back", || async { seller.purchase(&masks(buyers + 300)).await.is_ok() }).await;
    };
    for answer in first {
        let failure = answer.failure.expect("too much");
        assert_eq!((failure.reason.as_str(), failure.outcome_unknown), ("OVERLOADED", false));
        assert!(failure.retry_after.is_some_and(|after| after.seconds > 0), "{failure:?}");
    }
    assert_eq!([said(&one(alone.0.unwrap())), said(&one(alone.1.unwrap()))], ["APPROVED"; 2]);
    assert_eq!(sold(&service, &visits).await, 8, "what was shed was not recorded");
    // And the streams live on.
    streams[1].ask(99, Call::Purchase(visits[19].purchase())).await;
    assert_eq!(said(&one(streams[1].answer(99).await.unwrap())), "APPROVED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_the_store_holds_up_no_other() {
    let world = World::redis();
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let mut stream = Stream::open(&seller).await;
    let redis = world.redis.as_ref().unwrap();
    // The store stands still for as long as the refusal takes; on a machine so busy that the store was given up meanwhile,
    // nothing is shown.
    for warm in (0..80).step_by(2) {
        until("the store to be back", || async { seller.purchase(&masks(warm)).await.is_ok() }).await;
        signal(redis, "-STOP");
        stream.ask(1, Call::Purchase(masks(warm + 1).purchase())).await;
        stream.ask(2, Call::Purchase(Visit::in_person("1", 1).purchase())).await;
        let first = stream.next().await.unwrap().unwrap();
        signal(redis, "-CONT");
        let second = stream.next().await.unwrap().unwrap();
        if ![&first, &second].into_iter().any(waited_in_vain) {
            assert_eq!((first.call_id, first.failure.unwrap().reason.as_str()), (2, "INVALID_REQUEST"), "it overtakes");
            assert_eq!((second.call_id, said(&one(second.results))), (1, "APPROVED"));
            return;
        }
    }
    panic!("the store was waited for in vain each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_the_time_of_a_call() {
    let world = World::embedded();
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let mut stream = Stream::open(&seller).await;
    for (call_id, pause) in [(1, 0), (2, 12_500), (3, 0)] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stream.ask(call_id, Call::Purchase(masks(u32::try_from(call_id).unwrap()).purchase())).await;
        assert_eq!(said(&one(stream.answer(call_id).await.unwrap())), "APPROVED");
    }
}
