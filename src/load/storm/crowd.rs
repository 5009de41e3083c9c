//! Those who come together: each with a way to the service, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::clerk::Clerk;
use super::guest::Guest;
use super::morning::{Crowd, Limits, Morning};
use super::notes::Notes;
use super::thief::{Loot, Thief};
use super::waiter::Waiter;
use super::{ON_ONE, terminal};
use crate::ids::SiteId;
use crate::load::chance::Chance;
use crate::load::target::LoadError;
use crate::terminal::Connection;

/// Terminals of a line for each connection that they have between them. While a service is away the others take its terminals
/// too, and each takes 64 streams on a connection.
const ON_EACH: usize = 30;
/// Tries of thieves that are under way at once on a connection.
const THIEVES: usize = 12;

/// Whoever comes in a run.
pub(super) struct Comers<'a> {
    pub(super) morning: &'a Morning,
    pub(super) limits: &'a Limits,
    pub(super) services: usize,
    /// The number of the first of the sites among all, and the sites.
    pub(super) first: usize,
    pub(super) offices: &'a [SiteId],
}

impl Comers<'_> {
    /// How many connections they want; each next one is to lead to the next service.
    pub(super) fn connections(&self) -> usize {
        match self.morning.crowd {
            Crowd::Clerks { .. } => (self.offices.len() * self.names() as usize).div_ceil(ON_ONE),
            // The last ones are for thieves.
            Crowd::Line { .. } => (self.offices.len().div_ceil(ON_EACH * self.services) + 1) * self.services,
        }
    }

    /// Terminals of each site. Without limits every log-in is a terminal of its own, as every log-in was a session of its own
    /// in 2020.
    fn names(&self) -> u32 {
        match self.morning.crowd {
            Crowd::Clerks { logins, .. } if !self.limits.are_set => logins,
            Crowd::Clerks { terminals, .. } => terminals,
            Crowd::Line { .. } => 1,
        }
    }

    /// Sends them all on their way, if the storm begins then.
    pub(super) fn come(
        &self,
        storm: Duration,
        connections: &[Connection],
        notes: &Arc<Notes>,
        tasks: &TaskTracker,
        over: &CancellationToken,
    ) -> Result<(), LoadError> {
        let sites = self.offices.iter().enumerate();
        let comers =
            sites.flat_map(|(office, site)| (0..self.names()).map(move |name| (self.first + office, *site, name)));
        let guest = |at: usize, (number, site, name)| {
            let chance = Chance::of(self.morning.seed, "clerks", at as u64);
            Guest::new(notes.clone(), (number, site), terminal("window", name)?, self.morning.stay, chance)
        };
        let Crowd::Line { unrest, away, tries } = self.morning.crowd else {
            for (at, comer) in comers.enumerate() {
                let Some(connection) = connections.get(at / ON_ONE) else { break };
                let visits = self.visits(storm, Chance::of(self.morning.seed, "clerks", at as u64));
                // Every second one has learned what a place token is for.
                let clerk = Clerk::new(guest(at, comer)?, connection, comer.2.is_multiple_of(2));
                tasks.spawn(clerk.come(visits, over.clone()));
            }
            return Ok(());
        };
        let ways: Vec<Arc<[Channel]>> =
            connections.chunks(self.services).map(|some| some.iter().map(Connection::channel).collect()).collect();
        let Some((for_thieves, for_waiters)) = ways.split_last() else { return Ok(()) };
        let loot = Arc::new(Loot::default());
        let fills = self.morning.fills();
        for (at, comer) in comers.enumerate() {
            let Some(ways) = for_waiters.get(at / (ON_EACH * self.services)) else { break };
            let waiter = Waiter::new(guest(at, comer)?, ways.clone(), at, loot.clone(), (unrest, away));
            let comes = storm + fills.mul_f64(at as f64 / self.offices.len() as f64);
            tasks.spawn(over.clone().run_until_cancelled_owned(waiter.come(comes)));
        }
        let many = for_thieves.len() * THIEVES;
        let span = self.morning.storm + self.morning.after;
        for (nth, way) in for_thieves.iter().cycle().take(many).enumerate() {
            let chance = Chance::of(self.morning.seed, "thieves", nth as u64);
            let thief = Thief::new(notes.clone(), loot.clone(), way.clone(), self.offices, chance)?;
            // A share of the tries each, the first ones one more.
            let share = tries / many as u64 + u64::from((nth as u64) < tries % many as u64);
            tasks.spawn(over.clone().run_until_cancelled_owned(thief.steal(share, storm, span)));
        }
        Ok(())
    }

    /// When one terminal of a site logs in, if the storm begins then.
    fn visits(&self, storm: Duration, mut chance: Chance) -> Vec<Duration> {
        let many = match self.morning.crowd {
            Crowd::Clerks { logins, terminals } if self.limits.are_set => logins.div_ceil(terminals),
            _ => 1,
        };
        let mut visits: Vec<Duration> = (0..many).map(|_| storm + self.morning.storm.mul_f64(chance.unit())).collect();
        visits.sort_unstable();
        visits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ins_fall_into_the_storm() {
        let morning = Morning::named("2020-03-11", 0.01).unwrap();
        let storm = Duration::from_secs(25);
        let visits = |limits: &Limits| {
            let comers = Comers { morning: &morning, limits, services: 4, first: 0, offices: &[] };
            comers.visits(storm, Chance::of(1, "clerks", 0))
        };
        let limited = visits(&morning.limits());
        assert_eq!((limited.len(), visits(&Limits::NONE).len()), (5, 1));
        assert!(limited.is_sorted() && limited.iter().all(|at| (storm..storm + morning.storm).contains(at)));
    }
}
