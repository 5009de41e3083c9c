//! Levels against the audit. Workers sell, hold, take back, enter late and report at many sites at once; meanwhile followers are
//! ended without a word and begun anew, and Redis is killed. Every call is repeated until it is answered, so that what happened is
//! known from the answers alone; from them, and from nothing that the service has made, the level of every site is worked out at the
//! end. Not one may be shown otherwise.
//!
//! `RATIOND_STOCK_SITES` and `RATIOND_STOCK_CALLS` say how many sites there are and what is called at them; `RATIOND_SEED` repeats
//! the choices of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rationd::buyer::{BuyerKey, KeyMark, Pseudonym, Ring, Turn};
use rationd::config::environment;
use rationd::ids::{LedgerId, ProgrammeCode, RequestId, SiteId};
use rationd::ledger::embedded::EmbeddedLedger;
use rationd::ledger::outbox::Outbox;
use rationd::ledger::redis::{RedisLedger, RedisOptions, RedisReader, Seen};
use rationd::ledger::{
    Call, Claim, Claimed, Confirmed, Entered, Kept, Late, Ledger, LedgerError, RecordKey, Released, Terms, Voided,
};
use rationd::policy::{Policies, Window};
use rationd::redis_pool::RedisPool;
use rationd::sites::Sites;
use rationd::stock::board::Board;
use rationd::stock::embedded::EmbeddedShelf;
use rationd::stock::follow::{Follower, Named};
use rationd::stock::intake::{Intake, NotTaken, Said, Stocks};
use rationd::stock::redis::{RedisShelf, STOCK_TAG};
use rationd::stock::{Level, Shelf, Shown, Thresholds, What};
use rationd::time::{Clock, ManualClock, Timestamp};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::support::redis::{RedisServer, lanes};

const MASKS: &str = "kr-public-mask-2020";
/// Calls under way at once.
const WORKERS: usize = 16;
/// Followers that begin at the least, one after the other.
const LIVES: u64 = 8;
/// The clock goes so much faster than the machine's: a history of hours in a minute.
const FASTER: u32 = 100;

fn setting(name: &str, otherwise: u64) -> u64 {
    let found = environment().find(|(variable, _)| variable == name);
    found.map_or(otherwise, |(_, value)| value.to_str().unwrap().parse().unwrap())
}

/// Choices that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }

    fn millis(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.below(u64::try_from(most.as_millis()).unwrap()))
    }

    fn units(&mut self, most: u64) -> u32 {
        u32::try_from(1 + self.below(most)).unwrap()
    }
}

/// What happened at a site, from the answers.
#[derive(Default)]
struct Happened {
    /// When, and how many units more or less there were from then on.
    moves: Vec<(Timestamp, i64)>,
    /// Units that are promised until then, and nothing became of it.
    promises: Vec<(Timestamp, i64)>,
    counts: BTreeMap<Timestamp, i64>,
    /// Whether it sold from then on.
    sells: BTreeMap<Timestamp, bool>,
    delivered: bool,
}

impl Happened {
    /// The level, what is offered, and whether more was sold than there was.
    fn shown(&self, now: Timestamp) -> Option<(Level, u32, bool)> {
        let paused = self.sells.last_key_value().is_some_and(|(_, sells)| !sells);
        if !self.delivered && self.counts.is_empty() && !paused {
            return None;
        }
        let counted = self.counts.last_key_value();
        let after = |at: Timestamp| counted.is_none_or(|(when, _)| at > *when);
        let moved: i64 = self.moves.iter().filter(|(at, _)| after(*at)).map(|(_, units)| units).sum();
        let there = counted.map_or(0, |(_, units)| *units) + moved;
        let promised: i64 = self.promises.iter().filter(|(until, _)| now < *until).map(|(_, units)| units).sum();
        let offered = u32::try_from((there.max(0) - promised).max(0)).unwrap();
        let level = if paused { Level::Paused } else { Thresholds::OF_2020.level(offered) };
        Some((level, offered, there < 0))
    }
}

