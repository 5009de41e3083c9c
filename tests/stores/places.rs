//! The two stores, each on a place of its own that is gone when the test ends. A case is written once, generic over the
//! ledger; a further store is one more function here, and one more line under each group of cases.

use rationd::ledger::Terms;
use rationd::ledger::embedded::EmbeddedLedger;
use rationd::ledger::outbox::{self, After, Outbox, Place};
use rationd::ledger::redis::{FirstCheck, RedisLedger, RedisOptions, Seen};
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

/// More events than any test makes.
const ALL: usize = 1_000_000;

/// The events of a partition, oldest first, as fields of text.
pub async fn told(ledger: &impl Outbox, partition: u8) -> Vec<Told> {
    let after = ledger.after(vec![(partition, Place::BEGINNING)], ALL).await.unwrap();
    after.into_iter().flat_map(events).collect()
}

/// Those of every partition.
pub async fn all_told(ledger: &impl Outbox) -> Vec<Vec<Told>> {
    let places = (0..=u8::MAX).map(|partition| (partition, Place::BEGINNING)).collect();
    ledger.after(places, ALL).await.unwrap().into_iter().map(events).collect()
}

fn events(after: After) -> Vec<Told> {
    let After::Events(events) = after else { panic!("nobody had got anywhere") };
    assert!(events.is_sorted_by(|(one, _), (next, _)| one != next), "{events:?}");
    events.into_iter().map(|(_, told)| fields(&told)).collect()
}

/// An event as fields of text.
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

/// An embedded ledger in a directory of its own.
pub async fn embedded() -> (EmbeddedLedger, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let ledger = EmbeddedLedger::open(directory.path(), &terms()).unwrap();
    (ledger, directory)
}

/// A redis-server of its own.
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
