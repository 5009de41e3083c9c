//! The export of records, as an audit meets it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::{Duration, Instant};

use prost::Message;
use rationd::buyer::{BuyerKey, KeyMark, Pseudonym, Ring, Turn, parse_kr_resident};
use rationd::config::Keys;
use rationd::grpc::v1::{
    self, EntryState, operator_service_client::OperatorServiceClient, operator_service_server as server,
};
use rationd::ledger::redis::keys;
use rationd::ledger::{Entry, Kind, RecordKey, State, packed};
use rationd::terminal::{Operator, Unread};
use rationd::time::Date;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status, Streaming};

use super::harness::*;
use crate::support::lossy::{Loss, LossyRelay};

on_both_stores!(
    every_record_is_exported_as_it_stands_and_names_nobody,
    what_stands_still_is_exported_once_while_people_buy,
    a_slow_reader_slows_nobody_else,
    a_stop_ends_an_export_and_says_so,
    a_programme_that_is_not_known_is_told_with_those_that_are,
    off_loopback_nothing_is_exported,
    a_page_in_a_browser_is_not_answered,
);

const ESSENTIALS: &str = "weekly-essentials";
const NINE: &str = "2020-06-15T09:00:00+09:00";
const TEN: &str = "2020-06-15T10:00:00+09:00";
const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

async fn operator(service: &Service) -> Operator {
    Operator::connect(&service.admin()).await.unwrap()
}

/// The stream itself, to a reader that takes so many bytes at a time.
async fn stream(
    service: &Service,
    programme: &str,
    window: u32,
) -> Result<Streaming<v1::ExportRecordsResponse>, Status> {
    let endpoint = Endpoint::from_shared(service.admin()).unwrap().initial_stream_window_size(window);
    let mut client = OperatorServiceClient::new(endpoint.connect().await.unwrap());
    let request = v1::ExportRecordsRequest { programme: programme.into() };
    Ok(client.export_records(request).await?.into_inner())
}

/// The rest of a stream; how it broke off, if it did.
async fn rest(mut stream: Streaming<v1::ExportRecordsResponse>) -> (Vec<v1::ExportRecordsResponse>, Option<Status>) {
    let mut messages = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(status) => return (messages, Some(status)),
        }
    }
}

/// What the stream is made of: bounded messages, counted records, the end on the last message alone.
fn whole(messages: &[v1::ExportRecordsResponse]) -> Vec<v1::ExportedRecord> {
    let (last, others) = messages.split_last().expect("a message");
    assert!(others.iter().all(|message| message.complete.is_none() && !message.records.is_empty()));
    let records: Vec<_> = messages.iter().flat_map(|message| message.records.clone()).collect();
    assert!(messages.iter().all(|message| message.records.len() <= 256 && message.encoded_len() < 1 << 20));
    assert!(messages.iter().all(|message| message.ledger_id == last.ledger_id && !message.ledger_id.is_empty()));
    let count = records.len() as u64;
    assert_eq!(last.complete, Some(v1::ExportComplete { records: count, unreadable: 0 }));
    assert!(records.iter().map(|record| record.ordinal).eq(1..=count));
    records
}

fn entry(line: &v1::Line, site: &str, state: EntryState, hold: bool, at_: &str, mark: &str) -> v1::ExportedEntry {
    let instant = |text| {
        let millis = at(text).as_millis();
        Some(prost_types::Timestamp { seconds: millis / 1_000, nanos: (millis % 1_000) as i32 * 1_000_000 })
    };
    v1::ExportedEntry {
        request_id: line.request_id.clone(),
        state: state.into(),
        site: site.into(),
        quantity: if state == EntryState::Closed { 0 } else { line.quantity },
        hold,
        late: false,
        over: false,
        at: instant(at_),
        mark: instant(mark),
    }
}

/// Entries by time and id, records by their first id: so that what has no order can be compared.
fn in_order(mut records: Vec<Vec<v1::ExportedEntry>>) -> Vec<Vec<v1::ExportedEntry>> {
    records.sort_by_key(|entries| entries.iter().map(|e| e.request_id.clone()).min());
    records
}

