//! A step through the records of a programme, read only: one `SCAN`, then one pipeline that reads what it found.
//!
//! A cursor of `SCAN` means something only to the server that gave it: started anew, the same server spreads its keys
//! otherwise, and going on from an old cursor would leave records out. So a step remembers where its cursor is from. In a Cluster
//! one shard is read after the other, and while slots move between them nothing is.

use std::sync::Arc;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{RedisResult, Value};

use crate::buyer::BuyerKey;
use crate::ids::ProgrammeCode;
use crate::ledger::{Exported, LedgerError, Record};
use crate::time::Clock;

use super::decode::{self, Scanned};
use super::unit::Asks;
use super::{RedisLedger, encode, keys, shards};

/// How many keys a step looks at, more or less: sales wait for it about a millisecond.
const KEYS: usize = 256;

pub(super) async fn step<C: Clock>(
    ledger: &RedisLedger<C>,
    programme: ProgrammeCode,
    from: Option<Vec<u8>>,
) -> Result<Exported, LedgerError> {
    settled(ledger).await?;
    let shards = ledger.shards();
    let mut walk = shards.walk(from.as_deref())?;
    if walk.is_out_of_date {
        return Err(moved());
    }
    let shard = Arc::clone(&walk.shard);
    let server = shard.standing.server();
    let cursor = walk.cursor.take().map(|from| cursor_of(server, &from)).transpose()?;
    let scan = encode::scan(programme, cursor.as_deref(), KEYS);
    let scanned = shard.queue.ask(shard.standing.gate(), scan, Asks::Reads).await?;
    let Scanned { next, records } = decode::scanned(programme, scanned)?;
    let buyers: Vec<BuyerKey> =
        records.iter().filter_map(|key| keys::parse_record(key)).map(|(_, buyer)| buyer).collect();
    let mut pipeline = redis::pipe();
    for key in &records {
        pipeline.add_command(encode::get(key));
    }
    let count = records.len();
    let read = async move |mut connection: MultiplexedConnection| {
        let replies = connection.req_packed_commands(&pipeline, 0, count).await?;
        replies.into_iter().map(unless_foreign).collect::<RedisResult<Vec<_>>>()
    };
    let found = if count == 0 { Vec::new() } else { ledger.send(&shard, read).await? };
    if found.len() != count {
        return Err(LedgerError::Corrupt("a pipeline was answered in part".to_owned()));
    }
    // Dialling within this step may have led to another server than the cursor's.
    if shard.standing.server() != server {
        return Err(started_anew());
    }
    settled(ledger).await?;
    if !Arc::ptr_eq(&shards, &ledger.shards()) {
        return Err(moved());
    }
    let found = found.into_iter().map(|value| value.and_then(|value| decode::record(value).ok()));
    // What has no entries was removed between the two trips.
    let is_there = |record: &Option<Record>| record.as_ref().is_none_or(|record| !record.entries().is_empty());
    let records = buyers.into_iter().zip(found).filter(|(_, record)| is_there(record));
    let records = records.collect();
    let next = next.map(|cursor| [&server.to_be_bytes(), cursor.as_slice()].concat());
    Ok(Exported { records, next: shards.step(&walk, next) })
}

/// A reply, or `None` where something else than a record stands under the key. Every other error is the server's.
fn unless_foreign(reply: Value) -> RedisResult<Option<Value>> {
    match reply.extract_error() {
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(None),
        reply => reply.map(Some),
    }
}

/// The cursor that an earlier step gave, if it is of this server.
fn cursor_of(server: u64, from: &[u8]) -> Result<Vec<u8>, LedgerError> {
    let (of, cursor) = from.split_first_chunk().ok_or(LedgerError::Corrupt("no export stopped there".to_owned()))?;
    if u64::from_be_bytes(*of) == server { Ok(cursor.to_vec()) } else { Err(started_anew()) }
}

/// What is on its way from one primary to another might be left out by both.
async fn settled<C: Clock>(ledger: &RedisLedger<C>) -> Result<(), LedgerError> {
    let Some(cluster) = ledger.pool.cluster() else { return Ok(()) };
    cluster.look().await;
    let _ = ledger.regroup();
    if cluster.layout().is_moving(shards::slots(0..=u8::MAX)) { Err(moved()) } else { Ok(()) }
}

fn moved() -> LedgerError {
    LedgerError::StoreUnavailable(
        "slots of the Cluster move, or nobody holds them: export when that is over".to_owned(),
    )
}

fn started_anew() -> LedgerError {
    LedgerError::StoreUnavailable("Redis was started anew during an export".to_owned())
}
