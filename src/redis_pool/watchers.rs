//! Who watches over a primary, says where it is and which replicas it has, and puts another in its place: Sentinels, or the
//! nodes of a Cluster. What is true is read from all that answer: of two that differ the later decision stands, which is the one
//! with the greater configuration epoch.
//!
//! Knows nothing about what follows for a sale.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisResult};

use super::cluster::{Cluster, Slot};
use super::sentinels::Sentinels;

/// How long a watcher may take to answer, dialling included. It leaves time to dial the primary too.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_millis(300);

/// A Redis server as those who watch over it and servers name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// A host name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Node {
    /// Where this leads.
    pub(super) fn of(info: &ConnectionInfo) -> Self {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Self { host: host.clone(), port: *port }
            }
            // A path.
            other => Self { host: other.to_string(), port: 0 },
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A replica as one watcher sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Where it is.
    pub node: Node,
    /// Whether it is held to be down: by this Sentinel, or by the majority that a node of a Cluster has heard.
    pub is_down: bool,
    /// Whether this watcher has heard from itself that it is a replica.
    pub is_one: bool,
    /// Whether it has not been heard as a replica, and by what this watcher takes it for meanwhile ([`LISTED_PRIORITY`], and
    /// not far) another one would be chosen before it.
    pub gives_way: bool,
}

/// The priority as which Sentinels list a server that does not say its own because it calls itself a primary.
pub const LISTED_PRIORITY: u32 = 100;

/// What one watcher says of a primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Where the primary is.
    pub primary: Node,
    /// Which decision about that it knows: a failover makes a greater number.
    pub epoch: u64,
    /// How many watchers there are as far as it knows, itself included.
    pub watchers: usize,
    /// The replicas of the primary.
    pub replicas: Vec<Replica>,
}

/// Those who watch over one primary.
#[derive(Clone)]
pub enum Watchers {
    /// Sentinels do.
    Sentinels(Arc<Sentinels>),
    /// All nodes of a Cluster do, over the primary that holds this slot.
    Nodes(Arc<Cluster>, Slot),
}

impl Watchers {
    /// How many there are at least.
    pub fn count(&self) -> usize {
        match self {
            Self::Sentinels(sentinels) => sentinels.count(),
            Self::Nodes(cluster, _) => cluster.count(),
        }
    }

    /// Where the primary was when they were last asked.
    pub fn primary(&self) -> Option<Node> {
        match self {
            Self::Sentinels(sentinels) => sentinels.primary(),
            Self::Nodes(cluster, slot) => cluster.layout().owner(*slot).cloned(),
        }
    }

    /// Asks all of them; those that do not answer in time are left out.
    pub async fn views(&self) -> Vec<View> {
        match self {
            Self::Sentinels(sentinels) => sentinels.views().await,
            Self::Nodes(cluster, slot) => cluster.views(*slot).await,
        }
    }

    /// Asks them so often, without end: what they say is then known to all who dial.
    pub async fn keep_asking(&self, every: Duration) -> Infallible {
        loop {
            tokio::time::sleep(every).await;
            self.views().await;
        }
    }

    /// Returns when the primary becomes, from now on and as far as is known, another one than this. Asks nobody.
    pub async fn left(&self, node: &Node) {
        let is_left = || self.primary().is_some_and(|now| now != *node);
        // The senders live as long as `self`: these end by another primary only.
        match self {
            Self::Sentinels(sentinels) => {
                let mut primaries = sentinels.primaries();
                while primaries.changed().await.is_ok() && !is_left() {}
            }
            Self::Nodes(cluster, _) => {
                let mut layouts = cluster.layouts();
                while layouts.changed().await.is_ok() && !is_left() {}
            }
        }
    }

    /// Where the primary is now; if nobody says, why.
    pub(super) async fn find(&self) -> Result<Node, String> {
        let views = self.views().await;
        latest(&views).map(|view| view.primary.clone()).ok_or_else(|| match self {
            Self::Sentinels(sentinels) => sentinels.nobody_knows(),
            Self::Nodes(cluster, _) => cluster.nobody_knows(),
        })
    }

    /// A client of a server that is watched over.
    pub(super) fn client(&self, node: &Node) -> RedisResult<Client> {
        let pattern = match self {
            Self::Sentinels(sentinels) => sentinels.server(),
            Self::Nodes(cluster, _) => cluster.server(),
        };
        client(pattern, node)
    }

    /// A connection of its own to a server that is watched over, for looking at it.
    pub async fn visit(&self, node: &Node) -> RedisResult<MultiplexedConnection> {
        visit(&self.client(node)?).await
    }
}

/// The view that stands: of two that differ, the one of the greater epoch.
pub(super) fn latest(views: &[View]) -> Option<&View> {
    views.iter().max_by_key(|view| view.epoch)
}

/// A client of this server, which is dialled as the pattern says but for its address.
pub(super) fn client(pattern: &ConnectionInfo, node: &Node) -> RedisResult<Client> {
    let address = match pattern.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: node.host.clone(),
            port: node.port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(node.host.clone(), node.port),
    };
    Client::open(pattern.clone().set_addr(address))
}

/// A connection for a question or two.
pub(super) async fn visit(client: &Client) -> RedisResult<MultiplexedConnection> {
    let timeouts =
        AsyncConnectionConfig::new().set_connection_timeout(Some(ASK_TIMEOUT)).set_response_timeout(Some(ASK_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&timeouts).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_decision_stands() {
        let view = |port, epoch| View {
            primary: Node { host: "10.0.0.1".into(), port },
            epoch,
            watchers: 3,
            replicas: Vec::new(),
        };
        assert_eq!(latest(&[view(1, 4), view(2, 5), view(1, 4)]).unwrap().primary.port, 2);
        assert_eq!(latest(&[]), None);
    }
}
