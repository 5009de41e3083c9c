//! The shelf of one process on one machine: a redb file of its own. Reports are rare beside sales: each is a transaction with a sync of
//! its own, made on a task that may block, one at a time.
//!
//! After a write that failed nothing is answered any more: what is on disk and what is known of it may differ until the file is opened
//! again.

mod file;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use file::ShelfFile;
pub use file::ShelfFileError;

use super::{Place, Recorded, Report, Reports, Shelf};
use crate::ledger::LedgerError;

/// The shelf of one process. Clones share everything.
#[derive(Clone)]
pub struct EmbeddedShelf(Arc<Shared>);

struct Shared {
    file: ShelfFile,
    /// Held by whoever writes.
    writing: Arc<Mutex<()>>,
    /// Why nothing is answered any more.
    failed: watch::Sender<Option<String>>,
}

impl EmbeddedShelf {
    /// Opens the file, or makes it. Blocks meanwhile.
    pub fn open(path: &Path) -> Result<Self, ShelfFileError> {
        Ok(Self::over(ShelfFile::open(path)?))
    }

    /// A shelf on a disk of the caller's making, for tests of what a crash leaves behind.
    #[doc(hidden)]
    pub fn open_with_backend(backend: impl redb::StorageBackend) -> Result<Self, ShelfFileError> {
        Ok(Self::over(ShelfFile::open_backend(backend)?))
    }

    fn over(file: ShelfFile) -> Self {
        Self(Arc::new(Shared { file, writing: Arc::default(), failed: watch::Sender::new(None) }))
    }

    /// Waits until the shelf answers nothing more, which is for good: only a new start can open the file again.
    pub async fn closed(&self) {
        // The sender lives as long as `self`: this ends by a failure only.
        let _ = self.0.failed.subscribe().wait_for(Option::is_some).await;
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

    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&ShelfFile) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        // Waited for here, and not in a thread that others need.
        let writing = self.0.writing.clone().lock_owned().await;
        let write = move |shared: &Shared| {
            let _writing = writing;
            // It may have failed while this one waited.
            shared.still_open()?;
            write(&shared.file).inspect_err(|error| {
                if !matches!(error, LedgerError::Corrupt(_)) {
                    tracing::error!(%error, "the file of the stock cannot be written; it is not used until the service is started again");
                    shared.failed.send_replace(Some(error.to_string()));
                }
            })
        };
        self.blocking(write).await
    }
}

impl Shared {
    fn still_open(&self) -> Result<(), LedgerError> {
        self.failed.borrow().as_ref().map_or(Ok(()), |why| Err(LedgerError::StoreUnavailable(why.clone())))
    }
}

impl Shelf for EmbeddedShelf {
    async fn record(&self, report: Report) -> Result<Recorded, LedgerError> {
        self.write(move |file| file.record(&report, super::REPORTS_KEPT)).await
    }

    async fn after(&self, place: Place, most: usize) -> Result<Reports, LedgerError> {
        self.blocking(move |shared| shared.file.after(place, most)).await
    }

    async fn keep(&self, picture: Vec<u8>) -> Result<(), LedgerError> {
        self.write(move |file| file.keep(&picture)).await
    }

    async fn kept(&self) -> Result<Option<Vec<u8>>, LedgerError> {
        self.blocking(|shared| shared.file.kept()).await
    }
}
