//! The chain: each record is a line that covers the line before it.
//!
//! ```text
//! SEQUENCE HASH BODY        HASH = SHA-256 of "SEQUENCE HASH-OF-THE-ONE-BEFORE BODY", in 64 small hexadecimal digits
//! ```
//!
//! So any record can be checked with nothing but `sha256sum`. The body is one JSON object. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::museum::Mutant;

/// Characters of a hash.
const HEX: usize = 64;

/// A hash, in the digits in which it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; HEX]);

impl Hash {
    /// What the first record of all covers.
    const NOTHING: Self = Self([b'0'; HEX]);

    fn of(sequence: &[u8], before: &Self, body: &[u8]) -> Self {
        let mut sha = Sha256::new();
        // The seeded bug: numbers stand beside the chain and not in it.
        if !Mutant::ChainWithoutSequence.is_on() {
            sha.update(sequence);
        }
        sha.update(b" ");
        sha.update(before.0);
        sha.update(b" ");
        sha.update(body);
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        let mut text = [0; HEX];
        for (pair, byte) in text.chunks_exact_mut(2).zip(sha.finalize()) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        Self(text)
    }
}

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes().try_into().map_err(|_| "a hash has 64 digits")?;
        let is_digit = |c: &u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        text.bytes().all(|c| is_digit(&c)).then_some(Self(bytes)).ok_or("a hash has small hexadecimal digits")
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Where a chain has got to: its newest record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Counted from 1; 0 before the first.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Link {
    /// Before the first record.
    pub const BIRTH: Self = Self { sequence: 0, hash: Hash::NOTHING };

    /// Writes the next record behind `out` and goes on to it. `body` writes one line without its end.
    pub fn append(&mut self, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        let sequence = self.sequence + 1;
        let written = sequence.to_string();
        out.extend_from_slice(written.as_bytes());
        out.push(b' ');
        let hash_at = out.len();
        // The hash takes this place when the body is known.
        out.extend_from_slice(&Hash::NOTHING.0);
        out.push(b' ');
        let body_at = out.len();
        body(out);
        let hash = Hash::of(written.as_bytes(), &self.hash, out.get(body_at..).unwrap_or_default());
        if let Some(place) = out.get_mut(hash_at..hash_at + HEX) {
            place.copy_from_slice(&hash.0);
        }
        out.push(b'\n');
        *self = Self { sequence, hash };
    }

    /// Goes on to this record, if it is the next one. That its number is its own is in the hash, and not that it follows.
    pub fn follow(&mut self, line: &Line<'_>) -> bool {
        let is_next = self.sequence.checked_add(1) == Some(line.sequence) || Mutant::ChainWithoutSequence.is_on();
        let follows = is_next && Hash::of(line.written.as_bytes(), &self.hash, line.body.as_bytes()) == line.hash;
        if follows {
            *self = line.link();
        }
        follows
    }
}

/// As it stands in the file `head`.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sequence, self.hash)
    }
}

impl FromStr for Link {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (sequence, hash) = text.trim().split_once(' ').ok_or("a link is a sequence and a hash")?;
        Ok(Self { sequence: self::sequence(sequence).ok_or("a sequence is a number")?, hash: hash.parse()? })
    }
}

/// None is the last that there can be: each has a next one.
fn sequence(text: &str) -> Option<u64> {
    text.parse().ok().filter(|sequence| *sequence < u64::MAX)
}

/// A record as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The number as it is written.
    written: &'a str,
    /// The number.
    pub sequence: u64,
    hash: Hash,
    /// What it says: one JSON object.
    pub body: &'a str,
}

impl<'a> Line<'a> {
    /// A line without its end; `None` if it has not the shape of a record.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (written, rest) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let (hash, body) = rest.split_once(' ')?;
        Some(Self { written, sequence: sequence(written)?, hash: hash.parse().ok()?, body })
    }

    /// The link that it is.
    pub fn link(&self) -> Link {
        Link { sequence: self.sequence, hash: self.hash }
    }

    /// What the log says here of itself; `None` for an access.
    pub fn note(&self) -> Option<Note> {
        // Their name comes first, so that nobody has to read every access to tell.
        self.body.starts_with("{\"action\":").then(|| serde_json::from_str(self.body).ok()).flatten()
    }
}

/// What the log says of itself. Times are texts, as they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Note {
    /// The first record of every segment.
    SegmentBegins {
        /// When.
        at: String,
        /// The hash that the chain comes from, so that a segment can be read when those before it have been removed.
        before: Hash,
    },
    /// A record that a process did not finish, with nothing whole after it, was cut off when the next process began.
    UnfinishedCut {
        /// When.
        at: String,
        /// How much was cut.
        bytes: u64,
    },
    /// When the log was opened, it did not hold what `head` says that it held: the segment before this one is damaged.
    Damaged {
        /// When.
        at: String,
        /// The last record that could be followed.
        found: u64,
    },
    /// When the log was opened, there were records and no file `head`: nobody can tell whether more were cut off at the end.
    HeadMissing {
        /// When.
        at: String,
    },
    /// Accesses that were made before this record, and of which there is none.
    NotRecorded {
        /// When this could be written.
        at: String,
        /// How many.
        accesses: u64,
    },
    /// The disk failed to take records for good: those from here on may be lost in a crash of the machine.
    NotSynced {
        /// When this could be written.
        at: String,
        /// The first of them.
        from: u64,
    },
    /// Segments were removed because they had been kept for as long as was asked for. It stands there before it is done.
    Removed {
        /// When.
        at: String,
        /// The last record of the last of them.
        until: u64,
        /// Its hash.
        hash: Hash,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_sha256sum_says() {
        let (mut link, mut out) = (Link::BIRTH, Vec::new());
        for body in ["{\"at\":1}", "{}"] {
            link.append(&mut out, |out| out.extend_from_slice(body.as_bytes()));
        }
        // printf '1 0000…0000 {"at":1}' | sha256sum, and so on
        let first = "4b12630bd14f55bc1c719a110e643a682912ff3f847befab5e4432924b981731";
        let second = "3feec5fee452eedf114224a296f0180e7b180492975cddde6e91a8fe3dae5916";
        assert_eq!(String::from_utf8(out).unwrap(), format!("1 {first} {{\"at\":1}}\n2 {second} {{}}\n"));
        assert_eq!(link.to_string().parse(), Ok(link));
    }

    #[test]
    fn only_the_next_record_follows() {
        let (mut link, mut out) = (Link::BIRTH, Vec::new());
        let mut links = vec![link];
        for body in ["{}", "{\"at\":1}", "{}"] {
            link.append(&mut out, |out| out.extend_from_slice(body.as_bytes()));
            links.push(link);
        }
        let lines: Vec<_> = out.split(|byte| *byte == b'\n').filter_map(Line::parse).collect();
        for (before, link) in links.iter().enumerate() {
            for (at, line) in lines.iter().enumerate() {
                let mut link = *link;
                assert_eq!(link.follow(line), at == before);
            }
        }
        // A number is left out, and the hash is as good as any.
        let (mut skips, mut out) = (Link { sequence: 4, ..link }, Vec::new());
        skips.append(&mut out, |out| out.extend_from_slice(b"{}"));
        assert!(!link.follow(&Line::parse(out.strip_suffix(b"\n").unwrap()).unwrap()));
    }
}
