//! Redis Sentinels: where the primary is, and which replicas it has. Every one of them is asked.

use std::cmp::Reverse;
use std::collections::HashMap;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisResult};
use tokio::sync::{Mutex, watch};

use super::watchers::{ASK_TIMEOUT, Node, Replica, View, latest, visit};

/// The port of a Sentinel whose port is not named.
const DEFAULT_PORT: u16 = 26_379;

/// What a Sentinel says of a server, by name.
type Fields = HashMap<String, String>;

/// The Sentinels of a primary.
pub struct Sentinels {
    name: String,
    all: Vec<Sentinel>,
    /// How a server is dialled, but for its address.
    server: ConnectionInfo,
    primary: watch::Sender<Option<Node>>,
}

struct Sentinel {
    client: Client,
    kept: Mutex<Option<MultiplexedConnection>>,
}

impl Sentinels {
    /// Reads `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/NAME[/DATABASE]`; name and password are those of the servers, and
    /// `?sentinel=USER:PASSWORD` those of the Sentinels. `rediss+sentinel` speaks TLS with both. `None`: it is another kind of
    /// URL.
    pub(super) fn parse(url: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.strip_suffix("+sentinel")?;
        Some(Self::parse_rest(scheme, rest))
    }

    fn parse_rest(scheme: &str, rest: &str) -> Result<Self, String> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, database) = path.split_once('/').unwrap_or((path, "0"));
        if name.is_empty() {
            return Err("it names no primary: end it with the name that the Sentinels watch it under".into());
        }
        let own_user = query.split('&').find_map(|pair| pair.strip_prefix("sentinel=")).unwrap_or_default();
        let info = |user: &str, host: &str, path: &str| {
            let at = if user.is_empty() { "" } else { "@" };
            let port =
                if host.ends_with(']') || !host.contains(':') { format!(":{DEFAULT_PORT}") } else { String::new() };
            format!("{scheme}://{user}{at}{host}{port}/{path}")
                .into_connection_info()
                .map_err(|error| error.to_string())
        };
        let all: Result<Vec<Sentinel>, String> = hosts
            .split(',')
            .map(|host| {
                let client = Client::open(info(own_user, host, "")?).map_err(|error| error.to_string())?;
                Ok(Sentinel { client, kept: Mutex::new(None) })
            })
            .collect();
        let server = info(user, hosts.split(',').next().unwrap_or_default(), database)?;
        Ok(Self { name: name.to_owned(), all: all?, server, primary: watch::Sender::default() })
    }

    /// How many there are by the URL.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Where the primary was when it was last asked.
    pub(super) fn primary(&self) -> Option<Node> {
        self.primary.borrow().clone()
    }

    /// Where it is, whenever that changes.
    pub(super) fn primaries(&self) -> watch::Receiver<Option<Node>> {
        self.primary.subscribe()
    }

    /// Asks all of them; those that do not answer in time are left out.
    pub(super) async fn views(&self) -> Vec<View> {
        let asked = self.all.iter().map(|sentinel| tokio::time::timeout(ASK_TIMEOUT, sentinel.view(&self.name)));
        let views: Vec<View> = join_all(asked).await.into_iter().filter_map(|view| view.ok()?.ok()).collect();
        if let Some(latest) = latest(&views) {
            self.primary.send_if_modified(|known| {
                let has_changed = known.as_ref() != Some(&latest.primary);
                if has_changed {
                    *known = Some(latest.primary.clone());
                }
                has_changed
            });
        }
        views
    }

    /// What is said when none of them answers.
    pub(super) fn nobody_knows(&self) -> String {
        format!(
            "none of {} Sentinels says where the primary {} is: see that one is up and knows it",
            self.count(),
            self.name
        )
    }

    /// How a server is dialled, but for its address.
    pub(super) fn server(&self) -> &ConnectionInfo {
        &self.server
    }
}

impl Sentinel {
    async fn view(&self, name: &str) -> RedisResult<View> {
        let mut kept = self.kept.lock().await;
        // Taken out: broken off half way, it is not used again.
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => visit(&self.client).await?,
        };
        let (address, primary, replicas): ((String, u16), Fields, Vec<Fields>) = redis::pipe()
            .cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(name)
            .cmd("SENTINEL")
            .arg("MASTER")
            .arg(name)
            .cmd("SENTINEL")
            .arg("REPLICAS")
            .arg(name)
            .query_async(&mut connection)
            .await?;
        *kept = Some(connection);
        let number = |name: &str| primary.get(name).and_then(|value| value.parse::<u64>().ok());
        let listed: Vec<Listed> = replicas.iter().filter_map(Listed::read).collect();
        Ok(View {
            primary: Node { host: address.0, port: address.1 },
            epoch: number("config-epoch").unwrap_or_default(),
            watchers: usize::try_from(number("num-other-sentinels").unwrap_or_default()).unwrap_or_default() + 1,
            replicas: listed.iter().map(|it| it.among(&listed)).collect(),
        })
    }
}

