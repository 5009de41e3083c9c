//! What is restarted in the middle of a morning: Redis first, then every service, one after the other.

use std::time::Duration;

use super::morning::{REDIS, SERVICES};
use super::scene::Scene;
use crate::load::recorder::RunClock;
use crate::load::target::LoadError;

/// Restarts what is to be restarted in these phases, and ends with the last of it; at once where there is no such phase. The last
/// service is killed, the others are asked to stop.
pub(super) async fn restart(
    scene: &Scene,
    clock: &RunClock,
    phases: &[(Duration, &'static str)],
) -> Result<(), LoadError> {
    let span = |phase: &str| {
        let nth = phases.iter().position(|(_, name)| *name == phase)?;
        Some((phases.get(nth)?.0, phases.get(nth + 1)?.0))
    };
    if let Some((from, _)) = span(REDIS) {
        clock.sleep_until(from).await;
        scene.restart_store().await?;
    }
    if let Some((from, until)) = span(SERVICES) {
        let services = scene.services();
        for nth in 0..services {
            clock.sleep_until(from + (until - from).mul_f64(nth as f64 / services as f64)).await;
            scene.restart_service(nth, nth + 1 == services).await?;
        }
    }
    Ok(())
}
