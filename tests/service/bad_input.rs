//! Bad input: each kind with its code, its reason, the path of the field and the remedy; and nothing recorded.

use rationd::grpc::v1::{self, purchase_service_client::PurchaseServiceClient};
use tonic::{Code, Request, Status};

use super::harness::*;

on_both_stores!(
    a_bad_field_is_named_with_its_remedy,
    an_id_means_one_purchase,
    an_id_of_another_ledger_is_turned_away_by_every_call,
    what_is_no_request_is_refused_with_a_reason,
    a_caller_must_say_which_site_it_is,
);

const CITIZEN: &str = "810305-1000112";

fn goods() -> String {
    r#"id = "test-goods"
code = "tg"
title = "Goods of a test"
unit = "piece"
zone = "Asia/Seoul"
buyer_id = "opaque"
max_hold_minutes = 60

[[periods]]
from = 2020-01-01
windows = [{ kind = "week", starts = "mon", units = 2 }]

[[channels]]
from = 2020-01-01
channel = "pharmacy"
"#
    .to_owned()
}

async fn start(world: &World) -> Service {
    world.write("policies/goods.toml", &goods());
    let policies = world.path("policies");
    world.serve_with("2020-06-15T09:00:00+09:00", &[("POLICIES", policies.to_str().unwrap())]).await
}

fn invalid(status: &Status, field: &str, remedy: &str) {
    let told = told(status);
    assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{told:?}");
    assert!(told.fields.iter().any(|(path, problem)| path == field && problem.contains(remedy)), "{field}: {told:?}");
    assert!(told.message.contains(remedy), "{told:?}");
    assert_eq!(told.retry_after, None, "coming back with the same does not help");
}

fn with(change: impl FnOnce(&mut v1::Line)) -> Visit {
    let mut visit = Visit::in_person(CITIZEN, 1);
    change(&mut visit.lines[0]);
    visit
}

fn goods_for(name: &str, birth_date: &str) -> Visit {
    with(|line| line.buyer = opaque(name, birth_date)).under("test-goods")
}

