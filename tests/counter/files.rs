//! Files of journals as disks, people and other programs leave them: what can be saved is saved, the rest is told, and what is not
//! ours is refused by its name.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rationd::ids::RequestId;
use rationd::terminal::counter::Answer;
use rationd::terminal::journal::{Became, Damage, Fact, Journal, NoKey, NotOpened, Row, Stands, Verdict};
use tempfile::TempDir;

use super::scene::{asked, key_of, open, open_at, rows, sale, selling, sold_offline, start, told, write};
use super::workers;
use crate::service::Service;
use crate::shops::{SATURDAY, SITES, bought, number};
use crate::support::workers::{listen, say};

/// Sales of one full disk.
const BLOCKS: u32 = 40;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counter.journal");
    (directory, path)
}

/// A journal with so many sales offline, and their ids.
fn begun(path: &Path, sales: u64) -> Vec<RequestId> {
    let (journal, damage) = open(path).unwrap();
    assert_eq!(damage, None);
    let ids: Vec<RequestId> = (0..sales).map(|_| RequestId::random()).collect();
    for (nth, id) in (0..).zip(&ids) {
        write(&journal, vec![sold_offline(*id, nth, start())]).unwrap();
    }
    ids
}

fn ids(rows: &[Row]) -> Vec<RequestId> {
    rows.iter().map(|row| row.id).collect()
}

fn refused(path: &Path) -> NotOpened {
    match open(path) {
        Err(error) => error,
        Ok(_) => panic!("it was opened"),
    }
}

#[test]
fn what_was_written_is_there_and_nobody_else_can_read_it() {
    let (directory, path) = place();
    let written = begun(&path, 3);
    for entry in fs::read_dir(directory.path()).unwrap() {
        let (name, mode) =
            entry.map(|entry| (entry.file_name(), entry.metadata().unwrap().permissions().mode())).unwrap();
        assert_eq!(mode & 0o777, 0o600, "{name:?}");
    }
    let bytes = fs::read(&path).unwrap();
    for nth in 0..3 {
        let digits = number(nth).replace('-', "").into_bytes();
        assert!(!bytes.windows(6).any(|part| part == &digits[..6]), "a number in the clear");
    }
    // What a crash has left of a file that was being written anew.
    fs::write(path.with_extension("journal.new"), "half of it").unwrap();
    let (journal, damage) = open(&path).unwrap();
    assert_eq!((ids(&rows(&journal)), damage), (written, None));
    assert!(matches!(refused(&path), NotOpened::InUse(_)), "one at a time");
    drop(journal);
    open(&path).unwrap();
}

#[test]
fn of_a_damaged_file_the_rest_is_saved_and_told_once() {
    for (name, harm) in [("a changed byte", 1), ("a hole", 2), ("a torn end", 3), ("a lost head", 4)] {
        let (_directory, path) = place();
        let written = begun(&path, 6);
        let mut bytes = fs::read(&path).unwrap();
        let (middle, end) = (bytes.len() / 2, bytes.len());
        let lost: u64 = match harm {
            1 => {
                bytes[middle] ^= 0x10;
                1
            }
            2 => {
                bytes.drain(middle..middle + 40);
                1
            }
            3 => {
                bytes.truncate(end - 7);
                1
            }
            _ => {
                bytes[..16].fill(0);
                0
            }
        };
        fs::write(&path, &bytes).unwrap();
        let (journal, damage) = open(&path).unwrap();
        let Damage { missing, torn, saved, copy, .. } = damage.clone().unwrap();
        println!("{name}: {}", damage.unwrap());
        assert_eq!(saved, 6 - lost, "{name}");
        assert_eq!(missing.iter().map(|range| range.end - range.start).sum::<u64>(), if harm < 3 { 1 } else { 0 });
        assert_eq!(torn > 0, harm == 3, "{name}");
        let found = ids(&rows(&journal));
        assert_eq!(found.len() as u64, saved, "{name}");
        assert!(found.iter().all(|id| written.contains(id)), "{name}: nothing is invented");
        assert_eq!(fs::read(&copy).unwrap(), bytes, "{name}: as it was found");
        drop(journal);
        let (journal, damage) = open(&path).unwrap();
        assert_eq!((ids(&rows(&journal)), damage), (found, None), "{name}: the second time it is whole");
    }
}

