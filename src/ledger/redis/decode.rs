//! From a script's reply to the outcome of the port. Pure. A word that this version does not know, or an entry that it
//! cannot read, is [`LedgerError::Corrupt`]: never a default.

use redis::{FromRedisValue, Value};

use crate::buyer::{Pseudonym, Turn};
use crate::ids::{ProgrammeCode, RequestId};
use crate::ledger::packed;
use crate::ledger::{Answer, Claimed, Confirmed, Entered, Entry, LedgerError, Record, Released, Resolved, Voided};
use crate::time::Timestamp;

use super::keys;

/// What was found instead is not repeated: it may hold keys, and with them pseudonyms.
fn misshapen() -> LedgerError {
    LedgerError::Corrupt("a reply of another shape".into())
}

/// A reply taken apart, before its word is understood.
struct Reply<'a> {
    word: &'a str,
    replayed: bool,
    at: Timestamp,
    record: Record,
}

impl<'a> Reply<'a> {
    /// From the one string that a verb answers with, packed as `>sBI6` with the record behind it.
    fn read(value: &'a Value) -> Result<Self, LedgerError> {
        let Value::BulkString(bytes) = value else { return Err(misshapen()) };
        let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(misshapen)?;
        let (word, rest) = bytes.split_at_checked(end).ok_or_else(misshapen)?;
        let ([_, replayed, at @ ..], record) = rest.split_first_chunk::<8>().ok_or_else(misshapen)?;
        let word = std::str::from_utf8(word).map_err(|_| misshapen())?;
        let replayed = match replayed {
            0 => false,
            1 => true,
            other => return Err(LedgerError::Corrupt(format!("replayed is {other}"))),
        };
        Ok(Self { word, replayed, at: packed::instant(*at), record: unpack(record)? })
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
        Err(match self.word {
            "REQUEST_ID_REUSED" => LedgerError::RequestIdReused,
            "REQUEST_ID_CLOSED" => LedgerError::RequestIdClosed,
            "BUYER_RECORD_FULL" => LedgerError::BuyerRecordFull,
            other => LedgerError::Corrupt(format!("unknown word {other:?}")),
        })
    }
}

fn unpack(record: &[u8]) -> Result<Record, LedgerError> {
    packed::unpack(record).map_err(|error| LedgerError::Corrupt(error.to_string()))
}

/// What a verb answers with, unless its partition is written under a ring that calls of this turn may not write under.
pub(super) fn under(turn: &Turn<Pseudonym>, value: Value) -> Result<Value, LedgerError> {
    // Behind the word stand its end, `replayed` and `at`.
    let other = |bytes: &[u8]| bytes.strip_prefix(b"OTHER_RING\0").and_then(|rest| rest.get(7..)).map(<[u8]>::to_vec);
    match &value {
        Value::BulkString(bytes) => match other(bytes) {
            Some(written) => Err(other_ring(turn, &written)),
            None => Ok(value),
        },
        _ => Ok(value),
    }
}

fn other_ring(turn: &Turn<Pseudonym>, written: &[u8]) -> LedgerError {
    match turn.refuses(&String::from_utf8_lossy(written)) {
        Some(other) => LedgerError::OtherRing(other),
        None => LedgerError::Corrupt("a ring was refused that is none other".into()),
    }
}

/// The reply of `MGET`: the ring of a partition, and a buyer's record under every key that it may stand under. Only under a ring
/// whose keys are all known here is that all there is.
pub(super) fn usage(turn: &Turn<Pseudonym>, value: Value) -> Result<Record, LedgerError> {
    let parts: Vec<Option<Vec<u8>>> = FromRedisValue::from_redis_value(value).map_err(|_| misshapen())?;
    let (written, records) = parts.split_first().ok_or_else(misshapen)?;
    match written {
        Some(written) if !turn.reads(&String::from_utf8_lossy(written)) => Err(other_ring(turn, written)),
        _ => unpack(&records.iter().flatten().flatten().copied().collect::<Vec<u8>>()),
    }
}

/// The reply of `GET`.
pub(super) fn record(value: Value) -> Result<Record, LedgerError> {
    match value {
        Value::Nil => Ok(Record::default()),
        Value::BulkString(bytes) => unpack(&bytes),
        _ => Err(misshapen()),
    }
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
    let parts = FromRedisValue::from_redis_value(value).map_err(|_| misshapen())?;
    let (cursor, mut records): (Vec<u8>, Vec<Vec<u8>>) = parts;
    records.retain(|key| keys::parse_record(key).is_some_and(|(of, _)| of == programme));
    Ok(Scanned { next: (cursor != b"0").then_some(cursor), records })
}