async fn a_bad_field_is_named_with_its_remedy(world: World) {
    let service = start(&world).await;
    let seller = service.counter(SEJONG).await;
    let before = world.stored().await;
    let number = "lines[0].buyer.resident_number";
    let cases = [
        (Visit::in_person("8103051", 1), number, "13 digits"),
        (Visit::in_person("810305-100011a", 1), number, "digit"),
        (Visit::in_person("810230-1000112", 1), number, "calendar"),
        (Visit::in_person("211231-3000016", 1), number, "after"),
        (Visit::in_person(&"8".repeat(2_000), 1), number, "13 digits"),
        (Visit::in_person(CITIZEN, 0), "lines[0].quantity", "from 1 to 1000000"),
        (Visit::in_person(CITIZEN, 1_000_001), "lines[0].quantity", "from 1 to 1000000"),
        (Visit::in_person(CITIZEN, u32::MAX), "lines[0].quantity", "from 1 to 1000000"),
        (Visit::in_person(CITIZEN, 1).under("jp-masks"), "programme", "known: kr-public-mask-2020, test-goods, weekly"),
        (Visit::in_person(CITIZEN, 1).under(""), "programme", "lower-case letters"),
        (Visit::in_person(CITIZEN, 1).under("KR Masks"), "programme", "lower-case letters"),
        (with(|line| line.buyer = None), "lines[0].buyer", "is required"),
        (with(|line| line.buyer = Some(v1::Buyer { id: None })), "lines[0].buyer", "is required"),
        (
            with(|line| line.relation = "brother_in_law".into()).by(1981),
            "lines[0].relation",
            "no such relation, but: anyone",
        ),
        (with(|line| line.relation = "Same Household".into()).by(1981), "lines[0].relation", "lower-case letters"),
        (with(|line| line.papers = vec!["library_card".into()]), "lines[0].papers", "no such paper, but:"),
        (with(|line| line.papers = vec!["id_card".into(), "!".into()]), "lines[0].papers[1]", "lower-case letters"),
        (with(|line| line.papers = vec!["id_card".into(); 9]), "lines[0].papers", "at most 8"),
        (with(|line| line.buyer = opaque("CARD-1", "1981-03-05")), "lines[0].buyer", "wants a resident_number"),
        (with(|_| {}).under("test-goods"), "lines[0].buyer", "wants an opaque id"),
        (goods_for("", "1981-03-05"), "lines[0].buyer.opaque", "1 to 64 printable"),
        (goods_for("번호", "1981-03-05"), "lines[0].buyer.opaque", "1 to 64 printable"),
        (goods_for("CARD-1", "1981-02-30"), "lines[0].buyer.opaque", "YYYY-MM-DD"),
        (goods_for("CARD-1", "2020-06-16"), "lines[0].buyer.opaque", "after"),
    ];
    let count = cases.len();
    for (visit, field, remedy) in cases {
        let length = std::time::Duration::from_secs(60);
        invalid(&seller.purchase(&visit).await.unwrap_err(), field, remedy);
        invalid(&seller.hold(&visit, length).await.unwrap_err(), field, remedy);
        invalid(&seller.check(&visit).await.unwrap_err(), field, remedy);
        // The calls that follow a purchase check what they carry in the same way.
        if field == "programme" || field.contains("buyer") {
            let field = field.replace("lines[0].", "");
            let known = visit.known(0);
            invalid(&seller.confirm(&known).await.unwrap_err(), &field, remedy);
            invalid(&seller.release(&known).await.unwrap_err(), &field, remedy);
            invalid(&seller.void(&known).await.unwrap_err(), &field, remedy);
            invalid(&seller.resolve(&known).await.unwrap_err(), &field, remedy);
        }
    }
    for (request_id, remedy) in [
        ("", "is required"),
        ("12345", "a UUID such as"),
        ("018f3a5e-7c1b-7d42-9c55-0a8b6f0d9e1g", "a UUID such as"),
        ("00000000-0000-0000-0000-000000000000", "not the nil one"),
    ] {
        let visit = with(|line| line.request_id = request_id.into());
        invalid(&seller.purchase(&visit).await.unwrap_err(), "lines[0].request_id", remedy);
        invalid(&seller.void(&visit.known(0)).await.unwrap_err(), "request_id", remedy);
        invalid(&seller.resolve(&visit.known(0)).await.unwrap_err(), "request_id", remedy);
    }
    let mut look_up = with(|_| {}).check();
    look_up.lines[0].request_id = id();
    let status = seller.purchases().check_purchase(seller.request(look_up)).await.unwrap_err();
    invalid(&status, "lines[0].request_id", "must be empty");

    // Everything that is wrong is told at once.
    let mut visit = Visit::of(vec![own_line("1", 0), own_line(CITIZEN, 0)]).by(1700);
    visit.lines[1].request_id = "x".into();
    let told_all = told(&seller.purchase(&visit).await.unwrap_err());
    let fields: Vec<_> = told_all.fields.iter().map(|(path, _)| path.as_str()).collect();
    let rules = ["lines[0].quantity", number, "lines[1].quantity"];
    assert_eq!(fields, [&["agent.birth_year", "lines[1].request_id"][..], &rules].concat());

    assert!(world.stored().await == before, "nothing was recorded");
    println!("bad input on {}: {count} kinds of visit, each as purchase, hold and look-up", world.name());
}

