//! The shelf's file: a redb database of its own.
//!
//! Layout 1:
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `layout` | 1 |
//! | `reports` | place: milliseconds of the newest report so far, counted from 1 | the report, packed (`packed`); the newest [`REPORTS_KEPT`](crate::stock::REPORTS_KEPT) |
//! | `ids` | site, request id | its place; goes with the report |
//! | `picture` | `newest` | the bytes that were kept last |
//!
//! The lower number of a place is never given out twice. The higher one tells a report from the one that has this number after an older
//! copy of the file was put back; it never falls, so that places are in order.
//!
//! Measured: a report takes 270 bytes with its id, two million 540 MB.
//!
//! Knows nothing about tasks.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageBackend, TableDefinition,
};

use crate::ledger::LedgerError;
use crate::stock::{Place, Recorded, Report, Reports, packed};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REPORTS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("reports");
const IDS: TableDefinition<'_, (&str, &[u8; 16]), (u64, u64)> = TableDefinition::new("ids");
const PICTURE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("picture");
const NEWEST: &str = "newest";
const LAYOUT: u64 = 1;
/// A few megabytes hold what is written to; redb would take a gigabyte.
const CACHE_BYTES: usize = 8 << 20;

/// Why the file of the shelf cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ShelfFileError {
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
    /// It is not a file of the shelf, or is damaged.
    #[error(
        "{} cannot be used as the stock's file: {why}; restore it, or move it away: every site must then count what it has",
        .path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The open file. One process at a time.
#[derive(Debug)]
pub(super) struct ShelfFile(Database);

impl ShelfFile {
    /// Opens the file. A missing one is made under another name and appears under its own only when it is whole, so that a
    /// crash leaves no half file.
    pub(super) fn open(path: &Path) -> Result<Self, ShelfFileError> {
        let unreadable = |why: String| ShelfFileError::Unreadable { path: path.to_owned(), why };
        if !path.try_exists().map_err(|error| unreadable(error.to_string()))? {
            give_birth(path).map_err(|error| unreadable(error.to_string()))?;
        }
        let database = builder().open(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => ShelfFileError::InUse(path.to_owned()),
            other => unreadable(other.to_string()),
        })?;
        match layout(&database).map_err(|error| unreadable(error.to_string()))? {
            Some(LAYOUT) => Ok(Self(database)),
            Some(layout) => Err(ShelfFileError::OtherLayout { path: path.to_owned(), layout }),
            None => Err(unreadable("it names no layout".to_owned())),
        }
    }

    /// The same on another disk than a file: an empty one becomes a new shelf.
    pub(super) fn open_backend(backend: impl StorageBackend) -> Result<Self, ShelfFileError> {
        let unreadable = |why: String| ShelfFileError::Unreadable { path: "(a disk of a test)".into(), why };
        let database = builder().create_with_backend(backend).map_err(|error| unreadable(error.to_string()))?;
        if layout(&database).is_err() {
            lay_out(&database).map_err(|error| unreadable(error.to_string()))?;
        }
        Ok(Self(database))
    }

    /// Puts a report there, unless its id stands; on disk when this returns. The oldest go when there are more than so many.
    pub(super) fn record(&self, report: &Report, kept: u64) -> Result<Recorded, LedgerError> {
        let write = self.begin()?;
        {
            let mut reports = write.open_table(REPORTS).map_err(store)?;
            let mut ids = write.open_table(IDS).map_err(store)?;
            let stood = ids.get(id(report)).map_err(store)?.map(|place| place.value());
            if let Some(stood) = stood {
                let bytes = reports.get(stood).map_err(store)?;
                let bytes = bytes.ok_or_else(|| LedgerError::Corrupt("an id stands for no report".to_owned()))?;
                return Ok(Recorded::again(unpack(stood, bytes.value())?, report));
            }
            let (high, low) = reports.last().map_err(store)?.map_or((0, 0), |(place, _)| place.value());
            let place = (high.max(u64::try_from(report.received.as_millis()).unwrap_or(0)), low + 1);
            reports.insert(place, packed::pack(report).as_slice()).map_err(store)?;
            ids.insert(id(report), place).map_err(store)?;
            while reports.len().map_err(store)? > kept
                && let Some((_, oldest)) = reports.pop_first().map_err(store)?
            {
                if let Ok(oldest) = packed::unpack(oldest.value()) {
                    ids.remove(id(&oldest)).map_err(store)?;
                }
            }
        }
        write.commit().map_err(unconfirmed)?;
        Ok(Recorded::Stands { report: *report, replayed: false })
    }

    /// See [`Shelf::after`](crate::stock::Shelf::after).
    pub(super) fn after(&self, place: Place, most: usize) -> Result<Reports, LedgerError> {
        let reports = self.0.begin_read().map_err(store)?.open_table(REPORTS).map_err(store)?;
        let from = if place == Place::FIRST { (0, 0) } else { (place.high, place.low) };
        // The report of the place itself is read with them, to see whether it is still there.
        let found = reports.range(from..).map_err(store)?.take(most.saturating_add(1)).map(|row| {
            let (place, bytes) = row.map_err(store)?;
            let (high, low) = place.value();
            Ok((Place { high, low }, unpack((high, low), bytes.value())?))
        });
        let found = found.collect::<Result<Vec<_>, LedgerError>>()?;
        let is_whole = found.first().is_none_or(|(first, _)| first.low == 1);
        Ok(Reports::of(place, found, is_whole, most))
    }

    /// Keeps these bytes; on disk when this returns.
    pub(super) fn keep(&self, picture: &[u8]) -> Result<(), LedgerError> {
        let write = self.begin()?;
        write.open_table(PICTURE).map_err(store)?.insert(NEWEST, picture).map_err(store)?;
        write.commit().map_err(unconfirmed)
    }

    /// The bytes that were kept last.
    pub(super) fn kept(&self) -> Result<Option<Vec<u8>>, LedgerError> {
        let picture = self.0.begin_read().map_err(store)?.open_table(PICTURE).map_err(store)?;
        Ok(picture.get(NEWEST).map_err(store)?.map(|bytes| bytes.value().to_vec()))
    }

    fn begin(&self) -> Result<redb::WriteTransaction, LedgerError> {
        let mut write = self.0.begin_write().map_err(store)?;
        write.set_durability(Durability::Immediate).map_err(store)?;
        Ok(write)
    }
}

