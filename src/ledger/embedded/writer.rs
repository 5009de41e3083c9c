//! The one thread that writes: groups of commands, one transaction and one sync for each group.
//!
//! Knows nothing about what the commands mean; a [`Job`] does.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use redb::{Database, Durability, ReadableTable, StorageError, Table};
use tokio::sync::{mpsc, oneshot};

use crate::buyer::Turn;
use crate::ids::ProgrammeCode;
use crate::ledger::rules::Step;
use crate::ledger::terms::{KEYS, TURNED};
use crate::ledger::{Answer, Call, Entry, Kept, LedgerError, OUTBOX_EVENTS, Record, RecordKey, Swept, packed};
use crate::museum::Mutant;
use crate::time::Timestamp;

use super::file::{self, Key, META, OUTBOX, RECORDS, ReadError};

/// The most commands that share one sync.
const GROUP: usize = 256;
/// The most records that one step of a sweep looks at, so that sales wait for it no longer than for a group.
const SWEEP_RECORDS: usize = 256;
/// How far the seeded bug moves the horizon: past every window, so that entries go while they still count.
const SWEPT_TOO_EARLY: Duration = Duration::from_secs(30 * 86_400);

/// One command: it is applied inside the group's transaction, and answered when the group is on the disk.
pub(super) trait Job: Send {
    /// Reads and writes. An error here is the store's and ends the group; what the rules say is kept for the answer.
    fn apply(&mut self, group: &mut Group<'_>) -> Result<(), StorageError>;
    /// Tells the caller: what was decided, or why nobody can stand by it.
    fn answer(self: Box<Self>, failed: Option<&LedgerError>);
}

/// The tables of a write transaction.
pub(super) struct Group<'txn> {
    meta: Table<'txn, &'static str, &'static str>,
    /// The ring of keys that every record is written under.
    ring: String,
    records: Table<'txn, &'static Key, &'static [u8]>,
    outbox: Table<'txn, (u8, u64), &'static [u8]>,
    wrote: bool,
}

/// Starts the writer; it ends when every sender of its queue is gone, or when the store fails.
pub(super) fn spawn(
    database: Arc<Database>,
    queue: mpsc::Receiver<Box<dyn Job>>,
    failed: Arc<OnceLock<String>>,
) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name("ledger-writer".to_owned()).spawn(move || {
        let farewell = Farewell { failed, queue };
        write_groups(&database, farewell);
    })
}

/// However the writer ends, the ledger says that it is closed, and what still waits is told that nothing was written.
struct Farewell {
    failed: Arc<OnceLock<String>>,
    queue: mpsc::Receiver<Box<dyn Job>>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let why = self.failed.get_or_init(|| "the ledger's writer has ended".to_owned()).clone();
        self.queue.close();
        let unavailable = LedgerError::StoreUnavailable(why);
        while let Ok(job) = self.queue.try_recv() {
            job.answer(Some(&unavailable));
        }
    }
}

fn write_groups(database: &Database, mut farewell: Farewell) {
    while let Some(first) = farewell.queue.blocking_recv() {
        let mut jobs = Vec::with_capacity(GROUP);
        jobs.push(first);
        while jobs.len() < GROUP
            && let Ok(next) = farewell.queue.try_recv()
        {
            jobs.push(next);
        }
        let failure = write_group(database, &mut jobs).err();
        if let Some(failure) = &failure {
            // Before anybody is answered, so that no caller finds the ledger open after it has failed.
            let _ = farewell.failed.set(failure.to_string());
        }
        for job in jobs {
            job.answer(failure.as_ref());
        }
        if failure.is_some() {
            return;
        }
    }
}

/// All commands in one transaction and one sync; later ones see what earlier ones wrote. A group that wrote nothing has
/// nothing to sync: all that its answers rest on was synced by the groups before it.
fn write_group(database: &Database, jobs: &mut [Box<dyn Job>]) -> Result<(), LedgerError> {
    // Until the commit has been tried nothing is on the disk, and the transaction is given up by dropping it.
    let unavailable = |error: &dyn std::fmt::Display| LedgerError::StoreUnavailable(error.to_string());
    let mut transaction = database.begin_write().map_err(|e| unavailable(&e))?;
    transaction.set_durability(Durability::Immediate).map_err(|e| unavailable(&e))?;
    // Without quick repair: after a crash the first open then checks every page. Measured with a million buyers (514 MB)
    // that takes 3.3 s instead of 2 ms, and a lone commit 1.6 ms instead of 2.5 ms. The check is worth more than the
    // speed: with quick repair a copy of a crashed file that lacks its end was opened as if it were whole.
    transaction.set_quick_repair(false);
    let wrote = {
        let meta = transaction.open_table(META).map_err(|e| unavailable(&e))?;
        let ring = meta.get(KEYS).map_err(|e| unavailable(&e))?.map(|ring| ring.value().to_owned()).unwrap_or_default();
        let mut group = Group {
            meta,
            ring,
            records: transaction.open_table(RECORDS).map_err(|e| unavailable(&e))?,
            outbox: transaction.open_table(OUTBOX).map_err(|e| unavailable(&e))?,
            wrote: false,
        };
        for job in jobs {
            job.apply(&mut group).map_err(|e| unavailable(&e))?;
        }
        group.wrote
    };
    if wrote {
        transaction.commit().map_err(|e| LedgerError::Unconfirmed(e.to_string()))
    } else {
        transaction.abort().map_err(|e| unavailable(&e))
    }
}

