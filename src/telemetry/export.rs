//! What OpenTelemetry's standard variables ask for. No I/O: `exporters` does what they ask.
//!
//! Nothing is exported unless an endpoint is configured: `OTEL_EXPORTER_OTLP_ENDPOINT`, or the one of a signal. Beyond what
//! the SDK reads by itself, these are honoured here: `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER`,
//! `OTEL_METRICS_EXPORTER`, `OTEL_LOGS_EXPORTER`, `OTEL_PROPAGATORS`, `OTEL_EXPORTER_OTLP_PROTOCOL`, and the files of an
//! `https` collector, `OTEL_EXPORTER_OTLP_CERTIFICATE`, `…_CLIENT_CERTIFICATE` and `…_CLIENT_KEY`. As the specification
//! wants it, a value that is not understood gives a warning and never stops the service: a counter must keep selling when a
//! dashboard is misconfigured.

use std::collections::BTreeMap;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use super::sampling::Sampling;

/// A value and the variable that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The variable.
    pub variable: String,
    /// Its value.
    pub value: String,
}

/// Where a signal is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The variable that named it.
    pub variable: String,
    /// The URL of the collector's gRPC port, with its scheme.
    pub url: String,
    /// The same as HOST:PORT, which may be told: a URL can hold a password.
    pub place: String,
    /// For `https`: the file of the authority of the collector's certificate.
    pub authority: Option<Given>,
    /// For `https`: the files of our own certificate and its key, where the collector asks for one.
    pub identity: Option<(Given, Given)>,
}

/// What the environment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// `OTEL_SDK_DISABLED=true`: nothing is measured or exported, and the scrape page is empty.
    pub disabled: bool,
    /// `service.name`; `None` where `OTEL_RESOURCE_ATTRIBUTES` gives it.
    pub service: Option<String>,
    /// Whether `OTEL_RESOURCE_ATTRIBUTES` says which instance this is.
    pub has_instance: bool,
    /// Where spans go; `None`: nowhere.
    pub traces: Option<Endpoint>,
    /// Where measurements go, besides the scrape page; `None`: nowhere.
    pub metrics: Option<Endpoint>,
    /// Where log lines go, besides standard error; `None`: nowhere.
    pub logs: Option<Endpoint>,
    /// Which traces are taken.
    pub sampling: Sampling,
    /// Whether a caller's trace context is taken up.
    pub propagate: bool,
    /// What was asked for and is not done, in sentences for the log.
    pub warnings: Vec<String>,
}

/// One signal: the word in the names of its variables, and what its exporter may be besides `otlp` and `none`.
struct Signal {
    word: &'static str,
    known: &'static [&'static str],
}

const TRACES: Signal = Signal { word: "TRACES", known: &[] };
// The scrape page is always there; `prometheus` asks for it alone.
const METRICS: Signal = Signal { word: "METRICS", known: &["prometheus"] };
// Standard error is always there.
const LOGS: Signal = Signal { word: "LOGS", known: &["console"] };

/// The name of the service where nobody gives it another.
const SERVICE: &str = "rationd";
/// The same of a command that calls it.
const COMMAND: &str = "rationd-command";

/// Standard variables that nobody heeds here: whoever sets one is told.
const UNHEEDED: [&str; 16] = [
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_BLRP_EXPORT_TIMEOUT",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_CONFIG_FILE",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_EXPORTER_PROMETHEUS_HOST",
    "OTEL_EXPORTER_PROMETHEUS_PORT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_LOG_LEVEL",
    "OTEL_METRICS_EXEMPLAR_FILTER",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_SEMCONV_STABILITY_OPT_IN",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
];

type Environment = BTreeMap<String, String>;

