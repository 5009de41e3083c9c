//! Which ledger stands in a server: the one that this process works for, one that it may begin to work for, or another.
//!
//! One server holds the identity, and what it has lost is seen by that. In a Cluster one primary holds it, so every partition has
//! a mark besides: the ledger's id. The identity says when all are written; from then on whoever has no mark has lost its part.

use std::collections::HashMap;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Pipeline, RedisError, RedisResult};

use crate::buyer::OtherRing;
use crate::ids::LedgerId;
use crate::ledger::{OtherTerms, Terms};
use crate::redis_pool::Connection;
use crate::time::Clock;

use super::shards::Shard;
use super::standing::other_ledger;
use super::{RedisLedger, encode, faults, keys, reader, settings, trip};

/// Why a ledger has not begun in a Cluster.
const NOT_EVERYWHERE: &str =
    "a ledger cannot begin before every primary of the Cluster can be written to, and its replicas follow";

/// Where the id of a ledger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// In the identity, a hash under this key.
    Identity(Vec<u8>),
    /// In the mark of this partition.
    Mark(u8),
}

/// Why a server is not worked with, as far as its ledger goes.
pub(super) enum NotOurs {
    /// It failed under the question.
    Failed(RedisError),
    /// Everything that is wrong with its ledger.
    Unfit(Vec<String>),
    /// It cannot be worked with for now: the ledger of a Cluster has no name yet, or a part of it is missing.
    NotNow(String),
}

impl From<RedisError> for NotOurs {
    fn from(error: RedisError) -> Self {
        Self::Failed(error)
    }
}

impl Name {
    /// That of a partition of a Cluster.
    pub(super) fn of(partition: u8) -> Self {
        if partition == 0 { Self::Identity(keys::ledger_of(0)) } else { Self::Mark(partition) }
    }

    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Identity(key) => key.clone(),
            Self::Mark(partition) => keys::ledger_of(*partition),
        }
    }
}

/// What stands there. What is on its way to another primary, or was before it was asked for, is left out.
async fn found(
    connection: &mut MultiplexedConnection,
    names: Vec<Name>,
) -> RedisResult<Vec<(Vec<u8>, Option<String>)>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut ask = Pipeline::with_capacity(names.len());
    for name in &names {
        match name {
            Name::Identity(key) => ask.cmd("HGET").arg(key).arg("id"),
            Name::Mark(_) => ask.cmd("GET").arg(name.key()),
        };
    }
    let replies = connection.req_packed_commands(&ask, 0, ask.len()).await?;
    let found = names.iter().zip(replies).filter_map(|(name, reply)| match reply.extract_error() {
        Ok(found) => Some(redis::from_redis_value(found).map(|found| (name.key(), found)).map_err(RedisError::from)),
        Err(error) if faults::is_elsewhere(&error) => None,
        Err(error) => Some(Err(error)),
    });
    found.collect()
}

/// Whether the ledger `ours` stands under all of these names; if not, what to tell the operator.
pub(super) async fn still_ours(
    connection: &mut MultiplexedConnection,
    names: Vec<Name>,
    ours: LedgerId,
) -> RedisResult<Result<(), String>> {
    let text = ours.to_string();
    let other = found(connection, names).await?.into_iter().find(|(_, found)| found.as_ref() != Some(&text));
    Ok(other.map_or(Ok(()), |(key, found)| {
        let told = match found {
            None if key.starts_with(b"{") => format!(
                "it stands nowhere here that this is the ledger {ours}: this primary has lost what it had; bring its data back"
            ),
            found => other_ledger(ours, found.as_deref().unwrap_or("no ledger at all")),
        };
        Err(format!("{}: {told}", String::from_utf8_lossy(&key)))
    }))
}

/// The name of the ledger under this key, given now if it has none yet; if it is not one that may be worked with under
/// these terms, everything that is wrong.
pub(super) async fn identify(
    connection: &mut MultiplexedConnection,
    key: &[u8],
    ours: &Terms,
) -> Result<LedgerId, NotOurs> {
    let reply = trip::ask(connection, &encode::identity(key, LedgerId::random(), ours)).await?;
    let stands: HashMap<String, String> = redis::from_redis_value(reply).map_err(RedisError::from)?;
    let (id, layout, key) = (stands.get("id"), stands.get("layout"), String::from_utf8_lossy(key));
    if layout != Some(&keys::LAYOUT.to_string()) {
        let found = format!("{key}: id {id:?}, layout {layout:?}");
        return Err(NotOurs::Unfit(vec![format!(
            "{found}: this version reads layout {} only; use the version that wrote it",
            keys::LAYOUT
        )]));
    }
    let other = ours.differences(|name| stands.get(name).cloned());
    match other.as_slice() {
        [] => {}
        // Before this process has followed, it might write where nothing says yet under which ring.
        [OtherTerms::Keys(behind @ OtherRing::Behind { .. })] => {
            return Err(NotOurs::NotNow(format!("{key}: {behind}")));
        }
        others => return Err(NotOurs::Unfit(others.iter().map(|other| format!("{key}: {other}")).collect())),
    }
    let nameless = || format!("{key}: it has no ledger id; bring the right data back, or use another Redis");
    id.and_then(|id| id.parse().ok()).ok_or_else(|| NotOurs::Unfit(vec![nameless()]))
}

/// The marks of these partitions.
fn marks(partitions: &[u8]) -> impl Iterator<Item = Name> {
    partitions.iter().map(|partition| Name::of(*partition)).filter(|name| matches!(name, Name::Mark(_)))
}

