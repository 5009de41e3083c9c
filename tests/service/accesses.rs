//! What operators do for a buyer, and how much of what a site may do.

use std::time::Duration;

use rationd::grpc::v1::{self, operator_service_client::OperatorServiceClient};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::harness::*;
use super::tls::{Encrypted, admitted, masks};

on_both_stores!(an_operator_gives_a_wrongly_blocked_person_their_quota_back);

const NINE: &str = "2020-06-15T09:00:00+09:00";
const WHY: &str = "blocked by a sale in another town, ticket 2026-11-0042";

async fn look_up(channel: &Channel, known: &Known, reason: &str) -> Result<v1::LookUpBuyerResponse, Status> {
    let Known { programme, buyer, .. } = known.clone();
    let request = v1::LookUpBuyerRequest { programme, buyer, reason: reason.into() };
    Ok(OperatorServiceClient::new(channel.clone()).look_up_buyer(request).await?.into_inner())
}

async fn void(channel: &Channel, known: &Known, site: &str, reason: &str) -> Result<v1::PurchaseResult, Status> {
    let Known { programme, buyer, request_id } = known.clone();
    let (site, reason, ledger_id) = (site.into(), reason.into(), String::new());
    let request = v1::VoidForBuyerRequest { programme, buyer, request_id, site, ledger_id, reason };
    let answer = OperatorServiceClient::new(channel.clone()).void_for_buyer(request).await?;
    Ok(answer.into_inner().result.unwrap())
}