/// A variable's value; one that is empty counts as absent.
fn value<'a>(environment: &'a Environment, variable: &str) -> Option<&'a str> {
    environment.get(variable).map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn is_true(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

impl Plan {
    /// Reads the environment.
    pub fn new(environment: &Environment) -> Self {
        let mut warnings = Vec::new();
        let disabled = value(environment, "OTEL_SDK_DISABLED").is_some_and(is_true);
        let mut endpoint = |signal: Signal| if disabled { None } else { signal.endpoint(environment, &mut warnings) };
        let (traces, metrics, logs) = (endpoint(TRACES), endpoint(METRICS), endpoint(LOGS));
        let sampling = sampling(environment, &mut warnings);
        let unheeded = UNHEEDED.into_iter().filter(|name| value(environment, name).is_some());
        warnings.extend(unheeded.map(|name| format!("{name}: nobody heeds it here")));
        Self {
            disabled,
            service: service(environment),
            has_instance: has_attribute(environment, "service.instance.id"),
            traces,
            metrics,
            logs,
            sampling,
            propagate: propagate(environment, &mut warnings),
            warnings,
        }
    }

    /// What of it is for a command that makes a call.
    pub fn of_command(self) -> Self {
        let service = self.service.map(|name| if name == SERVICE { COMMAND.to_owned() } else { name });
        Self { metrics: None, logs: None, service, ..self }
    }

    /// Every place that something is sent to, once.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for endpoint in [&self.traces, &self.metrics, &self.logs].into_iter().flatten() {
            if endpoints.iter().all(|known| known.place != endpoint.place) {
                endpoints.push(endpoint.clone());
            }
        }
        endpoints
    }

    /// Who is measured: the SDK's own reading of `OTEL_RESOURCE_ATTRIBUTES` and the version, and a name where none was given.
    /// Instances that send to one collector must be told apart.
    pub fn resource(&self) -> Resource {
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if !self.has_instance {
            resource = resource.with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()));
        }
        match &self.service {
            Some(name) => resource.with_service_name(name.clone()).build(),
            None => resource.build(),
        }
    }
}

impl Signal {
    /// What its own variable says, or else the one of all signals.
    fn otlp(&self, environment: &Environment, what: &str) -> Option<Given> {
        let names = [format!("OTEL_EXPORTER_OTLP_{}_{what}", self.word), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|variable| {
            let value = value(environment, &variable)?.to_owned();
            Some(Given { variable, value })
        })
    }

    /// Where this signal is to be sent.
    fn endpoint(&self, environment: &Environment, warnings: &mut Vec<String>) -> Option<Endpoint> {
        let exporter = format!("OTEL_{}_EXPORTER", self.word);
        let asked = value(environment, &exporter).unwrap_or("otlp");
        if listed(asked).any(|word| word == "none") {
            return None;
        }
        for word in listed(asked).filter(|word| *word != "otlp" && !self.known.contains(word)) {
            warnings.push(format!("{exporter}: {word:?} is not known here and is left out"));
        }
        if !listed(asked).any(|word| word == "otlp") {
            return None;
        }
        let Given { variable, value: said } = self.otlp(environment, "ENDPOINT")?;
        if let Some(given) = self.otlp(environment, "PROTOCOL").filter(|given| given.value != "grpc") {
            let Given { variable, value } = given;
            warnings.push(format!("{variable}: {value:?} is not spoken here; nothing is sent, use `grpc` (port 4317)"));
            return None;
        }
        // As the SDK does it: a scheme of its own decides, and without one the variable.
        let insecure = self.otlp(environment, "INSECURE").is_some_and(|given| is_true(&given.value));
        let url = match said.contains("://") {
            true => said,
            false if insecure => format!("http://{said}"),
            false => format!("https://{said}"),
        };
        let Some(place) = place(&url) else {
            warnings.push(format!(
                "{variable}: this is not where a collector listens; nothing is sent, write a URL such as http://127.0.0.1:4317"
            ));
            return None;
        };
        let file = |what| self.otlp(environment, what);
        let (authority, identity) = (file("CERTIFICATE"), file("CLIENT_CERTIFICATE").zip(file("CLIENT_KEY")));
        if url.starts_with("https:") && authority.is_none() {
            warnings.push(format!(
                "{variable}: nothing is sent: over https the collector must be believed, and there is no \
                 OTEL_EXPORTER_OTLP_CERTIFICATE, the file of its certificate's authority"
            ));
            return None;
        }
        Some(Endpoint { variable, url, place, authority, identity })
    }
}

