//! Many calls over one stream: each answered by itself, and as it would be alone.

use std::collections::BTreeMap;
use std::time::Duration;

use rationd::grpc::v1::{self, purchase_stream_request::Call};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::harness::*;

on_both_stores!(
    many_in_flight_are_answered_by_their_ids,
    what_fails_alone_fails_in_the_same_words_and_the_stream_goes_on,
    the_same_id_gets_the_same_answer_either_way,
    a_stream_speaks_for_many_terminals,
    the_end_of_the_questions_is_not_the_end_of_the_answers,
    what_is_no_request_ends_the_stream_after_what_was_read,
);

/// A stream as a client in any language has it.
pub struct Stream {
    requests: mpsc::Sender<v1::PurchaseStreamRequest>,
    pub answers: Streaming<v1::PurchaseStreamResponse>,
}

impl Stream {
    pub async fn open(caller: &Caller) -> Self {
        let (requests, queue) = mpsc::channel(16);
        let request = caller.request(ReceiverStream::new(queue));
        let answers = caller.purchases().purchase_stream(request).await.unwrap().into_inner();
        Self { requests, answers }
    }

    /// Sends one call in the name of the stream's own metadata.
    pub async fn ask(&self, call_id: u64, call: Call) {
        self.ask_as("", call_id, call).await;
    }

    pub async fn ask_as(&self, token: &str, call_id: u64, call: Call) {
        let request = v1::PurchaseStreamRequest { call_id, session_token: token.into(), call: Some(call) };
        self.requests.send(request).await.expect("a stream that takes requests");
    }

    /// Sends each visit as a purchase under its place in the list, as fast as they are taken. Ends when there are no more or
    /// nobody takes them.
    pub fn sell_all(&self, visits: &[Visit]) -> tokio::task::JoinHandle<()> {
        let (requests, visits) = (self.requests.clone(), visits.to_vec());
        tokio::spawn(async move {
            for (call_id, visit) in (0..).zip(visits) {
                let call = Some(Call::Purchase(visit.purchase()));
                let request = v1::PurchaseStreamRequest { call_id, call, ..Default::default() };
                if requests.send(request).await.is_err() {
                    return;
                }
            }
        })
    }

    /// The next answer; `None` at a good end.
    pub async fn next(&mut self) -> Result<Option<v1::PurchaseStreamResponse>, Status> {
        tokio::time::timeout(IN_TIME, self.answers.message()).await.expect("an answer in time")
    }

    /// The answer to the only call under way.
    pub async fn answer(&mut self, call_id: u64) -> Result<Vec<v1::PurchaseResult>, v1::Failure> {
        let answer = self.next().await.unwrap().expect("an answer before the end");
        assert_eq!(answer.call_id, call_id);
        assert!(answer.results.is_empty() == answer.failure.is_some(), "{answer:?}");
        answer.failure.map_or(Ok(answer.results), Err)
    }

    /// Closes the client's side.
    pub fn no_more(self) -> Streaming<v1::PurchaseStreamResponse> {
        self.answers
    }
}

/// The only result of an answer; `None` if a machine that is busy with other things made the service turn the call away.
/// Then nothing was done, and it says when to come back.
pub fn decided(answer: v1::PurchaseStreamResponse) -> Option<v1::PurchaseResult> {
    match answer.failure {
        None => Some(one(answer.results)),
        Some(failure) => {
            assert!(!failure.outcome_unknown && failure.retry_after.is_some(), "call {}: {failure:?}", answer.call_id);
            // It is the store that is slow. Of the instance's own places no stream takes more than its part.
            assert!(!failure.message.contains("too many calls"), "call {}: {failure:?}", answer.call_id);
            None
        }
    }
}

/// Whether the answer is a sale; what is no decision is no other one either.
pub fn is_sold(answer: v1::PurchaseStreamResponse) -> bool {
    decided(answer).inspect(|result| assert_eq!(said(result), "APPROVED")).is_some()
}

/// A person of their own, who may buy three by Wednesday.
pub fn masks(serial: u32) -> Visit {
    Visit::in_person(&number("900101", '1', serial), 1)
}

const MONDAY: &str = "2020-06-15T09:00:00+09:00";

