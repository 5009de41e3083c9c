//! The door in Redis: one Lua script a verb, so that looking and granting are one atomic step on any number of instances.
//!
//! Every trip is one script on one connection of the pool. A trip that fails leaves its connection behind: what is wrong
//! with it (a server that is loading, a demoted primary, an answer still under way) may not heal.
//!
//! Knows nothing about instances or tokens. The rules that the scripts state are those of `limiter.rs`.

mod keys;

use std::sync::Arc;

use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind};

use super::{
    BATCH, Changes, Cursor, Door, DoorError, Ended, EndedWhy, Holder, Lease, Opened, Seat, SeatKey, Standing, Tick,
    millis,
};
use crate::ids::{SiteId, TerminalId};
use crate::museum::Mutant;
use crate::redis_pool::RedisPool;

/// How many changes the stream keeps, about: at 1,000 endings a second an instance may be away for a minute and a half
/// before it has to look its seats up again.
const CHANGES_KEPT: u32 = 100_000;
/// How many changes one trip reads.
const PAGE: usize = 1_000;

/// The scripts, each prepared once.
struct Scripts {
    open: redis::Script,
    renew: redis::Script,
    close: redis::Script,
    look_up: redis::Script,
    tick: redis::Script,
}

/// The door of every instance that uses this Redis.
#[derive(Clone)]
pub struct RedisDoor {
    pool: RedisPool,
    lease: Lease,
    scripts: Arc<Scripts>,
}

impl RedisDoor {
    /// A door over this pool. Every instance must be given the same lease. Nothing is sent yet.
    pub fn new(pool: RedisPool, lease: Lease) -> Self {
        let scripts = Scripts {
            open: redis::Script::new(OPEN),
            renew: redis::Script::new(RENEW),
            close: redis::Script::new(CLOSE),
            look_up: redis::Script::new(LOOK_UP),
            tick: redis::Script::new(TICK),
        };
        Self { pool, lease, scripts: Arc::new(scripts) }
    }

    async fn run(&self, script: &redis::ScriptInvocation<'_>) -> Result<Reply, DoorError> {
        let mut connection = self.connection().await?;
        match script.invoke_async(&mut connection).await {
            Ok(words) => Ok(Reply::new(words)),
            Err(error) => Err(failed(connection, &error)),
        }
    }

    async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, DoorError> {
        let mut connection = self.connection().await?;
        match command.query_async(&mut connection).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(failed(connection, &error)),
        }
    }

    async fn connection(&self) -> Result<deadpool_redis::Connection, DoorError> {
        self.pool.connection().await.map_err(|away| DoorError::Away(away.to_string()))
    }

    /// The seeded bug `CapOutsideScript`: counts in one command; the script that grants is told that there is no cap.
    async fn counted_outside(&self, site: SiteId, cap: u16) -> Result<u16, DoorError> {
        let line: Option<String> = self.query(redis::cmd("HGET").arg(keys::SITES).arg(site.as_str())).await?;
        let live = line.map_or(0, |line| line.matches(';').count());
        Ok(if live < usize::from(cap) { u16::MAX } else { 0 })
    }

    async fn newest(&self) -> Result<Cursor, DoorError> {
        let newest: Vec<Entry> =
            self.query(redis::cmd("XREVRANGE").arg(keys::CHANGES).arg("+").arg("-").arg("COUNT").arg(1)).await?;
        newest.first().map_or(Ok(Cursor::default()), |(id, _)| cursor(id))
    }

    async fn gap(&self) -> Result<Changes, DoorError> {
        Ok(Changes { ended: Vec::new(), upto: self.newest().await?, gap: true })
    }
}

