//! Which certificates have been taken back: the lists (CRL, RFC 5280) that authorities publish.
//!
//! A list is believed once, when it is read: it must be signed by an authority that is believed, and every such authority must
//! have one. So a file that has lost a list, or holds one of somebody else, is refused as a whole, and nobody is let in or kept
//! out by mistake. A list that is older than it says it should be (nextUpdate) still counts: what it names stays revoked, and
//! an authority that is late does not close a nation's counters.

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use rustls::{CertificateError, Error};
use webpki::{BorrowedCertRevocationList, CertRevocationList, EndEntityCert, OwnedCertRevocationList};

use super::{BadPem, Part};

/// DER's tags of what is read here.
const SEQUENCE: u8 = 0x30;
/// See [`SEQUENCE`].
const BIT_STRING: u8 = 0x03;

/// The lists of all authorities that are believed.
pub(super) struct Revoked {
    lists: Vec<CertRevocationList<'static>>,
    count: usize,
}

/// A certificate that an authority has taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// Its serial number.
    pub serial: Vec<u8>,
    /// When, in seconds since 1970.
    pub at: u64,
}

impl Revoked {
    /// From one list or more for each of these authorities, and none of anybody else.
    pub(super) fn from_pem(pem: &[u8], authorities: &[TrustAnchor<'_>]) -> Result<Self, BadPem> {
        let told = |problem: String| BadPem::new(Part::Revoked, problem);
        let (mut lists, mut count, mut have_lists) = (Vec::new(), 0, vec![false; authorities.len()]);
        for (at, der) in ders(pem)?.into_iter().enumerate() {
            let at = at + 1;
            let unread =
                |error| told(format!("list {at} cannot be read (a CRL of version 2, whole and direct): {error}"));
            let list = OwnedCertRevocationList::from_der(&der).map_err(unread)?;
            let list = CertRevocationList::from(list);
            // A part of what an authority has taken back would pass for all of it.
            if list.issuing_distribution_point().is_some() {
                return Err(told(format!(
                    "list {at} says that it covers only a part of what its authority issues (issuing distribution point): give whole lists"
                )));
            }
            let mut signed = false;
            for (authority, has_list) in authorities.iter().zip(&mut have_lists) {
                // Two may have the same name: whose list it is, only the signature says.
                if authority.subject.as_ref() == list.issuer() && is_signed_by(&der, authority) {
                    (signed, *has_list) = (true, true);
                }
            }
            if !signed {
                return Err(told(format!("list {at} is not signed by an authority of tls.client_ca: remove it")));
            }
            count += entries(&der).map_err(unread)?.len();
            lists.push(list);
        }
        match have_lists.iter().position(|has_list| !has_list) {
            Some(at) => Err(told(format!(
                "has no list of certificate {} of tls.client_ca: every authority must have one, and an empty one will do",
                at + 1
            ))),
            None => Ok(Self { lists, count }),
        }
    }

    /// That the certificate is not on the lists of its authority, of which there must be one.
    pub(super) fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let unread = Error::InvalidCertificate(CertificateError::BadEncoding);
        let certificate = EndEntityCert::try_from(certificate).map_err(|_| unread.clone())?;
        let mut known = false;
        for list in self.lists.iter().filter(|list| list.issuer() == certificate.issuer()) {
            known = true;
            if list.find_serial(certificate.serial()).map_err(|_| unread.clone())?.is_some() {
                return Err(Error::InvalidCertificate(CertificateError::Revoked));
            }
        }
        if known { Ok(()) } else { Err(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)) }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// Everything on the lists of this text.
pub fn withdrawn(pem: &[u8]) -> Result<Vec<Withdrawn>, BadPem> {
    let read = ders(pem)?.iter().map(|der| entries(der)).collect::<Result<Vec<_>, _>>();
    read.map(|lists| lists.concat()).map_err(|error| BadPem::new(Part::Revoked, format!("cannot be read: {error}")))
}

fn ders(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, BadPem> {
    let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match read {
        Ok(read) if read.is_empty() => {
            Err(BadPem::new(Part::Revoked, "holds no list of revoked certificates in PEM (-----BEGIN X509 CRL-----)"))
        }
        Ok(read) => Ok(read),
        Err(_) => Err(BadPem::new(Part::Revoked, "is not PEM from end to end: copy it again")),
    }
}

fn entries(der: &[u8]) -> Result<Vec<Withdrawn>, webpki::Error> {
    let list = BorrowedCertRevocationList::from_der(der)?;
    let one = |entry: webpki::BorrowedRevokedCert<'_>| Withdrawn {
        serial: entry.serial_number.to_vec(),
        at: entry.revocation_date.as_secs(),
    };
    list.into_iter().map(|entry| entry.map(one)).collect()
}

/// Whether the authority has signed the list. webpki looks at that too, anew for every certificate that it verifies, and only then.
fn is_signed_by(list: &[u8], authority: &TrustAnchor<'_>) -> bool {
    let signed = || {
        let (whole, _) = value(SEQUENCE, list)?;
        let (_, rest) = value(SEQUENCE, whole)?;
        let message = whole.get(..whole.len() - rest.len())?;
        let (algorithm, rest) = value(SEQUENCE, rest)?;
        let (key_algorithm, key) = value(SEQUENCE, authority.subject_public_key_info.as_ref())?;
        let (signature, key) = (bits(rest)?, bits(key)?);
        let known = ring::default_provider().signature_verification_algorithms.all;
        let fits = known.iter().filter(|known| {
            known.signature_alg_id().as_ref() == algorithm && known.public_key_alg_id().as_ref() == key_algorithm
        });
        Some(fits.into_iter().any(|known| known.verify_signature(key, message, signature).is_ok()))
    };
    signed().unwrap_or(false)
}

/// Whole bytes of a bit string.
fn bits(der: &[u8]) -> Option<&[u8]> {
    value(BIT_STRING, der)?.0.strip_prefix(&[0])
}

/// The contents of the value that stands first, if it has this tag, and what comes after it.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;

