//! Networks between service and Redis, and between counters and service, that delay, crumble, fall silent and break.

use std::time::{Duration, Instant};

use rationd::load::chance::Chance;

use super::kills::row;
use super::row::{Row, alone};
use super::scene::Scene;
use crate::support::proxy::{Fault, Proxy};

/// Longer than a trip to Redis may take.
const LONG: Duration = Duration::from_millis(1_800);
/// A connection that breaks at its next chance gets one in this time.
const NEXT_CHANCE: Duration = Duration::from_secs(10);

/// And is struck again after this time, which is longer than a trip is waited for.
const AGAIN: Duration = Duration::from_millis(1_200);

/// Between which two the network is struck.
#[derive(Clone, Copy)]
enum Between {
    ServiceAndRedis,
    CountersAndService,
}

impl Between {
    fn proxy(self, scene: &Scene) -> &Proxy {
        match self {
            Self::ServiceAndRedis => scene.back(),
            Self::CountersAndService => &scene.front,
        }
    }

    /// Strikes with what is drawn, and lets it go on for as long as it is to.
    async fn play(self, row: Row, draw: impl Fn(&mut Chance) -> (Fault, Lasts)) {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            let (fault, lasts) = draw(chance);
            let proxy = self.proxy(scene);
            let before = proxy.broken();
            proxy.strike(fault);
            match lasts {
                Lasts::For(span) => tokio::time::sleep(span).await,
                Lasts::UntilBroken => {
                    let begun = Instant::now();
                    while proxy.broken() == before {
                        assert!(begun.elapsed() < NEXT_CHANCE, "{fault:?} has broken nothing");
                        // Those that were open may have been given up before their chance: others are now.
                        let broken = async {
                            while proxy.broken() == before {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                        };
                        if tokio::time::timeout(AGAIN, broken).await.is_err() {
                            proxy.strike(fault);
                        }
                    }
                    // Others have their chance too.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            proxy.heal();
        };
        row.play(&mut scene, strike).await;
    }
}

/// How long a fault is on.
enum Lasts {
    For(Duration),
    /// Until it has broken a connection.
    UntilBroken,
}

fn bytes(chance: &mut Chance, most: u64) -> usize {
    usize::try_from(1 + chance.below(most)).unwrap()
}

#[test]
fn redis_connections_reset() {
    let fault = |_: &mut Chance| (Fault::Reset, Lasts::UntilBroken);
    alone(Between::ServiceAndRedis.play(row("connections reset", "", "redis", 3, 300), fault));
}

#[test]
fn redis_cut_after_the_request() {
    let fault = |chance: &mut Chance| (Fault::CutAfterRequest(bytes(chance, 3_000)), Lasts::UntilBroken);
    alone(Between::ServiceAndRedis.play(row("cut after the request", "F24", "redis", 2, 300), fault));
}

#[test]
fn redis_cut_before_the_reply() {
    let fault = |_: &mut Chance| (Fault::CutBeforeReply, Lasts::UntilBroken);
    alone(Between::ServiceAndRedis.play(row("cut before the reply", "F24", "redis", 3, 300), fault));
}

#[test]
#[ignore = "tests/faults runs it; in CI redis_trickle delays the same connections, by more"]
fn redis_latency() {
    let fault = |_: &mut Chance| (Fault::Latency(Duration::from_millis(120)), Lasts::For(Duration::from_millis(1_000)));
    alone(Between::ServiceAndRedis.play(row("240 ms away", "", "redis", 1, 30), fault));
}

#[test]
fn redis_trickle() {
    let fault = |_: &mut Chance| (Fault::Trickle(Duration::from_millis(1)), Lasts::For(LONG));
    alone(Between::ServiceAndRedis.play(row("a byte at a time", "", "redis", 1, 30), fault));
}

#[test]
#[ignore = "tests/faults runs it; in CI redis_paused has the same connections silent for as long"]
fn redis_silent() {
    let fault = |_: &mut Chance| (Fault::Silence, Lasts::For(LONG));
    alone(Between::ServiceAndRedis.play(row("cut off in silence", "F49", "redis", 1, 30), fault));
}

#[test]
#[ignore = "tests/faults runs it; no row in CI has connections to Redis that stay silent for good"]
fn redis_half_open() {
    let fault = |_: &mut Chance| (Fault::HalfOpen, Lasts::For(LONG));
    alone(Between::ServiceAndRedis.play(row("half-open connections", "F49", "redis", 1, 30), fault));
}

#[test]
#[ignore = "tests/faults runs it; in CI counters_cut_before_the_reply resets them, each at a moment that is its own"]
fn counters_reset() {
    let fault = |_: &mut Chance| (Fault::Reset, Lasts::UntilBroken);
    alone(Between::CountersAndService.play(row("counters reset", "", "redis", 3, 300), fault));
}

#[test]
fn counters_cut_after_the_request() {
    let fault = |chance: &mut Chance| (Fault::CutAfterRequest(bytes(chance, 250)), Lasts::UntilBroken);
    alone(Between::CountersAndService.play(row("counters cut after the request", "F24", "redis", 2, 300), fault));
}

#[test]
fn counters_cut_before_the_reply() {
    let fault = |_: &mut Chance| (Fault::CutBeforeReply, Lasts::UntilBroken);
    alone(Between::CountersAndService.play(row("counters cut before the reply", "F24", "redis", 3, 300), fault));
}

#[test]
#[ignore = "tests/faults runs it; in CI redis_trickle crumbles the other connections of a service, not these"]
fn counters_trickle() {
    let fault = |_: &mut Chance| (Fault::Trickle(Duration::from_millis(1)), Lasts::For(Duration::from_millis(1_000)));
    alone(Between::CountersAndService.play(row("counters a byte at a time", "", "redis", 1, 30), fault));
}

#[test]
#[ignore = "tests/faults runs it; no row in CI has counters that are silent"]
fn counters_silent() {
    let fault = |_: &mut Chance| (Fault::Silence, Lasts::For(LONG));
    alone(Between::CountersAndService.play(row("counters cut off in silence", "F20", "redis", 1, 30), fault));
}

#[test]
#[ignore = "tests/faults runs it; no row in CI has counters that are silent"]
fn counters_half_open() {
    let fault = |_: &mut Chance| (Fault::HalfOpen, Lasts::For(Duration::from_millis(100)));
    alone(Between::CountersAndService.play(row("counters half-open", "F22", "redis", 1, 10), fault));
}
