//! The line over gRPC: who waits, where, for how long, and how operators move the door.

use std::time::{Duration, Instant};

use rationd::grpc::v1::{
    self, SessionEnd, open_session_response::Event, operator_service_client::OperatorServiceClient,
    poll_session_response::Outcome,
};
use tonic::{Code, Request, Status, Streaming};

use super::harness::*;

/// Where nobody knows how long it takes, a terminal is told every ten seconds, more or less.
const TOLD_AGAIN: Duration = Duration::from_secs(20);
const NOW: &str = "2020-06-15T09:00:00+09:00";

on_both_stores!(
    who_finds_no_seat_waits_and_comes_in_order,
    a_place_outlives_its_stream_and_the_service,
    a_terminal_without_a_stream_asks_and_is_admitted,
    a_place_token_is_good_for_its_terminal_alone,
    a_bad_document_changes_nothing,
    one_terminal_mode_keeps_the_terminal_that_sold_last,
    drain_lets_nobody_new_in_and_closed_ends_everybody,
    a_queue_lets_first_terminals_in_first,
    who_is_turned_back_and_asks_again_at_once_pauses,
);

/// What a terminal hears while it stands in line.
struct Standing {
    events: Streaming<v1::OpenSessionResponse>,
    token: String,
    /// Every rank and position that it was shown.
    shown: Vec<(u32, u64)>,
}

impl Standing {
    async fn at(caller: &Caller, place_token: &str) -> Self {
        let message = v1::OpenSessionRequest { terminal: caller.terminal.clone(), place_token: place_token.to_owned() };
        let events = caller.sessions().open_session(caller.request(message)).await.unwrap().into_inner();
        Self { events, token: String::new(), shown: Vec::new() }
    }

    async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(TOLD_AGAIN, self.events.message()).await.expect("it is told in time");
        let event = next.unwrap().expect("the stream goes on").event.unwrap();
        if let Event::Waiting(waiting) = &event {
            self.token.clone_from(&waiting.place_token);
            if let Some(position) = waiting.position {
                let risen = self.shown.last().is_some_and(|(rank, before)| *rank == waiting.rank && position > *before);
                assert!(!risen, "position {position} after {:?}", self.shown);
                self.shown.push((waiting.rank, position));
            }
        }
        event
    }

    /// Until it stands there.
    async fn stands(&mut self, rank: u32, position: u64) -> v1::Waiting {
        loop {
            match self.next().await {
                Event::Waiting(waiting) if waiting.rank == rank && waiting.position == Some(position) => {
                    return waiting;
                }
                Event::Waiting(_) => {}
                other => panic!("{other:?} and not position {position}"),
            }
        }
    }

    /// Until it is over or the terminal is in.
    async fn comes_out(&mut self) -> Event {
        loop {
            match self.next().await {
                Event::Waiting(_) => {}
                other => return other,
            }
        }
    }

    async fn is_admitted(&mut self) -> v1::Admitted {
        match self.comes_out().await {
            Event::Admitted(admitted) => admitted,
            other => panic!("{other:?}"),
        }
    }
}

fn masks(serial: u32) -> Visit {
    Visit::in_person(&number("900101", '1', serial), 1)
}

fn with_token(caller: &Caller, admitted: &v1::Admitted) -> Caller {
    Caller { token: Some(admitted.session_token.clone()), ..caller.clone() }
}

async fn one_seat(world: &World) -> Service {
    world.serve_with(NOW, &[("SESSIONS__CAPACITY", "1"), ("SESSIONS__CAP_DEFAULT", "3")]).await
}

