//! The outbox: what happened to purchases, for whoever follows it. Every event is written in the same step as the entry that it
//! tells of, in the order of its partition; there are 256 of them, and no order between two. It names no buyer.
//!
//! An event stands in both stores alike: named by its kind, and its value is the packed entry as it stood then (see [`packed`]),
//! and behind it its origin: the programme's code, the terminal whose call did it and what was stated, a space between them (and a
//! space at the end where nothing was stated). The entry is the one that the record holds, so that a script need not write it a
//! second time in another form.
//!
//! The oldest events go (see [`OUTBOX_EVENTS`](super::OUTBOX_EVENTS)), however slow or dead a reader is: it is told so.
//!
//! Knows nothing about levels of stock, or about who reads.

use std::fmt;
use std::future::Future;

use crate::ids::{LedgerId, ProgrammeCode, TerminalId};

use super::{Event, EventKind, LedgerError, packed};

/// How many partitions there are.
pub const PARTITIONS: usize = 256;

/// What an event tells.
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

/// Where an event stands in its partition: no other event ever has this place. What the numbers are is the store's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In Redis milliseconds since 1970 by its clock, in the embedded store of the request id.
    pub high: u64,
    /// Counted within the partition, or in Redis within the millisecond.
    pub low: u64,
}

impl Place {
    /// Before the oldest event that is kept, whichever that is.
    pub const BEGINNING: Self = Self { high: 0, low: 0 };
    /// Where a reader stands that has found nothing: before the first event that there will be.
    pub const FIRST: Self = Self { high: 0, low: u64::MAX };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.high, self.low)
    }
}

/// What stands after a place of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// The next events, each with its place, oldest first; as many as were asked for, or all that there are.
    Events(Vec<(Place, Told)>),
    /// The event of this place is gone, and so may be some that followed it.
    Gone,
}

impl After {
    /// See [`following`].
    pub(super) fn of(place: Place, events: Vec<(Place, Told)>, is_whole: bool, most: usize) -> Self {
        following(place, events, is_whole, most).map_or(Self::Gone, Self::Events)
    }
}

/// At most so many of what was read from `place` on, that which stands at the place itself included. `is_whole`: nothing was ever
/// dropped before them. `None`: what stood at the place is gone, and so may be some that followed it.
pub(crate) fn following<T>(
    place: Place,
    mut found: Vec<(Place, T)>,
    is_whole: bool,
    most: usize,
) -> Option<Vec<(Place, T)>> {
    match place {
        Place::BEGINNING => {}
        Place::FIRST if is_whole => {}
        place if found.first().is_some_and(|(first, _)| *first == place) => drop(found.remove(0)),
        _ => return None,
    }
    found.truncate(most);
    Some(found)
}

/// Where a reader stands in every partition of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Whose places these are.
    pub ledger: LedgerId,
    /// By partition; as many as there are.
    places: Vec<Place>,
}

/// These bytes are no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a cursor as it was given with events, unchanged")]
pub struct NoCursor;

impl Cursor {
    /// Before everything that is kept.
    pub fn beginning(ledger: LedgerId) -> Self {
        Self { ledger, places: vec![Place::BEGINNING; PARTITIONS] }
    }

    /// At these places, one for each partition.
    pub fn at(ledger: LedgerId, places: [Place; PARTITIONS]) -> Self {
        Self { ledger, places: places.to_vec() }
    }

    /// The partitions, and where it stands in each.
    pub fn places(&self) -> impl Iterator<Item = (u8, Place)> {
        (0..=u8::MAX).zip(self.places.iter().copied())
    }

    /// The event of this place has been read.
    pub fn has_read(&mut self, partition: u8, place: Place) {
        if let Some(at) = self.places.get_mut(usize::from(partition)) {
            *at = place;
        }
    }

