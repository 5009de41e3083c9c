//! A counter of a site as the harness works it: a terminal, its session for the whole of the run, and the calls it makes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::history::{Outcome, Verb};
use super::population::Number;
use crate::grpc::v1::{self, Refusal, purchase_result, purchase_stream_request::Call};
use crate::ids::{LedgerId, ProgrammeId, RequestId, SiteId};
use crate::terminal::{COMES_BACK_WITHIN, CallError, Gateway, Opened, Seat, Session, Terminal, instant};

/// Why a call was not made: the terminal has no session, or none any more.
pub(super) const NO_SESSION: &str = "NO_SESSION";
/// What a gateway says when its stream has ended before the call was sent.
const STREAM_ENDED: &str = "STREAM_ENDED";
/// A session that was lost or not given is asked for again at a moment that falls evenly into so long, as the first time at
/// every terminal.
///
/// Here it is so every time. A terminal stays away for longer the more often it fails, and pays for what it repeats; whoever did
/// that here would take its own absence for the service's: a run is given up after so long without a session.
pub(super) const RECONNECT: Duration = COMES_BACK_WITHIN;

/// One purchase, as every call about it names it.
pub struct Matter {
    /// Under which programme.
    pub programme: ProgrammeId,
    /// The purchase's own request id.
    pub request: RequestId,
    /// Who buys.
    pub number: Number,
    /// Units.
    pub quantity: u32,
    /// For how long a hold is made.
    pub hold_for: Duration,
}

/// The stream of the terminals that share a connection.
pub struct Lane {
    terminal: Terminal,
    gateway: tokio::sync::Mutex<Option<Gateway>>,
}

impl Lane {
    /// Over this terminal's connection. The stream is opened by the first call.
    pub(super) fn new(terminal: Terminal) -> Self {
        Self { terminal, gateway: tokio::sync::Mutex::new(None) }
    }

    /// The stream; a new one if there is none, or if the one there is has ended. Of the callers of a stream that ended the first
    /// opens another for all of them.
    async fn gateway(&self) -> Result<Gateway, CallError> {
        let mut gateway = self.gateway.lock().await;
        match &*gateway {
            Some(open) if !open.has_ended() => Ok(open.clone()),
            _ => Ok(gateway.insert(self.terminal.gateway().await?).clone()),
        }
    }

    async fn call(&self, token: &str, call: Call) -> Result<v1::PurchaseResult, CallError> {
        let answer = match self.gateway().await?.call(token, call.clone()).await {
            Err(CallError::NotExecuted { reason, .. }) if reason == STREAM_ENDED => {
                self.gateway().await?.call(token, call).await
            }
            answer => answer,
        };
        one(answer?)
    }
}

/// What a counter has while its session lives.
#[derive(Clone)]
pub(super) struct Open {
    seat: Seat,
    token: String,
    ledger: String,
}

/// How it went with a counter's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doorway {
    /// It is not open yet.
    Outside,
    /// It was let in after so long, at the first time.
    Admitted(Duration),
    /// Every seat of the site is taken.
    SiteFull,
}

/// A counter of a site.
pub struct Counter {
    site: SiteId,
    terminal: Terminal,
    /// Where calls travel on a stream.
    lane: Option<Arc<Lane>>,
    open: Mutex<Option<Open>>,
    doorway: Mutex<(Doorway, u64)>,
}

impl Counter {
    /// One that this terminal works; its calls travel on the lane, if there is one, and by themselves otherwise.
    pub fn new(site: SiteId, terminal: Terminal, lane: Option<Arc<Lane>>) -> Self {
        Self { site, terminal, lane, open: Mutex::new(None), doorway: Mutex::new((Doorway::Outside, 0)) }
    }

    /// The site's code.
    pub fn site(&self) -> SiteId {
        self.site
    }

