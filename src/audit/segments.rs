//! The files of an audit log's directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::chain::{Line, Link, Note};
use crate::time::Month;

/// What a segment's name ends with.
const ENDING: &str = ".log";
/// The file that says how much of the log is known to be on the disk.
const HEAD: &str = "head";

/// One segment's file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// The sequence of its first record.
    pub(super) first: u64,
    /// The month in which its records were written.
    pub(super) month: Month,
    pub(super) path: PathBuf,
}

impl Segment {
    /// A segment that begins with this record.
    pub(super) fn new(directory: &Path, first: u64, month: Month) -> Self {
        Self { first, month, path: directory.join(format!("{first:012}-{month}{ENDING}")) }
    }

    fn named(path: PathBuf) -> Option<Self> {
        let (first, month) = path.file_name()?.to_str()?.strip_suffix(ENDING)?.split_once('-')?;
        Some(Self { first: first.parse().ok()?, month: month.parse().ok()?, path })
    }

    /// Makes its file with these bytes in it, or leaves none.
    pub(super) fn create(&self, bytes: &[u8]) -> io::Result<File> {
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&self.path)?;
        let made = file.write_all(bytes).and_then(|()| sync_directory(self.path.parent()));
        if made.is_err() {
            // Its name must be free for the next attempt.
            let _ = fs::remove_file(&self.path);
        }
        made.map(|()| file)
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where the chain comes from, as its first record says; `None` if that cannot be read.
    pub(super) fn comes_from(&self) -> io::Result<Option<Link>> {
        let mut lines = Lines::of(self)?;
        let begins = lines.next()?.and_then(|line| comes_from(&Line::parse(line.text)?));
        Ok(begins)
    }
}

/// How far a segment can be followed.
pub(super) struct Tail {
    /// Its newest good record; `None` if not even the first is.
    pub(super) newest: Option<Link>,
    /// Bytes up to there.
    pub(super) whole: u64,
    /// Bytes behind it.
    pub(super) rest: u64,
    /// Whether there is a whole line among them: more than a record that was not finished.
    pub(super) is_damaged: bool,
    /// Whether another record stands where the one that must be there should.
    pub(super) is_other: bool,
}

impl Tail {
    /// Reads a segment to the last record that follows, and looks for one that must be there.
    pub(super) fn of<R: BufRead>(mut lines: Lines<R>, head: Option<Link>) -> io::Result<Self> {
        let mut tail = Self { newest: None, whole: 0, rest: 0, is_other: false, is_damaged: false };
        while let Some(raw) = lines.next()? {
            let length = u64::try_from(raw.bytes).unwrap_or(u64::MAX);
            let line = Line::parse(raw.text).filter(|_| raw.ended && tail.rest == 0);
            let next = line.and_then(|line| {
                let mut link = tail.newest.or_else(|| comes_from(&line))?;
                link.follow(&line).then_some(link)
            });
            match next {
                Some(link) => {
                    (tail.newest, tail.whole) = (Some(link), tail.whole + length);
                    tail.is_other |= head.is_some_and(|head| head.sequence == link.sequence && head != link);
                }
                None => (tail.rest, tail.is_damaged) = (tail.rest + length, tail.is_damaged || raw.ended),
            }
        }
        Ok(tail)
    }

    /// Its newest record, if all that was promised up to this sequence is there and at most one record was not finished.
    pub(super) fn whole_to(&self, synced: u64) -> Option<Link> {
        self.newest.filter(|newest| newest.sequence >= synced && !self.is_other && !self.is_damaged)
    }
}

/// The link before a record with which a segment begins.
pub(super) fn comes_from(first: &Line<'_>) -> Option<Link> {
    match first.note()? {
        Note::SegmentBegins { before, .. } => Some(Link { sequence: first.sequence.checked_sub(1)?, hash: before }),
        _ => None,
    }
}

/// The segments of a directory in the order of their records.
pub(super) fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        segments.extend(Segment::named(entry?.path()));
    }
    segments.sort();
    Ok(segments)
}

/// A segment's lines, in the memory of one.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
}

/// One line of a file.
pub(super) struct Raw<'a> {
    /// Without its end.
    pub(super) text: &'a [u8],
    /// With its end.
    pub(super) bytes: usize,
    /// Whether it has one.
    pub(super) ended: bool,
}

impl Lines<BufReader<File>> {
    pub(super) fn of(segment: &Segment) -> io::Result<Self> {
        Ok(Self::from(BufReader::with_capacity(1 << 16, File::open(&segment.path)?)))
    }
}

impl<R: BufRead> Lines<R> {
    pub(super) fn from(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Raw<'_>>> {
        self.line.clear();
        let bytes = self.reader.read_until(b'\n', &mut self.line)?;
        let text = self.line.strip_suffix(b"\n");
        let (ended, text) = (text.is_some(), text.unwrap_or(&self.line));
        Ok((bytes > 0).then_some(Raw { text, bytes, ended }))
    }
}

/// The newest record that is known to be on the disk; `None` if the file that says so is missing or cannot be read.
pub(super) fn head(directory: &Path) -> Option<Link> {
    fs::read_to_string(directory.join(HEAD)).ok()?.parse().ok()
}

/// The file that says which record is known to be on the disk.
#[derive(Debug)]
pub(super) struct Head(File);

impl Head {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(HEAD);
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(Self)
    }

    /// Notes that nothing is there yet, for good.
    pub(super) fn begin(&self) -> io::Result<()> {
        self.put(Link::BIRTH)?;
        self.0.sync_all()
    }

    /// Notes it, once it is so. What is noted may be lost in a crash of the machine: an older record is as true. It is always
    /// as long as before, and in one sector of a disk.
    pub(super) fn put(&self, Link { sequence, hash }: Link) -> io::Result<()> {
        self.0.write_all_at(format!("{sequence:020} {hash}\n").as_bytes(), 0)
    }
}

/// A new name, or one that is gone, is on the disk when its directory is.
pub(super) fn sync_directory(directory: Option<&Path>) -> io::Result<()> {
    directory.map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
