//! The public feed of stock as a program: beside the counters in one process, and in a process of its own.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::python::prepared;
use super::service::{Ran, Service, rationd, refused, run};
use super::shops::SATURDAY;
use crate::support::redis::RedisServer;

/// Everything that takes its time must have happened by then, even on a busy machine.
const IN_TIME: Duration = Duration::from_secs(20);
/// A pharmacy of the demo sites, and where it is.
const SITE: &str = "11000001";
const NEAR: &str = "/corona19-masks/v1/storesByGeo/json?lat=37.5702&lng=126.9768&m=100";
/// Somebody who may buy weekly essentials on a Saturday.
const BUYERS: [&str; 2] = ["810305-1000112", "631120-2162511"];

/// What stands behind this path, over HTTP.
fn get(feed: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(feed.trim_start_matches("http://")).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

/// Waits until the level at [`SITE`] is this one, and gives its row.
fn shown(service: &Service, level: &str) -> serde_json::Value {
    let begun = Instant::now();
    loop {
        let near: serde_json::Value = serde_json::from_str(&get(&service.feed, NEAR)).unwrap();
        let row = &near["stores"][0];
        if row["remain_stat"] == level {
            return row.clone();
        }
        assert!(begun.elapsed() < IN_TIME, "{row} is not {level}:\n{}", service.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn report(service: &Service, what: &[&str]) -> Ran {
    let ran =
        service.call(&[&["stock", "report", "--programme", "weekly-essentials", "--site", SITE], what].concat(), "");
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

/// Sells a unit.
fn sell(service: &Service, number: &str) {
    let sold = service.call(&["sell", "--site", SITE, "--quantity", "1", "--number", number], "");
    assert!(sold.code == 0 && sold.out.contains("APPROVED"), "{sold:?}");
}

#[test]
fn a_client_of_the_feed_of_2020_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [("RATIOND_FEED__PROGRAMME", "weekly-essentials")];
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &variables);
    report(&service, &["--delivered", "101"]);
    shown(&service, "plenty");
    sell(&service, BUYERS[0]);
    sell(&service, BUYERS[1]);
    shown(&service, "some");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut client = Command::new(prepared().join("python-venv/bin/python"));
    client.env("PYTHONDONTWRITEBYTECODE", "1").arg(root.join("tests/python/feed_2020.py"));
    client.args([service.feed.as_str(), "37.5702", "126.9768", "Seoul Jongno-gu"]);
    let ran = run(client, directory.path(), "");
    println!("{}", ran.out);
    assert!(
        ran.code == 0
            && (ran.out.contains("all as in 2020: some, unknown") || ran.out.contains("all as in 2020: yellow")),
        "{ran:?}"
    );
    // The page stands by itself.
    let page = get(&service.feed, "/");
    assert!(page.starts_with("<!DOCTYPE html>") || page.starts_with("<!doctype html>"), "{page}");
    for outside in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!page.contains(outside), "{outside}");
    }
    service.stop();
}

#[test]
fn a_feed_of_its_own_shows_what_others_sell() {
    let redis = RedisServer::start();
    let (shops, feeds) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = redis.url();
    let on_redis = ["--store", store.as_str()];
    let counters = Service::start(shops.path(), &[&on_redis[..], &["--roles", "counters"]].concat(), &[]);
    assert!(counters.feed.is_empty());
    report(&counters, &["--delivered", "31"]);
    // It has no key file and makes none.
    let variables = [("RATIOND_FEED__PROGRAMME", "weekly-essentials")];
    let start = || Service::start(feeds.path(), &[&on_redis[..], &["--roles", "feed"]].concat(), &variables);
    let mut feed = start();
    let row = shown(&feed, "some");
    assert_eq!((&row["unverified"], &row["stale"]), (&false.into(), &false.into()));
    assert!(std::fs::read_dir(feeds.path()).unwrap().next().is_none(), "it leaves no file");
    // Whoever asks it for a sale learns that it sells nothing.
    let wrong = rationd(
        shops.path(),
        &["sell", "--site", SITE, "--quantity", "1", "--number", BUYERS[0], "--address", &feed.feed],
        "",
    );
    assert_ne!(wrong.code, 0, "{wrong:?}");
    // Killed, it misses nothing of what happens meanwhile.
    feed.kill();
    report(&counters, &["--counted", "5"]);
    // Whoever may buy on the day of this test.
    let number = counters.greeting.split("--number ").nth(1).unwrap().split_whitespace().next().unwrap();
    for _ in 0..2 {
        sell(&counters, number);
    }
    let request = "6e1b6c1e-52b7-4a80-9d30-5d8c3f1e9a01";
    for _ in 0..2 {
        report(&counters, &["--delivered", "100", "--request-id", request]);
    }
    let feed = start();
    let row = shown(&feed, "plenty");
    assert_eq!(row["unverified"], false);
    let shows = rationd(
        shops.path(),
        &["stock", "show", "--programme", "weekly-essentials", "--site", SITE, "--address", &feed.feed],
        "",
    );
    assert!(shows.code == 0 && shows.out.contains("103"), "{shows:?}");
    report(&counters, &["--pause"]);
    shown(&feed, "break");
    let page = feed.metrics();
    for name in ["rationd_stock_sites", "rationd_stock_age_seconds", "rationd_feed_duration_seconds_count"] {
        assert!(page.contains(name), "{name} in\n{page}");
    }
    feed.stop();
    counters.stop();
}

#[test]
fn roles_that_cannot_be_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, told) in [
        (["--roles", "feed"], "an embedded store is one process's alone"),
        (["--roles", "admin"], "must be \"counters\", \"feed\" or both"),
        (["--feed-listen", "0.0.0.0:0"], "must be on loopback"),
    ] {
        let ran = refused(directory.path(), &arguments);
        assert!(ran.code == 64 && ran.err.contains(told), "{ran:?}");
    }
    let unknown = [("RATIOND_FEED__PROGRAMME", "no-such-thing")];
    let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).envs(unknown);
    let ran = run(command, directory.path(), "");
    assert!(ran.code == 64 && ran.err.contains("feed.programme"), "{ran:?}");
}
