//! What a service puts on record of what counters and operators do.

use std::path::Path;
use std::time::Duration;

use rationd::audit::verify::verify;
use rationd::grpc::v1::{self, operator_service_client::OperatorServiceClient};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use super::harness::*;
use super::outages::signal;
use super::tls::{Encrypted, admitted, masks};

on_both_stores!(every_access_is_on_record);

const NINE: &str = "2020-06-15T09:00:00+09:00";
const WHY: &str = "blocked by a sale in another town, ticket 2026-11-0042";

/// The bodies of all records so far, but for those of the log itself.
fn records(log: &Path) -> Vec<Value> {
    let mut paths: Vec<_> = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    paths.sort();
    let text: String = paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let bodies = text.lines().map(|line| serde_json::from_str::<Value>(line.splitn(3, ' ').last().unwrap()).unwrap());
    bodies.filter(|body| body["by"].is_string()).collect()
}

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_default()
}

fn action_and_result(record: &Value) -> (&str, &str) {
    (text(record, "action"), text(record, "result"))
}

async fn operator(service: &Service) -> OperatorServiceClient<Channel> {
    OperatorServiceClient::connect(service.admin()).await.unwrap()
}

fn void(known: &Known, site: &str) -> v1::VoidForBuyerRequest {
    let Known { programme, buyer, request_id } = known.clone();
    let (site, reason, ledger_id) = (site.into(), WHY.into(), String::new());
    v1::VoidForBuyerRequest { programme, buyer, request_id, site, ledger_id, reason }
}

async fn every_access_is_on_record(world: World) {
    let log = world.path("audit");
    let service = world.serve_with(NINE, &[("AUDIT__DIRECTORY", log.to_str().unwrap())]).await;
    let counter = service.counter(SEJONG).await;
    let buyer = |serial| Visit::in_person(&number("910101", '1', serial), 1);
    let (sold, held, given_back) = (buyer(1), buyer(2), buyer(3));
    assert_eq!(said(&counter.look_up(&sold).await), "MAY_BUY");
    assert_eq!(said(&counter.sell(&sold).await), "APPROVED");
    assert_eq!(said(&counter.sell(&Visit::in_person(&number("910101", '1', 1), 20)).await), "QUOTA_EXHAUSTED");
    counter.hold(&held, Duration::from_secs(300)).await.unwrap();
    counter.confirm(&held.known(0)).await.unwrap();
    counter.hold(&given_back, Duration::from_secs(300)).await.unwrap();
    counter.release(&given_back.known(0)).await.unwrap();
    counter.resolve(&held.known(0)).await.unwrap();
    counter.void(&held.known(0)).await.unwrap();
    // Refused for what it says and not for what is recorded: nothing was looked at.
    assert!(counter.purchase(&Visit::in_person("1", 1)).await.is_err());
    // A visit has a record for each line.
    let child = line(resident(&number("150101", '3', 4)), 1, "family", &["resident_register"]);
    let family = Visit::of(vec![own_line(&number("910101", '1', 5), 1), child]).by(1991);
    let answers = counter.purchase(&family).await.unwrap();

    let mut operator = operator(&service).await;
    let (programme, reason) = (MASKS.to_owned(), WHY.to_owned());
    let look_up = v1::LookUpBuyerRequest { programme, buyer: sold.known(0).buyer, reason };
    operator.look_up_buyer(look_up).await.unwrap();
    operator.void_for_buyer(void(&sold.known(0), SEJONG)).await.unwrap();
    let switches =
        |version| v1::SetSwitchesRequest { version, document: String::new(), reason: WHY.into(), below_live: false };
    assert!(operator.set_switches(switches(7)).await.is_err());
    operator.set_switches(switches(0)).await.unwrap();
    let export = v1::ExportRecordsRequest { programme: MASKS.into() };
    let mut export = operator.export_records(export).await.unwrap().into_inner();
    while export.message().await.unwrap().is_some() {}

    until("the export is on record", || async { records(&log).len() >= 21 }).await;
    let records = records(&log);
    let by_line = all_said(&answers);
    let expected = [
        ("CHECK", "MAY_BUY"),
        ("SELL", "APPROVED"),
        ("SELL", "QUOTA_EXHAUSTED"),
        ("HOLD", "HELD"),
        ("CONFIRM", "APPROVED"),
        ("HOLD", "HELD"),
        ("RELEASE", "RELEASED"),
        ("RESOLVE", "APPROVED"),
        ("VOID", "VOIDED"),
        ("SELL", by_line[0]),
        ("SELL", by_line[1]),
        ("LOOK_UP", "ASKED"),
        ("LOOK_UP", "SHOWN"),
        ("VOID_FOR_BUYER", "ASKED"),
        ("VOID_FOR_BUYER", "VOIDED"),
        ("SWITCH", "ASKED"),
        ("SWITCH", "OTHER_VERSION"),
        ("SWITCH", "ASKED"),
        ("SWITCH", "SWITCHED"),
        ("EXPORT", "ASKED"),
        ("EXPORT", "COMPLETE"),
    ];
    assert_eq!(records.iter().map(action_and_result).collect::<Vec<_>>(), expected);
    for (record, subject) in [(1, &sold), (3, &held), (4, &held), (6, &given_back), (7, &held), (8, &held), (14, &sold)]
    {
        assert_eq!(text(&records[record], "subject"), subject.lines[0].request_id);
    }
    assert_eq!(text(&records[10], "subject"), family.lines[1].request_id);
    for record in &records[..11] {
        assert_eq!((text(record, "site"), text(record, "terminal")), (SEJONG, "w1"));
    }
    // One month, one name; and it is not the ledger's.
    assert_eq!(text(&records[0], "subject"), text(&records[11], "subject"));
    assert_eq!((text(&records[11], "by"), text(&records[11], "reason")), ("somebody on this machine", WHY));
    assert!(service.is_serving("rationd.audit").await);
    service.stop().await;
    let verified = verify(&log, None).unwrap().unwrap();
    assert_eq!((verified.newest.sequence, verified.not_recorded), (22, 0));
}

