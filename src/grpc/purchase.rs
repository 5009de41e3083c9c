//! `PurchaseService`: convert the request, call the use case, convert the outcome.
//!
//! A client that hangs up cancels a look-up. Everything that changes the ledger runs to its end on a tracked task.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::convert::{self, WireKnown, WireVisit};
use super::identity::Callers;
use super::status;
use super::v1::{self, purchase_service_server::PurchaseService};
use crate::ids::ProgrammeId;
use crate::ledger::Ledger;
use crate::purchase::{Caller, Known, LineAnswer, Outcome, Prepared, Purchases};
use crate::session::Door;
use crate::telemetry::metrics::{Metrics, Verb};
use crate::time::Clock;

/// The service over the use cases of one ledger.
pub(super) struct PurchaseEdge<L, D, C> {
    pub(super) purchases: Purchases<L, C>,
    pub(super) callers: Arc<Callers<D, C>>,
    pub(super) tasks: TaskTracker,
    /// How many commits may be under way at once.
    pub(super) commits: Arc<Semaphore>,
    pub(super) metrics: Arc<Metrics>,
}

impl<L: Ledger, D: Door, C: Clock> PurchaseEdge<L, D, C> {
    fn prepare(&self, wire: &WireVisit<'_>) -> Result<Prepared, Status> {
        let (asked, mut bad) = convert::visit(wire);
        if let Some(asked) = asked {
            match self.purchases.prepare(&asked) {
                Ok(visit) if bad.is_empty() => return Ok(visit),
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

    /// A request id means something only under the ledger that it was written down with.
    fn same_ledger(&self, wire: &str) -> Result<(), Status> {
        let wanted = convert::ledger(wire).map_err(|bad| status::invalid(vec![bad]))?;
        match (wanted, self.purchases.ledger_id()) {
            (Some(wanted), Some(ours)) if wanted != ours => Err(status::other_ledger(ours)),
            (Some(_), None) => Err(status::ledger_away()),
            _ => Ok(()),
        }
    }

    /// A call that follows a purchase: it names the purchase, and changes at most what became of it.
    async fn follow<W: Future<Output = LineAnswer> + Send + 'static>(
        &self,
        wire: WireKnown<'_>,
        caller: Caller,
        verb: Verb,
        act: impl FnOnce(Purchases<L, C>, Known, Caller) -> W,
    ) -> Result<Option<v1::PurchaseResult>, Status> {
        self.same_ledger(wire.ledger_id)?;
        let (programme, buyer, request) = convert::known(&wire).map_err(status::invalid)?;
        let known = self
            .purchases
            .prepare_known(programme, buyer, request)
            .map_err(|bad| status::invalid(bad.into_iter().map(convert::bad_field).collect()))?;
        let answer = self.tracked(act(self.purchases.clone(), known, caller)).await?;
        self.results(vec![answer], programme, verb).map(|mut results| results.pop())
    }

    /// Runs to its end whether or not anybody still waits for the answer. Those who hang up leave their work behind, so it is
    /// bounded here too.
    async fn tracked<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Status> {
        let permit = self.commits.clone().try_acquire_owned().map_err(|_| status::overloaded())?;
        let work = async move {
            let _permit = permit;
            work.await
        };
        self.tasks.spawn(work).await.map_err(|_| status::broken())
    }

    async fn buy(&self, visit: Prepared, caller: Caller, verb: Verb) -> Result<Vec<v1::PurchaseResult>, Status> {
        let (purchases, programme) = (self.purchases.clone(), visit.programme());
        let answers = self.tracked(async move { purchases.buy(visit, &caller).await }).await?;
        self.results(answers, programme, verb)
    }

    /// The failure of a single line is the call's own error; of one among several it stands in its result.
    fn results(
        &self,
        answers: Vec<LineAnswer>,
        programme: ProgrammeId,
        verb: Verb,
    ) -> Result<Vec<v1::PurchaseResult>, Status> {
        for answer in &answers {
            self.count(answer, programme, verb);
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
impl<L: Ledger, D: Door, C: Clock> PurchaseService for PurchaseEdge<L, D, C> {
    async fn check_purchase(
        &self,
        request: Request<v1::CheckPurchaseRequest>,
    ) -> Result<Response<v1::CheckPurchaseResponse>, Status> {
        let caller = self.callers.site(request.metadata())?;
        let wire = request.get_ref();
        let visit = self.prepare(&WireVisit {
            programme: &wire.programme,
            agent: wire.agent.as_ref(),
            lines: &wire.lines,
            family: &wire.family_birth_years,
            hold_for: None,
            with_ids: false,
        })?;
        let programme = visit.programme();
        let answers = self.purchases.check(visit, &caller).await;
        let results = self.results(answers, programme, Verb::Check)?;
        Ok(Response::new(v1::CheckPurchaseResponse { results }))
    }

    async fn purchase(&self, request: Request<v1::PurchaseRequest>) -> Result<Response<v1::PurchaseResponse>, Status> {
        let caller = self.callers.session(request.metadata()).await?;
        let wire = request.get_ref();
        self.same_ledger(&wire.ledger_id)?;
        let visit = self.prepare(&WireVisit {
            programme: &wire.programme,
            agent: wire.agent.as_ref(),
            lines: &wire.lines,
            family: &wire.family_birth_years,
            hold_for: None,
            with_ids: true,
        })?;
        let results = self.buy(visit, caller, Verb::Purchase).await?;
        Ok(Response::new(v1::PurchaseResponse { results }))
    }

    async fn hold_purchase(
        &self,
        request: Request<v1::HoldPurchaseRequest>,
    ) -> Result<Response<v1::HoldPurchaseResponse>, Status> {
        let caller = self.callers.session(request.metadata()).await?;
        let wire = request.get_ref();
        self.same_ledger(&wire.ledger_id)?;
        let visit = self.prepare(&WireVisit {
            programme: &wire.programme,
            agent: wire.agent.as_ref(),
            lines: &wire.lines,
            family: &wire.family_birth_years,
            hold_for: Some(wire.hold_for.as_ref()),
            with_ids: true,
        })?;
        let results = self.buy(visit, caller, Verb::Hold).await?;
        Ok(Response::new(v1::HoldPurchaseResponse { results }))
    }

    async fn confirm_hold(
        &self,
        request: Request<v1::ConfirmHoldRequest>,
    ) -> Result<Response<v1::ConfirmHoldResponse>, Status> {
        let caller = self.callers.session(request.metadata()).await?;
        let v1::ConfirmHoldRequest { programme, buyer, request_id, ledger_id } = request.get_ref();
        let wire = WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id };
        let result = self
            .follow(wire, caller, Verb::Confirm, |purchases, known, caller| async move {
                purchases.confirm(known, &caller).await
            })
            .await?;
        Ok(Response::new(v1::ConfirmHoldResponse { result }))
    }

    async fn release_hold(
        &self,
        request: Request<v1::ReleaseHoldRequest>,
    ) -> Result<Response<v1::ReleaseHoldResponse>, Status> {
        let caller = self.callers.site(request.metadata())?;
        let v1::ReleaseHoldRequest { programme, buyer, request_id, ledger_id } = request.get_ref();
        let wire = WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id };
        let result = self
            .follow(wire, caller, Verb::Release, |purchases, known, caller| async move {
                purchases.release(known, &caller).await
            })
            .await?;
        Ok(Response::new(v1::ReleaseHoldResponse { result }))
    }

    async fn void_purchase(
        &self,
        request: Request<v1::VoidPurchaseRequest>,
    ) -> Result<Response<v1::VoidPurchaseResponse>, Status> {
        let caller = self.callers.site(request.metadata())?;
        let v1::VoidPurchaseRequest { programme, buyer, request_id, ledger_id } = request.get_ref();
        let wire = WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id };
        let result =
            self.follow(wire, caller, Verb::Void, |purchases, known, caller| async move {
                purchases.void(known, &caller).await
            })
            .await?;
        Ok(Response::new(v1::VoidPurchaseResponse { result }))
    }

    async fn get_purchase(
        &self,
        request: Request<v1::GetPurchaseRequest>,
    ) -> Result<Response<v1::GetPurchaseResponse>, Status> {
        let caller = self.callers.site(request.metadata())?;
        let v1::GetPurchaseRequest { programme, buyer, request_id, ledger_id } = request.get_ref();
        let wire = WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id };
        let result = self
            .follow(wire, caller, Verb::Resolve, |purchases, known, caller| async move {
                purchases.resolve(known, &caller).await
            })
            .await?;
        Ok(Response::new(v1::GetPurchaseResponse { result }))
    }
}
