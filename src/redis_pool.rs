//! Connections to Redis: a deadpool pool with every wait bounded, and what counts as "away".
//!
//! One server has one address; behind Sentinels, and in a Cluster, the primary is where those who watch over it say that it is
//! ([`Watchers`]), and a connection that leads elsewhere is not handed out again once that is known.
//!
//! A fresh connection is greeted before anybody may use it: whoever must know that a new connection was dialled (and
//! that the server behind it may be another one than before) leaves a [`Greeting`] here. The number that the greeting gives a
//! connection stays with it, so that nobody can take it for one to a later server.
//!
//! Knows nothing about keys or scripts.

mod cluster;
mod sentinels;
mod watchers;

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult, TimeoutType};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult};

use sentinels::Sentinels;

pub use cluster::{Cluster, Layout, Slot};
pub use watchers::{LISTED_PRIORITY, Node, Replica, View, Watchers};

/// How long a trip may take before its outcome counts as unknown.
pub const TRIP_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long dialling may take, finding out where to included.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a caller waits for a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Why a store URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store URL cannot be used: {0}; write redis://HOST:PORT/, redis+sentinel://HOST:PORT,HOST:PORT,HOST:PORT/NAME or \
     redis+cluster://HOST:PORT,HOST:PORT,HOST:PORT/, with rediss for TLS"
)]
pub struct BadRedisUrl(String);

/// No connection could be had: nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisAway {
    /// Every connection of the pool stayed in use for as long as a caller waits.
    #[error("every connection to Redis is in use")]
    AllInUse,
    /// Redis cannot be reached or does not answer; holds the reason.
    #[error("no connection to Redis: {0}")]
    Unreachable(String),
    /// A greeting found another server than the one that is looked for; holds what it is.
    #[error("no connection to Redis: {0}")]
    Wrong(String),
}

/// What a greeting comes to: the number of the server that the connection leads to; an error keeps the connection from being
/// used.
pub type Greeted = Pin<Box<dyn Future<Output = Result<u64, DialError>> + Send>>;

/// Runs on every fresh connection before anybody may use it.
pub type Greeting = Box<dyn Fn(MultiplexedConnection) -> Greeted + Send + Sync>;

/// A connection of a pool. What is wrong with a connection may not heal: [`Connection::take`] takes it out for good.
pub type Connection = Object<Dialer>;

/// A connection and where it leads.
pub struct Dialled {
    redis: MultiplexedConnection,
    node: Node,
    server: u64,
}

impl Dialled {
    /// The number that the greeting has given to the server behind it; 0 where nobody greets.
    pub fn server(&self) -> u64 {
        self.server
    }

    /// Whom it was dialled to.
    pub fn node(&self) -> &Node {
        &self.node
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
    Primary(Watchers, Box<AsyncConnectionConfig>),
}

/// Makes the connections of a pool, and looks at each before it is handed out again.
pub struct Dialer {
    way: Way,
    greeting: Arc<RwLock<Option<Greeting>>>,
}

/// Why no connection was made, or one is not handed out again.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The server cannot be reached.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Nobody says where the primary is; holds why.
    #[error("{0}")]
    Nowhere(String),
    /// The greeting found that it leads to another server than the one that is looked for; holds what it is.
    #[error("{0}")]
    Wrong(String),
}

impl Dialer {
    async fn greeted(&self, redis: MultiplexedConnection, node: Node) -> Result<Dialled, DialError> {
        let greeted =
            self.greeting.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|greet| greet(redis.clone()));
        let server = match greeted {
            Some(greeted) => greeted.await?,
            None => 0,
        };
        Ok(Dialled { redis, node, server })
    }
}

impl managed::Manager for Dialer {
    type Type = Dialled;
    type Error = DialError;

    async fn create(&self) -> Result<Dialled, DialError> {
        match &self.way {
            Way::One(info, manager) => self.greeted(manager.create().await?, Node::of(info)).await,
            Way::Primary(watchers, config) => loop {
                let node = watchers.find().await.map_err(DialError::Nowhere)?;
                let client = watchers.client(&node)?;
                let dialled = async {
                    let redis = client.get_multiplexed_async_connection_with_config(config).await?;
                    self.greeted(redis, node.clone()).await
                };
                tokio::select! {
                    dialled = dialled => return dialled,
                    // One that is cut off answers nobody, and would be waited for until a timeout.
                    () = watchers.left(&node) => {}
                }
            },
        }
    }

    async fn recycle(&self, connection: &mut Dialled, metrics: &Metrics) -> RecycleResult<DialError> {
        match &self.way {
            Way::One(_, manager) => {
                manager.recycle(&mut connection.redis, metrics).await.map_err(|error| match error {
                    RecycleError::Message(why) => RecycleError::Message(why),
                    RecycleError::Backend(error) => RecycleError::Backend(error.into()),
                })
            }
            Way::Primary(watchers, _) if watchers.primary().as_ref() != Some(&connection.node) => {
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
    /// A pool of at most `size` connections; none is dialled yet. In a Cluster it leads to whoever holds slot 0; see
    /// [`RedisPool::for_key`].
    pub fn new(url: &str, size: usize) -> Result<Self, BadRedisUrl> {
        let sentinels = Sentinels::parse(url).map(|read| read.map(|it| Watchers::Sentinels(Arc::new(it))));
        let nodes = || Cluster::parse(url).map(|read| read.map(|it| Watchers::Nodes(Arc::new(it), Slot::of(b""))));
        let way = match sentinels.or_else(nodes).transpose().map_err(BadRedisUrl)? {
            Some(watchers) => Ok(Way::primary(watchers)),
            None => url.into_connection_info().and_then(Way::one),
        };
        Self::over(way, size)
    }

    /// Another pool, of at most `size` connections and with no greeting, to the same place, or in a Cluster to wherever this key is
    /// kept. What one of them learns of where the primary is, all know.
    pub fn for_key(&self, key: &[u8], size: usize) -> Result<Self, BadRedisUrl> {
        let way = match &self.pool.manager().way {
            Way::One(info, _) => Way::one(ConnectionInfo::clone(info)),
            Way::Primary(watchers @ Watchers::Sentinels(_), _) => Ok(Way::primary(watchers.clone())),
            Way::Primary(Watchers::Nodes(cluster, _), _) => {
                Ok(Way::primary(Watchers::Nodes(Arc::clone(cluster), Slot::of(key))))
            }
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
    pub fn watchers(&self) -> Option<&Watchers> {
        match &self.pool.manager().way {
            Way::One(..) => None,
            Way::Primary(watchers, _) => Some(watchers),
        }
    }

    /// The Cluster, if it is one.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self.watchers()? {
            Watchers::Sentinels(_) => None,
            Watchers::Nodes(cluster, _) => Some(cluster),
        }
    }

    /// The most connections that it makes.
    pub fn max_size(&self) -> usize {
        self.pool.status().max_size
    }

    /// A connection, dialled if need be.
    pub async fn connection(&self) -> Result<Connection, RedisAway> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => RedisAway::AllInUse,
            PoolError::Backend(DialError::Wrong(what)) => RedisAway::Wrong(what),
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

    fn primary(watchers: Watchers) -> Self {
        Self::Primary(watchers, Box::new(Self::timeouts()))
    }

    fn timeouts() -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(TRIP_TIMEOUT))
    }
}
