//! What OpenTelemetry's standard variables ask for, and the exporters that do it.
//!
//! Nothing is exported unless an endpoint is configured: `OTEL_EXPORTER_OTLP_ENDPOINT`, or the one of a signal. Beyond what
//! the SDK reads by itself, these are honoured here: `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER`,
//! `OTEL_METRICS_EXPORTER`, `OTEL_LOGS_EXPORTER`, `OTEL_PROPAGATORS`, `OTEL_EXPORTER_OTLP_PROTOCOL`. As the specification
//! wants it, a value that is not understood gives a warning and never stops the service: a counter must keep selling when a
//! dashboard is misconfigured.

use std::collections::BTreeMap;

use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;

use super::TelemetryError;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// Where a signal is sent, and which variable said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL of the collector's gRPC port.
    pub url: String,
    /// The variable that named it.
    pub variable: &'static str,
}

/// What the environment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// `OTEL_SDK_DISABLED=true`: nothing is measured or exported, and the scrape page is empty.
    pub disabled: bool,
    /// `service.name`; `None` where `OTEL_RESOURCE_ATTRIBUTES` gives it.
    pub service: Option<String>,
    /// Where spans go; `None`: nowhere.
    pub traces: Option<Endpoint>,
    /// Where measurements go, besides the scrape page; `None`: nowhere.
    pub metrics: Option<Endpoint>,
    /// Whether a caller's trace context is taken up.
    pub propagate: bool,
    /// What was asked for and is not done, in sentences for the log.
    pub warnings: Vec<String>,
}

/// The variables of one signal.
struct Signal {
    exporter: &'static str,
    endpoint: &'static str,
    protocol: &'static str,
    /// What the exporter variable may name besides `none`.
    known: &'static [&'static str],
}

const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    known: &["otlp"],
};
// The scrape page is always there; `prometheus` asks for it alone.
const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    known: &["otlp", "prometheus"],
};
const LOGS: Signal = Signal {
    exporter: "OTEL_LOGS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
    known: &[],
};

/// A variable's value; one that is empty counts as absent.
fn value<'a>(environment: &'a BTreeMap<String, String>, variable: &str) -> Option<&'a str> {
    environment.get(variable).map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

