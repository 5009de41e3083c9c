//! Whom to trust and who to be, on `https://` addresses.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::terminal::Tls;
use crate::tls::{Authorities, BadPem, Identity, Part};

/// The files of a client's certificates, in PEM.
#[derive(Args, Clone)]
pub(super) struct TlsFiles {
    /// Certificates of the authorities (PEM) that the service's own may come from; https:// addresses need them
    #[arg(long, value_name = "FILE", env = "RATIOND_CLIENT_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// The caller's certificate (PEM): it says which site, gateway or operator is calling
    #[arg(long, value_name = "FILE", env = "RATIOND_CLIENT_TLS_CERTIFICATE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", env = "RATIOND_CLIENT_TLS_KEY", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

impl TlsFiles {
    /// For a call to this address, which may be anybody's; `None` where nothing is encrypted. What is wrong is told with the file
    /// and what to do.
    pub(super) fn for_anybody(&self, address: &str) -> Result<Option<Tls>, String> {
        match (address.starts_with("https://"), &self.tls_ca) {
            // With any of them somebody means to be encrypted: a number must not leave in the clear for want of one letter.
            (false, ca) => match (ca, &self.tls_certificate, &self.tls_key) {
                (None, None, None) => Ok(None),
                _ => Err(format!(
                    "{address} is not encrypted: write https://, or leave --tls-ca, --tls-certificate and --tls-key \
                     (RATIOND_CLIENT_TLS_…) out"
                )),
            },
            (true, None) => Err(format!("{address} needs --tls-ca FILE: whom to trust")),
            (true, Some(ca)) => {
                let identity = self.tls_certificate.as_deref().zip(self.tls_key.as_deref());
                load(ca, identity).map(Some)
            }
        }
    }

    /// For a call of a site, a gateway or an operator, which only a certificate tells from one another.
    pub(super) fn for_somebody(&self, address: &str) -> Result<Option<Tls>, String> {
        match self.for_anybody(address)? {
            Some(tls) if tls.identity.is_none() => {
                Err(format!("{address} needs --tls-certificate FILE and --tls-key FILE: who is calling"))
            }
            tls => Ok(tls),
        }
    }

    /// The same authorities with another certificate and key, where they are given.
    pub(super) fn with(&self, certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Self {
        let own = || (self.tls_certificate.clone(), self.tls_key.clone());
        let (tls_certificate, tls_key) =
            certificate.zip(key).map_or_else(own, |(certificate, key)| (Some(certificate.clone()), Some(key.clone())));
        Self { tls_ca: self.tls_ca.clone(), tls_certificate, tls_key }
    }

    /// Its options, for another process of this program.
    pub(super) fn options(&self) -> [(&'static str, &Option<PathBuf>); 3] {
        [("--tls-ca", &self.tls_ca), ("--tls-certificate", &self.tls_certificate), ("--tls-key", &self.tls_key)]
    }

    /// An error of the connection, with the files that it may be about.
    pub(super) fn beside(&self, error: &dyn std::fmt::Display) -> String {
        let file = |(flag, file): (_, &Option<PathBuf>)| Some(format!(" {flag} {}", file.as_ref()?.display()));
        let files: String = self.options().into_iter().filter_map(file).collect();
        if files.is_empty() { error.to_string() } else { format!("{error} (with{files})") }
    }
}

fn load(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Tls, String> {
    let authorities = read(ca)?;
    Authorities::from_pem(&authorities).map_err(|bad| format!("{}: {bad}", ca.display()))?;
    let Some((certificate, key)) = identity else { return Ok(Tls { authorities, identity: None }) };
    let pem = (read(certificate)?, read(key)?);
    let told = |bad: BadPem| {
        let file = if bad.part == Part::Key { key } else { certificate };
        format!("{}: {bad}", file.display())
    };
    Identity::from_pem(&pem.0, &pem.1).map_err(|bad| bad.into_iter().map(told).collect::<Vec<_>>().join("\n"))?;
    Ok(Tls { authorities, identity: Some(pem) })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}
