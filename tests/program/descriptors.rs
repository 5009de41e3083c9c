//! A flood of connections beyond the limit of open files: who is there goes on, the store can be dialled, nobody spins.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;

use super::service::Service;
use super::shops::{MANY_SEATS, SATURDAY, SITES, number, sell};
use crate::support::redis::RedisServer;

/// Of open files of the service.
const LIMIT: usize = 400;
/// More than it can have.
const FLOOD: usize = 600;
const IDLE: Duration = Duration::from_secs(3);

/// What the process has worked so far, in ticks of a hundredth of a second.
fn worked(service: &Service) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
    // After the name, which is in parentheses: the state is the first field, and the two times are 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Connections that say enough to be taken for a client, and then nothing; those that are not taken wait in the kernel's queue.
fn flood(url: &str) -> Vec<TcpStream> {
    let at = url.trim_start_matches("http://");
    let connect = |_| {
        use std::io::Write;
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        stream
    };
    (0..FLOOD).map(connect).collect()
}

/// The connections that it has taken there: nobody may count its files, and those that wait in the kernel's queue are nobody's yet.
fn taken(url: &str) -> usize {
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let (ours, sockets) = (format!(":{port:04X}"), std::fs::read_to_string("/proc/net/tcp").unwrap());
    let is_taken = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&ours) && fields[3] == "01" && fields[9] != "0"
    };
    sockets.lines().skip(1).filter(is_taken).count()
}

async fn worked_while_idle(service: &Service) -> u64 {
    let before = worked(service);
    tokio::time::sleep(IDLE).await;
    worked(service) - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_beyond_the_limit_of_files_stops_nobody_who_is_there_and_nothing_spins() {
    let mut redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let url = redis.url();
    Service::start(directory.path(), &[], &[]).stop();
    let service =
        Service::start_with_files(LIMIT, directory.path(), &["--store", &url, "--clock", SATURDAY], &[MANY_SEATS]);
    service.await_health(0);
    let (_terminal, session) = service.session(SITES[0], "stays").await;
    sell(&session, &number(1), 1, RequestId::random()).await.unwrap();
    let quiet = worked_while_idle(&service).await;

    let floods = [flood(&service.address), flood(&service.feed)];
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (counters, feed) = (taken(&service.address), taken(&service.feed));
    let flooded = worked_while_idle(&service).await;
    sell(&session, &number(2), 1, RequestId::random()).await.expect("who is there sells");
    println!(
        "{FLOOD} connections each and {LIMIT} files: {counters} and {feed} taken; worked {flooded} hundredths in {IDLE:?}, {quiet} without the flood"
    );
    assert!(counters >= LIMIT / 4 && feed >= LIMIT / 10, "{counters} and {feed} connections");
    assert!(counters + feed < LIMIT - 100, "{counters} and {feed} connections");
    assert!(flooded <= 20 + 3 * quiet, "it spins: {flooded} against {quiet}");
    assert!(!service.log().contains("no connection can be taken"), "{}", service.log());

    // The store goes and comes back while the flood is there: there are descriptors to dial it with, and for probes.
    let holding = std::thread::spawn(move || {
        redis.kill();
        redis.restart();
        redis
    });
    let redis = tokio::task::block_in_place(|| holding.join().unwrap());
    let begun = Instant::now();
    loop {
        match sell(&session, &number(3), 1, RequestId::random()).await {
            Ok(Outcome::Approved(_) | Outcome::Refused(_)) => break,
            other => assert!(begun.elapsed() < Duration::from_secs(20), "{other:?}\n{}", service.log()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(service.metrics().contains("rationd_"), "probes and scrapes are answered");

    // The flood answers no ping and is soon gone; then there is room for another.
    drop(floods);
    service.await_health(0);
    tokio::task::block_in_place(|| service.stop());
    drop(redis);
}
