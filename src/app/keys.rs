//! The key ring in force: that of the key file, which is read again when it changes; and where other instances have turned the ring to
//! the key that is the next one here, that of theirs, however late the file. For all calls that follow it is in force at once. A file
//! that cannot be used, is another ledger's, or has forgotten a key that the ledger still needs, is refused.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::buyer::{KeyId, KeyRing, Turn};
use crate::config::{Config, ConfigErrors, Keys};
use crate::ledger::{Kept, Ledger};
use crate::policy::Policies;
use crate::time::Clock;

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
    pub(super) async fn follow<L: Ledger, C: Clock>(
        mut self,
        config: Config,
        ledger: L,
        clock: C,
        policies: Arc<ArcSwap<Policies>>,
    ) {
        let kept = || Kept { now: clock.now(), length: policies.load().kept() };
        let mut turned_to = self.turned_to.subscribe();
        // Whether the ledger has been told of the ring in force.
        let mut settled = false;
        loop {
            if !settled {
                let turn = self.held.load().turn();
                match ledger.turn(turn, kept()).await {
                    Ok(()) => settled = true,
                    // At rest nothing waits for it.
                    Err(error) if turn.neighbour.is_none() => {
                        tracing::debug!(%error, "the ledger was not told of the key ring")
                    }
                    Err(error) => tracing::warn!(%error, "the ledger does not follow the key ring yet"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(config.reload) => {}
                // The sender lives as long as `self`.
                _ = turned_to.changed() => {}
            }
            if let Some(ring) = block_in_place(|| self.read_again(&config)) {
                // Whether the key that it forgets is needed, the ledger knows.
                let forgets = self.held.load().turn().previous().is_some() && ring.turn().previous().is_none();
                let asked = if forgets { ledger.turn(ring.turn(), kept()).await } else { Ok(()) };
                match asked {
                    Ok(()) => {
                        self.take_up(ring);
                        settled = forgets;
                    }
                    Err(error) => self.refuse(&ConfigErrors::one(config.keys.display(), error.to_string())),
                }
            }
            settled &= !self.join_others(*turned_to.borrow());
        }
    }

    /// The ring of the file, if it is another one that may be in force.
    fn read_again(&mut self, config: &Config) -> Option<KeyRing> {
        let now = self.held.load().turn();
        match Keys::load(&config.keys).and_then(|keys| follows(config, now, &keys)) {
            Ok(ring) => {
                self.told = self.told.take().filter(|_| ring.is_some());
                ring
            }
            Err(errors) => {
                self.refuse(&errors);
                None
            }
        }
    }

    fn take_up(&mut self, ring: KeyRing) {
        let turn = ring.turn();
        self.held.store(Arc::new(ring));
        let beside = turn.neighbour.map(|it| (it.side, it.ring.id));
        tracing::info!(key = turn.ring.id, ?beside, "another key file is in force");
        self.told = None;
    }

    /// Says once why a file is not taken up.
    fn refuse(&mut self, errors: &ConfigErrors) {
        let problem = Some(errors.to_string());
        if self.told != problem {
            tracing::error!(%errors, "a changed key file is refused; the keys that were in force stay so");
        }
        self.told = problem;
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

/// The ring of these keys, if it is to be in force instead. It must be the same ring, at rest or one step on, and hold the key that is
/// in force now: what stands under it would be lost, and under any other key every buyer would be a stranger.
fn follows(config: &Config, now: Turn, keys: &Keys) -> Result<Option<KeyRing>, ConfigErrors> {
    let ring = keys.ring();
    let then = ring.turn();
    let holds = then.ring == now.ring || then.neighbour.is_some_and(|it| it.ring == now.ring);
    let other = |problem: String| Err(ConfigErrors::one(config.keys.display(), problem));
    let is_late = ring.turned().is_some_and(|turned| turned.turn() == now);
    match then {
        same if same == now || is_late => Ok(None),
        back if back.ring.id < now.ring.id => {
            other(format!("is at key {} and {} is in force: bring the turned key file back", back.ring.id, now.ring.id))
        }
        _ if holds => Ok(Some(ring)),
        _ => other(format!(
            "does not hold the key that is in force, {}: bring back the ledger's own key file, in which that is the current or the \
             previous one",
            now.ring.id
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyStep, Overrides};
    use crate::ledger::Terms;
    use crate::ledger::embedded::EmbeddedLedger;
    use crate::time::{ManualClock, Timestamp};
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
                // The ledger may stand at the first key yet.
                let skips = std::ptr::eq(to, &retired) && !std::ptr::eq(from, &rotated);
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

    /// As the command line cannot: it knows only the programmes that it is given.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_that_the_ledger_needs_is_not_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        Keys::load_or_create(&path).unwrap();
        let step = |step| {
            let keys = Keys::load(&path).unwrap().turned(step, Timestamp::EPOCH, Duration::ZERO).unwrap();
            keys.replace(&path).unwrap();
            keys.ring().turn()
        };
        step(KeyStep::Prepare);
        let mut config = Config::load(None, Overrides::default(), std::iter::empty()).unwrap();
        (config.keys, config.reload) = (path.clone(), Duration::from_millis(10));
        let clock = ManualClock::new(Timestamp::EPOCH);
        let policies = Policies::built_in();
        let kept = Kept { now: clock.now(), length: policies.kept() };
        let keys = Keys::load(&path).unwrap();
        let terms = Terms { turn: keys.ring().turn(), kept, simulated_clock: true, programmes: Vec::new() };
        let ledger = EmbeddedLedger::open(&directory.path().join("ledger"), &terms).unwrap();
        let ring = Ring::new(&keys);
        let held = ring.held.clone();
        let follow = ring.follow(config, ledger, clock.clone(), Arc::new(ArcSwap::from_pointee(policies)));
        let _following = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(follow));
        let taken_up = async |turn: Turn| {
            while held.load().turn() != turn {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let rotated = step(KeyStep::Rotate);
        taken_up(rotated).await;
        let retired = step(KeyStep::Retire);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(held.load().turn(), rotated, "it is refused");
        clock.set(kept.now.plus(kept.length));
        taken_up(retired).await;
    }
}
