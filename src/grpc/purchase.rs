//! `PurchaseService`: convert the request, call the use case, convert the outcome. A call by itself and a call of a stream go
//! the same way but for who waits for them.
//!
//! A client that hangs up, or whose deadline passes, takes its call back if the store has not been asked yet; what the store
//! has been asked runs to its end there. A visit of several lines goes on to its last.

mod on_record;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::connections::Link;
use super::convert::{self, WireKnown, WireVisit};
use super::identity::{Callers, Credentials, Peer};
use super::manners::{Manners, Origin};
use super::status::{self, Fault};
use super::v1::{self, purchase_service_server::PurchaseService, purchase_stream_request::Call};
use crate::audit::Trail;
use crate::ids::ProgrammeId;
use crate::ledger::Ledger;
use crate::purchase::{Caller, Known, LineAnswer, Outcome, Prepared, Purchases};
use crate::session::{Door, Seat};
use crate::telemetry::metrics::{Metrics, Verb};
use crate::time::Clock;
use on_record::OnRecord;

/// How long a call of a stream waits for a place.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The service over the use cases of one ledger.
pub(super) struct PurchaseEdge<L, D, C> {
    pub(super) purchases: Purchases<L, C>,
    pub(super) callers: Arc<Callers<D, C>>,
    pub(super) tasks: TaskTracker,
    /// Calls of streams that are under way at once. They have places of their own: a stream always has a next call, and would
    /// leave no room to others.
    pub(super) streamed: Semaphore,
    /// Visits of several lines that are under way at once, whether or not their callers still wait for them.
    pub(super) visits: Arc<Semaphore>,
    /// What the sites have done lately.
    pub(super) manners: Arc<Manners<D, C>>,
    /// Where every access is put on record.
    pub(super) trail: Trail,
    pub(super) clock: C,
    pub(super) metrics: Arc<Metrics>,
}

/// A call of a known caller whose every field is good. What is left is to ask the ledger.
struct Ready {
    caller: Caller,
    /// Of a call that sells or holds.
    seat: Option<Seat>,
    programme: ProgrammeId,
    verb: Verb,
    act: Act,
}

/// What is asked of the use cases. Boxed: it is handed on from future to future, and thousands wait at once.
enum Act {
    Check(Box<Prepared>),
    Buy(Box<Prepared>),
    Confirm(Box<Known>),
    Release(Box<Known>),
    Void(Box<Known>),
    Resolve(Box<Known>),
}

impl Act {
    fn lines(&self) -> usize {
        match self {
            Self::Check(visit) | Self::Buy(visit) => visit.lines(),
            _ => 1,
        }
    }
}

impl<L: Ledger, D: Door, C: Clock> PurchaseEdge<L, D, C> {
    /// A call by itself. A visit of several lines that has begun goes on to its last line whoever still waits for it, so that
    /// nobody finds half a family served; every other call is one step of the store.
    async fn alone(self: &Arc<Self>, call: Call, who: Credentials<'_>) -> Result<Vec<v1::PurchaseResult>, Fault> {
        let Ready { caller, seat, programme, verb, act } = self.ready(call, who).await?;
        let peer = who.peer();
        let from = (caller.site, caller.place.channel);
        let answers = match act {
            act @ Act::Buy(_) if act.lines() > 1 => {
                let place = self.visits.clone().try_acquire_owned().map_err(|_| status::overloaded())?;
                let edge = Arc::clone(self);
                let work = async move {
                    let _place = place;
                    edge.ask(act, peer, &caller).await
                };
                self.tasks.spawn(work.in_current_span()).await.map_err(|_| status::broken())?
            }
            act => {
                // A stop that cannot wait for it says that something was under way.
                let _tracked = self.tasks.token();
                self.ask(act, peer, &caller).await
            }
        };
        self.results(answers, programme, verb, seat, from)
    }

