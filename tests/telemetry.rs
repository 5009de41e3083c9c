//! Telemetry against real peers: a collector in this process, one that is frozen, slow or away, and a scrape over HTTP.
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "real servers are waited for in real time")]

mod support;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use rationd::telemetry::metrics::{
    CutWhy, Kind, Metrics, RefusedWhen, RefusedWhy, ReloadOutcome, SessionOutcome, StockState, StoreVerb, TABLE,
    TlsPart, TripOutcome, Verb, VoidedBy,
};
use rationd::telemetry::{self, FLUSH_LIMIT, Program, Telemetry, TelemetryError, TelemetryOptions};
use rationd::time::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::Dispatch;

use support::collector::Collector;
use support::proxy::{Fault, Proxy};

/// Lines that were logged, for the test to read.
#[derive(Clone)]
struct Lines(mpsc::Sender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn options(json: bool, environment: &[(&str, &str)]) -> TelemetryOptions {
    let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let environment = environment.collect::<BTreeMap<_, _>>();
    TelemetryOptions { program: Program::Service, json, filter: "info".to_owned(), environment }
}

fn prepare(options: TelemetryOptions) -> (Telemetry, Dispatch, mpsc::Receiver<Vec<u8>>) {
    let (send, read) = mpsc::channel();
    let (telemetry, dispatch) = telemetry::prepare(options, Box::new(Lines(send))).expect("telemetry starts");
    (telemetry, dispatch, read)
}

/// One measurement of every row.
fn measure_everything(metrics: &Metrics) {
    let programme = "weekly-essentials".parse().expect("a programme");
    metrics.decided(programme, Verb::Purchase, "APPROVED");
    metrics.near_limit(programme);
    metrics.called("rationd.v1.PurchaseService/Purchase", "OK", Duration::from_millis(3));
    metrics.tripped(StoreVerb::Claim, TripOutcome::Ok, Duration::from_millis(2));
    metrics.carried(Duration::from_millis(1), Duration::from_millis(2), true);
    metrics.over_admitted();
    metrics.store_serving(true);
    metrics.store_volatile(false);
    metrics.stock_shown(StockState::Plenty, 3);
    metrics.stock_age(Duration::from_secs(1));
    metrics.feed_answered("/v1/stock", 200, Duration::from_micros(40));
    metrics.sessions_live(2);
    metrics.line(7, 100);
    metrics.session_opened(SessionOutcome::Admitted);
    metrics.foreign_token();
    metrics.policy_reloaded(ReloadOutcome::Applied);
    metrics.tls_reloaded(TlsPart::Own, ReloadOutcome::Rejected);
    metrics.tls_expires(Duration::from_secs(1_858_377_600));
    metrics.tls_revoked(1);
    metrics.certificate_refused(RefusedWhy::Revoked, RefusedWhen::Greeting);
    metrics.connection_cut(CutWhy::Silent);
    metrics.look_up_slowed();
    metrics.voided(VoidedBy::Site);
    metrics.unusual_voids();
    metrics.uploaded("RECORDED");
    metrics.audited(1, 1, true);
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_measurements_and_lines_arrive_at_a_collector() {
    let collector = Collector::start();
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_SERVICE_NAME", "rationd-south")];
    let (telemetry, dispatch, _lines) = prepare(options(false, &environment));
    let caller = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut told = http::HeaderMap::new();
    tracing::dispatcher::with_default(&dispatch, || {
        let mut headers = http::HeaderMap::new();
        let context = format!("00-{caller}-00f067aa0ba902b7-01");
        headers.insert("traceparent", context.parse().expect("a header value"));
        let make = || tracing::info_span!(target: "rationd::grpc", "rationd.v1.PurchaseService/Purchase");
        let span = telemetry::propagation::span_of_call(&headers, make);
        telemetry::propagation::name_parent(&span, &mut told);
        span.in_scope(|| tracing::info!(target: "rationd::grpc", "sold"));
        tracing::info!(target: "rationd::app", "said outside of any span");
        tracing::info!(target: "h2::client", "somebody else's");
        tracing::debug!(target: "rationd::app", "below the filter");
        tracing::info_span!(target: "h2::client", "somebody else's").in_scope(|| {});
    });
    measure_everything(&telemetry.metrics());
    telemetry.shutdown().await;

    let spans = collector.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["rationd.v1.PurchaseService/Purchase"], "our spans and nobody else's");
    assert_eq!((spans[0].service.as_str(), spans[0].trace.as_str()), ("rationd-south", caller));
    assert_eq!(spans[0].parent, "00f067aa0ba902b7", "the caller's trace goes on");
    assert_eq!(told["traceparent"], format!("00-{caller}-{}-01", spans[0].id), "and goes on from here");

    let mut lines: Vec<_> = collector.lines().into_iter().map(|line| (line.service, line.body, line.trace)).collect();
    // Threads hand them in as they come.
    lines.sort();
    let line = |body: &str, trace: &str| ("rationd-south".to_owned(), body.to_owned(), trace.to_owned());
    assert_eq!(lines, [line("said outside of any span", ""), line("sold", caller)]);

    let sent: Vec<String> = collector.metrics().into_keys().collect();
    let mut table: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    table.sort_unstable();
    assert_eq!(sent, table);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_sends_its_trace_and_nothing_else() {
    let collector = Collector::start();
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())];
    let options = TelemetryOptions { program: Program::Command, ..options(false, &environment) };
    let (telemetry, dispatch, _lines) = prepare(options);
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::info_span!(target: "rationd::cli", "sell").in_scope(|| tracing::info!(target: "rationd::cli", "sold"));
    });
    telemetry.shutdown().await;
    let spans: Vec<_> = collector.spans().into_iter().map(|span| (span.service, span.name)).collect();
    assert_eq!(spans, [("rationd-command".to_owned(), "sell".to_owned())]);
    assert!(collector.lines().is_empty() && collector.metrics().is_empty());
}

