//! The log on the disk: opened where the last process left it, written in groups, shortened at its old end.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::{Link, Note};
use super::month_keys::MonthKeys;
use super::segments::{Head, Lines, Segment, Tail, head, list, sync_directory};
use crate::time::{Month, Timestamp};

/// A segment that is so long is followed by another one of the same month, in bytes: what a start has to read is bounded.
const SEGMENT_BYTES: u64 = 256 << 20;

/// Why an audit log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes into it.
    #[error("the audit log in {} is in use by another process: one process writes to one directory", directory.display())]
    InUse {
        /// The log's directory.
        directory: PathBuf,
    },
    /// What the operating system said.
    #[error("the audit log in {} cannot be opened: {source}", directory.display())]
    Io {
        /// The log's directory.
        directory: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// An open log, which nobody else writes to.
pub(super) struct Log {
    directory: PathBuf,
    open: Open,
    /// Whether something may stand behind the newest record that is no whole one.
    ragged: bool,
    head: Arc<Head>,
    _lock: File,
}

impl Log {
    /// Opens the log in this directory, which is made if it is not there, and goes on behind its newest record.
    pub(super) fn open(directory: &Path, now: Timestamp) -> Result<Self, OpenError> {
        let locked = lock(directory).map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse { directory: directory.into() },
            TryLockError::Error(source) => OpenError::Io { directory: directory.into(), source },
        })?;
        Self::go_on(directory, locked, now)
            .map_err(|source| OpenError::Io { directory: directory.to_path_buf(), source })
    }

    fn go_on(directory: &Path, lock: File, now: Timestamp) -> io::Result<Self> {
        let on_disk = head(directory);
        let synced = on_disk.map_or(0, |head| head.sequence);
        let head = Arc::new(Head::open(directory)?);
        let (mut segments, mut last, mut cut) = (list(directory)?, None, 0);
        let is_headless = on_disk.is_none() && !segments.is_empty();
        if on_disk.is_none() && segments.is_empty() {
            // Before the first record, so that a log that has begun is never without one.
            head.begin()?;
        }
        while let Some(segment) = segments.pop() {
            let tail = Tail::of(Lines::of(&segment)?, on_disk)?;
            if tail.newest.is_some() || tail.is_damaged || segment.first <= synced {
                last = Some((segment, tail));
                break;
            }
            // Not even its first record was finished.
            cut += tail.rest;
            fs::remove_file(&segment.path)?;
        }
        let whole = last.as_ref().and_then(|(segment, tail)| Some((segment, tail.whole, tail.whole_to(synced)?)));
        let mut damaged = None;
        let open = if let Some((segment, length, newest)) = whole {
            let file = Arc::new(OpenOptions::new().append(true).open(&segment.path)?);
            file.set_len(length)?;
            cut += last.as_ref().map_or(0, |(_, tail)| tail.rest);
            Open { file, month: segment.month, length, newest }
        } else if last.is_none() && synced == 0 {
            Open::begin(directory, Link::BIRTH, now)?
        } else {
            // What is there is left as it is, for whoever looks into it.
            let first = last.as_ref().map_or(0, |(segment, _)| segment.first);
            let found = last.and_then(|(_, tail)| tail.newest).map_or(first.saturating_sub(1), |link| link.sequence);
            damaged = Some(found);
            let from = on_disk.unwrap_or(Link::BIRTH);
            Open::begin(directory, Link { sequence: synced.max(found).max(first), ..from }, now)?
        };
        let mut log = Self { directory: directory.to_path_buf(), open, ragged: false, head, _lock: lock };
        if let Some(found) = damaged {
            log.say(now, &Note::Damaged { at: now.to_string(), found })?;
        }
        if is_headless {
            log.say(now, &Note::HeadMissing { at: now.to_string() })?;
        }
        if cut > 0 {
            log.say(now, &Note::UnfinishedCut { at: now.to_string(), bytes: cut })?;
        }
        log.sync()?;
        Ok(log)
    }

    /// Writes records behind each other, all or none of them. `records` appends them to the bytes.
    pub(super) fn write(&mut self, at: Timestamp, records: impl FnOnce(&mut Link, &mut Vec<u8>)) -> io::Result<()> {
        if self.ragged {
            self.open.file.set_len(self.open.length)?;
            self.ragged = false;
        }
        if self.open.month != at.month() || self.open.length >= SEGMENT_BYTES {
            // Its records must not be on the disk later than those that come after them.
            self.sync()?;
            self.open = Open::begin(&self.directory, self.open.newest, at)?;
        }
        let Open { file, length, newest, .. } = &mut self.open;
        let (mut link, mut bytes) = (*newest, Vec::new());
        records(&mut link, &mut bytes);
        if let Err(error) = (&**file).write_all(&bytes) {
            self.ragged = file.set_len(*length).is_err();
            return Err(error);
        }
        (*newest, *length) = (link, *length + size(&bytes));
        Ok(())
    }

    /// Writes what the log says of itself.
    pub(super) fn say(&mut self, at: Timestamp, note: &Note) -> io::Result<()> {
        self.write(at, |link, out| append_note(link, out, note))
    }

    /// What has been written so far, for somebody to put it on the disk.
    pub(super) fn written(&self) -> Written {
        Written { file: self.open.file.clone(), head: self.head.clone(), newest: self.open.newest }
    }

    /// Puts everything on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.written().sync()
    }

    /// Removes the segments whose month ended more than so many months ago, and the keys of such months. The chain says so first.
    pub(super) fn expire(&mut self, now: Timestamp, keep_months: u32) -> io::Result<Option<Expired>> {
        let segments = list(&self.directory)?;
        let old = segments.iter().take_while(|segment| segment.month.end_after(keep_months) <= now).count();
        // The newest is being written.
        let old = old.min(segments.len().saturating_sub(1));
        let (gone, kept) = segments.split_at(old);
        let mut expired = None;
        if let Some((last, oldest_kept)) = gone.last().zip(kept.first()) {
            let until = oldest_kept.comes_from()?.ok_or_else(|| {
                let why = format!("{} does not begin as a segment does: verify the log", oldest_kept.name());
                io::Error::new(io::ErrorKind::InvalidData, why)
            })?;
            self.say(now, &Note::Removed { at: now.to_string(), until: until.sequence, hash: until.hash })?;
            self.sync()?;
            for segment in gone {
                fs::remove_file(&segment.path)?;
            }
            sync_directory(Some(&self.directory))?;
            expired = Some(Expired { segments: gone.len(), until: until.sequence, month: last.month });
        }
        MonthKeys::of(&self.directory).destroy(now, keep_months)?;
        Ok(expired)
    }
}

