//! A counter, for the program that a clerk sits in front of: it sells while the service can be reached, goes on as the operator has
//! said while it cannot, and makes up for it afterwards by itself.
//!
//! Whatever is sent has been written into the [journal](super::journal) before, with the id that it keeps, so that a terminal that
//! loses its power at any moment knows afterwards what to ask about. A sale of which nobody can say what became of it is not tried
//! again under another id. In an outage nobody waits: what is known to be away is not asked, and all that dials and calls over a
//! counter's connection together makes no more attempts than a tenth above the calls.
//!
//! ```no_run
//! use rationd::terminal::counter::{Answer, Counter, Settings};
//! use rationd::terminal::journal::{Buyer, Sale, WhenAway};
//!
//! # async fn sell() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::new("https://rationd.example:7420", "21000002".parse()?, "window-1".parse()?, "counter.journal");
//! let (counter, damage) = Counter::open(settings).await?;
//! if let Some(damage) = damage {
//!     eprintln!("{damage}");
//! }
//! let number = Buyer::Resident("770707-1928374".into());
//! let sale = Sale::in_person("kr-public-mask-2020".parse()?, number, 2);
//! match counter.sell(sale.clone()).await? {
//!     Answer::Approved(approved) => println!("sell; receipt {}", approved.receipt.mac),
//!     Answer::Refused(refused) => println!("do not sell: {}", refused.reasons[0].why),
//!     Answer::NotRequired { why, .. } => println!("sell freely: {why}"),
//!     // The service is away. The clerk sees what this terminal itself has sold to the number, and decides.
//!     Answer::Offline(offline) if offline.rule == WhenAway::SellAndRecord && offline.earlier.is_empty() => {
//!         counter.sell_offline(sale).await?;
//!     }
//!     Answer::Offline(_) => println!("nothing is sold at present"),
//!     // It was sent and not answered. If the goods are handed over, it keeps its id.
//!     Answer::Unknown { id, .. } => counter.hand_over(id).await?,
//!     Answer::NotYet(line) => println!("not yet: {line:?}"),
//!     Answer::Failed(error) => println!("{error}"),
//! }
//! // What was sold meanwhile goes up as soon as the service is back, and the list says what became of each.
//! for row in counter.today() {
//!     println!("{} {} {:?}", row.masked, row.quantity, row.stands);
//! }
//! # Ok(())
//! # }
//! ```

mod catch_up;
mod line;
mod shared;
mod told;
mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::{Before, Call, NOBODY_TO_ASK, Shared, held};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use told::Approval;
pub use told::{
    Answer, Approved, Checked, Held, Line, NotConfirmed, NotHandedOver, NotSold, NotTaken, Offline, Refused, Shown,
    Taken,
};

use super::journal::{
    Became, Buyer, Damage, Entry, Fact, Journal, NotOpened, NotWritten, Row, Sale, Stands, State, Todo, WhenAway,
};
use super::{CALL_TIMEOUT, CallError, Connection, Terminal, Tls, Unreachable, for_so_long};
use crate::grpc::v1;
use crate::ids::{ProgrammeId, RequestId, SiteId, TerminalId};
use crate::museum::Mutant;
use crate::time::{Clock, SystemClock, Timestamp};

/// How long a clerk waits for an answer before the service is taken for away.
const PATIENCE: Duration = Duration::from_secs(3);
/// Korea's, where this is for.
const UTC_OFFSET: Duration = Duration::from_secs(9 * 3_600);
const DAY: i64 = 86_400_000;
/// For what the service takes a sale back neither now nor later.
const NEVER_TAKEN: [&str; 2] = ["INVALID_REQUEST", "BUYER_RECORD_FULL"];

/// Where a counter calls, who it is, and where it keeps its journal.
#[derive(Clone)]
pub struct Settings {
    /// `http://127.0.0.1:7420`, or `https://…` with TLS.
    pub address: String,
    /// Whom to trust and who to be on an `https://` address.
    pub tls: Option<Tls>,
    /// The site's code.
    pub site: SiteId,
    /// The terminal's name within its site.
    pub terminal: TerminalId,
    /// The journal's file. Its lock, and what was found damaged, stand beside it.
    pub journal: PathBuf,
    /// The file of the journal's key.
    pub key: PathBuf,
    /// How long a sale waits for an answer; then the service is taken for away.
    pub patience: Duration,
    /// How far the clocks at this counter are before UTC: [`Counter::today`] begins at their midnight.
    pub utc_offset: Duration,
    /// What sales offline are dated by.
    pub clock: SystemClock,
}

