//! The bytes of a journal: a head, and one frame for each fact. Pure.
//!
//! | bytes of the head | what |
//! |---|---|
//! | 8 | `rationdj` |
//! | 1 | [`LAYOUT`] |
//! | 16 | the file's id, at random |
//! | 1 | how long the last part is |
//! | 24 | nonce |
//! | the rest | whose it is, sealed; under its tag are the layout and the id too |
//!
//! | bytes of a frame | what |
//! |---|---|
//! | 4 | [`MARK`] |
//! | 4 | how long the last part is, big endian |
//! | 16 | the file's id |
//! | 8 | the sequence, from 0 on, big endian |
//! | 24 | nonce |
//! | the rest | the fact, sealed with XChaCha20-Poly1305; under its tag are layout, file, sequence and whose the journal is |
//!
//! A frame says of itself where it belongs, so that each that is whole can be believed whatever has become of those before it: a
//! frame that was moved, repeated or brought from elsewhere is known for what it is. A nonce of 24 bytes may be drawn at random.

use std::collections::BTreeMap;
use std::ops::Range;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::key::LENGTH as KEY;

/// The only layout that is read. The first did not say how long what is held is held.
pub(super) const LAYOUT: u8 = 2;
const MAGIC: [u8; 8] = *b"rationdj";
/// With which a frame begins.
const MARK: [u8; 4] = [0xf7, b'r', b'J', 0x1e];
const NONCE: usize = 24;
/// No fact is longer than this.
pub(super) const LONGEST: usize = 1 << 16;
/// What sealing adds.
const TAG: usize = 16;

/// The random id of a file.
pub(super) type FileId = [u8; 16];

/// Seals and opens what belongs to one terminal.
pub(super) struct Seal {
    cipher: XChaCha20Poly1305,
    whose: String,
}

/// What the beginning of a file turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// That of a journal of ours, up to here.
    Ours(FileId, usize),
    /// That of a journal under our key, of somebody else.
    Others(String),
    /// That of a journal that this key does not open.
    Closed,
    /// That of another layout.
    Layout(u8),
    /// Something else.
    Unknown,
}

/// A frame that is whole.
struct Frame {
    file: FileId,
    sequence: u64,
    plain: Zeroizing<Vec<u8>>,
    length: usize,
}

/// What stands at a place of a file.
enum Look {
    Whole(Frame),
    /// It begins like a frame, and the file ends in it.
    Cut,
    Nothing,
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Found {
    /// The file's id, if any frame told it or the head did.
    pub(super) file: Option<FileId>,
    /// Facts by their sequence.
    pub(super) facts: BTreeMap<u64, Zeroizing<Vec<u8>>>,
    /// Bytes that are no frame of this file.
    pub(super) skipped: u64,
    /// Bytes of a frame that was not finished, at the end.
    pub(super) torn: u64,
    /// Frames that stand where they do not belong: later than a younger one, or twice.
    pub(super) misplaced: u64,
}

impl Found {
    /// The sequences that are not there, although later ones are.
    pub(super) fn missing(&self) -> Vec<Range<u64>> {
        let mut next = 0;
        let mut missing = Vec::new();
        for &sequence in self.facts.keys() {
            if sequence > next {
                missing.push(next..sequence);
            }
            next = sequence.saturating_add(1);
        }
        missing
    }
}

impl Seal {
    pub(super) fn new(key: &[u8; KEY], whose: String) -> Self {
        Self { cipher: XChaCha20Poly1305::new(key.into()), whose }
    }

    /// The head of a new file.
    pub(super) fn head(&self, file: &FileId) -> Result<Vec<u8>, getrandom::Error> {
        let open = [&MAGIC[..], &[LAYOUT], file].concat();
        let (nonce, sealed) = self.seal(self.whose.as_bytes(), &open)?;
        // Names are of 50 bytes at most.
        let length = u8::try_from(sealed.len()).unwrap_or(u8::MAX);
        Ok([&open[..], &[length], &nonce, &sealed].concat())
    }

