//! Who is calling, and what they may do. A certificate says who somebody is and bounds for which sites they may act; within
//! those bounds metadata name the site, and a session token, where one is sent, speaks for site and terminal. In the clear,
//! which is on loopback only, there are no bounds.

mod peer;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tonic::Extensions;
use tonic::metadata::MetadataMap;

pub(super) use peer::{Identity, Peer, Seller};

use super::status::{self, Fault};
use crate::ids::{SiteId, TerminalId};
use crate::museum::Mutant;
use crate::policy::Place;
use crate::purchase::Caller;
use crate::session::token::{self, DoorKey, Thumbprint, Token};
use crate::session::{self, Door, Refused, Registry, Seat};
use crate::sites::{Site, Sites};
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;

/// The metadata that names the calling site.
const SITE: &str = "rationd-site";
/// The metadata that names the calling terminal.
const TERMINAL: &str = "rationd-terminal";
/// The metadata that carries a session token.
const SESSION: &str = "rationd-session";
/// The terminal of a caller that names none.
const UNNAMED: &str = "unnamed";
/// The terminal that stands on record for what an operator did: nobody at a counter is called so.
pub(super) const OPERATOR: &str = "operator";

/// What is known of who makes a call: what its connection has proved, and what it says itself.
#[derive(Clone, Copy)]
pub(super) struct Credentials<'a> {
    /// Borrowed: thousands of calls wait at once, and each keeps this.
    peer: &'a Peer,
    metadata: &'a MetadataMap,
    /// The session token that the call carries itself.
    token: Option<&'a str>,
}

impl<'a> Credentials<'a> {
    /// Of a call by itself, or of a whole stream.
    pub(super) fn of(metadata: &'a MetadataMap, extensions: &'a Extensions) -> Self {
        Self { peer: Peer::of(extensions), metadata, token: None }
    }

    /// Of one call of this stream: its own token comes before what the stream's metadata say. Empty: there is none.
    pub(super) fn with_token(self, token: &'a str) -> Self {
        Self { token: (!token.is_empty()).then_some(token), ..self }
    }

    /// What the connection has proved.
    pub(super) fn peer(self) -> Peer {
        *self.peer
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
    pub(super) metrics: Arc<Metrics>,
}

impl<D: Door, C: Clock> Callers<D, C> {
    /// The caller of a call for which the site's identity is enough.
    pub(super) fn site(&self, who: Credentials<'_>) -> Result<Caller, Fault> {
        if let Some(token) = who.token() {
            return self.seated(&self.read_token(who.peer(), token)?);
        }
        let site = self.named_site(who)?;
        let seller = who.peer.seller()?;
        let own = seller.and_then(Seller::terminal);
        let terminal = match (text(who.metadata, TERMINAL), own) {
            (None, Some(own)) => own,
            (name, _) => name
                .unwrap_or(UNNAMED)
                .parse()
                .map_err(|e| status::invalid(vec![status::BadField::new(TERMINAL, format!("cannot be read: {e}"))]))?,
        };
        has_terminal(seller, terminal)?;
        Ok(caller(&site, terminal))
    }

    /// The caller of a call that sells or holds, and its seat: its session must be live.
    pub(super) async fn session(&self, who: Credentials<'_>) -> Result<(Caller, Seat), Fault> {
        who.peer.seller()?;
        let seat = self.read_token(who.peer(), who.token().ok_or_else(status::session_required)?)?;
        self.registry.check(&seat).await.map_err(|refused| match refused {
            Refused::Replaced => status::session_replaced(),
            Refused::Lost => status::session_lost(),
            Refused::CannotConfirm(error) => {
                tracing::warn!(%error, "a session could not be confirmed");
                status::session_unconfirmed()
            }
        })?;
        Ok((self.seated(&seat)?, seat))
    }

    /// The site and the terminal of a call that opens a session for this terminal.
    pub(super) fn opening(&self, who: Credentials<'_>, terminal: TerminalId) -> Result<Arc<Site>, Fault> {
        let site = self.named_site(who)?;
        has_terminal(who.peer.seller()?, terminal)?;
        Ok(site)
    }

