//! The ledger on one machine: a redb file, one writer, group commit, every answer after the sync.
//!
//! One thread of its own takes whatever has queued, runs [`rules`] for each command against its record
//! inside one write transaction, commits once, syncs, and only then answers everybody. There is no timer: groups form
//! while the previous one syncs. If a commit fails, nobody can say what is on the disk: the group is answered so, and the
//! ledger stays closed until the process starts again.
//!
//! Knows nothing about Redis, the wire, or what a rule is made of.

pub(crate) mod beside;
mod file;
mod writer;

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use redb::Database;
use tokio::sync::{mpsc, oneshot};

use crate::buyer::Turn;
use crate::ids::{LedgerId, ProgrammeCode};
use crate::time::Timestamp;

use super::outbox::{After, Outbox, PARTITIONS, Place};
use super::rules::{self, Step};
use super::{
    Answer, Call, Claim, Claimed, Confirmed, Durability, Entered, Exported, Health, Kept, Late, Ledger, LedgerError,
    Record, RecordKey, Released, Resolved, Swept, Terms, Voided,
};

pub use file::{FILE_NAME, OpenError};
use writer::{Job, SweepStep, TurnStep, Verb};

/// Commands that may wait for the writer. Beyond it a caller is told that too much is waiting.
const QUEUE: usize = 4_096;

/// The ledger in a redb file. Clones share one writer; dropping the last one waits until the writer has ended and
/// frees the file.
#[derive(Clone)]
pub struct EmbeddedLedger(Arc<Shared>);

struct Shared {
    id: LedgerId,
    database: Arc<Database>,
    /// `None` only while the last handle is being dropped.
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    /// Set once, when the writer has given up: why.
    failed: Arc<OnceLock<String>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedLedger {
    /// Opens the ledger in this directory, or makes both. The file belongs to this process until the last handle is
    /// dropped. A file that is there is never overwritten, whatever is in it, and never used under other terms than those it
    /// was begun with.
    pub fn open(directory: &Path, terms: &Terms) -> Result<Self, OpenError> {
        let (database, id) = file::open(directory, terms)?;
        Self::start(database, id, &directory.join(FILE_NAME))
    }

    /// A ledger on a disk of the caller's making, for tests of what a crash leaves behind.
    #[doc(hidden)]
    pub fn open_with_backend(backend: impl redb::StorageBackend, terms: &Terms) -> Result<Self, OpenError> {
        let (database, id) = file::open_backend(backend, terms)?;
        Self::start(database, id, Path::new("(a disk of a test)"))
    }

    fn start(database: Database, id: LedgerId, file: &Path) -> Result<Self, OpenError> {
        let database = Arc::new(database);
        let failed = Arc::new(OnceLock::new());
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = writer::spawn(Arc::clone(&database), queue, Arc::clone(&failed))
            .map_err(|source| OpenError::Io { file: file.to_owned(), source })?;
        Ok(Self(Arc::new(Shared { id, database, jobs: Some(jobs), failed, writer: Mutex::new(Some(writer)) })))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, file::ReadError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.still_open()?;
        // The closure holds a handle, so that the file is freed by the last handle even if the caller goes away.
        let ledger = self.clone();
        tokio::task::spawn_blocking(move || read(&ledger.0.database).map_err(LedgerError::from))
            .await
            .unwrap_or_else(|error| Err(LedgerError::StoreUnavailable(error.to_string())))
    }

    fn still_open(&self) -> Result<(), LedgerError> {
        self.0.failed.get().map_or(Ok(()), |why| Err(LedgerError::StoreUnavailable(why.clone())))
    }

    /// The job is made before the future, so that what waits for the writer is not all that it was made of.
    fn verb<O: Send + 'static>(
        &self,
        key: RecordKey,
        call: Call,
        stated: String,
        decide: impl FnOnce(&Record) -> Result<Step<O>, LedgerError> + Send + 'static,
    ) -> impl Future<Output = Result<Answer<O>, LedgerError>> + Send {
        self.submit(move |reply| Box::new(Verb::new(key, call, stated, decide, reply)))
    }