/// Who did it is who the certificate says, and not what a call says of itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_names_who_the_certificate_names() {
    let tls = Encrypted::start(&[]).await;
    let counter = admitted(&tls.caller(&tls.site(SEJONG), "", "w1").await).await;
    assert_eq!(said(&counter.sell(&masks(1)).await), "APPROVED");
    let kim = tls.channel_to(tls.admin(), Some(&tls.operator())).await;
    OperatorServiceClient::new(kim).void_for_buyer(void(&masks(2).known(0), SEJONG)).await.unwrap();
    let records = records(&tls.world.path("data/audit"));
    let by: Vec<_> = records.iter().map(|record| text(record, "by")).collect();
    let operator = by[1].to_owned();
    assert_eq!(by, ["rationd://site/11000001", &operator, &operator]);
    assert!(operator.starts_with("rationd://operator/"), "{operator}");
    tls.service.stop().await;
}

/// An operator who hangs up leaves nothing half done, and a counter that does leaves a record that says so.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_is_on_record() {
    let world = World::redis();
    let log = world.path("audit");
    let service = world.serve_with(NINE, &[("AUDIT__DIRECTORY", log.to_str().unwrap())]).await;
    let counter = service.counter(SEJONG).await;
    let sold = Visit::in_person(&number("910101", '1', 1), 1);
    assert_eq!(said(&counter.sell(&sold).await), "APPROVED");
    let admin = Endpoint::from_shared(service.admin()).unwrap().connect().await.unwrap();
    let redis = world.redis.as_ref().unwrap();

    signal(redis, "-STOP");
    let moment = Duration::from_millis(200);
    let mut operator = OperatorServiceClient::new(admin);
    let gone = tokio::time::timeout(moment, operator.void_for_buyer(void(&sold.known(0), SEJONG))).await;
    assert!(gone.is_err());
    // It needs no seat, so nothing but the ledger is asked.
    let other = Visit::in_person(&number("910101", '1', 2), 1).known(0);
    assert!(tokio::time::timeout(moment, counter.resolve(&other)).await.is_err());
    let is_there = |action, is: fn(&str) -> bool| {
        records(&log).iter().any(|record| text(record, "action") == action && is(text(record, "result")))
    };
    until("the caller who has gone is on record", || async { is_there("RESOLVE", |it| it == "CALLER_GONE") }).await;
    assert!(is_there("VOID_FOR_BUYER", |it| it == "ASKED"));
    signal(redis, "-CONT");
    until("the void's end is on record", || async { is_there("VOID_FOR_BUYER", |it| it != "ASKED") }).await;
    let gone = records(&log).into_iter().find(|record| text(record, "result") == "CALLER_GONE").unwrap();
    assert_eq!(text(&gone, "subject"), other.request_id);
    service.stop().await;
}
