//! The key ring turns while everybody sells (G37): several processes of the service on one Redis, each with its own key file, one of
//! which is changed late. And what the commands refuse.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;
use rationd::terminal::{CallError, Session};

use super::service::{Ran, Service, rationd};
use super::shops::{MANY_SEATS, SATURDAY, SITES, bought, number, resolve, sell};
use crate::support::redis::RedisServer;

const PROCESSES: usize = 3;
/// Sellers of each process.
const SELLERS: usize = 2;
const BUYERS: u64 = 500;
/// A week's.
const LIMIT: u64 = 2;
/// Between two steps.
const MEANWHILE: Duration = Duration::from_secs(3);
/// How long the last process goes without the turned key file.
const LATE: Duration = Duration::from_secs(3);
/// A clerk insists for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What sellers were told: of which buyer, under which id, and whether it was sold.
type Told = Vec<(u64, RequestId, bool)>;

/// `rationd keys …` on this file.
fn keys(step: &str, file: &Path) -> Ran {
    rationd(file.parent().unwrap(), &["keys", step, "--keys", file.to_str().unwrap()], "")
}

fn taken(ran: &Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
    println!("{}", ran.out.trim_end().replace('\n', "; "));
}

/// Gives this key file to another instance, whole.
fn give(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    std::fs::copy(from, &new).unwrap();
    std::fs::rename(new, to).unwrap();
}

