//! The door in Redis: one Lua script a verb, so that looking and granting are one atomic step on any number of instances.
//!
//! Every trip is one script on one connection of the pool. A trip that fails leaves its connection behind: what is wrong
//! with it (a server that is loading, a demoted primary, an answer still under way) may not heal.
//!
//! Knows nothing about instances or tokens. The rules that the scripts state are those of `limiter.rs`.

mod keys;

pub use keys::TAG as DOOR_TAG;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind};

use super::{
    ADMITTED, Admitted, Attending, BATCH, BURNS_FOR, Beat, Change, Changes, Cursor, Door, DoorError, Ended, EndedWhy,
    Holder, InLine, Kept, Lease, LeftWhy, Mode, Opened, Opening, Place, Presence, Renewal, Seat, SeatKey, Standing,
    Terms, Tick, millis,
};
use crate::ids::SiteId;
use crate::museum::Mutant;
use crate::redis_pool::{Connection, RedisPool};

/// How many changes the stream keeps, about: at 1,000 changes a second an instance may be away for a minute and a half
/// before it has to look its seats up again and read the whole line.
const CHANGES_KEPT: u32 = 100_000;
/// How many changes one trip reads.
const PAGE: usize = 1_000;

/// The scripts, each prepared once.
struct Scripts {
    open: redis::Script,
    renew: redis::Script,
    attend: redis::Script,
    close: redis::Script,
    leave: redis::Script,
    look_up: redis::Script,
    admit: redis::Script,
    tick: redis::Script,
    trim: redis::Script,
    switch: redis::Script,
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
            attend: redis::Script::new(ATTEND),
            close: redis::Script::new(CLOSE),
            leave: redis::Script::new(LEAVE),
            look_up: redis::Script::new(LOOK_UP),
            admit: redis::Script::new(ADMIT),
            tick: redis::Script::new(TICK),
            trim: redis::Script::new(TRIM),
            switch: redis::Script::new(SWITCH),
        };
        Self { pool, lease, scripts: Arc::new(scripts) }
    }

    async fn run(&self, script: &redis::ScriptInvocation<'_>) -> Result<Reply, DoorError> {
        let mut connection = self.connection().await?;
        match script.invoke_async(&mut **connection).await {
            Ok(words) => Ok(Reply::new(words)),
            Err(error) => Err(failed(connection, &error)),
        }
    }

    async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, DoorError> {
        let mut connection = self.connection().await?;
        match command.query_async(&mut **connection).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(failed(connection, &error)),
        }
    }

    async fn connection(&self) -> Result<Connection, DoorError> {
        self.pool.connection().await.map_err(|away| DoorError::Away(away.to_string()))
    }

    /// The seeded bug `CapOutsideScript`: counts in one command; the script that grants is told that there is no cap.
    async fn counted_outside(&self, site: SiteId, cap: u16) -> Result<u16, DoorError> {
        let line: Option<String> = self.query(redis::cmd("HGET").arg(keys::SITES).arg(site.as_str())).await?;
        let live = line.map_or(0, |line| line.matches(';').count());
        Ok(if live < usize::from(cap) { u16::MAX } else { 0 })
    }

    /// The seeded bug `CapacityOutsideScript`: how many seats are left, from one command; the script that grants is told of no
    /// capacity.
    async fn left_outside(&self, terms: Terms) -> Result<u32, DoorError> {
        let live: u32 = self.query(redis::cmd("ZCARD").arg(keys::RENEWED)).await?;
        Ok(terms.capacity.saturating_sub(live))
    }

    /// Every field of a hash or member of a sorted set, with its value or score; one that changes meanwhile may come twice.
    async fn scan(&self, command: &str, key: &str) -> Result<Vec<(String, String)>, DoorError> {
        let (mut all, mut cursor) = (Vec::new(), 0_u64);
        loop {
            let (next, page): (u64, Vec<(String, String)>) =
                self.query(redis::cmd(command).arg(key).arg(cursor).arg("COUNT").arg(PAGE)).await?;
            all.extend(page);
            cursor = next;
            if cursor == 0 {
                return Ok(all);
            }
        }
    }

    async fn newest(&self) -> Result<Cursor, DoorError> {
        let newest: Vec<Entry> =
            self.query(redis::cmd("XREVRANGE").arg(keys::CHANGES).arg("+").arg("-").arg("COUNT").arg(1)).await?;
        newest.first().map_or(Ok(Cursor::default()), |(id, _)| cursor(id))
    }

    async fn gap(&self) -> Result<Changes, DoorError> {
        Ok(Changes { changes: Vec::new(), upto: self.newest().await?, gap: true })
    }
}

