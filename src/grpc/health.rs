//! `grpc.health.v1` for every listener: the empty name is the process and always serves; each service follows the store, and
//! the audit log's name follows that.

use std::sync::Arc;

use tokio::sync::Mutex;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::server::{HealthReporter, HealthService};

use super::limits::MESSAGE;
use super::{AUDIT_LOG, PURCHASE_SERVICE, SESSION_SERVICE, STOCK_SERVICE};

/// What health answers. Clones share it.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    /// Whether the services will never be ready again; held while the answer changes.
    ended: Arc<Mutex<bool>>,
}

impl Health {
    /// The process is alive; the services are not ready yet.
    pub async fn starting() -> Self {
        let health = Self { reporter: HealthReporter::new(), ended: Arc::default() };
        health.set_ready(false).await;
        health
    }

    /// Whether sales can be recorded.
    pub async fn set_ready(&self, ready: bool) {
        let ended = self.ended.lock().await;
        self.tell(ready && !*ended).await;
    }

    /// Whether accesses can be put on record in the audit log. No name but its own follows it: counters sell on without.
    pub async fn set_audited(&self, audited: bool) {
        let status = if audited { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(AUDIT_LOG, status).await;
    }

    /// Whether what happens is read into levels of stock. Sales do not depend on it.
    pub async fn set_stocked(&self, stocked: bool) {
        let ended = self.ended.lock().await;
        self.tell_of_stock(stocked && !*ended).await;
    }

    /// Not ready any more, whatever [`Health::set_ready`] says later: the service stops.
    pub async fn end(&self) {
        let mut ended = self.ended.lock().await;
        *ended = true;
        self.tell(false).await;
        self.tell_of_stock(false).await;
    }

    async fn tell_of_stock(&self, stocked: bool) {
        let status = if stocked { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(STOCK_SERVICE, status).await;
    }

    async fn tell(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in [PURCHASE_SERVICE, SESSION_SERVICE] {
            self.reporter.set_service_status(service, status).await;
        }
    }

    pub(super) fn server(&self) -> HealthServer<impl HealthApi + use<>> {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        HealthServer::new(service).max_decoding_message_size(MESSAGE)
    }
}