    /// A call of a stream. It waits a while for a place: clients send as fast as they are read, and most are soon served.
    async fn streamed(
        &self,
        who: Credentials<'_>,
        request: v1::PurchaseStreamRequest,
    ) -> Result<Vec<v1::PurchaseResult>, Fault> {
        let place = timeout(LONGEST_WAIT, self.streamed.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or_else(status::overloaded)?;
        let v1::PurchaseStreamRequest { session_token, call, .. } = request;
        let call = call.ok_or_else(|| status::invalid(vec![status::BadField::new("call", "is required")]))?;
        let ready = self.ready(call, who.with_token(&session_token)).await?;
        let Ready { caller, seat, programme, verb, act } = ready;
        let answers = self.ask(act, who.peer(), &caller).await;
        self.results(answers, programme, verb, seat, (caller.site, caller.place.channel))
    }

    /// Everything that is looked at before the ledger is asked: who calls, and each field. The message with the number in it
    /// ends here.
    #[expect(clippy::manual_async_fn, reason = "an async function would keep the message twice")]
    fn ready(&self, call: Call, who: Credentials<'_>) -> impl Future<Output = Result<Ready, Fault>> + Send {
        async move {
            match &call {
                Call::CheckPurchase(wire) => {
                    let caller = self.callers.site(who)?;
                    let visit = self.prepare(&WireVisit {
                        with_ids: false,
                        ..WireVisit::of(&wire.programme, wire.agent.as_ref(), &wire.lines, &wire.family_birth_years)
                    })?;
                    self.manners.looks_up((caller.site, caller.place.channel), visit.lines())?;
                    Ok(Ready {
                        caller,
                        seat: None,
                        programme: visit.programme(),
                        verb: Verb::Check,
                        act: Act::Check(visit),
                    })
                }
                Call::Purchase(wire) => {
                    let (caller, seat) = self.callers.session(who).await?;
                    self.same_ledger(&wire.ledger_id)?;
                    let visit = self.prepare(&WireVisit::of(
                        &wire.programme,
                        wire.agent.as_ref(),
                        &wire.lines,
                        &wire.family_birth_years,
                    ))?;
                    Ok(Ready {
                        caller,
                        seat: Some(seat),
                        programme: visit.programme(),
                        verb: Verb::Purchase,
                        act: Act::Buy(visit),
                    })
                }
                Call::HoldPurchase(wire) => {
                    let (caller, seat) = self.callers.session(who).await?;
                    self.same_ledger(&wire.ledger_id)?;
                    let visit = self.prepare(&WireVisit {
                        hold_for: Some(wire.hold_for.as_ref()),
                        ..WireVisit::of(&wire.programme, wire.agent.as_ref(), &wire.lines, &wire.family_birth_years)
                    })?;
                    Ok(Ready {
                        caller,
                        seat: Some(seat),
                        programme: visit.programme(),
                        verb: Verb::Hold,
                        act: Act::Buy(visit),
                    })
                }
                Call::ConfirmHold(v1::ConfirmHoldRequest { programme, buyer, request_id, ledger_id }) => {
                    let (caller, seat) = self.callers.session(who).await?;
                    let known = self.known(&WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id })?;
                    Ok(Ready {
                        caller,
                        seat: Some(seat),
                        programme: known.programme(),
                        verb: Verb::Confirm,
                        act: Act::Confirm(known),
                    })
                }
                Call::ReleaseHold(v1::ReleaseHoldRequest { programme, buyer, request_id, ledger_id }) => {
                    let caller = self.callers.site(who)?;
                    let known = self.known(&WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id })?;
                    Ok(Ready {
                        caller,
                        seat: None,
                        programme: known.programme(),
                        verb: Verb::Release,
                        act: Act::Release(known),
                    })
                }
                Call::VoidPurchase(v1::VoidPurchaseRequest { programme, buyer, request_id, ledger_id }) => {
                    let caller = self.callers.site(who)?;
                    let known = self.known(&WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id })?;
                    Ok(Ready {
                        caller,
                        seat: None,
                        programme: known.programme(),
                        verb: Verb::Void,
                        act: Act::Void(known),
                    })
                }
                Call::GetPurchase(v1::GetPurchaseRequest { programme, buyer, request_id, ledger_id }) => {
                    let caller = self.callers.site(who)?;
                    let known = self.known(&WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id })?;
                    Ok(Ready {
                        caller,
                        seat: None,
                        programme: known.programme(),
                        verb: Verb::Resolve,
                        act: Act::Resolve(known),
                    })
                }
            }
        }
    }

    fn prepare(&self, wire: &WireVisit<'_>) -> Result<Box<Prepared>, Fault> {
        let (asked, mut bad) = convert::visit(wire);
        if let Some(asked) = asked {
            match self.purchases.prepare(&asked) {
                Ok(visit) if bad.is_empty() => return Ok(Box::new(visit)),
                Ok(_) => {}
                Err(more) => {
                    let more = more.into_iter().map(convert::bad_field);
                    // What follows from a field that could not be read is not told again.
                    let news: Vec<_> = more.filter(|m| bad.iter().all(|b| !b.path.starts_with(&m.path))).collect();
                    bad.extend(news);
                }
            }
        }
        Err(status::invalid(bad))
    }

    /// Who is told how somebody stands and does not sell to them has looked them up, whatever it was called. It is told all the
    /// same that it may not sell; whoever does it too often, no more than that.
    fn told(&self, answers: &mut [LineAnswer], verb: Verb, from: Origin) {
        if verb == Verb::Check {
            // That was counted before it was asked.
            let failed = answers.iter().filter(|answer| matches!(answer.outcome, Outcome::Failed(_))).count();
            return self.manners.give_back(from, failed);
        }
        let looks = |answer: &&mut LineAnswer| {
            let sells = matches!(answer.outcome, Outcome::Approved(_) | Outcome::AlreadySold(_));
            let holds = answer.replayed && matches!(answer.outcome, Outcome::Held(_));
            answer.standing.is_some() && !sells && !holds
        };
        let people = answers.iter_mut().filter(looks).count();
        if people > 0 && self.manners.looks_up(from, people).is_err() {
            answers.iter_mut().filter(looks).for_each(|answer| answer.standing = None);
        }
    }

    /// What a site's calls came to.
    fn came_to(&self, answers: &[LineAnswer], from: Origin) {
        let count = |is: fn(&Outcome) -> bool| answers.iter().filter(|a| !a.replayed && is(&a.outcome)).count();
        let sold = count(|outcome| matches!(outcome, Outcome::Approved(_)));
        let voided = count(|outcome| matches!(outcome, Outcome::Voided(_)));
        self.manners.came_to(from, sold, voided);
    }

    /// A request id means something only under the ledger that it was written down with.
    fn same_ledger(&self, wire: &str) -> Result<(), Fault> {
        let wanted = convert::ledger(wire).map_err(|bad| status::invalid(vec![bad]))?;
        match (wanted, self.purchases.ledger_id()) {
            (Some(wanted), Some(ours)) if wanted != ours => Err(status::other_ledger(ours)),
            (Some(_), None) => Err(status::ledger_away()),
            _ => Ok(()),
        }
    }

    /// What a call that follows a purchase names: the purchase, under this ledger.
    fn known(&self, wire: &WireKnown<'_>) -> Result<Box<Known>, Fault> {
        self.same_ledger(wire.ledger_id)?;
        let (programme, buyer, request) = convert::known(wire).map_err(status::invalid)?;
        self.purchases.prepare_known(programme, buyer, request).map(Box::new).map_err(convert::bad_fields)
    }

    /// Asks the ledger, and hands on what came of it to be put on record: the connection holds the answer until it is. Boxed: what
    /// waits for the store is then in pieces that an allocator hands out quickly.
    fn ask<'a>(&'a self, act: Act, peer: Peer, caller: &'a Caller) -> BoxFuture<'a, Vec<LineAnswer>> {
        Box::pin(async move {
            let on_record = OnRecord::new(&act, peer, caller, &self.trail, &self.clock);
            let answers = match act {
                Act::Check(visit) => self.purchases.check(&visit, caller).await,
                Act::Buy(visit) => self.purchases.buy(&visit, caller).await,
                Act::Confirm(known) => vec![self.purchases.confirm(*known, caller).await],
                Act::Release(known) => vec![self.purchases.release(*known, caller).await],
                Act::Void(known) => vec![self.purchases.void(*known, caller).await],
                Act::Resolve(known) => vec![self.purchases.resolve(*known, caller).await],
            };
            on_record.answered(&answers);
            answers
        })
    }

    /// The failure of a single line is the call's own error; of one among several it stands in its result.
    fn results(
        &self,
        mut answers: Vec<LineAnswer>,
        programme: ProgrammeId,
        verb: Verb,
        seat: Option<Seat>,
        from: Origin,
    ) -> Result<Vec<v1::PurchaseResult>, Fault> {
        for answer in &answers {
            self.count(answer, programme, verb);
        }
        self.came_to(&answers, from);
        self.told(&mut answers, verb, from);
        let sells = |answer: &LineAnswer| matches!(answer.outcome, Outcome::Approved(_));
        if let Some(seat) = seat.filter(|_| answers.iter().any(sells)) {
            self.callers.registry.sold(&seat);
        }
        match answers.as_slice() {
            [LineAnswer { outcome: Outcome::Failed(why), .. }] => Err(status::failure(why)),
            _ => {
                let ledger = self.purchases.ledger_id().map(|id| id.to_string()).unwrap_or_default();
                let result = |answer| convert::result(answer, ledger.clone(), |site| self.callers.district(site));
                Ok(answers.into_iter().map(result).collect())
            }
        }
    }

    fn count(&self, answer: &LineAnswer, programme: ProgrammeId, verb: Verb) {
        self.metrics.decided(programme, verb, answer.outcome.name());
        if let Outcome::Failed(why) = &answer.outcome {
            tracing::warn!(%programme, verb = verb.name(), request_id = ?answer.request, %why, "no decision");
        }
        let nothing_left =
            answer.standing.as_ref().is_some_and(|s| s.left.units == Some(0) || s.left.purchases == Some(0));
        if matches!(answer.outcome, Outcome::Approved(_)) && !answer.replayed && nothing_left {
            self.metrics.near_limit(programme);
        }
    }
}