impl Settings {
    /// With the key beside the journal (`.key` behind its name), and the usual rest.
    pub fn new(address: &str, site: SiteId, terminal: TerminalId, journal: impl Into<PathBuf>) -> Self {
        let journal = journal.into();
        let mut key = journal.clone().into_os_string();
        key.push(".key");
        Self {
            address: address.to_owned(),
            tls: None,
            site,
            terminal,
            journal,
            key: key.into(),
            patience: PATIENCE,
            utc_offset: UTC_OFFSET,
            clock: SystemClock::real(),
        }
    }
}

/// Why a counter cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpen {
    /// Its journal cannot.
    #[error(transparent)]
    Journal(#[from] NotOpened),
    /// The address is none, or the certificates are not.
    #[error(transparent)]
    Address(#[from] Unreachable),
    /// The task that opened it was broken off.
    #[error("the journal was not opened: {0}")]
    BrokenOff(String),
}

/// A counter that is open. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub struct Counter {
    shared: Arc<Shared>,
    over: CancellationToken,
    _ends_with_the_last: Arc<DropGuard>,
}

impl Counter {
    /// Opens the journal and begins to call the service, which may be away. Says what was wrong with the journal, if anything was.
    pub async fn open(settings: Settings) -> Result<(Self, Option<Damage>), NotOpen> {
        let Settings { address, tls, site, terminal, journal, key, patience, utc_offset, clock } = settings;
        let connection = Connection::lazy(&address, tls.as_ref())?;
        let opened = spawn_blocking(move || Journal::open(&journal, &key, (site, terminal), clock.now())).await;
        let (journal, damage) = opened.map_err(|error| NotOpen::BrokenOff(error.to_string()))??;
        let line = Line::Connecting;
        let shown = Shown { line, why: None, waiting: 0, unresolved: 0, to_mend: 0, trouble: None };
        let shared = Arc::new(Shared {
            terminal: Terminal::on(&connection, site, terminal),
            address,
            tls,
            site,
            journal: Arc::new(journal),
            tasks: TaskTracker::new(),
            patience,
            utc_offset,
            clock,
            seated: Mutex::default(),
            under_way: Mutex::default(),
            confirmations: AtomicU64::default(),
            shown: watch::Sender::new(shown),
        });
        shared.refresh();
        let over = CancellationToken::new();
        shared.tasks.spawn(over.clone().run_until_cancelled_owned(line::keep(shared.clone())));
        shared.tasks.spawn(over.clone().run_until_cancelled_owned(catch_up::keep(shared.clone())));
        Ok((Self { shared, _ends_with_the_last: Arc::new(over.clone().drop_guard()), over }, damage))
    }

    /// What a screen shows, whenever it changes.
    pub fn shown(&self) -> watch::Receiver<Shown> {
        self.shared.shown.subscribe()
    }

    /// This terminal's sales since midnight, oldest first, with what became of each; and older ones that wait for their upload or for
    /// a person.
    pub fn today(&self) -> Vec<Row> {
        let offset = i64::try_from(self.shared.utc_offset.as_millis()).unwrap_or_default();
        let here = self.shared.clock.now().as_millis().saturating_add(offset);
        let midnight = here.div_euclid(DAY).saturating_mul(DAY).saturating_sub(offset);
        self.sales(Timestamp::from_millis(midnight))
    }

    /// This terminal's sales from an instant on, oldest first, and older ones that wait for their upload or for a person. It remembers
    /// those of eight days.
    pub fn sales(&self, since: Timestamp) -> Vec<Row> {
        self.shared.journal.read(|state| state.rows(since))
    }

    /// What the operator has said for a programme while the service is away; [`WhenAway::Stop`] where nothing was said.
    pub fn when_away(&self, programme: ProgrammeId) -> WhenAway {
        self.shared.journal.read(|state| state.when_away(programme))
    }