async fn an_id_means_one_purchase(world: World) {
    let service = start(&world).await;
    let (seller, other) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let visit = Visit::in_person(&number("900101", '1', 1), 2);
    let proof = receipt(&seller.sell(&visit).await);
    let before = world.stored().await;
    let mut less = visit.clone();
    less.lines[0].quantity = 1;
    let length = std::time::Duration::from_secs(60);
    for (what, answer) in [
        ("another quantity", seller.purchase(&less).await),
        ("another site", other.purchase(&visit).await),
        ("a hold", seller.hold(&visit, length).await),
    ] {
        let told = told(&answer.unwrap_err());
        assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "REQUEST_ID_REUSED"), "{what}");
        assert!(told.message.contains("request id"), "{told:?}");
    }
    assert!(world.stored().await == before, "nothing was recorded");
    assert_eq!(receipt(&seller.sell(&visit).await), proof);
    // The scope of an id is one buyer.
    let namesake = Visit::of(vec![v1::Line { buyer: resident(&number("900101", '1', 2)), ..visit.lines[0].clone() }]);
    assert_eq!(said(&seller.sell(&namesake).await), "APPROVED");

    // An id that was asked about before it came is closed for good.
    let late = Visit::in_person(&number("900101", '1', 3), 2);
    assert_eq!(said(&seller.resolve(&late.known(0)).await.unwrap()), "NOT_RECORDED");
    let told = told(&seller.purchase(&late).await.unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::FailedPrecondition, "REQUEST_ID_CLOSED"));
    assert!(told.message.contains("new"), "the remedy: {told:?}");
    assert_eq!(said(&other.resolve(&visit.known(0)).await.unwrap()), "NOT_YOURS");
    assert_eq!(said(&seller.sell(&late.anew()).await), "APPROVED");
}

async fn an_id_of_another_ledger_is_turned_away_by_every_call(world: World) {
    let service = start(&world).await;
    let seller = service.counter(SEJONG).await;
    let visit = Visit::in_person(&number("900101", '1', 9), 2);
    let sold = seller.sell(&visit).await;
    let before = world.stored().await;
    let (buyer, request_id) = (visit.lines[0].buyer.clone(), visit.lines[0].request_id.clone());
    for (ledger_id, code, why) in [
        (id(), Code::FailedPrecondition, "OTHER_LEDGER"),
        ("not a ledger".into(), Code::InvalidArgument, "INVALID_REQUEST"),
    ] {
        macro_rules! turned_away {
            ($call:ident, $message:expr) => {
                let answer = seller.purchases().$call(seller.request($message)).await;
                assert_eq!(reason(answer, code), why, stringify!($call));
            };
        }
        let (buyer, request_id, programme) = (buyer.clone(), request_id.clone(), "weekly-essentials".to_owned());
        let known = v1::GetPurchaseRequest { programme, buyer, request_id, ledger_id: ledger_id.clone() };
        let v1::GetPurchaseRequest { programme, buyer, request_id, .. } = known.clone();
        let ledger_id = || ledger_id.clone();
        turned_away!(purchase, v1::PurchaseRequest { ledger_id: ledger_id(), ..visit.purchase() });
        let length = std::time::Duration::from_secs(60);
        turned_away!(hold_purchase, v1::HoldPurchaseRequest { ledger_id: ledger_id(), ..visit.hold(length) });
        turned_away!(get_purchase, known);
        let (p, b, r) = (programme.clone(), buyer.clone(), request_id.clone());
        turned_away!(
            confirm_hold,
            v1::ConfirmHoldRequest { programme: p, buyer: b, request_id: r, ledger_id: ledger_id() }
        );
        let (p, b, r) = (programme.clone(), buyer.clone(), request_id.clone());
        turned_away!(
            release_hold,
            v1::ReleaseHoldRequest { programme: p, buyer: b, request_id: r, ledger_id: ledger_id() }
        );
        turned_away!(void_purchase, v1::VoidPurchaseRequest { programme, buyer, request_id, ledger_id: ledger_id() });
    }
    assert!(world.stored().await == before, "nothing was recorded");
    // Under its own ledger, which every result names, it is known.
    let request = v1::PurchaseRequest { ledger_id: sold.ledger_id.clone(), ..visit.purchase() };
    let again = seller.purchases().purchase(seller.request(request)).await.unwrap().into_inner().results;
    assert_eq!(receipt(&one(again)), receipt(&sold));
    assert_eq!(receipt(&sold).ledger_id, sold.ledger_id);
}

