//! What sends spans, measurements and log lines to a collector over gRPC, and says so when it cannot.

use std::fmt::Display;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::{logs, trace};

use super::export::{Endpoint, Given};
use crate::tls::Authorities;

/// How long the name of a collector is looked for at the start; nothing waits for it.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

/// An exporter that tells when the collector does not take what it sends, and when it does again: a line for each change, however
/// often it tries.
#[derive(Debug)]
pub(super) struct Told<E> {
    exporter: E,
    what: &'static str,
    fails: AtomicBool,
}

impl<E> Told<E> {
    fn new(exporter: E, what: &'static str) -> Self {
        Self { exporter, what, fails: AtomicBool::new(false) }
    }

    fn told(&self, sent: OTelSdkResult) -> OTelSdkResult {
        let what = self.what;
        match (&sent, self.fails.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "the collector does not take {what}; what it misses is lost, and nothing waits for it");
            }
            (Ok(()), true) => tracing::info!("the collector takes {what} again"),
            _ => {}
        }
        sent
    }
}

impl<E: trace::SpanExporter> trace::SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<trace::SpanData>) -> OTelSdkResult {
        self.told(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: logs::LogExporter> logs::LogExporter for Told<E> {
    async fn export(&self, batch: logs::LogBatch<'_>) -> OTelSdkResult {
        self.told(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Told<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.told(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

/// Sends spans to the collector. An error: why not, for the log.
pub(super) fn spans(endpoint: &Endpoint) -> Result<Told<SpanExporter>, String> {
    let built = to(endpoint, SpanExporter::builder().with_tonic())?.build();
    built.map(|exporter| Told::new(exporter, "spans")).map_err(|error| unusable(endpoint, error))
}

/// Sends measurements to the collector.
pub(super) fn measurements(endpoint: &Endpoint) -> Result<Told<MetricExporter>, String> {
    let built = to(endpoint, MetricExporter::builder().with_tonic())?.build();
    built.map(|exporter| Told::new(exporter, "measurements")).map_err(|error| unusable(endpoint, error))
}

/// Sends log lines to the collector.
pub(super) fn lines(endpoint: &Endpoint) -> Result<Told<LogExporter>, String> {
    let built = to(endpoint, LogExporter::builder().with_tonic())?.build();
    built.map(|exporter| Told::new(exporter, "log lines")).map_err(|error| unusable(endpoint, error))
}

fn to<B: WithExportConfig + WithTonicConfig>(endpoint: &Endpoint, builder: B) -> Result<B, String> {
    let builder = builder.with_endpoint(&endpoint.url);
    let Some(authority) = endpoint.authority.as_ref().filter(|_| endpoint.url.starts_with("https:")) else {
        return Ok(builder);
    };
    let told = |Given { variable, value }: &Given, error: &dyn Display| {
        format!("{variable}: {value}: {error}; nothing is sent to {}", endpoint.place)
    };
    let read = |given: &Given| fs::read(&given.value).map_err(|error| told(given, &error));
    // Tonic would believe nobody by a spoilt file, and say so nowhere.
    let pem = read(authority)?;
    Authorities::from_pem(&pem).map_err(|bad| told(authority, &bad))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    Ok(builder.with_tls_config(match &endpoint.identity {
        Some((certificate, key)) => tls.identity(Identity::from_pem(read(certificate)?, read(key)?)),
        None => tls,
    }))
}

fn unusable(endpoint: &Endpoint, error: impl Display) -> String {
    format!("{}: nothing is sent to {}: {error}", endpoint.variable, endpoint.place)
}

/// Tells of every collector whose name leads nowhere. It may come to lead somewhere later, so it is called all the same.
pub(super) async fn look_for(endpoints: Vec<Endpoint>) {
    for Endpoint { variable, place, .. } in endpoints {
        let found = tokio::time::timeout(FOUND_WITHIN, tokio::net::lookup_host(&place)).await;
        let why = match found.map(|found| found.map(Iterator::count)) {
            Ok(Ok(0)) => "it has no address".to_owned(),
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nobody says in time".to_owned(),
        };
        tracing::warn!(%why, "{variable}: {place} cannot be found; nothing is sent there until it can, and nothing waits for it");
    }
}
