//! Who a purchase is charged to: a number as it was typed goes in; the few facts that a rule may see and a keyed
//! pseudonym come out. Pure: no I/O, no clock, no logging.
//!
//! ```text
//! typed number ──parse──> Buyer ──KeyRing::key_of(programme)──> BuyerKey
//!                           └ birth year, foreign, warning
//! ```
//!
//! The number is unprintable by type: [`Buyer`] has no `Debug`, `Display`, `Serialize` or `Clone`, and no error of
//! this module repeats what was typed. It is wiped from memory when the [`Buyer`] is dropped.
//!
//! Knows nothing about rules, the ledger or the wire: which scheme of numbers a programme uses is the caller's affair.

mod key_ring;
mod kr_resident;
mod opaque;

use zeroize::Zeroizing;

pub(crate) use key_ring::keyed;
pub use key_ring::{
    BuyerKey, KeyId, KeyMark, KeyRing, Neighbour, OtherRing, Pseudonym, Ring, RingKey, SecretKey, Side, Turn,
};
pub use kr_resident::parse_kr_resident;
pub use opaque::parse_opaque;

use crate::time::Date;

/// The person whose allowance is charged, from the moment the number is read until its pseudonym is made.
///
/// The number itself cannot be read back, and nothing here can print it. Each of these fails to compile:
///
/// ```compile_fail,E0277
/// fn needs<T: std::fmt::Debug>() {}
/// needs::<rationd::buyer::Buyer>();
/// ```
/// ```compile_fail,E0277
/// fn needs<T: std::fmt::Display>() {}
/// needs::<rationd::buyer::Buyer>();
/// ```
/// ```compile_fail,E0277
/// fn needs<T: std::string::ToString>() {}
/// needs::<rationd::buyer::Buyer>();
/// ```
/// ```compile_fail,E0277
/// fn needs<T: serde::Serialize>() {}
/// needs::<rationd::buyer::Buyer>();
/// ```
/// ```compile_fail,E0277
/// fn needs<T: Clone>() {}
/// needs::<rationd::buyer::Buyer>();
/// ```
///
/// while the same question about a type that may be shown is answered:
///
/// ```
/// fn needs<T: std::fmt::Debug + std::fmt::Display + std::string::ToString + Clone>() {}
/// needs::<rationd::buyer::BadBuyer>();
/// fn serializes<T: serde::Serialize>() {}
/// serializes::<rationd::ids::SiteId>();
/// ```
pub struct Buyer {
    /// Registered year of birth.
    pub birth_year: i16,
    /// Whether the number is a foreigner's. Always `false` for an opaque id, which does not say.
    pub foreign: bool,
    /// What the clerk should read again; never a reason to refuse. `None`: nothing looks wrong.
    pub warning: Option<Warning>,
    id: CanonicalId,
}

impl Buyer {
    /// What may be shown back to the clerk who typed the number: `810305-1******`, or the first quarter of an opaque
    /// id. Not for logs.
    pub fn masked(&self) -> String {
        let shown = |count: usize| String::from_utf8_lossy(self.id.bytes().get(..count).unwrap_or_default());
        match self.id.scheme {
            Scheme::KrResident => {
                let (date, rest) = (shown(6), shown(7));
                format!("{date}-{}******", rest.get(6..).unwrap_or_default())
            }
            Scheme::Opaque => format!("{}******", shown(self.id.bytes().len() / 4)),
        }
    }
}

/// A doubt about a number that was accepted all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Warning {
    /// The last digit is not the check digit of the others: probably a slip of typing, but real numbers of this shape
    /// have been issued since October 2020, so it never denies.
    CheckDigit,
}

impl Warning {
    /// The stable name: the same in JSON, metrics and test vectors.
    pub fn name(self) -> &'static str {
        match self {
            Self::CheckDigit => "CHECK_DIGIT",
        }
    }

    /// What the clerk is asked to do, in one sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Self::CheckDigit => "The last digit does not fit the others: compare the number with the card once more.",
        }
    }
}

/// Why a number was not accepted, in words for the clerk, without the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadBuyer {
    /// A character that is neither a digit nor a hyphen nor a space.
    #[error("the number may hold only digits, with a hyphen after the sixth if you like")]
    NotDigits,
    /// Too few or too many digits.
    #[error("the number must have 13 digits (YYMMDD-GXXXXXX); count them on the card")]
    Length,
    /// A hyphen that does not stand after the sixth digit, which is how a lost and a doubled digit show.
    #[error("the hyphen belongs after the sixth digit: a digit before it is missing or was typed twice")]
    Hyphen,
    /// The calendar has no such day.
    #[error("the first six digits are not a date (YYMMDD): the calendar has no such day")]
    NoSuchDate,
    /// The birth date lies after today.
    #[error("the birth date lies after today: check the year and the seventh digit, which names the century")]
    NotYetBorn,
    /// An opaque id of the wrong shape.
    #[error("the id must be 1 to 64 printable ASCII characters without spaces")]
    OpaqueId,
    /// An opaque id came without a birth date.
    #[error("a birth date is required beside this id, because the rules go by the year of birth: send YYYY-MM-DD")]
    BirthDateMissing,
    /// The birth date beside an opaque id is not a day of the calendar.
    #[error("the birth date must be a day of the calendar, written YYYY-MM-DD")]
    BirthDate,
    /// The birth date beside an opaque id is too long ago to be anybody's.
    #[error("the birth date must not lie before 1800: check its century")]
    Century,
}

/// Which kind of number an id is. Its tag stands in every pseudonym, so ids of two kinds never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    KrResident,
    Opaque,
}

impl Scheme {
    /// Part of what is hashed: changing a tag separates every buyer from his history.
    fn tag(self) -> u8 {
        match self {
            Self::KrResident => b'k',
            Self::Opaque => b'o',
        }
    }
}

/// The longest id in bytes.
const MAX_ID: usize = 64;

/// The number in the one form that is hashed, however it was typed: digits alone, or the opaque id without the spaces
/// around it. Wiped on drop.
struct CanonicalId {
    scheme: Scheme,
    length: u8,
    buffer: Zeroizing<[u8; MAX_ID]>,
}

impl CanonicalId {
    /// `None` if it is longer than [`MAX_ID`].
    fn new(scheme: Scheme, bytes: &[u8]) -> Option<Self> {
        let mut id = Self { scheme, length: u8::try_from(bytes.len()).ok()?, buffer: Zeroizing::new([0; MAX_ID]) };
        id.buffer.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(id)
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The earliest year in which a registered person can be born (century digits 9 and 0).
const FIRST_YEAR: i16 = 1800;

/// Refuses births after `today`.
fn born(birth: Date, today: Date) -> Result<Date, BadBuyer> {
    if birth > today { Err(BadBuyer::NotYetBorn) } else { Ok(birth) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Date = Date { year: 2020, month: 6, day: 1 };

    #[test]
    fn the_mask_shows_what_the_clerk_may_see_and_no_more() {
        assert_eq!(parse_kr_resident("810305-1000112", TODAY, true).unwrap().masked(), "810305-1******");
        assert_eq!(parse_opaque("A1234567", Some("1990-01-01"), TODAY).unwrap().masked(), "A1******");
        assert_eq!(parse_opaque("A12", Some("1990-01-01"), TODAY).unwrap().masked(), "******");
    }
}
