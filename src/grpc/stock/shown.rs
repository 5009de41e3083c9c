//! What is shown of a stock, on the wire.

use super::super::convert::instant;
use super::super::identity::{Identity, Peer, Seller};
use super::super::status::Fault;
use super::super::v1;
use crate::ids::SiteId;
use crate::stock::{Level, Shown, Source};

/// Whom it is told: how many units a site has is its own and its operators' business; others are told levels, as the public is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// May know of all sites.
    All,
    /// May know of this one.
    Site(SiteId),
    /// May know of none.
    None,
}

impl Asker {
    /// Whoever holds this certificate.
    pub(super) fn of(peer: Peer) -> Result<Self, Fault> {
        Ok(match peer.identity()? {
            Some(Identity::Operator(_) | Identity::Feed(_)) => Self::All,
            Some(Identity::Seller(Seller::Site(site, _))) => Self::Site(site),
            Some(Identity::Seller(Seller::Gateway(_))) | None => Self::None,
        })
    }

    fn may_know_units(self, of: SiteId) -> bool {
        match self {
            Self::All => true,
            Self::Site(site) => site == of,
            Self::None => false,
        }
    }
}

/// The row of this site; `None`: nobody knows.
pub(super) fn row(programme: &str, site: SiteId, shown: Option<&Shown>, asker: Asker) -> v1::StockLevel {
    let of = v1::StockLevel { site_code: site.to_string(), programme: programme.to_owned(), ..Default::default() };
    let Some(shown) = shown else { return of };
    let level = match shown.level {
        Level::Plenty => v1::Level::Plenty,
        Level::Some => v1::Level::Some,
        Level::Few => v1::Level::Few,
        Level::Empty => v1::Level::Empty,
        Level::Paused => v1::Level::Paused,
    };
    let source = match shown.source {
        Source::Count => v1::StockSource::Count,
        Source::Delivery => v1::StockSource::Delivery,
        Source::Sales => v1::StockSource::Sales,
    };
    v1::StockLevel {
        level: level.into(),
        offered_units: asker.may_know_units(site).then_some(shown.offered),
        promised_units: asker.may_know_units(site).then_some(shown.promised),
        as_of: Some(instant(shown.as_of)),
        source: source.into(),
        delivered_at: shown.delivered_at.map(instant),
        counted_at: shown.counted_at.map(instant),
        stale: shown.stale,
        unverified: shown.unverified,
        ..of
    }
}
