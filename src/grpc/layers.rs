//! What every call passes through, outermost first: whether it is for the caller's role, a bound on calls under way, a span and a
//! measurement, a deadline, a panic caught, and a reason on errors that the transport itself makes.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;

use super::connections::Link;
use super::identity::Peer;
use super::{LONGEST_CALL, roles, status};
use crate::museum::Mutant;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::propagation::span_of_call;
use crate::time::Clock;

/// Puts [`Outermost`] around every service of a server.
#[derive(Clone)]
pub(super) struct OutermostLayer<C> {
    metrics: Arc<Metrics>,
    clock: C,
    permits: Arc<Semaphore>,
}

impl<C: Clock> OutermostLayer<C> {
    pub(super) fn new(metrics: Arc<Metrics>, clock: C, max_in_flight: usize) -> Self {
        Self { metrics, clock, permits: Arc::new(Semaphore::new(max_in_flight)) }
    }

    /// A place among the calls under way: among its caller's first, so that a caller who has many takes nobody else's.
    fn place(&self, of_caller: Option<Arc<Semaphore>>) -> Result<Place, TryAcquireError> {
        let of_caller = of_caller.filter(|_| !Mutant::CallsNotShared.is_on());
        let of_caller = of_caller.map(Semaphore::try_acquire_owned).transpose()?;
        Ok((self.permits.clone().try_acquire_owned()?, of_caller))
    }
}

/// Among all calls under way, and among those of one caller.
type Place = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl<S, C: Clock> Layer<S> for OutermostLayer<C> {
    type Service = Outermost<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Outermost { inner, shared: self.clone() }
    }
}

/// See the module.
#[derive(Clone)]
pub(super) struct Outermost<S, C> {
    inner: S,
    shared: OutermostLayer<C>,
}

impl<S, C> Service<http::Request<Body>> for Outermost<S, C>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    C: Clock,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let OutermostLayer { metrics, clock, .. } = self.shared.clone();
        let begun = clock.monotonic();
        let method = method_of(request.uri().path());
        let span = span_of_call(request.headers(), || {
            tracing::info_span!(
                "call",
                otel.name = method,
                otel.kind = "server",
                rpc.system.name = "grpc",
                rpc.method = method,
                rpc.response.status_code = tracing::field::Empty,
                "error.type" = tracing::field::Empty,
                otel.status_code = tracing::field::Empty,
            )
        });
        // The permit is for the work; a session's stream does not keep it once it has begun.
        // The admin listener speaks HTTP/1.1 too, and so does any page in a browser on the same machine.
        let refused = (request.version() != http::Version::HTTP_2).then(status::not_http_2);
        let refused = refused.or_else(|| roles::may(*Peer::of(request.extensions()), request.uri().path()).err());
        let permit = self.shared.place(Link::calls(request.extensions())).map_err(|_| status::overloaded());
        let permit = refused.map_or(permit, Err);
        let patience = patience(request.headers());
        // What nobody waits for any more is not begun.
        let permit = if patience.is_zero() { Err(status::too_late()) } else { permit };
        let patience = if Mutant::DeadlineOnEntryOnly.is_on() { LONGEST_CALL } else { patience };
        let work = permit.map(|permit| (permit, AssertUnwindSafe(self.inner.call(request))));
        let seen = span.clone();
        let measured = async move {
            let response = match work {
                // What has not been asked of the store when the time is up is taken back with the work.
                Ok((_permit, work)) => match timeout(patience, work.catch_unwind()).await {
                    Ok(done) => done.unwrap_or_else(|_| Ok(status::broken().into_http())),
                    Err(_) => Ok(status::time_up().into_http()),
                },
                Err(turned_away) => Ok(turned_away.into_http()),
            };
            let response = response.map(reasoned)?;
            let code = code_of(&response);
            let is_fault = is_own_fault(code);
            let code = status::code_name(code);
            seen.record("rpc.response.status_code", code);
            if is_fault {
                seen.record("error.type", code);
                seen.record("otel.status_code", "ERROR");
            }
            metrics.called(method, code, clock.monotonic().saturating_sub(begun));
            Ok(response)
        };
        Box::pin(measured.instrument(span))
    }
}

