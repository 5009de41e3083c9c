//! How a connection lives and ends: it is served from its first words to its last answer.
//!
//! ```text
//! greeted ─> first words ─> first call ─> calls ─> told to go away (GOAWAY), its streams come to their end ─> calls end ─> closed
//!            └ 5 s, or cut  └ 5 s, or gone         └ when it is old, each at an age of its own; or when the instance stops
//! ```
//!
//! An end is nobody's failure: what is under way is answered, what has not begun is not, and the client goes on over another
//! connection. A peer that does not let go is cut off.
//!
//! tonic's own server could do neither: it tells an old connection nothing before it cuts it, and waits without a bound for
//! one that never speaks. Knows nothing about what is called.

use std::convert::Infallible;
use std::error::Error;
use std::future::{pending, ready};
use std::iter::successors;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, OptionFuture};
use futures_util::{StreamExt, TryFutureExt};
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Extensions;
use tonic::body::Body;
use tower::Service;

use super::accept::{Socket, Speaks, Taken, callers};
use super::corked::Corked;
use super::crowd::{Among, Crowd, Room, Share, Who};
use super::guard::{Answer, Asked, Guarded, Watch};
use super::identity::{Identity, Peer};
use super::limits::{self, GREETED_WITHIN, UNGREETED_OF_ONE_ADDRESS};
use super::returns::{Returns, TooMany};
use super::trust::Shown;
use super::{roles, status};
use crate::audit::Trail;
use crate::museum::Mutant;
use crate::telemetry::metrics::{CutWhy, Metrics};

/// How long an old connection may take to end: the longest call, and a while to take its answer.
const ENDS_WITHIN: Duration = Duration::from_secs(12);
/// How long a connection may take to end whose certificate is believed no more: what is under way is answered, or never will be.
const DISBELIEVED_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// How long a connection may take to end on which nothing was asked.
const IDLE_ENDS_WITHIN: Duration = Duration::from_secs(2);
/// By which part of it ages differ, to either side.
const JITTER: f64 = 0.1;

/// What is served, and to how many for how long.
pub(super) struct Listens {
    pub(super) speaks: Speaks,
    /// Whether HTTP/1.1 is spoken too.
    pub(super) http1: bool,
    /// How long a connection of HTTP/1.1 waits for its next request.
    pub(super) idle: Duration,
    pub(super) room: Room,
    /// How long a client may take nothing of the answers that wait for it.
    pub(super) patience: Duration,
    /// What is counted.
    pub(super) metrics: Arc<Metrics>,
    /// How old a connection becomes, give or take a tenth; `None`: as old as it likes. An operator's is always that: an export may
    /// take hours.
    pub(super) age: Option<Duration>,
    /// Where its calls are put on record, before they are answered.
    pub(super) trail: Trail,
}

/// What a call knows of the connection on which it came. Calls share it (`Arc<Link>`).
pub(super) struct Link {
    watch: Arc<Watch>,
    /// The calls that may be under way on this and all other connections of whoever it is counted for.
    calls: Option<Arc<Semaphore>>,
    /// Cancelled when the connection is to end, whatever the reason: whoever holds a stream open on it is told to open another.
    ending: CancellationToken,
    /// Whether there was any.
    asked: AtomicBool,
    /// Whether its certificate is believed no more.
    disbelieved: AtomicBool,
}

impl Link {
    /// Who is at the other end.
    pub(super) fn peer(&self) -> &Peer {
        &self.watch.peer
    }

