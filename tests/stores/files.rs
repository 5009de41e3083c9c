//! Files that are no ledger, or not this version's, or somebody else's now: each is refused with its name and the
//! remedy, and left as it was.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rationd::buyer::{KeyMark, Ring, Turn};
use rationd::ledger::embedded::{EmbeddedLedger, FILE_NAME, OpenError};
use rationd::ledger::outbox::{After, Outbox, Place};
use rationd::ledger::{Health, Ledger, LedgerError, OUTBOX_EVENTS, Terms};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::places::terms;
use super::steps::{Step, Verb, at, buyer, call, sale};
use super::workers;
use crate::support::workers::{listen, say};

/// What another process does: opens the ledger and keeps it until it is told to end.
pub fn keep_open(directory: &str) {
    let _ledger = EmbeddedLedger::open(Path::new(directory), &terms()).unwrap();
    say("open");
    listen();
}

/// The error, which names the file and something to do.
fn refused(directory: &Path, remedy: &str) -> OpenError {
    let Err(error) = EmbeddedLedger::open(directory, &terms()) else { panic!("{} was opened", directory.display()) };
    let text = error.to_string();
    assert!(text.contains(&directory.join(FILE_NAME).display().to_string()), "it names the file: {text}");
    assert!(text.contains(remedy), "it names the remedy: {text}");
    error
}

async fn ledger_with_sales(directory: &Path, sales: u64) -> EmbeddedLedger {
    let ledger = EmbeddedLedger::open(directory, &terms()).unwrap();
    for number in 0..sales {
        let step = Step { key: buyer(number), call: call(1, 1, at(0)), verb: Verb::Claim(sale(1, &[])) };
        step.ask(&ledger).await.unwrap();
    }
    ledger
}

#[tokio::test]
async fn a_ledger_is_born_private_and_comes_back_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("deeper").join("data");
    let ledger = EmbeddedLedger::open(&inside, &terms()).unwrap();
    let born = ledger.health();
    assert!(matches!(born, Health::Serving(_)));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&inside), mode(&inside.join(FILE_NAME))), (0o700, 0o600));
    let names: Vec<_> = inside.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [FILE_NAME], "nothing is left beside it");
    // The last handle frees the file.
    let other = ledger.clone();
    drop(ledger);
    refused(&inside, "stop that one");
    drop(other);
    assert_eq!(EmbeddedLedger::open(&inside, &terms()).unwrap().health(), born);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(EmbeddedLedger::open(other.path(), &terms()).unwrap().health(), born);
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut worker = workers::start(&format!("keep-open {}", directory.path().display()));
    assert_eq!(worker.hear().as_deref(), Some("open"));
    assert!(matches!(refused(directory.path(), "another directory"), OpenError::InUse { .. }));
    worker.tell("end");
    while worker.hear().is_some() {}
    EmbeddedLedger::open(directory.path(), &terms()).unwrap();
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE_NAME);
    let letter = "Dear ledger, ".repeat(1_000);
    std::fs::write(&file, &letter).unwrap();
    assert!(matches!(refused(directory.path(), "move it away"), OpenError::Foreign { .. }));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), letter);

    // redb, but somebody else's: without our table, or with one of that name and other types.
    const THEIRS: TableDefinition<'_, u64, u64> = TableDefinition::new("theirs");
    const META: TableDefinition<'_, u64, u64> = TableDefinition::new("meta");
    for table in [THEIRS, META] {
        std::fs::remove_file(&file).unwrap();
        let database = Database::create(&file).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(table).unwrap().insert(1, 1).unwrap();
        write.commit().unwrap();
        drop(database);
        assert!(matches!(refused(directory.path(), "move it away"), OpenError::Foreign { .. }));
        let database = Database::open(&file).unwrap();
        let read = database.begin_read().unwrap();
        assert_eq!(read.open_table(table).unwrap().get(1).unwrap().unwrap().value(), 1);
    }
}

