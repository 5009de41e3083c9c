//! What is seen of a sale from outside, and that seeing it costs nobody a sale: real collectors, one of them frozen, one that
//! is nowhere.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rationd::config::environment;
use rationd::grpc::v1::{self, purchase_result::Outcome};
use rationd::ids::RequestId;
use rationd::terminal::Session;

use super::service::{Ran, Service, rationd, run, signal};
use super::shops::{MANY_SEATS, SATURDAY, SITES, number, purchase, sell};
use crate::support::collector::{Collector, tree};
use crate::support::redis::RedisServer;

/// What a collector is sent is sent at once.
const AT_ONCE: [(&str, &str); 3] =
    [("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_BLRP_SCHEDULE_DELAY", "50"), ("OTEL_METRIC_EXPORT_INTERVAL", "100")];
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Every call, whatever its caller says.
const EVERY: (&str, &str) = ("OTEL_TRACES_SAMPLER", "always_on");
const SOLD_TO: &str = "810305-1000112";
const CALLER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Looks until it is so; fails with what it saw last.
fn until<T: std::fmt::Debug>(mut look: impl FnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let seen = look();
        if is_so(&seen) {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{seen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `rationd sell` with its trace sent there too, under a caller's span with these flags.
fn sell_traced(service: &Service, directory: &Path, collector: &Collector, flags: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
    command.args(["sell", "--number", SOLD_TO, "--address", &service.address]);
    command.env(ENDPOINT, &collector.url).env("TRACEPARENT", format!("00-{CALLER}-00f067aa0ba902b7-{flags}"));
    run(command, directory, "")
}

#[test]
fn a_sale_is_one_trace_from_its_caller_to_redis_and_a_caller_may_ask_for_none() {
    let (collector, redis) = (Collector::start(), RedisServer::start());
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let few = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let variables = [&AT_ONCE[..], &few, &[(ENDPOINT, &collector.url)]].concat();
    let service = Service::start(directory.path(), &["--store", &redis.url(), "--clock", SATURDAY], &variables);
    service.await_health(0);

    // Not to be traced, by the caller's own word; what follows shows that it would have arrived by then.
    assert_eq!(sell_traced(&service, directory.path(), &collector, "00").code, 0);
    assert!(collector.spans().iter().all(|span| span.trace != CALLER), "{:?}", collector.spans());
    let sold = sell_traced(&service, directory.path(), &collector, "01");
    assert_eq!(sold.code, 0, "{sold:?}");
    let of_trace = || {
        let spans = collector.spans().into_iter();
        spans.filter(|span| span.trace == CALLER).collect::<Vec<_>>()
    };
    let spans = until(of_trace, |spans| spans.len() >= 4);
    println!("{}", tree(&spans));
    assert!(collector.spans().iter().all(|span| span.trace == CALLER), "nobody else asked for one");

    let purchase = "rationd.v1.PurchaseService/Purchase";
    let mut parent = "00f067aa0ba902b7".to_owned();
    for (service, name, kind) in [
        ("rationd-command", "sell", "Internal"),
        ("rationd-command", purchase, "Client"),
        ("rationd", purchase, "Server"),
        ("rationd", "claim", "Client"),
    ] {
        let mut below = spans.iter().filter(|span| span.parent == parent);
        let span = below.next().unwrap_or_else(|| panic!("nothing under {parent}: {spans:?}"));
        assert_eq!((span.service.as_str(), span.name.as_str()), (service, name));
        assert_eq!(format!("{:?}", span.kind), kind, "{span:?}");
        assert!(!span.failed && below.next().is_none(), "{spans:?}");
        parent.clone_from(&span.id);
    }
    let store = spans.iter().find(|span| span.id == parent).unwrap();
    let port = redis.port().to_string();
    for (attribute, value) in [
        ("db.system.name", "redis"),
        ("db.operation.name", "EVALSHA"),
        ("db.stored_procedure.name", "claim"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
    ] {
        assert_eq!(store.attributes.get(attribute).map(String::as_str), Some(value), "{store:?}");
    }

    // Lines and measurements come the same way, and over_admitted is there to be seen as 0.
    until(|| collector.lines(), |lines| lines.iter().any(|line| line.body == "the store can record sales"));
    let metrics = until(|| collector.metrics(), |sent| sent.contains_key("rationd.decisions"));
    assert!(metrics["rationd.over_admitted"].contains("AsInt(0)"), "{metrics:?}");
    assert!(service.metrics().contains("rationd_over_admitted_total{otel_scope_name=\"rationd\"} 0"));
    assert!(metrics.contains_key("db.client.operation.duration"), "{metrics:?}");
    service.stop();
    // Nobody may be found by what is sent: neither by the number nor by a part of it.
    let everything = collector.everything();
    for secret in [SOLD_TO, &SOLD_TO.replace('-', ""), "810305-1"] {
        assert!(!everything.contains(secret), "{secret} was sent to the collector");
    }
}

/// What goes on although its caller may have gone is a part of the call's trace all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_to_its_end_is_in_the_trace_of_its_call() {
    let collector = Collector::start();
    let directory = tempfile::tempdir().unwrap();
    let variables = [&AT_ONCE[..], &[(ENDPOINT, &collector.url), EVERY]].concat();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &variables);
    service.await_health(0);
    let (_terminal, session) = service.session(SITES[0], "w1").await;
    let id = RequestId::random();
    let mut family = purchase(&number(1), 1, id);
    family.agent = Some(v1::Agent { birth_year: 1980 });
    family.lines.extend(purchase(&number(2), 1, RequestId::random()).lines);
    for line in &mut family.lines {
        (line.relation, line.papers) = ("family".into(), vec!["family_relation_certificate".into()]);
    }
    let sold = session.purchase(family).await.unwrap();
    assert!(sold.results.iter().all(|it| matches!(it.outcome, Some(Outcome::Approved(_)))), "{sold:?}");
    let (admin, id) = (format!("http://{}", service.admin), id.to_string());
    let whose = ["operator", "void", "--site", SITES[0], "--request-id", &id];
    let why = ["--reason", "not theirs", "--address", &admin];
    let voided = rationd(directory.path(), &[&whose[..], &why].concat(), &number(1));
    assert_eq!(voided.code, 0, "{voided:?}");
    let (family, void) = ("PurchaseService/Purchase", "OperatorService/VoidForBuyer");
    for (call, verbs) in [(family, &["claim", "claim"][..]), (void, &["void"])] {
        let below = || {
            let spans = collector.spans();
            let of_call = spans.iter().find(|span| span.name.ends_with(call))?;
            let below = spans.iter().filter(|span| span.parent == of_call.id);
            Some(below.map(|span| span.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(until(below, Option::is_some).unwrap(), verbs, "{call}");
    }
    service.stop();
}

#[test]
fn a_call_that_fails_is_seen_to_have_failed() {
    let (collector, mut redis) = (Collector::start(), RedisServer::start());
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let variables = [&AT_ONCE[..], &[(ENDPOINT, &collector.url), EVERY]].concat();
    let service = Service::start(directory.path(), &["--store", &redis.url(), "--clock", SATURDAY], &variables);
    service.await_health(0);
    redis.kill();
    service.await_health(1);
    let looked = service.call(&["check", "--number", SOLD_TO], "");
    assert_eq!(looked.code, 3, "{looked:?}");
    let failed = || collector.spans().into_iter().filter(|span| span.failed).collect::<Vec<_>>();
    let failed = until(failed, |spans| {
        let error = |name: &str| spans.iter().find(|s| s.name == name)?.attributes.get("error.type").cloned();
        error("usage").as_deref() == Some("store_unavailable")
            && error("rationd.v1.PurchaseService/CheckPurchase").as_deref() == Some("UNAVAILABLE")
    });
    println!("{}", tree(&failed));
}

#[test]
fn a_collector_that_is_nowhere_is_told_of_in_a_line_and_everything_is_served() {
    let directory = tempfile::tempdir().unwrap();
    for (url, told) in [
        ("http://collector.invalid:4317", "collector.invalid:4317 cannot be found"),
        ("not a url", "this is not where a collector listens"),
        ("http://127.0.0.1:9", "the collector does not take"),
    ] {
        let variables = [&AT_ONCE[..], &[(ENDPOINT, url)]].concat();
        let service = Service::start(directory.path(), &["--clock", SATURDAY], &variables);
        service.await_health(0);
        let sold = service.call(&["sell", "--number", SOLD_TO], "");
        assert!(sold.code <= 1, "it was decided: {sold:?}");
        let log = until(|| service.log(), |log| log.contains(told));
        let line = log.lines().find(|line| line.contains(told)).unwrap();
        println!("{line}");
        assert!(line.contains("WARN"), "{line}");
        // However often it is tried, it is told once.
        let count = log.lines().filter(|line| line.contains("does not take spans")).count();
        assert!(count <= 1, "{log}");
        service.stop();
    }
}

/// A collector that is a process of its own: this very program, which runs the test below.
struct Apart {
    child: Child,
    url: String,
}

/// Names the file in which the process below says where it listens.
const APART: &str = "COLLECTOR_APART";

/// Not a test unless it is asked to be a collector: it is one until its standard input ends.
#[test]
fn a_collector_apart() {
    let Some((_, file)) = environment().find(|(name, _)| name == APART) else { return };
    let collector = Collector::start();
    std::fs::write(file, format!("{}\n", collector.url)).unwrap();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

impl Apart {
    fn start(directory: &Path) -> Self {
        let file = directory.join("collector");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "program::telemetry::a_collector_apart"])
            .env(APART, &file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = until(|| std::fs::read_to_string(&file).unwrap_or_default(), |said| said.ends_with('\n'));
        Self { child, url: said.trim().to_owned() }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process keeps in memory, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// What a time of selling came to.
#[derive(Debug)]
struct Sold {
    sales: u64,
    longest: Duration,
}

/// Every terminal sells to one new person after the other for so long; each sale must be approved.
async fn sell_for(span: Duration, sessions: &[Session], people: &mut u64) -> Sold {
    let first = *people;
    let selling = sessions.iter().enumerate().map(|(terminal, session)| async move {
        let (begun, mut sold) = (Instant::now(), Sold { sales: 0, longest: Duration::ZERO });
        while begun.elapsed() < span {
            let buyer = number(first + sold.sales * 64 + terminal as u64);
            let asked = Instant::now();
            let outcome = sell(session, &buyer, 1, RequestId::random()).await.unwrap();
            assert!(matches!(outcome, Outcome::Approved(_)), "{outcome:?}");
            sold.longest = sold.longest.max(asked.elapsed());
            sold.sales += 1;
        }
        sold
    });
    let sold: Vec<Sold> = futures_util::future::join_all(selling).await;
    *people += 64 * sold.iter().map(|sold| sold.sales).max().unwrap_or_default();
    Sold {
        sales: sold.iter().map(|sold| sold.sales).sum(),
        longest: sold.iter().map(|sold| sold.longest).max().unwrap_or_default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_collector_costs_no_sale_no_time_and_no_memory() {
    const SPAN: Duration = Duration::from_secs(4);
    let (redis, directory) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let collector = Apart::start(directory.path());
    Service::start(directory.path(), &[], &[]).stop();
    let variables = [&AT_ONCE[..], &[(ENDPOINT, &collector.url), EVERY, MANY_SEATS]].concat();
    let service = Service::start(directory.path(), &["--store", &redis.url(), "--clock", SATURDAY], &variables);
    service.await_health(0);
    let mut sessions = Vec::new();
    for nth in 0..32 {
        sessions.push(service.session(SITES[nth % SITES.len()], &format!("t{nth}")).await.1);
    }
    let mut people = 0;
    sell_for(SPAN, &sessions, &mut people).await;
    let taken = sell_for(SPAN, &sessions, &mut people).await;
    let before = resident(service.pid());

    signal(collector.child.id(), "STOP");
    // By now what is on its way to the collector is full, and every queue before it.
    sell_for(SPAN, &sessions, &mut people).await;
    let full = resident(service.pid());
    let frozen = sell_for(SPAN, &sessions, &mut people).await;
    let after = resident(service.pid());
    println!("taken: {taken:?}, {before} KiB; frozen: {frozen:?}, {full} and then {after} KiB");
    // An export is given up after ten seconds: whoever waited for one would sell next to nothing.
    assert!(frozen.sales * 2 > taken.sales, "{frozen:?} beside {taken:?}");
    assert!(frozen.longest < Duration::from_secs(5), "{frozen:?}");
    assert!(after < before + 64 * 1_024, "{before} KiB grew to {after}");

    // It ends in time, whatever is still to be sent.
    drop(sessions);
    let begun = Instant::now();
    tokio::task::block_in_place(|| service.stop());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    signal(collector.child.id(), "CONT");
}
