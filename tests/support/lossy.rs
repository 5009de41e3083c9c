//! A relay in front of a Redis server that loses what it is told to lose: the next sale on its way there, or the reply to
//! it. So "recorded or not, nobody can say" can be had as often as a test needs it, and the test knows which it was.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// What becomes of the next call that carries a marked text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It passes.
    None = 0,
    /// It never reaches the server: the connection breaks instead.
    Call = 1,
    /// The server does it, and the connection breaks before its reply.
    Reply = 2,
}

/// A relay to one server. Everything ends when it is dropped.
pub struct LossyRelay {
    address: SocketAddr,
    armed: Arc<Armed>,
    _relaying: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Armed {
    loss: AtomicU8,
    /// A call is marked by all of these texts.
    marks: Mutex<Vec<Vec<u8>>>,
}

impl LossyRelay {
    /// Relays to the server on this port of loopback.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let armed = Arc::new(Armed::default());
        let relaying = tokio::spawn({
            let armed = armed.clone();
            async move {
                let mut relays = tokio::task::JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                        relays.spawn(relay(client, server, armed.clone()));
                    }
                }
            }
        });
        Self { address, armed, _relaying: AbortOnDropHandle::new(relaying) }
    }

    /// Where it listens, as a store URL.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Loses the next call that contains all of these texts, or its reply.
    pub fn lose(&self, loss: Loss, marks: &[&str]) {
        let marks = marks.iter().map(|mark| mark.as_bytes().to_vec()).collect();
        *self.armed.marks.lock().expect("the lock") = marks;
        self.armed.loss.store(loss as u8, Ordering::SeqCst);
    }

    /// Whether what was to be lost has been lost.
    pub fn has_lost(&self) -> bool {
        self.armed.loss.load(Ordering::SeqCst) == Loss::None as u8
    }
}

impl Armed {
    /// What becomes of these bytes on their way to the server. A loss happens once.
    fn judge(&self, bytes: &[u8]) -> Loss {
        let marks = self.marks.lock().expect("the lock");
        let marked = marks.iter().all(|mark| bytes.windows(mark.len()).any(|window| window == mark.as_slice()));
        if marks.is_empty() || !marked {
            return Loss::None;
        }
        match self.loss.swap(Loss::None as u8, Ordering::SeqCst) {
            1 => Loss::Call,
            2 => Loss::Reply,
            _ => Loss::None,
        }
    }
}

async fn relay(client: TcpStream, server: TcpStream, armed: Arc<Armed>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut calls, mut replies) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut reply_is_lost = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut calls) => {
                let Ok(length @ 1..) = read else { return };
                match armed.judge(&calls[..length]) {
                    Loss::Call => return,
                    Loss::Reply => reply_is_lost = true,
                    Loss::None => {}
                }
                if to_server.write_all(&calls[..length]).await.is_err() {
                    return;
                }
            }
            read = from_server.read(&mut replies) => {
                let Ok(length @ 1..) = read else { return };
                // A reply means that the server has done it.
                if reply_is_lost || to_client.write_all(&replies[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
