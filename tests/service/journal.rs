//! Sales that were made while nobody could be asked, as they are uploaded and as the ledger has them afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rationd::grpc::v1::{
    self, EntryState, QuarantineReason, UploadVerdict, journal_service_client::JournalServiceClient,
    operator_service_client::OperatorServiceClient, upload_sales_response::Verdict,
};
use tonic::{Code, Status};

use super::harness::*;

on_both_stores!(
    what_was_sold_on_paper_is_never_refused,
    an_unresolved_purchase_keeps_its_id,
    one_sheet_that_two_clerks_type_is_one_sale,
    what_cannot_have_been_is_put_aside_and_can_be_mended,
    a_sale_that_cannot_be_read_names_its_field_and_stops_nothing,
    what_was_uploaded_outlives_the_service,
    what_was_recorded_is_said_to_be_however_late_it_is_asked_again,
    a_site_that_enters_people_to_look_them_up_is_told_nothing,
    of_one_buyer_a_site_enters_so_many_and_no_more,
    in_any_order_and_thrice_the_ledger_is_the_union,
);

const NINE: &str = "2020-03-11T09:00:00+09:00";
const THREE: &str = "2020-03-11T15:00:00+09:00";
const JONGNO: &str = "11000002";

fn sold(number: &str, quantity: u32, when: &str) -> v1::OfflineSale {
    let at = at(when).as_millis();
    v1::OfflineSale {
        request_id: id(),
        programme: MASKS.to_owned(),
        site_code: SEJONG.to_owned(),
        buyer: resident(number),
        quantity,
        sold_at: Some(prost_types::Timestamp { seconds: at / 1_000, nanos: 0 }),
        ..Default::default()
    }
}

/// What becomes of each, in their order.
async fn upload(caller: &Caller, sales: &[v1::OfflineSale]) -> Result<Vec<Verdict>, Status> {
    let requests: Vec<_> = sales
        .iter()
        .enumerate()
        .map(|(nth, sale)| v1::UploadSalesRequest { call_id: nth as u64, sale: Some(sale.clone()) })
        .collect();
    let mut client = JournalServiceClient::new(caller.channel.clone());
    let mut answers = client.upload_sales(caller.request(tokio_stream::iter(requests))).await?.into_inner();
    let mut verdicts = BTreeMap::new();
    while let Some(answer) = answers.message().await? {
        assert_eq!(answer.request_id, sales[answer.call_id as usize].request_id);
        let twice = verdicts.insert(answer.call_id, answer.verdict.expect("a verdict"));
        assert!(twice.is_none(), "a sale has one verdict");
    }
    assert!(verdicts.keys().copied().eq(0..verdicts.len() as u64), "{:?}", verdicts.keys());
    Ok(verdicts.into_values().collect())
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Recorded(recorded) => {
            assert!(recorded.receipt.as_ref().unwrap().late);
            "RECORDED".into()
        }
        Verdict::OverQuota(over) => {
            assert!(over.receipt.as_ref().unwrap().late);
            let units: Vec<_> = over.earlier.iter().map(|earlier| earlier.quantity).collect();
            format!("OVER_QUOTA beside {units:?}")
        }
        Verdict::AlreadyRecorded(already) => {
            let marks = [(already.voided, " voided"), (already.over_quota, " over")];
            marks.iter().filter(|(is, _)| *is).fold("ALREADY_RECORDED".into(), |word, (_, mark)| word + mark)
        }
        Verdict::Quarantined(aside) => {
            assert!(!aside.why.is_empty());
            aside.reason().as_str_name().replace("QUARANTINE_REASON_", "QUARANTINED ")
        }
        Verdict::Invalid(invalid) => {
            let fields: Vec<_> = invalid.fields.iter().map(|field| field.field.as_str()).collect();
            format!("INVALID {}", fields.join(" "))
        }
        Verdict::Failure(failure) => format!("FAILURE {}", failure.reason),
    }
}

