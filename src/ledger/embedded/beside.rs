//! A file of its own beside the ledger's: a redb database for what is written far more rarely than sales. Each write is a transaction
//! with a sync of its own, made on a task that may block, one at a time.
//!
//! After a write that failed nothing is answered any more: what is on disk and what is known of it may differ until the file is opened
//! again.
//!
//! Knows nothing about what stands in it, or about how claims are recorded.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition,
    WriteTransaction,
};
use tokio::sync::{Mutex, watch};

use crate::ledger::LedgerError;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// A few megabytes hold what is written to; redb would take a gigabyte.
const CACHE_BYTES: usize = 8 << 20;

/// What such a file is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// What it is the file of, for people: "the stock".
    pub(crate) of: &'static str,
    /// What follows from moving it away, for people.
    pub(crate) moved_away: &'static str,
    /// How its tables are laid out; stands in it.
    pub(crate) layout: u64,
    /// Makes the tables.
    pub(crate) tables: fn(&WriteTransaction) -> Result<(), redb::Error>,
}

/// Why such a file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another process has it.
    #[error("{} is in use by another process; stop that one, or give this one a data directory of its own", .0.display())]
    InUse(PathBuf),
    /// It was written by another version.
    #[error("{} has layout {layout} and this version knows {known}; use the version that wrote it", .path.display())]
    OtherLayout {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        layout: u64,
        /// What this version writes.
        known: u64,
    },
    /// It is not a file of this kind, or is damaged.
    #[error("{} cannot be used as the file of {of}: {why}; restore it, or move it away: {moved_away}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should be the file of.
        of: &'static str,
        /// What is wrong.
        why: String,
        /// What follows from moving it away.
        moved_away: &'static str,
    },
}

/// Whether a transaction has to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// It has.
    Something,
    /// All was as it should be before.
    Nothing,
}

/// The open file. One process at a time; clones share everything.
#[derive(Clone)]
pub(crate) struct Beside(Arc<Shared>);

struct Shared {
    database: Database,
    of: &'static str,
    /// Held by whoever writes.
    writing: Arc<Mutex<()>>,
    /// Why nothing is answered any more.
    failed: watch::Sender<Option<String>>,
}

impl Beside {
    /// Opens the file. A missing one is made under another name and appears under its own only when it is whole, so that a crash
    /// leaves no half file. Blocks meanwhile.
    pub(crate) fn open(path: &Path, kind: Kind) -> Result<Self, FileError> {
        let unreadable = |why: String| kind.unreadable(path, why);
        if !path.try_exists().map_err(|error| unreadable(error.to_string()))? {
            kind.give_birth(path).map_err(|error| unreadable(error.to_string()))?;
        }
        let database = builder().open(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => FileError::InUse(path.to_owned()),
            other => unreadable(other.to_string()),
        })?;
        match layout(&database).map_err(|error| unreadable(error.to_string()))? {
            Some(layout) if layout == kind.layout => Ok(Self::over(database, kind)),
            Some(layout) => Err(FileError::OtherLayout { path: path.to_owned(), layout, known: kind.layout }),
            None => Err(unreadable("it names no layout".to_owned())),
        }
    }

    /// The same on another disk than a file: an empty one becomes a new one.
    pub(crate) fn open_backend(backend: impl StorageBackend, kind: Kind) -> Result<Self, FileError> {
        let unreadable = |why: String| kind.unreadable(Path::new("(a disk of a test)"), why);
        let database = builder().create_with_backend(backend).map_err(|error| unreadable(error.to_string()))?;
        if layout(&database).is_err() {
            kind.lay_out(&database).map_err(|error| unreadable(error.to_string()))?;
        }
        Ok(Self::over(database, kind))
    }

    fn over(database: Database, kind: Kind) -> Self {
        let shared = Shared { database, of: kind.of, writing: Arc::default(), failed: watch::Sender::new(None) };
        Self(Arc::new(shared))
    }

    /// Waits until it answers nothing more, which is for good: only a new start can open the file again.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as `self`: this ends by a failure only.
        let _ = self.0.failed.subscribe().wait_for(Option::is_some).await;
    }

    /// Reads.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.blocking(move |shared| read(&shared.database.begin_read().map_err(store)?)).await
    }

    /// Writes; on disk when this returns, unless nothing was written.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<(T, Wrote), LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        // Waited for here, and not in a thread that others need.
        let writing = self.0.writing.clone().lock_owned().await;
        let write = move |shared: &Shared| {
            let _writing = writing;
            // It may have failed while this one waited.
            shared.still_open()?;
            shared.write(write).inspect_err(|error| {
                if !matches!(error, LedgerError::Corrupt(_)) {
                    let of = shared.of;
                    tracing::error!(%error, of, "a file cannot be written; it is not used until the service is started again");
                    shared.failed.send_replace(Some(error.to_string()));
                }
            })
        };
        self.blocking(write).await
    }

    /// The closure holds a handle, so that the file is freed by the last handle even if the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Shared) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let shared = Arc::clone(&self.0);
        let act = move || {
            shared.still_open()?;
            act(&shared)
        };
        tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| Err(LedgerError::Unconfirmed(error.to_string())))
    }
}

