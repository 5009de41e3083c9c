//! What happened to purchases, as whoever follows it is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rationd::grpc::v1::{
    self, PurchaseEventKind as Kind, operator_service_client::OperatorServiceClient,
    read_events_request::From as Begins,
};
use rationd::ids::LedgerId;
use rationd::ledger::outbox::{Cursor, PARTITIONS, Place};
use tonic::{Code, Status, Streaming};

use super::harness::*;

on_both_stores!(
    everything_that_happened_is_read_once_and_names_nobody,
    what_comes_is_told_within_a_second,
    a_cursor_that_means_nothing_here_is_refused,
    so_many_read_at_once_and_no_more,
);

const ESSENTIALS: &str = "weekly-essentials";
const NINE: &str = "2020-06-15T09:00:00+09:00";

async fn read(service: &Service, request: v1::ReadEventsRequest) -> Result<Streaming<v1::ReadEventsResponse>, Status> {
    let mut client = OperatorServiceClient::connect(service.admin()).await.unwrap();
    Ok(client.read_events(request).await?.into_inner())
}

fn from(begins: Option<Begins>) -> v1::ReadEventsRequest {
    v1::ReadEventsRequest { from: begins, ..Default::default() }
}

/// All there is from there on, and the cursor behind it.
async fn all(service: &Service, request: v1::ReadEventsRequest) -> (Vec<v1::PurchaseEvent>, Option<Vec<u8>>) {
    let mut stream = read(service, request).await.unwrap();
    let (mut events, mut cursor) = (Vec::new(), None);
    while let Some(message) = stream.message().await.unwrap() {
        assert!(message.events.len() <= 256 && !message.ledger_id.is_empty());
        events.extend(message.events);
        cursor = Some(message.cursor);
    }
    (events, cursor)
}

/// What happened to each purchase, in order.
fn by_purchase(events: &[v1::PurchaseEvent]) -> BTreeMap<String, Vec<Kind>> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for event in events {
        found.entry(event.request_id.clone()).or_default().push(event.kind());
    }
    found
}

async fn everything_that_happened_is_read_once_and_names_nobody(world: World) {
    let service = world.serve(NINE).await;
    let seller = service.counter(SEJONG).await;
    let (nothing, cursor) = all(&service, from(None)).await;
    assert_eq!(nothing, Vec::new(), "nothing has happened");
    // And that is known of every partition: from there on nothing is missed unsaid.
    let kept = Cursor::from_bytes(&cursor.unwrap()).unwrap();
    assert!(kept.places().all(|(_, place)| place == Place::FIRST), "{kept:?}");
    let mut expected = BTreeMap::new();
    let mut numbers = Vec::new();
    for serial in 0..700 {
        let number = number("910101", '1', serial);
        let visit = Visit::in_person(&number, 1 + serial % 2);
        let visit = if serial % 5 == 0 { visit.under(ESSENTIALS) } else { visit };
        let kinds = if serial % 7 == 0 {
            assert_eq!(said(&one(seller.hold(&visit, Duration::from_secs(900)).await.unwrap())), "HELD");
            assert_eq!(said(&seller.confirm(&visit.known(0)).await.unwrap()), "APPROVED");
            vec![Kind::Held, Kind::Confirmed]
        } else {
            assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
            // Said again, and nothing has happened.
            assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
            vec![Kind::Sold]
        };
        expected.insert(visit.lines[0].request_id.clone(), (serial % 5 == 0, kinds));
        numbers.push(number);
    }
    let (events, cursor) = all(&service, from(None)).await;
    let kinds = |wanted: Option<bool>| -> BTreeMap<_, _> {
        let of = expected.iter().filter(|(_, (essentials, _))| wanted.is_none_or(|wanted| wanted == *essentials));
        of.map(|(id, (_, kinds))| (id.clone(), kinds.clone())).collect()
    };
    assert_eq!(by_purchase(&events), kinds(None));
    let printed = format!("{events:?}");
    assert!(numbers.iter().all(|number| !printed.contains(number) && !printed.contains(&number.replace('-', ""))));
    let some = events.iter().find(|event| event.kind() == Kind::Held).unwrap();
    assert_eq!((some.site.as_str(), some.quantity > 0, some.over), (SEJONG, true, false));
    let seconds = |at: &Option<prost_types::Timestamp>| at.as_ref().unwrap().seconds;
    assert_eq!(seconds(&some.mark) - seconds(&some.at), 900, "until when it is held");

    // From every message on comes what the others have said, and no more; of one programme only its own.
    let mut stream = read(&service, from(None)).await.unwrap();
    let mut seen = 0;
    while let Some(message) = stream.message().await.unwrap() {
        seen += message.events.len();
        let (rest, _) = all(&service, from(Some(Begins::Cursor(message.cursor)))).await;
        assert_eq!(seen + rest.len(), events.len());
        assert_eq!(by_purchase(&[&events[..seen], &rest].concat()), kinds(None));
    }
    let one = v1::ReadEventsRequest { programme: ESSENTIALS.into(), ..from(None) };
    let (of_one, end) = all(&service, one).await;
    assert_eq!(by_purchase(&of_one), kinds(Some(true)));
    assert!(of_one.iter().all(|event| event.programme == ESSENTIALS));
    assert_eq!(end, cursor, "those of the others are behind it");
    assert_eq!(all(&service, from(cursor.map(Begins::Cursor))).await.0, Vec::new());
    service.stop().await;
}

