//! Telemetry against real peers: a collector in this process, one that is frozen, and a scrape over HTTP.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use rationd::telemetry::metrics::{
    Kind, Metrics, RefusedWhen, RefusedWhy, ReloadOutcome, SessionOutcome, StoreVerb, TABLE, TlsPart, TripOutcome,
    Verb, VoidedBy,
};
use rationd::telemetry::{self, FLUSH_LIMIT, Telemetry, TelemetryError, TelemetryOptions};
use rationd::time::{Clock, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing::Dispatch;

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
    TelemetryOptions { json, filter: "info".to_owned(), environment: environment.collect::<BTreeMap<_, _>>() }
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
    metrics.store_serving(true);
    metrics.store_volatile(false);
    metrics.sessions_live(2);
    metrics.line(7, 100);
    metrics.session_opened(SessionOutcome::Admitted);
    metrics.foreign_token();
    metrics.policy_reloaded(ReloadOutcome::Applied);
    metrics.tls_reloaded(TlsPart::Own, ReloadOutcome::Rejected);
    metrics.tls_expires(Duration::from_secs(1_858_377_600));
    metrics.tls_revoked(1);
    metrics.certificate_refused(RefusedWhy::Revoked, RefusedWhen::Greeting);
    metrics.look_up_slowed();
    metrics.voided(VoidedBy::Site);
    metrics.unusual_voids();
}

#[derive(Clone)]
struct Collector {
    spans: mpsc::Sender<ExportTraceServiceRequest>,
    metrics: mpsc::Sender<ExportMetricsServiceRequest>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.spans.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let _ = self.metrics.send(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_and_measurements_arrive_at_a_collector() {
    let (listener, address) = listen().await;
    let (spans, sent_spans) = mpsc::channel();
    let (metrics, sent_metrics) = mpsc::channel();
    let collector = Collector { spans, metrics };
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );

    let url = format!("http://{address}");
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_SERVICE_NAME", "rationd-south")];
    let (telemetry, dispatch, _lines) = prepare(options(false, &environment));
    let caller = "4bf92f3577b34da6a3ce929d0e0e4736";
    tracing::dispatcher::with_default(&dispatch, || {
        let span = tracing::info_span!(target: "rationd::grpc", "rationd.v1.PurchaseService/Purchase");
        let mut headers = http::HeaderMap::new();
        let context = format!("00-{caller}-00f067aa0ba902b7-01");
        headers.insert("traceparent", context.parse().expect("a header value"));
        telemetry::propagation::adopt_parent(&span, &headers);
        span.in_scope(|| tracing::info!(target: "rationd::grpc", "sold"));
        tracing::info_span!(target: "h2::client", "somebody else's").in_scope(|| {});
    });
    measure_everything(&telemetry.metrics());
    telemetry.shutdown().await;

    let resources: Vec<_> = sent_spans.try_iter().flat_map(|request| request.resource_spans).collect();
    let named = resources.iter().flat_map(|r| r.resource.iter().flat_map(|r| &r.attributes));
    let named: Vec<_> = named.filter(|attribute| attribute.key == "service.name").collect();
    assert!(format!("{named:?}").contains("rationd-south"), "{named:?}");
    let spans: Vec<_> = resources.iter().flat_map(|r| r.scope_spans.iter().flat_map(|s| &s.spans)).collect();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["rationd.v1.PurchaseService/Purchase"], "our spans and nobody else's");
    let trace: String = spans[0].trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(trace, caller, "the caller's trace goes on");

    let sent = sent_metrics.try_iter().flat_map(|request| request.resource_metrics).flat_map(|r| r.scope_metrics);
    let mut sent: Vec<String> = sent.flat_map(|scope| scope.metrics).map(|metric| metric.name).collect();
    let mut table: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    sent.sort();
    table.sort_unstable();
    sent.dedup();
    assert_eq!(sent, table);
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
    let endpoint = error(options(false, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "not a url")]));
    assert!(endpoint.to_string().contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), "{endpoint}");
}
