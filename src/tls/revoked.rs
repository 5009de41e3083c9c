//! Which certificates have been taken back: the lists (CRL, RFC 5280) that authorities publish.
//!
//! A list is believed once, when it is read: it must be signed by an authority that is believed, and every such authority must
//! have one. So a file that has lost a list, or holds one of somebody else, is refused as a whole, and nobody is let in or kept
//! out by mistake. A list of lower number, or with the same number and an older date, than one that was believed before is refused
//! too: it is genuine, and whoever puts it back brings back what was revoked since. A list that is older than it says it should be
//! (nextUpdate) still counts: what it names stays revoked, and an authority that is late does not close a nation's counters.

use std::fmt;

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
/// See [`SEQUENCE`].
const INTEGER: u8 = 0x02;
/// See [`SEQUENCE`].
const OCTET_STRING: u8 = 0x04;
/// See [`SEQUENCE`]. A year of two digits.
const UTC_TIME: u8 = 0x17;
/// See [`SEQUENCE`].
const GENERALIZED_TIME: u8 = 0x18;
/// See [`SEQUENCE`]. What stands last in a list.
const EXTENSIONS: u8 = 0xa0;
/// How the extension begins that holds a list's number.
const CRL_NUMBER: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x14];

/// The lists of all authorities that are believed.
pub(super) struct Revoked {
    lists: Vec<CertRevocationList<'static>>,
    count: usize,
    /// The key of each authority, and its newest list.
    newest: Vec<(Vec<u8>, Age)>,
}

