//! The door of one process on one machine: the limiter over a file of its own.
//!
//! One thread owns the limiter and the file. It takes everything that has queued, applies it in order, commits what
//! changed with one sync, and answers only then. Signs of life change nothing that is kept, so they cost no sync. After a failed
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
use super::{
    Admitted, Attending, Beat, Change, Changes, Cursor, Door, DoorError, InLine, Kept, Lease, Opened, Opening, Place,
    Renewal, Seat, Standing, Terms, Tick, millis,
};
use crate::ids::SiteId;
use crate::museum::Mutant;
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
    Open(Opening, Terms, oneshot::Sender<Opened>),
    Renew(Vec<Renewal>, oneshot::Sender<Vec<Standing>>),
    Attend(Vec<Attending>, oneshot::Sender<Vec<Option<Place>>>),
    Close(Seat, oneshot::Sender<bool>),
    Leave(Place, oneshot::Sender<bool>),
    LookUp(Seat, oneshot::Sender<Standing>),
    Changes(Cursor, oneshot::Sender<Changes>),
    Line(oneshot::Sender<Vec<InLine>>),
    Admit(Terms, oneshot::Sender<Admitted>),
    Tick(Beat, oneshot::Sender<Tick>),
    Trim(Vec<(SiteId, u16)>, u64, oneshot::Sender<usize>),
    Live(oneshot::Sender<u32>),
    Occupancy(oneshot::Sender<Vec<(SiteId, u16)>>),
    Switches(oneshot::Sender<Kept>),
    Switch(u64, String, bool, oneshot::Sender<bool>),
}

