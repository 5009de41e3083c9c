//! A primary with two replicas and three Sentinels: its nodes die, stand still, fall behind, have a clock that is wrong, are cut
//! off from some or from all, and come back.

use std::time::{Duration, Instant};

use rationd::load::chance::Chance;

use super::kills::row;
use super::row::{Expected, Row, alone};
use super::scene::Scene;
use super::shim::Shim;
use crate::support::replicas::{Process, Replicas, Side};

/// Longer than it takes the Sentinels to hold a server to be down, and the service to hear of it.
const UNTIL_KNOWN: Duration = Duration::from_secs(5);

/// What a replica may be behind while it is still waited for, on a busy machine too.
const A_LITTLE: Duration = Duration::from_millis(300);
/// What it may not.
const FAR: Duration = Duration::from_secs(10);

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

/// The primary before is there again, but the Sentinels have not made it a replica yet: sales do not wait for that, and when the new
/// primary dies too, the one that has them is chosen.
#[test]
fn primary_replaced_twice() {
    alone(async {
        let mut scene = Scene::replicated(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let group = scene.group();
            group.publish_every("2000").await;
            let old = primary(group).await;
            group.fronts[old].cut_off(&Side::ALL);
            let next = group.replaced(old).await;
            group.fronts[old].heal();
            // Sentinels hear of it within two seconds, and make it a replica eight seconds later.
            tokio::time::sleep(Duration::from_secs(3)).await;
            let sold_since = Instant::now();
            tokio::time::sleep(Duration::from_secs(1)).await;
            scene.rush().await;
            let group = scene.group();
            assert_eq!(group.servers[old].info("role").await.as_deref(), Some("master"), "it is a replica too soon");
            group.servers[next].kill();
            scene.was_slow(sold_since, Some(Duration::ZERO));
            let group = scene.group();
            assert_eq!(group.replaced(next).await, 3 - old - next);
            start_again(&mut group.servers[next]);
        };
        row("primary replaced twice", "F46", "replicas", 1, 30).play(&mut scene, strike).await;
    });
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

/// It stays attached, nobody holds it to be down, and it has everything late: what it must have is confirmed as late, and nothing
/// is that it does not have in time.
#[test]
#[ignore = "tests/faults runs it; in CI tests/replicated.rs has replicas that lag, for a moment and without a service"]
fn replica_far_behind() {
    alone(async {
        let mut scene = Scene::replicated(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let group = scene.group();
            let primary = primary(group).await;
            let [behind, _] = replicas(group).await;
            group.fronts[primary].hold_up(Side::Server(behind), A_LITTLE);
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_secs(2)).await;
            scene.was_slow(begun, Some(A_LITTLE));

            let group = scene.group();
            group.fronts[primary].hold_up(Side::Server(behind), FAR);
            let (begun, first) = (Instant::now(), offset(&group.servers[primary], "master_repl_offset").await);
            tokio::time::sleep(FAR / 2).await;
            let later = offset(&group.servers[primary], "master_repl_offset").await;
            tokio::time::sleep(FAR - begun.elapsed() + Duration::from_secs(1)).await;
            let has = offset(&group.servers[behind], "slave_repl_offset").await;
            assert!((first..later).contains(&has), "it has {has}, and {first} and {later} were due");
            assert!(group.is_whole().await, "it is held to be down, or has lost its primary");
            scene.was_slow(begun, None);
            scene.group().fronts[primary].heal();
        };
        row("a replica 10 s behind", "F10", "replicas", 1, 30).play(&mut scene, strike).await;
    });
}

/// How far a server is.
async fn offset(server: &Process, name: &str) -> u64 {
    server.info(name).await.expect("it answers").parse().expect("a number")
}

/// Sales stand still from the failover until the clock is right, and nobody has to do anything else.
#[test]
#[ignore = "tests/faults runs it; in CI redis_clock_steps has a clock that is as wrong, without a failover"]
fn skewed_replica_promoted() {
    alone(async {
        let shims = [Shim::build(), Shim::build(), Shim::build()];
        let mut scene = Scene::replicated_behind(&shims.each_ref().map(Shim::words)).await;
        let mut ahead = true;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let group = scene.group();
            let old = primary(group).await;
            let [skewed, _] = replicas(group).await;
            group.prefer(skewed).await;
            shims[skewed].say("clock", if ahead { "3600000" } else { "-3600000" });
            ahead = !ahead;
            // By its own clock it may not have heard from its primary for an hour, and dials again.
            tokio::time::sleep(Duration::from_secs(1)).await;
            group.whole().await;
            scene.rush().await;
            let group = scene.group();
            group.servers[old].kill();
            let killed = Instant::now();
            assert_eq!(group.replaced(old).await, skewed);
            start_again(&mut group.servers[old]);
            tokio::time::sleep(UNTIL_KNOWN).await;
            scene.was_slow(killed, None);
            shims[skewed].unsay("clock");
        };
        let row = Row { given: Some("CLOCKS_APART"), ..row("a skewed one promoted", "F18", "replicas", 1, 30) };
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

/// Beyond what is promised: the only two servers that have what was acknowledged die at once, while the third one is cut off, and
/// that one takes over. It is noticed, and nothing is confirmed on what is left, although it could be written to, by the
/// service that saw it or by one that is started anew, until an operator gives up what is lost.
#[test]
#[ignore = "tests/faults runs it; in CI redis_an_old_backup has a server as far behind, and tests/replicated.rs failovers"]
fn control_double_fault() {
    alone(async {
        let mut scene = Scene::replicated(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let group = scene.group();
            let old = primary(group).await;
            let [freshest, behind] = replicas(group).await;
            group.fronts[old].cut_off(&[Side::Server(behind)]);
            group.fronts[behind].cut_off(&Side::ALL);
            // From then on one replica is enough.
            tokio::time::sleep(UNTIL_KNOWN).await;
            scene.rush().await;
            let group = scene.group();
            group.servers[old].kill();
            group.servers[freshest].kill();
            let lost = Instant::now();
            group.fronts[behind].heal();
            assert_eq!(group.replaced(old).await, behind);
            group.fronts[old].heal();
            [old, freshest].iter().for_each(|nth| start_again(&mut group.servers[*nth]));
            group.whole().await;
            scene.logged("Redis is behind what was acknowledged").await;
            scene.serves_no_more().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            scene.kill_service();
            let ran = scene.refused();
            assert!(ran.code == 64 && ran.err.contains("Redis is behind what was acknowledged"), "{ran:?}");
            scene.was_slow(lost, None);
            scene.give_up_what_is_lost();
            scene.start_service();
        };
        let row = Row { expected: Expected::Lost, ..row("two servers lost at once", "F53", "replicas", 1, 10) };
        row.play(&mut scene, strike).await;
    });
}
