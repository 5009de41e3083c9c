//! The redb file: where it lies, what stands in it, and everything that can be wrong with it when it is opened.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `kind`, `layout`, `ledger_id`; the [`Terms`]: `keys` (the ring of keys that every record is written under) and since when (`turned`), `clock` and for each code `programme:km` | text |
//! | `records` | programme code (4 bytes, padded with zeros), partition, pseudonym (16 bytes) | packed entries, each as name (16 bytes), length (1 byte), value |
//! | `outbox` | partition, sequence from 1 | the event's kind, a space and its value (see [`outbox`]); the newest [`OUTBOX_EVENTS`](crate::ledger::OUTBOX_EVENTS) |
//!
//! The programme comes first in a record's key, so that a sweep of one programme reads one range.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
};

use crate::buyer::{BuyerKey, Neighbour, OtherRing, Pseudonym};
use crate::ids::{LedgerId, ProgrammeCode, TerminalId};
use crate::ledger::outbox::{self, After, PARTITIONS, Place, Told};
use crate::ledger::terms::{KEYS, TURNED};
use crate::ledger::{Event, Exported, OtherTerms, Record, RecordKey, Terms, packed};

/// The ledger's file in its directory.
pub const FILE_NAME: &str = "ledger.redb";

/// What redb writes at the beginning of every file of its own.
const REDB_MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// Memory for pages; redb would take 1 GiB. Records of a country's buyers are small and touched at random, so that more
/// would buy little.
const PAGE_CACHE_BYTES: usize = 64 << 20;
/// The most records that one step of an export reads.
const EXPORT_RECORDS: usize = 256;
const KIND: &str = "rationd ledger";
/// Counted up whenever the tables above change their meaning.
const LAYOUT: u32 = 2;

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
pub(super) const RECORDS: TableDefinition<'_, &[u8; KEY_BYTES], &[u8]> = TableDefinition::new("records");
pub(super) const OUTBOX: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("outbox");

const KEY_BYTES: usize = 21;
pub(super) type Key = [u8; KEY_BYTES];

/// Why the ledger's file cannot be used. Nothing that stands in it is lost by trying.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it, or another handle of this one.
    #[error("{} is in use by another process; stop that one, or give this one another directory", file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// Something else stands there under that name.
    #[error("{} is not a ledger of rationd; move it away, or name another directory", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// It was a ledger, and is cut short or altered.
    #[error("{} is damaged ({why}); put a whole copy in its place; no record in it was touched", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What redb or the layout missed.
        why: String,
    },
    /// It was begun under another key file. Under this one every buyer would be a stranger, and could buy again.
    #[error("{}: {other}", file.display())]
    OtherKeys {
        /// The file.
        file: PathBuf,
        /// How they differ.
        other: OtherRing,
    },
    /// It was begun under a simulated clock and is to be used for real sales, or the reverse.
    #[error("{}: {}", file.display(), OtherTerms::Clock { simulated: *simulated })]
    OtherClock {
        /// The file.
        file: PathBuf,
        /// Whether the file's clock is simulated.
        simulated: bool,
    },
    /// In it a programme's code stands for something else.
    #[error("{}: {}", file.display(), OtherTerms::Programme { code: *code, stands: stands.clone(), given: given.clone() })]
    OtherProgramme {
        /// The file.
        file: PathBuf,
        /// The code.
        code: ProgrammeCode,
        /// What it stands for in the file.
        stands: String,
        /// What it was to stand for.
        given: String,
    },
    /// It was written by a later version of this program.
    #[error("{} has layout {found}, and this version understands layout {LAYOUT} alone; run the version that wrote it", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// The layout that stands in it.
        found: String,
    },
    /// The operating system does not let this process read and write it.
    #[error("{} may not be read and written by this user; give the file and its directory to the user that runs rationd", file.display())]
    Denied {
        /// The file or the directory.
        file: PathBuf,
    },
    /// Anything else that the operating system said.
    #[error("{} cannot be opened: {source}", file.display())]
    Io {
        /// The file or the directory.
        file: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

/// Why something could not be read from an open ledger.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The bytes are there and mean nothing.
    Corrupt(String),
    /// redb could not give them.
    Store(String),
    /// They are written under another turn of the key ring.
    OtherRing(OtherRing),
}

