//! Trace context (W3C `traceparent`): a caller's, taken up by the span of a request, and ours, sent along with a call.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct Read<'a>(&'a HeaderMap);

impl Extractor for Read<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Written<'a>(&'a mut HeaderMap);

impl Injector for Written<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}

/// Makes `span`, which nobody has entered yet, a child of the caller's span, if the headers name one.
pub fn adopt_parent(span: &tracing::Span, headers: &HeaderMap) {
    let context = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&Read(headers)));
    // Fails only where spans are not exported at all; then there is nothing to be a child of.
    let _ = span.set_parent(context);
}

/// Names `span` in the headers of a call, so that what answers it can be its child. Nothing where spans are not exported.
pub fn name_parent(span: &tracing::Span, headers: &mut HeaderMap) {
    if !span.is_disabled() {
        let context = span.context();
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Written(headers));
        });
    }
}
