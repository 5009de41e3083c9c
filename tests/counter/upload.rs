//! What was sold while the service was away: uploaded by itself, once, and told what became of each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::grpc::v1::upload_sales_response::Verdict as Told;
use rationd::grpc::v1::{ListUploadsRequest, OfflineSale, UploadVerdict, UploadedSale};
use rationd::ids::RequestId;
use rationd::terminal::counter::{Answer, Counter, NotHandedOver, Taken};
use rationd::terminal::journal::{Became, Fact, Stands, Verdict, WhenAway};
use rationd::terminal::{Operator, WireTimestamp, sheet_id};

use super::scene::{
    in_front_of, is_settled, may_sell, open, port, recorded, sale, selling, settings, site, sold_offline, start, told,
    write,
};
use crate::service::Service;
use crate::shops::{PROGRAMME, SATURDAY, SITES, bought, buyer, number};
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

/// The service dies again and again while a site uploads its sheets, also when it has not said yet what became of some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_are_broken_off_by_kill_9_of_the_service_end_as_if_they_had_not_been() {
    const SHEETS: u64 = 600;
    let directory = tempfile::tempdir().unwrap();
    let fast = [("RATIOND_COUNTERS__LATE_SALES_PER_SECOND", "100000")];
    let start_again = || Service::start(directory.path(), &["--clock", LATER], &fast);
    let sold_at = WireTimestamp { seconds: start().as_millis() / 1_000, nanos: 0 };
    let sheets: Vec<OfflineSale> = (0..SHEETS)
        .map(|nth| OfflineSale {
            request_id: sheet_id(site(), "A-17", u32::try_from(nth).unwrap()).to_string(),
            programme: PROGRAMME.into(),
            site_code: site().to_string(),
            buyer: buyer(&number(nth)),
            quantity: 2,
            sold_at: Some(sold_at),
            ..Default::default()
        })
        .collect();
    let report = async |service: &Service| {
        let all = ListUploadsRequest { programme: PROGRAMME.into(), page_size: 1_000, ..Default::default() };
        service.terminal(SITES[0], "head").await.uploads(all).await.unwrap().sales
    };
    let is_pending = |sale: &&UploadedSale| sale.verdict() == UploadVerdict::Pending;
    let (mut service, mut seen_pending, mut kills) = (start_again(), 0, 0);
    // Between its arrival and what became of it: there the ledger may have it, and the book does not say so.
    while seen_pending == 0 || kills < 5 {
        assert!(kills < 100, "no sale was met half-way");
        let terminal = service.terminal(SITES[0], "clerk").await;
        let left = report(&service).await.len();
        let mut verdicts = terminal.upload(sheets.clone()).await.unwrap();
        // Somewhere in what is new to it.
        let strikes_at = left + usize::try_from(kills % 7).unwrap() * 3;
        for _ in 0..strikes_at.min(sheets.len() - 1) {
            verdicts.next().await.unwrap();
        }
        service.kill();
        kills += 1;
        service = start_again();
        seen_pending += report(&service).await.iter().filter(is_pending).count();
    }
    let terminal = service.terminal(SITES[0], "clerk").await;
    let mut verdicts = terminal.upload(sheets).await.unwrap();
    let mut words = BTreeMap::<&str, usize>::new();
    while let Some(said) = verdicts.next().await.unwrap() {
        let word = match said.verdict.unwrap() {
            Told::Recorded(_) => "recorded",
            Told::AlreadyRecorded(already) if !already.voided && !already.over_quota => "already recorded",
            other => panic!("{other:?}"),
        };
        *words.entry(word).or_default() += 1;
    }
    println!("{kills} kills, {seen_pending} sales met half-way, then {words:?}");
    assert_eq!(words.values().sum::<usize>(), 600);
    let listed = report(&service).await;
    assert_eq!((listed.len(), listed.iter().filter(is_pending).count()), (600, 0));
    let operator = Operator::connect(&format!("http://{}", service.admin)).await.unwrap();
    let records = operator.export(PROGRAMME).await.unwrap().records;
    let once = records.iter().filter(|record| matches!(&record.entries[..], [sold] if sold.quantity == 2 && sold.late));
    assert_eq!((records.len(), once.count()), (600, 600));
    tokio::task::block_in_place(|| service.stop());
}
