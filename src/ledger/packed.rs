//! How an entry stands in a store: the same bytes in Redis and in redb.
//!
//! | part | bytes | holds |
//! |---|---|---|
//! | name | 16 | the request id |
//! | value | 1 | [`State`] |
//! | | 1 | flags: 1 hold, 2 late, 4 over |
//! | | 4 | quantity |
//! | | 6 | `at`, milliseconds since 1970 |
//! | | 6 | `mark`, the same |
//! | | 1 to 16 | the site's code |
//!
//! Numbers are big-endian, which Lua's `struct` library writes as `>BBI4I6I6`. A value of 26 bytes (a site code of eight)
//! and its name keep a buyer with one entry within 200 bytes of Redis memory.

use crate::ids::{RequestId, SiteId};
use crate::time::Timestamp;

use super::{Entry, Kind, State};

/// Bytes before the site's code.
const FIXED: usize = 18;
const HOLD: u8 = 1;
const LATE: u8 = 2;
const OVER: u8 = 4;

/// The bytes are not an entry of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored entry cannot be read: {0}")]
pub struct NotAnEntry(&'static str);

/// The value under which an entry is stored; its name is the request id.
pub fn pack(entry: &Entry) -> Vec<u8> {
    let mut value = Vec::with_capacity(FIXED + entry.site.as_str().len());
    let hold = if entry.kind == Kind::Hold { HOLD } else { 0 };
    value.push(entry.state as u8);
    value.push(hold | if entry.late { LATE } else { 0 } | if entry.over { OVER } else { 0 });
    value.extend_from_slice(&entry.quantity.to_be_bytes());
    for instant in [entry.at, entry.mark] {
        let [_, _, millis @ ..] = instant.as_millis().to_be_bytes();
        value.extend_from_slice(&millis);
    }
    value.extend_from_slice(entry.site.as_str().as_bytes());
    value
}

/// An entry from its name and value.
pub fn unpack(name: &[u8], value: &[u8]) -> Result<Entry, NotAnEntry> {
    let request =
        name.try_into().ok().and_then(RequestId::from_bytes).ok_or(NotAnEntry("its name is not a request id"))?;
    let (fixed, site) = value.split_first_chunk::<FIXED>().ok_or(NotAnEntry("it is too short"))?;
    let [state, flags, q0, q1, q2, q3, a0, a1, a2, a3, a4, a5, m0, m1, m2, m3, m4, m5] = *fixed;
    if flags & !(HOLD | LATE | OVER) != 0 {
        return Err(NotAnEntry("it has an unknown flag"));
    }
    let instant = |bytes: [u8; 6]| {
        let [b0, b1, b2, b3, b4, b5] = bytes;
        Timestamp::from_millis(i64::from_be_bytes([0, 0, b0, b1, b2, b3, b4, b5]))
    };
    Ok(Entry {
        request,
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
    })
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
    fn an_entry_comes_back_as_it_was() {
        let packed = pack(&entry());
        assert_eq!(packed.len(), 26);
        assert_eq!(unpack(&[7; 16], &packed), Ok(entry()));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let good = pack(&entry());
        assert!(unpack(&[7; 15], &good).is_err());
        assert!(unpack(&[7; 16], good.get(..18).unwrap()).is_err());
        for (at, wrong) in [(0, 0), (0, 7), (1, 8), (20, b' ')] {
            let mut bad = good.clone();
            *bad.get_mut(at).unwrap() = wrong;
            assert!(unpack(&[7; 16], &bad).is_err(), "byte {at} = {wrong}");
        }
    }
}
