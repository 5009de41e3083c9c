//! The ledger in Redis: one script per verb, one trip per call.
//!
//! A record is a hash (see [`keys`]), an entry a packed field of it. Every verb is one Lua script that reads the record,
//! decides, and writes the record and the outbox event together; the scripts agree with [`super::rules`] cell by cell.
//! Encoding a call and decoding a reply are pure functions, and between them there is one command: whoever shares trips
//! needs no more than these.
//!
//! Nothing is sent to a server that has not been looked at since it started (`standing`), because a receipt promises
//! what its settings promise.
//!
//! Knows nothing about programmes' rules, sessions or the wire.

mod decode;
mod encode;
mod faults;
pub mod keys;
mod scripts;
mod seeded;
mod settings;
mod standing;
mod trip;
mod watching;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};

use crate::ids::{LedgerId, ProgrammeCode};
use crate::museum::Mutant;
use crate::redis_pool::RedisPool;
use crate::time::{Clock, Timestamp};

use super::{
    Answer, Call, Claim, Claimed, Confirmed, Durability, Entered, Health, Late, Ledger, LedgerError, Record, RecordKey,
    Released, Resolved, Swept, Terms, Voided,
};
use decode::Scanned;
use standing::Standing;

pub use watching::FirstCheck;

/// How many keys one step of a sweep looks at, more or less.
const SWEEP_STEP: usize = 256;

/// What the operator has decided about the store.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Work with a server whose settings can lose acknowledged sales. Every receipt then says so, even while the settings
    /// happen to be the right ones: nobody stops sales when they change.
    pub allow_volatile: bool,
    /// What this service works under; a ledger begun under anything else is refused.
    pub terms: Terms,
}

/// The ledger in one Redis server. Clones share everything.
#[derive(Clone)]
pub struct RedisLedger<C> {
    pool: RedisPool,
    options: Arc<RedisOptions>,
    clock: C,
    standing: Arc<Standing>,
    /// The weak settings that were last warned of.
    told: Arc<Mutex<Vec<String>>>,
}

impl<C: Clock> RedisLedger<C> {
    /// A ledger over the servers that this pool dials. Asks nothing yet: every call is turned away until
    /// [`RedisLedger::check_once`] or [`RedisLedger::run`] has found the server fit.
    pub fn open(pool: RedisPool, options: RedisOptions, clock: C) -> Self {
        let standing = Arc::new(Standing::new());
        watching::greet(&pool, &standing);
        Self { pool, options: Arc::new(options), clock, standing, told: Arc::default() }
    }

    /// One command on a connection of the pool.
    async fn ask(&self, cmd: Cmd) -> Result<Value, LedgerError> {
        self.send(async move |mut connection| trip::ask(&mut connection, &cmd).await).await
    }

    async fn send<T, F>(&self, send: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, LedgerError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        trip::with_connection(&self.pool, &self.standing, send).await
    }
}

impl<C: Clock> Ledger for RedisLedger<C> {
    async fn claim(&self, key: RecordKey, call: Call, claim: Claim) -> Result<Answer<Claimed>, LedgerError> {
        if Mutant::CheckThenWrite.is_on() {
            return seeded::check_then_write(self, key, call, claim).await;
        }
        decode::claimed(call.request, self.ask(encode::claim(&key, &call, &claim)).await?)
    }

    async fn confirm(&self, key: RecordKey, call: Call) -> Result<Answer<Confirmed>, LedgerError> {
        decode::confirmed(call.request, self.ask(encode::confirm(&key, &call)).await?)
    }

    async fn release(&self, key: RecordKey, call: Call) -> Result<Answer<Released>, LedgerError> {
        decode::released(call.request, self.ask(encode::release(&key, &call)).await?)
    }

    async fn void(&self, key: RecordKey, call: Call) -> Result<Answer<Voided>, LedgerError> {
        decode::voided(call.request, self.ask(encode::void(&key, &call)).await?)
    }

    async fn late(&self, key: RecordKey, call: Call, late: Late) -> Result<Answer<Entered>, LedgerError> {
        decode::entered(call.request, self.ask(encode::late(&key, &call, &late)).await?)
    }

    async fn resolve(&self, key: RecordKey, call: Call) -> Result<Answer<Resolved>, LedgerError> {
        decode::resolved(call.request, self.ask(encode::resolve(&key, &call)).await?)
    }

    async fn usage(&self, key: RecordKey) -> Result<Record, LedgerError> {
        let read = self.ask(encode::usage(&key)).await;
        decode::record(read.map_err(wrote_nothing)?)
    }

    async fn sweep(
        &self,
        programme: ProgrammeCode,
        before: Timestamp,
        from: Option<Vec<u8>>,
    ) -> Result<Swept, LedgerError> {
        let before = if Mutant::SweptTooEarly.is_on() { before.plus(Duration::from_secs(30 * 86_400)) } else { before };
        let scanned = self.ask(encode::scan(programme, from.as_deref(), SWEEP_STEP)).await;
        let Scanned { next, records } = decode::scanned(programme, scanned.map_err(wrote_nothing)?)?;
        if records.is_empty() {
            return Ok(Swept { removed: 0, unreadable: 0, next });
        }
        let swept: Result<Vec<i64>, LedgerError> = self
            .send(async move |mut connection| {
                // Loaded with them, so that none of them can be turned away halfway for the lack of it.
                let mut pipeline = encode::load(scripts::sweep());
                for record in &records {
                    pipeline.add_command(encode::sweep(record, before));
                }
                pipeline.query_async(&mut connection).await
            })
            .await;
        // Some may have been done when the first one failed.
        let swept = swept.map_err(|error| LedgerError::Unconfirmed(error.to_string()))?;
        let removed = swept.iter().filter_map(|removed| u64::try_from(*removed).ok()).sum();
        let unreadable = swept.iter().filter(|removed| **removed < 0).fold(0, |unreadable, _| unreadable + 1);
        Ok(Swept { removed, unreadable, next }.told(programme))
    }

    fn health(&self) -> Health {
        self.standing.health()
    }

    fn id(&self) -> Option<LedgerId> {
        self.standing.ledger()
    }

    fn durability(&self) -> Durability {
        if self.options.allow_volatile { Durability::Volatile } else { Durability::Synced }
    }
}

/// A question that got no answer has written nothing either.
fn wrote_nothing(error: LedgerError) -> LedgerError {
    match error {
        LedgerError::Unconfirmed(reason) => LedgerError::StoreUnavailable(reason),
        other => other,
    }
}
