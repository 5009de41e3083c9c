//! The shelf in Redis: a report is one Lua script, so that looking for its id and keeping it are one step on any number of instances.
//!
//! An answer leaves when every replica that might take over has what it rests on ([`beside`](crate::ledger::redis)). A reader that finds
//! nothing new writes nothing.
//!
//! A picture is large, and Redis serves one command at a time: it goes in chunks, each a command of its own, so that sales of the
//! same server wait for a chunk and not for the picture. One small script then points to it.
//!
//! Knows nothing about levels, or about what a picture holds.

mod keys;

pub use keys::TAG as STOCK_TAG;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, ParsingError, Value};
use sha2::{Digest, Sha256};

use super::{Place, REPORTS_A_DAY, REPORTS_KEPT, Recorded, Report, Reports, Shelf, packed};
use crate::ledger::LedgerError;
use crate::ledger::redis::beside::{Beside, given_back, may_be_there, meaning};
use crate::ledger::redis::wrote_nothing;
use crate::redis_pool::{Dialled, RedisPool};

/// The ids of a day are remembered for so long after its last report: they are looked for until the next day is over.
const IDS_KEPT: Duration = Duration::from_secs(3 * 86_400);
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// How much of a picture one command carries: a server takes it in well under a millisecond.
const CHUNK: usize = 64 << 10;
/// How long chunks stand to which nothing points.
const UNFINISHED_KEPT: Duration = Duration::from_secs(3_600);

const RECORD: &str = include_str!("redis/record.lua");
const KEEP: &str = include_str!("redis/keep.lua");

/// A message of the stream: its id, and its fields and their values in turn.
type Message = (String, Vec<Vec<u8>>);

/// The shelf of every instance that uses this Redis.
#[derive(Clone)]
pub struct RedisShelf {
    beside: Beside,
    scripts: Arc<Scripts>,
}

/// The scripts, each prepared once.
struct Scripts {
    record: redis::Script,
    keep: redis::Script,
}

/// Which picture was kept last, as it stands there.
#[derive(PartialEq, Eq)]
struct Pointer {
    generation: String,
    length: String,
    checksum: Vec<u8>,
}

impl RedisShelf {
    /// A shelf over this pool, which must lead to where [`STOCK_TAG`] is kept. `allow_volatile`: the operator has decided that the
    /// store may lose what it has acknowledged, and no replica is waited for. Nothing is sent yet.
    pub fn new(pool: RedisPool, allow_volatile: bool) -> Self {
        let scripts = Scripts { record: redis::Script::new(RECORD), keep: redis::Script::new(KEEP) };
        Self { beside: Beside::new(pool, allow_volatile, keys::BARRIER), scripts: Arc::new(scripts) }
    }

    async fn put(&self, connection: &mut Dialled, report: &Report) -> Result<Recorded, LedgerError> {
        let day = report.received.as_millis().div_euclid(DAY_MS);
        let mut script = self.scripts.record.prepare_invoke();
        script.key(keys::REPORTS);
        for day in [day, day - 1, day + 1] {
            script.key(keys::ids(report.key.site, day));
        }
        script.arg(report.request.as_bytes()).arg(packed::pack(report)).arg(REPORTS_KEPT).arg(IDS_KEPT.as_secs());
        script.arg(REPORTS_A_DAY);
        let stood: Option<Vec<u8>> = script.invoke_async(&mut **connection).await.map_err(meaning)?;
        // From here on it may be there.
        self.beside.confirm(connection).await.map_err(may_be_there)?;
        match stood {
            None => Ok(Recorded::Stands { report: *report, replayed: false }),
            Some(stood) if stood.is_empty() => Err(LedgerError::Overloaded),
            Some(stood) => {
                let stood = packed::unpack(&stood).map_err(|error| {
                    LedgerError::Corrupt(format!("{error}; it is {} of {}", report.request, report.key.site))
                })?;
                Ok(Recorded::again(stood, report))
            }
        }
    }

    async fn read(&self, connection: &mut Dialled, place: Place, most: usize) -> Result<Reports, LedgerError> {
        let mut command = redis::cmd("XRANGE");
        // The report of the place itself is read with them, to see whether it is still there.
        command.arg(keys::REPORTS).arg(place.to_string()).arg("+").arg("COUNT").arg(most.saturating_add(1));
        let messages = Vec::<Message>::from_redis_value(ask(connection, &command).await?).map_err(unlike_a_stream)?;
        let known = usize::from(!matches!(place, Place::BEGINNING | Place::FIRST));
        let is_whole = place != Place::FIRST || messages.is_empty() || is_whole(connection).await?;
        if messages.len() > known {
            self.beside.confirm(connection).await?;
        }
        let reports = messages.into_iter().map(report).collect::<Result<_, _>>()?;
        Ok(Reports::of(place, reports, is_whole, most))
    }

