//! Processes that die, stand still, and come back.

use std::time::Duration;

use rationd::load::chance::Chance;

use super::row::{Expected, Row, alone};
use super::scene::Scene;

/// A row in which all that is promised holds.
pub const fn row(name: &'static str, matrix: &'static str, store: &'static str, short: u32, long: u32) -> Row {
    Row { name, matrix, store, short, long, expected: Expected::Kept, takeover: false, given: None }
}

/// Away for a while: shorter and longer than a call waits.
pub async fn a_while(chance: &mut Chance) {
    tokio::time::sleep(chance.within((Duration::from_millis(10), Duration::from_millis(400)))).await;
}

#[test]
fn redis_killed() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            scene.server().kill();
            a_while(chance).await;
            scene.restart_redis();
        };
        row("killed", "F4", "redis", 3, 1_000).play(&mut scene, strike).await;
    });
}

#[test]
fn redis_service_killed() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            scene.kill_service();
            a_while(chance).await;
            scene.start_service();
        };
        row("service killed", "F1 F2", "redis", 3, 300).play(&mut scene, strike).await;
    });
}

#[test]
fn redis_and_service_killed() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            scene.server().kill();
            scene.kill_service();
            a_while(chance).await;
            scene.restart_redis();
            scene.start_service();
        };
        row("everything killed", "F2 F4", "redis", 2, 100).play(&mut scene, strike).await;
    });
}

#[test]
fn redis_paused() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            scene.signal_redis("STOP");
            // Longer than a trip may take.
            tokio::time::sleep(Duration::from_millis(1_800)).await;
            scene.signal_redis("CONT");
        };
        row("paused", "F5", "redis", 1, 30).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI redis_paused has a Redis answer nobody for as long"]
fn redis_busy_with_a_slow_command() {
    alone(async {
        let server = crate::support::redis::RedisServer::start_with(
            &[crate::support::redis::DURABLE, &["--enable-debug-command", "local"]].concat(),
        );
        let mut scene = Scene::on_redis(server, &[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            scene.redis_cli(&["DEBUG", "SLEEP", "1.5"]);
        };
        row("busy with a slow command", "F44", "redis", 1, 30).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; no row in CI pauses a service"]
fn redis_service_paused() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            scene.signal_service("STOP");
            tokio::time::sleep(Duration::from_millis(1_800)).await;
            scene.signal_service("CONT");
        };
        row("service paused", "F3", "redis", 1, 30).play(&mut scene, strike).await;
    });
}

#[test]
fn embedded_service_killed() {
    alone(async {
        let mut scene = Scene::embedded(&[]).await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            scene.kill_service();
            a_while(chance).await;
            scene.start_service();
        };
        row("service killed", "F51", "embedded", 3, 1_000).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; no row in CI pauses a service"]
fn embedded_service_paused() {
    alone(async {
        let mut scene = Scene::embedded(&[]).await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            scene.signal_service("STOP");
            tokio::time::sleep(Duration::from_millis(1_800)).await;
            scene.signal_service("CONT");
        };
        row("service paused", "F3", "embedded", 1, 30).play(&mut scene, strike).await;
    });
}