    /// Its last answer was given, or there can be none. One that ended for an error of HTTP/2 has misbehaved, whatever was counted;
    /// also if the peer says first that it was an error, which is then what is told here.
    fn has_ended(&self, ended: Result<(), Box<dyn Error + Send + Sync>>) {
        let Err(error) = ended else { return };
        let mut causes = successors(Some(&*error as &(dyn Error + 'static)), |error| (*error).source());
        let is_abuse = |error: &h2::Error| error.is_go_away() && error.reason() != Some(h2::Reason::NO_ERROR);
        if causes.any(|cause| cause.downcast_ref().is_some_and(is_abuse)) {
            self.watch.misbehaved();
        }
    }

    /// When the connection of a call is to end. One that nobody has looked at never ends.
    pub(super) fn ending(extensions: &Extensions) -> CancellationToken {
        extensions.get::<Arc<Self>>().map(|link| link.ending.clone()).unwrap_or_default()
    }

    /// The calls that the caller may have under way; `None`: as many as there are.
    pub(super) fn calls(extensions: &Extensions) -> Option<Arc<Semaphore>> {
        extensions.get::<Arc<Self>>()?.calls.clone()
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
        let Self { speaks, http1, idle, room, patience, metrics, age, trail } = self;
        let (http, crowd, returns) = (http(http1, idle), Crowd::new(), Arc::new(Returns::default()));
        let mut live = JoinSet::new();
        {
            let ungreeted = room.of_one_address.unwrap_or(UNGREETED_OF_ONE_ADDRESS).min(UNGREETED_OF_ONE_ADDRESS);
            let mut taken = pin!(callers(listener, speaks, room.connections, ungreeted));
            loop {
                let taken = tokio::select! {
                    () = stop.cancelled() => break,
                    Some(_) = live.join_next() => continue,
                    taken = taken.next() => taken,
                };
                let Some(Taken { socket, shown, place }) = taken else { break };
                let (peer, from) = (socket.peer(), socket.from());
                let watch = Arc::new(Watch::new((peer, from), returns.clone(), patience, metrics.clone()));
                let join =
                    |(who, share): (_, Share)| crowd.join(who, share.connections, || Semaphore::new(share.calls));
                let among = room.share(peer, from).map(|share| join(share).map(Box::new).ok_or(()));
                let begins = || returns.begins(peer, Instant::now()).map_err(|TooMany| ());
                // It is one of somebody's, and of those there are enough.
                let Ok((among, begins)) = among.transpose().and_then(|among| Ok((among, begins()?))) else {
                    watch.cut(CutWhy::TooMany);
                    continue;
                };
                let age = age.filter(|_| !matches!(peer, Peer::Certified(Identity::Operator(_), _)));
                let (shown, trail) = (shown.map(Box::new), trail.clone());
                let begun = Begun { socket, begins, shown, watch, trail, room: (place, among) };
                live.spawn(live_and_end(&http, begun, service.clone(), age, stop.clone()));
            }
        }
        while live.join_next().await.is_some() {}
    }
}

/// Every limit said aloud.
fn http(http1: bool, idle: Duration) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if http1 { builder } else { builder.http2_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_headers(limits::HTTP1_HEADERS)
        .max_buf_size(limits::HTTP1_BUFFER);
    if Mutant::LimitsUnset.is_on() {
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(None).max_local_error_reset_streams(None);
        return builder;
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        // gRPC knows of none, and the peer's table would keep it for each connection.
        .auto_date_header(false)
        .max_concurrent_streams(limits::STREAMS)
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_frame_size(limits::FRAME)
        .max_header_list_size(limits::HEADERS)
        .max_send_buf_size(limits::UNTAKEN)
        .max_pending_accept_reset_streams(Some(limits::RESETS_PENDING))
        .max_local_error_reset_streams(Some(limits::RESETS_PROVOKED))
        .keep_alive_interval(Some(limits::PEER_ASKED_EVERY))
        .keep_alive_timeout(limits::PEER_ANSWERS_WITHIN);
    builder
}

/// A connection that is about to be served.
struct Begun {
    socket: Socket,
    /// `None`: at once.
    begins: Option<Instant>,
    shown: Option<Box<Shown>>,
    watch: Arc<Watch>,
    trail: Trail,
    /// Comes free with it.
    room: (OwnedSemaphorePermit, Option<Box<Among<Who, Semaphore>>>),
}

/// A connection takes memory for as long as it is there, and there are as many as terminals. It is made before the future that
/// waits for it and stands in a box of its own: as an argument and a variable of it, all of it would take its room twice.
fn live_and_end<S>(
    http: &auto::Builder<TokioExecutor>,
    Begun { socket, begins, shown, watch, trail, room }: Begun,
    service: S,
    age: Option<Duration>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + use<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let calls = room.1.as_ref().map(|among| among.shared.clone());
    let (asked, disbelieved) = (AtomicBool::new(false), AtomicBool::new(false));
    let link = Arc::new(Link { watch: watch.clone(), calls, ending: CancellationToken::new(), asked, disbelieved });
    let connection = link.clone();
    // Not by way of a service that is asked first whether it is ready: that would keep room for the request beside each call's work.
    let call = service_fn(move |request: Request<_>| {
        link.asked.store(true, Ordering::Relaxed);
        let called = if link.disbelieved.load(Ordering::Relaxed) {
            Either::Left(ready(Ok(status::certificate_disbelieved().into_http())))
        } else {
            let within = roles::message_within(request.uri().path());
            let mut request = request.map(|body| Body::new(Asked::new(body, within)));
            request.extensions_mut().insert(link.clone());
            Either::Right(service.clone().call(request))
        };
        let watched = link.watch.clone();
        called.map_ok(|response: Response<Body>| response.map(|body| Answer::new(body, watched)))
    });
    let lives = age.map(|age| age.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance()));
    let (heard, first_words) = oneshot::channel();
    let io = TokioIo::new(Corked::new(Guarded::new(socket, watch, heard), trail));
    let served = Box::pin(http.serve_connection(io, call).into_owned());
    let begins = begins.map(|begins| Box::pin(sleep_until(begins)));
    async move {
        // It comes free when the connection is gone. A variable of its own would take its room twice.
        let _ = &room;
        let mut served = served;
        if let Some(begins) = begins {
            tokio::select! {
                () = begins => {}
                () = stop.cancelled() => return,
            }
        }
        let spoke = tokio::select! {
            ended = &mut served => return connection.has_ended(ended),
            spoke = timeout(GREETED_WITHIN, first_words) => spoke.is_ok(),
            () = stop.cancelled() => false,
        };
        // It has asked for nothing and is told nothing.
        if !spoke && !Mutant::DrainWaitsForAll.is_on() {
            if !stop.is_cancelled() {
                connection.watch.cut(CutWhy::Silent);
            }
            return;
        }
        let begins = lives.map_or(GREETED_WITHIN, |lives| lives.min(GREETED_WITHIN));
        let is_over = async {
            sleep(begins).await;
            if !connection.asked.load(Ordering::Relaxed) {
                return Over::NothingAsked;
            }
            match lives {
                Some(lives) => sleep(lives - begins).await,
                None => pending().await,
            }
            Over::Old
        };
        let mut ends_within = ENDS_WITHIN;
        tokio::select! {
            ended = &mut served => return connection.has_ended(ended),
            () = stop.cancelled() => {}
            // Boxed: who shows no certificate need not keep the room for it.
            Some(why) = OptionFuture::from(shown.map(|shown| Box::pin(shown.disbelieved()))) => {
                tracing::warn!(peer = %connection.watch.peer, %why, "a connection is ended: its certificate is not believed any more");
                connection.disbelieved.store(true, Ordering::Relaxed);
                ends_within = DISBELIEVED_ENDS_WITHIN;
            }
            over = is_over => match over {
                Over::Old if Mutant::CutWhenOld.is_on() => return,
                Over::Old => {}
                Over::NothingAsked => {
                    connection.watch.cut(CutWhy::NothingAsked);
                    ends_within = IDLE_ENDS_WITHIN;
                }
            }
        }
        served.as_mut().graceful_shutdown();
        // It is told before its streams are: a client that goes on at once does so over another connection.
        tokio::select! {
            biased;
            ended = &mut served => return connection.has_ended(ended),
            () = yield_now() => connection.ending.cancel(),
        }
        if stop.is_cancelled() {
            // How long everybody together may take is bounded elsewhere.
            connection.has_ended(served.await);
        } else if let Ok(ended) = timeout(ends_within, served).await {
            connection.has_ended(ended);
        }
    }
}

/// Why a connection is over that did nothing wrong.
enum Over {
    Old,
    NothingAsked,
}

/// Evenly from 0 to 1.
pub(super) fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}
