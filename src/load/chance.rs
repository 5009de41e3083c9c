//! Random choices that anybody can make again: the same seed and ordinal give the same values on every machine and in every
//! process of a run. SplitMix64 of Steele, Lea and Flood (2014).

use std::time::Duration;

/// Where one thing's choices come from.
#[derive(Debug, Clone)]
pub struct Chance(u64);

/// What SplitMix64 adds at each step: 2^64 divided by the golden ratio, odd.
pub(super) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Chance {
    /// The choices of thing number `ordinal` of a kind (`salt`) under a seed.
    pub fn of(seed: u64, salt: &str, ordinal: u64) -> Self {
        let mut chance = Self(seed);
        for byte in salt.bytes() {
            chance.0 = chance.bits() ^ u64::from(byte);
        }
        chance.0 = chance.bits() ^ ordinal;
        chance.0 = chance.bits();
        chance
    }

    /// Sixty-four bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// At least 0 and less than 1.
    pub fn unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
        let numerator = (self.bits() >> 11) as f64;
        numerator / 9_007_199_254_740_992.0
    }

    /// Whether something happens that happens in so many cases of one.
    pub fn happens(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// One of so many, counted from 0; 0 where there are none.
    pub fn below(&mut self, many: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(many);
        u64::try_from(wide >> 64).unwrap_or_default()
    }

    /// A time that is at least and at most so long.
    pub fn within(&mut self, (least, most): (Duration, Duration)) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.unit())
    }

    /// The waiting time until the next of a stream of independent events that come at one a unit of time on the average.
    pub fn waiting(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_even_and_the_same_again() {
        let mut hits = [0; 10];
        for ordinal in 0..20_000 {
            let mut chance = Chance::of(7, "people", ordinal);
            hits[usize::try_from(chance.below(10)).unwrap()] += 1;
            assert_eq!(Chance::of(7, "people", ordinal).bits(), Chance::of(7, "people", ordinal).bits());
        }
        assert!(hits.iter().all(|hit| (1_800..2_200).contains(hit)), "{hits:?}");
        assert_ne!(Chance::of(7, "people", 1).bits(), Chance::of(7, "errands", 1).bits());
        assert_ne!(Chance::of(7, "people", 1).bits(), Chance::of(8, "people", 1).bits());
        assert_eq!(Chance::of(7, "people", 1).below(0), 0);
    }

    #[test]
    fn waiting_times_are_one_on_the_average() {
        let mut chance = Chance::of(1, "waiting", 0);
        let mean = (0..50_000).map(|_| chance.waiting()).sum::<f64>() / 50_000.0;
        assert!((0.98..1.02).contains(&mean), "{mean}");
    }
}
