//! What the ledger relies on in its server, read and judged. A reachable server that is weaker, or that hides its
//! settings, is told off once, completely, with the lines that put it right.
//!
//! Knows nothing about connections being lost: that is an error of reading, not a finding.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};

use super::faults;

/// The settings that make an answer mean "on the disk", each with the value that it must have.
const REQUIRED: [(&str, &str); 4] = [
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("no-appendfsync-on-rewrite", "no"),
    ("maxmemory-policy", "noeviction"),
];

/// The oldest version whose scripts declare themselves (`#!lua`), which the ledger's do.
const OLDEST: (u32, u32) = (7, 0);

/// What a server said about itself. `None`: it would not say, or said nothing that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Another start of a server, another run id.
    pub(super) run_id: Option<String>,
    version: Option<String>,
    role: Option<String>,
    settings: [Option<String>; REQUIRED.len()],
}

/// What is wrong with a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Nothing makes up for these.
    pub(super) unusable: Vec<String>,
    /// These weaken the promise: `--allow-volatile` accepts them.
    pub(super) weaker: Vec<String>,
}

/// Asks the server about itself. An error means that it could not be asked just now.
pub(super) async fn read(connection: &mut MultiplexedConnection) -> RedisResult<Found> {
    let info: Option<String> = unless_hidden(info(connection, &["server", "replication"]).await)?;
    let line = |name| info.as_deref().and_then(|info| field(info, name)).map(str::to_owned);
    let mut settings = [const { None }; REQUIRED.len()];
    for ((name, _), value) in REQUIRED.iter().zip(&mut settings) {
        let answer: RedisResult<Vec<String>> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
        *value = unless_hidden(answer)?.and_then(|pair| pair.into_iter().nth(1));
    }
    Ok(Found { run_id: line("run_id"), version: line("redis_version"), role: line("role"), settings })
}

/// The text of `INFO` for these sections.
pub(super) async fn info(connection: &mut MultiplexedConnection, sections: &[&str]) -> RedisResult<String> {
    redis::cmd("INFO").arg(sections).query_async(connection).await
}

/// One line of `INFO`.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A denied or unknown command is a finding (`None`); anything else that fails is a failure to ask.
pub(super) fn unless_hidden<T>(answer: RedisResult<T>) -> Result<Option<T>, RedisError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if faults::is_passing(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

impl Found {
    /// Everything that is wrong with it, all at once.
    pub(super) fn judge(&self) -> Findings {
        let mut findings = Findings::default();
        match self.version.as_deref() {
            None => {
                findings.unusable.push("the server hides its version: allow the service's user the command INFO".into())
            }
            Some(version) if number(version) < Some(OLDEST) => {
                findings
                    .unusable
                    .push(format!("the server is Redis {version}: at least {}.{} is needed", OLDEST.0, OLDEST.1));
            }
            Some(_) => {}
        }
        match self.role.as_deref() {
            Some("master") | None => {}
            Some(role) => findings.unusable.push(format!(
                "the server is no primary (role:{role}): give the URL of the primary, or REPLICAOF NO ONE to make it one"
            )),
        }
        for ((name, needed), value) in REQUIRED.iter().zip(&self.settings) {
            match value.as_deref() {
                Some(value) if value == *needed => {}
                Some(value) => findings.weaker.push(format!(
                    "{name} is {value}: write `{name} {needed}` in redis.conf, and for the running server CONFIG SET {name} {needed}"
                )),
                None => findings.weaker.push(format!(
                    "{name} is hidden: allow the service's user CONFIG GET (ACL SETUSER ... +config|get), and see that \
                     redis.conf says `{name} {needed}`"
                )),
            }
        }
        findings
    }
}

/// Major and minor of a version's text.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Found {
        Found {
            run_id: Some("abc".into()),
            version: Some("7.0.15".into()),
            role: Some("master".into()),
            settings: REQUIRED.map(|(_, needed)| Some(needed.to_owned())),
        }
    }

    #[test]
    fn a_fit_server_has_no_findings() {
        assert_eq!(fit().judge(), Findings::default());
        assert_eq!(Found { version: Some("10.2.0".into()), ..fit() }.judge(), Findings::default());
    }

    #[test]
    fn everything_wrong_is_named_at_once_with_the_line_that_sets_it() {
        let settings = [Some("no".into()), Some("everysec".into()), None, Some("allkeys-lru".into())];
        let findings = Found { version: Some("6.2.14".into()), role: Some("slave".into()), settings, ..fit() }.judge();
        assert_eq!(findings.unusable.len(), 2);
        assert!(findings.unusable[0].contains("6.2.14") && findings.unusable[1].contains("role:slave"));
        let expected = [
            "`appendonly yes`",
            "`appendfsync always`",
            "`no-appendfsync-on-rewrite no`",
            "`maxmemory-policy noeviction`",
        ];
        assert_eq!(findings.weaker.len(), expected.len());
        for (finding, line) in findings.weaker.iter().zip(expected) {
            assert!(finding.contains(line), "{finding}");
        }
        assert!(findings.weaker[1].contains("CONFIG SET appendfsync always"));
        assert!(findings.weaker[2].contains("hidden"));
    }

    #[test]
    fn a_line_of_info_is_found_by_its_whole_name() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nrole:master\r\n";
        assert_eq!(field(info, "run_id"), Some("abc"));
        assert_eq!(field(info, "run"), None);
    }
}