fn store(error: impl std::fmt::Display) -> ReadError {
    ReadError::Store(error.to_string())
}

/// The open file and the ledger's id. A missing file is made under another name and appears under its own only when it is
/// whole, so that a crash at birth leaves no half ledger and a file that is there is never taken for a new one.
pub(super) fn open(directory: &Path, terms: &Terms) -> Result<(Database, LedgerId), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| io(directory, e))?;
    let file = directory.join(FILE_NAME);
    if !file.try_exists().map_err(|e| io(&file, e))? {
        give_birth(directory, &file, terms)?;
    }
    let mut magic = [0; REDB_MAGIC.len()];
    match File::open(&file).and_then(|mut opened| opened.read_exact(&mut magic)) {
        Ok(()) if &magic == REDB_MAGIC => {}
        Ok(()) => return Err(OpenError::Foreign { file }),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(OpenError::Damaged { file, why: "it is cut short".to_owned() });
        }
        Err(error) => return Err(io(&file, error)),
    }
    let database = builder().open(&file).map_err(|e| unusable(&file, e))?;
    let id = agree(&database, &file, terms)?;
    Ok((database, id))
}

/// The same on another disk than a file: an empty one becomes a new ledger.
pub(super) fn open_backend(
    backend: impl redb::StorageBackend,
    terms: &Terms,
) -> Result<(Database, LedgerId), OpenError> {
    let name = Path::new("(a disk of a test)");
    let database = builder().create_with_backend(backend).map_err(|e| unusable(name, e))?;
    if let Err(OpenError::Foreign { .. }) = agree(&database, name, terms) {
        write_meta(&database, terms).map_err(|error| damaged(name, error))?;
    }
    let id = agree(&database, name, terms)?;
    Ok((database, id))
}

fn give_birth(directory: &Path, file: &Path, terms: &Terms) -> Result<(), OpenError> {
    let unborn = directory.join(format!("{FILE_NAME}.{}", LedgerId::random()));
    let born = (|| {
        let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unborn);
        let backend = FileBackend::new(created.map_err(|e| io(&unborn, e))?).map_err(|e| unusable(&unborn, e))?;
        let database = builder().create_with_backend(backend).map_err(|e| unusable(&unborn, e))?;
        write_meta(&database, terms).map_err(|error| damaged(&unborn, error))?;
        drop(database);
        // A link, unlike a rename, never takes the place of a ledger that another process made meanwhile.
        match std::fs::hard_link(&unborn, file) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(io(file, error)),
            _ => File::open(directory).and_then(|opened| opened.sync_all()).map_err(|e| io(directory, e)),
        }
    })();
    // The second name is of no use any more; if it cannot be removed it does no harm.
    let _ = std::fs::remove_file(&unborn);
    born
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(PAGE_CACHE_BYTES);
    builder
}

fn write_meta(database: &Database, terms: &Terms) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("kind", KIND)?;
        meta.insert("layout", LAYOUT.to_string().as_str())?;
        for (name, text) in terms.at_birth() {
            meta.insert(name, text.as_str())?;
        }
        for (name, text) in terms.of_programmes() {
            meta.insert(name.as_str(), text)?;
        }
        meta.insert("ledger_id", LedgerId::random().to_string().as_str())?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(OUTBOX)?;
    }
    transaction.commit()?;
    Ok(())
}

/// What stands in the file's own table.
fn read_meta(database: &Database) -> Result<HashMap<String, String>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let rows = meta.iter()?.map(|row| row.map(|(name, text)| (name.value().to_owned(), text.value().to_owned())));
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The ledger's id, if the file is a ledger of this layout that may be used under these terms. Codes of programmes that it
/// has not met are written down.
fn agree(database: &Database, file: &Path, terms: &Terms) -> Result<LedgerId, OpenError> {
    let foreign = || OpenError::Foreign { file: file.to_owned() };
    let meta = read_meta(database).map_err(|error| match error {
        redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => foreign(),
        other => damaged(file, other),
    })?;
    let text = |name: &str| meta.get(name).cloned();
    if text("kind").as_deref() != Some(KIND) {
        return Err(foreign());
    }
    let layout = text("layout").unwrap_or_default();
    if layout != LAYOUT.to_string() {
        return Err(OpenError::Newer { file: file.to_owned(), found: layout });
    }
    if let Some(other) = terms.differences(text).into_iter().next() {
        let file = file.to_owned();
        return Err(match other {
            OtherTerms::Keys(other) => OpenError::OtherKeys { file, other },
            OtherTerms::Clock { simulated } => OpenError::OtherClock { file, simulated },
            OtherTerms::Programme { code, stands, given } => OpenError::OtherProgramme { file, code, stands, given },
        });
    }
    let id =
        text("ledger_id").and_then(|text| text.parse().ok()).ok_or_else(|| damaged(file, "it has no ledger id"))?;
    let moves = terms.turn.previous().is_some_and(|left| text(KEYS).is_some_and(|stands| left.ring.is(&stands)));
    if moves || terms.of_programmes().any(|(name, _)| text(&name).is_none()) {
        meet(database, terms, moves).map_err(|error| damaged(file, error))?;
    }
    Ok(id)
}

