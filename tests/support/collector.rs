//! A collector of OpenTelemetry's: the real gRPC services of OTLP, which keep what they are sent.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A span that was sent.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name` of whoever sent it.
    pub service: String,
    pub name: String,
    pub kind: SpanKind,
    /// In hexadecimal digits, as in `traceparent`.
    pub trace: String,
    pub id: String,
    /// Empty where it has none.
    pub parent: String,
    /// Whether it says that something went wrong.
    pub failed: bool,
    pub attributes: BTreeMap<String, String>,
}

/// A line that was sent.
#[derive(Debug, Clone)]
pub struct Line {
    pub service: String,
    pub body: String,
    /// Empty where it was said outside of any.
    pub trace: String,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    lines: Vec<Line>,
    /// Of every instrument the last that was sent, as text.
    metrics: BTreeMap<String, String>,
    /// All of it, as text.
    everything: String,
    /// All of it, as it was sent.
    bytes: Vec<u8>,
}

impl Kept {
    fn keep<M: Message + std::fmt::Debug>(&mut self, sent: &M) {
        let _ = write!(self.everything, "{sent:?}");
        self.bytes.extend(sent.encode_to_vec());
    }
}

/// A collector that listens on a port of its own, on a thread of its own.
pub struct Collector {
    /// Where it listens.
    pub url: String,
    kept: Arc<Mutex<Kept>>,
    _stop: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Services(Arc<Mutex<Kept>>);

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket that can wait");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (kept, (stop, stopped)) = (Arc::<Mutex<Kept>>::default(), oneshot::channel::<()>());
        let services = Services(kept.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let server = tonic::transport::Server::builder()
                    .add_service(TraceServiceServer::new(services.clone()))
                    .add_service(MetricsServiceServer::new(services.clone()))
                    .add_service(LogsServiceServer::new(services));
                let ends = async { drop(stopped.await) };
                server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ends).await
            })
        });
        Self { url, kept, _stop: stop }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.kept().spans.clone()
    }

    pub fn lines(&self) -> Vec<Line> {
        self.kept().lines.clone()
    }

    pub fn metrics(&self) -> BTreeMap<String, String> {
        self.kept().metrics.clone()
    }

    pub fn everything(&self) -> String {
        self.kept().everything.clone()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.kept().bytes.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }
}

/// These spans of one trace as a tree, each under its parent.
pub fn tree(spans: &[Span]) -> String {
    fn branch(spans: &[Span], parent: &str, depth: usize, shown: &mut String) {
        for span in spans.iter().filter(|span| span.parent == parent) {
            let about: Vec<String> = span.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let kind = format!("{:?}", span.kind).to_lowercase();
            let indent = depth * 2;
            let _ = writeln!(shown, "{:indent$}{}: {} ({kind}) {}", "", span.service, span.name, about.join(" "));
            branch(spans, &span.id, depth + 1, shown);
        }
    }
    let mut shown = String::new();
    let roots: Vec<&Span> = spans.iter().filter(|span| spans.iter().all(|other| other.id != span.parent)).collect();
    let mut begun: Vec<&str> = Vec::new();
    for root in roots {
        if !begun.contains(&root.parent.as_str()) {
            branch(spans, &root.parent, 0, &mut shown);
            begun.push(&root.parent);
        }
    }
    shown
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => format!("{number:.3}"),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

fn attributes(sent: &[KeyValue]) -> BTreeMap<String, String> {
    sent.iter().map(|attribute| (attribute.key.clone(), text(attribute.value.as_ref()))).collect()
}

fn service(resource: Option<&Resource>) -> String {
    let about = resource.map(|resource| attributes(&resource.attributes)).unwrap_or_default();
    about.get("service.name").cloned().unwrap_or_default()
}

#[tonic::async_trait]
impl TraceService for Services {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        kept.keep(request.get_ref());
        for sent in request.into_inner().resource_spans {
            let service = service(sent.resource.as_ref());
            let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.spans.extend(spans.map(|span| Span {
                service: service.clone(),
                kind: span.kind(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                failed: span.status.as_ref().is_some_and(|status| status.code == 2),
                attributes: attributes(&span.attributes),
                name: span.name,
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Services {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        kept.keep(request.get_ref());
        let scopes = request.into_inner().resource_metrics.into_iter().flat_map(|sent| sent.scope_metrics);
        for metric in scopes.flat_map(|scope| scope.metrics) {
            kept.metrics.insert(metric.name, format!("{:?}", metric.data));
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Services {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        kept.keep(request.get_ref());
        for sent in request.into_inner().resource_logs {
            let service = service(sent.resource.as_ref());
            let records = sent.scope_logs.into_iter().flat_map(|scope| scope.log_records);
            kept.lines.extend(records.map(|record| Line {
                service: service.clone(),
                body: text(record.body.as_ref()),
                trace: hex(&record.trace_id),
            }));
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
