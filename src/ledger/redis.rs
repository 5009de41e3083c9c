//! The ledger in Redis: one script per verb, one trip per call.
//!
//! A record is a string of packed entries (see [`keys`]). Every verb is one Lua script that reads the record,
//! decides, and writes the record and the outbox event together; the scripts agree with [`super::rules`] cell by cell.
//! Encoding a call and decoding a reply are pure functions, and between them there is one command, which a lane carries
//! together with others (`lanes`).
//!
//! Nothing is sent to a server that has not been looked at since it started (`standing`), because a receipt promises
//! what its settings promise. Behind Sentinels and in a Cluster an answer leaves when every replica that might take over has what
//! it rests on (`unit`, `confirming`). A Cluster is several such servers, each with a part of the ledger (`shards`).
//!
//! Knows nothing about programmes' rules, sessions or the wire.

pub(crate) mod beside;
mod confirming;
mod decode;
mod encode;
mod export;
pub(crate) mod faults;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
pub mod keys;
mod lanes;
mod outbox;
mod reader;
mod replicated;
mod rings;
mod scripts;
mod seeded;
mod settings;
mod shards;
mod standing;
mod trip;
mod unit;
mod watching;
mod witness;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::watch;

use crate::buyer::Turn;
use crate::ids::{LedgerId, ProgrammeCode};
use crate::museum::Mutant;
use crate::redis_pool::{BadRedisUrl, RedisPool};
use crate::time::{Clock, Timestamp};

use super::{
    Answer, Call, Claim, Claimed, Confirmed, Durability, Entered, Exported, Health, Kept, Late, Ledger, LedgerError,
    Record, RecordKey, Released, Resolved, Swept, Terms, Voided,
};
use decode::Scanned;
use lanes::Queue;
use shards::{Shard, Shards};
use standing::{Barrier, Standing};
use unit::Asks;

pub use lanes::{Lanes, Seen, Trip};
pub use reader::RedisReader;
use replicated::must_have;
pub use watching::FirstCheck;
pub use witness::{BadWitness, Witness};

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
    /// How calls share trips.
    pub lanes: Lanes,
    /// What an earlier process has left, and where this one is to leave the same; `None`: nothing is kept. Of a store that may lose
    /// what it has nothing is.
    pub witness: Option<Arc<Witness>>,
    /// Who measures trips.
    pub seen: Seen,
}

/// The ledger in Redis. Clones share everything.
#[derive(Clone)]
pub struct RedisLedger<C> {
    pool: RedisPool,
    shards: Arc<watch::Sender<Arc<Shards>>>,
    ledger: Arc<OnceLock<LedgerId>>,
    options: Arc<RedisOptions>,
    /// How far the key ring of this process has turned.
    turn: Arc<watch::Sender<Turn>>,
    /// Nothing of the ledger is written by this process, not even its name.
    only_reads: bool,
    clock: C,
}

impl<C: Clock> RedisLedger<C> {
    /// A ledger over the servers that this pool dials. Asks nothing yet: every call is turned away until
    /// [`RedisLedger::check_once`] or [`RedisLedger::run`] has found the server fit. Its lanes are tasks of the runtime that
    /// this is called in; they end when the last clone has gone.
    pub fn open(pool: RedisPool, options: RedisOptions, clock: C) -> Self {
        let ledger = Self {
            shards: Arc::default(),
            ledger: Arc::default(),
            turn: Arc::new(watch::Sender::new(options.terms.turn)),
            options: Arc::new(options),
            only_reads: false,
            clock,
            pool: pool.clone(),
        };
        // Those of a Cluster are known when its nodes have said who holds what.
        if pool.cluster().is_none() {
            ledger.shards.send_replace(Arc::new(Shards::alone(ledger.shard_over(None, pool))));
        }
        ledger
    }

