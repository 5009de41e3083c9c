//! Reading the streams of the outbox. What is read goes as units do: where there are replicas, whoever may take over has it before
//! it is given to anybody, so that no event is told that a failover makes undone.
//!
//! Over connections of the pool and not through the lanes: sales do not queue behind it. Redis serves one command at a time, so
//! that a unit reads few partitions and few events of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::{Cmd, FromRedisValue, Value};

use crate::ledger::outbox::{After, Outbox, PARTITIONS, Place, Told, read};
use crate::ledger::{Ledger, LedgerError};
use crate::time::Clock;

use super::shards::Shard;
use super::unit::{self, Asks};
use super::{RedisLedger, keys, wrote_nothing};

/// How many partitions a unit reads: sales of the same server wait for it, a millisecond or two at most.
const AT_ONCE: usize = 32;

/// A message of a stream: its id, and its fields and their values in turn.
type Message = (String, Vec<Vec<u8>>);
/// Commands, and which of all they are.
type Numbered = Vec<(usize, Cmd)>;

impl<C: Clock> Outbox for RedisLedger<C> {
    async fn after(&self, places: Vec<(u8, Place)>, most: usize) -> Result<Vec<After>, LedgerError> {
        let command = |(partition, place): (u8, Place)| {
            let mut range = redis::cmd("XRANGE");
            // The event of the place itself is read with them, to see whether it is still there.
            range
                .arg(&keys::outbox(partition))
                .arg(place.to_string())
                .arg("+")
                .arg("COUNT")
                .arg(most.saturating_add(1));
            range
        };
        let (partitions, commands) = places.iter().map(|asked| (asked.0, command(*asked))).unzip();
        let read = self.read_units(partitions, commands).await?;
        read.into_iter()
            .zip(places)
            .map(|(messages, (_, place))| {
                let events = messages.into_iter().map(event).collect::<Result<_, _>>()?;
                Ok(After::of(place, events, most))
            })
            .collect()
    }

    async fn newest(&self) -> Result<[Place; PARTITIONS], LedgerError> {
        let command = |partition: u8| {
            let mut range = redis::cmd("XREVRANGE");
            range.arg(&keys::outbox(partition)).arg("+").arg("-").arg("COUNT").arg(1);
            range
        };
        let (partitions, commands) = (0..=u8::MAX).map(|partition| (partition, command(partition))).unzip();
        let mut newest = [Place::BEGINNING; PARTITIONS];
        for (newest, messages) in newest.iter_mut().zip(self.read_units(partitions, commands).await?) {
            if let Some((id, _)) = messages.first() {
                *newest = place(id)?;
            }
        }
        Ok(newest)
    }
}

impl<C: Clock> RedisLedger<C> {
    /// What these commands read, each about one of these partitions.
    async fn read_units(&self, partitions: Vec<u8>, commands: Vec<Cmd>) -> Result<Vec<Vec<Message>>, LedgerError> {
        self.id().ok_or_else(|| LedgerError::StoreUnavailable("the ledger is not known yet".into()))?;
        let shards = self.shards();
        let mut by_shard: BTreeMap<Option<u8>, (Arc<Shard>, Numbered)> = BTreeMap::new();
        for (nth, (partition, command)) in partitions.into_iter().zip(commands).enumerate() {
            let shard = shards.of(partition)?;
            by_shard.entry(shard.first).or_insert_with(|| (shard, Vec::new())).1.push((nth, command));
        }
        let mut read = BTreeMap::new();
        for (shard, mut commands) in by_shard.into_values() {
            while !commands.is_empty() {
                let rest = commands.split_off(commands.len().min(AT_ONCE));
                let (places, unit): (Vec<_>, Vec<_>) = std::mem::replace(&mut commands, rest).into_iter().unzip();
                let replies = self.read_unit(&shard, unit).await.map_err(wrote_nothing)?;
                read.extend(places.into_iter().zip(replies));
            }
        }
        Ok(read.into_values().collect())
    }

    async fn read_unit(&self, shard: &Shard, unit: Vec<Cmd>) -> Result<Vec<Vec<Message>>, LedgerError> {
        let (count, pass, standing) = (unit.len(), shard.standing.pass()?, Arc::clone(&shard.standing));
        let replies = self
            .send(shard, async move |mut connection| {
                unit::send(&mut connection, &standing, pass, Asks::Reads, unit.into_iter()).await
            })
            .await?;
        if replies.len() != count {
            return Err(LedgerError::Corrupt("a pipeline was answered in part".to_owned()));
        }
        replies.into_iter().map(|reply| messages(reply?.map_err(|error| super::faults::meaning(&error))?)).collect()
    }
}

fn messages(reply: Value) -> Result<Vec<Message>, LedgerError> {
    Vec::from_redis_value(reply).map_err(|error| LedgerError::Corrupt(format!("the outbox is no stream: {error}")))
}

fn event((id, fields): Message) -> Result<(Place, Told), LedgerError> {
    let [kind, value] = fields.as_slice() else {
        return Err(LedgerError::Corrupt("an event cannot be read: it has not one field".to_owned()));
    };
    Ok((place(&id)?, read(kind, value)?))
}

fn place(id: &str) -> Result<Place, LedgerError> {
    let read = || {
        let (high, low) = id.split_once('-')?;
        Some(Place { high: high.parse().ok()?, low: low.parse().ok()? })
    };
    read().ok_or_else(|| LedgerError::Corrupt("an event cannot be read: its place".to_owned()))
}