async fn many_in_flight_are_answered_by_their_ids(world: World) {
    const CALLS: u64 = 600;
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let mut stream = Stream::open(&seller).await;
    let visits: Vec<Visit> = (0..600).map(masks).collect();
    let requests = stream.requests.clone();
    let asked = visits.clone();
    let asking = tokio::spawn(async move {
        // Large ids that do not follow each other: the service has no opinion about them.
        for (nth, visit) in (0..CALLS).zip(asked) {
            let call = match nth % 3 {
                0 => Call::Purchase(visit.purchase()),
                1 => Call::CheckPurchase(visit.check()),
                _ => Call::HoldPurchase(visit.hold(Duration::from_secs(60))),
            };
            let call_id = u64::MAX - nth * nth;
            let request = v1::PurchaseStreamRequest { call_id, call: Some(call), ..Default::default() };
            requests.send(request).await.unwrap();
        }
    });
    let mut answers = BTreeMap::new();
    while answers.len() < visits.len() {
        let answer = stream.next().await.unwrap().unwrap();
        let twice = answers.insert(u64::MAX - answer.call_id, answer);
        assert_eq!(twice, None, "answered twice");
    }
    asking.await.unwrap();
    let mut answered = 0;
    for (nth, visit) in (0..CALLS).zip(&visits) {
        let answer = answers.remove(&(nth * nth)).unwrap_or_else(|| panic!("no answer to {nth}"));
        let Some(result) = decided(answer) else { continue };
        answered += 1;
        let (expected, id) = match nth % 3 {
            0 => ("APPROVED", visit.lines[0].request_id.as_str()),
            1 => ("MAY_BUY", ""),
            _ => ("HELD", visit.lines[0].request_id.as_str()),
        };
        assert_eq!((said(&result), result.request_id.as_str()), (expected, id));
    }
    assert!(answered > CALLS / 2, "{answered} of {CALLS} were decided");
}

/// Every kind of call about this visit.
fn every_call(visit: &Visit, ledger_id: &str) -> Vec<Call> {
    let Known { programme, buyer, request_id } = visit.known(0);
    let ledger_id = || ledger_id.to_owned();
    let (p, b, r) = (|| programme.clone(), || buyer.clone(), || request_id.clone());
    vec![
        Call::CheckPurchase(visit.check()),
        Call::Purchase(v1::PurchaseRequest { ledger_id: ledger_id(), ..visit.purchase() }),
        Call::HoldPurchase(v1::HoldPurchaseRequest { ledger_id: ledger_id(), ..visit.hold(Duration::from_secs(60)) }),
        Call::ConfirmHold(v1::ConfirmHoldRequest {
            programme: p(),
            buyer: b(),
            request_id: r(),
            ledger_id: ledger_id(),
        }),
        Call::ReleaseHold(v1::ReleaseHoldRequest {
            programme: p(),
            buyer: b(),
            request_id: r(),
            ledger_id: ledger_id(),
        }),
        Call::VoidPurchase(v1::VoidPurchaseRequest {
            programme: p(),
            buyer: b(),
            request_id: r(),
            ledger_id: ledger_id(),
        }),
        Call::GetPurchase(v1::GetPurchaseRequest {
            programme: p(),
            buyer: b(),
            request_id: r(),
            ledger_id: ledger_id(),
        }),
    ]
}

/// The same call by itself.
async fn alone(caller: &Caller, call: Call) -> Result<Vec<v1::PurchaseResult>, Status> {
    let mut client = caller.purchases();
    let results = match call {
        Call::CheckPurchase(m) => client.check_purchase(caller.request(m)).await?.into_inner().results,
        Call::Purchase(m) => client.purchase(caller.request(m)).await?.into_inner().results,
        Call::HoldPurchase(m) => client.hold_purchase(caller.request(m)).await?.into_inner().results,
        Call::ConfirmHold(m) => client.confirm_hold(caller.request(m)).await?.into_inner().result.into_iter().collect(),
        Call::ReleaseHold(m) => client.release_hold(caller.request(m)).await?.into_inner().result.into_iter().collect(),
        Call::VoidPurchase(m) => {
            client.void_purchase(caller.request(m)).await?.into_inner().result.into_iter().collect()
        }
        Call::GetPurchase(m) => client.get_purchase(caller.request(m)).await?.into_inner().result.into_iter().collect(),
    };
    Ok(results)
}