async fn who_finds_no_seat_waits_and_comes_in_order(world: World) {
    let service = one_seat(&world).await;
    let seated = service.counter(SEJONG).await;
    let (bom, daegu) = (service.caller(BOM, "w1"), service.caller(DAEGU_POST, "w1"));
    let mut first = Standing::at(&bom, "").await;
    let waiting = first.stands(0, 1).await;
    assert_eq!(waiting.estimate, None, "nobody knows how long it takes");
    let mut second = Standing::at(&daegu, "").await;
    second.stands(0, 2).await;

    assert!(seated.close().await.unwrap());
    let admitted = first.is_admitted().await;
    assert_eq!((admitted.slot, admitted.replaced_earlier), (0, false));
    let selling = with_token(&bom, &admitted);
    assert_eq!(said(&selling.sell(&masks(1)).await), "APPROVED");
    assert!(selling.close().await.unwrap());
    assert!(matches!(first.next().await, Event::Ended(v1::Ended { why, .. }) if why == SessionEnd::Lost as i32));
    let admitted = second.is_admitted().await;
    assert_eq!(said(&with_token(&daegu, &admitted).sell(&masks(2)).await), "APPROVED");
}

async fn a_place_outlives_its_stream_and_the_service(world: World) {
    let service = one_seat(&world).await;
    let seated = service.counter(SEJONG).await;
    let (bom, daegu) = (service.caller(BOM, "w1"), service.caller(DAEGU_POST, "w1"));
    let mut first = Standing::at(&bom, "").await;
    first.stands(0, 1).await;
    let mut second = Standing::at(&daegu, "").await;
    second.stands(0, 2).await;
    let tokens = (first.token.clone(), second.token.clone());
    drop((first, second));

    // In the other order, and one of them without what it was shown.
    let mut second = Standing::at(&daegu, &tokens.1).await;
    second.stands(0, 2).await;
    let mut first = Standing::at(&bom, "").await;
    first.stands(0, 1).await;
    // Another stream of the same terminal ends the one before.
    let mut again = Standing::at(&bom, &first.token).await;
    assert!(matches!(first.comes_out().await, Event::Ended(ended) if ended.why() == SessionEnd::PlaceTaken));
    again.stands(0, 1).await;

    let seat = seated.admitted.session_token.clone();
    drop((seated, again, second));
    service.stop().await;
    let service = one_seat(&world).await;
    let mut second = Standing::at(&service.caller(DAEGU_POST, "w1"), &tokens.1).await;
    let waiting = second.stands(0, 2).await;
    assert!(!waiting.place_lost);
    let holder = Caller { token: Some(seat), ..service.caller(SEJONG, "w1") };
    assert!(holder.close().await.unwrap(), "the seat was kept too");
    let mut first = Standing::at(&service.caller(BOM, "w1"), &tokens.0).await;
    first.is_admitted().await;
}

async fn poll(caller: &Caller, place_token: &str) -> Result<Outcome, Status> {
    let message = v1::PollSessionRequest { terminal: caller.terminal.clone(), place_token: place_token.to_owned() };
    let answer = caller.sessions().poll_session(caller.request(message)).await?;
    Ok(answer.into_inner().outcome.expect("an outcome"))
}

