//! The same over a Redis Cluster: every shard goes through its failovers alone, and slots move while counters sell.

use std::collections::HashSet;

use rationd::buyer::{Neighbour, OtherRing};
use rationd::ledger::Health;
use rationd::session::redis::DOOR_TAG;

use super::support::cluster::Nodes;
use super::*;

/// All that stands in the ledger, read shard by shard.
async fn exported(ledger: &Redis) -> Result<HashSet<BuyerKey>, LedgerError> {
    let (mut all, mut from) = (HashSet::new(), None);
    loop {
        let step = ledger.export("km".parse().unwrap(), from).await?;
        all.extend(step.records.into_iter().map(|(buyer, _)| buyer));
        from = step.next;
        if from.is_none() {
            return Ok(all);
        }
    }
}

/// A buyer as the second key names them, while the first is read too.
fn turned(number: u64) -> RecordKey {
    let RecordKey { programme, buyer: BuyerKey { partition, pseudonym }, turn: Turn { ring, .. } } = buyer(number);
    let second = Ring { id: 2, mark: KeyMark::from_bytes(*b"turned !") };
    let neighbour = Some(Neighbour { side: rationd::buyer::Side::Previous, ring, makes: pseudonym });
    let pseudonym = Pseudonym::from_bytes(pseudonym.as_bytes().map(|byte| !byte));
    RecordKey { programme, buyer: BuyerKey { partition, pseudonym }, turn: Turn { ring: second, neighbour } }
}

/// Sells to one buyer of every partition; how many could be sold to.
async fn sold_everywhere(ledger: &Redis, from: u64) -> usize {
    let mut sold = 0;
    for number in from..from + 256 {
        sold += usize::from(ledger.claim(buyer(number), call(RequestId::random()), sale()).await.is_ok());
    }
    sold
}

