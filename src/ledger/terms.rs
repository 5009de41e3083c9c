//! What a ledger is begun with and must be opened with ever after, as text that both stores keep beside the ledger's id.
//!
//! Knows nothing about stores, key files or rules: a mark, a yes or no, and a text for each programme.

use std::time::Duration;

use crate::buyer::{OtherRing, Turn};
use crate::ids::ProgrammeCode;
use crate::time::Timestamp;

/// For how long purchases are kept, as of now: what was recorded for as long before a turn of the ring may have to be found after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// By the service's clock.
    pub now: Timestamp,
    /// The longest of all programmes.
    pub length: Duration,
}

impl Kept {
    /// Why a ledger with these texts is not worked with in this turn: it is written under another ring, or was turned to this one so
    /// lately that the key before it, which is not known here, is needed.
    pub(super) fn refuses(self, turn: &Turn, keys: &str, turned: Option<&str>) -> Option<OtherRing> {
        let turned = turned.and_then(|turned| turned.parse::<Timestamp>().ok());
        let until = turned.map(|turned| turned.plus(self.length)).filter(|until| self.now < *until);
        let early = until.filter(|_| turn.previous().is_none());
        turn.refuses(keys).or_else(|| early.map(|until| OtherRing::StillNeeded { ours: turn.ring.id, until }))
    }
}

/// What a ledger is begun with and must be opened with ever after. Under other keys, under a made-up time, or with a
/// programme's code given to another programme or to another scheme of numbers, every buyer is a stranger and can buy
/// again; and receipts given under a simulated clock would come back unmarked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The keys under which buyers get their names. They may turn, one key at a time.
    pub turn: Turn,
    /// How long the key is needed that was left in a turn.
    pub kept: Kept,
    /// Whether the time is made up ([`Clock::is_simulated`](crate::time::Clock::is_simulated)).
    pub simulated_clock: bool,
    /// What each programme's code stands for, in a stable text of the caller's: the programme's id and its scheme of
    /// numbers. A code that the ledger has not met is given to this programme for good; one that is missing here is left
    /// as it stands, so a programme may come and go.
    pub programmes: Vec<(ProgrammeCode, String)>,
}

/// A term that is not as the ledger has it: what is wrong, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OtherTerms {
    /// Other keys.
    #[error(transparent)]
    Keys(OtherRing),
    /// A real clock where a simulated one was, or the reverse.
    #[error("{}", if *.simulated {
        "this ledger was begun under a simulated clock (serve --clock); name another store for real sales"
    } else {
        "this ledger was begun under the real clock; name another store for a simulated one (serve --clock)"
    })]
    Clock {
        /// Whether the ledger's clock is simulated.
        simulated: bool,
    },
    /// A code that means another programme, or the same with another scheme of numbers.
    #[error(
        "in this ledger the code {code} stands for {stands:?} and not for {given:?}, under which every buyer could buy \
         again; give the new programme a `code` of its own, or name another store"
    )]
    Programme {
        /// The code.
        code: ProgrammeCode,
        /// What it stands for in the ledger.
        stands: String,
        /// What it was to stand for.
        given: String,
    },
}

/// The name under which a store keeps the mark of the keys.
pub(super) const KEYS: &str = "keys";
/// The name under which a store keeps when it went over to that mark from another; it stands nowhere before the first turn.
pub(super) const TURNED: &str = "turned";
/// The name under which a store keeps which clock it is.
const CLOCK: &str = "clock";

fn clock(simulated: bool) -> &'static str {
    if simulated { "simulated" } else { "real" }
}

fn programme(code: ProgrammeCode) -> String {
    format!("programme:{code}")
}

