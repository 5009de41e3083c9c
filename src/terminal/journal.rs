//! The journal of a terminal: what it has asked for and what it has sold while nobody could be asked, in a file that only this
//! terminal can read.
//!
//! Facts are added at the end and never changed, and each is on the disk before [`Journal::write`] returns; only then is anything
//! sent, or shown to the clerk. What they come to is a [`State`], folded anew when the journal is opened. A file with a hole in it
//! gives everything else that it holds, and says what it does not: it is copied aside first, as it was found.
//!
//! One process at a time: it holds the lock of the file beside it. When nothing is open, the file is written anew without what
//! nobody needs any more, the numbers of buyers first of all.

mod facts;
mod frames;
mod key;
mod state;

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

pub use facts::{Became, Buyer, EarlierElsewhere, Fact, Mark, Sale, Verdict, WhenAway};
use frames::{FileId, Found, Head, Seal};
use key::Key;
pub use key::NoKey;
pub(super) use state::Todo;
pub use state::{Earlier, Entry, Row, Stands, State};

use crate::ids::{SiteId, TerminalId};
use crate::time::Timestamp;

/// A file that has grown to this is written anew, when it is twice what it was then.
const WORTH_REWRITING: u64 = 1 << 18;
/// And any file after so long: numbers do not lie about in it.
const OLD: Duration = Duration::from_secs(86_400);

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// Another process has it.
    #[error("{} is in use by another process: one program at a counter at a time", .0.display())]
    InUse(PathBuf),
    /// There is no key for it.
    #[error(transparent)]
    Key(#[from] NoKey),
    /// The key does not open it.
    #[error(
        "{} does not open with this key: it is the key of another journal, or nothing of the file is whole; bring the key back, or \
         move the journal away",
        .0.display()
    )]
    WrongKey(PathBuf),
    /// It is another terminal's.
    #[error("{} is the journal of {whose}, and this is {us}: what was sold there is uploaded from there", path.display())]
    Others {
        /// The file.
        path: PathBuf,
        /// The site and the terminal that it belongs to.
        whose: String,
        /// The site and the terminal that this is.
        us: String,
    },
    /// It was written by another version.
    #[error("{} is of layout {layout}, and this program reads {}: open it with the program that wrote it", path.display(), frames::LAYOUT)]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        layout: u8,
    },
    /// It is something else.
    #[error("{} is not a journal: move it away, or name another file", .0.display())]
    NotAJournal(PathBuf),
    /// It cannot be read, or not be written.
    #[error("{} cannot be {what}: {error}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

/// It was not written down: nothing may be sent, sold or shown that relies on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be written into the journal {}, so nothing is sold: {why}", path.display())]
pub struct NotWritten {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub why: String,
}

/// What was wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that were no whole frame of it.
    pub skipped: u64,
    /// Bytes at the end, of a frame that was never finished. Nothing that relied on it was sent or shown.
    pub torn: u64,
    /// Frames that stood in the wrong place, or twice.
    pub misplaced: u64,
    /// Facts that are whole and say nothing that this program knows.
    pub not_understood: u64,
    /// The sequence numbers of facts that are lost.
    pub missing: Vec<Range<u64>>,
    /// How many facts were saved.
    pub saved: u64,
    /// The file as it was found.
    pub copy: PathBuf,
}

/// In one sentence.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { skipped, torn, misplaced, not_understood, missing, saved, copy } = self;
        let lost: u64 = missing.iter().map(|range| range.end - range.start).sum();
        write!(f, "the journal was damaged: {saved} facts were saved and at least {lost} are lost")?;
        for Range { start, end } in missing {
            write!(f, ", {start} to {}", end.saturating_sub(1))?;
        }
        write!(f, "; {skipped} bytes are of no fact, {torn} of one that was never finished")?;
        write!(f, ", {misplaced} facts stood in the wrong place, {not_understood} are not understood")?;
        write!(f, "; as it was found it stands in {}", copy.display())
    }
}

/// A journal that this process has open.
pub struct Journal {
    path: PathBuf,
    seal: Seal,
    book: Mutex<Book>,
    state: Mutex<State>,
    /// Held for as long as the journal is.
    lock: File,
}

/// Also while a process that was just begun by this one still has the file.
impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// The file, and how far it is whole.
struct Book {
    file: File,
    id: FileId,
    /// The sequence of the next fact.
    next: u64,
    length: u64,
    /// How long it was when it was written anew, and when that was.
    was: (u64, Timestamp),
    /// Why nothing is written any more, once nobody knows how it stands on the disk.
    broken: Option<String>,
}