    use super::super::Clients;
    use super::*;
    use crate::certs::{Authority, Pem, Subject};
    use crate::time::Timestamp;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00+09:00".parse().unwrap()
    }

    fn authority() -> (Authority, Pem) {
        Authority::new(now()).unwrap()
    }

    fn believed(ca: &str, lists: &str, shown: &Pem) -> Result<(), Error> {
        let clients = Clients::from_pem(ca.as_bytes(), Some(lists.as_bytes())).unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(shown.certificate.as_bytes()).map(Result::unwrap).collect();
        clients.believe(&chain[0], &[], UnixTime::since_unix_epoch(now().since(Timestamp::EPOCH))).map(|_| ())
    }

    #[test]
    fn what_is_on_the_list_of_its_authority_is_believed_no_more() {
        let (authority, ca) = authority();
        let site = Subject::Site("11000001".parse().unwrap());
        let (kept, lost) = (authority.issue(&site).unwrap(), authority.issue(&site).unwrap());
        let none = authority.revoked(&[]).unwrap();
        let one = authority.revoked(&[authority.withdraw(lost.certificate.as_bytes()).unwrap()]).unwrap();
        assert!(believed(&ca.certificate, &none, &kept).is_ok() && believed(&ca.certificate, &none, &lost).is_ok());
        assert!(believed(&ca.certificate, &one, &kept).is_ok());
        let revoked = Error::InvalidCertificate(CertificateError::Revoked);
        assert_eq!(believed(&ca.certificate, &one, &lost), Err(revoked.clone()));
        // Of several lists of one authority each counts.
        assert_eq!(believed(&ca.certificate, &(one.clone() + &none), &lost), Err(revoked));
        assert_eq!(withdrawn(one.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn a_list_that_is_missing_broken_or_somebody_elses_is_refused_as_a_whole() {
        let ((authority, ca), (another, other_ca)) = (self::authority(), self::authority());
        let (own, others) = (authority.revoked(&[]).unwrap(), another.revoked(&[]).unwrap());
        let both = ca.certificate.clone() + &other_ca.certificate;
        let refused = |ca: &str, lists: &str| {
            let bad = Clients::from_pem(ca.as_bytes(), Some(lists.as_bytes())).unwrap_err();
            assert_eq!(bad.part, Part::Revoked);
            bad.problem
        };
        assert!(Clients::from_pem(both.as_bytes(), Some((own.clone() + &others).as_bytes())).is_ok());
        // Both authorities have the same name.
        assert!(refused(&ca.certificate, &others).contains("list 1 is not signed by an authority"));
        assert!(refused(&both, &own).contains("no list of certificate 2 of tls.client_ca"));
        assert!(refused(&ca.certificate, "").contains("holds no list"));
        assert!(refused(&ca.certificate, &ca.certificate).contains("holds no list"));
        assert!(refused(&ca.certificate, &own[..own.len() / 2]).contains("not PEM from end to end"));
        let inside = own.lines().nth(2).unwrap();
        let other: String = inside.chars().rev().collect();
        let broken = refused(&ca.certificate, &own.replace(inside, &other));
        assert!(broken.contains("list 1"), "{broken}");
        let mut third = rcgen::CertificateParams::default();
        third.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let third = third.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let missing = refused(&(ca.certificate + &third), &own);
        assert!(missing.contains("no list of certificate 2 of tls.client_ca"), "{missing}");
    }
}