/// The body of `GET /metrics`, over a real connection.
async fn scrape(telemetry: &Telemetry) -> String {
    let (listener, address) = listen().await;
    let router = telemetry.scrape_router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    server.abort();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{answer}");
    answer
}

#[tokio::test]
async fn every_row_of_the_table_is_scraped_with_its_help_line_and_labels() {
    let (telemetry, _dispatch, _lines) = prepare(options(false, &[]));
    measure_everything(&telemetry.metrics());
    let page = scrape(&telemetry).await;
    for row in TABLE {
        let stem = row.name.replace('.', "_");
        let name = match row.kind {
            Kind::Counter => format!("{stem}_total"),
            Kind::Histogram => format!("{stem}_seconds"),
            Kind::Gauge => page
                .lines()
                .find_map(|line| line.strip_prefix("# HELP ")?.split(' ').next().filter(|name| name.starts_with(&stem)))
                .unwrap_or_else(|| panic!("{stem} is not on the page:\n{page}"))
                .to_owned(),
        };
        assert!(page.contains(&format!("# HELP {name} {}", row.help)), "{name}:\n{page}");
        let sample = page
            .lines()
            .find(|line| line.starts_with(&name))
            .unwrap_or_else(|| panic!("{name} has no sample:\n{page}"));
        for label in row.labels {
            assert!(sample.contains(&format!("{}=\"", label.replace('.', "_"))), "{label} is missing: {sample}");
        }
    }
    assert!(page.contains("outcome=\"APPROVED\"") && page.contains("programme=\"weekly-essentials\""), "{page}");
    assert!(page.contains("rpc_server_call_duration_seconds_bucket{") && page.contains("le=\"0.005\""), "{page}");
    assert!(page.contains("service_name=\"rationd\""), "{page}");
}

#[tokio::test]
async fn a_disabled_sdk_measures_nothing() {
    let (telemetry, _dispatch, _lines) = prepare(options(false, &[("OTEL_SDK_DISABLED", "true")]));
    measure_everything(&telemetry.metrics());
    assert!(!scrape(&telemetry).await.contains("rationd"));
}