async fn what_fails_alone_fails_in_the_same_words_and_the_stream_goes_on(world: World) {
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let closed = masks(1);
    assert_eq!(said(&seller.resolve(&closed.known(0)).await.unwrap()), "NOT_RECORDED");
    let sold = masks(2);
    assert_eq!(said(&seller.sell(&sold).await), "APPROVED");
    let mut reused = sold.clone();
    reused.lines[0].quantity = 2;
    let mut misread = Visit::of(vec![own_line("1", 0), own_line("810305-1000112", 0)]).by(1700);
    misread.lines[1].request_id = "x".into();
    let nobody = service.caller("", "");
    let forged = Caller { token: Some("00".repeat(60)), ..seller.caller.clone() };
    let before = world.stored().await;

    let mut seen = BTreeMap::<String, u32>::new();
    let ledger = seller.admitted.ledger_id.as_str();
    let cases = [
        (&seller.caller, vec![Call::Purchase(closed.purchase()), Call::Purchase(reused.purchase())]),
        (&seller.caller, every_call(&misread, ledger)),
        (&seller.caller, every_call(&masks(3).under("jp-masks"), ledger)),
        (&seller.caller, every_call(&masks(3), "no ledger").split_off(1)),
        (&seller.caller, every_call(&masks(3), &id()).split_off(1)),
        (&nobody, every_call(&masks(3), ledger)),
        (&forged, every_call(&masks(3), ledger)),
    ];
    for (caller, calls) in &cases {
        // One stream lives through all of them.
        let mut stream = Stream::open(caller).await;
        for (nth, call) in (0..).zip(calls) {
            stream.ask(nth, call.clone()).await;
            let failed = stream.answer(nth).await.expect_err("a failure");
            assert!(!failed.outcome_unknown, "{failed:?}");
            let told = told(&alone(caller, call.clone()).await.expect_err("a failure"));
            assert_eq!(told_in_answer(&failed), told, "call {nth}");
            *seen.entry(told.reason).or_default() += 1;
        }
        stream.requests.send(v1::PurchaseStreamRequest { call_id: 99, ..Default::default() }).await.unwrap();
        let empty = told_in_answer(&stream.answer(99).await.unwrap_err());
        assert_eq!((empty.code, empty.fields[0].0.as_str()), (Code::InvalidArgument, "call"), "{empty:?}");
        stream.ask(100, Call::CheckPurchase(masks(4).check())).await;
        let _ = stream.answer(100).await;
        drop(stream.requests);
        assert_eq!(stream.answers.message().await.unwrap(), None, "a good end");
    }
    assert!(world.stored().await == before, "nothing was recorded");
    let mut stream = Stream::open(&seller).await;
    stream.ask_as("00", 1, Call::Purchase(masks(4).purchase())).await;
    assert_eq!(stream.answer(1).await.unwrap_err().reason, "SESSION_INVALID", "it has no effect on the next");
    stream.ask(2, Call::Purchase(masks(4).purchase())).await;
    assert_eq!(said(&one(stream.answer(2).await.unwrap())), "APPROVED");
    println!("failures on {}: {seen:?}", world.name());
    let reasons: Vec<_> = seen.keys().map(String::as_str).collect();
    let expected = [
        "INVALID_REQUEST",
        "OTHER_LEDGER",
        "REQUEST_ID_CLOSED",
        "REQUEST_ID_REUSED",
        "SESSION_INVALID",
        "SESSION_REQUIRED",
        "SITE_REQUIRED",
    ];
    assert_eq!(reasons, expected);
}

async fn the_same_id_gets_the_same_answer_either_way(world: World) {
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let mut stream = Stream::open(&seller).await;
    let mut compared = 0;
    for serial in 0..4 {
        let visit = Visit::in_person(&number("900101", '1', serial), if serial == 3 { 9 } else { 2 });
        let ledger = seller.admitted.ledger_id.clone();
        // Sold or held, each by one way and asked for again by the other; the last one is refused.
        let first = &every_call(&visit, &ledger)[if serial == 2 { 2 } else { 1 }];
        let original = if serial == 1 {
            stream.ask(1_000, first.clone()).await;
            one(stream.answer(1_000).await.unwrap())
        } else {
            one(alone(&seller, first.clone()).await.unwrap())
        };
        assert_eq!(said(&original), ["APPROVED", "APPROVED", "HELD", "QUOTA_EXHAUSTED"][serial as usize]);
        assert!(!original.replayed);
        for (nth, call) in (0..).zip(every_call(&visit, &ledger)) {
            // Twice alone, so that both of the compared answers are repetitions.
            let _ = alone(&seller, call.clone()).await;
            let alone = alone(&seller, call.clone()).await;
            stream.ask(nth, call.clone()).await;
            let streamed = stream.answer(nth).await;
            match (alone, streamed) {
                (Ok(alone), Ok(streamed)) => assert_eq!(streamed, alone, "call {nth}"),
                (Err(alone), Err(streamed)) => assert_eq!(told_in_answer(&streamed), told(&alone), "call {nth}"),
                other => panic!("call {nth}: {other:?}"),
            }
            if call == *first {
                stream.ask(500, call).await;
                let again = one(stream.answer(500).await.unwrap());
                assert_eq!((&again.outcome, again.replayed), (&original.outcome, true), "the same receipt");
            }
            compared += 1;
        }
    }
    println!("{compared} answers compared on {}", world.name());
}

