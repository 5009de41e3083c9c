//! The ledger in Redis where Redis itself matters: settings that would lose sales, a server that is away, killed, frozen,
//! demoted, emptied or full, a clock that is off. Every server is a real one of the test's own.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail by panicking, tells what it counted, and waits by the machine's clock"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rationd::buyer::{BuyerKey, KeyMark, Neighbour, OtherRing, Pseudonym, Ring, Side, Turn};
use rationd::events::{Events, From};
use rationd::ids::RequestId;
use rationd::ledger::outbox::{After, Outbox, Place};
use rationd::ledger::redis::{FirstCheck, RedisLedger, RedisOptions, Seen, Witness, keys};
use rationd::ledger::{
    Answer, Call, Claim, Claimed, Durability, Health, Kept, Late, Ledger, LedgerError, OUTBOX_EVENTS, Record,
    RecordKey, Resolved, Terms, packed,
};
use rationd::policy::Window;
use rationd::redis_pool::RedisPool;
use rationd::time::{Clock, SystemClock, Timestamp};
use redis::Value;
use redis::aio::MultiplexedConnection;
use support::redis::{DURABLE, RedisServer, lanes};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The ring of keys of these ledgers, at rest.
fn turn<T>() -> Turn<T> {
    Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"of tests") })
}

/// That of another key file.
fn other_keys() -> Turn {
    Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"another!") })
}

/// How long purchases are kept.
const KEPT: Duration = Duration::from_secs(15 * 86_400);

/// What these ledgers are begun with under this clock.
fn terms<C: Clock>(clock: &C) -> Terms {
    let programmes = vec![("km".parse().unwrap(), "masks kr_resident".to_owned())];
    let kept = Kept { now: clock.now(), length: KEPT };
    Terms { turn: turn(), kept, simulated_clock: clock.is_simulated(), programmes }
}

/// No call may take longer: the ledger's deadline of 2 s, and some for a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_millis(2_500);
/// Everything that heals by itself must have done so by then.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

fn open<C: Clock>(server: &RedisServer, allow_volatile: bool, clock: C) -> RedisLedger<C> {
    let options =
        RedisOptions { allow_volatile, terms: terms(&clock), lanes: lanes(), witness: None, seen: Seen::default() };
    RedisLedger::open(RedisPool::new(&server.url(), 8).unwrap(), options, clock)
}

/// A ledger as a process would open it that has this witness file.
fn open_with(server: &RedisServer, witness: &Path) -> RedisLedger<SystemClock> {
    let clock = SystemClock::real();
    let witness = Some(Arc::new(Witness::open(witness).unwrap()));
    let options =
        RedisOptions { allow_volatile: false, terms: terms(&clock), lanes: lanes(), witness, seen: Seen::default() };
    RedisLedger::open(RedisPool::new(&server.url(), 8).unwrap(), options, clock)
}

/// A ledger that watches over its server for as long as the handle lives.
async fn serving(server: &RedisServer) -> (RedisLedger<SystemClock>, AbortOnDropHandle<()>) {
    let ledger = open(server, false, SystemClock::real());
    let watching = watched(&ledger);
    healed(&ledger).await;
    (ledger, watching)
}

fn watched<C: Clock>(ledger: &RedisLedger<C>) -> AbortOnDropHandle<()> {
    let ledger = ledger.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { ledger.run(CancellationToken::new()).await }))
}

async fn healed<C: Clock>(ledger: &RedisLedger<C>) {
    let ready = tokio::time::timeout(HEALED_WITHIN, ledger.ready()).await;
    assert!(ready.is_ok(), "still {:?}", ledger.health());
}

