//! The client library's stream: many callers at once, each with its own answer.

use std::time::Duration;

use rationd::grpc::v1::{self, purchase_stream_request::Call};
use rationd::terminal::{CallError, Gateway, Terminal};
use tokio::task::JoinSet;

use super::harness::*;
use super::stream::masks;
use crate::support::lossy::{Loss, LossyRelay};

on_both_stores!(
    many_callers_share_a_gateway_and_each_gets_its_own_answer,
    a_call_that_is_too_large_is_refused_and_ends_nothing,
    a_broken_stream_leaves_every_pending_call_unknown,
);

const MONDAY: &str = "2020-06-15T09:00:00+09:00";

async fn gateway(address: &str) -> Gateway {
    let terminal = Terminal::connect(address, DAEGU_POST.parse().unwrap(), "gateway".parse().unwrap()).await.unwrap();
    terminal.gateway().await.unwrap()
}

/// Calls again, under the same id, for as long as there is no decision.
async fn patiently(gateway: &Gateway, token: &str, call: impl Into<Call> + Clone) -> v1::PurchaseResult {
    loop {
        match gateway.call(token, call.clone()).await {
            Ok(results) => return one(results),
            Err(CallError::NotExecuted { retry_after: None, reason, .. }) => panic!("{reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn get(visit: &Visit) -> v1::GetPurchaseRequest {
    let Known { programme, buyer, request_id } = visit.known(0);
    v1::GetPurchaseRequest { programme, buyer, request_id, ..Default::default() }
}

async fn many_callers_share_a_gateway_and_each_gets_its_own_answer(world: World) {
    let service = world.serve(MONDAY).await;
    let counters = [service.counter(SEJONG).await, service.counter(BOM).await];
    let gateway = gateway(&service.address()).await;
    let mut callers = JoinSet::new();
    for serial in 0..400 {
        let Counter { admitted, caller, .. } = &counters[usize::from(serial % 2 == 0)];
        let (gateway, token, site) = (gateway.clone(), admitted.session_token.clone(), caller.site.clone());
        callers.spawn(async move {
            let visit = masks(serial);
            let sold = patiently(&gateway, &token, visit.purchase()).await;
            assert_eq!((receipt(&sold).site, receipt(&sold).request_id), (site, visit.lines[0].request_id.clone()));
            let again = patiently(&gateway, &token, get(&visit)).await;
            assert_eq!(receipt(&again), receipt(&sold));
        });
    }
    callers.join_all().await;

    // Without a token the gateway's own site asks. A failure says what a call by itself would have said.
    let looked = gateway.call("", masks(900).check()).await.unwrap();
    assert_eq!(said(&one(looked)), "MAY_BUY");
    let not_executed = |error: CallError| match error {
        CallError::NotExecuted { reason, retry_after, .. } => (reason, retry_after),
        unknown => panic!("{unknown:?}"),
    };
    let unseated = gateway.call("", masks(900).purchase()).await.unwrap_err();
    assert_eq!(not_executed(unseated), ("SESSION_REQUIRED".into(), None));
    assert_eq!(said(&one(gateway.call("", get(&masks(901))).await.unwrap())), "NOT_RECORDED");

    // A call that is given up is made all the same, and its late answer is nobody else's.
    assert!(!gateway.has_ended());
    let token = counters[0].admitted.session_token.as_str();
    let given_up = masks(902);
    let mut begun = Box::pin(gateway.call(token, given_up.purchase()));
    assert!(futures_util::poll!(&mut begun).is_pending());
    drop(begun);
    assert_eq!(said(&one(gateway.call(token, masks(903).purchase()).await.unwrap())), "APPROVED");
    until("the call that was given up", || async {
        units_left(&one(gateway.call(token, given_up.check()).await.unwrap())) == Some(2)
    })
    .await;

    // It ends well when the service does; from then on nothing is sent.
    let last = gateway.call(token, masks(904).purchase()).await.unwrap();
    assert_eq!(said(&one(last)), "APPROVED");
    drop(counters);
    service.stop().await;
    until("the gateway to hear of the end", || async {
        // What it sends before it hears has no answer any more.
        match gateway.call("", masks(900).check()).await.unwrap_err() {
            CallError::Unknown(_) => false,
            ended => not_executed(ended) == ("STREAM_ENDED".into(), None),
        }
    })
    .await;
    assert!(gateway.has_ended());
}

async fn a_call_that_is_too_large_is_refused_and_ends_nothing(world: World) {
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let (gateway, token) = (gateway(&service.address()).await, seller.admitted.session_token.as_str());
    let visit = |digits: usize| Visit::in_person(&"8".repeat(digits), 1).purchase();
    let told = |digits: usize| {
        let (call, gateway) = (visit(digits), &gateway);
        async move {
            match gateway.call(token, call).await.unwrap_err() {
                CallError::NotExecuted { reason, message, retry_after: None } => (reason, message),
                other => panic!("{other:?}"),
            }
        }
    };
    let (reason, message) = told(20_000).await;
    assert_eq!(reason, "MESSAGE_TOO_LARGE");
    assert!(message.contains("16384") && !message.contains("888"), "{message}");
    // Up to some size the service reads it, and from the next on it is refused here: within what the rest of the message takes.
    let mut largest = 0;
    for digits in 15_900..16_384 {
        match told(digits).await.0.as_str() {
            "INVALID_REQUEST" if largest == digits || largest == 0 && digits == 15_900 => largest = digits + 1,
            "MESSAGE_TOO_LARGE" if largest > 0 => {}
            reason => panic!("{digits}: {reason}"),
        }
    }
    assert!((16_000..16_384).contains(&largest), "{largest}");
    assert!(!gateway.has_ended());
    assert_eq!(said(&one(gateway.call(token, masks(1).purchase()).await.unwrap())), "APPROVED");
}

async fn a_broken_stream_leaves_every_pending_call_unknown(world: World) {
    let service = world.serve(MONDAY).await;
    let seller = service.counter(SEJONG).await;
    let port = service.address().rsplit(':').next().unwrap().parse().unwrap();
    let relay = LossyRelay::to(port).await;
    let gateway = gateway(&relay.url().replace("redis:", "http:")).await;
    let token = seller.admitted.session_token.as_str();
    let visits: Vec<Visit> = (0..200).map(masks).collect();
    // The service gets them all; what it answers once it has the last one is lost.
    relay.lose(Loss::Reply, &[&visits[199].lines[0].request_id]);
    let calls = visits.iter().map(|visit| gateway.call(token, visit.purchase()));
    let answers = futures_util::future::join_all(calls).await;
    assert!(relay.has_lost());
    let (mut heard, mut unknown) = (0, 0);
    for (visit, answer) in visits.iter().zip(answers) {
        match answer {
            Ok(results) => {
                assert_eq!(said(&one(results)), "APPROVED");
                heard += 1;
            }
            Err(CallError::Unknown(why)) => {
                assert!(why.contains("the stream ended before"), "{why}");
                unknown += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
        let resolved = seller.resolve(&visit.known(0)).await.unwrap();
        assert!(["APPROVED", "NOT_RECORDED"].contains(&said(&resolved)));
    }
    println!("a broken stream on {}: {heard} heard, {unknown} unknown", world.name());
    assert!(unknown > 0);
    let after = tokio::time::timeout(Duration::from_secs(1), gateway.call(token, masks(300).purchase())).await;
    let Ok(Err(CallError::NotExecuted { reason, .. })) = after else { panic!("{after:?}") };
    assert_eq!(reason, "STREAM_ENDED");
}
