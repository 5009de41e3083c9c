//! The page that Prometheus scrapes, beside OTLP: Prometheus before 2.47 cannot receive OTLP.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use opentelemetry_prometheus::PrometheusExporter;
use prometheus::{Encoder, Registry, TextEncoder};

use super::TelemetryError;

/// The page as a service, for a listener that serves other things too.
pub type Page = Router;

/// What fills the registry when somebody scrapes.
pub(super) fn reader(registry: &Registry) -> Result<PrometheusExporter, TelemetryError> {
    let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build();
    reader.map_err(|error| TelemetryError::Scrape(error.to_string()))
}

/// `GET /metrics`.
pub(super) fn router(registry: Registry) -> Router {
    Router::new().route("/metrics", get(async move || page(&registry)))
}

fn page(registry: &Registry) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