/// Waits until health says no, and returns why.
async fn not_serving<C: Clock>(ledger: &RedisLedger<C>) -> String {
    let started = Instant::now();
    loop {
        if let Health::NotServing(reason) = ledger.health() {
            return reason;
        }
        assert!(started.elapsed() < HEALED_WITHIN, "still serving");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn buyer(number: u8) -> RecordKey {
    let buyer = BuyerKey { partition: number, pseudonym: Pseudonym::from_bytes([number; 16]) };
    RecordKey { programme: "km".parse().unwrap(), buyer, turn: turn() }
}

fn call(request: RequestId) -> Call {
    let now = SystemClock::real().now();
    Call { request, site: "11000001".parse().unwrap(), terminal: "w1".parse().unwrap(), now }
}

fn no_limit() -> Window {
    Window { from: Timestamp::EPOCH, until: Timestamp::NEVER, max_units: None, max_purchases: None }
}

fn sale() -> Claim {
    Claim {
        quantity: 1,
        hold_for: None,
        windows: [no_limit()].into_iter().collect(),
        good_until: Timestamp::NEVER,
        stated: String::new(),
    }
}

async fn sell<C: Clock>(ledger: &RedisLedger<C>, request: RequestId) -> Result<Answer<Claimed>, LedgerError> {
    let asked = Instant::now();
    let answer = ledger.claim(buyer(1), call(request), sale()).await;
    assert!(asked.elapsed() < ANSWERED_WITHIN, "answered after {:?}: {answer:?}", asked.elapsed());
    answer
}

/// Sells, and insists on the receipt.
async fn sold<C: Clock>(ledger: &RedisLedger<C>, request: RequestId) {
    let answer = sell(ledger, request).await.unwrap();
    assert!(matches!(answer.outcome, Claimed::Recorded(_)), "{answer:?}");
}

async fn resolve<C: Clock>(ledger: &RedisLedger<C>, request: RequestId) -> Resolved {
    ledger.resolve(buyer(1), call(request)).await.unwrap().outcome
}

/// A client beside the ledger.
async fn client(server: &RedisServer) -> redis::aio::MultiplexedConnection {
    redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn tell(server: &RedisServer, words: &[&str]) -> Value {
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    cmd.query_async(&mut client(server).await).await.unwrap()
}

fn signal(server: &RedisServer, signal: &str) {
    assert!(Command::new("kill").args([signal, &server.pid().to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn each_weak_setting_alone_is_refused_by_name_and_allowed_when_asked_for() {
    for (name, weak, needed) in [
        ("appendonly", "no", "yes"),
        ("appendfsync", "everysec", "always"),
        ("no-appendfsync-on-rewrite", "yes", "no"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ] {
        let flag = format!("--{name}");
        let server = RedisServer::start_with(&[DURABLE, &[&flag, weak]].concat());

        let strict = open(&server, false, SystemClock::real());
        let FirstCheck::Unfit(findings) = strict.check_once().await else { panic!("{name} {weak} was accepted") };
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with(&format!("{name} is {weak}: ")), "{findings:?}");
        assert!(findings[0].contains(&format!("`{name} {needed}` in redis.conf")), "{findings:?}");
        assert!(matches!(strict.health(), Health::NotServing(reason) if reason.contains(name)));
        let refused = sell(&strict, RequestId::random()).await;
        assert!(matches!(refused, Err(LedgerError::StoreUnavailable(reason)) if reason.contains(name)));
        assert_eq!(tell(&server, &["DBSIZE"]).await, Value::Int(0), "an unfit server is left as it is");

        let lenient = open(&server, true, SystemClock::real());
        assert_eq!(lenient.check_once().await, FirstCheck::Fit);
        assert_eq!((strict.durability(), lenient.durability()), (Durability::Synced, Durability::Volatile));
        assert!(matches!(sell(&lenient, RequestId::random()).await.unwrap().outcome, Claimed::Recorded(_)));
    }
}

#[tokio::test]
async fn everything_wrong_is_said_at_once_and_hidden_settings_are_wrong() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "volatile-ttl"]);
    let FirstCheck::Unfit(findings) = open(&server, false, SystemClock::real()).check_once().await else { panic!() };
    let named: Vec<&str> = findings.iter().filter_map(|finding| finding.split(' ').next()).collect();
    assert_eq!(named, ["appendonly", "appendfsync", "maxmemory-policy"]);

    let denied = RedisServer::start();
    tell(&denied, &["ACL", "SETUSER", "default", "-config"]).await;
    let renamed = RedisServer::start_with(&[DURABLE, &["--rename-command", "CONFIG", "nobody-knows"]].concat());
    for server in [denied, renamed] {
        let FirstCheck::Unfit(findings) = open(&server, false, SystemClock::real()).check_once().await else {
            panic!()
        };
        assert_eq!(findings.len(), 4, "{findings:?}");
        assert!(findings.iter().all(|finding| finding.contains("is hidden")), "{findings:?}");
        assert_eq!(open(&server, true, SystemClock::real()).check_once().await, FirstCheck::Fit);
    }
}

#[tokio::test]
async fn a_replica_is_refused_whatever_is_allowed() {
    let server = RedisServer::start();
    tell(&server, &["REPLICAOF", "127.0.0.1", "1"]).await;
    let FirstCheck::Unfit(findings) = open(&server, true, SystemClock::real()).check_once().await else { panic!() };
    assert!(findings.len() == 1 && findings[0].contains("role:slave"), "{findings:?}");
}

#[tokio::test]
async fn a_setting_weakened_while_running_stops_commits_until_it_is_put_right() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    tell(&server, &["CONFIG", "SET", "appendfsync", "everysec"]).await;
    assert!(not_serving(&ledger).await.contains("appendfsync is everysec"));
    let refused = sell(&ledger, RequestId::random()).await;
    assert!(matches!(refused, Err(LedgerError::StoreUnavailable(reason)) if reason.contains("appendfsync")));
    tell(&server, &["CONFIG", "SET", "appendfsync", "always"]).await;
    healed(&ledger).await;
    assert!(sell(&ledger, RequestId::random()).await.is_ok());
}

#[tokio::test]
async fn redis_away_at_start_is_waited_for() {
    let mut server = RedisServer::start();
    server.kill();
    let ledger = open(&server, false, SystemClock::real());
    assert!(matches!(ledger.check_once().await, FirstCheck::Away(_)));
    let _watching = watched(&ledger);
    assert!(matches!(sell(&ledger, RequestId::random()).await, Err(LedgerError::StoreUnavailable(_))));
    assert!(matches!(ledger.health(), Health::NotServing(_)));
    server.restart();
    healed(&ledger).await;
    assert!(sell(&ledger, RequestId::random()).await.is_ok());
}

#[tokio::test]
async fn first_checks_at_the_same_time_agree_on_one_ledger() {
    let server = RedisServer::start();
    let checks: Vec<_> = (0..8)
        .map(|_| {
            let ledger = open(&server, false, SystemClock::real());
            tokio::spawn(async move { (ledger.check_once().await, ledger.health()) })
        })
        .collect();
    let mut found = Vec::new();
    for check in checks {
        found.push(check.await.unwrap());
    }
    let Health::Serving(id) = found[0].1.clone() else { panic!("{found:?}") };
    assert!(found.iter().all(|one| *one == (FirstCheck::Fit, Health::Serving(id))), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_loses_nothing_acknowledged() {
    let mut server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    for round in 0..5 {
        // A record of its own for each round: one site may close only sixteen ids in one.
        let key = buyer(10 + round);
        let (receipts, killed) = (Arc::new(AtomicI64::new(0)), CancellationToken::new());
        let sellers: Vec<_> = (0..8)
            .map(|_| {
                let (ledger, receipts, killed) = (ledger.clone(), Arc::clone(&receipts), killed.clone());
                tokio::spawn(async move {
                    let (mut sold, mut unknown) = (Vec::new(), Vec::new());
                    loop {
                        let request = RequestId::random();
                        match ledger.claim(key, call(request), sale()).await {
                            Ok(_) => {
                                sold.push(request);
                                receipts.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(LedgerError::Unconfirmed(_)) => unknown.push(request),
                            Err(_) if killed.is_cancelled() => return (sold, unknown),
                            // After a restart the server is looked at before anything is sold.
                            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                        }
                    }
                })
            })
            .collect();
        let started = Instant::now();
        while receipts.load(Ordering::SeqCst) <= 8 {
            assert!(started.elapsed() < HEALED_WITHIN, "nothing is sold");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(37 * u64::from(round))).await;
        server.kill();
        killed.cancel();
        let (mut sold, mut unknown) = (Vec::new(), Vec::new());
        for seller in sellers {
            let (more_sold, more_unknown) = seller.await.unwrap();
            sold.extend(more_sold);
            unknown.extend(more_unknown);
        }
        server.restart();
        let restarted = Instant::now();
        let record = loop {
            match ledger.usage(key).await {
                Ok(record) => break record,
                Err(error) => assert!(restarted.elapsed() < HEALED_WITHIN, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        for request in &sold {
            assert!(record.find(*request).is_some(), "lost {request} of round {round}");
        }
        for request in &unknown {
            let expected = record.find(*request).is_some();
            let resolved = ledger.resolve(key, call(*request)).await.unwrap().outcome;
            assert_eq!(matches!(resolved, Resolved::Recorded(_)), expected, "{resolved:?}");
            assert_eq!(resolved == Resolved::NotRecorded, !expected, "{resolved:?}");
        }
    }
}

#[tokio::test]
async fn an_emptied_server_is_never_taken_for_the_ledger() {
    let mut server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let Health::Serving(ours) = ledger.health() else { panic!() };
    let request = RequestId::random();
    sold(&ledger, request).await;

    server.kill();
    let kept = tempfile::tempdir().unwrap();
    std::fs::rename(server.data().join("appendonlydir"), kept.path().join("aof")).unwrap();
    server.restart();
    // From its very first moment: no call may slip through before somebody has looked.
    for _ in 0..50 {
        let refused = sell(&ledger, RequestId::random()).await;
        assert!(matches!(refused, Err(LedgerError::StoreUnavailable(_) | LedgerError::Unconfirmed(_))), "{refused:?}");
    }
    let reason = loop {
        let reason = not_serving(&ledger).await;
        if reason.contains("ledger") {
            break reason;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(reason.contains(&ours.to_string()) && reason.contains("no ledger at all"), "{reason}");
    assert_eq!(tell(&server, &["DBSIZE"]).await, Value::Int(0), "nothing was written, no new id was made");

    server.kill();
    std::fs::remove_dir_all(server.data().join("appendonlydir")).unwrap();
    std::fs::rename(kept.path().join("aof"), server.data().join("appendonlydir")).unwrap();
    server.restart();
    healed(&ledger).await;
    assert_eq!(ledger.health(), Health::Serving(ours));
    assert!(matches!(resolve(&ledger, request).await, Resolved::Recorded(_)));
}

#[tokio::test]
async fn a_ledger_is_opened_under_its_own_terms_only() {
    let server = RedisServer::start();
    let ours = terms(&SystemClock::real());
    let with = |given: &[(&str, &str)]| {
        let programmes = given.iter().map(|(code, text)| (code.parse().unwrap(), (*text).to_owned())).collect();
        Terms { programmes, ..ours.clone() }
    };
    let check = async |terms: Terms| {
        let options =
            RedisOptions { allow_volatile: true, terms, lanes: lanes(), witness: None, seen: Seen::default() };
        let pool = RedisPool::new(&server.url(), 2).unwrap();
        RedisLedger::open(pool, options, SystemClock::real()).check_once().await
    };
    let stands = async || -> std::collections::BTreeMap<String, String> {
        redis::cmd("HGETALL").arg(keys::LEDGER).query_async(&mut client(&server).await).await.unwrap()
    };
    assert_eq!(check(ours.clone()).await, FirstCheck::Fit);
    let born = stands().await;
    let fields: Vec<&str> = born.keys().map(String::as_str).collect();
    assert_eq!(fields, ["clock", "id", "keys", "layout", "programme:km"]);
    assert_eq!((born["clock"].as_str(), born["programme:km"].as_str()), ("real", "masks kr_resident"));

    let mut everything = with(&[("new", "new opaque"), ("km", "masks opaque")]);
    everything.turn = other_keys();
    everything.simulated_clock = true;
    for (terms, said) in [
        (Terms { turn: other_keys(), ..with(&[("new", "new opaque")]) }, vec!["another key file"]),
        (Terms { simulated_clock: true, ..ours.clone() }, vec!["was begun under the real clock"]),
        (with(&[("km", "masks opaque")]), vec!["the code km stands for \"masks kr_resident\""]),
        (with(&[("new", "new opaque"), ("km", "pills kr_resident")]), vec!["a `code` of its own"]),
        (everything, vec!["another key file", "name another store for a simulated one", "the code km"]),
    ] {
        let FirstCheck::Unfit(findings) = check(terms.clone()).await else { panic!("it was taken under {terms:?}") };
        assert_eq!(findings.len(), said.len(), "{findings:?}");
        assert!(findings.iter().zip(said).all(|(finding, said)| finding.contains(said)), "{findings:?}");
        assert_eq!(stands().await, born, "what is refused changes nothing");
    }
    // A programme comes, and is remembered while it is away.
    assert_eq!(check(with(&[("new", "new opaque")])).await, FirstCheck::Fit);
    assert_eq!(check(ours.clone()).await, FirstCheck::Fit);
    assert!(matches!(check(with(&[("new", "other opaque")])).await, FirstCheck::Unfit(_)));
    assert_eq!(check(with(&[])).await, FirstCheck::Fit);
}

#[tokio::test]
async fn a_ledger_of_another_layout_is_refused_and_left_alone() {
    let server = RedisServer::start();
    for layout in [keys::LAYOUT - 1, keys::LAYOUT + 1] {
        tell(&server, &["HSET", keys::LEDGER, "id", &RequestId::random().to_string(), "layout", &layout.to_string()])
            .await;
        let FirstCheck::Unfit(findings) = open(&server, true, SystemClock::real()).check_once().await else {
            panic!("layout {layout} was taken")
        };
        let said = format!("this version reads layout {} only; use the version that wrote it", keys::LAYOUT);
        assert!(findings.len() == 1 && findings[0].contains(&said), "{findings:?}");
        assert_eq!(tell(&server, &["HLEN", keys::LEDGER]).await, Value::Int(2), "nothing was added");
    }
}

#[tokio::test]
async fn a_ledger_begun_under_a_simulated_clock_is_not_for_real_sales() {
    let server = RedisServer::start();
    let start = "2020-03-11T09:00:00+09:00".parse().unwrap();
    assert_eq!(open(&server, false, SystemClock::starting_at(start)).check_once().await, FirstCheck::Fit);
    let FirstCheck::Unfit(findings) = open(&server, false, SystemClock::real()).check_once().await else { panic!() };
    let said = "this ledger was begun under a simulated clock (serve --clock); name another store for real sales";
    assert!(findings.len() == 1 && findings[0].contains(said), "{findings:?}");
}

#[tokio::test]
async fn a_flushed_server_is_noticed() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    tell(&server, &["FLUSHALL"]).await;
    assert!(not_serving(&ledger).await.contains("no ledger at all"));
}

#[tokio::test]
async fn a_reply_that_never_comes_leaves_the_outcome_unknown_and_the_id_tells_it() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    // Reads pass, so the connection is found alive; the script is sent, and waits beyond the deadline.
    tell(&server, &["CLIENT", "PAUSE", "3000", "WRITE"]).await;
    let request = RequestId::random();
    let unknown = sell(&ledger, request).await;
    assert!(matches!(unknown, Err(LedgerError::Unconfirmed(_))), "{unknown:?}");
    tell(&server, &["CLIENT", "UNPAUSE"]).await;
    healed(&ledger).await;
    let resolved = resolve(&ledger, request).await;
    let again = ledger.claim(buyer(1), call(request), sale()).await;
    match resolved {
        Resolved::Recorded(entry) => assert_eq!(again.unwrap().outcome, Claimed::Recorded(entry)),
        Resolved::NotRecorded => assert_eq!(again, Err(LedgerError::RequestIdClosed)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_holds_nobody_longer_than_the_deadline() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let sellers: Vec<_> = (0..8)
        .map(|_| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                loop {
                    let request = RequestId::random();
                    // `sell` insists on the deadline.
                    if let Err(error) = sell(&ledger, request).await {
                        return (request, error);
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    signal(&server, "-STOP");
    let mut unknown = Vec::new();
    for seller in sellers {
        match seller.await.unwrap() {
            (request, LedgerError::Unconfirmed(_)) => unknown.push(request),
            (_, LedgerError::StoreUnavailable(_) | LedgerError::Overloaded) => {}
            (_, error) => panic!("{error:?}"),
        }
    }
    not_serving(&ledger).await;
    let asked = Instant::now();
    assert!(matches!(sell(&ledger, RequestId::random()).await, Err(LedgerError::StoreUnavailable(_))));
    assert!(asked.elapsed() < Duration::from_millis(100), "while the store is known to be frozen nobody waits for it");
    signal(&server, "-CONT");
    let thawed = Instant::now();
    healed(&ledger).await;
    println!("serving {:?} after the thaw, {} outcomes were unknown", thawed.elapsed(), unknown.len());
    for request in unknown {
        let resolved = resolve(&ledger, request).await;
        assert!(matches!(resolved, Resolved::Recorded(_) | Resolved::NotRecorded), "{resolved:?}");
    }
}

#[tokio::test]
async fn a_demoted_server_sells_and_tells_nothing_until_it_is_the_primary_again() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let request = RequestId::random();
    sold(&ledger, request).await;
    tell(&server, &["REPLICAOF", "127.0.0.1", "1"]).await;
    // Not even a replay: what a demoted server knows may be out of date.
    for request in [RequestId::random(), request] {
        let refused = sell(&ledger, request).await;
        assert!(matches!(refused, Err(LedgerError::StoreUnavailable(_))), "{refused:?}");
    }
    assert!(not_serving(&ledger).await.contains("role:slave"));
    tell(&server, &["REPLICAOF", "NO", "ONE"]).await;
    healed(&ledger).await;
    assert!(sell(&ledger, request).await.unwrap().replayed);
}

#[tokio::test]
async fn a_full_or_busy_server_and_lost_scripts_are_told_apart_from_unknown_outcomes() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let request = RequestId::random();

    tell(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = sell(&ledger, request).await;
    assert!(matches!(&full, Err(LedgerError::StoreUnavailable(reason)) if reason.contains("OOM")), "{full:?}");
    tell(&server, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(!sell(&ledger, request).await.unwrap().replayed, "the full server had written nothing");

    tell(&server, &["SCRIPT", "FLUSH"]).await;
    assert!(sell(&ledger, request).await.unwrap().replayed);

    tell(&server, &["CONFIG", "SET", "busy-reply-threshold", "10"]).await;
    let mut looping = client(&server).await;
    let busy =
        tokio::spawn(async move { redis::cmd("EVAL").arg("while true do end").arg(0).exec_async(&mut looping).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = sell(&ledger, RequestId::random()).await;
    assert!(matches!(refused, Err(LedgerError::StoreUnavailable(_))), "{refused:?}");
    tell(&server, &["SCRIPT", "KILL"]).await;
    let _ = busy.await.unwrap();
    healed(&ledger).await;
    assert!(sell(&ledger, RequestId::random()).await.is_ok());
}

/// The machine's clock and so many milliseconds more, as a clock that is wrong and does not know it.
#[derive(Clone, Debug)]
struct WrongClock(SystemClock, Arc<AtomicI64>);

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.now().as_millis() + self.1.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn is_simulated(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn clocks_more_than_half_a_second_apart_stop_everything() {
    let server = RedisServer::start();
    let wrong_by = Arc::new(AtomicI64::new(0));
    let ledger = open(&server, false, WrongClock(SystemClock::real(), Arc::clone(&wrong_by)));
    assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    let _watching = watched(&ledger);
    let request = RequestId::random();
    sold(&ledger, request).await;
    for skew in [2_000, -2_000] {
        let before = ledger.usage(buyer(1)).await.unwrap();
        wrong_by.store(skew, Ordering::SeqCst);
        assert!(not_serving(&ledger).await.contains("ms apart"));
        let Err(LedgerError::ClocksApart(apart)) = sell(&ledger, RequestId::random()).await else { panic!() };
        assert!((1_500..=2_500).contains(&apart), "{apart}");
        let (key, again) = (buyer(1), call(request));
        let late = Late { quantity: 1, sold_at: again.now, windows: Vec::new(), stated: String::new() };
        let answers = [
            ledger.confirm(key, again).await.map(drop),
            ledger.release(key, again).await.map(drop),
            ledger.void(key, again).await.map(drop),
            ledger.late(key, call(RequestId::random()), late).await.map(drop),
            ledger.resolve(key, again).await.map(drop),
            ledger.usage(key).await.map(drop),
            ledger.sweep(key.programme, Timestamp::NEVER, None).await.map(drop),
        ];
        for (place, answer) in answers.into_iter().enumerate() {
            assert!(matches!(answer, Err(LedgerError::ClocksApart(_))), "{place}: {answer:?}");
        }
        wrong_by.store(0, Ordering::SeqCst);
        healed(&ledger).await;
        assert_eq!(ledger.usage(buyer(1)).await.unwrap(), before, "nothing was written");
        sold(&ledger, RequestId::random()).await;
        assert!(matches!(resolve(&ledger, request).await, Resolved::Recorded(_)));
    }
}

/// An instance whose clock is so many days ahead, beside one whose clock is right.
async fn days_ahead(server: &RedisServer, days: i64) -> (RedisLedger<WrongClock>, Timestamp) {
    let clock = WrongClock(SystemClock::real(), Arc::new(AtomicI64::new(days * 86_400_000)));
    let ledger = open(server, false, clock.clone());
    assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    (ledger, clock.now())
}

#[tokio::test]
async fn a_sweep_from_400_days_ahead_removes_nothing() {
    let server = RedisServer::start();
    let (right, _watching) = serving(&server).await;
    let request = RequestId::random();
    sold(&right, request).await;
    let (wrong, now) = days_ahead(&server, 400).await;
    let swept = wrong.sweep(buyer(1).programme, now.minus(Duration::from_secs(16 * 86_400)), None).await;
    assert!(right.usage(buyer(1)).await.unwrap().find(request).is_some(), "the live sale is still there: {swept:?}");
    assert!(matches!(swept, Err(LedgerError::ClocksApart(_))), "{swept:?}");
}

#[tokio::test]
async fn a_question_from_8_days_ahead_writes_nothing() {
    let server = RedisServer::start();
    let (right, _watching) = serving(&server).await;
    let held = RequestId::random();
    let hold = Claim { hold_for: Some(Duration::from_secs(3_600)), ..sale() };
    assert!(matches!(right.claim(buyer(1), call(held), hold).await.unwrap().outcome, Claimed::Held(_)));
    let before = right.usage(buyer(1)).await.unwrap();
    let (wrong, now) = days_ahead(&server, 8).await;
    for request in [held, RequestId::random()] {
        let resolved = wrong.resolve(buyer(1), Call { now, ..call(request) }).await;
        assert!(matches!(resolved, Err(LedgerError::ClocksApart(_))), "{resolved:?}");
    }
    assert_eq!(right.usage(buyer(1)).await.unwrap(), before, "the hold lives, and the ledger's time is as it was");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_corrupt_and_ends_no_sweep_and_no_export() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let mut connection = client(&server).await;
    for number in 0..40 {
        let past = Call { now: Timestamp::from_millis(1_000), ..call(RequestId::random()) };
        assert!(matches!(ledger.claim(buyer(number), past, sale()).await.unwrap().outcome, Claimed::Recorded(_)));
    }
    let good: Vec<u8> = redis::cmd("GET").arg(keys::record(&buyer(3))).query_async(&mut connection).await.unwrap();
    let state_0 = [&good[..17], &[0], &good[18..]].concat();
    let flag_8 = [&good[..18], &[8], &good[19..]].concat();
    let no_site = [&good[..16], &[18], &good[17..35]].concat();
    let damage: [(u8, &[u8]); 5] = [(3, b"short"), (9, &state_0), (20, &flag_8), (31, &good[..42]), (35, &no_site)];
    for (number, value) in damage {
        let mut append = redis::cmd("APPEND");
        let _: i64 = append.arg(keys::record(&buyer(number))).arg(value).query_async(&mut connection).await.unwrap();
    }
    let key = keys::record(&buyer(33));
    tell(&server, &["DEL", std::str::from_utf8(&key).unwrap()]).await;
    let mut hset = redis::cmd("HSET");
    let _: i64 = hset.arg(&key).arg("a hash").arg("text").query_async(&mut connection).await.unwrap();
    let unreadable = [3, 9, 20, 31, 33, 35];
    let exported = export(&ledger).await;
    let read = |number: u8| exported.iter().filter(move |(of, _)| *of == buyer(number).buyer).map(|(_, record)| record);
    for number in 0..40 {
        let found: Vec<_> = read(number).collect();
        let expected = if unreadable.contains(&number) { None } else { ledger.usage(buyer(number)).await.ok() };
        assert_eq!(found, [&expected], "{number}");
    }
    let (mut removed, mut passed_over, mut from) = (0, 0, None);
    loop {
        let step = ledger.sweep(buyer(1).programme, Timestamp::from_millis(2_000), from).await.unwrap();
        removed += step.removed;
        passed_over += step.unreadable;
        from = step.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((removed, passed_over), (34, 6));
    for number in unreadable {
        let read = ledger.usage(buyer(number)).await;
        // Redis reads what is no string as if nothing were there when it reads several keys at once.
        let expected =
            if number == 33 { read == Ok(Record::default()) } else { matches!(read, Err(LedgerError::Corrupt(_))) };
        assert!(expected, "{number}: {read:?}");
        let kind: String =
            redis::cmd("TYPE").arg(keys::record(&buyer(number))).query_async(&mut connection).await.unwrap();
        assert_ne!(kind, "none", "{number} is left as it was");
    }
}

/// How often the server has run each of these commands since its counts began.
async fn ran<const N: usize>(server: &RedisServer, commands: [&str; N]) -> [u64; N] {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut client(server).await).await.unwrap();
    commands.map(|command| {
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    })
}

#[tokio::test]
async fn a_claim_reads_once_whether_the_ring_turns_or_not() {
    const COMMANDS: [&str; 6] = ["evalsha", "mget", "xadd", "set", "del", "hincrby"];
    let server = RedisServer::start();
    let ledger = open(&server, false, SystemClock::real());
    assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    // The same buyers under the second key.
    let turned = |number: u8| {
        let key = buyer(number);
        let neighbour = Neighbour { side: Side::Previous, ring: ring(1), makes: key.buyer.pseudonym };
        let pseudonym = Pseudonym::from_bytes([number ^ 0xff; 16]);
        RecordKey {
            buyer: BuyerKey { pseudonym, ..key.buyer },
            turn: Turn { ring: ring(2), neighbour: Some(neighbour) },
            ..key
        }
    };
    let count = async |of: &str, key: &dyn Fn(u8) -> RecordKey| {
        let before = ran(&server, COMMANDS).await;
        for number in 0..100 {
            let claimed = ledger.claim(key(number), call(RequestId::random()), sale()).await.unwrap();
            assert!(matches!(claimed.outcome, Claimed::Recorded(_)));
        }
        let after = ran(&server, COMMANDS).await;
        let counts: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        println!("100 claims, {of}: {COMMANDS:?} {counts:?}");
        counts
    };
    // The first call in each partition marks it.
    assert_eq!(count("each the first of its partition", &buyer).await, [100, 100, 100, 200, 0, 100]);
    assert_eq!(count("at rest", &buyer).await, [100, 100, 100, 100, 0, 100]);
    let kept = Kept { now: SystemClock::real().now(), length: KEPT };
    ledger.turn(second(), kept).await.unwrap();
    assert_eq!(count("each the buyer's first after a turn", &turned).await, [100, 100, 100, 100, 100, 100]);
    assert_eq!(count("while the previous key is read", &turned).await, [100, 100, 100, 100, 0, 100]);
    for number in 0..100 {
        assert_eq!(ledger.usage(turned(number)).await.unwrap().entries().len(), 4);
    }
    // The identity has gone over too: who has prepared the turn follows first, and who knows nothing of it is refused.
    let opened = async |turn: Turn, length: Duration| {
        let kept = Kept { length, ..kept };
        open_at(&server, turn, kept).check_once().await
    };
    let behind = FirstCheck::Away(
        "rationd:ledger: the ring was turned to key 2 and this key file is still at 1: give it the turned key file"
            .into(),
    );
    assert_eq!(opened(prepared(), KEPT).await, behind);
    for (turn, said) in [
        (turn(), "which this key file (at 1) does not hold"),
        (Turn::at(ring(3)), "no longer reads what is written"),
        (Turn::at(ring(2)), "and what was recorded under the key before it counts, or may be asked for, until"),
    ] {
        let FirstCheck::Unfit(findings) = opened(turn, KEPT).await else { panic!("{said}") };
        assert!(findings[0].contains(said), "{findings:?}");
    }
    assert_eq!(opened(Turn::at(ring(2)), Duration::ZERO).await, FirstCheck::Fit);
}

/// The ring at this key.
fn ring(id: u32) -> Ring {
    Ring { id, mark: KeyMark::from_bytes(*b"of tests") }
}

/// The ring at the first key, with the second as its next.
fn prepared() -> Turn {
    Turn { ring: ring(1), neighbour: Some(Neighbour { side: Side::Next, ring: ring(2), makes: () }) }
}

/// The ring at the second key, with the first as its previous.
fn second() -> Turn {
    Turn { ring: ring(2), neighbour: Some(Neighbour { side: Side::Previous, ring: ring(1), makes: () }) }
}

fn open_at(server: &RedisServer, turn: Turn, kept: Kept) -> RedisLedger<SystemClock> {
    let terms = Terms { turn, kept, ..terms(&SystemClock::real()) };
    let options = RedisOptions { allow_volatile: false, terms, lanes: lanes(), witness: None, seen: Seen::default() };
    RedisLedger::open(RedisPool::new(&server.url(), 8).unwrap(), options, SystemClock::real())
}

/// What a server that takes no writes tells every call is no reason to shut the gate, whether the ring turns or not.
#[tokio::test]
async fn a_look_writes_nothing_once_the_ring_has_turned() {
    let server = RedisServer::start();
    let kept = Kept { now: SystemClock::real().now(), length: KEPT };
    let ledger = open(&server, false, SystemClock::real());
    // A store that nobody has recognised is left alone.
    assert!(matches!(ledger.turn(second(), kept).await, Err(LedgerError::StoreUnavailable(_))));
    assert_eq!(tell(&server, &["DBSIZE"]).await, Value::Int(0));
    assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    ledger.turn(second(), kept).await.unwrap();
    tell(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(ledger.check_once().await, FirstCheck::Fit);
}

/// A ledger was begun under the second key, and where nobody has bought nothing says so yet.
#[tokio::test]
async fn who_is_behind_marks_no_partition_before_it_has_followed() {
    let server = RedisServer::start();
    let kept = Kept { now: SystemClock::real().now(), length: KEPT };
    let newer = open_at(&server, Turn::at(ring(2)), kept);
    assert_eq!(newer.check_once().await, FirstCheck::Fit);
    let late = open_at(&server, prepared(), kept);
    assert!(matches!(late.check_once().await, FirstCheck::Away(_)));
    let unavailable = late.claim(buyer(1), call(RequestId::random()), sale()).await;
    assert!(matches!(unavailable, Err(LedgerError::StoreUnavailable(_))), "{unavailable:?}");
    let behind = LedgerError::OtherRing(OtherRing::Behind { ours: 1, theirs: 2 });
    assert_eq!(late.turn(prepared(), kept).await, Err(behind));
    assert_eq!(tell(&server, &["EXISTS", "{01}:ring"]).await, Value::Int(0));
    // It follows, as its process does at that answer.
    let _ = late.turn(second(), kept).await;
    assert_eq!(late.check_once().await, FirstCheck::Fit);
    assert_eq!(newer.check_once().await, FirstCheck::Fit);
}

/// Every step of an export.
async fn export<C: Clock>(ledger: &RedisLedger<C>) -> Vec<(BuyerKey, Option<Record>)> {
    let (mut records, mut from) = (Vec::new(), None);
    loop {
        let step = ledger.export(buyer(1).programme, from).await.unwrap();
        records.extend(step.records);
        from = step.next;
        if from.is_none() {
            return records;
        }
    }
}

#[tokio::test]
async fn an_export_goes_on_in_the_server_where_it_began_or_not_at_all() {
    const BUYERS: u8 = 250;
    let mut server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    for number in 0..BUYERS {
        let claimed = ledger.claim(buyer(number), call(RequestId::random()), sale()).await.unwrap();
        assert!(matches!(claimed.outcome, Claimed::Recorded(_)));
    }
    let programme = buyer(1).programme;
    let begun = ledger.export(programme, None).await.unwrap();
    assert!(begun.next.is_some(), "there is more");
    let going_on = ledger.export(programme, begun.next.clone()).await;
    assert!(going_on.is_ok(), "{going_on:?}");
    // A client of its own does not make it another server.
    tell(&server, &["PING"]).await;
    server.kill();
    let away = ledger.export(programme, begun.next.clone()).await;
    assert!(matches!(away, Err(LedgerError::StoreUnavailable(_))), "{away:?}");
    server.restart();
    healed(&ledger).await;
    until_sold(&ledger).await;
    let elsewhere = ledger.export(programme, begun.next).await;
    assert!(
        matches!(&elsewhere, Err(LedgerError::StoreUnavailable(why)) if why.contains("during an export")),
        "a cursor of SCAN means nothing to another server: {elsewhere:?}"
    );
    assert_eq!(export(&ledger).await.len(), usize::from(BUYERS), "begun again, it is whole");
    for nowhere in [b"".as_slice(), b"7"] {
        let nowhere = ledger.export(programme, Some(nowhere.to_vec())).await;
        assert!(matches!(nowhere, Err(LedgerError::Corrupt(_))), "{nowhere:?}");
    }
}

/// Health may still be of the server before; a sale is not.
async fn until_sold<C: Clock>(ledger: &RedisLedger<C>) {
    let (request, started) = (RequestId::random(), Instant::now());
    while sell(ledger, request).await.is_err() {
        assert!(started.elapsed() < HEALED_WITHIN, "nothing can be sold");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn records_that_may_not_be_read_are_not_taken_for_unreadable_ones() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    sold(&ledger, RequestId::random()).await;
    assert_eq!(export(&ledger).await.len(), 1);
    tell(&server, &["ACL", "SETUSER", "default", "-get"]).await;
    let step = ledger.export(buyer(1).programme, None).await;
    assert!(step.is_err(), "{step:?}");
}

#[tokio::test]
async fn an_outbox_holds_so_many_events_and_no_more() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let mut connection = client(&server).await;
    let outbox = keys::outbox(1);
    let mut fill = redis::pipe();
    for _ in 0..500 {
        fill.cmd("XADD").arg(&outbox).arg("*").arg("kind").arg("sold").ignore();
    }
    for _ in 0..OUTBOX_EVENTS / 500 + 1 {
        fill.exec_async(&mut connection).await.unwrap();
    }
    let mut sales = 0;
    loop {
        sold(&ledger, RequestId::random()).await;
        sales += 1;
        let length: u64 = redis::cmd("XLEN").arg(&outbox).query_async(&mut connection).await.unwrap();
        // Redis cuts whole nodes of a stream, which hold at most 100 events.
        if (OUTBOX_EVENTS..OUTBOX_EVENTS + 100).contains(&length) {
            break;
        }
        // One step of sixteen cuts: this many that do not would be a wonder.
        assert!(length == OUTBOX_EVENTS + 500 + sales && sales < 500, "{length} after {sales} sales");
    }
}

#[tokio::test]
async fn who_is_too_far_behind_in_the_outbox_is_told() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let mut connection = client(&server).await;
    let requests: Vec<_> = (0..5).map(|_| RequestId::random()).collect();
    for request in &requests {
        sold(&ledger, *request).await;
    }
    let after =
        async |place, most| ledger.after(vec![(0, Place::BEGINNING), (1, place)], most).await.unwrap().remove(1);
    let After::Events(told) = after(Place::BEGINNING, 9).await else { panic!("nobody had got anywhere") };
    assert_eq!(told.iter().map(|(_, told)| told.event.entry.request).collect::<Vec<_>>(), requests);
    let newest = ledger.newest().await.unwrap();
    assert_eq!(newest[..3], [Place::FIRST, told[4].0, Place::FIRST]);
    assert_eq!(after(Place::FIRST, 2).await, After::Events(told[..2].to_vec()), "nothing is gone yet");
    assert_eq!(after(told[1].0, 2).await, After::Events(told[2..4].to_vec()));
    let trim = async |connection: &mut MultiplexedConnection, kept: u8| {
        let _: i64 =
            redis::cmd("XTRIM").arg(&keys::outbox(1)).arg("MAXLEN").arg(kept).query_async(connection).await.unwrap();
    };
    trim(&mut connection, 2).await;
    assert_eq!(after(told[3].0, 9).await, After::Events(told[4..].to_vec()), "its own is still there");
    assert_eq!(after(told[2].0, 9).await, After::Gone);
    assert_eq!(after(Place::BEGINNING, 9).await, After::Events(told[3..].to_vec()));
    assert_eq!(after(Place::FIRST, 9).await, After::Gone);
    trim(&mut connection, 0).await;
    assert_eq!(after(newest[1], 9).await, After::Gone);
    assert_eq!(ledger.newest().await.unwrap()[1], Place::FIRST);
    // What cannot be read is said, and is not passed over.
    let _: String = redis::cmd("XADD")
        .arg(&keys::outbox(1))
        .arg("*")
        .arg("kind")
        .arg("sold")
        .query_async(&mut connection)
        .await
        .unwrap();
    let read = ledger.after(vec![(1, Place::BEGINNING)], 9).await;
    assert!(matches!(&read, Err(LedgerError::Corrupt(_))), "{read:?}");
}

#[tokio::test]
async fn what_is_dropped_while_the_oldest_are_read_is_dropped_of_what_nobody_has_begun() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let mut connection = client(&server).await;
    sold(&ledger, RequestId::random()).await;
    // The first partition is full, and so is one that is read later.
    let message: Vec<(String, Vec<Vec<u8>>)> =
        redis::cmd("XRANGE").arg(&keys::outbox(1)).arg("-").arg("+").query_async(&mut connection).await.unwrap();
    let fields = &message[0].1;
    for partition in [0, 200] {
        let mut fill = redis::pipe();
        for _ in 0..600 {
            fill.cmd("XADD").arg(&keys::outbox(partition)).arg("*").arg(&fields[0]).arg(&fields[1]).ignore();
        }
        let () = fill.query_async(&mut connection).await.unwrap();
    }
    let policies = Arc::new(arc_swap::ArcSwap::from_pointee(rationd::policy::Policies::built_in()));
    let mut reading = Events::new(ledger, policies).begin(From::Oldest, "").await.unwrap();
    let mut read = reading.more().await.unwrap();
    assert_eq!(read, 257, "a round of the first");
    let _: i64 =
        redis::cmd("XTRIM").arg(&keys::outbox(200)).arg("MAXLEN").arg(300).query_async(&mut connection).await.unwrap();
    loop {
        match reading.more().await.expect("nobody had got anywhere there") {
            0 => break,
            more => read += more,
        }
    }
    assert_eq!(read, 600 + 1 + 300);
}

#[tokio::test]
async fn a_simulated_clock_agrees_with_every_server() {
    let server = RedisServer::start();
    let start = "2020-03-11T09:00:00+09:00".parse().unwrap();
    let ledger = open(&server, false, SystemClock::starting_at(start));
    assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    assert!(sell(&ledger, RequestId::random()).await.is_ok());
}

#[tokio::test]
async fn health_says_so_when_nobody_watches_any_more() {
    let server = RedisServer::start();
    let (ledger, watching) = serving(&server).await;
    drop(watching);
    assert!(not_serving(&ledger).await.contains("nobody watches"));

    let (ledger, stop) = (open(&server, false, SystemClock::real()), CancellationToken::new());
    let running = tokio::spawn({
        let (ledger, stop) = (ledger.clone(), stop.clone());
        async move { ledger.run(stop).await }
    });
    healed(&ledger).await;
    stop.cancel();
    running.await.unwrap();
    assert!(sell(&ledger, RequestId::random()).await.is_ok(), "an orderly stop lets the last calls finish");
}

#[tokio::test]
async fn a_record_stands_as_it_is_packed_in_one_string_without_a_ttl() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    let mut connection = client(&server).await;
    let key = keys::record(&buyer(1));
    let mut sales = Vec::new();
    for site in ["11000001"].into_iter().chain(std::iter::repeat_n("sixteen-letters1", 40)) {
        let call = Call { site: site.parse().unwrap(), ..call(RequestId::random()) };
        let Claimed::Recorded(entry) = ledger.claim(buyer(1), call, sale()).await.unwrap().outcome else { panic!() };
        sales.push(entry);
        let stored: Vec<u8> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
        assert_eq!(stored, packed::pack(&sales));
        let encoding: String =
            redis::cmd("OBJECT").arg("ENCODING").arg(&key).query_async(&mut connection).await.unwrap();
        // The usual record stands in one piece with its object, which is what its memory rests on.
        assert_eq!(encoding, if sales.len() == 1 { "embstr" } else { "raw" });
    }
    let ttl: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
    assert_eq!(ttl, -1);
}

#[tokio::test]
async fn a_year_of_windows_fits_into_one_call() {
    let server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    for _ in 0..30 {
        sold(&ledger, RequestId::random()).await;
    }
    let windows = vec![Window { max_units: Some(1_000), max_purchases: Some(1_000), ..no_limit() }; 365];
    for _ in 0..20 {
        let late = Late {
            quantity: 1,
            sold_at: call(RequestId::random()).now,
            windows: windows.clone(),
            stated: String::new(),
        };
        let _recorded = ledger.late(buyer(1), call(RequestId::random()), late).await.unwrap();
    }
    // The least of five rounds: what a busy machine adds to one of them is not the script's.
    let mut micros = f64::INFINITY;
    for _ in 0..5 {
        tell(&server, &["CONFIG", "RESETSTAT"]).await;
        for _ in 0..4 {
            let late = Late {
                quantity: 1,
                sold_at: call(RequestId::random()).now,
                windows: windows.clone(),
                stated: String::new(),
            };
            let _recorded = ledger.late(buyer(1), call(RequestId::random()), late).await.unwrap();
        }
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut client(&server).await).await.unwrap();
        let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:calls=4,")).unwrap();
        let each = line.split(',').find_map(|part| part.strip_prefix("usec_per_call=")).unwrap();
        micros = micros.min(each.parse().unwrap());
    }
    println!("late.lua with 365 windows over 70 entries: {micros} us");
    assert!(micros < 5_000.0, "{micros}");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap().success());
}

/// Gives a server that does not run these data in place of its own.
fn put_back(server: &RedisServer, from: &Path) {
    std::fs::remove_dir_all(server.data().join("appendonlydir")).unwrap();
    copy(from, server.data());
}

#[tokio::test]
async fn an_old_backup_of_the_same_ledger_is_noticed_and_nothing_is_sold_from_it() {
    let mut server = RedisServer::start();
    let (ledger, _watching) = serving(&server).await;
    // One that sells nothing knows too, and that others sell does not cover it up.
    let (idle, _watching_too) = serving(&server).await;
    sold(&ledger, RequestId::random()).await;
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(server.data(), old.path());
    // Each looks once a second.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let sale = RequestId::random();
    sold(&ledger, sale).await;
    server.kill();
    copy(server.data(), new.path());
    put_back(&server, old.path());
    server.restart();
    for ledger in [&ledger, &idle] {
        let told = loop {
            let reason = not_serving(ledger).await;
            if reason.contains("behind") {
                break reason;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(told.contains(" of this process in rationd:units is "), "{told}");
    }
    // Looking does not make up for it.
    tokio::time::sleep(Duration::from_millis(4_000)).await;
    for ledger in [&ledger, &idle] {
        assert!(matches!(sell(ledger, RequestId::random()).await, Err(LedgerError::StoreUnavailable(_))));
    }
    // With the newer data both go on by themselves.
    server.kill();
    put_back(&server, new.path());
    server.restart();
    healed(&ledger).await;
    healed(&idle).await;
    assert!(matches!(resolve(&ledger, sale).await, Resolved::Recorded(_)));
}

/// Returns when a process has written down that it has worked with this ledger, and then again.
async fn witnessed(file: &Path) {
    let started = Instant::now();
    let text = || std::fs::read_to_string(file).unwrap_or_default();
    for _ in 0..2 {
        let before = text();
        while text() == before {
            assert!(started.elapsed() < HEALED_WITHIN, "nothing is written");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What a process is told that looks at a store for the first time and must not use it.
async fn unfit(ledger: &RedisLedger<SystemClock>) -> String {
    match ledger.check_once().await {
        FirstCheck::Unfit(findings) => findings.join("; "),
        other => panic!("{other:?}"),
    }
}

/// Whatever is gone of a unit, its count is gone with it.
#[tokio::test]
async fn a_log_cut_in_what_was_acknowledged_last_is_noticed() {
    let mut server = RedisServer::start();
    let ledger = open(&server, false, SystemClock::real());
    assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    sold(&ledger, RequestId::random()).await;
    server.kill();
    // Redis drops the command that has lost its last byte.
    let log = std::fs::OpenOptions::new().write(true).open(server.log_file()).unwrap();
    log.set_len(log.metadata().unwrap().len() - 1).unwrap();
    server.restart();
    let told = unfit(&ledger).await;
    assert!(told.contains("Redis is behind what was acknowledged"), "{told}");
}

#[tokio::test]
async fn a_process_started_anew_refuses_old_data_and_none_at_all_by_its_witness() {
    let mut server = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("witness.json");
    let ledger = open_with(&server, &file);
    let watching = watched(&ledger);
    healed(&ledger).await;
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(server.data(), old.path());
    let sale = RequestId::random();
    sold(&ledger, sale).await;
    witnessed(&file).await;
    // It is not stopped in order.
    drop((watching, ledger));
    server.kill();
    copy(server.data(), new.path());

    put_back(&server, old.path());
    server.restart();
    for _ in 0..2 {
        // Looking does not make up for it, nor does looking from a process after that.
        let anew = open_with(&server, &file);
        for _ in 0..3 {
            let told = unfit(&anew).await;
            assert!(told.contains("the number of an earlier process of this instance in rationd:units is "), "{told}");
            assert!(told.contains(&format!("remove its witness file ({})", file.display())), "{told}");
            assert!(matches!(sell(&anew, RequestId::random()).await, Err(LedgerError::StoreUnavailable(_))));
        }
        let watching = watched(&anew);
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(matches!(sell(&anew, RequestId::random()).await, Err(LedgerError::StoreUnavailable(_))));
        drop(watching);
    }

    server.kill();
    std::fs::remove_dir_all(server.data().join("appendonlydir")).unwrap();
    server.restart();
    let told = unfit(&open_with(&server, &file)).await;
    assert!(told.contains("Redis now holds no ledger at all") && told.contains("remove its witness file"), "{told}");
    assert_eq!(tell(&server, &["DBSIZE"]).await, Value::Int(0), "no ledger has begun");

    // With the newest data another process goes on where it was: what it acknowledges counts from then on.
    server.kill();
    put_back(&server, new.path());
    server.restart();
    let anew = open_with(&server, &file);
    let watching = watched(&anew);
    healed(&anew).await;
    assert!(matches!(resolve(&anew, sale).await, Resolved::Recorded(_)));
    witnessed(&file).await;
    drop((watching, anew));
    server.kill();
    put_back(&server, new.path());
    server.restart();
    assert!(unfit(&open_with(&server, &file)).await.contains("Redis is behind what was acknowledged"));

    // The operator's word. A stop in order leaves the newest there is, at once, and nothing else.
    std::fs::remove_file(&file).unwrap();
    let anew = open_with(&server, &file);
    assert_eq!(anew.check_once().await, FirstCheck::Fit);
    sold(&anew, RequestId::random()).await;
    anew.leave_witness().await;
    let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["witness.json"]);
    let Value::Array(units) = tell(&server, &["HVALS", "rationd:units"]).await else { panic!("no numbers") };
    let newest = units.iter().any(|units| {
        let Value::BulkString(units) = units else { return false };
        let mark = format!("\"acknowledged\": {}\n", String::from_utf8_lossy(units));
        std::fs::read_to_string(&file).unwrap().contains(&mark)
    });
    assert!(newest, "{units:?}, {}", std::fs::read_to_string(&file).unwrap());
}

#[tokio::test]
async fn a_witness_of_another_ledger_is_not_overwritten() {
    let (one, other) = (RedisServer::start(), RedisServer::start());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("witness.json");
    let ledger = open_with(&one, &file);
    let watching = watched(&ledger);
    healed(&ledger).await;
    witnessed(&file).await;
    drop((watching, ledger));
    let written = std::fs::read(&file).unwrap();
    let (_, _watching) = serving(&other).await;
    let wrong = open_with(&other, &file);
    let told = unfit(&wrong).await;
    assert!(told.contains("an earlier process of this instance worked for the ledger "), "{told}");
    let watching = watched(&wrong);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    drop(watching);
    assert_eq!(std::fs::read(&file).unwrap(), written);
    // A store that may lose what it has is not held to anything.
    let witness = Some(Arc::new(Witness::open(&file).unwrap()));
    let clock = SystemClock::real();
    let options =
        RedisOptions { allow_volatile: true, terms: terms(&clock), lanes: lanes(), witness, seen: Seen::default() };
    let volatile = RedisLedger::open(RedisPool::new(&other.url(), 8).unwrap(), options, clock);
    assert_eq!(volatile.check_once().await, FirstCheck::Fit);
}
