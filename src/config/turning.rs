//! Turning the key ring, as steps on the key file: `prepare` puts the next key beside the current one, `rotate` turns to it, `retire`
//! forgets the key that was left. Every instance has the same file; what an instance with an older one may do, the ledger decides.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::time::Duration;

use super::ConfigErrors;
use super::keys::{Beside, Keys, beside_it, random_key, write_private};
use crate::buyer::{KeyId, RingKey};
use crate::time::Timestamp;

/// A step of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStep {
    /// A new key is to be the next one.
    Prepare,
    /// The next key is the current one from now on.
    Rotate,
    /// The previous key is forgotten.
    Retire,
}

/// Why a step is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// There is a next key already.
    #[error("key {0} is prepared already: give this file to every instance, then run `rationd keys rotate`")]
    Prepared(KeyId),
    /// There is none.
    #[error("there is no next key: run `rationd keys prepare`, give that file to every instance, then turn the ring")]
    NotPrepared,
    /// What was recorded under the previous key still counts, or may be asked for by its request id.
    #[error(
        "key {id} is still needed: what was recorded under it counts, or may be asked for, until {until}; run `rationd keys retire` then"
    )]
    StillNeeded {
        /// The previous key.
        id: KeyId,
        /// When it no longer is.
        until: Timestamp,
    },
    /// The last turn has not ended, although it could.
    #[error("key {0} was left and is needed no more: run `rationd keys retire` before another turn")]
    NotRetired(KeyId),
    /// There is no previous key.
    #[error("there is no previous key to retire")]
    NothingLeft,
    /// There is no number above.
    #[error("key {0} has the highest number that there is")]
    NoNumber(KeyId),
    /// The machine gives no random bytes.
    #[error("there is no randomness for a new key")]
    NoRandomness,
}

impl Keys {
    /// These keys one step further. `kept`: how long purchases are kept, the longest of all programmes.
    pub fn turned(self, step: KeyStep, now: Timestamp, kept: Duration) -> Result<Self, NotNow> {
        let Self { partition, current, beside, door } = self;
        let (current, beside) = match (step, beside) {
            (KeyStep::Prepare, None) => {
                let id = current.id.checked_add(1).ok_or(NotNow::NoNumber(current.id))?;
                let key = random_key().map_err(|_| NotNow::NoRandomness)?;
                (current, Some(Beside::Next(RingKey { id, key })))
            }
            (KeyStep::Rotate, Some(Beside::Next(next))) => (next, Some(Beside::Previous(current, now))),
            (KeyStep::Retire, Some(Beside::Previous(_, left))) if now >= left.plus(kept) => (current, None),
            (KeyStep::Prepare, Some(Beside::Next(next))) => return Err(NotNow::Prepared(next.id)),
            (_, Some(Beside::Previous(key, left))) => {
                let (id, until) = (key.id, left.plus(kept));
                return Err(if now < until { NotNow::StillNeeded { id, until } } else { NotNow::NotRetired(id) });
            }
            (KeyStep::Rotate, None) => return Err(NotNow::NotPrepared),
            (KeyStep::Retire, None | Some(Beside::Next(_))) => return Err(NotNow::NothingLeft),
        };
        Ok(Self { partition, current, beside, door })
    }

    /// How far the ring has turned, and what comes next.
    pub fn told(&self, now: Timestamp, kept: Duration) -> String {
        let current = self.current.id;
        match &self.beside {
            None => format!(
                "key {current} is the current one\nnext: `rationd keys prepare`, whenever the key is to be another one"
            ),
            Some(Beside::Next(next)) => format!(
                "key {current} is the current one, key {} the next\nnext: give this file to every instance, then `rationd keys rotate`",
                next.id
            ),
            Some(Beside::Previous(previous, left)) => {
                let until = left.plus(kept);
                let then = if now < until { format!("not before {until}") } else { format!("since {until}") };
                format!(
                    "key {current} is the current one, key {} the previous, left at {left}\n\
                     next: give this file to every instance; `rationd keys retire`, {then}",
                    previous.id
                )
            }
        }
    }

