//! A connection to the service, by itself: several terminals may share one.

use std::error::Error;

use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{CALL_TIMEOUT, CONNECT_TIMEOUT};

/// How the transport tells that the service does not accept a certificate.
const REFUSED: &str = "received fatal alert";
/// How often a service that ends connections is asked why.
const ASKED_AT_MOST: u32 = 4;

/// The service cannot be reached at all: nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be reached: {why}; {}", advice(why))]
pub struct Unreachable {
    address: String,
    why: String,
}

fn advice(why: &str) -> &'static str {
    if why.contains(REFUSED) {
        "the service does not accept the certificate that was shown: it must be of the service's authority (tls.client_ca), for \
         clients, and not expired"
    } else if why.contains("invalid peer certificate") {
        "the service's own certificate is not believed: name its authority, and call it by a name that stands in it"
    } else {
        "is the service running, and is this where it listens, with https:// where it has certificates and http:// where not?"
    }
}

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
}

impl Connection {
    /// Connects to `address` (`http://127.0.0.1:7420`, or `https://…` with TLS).
    pub async fn open(address: &str, tls: Option<&Tls>) -> Result<Self, Unreachable> {
        let unreachable = |error: &dyn Error| Unreachable { address: address.to_string(), why: root_cause(error) };
        let endpoint = Endpoint::from_shared(address.to_string()).map_err(|e| unreachable(&e))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT).tcp_nodelay(true);
        let endpoint = match tls {
            Some(tls) => endpoint.tls_config(tls.config()).map_err(|e| unreachable(&e))?,
            None => endpoint,
        };
        let channel = endpoint.connect().await.map_err(|e| unreachable(&e))?;
        if tls.is_some() {
            accepted(&channel).await.map_err(|broken| unreachable(&*broken))?;
        }
        Ok(Self { channel })
    }

    /// What generated clients call over.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// Over TLS 1.3 a certificate is refused only after it has been taken for accepted here. So something is asked at once, for which
/// any answer will do; or the first sale would be left without one.
async fn accepted(channel: &Channel) -> Result<(), Box<Status>> {
    let mut asked = 0;
    loop {
        let answer = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
        match answer.map_err(Box::new) {
            Err(broken) if broken.source().is_some() => {
                asked += 1;
                // A refusal that comes before the question ends the connection and is not told; the next one is.
                if asked == ASKED_AT_MOST || root_cause(&*broken).contains(REFUSED) {
                    return Err(broken);
                }
            }
            _ => return Ok(()),
        }
    }
}

/// The transport's own message hides why it could not connect.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
