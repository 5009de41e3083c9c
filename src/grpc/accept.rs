//! How a connection begins: taken from the kernel, greeted, and handed on with what its certificate says.
//!
//! A greeting that fails, or takes too long, ends that connection and nothing else. So many are under way at once, of one address
//! so many of them; those after them wait, and the wait is part of the time. So many connections are there at once; those after
//! them wait in the kernel's queue. A listener never ends by itself: where no connection can be had it waits and tries again.

use std::future::ready;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use futures_util::{Stream, StreamExt, stream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::corked::Corked;
use super::crowd::{Crowd, network};
use super::identity::Peer;
use super::limits::{GREETED_WITHIN, GREETINGS, GREETINGS_OF_ONE_ADDRESS};
use super::lines::Lines;
use super::trust::{Shown, Tls};
use crate::audit::Trail;
use crate::telemetry::metrics::{CutWhy, RefusedWhen};

/// How long to wait when no connection can be had, as when there are no file descriptors left: at first, and at the most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// See [`SHORTEST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many bytes TLS keeps that the socket does not take.
const TLS_KEEPS: usize = 16 * 1024;
/// How a TLS connection begins: a record of the handshake. Nothing else that is spoken here begins so.
const CLIENT_HELLO: u8 = 0x16;

/// About connections that were not greeted.
static REFUSED: LazyLock<Lines> = LazyLock::new(Lines::new);

/// What is spoken on a listener.
#[derive(Clone)]
pub(super) enum Speaks {
    /// Nothing is encrypted.
    Clear,
    /// TLS and nothing else, with those who show a certificate.
    Tls(Tls),
    /// TLS with those who begin with it, whether or not they show a certificate.
    Either(Tls),
}

/// A connection, in the clear or not.
pub(super) enum Socket {
    /// In the clear.
    Clear(TcpStream),
    /// Over TLS. Boxed: it is far larger.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that has been greeted. Its place comes free with it.
pub(super) struct Taken {
    pub(super) socket: Socket,
    /// The certificate that was shown, if one was.
    pub(super) shown: Option<Shown>,
    pub(super) place: OwnedSemaphorePermit,
}

/// The connections of a listener, no more at once than there is room for, and of one address only so many that have not been
/// greeted. It never fails.
pub(super) fn callers(
    listener: TcpListener,
    speaks: Speaks,
    most: usize,
    ungreeted_of_one_address: usize,
) -> impl Stream<Item = Taken> {
    let room = Arc::new(Semaphore::new(most));
    let taken = stream::unfold((listener, room), async |(listener, room)| {
        // Nobody closes it.
        let place = room.clone().acquire_owned().await.ok()?;
        Some(((take(|| listener.accept()).await, place), (listener, room)))
    });
    let (tls, or_clear) = match speaks {
        Speaks::Clear => {
            let clear = |(socket, place)| Taken { socket: Socket::Clear(socket), shown: None, place };
            return Either::Left(taken.map(clear));
        }
        Speaks::Tls(tls) => (tls, false),
        Speaks::Either(tls) => (tls, true),
    };
    let arrivals = Arrivals::new(ungreeted_of_one_address);
    // On tasks of their own, because they are work; given up together with the listener.
    let greeting = move |(socket, place)| {
        let (tls, arrivals) = (tls.clone(), arrivals.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let (socket, shown) = arrivals.greet(tls, or_clear, socket).await?;
            Some(Taken { socket, shown, place })
        }))
    };
    // Each has a place, so there are no more of them.
    let greeted = taken.map(greeting).buffer_unordered(most);
    Either::Right(greeted.filter_map(|greeted| ready(greeted.ok().flatten())))
}

/// The next connection.
async fn take<F>(mut accept: impl FnMut() -> F) -> TcpStream
where
    F: Future<Output = io::Result<(TcpStream, SocketAddr)>>,
{
    let mut pause = SHORTEST_PAUSE;
    loop {
        match accept().await {
            // It fails only where the peer has gone already.
            Ok((socket, _)) if socket.set_nodelay(true).is_ok() => return socket,
            Ok(_) => {}
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                if pause == SHORTEST_PAUSE {
                    tracing::error!(%error, "no connection can be taken; it is tried again");
                }
                sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        }
    }
}

/// Whether it was that one connection that failed, and not the taking of connections.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | TimedOut)
}