impl EmbeddedDoor {
    /// Opens the file, or makes it, and starts the thread. Every seat in the file counts as renewed now, every
    /// place as due. Blocks while the file is read.
    pub fn open(path: &Path, lease: Lease, clock: impl Clock) -> Result<Self, DoorFileError> {
        let unreadable = |why: String| DoorFileError::Unreadable { path: path.to_owned(), why };
        let nonce = getrandom::u64().map_err(|error| unreadable(format!("no random numbers: {error}")))?;
        let (file, (gate, mut sites)) = DoorFile::open(path)?;
        if Mutant::PlacesNotKept.is_on() {
            sites.iter_mut().for_each(|(_, here)| here.places.clear());
        }
        let (calls, queue) = mpsc::channel(QUEUE);
        let keeper = Keeper {
            limiter: Limiter::new(lease, gate, sites),
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
    async fn open(&self, opening: Opening, terms: Terms) -> Result<Opened, DoorError> {
        self.ask(|answer| Call::Open(opening, terms, answer)).await
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Standing>, DoorError> {
        self.ask(|answer| Call::Renew(renewals.to_vec(), answer)).await
    }

    async fn attend(&self, attending: &[Attending]) -> Result<Vec<Option<Place>>, DoorError> {
        self.ask(|answer| Call::Attend(attending.to_vec(), answer)).await
    }

    async fn close(&self, seat: Seat) -> Result<bool, DoorError> {
        self.ask(|answer| Call::Close(seat, answer)).await
    }

    async fn leave(&self, place: Place) -> Result<bool, DoorError> {
        self.ask(|answer| Call::Leave(place, answer)).await
    }

    async fn look_up(&self, seat: Seat) -> Result<Standing, DoorError> {
        self.ask(|answer| Call::LookUp(seat, answer)).await
    }

    async fn changes(&self, after: Cursor) -> Result<Changes, DoorError> {
        self.ask(|answer| Call::Changes(after, answer)).await
    }

    async fn line(&self) -> Result<Vec<InLine>, DoorError> {
        self.ask(Call::Line).await
    }

    async fn admit(&self, terms: Terms) -> Result<Admitted, DoorError> {
        self.ask(|answer| Call::Admit(terms, answer)).await
    }

    async fn tick(&self, beat: Beat) -> Result<Tick, DoorError> {
        self.ask(|answer| Call::Tick(beat, answer)).await
    }

    async fn trim(&self, caps: &[(SiteId, u16)], version: u64) -> Result<usize, DoorError> {
        self.ask(|answer| Call::Trim(caps.to_vec(), version, answer)).await
    }

    async fn live(&self) -> Result<u32, DoorError> {
        self.ask(Call::Live).await
    }

    async fn occupancy(&self) -> Result<Vec<(SiteId, u16)>, DoorError> {
        self.ask(Call::Occupancy).await
    }

    async fn switches(&self) -> Result<Kept, DoorError> {
        self.ask(Call::Switches).await
    }

    async fn switch(&self, version: u64, document: &str, new_ramp: bool) -> Result<bool, DoorError> {
        self.ask(|answer| Call::Switch(version, document.to_owned(), new_ramp, answer)).await
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

/// What must be written before answers leave.
#[derive(Default)]
struct Changed {
    sites: BTreeSet<SiteId>,
    /// Also where no site changed: the switches, or who came off the ramp.
    gate: bool,
}

impl<C: Clock> Keeper<C> {
    fn run(mut self, mut queue: mpsc::Receiver<Call>) {
        while let Some(first) = queue.blocking_recv() {
            let mut changed = Changed::default();
            let mut answers = vec![self.apply(first, &mut changed)];
            while answers.len() < GROUP
                && let Ok(call) = queue.try_recv()
            {
                answers.push(self.apply(call, &mut changed));
            }
            let rows = changed.sites.iter().filter_map(|site| Some((*site, self.limiter.site(site)?)));
            if (changed.gate || !changed.sites.is_empty())
                && let Err(error) = self.file.save(&self.limiter.gate(), rows)
            {
                tracing::error!(%error, "the door's file cannot be written; no session is opened until the service starts again");
                return;
            }
            for answer in answers {
                answer();
            }
        }
    }

    /// Applies one call to the limiter and says what must be written before it is answered.
    fn apply(&mut self, call: Call, changed: &mut Changed) -> Answer {
        match call {
            Call::Open(opening, terms, to) => {
                let (opened, changes) = self.limiter.open(opening, terms);
                if matches!(opened, Opened::Granted { .. }) {
                    changed.sites.insert(opening.site);
                }
                self.note(changes, changed);
                answer(to, opened)
            }
            Call::Renew(renewals, to) => answer(to, renewals.iter().map(|r| self.limiter.renew(r)).collect()),
            Call::Attend(attending, to) => {
                let mut places = Vec::with_capacity(attending.len());
                for attending in &attending {
                    let (place, changes) = self.limiter.attend(attending);
                    self.note(changes, changed);
                    places.push(place);
                }
                answer(to, places)
            }
            Call::Close(seat, to) => {
                let ended = self.limiter.close(&seat);
                self.note(ended, changed);
                answer(to, ended.is_some())
            }
            Call::Leave(place, to) => {
                let left = self.limiter.leave(&place);
                self.note(left, changed);
                answer(to, left.is_some())
            }
            Call::LookUp(seat, to) => answer(to, self.limiter.standing(&seat)),
            Call::Changes(after, to) => answer(to, self.log.after(after)),
            Call::Line(to) => answer(to, self.limiter.line()),
            Call::Admit(terms, to) => {
                let (admitted, changes) = self.limiter.admit(terms);
                self.note(changes, changed);
                answer(to, admitted)
            }
            Call::Tick(beat, to) => {
                let (tick, changes) = self.limiter.tick(millis(self.clock.monotonic()), beat);
                self.note(changes, changed);
                // Who has come off a ramp is no change at the door; a ramp is short, and a commit a second is cheap.
                changed.gate |= beat.ramp.is_some();
                answer(to, tick)
            }
            Call::Trim(caps, version, to) => {
                let mut trimmed = 0;
                for (site, cap) in caps {
                    let changes = self.limiter.trim(site, cap, version);
                    trimmed += changes.len();
                    self.note(changes, changed);
                }
                answer(to, trimmed)
            }
            Call::Live(to) => answer(to, u32::try_from(self.limiter.live()).unwrap_or(u32::MAX)),
            Call::Occupancy(to) => answer(to, self.limiter.occupancy()),
            Call::Switches(to) => answer(to, self.limiter.switches().clone()),
            Call::Switch(version, document, new_ramp, to) => {
                let switched = self.limiter.switch(version, &document, new_ramp);
                changed.gate |= switched.is_some();
                self.note(switched, changed);
                answer(to, switched.is_some())
            }
        }
    }

    /// Takes down what a call changed. Who is absent is not kept, so it need not be written.
    fn note(&mut self, changes: impl IntoIterator<Item = Change>, changed: &mut Changed) {
        for change in changes {
            changed.sites.extend(match change {
                Change::Ended(ended) => Some(ended.seat.site),
                Change::Admitted { seat, .. } => Some(seat.key.site),
                Change::Waits(place) => Some(place.key.site),
                Change::Left { key, .. } => Some(key.site),
                Change::Absent(_) | Change::Present(_) | Change::Switched => None,
            });
            self.log.push(change);
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
    kept: VecDeque<Change>,
}

impl ChangeLog {
    fn push(&mut self, change: Change) {
        self.number += 1;
        self.kept.push_back(change);
        if self.kept.len() > CHANGES_KEPT {
            self.kept.pop_front();
        }
    }

    fn after(&self, cursor: Cursor) -> Changes {
        let upto = Cursor::new(self.number, self.nonce);
        let missed = self.number.checked_sub(cursor.number).and_then(|missed| usize::try_from(missed).ok());
        match missed.and_then(|missed| self.kept.len().checked_sub(missed)) {
            Some(from) if cursor.nonce == self.nonce => {
                Changes { changes: self.kept.iter().skip(from).copied().collect(), upto, gap: false }
            }
            _ => Changes { changes: Vec::new(), upto, gap: true },
        }
    }
}
