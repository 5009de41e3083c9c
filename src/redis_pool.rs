//! Connections to Redis: a deadpool pool with every wait bounded, and what counts as "away".
//!
//! A fresh connection is greeted before anybody may use it: whoever must know that a new connection was dialled (and
//! that the server behind it may be another one than before) leaves a [`Greeting`] here.
//!
//! Knows nothing about keys or scripts.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{AsyncConnectionConfig, IntoConnectionInfo};
use deadpool_redis::{Connection, Hook, HookError, Manager, Pool, PoolError, Runtime, TimeoutType};

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
pub enum RedisAway {
    /// Every connection of the pool stayed in use for as long as a caller waits.
    #[error("every connection to Redis is in use")]
    AllInUse,
    /// Redis cannot be reached, does not answer, or a greeting turned the connection down; holds the reason.
    #[error("no connection to Redis: {0}")]
    Unreachable(String),
}

/// What a greeting comes to; an error keeps the connection from being used, and says why.
pub type Greeted = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Runs on every fresh connection before anybody may use it.
pub type Greeting = Box<dyn Fn(MultiplexedConnection) -> Greeted + Send + Sync>;

/// A pool of connections to one Redis server.
#[derive(Clone)]
pub struct RedisPool {
    pool: Pool,
    greetings: Arc<RwLock<Vec<Greeting>>>,
}

impl RedisPool {
    /// A pool of at most `size` connections; none is dialled yet.
    pub fn new(url: &str, size: usize) -> Result<Self, BadRedisUrl> {
        let bad = |error: &dyn std::fmt::Display| BadRedisUrl(error.to_string());
        let info = url.into_connection_info().map_err(|e| bad(&e))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(TRIP_TIMEOUT));
        let manager = Manager::new_with_config(info, config).map_err(|e| bad(&e))?;
        let greetings: Arc<RwLock<Vec<Greeting>>> = Arc::default();
        let on_dial = Arc::clone(&greetings);
        let pool = Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(TRIP_TIMEOUT))
            .post_create(Hook::async_fn(move |connection, _| {
                let greeted: Vec<Greeted> = on_dial
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .map(|greeting| greeting(connection.clone()))
                    .collect();
                Box::pin(async move {
                    for greeting in greeted {
                        greeting.await.map_err(HookError::message)?;
                    }
                    Ok(())
                })
            }))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| bad(&e))?;
        Ok(Self { pool, greetings })
    }

    /// From now on every fresh connection is greeted so as well.
    pub fn greet_with(&self, greeting: Greeting) {
        self.greetings.write().unwrap_or_else(PoisonError::into_inner).push(greeting);
    }

    /// A connection, dialled if need be.
    pub async fn connection(&self) -> Result<Connection, RedisAway> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => RedisAway::AllInUse,
            PoolError::PostCreateHook(HookError::Message(reason)) => RedisAway::Unreachable(reason.into_owned()),
            PoolError::Backend(error) => RedisAway::Unreachable(error.to_string()),
            other => RedisAway::Unreachable(other.to_string()),
        })
    }
}