/// Those who have not been greeted yet.
#[derive(Clone)]
struct Arrivals {
    greeted: Arc<Semaphore>,
    /// With the greetings of each.
    by_address: Arc<Crowd<IpAddr, Semaphore>>,
    of_one_address: usize,
}

impl Arrivals {
    fn new(of_one_address: usize) -> Self {
        Self { greeted: Arc::new(Semaphore::new(GREETINGS)), by_address: Crowd::new(), of_one_address }
    }

    /// Greets, when it is this one's turn. `None`: there will be no connection.
    async fn greet(&self, tls: Tls, or_clear: bool, socket: TcpStream) -> Option<(Socket, Option<Shown>)> {
        let metrics = tls.metrics();
        // It fails only where the peer has gone already.
        let from = socket.peer_addr().ok()?;
        let greetings = || Semaphore::new(GREETINGS_OF_ONE_ADDRESS);
        let Some(among) = self.by_address.join(network(from.ip()), self.of_one_address, greetings) else {
            metrics.connection_cut(CutWhy::TooMany);
            return None;
        };
        let greeted = timeout(GREETED_WITHIN, async {
            let _one_of_its_address = among.shared.acquire().await.ok()?;
            let _one_of_all = self.greeted.acquire().await.ok()?;
            greet(tls, or_clear, socket, from).await
        });
        greeted.await.unwrap_or_else(|_| {
            metrics.connection_cut(CutWhy::Greeting);
            None
        })
    }
}

/// Shakes hands, unless the peer speaks in the clear and may.
async fn greet(tls: Tls, or_clear: bool, socket: TcpStream, from: SocketAddr) -> Option<(Socket, Option<Shown>)> {
    if or_clear && !speaks_tls(&socket).await.ok()? {
        return Some((Socket::Clear(socket), None));
    }
    let (spoken, believed) = tls.spoken(!or_clear);
    match TlsAcceptor::from(spoken).accept(socket).into_fallible().await {
        Ok(mut stream) => {
            // What it takes counts as taken by the peer, so it is little.
            stream.get_mut().1.set_buffer_limit(Some(TLS_KEEPS));
            let chain = stream.get_ref().1.peer_certificates();
            let shown = chain.map(|chain| Shown::new(chain.to_vec(), believed, tls));
            Some((Socket::Tls(Box::new(stream)), shown))
        }
        Err((error, socket)) => {
            if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref()) {
                tls.refuses(error, RefusedWhen::Greeting);
            }
            // What a peer says that goes away before it has said anything is no news.
            if error.kind() == io::ErrorKind::InvalidData {
                REFUSED.say(|left_out| tracing::info!(%from, %error, left_out, "a connection was refused"));
            }
            // So that the peer reads why, and not that its connection broke.
            let _ = Corked::new(socket, Trail::Log).shutdown().await;
            None
        }
    }
}

async fn speaks_tls(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(socket.peek(&mut first).await? == 1 && first == [CLIENT_HELLO])
}

impl Socket {
    /// Where the other end is.
    pub(super) fn from(&self) -> Option<SocketAddr> {
        match self {
            Self::Clear(socket) => socket.peer_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr().ok(),
        }
    }

    /// Who stands at the other end.
    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::Clear(_) => Peer::Clear,
            Self::Tls(stream) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                shown.map_or(Peer::Uncertified, Peer::of_certificate)
            }
        }
    }
}

/// The same on both kinds.
macro_rules! on_either {
    ($socket:expr, $inner:ident => $does:expr) => {
        match $socket.get_mut() {
            Socket::Clear($inner) => $does,
            Socket::Tls($inner) => $does,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_either!(self, inner => Pin::new(inner).poll_read(context, into))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_either!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, inner => Pin::new(inner).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_listener_without_descriptors_waits_and_goes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (asked, begun) = (AtomicU32::new(0), tokio::time::Instant::now());
        // EMFILE for an hour, with a peer in between that went away.
        let socket = take(|| async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                3 => Err(io::ErrorKind::ConnectionAborted.into()),
                _ if begun.elapsed() < Duration::from_secs(3_600) => Err(io::Error::from_raw_os_error(24)),
                _ => listener.accept().await,
            }
        });
        assert!(socket.await.nodelay().unwrap());
        let asked = asked.into_inner();
        assert!((3_600..3_620).contains(&asked), "asked {asked} times");
    }
}
