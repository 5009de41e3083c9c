//! From a call of the port to the one command that carries it. Pure: a lane may put many of them into one pipeline.

use redis::{Cmd, Pipeline};
use serde_json::Value;

use crate::buyer::{Ring, Turn};
use crate::ids::{LedgerId, ProgrammeCode};
use crate::ledger::{Call, Claim, Entry, Kind, Late, RecordKey, State, Terms, outbox, packed};
use crate::policy::Window;
use crate::time::Timestamp;

use super::keys;
use super::scripts::{self, Script};

/// A script applied to these keys, still without its arguments.
pub(super) fn evalsha(script: &Script, keys: &[&[u8]]) -> Cmd {
    // All of a claim in two windows: 8 arguments, about 240 bytes.
    let mut cmd = Cmd::with_capacity(8, 256);
    cmd.arg("EVALSHA").arg(&script.sha).arg(script.keys).arg(keys);
    cmd
}

/// A verb on a record: its key and outbox, the entry that is asked for, and where the call comes from.
fn on_record(script: &Script, key: &RecordKey, call: &Call, asked: &Entry, stated: &str) -> Cmd {
    let (record, partition) = (keys::record(key), key.buyer.partition);
    let previous = key.turn.previous();
    let left = previous.and_then(|_| keys::neighbour(key));
    let left = left.as_ref().unwrap_or(&record);
    let mut cmd = evalsha(script, &[&record, &keys::outbox(partition), &keys::ring(partition), left]);
    let mut bytes = Vec::with_capacity(packed::LONGEST.max(64 + stated.len()));
    packed::push(&mut bytes, &Entry { at: within(asked.at), mark: within(asked.mark), ..*asked });
    cmd.arg(bytes.as_slice());
    bytes.clear();
    outbox::push_origin(&mut bytes, key.programme, call.terminal, stated);
    cmd.arg(bytes.as_slice()).arg(key.turn.ring.to_string());
    cmd.arg(previous.map(|previous| previous.ring.to_string()).unwrap_or_default());
    cmd
}

/// A call that puts its id out of use where it is not known.
fn closing(script: &Script, key: &RecordKey, call: &Call) -> Cmd {
    let closed = Entry {
        request: call.request,
        state: State::Closed,
        kind: Kind::Sale,
        late: false,
        over: false,
        quantity: 0,
        at: call.now,
        mark: call.now,
        site: call.site,
    };
    on_record(script, key, call, &closed, "")
}

/// `claim.lua`
pub(super) fn claim(key: &RecordKey, call: &Call, claim: &Claim) -> Cmd {
    let granted = Entry {
        request: call.request,
        state: if claim.hold_for.is_some() { State::Held } else { State::Sold },
        kind: claim.kind(),
        late: false,
        over: false,
        quantity: claim.quantity,
        at: call.now,
        mark: claim.hold_for.map_or(call.now, |span| call.now.plus(span)),
        site: call.site,
    };
    let mut windows = Vec::with_capacity(6 + claim.windows.len() * WINDOW);
    packed::push_instant(&mut windows, within(claim.good_until));
    push_windows(&mut windows, &claim.windows);
    let mut cmd = on_record(scripts::claim(), key, call, &granted, &claim.stated);
    cmd.arg(windows);
    cmd
}

/// `confirm.lua`
pub(super) fn confirm(key: &RecordKey, call: &Call) -> Cmd {
    closing(scripts::confirm(), key, call)
}

/// `release.lua`
pub(super) fn release(key: &RecordKey, call: &Call) -> Cmd {
    closing(scripts::release(), key, call)
}

/// `void.lua`
pub(super) fn void(key: &RecordKey, call: &Call) -> Cmd {
    closing(scripts::void(), key, call)
}

/// `late.lua`
pub(super) fn late(key: &RecordKey, call: &Call, late: &Late) -> Cmd {
    let sold = Entry {
        request: call.request,
        state: State::Sold,
        kind: Kind::Sale,
        late: true,
        over: false,
        quantity: late.quantity,
        at: late.sold_at,
        mark: call.now,
        site: call.site,
    };
    let mut windows = Vec::with_capacity(late.windows.len() * WINDOW);
    push_windows(&mut windows, &late.windows);
    let mut cmd = on_record(scripts::late(), key, call, &sold, &late.stated);
    cmd.arg(windows);
    cmd
}

