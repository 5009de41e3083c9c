//! Mornings of ten thousand places on a simulated clock: what terminals are told, against how long it then took.

use super::*;

/// Numbers that look random and are the same in every run (xorshift).
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }

    /// How many come by chance when so many are expected.
    fn poisson(&mut self, mean: f64) -> u32 {
        let (mut count, mut product) = (0, self.uniform());
        while product > (-mean).exp() {
            (count, product) = (count + 1, product * self.uniform());
        }
        count
    }
}

const PLACES: usize = 10_000;
/// Every twentieth place is asked for.
const ASKED: usize = 20;
const STEP: Duration = Duration::from_millis(250);
/// After which a silent terminal is absent.
const ABSENT_AFTER: f64 = 15.0;

struct Morning {
    name: &'static str,
    /// Admissions a second at this second, when so many of all places were admitted.
    rate: fn(f64, f64) -> f64,
    /// Whether every other terminal is silent.
    ghosts: bool,
    /// From when to when nobody is admitted, in seconds.
    stopped: (f64, f64),
}

const NEVER: (f64, f64) = (f64::INFINITY, f64::INFINITY);

const MORNINGS: [Morning; 5] = [
    Morning { name: "constant", rate: |_, _| 20.0, ghosts: false, stopped: NEVER },
    Morning { name: "halved", rate: |_, done| if done < 0.5 { 20.0 } else { 10.0 }, ghosts: false, stopped: NEVER },
    Morning { name: "stopped", rate: |_, _| 20.0, ghosts: false, stopped: (200.0, 500.0) },
    Morning { name: "doubled", rate: |_, done| if done < 0.5 { 20.0 } else { 40.0 }, ghosts: false, stopped: NEVER },
    Morning { name: "half ghosts", rate: |_, _| 20.0, ghosts: true, stopped: NEVER },
];

/// What a morning's terminals were told.
#[derive(Default)]
struct Told {
    /// |p50 - wait| / wait, of waits of two seconds and more.
    errors: Vec<f64>,
    /// Whether it was over by p90.
    held: Vec<bool>,
    /// When nobody knew, in seconds.
    unknown: Vec<f64>,
    /// When somebody said something, in seconds.
    known: Vec<f64>,
    /// How often an estimate was later than the one before it said.
    rose: usize,
}

/// What was said when, and about which place.
struct Said {
    place: usize,
    at: f64,
    estimate: Option<Estimate>,
}

fn spend(morning: &Morning, draws: &mut Draws) -> Told {
    let is_ghost = |place: usize| morning.ghosts && place % 2 == 1;
    let mut pace = Pace::default();
    let mut said: Vec<Said> = Vec::new();
    let mut admitted_at = vec![f64::INFINITY; PLACES];
    // When each of those that are asked for is told again. They do not all begin at once.
    let mut next: Vec<(usize, f64)> = (0..PLACES).step_by(ASKED).map(|place| (place, 10.0 * draws.uniform())).collect();
    let (mut now, mut head) = (Duration::from_secs(3_600), 0);
    let begin = now;
    // Seats become free by chance, and a little faster or slower from minute to minute.
    let mut breath: f64 = 0.0;
    while head < PLACES {
        now += STEP;
        let at = (now - begin).as_secs_f64();
        breath = breath * 0.995 + 0.02 * (draws.uniform() - 0.5);
        let runs = at < morning.stopped.0 || at >= morning.stopped.1;
        #[expect(clippy::cast_precision_loss, reason = "ten thousand")]
        let rate = (morning.rate)(at, head as f64 / PLACES as f64) * (1.0 + breath).max(0.0);
        let mut free = if runs { draws.poisson(rate * STEP.as_secs_f64()) } else { 0 };
        let count_before = free;
        while free > 0 && head < PLACES {
            // A silent terminal that is not known to be absent takes a seat like others.
            if !is_ghost(head) || at < ABSENT_AFTER {
                admitted_at[head] = at;
                free -= 1;
            }
            head += 1;
        }
        if count_before > free {
            pace.admitted(count_before - free, now);
        }
        for (place, due) in next.iter_mut().filter(|(place, due)| *place >= head && *due <= at) {
            let ahead = (head..*place).filter(|place| !is_ghost(*place) || at < ABSENT_AFTER).count();
            let estimate = pace.estimate(u32::try_from(ahead).unwrap(), now);
            said.push(Said { place: *place, at, estimate });
            *due = at + estimate.map_or(10.0, |estimate| (estimate.p50.as_secs_f64() / 20.0).clamp(2.0, 30.0));
        }
    }
    let mut told = Told::default();
    let mut last: std::collections::HashMap<usize, f64> = std::collections::HashMap::new();
    for Said { place, at, estimate } in said {
        let wait = admitted_at[place] - at;
        let Some(Estimate { p50, p90 }) = estimate else {
            told.unknown.push(at);
            continue;
        };
        told.known.push(at);
        told.held.push(wait <= p90.as_secs_f64());
        if wait >= 2.0 {
            told.errors.push((p50.as_secs_f64() - wait).abs() / wait);
        }
        let then = at + p50.as_secs_f64();
        told.rose += usize::from(last.insert(place, then).is_some_and(|before| then > before));
    }
    told
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred thousand")]
fn percent(held: &[bool]) -> f64 {
    100.0 * held.iter().filter(|held| **held).count() as f64 / held.len() as f64
}

#[test]
fn estimates_hold_on_simulated_mornings() {
    let mut draws = Draws(20_200_309);
    let (mut errors, mut held) = (Vec::new(), Vec::new());
    for morning in &MORNINGS {
        let mut told = spend(morning, &mut draws);
        println!(
            "{:12} {:6} estimates: p90 held for {:5.1} %, median error of p50 {:4.1} %; unknown {:5} times; later than before {:5} times",
            morning.name,
            told.held.len(),
            percent(&told.held),
            100.0 * median(&mut told.errors),
            told.unknown.len(),
            told.rose,
        );
        // Before enough was seen, and a few seconds after admissions have stopped, nobody knows.
        assert!(told.known.iter().all(|at| *at >= 1.0));
        let (from, to) = morning.stopped;
        let late = told.known.iter().filter(|at| **at > from + 10.0 && **at < to).count();
        assert_eq!(late, 0, "something is said while nobody is admitted");
        assert!(from.is_infinite() || told.unknown.iter().filter(|at| **at > from && **at < to).count() > 1_000);
        assert!(told.rose > 0, "an estimate may rise");
        errors.append(&mut told.errors);
        held.append(&mut told.held);
    }
    let (error, held) = (100.0 * median(&mut errors), percent(&held));
    println!("all of them: p90 held for {held:.1} %, median error of p50 {error:.1} %");
    assert!(error <= 25.0);
    assert!((85.0..=95.0).contains(&held));
}
