//! From a call of the port to the one command that carries it. Pure: a lane may put many of them into one pipeline.

use redis::{Cmd, Pipeline};
use serde_json::Value;

use crate::ids::{LedgerId, ProgrammeCode};
use crate::ledger::{Call, Claim, Late, RecordKey, Terms};
use crate::policy::Window;
use crate::time::Timestamp;

use super::keys;
use super::scripts::{self, Script};

/// A script applied to these keys, still without its arguments.
pub(super) fn evalsha(script: &Script, keys: &[&[u8]]) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(&script.sha).arg(script.keys).arg(keys);
    cmd
}

/// A verb on a record: its key and outbox, and the arguments that every verb begins with.
fn on_record(script: &Script, key: &RecordKey, call: &Call) -> Cmd {
    let record = keys::record(key);
    let outbox = keys::outbox(key.buyer.partition);
    let mut cmd = evalsha(script, &[&record, outbox.as_bytes()]);
    cmd.arg(call.request.as_bytes().as_slice())
        .arg(call.request.to_string())
        .arg(call.site.as_str())
        .arg(call.terminal.as_str())
        .arg(key.programme.as_str())
        .arg(call.now.as_millis());
    cmd
}

/// `claim.lua`
pub(super) fn claim(key: &RecordKey, call: &Call, claim: &Claim) -> Cmd {
    let hold_for = claim.hold_for.map_or(-1, |span| Timestamp::EPOCH.plus(span).as_millis());
    let mut cmd = on_record(scripts::claim(), key, call);
    cmd.arg(claim.quantity)
        .arg(hold_for)
        .arg(within(claim.good_until).as_millis())
        .arg(windows(&claim.windows))
        .arg(&claim.stated);
    cmd
}

/// `confirm.lua`
pub(super) fn confirm(key: &RecordKey, call: &Call) -> Cmd {
    on_record(scripts::confirm(), key, call)
}

/// `release.lua`
pub(super) fn release(key: &RecordKey, call: &Call) -> Cmd {
    on_record(scripts::release(), key, call)
}

/// `void.lua`
pub(super) fn void(key: &RecordKey, call: &Call) -> Cmd {
    on_record(scripts::void(), key, call)
}

/// `late.lua`
pub(super) fn late(key: &RecordKey, call: &Call, late: &Late) -> Cmd {
    let mut cmd = on_record(scripts::late(), key, call);
    cmd.arg(late.quantity).arg(late.sold_at.as_millis()).arg(windows(&late.windows)).arg(&late.stated);
    cmd
}

/// `resolve.lua`
pub(super) fn resolve(key: &RecordKey, call: &Call) -> Cmd {
    on_record(scripts::resolve(), key, call)
}

/// `identity.lua`: this id if the ledger has none, and the terms that it must have or gets.
pub(super) fn identity(id: LedgerId, terms: &Terms) -> Cmd {
    let flat = |pairs: Vec<(String, String)>| Value::from_iter(pairs.into_iter().flat_map(|(name, text)| [name, text]));
    let at_birth = terms.at_birth().map(|(name, text)| (name.to_owned(), text));
    let programmes = terms.of_programmes().map(|(name, text)| (name, text.to_owned()));
    let mut cmd = evalsha(scripts::identity(), &[keys::LEDGER.as_bytes()]);
    cmd.arg(id.to_string())
        .arg(keys::LAYOUT)
        .arg(flat(at_birth.into()).to_string())
        .arg(flat(programmes.collect()).to_string());
    cmd
}

/// `sweep.lua`
pub(super) fn sweep(record: &[u8], before: Timestamp) -> Cmd {
    let mut cmd = evalsha(scripts::sweep(), &[record]);
    cmd.arg(within(before).as_millis());
    cmd
}

/// The whole record, read only.
pub(super) fn usage(key: &RecordKey) -> Cmd {
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(keys::record(key));
    cmd
}

/// A step through the keys of a programme's records, from a cursor that an earlier step gave (`None` at first).
pub(super) fn scan(programme: ProgrammeCode, from: Option<&[u8]>, count: usize) -> Cmd {
    let mut cmd = redis::cmd("SCAN");
    cmd.arg(from.unwrap_or(b"0")).arg("MATCH").arg(keys::records_of(programme)).arg("COUNT").arg(count);
    cmd
}