/// Spans and measurements at full speed, then a shutdown, against this collector.
async fn nothing_waits_for(url: &str) {
    let (telemetry, dispatch, _lines) = prepare(options(false, &[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]));
    let clock = SystemClock::real();
    tracing::dispatcher::with_default(&dispatch, || {
        for _ in 0..20_000 {
            tracing::info_span!(target: "rationd::grpc", "a call").in_scope(|| {});
        }
    });
    let metrics = telemetry.metrics();
    for _ in 0..20_000 {
        metrics.tripped(StoreVerb::Claim, TripOutcome::Ok, Duration::from_millis(1));
    }
    let took = clock.monotonic();
    // An export times out after ten seconds; whoever waited for one would need longer than this.
    assert!(took < Duration::from_secs(8), "20,000 calls took {took:?}");
    telemetry.shutdown().await;
    let flushed = clock.monotonic() - took;
    assert!(flushed < FLUSH_LIMIT + Duration::from_secs(2), "shutdown took {flushed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_collector_holds_nobody_up() {
    let (listener, address) = listen().await;
    // Accepts, and then never says a word.
    let frozen = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    nothing_waits_for(&format!("http://{address}")).await;
    frozen.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_collector_holds_nobody_up() {
    let collector = Collector::start();
    let port = collector.url.rsplit(':').next().expect("a port").parse().expect("a port");
    let line = Proxy::to(port).await;
    line.strike(Fault::Trickle(Duration::from_millis(20)));
    nothing_waits_for(&format!("http://127.0.0.1:{}", line.port())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_collector_holds_nobody_up() {
    let (listener, address) = listen().await;
    drop(listener);
    nothing_waits_for(&format!("http://{address}")).await;
}

#[tokio::test]
async fn lines_are_for_people_or_for_machines() {
    let log = |json| async move {
        let (telemetry, dispatch, lines) = prepare(options(json, &[]));
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info_span!("call", site = "11234567").in_scope(|| tracing::info!(outcome = "APPROVED", "decided"));
            tracing::debug!("below the filter");
        });
        telemetry.shutdown().await;
        String::from_utf8(lines.try_iter().flatten().collect()).expect("text")
    };
    let human = log(false).await;
    assert!(human.contains("decided") && human.contains("outcome=\"APPROVED\""), "{human}");
    assert!(!human.contains("11234567"), "a span is for traces, its fields are in no line: {human}");
    assert!(!human.contains("below the filter") && !human.contains('\u{1b}'), "{human}");
    let json = log(true).await;
    let line: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    assert_eq!(line["message"], "decided");
    assert!(line.get("span").is_none());
    assert_eq!(line["outcome"], "APPROVED");
}

#[tokio::test]
async fn bad_settings_name_themselves_and_the_remedy() {
    let error = |options| telemetry::prepare(options, Box::new(io::sink())).err().expect("an error");
    let filter = error(TelemetryOptions { filter: "rationd=loud".to_owned(), ..options(false, &[]) });
    assert!(matches!(filter, TelemetryError::Filter { .. }) && filter.to_string().contains("rationd=loud"), "{filter}");
}

#[tokio::test]
async fn a_collector_that_cannot_be_called_is_told_and_done_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let spoilt = folder.path().join("ca.pem");
    std::fs::write(&spoilt, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n").expect("written");
    let spoilt = spoilt.to_str().expect("a path");
    let (at, ca) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_CERTIFICATE");
    for (environment, named) in [
        (vec![(at, "not a url")], at),
        (vec![(at, "https://127.0.0.1:4317")], ca),
        (vec![(at, "https://127.0.0.1:4317"), (ca, "/nowhere/ca.pem")], "/nowhere/ca.pem"),
        (vec![(at, "https://127.0.0.1:4317"), (ca, spoilt)], spoilt),
    ] {
        let (telemetry, _dispatch, _lines) = prepare(options(false, &environment));
        let [warning] = telemetry.warnings() else { panic!("{environment:?}: {:?}", telemetry.warnings()) };
        assert!(warning.contains(named) && warning.contains("nothing is sent"), "{warning}");
        measure_everything(&telemetry.metrics());
        assert!(scrape(&telemetry).await.contains("rationd_decisions_total"));
    }
}