/// `LOSSES=52 cargo test --release --test replicated -- node_losses --nocapture` is the long form.
#[tokio::test(flavor = "multi_thread")]
async fn node_losses_of_a_cluster_lose_no_acknowledged_sale() {
    let losses: usize = std::env::var("LOSSES").ok().map_or(4, |many| many.parse().expect("a number"));
    let mut nodes = Nodes::start(1).await;
    let instance = Instance::open_at(&nodes.url(), false).await;
    assert_eq!(instance.ledger.durability(), Durability::Replicated);
    let (mut total, mut gaps) = (Audit::default(), Vec::new());
    for nth in 0..losses {
        let load = Load::begin_at(&instance.ledger, 10_000_000 * (1 + nth as u64));
        load.sells(500).await;
        let shards = nodes.shards().await;
        let (primary, replica) = shards.iter().nth(nth % 3).map(|(primary, replicas)| (*primary, replicas[0])).unwrap();
        let lost = if nth % 4 < 2 { primary } else { replica };
        load.mark();
        match nth % 2 {
            0 => nodes.all[lost].kill(),
            _ => nodes.all[lost].pause(),
        }
        // The other shards go on meanwhile.
        load.sells(300).await;
        assert!(matches!(instance.ledger.health(), Health::Serving(_)));
        match lost == primary {
            true => nodes.replaced(primary).await,
            false => tokio::time::sleep(Duration::from_secs(2)).await,
        }
        let gap = load.gap();
        let took_over = Instant::now();
        match nth % 2 {
            0 => nodes.all[lost].start_again(),
            _ => nodes.all[lost].resume(),
        }
        // Its shard, which has one replica only, sells again when both are there.
        while sold_everywhere(&instance.ledger, 256 * nth as u64).await < 256 {
            assert!(
                took_over.elapsed() < Duration::from_secs(30),
                "not all sell again: {:?}",
                instance.ledger.health()
            );
        }
        let back = took_over.elapsed();
        let audit = load.audit(&instance.ledger).await;
        println!(
            "loss {}: node {lost}, a {}, {}; {:.2} s without any receipt, all shards sell {:.2} s after it came back; {audit:?}",
            nth + 1,
            if lost == primary { "primary" } else { "replica" },
            if nth % 2 == 0 { "killed" } else { "paused" },
            gap.as_secs_f64(),
            back.as_secs_f64(),
        );
        gaps.push(back);
        total.add(&audit);
        nodes.whole().await;
    }
    gaps.sort();
    println!("{losses} losses: {total:?}; all shards sold {:?} after a node was back, at most", gaps.last().unwrap());
    assert_eq!((total.lost, total.resolved), (0, total.unknown), "{total:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_while_counters_sell() {
    let nodes = Nodes::start(1).await;
    let directory = tempfile::tempdir().unwrap();
    let witness = directory.path().join("witness.json");
    let instance = Instance::over(ledger_with(&nodes.url(), false, Some(&witness))).await;
    let load = Load::begin(&instance.ledger);
    load.sells(2_000).await;
    // The slots of partition 00, with the ledger's identity, and of other first partitions are among them.
    let home = nodes.keeper("{00}").await;
    let lines = nodes.lines().await;
    let id = |nth| lines.iter().find(|line| line.nth == nth).unwrap().id.clone();
    let to = *nodes.shards().await.keys().find(|nth| **nth != home).unwrap();
    let at = format!("127.0.0.1:{}", nodes.all[home].port);
    let words = ["--cluster", "reshard", &at, "--cluster-from", &id(home), "--cluster-to", &id(to)];
    let words = words.iter().chain(&["--cluster-slots", "2400", "--cluster-yes", "--cluster-pipeline", "100"]);
    nodes.redis_cli(&words.map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(nodes.keeper("{00}").await, to, "the identity has moved");
    load.sells(1_000).await;
    let started = Instant::now();
    while sold_everywhere(&instance.ledger, 1_000_000).await < 256 {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", instance.ledger.health());
    }
    let sold: HashSet<BuyerKey> = load.sold_to();
    let audit = load.audit(&instance.ledger).await;
    println!("2,400 slots moved: {audit:?}, {} turned away", audit.not_executed);
    assert_eq!((audit.lost, audit.resolved), (0, audit.unknown), "{audit:?}");
    let exported = exported(&instance.ledger).await.unwrap();
    assert!(sold.is_subset(&exported), "{} of {} sold are exported", sold.intersection(&exported).count(), sold.len());

    // The next process finds what this one has left wherever it has gone, and misses it in any shard.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    drop(instance);
    let anew = || ledger_with(&nodes.url(), false, Some(&witness));
    assert_eq!(anew().check_once().await, FirstCheck::Fit);
    let text: serde_json::Value = serde_json::from_slice(&std::fs::read(&witness).unwrap()).unwrap();
    let units = text["units"].as_object().unwrap();
    assert!(units.len() >= 3, "{text}");
    for (hash, mark) in units {
        let node = &nodes.all[nodes.keeper(&hash[..4]).await];
        let (process, acknowledged) = (mark["process"].as_str().unwrap(), mark["acknowledged"].as_u64().unwrap());
        let stands: u64 = node.tell::<String>(&["HGET", hash, process]).await.unwrap().parse().unwrap();
        assert!(stands >= acknowledged, "{hash}: {stands} of {acknowledged}");
        let _: u64 = node.tell(&["HSET", hash, process, &(acknowledged - 1).to_string()]).await.unwrap();
        // What one part has lost keeps nobody from working with the others.
        let is_home = nodes.keeper(&hash[..4]).await == nodes.keeper("{00}").await;
        let findings = match anew().check_once().await {
            FirstCheck::Unfit(findings) if is_home => findings.join(" "),
            FirstCheck::Away(finding) if !is_home => finding,
            check => panic!("{hash}: {check:?}"),
        };
        let told = format!("of an earlier process of this instance in {hash} is {}, and", acknowledged - 1);
        assert!(findings.contains(&told), "{findings}");
        let _: u64 = node.tell(&["HSET", hash, process, &stands.to_string()]).await.unwrap();
    }
    assert_eq!(anew().check_once().await, FirstCheck::Fit);

    // The key ring turns in all shards: everybody's second unit is sold under the second key, and nobody's third.
    let instance = Instance::over(anew()).await;
    assert_eq!(sold_everywhere(&instance.ledger, 2_000_000).await, 256);
    instance.ledger.turn(turned(0).turn.bare(), kept()).await.unwrap();
    for number in 2_000_000..2_000_256 {
        let asked = async || instance.ledger.claim(turned(number), call(RequestId::random()), sale()).await;
        assert!(matches!(asked().await.unwrap().outcome, Claimed::Recorded(_)), "{number}");
        assert!(matches!(asked().await.unwrap().outcome, Claimed::Refused(_)), "{number}");
    }
    let early = instance.ledger.turn(Turn::at(turned(0).turn.ring), kept()).await;
    assert!(matches!(early, Err(LedgerError::OtherRing(OtherRing::StillNeeded { ours: 2, .. }))), "{early:?}");
}

/// The replica that takes over does not know that some of the slot has gone: for it those buyers have never bought.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_half_moved_when_its_primary_was_lost_sells_to_nobody_twice() {
    const MOVED: u64 = 5;
    let mut nodes = Nodes::start(1).await;
    let instance = Instance::open_at(&nodes.url(), false).await;
    assert_eq!(sold_everywhere(&instance.ledger, 0).await, 256);
    let from = nodes.keeper("{05}").await;
    let to = *nodes.shards().await.keys().find(|nth| **nth != from).unwrap();
    let lines = nodes.lines().await;
    let id = |nth| lines.iter().find(|line| line.nth == nth).unwrap().id.clone();
    let slot: u16 = nodes.all[0].tell(&["CLUSTER", "KEYSLOT", "{05}"]).await.unwrap();
    let slot = slot.to_string();
    let _: String = nodes.all[to].tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]).await.unwrap();
    let _: String = nodes.all[from].tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]).await.unwrap();
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", nodes.all[from].port)).unwrap();
    let mut source = client.get_multiplexed_async_connection().await.unwrap();
    let record = rationd::ledger::redis::keys::record(&buyer(MOVED));
    let moved: String = redis::cmd("MIGRATE")
        .arg("127.0.0.1")
        .arg(nodes.all[to].port)
        .arg(record)
        .arg(0)
        .arg(1_000)
        .query_async(&mut source)
        .await
        .unwrap();
    assert_eq!(moved, "OK");
    nodes.all[from].kill();
    nodes.replaced(from).await;
    nodes.all[from].start_again();
    // Another partition of the same shard, sold to by the new primary.
    let same_shard = {
        let mut same = None;
        for partition in (0..=255_u64).filter(|partition| *partition != MOVED) {
            let at = nodes.keeper(&format!("{{{partition:02x}}}")).await;
            if at == nodes.keeper("{05}").await {
                same = Some(partition);
                break;
            }
        }
        same.unwrap()
    };
    let started = Instant::now();
    let mut other = 0;
    while started.elapsed() < Duration::from_secs(20) && other < 20 {
        let next = buyer(0x100 * (1_000 + other) + same_shard);
        other += u64::from(instance.ledger.claim(next, call(RequestId::random()), sale()).await.is_ok());
        let twice = instance.ledger.claim(buyer(MOVED), call(RequestId::random()), sale()).await;
        assert!(twice.is_err(), "sold to although nobody knows what was bought: {twice:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(other, 20, "the rest of the shard sells: {:?}", instance.ledger.health());
    let at = format!("127.0.0.1:{}", nodes.all[to].port);
    nodes.redis_cli(&["--cluster", "fix", &at, "--cluster-yes"].map(str::to_owned));
    let started = Instant::now();
    let found = loop {
        match instance.ledger.usage(buyer(MOVED)).await {
            Ok(record) => break record.entries().len(),
            Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(found, 1, "the sale is where it was moved to");
    println!(
        "a primary lost in the middle of a move: 20 of another partition sold, the moved one not until it was mended"
    );
}

/// Of two replicas both are waited for, until the Cluster holds one to have failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_waits_for_every_replica_that_has_not_failed() {
    let nodes = Nodes::start(2).await;
    let instance = Instance::open_at(&nodes.url(), false).await;
    let (partition, tag) = (0x41, "{41}");
    let sell =
        async |nth: u64| instance.ledger.claim(buyer(0x100 * nth + partition), call(RequestId::random()), sale()).await;
    assert!(sell(0).await.is_ok());
    let primary = nodes.keeper(tag).await;
    let replicas = nodes.shards().await[&primary].clone();
    let mut number = 1;
    for (round, replica) in replicas.iter().enumerate() {
        nodes.all[*replica].pause();
        let (started, mut unknown) = (Instant::now(), 0);
        loop {
            number += 1;
            match sell(number).await {
                Ok(_) => break,
                Err(LedgerError::Unconfirmed(_)) => unknown += 1,
                Err(_) => {}
            }
            assert!(started.elapsed() < Duration::from_secs(15), "{:?}", instance.ledger.health());
        }
        println!(
            "replica {round} of 2 paused: {unknown} sales unknown, sold again after {:.2} s",
            started.elapsed().as_secs_f64()
        );
        assert!(unknown > 0 && started.elapsed() > Duration::from_millis(1_000), "one replica was enough at once");
        nodes.all[*replica].resume();
        nodes.whole().await;
        // It is counted again.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_comes_back_empty_sells_nothing_and_the_others_do() {
    let mut nodes = Nodes::start(1).await;
    let instance = Instance::open_at(&nodes.url(), false).await;
    assert_eq!(sold_everywhere(&instance.ledger, 0).await, 256);
    let home = nodes.keeper("{00}").await;
    let shards = nodes.shards().await;
    let other = *shards.keys().find(|primary| **primary != home).unwrap();
    let mut expected = 256;
    for (primary, from) in [(other, 256), (home, 512)] {
        for node in [primary, shards[&primary][0]] {
            nodes.empty(node);
        }
        for node in [primary, shards[&primary][0]] {
            nodes.all[node].start_again();
        }
        nodes.whole().await;
        let sold = sold_everywhere(&instance.ledger, from).await;
        assert!(sold > 50 && sold < expected - 50, "{sold} of 256 partitions sold");
        expected = sold;
        // Nor does a process that begins now take the empty shard for a new one.
        let new = ledger_at(&nodes.url(), false);
        let told = match new.check_once().await {
            FirstCheck::Fit => panic!("the empty shard is taken"),
            FirstCheck::Away(told) if primary != home => told,
            FirstCheck::Unfit(findings) if primary == home => findings.join("; "),
            other => panic!("{other:?}"),
        };
        println!("a shard came back empty: {sold} of 256 partitions sell; a new process is told: {told}");
        assert!(
            told.contains(if primary == home { "partition 00 has lost" } else { "this primary has lost" }),
            "{told}"
        );
        assert_eq!(sold_everywhere(&new, 1_024 + from).await, if primary == home { 0 } else { sold });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_node_is_said_before_the_first_sale() {
    let nodes = Nodes::start(1).await;
    let alone = ledger_at(&format!("redis://127.0.0.1:{}/", nodes.all[0].port), false);
    let FirstCheck::Unfit(findings) = alone.check_once().await else {
        panic!("a node of a Cluster is taken for a server")
    };
    assert!(findings[0].contains("redis+cluster://"), "{findings:?}");
    for (setting, weak, good) in [
        ("appendfsync", "everysec", "always"),
        ("cluster-require-full-coverage", "yes", "no"),
        ("min-replicas-to-write", "0", "1"),
    ] {
        let _: String = nodes.all[1].tell(&["CONFIG", "SET", setting, weak]).await.unwrap();
        let ledger = ledger_at(&nodes.url(), false);
        let FirstCheck::Unfit(findings) = ledger.check_once().await else { panic!("{setting} {weak} is taken") };
        assert!(findings.len() == 1 && findings[0].contains(setting), "{findings:?}");
        let _: String = nodes.all[1].tell(&["CONFIG", "SET", setting, good]).await.unwrap();
        assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    }
    let single = support::redis::RedisServer::start();
    let ledger = ledger_at(&format!("redis+cluster://127.0.0.1:{}", single.port()), false);
    let FirstCheck::Away(why) = ledger.check_once().await else { panic!("a single server is taken for a Cluster") };
    assert!(why.contains("cluster support disabled"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn places_of_the_line_outlive_the_primary_that_keeps_them() {
    let mut nodes = Nodes::start(1).await;
    let lease =
        Lease { length: Duration::from_secs(10), max_step: Duration::from_secs(1), grace: Duration::from_secs(60) };
    let pool = RedisPool::new(&nodes.url(), 8).unwrap().for_key(DOOR_TAG, 8).unwrap();
    let door = RedisDoor::new(pool, lease);
    let mut places = Vec::new();
    for site in 0..100 {
        places.push(place(&door, site).await);
    }
    let owner = nodes.keeper("{door}").await;
    // Places wait for no replica: it is to have them here.
    let replica = nodes.shards().await[&owner][0];
    let offset = nodes.all[owner].info("master_repl_offset").await.unwrap().parse::<u64>().unwrap();
    let started = Instant::now();
    while nodes.all[replica].info("slave_repl_offset").await.is_none_or(|has| has.parse::<u64>().unwrap() < offset) {
        assert!(started.elapsed() < Duration::from_secs(20), "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    nodes.all[owner].kill();
    nodes.replaced(owner).await;
    // The new primary has no replica yet and takes no writes.
    nodes.all[owner].start_again();
    // The other way round: a line that was lost would give out the same numbers in the same order.
    for (site, number) in (0_u32..100).zip(&places).rev() {
        assert_eq!(place(&door, site).await, *number);
    }
    let next = place(&door, 1_000).await;
    assert!(places.iter().all(|number| next > *number + 100_000), "the numbers did not jump: {next}");
}
