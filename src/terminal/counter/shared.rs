//! What a counter and its tasks share, and how it asks.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem::discriminant;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic_types::StatusExt;

use super::told::Approval;
use super::{Answer, Line, Offline, Refused, Shown, wire};
use crate::grpc::v1::{self, purchase_result::Outcome};
use crate::ids::{LedgerId, RequestId, SiteId};
use crate::terminal::journal::{self, Became, Fact, Journal, NotWritten, Sale, Stands, State, Todo};
use crate::terminal::{CallError, DOMAIN, Seat, Terminal, Tls, chance, retry, was_not_sent};
use crate::time::{Clock, SystemClock};

/// What the service says whose store cannot be asked: it is as good as away.
pub(super) const NOBODY_TO_ASK: [&str; 3] = ["STORE_UNAVAILABLE", "REPLICAS_MISSING", "CLOCKS_APART"];
/// What it says to a session that is no more.
const SEAT_GONE: [&str; 4] = ["SESSION_REQUIRED", "SESSION_REPLACED", "SESSION_LOST", "SESSION_INVALID"];

/// What the counter and its tasks share.
pub(super) struct Shared {
    pub(super) terminal: Terminal,
    pub(super) address: String,
    pub(super) tls: Option<Tls>,
    pub(super) site: SiteId,
    pub(super) journal: Arc<Journal>,
    /// The counter's own, and what they write.
    pub(super) tasks: TaskTracker,
    pub(super) patience: Duration,
    pub(super) utc_offset: Duration,
    pub(super) clock: SystemClock,
    pub(super) seated: Mutex<Seated>,
    /// Purchases that are being made, each as often as it is: to ask about one would close its id before it arrives, or be answered
    /// before it has.
    pub(super) under_way: Mutex<HashMap<RequestId, u32>>,
    /// How many confirmations have begun: what was asked before one of them says nothing of it.
    pub(super) confirmations: AtomicU64,
    pub(super) shown: watch::Sender<Shown>,
}

/// What the service has nothing to say about, in this session: no upload is ever among it.
pub(super) type Hopeless = HashSet<(Todo, RequestId)>;

/// The seats that it has had.
#[derive(Default)]
pub(super) struct Seated {
    /// How many.
    pub(super) number: u64,
    /// The last of them, if it is still good.
    pub(super) seat: Option<(Seat, LedgerId)>,
}

/// What is asked for one sale, with a seat.
pub(super) enum Call {
    Purchase(v1::PurchaseRequest),
    Hold(v1::HoldPurchaseRequest),
    Confirm(v1::ConfirmHoldRequest),
}

impl Call {
    async fn send(&self, seat: &Seat) -> Result<Vec<v1::PurchaseResult>, Status> {
        Ok(match self {
            Self::Purchase(visit) => seat.send_purchase(visit.clone()).await?.results,
            Self::Hold(visit) => seat.send_hold(visit.clone()).await?.results,
            Self::Confirm(hold) => seat.send_confirm(hold.clone()).await?.result.into_iter().collect(),
        })
    }
}

/// What is known of an id before a call is made under it.
pub(super) enum Before {
    /// It is new.
    Nothing,
    /// It is held so, when this many confirmations have begun.
    Held(Became, u64),
    /// A call was made under it, and nobody knows what became of that.
    Unknown,
}

/// What a call came to.
pub(super) enum Heard {
    Answer(Box<v1::PurchaseResult>),
    /// Nothing is recorded, because nobody could be asked: the reason.
    NobodyThere(String),
    NotExecuted(CallError),
    Unknown,
}

/// As long as this is there, nobody asks about the purchase.
pub(super) struct UnderWay(Arc<Shared>, RequestId);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = held(&self.0.under_way);
        if let Entry::Occupied(mut times) = under_way.entry(self.1) {
            *times.get_mut() -= 1;
            if *times.get() == 0 {
                times.remove();
            }
        }
        drop(under_way);
        refresh(&self.0.journal, &self.0.shown);
    }
}

/// Counts anew what the screen shows, and wakes whoever makes up for an outage.
fn refresh(journal: &Journal, shown: &watch::Sender<Shown>) {
    // Counted under its lock: no older count comes after a newer one.
    shown.send_modify(|shown| {
        (shown.waiting, shown.unresolved, shown.to_mend) =
            journal.read(|state| (state.waiting(), state.unresolved(), state.to_mend()));
    });
}

