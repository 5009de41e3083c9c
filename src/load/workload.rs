//! What is asked for and when: every errand of a run follows from the seed alone, so that each process can work out all of it
//! and do its part. Pure.

use std::time::Duration;

use super::chance::Chance;
use super::run::{Arrivals, Phase};
use super::scenario::{HoldMix, Scenario};
use super::sites::weighted;

/// The pause after an answer until the customer or the seller comes back to it.
const PAUSES_MS: (u64, u64) = (50, 1_000);
/// The pause until a request is sent again whose answer takes too long for somebody: short enough to overtake one.
const RETRY_MS: u64 = 60;
/// A hold that is confirmed too late is so by this much.
const TOO_LATE: Duration = Duration::from_millis(500);

/// One person at one counter, with what becomes of the purchase.
#[derive(Debug, Clone, PartialEq)]
pub struct Errand {
    /// Which person.
    pub buyer: u64,
    /// Which site, by its place in the list of sites.
    pub site: usize,
    /// Which of the site's terminals.
    pub terminal: u32,
    /// Units asked for.
    pub quantity: u32,
    /// Sale or hold, and what follows.
    pub course: Course,
    /// The same request once more, so long after the first was to be sent.
    pub again: Option<Duration>,
    /// Asked about in the end.
    pub resolved: bool,
}

/// What becomes of a purchase.
#[derive(Debug, Clone, PartialEq)]
pub enum Course {
    /// A sale that stands.
    Sale,
    /// A sale that is taken back so long after its answer.
    Voided(Duration),
    /// A hold that is made a sale so long after its answer.
    Confirmed(Duration),
    /// A hold that is given back so long after its answer.
    Released(Duration),
    /// A hold that nobody comes back for.
    Forgotten,
}

/// The errands of a scenario at a number of sites.
#[derive(Debug, Clone)]
pub struct Workload {
    scenario: Scenario,
    sites: usize,
}

impl Workload {
    /// At so many sites; at least one.
    pub fn new(scenario: &Scenario, sites: usize) -> Self {
        Self { scenario: scenario.clone(), sites }
    }

    /// The purchases that begin together as number `ordinal`: one, or two of the same person at different sites.
    pub fn errands(&self, ordinal: u64) -> impl Iterator<Item = Errand> + use<> {
        let mut chance = Chance::of(self.scenario.seed, "errands", ordinal);
        let people = &self.scenario.people;
        let buyer = if chance.happens(people.hot_share) || people.hot == people.count {
            chance.below(people.hot)
        } else {
            people.hot + chance.below(people.count - people.hot)
        };
        let sites = u64::try_from(self.sites).unwrap_or(u64::MAX);
        let site = chance.below(sites);
        let first = self.errand(&mut chance, buyer, site);
        let twice = chance.happens(people.twice_share) && sites > 1;
        let second = twice.then(|| {
            let other = (site + 1 + chance.below(sites - 1)) % sites;
            self.errand(&mut chance, buyer, other)
        });
        std::iter::once(first).chain(second)
    }

    fn errand(&self, chance: &mut Chance, buyer: u64, site: u64) -> Errand {
        let Scenario { purchases, holds, sites, .. } = &self.scenario;
        let quantity = weighted(chance, &purchases.units).copied().unwrap_or(1);
        let course = if chance.happens(purchases.hold_share) {
            becomes_of_hold(chance, holds)
        } else if chance.happens(purchases.void_share) {
            Course::Voided(pause(chance))
        } else {
            Course::Sale
        };
        let again = chance.happens(purchases.retry_share).then(|| Duration::from_millis(chance.below(RETRY_MS)));
        Errand {
            buyer,
            site: usize::try_from(site).unwrap_or_default(),
            terminal: u32::try_from(chance.below(sites.terminals.into())).unwrap_or_default(),
            quantity,
            course,
            again,
            resolved: chance.happens(purchases.resolve_share),
        }
    }

    /// When the errands of an open loop begin, since the run began, in order: number 0, 1, 2, … Empty for a closed loop.
    pub fn timetable(&self) -> Timetable {
        let phases = match &self.scenario.arrivals {
            Arrivals::Open(phases) => phases.clone(),
            Arrivals::Closed { .. } => Vec::new(),
        };
        let gaps = Chance::of(self.scenario.seed, "timetable", 0);
        Timetable { phases: phases.into_iter(), phase: None, begun: 0.0, due: 0.0, gaps }
    }
}

fn becomes_of_hold(chance: &mut Chance, holds: &HoldMix) -> Course {
    let soon = pause(chance).min(holds.length / 2);
    match chance.unit() {
        share if share < holds.confirmed => Course::Confirmed(soon),
        share if share < holds.confirmed + holds.released => Course::Released(soon),
        share if share < holds.confirmed + holds.released + holds.late => Course::Confirmed(holds.length + TOO_LATE),
        _ => Course::Forgotten,
    }
}

fn pause(chance: &mut Chance) -> Duration {
    let (least, most) = PAUSES_MS;
    Duration::from_millis(least + chance.below(most - least))
}