#[test]
fn what_is_not_ours_is_refused_by_its_name() {
    let (directory, path) = place();
    begun(&path, 1);
    let key = key_of(&path);
    let (whole, right) = (fs::read(&path).unwrap(), fs::read(&key).unwrap());
    let try_as = |site: &str, terminal: &str| {
        let opened = Journal::open(&path, &key, (site.parse().unwrap(), terminal.parse().unwrap()), start());
        opened.err().unwrap().to_string()
    };
    let other_site = try_as("21000002", "window-1");
    assert!(other_site.contains("is the journal of 11000001/window-1, and this is 21000002/window-1"), "{other_site}");
    assert!(try_as("11000001", "window-2").contains("is the journal of 11000001/window-1"));

    fs::write(&key, [7, 8].repeat(16)).unwrap();
    assert!(matches!(refused(&path), NotOpened::WrongKey(_)));
    for not_a_key in [&right[..31], &[0; 32], b""] {
        fs::write(&key, not_a_key).unwrap();
        assert!(matches!(refused(&path), NotOpened::Key(NoKey::NotAKey(_))));
    }
    fs::write(&key, &right).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let NotOpened::Key(NoKey::Readable { mode, .. }) = refused(&path) else { panic!("others may read it") };
    assert_eq!(mode, 0o640);
    fs::remove_file(&key).unwrap();
    assert!(matches!(refused(&path), NotOpened::Key(NoKey::Missing(_))), "no new key is made for an old journal");
    assert!(!key.exists());
    fs::write(&key, &right).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();

    let mut later = whole.clone();
    later[8] = 3;
    // Of another layout the frames are others too.
    later.truncate(60);
    fs::write(&path, &later).unwrap();
    assert!(matches!(refused(&path), NotOpened::Layout { layout: 3, .. }));
    for something_else in [&b"PK\x03\x04 a spreadsheet"[..], b""] {
        fs::write(&path, something_else).unwrap();
        assert!(matches!(refused(&path), NotOpened::NotAJournal(_)));
    }
    assert_eq!(fs::read(&path).unwrap(), b"", "and left as it is");
    fs::write(&path, &whole).unwrap();
    assert_eq!(rows(&open(&path).unwrap().0).len(), 1, "it was whole all the time");
    let names = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names, 3, "the journal, its lock and its key");
}

#[test]
fn numbers_leave_the_file_when_nobody_needs_them() {
    let (_directory, path) = place();
    let (settled, open_still) = (RequestId::random(), RequestId::random());
    let (journal, _) = open(&path).unwrap();
    let became = Fact::Became { id: settled, what: Became::Sold, masked: Some("400101-1******".into()) };
    write(&journal, vec![told(), asked(settled, 0, start()), became, sold_offline(open_still, 1, start())]).unwrap();
    let (long, list) = (fs::metadata(&path).unwrap().len(), rows(&journal));
    drop(journal);
    let tomorrow = start().plus(Duration::from_secs(86_400));
    let (journal, _) = open_at(&path, tomorrow).unwrap();
    assert_eq!(rows(&journal), list, "the list is the same");
    let seller = sale(0);
    let earlier = |nth| journal.read(|state| state.earlier(seller.programme, &sale(nth).buyer).len());
    assert_eq!((earlier(0), earlier(1), earlier(2)), (1, 1, 0), "and so is what it warns of");
    println!("{long} bytes with both numbers, {} with one", fs::metadata(&path).unwrap().len());
    drop(journal);
    let (journal, _) = open_at(&path, tomorrow.plus(Duration::from_secs(9 * 86_400))).unwrap();
    assert_eq!(ids(&rows(&journal)), [open_still], "what is open stays, however old");
    write(&journal, vec![Fact::Judged { id: open_still, verdict: Verdict::Recorded }]).unwrap();
    assert_eq!(rows(&journal)[0].stands, Stands::Uploaded(Verdict::Recorded));
}

#[test]
fn numbers_leave_the_file_also_while_the_program_runs_for_days() {
    let (_directory, path) = place();
    let (journal, _) = open(&path).unwrap();
    for nth in 0..20 {
        let id = RequestId::random();
        let became = Fact::Became { id, what: Became::Sold, masked: None };
        write(&journal, vec![told(), asked(id, nth, start()), became]).unwrap();
    }
    let (list, long) = (rows(&journal), fs::metadata(&path).unwrap().len());
    journal.tidy(start().plus(Duration::from_secs(3_600))).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), long, "not so soon");
    let waits = RequestId::random();
    write(&journal, vec![sold_offline(waits, 20, start())]).unwrap();
    let tomorrow = start().plus(Duration::from_secs(86_400));
    journal.tidy(tomorrow).unwrap();
    assert!(fs::metadata(&path).unwrap().len() > long, "not while anything is open");
    write(&journal, vec![Fact::Judged { id: waits, verdict: Verdict::Recorded }]).unwrap();
    journal.tidy(tomorrow).unwrap();
    let short = fs::metadata(&path).unwrap().len();
    println!("{long} bytes of 20 sales before, {short} of 21 afterwards");
    assert!(short < long);
    let more = RequestId::random();
    write(&journal, vec![sold_offline(more, 21, tomorrow)]).unwrap();
    drop(journal);
    let (journal, damage) = open_at(&path, tomorrow).unwrap();
    assert_eq!(damage, None);
    assert_eq!(rows(&journal)[..20], list, "the list is the same");
    assert_eq!(ids(&rows(&journal))[20..], [waits, more], "and goes on in the new file");
}

