//! The door of one process on one machine: the limiter over a file of its own.
//!
//! One thread owns the limiter and the file. It takes everything that has queued, applies it in order, commits what
//! changed with one sync, and answers only then. Renewals change nothing that is kept, so they cost no sync. After a failed
//! commit the thread answers nothing more: what is on disk and what is in memory may differ until the file is opened
//! again.
//!
//! Logical time follows the clock's monotonic time: with one process there is no other store clock to ask.

mod file;

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use file::DoorFile;
pub use file::DoorFileError;

use super::limiter::Limiter;
use super::{Changes, Cursor, Door, DoorError, Ended, Lease, Opened, Seat, Standing, Tick, millis};
use crate::ids::{SiteId, TerminalId};
use crate::time::Clock;

/// How many calls may wait for the thread.
const QUEUE: usize = 4_096;
/// How many calls share a commit.
const GROUP: usize = 256;
/// How many changes are kept for readers.
const CHANGES_KEPT: usize = 100_000;

/// The door of one process.
#[derive(Clone)]
pub struct EmbeddedDoor(Arc<Handle>);

struct Handle {
    /// `None` only while it is being dropped.
    calls: Option<mpsc::Sender<Call>>,
    thread: Option<JoinHandle<()>>,
}

/// A call and where its answer goes.
enum Call {
    Open(SiteId, TerminalId, u16, oneshot::Sender<Opened>),
    Renew(Vec<Seat>, oneshot::Sender<Vec<Standing>>),
    Close(Seat, oneshot::Sender<bool>),
    LookUp(Seat, oneshot::Sender<Standing>),
    Changes(Cursor, oneshot::Sender<Changes>),
    Tick(oneshot::Sender<Tick>),
}

impl EmbeddedDoor {
    /// Opens the file, or makes it, and starts the thread. Every seat in the file counts as renewed now. Blocks while the
    /// file is read.
    pub fn open(path: &Path, lease: Lease, clock: impl Clock) -> Result<Self, DoorFileError> {
        let unreadable = |why: String| DoorFileError::Unreadable { path: path.to_owned(), why };
        let nonce = getrandom::u64().map_err(|error| unreadable(format!("no random numbers: {error}")))?;
        let (file, (now_ms, sites)) = DoorFile::open(path)?;
        let (calls, queue) = mpsc::channel(QUEUE);
        let keeper = Keeper {
            limiter: Limiter::new(lease, now_ms, sites),
            file,
            log: ChangeLog { nonce, number: 0, kept: VecDeque::new() },
            clock,
        };
        let thread = std::thread::Builder::new().name("door".into()).spawn(move || keeper.run(queue));
        let thread = thread.map_err(|error| unreadable(format!("no thread for it: {error}")))?;
        Ok(Self(Arc::new(Handle { calls: Some(calls), thread: Some(thread) })))
    }

