//! The key file: read at the start, and again when it changes or a call was refused because the ledger's ring has turned. A turned
//! ring is in force at once for all calls that follow; a file that cannot be used, or is another ledger's, is refused.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::block_in_place;

use crate::buyer::{KeyRing, Turn};
use crate::config::{Config, ConfigErrors, Keys};
use crate::ledger::Ledger;

/// The least time between two looks: a file that is late does not come sooner by being looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The key ring in force.
pub(super) struct Ring {
    pub(super) held: Arc<ArcSwap<KeyRing>>,
    /// Rung when a call was made under another ring than the ledger is written under.
    pub(super) wanted: Arc<Notify>,
    /// The problem that was told last and still stands.
    told: Option<String>,
}

impl Ring {
    /// Of the keys at the start.
    pub(super) fn new(keys: &Keys, wanted: Arc<Notify>) -> Self {
        Self { held: Arc::new(ArcSwap::from_pointee(keys.ring())), wanted, told: None }
    }

    /// Follows the key file for as long as the service runs.
    pub(super) async fn follow<L: Ledger>(mut self, config: Config, ledger: L) {
        // Whether the ledger has been told of the ring in force.
        let mut settled = true;
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            tokio::select! {
                () = tokio::time::sleep(config.reload.saturating_sub(LOOK_PAUSE)) => {}
                () = self.wanted.notified() => {}
            }
            let now = self.held.load().turn();
            match block_in_place(|| Keys::load(&config.keys)).and_then(|keys| follows(&config, now, &keys)) {
                Ok(None) => self.told = None,
                Ok(Some(ring)) => {
                    let turn = ring.turn();
                    self.held.store(Arc::new(ring));
                    tracing::info!(key = turn.ring.id, beside = ?turn.neighbour.map(|it| (it.side, it.ring.id)), "another key file is in force");
                    (settled, self.told) = (false, None);
                }
                Err(errors) => {
                    let problem = Some(errors.to_string());
                    if self.told != problem {
                        tracing::error!(%errors, "a changed key file is refused; the keys that were in force stay so");
                    }
                    self.told = problem;
                }
            }
            if !settled {
                match ledger.turn(self.held.load().turn()).await {
                    Ok(()) => settled = true,
                    Err(error) => tracing::warn!(%error, "the ledger does not follow the key ring yet"),
                }
            }
        }
    }
}

/// The ring of these keys, if it is another one than is in force. It must be the same ring, at rest or one step on: under any other
/// key every buyer would be a stranger.
fn follows(config: &Config, now: Turn, keys: &Keys) -> Result<Option<KeyRing>, ConfigErrors> {
    let ring = keys.ring();
    let then = ring.turn();
    let knows =
        |written: Turn, by: Turn| by.ring == written.ring || by.neighbour.is_some_and(|it| it.ring == written.ring);
    let other = |problem: String| Err(ConfigErrors::one(config.keys.display(), problem));
    match then {
        same if same == now => Ok(None),
        back if back.ring.id < now.ring.id => {
            other(format!("is at key {} and {} is in force: bring the turned key file back", back.ring.id, now.ring.id))
        }
        _ if knows(now, then) || knows(then, now) => Ok(Some(ring)),
        _ => {
            other("holds neither the current key nor one that follows it: bring the ledger's own key file back".into())
        }
    }
}