async fn a_stream_speaks_for_many_terminals(world: World) {
    let service = world.serve(MONDAY).await;
    let (sejong, bom) = (service.counter(SEJONG).await, service.counter(BOM).await);
    let (sejongs, boms) = (sejong.admitted.session_token.as_str(), bom.admitted.session_token.as_str());
    // The gateway's own site is a third one, and it has no session.
    let mut stream = Stream::open(&service.caller(DAEGU_POST, "gateway")).await;
    for (nth, (token, site)) in (0..).zip([(sejongs, SEJONG), (boms, BOM), (sejongs, SEJONG)]) {
        let visit = masks(nth);
        stream.ask_as(token, 1, Call::Purchase(visit.purchase())).await;
        let sold = one(stream.answer(1).await.unwrap());
        assert_eq!(receipt(&sold).site, site);
        // Without a token the stream's own site asks, and it is not this one's sale.
        let Known { programme, buyer, request_id } = visit.known(0);
        let get = v1::GetPurchaseRequest { programme, buyer, request_id, ..Default::default() };
        stream.ask(2, Call::GetPurchase(get.clone())).await;
        assert_eq!(said(&one(stream.answer(2).await.unwrap())), "NOT_YOURS");
        stream.ask_as(token, 3, Call::GetPurchase(get)).await;
        assert_eq!(receipt(&one(stream.answer(3).await.unwrap())), receipt(&sold));
    }
    stream.ask(4, Call::CheckPurchase(masks(7).check())).await;
    assert_eq!(said(&one(stream.answer(4).await.unwrap())), "MAY_BUY", "the site is enough for a look-up");
    stream.ask(5, Call::Purchase(masks(7).purchase())).await;
    assert_eq!(stream.answer(5).await.unwrap_err().reason, "SESSION_REQUIRED", "and not for a sale");

    // A stream whose metadata name a session sells with it, and for others with theirs.
    let mut stream = Stream::open(&sejong).await;
    for (token, site) in [("", SEJONG), (boms, BOM)] {
        stream.ask_as(token, 6, Call::Purchase(masks(if token.is_empty() { 8 } else { 9 }).purchase())).await;
        assert_eq!(receipt(&one(stream.answer(6).await.unwrap())).site, site);
    }
    // A session that ends in the middle of a stream sells no more, whatever else the stream does.
    assert!(bom.close().await.unwrap());
    stream.ask_as(boms, 7, Call::Purchase(masks(10).purchase())).await;
    assert_eq!(stream.answer(7).await.unwrap_err().reason, "SESSION_LOST");
    stream.ask(8, Call::Purchase(masks(10).purchase())).await;
    assert_eq!(said(&one(stream.answer(8).await.unwrap())), "APPROVED");
}

async fn the_end_of_the_questions_is_not_the_end_of_the_answers(world: World) {
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let visits: Vec<Visit> = (0..700).map(masks).collect();
    let stream = Stream::open(&seller).await;
    let asking = stream.sell_all(&visits);
    // Nothing is read before everything was asked: it is closed while as much as possible is under way.
    let mut answers = stream.no_more();
    let mut answered = vec![0; visits.len()];
    let mut sold = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        answered[usize::try_from(answer.call_id).unwrap()] += 1;
        sold += usize::from(is_sold(answer));
    }
    asking.await.unwrap();
    assert!(sold > visits.len() / 2, "{sold} were decided");
    assert!(answered.iter().all(|times| *times == 1), "{answered:?}");
}

async fn what_is_no_request_ends_the_stream_after_what_was_read(world: World) {
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;

    let mut stream = Stream::open(&seller).await;
    stream.ask(1, Call::Purchase(masks(1).purchase())).await;
    stream.ask(2, Call::Purchase(Visit::in_person(&"8".repeat(20_000), 1).purchase())).await;
    assert_eq!(said(&one(stream.answer(1).await.unwrap())), "APPROVED");
    let told_huge = told(&stream.next().await.unwrap_err());
    assert_eq!((told_huge.code, told_huge.reason.as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"));
    assert!(told_huge.message.contains("16384"), "{told_huge:?}");

    // An empty message is a request without a call; one whose first field is text is no request.
    let garbled = prost_types::Any { type_url: MASKS.into(), value: Vec::new() };
    let messages = tokio_stream::iter([prost_types::Any::default(), garbled]);
    let mut client = tonic::client::Grpc::new(seller.channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<prost_types::Any, v1::PurchaseStreamResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/rationd.v1.PurchaseService/PurchaseStream");
    let mut answers = client.streaming(seller.request(messages), path, codec).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(first.failure.unwrap().invalid_fields[0].field, "call");
    let told_garbled = told(&answers.message().await.unwrap_err());
    assert_eq!((told_garbled.code, told_garbled.reason.as_str()), (Code::InvalidArgument, "MESSAGE_MALFORMED"));
}