    /// How it went with the session, and how many sessions were lost.
    pub(super) fn doorway(&self) -> (Doorway, u64) {
        *self.doorway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger that the session named.
    pub(super) fn ledger(&self) -> Option<LedgerId> {
        self.opened()?.ledger.parse().ok()
    }

    fn opened(&self) -> Option<Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, open: Option<Open>) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    /// Opens the session and keeps it, opening another when it is lost, until the run is over; then gives the seat back.
    /// `known` is let go when it is clear for the first time whether there is a session.
    pub(super) async fn keep_session(
        &self,
        stagger: Duration,
        mut chance: Chance,
        over: CancellationToken,
        known: tokio::sync::mpsc::Sender<()>,
    ) {
        let mut known = Some(known);
        let mut pause = stagger;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = over.cancelled() => return,
            }
            let asked = tokio::time::Instant::now();
            let opened = tokio::select! {
                opened = self.terminal.open_session() => opened,
                () = over.cancelled() => return,
            };
            pause = match opened {
                Ok(Opened::Admitted(session)) => {
                    self.admitted(&session, asked.elapsed());
                    known.take();
                    if self.hold(*session, &over).await {
                        return;
                    }
                    asks_again(None, &mut chance)
                }
                Ok(Opened::SiteFull(_)) => {
                    let mut doorway = self.doorway.lock().unwrap_or_else(PoisonError::into_inner);
                    if doorway.0 == Doorway::Outside {
                        doorway.0 = Doorway::SiteFull;
                    }
                    drop(doorway);
                    known.take();
                    return;
                }
                Ok(Opened::Shut(shut)) => asks_again(shut.retry_after.and_then(|it| it.try_into().ok()), &mut chance),
                Err(CallError::NotExecuted { retry_after, .. }) => asks_again(retry_after, &mut chance),
                Err(CallError::Unknown(_)) => asks_again(None, &mut chance),
            };
        }
    }

    /// Sells from now on with this session.
    pub fn admitted(&self, session: &Session, took: Duration) {
        let mut doorway = self.doorway.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(doorway.0, Doorway::Admitted(_)) {
            doorway.0 = Doorway::Admitted(took);
        }
        drop(doorway);
        let (token, ledger) = (session.admitted.session_token.clone(), session.admitted.ledger_id.clone());
        self.set(Some(Open { seat: session.seat(), token, ledger }));
    }

    /// Holds a session until it ends, or until the run is over. Says whether it is.
    async fn hold(&self, mut session: Session, over: &CancellationToken) -> bool {
        tokio::select! {
            () = over.cancelled() => {
                self.set(None);
                // The seat comes free by itself if this fails.
                let _ = session.close().await;
                true
            }
            // The first event after the admission is the last one.
            _ = session.events.message() => {
                self.set(None);
                self.doorway.lock().unwrap_or_else(PoisonError::into_inner).1 += 1;
                false
            }
        }
    }

    /// Makes a call and says what became of it, and whether the ledger knew the id already.
    pub async fn ask(&self, verb: Verb, matter: &Matter) -> (Outcome, bool) {
        let Some(open) = self.opened() else { return (Outcome::NotExecuted(NO_SESSION.into()), false) };
        let answer = self.send(verb, matter, &open).await;
        match answer.and_then(|result| outcome(result, matter, self.site, &open.ledger)) {
            Ok(answer) => answer,
            Err(CallError::NotExecuted { reason, .. }) => (Outcome::NotExecuted(reason), false),
            Err(CallError::Unknown(why)) => (Outcome::Unknown(why), false),
        }
    }

    async fn send(&self, verb: Verb, matter: &Matter, open: &Open) -> Result<v1::PurchaseResult, CallError> {
        let call = call(verb, matter, open.ledger.clone());
        match &self.lane {
            Some(lane) => lane.call(&open.token, call).await,
            None => self.call(&open.seat, call, matter.hold_for).await,
        }
    }

    /// A call by itself. Only selling and holding need the seat.
    async fn call(&self, seat: &Seat, call: Call, hold_for: Duration) -> Result<v1::PurchaseResult, CallError> {
        let result = match call {
            Call::CheckPurchase(look_up) => return one(self.terminal.check(look_up).await?.results),
            Call::Purchase(visit) => return one(seat.purchase(visit).await?.results),
            Call::HoldPurchase(v1::HoldPurchaseRequest { programme, lines, ledger_id, .. }) => {
                let visit = v1::PurchaseRequest { programme, lines, ledger_id, ..v1::PurchaseRequest::default() };
                return one(seat.hold(visit, hold_for).await?.results);
            }
            Call::ConfirmHold(hold) => seat.confirm(hold).await?.result,
            Call::ReleaseHold(hold) => self.terminal.release(hold).await?.result,
            Call::VoidPurchase(purchase) => self.terminal.void(purchase).await?.result,
            Call::GetPurchase(purchase) => self.terminal.resolve(purchase).await?.result,
        };
        one(result.into_iter().collect())
    }
}

