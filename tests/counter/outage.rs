//! What a counter does while the service is away, slow or silent, and afterwards.

use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;
use rationd::terminal::counter::{Answer, Checked, Counter, Line, NotHandedOver, NotSold, NotTaken, Settings, Taken};
use rationd::terminal::journal::{Became, Stands, WhenAway};
use rationd::time::SystemClock;
use tempfile::TempDir;

use super::scene::{in_front_of, is_settled, may_sell, port, recorded, sale, selling, settings, until};
use crate::service::Service;
use crate::shops::{SATURDAY, SITES, bought, number};
use crate::support::proxy::Fault;

/// How long a sale waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
const OFFLINE_WITHIN: Duration = Duration::from_millis(50);

fn start(directory: &TempDir) -> Service {
    Service::start(directory.path(), &["--clock", SATURDAY], &[])
}

fn named(answer: &Answer) -> String {
    match answer {
        Answer::Approved(_) => "approved".into(),
        Answer::Refused(refused) => refused.reasons[0].refusal().as_str_name().into(),
        Answer::NotRequired { .. } => "not required".into(),
        Answer::Offline(_) => "offline".into(),
        Answer::Unknown { .. } => "unknown".into(),
        Answer::NotYet(line) => format!("not yet: {line:?}"),
        Answer::Failed(error) => format!("failed: {error}"),
    }
}

/// Sells, and gives the answer's name.
async fn sell(counter: &Counter, nth: u64) -> String {
    named(&counter.sell(sale(nth)).await.unwrap())
}

