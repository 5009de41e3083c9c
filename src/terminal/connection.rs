//! A connection to the service, by itself: several terminals may share one.

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::TimeoutExpired;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::retry::Budget;
use super::{CALL_TIMEOUT, CONNECT_TIMEOUT};

/// A service that has said nothing for so long is asked whether it is there.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// And is taken for gone when it has not said so within this time: both together are less than a call may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);

/// The service cannot be reached at all: nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be reached: {why}; {advice}")]
pub struct Unreachable {
    address: String,
    why: String,
    advice: &'static str,
    /// What it is, which decides what is to be done.
    pub(super) what: Unreached,
}

/// Why the service cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreached {
    /// Nobody answers, and somebody may in a moment.
    NoAnswer,
    /// It has said that it does not accept the certificate that was shown.
    NotAccepted,
    /// It has hung up after the handshake without a word: likely for the certificate, but it may also have ended just then.
    HungUp,
    /// Whoever answers does not speak as the service does or is not believed, or the address is none.
    Otherwise,
}

impl Unreachable {
    /// Whether it may be otherwise in a moment; if not, somebody must look at the address or the certificates.
    pub fn may_pass(&self) -> bool {
        matches!(self.what, Unreached::NoAnswer | Unreached::HungUp)
    }
}

/// What the handshake says of a service's certificate that is not believed.
const NOT_BELIEVED: &str = "invalid peer certificate";

/// What to look for where nobody answers, or nobody who is believed.
fn advice(why: &str) -> &'static str {
    if why.contains(NOT_BELIEVED) {
        "the service's own certificate is not believed: name its authority, and call it by a name that stands in it"
    } else {
        "is the service running, and is this where it listens, with https:// where it has certificates and http:// where not?"
    }
}

/// What to look for where the service has ended the connection after the handshake. It does not always get round to saying why.
const NOT_ACCEPTED: &str = "the service does not accept the certificate that was shown: it must be of the service's authority \
                            (tls.client_ca), for clients, and not expired; the service's log says what is wrong with it";

/// How it says why where it does.
const TOLD_WHY: &str = "fatal alert";

/// Whom to trust and who to be on an `https://` address. All of it is PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Certificates of the authorities that the service's own may come from.
    pub authorities: Vec<u8>,
    /// The caller's certificate and private key, where the service asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    fn config(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authorities));
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

/// A connection to the service. Clones share it; a broken one is made anew with the next call.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
    repeats: Arc<Repeats>,
}

/// What all that call over a connection may repeat together.
pub(super) struct Repeats {
    since: Instant,
    budget: Mutex<Budget>,
}

impl Repeats {
    fn new() -> Arc<Self> {
        Arc::new(Self { since: Instant::now(), budget: Mutex::default() })
    }

    /// A call is made for the first time.
    pub(super) fn call(&self) {
        self.lock().call(self.since.elapsed());
    }

    /// Whether a call may be made again, which is then spent.
    pub(super) fn repeat(&self) -> bool {
        self.lock().repeat(self.since.elapsed())
    }

    /// The budget is whole whenever the lock is free.
    fn lock(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Connects to `address` (`http://127.0.0.1:7420`, or `https://…` with TLS).
    pub async fn open(address: &str, tls: Option<&Tls>) -> Result<Self, Unreachable> {
        let unreachable = |error: &dyn Error| unreachable(address, error);
        let channel = endpoint(address, tls)?.connect().await.map_err(|e| {
            let what = if speaks_otherwise(&e) { Unreached::Otherwise } else { Unreached::NoAnswer };
            Unreachable { what, ..unreachable(&e) }
        })?;
        // Over TLS 1.3 a certificate is refused only after it has been taken for accepted here. So something is asked at once,
        // for which any answer will do; or the first sale would be left without one.
        if tls.is_some()
            && let Err(status) = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await
            && let Some(broken) = status.source()
        {
            let unreachable = unreachable(broken);
            return Err(if broken.is::<TimeoutExpired>() {
                Unreachable { what: Unreached::NoAnswer, ..unreachable }
            } else {
                let is_told = unreachable.why.contains(TOLD_WHY);
                let what = if is_told { Unreached::NotAccepted } else { Unreached::HungUp };
                Unreachable { advice: NOT_ACCEPTED, what, ..unreachable }
            });
        }
        Ok(Self { channel, repeats: Repeats::new() })
    }

    /// To `address`, with the first call that is made over it: for whoever begins while the service is away.
    pub fn lazy(address: &str, tls: Option<&Tls>) -> Result<Self, Unreachable> {
        Ok(Self { channel: endpoint(address, tls)?.connect_lazy(), repeats: Repeats::new() })
    }

    /// What generated clients call over.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn repeats(&self) -> Arc<Repeats> {
        self.repeats.clone()
    }
}

fn endpoint(address: &str, tls: Option<&Tls>) -> Result<Endpoint, Unreachable> {
    let endpoint = Endpoint::from_shared(address.to_string()).map_err(|e| unreachable(address, &e))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT).tcp_nodelay(true);
    // A connection of which the other side knows no more says nothing for ever, and every call on it would have to run out.
    let endpoint =
        endpoint.http2_keep_alive_interval(ASKED_EVERY).keep_alive_timeout(ANSWERS_WITHIN).keep_alive_while_idle(true);
    match tls {
        Some(tls) => endpoint.tls_config(tls.config()).map_err(|e| unreachable(address, &e)),
        None => Ok(endpoint),
    }
}

fn unreachable(address: &str, error: &dyn Error) -> Unreachable {
    let why = root_cause(error);
    Unreachable { address: address.to_string(), advice: advice(&why), why, what: Unreached::Otherwise }
}

/// Whether somebody has answered, and what came is not what the service says: a certificate that is not believed, or no TLS at all.
fn speaks_otherwise(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The transport's own message hides why it could not connect.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
