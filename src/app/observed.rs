//! The decorator around the store: a span and a measurement for every trip, and nothing of what was in it.

use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::watch;
use tracing::Instrument;

use crate::buyer::{KeyId, OtherRing, Turn};
use crate::ids::{LedgerId, ProgrammeCode};
use crate::ledger::outbox::{After, Outbox, PARTITIONS, Place};
use crate::ledger::{
    Answer, Call, Claim, Claimed, Confirmed, Durability, Entered, Exported, Health, Kept, Late, Ledger, LedgerError,
    Record, RecordKey, Released, Resolved, Swept, Voided,
};
use crate::policy::Window;
use crate::telemetry::metrics::{Metrics, StoreVerb, TripOutcome};
use crate::telemetry::propagation::span_within;
use crate::time::{Clock, Timestamp};

use super::objective::Objective;

/// A ledger whose trips are seen.
#[derive(Clone)]
pub(super) struct Observed<L, C> {
    ledger: L,
    clock: C,
    metrics: Arc<Metrics>,
    objective: Arc<Objective>,
    /// The newest key that the ledger was seen to be written under while this process had it as its next.
    turned_to: Arc<watch::Sender<KeyId>>,
    system: &'static str,
}

impl<L: Ledger, C: Clock> Observed<L, C> {
    /// `system` is the store's name in spans (`redis`, `redb`).
    pub(super) fn new(
        ledger: L,
        clock: C,
        metrics: Arc<Metrics>,
        objective: Arc<Objective>,
        turned_to: Arc<watch::Sender<KeyId>>,
        system: &'static str,
    ) -> Self {
        Self { ledger, clock, metrics, objective, turned_to, system }
    }

    /// Combined and not awaited within another block, which would keep the trip's own space twice.
    fn trip<T>(
        &self,
        verb: StoreVerb,
        trip: impl Future<Output = Result<T, LedgerError>> + Send,
    ) -> impl Future<Output = Result<T, LedgerError>> + Send {
        let begun = self.clock.monotonic();
        let in_redis = self.system == "redis";
        // What is empty is known to the store's own: where it went, and with whom.
        let span = span_within(|| {
            tracing::info_span!(
                "trip",
                otel.name = verb.name(),
                otel.kind = "client",
                otel.status_code = tracing::field::Empty,
                "error.type" = tracing::field::Empty,
                db.system.name = self.system,
                db.stored_procedure.name = (in_redis && is_script(verb)).then(|| verb.name()),
                db.operation.name = (!in_redis).then(|| verb.name()),
                db.operation.batch.size = tracing::field::Empty,
                server.address = tracing::field::Empty,
                server.port = tracing::field::Empty,
                rationd.waited_ms = tracing::field::Empty,
            )
        });
        trip.instrument(span.clone()).map(move |answer| {
            let outcome = outcome(&answer);
            if outcome != TripOutcome::Ok {
                span.record("error.type", outcome.name());
                span.record("otel.status_code", "ERROR");
            }
            let took = self.clock.monotonic().saturating_sub(begun);
            self.metrics.tripped(verb, outcome, took);
            self.hear(&answer);
            if matches!(verb, StoreVerb::Claim | StoreVerb::Usage) {
                self.objective.took(took, has_failed(outcome));
            }
            answer
        })
    }
}

impl<L, C> Observed<L, C> {
    /// Tells whoever follows the others that they have turned the ring, if this answer says so.
    fn hear<T>(&self, answer: &Result<T, LedgerError>) {
        if let Err(LedgerError::OtherRing(OtherRing::Behind { theirs, .. })) = answer {
            self.turned_to.send_if_modified(|newest| {
                let is_news = theirs > newest;
                *newest = (*theirs).max(*newest);
                is_news
            });
        }
    }
}

