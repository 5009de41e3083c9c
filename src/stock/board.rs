//! The board: the newest picture of every stock, and what has changed of late, for whoever looks or watches. All in memory.
//!
//! A watcher asks for some more when it has room for it, and is told the newest of each stock, however many changes it has slept
//! through. It keeps a version and the site that it was told of last, never rows or an old picture: one who is slow costs nobody
//! anything. Whose version is too old begins anew.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use uuid::Uuid;

use crate::ids::{ProgrammeCode, SiteId};
use crate::time::Timestamp;

use super::{Key, Shown};

/// How resume tokens begin: those of another form are none.
const FORM: u8 = 1;

/// How many changes are remembered: as many as there are sites, eight times over. At 25 bytes each.
const CHANGES: usize = 200_000;

/// Everything that is shown, at one version of it.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// Counted up with every change.
    pub version: u64,
    /// Until when everything that happened is in it; `None`: nothing was read yet.
    pub read_until: Option<Timestamp>,
    /// In the order of the keys.
    pub rows: Vec<(Key, Shown)>,
}

impl Picture {
    /// What is shown of this stock; `None`: nobody knows.
    pub fn get(&self, key: Key) -> Option<&Shown> {
        let nth = self.rows.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.rows.get(nth).map(|(_, shown)| shown)
    }

    /// The stocks of a programme, in the order of the sites.
    pub fn of(&self, programme: ProgrammeCode) -> &[(Key, Shown)] {
        let begins = self.rows.partition_point(|(key, _)| key.programme < programme);
        let ends = self.rows.partition_point(|(key, _)| key.programme <= programme);
        self.rows.get(begins..ends).unwrap_or_default()
    }
}

/// Where a watcher stands, for when it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    run: Uuid,
    version: u64,
    programme: ProgrammeCode,
    scope: String,
}

/// Why a watcher is told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has just begun.
    Begins,
    /// What has changed since is not remembered.
    TooOld,
}

/// What a watcher is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// What it has is void.
    Anew(Why),
    /// These stocks are so now, in the order of the sites; `None`: nothing is known of it any more.
    Changes(Vec<(SiteId, Option<Shown>)>),
    /// It has everything that had happened until then; `None`: nothing was read yet.
    Reached(Option<Timestamp>),
}

/// Whoever watches the stocks of a programme: all that is kept for it.
#[derive(Debug)]
pub struct Watcher {
    board: Board,
    programme: ProgrammeCode,
    /// It has everything of this version.
    seen: u64,
    at: At,
}

/// How far a watcher is.
#[derive(Debug)]
enum At {
    /// It is to be told that what it has is void.
    Void(Why),
    /// It is being told what is otherwise than in the version that it has seen, or everything, up to this version at least.
    /// `ends`: that was all.
    Told { of: Of, until: u64, read_until: Option<Timestamp>, last: Option<SiteId>, ends: bool },
    /// It has been told all of it.
    Rests,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Everything,
    Changes,
}

/// The board. Clones share everything.
#[derive(Clone)]
pub struct Board(Arc<Inner>);

struct Inner {
    /// Of this process: versions mean nothing in another.
    run: Uuid,
    picture: ArcSwap<Picture>,
    changes: Mutex<Changes>,
    published: watch::Sender<u64>,
    /// Held by whoever publishes.
    publishing: Mutex<()>,
}

#[derive(Default)]
struct Changes {
    /// Which stocks a version made otherwise, oldest first. How, the picture says.
    kept: VecDeque<(u64, Arc<[Key]>)>,
    /// Of how many stocks.
    count: usize,
    /// Changes of versions up to this one are not remembered.
    forgotten: u64,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Board(version {})", self.0.picture.load().version)
    }
}

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(Inner {
            run: Uuid::new_v4(),
            picture: ArcSwap::default(),
            changes: Mutex::default(),
            published: watch::Sender::new(0),
            publishing: Mutex::default(),
        }))
    }
}

impl Board {
    /// The newest picture.
    pub fn picture(&self) -> Arc<Picture> {
        self.0.picture.load_full()
    }