/// One who calls, at sites of their own.
struct Worker<L, S> {
    ledger: L,
    intake: Intake<S, ManualClock>,
    clock: ManualClock,
    dice: Dice,
    sites: Vec<SiteId>,
    happened: BTreeMap<SiteId, Happened>,
    /// Sales that may be taken back, and holds.
    sold: Vec<(RecordKey, RequestId, SiteId, i64)>,
    held: Vec<(RecordKey, RequestId, SiteId, i64, Timestamp)>,
}

/// Repeats a call until it is answered.
async fn answered<T, F: Future<Output = Result<T, LedgerError>>>(mut call: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "no answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn no_limit() -> Window {
    Window { from: Timestamp::EPOCH, until: Timestamp::NEVER, max_units: None, max_purchases: None }
}

impl<L: Ledger, S: Shelf> Worker<L, S> {
    fn somebody(&mut self) -> RecordKey {
        let partition = u8::try_from(self.dice.below(256)).unwrap();
        let pseudonym = Pseudonym::from_bytes(*RequestId::random().as_bytes());
        let buyer = BuyerKey { partition, pseudonym };
        RecordKey { programme: masks(), buyer, turn: turn() }
    }

    fn call(&self, request: RequestId, site: SiteId) -> Call {
        Call { request, site, terminal: "w1".parse().unwrap(), now: self.clock.now() }
    }

    fn at(&mut self, site: SiteId) -> &mut Happened {
        self.happened.entry(site).or_default()
    }

    async fn step(&mut self) {
        let site = self.sites[usize::try_from(self.dice.below(self.sites.len() as u64)).unwrap()];
        match self.dice.below(100) {
            0..40 => self.sell(site).await,
            40..55 => self.hold(site).await,
            55..65 => self.end_a_hold().await,
            65..70 => self.take_back().await,
            70..78 => self.enter(site).await,
            _ => self.report(site).await,
        }
    }

    fn claim(units: u32, hold_for: Option<Duration>) -> Claim {
        Claim {
            quantity: units,
            hold_for,
            windows: [no_limit()].into_iter().collect(),
            good_until: Timestamp::NEVER,
            stated: String::new(),
        }
    }

    async fn sell(&mut self, site: SiteId) {
        let (who, request, units) = (self.somebody(), RequestId::random(), self.dice.units(5));
        let ask = || self.ledger.claim(who, self.call(request, site), Self::claim(units, None));
        let Claimed::Recorded(entry) = answered(ask).await.outcome else { panic!("a sale") };
        self.at(site).moves.push((entry.at, -i64::from(units)));
        self.sold.push((who, request, site, units.into()));
    }

    async fn hold(&mut self, site: SiteId) {
        let (who, request, units) = (self.somebody(), RequestId::random(), self.dice.units(5));
        let length = Duration::from_secs(60 + self.dice.below(7_200));
        let ask = || self.ledger.claim(who, self.call(request, site), Self::claim(units, Some(length)));
        match answered(ask).await.outcome {
            Claimed::Held(entry) => self.held.push((who, request, site, units.into(), entry.mark)),
            // The answer was so long in coming that it has run out meanwhile: nothing is promised any more.
            Claimed::HoldExpired(_) | Claimed::Released(_) => {}
            other => panic!("{other:?}"),
        }
    }