/// Whether a claim was recorded that its windows do not allow, by the record as the store gives it after the claim. Counted anew
/// and as plainly as can be: this is to find what whoever decided has got wrong.
fn is_over(answer: &Answer<Claimed>, windows: &[Window]) -> bool {
    let granted = matches!(answer.outcome, Claimed::Recorded(_) | Claimed::Held(_)) && !answer.replayed;
    let entries = answer.record.entries();
    let is_full_beyond = |window: &Window| {
        let counted = entries.iter().filter(|entry| entry.counts(answer.at) && window.contains(entry.at));
        let (units, purchases) = counted.fold((0_u64, 0_u64), |(units, n), e| (units + u64::from(e.quantity), n + 1));
        window.max_units.is_some_and(|most| units > most.into())
            || window.max_purchases.is_some_and(|most| purchases > most.into())
    };
    granted && windows.iter().any(is_full_beyond)
}

/// Whether a verb is a script of Redis's; the others only read.
fn is_script(verb: StoreVerb) -> bool {
    !matches!(verb, StoreVerb::Usage | StoreVerb::Sweep | StoreVerb::Export | StoreVerb::Events)
}

fn outcome<T>(answer: &Result<T, LedgerError>) -> TripOutcome {
    match answer {
        Ok(_) => TripOutcome::Ok,
        Err(LedgerError::RequestIdReused) => TripOutcome::RequestIdReused,
        Err(LedgerError::RequestIdClosed) => TripOutcome::RequestIdClosed,
        Err(LedgerError::BuyerRecordFull) => TripOutcome::BuyerRecordFull,
        Err(LedgerError::StoreUnavailable(_) | LedgerError::OtherRing(_)) => TripOutcome::StoreUnavailable,
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
        let windows = claim.windows.clone();
        self.trip(StoreVerb::Claim, self.ledger.claim(key, call, claim)).map(move |answer| {
            if answer.as_ref().is_ok_and(|answer| is_over(answer, &windows)) {
                tracing::error!(request_id = %call.request, "the ledger has recorded more than its windows allow");
                self.metrics.over_admitted();
            }
            answer
        })
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

    async fn turn(&self, to: Turn, kept: Kept) -> Result<(), LedgerError> {
        let turned = self.ledger.turn(to, kept).await;
        self.hear(&turned);
        turned
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

impl<L: Ledger + Outbox, C: Clock> Outbox for Observed<L, C> {
    async fn after(&self, places: Vec<(u8, Place)>, most: usize) -> Result<Vec<After>, LedgerError> {
        self.trip(StoreVerb::Events, self.ledger.after(places, most)).await
    }

    async fn newest(&self) -> Result<[Place; PARTITIONS], LedgerError> {
        self.trip(StoreVerb::Events, self.ledger.newest()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buyer::{BuyerKey, KeyMark, Pseudonym, Ring};
    use crate::ids::RequestId;
    use crate::ledger::Terms;
    use crate::ledger::embedded::EmbeddedLedger;
    use crate::policy::Windows;
    use crate::telemetry::{self, Program, Telemetry, TelemetryOptions};
    use crate::time::ManualClock;

    /// A real store that sells one unit more than it should.
    #[derive(Clone)]
    struct Generous(EmbeddedLedger);

    impl Ledger for Generous {
        async fn claim(&self, key: RecordKey, call: Call, mut claim: Claim) -> Result<Answer<Claimed>, LedgerError> {
            for window in &mut claim.windows {
                window.max_units = window.max_units.map(|most| most + 1);
            }
            self.0.claim(key, call, claim).await
        }

        async fn confirm(&self, key: RecordKey, call: Call) -> Result<Answer<Confirmed>, LedgerError> {
            self.0.confirm(key, call).await
        }

        async fn release(&self, key: RecordKey, call: Call) -> Result<Answer<Released>, LedgerError> {
            self.0.release(key, call).await
        }

        async fn void(&self, key: RecordKey, call: Call) -> Result<Answer<Voided>, LedgerError> {
            self.0.void(key, call).await
        }

        async fn late(&self, key: RecordKey, call: Call, late: Late) -> Result<Answer<Entered>, LedgerError> {
            self.0.late(key, call, late).await
        }

        async fn resolve(&self, key: RecordKey, call: Call) -> Result<Answer<Resolved>, LedgerError> {
            self.0.resolve(key, call).await
        }

        async fn usage(&self, key: RecordKey) -> Result<Record, LedgerError> {
            self.0.usage(key).await
        }

        async fn sweep(
            &self,
            programme: ProgrammeCode,
            before: Timestamp,
            from: Option<Vec<u8>>,
        ) -> Result<Swept, LedgerError> {
            self.0.sweep(programme, before, from).await
        }

        async fn export(&self, programme: ProgrammeCode, from: Option<Vec<u8>>) -> Result<Exported, LedgerError> {
            self.0.export(programme, from).await
        }

        async fn turn(&self, to: Turn, kept: Kept) -> Result<(), LedgerError> {
            self.0.turn(to, kept).await
        }

        fn health(&self) -> Health {
            self.0.health()
        }

        fn id(&self) -> Option<LedgerId> {
            self.0.id()
        }

        fn durability(&self) -> Durability {
            self.0.durability()
        }
    }

    /// What the page of metrics says of claims beyond a limit.
    async fn counted(telemetry: &Telemetry) -> String {
        let request = http::Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
        let page = tower::ServiceExt::oneshot(telemetry.scrape_router(), request).await.unwrap();
        let page = axum::body::to_bytes(page.into_body(), usize::MAX).await.unwrap();
        let page = String::from_utf8(page.to_vec()).unwrap();
        let line = page.lines().find(|line| line.starts_with("rationd_over_admitted_total")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    }

    /// Claims of one unit after the other for one buyer, of whom there may be two; how many were beyond that, as the metric says.
    async fn two_at_most<L: Ledger>(dress: fn(EmbeddedLedger) -> L, hold_for: Option<std::time::Duration>) -> String {
        let directory = tempfile::tempdir().unwrap();
        let programmes = vec![("km".parse().unwrap(), "masks".to_owned())];
        let turn = Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"of tests") });
        let kept = Kept { now: Timestamp::EPOCH, length: std::time::Duration::ZERO };
        let terms = Terms { turn, kept, simulated_clock: true, programmes };
        let ledger = dress(EmbeddedLedger::open(directory.path(), &terms).unwrap());
        let options = TelemetryOptions {
            program: Program::Service,
            json: false,
            filter: "off".into(),
            environment: Default::default(),
        };
        let (telemetry, _) = telemetry::prepare(options, Box::new(std::io::sink())).unwrap();
        let clock = ManualClock::new(Timestamp::from_millis(1_592_000_000_000));
        let seen = Observed::new(ledger, clock.clone(), telemetry.metrics(), Arc::default(), Arc::default(), "redb");
        let buyer = BuyerKey { partition: 7, pseudonym: Pseudonym::from_bytes([7; 16]) };
        let turn = Turn::at(turn.ring);
        let key = RecordKey { programme: "km".parse().unwrap(), buyer, turn };
        let window =
            Window { from: Timestamp::EPOCH, until: Timestamp::NEVER, max_units: Some(2), max_purchases: None };
        for _ in 0..4 {
            let (site, terminal) = ("11000001".parse().unwrap(), "t".parse().unwrap());
            let call = Call { request: RequestId::random(), site, terminal, now: clock.now() };
            let claim = Claim {
                quantity: 1,
                hold_for,
                windows: Windows::from_iter([window]),
                good_until: Timestamp::NEVER,
                stated: String::new(),
            };
            let _ = seen.claim(key, call, claim.clone()).await.unwrap();
            // Asked again it is no further claim.
            let _ = seen.claim(key, call, claim).await.unwrap();
        }
        counted(&telemetry).await
    }

    #[tokio::test]
    async fn a_claim_beyond_a_limit_is_counted_by_the_record_and_not_by_who_decided() {
        let hold = Some(std::time::Duration::from_secs(60));
        for hold_for in [None, hold] {
            assert_eq!(two_at_most(|ledger| ledger, hold_for).await, "0");
            assert_eq!(two_at_most(Generous, hold_for).await, "1");
        }
    }
}
