//! What the service shows of itself: log lines on standard error, traces, metrics and the same lines over OTLP where a
//! collector is configured, and a page that Prometheus scrapes.
//!
//! Nothing here sits on the way of a sale. Log lines, spans and measurements go through bounded queues to threads of
//! their own; when a queue is full, because standard error is not read or the collector is frozen, they are dropped and
//! a sale never waits.
//!
//! OpenTelemetry is steered by its standard variables alone (`OTEL_EXPORTER_OTLP_ENDPOINT` and so on), which the caller
//! passes in as a map; [`export`] says which of them are honoured here because the SDK does not read them.
//!
//! Knows nothing about buyers, rules, stores or requests: what may be counted, and under which labels, stands in
//! [`metrics`].

pub mod export;
mod exporters;
pub mod logging;
pub mod metrics;
pub mod propagation;
mod sampling;
pub mod scrape;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Dispatch, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};

use export::{Endpoint, Plan};
use logging::Lines;
use metrics::Metrics;
use sampling::Sampling;

/// How long [`Telemetry::shutdown`] may take in all. Part of the 10 s in which the service must be gone.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Which program shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The service: traces, metrics and log lines.
    Service,
    /// A command that makes a call: its trace alone, under a name of its own.
    Command,
}

/// What the caller decides. The rest is in OpenTelemetry's own variables.
#[derive(Debug, Clone)]
pub struct TelemetryOptions {
    /// Who it is.
    pub program: Program,
    /// Log lines as JSON objects instead of lines for people.
    pub json: bool,
    /// Which lines are logged, in the form of `RUST_LOG`: `info`, or `info,rationd::session=debug`.
    pub filter: String,
    /// The environment of the process; only `OTEL_*` is looked at. The SDK reads its own variables (sampler, batch sizes,
    /// headers, timeouts) from the process itself.
    pub environment: BTreeMap<String, String>,
}

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error(
        "the log filter {filter:?} cannot be read: {why}; write a level such as `info`, or `info,rationd::session=debug`"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// The scrape page cannot be made.
    #[error("the scrape endpoint cannot be made: {0}")]
    Scrape(String),
    /// The writer of log lines could not be started.
    #[error("the thread that writes log lines cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The process has a subscriber already.
    #[error("telemetry was started before in this process")]
    AlreadyStarted,
}

/// Running telemetry. Keep it until the end of the process, then call [`Telemetry::shutdown`].
pub struct Telemetry {
    metrics: Arc<Metrics>,
    registry: prometheus::Registry,
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
    loggers: Option<SdkLoggerProvider>,
    lines: LastLines,
    warnings: Vec<String>,
}

/// Starts telemetry for the whole process; log lines go to standard error. With an OTLP endpoint it must be called inside a Tokio
/// runtime, which then carries the exports.
pub fn start(options: TelemetryOptions) -> Result<Telemetry, TelemetryError> {
    let plan = Plan::new(&options.environment);
    let (telemetry, dispatch) = prepare(options, Box::new(std::io::stderr()))?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| TelemetryError::AlreadyStarted)?;
    for warning in telemetry.warnings() {
        tracing::warn!("{warning}");
    }
    sampling::set(if telemetry.tracers.is_some() { plan.sampling } else { Sampling::NEVER });
    if !plan.endpoints().is_empty() {
        tokio::spawn(exporters::look_for(plan.endpoints()));
    }
    Ok(telemetry)
}

