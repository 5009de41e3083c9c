//! Connections to Redis: a deadpool pool with every wait bounded, and what counts as "away".
//!
//! Knows nothing about keys or scripts.

use std::time::Duration;

use deadpool_redis::redis::{AsyncConnectionConfig, IntoConnectionInfo};
use deadpool_redis::{Connection, Manager, Pool, Runtime};

/// How long a trip may take before its outcome counts as unknown.
pub const TRIP_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long dialling may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a caller waits for a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Why a store URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the store URL cannot be used: {0}; write redis://HOST:PORT/ or rediss://HOST:PORT/")]
pub struct BadRedisUrl(String);

/// No connection could be had: nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no connection to Redis: {0}")]
pub struct RedisAway(String);

/// A pool of connections to one Redis server.
#[derive(Clone)]
pub struct RedisPool(Pool);

impl RedisPool {
    /// A pool of at most `size` connections; none is dialled yet.
    pub fn new(url: &str, size: usize) -> Result<Self, BadRedisUrl> {
        let bad = |error: &dyn std::fmt::Display| BadRedisUrl(error.to_string());
        let info = url.into_connection_info().map_err(|e| bad(&e))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(TRIP_TIMEOUT));
        let manager = Manager::new_with_config(info, config).map_err(|e| bad(&e))?;
        Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(TRIP_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map(Self)
            .map_err(|e| bad(&e))
    }

    /// A connection, dialled if need be.
    pub async fn connection(&self) -> Result<Connection, RedisAway> {
        self.0.get().await.map_err(|error| RedisAway(error.to_string()))
    }
}
