//! Who stands at the other end of a connection: read from its certificate once, when the connection is made.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tonic::Extensions;
use webpki::EndEntityCert;

use crate::grpc::connections::Link;
use crate::grpc::status::{self, Fault};
use crate::ids::{FeedId, GatewayId, IdError, OperatorId, SiteId, TerminalId};
use crate::session::token::Thumbprint;

/// What every name of ours in a certificate begins with. Other names are nobody's business here.
const OURS: &str = "rationd://";

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It speaks in the clear. Where that is enough, it is on this machine and is who it says it is.
    Clear,
    /// It speaks TLS and has shown no certificate.
    Uncertified,
    /// Its certificate does not name exactly one site, gateway, operator or feed.
    Unclear,
    /// It has shown the certificate of this identity, and holds the key with this thumbprint.
    Certified(Identity, Thumbprint),
}

/// What a certificate says that its holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// Whoever looks up, sells and opens sessions.
    Seller(Seller),
    /// `rationd://operator/NAME`: whoever runs the service.
    Operator(OperatorId),
    /// `rationd://feed/NAME`: whoever takes the stock of all sites to the public.
    Feed(FeedId),
}

/// Whose certificates may act for sites, and for which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Seller {
    /// `rationd://site/CODE` or `rationd://site/CODE/TERMINAL`: one site, and one terminal of it if it is named.
    Site(SiteId, Option<TerminalId>),
    /// `rationd://gateway/NAME`: whoever speaks for the sites that the registry gives to it.
    Gateway(GatewayId),
}

impl Seller {
    /// The terminal, where the certificate is that of one.
    pub(in crate::grpc) fn terminal(self) -> Option<TerminalId> {
        match self {
            Self::Site(_, terminal) => terminal,
            Self::Gateway(_) => None,
        }
    }
}

/// The name begins as ours do and goes on otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAnIdentity;

impl From<IdError> for NotAnIdentity {
    fn from(_: IdError) -> Self {
        Self
    }
}

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(name: &str) -> Result<Self, NotAnIdentity> {
        let parts: Vec<&str> = name.strip_prefix(OURS).ok_or(NotAnIdentity)?.split('/').collect();
        match parts[..] {
            ["site", site] => Ok(Self::Seller(Seller::Site(site.parse()?, None))),
            ["site", site, terminal] => Ok(Self::Seller(Seller::Site(site.parse()?, Some(terminal.parse()?)))),
            ["gateway", name] => Ok(Self::Seller(Seller::Gateway(name.parse()?))),
            ["operator", name] => Ok(Self::Operator(name.parse()?)),
            ["feed", name] => Ok(Self::Feed(name.parse()?)),
            _ => Err(NotAnIdentity),
        }
    }
}

/// The name as it stands in the certificate.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seller(Seller::Site(site, None)) => write!(f, "{OURS}site/{site}"),
            Self::Seller(Seller::Site(site, Some(terminal))) => write!(f, "{OURS}site/{site}/{terminal}"),
            Self::Seller(Seller::Gateway(name)) => write!(f, "{OURS}gateway/{name}"),
            Self::Operator(name) => write!(f, "{OURS}operator/{name}"),
            Self::Feed(name) => write!(f, "{OURS}feed/{name}"),
        }
    }
}

/// For the log.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clear => f.write_str("in the clear"),
            Self::Uncertified => f.write_str("without a certificate"),
            Self::Unclear => f.write_str("with a certificate that does not say who it is"),
            Self::Certified(identity, _) => fmt::Display::fmt(identity, f),
        }
    }
}

impl Peer {
    /// What the certificate that a peer has shown says. It has been verified.
    pub(in crate::grpc) fn of_certificate(certificate: &CertificateDer<'_>) -> Self {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Self::Unclear };
        let mut ours = certificate.valid_uri_names().filter(|name| name.starts_with(OURS));
        match (ours.next().map(str::parse), ours.next()) {
            (Some(Ok(identity)), None) => {
                Self::Certified(identity, Thumbprint::of(&certificate.subject_public_key_info()))
            }
            _ => Self::Unclear,
        }
    }

    /// The peer of the connection on which a call came. One that nobody has looked at is nobody.
    pub(in crate::grpc) fn of(extensions: &Extensions) -> &Self {
        extensions.get::<Arc<Link>>().map_or(&Self::Uncertified, |link| link.peer())
    }

    /// Who it is, for records.
    pub(in crate::grpc) fn name(self) -> Cow<'static, str> {
        match self {
            Self::Clear => "somebody on this machine".into(),
            peer => peer.to_string().into(),
        }
    }

    /// Its identity; `None` in the clear, where there is none.
    pub(in crate::grpc) fn identity(self) -> Result<Option<Identity>, Fault> {
        match self {
            Self::Clear => Ok(None),
            Self::Uncertified => Err(status::certificate_required()),
            Self::Unclear => Err(status::certificate_unclear()),
            Self::Certified(identity, _) => Ok(Some(identity)),
        }
    }

    /// For which sites it may act; `None` in the clear, where there is no bound.
    pub(in crate::grpc) fn seller(self) -> Result<Option<Seller>, Fault> {
        match self.identity()? {
            None => Ok(None),
            Some(Identity::Seller(seller)) => Ok(Some(seller)),
            Some(Identity::Operator(_) | Identity::Feed(_)) => Err(status::not_a_site()),
        }
    }

    /// The thumbprint of the key that it holds: what its tokens are bound to.
    pub(in crate::grpc) fn thumbprint(self) -> Thumbprint {
        match self {
            Self::Certified(_, thumbprint) => thumbprint,
            Self::Clear | Self::Uncertified | Self::Unclear => Thumbprint::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a certificate with these URI names says, and another that was made with the same names.
    fn certified(names: &[&str]) -> (Peer, Peer) {
        let made = || {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.subject_alt_names.extend(names.iter().map(|name| rcgen::SanType::URI((*name).try_into().unwrap())));
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            Peer::of_certificate(certificate.der())
        };
        (made(), made())
    }

    #[test]
    fn a_certificate_names_one_of_ours_or_nobody() {
        for name in [
            "rationd://site/11000001",
            "rationd://site/11000001/w1",
            "rationd://gateway/pos-vendor",
            "rationd://operator/kim",
            "rationd://feed/map",
        ] {
            let (peer, another) = certified(&["spiffe://example/pos", name, "https://example/"]);
            assert_eq!(peer.identity().ok().flatten().unwrap().to_string(), name);
            assert_ne!(peer.thumbprint(), another.thumbprint(), "every key has its own");
            assert_ne!(peer.thumbprint(), Thumbprint::NONE);
        }
        let unclear: &[&[&str]] = &[
            &[],
            &["spiffe://site/11000001"],
            &["rationd://site/11000001", "rationd://operator/kim"],
            &["rationd://site/11000001", "rationd://site/11000001"],
            &["rationd://site/11000001", "rationd://mistake"],
            &["rationd://site/"],
            &["rationd://site/11000001/w1/more"],
            &["rationd://site/11 1"],
            &["rationd://gateway/a/b"],
            &["rationd://gateway"],
            &["rationd://Site/11000001"],
            &["RATIOND://site/11000001"],
            &["rationd://"],
        ];
        for names in unclear {
            assert_eq!(certified(names).0, Peer::Unclear, "{names:?}");
        }
        assert_eq!(Peer::of_certificate(&CertificateDer::from(vec![1, 2, 3])), Peer::Unclear);
        assert_eq!(*Peer::of(&Extensions::default()), Peer::Uncertified);
    }
}