/// The times of an open loop: independent arrivals whose rate follows the phases.
pub struct Timetable {
    phases: std::vec::IntoIter<Phase>,
    phase: Option<Phase>,
    /// When the phase began, seconds.
    begun: f64,
    /// How many arrivals lie between the beginning of the phase and the next one, by the phase's rate.
    due: f64,
    gaps: Chance,
}

impl Iterator for Timetable {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.due += self.gaps.waiting();
        loop {
            if let Some(phase) = &self.phase {
                let length = phase.length.as_secs_f64();
                let all = (phase.from + phase.to) / 2.0 * length;
                if self.due <= all {
                    return Some(Duration::from_secs_f64(self.begun + reached(phase, self.due)));
                }
                self.due -= all;
                self.begun += length;
            }
            self.phase = Some(self.phases.next()?);
        }
    }
}

/// After how many seconds of a phase so many arrivals are due.
fn reached(phase: &Phase, arrivals: f64) -> f64 {
    let slope = (phase.to - phase.from) / phase.length.as_secs_f64();
    if slope.abs() < 1e-9 {
        return arrivals / phase.from;
    }
    // from·x + slope·x²/2 = arrivals. Its discriminant is 0 at the end of a phase that comes to rest; rounding may take it below.
    let root = (phase.from * phase.from + 2.0 * slope * arrivals).max(0.0).sqrt();
    ((root - phase.from) / slope).clamp(0.0, phase.length.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical() -> Scenario {
        Scenario::built_in("canonical").unwrap().unwrap()
    }

    #[test]
    fn the_same_seed_is_the_same_run_and_another_is_not() {
        let run = |seed| {
            let workload = Workload::new(&Scenario { seed, ..canonical() }, 40);
            let times: Vec<_> = workload.timetable().collect();
            let errands: Vec<_> = (0..500).flat_map(|nth| workload.errands(nth)).collect();
            (times, errands)
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1).0, run(2).0);
        assert_ne!(run(1).1, run(2).1);
    }

    #[test]
    fn arrivals_follow_the_phases() {
        let times: Vec<_> = Workload::new(&canonical(), 40).timetable().collect();
        assert!(times.is_sorted());
        // Each count is drawn: five standard deviations of a Poisson number are allowed.
        for (from, until, expected) in
            [(0, 4, 900.0), (4, 13, 3_600.0), (13, 16, 2_400.0), (16, 20, 800.0), (20, 99, 0.0)]
        {
            let range = Duration::from_secs(from)..Duration::from_secs(until);
            let found = times.iter().filter(|at| range.contains(*at)).count() as f64;
            let off = (found - expected).abs();
            assert!(off <= 5.0 * f64::sqrt(expected), "{found} instead of {expected} from {from} to {until} s");
        }
        // The second half of the ramp from 50 to 400 a second has (225 + 400) ÷ 2 · 2 s.
        let half = Duration::from_secs(2)..Duration::from_secs(4);
        let found = times.iter().filter(|at| half.contains(*at)).count();
        assert!((530..720).contains(&found), "{found}");
    }

    #[test]
    fn a_phase_may_come_to_rest() {
        let phase = Phase { name: "fade".into(), length: Duration::from_secs(10), from: 100.0, to: 0.0 };
        let scenario = Scenario { arrivals: Arrivals::Open(vec![phase]), ..canonical() };
        let times: Vec<_> = Workload::new(&scenario, 1).timetable().collect();
        assert!((390..610).contains(&times.len()), "{}", times.len());
        assert!(times.iter().all(|at| *at <= Duration::from_secs(10)));
    }

    #[test]
    fn what_happens_happens_as_often_as_the_scenario_says() {
        let scenario = canonical();
        let workload = Workload::new(&scenario, 40);
        let many = 40_000;
        let together: Vec<Vec<Errand>> = (0..many).map(|nth| workload.errands(nth).collect()).collect();
        let twice = together.iter().filter(|errands| errands.len() == 2).count() as f64 / many as f64;
        assert!((twice - 0.08).abs() < 0.01, "{twice}");
        assert!(together.iter().filter(|e| e.len() == 2).all(|e| e[0].buyer == e[1].buyer && e[0].site != e[1].site));
        let errands: Vec<Errand> = together.concat();
        let share = |what: &dyn Fn(&Errand) -> bool| {
            errands.iter().filter(|errand| what(errand)).count() as f64 / errands.len() as f64
        };
        let hold = |e: &Errand| !matches!(e.course, Course::Sale | Course::Voided(_));
        for (name, found, expected) in [
            ("hot", share(&|e| e.buyer < 50), 0.1),
            ("again", share(&|e| e.again.is_some()), 0.08),
            ("hold", share(&hold), 0.15),
            ("forgotten", share(&|e| e.course == Course::Forgotten), 0.15 * 0.15),
            ("void", share(&|e| matches!(e.course, Course::Voided(_))), 0.85 * 0.06),
            ("two units", share(&|e| e.quantity == 2), 0.5),
            ("first site", share(&|e| e.site == 0), 1.0 / 40.0),
        ] {
            assert!((found - expected).abs() < 0.01, "{name}: {found} instead of {expected}");
        }
        assert!(errands.iter().all(|e| e.buyer < 20_000 && e.site < 40 && e.terminal < 2));
    }
}
