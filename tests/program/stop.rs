//! SIGTERM: in order, in bounded time, and with nothing recorded that was not answered.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rationd::grpc::PURCHASE_SERVICE;
use rationd::grpc::v1::{Agent, Ended, SessionEnd, open_session_response::Event, purchase_result::Outcome};
use rationd::ids::RequestId;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::service::{Service, signal};
use super::shops::{MANY_SEATS, SATURDAY, SITES, number, purchase, resolve, sell};
use crate::support::redis::RedisServer;

const TERMINALS: usize = 10;

/// What a terminal sold, and what it could not know.
type Sold = Vec<(u64, RequestId, bool)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_what_is_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start(directory.path(), &["--clock", SATURDAY], &[MANY_SEATS]);
    let next = Arc::new(AtomicU64::new(0));
    let mut sellers = Vec::new();
    for place in 0..TERMINALS {
        let (terminal, mut session) = service.session(SITES[place % SITES.len()], &format!("t{place}")).await;
        let next = next.clone();
        let selling = async move {
            let mut sold: Sold = Vec::new();
            loop {
                let (who, id) = (next.fetch_add(1, Ordering::Relaxed), RequestId::random());
                let answer = sell(&session, &number(who), 1, id).await;
                sold.push((who, id, answer.is_ok()));
                if answer.is_err() {
                    break;
                }
            }
            let told = session.events.message().await.unwrap().unwrap().event.unwrap();
            drop(terminal);
            (place, sold, told)
        };
        sellers.push(tokio::spawn(selling));
    }
    // A probe that watches, on the listener of the probes.
    let channel = Endpoint::from_shared(format!("http://{}", service.admin)).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    let request = HealthCheckRequest { service: PURCHASE_SERVICE.into() };
    let mut watched = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = Instant::now();
    service.ask_to_stop();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop((watched, health));
    let mut sold = BTreeMap::new();
    for seller in sellers {
        let (place, sales, told) = seller.await.unwrap();
        assert_eq!(
            told,
            Event::Ended(Ended { why: SessionEnd::Draining.into(), holders: vec![] }),
            "the stream was told"
        );
        sold.insert(place, sales);
    }
    assert_eq!(service.ended(Duration::from_secs(10)), 0, "{}", service.log());
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(5), "nobody was waited for: {took:?}\n{}", service.log());

    // A call that was cut off was not begun: whatever was recorded was answered too.
    let service = Service::start(directory.path(), &["--clock", "2020-06-20T10:00:00+09:00"], &[MANY_SEATS]);
    let (mut answered, mut cut) = (0, 0);
    for (place, sales) in sold {
        let terminal = service.terminal(SITES[place % SITES.len()], "asks").await;
        for (who, id, heard) in sales {
            let truth = resolve(&terminal, &number(who), id).await;
            match heard {
                true => assert!(matches!(truth, Outcome::Approved(_)), "{truth:?}"),
                false => assert!(matches!(truth, Outcome::NotRecorded(_)), "recorded and not answered: {truth:?}"),
            }
            if heard { answered += 1 } else { cut += 1 }
        }
    }
    println!(
        "SIGTERM with {TERMINALS} terminals selling: {answered} sales answered, {cut} not begun, stopped in {took:?}"
    );
    assert!(answered > 50, "there was load");
    service.stop();
}

#[test]
fn a_silent_connection_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start(directory.path(), &[], &[]);
    let counters = service.address.trim_start_matches("http://").to_owned();
    let silent = [TcpStream::connect(counters).unwrap(), TcpStream::connect(&service.admin).unwrap()];
    service.await_health(0);
    let asked = Instant::now();
    service.ask_to_stop();
    let code = service.ended(Duration::from_secs(8));
    println!("with silent connections: stopped after {:?}, exit code {code}", asked.elapsed());
    assert_eq!(code, 0, "{}", service.log());
    assert!(!service.log().contains("were cut"), "{}", service.log());
    drop(silent);
}

/// The store is frozen, so the answer to a call under way is not known when the time is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_does_not_end_is_left_at_the_deadline_and_said() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let (url, deadline) = (redis.url(), ("RATIOND_DRAIN_SECONDS", "1"));
    let arguments = ["--store", &url, "--clock", SATURDAY];
    let mut service = Service::start(directory.path(), &arguments, &[deadline]);
    service.await_health(0);
    let (_, session) = service.session(SITES[0], "waits").await;
    sell(&session, &number(1), 1, RequestId::random()).await.unwrap();
    signal(redis.pid(), "STOP");
    // Each line waits for the store for itself, so that the visit takes longer than the deadline.
    let mut visit = purchase(&number(1), 1, RequestId::random());
    for nth in 2..6 {
        visit.lines.extend(purchase(&number(nth), 1, RequestId::random()).lines);
    }
    for line in &mut visit.lines {
        (line.relation, line.papers) = ("family".into(), vec!["family_relation_certificate".into()]);
    }
    visit.agent = Some(Agent { birth_year: 1980 });
    let waiting = tokio::spawn(async move { session.purchase(visit).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = Instant::now();
    service.ask_to_stop();
    let code = service.ended(Duration::from_secs(4));
    let took = asked.elapsed();
    signal(redis.pid(), "CONT");
    assert_eq!(code, 70, "{}", service.log());
    assert!(took < Duration::from_millis(1_900), "{took:?}");
    service.log_that_says("work was still under way after 1s");
    assert!(waiting.await.unwrap().is_err());
}
