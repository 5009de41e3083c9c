//! What goes on beside the calls: health follows the store, changed files are taken up, old entries are swept.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::{Config, read_policy_files};
use crate::grpc;
use crate::ledger::{Durability, Health, Ledger};
use crate::policy::Policies;
use crate::sites::Sites;
use crate::telemetry::metrics::{Metrics, ReloadOutcome};
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

/// The programmes and sites as their files say, and the texts that they were made of.
pub(super) struct Loaded {
    pub(super) policies: Arc<ArcSwap<Policies>>,
    pub(super) sites: Arc<ArcSwap<Sites>>,
    policy_files: Vec<(String, String)>,
    site_file: Option<String>,
}

/// The files of the configuration cannot be used; the text names each problem on a line of its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadFiles(String);

impl Loaded {
    /// Reads programmes and sites.
    pub(super) fn read(config: &Config) -> Result<Self, BadFiles> {
        let (policy_files, site_file) = (policy_files(config)?, site_text(config)?);
        Ok(Self {
            policies: Arc::new(ArcSwap::from_pointee(policies(&policy_files)?)),
            sites: Arc::new(ArcSwap::from_pointee(sites(config)?)),
            policy_files,
            site_file,
        })
    }

    /// Takes up changed files for as long as the service runs. The contents are compared, not the times of the files, so a
    /// file renamed over another and a swapped symbolic link are seen too. Bad files are refused: the old ones stay.
    pub(super) async fn follow(mut self, config: Config, metrics: Arc<Metrics>) {
        loop {
            tokio::time::sleep(config.reload).await;
            let changed = match tokio::task::block_in_place(|| self.read_again(&config)) {
                Ok(changed) => changed,
                Err(error) => {
                    tracing::error!(%error, "changed files are refused; the old programmes and sites stay in force");
                    metrics.policy_reloaded(ReloadOutcome::Rejected);
                    continue;
                }
            };
            if changed {
                tracing::info!("changed programmes and sites are in force");
                metrics.policy_reloaded(ReloadOutcome::Applied);
            }
        }
    }

    fn read_again(&mut self, config: &Config) -> Result<bool, BadFiles> {
        let (files, site_file) = (policy_files(config)?, site_text(config)?);
        if files == self.policy_files && site_file == self.site_file {
            return Ok(false);
        }
        // A bad file is told once, not every two seconds: what was seen is remembered before it is judged.
        (self.policy_files, self.site_file) = (files, site_file);
        let (policies, sites) = (policies(&self.policy_files)?, sites(config)?);
        self.policies.store(Arc::new(policies));
        self.sites.store(Arc::new(sites));
        Ok(true)
    }
}

fn policy_files(config: &Config) -> Result<Vec<(String, String)>, BadFiles> {
    config.policies.as_deref().map_or(Ok(Vec::new()), read_policy_files).map_err(|e| BadFiles(e.to_string()))
}

fn site_text(config: &Config) -> Result<Option<String>, BadFiles> {
    let unreadable = |path: &std::path::Path, e| BadFiles(format!("{}: cannot be read: {e}", path.display()));
    config.sites.as_deref().map(|path| std::fs::read_to_string(path).map_err(|e| unreadable(path, e))).transpose()
}

fn policies(files: &[(String, String)]) -> Result<Policies, BadFiles> {
    Policies::with_files(files).map_err(|e| BadFiles(e.to_string()))
}

fn sites(config: &Config) -> Result<Sites, BadFiles> {
    config.load_sites().map_err(|e| BadFiles(e.to_string()))
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
