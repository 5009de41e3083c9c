//! Whose certificates are believed.

use std::fmt;
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};

use super::revoked::Revoked;
use super::{Authorities, BadPem, Part};

/// The callers who are believed: those with a certificate of these authorities, which is good now and not on their lists.
pub struct Clients {
    chains: Arc<dyn ClientCertVerifier>,
    /// `None`: nothing that an authority has issued is taken back.
    revoked: Option<Revoked>,
    /// What the authorities were read from.
    authorities: Vec<u8>,
}

impl Clients {
    /// From the certificates of the authorities and, where certificates may be taken back, a list of every one of them.
    pub fn from_pem(authorities: &[u8], revoked: Option<&[u8]>) -> Result<Self, BadPem> {
        let Authorities(roots) = Authorities::from_pem(authorities)?;
        let lists = revoked.map(|pem| Revoked::from_pem(pem, &roots.roots)).transpose()?;
        let provider = Arc::new(ring::default_provider());
        let chains = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| BadPem { part: Part::Authorities, problem: format!("cannot be used: {error}") })?;
        Ok(Self { chains, revoked: lists, authorities: authorities.to_vec() })
    }

    /// Whether these may take the place of those that were believed before: a list may not give way to an older one of the same
    /// authority, or who was taken back in between would be believed again.
    pub fn may_follow(&self, before: &Self) -> Result<(), BadPem> {
        match (&self.revoked, &before.revoked) {
            (Some(lists), Some(before)) => lists.may_follow(before),
            _ => Ok(()),
        }
    }

    /// Whether a certificate is believed at this time, with those that were shown between it and its authority.
    pub(crate) fn believe(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        at: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // A list is its issuer's, so where there are lists the issuer itself is the authority and nobody in between.
        let intermediates = if self.revoked.is_some() { &[] } else { intermediates };
        let verified = self.chains.verify_client_cert(own, intermediates, at)?;
        self.revoked.as_ref().map_or(Ok(()), |revoked| revoked.check(own))?;
        Ok(verified)
    }

    /// Whether a certificate that was believed along with `before` still is. Where the authorities are the same, nothing but the
    /// lists can have changed that, and signatures are not verified anew; its end is for whoever looks at the clock.
    pub(crate) fn still_believe(
        &self,
        before: &Self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        at: UnixTime,
    ) -> Result<(), Error> {
        if self.authorities != before.authorities || self.revoked.is_some() != before.revoked.is_some() {
            return self.believe(own, intermediates, at).map(|_| ());
        }
        self.revoked.as_ref().map_or(Ok(()), |revoked| revoked.check(own))
    }

    /// What else there is to verify in a greeting: all of it but the certificate itself.
    pub(crate) fn greeting(&self) -> &dyn ClientCertVerifier {
        &*self.chains
    }

    /// How many certificates have been taken back; `None` where none can be.
    pub fn revoked(&self) -> Option<usize> {
        self.revoked.as_ref().map(Revoked::count)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("revoked", &self.revoked()).finish_non_exhaustive()
    }
}