/// How long a counter stays away that has no session: never shorter than the service asks, and never what others were told too.
pub(super) fn asks_again(told: Option<Duration>, chance: &mut Chance) -> Duration {
    match told {
        Some(after) => after.mul_f64(1.0 + chance.unit()),
        None => RECONNECT.mul_f64(chance.unit()),
    }
}

fn call(verb: Verb, matter: &Matter, ledger_id: String) -> Call {
    let (programme, request_id) = (matter.programme.to_string(), matter.request.to_string());
    let buyer = Some(matter.number.buyer());
    let line = || v1::Line {
        request_id: request_id.clone(),
        buyer: buyer.clone(),
        quantity: matter.quantity,
        ..v1::Line::default()
    };
    match verb {
        Verb::Purchase => {
            let lines = vec![line()];
            Call::Purchase(v1::PurchaseRequest { programme, lines, ledger_id, ..v1::PurchaseRequest::default() })
        }
        Verb::Hold => Call::HoldPurchase(v1::HoldPurchaseRequest {
            programme,
            lines: vec![line()],
            hold_for: prost_types::Duration::try_from(matter.hold_for).ok(),
            ledger_id,
            ..v1::HoldPurchaseRequest::default()
        }),
        Verb::Confirm => Call::ConfirmHold(v1::ConfirmHoldRequest { programme, buyer, request_id, ledger_id }),
        Verb::Release => Call::ReleaseHold(v1::ReleaseHoldRequest { programme, buyer, request_id, ledger_id }),
        Verb::Void => Call::VoidPurchase(v1::VoidPurchaseRequest { programme, buyer, request_id, ledger_id }),
        Verb::Resolve => Call::GetPurchase(v1::GetPurchaseRequest { programme, buyer, request_id, ledger_id }),
    }
}

/// The only result of a call about one person.
fn one(results: Vec<v1::PurchaseResult>) -> Result<v1::PurchaseResult, CallError> {
    results.into_iter().next().ok_or_else(|| CallError::Unknown("the service answered without a result".into()))
}

/// The fields of an answer that show that it belongs to another call; none if it belongs to this one.
fn differences(result: &v1::PurchaseResult, matter: &Matter, site: SiteId, ledger: &str) -> Vec<&'static str> {
    use purchase_result::Outcome as Told;
    let request = matter.request.to_string();
    let mut fields = vec![("request_id", result.request_id == request), ("ledger_id", result.ledger_id == ledger)];
    match &result.outcome {
        Some(
            Told::Approved(v1::Approved { receipt: Some(receipt) })
            | Told::AlreadySold(v1::AlreadySold { receipt: Some(receipt) }),
        ) => fields.extend([
            ("receipt.ledger_id", receipt.ledger_id == ledger),
            ("receipt.request_id", receipt.request_id == request),
            ("receipt.programme", receipt.programme == matter.programme.as_str()),
            ("receipt.site", receipt.site == site.as_str()),
            ("receipt.quantity", receipt.quantity == matter.quantity),
            ("receipt.late", !receipt.late),
        ]),
        Some(Told::Held(held)) => fields.push(("held.quantity", held.quantity == matter.quantity)),
        _ => {}
    }
    fields.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect()
}

/// From the wire's words to the history's, if they answer this call.
fn outcome(
    result: v1::PurchaseResult,
    matter: &Matter,
    site: SiteId,
    ledger: &str,
) -> Result<(Outcome, bool), CallError> {
    use purchase_result::Outcome as Told;
    let fields = differences(&result, matter, site, ledger);
    if !fields.is_empty() {
        return Ok((Outcome::OfAnother(fields.join(", ")), false));
    }
    let unknown = |why: &str| CallError::Unknown(why.into());
    let outcome = match result.outcome.ok_or_else(|| unknown("the service answered without an outcome"))? {
        Told::Approved(v1::Approved { receipt }) => {
            let at = receipt.as_ref().and_then(|receipt| receipt.sold_at.as_ref()).map(instant);
            Outcome::Approved { at: at.ok_or_else(|| unknown("the receipt has no time"))?.as_millis() }
        }
        Told::Held(held) => {
            let until = held.until.as_ref().map(instant);
            Outcome::Held { until: until.ok_or_else(|| unknown("the hold has no end"))?.as_millis() }
        }
        Told::Refused(refused) => {
            Outcome::Refused(refused.reasons.iter().map(|reason| name(reason.refusal())).collect())
        }
        Told::NotRequired(_) => Outcome::NotRequired,
        Told::Released(_) => Outcome::Released,
        Told::HoldExpired(_) => Outcome::HoldExpired,
        Told::Voided(_) => Outcome::Voided,
        Told::AlreadySold(_) => Outcome::AlreadySold,
        Told::NotFound(_) => Outcome::NotFound,
        Told::NotRecorded(_) => Outcome::NotRecorded,
        Told::NotYours(_) => Outcome::NotYours,
        Told::Failure(failure) => return Err(failure.into()),
        Told::MayBuy(_) => return Err(unknown("a look-up's answer came to a purchase")),
    };
    Ok((outcome, result.replayed))
}