/// The segment that is written to.
struct Open {
    file: Arc<File>,
    month: Month,
    /// Of its whole records, in bytes.
    length: u64,
    newest: Link,
}

impl Open {
    /// Begins a segment behind this record.
    fn begin(directory: &Path, mut newest: Link, at: Timestamp) -> io::Result<Self> {
        let segment = Segment::new(directory, newest.sequence + 1, at.month());
        let note = Note::SegmentBegins { at: at.to_string(), before: newest.hash };
        let mut line = Vec::new();
        append_note(&mut newest, &mut line, &note);
        let file = Arc::new(segment.create(&line)?);
        Ok(Self { file, month: segment.month, length: size(&line), newest })
    }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// What was written, up to a record.
pub(super) struct Written {
    file: Arc<File>,
    head: Arc<Head>,
    newest: Link,
}

impl Written {
    /// Puts it on the disk, and notes that it is there.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.head.put(self.newest)
    }

    /// The newest record.
    pub(super) fn sequence(&self) -> u64 {
        self.newest.sequence
    }
}

/// What was removed because it was old enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// So many segments.
    pub segments: usize,
    /// The last record that was removed.
    pub until: u64,
    /// The month in which it was written.
    pub month: Month,
}

/// Removes what is old enough from a log to which nobody writes.
pub fn expire(directory: &Path, now: Timestamp, keep_months: u32) -> Result<Option<Expired>, OpenError> {
    let mut log = Log::open(directory, now)?;
    log.expire(now, keep_months).map_err(|source| OpenError::Io { directory: directory.into(), source })
}

pub(super) fn append_note(link: &mut Link, out: &mut Vec<u8>, note: &Note) {
    link.append(out, |out| {
        // Writing to a vector cannot fail.
        let _ = serde_json::to_writer(out, note);
    });
}

fn lock(directory: &Path) -> Result<File, TryLockError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(TryLockError::Error)?;
    let path = directory.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}