    /// As it is given to readers: the ledger's id, then two numbers of eight bytes for each partition. About 4 KiB.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = self.places.iter().flat_map(|place| [place.high, place.low]);
        self.ledger.as_bytes().iter().copied().chain(numbers.flat_map(u64::to_be_bytes)).collect()
    }

    /// What [`Cursor::to_bytes`] has made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoCursor> {
        let (ledger, numbers) = bytes.split_first_chunk::<16>().ok_or(NoCursor)?;
        let ledger = LedgerId::from_bytes(*ledger).ok_or(NoCursor)?;
        let (numbers, []) = numbers.as_chunks::<8>() else { return Err(NoCursor) };
        let (places, []) = numbers.as_chunks::<2>() else { return Err(NoCursor) };
        if places.len() != PARTITIONS {
            return Err(NoCursor);
        }
        let place =
            |[high, low]: &[[u8; 8]; 2]| Place { high: u64::from_be_bytes(*high), low: u64::from_be_bytes(*low) };
        Ok(Self { ledger, places: places.iter().map(place).collect() })
    }
}

/// Whoever holds events. Gives what is confirmed and nothing else: what was read here will not be lost and told otherwise.
pub trait Outbox: Clone + Send + Sync + 'static {
    /// What stands after each of these places, in their order, at most so many events of each. Nothing is changed.
    fn after(
        &self,
        places: Vec<(u8, Place)>,
        most: usize,
    ) -> impl Future<Output = Result<Vec<After>, LedgerError>> + Send;

    /// The place of the newest event of each partition; [`Place::FIRST`] where there is none.
    fn newest(&self) -> impl Future<Output = Result<[Place; PARTITIONS], LedgerError>> + Send;
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

/// The value of an event. What was stated belongs to the purchase alone: a claim may also find that holds have run out.
pub(super) fn write(event: &Event, programme: ProgrammeCode, terminal: TerminalId, stated: &str) -> Vec<u8> {
    let is_purchase = matches!(event.kind, EventKind::Sold | EventKind::Held | EventKind::Late);
    let mut bytes = packed::pack([&event.entry]);
    push_origin(&mut bytes, programme, terminal, if is_purchase { stated } else { "" });
    bytes
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
        super::write(&told.event, told.programme, told.terminal, &told.stated)
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

    #[test]
    fn who_stands_where_nothing_stands_any_more_is_told() {
        let place = |low| Place { high: 7, low };
        let events = |from: u64| (from..4).map(|low| (place(low), told(""))).collect::<Vec<_>>();
        assert_eq!(After::of(place(1), events(1), true, 9), After::Events(events(2)));
        assert_eq!(After::of(place(3), events(3), false, 9), After::Events(Vec::new()), "nothing new");
        assert_eq!(After::of(place(1), events(2), false, 9), After::Gone);
        assert_eq!(After::of(place(1), Vec::new(), false, 9), After::Gone, "the whole partition");
        assert_eq!(After::of(Place::BEGINNING, events(3), false, 9), After::Events(events(3)));
        assert_eq!(After::of(Place::BEGINNING, events(2), true, 1), After::Events(vec![(place(2), told(""))]));
        // Who was there before anything happened takes all, or none.
        assert_eq!(After::of(Place::FIRST, events(1), true, 9), After::Events(events(1)));
        assert_eq!(After::of(Place::FIRST, events(2), false, 9), After::Gone);
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_and_nothing_else_is_one() {
        let mut cursor = Cursor::beginning(LedgerId::random());
        cursor.has_read(0, Place { high: u64::MAX, low: 1 });
        cursor.has_read(255, Place { high: 1, low: u64::MAX });
        let bytes = cursor.to_bytes();
        assert_eq!(Cursor::from_bytes(&bytes), Ok(cursor));
        for wrong in [&bytes[1..], &bytes[..bytes.len() - 16], &[bytes.as_slice(), &[0; 16]].concat(), &[]] {
            assert_eq!(Cursor::from_bytes(wrong), Err(NoCursor), "{} bytes", wrong.len());
        }
    }
}
