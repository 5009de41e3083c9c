//! What a counter holds for somebody who comes back with a number ticket.

use std::time::Duration;

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;
use rationd::terminal::counter::{Answer, Counter, NotConfirmed, Taken};
use rationd::terminal::journal::{Became, Stands, Verdict};
use tempfile::TempDir;

use super::scene::{in_front_of, is_settled, may_sell, port, recorded, sale, selling};
use crate::service::Service;
use crate::shops::{SATURDAY, SITES, bought, number};
use crate::support::proxy::Fault;

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
    let service = start(&directory);
    let (proxy, address) = in_front_of(&service).await;
    let journal = directory.path().join("counter.journal");
    let counter = selling(&address, &journal).await;
    // It arrives, and its answer does not come back.
    let arrives = hold(&counter, 0, AN_HOUR).await;
    proxy.strike(Fault::Mute);
    assert!(matches!(counter.confirm(arrives).await.unwrap(), Answer::Unknown { id, .. } if id == arrives));
    assert_eq!(stands(&counter, arrives), Stands::Unknown);
    proxy.heal();
    is_settled(&counter).await;
    assert_eq!(stands(&counter, arrives), Stands::Became(Became::Sold));
    // It does not even arrive, and the terminal ends.
    may_sell(&counter).await;
    let lost = hold(&counter, 1, AN_HOUR).await;
    proxy.strike(Fault::Silence);
    assert!(matches!(counter.confirm(lost).await.unwrap(), Answer::Unknown { .. }));
    counter.close().await;
    proxy.heal();
    let counter = selling(&address, &journal).await;
    is_settled(&counter).await;
    assert!(is_held(&stands(&counter, lost)), "it is held as before");
    assert!(matches!(counter.confirm(lost).await.unwrap(), Answer::Approved(_)), "and confirmed by its number");
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
    let service = Service::start(directory.path(), &["--clock", SATURDAY, "--listen", &listen], &[]);
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
