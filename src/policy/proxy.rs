//! Buying for another person: for whom, by whom, with which papers, and whose day counts.
//!
//! Knows of papers and relations what the seller stated. The agent is not judged, and the units are never charged to him.

use super::calendar::Zone;
use super::file::{Effect, Table};
use super::problems::Problems;
use super::windows::BirthYears;
use super::wording::{all, either};
use super::{Line, LineSet, Person, Visit};
use crate::ids::{Paper, Relation};
use crate::time::Timestamp;

/// One line of the proxy table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    effect: Effect,
    name: String,
    years: BirthYears,
    /// `None`: citizens and foreigners alike.
    foreign: Option<bool>,
    relations: Vec<Relation>,
    /// Any one of these sets, complete; empty: no paper is asked for.
    papers: Vec<Vec<Paper>>,
}

impl Group {
    /// Whether it speaks of this buyer and this agent now, whatever was shown.
    fn covers(&self, line: &Line, relation: Relation, at: Timestamp) -> bool {
        self.effect.contains(at)
            && self.relations.contains(&relation)
            && self.foreign.is_none_or(|foreign| foreign == line.buyer.foreign)
            && self.years.contains(line.buyer.birth_year)
    }

    fn is_proved_by(&self, papers: &[Paper]) -> bool {
        self.papers.is_empty() || self.papers.iter().any(|set| set.iter().all(|paper| papers.contains(paper)))
    }
}

/// The proxy table of a programme.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Proxies(Vec<Group>);

impl Proxies {
    pub(super) fn read(tables: Vec<Table<'_>>, zone: &Zone, problems: &mut Problems<'_>) -> Self {
        let mut groups = Vec::new();
        for mut table in tables {
            let effect = table.effect(problems, zone);
            let name = table.text(problems, "group", "\"children born in 2010 or later\"");
            let years = BirthYears::read(&mut table, problems);
            let foreign = table.optional_flag(problems, "foreign");
            let relations = table.names(problems, "relations");
            if relations.is_empty() {
                problems.at(table.byte(), "nobody may buy for this group", "add `relations = [\"same_household\"]`");
            }
            let papers: Vec<Vec<Paper>> = table.lists_of_names(problems, "papers");
            if papers.iter().any(Vec::is_empty) {
                let remedy = "leave `papers` out where no paper is asked for";
                problems.at(table.byte(), "an empty set of papers proves everything", remedy);
            }
            if let (Some(effect), Some(name)) = (effect, name) {
                groups.push(Group { effect, name: name.value.to_owned(), years, foreign, relations, papers });
            }
            table.close(problems);
        }
        Self(groups)
    }

    pub(super) fn allows(&self, line: &Line, relation: Relation, at: Timestamp) -> bool {
        self.0.iter().any(|group| group.covers(line, relation, at) && group.is_proved_by(&line.papers))
    }

    /// Why it is not allowed: the papers that would do, if any would.
    pub(super) fn why(&self, line: &Line, relation: Relation, at: Timestamp) -> String {
        let agent = as_agent(relation);
        let mut proofs: Vec<String> = Vec::new();
        for set in self.0.iter().filter(|group| group.covers(line, relation, at)).flat_map(|group| &group.papers) {
            let proof = all(set);
            if !proofs.contains(&proof) {
                proofs.push(proof);
            }
        }
        if proofs.is_empty() {
            return format!("Nobody may buy for this person {agent} now.");
        }
        format!("Buying for this person {agent} takes {}.", either(proofs.into_iter()))
    }

    pub(super) fn instants(&self) -> impl Iterator<Item = Timestamp> {
        self.0.iter().flat_map(|group| [group.effect.from, group.effect.until])
    }

    pub(super) fn relations(&self) -> impl Iterator<Item = Relation> {
        self.0.iter().flat_map(|group| group.relations.iter().copied())
    }

    pub(super) fn papers(&self) -> impl Iterator<Item = Paper> {
        self.0.iter().flat_map(|group| group.papers.iter().flatten().copied())
    }

