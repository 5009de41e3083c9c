//! Reading the streams of the outbox. Where there are replicas, whoever may take over has what was read before it is given to anybody:
//! a unit that follows on the same connection speaks of all that was written before it. So no event is told that a failover makes
//! undone, and whoever finds nothing new writes nothing.
//!
//! Over connections of the pool and not through the lanes: sales do not queue behind it. Redis serves one command at a time, so
//! that few partitions are read in one go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, FromRedisValue, ParsingError, Pipeline, Value};

use crate::ledger::outbox::{After, Outbox, PARTITIONS, Place, Told, read};
use crate::ledger::{Ledger, LedgerError};
use crate::time::Clock;

use super::shards::Shard;
use super::standing::Pass;
use super::{RedisLedger, faults, keys, trip, unit, wrote_nothing};

/// How many partitions are read in one go: sales of the same server wait for it, a millisecond or two at most.
const AT_ONCE: usize = 16;

/// A message of a stream: its id, and its fields and their values in turn.
type Message = (String, Vec<Vec<u8>>);

/// A command about a partition.
struct Ask {
    partition: u8,
    command: Cmd,
    /// Of what it reads so much is known already.
    known: usize,
}

/// Commands, and which of all they are.
type Numbered = Vec<(usize, Ask)>;

impl<C: Clock> Outbox for RedisLedger<C> {
    async fn after(&self, places: Vec<(u8, Place)>, most: usize) -> Result<Vec<After>, LedgerError> {
        let ask = |(partition, place): (u8, Place)| {
            let mut command = redis::cmd("XRANGE");
            // The event of the place itself is read with them, to see whether it is still there.
            command
                .arg(&keys::outbox(partition))
                .arg(place.to_string())
                .arg("+")
                .arg("COUNT")
                .arg(most.saturating_add(1));
            let known = usize::from(!matches!(place, Place::BEGINNING | Place::FIRST));
            Ask { partition, command, known }
        };
        let read = self
            .read_outbox(places.iter().copied().map(ask).collect())
            .await?
            .into_iter()
            .map(messages)
            .collect::<Result<Vec<_>, _>>()?;
        let begins = |((partition, place), found): (&(u8, Place), &Vec<Message>)| {
            (*place == Place::FIRST && !found.is_empty()).then_some(*partition)
        };
        let cut = self.cut(places.iter().zip(&read).filter_map(begins).collect()).await?;
        read.into_iter()
            .zip(places)
            .map(|(messages, (partition, place))| {
                let events = messages.into_iter().map(|message| event(partition, message));
                let events = events.collect::<Result<_, _>>()?;
                Ok(After::of(place, events, !cut.contains(&partition), most))
            })
            .collect()
    }

    async fn newest(&self) -> Result<[Place; PARTITIONS], LedgerError> {
        let ask = |partition: u8| {
            let mut command = redis::cmd("XREVRANGE");
            command.arg(&keys::outbox(partition)).arg("+").arg("-").arg("COUNT").arg(1);
            Ask { partition, command, known: 0 }
        };
        let mut newest = [Place::FIRST; PARTITIONS];
        for (newest, found) in newest.iter_mut().zip(self.read_outbox((0..=u8::MAX).map(ask).collect()).await?) {
            if let Some((id, _)) = messages(found)?.first() {
                *newest = place(id)?;
            }
        }
        Ok(newest)
    }
}

impl<C: Clock> RedisLedger<C> {
    /// Those of these partitions of which events were dropped.
    async fn cut(&self, partitions: Vec<u8>) -> Result<BTreeSet<u8>, LedgerError> {
        let ask = |partition: u8| {
            let mut command = redis::cmd("XINFO");
            command.arg("STREAM").arg(&keys::outbox(partition));
            Ask { partition, command, known: 0 }
        };
        let told = self.read_outbox(partitions.iter().copied().map(ask).collect()).await?;
        let mut cut = BTreeSet::new();
        for (partition, told) in partitions.into_iter().zip(told) {
            let fields = HashMap::<String, Value>::from_redis_value(told).map_err(|error| unlike_a_stream(&error))?;
            let number = |name| fields.get(name).map(u64::from_redis_value_ref);
            let numbers = number("entries-added").zip(number("length"));
            if !matches!(numbers, Some((Ok(added), Ok(length))) if added == length) {
                cut.insert(partition);
            }
        }
        Ok(cut)
    }