    /// A shard over the servers that this pool dials.
    fn shard_over(&self, first: Option<u8>, pool: RedisPool) -> Shard {
        let barrier = Barrier {
            key: first.map_or_else(|| keys::UNITS.into(), keys::units_of),
            process: uuid::Uuid::new_v4().simple().to_string(),
        };
        let standing = Arc::new(Standing::new(self.options.allow_volatile, Arc::clone(&self.ledger), barrier));
        let queue = Queue::open(self.options.lanes, &pool, &standing, &self.options.seen);
        let shard = Shard { first, pool, queue, standing };
        watching::greet(&shard);
        shard
    }

    /// The shard of a Cluster whose first partition this is.
    fn shard_of(&self, first: u8) -> Result<Shard, BadRedisUrl> {
        Ok(self.shard_over(Some(first), self.pool.for_key(&keys::tag(first), self.pool.max_size())?))
    }

    fn shards(&self) -> Arc<Shards> {
        Arc::clone(&self.shards.borrow())
    }

    /// One command about a buyer that may write, over a trip that it shares with others.
    fn ask(&self, key: &RecordKey, cmd: Cmd) -> impl Future<Output = Result<Value, LedgerError>> + Send + use<C> {
        let (turn, asked) = (key.turn, self.put(key, cmd, Asks::MayWrite));
        async move { decode::under(&turn, asked.await?) }
    }

    /// One that only reads, likewise.
    fn read(&self, key: &RecordKey, cmd: Cmd) -> impl Future<Output = Result<Value, LedgerError>> + Send + use<C> {
        self.put(key, cmd, Asks::Reads)
    }

    fn put(
        &self,
        key: &RecordKey,
        cmd: Cmd,
        asks: Asks,
    ) -> impl Future<Output = Result<Value, LedgerError>> + Send + use<C> {
        let shard = self.shards.borrow().of(key.buyer.partition);
        async move {
            let shard = shard?;
            shard.queue.ask(shard.standing.gate(), cmd, asks).await
        }
    }

    /// Sends what is no call of the port over a connection of the pool.
    async fn send<T, F>(&self, shard: &Shard, send: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, LedgerError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        trip::with_connection(&shard.pool, &shard.standing, |connection, _| send(connection)).await
    }
}

impl<C: Clock> Ledger for RedisLedger<C> {
    // The command is made before the future, so that what waits for the store is a command and not all that it was made of.

    fn claim(
        &self,
        key: RecordKey,
        call: Call,
        claim: Claim,
    ) -> impl Future<Output = Result<Answer<Claimed>, LedgerError>> + Send {
        let (cmd, request) = (encode::claim(&key, &call, &claim), call.request);
        let seeded = seeded::claim(self, key, call, claim);
        async move {
            match seeded {
                Some(seeded) => seeded.await,
                None => decode::claimed(request, self.ask(&key, cmd).await?),
            }
        }
    }

    fn confirm(
        &self,
        key: RecordKey,
        call: Call,
    ) -> impl Future<Output = Result<Answer<Confirmed>, LedgerError>> + Send {
        let (cmd, request) = (encode::confirm(&key, &call), call.request);
        async move { decode::confirmed(request, self.ask(&key, cmd).await?) }
    }

    fn release(
        &self,
        key: RecordKey,
        call: Call,
    ) -> impl Future<Output = Result<Answer<Released>, LedgerError>> + Send {
        let (cmd, request) = (encode::release(&key, &call), call.request);
        async move { decode::released(request, self.ask(&key, cmd).await?) }
    }

    fn void(&self, key: RecordKey, call: Call) -> impl Future<Output = Result<Answer<Voided>, LedgerError>> + Send {
        let (cmd, request) = (encode::void(&key, &call), call.request);
        async move { decode::voided(request, self.ask(&key, cmd).await?) }
    }

