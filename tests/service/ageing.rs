//! Connections grow old: each is told to go, and nobody notices but by connecting anew.
//!
//! `RATIOND_AGEING_CONNECTIONS` says how many grow old at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rationd::grpc::v1::{self, SessionEnd, open_session_response::Event};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::harness::*;

const CONNECTIONS: u32 = 240;
/// Some lives of a connection.
const LIVES: u32 = 6;
/// What two cores take without the optimizer, over all connections: how many grow old in a second, and how many sales are made.
const OLD_A_SECOND: u32 = 120;
/// See [`OLD_A_SECOND`].
const SALES_A_SECOND: u32 = 600;
const SITES: [&str; 6] = ["11000001", "11000002", "11000003", "11000004", "11000005", "11000006"];

/// A channel that notes when it connects.
fn counted(address: &str, connects: Arc<Mutex<Vec<Instant>>>) -> Channel {
    let at = address.trim_start_matches("http://").to_owned();
    let connector = service_fn(move |_| {
        connects.lock().unwrap().push(Instant::now());
        let dialled = TcpStream::connect(at.clone());
        async move { Ok::<_, std::io::Error>(TokioIo::new(dialled.await?)) }
    });
    Endpoint::from_shared(address.to_owned()).unwrap().connect_with_connector_lazy(connector)
}

/// How it goes on.
#[derive(Clone, Copy)]
struct Pace {
    connections: u32,
    age: Duration,
    run: Duration,
    between_sales: Duration,
}

impl Pace {
    fn chosen() -> Self {
        let asked_for = std::env::var("RATIOND_AGEING_CONNECTIONS").ok();
        let connections = asked_for.map_or(CONNECTIONS, |many| many.parse().expect("a number"));
        let age = Duration::from_secs(connections.div_ceil(OLD_A_SECOND).into());
        let between_sales = Duration::from_secs(connections.into()) / SALES_A_SECOND;
        Self { connections, age, run: LIVES * age, between_sales }
    }
}

/// What all of them came to.
#[derive(Default)]
struct Tally {
    sold: AtomicU64,
    repeated: AtomicU64,
    opened_again: AtomicU64,
    ends: AtomicU64,
}

/// Opens the session again whenever its connection ends, and sells meanwhile. Its seat is the same all along.
async fn work(caller: Caller, pace: Pace, begun: Instant, next: Arc<AtomicU32>, tally: Arc<Tally>) {
    let mut slot = None;
    while begun.elapsed() < pace.run {
        let opened = match caller.open().await {
            Ok(opened) => opened,
            // The old connection went away under it.
            Err(_) => {
                tally.opened_again.fetch_add(1, Ordering::Relaxed);
                caller.open().await.expect("over another connection")
            }
        };
        let Opened::Admitted(mut counter) = opened else { panic!("the seat is kept") };
        assert_eq!(*slot.get_or_insert(counter.admitted.slot), counter.admitted.slot, "the seat is the same");
        let seller = counter.caller.clone();
        let selling = async {
            loop {
                let serial = next.fetch_add(1, Ordering::Relaxed);
                // A day has no more than 100,000 of them.
                let birth = format!("8103{:02}", 1 + serial / 100_000);
                let visit = Visit::in_person(&number(&birth, '1', serial % 100_000), 1).under("weekly-essentials");
                let mut tries = 0;
                while let Err(error) = seller.purchase(&visit).await {
                    tries += 1;
                    assert!(tries < 3, "a call fails again and again: {error}");
                    tally.repeated.fetch_add(1, Ordering::Relaxed);
                }
                tally.sold.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(pace.between_sales).await;
            }
        };
        let end = tokio::select! {
            end = counter.events.message() => end,
            () = selling => unreachable!(),
            () = tokio::time::sleep(pace.run.saturating_sub(begun.elapsed())) => return,
        };
        let end = end.expect("an end is told and not a broken stream").and_then(|end| end.event);
        assert_eq!(end, Some(Event::Ended(v1::Ended { why: SessionEnd::Draining.into(), holders: vec![] })));
        tally.ends.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_end_one_by_one_and_fail_no_call() {
    let world = World::embedded();
    let pace @ Pace { connections, age, run, .. } = Pace::chosen();
    let seconds = age.as_secs().to_string();
    let settings = [("COUNTERS__CONNECTION_AGE_SECONDS", seconds.as_str()), ("SESSIONS__CAP_DEFAULT", "1000")];
    let service = world.serve_with("2020-06-20T10:00:00+09:00", &settings).await;
    let (connects, next, tally) =
        (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicU32>::default(), Arc::<Tally>::default());
    let begun = Instant::now();
    let mut clients = Vec::new();
    for nth in 0..connections {
        let channel = counted(&service.address(), connects.clone());
        let caller = Caller { channel, ..service.caller(SITES[nth as usize % SITES.len()], &format!("w{nth}")) };
        clients.push(tokio::spawn(work(caller, pace, begun, next.clone(), tally.clone())));
        // They do not begin together, as terminals do not.
        tokio::time::sleep(age / connections).await;
    }
    for client in clients {
        client.await.unwrap();
    }
    let [sold, repeated, opened_again, ends] =
        [&tally.sold, &tally.repeated, &tally.opened_again, &tally.ends].map(|n| n.load(Ordering::Relaxed));
    // From when the first is old until the run is over.
    let mut seconds = vec![0_usize; (run - age).as_secs() as usize];
    for connect in connects.lock().unwrap().iter() {
        let at = (*connect - begun).checked_sub(age).map(|at| at.as_secs() as usize);
        if let Some(second) = at.and_then(|at| seconds.get_mut(at)) {
            *second += 1;
        }
    }
    let mean = seconds.iter().sum::<usize>() as f64 / seconds.len() as f64;
    println!(
        "{connections} connections of {age:?}: {sold} sales, {repeated} repeated, {ends} sessions opened again, {opened_again} of \
         them at the second try; connects in \
         each second {seconds:?}, mean {mean:.0}"
    );
    assert!(sold > 1_000 && ends > u64::from(connections), "there was something to fail");
    assert!(seconds.iter().all(|second| (*second as f64) < 2.0 * mean), "{seconds:?}");
    service.stop().await;
}
