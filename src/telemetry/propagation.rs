//! Trace context (W3C `traceparent`): a caller's, taken up by the span of a request, and ours, sent along with a call.
//!
//! Of a caller's context the numbers of its trace and span are taken and nothing else: `tracestate` is free text, in which a buyer's
//! number could travel to a collector. W3C lets who takes part leave it out.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::sampling;

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

/// What every propagator that is known here begins with.
const TRACEPARENT: &str = "traceparent";

/// The span of a call that came with these headers: a child of the caller's, if they name one. None is made for a call that is not
/// to be traced.
pub fn span_of_call(headers: &HeaderMap, make: impl FnOnce() -> Span) -> Span {
    let parent = headers.contains_key(TRACEPARENT).then(|| callers_span(headers)).flatten();
    if !sampling::takes(parent.as_ref()) {
        return Span::none();
    }
    let span = make();
    adopt(&span, parent);
    span
}

/// The span that the headers name.
fn callers_span(headers: &HeaderMap) -> Option<SpanContext> {
    let context = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&Read(headers)));
    let span = context.span();
    let named = Some(span.span_context()).filter(|named| named.is_valid())?;
    Some(SpanContext::new(named.trace_id(), named.span_id(), named.trace_flags(), true, TraceState::NONE))
}

fn adopt(span: &Span, parent: Option<SpanContext>) {
    if let Some(parent) = parent {
        // Fails only where spans are not exported at all; then there is nothing to be a child of.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// A span within the one that this is called in, and none where there is none: what is within a call that is not traced is not.
pub fn span_within(make: impl FnOnce() -> Span) -> Span {
    if Span::current().is_disabled() { Span::none() } else { make() }
}

/// Makes `span`, which nobody has entered yet, a child of the caller's span, if the headers name one.
pub fn adopt_parent(span: &Span, headers: &HeaderMap) {
    adopt(span, callers_span(headers));
}

/// Names `span` in the headers of a call, so that what answers it can be its child. Nothing where spans are not exported.
pub fn name_parent(span: &Span, headers: &mut HeaderMap) {
    if !span.is_disabled() {
        let context = span.context();
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Written(headers));
        });
    }
}
