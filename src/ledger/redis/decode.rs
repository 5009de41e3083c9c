//! From a script's reply to the outcome of the port. Pure. A word that this version does not know, or an entry that it
//! cannot read, is [`LedgerError::Corrupt`]: never a default.

use redis::{FromRedisValue, Value};

use crate::ids::{ProgrammeCode, RequestId};
use crate::ledger::packed;
use crate::ledger::{Answer, Claimed, Confirmed, Entered, Entry, LedgerError, Record, Released, Resolved, Voided};
use crate::time::Timestamp;

use super::keys;

/// The parts of a reply. What was found instead is not repeated: it may hold keys, and with them pseudonyms.
fn read<T: FromRedisValue>(value: Value) -> Result<T, LedgerError> {
    FromRedisValue::from_redis_value(value).map_err(|_| LedgerError::Corrupt("a reply of another shape".into()))
}

/// A reply taken apart, before its word is understood.
struct Reply {
    word: String,
    replayed: bool,
    at: Timestamp,
    record: Record,
}

impl Reply {
    fn read(value: Value) -> Result<Self, LedgerError> {
        let (word, replayed, at, fields): (String, i64, i64, Vec<Vec<u8>>) = read(value)?;
        let replayed = match replayed {
            0 => false,
            1 => true,
            other => return Err(LedgerError::Corrupt(format!("replayed is {other}"))),
        };
        Ok(Self { word, replayed, at: Timestamp::from_millis(at), record: entries(fields)? })
    }

    /// The entry that the call was about.
    fn entry(&self, request: RequestId) -> Result<Entry, LedgerError> {
        self.record
            .find(request)
            .copied()
            .ok_or_else(|| LedgerError::Corrupt(format!("{} without an entry", self.word)))
    }

    fn answer<O>(self, outcome: O) -> Answer<O> {
        Answer { outcome, replayed: self.replayed, at: self.at, record: self.record }
    }

    /// The words that mean an error of the call, under every verb; any other word here is one nobody knows.
    fn error<T>(&self) -> Result<T, LedgerError> {
        Err(match self.word.as_str() {
            "REQUEST_ID_REUSED" => LedgerError::RequestIdReused,
            "REQUEST_ID_CLOSED" => LedgerError::RequestIdClosed,
            "BUYER_RECORD_FULL" => LedgerError::BuyerRecordFull,
            other => LedgerError::Corrupt(format!("unknown word {other:?}")),
        })
    }
}

/// The record in a flat list of names and values, as `HGETALL` gives it.
fn entries(fields: Vec<Vec<u8>>) -> Result<Record, LedgerError> {
    let (pairs, []) = fields.as_chunks::<2>() else {
        return Err(LedgerError::Corrupt("a name without a value".into()));
    };
    pairs
        .iter()
        .map(|[name, value]| packed::unpack(name, value).map_err(|error| LedgerError::Corrupt(error.to_string())))
        .collect::<Result<_, _>>()
        .map(Record::new)
}

/// The reply of `HGETALL`.
pub(super) fn record(value: Value) -> Result<Record, LedgerError> {
    entries(read(value)?)
}

/// One step through the keys.
pub(super) struct Scanned {
    /// Where to go on; `None`: all was seen.
    pub(super) next: Option<Vec<u8>>,
    /// Keys of the programme's records.
    pub(super) records: Vec<Vec<u8>>,
}

/// The reply of `SCAN`.
pub(super) fn scanned(programme: ProgrammeCode, value: Value) -> Result<Scanned, LedgerError> {
    let (cursor, mut records): (Vec<u8>, Vec<Vec<u8>>) = read(value)?;
    records.retain(|key| keys::parse_record(key).is_some_and(|record| record.programme == programme));
    Ok(Scanned { next: (cursor != b"0").then_some(cursor), records })
}

/// The reply of `claim.lua`.
pub(super) fn claimed(request: RequestId, value: Value) -> Result<Answer<Claimed>, LedgerError> {
    let reply = Reply::read(value)?;
    let outcome = match reply.word.as_str() {
        "RECORDED" => Claimed::Recorded(reply.entry(request)?),
        "HELD" => Claimed::Held(reply.entry(request)?),
        "REFUSED" => Claimed::Refused(reply.entry(request)?),
        "RELEASED" => Claimed::Released(reply.entry(request)?),
        "HOLD_EXPIRED" => Claimed::HoldExpired(reply.entry(request)?),
        "VOIDED" => Claimed::Voided(reply.entry(request)?),
        "ASSESS_AGAIN" => Claimed::AssessAgain,
        _ => reply.error()?,
    };
    Ok(reply.answer(outcome))
}

/// The reply of `confirm.lua`.
pub(super) fn confirmed(request: RequestId, value: Value) -> Result<Answer<Confirmed>, LedgerError> {
    let reply = Reply::read(value)?;
    let outcome = match reply.word.as_str() {
        "SOLD" => Confirmed::Sold(reply.entry(request)?),
        "HOLD_EXPIRED" => Confirmed::HoldExpired(reply.entry(request)?),
        "VOIDED" => Confirmed::Voided(reply.entry(request)?),
        "NOT_FOUND" => Confirmed::NotFound,
        "NOT_YOURS" => Confirmed::NotYours,
        _ => reply.error()?,
    };
    Ok(reply.answer(outcome))
}

/// The reply of `release.lua`.
pub(super) fn released(request: RequestId, value: Value) -> Result<Answer<Released>, LedgerError> {
    let reply = Reply::read(value)?;
    let outcome = match reply.word.as_str() {
        "RELEASED" => Released::Released(reply.entry(request)?),
        "ALREADY_SOLD" => Released::AlreadySold(reply.entry(request)?),
        "VOIDED" => Released::Voided(reply.entry(request)?),
        "NOT_FOUND" => Released::NotFound,
        "NOT_YOURS" => Released::NotYours,
        _ => reply.error()?,
    };
    Ok(reply.answer(outcome))
}

