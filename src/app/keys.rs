//! The key ring in force: that of the key file, which is read again when it changes; and where other instances have turned the ring to
//! the key that is the next one here, that of theirs, however late the file. For all calls that follow it is in force at once. A file
//! that cannot be used, or is another ledger's, is refused.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::buyer::{KeyId, KeyRing, Turn};
use crate::config::{Config, ConfigErrors, Keys};
use crate::ledger::Ledger;

/// The key ring in force.
pub(super) struct Ring {
    pub(super) held: Arc<ArcSwap<KeyRing>>,
    /// The newest key that the ledger was seen to be written under while it was the next one here.
    pub(super) turned_to: Arc<watch::Sender<KeyId>>,
    /// The problem that was told last and still stands.
    told: Option<String>,
}

impl Ring {
    /// Of the keys at the start.
    pub(super) fn new(keys: &Keys) -> Self {
        Self { held: Arc::new(ArcSwap::from_pointee(keys.ring())), turned_to: Arc::default(), told: None }
    }

    /// Follows the key file, and the other instances, for as long as the service runs.
    pub(super) async fn follow<L: Ledger>(mut self, config: Config, ledger: L) {
        let mut turned_to = self.turned_to.subscribe();
        // Whether the ledger has been told of the ring in force.
        let mut settled = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep(config.reload) => {}
                // The sender lives as long as `self`.
                _ = turned_to.changed() => {}
            }
            settled &= !block_in_place(|| self.read_again(&config));
            settled &= !self.join_others(*turned_to.borrow());
            if !settled {
                match ledger.turn(self.held.load().turn()).await {
                    Ok(()) => settled = true,
                    Err(error) => tracing::warn!(%error, "the ledger does not follow the key ring yet"),
                }
            }
        }
    }

    /// Whether the file has another ring, which is in force now.
    fn read_again(&mut self, config: &Config) -> bool {
        let now = self.held.load().turn();
        match Keys::load(&config.keys).and_then(|keys| follows(config, now, &keys)) {
            Ok(None) => self.told = None,
            Ok(Some(ring)) => {
                let turn = ring.turn();
                self.held.store(Arc::new(ring));
                let beside = turn.neighbour.map(|it| (it.side, it.ring.id));
                tracing::info!(key = turn.ring.id, ?beside, "another key file is in force");
                self.told = None;
                return true;
            }
            Err(errors) => {
                let problem = Some(errors.to_string());
                if self.told != problem {
                    tracing::error!(%errors, "a changed key file is refused; the keys that were in force stay so");
                }
                self.told = problem;
            }
        }
        false
    }

    /// Whether others have turned the ring to the next key, which is in force here too now.
    fn join_others(&self, key: KeyId) -> bool {
        let Some(turned) = self.held.load().turned().filter(|turned| turned.turn().ring.id == key) else {
            return false;
        };
        self.held.store(Arc::new(turned));
        tracing::warn!(key, "other instances have turned the key ring; this one follows, and its key file is late");
        true
    }
}

/// The ring of these keys, if it is to be in force instead. It must be the same ring, at rest or one step on: under any other key
/// every buyer would be a stranger.
fn follows(config: &Config, now: Turn, keys: &Keys) -> Result<Option<KeyRing>, ConfigErrors> {
    let ring = keys.ring();
    let then = ring.turn();
    let knows =
        |written: Turn, by: Turn| by.ring == written.ring || by.neighbour.is_some_and(|it| it.ring == written.ring);
    let other = |problem: String| Err(ConfigErrors::one(config.keys.display(), problem));
    let is_late = ring.turned().is_some_and(|turned| turned.turn() == now);
    match then {
        same if same == now || is_late => Ok(None),
        back if back.ring.id < now.ring.id => {
            other(format!("is at key {} and {} is in force: bring the turned key file back", back.ring.id, now.ring.id))
        }
        _ if knows(now, then) || knows(then, now) => Ok(Some(ring)),
        _ => {
            other("holds neither the current key nor one that follows it: bring the ledger's own key file back".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyStep, Overrides};
    use crate::time::Timestamp;
    use std::time::Duration;

    #[test]
    fn a_key_file_may_be_a_step_on_and_is_never_another_ledgers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let config = Config::load(None, Overrides::default(), std::iter::empty()).unwrap();
        let load = || Keys::load_or_create(&path).unwrap();
        let step = |step| {
            load().turned(step, Timestamp::EPOCH, Duration::ZERO).unwrap().replace(&path).unwrap();
            load()
        };
        let turn = |keys: &Keys| keys.ring().turn();
        let goes = |from: &Keys, to: &Keys| follows(&config, turn(from), to).map(|ring| ring.map(|ring| ring.turn()));
        let first = load();
        let prepared = step(KeyStep::Prepare);
        let rotated = step(KeyStep::Rotate);
        let retired = step(KeyStep::Retire);
        let all = [&first, &prepared, &rotated, &retired];
        for (nth, from) in all.into_iter().enumerate() {
            assert_eq!(goes(from, from).unwrap(), None);
            for to in all.into_iter().skip(nth + 1) {
                let skips = std::ptr::eq(from, &first) && std::ptr::eq(to, &retired);
                assert_eq!(goes(from, to).ok(), (!skips).then(|| Some(turn(to))), "from {from:?} to {to:?}");
            }
        }
        assert_eq!(goes(&rotated, &prepared).unwrap(), None, "it has followed others, and its file is late");
        assert_eq!(goes(&prepared, &first).unwrap(), Some(turn(&first)), "a key that was prepared is not wanted");
        for (from, to) in [(&rotated, &first), (&retired, &prepared), (&retired, &first)] {
            assert!(goes(from, to).unwrap_err().to_string().contains("bring the turned key file back"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(goes(&first, &load()).unwrap_err().to_string().contains("the ledger's own key file"));
    }
}
