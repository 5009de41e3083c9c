//! The files of certificates: read at the start, and again whenever they change, so that nobody restarts a service to renew one.
//!
//! The service's own certificate with its key is one thing, whom it believes another; what is wrong with one keeps nobody from the
//! other. Contents are compared and not the times of files, so a file renamed over another and the swapped symbolic link of a
//! Kubernetes Secret are seen too. Files that cannot be used are refused, and what was in force stays so.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::config::{ConfigErrors, TlsFiles};
use crate::grpc::Tls;
use crate::telemetry::metrics::{Metrics, ReloadOutcome, TlsPart};
use crate::tls::{Clients, Identity};

/// What the files say.
pub(super) struct Certificates {
    files: TlsFiles,
    own: Kept<Identity>,
    clients: Kept<Arc<Clients>>,
    metrics: Arc<Metrics>,
}

/// What was read last and could be used.
struct Kept<T> {
    part: TlsPart,
    held: T,
    /// What stood there at the last look, if that was something else.
    next: Option<T>,
    /// What was wrong at the last look.
    problem: Option<String>,
    /// Whether it has been told.
    told: bool,
}

impl Certificates {
    /// Reads all of the files.
    pub(super) fn load(files: TlsFiles, metrics: Arc<Metrics>) -> Result<Self, ConfigErrors> {
        let (own, clients) = files.load()?;
        let (own, clients) = (Kept::new(TlsPart::Own, own), Kept::new(TlsPart::Clients, Arc::new(clients)));
        show(&own.held, &metrics);
        show_clients(&clients.held, &metrics);
        Ok(Self { files, own, clients, metrics })
    }

    /// How the service speaks TLS with them.
    pub(super) fn tls(&self) -> Tls {
        Tls::new(self.own.held.clone(), self.clients.held.clone(), self.metrics.clone())
    }

    /// Lets it speak as the files say for as long as the service runs.
    pub(super) async fn follow(mut self, tls: Tls, every: Duration) {
        loop {
            sleep(every).await;
            let (own, clients) = block_in_place(|| (self.files.load_own(), self.files.load_clients().map(Arc::new)));
            if let Some(own) = self.own.look(own, &self.metrics) {
                show(own, &self.metrics);
                tls.show(own.clone());
                tracing::info!("the service shows another certificate from now on");
            }
            if let Some(clients) = self.clients.look(clients, &self.metrics) {
                show_clients(clients, &self.metrics);
                tls.believe(clients.clone());
                let revoked = clients.revoked();
                tracing::info!(revoked, "other authorities, or other lists of revoked certificates, are in force");
            }
        }
    }
}

impl<T: PartialEq> Kept<T> {
    fn new(part: TlsPart, held: T) -> Self {
        Self { part, held, next: None, problem: None, told: false }
    }

    /// What is in force from now on, if that is something else than before.
    fn look(&mut self, read: Result<T, ConfigErrors>, metrics: &Metrics) -> Option<&T> {
        match read {
            Ok(same) if same == self.held => {
                (self.next, self.problem, self.told) = (None, None, false);
                None
            }
            // A file that ends between two certificates is readable and not whole: what is to be believed stands for a while.
            Ok(other) if self.next.as_ref() != Some(&other) => {
                (self.next, self.problem, self.told) = (Some(other), None, false);
                None
            }
            Ok(other) => {
                metrics.tls_reloaded(self.part, ReloadOutcome::Applied);
                *self = Self::new(self.part, other);
                Some(&self.held)
            }
            Err(errors) => {
                let problem = Some(errors.to_string());
                let stands = self.problem == problem;
                // Files are written one after the other: what is right by the next look is nobody's trouble.
                if stands && !self.told {
                    tracing::error!(%errors, "changed certificates are refused; those that were in force stay so");
                    metrics.tls_reloaded(self.part, ReloadOutcome::Rejected);
                }
                (self.problem, self.told) = (problem, stands);
                None
            }
        }
    }
}

fn show(own: &Identity, metrics: &Metrics) {
    if let Some(at) = own.good_until() {
        metrics.tls_expires(at);
    }
}

fn show_clients(clients: &Clients, metrics: &Metrics) {
    if let Some(revoked) = clients.revoked() {
        metrics.tls_revoked(revoked);
    }
}
