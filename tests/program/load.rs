//! The load harness against real services: a run that audits clean, a service that is killed or stands still, a bad scenario,
//! several processes. Rates are those of a busy machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::service::{Ran, Service, rationd, run, shell, signal};
use crate::support::redis::RedisServer;

/// Three seconds of the canonical scenario, small.
const SMALL: [&str; 7] = ["load", "--seconds", "3", "--rate", "60", "--json", "--quiet"];

/// A directory whose services know the programme of the scenario, and the demo sites as a file.
fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("programmes")).unwrap();
    let ran = shell_of(directory.path(), "load --print-programme > programmes/load.toml");
    assert_eq!(ran.code, 0, "{ran:?}");
    std::fs::write(directory.path().join("sites.csv"), include_str!("../../src/sites/demo.csv")).unwrap();
    directory
}

/// A service in such a directory.
fn prepared_service(directory: &Path) -> Service {
    let seats = [("RATIOND_SESSIONS__CAP_DEFAULT", "2")];
    let service = Service::start(directory, &["--policies", "programmes"], &seats);
    service.await_health(0);
    service
}

fn load(directory: &Path, arguments: &[&str]) -> Ran {
    rationd(directory, &[&SMALL[..], arguments].concat(), "")
}

fn count(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {value:#}"))
}

/// Every call of a history file.
fn history(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|mut line| Some(line.get_mut("asked")?.take())).collect()
}

/// The process that listens for terminals on the address that a run names. Only a service of the harness's own is looked for.
fn own_service_of(harness: u32) -> Option<u32> {
    let children = format!("/proc/{harness}/task/{harness}/children");
    let tasks = std::fs::read_dir(format!("/proc/{harness}/task")).ok()?;
    let children = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .chain(std::fs::read_to_string(children).ok());
    children.flat_map(|pids| pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).find_map(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        line.split('\0').any(|word| word == "serve").then(|| pid.parse().ok())?
    })
}

/// A harness that runs; its service has been found.
fn begun(directory: &Path, arguments: &[&str]) -> (std::process::Child, u32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
    command.args(["load", "--json", "--quiet"]).args(arguments).current_dir(directory);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let look = || {
        std::thread::sleep(Duration::from_millis(10));
        own_service_of(child.id())
    };
    let service = std::iter::repeat_with(look).take(3_000).find_map(|found| found);
    (child, service.expect("the harness has started no service"))
}