impl Door for RedisDoor {
    async fn open(&self, site: SiteId, terminal: TerminalId, cap: u16) -> Result<Opened, DoorError> {
        let cap = if Mutant::CapOutsideScript.is_on() { self.counted_outside(site, cap).await? } else { cap };
        let mut script = self.scripts.open.prepare_invoke();
        script.key(keys::GATE).key(keys::SITES).key(keys::RENEWED).key(keys::CHANGES);
        script.arg(site.as_str()).arg(terminal.as_str()).arg(cap).arg(millis(self.lease.length));
        script.arg(nonce()?).arg(CHANGES_KEPT);
        let mut reply = self.run(&script).await?;
        let word: String = reply.next()?;
        match word.as_str() {
            "GRANTED" => {
                let seat = Seat { key: SeatKey { site, slot: reply.next()? }, terminal, fence: reply.next()? };
                let (slot, fence): (i64, i64) = (reply.next()?, reply.next()?);
                let replaced = match (u16::try_from(slot), u64::try_from(fence)) {
                    (Ok(slot), Ok(fence)) => Some(Seat { key: SeatKey { site, slot }, terminal, fence }),
                    _ => None,
                };
                Ok(Opened::Granted { seat, replaced })
            }
            "FULL" => {
                let now: u64 = reply.next()?;
                let mut holders = Vec::new();
                while !reply.is_at_end() {
                    let (slot, terminal) = (reply.next()?, reply.next()?);
                    let (granted, renewed): (u64, u64) = (reply.next()?, reply.next()?);
                    let until = renewed.saturating_add(millis(self.lease.length));
                    holders.push(Holder {
                        terminal,
                        slot,
                        held_for: std::time::Duration::from_millis(now.saturating_sub(granted)),
                        free_after: std::time::Duration::from_millis(until.saturating_sub(now)),
                    });
                }
                Ok(Opened::SiteFull { holders })
            }
            other => Err(unknown(other)),
        }
    }

    async fn renew(&self, seats: &[Seat]) -> Result<Vec<Standing>, DoorError> {
        let mut standings = Vec::with_capacity(seats.len());
        for batch in seats.chunks(BATCH) {
            let mut script = self.scripts.renew.prepare_invoke();
            script.key(keys::GATE).key(keys::SITES).key(keys::RENEWED).arg(batch.len());
            for seat in batch {
                script.arg(seat.key.site.as_str()).arg(seat.key.slot).arg(seat.terminal.as_str()).arg(seat.fence);
            }
            let mut reply = self.run(&script).await?;
            for _ in batch {
                standings.push(reply.standing()?);
            }
        }
        Ok(standings)
    }

    async fn close(&self, seat: Seat) -> Result<bool, DoorError> {
        let mut script = self.scripts.close.prepare_invoke();
        script.key(keys::SITES).key(keys::RENEWED).key(keys::CHANGES);
        script.arg(seat.key.site.as_str()).arg(seat.key.slot).arg(seat.terminal.as_str()).arg(seat.fence);
        script.arg(nonce()?).arg(CHANGES_KEPT);
        let word: String = self.run(&script).await?.next()?;
        match word.as_str() {
            "CLOSED" => Ok(true),
            "GONE" => Ok(false),
            other => Err(unknown(other)),
        }
    }

    async fn look_up(&self, seat: Seat) -> Result<Standing, DoorError> {
        let mut script = self.scripts.look_up.prepare_invoke();
        script.key(keys::SITES);
        script.arg(seat.key.site.as_str()).arg(seat.key.slot).arg(seat.terminal.as_str()).arg(seat.fence);
        self.run(&script).await?.standing()
    }

    async fn changes(&self, after: Cursor) -> Result<Changes, DoorError> {
        let (mut ended, mut upto) = (Vec::new(), after);
        if after == Cursor::default() {
            return self.gap().await;
        }
        loop {
            // The page begins with the change read last: only a history that holds it goes on from it.
            let from = format!("{}-{}", upto.number, upto.nonce);
            let page: Vec<Entry> = self
                .query(redis::cmd("XRANGE").arg(keys::CHANGES).arg(from).arg("+").arg("COUNT").arg(PAGE + 1))
                .await?;
            let Some(((first, _), rest)) = page.split_first() else { return self.gap().await };
            if cursor(first)? != upto {
                return self.gap().await;
            }
            for (id, fields) in rest {
                let next = cursor(id)?;
                if next.number != upto.number + 1 {
                    return self.gap().await;
                }
                ended.push(change(fields)?);
                upto = next;
            }
            if rest.len() < PAGE {
                return Ok(Changes { ended, upto, gap: false });
            }
        }
    }

    async fn tick(&self) -> Result<Tick, DoorError> {
        let mut script = self.scripts.tick.prepare_invoke();
        script.key(keys::GATE).key(keys::SITES).key(keys::RENEWED).key(keys::CHANGES);
        script
            .arg(millis(self.lease.length))
            .arg(millis(self.lease.max_step))
            .arg(BATCH)
            .arg(nonce()?)
            .arg(CHANGES_KEPT);
        let mut reply = self.run(&script).await?;
        let word: String = reply.next()?;
        match word.as_str() {
            "TICKED" => Ok(Tick { expired: reply.next()? }),
            other => Err(unknown(other)),
        }
    }
}

