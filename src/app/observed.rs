//! The decorator around the store: a span and a measurement for every trip, and nothing of what was in it.

use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt;
use tracing::Instrument;

use crate::ids::{LedgerId, ProgrammeCode};
use crate::ledger::{
    Answer, Call, Claim, Claimed, Confirmed, Durability, Entered, Exported, Health, Late, Ledger, LedgerError, Record,
    RecordKey, Released, Resolved, Swept, Voided,
};
use crate::telemetry::metrics::{Metrics, StoreVerb, TripOutcome};
use crate::time::{Clock, Timestamp};

use super::objective::Objective;

/// A ledger whose trips are seen.
#[derive(Clone)]
pub(super) struct Observed<L, C> {
    ledger: L,
    clock: C,
    metrics: Arc<Metrics>,
    objective: Arc<Objective>,
    system: &'static str,
}

impl<L: Ledger, C: Clock> Observed<L, C> {
    /// `system` is the store's name in spans (`redis`, `redb`).
    pub(super) fn new(
        ledger: L,
        clock: C,
        metrics: Arc<Metrics>,
        objective: Arc<Objective>,
        system: &'static str,
    ) -> Self {
        Self { ledger, clock, metrics, objective, system }
    }

    /// Combined and not awaited within another block, which would keep the trip's own space twice.
    fn trip<T>(
        &self,
        verb: StoreVerb,
        trip: impl Future<Output = Result<T, LedgerError>> + Send,
    ) -> impl Future<Output = Result<T, LedgerError>> + Send {
        let begun = self.clock.monotonic();
        // Costs nothing unless somebody takes spans.
        let span = tracing::debug_span!(
            "trip",
            otel.name = verb.name(),
            otel.kind = "client",
            db.system.name = self.system,
            db.operation.name = verb.name(),
            db.response.status_code = tracing::field::Empty,
        );
        trip.instrument(span.clone()).map(move |answer| {
            let outcome = outcome(&answer);
            span.record("db.response.status_code", outcome.name());
            let took = self.clock.monotonic().saturating_sub(begun);
            self.metrics.tripped(verb, outcome, took);
            if matches!(verb, StoreVerb::Claim | StoreVerb::Usage) {
                self.objective.took(took, has_failed(outcome));
            }
            answer
        })
    }
}

fn outcome<T>(answer: &Result<T, LedgerError>) -> TripOutcome {
    match answer {
        Ok(_) => TripOutcome::Ok,
        Err(LedgerError::RequestIdReused) => TripOutcome::RequestIdReused,
        Err(LedgerError::RequestIdClosed) => TripOutcome::RequestIdClosed,
        Err(LedgerError::BuyerRecordFull) => TripOutcome::BuyerRecordFull,
        Err(LedgerError::StoreUnavailable(_)) => TripOutcome::StoreUnavailable,
        Err(LedgerError::ReplicasMissing) => TripOutcome::ReplicasMissing,
        Err(LedgerError::ClocksApart(_)) => TripOutcome::ClocksApart,
        Err(LedgerError::Overloaded) => TripOutcome::Overloaded,
        Err(LedgerError::Unconfirmed(_)) => TripOutcome::Unconfirmed,
        Err(LedgerError::Corrupt(_)) => TripOutcome::Corrupt,
    }
}

/// Whether the store had no answer, and not: whether the answer was one that the caller can do something about.
fn has_failed(outcome: TripOutcome) -> bool {
    matches!(
        outcome,
        TripOutcome::StoreUnavailable
            | TripOutcome::ReplicasMissing
            | TripOutcome::Overloaded
            | TripOutcome::Unconfirmed
            | TripOutcome::Corrupt
    )
}

impl<L: Ledger, C: Clock> Ledger for Observed<L, C> {
    // The one of which many wait at once; see `trip`.
    fn claim(
        &self,
        key: RecordKey,
        call: Call,
        claim: Claim,
    ) -> impl Future<Output = Result<Answer<Claimed>, LedgerError>> + Send {
        self.trip(StoreVerb::Claim, self.ledger.claim(key, call, claim))
    }

    async fn confirm(&self, key: RecordKey, call: Call) -> Result<Answer<Confirmed>, LedgerError> {
        self.trip(StoreVerb::Confirm, self.ledger.confirm(key, call)).await
    }

    async fn release(&self, key: RecordKey, call: Call) -> Result<Answer<Released>, LedgerError> {
        self.trip(StoreVerb::Release, self.ledger.release(key, call)).await
    }

    async fn void(&self, key: RecordKey, call: Call) -> Result<Answer<Voided>, LedgerError> {
        self.trip(StoreVerb::Void, self.ledger.void(key, call)).await
    }

    async fn late(&self, key: RecordKey, call: Call, late: Late) -> Result<Answer<Entered>, LedgerError> {
        self.trip(StoreVerb::Late, self.ledger.late(key, call, late)).await
    }

    async fn resolve(&self, key: RecordKey, call: Call) -> Result<Answer<Resolved>, LedgerError> {
        self.trip(StoreVerb::Resolve, self.ledger.resolve(key, call)).await
    }

    async fn usage(&self, key: RecordKey) -> Result<Record, LedgerError> {
        self.trip(StoreVerb::Usage, self.ledger.usage(key)).await
    }

    async fn sweep(
        &self,
        programme: ProgrammeCode,
        before: Timestamp,
        from: Option<Vec<u8>>,
    ) -> Result<Swept, LedgerError> {
        self.trip(StoreVerb::Sweep, self.ledger.sweep(programme, before, from)).await
    }

    async fn export(&self, programme: ProgrammeCode, from: Option<Vec<u8>>) -> Result<Exported, LedgerError> {
        self.trip(StoreVerb::Export, self.ledger.export(programme, from)).await
    }

    fn health(&self) -> Health {
        self.ledger.health()
    }

    fn id(&self) -> Option<LedgerId> {
        self.ledger.id()
    }

    fn durability(&self) -> Durability {
        self.ledger.durability()
    }
}
