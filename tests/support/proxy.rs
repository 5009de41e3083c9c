//! A TCP proxy that does to what it carries what networks do: delay, crumble, fall silent, break. A test switches it while
//! connections are open, and moves what is behind it to another port without anybody in front noticing.
//!
//! A fault that breaks connections strikes those that are open when it is switched on, each at its next chance; connections made
//! later are whole. The others act on every connection for as long as they are on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// How long a server may go on answering a connection whose client is gone.
const DRAIN: Duration = Duration::from_secs(5);

/// What is done to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Everything arrives so much later, in both directions.
    Latency(Duration),
    /// Everything arrives a byte at a time, with so long between two.
    Trickle(Duration),
    /// Nothing arrives, not even that the other side has gone. What was sent meanwhile arrives when it is over.
    Silence,
    /// Requests arrive and are done, and their answers are held until it is over.
    Mute,
    /// The connections that are open now are silent for good, and nobody is told; new ones are whole.
    HalfOpen,
    /// The connections that are open now are reset, with whatever is under way.
    Reset,
    /// Each connection that is open now is reset when so many more bytes of requests have reached the server: it does what it
    /// has got, and not a byte of its answer arrives. Until then answers are held, and let go if it is healed before.
    CutAfterRequest(usize),
    /// Each connection that is open now is reset instead of the next byte of an answer. All of its request has arrived.
    CutBeforeReply,
}

/// What is on at this moment.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    fault: Option<Fault>,
    /// Breaking faults strike connections with smaller numbers.
    below: u64,
    /// Connections with smaller numbers are silent for good.
    dead_below: u64,
    /// Connections with smaller numbers are reset.
    reset_below: u64,
}

/// A proxy on a port of its own. Everything ends when it is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

struct Shared {
    target: AtomicU16,
    weather: watch::Sender<Weather>,
    made: AtomicU64,
    open: AtomicUsize,
    broken: AtomicU64,
}

