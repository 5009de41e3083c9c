//! What the ledger relies on in its server, read and judged. A reachable server that is weaker, or that hides its
//! settings, is told off once, completely, with the lines that put it right.
//!
//! Knows nothing about connections being lost: that is an error of reading, not a finding.

use std::collections::BTreeSet;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};

use crate::redis_pool::Node;

use super::faults;

/// The settings that make an answer mean "on the disk", each with the value that it must have.
const REQUIRED: [(&str, &str); 4] = [
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("no-appendfsync-on-rewrite", "no"),
    ("maxmemory-policy", "noeviction"),
];

/// Where there are replicas: the settings that keep a primary which nobody replicates from writing, each with the values that it
/// may have, from and to. The lag is counted in seconds.
const GUARDS: [(&str, u32, u32); 2] = [("min-replicas-to-write", 1, u32::MAX), ("min-replicas-max-lag", 1, MOST_LAG)];

/// For how many seconds a replica that counts may have been silent.
const MOST_LAG: u32 = 2;

/// Of a node of a Cluster: whether it takes nothing while some slot is nobody's. Then a shard that fails over stops all others.
const COVERAGE: &str = "cluster-require-full-coverage";

/// The oldest version whose scripts declare themselves (`#!lua`), which the ledger's do.
const OLDEST: (u32, u32) = (7, 0);

/// What a server is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The only one.
    Alone,
    /// The primary of replicas that may be put in its place.
    Primary,
    /// One of those.
    Replica,
}

/// What a server said about itself. `None`: it would not say, or said nothing that can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    version: Option<String>,
    role: Option<String>,
    settings: [Option<String>; REQUIRED.len()],
    guards: [Option<String>; GUARDS.len()],
    /// It is a node of a Cluster: what [`COVERAGE`] is there.
    coverage: Option<String>,
    /// The replicas that are attached to it.
    pub(super) attached: BTreeSet<Node>,
    /// The smaller it is the sooner it is chosen where it is a replica.
    pub(super) priority: Option<u32>,
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
    let info: Option<String> = unless_hidden(info(connection, &["server", "replication", "cluster"]).await)?;
    let line = |name| info.as_deref().and_then(|info| field(info, name)).map(str::to_owned);
    let (mut settings, mut guards) = ([const { None }; REQUIRED.len()], [const { None }; GUARDS.len()]);
    let names = REQUIRED.iter().map(|(name, _)| *name).chain(GUARDS.iter().map(|(name, ..)| *name));
    for (name, value) in names.zip(settings.iter_mut().chain(&mut guards)) {
        let answer: RedisResult<Vec<String>> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
        *value = unless_hidden(answer)?.and_then(|pair| pair.into_iter().nth(1));
    }
    let answer: RedisResult<Vec<String>> =
        redis::cmd("CONFIG").arg("GET").arg("replica-priority").query_async(connection).await;
    let priority = unless_hidden(answer)?.and_then(|pair| pair.get(1)?.parse().ok());
    let mut coverage = None;
    if line("cluster_enabled").as_deref() == Some("1") {
        let answer: RedisResult<Vec<String>> =
            redis::cmd("CONFIG").arg("GET").arg(COVERAGE).query_async(connection).await;
        coverage = unless_hidden(answer)?.and_then(|pair| pair.into_iter().nth(1)).or(Some("hidden".into()));
    }
    let attached = info.as_deref().map(attached).unwrap_or_default();
    Ok(Found { version: line("redis_version"), role: line("role"), settings, guards, coverage, attached, priority })
}

/// The replicas of `INFO` that have said something lately: `slave0:ip=10.0.0.2,port=6379,state=online,offset=7,lag=1`. One that is
/// paused or cut off stays listed for a minute; whether it must be waited for is the watchers' to say.
pub(super) fn attached(info: &str) -> BTreeSet<Node> {
    let fields = info.lines().filter_map(|line| {
        let (name, fields) = line.trim_end().split_once(':')?;
        name.strip_prefix("slave")?.parse::<u32>().ok()?;
        Some(fields)
    });
    let node = |fields: &str| {
        let field = |name| fields.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let is_silent =
            field("lag").and_then(|lag| lag.parse::<u64>().ok()).is_some_and(|lag| lag > u64::from(MOST_LAG));
        (!is_silent).then_some(Node { host: field("ip")?.to_owned(), port: field("port")?.parse().ok()? })
    };
    fields.filter_map(node).collect()
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
    /// Everything that is wrong with it as what it is to be, all at once.
    pub(super) fn judge(&self, part: Part) -> Findings {
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
            Some(role) if part != Part::Replica && role != "master" => findings.unusable.push(format!(
                "the server is no primary (role:{role}): give the URL of the primary, or REPLICAOF NO ONE to make it one"
            )),
            _ => {}
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
        if part != Part::Alone {
            findings.weaker.extend(self.unguarded());
        }
        match self.coverage.as_deref() {
            Some(_) if part == Part::Alone => findings.unusable.push(
                "the server is a node of a Cluster: give the URL as redis+cluster://HOST:PORT,HOST:PORT,HOST:PORT/"
                    .into(),
            ),
            Some(value) if value != "no" => findings.weaker.push(format!(
                "{COVERAGE} is {value}: write `{COVERAGE} no` in redis.conf, and for the running server CONFIG SET \
                 {COVERAGE} no; with yes a shard that fails over stops all others"
            )),
            _ => {}
        }
        findings
    }
}

