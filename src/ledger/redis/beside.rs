//! What is kept beside the ledger in the same Redis, over connections of its own: how a trip ends, and when its answer may leave.
//!
//! Behind Sentinels and in a Cluster an answer leaves when every replica that might take over has what it rests on, replays and what
//! was read among it: a write behind it on the same connection, and `WAIT` for the replicas that must have it. One server alone has it on
//! its disk when it answers.
//!
//! A trip that fails leaves its connection behind: what is wrong with it may not heal.

use std::time::Duration;

use redis::RedisError;

use super::{faults, must_have};
use crate::ledger::LedgerError;
use crate::redis_pool::{Connection, Dialled, RedisAway, RedisPool};

/// How long replicas are waited for: within the time of a trip.
const REPLICAS_WITHIN: Duration = Duration::from_millis(700);

/// Connections to where it is kept.
#[derive(Clone)]
pub(crate) struct Beside {
    pool: RedisPool,
    /// The operator has decided that the store may lose what it has acknowledged.
    is_volatile: bool,
    /// The number that is raised before replicas are waited for: `WAIT` speaks of what its own connection has written.
    barrier: &'static str,
}

impl Beside {
    /// Over this pool, which must lead to where `barrier` is kept. Nothing is sent yet.
    pub(crate) fn new(pool: RedisPool, is_volatile: bool, barrier: &'static str) -> Self {
        Self { pool, is_volatile, barrier }
    }

    /// A connection to write and read on.
    pub(crate) async fn connection(&self) -> Result<Connection, LedgerError> {
        self.pool.connection().await.map_err(|away| match away {
            RedisAway::AllInUse => LedgerError::Overloaded,
            away => LedgerError::StoreUnavailable(away.to_string()),
        })
    }

    /// Returns when whoever may take over has all that this connection has written, and that it has read.
    pub(crate) async fn confirm(&self, connection: &mut Dialled) -> Result<(), LedgerError> {
        let Some(watchers) = self.pool.watchers().filter(|_| !self.is_volatile) else { return Ok(()) };
        let primary = connection.node().clone();
        let replicas = must_have(connection, &primary, watchers).await.map_err(meaning)?;
        let replicas = replicas
            .ok_or_else(|| LedgerError::Unconfirmed("nobody can say which replicas must have it".to_owned()))?;
        let mut unit = redis::pipe();
        unit.cmd("INCR").arg(self.barrier).ignore();
        unit.cmd("WAIT").arg(replicas).arg(REPLICAS_WITHIN.as_millis().to_string());
        let (had,): (usize,) = unit.query_async(&mut **connection).await.map_err(meaning)?;
        match had >= replicas {
            true => Ok(()),
            false => Err(LedgerError::Unconfirmed(format!("{had} of {replicas} replicas have it"))),
        }
    }
}

/// After a failure the connection is not used again.
pub(crate) fn given_back<T>(connection: Connection, came: Result<T, LedgerError>) -> Result<T, LedgerError> {
    if came.is_err() {
        drop(Connection::take(connection));
    }
    came
}

/// What a failure of a trip means.
pub(crate) fn meaning(error: RedisError) -> LedgerError {
    faults::meaning(&error)
}

/// What a failure means after something was written.
pub(crate) fn may_be_there(error: LedgerError) -> LedgerError {
    match error {
        LedgerError::Unconfirmed(_) => error,
        other => LedgerError::Unconfirmed(other.to_string()),
    }
}