    /// The site for which a call is made: the one that it names, or the certificate's own.
    fn named_site(&self, who: Credentials<'_>) -> Result<Arc<Site>, Fault> {
        let seller = who.peer.seller()?;
        let id = match (seller, text(who.metadata, SITE)) {
            (Some(Seller::Site(own, _)), None) => own,
            (Some(Seller::Site(own, _)), Some(code)) => own_site(own, code.parse().ok())?,
            (None | Some(Seller::Gateway(_)), None) => return Err(status::site_required()),
            (None | Some(Seller::Gateway(_)), Some(code)) => code.parse().map_err(|_| status::site_unknown())?,
        };
        let site = self.sites.load().get(id).cloned().ok_or_else(status::site_unknown)?;
        match seller {
            Some(Seller::Gateway(name)) if site.gateway != Some(name) => Err(status::site_not_yours()),
            _ => Ok(site),
        }
    }

    /// The seat that a token stands for, without asking whether it is live. The token must have been given to this peer, which
    /// must still be one that may act for its site.
    pub(super) fn read_token(&self, peer: Peer, text: &str) -> Result<Seat, Fault> {
        let Token { seat, given_to } = token::read(text, &self.door_key).map_err(|_| status::session_invalid())?;
        self.given_to(peer, &seat, given_to).map_err(|fault| fault.unwrap_or_else(status::session_not_yours))?;
        Ok(seat)
    }

    /// The place that a token stands for, and the position that its terminal was shown last. As above.
    pub(super) fn read_place(&self, peer: Peer, text: &str) -> Result<(session::Place, Option<u64>), Fault> {
        let (place, shown, given_to) = token::read_place(text, &self.door_key).map_err(|_| status::place_invalid())?;
        let of = Seat { key: place.key, terminal: place.terminal, fence: place.seq };
        self.given_to(peer, &of, given_to).map_err(|fault| fault.unwrap_or_else(status::place_not_yours))?;
        Ok((place, shown))
    }

    /// That a token was given to this peer, which may still act for its site and terminal; no fault of its own where it was
    /// given to somebody else.
    fn given_to(&self, peer: Peer, of: &Seat, given_to: Thumbprint) -> Result<(), Option<Fault>> {
        let (site, terminal) = (of.key.site, of.terminal);
        if given_to != peer.thumbprint() && !Mutant::BearerCheckOnly.is_on() {
            // Either two of one site share what is no longer theirs to share, or somebody has got hold of a token.
            tracing::warn!(%site, %terminal, %peer, "a token was shown by somebody to whom it was not given");
            self.metrics.foreign_token();
            // Also one who may not sell at all is a thief that somebody should know of.
            peer.seller()?;
            return Err(None);
        }
        let seller = peer.seller()?;
        match seller {
            None => {}
            Some(Seller::Site(own, _)) => {
                own_site(own, Some(site))?;
            }
            Some(Seller::Gateway(name)) => {
                let sites = self.sites.load();
                let site = sites.get(site).filter(|site| site.gateway == Some(name));
                site.ok_or_else(status::site_not_yours)?;
            }
        }
        Ok(has_terminal(seller, terminal)?)
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

/// A site acts for itself alone.
fn own_site(own: SiteId, asked: Option<SiteId>) -> Result<SiteId, Fault> {
    let may = |asked: &SiteId| *asked == own || Mutant::SiteActsForAnother.is_on();
    asked.filter(may).ok_or_else(status::site_not_yours)
}

/// A certificate that names a terminal is this terminal's alone, and what operators do is theirs.
fn has_terminal(seller: Option<Seller>, terminal: TerminalId) -> Result<(), Fault> {
    match seller.and_then(Seller::terminal) {
        _ if terminal.as_str().eq_ignore_ascii_case(OPERATOR) => Err(status::terminal_not_yours()),
        Some(own) if own != terminal => Err(status::terminal_not_yours()),
        _ => Ok(()),
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok())
}