/// Writes down what the programmes' codes stand for, and the ring if it moves on. The codes that stood there are the same.
fn meet(database: &Database, terms: &Terms, moves: bool) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        if moves {
            meta.insert(KEYS, terms.turn.ring.to_string().as_str())?;
            meta.insert(TURNED, terms.kept.now.to_string().as_str())?;
        }
        for (name, text) in terms.of_programmes() {
            meta.insert(name.as_str(), text)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn damaged(file: &Path, why: impl std::fmt::Display) -> OpenError {
    OpenError::Damaged { file: file.to_owned(), why: why.to_string() }
}

fn io(file: &Path, source: std::io::Error) -> OpenError {
    let file = file.to_owned();
    match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => OpenError::Denied { file },
        _ => OpenError::Io { file, source },
    }
}

fn unusable(file: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { file: file.to_owned() },
        // What redb misses in a file that is cut short, it reports as an error of reading it.
        DatabaseError::Storage(StorageError::Io(source))
            if !matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            io(file, source)
        }
        other => damaged(file, other),
    }
}

/// Where a record stands.
pub(super) fn record_key(key: &RecordKey) -> Key {
    let mut bytes = first_key(key.programme);
    let [_, _, _, _, partition, pseudonym @ ..] = &mut bytes;
    *partition = key.buyer.partition;
    *pseudonym = *key.buyer.pseudonym.as_bytes();
    bytes
}

/// The key of their record under the key of the ring beside the current one.
pub(super) fn beside(key: &RecordKey, neighbour: &Neighbour<Pseudonym>) -> Key {
    let partition = key.buyer.partition;
    record_key(&RecordKey { buyer: BuyerKey { partition, pseudonym: neighbour.makes }, ..*key })
}

/// The first key that a record of this programme can have.
pub(super) fn first_key(programme: ProgrammeCode) -> Key {
    let mut bytes = [0; KEY_BYTES];
    bytes.iter_mut().zip(programme.as_str().bytes()).for_each(|(to, from)| *to = from);
    bytes
}

/// The last key that a record of this programme can have.
pub(super) fn last_key(programme: ProgrammeCode) -> Key {
    let mut bytes = first_key(programme);
    bytes.iter_mut().skip(4).for_each(|to| *to = u8::MAX);
    bytes
}

/// A record from what stands in the table.
pub(super) fn unpack(bytes: &[u8]) -> Result<Record, ReadError> {
    packed::unpack(bytes).map_err(|e| ReadError::Corrupt(e.to_string()))
}

/// The committed record of a buyer.
pub(super) fn usage(database: &Database, key: RecordKey) -> Result<Record, ReadError> {
    let snapshot = database.begin_read().map_err(store)?;
    let ring = snapshot.open_table(META).map_err(store)?.get(KEYS).map_err(store)?.map(|ring| ring.value().to_owned());
    let ring = ring.unwrap_or_default();
    if !key.turn.reads(&ring) {
        return Err(key.turn.refuses(&ring).map_or_else(|| store("it has no ring"), ReadError::OtherRing));
    }
    let records = snapshot.open_table(RECORDS).map_err(store)?;
    let names = [Some(record_key(&key)), key.turn.neighbour.map(|neighbour| beside(&key, &neighbour))];
    let mut entries = Vec::new();
    for name in names.iter().flatten() {
        if let Some(found) = records.get(name).map_err(store)? {
            entries.extend_from_slice(unpack(found.value())?.entries());
        }
    }
    Ok(Record::new(entries))
}