async fn what_comes_is_told_within_a_second(world: World) {
    let service = world.serve(NINE).await;
    let seller = service.counter(SEJONG).await;
    assert_eq!(said(&seller.sell(&Visit::in_person(&number("910101", '1', 1), 1)).await), "APPROVED");
    let new = v1::ReadEventsRequest { follow: true, ..from(Some(Begins::New(v1::NewEvents {}))) };
    let mut stream = read(&service, new).await.unwrap();
    let begins = stream.message().await.unwrap().unwrap();
    assert!(begins.events.is_empty(), "{begins:?}");
    let mut cursor = begins.cursor;
    // Longer than any call that is answered at once may take.
    for serial in 2..15 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        let visit = Visit::in_person(&number("910101", '1', serial), 1);
        assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
        let sold = Instant::now();
        let message = stream.message().await.unwrap().unwrap();
        assert!(sold.elapsed() < Duration::from_secs(1), "{:?}", sold.elapsed());
        assert_eq!(by_purchase(&message.events), [(visit.lines[0].request_id.clone(), vec![Kind::Sold])].into());
        cursor = message.cursor;
    }
    let ((), end) = tokio::join!(service.stop(), stream.message());
    let told = told(&end.unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "STOPPING"), "{told:?}");
    // Another process goes on.
    let service = world.serve(NINE).await;
    let seller = service.counter(SEJONG).await;
    let visit = Visit::in_person(&number("910101", '1', 20), 1);
    assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
    let (events, _) = all(&service, from(Some(Begins::Cursor(cursor)))).await;
    assert_eq!(by_purchase(&events), [(visit.lines[0].request_id.clone(), vec![Kind::Sold])].into());
    service.stop().await;
}

async fn a_cursor_that_means_nothing_here_is_refused(world: World) {
    let service = world.serve(NINE).await;
    let seller = service.counter(SEJONG).await;
    assert_eq!(said(&seller.sell(&Visit::in_person(&number("910101", '1', 1), 1)).await), "APPROVED");
    let (_, cursor) = all(&service, from(None)).await;
    let ours = Cursor::from_bytes(&cursor.unwrap()).unwrap().ledger;
    let far = Cursor::at(ours, [Place { high: u64::MAX, low: 7 }; PARTITIONS]).to_bytes();
    let other = Cursor::beginning(LedgerId::random()).to_bytes();
    for (cursor, code, reason) in [
        (Vec::new(), Code::InvalidArgument, "INVALID_REQUEST"),
        (b"no cursor".to_vec(), Code::InvalidArgument, "INVALID_REQUEST"),
        (other[..other.len() - 1].to_vec(), Code::InvalidArgument, "INVALID_REQUEST"),
        (other, Code::FailedPrecondition, "OTHER_LEDGER"),
        // Where nothing stands, for it is gone or never was.
        (far, Code::FailedPrecondition, "EVENTS_GONE"),
    ] {
        let end = match read(&service, from(Some(Begins::Cursor(cursor)))).await {
            Ok(mut stream) => stream.message().await.unwrap_err(),
            Err(refused) => refused,
        };
        let told = told(&end);
        assert_eq!((told.code, told.reason.as_str(), told.retry_after), (code, reason, None), "{told:?}");
        if code == Code::InvalidArgument {
            assert_eq!(told.fields[0].0, "cursor");
        }
    }
    let unknown = v1::ReadEventsRequest { programme: "no-such-thing".into(), ..from(None) };
    let told = told(&read(&service, unknown).await.map(|_| ()).unwrap_err());
    assert_eq!((told.reason.as_str(), told.fields[0].0.as_str()), ("INVALID_REQUEST", "programme"));
    service.stop().await;
}

#[tokio::test]
async fn what_came_and_went_after_a_cursor_of_an_empty_ledger_is_missed() {
    let world = World::redis();
    let service = world.serve(NINE).await;
    let seller = service.counter(SEJONG).await;
    let (_, cursor) = all(&service, from(None)).await;
    // Two events of one partition, of which the first goes.
    let visit = Visit::in_person(&number("910101", '1', 1), 1);
    assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
    assert_eq!(said(&seller.void(&visit.known(0)).await.unwrap()), "VOIDED");
    let redis = world.redis.as_ref().unwrap();
    let mut client = ::redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    for partition in 0..=u8::MAX {
        let stream = rationd::ledger::redis::keys::outbox(partition);
        let _: i64 = ::redis::cmd("XTRIM").arg(&stream).arg("MAXLEN").arg(1).query_async(&mut client).await.unwrap();
    }
    assert_eq!(all(&service, from(None)).await.0.len(), 1, "the oldest that is kept");
    let mut stream = read(&service, from(cursor.map(Begins::Cursor))).await.unwrap();
    assert_eq!(told(&stream.message().await.unwrap_err()).reason, "EVENTS_GONE");
    service.stop().await;
}

async fn so_many_read_at_once_and_no_more(world: World) {
    let service = world.serve(NINE).await;
    let follow = || read(&service, v1::ReadEventsRequest { follow: true, ..from(None) });
    let mut readers = Vec::new();
    for _ in 0..8 {
        readers.push(follow().await.unwrap());
    }
    let told = told(&follow().await.map(|_| ()).unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(told.retry_after.is_some());
    readers.pop();
    until("room for another reader", || async { follow().await.is_ok() }).await;
    // Those who only listen slow nobody.
    let seller = service.counter(SEJONG).await;
    assert_eq!(said(&seller.sell(&Visit::in_person(&number("910101", '1', 1), 1)).await), "APPROVED");
    service.stop().await;
}
