//! The door's file: a redb database with a row per site and the logical time of the last commit.
//!
//! Layout 3, integers big-endian. Table `gate`: `layout` → 3, `now` → logical milliseconds, `seq` → the last number given
//! out in the line, `version` → of the switches. Table `texts`: `switches` → their document, `ramped` → the codes of the
//! sites that have come off the ramp, with blanks between. Table `sites`: a site's code → its last fence (8 bytes), then for
//! each seat slot (2), fence (8), granted at (8), length of the terminal's name (1) and the name. Table `places`: a site's
//! code → for each place slot (2), seq (8), length of the name (1) and the name; a seat that its terminal has not come for stands
//! there too, with the number of the place that it was. When a seat was renewed, when it sold and
//! when a place is due is not kept: after a restart every seat counts as renewed and every place as due.
//!
//! Layout 1 had no line and no switches: it lacks `texts`, `places`, `seq` and `version`. In layout 2 no seat stood among the
//! places. Both are taken over as they stand.
//!
//! Knows nothing about rules or threads.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::ids::SiteId;
use crate::session::Kept as Switches;
use crate::session::limiter::{Gate, Held, SiteSlots, Waiting};

const GATE: TableDefinition<'_, &str, u64> = TableDefinition::new("gate");
const SITES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sites");
const PLACES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("places");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");
const LAYOUT: u64 = 3;
/// A few megabytes hold every site of a country; redb would take a gigabyte.
const CACHE_BYTES: usize = 8 << 20;

/// Why the file of the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorFileError {
    /// Another process has it.
    #[error("{} is in use by another process; stop that one, or give this one a data directory of its own", .0.display())]
    InUse(PathBuf),
    /// It was written by another version.
    #[error("{} has layout {layout} and this version knows {LAYOUT}; use the version that wrote it", .path.display())]
    OtherLayout {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        layout: u64,
    },
    /// It is not a file of the door, or is damaged.
    #[error("{} cannot be used as the door's file: {why}; restore it, or move it away: every terminal then signs in anew", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The open file. One process at a time.
#[derive(Debug)]
pub(super) struct DoorFile(Database);

type Places = BTreeMap<u16, Box<Waiting>>;

/// What the file holds: what stands beside the sites, and each site's seats and places.
pub(super) type Kept = (Gate, Vec<(SiteId, SiteSlots)>);

impl DoorFile {
    /// Opens the file. A missing one is made under another name and appears under its own only when it is whole, so that a
    /// crash leaves no half file.
    pub(super) fn open(path: &Path) -> Result<(Self, Kept), DoorFileError> {
        let unreadable = |why: String| DoorFileError::Unreadable { path: path.to_owned(), why };
        if !path.try_exists().map_err(|error| unreadable(error.to_string()))? {
            give_birth(path).map_err(|error| unreadable(error.to_string()))?;
        }
        let database = builder().open(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => DoorFileError::InUse(path.to_owned()),
            other => unreadable(other.to_string()),
        })?;
        let layout = layout(&database).map_err(|error| unreadable(error.to_string()))?;
        let layout = layout.ok_or_else(|| unreadable("it names no layout".into()))?;
        if (1..LAYOUT).contains(&layout) {
            take_over(&database).map_err(|error| unreadable(error.to_string()))?;
        } else if layout != LAYOUT {
            return Err(DoorFileError::OtherLayout { path: path.to_owned(), layout });
        }
        let file = Self(database);
        let kept = file.load().map_err(|error| unreadable(error.to_string()))?;
        let kept = kept.ok_or_else(|| unreadable("a row does not have the layout".into()))?;
        Ok((file, kept))
    }

    /// Writes these sites and the gate in one transaction; on disk when this returns.
    pub(super) fn save<'a>(
        &self,
        gate: &Gate,
        sites: impl Iterator<Item = (SiteId, &'a SiteSlots)>,
    ) -> Result<(), redb::Error> {
        let write = self.0.begin_write()?;
        {
            let mut numbers = write.open_table(GATE)?;
            numbers.insert("now", gate.now_ms)?;
            numbers.insert("seq", gate.seq)?;
            numbers.insert("version", gate.switches.version)?;
            let mut texts = write.open_table(TEXTS)?;
            texts.insert("switches", gate.switches.document.as_str())?;
            let ramped: Vec<&str> = gate.ramped.iter().map(SiteId::as_str).collect();
            texts.insert("ramped", ramped.join(" ").as_str())?;
            let (mut seats, mut places) = (write.open_table(SITES)?, write.open_table(PLACES)?);
            for (site, here) in sites {
                seats.insert(site.as_str(), pack(here).as_slice())?;
                let line = pack_places(here);
                if line.is_empty() {
                    places.remove(site.as_str())?;
                } else {
                    places.insert(site.as_str(), line.as_slice())?;
                }
            }
        }
        Ok(write.commit()?)
    }

    /// `None` when a row cannot be read.
    fn load(&self) -> Result<Option<Kept>, redb::Error> {
        let read = self.0.begin_read()?;
        let (numbers, texts) = (read.open_table(GATE)?, read.open_table(TEXTS)?);
        let number = |name: &str| Ok::<_, redb::Error>(numbers.get(name)?.map_or(0, |number| number.value()));
        let text =
            |name: &str| Ok::<_, redb::Error>(texts.get(name)?.map(|t| t.value().to_owned()).unwrap_or_default());
        let Ok(ramped) = text("ramped")?.split_whitespace().map(str::parse).collect() else { return Ok(None) };
        let gate = Gate {
            now_ms: number("now")?,
            seq: number("seq")?,
            switches: Switches { version: number("version")?, document: text("switches")? },
            ramped,
        };
        let places = read.open_table(PLACES)?;
        let mut sites = Vec::new();
        for row in read.open_table(SITES)?.iter()? {
            let (site, bytes) = row?;
            let waiting = places.get(site.value())?.map(|bytes| unpack_places(bytes.value()));
            let (Ok(site), Some(mut here)) = (site.value().parse(), unpack(bytes.value())) else { return Ok(None) };
            match waiting {
                None => {}
                Some(Some(places)) => here.places = but_for_seats(places, &mut here.seats),
                Some(None) => return Ok(None),
            }
            sites.push((site, here));
        }
        Ok(Some((gate, sites)))
    }
}

