//! Sends what is to be sent when it is to be sent: the loop of one process.
//!
//! The timetable of an open loop waits for no answer, and a call's latency counts from the time that the timetable names. So a
//! service that stands still for a second is seen to have done so by everybody who came in that second.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counter::{Counter, Matter};
use super::history::{Asked, Outcome, Verb};
use super::population::People;
use super::recorder::{Recorder, RunClock};
use super::run::Arrivals;
use super::scenario::Scenario;
use super::workload::{Course, Errand, Workload};
use crate::ids::{ProgrammeId, RequestId};

/// The pause before a terminal asks what became of a purchase whose answer did not come.
const ASK_AFTER: Duration = Duration::from_millis(250);

/// Which part of a run a process does: part `index` of `of`, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Counted from 0.
    pub index: u32,
    /// All of them.
    pub of: u32,
}

impl Part {
    /// The only one.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Every part of a run of so many.
    pub(super) fn all(of: u32) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    /// Whether thing number `ordinal` is this part's.
    pub(super) fn owns(self, ordinal: usize) -> bool {
        u32::try_from(ordinal % usize::try_from(self.of).unwrap_or(1)) == Ok(self.index)
    }
}

/// As `--worker` names it: `1/3` is the first of three.
impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", u64::from(self.index) + 1, self.of)
    }
}

/// How a run is told to end before its time. Clones end together.
#[derive(Clone, Default)]
pub struct Ending {
    /// Nothing more is sent; what is under way is waited for.
    pub enough: CancellationToken,
    /// What is under way is not waited for either, and is taken down as unknown.
    pub at_once: CancellationToken,
}

/// Everything that sends.
pub(super) struct Crew {
    pub(super) part: Part,
    pub(super) scenario: Scenario,
    pub(super) programme: ProgrammeId,
    /// By site, in the order of all sites: its counters, none at a site of another process.
    pub(super) counters: Vec<Vec<Arc<Counter>>>,
    pub(super) people: People,
    pub(super) recorder: Recorder,
    pub(super) clock: RunClock,
    pub(super) ending: Ending,
}

impl Crew {
    /// Sends everything and waits for the answers.
    pub(super) async fn run(self: &Arc<Self>) {
        let tasks = TaskTracker::new();
        match self.scenario.arrivals {
            Arrivals::Open(_) => self.run_open(&tasks).await,
            Arrivals::Closed { callers, think, length } => self.run_closed(&tasks, callers, think, length),
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn run_open(self: &Arc<Self>, tasks: &TaskTracker) {
        let workload = Workload::new(&self.scenario, self.counters.len());
        let room = Arc::new(Semaphore::new(usize::try_from(self.scenario.in_flight).unwrap_or(usize::MAX)));
        for (ordinal, at) in (0..).zip(workload.timetable()) {
            for errand in workload.errands(ordinal).filter(|errand| self.part.owns(errand.site)) {
                tokio::select! {
                    () = self.clock.sleep_until(at) => {}
                    () = self.ending.enough.cancelled() => return,
                }
                match room.clone().try_acquire_owned() {
                    Ok(permit) => drop(tasks.spawn(self.clone().one_of_many(errand, at, permit))),
                    Err(_) => self.recorder.not_sent(),
                }
            }
        }
    }

    async fn one_of_many(self: Arc<Self>, errand: Errand, at: Duration, permit: OwnedSemaphorePermit) {
        self.errand(errand, at).await;
        drop(permit);
    }

    /// Each caller is at a counter of this process, and goes on until the time is over.
    fn run_closed(self: &Arc<Self>, tasks: &TaskTracker, callers: u32, think: Duration, length: Duration) {
        let own: Vec<usize> = (0..self.counters.len()).filter(|site| self.part.owns(*site)).collect();
        let mine = (0..callers).filter(|caller| caller % self.part.of == self.part.index);
        for caller in mine {
            let (crew, own) = (self.clone(), own.clone());
            tasks.spawn(async move {
                let workload = Workload::new(&crew.scenario, own.len());
                let mut ordinal = u64::from(caller);
                while crew.clock.now() < length && !crew.ending.enough.is_cancelled() {
                    for mut errand in workload.errands(ordinal) {
                        errand.site = own.get(errand.site).copied().unwrap_or_default();
                        let now = crew.clock.now();
                        crew.errand(errand, now).await;
                    }
                    ordinal += u64::from(callers);
                    crew.pause(think).await;
                }
            });
        }
    }

    /// One person at one counter, with everything that follows.
    async fn errand(&self, errand: Errand, at: Duration) {
        let counters = self.counters.get(errand.site);
        let terminal = usize::try_from(errand.terminal).unwrap_or_default();
        let Some(counter) = counters.and_then(|counters| counters.get(terminal)) else { return };
        let matter = Matter {
            programme: self.programme,
            request: RequestId::random(),
            number: self.people.number(errand.buyer),
            quantity: errand.quantity,
            hold_for: self.scenario.holds.length,
        };
        let ask = |verb, at| self.ask(counter, verb, &matter, errand.buyer, at);
        let verb = if matches!(errand.course, Course::Sale | Course::Voided(_)) { Verb::Purchase } else { Verb::Hold };
        let again = async {
            if let Some(gap) = errand.again {
                self.clock.sleep_until(at + gap).await;
                ask(verb, at + gap).await;
            }
        };
        let (first, ()) = tokio::join!(ask(verb, at), again);
        let follows = match (&errand.course, &first) {
            (Course::Voided(after), Outcome::Approved { .. }) => Some((Verb::Void, *after)),
            (Course::Confirmed(after), Outcome::Held { .. }) => Some((Verb::Confirm, *after)),
            (Course::Released(after), Outcome::Held { .. }) => Some((Verb::Release, *after)),
            _ => None,
        };
        let mut last = first;
        if let Some((verb, after)) = follows
            && let Some(at) = self.pause(after).await
        {
            last = ask(verb, at).await;
        }
        if (errand.resolved || last.is_unknown())
            && let Some(at) = self.pause(ASK_AFTER).await
        {
            ask(Verb::Resolve, at).await;
        }
    }

    /// Waits and gives the time; `None` if the run is stopped meanwhile.
    async fn pause(&self, length: Duration) -> Option<Duration> {
        let until = self.clock.now() + length;
        tokio::select! {
            () = self.clock.sleep_until(until) => Some(until),
            () = self.ending.enough.cancelled() => None,
        }
    }

    /// Makes one call and takes it down.
    async fn ask(&self, counter: &Counter, verb: Verb, matter: &Matter, buyer: u64, intended: Duration) -> Outcome {
        self.recorder.offered();
        let sent = self.clock.now();
        let (outcome, replayed) = tokio::select! {
            answer = counter.ask(verb, matter) => answer,
            () = self.ending.at_once.cancelled() => (Outcome::Unknown("the run was stopped before an answer came".into()), false),
        };
        let answered = self.clock.now();
        let quantity = if matches!(verb, Verb::Purchase | Verb::Hold) { matter.quantity } else { 0 };
        self.recorder.take(Asked {
            request: matter.request,
            buyer,
            site: counter.site(),
            verb,
            quantity,
            intended,
            sent,
            answered,
            replayed,
            outcome: outcome.clone(),
        });
        outcome
    }
}
