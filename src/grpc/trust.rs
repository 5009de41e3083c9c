//! What the service shows and whom it believes, as its files say it now, and what becomes of connections when they change.
//!
//! Its own certificate is shown to whoever connects from now on; connections that stand go on. Whom it believes holds for all: a
//! certificate that has expired, was revoked, or whose authority is gone ends the connection that began with it.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::sync::watch;
use tokio::time::sleep;

use super::connections::chance;
use crate::museum::Mutant;
use crate::telemetry::metrics::{Metrics, RefusedWhen, RefusedWhy};
use crate::tls::{Clients, Identity, good_until};

/// Within this time every connection that stands is looked at again after whom to believe has changed, each at a moment of its
/// own: one look costs about as much as a greeting, and nobody who sells should notice the looks at all the others.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(3);
/// The machine's clock may be set: how far away the end of a certificate is, is asked again so often.
const CLOCK_ASKED_EVERY: Duration = Duration::from_secs(60);

/// How the service speaks TLS. Clones share it.
#[derive(Clone)]
pub struct Tls {
    now: watch::Sender<Arc<Spoken>>,
    metrics: Arc<Metrics>,
}

/// How it speaks at one time.
struct Spoken {
    own: Identity,
    clients: Arc<Clients>,
    /// With those who show a certificate.
    counters: Arc<ServerConfig>,
    /// With everybody.
    admin: Arc<ServerConfig>,
}

impl Spoken {
    fn new(own: Identity, clients: Arc<Clients>) -> Arc<Self> {
        let [counters, admin] = [true, false].map(|required| config(&own, &clients, required));
        Arc::new(Self { own, clients, counters, admin })
    }
}

impl Tls {
    /// Shows its own certificate, and takes these clients at their word.
    pub fn new(own: Identity, clients: Arc<Clients>, metrics: Arc<Metrics>) -> Self {
        Self { now: watch::Sender::new(Spoken::new(own, clients)), metrics }
    }

    /// Shows another certificate from now on.
    pub fn show(&self, own: Identity) {
        self.now.send_modify(|now| *now = Spoken::new(own, now.clients.clone()));
    }

    /// Believes others from now on. Every connection that stands is looked at again.
    pub fn believe(&self, clients: Arc<Clients>) {
        self.now.send_modify(|now| *now = Spoken::new(now.own.clone(), clients));
    }

    /// How a connection is greeted now, with a certificate or whether or not there is one, and who is believed in that.
    pub(super) fn spoken(&self, with_certificate: bool) -> (Arc<ServerConfig>, Arc<Clients>) {
        let now = self.now.borrow();
        let config = if with_certificate { &now.counters } else { &now.admin };
        (config.clone(), now.clients.clone())
    }

    /// What is counted.
    pub(super) fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Counts a certificate that was not believed.
    pub(super) fn refuses(&self, error: &Error, when: RefusedWhen) {
        let why = match error {
            Error::NoCertificatesPresented => RefusedWhy::None,
            Error::InvalidCertificate(CertificateError::Revoked) => RefusedWhy::Revoked,
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                RefusedWhy::Expired
            }
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => RefusedWhy::UnknownAuthority,
            Error::InvalidCertificate(_) => RefusedWhy::Other,
            _ => return,
        };
        self.metrics.certificate_refused(why, when);
    }
}

/// The certificate that was shown when a connection began, and who was believed then.
pub(super) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    believed: Arc<Clients>,
    tls: Tls,
}

impl Shown {
    pub(super) fn new(chain: Vec<CertificateDer<'static>>, believed: Arc<Clients>, tls: Tls) -> Self {
        Self { chain, believed, tls }
    }

    /// Waits until it is believed no more, and says why.
    pub(super) async fn disbelieved(mut self) -> Error {
        if Mutant::StandingNotLookedAt.is_on() {
            return std::future::pending().await;
        }
        let mut now = self.tls.now.subscribe();
        let good_until = self.chain.first().and_then(good_until);
        loop {
            let clients = now.borrow_and_update().clients.clone();
            let others = !Arc::ptr_eq(&clients, &self.believed);
            if others {
                sleep(LOOKED_AT_WITHIN.mul_f64(chance())).await;
            }
            if let Some((own, intermediates)) = self.chain.split_first() {
                let at = UnixTime::now();
                let believed = match is_over(good_until) {
                    true => clients.believe(own, intermediates, at).map(|_| ()),
                    false if others => clients.still_believe(&self.believed, own, intermediates, at),
                    false => Ok(()),
                };
                if let Err(error) = believed {
                    self.tls.refuses(&error, RefusedWhen::Standing);
                    return error;
                }
            }
            self.believed = clients;
            tokio::select! {
                _ = now.changed() => {}
                () = sleep(next_look(good_until)) => {}
            }
        }
    }
}

/// Whether this second since 1970 is over.
fn is_over(second: Option<Duration>) -> bool {
    second.is_some_and(|second| UnixTime::now().as_secs() > second.as_secs())
}

/// When to look at the clock again, for somebody who waits for the end of this second since 1970.
fn next_look(second: Option<Duration>) -> Duration {
    let left = second.map(|second| (second.as_secs() + 1).saturating_sub(UnixTime::now().as_secs()).max(1));
    left.map_or(CLOCK_ASKED_EVERY, |left| Duration::from_secs(left).min(CLOCK_ASKED_EVERY))
}

#[expect(clippy::expect_used, reason = "ring speaks the versions that rustls takes by default")]
fn config(own: &Identity, clients: &Arc<Clients>, required: bool) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(Arc::new(Asked { clients: clients.clone(), required }))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.0.clone())));
    config.alpn_protocols.push(b"h2".to_vec());
    if !required {
        // Scrapes.
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    // Nothing is resumed: every connection shows its certificate, which has to be good on that day. It would save a part of a
    // greeting, and only for who comes back to the same instance; in a storm they come to others.
    if !Mutant::SessionsResumed.is_on() {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Arc::new(config)
}

/// What is asked of a client: a certificate, or one if it has one.
#[derive(Debug)]
struct Asked {
    clients: Arc<Clients>,
    required: bool,
}

impl ClientCertVerifier for Asked {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.greeting().root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.clients.believe(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.greeting().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.greeting().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.greeting().supported_verify_schemes()
    }
}