#[tonic::async_trait]
impl<L: Ledger, D: Door, C: Clock> PurchaseService for Arc<PurchaseEdge<L, D, C>> {
    type PurchaseStreamStream = ReceiverStream<Result<v1::PurchaseStreamResponse, Status>>;

    async fn check_purchase(
        &self,
        request: Request<v1::CheckPurchaseRequest>,
    ) -> Result<Response<v1::CheckPurchaseResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let results = self.alone(Call::CheckPurchase(message), Credentials::of(&metadata, &extensions)).await?;
        Ok(Response::new(v1::CheckPurchaseResponse { results }))
    }

    async fn purchase(&self, request: Request<v1::PurchaseRequest>) -> Result<Response<v1::PurchaseResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let results = self.alone(Call::Purchase(message), Credentials::of(&metadata, &extensions)).await?;
        Ok(Response::new(v1::PurchaseResponse { results }))
    }

    async fn hold_purchase(
        &self,
        request: Request<v1::HoldPurchaseRequest>,
    ) -> Result<Response<v1::HoldPurchaseResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let results = self.alone(Call::HoldPurchase(message), Credentials::of(&metadata, &extensions)).await?;
        Ok(Response::new(v1::HoldPurchaseResponse { results }))
    }

    async fn confirm_hold(
        &self,
        request: Request<v1::ConfirmHoldRequest>,
    ) -> Result<Response<v1::ConfirmHoldResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let result = self.alone(Call::ConfirmHold(message), Credentials::of(&metadata, &extensions)).await?.pop();
        Ok(Response::new(v1::ConfirmHoldResponse { result }))
    }

    async fn release_hold(
        &self,
        request: Request<v1::ReleaseHoldRequest>,
    ) -> Result<Response<v1::ReleaseHoldResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let result = self.alone(Call::ReleaseHold(message), Credentials::of(&metadata, &extensions)).await?.pop();
        Ok(Response::new(v1::ReleaseHoldResponse { result }))
    }

    async fn void_purchase(
        &self,
        request: Request<v1::VoidPurchaseRequest>,
    ) -> Result<Response<v1::VoidPurchaseResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let result = self.alone(Call::VoidPurchase(message), Credentials::of(&metadata, &extensions)).await?.pop();
        Ok(Response::new(v1::VoidPurchaseResponse { result }))
    }

    async fn get_purchase(
        &self,
        request: Request<v1::GetPurchaseRequest>,
    ) -> Result<Response<v1::GetPurchaseResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let result = self.alone(Call::GetPurchase(message), Credentials::of(&metadata, &extensions)).await?.pop();
        Ok(Response::new(v1::GetPurchaseResponse { result }))
    }

    async fn purchase_stream(
        &self,
        request: Request<Streaming<v1::PurchaseStreamRequest>>,
    ) -> Result<Response<Self::PurchaseStreamStream>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let (answers, answered) = mpsc::channel(stream::PENDING);
        let ending = Link::ending(&extensions);
        let edge = Arc::clone(self);
        // On a task of its own: what was read is finished also when the client has gone.
        self.tasks.spawn(async move {
            let who = Credentials::of(&metadata, &extensions);
            let work = |request| edge.streamed(who, request);
            stream::answer_all(requests, &answers, &ending, work).await;
        });
        Ok(Response::new(ReceiverStream::new(answered)))
    }
}
