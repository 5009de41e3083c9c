//! The form for who buys for another, and for papers. Digits choose the relation and then make the year of birth, letters choose papers:
//! `2 1985 a` and Enter is a proxy purchase with one paper.

use super::Setup;
use super::keys::Key;
use super::number::Typed;
use super::texts::Text;
use super::{Proxy, Terms};
use crate::ids::{Paper, Relation};

/// The most papers that a purchase may name.
pub(super) const MOST_PAPERS: usize = 8;
/// Relations that have a digit, beside 0 for the buyer in person.
const RELATIONS: usize = 9;
/// Papers that have a letter.
const PAPERS: usize = 26;
/// Nobody who buys was born earlier.
const FIRST_YEAR: u32 = 1900;
/// Digits of a year.
const YEAR_DIGITS: usize = 4;

/// Where keys go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Relation,
    Year,
    Papers,
}

/// The form while it is filled in.
pub(super) struct Form {
    pub(super) field: Field,
    pub(super) relation: Option<Relation>,
    pub(super) year: Typed,
    pub(super) papers: Vec<Paper>,
}

/// What a key made of it.
pub(super) enum Turn {
    Stay(Option<Text>),
    Close,
    Done(Terms),
}

impl Form {
    /// As it was filled in before.
    pub(super) fn new(terms: &Terms, setup: &Setup) -> Self {
        let mut year = Typed::default();
        let born = terms.proxy.map(|proxy| proxy.agent_birth_year.to_string()).unwrap_or_default();
        born.bytes().for_each(|digit| year.push(digit.wrapping_sub(b'0')));
        let field = if setup.relations.is_empty() { Field::Papers } else { Field::Relation };
        Self { field, relation: terms.proxy.map(|proxy| proxy.relation), year, papers: terms.papers.clone() }
    }

    pub(super) fn key(&mut self, key: Key, setup: &Setup, this_year: Option<i16>) -> Turn {
        match (key, self.field) {
            (Key::Escape, _) => return Turn::Close,
            (Key::Letter(letter), _) => return Turn::Stay(self.choose_paper(letter, setup)),
            (Key::Digit(digit), Field::Relation) => self.choose_relation(digit, setup),
            (Key::Digit(digit), Field::Year) => {
                self.year.push(digit);
                if self.year.count() == YEAR_DIGITS && self.born(this_year).is_some() {
                    self.field = Field::Papers;
                }
            }
            (Key::Back, Field::Year | Field::Papers) => {
                self.field = Field::Year;
                self.year.pop();
            }
            (Key::Up, Field::Papers) if self.relation.is_some() => self.field = Field::Year,
            (Key::Up, _) => self.field = Field::Relation,
            (Key::Down, Field::Relation) if self.relation.is_some() => self.field = Field::Year,
            (Key::Down, _) | (Key::Enter, Field::Relation) if self.relation.is_none() => self.field = Field::Papers,
            (Key::Enter, Field::Relation) => self.field = Field::Year,
            (Key::Down | Key::Enter, Field::Year) if self.born(this_year).is_some() => self.field = Field::Papers,
            (Key::Enter, Field::Year | Field::Papers) => return self.finish(this_year),
            _ => {}
        }
        Turn::Stay(None)
    }

    /// All of it, unless the year is missing.
    fn finish(&mut self, this_year: Option<i16>) -> Turn {
        let proxy = match (self.relation, self.born(this_year)) {
            (None, _) => None,
            (Some(relation), Some(agent_birth_year)) => Some(Proxy { relation, agent_birth_year }),
            (Some(_), None) => {
                self.field = Field::Year;
                self.year = Typed::default();
                return Turn::Stay(Some(Text::FormYear));
            }
        };
        Turn::Done(Terms { proxy, papers: self.papers.clone() })
    }

    fn born(&self, this_year: Option<i16>) -> Option<i32> {
        let latest = this_year.and_then(|year| u32::try_from(year).ok()).unwrap_or(9999);
        let year = (self.year.count() == YEAR_DIGITS).then(|| self.year.value())?;
        (FIRST_YEAR..=latest).contains(&year).then(|| i32::try_from(year).ok())?
    }

    fn choose_relation(&mut self, digit: u8, setup: &Setup) {
        let Some(at) = usize::from(digit).checked_sub(1) else {
            (self.relation, self.year, self.field) = (None, Typed::default(), Field::Papers);
            return;
        };
        if let Some(relation) = relations(setup).nth(at) {
            (self.relation, self.year, self.field) = (Some(relation), Typed::default(), Field::Year);
        }
    }

    fn choose_paper(&mut self, letter: char, setup: &Setup) -> Option<Text> {
        let (_, paper) = papers(setup).find(|(name, _)| *name == letter)?;
        if self.papers.contains(&paper) {
            self.papers.retain(|chosen| *chosen != paper);
        } else if self.papers.len() < MOST_PAPERS {
            self.papers.push(paper);
        } else {
            return Some(Text::FormPapers);
        }
        None
    }
}

/// The relations that can be chosen; the first has the digit 1.
pub(super) fn relations(setup: &Setup) -> impl Iterator<Item = Relation> {
    setup.relations.iter().copied().take(RELATIONS)
}

/// The papers that can be chosen, each with its letter.
pub(super) fn papers(setup: &Setup) -> impl Iterator<Item = (char, Paper)> {
    ('a'..='z').zip(setup.papers.iter().copied()).take(PAPERS)
}
