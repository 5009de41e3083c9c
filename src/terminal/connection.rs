//! A connection to the service, by itself: several terminals may share one.

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{CALL_TIMEOUT, CONNECT_TIMEOUT, Unreachable, root_cause};

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
        let unreachable = |why: String| Unreachable { address: address.to_string(), why };
        let endpoint = Endpoint::from_shared(address.to_string()).map_err(|e| unreachable(e.to_string()))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT).tcp_nodelay(true);
        let endpoint = match tls {
            Some(tls) => endpoint.tls_config(tls.config()).map_err(|e| unreachable(root_cause(&e)))?,
            None => endpoint,
        };
        let channel = endpoint.connect().await.map_err(|e| unreachable(root_cause(&e)))?;
        Ok(Self { channel })
    }

    /// What generated clients call over.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}