impl Shared {
    fn still_open(&self) -> Result<(), LedgerError> {
        self.failed.borrow().as_ref().map_or(Ok(()), |why| Err(LedgerError::StoreUnavailable(why.clone())))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&WriteTransaction) -> Result<(T, Wrote), LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut transaction = self.database.begin_write().map_err(store)?;
        transaction.set_durability(Durability::Immediate).map_err(store)?;
        let (written, wrote) = write(&transaction)?;
        if wrote == Wrote::Something {
            transaction.commit().map_err(|error| LedgerError::Unconfirmed(error.to_string()))?;
        }
        Ok(written)
    }
}

impl Kind {
    fn unreadable(&self, path: &Path, why: String) -> FileError {
        FileError::Unreadable { path: path.to_owned(), of: self.of, why, moved_away: self.moved_away }
    }

    fn give_birth(&self, path: &Path) -> Result<(), redb::Error> {
        let random = getrandom::u64().map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
        let mut unborn = path.as_os_str().to_owned();
        unborn.push(format!(".{random:016x}"));
        let unborn = PathBuf::from(unborn);
        let born = (|| {
            let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unborn)?;
            self.lay_out(&builder().create_with_backend(FileBackend::new(created)?)?)?;
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

    fn lay_out(&self, database: &Database) -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        write.open_table(META)?.insert("layout", self.layout)?;
        (self.tables)(&write)?;
        Ok(write.commit()?)
    }
}

/// What a failure of the file means before a commit is tried: nothing is on the disk.
pub(crate) fn store(error: impl std::fmt::Display) -> LedgerError {
    LedgerError::StoreUnavailable(error.to_string())
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// The layout of the file; `None` when it names none.
fn layout(database: &Database) -> Result<Option<u64>, redb::Error> {
    Ok(database.begin_read()?.open_table(META)?.get("layout")?.map(|layout| layout.value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { of: "the tests", moved_away: "they begin anew", layout: 7, tables: |_| Ok(()) };

    #[tokio::test]
    async fn a_file_of_another_layout_or_of_something_else_or_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tests.redb");
        let file = Beside::open(&path, KIND).unwrap();
        assert!(matches!(Beside::open(&path, KIND), Err(FileError::InUse(_))));
        drop(file);
        let other = Kind { layout: 8, ..KIND };
        assert!(matches!(Beside::open(&path, other), Err(FileError::OtherLayout { layout: 7, known: 8, .. })));
        std::fs::write(&path, b"something else").unwrap();
        let refused = Beside::open(&path, KIND).err().unwrap().to_string();
        assert!(refused.contains("tests.redb") && refused.contains("restore it"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left of its birth");
    }

    #[tokio::test]
    async fn after_a_commit_that_failed_nothing_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let file = Beside::open(&dir.path().join("tests.redb"), KIND).unwrap();
        let failed = file.write::<()>(|_| Err(LedgerError::Unconfirmed("the disk is gone".into()))).await;
        assert!(matches!(failed, Err(LedgerError::Unconfirmed(_))));
        file.closed().await;
        assert!(matches!(file.read(|_| Ok(())).await, Err(LedgerError::StoreUnavailable(_))));
        assert!(matches!(file.write(|_| Ok(((), Wrote::Nothing))).await, Err(LedgerError::StoreUnavailable(_))));
    }
}
