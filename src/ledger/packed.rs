//! How a record stands in a store: the same bytes in Redis and in redb. A record is its entries, one after the other in
//! any order; nothing stands between them, and an empty record is no bytes.
//!
//! | bytes | of an entry |
//! |---|---|
//! | 16 | the request id |
//! | 1 | how many bytes follow |
//! | 1 | [`State`] |
//! | 1 | flags: 1 hold, 2 late, 4 over |
//! | 4 | quantity |
//! | 6 | `at`, milliseconds since 1970 |
//! | 6 | `mark`, the same |
//! | 1 to 16 | the site's code |
//!
//! Numbers are big-endian: the fixed part is what Lua's `struct` library writes as `>c16BBBI4I6I6`. An entry of a site with
//! a code of eight takes 43 bytes; Redis keeps a string of at most 44 in one piece with its object, which is what keeps a
//! buyer with one entry well within 200 bytes of its memory.

use crate::ids::{RequestId, SiteId};
use crate::time::Timestamp;

use super::{Entry, Kind, Record, State};

/// Bytes of an entry that its length byte counts, but for the site's code.
const FIXED: usize = 18;
/// Bytes of an entry before what its length byte counts.
const HEAD: usize = 17;
/// Bytes of the longest entry, whose site has a code of sixteen.
pub const LONGEST: usize = HEAD + FIXED + 16;
const HOLD: u8 = 1;
const LATE: u8 = 2;
const OVER: u8 = 4;

/// The bytes are not an entry of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored entry cannot be read: {0}")]
pub struct NotAnEntry(&'static str);

/// A record of these entries.
pub fn pack<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        push(&mut bytes, entry);
    }
    bytes
}

/// Puts an entry behind those that are there.
pub fn push(bytes: &mut Vec<u8>, entry: &Entry) {
    let site = entry.site.as_str().as_bytes();
    bytes.reserve(HEAD + FIXED + site.len());
    bytes.extend_from_slice(entry.request.as_bytes());
    // A site's code has at most sixteen bytes.
    bytes.extend(u8::try_from(FIXED + site.len()));
    let hold = if entry.kind == Kind::Hold { HOLD } else { 0 };
    bytes.push(entry.state as u8);
    bytes.push(hold | if entry.late { LATE } else { 0 } | if entry.over { OVER } else { 0 });
    bytes.extend_from_slice(&entry.quantity.to_be_bytes());
    push_instant(bytes, entry.at);
    push_instant(bytes, entry.mark);
    bytes.extend_from_slice(site);
}

/// Six bytes of an instant, as everything that is packed holds it. It must lie between [`Timestamp::EPOCH`] and
/// [`Timestamp::NEVER`].
pub fn push_instant(bytes: &mut Vec<u8>, instant: Timestamp) {
    let [_, _, millis @ ..] = instant.as_millis().to_be_bytes();
    bytes.extend_from_slice(&millis);
}

/// The record in these bytes.
pub fn unpack(mut bytes: &[u8]) -> Result<Record, NotAnEntry> {
    let mut entries = Vec::with_capacity(bytes.len() / (HEAD + FIXED));
    while !bytes.is_empty() {
        let (entry, rest) = split_first(bytes)?;
        entries.push(entry);
        bytes = rest;
    }
    Ok(Record::new(entries))
}

/// The entry that the bytes begin with, and what follows it.
pub fn split_first(bytes: &[u8]) -> Result<(Entry, &[u8]), NotAnEntry> {
    const CUT_SHORT: NotAnEntry = NotAnEntry("it is cut short");
    let (request, rest) = bytes.split_first_chunk::<16>().ok_or(CUT_SHORT)?;
    let (length, rest) = rest.split_first().ok_or(CUT_SHORT)?;
    let (value, rest) = rest.split_at_checked(usize::from(*length)).ok_or(CUT_SHORT)?;
    let (fixed, site) = value.split_first_chunk::<FIXED>().ok_or(CUT_SHORT)?;
    let [state, flags, q0, q1, q2, q3, a0, a1, a2, a3, a4, a5, m0, m1, m2, m3, m4, m5] = *fixed;
    if flags & !(HOLD | LATE | OVER) != 0 {
        return Err(NotAnEntry("it has an unknown flag"));
    }
    let entry = Entry {
        request: RequestId::from_bytes(*request).ok_or(NotAnEntry("it does not begin with a request id"))?,
        state: state_of(state).ok_or(NotAnEntry("its state is unknown"))?,
        kind: if flags & HOLD != 0 { Kind::Hold } else { Kind::Sale },
        late: flags & LATE != 0,
        over: flags & OVER != 0,
        quantity: u32::from_be_bytes([q0, q1, q2, q3]),
        at: instant([a0, a1, a2, a3, a4, a5]),
        mark: instant([m0, m1, m2, m3, m4, m5]),
        site: std::str::from_utf8(site)
            .ok()
            .and_then(|code| code.parse::<SiteId>().ok())
            .ok_or(NotAnEntry("its site is not a site code"))?,
    };
    Ok((entry, rest))
}

/// The instant in six bytes.
pub fn instant([b0, b1, b2, b3, b4, b5]: [u8; 6]) -> Timestamp {
    Timestamp::from_millis(i64::from_be_bytes([0, 0, b0, b1, b2, b3, b4, b5]))
}

fn state_of(number: u8) -> Option<State> {
    [State::Sold, State::Held, State::Released, State::Voided, State::Refused, State::Closed]
        .into_iter()
        .find(|state| *state as u8 == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            request: RequestId::from_bytes([7; 16]).unwrap(),
            state: State::Held,
            kind: Kind::Hold,
            late: false,
            over: true,
            quantity: 70_000,
            at: Timestamp::from_millis(1_583_884_800_123),
            mark: Timestamp::NEVER,
            site: "11000001".parse().unwrap(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let second = Entry { request: RequestId::from_bytes([8; 16]).unwrap(), site: "s".parse().unwrap(), ..entry() };
        let packed = pack([&second, &entry()]);
        assert_eq!(packed.len(), 36 + 43);
        assert_eq!(unpack(&packed), Ok(Record::new(vec![entry(), second])));
        assert_eq!(split_first(&packed), Ok((second, pack([&entry()]).as_slice())));
        assert_eq!((pack([]), unpack(&[])), (Vec::new(), Ok(Record::default())));
    }

    #[test]
    fn the_longest_entry_has_the_longest_site() {
        let packed = pack([&Entry { site: "sixteen-letters1".parse().unwrap(), ..entry() }]);
        assert_eq!(packed.len(), LONGEST);
        assert!(unpack(&packed).is_ok());
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let good = pack([&entry()]);
        for short in 1..good.len() {
            assert!(unpack(good.get(..short).unwrap()).is_err(), "{short} bytes");
        }
        assert!(unpack(&[0; 43]).is_err());
        for (at, wrong) in [(16, 17), (16, 18), (16, 25), (16, 27), (17, 0), (17, 7), (18, 8), (40, b' ')] {
            let mut bad = good.clone();
            *bad.get_mut(at).unwrap() = wrong;
            assert!(unpack(&bad).is_err(), "byte {at} = {wrong}");
        }
    }
}