    /// What a sale would be answered now. Changes nothing, and needs no seat.
    pub async fn check(&self, sale: &Sale) -> Checked {
        let shared = &self.shared;
        let mut shown = shared.shown.subscribe();
        let known = timeout(shared.patience, shown.wait_for(|shown| shown.line != Line::Connecting)).await;
        let known = known.ok().and_then(Result::ok).map(|shown| shown.line.clone());
        let line = match known.unwrap_or_else(|| shared.was_waited_for()) {
            Line::Away => return Checked::Offline(shared.offline(sale)),
            line if !line.is_reached() => return Checked::NotYet(line),
            line => line,
        };
        let number = held(&shared.seated).number;
        shared.terminal.repeats.call();
        let answer = timeout(shared.patience, shared.terminal.check(wire::check(sale))).await;
        match answer.unwrap_or_else(|_| Err(CallError::Unknown("no answer in time".into()))) {
            Ok(mut response) if response.results.len() == 1 => {
                Checked::Answered(Box::new(response.results.pop().unwrap_or_default()))
            }
            Err(CallError::NotExecuted { reason, .. }) if NOBODY_TO_ASK.contains(&&*reason) => {
                shared.got_no_answer(number, &line, &reason);
                Checked::Offline(shared.offline(sale))
            }
            Err(error @ CallError::NotExecuted { .. }) => Checked::Failed(error),
            Err(CallError::Unknown(why)) => {
                shared.got_no_answer(number, &line, &why);
                Checked::Offline(shared.offline(sale))
            }
            Ok(_) => Checked::Failed(CallError::Unknown("an answer without a result".into())),
        }
    }

    /// Sells, or says why not. The answer is there within the patience of the settings, and at once where the service is known to be
    /// away.
    pub async fn sell(&self, sale: Sale) -> Result<Answer, NotWritten> {
        self.ask(sale, Call::Purchase).await
    }

    /// Holds units for somebody who comes back for them, as with a number ticket. Nothing is held while the service is away.
    pub async fn hold(&self, sale: Sale, span: Duration) -> Result<Answer<Held>, NotWritten> {
        self.ask(sale, |visit| Call::Hold(for_so_long(visit, span))).await
    }

    async fn ask<Yes: Approval>(
        &self,
        sale: Sale,
        call: impl FnOnce(v1::PurchaseRequest) -> Call,
    ) -> Result<Answer<Yes>, NotWritten> {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.patience;
        let (number, seat, ledger) = match shared.seat(deadline).await {
            Ok(seat) => seat,
            Err(line) => return Ok(self.without_seat(line, &sale)),
        };
        let id = RequestId::random();
        let call = call(wire::purchase(&sale, id, ledger));
        let _under_way = shared.goes_under_way(id);
        let asked = Fact::Asked { id, at: shared.clock.now(), ledger, sale: sale.clone() };
        let written = shared.write(move |_| Ok::<_, NotWritten>((vec![asked], ())));
        let heard = if Mutant::JournalWrittenAfterSending.is_on() {
            let heard = shared.ask((number, seat, ledger), &call, deadline).await;
            written.await?;
            heard
        } else {
            written.await?;
            shared.ask((number, seat, ledger), &call, deadline).await
        };
        // What is no answer to a new id is asked about.
        Ok(shared.tell(id, &sale, heard, &Before::Nothing).await.unwrap_or_else(|_| shared.unknown(id, &sale)))
    }

