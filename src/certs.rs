//! Certificates for development: an authority, and what it issues to the service, to sites and their terminals, to gateways
//! and to operators. Pure but for the randomness of keys: PEM comes out.
//!
//! Production has an authority of its own. What its certificates must say stands in [`Subject::name`].
//!
//! Knows nothing about files.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use zeroize::Zeroizing;

use crate::ids::{FeedId, GatewayId, OperatorId, SiteId, TerminalId};
use crate::time::Timestamp;
use crate::tls::{BadPem, Identity, Withdrawn, serial};

/// What the authority calls itself. It is never read from its certificate, so it is never changed.
const AUTHORITY: &str = "rationd development authority";
/// How long everything is good: two years.
const GOOD_FOR: Duration = Duration::from_secs(2 * 365 * 86_400);
/// Good from a day earlier on, for machines whose clocks are behind.
const EARLIER: Duration = Duration::from_secs(86_400);

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The service, by these host names and addresses.
    Service(Vec<String>),
    /// A site, whichever of its terminals calls.
    Site(SiteId),
    /// One terminal of a site.
    Terminal(SiteId, TerminalId),
    /// Whoever speaks for the sites that the registry gives to it.
    Gateway(GatewayId),
    /// Whoever runs the service.
    Operator(OperatorId),
    /// Whoever takes the stock of all sites to the public.
    Feed(FeedId),
}

/// A certificate and its private key.
#[derive(Debug)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: Zeroizing<String>,
}

/// Who issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    now: Timestamp,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// Two files are not those of an authority.
    #[error("the authority's {} {}", .0.part, .0.problem)]
    Authority(BadPem),
    /// What was given is no certificate.
    #[error("the certificate {}", .0.problem)]
    Certificate(BadPem),
    /// The list of revoked certificates cannot be read.
    #[error("the list {}", .0.problem)]
    List(BadPem),
    /// The name of a host cannot stand in a certificate, or no key can be made.
    #[error("no certificate can be made: {0}")]
    Made(#[from] rcgen::Error),
}

impl Subject {
    /// The URI name that the service knows a caller by; `None` for the service itself.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Service(_) => None,
            Self::Site(site) => Some(format!("rationd://site/{site}")),
            Self::Terminal(site, terminal) => Some(format!("rationd://site/{site}/{terminal}")),
            Self::Gateway(name) => Some(format!("rationd://gateway/{name}")),
            Self::Operator(name) => Some(format!("rationd://operator/{name}")),
            Self::Feed(name) => Some(format!("rationd://feed/{name}")),
        }
    }

    /// What a certificate for it says.
    pub fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let hosts = if let Self::Service(hosts) = self { hosts.clone() } else { Vec::new() };
        let mut params = CertificateParams::new(hosts)?;
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        let (called, usage) = match self.name() {
            Some(name) => {
                params.subject_alt_names.push(SanType::URI(name.as_str().try_into()?));
                (name, ExtendedKeyUsagePurpose::ClientAuth)
            }
            None => ("rationd".to_owned(), ExtendedKeyUsagePurpose::ServerAuth),
        };
        params.extended_key_usages.push(usage);
        params.distinguished_name.push(DnType::CommonName, called);
        Ok(params)
    }
}

impl Authority {
    /// A new one, good from about now on, and the PEM to find it again by.
    pub fn new(now: Timestamp) -> Result<(Self, Pem), CertError> {
        let key = KeyPair::generate()?;
        let mut params = params();
        good_from(&mut params, now);
        let pem = Pem { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem().into() };
        Ok((Self { issuer: Issuer::new(params, key), now }, pem))
    }

    /// The one that [`Authority::new`] gave this PEM for.
    pub fn from_pem(certificate: &str, key: &str, now: Timestamp) -> Result<Self, CertError> {
        let checked = Identity::from_pem(certificate.as_bytes(), key.as_bytes());
        if let Some(bad) = checked.err().and_then(|bad| bad.into_iter().next()) {
            return Err(CertError::Authority(bad));
        }
        Ok(Self { issuer: Issuer::new(params(), KeyPair::from_pem(key)?), now })
    }

    /// A certificate for this subject, good from about now on.
    pub fn issue(&self, subject: &Subject) -> Result<Pem, CertError> {
        let mut params = subject.params()?;
        good_from(&mut params, self.now);
        self.sign(&params)
    }

    /// A certificate that says just this, with a new key.
    pub fn sign(&self, params: &CertificateParams) -> Result<Pem, CertError> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pem { certificate: certificate.pem(), key: key.serialize_pem().into() })
    }

    /// What it signs with.
    #[cfg(test)]
    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A certificate of its own, taken back now.
    pub fn withdraw(&self, certificate: &[u8]) -> Result<Withdrawn, CertError> {
        let serial = serial(certificate).map_err(CertError::Certificate)?;
        Ok(Withdrawn { serial, at: self.now.since(Timestamp::EPOCH).as_secs() })
    }

    /// Its list of the certificates that it has taken back, in PEM.
    pub fn revoked(&self, withdrawn: &[Withdrawn]) -> Result<String, CertError> {
        let instant = |at: Timestamp| date_time_ymd(1970, 1, 1) + at.since(Timestamp::EPOCH);
        let revoked = |one: &Withdrawn| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&one.serial),
            revocation_time: instant(Timestamp::EPOCH.plus(Duration::from_secs(one.at))),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: instant(self.now),
            next_update: instant(self.good_until()),
            crl_number: SerialNumber::from(self.now.since(Timestamp::EPOCH).as_secs()),
            issuing_distribution_point: None,
            revoked_certs: withdrawn.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }

    /// Until when what it issues is good.
    pub fn good_until(&self) -> Timestamp {
        self.now.plus(GOOD_FOR)
    }
}

/// What an authority says of itself.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    // A default is not what a certificate for others should say.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn good_from(params: &mut CertificateParams, now: Timestamp) {
    let instant = |at: Timestamp| date_time_ymd(1970, 1, 1) + at.since(Timestamp::EPOCH);
    params.not_before = instant(now.minus(EARLIER));
    params.not_after = instant(now.plus(GOOD_FOR));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Authorities;

    #[test]
    fn an_authority_is_found_again_by_its_pem() {
        let now: Timestamp = "2026-11-22T10:00:00+09:00".parse().unwrap();
        let (_, pem) = Authority::new(now).unwrap();
        assert!(Authorities::from_pem(pem.certificate.as_bytes()).is_ok());
        let again = Authority::from_pem(&pem.certificate, &pem.key, now).unwrap();
        let site = again.issue(&Subject::Site("11000001".parse().unwrap())).unwrap();
        assert!(Identity::from_pem(site.certificate.as_bytes(), site.key.as_bytes()).is_ok());
        assert_eq!(again.good_until().to_string(), "2028-11-21T01:00:00.000Z");
        let (_, other) = Authority::new(now).unwrap();
        let mixed = Authority::from_pem(&pem.certificate, &other.key, now).err().unwrap().to_string();
        assert!(mixed.starts_with("the authority's key does not belong"), "{mixed}");
    }
}
