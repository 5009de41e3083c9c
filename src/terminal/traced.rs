//! A span around each call of a client, of which the service's own becomes a child.

use std::future::Future;

use tonic::{Code, Request, Response, Status};
use tracing::Instrument;

use crate::grpc::code_name;
use crate::telemetry::propagation::name_parent;

/// Makes this call, which the service knows by this name.
pub(super) async fn traced<M, R, F, E>(
    method: &'static str,
    mut request: Request<M>,
    call: impl FnOnce(Request<M>) -> F,
) -> Result<R, E>
where
    F: Future<Output = Result<Response<R>, Status>>,
    E: From<Status>,
{
    // Costs nothing unless somebody takes spans.
    let span = tracing::info_span!(
        "call",
        otel.name = method,
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = tracing::field::Empty,
        "error.type" = tracing::field::Empty,
    );
    name_parent(&span, request.metadata_mut().as_mut());
    let answer = call(request).instrument(span.clone()).await;
    let code = code_name(answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
    span.record("rpc.response.status_code", code);
    if answer.is_err() {
        span.record("error.type", code);
        span.record("otel.status_code", "ERROR");
    }
    Ok(answer?.into_inner())
}
