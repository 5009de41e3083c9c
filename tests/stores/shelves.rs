//! One shelf, two stores: what sites report, and pictures, on real files and real servers.

use std::collections::BTreeSet;
use std::time::Duration;

use rationd::ids::RequestId;
use rationd::ledger::LedgerError;
use rationd::redis_pool::RedisPool;
use rationd::stock::embedded::EmbeddedShelf;
use rationd::stock::redis::{RedisShelf, STOCK_TAG};
use rationd::stock::{Key, Place, Recorded, Report, Reports, Shelf, What};
use rationd::time::Timestamp;
use redis::{Value, cmd};
use tempfile::TempDir;

use super::disk::{Disk, Fate};
use crate::support::lossy::{Loss, LossyRelay};
use crate::support::redis::RedisServer;

/// Noon of a day.
const NOON: i64 = 1_583_884_800_000 + 12 * 3_600_000;
/// More reports than any test makes.
const ALL: usize = 1_000_000;

/// A shelf on a place of its own, which can be ended and begun again.
trait Stand {
    type Shelf: Shelf;

    fn shelf(&self) -> Self::Shelf;

    /// The store ends without a farewell, and starts again on what it has. Nobody may hold a shelf meanwhile.
    fn restart(&mut self);
}

struct RedisStand {
    server: RedisServer,
    shelf: RedisShelf,
}

/// A pool of its own: what another instance would have.
fn over(server: &RedisServer) -> RedisShelf {
    RedisShelf::new(RedisPool::new(&server.url(), 1).unwrap().for_key(STOCK_TAG, 8).unwrap(), false)
}

impl RedisStand {
    fn start() -> Self {
        let server = RedisServer::start();
        let shelf = over(&server);
        Self { server, shelf }
    }

    async fn tell(&self, words: &[&str]) -> Value {
        let client = redis::Client::open(self.server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }
}

impl Stand for RedisStand {
    type Shelf = RedisShelf;

    fn shelf(&self) -> RedisShelf {
        self.shelf.clone()
    }

    fn restart(&mut self) {
        self.server.kill();
        self.server.restart();
        self.shelf = over(&self.server);
    }
}

struct FileStand {
    dir: TempDir,
    shelf: Option<EmbeddedShelf>,
}

impl FileStand {
    fn start() -> Self {
        let mut stand = Self { dir: tempfile::tempdir().unwrap(), shelf: None };
        stand.restart();
        stand
    }
}

impl Stand for FileStand {
    type Shelf = EmbeddedShelf;

    fn shelf(&self) -> EmbeddedShelf {
        self.shelf.clone().unwrap()
    }