impl Plan {
    /// Reads the environment.
    pub fn new(environment: &BTreeMap<String, String>) -> Self {
        let mut warnings = Vec::new();
        let disabled = value(environment, "OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let mut endpoint = |signal: &Signal| if disabled { None } else { signal.endpoint(environment, &mut warnings) };
        let traces = endpoint(&TRACES);
        let metrics = endpoint(&METRICS);
        // Log lines go to standard error, where a collector's agent picks them up; asking for more is answered.
        let logs_asked = value(environment, LOGS.endpoint).is_some() || value(environment, LOGS.exporter).is_some();
        if logs_asked && endpoint(&LOGS).is_some() {
            warnings.push(format!("{}: logs go to standard error only", LOGS.exporter));
        }
        Self {
            disabled,
            service: service(environment),
            traces,
            metrics,
            propagate: propagate(environment, &mut warnings),
            warnings,
        }
    }

    /// Who is measured: the SDK's own reading of `OTEL_RESOURCE_ATTRIBUTES` and the version, and a name where none was given.
    pub fn resource(&self) -> Resource {
        let resource = Resource::builder()
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        match &self.service {
            Some(name) => resource.with_service_name(name.clone()).build(),
            None => resource.build(),
        }
    }
}

impl Signal {
    /// Where this signal is to be sent.
    fn endpoint(&self, environment: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> Option<Endpoint> {
        let asked = value(environment, self.exporter).unwrap_or("otlp");
        if listed(asked).any(|word| word == "none") {
            return None;
        }
        for word in listed(asked).filter(|word| *word != "otlp" && !self.known.contains(word)) {
            warnings.push(format!("{}: {word:?} is not known here and is left out", self.exporter));
        }
        if !listed(asked).any(|word| word == "otlp") {
            return None;
        }
        let endpoint = [self.endpoint, ENDPOINT]
            .into_iter()
            .find_map(|variable| Some(Endpoint { url: value(environment, variable)?.to_owned(), variable }))?;
        match [self.protocol, PROTOCOL].into_iter().find_map(|name| Some((name, value(environment, name)?))) {
            Some((name, protocol)) if protocol != "grpc" => {
                warnings
                    .push(format!("{name}: {protocol:?} is not spoken here; nothing is sent, use `grpc` (port 4317)"));
                None
            }
            _ => Some(endpoint),
        }
    }
}

/// The name to give the service, unless the resource attributes have one.
fn service(environment: &BTreeMap<String, String>) -> Option<String> {
    if let Some(name) = value(environment, "OTEL_SERVICE_NAME") {
        return Some(name.to_owned());
    }
    let attributes = value(environment, "OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let named =
        listed(attributes).any(|pair| pair.split_once('=').is_some_and(|(key, _)| key.trim() == "service.name"));
    (!named).then(|| "rationd".to_owned())
}

fn propagate(environment: &BTreeMap<String, String>, warnings: &mut Vec<String>) -> bool {
    let Some(asked) = value(environment, "OTEL_PROPAGATORS") else { return true };
    for word in listed(asked).filter(|word| !["tracecontext", "baggage", "none"].contains(word)) {
        warnings.push(format!("OTEL_PROPAGATORS: {word:?} is not known here and is left out; use `tracecontext`"));
    }
    // Baggage is accepted as a word and never taken up: nobody may put text of his own into our telemetry.
    !listed(asked).any(|word| word == "none") && listed(asked).any(|word| word == "tracecontext")
}

/// Sends spans to the collector.
pub(super) fn span_exporter(endpoint: &Endpoint) -> Result<SpanExporter, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(&endpoint.url).build();
    exporter.map_err(|error| refused(endpoint, &error))
}

/// Sends measurements to the collector.
pub(super) fn metric_exporter(endpoint: &Endpoint) -> Result<MetricExporter, TelemetryError> {
    let exporter = MetricExporter::builder().with_tonic().with_endpoint(&endpoint.url).build();
    exporter.map_err(|error| refused(endpoint, &error))
}

fn refused(endpoint: &Endpoint, error: &dyn std::fmt::Display) -> TelemetryError {
    TelemetryError::Exporter { variable: endpoint.variable, endpoint: endpoint.url.clone(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(variables: &[(&str, &str)]) -> Plan {
        Plan::new(&variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }

    const AT: (&str, &str) = (ENDPOINT, "http://collector:4317");

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        let plan = plan(&[("OTEL_TRACES_EXPORTER", "otlp")]);
        assert_eq!((plan.traces, plan.metrics, plan.disabled), (None, None, false));
        assert_eq!(plan.service.as_deref(), Some("rationd"));
        assert!(plan.propagate && plan.warnings.is_empty());
    }

    #[test]
    fn a_signal_may_have_its_own_endpoint_or_none() {
        let both = plan(&[AT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317")]);
        assert_eq!(both.traces.unwrap().url, "http://traces:4317");
        assert_eq!(both.metrics.unwrap().variable, ENDPOINT);
        let metrics_only = plan(&[AT, ("OTEL_TRACES_EXPORTER", "none")]);
        assert!(metrics_only.traces.is_none() && metrics_only.metrics.is_some());
        let traces_only = plan(&[AT, ("OTEL_METRICS_EXPORTER", "prometheus")]);
        assert!(traces_only.traces.is_some() && traces_only.metrics.is_none() && traces_only.warnings.is_empty());
        let empty = plan(&[(ENDPOINT, " ")]);
        assert!(empty.traces.is_none() && empty.metrics.is_none());
    }

    #[test]
    fn the_sdk_can_be_switched_off() {
        let off = plan(&[AT, ("OTEL_SDK_DISABLED", "TRUE")]);
        assert!(off.disabled && off.traces.is_none() && off.metrics.is_none());
        assert!(plan(&[AT, ("OTEL_SDK_DISABLED", "1")]).traces.is_some(), "the specification knows `true` alone");
    }

    #[test]
    fn a_given_service_name_stands() {
        assert_eq!(plan(&[("OTEL_SERVICE_NAME", "rationd-south")]).service.as_deref(), Some("rationd-south"));
        assert_eq!(plan(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=north")]).service, None);
        assert_eq!(plan(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b")]).service.as_deref(), Some("rationd"));
    }

    #[test]
    fn propagation_can_be_switched_off() {
        assert!(plan(&[("OTEL_PROPAGATORS", "tracecontext,baggage")]).propagate);
        for off in ["none", "baggage", "b3"] {
            assert!(!plan(&[("OTEL_PROPAGATORS", off)]).propagate, "{off}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_and_left_out() {
        let check = |variables: &[(&str, &str)], word: &str| {
            let plan = plan(variables);
            assert!(plan.warnings.iter().any(|warning| warning.contains(word)), "{variables:?}: {:?}", plan.warnings);
            plan
        };
        assert!(check(&[AT, ("OTEL_TRACES_EXPORTER", "zipkin")], "OTEL_TRACES_EXPORTER").traces.is_none());
        assert!(check(&[AT, ("OTEL_TRACES_EXPORTER", "otlp,console")], "console").traces.is_some());
        assert!(check(&[AT, (PROTOCOL, "http/protobuf")], PROTOCOL).metrics.is_none());
        check(&[AT, ("OTEL_LOGS_EXPORTER", "otlp")], "standard error");
        check(&[("OTEL_PROPAGATORS", "b3")], "OTEL_PROPAGATORS");
    }
}
