//! The threads of an audit log: one writes what is told in groups, one syncs. So no counter ever waits for the disk.
//!
//! ```text
//! calls ──bounded queue──> writer: one write for each group ──> syncer: one sync for what was written meanwhile
//!                             └ answers to counters leave          └ operators are answered
//! ```
//!
//! No call waits for its own record: that would wake each of them once more, and answers that come together would leave apart.
//! What waits is the connection that is about to send some of them, for everything told until then ([`FileTrail::unwritten`]).

use std::io;
use std::iter;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::chain::Note;
use super::log::{Expired, Log, OpenError, Written, append_note};
use super::month_keys::MonthKeys;
use super::{Access, NotOnRecord};
use crate::time::{Clock, Timestamp};

/// The most accesses that wait to be written; those beyond are counted and not recorded, if they are not refused.
const QUEUE: usize = 16_384;
/// The most accesses in one write.
const GROUP: usize = 1_024;
/// Where so many came together, more will: they are waited for until somebody waits for what there is.
const BUSY: usize = 4;
/// For how long at the most.
const GATHER: Duration = Duration::from_micros(500);
/// How long records of counters may wait for a sync, and so how much a crash of the machine may take.
pub(super) const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How long answers to counters wait for their records to be written, where a disk stands still.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the end of a log may take, where a disk stands still.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// The queue to a log's writer. Clones share it; the log is closed when the last one goes.
#[derive(Clone)]
pub struct FileTrail {
    queue: mpsc::Sender<Work>,
    shared: Arc<Shared>,
    /// Woken when somebody waits.
    writer: Thread,
    /// Cancelled when both threads have ended.
    ended: CancellationToken,
}

/// How a log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Records written since the start.
    pub recorded: u64,
    /// Accesses of which there is no record, since the start.
    pub not_recorded: u64,
    /// Why nothing can be put on record just now.
    pub failing: Option<String>,
}

/// What the threads tell the service.
struct Shared {
    /// Accesses that were put into the queue.
    told: AtomicU64,
    /// Those of them that are in the operating system's hands, or of which there is no record.
    handled: watch::Sender<u64>,
    /// How many of them there were when somebody waited in vain for more.
    stood_at: AtomicU64,
    recorded: AtomicU64,
    not_recorded: AtomicU64,
    /// Those of them of which the chain does not say so yet.
    untold: AtomicU64,
    write_fails: Mutex<Option<String>>,
    sync_fails: Mutex<Option<String>>,
    /// A sync has failed, and the chain does not say so yet.
    not_synced: AtomicBool,
    /// The newest record that is known to be on the disk.
    synced: AtomicU64,
}

impl Shared {
    fn new(synced: u64) -> Self {
        Self {
            told: AtomicU64::new(0),
            handled: watch::Sender::new(0),
            stood_at: AtomicU64::new(u64::MAX),
            recorded: AtomicU64::new(0),
            not_recorded: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            write_fails: Mutex::default(),
            sync_fails: Mutex::default(),
            not_synced: AtomicBool::new(false),
            synced: AtomicU64::new(synced),
        }
    }

    fn lose(&self, accesses: u64) {
        self.untold.fetch_add(accesses, Ordering::Relaxed);
        self.not_recorded.fetch_add(accesses, Ordering::Relaxed);
    }
}

/// Why the last attempt failed, if it did.
fn set(slot: &Mutex<Option<String>>, why: Option<String>) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = why;
}

/// What is asked of the writer.
#[expect(clippy::large_enum_variant, reason = "nearly everything in the queue is the large one")]
enum Work {
    /// To be answered, if somebody waits, when it is on the disk.
    Put(Access, Option<Reply>),
    /// To remove what has been kept for so many months.
    Expire(u32),
    /// To write what the log has to say of itself.
    Retry,
    Close,
}

type Reply = oneshot::Sender<Result<(), NotOnRecord>>;