    fn late(
        &self,
        key: RecordKey,
        call: Call,
        late: Late,
    ) -> impl Future<Output = Result<Answer<Entered>, LedgerError>> + Send {
        let (cmd, request) = (encode::late(&key, &call, &late), call.request);
        async move { decode::entered(request, self.ask(&key, cmd).await?) }
    }

    fn resolve(
        &self,
        key: RecordKey,
        call: Call,
    ) -> impl Future<Output = Result<Answer<Resolved>, LedgerError>> + Send {
        let (cmd, request) = (encode::resolve(&key, &call), call.request);
        async move { decode::resolved(request, self.ask(&key, cmd).await?) }
    }

    async fn usage(&self, key: RecordKey) -> Result<Record, LedgerError> {
        let read = self.read(&key, encode::usage(&key)).await;
        decode::usage(&key.turn, read.map_err(wrote_nothing)?)
    }

    async fn sweep(
        &self,
        programme: ProgrammeCode,
        before: Timestamp,
        from: Option<Vec<u8>>,
    ) -> Result<Swept, LedgerError> {
        let before = if Mutant::SweptTooEarly.is_on() { before.plus(Duration::from_secs(30 * 86_400)) } else { before };
        let shards = self.shards();
        let walk = shards.walk(from.as_deref()).map_err(wrote_nothing)?;
        let scan = encode::scan(programme, walk.cursor.as_deref(), SWEEP_STEP);
        let scanned = walk.shard.queue.ask(walk.shard.standing.gate(), scan, Asks::Reads).await;
        let Scanned { next, records } = decode::scanned(programme, scanned.map_err(wrote_nothing)?)?;
        let next = shards.step(&walk, next);
        if records.is_empty() {
            return Ok(Swept { removed: 0, unreadable: 0, next });
        }
        let swept: Result<Vec<i64>, LedgerError> = self
            .send(&walk.shard, async move |mut connection| {
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

    async fn export(&self, programme: ProgrammeCode, from: Option<Vec<u8>>) -> Result<Exported, LedgerError> {
        export::step(self, programme, from).await.map_err(wrote_nothing)
    }

    /// What cannot be moved now is moved by the next look, or by the first call that writes there.
    async fn turn(&self, to: Turn, kept: Kept) -> Result<(), LedgerError> {
        if to.previous().is_none() {
            self.may_be_at(&to, kept).await?;
        }
        self.turn.send_replace(to);
        for shard in self.shards().all().values() {
            self.move_on(shard).await?;
        }
        Ok(())
    }

    /// Serving as long as one shard does: buyers of the others are told that the store is not there.
    fn health(&self) -> Health {
        let shards = self.shards();
        let mut told = shards.all().values().map(|shard| shard.standing.health());
        let first = told.next().unwrap_or_else(|| Health::NotServing("no node of the Cluster answers".into()));
        told.fold(first, |health, next| if matches!(health, Health::Serving(_)) { health } else { next })
    }

    fn id(&self) -> Option<LedgerId> {
        self.ledger.get().copied()
    }

    fn durability(&self) -> Durability {
        match self.pool.watchers() {
            _ if self.options.allow_volatile => Durability::Volatile,
            Some(_) => Durability::Replicated,
            None => Durability::Synced,
        }
    }
}

/// A claim as it is sent: the words of its command, the first of which is `EVALSHA`, and the text of the script that they
/// name. The benchmark `side_by_side` has redis-benchmark send it.
#[doc(hidden)]
pub fn raw_claim(key: &RecordKey, call: &Call, claim: &Claim) -> (Vec<Vec<u8>>, &'static str) {
    let command = encode::claim(key, call, claim);
    let words = command.args_iter().map(|word| match word {
        redis::Arg::Simple(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    });
    (words.collect(), &scripts::claim().source)
}

/// A question that got no answer has written nothing either.
pub(crate) fn wrote_nothing(error: LedgerError) -> LedgerError {
    match error {
        LedgerError::Unconfirmed(reason) => LedgerError::StoreUnavailable(reason),
        other => other,
    }
}
