//! What goes on beside the calls: health follows the store, old entries are swept.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::grpc;
use crate::ledger::{Durability, Health, Ledger};
use crate::policy::Policies;
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;

/// How often health is brought up to date with what the ledger knows of its store.
const HEALTH_EVERY: Duration = Duration::from_millis(200);
/// How often old entries are looked for. They are harmless meanwhile; only room is won.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// Keeps the health of both services as the store's is, and the gauges beside it. Liveness (the empty name) does not depend on it.
pub(super) async fn follow_health<L: Ledger>(
    ledger: L,
    health: &grpc::Health,
    metrics: Arc<Metrics>,
    sessions: impl Fn() -> usize,
) {
    let mut last = None;
    loop {
        let now = ledger.health();
        if last.as_ref() != Some(&now) {
            let ready = match &now {
                Health::Serving(id) => {
                    tracing::info!(ledger = %id, "the store can record sales");
                    true
                }
                Health::NotServing(why) => {
                    tracing::warn!(%why, "the store cannot record sales");
                    false
                }
            };
            health.set_ready(ready).await;
            metrics.store_serving(ready);
            metrics.store_volatile(ledger.durability() == Durability::Volatile);
            last = Some(now);
        }
        metrics.sessions_live(u64::try_from(sessions()).unwrap_or(u64::MAX));
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

/// Removes entries that are older than their programme keeps them. Not under a simulated clock: a made-up time must never
/// delete a sale.
pub(super) async fn sweep<L: Ledger, C: Clock>(ledger: L, clock: C, policies: Arc<ArcSwap<Policies>>) {
    if clock.is_simulated() {
        return;
    }
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let programmes: Vec<_> = policies.load().iter().map(|p| (p.code(), p.id(), p.kept())).collect();
        for (code, programme, kept) in programmes {
            let (mut from, mut removed) = (None, 0);
            loop {
                match ledger.sweep(code, clock.now().minus(kept), from).await {
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