    fn submit<T: Send>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Box<dyn Job>,
    ) -> impl Future<Output = Result<T, LedgerError>> + Send {
        let (reply, answer) = oneshot::channel();
        let job = job(reply);
        async move {
            self.still_open()?;
            let closed = || LedgerError::StoreUnavailable("the ledger's writer has ended".to_owned());
            match self.0.jobs.as_ref().ok_or_else(closed)?.try_send(job) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => return Err(LedgerError::Overloaded),
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(closed()),
            }
            // The writer answers everything that it has taken; only its panic breaks the promise.
            answer.await.unwrap_or_else(|_| Err(LedgerError::Unconfirmed("the ledger's writer broke off".to_owned())))
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.jobs = None;
        let writer = self.writer.get_mut().map(Option::take).unwrap_or_default();
        if let Some(writer) = writer {
            // A writer that panicked has said so through `failed`.
            let _ = writer.join();
        }
    }
}

impl Outbox for EmbeddedLedger {
    async fn after(&self, places: Vec<(u8, Place)>, most: usize) -> Result<Vec<After>, LedgerError> {
        self.read(move |database| file::after(database, &places, most)).await
    }

    async fn newest(&self) -> Result<[Place; PARTITIONS], LedgerError> {
        self.read(file::newest).await
    }
}

impl Ledger for EmbeddedLedger {
    fn claim(
        &self,
        key: RecordKey,
        call: Call,
        claim: Claim,
    ) -> impl Future<Output = Result<Answer<Claimed>, LedgerError>> + Send {
        self.verb(key, call, claim.stated.clone(), move |record| rules::claim(record, &call, &claim))
    }

    fn confirm(
        &self,
        key: RecordKey,
        call: Call,
    ) -> impl Future<Output = Result<Answer<Confirmed>, LedgerError>> + Send {
        self.verb(key, call, String::new(), move |record| rules::confirm(record, &call))
    }

    fn release(
        &self,
        key: RecordKey,
        call: Call,
    ) -> impl Future<Output = Result<Answer<Released>, LedgerError>> + Send {
        self.verb(key, call, String::new(), move |record| rules::release(record, &call))
    }

    fn void(&self, key: RecordKey, call: Call) -> impl Future<Output = Result<Answer<Voided>, LedgerError>> + Send {
        self.verb(key, call, String::new(), move |record| rules::void(record, &call))
    }

    fn late(
        &self,
        key: RecordKey,
        call: Call,
        late: Late,
    ) -> impl Future<Output = Result<Answer<Entered>, LedgerError>> + Send {
        self.verb(key, call, late.stated.clone(), move |record| rules::late(record, &call, &late))
    }

    fn resolve(
        &self,
        key: RecordKey,
        call: Call,
    ) -> impl Future<Output = Result<Answer<Resolved>, LedgerError>> + Send {
        self.verb(key, call, String::new(), move |record| rules::resolve(record, &call))
    }

    /// Reads what has been committed, which is all that has been answered.
    async fn usage(&self, key: RecordKey) -> Result<Record, LedgerError> {
        self.read(move |database| file::usage(database, key)).await
    }

    async fn sweep(
        &self,
        programme: ProgrammeCode,
        before: Timestamp,
        from: Option<Vec<u8>>,
    ) -> Result<Swept, LedgerError> {
        self.submit(|reply| Box::new(SweepStep::new(programme, before, from, reply))).await
    }

    /// Each step reads what has been committed when it begins; the writer never waits for it.
    async fn export(&self, programme: ProgrammeCode, from: Option<Vec<u8>>) -> Result<Exported, LedgerError> {
        self.read(move |database| file::export(database, programme, from.as_deref())).await
    }

    async fn turn(&self, to: Turn, kept: Kept) -> Result<(), LedgerError> {
        self.submit(|reply| Box::new(TurnStep::new(to, kept, reply))).await
    }

    fn health(&self) -> Health {
        match self.0.failed.get() {
            None => Health::Serving(self.0.id),
            Some(why) => Health::NotServing(why.clone()),
        }
    }

    fn id(&self) -> Option<LedgerId> {
        Some(self.0.id)
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }
}

impl From<file::ReadError> for LedgerError {
    fn from(error: file::ReadError) -> Self {
        match error {
            file::ReadError::Corrupt(why) => Self::Corrupt(why),
            file::ReadError::Store(why) => Self::StoreUnavailable(why),
            file::ReadError::OtherRing(other) => Self::OtherRing(other),
        }
    }
}
