//! What a run was asked to be: its seed, its length, and where its table goes. From the seed follow the plan's choices: who buys
//! what where, in which order each caller goes on, and after how long each fault strikes.
//!
//! Processes and sockets keep their own time, so the same seed gives the same plan and not the same interleaving: a fault that was
//! seen under one seed is struck again by the same plan, and may need more than one run of it.

use std::time::Duration;

use rationd::config::environment;
use rationd::load::chance::Chance;
use rationd::load::workload::Workload;
use sha2::{Digest, Sha256};

/// The seed where nobody names one: every run of the short form has the same plan.
const SEED: u64 = 2021;
/// How many purchases of a plan are part of its name.
const NAMED: u64 = 2_000;

/// What was asked for through the environment (`tests/faults` sets it).
pub struct Settings {
    /// Where every choice comes from.
    pub seed: u64,
    /// Whether faults strike as often as a release asks for.
    pub long: bool,
    /// How often they strike, where somebody says so.
    pub strikes: Option<u32>,
    /// The directory in which rows are written down.
    pub out: Option<String>,
}

impl Settings {
    pub fn read() -> Self {
        let find =
            |name: &str| environment().find(|(key, _)| key == name).and_then(|(_, value)| value.into_string().ok());
        let number =
            |name| find(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")));
        Self {
            seed: number("RATIOND_FAULTS_SEED").unwrap_or(SEED),
            long: find("RATIOND_FAULTS_LONG").is_some(),
            strikes: number("RATIOND_FAULTS_STRIKES").and_then(|strikes| u32::try_from(strikes).ok()),
            out: find("RATIOND_FAULTS_OUT"),
        }
    }
}

/// When the faults of a row strike, each so long after the one before is over, and what is chosen beside that.
pub struct Plan {
    pub pauses: Vec<Duration>,
    /// The strikes' own choices.
    pub chance: Chance,
}

impl Plan {
    /// Of a row under a seed.
    pub fn of(seed: u64, row: &str, strikes: u32) -> Self {
        let mut chance = Chance::of(seed, row, 0);
        let pauses = (0..strikes).map(|_| chance.within((Duration::from_millis(20), Duration::from_millis(250))));
        Self { pauses: pauses.collect(), chance }
    }

    /// A name for the plan: equal for equal plans.
    pub fn hash(&self, workload: &Workload) -> String {
        let mut hash = Sha256::new();
        for pause in &self.pauses {
            hash.update(pause.as_nanos().to_be_bytes());
        }
        hash.update(self.chance.clone().bits().to_be_bytes());
        for errand in (0..NAMED).flat_map(|ordinal| workload.errands(ordinal)) {
            hash.update(format!("{errand:?}"));
        }
        hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[test]
fn the_same_seed_is_the_same_plan_and_another_is_another() {
    let hash = |seed, row| Plan::of(seed, row, 20).hash(&super::crowd::workload(seed));
    for seed in 0..50 {
        assert_eq!(hash(seed, "redis killed"), hash(seed, "redis killed"), "seed {seed}");
    }
    assert_ne!(hash(1, "redis killed"), hash(2, "redis killed"));
    assert_ne!(hash(1, "redis killed"), hash(1, "service killed"));
}
