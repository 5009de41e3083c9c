//! How many connections terminals may have: as many as leave the service the files that it needs itself. An instance that
//! has none left can take no connection, and worse, can dial no store.

use crate::config::Config;
use crate::grpc::MAX_ADMIN_CONNECTIONS;
use crate::museum::Mutant;

use super::REDIS_CONNECTIONS;

/// For what is open beside connections: the listeners, the runtime's own, the files of the store and of the audit log, files that
/// are read anew, collectors, and connections that a store is dialled with while the old ones are not closed yet.
const FILES: usize = 64;

/// The most connections of terminals.
pub(super) fn room(config: &Config) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    left(limit.and_then(|limit| usize::try_from(limit).ok()), config.lanes.count.get())
}

/// Of so many descriptors; `None`: of as many as anybody likes. With a limit that is too small for anything at least half of it.
fn left(limit: Option<usize>, lanes: usize) -> usize {
    let own = FILES + MAX_ADMIN_CONNECTIONS + lanes + 2 * REDIS_CONNECTIONS;
    // A semaphore holds no more.
    let limit = limit.unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS);
    if Mutant::NoFilesReserved.is_on() {
        return limit;
    }
    limit.saturating_sub(own).max(limit / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_needs_itself_is_left_to_it() {
        assert_eq!(left(Some(20_000), 3), 20_000 - 163);
        assert_eq!(left(Some(1_024), 3), 861);
        assert_eq!(left(Some(64), 3), 32);
        assert_eq!(left(Some(0), 3), 1);
        assert!(left(None, 3) > 1_000_000);
    }
}