    async fn end_a_hold(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let nth = usize::try_from(self.dice.below(self.held.len() as u64)).unwrap();
        let (who, request, site, units, _) = self.held.swap_remove(nth);
        match self.dice.below(4) {
            0 => {
                let ask = || self.ledger.release(who, self.call(request, site));
                assert!(matches!(answered(ask).await.outcome, Released::Released(_)));
            }
            // It was sold on paper.
            1 => {
                let sold_at = self.clock.now().minus(self.dice.millis(Duration::from_secs(3_600)));
                self.late(who, request, site, units, sold_at).await;
            }
            _ => {
                let ask = || self.ledger.confirm(who, self.call(request, site));
                match answered(ask).await.outcome {
                    Confirmed::Sold(entry) => {
                        self.at(site).moves.push((entry.mark, -units));
                        self.sold.push((who, request, site, units));
                    }
                    Confirmed::HoldExpired(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    async fn take_back(&mut self) {
        if self.sold.is_empty() {
            return;
        }
        let nth = usize::try_from(self.dice.below(self.sold.len() as u64)).unwrap();
        let (who, request, site, units) = self.sold.swap_remove(nth);
        let ask = || self.ledger.void(who, self.call(request, site));
        let Voided::Voided(entry) = answered(ask).await.outcome else { panic!("a void") };
        self.at(site).moves.push((entry.mark, units));
    }

    async fn enter(&mut self, site: SiteId) {
        let (who, request, units) = (self.somebody(), RequestId::random(), self.dice.units(5));
        let sold_at = self.clock.now().minus(self.dice.millis(Duration::from_secs(5 * 3_600)));
        self.late(who, request, site, units.into(), sold_at).await;
    }

    async fn late(&mut self, who: RecordKey, request: RequestId, site: SiteId, units: i64, sold_at: Timestamp) {
        let late =
            Late { quantity: u32::try_from(units).unwrap(), sold_at, windows: vec![no_limit()], stated: String::new() };
        let ask = || self.ledger.late(who, self.call(request, site), late.clone());
        match answered(ask).await.outcome {
            // Said again after an answer that was lost it stands already.
            Entered::Sold(entry) | Entered::AlreadyRecorded(entry) => {
                assert_eq!(entry.at, sold_at);
                self.at(site).moves.push((sold_at, -units));
            }
            other @ Entered::AlreadyVoided(_) => panic!("{other:?}"),
        }
    }

    async fn report(&mut self, site: SiteId) {
        let kind = self.dice.below(10);
        // Far enough from what is too old for a report that is repeated until a killed store is there again.
        let back = if kind < 4 { Duration::from_secs(3_600) } else { Duration::from_secs(4 * 3_600) };
        let at = self.clock.now().minus(self.dice.millis(back));
        let what = match kind {
            0..4 => What::Counted(self.dice.units(300) - 1),
            4..8 => What::Delivered(self.dice.units(150)),
            8 => What::Paused,
            _ => What::Resumed,
        };
        let happened = self.at(site);
        // Of two at one instant the one that was taken later counts: here nobody says which that is.
        if happened.counts.contains_key(&at) || happened.sells.contains_key(&at) {
            return;
        }
        let said = Said { request: RequestId::random(), programme: MASKS.to_owned(), site, what, at: Some(at) };
        for _ in 0..1 + self.dice.below(2) {
            answered(|| async {
                match self.intake.take(said.clone()).await {
                    Ok((report, _)) => {
                        assert_eq!((report.what, report.at), (what, at));
                        Ok(())
                    }
                    Err(NotTaken::Shelf(error)) => Err(error),
                    Err(other) => panic!("{other}"),
                }
            })
            .await;
        }
        let happened = self.at(site);
        match what {
            What::Counted(units) => _ = happened.counts.insert(at, units.into()),
            What::Delivered(units) => {
                happened.moves.push((at, units.into()));
                happened.delivered = true;
            }
            What::Paused => _ = happened.sells.insert(at, false),
            What::Resumed => _ = happened.sells.insert(at, true),
        }
    }

    /// What happened at its sites, with the holds of which nothing became.
    fn told(mut self) -> BTreeMap<SiteId, Happened> {
        for (_, _, site, units, until) in std::mem::take(&mut self.held) {
            self.at(site).promises.push((until, units));
        }
        self.happened
    }
}

fn masks() -> ProgrammeCode {
    "km".parse().unwrap()
}

fn turn<T>() -> Turn<T> {
    Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"of tests") })
}

fn terms(clock: &ManualClock) -> Terms {
    let kept = Kept { now: clock.now(), length: Duration::from_secs(15 * 86_400) };
    Terms { turn: turn(), kept, simulated_clock: true, programmes: Vec::new() }
}

/// What a follower follows, and what must live as long as it.
struct Followed<O, S> {
    outbox: O,
    named: Named,
    shelf: S,
    _watch: Option<AbortOnDropHandle<()>>,
}

/// The world of a run: how many sites, and how much happens.
struct World {
    clock: ManualClock,
    policies: Arc<ArcSwap<Policies>>,
    sites: usize,
    calls: u64,
    seed: u64,
}

impl World {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = setting("RATIOND_SEED", u64::from(now.subsec_nanos()));
        Self {
            clock: ManualClock::new("2020-03-11T09:00:00+09:00".parse().unwrap()),
            policies: Arc::new(ArcSwap::from_pointee(Policies::built_in())),
            sites: usize::try_from(setting("RATIOND_STOCK_SITES", 2_000)).unwrap(),
            calls: setting("RATIOND_STOCK_CALLS", 20_000),
            seed,
        }
    }

    fn stocks(&self) -> Stocks {
        Stocks::new(Board::default(), Arc::new(ArcSwap::from_pointee(Sites::demo())), self.policies.clone())
    }

    fn follower<O: Outbox, S: Shelf>(&self, from: &Followed<O, S>, stocks: &Stocks) -> Follower<O, S, ManualClock> {
        let Followed { outbox, named, shelf, .. } = from;
        Follower::new(outbox.clone(), named.clone(), shelf.clone(), self.clock.clone(), stocks.clone())
            .keeping_every(Duration::from_millis(300))
    }

    /// Lets everything happen and everything fail, and says what is shown in the end that did not happen.
    async fn live<L: Ledger, S: Shelf, O: Outbox>(
        &self,
        name: &str,
        ledger: L,
        shelf: S,
        open: impl Fn() -> Followed<O, S> + Send + Sync,
        mut fault: impl AsyncFnMut(&mut Dice),
    ) {
        println!("{name}: {} calls at {} sites, RATIOND_SEED={}", self.calls, self.sites, self.seed);
        let ticking = AbortOnDropHandle::new(tokio::spawn({
            let (clock, begun, start) = (self.clock.clone(), Instant::now(), self.clock.now());
            async move {
                loop {
                    clock.set(start.plus(begun.elapsed() * FASTER));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }));
        let workers: Vec<_> = (0..WORKERS)
            .map(|nth| {
                let own = (0..self.sites).filter(|site| site % WORKERS == nth);
                let mut worker = Worker {
                    ledger: ledger.clone(),
                    intake: Intake::new(shelf.clone(), self.clock.clone(), self.policies.clone(), Arc::new(|| None)),
                    clock: self.clock.clone(),
                    dice: Dice(self.seed.wrapping_add(nth as u64)),
                    sites: own.map(|site| format!("{:08}", 11_000_000 + site).parse().unwrap()).collect(),
                    happened: BTreeMap::new(),
                    sold: Vec::new(),
                    held: Vec::new(),
                };
                let calls = self.calls / WORKERS as u64;
                tokio::spawn(async move {
                    for _ in 0..calls {
                        worker.step().await;
                    }
                    worker.told()
                })
            })
            .collect();
        let (working, mut lives, mut faults) = (Arc::new(AtomicBool::new(true)), 0_u64, 0_u64);
        let done = async {
            let mut happened = BTreeMap::new();
            for worker in workers {
                happened.extend(worker.await.unwrap());
            }
            working.store(false, Ordering::Relaxed);
            happened
        };
        let followers = async {
            let mut dice = Dice(!self.seed);
            // However fast the machine is; each long enough to have read everything and kept it, and ended somewhere in it.
            while working.load(Ordering::Relaxed) || lives < LIVES {
                let from = open();
                let stocks = self.stocks();
                let following =
                    AbortOnDropHandle::new(tokio::spawn(self.follower(&from, &stocks).run(CancellationToken::new())));
                tokio::time::sleep(Duration::from_millis(700 + dice.below(2_500))).await;
                // As SIGKILL would: wherever it stands.
                drop(following);
                lives += 1;
            }
        };
        let failing = async {
            let mut dice = Dice(self.seed / 3);
            while working.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(300 + dice.below(1_500))).await;
                fault(&mut dice).await;
                faults += 1;
            }
        };
        let (happened, (), ()) = tokio::join!(done, followers, failing);
        drop(ticking);
        let (from, stocks, stop) = (open(), self.stocks(), CancellationToken::new());
        let last = tokio::spawn(self.follower(&from, &stocks).run(stop.clone()));
        let (begun, now) = (Instant::now(), self.clock.now());
        let rows: BTreeMap<SiteId, Shown> = loop {
            let picture = stocks.board.picture();
            if picture.read_until.is_some_and(|read| read >= now) {
                break picture.of(masks()).iter().map(|(key, shown)| (key.site, *shown)).collect();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the last follower has not caught up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        stop.cancel();
        last.await.unwrap();
        let mut wrong = Vec::new();
        let sites: BTreeSet<_> = happened.keys().chain(rows.keys()).copied().collect();
        for site in &sites {
            let wanted = happened.get(site).and_then(|happened| happened.shown(now));
            let found = rows.get(site).map(|shown| (shown.level, shown.offered, shown.unverified));
            let same = match (wanted, found) {
                // A gap may be a reason, too.
                (Some((level, offered, negative)), Some(found)) => {
                    (level, offered) == (found.0, found.1) && (found.2 || !negative)
                }
                (wanted, found) => wanted.is_none() && found.is_none(),
            };
            if !same {
                wrong.push((*site, wanted, found));
            }
        }
        let unverified = rows.values().filter(|shown| shown.unverified).count();
        println!(
            "{name}: {} sites, {} shown, {unverified} unverified; followers begun {} times, {faults} faults; wrong levels: {}",
            sites.len(),
            rows.len(),
            lives + 1,
            wrong.len()
        );
        assert!(!rows.is_empty());
        assert!(unverified < rows.len(), "nothing was missed");
        assert!(wrong.is_empty(), "{:?} and {} more", wrong.first(), wrong.len() - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_level_is_what_happened_whatever_failed_on_redis() {
    let world = World::new();
    let mut server = RedisServer::start();
    let url = server.url();
    let pool = RedisPool::new(&url, 24).unwrap();
    let shelf = RedisShelf::new(pool.for_key(STOCK_TAG, 8).unwrap(), false);
    let options = RedisOptions {
        allow_volatile: false,
        terms: terms(&world.clock),
        lanes: lanes(),
        witness: None,
        seen: Seen::default(),
    };
    let ledger = RedisLedger::open(pool, options, world.clock.clone());
    let watched = ledger.clone();
    let _watch = AbortOnDropHandle::new(tokio::spawn(async move { watched.run(CancellationToken::new()).await }));
    ledger.ready().await;
    let clock = world.clock.clone();
    let open = || {
        let pool = RedisPool::new(&url, 4).unwrap();
        let shelf = RedisShelf::new(pool.for_key(STOCK_TAG, 4).unwrap(), false);
        let outbox = RedisReader::open(pool, false, clock.clone());
        let (watched, named) = (outbox.clone(), outbox.clone());
        let watch = AbortOnDropHandle::new(tokio::spawn(async move { watched.run(CancellationToken::new()).await }));
        Followed { outbox, named: Arc::new(move || named.id()), shelf, _watch: Some(watch) }
    };
    let fault = async |dice: &mut Dice| {
        server.kill();
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        server.restart();
    };
    world.live("redis", ledger, shelf, open, fault).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_level_is_what_happened_whatever_failed_on_the_embedded_store() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let ledger = EmbeddedLedger::open(directory.path(), &terms(&world.clock)).unwrap();
    let shelf = EmbeddedShelf::open(&directory.path().join("stock.redb")).unwrap();
    let (outbox, kept) = (ledger.clone(), shelf.clone());
    let open = || {
        let named = outbox.clone();
        let named: Arc<dyn Fn() -> Option<LedgerId> + Send + Sync> = Arc::new(move || named.id());
        Followed { outbox: outbox.clone(), named, shelf: kept.clone(), _watch: None }
    };
    world.live("embedded", ledger, shelf, open, async |_: &mut Dice| {}).await;
}