/// Committed records of a programme, after the key at which an earlier step stopped.
pub(super) fn export(
    database: &Database,
    programme: ProgrammeCode,
    from: Option<&[u8]>,
) -> Result<Exported, ReadError> {
    let from = match from {
        None => Bound::Included(first_key(programme)),
        Some(seen) => {
            Bound::Excluded(Key::try_from(seen).map_err(|_| ReadError::Corrupt("no export stopped there".to_owned()))?)
        }
    };
    let until = Bound::Included(last_key(programme));
    let table = database.begin_read().map_err(store)?.open_table(RECORDS).map_err(store)?;
    let (mut records, mut last) = (Vec::new(), None);
    for row in table.range::<&Key>((from.as_ref(), until.as_ref())).map_err(store)?.take(EXPORT_RECORDS) {
        let (key, value) = row.map_err(store)?;
        let [_, _, _, _, partition, pseudonym @ ..] = *key.value();
        let buyer = BuyerKey { partition, pseudonym: Pseudonym::from_bytes(pseudonym) };
        records.push((buyer, unpack(value.value()).ok()));
        last = Some(key.value().to_vec());
    }
    let next = last.filter(|_| records.len() == EXPORT_RECORDS);
    Ok(Exported { records, next })
}

/// An event as it stands in the file.
pub(super) fn told(event: &Event, programme: ProgrammeCode, terminal: TerminalId, stated: &str) -> Vec<u8> {
    [event.kind.name().as_bytes(), b" ", &outbox::write(event, programme, terminal, stated)].concat()
}

/// What stands after these places, at most so many events each. The number of an event is the lower one of its place; the higher
/// one is of its request id, so that after an older copy of the file was put back nobody takes another event for it.
pub(super) fn after(database: &Database, places: &[(u8, Place)], most: usize) -> Result<Vec<After>, ReadError> {
    let outbox = database.begin_read().map_err(store)?.open_table(OUTBOX).map_err(store)?;
    places
        .iter()
        .map(|(partition, place)| {
            let from = if *place == Place::FIRST { 0 } else { place.low };
            let range = outbox.range((*partition, from)..=(*partition, u64::MAX)).map_err(store)?;
            let events = range.take(most.saturating_add(1)).map(|row| {
                let (key, value) = row.map_err(store)?;
                event(key.value(), value.value())
            });
            let events = events.collect::<Result<Vec<_>, _>>()?;
            let is_whole = events.first().is_none_or(|(first, _)| first.low == 1);
            Ok(After::of(*place, events, is_whole, most))
        })
        .collect()
}

/// The newest event of each partition.
pub(super) fn newest(database: &Database) -> Result<[Place; PARTITIONS], ReadError> {
    let outbox = database.begin_read().map_err(store)?.open_table(OUTBOX).map_err(store)?;
    let mut newest = [Place::FIRST; PARTITIONS];
    for (newest, partition) in newest.iter_mut().zip(0..=u8::MAX) {
        let mut range = outbox.range((partition, 0)..=(partition, u64::MAX)).map_err(store)?;
        if let Some(row) = range.next_back() {
            let (key, value) = row.map_err(store)?;
            *newest = event(key.value(), value.value())?.0;
        }
    }
    Ok(newest)
}

/// An event that stands in the file, and its place.
fn event((partition, sequence): (u8, u64), value: &[u8]) -> Result<(Place, Told), ReadError> {
    let corrupt =
        |why: &dyn std::fmt::Display| ReadError::Corrupt(format!("{why}; it is {sequence} of {partition:02x}"));
    let mut parts = value.splitn(2, |byte| *byte == b' ');
    let (kind, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let told = outbox::read(kind, value).map_err(|error| corrupt(&error))?;
    let [a, b, c, d, e, f, g, h, ..] = *told.event.entry.request.as_bytes();
    Ok((Place { high: u64::from_be_bytes([a, b, c, d, e, f, g, h]), low: sequence }, told))
}

impl From<StorageError> for ReadError {
    fn from(error: StorageError) -> Self {
        store(error)
    }
}

impl From<TableError> for ReadError {
    fn from(error: TableError) -> Self {
        store(error)
    }
}
