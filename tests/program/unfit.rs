//! A Redis that would lose sales, one that has lost some, and one that is away.

use std::path::Path;
use std::time::{Duration, Instant};

use super::service::{Service, rationd, refused, shell};
use super::shops::{SATURDAY, number};
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
    let service = Service::start(directory.path(), &["--store", &url, "--clock", SATURDAY], &[]);
    assert_eq!(service.call(&["health"], "").out, "NOT_SERVING\n");
    assert_eq!(service.call(&["health"], "").code, 1);
    // Alive all the same: nothing would be won by starting it again.
    assert_eq!(service.call(&["health", "--service", ""], "").code, 0);
    let who = number(1);
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

/// Returns when this file has been written anew, twice.
fn written_twice(file: &Path) {
    let begun = Instant::now();
    let text = || std::fs::read_to_string(file).unwrap_or_default();
    for _ in 0..2 {
        let before = text();
        while text() == before {
            assert!(begun.elapsed() < Duration::from_secs(20), "{before:?} stays");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Both were killed, and what Redis has is a copy of earlier.
#[test]
fn an_old_backup_is_refused_by_a_service_started_anew_until_somebody_says_so() {
    let mut redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    // Makes the keys.
    Service::start(directory.path(), &[], &[]).stop();
    let config = format!("store = \"{}\"\nkeys = \"rationd-data/keys.toml\"\nwitness = \"kept.json\"\n", redis.url());
    std::fs::write(directory.path().join("rationd.toml"), config).unwrap();
    let arguments = ["--config", "rationd.toml", "--clock", SATURDAY];
    let mut service = Service::start(directory.path(), &arguments, &[]);
    let approved = |service: &Service, who| {
        let sale = service.call(&["sell"], &number(who));
        assert!(sale.code == 0 && sale.out.contains("APPROVED"), "{sale:?}");
    };
    approved(&service, 1);
    assert_eq!(shell(redis.data(), "cp -r appendonlydir backup").code, 0);
    approved(&service, 2);
    let file = directory.path().join("kept.json");
    written_twice(&file);
    service.kill();
    redis.kill();
    assert_eq!(shell(redis.data(), "rm -r appendonlydir && mv backup appendonlydir").code, 0);
    redis.restart();

    for _ in 0..2 {
        let ran = refused(directory.path(), &arguments);
        println!("{}", ran.err);
        assert_eq!((ran.code, ran.out.as_str()), (64, ""), "{ran:?}");
        for said in ["Redis is behind what was acknowledged", &format!("remove its witness file ({})", file.display())]
        {
            assert!(ran.err.contains(said), "{said}: {ran:?}");
        }
    }
    let whole = std::fs::read(&file).unwrap();
    for length in [0, whole.len() / 2] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let checked = rationd(directory.path(), &["check-config", "--config", "rationd.toml"], "");
        for ran in [refused(directory.path(), &arguments), checked] {
            assert!(ran.code == 64 && ran.err.contains("kept.json is damaged"), "{ran:?}");
        }
    }

    std::fs::remove_file(&file).unwrap();
    let service = Service::start(directory.path(), &arguments, &[]);
    approved(&service, 3);
    assert_eq!(service.call(&["sell", "--quantity", "2"], &number(1)).code, 1, "the first sale stands");
    let again = service.call(&["sell", "--quantity", "2"], &number(2));
    assert_eq!(again.code, 0, "the second one is free to be made again: {again:?}");
    // A stop in order leaves what was acknowledged last.
    service.stop();
    let left: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let mark = &left["units"]["rationd:units"];
    let port = redis.port();
    let stands = shell(directory.path(), &format!("redis-cli -p {port} HGET rationd:units {}", mark["process"]));
    assert_eq!(stands.out.trim(), mark["acknowledged"].to_string(), "{stands:?}, {left}");
}