impl Door for RedisDoor {
    async fn open(&self, opening: Opening, mut terms: Terms) -> Result<Opened, DoorError> {
        let Opening { site, terminal, mut cap, ramped, due_in } = opening;
        if Mutant::CapacityOutsideScript.is_on() {
            terms.capacity = if self.left_outside(terms).await? > 0 { u32::MAX } else { 0 };
        }
        if Mutant::CapOutsideScript.is_on() {
            cap = self.counted_outside(site, cap).await?;
        }
        let mut script = self.scripts.open.prepare_invoke();
        keys::ALL.iter().for_each(|key| {
            script.key(*key);
        });
        script.arg(site.as_str()).arg(terminal.as_str()).arg(cap).arg(millis(self.lease.length));
        script.arg(nonce()?).arg(CHANGES_KEPT).arg(terms.version).arg(terms.mode.name()).arg(terms.capacity);
        script.arg(u8::from(ramped)).arg(millis(due_in));
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
            "WAITING" => {
                let place = Place { key: SeatKey { site, slot: reply.next()? }, terminal, seq: reply.next()? };
                Ok(Opened::Waiting { place, is_new: reply.next::<u8>()? == 1 })
            }
            "FULL" => {
                let now: u64 = reply.next()?;
                let mut holders = Vec::new();
                while !reply.is_at_end() {
                    let (slot, terminal, kind): (_, _, String) = (reply.next()?, reply.next()?, reply.next()?);
                    let (granted, until): (i64, u64) = (reply.next()?, reply.next()?);
                    let granted = u64::try_from(granted).unwrap_or(now);
                    holders.push(Holder {
                        terminal,
                        slot,
                        waiting: kind == "place",
                        held_for: Duration::from_millis(now.saturating_sub(granted)),
                        free_after: Duration::from_millis(until.saturating_sub(now)),
                    });
                }
                Ok(Opened::SiteFull { holders })
            }
            "SHUT" => Ok(Opened::Shut),
            "OTHER" => Ok(Opened::OtherSwitches),
            other => Err(unknown(other)),
        }
    }

    async fn renew(&self, renewals: &[Renewal]) -> Result<Vec<Standing>, DoorError> {
        let mut standings = Vec::with_capacity(renewals.len());
        for batch in renewals.chunks(BATCH) {
            let mut script = self.scripts.renew.prepare_invoke();
            script.key(keys::GATE).key(keys::SITES).key(keys::RENEWED).key(keys::SOLD).arg(batch.len());
            for Renewal { seat, sold_ago } in batch {
                let ago = sold_ago.map_or(-1, |ago| i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
                script.arg(seat.key.site.as_str()).arg(seat.key.slot).arg(seat.terminal.as_str());
                script.arg(seat.fence).arg(ago);
            }
            let mut reply = self.run(&script).await?;
            for _ in batch {
                standings.push(reply.standing()?);
            }
        }
        Ok(standings)
    }

    async fn attend(&self, attending: &[Attending]) -> Result<Vec<Option<Place>>, DoorError> {
        let mut places = Vec::with_capacity(attending.len());
        for batch in attending.chunks(BATCH) {
            let mut script = self.scripts.attend.prepare_invoke();
            script.key(keys::GATE).key(keys::SITES).key(keys::READY).key(keys::HELD);
            script.key(keys::PRESENT).key(keys::ABSENT).key(keys::RENEWED).key(keys::CHANGES);
            script.arg(batch.len()).arg(nonce()?).arg(CHANGES_KEPT);
            for Attending { site, terminal, due_in } in batch {
                script.arg(site.as_str()).arg(terminal.as_str()).arg(millis(*due_in));
            }
            let mut reply = self.run(&script).await?;
            for Attending { site, terminal, .. } in batch {
                let (slot, seq): (i64, i64) = (reply.next()?, reply.next()?);
                places.push(match (u16::try_from(slot), u64::try_from(seq)) {
                    (Ok(slot), Ok(seq)) => Some(Place { key: SeatKey { site: *site, slot }, terminal: *terminal, seq }),
                    _ => None,
                });
            }
        }
        Ok(places)
    }

    async fn close(&self, seat: Seat) -> Result<bool, DoorError> {
        let mut script = self.scripts.close.prepare_invoke();
        script.key(keys::SITES).key(keys::RENEWED).key(keys::SOLD).key(keys::CHANGES);
        script.arg(seat.key.site.as_str()).arg(seat.key.slot).arg(seat.terminal.as_str()).arg(seat.fence);
        script.arg(nonce()?).arg(CHANGES_KEPT);
        self.run(&script).await?.is("CLOSED", "GONE")
    }

    async fn leave(&self, place: Place) -> Result<bool, DoorError> {
        let mut script = self.scripts.leave.prepare_invoke();
        script.key(keys::SITES).key(keys::READY).key(keys::HELD).key(keys::PRESENT).key(keys::ABSENT);
        script.key(keys::RENEWED).key(keys::SOLD).key(keys::CHANGES);
        script.arg(place.key.site.as_str()).arg(place.key.slot).arg(place.terminal.as_str()).arg(place.seq);
        script.arg(nonce()?).arg(CHANGES_KEPT);
        self.run(&script).await?.is("LEFT", "GONE")
    }

    async fn look_up(&self, seat: Seat) -> Result<Standing, DoorError> {
        let mut script = self.scripts.look_up.prepare_invoke();
        script.key(keys::SITES);
        script.arg(seat.key.site.as_str()).arg(seat.key.slot).arg(seat.terminal.as_str()).arg(seat.fence);
        self.run(&script).await?.standing()
    }

    async fn changes(&self, after: Cursor) -> Result<Changes, DoorError> {
        let (mut changes, mut upto) = (Vec::new(), after);
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
                changes.push(change(fields)?);
                upto = next;
            }
            if rest.len() < PAGE {
                return Ok(Changes { changes, upto, gap: false });
            }
        }
    }

    async fn line(&self) -> Result<Vec<InLine>, DoorError> {
        let absent = self.scan("ZSCAN", keys::ABSENT).await?;
        let absent: HashSet<&str> = absent.iter().map(|(member, _)| member.as_str()).collect();
        let mut line = HashMap::new();
        for (site, slots) in self.scan("HSCAN", keys::SITES).await? {
            for text in slots.split(';').skip(1) {
                let bad = || DoorError::Corrupt(format!("a slot reads {text:?}"));
                let is_absent = |slot: &str| absent.contains(format!("{site} {slot}").as_str());
                let (slot, stands) = text.split_once(['=', '~']).ok_or_else(bad)?;
                let stands: Vec<&str> = stands.split(' ').collect();
                let (terminal, seq, presence) = match *stands.as_slice() {
                    [terminal, seq] if is_absent(slot) => (terminal, seq, Presence::Absent),
                    [terminal, seq] => (terminal, seq, Presence::Present),
                    [terminal, fence, _, seq] => {
                        (terminal, seq, Presence::Granted { fence: fence.parse().map_err(|_| bad())? })
                    }
                    [_, _, _] => continue,
                    _ => return Err(bad()),
                };
                let key = SeatKey { site: site.parse().map_err(|_| bad())?, slot: slot.parse().map_err(|_| bad())? };
                let (terminal, seq) = (terminal.parse().map_err(|_| bad())?, seq.parse().map_err(|_| bad())?);
                line.insert(key, InLine { place: Place { key, terminal, seq }, presence });
            }
        }
        Ok(line.into_values().collect())
    }

    async fn admit(&self, mut terms: Terms) -> Result<Admitted, DoorError> {
        let mut most = ADMITTED;
        if Mutant::CapacityOutsideScript.is_on() {
            let left = self.left_outside(terms).await?;
            (terms.capacity, most) = if left > 0 { (u32::MAX, ADMITTED.min(left as usize)) } else { (0, ADMITTED) };
        }
        let highest = match terms.mode {
            Mode::Open => i32::from(u16::MAX),
            Mode::FirstTerminalsOnly => 0,
            Mode::QueueAll | Mode::Drain | Mode::Closed => -1,
        };
        let mut script = self.scripts.admit.prepare_invoke();
        script.key(keys::GATE).key(keys::SITES).key(keys::RENEWED).key(keys::READY);
        script.key(keys::PRESENT).key(keys::ABSENT).key(keys::CHANGES);
        script.arg(millis(self.lease.length)).arg(most).arg(nonce()?).arg(CHANGES_KEPT);
        script.arg(terms.version).arg(highest).arg(terms.capacity);
        let mut reply = self.run(&script).await?;
        let word: String = reply.next()?;
        match word.as_str() {
            "ADMITTED" => Ok(Admitted {
                admitted: reply.next()?,
                more: reply.next::<u8>()? == 1,
                live: reply.next()?,
                other_switches: false,
            }),
            "OTHER" => Ok(Admitted { admitted: 0, more: false, live: reply.next()?, other_switches: true }),
            other => Err(unknown(other)),
        }
    }

    async fn tick(&self, beat: Beat) -> Result<Tick, DoorError> {
        let mut script = self.scripts.tick.prepare_invoke();
        keys::ALL.iter().for_each(|key| {
            script.key(*key);
        });
        script.arg(millis(self.lease.length)).arg(self.lease.step_ms()).arg(BATCH);
        script.arg(nonce()?).arg(CHANGES_KEPT).arg(millis(self.lease.grace)).arg(beat.terms.version);
        script.arg(u8::from(beat.terms.mode == Mode::Closed)).arg(beat.ramp.map_or(-1, i64::from));
        script.arg(if beat.burning { millis(BURNS_FOR) } else { 0 });
        let mut reply = self.run(&script).await?;
        let other_switches = !reply.is("TICKED", "OTHER")?;
        Ok(Tick { expired: reply.next()?, more: reply.next::<u8>()? == 1, other_switches })
    }

    async fn trim(&self, caps: &[(SiteId, u16)], version: u64) -> Result<usize, DoorError> {
        let mut trimmed = 0;
        for batch in caps.chunks(BATCH) {
            let mut script = self.scripts.trim.prepare_invoke();
            keys::ALL.iter().filter(|key| **key != keys::RAMPED).for_each(|key| {
                script.key(*key);
            });
            script.arg(batch.len()).arg(nonce()?).arg(CHANGES_KEPT).arg(version);
            for (site, cap) in batch {
                script.arg(site.as_str()).arg(cap);
            }
            let mut reply = self.run(&script).await?;
            let _ = reply.is("TRIMMED", "OTHER")?;
            trimmed += reply.next::<usize>()?;
        }
        Ok(trimmed)
    }

    async fn live(&self) -> Result<u32, DoorError> {
        self.query(redis::cmd("ZCARD").arg(keys::RENEWED)).await
    }

    async fn occupancy(&self) -> Result<Vec<(SiteId, u16)>, DoorError> {
        let mut taken = HashMap::new();
        for (site, slots) in self.scan("HSCAN", keys::SITES).await? {
            let count = u16::try_from(slots.matches(';').count()).unwrap_or(u16::MAX);
            if count > 0 {
                taken.insert(site.parse().map_err(|_| unknown(&site))?, count);
            }
        }
        Ok(taken.into_iter().collect())
    }

    async fn switches(&self) -> Result<Kept, DoorError> {
        let (version, document): (Option<u64>, Option<String>) =
            self.query(redis::cmd("HMGET").arg(keys::GATE).arg("version").arg("document")).await?;
        Ok(Kept { version: version.unwrap_or(0), document: document.unwrap_or_default() })
    }

    async fn switch(&self, version: u64, document: &str, new_ramp: bool) -> Result<bool, DoorError> {
        let mut script = self.scripts.switch.prepare_invoke();
        script.key(keys::GATE).key(keys::RAMPED).key(keys::CHANGES);
        script.arg(version).arg(document).arg(u8::from(new_ramp)).arg(nonce()?).arg(CHANGES_KEPT);
        self.run(&script).await?.is("SWITCHED", "OTHER")
    }
}

