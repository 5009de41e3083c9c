//! The race for the last unit (G20) between several processes of the service on one Redis, over gRPC.
//!
//! `RATIOND_SERVICE_RACE_ROUNDS` asks for more rounds.

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;

use super::kill::setting;
use super::service::Service;
use super::shops::{MANY_SEATS, SATURDAY, SITES, bought, number, sell};
use crate::support::redis::RedisServer;

const ROUNDS: u64 = 400;
const PROCESSES: usize = 3;
/// Callers of each process in a round.
const CALLERS: usize = 2;
/// Rounds whose callers are let go together.
const AT_ONCE: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_unit_left_has_one_winner_between_service_processes() {
    let redis = RedisServer::start();
    let url = redis.url();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let mut services = Vec::new();
    for _ in 0..PROCESSES {
        services.push(Service::start(directory.path(), &["--store", &url, "--clock", SATURDAY], &[MANY_SEATS]));
    }
    let mut callers = Vec::new();
    for (process, service) in services.iter().enumerate() {
        service.await_health(0);
        for caller in 0..CALLERS {
            let site = SITES[(process * CALLERS + caller) % SITES.len()];
            callers.push(std::sync::Arc::new(service.session(site, &format!("p{process}c{caller}")).await));
        }
    }
    let rounds = setting("RATIOND_SERVICE_RACE_ROUNDS", ROUNDS);
    let mut refused = 0;
    for from in (0..rounds).step_by(AT_ONCE as usize) {
        let block = from..rounds.min(from + AT_ONCE);
        for round in block.clone() {
            let one = sell(&callers[0].1, &number(round), 1, RequestId::random()).await;
            assert!(matches!(one, Ok(Outcome::Approved(_))), "{one:?}");
        }
        let mut asked = Vec::new();
        for caller in &callers {
            for round in block.clone() {
                let caller = caller.clone();
                let answer = async move { (round, sell(&caller.1, &number(round), 1, RequestId::random()).await) };
                asked.push(tokio::spawn(answer));
            }
        }
        let mut winners = vec![0; block.clone().count()];
        for answer in asked {
            match answer.await.unwrap() {
                (round, Ok(Outcome::Approved(_))) => winners[usize::try_from(round - from).unwrap()] += 1,
                (_, Ok(Outcome::Refused(_))) => refused += 1,
                (round, other) => panic!("round {round}: {other:?}"),
            }
        }
        assert!(winners.iter().all(|wins| *wins == 1), "rounds from {from}: {winners:?}");
        for round in block {
            assert_eq!(bought(&callers[1].0, &number(round)).await, 2, "round {round}");
        }
    }
    assert_eq!(refused, rounds * (callers.len() as u64 - 1));
    println!(
        "{PROCESSES} service processes on one Redis: {rounds} rounds for the last unit, {} callers a round: {rounds} \
         winners, {refused} refused",
        callers.len()
    );
    for service in services {
        service.stop();
    }
}