#[tokio::test]
async fn a_truncated_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE_NAME);
    let ledger = ledger_with_sales(directory.path(), 50).await;
    // As a crash would leave it, and as it is left in order.
    let crashed = std::fs::read(&file).unwrap();
    drop(ledger);
    for whole in [crashed, std::fs::read(&file).unwrap()] {
        for length in [0, 5, 9, 100, 320, 4_095, 4_096, 8_192, whole.len() / 2, whole.len() - 4_096, whole.len() - 1] {
            std::fs::write(&file, &whole[..length]).unwrap();
            let error = refused(directory.path(), "put a whole copy in its place");
            assert!(matches!(error, OpenError::Damaged { .. }), "{length} of {}: {error}", whole.len());
            // redb corrects its note of the file's length in the header; nothing else is written.
            let left = std::fs::read(&file).unwrap();
            let header = length.min(64);
            assert!(left.len() == length && left[header..] == whole[header..length], "{length} of {}", whole.len());
        }
        std::fs::write(&file, &whole).unwrap();
        let ledger = EmbeddedLedger::open(directory.path(), &terms()).unwrap();
        assert_eq!(ledger.usage(buyer(49)).await.unwrap().entries().len(), 1, "the whole copy works");
    }
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE_NAME);
    drop(ledger_with_sales(directory.path(), 1).await);
    const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
    let set_layout = |layout| {
        let database = Database::open(&file).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(META).unwrap().insert("layout", layout).unwrap();
        write.commit().unwrap();
    };
    set_layout("3");
    let error = refused(directory.path(), "run the version that wrote it");
    assert!(matches!(&error, OpenError::Newer { found, .. } if found == "3"), "{error}");
    set_layout("2");
    let ledger = EmbeddedLedger::open(directory.path(), &terms()).unwrap();
    assert_eq!(ledger.usage(buyer(0)).await.unwrap().entries().len(), 1);
}

#[test]
fn a_directory_that_may_not_be_written_is_refused() {
    // Not even root may make a directory here.
    let Err(error) = EmbeddedLedger::open(Path::new("/sys/rationd"), &terms()) else { panic!("it was made") };
    assert!(matches!(error, OpenError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("/sys/rationd may not be read and written by this user"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let Err(error) = EmbeddedLedger::open(&file, &terms()) else { panic!("it was made") };
    assert!(error.to_string().contains("a-file"), "{error}");
}

/// What a ledger that was begun under `terms()` says to these, which are refused and change nothing.
fn refused_under(other: &Terms) -> OpenError {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE_NAME);
    let born = EmbeddedLedger::open(directory.path(), &terms()).unwrap().health();
    let Err(error) = EmbeddedLedger::open(directory.path(), other) else { panic!("it was opened under {other:?}") };
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    assert_eq!(EmbeddedLedger::open(directory.path(), &terms()).unwrap().health(), born, "its own terms still open it");
    error
}

#[test]
fn a_ledger_begun_under_other_keys_is_refused() {
    let error =
        refused_under(&Terms { turn: Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"another!") }), ..terms() });
    assert!(matches!(error, OpenError::OtherKeys { .. }));
    assert!(error.to_string().contains("was begun under another key file"), "{error}");
}

#[test]
fn a_ledger_begun_under_a_simulated_clock_is_refused_for_real_sales_and_the_reverse() {
    let error = refused_under(&Terms { simulated_clock: false, ..terms() });
    assert!(matches!(error, OpenError::OtherClock { simulated: true, .. }));
    let said = "this ledger was begun under a simulated clock (serve --clock); name another store for real sales";
    assert!(error.to_string().contains(said), "{error}");

    let directory = tempfile::tempdir().unwrap();
    drop(EmbeddedLedger::open(directory.path(), &Terms { simulated_clock: false, ..terms() }).unwrap());
    let error = refused(directory.path(), "name another store for a simulated one");
    assert!(matches!(error, OpenError::OtherClock { simulated: false, .. }));
}

