//! A terminal that is killed, at any moment: what it had said to have is there.
//!
//! `RATIOND_JOURNAL_KILLS` says how often the journal is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;
use rationd::load::chance::Chance;
use rationd::terminal::counter::{Answer, Counter, Settings};
use rationd::terminal::journal::{Became, Fact, Row, Stands, Verdict};
use rationd::time::Timestamp;

use super::scene::{
    asked, in_front_of, is_settled, may_sell, open_at, recorded, rows, sale, selling, settings, sold_offline, start,
    told, until, write,
};
use super::workers;
use crate::service::Service;
use crate::shops::{SATURDAY, SITES, bought, number};
use crate::support::proxy::Fault;
use crate::support::workers::{listen, say, setting};

const KILLS: u64 = 120;
const DAY: Duration = Duration::from_secs(86_400);
/// So many days a settled sale is remembered for certain.
const REMEMBERED: u64 = 7;

fn day(nth: u64) -> Timestamp {
    start().plus(DAY * u32::try_from(nth).unwrap())
}

/// Writes sales until it is killed, and says each step when it is on the disk.
pub fn write_until_killed(path: &str, today: u64) {
    let (journal, damage) = open_at(Path::new(path), day(today)).unwrap();
    if let Some(damage) = damage {
        say(&format!("damage {} {}", damage.torn, damage));
    }
    // What has been open for days is settled, so that the file does not grow for ever.
    let is_old = |row: &Row| row.at < day(today.saturating_sub(3));
    let settled = rows(&journal).into_iter().filter(is_old).filter_map(|Row { id, stands, .. }| match stands {
        Stands::Unknown => Some(Fact::Became { id, what: Became::Sold, masked: None }),
        Stands::Waits => Some(Fact::Judged { id, verdict: Verdict::Recorded }),
        _ => None,
    });
    write(&journal, settled.chain([told()]).collect()).unwrap();
    for nth in 0.. {
        let id = RequestId::random();
        let step = |what: &str, facts| {
            write(&journal, facts).unwrap();
            say(&format!("{what} {id}"));
        };
        match nth % 8 {
            0 => step("waits", vec![sold_offline(id, nth, day(today))]),
            1 => step("unknown", vec![asked(id, nth, day(today))]),
            2 => {
                step("waits", vec![sold_offline(id, nth, day(today)), Fact::Uploading { ids: vec![id] }]);
                step("uploaded", vec![Fact::Judged { id, verdict: Verdict::Recorded }]);
            }
            3 => {
                step("unknown", vec![asked(id, nth, day(today))]);
                step("waits", vec![sold_offline(id, nth, day(today))]);
                step("uploaded", vec![Fact::Judged { id, verdict: Verdict::Recorded }]);
            }
            _ => {
                step("unknown", vec![asked(id, nth, day(today))]);
                step("sold", vec![Fact::Became { id, what: Became::Sold, masked: None }]);
            }
        }
    }
}

/// How far a sale has got, as it is said.
fn step(stands: &Stands) -> &'static str {
    match stands {
        Stands::Unknown => "unknown",
        Stands::Waits => "waits",
        Stands::Became(Became::Sold) => "sold",
        Stands::Uploaded(Verdict::Recorded) => "uploaded",
        other => panic!("{other:?} was never written"),
    }
}

/// Whether a sale that was said to stand like this may be found like that: a step that was written and not said is a step.
fn may_have_become(said: &str, found: &str) -> bool {
    said == found || matches!((said, found), ("unknown", "sold" | "waits") | ("waits", "uploaded"))
}

