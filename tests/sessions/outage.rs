//! Time at the door: a dead terminal's seat, and outages that cost nobody a seat.

use std::process::Command;
use std::time::{Duration, Instant};

use rationd::session::{Door, Lease, Opened, Registry, Seat, Standing};
use rationd::time::SystemClock;
use tokio_util::sync::CancellationToken;

use super::granted;
use super::stands::{Plainly, channel, configured, redis_door, site, terminal};
use super::support::redis::RedisServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_terminals_seat_is_free_within_the_lease_and_a_second() {
    let lease = Lease { length: Duration::from_millis(2_500), max_step: Duration::from_secs(2), ..Lease::DEFAULT };
    let server = RedisServer::start();
    let stop = CancellationToken::new();
    let registry = Registry::new(redis_door(&server.url(), lease), SystemClock::real(), lease, configured(2));
    let running = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move { registry.run(stop).await }
    });
    let door = redis_door(&server.url(), lease);
    let living = granted(&door, "s", "living", 2).await;
    let attachment = registry.attach(living);
    let dead = granted(&door, "s", "dead", 2).await;
    let died = Instant::now();
    let next = loop {
        match door.enter(site("s"), terminal("next"), 2).await.unwrap() {
            Opened::Granted { seat, .. } => break seat,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let free_after = died.elapsed();
    println!("a dead terminal's seat was free after {free_after:?} with a lease of {:?}", lease.length);
    assert_eq!(next.key, dead.key);
    // The machine is shared: half a second for a late timer.
    assert!(free_after <= lease.length + Duration::from_millis(1_500), "{free_after:?}");
    assert_eq!(door.look_up(dead).await.unwrap(), Standing::Replaced);
    assert_eq!(door.renewed(&[dead]).await.unwrap(), [Standing::Replaced], "it must not come back");

    tokio::time::sleep(lease.length * 3 / 2).await;
    assert_eq!(door.look_up(living).await.unwrap(), Standing::Live, "an attached seat is renewed");
    drop(attachment);
    let left = Instant::now();
    while door.look_up(living).await.unwrap() == Standing::Live {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(left.elapsed() <= lease.length + Duration::from_millis(1_500), "{:?}", left.elapsed());
    assert!(left.elapsed() >= Duration::from_millis(300), "a broken stream keeps the seat for a while");
    stop.cancel();
    running.await.unwrap();
}

/// Short, so that twenty of them pass in a few seconds.
const SHORT: Lease = Lease {
    length: Duration::from_millis(300),
    max_step: Duration::from_millis(100),
    grace: Duration::from_millis(900),
};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_costs_nobody_a_seat() {
    outage(|server| server.kill(), |server| server.restart()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_redis_costs_nobody_a_seat() {
    outage(|server| signal(server, "STOP"), |server| signal(server, "CONT")).await;
}

fn signal(server: &RedisServer, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &server.pid().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Two instances run through an outage of twenty leases; then those who were there still are, and those who died in it go.
async fn outage(begin: impl FnOnce(&mut RedisServer), end: impl FnOnce(&mut RedisServer)) {
    let mut server = RedisServer::start();
    let stop = CancellationToken::new();
    let instances: Vec<_> = (0..2)
        .map(|_| Registry::new(redis_door(&server.url(), SHORT), SystemClock::real(), SHORT, configured(1)))
        .collect();
    let running: Vec<_> = instances
        .iter()
        .map(|registry| {
            let (registry, stop) = (registry.clone(), stop.clone());
            tokio::spawn(async move { registry.run(stop).await })
        })
        .collect();
    let mut seats: Vec<Seat> = Vec::new();
    let mut attached = Vec::new();
    for n in 0..40 {
        let registry = &instances[n % 2];
        match registry.open(site(&format!("s{n}")), channel(), terminal("t"), Duration::ZERO).await.unwrap() {
            Opened::Granted { seat, .. } => {
                attached.push(registry.attach(seat));
                seats.push(seat);
            }
            other => panic!("{other:?}"),
        }
    }
    begin(&mut server);
    tokio::time::sleep(SHORT.length * 20).await;
    end(&mut server);

    let door = redis_door(&server.url(), SHORT);
    let back = Instant::now();
    while door.ticked().await.is_err() {
        assert!(back.elapsed() < Duration::from_secs(10), "the door does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for round in 0..2 {
        for seat in &seats {
            assert_eq!(door.look_up(*seat).await.unwrap(), Standing::Live, "{seat:?} in round {round}");
        }
        // Long enough for every seat's lease to end if nobody renewed it.
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    for (seat, registry) in seats.iter().zip(instances.iter().cycle()) {
        assert_eq!(registry.check(seat).await, Ok(()));
    }

    attached.clear();
    let died = Instant::now();
    while !all_lost(&door, &seats).await {
        assert!(died.elapsed() < Duration::from_secs(10), "the dead keep their seats");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.cancel();
    for instance in running {
        instance.await.unwrap();
    }
}

async fn all_lost(door: &impl Door, seats: &[Seat]) -> bool {
    for seat in seats {
        if door.look_up(*seat).await.unwrap() == Standing::Live {
            return false;
        }
    }
    true
}
