//! The trace of a command, where a collector is configured: it ends in the store that the service asks.

use std::future::Future;

use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument;

use super::complain;
use crate::config::readable_environment;
use crate::telemetry::export::Plan;
use crate::telemetry::propagation::adopt_parent;
use crate::telemetry::{self, Program, TelemetryOptions};

/// Whoever runs the command may name its own span in this, as a header would.
const CARRIED: (&str, &str) = ("TRACEPARENT", "traceparent");

/// Runs a command of this name, and sends its trace when it is over: what it has to say is said by then.
pub(super) async fn traced(name: &'static str, work: impl Future<Output = u8>) -> u8 {
    let environment = readable_environment();
    if Plan::new(&environment).traces.is_none() {
        return work.await;
    }
    let (variable, header) = CARRIED;
    let named = environment.get(variable).and_then(|named| HeaderValue::try_from(named).ok());
    let carried: HeaderMap = named.map(|named| (HeaderName::from_static(header), named)).into_iter().collect();
    let options = TelemetryOptions { program: Program::Command, json: false, filter: "warn".to_owned(), environment };
    let telemetry = match telemetry::start(options) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            complain(format_args!("the command is not traced: {error}"));
            return work.await;
        }
    };
    let span = tracing::info_span!("command", otel.name = name);
    adopt_parent(&span, &carried);
    let code = work.instrument(span).await;
    telemetry.shutdown().await;
    code
}
