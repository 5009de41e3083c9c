//! See [`crate::fuzzing`]: what a server answers.

use redis::Value;

use super::{decode, keys};
use crate::ids::{ProgrammeCode, RequestId};
use crate::ledger::packed;

/// A reply as it travels, and as the one string that a verb answers with.
pub fn replies(bytes: &[u8]) {
    understood(&Value::BulkString(bytes.to_vec()));
    if let Ok(value) = redis::parse_redis_value(bytes) {
        understood(&value);
    }
    if let Some(key) = keys::parse_record(bytes) {
        assert!(keys::record(&key) == bytes, "a key that is written otherwise");
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
