//! The audit keys: one for each month, made when a look-up first needs it, and destroyed with the month's records. Without it a
//! pseudonym in the log is nobody's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::segments::sync_directory;
use crate::buyer::{SecretKey, keyed};
use crate::ledger::RecordKey;
use crate::time::{Month, Timestamp};

/// Where the keys lie in a log's directory.
const DIRECTORY: &str = "keys";
/// What a key's name ends with.
const ENDING: &str = ".key";
/// How long a key is, in bytes.
const LENGTH: usize = 32;

/// The keys of one log.
#[derive(Debug)]
pub(super) struct MonthKeys {
    directory: PathBuf,
    /// Ready to work.
    current: Option<(Month, Hmac<Sha256>)>,
}

impl MonthKeys {
    /// Of the log in this directory.
    pub(super) fn of(log: &Path) -> Self {
        Self { directory: log.join(DIRECTORY), current: None }
    }

    /// Whose record it is, for this month: HMAC-SHA-256 of the record's key in the ledger, cut to 128 bits, in hexadecimal digits.
    pub(super) fn pseudonym(&mut self, month: Month, record: &RecordKey) -> io::Result<String> {
        let mac = match &self.current {
            Some((at, mac)) if *at == month => mac.clone(),
            _ => {
                let mac = keyed(&self.load_or_make(month)?);
                self.current.insert((month, mac)).1.clone()
            }
        };
        let programme = record.programme.as_str().as_bytes();
        let parts = [programme, &[0, record.buyer.partition], record.buyer.pseudonym.as_bytes()];
        let mac = parts.iter().fold(mac, |mac, part| mac.chain_update(part)).finalize().into_bytes();
        Ok(mac.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    fn path(&self, month: Month) -> PathBuf {
        self.directory.join(format!("{month}{ENDING}"))
    }

    fn load_or_make(&self, month: Month) -> io::Result<SecretKey> {
        let path = self.path(month);
        match File::open(&path) {
            Ok(file) => load(file, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Not the log's own directory, if that has gone: it would be another one.
                match DirBuilder::new().mode(0o700).create(&self.directory) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                make(&path)?;
                load(File::open(&path)?, &path)
            }
            Err(error) => Err(error),
        }
    }

    /// Destroys the keys of months that ended so long ago.
    pub(super) fn destroy(&self, now: Timestamp, keep_months: u32) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ENDING));
            let month = name.and_then(|name| name.parse::<Month>().ok());
            if month.is_some_and(|month| month.end_after(keep_months) <= now) {
                // Overwritten first, for disks that keep what has only lost its name.
                let mut file = OpenOptions::new().write(true).open(&path)?;
                file.write_all(&[0; LENGTH])?;
                file.sync_all()?;
                fs::remove_file(&path)?;
            }
        }
        sync_directory(Some(&self.directory))
    }
}

fn load(file: File, path: &Path) -> io::Result<SecretKey> {
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(LENGTH + 1));
    file.take(LENGTH as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() != LENGTH {
        let why = format!("{} is not an audit key: it must be {LENGTH} random bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(SecretKey::init_with_mut(|key: &mut [u8; LENGTH]| key.copy_from_slice(&bytes)))
}

/// Whole or not at all: what a crash leaves has another name.
fn make(path: &Path) -> io::Result<()> {
    let mut key = zeroize::Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut *key).map_err(|error| io::Error::other(error.to_string()))?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&*key)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    sync_directory(path.parent())
}
