//! What being watched costs: the same load over services on one Redis that measure nothing, that are scraped, and that send to a
//! collector, which takes it, takes its time, is frozen, or is away.

use std::io::Read;
use std::process::Command;
use std::time::Duration;

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
pub struct Telemetry([Promise; 7]);

impl Telemetry {
    pub async fn measure(options: &Options) -> Result<Self, Failure> {
        let (taking, slow, frozen) = (Server::collector(0)?, Server::collector(SLOW)?, Server::collector(0)?);
        let redis = Redis::start(&DURABLE).await?;
        // A ledger belongs to its keys, and all of the services share one.
        let files = tempfile::tempdir()?;
        let keys = files.path().join("keys.toml");
        Keys::load_or_create(&keys).map_err(|errors| errors.to_string())?;
        let keys = ("KEYS", keys.to_string_lossy().into_owned());
        let said = |name: &'static str, text: &str| (name, text.to_owned());
        let sent_to = |collector: &str| {
            let at = ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
            vec![keys.clone(), at, said("OTEL_METRIC_EXPORT_INTERVAL", "5000")]
        };
        let every = [sent_to(&taking.address), vec![said("OTEL_TRACES_SAMPLER", "always_on")]].concat();
        let watched = [
            ("unwatched", "Redis, nothing measured", vec![keys.clone(), said("OTEL_SDK_DISABLED", "true")]),
            ("scraped", "Redis, page for Prometheus", vec![keys.clone()]),
            ("sampled", "collector, 1 trace in 100", sent_to(&taking.address)),
            ("all_traces", "collector, every trace", every),
            ("slow", "slow collector, 1 in 100", sent_to(&slow.address)),
            ("frozen", "frozen collector, 1 in 100", sent_to(&frozen.address)),
            ("away", "no collector, 1 in 100", sent_to("127.0.0.1:9")),
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
        let [unwatched, scraped, sampled, all_traces, slow, frozen, away] = &self.0;
        let costs = [
            Cost::of("scraped_over_unwatched", "page ÷ nothing measured", scraped, unwatched),
            Cost::of("sampled_over_unwatched", "1 in 100 ÷ nothing measured", sampled, unwatched),
            Cost::of("all_traces_over_unwatched", "every trace ÷ nothing measured", all_traces, unwatched),
            Cost::of("slow_over_sampled", "slow ÷ 1 in 100", slow, sampled),
            Cost::of("frozen_over_sampled", "frozen ÷ 1 in 100", frozen, sampled),
            Cost::of("away_over_sampled", "away ÷ 1 in 100", away, sampled),
        ];
        costs.into_iter().flatten().collect()
    }
}

impl Server {
    /// A collector, which forgets what it is sent and answers after so many seconds.
    fn collector(takes: u32) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--collector", &takes.to_string()]);
        Self::start(command, tempfile::tempdir()?, "collector ")
    }

    /// It reads nothing and says nothing from now on.
    fn freeze(&self) -> Result<(), Failure> {
        let stopped = Command::new("kill").args(["-STOP", &self.id().to_string()]).status()?;
        if stopped.success() { Ok(()) } else { Err("the collector cannot be frozen".into()) }
    }
}

/// Takes everything on a free port of loopback, which it prints, until standard input ends.
pub async fn collect(takes: Duration) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("collector listens on {}", listener.local_addr()?);
    let over = tokio::task::spawn_blocking(|| drop(std::io::stdin().read(&mut [0])));
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Forgets { takes }))
        .add_service(MetricsServiceServer::new(Forgets { takes }))
        .add_service(LogsServiceServer::new(Forgets { takes }));
    Ok(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), async { drop(over.await) }).await?)
}

/// How many seconds a slow one takes for each export.
const SLOW: u32 = 3;

#[derive(Clone, Copy)]
struct Forgets {
    takes: Duration,
}

#[tonic::async_trait]
impl TraceService for Forgets {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        tokio::time::sleep(self.takes).await;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Forgets {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        tokio::time::sleep(self.takes).await;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Forgets {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        tokio::time::sleep(self.takes).await;
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
