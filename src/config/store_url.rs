//! Where claims are recorded, as a URL. A password in it is never shown.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// Where claims are recorded.
#[derive(Debug, Clone)]
pub enum Store {
    /// On this machine, in this directory.
    Embedded(PathBuf),
    /// On a Redis server, on whichever its Sentinels name, or on those of a Cluster.
    Redis(RedisUrl),
}

/// A URL for one Redis server, for the Sentinels of one, or for nodes of a Cluster. What it prints has no password.
#[derive(Clone)]
pub struct RedisUrl(SecretString);

impl RedisUrl {
    /// The URL with its password, for the connection and nothing else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The URL with `***` in place of its password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.expose();
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        // A password may hold any of these; where it cannot be told what is one, nothing is shown.
        if rest.split_once('?').is_some_and(|(_, behind)| behind.contains('@')) {
            return write!(f, "{scheme}://***");
        }
        // Everything before the last `@` is treated as name and password, whatever stands in it.
        let (user, server) = match rest.rsplit_once('@') {
            Some((who, server)) => {
                (who.split_once(':').map_or("***@".into(), |(user, _)| format!("{user}:***@")), server)
            }
            None => (String::new(), rest),
        };
        // A query can hold a password as well; what it says is of no use to a reader.
        let (server, query) = server.split_once('?').map_or((server, ""), |(server, _)| (server, "?***"));
        write!(f, "{scheme}://{user}{server}{query}")
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Store {
    /// What the witness file of a Redis is called if nobody says: after its place, as far as that may be shown.
    pub fn witness_file(&self) -> Option<String> {
        let Self::Redis(url) = self else { return None };
        let shown = url.to_string();
        let place = shown.split_once("://").unwrap_or_default().1.split('?').next().unwrap_or_default();
        let place = place.rsplit('@').next().unwrap_or_default();
        let plain: String = place
            .chars()
            .take(LONGEST_PLACE)
            .map(|it| if it.is_ascii_alphanumeric() || it == '.' { it } else { '-' })
            .collect();
        Some(format!("witness-{}.json", plain.trim_matches('-')))
    }

    /// Whether it is on this machine, as in development.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Redis(url) => {
                let rest = url.expose().split_once("://").unwrap_or_default().1;
                servers(rest).all(|(host, _)| {
                    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
                    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
                })
            }
        }
    }
}

/// As it is written in the file, with `***` in place of a password.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(directory) => write!(f, "embedded:{}", directory.display()),
            Self::Redis(url) => fmt::Display::fmt(url, f),
        }
    }
}

/// Of many nodes the first ones are enough for a name. A file system takes 255 bytes.
const LONGEST_PLACE: usize = 100;

/// How the URL of a Redis may begin.
const SCHEMES: [&str; 6] = ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"];

/// Why a text is not a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadStore {
    /// It is none of the kinds of store.
    #[error(
        "must be embedded:DIRECTORY, redis://HOST:PORT/, redis+sentinel://HOST:PORT,HOST:PORT,HOST:PORT/NAME or \
         redis+cluster://HOST:PORT,HOST:PORT,HOST:PORT/, with rediss for TLS"
    )]
    Shape,
    /// `embedded:` with nothing behind it.
    #[error("names no directory: write embedded:DIRECTORY, such as embedded:./rationd-data")]
    NoDirectory,
    /// A Redis URL without a host.
    #[error("names no server: write redis://HOST:PORT/")]
    NoHost,
    /// A port out of range.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
    /// Sentinels without the name of what they watch.
    #[error(
        "names no primary: end it with the name that the Sentinels watch it under, redis+sentinel://HOST:PORT,…/NAME"
    )]
    NoName,
    /// A Cluster with a database other than 0.
    #[error("names a database: a Cluster has none but 0; end it behind the last node")]
    Database,
}

impl std::str::FromStr for Store {
    type Err = BadStore;

