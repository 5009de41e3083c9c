//! What a person would be told on a given date, and why: the rules tried out without a store, for `rationd policy
//! explain`.
//!
//! Knows nothing of real buyers: the earlier purchases are those of the question.

use std::fmt;

use serde::Serialize;
use smallvec::SmallVec;

use super::calendar::Weekday;
use super::programme::Programme;
use super::windows::{left, quota_reason};
use super::{Assessment, Counted, Line, LineSet, NOT_IN_FORCE, Person, Place, Visit};
use crate::ids::{Channel, Paper, ProgrammeId, Relation};
use crate::time::Timestamp;

/// A made-up buyer at a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Registered year of birth.
    pub birth_year: i16,
    /// Whether the number is a foreigner's.
    pub foreign: bool,
    /// When.
    pub at: Timestamp,
    /// At which kind of site.
    pub channel: Channel,
    /// In which region; empty: one that no rule names.
    pub region: String,
    /// Units asked for; `None`: all that the rules of that time allow this buyer.
    pub quantity: Option<u32>,
    /// How the agent stands to the buyer; `None`: in person.
    pub relation: Option<Relation>,
    /// What is shown.
    pub papers: Vec<Paper>,
    /// The agent's year of birth. `None` in a proxy purchase: the agent's day does not help.
    pub agent_birth_year: Option<i16>,
    /// Earlier purchases: when, and how many units.
    pub earlier: Vec<(Timestamp, u32)>,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The programme.
    pub programme: ProgrammeId,
    /// When, in the programme's zone.
    pub at: String,
    /// `MAY_BUY`, `NOT_REQUIRED` or the name of the first refusal.
    pub decision: &'static str,
    /// Every reason that applies, in order of precedence; empty for `MAY_BUY`.
    pub reasons: Vec<SaidReason>,
    /// Units asked for.
    pub quantity: u32,
    /// The buyer's own day in the rotation, where there is one.
    pub rotation_day: Option<Weekday>,
    /// What is left before this purchase; `None` where nothing is limited.
    pub left: Option<SaidLeft>,
    /// When a refused buyer may buy, every rule considered; `None` after a yes, or if there is no such time.
    pub next_chance: Option<SaidChance>,
}

/// A reason by name, and in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SaidReason {
    /// The stable name.
    pub name: &'static str,
    /// Why.
    pub why: String,
}

/// What is left; an absent limit is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SaidLeft {
    /// Units left.
    pub units: Option<u32>,
    /// Purchases left.
    pub purchases: Option<u32>,
}

/// When to come again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SaidChance {
    /// The civil date in the programme's zone: `2020-03-14`.
    pub date: String,
    /// The first instant, in the programme's zone: `2020-03-14T00:00:00+09:00`.
    pub at: String,
}

impl Programme {
    /// What the buyer of this question would be told.
    pub fn explain(&self, ask: &Ask) -> Explained {
        let buyer = Person { birth_year: ask.birth_year, foreign: ask.foreign };
        // An agent whose birth year is not stated stands in with the buyer's, so that no other day is added.
        let agent_year = ask.agent_birth_year.unwrap_or(ask.birth_year);
        let agent = ask.relation.map(|_| Person { birth_year: agent_year, foreign: false });
        let papers = ask.papers.iter().copied().collect();
        let line = Line { buyer, relation: ask.relation, papers, quantity: ask.quantity.unwrap_or(1) };
        let mut visit = Visit { agent, lines: smallvec::smallvec![line], family: SmallVec::new() };
        let place = Place { channel: ask.channel, region: ask.region.clone() };
        let earlier = ask.earlier.iter().map(|&(at, units)| Counted { at, units, held_until: None });
        let history: Vec<Counted> = earlier.collect();

        let mut explained = Explained {
            programme: self.id,
            at: self.local(ask.at),
            decision: "NOT_REQUIRED",
            reasons: Vec::new(),
            quantity: ask.quantity.unwrap_or(1),
            rotation_day: self.rotation_day(buyer, ask.at),
            left: None,
            next_chance: None,
        };
        let judgement = match self.assess(&visit, 0, &place, ask.at, LineSet::default()) {
            Assessment::NotRequired(why) => {
                explained.reasons.push(SaidReason { name: NOT_IN_FORCE, why });
                return explained;
            }
            Assessment::Judged(judgement) => judgement,
        };
        if ask.quantity.is_none() {
            explained.quantity = judgement.windows.iter().filter_map(|window| window.max_units).min().unwrap_or(1);
        }
        visit.lines.iter_mut().for_each(|line| line.quantity = explained.quantity);
        let quota = quota_reason(&judgement.windows, &history, explained.quantity, ask.at);
        let reasons = judgement.refusals.into_iter().chain(quota);
        explained.reasons = reasons.map(|r| SaidReason { name: r.refusal.name(), why: r.why }).collect();
        explained.decision = explained.reasons.first().map_or("MAY_BUY", |reason| reason.name);
        let left = left(&judgement.windows, &history, ask.at);
        explained.left = Some(SaidLeft { units: left.units, purchases: left.purchases });
        if !explained.reasons.is_empty() {
            let chance = self.next_chance(&visit, 0, &place, ask.at, &history);
            explained.next_chance =
                chance.map(|chance| SaidChance { date: chance.date.to_string(), at: self.local(chance.at) });
        }
        explained
    }
}

/// A few lines for a person.
impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} at {}", self.programme, self.at)?;
        writeln!(f, "asks for     {}", self.quantity)?;
        write!(f, "decision     {}", self.decision)?;
        for reason in &self.reasons {
            write!(f, "\n  {}: {}", reason.name, reason.why)?;
        }
        if let Some(day) = self.rotation_day {
            write!(f, "\nown day      {day}")?;
        }
        if let Some(left) = &self.left {
            let number = |n: Option<u32>| n.map_or_else(|| "any number of".to_owned(), |n| n.to_string());
            write!(f, "\nleft         {} units, {} purchases", number(left.units), number(left.purchases))?;
        }
        match &self.next_chance {
            Some(chance) => write!(f, "\nnext chance  {} (from {})", chance.date, chance.at),
            None if self.decision == "MAY_BUY" || self.decision == "NOT_REQUIRED" => Ok(()),
            None => f.write_str("\nnext chance  none in sight"),
        }
    }
}
