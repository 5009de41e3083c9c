//! The line as one instance knows it: every place, kept up with the door's changes, and the snapshot from which terminals are
//! told where they stand.
//!
//! A position is the number of places of the same rank with a smaller number, present or absent, plus one. Newcomers have
//! larger numbers and leavers only make the count smaller, so it never rises; a snapshot that is older than the truth
//! shows no less than it, provided that it has the place itself.

use std::collections::{BTreeMap, HashMap};

use crate::ids::TerminalId;
use crate::museum::Mutant;
use crate::session::{Change, InLine, Place, SeatKey};

/// Every place that this instance knows of.
#[derive(Debug, Default)]
pub(super) struct Line {
    places: HashMap<SeatKey, InLine>,
    /// Rank and number of every place, and whether its terminal is present.
    order: BTreeMap<(u16, u64), bool>,
    changed: bool,
}

impl Line {
    /// Forgets everything and begins with these.
    pub(super) fn begin(&mut self, line: Vec<InLine>) {
        *self = Self { changed: true, ..Self::default() };
        for InLine { place, absent } in line {
            self.stand(place, absent);
        }
    }

    /// Takes up a change. What it says may be known already, if the line was read after it.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Waits(place) => self.stand(*place, false),
            Change::Admitted { seat, seq } => self.leave(seat.key, *seq),
            Change::Left { key, seq, .. } => self.leave(*key, *seq),
            Change::Absent(key) => self.turn(*key, true),
            Change::Present(key) => self.turn(*key, false),
            Change::Ended(_) | Change::Switched => {}
        }
    }

    fn stand(&mut self, place: Place, absent: bool) {
        self.changed = true;
        if let Some(before) = self.places.insert(place.key, InLine { place, absent }) {
            self.order.remove(&(before.place.key.slot, before.place.seq));
        }
        self.order.insert((place.key.slot, place.seq), !absent);
    }

    fn leave(&mut self, key: SeatKey, seq: u64) {
        if self.places.get(&key).is_some_and(|it| it.place.seq == seq) {
            self.changed = true;
            self.places.remove(&key);
            self.order.remove(&(key.slot, seq));
        }
    }

    fn turn(&mut self, key: SeatKey, absent: bool) {
        if let Some(it) = self.places.get_mut(&key) {
            self.changed = true;
            it.absent = absent;
            self.order.insert((key.slot, it.place.seq), !absent);
        }
    }

    /// Whether this place is in the line, as far as is known, and its terminal is this one.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.places.get(&place.key).is_some_and(|it| it.place == *place)
    }

    /// Who waits in a slot.
    pub(super) fn who(&self, key: SeatKey) -> Option<TerminalId> {
        self.places.get(&key).map(|it| it.place.terminal)
    }

    /// Whether anybody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A picture of the line, if it has changed since the last one was taken.
    pub(super) fn picture(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut ranks: Vec<Rank> = Vec::new();
        for ((rank, seq), present) in &self.order {
            let rank = usize::from(*rank);
            if ranks.len() <= rank {
                ranks.resize_with(rank + 1, Rank::default);
            }
            if let Some(rank) = ranks.get_mut(rank) {
                rank.places.push((*seq, rank.present));
                rank.present += u32::from(*present);
            }
        }
        Some(Snapshot { ranks })
    }
}

/// The line at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    ranks: Vec<Rank>,
}

/// The places of one rank.
#[derive(Debug, Default)]
struct Rank {
    /// The number of each, in order, and how many before it are present.
    places: Vec<(u64, u32)>,
    /// How many are present.
    present: u32,
}

/// Where a place stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stands {
    /// Its position, from 1.
    pub(super) position: u64,
    /// How many present places are admitted before it; of higher ranks those of the lower ones too.
    pub(super) ahead: u32,
}

impl Snapshot {
    /// `None` when the place was not in the line yet, or is not any more.
    pub(super) fn stands(&self, place: &Place) -> Option<Stands> {
        let slot = usize::from(place.key.slot);
        let rank = self.ranks.get(slot)?;
        let at = rank.places.binary_search_by_key(&place.seq, |(seq, _)| *seq).ok()?;
        let (_, ahead) = rank.places.get(at)?;
        let before: u32 = self.ranks.iter().take(slot).map(|rank| rank.present).sum();
        let others = if Mutant::AbsentNotCounted.is_on() { u64::from(*ahead) } else { u64::try_from(at).ok()? };
        Some(Stands { position: others + 1, ahead: before + ahead })
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.ranks.iter().map(|rank| rank.places.len()).sum()
    }

    /// Whether somebody of a lower rank than this is present.
    pub(super) fn somebody_goes_before(&self, slot: u16) -> bool {
        self.ranks.iter().take(usize::from(slot)).any(|rank| rank.present > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{LeftWhy, Seat};

    fn place(site: &str, slot: u16, seq: u64) -> Place {
        Place { key: SeatKey { site: site.parse().unwrap(), slot }, terminal: "t".parse().unwrap(), seq }
    }

    #[test]
    fn positions_count_the_absent_and_waiting_times_do_not() {
        let mut line = Line::default();
        let (a, b, c, second) = (place("a", 0, 3), place("b", 0, 5), place("c", 0, 9), place("a", 1, 4));
        line.begin(vec![InLine { place: a, absent: false }, InLine { place: second, absent: false }]);
        for change in [Change::Waits(b), Change::Waits(c), Change::Absent(a.key)] {
            line.apply(&change);
        }
        let stands = |line: &mut Line, place| line.picture().and_then(|p| p.stands(place));
        assert_eq!(stands(&mut line, &c), Some(Stands { position: 3, ahead: 1 }));
        assert!(line.picture().is_none(), "nothing has changed");

        line.apply(&Change::Present(a.key));
        let picture = line.picture().unwrap();
        assert_eq!(picture.stands(&second), Some(Stands { position: 1, ahead: 3 }));
        assert!(picture.somebody_goes_before(1) && !picture.somebody_goes_before(0));
        assert_eq!(picture.stands(&place("d", 0, 11)), None, "it is not in this picture");

        let seat = Seat { key: a.key, terminal: a.terminal, fence: 1 };
        line.apply(&Change::Admitted { seat, seq: 3 });
        line.apply(&Change::Left { key: b.key, seq: 4, why: LeftWhy::Closed });
        assert_eq!(stands(&mut line, &c), Some(Stands { position: 2, ahead: 1 }), "b's place has another number");
        // A change that the reading of the whole line had seen already.
        line.apply(&Change::Admitted { seat, seq: 3 });
        assert!(line.picture().is_none());
        assert!(line.has(&b) && !line.has(&a) && !line.is_empty());
    }
}