    /// Makes a hold a sale, when its buyer is there. Without an answer it can be done again: it is one sale. While the service is away
    /// it is [handed over](Self::hand_over) or not.
    pub async fn confirm(&self, id: RequestId) -> Result<Answer, NotConfirmed> {
        let shared = &self.shared;
        let deadline = Instant::now() + shared.patience;
        let (_, before, sale) = shared.journal.read(|state| held_under(state, id, 0))?;
        let seat = match (shared.seat(deadline).await, before) {
            (Ok(seat), _) => seat,
            (Err(Line::Away), Before::Unknown) => return Ok(shared.unknown(id, &sale)),
            (Err(line), _) => return Ok(self.without_seat(line, &sale)),
        };
        let under_way = shared.goes_under_way(id);
        let begun = shared.confirmations.fetch_add(1, Ordering::SeqCst) + 1;
        let decide =
            move |state: &State| Ok::<_, NotConfirmed>((vec![Fact::Confirming { id }], held_under(state, id, begun)?));
        let (call, before, sale) = shared.write(decide).await?;
        let heard = shared.ask(seat, &call, deadline).await;
        match shared.tell(id, &sale, heard, &before).await {
            Ok(answer) => {
                if matches!(answer, Answer::Unknown { .. }) {
                    // It may still arrive: to be told before that it is held would be no answer.
                    shared.tasks.spawn(self.over.clone().run_until_cancelled_owned(async move {
                        sleep(CALL_TIMEOUT).await;
                        drop(under_way);
                    }));
                }
                Ok(answer)
            }
            Err(over @ (Became::Released | Became::Voided | Became::NotRecorded | Became::NotYours)) => {
                shared.write_became(id, over.clone(), None).await?;
                Err(NotConfirmed::Over(over))
            }
            // No answer to a confirmation: it is asked about.
            Err(_) => Ok(shared.unknown(id, &sale)),
        }
    }

    fn without_seat<Yes>(&self, line: Line, sale: &Sale) -> Answer<Yes> {
        if line == Line::Away { Answer::Offline(self.shared.offline(sale)) } else { Answer::NotYet(line) }
    }

    /// Writes down a sale that is made because the service cannot be reached. It is uploaded as soon as it can be, under the id that
    /// this gives.
    pub async fn sell_offline(&self, sale: Sale) -> Result<RequestId, NotSold> {
        if self.shared.shown.borrow().line != Line::Away {
            return Err(NotSold::NotAway);
        }
        let (id, now) = (RequestId::random(), self.shared.clock.now());
        let decide = move |state: &State| match state.when_away(sale.programme) {
            WhenAway::Stop => Err(NotSold::Stopped),
            WhenAway::SellAndRecord => Ok((vec![Fact::SoldOffline { id, at: dated(state, now), sale }], id)),
        };
        self.shared.write(decide).await
    }

    /// Writes down that a purchase was handed over although nobody could say what became of it, or what was held although it could
    /// not be confirmed. It keeps its id, so that it is one sale whether it had been recorded or not.
    pub async fn hand_over(&self, id: RequestId) -> Result<(), NotHandedOver> {
        let (now, is_away) = (self.shared.clock.now(), self.shared.shown.borrow().line == Line::Away);
        self.shared.write(move |state| Ok((hand_over(state, id, now, is_away)?, ()))).await
    }

    /// Takes a sale back. One that was made offline, and of which the service has not heard, is never uploaded.
    pub async fn void(&self, id: RequestId) -> Result<Taken, NotTaken> {
        self.take_back(id, None).await
    }

    /// The same, with the number that it was sold to: the journal keeps no number longer than an hour.
    pub async fn void_by_number(&self, id: RequestId, buyer: Buyer) -> Result<Taken, NotTaken> {
        self.take_back(id, Some(buyer)).await
    }

    async fn take_back(&self, id: RequestId, buyer: Option<Buyer>) -> Result<Taken, NotTaken> {
        let shared = &self.shared;
        let entry = match shared.write(move |state| take_back(state, id, buyer)).await? {
            Ok(entry) => entry,
            Err(taken) => return Ok(taken),
        };
        // One that is just being made is taken back after that.
        if entry.todo() != Some(Todo::Void) || shared.is_under_way(id) || !shared.shown.borrow().line.is_reached() {
            return Ok(Taken::BackLater);
        }
        shared.terminal.repeats.call();
        match timeout(shared.patience, catch_up::take_back(shared, &entry)).await {
            Ok(Ok(Some(Became::Voided | Became::Released | Became::NotRecorded))) => {
                shared.write(move |_| Ok::<_, NotTaken>((vec![Fact::Voided { id }], Taken::Back))).await
            }
            Ok(answer) => never_taken(answer).map_or(Ok(Taken::BackLater), |why| Err(NotTaken::NotSold(why))),
            Err(_) => Ok(Taken::BackLater),
        }
    }

    /// Ends it for all clones, and gives the seat back. What is not settled is settled the next time.
    pub async fn close(self) {
        self.over.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let seat = held(&self.shared.seated).seat.take();
        if let Some((seat, _)) = seat {
            let _ = timeout(self.shared.patience, seat.close()).await;
        }
    }
}