    /// Puts up what is shown now, in the order of the keys.
    pub fn publish(&self, rows: Vec<(Key, Shown)>, read_until: Option<Timestamp>) {
        let _alone = self.0.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_up(rows, read_until);
    }

    /// Marks everything stale that is there: whoever publishes has not done so for too long.
    pub fn go_stale(&self) {
        let _alone = self.0.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let picture = self.picture();
        if picture.rows.iter().any(|(_, shown)| !shown.stale) {
            let rows = picture.rows.iter().map(|(key, shown)| (*key, Shown { stale: true, ..*shown }));
            self.put_up(rows.collect(), picture.read_until);
        }
    }

    fn put_up(&self, rows: Vec<(Key, Shown)>, read_until: Option<Timestamp>) {
        let before = self.picture();
        let changed = changed(&before.rows, &rows);
        let version = before.version + u64::from(!changed.is_empty());
        // Remembered before it is shown: whoever sees the picture finds what has led to it.
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner).remember(version, changed);
        self.0.picture.store(Arc::new(Picture { version, read_until, rows }));
        self.0.published.send_replace(version);
    }

    /// Told of every publication; holds the version.
    pub fn published(&self) -> watch::Receiver<u64> {
        self.0.published.subscribe()
    }

    /// Somebody watches this programme from the beginning.
    pub fn watch(&self, programme: ProgrammeCode) -> Watcher {
        Watcher { board: self.clone(), programme, seen: 0, at: At::Void(Why::Begins) }
    }

    /// Somebody goes on watching from there.
    pub fn watch_from(&self, resume: &Resume) -> Watcher {
        // Versions of another process are other pictures.
        let known = resume.run == self.0.run && resume.version <= self.picture().version;
        let at = if known { At::Rests } else { At::Void(Why::TooOld) };
        Watcher { board: self.clone(), programme: resume.programme, seen: resume.version, at }
    }

    /// Which stocks have become otherwise since this version, by versions; `None`: that is not remembered.
    fn since(&self, version: u64) -> Option<Vec<Arc<[Key]>>> {
        // Nothing else is done under the lock: who publishes waits for it.
        let changes = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if version < changes.forgotten {
            return None;
        }
        let begins = changes.kept.partition_point(|(of, _)| *of <= version);
        Some(changes.kept.range(begins..).map(|(_, keys)| keys.clone()).collect())
    }
}

impl Changes {
    fn remember(&mut self, version: u64, changed: Vec<Key>) {
        if changed.is_empty() {
            return;
        }
        self.count += changed.len();
        self.kept.push_back((version, changed.into()));
        while self.count > CHANGES
            && let Some((version, keys)) = self.kept.pop_front()
        {
            self.count -= keys.len();
            self.forgotten = version;
        }
    }
}

impl Watcher {
    /// What is told next, of the sites that are ours and at most so many rows; `None`: nothing, until somebody publishes. `due`: it
    /// is told also if nothing has changed how far everything is read.
    ///
    /// Rows are read from the picture of this moment, and the version that the watcher has seen then is that of the moment in which
    /// it began to be told: what changed meanwhile is told again.
    pub fn next(&mut self, most: usize, due: bool, ours: impl Fn(SiteId) -> bool) -> Option<Next> {
        let picture = self.board.picture();
        let begins =
            |of| At::Told { of, until: picture.version, read_until: picture.read_until, last: None, ends: false };
        loop {
            match &mut self.at {
                At::Void(why) => {
                    let why = *why;
                    self.at = begins(Of::Everything);
                    return Some(Next::Anew(why));
                }
                At::Rests if picture.version == self.seen && !due => return None,
                At::Rests => self.at = begins(Of::Changes),
                At::Told { of, until, read_until, last, ends } => {
                    let rows = match of {
                        _ if *ends => Some(Vec::new()),
                        Of::Everything => Some(everything(&picture, self.programme, *last, most, &ours)),
                        Of::Changes => {
                            let since = self.board.since(self.seen);
                            since.map(|since| changes(&picture, &since, self.programme, *last, most, &ours))
                        }
                    };
                    let Some(rows) = rows else {
                        self.at = At::Void(Why::TooOld);
                        continue;
                    };
                    return Some(if let Some((site, _)) = rows.last() {
                        (*last, *ends) = (Some(*site), rows.len() < most);
                        Next::Changes(rows)
                    } else {
                        let read_until = *read_until;
                        self.seen = *until;
                        self.at = At::Rests;
                        Next::Reached(read_until)
                    });
                }
            }
        }
    }