/// The reply of `claim.lua`.
pub(super) fn claimed(request: RequestId, value: Value) -> Result<Answer<Claimed>, LedgerError> {
    let reply = Reply::read(&value)?;
    let outcome = match reply.word {
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
    let reply = Reply::read(&value)?;
    let outcome = match reply.word {
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
    let reply = Reply::read(&value)?;
    let outcome = match reply.word {
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
    let reply = Reply::read(&value)?;
    let outcome = match reply.word {
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
    let reply = Reply::read(&value)?;
    let outcome = match reply.word {
        "SOLD" => Entered::Sold(reply.entry(request)?),
        "ALREADY_RECORDED" => Entered::AlreadyRecorded(reply.entry(request)?),
        "ALREADY_VOIDED" => Entered::AlreadyVoided(reply.entry(request)?),
        _ => reply.error()?,
    };
    Ok(reply.answer(outcome))
}

/// The reply of `resolve.lua`.
pub(super) fn resolved(request: RequestId, value: Value) -> Result<Answer<Resolved>, LedgerError> {
    let reply = Reply::read(&value)?;
    let outcome = match reply.word {
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
    use crate::buyer::{KeyMark, Neighbour, OtherRing, Ring, Side};
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

    fn reply(word: &str, replayed: u8, record: &[u8]) -> Value {
        Value::BulkString([word.as_bytes(), &[0, replayed, 0, 0, 0, 0, 0x03, 0xe8], record].concat())
    }

    fn stored() -> Vec<u8> {
        packed::pack([&entry()])
    }

    fn understands(script: &Script, word: &str) -> bool {
        let value = reply(word, 1, &stored());
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
        let list = |line| ["--   outcomes: ", "--   errors: "].into_iter().find_map(|is| str::strip_prefix(line, is));
        script.source.lines().filter_map(list).flat_map(|words| words.split(' ')).collect()
    }

    #[test]
    fn every_word_of_every_header_is_understood_and_no_other() {
        let all: Vec<&str> = scripts::all().flat_map(words).collect();
        for script in scripts::all().filter(|script| !["identity", "ring", "sweep"].contains(&script.name)) {
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
    fn a_partition_under_another_ring_is_told_and_one_whose_keys_are_known_is_read() {
        let ring = |id| Ring { id, mark: KeyMark::from_bytes([7; 8]) };
        let pseudonym = Pseudonym::from_bytes([2; 16]);
        let neighbour = Neighbour { side: Side::Next, ring: ring(3), makes: pseudonym };
        let turn = Turn { ring: ring(2), neighbour: Some(neighbour) };
        let refused = LedgerError::OtherRing(OtherRing::FarAhead { ours: 2, theirs: 1 });
        let text = |id| ring(id).to_string().into_bytes();
        assert_eq!(under(&turn, reply("OTHER_RING", 0, &text(1))), Err(refused.clone()));
        assert!(under(&turn, reply("RECORDED", 0, &stored())).is_ok());

        let second = Entry { request: RequestId::from_bytes([8; 16]).unwrap(), ..entry() };
        let read = |written: Value| {
            let records = [stored(), packed::pack([&second])].map(Value::BulkString);
            usage(&turn, Value::Array([written].into_iter().chain(records).collect()))
        };
        let both = Ok(Record::new(vec![entry(), second]));
        for written in [Value::Nil, Value::BulkString(text(2)), Value::BulkString(text(3))] {
            assert_eq!(read(written), both);
        }
        assert_eq!(read(Value::BulkString(text(1))), Err(refused));
    }

    #[test]
    fn an_answer_holds_the_entry_the_time_and_the_record() {
        let answer = claimed(request(), reply("RECORDED", 1, &stored())).unwrap();
        assert_eq!(answer.outcome, Claimed::Recorded(entry()));
        assert!(answer.replayed);
        assert_eq!((answer.at, answer.record.entries()), (entry().at, [entry()].as_slice()));
    }

    #[test]
    fn what_cannot_be_read_is_corrupt() {
        let Value::BulkString(good) = reply("RECORDED", 0, &stored()) else { panic!() };
        let short = (0..good.len()).map(|short| Value::BulkString(good.get(..short).unwrap().to_vec()));
        let strange = [
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![]),
            Value::BulkString(b"RECORDED".to_vec()),
            reply("RECORDED", 2, &stored()),
            reply("RECORDED", 0, &[]),
            reply("RECORDED", 0, &[stored(), vec![0]].concat()),
            reply("\u{fffd}", 0, &stored()),
        ];
        for value in strange.into_iter().chain(short) {
            assert!(matches!(claimed(request(), value.clone()), Err(LedgerError::Corrupt(_))), "{value:?}");
        }
        assert!(matches!(record(Value::Int(1)), Err(LedgerError::Corrupt(_))));
        assert_eq!(record(Value::Nil), Ok(Record::default()));
        assert_eq!(record(Value::BulkString(stored())), Ok(Record::new(vec![entry()])));
    }
}