/// How long the caller waits, as gRPC writes it, and no longer than a call may take. What cannot be read is not said.
fn patience(headers: &HeaderMap) -> Duration {
    let said = || {
        let text = headers.get("grpc-timeout")?.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
        Some(match unit {
            "H" => Duration::from_secs(count * 3_600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    };
    said().map_or(LONGEST_CALL, |said| said.min(LONGEST_CALL))
}

impl<S: NamedService, C> NamedService for Outermost<S, C> {
    const NAME: &'static str = S::NAME;
}

/// The name under which a call is measured; every other path is `_OTHER`, so that nobody can make up labels.
fn method_of(path: &str) -> &'static str {
    roles::method(path).unwrap_or("_OTHER")
}

/// The code of a response. One without a status in its header has begun well.
fn code_of(response: &http::Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

/// Whether a code says that the service is at fault, by OpenTelemetry's conventions for servers, and not the caller.
fn is_own_fault(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

/// Errors that the transport makes before a handler is reached carry no reason of their own. They get one here; they all
/// mean that nothing was executed.
fn reasoned(response: http::Response<Body>) -> http::Response<Body> {
    let Some(bare) =
        Status::from_header_map(response.headers()).filter(|s| s.code() != Code::Ok && s.details().is_empty())
    else {
        return response;
    };
    match bare.code() {
        Code::OutOfRange => {
            status::status(Code::InvalidArgument, "MESSAGE_TOO_LARGE", bare.message().to_string()).into_http()
        }
        Code::Internal => status::status(
            Code::InvalidArgument,
            "MESSAGE_MALFORMED",
            "the message is not of the type that this call takes",
        )
        .into_http(),
        // A path that leads nowhere has no message; what is said otherwise is about a compression that is not spoken here.
        Code::Unimplemented if !bare.message().is_empty() => {
            status::status(Code::Unimplemented, "COMPRESSION_UNKNOWN", bare.message().to_string()).into_http()
        }
        Code::Unimplemented => status::method_unknown().into_http(),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SystemClock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::sleep;

    const STEPS: u32 = 6;

    fn asked(timeout: Option<&str>) -> http::Request<Body> {
        let request = http::Request::builder().version(http::Version::HTTP_2).uri("/x");
        let request = timeout.into_iter().fold(request, |request, text| request.header("grpc-timeout", text));
        request.body(Body::empty()).unwrap()
    }

    /// Work of some steps of 100 ms each, which counts those that it has done.
    fn steps(
        done: Arc<AtomicU32>,
    ) -> impl Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static {
        tower::service_fn(move |_| {
            let done = done.clone();
            async move {
                for _ in 0..STEPS {
                    sleep(Duration::from_millis(100)).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(http::Response::new(Body::empty()))
            }
        })
    }

    fn layer() -> OutermostLayer<SystemClock> {
        OutermostLayer::new(Arc::new(Metrics::none()), SystemClock::real(), 4)
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_with_its_deadline_and_is_not_begun_after_it() {
        let done = Arc::<AtomicU32>::default();
        let mut service = layer().layer(steps(done.clone()));
        let mut said = Vec::new();
        for timeout in [Some("0m"), Some("250m"), None] {
            let response = service.call(asked(timeout)).await.unwrap();
            let reason = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
            // Had anything been left behind, it would go on meanwhile.
            sleep(Duration::from_secs(2)).await;
            said.push((reason.map(|status| status.code()), done.swap(0, Ordering::Relaxed)));
        }
        let late = Some(Code::DeadlineExceeded);
        assert_eq!(said, [(late, 0), (late, 2), (None, STEPS)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_at_any_point_gives_its_place_back() {
        let (layer, done) = (layer(), Arc::<AtomicU32>::default());
        let mut service = layer.layer(steps(done.clone()));
        for polls in 0..=STEPS {
            let mut call = service.call(asked(None));
            assert_eq!(layer.permits.available_permits(), 3);
            for _ in 0..polls {
                assert!(futures_util::poll!(&mut call).is_pending());
                sleep(Duration::from_millis(100)).await;
            }
            drop(call);
            assert_eq!(layer.permits.available_permits(), 4, "dropped after {polls} steps");
        }
        sleep(Duration::from_secs(2)).await;
        // Each was taken as far as it was polled: the first poll only begins the first step.
        assert_eq!(done.load(Ordering::Relaxed), (0..STEPS).sum::<u32>());
    }

    #[test]
    fn a_caller_waits_as_long_as_it_says_and_no_longer_than_a_call_may_take() {
        let of =
            |text: &str| patience(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]));
        for (text, millis) in [("250m", 250), ("2S", 2_000), ("7000u", 7), ("3000000n", 3), ("0n", 0), ("1M", 10_000)] {
            assert_eq!(of(text), Duration::from_millis(millis), "{text}");
        }
        for text in ["99999999H", "100000000m", "5", "S", "", "-1S", "1.5S", "1s", "१S"] {
            assert_eq!(of(text), LONGEST_CALL, "{text}");
        }
        assert_eq!(patience(&HeaderMap::new()), LONGEST_CALL);
    }
}
