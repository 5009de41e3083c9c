//! See [`crate::fuzzing`]: what a server answers, and what an earlier process has left.

use std::path::Path;

use redis::Value;

use super::witness::Remembered;
use super::{decode, keys};
use crate::ids::{ProgrammeCode, RequestId};
use crate::ledger::packed;

/// A reply as it travels, and as the one string that a verb answers with.
pub fn replies(bytes: &[u8]) {
    understood(&Value::BulkString(bytes.to_vec()));
    if let Ok(value) = redis::parse_redis_value(bytes) {
        understood(&value);
    }
    if let Some((programme, buyer)) = keys::parse_record(bytes) {
        assert!(keys::record_of(programme, buyer) == bytes, "a key that is written otherwise");
    }
}

/// A witness file: what was read is the same when it is read again as it is written, and what was not says what to do.
pub fn witness(bytes: &[u8]) {
    let read = |bytes: &[u8]| Remembered::parse(Path::new("witness.json"), bytes);
    match read(bytes) {
        Ok(remembered) => {
            let written = remembered.to_string();
            assert!(read(written.as_bytes()).is_ok_and(|again| again == remembered), "{written}");
        }
        Err(bad) => assert!(bad.to_string().starts_with("witness.json "), "{bad}"),
    }
}

fn understood(value: &Value) {
    let Some(request) = RequestId::from_bytes([7; 16]) else { return };
    let value = || value.clone();
    if let Ok(record) = decode::record(value()) {
        let written = packed::pack(record.entries());
        assert!(packed::unpack(&written).is_ok_and(|again| again == record), "a record that is read otherwise again");
    }
    let _ = decode::claimed(request, value());
    let _ = decode::confirmed(request, value());
    let _ = decode::released(request, value());
    let _ = decode::voided(request, value());
    let _ = decode::entered(request, value());
    let _ = decode::resolved(request, value());
    if let Ok(programme) = "km".parse::<ProgrammeCode>() {
        let _ = decode::scanned(programme, value());
    }
}
