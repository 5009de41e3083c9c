//! What a service does when a part of it breaks off, or cannot be relied on: it says so, and stops where only a new start helps.

use std::time::{Duration, Instant};

use rationd::ids::RequestId;

use super::service::{Service, run};
use super::shops::{SATURDAY, SITES, number, sell};
use crate::support::redis::RedisServer;

const IN_TIME: Duration = Duration::from_secs(10);

/// From now on no file of this process may be written beyond its first pages, which holds the log and no commit.
fn fill_the_disk(service: &Service, directory: &std::path::Path) {
    let mut command = std::process::Command::new("prlimit");
    command.args([format!("--pid={}", service.pid()), "--fsize=8192:8192".to_owned()]);
    let ran = run(command, directory, "");
    assert_eq!(ran.code, 0, "{ran:?}");
}

async fn until(what: &str, service: &Service, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < IN_TIME, "not in time: {what}\n{}", service.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_closed_for_good_ends_the_process_with_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start_to_survive_full_disks(directory.path(), &["--clock", SATURDAY], &[]);
    let (terminal, session) = service.session(SITES[0], "sells").await;
    sell(&session, &number(1), 1, RequestId::random()).await.unwrap();
    fill_the_disk(&service, directory.path());
    assert!(sell(&session, &number(2), 1, RequestId::random()).await.is_err(), "it cannot be recorded");
    drop((terminal, session));
    assert_eq!(service.ended(IN_TIME), 70, "{}", service.log());
    let log = service.log();
    assert!(log.contains("the ledger's file") && log.contains("only a new start can open it again"), "{log}");

    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let (_terminal, session) = service.session(SITES[0], "sells").await;
    sell(&session, &number(2), 1, RequestId::random()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_closed_for_good_ends_the_process_with_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start_to_survive_full_disks(directory.path(), &["--clock", SATURDAY], &[]);
    service.await_health(0);
    fill_the_disk(&service, directory.path());
    let refused = service.call(&["sell", "-n", "1", "--json"], &format!("{}\n", number(1)));
    assert!(refused.out.contains("SESSION_UNCONFIRMED"), "no session is opened: {refused:?}");
    assert_eq!(service.ended(IN_TIME), 70, "{}", service.log());
    let log = service.log();
    assert!(log.contains("the door's file") && log.contains("only a new start can open it again"), "{log}");
}

/// The ledger is fit all the while: only the changes of the door cannot be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_cannot_be_read_is_not_ready() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--store", &redis.url()], &[]);
    service.await_health(0);
    let redis_cli = |words: &[&str]| {
        let mut command = std::process::Command::new("redis-cli");
        command.args(["-p", &redis.port().to_string()]).args(words);
        assert_eq!(run(command, directory.path(), "").code, 0, "{words:?}");
    };
    redis_cli(&["SET", "{door}:changes", "something else"]);
    service.await_health(1);
    assert!(!service.log().contains("the store cannot record sales"), "{}", service.log());
    redis_cli(&["DEL", "{door}:changes"]);
    service.await_health(0);
    service.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_read_is_told_once_until_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let (policies, away) = (directory.path().join("policies"), directory.path().join("away"));
    std::fs::create_dir(&policies).unwrap();
    let programme = include_str!("../../src/policy/programmes/weekly-essentials.toml");
    std::fs::write(policies.join("essentials.toml"), programme).unwrap();
    let variables = [("RATIOND_POLICIES", policies.to_str().unwrap()), ("RATIOND_RELOAD_SECONDS", "1")];
    let service = Service::start(directory.path(), &[], &variables);
    for round in 1..=2 {
        let told = |what: &str| service.log().matches(what).count();
        std::fs::rename(&policies, &away).unwrap();
        until("the refusal", &service, || told("changed files are refused") == round).await;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(told("changed files are refused"), round, "{}", service.log());
        std::fs::rename(&away, &policies).unwrap();
        until("the end of it", &service, || told("changed programmes and sites are in force") == round).await;
    }
    service.stop();
}