    fn restart(&mut self) {
        self.shelf = None;
        self.shelf = Some(EmbeddedShelf::open(&self.dir.path().join("stock.redb")).unwrap());
    }
}

#[tokio::test]
async fn embedded_shelf_conforms() {
    suite(FileStand::start()).await;
}

#[tokio::test]
async fn redis_shelf_conforms() {
    suite(RedisStand::start()).await;
}

async fn suite<S: Stand>(mut stand: S) {
    nothing_is_there(&stand.shelf()).await;
    reports_are_read_in_their_order(&stand.shelf()).await;
    a_retry_changes_nothing(&stand.shelf()).await;
    ids_of_two_sites_do_not_meet(&stand.shelf()).await;
    of_many_at_once_one_is_taken(&stand.shelf()).await;
    pictures_are_whole(&stand.shelf()).await;
    all_is_there_after_an_end(&mut stand).await;
}

/// A delivery, dated an hour before it was taken.
fn report(site: &str, units: u32) -> Report {
    Report {
        request: RequestId::random(),
        key: Key { programme: "km".parse().unwrap(), site: site.parse().unwrap() },
        what: What::Delivered(units),
        at: Timestamp::from_millis(NOON - 3_600_000),
        received: Timestamp::from_millis(NOON),
    }
}

fn later(report: Report, ms: i64) -> Report {
    Report { received: Timestamp::from_millis(report.received.as_millis() + ms), ..report }
}

async fn taken(shelf: &impl Shelf, report: Report) {
    assert_eq!(shelf.record(report).await, Ok(Recorded::Stands { report, replayed: false }));
}

async fn next(shelf: &impl Shelf, place: Place, most: usize) -> Option<Vec<(Place, Report)>> {
    match shelf.after(place, most).await.unwrap() {
        Reports::Next(next) => Some(next),
        Reports::Gone => None,
    }
}

async fn all(shelf: &impl Shelf) -> Vec<(Place, Report)> {
    next(shelf, Place::BEGINNING, ALL).await.unwrap()
}

async fn nothing_is_there(shelf: &impl Shelf) {
    for place in [Place::BEGINNING, Place::FIRST] {
        assert_eq!(next(shelf, place, 9).await, Some(Vec::new()), "{place}");
    }
    assert_eq!(next(shelf, Place { high: 7, low: 1 }, 9).await, None, "of another shelf");
    assert_eq!(shelf.kept().await, Ok(None));
}

async fn reports_are_read_in_their_order(shelf: &impl Shelf) {
    let whats = [What::Delivered(250), What::Counted(0), What::Paused, What::Resumed, What::Counted(1_000_000)];
    let made = whats.map(|what| Report { what, ..report("11000001", 1) });
    for report in made {
        taken(shelf, report).await;
    }
    let read = all(shelf).await;
    assert_eq!(read.iter().map(|(_, report)| *report).collect::<Vec<_>>(), made);
    assert!(read.is_sorted_by(|(one, _), (next, _)| one < next), "{read:?}");
    assert!(read.iter().all(|(place, _)| ![Place::BEGINNING, Place::FIRST].contains(place)));
    assert_eq!(next(shelf, Place::FIRST, ALL).await.as_ref(), Some(&read), "nothing was dropped");
    assert_eq!(next(shelf, read[1].0, 2).await.unwrap(), read[2..4]);
    assert_eq!(next(shelf, Place::BEGINNING, 2).await.unwrap(), read[..2]);
    assert_eq!(next(shelf, read[4].0, 9).await, Some(Vec::new()));
    assert_eq!(next(shelf, Place { low: read[4].0.low + 1, ..read[4].0 }, 9).await, None, "nothing ever stood there");
}

async fn a_retry_changes_nothing(shelf: &impl Shelf) {
    let stood = report("11000002", 40);
    taken(shelf, stood).await;
    // Left out by the site, and so dated by the service.
    let undated = Report { at: stood.received, what: What::Counted(3), ..report("11000002", 0) };
    taken(shelf, undated).await;
    let before = all(shelf).await;
    let again = Ok(Recorded::Stands { report: stood, replayed: true });
    // A day later and a day before: instances have clocks of their own.
    for ms in [0, 1, 60_000, 86_400_000, -86_400_000] {
        assert_eq!(shelf.record(later(stood, ms)).await, again, "{ms}");
        let undated_again = Report { at: later(stood, ms).received, ..later(undated, ms) };
        let came = shelf.record(undated_again).await;
        assert_eq!(came, Ok(Recorded::Stands { report: undated, replayed: true }), "{ms}");
    }
    for other in [
        Report { what: What::Delivered(41), ..stood },
        Report { what: What::Counted(40), ..stood },
        Report { at: stood.received, ..stood },
        Report { key: Key { programme: "kx".parse().unwrap(), ..stood.key }, ..stood },
    ] {
        assert_eq!(shelf.record(other).await, Ok(Recorded::OtherReport), "{other:?}");
    }
    assert_eq!(all(shelf).await, before);
}

async fn ids_of_two_sites_do_not_meet(shelf: &impl Shelf) {
    let one = report("11000003", 1);
    let other = Report { key: report("1100000", 1).key, what: What::Paused, ..one };
    taken(shelf, one).await;
    taken(shelf, other).await;
    assert_eq!(shelf.record(one).await, Ok(Recorded::Stands { report: one, replayed: true }));
    assert_eq!(shelf.record(other).await, Ok(Recorded::Stands { report: other, replayed: true }));
}

async fn of_many_at_once_one_is_taken(shelf: &impl Shelf) {
    for _ in 0..20 {
        let before = all(shelf).await.len();
        let report = report("11000004", 7);
        let tries = (0..8).map(|ms| {
            let shelf = shelf.clone();
            tokio::spawn(async move { shelf.record(later(report, ms)).await.unwrap() })
        });
        let mut new = Vec::new();
        let tries: Vec<_> = tries.collect();
        let mut stood = BTreeSet::new();
        for came in tries {
            let Recorded::Stands { report, replayed } = came.await.unwrap() else { panic!("the same report") };
            stood.insert(report.received);
            new.extend((!replayed).then_some(report));
        }
        assert_eq!((new.len(), stood.len()), (1, 1), "{stood:?}");
        let read = all(shelf).await;
        assert_eq!((read.len(), read.last().map(|(_, report)| *report)), (before + 1, new.pop()));
    }
}

/// Bytes that are other bytes in every chunk.
fn picture(length: usize, seed: u32) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

async fn pictures_are_whole(shelf: &impl Shelf) {
    for (seed, length) in [(1, 100), (2, 5_000_001), (3, 65_536), (4, 65_537), (5, 0), (6, 300_000)] {
        let picture = picture(length, seed);
        shelf.keep(picture.clone()).await.unwrap();
        assert!(shelf.kept().await.unwrap() == Some(picture), "{length}");
    }
    // Two instances keep theirs again and again; whoever reads finds one of them, whole.
    let pictures = [picture(200_000, 7), picture(150_000, 8)];
    let keepers = pictures.clone().map(|picture| {
        let shelf = shelf.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                shelf.keep(picture.clone()).await.unwrap();
            }
        })
    });
    let is_one = |kept: Option<Vec<u8>>| kept.is_some_and(|kept| pictures.contains(&kept));
    while keepers.iter().any(|keeper| !keeper.is_finished()) {
        match shelf.kept().await {
            Ok(kept) if kept.as_ref().is_some_and(|kept| kept.len() == 300_000) => {}
            Ok(kept) => assert!(is_one(kept), "half a picture"),
            Err(LedgerError::StoreUnavailable(why)) => assert!(why.contains("replaced"), "{why}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    for keeper in keepers {
        keeper.await.unwrap();
    }
    assert!(is_one(shelf.kept().await.unwrap()));
}

async fn all_is_there_after_an_end(stand: &mut impl Stand) {
    let (last, picture) = (report("11000005", 9), picture(100_000, 9));
    taken(&stand.shelf(), last).await;
    stand.shelf().keep(picture.clone()).await.unwrap();
    let before = all(&stand.shelf()).await;
    stand.restart();
    let shelf = stand.shelf();
    assert_eq!(all(&shelf).await, before);
    assert_eq!(next(&shelf, before[before.len() - 2].0, 9).await.unwrap(), before[before.len() - 1..]);
    assert_eq!(shelf.record(last).await, Ok(Recorded::Stands { report: last, replayed: true }));
    assert_eq!(shelf.kept().await, Ok(Some(picture)));
    taken(&shelf, report("11000005", 9)).await;
    assert_eq!(all(&shelf).await.len(), before.len() + 1);
}

#[tokio::test]
async fn whoever_stood_where_the_stream_was_cut_is_told() {
    let stand = RedisStand::start();
    let shelf = stand.shelf();
    for units in 1..=5 {
        taken(&shelf, report("11000001", units)).await;
    }
    let read = all(&shelf).await;
    stand.tell(&["XTRIM", "{stock}:reports", "MAXLEN", "3"]).await;
    assert_eq!(next(&shelf, Place::BEGINNING, ALL).await.unwrap(), read[2..]);
    assert_eq!(next(&shelf, Place::FIRST, ALL).await, None, "it would have had the first");
    assert_eq!(next(&shelf, read[1].0, ALL).await, None);
    assert_eq!(next(&shelf, read[2].0, ALL).await.unwrap(), read[3..]);
    stand.tell(&["XTRIM", "{stock}:reports", "MAXLEN", "0"]).await;
    assert_eq!(next(&shelf, read[4].0, ALL).await, None, "all are gone, its own with them");
}

#[tokio::test]
async fn the_stream_is_bounded_and_what_is_remembered_only_for_a_time_has_its_time() {
    let stand = RedisStand::start();
    let shelf = stand.shelf();
    taken(&shelf, report("11000001", 1)).await;
    let ids = "{stock}:ids:11000001:18332";
    let Value::Int(remembered) = stand.tell(&["TTL", ids]).await else { panic!() };
    assert!((2 * 86_400..=3 * 86_400).contains(&remembered), "{remembered}");
    // In the stead of two million reports: the script is run with its own words and another bound.
    let script = include_str!("../../src/stock/redis/record.lua");
    for id in 0..1_000 {
        let (id, keys) = (id.to_string(), ["{stock}:reports", ids, "{stock}:a", "{stock}:b"]);
        stand.tell(&[&["EVAL", script, "4"][..], &keys, &[&id, "x", "200", "60", "2000"]].concat()).await;
    }
    let Value::Int(length) = stand.tell(&["XLEN", "{stock}:reports"]).await else { panic!() };
    assert!((200..=400).contains(&length), "{length} reports");
    // Nor can one site fill the store with ids: it has reported a thousand times today, and a known one is still answered.
    let keys = ["{stock}:reports", ids, "{stock}:a", "{stock}:b"];
    for (id, answer) in [("another", ""), ("7", "x")] {
        let told = stand.tell(&[&["EVAL", script, "4"][..], &keys, &[id, "x", "200", "60", "1000"]].concat()).await;
        assert_eq!(told, Value::BulkString(answer.into()), "{id}");
    }
    assert_eq!(stand.tell(&["XLEN", "{stock}:reports"]).await, Value::Int(length));
    // Of pictures only the last one is there, for good.
    for seed in 0..3 {
        shelf.keep(picture(200_000, seed)).await.unwrap();
    }
    let Value::Array(pictures) = stand.tell(&["KEYS", "{stock}:picture*"]).await else { panic!() };
    let keys: Vec<String> = pictures.into_iter().map(|key| redis::from_redis_value(key).unwrap()).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        assert_eq!(stand.tell(&["TTL", &key]).await, Value::Int(-1), "{key}");
    }
}

