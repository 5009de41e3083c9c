//! Whole services over a Redis Cluster: a shard that is lost stops its own buyers and nobody else.

use std::time::{Duration, Instant};

use rationd::grpc::v1::{PurchaseResult, purchase_result::Outcome};
use rationd::ids::RequestId;
use rationd::terminal::{CallError, Session};

use super::service::Service;
use super::shops::{SATURDAY, number, purchase};
use crate::support::cluster::Nodes;

const BUYERS: u64 = 90;

/// One unit of the two to each of these people: to how many, and to how many nothing was sold because a store was away.
async fn sell(session: &Session, people: std::ops::Range<u64>) -> (usize, usize) {
    let (mut sold, mut away) = (0, 0);
    for nth in people {
        match session.seat().purchase(purchase(&number(nth), 1, RequestId::random())).await {
            Ok(answer) => {
                assert!(matches!(outcome(answer.results), Outcome::Approved(_)));
                sold += 1;
            }
            Err(CallError::NotExecuted { reason, .. }) if reason == "STORE_UNAVAILABLE" => away += 1,
            // A call that was under way when its primary was lost.
            Err(CallError::Unknown { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    (sold, away)
}

fn outcome(results: Vec<PurchaseResult>) -> Outcome {
    results.into_iter().next().and_then(|result| result.outcome).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_sell_over_a_cluster_and_a_lost_shard_stops_its_own_buyers_only() {
    let mut nodes = Nodes::start(1).await;
    let directory = tempfile::tempdir().unwrap();
    let url = nodes.url();
    let start = || Service::start(directory.path(), &["--store", &url, "--clock", SATURDAY], &[]);
    let (one, two) = (start(), start());
    let (_, here) = one.session("11000001", "w1").await;
    let (_, there) = two.session("11000002", "w1").await;
    assert_eq!(sell(&here, 0..BUYERS).await, (BUYERS as usize, 0));
    assert_eq!(sell(&there, 0..BUYERS).await, (BUYERS as usize, 0));
    for session in [&here, &there] {
        for nth in 0..BUYERS {
            let third = session.seat().purchase(purchase(&number(nth), 1, RequestId::random())).await.unwrap();
            assert!(matches!(outcome(third.results), Outcome::Refused(_)), "{nth} was sold a third unit");
        }
    }
    // Sessions stand in one shard: it is another one that is lost.
    let door = nodes.keeper("{door}").await;
    let lost = *nodes.shards().await.keys().find(|nth| **nth != door).unwrap();
    nodes.all[lost].kill();
    let (sold, away) = sell(&there, BUYERS..2 * BUYERS).await;
    assert!(sold > 20 && away > 5, "{sold} sold, {away} away");
    assert_eq!(one.await_health(0).code, 0);
    nodes.all[lost].start_again();
    nodes.whole().await;
    // The next look at the shard finds it whole.
    let back = Instant::now();
    let mut people = 2 * BUYERS..3 * BUYERS;
    while sell(&here, people.clone()).await != (BUYERS as usize, 0) {
        assert!(back.elapsed() < Duration::from_secs(20), "it does not come back: {}", one.log());
        people = people.end..people.end + BUYERS;
    }
    println!(
        "a shard lost: {sold} of {BUYERS} sold, {away} told that the store is away; all sold {:?} after it was whole",
        back.elapsed()
    );
    one.stop();
    two.stop();
}
