//! What goes on beside the calls: health follows the store and the audit log, old entries are swept, old records removed.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::audit::FileTrail;
use crate::grpc;
use crate::ledger::{Durability, Health, Ledger};
use crate::policy::Policies;
use crate::session::registry::GOOD_FOR;
use crate::session::{Door, Registry};
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, Timestamp};

/// How often health is brought up to date with what the ledger knows of its store.
const HEALTH_EVERY: Duration = Duration::from_millis(200);
/// How often old entries are looked for. They are harmless meanwhile; only room is won.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// By how much civil time may move differently from the machine's between two sweeps.
const CLOCK_MOVED: Duration = Duration::from_secs(60);

/// Keeps the health of both services as the store's is, and the gauges beside it. Both need the ledger and the door: without
/// a fresh reading of the door every sale would wait for it. Liveness (the empty name) does not depend on them.
pub(super) async fn follow_health<L: Ledger, D: Door, C: Clock>(
    ledger: L,
    registry: Arc<Registry<D, C>>,
    health: grpc::Health,
    metrics: Arc<Metrics>,
) {
    let (mut last, mut was_ready) = (None, false);
    loop {
        let now = ledger.health();
        let serving = matches!(now, Health::Serving(_));
        if last.as_ref() != Some(&now) {
            match &now {
                Health::Serving(id) => tracing::info!(ledger = %id, "the store can record sales"),
                Health::NotServing(why) => tracing::warn!(%why, "the store cannot record sales"),
            }
            metrics.store_serving(serving);
            metrics.store_volatile(ledger.durability() == Durability::Volatile);
            last = Some(now);
        }
        // The registry itself logs when the door cannot be read.
        let age = registry.reading_age();
        let ready = serving && age.is_some_and(|age| age <= GOOD_FOR);
        if ready != was_ready {
            health.set_ready(ready).await;
            was_ready = ready;
        }
        metrics.sessions_live(u64::try_from(registry.attached()).unwrap_or(u64::MAX));
        metrics.line(u64::try_from(registry.waiting()).unwrap_or(u64::MAX), registry.capacity().into());
        // The first reading is waited for with less patience: a start should not take longer for it.
        tokio::time::sleep(if age.is_none() { HEALTH_EVERY / 10 } else { HEALTH_EVERY }).await;
    }
}

/// Waits until this ledger serves no more, and says why: for one that closes for good.
pub(super) async fn closed<L: Ledger>(ledger: L) -> String {
    loop {
        if let Health::NotServing(why) = ledger.health() {
            return why;
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

/// Removes entries that are older than their programme keeps them. Not under a simulated clock, and not when the clock was
/// set since the last round: a wrong time must never delete a sale.
pub(super) async fn sweep<L: Ledger, C: Clock>(ledger: L, clock: C, policies: Arc<ArcSwap<Policies>>) {
    if clock.is_simulated() {
        return std::future::pending().await;
    }
    let mut steady = Steady::new(clock);
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(now) = steady.now() else {
            tracing::warn!("the clock was set since old entries were swept last; this round is left out");
            continue;
        };
        let programmes: Vec<_> = policies.load().iter().map(|p| (p.code(), p.id(), p.kept())).collect();
        for (code, programme, kept) in programmes {
            let (mut from, mut removed) = (None, 0);
            loop {
                match ledger.sweep(code, now.minus(kept), from).await {
                    Ok(step) => {
                        removed += step.removed;
                        from = step.next;
                    }
                    Err(error) => {
                        tracing::warn!(%programme, %error, "old entries could not be swept; tried again in an hour");
                        break;
                    }
                }
                if from.is_none() {
                    tracing::info!(%programme, removed, "old entries were swept");
                    break;
                }
            }
        }
    }
}

/// Shows how the audit log stands, and has it try again what has failed.
pub(super) async fn follow_audit(log: FileTrail, health: grpc::Health, metrics: Arc<Metrics>) {
    let (mut recorded, mut not_recorded, mut was) = (0, 0, None);
    loop {
        let now = log.standing();
        if was.as_ref() != Some(&now.failing) {
            match &now.failing {
                None => tracing::info!("accesses are put on record in the audit log"),
                Some(why) => {
                    tracing::error!(%why, "accesses cannot be put on record: counters sell on, operators are refused");
                }
            }
            health.set_audited(now.failing.is_none()).await;
        }
        metrics.audited(now.recorded - recorded, now.not_recorded - not_recorded, now.failing.is_some());
        if now.not_recorded > not_recorded {
            tracing::error!(accesses = now.not_recorded - not_recorded, "accesses of counters are not on record");
        }
        (recorded, not_recorded, was) = (now.recorded, now.not_recorded, Some(now.failing));
        log.retry();
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

/// Removes what the audit log has kept for long enough. Not under a simulated clock, and not when the clock was set since the last
/// round: as with the sweep.
pub(super) async fn expire_audit<C: Clock>(log: FileTrail, clock: C, keep_months: u32) {
    if clock.is_simulated() {
        return std::future::pending().await;
    }
    let mut steady = Steady::new(clock);
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        match steady.now() {
            Some(_) => log.expire(keep_months).await,
            None => tracing::warn!("the clock was set since; nothing of the audit log is removed in this round"),
        }
    }
}

/// Civil time as long as it runs with the machine's.
struct Steady<C> {
    clock: C,
    /// Civil and monotonic time at the last look.
    last: (Timestamp, Duration),
}

impl<C: Clock> Steady<C> {
    fn new(clock: C) -> Self {
        let last = (clock.now(), clock.monotonic());
        Self { clock, last }
    }

    /// `None` when civil time has moved by more than [`CLOCK_MOVED`] more or less than the machine's since the last look.
    /// The next look compares with this one.
    fn now(&mut self) -> Option<Timestamp> {
        let (civil, monotonic) = self.last;
        self.last = (self.clock.now(), self.clock.monotonic());
        let expected = civil.plus(self.last.1.saturating_sub(monotonic));
        let apart = self.last.0.since(expected).max(expected.since(self.last.0));
        (apart <= CLOCK_MOVED).then_some(self.last.0)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static CIVIL: Cell<i64> = const { Cell::new(0) };
        static MONOTONIC: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Both times as the test sets them.
    #[derive(Clone)]
    struct TwoTimes;

    impl Clock for TwoTimes {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(CIVIL.get())
        }

        fn monotonic(&self) -> Duration {
            MONOTONIC.get()
        }

        fn is_simulated(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_round_is_left_out_when_the_clock_was_set_and_only_then() {
        CIVIL.set(1_600_000_000_000);
        let mut steady = Steady::new(TwoTimes);
        let (hour, minute) = (3_600_000, 60_000);
        let rounds = [
            (0, true),
            (minute, true),
            (-minute, true),
            (minute + 1, false),
            (0, true),
            (-minute - 1, false),
            (0, true),
        ];
        for (step, goes_on) in
            rounds.into_iter().chain([(400 * 24 * hour, false), (0, true), (-400 * 24 * hour, false)])
        {
            CIVIL.set(CIVIL.get() + hour + step);
            MONOTONIC.set(MONOTONIC.get() + Duration::from_millis(3_600_000));
            let now = steady.now();
            assert_eq!(now, goes_on.then_some(Timestamp::from_millis(CIVIL.get())), "set by {step} ms");
        }
    }
}
