//! How long a place still has to wait, from how fast places were admitted lately.
//!
//! With `n` present places to be admitted before and with it, and admissions at a rate λ, the wait is about n ÷ λ. Its
//! spread has two parts: admissions do not come evenly (the variance of a sum of n gaps, from the counts of the last
//! bins), and the rate will not stay what it was ([`DRIFT`]: on the simulated mornings of `pace/tests.rs`, on which it stays,
//! halves, doubles and stops, nine waits of ten are then over by [`Estimate::p90`]). Nothing is said when too little was seen,
//! or when nobody has been admitted for much longer than usual; what was before such a stop says nothing about what comes
//! after it.

use std::collections::VecDeque;
use std::time::Duration;

/// Admissions are counted in bins of this length.
const BIN: Duration = Duration::from_secs(1);
/// For how long they are remembered.
const MEMORY: usize = 120;
/// The rate is that of the last this many bins, or of as many more as it takes to see [`ENOUGH`].
const RECENT: f64 = 20.0;
/// Fewer admissions than this say nothing about the next ones.
const ENOUGH: u32 = 20;
/// Nobody was admitted for this many times the usual gap, and for [`SILENT_FOR`] bins: admissions have stopped.
const SILENT_GAPS: f64 = 10.0;
/// See [`SILENT_GAPS`].
const SILENT_FOR: f64 = 5.0;
/// How much the rate may change over a wait: the relative standard deviation of n ÷ λ.
const DRIFT: f64 = 0.3;
/// The 90th percentile of a normal distribution.
const P90: f64 = 1.2816;

/// How long a place still waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// As likely longer as shorter.
    pub p50: Duration,
    /// In nine cases of ten it is over by then.
    pub p90: Duration,
}

/// How many places were admitted lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// One count a bin, the oldest first; the last one is still being counted.
    bins: VecDeque<u32>,
    /// The number of the last bin, in bins since the clock's start.
    last: u64,
}

impl Pace {
    /// So many were admitted at this monotonic time.
    pub(super) fn admitted(&mut self, count: u32, now: Duration) {
        self.advance(now);
        if let Some(bin) = self.bins.back_mut() {
            *bin += count;
        }
    }

    /// What was counted is not to be relied on any more: the mode or the capacity has changed.
    pub(super) fn forget(&mut self) {
        self.bins.clear();
    }

    fn advance(&mut self, now: Duration) {
        let bin = u64::try_from(now.as_millis() / BIN.as_millis()).unwrap_or(u64::MAX);
        if self.bins.is_empty() {
            self.bins.push_back(0);
            self.last = bin;
        }
        for _ in self.last..bin.min(self.last + MEMORY as u64) {
            self.bins.push_back(0);
        }
        self.last = self.last.max(bin);
        while self.bins.len() > MEMORY {
            self.bins.pop_front();
        }
    }

    /// The wait of a place before which `ahead` others are admitted.
    pub(super) fn estimate(&mut self, ahead: u32, now: Duration) -> Option<Estimate> {
        self.advance(now);
        // The bin that is still being counted would pull the rate down.
        let (mut bins, mut seen, mut squares) = (0.0, 0_u32, 0.0);
        // The bins without anybody since the newest one, and those since somebody was admitted last.
        let (mut silent, mut gap) = (0.0, 0.0);
        for count in self.bins.iter().rev().skip(1).copied() {
            if bins >= RECENT && seen >= ENOUGH {
                break;
            }
            gap = if count == 0 { gap + 1.0 } else { 0.0 };
            if seen == 0 && count == 0 {
                silent = gap;
            }
            if seen > 0 && is_a_stop(gap, f64::from(seen) / (bins + 1.0 - gap)) {
                bins -= gap - 1.0;
                break;
            }
            bins += 1.0;
            seen += count;
            squares += f64::from(count) * f64::from(count);
        }
        let sum = f64::from(seen);
        let rate = sum / bins;
        if seen < ENOUGH || is_a_stop(silent, rate) {
            return None;
        }
        // The index of dispersion: 1 for arrivals by chance, less for an even flow, more for bursts.
        let dispersion = ((squares / bins - rate * rate) / rate).max(0.1);
        let n = f64::from(ahead) + 1.0;
        let mean = n / rate;
        let chance = n * dispersion / (rate * rate);
        let unsure = mean * mean * (dispersion / sum + DRIFT * DRIFT);
        let deviation = (chance + unsure).sqrt();
        Some(Estimate { p50: Duration::from_secs_f64(mean), p90: Duration::from_secs_f64(mean + P90 * deviation) })
    }
}

/// Whether so many bins without anybody are many at this rate.
fn is_a_stop(silent: f64, rate: f64) -> bool {
    silent > SILENT_FOR && silent * rate > SILENT_GAPS
}

#[cfg(test)]
mod tests;
