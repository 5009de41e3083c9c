//! The historic weeks lived through on Redis with a simulated clock.

use super::service::{Ran, Service, rationd};
use crate::support::redis::RedisServer;

const PROGRAMME: &str = "kr-public-mask-2020";
/// Born in 1965: on Monday 15 June everybody may buy.
const NUMBER: &str = "650412-1000330\n";

fn sell(service: &Service, quantity: &str) -> Ran {
    service.call(&["sell", "--programme", PROGRAMME, "--quantity", quantity, "--json"], NUMBER)
}

#[test]
fn three_on_15_june_seven_on_18_june_and_no_eighth() {
    let redis = RedisServer::start();
    let url = redis.url();
    let directory = tempfile::tempdir().unwrap();
    // A Redis on another machine serves several instances, which must have the same keys: nobody makes them.
    let elsewhere = rationd(directory.path(), &["check-config", "--store", "redis://192.0.2.1/"], "");
    assert_eq!(
        (elsewhere.code, elsewhere.err.contains("keys.toml: there is no key file")),
        (64, true),
        "{elsewhere:?}"
    );

    let on = |clock| Service::start(directory.path(), &["--store", &url, "--clock", clock], &[]);
    let june_15 = on("2020-06-15T09:00:00+09:00");
    assert!(june_15.greeting.contains("SIMULATED CLOCK: every receipt says so"), "{}", june_15.greeting);
    assert!(june_15.greeting.contains("kr-public-mask-2020 in force on 2020-06-15"), "{}", june_15.greeting);
    let first = sell(&june_15, "3");
    let said = first.json();
    assert_eq!((first.code, &said["decision"]), (0, &"APPROVED".into()), "{first:?}");
    assert_eq!(said["receipt"]["simulated_clock"], true);
    assert_eq!(said["receipt"]["durability"], "SYNCED");
    assert_eq!(said["left"]["units"], 0);
    let refused = sell(&june_15, "1");
    assert_eq!((refused.code, &refused.json()["decision"]), (1, &"QUOTA_EXHAUSTED".into()), "{refused:?}");

    // A second instance with the same keys, three days later by its own clock.
    let june_18 = on("2020-06-18T09:00:00+09:00");
    let seven = sell(&june_18, "7");
    let told = seven.json();
    assert_eq!((seven.code, &told["decision"]), (0, &"APPROVED".into()), "{seven:?}");
    assert!(told["receipt"]["sold_at"].as_str().unwrap().starts_with("2020-06-18T09:0"), "{seven:?}");
    assert_eq!(told["receipt"]["ledger_id"], said["receipt"]["ledger_id"]);
    assert_eq!(told["earlier"][0]["quantity"], 3);
    let eighth = sell(&june_18, "1");
    let why = eighth.json();
    assert_eq!((eighth.code, &why["decision"]), (1, &"QUOTA_EXHAUSTED".into()), "{eighth:?}");
    assert_eq!(why["left"]["units"], 0);
    assert_eq!(why["next_chance"]["date"], "2020-06-22");
    let page = june_18.call(&["check", "--programme", PROGRAMME], NUMBER).out;
    println!("{page}");
    assert!(page.contains("earlier  3 on 2020-06-15") && page.contains("earlier  7 on 2020-06-18"), "{page}");
    june_15.stop();
    june_18.stop();
}