impl FileTrail {
    /// Opens the log in this directory and starts its threads.
    pub fn open<C: Clock>(directory: &Path, clock: C) -> Result<Self, OpenError> {
        let log = Log::open(directory, clock.now())?;
        let failed = |source| OpenError::Io { directory: directory.to_path_buf(), source };
        let (queue, asked) = mpsc::channel(QUEUE);
        let (slot, ended) = (Arc::<Slot>::default(), CancellationToken::new());
        let shared = Arc::new(Shared::new(log.written().sequence()));
        let syncing = {
            let (slot, shared, clock) = (slot.clone(), shared.clone(), clock.clone());
            thread::Builder::new().name("audit-syncer".into()).spawn(move || keep_synced(&slot, &shared, &clock))
        };
        let (syncing, over) = (syncing.map_err(failed)?, ended.clone().drop_guard());
        let keys = MonthKeys::of(directory);
        let writer = Writer { log, keys, shared: shared.clone(), clock, to_sync: Closing(slot) };
        let writing = move || {
            let _over = over;
            writer.run(asked);
            let _ = syncing.join();
        };
        let writing = thread::Builder::new().name("audit-writer".into()).spawn(writing).map_err(failed)?;
        Ok(Self { queue, shared, writer: writing.thread().clone(), ended })
    }

    pub(super) async fn put(&self, access: Access) -> Result<(), NotOnRecord> {
        let (reply, answer) = oneshot::channel();
        self.hand_on(access, Some(reply)).map_err(|error| NotOnRecord(error.to_string()))?;
        answer.await.unwrap_or_else(|_| Err(NotOnRecord("the audit log has ended".into())))
    }

    pub(super) fn tell(&self, accesses: impl IntoIterator<Item = Access>) {
        for access in accesses {
            if self.hand_on(access, None).is_err() {
                self.shared.lose(1);
            }
        }
    }

    fn hand_on(&self, access: Access, reply: Option<Reply>) -> Result<(), mpsc::error::TrySendError<()>> {
        let place = self.queue.try_reserve()?;
        // Before it stands in the queue: whoever counts after another one was put in counts all that stand before that.
        self.shared.told.fetch_add(1, Ordering::SeqCst);
        place.send(Work::Put(access, reply));
        Ok(())
    }

    /// Comes when all that was told so far is in the operating system's hands, or is missing; but waits for no disk that stands
    /// still. `None`: there is nothing to wait for.
    pub(super) fn unwritten(&self) -> Option<BoxFuture<'static, ()>> {
        let (told, handled) = (self.shared.told.load(Ordering::SeqCst), *self.shared.handled.borrow());
        // One has waited in vain, and nothing has moved since: nobody else is held up.
        if handled >= told || handled == self.shared.stood_at.load(Ordering::Relaxed) {
            return None;
        }
        self.writer.unpark();
        let shared = self.shared.clone();
        Some(Box::pin(async move {
            let mut handled = shared.handled.subscribe();
            if timeout(PATIENCE, handled.wait_for(|handled| *handled >= told)).await.is_err() {
                shared.stood_at.store(*handled.borrow(), Ordering::Relaxed);
            }
        }))
    }

    /// Removes the segments whose month ended more than so many months ago, and the keys of such months.
    pub async fn expire(&self, keep_months: u32) {
        let _ = self.queue.send(Work::Expire(keep_months)).await;
    }

    /// Tries again what has failed, if there is anything.
    pub fn retry(&self) {
        let untold = self.shared.untold.load(Ordering::Relaxed) > 0;
        if untold || self.standing().failing.is_some() {
            // In a full queue is enough to write.
            let _ = self.queue.try_send(Work::Retry);
        }
    }

    /// How the log stands.
    pub fn standing(&self) -> Standing {
        let why = |slot: &Mutex<Option<String>>| slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = || self.ended.is_cancelled().then(|| "the audit log's writer has ended".to_owned());
        Standing {
            recorded: self.shared.recorded.load(Ordering::Relaxed),
            not_recorded: self.shared.not_recorded.load(Ordering::Relaxed),
            failing: why(&self.shared.write_fails).or_else(|| why(&self.shared.sync_fails)).or_else(ended),
        }
    }

    /// Waits until nobody writes any more.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(super) async fn close(&self) {
        let ends = async {
            let _ = self.queue.send(Work::Close).await;
            self.ended.cancelled().await;
        };
        if timeout(LAST_PATIENCE, ends).await.is_err() {
            tracing::error!("the audit log could not be closed in time; its last records may not be on the disk");
        }
    }
}

/// What the writing thread works with.
struct Writer<C> {
    log: Log,
    keys: MonthKeys,
    shared: Arc<Shared>,
    clock: C,
    to_sync: Closing,
}

/// An access that can be written.
struct Record {
    access: Access,
    /// The pseudonym of whoever it names.
    buyer: String,
    reply: Option<Reply>,
}