#[tokio::test]
async fn what_is_damaged_is_said_and_a_damaged_picture_is_none() {
    let stand = RedisStand::start();
    let shelf = stand.shelf();
    let stood = report("11000001", 1);
    taken(&shelf, stood).await;
    let corrupt = |came: Result<Reports, LedgerError>, what: &str| {
        assert!(matches!(&came, Err(LedgerError::Corrupt(why)) if why.contains(what)), "{came:?}");
    };
    for fields in [&["report", "x"][..], &["report", "", "more", ""]] {
        let added = stand.tell(&[&["XADD", "{stock}:reports", "*"], fields].concat()).await;
        let id: String = redis::from_redis_value(added).unwrap();
        corrupt(shelf.after(Place::BEGINNING, 9).await, &id);
        stand.tell(&["XDEL", "{stock}:reports", &id]).await;
    }
    let ids = "{stock}:ids:11000001:18332";
    let Value::Array(fields) = stand.tell(&["HKEYS", ids]).await else { panic!() };
    assert_eq!(fields, [Value::BulkString(stood.request.as_bytes().to_vec())]);
    let client = redis::Client::open(stand.server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = cmd("HSET").arg(ids).arg(stood.request.as_bytes()).arg("x").query_async(&mut connection).await.unwrap();
    assert!(matches!(shelf.record(stood).await, Err(LedgerError::Corrupt(_))));
    stand.tell(&["SET", "{stock}:reports", "no stream"]).await;
    corrupt(shelf.after(Place::BEGINNING, 9).await, "WRONGTYPE");
    assert!(matches!(shelf.record(report("11000001", 1)).await, Err(LedgerError::Corrupt(_))));

    let picture = picture(200_000, 1);
    for damage in [
        &["HSET", "{stock}:picture", "checksum", "another"][..],
        &["HSET", "{stock}:picture", "length", "many"],
        &["HDEL", "{stock}:picture", "length"],
        &["HDEL", "{stock}:picture", "checksum"],
        &["HSET", "CHUNKS", "2", "another"],
        &["HDEL", "CHUNKS", "1"],
        &["DEL", "CHUNKS"],
    ] {
        shelf.keep(picture.clone()).await.unwrap();
        let generation = stand.tell(&["HGET", "{stock}:picture", "generation"]).await;
        let chunks = format!("{{stock}}:picture:{}", redis::from_redis_value::<String>(generation).unwrap());
        let words: Vec<&str> = damage.iter().map(|word| if *word == "CHUNKS" { &chunks } else { *word }).collect();
        stand.tell(&words).await;
        assert_eq!(shelf.kept().await, Ok(None), "{damage:?}");
    }
    shelf.keep(picture.clone()).await.unwrap();
    assert_eq!(shelf.kept().await, Ok(Some(picture)), "the next one is good");
}

#[tokio::test]
async fn without_a_server_nothing_is_recorded_and_that_is_said() {
    let mut stand = RedisStand::start();
    let shelf = stand.shelf();
    taken(&shelf, report("11000001", 1)).await;
    stand.server.kill();
    let lost = report("11000001", 2);
    // The first may have been sent over a connection that broke.
    assert!(shelf.record(lost).await.is_err());
    assert!(matches!(shelf.record(lost).await, Err(LedgerError::StoreUnavailable(_))));
    assert!(matches!(shelf.after(Place::BEGINNING, 9).await, Err(LedgerError::StoreUnavailable(_))));
    assert!(matches!(shelf.keep(vec![1]).await, Err(LedgerError::StoreUnavailable(_))));
    assert!(matches!(shelf.kept().await, Err(LedgerError::StoreUnavailable(_))));
    stand.server.restart();
    taken(&shelf, lost).await;
    assert_eq!(all(&shelf).await.len(), 2);
    // Full: refused before anything is written.
    stand.tell(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = shelf.record(report("11000001", 3)).await;
    assert!(matches!(&refused, Err(LedgerError::StoreUnavailable(why)) if why.contains("OOM")), "{refused:?}");
    assert_eq!(all(&shelf).await.len(), 2, "it can be read all the same");
}

/// Nobody can say what became of it, and the same report, sent again, tells.
#[tokio::test]
async fn a_report_or_an_answer_that_is_lost_on_its_way_is_found_out_by_sending_it_again() {
    let stand = RedisStand::start();
    let relay = LossyRelay::to(stand.server.port()).await;
    let shelf = RedisShelf::new(RedisPool::new(&relay.url(), 4).unwrap(), false);
    taken(&shelf, report("11000009", 1)).await;
    for (units, loss, replayed) in [(2, Loss::Call, false), (3, Loss::Reply, true)] {
        let report = report("11000009", units);
        relay.lose(loss, &["EVALSHA", "{stock}:ids:11000009"]);
        let came = shelf.record(report).await;
        assert!(matches!(&came, Err(LedgerError::Unconfirmed(_))), "{loss:?}: {came:?}");
        assert!(relay.has_lost());
        assert_eq!(shelf.record(report).await, Ok(Recorded::Stands { report, replayed }), "{loss:?}");
    }
    assert_eq!(all(&shelf).await.len(), 3);
}

/// The power goes at every sync in turn: what was answered is there afterwards, and what was not can be sent again.
#[tokio::test]
async fn what_the_file_has_answered_survives_a_cut_at_every_sync() {
    for fate in [Fate::Lost, Fate::Kept, Fate::Torn] {
        let mut sync = 1;
        loop {
            let disk = Disk::default();
            let shelf = EmbeddedShelf::open_with_backend(disk.clone()).unwrap();
            disk.cut_at(disk.syncs() + sync, fate);
            let made: Vec<Report> = (1..=4).map(|units| report("11000001", units)).collect();
            let mut answered = Vec::new();
            for report in &made {
                match shelf.record(*report).await {
                    Ok(_) => answered.push(*report),
                    Err(_) => break,
                }
            }
            let picture_kept = shelf.keep(vec![7; 10_000]).await;
            if !disk.is_dark() {
                assert_eq!((answered.len(), picture_kept), (4, Ok(())));
                assert!(sync > 5, "no sync was cut");
                break;
            }
            // It is closed for good, and says so.
            let closed = tokio::time::timeout(Duration::from_secs(5), shelf.closed()).await;
            assert!(closed.is_ok(), "sync {sync}");
            assert!(matches!(shelf.record(made[0]).await, Err(LedgerError::StoreUnavailable(_))));
            assert!(matches!(shelf.kept().await, Err(LedgerError::StoreUnavailable(_))));
            let survivor = EmbeddedShelf::open_with_backend(disk.survivor()).unwrap();
            let read: Vec<Report> = all(&survivor).await.into_iter().map(|(_, report)| report).collect();
            assert!(read.starts_with(&answered), "sync {sync} {fate:?}: {read:?}");
            assert!(made.starts_with(&read), "sync {sync} {fate:?}: {read:?}");
            for report in &made {
                let Ok(Recorded::Stands { replayed, .. }) = survivor.record(*report).await else { panic!() };
                assert_eq!(replayed, read.contains(report));
            }
            assert_eq!(all(&survivor).await.len(), 4);
            sync += 1;
        }
        println!("{fate:?}: {} syncs cut", sync - 1);
    }
}