/// The scripts' texts.
const OPEN: &str = include_str!("redis/open.lua");
const RENEW: &str = include_str!("redis/renew.lua");
const ATTEND: &str = include_str!("redis/attend.lua");
const CLOSE: &str = include_str!("redis/close.lua");
const LEAVE: &str = include_str!("redis/leave.lua");
const LOOK_UP: &str = include_str!("redis/look_up.lua");
const ADMIT: &str = include_str!("redis/admit.lua");
const TICK: &str = include_str!("redis/tick.lua");
const TRIM: &str = include_str!("redis/trim.lua");
const SWITCH: &str = include_str!("redis/switch.lua");

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

    /// The next word is one of these two: whether it is the first.
    fn is(&mut self, yes: &str, no: &str) -> Result<bool, DoorError> {
        let word: String = self.next()?;
        match word.as_str() {
            word if word == yes => Ok(true),
            word if word == no => Ok(false),
            other => Err(unknown(other)),
        }
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
fn failed(connection: Connection, error: &RedisError) -> DoorError {
    drop(Connection::take(connection));
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

/// A change as its stream's entry tells it.
fn change(fields: &[String]) -> Result<Change, DoorError> {
    let bad = || DoorError::Corrupt(format!("a change reads {fields:?}"));
    let (pairs, []) = fields.as_chunks::<2>() else { return Err(bad()) };
    let field =
        |name: &str| pairs.iter().find(|[field, _]| field == name).map(|[_, value]| value.as_str()).ok_or_else(bad);
    let number = |name: &str| field(name)?.parse::<u64>().map_err(|_| bad());
    let why = field("why")?;
    if why == "switched" {
        return Ok(Change::Switched);
    }
    let slot = field("slot")?.parse().map_err(|_| bad())?;
    let key = SeatKey { site: field("site")?.parse().map_err(|_| bad())?, slot };
    let terminal = || field("terminal")?.parse().map_err(|_| bad());
    let ended = |why| Ok(Change::Ended(Ended { seat: key, fence: number("fence")?, why }));
    let left = |why| Ok(Change::Left { key, seq: number("seq")?, why });
    match why {
        "replaced" => ended(EndedWhy::Replaced),
        "closed" => ended(EndedWhy::Closed),
        "expired" => ended(EndedWhy::Expired),
        "cap_lowered" => ended(EndedWhy::CapLowered),
        "shut" => ended(EndedWhy::Shut),
        "admitted" => {
            let seat = Seat { key, terminal: terminal()?, fence: number("fence")? };
            Ok(Change::Admitted { seat, seq: number("seq")? })
        }
        "waits" => Ok(Change::Waits(Place { key, terminal: terminal()?, seq: number("seq")? })),
        "moved" => left(LeftWhy::Moved),
        "left" => left(LeftWhy::Closed),
        "forgotten" => left(LeftWhy::Absent),
        "place_cap_lowered" => left(LeftWhy::CapLowered),
        "absent" => Ok(Change::Absent(key)),
        "present" => Ok(Change::Present(key)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a script names exactly what its asserts let in, and declares only keys that exist.
    #[test]
    fn headers_asserts_and_keys_agree() {
        let scripts = [
            ("open.lua", OPEN, 10, Some(11)),
            ("renew.lua", RENEW, 4, None),
            ("attend.lua", ATTEND, 8, None),
            ("close.lua", CLOSE, 4, Some(6)),
            ("leave.lua", LEAVE, 8, Some(6)),
            ("look_up.lua", LOOK_UP, 1, Some(4)),
            ("admit.lua", ADMIT, 7, Some(7)),
            ("tick.lua", TICK, 10, Some(10)),
            ("trim.lua", TRIM, 9, None),
            ("switch.lua", SWITCH, 3, Some(5)),
        ];
        for (name, text, key_count, arguments) in scripts {
            let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("--")).collect();
            assert!(header[0].starts_with(&format!("-- {name}: ")), "{name}");
            let declared: Vec<&str> = header.iter().filter_map(|line| line.strip_prefix("-- KEYS[")).collect();
            assert_eq!(declared.len(), key_count, "{name}");
            for line in declared {
                let key = line.split_whitespace().nth(1).unwrap();
                assert!(keys::ALL.contains(&key), "{name}: {key}");
            }
            assert!(text.contains(&format!("assert(#KEYS == {key_count}, ")), "{name}");
            if let Some(arguments) = arguments {
                assert_eq!(header.iter().filter(|line| line.starts_with("-- ARGV[")).count(), arguments, "{name}");
                assert!(text.contains(&format!("assert(#ARGV == {arguments}, ")), "{name}");
            }
            for part in ["-- Reply:", if name == "look_up.lua" { "changes nothing" } else { "-- Invariant" }] {
                assert!(header.iter().any(|line| line.contains(part)), "{name}: {part}");
            }
        }
    }
}
