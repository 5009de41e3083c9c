//! What was promised, held against what the clients saw. Pure.

use std::time::Duration;

use serde::Serialize;

use super::morning::Limits;
use super::notes::{Sample, Stay, Taken};

/// How often something was found that must not be, in how many cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counted {
    pub(super) count: u64,
    pub(super) samples: u64,
}

impl Counted {
    pub(super) fn add(&mut self, found: bool) {
        self.count += u64::from(found);
        self.samples += 1;
    }
}

/// What a switch to one terminal a site came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Switch {
    /// Sessions that were one too many at their sites when it was asked for.
    pub(super) extra: u64,
    /// Until the last of so many had heard that it is over; `None` if one never did.
    pub(super) took: Option<Duration>,
}

impl Switch {
    /// Asked for at this time.
    pub(super) fn of(stays: &[Stay], at: Duration) -> Self {
        let lasts = |stay: &&Stay| stay.from <= at && stay.known.is_none_or(|known| known > at);
        let mut lasting: Vec<&Stay> = stays.iter().filter(lasts).collect();
        // Who never heard stands last, and stays if somebody may.
        lasting.sort_by_key(|stay| (stay.site, stay.known.unwrap_or(Duration::MAX)));
        let extra: Vec<Option<Duration>> = lasting
            .chunk_by(|one, other| one.site == other.site)
            .flat_map(|site| site.split_last().map_or(&[][..], |(_, others)| others))
            .map(|stay| stay.known)
            .collect();
        let last = extra.iter().try_fold(at, |last, known| known.map(|known| last.max(known)));
        Self { extra: extra.len() as u64, took: last.map(|last| last - at) }
    }
}

/// All that was checked of sessions and places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Checks {
    /// Admissions that brought a site above its cap.
    pub(super) cap_violations: Counted,
    /// Answers to a place token that said that the place is no more.
    pub(super) place_resets: Counted,
    /// Positions that were higher than the one before in the same rank.
    pub(super) position_rises: Counted,
    /// Admissions that brought the nation above its capacity, and looks at the store that saw it there.
    pub(super) over_admissions: Counted,
    /// Sales that were tried with something else than a session's token.
    pub(super) bypasses: Counted,
    /// `None` where no switch was moved.
    pub(super) switch: Option<Switch>,
}

impl Checks {
    /// The first `single` sites have one seat each, the others the cap.
    pub(super) fn of(taken: &Taken, limits: &Limits, single: usize) -> Self {
        Self {
            cap_violations: above_caps(&taken.stays, |site| if site < single { 1 } else { limits.cap }),
            place_resets: taken.place_resets,
            position_rises: taken.position_rises,
            over_admissions: over_admissions(&taken.stays, &taken.samples, limits.capacity),
            bypasses: taken.bypasses,
            switch: taken.switched.map(|at| Switch::of(&taken.stays, at)),
        }
    }