/// Until a commit is tried nothing is on the disk.
fn store(error: impl std::fmt::Display) -> LedgerError {
    LedgerError::StoreUnavailable(error.to_string())
}

fn unconfirmed(error: redb::CommitError) -> LedgerError {
    LedgerError::Unconfirmed(error.to_string())
}

/// Where the place of a report stands.
fn id(report: &Report) -> (&str, &[u8; 16]) {
    (report.key.site.as_str(), report.request.as_bytes())
}

fn unpack((high, low): (u64, u64), bytes: &[u8]) -> Result<Report, LedgerError> {
    packed::unpack(bytes).map_err(|error| LedgerError::Corrupt(format!("{error}; it is {high}-{low}")))
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
        lay_out(&builder().create_with_backend(FileBackend::new(created)?)?)?;
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

fn lay_out(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(META)?.insert("layout", LAYOUT)?;
    write.open_table(REPORTS)?;
    write.open_table(IDS)?;
    write.open_table(PICTURE)?;
    Ok(write.commit()?)
}

/// The layout of the file; `None` when it names none.
fn layout(database: &Database) -> Result<Option<u64>, redb::Error> {
    Ok(database.begin_read()?.open_table(META)?.get("layout")?.map(|layout| layout.value()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RequestId;
    use crate::stock::{Key, What};
    use crate::time::Timestamp;

    fn report(number: u8, received: i64) -> Report {
        Report {
            request: RequestId::from_bytes([number; 16]).unwrap(),
            key: Key { programme: "km".parse().unwrap(), site: "s".parse().unwrap() },
            what: What::Delivered(u32::from(number)),
            at: Timestamp::from_millis(received),
            received: Timestamp::from_millis(received),
        }
    }

    fn next(file: &ShelfFile, place: Place) -> Option<Vec<(Place, Report)>> {
        match file.after(place, 9).unwrap() {
            Reports::Next(next) => Some(next),
            Reports::Gone => None,
        }
    }

    #[test]
    fn the_oldest_go_with_their_ids_and_whoever_stood_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = ShelfFile::open(&dir.path().join("stock.redb")).unwrap();
        for number in 1..=3 {
            file.record(&report(number, 1_000), 3).unwrap();
        }
        let all = next(&file, Place::FIRST).unwrap();
        assert_eq!(all.len(), 3);
        // A clock that was set back: places stay in order.
        file.record(&report(4, 500), 3).unwrap();
        let places: Vec<Place> = next(&file, Place::BEGINNING).unwrap().into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, [2, 3, 4].map(|low| Place { high: 1_000, low }));
        assert_eq!(next(&file, Place::FIRST), None, "something was dropped");
        assert_eq!(next(&file, all[0].0), None);
        assert_eq!(next(&file, places[0]).unwrap().len(), 2);
        assert_eq!(next(&file, places[2]), Some(Vec::new()));
        // Of another copy of the file.
        assert_eq!(next(&file, Place { high: 999, low: 4 }), None);
        assert_eq!(file.0.begin_read().unwrap().open_table(IDS).unwrap().len().unwrap(), 3);
        let again = file.record(&report(1, 2_000), 3).unwrap();
        assert!(matches!(again, Recorded::Stands { replayed: false, .. }), "its id is forgotten: {again:?}");
    }

    #[test]
    fn what_is_damaged_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = ShelfFile::open(&dir.path().join("stock.redb")).unwrap();
        file.record(&report(1, 1_000), 9).unwrap();
        let write = file.0.begin_write().unwrap();
        write.open_table(REPORTS).unwrap().insert((1_000, 1), b"no report".as_slice()).unwrap();
        write.commit().unwrap();
        assert!(matches!(file.after(Place::BEGINNING, 9), Err(LedgerError::Corrupt(_))));
        assert!(matches!(file.record(&report(1, 1_000), 9), Err(LedgerError::Corrupt(_))));
        assert!(file.record(&report(2, 1_000), 9).is_ok());
    }

    #[test]
    fn a_file_of_another_layout_or_of_something_else_or_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stock.redb");
        let file = ShelfFile::open(&path).unwrap();
        assert!(matches!(ShelfFile::open(&path), Err(ShelfFileError::InUse(_))));
        let write = file.0.begin_write().unwrap();
        write.open_table(META).unwrap().insert("layout", LAYOUT + 1).unwrap();
        write.commit().unwrap();
        drop(file);
        assert!(matches!(ShelfFile::open(&path), Err(ShelfFileError::OtherLayout { layout: 2, .. })));
        std::fs::write(&path, b"something else").unwrap();
        let refused = ShelfFile::open(&path).unwrap_err().to_string();
        assert!(refused.contains("stock.redb") && refused.contains("restore it"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left of its birth");
    }
}