/// Why a sale is not taken back later either; `None`: it may be.
fn never_taken(answer: Result<Option<Became>, CallError>) -> Option<Stands> {
    match answer {
        Ok(Some(Became::NotYours)) => Some(Stands::Became(Became::NotYours)),
        Err(CallError::NotExecuted { reason, .. }) if NEVER_TAKEN.contains(&&*reason) => {
            Some(Stands::Became(Became::NotExecuted(reason)))
        }
        _ => None,
    }
}

/// What makes this hold a sale, how it stands when this many confirmations have begun, and what is held.
fn held_under(state: &State, id: RequestId, begun: u64) -> Result<(Call, Before, Sale), NotConfirmed> {
    let entry = state.get(id).ok_or(NotConfirmed::NotOurs(id))?;
    let before = match entry.stands() {
        Stands::Became(held @ Became::Held { .. }) => Before::Held(held, begun),
        Stands::Unknown if entry.was_held() => Before::Unknown,
        stands => return Err(NotConfirmed::NotHeld(stands)),
    };
    let (hold, sale) = wire::confirm(entry).zip(entry.sale.clone()).ok_or(NotConfirmed::NumberGone)?;
    Ok((Call::Confirm(hold), before, sale))
}

/// When a sale offline is made. No sale comes before one that is written down already: the clock has gone back, and is not believed.
fn dated(state: &State, now: Timestamp) -> Timestamp {
    state.newest().map_or(now, |newest| newest.max(now))
}

/// What is written down of a purchase that was handed over. Whatever the service has said meanwhile, the goods are gone: unless the
/// sale stands there, it is entered late under its id.
fn hand_over(state: &State, id: RequestId, now: Timestamp, is_away: bool) -> Result<Vec<Fact>, NotHandedOver> {
    let entry = state.get(id).ok_or(NotHandedOver::NotAsked(id))?;
    match (entry.stands(), &entry.sale) {
        // It is the service that says whether it still is.
        (held @ Stands::Became(Became::Held { .. }), _) if !is_away => Err(NotHandedOver::Known(held)),
        // Handed over twice is handed over.
        (Stands::Waits, _) => Ok(Vec::new()),
        (
            Stands::Unknown
            | Stands::Became(
                Became::Held { .. }
                | Became::Refused(_)
                | Became::Released
                | Became::Voided
                | Became::NotRecorded
                | Became::NotYours,
            ),
            Some(sale),
        ) => match state.when_away(entry.programme) {
            WhenAway::Stop => Err(NotHandedOver::Stopped),
            WhenAway::SellAndRecord => Ok(vec![Fact::SoldOffline { id, at: dated(state, now), sale: sale.clone() }]),
        },
        (stands, _) => Err(NotHandedOver::Known(stands)),
    }
}

