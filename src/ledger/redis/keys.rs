//! Every key of the ledger in Redis, with the reasoning.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{7f}:km:` and 16 raw bytes | string | one buyer's record in one programme, see [`packed`](crate::ledger::packed) |
//! | `{7f}:outbox` | stream | the events of every record of that partition, see [`outbox`](crate::ledger::outbox); the newest [`OUTBOX_EVENTS`](crate::ledger::OUTBOX_EVENTS) or one or two hundred more |
//! | `{7f}:ring` | string | the ring of keys under which that partition is written, see [`Ring`](crate::buyer::Ring) |
//! | `rationd:units` | hash | how many units every process has sent, see [`UNITS`] |
//! | `rationd:ledger` | hash | the ledger's identity and terms, see [`LEDGER`] |
//!
//! In a Cluster, where every primary keeps a part of the ledger (a shard):
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{00}:ledger` | hash | what `rationd:ledger` holds elsewhere, and `spread` once the following are written |
//! | `{7f}:ledger` | string | the ledger's id, in every other partition: a shard that comes back empty has lost its own |
//! | `{7f}:units` | hash | what `rationd:units` holds elsewhere, of the shard whose first partition this is |
//!
//! The braces are Redis Cluster's hash tag: only what stands between them chooses the slot, so a record and the outbox
//! that its script writes to share one, and one script can write both. The tag is the buyer's partition as two lower-case
//! hexadecimal digits (256 of them: enough to spread over any cluster, few enough to read every outbox in turn). The
//! partition comes from a key that never rotates, while the pseudonym's key does: a buyer's old and new records share a
//! slot. Nothing here is keyed by site or by programme alone, or one busy programme would sit in one slot.
//!
//! A record is a string that is read and written as a whole, not a hash: with one entry it takes 16 bytes less, and the
//! scripts do not take it apart field by field. It stays small, because only so many entries of a site that no longer
//! count may stand in it and the sweep removes the old ones.
//!
//! The pseudonym stands raw, not in hexadecimal: that is 16 bytes less for every buyer. Records have no TTL: a clock that
//! steps must never delete sales.

use crate::buyer::{BuyerKey, Pseudonym};
use crate::ids::ProgrammeCode;
use crate::ledger::RecordKey;

/// The ledger's identity: a hash with the fields `id` (a hyphenated UUID) and `layout` (a number), and the
/// [`Terms`](crate::ledger::Terms) that it must be opened with ever after: `keys` (the ring of keys that it is written under) and `turned` (since when, once it has turned), `clock` (`real`
/// or `simulated`) and for each code that it has met, such as `programme:km`, what the code stands for.
pub const LEDGER: &str = "rationd:ledger";

/// For every process a number, under a name that it made up when it began, which each of its units of calls raises by one behind
/// everything else (`unit`). Two things hang on it: on a connection that has written nothing, `WAIT` reports a full count for
/// nothing; and a store in which the number of a process is below one that the process has acknowledged has lost what was
/// acknowledged. Nobody else raises it, so such a loss is not covered up by those who do not know of it. A process leaves its
/// number behind, about 40 bytes: the next one compares it with its witness file ([`Witness`](super::Witness)), so no number is ever removed.
pub const UNITS: &str = "rationd:units";

/// The field of the identity that says that every partition of a Cluster was marked.
pub const SPREAD: &str = "spread";

/// The units of a shard of a Cluster. They go with the first partition of the shard wherever that goes, so no number ever falls.
pub fn units_of(first: u8) -> Vec<u8> {
    in_partition(first, b"units")
}

/// The mark of a partition of a Cluster; of the first one, the ledger's identity.
pub fn ledger_of(partition: u8) -> Vec<u8> {
    in_partition(partition, b"ledger")
}

/// How keys, records and events are laid out; another number is another, unreadable, layout.
pub const LAYOUT: u32 = 2;

/// A buyer's record in a programme.
pub fn record(key: &RecordKey) -> Vec<u8> {
    record_of(key.programme, key.buyer)
}

/// Their record under the key beside the current one.
pub fn neighbour(key: &RecordKey) -> Option<Vec<u8>> {
    let partition = key.buyer.partition;
    key.turn.neighbour.map(|beside| record_of(key.programme, BuyerKey { partition, pseudonym: beside.makes }))
}

/// The record of this buyer under one key.
pub fn record_of(programme: ProgrammeCode, buyer: BuyerKey) -> Vec<u8> {
    let mut name = Vec::with_capacity(26);
    name.extend_from_slice(&tag(buyer.partition));
    name.push(b':');
    name.extend_from_slice(programme.as_str().as_bytes());
    name.push(b':');
    name.extend_from_slice(buyer.pseudonym.as_bytes());
    name
}

/// The ring that a partition is written under.
pub fn ring(partition: u8) -> Vec<u8> {
    in_partition(partition, b"ring")
}

/// The stream of recorded events of a partition.
pub fn outbox(partition: u8) -> [u8; 11] {
    let [open, high, low, close] = tag(partition);
    [open, high, low, close, b':', b'o', b'u', b't', b'b', b'o', b'x']
}

fn in_partition(partition: u8, name: &[u8]) -> Vec<u8> {
    [&tag(partition), b":".as_slice(), name].concat()
}

/// The hash tag of a partition: in a Cluster it chooses the slot.
pub fn tag(partition: u8) -> [u8; 4] {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + (value - 10) };
    [b'{', digit(partition >> 4), digit(partition & 0xf), b'}']
}

/// A glob that matches the records of a programme (and, the pseudonym being raw bytes, perhaps more: see
/// [`parse_record`]).
pub fn records_of(programme: ProgrammeCode) -> String {
    format!("{{??}}:{programme}:*")
}

/// Which record a key names; `None` for any other key.
pub fn parse_record(key: &[u8]) -> Option<(ProgrammeCode, BuyerKey)> {
    let (tag, rest) = key.strip_prefix(b"{")?.split_at_checked(2)?;
    let partition = u8::from_str_radix(std::str::from_utf8(tag).ok()?, 16).ok()?;
    let rest = rest.strip_prefix(b"}:")?;
    let colon = rest.iter().position(|byte| *byte == b':')?;
    let (programme, pseudonym) = rest.split_at_checked(colon)?;
    let programme = std::str::from_utf8(programme).ok()?.parse().ok()?;
    let pseudonym = Pseudonym::from_bytes(pseudonym.get(1..)?.try_into().ok()?);
    let buyer = BuyerKey { partition, pseudonym };
    (record_of(programme, buyer) == key).then_some((programme, buyer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buyer::{KeyMark, Ring, Turn};

    fn key(pseudonym: [u8; 16]) -> RecordKey {
        let buyer = BuyerKey { partition: 0x0f, pseudonym: Pseudonym::from_bytes(pseudonym) };
        let turn = Turn::at(Ring { id: 1, mark: KeyMark::from_bytes([7; 8]) });
        RecordKey { programme: "km".parse().unwrap(), buyer, turn }
    }

    #[test]
    fn the_text_of_every_key_is_fixed() {
        assert_eq!(record(&key(*b"0123456789abcdef")), b"{0f}:km:0123456789abcdef");
        assert_eq!(&outbox(0x0f), b"{0f}:outbox");
        assert_eq!(&outbox(0xa9), b"{a9}:outbox");
        assert_eq!(&*ring(0xa9), b"{a9}:ring");
        assert_eq!(records_of("km".parse().unwrap()), "{??}:km:*");
        assert_eq!((&*ledger_of(0), &*units_of(0x7f)), (b"{00}:ledger".as_slice(), b"{7f}:units".as_slice()));
        assert_eq!((LEDGER, UNITS), ("rationd:ledger", "rationd:units"));
        assert_eq!(LAYOUT, 2);
    }

    #[test]
    fn a_record_and_its_outbox_share_a_hash_tag() {
        let tag = |key: &[u8]| key.split(|b| *b == b'}').next().unwrap().to_vec();
        assert_eq!(tag(&record(&key([b'}'; 16]))), tag(&outbox(0x0f)));
    }

    #[test]
    fn only_the_records_own_text_parses() {
        for pseudonym in [*b"0123456789abcdef", [b':'; 16], [0; 16], [0xff; 16]] {
            let RecordKey { programme, buyer, .. } = key(pseudonym);
            assert_eq!(parse_record(&record(&key(pseudonym))), Some((programme, buyer)));
        }
        let short = b"{0f}:km:0123456789abcde".as_slice();
        let capital = b"{0F}:km:0123456789abcdef".as_slice();
        for other in [
            short,
            capital,
            b"{0f}:outbox",
            b"{0f}:ledger",
            b"{0f}:ring",
            b"rationd:ledger",
            b"{0f}:kmask:0123456789abcdef",
            b"",
            b"{",
            b"{0f}:",
        ] {
            assert_eq!(parse_record(other), None, "{other:?}");
        }
    }
}
