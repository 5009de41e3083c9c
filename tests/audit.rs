//! The audit log on real files: whatever is done to one record, the verifier names it; whatever becomes of the process or the
//! disk, the log goes on and says what is missing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(missing_docs, unreachable_pub, reason = "nobody imports a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use futures_util::future::OptionFuture;
use rationd::audit::chain::Link;
use rationd::audit::verify::{Finding, Verified, Why, verify};
use rationd::audit::{self, ASKED, Access, Action, Deed, FileTrail, OpenError, Trail};
use rationd::buyer::{BuyerKey, KeyMark, Pseudonym, Ring, Turn};
use rationd::ids::RequestId;
use rationd::ledger::RecordKey;
use rationd::time::{Clock, ManualClock, Timestamp};
use tempfile::TempDir;

const NOVEMBER: &str = "2026-11-30T23:59:59.000Z";
const DECEMBER: &str = "2026-12-01T00:00:00.000Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn record(buyer: u8) -> RecordKey {
    let buyer = BuyerKey { partition: buyer, pseudonym: Pseudonym::from_bytes([buyer; 16]) };
    let turn = Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"of tests") });
    RecordKey { programme: "km".parse().unwrap(), buyer, turn }
}

/// A log in a directory of its own, and the clock that it goes by.
struct World {
    dir: TempDir,
    clock: ManualClock,
}

