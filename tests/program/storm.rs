//! A historic morning of the waiting room, small: a Redis and services of the harness's own, and more comers than seats.

use std::path::Path;

use super::service::{Ran, rationd, shell};

/// A hundredth of everybody, in an eighth of the time.
const SMALL: [&str; 10] =
    ["load", "--scenario", "2020-03-11", "--scale", "0.01", "--seconds", "15", "--services", "2", "--json"];

/// Every check looked at something and found nothing.
fn keeps_every_promise(directory: &Path, arguments: &[&str]) -> Ran {
    let ran = rationd(directory, arguments, "");
    assert_eq!(ran.code, 0, "{ran:?}");
    let found = ran.json();
    let count = |path: &str| found.pointer(path).and_then(serde_json::Value::as_u64);
    for check in ["cap_violations", "place_resets", "position_rises", "over_admissions", "bypasses", "sales_lost"] {
        assert_eq!(count(&format!("/{check}/count")), Some(0), "{check}: {found:#}");
        assert!(count(&format!("/{check}/samples")) > Some(0), "{check}: {found:#}");
    }
    ran
}

#[test]
fn the_morning_of_the_post_offices_breaks_no_promise() {
    let directory = tempfile::tempdir().unwrap();
    let ran = keeps_every_promise(directory.path(), &[&SMALL[..], &["--html", "morning.html"]].concat());
    let found = ran.json();
    let count = |path: &str| found.pointer(path).and_then(serde_json::Value::as_u64);
    assert!(count("/sale_p99_storm_over_quiet/samples") > Some(0), "{found:#}");
    // All pharmacies were in, every seat was taken, and some had to wait.
    assert_eq!((count("/sessions/pharmacies_open"), count("/sessions/most_live")), (Some(120), Some(150)), "{found:#}");
    assert!(count("/sessions/longest_line") > Some(10) && count("/sessions/refused/SITE_FULL") > Some(10), "{found:#}");
    // In the end an operator left every site one terminal.
    let took = found.pointer("/switch_seconds/seconds").and_then(serde_json::Value::as_f64);
    assert!(took.is_some_and(|took| took < 5.0) && count("/switch_seconds/samples") > Some(0), "{found:#}");
    assert!(ran.err.contains("turned back"), "{}", ran.err);
    let page = std::fs::read_to_string(directory.path().join("morning.html")).unwrap();
    assert!(page.contains("Positions") && page.contains("storm"));
}

/// A hundredth of everybody, in a thirteenth of the time: nobody is away for longer than a lease.
const LINE: [&str; 10] =
    ["load", "--scenario", "2021-07-20", "--scale", "0.01", "--seconds", "19", "--services", "2", "--json"];

#[test]
fn a_line_outlives_everything_that_is_restarted_under_it() {
    let directory = tempfile::tempdir().unwrap();
    let ran = keeps_every_promise(directory.path(), &[&LINE[..], &["--html", "line.html"]].concat());
    let found = ran.json();
    let count = |path: &str| found.pointer(path).and_then(serde_json::Value::as_u64);
    // The seats were taken, the others stood in line, and both services told theirs to come back.
    assert_eq!(count("/sessions/most_live"), Some(15), "{found:#}");
    assert!(count("/sessions/longest_line") > Some(250) && count("/sessions/came_back") > Some(150), "{found:#}");
    assert!(count("/bypasses/samples") > Some(5_000) && count("/tries/ACCEPTED").is_none(), "{found:#}");
    let page = std::fs::read_to_string(directory.path().join("line.html")).unwrap();
    assert!(page.contains("Coming back") && page.contains("Redis restarts") && page.contains("services restart"));
}

#[test]
fn a_morning_says_what_it_needs_and_what_it_cannot_do() {
    let directory = tempfile::tempdir().unwrap();
    let ran = rationd(directory.path(), &[&SMALL[..], &["--rate", "5", "--wire", "stream"]].concat(), "");
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("--rate (use --scale), --wire"), "{}", ran.err);
    let ran = rationd(directory.path(), &["load", "--contrast"], "");
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("--scenario 2020-03-11"), "{}", ran.err);
    let ran = rationd(directory.path(), &[&LINE[..], &["--contrast"]].concat(), "");
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("--contrast is not for 2021-07-20"), "{}", ran.err);
    let without_redis = format!("PATH=/nowhere {} {}", env!("CARGO_BIN_EXE_rationd"), SMALL.join(" "));
    let ran = shell(directory.path(), &without_redis);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("redis-server is needed on PATH"), "{}", ran.err);
}