    /// Where it stands by everything that it was told last; `scope` says of what, and comes back with it.
    pub fn resume(&self, scope: &str) -> Resume {
        Resume { run: self.board.0.run, version: self.seen, programme: self.programme, scope: scope.to_owned() }
    }
}

/// The next rows of the picture.
fn everything(
    picture: &Picture,
    programme: ProgrammeCode,
    last: Option<SiteId>,
    most: usize,
    ours: impl Fn(SiteId) -> bool,
) -> Vec<(SiteId, Option<Shown>)> {
    let rows = picture.of(programme);
    let begins = last.map_or(0, |last| rows.partition_point(|(key, _)| key.site <= last));
    let rows = rows.get(begins..).unwrap_or_default().iter().filter(|(key, _)| ours(key.site));
    rows.take(most).map(|(key, shown)| (key.site, Some(*shown))).collect()
}

/// The next of the rows that have changed, as the picture has them.
fn changes(
    picture: &Picture,
    since: &[Arc<[Key]>],
    programme: ProgrammeCode,
    last: Option<SiteId>,
    most: usize,
    ours: impl Fn(SiteId) -> bool,
) -> Vec<(SiteId, Option<Shown>)> {
    let mut next = BTreeSet::new();
    for key in since.iter().flat_map(|keys| keys.iter()) {
        let is_next = key.programme == programme && last.is_none_or(|last| key.site > last);
        // Only the first of them are kept.
        let is_early = next.len() < most || next.last().is_some_and(|latest| key.site < *latest);
        if is_next && is_early && ours(key.site) && next.insert(key.site) && next.len() > most {
            next.pop_last();
        }
    }
    next.into_iter().map(|site| (site, picture.get(Key { programme, site }).copied())).collect()
}

impl Resume {
    /// Whose stocks are watched.
    pub fn programme(&self) -> ProgrammeCode {
        self.programme
    }

    /// What [`Watcher::resume`] was told.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// As it is given to watchers.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (version, code) = (self.version.to_be_bytes(), self.programme.as_str());
        // A code has no space in it.
        [&[FORM], self.run.as_bytes().as_slice(), &version, code.as_bytes(), b" ", self.scope.as_bytes()].concat()
    }

    /// What [`Resume::to_bytes`] has made; `None`: it was never given to anybody.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (run, rest) = bytes.strip_prefix(&[FORM])?.split_first_chunk::<16>()?;
        let (version, rest) = rest.split_first_chunk::<8>()?;
        let (code, scope) = std::str::from_utf8(rest).ok()?.split_once(' ')?;
        let (run, version) = (Uuid::from_bytes(*run), u64::from_be_bytes(*version));
        Some(Self { run, version, programme: code.parse().ok()?, scope: scope.to_owned() })
    }
}

/// What is otherwise in the second of two pictures. Both are in the order of the keys.
fn changed(before: &[(Key, Shown)], now: &[(Key, Shown)]) -> Vec<Key> {
    let mut changed = Vec::new();
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    loop {
        match (before.peek(), now.peek()) {
            (Some((was, _)), Some((is, _))) if was == is => {
                if let (Some((_, was)), Some((key, is))) = (before.next(), now.next())
                    && was != is
                {
                    changed.push(*key);
                }
            }
            (Some((was, _)), is) if is.is_none_or(|(is, _)| was < is) => {
                changed.push(*was);
                before.next();
            }
            (_, Some((key, _))) => {
                changed.push(*key);
                now.next();
            }
            (_, None) => return changed,
        }
    }
}

#[cfg(test)]
mod tests;