fn ended(child: std::process::Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

#[test]
fn a_short_run_audits_clean_and_adds_up() {
    let directory = tempfile::tempdir().unwrap();
    let ran = load(directory.path(), &["--history", "calls.jsonl"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary = ran.json();
    let calls = history(&directory.path().join("calls.jsonl"));
    let outcomes = |name: &str| {
        let is = |call: &&Value| {
            let outcome = &call["outcome"];
            outcome.as_str() == Some(name) || outcome.get(name).is_some()
        };
        calls.iter().filter(is).count() as u64
    };
    assert!(calls.len() > 100, "{} calls", calls.len());
    assert!(outcomes("approved") > 50 && outcomes("refused") > 0 && outcomes("held") > 0, "{summary:#}");
    assert_eq!(count(&summary, "/offered"), calls.len() as u64, "{summary:#}");
    assert!(summary.get("audit").is_some_and(Value::is_object), "{summary:#}");
    let page = std::fs::read_to_string(directory.path().join("rationd-load.html")).unwrap();
    assert!(page.contains("canonical"));
    // Nobody's number is in anything that was written.
    let kept = std::fs::read_to_string(directory.path().join("calls.jsonl")).unwrap();
    for written in [&ran.out, &ran.err, &page, &kept] {
        let runs = written.split(|c: char| !c.is_ascii_digit() && c != '-').filter(|run| run.len() >= 13);
        let number =
            runs.filter(|run| rationd::buyer::parse_kr_resident(run, "2026-01-01".parse().unwrap(), true).is_ok());
        assert_eq!(number.count(), 0);
    }
}

#[test]
fn the_same_seed_sends_the_same_calls_at_the_same_times_whatever_shares_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let planned = |file: &str, arguments: &[&str]| {
        let ran = load(directory.path(), &[&["--history", file], arguments].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(count(&ran.json(), "/run/processes"), if arguments.contains(&"--processes") { 2 } else { 1 });
        let first = |call: &Value| matches!(call["verb"].as_str(), Some("purchase" | "hold"));
        let calls = history(&directory.path().join(file));
        let mut planned: Vec<_> = calls
            .iter()
            .filter(|call| first(call))
            .map(|call| [&call["intended"], &call["buyer"], &call["site"], &call["quantity"]].map(Value::to_string))
            .collect();
        planned.sort();
        planned
    };
    let one = planned("one.jsonl", &[]);
    let two = planned("two.jsonl", &["--processes", "2"]);
    assert!(one.len() > 100);
    assert_eq!(one, two);
    assert_ne!(planned("other.jsonl", &["--seed", "7"]), one);
}

#[test]
fn a_service_that_is_killed_is_reported_with_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (harness, service) = begun(directory.path(), &["--seconds", "30", "--rate", "60"]);
    std::thread::sleep(Duration::from_secs(5));
    signal(service, "KILL");
    let killed = Instant::now();
    let ran = ended(harness);
    assert_eq!(ran.code, 70, "{ran:?}");
    assert!(killed.elapsed() < Duration::from_secs(15), "it went on for {:?}", killed.elapsed());
    let summary = ran.json();
    assert!(count(&summary, "/accepted") > 10, "{summary:#}");
    assert!(summary.to_string().contains("signal: 9"), "{summary:#}");
    let kept = ran.err.lines().find_map(|line| line.strip_prefix("the service's ledger and log are kept in ")).unwrap();
    assert!(Path::new(kept).join("service.log").exists());
    std::fs::remove_dir_all(kept).unwrap();
}

#[test]
fn a_remote_service_that_goes_away_is_missed_after_some_seconds() {
    let directory = prepared();
    let mut service = prepared_service(directory.path());
    let (address, operator) = (service.address.clone(), format!("http://{}", service.admin));
    let remote = ["--address", &address, "--operator", &operator, "--sites", "sites.csv"];
    // Alive it is audited; the sites are its own.
    let ran = load(directory.path(), &remote);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
    command.args(["load", "--json", "--quiet", "--seconds", "30", "--rate", "30", "--seed", "3"]).args(remote);
    command.current_dir(directory.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let harness = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(4));
    service.kill();
    let ran = ended(harness);
    assert_eq!(ran.code, 70, "{ran:?}");
    assert!(count(&ran.json(), "/accepted") > 0);
}

/// A line of shell in which the program is called `rationd`.
fn shell_of(directory: &Path, arguments: &str) -> Ran {
    shell(directory, &format!("{} {arguments}", env!("CARGO_BIN_EXE_rationd")))
}

#[test]
fn a_service_that_does_not_fit_is_told_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &[], &[]);
    service.await_health(0);
    std::fs::write(directory.path().join("sites.csv"), include_str!("../../src/sites/demo.csv")).unwrap();
    let ran = load(directory.path(), &["--address", &service.address, "--without-audit"]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("--sites FILE"), "{}", ran.err);
    let ran = load(directory.path(), &["--address", &service.address, "--sites", "sites.csv", "--without-audit"]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("--print-programme") && ran.err.contains("--policies"), "{}", ran.err);
    // Sites of a kind that the programme leaves out would rightly refuse everybody.
    let sites = include_str!("../../src/sites/demo.csv").replace(",mart,", ",cafe,");
    std::fs::write(directory.path().join("cafes.csv"), sites).unwrap();
    let ran = load(directory.path(), &["--sites", "cafes.csv"]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("load-canonical does not enrol the channel cafe"), "{}", ran.err);
    let nobody = load(directory.path(), &["--address", "http://127.0.0.1:1", "--without-audit"]);
    assert_eq!(nobody.code, 70, "{nobody:?}");
    assert!(nobody.err.contains("cannot be reached"), "{}", nobody.err);
}

