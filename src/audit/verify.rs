//! Whether an audit log is what was written: follows its chain from the oldest record kept to the newest, and names the first that
//! does not follow.
//!
//! What the chain cannot show is that somebody wrote all of it anew. For that, the newest link that [`Verified`] tells has to be
//! kept elsewhere, and handed to a later verification.

use std::fmt;
use std::io::{self, BufRead};
use std::path::Path;

use super::chain::{Line, Link, Note};
use super::segments::{Lines, Segment, comes_from, head, list};

/// A log of which every record follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The sequence of the oldest record kept; 0 if there is none.
    pub first: u64,
    /// The newest.
    pub newest: Link,
    /// Accesses that were made, and of which the log says that it holds no record.
    pub not_recorded: u64,
    /// Bytes behind the newest record: one under way, or one that a process did not finish.
    pub unfinished: u64,
}

/// The first record that does not follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The record that should stand there.
    pub sequence: u64,
    /// The segment's name and the line where it should; `None` for what is missing as a whole.
    pub place: Option<(String, u64)>,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was changed, or something else was put in its place.
    Changed,
    /// It is not there; the next that is has this sequence, if there is one.
    Missing {
        /// The next that is there.
        next: Option<u64>,
    },
    /// It stands somewhere else, and this one here.
    OutOfOrder {
        /// What stands in its place.
        here: u64,
    },
    /// One that was there already stands in its place.
    PutIn {
        /// Which.
        here: u64,
    },
    /// The file `head` names another record with this sequence, or somebody has kept another one.
    NotAsKept,
    /// The file `head` is missing or cannot be read, so that nobody can tell whether records were cut off at the end.
    NoHead,
    /// The same, of an earlier end of the log: this record says so.
    NoHeadBefore,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, line)) = &self.place {
            write!(f, "{file}:{line}: ")?;
        }
        let due = self.sequence;
        match self.why {
            Why::Changed => write!(f, "record {due} was changed, or something else was put in its place"),
            Why::Missing { next: Some(next) } if next == due + 1 => write!(f, "record {due} is missing"),
            Why::Missing { next: Some(next) } => write!(f, "records {due} to {} are missing", next - 1),
            Why::Missing { next: None } => write!(f, "record {due} is missing, and all that followed it"),
            Why::OutOfOrder { here } => write!(f, "record {due} is out of order: {here} stands in its place"),
            Why::PutIn { here } => write!(f, "before record {due} something was put in: {here} a second time"),
            Why::NotAsKept => write!(f, "record {due} is not the one whose hash was kept"),
            Why::NoHead if due == 1 => {
                write!(f, "there is no record and no file head: no log ever began here, or all of it was taken away")
            }
            Why::NoHeadBefore => {
                write!(
                    f,
                    "before record {due} the file head was missing: whether records were cut off there cannot be told"
                )
            }
            Why::NoHead => {
                write!(
                    f,
                    "the file head is missing or cannot be read: whether records after {} were cut off cannot be told",
                    due - 1
                )
            }
        }
    }
}

/// Follows the whole log in this directory. `kept` is a link that somebody noted earlier.
pub fn verify(directory: &Path, kept: Option<Link>) -> io::Result<Result<Verified, Finding>> {
    // First of all, so that what is written meanwhile is not missed.
    let head = head(directory);
    let segments = list(directory)?;
    let mut walk = Walk::default();
    let must_be = [head, kept];
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        if let Some((place, why)) = walk.segment(segment.first, Lines::of(segment)?, is_last, &must_be)? {
            let due = walk.due(segment.first);
            let why = match why {
                Wrong::Record(Some(here)) if here != due => named(&segments, due, here)?,
                Wrong::Record(_) => Why::Changed,
                Wrong::NotAsKept => Why::NotAsKept,
            };
            let sequence = if why == Why::NotAsKept { due - 1 } else { due };
            return Ok(Err(Finding { sequence, place: Some((segment.name(), place)), why }));
        }
    }
    Ok(walk.end(head, kept))
}

/// What is wrong at a line.
pub(super) enum Wrong {
    /// It is not the record that is due, but one with this sequence, if it is one at all.
    Record(Option<u64>),
    NotAsKept,
}