impl Journal {
    /// Opens the journal of a terminal, or begins one where there is none. Its key is made with it.
    pub fn open(
        path: &Path,
        key: &Path,
        (site, terminal): (SiteId, TerminalId),
        now: Timestamp,
    ) -> Result<(Self, Option<Damage>), NotOpened> {
        let failed = |what| move |error| NotOpened::Disk { path: path.into(), what, error };
        if let Some(directory) = directory_of(path) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("given a directory"))?;
        }
        let lock = lock_beside(path)?;
        let exists = path.try_exists().map_err(failed("looked for"))?;
        let key = Key::load(key, !exists)?;
        let whose = format!("{site}/{terminal}");
        let seal = Seal::new(key.bytes(), whose.clone());
        let mut state = State::new(key.marker());
        if !exists {
            let book = Book::rewrite(path, &seal, &state, now).map_err(failed("begun"))?;
            return Ok((Self::of(path, seal, book, state, lock), None));
        }

        let bytes = fs::read(path).map_err(failed("read"))?;
        let head = seal.look_at_head(&bytes);
        let (from, file) = match head {
            Head::Ours(file, end) => (end, Some(file)),
            _ => (0, None),
        };
        let found = seal.look_through(&bytes, from, file);
        match head {
            Head::Others(whose_else) => {
                return Err(NotOpened::Others { path: path.into(), whose: whose_else, us: whose });
            }
            // A head alone may be damaged.
            _ if !found.facts.is_empty() => {}
            Head::Ours(..) => {}
            Head::Closed => return Err(NotOpened::WrongKey(path.into())),
            Head::Layout(layout) => return Err(NotOpened::Layout { path: path.into(), layout }),
            Head::Unknown => return Err(NotOpened::NotAJournal(path.into())),
        }
        let mut not_understood = 0;
        for plain in found.facts.values() {
            match postcard::take_from_bytes::<Fact>(plain) {
                Ok((fact, [])) => state.apply(fact),
                _ => not_understood += 1,
            }
        }
        let damage = damage(&found, not_understood);
        let damage = match damage {
            None => None,
            Some(damage) => Some(Damage { copy: copy_aside(path).map_err(failed("copied aside"))?, ..damage }),
        };
        // Without what nobody needs any more, and without the holes.
        let mut state = state.still_needed(now);
        let book = Book::rewrite(path, &seal, &state, now).map_err(failed("written anew"))?;
        // Not in the file: until there is another verdict, the old one is true.
        state.try_again(now);
        Ok((Self::of(path, seal, book, state, lock), damage))
    }

    fn of(path: &Path, seal: Seal, book: Book, state: State, lock: File) -> Self {
        Self { path: path.into(), seal, book: Mutex::new(book), state: Mutex::new(state), lock }
    }

    /// Writes down what is decided on how things stand, so that nothing comes between. When this returns, it is on the disk.
    pub fn write<T, E: From<NotWritten>>(
        &self,
        decide: impl FnOnce(&State) -> Result<(Vec<Fact>, T), E>,
    ) -> Result<T, E> {
        let mut book = held(&self.book);
        let (facts, answer) = decide(&held(&self.state))?;
        book.append(&self.seal, &facts).map_err(|why| NotWritten { path: self.path.clone(), why })?;
        let mut state = held(&self.state);
        facts.into_iter().for_each(|fact| state.apply(fact));
        Ok(answer)
    }

    /// How things stand. It never waits for the disk.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&held(&self.state))
    }

    /// Writes the file anew without what nobody needs any more, if nothing is open and it has become long or old.
    pub fn tidy(&self, now: Timestamp) -> Result<(), NotWritten> {
        let mut book = held(&self.book);
        let (length, at) = book.was;
        let is_long = book.length >= WORTH_REWRITING && book.length / 2 >= length;
        let is_due = (is_long || now.since(at) >= OLD) && book.broken.is_none();
        let needed = self.read(|state| (is_due && state.todo().next().is_none()).then(|| state.still_needed(now)));
        let Some(needed) = needed else { return Ok(()) };
        let not_written = |error: io::Error| NotWritten { path: self.path.clone(), why: error.to_string() };
        let new = Book::prepare(&self.path, &self.seal, &needed, now).map_err(not_written)?;
        if let Err(error) = publish(&self.path) {
            // Whether the old file or the new one has the name after a crash, nobody knows: only an opening will tell.
            book.broken = Some(error.to_string());
            return Err(not_written(error));
        }
        *book = new;
        *held(&self.state) = needed;
        Ok(())
    }
}