#[test]
fn a_pause_of_the_service_is_seen_by_everybody_who_came_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let (harness, service) = begun(directory.path(), &["--seconds", "8", "--rate", "60", "--history", "calls.jsonl"]);
    std::thread::sleep(Duration::from_secs(4));
    signal(service, "STOP");
    std::thread::sleep(Duration::from_millis(1_200));
    signal(service, "CONT");
    let ran = ended(harness);
    assert_eq!(ran.code, 0, "{ran:?}");
    let span =
        |call: &Value, name: &str| call[name]["secs"].as_f64().unwrap() + call[name]["nanos"].as_f64().unwrap() / 1e9;
    let calls = history(&directory.path().join("calls.jsonl"));
    let mut latency: Vec<f64> = calls.iter().map(|call| span(call, "answered") - span(call, "intended")).collect();
    latency.sort_by(f64::total_cmp);
    assert!(latency.last().copied().unwrap() >= 1.0, "the worst is {:?} s", latency.last());
    // A tenth of the run and more stood still: half of those who came then waited for more than a quarter of it.
    let waited = latency.iter().filter(|latency| **latency >= 0.3).count() as f64 / latency.len() as f64;
    assert!(waited >= 0.04, "only {waited} of all waited");
}

#[test]
fn a_bad_scenario_names_line_and_field() {
    let directory = tempfile::tempdir().unwrap();
    let ran = shell_of(directory.path(), "load --print-scenario > mine.toml");
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = std::fs::read_to_string(directory.path().join("mine.toml")).unwrap();
    let bad = text.replace("twice_share = 0.08", "twice_share = 8").replace("hot = 50", "hots = 50");
    std::fs::write(directory.path().join("mine.toml"), &bad).unwrap();
    let line = |start: &str| bad.lines().position(|line| line.starts_with(start)).unwrap() + 1;
    let ran = rationd(directory.path(), &["load", "--scenario", "mine.toml"], "");
    assert_eq!(ran.code, 64, "{ran:?}");
    for expected in [
        format!("mine.toml:{}: people.twice_share: must be a number from 0 to 1", line("twice_share")),
        format!("mine.toml:{}: people.hots: there is no such field", line("hots")),
    ] {
        assert!(ran.err.contains(&expected), "{expected} in {}", ran.err);
    }
    let ran = rationd(directory.path(), &["load", "--scenario", "nonsense"], "");
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("built in are canonical, morning"), "{}", ran.err);
}

#[test]
fn a_run_that_is_interrupted_reports_what_was() {
    let directory = tempfile::tempdir().unwrap();
    let (harness, _) = begun(directory.path(), &["--seconds", "60", "--rate", "40"]);
    std::thread::sleep(Duration::from_secs(4));
    signal(harness.id(), "INT");
    let asked = Instant::now();
    let ran = ended(harness);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.json().to_string().contains("interrupted"), "{}", ran.out);
}