/// `resolve.lua`
pub(super) fn resolve(key: &RecordKey, call: &Call) -> Cmd {
    closing(scripts::resolve(), key, call)
}

/// `identity.lua` on this key: this id if the ledger has none, and the terms that it must have or gets.
pub(super) fn identity(key: &[u8], id: LedgerId, terms: &Terms) -> Cmd {
    let flat = |pairs: Vec<(String, String)>| Value::from_iter(pairs.into_iter().flat_map(|(name, text)| [name, text]));
    let at_birth = terms.at_birth().map(|(name, text)| (name.to_owned(), text));
    let programmes = terms.of_programmes().map(|(name, text)| (name, text.to_owned()));
    // What `keys` may stand at besides, and whether it moves on from there.
    let also = |ring: Ring, moves: bool| [(ring.to_string(), moves), (ring.mark.to_string(), moves)];
    let previous = terms.turn.previous().map(|previous| also(previous.ring, true));
    let accepted = also(terms.turn.ring, false).into_iter().chain(previous.into_iter().flatten());
    let accepted = Value::from_iter(accepted.map(|(text, moves)| (text, Value::from(moves))));
    let mut cmd = evalsha(scripts::identity(), &[key]);
    cmd.arg(id.to_string())
        .arg(keys::LAYOUT)
        .arg(flat(at_birth.into()).to_string())
        .arg(flat(programmes.collect()).to_string())
        .arg(accepted.to_string())
        .arg(terms.kept.now.to_string());
    cmd
}

/// `sweep.lua`
pub(super) fn sweep(record: &[u8], before: Timestamp) -> Cmd {
    let mut cmd = evalsha(scripts::sweep(), &[record]);
    cmd.arg(within(before).as_millis());
    cmd
}

/// `ring.lua`
pub(super) fn ring(partition: u8, turn: &Turn) -> Cmd {
    let mut cmd = evalsha(scripts::ring(), &[&keys::ring(partition)]);
    cmd.arg(turn.ring.to_string());
    cmd.arg(turn.previous().map(|previous| previous.ring.to_string()).unwrap_or_default());
    cmd
}

/// The whole record, read only, with the ring that its partition is written under; that of the key beside the current one too.
pub(super) fn usage(key: &RecordKey) -> Cmd {
    let mut cmd = redis::cmd("MGET");
    cmd.arg(keys::ring(key.buyer.partition)).arg(keys::record(key)).arg(keys::neighbour(key));
    cmd
}

