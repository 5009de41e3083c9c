//! What a failed command means: surely not executed, or nobody knows. Stated once; everything else asks here.

use redis::RedisError;

use crate::ledger::LedgerError;

/// Redis refuses with these before a script begins. The scripts declare `#!lua`, so the server checks its own state for
/// the script as a whole and not at its first write. Only a code in this list may become
/// [`LedgerError::StoreUnavailable`].
const NOT_EXECUTED: [&str; 13] = [
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "OOM",
    "MISCONF",
    REPLICAS_MISSING,
    "BUSY",
    "NOSCRIPT",
    "NOAUTH",
    // Of a Cluster: the slot is elsewhere, on its way, or nobody's.
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
];

/// The primary has fewer replicas than its `min-replicas-to-write`.
const REPLICAS_MISSING: &str = "NOREPLICAS";

/// The server behind this connection is not the one to write to, now or any more: dial again.
const WRONG_SERVER: [&str; 4] = ["READONLY", "LOADING", "MASTERDOWN", "MOVED"];

/// Of a Cluster: the key that was asked for is not here, or not any more.
pub(super) fn is_elsewhere(error: &RedisError) -> bool {
    error.code().is_some_and(|code| ["MOVED", "ASK", "TRYAGAIN"].contains(&code))
}

/// What a failed command means for its caller.
pub(crate) fn meaning(error: &RedisError) -> LedgerError {
    match error.code() {
        Some(REPLICAS_MISSING) => LedgerError::ReplicasMissing,
        Some(code) if NOT_EXECUTED.contains(&code) => LedgerError::StoreUnavailable(error.to_string()),
        // A script that broke off, or an answer of a kind that this version does not know.
        Some(_) => LedgerError::Corrupt(error.to_string()),
        None => LedgerError::Unconfirmed(error.to_string()),
    }
}

/// Whether the connection must not be used again.
pub(super) fn spoils_connection(error: &RedisError) -> bool {
    error.code().is_none_or(|code| WRONG_SERVER.contains(&code))
}

/// Whether Redis has lost the script, and so has not run it.
pub(super) fn is_script_lost(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}

/// Whether it is the server's passing state that speaks, and not a permission or a setting.
pub(super) fn is_passing(error: &RedisError) -> bool {
    error.code().is_none_or(|code| NOT_EXECUTED.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_server(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap().extract_error().unwrap_err()
    }

    #[test]
    fn only_what_surely_was_not_executed_is_said_not_to_have_been() {
        for line in [
            "READONLY Can not run script with write flag on readonly replica.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
            "MISCONF Errors writing to the AOF file: No space left on device",
            "BUSY Redis is busy running a script.",
            "NOSCRIPT No matching script. Please use EVAL.",
            "NOAUTH Authentication required.",
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN Hash slot not served",
        ] {
            assert!(matches!(meaning(&from_server(line)), LedgerError::StoreUnavailable(_)), "{line}");
        }
        assert_eq!(
            meaning(&from_server("NOREPLICAS Not enough good replicas to write.")),
            LedgerError::ReplicasMissing
        );
        for line in
            ["ERR user_script:27: ARGV[6] must be an instant", "NOPERM no permissions", "WRONGTYPE Operation", "NEW x"]
        {
            assert!(matches!(meaning(&from_server(line)), LedgerError::Corrupt(_)), "{line}");
        }
        let broken = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(matches!(meaning(&broken), LedgerError::Unconfirmed(_)));
        assert!(spoils_connection(&broken));
    }

    #[test]
    fn a_connection_to_the_wrong_server_is_not_used_again() {
        assert!(spoils_connection(&from_server("READONLY x")) && spoils_connection(&from_server("LOADING x")));
        assert!(!spoils_connection(&from_server("OOM x")) && !spoils_connection(&from_server("ERR x")));
    }
}