/// What is written down to take a sale back, and either the sale of which the service must be told, or that it need not.
fn take_back(
    state: &State,
    id: RequestId,
    buyer: Option<Buyer>,
) -> Result<(Vec<Fact>, Result<Entry, Taken>), NotTaken> {
    let entry = state.get(id).ok_or(NotTaken::NotOurs(id))?;
    match entry.stands() {
        Stands::Voided => return Ok((Vec::new(), Err(Taken::Back))),
        Stands::Withdrawn => return Ok((Vec::new(), Err(Taken::BackUnseen))),
        Stands::Waits if entry.asked.is_none() && !entry.uploading => {
            return Ok((vec![Fact::Withdrawn { id }], Err(Taken::BackUnseen)));
        }
        stands @ Stands::Became(
            Became::Refused(_)
            | Became::NotRequired
            | Became::Released
            | Became::Voided
            | Became::NotRecorded
            | Became::NotExecuted(_)
            | Became::NotYours,
        ) => return Err(NotTaken::NotSold(stands)),
        Stands::Unknown
        | Stands::Waits
        | Stands::Uploaded(_)
        | Stands::Voiding
        | Stands::Became(Became::Sold | Became::Held { .. }) => {}
    }
    match &buyer {
        None if entry.sale.is_none() => return Err(NotTaken::NumberGone),
        Some(buyer) if !state.was_bought_by(entry, buyer) => return Err(NotTaken::OtherNumber),
        _ => {}
    }
    let mut wanted = entry.clone();
    wanted.take_back(buyer.clone());
    Ok((vec![Fact::VoidWanted { id, buyer }], Ok(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LedgerId;
    use crate::terminal::journal::Verdict;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_583_884_800_000 + seconds * 1_000)
    }

    fn ledger(nth: u8) -> LedgerId {
        LedgerId::from_bytes([nth + 1; 16]).unwrap()
    }

    fn id() -> RequestId {
        RequestId::from_bytes([7; 16]).unwrap()
    }

    fn sale() -> Sale {
        Sale::in_person("kr-public-mask-2020".parse().unwrap(), Buyer::Resident("770707-1928374".into()), 2)
    }

    fn told(nth: u8) -> Fact {
        Fact::Told { ledger: ledger(nth), when_away: vec![(sale().programme, WhenAway::SellAndRecord)] }
    }

    fn asked() -> Fact {
        Fact::Asked { id: id(), at: at(0), ledger: ledger(0), sale: sale() }
    }

    /// What a journal of these facts comes to.
    fn after(facts: Vec<Fact>) -> State {
        let directory = tempfile::tempdir().unwrap();
        let [journal, key] = ["journal", "key"].map(|name| directory.path().join(name));
        let whose = ("21000002".parse().unwrap(), "window-1".parse().unwrap());
        let (journal, _) = Journal::open(&journal, &key, whose, at(0)).unwrap();
        journal.write::<_, NotWritten>(|_| Ok((facts, ()))).unwrap();
        journal.read(State::clone)
    }

    #[test]
    fn what_was_handed_over_is_entered_unless_the_sale_stands() {
        let became = |what| Fact::Became { id: id(), what, masked: None };
        let refused = Became::Refused(vec!["QUOTA_EXHAUSTED".into()]);
        let held = Became::Held { until: at(60) };
        for what in [held, refused, Became::Released, Became::Voided, Became::NotRecorded, Became::NotYours] {
            let state = after(vec![told(0), asked(), became(what)]);
            assert!(hand_over(&state, id(), at(5), true).is_ok_and(|facts| facts.len() == 1));
        }
        for what in [Became::Sold, Became::NotRequired, Became::NotExecuted("OVERLOADED".into())] {
            let state = after(vec![told(0), asked(), became(what.clone())]);
            assert!(hand_over(&state, id(), at(5), true).err() == Some(NotHandedOver::Known(Stands::Became(what))));
        }
    }

    #[test]
    fn a_sale_offline_is_dated_no_earlier_than_what_is_written_down() {
        let later = Fact::SoldOffline { id: id(), at: at(9), sale: sale() };
        assert_eq!([5, 20].map(|now| dated(&after(vec![asked(), later.clone()]), at(now))), [at(9), at(20)]);
        assert_eq!(dated(&after(Vec::new()), at(5)), at(5));
    }

    #[test]
    fn a_definite_no_is_not_promised_for_later() {
        let no = |reason: &str| {
            let (reason, message) = (reason.to_owned(), String::new());
            never_taken(Err(CallError::NotExecuted { reason, message, retry_after: None }))
        };
        let why = |reason: &str| Some(Stands::Became(Became::NotExecuted(reason.into())));
        for reason in NEVER_TAKEN {
            assert_eq!(no(reason), why(reason));
        }
        assert_eq!(["DEADLINE_PASSED", "STORE_UNAVAILABLE", "OTHER_LEDGER"].map(no), [None, None, None]);
        assert_eq!(never_taken(Err(CallError::Unknown("silent".into()))), None);
        assert_eq!(never_taken(Ok(Some(Became::NotYours))), Some(Stands::Became(Became::NotYours)));
    }

    #[test]
    fn what_was_uploaded_is_taken_back_under_any_ledger() {
        let sold = || Fact::SoldOffline { id: id(), at: at(1), sale: sale() };
        let judged = Fact::Judged { id: id(), verdict: Verdict::Recorded };
        let ledger_of = |state: &State| wire::void(state.get(id()).unwrap()).unwrap().ledger_id;
        assert_eq!(ledger_of(&after(vec![asked(), sold()])), ledger(0).to_string());
        assert_eq!(ledger_of(&after(vec![asked(), sold(), judged])), "");
    }
}
