//! Connections to Redis: a deadpool pool with every wait bounded, and what counts as "away".
//!
//! One server has one address; behind Sentinels the primary is where they say that it is ([`Sentinels`]), and a connection
//! that leads elsewhere is not handed out again once that is known.
//!
//! A fresh connection is greeted before anybody may use it: whoever must know that a new connection was dialled (and
//! that the server behind it may be another one than before) leaves a [`Greeting`] here. The number that the greeting gives a
//! connection stays with it, so that nobody can take it for one to a later server.
//!
//! Knows nothing about keys or scripts.

mod sentinels;

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult, TimeoutType};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult};

pub use sentinels::{Node, Replica, Sentinels, View};

/// How long a trip may take before its outcome counts as unknown.
pub const TRIP_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long dialling may take, finding out where to included.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a caller waits for a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Why a store URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store URL cannot be used: {0}; write redis://HOST:PORT/, rediss://HOST:PORT/ or \
     redis+sentinel://HOST:PORT,HOST:PORT,HOST:PORT/NAME"
)]
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

/// What a greeting comes to: the number of the server that the connection leads to; an error keeps the connection from being
/// used, and says why.
pub type Greeted = Pin<Box<dyn Future<Output = Result<u64, String>> + Send>>;

/// Runs on every fresh connection before anybody may use it.
pub type Greeting = Box<dyn Fn(MultiplexedConnection) -> Greeted + Send + Sync>;

/// A connection of a pool. What is wrong with a connection may not heal: [`Connection::take`] takes it out for good.
pub type Connection = Object<Dialer>;

/// A connection and where it leads.
pub struct Dialled {
    redis: MultiplexedConnection,
    /// Whom it was dialled to, where that may change.
    node: Option<Node>,
    server: u64,
}

impl Dialled {
    /// The number that the greeting has given to the server behind it; 0 where nobody greets.
    pub fn server(&self) -> u64 {
        self.server
    }

    /// Whom it was dialled to, where Sentinels say who that is.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
}

impl Deref for Dialled {
    type Target = MultiplexedConnection;

    fn deref(&self) -> &MultiplexedConnection {
        &self.redis
    }
}

impl DerefMut for Dialled {
    fn deref_mut(&mut self) -> &mut MultiplexedConnection {
        &mut self.redis
    }
}

/// Where connections lead.
enum Way {
    One(Box<ConnectionInfo>, Box<deadpool_redis::Manager>),
    Primary(Arc<Sentinels>, Box<AsyncConnectionConfig>),
}

/// Makes the connections of a pool, and looks at each before it is handed out again.
pub struct Dialer {
    way: Way,
    greeting: Arc<RwLock<Option<Greeting>>>,
}

/// Why no connection was made, or one is not handed out again.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The server, or every Sentinel, cannot be reached.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The greeting has turned it down, or nobody says where the primary is.
    #[error("{0}")]
    TurnedDown(String),
}

impl managed::Manager for Dialer {
    type Type = Dialled;
    type Error = DialError;

    async fn create(&self) -> Result<Dialled, DialError> {
        let (redis, node) = match &self.way {
            Way::One(_, manager) => (manager.create().await?, None),
            Way::Primary(sentinels, config) => {
                let node = sentinels.find().await.map_err(DialError::TurnedDown)?;
                (sentinels.client(&node)?.get_multiplexed_async_connection_with_config(config).await?, Some(node))
            }
        };
        let greeted =
            self.greeting.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|greet| greet(redis.clone()));
        let server = match greeted {
            Some(greeted) => greeted.await.map_err(DialError::TurnedDown)?,
            None => 0,
        };
        Ok(Dialled { redis, node, server })
    }

    async fn recycle(&self, connection: &mut Dialled, metrics: &Metrics) -> RecycleResult<DialError> {
        match &self.way {
            Way::One(_, manager) => {
                manager.recycle(&mut connection.redis, metrics).await.map_err(|error| match error {
                    RecycleError::Message(why) => RecycleError::Message(why),
                    RecycleError::Backend(error) => RecycleError::Backend(error.into()),
                })
            }
            Way::Primary(sentinels, _) if sentinels.primary() != connection.node => {
                Err(RecycleError::message("the primary is another one now"))
            }
            Way::Primary(..) => {
                redis::cmd("PING").query_async::<()>(&mut connection.redis).await.map_err(DialError::from)?;
                Ok(())
            }
        }
    }
}

/// A pool of connections to one Redis server, or to whichever is the primary.
#[derive(Clone)]
pub struct RedisPool {
    pool: managed::Pool<Dialer>,
    greeting: Arc<RwLock<Option<Greeting>>>,
}

impl RedisPool {
    /// A pool of at most `size` connections; none is dialled yet.
    pub fn new(url: &str, size: usize) -> Result<Self, BadRedisUrl> {
        let way = match Sentinels::parse(url).transpose().map_err(BadRedisUrl)? {
            Some(sentinels) => Ok(Way::primary(Arc::new(sentinels))),
            None => url.into_connection_info().and_then(Way::one),
        };
        Self::over(way, size)
    }

    /// Another pool of connections to the same place, of at most `size` and with no greeting. What one of them learns of where
    /// the primary is, all know.
    pub fn another(&self, size: usize) -> Result<Self, BadRedisUrl> {
        let way = match &self.pool.manager().way {
            Way::One(info, _) => Way::one(ConnectionInfo::clone(info)),
            Way::Primary(sentinels, _) => Ok(Way::primary(Arc::clone(sentinels))),
        };
        Self::over(way, size)
    }

    fn over(way: RedisResult<Way>, size: usize) -> Result<Self, BadRedisUrl> {
        let way = way.map_err(|error| BadRedisUrl(error.to_string()))?;
        let greeting: Arc<RwLock<Option<Greeting>>> = Arc::default();
        let pool = managed::Pool::builder(Dialer { way, greeting: Arc::clone(&greeting) })
            .max_size(size)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(TRIP_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| BadRedisUrl(error.to_string()))?;
        Ok(Self { pool, greeting })
    }

    /// From now on every fresh connection is greeted so.
    pub fn greet_with(&self, greeting: Greeting) {
        *self.greeting.write().unwrap_or_else(PoisonError::into_inner) = Some(greeting);
    }

    /// Who says where the primary is, if anybody does.
    pub fn sentinels(&self) -> Option<&Sentinels> {
        match &self.pool.manager().way {
            Way::One(..) => None,
            Way::Primary(sentinels, _) => Some(sentinels),
        }
    }

    /// A connection, dialled if need be.
    pub async fn connection(&self) -> Result<Connection, RedisAway> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => RedisAway::AllInUse,
            PoolError::Backend(error) => RedisAway::Unreachable(error.to_string()),
            other => RedisAway::Unreachable(other.to_string()),
        })
    }
}

impl Way {
    fn one(info: ConnectionInfo) -> RedisResult<Self> {
        let manager = deadpool_redis::Manager::new_with_config(info.clone(), Self::timeouts())?;
        Ok(Self::One(Box::new(info), Box::new(manager)))
    }

    fn primary(sentinels: Arc<Sentinels>) -> Self {
        Self::Primary(sentinels, Box::new(Self::timeouts()))
    }

    fn timeouts() -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(TRIP_TIMEOUT))
    }
}