fn stands(counter: &Counter) -> Vec<Stands> {
    counter.today().into_iter().map(|row| row.stands).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_sells_refuses_and_takes_back() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(&directory);
    let counter = selling(&service.address, &directory.path().join("counter.journal")).await;
    let Checked::Answered(may) = counter.check(&sale(0)).await else { panic!("it can be reached") };
    assert!(matches!(may.outcome, Some(Outcome::MayBuy(_))), "{may:?}");
    assert_eq!(counter.sell_offline(sale(0)).await, Err(NotSold::NotAway), "no way around the check");
    let Answer::Approved(first) = counter.sell(sale(0)).await.unwrap() else { panic!("not sold") };
    assert_eq!(first.receipt.request_id, first.id.to_string());
    assert_eq!(first.standing.unwrap().units_left, Some(1));
    assert_eq!([sell(&counter, 0).await, sell(&counter, 0).await], ["approved", "REFUSAL_QUOTA_EXHAUSTED"]);
    let taken = [counter.void(first.id).await, counter.void(first.id).await];
    assert_eq!(taken, [Ok(Taken::Back), Ok(Taken::Back)]);
    assert_eq!(sell(&counter, 0).await, "approved", "what it used is free again");
    let quota = Stands::Became(Became::Refused(vec!["QUOTA_EXHAUSTED".into()]));
    let sold = Stands::Became(Became::Sold);
    assert_eq!(stands(&counter), [Stands::Voided, sold.clone(), quota.clone(), sold]);
    let refused = counter.today()[2].clone();
    assert_eq!(refused.masked, format!("{}******", &number(0)[..8]));
    assert_eq!(counter.void(refused.id).await, Err(NotTaken::NotSold(quota)));
    counter.close().await;
    // Hours later, and after a restart, the list is the same. The numbers are gone, and a sale is taken back with its own alone.
    let clock = SystemClock::starting_at(super::scene::start().plus(Duration::from_secs(2 * 3_600)));
    let settings = settings(&service.address, &directory.path().join("counter.journal"));
    let (counter, _) = Counter::open(Settings { clock, ..settings }).await.unwrap();
    may_sell(&counter).await;
    assert_eq!(stands(&counter).len(), 4);
    let last = counter.today()[3].id;
    assert_eq!(counter.void(last).await, Err(NotTaken::NumberGone));
    let buyer = |nth| sale(nth).buyer;
    assert_eq!(counter.void_by_number(last, buyer(1)).await, Err(NotTaken::OtherNumber));
    assert_eq!(counter.void_by_number(last, buyer(0)).await, Ok(Taken::Back));
    assert_eq!(stands(&counter)[3], Stands::Voided);
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offline_a_terminal_answers_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = start(&directory);
    let counter = selling(&service.address, &directory.path().join("counter.journal")).await;
    assert_eq!(sell(&counter, 0).await, "approved");
    service.kill();
    let mut took = Vec::new();
    for nth in 0..200 {
        let begun = Instant::now();
        let Answer::Offline(offline) = counter.sell(sale(nth)).await.unwrap() else {
            panic!("the {nth}th is not offline")
        };
        took.push(begun.elapsed());
        assert_eq!(offline.earlier.len(), usize::from(nth == 0), "its own earlier sale is told");
    }
    let first = took[0];
    took.sort_unstable();
    println!("offline: first answer {first:?}, median {:?}, slowest {:?} of {}", took[100], took[199], took.len());
    assert!(took[199] < OFFLINE_WITHIN, "{:?}", took[199]);
    let shown = counter.shown().borrow().clone();
    assert_eq!((shown.line, shown.unresolved, shown.trouble), (Line::Away, 0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_opens_while_the_service_is_away_and_comes_in_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = start(&directory);
    let (proxy, address) = in_front_of(&service).await;
    service.kill();
    let journal = directory.path().join("counter.journal");
    let (counter, _) = Counter::open(settings(&address, &journal)).await.unwrap();
    assert_eq!(sell(&counter, 0).await, "offline");
    let service = start(&directory);
    proxy.aim(port(&service));
    may_sell(&counter).await;
    assert_eq!(sell(&counter, 0).await, "approved");
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// Two windows of one name do not put each other out for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_whose_name_another_has_taken_stays_away() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(&directory);
    let first = selling(&service.address, &directory.path().join("first.journal")).await;
    let second = selling(&service.address, &directory.path().join("second.journal")).await;
    let mut shown = first.shown();
    let turned_away = shown.wait_for(|shown| matches!(shown.line, Line::TurnedAway(_)));
    tokio::time::timeout(PATIENCE, turned_away).await.expect("it hears of it").unwrap();
    tokio::time::sleep(PATIENCE).await;
    assert!(matches!(first.shown().borrow().line, Line::TurnedAway(_)));
    assert!(matches!(second.shown().borrow().line, Line::Selling { .. }));
    let programme = sale(0).programme;
    assert_eq!([first.when_away(programme), second.when_away(programme)], [WhenAway::SellAndRecord; 2]);
    first.close().await;
    second.close().await;
    tokio::task::block_in_place(|| service.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_that_was_told_nothing_sells_nothing_offline() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody listens there: the port was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = settings(&format!("http://127.0.0.1:{port}"), &directory.path().join("counter.journal"));
    let (counter, _) = Counter::open(settings).await.unwrap();
    let Answer::Offline(offline) = counter.sell(sale(0)).await.unwrap() else { panic!("it is away") };
    assert_eq!((offline.rule, offline.earlier), (WhenAway::Stop, vec![]));
    assert_eq!(counter.sell_offline(sale(0)).await, Err(NotSold::Stopped));
    let nobody = RequestId::random();
    assert_eq!(counter.hand_over(nobody).await, Err(NotHandedOver::NotAsked(nobody)));
    assert_eq!(counter.void(nobody).await, Err(NotTaken::NotOurs(nobody)));
    assert!(counter.today().is_empty());
}

/// The service does what it is asked, and its answers do not come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_service_is_waited_for_once_and_asked_afterwards_by_the_same_id() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(&directory);
    let (proxy, address) = in_front_of(&service).await;
    let counter = selling(&address, &directory.path().join("counter.journal")).await;
    proxy.strike(Fault::Mute);
    let begun = Instant::now();
    let Answer::Unknown { id, offline } = counter.sell(sale(0)).await.unwrap() else { panic!("it is silent") };
    let (patient, certain) =
        (begun.elapsed(), offline.earlier.iter().map(|earlier| earlier.certain).collect::<Vec<_>>());
    assert_eq!(certain, [false], "the sale itself");
    let begun = Instant::now();
    assert_eq!(sell(&counter, 1).await, "offline");
    println!("silent: the first sale waits {patient:?}, the second {:?}", begun.elapsed());
    assert!(begun.elapsed() < OFFLINE_WITHIN && patient < PATIENCE + Duration::from_millis(500));
    assert_eq!((stands(&counter), counter.shown().borrow().unresolved), (vec![Stands::Unknown], 1));
    proxy.heal();
    is_settled(&counter).await;
    assert_eq!(stands(&counter), [Stands::Became(Became::Sold)]);
    assert!(matches!(recorded(&service, 0, id).await, Outcome::Approved(_)));
    may_sell(&counter).await;
    let looks = service.terminal(SITES[1], "looks").await;
    assert_eq!(bought(&looks, &number(0)).await, 1);
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// Nothing arrives at the service, which dies: nobody at the counter can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_into_nothing_is_not_recorded_and_its_id_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = start(&directory);
    let (proxy, address) = in_front_of(&service).await;
    let counter = selling(&address, &directory.path().join("counter.journal")).await;
    proxy.strike(Fault::Silence);
    assert_eq!(sell(&counter, 0).await, "unknown");
    service.kill();
    let begun = Instant::now();
    assert_eq!(sell(&counter, 1).await, "offline");
    assert!(begun.elapsed() < OFFLINE_WITHIN);
    let service = start(&directory);
    proxy.aim(port(&service));
    proxy.heal();
    is_settled(&counter).await;
    assert_eq!(stands(&counter), [Stands::Became(Became::NotRecorded)]);
    may_sell(&counter).await;
    assert_eq!([sell(&counter, 0).await, sell(&counter, 0).await], ["approved", "approved"]);
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// An outage of which every attempt can be counted: whatever dials is let in and cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_in_an_outage_are_a_tenth_more_than_calls_at_the_most() {
    const OUTAGE: u32 = 30;
    let directory = tempfile::tempdir().unwrap();
    let mut service = start(&directory);
    let (proxy, address) = in_front_of(&service).await;
    let counter = selling(&address, &directory.path().join("counter.journal")).await;
    for nth in 0..20 {
        assert_eq!(sell(&counter, nth).await, "approved");
    }
    service.kill();
    until("the line is cut", async || proxy.open() == 0).await;
    let before = proxy.made();
    // Attempts so far, at the end of each second, in which there is one call.
    let (mut attempts, mut offline) = (vec![0], 0);
    for nth in 0..OUTAGE {
        offline += u32::from(sell(&counter, u64::from(nth)).await == "offline");
        tokio::time::sleep(Duration::from_secs(1)).await;
        attempts.push(proxy.made() - before);
    }
    let most = attempts.windows(11).map(|window| window[10] - window[0]).max().unwrap();
    println!(
        "{OUTAGE} calls in {OUTAGE} s of outage, {offline} answered offline: {} attempts, at most {most} in any 10 s of 10 calls",
        attempts.last().unwrap()
    );
    assert!(*attempts.last().unwrap() > 1, "it tries to come back");
    assert!(most * 10 <= 11 * 10, "{attempts:?}");
    let service = start(&directory);
    proxy.aim(port(&service));
    may_sell(&counter).await;
    is_settled(&counter).await;
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}
