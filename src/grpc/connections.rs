//! How a connection lives and ends: it is served from its first words to its last answer.
//!
//! ```text
//! greeted ─> first words ─> calls ─> told to go away (GOAWAY), its streams come to their end ─> calls under way end ─> closed
//!            └ 5 s, or cut           └ when it is old, each at an age of its own; or when the instance stops
//! ```
//!
//! An end is nobody's failure: what is under way is answered, what has not begun is not, and the client goes on over another
//! connection. A peer that does not let go is cut off.
//!
//! tonic's own server could do neither: it tells an old connection nothing before it cuts it, and waits without a bound for
//! one that never speaks. Knows nothing about what is called.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, OptionFuture};
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Extensions;
use tonic::body::Body;
use tower::{Service, service_fn};

use super::accept::{GREETED_WITHIN, Speaks, Taken, callers};
use super::corked::Corked;
use super::identity::Peer;
use super::status;
use super::trust::Shown;
use crate::museum::Mutant;

/// A peer that vanished without a word keeps its streams, and so its seats are renewed, until a ping goes unanswered: this
/// long after its last sign of life at the most. Its seats come free a lease later.
const PEER_ASKED_EVERY: Duration = Duration::from_secs(3);
/// See [`PEER_ASKED_EVERY`].
const PEER_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// How long an old connection may take to end: the longest call, and a while to take its answer.
const ENDS_WITHIN: Duration = Duration::from_secs(12);
/// How long a connection may take to end whose certificate is believed no more: what is under way is answered, or never will be.
const DISBELIEVED_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// How much is kept of answers that a stream's client does not take.
const UNTAKEN: usize = 64 * 1024;
/// By which part of it ages differ, to either side.
const JITTER: f64 = 0.1;
/// What every HTTP/2 connection begins with. A server hears nothing before it has it, also not that it should stop.
const PREFACE: usize = 24;

/// What is served, and to how many for how long.
pub(super) struct Listens {
    pub(super) speaks: Speaks,
    /// Whether HTTP/1.1 is spoken too.
    pub(super) http1: bool,
    /// The most connections at once.
    pub(super) most: usize,
    /// How old a connection becomes, give or take a tenth; `None`: as old as it likes.
    pub(super) age: Option<Duration>,
}

/// What a call knows of the connection on which it came. Calls share it (`Arc<Link>`).
pub(super) struct Link {
    pub(super) peer: Peer,
    /// Cancelled when the connection is to end, whatever the reason: whoever holds a stream open on it is told to open another.
    ending: CancellationToken,
}

impl Link {
    /// When the connection of a call is to end. One that nobody has looked at never ends.
    pub(super) fn ending(extensions: &Extensions) -> CancellationToken {
        extensions.get::<Arc<Self>>().map(|link| link.ending.clone()).unwrap_or_default()
    }
}

impl Listens {
    /// Serves until `stop`, then lets every connection finish its calls. It does not bound how long that takes: whoever does
    /// drops this, and everything is cut off.
    pub(super) async fn serve<S>(self, listener: TcpListener, service: S, stop: CancellationToken)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let Self { speaks, http1, most, age } = self;
        let http = http(http1);
        let mut live = JoinSet::new();
        {
            let mut taken = pin!(callers(listener, speaks, Arc::new(Semaphore::new(most))));
            loop {
                let taken = tokio::select! {
                    () = stop.cancelled() => break,
                    Some(_) = live.join_next() => continue,
                    taken = taken.next() => taken,
                };
                let Some(taken) = taken else { break };
                live.spawn(live_and_end(&http, taken, service.clone(), age, stop.clone()));
            }
        }
        while live.join_next().await.is_some() {}
    }
}

/// Every limit said aloud.
fn http(http1: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if http1 { builder } else { builder.http2_only() };
    // Heads of requests then have a limit of their own: 30 s.
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_header_list_size(8 * 1024)
        .max_send_buf_size(UNTAKEN)
        .max_pending_accept_reset_streams(Some(20))
        .max_local_error_reset_streams(Some(256))
        .keep_alive_interval(Some(PEER_ASKED_EVERY))
        .keep_alive_timeout(PEER_ANSWERS_WITHIN);
    builder
}

/// A connection takes memory for as long as it is there, and there are as many as terminals. It is made before the future that
/// waits for it and stands in a box of its own: as an argument and a variable of it, all of it would take its room twice.
fn live_and_end<S>(
    http: &auto::Builder<TokioExecutor>,
    Taken { socket, shown, place }: Taken,
    mut service: S,
    age: Option<Duration>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + use<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (peer, ending, disbelieved) = (socket.peer(), CancellationToken::new(), Arc::<AtomicBool>::default());
    let link = Arc::new(Link { peer, ending: ending.clone() });
    let is_disbelieved = disbelieved.clone();
    let call = service_fn(move |request: Request<_>| {
        if is_disbelieved.load(Ordering::Relaxed) {
            return Either::Left(ready(Ok(status::certificate_disbelieved().into_http())));
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(link.clone());
        Either::Right(service.call(request))
    });
    let (heard, first_words) = oneshot::channel();
    let io = TokioIo::new(Corked::new(socket).tells_after(PREFACE, heard));
    let served = Box::pin(http.serve_connection(io, TowerToHyperService::new(call)).into_owned());
    async move {
        // It comes free when the connection is gone.
        let _place = place;
        let mut served = served;
        let spoke = tokio::select! {
            _ = &mut served => return,
            spoke = timeout(GREETED_WITHIN, first_words) => spoke.is_ok(),
            () = stop.cancelled() => false,
        };
        // It has asked for nothing and is told nothing.
        if !spoke && !Mutant::DrainWaitsForAll.is_on() {
            return;
        }
        let is_old = async {
            match age {
                Some(age) => sleep(age.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance())).await,
                None => pending().await,
            }
        };
        let mut ends_within = ENDS_WITHIN;
        tokio::select! {
            _ = &mut served => return,
            () = stop.cancelled() => {}
            Some(why) = OptionFuture::from(shown.map(Shown::disbelieved)) => {
                tracing::warn!(%peer, %why, "a connection is ended: its certificate is not believed any more");
                disbelieved.store(true, Ordering::Relaxed);
                ends_within = DISBELIEVED_ENDS_WITHIN;
            }
            () = is_old => {
                if Mutant::CutWhenOld.is_on() {
                    return;
                }
            }
        }
        served.as_mut().graceful_shutdown();
        // It is told before its streams are: a client that goes on at once does so over another connection.
        tokio::select! {
            biased;
            _ = &mut served => return,
            () = yield_now() => ending.cancel(),
        }
        if stop.is_cancelled() {
            // How long everybody together may take is bounded elsewhere.
            let _ = served.await;
        } else {
            let _ = timeout(ends_within, served).await;
        }
    }
}

/// Evenly from 0 to 1.
pub(super) fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}