/// Writes until nothing more can be written, and says what it has and why it has no more.
pub fn fill(path: &str) {
    let opened = open(Path::new(path));
    let journal = match opened {
        Ok((journal, _)) => journal,
        Err(error) => return say(&format!("refused {error}")),
    };
    for nth in 0.. {
        let id = RequestId::random();
        match write(&journal, vec![sold_offline(id, nth, start())]) {
            Ok(()) => say(&format!("has {id}")),
            Err(error) => {
                say(&format!("refused {error}"));
                break;
            }
        }
    }
    assert!(write(&journal, vec![told()]).is_err(), "it does not pretend");
    say(&format!("shows {}", rows(&journal).len()));
    listen();
}

#[test]
fn on_a_full_disk_nothing_is_pretended_and_nothing_lost() {
    let (_directory, path) = place();
    let (mut has, mut why, mut shows) = (Vec::new(), String::new(), 0);
    let mut worker = workers::start_on_a_full_disk(BLOCKS, &format!("fill {}", path.display()));
    while let Some(said) = worker.hear() {
        let (what, rest) = said.split_once(' ').unwrap();
        match what {
            "has" => has.push(rest.to_owned()),
            "refused" => why = rest.to_owned(),
            _ => {
                shows = rest.parse().unwrap();
                break;
            }
        }
    }
    worker.kill();
    println!("{} sales written, then: {why}", has.len());
    assert!(why.contains("nothing can be written into the journal") && why.contains("so nothing is sold"), "{why}");
    assert!(!has.is_empty() && shows == has.len(), "what is shown is on the disk");
    let (journal, damage) = open(&path).unwrap();
    assert_eq!(damage, None, "it was cut back to the last whole fact");
    assert_eq!(rows(&journal).iter().map(|row| row.id.to_string()).collect::<Vec<_>>(), has);

    let (_directory, path) = place();
    let mut worker = workers::start_on_a_full_disk(0, &format!("fill {}", path.display()));
    let said = worker.hear().unwrap();
    println!("{said}");
    assert!(said.starts_with("refused ") && said.contains("cannot be"), "{said}");
}

/// Sells to one after the other until nothing can be written down, and then to a few more.
pub fn sell_until_full(address: &str, journal: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let counter = selling(address, Path::new(journal)).await;
        let mut refused = 0;
        for nth in 0.. {
            match counter.sell(sale(nth)).await {
                Ok(Answer::Approved(_)) => say(&format!("sold {nth}")),
                Ok(_) => say(&format!("other {nth}")),
                Err(_) => {
                    let trouble = counter.shown().borrow().trouble.clone();
                    say(&format!("refused {nth} {}", trouble.unwrap()));
                    refused += 1;
                }
            }
            if refused == 3 {
                break;
            }
        }
        say("done");
        listen();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_whose_disk_is_full_sends_nothing_and_says_so() {
    let (directory, path) = place();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let order = format!("sell-until-full {} {}", service.address, path.display());
    let mut worker = workers::start_on_a_full_disk(BLOCKS, &order);
    let (mut sold, mut refused, mut why) = (Vec::new(), Vec::new(), String::new());
    while let Some(said) = worker.hear().filter(|said| said != "done") {
        let mut words = said.splitn(3, ' ');
        let (what, nth) = (words.next().unwrap(), words.next().unwrap().parse::<u64>().unwrap());
        match what {
            "sold" => sold.push(nth),
            "refused" => (refused.push(nth), why = words.next().unwrap().to_owned()).0,
            other => panic!("{other}"),
        }
    }
    worker.kill();
    println!("{} sold, then refused: {why}", sold.len());
    assert!(!sold.is_empty() && refused.len() == 3 && why.contains("so nothing is sold"), "{why}");
    let looks = service.terminal(SITES[1], "looks").await;
    for (people, units) in [(&sold, 1), (&refused, 0)] {
        for nth in people {
            assert_eq!(bought(&looks, &number(*nth)).await, units, "{nth}");
        }
    }
    let (journal, damage) = open(&path).unwrap();
    assert_eq!((rows(&journal).len(), damage), (sold.len(), None));
    tokio::task::block_in_place(|| service.stop());
}