/// The scripts' texts.
const OPEN: &str = include_str!("redis/open.lua");
const RENEW: &str = include_str!("redis/renew.lua");
const CLOSE: &str = include_str!("redis/close.lua");
const LOOK_UP: &str = include_str!("redis/look_up.lua");
const TICK: &str = include_str!("redis/tick.lua");

/// A change as the stream holds it: its id, its fields and their values in turn.
type Entry = (String, Vec<String>);

/// What a script answered: a word, then numbers and names.
struct Reply(std::vec::IntoIter<String>);

impl Reply {
    fn new(words: Vec<String>) -> Self {
        Self(words.into_iter())
    }

    fn is_at_end(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn next<T: std::str::FromStr>(&mut self) -> Result<T, DoorError> {
        let word = self.0.next().ok_or_else(|| DoorError::Corrupt("the reply is too short".into()))?;
        word.parse().map_err(|_| unknown(&word))
    }

    fn standing(&mut self) -> Result<Standing, DoorError> {
        let word: String = self.next()?;
        match word.as_str() {
            "LIVE" => Ok(Standing::Live),
            "REPLACED" => Ok(Standing::Replaced),
            "LOST" => Ok(Standing::Lost),
            other => Err(unknown(other)),
        }
    }
}

fn unknown(word: &str) -> DoorError {
    DoorError::Corrupt(format!("{word:?} is not expected here"))
}

/// Gives the connection up and says why the trip failed.
fn failed(connection: deadpool_redis::Connection, error: &RedisError) -> DoorError {
    drop(deadpool_redis::Connection::take(connection));
    match error.kind() {
        ErrorKind::UnexpectedReturnType | ErrorKind::Server(ServerErrorKind::ResponseError) => {
            DoorError::Corrupt(error.to_string())
        }
        _ => DoorError::Away(error.to_string()),
    }
}

/// A number that tells this change from another one of the same number in another history.
fn nonce() -> Result<u64, DoorError> {
    getrandom::u64().map_err(|error| DoorError::Away(format!("no random numbers: {error}")))
}

fn cursor(id: &str) -> Result<Cursor, DoorError> {
    let parts = id.split_once('-').and_then(|(number, nonce)| Some((number.parse().ok()?, nonce.parse().ok()?)));
    parts.map(|(number, nonce)| Cursor::new(number, nonce)).ok_or_else(|| unknown(id))
}

fn change(fields: &[String]) -> Result<Ended, DoorError> {
    let bad = || DoorError::Corrupt(format!("a change reads {fields:?}"));
    let [_, site, _, slot, _, fence, _, why] = fields else { return Err(bad()) };
    let why = match why.as_str() {
        "replaced" => EndedWhy::Replaced,
        "closed" => EndedWhy::Closed,
        "expired" => EndedWhy::Expired,
        _ => return Err(bad()),
    };
    let seat = SeatKey { site: site.parse().map_err(|_| bad())?, slot: slot.parse().map_err(|_| bad())? };
    Ok(Ended { seat, fence: fence.parse().map_err(|_| bad())?, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a script names exactly what its asserts let in, and declares only keys that exist.
    #[test]
    fn headers_asserts_and_keys_agree() {
        let scripts = [
            ("open.lua", OPEN, 4, Some(6)),
            ("renew.lua", RENEW, 3, None),
            ("close.lua", CLOSE, 3, Some(6)),
            ("look_up.lua", LOOK_UP, 1, Some(4)),
            ("tick.lua", TICK, 4, Some(5)),
        ];
        for (name, text, keys, arguments) in scripts {
            let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("--")).collect();
            assert!(header[0].starts_with(&format!("-- {name}: ")), "{name}");
            let declared: Vec<&str> = header.iter().filter_map(|line| line.strip_prefix("-- KEYS[")).collect();
            assert_eq!(declared.len(), keys, "{name}");
            for line in declared {
                let key = line.split_whitespace().nth(1).unwrap();
                assert!([keys::GATE, keys::SITES, keys::RENEWED, keys::CHANGES].contains(&key), "{name}: {key}");
            }
            assert!(text.contains(&format!("assert(#KEYS == {keys}, ")), "{name}");
            if let Some(arguments) = arguments {
                assert_eq!(header.iter().filter(|line| line.starts_with("-- ARGV[")).count(), arguments, "{name}");
                assert!(text.contains(&format!("assert(#ARGV == {arguments}, ")), "{name}");
            }
            for part in ["-- Reply:", if text.contains("-- Write.") { "-- Invariant" } else { "changes nothing" }] {
                assert!(header.iter().any(|line| line.contains(part)), "{name}: {part}");
            }
        }
    }
}
