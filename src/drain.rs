//! Stopping in order and in bounded time.
//!
//! ```text
//! signal ─> not ready ─> sessions are told ─> no new connections, GOAWAY ─> calls under way and commits end ─> stores close
//!           └────────────────────── all of it within one deadline, whatever peers do ──────────────────────┘
//! ```

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The stages of a stop, and the work that must end before the process does.
#[derive(Clone, Default)]
pub struct Drain {
    /// Cancelled first: the service is not ready any more, and open sessions are told to go elsewhere.
    pub draining: CancellationToken,
    /// Cancelled next: listeners close and connections are told to finish.
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
    /// while work is under way. A peer that keeps its connection open and says nothing (hyper waits for its first words for
    /// ever) does not make a good end a bad one: it is cut off at the deadline.
    pub async fn run(&self, served: impl Future<Output = ()>, limit: Duration) -> Result<(), TimeUp> {
        self.draining.cancel();
        // Told first and closed next: a session's last event still goes out on its open stream.
        tokio::task::yield_now().await;
        self.closing.cancel();
        let rest = async {
            served.await;
            self.tasks.close();
            self.tasks.wait().await;
        };
        match tokio::time::timeout(limit, rest).await {
            Ok(()) => Ok(()),
            Err(_) if self.tasks.is_empty() => {
                tracing::warn!("connections that did not end in time were cut; no work was under way");
                Ok(())
            }
            Err(_) => Err(TimeUp(limit)),
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