impl World {
    fn new(now: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: ManualClock::new(at(now)) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    fn open(&self) -> Trail {
        Trail::File(FileTrail::open(&self.path(), self.clock.clone()).unwrap())
    }

    fn access(&self, action: Action) -> Access {
        let counter = Some(("11000001".parse().unwrap(), "w1".parse().unwrap()));
        let by = "rationd://site/11000001".into();
        Access { at: self.clock.now(), by, counter, action, result: "APPROVED" }
    }

    fn sale(&self) -> Access {
        let request = RequestId::random();
        self.access(Action::Counter { deed: Deed::Sell, programme: "kr-public-mask-2020".parse().unwrap(), request })
    }

    fn check(&self, buyer: u8) -> Access {
        self.access(Action::Check { programme: "kr-public-mask-2020".parse().unwrap(), record: record(buyer) })
    }

    /// One access of every kind.
    fn every_kind(&self) -> Vec<Access> {
        let (programme, reason) = ("kr-public-mask-2020".parse().unwrap(), "ticket 7 \"quoted\"".to_owned());
        let request = RequestId::random();
        let mut all = vec![self.check(1)];
        for deed in [Deed::Sell, Deed::Hold, Deed::Confirm, Deed::Release, Deed::Void, Deed::Resolve] {
            all.push(self.access(Action::Counter { deed, programme, request }));
        }
        for action in [
            Action::LookUp { programme, record: record(1), reason: reason.clone() },
            Action::VoidForBuyer { programme, site: "11000002".parse().unwrap(), request, reason: reason.clone() },
            Action::Export { programme },
            Action::Switch { version: 3, reason },
        ] {
            all.push(Access { counter: None, result: ASKED, ..self.access(action) });
        }
        all
    }

    /// A log of two months with a record of every kind in each, among them those that it writes of itself.
    async fn small_log(&self) {
        let log = self.open();
        told(&log, self.every_kind()).await;
        log.close().await;
        let (file, text) = self.files().pop().unwrap();
        fs::write(file, text + "12 unfinished").unwrap();
        self.clock.set(at(DECEMBER));
        let log = self.open();
        told(&log, self.every_kind()).await;
        log.close().await;
    }

    fn files(&self) -> Vec<(PathBuf, String)> {
        files(&self.path())
    }

    fn verify(&self) -> Result<Verified, Finding> {
        verify(&self.path(), None).unwrap()
    }

    /// All bodies, in their order.
    fn bodies(&self) -> Vec<serde_json::Value> {
        let lines: Vec<String> = self.files().into_iter().flat_map(|(_, text)| lines(&text)).collect();
        lines.iter().map(|line| serde_json::from_str(line.splitn(3, ' ').last().unwrap()).unwrap()).collect()
    }

    fn actions(&self) -> Vec<String> {
        self.bodies().iter().map(|body| body["action"].as_str().unwrap().to_owned()).collect()
    }
}

/// Tells it, and waits as an answer does before it leaves.
async fn told(log: &Trail, accesses: impl IntoIterator<Item = Access>) {
    log.tell(accesses);
    OptionFuture::from(log.unwritten()).await;
}

fn files(directory: &Path) -> Vec<(PathBuf, String)> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    segments.sort();
    segments.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn lines(text: &str) -> Vec<String> {
    text.split_inclusive('\n').map(str::to_owned).collect()
}

fn sequence(line: &str) -> u64 {
    line.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_was_written_follows() {
    let world = World::new(NOVEMBER);
    world.small_log().await;
    let verified = world.verify().unwrap();
    let written = world.actions();
    assert_eq!(verified.newest.sequence, u64::try_from(written.len()).unwrap());
    assert_eq!((verified.first, verified.not_recorded, verified.unfinished), (1, 0, 0));
    let kinds: BTreeSet<_> = written.iter().map(String::as_str).collect();
    assert_eq!(
        kinds,
        BTreeSet::from([
            "SEGMENT_BEGINS",
            "CHECK",
            "SELL",
            "HOLD",
            "CONFIRM",
            "RELEASE",
            "VOID",
            "RESOLVE",
            "LOOK_UP",
            "VOID_FOR_BUYER",
            "EXPORT",
            "SWITCH",
            "UNFINISHED_CUT",
        ])
    );
    let names: Vec<_> = world.files().iter().map(|(path, _)| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["000000000001-2026-11.log", "000000000013-2026-12.log"]);
}

/// G38: flip.
#[tokio::test]
async fn a_record_with_one_changed_bit_is_named() {
    let world = World::new(NOVEMBER);
    world.small_log().await;
    let mut flipped = 0;
    for (path, text) in world.files() {
        let mut bytes = text.clone().into_bytes();
        let mut at = 0;
        for line in lines(&text) {
            for _ in 0..line.len() {
                for bit in [1, 0x20, 0x80] {
                    bytes[at] ^= bit;
                    fs::write(&path, &bytes).unwrap();
                    let found = world.verify();
                    let named = found.clone().map_err(|finding| finding.sequence);
                    assert_eq!(named.err(), Some(sequence(&line)), "byte {at}, bit {bit} of {path:?}: {found:?}");
                    bytes[at] ^= bit;
                    flipped += 1;
                }
                at += 1;
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert!(world.verify().is_ok() && flipped > 10_000, "{flipped}");
}

/// Whether the verifier names the first record that is not where it was; `lines` are those of the segments in order, each with
/// its segment.
fn named_first(world: &World, whole: &[(usize, String)], changed: &[(usize, String)], what: &str) {
    let paths: Vec<PathBuf> = world.files().into_iter().map(|(path, _)| path).collect();
    for (segment, path) in paths.iter().enumerate() {
        let text: String = changed.iter().filter(|(of, _)| *of == segment).map(|(_, line)| line.as_str()).collect();
        fs::write(path, text).unwrap();
    }
    let first = (0..whole.len()).find(|at| changed.get(*at).map(|(_, line)| line) != Some(&whole[*at].1));
    let expected = first.map_or(whole.len(), |at| at) + 1;
    let found = world.verify();
    let named = found.clone().map_err(|finding| finding.sequence);
    assert_eq!(named.err(), Some(u64::try_from(expected).unwrap()), "{what}: {found:?}");
}

/// G38: delete, insert, reorder.
#[tokio::test]
async fn a_record_that_is_gone_put_in_or_moved_is_named() {
    let world = World::new(NOVEMBER);
    world.small_log().await;
    let segments = world.files();
    let of_segment = |(at, (_, text)): (usize, &(PathBuf, String))| -> Vec<(usize, String)> {
        lines(text).into_iter().map(|line| (at, line)).collect()
    };
    let whole: Vec<(usize, String)> = segments.iter().enumerate().flat_map(of_segment).collect();
    for at in 0..whole.len() {
        let mut less = whole.clone();
        less.remove(at);
        named_first(&world, &whole, &less, &format!("without {}", at + 1));
        for other in 0..whole.len() {
            let mut moved = whole.clone();
            let (from, to) = (moved[at].1.clone(), moved[other].1.clone());
            if other > at {
                (moved[at].1, moved[other].1) = (to.clone(), from.clone());
                named_first(&world, &whole, &moved, &format!("{} and {} exchanged", at + 1, other + 1));
            }
            let mut more = whole.clone();
            more.insert(at, (whole[at].0, to));
            named_first(&world, &whole, &more, &format!("{} again before {}", other + 1, at + 1));
        }
        let mut made_up = whole.clone();
        let hash = whole[at].1.split(' ').nth(1).unwrap();
        made_up.insert(at, (whole[at].0, format!("{} {hash} {{}}\n", at + 1)));
        named_first(&world, &whole, &made_up, &format!("something made up before {}", at + 1));
    }
    for (path, text) in segments {
        fs::write(path, text).unwrap();
    }
    world.verify().unwrap();
}

#[tokio::test]
async fn a_finding_says_what_was_done() {
    let world = World::new(NOVEMBER);
    world.small_log().await;
    let (path, text) = world.files().remove(0);
    let all = lines(&text);
    let told = |lines: Vec<&String>| {
        fs::write(&path, lines.into_iter().map(String::as_str).collect::<String>()).unwrap();
        world.verify().unwrap_err().to_string()
    };
    let but = |gone: std::ops::Range<usize>| all.iter().enumerate().filter(move |(at, _)| !gone.contains(at));
    assert_eq!(told(but(2..3).map(|(_, l)| l).collect()), "000000000001-2026-11.log:3: record 3 is missing");
    assert_eq!(told(but(2..5).map(|(_, l)| l).collect()), "000000000001-2026-11.log:3: records 3 to 5 are missing");
    let swapped = told([0, 1, 3, 2, 4].map(|at| &all[at]).into());
    assert_eq!(swapped, "000000000001-2026-11.log:3: record 3 is out of order: 4 stands in its place");
    let twice = told([0, 1, 2, 1, 3].map(|at| &all[at]).into());
    assert_eq!(twice, "000000000001-2026-11.log:4: before record 4 something was put in: 2 a second time");
    let changed = all[3].replace("11000001", "11000002");
    let changed = told(vec![&all[0], &all[1], &all[2], &changed]);
    assert!(changed.starts_with("000000000001-2026-11.log:4: record 4 was changed"), "{changed}");

    fs::remove_file(&path).unwrap();
    assert_eq!(world.verify().unwrap_err().to_string(), "records 1 to 12 are missing");
    fs::write(&path, &text).unwrap();
    fs::remove_file(&world.files()[1].0).unwrap();
    assert_eq!(world.verify().unwrap_err().to_string(), "record 13 is missing, and all that followed it");
    fs::remove_file(world.path().join("head")).unwrap();
    assert_eq!(world.verify().unwrap_err().why, Why::NoHead);
    fs::remove_file(&path).unwrap();
    let all_gone = "there is no record and no file head: no log ever began here, or all of it was taken away";
    assert_eq!(world.verify().unwrap_err().to_string(), all_gone);
}

/// Records are cut off at the end, and with them goes what would tell. The next start goes on behind what is left.
#[tokio::test]
async fn a_head_that_was_taken_away_is_told_in_the_chain() {
    let world = World::new(NOVEMBER);
    let log = world.open();
    told(&log, [world.sale(), world.sale()]).await;
    log.close().await;
    let (path, text) = world.files().remove(0);
    fs::write(&path, lines(&text)[..2].concat()).unwrap();
    fs::remove_file(world.path().join("head")).unwrap();
    for _ in 0..2 {
        let log = world.open();
        told(&log, [world.sale()]).await;
        log.close().await;
    }
    assert_eq!(world.actions(), ["SEGMENT_BEGINS", "SELL", "HEAD_MISSING", "SELL", "SELL"]);
    let found = world.verify().unwrap_err();
    assert_eq!((found.sequence, found.why), (3, Why::NoHeadBefore));
    // A process that ended before its first record was whole has left a head.
    let young = World::new(NOVEMBER);
    young.open().close().await;
    fs::remove_file(&young.files()[0].0).unwrap();
    fs::write(young.path().join("head"), Link::BIRTH.to_string()).unwrap();
    young.open().close().await;
    assert!(young.verify().is_ok());
}

/// Whoever writes the whole log anew is found by what was kept elsewhere, and by nothing else.
#[tokio::test]
async fn a_log_written_anew_is_not_the_one_that_was_kept() {
    let world = World::new(NOVEMBER);
    let log = world.open();
    told(&log, [world.sale(), world.sale()]).await;
    log.close().await;
    let kept: Link = world.verify().unwrap().newest;
    let log = world.open();
    told(&log, [world.sale()]).await;
    log.close().await;
    assert!(verify(&world.path(), Some(kept)).unwrap().is_ok());
    fs::remove_dir_all(world.path()).unwrap();
    let log = world.open();
    told(&log, [world.sale(), world.sale(), world.sale()]).await;
    log.close().await;
    assert!(world.verify().is_ok());
    let found = verify(&world.path(), Some(kept)).unwrap().unwrap_err();
    assert_eq!((found.sequence, found.why), (kept.sequence, Why::NotAsKept));
    // The number that was kept is left out.
    let (mut link, mut anew) = (Link::BIRTH, Vec::new());
    for line in world.files().iter().flat_map(|(_, text)| lines(text)) {
        if link.sequence + 1 == kept.sequence {
            link.sequence += 1;
        }
        link.append(&mut anew, |out| out.extend_from_slice(line.trim_end().splitn(3, ' ').last().unwrap().as_bytes()));
    }
    fs::write(&world.files()[0].0, anew).unwrap();
    fs::write(world.path().join("head"), link.to_string()).unwrap();
    let found = verify(&world.path(), Some(kept)).unwrap().unwrap_err();
    assert_eq!((found.sequence, found.why), (kept.sequence, Why::Missing { next: Some(kept.sequence + 1) }));
}

#[tokio::test]
async fn a_record_that_was_not_finished_is_cut_and_told() {
    let world = World::new(NOVEMBER);
    let log = world.open();
    told(&log, [world.sale()]).await;
    log.close().await;
    let (path, text) = world.files().remove(0);
    let head = fs::read(world.path().join("head")).unwrap();
    for cut in [1, 40, 100] {
        let torn = text.clone() + &lines(&text)[1][..cut];
        fs::write(&path, torn).unwrap();
        assert_eq!(world.verify().unwrap().unfinished, u64::try_from(cut).unwrap());
        let log = world.open();
        told(&log, [world.sale()]).await;
        log.close().await;
        assert_eq!(world.actions(), ["SEGMENT_BEGINS", "SELL", "UNFINISHED_CUT", "SELL"]);
        assert_eq!(world.bodies()[2]["bytes"], cut);
        world.verify().unwrap();
        fs::remove_dir_all(world.path()).unwrap();
        fs::create_dir(world.path()).unwrap();
        fs::write(&path, &text).unwrap();
        fs::write(world.path().join("head"), &head).unwrap();
    }
    // Not even the first record of a segment: as if it had never been begun.
    fs::write(world.path().join("000000000003-2026-12.log"), "3 ab").unwrap();
    let log = world.open();
    log.close().await;
    assert_eq!(world.actions(), ["SEGMENT_BEGINS", "SELL", "UNFINISHED_CUT"]);
    world.verify().unwrap();
}

/// What is damaged is not cut away by the next start: the log goes on beside it, and the verifier names it.
#[tokio::test]
async fn what_is_damaged_stays_for_whoever_looks_into_it() {
    for damage in ["changed", "shortened", "emptied"] {
        let world = World::new(NOVEMBER);
        let log = world.open();
        told(&log, [world.sale(), world.sale(), world.sale()]).await;
        log.close().await;
        let (path, text) = world.files().remove(0);
        let (text, first) = match damage {
            "changed" => (text.replacen("SELL", "VOID", 1), 2),
            "shortened" => (lines(&text)[..2].concat(), 3),
            _ => (String::new(), 1),
        };
        fs::write(&path, &text).unwrap();
        let log = world.open();
        told(&log, [world.sale()]).await;
        log.close().await;
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{damage}: left as it was");
        assert_eq!(files(&world.path()).len(), 2, "{damage}");
        let actions = world.actions();
        assert_eq!(actions[actions.len() - 3..], ["SEGMENT_BEGINS", "DAMAGED", "SELL"], "{damage}");
        assert_eq!(world.verify().unwrap_err().sequence, first, "{damage}");
        // Once more: it is told once.
        let log = world.open();
        log.close().await;
        assert_eq!(world.actions(), actions, "{damage}");
    }
}

#[tokio::test]
async fn one_directory_has_one_writer() {
    let world = World::new(NOVEMBER);
    let log = world.open();
    let second = FileTrail::open(&world.path(), world.clock.clone());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    assert!(matches!(audit::expire(&world.path(), world.clock.now(), 24), Err(OpenError::InUse { .. })));
    log.close().await;
    assert!(FileTrail::open(&world.path(), world.clock.clone()).is_ok());
}

/// While nothing can be written, counters are not held up and operators are refused; afterwards the log says what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_written_is_told_in_the_chain() {
    let world = World::new(NOVEMBER);
    let log = FileTrail::open(&world.path(), world.clock.clone()).unwrap();
    let trail = Trail::File(log.clone());
    told(&trail, [world.sale()]).await;
    // The next month needs a new file, and its directory is away.
    let away = world.dir.path().join("away");
    fs::rename(world.path(), &away).unwrap();
    world.clock.set(at(DECEMBER));
    for _ in 0..5 {
        told(&trail, [world.sale(), world.sale()]).await;
    }
    let refused = trail.put(world.every_kind().remove(7)).await;
    assert!(refused.is_err());
    let standing = log.standing();
    assert!(standing.failing.is_some() && (standing.recorded, standing.not_recorded) == (1, 10), "{standing:?}");
    fs::rename(&away, world.path()).unwrap();
    log.retry();
    trail.put(world.every_kind().remove(9)).await.unwrap();
    assert_eq!(log.standing().failing, None);
    trail.close().await;
    assert_eq!(world.actions(), ["SEGMENT_BEGINS", "SELL", "SEGMENT_BEGINS", "NOT_RECORDED", "EXPORT"]);
    assert_eq!(world.verify().unwrap().not_recorded, 10);
}

/// A look-up is told by a name that is good for a month and for nobody without the month's key; a sale by nobody's name.
#[tokio::test]
async fn the_log_rebuilds_nobodys_history() {
    let world = World::new(NOVEMBER);
    let log = world.open();
    told(&log, [world.check(7), world.check(7), world.check(8), world.sale()]).await;
    world.clock.set(at(DECEMBER));
    told(&log, [world.check(7)]).await;
    log.close().await;
    // Another process goes on with the month's key.
    let log = world.open();
    told(&log, [world.check(7)]).await;
    log.close().await;
    let subjects: Vec<String> = world
        .bodies()
        .iter()
        .filter(|body| body["action"] == "CHECK")
        .map(|body| body["subject"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(subjects[0], subjects[1]);
    assert_ne!(subjects[0], subjects[2]);
    assert_ne!(subjects[0], subjects[3], "another month");
    assert_eq!(subjects[3], subjects[4]);
    assert!(subjects.iter().all(|subject| subject.len() == 32));
    let text: String = world.files().into_iter().map(|(_, text)| text).collect();
    assert!(!text.contains(&"07".repeat(8)), "the ledger's own pseudonym");
    let keys = fs::read_dir(world.path().join("keys")).unwrap().count();
    assert_eq!(keys, 2);
}

/// What has been kept for two years goes with its key, the log says so, and is verified from the oldest record that is left.
#[tokio::test]
async fn what_is_old_goes_with_its_key() {
    let world = World::new("2024-10-15T00:00:00Z");
    let log = FileTrail::open(&world.path(), world.clock.clone()).unwrap();
    let trail = Trail::File(log.clone());
    let months = ["2024-10-20T00:00:00Z", "2024-11-20T00:00:00Z", "2024-12-20T00:00:00Z", "2026-11-20T00:00:00Z"];
    for month in months {
        world.clock.set(at(month));
        told(&trail, [world.check(1), world.sale()]).await;
    }
    let names = || -> Vec<String> {
        let keys = fs::read_dir(world.path().join("keys")).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<String> = keys
            .chain(world.files().into_iter().map(|(path, _)| path))
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names().len(), 8);
    // To the last moment.
    world.clock.set(at("2026-10-31T23:59:59.999Z"));
    log.expire(24).await;
    world.clock.set(at("2026-11-30T00:00:00Z"));
    log.expire(24).await;
    told(&trail, [world.sale()]).await;
    trail.close().await;
    assert_eq!(
        names(),
        [
            "000000000004-2024-11.log",
            "000000000007-2024-12.log",
            "000000000010-2026-11.log",
            "2024-11.key",
            "2024-12.key",
            "2026-11.key",
        ]
    );
    assert_eq!((world.verify().unwrap().first, world.actions()[9].as_str()), (4, "REMOVED"));
    let removed = &world.bodies()[9];
    assert_eq!((&removed["until"], removed["at"].as_str()), (&serde_json::json!(3), Some("2026-11-30T00:00:00.000Z")));

    // Nothing writes to it any more: the command does the same.
    assert_eq!(audit::expire(&world.path(), at("2026-12-31T00:00:00Z"), 24).unwrap().unwrap().until, 6);
    assert_eq!(audit::expire(&world.path(), at("2026-12-31T00:00:00Z"), 24).unwrap(), None);
    assert_eq!(world.verify().unwrap().first, 7);
    // All of it is old: what is being written stays.
    assert_eq!(audit::expire(&world.path(), at("2036-12-31T00:00:00Z"), 24).unwrap().unwrap().segments, 2);
    let first = world.verify().unwrap().first;
    assert_eq!(world.actions()[..2], ["SEGMENT_BEGINS", "REMOVED"]);
    assert_eq!(fs::read_dir(world.path().join("keys")).unwrap().count(), 0);

    // What somebody else takes away is missing.
    world.clock.set(at("2037-02-01T00:00:00Z"));
    let log = world.open();
    told(&log, [world.sale()]).await;
    log.close().await;
    fs::remove_file(&world.files()[0].0).unwrap();
    let found = world.verify().unwrap_err();
    assert!(first > 1 && matches!(found.why, Why::Missing { .. }), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_at_once_are_all_on_record() {
    let world = World::new(NOVEMBER);
    let log = world.open();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (log, sales) = (log.clone(), (0..200).map(|_| world.sale()).collect::<Vec<_>>());
        callers.spawn(async move {
            for sale in sales {
                told(&log, [sale]).await;
            }
        });
    }
    callers.join_all().await;
    // Not closed: what a process has told is there when it is killed.
    assert_eq!(world.actions().iter().filter(|action| *action == "SELL").count(), 3_200);
    log.close().await;
    assert_eq!(world.verify().unwrap().newest.sequence, 3_201);
}
