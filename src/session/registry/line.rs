//! The line as one instance knows it: every place, kept up with the door's changes, and the snapshot from which terminals are
//! told where they stand.
//!
//! A position is the number of places of the same rank with a smaller number, present or absent, plus one; a seat that its
//! terminal has not come for counts among them, because it may become the place again that it was. Newcomers have larger
//! numbers and leavers only make the count smaller, so it never rises; a snapshot that is older than the truth
//! shows no less than it, provided that it has the place itself.

use std::collections::{BTreeMap, HashMap};

use crate::ids::TerminalId;
use crate::museum::Mutant;
use crate::session::{Change, InLine, Place, Presence, SeatKey};

/// Every place that this instance knows of, and every seat that may become one again.
#[derive(Debug, Default)]
pub(super) struct Line {
    places: HashMap<SeatKey, InLine>,
    /// Rank and number of each, and whether its terminal is present.
    order: BTreeMap<(u16, u64), bool>,
    /// How many of them are seats.
    granted: usize,
    changed: bool,
}

impl Line {
    /// Forgets everything and begins with these.
    pub(super) fn begin(&mut self, line: Vec<InLine>) {
        *self = Self { changed: true, ..Self::default() };
        for in_line in line {
            self.stand(in_line);
        }
    }

    /// Takes up a change. What it says may be known already, if the line was read after it.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Waits(place) => self.stand(InLine { place: *place, presence: Presence::Present }),
            Change::Admitted { seat, seq } => {
                let place = Place { key: seat.key, terminal: seat.terminal, seq: *seq };
                self.stand(InLine { place, presence: Presence::Granted { fence: seat.fence } });
            }
            Change::Ended(ended) => {
                self.leave(ended.seat, |it| it.presence == Presence::Granted { fence: ended.fence });
            }
            Change::Left { key, seq, .. } => self.leave(*key, |it| it.place.seq == *seq),
            Change::Absent(key) => self.turn(*key, Presence::Absent),
            Change::Present(key) => self.turn(*key, Presence::Present),
            Change::Switched => {}
        }
    }

    fn stand(&mut self, in_line: InLine) {
        let InLine { place, presence } = in_line;
        self.leave(place.key, |_| true);
        self.changed = true;
        self.granted += usize::from(in_line.is_granted());
        self.places.insert(place.key, in_line);
        self.order.insert((place.key.slot, place.seq), presence == Presence::Present);
    }

    fn leave(&mut self, key: SeatKey, if_it: impl Fn(&InLine) -> bool) {
        if let Some(it) = self.places.get(&key).copied().filter(if_it) {
            self.changed = true;
            self.places.remove(&key);
            self.order.remove(&(key.slot, it.place.seq));
            self.granted -= usize::from(it.is_granted());
        }
    }

    fn turn(&mut self, key: SeatKey, presence: Presence) {
        if let Some(place) = self.waiting(key).map(|it| it.place) {
            self.stand(InLine { place, presence });
        }
    }

    fn waiting(&self, key: SeatKey) -> Option<&InLine> {
        self.places.get(&key).filter(|it| !it.is_granted())
    }

    /// Whether this place is in the line, as far as is known, and its terminal is this one.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.waiting(place.key).is_some_and(|it| it.place == *place)
    }

    /// Who waits in a slot.
    pub(super) fn who(&self, key: SeatKey) -> Option<TerminalId> {
        self.waiting(key).map(|it| it.place.terminal)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.granted
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
        Some(Snapshot { ranks, waiting: self.len() })
    }
}

impl InLine {
    fn is_granted(&self) -> bool {
        matches!(self.presence, Presence::Granted { .. })
    }
}

/// The line at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    ranks: Vec<Rank>,
    /// How many wait.
    waiting: usize,
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

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether somebody of a lower rank than this is present.
    pub(super) fn somebody_goes_before(&self, slot: u16) -> bool {
        self.ranks.iter().take(usize::from(slot)).any(|rank| rank.present > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Ended, EndedWhy, LeftWhy, Seat};

    fn place(site: &str, slot: u16, seq: u64) -> Place {
        Place { key: SeatKey { site: site.parse().unwrap(), slot }, terminal: "t".parse().unwrap(), seq }
    }

    #[test]
    fn positions_count_the_absent_and_waiting_times_do_not() {
        let mut line = Line::default();
        let (a, b, c, second) = (place("a", 0, 3), place("b", 0, 5), place("c", 0, 9), place("a", 1, 4));
        line.begin([a, second].map(|place| InLine { place, presence: Presence::Present }).into());
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

        // Granted its seat, it counts until its terminal has come for it, and further if it does not come.
        let seat = Seat { key: a.key, terminal: a.terminal, fence: 1 };
        line.apply(&Change::Admitted { seat, seq: 3 });
        assert_eq!(stands(&mut line, &c), Some(Stands { position: 3, ahead: 1 }));
        assert!(!line.has(&a) && line.who(a.key).is_none() && line.len() == 3);
        let ended = |fence| Change::Ended(Ended { seat: a.key, fence, why: EndedWhy::Expired });
        [ended(1), Change::Waits(a), Change::Absent(a.key)].iter().for_each(|change| line.apply(change));
        assert_eq!(stands(&mut line, &c), Some(Stands { position: 3, ahead: 1 }));
        let seat = Seat { fence: 2, ..seat };
        [Change::Present(a.key), Change::Admitted { seat, seq: 3 }, ended(1)].iter().for_each(|it| line.apply(it));
        assert_eq!(stands(&mut line, &c), Some(Stands { position: 3, ahead: 1 }), "an ending of the grant before");
        line.apply(&ended(2));
        line.apply(&Change::Left { key: b.key, seq: 4, why: LeftWhy::Closed });
        assert_eq!(stands(&mut line, &c), Some(Stands { position: 2, ahead: 1 }), "b's place has another number");
        // Changes that the reading of the whole line had seen already.
        line.apply(&Change::Admitted { seat, seq: 3 });
        line.apply(&ended(2));
        assert_eq!(stands(&mut line, &c), Some(Stands { position: 2, ahead: 1 }));
        assert!(line.has(&b) && !line.has(&a) && line.len() == 3);
        assert!(line.picture().is_none(), "nothing has changed");
    }
}