/// HOST:PORT of a URL that can be called.
fn place(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    let port = match url.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let host = url.host().filter(|host| !host.is_empty())?;
    Some(format!("{host}:{}", url.port_u16().unwrap_or(port)))
}

/// Which traces are taken; what cannot be read is as if nothing had been said.
fn sampling(environment: &Environment, warnings: &mut Vec<String>) -> Sampling {
    let Some(asked) = value(environment, "OTEL_TRACES_SAMPLER") else { return Sampling::DEFAULT };
    let (heeds_parent, own) = asked.strip_prefix("parentbased_").map_or((false, asked), |own| (true, own));
    let ratio = value(environment, "OTEL_TRACES_SAMPLER_ARG").and_then(|text| text.parse().ok());
    match (own, ratio.filter(|ratio| (0.0..=1.0).contains(ratio))) {
        ("always_on", _) => Sampling::of(1.0, heeds_parent),
        ("always_off", _) => Sampling::of(0.0, heeds_parent),
        ("traceidratio", Some(ratio)) => Sampling::of(ratio, heeds_parent),
        ("traceidratio", None) => {
            warnings.push(format!(
                "OTEL_TRACES_SAMPLER_ARG: {asked} needs a number from 0 to 1; every trace is taken instead"
            ));
            Sampling::of(1.0, heeds_parent)
        }
        _ => {
            warnings.push(format!(
                "OTEL_TRACES_SAMPLER: {asked:?} is not known here; it is as if nothing had been said: one trace in a hundred"
            ));
            Sampling::DEFAULT
        }
    }
}