    /// Adds a frame.
    pub(super) fn frame(
        &self,
        file: &FileId,
        sequence: u64,
        plain: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), getrandom::Error> {
        let (nonce, sealed) = self.seal(plain, &self.about(file, sequence))?;
        let length = u32::try_from(sealed.len()).unwrap_or(u32::MAX);
        for part in [&MARK[..], &length.to_be_bytes(), file, &sequence.to_be_bytes(), &nonce, &sealed] {
            into.extend_from_slice(part);
        }
        Ok(())
    }

    /// What the beginning of these bytes is.
    pub(super) fn look_at_head(&self, bytes: &[u8]) -> Head {
        let Some(rest) = bytes.strip_prefix(&MAGIC) else { return Head::Unknown };
        let Some((&[layout], rest)) = rest.split_first_chunk::<1>() else { return Head::Unknown };
        if layout != LAYOUT {
            return Head::Layout(layout);
        }
        let parts = || {
            let (file, rest) = rest.split_first_chunk::<16>()?;
            let (&[length], rest) = rest.split_first_chunk::<1>()?;
            let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
            let (sealed, rest) = rest.split_at_checked(usize::from(length))?;
            let open = [&MAGIC[..], &[LAYOUT], file].concat();
            let whose = self.open(nonce, sealed, &open)?;
            Some((*file, String::from_utf8(whose.to_vec()).ok()?, bytes.len() - rest.len()))
        };
        match parts() {
            Some((file, whose, end)) if whose == self.whose => Head::Ours(file, end),
            Some((_, whose, _)) => Head::Others(whose),
            None => Head::Closed,
        }
    }

    /// Everything that can be believed of what stands behind the head, and what became of the rest. Without a head: of the file of
    /// which the first frame is.
    pub(super) fn look_through(&self, bytes: &[u8], from: usize, file: Option<FileId>) -> Found {
        let mut found = Found { file, ..Found::default() };
        let (mut at, mut bad) = (from, None);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.look_at(rest) {
                Look::Whole(frame) if *found.file.get_or_insert(frame.file) == frame.file => {
                    found.skipped += bad.take().map_or(0, |bad: usize| long(at - bad));
                    at += frame.length;
                    let is_younger = found.facts.last_key_value().is_none_or(|(newest, _)| *newest < frame.sequence);
                    found.misplaced += u64::from(!is_younger);
                    found.facts.entry(frame.sequence).or_insert(frame.plain);
                }
                _ => {
                    bad.get_or_insert(at);
                    let next = rest.get(1..).and_then(|rest| rest.windows(MARK.len()).position(|mark| mark == MARK));
                    at = next.map_or(bytes.len(), |next| at + 1 + next);
                }
            }
        }
        if let Some(rest) = bad.and_then(|bad| bytes.get(bad..)) {
            match self.look_at(rest) {
                Look::Cut => found.torn = long(rest.len()),
                _ => found.skipped += long(rest.len()),
            }
        }
        found
    }

    fn look_at(&self, bytes: &[u8]) -> Look {
        let Some(rest) = bytes.strip_prefix(&MARK) else {
            return if MARK.starts_with(bytes) { Look::Cut } else { Look::Nothing };
        };
        let parts = || {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (file, rest) = rest.split_first_chunk::<16>()?;
            let (sequence, rest) = rest.split_first_chunk::<8>()?;
            let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            Some((length, file, u64::from_be_bytes(*sequence), nonce, rest))
        };
        let Some((length, file, sequence, nonce, rest)) = parts() else { return Look::Cut };
        if length > LONGEST + TAG {
            return Look::Nothing;
        }
        let Some((sealed, rest)) = rest.split_at_checked(length) else { return Look::Cut };
        let whole = |plain| Frame { file: *file, sequence, plain, length: bytes.len() - rest.len() };
        self.open(nonce, sealed, &self.about(file, sequence)).map_or(Look::Nothing, |plain| Look::Whole(whole(plain)))
    }