    /// Waits until the door answers nothing more, which is for good: only a new start can open the file again.
    pub async fn closed(&self) {
        if let Some(calls) = &self.0.calls {
            calls.closed().await;
        }
    }

    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, DoorError> {
        let stopped = || DoorError::Away("a commit failed; start the service again".into());
        let (answer, answered) = oneshot::channel();
        let calls = self.0.calls.as_ref().ok_or_else(stopped)?;
        calls.send(call(answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }
}

/// Waits for the last commit, so that whoever opens the file next finds it free.
impl Drop for Handle {
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Door for EmbeddedDoor {
    async fn open(&self, site: SiteId, terminal: TerminalId, cap: u16) -> Result<Opened, DoorError> {
        self.ask(|answer| Call::Open(site, terminal, cap, answer)).await
    }

    async fn renew(&self, seats: &[Seat]) -> Result<Vec<Standing>, DoorError> {
        self.ask(|answer| Call::Renew(seats.to_vec(), answer)).await
    }

    async fn close(&self, seat: Seat) -> Result<bool, DoorError> {
        self.ask(|answer| Call::Close(seat, answer)).await
    }

    async fn look_up(&self, seat: Seat) -> Result<Standing, DoorError> {
        self.ask(|answer| Call::LookUp(seat, answer)).await
    }

    async fn changes(&self, after: Cursor) -> Result<Changes, DoorError> {
        self.ask(|answer| Call::Changes(after, answer)).await
    }

    async fn tick(&self) -> Result<Tick, DoorError> {
        self.ask(Call::Tick).await
    }
}

/// What the thread owns.
struct Keeper<C> {
    limiter: Limiter,
    file: DoorFile,
    log: ChangeLog,
    clock: C,
}

/// An answer that waits for the commit.
type Answer = Box<dyn FnOnce() + Send>;

impl<C: Clock> Keeper<C> {
    fn run(mut self, mut queue: mpsc::Receiver<Call>) {
        while let Some(first) = queue.blocking_recv() {
            let mut changed = BTreeSet::new();
            let mut answers = vec![self.apply(first, &mut changed)];
            while answers.len() < GROUP
                && let Ok(call) = queue.try_recv()
            {
                answers.push(self.apply(call, &mut changed));
            }
            let rows = changed.iter().filter_map(|site| Some((*site, self.limiter.site(site)?)));
            if !changed.is_empty()
                && let Err(error) = self.file.save(self.limiter.now_ms(), rows)
            {
                tracing::error!(%error, "the door's file cannot be written; no session is opened until the service starts again");
                return;
            }
            for answer in answers {
                answer();
            }
        }
    }

    /// Applies one call to the limiter and says which sites must be written before it is answered.
    fn apply(&mut self, call: Call, changed: &mut BTreeSet<SiteId>) -> Answer {
        match call {
            Call::Open(site, terminal, cap, to) => {
                let (opened, ended) = self.limiter.open(site, terminal, cap);
                if !ended.is_empty() || matches!(opened, Opened::Granted { .. }) {
                    changed.insert(site);
                }
                self.log.extend(ended);
                answer(to, opened)
            }
            Call::Renew(seats, to) => answer(to, seats.iter().map(|seat| self.limiter.renew(seat)).collect()),
            Call::Close(seat, to) => {
                let ended = self.limiter.close(&seat);
                changed.extend(ended.map(|ended| ended.seat.site));
                self.log.extend(ended);
                answer(to, ended.is_some())
            }
            Call::LookUp(seat, to) => answer(to, self.limiter.standing(&seat)),
            Call::Changes(after, to) => answer(to, self.log.after(after)),
            Call::Tick(to) => {
                let ended = self.limiter.tick(millis(self.clock.monotonic()));
                changed.extend(ended.iter().map(|ended| ended.seat.site));
                let tick = Tick { expired: ended.len() };
                self.log.extend(ended);
                answer(to, tick)
            }
        }
    }
}

/// A caller that has gone away does not want its answer any more.
fn answer<T: Send + 'static>(to: oneshot::Sender<T>, value: T) -> Answer {
    Box::new(move || drop(to.send(value)))
}

/// The last changes of this process; a reader of an earlier one has a gap.
struct ChangeLog {
    nonce: u64,
    /// The number of the newest change.
    number: u64,
    kept: VecDeque<Ended>,
}

impl ChangeLog {
    fn extend(&mut self, ended: impl IntoIterator<Item = Ended>) {
        for change in ended {
            self.number += 1;
            self.kept.push_back(change);
            if self.kept.len() > CHANGES_KEPT {
                self.kept.pop_front();
            }
        }
    }

    fn after(&self, cursor: Cursor) -> Changes {
        let upto = Cursor::new(self.number, self.nonce);
        let missed = self.number.checked_sub(cursor.number).and_then(|missed| usize::try_from(missed).ok());
        match missed.and_then(|missed| self.kept.len().checked_sub(missed)) {
            Some(from) if cursor.nonce == self.nonce => {
                Changes { ended: self.kept.iter().skip(from).copied().collect(), upto, gap: false }
            }
            _ => Changes { ended: Vec::new(), upto, gap: true },
        }
    }
}