impl<C: Clock> Writer<C> {
    fn run(mut self, mut asked: mpsc::Receiver<Work>) {
        let mut group = Vec::with_capacity(GROUP);
        let (mut is_open, mut is_busy) = (true, false);
        while is_open && asked.blocking_recv_many(&mut group, GROUP) > 0 {
            if is_busy {
                thread::park_timeout(GATHER);
                let more = GROUP.saturating_sub(group.len());
                group.extend(iter::from_fn(|| asked.try_recv().ok()).take(more));
            }
            is_busy = group.len() >= BUSY;
            let mut accesses = Vec::with_capacity(group.len());
            for work in group.drain(..) {
                match work {
                    Work::Put(access, reply) => accesses.push((access, reply)),
                    Work::Expire(keep_months) => self.expire(keep_months),
                    Work::Retry => {}
                    Work::Close => is_open = false,
                }
            }
            self.write(accesses);
        }
        asked.close();
        let mut late = Vec::new();
        // Whoever had taken a place in the queue fills it yet.
        while let Some(work) = asked.blocking_recv() {
            if let Work::Put(access, reply) = work {
                late.push((access, reply));
            }
        }
        self.write(late);
    }

    /// One write for all of them, and for what the log has to say of itself.
    fn write(&mut self, accesses: Vec<(Access, Option<Reply>)>) {
        let (now, handled) = (self.clock.now(), u64::try_from(accesses.len()).unwrap_or(u64::MAX));
        let mut failure = None;
        let mut records = Vec::with_capacity(accesses.len());
        for (access, reply) in accesses {
            let buyer = access.whose().map(|record| self.keys.pseudonym(now.month(), record)).transpose();
            match buyer {
                Ok(buyer) => records.push(Record { access, buyer: buyer.unwrap_or_default(), reply }),
                Err(error) => failure = Some(self.refuse(reply, error)),
            }
        }
        let untold = self.shared.untold.swap(0, Ordering::Relaxed);
        let not_synced = self.shared.not_synced.swap(false, Ordering::Relaxed);
        let (at, from) = (now.to_string(), self.shared.synced.load(Ordering::Relaxed) + 1);
        let notes = [
            (untold > 0).then(|| Note::NotRecorded { at: at.clone(), accesses: untold }),
            not_synced.then_some(Note::NotSynced { at, from }),
        ];
        let wrote = self.log.write(now, |link, out| {
            notes.iter().flatten().for_each(|note| append_note(link, out, note));
            // Many of a group are of the same millisecond.
            let mut shown = (Timestamp::EPOCH, Timestamp::EPOCH.to_string());
            for Record { access, buyer, .. } in &records {
                if shown.0 != access.at {
                    shown = (access.at, access.at.to_string());
                }
                link.append(out, |out| access.write(out, &shown.1, buyer));
            }
        });
        match wrote {
            Ok(()) => self.written(records),
            Err(error) => {
                self.shared.untold.fetch_add(untold, Ordering::Relaxed);
                self.shared.not_synced.fetch_or(not_synced, Ordering::Relaxed);
                let why = error.to_string();
                for record in records {
                    self.refuse(record.reply, io::Error::other(why.clone()));
                }
                failure = Some(error);
            }
        }
        set(&self.shared.write_fails, failure.map(|error| error.to_string()));
        self.shared.handled.send_modify(|so_far| *so_far += handled);
    }

    /// Counts them, and has those who wait for the disk wait for it.
    fn written(&self, records: Vec<Record>) {
        self.shared.recorded.fetch_add(u64::try_from(records.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let waiting = records.into_iter().filter_map(|record| record.reply).collect();
        self.to_sync.0.put(self.log.written(), waiting);
    }

    /// An operator is refused; of what a counter did, there is no record.
    fn refuse(&self, reply: Option<Reply>, why: io::Error) -> io::Error {
        match reply {
            Some(reply) => _ = reply.send(Err(NotOnRecord(why.to_string()))),
            None => self.shared.lose(1),
        }
        why
    }

    fn expire(&mut self, keep_months: u32) {
        match self.log.expire(self.clock.now(), keep_months) {
            Ok(None) => {}
            Ok(Some(Expired { segments, until, month })) => {
                tracing::info!(segments, until, %month, "old segments of the audit log were removed, with their keys");
            }
            Err(error) => tracing::warn!(%error, "old segments of the audit log could not be removed"),
        }
    }
}

/// What was written last, between the two threads.
#[derive(Default)]
struct Slot {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    written: Option<Written>,
    waiting: Vec<Reply>,
    is_closed: bool,
}

/// The writer's end of the slot: closed when the writer ends in whatever way.
struct Closing(Arc<Slot>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.0.changed.notify_one();
    }
}

impl Slot {
    fn put(&self, written: Written, waiting: Vec<Reply>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // A syncer that knows of something sleeps until that is due, unless somebody waits.
        let wake = pending.written.is_none() || !waiting.is_empty();
        pending.written = Some(written);
        pending.waiting.extend(waiting);
        drop(pending);
        if wake {
            self.changed.notify_one();
        }
    }