#[test]
fn workers_of_several_machines_are_made_one_run() {
    let directory = prepared();
    let service = prepared_service(directory.path());
    let start_at = {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let at = rationd::time::Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap() + 5_000);
        at.to_string()
    };
    let workers: Vec<_> = ["1/2", "2/2"]
        .into_iter()
        .map(|part| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
            command.args(["load", "--seconds", "3", "--rate", "40", "--sites", "sites.csv"]);
            command.args(["--address", &service.address, "--start-at", &start_at, "--worker", part]);
            command.args(["--history", &format!("{}.jsonl", part.replace('/', "-"))]);
            let directory = directory.path().to_owned();
            std::thread::spawn(move || run(command, &directory, ""))
        })
        .collect();
    for worker in workers {
        let ran = worker.join().unwrap();
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let operator = format!("http://{}", service.admin);
    let merge = ["load", "--merge", "1-2.jsonl", "2-2.jsonl", "--operator", &operator, "--json"];
    let ran = rationd(directory.path(), &merge, "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(count(&ran.json(), "/run/processes"), 2);
    assert!(count(&ran.json(), "/accepted") > 10);

    // A worker that comes after its time would begin a run of its own.
    let past = ["--start-at", "2026-01-01T00:00:00Z", "--worker", "1/2", "--history", "late.jsonl"];
    let ran = rationd(directory.path(), &[&["load", "--address", &service.address], &past[..]].concat(), "");
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.err.contains("which is past") && !directory.path().join("late.jsonl").exists(), "{}", ran.err);

    // Half of it is no run, and neither is one half twice.
    for (files, wrong) in [(&["1-2.jsonl"][..], "2/2 is missing"), (&["2-2.jsonl"; 2], "1/2 is missing, 2/2 is there")]
    {
        let ran = rationd(directory.path(), &[&["load", "--operator", &operator, "--merge"], files].concat(), "");
        assert_eq!(ran.code, 64, "{ran:?}");
        assert!(ran.err.contains(wrong), "{}", ran.err);
    }

    // The ledger of another service says nothing about this run.
    let elsewhere = prepared();
    let another = prepared_service(elsewhere.path());
    let other = format!("http://{}", another.admin);
    let ran = rationd(directory.path(), &["load", "--merge", "1-2.jsonl", "2-2.jsonl", "--operator", &other], "");
    assert_eq!(ran.code, 70, "{ran:?}");
    assert!(ran.err.contains("not audited: the operator's ledger is "), "{}", ran.err);

    // A receipt of which the ledger knows nothing is a case, and is listed.
    let part = std::fs::read_to_string(directory.path().join("1-2.jsonl")).unwrap();
    let mut receipt: Value = part.lines().find(|line| line.contains("approved")).unwrap().parse().unwrap();
    let made_up = rationd::ids::RequestId::random().to_string();
    receipt["asked"]["request"] = made_up.clone().into();
    std::fs::write(directory.path().join("1-2.jsonl"), format!("{part}{receipt}\n")).unwrap();
    let ran = rationd(directory.path(), &merge, "");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains(&made_up), "{}", ran.out);
}