impl<C: Clock> RedisLedger<C> {
    /// Whether the ledger in the server is the one that this process works for, or may become it.
    pub(super) async fn recognize(&self, shard: &Shard, connection: &mut MultiplexedConnection) -> Result<(), NotOurs> {
        let refused = |finding: String| NotOurs::Unfit(vec![finding]);
        match (shard.standing.ledger(), shard.name()) {
            (Some(ours), name) => {
                let names = match shard.first {
                    None => vec![name],
                    Some(first) => self.shards().partitions(first).into_iter().map(Name::of).collect(),
                };
                // What a part of a Cluster has lost keeps nobody from working with the others.
                let missing = |finding| if shard.is_home() { refused(finding) } else { NotOurs::NotNow(finding) };
                still_ours(connection, names, ours).await?.map_err(missing)
            }
            (None, Name::Mark(_)) => Err(NotOurs::NotNow(
                "the ledger's name is not known yet: it stands in partition 00, whose primary cannot be used".into(),
            )),
            (None, Name::Identity(key)) if self.only_reads => {
                let stands = reader::whichever(connection, &key).await?;
                shard.standing.settle(stands).map_err(refused)
            }
            (None, Name::Identity(key)) => {
                // Before an empty store is given a name.
                if let Some(other) = self.other_than_witnessed(connection, &key).await? {
                    return Err(refused(other));
                }
                let ours = match shard.first {
                    None => identify(connection, &key, &self.terms()).await?,
                    Some(_) => self.identify_spread(connection, &key).await?,
                };
                shard.standing.settle(ours).map_err(refused)
            }
        }
    }

    /// The name of the ledger of a Cluster. A new one begins only where no partition bears the mark of another, and has begun
    /// when every partition bears its own.
    async fn identify_spread(&self, home: &mut MultiplexedConnection, key: &[u8]) -> Result<LedgerId, NotOurs> {
        let (id, spread): (Option<String>, Option<String>) =
            redis::cmd("HMGET").arg(key).arg("id").arg(keys::SPREAD).query_async(home).await?;
        let mut everywhere = if spread.is_none() { self.everywhere().await? } else { Vec::new() };
        for (connection, partitions) in &mut everywhere {
            let found = found(connection, marks(partitions).collect()).await?;
            if let Some((mark, Some(other))) = found.into_iter().find(|(_, found)| found.is_some() && *found != id) {
                // Another instance may have begun it meanwhile.
                let now: Option<String> = redis::cmd("HGET").arg(key).arg("id").query_async(home).await?;
                if now.as_ref() != Some(&other) {
                    return Err(NotOurs::Unfit(vec![format!(
                        "{}: there is no ledger, but {} is marked with {other}: the primary of partition 00 has lost what it had; \
                         bring its data back, or use another Redis",
                        String::from_utf8_lossy(key),
                        String::from_utf8_lossy(&mark),
                    )]));
                }
            }
            if id.is_none()
                && let Some(outbox) = any_outbox(connection, partitions).await?
            {
                return Err(NotOurs::Unfit(vec![format!(
                    "{}: there is no ledger, but {outbox} tells of sales: data of another store were put here without it; use an \
                     empty Redis, or bring the ledger's identity too",
                    String::from_utf8_lossy(key),
                )]));
            }
        }
        let ours = identify(home, key, &self.terms()).await?;
        for (connection, partitions) in &mut everywhere {
            mark(connection, partitions, ours).await?;
        }
        if spread.is_none() {
            let _: () = redis::cmd("HSET").arg(key).arg(keys::SPREAD).arg("yes").query_async(home).await?;
        }
        Ok(ours)
    }

    /// A connection to every shard, with its partitions.
    async fn everywhere(&self) -> Result<Vec<(Connection, Vec<u8>)>, NotOurs> {
        let shards = self.shards();
        if !shards.is_whole() {
            return Err(NotOurs::NotNow(NOT_EVERYWHERE.into()));
        }
        let mut all = Vec::with_capacity(shards.all().len());
        for (first, shard) in shards.all() {
            let connection = shard.pool.connection().await.map_err(|_| NotOurs::NotNow(NOT_EVERYWHERE.into()))?;
            all.push((connection, shards.partitions(*first)));
        }
        Ok(all)
    }
}

/// The outbox of one of these partitions, if one has any.
async fn any_outbox(connection: &mut MultiplexedConnection, partitions: &[u8]) -> RedisResult<Option<String>> {
    let mut ask = redis::pipe();
    for partition in partitions {
        ask.cmd("EXISTS").arg(&keys::outbox(*partition));
    }
    let there: Vec<u8> = ask.query_async(connection).await?;
    let outbox =
        partitions.iter().zip(there).find(|(_, there)| *there > 0).map(|(partition, _)| keys::outbox(*partition));
    Ok(outbox.map(|outbox| String::from_utf8_lossy(&outbox).into_owned()))
}

/// Marks partitions that have no mark yet. Should a replica take over that has none either, its part of the ledger would count as
/// lost: all that are attached must have them.
async fn mark(connection: &mut MultiplexedConnection, partitions: &[u8], ours: LedgerId) -> Result<(), NotOurs> {
    if marks(partitions).next().is_none() {
        return Ok(());
    }
    let mut write = redis::pipe();
    for mark in marks(partitions) {
        write.cmd("SET").arg(mark.key()).arg(ours.to_string()).arg("NX").ignore();
    }
    write.exec_async(connection).await?;
    let replicas = settings::read(connection).await?.attached.len();
    let had: usize = redis::cmd("WAIT").arg(replicas).arg(500).query_async(connection).await?;
    if had < replicas { Err(NotOurs::NotNow(NOT_EVERYWHERE.into())) } else { Ok(()) }
}
