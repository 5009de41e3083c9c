//! Names that travel on the wire and into the store. Parsing is validating: a value of one of these types is
//! well formed wherever it is met. They are small and `Copy`, so the hot path never allocates for a name.
//!
//! Knows nothing about storage, sessions or rules.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Why a name was not accepted: which kind of name, and what it must look like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {shape}")]
pub struct IdError {
    /// The kind of name, in the words of the design ("a site code").
    pub what: &'static str,
    /// The shape that would have been accepted.
    pub shape: &'static str,
}

/// An ASCII string of at most `N` bytes, held inline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Inline<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Inline<N> {
    fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; N];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Self { bytes, length: u8::try_from(text.len()).ok()? })
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.length)).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

/// Reading is parsing: what cannot be accepted cannot be deserialized either.
macro_rules! as_text {
    ($type:ident) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:literal, $what:literal, $shape:literal, $accept:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Inline<$max>);

        impl $type {
            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let accept: fn(&str) -> bool = $accept;
                let bad = IdError { what: $what, shape: $shape };
                if text.is_empty() || !accept(text) {
                    return Err(bad);
                }
                Inline::new(text).map(Self).ok_or(bad)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        as_text!($type);
    };
}

fn lower(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// A code is kept and logged, and a number that was typed into its place must be neither.
fn code(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_') && !looks_like_a_number(text)
}

/// Six digits of a birth date and seven more, as national numbers are written.
fn looks_like_a_number(text: &str) -> bool {
    let all_digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|c| c.is_ascii_digit());
    let (date, rest) = text.split_once('-').or_else(|| text.split_at_checked(6)).unwrap_or_default();
    all_digits(date, 6) && all_digits(rest, 7)
}

name!(
    /// A programme: one rationed thing with its rules over time, such as `kr-public-mask-2020`.
    ProgrammeId, 40, "a programme id", "1 to 40 lower-case letters, digits or hyphens, a letter first",
    |t| t.as_bytes().first().is_some_and(u8::is_ascii_lowercase) && t.bytes().all(|c| lower(c) || c == b'-')
);
name!(
    /// The programme's short code, the one that stands in every record key of the store.
    ProgrammeCode, 4, "a programme code", "1 to 4 lower-case letters or digits",
    |t| t.bytes().all(lower)
);
name!(
    /// A site's code: a pharmacy, post office or mart. At most 16 characters, because every entry of the ledger holds it.
    SiteId, 16, "a site code", "1 to 16 letters, digits, hyphens or underscores, and no person's number",
    code
);
name!(
    /// One counter window or POS of a site.
    TerminalId, 32, "a terminal name", "1 to 32 letters, digits, hyphens or underscores, and no person's number",
    code
);
name!(
    /// Whoever speaks for several sites: the system of a POS vendor or of a chain.
    GatewayId, 32, "a gateway's name", "1 to 32 letters, digits, hyphens or underscores, and no person's number",
    code
);
name!(
    /// Whoever runs the service, as a certificate names them.
    OperatorId, 32, "an operator's name", "1 to 32 letters, digits, hyphens or underscores, and no person's number",
    code
);
name!(
    /// Whoever takes the stock of all sites to the public, as a certificate names them.
    FeedId, 32, "a feed's name", "1 to 32 letters, digits, hyphens or underscores, and no person's number",
    code
);
name!(
    /// A kind of site that rules and session caps speak of: `pharmacy`, `post_office`, `mart`.
    Channel, 24, "a channel", "1 to 24 lower-case letters, digits or underscores",
    |t| t.bytes().all(|c| lower(c) || c == b'_')
);

name!(
    /// How the agent of a proxy purchase stands to the buyer, as the seller states it: `same_household`, `family`,
    /// `staff`, `anyone`. Which relations exist is the programme's data.
    Relation, 32, "a relation", "1 to 32 lower-case letters, digits or underscores",
    |t| t.bytes().all(|c| lower(c) || c == b'_')
);
name!(
    /// A paper that the seller says was shown: `resident_register`, `disability_card`. Which papers exist is the
    /// programme's data.
    Paper, 40, "a paper", "1 to 40 lower-case letters, digits or underscores",
    |t| t.bytes().all(|c| lower(c) || c == b'_')
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Uuid);

        impl $type {
            /// A new one that nobody has used before.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The sixteen bytes of the UUID.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the sixteen bytes of a UUID; `None` for the nil UUID.
            pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
                let id = Uuid::from_bytes(bytes);
                (!id.is_nil()).then_some(Self(id))
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bad = IdError { what: $what, shape: "a UUID such as 018f3a5e-7c1b-7d42-9c55-0a8b6f0d9e11, not the nil one" };
                Uuid::try_parse(text).ok().filter(|id| !id.is_nil()).map(Self).ok_or(bad)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        as_text!($type);
    };
}

uuid_id!(
    /// The terminal makes it and writes it down before the first attempt; every retry carries the same one.
    /// It means something only for one (programme, buyer) and under one [`LedgerId`].
    RequestId, "a request id"
);
uuid_id!(
    /// The random name given to a ledger at its birth. A client never retries a request id under another ledger.
    LedgerId, "a ledger id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_validated_where_they_enter() {
        assert_eq!("kr-public-mask-2020".parse::<ProgrammeId>().unwrap().as_str(), "kr-public-mask-2020");
        for bad in ["", "KR", "9lives", "a b", &"x".repeat(41), "한국"] {
            assert!(bad.parse::<ProgrammeId>().is_err(), "{bad:?}");
        }
        assert!("12345678".parse::<SiteId>().is_ok());
        assert!("seventeen-letters".parse::<SiteId>().is_err());
        for number in ["770707-1928374", "7707071928374"] {
            assert!(number.parse::<SiteId>().is_err() && number.parse::<TerminalId>().is_err(), "{number}");
        }
        for name in ["770707-192837", "77070719283745", "770707_1928374", "77-07071928374"] {
            assert!(name.parse::<TerminalId>().is_ok(), "{name}");
        }
        assert!("km".parse::<ProgrammeCode>().is_ok());
        assert!("kmask".parse::<ProgrammeCode>().is_err());
    }

    #[test]
    fn the_nil_request_id_is_refused() {
        let error = "00000000-0000-0000-0000-000000000000".parse::<RequestId>().unwrap_err();
        assert!(error.to_string().starts_with("a request id must be a UUID"));
        assert!(RequestId::from_bytes([0; 16]).is_none());
    }
}