fn entries(records: Vec<v1::ExportedRecord>) -> Vec<Vec<v1::ExportedEntry>> {
    in_order(records.into_iter().map(|record| record.entries).collect())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What a record's entries must be, by their buyer's number.
type Expected = BTreeMap<String, Vec<v1::ExportedEntry>>;

/// Several hundred buyers, each with one of the fates that a purchase can have.
async fn fates(service: &Service, buyers: u32) -> Expected {
    use EntryState::*;
    let (seller, other) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let mut expected = Expected::new();
    let mut later = Vec::new();
    for serial in 0..buyers {
        let number = number("910101", '1', serial);
        let visit = Visit::in_person(&number, 1 + serial % 2);
        let line = visit.lines[0].clone();
        let record = match serial % 7 {
            0 => {
                assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
                vec![entry(&line, SEJONG, Sold, false, NINE, NINE)]
            }
            1 => {
                let again = Visit::in_person(&number, 1);
                let second = entry(&again.lines[0], BOM, Sold, false, TEN, TEN);
                assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
                later.push((serial, again));
                vec![entry(&line, SEJONG, Sold, false, NINE, NINE), second]
            }
            2..=4 => {
                assert_eq!(said(&one(seller.hold(&visit, HALF_AN_HOUR * 3).await.unwrap())), "HELD");
                later.push((serial, visit));
                vec![match serial % 7 {
                    2 => entry(&line, SEJONG, Held, true, NINE, "2020-06-15T10:30:00+09:00"),
                    3 => entry(&line, SEJONG, Released, true, NINE, TEN),
                    _ => entry(&line, SEJONG, Sold, true, NINE, TEN),
                }]
            }
            5 => {
                assert_eq!(said(&other.sell(&visit).await), "APPROVED");
                later.push((serial, visit));
                vec![entry(&line, BOM, Voided, false, NINE, TEN)]
            }
            _ => {
                let greedy = Visit::in_person(&number, 3);
                assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
                assert_eq!(said(&other.sell(&greedy).await), "QUOTA_EXHAUSTED");
                let asked = Visit::in_person(&number, 1);
                assert_eq!(said(&other.resolve(&asked.known(0)).await.unwrap()), "NOT_RECORDED");
                let refused = entry(&greedy.lines[0], BOM, Refused, false, NINE, NINE);
                let closed = entry(&asked.lines[0], BOM, Closed, false, NINE, NINE);
                vec![entry(&line, SEJONG, Sold, false, NINE, NINE), refused, closed]
            }
        };
        expected.insert(number, record);
    }
    service.set(TEN);
    for (serial, visit) in later {
        match serial % 7 {
            1 => assert_eq!(said(&other.sell(&visit).await), "APPROVED"),
            2 => {}
            3 => assert_eq!(said(&seller.release(&visit.known(0)).await.unwrap()), "RELEASED"),
            4 => assert_eq!(said(&seller.confirm(&visit.known(0)).await.unwrap()), "APPROVED"),
            _ => assert_eq!(said(&other.void(&visit.known(0)).await.unwrap()), "VOIDED"),
        }
    }
    for record in expected.values_mut() {
        record.sort_by_key(|e| (e.at.map(|at| (at.seconds, at.nanos)), e.request_id.clone()));
    }
    expected
}

async fn every_record_is_exported_as_it_stands_and_names_nobody(world: World) {
    const BUYERS: u32 = 420;
    let service = world.serve(NINE).await;
    let expected = fates(&service, BUYERS).await;
    // Some of the same people buy something else.
    let seller = service.counter(SEJONG).await;
    let mut others = Vec::new();
    for number in expected.keys().take(30) {
        let visit = Visit::in_person(number, 1).under(ESSENTIALS);
        assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
        others.push(vec![entry(&visit.lines[0], SEJONG, EntryState::Sold, false, TEN, TEN)]);
    }

    let (messages, end) = rest(stream(&service, MASKS, 1 << 20).await.unwrap()).await;
    assert!(end.is_none(), "{end:?}");
    assert!(messages.len() > 1, "{} messages", messages.len());
    assert_eq!(entries(whole(&messages)), in_order(expected.values().cloned().collect()));
    let client = operator(&service).await;
    let export = client.export(MASKS).await.unwrap();
    assert_eq!((&export.ledger_id, export.unreadable), (&seller.admitted.ledger_id, 0));
    assert_eq!(entries(export.records), in_order(expected.values().cloned().collect()));
    let export = client.export(ESSENTIALS).await.unwrap();
    assert_eq!(entries(export.records), in_order(others), "another programme's records are its own");

    // Whose they are stands nowhere.
    let bytes: Vec<u8> = messages.iter().flat_map(Message::encode_to_vec).collect();
    let first = &expected.values().next().unwrap()[0];
    assert!(contains(&bytes, first.request_id.as_bytes()), "what is there would be found");
    let stored: Vec<u8> = world.stored().await.into_iter().flat_map(|(key, value)| [key, value].concat()).collect();
    let keys = Keys::load(&world.path("keys.toml")).unwrap();
    let today = Date::new(2020, 6, 15).unwrap();
    for number in expected.keys() {
        let buyer = parse_kr_resident(number, today, false).unwrap();
        let (key, _) = keys.ring().key_of(&buyer, MASKS.parse().unwrap());
        let pseudonym = key.pseudonym.as_bytes();
        assert!(contains(&stored, pseudonym), "this is what stands in the store");
        let hex: String = pseudonym.iter().map(|byte| format!("{byte:02x}")).collect();
        // Eight bytes of it would name somebody just as well.
        for part in [&pseudonym[..8], &pseudonym[8..], &hex.as_bytes()[..16], number.as_bytes()] {
            assert!(!contains(&bytes, part), "a buyer is named");
        }
    }
    println!("{}: {} records in {} messages, {} bytes", world.name(), BUYERS, messages.len(), bytes.len());
    service.stop().await;
}

/// Sells this often to each of so many buyers, many at once; the ids of each buyer's sales.
async fn crowd(service: &Service, from: u32, buyers: u32, times: usize) -> BTreeSet<BTreeSet<String>> {
    let seller = service.counter(SEJONG).await;
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let seller = seller.caller.clone();
        callers.spawn(async move {
            let mut sold = Vec::new();
            for serial in (from + caller..from + buyers).step_by(16) {
                let visits = vec![Visit::in_person(&number("900101", '1', serial), 1); times];
                let mut ids = BTreeSet::new();
                for visit in visits {
                    let visit = visit.anew();
                    assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
                    ids.insert(visit.lines[0].request_id.clone());
                }
                sold.push(ids);
            }
            sold
        });
    }
    callers.join_all().await.into_iter().flatten().collect()
}