/// As [`start`], but leaves it to the caller where lines go, for which threads the subscriber counts, and what is said of
/// settings that are not followed.
pub fn prepare(
    options: TelemetryOptions,
    out: Box<dyn std::io::Write + Send>,
) -> Result<(Telemetry, Dispatch), TelemetryError> {
    let mut plan = Plan::new(&options.environment);
    if options.program == Program::Command {
        plan = plan.of_command();
    }
    let filter = || {
        let filter = EnvFilter::try_new(&options.filter);
        filter.map_err(|error| TelemetryError::Filter { filter: options.filter.clone(), why: error.to_string() })
    };

    let resource = plan.resource();
    let mut warnings = std::mem::take(&mut plan.warnings);
    let registry = prometheus::Registry::new();
    let mut meters = SdkMeterProvider::builder().with_resource(resource.clone());
    if !plan.disabled {
        meters = meters.with_reader(scrape::reader(&registry)?);
    }
    if let Some(exporter) = made(&plan.metrics, exporters::measurements, &mut warnings) {
        meters = meters.with_periodic_exporter(exporter);
    }
    let meters = meters.build();
    let tracers = made(&plan.traces, exporters::spans, &mut warnings).map(|exporter| {
        let tracers = SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(exporter);
        match options.program {
            // Which calls are traced is decided before a span is made.
            Program::Service => tracers.with_sampler(Sampler::AlwaysOn).build(),
            Program::Command => tracers.build(),
        }
    });
    let loggers = made(&plan.logs, exporters::lines, &mut warnings)
        .map(|exporter| SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build());
    if plan.propagate {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    }

    // Only what is our own is exported: spans and lines of h2 and tonic would describe the export itself, for ever.
    let ours = |level| Targets::new().with_target("rationd", level);
    let spans = tracers.as_ref().map(|tracers| {
        let layer = tracing_opentelemetry::layer().with_tracer(tracers.tracer("rationd"));
        // What nobody asks for costs every call: which line of the code, which thread, how long it did nothing.
        let layer = layer.with_location(false).with_threads(false).with_target(false).with_tracked_inactivity(false);
        layer.with_filter(ours(LevelFilter::INFO))
    });
    // Without a hint of its own it would have every callsite of every crate asked anew each time.
    let events = || filter_fn(|what: &Metadata<'_>| what.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let sent = match &loggers {
        Some(loggers) => Some(
            OpenTelemetryTracingBridge::new(loggers).with_filter(filter()?.and(events()).and(ours(LevelFilter::TRACE))),
        ),
        None => None,
    };
    let lines = Lines::to(out, options.json)?;
    let shown = filter()?.and(events()).and(filter_fn(logging::is_news).with_max_level_hint(LevelFilter::TRACE));
    let subscriber = tracing_subscriber::registry()
        .with(spans)
        .with(sent)
        .with(logging::layer(options.json, lines.clone()).with_filter(shown));

    let metrics = Arc::new(Metrics::new(&meters.meter("rationd")));
    let telemetry = Telemetry { metrics, registry, meters, tracers, loggers, lines: LastLines(lines), warnings };
    Ok((telemetry, Dispatch::new(subscriber)))
}

/// The exporter to this place, if there is one; why there is none goes to the log, and the service does without.
fn made<E>(
    endpoint: &Option<Endpoint>,
    make: fn(&Endpoint) -> Result<E, String>,
    warnings: &mut Vec<String>,
) -> Option<E> {
    make(endpoint.as_ref()?).map_err(|why| warnings.push(why)).ok()
}

impl Telemetry {
    /// Settings that are not followed, in sentences for the log.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The instruments, for whoever counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// `GET /metrics` in Prometheus's text format, for the admin listener.
    pub fn scrape_router(&self) -> axum::Router {
        scrape::router(self.registry.clone())
    }

    /// Sends what is still queued, for at most [`FLUSH_LIMIT`], whatever the collector does.
    pub async fn shutdown(self) {
        let Self { meters, tracers, loggers, lines, .. } = self;
        let (done, finished) = tokio::sync::oneshot::channel();
        // A plain thread: the providers block, the runtime must stay free to carry their last export, and a runtime that
        // ends would wait for its own blocking tasks.
        let flush = std::thread::Builder::new().name("telemetry-flush".into()).spawn(move || {
            let spans = tracers.map_or(Ok(()), |tracers| tracers.shutdown_with_timeout(FLUSH_LIMIT));
            let measurements = meters.shutdown_with_timeout(FLUSH_LIMIT);
            let said = loggers.map_or(Ok(()), |loggers| loggers.shutdown_with_timeout(FLUSH_LIMIT));
            let _ = done.send(spans.and(measurements).and(said));
        });
        match flush {
            Ok(_) => match tokio::time::timeout(FLUSH_LIMIT, finished).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::warn!(%error, "the last telemetry was not sent"),
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!("the last telemetry was not sent: the collector does not take it")
                }
            },
            Err(error) => tracing::warn!(%error, "the last telemetry was not sent"),
        }
        drop(lines);
    }
}

/// Writes the last lines when telemetry goes, also in a process that ends early with an error.
struct LastLines(Lines);

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.flush();
    }
}