#[test]
fn the_journal_keeps_what_it_has_written_through_kill_9() {
    let kills = setting("RATIOND_JOURNAL_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counter.journal");
    let mut chance = Chance::of(kills, "journal kills", 0);
    let mut said = BTreeMap::<String, (u64, String)>::new();
    let (mut written, mut unsaid, mut torn, mut before_the_first) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut known = BTreeSet::new();
    for today in 0..kills {
        let mut worker = workers::start(&format!("write {} {today}", path.display()));
        // Every second one while it opens the journal and writes it anew, or soon afterwards; the others while facts are written.
        let mut first = if today % 2 == 1 { worker.hear() } else { None };
        std::thread::sleep(chance.within((Duration::from_millis(1), Duration::from_millis(60))));
        worker.kill();
        let mut heard = 0;
        while let Some(words) = first.take().or_else(|| worker.hear()) {
            let (what, rest) = words.split_once(' ').unwrap();
            if what == "damage" {
                assert_ne!(rest.split_once(' ').unwrap().0, "0", "only a torn end: {rest}");
                torn += 1;
                continue;
            }
            heard += 1;
            said.insert(rest.to_owned(), (today, what.to_owned()));
        }
        written += heard;
        before_the_first += u64::from(heard == 0);

        let (journal, damage) = open_at(&path, day(today)).unwrap();
        if let Some(damage) = damage {
            let is_torn = damage.torn > 0 && damage.skipped + damage.misplaced == 0 && damage.missing.is_empty();
            assert!(is_torn, "{damage}");
            torn += 1;
        }
        let rows = rows(&journal);
        let found: BTreeMap<String, &'static str> =
            rows.iter().map(|row| (row.id.to_string(), step(&row.stands))).collect();
        assert_eq!(found.len(), rows.len(), "0 doubled");
        for (id, (on, what)) in &mut said {
            match found.get(id) {
                Some(found) => {
                    assert!(may_have_become(what, found), "{id}: {what} became {found}");
                    *what = (*found).to_owned();
                }
                None => {
                    let may_be_forgotten = *on + REMEMBERED < today && matches!(what.as_str(), "sold" | "uploaded");
                    assert!(may_be_forgotten, "{id} of day {on}, {what}, is lost on day {today}");
                }
            }
        }
        let new = found.keys().filter(|id| !said.contains_key(*id) && known.insert((*id).clone())).count();
        assert!(new <= 1, "{new} sales that nobody has said");
        unsaid += new as u64;
        said.retain(|id, _| found.contains_key(id));
    }
    println!(
        "journal: {kills} kills, {written} facts said to be written, 0 lost, 0 doubled; {unsaid} written and not said, \
         {torn} torn ends, {before_the_first} kills before the first"
    );
    assert!(written > kills);
}

/// Sells once, when it is told to, and says what came of it.
pub fn sell_once(address: &str, journal: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let settings = Settings { patience: Duration::from_secs(60), ..settings(address, Path::new(journal)) };
        let (counter, _) = Counter::open(settings).await.unwrap();
        may_sell(&counter).await;
        say("may sell");
        listen();
        let answer = counter.sell(sale(7)).await.unwrap();
        say(if matches!(answer, Answer::Approved(_)) { "sold" } else { "not sold" });
        listen();
    });
}

/// A purchase reaches the service, is recorded, and its answer does not come back. The terminal loses its power. Started again, it
/// knows what to ask about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_in_the_journal_of_a_terminal_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let (proxy, address) = in_front_of(&service).await;
    let journal = directory.path().join("counter.journal");
    let mut worker = workers::start(&format!("sell {address} {}", journal.display()));
    assert_eq!(worker.hear().as_deref(), Some("may sell"));
    proxy.strike(Fault::Mute);
    worker.tell("sell");
    let looks = service.terminal(SITES[1], "looks").await;
    until("the sale is recorded", async || bought(&looks, &number(7)).await == 1).await;
    worker.kill();
    proxy.heal();

    let begun = Instant::now();
    let counter = selling(&address, &journal).await;
    let [row] = &counter.today()[..] else { panic!("the journal knows of {} sales", counter.today().len()) };
    let id = row.id;
    is_settled(&counter).await;
    println!("the outcome of a purchase that was cut off was known {:?} after the start", begun.elapsed());
    assert_eq!(counter.today()[0].stands, Stands::Became(Became::Sold));
    let Outcome::Approved(approved) = recorded(&service, 7, id).await else { panic!("it is another id's sale") };
    assert_eq!(approved.receipt.unwrap().request_id, id.to_string());
    assert_eq!(bought(&looks, &number(7)).await, 1, "once");
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}
