//! Certificates and keys from the PEM texts of files, for the service and for its clients: checked as far as that can be done
//! without a peer. Pure: text goes in.
//!
//! Knows nothing about files, and nothing about who calls whom.

mod clients;
mod revoked;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

pub use clients::Clients;
pub use revoked::{Withdrawn, withdrawn};

/// A certificate with its chain, and the private key that belongs to it.
#[derive(Debug, Clone)]
pub struct Identity(pub(crate) Arc<CertifiedKey>);

/// The authorities whose certificates are believed; at least one.
#[derive(Debug, Clone)]
pub struct Authorities(pub(crate) Arc<RootCertStore>);

/// Which of the texts cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate and its chain.
    Certificate,
    /// The private key.
    Key,
    /// The certificates of authorities.
    Authorities,
    /// The authorities' lists of certificates that they have revoked.
    Revoked,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Authorities => "authorities",
            Self::Revoked => "lists of revoked certificates",
        })
    }
}

/// A text that cannot be used, and what would be right. Never a part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct BadPem {
    /// Which one.
    pub part: Part,
    /// What is wrong with it.
    pub problem: String,
}

impl BadPem {
    fn new(part: Part, problem: impl Into<String>) -> Self {
        Self { part, problem: problem.into() }
    }
}

impl Identity {
    /// From the certificate with its chain, and the key. Tells what is wrong with both at once.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Vec<BadPem>> {
        let chain = certificates(certificate, Part::Certificate);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            Error::NoItemsFound => BadPem::new(Part::Key, "holds no private key in PEM (-----BEGIN PRIVATE KEY-----)"),
            // What the parser says may repeat a part of the text.
            _ => BadPem::new(Part::Key, "is not PEM from end to end: make it anew, or copy it again"),
        });
        let (chain, key) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let wrong = |error| match error {
            rustls::Error::InconsistentKeys(_) => {
                BadPem::new(Part::Key, "does not belong to the certificate: name the key that was made with it")
            }
            rustls::Error::InvalidCertificate(_) => BadPem::new(Part::Certificate, format!("cannot be used: {error}")),
            error => BadPem::new(Part::Key, format!("cannot be used: {error}")),
        };
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
        Ok(Self(Arc::new(certified.map_err(|error| vec![wrong(error)])?)))
    }

    /// The last second in which its certificate is good, since 1970.
    pub fn good_until(&self) -> Option<Duration> {
        self.0.cert.first().and_then(good_until)
    }
}

/// A certificate has one key: who shows the same chain is the same.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

/// The last second in which a certificate is good, since 1970; `None` if it cannot be read.
pub fn good_until(certificate: &CertificateDer<'_>) -> Option<Duration> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    // Asked at the end of time, it says so before anything else is looked at.
    let end = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    match certificate.verify_for_usage(&[], &[], &[], end, KeyUsage::client_auth(), None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(Duration::from_secs(not_after.as_secs())),
        _ => None,
    }
}

impl Authorities {
    /// From one certificate or more.
    pub fn from_pem(certificates_of: &[u8]) -> Result<Self, BadPem> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(certificates_of, Part::Authorities)? {
            roots.add(certificate).map_err(|error| {
                BadPem::new(Part::Authorities, format!("holds no certificate of an authority: {error}"))
            })?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// The serial number of the first certificate.
pub fn serial(certificate: &[u8]) -> Result<Vec<u8>, BadPem> {
    let read = certificates(certificate, Part::Certificate)?;
    let first = read.first().and_then(|der| EndEntityCert::try_from(der).ok().map(|read| read.serial().to_vec()));
    first.ok_or_else(|| BadPem::new(Part::Certificate, "cannot be read"))
}

fn certificates(pem: &[u8], part: Part) -> Result<Vec<CertificateDer<'static>>, BadPem> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(read) if read.is_empty() => {
            Err(BadPem::new(part, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"))
        }
        Ok(read) => Ok(read),
        Err(_) => Err(BadPem::new(part, "is not PEM from end to end: copy it again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn wrong(certificate: &str, key: &str) -> Vec<(Part, String)> {
        let bad = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err();
        bad.into_iter().map(|bad| (bad.part, bad.problem)).collect()
    }

    #[test]
    fn what_cannot_be_used_is_told_for_each_text_and_never_repeats_a_key() {
        let ((certificate, key), (_, of_another)) = (made(), made());
        assert!(Identity::from_pem(certificate.as_bytes(), key.as_bytes()).is_ok());
        assert!(Authorities::from_pem(certificate.as_bytes()).is_ok());
        let parts = |found: &[(Part, String)]| found.iter().map(|(part, _)| *part).collect::<Vec<_>>();
        assert_eq!(parts(&wrong("", "")), [Part::Certificate, Part::Key]);
        assert_eq!(parts(&wrong(&key, &certificate)), [Part::Certificate, Part::Key]);
        assert_eq!(parts(&wrong(&certificate, &key[..key.len() / 2])), [Part::Key]);
        let [(part, problem)] = &wrong(&certificate, &of_another)[..] else { panic!("one") };
        assert!(*part == Part::Key && problem.contains("does not belong"), "{problem}");
        let inside = key.lines().nth(1).unwrap();
        let broken = wrong(&certificate, &key.replace(inside, &format!("*{inside}")));
        assert!(parts(&broken) == [Part::Key] && !broken[0].1.contains(inside), "{broken:?}");
        assert_eq!(Authorities::from_pem(key.as_bytes()).unwrap_err().part, Part::Authorities);
    }

    #[test]
    fn a_certificate_says_until_when_it_is_good() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2028, 11, 21);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let identity = Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert_eq!(identity.good_until(), Some(Duration::from_secs(1_858_377_600)));
        assert_eq!(good_until(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