impl Group<'_> {
    /// Whether a call of this turn may write: nobody does under a ring that was left, and the ring moves on from the one before only.
    fn under<T>(&mut self, turn: &Turn<T>, now: Timestamp) -> Result<Result<(), LedgerError>, StorageError> {
        if turn.ring.is(&self.ring) || Mutant::RingNotCompared.is_on() {
            return Ok(Ok(()));
        }
        if let Some(other) = turn.refuses(&self.ring) {
            return Ok(Err(LedgerError::OtherRing(other)));
        }
        self.ring = turn.ring.to_string();
        self.meta.insert(KEYS, self.ring.as_str())?;
        self.meta.insert(TURNED, now.to_string().as_str())?;
        self.wrote = true;
        Ok(Ok(()))
    }

    /// A buyer's record under this key and, while the ring turns, what stands under the previous one.
    fn record(&self, key: &Key, previous: Option<&Key>) -> Result<Result<Record, ReadError>, StorageError> {
        let mut entries = Vec::new();
        for key in [Some(key), previous].into_iter().flatten() {
            if let Some(found) = self.records.get(key)? {
                match file::unpack(found.value()) {
                    Ok(record) => entries.extend_from_slice(record.entries()),
                    Err(unreadable) => return Ok(Err(unreadable)),
                }
            }
        }
        Ok(Ok(Record::new(entries)))
    }

    fn put(&mut self, key: &Key, record: &Record) -> Result<(), StorageError> {
        self.wrote = true;
        if record.entries().is_empty() {
            self.records.remove(key)?;
        } else {
            self.records.insert(key, packed::pack(record.entries()).as_slice())?;
        }
        Ok(())
    }

    fn tell(&mut self, partition: u8, told: &[u8]) -> Result<(), StorageError> {
        let last = self.outbox.range((partition, 0)..=(partition, u64::MAX))?.next_back().transpose()?;
        let sequence = last.map_or(1, |(key, _)| key.value().1 + 1);
        self.outbox.insert((partition, sequence), told)?;
        if let Some(oldest) = sequence.checked_sub(OUTBOX_EVENTS) {
            self.outbox.remove((partition, oldest))?;
        }
        Ok(())
    }
}

/// A verb of the ledger: a function of the rules, waiting for its record.
pub(super) struct Verb<O, F> {
    key: RecordKey,
    call: Call,
    stated: String,
    decide: Option<F>,
    decided: Option<Result<Answer<O>, LedgerError>>,
    reply: oneshot::Sender<Result<Answer<O>, LedgerError>>,
}

impl<O, F: FnOnce(&Record) -> Result<Step<O>, LedgerError>> Verb<O, F> {
    pub(super) fn new(
        key: RecordKey,
        call: Call,
        stated: String,
        decide: F,
        reply: oneshot::Sender<Result<Answer<O>, LedgerError>>,
    ) -> Self {
        Self { key, call, stated, decide: Some(decide), decided: None, reply }
    }

    fn step(&mut self, group: &mut Group<'_>) -> Result<Option<Result<Answer<O>, LedgerError>>, StorageError> {
        // Nobody waits for it any more, and nothing has been written: it need not happen.
        let (false, Some(decide)) = (self.reply.is_closed(), self.decide.take()) else { return Ok(None) };
        if let Err(other) = group.under(&self.key.turn, self.call.now)? {
            return Ok(Some(Err(other)));
        }
        let key = file::record_key(&self.key);
        let previous = self.key.turn.previous().map(|previous| file::beside(&self.key, previous));
        let previous = previous.as_ref().filter(|_| !Mutant::PreviousNotCounted.is_on());
        let record = match group.record(&key, previous)? {
            Ok(record) => record,
            Err(unreadable) => return Ok(Some(Err(unreadable.into()))),
        };
        let step = match decide(&record) {
            Ok(step) => step,
            Err(error) => return Ok(Some(Err(error))),
        };
        let record = if step.writes.is_empty() {
            record
        } else {
            let after = record.with(&step.writes);
            group.put(&key, &after)?;
            if let Some(previous) = previous {
                group.records.remove(previous)?;
            }
            after
        };
        for event in &step.events {
            let told = file::told(event, self.key.programme, self.call.terminal, &self.stated);
            group.tell(self.key.buyer.partition, &told)?;
        }
        Ok(Some(Ok(Answer { outcome: step.outcome, replayed: step.replayed, at: step.at, record })))
    }
}

