//! The files of certificates: read at the start, and again whenever they change, so that nobody restarts a service to renew one.
//!
//! The service's own certificate with its key is one thing, whom it believes another; what is wrong with one keeps nobody from the
//! other. Contents are compared and not the times of files, so a file renamed over another and the swapped symbolic link of a
//! Kubernetes Secret are seen too; only contents that are new are looked into. What cannot be used is refused, and so is what is good
//! in itself and worse than what is in force: a certificate that has expired, a list of revoked ones that is older. What was in
//! force stays so.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::config::{ClientsText, ConfigErrors, OwnText, TlsFiles};
use crate::grpc::Tls;
use crate::telemetry::metrics::{Metrics, ReloadOutcome, TlsPart};
use crate::time::{Clock, SystemClock, Timestamp};
use crate::tls::{BadPem, Clients, Identity, Part};

/// What the files say.
pub(super) struct Certificates {
    files: TlsFiles,
    own: Kept<Identity, OwnText>,
    clients: Kept<Arc<Clients>, ClientsText>,
    metrics: Arc<Metrics>,
}

/// What was read last and could be used.
struct Kept<T, C> {
    part: TlsPart,
    held: T,
    /// What it was made of.
    of: C,
    /// What stood there at the last look, if that was something else.
    next: Option<C>,
    /// What was wrong at the last look.
    problem: Option<String>,
    /// Whether it has been told.
    told: bool,
}

impl Certificates {
    /// Reads all of the files.
    pub(super) fn load(files: TlsFiles, metrics: Arc<Metrics>) -> Result<Self, ConfigErrors> {
        let texts = files.read_own().and_then(|own| Ok((own, files.read_clients()?)));
        // Everything that is wrong with any of it at once.
        let (own, clients) = files.load()?;
        let (own_text, clients_text) = texts?;
        let own = Kept::new(TlsPart::Own, own, own_text);
        let clients = Kept::new(TlsPart::Clients, Arc::new(clients), clients_text);
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
            let files = &self.files;
            let own = block_in_place(|| {
                let make = |text: &OwnText, held: &Identity| {
                    let own = files.own(text)?;
                    may_follow(&own, held).map_err(|bad| ConfigErrors(vec![files.told(bad)]))?;
                    Ok(own)
                };
                self.own.look(files.read_own(), make, &self.metrics)
            });
            if let Some(own) = own {
                show(own, &self.metrics);
                tls.show(own.clone());
                tracing::info!("the service shows another certificate from now on");
            }
            let clients = block_in_place(|| {
                let make = |text: &ClientsText, held: &Arc<Clients>| {
                    let clients = files.clients(text)?;
                    clients.may_follow(held).map_err(|bad| ConfigErrors(vec![files.told(bad)]))?;
                    Ok(Arc::new(clients))
                };
                self.clients.look(files.read_clients(), make, &self.metrics)
            });
            if let Some(clients) = clients {
                show_clients(clients, &self.metrics);
                tls.believe(clients.clone());
                let revoked = clients.revoked();
                tracing::info!(revoked, "other authorities, or other lists of revoked certificates, are in force");
            }
        }
    }
}

impl<T, C: PartialEq> Kept<T, C> {
    fn new(part: TlsPart, held: T, of: C) -> Self {
        Self { part, held, of, next: None, problem: None, told: false }
    }

    /// What is in force from now on, if that is something else than before. `make` looks into contents that are new, beside what
    /// is in force.
    fn look(
        &mut self,
        read: Result<C, ConfigErrors>,
        make: impl FnOnce(&C, &T) -> Result<T, ConfigErrors>,
        metrics: &Metrics,
    ) -> Option<&T> {
        let errors = match read {
            Ok(same) if same == self.of => {
                (self.next, self.problem, self.told) = (None, None, false);
                return None;
            }
            // A file that ends between two certificates is readable and not whole: what is to be believed stands for a while.
            Ok(other) if self.next.as_ref() != Some(&other) => {
                (self.next, self.problem, self.told) = (Some(other), None, false);
                return None;
            }
            // It was refused, and nothing has changed since.
            Ok(_) if self.told => return None,
            Ok(other) => match make(&other, &self.held) {
                Ok(made) => {
                    metrics.tls_reloaded(self.part, ReloadOutcome::Applied);
                    *self = Self::new(self.part, made, other);
                    return Some(&self.held);
                }
                Err(errors) => {
                    self.problem = Some(errors.to_string());
                    errors
                }
            },
            Err(errors) => {
                self.next = None;
                errors
            }
        };
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

/// Whether the service may show this certificate in the place of the one that it shows: one that has expired would close every
/// counter, however bad the other one is.
fn may_follow(own: &Identity, held: &Identity) -> Result<(), BadPem> {
    let now = SystemClock::real().now().since(Timestamp::EPOCH);
    let expired = |own: &Identity| own.good_until().is_some_and(|end| end < now);
    match expired(own) && !expired(held) {
        true => Err(BadPem { part: Part::Certificate, problem: "has expired, and the one in force has not".into() }),
        false => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{Authority, Subject};
    use crate::config::ConfigError;

    fn kept() -> Kept<u32, &'static str> {
        Kept::new(TlsPart::Own, 1, "one")
    }

    fn refusal() -> ConfigErrors {
        ConfigErrors(vec![ConfigError { place: "certificate".into(), problem: "is spoilt".into() }])
    }

    #[test]
    fn what_has_not_changed_is_not_looked_into() {
        let (mut kept, metrics) = (kept(), Metrics::none());
        let never = |_: &&str, _: &u32| -> Result<u32, ConfigErrors> { panic!("nothing is new") };
        assert_eq!(kept.look(Ok("one"), never, &metrics), None);
        assert_eq!(kept.look(Ok("two"), never, &metrics), None, "it may not be whole");
        assert_eq!(kept.look(Ok("two"), |_, held| Ok(held + 1), &metrics), Some(&2));
        assert_eq!(kept.look(Ok("two"), never, &metrics), None);
        // What was refused is looked into once.
        assert_eq!(kept.look(Ok("bad"), never, &metrics), None);
        assert_eq!(kept.look(Ok("bad"), |_, _| Err(refusal()), &metrics), None);
        assert!(kept.told && kept.held == 2);
        assert_eq!(kept.look(Ok("bad"), never, &metrics), None);
        // And anew when it has been something else.
        assert_eq!(kept.look(Ok("two"), never, &metrics), None);
        assert_eq!(kept.look(Ok("bad"), never, &metrics), None);
        assert_eq!(kept.look(Ok("bad"), |_, held| Ok(held + 1), &metrics), Some(&3));
    }

    #[test]
    fn an_expired_certificate_does_not_take_the_place_of_a_good_one() {
        let (authority, _) = Authority::new(SystemClock::real().now()).unwrap();
        let until = |year| {
            let mut params = Subject::Service(vec!["localhost".into()]).params().unwrap();
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let pem = authority.sign(&params).unwrap();
            Identity::from_pem(pem.certificate.as_bytes(), pem.key.as_bytes()).unwrap()
        };
        let (over, long_over, good) = (until(2024), until(2022), until(2060));
        assert!(may_follow(&over, &good).unwrap_err().problem.contains("has expired"));
        assert!(may_follow(&good, &over).is_ok() && may_follow(&good, &good).is_ok());
        assert!(may_follow(&over, &long_over).is_ok(), "nothing is lost");
    }
}