#[test]
fn a_code_stays_with_the_programme_that_it_was_first_given_to() {
    let with = |given: &[(&str, &str)]| {
        let programmes = given.iter().map(|(code, text)| (code.parse().unwrap(), (*text).to_owned())).collect();
        Terms { programmes, ..terms() }
    };
    // Another scheme of numbers, another programme.
    for other in ["masks opaque", "pills kr_resident"] {
        let error = refused_under(&with(&[("new", "new opaque"), ("km", other)]));
        assert!(matches!(error, OpenError::OtherProgramme { .. }));
        for part in ["the code km", "\"masks kr_resident\"", other, "a `code` of its own"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let open = |given| EmbeddedLedger::open(directory.path(), &with(given)).map(drop);
    open(&[("km", "masks kr_resident")]).unwrap();
    // A refused one leaves its new codes free; then one comes, and is remembered while it is away.
    assert!(open(&[("new", "first opaque"), ("km", "pills kr_resident")]).is_err());
    open(&[("new", "second opaque")]).unwrap();
    open(&[("km", "masks kr_resident")]).unwrap();
    assert!(matches!(open(&[("new", "first opaque")]), Err(OpenError::OtherProgramme { .. })));
    open(&[("new", "second opaque"), ("km", "masks kr_resident")]).unwrap();
}

#[tokio::test]
async fn an_unreadable_record_is_corrupt_and_ends_no_sweep_and_no_export() {
    const RECORDS: TableDefinition<'_, &[u8; 21], &[u8]> = TableDefinition::new("records");
    let directory = tempfile::tempdir().unwrap();
    drop(ledger_with_sales(directory.path(), 40).await);
    let database = Database::open(directory.path().join(FILE_NAME)).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut records = write.open_table(RECORDS).unwrap();
        let keys: Vec<[u8; 21]> = records.iter().unwrap().map(|row| *row.unwrap().0.value()).collect();
        for key in [keys[3], keys[20]] {
            records.insert(&key, b"of another making".as_slice()).unwrap();
        }
    }
    write.commit().unwrap();
    drop(database);
    let ledger = EmbeddedLedger::open(directory.path(), &terms()).unwrap();
    // The keys are in the order of the partitions, which are the buyers' numbers here.
    for number in [3, 20] {
        assert!(matches!(ledger.usage(buyer(number)).await, Err(LedgerError::Corrupt(_))));
    }
    let exported = ledger.export(buyer(0).programme, None).await.unwrap();
    let unread = |(_, record): &(_, Option<_>)| record.is_none();
    assert_eq!((exported.records.len(), exported.next), (40, None));
    assert_eq!(exported.records.into_iter().filter(unread).count(), 2);
    let swept = ledger.sweep(buyer(0).programme, at(1), None).await.unwrap();
    assert_eq!((swept.removed, swept.unreadable, swept.next), (38, 2, None));
    assert!(matches!(ledger.usage(buyer(20)).await, Err(LedgerError::Corrupt(_))), "it is left as it was");
}

#[tokio::test]
async fn an_outbox_holds_so_many_events_and_no_more() {
    const OUTBOX: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("outbox");
    let directory = tempfile::tempdir().unwrap();
    drop(ledger_with_sales(directory.path(), 2).await);
    let database = Database::open(directory.path().join(FILE_NAME)).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut outbox = write.open_table(OUTBOX).unwrap();
        let event = outbox.get((1, 1)).unwrap().unwrap().value().to_vec();
        for sequence in 2..=OUTBOX_EVENTS - 1 {
            outbox.insert((1, sequence), event.as_slice()).unwrap();
        }
    }
    write.commit().unwrap();
    drop(database);
    let ledger = EmbeddedLedger::open(directory.path(), &terms()).unwrap();
    for (sales, first) in [(1, 1), (2, 2), (3, 3)] {
        let step = Step { key: buyer(1), call: call(1 + sales, 1, at(0)), verb: Verb::Claim(sale(1, &[])) };
        assert_eq!(step.ask(&ledger).await.unwrap().outcome, "Recorded");
        let after = async |place, most| ledger.after(vec![(1, place)], most).await.unwrap().remove(0);
        let After::Events(told) = after(Place::BEGINNING, 1_000_000).await else { panic!("nobody had got anywhere") };
        let places: Vec<Place> = told.iter().map(|(place, _)| *place).collect();
        assert!(
            places.iter().map(|place| place.low).eq(first..first + OUTBOX_EVENTS),
            "the oldest goes when a new one comes"
        );
        let gone = Place { low: first - 1, ..places[0] };
        let from_the_first = if first == 1 { After::Events(told[..3].to_vec()) } else { After::Gone };
        assert_eq!(after(Place::FIRST, 3).await, from_the_first);
        assert_eq!(after(places[0], 3).await, After::Events(told[1..4].to_vec()));
        assert_eq!(after(gone, 3).await, After::Gone);
        let last = *places.last().unwrap();
        assert_eq!(after(last, 3).await, After::Events(Vec::new()));
        assert_eq!(after(Place { low: last.low + 1, ..last }, 3).await, After::Gone, "it never was");
        assert_eq!(after(Place { high: last.high ^ 1, ..last }, 3).await, After::Gone, "another event has its number");
        assert_eq!(ledger.newest().await.unwrap()[1..3], [last, Place::FIRST]);
    }
}