fn ids(record: &v1::ExportedRecord) -> BTreeSet<String> {
    record.entries.iter().map(|entry| entry.request_id.clone()).collect()
}

async fn what_stands_still_is_exported_once_while_people_buy(world: World) {
    let service = world.serve(NINE).await;
    let still = crowd(&service, 0, 600, 1).await;
    let client = operator(&service).await;
    let selling = crowd(&service, 10_000, 1_500, 1);
    let exporting = async {
        let mut exports = Vec::new();
        while exports.len() < 4 {
            exports.push(client.export(MASKS).await.unwrap());
        }
        exports
    };
    let (sold, exports) = tokio::join!(selling, exporting);
    let mut sizes = Vec::new();
    for export in exports.iter().chain([&client.export(MASKS).await.unwrap()]) {
        let records: Vec<_> = export.records.iter().map(ids).collect();
        let distinct: BTreeSet<_> = records.iter().cloned().collect();
        assert_eq!(distinct.len(), records.len(), "nothing is exported twice");
        assert!(still.is_subset(&distinct), "and nothing that stood still is left out");
        assert!(distinct.difference(&still).all(|one| sold.contains(one)));
        sizes.push(records.len());
    }
    assert_eq!(sizes.last(), Some(&2_100));
    assert!(sizes[0] < 2_100, "people were buying meanwhile: {sizes:?}");
    println!("{}: exports of {sizes:?} records", world.name());
    service.stop().await;
}

/// A reader that takes one message of an export which is much longer, and then nothing.
async fn slow_reader(service: &Service) -> (v1::ExportRecordsResponse, Streaming<v1::ExportRecordsResponse>) {
    let mut slow = stream(service, MASKS, 1_024).await.unwrap();
    let first = slow.message().await.unwrap().expect("a message");
    assert!(first.complete.is_none(), "there is more");
    (first, slow)
}

