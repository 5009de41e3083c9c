//! What the tests of a counter share: who sells, to whom, and where the journal is.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::{LedgerId, RequestId, SiteId, TerminalId};
use rationd::terminal::counter::{Counter, Line, Settings};
use rationd::terminal::journal::{Buyer, Damage, Fact, Journal, NotOpened, NotWritten, Row, Sale, WhenAway};
use rationd::time::{SystemClock, Timestamp};

use crate::service::Service;
use crate::shops::{PROGRAMME, SATURDAY, SITES, get, number};
use crate::support::proxy::Proxy;

/// Everything that takes its time must have happened by then, also what comes back in its own time.
pub const IN_TIME: Duration = Duration::from_secs(60);

pub fn site() -> SiteId {
    SITES[0].parse().unwrap()
}

pub fn terminal() -> TerminalId {
    "window-1".parse().unwrap()
}

pub fn start() -> Timestamp {
    SATURDAY.parse().unwrap()
}

/// The sale of one unit to the nth made-up person.
pub fn sale(nth: u64) -> Sale {
    Sale::in_person(PROGRAMME.parse().unwrap(), Buyer::Resident(number(nth)), 1)
}

/// Opens the journal at this path, whose key stands beside it.
pub fn open(path: &Path) -> Result<(Journal, Option<Damage>), NotOpened> {
    open_at(path, start())
}

pub fn open_at(path: &Path, now: Timestamp) -> Result<(Journal, Option<Damage>), NotOpened> {
    Journal::open(path, &key_of(path), (site(), terminal()), now)
}

/// Where a counter has the key of its journal.
pub fn key_of(path: &Path) -> PathBuf {
    path.with_extension("journal.key")
}

pub fn write(journal: &Journal, facts: Vec<Fact>) -> Result<(), NotWritten> {
    journal.write(|_| Ok((facts, ())))
}

pub fn rows(journal: &Journal) -> Vec<Row> {
    journal.read(|state| state.rows(Timestamp::EPOCH))
}

pub fn ledger() -> LedgerId {
    LedgerId::from_bytes([9; 16]).unwrap()
}

pub fn told() -> Fact {
    Fact::Told { ledger: ledger(), when_away: vec![(PROGRAMME.parse().unwrap(), WhenAway::SellAndRecord)] }
}

pub fn asked(id: RequestId, nth: u64, at: Timestamp) -> Fact {
    Fact::Asked { id, at, ledger: ledger(), sale: sale(nth) }
}

pub fn sold_offline(id: RequestId, nth: u64, at: Timestamp) -> Fact {
    Fact::SoldOffline { id, at, sale: sale(nth) }
}

/// How a counter of these tests is set up.
pub fn settings(address: &str, journal: &Path) -> Settings {
    let settings = Settings::new(address, site(), terminal(), journal);
    Settings { clock: SystemClock::starting_at(start()), ..settings }
}

/// Where a service listens.
pub fn port(service: &Service) -> u16 {
    service.address.rsplit(':').next().unwrap().parse().unwrap()
}

/// A proxy in front of a service, and its address.
pub async fn in_front_of(service: &Service) -> (Proxy, String) {
    let proxy = Proxy::to(port(service)).await;
    let address = format!("http://127.0.0.1:{}", proxy.port());
    (proxy, address)
}

/// A counter that may sell.
pub async fn selling(address: &str, journal: &Path) -> Counter {
    let (counter, damage) = Counter::open(settings(address, journal)).await.unwrap();
    assert_eq!(damage, None);
    may_sell(&counter).await;
    counter
}

/// Waits until a counter may sell.
pub async fn may_sell(counter: &Counter) {
    let mut shown = counter.shown();
    let selling = shown.wait_for(|shown| matches!(shown.line, Line::Selling { .. }));
    tokio::time::timeout(IN_TIME, selling).await.expect("a seat in time").unwrap();
}

/// Waits until nothing is open.
pub async fn is_settled(counter: &Counter) {
    let mut shown = counter.shown();
    let settled = shown.wait_for(|shown| shown.unresolved + shown.waiting == 0);
    tokio::time::timeout(IN_TIME, settled).await.expect("settled in time").unwrap();
}

/// Asks again and again until it is so.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < IN_TIME, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the service has of an id of the nth person.
pub async fn recorded(service: &Service, nth: u64, id: RequestId) -> Outcome {
    let judge = service.terminal(SITES[0], "judge").await;
    judge.resolve(get(&number(nth), id)).await.unwrap().result.unwrap().outcome.unwrap()
}