/// Makes a file of an earlier layout one of this layout: what it lacks is empty.
fn take_over(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(GATE)?.insert("layout", LAYOUT)?;
    write.open_table(PLACES)?;
    write.open_table(TEXTS)?;
    Ok(write.commit()?)
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn give_birth(path: &Path) -> Result<(), redb::Error> {
    let random = getrandom::u64().map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
    let mut unborn = path.as_os_str().to_owned();
    unborn.push(format!(".{random:016x}"));
    let unborn = PathBuf::from(unborn);
    let born = (|| {
        let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unborn)?;
        let database = builder().create_with_backend(FileBackend::new(created)?)?;
        let write = database.begin_write()?;
        write.open_table(GATE)?.insert("layout", LAYOUT)?;
        write.open_table(SITES)?;
        write.open_table(PLACES)?;
        write.open_table(TEXTS)?;
        write.commit()?;
        drop(database);
        // A link, unlike a rename, never takes the place of a file that another process made meanwhile.
        match std::fs::hard_link(&unborn, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(File::open(directory)?.sync_all()?)
    })();
    // The second name is of no use any more; if it cannot be removed it does no harm.
    let _ = std::fs::remove_file(&unborn);
    born
}

/// The layout of the file; `None` when it names none.
fn layout(database: &Database) -> Result<Option<u64>, redb::Error> {
    Ok(database.begin_read()?.open_table(GATE)?.get("layout")?.map(|layout| layout.value()))
}

fn pack(here: &SiteSlots) -> Vec<u8> {
    let mut bytes = here.fence.to_be_bytes().to_vec();
    for (slot, held) in &here.seats {
        let terminal = held.terminal.as_str().as_bytes();
        bytes.extend_from_slice(&slot.to_be_bytes());
        bytes.extend_from_slice(&held.fence.to_be_bytes());
        bytes.extend_from_slice(&held.granted_ms.to_be_bytes());
        bytes.push(u8::try_from(terminal.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(terminal);
    }
    bytes
}

fn unpack(bytes: &[u8]) -> Option<SiteSlots> {
    let (fence, mut rest) = bytes.split_first_chunk()?;
    let mut seats = BTreeMap::new();
    while !rest.is_empty() {
        let (slot, more) = rest.split_first_chunk()?;
        let (fence, more) = more.split_first_chunk()?;
        let (granted, more) = more.split_first_chunk()?;
        let (&length, more) = more.split_first()?;
        let (terminal, more) = more.split_at_checked(usize::from(length))?;
        let held = Held {
            terminal: std::str::from_utf8(terminal).ok()?.parse().ok()?,
            fence: u64::from_be_bytes(*fence),
            granted_ms: u64::from_be_bytes(*granted),
            renewed_ms: 0,
            sold_ms: 0,
            place: None,
        };
        seats.insert(u16::from_be_bytes(*slot), Box::new(held));
        rest = more;
    }
    Some(SiteSlots { fence: u64::from_be_bytes(*fence), seats, places: BTreeMap::new() })
}

fn pack_places(here: &SiteSlots) -> Vec<u8> {
    let granted = here.seats.iter().filter_map(|(slot, held)| Some((slot, held.terminal, held.place?)));
    let places = here.places.iter().map(|(slot, waiting)| (slot, waiting.terminal, waiting.seq));
    let mut bytes = Vec::new();
    for (slot, terminal, seq) in granted.chain(places) {
        let terminal = terminal.as_str().as_bytes();
        bytes.extend_from_slice(&slot.to_be_bytes());
        bytes.extend_from_slice(&seq.to_be_bytes());
        bytes.push(u8::try_from(terminal.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(terminal);
    }
    bytes
}

/// The places, after the seats among them are told what they were.
fn but_for_seats(mut places: Places, seats: &mut BTreeMap<u16, Box<Held>>) -> Places {
    for (slot, held) in seats {
        held.place = places.remove(slot).map(|was| was.seq);
    }
    places
}

fn unpack_places(mut rest: &[u8]) -> Option<Places> {
    let mut places = BTreeMap::new();
    while !rest.is_empty() {
        let (slot, more) = rest.split_first_chunk()?;
        let (seq, more) = more.split_first_chunk()?;
        let (&length, more) = more.split_first()?;
        let (terminal, more) = more.split_at_checked(usize::from(length))?;
        let waiting = Waiting {
            terminal: std::str::from_utf8(terminal).ok()?.parse().ok()?,
            seq: u64::from_be_bytes(*seq),
            due_ms: 0,
            absent: false,
        };
        places.insert(u16::from_be_bytes(*slot), Box::new(waiting));
        rest = more;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_back_and_a_damaged_one_is_not() {
        let held = |terminal: &str, fence| Held {
            terminal: terminal.parse().unwrap(),
            fence,
            granted_ms: 1_234,
            renewed_ms: 0,
            sold_ms: 0,
            place: None,
        };
        let waiting = |terminal: &str, seq| {
            Box::new(Waiting { terminal: terminal.parse().unwrap(), seq, due_ms: 0, absent: false })
        };
        let mut here = SiteSlots {
            fence: 9,
            seats: [(0, held("POS-1", 7)), (513, held("POS-2", 9))].map(|(slot, held)| (slot, Box::new(held))).into(),
            places: [(1, waiting("POS-3", 1 << 39)), (2, waiting("p", 4))].into(),
        };
        here.seats.get_mut(&513).unwrap().place = Some(12);
        let (bytes, places) = (pack(&here), pack_places(&here));
        let mut back = unpack(&bytes).unwrap();
        back.places = but_for_seats(unpack_places(&places).unwrap(), &mut back.seats);
        assert_eq!(back, here);
        for damaged in [&bytes[..bytes.len() - 1], &bytes[..7]] {
            assert_eq!(unpack(damaged), None);
        }
        for damaged in [&places[..places.len() - 1], &places[..9]] {
            assert_eq!(unpack_places(damaged), None);
        }
    }

    #[test]
    fn a_file_of_an_earlier_layout_is_taken_over() {
        for layout in [0, 1, 2, 3] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("door.redb");
            let database = builder().create(&path).unwrap();
            let write = database.begin_write().unwrap();
            write.open_table(GATE).unwrap().insert("layout", layout).unwrap();
            let here = SiteSlots { fence: 3, ..SiteSlots::default() };
            write.open_table(SITES).unwrap().insert("s", pack(&here).as_slice()).unwrap();
            write.commit().unwrap();
            drop(database);
            if !(1..=2).contains(&layout) {
                assert!(DoorFile::open(&path).is_err(), "unknown, or not whole");
                continue;
            }
            for _ in 0..2 {
                let (file, (gate, sites)) = DoorFile::open(&path).unwrap();
                assert_eq!((gate, sites.len(), &sites[0].1), (Gate::default(), 1, &here));
                drop(file);
            }
        }
    }
}
