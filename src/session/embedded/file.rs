//! The door's file: a redb database with a row per site and the logical time of the last commit.
//!
//! Layout 1, integers big-endian. Table `gate`: `layout` → 1, `now` → logical milliseconds. Table `sites`: a site's code →
//! its last fence (8 bytes), then for each seat slot (2), fence (8), granted at (8), length of the terminal's name (1) and
//! the name. When a seat was renewed is not kept: after a restart every seat counts as renewed.
//!
//! Knows nothing about rules or threads.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::ids::SiteId;
use crate::session::limiter::{Held, SiteSeats};

const GATE: TableDefinition<'_, &str, u64> = TableDefinition::new("gate");
const SITES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sites");
const LAYOUT: u64 = 1;
/// A few megabytes hold every site of a country; redb would take a gigabyte.
const CACHE_BYTES: usize = 8 << 20;

/// Why the file of the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorFileError {
    /// Another process has it.
    #[error("{} is in use by another process; stop that one, or give this one a data directory of its own", .0.display())]
    InUse(PathBuf),
    /// It was written by another version.
    #[error("{} has layout {layout} and this version knows {LAYOUT}; use the version that wrote it", .path.display())]
    OtherLayout {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        layout: u64,
    },
    /// It is not a file of the door, or is damaged.
    #[error("{} cannot be used as the door's file: {why}; restore it, or move it away: every terminal then signs in anew", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The open file. One process at a time.
#[derive(Debug)]
pub(super) struct DoorFile(Database);

/// What the file holds: logical time, and the seats by site.
pub(super) type Kept = (u64, Vec<(SiteId, SiteSeats)>);

impl DoorFile {
    /// Opens the file. A missing one is made under another name and appears under its own only when it is whole, so that a
    /// crash leaves no half file.
    pub(super) fn open(path: &Path) -> Result<(Self, Kept), DoorFileError> {
        let unreadable = |why: String| DoorFileError::Unreadable { path: path.to_owned(), why };
        if !path.try_exists().map_err(|error| unreadable(error.to_string()))? {
            give_birth(path).map_err(|error| unreadable(error.to_string()))?;
        }
        let database = builder().open(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => DoorFileError::InUse(path.to_owned()),
            other => unreadable(other.to_string()),
        })?;
        let layout = layout(&database).map_err(|error| unreadable(error.to_string()))?;
        let layout = layout.ok_or_else(|| unreadable("it names no layout".into()))?;
        if layout != LAYOUT {
            return Err(DoorFileError::OtherLayout { path: path.to_owned(), layout });
        }
        let file = Self(database);
        let kept = file.load().map_err(|error| unreadable(error.to_string()))?;
        let kept = kept.ok_or_else(|| unreadable("a row does not have the layout".into()))?;
        Ok((file, kept))
    }

    /// Writes these sites and the time in one transaction; on disk when this returns.
    pub(super) fn save<'a>(
        &self,
        now_ms: u64,
        sites: impl Iterator<Item = (SiteId, &'a SiteSeats)>,
    ) -> Result<(), redb::Error> {
        let write = self.0.begin_write()?;
        {
            write.open_table(GATE)?.insert("now", now_ms)?;
            let mut table = write.open_table(SITES)?;
            for (site, seats) in sites {
                table.insert(site.as_str(), pack(seats).as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    /// `None` when a row cannot be read.
    fn load(&self) -> Result<Option<Kept>, redb::Error> {
        let read = self.0.begin_read()?;
        let now_ms = read.open_table(GATE)?.get("now")?.map_or(0, |now| now.value());
        let mut sites = Vec::new();
        for row in read.open_table(SITES)?.iter()? {
            let (site, bytes) = row?;
            let (Ok(site), Some(seats)) = (site.value().parse(), unpack(bytes.value())) else { return Ok(None) };
            sites.push((site, seats));
        }
        Ok(Some((now_ms, sites)))
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn give_birth(path: &Path) -> Result<(), redb::Error> {
    let random = getrandom::u64().map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
    let mut unborn = path.as_os_str().to_owned();
    unborn.push(format!(".{random:016x}"));
    let unborn = PathBuf::from(unborn);
    let born = (|| {
        let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unborn)?;
        let database = builder().create_with_backend(FileBackend::new(created)?)?;
        let write = database.begin_write()?;
        write.open_table(GATE)?.insert("layout", LAYOUT)?;
        write.open_table(SITES)?;
        write.commit()?;
        drop(database);
        // A link, unlike a rename, never takes the place of a file that another process made meanwhile.
        match std::fs::hard_link(&unborn, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(File::open(directory)?.sync_all()?)
    })();
    // The second name is of no use any more; if it cannot be removed it does no harm.
    let _ = std::fs::remove_file(&unborn);
    born
}

/// The layout of the file; `None` when it names none.
fn layout(database: &Database) -> Result<Option<u64>, redb::Error> {
    Ok(database.begin_read()?.open_table(GATE)?.get("layout")?.map(|layout| layout.value()))
}

fn pack(here: &SiteSeats) -> Vec<u8> {
    let mut bytes = here.fence.to_be_bytes().to_vec();
    for (slot, held) in &here.seats {
        let terminal = held.terminal.as_str().as_bytes();
        bytes.extend_from_slice(&slot.to_be_bytes());
        bytes.extend_from_slice(&held.fence.to_be_bytes());
        bytes.extend_from_slice(&held.granted_ms.to_be_bytes());
        bytes.push(u8::try_from(terminal.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(terminal);
    }
    bytes
}

fn unpack(bytes: &[u8]) -> Option<SiteSeats> {
    let (fence, mut rest) = bytes.split_first_chunk()?;
    let mut seats = BTreeMap::new();
    while !rest.is_empty() {
        let (slot, more) = rest.split_first_chunk()?;
        let (fence, more) = more.split_first_chunk()?;
        let (granted, more) = more.split_first_chunk()?;
        let (&length, more) = more.split_first()?;
        let (terminal, more) = more.split_at_checked(usize::from(length))?;
        let held = Held {
            terminal: std::str::from_utf8(terminal).ok()?.parse().ok()?,
            fence: u64::from_be_bytes(*fence),
            granted_ms: u64::from_be_bytes(*granted),
            renewed_ms: 0,
        };
        seats.insert(u16::from_be_bytes(*slot), Box::new(held));
        rest = more;
    }
    Some(SiteSeats { fence: u64::from_be_bytes(*fence), seats })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_back_and_a_damaged_one_is_not() {
        let held = |terminal: &str, fence| Held {
            terminal: terminal.parse().unwrap(),
            fence,
            granted_ms: 1_234,
            renewed_ms: 0,
        };
        let here = SiteSeats {
            fence: 9,
            seats: [(0, held("POS-1", 7)), (513, held("POS-2", 9))].map(|(slot, held)| (slot, Box::new(held))).into(),
        };
        let bytes = pack(&here);
        assert_eq!(unpack(&bytes), Some(here));
        assert_eq!(unpack(&bytes[..bytes.len() - 1]), None);
        assert_eq!(unpack(&bytes[..7]), None);
    }
}