/// A pipeline that begins by loading a script.
pub(super) fn load(script: &Script) -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("SCRIPT").arg("LOAD").arg(script.source.as_ref()).ignore();
    pipeline
}

/// What stands for "no limit" in five bytes: more than any quantity.
const NO_LIMIT: u64 = (1 << 40) - 1;

/// No entry lies outside these instants, so a boundary beyond them means the same as one on them.
fn within(instant: Timestamp) -> Timestamp {
    instant.clamp(Timestamp::EPOCH, Timestamp::NEVER)
}

/// Windows as `>I6I6I5I5` each: a year of them still fits into one argument.
fn windows(windows: &[Window]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(windows.len() * 22);
    for window in windows {
        for instant in [window.from, window.until] {
            let [_, _, millis @ ..] = within(instant).as_millis().to_be_bytes();
            packed.extend_from_slice(&millis);
        }
        for limit in [window.max_units, window.max_purchases] {
            let [_, _, _, most @ ..] = limit.map_or(NO_LIMIT, u64::from).to_be_bytes();
            packed.extend_from_slice(&most);
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::buyer::{BuyerKey, KeyMark, Pseudonym};
    use crate::ids::RequestId;

    fn key() -> RecordKey {
        let buyer = BuyerKey { partition: 0xa0, pseudonym: Pseudonym::from_bytes([1; 16]) };
        RecordKey { programme: "km".parse().unwrap(), buyer }
    }

    fn call() -> Call {
        Call {
            request: RequestId::from_bytes([7; 16]).unwrap(),
            site: "11000001".parse().unwrap(),
            terminal: "w1".parse().unwrap(),
            now: Timestamp::from_millis(1_583_884_800_123),
        }
    }

    fn sale() -> Claim {
        Claim {
            quantity: 2,
            hold_for: None,
            windows: [Window {
                from: Timestamp::from_millis(-5),
                until: Timestamp::NEVER,
                max_units: Some(3),
                max_purchases: None,
            }]
            .into_iter()
            .collect(),
            good_until: Timestamp::from_millis(i64::MAX),
            stated: "papers=none".into(),
        }
    }

    fn argument(command: &Cmd, index: usize) -> Vec<u8> {
        match command.args_iter().nth(index) {
            Some(redis::Arg::Simple(bytes)) => bytes.to_vec(),
            _ => panic!("no argument {index}"),
        }
    }

    #[test]
    fn a_command_has_as_many_keys_and_arguments_as_its_script_takes() {
        let entry = Late { quantity: 1, sold_at: call().now, windows: Vec::new(), stated: String::new() };
        let terms = Terms { keys: KeyMark::from_bytes([7; 8]), simulated_clock: false, programmes: Vec::new() };
        for (script, command) in [
            (scripts::identity(), identity(LedgerId::random(), &terms)),
            (scripts::claim(), claim(&key(), &call(), &sale())),
            (scripts::confirm(), confirm(&key(), &call())),
            (scripts::release(), release(&key(), &call())),
            (scripts::void(), void(&key(), &call())),
            (scripts::late(), late(&key(), &call(), &entry)),
            (scripts::resolve(), resolve(&key(), &call())),
            (scripts::sweep(), sweep(b"{a0}:km:", call().now)),
        ] {
            let Script { name, sha, keys, arguments, .. } = script;
            assert_eq!(argument(&command, 1), sha.as_bytes(), "{name}");
            assert_eq!(argument(&command, 2), keys.to_string().as_bytes(), "{name}");
            assert_eq!(command.args_iter().count(), 3 + keys + arguments, "{name}");
        }
    }

    #[test]
    fn a_sale_and_a_hold_are_told_apart_and_instants_stay_within_what_an_entry_holds() {
        let command = claim(&key(), &call(), &sale());
        assert_eq!(argument(&command, 12), b"-1");
        assert_eq!(argument(&command, 13), ((1i64 << 48) - 1).to_string().as_bytes());
        let hold = Claim { hold_for: Some(Duration::from_millis(0)), ..sale() };
        assert_eq!(argument(&claim(&key(), &call(), &hold), 12), b"0");
    }

    #[test]
    fn a_window_is_packed_in_22_bytes() {
        let expected = [[0u8; 6].as_slice(), &[0xff; 6], &[0, 0, 0, 0, 3], &[0xff; 5]].concat();
        assert_eq!(argument(&claim(&key(), &call(), &sale()), 14), expected);
    }
}
