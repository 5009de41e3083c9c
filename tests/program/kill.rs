//! The service killed with SIGKILL while counters sell, started again, and asked about everything: what was acknowledged
//! is there, what nobody could say has one answer, and nobody bought more than allowed.
//!
//! `RATIOND_SERVICE_KILLS` says how often each store's service is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rationd::config::environment;
use rationd::grpc::v1::{Receipt, purchase_result::Outcome};
use rationd::ids::RequestId;
use rationd::terminal::CallError;

use super::service::Service;
use super::shops::{MANY_SEATS, SITES, bought, number, resolve, sell};
use crate::support::redis::RedisServer;

const KILLS: u64 = 4;
/// Terminals that sell at the same time, spread over the sites.
const TERMINALS: usize = 12;
/// How many terminals want to sell one unit to the same person, who may have two.
const RIVALS: u64 = 4;

pub fn setting(name: &str, otherwise: u64) -> u64 {
    let found = environment().find(|(variable, _)| variable == name);
    found.map_or(otherwise, |(_, value)| value.to_str().unwrap().parse().unwrap())
}

/// One attempt to sell and what was heard of it.
pub struct Attempt {
    who: u64,
    pub id: RequestId,
    site: &'static str,
    pub heard: Result<Outcome, CallError>,
}

/// Sells one unit after another until the service is gone.
pub async fn sell_until_gone(
    service: &Service,
    place: usize,
    next: Arc<AtomicU64>,
) -> tokio::task::JoinHandle<Vec<Attempt>> {
    let site = SITES[place % SITES.len()];
    let (_, session) = service.session(site, &format!("t{place}")).await;
    tokio::spawn(async move {
        let mut attempts = Vec::new();
        loop {
            let (who, id) = (next.fetch_add(1, Ordering::Relaxed) / RIVALS, RequestId::random());
            let heard = sell(&session, &number(who), 1, id).await;
            let gone = heard.is_err();
            attempts.push(Attempt { who, id, site, heard });
            if gone {
                return attempts;
            }
        }
    })
}

/// How often each thing was found.
#[derive(Debug, Default)]
struct Counts {
    acknowledged: u64,
    refused: u64,
    unknown_recorded: u64,
    unknown_not_recorded: u64,
    not_executed: u64,
}

/// Asks the service that was started again about everything that was tried.
async fn judge(service: &Service, attempts: &[Attempt], counts: &mut Counts) {
    let mut terminals = BTreeMap::new();
    for site in SITES {
        terminals.insert(site, service.session(site, "judge").await);
    }
    let mut sold: BTreeMap<u64, Vec<Receipt>> = BTreeMap::new();
    for attempt in attempts {
        let (who, id) = (number(attempt.who), attempt.id);
        let (terminal, session) = &terminals[attempt.site];
        match &attempt.heard {
            Ok(heard @ Outcome::Approved(approved)) => {
                assert_eq!(&resolve(terminal, &who, id).await, heard, "acknowledged");
                sold.entry(attempt.who).or_default().push(approved.receipt.clone().unwrap());
                counts.acknowledged += 1;
            }
            Ok(Outcome::Refused(_)) => counts.refused += 1,
            Ok(other) => panic!("{other:?}"),
            Err(CallError::NotExecuted { .. }) => {
                assert_eq!(resolve(terminal, &who, id).await, Outcome::NotRecorded(Default::default()));
                counts.not_executed += 1;
            }
            Err(CallError::Unknown(_)) => {
                let truth = resolve(terminal, &who, id).await;
                let again = sell(session, &who, 1, id).await;
                match &truth {
                    Outcome::Approved(approved) => {
                        assert_eq!(again.as_ref(), Ok(&truth), "a retry gets the receipt");
                        sold.entry(attempt.who).or_default().push(approved.receipt.clone().unwrap());
                        counts.unknown_recorded += 1;
                    }
                    Outcome::NotRecorded(_) => {
                        let Err(CallError::NotExecuted { reason, .. }) = again else { panic!("{again:?}") };
                        assert_eq!(reason, "REQUEST_ID_CLOSED");
                        counts.unknown_not_recorded += 1;
                    }
                    Outcome::Refused(_) => counts.refused += 1,
                    other => panic!("{other:?}"),
                }
                assert_eq!(resolve(terminal, &who, id).await, truth, "one truth, for good");
            }
        }
    }
    let (terminal, _) = &terminals[SITES[0]];
    for (who, receipts) in sold {
        let units = u32::try_from(receipts.len()).unwrap();
        assert!(units <= 2, "{who} bought {units} units");
        assert_eq!(bought(terminal, &number(who)).await, units, "{who}: receipts and ledger agree");
    }
}

async fn kill_and_ask(directory: &Path, store: &str, mut crash: impl FnMut(u64, &mut Service)) {
    let (mut counts, kills) = (Counts::default(), setting("RATIOND_SERVICE_KILLS", KILLS));
    let next = Arc::new(AtomicU64::new(0));
    let start = |minute: u64| {
        let clock = format!("2020-06-20T{:02}:{:02}:00+09:00", 9 + minute / 60, minute % 60);
        Service::start(directory, &["--store", store, "--clock", &clock], &[MANY_SEATS])
    };
    let mut service = start(0);
    service.await_health(0);
    for kill in 0..kills {
        let mut sellers = Vec::new();
        for place in 0..TERMINALS {
            sellers.push(sell_until_gone(&service, place, next.clone()).await);
        }
        tokio::time::sleep(Duration::from_millis(120 + 90 * (kill % 4))).await;
        crash(kill, &mut service);
        let mut attempts = Vec::new();
        for seller in sellers {
            attempts.extend(seller.await.unwrap());
        }
        // The next round has people of its own, so that each is judged once.
        next.fetch_add(RIVALS, Ordering::Relaxed);
        service = start(kill + 1);
        service.await_health(0);
        judge(&service, &attempts, &mut counts).await;
    }
    service.stop();
    let scheme = store.split(':').next().unwrap();
    println!(
        "{scheme}: service killed {kills} times with {TERMINALS} terminals selling, 0 lost, 0 above quota: {counts:?}"
    );
    assert!(counts.acknowledged > 20 * kills, "there was load");
    assert!(counts.unknown_recorded + counts.unknown_not_recorded > 0, "somebody was cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_service_keeps_what_it_acknowledged_through_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    kill_and_ask(directory.path(), "embedded:./rationd-data", |_, service| service.kill()).await;
}

/// Every second time Redis is killed with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redis_service_keeps_what_it_acknowledged_through_kill_9() {
    let mut redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let url = redis.url();
    kill_and_ask(directory.path(), &url, |kill, service| {
        if kill % 2 == 1 {
            redis.kill();
        }
        service.kill();
        if kill % 2 == 1 {
            redis.restart();
        }
    })
    .await;
}