impl Proxy {
    /// In front of this port of loopback.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let SocketAddr::V4(address) = listener.local_addr().expect("an address") else { unreachable!("bound to IPv4") };
        let shared = Arc::new(Shared {
            target: AtomicU16::new(port),
            weather: watch::Sender::new(Weather::default()),
            made: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            broken: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { port: address.port(), shared, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// New connections lead to this port.
    pub fn aim(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// Switches a fault on, in the place of the one before.
    pub fn strike(&self, fault: Fault) {
        let made = self.shared.made.load(Ordering::SeqCst);
        self.shared.weather.send_modify(|weather| {
            weather.fault = Some(fault);
            weather.below = made;
            match fault {
                Fault::HalfOpen => weather.dead_below = made,
                Fault::Reset => weather.reset_below = made,
                _ => {}
            }
        });
    }

    /// Everything passes again; what is dead stays dead.
    pub fn heal(&self) {
        self.shared.weather.send_modify(|weather| weather.fault = None);
    }

    /// How many connections were ever made.
    pub fn made(&self) -> u64 {
        self.shared.made.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections the proxy has broken.
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let shared = shared.clone();
        let number = shared.made.fetch_add(1, Ordering::SeqCst);
        connections.spawn(async move {
            shared.open.fetch_add(1, Ordering::SeqCst);
            Connection { number, weather: shared.weather.subscribe(), shared: &shared }.carry(client).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// How a connection ends.
enum End {
    /// One side closed it.
    Closed,
    /// The proxy resets both sides.
    Reset,
    /// The proxy resets the client's side; the server may go on with what it has got.
    Cut,
}

struct Connection<'a> {
    number: u64,
    weather: watch::Receiver<Weather>,
    shared: &'a Shared,
}

impl Connection<'_> {
    async fn carry(self, mut client: TcpStream) {
        self.until(|weather| !self.is_silent(weather)).await;
        let _ = client.set_nodelay(true);
        let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.shared.target.load(Ordering::SeqCst))).await
        else {
            // As if nobody listened.
            let _ = client.set_zero_linger();
            return;
        };
        let _ = server.set_nodelay(true);
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let end = tokio::select! {
            // What is held when a connection is reset goes with it.
            biased;
            () = self.until(|weather| self.number < weather.reset_below) => End::Reset,
            end = self.requests(from_client, to_server) => end,
            end = self.replies(from_server, to_client) => end,
        };
        if !matches!(end, End::Closed) {
            self.shared.broken.fetch_add(1, Ordering::SeqCst);
            let _ = client.set_zero_linger();
        }
        drop(client);
        match end {
            End::Closed => {}
            End::Reset => drop(server.set_zero_linger()),
            End::Cut => {
                let _ = server.shutdown().await;
                let _ = tokio::time::timeout(DRAIN, tokio::io::copy(&mut server, &mut tokio::io::sink())).await;
            }
        }
    }

    fn is_silent(&self, weather: &Weather) -> bool {
        weather.fault == Some(Fault::Silence) || self.number < weather.dead_below
    }

    /// What is on for this connection.
    fn fault(&self) -> Option<Fault> {
        let weather = *self.weather.borrow();
        let breaks = matches!(weather.fault, Some(Fault::CutAfterRequest(_) | Fault::CutBeforeReply));
        weather.fault.filter(|_| !breaks || self.number < weather.below)
    }

    /// Returns when the weather is so.
    async fn until(&self, is_so: impl Fn(&Weather) -> bool) {
        // The sender lives as long as the proxy, whose end ends this task.
        let _ = self.weather.clone().wait_for(|weather| is_so(weather)).await;
    }

    async fn requests(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let mut bytes = vec![0; 64 * 1024];
        let mut passed = 0;
        loop {
            let read = from.read(&mut bytes).await.unwrap_or(0);
            self.until(|weather| !self.is_silent(weather)).await;
            if read == 0 {
                return End::Closed;
            }
            let bytes = &bytes[..read];
            match self.fault() {
                Some(Fault::CutAfterRequest(most)) if passed + read >= most => {
                    let _ = to.write_all(&bytes[..most.saturating_sub(passed)]).await;
                    return End::Cut;
                }
                Some(Fault::CutAfterRequest(_)) => passed += read,
                _ => passed = 0,
            }
            if !self.write(&mut to, bytes).await {
                return End::Closed;
            }
        }
    }

    async fn replies(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut bytes).await.unwrap_or(0);
            self.until(|weather| !self.is_silent(weather)).await;
            if read == 0 {
                return End::Closed;
            }
            match self.fault() {
                Some(Fault::CutBeforeReply) => return End::Cut,
                // Held until the cut, which it does not survive.
                Some(Fault::CutAfterRequest(_)) => {
                    self.until(|_| !matches!(self.fault(), Some(Fault::CutAfterRequest(_)))).await;
                }
                Some(Fault::Mute) => self.until(|weather| weather.fault != Some(Fault::Mute)).await,
                _ => {}
            }
            // A reset ends the holding, and what was held goes with it: `carry` may not have seen it yet.
            if self.number < self.weather.borrow().reset_below {
                return End::Reset;
            }
            if !self.write(&mut to, &bytes[..read]).await {
                return End::Closed;
            }
        }
    }

    /// Passes bytes on as the weather lets them; says whether the other side takes them.
    async fn write(&self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> bool {
        match self.fault() {
            Some(Fault::Latency(late)) => {
                let over = self.until(|_| self.fault() != Some(Fault::Latency(late)));
                let _ = tokio::time::timeout(late, over).await;
                to.write_all(bytes).await.is_ok()
            }
            Some(Fault::Trickle(pause)) => {
                let mut rest = bytes;
                while let Some((byte, after)) = rest.split_first() {
                    if self.fault() != Some(Fault::Trickle(pause)) {
                        return to.write_all(rest).await.is_ok();
                    }
                    if to.write_all(std::slice::from_ref(byte)).await.is_err() {
                        return false;
                    }
                    rest = after;
                    pause_for(pause).await;
                }
                true
            }
            _ => to.write_all(bytes).await.is_ok(),
        }
    }
}

/// A pause of nothing still lets others have their turn.
async fn pause_for(pause: Duration) {
    if pause.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(pause).await;
    }
}
