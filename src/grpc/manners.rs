//! What the sites have done lately, as far as it matters how much: whom they look up, to whom they sell, and what they take back. Whoever
//! is told how somebody stands has looked them up, whatever it was called.

use std::sync::{Arc, Mutex, PoisonError};

use super::identity::Callers;
use super::status::{self, Fault};
use crate::conduct::{Conduct, Rules};
use crate::ids::{Channel, SiteId};
use crate::session::Door;
use crate::telemetry::metrics::{Metrics, VoidedBy};
use crate::time::Clock;

/// Where a call comes from, as far as it matters how much is called from there.
pub(super) type Origin = (SiteId, Channel);

/// What the sites have done lately, on this instance.
pub(super) struct Manners<D, C> {
    pub(super) conduct: Mutex<Conduct>,
    pub(super) look_ups_per_minute: u32,
    pub(super) callers: Arc<Callers<D, C>>,
    pub(super) clock: C,
    pub(super) metrics: Arc<Metrics>,
}

impl<D: Door, C: Clock> Manners<D, C> {
    fn rules(&self, (site, channel): Origin) -> Rules {
        Rules::of(self.look_ups_per_minute, self.callers.registry.cap(site, channel))
    }

    /// Whoever looks up many people to whom it does not sell is told to come back, and told of. Sales are never held up.
    pub(super) fn looks_up(&self, from: Origin, people: usize) -> Result<(), Fault> {
        let (rules, now) = (self.rules(from), self.clock.monotonic());
        let people = u32::try_from(people).unwrap_or(u32::MAX);
        let looked = self.conduct.lock().unwrap_or_else(PoisonError::into_inner).look_up(from.0, people, rules, now);
        looked.map_err(|slowed| {
            self.metrics.look_up_slowed();
            if slowed.tell {
                tracing::warn!(site = %from.0, "a site looks up many people to whom it does not sell; it is slowed");
            }
            status::looks_up_too_many(slowed.retry_after)
        })
    }

    /// So many look-ups told nothing.
    pub(super) fn give_back(&self, from: Origin, people: usize) {
        let people = u32::try_from(people).unwrap_or(u32::MAX);
        self.conduct.lock().unwrap_or_else(PoisonError::into_inner).give_back(from.0, people, self.rules(from));
    }

    /// So many were sold, and so many taken back.
    pub(super) fn came_to(&self, from: Origin, sold: usize, voided: usize) {
        if sold + voided == 0 {
            return;
        }
        let (rules, now) = (self.rules(from), self.clock.monotonic());
        let mut conduct = self.conduct.lock().unwrap_or_else(PoisonError::into_inner);
        conduct.sold(from.0, u32::try_from(sold).unwrap_or(u32::MAX), rules);
        for _ in 0..voided {
            self.metrics.voided(VoidedBy::Site);
            if conduct.voided(from.0, rules, now) {
                self.metrics.unusual_voids();
                tracing::warn!(site = %from.0, "a site takes back unusually many of its sales; ask it why");
            }
        }
    }
}
