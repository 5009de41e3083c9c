//! `rationd events`: lines for other programs, however often either side is away.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::block_in_place;

use super::service::{Ran, Service, rationd};
use crate::support::proxy::Proxy;

/// As long as a line may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

fn sell(service: &Service, number: &str) -> String {
    let sold = service.call(&["sell", "--json"], number);
    sold.json()["receipt"]["request_id"].as_str().unwrap_or_else(|| panic!("{sold:?}")).to_owned()
}

fn events(at: &Path, address: &str, more: &[&str]) -> Ran {
    rationd(at, &[&["events", "--address", address], more].concat(), "")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(text: &str) -> Vec<String> {
    lines(text).iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_happened_is_printed_and_a_file_says_how_far() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let service = Service::start(at, &["--clock", super::shops::SATURDAY], &[]);
    let address = format!("http://{}", service.admin);
    let printed = events(at, &address, &[]);
    assert_eq!((printed.code, printed.out.as_str(), printed.err.as_str()), (0, "", ""));
    let sold = ["810305-1000112", "810305-2000117"].map(|number| sell(&service, number));
    let printed = events(at, &address, &["--cursor", "got.cursor"]);
    assert_eq!((printed.code, printed.err.as_str()), (0, ""), "{printed:?}");
    let [mut found, mut expected] = [ids(&printed.out), sold.to_vec()];
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let line = &lines(&printed.out)[0];
    assert_eq!((&line["kind"], &line["site"], &line["over"]), (&"sold".into(), &"11000001".into(), &false.into()));
    assert_eq!(line["at"], line["mark"]);
    assert!(line["at"].as_str().unwrap().starts_with("2020-"), "{line}");
    assert!(!printed.out.contains("810305") && !printed.out.contains("10001"), "{printed:?}");

    assert_eq!(events(at, &address, &["--cursor", "got.cursor"]).out, "", "they were printed before");
    let third = sell(&service, "820305-1000112");
    assert_eq!(ids(&events(at, &address, &["--cursor", "got.cursor"]).out), [third]);
    assert_eq!(events(at, &address, &["--from", "now"]).out, "");
    let table = events(at, &address, &["--format", "csv"]).out;
    let (first, rows) = table.split_once('\n').unwrap();
    assert_eq!(first, "kind,programme,request_id,site,terminal,quantity,at,mark,over,stated");
    assert_eq!(rows.lines().count(), 3, "{table}");

    // What is wrong is told with what to do; nothing is printed.
    std::fs::write(at.join("wrong.cursor"), "x").unwrap();
    let other = tempfile::tempdir().unwrap();
    let elsewhere = Service::start(other.path(), &["--clock", super::shops::SATURDAY], &[]);
    let elsewhere_at = format!("http://{}", elsewhere.admin);
    for (address, more, code, said) in [
        (&address, ["--cursor", "wrong.cursor"], 2, "cursor: must be a cursor as it was given with events"),
        (&address, ["--programme", "bread"], 2, "programme: is not known here; known: "),
        (&elsewhere_at, ["--cursor", "got.cursor"], 1, "begin without it (remove got.cursor)"),
        (&"http://127.0.0.1:1".to_owned(), ["--from", "oldest"], 3, "127.0.0.1:1"),
    ] {
        let told = events(at, address, &more);
        assert!(told.code == code && told.out.is_empty() && told.err.contains(said), "{more:?}: {told:?}");
    }
    elsewhere.stop();
    // A full disk is told, and what was not printed is not counted as read.
    let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
    command.args(["events", "--cursor", "full.cursor", "--address", &address]).current_dir(at);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let ran = command.stdin(Stdio::null()).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(3) && said.contains("cannot be written"), "{ran:?}");
    assert!(!at.join("full.cursor").exists());
    service.stop();
}

/// A process that follows, ended by its id.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_misses_nothing_when_the_service_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let start = || block_in_place(|| Service::start(at, &["--clock", super::shops::SATURDAY], &[]));
    let mut service = start();
    let port = |service: &Service| service.admin.rsplit(':').next().unwrap().parse().unwrap();
    let front = Proxy::to(port(&service)).await;
    let mut expected = vec![sell(&service, "810305-1000112")];
    let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
    command.args(["events", "--follow", "--cursor", "got.cursor", "--address"]);
    command.arg(format!("http://127.0.0.1:{}", front.port())).current_dir(at).stdin(Stdio::null());
    command.stdout(File::create(at.join("lines")).unwrap()).stderr(File::create(at.join("said")).unwrap());
    let _follower = Follower(command.spawn().unwrap());
    let printed = || std::fs::read_to_string(at.join("lines")).unwrap();
    let all_printed = async |expected: &[String]| {
        let begun = Instant::now();
        while printed().lines().count() < expected.len() {
            assert!(begun.elapsed() < PATIENCE, "{}{}", printed(), std::fs::read_to_string(at.join("said")).unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(ids(&printed()), expected);
    };
    all_printed(&expected).await;
    for number in ["820305-1000112", "820305-2000117", "830305-1000112"] {
        block_in_place(|| service.kill());
        tokio::time::sleep(Duration::from_millis(300)).await;
        service = start();
        // Before whoever follows is back.
        expected.push(block_in_place(|| sell(&service, number)));
        front.aim(port(&service));
        all_printed(&expected).await;
    }
    block_in_place(|| service.stop());
}