impl Found {
    /// What is wrong with the guards.
    fn unguarded(&self) -> impl Iterator<Item = String> {
        GUARDS.iter().zip(&self.guards).filter_map(|((name, least, most), value)| {
            let needed = if *most == u32::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
            let right = if *most == u32::MAX { least } else { most };
            let to_do =
                format!("write `{name} {right}` in redis.conf, and for the running server CONFIG SET {name} {right}");
            match value.as_deref().map(str::parse::<u32>) {
                Some(Ok(number)) if (*least..=*most).contains(&number) => None,
                Some(_) => Some(format!("{name} must be {needed}: {to_do}")),
                None => {
                    Some(format!("{name} is hidden: allow the service's user CONFIG GET, and see that it is {needed}"))
                }
            }
        })
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
            version: Some("7.0.15".into()),
            role: Some("master".into()),
            settings: REQUIRED.map(|(_, needed)| Some(needed.to_owned())),
            guards: [Some("0".into()), Some("10".into())],
            coverage: None,
            attached: BTreeSet::new(),
            priority: Some(100),
        }
    }

    #[test]
    fn a_node_of_a_cluster_is_not_used_alone_and_does_not_stop_with_the_others() {
        let node = |coverage: &str| Found {
            coverage: Some(coverage.into()),
            guards: [Some("1".into()), Some("2".into())],
            ..fit()
        };
        assert!(node("no").judge(Part::Alone).unusable[0].contains("redis+cluster://"));
        assert_eq!(node("no").judge(Part::Primary), Findings::default());
        for weak in ["yes", "hidden"] {
            assert!(node(weak).judge(Part::Replica).weaker[0].contains("cluster-require-full-coverage no"), "{weak}");
        }
    }

    #[test]
    fn a_fit_server_has_no_findings() {
        assert_eq!(fit().judge(Part::Alone), Findings::default());
        assert_eq!(Found { version: Some("10.2.0".into()), ..fit() }.judge(Part::Alone), Findings::default());
    }

    #[test]
    fn where_there_are_replicas_a_primary_without_them_must_not_write() {
        let guarded = |write: &str, lag: &str| Found { guards: [Some(write.into()), Some(lag.into())], ..fit() };
        for good in [guarded("1", "2"), guarded("2", "1")] {
            assert_eq!(good.judge(Part::Primary), Findings::default());
        }
        let replica = Found { role: Some("slave".into()), ..guarded("1", "2") };
        assert_eq!(replica.judge(Part::Replica), Findings::default());
        assert_eq!(replica.judge(Part::Primary).unusable.len(), 1);
        for (bad, named) in
            [(fit(), "min-replicas-to-write must be 1"), (guarded("1", "0"), "min-replicas-max-lag must be 1 to 2")]
        {
            let found = bad.judge(Part::Primary).weaker;
            assert!(found.iter().any(|finding| finding.contains(named)), "{found:?}");
        }
        assert!(Found { guards: [None, None], ..fit() }.judge(Part::Replica).weaker[0].contains("hidden"));
    }

    #[test]
    fn attached_replicas_are_read() {
        let info = "role:master\r\nslave0:ip=10.0.0.2,port=6380,state=online,offset=1,lag=0\r\nslave1:ip=::1,port=1,state=x,lag=2\r\n\
                    slave2:ip=::1,port=2,state=online,lag=3\r\nslave_repl_offset:0\r\n";
        let node = |host: &str, port| Node { host: host.into(), port };
        assert_eq!(attached(info), BTreeSet::from([node("10.0.0.2", 6380), node("::1", 1)]));
    }

    #[test]
    fn everything_wrong_is_named_at_once_with_the_line_that_sets_it() {
        let settings = [Some("no".into()), Some("everysec".into()), None, Some("allkeys-lru".into())];
        let findings =
            Found { version: Some("6.2.14".into()), role: Some("slave".into()), settings, ..fit() }.judge(Part::Alone);
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
