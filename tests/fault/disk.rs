//! Disks that stall, fail, fill up and forget, and clocks that step: through a shim that is preloaded into the process.

use std::fs::{self, OpenOptions};
use std::process::Command;
use std::time::{Duration, Instant};

use rationd::load::chance::Chance;

use super::kills::row;
use super::row::{Expected, Row, alone};
use super::scene::Scene;
use super::shim::Shim;
use crate::support::redis::{DURABLE, RedisServer};

/// A sync that takes longer than a call may.
const STALL: &str = "slow 10000";
const STALLED: Duration = Duration::from_secs(10);
/// How long a process may take to notice.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

async fn on_shimmed_redis(shim: &Shim, settings: &[&str], arguments: &[&str]) -> Scene {
    let words = shim.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Scene::on_redis(RedisServer::start_behind(&words, settings), arguments).await
}

async fn on_shimmed_file(shim: &Shim) -> Scene {
    let variables = shim.variables();
    Scene::embedded(&variables.each_ref().map(|(name, value)| (*name, value.as_str()))).await
}

async fn stall(shim: &Shim) {
    shim.say("sync", STALL);
    tokio::time::sleep(Duration::from_secs(1)).await;
    shim.unsay("sync");
    // The one under way takes its time.
    tokio::time::sleep(STALLED).await;
}

async fn redis_ends(scene: &mut Scene) {
    let begun = Instant::now();
    while !scene.server().has_ended() {
        assert!(begun.elapsed() < NOTICED_WITHIN, "Redis goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// No file of the process may become longer than this from now on.
fn limit(pid: u32, bytes: u64) {
    let limit = format!("--fsize={bytes}:{bytes}");
    assert!(Command::new("prlimit").args([format!("--pid={pid}"), limit]).status().unwrap().success());
}

#[test]
fn redis_sync_stalls() {
    alone(async {
        let shim = Shim::build();
        let mut scene = on_shimmed_redis(&shim, DURABLE, &[]).await;
        let strike = async |_: &mut Scene, _: &mut Chance| stall(&shim).await;
        row("sync stalls", "F12", "redis", 1, 30).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI embedded_sync_fails has the same fault with the other store"]
fn redis_sync_fails() {
    alone(async {
        let shim = Shim::build();
        let mut scene = on_shimmed_redis(&shim, DURABLE, &[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            shim.say("sync", "fail");
            redis_ends(scene).await;
            shim.unsay("sync");
            scene.restart_redis();
        };
        row("sync fails", "F13", "redis", 2, 100).play(&mut scene, strike).await;
    });
}

/// No mount is needed: a limit on the size of files cuts a write short as a full disk does.
#[test]
fn redis_disk_full() {
    alone(async {
        let words = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
        let mut scene = Scene::on_redis(RedisServer::start_behind(&words, DURABLE), &[]).await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            let server = scene.server();
            let size = fs::metadata(server.log_file()).unwrap().len();
            limit(server.pid(), size + chance.below(20_000));
            redis_ends(scene).await;
            scene.restart_redis();
        };
        row("disk full", "F14", "redis", 2, 100).play(&mut scene, strike).await;
    });
}

/// Everything that no sync had reached is gone with the power.
async fn lose_power(shim: &Shim, scene: &mut Scene) {
    scene.server().kill();
    let (synced, path) = shim.synced();
    OpenOptions::new().write(true).open(path).unwrap().set_len(synced).unwrap();
    scene.restart_redis();
}

#[test]
fn redis_loses_power() {
    alone(async {
        let shim = Shim::build();
        let mut scene = on_shimmed_redis(&shim, DURABLE, &[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| lose_power(&shim, scene).await;
        row("power cut", "F15", "redis", 2, 300).play(&mut scene, strike).await;
    });
}

/// The same under `appendfsync everysec`, which only `--allow-volatile` lets pass: it must be seen to lose.
#[test]
fn control_redis_loses_power_between_two_syncs() {
    alone(async {
        let shim = Shim::build();
        let weak = ["--appendonly", "yes", "--appendfsync", "everysec"];
        let mut scene = on_shimmed_redis(&shim, &weak, &["--allow-volatile"]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| lose_power(&shim, scene).await;
        let row = Row { expected: Expected::Lost, ..row("power cut, everysec", "control", "redis", 2, 10) };
        row.play(&mut scene, strike).await;
    });
}

/// Sales stop while the clocks of service and Redis are apart, and go on afterwards.
#[test]
fn redis_clock_steps() {
    alone(async {
        let shim = Shim::build();
        let mut scene = on_shimmed_redis(&shim, DURABLE, &[]).await;
        let mut ahead = true;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            shim.say("clock", if ahead { "3600000" } else { "-3600000" });
            ahead = !ahead;
            let begun = Instant::now();
            while scene.is_serving().await {
                assert!(begun.elapsed() < NOTICED_WITHIN, "it sells on with clocks that are an hour apart");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            shim.unsay("clock");
        };
        row("clock an hour off", "F17", "redis", 2, 30).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI redis_sync_stalls has the same fault with the other store"]
fn embedded_sync_stalls() {
    alone(async {
        let shim = Shim::build();
        let mut scene = on_shimmed_file(&shim).await;
        let strike = async |_: &mut Scene, _: &mut Chance| stall(&shim).await;
        row("sync stalls", "F12", "embedded", 1, 30).play(&mut scene, strike).await;
    });
}

#[test]
fn embedded_sync_fails() {
    alone(async {
        let shim = Shim::build();
        let mut scene = on_shimmed_file(&shim).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            shim.say("sync", "fail");
            assert_eq!(scene.service_ended(), 70, "{}", scene.service().log());
            shim.unsay("sync");
            scene.start_service();
        };
        row("sync fails", "F13", "embedded", 2, 100).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI redis_disk_full has the same fault with the other store"]
fn embedded_disk_full() {
    alone(async {
        let mut scene = Scene::embedded(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            limit(scene.service().pid(), 8_192);
            assert_eq!(scene.service_ended(), 70, "{}", scene.service().log());
            scene.start_service();
        };
        row("disk full", "F14", "embedded", 2, 100).play(&mut scene, strike).await;
    });
}