/// Which of two lists of one authority is the newer one: the one of higher number, or of later date.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    /// How long the number is, without zeros in front.
    digits: usize,
    number: Vec<u8>,
    /// `YYYYMMDDhhmmss`.
    this_update: Vec<u8>,
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number: String = self.number.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(f, "number 0x{number} of {}", String::from_utf8_lossy(&self.this_update))
    }
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
        let (mut lists, mut count, mut newest) = (Vec::new(), 0, vec![None; authorities.len()]);
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
            let age = age(&der).ok_or_else(|| told(format!("list {at} has no date that can be read")))?;
            for (authority, newest) in authorities.iter().zip(&mut newest) {
                // Two may have the same name: whose list it is, only the signature says.
                if authority.subject.as_ref() == list.issuer() && is_signed_by(&der, authority) {
                    signed = true;
                    *newest = newest.take().max(Some(age.clone()));
                }
            }
            if !signed {
                return Err(told(format!("list {at} is not signed by an authority of tls.client_ca: remove it")));
            }
            count += entries(&der).map_err(unread)?.len();
            lists.push(list);
        }
        match newest.iter().position(Option::is_none) {
            Some(at) => Err(told(format!(
                "has no list of certificate {} of tls.client_ca: every authority must have one, and an empty one will do",
                at + 1
            ))),
            None => {
                let keys = authorities.iter().map(|authority| authority.subject_public_key_info.to_vec());
                Ok(Self { lists, count, newest: keys.zip(newest.into_iter().flatten()).collect() })
            }
        }
    }

    /// That no authority's newest list is older than the one before.
    pub(super) fn may_follow(&self, before: &Self) -> Result<(), BadPem> {
        for (key, age) in &self.newest {
            if let Some((_, newer)) = before.newest.iter().find(|(known, newer)| known == key && newer > age) {
                let problem = format!(
                    "holds an older list than the one in force ({age}, and in force is {newer}): what was revoked since would be \
                     believed again; put the newest list there"
                );
                return Err(BadPem::new(Part::Revoked, problem));
            }
        }
        Ok(())
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

/// Which list this is. `None`: it has no date.
fn age(list: &[u8]) -> Option<Age> {
    let (whole, _) = value(SEQUENCE, list)?;
    let (told, _) = value(SEQUENCE, whole)?;
    // The version may be left out, by those of the first, which are not read here anyway.
    let told = value(INTEGER, told).map_or(told, |(_, rest)| rest);
    let (_algorithm, rest) = value(SEQUENCE, told)?;
    let (_issuer, rest) = value(SEQUENCE, rest)?;
    let (this_update, rest) = match value(UTC_TIME, rest) {
        Some((short, rest)) => (full_year(short)?, rest),
        None => value(GENERALIZED_TIME, rest).map(|(date, rest)| (date.to_vec(), rest))?,
    };
    let this_update = this_update.strip_suffix(b"Z").map(<[u8]>::to_vec)?;
    let number = number(rest).unwrap_or_default();
    Some(Age { digits: number.len(), number, this_update })
}

/// A date whose year has two digits: of the last century from 50 on.
fn full_year(short: &[u8]) -> Option<Vec<u8>> {
    let century: &[u8] = if *short.first()? < b'5' { b"20" } else { b"19" };
    Some([century, short].concat())
}

/// The number of a list, from what follows its date; without zeros in front.
fn number(rest: &[u8]) -> Option<Vec<u8>> {
    let rest = [UTC_TIME, GENERALIZED_TIME].into_iter().find_map(|tag| value(tag, rest)).map_or(rest, |(_, rest)| rest);
    let rest = value(SEQUENCE, rest).map_or(rest, |(_, rest)| rest);
    let (extensions, _) = value(EXTENSIONS, rest)?;
    let (mut extensions, _) = value(SEQUENCE, extensions)?;
    while let Some((extension, others)) = value(SEQUENCE, extensions) {
        if let Some(said) = extension.strip_prefix(&CRL_NUMBER) {
            let (number, _) = value(INTEGER, value(OCTET_STRING, said)?.0)?;
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            return number.get(zeros..).map(<[u8]>::to_vec);
        }
        extensions = others;
    }
    None
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
    fn an_older_list_does_not_take_the_place_of_a_newer_one() {
        let (authority, ca) = authority();
        let at = |hours: i64| {
            let now = Timestamp::from_millis(now().as_millis() + hours * 3_600_000);
            Authority::from_pem(&ca.certificate, &ca.key, now).unwrap().revoked(&[]).unwrap()
        };
        let numbered = |number: &[u8], year| {
            let params = rcgen::CertificateRevocationListParams {
                this_update: rcgen::date_time_ymd(year, 1, 1),
                next_update: rcgen::date_time_ymd(2060, 1, 1),
                crl_number: rcgen::SerialNumber::from_slice(number),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: rcgen::KeyIdMethod::Sha256,
            };
            params.signed_by(authority.issuer()).unwrap().pem().unwrap()
        };
        let believe = |lists: &str| Clients::from_pem(ca.certificate.as_bytes(), Some(lists.as_bytes())).unwrap();
        let follows = |before: &str, after: &str| believe(after).may_follow(&believe(before)).is_ok();
        assert!(follows(&at(0), &at(1)) && follows(&at(1), &at(1)), "newer, or the same");
        let refused = believe(&at(0)).may_follow(&believe(&at(1))).unwrap_err();
        assert!(refused.part == Part::Revoked && refused.problem.contains("20261122"), "{refused}");
        // The number counts before the date, as a number: 256 is more than 9, and a date beyond 2049 is written otherwise.
        assert!(follows(&numbered(&[9], 2027), &numbered(&[1, 0], 2026)));
        assert!(!follows(&numbered(&[1, 0], 2026), &numbered(&[9], 2027)));
        assert!(follows(&numbered(&[7], 2026), &numbered(&[7], 2051)));
        assert!(!follows(&numbered(&[7], 2051), &numbered(&[7], 2026)));
        // Of several lists of one authority the newest counts.
        assert!(follows(&at(1), &(at(0) + &at(2))));
        // Another authority's lists have numbers of their own.
        let (another, other_ca) = self::authority();
        let other = Clients::from_pem(other_ca.certificate.as_bytes(), Some(another.revoked(&[]).unwrap().as_bytes()));
        assert!(other.unwrap().may_follow(&believe(&at(5))).is_ok());
    }

    #[test]
    fn signatures_are_not_verified_anew_where_only_the_lists_have_changed() {
        let (authority, ca) = authority();
        let site = Subject::Site("11000001".parse().unwrap());
        let (kept, lost) = (authority.issue(&site).unwrap(), authority.issue(&site).unwrap());
        let lists = [
            authority.revoked(&[]).unwrap(),
            authority.revoked(&[authority.withdraw(lost.certificate.as_bytes()).unwrap()]).unwrap(),
        ];
        let (_, other_ca) = self::authority();
        let [before, after] =
            lists.map(|it| Clients::from_pem(ca.certificate.as_bytes(), Some(it.as_bytes())).unwrap());
        let others = Clients::from_pem(other_ca.certificate.as_bytes(), None).unwrap();
        let der = |pem: &Pem| CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap();
        // Long after the end of every certificate, whoever verified one would see it.
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(4_000_000_000));
        assert!(after.believe(&der(&kept), &[], at).is_err());
        assert!(after.still_believe(&before, &der(&kept), &[], at).is_ok());
        let revoked = Err(Error::InvalidCertificate(CertificateError::Revoked));
        assert_eq!(after.still_believe(&before, &der(&lost), &[], at), revoked);
        assert!(others.still_believe(&before, &der(&kept), &[], at).is_err(), "other authorities are asked in full");
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
