//! See [`crate::fuzzing`]: what stands in the files of an audit log.

use super::chain::{Line, Link, Note};
use super::log::append_note;
use super::segments::{Lines, Tail};
use super::verify::{Finding, Verified, Walk};

/// A segment, and its lines as the bodies of a chain in which one byte is changed.
pub fn records(bytes: &[u8]) {
    read(bytes);
    let Some((&[low, high, flips], rest)) = bytes.split_first_chunk() else { return };
    let (mut link, mut chain) = (Link::BIRTH, Vec::new());
    append_note(&mut link, &mut chain, &Note::SegmentBegins { at: String::new(), before: Link::BIRTH.hash });
    for body in String::from_utf8_lossy(rest).lines() {
        link.append(&mut chain, |out| out.extend_from_slice(body.as_bytes()));
    }
    let whole = verify(&chain, Some(link));
    assert!(whole.as_ref().is_ok_and(|whole| whole.newest == link && whole.unfinished == 0), "{whole:?}");
    let place = usize::from(u16::from_le_bytes([low, high])) % chain.len();
    if let Some(byte) = chain.get_mut(place).filter(|_| flips > 0) {
        *byte ^= flips;
        let changed = verify(&chain, Some(link));
        assert!(changed.is_err(), "byte {place} was changed, and {changed:?}");
    }
}

/// Who goes on with a segment and who verifies it see the same records in it.
fn read(bytes: &[u8]) {
    if let Ok(link) = String::from_utf8_lossy(bytes).parse::<Link>() {
        assert_eq!(link.to_string().parse(), Ok(link));
    }
    let Ok(tail) = Tail::of(Lines::from(bytes), None) else { return };
    assert_eq!(usize::try_from(tail.whole + tail.rest), Ok(bytes.len()));
    let first = bytes.split(|byte| *byte == b'\n').next().and_then(Line::parse).map_or(1, |line| line.sequence);
    let mut walk = Walk::default();
    let Ok(wrong) = walk.segment(first, Lines::from(bytes), true, &[]) else { return };
    assert_eq!(wrong.is_some(), tail.is_damaged);
    assert_eq!(walk.at, tail.newest);
    let _ = walk.end(None, None);
}

fn verify(segment: &[u8], head: Option<Link>) -> Result<Verified, Option<Finding>> {
    let mut walk = Walk::default();
    match walk.segment(1, Lines::from(segment), true, &[head]) {
        Ok(None) => walk.end(head, None).map_err(Some),
        _ => Err(None),
    }
}