/// What a Sentinel's list says of a replica.
#[derive(Debug, Clone)]
struct Listed {
    node: Node,
    is_down: bool,
    was_heard: bool,
    calls_itself_primary: bool,
    /// The smaller it is the sooner it is chosen, but for 0, which never is.
    priority: u32,
    /// How far it said that it is when it last called itself a replica.
    offset: u64,
}

impl Listed {
    fn read(fields: &Fields) -> Option<Self> {
        let has_flag =
            |names: &[&str]| fields.get("flags").is_some_and(|all| all.split(',').any(|it| names.contains(&it)));
        let number = |name: &str| fields.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
        Some(Self {
            node: Node { host: fields.get("ip")?.clone(), port: fields.get("port")?.parse().ok()? },
            is_down: has_flag(&["s_down", "o_down"]),
            // How long ago its last INFO came, milliseconds; 0: none has come.
            was_heard: number("info-refresh") > 0 && !has_flag(&["disconnected"]),
            calls_itself_primary: fields.get("role-reported").is_some_and(|role| role == "master"),
            priority: u32::try_from(number("slave-priority")).unwrap_or(u32::MAX),
            offset: number("slave-repl-offset"),
        })
    }

    /// Whether it can be chosen, and is before that other one: by priority, then by how far they are (Redis, `sentinel.c`,
    /// `sentinelSelectSlave`).
    fn goes_before(&self, other: &Self) -> bool {
        let can_be_chosen = !self.is_down && self.was_heard && !self.calls_itself_primary && self.priority > 0;
        can_be_chosen && (self.priority, Reverse(self.offset)) < (other.priority, Reverse(other.offset))
    }

    fn among(&self, all: &[Self]) -> Replica {
        let is_one = self.was_heard && !self.calls_itself_primary;
        let gives_way = !is_one && all.iter().any(|it| it.goes_before(self));
        Replica { node: self.node.clone(), is_down: self.is_down, is_one, gives_way }
    }
}

#[cfg(test)]
mod tests {
    use super::super::watchers::LISTED_PRIORITY;
    use super::*;

    #[test]
    fn urls_are_read() {
        let read =
            |url| Sentinels::parse(url).map(|read| read.map(|s| (s.count(), s.name, s.server.addr().to_string())));
        assert_eq!(read("redis://a:1/"), None);
        assert_eq!(read("redis+sentinel://a:1,b:2,c/store"), Some(Ok((3, "store".into(), "a:1".into()))));
        assert_eq!(read("rediss+sentinel://me:pw@[::1]/store/3").unwrap().unwrap().0, 1);
        for bad in [
            "redis+sentinel://a:1,b:2",
            "redis+sentinel://a:1,b:2/",
            "redis+sentinel:///store",
            "redis+sentinel://a:x/s",
        ] {
            assert!(matches!(read(bad), Some(Err(_))), "{bad}");
        }
        let with_users = Sentinels::parse("redis+sentinel://me:pw@a:1/store/3?sentinel=you:other").unwrap().unwrap();
        assert_eq!(
            (with_users.server.redis_settings().username(), with_users.server.redis_settings().db()),
            (Some("me"), 3)
        );
        let own = with_users.all[0].client.get_connection_info().redis_settings();
        assert_eq!((own.username(), own.db()), (Some("you"), 0));
    }

    #[test]
    fn one_that_is_no_replica_yet_gives_way_to_one_that_can_be_chosen() {
        let listed = |port: u16, offset| Listed {
            node: Node { host: "10.0.0.1".into(), port },
            is_down: false,
            was_heard: true,
            calls_itself_primary: false,
            priority: LISTED_PRIORITY,
            offset,
        };
        let old = Listed { calls_itself_primary: true, ..listed(1, 0) };
        let gives_way = |old: &Listed, other: Listed| old.among(&[old.clone(), other]).gives_way;
        let silent = Listed { was_heard: false, calls_itself_primary: false, ..old.clone() };
        assert!(!gives_way(&Listed { calls_itself_primary: false, ..old.clone() }, listed(2, 40)), "it is a replica");
        for old in [old, silent] {
            assert!(gives_way(&old, listed(2, 40)) && gives_way(&old, Listed { priority: 50, ..listed(2, 0) }));
            for (why, other) in [
                ("down", Listed { is_down: true, ..listed(2, 40) }),
                ("not heard", Listed { was_heard: false, ..listed(2, 40) }),
                ("a primary too", Listed { calls_itself_primary: true, ..listed(2, 40) }),
                ("never chosen", Listed { priority: 0, ..listed(2, 40) }),
                ("chosen later", Listed { priority: 101, ..listed(2, 40) }),
                ("not further", listed(2, 0)),
            ] {
                assert!(!gives_way(&old, other), "{why}");
            }
        }
    }
}