async fn said_of(caller: &Caller, sales: &[v1::OfflineSale]) -> Vec<String> {
    upload(caller, sales).await.unwrap().iter().map(word).collect()
}

async fn listed(caller: &Caller, date: &str) -> Vec<v1::UploadedSale> {
    let mut client = JournalServiceClient::new(caller.channel.clone());
    let (mut sales, mut page_token) = (Vec::new(), String::new());
    loop {
        let (programme, date) = (MASKS.to_owned(), date.to_owned());
        let request = v1::ListUploadsRequest { programme, date, page_size: 3, page_token };
        let page = client.list_uploads(caller.request(request)).await.unwrap().into_inner();
        sales.extend(page.sales);
        if page.next_page_token.is_empty() {
            return sales;
        }
        page_token = page.next_page_token;
    }
}

/// Every sale of the ledger: its id, units, whether it is late and whether it is over.
async fn recorded(service: &Service) -> BTreeMap<String, (u32, bool, bool)> {
    let mut client = OperatorServiceClient::connect(service.admin()).await.unwrap();
    let request = v1::ExportRecordsRequest { programme: MASKS.to_owned() };
    let mut export = client.export_records(request).await.unwrap().into_inner();
    let mut sales = BTreeMap::new();
    while let Some(part) = export.message().await.unwrap() {
        for entry in part.records.into_iter().flat_map(|record| record.entries) {
            if entry.state() == EntryState::Sold {
                let twice = sales.insert(entry.request_id, (entry.quantity, entry.late, entry.over));
                assert!(twice.is_none(), "an id stands with two buyers");
            }
        }
    }
    sales
}