    /// Each line in force: the group, and by whom with what.
    pub(super) fn describe(&self, at: Timestamp) -> Vec<(String, String)> {
        self.0
            .iter()
            .filter(|group| group.effect.contains(at))
            .map(|group| {
                let agents: Vec<&str> = group.relations.iter().map(Relation::as_str).collect();
                let proofs: Vec<String> = group.papers.iter().map(|set| all(set)).collect();
                let papers = if proofs.is_empty() { "no paper".to_owned() } else { proofs.join(", or ") };
                (group.name.clone(), format!("by {} with {papers}", agents.join(", ")))
            })
            .collect()
    }
}

/// Whose day must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhoseDay {
    /// The day of the person the units are charged to.
    Beneficiary,
    /// That, or the agent's; the agent's own line also on the day of somebody he has just bought for.
    BeneficiaryOrAgent,
    /// That of anyone named in the visit, whether or not the person takes units.
    AnyoneNamed,
}

impl WhoseDay {
    pub(super) fn spoken(self) -> &'static str {
        match self {
            Self::Beneficiary => "the beneficiary's",
            Self::BeneficiaryOrAgent => "the beneficiary's or the agent's",
            Self::AnyoneNamed => "anyone's who is named in the visit",
        }
    }

    /// Whether the line fits, where `fits` says it of a person.
    pub(super) fn allows(
        self,
        visit: &Visit,
        index: usize,
        line: &Line,
        approved: LineSet,
        fits: impl Fn(Person) -> bool,
    ) -> bool {
        if fits(line.buyer) {
            return true;
        }
        match self {
            Self::Beneficiary => false,
            Self::BeneficiaryOrAgent if line.relation.is_some() => visit.agent.is_some_and(fits),
            // The agent's own line leans on the people he has bought for; without an approved line for one of them he
            // is an ordinary buyer.
            Self::BeneficiaryOrAgent => {
                visit.lines.iter().enumerate().any(|(i, other)| {
                    i != index && other.relation.is_some() && approved.contains(i) && fits(other.buyer)
                })
            }
            Self::AnyoneNamed => {
                let takers = visit.lines.iter().map(|line| line.buyer);
                takers.chain(visit.agent).chain(visit.family.iter().copied()).any(fits)
            }
        }
    }
}

/// Whose day counts, by date; before the first line the beneficiary's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WhoseDays(Vec<(Timestamp, WhoseDay)>);

impl WhoseDays {
    pub(super) fn read(tables: Vec<Table<'_>>, zone: &Zone, problems: &mut Problems<'_>) -> Self {
        let mut track: Vec<(Timestamp, WhoseDay)> = Vec::new();
        for mut table in tables {
            let from = table.instant(problems, "from", zone);
            let rule = table.text(problems, "rule", "\"beneficiary\"").and_then(|text| match text.value {
                "beneficiary" => Some(WhoseDay::Beneficiary),
                "beneficiary_or_agent" => Some(WhoseDay::BeneficiaryOrAgent),
                "anyone_named" => Some(WhoseDay::AnyoneNamed),
                other => {
                    let remedy = "write beneficiary, beneficiary_or_agent or anyone_named";
                    problems.at(text.byte, format!("no such rule: {other:?}"), remedy);
                    None
                }
            });
            if let (Some(from), Some(rule)) = (from, rule) {
                if track.last().is_some_and(|(last, _)| from.value <= *last) {
                    let remedy = "list the [[whose_day]] tables by `from`, each later than the one before";
                    problems.at(from.byte, "this table does not follow the one before it", remedy);
                }
                track.push((from.value, rule));
            }
            table.close(problems);
        }
        Self(track)
    }

    pub(super) fn now(&self, at: Timestamp) -> WhoseDay {
        self.0.iter().rev().find(|(from, _)| *from <= at).map_or(WhoseDay::Beneficiary, |(_, rule)| *rule)
    }

    pub(super) fn instants(&self) -> impl Iterator<Item = Timestamp> {
        self.0.iter().map(|(from, _)| *from)
    }
}

fn as_agent(relation: Relation) -> String {
    format!("as {}", relation.as_str().replace('_', " "))
}
