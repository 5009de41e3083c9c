//! What a morning is: who comes, when, and what there is for them.

use std::time::Duration;

use super::guest::Span;
use crate::ids::Channel;
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
    /// Who comes there.
    pub(super) crowd: Crowd,
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
    /// At the end, when an operator has switched to one terminal a site; zero where no site has two.
    pub(super) one_terminal: Duration,
    /// How long a clerk that was let in works, at least and at the most.
    pub(super) stay: Span,
}

/// Who comes to the sites that come together.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Crowd {
    /// Clerks that never wait.
    Clerks {
        /// Log-ins of each site in the course of the storm.
        logins: u32,
        /// Terminals over which a site spreads its log-ins.
        terminals: u32,
    },
    /// One terminal of each site, which stands in line until it is in, works, and comes again; and thieves. Redis and every
    /// service are restarted meanwhile.
    Line {
        /// The time between two things that happen to somebody who waits.
        unrest: Span,
        /// How long somebody is away whose net is gone.
        away: Span,
        /// Tries to get in with what is no session's token.
        tries: u64,
    },
}

/// What the storm is made of where there is a line, and how much of it each part takes.
const STEPS: [(&str, f64); 4] = [(FILLS, 0.2), ("in line", 0.2), (REDIS, 0.2), (SERVICES, 0.4)];
/// Those who come together come.
const FILLS: &str = "line fills";
/// Begins with the restart of Redis.
pub(super) const REDIS: &str = "Redis restarts";
/// In it every service is restarted.
pub(super) const SERVICES: &str = "services restart";
/// Begins with the switch to one terminal a site.
pub(super) const ONE_TERMINAL: &str = "one terminal";

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
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("RATIOND_SESSIONS__CAPACITY", self.capacity.to_string()),
            ("RATIOND_SESSIONS__CAP_BY_CHANNEL__POST_OFFICE", self.cap.to_string()),
        ]
    }
}

