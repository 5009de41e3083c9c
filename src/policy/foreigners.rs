//! What a foreigner must show to be inside the programme, by date.
//!
//! Knows only what the seller says was shown. The conditions are those of a foreigner at the counter; what proves a
//! foreigner who is bought for stands in the proxy table.

use super::Line;
use super::calendar::Zone;
use super::file::Table;
use super::problems::Problems;
use super::wording::{either, spoken};
use crate::ids::Paper;
use crate::time::Timestamp;

/// The conditions from one instant until the next line takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Conditions {
    from: Timestamp,
    /// Any one of them; empty: no card is asked for.
    cards: Vec<Paper>,
    /// Beside the card.
    insurance: Option<Paper>,
    /// Whether a foreigner may be bought for.
    proxy: bool,
}

/// All conditions of a programme. Before the first, and without any, foreigners are treated as citizens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Foreigners(Vec<Conditions>);

impl Foreigners {
    pub(super) fn read(tables: Vec<Table<'_>>, zone: &Zone, problems: &mut Problems<'_>) -> Self {
        let mut track: Vec<Conditions> = Vec::new();
        for mut table in tables {
            let from = table.instant(problems, "from", zone);
            let cards = table.names(problems, "cards");
            let insurance = table.optional_name(problems, "insurance");
            let proxy = table.flag(problems, "proxy", false);
            if let Some(from) = from {
                if track.last().is_some_and(|last| from.value <= last.from) {
                    let remedy = "list the [[foreigners]] tables by `from`, each later than the one before";
                    problems.at(from.byte, "this table does not follow the one before it", remedy);
                }
                track.push(Conditions { from: from.value, cards, insurance, proxy });
            }
            table.close(problems);
        }
        Self(track)
    }

    fn now(&self, at: Timestamp) -> Option<&Conditions> {
        self.0.iter().rev().find(|conditions| conditions.from <= at)
    }

    /// Whether what was shown for this line is enough.
    pub(super) fn admits(&self, line: &Line, at: Timestamp) -> bool {
        if !line.buyer.foreign || line.relation.is_some() {
            return true;
        }
        self.now(at).is_none_or(|now| {
            (now.cards.is_empty() || now.cards.iter().any(|card| line.papers.contains(card)))
                && now.insurance.is_none_or(|insurance| line.papers.contains(&insurance))
        })
    }

    /// Whether a foreigner may be bought for.
    pub(super) fn may_be_bought_for(&self, at: Timestamp) -> bool {
        self.now(at).is_none_or(|now| now.proxy)
    }

    /// What a foreigner must show, in a sentence.
    pub(super) fn why(&self, at: Timestamp) -> String {
        format!("A foreigner must show {}.", self.spoken_cards(at))
    }

    fn spoken_cards(&self, at: Timestamp) -> String {
        let Some(now) = self.now(at) else { return "nothing more than a citizen".to_owned() };
        let cards = either(now.cards.iter().map(|card| spoken(*card)));
        match (now.cards.is_empty(), now.insurance) {
            (true, None) => "nothing more than a citizen".to_owned(),
            (true, Some(insurance)) => spoken(insurance),
            (false, None) => cards,
            (false, Some(insurance)) => format!("{cards}, and {}", spoken(insurance)),
        }
    }

    pub(super) fn instants(&self) -> impl Iterator<Item = Timestamp> {
        self.0.iter().map(|conditions| conditions.from)
    }

    pub(super) fn papers(&self) -> impl Iterator<Item = Paper> {
        self.0.iter().flat_map(|conditions| conditions.cards.iter().copied().chain(conditions.insurance))
    }

    /// "show …; may be bought for".
    pub(super) fn describe(&self, at: Timestamp) -> String {
        let proxy = if self.may_be_bought_for(at) { "may be bought for" } else { "may not be bought for" };
        format!("show {}; {proxy}", self.spoken_cards(at))
    }
}
