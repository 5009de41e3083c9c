//! The audit log of the program itself: killed while counters sell, its disk full, and looked at from the command line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;

use super::kill::sell_until_gone;
use super::service::{Service, rationd};
use super::shops::{MANY_SEATS, SATURDAY, SITES, number, sell};
use crate::support::redis::RedisServer;

#[path = "../fault/shim.rs"]
#[allow(dead_code, reason = "the tests of faults use more of it")]
mod shim;

const TERMINALS: usize = 12;

fn log_of(directory: &Path) -> PathBuf {
    directory.join("audit")
}

/// Everything in the log's segments.
fn written(log: &Path) -> String {
    let mut paths: Vec<_> = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

async fn kill_and_verify(directory: &Path, store: &str) {
    let log = log_of(directory);
    let name = log.to_str().unwrap();
    let start = || Service::start(directory, &["--store", store, "--clock", SATURDAY, "--audit", name], &[MANY_SEATS]);
    let verify = || rationd(directory, &["audit", "verify", name, "--json"], "");
    let next = Arc::new(AtomicU64::new(0));
    let mut acknowledged = BTreeSet::new();
    for kill in 0..4 {
        let mut service = start();
        service.await_health(0);
        let mut sellers = Vec::new();
        for place in 0..TERMINALS {
            sellers.push(sell_until_gone(&service, place, next.clone()).await);
        }
        tokio::time::sleep(Duration::from_millis(150 + 120 * kill)).await;
        let running = verify();
        assert_eq!(running.code, 0, "while it is written: {running:?}");
        service.kill();
        for seller in sellers {
            let attempts = seller.await.unwrap();
            let sold = attempts.into_iter().filter(|attempt| matches!(attempt.heard, Ok(Outcome::Approved(_))));
            acknowledged.extend(sold.map(|attempt| attempt.id.to_string()));
        }
        let ran = verify();
        assert!(ran.code == 0 && ran.json()["verdict"] == "FOLLOWS", "{ran:?}");
        assert_eq!(ran.json()["not_recorded"], 0);
    }
    let text = written(&log);
    let recorded: BTreeSet<String> = text
        .lines()
        .filter(|line| line.contains("\"action\":\"SELL\"") && line.contains("\"result\":\"APPROVED\""))
        .filter_map(|line| Some(line.split("\"subject\":\"").nth(1)?.split('"').next()?.to_owned()))
        .collect();
    let lost: Vec<_> = acknowledged.difference(&recorded).collect();
    println!(
        "{}: {} sales acknowledged over 4 kills, {} not on record",
        store.split(':').next().unwrap(),
        acknowledged.len(),
        lost.len()
    );
    assert!(lost.is_empty() && acknowledged.len() > 80, "{lost:?} of {}", acknowledged.len());
    let service = start();
    service.stop();
    assert_eq!(verify().code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_embedded_service_acknowledged_is_on_record_after_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    kill_and_verify(directory.path(), "embedded:./rationd-data").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_redis_service_acknowledged_is_on_record_after_kill_9() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    kill_and_verify(directory.path(), &redis.url()).await;
}

/// A full disk stops no sale; what is missing is counted, shown, and told by the log itself when there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_no_sale_and_the_log_says_what_is_missing() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    Service::start(at, &[], &[]).stop();
    let (log, url) = (log_of(at), redis.url());
    let arguments = ["--store", &url, "--clock", SATURDAY, "--audit", log.to_str().unwrap()];
    // No log line in this file that the limit would cut too.
    let quiet = ("RATIOND_TELEMETRY__LOG_FILTER", "error");
    let service = Service::start_to_survive_full_disks(at, &arguments, &[MANY_SEATS, quiet]);
    service.await_health(0);
    let (_terminal, session) = service.session(SITES[0], "sells").await;
    sell(&session, &number(1), 1, RequestId::random()).await.unwrap();
    let limit = |size: &str| {
        let mut command = std::process::Command::new("prlimit");
        command.args(["--pid", &service.pid().to_string(), &format!("--fsize={size}")]);
        assert!(command.status().unwrap().success());
    };
    let length = |log: &Path| written(log).len();
    limit(&format!("{}:", length(&log)));
    for nth in 2..10 {
        sell(&session, &number(nth), 1, RequestId::random()).await.unwrap();
    }
    let metric = |name: &str| {
        let page = service.metrics();
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    let begun = Instant::now();
    while (metric("rationd_audit_failing"), metric("rationd_audit_not_recorded_total")) != ("1".into(), "8".into()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", service.metrics());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let address = format!("http://{}", service.admin);
    let look = ["operator", "look-up", "--address", &address, "--number", "810305-1000112", "--reason", "a test"];
    let refused = rationd(at, &look, "");
    assert!(refused.code == 3 && refused.err.contains("AUDIT_UNAVAILABLE"), "{refused:?}");
    limit("unlimited:");
    // By itself, without another sale.
    while metric("rationd_audit_failing") != "0" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", service.metrics());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let shown = rationd(at, &look, "");
    assert_eq!(shown.code, 0, "{shown:?}");
    service.stop();
    let verified = rationd(at, &["audit", "verify", log.to_str().unwrap()], "");
    assert!(verified.code == 0 && verified.out.contains("NOT RECORDED 8 accesses"), "{verified:?}");
    assert!(written(&log).contains("\"action\":\"NOT_RECORDED\""));
}

/// Counters wait for no sync, whatever it does; operators do, and the log says from where on a crash may take records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_sync_holds_up_operators_alone() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    Service::start(at, &[], &[]).stop();
    let (log, url, shim) = (log_of(at), redis.url(), shim::Shim::build());
    let arguments = ["--store", &url, "--clock", SATURDAY, "--audit", log.to_str().unwrap()];
    let shims = shim.variables();
    let variables: Vec<_> = shims.iter().map(|(name, value)| (*name, value.as_str())).chain([MANY_SEATS]).collect();
    let service = Service::start(at, &arguments, &variables);
    service.await_health(0);
    let (_terminal, session) = service.session(SITES[0], "sells").await;
    let address = format!("http://{}", service.admin);
    let look = ["operator", "look-up", "--address", &address, "--number", "810305-1000112", "--reason", "a test"];

    // The month's key is there.
    assert_eq!(rationd(at, &look, "").code, 0);

    shim.say("sync", "slow 4000");
    let begun = Instant::now();
    let mut rounds = 0;
    // Long enough that one of the log's syncs is under way.
    while begun.elapsed() < Duration::from_millis(1_500) {
        let sold = Instant::now();
        sell(&session, &number(rounds), 1, RequestId::random()).await.unwrap();
        assert!(sold.elapsed() < Duration::from_millis(2_000), "it waited for a sync");
        rounds += 1;
    }
    shim.say("sync", "fail");
    let refused = rationd(at, &look, "");
    assert!(refused.code == 3 && refused.err.contains("AUDIT_UNAVAILABLE"), "{refused:?}");
    sell(&session, &number(rounds), 1, RequestId::random()).await.unwrap();
    shim.unsay("sync");
    let shown = rationd(at, &look, "");
    assert_eq!(shown.code, 0, "{shown:?}");
    service.stop();
    let verified = rationd(at, &["audit", "verify", log.to_str().unwrap(), "--json"], "");
    assert!(verified.code == 0 && verified.json()["not_recorded"] == 0, "{verified:?}");
    let text = written(&log);
    let sales = text.lines().filter(|line| line.contains("\"action\":\"SELL\"")).count();
    assert_eq!(sales, usize::try_from(rounds).unwrap() + 1);
    assert!(text.contains("\"action\":\"NOT_SYNCED\""), "{text}");
}

#[test]
fn the_command_line_names_what_was_changed_and_where_nothing_is() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let service = Service::start(at, &["--clock", SATURDAY], &[]);
    assert_eq!(service.call(&["sell", "--number", "810305-1000112"], "").code, 0);
    let second = rationd(at, &["audit", "expire", "./rationd-data-simulated/audit"], "");
    assert!(second.code == 3 && second.err.contains("is in use by another process"), "{second:?}");
    service.stop();
    let log = "./rationd-data-simulated/audit";
    let verified = rationd(at, &["audit", "verify", log], "");
    assert!(verified.code == 0 && verified.out.starts_with("FOLLOWS  records 1 to 2\n"), "{verified:?}");
    let kept = verified.out.split("newest").nth(1).unwrap().trim();
    assert_eq!(rationd(at, &["audit", "verify", log, "--kept", kept], "").code, 0);
    let unread = rationd(at, &["audit", "verify", log, "--kept", "2 abc"], "");
    assert_eq!(unread.code, 2, "{unread:?}");
    assert_eq!(rationd(at, &["audit", "verify", "./nowhere"], "").code, 3);
    assert_eq!(rationd(at, &["audit", "expire", "./nowhere"], "").code, 3);
    assert!(!at.join("nowhere").exists());
    assert_eq!(rationd(at, &["audit", "expire", log], "").code, 0);
    let path = at.join(log).join("000000000001-2020-06.log");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("APPROVED", "REFUSED!", 1)).unwrap();
    let broken = rationd(at, &["audit", "verify", log], "");
    assert_eq!(broken.code, 1);
    assert!(broken.out.starts_with("BROKEN   000000000001-2020-06.log:2: record 2 was changed"), "{broken:?}");
    let json = rationd(at, &["audit", "verify", log, "--json"], "").json();
    assert_eq!((&json["verdict"], &json["record"], &json["line"]), (&"BROKEN".into(), &2.into(), &2.into()));
}