/// Sends a message of any type to any method.
async fn send<M: prost::Message + Default + 'static>(caller: &Caller, path: &'static str, message: M) -> Status {
    let mut client = tonic::client::Grpc::new(caller.channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, v1::PurchaseResponse>::default();
    let request: Request<M> = caller.request(message);
    client.unary(request, http::uri::PathAndQuery::from_static(path), codec).await.expect_err("no answer")
}

async fn what_is_no_request_is_refused_with_a_reason(world: World) {
    const PURCHASE: &str = "/rationd.v1.PurchaseService/Purchase";
    let service = start(&world).await;
    let seller = service.counter(SEJONG).await;
    let before = world.stored().await;

    let huge = Visit::in_person(&"8".repeat(20_000), 1);
    let told_huge = told(&seller.purchase(&huge).await.unwrap_err());
    assert_eq!((told_huge.code, told_huge.reason.as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"));
    assert!(told_huge.message.contains("16384"), "{told_huge:?}");

    // The second field should be an agent, and is no message at all.
    let garbled = prost_types::Any { type_url: MASKS.into(), value: vec![0xff; 7] };
    let told_garbled = told(&send(&seller, PURCHASE, garbled).await);
    assert_eq!((told_garbled.code, told_garbled.reason.as_str()), (Code::InvalidArgument, "MESSAGE_MALFORMED"));
    let told_empty = told(&send(&seller, PURCHASE, ()).await);
    assert_eq!(told_empty.fields[0].0, "programme", "{told_empty:?}");

    for path in ["/rationd.v1.PurchaseService/Steal", "/rationd.v9.PurchaseService/Purchase", "/nothing"] {
        let told = told(&send(&seller, path, v1::PurchaseRequest::default()).await);
        assert_eq!((told.code, told.reason.as_str()), (Code::Unimplemented, "METHOD_UNKNOWN"), "{path}");
        assert!(told.message.contains("reflection"), "{told:?}");
    }
    let zipped = PurchaseServiceClient::new(seller.channel.clone())
        .send_compressed(tonic::codec::CompressionEncoding::Gzip)
        .purchase(seller.request(Visit::in_person(CITIZEN, 1).purchase()))
        .await;
    let told_zipped = told(&zipped.unwrap_err());
    assert_eq!((told_zipped.code, told_zipped.reason.as_str()), (Code::Unimplemented, "COMPRESSION_UNKNOWN"));
    assert!(told_zipped.message.contains("gzip"), "{told_zipped:?}");
    assert!(world.stored().await == before, "nothing was recorded");
}

async fn a_caller_must_say_which_site_it_is(world: World) {
    let service = start(&world).await;
    let visit = Visit::in_person(CITIZEN, 1);
    let before = world.stored().await;
    for (site, expected) in [("", "SITE_REQUIRED"), ("99999999", "SITE_UNKNOWN"), ("a site", "SITE_UNKNOWN")] {
        let caller = service.caller(site, "w1");
        let known = visit.known(0);
        assert_eq!(reason(caller.check(&visit).await, Code::Unauthenticated), expected);
        assert_eq!(reason(caller.release(&known).await, Code::Unauthenticated), expected);
        assert_eq!(reason(caller.void(&known).await, Code::Unauthenticated), expected);
        assert_eq!(reason(caller.resolve(&known).await, Code::Unauthenticated), expected);
        let told = told(&caller.check(&visit).await.unwrap_err());
        assert!(told.message.contains(if site.is_empty() { "rationd-site" } else { "registry" }), "{told:?}");
    }
    let misnamed = service.caller(SEJONG, "two words").check(&visit).await.unwrap_err();
    invalid(&misnamed, "rationd-terminal", "1 to 32 letters");
    assert!(world.stored().await == before, "nothing was recorded");
    assert_eq!(said(&service.caller(SEJONG, "").look_up(&visit).await), "MAY_BUY", "the terminal may be left out");
}
