//! The key of a journal: 32 random bytes in a file that only its owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::facts::Marker;
use super::{directory_of, sync_directory};

/// Bytes of a key.
pub(super) const LENGTH: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum NoKey {
    /// There is a journal and no key for it. A new one would not open it.
    #[error(
        "{} is missing although the journal is there, which no other key opens: bring the key back, or move the journal away",
        .0.display()
    )]
    Missing(PathBuf),
    /// Others than its owner may read it.
    #[error("{} can be read by others than its owner (mode {mode:04o}): run `chmod 600` on it", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is something else.
    #[error("{} is not the key of a journal: it must be a file of {LENGTH} random bytes", .0.display())]
    NotAKey(PathBuf),
    /// It cannot be read, or made.
    #[error("{} cannot be read or made: {error}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The key of a journal.
pub(super) struct Key(SecretBox<[u8; LENGTH]>);

impl Key {
    /// Reads it; `may_make` where there is no journal yet: then one is made if there is none.
    pub(super) fn load(path: &Path, may_make: bool) -> Result<Self, NoKey> {
        let failed = |error| NoKey::Disk { path: path.into(), error };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !may_make => {
                return Err(NoKey::Missing(path.into()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).and_then(|()| File::open(path)).map_err(failed)?
            }
            opened => opened.map_err(failed)?,
        };
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(NoKey::Readable { path: path.into(), mode });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
        if metadata.is_file() {
            file.take(LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        }
        // Zeros are what a disk gives back that has lost what was written.
        if bytes.len() != LENGTH || bytes.iter().all(|byte| Some(byte) == bytes.first()) {
            return Err(NoKey::NotAKey(path.into()));
        }
        Ok(Self(SecretBox::init_with_mut(|key: &mut [u8; LENGTH]| key.copy_from_slice(&bytes))))
    }

    /// The key itself.
    pub(super) fn bytes(&self) -> &[u8; LENGTH] {
        self.0.expose_secret()
    }

    /// What marks of buyers are made with: they are no help to whoever has only them.
    pub(super) fn marker(&self) -> Marker {
        let mut block = Zeroizing::new([0; 64]);
        for (place, byte) in block.iter_mut().zip(self.bytes()) {
            *place = *byte;
        }
        let keyed: Hmac<Sha256> = Hmac::new((&*block).into());
        Marker::new(keyed.chain_update(b"rationd journal marks"))
    }
}

/// Whole or not at all: what a crash leaves has another name.
fn make(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut *key).map_err(|error| io::Error::other(error.to_string()))?;
    let new = super::with_ending(path, "new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&*key)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    sync_directory(directory_of(path))
}
