//! Where claims are recorded, as a URL. A password in it is never shown.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

/// Where claims are recorded.
#[derive(Debug, Clone)]
pub enum Store {
    /// On this machine, in this directory.
    Embedded(PathBuf),
    /// On a Redis server.
    Redis(RedisUrl),
}

/// A URL for one Redis server. What it prints has no password.
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
    /// Whether it is on this machine, as in development.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::Redis(url) => {
                let (host, _) = host_and_port(url.expose().split_once("://").unwrap_or_default().1);
                let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
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

/// Why a text is not a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadStore {
    /// It is none of the kinds of store.
    #[error("must be embedded:DIRECTORY, redis://HOST:PORT/ or rediss://HOST:PORT/")]
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
    /// A kind of store that a later version will have.
    #[error("Redis Sentinel and Redis Cluster are not yet supported by this version: write redis:// or rediss://")]
    NotYet,
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
            Some(("redis" | "rediss", rest)) => {
                let (host, port) = host_and_port(rest);
                if host.is_empty() {
                    return Err(BadStore::NoHost);
                }
                if matches!(port.map(str::parse::<u16>), Some(Err(_) | Ok(0))) {
                    return Err(BadStore::Port);
                }
                Ok(Self::Redis(RedisUrl(text.into())))
            }
            Some((scheme, _)) if scheme.contains("sentinel") || scheme.contains("cluster") => Err(BadStore::NotYet),
            _ => Err(BadStore::Shape),
        }
    }
}

/// Host and port of `[user[:password]@]host[:port][/…]`; the client library reads the rest when it connects.
fn host_and_port(rest: &str) -> (&str, Option<&str>) {
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    let server = server.split(['/', '?', '#']).next().unwrap_or_default();
    match server.rsplit_once(':') {
        // The colons inside the brackets of an IPv6 address are not before a port.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (server, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_read() {
        for text in ["embedded:./rationd-data", "redis://localhost", "rediss://[::1]:6379/0", "redis://[::1]/"] {
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
            ("redis+sentinel://a:1,b:2/mymaster", BadStore::NotYet),
            ("redis+cluster://a:1", BadStore::NotYet),
            ("rediss+cluster://a:1", BadStore::NotYet),
        ] {
            assert_eq!(text.parse::<Store>().unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        for local in ["embedded:x", "redis://localhost", "redis://:pw@127.0.0.1:6379/", "rediss://[::1]:1"] {
            assert!(local.parse::<Store>().unwrap().is_local(), "{local}");
        }
        for remote in ["redis://redis", "redis://10.0.0.1:6379", "redis://localhost@redis", "redis://[::2]"] {
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
            ("redis://user:hunter2?x@host", "redis://user:***@host"),
            ("redis://host?password=hunter2", "redis://host?***"),
        ] {
            let store: Store = url.parse().unwrap();
            assert_eq!(store.to_string(), shown);
            assert!(!format!("{store:?}").contains("hunter2"));
            assert!(matches!(&store, Store::Redis(kept) if kept.expose() == url));
        }
    }
}