#[test]
fn a_run_over_streams_audits_clean_too() {
    let directory = tempfile::tempdir().unwrap();
    let ran = load(directory.path(), &["--wire", "stream", "--processes", "2"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()["run"]["wire"], "stream");
    assert!(count(&ran.json(), "/accepted") > 50, "{}", ran.out);
}

#[test]
fn one_redis_takes_one_run_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    for seed in ["1", "2"] {
        let ran = load(directory.path(), &["--store", &redis.url(), "--seed", seed]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(ran.json()["run"]["own_service"], "redis");
        assert!(count(&ran.json(), "/accepted") > 50, "{}", ran.out);
    }
}

#[test]
fn a_simulated_day_is_run_again_on_one_redis() {
    let directory = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    assert_eq!(shell_of(directory.path(), "load --print-scenario > mine.toml").code, 0);
    let text = std::fs::read_to_string(directory.path().join("mine.toml")).unwrap();
    let simulated = text.replace("[sites]", "clock = \"2020-03-28T08:59:50+09:00\"\n[sites]");
    assert_ne!(simulated, text);
    std::fs::write(directory.path().join("mine.toml"), simulated).unwrap();
    // The same people come at the same times, by a clock that starts again before the first run's entries.
    for earlier in [false, true] {
        let ran = load(directory.path(), &["--scenario", "mine.toml", "--store", &redis.url()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let summary = ran.json();
        assert!(count(&summary, "/audit/refusals") + count(&summary, "/accepted") > 50, "{summary:#}");
        assert_eq!(count(&summary, "/audit/strangers") > 0, earlier, "{summary:#}");
    }
}

#[test]
fn a_closed_loop_goes_on_and_what_the_harness_cannot_hold_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(shell_of(directory.path(), "load --print-scenario > mine.toml").code, 0);
    let text = std::fs::read_to_string(directory.path().join("mine.toml")).unwrap();
    let (head, _) = text.split_once("[[phases]]").unwrap();
    let closed = format!("{head}[closed]\ncallers = 6\nthink_ms = 20\nseconds = 3\n");
    std::fs::write(directory.path().join("closed.toml"), closed).unwrap();
    let ran = rationd(directory.path(), &["load", "--scenario", "closed.toml", "--json", "--quiet"], "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(count(&ran.json(), "/accepted") > 6 && count(&ran.json(), "/not_sent") == 0, "{}", ran.out);
    let ran = rationd(directory.path(), &["load", "--scenario", "closed.toml", "--rate", "5"], "");
    assert_eq!(ran.code, 64, "{ran:?}");

    std::fs::write(directory.path().join("narrow.toml"), text.replace("[sites]", "in_flight = 1\n[sites]")).unwrap();
    let ran = load(directory.path(), &["--scenario", "narrow.toml"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let summary = ran.json();
    assert!(count(&summary, "/not_sent") > 10, "{summary:#}");
    assert_eq!(count(&summary, "/offered"), count(&summary, "/sent") + count(&summary, "/not_sent"));
}

/// A relay that speaks TLS to those who show a certificate of the authority, and plainly to the service.
async fn relay(service: String, identity: &rcgen::CertifiedKey<rcgen::KeyPair>) -> std::net::SocketAddr {
    use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
    let provider = std::sync::Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(identity.cert.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(clients).with_single_cert(vec![identity.cert.der().clone()], key);
    let mut config = config.unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            let (acceptor, service) = (acceptor.clone(), service.clone());
            tokio::spawn(async move {
                let mut caller = acceptor.accept(caller).await.ok()?;
                let mut service = tokio::net::TcpStream::connect(service).await.ok()?;
                tokio::io::copy_bidirectional(&mut caller, &mut service).await.ok()
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_over_tls_shows_its_certificate() {
    let directory = prepared();
    let service = prepared_service(directory.path());
    let identity = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(directory.path().join("cert.pem"), identity.cert.pem()).unwrap();
    std::fs::write(directory.path().join("key.pem"), identity.signing_key.serialize_pem()).unwrap();
    let counters = relay(service.address.replace("http://", ""), &identity).await;
    let admin = relay(service.admin.clone(), &identity).await;
    let over_tls = |more: &'static [&'static str]| {
        let url = |relay: std::net::SocketAddr| format!("https://localhost:{}", relay.port());
        let (address, operator, at) = (url(counters), url(admin), directory.path().to_owned());
        tokio::task::spawn_blocking(move || {
            let remote = ["--address", &address, "--operator", &operator, "--sites", "sites.csv"];
            load(&at, &[&remote[..], more].concat())
        })
    };
    let ran =
        over_tls(&["--tls-ca", "cert.pem", "--tls-certificate", "cert.pem", "--tls-key", "key.pem"]).await.unwrap();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(count(&ran.json(), "/accepted") > 50, "{}", ran.out);
    let nobody = over_tls(&["--tls-ca", "cert.pem"]).await.unwrap();
    assert_eq!(nobody.code, 64, "without a certificate: {nobody:?}");
    assert!(nobody.err.contains("--tls-certificate FILE"), "{}", nobody.err);
    let blind = over_tls(&[]).await.unwrap();
    assert_eq!(blind.code, 64, "without an authority: {blind:?}");
    assert!(blind.err.contains("--tls-ca FILE"), "{}", blind.err);
}
