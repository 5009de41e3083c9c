//! A client that insists: it repeats a call as it stands, within its budget and no sooner than it is told, so that an outage is
//! not made worse and a short one not noticed.

use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;

use super::service::{Service, signal};
use super::shops::{SATURDAY, SITES, get, number, purchase, sell};
use crate::support::redis::RedisServer;

/// Of a full outage.
const OUTAGE: Duration = Duration::from_secs(10);
const CALLS: u64 = 100;

/// How many calls of this method the service has answered, whatever it answered.
fn answered(service: &Service, method: &str) -> u64 {
    let of_method = format!("/{method}\"");
    let page = service.metrics();
    let counts = page.lines().filter(|line| line.starts_with("rpc_server_call_duration_seconds_count"));
    counts
        .filter(|line| line.contains(&of_method))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_sees_a_tenth_more_attempts_than_calls_and_a_short_one_is_not_noticed() {
    let mut redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let service = Service::start(directory.path(), &["--store", &redis.url(), "--clock", SATURDAY], &[]);
    service.await_health(0);
    let (terminal, session) = service.session(SITES[0], "insists").await;
    sell(&session, &number(0), 1, RequestId::random()).await.unwrap();

    redis.kill();
    let (before, begun) = (answered(&service, "GetPurchase"), Instant::now());
    let mut calls = Vec::new();
    for nth in 0..CALLS {
        let terminal = terminal.clone();
        calls.push(tokio::spawn(async move {
            let asked = get(&number(nth), RequestId::random());
            terminal.insist(OUTAGE.saturating_sub(begun.elapsed()), || terminal.resolve(asked.clone())).await
        }));
        tokio::time::sleep(OUTAGE * 9 / 10 / u32::try_from(CALLS).unwrap()).await;
    }
    for call in calls {
        assert!(call.await.unwrap().is_err(), "there is no store");
    }
    let attempts = answered(&service, "GetPurchase") - before;
    println!("{CALLS} calls in {:?} without a store: {attempts} attempts", begun.elapsed());
    assert!(attempts > CALLS, "something was repeated");
    assert!(attempts * 10 <= CALLS * 11, "{attempts} attempts");
    redis.restart();
    service.await_health(0);

    // Frozen for a moment, for a client of many calls: the outcome is unknown at first, and known when the same call is made
    // again.
    let (terminal, session) = service.session(SITES[1], "sells").await;
    for nth in 0..50 {
        let asked = get(&number(nth), RequestId::random());
        terminal.insist(OUTAGE, || terminal.resolve(asked.clone())).await.unwrap();
    }
    signal(redis.pid(), "STOP");
    let thaws = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        signal(redis.pid(), "CONT");
    };
    let id = RequestId::random();
    let seat = session.seat();
    let (sold, ()) = tokio::join!(seat.insist(purchase(&number(7), 1, id), Duration::from_secs(20)), thaws);
    let sold = sold.unwrap().results.remove(0).outcome.unwrap();
    assert!(matches!(sold, Outcome::Approved(_)), "{sold:?}");
    tokio::task::block_in_place(|| service.stop());
}
