//! What a morning is: who comes, when, and what there is for them.

use std::time::Duration;

use crate::ids::Channel;
use crate::load::chance::Chance;
use crate::load::target::LoadError;

/// A morning. The numbers are those of one service with all its terminals.
#[derive(Debug, Clone, PartialEq)]
pub struct Morning {
    /// The day.
    pub(super) name: &'static str,
    /// What happened, one line.
    pub(super) title: &'static str,
    /// Where every random choice comes from.
    pub(super) seed: u64,
    /// Which part of the real numbers this is.
    pub(super) scale: f64,
    /// Sites with one terminal each, which hold their sessions all the time.
    pub(super) pharmacies: u32,
    /// Sales a second of all of them.
    pub(super) sales_per_second: f64,
    /// Sites that come together.
    pub(super) offices: u32,
    /// Log-ins of each of them in the course of the storm.
    pub(super) logins: u32,
    /// Terminals over which an office spreads its log-ins.
    pub(super) terminals: u32,
    /// The most sessions and places of an office.
    pub(super) cap: u32,
    /// The most sessions in the nation.
    pub(super) capacity: u32,
    /// Before the offices come.
    pub(super) quiet: Duration,
    /// While they come.
    pub(super) storm: Duration,
    /// Afterwards.
    pub(super) after: Duration,
    /// How long a clerk that was let in works, at least and at the most.
    pub(super) stay: (Duration, Duration),
}

/// How many sessions there may be.
pub(super) struct Limits {
    pub(super) cap: u32,
    pub(super) capacity: u32,
    /// Whether there are any: otherwise nothing stands in anybody's way.
    pub(super) are_set: bool,
}

impl Limits {
    /// The widest that a service can be set to.
    pub(super) const NONE: Self = Self { cap: 1_000, capacity: 10_000_000, are_set: false };

    /// As a service is told of them.
    pub(super) fn settings(&self) -> [(&'static str, String); 2] {
        [
            ("RATIOND_SESSIONS__CAPACITY", self.capacity.to_string()),
            ("RATIOND_SESSIONS__CAP_BY_CHANNEL__POST_OFFICE", self.cap.to_string()),
        ]
    }
}

impl Morning {
    /// The mornings that can be run, by name.
    pub const NAMES: [&'static str; 1] = ["2020-03-11"];

    /// The one of this name, or a part of it: `scale` 0.1 is a tenth of everybody.
    pub fn named(name: &str, scale: f64) -> Option<Self> {
        (name == "2020-03-11").then(|| Self::of_2020(scale))
    }

    /// 12,000 sessions of pharmacies were open when 1,406 post offices joined; 67,000 were wanted within minutes.
    fn of_2020(scale: f64) -> Self {
        let part = |whole: u32| (f64::from(whole) * scale).round().max(1.0) as u32;
        Self {
            name: "2020-03-11",
            title: "post offices join at nine, all at once, with clients that never wait",
            seed: 2020,
            scale,
            pharmacies: part(12_000),
            sales_per_second: (400.0 * scale).max(1.0),
            offices: part(1_406),
            logins: 40,
            terminals: 8,
            cap: 5,
            // All pharmacies, every office's first two, and a few of the third: the rest has to wait.
            capacity: part(12_000) + part(3_000),
            quiet: Duration::from_secs(20),
            storm: Duration::from_secs(60),
            after: Duration::from_secs(40),
            stay: (Duration::from_secs(10), Duration::from_secs(30)),
        }
    }

    /// The same with other choices.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same in so many seconds: everything is stretched or pressed together alike.
    #[must_use]
    pub fn lasting(self, seconds: f64) -> Self {
        let factor = seconds / self.length().as_secs_f64();
        Self {
            quiet: self.quiet.mul_f64(factor),
            storm: self.storm.mul_f64(factor),
            after: self.after.mul_f64(factor),
            stay: (self.stay.0.mul_f64(factor), self.stay.1.mul_f64(factor)),
            ..self
        }
    }

    /// From the beginning of the quiet to the end.
    pub(super) fn length(&self) -> Duration {
        self.quiet + self.storm + self.after
    }

    /// What begins when, if the quiet begins then.
    pub(super) fn phases(&self, quiet: Duration) -> Vec<(Duration, &'static str)> {
        let storm = quiet + self.quiet;
        vec![(Duration::ZERO, "pharmacies open"), (quiet, "quiet"), (storm, "storm"), (storm + self.storm, "after")]
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { cap: self.cap, capacity: self.capacity, are_set: true }
    }

    /// Sessions that are wanted in all.
    pub(super) fn offered(&self) -> u64 {
        u64::from(self.pharmacies) + u64::from(self.offices) * u64::from(self.logins)
    }

    /// The sites, pharmacies first.
    pub(super) fn sites(&self) -> Result<[(Channel, u32); 2], LoadError> {
        let channel = |name: &str| name.parse().map_err(|error| LoadError::Failed(format!("{error}")));
        Ok([(channel("pharmacy")?, self.pharmacies), (channel("post_office")?, self.offices)])
    }

    /// When one terminal of an office logs in, if the storm begins then. Without limits every log-in is a terminal of its own,
    /// as every log-in was a session of its own in 2020.
    pub(super) fn visits(&self, storm: Duration, limits: &Limits, mut chance: Chance) -> Vec<Duration> {
        let many = if limits.are_set { self.logins.div_ceil(self.terminals) } else { 1 };
        let mut visits: Vec<Duration> = (0..many).map(|_| storm + self.storm.mul_f64(chance.unit())).collect();
        visits.sort_unstable();
        visits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_morning_wants_what_was_wanted_and_has_too_little() {
        let morning = Morning::named("2020-03-11", 1.0).unwrap();
        assert_eq!(morning.offered(), 68_240);
        assert!(morning.capacity < morning.pharmacies + morning.cap * morning.offices);
        assert_eq!(Morning::named("2020-03-12", 1.0), None);
    }

    #[test]
    fn a_tenth_has_a_tenth_of_everybody_in_the_same_time() {
        let (whole, tenth) = (Morning::of_2020(1.0), Morning::of_2020(0.1));
        assert_eq!((tenth.pharmacies, tenth.offices, tenth.capacity), (1_200, 141, 1_500));
        assert_eq!(whole.length(), tenth.length());
        assert_eq!(tenth.lasting(12.0).length(), Duration::from_secs(12));
    }

    #[test]
    fn log_ins_fall_into_the_storm() {
        let morning = Morning::of_2020(0.01);
        let storm = Duration::from_secs(25);
        let visits = |limits: &Limits| morning.visits(storm, limits, Chance::of(1, "clerks", 0));
        let limited = visits(&morning.limits());
        assert_eq!((limited.len(), visits(&Limits::NONE).len()), (5, 1));
        assert!(limited.is_sorted() && limited.iter().all(|at| (storm..storm + morning.storm).contains(at)));
    }
}
