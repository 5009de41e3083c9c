//! Sessions over gRPC: who may sell, who holds the seats, and how fast an ending is felt.

use std::time::{Duration, Instant};

use rationd::grpc::v1::{self, SessionEnd, open_session_response::Event};
use tonic::{Code, Status};

use super::harness::*;

on_both_stores!(
    selling_needs_a_session_and_nothing_else_does,
    a_token_of_nobody_is_refused,
    a_full_site_is_told_who_holds_the_seats,
    opening_again_replaces_at_once,
    closing_frees_the_seat_at_once,
    a_dropped_stream_keeps_its_seat_for_the_lease,
    a_terminal_without_a_stream_renews_by_call,
    a_stop_tells_the_open_sessions,
    a_session_cannot_be_opened_by_nobody,
);

fn masks(serial: u32) -> Visit {
    Visit::in_person(&number("900101", '1', serial), 1)
}

async fn selling_needs_a_session_and_nothing_else_does(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let nobody = service.caller(SEJONG, "w1");
    let before = world.stored().await;
    let visit = masks(1);
    let minute = Duration::from_secs(60);
    assert_eq!(reason(nobody.purchase(&visit).await, Code::FailedPrecondition), "SESSION_REQUIRED");
    assert_eq!(reason(nobody.hold(&visit, minute).await, Code::FailedPrecondition), "SESSION_REQUIRED");
    assert_eq!(reason(nobody.confirm(&visit.known(0)).await, Code::FailedPrecondition), "SESSION_REQUIRED");
    assert!(world.stored().await == before, "nothing was recorded");

    assert_eq!(said(&nobody.look_up(&visit).await), "MAY_BUY");
    assert_eq!(said(&nobody.release(&masks(2).known(0)).await.unwrap()), "NOT_FOUND");
    assert_eq!(said(&nobody.void(&masks(3).known(0)).await.unwrap()), "NOT_FOUND");
    assert_eq!(said(&nobody.resolve(&masks(4).known(0)).await.unwrap()), "NOT_RECORDED");

    // Site and terminal come from the session, whatever the call's metadata says.
    let mut seller = service.counter(SEJONG).await;
    seller.caller.site = BOM.into();
    assert_eq!(receipt(&seller.sell(&visit).await).site, SEJONG);
}

/// The token with one bit of one of its bytes the other way.
fn flipped(token: &str, byte: usize) -> String {
    let digit = |n: usize| u8::from_str_radix(&token[n..=n], 16).unwrap();
    format!("{}{:x}{}", &token[..byte], digit(byte) ^ 1, &token[byte + 1..])
}

async fn a_token_of_nobody_is_refused(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let seller = service.counter(SEJONG).await;
    let token = seller.admitted.session_token.clone();
    let before = world.stored().await;
    let mut tokens: Vec<String> = (0..token.len()).map(|byte| flipped(&token, byte)).collect();
    tokens.extend(["x".into(), token[..token.len() - 2].into(), format!("{token}00"), token.to_uppercase() + "g"]);
    for token in &tokens {
        let forged = Caller { token: Some(token.clone()), ..seller.caller.clone() };
        assert_eq!(reason(forged.purchase(&masks(1)).await, Code::Unauthenticated), "SESSION_INVALID", "{token}");
    }
    let forged = Caller { token: Some(tokens[9].clone()), ..seller.caller.clone() };
    assert_eq!(reason(forged.check(&masks(1)).await, Code::Unauthenticated), "SESSION_INVALID");
    assert_eq!(reason(forged.renew().await, Code::Unauthenticated), "SESSION_INVALID");
    assert_eq!(reason(forged.close().await, Code::Unauthenticated), "SESSION_INVALID");
    let told = told(&seller.without_session().close().await.unwrap_err());
    assert_eq!((told.reason.as_str(), told.fields[0].0.as_str()), ("INVALID_REQUEST", "session_token"));
    assert!(world.stored().await == before, "nothing was recorded");
    assert_eq!(said(&seller.sell(&masks(1)).await), "APPROVED", "the real one sells");
}

