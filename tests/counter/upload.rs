//! What was sold while the service was away: uploaded by itself, once, and told what became of each.

use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;
use rationd::terminal::counter::{Answer, Counter, NotHandedOver, Taken};
use rationd::terminal::journal::{Became, Fact, Stands, Verdict, WhenAway};

use super::scene::{
    in_front_of, is_settled, may_sell, open, port, recorded, sale, selling, settings, sold_offline, start, told, write,
};
use crate::service::Service;
use crate::shops::{SATURDAY, SITES, bought, number};
use crate::support::proxy::Fault;

/// When a service comes back whose first day began on Saturday at nine.
const LATER: &str = "2020-06-20T10:00:00+09:00";
const OFFLINE_WITHIN: Duration = Duration::from_millis(50);

fn stands(counter: &Counter, id: RequestId) -> Stands {
    counter.today().into_iter().find(|row| row.id == id).unwrap().stands
}

async fn all_bought(service: &Service, people: std::ops::Range<u64>) -> Vec<u32> {
    let looks = service.terminal(SITES[1], "looks").await;
    let mut units = Vec::new();
    for nth in people {
        units.push(bought(&looks, &number(nth)).await);
    }
    units
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sold_in_an_outage_is_uploaded_and_judged_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let (proxy, address) = in_front_of(&service).await;
    let journal = directory.path().join("counter.journal");
    let counter = selling(&address, &journal).await;
    assert!(matches!(counter.sell(sale(0)).await.unwrap(), Answer::Approved(_)));

    proxy.strike(Fault::Silence);
    let Answer::Unknown { id: handed_over, .. } = counter.sell(sale(1)).await.unwrap() else { panic!("it is silent") };
    service.kill();
    counter.hand_over(handed_over).await.unwrap();
    let (mut took, mut sold) = (Vec::new(), Vec::new());
    for nth in [0, 0, 2, 3] {
        let begun = Instant::now();
        let Answer::Offline(offline) = counter.sell(sale(nth)).await.unwrap() else { panic!("it is away") };
        assert_eq!(offline.rule, WhenAway::SellAndRecord);
        assert_eq!(offline.earlier.len(), if nth == 0 { 1 + sold.len() } else { 0 }, "a warning");
        sold.push(counter.sell_offline(sale(nth)).await.unwrap());
        took.push(begun.elapsed());
    }
    println!("offline, asked and written down: {took:?}");
    assert!(took.iter().all(|took| *took < OFFLINE_WITHIN), "{took:?}");
    let [fits, too_much, sold_to_another, mistake] = sold[..] else { panic!("four") };
    assert_eq!(counter.void(mistake).await, Ok(Taken::BackUnseen));
    assert_eq!((counter.shown().borrow().waiting, counter.shown().borrow().unresolved), (4, 0));
    // As a terminal whose disk gives back what it had before the upload will see it.
    let old = std::fs::read(&journal).unwrap();

    let service = Service::start(directory.path(), &["--clock", LATER], &[]);
    proxy.aim(port(&service));
    proxy.heal();
    let begun = Instant::now();
    is_settled(&counter).await;
    println!("uploaded and judged {:?} after the service was back", begun.elapsed());
    assert_eq!(stands(&counter, handed_over), Stands::Uploaded(Verdict::Recorded));
    assert_eq!(stands(&counter, fits), Stands::Uploaded(Verdict::Recorded));
    let Stands::Uploaded(Verdict::OverQuota(earlier)) = stands(&counter, too_much) else { panic!("within the limit") };
    assert_eq!(earlier.iter().map(|earlier| earlier.quantity).sum::<u32>(), 2);
    assert_eq!(stands(&counter, sold_to_another), Stands::Uploaded(Verdict::Recorded));
    assert_eq!(stands(&counter, mistake), Stands::Withdrawn);
    let Outcome::Approved(approved) = recorded(&service, 1, handed_over).await else { panic!("not recorded") };
    assert!(approved.receipt.unwrap().late);
    assert_eq!(all_bought(&service, 0..4).await, [3, 1, 1, 0]);
    counter.close().await;

    std::fs::write(&journal, old).unwrap();
    let counter = selling(&address, &journal).await;
    is_settled(&counter).await;
    for id in [handed_over, fits, sold_to_another] {
        let already = Verdict::AlreadyRecorded { voided: false, over_quota: false };
        assert_eq!(stands(&counter, id), Stands::Uploaded(already));
    }
    assert_eq!(all_bought(&service, 0..4).await, [3, 1, 1, 0], "once");
    // What was uploaded can be taken back as what was sold online can.
    assert_eq!(counter.void(too_much).await, Ok(Taken::Back));
    assert_eq!(all_bought(&service, 0..1).await, [2]);
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// The service had recorded it all the time; the clerk hands it over, because nobody says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_was_recorded_and_handed_over_is_one_sale() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let (proxy, address) = in_front_of(&service).await;
    let counter = selling(&address, &directory.path().join("counter.journal")).await;
    proxy.strike(Fault::Mute);
    let Answer::Unknown { id, .. } = counter.sell(sale(0)).await.unwrap() else { panic!("it is silent") };
    counter.hand_over(id).await.unwrap();
    assert_eq!(stands(&counter, id), Stands::Waits);
    proxy.heal();
    is_settled(&counter).await;
    let already = Verdict::AlreadyRecorded { voided: false, over_quota: false };
    assert_eq!(stands(&counter, id), Stands::Uploaded(already));
    assert_eq!(all_bought(&service, 0..1).await, [1]);
    // One that was resolved meanwhile needs no handing over.
    may_sell(&counter).await;
    let Answer::Approved(approved) = counter.sell(sale(0)).await.unwrap() else { panic!("not sold") };
    let known = NotHandedOver::Known(Stands::Became(Became::Sold));
    assert_eq!(counter.hand_over(approved.id).await, Err(known));
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}

/// The terminal lost its power while it uploaded: the service may have the sale. Then the clerk takes it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_uploaded_is_taken_back_by_the_service() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let (proxy, address) = in_front_of(&service).await;
    service.kill();
    let path = directory.path().join("counter.journal");
    let id = RequestId::random();
    let (journal, _) = open(&path).unwrap();
    write(&journal, vec![told(), sold_offline(id, 0, start()), Fact::Uploading { ids: vec![id] }]).unwrap();
    drop(journal);

    let (counter, _) = Counter::open(settings(&address, &path)).await.unwrap();
    assert_eq!(counter.void(id).await, Ok(Taken::BackLater));
    assert_eq!(stands(&counter, id), Stands::Voiding);
    let service = Service::start(directory.path(), &["--clock", LATER], &[]);
    proxy.aim(port(&service));
    let mut shown = counter.shown();
    let voided = shown.wait_for(|_| stands(&counter, id) == Stands::Voided);
    tokio::time::timeout(super::scene::IN_TIME, voided).await.expect("in time").unwrap();
    assert!(matches!(recorded(&service, 0, id).await, Outcome::Voided(_)));
    assert_eq!(all_bought(&service, 0..1).await, [0]);
    counter.close().await;
    tokio::task::block_in_place(|| service.stop());
}