/// The reply of `void.lua`.
pub(super) fn voided(request: RequestId, value: Value) -> Result<Answer<Voided>, LedgerError> {
    let reply = Reply::read(value)?;
    let outcome = match reply.word.as_str() {
        "VOIDED" => Voided::Voided(reply.entry(request)?),
        "RELEASED" => Voided::Released(reply.entry(request)?),
        "NOT_FOUND" => Voided::NotFound,
        "NOT_YOURS" => Voided::NotYours,
        _ => reply.error()?,
    };
    Ok(reply.answer(outcome))
}

/// The reply of `late.lua`.
pub(super) fn entered(request: RequestId, value: Value) -> Result<Answer<Entered>, LedgerError> {
    let reply = Reply::read(value)?;
    let outcome = match reply.word.as_str() {
        "SOLD" => Entered::Sold(reply.entry(request)?),
        "ALREADY_RECORDED" => Entered::AlreadyRecorded(reply.entry(request)?),
        "ALREADY_VOIDED" => Entered::AlreadyVoided(reply.entry(request)?),
        _ => reply.error()?,
    };
    Ok(reply.answer(outcome))
}

/// The reply of `resolve.lua`.
pub(super) fn resolved(request: RequestId, value: Value) -> Result<Answer<Resolved>, LedgerError> {
    let reply = Reply::read(value)?;
    let outcome = match reply.word.as_str() {
        "RECORDED" => Resolved::Recorded(reply.entry(request)?),
        "HELD" => Resolved::Held(reply.entry(request)?),
        "RELEASED" => Resolved::Released(reply.entry(request)?),
        "VOIDED" => Resolved::Voided(reply.entry(request)?),
        "REFUSED" => Resolved::Refused(reply.entry(request)?),
        "NOT_RECORDED" => Resolved::NotRecorded,
        "NOT_YOURS" => Resolved::NotYours,
        _ => reply.error()?,
    };
    Ok(reply.answer(outcome))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::redis::scripts::{self, Script};
    use crate::ledger::{Kind, State};

    fn request() -> RequestId {
        RequestId::from_bytes([7; 16]).unwrap()
    }

    fn entry() -> Entry {
        Entry {
            request: request(),
            state: State::Sold,
            kind: Kind::Sale,
            late: false,
            over: false,
            quantity: 2,
            at: Timestamp::from_millis(1_000),
            mark: Timestamp::from_millis(1_000),
            site: "11000001".parse().unwrap(),
        }
    }

    fn text(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn reply(word: &str, replayed: i64, fields: Vec<Value>) -> Value {
        Value::Array(vec![text(word.as_bytes()), Value::Int(replayed), Value::Int(1_000), Value::Array(fields)])
    }

    fn fields() -> Vec<Value> {
        vec![text(&[7; 16]), text(&packed::pack(&entry()))]
    }

    fn understands(script: &Script, word: &str) -> bool {
        let value = reply(word, 1, fields());
        let error = match script.name {
            "claim" => claimed(request(), value).err(),
            "confirm" => confirmed(request(), value).err(),
            "release" => released(request(), value).err(),
            "void" => voided(request(), value).err(),
            "late" => entered(request(), value).err(),
            "resolve" => resolved(request(), value).err(),
            other => panic!("{other} has no words"),
        };
        !matches!(error, Some(LedgerError::Corrupt(_)))
    }

    /// The words in the header of a script, under `outcomes:` and `errors:`.
    fn words(script: &Script) -> Vec<&str> {
        let lists = script.source.lines().filter_map(|line| line.strip_prefix("--   "));
        lists.flat_map(|line| line.split_once(": ").unwrap().1.split(' ')).collect()
    }

    #[test]
    fn every_word_of_every_header_is_understood_and_no_other() {
        let all: Vec<&str> = scripts::all().flat_map(words).collect();
        for script in scripts::all().filter(|script| !["identity", "sweep"].contains(&script.name)) {
            assert!(words(script).len() >= 4, "{}", script.name);
            for word in words(script) {
                assert!(understands(script, word), "{}: {word}", script.name);
                assert!(script.source.contains(&format!("'{word}'")), "{}: never answers {word}", script.name);
            }
            let outcome = |word: &&str| !["REQUEST_ID_REUSED", "REQUEST_ID_CLOSED", "BUYER_RECORD_FULL"].contains(word);
            for word in all.iter().copied().filter(outcome).chain(["", "recorded", "OK"]) {
                assert_eq!(understands(script, word), words(script).contains(&word), "{}: {word}", script.name);
            }
        }
    }

    #[test]
    fn an_answer_holds_the_entry_the_time_and_the_record() {
        let answer = claimed(request(), reply("RECORDED", 1, fields())).unwrap();
        assert_eq!(answer.outcome, Claimed::Recorded(entry()));
        assert!(answer.replayed);
        assert_eq!((answer.at, answer.record.entries()), (entry().at, [entry()].as_slice()));
    }

    #[test]
    fn what_cannot_be_read_is_corrupt() {
        for value in [
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![]),
            reply("RECORDED", 2, fields()),
            reply("RECORDED", 0, vec![]),
            reply("RECORDED", 0, vec![text(&[7; 16])]),
            reply("RECORDED", 0, vec![text(&[7; 16]), text(b"short")]),
        ] {
            assert!(matches!(claimed(request(), value.clone()), Err(LedgerError::Corrupt(_))), "{value:?}");
        }
    }
}