impl<O: Send, F: FnOnce(&Record) -> Result<Step<O>, LedgerError> + Send> Job for Verb<O, F> {
    fn apply(&mut self, group: &mut Group<'_>) -> Result<(), StorageError> {
        self.decided = self.step(group)?;
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<&LedgerError>) {
        answer(self.reply, self.decided, failed);
    }
}

/// The key ring moves on, before any call needs it.
pub(super) struct TurnStep {
    to: Turn,
    kept: Kept,
    decided: Option<Result<(), LedgerError>>,
    reply: oneshot::Sender<Result<(), LedgerError>>,
}

impl TurnStep {
    pub(super) fn new(to: Turn, kept: Kept, reply: oneshot::Sender<Result<(), LedgerError>>) -> Self {
        Self { to, kept, decided: None, reply }
    }
}

impl Job for TurnStep {
    fn apply(&mut self, group: &mut Group<'_>) -> Result<(), StorageError> {
        let turned = group.meta.get(TURNED)?.map(|turned| turned.value().to_owned());
        self.decided = Some(match self.kept.refuses(&self.to, &group.ring, turned.as_deref()) {
            Some(other) => Err(LedgerError::OtherRing(other)),
            None => {
                // The key before is not needed, and no programme that keeps purchases longer brings it back.
                if self.to.previous().is_none() && group.meta.remove(TURNED)?.is_some() {
                    group.wrote = true;
                }
                group.under(&self.to, self.kept.now)?
            }
        });
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<&LedgerError>) {
        answer(self.reply, self.decided, failed);
    }
}

/// One bounded step of a sweep, on the writer's thread like everything that writes.
pub(super) struct SweepStep {
    programme: ProgrammeCode,
    before: Timestamp,
    from: Option<Vec<u8>>,
    decided: Option<Result<Swept, LedgerError>>,
    reply: oneshot::Sender<Result<Swept, LedgerError>>,
}

impl SweepStep {
    pub(super) fn new(
        programme: ProgrammeCode,
        before: Timestamp,
        from: Option<Vec<u8>>,
        reply: oneshot::Sender<Result<Swept, LedgerError>>,
    ) -> Self {
        // The seeded bug: an age that ignores how long the window is.
        let before = if Mutant::SweptTooEarly.is_on() { before.plus(SWEPT_TOO_EARLY) } else { before };
        Self { programme, before, from, decided: None, reply }
    }

    fn step(&self, group: &mut Group<'_>) -> Result<Result<Swept, LedgerError>, StorageError> {
        let mut from = Bound::Included(file::first_key(self.programme));
        if let Some(seen) = &self.from {
            match Key::try_from(seen.as_slice()) {
                Ok(seen) => from = Bound::Excluded(seen),
                Err(_) => return Ok(Err(LedgerError::Corrupt("no sweep stopped there".to_owned()))),
            }
        }
        let until = Bound::Included(file::last_key(self.programme));
        let (mut seen, mut last, mut removed, mut unreadable) = (0, None, 0, 0);
        let mut shorter = Vec::new();
        for row in group.records.range::<&Key>((from.as_ref(), until.as_ref()))?.take(SWEEP_RECORDS) {
            let (key, value) = row?;
            (seen, last) = (seen + 1, Some(key.value().to_vec()));
            let Ok(record) = file::unpack(value.value()) else {
                unreadable += 1;
                continue;
            };
            let kept: Vec<_> = record.entries().iter().filter(|e| self.keeps(e)).copied().collect();
            if kept.len() < record.entries().len() {
                removed += record.entries().len() - kept.len();
                shorter.push((*key.value(), Record::new(kept)));
            }
        }
        for (key, record) in &shorter {
            group.put(key, record)?;
        }
        let next = last.filter(|_| seen == SWEEP_RECORDS);
        let removed = u64::try_from(removed).unwrap_or(u64::MAX);
        Ok(Ok(Swept { removed, unreadable, next }.told(self.programme)))
    }

    /// An entry goes when both of its times are from before the kept history: a hold that may still be confirmed stays, and
    /// so does anything that was told within it, for whose retries the history is kept.
    fn keeps(&self, entry: &Entry) -> bool {
        entry.at >= self.before || entry.mark >= self.before
    }
}

impl Job for SweepStep {
    fn apply(&mut self, group: &mut Group<'_>) -> Result<(), StorageError> {
        self.decided = Some(self.step(group)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failed: Option<&LedgerError>) {
        answer(self.reply, self.decided, failed);
    }
}

/// Sends what was decided, or the group's failure. A caller that has gone away is not told.
fn answer<T>(
    reply: oneshot::Sender<Result<T, LedgerError>>,
    decided: Option<Result<T, LedgerError>>,
    failed: Option<&LedgerError>,
) {
    let answer = failed.cloned().map_or(decided, |failure| Some(Err(failure)));
    if let Some(answer) = answer {
        let _ = reply.send(answer);
    }
}