impl Morning {
    /// The mornings that can be run, by name.
    pub const NAMES: [&'static str; 2] = ["2020-03-11", "2021-07-20"];

    /// The one of this name, or a part of it: `scale` 0.1 is a tenth of everybody.
    pub fn named(name: &str, scale: f64) -> Option<Self> {
        match name {
            "2020-03-11" => Some(Self::of_2020(scale)),
            "2021-07-20" => Some(Self::of_2021(scale)),
            _ => None,
        }
    }

    /// Whether the same can be played without limits: a line without a capacity is none.
    pub fn has_contrast(&self) -> bool {
        matches!(self.crowd, Crowd::Clerks { .. })
    }

    /// 12,000 sessions of pharmacies were open when 1,406 post offices joined; 67,000 were wanted within minutes.
    fn of_2020(scale: f64) -> Self {
        let part = |whole| part(whole, scale);
        Self {
            name: "2020-03-11",
            title: "post offices join at nine, all at once, with clients that never wait",
            seed: 2020,
            scale,
            pharmacies: part(12_000),
            sales_per_second: (400.0 * scale).max(1.0),
            offices: part(1_406),
            crowd: Crowd::Clerks { logins: 40, terminals: 8 },
            cap: 5,
            // All pharmacies, every office's first two, and a few of the third: the rest has to wait.
            capacity: part(12_000) + part(3_000),
            quiet: Duration::from_secs(20),
            storm: Duration::from_secs(60),
            after: Duration::from_secs(40),
            one_terminal: Duration::from_secs(10),
            stay: (Duration::from_secs(10), Duration::from_secs(30)),
        }
    }

    /// Whoever lost the net, came back with another device or restarted the app stood at the end of the line, and whoever switched
    /// the net off at the right moment stood before everybody.
    fn of_2021(scale: f64) -> Self {
        let part = |whole| part(whole, scale);
        Self {
            name: "2021-07-20",
            title: "a line that is disturbed in every way, and thieves",
            seed: 2021,
            scale,
            pharmacies: part(1_000),
            sales_per_second: (100.0 * scale).max(1.0),
            // All seats are taken, and 30,000 wait.
            offices: part(30_000) + part(500),
            crowd: Crowd::Line {
                unrest: (Duration::from_secs(20), Duration::from_secs(100)),
                // Below the grace, which is two minutes.
                away: (Duration::from_secs(5), Duration::from_secs(60)),
                tries: u64::from(part(1_000_000)),
            },
            cap: 1,
            capacity: part(1_000) + part(500),
            quiet: Duration::from_secs(20),
            storm: Duration::from_secs(200),
            after: Duration::from_secs(30),
            one_terminal: Duration::ZERO,
            stay: (Duration::from_secs(20), Duration::from_secs(60)),
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
        let span = |(least, most): Span| (least.mul_f64(factor), most.mul_f64(factor));
        Self {
            quiet: self.quiet.mul_f64(factor),
            storm: self.storm.mul_f64(factor),
            after: self.after.mul_f64(factor),
            one_terminal: self.one_terminal.mul_f64(factor),
            stay: span(self.stay),
            crowd: match self.crowd {
                Crowd::Line { unrest, away, tries } => Crowd::Line { unrest: span(unrest), away: span(away), tries },
                clerks @ Crowd::Clerks { .. } => clerks,
            },
            ..self
        }
    }

    /// From the beginning of the quiet to the end.
    pub(super) fn length(&self) -> Duration {
        self.quiet + self.storm + self.after + self.one_terminal
    }

    /// What begins when, if the quiet begins then.
    pub(super) fn phases(&self, quiet: Duration) -> Vec<(Duration, &'static str)> {
        let storm = quiet + self.quiet;
        let mut phases = vec![(Duration::ZERO, "pharmacies open"), (quiet, "quiet")];
        match self.crowd {
            Crowd::Clerks { .. } => phases.push((storm, "storm")),
            Crowd::Line { .. } => {
                let mut begun = storm;
                for (step, share) in STEPS {
                    phases.push((begun, step));
                    begun += self.storm.mul_f64(share);
                }
            }
        }
        let after = storm + self.storm;
        phases.push((after, "after"));
        if !self.one_terminal.is_zero() {
            phases.push((after + self.after, ONE_TERMINAL));
        }
        phases
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { cap: self.cap, capacity: self.capacity, are_set: true }
    }

    /// Sessions that are wanted in all; of a line those that are wanted first.
    pub(super) fn offered(&self) -> u64 {
        u64::from(self.pharmacies) + u64::from(self.offices) * u64::from(self.logins().unwrap_or(1))
    }

    /// Log-ins of each site, where so many are planned.
    pub(super) fn logins(&self) -> Option<u32> {
        match self.crowd {
            Crowd::Clerks { logins, .. } => Some(logins),
            Crowd::Line { .. } => None,
        }
    }

    /// Tries of thieves, where there are any.
    pub(super) fn tries(&self) -> Option<u64> {
        match self.crowd {
            Crowd::Clerks { .. } => None,
            Crowd::Line { tries, .. } => Some(tries),
        }
    }

    /// The sites, pharmacies first.
    pub(super) fn sites(&self) -> Result<[(Channel, u32); 2], LoadError> {
        let channel = |name: &str| name.parse().map_err(|error| LoadError::Failed(format!("{error}")));
        Ok([(channel("pharmacy")?, self.pharmacies), (channel("post_office")?, self.offices)])
    }

    /// Over how long the line fills.
    pub(super) fn fills(&self) -> Duration {
        self.storm.mul_f64(STEPS.iter().find(|(step, _)| *step == FILLS).map_or(0.0, |(_, share)| *share))
    }
}

/// So much of a number, and at least one.
fn part(whole: u32, scale: f64) -> u32 {
    (f64::from(whole) * scale).round().max(1.0) as u32
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
        let pressed = tenth.lasting(13.0);
        assert_eq!(pressed.length(), Duration::from_secs(13));
        assert_eq!(pressed.phases(Duration::ZERO).last(), Some(&(Duration::from_secs(12), ONE_TERMINAL)));
    }

    #[test]
    fn a_line_fills_and_is_disturbed_within_the_storm() {
        let morning = Morning::named("2021-07-20", 0.1).unwrap();
        assert_eq!((morning.offices, morning.capacity, morning.offered()), (3_050, 150, 3_150));
        let phases = morning.phases(Duration::from_secs(5));
        assert!(phases.is_sorted() && phases.windows(2).all(|two| two[0].0 < two[1].0), "{phases:?}");
        assert_eq!(phases[2..4], [(Duration::from_secs(25), FILLS), (Duration::from_secs(65), "in line")]);
        assert_eq!(phases.last().unwrap().0 + morning.after, Duration::from_secs(5) + morning.length());
        let Crowd::Line { away, .. } = morning.lasting(25.0).crowd else { panic!("no line") };
        assert_eq!(away, (Duration::from_millis(500), Duration::from_secs(6)));
    }
}
