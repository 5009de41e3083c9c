//! Five times the load that the service can take: what it still sells, and how soon it turns the others away.

use std::time::Duration;

use super::measure::Measured;
use super::offered::Offered;
use super::options::Options;
use super::redis::{DURABLE, Redis};
use super::systems::OnRedis;
use crate::Failure;

/// Sales a second at which the service's peak is held, so that one machine can offer five times as many.
const HELD_AT: f64 = 3_000.0;
/// How near to it is good enough, as a ratio.
const NEAR: std::ops::Range<f64> = 0.8..1.25;
/// Calls a second that it is then offered.
const OFFERED: f64 = 5.0 * HELD_AT;
/// The largest limit that is tried: two such groups are as many calls as eight connections carry.
const LARGEST_GROUP: usize = 250;
/// How often the limit is adjusted: what a group takes depends on the disk.
const TRIES: usize = 6;
/// How long each limit is tried.
const TRIAL: Duration = Duration::from_secs(1);

/// What was reached.
pub struct Overload {
    /// Calls that one trip may carry, at the only lane there is.
    pub group: usize,
    pub peak: Measured,
    pub offered: f64,
    pub answered: Offered,
}

impl Overload {
    pub fn goodput_over_peak(&self) -> f64 {
        self.answered.goodput() / self.peak.per_second()
    }

    pub async fn measure(options: &Options) -> Result<Self, Failure> {
        let (group, held) = hold(options).await?;
        eprintln!("overload: the peak, and then {OFFERED} offered a second");
        let peak = held.sell(options.span()).await?;
        let answered = held.sell_open(OFFERED, options.span()).await?;
        Ok(Self { group, peak, offered: OFFERED, answered })
    }
}

/// A service whose one lane carries so few calls at a time that it sells about [`HELD_AT`].
async fn hold(options: &Options) -> Result<(usize, OnRedis), Failure> {
    let mut group = 4;
    for _ in 0..TRIES {
        // One group under way and one that waits keep the lane busy, and nobody has to be turned away.
        let options = Options { connections: 8, in_flight: 2 * group, ..options.clone() };
        let lanes = [("LANES__COUNT", 1), ("LANES__GROUP", group), ("LANES__QUEUE", 4 * group + 8)];
        let settings = lanes.map(|(name, value)| (name, value.to_string()));
        let held = OnRedis::over(Redis::start(&DURABLE).await?, &options, &settings).await?;
        let reached = held.sell(TRIAL).await?.per_second();
        eprintln!("overload: groups of {group} sell {reached:.0} a second");
        if NEAR.contains(&(reached / HELD_AT)) {
            return Ok((group, held));
        }
        group = ((group as f64 * HELD_AT / reached).round() as usize).clamp(1, LARGEST_GROUP);
    }
    Err(format!("the peak could not be held at {HELD_AT} a second; is the machine busy with something else?").into())
}