impl Terms {
    /// Name and text of what is fixed at the ledger's birth.
    pub(super) fn at_birth(&self) -> [(&'static str, String); 2] {
        [(KEYS, self.turn.ring.to_string()), (CLOCK, clock(self.simulated_clock).to_owned())]
    }

    /// Name and text of each programme, fixed when the ledger first meets it.
    pub(super) fn of_programmes(&self) -> impl Iterator<Item = (String, &str)> {
        self.programmes.iter().map(|(code, text)| (programme(*code), text.as_str()))
    }

    /// Everything in which a ledger differs, from the text that stands in it under each name.
    pub(super) fn differences(&self, stands: impl Fn(&str) -> Option<String>) -> Vec<OtherTerms> {
        let mut found = Vec::new();
        let (keys, turned) = (stands(KEYS).unwrap_or_default(), stands(TURNED));
        found.extend(self.kept.refuses(&self.turn, &keys, turned.as_deref()).map(OtherTerms::Keys));
        if stands(CLOCK).as_deref() != Some(clock(self.simulated_clock)) {
            found.push(OtherTerms::Clock { simulated: !self.simulated_clock });
        }
        for (code, given) in &self.programmes {
            if let Some(stands) = stands(&programme(*code)).filter(|stands| stands != given) {
                found.push(OtherTerms::Programme { code: *code, stands, given: given.clone() });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::buyer::{KeyMark, Neighbour, Ring, Side};

    fn turn(id: u32, mark: &[u8; 8]) -> Turn {
        Turn::at(Ring { id, mark: KeyMark::from_bytes(*mark) })
    }

    /// So many days after 1970.
    fn on_day(day: u64) -> Kept {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Kept { now: Timestamp::EPOCH.plus(days(day)), length: days(15) }
    }

    fn terms() -> Terms {
        Terms {
            turn: turn(1, b"of tests"),
            kept: on_day(0),
            simulated_clock: false,
            programmes: vec![("km".parse().unwrap(), "masks kr".to_owned()), ("x".parse().unwrap(), "x y".to_owned())],
        }
    }

    fn fields(terms: &Terms) -> HashMap<String, String> {
        let at_birth = terms.at_birth().map(|(name, text)| (name.to_owned(), text));
        at_birth.into_iter().chain(terms.of_programmes().map(|(name, text)| (name, text.to_owned()))).collect()
    }

    #[test]
    fn the_texts_in_the_stores_are_fixed() {
        let kept = fields(&terms());
        let text = |name: &str| kept[name].as_str();
        assert_eq!((text("keys"), text("clock"), text("programme:km")), ("1 6f66207465737473", "real", "masks kr"));
        assert_eq!(Terms { simulated_clock: true, ..terms() }.at_birth()[1].1, "simulated");
    }

    #[test]
    fn every_difference_is_told_and_a_programme_may_come_and_go() {
        let kept = fields(&terms());
        let differences = |terms: &Terms| terms.differences(|name| kept.get(name).cloned());
        assert_eq!(differences(&terms()), []);
        let fewer = Terms { programmes: Vec::new(), ..terms() };
        let more = Terms { programmes: vec![("new".parse().unwrap(), "new".to_owned())], ..terms() };
        assert_eq!((differences(&fewer), differences(&more)), (Vec::new(), Vec::new()));

        let code = "km".parse().unwrap();
        let other = Terms {
            turn: turn(1, b"another!"),
            simulated_clock: true,
            programmes: vec![(code, "masks other".to_owned())],
            kept: on_day(0),
        };
        let other_key = OtherRing::OtherKey { ours: 1 };
        let programme = OtherTerms::Programme { code, stands: "masks kr".to_owned(), given: "masks other".to_owned() };
        assert_eq!(
            differences(&other),
            [OtherTerms::Keys(other_key), OtherTerms::Clock { simulated: false }, programme]
        );
        // What should stand there from birth on and does not is no agreement.
        assert_eq!(fewer.differences(|_| None), [OtherTerms::Keys(other_key), OtherTerms::Clock { simulated: true }]);
    }

    #[test]
    fn a_key_that_was_left_is_needed_for_as_long_as_purchases_are_kept() {
        let mut kept = fields(&terms());
        kept.insert(TURNED.to_owned(), on_day(1).now.to_string());
        let refused = |turn: Turn, day| {
            let terms = Terms { turn, kept: on_day(day), ..terms() };
            terms.differences(|name| kept.get(name).cloned())
        };
        let ours = turn(1, b"of tests");
        let early = [OtherTerms::Keys(OtherRing::StillNeeded { ours: 1, until: on_day(16).now })];
        let beside =
            |side| Turn { neighbour: Some(Neighbour { side, ring: turn(0, b"before..").ring, makes: () }), ..ours };
        for without in [ours, beside(Side::Next)] {
            assert_eq!((refused(without, 15).as_slice(), refused(without, 16)), (early.as_slice(), Vec::new()));
        }
        assert_eq!(refused(beside(Side::Previous), 1), []);
        assert_eq!(refused(turn(1, b"another!"), 1), [OtherTerms::Keys(OtherRing::OtherKey { ours: 1 })]);
    }
}