async fn a_slow_reader_slows_nobody_else(world: World) {
    let service = world.serve(NINE).await;
    crowd(&service, 0, 1_000, 2).await;
    let (first, slow) = slow_reader(&service).await;
    let (_, another) = slow_reader(&service).await;
    let seller = service.counter(BOM).await;
    for serial in 0..50 {
        let asked = Instant::now();
        assert_eq!(said(&seller.sell(&Visit::in_person(&number("910101", '1', serial), 1)).await), "APPROVED");
        assert!(asked.elapsed() < Duration::from_secs(1), "a sale took {:?}", asked.elapsed());
    }
    assert!(service.is_serving("").await);
    // Both are still under way, and each remembers whom it has met: there is no room for a third.
    let third = stream(&service, MASKS, 1 << 20).await.map(|_| ());
    let refused = told(&third.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(refused.retry_after.is_some());
    // A reader that goes away makes room; one that goes on gets everything.
    drop(another);
    until("room for another export", || async { stream(&service, MASKS, 1 << 20).await.is_ok() }).await;
    let (mut messages, end) = rest(slow).await;
    assert!(end.is_none(), "{end:?}");
    messages.insert(0, first);
    assert!((1_000..=1_050).contains(&whole(&messages).len()));
    service.stop().await;
}

async fn a_stop_ends_an_export_and_says_so(world: World) {
    let service = world.serve(NINE).await;
    crowd(&service, 0, 1_000, 2).await;
    let (_, slow) = slow_reader(&service).await;
    let asked = Instant::now();
    let reading = async {
        // It reads on when the stop is under way.
        tokio::time::sleep(Duration::from_millis(300)).await;
        rest(slow).await
    };
    let ((messages, end), ()) = tokio::join!(reading, service.stop());
    assert!(messages.iter().all(|message| message.complete.is_none()));
    let told = told(&end.expect("an end"));
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "STOPPING"), "{told:?}");
    assert!(told.retry_after.is_some());
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
}