/// Sells one unit as a client does: what may be tried again is, with the same id.
async fn insist(session: &Session, buyer: u64, id: RequestId) -> Result<Outcome, CallError> {
    let begun = Instant::now();
    loop {
        let answer = sell(session, &number(buyer), 1, id).await;
        let again = match &answer {
            Err(CallError::NotExecuted { retry_after, .. }) => retry_after.is_some(),
            Err(CallError::Unknown(_)) => true,
            Ok(_) => false,
        };
        if !again || begun.elapsed() > PATIENCE {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sells to one buyer after the other, in an order of its own, until it is told to stop.
async fn seller(session: Session, nth: u64, stop: Arc<AtomicBool>, longest: Arc<AtomicU64>) -> Result<Told, CallError> {
    let (mut told, mut at) = (Told::new(), nth * 97);
    while !stop.load(Ordering::Relaxed) {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (buyer, id, begun) = ((at >> 33) % BUYERS, RequestId::random(), Instant::now());
        let outcome = insist(&session, buyer, id).await?;
        longest.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        told.push((buyer, id, matches!(outcome, Outcome::Approved(_))));
        assert!(matches!(outcome, Outcome::Approved(_) | Outcome::Refused(_)), "{outcome:?}");
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
    session.close().await.map(|_| told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ring_turns_while_everybody_sells_and_nothing_is_sold_or_lost_by_it() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let files: Vec<PathBuf> = (0..PROCESSES).map(|nth| directory.path().join(format!("{nth}.toml"))).collect();
    let mut services = Vec::new();
    for file in &files {
        give(&directory.path().join("rationd-data/keys.toml"), file);
        let arguments = ["--store", &redis.url(), "--clock", SATURDAY, "--keys", file.to_str().unwrap()];
        services.push(Service::start(directory.path(), &arguments, &[MANY_SEATS, ("RATIOND_RELOAD_SECONDS", "1")]));
    }
    let (stop, longest, mut sellers) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Vec::new());
    for nth in 0..PROCESSES * SELLERS {
        let service = &services[nth % PROCESSES];
        service.await_health(0);
        let (_, session) = service.session(SITES[nth], &format!("seller-{nth}")).await;
        sellers.push(tokio::spawn(seller(session, nth as u64, stop.clone(), longest.clone())));
    }
    let step = |name: &str, late: Duration| {
        taken(&keys(name, &files[0]));
        give(&files[0], &files[1]);
        std::thread::sleep(late);
        give(&files[0], &files[2]);
    };
    tokio::time::sleep(MEANWHILE).await;
    tokio::task::block_in_place(|| step("prepare", Duration::ZERO));
    let prepared = directory.path().join("prepared.toml");
    give(&files[0], &prepared);
    tokio::time::sleep(MEANWHILE).await;
    let longest_before = longest.load(Ordering::Relaxed);
    tokio::task::block_in_place(|| step("rotate", LATE));
    tokio::time::sleep(MEANWHILE).await;
    stop.store(true, Ordering::Relaxed);
    let (mut sold, mut refused, mut ids) = (HashMap::<u64, u64>::new(), 0_u64, Vec::new());
    for (nth, seller) in sellers.into_iter().enumerate() {
        let told = seller.await.unwrap().expect("no call fails for good");
        for (buyer, id, is_sale) in told {
            if is_sale {
                *sold.entry(buyer).or_default() += 1;
                ids.push((nth, buyer, id));
            } else {
                refused += 1;
            }
        }
    }

    // Every buyer, and every sale by its id, as another process than the seller's knows them.
    let (auditor, _session) = services[2].session(SITES[0], "auditor").await;
    let (mut extra, mut lost) = (0, 0);
    for buyer in 0..BUYERS {
        let told = sold.get(&buyer).copied().unwrap_or_default();
        let stands = u64::from(bought(&auditor, &number(buyer)).await);
        extra += told.saturating_sub(LIMIT).max(stands.saturating_sub(LIMIT));
        lost += told.abs_diff(stands);
    }
    for nth in 0..PROCESSES * SELLERS {
        let terminal = services[(nth + 1) % PROCESSES].terminal(SITES[nth], "asks").await;
        for (_, buyer, id) in ids.iter().filter(|(seller, ..)| *seller == nth) {
            lost += u64::from(!matches!(resolve(&terminal, &number(*buyer), *id).await, Outcome::Approved(_)));
        }
    }
    println!(
        "{PROCESSES} processes: {} sold, {refused} refused over a turn of the ring with one process {LATE:?} late: {extra} extra, \
         {lost} lost, 0 failed for good; the longest call {longest_before} ms before the turn and {} ms with it",
        sold.values().sum::<u64>(),
        longest.load(Ordering::Relaxed)
    );
    assert_eq!((extra, lost), (0, 0));
    assert!(refused > 100 && sold.values().sum::<u64>() > BUYERS, "buyers come back after the turn");
    for service in &services {
        service.log_that_says("another key file is in force");
    }
    let late = services[2].log();
    assert!(late.contains("this one follows, and its key file is late"), "{late}");
    // One that starts later still, with the file of before the turn.
    let arguments = ["--store", &redis.url(), "--clock", SATURDAY, "--keys", prepared.to_str().unwrap()];
    services.push(Service::start(directory.path(), &arguments, &[]));
    tokio::task::block_in_place(|| services[PROCESSES].await_health(0));
    assert!(services[PROCESSES].log().contains("this one follows, and its key file is late"));
    tokio::task::block_in_place(|| services.into_iter().for_each(Service::stop));
}

#[test]
fn each_step_says_what_comes_next_and_what_is_refused_says_until_when() {
    let directory = tempfile::tempdir().unwrap();
    let start = |clock| Service::start(directory.path(), &["--clock", clock], &[("RATIOND_RELOAD_SECONDS", "1")]);
    start(SATURDAY).stop();
    let file = directory.path().join("rationd-data-simulated/keys.toml");
    let step = |name: &str| keys(name, &file);
    let refused = |name: &str, why: &str| {
        let ran = step(name);
        println!("{}", ran.err.trim_end());
        assert!(ran.code == 1 && ran.err.contains(why) && ran.out.is_empty(), "{ran:?}");
    };
    taken(&step("show"));
    refused("rotate", "there is no next key: run `rationd keys prepare`");
    taken(&step("prepare"));
    refused("prepare", "key 2 is prepared already");
    refused("retire", "there is no previous key to retire");
    taken(&step("rotate"));
    for early in ["prepare", "rotate", "retire"] {
        refused(early, "key 1 is still needed");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let left = text.lines().find(|line| line.starts_with("left = ")).unwrap();
    // Of a ring that was turned long ago.
    std::fs::write(&file, text.replace(left, "left = \"2020-03-11T09:00:00+09:00\"")).unwrap();
    refused("prepare", "key 1 was left and is needed no more: run `rationd keys retire`");
    // What the command line takes for long ago the ledger knows better: it goes over now, and the previous key is needed.
    let turned = std::fs::read(&file).unwrap();
    let service = start(SATURDAY);
    let logs = |service: &Service, line: &str| {
        let begun = Instant::now();
        while !service.log().contains(line) {
            assert!(begun.elapsed() < PATIENCE, "{}", service.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    taken(&step("retire"));
    logs(&service, "a changed key file is refused");
    service.log_that_says("may be asked for, until 2020-07-");
    service.await_health(0);
    service.stop();
    let ran = super::service::refused(directory.path(), &["--clock", SATURDAY]);
    assert!(ran.code == 64 && ran.err.contains("may be asked for, until 2020-07-"), "{ran:?}");
    // Later it is not: the service starts with the previous key once more, and goes on without.
    std::fs::write(&file, turned).unwrap();
    let service = start("2020-07-20T09:00:00+09:00");
    taken(&step("retire"));
    logs(&service, "another key file is in force");
    service.await_health(0);
    service.stop();
    // An old copy of the key file is not this ledger's any more.
    let first = text.split("[ring.").filter(|part| !part.starts_with("current]")).collect::<Vec<_>>().join("[ring.");
    std::fs::write(&file, first.replace("previous]", "current]").replace(&format!("{left}\n"), "")).unwrap();
    let ran = super::service::refused(directory.path(), &["--clock", SATURDAY]);
    assert!(ran.code == 64 && ran.err.contains("the ring was turned to key 2, which this key file (at 1)"), "{ran:?}");
}
