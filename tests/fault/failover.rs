//! A primary with two replicas and three Sentinels: its nodes die, stand still, are cut off from some or from all, and come back.

use std::time::Duration;

use rationd::load::chance::Chance;

use super::kills::row;
use super::row::{Expected, Row, alone};
use super::scene::Scene;
use crate::support::replicas::{Process, Replicas, Side};

/// Longer than it takes the Sentinels to hold a server to be down, and the service to hear of it.
const UNTIL_KNOWN: Duration = Duration::from_secs(5);

/// A row in which another server takes over.
pub const fn takeover(name: &'static str, matrix: &'static str) -> Row {
    Row { takeover: true, ..row(name, matrix, "replicas", 1, 30) }
}

/// What befalls the primary.
#[derive(Clone, Copy)]
pub enum Blow {
    Killed,
    Paused,
    CutOffFrom(&'static [Side]),
}

impl Blow {
    /// Strikes the primary, and brings it back as it was, with whoever is still connected to it, when another has taken over.
    pub async fn strike(self, scene: &mut Scene) {
        let group = scene.group();
        let old = primary(group).await;
        match self {
            Self::Killed => group.servers[old].kill(),
            Self::Paused => group.servers[old].pause(),
            Self::CutOffFrom(sides) => group.fronts[old].cut_off(sides),
        }
        group.replaced(old).await;
        match self {
            Self::Killed => start_again(&mut group.servers[old]),
            Self::Paused => group.servers[old].resume(),
            Self::CutOffFrom(_) => group.fronts[old].heal(),
        }
    }

    fn play(self, row: Row) {
        alone(async {
            let mut scene = Scene::replicated(&[]).await;
            row.play(&mut scene, async |scene: &mut Scene, _: &mut Chance| self.strike(scene).await).await;
        });
    }
}

async fn primary(group: &Replicas) -> usize {
    group.primary().await.expect("most Sentinels name the same primary")
}

fn start_again(server: &mut Process) {
    tokio::task::block_in_place(|| server.start_again());
}

/// The two that are not the primary.
async fn replicas(group: &Replicas) -> [usize; 2] {
    let primary = primary(group).await;
    [(primary + 1) % 3, (primary + 2) % 3]
}

#[test]
fn primary_killed() {
    Blow::Killed.play(takeover("primary killed", "F6"));
}

#[test]
fn primary_paused() {
    Blow::Paused.play(takeover("primary paused, comes back", "F7"));
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/replicated.rs strikes so, under a ledger's own load and without a service"]
fn primary_cut_off_from_all() {
    Blow::CutOffFrom(&Side::ALL).play(takeover("primary cut off from all", "F46"));
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/replicated.rs strikes so, under a ledger's own load and without a service"]
fn primary_cut_off_from_the_sentinels() {
    Blow::CutOffFrom(&[Side::Sentinels]).play(takeover("cut off from the Sentinels", "F45"));
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/replicated.rs strikes so, under a ledger's own load and without a service"]
fn replica_killed() {
    alone(async {
        let mut scene = Scene::replicated(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let group = scene.group();
            let [one, _] = replicas(group).await;
            group.servers[one].kill();
            tokio::time::sleep(UNTIL_KNOWN).await;
            start_again(&mut group.servers[one]);
        };
        row("a replica killed", "F8", "replicas", 1, 30).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/replicated.rs strikes so, under a ledger's own load and without a service"]
fn replica_paused() {
    alone(async {
        let mut scene = Scene::replicated(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let group = scene.group();
            let [one, _] = replicas(group).await;
            group.servers[one].pause();
            tokio::time::sleep(UNTIL_KNOWN).await;
            group.servers[one].resume();
        };
        row("a replica paused", "F8", "replicas", 1, 30).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/replicated.rs strikes so, under a ledger's own load and without a service"]
fn both_replicas_lost() {
    alone(async {
        let mut scene = Scene::replicated(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let group = scene.group();
            let both = replicas(group).await;
            both.iter().for_each(|nth| group.servers[*nth].kill());
            tokio::time::sleep(UNTIL_KNOWN).await;
            both.iter().for_each(|nth| start_again(&mut group.servers[*nth]));
        };
        let row = Row { given: Some("REPLICAS_MISSING"), ..row("both replicas lost", "F9", "replicas", 1, 30) };
        row.play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; nothing in CI leaves the Sentinels without a majority while all servers are well"]
fn most_sentinels_killed() {
    alone(async {
        let mut scene = Scene::replicated(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let sentinels = &mut scene.group().sentinels[1..];
            sentinels.iter_mut().for_each(Process::kill);
            tokio::time::sleep(UNTIL_KNOWN).await;
            sentinels.iter_mut().for_each(start_again);
        };
        row("two Sentinels killed", "F47", "replicas", 1, 30).play(&mut scene, strike).await;
    });
}

/// What is on its way to the replicas when the primary dies never arrives, and nobody has waited for it.
#[test]
fn control_without_waiting_for_replicas() {
    alone(async {
        let mut scene = Scene::replicated(&["--allow-volatile"]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let group = scene.group();
            let old = primary(group).await;
            group.fronts[old].cut_off(&[Side::Servers]);
            // Less than the lag at which the primary stops writing.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            group.servers[old].kill();
            group.replaced(old).await;
            group.fronts[old].heal();
            start_again(&mut group.servers[old]);
        };
        let row = Row { expected: Expected::Lost, ..row("killed without WAIT", "F11", "replicas", 1, 10) };
        row.play(&mut scene, strike).await;
    });
}
