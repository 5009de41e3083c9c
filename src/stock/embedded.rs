//! The shelf of one process on one machine: a redb file of its own. Reports are rare beside sales: each is a transaction with a sync of
//! its own.

mod file;

use std::path::Path;

use super::{Place, Recorded, Report, Reports, Shelf};
use crate::ledger::LedgerError;
use crate::ledger::embedded::beside::Beside;
pub use crate::ledger::embedded::beside::FileError as ShelfFileError;

/// The shelf of one process. Clones share everything.
#[derive(Clone)]
pub struct EmbeddedShelf(Beside);

impl EmbeddedShelf {
    /// Opens the file, or makes it. Blocks meanwhile.
    pub fn open(path: &Path) -> Result<Self, ShelfFileError> {
        Beside::open(path, file::KIND).map(Self)
    }

    /// A shelf on a disk of the caller's making, for tests of what a crash leaves behind.
    #[doc(hidden)]
    pub fn open_with_backend(backend: impl redb::StorageBackend) -> Result<Self, ShelfFileError> {
        Beside::open_backend(backend, file::KIND).map(Self)
    }

    /// Waits until the shelf answers nothing more, which is for good: only a new start can open the file again.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Shelf for EmbeddedShelf {
    async fn record(&self, report: Report) -> Result<Recorded, LedgerError> {
        self.0.write(move |write| file::record(write, &report, super::REPORTS_KEPT)).await
    }

    async fn after(&self, place: Place, most: usize) -> Result<Reports, LedgerError> {
        self.0.read(move |read| file::after(read, place, most)).await
    }

    async fn keep(&self, picture: Vec<u8>) -> Result<(), LedgerError> {
        self.0.write(move |write| file::keep(write, &picture)).await
    }

    async fn kept(&self) -> Result<Option<Vec<u8>>, LedgerError> {
        self.0.read(file::kept).await
    }
}
