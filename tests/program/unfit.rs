//! A Redis that would lose sales, and a Redis that is away.

use super::service::{Service, refused};
use crate::support::redis::RedisServer;

#[test]
fn a_redis_that_would_lose_sales_is_refused_by_name_of_each_setting() {
    let redis = RedisServer::start_with(&[
        "--appendonly",
        "no",
        "--appendfsync",
        "everysec",
        "--maxmemory-policy",
        "allkeys-lru",
    ]);
    let url = redis.url();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let ran = refused(directory.path(), &["--store", &url]);
    println!("{}", ran.err);
    assert_eq!((ran.code, ran.out.as_str()), (64, ""), "{ran:?}");
    for setting in [
        "appendonly is no: write `appendonly yes` in redis.conf, and for the running server CONFIG SET appendonly yes",
        "appendfsync is everysec: write `appendfsync always` in redis.conf",
        "maxmemory-policy is allkeys-lru: write `maxmemory-policy noeviction` in redis.conf",
    ] {
        assert!(ran.err.contains(setting), "{setting}: {ran:?}");
    }
    assert!(!ran.err.contains("no-appendfsync-on-rewrite"), "what is right is not told off: {ran:?}");

    let service = Service::start(directory.path(), &["--store", &url, "--allow-volatile"], &[]);
    assert!(service.greeting.contains("VOLATILE STORE"), "{}", service.greeting);
    let paste: Vec<_> = service.greeting.lines().last().unwrap().split_whitespace().skip(1).collect();
    let address = paste.iter().position(|word| *word == "--address").unwrap();
    let sale = service.call(&[&paste[..address], &["--json"]].concat(), "");
    assert_eq!((sale.code, &sale.json()["receipt"]["durability"]), (0, &"VOLATILE".into()), "{sale:?}");
    service.stop();
}

#[test]
fn a_redis_that_is_away_is_waited_for() {
    let mut redis = RedisServer::start();
    redis.kill();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let url = redis.url();
    let service = Service::start(directory.path(), &["--store", &url, "--clock", super::shops::SATURDAY], &[]);
    assert_eq!(service.call(&["health"], "").out, "NOT_SERVING\n");
    assert_eq!(service.call(&["health"], "").code, 1);
    // Alive all the same: nothing would be won by starting it again.
    assert_eq!(service.call(&["health", "--service", ""], "").code, 0);
    let who = super::shops::number(1);
    let sale = service.call(&["sell", "--json"], &who);
    assert_eq!((sale.code, &sale.json()["error"]), (3, &"STORE_UNAVAILABLE".into()), "{sale:?}");
    redis.restart();
    service.await_health(0);
    assert_eq!(service.call(&["sell"], &who).code, 0);
    redis.kill();
    service.await_health(1);
    redis.restart();
    service.await_health(0);
    assert_eq!(service.call(&["sell"], &who).code, 0);
    service.stop();
}