    /// What is under the tag of a frame beside the fact.
    fn about(&self, file: &FileId, sequence: u64) -> Vec<u8> {
        [&MARK[..], &[LAYOUT], file, &sequence.to_be_bytes(), self.whose.as_bytes()].concat()
    }

    fn seal(&self, plain: &[u8], about: &[u8]) -> Result<([u8; NONCE], Vec<u8>), getrandom::Error> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: about });
        // It fails for what is longer than 256 GiB.
        Ok((nonce, sealed.unwrap_or_default()))
    }

    fn open(&self, nonce: &[u8; NONCE], sealed: &[u8], about: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let payload = Payload { msg: sealed, aad: about };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
    }
}

fn long(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: FileId = [7; 16];

    fn seal_of(key: u8, whose: &str) -> Seal {
        Seal::new(&[key; KEY], whose.into())
    }

    fn seal() -> Seal {
        seal_of(1, "11000001/w1")
    }

    /// Each fact tells its own sequence.
    fn fact(sequence: u64) -> Vec<u8> {
        format!("fact {sequence}").into_bytes()
    }

    /// The parts of a file: its head, and each frame.
    fn parts(seal: &Seal, file: &FileId, frames: u64) -> Vec<Vec<u8>> {
        let mut parts = vec![seal.head(file).unwrap()];
        for sequence in 0..frames {
            let mut bytes = Vec::new();
            seal.frame(file, sequence, &fact(sequence), &mut bytes).unwrap();
            parts.push(bytes);
        }
        parts
    }

    /// As the journal reads a file.
    fn read(seal: &Seal, bytes: &[u8]) -> Found {
        match seal.look_at_head(bytes) {
            Head::Ours(file, end) => seal.look_through(bytes, end, Some(file)),
            _ => seal.look_through(bytes, 0, None),
        }
    }

    /// Nothing is invented: every fact is the one that was written under its sequence.
    fn is_true(found: &Found) -> bool {
        found.facts.iter().all(|(sequence, plain)| **plain == fact(*sequence))
    }

    fn sequences(found: &Found) -> Vec<u64> {
        found.facts.keys().copied().collect()
    }

    #[test]
    fn a_whole_file_is_read_and_another_key_or_owner_is_told_apart() {
        let bytes = parts(&seal(), &FILE, 3).concat();
        let found = read(&seal(), &bytes);
        assert_eq!((sequences(&found), found.skipped, found.torn, found.misplaced), (vec![0, 1, 2], 0, 0, 0));
        assert!(is_true(&found) && found.missing().is_empty());

        assert_eq!(seal_of(2, "11000001/w1").look_at_head(&bytes), Head::Closed);
        assert!(read(&seal_of(2, "11000001/w1"), &bytes).facts.is_empty());
        assert_eq!(seal_of(1, "11000002/w1").look_at_head(&bytes), Head::Others("11000001/w1".into()));
        assert!(read(&seal_of(1, "11000002/w1"), &bytes).facts.is_empty());
        let mut later = bytes.clone();
        later[8] = LAYOUT + 1;
        assert_eq!(seal().look_at_head(&later), Head::Layout(LAYOUT + 1));
        assert_eq!(seal().look_at_head(b"PK\x03\x04 something else"), Head::Unknown);
        assert_eq!(seal().look_at_head(b""), Head::Unknown);
    }

    #[test]
    fn nothing_is_readable_without_the_key() {
        let secret = b"7707071928374";
        let mut bytes = seal().head(&FILE).unwrap();
        seal().frame(&FILE, 0, secret, &mut bytes).unwrap();
        assert!(!bytes.windows(6).any(|part| part == &secret[..6]));
        let mut again = Vec::new();
        seal().frame(&FILE, 0, secret, &mut again).unwrap();
        assert!(!bytes.ends_with(&again), "no nonce is used twice");
    }

    proptest! {
        #[test]
        fn of_a_file_that_was_cut_every_frame_before_the_cut_is_there(frames in 0_u64..6, cut: prop::sample::Index) {
            let parts = parts(&seal(), &FILE, frames);
            let whole = parts.concat();
            let at = cut.index(whole.len() + 1);
            let found = read(&seal(), &whole[..at]);
            let mut end = parts[0].len();
            let there = parts[1..].iter().take_while(|part| { end += part.len(); end <= at }).count() as u64;
            prop_assert_eq!(sequences(&found), (0..there).collect::<Vec<_>>());
            let rest = at.saturating_sub(parts.iter().take(there as usize + 1).map(Vec::len).sum());
            if at >= parts[0].len() {
                prop_assert_eq!((found.torn, found.skipped), (rest as u64, 0));
            }
            prop_assert!(is_true(&found) && found.missing().is_empty());
        }

        #[test]
        fn of_a_file_with_a_changed_byte_one_frame_is_lost_at_most(
            frames in 1_u64..6, place: prop::sample::Index, change in 1_u8..=255
        ) {
            let parts = parts(&seal(), &FILE, frames);
            let mut bytes = parts.concat();
            let at = place.index(bytes.len());
            bytes[at] ^= change;
            let mut end = 0;
            let hit = parts.iter().position(|part| { end += part.len(); at < end }).unwrap() as u64;
            let found = read(&seal(), &bytes);
            let expected: Vec<u64> = (0..frames).filter(|sequence| sequence + 1 != hit).collect();
            prop_assert_eq!(sequences(&found), expected);
            prop_assert!(is_true(&found));
            prop_assert!(found.skipped + found.torn > 0, "it is reported");
            if 0 < hit && hit < frames {
                prop_assert_eq!(found.missing(), vec![hit - 1..hit]);
            }
        }

        #[test]
        fn frames_that_were_removed_moved_or_repeated_are_noticed(order in prop::collection::vec(0_usize..6, 0..9)) {
            let parts = parts(&seal(), &FILE, 6);
            let chosen: Vec<&[u8]> = order.iter().map(|at| parts[at + 1].as_slice()).collect();
            let bytes = [parts[0].as_slice(), &chosen.concat()].concat();
            let found = read(&seal(), &bytes);
            prop_assert!(is_true(&found));
            let mut there: Vec<u64> = order.iter().map(|at| *at as u64).collect();
            there.sort_unstable();
            there.dedup();
            prop_assert_eq!(sequences(&found), &there[..]);
            let rising = order.iter().enumerate().filter(|(nth, at)| order[..*nth].iter().all(|before| before < *at)).count();
            prop_assert_eq!(found.misplaced as usize, order.len() - rising);
            let last = there.last().map_or(0, |last| last + 1);
            let missing: u64 = found.missing().into_iter().map(|range| range.end - range.start).sum();
            prop_assert_eq!(missing, last - there.len() as u64);
        }

        #[test]
        fn a_frame_of_another_file_or_under_another_sequence_is_no_frame_of_this_one(
            nth in 0_usize..4, other_file: bool, sequence in 0_u64..4
        ) {
            let mut parts = parts(&seal(), &FILE, 4);
            if other_file {
                parts[nth + 1] = self::parts(&seal(), &[8; 16], 4).swap_remove(nth + 1);
            } else {
                parts[nth + 1][24..32].copy_from_slice(&sequence.to_be_bytes());
            }
            let found = read(&seal(), &parts.concat());
            let stays = !other_file && sequence == nth as u64;
            prop_assert!(is_true(&found));
            prop_assert_eq!(found.facts.len(), if stays { 4 } else { 3 });
            prop_assert_eq!(found.skipped > 0, !stays);
        }

        #[test]
        fn no_bytes_whatever_make_a_fact(bytes in prop::collection::vec(any::<u8>(), 0..300), marks: bool) {
            let bytes = if marks { bytes.chunks(9).flat_map(|part| [&MARK[..], part].concat()).collect() } else { bytes };
            let found = read(&seal(), &bytes);
            prop_assert!(found.facts.is_empty());
            prop_assert_eq!(found.skipped + found.torn, bytes.len() as u64);
        }
    }
}