/// How far the chain has been followed.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) at: Option<Link>,
    /// The link before the oldest record kept.
    came_from: Option<Link>,
    /// Up to where the log says that it was removed.
    removed: Option<Link>,
    /// The first record that says that there was no head.
    headless: Option<u64>,
    not_recorded: u64,
    unfinished: u64,
}

impl Walk {
    /// The record that comes next, in a segment whose first record should be this one.
    fn due(&self, first: u64) -> u64 {
        self.at.map_or(first, |at| at.sequence + 1)
    }

    /// The line at which the segment with this first record is wrong, and how.
    pub(super) fn segment<R: BufRead>(
        &mut self,
        first: u64,
        mut lines: Lines<R>,
        is_last: bool,
        must_be: &[Option<Link>],
    ) -> io::Result<Option<(u64, Wrong)>> {
        let mut number = 0;
        while let Some(raw) = lines.next()? {
            number += 1;
            if !raw.ended && is_last {
                self.unfinished = u64::try_from(raw.bytes).unwrap_or(u64::MAX);
                break;
            }
            let Some(line) = Line::parse(raw.text).filter(|_| raw.ended) else {
                return Ok(Some((number, Wrong::Record(None))));
            };
            let before = self.at.or_else(|| comes_from(&line));
            let Some(mut at) = before.filter(|before| self.at.is_some() || before.sequence + 1 == first) else {
                return Ok(Some((number, Wrong::Record(Some(line.sequence)))));
            };
            if !at.follow(&line) {
                return Ok(Some((number, Wrong::Record(Some(line.sequence)))));
            }
            self.came_from = self.came_from.or(before);
            self.at = Some(at);
            if must_be.iter().flatten().any(|must| must.sequence == at.sequence && *must != at) {
                return Ok(Some((number, Wrong::NotAsKept)));
            }
            match line.note() {
                Some(Note::Removed { until, hash, .. }) => self.removed = Some(Link { sequence: until, hash }),
                Some(Note::HeadMissing { .. }) => self.headless = self.headless.or(Some(at.sequence)),
                Some(Note::NotRecorded { accesses, .. }) => {
                    self.not_recorded = self.not_recorded.saturating_add(accesses);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    pub(super) fn end(self, head: Option<Link>, kept: Option<Link>) -> Result<Verified, Finding> {
        let newest = self.at.unwrap_or(Link::BIRTH);
        let finding = |sequence, why| Err(Finding { sequence, place: None, why });
        let from = self.came_from.unwrap_or(Link::BIRTH);
        if from.sequence == 0 && from != Link::BIRTH {
            return finding(1, Why::Changed);
        }
        // Where the oldest segments have gone, the log must say so itself.
        let told = |removed: Link| match removed.sequence.cmp(&from.sequence) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => removed.hash == from.hash,
            std::cmp::Ordering::Greater => true,
        };
        if from.sequence > 0 && !self.removed.is_some_and(told) {
            return finding(1, Why::Missing { next: Some(from.sequence + 1) });
        }
        if head.is_none() {
            return finding(newest.sequence + 1, Why::NoHead);
        }
        if [head, kept].iter().flatten().any(|must| must.sequence > newest.sequence) {
            return finding(newest.sequence + 1, Why::Missing { next: None });
        }
        // What somebody kept of records that have been removed since proves nothing any more.
        match kept {
            Some(kept) if kept.sequence < from.sequence => {
                return finding(kept.sequence, Why::Missing { next: Some(from.sequence + 1) });
            }
            Some(kept) if kept.sequence == from.sequence && kept != from => {
                return finding(kept.sequence, Why::NotAsKept);
            }
            _ => {}
        }
        if let Some(sequence) = self.headless {
            return finding(sequence, Why::NoHeadBefore);
        }
        let first = self.at.map_or(0, |_| from.sequence + 1);
        Ok(Verified { first, newest, not_recorded: self.not_recorded, unfinished: self.unfinished })
    }
}

/// Why a record is not in its place, when another one stands there.
fn named(segments: &[Segment], due: u64, here: u64) -> io::Result<Why> {
    if here < due {
        return Ok(Why::PutIn { here });
    }
    for segment in segments {
        let mut lines = Lines::of(segment)?;
        while let Some(raw) = lines.next()? {
            if Line::parse(raw.text).is_some_and(|line| line.sequence == due) {
                return Ok(Why::OutOfOrder { here });
            }
        }
    }
    Ok(Why::Missing { next: Some(here) })
}
