//! The proxy does what it says: without that, a row that struck nothing would look like one that was survived.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::support::proxy::{Fault, Proxy};

/// Longer than anything takes that is not held up.
const SOON: Duration = Duration::from_secs(5);
/// Long enough to say that something does not come.
const NEVER: Duration = Duration::from_millis(200);

/// A server that sends everything back, and counts the bytes that reached it.
struct Echo {
    port: u16,
    received: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (port, received) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let counted = received.clone();
        let serving = tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                let counted = counted.clone();
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(read @ 1..) = peer.read(&mut bytes).await {
                        counted.fetch_add(read, Ordering::SeqCst);
                        if peer.write_all(&bytes[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, received, _serving: AbortOnDropHandle::new(serving) }
    }

    async fn proxied() -> (Self, Proxy) {
        let echo = Self::start().await;
        let proxy = Proxy::to(echo.port).await;
        (echo, proxy)
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }

    async fn has_received(&self, bytes: usize) {
        let arrived = async {
            while self.received() < bytes {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(timeout(SOON, arrived).await.is_ok(), "{} of {bytes} bytes arrived", self.received());
    }
}

async fn dial(proxy: &Proxy) -> TcpStream {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    echoed(&mut client, b"hello").await;
    client
}

async fn echoed(client: &mut TcpStream, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    let mut back = vec![0; bytes.len()];
    client.write_all(bytes).await.unwrap();
    timeout(SOON, client.read_exact(&mut back)).await.expect("in time").unwrap();
    assert_eq!(back, bytes);
    begun.elapsed()
}

/// How the connection ends: with the kind of error, or `None` at an orderly end. Not a byte comes before.
async fn ending(client: &mut TcpStream) -> Option<ErrorKind> {
    let mut byte = [0; 1];
    match timeout(SOON, client.read(&mut byte)).await.expect("an end") {
        Ok(0) => None,
        Ok(_) => panic!("a byte came"),
        Err(error) => Some(error.kind()),
    }
}

#[tokio::test]
async fn many_connections_pass_unchanged_and_what_is_behind_may_move() {
    let (echo, proxy) = Echo::proxied().await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(dial(&proxy).await);
    }
    assert_eq!((proxy.open(), proxy.broken()), (200, 0));
    let long: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
    for client in clients.iter_mut().take(2) {
        let (mut from, mut to) = client.split();
        let mut back = vec![0; long.len()];
        let (sent, read) = tokio::join!(to.write_all(&long), from.read_exact(&mut back));
        sent.unwrap();
        assert_eq!((read.unwrap(), back == long), (long.len(), true));
    }
    let other = Echo::start().await;
    proxy.aim(other.port);
    let before = echo.received();
    dial(&proxy).await;
    assert_eq!((echo.received(), other.received()), (before, 5));
}

#[tokio::test]
async fn nobody_behind_it_is_a_connection_that_breaks() {
    let (echo, proxy) = Echo::proxied().await;
    drop(echo);
    tokio::task::yield_now().await;
    proxy.aim(crate::support::redis::free_port());
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    assert_eq!(ending(&mut client).await, Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn latency_comes_both_ways_and_goes() {
    let (_echo, proxy) = Echo::proxied().await;
    let mut client = dial(&proxy).await;
    let late = Duration::from_millis(60);
    proxy.strike(Fault::Latency(late));
    assert!(echoed(&mut client, b"there and back").await >= 2 * late);
    proxy.strike(Fault::Latency(Duration::from_secs(60)));
    client.write_all(b"held").await.unwrap();
    tokio::time::sleep(late).await;
    proxy.heal();
    let mut back = [0; 4];
    timeout(SOON, client.read_exact(&mut back)).await.expect("what was held up is let go").unwrap();
}

#[tokio::test]
async fn a_trickle_is_a_byte_at_a_time_and_goes() {
    let (echo, proxy) = Echo::proxied().await;
    let mut client = dial(&proxy).await;
    let pause = Duration::from_millis(5);
    proxy.strike(Fault::Trickle(pause));
    assert!(echoed(&mut client, &[7; 20]).await >= 20 * pause, "one after the other");
    proxy.strike(Fault::Trickle(Duration::from_secs(60)));
    let before = echo.received();
    client.write_all(b"slowly").await.unwrap();
    echo.has_received(before + 1).await;
    tokio::time::sleep(NEVER).await;
    assert_eq!(echo.received(), before + 1, "one byte, and a minute's pause");
    proxy.strike(Fault::Trickle(Duration::ZERO));
    echoed(&mut dial(&proxy).await, &[9; 3_000]).await;
}

#[tokio::test]
async fn silence_hides_even_that_the_other_side_is_gone_and_delivers_late() {
    let (echo, proxy) = Echo::proxied().await;
    let (mut client, leaver) = (dial(&proxy).await, dial(&proxy).await);
    proxy.strike(Fault::Silence);
    let before = echo.received();
    client.write_all(b"late").await.unwrap();
    drop(leaver);
    let mut newcomer = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    newcomer.write_all(b"new").await.unwrap();
    tokio::time::sleep(NEVER).await;
    assert_eq!((echo.received(), proxy.open()), (before, 3), "nothing arrives, and nobody is told");
    proxy.heal();
    echo.has_received(before + 7).await;
    let mut back = [0; 4];
    timeout(SOON, client.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"late");
}

#[tokio::test]
async fn muted_the_requests_arrive_and_the_answers_wait() {
    let (echo, proxy) = Echo::proxied().await;
    let mut client = dial(&proxy).await;
    proxy.strike(Fault::Mute);
    let before = echo.received();
    let mut newcomer = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    for client in [&mut client, &mut newcomer] {
        client.write_all(b"done").await.unwrap();
    }
    echo.has_received(before + 8).await;
    let mut back = [0; 4];
    assert!(timeout(NEVER, client.read(&mut back)).await.is_err());
    proxy.heal();
    timeout(SOON, newcomer.read_exact(&mut back)).await.unwrap().unwrap();
    proxy.strike(Fault::Mute);
    newcomer.write_all(b"gone").await.unwrap();
    echo.has_received(before + 12).await;
    tokio::time::sleep(NEVER).await;
    proxy.strike(Fault::Reset);
    assert_eq!(ending(&mut newcomer).await, Some(ErrorKind::ConnectionReset), "what was held goes with it");
}

#[tokio::test]
async fn a_half_open_connection_is_silent_for_good_and_new_ones_are_whole() {
    let (echo, proxy) = Echo::proxied().await;
    let mut dead = dial(&proxy).await;
    proxy.strike(Fault::HalfOpen);
    let before = echo.received();
    dead.write_all(b"nobody").await.unwrap();
    dial(&proxy).await;
    proxy.heal();
    let mut byte = [0; 1];
    assert!(timeout(NEVER, dead.read(&mut byte)).await.is_err(), "neither a byte nor an end");
    assert_eq!(echo.received(), before + 5, "only the newcomer's");
}

#[tokio::test]
async fn a_reset_is_one_and_new_connections_are_whole() {
    let (_echo, proxy) = Echo::proxied().await;
    let mut clients = [dial(&proxy).await, dial(&proxy).await];
    proxy.strike(Fault::Reset);
    for client in &mut clients {
        assert_eq!(ending(client).await, Some(ErrorKind::ConnectionReset));
    }
    assert_eq!(proxy.broken(), 2);
    dial(&proxy).await;
}

#[tokio::test]
async fn a_cut_after_the_request_delivers_so_many_bytes_and_no_answer() {
    let (echo, proxy) = Echo::proxied().await;
    let mut client = dial(&proxy).await;
    proxy.strike(Fault::CutAfterRequest(1_000));
    let before = echo.received();
    client.write_all(&[1; 600]).await.unwrap();
    echo.has_received(before + 600).await;
    let mut byte = [0; 1];
    assert!(timeout(NEVER, client.read(&mut byte)).await.is_err(), "no byte of an answer before the cut");
    client.write_all(&[1; 600]).await.unwrap();
    assert_eq!(ending(&mut client).await, Some(ErrorKind::ConnectionReset));
    echo.has_received(before + 1_000).await;
    tokio::time::sleep(NEVER).await;
    assert_eq!((echo.received(), proxy.broken()), (before + 1_000, 1), "these and no more");
    // Made while it is on, and whole.
    let mut client = dial(&proxy).await;
    proxy.strike(Fault::CutAfterRequest(usize::MAX));
    client.write_all(b"held").await.unwrap();
    tokio::time::sleep(NEVER).await;
    proxy.heal();
    let mut back = [0; 4];
    timeout(SOON, client.read_exact(&mut back)).await.expect("what was held is let go").unwrap();
}

#[tokio::test]
async fn a_cut_before_the_reply_delivers_the_whole_request() {
    let (echo, proxy) = Echo::proxied().await;
    let mut client = dial(&proxy).await;
    proxy.strike(Fault::CutBeforeReply);
    let before = echo.received();
    client.write_all(&[1; 600]).await.unwrap();
    assert_eq!(ending(&mut client).await, Some(ErrorKind::ConnectionReset));
    assert_eq!((echo.received(), proxy.broken()), (before + 600, 1));
    dial(&proxy).await;
}