/// Whether `OTEL_RESOURCE_ATTRIBUTES` names this attribute.
fn has_attribute(environment: &Environment, attribute: &str) -> bool {
    let attributes = value(environment, "OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    listed(attributes).any(|pair| pair.split_once('=').is_some_and(|(key, _)| key.trim() == attribute))
}

/// The name to give the service, unless the resource attributes have one.
fn service(environment: &Environment) -> Option<String> {
    match value(environment, "OTEL_SERVICE_NAME") {
        Some(name) => Some(name.to_owned()),
        None => (!has_attribute(environment, "service.name")).then(|| SERVICE.to_owned()),
    }
}

fn propagate(environment: &Environment, warnings: &mut Vec<String>) -> bool {
    let Some(asked) = value(environment, "OTEL_PROPAGATORS") else { return true };
    for word in listed(asked).filter(|word| !["tracecontext", "baggage", "none"].contains(word)) {
        warnings.push(format!("OTEL_PROPAGATORS: {word:?} is not known here and is left out; use `tracecontext`"));
    }
    // Baggage is accepted as a word and never taken up: nobody may put text of his own into our telemetry.
    !listed(asked).any(|word| word == "none") && listed(asked).any(|word| word == "tracecontext")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(variables: &[(&str, &str)]) -> Plan {
        Plan::new(&variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }

    const AT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
    const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        let plan = plan(&[("OTEL_TRACES_EXPORTER", "otlp")]);
        assert_eq!((plan.traces, plan.metrics, plan.logs, plan.disabled), (None, None, None, false));
        assert_eq!(plan.service.as_deref(), Some("rationd"));
        assert!(plan.propagate && plan.warnings.is_empty());
    }

    #[test]
    fn a_signal_may_have_its_own_endpoint_or_none() {
        let both = plan(&[AT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317")]);
        assert_eq!(both.traces.as_ref().unwrap().url, "http://traces:4317");
        assert_eq!(both.metrics.as_ref().unwrap().variable, AT.0);
        let places: Vec<_> = both.endpoints().into_iter().map(|endpoint| endpoint.place).collect();
        assert_eq!(places, ["traces:4317", "collector:4317"]);
        let metrics_only = plan(&[AT, ("OTEL_TRACES_EXPORTER", "none")]);
        assert!(metrics_only.traces.is_none() && metrics_only.metrics.is_some());
        let traces_only = plan(&[AT, ("OTEL_METRICS_EXPORTER", "prometheus")]);
        assert!(traces_only.traces.is_some() && traces_only.metrics.is_none() && traces_only.warnings.is_empty());
        let no_logs = plan(&[AT, ("OTEL_LOGS_EXPORTER", "console")]);
        assert!(no_logs.traces.is_some() && no_logs.logs.is_none() && no_logs.warnings.is_empty());
        let empty = plan(&[(AT.0, " ")]);
        assert!(empty.traces.is_none() && empty.metrics.is_none());
    }

    #[test]
    fn the_sdk_can_be_switched_off() {
        let off = plan(&[AT, ("OTEL_SDK_DISABLED", "TRUE")]);
        assert!(off.disabled && off.endpoints().is_empty());
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
        check(&[("OTEL_PROPAGATORS", "b3")], "OTEL_PROPAGATORS");
        assert_eq!(check(&[("OTEL_TRACES_SAMPLER", "xray")], "one trace in a hundred").sampling, Sampling::DEFAULT);
        assert_eq!(plan(&[AT]).sampling, Sampling::DEFAULT);
        let ratio = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        check(&[ratio], "OTEL_TRACES_SAMPLER_ARG");
        check(&[ratio, ("OTEL_TRACES_SAMPLER_ARG", "1.5")], "OTEL_TRACES_SAMPLER_ARG");
        let hundredth = plan(&[ratio, ("OTEL_TRACES_SAMPLER_ARG", "0.01")]);
        assert_eq!((hundredth.sampling, hundredth.warnings), (Sampling::of(0.01, true), Vec::new()));
        for (name, sampling) in [
            ("always_off", Sampling::of(0.0, false)),
            ("parentbased_always_off", Sampling::of(0.0, true)),
            ("always_on", Sampling::of(1.0, false)),
            ("parentbased_always_on", Sampling::of(1.0, true)),
        ] {
            assert_eq!(plan(&[("OTEL_TRACES_SAMPLER", name)]).sampling, sampling, "{name}");
        }
        check(&[("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "12")], "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT");
        for nowhere in ["not a url", "http://", "ftp://collector:21", "unix:///run/collector"] {
            assert!(check(&[(AT.0, nowhere)], AT.0).endpoints().is_empty(), "{nowhere}");
        }
    }

    #[test]
    fn a_collector_is_called_in_the_clear_only_where_that_was_said() {
        let traces = |variables: &[(&str, &str)]| plan(variables).traces.map(|endpoint| (endpoint.url, endpoint.place));
        let (bare, ca) = ((AT.0, "collector:4317"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"));
        let at = |url: &str| Some((url.to_owned(), "collector:4317".to_owned()));
        assert_eq!(traces(&[bare]), None, "nobody would be believed");
        assert!(plan(&[bare]).warnings[0].contains(ca.0));
        assert_eq!(traces(&[bare, ca]), at("https://collector:4317"));
        assert_eq!(traces(&[bare, ("OTEL_EXPORTER_OTLP_INSECURE", "true")]), at("http://collector:4317"));
        let secret = traces(&[(AT.0, "http://user:secret@[::1]:4317/")]).unwrap();
        assert_eq!(secret.1, "[::1]:4317");
        let own =
            [("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "own.pem"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key.pem")];
        let endpoint = plan(&[bare, ca, own[0], own[1]]).traces.unwrap();
        let (certificate, key) = endpoint.identity.unwrap();
        assert_eq!((certificate.value.as_str(), key.value.as_str()), ("own.pem", "key.pem"));
        assert_eq!(endpoint.authority.unwrap().value, "/etc/ca.pem");
    }

    #[test]
    fn an_instance_has_a_name_of_its_own() {
        let key = opentelemetry::Key::from_static_str("service.instance.id");
        let [one, other] = [plan(&[]), plan(&[])].map(|plan| plan.resource().get(&key));
        assert!(one.is_some() && one != other);
        assert!(plan(&[("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=7")]).has_instance);
    }
}
