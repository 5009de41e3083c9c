//! Stopping in order and in bounded time.
//!
//! ```text
//! signal ─> not ready ─> no new connections, GOAWAY ─> sessions are told ─> calls under way and commits end ─> stores close
//!           └────────────────────── all of it within one deadline, whatever peers do ──────────────────────┘
//! ```
//!
//! Work is waited for, and peers hardly: once nothing is under way any more, they have a moment to take their answers.

use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::museum::Mutant;

/// How long peers may take to take their answers and to close, once nothing is under way.
const PEERS_CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The stages of a stop, and the work that must end before the process does.
#[derive(Clone, Default)]
pub struct Drain {
    /// Cancelled at once: listeners close, connections are told to finish, and after that their streams.
    pub closing: CancellationToken,
    /// Work that runs to its end: every commit is on it.
    pub tasks: TaskTracker,
}

/// Work was still under way when the time was up. What became of it is unknown to its callers; nothing is half done.
#[derive(Debug, thiserror::Error)]
#[error("work was still under way after {0:?}; leaving all the same")]
pub struct TimeUp(Duration);

impl Drain {
    /// Stops in order. `served` is what serves the listeners; it ends when connections have. Fails when the deadline passes
    /// while work is under way. A peer that keeps its connection open and takes nothing does not make a good end a bad one: it
    /// is cut off.
    pub async fn run(&self, served: impl Future<Output = ()>, limit: Duration) -> Result<(), TimeUp> {
        self.closing.cancel();
        self.tasks.close();
        if Mutant::DrainWaitsForAll.is_on() {
            served.await;
            self.tasks.wait().await;
            return Ok(());
        }
        tokio::time::timeout(limit, self.ends(served)).await.map_err(|_| TimeUp(limit))
    }

    /// Waits until all work has ended, and for what serves as long as peers deserve it.
    async fn ends(&self, served: impl Future<Output = ()>) {
        let mut served = pin!(served);
        loop {
            tokio::select! {
                () = &mut served => return self.tasks.wait().await,
                () = self.tasks.wait() => {}
            }
            match tokio::time::timeout(PEERS_CLOSE_WITHIN, &mut served).await {
                Ok(()) => return self.tasks.wait().await,
                // Another call may have come in meanwhile, before its client heard that it should go.
                Err(_) if !self.tasks.is_empty() => {}
                Err(_) => {
                    tracing::warn!("connections that did not end in time were cut; no work was under way");
                    return;
                }
            }
        }
    }
}

/// Hears when the process is asked to stop: SIGTERM, or SIGINT from a keyboard.
pub struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    /// Listens from now on. To be called before anybody is told that the service runs, or a request to stop could be missed.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves when the process has been asked.
    pub async fn to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