async fn a_full_site_is_told_who_holds_the_seats(world: World) {
    let caps = [("SESSIONS__CAP_BY_SITE__11000002", "2"), ("SESSIONS__CAP_BY_CHANNEL__POST_OFFICE", "3")];
    let service = world.serve_with("2020-06-15T09:00:00+09:00", &caps).await;
    for (site, cap) in [(SEJONG, 1), (BOM, 2), (DAEGU_POST, 3)] {
        let mut seated = Vec::new();
        for n in 0..cap {
            let counter = service.terminal(site, &format!("window-{n}")).await;
            assert_eq!((counter.admitted.slot, counter.admitted.replaced_earlier), (n, false));
            seated.push(counter);
        }
        let Opened::Full(full) = service.caller(site, "one-more").open().await.unwrap() else { panic!("{site}") };
        assert_eq!(full.cap, cap);
        let mut holders: Vec<_> = full.holders.iter().map(|h| (h.slot, h.terminal.clone())).collect();
        holders.sort();
        assert_eq!(holders, (0..cap).map(|n| (n, format!("window-{n}"))).collect::<Vec<_>>());
        for holder in &full.holders {
            let free_after: Duration = holder.free_after.unwrap().try_into().unwrap();
            assert!(free_after <= Duration::from_secs(15) && holder.held_for.unwrap().seconds < 10, "{holder:?}");
        }
    }
}

/// The next event of a session, and how long it took.
async fn next_event(events: &mut tonic::Streaming<v1::OpenSessionResponse>) -> (Option<Event>, Duration) {
    let started = Instant::now();
    let event = tokio::time::timeout(IN_TIME, events.message()).await.expect("in time").unwrap();
    (event.and_then(|event| event.event), started.elapsed())
}

/// Keeps selling until it is told why not; returns the reason and how long that took.
async fn sells_until(seller: &Caller) -> (String, Duration) {
    let started = Instant::now();
    for serial in 1_000.. {
        match seller.purchase(&masks(serial)).await {
            Err(status) => return (told(&status).reason, started.elapsed()),
            Ok(_) => assert!(started.elapsed() < IN_TIME, "it still sells"),
        }
    }
    unreachable!()
}

async fn opening_again_replaces_at_once(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let mut first = service.counter(SEJONG).await;
    assert_eq!(said(&first.sell(&masks(1)).await), "APPROVED");
    let second = service.counter(SEJONG).await;
    assert!(second.admitted.replaced_earlier);
    let (event, took) = next_event(&mut first.events).await;
    assert_eq!(event, Some(Event::Ended(v1::Ended { why: SessionEnd::Replaced.into(), holders: vec![] })));
    let (reason_given, refused_after) = sells_until(&first).await;
    assert_eq!(reason_given, "SESSION_REPLACED");
    assert!(took + refused_after < Duration::from_secs(2), "told after {took:?}, refused after {refused_after:?}");
    assert_eq!(reason(first.renew().await, Code::FailedPrecondition), "SESSION_REPLACED");
    assert!(first.events.message().await.unwrap().is_none(), "the stream has ended");
    assert_eq!(said(&second.sell(&masks(2)).await), "APPROVED");
}

async fn closing_frees_the_seat_at_once(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let mut took = Vec::new();
    for _ in 0..11 {
        let mut leaving = service.terminal(SEJONG, "leaving").await;
        let started = Instant::now();
        assert!(leaving.close().await.unwrap());
        let coming = service.terminal(SEJONG, "coming").await;
        took.push(started.elapsed());
        let (event, _) = next_event(&mut leaving.events).await;
        assert_eq!(event, Some(Event::Ended(v1::Ended { why: SessionEnd::Lost.into(), holders: vec![] })));
        assert_eq!(reason(leaving.purchase(&masks(1)).await, Code::FailedPrecondition), "SESSION_REPLACED");
        assert!(!leaving.close().await.unwrap(), "closing again is no error");
        assert!(coming.close().await.unwrap());
        assert_eq!(reason(coming.purchase(&masks(1)).await, Code::FailedPrecondition), "SESSION_LOST");
    }
    // The median, so that a machine that is busy with other tests does not decide.
    took.sort();
    assert!(took[5] < Duration::from_millis(100), "taken by another after {took:?}");
}

/// Waits until this terminal gets in; returns how long that took.
async fn admitted_after(caller: &Caller) -> Duration {
    until("a free seat", || async { matches!(caller.open().await.unwrap(), Opened::Admitted(_)) }).await
}

const SHORT_LEASE: [(&str, &str); 1] = [("SESSIONS__LEASE_SECONDS", "2")];

