//! The two stores, each on a place of its own that is gone when the test ends. A case is written once, generic over the
//! ledger; a further store is one more function here, and one more line under each group of cases.

use rationd::ledger::embedded::EmbeddedLedger;
use tempfile::TempDir;

use super::steps::Told;

/// Reads what a store has told: the one thing about a ledger that its port does not offer.
pub trait Outbox {
    /// The events of a partition, oldest first, as the fields that stand in the store.
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
    let ledger = EmbeddedLedger::open(directory.path()).unwrap();
    (ledger.clone(), Directory { ledger, _directory: directory })
}

// Redis stands here: `pub async fn redis() -> (RedisLedger<ManualClock>, Server)`, with `impl Outbox for Server`.
