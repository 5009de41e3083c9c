//! Every task that the service cannot do without is broken off in turn: health says so at once, and the process ends to be
//! started anew. Only a museum build can break them.

use std::time::{Duration, Instant};

use rationd::grpc::PURCHASE_SERVICE;
use tonic::Streaming;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

use super::service::Service;
use crate::support::redis::RedisServer;

const EVERYWHERE: [&str; 6] = [
    "the listener for terminals",
    "the listener for operators, health and metrics",
    "health",
    "the reload of files",
    "the sweep",
    "the registry of sessions",
];
/// An audit log is kept beside an embedded store.
const EMBEDDED: [&str; 5] =
    ["the ledger's file", "the door's file", "the audit log", "the audit log's health", "the end of old records"];
const REDIS: [&str; 1] = ["the watch over Redis"];
/// The bound that is promised.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

async fn watch(address: String) -> Streaming<HealthCheckResponse> {
    let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let request = HealthCheckRequest { service: PURCHASE_SERVICE.into() };
    let mut watched = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    watched
}

/// Whether it is serving no more: it says so, or there is nobody any more who could say anything.
async fn is_off(mut watched: Streaming<HealthCheckResponse>) -> bool {
    match tokio::time::timeout(TOLD_WITHIN, watched.message()).await {
        Ok(Ok(Some(told))) => told.status() == ServingStatus::NotServing,
        Ok(_) => true,
        Err(_) => false,
    }
}

async fn breaks_in_turn(tasks: impl Iterator<Item = &'static str>, store: &[&str]) {
    for task in tasks {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("breaks");
        std::fs::write(&file, "").unwrap();
        let mut service = Service::start(directory.path(), store, &[("MUSEUM_BREAKS", file.to_str().unwrap())]);
        service.await_health(0);
        let watched = tokio::join!(watch(service.address.clone()), watch(format!("http://{}", service.admin)));
        let begun = Instant::now();
        // In one step: half a name is another name.
        std::fs::write(directory.path().join("name"), task).unwrap();
        std::fs::rename(directory.path().join("name"), &file).unwrap();
        let off = tokio::join!(is_off(watched.0), is_off(watched.1));
        println!("without {task}: health off after {:?}", begun.elapsed());
        assert_eq!(off, (true, true), "{task}:\n{}", service.log());
        assert_eq!(service.ended(Duration::from_secs(10)), 70, "{task}:\n{}", service.log());
        assert!(service.log().contains(task), "{}", service.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_off_turns_health_off_and_ends_the_process() {
    breaks_in_turn(EVERYWHERE.into_iter().chain(EMBEDDED), &[]).await;
    // One for each: a ledger belongs to the keys that it was begun with.
    for task in EVERYWHERE.into_iter().chain(REDIS) {
        let redis = RedisServer::start();
        breaks_in_turn([task].into_iter(), &["--store", &redis.url()]).await;
    }
}
