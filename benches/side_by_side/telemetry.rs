//! What being watched costs: the same load over services on one Redis that measure nothing, that are scraped, and that send to a
//! collector, which takes it or is frozen.

use std::io::Read;
use std::process::Command;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use rationd::config::Keys;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::durability::{Cost, Kept, Promise, ROUNDS};
use super::options::Options;
use super::redis::{DURABLE, Redis};
use super::service::Server;
use crate::Failure;

/// What was reached, by who watches.
pub struct Telemetry([Promise; 5]);

impl Telemetry {
    pub async fn measure(options: &Options) -> Result<Self, Failure> {
        let (taking, frozen) = (Server::collector()?, Server::collector()?);
        let redis = Redis::start(&DURABLE).await?;
        // A ledger belongs to its keys, and all of the services share one.
        let files = tempfile::tempdir()?;
        let keys = files.path().join("keys.toml");
        Keys::load_or_create(&keys).map_err(|errors| errors.to_string())?;
        let keys = ("KEYS", keys.to_string_lossy().into_owned());
        let said = |name: &'static str, text: &str| (name, text.to_owned());
        let sent_to = |collector: &Server| {
            let at = ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address));
            vec![keys.clone(), at, said("OTEL_METRIC_EXPORT_INTERVAL", "5000")]
        };
        let every = |collector: &Server| [sent_to(collector), vec![said("OTEL_TRACES_SAMPLER", "always_on")]].concat();
        let watched = [
            ("unwatched", "Redis, nothing measured", vec![keys.clone(), said("OTEL_SDK_DISABLED", "true")]),
            ("scraped", "Redis, page for Prometheus", vec![keys.clone()]),
            ("sampled", "collector, 1 trace in 100", sent_to(&taking)),
            ("all_traces", "collector, every trace", every(&taking)),
            ("frozen", "collector frozen", every(&frozen)),
        ];
        let mut kept = Vec::new();
        for (name, label, settings) in watched {
            kept.push(Kept::open(name, label, (redis.url(), redis.cpu()), &settings, options).await?);
        }
        frozen.freeze()?;
        let span = options.span() / ROUNDS;
        for round in 1..=ROUNDS {
            for kept in &mut kept {
                kept.round(round, span).await?;
            }
        }
        let promises: Vec<Promise> = kept.into_iter().map(Kept::into_promise).collect();
        Ok(Self(promises.try_into().map_err(|_| "one of them is missing")?))
    }

    pub fn promises(&self) -> &[Promise] {
        &self.0
    }

    pub fn costs(&self) -> Vec<Cost> {
        let [unwatched, scraped, sampled, all_traces, frozen] = &self.0;
        let costs = [
            Cost::of("scraped_over_unwatched", "page ÷ nothing measured", scraped, unwatched),
            Cost::of("sampled_over_unwatched", "1 in 100 ÷ nothing measured", sampled, unwatched),
            Cost::of("all_traces_over_unwatched", "every trace ÷ nothing measured", all_traces, unwatched),
            Cost::of("frozen_over_all_traces", "frozen ÷ every trace", frozen, all_traces),
        ];
        costs.into_iter().flatten().collect()
    }
}

impl Server {
    /// A collector, which forgets what it is sent.
    fn collector() -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--collector");
        Self::start(command, tempfile::tempdir()?, "collector ")
    }

    /// It reads nothing and says nothing from now on.
    fn freeze(&self) -> Result<(), Failure> {
        let stopped = Command::new("kill").args(["-STOP", &self.id().to_string()]).status()?;
        if stopped.success() { Ok(()) } else { Err("the collector cannot be frozen".into()) }
    }
}

/// Takes everything on a free port of loopback, which it prints, until standard input ends.
pub async fn collect() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("collector listens on {}", listener.local_addr()?);
    let over = tokio::task::spawn_blocking(|| drop(std::io::stdin().read(&mut [0])));
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Forgets))
        .add_service(MetricsServiceServer::new(Forgets))
        .add_service(LogsServiceServer::new(Forgets));
    Ok(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), async { drop(over.await) }).await?)
}

struct Forgets;

#[tonic::async_trait]
impl TraceService for Forgets {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Forgets {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Forgets {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