    /// What is to be synced next, once somebody waits for it or it is due; `None` at the end.
    fn next(&self, clock: &impl Clock, last: Duration) -> Option<(Written, Vec<Reply>)> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let due_in = SYNC_EVERY.saturating_sub(clock.monotonic().saturating_sub(last));
            if (pending.is_closed || !pending.waiting.is_empty() || due_in.is_zero())
                && let Some(written) = pending.written.take()
            {
                return Some((written, mem::take(&mut pending.waiting)));
            }
            if pending.is_closed {
                return None;
            }
            let longest = if pending.written.is_some() { due_in } else { Duration::MAX };
            pending = match self.changed.wait_timeout(pending, longest) {
                Ok((pending, _)) => pending,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Syncs what was written until the writer has ended.
fn keep_synced(slot: &Slot, shared: &Shared, clock: &impl Clock) {
    let (mut last, mut was_failing) = (Duration::ZERO, false);
    while let Some((written, waiting)) = slot.next(clock, last) {
        last = clock.monotonic();
        let failure = written.sync().err().map(|error| error.to_string());
        match &failure {
            None => shared.synced.store(written.sequence(), Ordering::Relaxed),
            // Told once, however often it fails until it works again.
            Some(_) if was_failing => {}
            Some(_) => shared.not_synced.store(true, Ordering::Relaxed),
        }
        was_failing = failure.is_some();
        for reply in waiting {
            let _ = reply.send(failure.clone().map_or(Ok(()), |why| Err(NotOnRecord(why))));
        }
        set(&shared.sync_fails, failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Action;
    use crate::time::ManualClock;

    fn access() -> Access {
        let action = Action::Export { programme: "kr-public-mask-2020".parse().unwrap() };
        Access { at: Timestamp::EPOCH, by: "kim".into(), counter: None, action, result: "ENDED" }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_told_in_the_moment_of_the_end_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let log = FileTrail::open(directory.path(), ManualClock::new(Timestamp::EPOCH)).unwrap();
        let place = log.queue.clone().try_reserve_owned().unwrap();
        let closing = tokio::spawn({
            let log = log.clone();
            async move { log.close().await }
        });
        log.queue.closed().await;
        log.tell([access()]);
        place.send(Work::Put(access(), None));
        closing.await.unwrap();
        let standing = log.standing();
        assert_eq!((standing.recorded, standing.not_recorded), (1, 1));
        let verified = crate::audit::verify::verify(directory.path(), None).unwrap().unwrap();
        assert_eq!((verified.newest.sequence, verified.not_recorded), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::await_holding_lock, reason = "a writer that cannot go on is like one whose disk stands still")]
    async fn a_disk_that_stands_still_is_waited_for_once_and_not_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let log = FileTrail::open(directory.path(), ManualClock::new(Timestamp::EPOCH)).unwrap();
        assert!(log.unwritten().is_none());
        let stands_still = log.shared.write_fails.lock().unwrap();
        log.tell([access()]);
        let begun = tokio::time::Instant::now();
        log.unwritten().expect("it is not written").await;
        assert!((PATIENCE..2 * PATIENCE).contains(&begun.elapsed()));
        log.tell([access()]);
        assert!(log.unwritten().is_none(), "nobody else is held up");
        drop(stands_still);
        tokio::time::resume();
        log.shared.handled.subscribe().wait_for(|handled| *handled == 2).await.unwrap();
        let standing = log.standing();
        assert_eq!((standing.recorded, standing.not_recorded), (2, 0));
        // It moves, so it is waited for again.
        let stands_still = log.shared.write_fails.lock().unwrap();
        log.tell([access()]);
        assert!(log.unwritten().is_some());
        drop(stands_still);
    }
}
