//! An event as it stands in the stream of its partition: one field, named by the event's kind. Its value is the packed
//! entry as it stood then (see [`packed`]), and behind it its origin: the programme's code, the terminal whose call did it
//! and what was stated, a space between them (and a space at the end where nothing was stated).
//!
//! One field and not nine: that halves what Redis spends on an event, and the entry is the one that the record holds, so a
//! script need not write it a second time in another form.

use crate::ids::{ProgrammeCode, TerminalId};
use crate::ledger::{Event, EventKind, LedgerError, packed};

/// What an event of the outbox tells. It names no buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What happened, and the entry as it then stood.
    pub event: Event,
    /// The programme's code.
    pub programme: ProgrammeCode,
    /// The terminal whose call did it.
    pub terminal: TerminalId,
    /// What the seller stated; empty but for `sold`, `held` and `late`.
    pub stated: String,
}

/// An event from the one field of a message.
pub fn read(kind: &[u8], value: &[u8]) -> Result<Told, LedgerError> {
    let corrupt = |what: &str| LedgerError::Corrupt(format!("an event cannot be read: {what}"));
    let kind = KINDS.into_iter().find(|known| known.name().as_bytes() == kind).ok_or_else(|| corrupt("its kind"))?;
    let (entry, origin) = packed::split_first(value).map_err(|error| corrupt(&error.to_string()))?;
    let origin = std::str::from_utf8(origin).map_err(|_| corrupt("its origin is not text"))?;
    let mut words = origin.splitn(3, ' ');
    Ok(Told {
        event: Event { kind, entry },
        programme: words.next().and_then(|code| code.parse().ok()).ok_or_else(|| corrupt("its programme"))?,
        terminal: words.next().and_then(|name| name.parse().ok()).ok_or_else(|| corrupt("its terminal"))?,
        stated: words.next().ok_or_else(|| corrupt("what was stated"))?.to_owned(),
    })
}

/// Puts the origin of an event behind what is there.
pub(super) fn push_origin(bytes: &mut Vec<u8>, programme: ProgrammeCode, terminal: TerminalId, stated: &str) {
    bytes.extend_from_slice(programme.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(terminal.as_str().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(stated.as_bytes());
}

const KINDS: [EventKind; 6] =
    [EventKind::Sold, EventKind::Held, EventKind::Confirmed, EventKind::Released, EventKind::Voided, EventKind::Late];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RequestId;
    use crate::ledger::{Entry, Kind, State};
    use crate::time::Timestamp;

    fn told(stated: &str) -> Told {
        let entry = Entry {
            request: RequestId::from_bytes([7; 16]).unwrap(),
            state: State::Held,
            kind: Kind::Hold,
            late: false,
            over: false,
            quantity: 2,
            at: Timestamp::from_millis(1_000),
            mark: Timestamp::from_millis(601_000),
            site: "11000001".parse().unwrap(),
        };
        Told {
            event: Event { kind: EventKind::Held, entry },
            programme: "km".parse().unwrap(),
            terminal: "w1".parse().unwrap(),
            stated: stated.to_owned(),
        }
    }

    fn write(told: &Told) -> Vec<u8> {
        let mut value = packed::pack([&told.event.entry]);
        push_origin(&mut value, told.programme, told.terminal, &told.stated);
        value
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        for stated in ["", "same_household", "same_household resident_register", " two  spaces "] {
            assert_eq!(read(b"held", &write(&told(stated))), Ok(told(stated)));
        }
        assert!(write(&told("family")).ends_with(b"11000001km w1 family"));
    }

    #[test]
    fn every_kind_is_known_by_its_name() {
        for kind in KINDS {
            let found = read(kind.name().as_bytes(), &write(&told(""))).unwrap().event.kind;
            assert_eq!(found, kind);
        }
    }

    #[test]
    fn what_is_no_event_is_corrupt() {
        let good = write(&told(""));
        assert!(matches!(read(b"bought", &good), Err(LedgerError::Corrupt(_))));
        for short in 0..good.len() {
            assert!(matches!(read(b"held", good.get(..short).unwrap()), Err(LedgerError::Corrupt(_))), "{short}");
        }
        let mut bad = good;
        bad.push(0xff);
        assert!(matches!(read(b"held", &bad), Err(LedgerError::Corrupt(_))));
    }
}
