//! Who is calling. Until certificates come the service listens on loopback only and takes the site from metadata; a
//! session token, where one is sent, speaks for site and terminal.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tonic::metadata::MetadataMap;

use super::status::{self, Fault};
use crate::ids::{SiteId, TerminalId};
use crate::policy::Place;
use crate::purchase::Caller;
use crate::session::token::{self, DoorKey};
use crate::session::{Door, Refused, Registry, Seat};
use crate::sites::{Site, Sites};
use crate::time::Clock;

/// The metadata that names the calling site.
const SITE: &str = "rationd-site";
/// The metadata that names the calling terminal.
const TERMINAL: &str = "rationd-terminal";
/// The metadata that carries a session token.
const SESSION: &str = "rationd-session";
/// The terminal of a caller that names none.
const UNNAMED: &str = "unnamed";

/// What a call says of who makes it.
#[derive(Clone, Copy)]
pub(super) struct Credentials<'a> {
    metadata: &'a MetadataMap,
    /// The session token that the call carries itself.
    token: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// Of a call by itself.
    pub(super) fn of(metadata: &'a MetadataMap) -> Self {
        Self { metadata, token: None }
    }

    /// Of one call of a stream: its own token comes before what the stream's metadata say. Empty: there is none.
    pub(super) fn with_token(metadata: &'a MetadataMap, token: &'a str) -> Self {
        Self { metadata, token: (!token.is_empty()).then_some(token) }
    }

    fn token(self) -> Option<&'a str> {
        self.token.or_else(|| text(self.metadata, SESSION))
    }
}

/// Finds out who is calling.
pub(super) struct Callers<D, C> {
    pub(super) sites: Arc<ArcSwap<Sites>>,
    pub(super) registry: Arc<Registry<D, C>>,
    pub(super) door_key: Arc<DoorKey>,
}

impl<D: Door, C: Clock> Callers<D, C> {
    /// The caller of a call for which the site's identity is enough.
    pub(super) fn site(&self, who: Credentials<'_>) -> Result<Caller, Fault> {
        if let Some(token) = who.token() {
            return self.seated(&self.read_token(token)?);
        }
        let site = self.named_site(who.metadata)?;
        let terminal = match text(who.metadata, TERMINAL) {
            None => UNNAMED,
            Some(name) => name,
        };
        let terminal = terminal
            .parse::<TerminalId>()
            .map_err(|e| status::invalid(vec![status::BadField::new(TERMINAL, format!("cannot be read: {e}"))]))?;
        Ok(caller(&site, terminal))
    }

    /// The caller of a call that sells or holds: its session must be live.
    pub(super) async fn session(&self, who: Credentials<'_>) -> Result<Caller, Fault> {
        let seat = self.read_token(who.token().ok_or_else(status::session_required)?)?;
        self.registry.check(&seat).await.map_err(|refused| match refused {
            Refused::Replaced => status::session_replaced(),
            Refused::Lost => status::session_lost(),
            Refused::CannotConfirm(error) => {
                tracing::warn!(%error, "a session could not be confirmed");
                status::session_unconfirmed()
            }
        })?;
        self.seated(&seat)
    }

    /// The calling site of a call that opens a session.
    pub(super) fn named_site(&self, metadata: &MetadataMap) -> Result<Arc<Site>, Fault> {
        let code = text(metadata, SITE).ok_or_else(status::site_required)?;
        let id = code.parse::<SiteId>().map_err(|_| status::site_unknown())?;
        self.sites.load().get(id).cloned().ok_or_else(status::site_unknown)
    }

    /// The seat that a token stands for, without asking whether it is live.
    pub(super) fn read_token(&self, text: &str) -> Result<Seat, Fault> {
        token::read(text, &self.door_key).map_err(|_| status::session_invalid())
    }

    fn seated(&self, seat: &Seat) -> Result<Caller, Fault> {
        let site = self.sites.load().get(seat.key.site).cloned().ok_or_else(status::site_unknown)?;
        Ok(caller(&site, seat.terminal))
    }

    /// Where a site is, as a stranger to it is told.
    pub(super) fn district(&self, site: SiteId) -> String {
        self.sites.load().get(site).map(|s| s.district()).unwrap_or_default()
    }
}

fn caller(site: &Site, terminal: TerminalId) -> Caller {
    Caller { site: site.id, terminal, place: Place { channel: site.channel, region: site.region.clone() } }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok())
}