    /// Writes the chunks, and then points to them.
    async fn put_up(&self, connection: &mut Dialled, picture: &[u8]) -> Result<(), LedgerError> {
        let number =
            getrandom::u64().map_err(|error| LedgerError::StoreUnavailable(format!("no random numbers: {error}")))?;
        let generation = format!("{number:016x}");
        let chunks = keys::picture_of(&generation);
        for (nth, chunk) in picture.chunks(CHUNK).enumerate() {
            let mut put = redis::pipe();
            put.atomic().cmd("HSET").arg(&chunks).arg(nth).arg(chunk).ignore();
            put.cmd("EXPIRE").arg(&chunks).arg(UNFINISHED_KEPT.as_secs()).ignore();
            let () = put.query_async(&mut **connection).await.map_err(meaning).map_err(wrote_nothing)?;
        }
        let stands = pointer(connection).await.map_err(wrote_nothing)?;
        let mut old = stands.map_or_else(String::new, |stands| stands.generation);
        loop {
            let mut script = self.scripts.keep.prepare_invoke();
            script.key(keys::PICTURE).key(&chunks).key(keys::picture_of(&old));
            script.arg(&old).arg(&generation).arg(picture.len()).arg(Sha256::digest(picture).as_slice());
            let reply: Vec<String> = script.invoke_async(&mut **connection).await.map_err(meaning)?;
            match reply.as_slice() {
                [word] if word == "KEPT" => break,
                // Another instance was faster, and has kept its own.
                [word, stands] if word == "OTHER" => old.clone_from(stands),
                _ => return Err(LedgerError::Corrupt("a reply of another shape".to_owned())),
            }
        }
        self.beside.confirm(connection).await.map_err(may_be_there)
    }

    /// One that is damaged counts as none: it can be made again from what happened, while an error would keep every instance from
    /// beginning until somebody had removed it by hand.
    async fn look(&self, connection: &mut Dialled) -> Result<Option<Vec<u8>>, LedgerError> {
        let Some(mut pointer) = pointer(connection).await? else { return Ok(None) };
        for _ in 0..2 {
            let picture = chunks(connection, &pointer.generation).await?;
            if pointer.is_of(&picture) {
                self.beside.confirm(connection).await?;
                return Ok(Some(picture));
            }
            match self::pointer(connection).await? {
                Some(now) if now != pointer => pointer = now,
                _ => {
                    tracing::warn!("the picture of the stock is damaged and is not used; it is made again");
                    return Ok(None);
                }
            }
        }
        Err(LedgerError::StoreUnavailable("the picture was replaced each time that it was read".to_owned()))
    }
}

impl Shelf for RedisShelf {
    async fn record(&self, report: Report) -> Result<Recorded, LedgerError> {
        let mut connection = self.beside.connection().await?;
        let recorded = self.put(&mut connection, &report).await;
        given_back(connection, recorded)
    }

    async fn after(&self, place: Place, most: usize) -> Result<Reports, LedgerError> {
        let mut connection = self.beside.connection().await?;
        let read = self.read(&mut connection, place, most).await;
        given_back(connection, read).map_err(wrote_nothing)
    }

    async fn keep(&self, picture: Vec<u8>) -> Result<(), LedgerError> {
        let mut connection = self.beside.connection().await?;
        let kept = self.put_up(&mut connection, &picture).await;
        given_back(connection, kept)
    }

    async fn kept(&self) -> Result<Option<Vec<u8>>, LedgerError> {
        let mut connection = self.beside.connection().await?;
        let kept = self.look(&mut connection).await;
        given_back(connection, kept).map_err(wrote_nothing)
    }
}

impl Pointer {
    fn is_of(&self, picture: &[u8]) -> bool {
        self.length == picture.len().to_string() && self.checksum == Sha256::digest(picture).as_slice()
    }
}

/// A command that changes nothing, and its reply.
async fn ask(connection: &mut Dialled, command: &Cmd) -> Result<Value, LedgerError> {
    command.query_async(&mut **connection).await.map_err(meaning)
}

/// Whether no report was ever dropped.
async fn is_whole(connection: &mut Dialled) -> Result<bool, LedgerError> {
    let told = ask(connection, redis::cmd("XINFO").arg("STREAM").arg(keys::REPORTS)).await?;
    let fields = HashMap::<String, Value>::from_redis_value(told).map_err(unlike_a_stream)?;
    let number = |name| fields.get(name).and_then(|value| u64::from_redis_value_ref(value).ok());
    Ok(number("entries-added").is_some_and(|added| number("length") == Some(added)))
}

async fn pointer(connection: &mut Dialled) -> Result<Option<Pointer>, LedgerError> {
    let mut command = redis::cmd("HMGET");
    command.arg(keys::PICTURE).arg("generation").arg("length").arg("checksum");
    let fields = Vec::<Option<Vec<u8>>>::from_redis_value(ask(connection, &command).await?).unwrap_or_default();
    let [Some(generation), length, checksum] = fields.as_slice() else { return Ok(None) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some(Pointer {
        generation: text(generation),
        length: text(length.as_deref().unwrap_or_default()),
        checksum: checksum.clone().unwrap_or_default(),
    }))
}

/// The chunks of a picture, up to the first that is not there.
async fn chunks(connection: &mut Dialled, generation: &str) -> Result<Vec<u8>, LedgerError> {
    let (key, mut picture) = (keys::picture_of(generation), Vec::new());
    for nth in 0_u64.. {
        match ask(connection, redis::cmd("HGET").arg(&key).arg(nth)).await? {
            Value::BulkString(chunk) => picture.extend_from_slice(&chunk),
            _ => break,
        }
    }
    Ok(picture)
}

fn unlike_a_stream(error: ParsingError) -> LedgerError {
    LedgerError::Corrupt(format!("the reports are no stream: {error}"))
}

fn report((id, fields): Message) -> Result<(Place, Report), LedgerError> {
    let corrupt = |what: &str| LedgerError::Corrupt(format!("{what}; it is {id} of {}", keys::REPORTS));
    let [_, value] = fields.as_slice() else {
        return Err(corrupt("a stored report cannot be read: it has not one field"));
    };
    let report = packed::unpack(value).map_err(|error| corrupt(&error.to_string()))?;
    let place = id.split_once('-').and_then(|(high, low)| Some((high.parse().ok()?, low.parse().ok()?)));
    let (high, low) = place.ok_or_else(|| corrupt("a stored report cannot be read: its place"))?;
    Ok((Place { high, low }, report))
}
