//! The outbox of a ledger, for a process that records nothing in it: it knows no key, and works for whichever ledger stands there.

use tokio_util::sync::CancellationToken;

use redis::aio::MultiplexedConnection;

use crate::buyer::{KeyMark, Ring, Turn};
use crate::ids::LedgerId;
use crate::ledger::outbox::{After, Outbox, PARTITIONS, Place};
use crate::ledger::{Health, Kept, Ledger, LedgerError, Terms};
use crate::redis_pool::RedisPool;
use crate::time::Clock;

use super::identity::NotOurs;
use super::{FirstCheck, Lanes, RedisLedger, RedisOptions, Seen, keys};

/// Who only reads what happened. Clones share everything.
#[derive(Clone)]
pub struct RedisReader<C>(RedisLedger<C>);

impl<C: Clock> RedisReader<C> {
    /// Over the servers that this pool dials. Asks nothing yet, as [`RedisLedger::open`] does not.
    pub fn open(pool: RedisPool, allow_volatile: bool, clock: C) -> Self {
        let one = std::num::NonZeroUsize::MIN;
        // Nothing is written under a ring, so none is compared.
        let none = Turn::at(Ring { id: 0, mark: KeyMark::from_bytes([0; 8]) });
        let terms = Terms {
            turn: none,
            kept: Kept { now: clock.now(), length: std::time::Duration::ZERO },
            simulated_clock: clock.is_simulated(),
            programmes: Vec::new(),
        };
        let lanes = Lanes { count: one, group: one, queue: one };
        let options = RedisOptions { allow_volatile, terms, lanes, witness: None, seen: Seen::by(|_| {}) };
        Self(RedisLedger { only_reads: true, ..RedisLedger::open(pool, options, clock) })
    }

    /// As [`RedisLedger::check_once`].
    pub async fn check_once(&self) -> FirstCheck {
        self.0.check_once().await
    }

    /// Watches the store until it is stopped, as [`RedisLedger::run`] does.
    pub async fn run(&self, stop: CancellationToken) {
        self.0.run(stop).await;
    }

    /// The ledger that stands there, once it is known.
    pub fn id(&self) -> Option<LedgerId> {
        self.0.id()
    }

    /// Whether it can be read.
    pub fn health(&self) -> Health {
        self.0.health()
    }
}

impl<C: Clock> Outbox for RedisReader<C> {
    async fn after(&self, places: Vec<(u8, Place)>, most: usize) -> Result<Vec<After>, LedgerError> {
        self.0.after(places, most).await
    }

    async fn newest(&self) -> Result<[Place; PARTITIONS], LedgerError> {
        self.0.newest().await
    }
}

/// The name of the ledger that stands under this key. One that has not begun is not begun here.
pub(super) async fn whichever(connection: &mut MultiplexedConnection, key: &[u8]) -> Result<LedgerId, NotOurs> {
    let (id, layout): (Option<String>, Option<String>) =
        redis::cmd("HMGET").arg(key).arg("id").arg("layout").query_async(connection).await?;
    let Some(id) = id else {
        return Err(NotOurs::NotNow("no ledger has begun there yet: the first instance that sells begins it".into()));
    };
    let known = id.parse().ok().filter(|_| layout == Some(keys::LAYOUT.to_string()));
    known.ok_or_else(|| {
        let key = String::from_utf8_lossy(key);
        let found = format!("{key}: id {id:?}, layout {layout:?}");
        NotOurs::Unfit(vec![format!("{found}: this version reads layout {} only", keys::LAYOUT)])
    })
}