impl Book {
    /// A new file with these facts, in the place of the one that has the name. Killed at any point, this leaves the one or the
    /// other.
    fn rewrite(path: &Path, seal: &Seal, state: &State, now: Timestamp) -> io::Result<Self> {
        let book = Self::prepare(path, seal, state, now)?;
        publish(path)?;
        Ok(book)
    }

    /// The new file, which has not got its name yet.
    fn prepare(path: &Path, seal: &Seal, state: &State, now: Timestamp) -> io::Result<Self> {
        let mut id = FileId::default();
        getrandom::fill(&mut id).map_err(random)?;
        let mut bytes = seal.head(&id).map_err(random)?;
        let next = add(seal, &id, 0, &state.facts(), &mut bytes)?;
        let new = with_ending(path, "new");
        // What a crash has left under this name is not open anywhere: the lock is ours.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = || {
            let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = written().inspect_err(|_: &io::Error| drop(fs::remove_file(&new)))?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(Self { file, id, next, length, was: (length, now), broken: None })
    }

    /// Adds facts, all of them or none.
    fn append(&mut self, seal: &Seal, facts: &[Fact]) -> Result<(), String> {
        if facts.is_empty() {
            return Ok(());
        }
        if let Some(why) = &self.broken {
            return Err(why.clone());
        }
        let mut bytes = Vec::new();
        let next = add(seal, &self.id, self.next, facts, &mut bytes).map_err(|error| error.to_string())?;
        if let Err(error) = self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            // Of what is not whole nothing may be left, or it would be believed the next time.
            let cut = self.file.set_len(self.length).and_then(|()| self.file.sync_data());
            if let Err(worse) = cut {
                self.broken = Some(format!("{error}, and it could not be cut back: {worse}; start the program again"));
            }
            return Err(error.to_string());
        }
        self.next = next;
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

/// Gives the new file its name.
fn publish(path: &Path) -> io::Result<()> {
    fs::rename(with_ending(path, "new"), path)?;
    sync_directory(directory_of(path))
}

/// Adds a frame for each fact, and gives the sequence of the next.
fn add(seal: &Seal, file: &FileId, first: u64, facts: &[Fact], into: &mut Vec<u8>) -> io::Result<u64> {
    let mut next = first;
    for fact in facts {
        let plain = postcard::to_stdvec(fact).map(Zeroizing::new).map_err(io::Error::other)?;
        if plain.len() > frames::LONGEST {
            return Err(io::Error::other("a name or a number in it is far too long"));
        }
        seal.frame(file, next, &plain, into).map_err(random)?;
        next += 1;
    }
    Ok(next)
}

/// `None`: the file is whole.
fn damage(found: &Found, not_understood: u64) -> Option<Damage> {
    let Found { skipped, torn, misplaced, .. } = *found;
    let missing = found.missing();
    let is_whole = skipped + torn + misplaced + not_understood == 0 && missing.is_empty();
    let all = u64::try_from(found.facts.len()).unwrap_or(u64::MAX);
    let saved = all.saturating_sub(not_understood);
    let copy = PathBuf::new();
    (!is_whole).then_some(Damage { skipped, torn, misplaced, not_understood, missing, saved, copy })
}

/// Copies a file under the first name that is free.
fn copy_aside(path: &Path) -> io::Result<PathBuf> {
    let mut nth = 1_u32;
    let (copy, mut into) = loop {
        let copy = with_ending(path, &format!("damaged-{nth}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => nth += 1,
            opened => break (copy, opened?),
        }
    };
    let copied = File::open(path).and_then(|mut from| io::copy(&mut from, &mut into)).and_then(|_| into.sync_all());
    copied.inspect_err(|_| drop(fs::remove_file(&copy)))?;
    sync_directory(directory_of(path))?;
    Ok(copy)
}

/// The lock has a file of its own, because the journal's changes when it is written anew.
fn lock_beside(path: &Path) -> Result<File, NotOpened> {
    let failed = |error| NotOpened::Disk { path: path.into(), what: "locked", error };
    let beside = with_ending(path, "lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside);
    let lock = opened.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(NotOpened::InUse(path.into())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The name with something behind it.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn directory_of(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// A new name is on the disk when its directory is.
fn sync_directory(directory: Option<&Path>) -> io::Result<()> {
    directory.map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn random(error: getrandom::Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// What is under these locks is whole whenever they are free.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
