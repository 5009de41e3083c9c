//! What a run comes to: its calls counted and timed, for the screen (`page`), for scripts (`json`) and to look at (`html`).
//!
//! Knows nothing about how the run was driven; whether promises were kept is the audit's to say, and is repeated here first.

mod html;
mod json;
pub(super) mod page;
pub(super) mod plot;
pub(super) mod tally;
mod timeline;
pub(super) mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::audit::Audit;
use super::history::{Asked, Outcome, Verb};
use super::run::RunFacts;
use tally::{Latency, Tally};
use timeline::Timeline;
pub use words::milliseconds_or_dash;

/// The most reasons that are counted each by its own name; more are "other".
const REASONS: usize = 20;

/// What a run comes to.
///
/// Every call of the timetable is exactly one of: accepted, refused, otherwise decided, turned away, unknown, not sent.
#[derive(Debug, Clone)]
pub struct Summary {
    facts: RunFacts,
    audit: Option<Audit>,
    /// All calls that were sent.
    all: Tally,
    by_verb: Vec<(Verb, Tally)>,
    refused_by_reason: BTreeMap<String, u64>,
    turned_away_by_reason: BTreeMap<String, u64>,
    unknown_by_reason: BTreeMap<String, u64>,
    openings: Latency,
    timeline: Timeline,
}

impl Summary {
    /// Counts and times a run's calls. `audit` is `None` if there was none; the facts then say why.
    pub fn new(facts: &RunFacts, history: &[Asked], audit: Option<&Audit>) -> Self {
        let elapsed = history.iter().map(|call| call.answered).max().unwrap_or_default().max(facts.elapsed);
        let mut summary = Self {
            facts: facts.clone(),
            audit: audit.cloned(),
            all: Tally::default(),
            by_verb: VERBS.map(|verb| (verb, Tally::default())).to_vec(),
            refused_by_reason: BTreeMap::new(),
            turned_away_by_reason: BTreeMap::new(),
            unknown_by_reason: BTreeMap::new(),
            openings: Latency::default(),
            timeline: Timeline::new(elapsed),
        };
        for milliseconds in std::mem::take(&mut summary.facts.sessions.opening_ms) {
            summary.openings.record(std::time::Duration::from_millis(milliseconds.into()));
        }
        for call in history {
            summary.add(call);
        }
        summary.by_verb.retain(|(_, tally)| tally.calls > 0);
        summary
    }

    fn add(&mut self, call: &Asked) {
        self.all.add(call);
        if let Some((_, tally)) = self.by_verb.iter_mut().find(|(verb, _)| *verb == call.verb) {
            tally.add(call);
        }
        self.timeline.add(call);
        match &call.outcome {
            Outcome::Refused(reasons) => {
                count(&mut self.refused_by_reason, reasons.first().map_or("no reason given", String::as_str));
            }
            Outcome::NotExecuted(reason) => count(&mut self.turned_away_by_reason, reason),
            Outcome::Unknown(why) => count(&mut self.unknown_by_reason, why),
            Outcome::OfAnother(fields) => {
                count(&mut self.unknown_by_reason, &format!("another call's answer ({fields})"));
            }
            _ => {}
        }
    }

    /// Calls of the timetable, those that were never sent with them.
    fn offered(&self) -> u64 {
        self.all.calls + self.facts.shortfall.not_sent
    }

    /// Decisions per second, over the whole run.
    fn goodput(&self) -> f64 {
        self.all.decisions() as f64 / self.timeline.elapsed().as_secs_f64().max(0.001)
    }
}

const VERBS: [Verb; 6] = [Verb::Purchase, Verb::Hold, Verb::Confirm, Verb::Release, Verb::Void, Verb::Resolve];

fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Purchase => "purchase",
        Verb::Hold => "hold",
        Verb::Confirm => "confirm",
        Verb::Release => "release",
        Verb::Void => "void",
        Verb::Resolve => "resolve",
    }
}

fn count(reasons: &mut BTreeMap<String, u64>, reason: &str) {
    if let Some(counted) = reasons.get_mut(reason) {
        *counted += 1;
        return;
    }
    let name = if reasons.len() < REASONS { reason } else { "other" };
    *reasons.entry(name.to_owned()).or_default() += 1;
}
