//! The ledger in a Redis with replicas, under load, while nodes are killed, paused and come back stale. Every node is a real
//! one of the test's own.
//!
//! What counts is what was acknowledged: a sale whose answer was a receipt is in the ledger of whoever is the primary
//! afterwards, and whatever was answered with "nobody can say" can be resolved by its id.
//!
//! `FAILOVERS=200 cargo test --test replicated -- failovers --nocapture` is the long form.
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

#[path = "replicated/book.rs"]
mod book;
#[path = "replicated/cluster.rs"]
mod cluster;
#[path = "replicated/shelf.rs"]
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rationd::buyer::{BuyerKey, KeyMark, Pseudonym, Ring, Turn};
use rationd::ids::RequestId;
use rationd::ledger::outbox::{After, Outbox, Place};
use rationd::ledger::redis::{FirstCheck, RedisLedger, RedisOptions, Seen, Witness};
use rationd::ledger::{Call, Claim, Claimed, Durability, Kept, Ledger, LedgerError, RecordKey, Resolved, Terms};
use rationd::policy::Window;
use rationd::redis_pool::RedisPool;
use rationd::session::redis::RedisDoor;
use rationd::session::{Door, DoorError, Lease, Mode, Opened, Opening};
use rationd::time::{Clock, SystemClock, Timestamp};
use support::redis::lanes;
use support::replicas::{Process, Replicas, Side};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Calls that are under way all the time.
const CALLERS: usize = 128;
/// So many are under way when a failover is struck, at least.
const UNDER_WAY: usize = 100;
/// How long each caller pauses after a call from then on until all servers are well again.
const REST: Duration = Duration::from_millis(250);

/// Kills a primary whose replicas have fallen behind, while more and more is acknowledged: `acknowledged` waits for so much more.
async fn fallen_behind(group: &mut Replicas, acknowledged: impl AsyncFn(usize), each: usize) {
    acknowledged(each).await;
    let old = group.primary().await.expect("a primary");
    // Something is on its way at any moment.
    group.fronts[old].hold_up(Side::Servers, Duration::from_millis(100));
    acknowledged(each).await;
    // For longer than replicas are waited for, and less than the lag at which the primary stops writing. What is on its way
    // never arrives.
    group.fronts[old].cut_off(&[Side::Servers]);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    group.servers[old].kill();
    group.replaced(old).await;
    acknowledged(each).await;
}

type Redis = RedisLedger<SystemClock>;

/// A ledger with a watch over it.
struct Instance {
    ledger: Redis,
    _watch: AbortOnDropHandle<()>,
}

impl Instance {
    async fn open(group: &Replicas, allow_volatile: bool) -> Self {
        Self::open_at(&group.url(), allow_volatile).await
    }

    async fn open_at(url: &str, allow_volatile: bool) -> Self {
        Self::over(ledger_at(url, allow_volatile)).await
    }

    async fn over(ledger: Redis) -> Self {
        let watching = ledger.clone();
        let watch = AbortOnDropHandle::new(tokio::spawn(async move { watching.run(CancellationToken::new()).await }));
        assert!(tokio::time::timeout(Duration::from_secs(20), ledger.ready()).await.is_ok(), "{:?}", ledger.health());
        Self { ledger, _watch: watch }
    }
}

/// A ledger that nobody watches over yet.
fn ledger_at(url: &str, allow_volatile: bool) -> Redis {
    ledger_with(url, allow_volatile, None)
}

/// The ring of keys of these ledgers, at rest.
fn turn<T>() -> Turn<T> {
    Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"of tests") })
}

/// How long purchases are kept.
fn kept() -> Kept {
    Kept { now: SystemClock::real().now(), length: Duration::from_secs(15 * 86_400) }
}

/// The same, with this witness file.
fn ledger_with(url: &str, allow_volatile: bool, witness: Option<&Path>) -> Redis {
    let programmes = vec![("km".parse().unwrap(), "masks kr_resident".to_owned())];
    let terms = Terms { turn: turn(), kept: kept(), simulated_clock: false, programmes };
    let witness = witness.map(|file| Arc::new(Witness::open(file).unwrap()));
    let options = RedisOptions { allow_volatile, terms, lanes: lanes(), witness, seen: Seen::default() };
    RedisLedger::open(RedisPool::new(url, 8).unwrap(), options, SystemClock::real())
}

