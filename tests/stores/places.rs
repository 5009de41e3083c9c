//! The two stores, each on a place of its own that is gone when the test ends. A case is written once, generic over the
//! ledger; a further store is one more function here, and one more line under each group of cases.

use rationd::ledger::Terms;
use rationd::ledger::embedded::EmbeddedLedger;
use rationd::ledger::redis::{FirstCheck, RedisLedger, RedisOptions, Seen, keys, outbox};
use rationd::redis_pool::RedisPool;
use rationd::time::ManualClock;
use tempfile::TempDir;

use super::steps::{Told, at, kept, turn};
use crate::support::redis::{RedisServer, lanes};

/// The terms of every ledger of these tests.
pub fn terms() -> Terms {
    let programmes = vec![("km".parse().unwrap(), "masks kr_resident".to_owned())];
    Terms { turn: turn(), kept: kept(0), simulated_clock: true, programmes }
}

/// Reads what a store has told: the one thing about a ledger that its port does not offer.
pub trait Outbox {
    /// The events of a partition, oldest first, as fields of text.
    async fn told(&self, partition: u8) -> Vec<Told>;
}

/// The place of an embedded ledger, and a handle to read its outbox.
pub struct Directory {
    ledger: EmbeddedLedger,
    _directory: TempDir,
}

impl Outbox for Directory {
    async fn told(&self, partition: u8) -> Vec<Told> {
        told(&self.ledger, partition).await
    }
}

/// The events that an embedded ledger holds, as fields of text.
pub async fn told(ledger: &EmbeddedLedger, partition: u8) -> Vec<Told> {
    let events = ledger.outbox(partition, 0, usize::MAX).await.unwrap();
    events
        .into_iter()
        .enumerate()
        .map(|(place, (sequence, event))| {
            assert_eq!(sequence, place as u64 + 1, "the sequence has no gaps");
            let fields = serde_json::to_value(&event).unwrap();
            let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            fields.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect()
        })
        .collect()
}

/// An embedded ledger in a directory of its own.
pub async fn embedded() -> (EmbeddedLedger, Directory) {
    let directory = tempfile::tempdir().unwrap();
    let ledger = EmbeddedLedger::open(directory.path(), &terms()).unwrap();
    (ledger.clone(), Directory { ledger, _directory: directory })
}

/// A redis-server of its own, and a connection to read its outbox.
pub struct Server {
    server: RedisServer,
}

impl Server {
    /// Where it listens.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on its data, and waits until the ledger has found it fit.
    pub async fn restart(&mut self, ledger: &RedisLedger<ManualClock>) {
        self.server.restart();
        while ledger.check_once().await != FirstCheck::Fit {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Outbox for Server {
    async fn told(&self, partition: u8) -> Vec<Told> {
        let client = redis::Client::open(self.server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut range = redis::cmd("XRANGE");
        range.arg(&keys::outbox(partition)).arg("-").arg("+");
        let events: Vec<(String, [Vec<u8>; 2])> = range.query_async(&mut connection).await.unwrap();
        events.into_iter().map(|(_, [kind, value])| fields(&outbox::read(&kind, &value).unwrap())).collect()
    }
}

/// An event of Redis in the words of the other store.
fn fields(told: &outbox::Told) -> Told {
    let entry = &told.event.entry;
    let mut fields = Told::from(
        [
            ("kind", told.event.kind.name().to_owned()),
            ("programme", told.programme.to_string()),
            ("request", entry.request.to_string()),
            ("site", entry.site.to_string()),
            ("terminal", told.terminal.to_string()),
            ("quantity", entry.quantity.to_string()),
            ("at", entry.at.as_millis().to_string()),
            ("stated", told.stated.clone()),
        ]
        .map(|(name, text)| (name.to_owned(), text)),
    );
    fields.extend(entry.held_until().map(|until| ("until".to_owned(), until.as_millis().to_string())));
    fields
}

/// A ledger in a redis-server of its own, found fit.
pub async fn redis() -> (RedisLedger<ManualClock>, Server) {
    let server = RedisServer::start();
    let ledger = redis_ledger(&server.url(), 16).await;
    (ledger, Server { server })
}

/// A ledger over the server at this URL, with so many connections, found fit.
pub async fn redis_ledger(url: &str, connections: usize) -> RedisLedger<ManualClock> {
    let pool = RedisPool::new(url, connections).unwrap();
    let ledger = RedisLedger::open(
        pool,
        RedisOptions { allow_volatile: false, terms: terms(), lanes: lanes(), witness: None, seen: Seen::default() },
        ManualClock::new(at(0)),
    );
    assert_eq!(ledger.check_once().await, FirstCheck::Fit);
    ledger
}