async fn an_operator_gives_a_wrongly_blocked_person_their_quota_back(world: World) {
    let service = world.serve(NINE).await;
    let admin = tonic::transport::Endpoint::from_shared(service.admin()).unwrap().connect().await.unwrap();
    let (wrong, right) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let number = number("910101", '1', 77);
    let sold = Visit::in_person(&number, 2);
    assert_eq!(said(&wrong.sell(&sold).await), "APPROVED");
    assert_eq!(said(&right.sell(&Visit::in_person(&number, 2)).await), "QUOTA_EXHAUSTED");

    let known = sold.known(0);
    let found = look_up(&admin, &known, WHY).await.unwrap();
    let entry = |site: &str| found.entries.iter().find(|entry| entry.site == site).cloned().unwrap();
    assert_eq!(entry(SEJONG).request_id, known.request_id);
    assert_eq!((entry(SEJONG).state(), entry(BOM).state()), (v1::EntryState::Sold, v1::EntryState::Refused));
    // Nothing changes where something is missing or not so.
    for (site, reason) in
        [(SEJONG, ""), (SEJONG, "two\nlines"), (SEJONG, number.as_str()), ("", WHY), ("99999999", WHY)]
    {
        let refused = told(&void(&admin, &known, site, reason).await.unwrap_err());
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{refused:?}");
        assert!(!refused.message.contains(&number), "{refused:?}");
    }
    let all = told(&look_up(&admin, &Known { programme: "x y".into(), ..known.clone() }, "").await.unwrap_err());
    assert_eq!(all.fields.len(), 2, "all at once: {all:?}");
    assert_eq!(said(&void(&admin, &known, BOM, WHY).await.unwrap()), "NOT_YOURS");
    assert_eq!(said(&wrong.resolve(&known).await.unwrap()), "APPROVED");

    assert_eq!(said(&void(&admin, &known, SEJONG, WHY).await.unwrap()), "VOIDED");
    let again = void(&admin, &known, SEJONG, WHY).await.unwrap();
    assert!(said(&again) == "VOIDED" && again.replayed);
    assert_eq!(said(&right.sell(&Visit::in_person(&number, 2)).await), "APPROVED");
    assert_eq!(said(&wrong.resolve(&known).await.unwrap()), "VOIDED", "its seller sees it");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_looks_into_as_many_records_as_a_person_reads() {
    let tls = Encrypted::start(&[]).await;
    let kim = tls.channel_to(tls.admin(), Some(&tls.operator())).await;
    let mut turned_away = None;
    for serial in 0..12 {
        // What cannot be looked up is not counted.
        assert!(look_up(&kim, &masks(serial).known(0), "").await.is_err());
        if let Err(status) = look_up(&kim, &masks(serial).known(0), WHY).await {
            turned_away.get_or_insert((serial, told(&status)));
        }
    }
    let (after, told) = turned_away.expect("an end");
    assert_eq!((after, told.code, told.reason.as_str()), (10, Code::ResourceExhausted, "LOOK_UPS_LIMITED"));
    assert!(told.retry_after.is_some_and(|after| after <= Duration::from_secs(60)), "{told:?}");
    let lee = tls.issue(rationd::certs::Subject::Operator("lee".parse().unwrap()));
    let lee = tls.channel_to(tls.admin(), Some(&lee)).await;
    assert!(look_up(&lee, &masks(1).known(0), WHY).await.is_ok(), "another operator is another");
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_tries_numbers_is_slowed_and_sells_on() {
    let tls = Encrypted::start(&[("COUNTERS__LOOK_UPS_PER_MINUTE", "1")]).await;
    let counter = admitted(&tls.caller(&tls.site(SEJONG), "", "w1").await).await;
    let mut slowed = None;
    for serial in 0..40 {
        if let Err(status) = counter.check(&masks(serial)).await {
            slowed.get_or_insert((serial, told(&status)));
        }
    }
    let (after, told) = slowed.expect("an end");
    assert_eq!((after, told.code, told.reason.as_str()), (30, Code::ResourceExhausted, "LOOK_UPS_WITHOUT_SALES"));
    assert!(told.retry_after.is_some_and(|after| after <= Duration::from_secs(60)), "{told:?}");
    // It sells as before, and what it sells lets it look up again.
    assert_eq!(said(&counter.sell(&masks(50)).await), "APPROVED");
    for serial in 60..64 {
        assert_eq!(said(&counter.look_up(&masks(serial)).await), "MAY_BUY");
    }
    assert!(counter.check(&masks(70)).await.is_err());
    let other = tls.caller(&tls.site(BOM), "", "w1").await;
    assert_eq!(said(&other.look_up(&masks(70)).await), "MAY_BUY", "another site is another");
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_tries_numbers_by_other_calls_than_a_look_up_is_told_no_more_than_no() {
    let tls = Encrypted::start(&[("COUNTERS__LOOK_UPS_PER_MINUTE", "1")]).await;
    let counter = admitted(&tls.caller(&tls.site(SEJONG), "", "w1").await).await;
    // Under an id that was made up nobody stands anywhere.
    for serial in 0..3 {
        let (released, voided) = (masks(serial).known(0), masks(serial).known(0));
        let resolved = counter.resolve(&masks(serial).known(0)).await.unwrap();
        let answers = [counter.release(&released).await.unwrap(), counter.void(&voided).await.unwrap(), resolved];
        for (answer, expected) in answers.iter().zip(["NOT_FOUND", "NOT_FOUND", "NOT_RECORDED"]) {
            assert_eq!((said(answer), &answer.standing), (expected, &None));
        }
    }
    // Whoever asks for more than anybody may have, or holds and gives back, looks up and is counted.
    let too_much = |serial| Visit::in_person(&number("900101", '1', serial), 11);
    let mut told = 0;
    for serial in 100..140 {
        let refused = counter.sell(&too_much(serial)).await;
        assert_eq!(said(&refused), "QUOTA_EXHAUSTED", "it is told that it may not in any case");
        told += u32::from(refused.standing.is_some());
    }
    assert_eq!(told, 30);
    let visit = masks(200);
    let held = counter.hold(&visit, Duration::from_secs(60)).await.map(one).unwrap();
    assert_eq!((said(&held), &held.standing), ("HELD", &None));
    assert!(counter.check(&masks(70)).await.is_err(), "all of them are look-ups");
    // A sale tells its own, whatever was before, and lets the site look up again.
    let sold = counter.sell(&masks(300)).await;
    assert!(said(&sold) == "APPROVED" && sold.standing.is_some());
    assert_eq!(said(&counter.look_up(&masks(70)).await), "MAY_BUY");
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_spends_nobodys_look_ups() {
    let mut world = World::redis();
    let service = world.serve_with(NINE, &[("COUNTERS__LOOK_UPS_PER_MINUTE", "1")]).await;
    let admin = tonic::transport::Endpoint::from_shared(service.admin()).unwrap().connect().await.unwrap();
    let counter = service.counter(SEJONG).await;
    let known = masks(1).known(0);
    assert_eq!(said(&counter.look_up(&masks(1)).await), "MAY_BUY");
    assert!(look_up(&admin, &known, WHY).await.is_ok());
    world.redis.as_mut().unwrap().kill();
    for serial in 0..40 {
        assert_eq!(reason(counter.check(&masks(serial)).await, Code::Unavailable), "STORE_UNAVAILABLE", "{serial}");
    }
    for nth in 0..12 {
        assert_eq!(reason(look_up(&admin, &known, WHY).await, Code::Unavailable), "STORE_UNAVAILABLE", "{nth}");
    }
    // Health follows in its own time, both ways.
    until("the outage to be seen", || async { !service.is_serving(rationd::grpc::PURCHASE_SERVICE).await }).await;
    world.redis.as_mut().unwrap().restart();
    until("the store to be back", || service.is_serving(rationd::grpc::PURCHASE_SERVICE)).await;
    let passed = |nth: u32| {
        let counter = &counter;
        async move { counter.check(&masks(nth)).await.is_ok() }
    };
    let mut count = 0;
    while count < 40 && passed(count).await {
        count += 1;
    }
    assert_eq!(count, 29, "one was spent before");
    assert!(look_up(&admin, &known, WHY).await.is_ok());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_a_counter_is_called_as_what_operators_do_is() {
    let tls = Encrypted::start(&[]).await;
    for name in ["operator", "Operator"] {
        let caller = tls.caller(&tls.site(SEJONG), "", name).await;
        assert_eq!(reason(caller.check(&masks(1)).await, Code::PermissionDenied), "TERMINAL_NOT_YOURS", "{name}");
        assert_eq!(reason(caller.open().await.map(|_| ()), Code::PermissionDenied), "TERMINAL_NOT_YOURS", "{name}");
        let own = tls.caller(&tls.terminal(SEJONG, name), "", name).await;
        assert_eq!(reason(own.check(&masks(1)).await, Code::PermissionDenied), "TERMINAL_NOT_YOURS", "{name}");
    }
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_a_switch_is_nobodys_number() {
    let world = World::embedded();
    let service = world.serve(NINE).await;
    let admin = tonic::transport::Endpoint::from_shared(service.admin()).unwrap().connect().await.unwrap();
    let mut client = OperatorServiceClient::new(admin);
    let before = client.get_switches(v1::GetSwitchesRequest {}).await.unwrap().into_inner();
    for reason in ["complaint of 810305-1000112", "8103051000112"] {
        let request = v1::SetSwitchesRequest {
            version: before.version,
            document: "capacity = 5\n".into(),
            reason: reason.into(),
            ..Default::default()
        };
        let refused = told(&client.set_switches(request).await.unwrap_err());
        assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{refused:?}");
        assert!(!refused.message.contains("1000112"), "{refused:?}");
    }
    let after = client.get_switches(v1::GetSwitchesRequest {}).await.unwrap().into_inner();
    assert_eq!(after, before);
    service.stop().await;
}