/// A buyer of whom there is one for each number.
fn buyer(number: u64) -> RecordKey {
    let mut pseudonym = [0; 16];
    pseudonym[..8].copy_from_slice(&number.to_be_bytes());
    let buyer = BuyerKey { partition: number as u8, pseudonym: Pseudonym::from_bytes(pseudonym) };
    RecordKey { programme: "km".parse().unwrap(), buyer, turn: turn() }
}

fn call(request: RequestId) -> Call {
    let now = SystemClock::real().now();
    Call { request, site: "11000001".parse().unwrap(), terminal: "w1".parse().unwrap(), now }
}

/// One unit of two.
fn sale() -> Claim {
    let window = Window { from: Timestamp::EPOCH, until: Timestamp::NEVER, max_units: Some(2), max_purchases: None };
    Claim {
        quantity: 1,
        hold_for: None,
        windows: [window].into_iter().collect(),
        good_until: Timestamp::NEVER,
        stated: String::new(),
    }
}

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Sold,
    Unknown,
}

/// Sells without end, and keeps in mind what was said.
struct Load {
    ledger: Redis,
    said: Arc<Mutex<Vec<(u64, RequestId, Came)>>>,
    not_executed: Arc<AtomicU64>,
    under_way: Arc<AtomicUsize>,
    rests: Arc<AtomicBool>,
    /// When the last receipt came, and the longest time without one since [`Load::mark`].
    receipts: Arc<Mutex<(Instant, Duration)>>,
    over: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    fn begin(ledger: &Redis) -> Self {
        Self::begin_at(ledger, 0)
    }