async fn a_programme_that_is_not_known_is_told_with_those_that_are(world: World) {
    let service = world.serve(NINE).await;
    for programme in ["", "km", "no-such-thing", "Not An Id", &"x".repeat(2_000)] {
        let told = told(&stream(&service, programme, 1 << 20).await.map(|_| ()).unwrap_err());
        assert_eq!((told.code, told.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{told:?}");
        let [(path, problem)] = told.fields.as_slice() else { panic!("{told:?}") };
        assert_eq!(
            (path.as_str(), problem.as_str()),
            ("programme", &*format!("is not known here; known: {MASKS}, {ESSENTIALS}"))
        );
        let asked = operator(&service).await.export(programme).await;
        assert!(matches!(asked, Err(Unread::Told { reason, retry_after: None, .. }) if reason == "INVALID_REQUEST"));
    }
    // A programme that nobody has bought under is there, and empty.
    let (messages, end) = rest(stream(&service, MASKS, 1 << 20).await.unwrap()).await;
    assert!(end.is_none() && whole(&messages).is_empty());
    service.stop().await;
}

async fn off_loopback_nothing_is_exported(world: World) {
    // An address that leads to loopback and is none by its own word: the test listens nowhere else.
    let service = world.serve_with(NINE, &[("ADMIN__LISTEN", "[::ffff:127.0.0.1]:0")]).await;
    let sale = Visit::in_person(&number("910101", '1', 1), 1);
    assert_eq!(said(&service.counter(SEJONG).await.sell(&sale).await), "APPROVED");
    for programme in [MASKS, "no-such-thing"] {
        let told = told(&stream(&service, programme, 1 << 20).await.map(|_| ()).unwrap_err());
        assert_eq!((told.code, told.reason.as_str()), (Code::PermissionDenied, "NOT_ON_LOOPBACK"), "{told:?}");
        assert!(told.message.contains("admin.listen"), "the remedy: {told:?}");
    }
    // Nor is it where terminals call, on loopback or not.
    let request = v1::ExportRecordsRequest { programme: MASKS.into() };
    let elsewhere = OperatorServiceClient::new(service.channel.clone()).export_records(request).await;
    assert_eq!(reason(elsewhere.map(|_| ()), Code::Unimplemented), "METHOD_UNKNOWN");
    service.stop().await;
}

/// A page in a browser can post to loopback over HTTP/1.1, and reads the answer once its name leads there too.
async fn a_page_in_a_browser_is_not_answered(world: World) {
    let service = world.serve(NINE).await;
    let sale = Visit::in_person(&number("910101", '1', 1), 1);
    assert_eq!(said(&service.counter(SEJONG).await.sell(&sale).await), "APPROVED");
    let message = v1::ExportRecordsRequest { programme: MASKS.into() }.encode_to_vec();
    let mut socket = TcpStream::connect(service.admin().strip_prefix("http://").unwrap()).await.unwrap();
    let head = format!(
        "POST /rationd.v1.OperatorService/ExportRecords HTTP/1.1\r\nHost: example\r\nContent-Type: application/grpc\r\n\
         TE: trailers\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        5 + message.len()
    );
    let framed = [&[0], (message.len() as u32).to_be_bytes().as_slice(), &message].concat();
    socket.write_all(&[head.into_bytes(), framed].concat()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(IN_TIME, socket.read_to_end(&mut answer)).await.expect("in time").unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains(&sale.lines[0].request_id), "{text}");
    assert!(text.contains("grpc-status: 12") && text.contains("HTTP/2"), "{text}");
    service.stop().await;
}

/// Buyers whose records are written past the service, so that there can be many; whose they are, by number.
fn direct(number: u32) -> RecordKey {
    let mut pseudonym = *b"buyer-0000000000";
    pseudonym[6..].copy_from_slice(format!("{number:010}").as_bytes());
    let buyer = BuyerKey { partition: (number % 256) as u8, pseudonym: Pseudonym::from_bytes(pseudonym) };
    RecordKey {
        programme: "km".parse().unwrap(),
        buyer,
        turn: Turn::at(Ring { id: 1, mark: KeyMark::from_bytes([0; 8]) }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_breaks_in_the_middle_leaves_no_part_of_an_export() {
    const BUYERS: u32 = 1_500;
    let mut world = World::redis();
    let relay = LossyRelay::to(world.redis.as_ref().unwrap().port()).await;
    let service = world.serve_with(NINE, &[("STORE", &relay.url())]).await;
    let client = ::redis::Client::open(world.redis.as_ref().unwrap().url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut records = ::redis::pipe();
    for number in 0..BUYERS {
        let request = id().parse().unwrap();
        let sold = Entry {
            request,
            state: State::Sold,
            kind: Kind::Sale,
            late: number % 2 == 0,
            over: number % 4 == 0,
            quantity: number,
            at: at(NINE),
            mark: at(TEN),
            site: SEJONG.parse().unwrap(),
        };
        records.set(keys::record(&direct(number)), packed::pack([&sold])).ignore();
    }
    let () = records.query_async(&mut connection).await.unwrap();
    let operator = operator(&service).await;
    let export = operator.export(MASKS).await.unwrap();
    let quantities: BTreeMap<u32, &v1::ExportedEntry> =
        export.records.iter().map(|record| (record.entries[0].quantity, &record.entries[0])).collect();
    assert!(quantities.keys().copied().eq(0..BUYERS));
    assert!(quantities.iter().all(|(number, e)| (e.late, e.over) == (number % 2 == 0, number % 4 == 0)), "paper");

    // The last record in the order of SCAN: by then most of them have been sent.
    let (mut cursor, mut last) = ("0".to_owned(), None);
    loop {
        let mut scan = ::redis::cmd("SCAN");
        let scanned = scan.arg(&cursor).arg("MATCH").arg("{??}:km:*").arg("COUNT").arg(100);
        let (next, found): (String, Vec<String>) = scanned.query_async(&mut connection).await.unwrap();
        last = found.last().cloned().or(last);
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    let last = last.unwrap();
    let pseudonym = last.rsplit(':').next().unwrap();
    for loss in [Loss::Call, Loss::Reply] {
        relay.lose(loss, &["GET", pseudonym]);
        let (messages, end) = rest(stream(&service, MASKS, 1 << 20).await.unwrap()).await;
        let sent: usize = messages.iter().map(|message| message.records.len()).sum();
        assert!(sent > 0 && messages.iter().all(|message| message.complete.is_none()), "{sent} sent");
        let told = told(&end.expect("an end"));
        assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"), "{told:?}");
        assert!(told.retry_after.is_some() && told.message.contains("begin the export again"), "{told:?}");
        assert!(relay.has_lost());

        relay.lose(loss, &["GET", pseudonym]);
        let broken = operator.export(MASKS).await;
        assert!(
            matches!(&broken, Err(Unread::Told { reason, retry_after: Some(_), .. }) if reason == "STORE_UNAVAILABLE"),
            "{broken:?}"
        );
        assert!(relay.has_lost());
        assert_eq!(operator.export(MASKS).await.unwrap().records.len(), BUYERS as usize);
    }

    world.redis.as_mut().unwrap().kill();
    let away = operator.export(MASKS).await;
    assert!(matches!(&away, Err(Unread::Told { reason, .. }) if reason == "STORE_UNAVAILABLE"), "{away:?}");
    service.stop().await;

    // A service that has never seen its store has no ledger to name.
    let blind = world.serve(NINE).await;
    let told = told(&stream(&blind, MASKS, 1 << 20).await.map(|_| ()).unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"), "{told:?}");
    blind.stop().await;
}

/// A service that says what it was given, and then ends or stands still.
struct Canned {
    said: Vec<Result<v1::ExportRecordsResponse, Status>>,
    stands_still: bool,
}

#[tonic::async_trait]
impl server::OperatorService for Canned {
    type ExportRecordsStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::ExportRecordsResponse, Status>> + Send>>;

    async fn export_records(
        &self,
        _: Request<v1::ExportRecordsRequest>,
    ) -> Result<Response<Self::ExportRecordsStream>, Status> {
        let said = tokio_stream::iter(self.said.clone());
        if !self.stands_still {
            return Ok(Response::new(Box::pin(said)));
        }
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::chain(said, tokio_stream::pending()))))
    }

    type ReadEventsStream = Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::ReadEventsResponse, Status>> + Send>>;

    async fn read_events(&self, _: Request<v1::ReadEventsRequest>) -> Result<Response<Self::ReadEventsStream>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn look_up_buyer(
        &self,
        _: Request<v1::LookUpBuyerRequest>,
    ) -> Result<Response<v1::LookUpBuyerResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn void_for_buyer(
        &self,
        _: Request<v1::VoidForBuyerRequest>,
    ) -> Result<Response<v1::VoidForBuyerResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn get_switches(
        &self,
        _: Request<v1::GetSwitchesRequest>,
    ) -> Result<Response<v1::GetSwitchesResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn set_switches(
        &self,
        _: Request<v1::SetSwitchesRequest>,
    ) -> Result<Response<v1::SetSwitchesResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

#[tokio::test]
async fn the_client_takes_nothing_but_a_whole_export() {
    let message = |ledger: &str, records: u64, complete: Option<u64>| v1::ExportRecordsResponse {
        ledger_id: ledger.into(),
        records: (1..=records).map(|ordinal| v1::ExportedRecord { ordinal, entries: Vec::new() }).collect(),
        complete: complete.map(|records| v1::ExportComplete { records, unreadable: 4 }),
    };
    for (said, whole) in [
        (vec![Ok(message("a", 2, None)), Ok(message("a", 1, Some(3)))], Ok(3)),
        (vec![Ok(message("a", 0, Some(0)))], Ok(0)),
        (vec![], Err("ended after 0 records")),
        (vec![Ok(message("a", 2, None))], Err("ended after 2 records")),
        (vec![Ok(message("a", 2, Some(3)))], Err("3 records were said to come and 2 came")),
        (vec![Ok(message("a", 2, Some(1)))], Err("1 records were said to come and 2 came")),
        (vec![Ok(message("a", 2, None)), Ok(message("b", 1, Some(3)))], Err("two ledgers")),
        (vec![Ok(message("a", 2, None)), Err(Status::internal("it broke"))], Err("Internal: it broke")),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = server::OperatorServiceServer::new(Canned { said, stands_still: false });
        let serving = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        let export = Operator::connect(&address).await.unwrap().export(MASKS).await;
        match whole {
            Ok(records) => {
                let export = export.unwrap();
                assert_eq!((export.records.len(), export.unreadable, export.ledger_id.as_str()), (records, 4, "a"));
            }
            Err(why) => {
                let error = export.unwrap_err();
                assert!(matches!(&error, Unread::NotWhole(said) if said.contains(why)), "{why}: {error}");
            }
        }
        serving.abort();
    }
    assert!(Operator::connect("http://127.0.0.1:1").await.is_err());
}

#[tokio::test]
async fn the_client_waits_for_no_service_that_stands_still() {
    let message = v1::ExportRecordsResponse { ledger_id: "a".into(), records: Vec::new(), complete: None };
    for said in [vec![], vec![Ok(message)]] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = server::OperatorServiceServer::new(Canned { said, stands_still: true });
        let serving = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        let operator = Operator::connect(&address).await.unwrap();
        let export = tokio::spawn(async move { operator.export(MASKS).await });
        // All that was said has come by then; from there on time passes as soon as nobody has anything to do.
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::time::pause();
        let export = tokio::time::timeout(Duration::from_secs(3_600), export).await.expect("an end").unwrap();
        assert!(matches!(&export, Err(Unread::NotWhole(why)) if why.contains("nothing came for 30 s")), "{export:?}");
        tokio::time::resume();
        serving.abort();
    }
}