impl Shared {
    /// Writes down what is decided on how things stand. Broken off, it is written all the same.
    pub(super) async fn write<T, E>(
        &self,
        decide: impl FnOnce(&State) -> Result<(Vec<Fact>, T), E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<NotWritten> + Send + 'static,
    {
        let (journal, shown, now) = (self.journal.clone(), self.shown.clone(), self.clock.now());
        let written = self.tasks.spawn_blocking(move || {
            let mut is_written = false;
            let answer = journal.write::<T, Decided<E>>(|state| {
                let (facts, answer) = decide(state).map_err(Decided::No)?;
                is_written = !facts.is_empty();
                Ok((facts, answer))
            });
            let (answer, trouble) = match answer {
                Ok(answer) if is_written => (Ok(answer), Some(journal.tidy(now))),
                Ok(answer) => (Ok(answer), None),
                Err(Decided::No(error)) => (Err(error), None),
                Err(Decided::NotWritten(error)) => (Err(error.clone().into()), Some(Err(error))),
            };
            if let Some(trouble) = trouble {
                shown.send_modify(|shown| shown.trouble = trouble.err().map(|error| error.to_string()));
            }
            refresh(&journal, &shown);
            answer
        });
        written.await.unwrap_or_else(|error| {
            let error = NotWritten { path: PathBuf::new(), why: error.to_string() };
            self.shown.send_modify(|shown| shown.trouble = Some(error.to_string()));
            Err(error.into())
        })
    }

    /// What became of a purchase. If it cannot be written down, it will be asked for once more, and the screen shows the trouble.
    pub(super) async fn write_became(
        &self,
        id: RequestId,
        what: Became,
        echo: Option<v1::Echo>,
    ) -> Result<(), NotWritten> {
        let masked = wire::masked(echo);
        self.write(move |_| Ok((vec![Fact::Became { id, what, masked }], ()))).await
    }

    pub(super) fn refresh(&self) {
        refresh(&self.journal, &self.shown);
    }

    pub(super) fn show(&self, line: Line, why: Option<String>) {
        self.shown.send_modify(|shown| (shown.line, shown.why) = (line, why));
    }

    /// What is to be asked and taken back, but for purchases under way and what there is no hope for.
    pub(super) fn questions(&self, hopeless: &Hopeless) -> Vec<(Todo, journal::Entry)> {
        self.look_at_work(hopeless, |work| {
            work.filter(|(todo, _)| Todo::Upload != *todo).map(|(todo, entry)| (todo, entry.clone())).collect()
        })
    }

    pub(super) fn has_work(&self, hopeless: &Hopeless) -> bool {
        self.look_at_work(hopeless, |work| work.next().is_some())
    }

    fn look_at_work<T>(
        &self,
        hopeless: &Hopeless,
        look: impl FnOnce(&mut dyn Iterator<Item = (Todo, &journal::Entry)>) -> T,
    ) -> T {
        let under_way = held(&self.under_way).clone();
        let is_free = |todo, id| !under_way.contains_key(&id) && !hopeless.contains(&(todo, id));
        self.journal.read(|state| look(&mut state.todo().filter(|(todo, entry)| is_free(*todo, entry.id))))
    }

    pub(super) fn goes_under_way(self: &Arc<Self>, id: RequestId) -> UnderWay {
        *held(&self.under_way).entry(id).or_default() += 1;
        UnderWay(self.clone(), id)
    }

    pub(super) fn is_under_way(&self, id: RequestId) -> bool {
        held(&self.under_way).contains_key(&id)
    }

    /// It may sell.
    pub(super) fn has_seat(&self, seat: Seat, ledger: LedgerId, slot: u32) -> u64 {
        let mut seated = held(&self.seated);
        seated.number += 1;
        seated.seat = Some((seat, ledger));
        self.show(Line::Selling { slot }, None);
        seated.number
    }

    /// It may not.
    pub(super) fn has_no_seat(&self, line: Line, why: Option<String>) {
        held(&self.seated).seat = None;
        self.show(line, why);
    }

    /// The seat of this number is no good, unless it has another by now.
    pub(super) fn lost(&self, number: u64, line: Line, why: &str) {
        let mut seated = held(&self.seated);
        if seated.number == number && seated.seat.take().is_some() {
            self.show(line, Some(why.to_owned()));
        }
    }

    /// Somebody got no answer who needs no seat, while the line stood so.
    pub(super) fn got_no_answer(&self, number: u64, line: &Line, why: &str) {
        let mut seated = held(&self.seated);
        if seated.number == number && discriminant(&self.shown.borrow().line) == discriminant(line) {
            seated.seat = None;
            self.show(Line::Away, Some(why.to_owned()));
        }
    }

    /// A seat to sell with, or how the line stands. Whoever is connecting is waited for.
    pub(super) async fn seat(&self, deadline: Instant) -> Result<(u64, Seat, LedgerId), Line> {
        let mut shown = self.shown.subscribe();
        loop {
            let line = shown.borrow_and_update().line.clone();
            match line {
                Line::Connecting => {}
                Line::Selling { .. } => {
                    let seated = held(&self.seated);
                    if let Some((seat, ledger)) = &seated.seat {
                        return Ok((seated.number, seat.clone(), *ledger));
                    }
                }
                line => return Err(line),
            }
            if timeout_at(deadline, shown.changed()).await.is_err() {
                return Err(self.was_waited_for());
            }
        }
    }

    /// Whoever is still connecting then is taken for away.
    pub(super) fn was_waited_for(&self) -> Line {
        self.shown.send_if_modified(|shown| {
            let is_silent = shown.line == Line::Connecting;
            if is_silent {
                (shown.line, shown.why) = (Line::Away, Some("no answer in time".into()));
            }
            is_silent
        });
        self.shown.borrow().line.clone()
    }

    /// What a clerk is told while nobody can be asked.
    pub(super) fn offline(&self, sale: &Sale) -> Offline {
        self.journal.read(|state| Offline {
            rule: state.when_away(sale.programme),
            earlier: state.earlier(sale.programme, &sale.buyer),
        })
    }

    /// Makes a call, and makes it again under the same id as far as the deadline and the budget go.
    pub(super) async fn ask(
        &self,
        (mut number, mut seat, ledger): (u64, Seat, LedgerId),
        call: &Call,
        deadline: Instant,
    ) -> Heard {
        self.terminal.repeats.call();
        let mut was_unknown = false;
        for nth in 0.. {
            let (error, is_there) = match timeout_at(deadline, call.send(&seat)).await {
                Ok(Ok(mut results)) if results.len() == 1 => {
                    return Heard::Answer(Box::new(results.pop().unwrap_or_default()));
                }
                Ok(Ok(_)) => (CallError::Unknown("an answer without a result".into()), true),
                Ok(Err(status)) if was_not_sent(&status) && !was_unknown => {
                    self.lost(number, Line::Away, status.message());
                    return Heard::NobodyThere("NOT_CONNECTED".into());
                }
                Ok(Err(status)) => {
                    let is_ours = |info: &tonic_types::ErrorInfo| info.domain == DOMAIN;
                    let is_there = status.get_error_details().error_info().is_some_and(is_ours);
                    (CallError::from(status), is_there)
                }
                Err(_) => (CallError::Unknown("no answer in time".into()), false),
            };
            let again = match &error {
                CallError::NotExecuted { reason, .. } if SEAT_GONE.contains(&&**reason) => {
                    self.lost(number, Line::Connecting, reason);
                    match self.seat(deadline).await {
                        Ok(another) if another.2 == ledger => {
                            (number, seat, _) = another;
                            Some(Duration::ZERO)
                        }
                        _ => None,
                    }
                }
                _ => retry::pause(&error, nth, chance()).filter(|pause| Instant::now() + *pause < deadline),
            };
            was_unknown |= matches!(error, CallError::Unknown(_));
            let Some(pause) = again.filter(|_| self.terminal.repeats.repeat()) else {
                return match error {
                    // That the last attempt wrote nothing says nothing of the one before.
                    error if was_unknown => {
                        if !is_there {
                            self.lost(number, Line::Away, &error.to_string());
                        }
                        Heard::Unknown
                    }
                    CallError::NotExecuted { reason, .. } if NOBODY_TO_ASK.contains(&&*reason) => {
                        self.lost(number, Line::Away, &reason);
                        Heard::NobodyThere(reason)
                    }
                    error => Heard::NotExecuted(error),
                };
            };
            sleep(pause).await;
        }
        Heard::Unknown
    }

    /// Writes down what a call came to, and says it to the clerk. An answer that is none to such a call, or that is no longer true, is
    /// given back, and not written down.
    pub(super) async fn tell<Yes: Approval>(
        self: &Arc<Self>,
        id: RequestId,
        sale: &Sale,
        heard: Heard,
        before: &Before,
    ) -> Result<Answer<Yes>, Became> {
        let result = match heard {
            Heard::Unknown => return Ok(self.unknown(id, sale)),
            // That this attempt did nothing says nothing of one before it, or of another.
            Heard::NobodyThere(_) | Heard::NotExecuted(_) if !self.is_the_only_one(id, before) => {
                return Ok(self.unknown(id, sale));
            }
            // Without the purchase itself, which was not made.
            Heard::NobodyThere(reason) => {
                self.undone(id, before, reason).await;
                return Ok(Answer::Offline(self.offline(sale)));
            }
            Heard::NotExecuted(error) => {
                let reason = match &error {
                    CallError::NotExecuted { reason, .. } => reason.clone(),
                    CallError::Unknown(why) => why.clone(),
                };
                self.undone(id, before, reason).await;
                return Ok(Answer::Failed(error));
            }
            Heard::Answer(result) => result,
        };
        let became = wire::became(&result);
        let v1::PurchaseResult { outcome, standing, echo, .. } = *result;
        let Some((became, outcome)) = became.zip(outcome) else { return Ok(self.unknown(id, sale)) };
        let answer = match outcome {
            Outcome::Refused(v1::Refused { reasons }) => {
                Answer::Refused(Box::new(Refused { id, reasons, standing, echo: echo.clone() }))
            }
            Outcome::NotRequired(v1::NotRequired { why }) => Answer::NotRequired { id, why },
            outcome => match Yes::of(id, outcome, standing, echo.clone()) {
                Some(yes) => Answer::Approved(Box::new(yes)),
                None => return Err(became),
            },
        };
        // What the service has decided is true whether it can be written down or not; it will be asked once more.
        let _ = self.write_became(id, became, echo).await;
        // Somebody has taken it back while it was confirmed: it is not handed over.
        let is_taken_back = |state: &State| {
            state.get(id).is_some_and(|entry| matches!(entry.stands(), Stands::Voiding | Stands::Voided))
        };
        let is_wrong = matches!(answer, Answer::Approved(_)) && self.journal.read(is_taken_back);
        if is_wrong { Err(Became::Voided) } else { Ok(answer) }
    }

    fn is_the_only_one(&self, id: RequestId, before: &Before) -> bool {
        let times = held(&self.under_way).get(&id).copied().unwrap_or_default();
        !matches!(before, Before::Unknown) && times <= 1
    }

    /// Nothing was done. If that cannot be written down, it will be asked about.
    async fn undone(self: &Arc<Self>, id: RequestId, before: &Before, reason: String) {
        let _ = match before {
            Before::Held(held, begun) => self.settle(id, held.clone(), None, *begun).await,
            Before::Nothing | Before::Unknown => self.write_became(id, Became::NotExecuted(reason), None).await,
        };
    }

    /// What became of a purchase of which nobody has said so yet, as it was when this many confirmations had begun: one that has
    /// begun since may make it otherwise.
    pub(super) async fn settle(
        self: &Arc<Self>,
        id: RequestId,
        what: Became,
        echo: Option<v1::Echo>,
        begun: u64,
    ) -> Result<(), NotWritten> {
        let (shared, masked) = (self.clone(), wire::masked(echo));
        let decide = move |state: &State| {
            let is_open = state.get(id).is_some_and(|entry| entry.todo() == Some(Todo::Resolve));
            let is_so = is_open && shared.confirmations.load(Ordering::SeqCst) == begun;
            let fact = is_so.then_some(Fact::Became { id, what, masked });
            Ok((fact.into_iter().collect(), ()))
        };
        self.write(decide).await
    }

    pub(super) fn unknown<Yes>(&self, id: RequestId, sale: &Sale) -> Answer<Yes> {
        Answer::Unknown { id, offline: self.offline(sale) }
    }
}

/// Why a decision was not written down.
enum Decided<E> {
    No(E),
    NotWritten(NotWritten),
}

impl<E> From<NotWritten> for Decided<E> {
    fn from(error: NotWritten) -> Self {
        Self::NotWritten(error)
    }
}

/// What is under these locks is whole whenever they are free.
pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