async fn polled(caller: &Caller, place_token: &str) -> v1::Waiting {
    match poll(caller, place_token).await.unwrap() {
        Outcome::Waiting(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

async fn a_terminal_without_a_stream_asks_and_is_admitted(world: World) {
    let service = one_seat(&world).await;
    let seated = service.counter(SEJONG).await;
    let bom = service.caller(BOM, "w1");
    let mut waiting = polled(&bom, "").await;
    let begun = Instant::now();
    while waiting.position.is_none() {
        assert!(begun.elapsed() < IN_TIME, "it is counted in time");
        waiting = polled(&bom, &waiting.place_token).await;
    }
    assert_eq!((waiting.rank, waiting.position), (0, Some(1)));
    let next = Duration::try_from(waiting.next_update.unwrap()).unwrap();
    assert!((Duration::from_millis(1_600)..Duration::from_secs(13)).contains(&next), "{next:?}");

    // From memory: also while the store is away.
    if let Some(redis) = &world.redis {
        let pid = redis.pid().to_string();
        let signal = |name: &str| std::process::Command::new("kill").args([name, &pid]).status().unwrap();
        signal("-STOP");
        assert_eq!(polled(&bom, &waiting.place_token).await.position, Some(1));
        signal("-CONT");
    }

    assert!(seated.close().await.unwrap());
    let begun = Instant::now();
    let admitted = loop {
        match poll(&bom, &waiting.place_token).await.unwrap() {
            Outcome::Admitted(admitted) => break admitted,
            Outcome::Waiting(_) => assert!(begun.elapsed() < IN_TIME, "it is admitted in time"),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let selling = with_token(&bom, &admitted);
    assert_eq!(said(&selling.sell(&masks(1)).await), "APPROVED");
    selling.renew().await.unwrap();
}

async fn a_place_token_is_good_for_its_terminal_alone(world: World) {
    let service = one_seat(&world).await;
    let seated = service.counter(SEJONG).await;
    let (bom, daegu) = (service.caller(BOM, "w1"), service.caller(DAEGU_POST, "w1"));
    let token = polled(&bom, "").await.place_token;
    let invalid =
        |outcome: Result<Outcome, Status>| assert_eq!(reason(outcome, Code::Unauthenticated), "PLACE_INVALID");
    invalid(poll(&daegu, &token).await);
    invalid(poll(&service.caller(BOM, "w2"), &token).await);
    invalid(poll(&bom, &seated.admitted.session_token).await);
    for digit in 0..token.len() {
        let flip = if token.as_bytes()[digit] == b'0' { '1' } else { '0' };
        invalid(poll(&bom, &format!("{}{flip}{}", &token[..digit], &token[digit + 1..])).await);
    }
    let selling = Caller { token: Some(token.clone()), ..bom.clone() };
    assert_eq!(reason(selling.purchase(&masks(1)).await, Code::Unauthenticated), "SESSION_INVALID");

    let leave = |place_token: String, session_token: String| {
        let mut sessions = bom.sessions();
        let request = bom.request(v1::CloseSessionRequest { session_token, place_token });
        async move { sessions.close_session(request).await.map(|left| left.into_inner().closed) }
    };
    let both = leave(token.clone(), seated.admitted.session_token.clone()).await;
    assert_eq!(reason(both, Code::InvalidArgument), "INVALID_REQUEST");
    assert!(leave(token.clone(), String::new()).await.unwrap());
    assert!(!leave(token.clone(), String::new()).await.unwrap(), "it is given up already");
    // What is told from memory is a quarter of a second old.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lost = polled(&bom, &token).await;
    assert!(lost.place_lost, "a lost place is named");
    assert!(!polled(&bom, &lost.place_token).await.place_lost, "once");
}

async fn set(service: &Service, wanted: v1::SetSwitchesRequest) -> Result<v1::SetSwitchesResponse, Status> {
    let mut client = OperatorServiceClient::connect(service.admin()).await.unwrap();
    client.set_switches(Request::new(wanted)).await.map(|kept| kept.into_inner())
}

async fn status(service: &Service) -> v1::GetSwitchesResponse {
    let mut client = OperatorServiceClient::connect(service.admin()).await.unwrap();
    client.get_switches(v1::GetSwitchesRequest {}).await.unwrap().into_inner()
}

fn bad_fields(status: &Status) -> Vec<String> {
    told(status).fields.into_iter().map(|(field, _)| field).collect()
}

fn document(version: u64, document: &str) -> v1::SetSwitchesRequest {
    v1::SetSwitchesRequest { version, document: document.into(), reason: "a test".into(), below_live: false }
}

async fn a_bad_document_changes_nothing(world: World) {
    let service = world.serve_with(NOW, &[("SESSIONS__CAP_DEFAULT", "3")]).await;
    let (_one, _other) = (service.terminal(SEJONG, "w1").await, service.terminal(SEJONG, "w2").await);
    let before = status(&service).await;
    assert_eq!((before.version, before.live, before.document.as_str()), (0, 2, ""));
    for (text, field) in [
        ("modus = \"open\"", "document"),
        ("mode = \"ajar\"", "document"),
        ("capacity = 0", "document.capacity"),
        ("[cap_by_site]\n11000001 = 0", "document.cap_by_site.11000001"),
        ("[ramp]\nchannel = \"mart\"\nsites_per_second = -1", "document.ramp.sites_per_second"),
    ] {
        let refused = set(&service, document(0, text)).await.unwrap_err();
        assert_eq!(bad_fields(&refused), [field], "{text}");
    }
    let mut wordy = document(0, "");
    wordy.reason = "two\nlines".into();
    assert_eq!(bad_fields(&set(&service, wordy).await.unwrap_err()), ["reason"]);
    let below = set(&service, document(0, "capacity = 1")).await;
    assert_eq!(reason(below, Code::FailedPrecondition), "CAPACITY_BELOW_LIVE");
    assert_eq!(reason(set(&service, document(7, "")).await, Code::FailedPrecondition), "SWITCHES_CHANGED");
    assert_eq!(status(&service).await, before);

    let kept = set(&service, v1::SetSwitchesRequest { below_live: true, ..document(0, "capacity = 1") }).await.unwrap();
    assert_eq!(kept.version, 1);
    assert!(kept.document.contains(": a test\n") && kept.document.contains("capacity = 1"), "{}", kept.document);
    let after = status(&service).await;
    assert_eq!((after.version, after.live, after.capacity), (1, 2, 1), "it ends nobody's session");
    assert_eq!(reason(set(&service, document(0, "")).await, Code::FailedPrecondition), "SWITCHES_CHANGED");
}

async fn one_terminal_mode_keeps_the_terminal_that_sold_last(world: World) {
    let service = world.serve_with(NOW, &[("SESSIONS__CAP_DEFAULT", "3")]).await;
    // With Redis another instance has one of the sessions.
    let other = match world.redis {
        Some(_) => Some(world.serve_with(NOW, &[("SESSIONS__CAP_DEFAULT", "3")]).await),
        None => None,
    };
    let elsewhere = other.as_ref().unwrap_or(&service);
    let (mut first, second) = (service.terminal(SEJONG, "w1").await, elsewhere.terminal(SEJONG, "w2").await);
    let mut third = elsewhere.terminal(SEJONG, "w3").await;
    // The door's time moves in ticks of a second: who sold last is known as well as that.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(said(&first.sell(&masks(1)).await), "APPROVED");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(said(&second.sell(&masks(2)).await), "APPROVED");

    let switched = Instant::now();
    set(&service, document(0, "one_terminal = true")).await.unwrap();
    for ended in [&mut first, &mut third] {
        let told = tokio::time::timeout(IN_TIME, ended.events.message()).await.unwrap().unwrap().unwrap().event;
        let Some(Event::Ended(told)) = told else { panic!("{told:?}") };
        assert_eq!(told.why(), SessionEnd::CapLowered);
        let holders: Vec<&str> = told.holders.iter().map(|holder| holder.terminal.as_str()).collect();
        assert_eq!(holders, ["w2"], "they are told who holds the seat");
    }
    let took = switched.elapsed();
    println!("{}: one terminal a site after {took:?}", world.name());
    // Two seconds are promised; the machine is shared.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(said(&second.sell(&masks(3)).await), "APPROVED");
    assert_eq!(reason(third.purchase(&masks(4)).await, Code::FailedPrecondition), "SESSION_LOST");
    assert_eq!(status(&service).await.above_caps, 0);
    match service.caller(SEJONG, "w1").open().await.unwrap() {
        Opened::Full(full) => assert_eq!((full.cap, full.holders[0].terminal.as_str()), (1, "w2")),
        Opened::Admitted(_) => panic!("there is one seat"),
    }
    set(&service, document(1, "")).await.unwrap();
    let _ = elsewhere.terminal(SEJONG, "w1").await;
}

async fn drain_lets_nobody_new_in_and_closed_ends_everybody(world: World) {
    let service = world.serve_with(NOW, &[("SESSIONS__CAP_DEFAULT", "3")]).await;
    let mut seated = service.counter(SEJONG).await;
    set(&service, document(0, "mode = \"drain\"")).await.unwrap();
    let bom = service.caller(BOM, "w1");
    let mut turned_away = Standing::at(&bom, "").await;
    assert!(matches!(turned_away.next().await, Event::Shut(v1::Shut { retry_after: Some(_) })));
    assert!(matches!(poll(&bom, "").await.unwrap(), Outcome::Shut(_)));
    assert_eq!(said(&seated.sell(&masks(1)).await), "APPROVED");

    set(&service, document(1, "mode = \"closed\"")).await.unwrap();
    let told = tokio::time::timeout(IN_TIME, seated.events.message()).await.unwrap().unwrap().unwrap().event;
    assert!(matches!(&told, Some(Event::Ended(ended)) if ended.why() == SessionEnd::Shut), "{told:?}");
    assert_eq!(reason(seated.purchase(&masks(2)).await, Code::FailedPrecondition), "SESSION_LOST");
    set(&service, document(2, "")).await.unwrap();
    let _ = service.counter(SEJONG).await;
}

async fn a_queue_lets_first_terminals_in_first(world: World) {
    let service = world.serve_with(NOW, &[("SESSIONS__CAP_DEFAULT", "3")]).await;
    set(&service, document(0, "mode = \"queue_all\"")).await.unwrap();
    let mut standing = Vec::new();
    for (site, terminal) in [(SEJONG, "a"), (SEJONG, "b"), (BOM, "a")] {
        let mut waits = Standing::at(&service.caller(site, terminal), "").await;
        waits.stands(u32::from(terminal == "b"), if site == BOM { 2 } else { 1 }).await;
        standing.push(waits);
    }
    set(&service, document(1, "mode = \"first_terminals_only\"")).await.unwrap();
    standing[0].is_admitted().await;
    standing[2].is_admitted().await;
    let still = standing[1].stands(1, 1).await;
    assert_eq!(still.estimate, None);
    set(&service, document(2, "")).await.unwrap();
    standing[1].is_admitted().await;
}

async fn who_is_turned_back_and_asks_again_at_once_pauses(world: World) {
    // Nothing else changes at this site: the seat's terminal renews it.
    let service = world.serve_with(NOW, &[("SESSIONS__CAP_DEFAULT", "1")]).await;
    let holder = service.terminal(SEJONG, "till").await;
    // A door that has just been found is read from its beginning, and then everybody may ask.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waits_for = |terminal: &str| {
        let caller = service.caller(SEJONG, terminal);
        async move {
            let asked = Instant::now();
            let opened = caller.open().await.unwrap();
            (asked.elapsed(), opened)
        }
    };
    let is_full = |opened: &Opened| matches!(opened, Opened::Full(full) if full.holders[0].terminal == "till");
    for terminal in ["second", "third"] {
        let (took, opened) = waits_for(terminal).await;
        assert!(is_full(&opened) && took < Duration::from_secs(2), "the first answer comes at once: {took:?}");
    }
    let (took, opened) = waits_for("second").await;
    assert!(is_full(&opened) && took > Duration::from_secs(2), "whoever asks again at once pauses: {took:?}");

    // A seat that comes free is not kept from anybody.
    let (again, closed) = tokio::join!(waits_for("second"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        holder.close().await.unwrap()
    });
    let (took, opened) = again;
    assert!(closed && matches!(opened, Opened::Admitted(_)));
    println!("admitted {:?} after the seat was given back", took - Duration::from_secs(1));
    assert!(took < Duration::from_secs(3), "{took:?}");
}