    /// Puts these keys into the file in the place of those that stand there: whole or not at all, and for the same eyes.
    pub fn replace(&self, path: &Path) -> Result<(), ConfigErrors> {
        let error = |e: io::Error| ConfigErrors::one(path.display(), format!("cannot be replaced: {e}"));
        // Where a link leads: it is not to be replaced by a file.
        let path = path.canonicalize().map_err(error)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let temporary = beside_it(&path, directory);
        let old = path.metadata().map_err(error)?;
        let written = write_private(&temporary, &self.text()).and_then(|()| {
            // The service may be another user than whoever turns its keys.
            chown(&temporary, Some(old.uid()), Some(old.gid())).map_err(|e| match e.kind() {
                io::ErrorKind::PermissionDenied => {
                    io::Error::new(e.kind(), format!("run it as its owner, user {}", old.uid()))
                }
                _ => e,
            })?;
            fs::set_permissions(&temporary, old.permissions())?;
            fs::rename(&temporary, &path)
        });
        if written.is_err() {
            // It holds keys.
            let _ = fs::remove_file(&temporary);
        }
        written.and_then(|()| fs::File::open(directory)?.sync_all()).map_err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEPT: Duration = Duration::from_secs(15 * 86_400);

    fn at(days: u64) -> Timestamp {
        Timestamp::from_millis(1_583_884_800_000).plus(Duration::from_secs(days * 86_400))
    }

    #[test]
    fn a_turn_is_taken_step_by_step_and_each_refusal_says_what_to_do_and_when() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let step = |step, now| Keys::load_or_create(&path).unwrap().turned(step, now, KEPT);
        let take = |taken, now| step(taken, now).unwrap().replace(&path).unwrap();
        let refused = |taken, now| step(taken, now).err();
        let shown = || format!("{:?}", Keys::load(&path).unwrap());
        assert_eq!(refused(KeyStep::Rotate, at(0)), Some(NotNow::NotPrepared));
        assert_eq!(refused(KeyStep::Retire, at(0)), Some(NotNow::NothingLeft));
        let first = Keys::load(&path).unwrap().ring().turn().ring;
        take(KeyStep::Prepare, at(0));
        assert_eq!(shown(), "KeyRing { current: 1, neighbour: Some((Next, 2)), .. }");
        assert_eq!(refused(KeyStep::Prepare, at(0)), Some(NotNow::Prepared(2)));
        let next = Keys::load(&path).unwrap().ring().turn().neighbour.unwrap().ring;
        take(KeyStep::Rotate, at(1));
        assert_eq!(shown(), "KeyRing { current: 2, neighbour: Some((Previous, 1)), .. }");
        let turn = Keys::load(&path).unwrap().ring().turn();
        assert_eq!((turn.ring, turn.previous().unwrap().ring), (next, first), "the keys are the same");
        let needed = NotNow::StillNeeded { id: 1, until: at(16) };
        for early in [KeyStep::Prepare, KeyStep::Rotate, KeyStep::Retire] {
            assert_eq!(refused(early, at(15)), Some(needed));
        }
        assert!(needed.to_string().contains("until 2020-03-27T00:00:00.000Z; run `rationd keys retire` then"));
        assert_eq!(refused(KeyStep::Prepare, at(16)), Some(NotNow::NotRetired(1)));
        take(KeyStep::Retire, at(16));
        assert_eq!(shown(), "KeyRing { current: 2, neighbour: None, .. }");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
        // Root turns the keys of a service that is another user.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        let owner =
            chown(&path, Some(65_532), Some(65_532)).map_or_else(|_| fs::metadata(&path).unwrap().uid(), |()| 65_532);
        take(KeyStep::Prepare, at(17));
        let turned = fs::metadata(&path).unwrap();
        assert_eq!((turned.uid(), turned.permissions().mode() & 0o777), (owner, 0o400));
    }
}