/// One record as it stands under one key.
pub(super) fn get(record: &[u8]) -> Cmd {
    let mut cmd = redis::cmd("GET");
    cmd.arg(record);
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

/// Bytes of a packed window.
const WINDOW: usize = 22;

/// Windows as `>I6I6I5I5` each: a year of them still fits into one argument.
fn push_windows(bytes: &mut Vec<u8>, windows: &[Window]) {
    for window in windows {
        packed::push_instant(bytes, within(window.from));
        packed::push_instant(bytes, within(window.until));
        for limit in [window.max_units, window.max_purchases] {
            let [_, _, _, most @ ..] = limit.map_or(NO_LIMIT, u64::from).to_be_bytes();
            bytes.extend_from_slice(&most);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::buyer::{BuyerKey, KeyMark, Neighbour, Pseudonym, Side};
    use crate::ids::RequestId;
    use crate::ledger::Kept;

    fn key() -> RecordKey {
        let buyer = BuyerKey { partition: 0xa0, pseudonym: Pseudonym::from_bytes([1; 16]) };
        RecordKey { programme: "km".parse().unwrap(), buyer, turn: Turn::at(ring(1)) }
    }

    fn ring(id: u32) -> Ring {
        Ring { id, mark: KeyMark::from_bytes([7; 8]) }
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
        let kept = Kept { now: call().now, length: Duration::ZERO };
        let terms = Terms { turn: Turn::at(ring(1)), kept, simulated_clock: false, programmes: Vec::new() };
        for (script, command) in [
            (scripts::identity(), identity(b"rationd:ledger", LedgerId::random(), &terms)),
            (scripts::claim(), claim(&key(), &call(), &sale())),
            (scripts::confirm(), confirm(&key(), &call())),
            (scripts::release(), release(&key(), &call())),
            (scripts::void(), void(&key(), &call())),
            (scripts::late(), late(&key(), &call(), &entry)),
            (scripts::resolve(), resolve(&key(), &call())),
            (scripts::ring(), super::ring(0xa0, &Turn::at(ring(1)))),
            (scripts::sweep(), sweep(b"{a0}:km:", call().now)),
        ] {
            let Script { name, sha, keys, arguments, .. } = script;
            assert_eq!(argument(&command, 1), sha.as_bytes(), "{name}");
            assert_eq!(argument(&command, 2), keys.to_string().as_bytes(), "{name}");
            assert_eq!(command.args_iter().count(), 3 + keys + arguments, "{name}");
        }
    }

    #[test]
    fn a_claim_asks_for_the_entry_as_it_is_to_stand() {
        let granted = |claim: Claim| packed::unpack(&argument(&super::claim(&key(), &call(), &claim), 7)).unwrap();
        let sold = granted(sale()).entries().first().copied().unwrap();
        assert_eq!((sold.request, sold.state, sold.kind), (call().request, State::Sold, Kind::Sale));
        assert_eq!((sold.quantity, sold.at, sold.mark, sold.site), (2, call().now, call().now, call().site));
        for (span, until) in [(Duration::ZERO, call().now), (Duration::MAX, Timestamp::NEVER)] {
            let held = granted(Claim { hold_for: Some(span), ..sale() }).entries().first().copied().unwrap();
            assert_eq!((held.state, held.kind, held.at, held.mark), (State::Held, Kind::Hold, call().now, until));
        }
    }

    #[test]
    fn instants_stay_within_what_an_entry_holds() {
        for (now, stands) in [(-5, Timestamp::EPOCH), (i64::MAX, Timestamp::NEVER)] {
            let call = Call { now: Timestamp::from_millis(now), ..call() };
            let asked = packed::unpack(&argument(&resolve(&key(), &call), 7)).unwrap();
            assert_eq!(asked.entries().first().map(|e| (e.state, e.at, e.mark)), Some((State::Closed, stands, stands)));
        }
    }

    #[test]
    fn the_origin_is_the_programme_the_terminal_and_what_was_stated() {
        assert_eq!(argument(&claim(&key(), &call(), &sale()), 8), b"km w1 papers=none");
        assert_eq!(argument(&void(&key(), &call()), 8), b"km w1 ");
    }

    #[test]
    fn the_record_under_the_previous_key_goes_along_while_the_ring_turns() {
        let beside = |side| {
            let neighbour = Neighbour { side, ring: ring(2), makes: Pseudonym::from_bytes([2; 16]) };
            RecordKey { turn: Turn { ring: ring(1), neighbour: Some(neighbour) }, ..key() }
        };
        for (key, names, left) in [
            (key(), b"{a0}:km:\x01\x01", ""),
            (beside(Side::Next), b"{a0}:km:\x01\x01", ""),
            (beside(Side::Previous), b"{a0}:km:\x02\x02", "2 0707070707070707"),
        ] {
            let command = void(&key, &call());
            assert_eq!(argument(&command, 5), b"{a0}:ring");
            assert!(argument(&command, 6).starts_with(names), "{left}");
            assert_eq!(argument(&command, 9), b"1 0707070707070707");
            assert_eq!(argument(&command, 10), left.as_bytes());
        }
        assert_eq!([key(), beside(Side::Next)].map(|key| usage(&key).args_iter().count()), [3, 4]);
    }

    #[test]
    fn a_window_is_packed_in_22_bytes_behind_good_until() {
        let expected = [[0xffu8; 6].as_slice(), &[0; 6], &[0xff; 6], &[0, 0, 0, 0, 3], &[0xff; 5]].concat();
        assert_eq!(argument(&claim(&key(), &call(), &sale()), 11), expected);
    }
}
