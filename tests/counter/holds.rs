//! What a counter holds for somebody who comes back with a number ticket.

use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;
use rationd::terminal::counter::{Answer, Counter, NotConfirmed, NotHandedOver, Settings, Taken};
use rationd::terminal::journal::{Became, Stands, Verdict};
use tempfile::TempDir;

use super::scene::{in_front_of, is_settled, may_sell, port, recorded, sale, selling, settings, until};
use crate::service::Service;
use crate::shops::{SATURDAY, SITES, bought, number};
use crate::support::proxy::Fault;

/// When a service comes back whose first day began on Saturday at nine: what was held for a second has run out.
const LATER: &str = "2020-06-20T09:10:00+09:00";
const AN_HOUR: Duration = Duration::from_secs(3_600);

fn start(directory: &TempDir) -> Service {
    Service::start(directory.path(), &["--clock", SATURDAY], &[])
}

async fn hold(counter: &Counter, nth: u64, span: Duration) -> RequestId {
    let Answer::Approved(held) = counter.hold(sale(nth), span).await.unwrap() else { panic!("not held") };
    held.id
}

fn stands(counter: &Counter, id: RequestId) -> Stands {
    counter.today().into_iter().find(|row| row.id == id).unwrap().stands
}

fn is_held(stands: &Stands) -> bool {
    matches!(stands, Stands::Became(Became::Held { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_sold_taken_back_or_comes_free() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(&directory);
    let counter = selling(&service.address, &directory.path().join("counter.journal")).await;
    let looks = service.terminal(SITES[1], "looks").await;

    let sold = hold(&counter, 0, AN_HOUR).await;
    assert!(is_held(&stands(&counter, sold)));
    assert_eq!(bought(&looks, &number(0)).await, 1, "what is held counts");
    let Answer::Approved(approved) = counter.confirm(sold).await.unwrap() else { panic!("not sold") };
    assert_eq!((approved.id, approved.receipt.request_id), (sold, sold.to_string()));
    let known = NotConfirmed::NotHeld(Stands::Became(Became::Sold));
    assert_eq!(counter.confirm(sold).await.err(), Some(known), "once is enough");
    assert_eq!(bought(&looks, &number(0)).await, 1);

    let given_back = hold(&counter, 1, AN_HOUR).await;
    assert_eq!(counter.void(given_back).await, Ok(Taken::Back));
    assert!(matches!(recorded(&service, 1, given_back).await, Outcome::Released(_)));
    assert_eq!(counter.confirm(given_back).await.err(), Some(NotConfirmed::NotHeld(Stands::Voided)));
    assert_eq!(bought(&looks, &number(1)).await, 0);

    let ran_out = hold(&counter, 2, Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(counter.confirm(ran_out).await.err(), Some(NotConfirmed::Over(Became::Released)));
    assert_eq!(stands(&counter, ran_out), Stands::Became(Became::Released));

    let nobodys = RequestId::random();
    assert_eq!(counter.confirm(nobodys).await.err(), Some(NotConfirmed::NotOurs(nobodys)));
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// Nobody hears whether it was made a sale; afterwards it is asked, and answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_without_an_answer_is_asked_about() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = start(&directory);
    let (proxy, address) = in_front_of(&service).await;
    let journal = directory.path().join("counter.journal");
    let counter = selling(&address, &journal).await;
    // It arrives, and its answer does not come back.
    let arrives = hold(&counter, 0, AN_HOUR).await;
    proxy.strike(Fault::Mute);
    assert!(matches!(counter.confirm(arrives).await.unwrap(), Answer::Unknown { id, .. } if id == arrives));
    assert_eq!(stands(&counter, arrives), Stands::Unknown);
    let begun = Instant::now();
    proxy.heal();
    is_settled(&counter).await;
    assert_eq!(stands(&counter, arrives), Stands::Became(Became::Sold));
    assert!(begun.elapsed() > Duration::from_secs(10), "it was not asked about while it could still arrive");
    // It does not even arrive, and the terminal ends.
    may_sell(&counter).await;
    let lost = hold(&counter, 1, AN_HOUR).await;
    proxy.strike(Fault::Silence);
    assert!(matches!(counter.confirm(lost).await.unwrap(), Answer::Unknown { .. }));
    counter.close().await;
    service.kill();
    let service = start(&directory);
    proxy.aim(port(&service));
    proxy.heal();
    let counter = selling(&address, &journal).await;
    is_settled(&counter).await;
    assert!(is_held(&stands(&counter, lost)), "it is held as before");
    assert!(matches!(counter.confirm(lost).await.unwrap(), Answer::Approved(_)), "and confirmed by its number");
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// A doubled tap; and somebody takes the ticket back while it is being confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_confirmed_once_and_not_handed_over_when_it_is_taken_back_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(&directory);
    let (proxy, address) = in_front_of(&service).await;
    let settings = settings(&address, &directory.path().join("counter.journal"));
    let (counter, _) = Counter::open(Settings { patience: Duration::from_secs(30), ..settings }).await.unwrap();
    may_sell(&counter).await;
    for nth in 0..20 {
        let id = hold(&counter, nth, AN_HOUR).await;
        let (one, other) = tokio::join!(counter.confirm(id), counter.confirm(id));
        let is_sold = |answer: &Result<Answer, NotConfirmed>| match answer {
            Ok(Answer::Approved(approved)) => approved.id == id,
            // It came after the first was done.
            Err(NotConfirmed::NotHeld(stands)) => *stands == Stands::Became(Became::Sold),
            _ => false,
        };
        assert!(is_sold(&one) && is_sold(&other), "{:?} {:?}", one.err(), other.err());
        assert_eq!(stands(&counter, id), Stands::Became(Became::Sold));
    }
    let id = hold(&counter, 20, AN_HOUR).await;
    assert_eq!(counter.hand_over(id).await.err(), Some(NotHandedOver::Known(stands(&counter, id))), "confirm it");
    proxy.strike(Fault::Latency(Duration::from_secs(1)));
    let confirming = counter.confirm(id);
    let taking_back = async {
        until("it to be sent", async || stands(&counter, id) == Stands::Unknown).await;
        counter.void(id).await
    };
    let (confirmed, taken) = tokio::join!(confirming, taking_back);
    assert_eq!(taken, Ok(Taken::BackLater));
    assert_eq!(confirmed.err(), Some(NotConfirmed::Over(Became::Voided)), "it is not handed over");
    proxy.heal();
    let voided = async || matches!(recorded(&service, 20, id).await, Outcome::Voided(_) | Outcome::Released(_));
    until("it to be taken back", voided).await;
    until("the journal to say so", async || stands(&counter, id) == Stands::Voided).await;
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// The buyer comes with the ticket while the service is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_and_handed_over_in_an_outage_is_one_sale() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = start(&directory);
    let listen = format!("127.0.0.1:{}", port(&service));
    let counter = selling(&service.address, &directory.path().join("counter.journal")).await;
    let [comes, ran_out] = [hold(&counter, 0, AN_HOUR).await, hold(&counter, 1, Duration::from_secs(1)).await];
    service.kill();
    let Answer::Offline(offline) = counter.confirm(comes).await.unwrap() else { panic!("it is away") };
    assert!(!offline.earlier[0].certain && is_held(&stands(&counter, comes)));
    assert!(matches!(counter.hold(sale(2), AN_HOUR).await.unwrap(), Answer::Offline(_)), "nothing is held now");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for id in [comes, ran_out] {
        counter.hand_over(id).await.unwrap();
        assert_eq!(stands(&counter, id), Stands::Waits);
    }
    let service = Service::start(directory.path(), &["--clock", LATER, "--listen", &listen], &[]);
    is_settled(&counter).await;
    let looks = service.terminal(SITES[1], "looks").await;
    for (nth, id) in [(0, comes), (1, ran_out)] {
        assert_eq!(stands(&counter, id), Stands::Uploaded(Verdict::Recorded));
        assert!(matches!(recorded(&service, nth, id).await, Outcome::Approved(_)));
        assert_eq!(bought(&looks, &number(nth)).await, 1);
    }
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}