async fn a_dropped_stream_keeps_its_seat_for_the_lease(world: World) {
    let service = world.serve_with("2020-06-15T09:00:00+09:00", &SHORT_LEASE).await;
    let Counter { caller, events, admitted } = service.counter(SEJONG).await;
    assert_eq!(admitted.lease.unwrap().seconds, 2);
    // While the stream lives the service renews.
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    assert_eq!(said(&caller.sell(&masks(1)).await), "APPROVED");
    drop(events);
    assert_eq!(said(&caller.sell(&masks(2)).await), "APPROVED", "a lost connection costs nobody the seat");
    let other = service.caller(SEJONG, "w2");
    assert!(matches!(other.open().await.unwrap(), Opened::Full(_)));
    let took = admitted_after(&other).await;
    // The lease and one tick, and some for a busy machine. It may be less: the last renewal was before the drop.
    assert!(took < Duration::from_millis(3_500), "free after {took:?}");
    assert!(matches!(told(&caller.purchase(&masks(3)).await.unwrap_err()).reason.as_str(), "SESSION_REPLACED"));
}

async fn a_terminal_without_a_stream_renews_by_call(world: World) {
    let service = world.serve_with("2020-06-15T09:00:00+09:00", &SHORT_LEASE).await;
    let Counter { caller, events, .. } = service.counter(SEJONG).await;
    drop(events);
    for serial in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(caller.renew().await.unwrap().lease.unwrap().seconds, 2);
        assert_eq!(said(&caller.sell(&masks(serial)).await), "APPROVED");
    }
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    assert_eq!(reason(caller.renew().await, Code::FailedPrecondition), "SESSION_LOST");
    assert_eq!(reason(caller.purchase(&masks(9)).await, Code::FailedPrecondition), "SESSION_LOST");
}

async fn a_stop_tells_the_open_sessions(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let Counter { caller, mut events, .. } = service.counter(SEJONG).await;
    drop(caller);
    let (told, ()) = tokio::join!(next_event(&mut events), service.stop());
    assert_eq!(told.0, Some(Event::Ended(v1::Ended { why: SessionEnd::Draining.into(), holders: vec![] })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_one_instance_is_good_at_the_other() {
    let world = World::redis();
    let (one, other) = tokio::join!(world.serve("2020-06-15T09:00:00+09:00"), world.serve("2020-06-15T09:00:00+09:00"));
    let mut first = one.counter(SEJONG).await;
    let elsewhere = Caller { channel: other.channel.clone(), ..first.caller.clone() };
    assert_eq!(said(&elsewhere.sell(&masks(1)).await), "APPROVED");
    // The cap holds over both, and the other one knows who has the seat.
    let Opened::Full(full) = other.caller(SEJONG, "w2").open().await.unwrap() else { panic!("two seats were given") };
    assert_eq!((full.cap, full.holders[0].terminal.as_str()), (1, "w1"));
    // Logging in again at the other instance replaces the session of this one, which finds out by itself.
    let again = other.counter(SEJONG).await;
    assert!(again.admitted.replaced_earlier);
    let started = Instant::now();
    let (told_by_stream, refused) = tokio::join!(next_event(&mut first.events), sells_until(&first.caller));
    assert_eq!(told_by_stream.0, Some(Event::Ended(v1::Ended { why: SessionEnd::Replaced.into(), holders: vec![] })));
    assert_eq!(refused.0, "SESSION_REPLACED");
    assert!(started.elapsed() < Duration::from_secs(2), "after {:?}", started.elapsed());
    assert_eq!(
        said(&Caller { channel: one.channel.clone(), ..again.caller.clone() }.sell(&masks(2)).await),
        "APPROVED"
    );
}

async fn a_session_cannot_be_opened_by_nobody(world: World) {
    let service = world.serve("2020-06-15T09:00:00+09:00").await;
    let open = async |site: &str, terminal: &str| -> Status {
        match service.caller(site, terminal).open().await {
            Err(status) => status,
            Ok(_) => panic!("{terminal:?} of {site:?} got in"),
        }
    };
    for (site, reason) in [("", "SITE_REQUIRED"), ("no-such", "SITE_UNKNOWN"), ("a b", "SITE_UNKNOWN")] {
        let told = told(&open(site, "w1").await);
        assert_eq!((told.code, told.reason.as_str()), (Code::Unauthenticated, reason));
    }
    for terminal in ["", "two words", &"x".repeat(33)] {
        let told = told(&open(SEJONG, terminal).await);
        assert_eq!((told.reason.as_str(), told.fields[0].0.as_str()), ("INVALID_REQUEST", "terminal"));
        assert!(told.message.contains("1 to 32 letters"), "{told:?}");
    }
    assert!(matches!(service.caller(SEJONG, "w1").open().await.unwrap(), Opened::Admitted(_)), "no seat was taken");
}