    fn from_str(text: &str) -> Result<Self, BadStore> {
        let text = text.trim();
        if let Some(directory) = text.strip_prefix("embedded:") {
            return if directory.is_empty() {
                Err(BadStore::NoDirectory)
            } else {
                Ok(Self::Embedded(directory.into()))
            };
        }
        match text.split_once("://") {
            Some((scheme, rest)) if SCHEMES.contains(&scheme) => {
                let is_sentinel = scheme.ends_with("+sentinel");
                let may_be_many = scheme.contains('+');
                if servers(rest).any(|(host, _)| host.is_empty()) || (!may_be_many && servers(rest).count() > 1) {
                    return Err(BadStore::NoHost);
                }
                if servers(rest).any(|(_, port)| matches!(port.map(str::parse::<u16>), Some(Err(_) | Ok(0)))) {
                    return Err(BadStore::Port);
                }
                if is_sentinel && path(rest).is_empty() {
                    return Err(BadStore::NoName);
                }
                if scheme.ends_with("+cluster") && !matches!(path(rest), "" | "0") {
                    return Err(BadStore::Database);
                }
                Ok(Self::Redis(RedisUrl(text.into())))
            }
            _ => Err(BadStore::Shape),
        }
    }
}

/// Hosts and ports of `[user[:password]@]host[:port][,host[:port]…][/…]`; the client library reads the rest when it connects.
fn servers(rest: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    let server = server.split(['/', '?', '#']).next().unwrap_or_default();
    server.split(',').map(|server| match server.rsplit_once(':') {
        // The colons inside the brackets of an IPv6 address are not before a port.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (server, None),
    })
}

/// What stands behind the servers, up to the next slash.
fn path(rest: &str) -> &str {
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    let path = server.split_once('/').map_or("", |(_, path)| path);
    path.split(['/', '?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_read() {
        for text in [
            "embedded:./rationd-data",
            "redis://localhost",
            "rediss://[::1]:6379/0",
            "redis://[::1]/",
            "redis+sentinel://a:26379,b,[::1]:3/store",
            "rediss+sentinel://a:1/store/2",
            "redis+cluster://a:1,b,[::1]:3",
            "rediss+cluster://a/0",
        ] {
            assert_eq!(text.parse::<Store>().unwrap().to_string(), text);
        }
        for (text, expected) in [
            ("", BadStore::Shape),
            ("./rationd-data", BadStore::Shape),
            ("postgres://localhost", BadStore::Shape),
            ("embedded:", BadStore::NoDirectory),
            ("redis://", BadStore::NoHost),
            ("redis://:secret@/0", BadStore::NoHost),
            ("redis://localhost:redis", BadStore::Port),
            ("redis://localhost:0", BadStore::Port),
            ("redis://localhost:65536", BadStore::Port),
            ("redis://a:1,b:2/", BadStore::NoHost),
            ("redis+sentinel://a:1,,b:2/store", BadStore::NoHost),
            ("redis+sentinel://a:1,b:x/store", BadStore::Port),
            ("redis+sentinel://a:1,b:2", BadStore::NoName),
            ("redis+sentinel://a:1,b:2/?sentinel=me:pw", BadStore::NoName),
            ("redis+cluster://a:1,b:2/1", BadStore::Database),
            ("redis+cluster://a:1,b:x", BadStore::Port),
            ("rediss+cluster://a:1,,b:2", BadStore::NoHost),
            ("redis+ring://a:1", BadStore::Shape),
        ] {
            assert_eq!(text.parse::<Store>().unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        for local in ["embedded:x", "redis://localhost", "redis://:pw@127.0.0.1:6379/", "rediss://[::1]:1"] {
            assert!(local.parse::<Store>().unwrap().is_local(), "{local}");
        }
        for remote in [
            "redis://redis",
            "redis://10.0.0.1:6379",
            "redis://localhost@redis",
            "redis://[::2]",
            "redis+sentinel://localhost,redis/store",
        ] {
            assert!(!remote.parse::<Store>().unwrap().is_local(), "{remote}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("redis://:hunter2@host:6379/1", "redis://:***@host:6379/1"),
            ("rediss://user:hunter2@host", "rediss://user:***@host"),
            ("redis://hunter2@host", "redis://***@host"),
            ("redis://user:hun@ter2/@host", "redis://user:***@host"),
            ("redis://user:hunter2?x@host", "redis://***"),
            (
                "redis+sentinel://me:hunter2@a:1,b:2/store?sentinel=me:hunter2",
                "redis+sentinel://me:***@a:1,b:2/store?***",
            ),
            ("redis://host?password=hunter2", "redis://host?***"),
        ] {
            let store: Store = url.parse().unwrap();
            assert_eq!(store.to_string(), shown);
            assert!(!format!("{store:?}").contains("hunter2"));
            assert!(matches!(&store, Store::Redis(kept) if kept.expose() == url));
        }
    }
}
