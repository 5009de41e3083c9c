//! The race for the last unit (G20) between several processes of the service on one Redis, over gRPC.
//!
//! `RATIOND_SERVICE_RACE_ROUNDS` asks for more rounds.

use std::time::Duration;

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;
use rationd::terminal::{CallError, Session};

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

/// Sells one unit as a client does: what may be tried again is, with the same id. How often is part of the answer.
async fn ask(session: &Session, round: u64) -> (Result<Outcome, CallError>, u64) {
    let id = RequestId::random();
    let mut repeated = 0;
    loop {
        let answer = sell(session, &number(round), 1, id).await;
        let passing = match &answer {
            Err(CallError::NotExecuted { retry_after, .. }) => retry_after.is_some(),
            Err(CallError::Unknown(_)) => true,
            Ok(_) => false,
        };
        if !passing || repeated == 5 {
            return (answer, repeated);
        }
        println!("round {round}: {answer:?}, tried again");
        repeated += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

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
    let (mut refused, mut repeated) = (0, 0);
    for from in (0..rounds).step_by(AT_ONCE as usize) {
        let block = from..rounds.min(from + AT_ONCE);
        for round in block.clone() {
            let (one, again) = ask(&callers[0].1, round).await;
            assert!(matches!(one, Ok(Outcome::Approved(_))), "{one:?}");
            repeated += again;
        }
        let mut asked = Vec::new();
        for caller in &callers {
            for round in block.clone() {
                let caller = caller.clone();
                asked.push(tokio::spawn(async move { (round, ask(&caller.1, round).await) }));
            }
        }
        let mut winners = vec![0; block.clone().count()];
        for answer in asked {
            let (round, (outcome, again)) = answer.await.unwrap();
            repeated += again;
            match (round, outcome) {
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
    assert!(repeated * 100 <= rounds * callers.len() as u64, "{repeated} calls had no answer at first");
    println!(
        "{PROCESSES} service processes on one Redis: {rounds} rounds for the last unit, {} callers a round: {rounds} \
         winners, {refused} refused, {repeated} calls repeated with their id",
        callers.len()
    );
    for service in services {
        service.stop();
    }
}
