//! How many connections terminals may have: as many as leave the service the files that it needs itself. An instance that
//! has none left can take no connection, and worse, can dial no store.

use crate::config::Config;
use crate::grpc::{MAX_ADMIN_CONNECTIONS, MAX_FEED_CONNECTIONS, MAX_FEED_CONNECTIONS_APART};
use crate::museum::Mutant;

use super::{REDIS_CONNECTIONS, STOCK_CONNECTIONS};

/// For what is open beside connections: the listeners, the runtime's own, the files of the store and of the audit log, files that
/// are read anew, collectors, and connections that a store is dialled with while the old ones are not closed yet.
const FILES: usize = 64;

/// The feed's connections to its store: to read events, what it watches them with, and reports.
const FEED_OWN: usize = 3 * STOCK_CONNECTIONS;

/// The most connections of terminals.
pub(super) fn room(config: &Config) -> usize {
    let own = config.lanes.count.get() + 2 * REDIS_CONNECTIONS + STOCK_CONNECTIONS;
    let feed = if config.roles.feed { feed_room(config) + FEED_OWN } else { 0 };
    left(limit(), own + feed)
}

/// The most connections of whoever asks for stock: all that there are, or beside terminals a part.
pub(super) fn feed_room(config: &Config) -> usize {
    match config.roles.counters {
        true => beside_counters(limit()),
        false => MAX_FEED_CONNECTIONS_APART.min(left(limit(), FEED_OWN)),
    }
}

/// Of so many a quarter, where there are not many.
fn beside_counters(limit: usize) -> usize {
    MAX_FEED_CONNECTIONS.min(limit / 4).max(1)
}

/// How many descriptors the process may have.
fn limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // A semaphore holds no more.
    let most = tokio::sync::Semaphore::MAX_PERMITS;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(most).min(most)
}

/// What so many descriptors leave, with so many for the stores and for whoever else is connected. Where there are too few for anything at
/// least a quarter of them.
fn left(limit: usize, stores: usize) -> usize {
    if Mutant::NoFilesReserved.is_on() {
        return limit;
    }
    limit.saturating_sub(FILES + MAX_ADMIN_CONNECTIONS + stores).max(limit / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_needs_itself_is_left_to_it() {
        assert_eq!(left(20_000, 39), 20_000 - 167);
        assert_eq!((beside_counters(20_000), left(20_000, 39 + 1_024)), (1_024, 18_809));
        assert_eq!((beside_counters(1_024), left(1_024, 39 + 256)), (256, 601));
        assert_eq!((beside_counters(64), left(64, 39 + 16)), (16, 16));
        assert_eq!((beside_counters(0), left(0, 39)), (1, 1));
    }
}