    /// With their names.
    pub(super) fn named(&self) -> [(&'static str, Counted); 5] {
        [
            ("cap_violations", self.cap_violations),
            ("place_resets", self.place_resets),
            ("position_rises", self.position_rises),
            ("over_admissions", self.over_admissions),
            ("bypasses", self.bypasses),
        ]
    }

    pub(super) fn are_clean(&self) -> bool {
        self.named().iter().all(|(_, counted)| counted.count == 0) && !self.switch_failed()
    }

    /// Whether a session that was one too many never ended.
    pub(super) fn switch_failed(&self) -> bool {
        self.switch.is_some_and(|switch| switch.took.is_none())
    }
}

/// Whether a position rose; `None` where it cannot be compared: the rank is another one.
pub(super) fn rises(before: (u32, u64), now: (u32, u64)) -> Option<bool> {
    (before.0 == now.0).then_some(now.1 > before.1)
}

fn above_caps(stays: &[Stay], cap: impl Fn(usize) -> u32) -> Counted {
    let mut by_site = stays.to_vec();
    by_site.sort_by_key(|stay| stay.site);
    let count = by_site
        .chunk_by(|one, other| one.site == other.site)
        .map(|stays| above(stays, stays.first().map_or(0, |stay| cap(stay.site))))
        .sum();
    Counted { count, samples: stays.len() as u64 }
}

fn over_admissions(stays: &[Stay], samples: &[Sample], capacity: u32) -> Counted {
    let seen = samples.iter().filter_map(|sample| sample.store);
    let (looks, over) =
        seen.fold((0, 0), |(looks, over), seen| (looks + 1, over + u64::from(seen.live > u64::from(capacity))));
    Counted { count: above(stays, capacity) + over, samples: stays.len() as u64 + looks }
}

/// How many of these began while at least so many others lasted. What ends and what begins at one moment do not meet.
fn above(stays: &[Stay], most: u32) -> u64 {
    let mut edges: Vec<(Duration, bool)> = Vec::with_capacity(stays.len() * 2);
    for stay in stays {
        let until = stay.until.unwrap_or(stay.from);
        // One of no length meets nobody.
        if until > stay.from {
            edges.extend([(stay.from, true), (until, false)]);
        }
    }
    edges.sort_unstable();
    let (mut live, mut found) = (0_u64, 0);
    for (_, begins) in edges {
        if begins {
            live += 1;
            found += u64::from(live > u64::from(most));
        } else {
            live -= 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::store::Seen;
    use super::*;

    fn stay(site: usize, from: u64, until: u64) -> Stay {
        let until = Some(Duration::from_secs(until));
        Stay { site, from: Duration::from_secs(from), until, known: until }
    }

    #[test]
    fn a_site_above_its_cap_is_found_and_one_after_the_other_is_not() {
        let found = |stays: &[Stay]| above_caps(stays, |site| if site == 0 { 1 } else { 2 });
        let one_after_the_other = [stay(0, 0, 5), stay(0, 5, 9), stay(1, 0, 9), stay(1, 1, 9)];
        assert_eq!(found(&one_after_the_other), Counted { count: 0, samples: 4 });
        let overlapping = [stay(0, 0, 5), stay(0, 4, 9), stay(1, 0, 9), stay(1, 1, 9), stay(1, 8, 9)];
        assert_eq!(found(&overlapping), Counted { count: 2, samples: 5 });
        // Nobody knows when the service ended the first one.
        assert_eq!(found(&[stay(0, 1, 1), stay(0, 0, 9)]).count, 0);
    }

    #[test]
    fn the_nation_above_its_capacity_is_found_by_clients_and_by_the_store() {
        let stays = [stay(0, 0, 5), stay(1, 1, 5), stay(2, 2, 5)];
        let sample = |live| Sample { at: Duration::ZERO, store: Some(Seen { live, line: 0 }) };
        let silent = Sample { at: Duration::ZERO, store: None };
        assert_eq!(over_admissions(&stays, &[sample(3), silent], 3), Counted { count: 0, samples: 4 });
        assert_eq!(over_admissions(&stays, &[sample(3), silent], 2), Counted { count: 2, samples: 4 });
    }

    #[test]
    fn a_switch_has_come_to_its_end_when_all_but_one_of_each_site_have_heard() {
        let never = |site| Stay { until: None, known: None, ..stay(site, 0, 0) };
        // One of the first site went before it; one of the second came after it.
        let stays =
            [stay(0, 0, 9), stay(0, 1, 12), never(0), stay(1, 0, 30), stay(1, 11, 40), stay(2, 0, 13), stay(2, 3, 11)];
        let seconds = Duration::from_secs;
        assert_eq!(Switch::of(&stays, seconds(10)), Switch { extra: 2, took: Some(seconds(2)) });
        assert_eq!(Switch::of(&[&stays[..], &[never(0)]].concat(), seconds(10)), Switch { extra: 3, took: None });
        assert_eq!(Switch::of(&[never(0), never(1)], seconds(10)), Switch { extra: 0, took: Some(Duration::ZERO) });
    }

    #[test]
    fn only_positions_of_one_rank_are_compared() {
        assert_eq!(rises((1, 7), (1, 7)), Some(false));
        assert_eq!(rises((1, 7), (1, 8)), Some(true));
        assert_eq!(rises((1, 7), (0, 800)), None);
    }
}