/// `domain.md`, F5: sold on paper at 09:40, entered at 15:00, while the same person bought two online at 10:30.
async fn what_was_sold_on_paper_is_never_refused(world: World) {
    let service = world.serve("2020-03-11T10:30:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let (buyer, other) = (number("830101", '1', 1), number("880101", '1', 2));
    assert_eq!(said(&seller.sell(&Visit::in_person(&buyer, 2)).await), "APPROVED");
    service.set(THREE);
    // It needs the site's identity, and no seat.
    let clerk = seller.without_session();
    let paper = [sold(&buyer, 2, "2020-03-11T09:40:00+09:00"), sold(&other, 1, "2020-03-11T09:41:00+09:00")];
    assert_eq!(said_of(&clerk, &paper).await, ["OVER_QUOTA beside [2]", "RECORDED"]);
    assert_eq!(said_of(&clerk, &paper).await, ["ALREADY_RECORDED over", "ALREADY_RECORDED"]);
    // Nothing is left, and never less than nothing; the next week is as if nothing had been.
    let visit = Visit::in_person(&buyer, 1);
    let refused = seller.look_up(&visit).await;
    assert_eq!((said(&refused), units_left(&refused)), ("QUOTA_EXHAUSTED", Some(0)));
    let visit = Visit::in_person(&other, 2);
    assert_eq!(units_left(&seller.look_up(&visit).await), Some(1));
    service.set("2020-03-18T09:00:00+09:00");
    let seller = service.counter(SEJONG).await;
    assert_eq!(said(&seller.sell(&Visit::in_person(&buyer, 2)).await), "APPROVED");

    let rows = listed(&clerk, "2020-03-11").await;
    let told: Vec<_> = rows.iter().map(|row| (row.verdict(), row.quantity, row.conflicts.len())).collect();
    assert_eq!(told, [(UploadVerdict::OverQuota, 2, 1), (UploadVerdict::Recorded, 1, 0)]);
    let (conflict, came) = (rows[0].conflicts[0].clone(), instant(rows[0].received_at));
    assert_eq!((instant(conflict.at), conflict.quantity), (at("2020-03-11T10:30:00+09:00"), 2));
    assert_eq!((came, instant(rows[0].sold_at)), (at(THREE), at("2020-03-11T09:40:00+09:00")));
    assert_eq!(listed(&clerk, "2020-03-12").await.len(), 0);
    assert_eq!(listed(&service.caller(JONGNO, ""), "").await.len(), 0, "another site's book");
    service.stop().await;
}

async fn an_unresolved_purchase_keeps_its_id(world: World) {
    let service = world.serve(NINE).await;
    let seller = service.counter(SEJONG).await;
    let as_sold = |visit: &Visit| {
        let v1::Line { request_id, buyer, quantity, .. } = visit.lines[0].clone();
        v1::OfflineSale { request_id, buyer, quantity, ..sold("", 0, NINE) }
    };
    let buyers: Vec<_> = (1..=5).map(|serial| number("830101", '1', serial)).collect();
    let online = Visit::in_person(&buyers[0], 2);
    seller.sell(&online).await;
    let voided = Visit::in_person(&buyers[1], 2);
    seller.sell(&voided).await;
    assert_eq!(said(&seller.void(&voided.known(0)).await.unwrap()), "VOIDED");
    let refused = Visit::in_person(&buyers[2], 3);
    assert_eq!(said(&seller.sell(&refused).await), "QUOTA_EXHAUSTED");
    let closed = Visit::in_person(&buyers[3], 1);
    assert_eq!(said(&seller.resolve(&closed.known(0)).await.unwrap()), "NOT_RECORDED");
    let held = Visit::in_person(&buyers[4], 1);
    seller.hold(&held, Duration::from_secs(600)).await.unwrap();
    let sales = [&online, &voided, &refused, &closed, &held].map(as_sold);
    let said = said_of(&seller, &sales).await;
    let expected = ["ALREADY_RECORDED", "ALREADY_RECORDED voided", "OVER_QUOTA beside []", "RECORDED", "RECORDED"];
    assert_eq!(said, expected);
    let ids = [&online, &refused, &closed, &held].map(|visit| visit.lines[0].request_id.clone());
    assert_eq!(recorded(&service).await.into_keys().collect::<BTreeSet<_>>(), ids.into());
    let verdicts: Vec<_> = listed(&seller, "").await.iter().map(v1::UploadedSale::verdict).collect();
    let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    assert_eq!(count(UploadVerdict::AlreadyRecorded), 1);
    assert_eq!(count(UploadVerdict::AlreadyVoided), 1);
    service.stop().await;
}

async fn one_sheet_that_two_clerks_type_is_one_sale(world: World) {
    let service = world.serve(THREE).await;
    let clerk = service.caller(SEJONG, "one");
    let (buyer, misread) = (number("830101", '1', 1), number("830101", '1', 7));
    let line = sold(&buyer, 2, "2020-03-11T09:40:00+09:00");
    assert_eq!(said_of(&clerk, std::slice::from_ref(&line)).await, ["RECORDED"]);
    let other = service.caller(SEJONG, "two");
    let again = [
        line.clone(),
        v1::OfflineSale { sold_at: sold(&buyer, 2, "2020-03-11T09:45:00+09:00").sold_at, ..line.clone() },
        v1::OfflineSale { buyer: resident(&misread), ..line.clone() },
        v1::OfflineSale { quantity: 1, ..line.clone() },
        v1::OfflineSale { buyer: resident(&misread), ..line.clone() },
    ];
    let aside = "QUARANTINED ENTERED_DIFFERENTLY";
    assert_eq!(said_of(&other, &again).await, ["ALREADY_RECORDED", "ALREADY_RECORDED", aside, aside, aside]);
    assert_eq!(recorded(&service).await, BTreeMap::from([(line.request_id.clone(), (2, true, false))]));
    let rows = listed(&clerk, "2020-03-11").await;
    let differently = rows.iter().filter(|row| row.reason() == QuarantineReason::EnteredDifferently).count();
    assert_eq!((rows.len(), differently), (3, 2));
    // Two at once are one too.
    let line = sold(&number("830101", '1', 9), 1, "2020-03-11T10:00:00+09:00");
    let uploads = (0..4).map(|nth| {
        let clerk = service.caller(SEJONG, &format!("clerk-{nth}"));
        let line = line.clone();
        async move { said_of(&clerk, &[line]).await }
    });
    let mut said: Vec<_> = futures_util::future::join_all(uploads).await.concat();
    said.sort();
    assert_eq!(said.iter().filter(|word| *word == "RECORDED").count(), 1, "{said:?}");
    assert_eq!(recorded(&service).await.len(), 2);
    service.stop().await;
}

async fn what_cannot_have_been_is_put_aside_and_can_be_mended(world: World) {
    let service = world.serve(THREE).await;
    let clerk = service.caller(SEJONG, "");
    let buyer = number("830101", '1', 1);
    let future = sold(&buyer, 1, "2020-03-11T15:02:00+09:00");
    let before = sold(&buyer, 1, "2020-03-02T12:00:00+09:00");
    let ancient = sold(&buyer, 1, "2019-03-11T12:00:00+09:00");
    let sales = [future.clone(), before.clone(), ancient];
    let aside = ["QUARANTINED IN_THE_FUTURE", "QUARANTINED NOT_IN_FORCE", "QUARANTINED TOO_OLD"];
    assert_eq!(said_of(&clerk, &sales).await, aside);
    assert_eq!(said_of(&clerk, &sales).await, aside, "said again");
    assert_eq!(recorded(&service).await.len(), 0);
    assert_eq!(listed(&clerk, "").await.len(), 3);
    let mended = [
        v1::OfflineSale { sold_at: sold(&buyer, 1, NINE).sold_at, ..future.clone() },
        // One purchase a week is allowed, and this is the second.
        v1::OfflineSale { sold_at: sold(&buyer, 1, "2020-03-11T12:00:00+09:00").sold_at, ..before },
    ];
    assert_eq!(said_of(&clerk, &mended).await, ["RECORDED", "OVER_QUOTA beside [1]"]);
    // Its old date is no other sale, and what stands is not judged by it.
    assert_eq!(said_of(&clerk, &[future]).await, ["ALREADY_RECORDED"]);
    let rows = listed(&clerk, "").await;
    let is_recorded =
        |row: &&v1::UploadedSale| [UploadVerdict::Recorded, UploadVerdict::OverQuota].contains(&row.verdict());
    assert_eq!(rows.iter().filter(is_recorded).count(), 2, "{rows:?}");
    assert_eq!(recorded(&service).await.len(), 2);
    service.stop().await;
}

async fn a_sale_that_cannot_be_read_names_its_field_and_stops_nothing(world: World) {
    let service = world.serve(THREE).await;
    let clerk = service.caller(SEJONG, "");
    let good = sold(&number("830101", '1', 1), 1, NINE);
    let of = |change: &dyn Fn(&mut v1::OfflineSale)| {
        let mut sale = v1::OfflineSale { request_id: id(), ..good.clone() };
        change(&mut sale);
        sale
    };
    let sales = [
        of(&|sale| sale.buyer = resident("830101-12345")),
        of(&|sale| sale.site_code = JONGNO.to_owned()),
        of(&|sale| sale.site_code.clear()),
        of(&|sale| sale.sold_at = None),
        of(&|sale| sale.quantity = 0),
        of(&|sale| sale.programme = "no-such-programme".to_owned()),
        of(&|sale| sale.relation = "nephew".to_owned()),
        of(&|sale| sale.buyer = None),
        good.clone(),
    ];
    let fields =
        ["buyer.resident_number", "site_code", "site_code", "sold_at", "quantity", "programme", "relation", "buyer"];
    let said = said_of(&clerk, &sales).await;
    let expected: Vec<String> = fields.iter().map(|field| format!("INVALID sale.{field}")).collect();
    assert_eq!(said[..8], expected);
    assert_eq!(said[8], "RECORDED");
    assert_eq!(recorded(&service).await.len(), 1);
    assert_eq!(listed(&clerk, "").await.len(), 1, "what cannot be read is not kept");
    // Who is no site uploads nothing.
    let nobody = upload(&service.caller("", ""), &sales).await;
    assert_eq!(reason(nobody, Code::Unauthenticated), "SITE_REQUIRED");
    service.stop().await;
}

async fn what_was_uploaded_outlives_the_service(world: World) {
    let service = world.serve(THREE).await;
    let buyers: Vec<_> = (1..=3).map(|serial| number("830101", '1', serial)).collect();
    let sales =
        [sold(&buyers[0], 2, NINE), sold(&buyers[1], 5, NINE), sold(&buyers[2], 1, "2020-03-01T09:00:00+09:00")];
    let said = said_of(&service.caller(SEJONG, ""), &sales).await;
    assert_eq!(said, ["RECORDED", "OVER_QUOTA beside []", "QUARANTINED NOT_IN_FORCE"]);
    let rows = listed(&service.caller(SEJONG, ""), "").await;
    let ledger = recorded(&service).await;
    service.stop().await;
    let service = world.serve("2020-03-12T15:00:00+09:00").await;
    let clerk = service.caller(SEJONG, "");
    assert_eq!(listed(&clerk, "").await, rows);
    let said = said_of(&clerk, &sales).await;
    assert_eq!(said, ["ALREADY_RECORDED", "ALREADY_RECORDED over", "QUARANTINED NOT_IN_FORCE"]);
    assert_eq!(listed(&clerk, "").await, rows, "as it was taken in");
    assert_eq!(recorded(&service).await, ledger);
    service.stop().await;
}

/// Recorded, and its verdict lost: weeks later the ledger keeps nothing so old, and what is said of it is what was.
async fn what_was_recorded_is_said_to_be_however_late_it_is_asked_again(world: World) {
    let service = world.serve(THREE).await;
    let clerk = service.caller(SEJONG, "");
    let (buyer, other) = (number("830101", '1', 1), number("830101", '1', 2));
    let sales = [sold(&buyer, 2, NINE), sold(&buyer, 1, "2020-03-11T09:01:00+09:00"), sold(&other, 1, NINE)];
    // Twice in one batch it is one sale.
    let twice = [&sales[..], &sales[2..]].concat();
    let said = said_of(&clerk, &twice).await;
    assert_eq!(said[..3], ["RECORDED", "OVER_QUOTA beside [2]", "RECORDED"]);
    assert_eq!(said[3], "ALREADY_RECORDED");
    let ledger = recorded(&service).await;
    service.set("2020-04-20T09:00:00+09:00");
    let said = said_of(&clerk, &sales).await;
    assert_eq!(said, ["ALREADY_RECORDED", "ALREADY_RECORDED over", "ALREADY_RECORDED"]);
    assert_eq!(said_of(&clerk, &[sold(&buyer, 1, NINE)]).await, ["QUARANTINED TOO_OLD"]);
    assert_eq!(recorded(&service).await, ledger);
    service.stop().await;
}

/// It is no way to find out what somebody has bought.
async fn a_site_that_enters_people_to_look_them_up_is_told_nothing(world: World) {
    let service = world.serve_with(NINE, &[("COUNTERS__LOOK_UPS_PER_MINUTE", "1")]).await;
    let seller = service.counter(SEJONG).await;
    let buyers: Vec<_> = (0..70).map(|serial| number("830101", '1', serial)).collect();
    for buyer in &buyers {
        assert_eq!(said(&seller.sell(&Visit::in_person(buyer, 1)).await), "APPROVED");
    }
    service.set(THREE);
    let elsewhere = service.caller(JONGNO, "");
    let guesses: Vec<_> =
        buyers.iter().map(|buyer| v1::OfflineSale { site_code: JONGNO.to_owned(), ..sold(buyer, 2, THREE) }).collect();
    let said = said_of(&elsewhere, &guesses).await;
    let told = said.iter().filter(|word| *word == "OVER_QUOTA beside [1]").count();
    let untold = said.iter().filter(|word| *word == "OVER_QUOTA beside []").count();
    assert_eq!((told, told + untold), (30, 70), "{said:?}");
    let rows = listed(&elsewhere, "").await;
    assert_eq!(rows.iter().filter(|row| !row.conflicts.is_empty()).count(), told);
    assert_eq!(recorded(&service).await.len(), 140, "all of it is recorded");
    service.stop().await;
}

/// A record stays small, whoever enters what.
async fn of_one_buyer_a_site_enters_so_many_and_no_more(world: World) {
    let service = world.serve_with(THREE, &[("COUNTERS__LATE_SALES_PER_SECOND", "100000")]).await;
    let clerk = service.caller(SEJONG, "");
    let buyer = number("830101", '1', 1);
    let sales: Vec<_> = (0..70).map(|_| sold(&buyer, 1, NINE)).collect();
    let said = said_of(&clerk, &sales).await;
    let aside = said.iter().filter(|word| *word == "QUARANTINED TOO_MANY").count();
    assert_eq!((aside, recorded(&service).await.len()), (6, 64), "{said:?}");
    assert!(said.iter().all(|word| word.len() < 60), "no more is told than eight: {said:?}");
    // Those that are there are known, and another site has its own.
    assert_eq!(said_of(&clerk, &sales[..1]).await, ["ALREADY_RECORDED"]);
    let other = v1::OfflineSale { site_code: JONGNO.to_owned(), ..sold(&buyer, 1, NINE) };
    assert!(said_of(&service.caller(JONGNO, ""), &[other]).await[0].starts_with("OVER_QUOTA"));
    service.stop().await;
}

/// `guarantees.md`, G26, in small: every sale thrice, in any order, by several at once, a fifth of them sold online as well.
async fn in_any_order_and_thrice_the_ledger_is_the_union(world: World) {
    const BUYERS: u32 = 400;
    let service = world.serve_with(NINE, &[("COUNTERS__LATE_SALES_PER_SECOND", "100000")]).await;
    let seller = service.counter(SEJONG).await;
    let mut union = BTreeMap::new();
    let mut paper = Vec::new();
    for serial in 0..BUYERS {
        let buyer = number("830101", '1', serial);
        let sale = sold(&buyer, 1 + serial % 3, NINE);
        if serial % 5 == 0 {
            let line = v1::Line { request_id: sale.request_id.clone(), ..own_line(&buyer, sale.quantity) };
            let online = said(&seller.sell(&Visit::of(vec![line])).await);
            // Three are too many for the counter; the paper says that they were sold all the same.
            union.insert(sale.request_id.clone(), (sale.quantity, online != "APPROVED", online != "APPROVED"));
        } else {
            union.insert(sale.request_id.clone(), (sale.quantity, true, sale.quantity > 2));
        }
        paper.push(sale);
    }
    service.set(THREE);
    // Each of three begins elsewhere, and the third goes backwards; one of them hangs up in the middle and comes again.
    let uploads = (0..3_usize).map(|nth| {
        let clerk = service.caller(SEJONG, &format!("clerk-{nth}"));
        let mut sales = paper.clone();
        sales.rotate_left(nth * 100);
        if nth == 2 {
            sales.reverse();
        }
        async move {
            if nth == 1 {
                let requests =
                    sales.clone().into_iter().map(|sale| v1::UploadSalesRequest { call_id: 0, sale: Some(sale) });
                let mut client = JournalServiceClient::new(clerk.channel.clone());
                let mut cut =
                    client.upload_sales(clerk.request(tokio_stream::iter(requests))).await.unwrap().into_inner();
                for _ in 0..50 {
                    cut.message().await.unwrap();
                }
            }
            said_of(&clerk, &sales).await
        }
    });
    let said = futures_util::future::join_all(uploads).await.concat();
    assert!(said.iter().all(|word| !word.starts_with("FAILURE") && !word.starts_with("QUARANTINED")), "{said:?}");
    assert_eq!(recorded(&service).await, union);
    let rows = listed(&seller, "").await;
    assert_eq!(rows.len(), union.len());
    let over = rows.iter().filter(|row| row.verdict() == UploadVerdict::OverQuota).count();
    assert_eq!(over, union.values().filter(|(_, _, over)| *over).count());
    println!(
        "{}: {} sales uploaded thrice, {} of them online, {over} over: the ledger is their union",
        world.name(),
        paper.len(),
        BUYERS / 5
    );
    service.stop().await;
}

#[tokio::test]
async fn late_sales_are_taken_no_faster_than_they_may() {
    let world = World::embedded();
    let service = world.serve_with(THREE, &[("COUNTERS__LATE_SALES_PER_SECOND", "200")]).await;
    let sales: Vec<_> = (0..160).map(|serial| sold(&number("830101", '1', serial), 1, NINE)).collect();
    let begun = Instant::now();
    let said = said_of(&service.caller(SEJONG, ""), &sales).await;
    assert!(said.iter().all(|word| word == "RECORDED"));
    // The first batch does not wait.
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    service.stop().await;
}

#[tokio::test]
async fn while_the_store_is_away_a_sale_is_not_taken_and_is_afterwards() {
    let mut world = World::redis();
    let service = world.serve(THREE).await;
    let clerk = service.caller(SEJONG, "");
    let sales = [sold(&number("830101", '1', 1), 1, NINE)];
    world.redis.as_mut().unwrap().kill();
    let said = said_of(&clerk, &sales).await;
    assert!(["FAILURE STORE_UNAVAILABLE", "FAILURE COMMIT_UNCONFIRMED"].contains(&said[0].as_str()), "{said:?}");
    world.redis.as_mut().unwrap().restart();
    until("the sale is taken", || async {
        ["RECORDED", "ALREADY_RECORDED"].contains(&said_of(&clerk, &sales).await[0].as_str())
    })
    .await;
    assert_eq!(recorded(&service).await.len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn a_site_holds_so_many_uploads_and_leaves_places_to_others() {
    let world = World::embedded();
    let service = world.serve(THREE).await;
    let clerk = service.caller(SEJONG, "");
    let mut open = Vec::new();
    for _ in 0..4 {
        let (sales, taken) = tokio::sync::mpsc::channel::<v1::UploadSalesRequest>(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(taken);
        let mut client = JournalServiceClient::new(clerk.channel.clone());
        open.push((sales, client.upload_sales(clerk.request(stream)).await.unwrap()));
    }
    let sales = [sold(&number("830101", '1', 1), 1, NINE)];
    assert_eq!(reason(upload(&clerk, &sales).await, Code::ResourceExhausted), "OVERLOADED");
    let other = [v1::OfflineSale { site_code: JONGNO.to_owned(), ..sales[0].clone() }];
    assert_eq!(said_of(&service.caller(JONGNO, ""), &other).await, ["RECORDED"]);
    open.pop();
    until("a place is free", || async { upload(&clerk, &sales).await.is_ok() }).await;
    drop(open);
    service.stop().await;
}

/// An answer to a terminal says what it is to do while nobody can be asked.
#[tokio::test]
async fn a_terminal_is_told_what_it_does_while_nobody_can_be_asked() {
    let world = World::embedded();
    let service = world.serve(NINE).await;
    let told = service.counter(SEJONG).await.admitted.offline.clone();
    let masks = told.iter().find(|policy| policy.programme == MASKS).unwrap();
    assert_eq!(masks.mode(), v1::OfflineMode::SellAndRecord);
    service.stop().await;
}