fn name(refusal: Refusal) -> String {
    refusal.as_str_name().trim_start_matches("REFUSAL_").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::population::People;
    use purchase_result::Outcome as Told;

    #[test]
    fn counters_that_lost_the_same_instance_do_not_come_back_together() {
        let pauses = |told| (0..4_000).map(move |nth| asks_again(told, &mut Chance::of(1, "reconnects", nth)));
        let mut seconds = [0; 8];
        pauses(None).for_each(|pause| seconds[usize::try_from(pause.as_secs()).unwrap()] += 1);
        assert!(seconds.iter().all(|second| (400..600).contains(second)), "{seconds:?}");
        let asked = Duration::from_secs(30);
        assert!(pauses(Some(asked)).all(|pause| (asked..2 * asked).contains(&pause)));
    }

    #[test]
    fn an_answer_that_belongs_to_another_call_is_told_by_every_field() {
        let matter = Matter {
            programme: "load-canonical".parse().unwrap(),
            request: RequestId::random(),
            number: People::new(1).number(0),
            quantity: 2,
            hold_for: Duration::ZERO,
        };
        let (site, ledger): (SiteId, _) = ("LOAD00000".parse().unwrap(), "ledger");
        let result = |outcome| v1::PurchaseResult {
            request_id: matter.request.to_string(),
            ledger_id: ledger.into(),
            outcome: Some(outcome),
            ..v1::PurchaseResult::default()
        };
        let receipt = || v1::Receipt {
            ledger_id: ledger.into(),
            request_id: matter.request.to_string(),
            programme: matter.programme.to_string(),
            site: site.to_string(),
            quantity: 2,
            sold_at: Some(prost_types::Timestamp::default()),
            ..v1::Receipt::default()
        };
        let approved = |receipt| result(Told::Approved(v1::Approved { receipt: Some(receipt) }));
        let sold = |receipt| result(Told::AlreadySold(v1::AlreadySold { receipt: Some(receipt) }));
        let held = |quantity| result(Told::Held(v1::Held { quantity, until: Some(prost_types::Timestamp::default()) }));
        let told = |result| outcome(result, &matter, site, ledger).unwrap().0;
        let check = |result, field: &str| assert_eq!(told(result), Outcome::OfAnother(field.into()));
        let other = || RequestId::random().to_string();
        assert_eq!(told(approved(receipt())), Outcome::Approved { at: 0 });
        assert_eq!(told(sold(receipt())), Outcome::AlreadySold);
        assert_eq!(told(held(2)), Outcome::Held { until: 0 });
        assert_eq!(told(result(Told::NotFound(v1::NotFound {}))), Outcome::NotFound);
        check(v1::PurchaseResult { request_id: other(), ..held(1) }, "request_id, held.quantity");
        check(v1::PurchaseResult { request_id: other(), ..held(2) }, "request_id");
        check(v1::PurchaseResult { request_id: String::new(), ..held(2) }, "request_id");
        check(v1::PurchaseResult { ledger_id: other(), ..held(2) }, "ledger_id");
        check(held(1), "held.quantity");
        for (other, field) in [
            (v1::Receipt { ledger_id: other(), ..receipt() }, "receipt.ledger_id"),
            (v1::Receipt { request_id: other(), ..receipt() }, "receipt.request_id"),
            (v1::Receipt { programme: "load-morning".into(), ..receipt() }, "receipt.programme"),
            (v1::Receipt { site: "LOAD00001".into(), ..receipt() }, "receipt.site"),
            (v1::Receipt { quantity: 1, ..receipt() }, "receipt.quantity"),
            (v1::Receipt { late: true, ..receipt() }, "receipt.late"),
        ] {
            check(approved(other.clone()), field);
            check(sold(other), field);
        }
    }
}