    /// The same with buyers from this number on.
    fn begin_at(ledger: &Redis, first: u64) -> Self {
        let (said, not_executed): (Arc<Mutex<Vec<_>>>, Arc<AtomicU64>) = Default::default();
        let (receipts, over) =
            (Arc::new(Mutex::new((Instant::now(), Duration::ZERO))), Arc::new(AtomicBool::new(false)));
        let (next, mut tasks) = (Arc::new(AtomicU64::new(first)), JoinSet::new());
        let (under_way, rests): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        for _ in 0..CALLERS {
            let (ledger, said, not_executed) = (ledger.clone(), said.clone(), not_executed.clone());
            let (receipts, over, next) = (receipts.clone(), over.clone(), next.clone());
            let (under_way, rests) = (under_way.clone(), rests.clone());
            tasks.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let (number, request) = (next.fetch_add(1, Ordering::Relaxed), RequestId::random());
                    under_way.fetch_add(1, Ordering::Relaxed);
                    let answer = ledger.claim(buyer(number), call(request), sale()).await;
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    match answer {
                        Ok(answer) => {
                            assert!(matches!(answer.outcome, Claimed::Recorded(_)), "{answer:?}");
                            said.lock().unwrap().push((number, request, Came::Sold));
                            let mut receipts = receipts.lock().unwrap();
                            let gap = receipts.0.elapsed();
                            *receipts = (Instant::now(), receipts.1.max(gap));
                        }
                        Err(LedgerError::Unconfirmed(_)) => said.lock().unwrap().push((number, request, Came::Unknown)),
                        Err(LedgerError::Corrupt(why)) => panic!("{why}"),
                        Err(_) => {
                            not_executed.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                    if rests.load(Ordering::Relaxed) {
                        tokio::time::sleep(REST).await;
                    }
                }
            });
        }
        let ledger = ledger.clone();
        Self { ledger, said, not_executed, under_way, rests, receipts, over, tasks }
    }

    fn sold(&self) -> usize {
        self.said.lock().unwrap().iter().filter(|(.., came)| *came == Came::Sold).count()
    }

    /// The buyers that got a receipt.
    fn sold_to(&self) -> std::collections::HashSet<BuyerKey> {
        let said = self.said.lock().unwrap();
        said.iter().filter(|(.., came)| *came == Came::Sold).map(|(number, ..)| buyer(*number).buyer).collect()
    }

    /// From now on gaps are measured.
    fn mark(&self) {
        self.receipts.lock().unwrap().1 = Duration::ZERO;
    }

    /// The longest time without a receipt.
    fn gap(&self) -> Duration {
        self.receipts.lock().unwrap().1
    }

    /// Returns when so many more have been sold.
    async fn sells(&self, more: usize) {
        let (started, enough) = (Instant::now(), self.sold() + more);
        while self.sold() < enough {
            assert!(started.elapsed() < Duration::from_secs(40), "sells no more: {:?}", self.ledger.health());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Calls come one after the other again, if they did not; returns when enough are under way, and says how many.
    async fn rushes(&self) -> usize {
        self.rests.store(false, Ordering::Relaxed);
        let started = Instant::now();
        loop {
            match self.under_way.load(Ordering::Relaxed) {
                enough if enough >= UNDER_WAY => return enough,
                few => assert!(started.elapsed() < Duration::from_secs(20), "{few} calls under way"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// From now on each caller pauses after a call.
    fn rests(&self) {
        self.rests.store(true, Ordering::Relaxed);
    }

    /// Ends it, and holds what was said against the ledger.
    async fn audit(mut self, ledger: &Redis) -> Audit {
        self.over.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        let said = std::mem::take(&mut *self.said.lock().unwrap());
        let mut audit = Audit { not_executed: self.not_executed.load(Ordering::Relaxed), ..Audit::default() };
        let mut asked = JoinSet::new();
        for part in said.chunks(said.len().div_ceil(64).max(1)) {
            let (ledger, part) = (ledger.clone(), part.to_vec());
            asked.spawn(async move {
                let mut audit = Audit::default();
                for (number, request, came) in part {
                    let first = resolved(&ledger, number, request).await;
                    let is_there = matches!(first, Resolved::Recorded(_));
                    match came {
                        Came::Sold => {
                            audit.acknowledged += 1;
                            audit.lost += u64::from(!is_there);
                        }
                        Came::Unknown => {
                            audit.unknown += 1;
                            // Whatever it is told once it stays.
                            audit.resolved += u64::from(resolved(&ledger, number, request).await == first);
                        }
                    }
                }
                audit
            });
        }
        while let Some(part) = asked.join_next().await {
            audit.add(&part.unwrap());
        }
        audit
    }
}

/// What became of an id; asked until somebody says.
async fn resolved(ledger: &Redis, number: u64, request: RequestId) -> Resolved {
    for _ in 0..200 {
        match ledger.resolve(buyer(number), call(request)).await {
            Ok(answer) => return answer.outcome,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("nobody says what became of it: {:?}", ledger.health());
}

#[derive(Debug, Default, Clone, Copy)]
struct Audit {
    acknowledged: u64,
    lost: u64,
    unknown: u64,
    resolved: u64,
    not_executed: u64,
}

impl Audit {
    fn add(&mut self, part: &Self) {
        self.acknowledged += part.acknowledged;
        self.lost += part.lost;
        self.unknown += part.unknown;
        self.resolved += part.resolved;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failovers_lose_no_acknowledged_sale() {
    let failovers: usize = std::env::var("FAILOVERS").ok().map_or(4, |many| many.parse().expect("a number"));
    let mut group = Replicas::start(2).await;
    let instance = Instance::open(&group, false).await;
    assert_eq!(instance.ledger.durability(), Durability::Replicated);
    let load = Load::begin(&instance.ledger);
    load.sells(500).await;
    let (mut longest, mut gaps) = (Duration::ZERO, Vec::new());
    for nth in 0..failovers {
        let old = group.primary().await.expect("a primary");
        let under_way = load.rushes().await;
        load.mark();
        let how = match nth % 4 {
            0 => {
                group.servers[old].kill();
                "killed"
            }
            1 => {
                group.servers[old].pause();
                "paused"
            }
            2 => {
                group.fronts[old].cut_off(&Side::ALL);
                "cut off from all"
            }
            _ => {
                group.fronts[old].cut_off(&[Side::Sentinels]);
                "cut off from the Sentinels"
            }
        };
        load.rests();
        let new = group.replaced(old).await;
        load.sells(300).await;
        let gap = load.gap();
        println!(
            "failover {}: server {old} {how} with {under_way} calls under way, server {new} took over, {:.2} s without a \
             receipt",
            nth + 1,
            gap.as_secs_f64()
        );
        longest = longest.max(gap);
        gaps.push(gap);
        // The old one comes back, stale, with connections that still lead to it.
        match nth % 4 {
            0 => group.servers[old].start_again(),
            1 => group.servers[old].resume(),
            _ => group.fronts[old].heal(),
        }
        load.sells(300).await;
        group.whole().await;
    }
    let audit = load.audit(&instance.ledger).await;
    gaps.sort();
    println!(
        "{failovers} failovers, {} turned away: {audit:?}; gap {:?} in the middle, {longest:?} at most",
        audit.not_executed,
        gaps[gaps.len() / 2]
    );
    assert_eq!((audit.lost, audit.resolved), (0, audit.unknown), "{audit:?}");
}

/// They put another in its place, while everybody else still reaches it.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_cut_off_from_the_sentinels_alone_makes_no_promise_that_is_broken() {
    let group = Replicas::start(2).await;
    let instance = Instance::open(&group, false).await;
    let load = Load::begin(&instance.ledger);
    load.sells(300).await;
    let old = group.primary().await.expect("a primary");
    group.fronts[old].cut_off(&[Side::Sentinels]);
    group.replaced(old).await;
    load.sells(300).await;
    group.fronts[old].heal();
    let audit = load.audit(&instance.ledger).await;
    println!("cut off from the Sentinels alone: {audit:?}");
    assert_eq!((audit.lost, audit.resolved), (0, audit.unknown), "{audit:?}");
}

/// Where an event stands, and of which purchase it is.
type Stands = (u8, Place, RequestId);

/// What stands in every partition behind these places.
async fn events(
    ledger: &RedisLedger<SystemClock>,
    behind: &BTreeMap<u8, Place>,
) -> Result<Vec<Option<Vec<Stands>>>, LedgerError> {
    let place = |partition| (partition, behind.get(&partition).copied().unwrap_or(Place::BEGINNING));
    let found = ledger.after((0..=u8::MAX).map(place).collect(), 1_000).await?;
    let stands = |partition, after| match after {
        After::Gone => None,
        After::Events(events) => {
            Some(events.into_iter().map(|(place, told)| (partition, place, told.event.entry.request)).collect())
        }
    };
    Ok((0..=u8::MAX).zip(found).map(|(partition, after)| stands(partition, after)).collect())
}

/// Takes down every event as soon as it can be read, until it is stopped.
fn follow(ledger: &RedisLedger<SystemClock>, told: &Arc<Mutex<Vec<Stands>>>) -> AbortOnDropHandle<()> {
    let (ledger, told) = (ledger.clone(), told.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut behind = BTreeMap::new();
        loop {
            let found = events(&ledger, &behind).await.unwrap_or_default();
            for event in found.into_iter().flatten().flatten() {
                behind.insert(event.0, event.1);
                told.lock().unwrap().push(event);
            }
            tokio::task::yield_now().await;
        }
    }))
}

/// The same strike on a ledger that waits for its replicas and on one that does not. Also how many events were told that stand nowhere.
async fn struck_while_the_replicas_lag(allow_volatile: bool) -> (Audit, usize) {
    let mut group = Replicas::start(2).await;
    let instance = Instance::open(&group, allow_volatile).await;
    let load = Load::begin(&instance.ledger);
    let told = Arc::default();
    let following = follow(&instance.ledger, &told);
    // A ledger that no replica has heard of is refused, and shows nothing.
    for server in &group.servers {
        while server.tell::<bool>(&["EXISTS", "rationd:ledger"]).await != Some(true) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    fallen_behind(&mut group, async |more| load.sells(more).await, 300).await;
    let audit = load.audit(&instance.ledger).await;
    let stands: BTreeSet<Stands> =
        events(&instance.ledger, &BTreeMap::new()).await.unwrap().into_iter().flatten().flatten().collect();
    // Where sales were lost the follower stands where nothing is, and hears no more of that partition.
    let begun = Instant::now();
    while !allow_volatile && told.lock().unwrap().len() < stands.len() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not all that stands was told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(following);
    let told = told.lock().unwrap();
    assert!(told.len() > 300 && told.iter().collect::<BTreeSet<_>>().len() == told.len(), "{} events told", told.len());
    (audit, told.iter().filter(|event| !stands.contains(event)).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_replicas_do_not_have_is_not_acknowledged() {
    let (audit, undone) = struck_while_the_replicas_lag(false).await;
    println!("replicas that lag, then a failover: {audit:?}, {undone} events undone");
    assert_eq!(undone, 0, "events were told that are gone");
    assert_eq!((audit.lost, audit.resolved), (0, audit.unknown), "{audit:?}");
    assert!(audit.unknown > 0, "the strike shows nothing: {audit:?}");
}

/// Shows that the test above can see a loss.
#[tokio::test(flavor = "multi_thread")]
async fn without_waiting_for_replicas_a_failover_loses_sales() {
    let (audit, undone) = struck_while_the_replicas_lag(true).await;
    println!("the same without waiting for replicas: {audit:?}, {undone} events undone");
    assert!(audit.lost > 0 && undone > 0, "{audit:?}, {undone} events undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_replica_stops_sales_until_the_sentinels_say_so() {
    let mut group = Replicas::start(2).await;
    let instance = Instance::open(&group, false).await;
    let load = Load::begin(&instance.ledger);
    load.sells(300).await;
    load.mark();
    let primary = group.primary().await.expect("a primary");
    let replica = (0..3).find(|nth| *nth != primary).unwrap();
    // The one Sentinel that is left is no majority.
    group.sentinels[1..].iter_mut().for_each(Process::kill);
    group.servers[replica].kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = load.sold();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(load.sold(), before, "acknowledged with one replica although nobody says that the other is down");
    group.sentinels[1..].iter_mut().for_each(Process::start_again);
    load.sells(300).await;
    println!("a replica and, for 4 s, two Sentinels lost: {:.2} s without a receipt", load.gap().as_secs_f64());
    // With the last one nothing is written any more, and that is said.
    let other = (0..3).find(|nth| *nth != primary && *nth != replica).unwrap();
    group.servers[other].kill();
    let started = Instant::now();
    loop {
        match instance.ledger.claim(buyer(u64::MAX), call(RequestId::random()), sale()).await {
            Err(LedgerError::ReplicasMissing) => break,
            _ => assert!(started.elapsed() < Duration::from_secs(20), "not refused"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    group.servers[other].start_again();
    group.servers[replica].start_again();
    load.sells(300).await;
    let audit = load.audit(&instance.ledger).await;
    println!("both replicas lost and back: {audit:?}");
    assert_eq!((audit.lost, audit.resolved), (0, audit.unknown), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_cut_off_from_its_replicas_or_from_the_instances_acknowledges_nothing_and_is_used_again() {
    let group = Replicas::start(2).await;
    let instance = Instance::open(&group, false).await;
    let load = Load::begin(&instance.ledger);
    load.sells(300).await;
    for sides in [&[Side::Servers], &[Side::Instances]] {
        let primary = group.primary().await.expect("a primary");
        group.fronts[primary].cut_off(sides);
        // What was on its way has been answered by then, and nothing after it is.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = load.sold();
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(load.sold(), before, "acknowledged while cut off from {sides:?}");
        assert_eq!(group.primary().await, Some(primary), "nobody holds it to be down");
        load.mark();
        group.fronts[primary].heal();
        load.sells(300).await;
        println!("cut off from {sides:?} for 6 s: sells again, {:.2} s after the cut", load.gap().as_secs_f64());
    }
    let audit = load.audit(&instance.ledger).await;
    println!("cut off: {audit:?}");
    assert_eq!((audit.lost, audit.resolved), (0, audit.unknown), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_replica_is_said_before_the_first_sale() {
    let group = Replicas::start(1).await;
    for (nth, setting, weak, good) in [
        (1, "appendfsync", "everysec", "always"),
        (0, "min-replicas-to-write", "0", "1"),
        (1, "min-replicas-max-lag", "10", "2"),
    ] {
        let server = &group.servers[nth];
        let _: String = server.tell(&["CONFIG", "SET", setting, weak]).await.unwrap();
        let ledger = ledger_at(&group.url(), false);
        let FirstCheck::Unfit(findings) = ledger.check_once().await else { panic!("{setting} {weak} is taken") };
        let of = if nth == 1 { format!("replica {}", group.address(nth)) } else { String::new() };
        assert!(findings.len() == 1 && findings[0].contains(setting) && findings[0].contains(&of), "{findings:?}");
        let _: String = server.tell(&["CONFIG", "SET", setting, good]).await.unwrap();
        assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    }
}

/// A place of this site, while there are no seats; its number. Asked for until the door answers.
async fn place(door: &RedisDoor, site: u32) -> u64 {
    let opening = Opening {
        site: format!("S{site:07}").parse().unwrap(),
        terminal: "w1".parse().unwrap(),
        cap: 1,
        ramped: false,
        due_in: Duration::from_secs(60),
    };
    let nobody = rationd::session::Terms { version: 0, mode: Mode::Open, capacity: 0 };
    let started = Instant::now();
    loop {
        match door.open(opening, nobody).await {
            Ok(Opened::Waiting { place, .. }) => return place.seq,
            Ok(other) => panic!("{other:?}"),
            Err(DoorError::Corrupt(why)) => panic!("{why}"),
            Err(DoorError::Away(why)) => assert!(started.elapsed() < Duration::from_secs(30), "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_of_the_line_is_given_out_twice_although_a_failover_lost_some() {
    let mut group = Replicas::start(2).await;
    let lease =
        Lease { length: Duration::from_secs(10), max_step: Duration::from_secs(1), grace: Duration::from_secs(60) };
    let door = RedisDoor::new(RedisPool::new(&group.url(), 8).unwrap(), lease);
    let mut old_places = Vec::new();
    for site in 0..200 {
        old_places.push(place(&door, site).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let old = group.primary().await.expect("a primary");
    let replicas = || (0..3).filter(|nth| *nth != old);
    replicas().for_each(|nth| group.servers[nth].pause());
    // What is on its way to a paused replica is in its socket; here nothing is to be on its way, and it goes on all the same.
    let _: String = group.servers[old].tell(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await.unwrap();
    let _: u32 = group.servers[old].tell(&["CLIENT", "KILL", "TYPE", "replica"]).await.unwrap();
    let mut lost = Vec::new();
    for site in 200..300 {
        lost.push(place(&door, site).await);
    }
    group.servers[old].kill();
    replicas().for_each(|nth| group.servers[nth].resume());
    group.replaced(old).await;
    // Younger places are gone; whoever comes first now gets a number that nobody ever had.
    let mut given_out: std::collections::BTreeSet<u64> = old_places.iter().chain(&lost).copied().collect();
    assert_eq!(given_out.len(), 300);
    for site in 1_000..1_100 {
        assert!(given_out.insert(place(&door, site).await), "given out twice");
    }
    for (site, number) in (0..).zip(&old_places) {
        assert_eq!(place(&door, site).await, *number, "a place that every replica had is the same");
    }
    let mut kept = 0;
    for (site, number) in (200..).zip(&lost) {
        kept += usize::from(place(&door, site).await == *number);
    }
    println!(
        "failover of the line: 200 of 200 old places the same, {kept} of 100 young ones, 100 new numbers, none twice"
    );
    assert!(kept < 100, "nothing was lost: the test shows nothing");
}

/// One that is paused stays attached, and is not waited for once it is known to be down.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_replica_stops_sales_no_longer_than_a_killed_one() {
    let group = Replicas::start(2).await;
    let instance = Instance::open(&group, false).await;
    let load = Load::begin(&instance.ledger);
    load.sells(300).await;
    load.mark();
    let primary = group.primary().await.expect("a primary");
    let replica = (0..3).find(|nth| *nth != primary).unwrap();
    group.servers[replica].pause();
    load.sells(300).await;
    println!("a replica paused: {:.2} s without a receipt", load.gap().as_secs_f64());
    group.servers[replica].resume();
    load.sells(300).await;
    let audit = load.audit(&instance.ledger).await;
    println!("a replica paused: {audit:?}");
    assert_eq!((audit.lost, audit.resolved), (0, audit.unknown), "{audit:?}");
}