    /// What these commands read.
    async fn read_outbox(&self, asks: Vec<Ask>) -> Result<Vec<Value>, LedgerError> {
        self.id().ok_or_else(|| LedgerError::StoreUnavailable("the ledger is not known yet".into()))?;
        let shards = self.shards();
        let mut by_shard: BTreeMap<Option<u8>, (Arc<Shard>, Numbered)> = BTreeMap::new();
        for (nth, ask) in asks.into_iter().enumerate() {
            let shard = shards.of(ask.partition)?;
            by_shard.entry(shard.first).or_insert_with(|| (shard, Vec::new())).1.push((nth, ask));
        }
        let mut read = BTreeMap::new();
        for (shard, mut asks) in by_shard.into_values() {
            while !asks.is_empty() {
                let rest = asks.split_off(asks.len().min(AT_ONCE));
                let (places, now): (Vec<_>, Vec<_>) = std::mem::replace(&mut asks, rest).into_iter().unzip();
                read.extend(places.into_iter().zip(confirmed(&shard, now).await.map_err(wrote_nothing)?));
            }
        }
        Ok(read.into_values().collect())
    }
}

/// What these commands read in one go.
async fn confirmed(shard: &Shard, asks: Vec<Ask>) -> Result<Vec<Value>, LedgerError> {
    let standing = Arc::clone(&shard.standing);
    let read = async move |mut connection: MultiplexedConnection, pass: Pass| {
        let mut pipeline = Pipeline::with_capacity(asks.len());
        asks.iter().for_each(|ask| {
            pipeline.add_command(ask.command.clone());
        });
        let found = connection.req_packed_commands(&pipeline, 0, asks.len()).await?;
        let is_news = |(found, ask): (&Value, &Ask)| !matches!(found, Value::Array(all) if all.len() <= ask.known);
        let confirmed = match pass.replicas > 0 && found.iter().zip(&asks).any(is_news) {
            true => unit::confirm(&mut connection, &standing, pass).await?,
            false => Ok(()),
        };
        Ok((found, confirmed))
    };
    let (found, confirmed) = trip::with_connection(&shard.pool, &shard.standing, read).await?;
    confirmed?;
    found.into_iter().map(|reply| reply.extract_error().map_err(|error| faults::meaning(&error))).collect()
}

fn messages(reply: Value) -> Result<Vec<Message>, LedgerError> {
    Vec::from_redis_value(reply).map_err(|error| unlike_a_stream(&error))
}

fn unlike_a_stream(error: &ParsingError) -> LedgerError {
    LedgerError::Corrupt(format!("the outbox is no stream: {error}"))
}

fn event(partition: u8, (id, fields): Message) -> Result<(Place, Told), LedgerError> {
    let stands = || format!("{} of {}", id, String::from_utf8_lossy(&keys::outbox(partition)));
    let [kind, value] = fields.as_slice() else {
        return Err(LedgerError::Corrupt(format!("an event cannot be read: it has not one field; it is {}", stands())));
    };
    let told = read(kind, value).map_err(|error| LedgerError::Corrupt(format!("{error}; it is {}", stands())))?;
    Ok((place(&id)?, told))
}

fn place(id: &str) -> Result<Place, LedgerError> {
    let read = || {
        let (high, low) = id.split_once('-')?;
        Some(Place { high: high.parse().ok()?, low: low.parse().ok()? })
    };
    read().ok_or_else(|| LedgerError::Corrupt("an event cannot be read: its place".to_owned()))
}
