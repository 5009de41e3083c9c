//! A programme in words: what holds at one instant, what changes between two, and its whole calendar, for `rationd
//! policy show` and `diff`.

use std::fmt;

use serde::Serialize;

use super::programme::Programme;
use crate::ids::ProgrammeId;
use crate::time::Timestamp;

/// One rule as it stands at an instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is about.
    pub what: String,
    /// How it stands.
    pub value: String,
}

/// One rule that stands differently at two instants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is about.
    pub what: String,
    /// How it stood; "none" where there was nothing.
    pub before: String,
    /// How it stands; "none" where there is nothing any more.
    pub after: String,
}

/// What changes between two instants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The programme.
    pub programme: ProgrammeId,
    /// The earlier instant, in the programme's zone.
    pub from: String,
    /// The later one.
    pub to: String,
    /// Empty if the same rules hold at both.
    pub changes: Vec<Change>,
}

/// The changes of one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When they take effect, in the programme's zone.
    pub at: String,
    /// What they are.
    pub changes: Vec<Change>,
}

/// A programme in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The programme.
    pub programme: ProgrammeId,
    /// What it is called.
    pub title: String,
    /// What one unit is.
    pub unit: String,
    /// The zone in which its days are counted.
    pub zone: String,
    /// The instant that was asked for, in that zone; `None`: all of it.
    pub at: Option<String>,
    /// The rules at that instant; empty where none was asked for.
    pub rules: Vec<Fact>,
    /// Every change of rules: all of them, or those after the instant asked for.
    pub calendar: Vec<Step>,
    /// Days on which no rotation applies: the date, and why.
    pub free_days: Vec<Fact>,
}

impl Programme {
    /// The programme in words: at an instant, or all of it.
    pub fn show(&self, at: Option<Timestamp>) -> Shown {
        let steps = self.instants.iter().filter(|&&instant| at.is_none_or(|at| instant > at));
        let calendar = steps.map(|&instant| {
            let before = Timestamp::from_millis(instant.as_millis() - 1);
            Step { at: self.local(instant), changes: self.changes(before, instant, Scope::Rules) }
        });
        let holidays = self.holidays.iter().map(|(date, why)| Fact {
            what: date.to_string(),
            value: format!("{why} (a public holiday: free where the rules of that time say so)"),
        });
        let once = self.free_days.iter().map(|(date, why)| Fact { what: date.to_string(), value: why.to_owned() });
        let mut free_days: Vec<Fact> = once.chain(holidays).collect();
        free_days.sort_by(|a, b| a.what.cmp(&b.what));
        Shown {
            programme: self.id,
            title: self.title.clone(),
            unit: self.unit.clone(),
            zone: self.zone().to_owned(),
            at: at.map(|at| self.local(at)),
            rules: at.map(|at| self.facts(at, Scope::RulesAndDay)).unwrap_or_default(),
            calendar: calendar.collect(),
            free_days,
        }
    }

    /// What stands differently at `to` than at `from`.
    pub fn diff(&self, from: Timestamp, to: Timestamp) -> Diff {
        Diff {
            programme: self.id,
            from: self.local(from),
            to: self.local(to),
            changes: self.changes(from, to, Scope::RulesAndDay),
        }
    }

    fn changes(&self, from: Timestamp, to: Timestamp, scope: Scope) -> Vec<Change> {
        let (before, after) = (self.facts(from, scope), self.facts(to, scope));
        let value = |facts: &[Fact], what: &str| {
            let fact = facts.iter().find(|fact| fact.what == what);
            fact.map_or_else(|| "none".to_owned(), |fact| fact.value.clone())
        };
        let mut whats: Vec<&String> = before.iter().map(|fact| &fact.what).collect();
        whats.extend(after.iter().map(|fact| &fact.what).filter(|what| before.iter().all(|fact| fact.what != **what)));
        whats
            .into_iter()
            .map(|what| Change { what: what.clone(), before: value(&before, what), after: value(&after, what) })
            .filter(|change| change.before != change.after)
            .collect()
    }

    fn facts(&self, at: Timestamp, scope: Scope) -> Vec<Fact> {
        let mut facts: Vec<Fact> = Vec::new();
        let mut state = |what: String, value: String| match facts.iter_mut().find(|fact| fact.what == what) {
            // Two lines about the same thing are two ways of it.
            Some(fact) => fact.value = format!("{}; or {value}", fact.value),
            None => facts.push(Fact { what, value }),
        };
        let Some(period) = self.in_force(at) else {
            state("in force".to_owned(), format!("no: {}", self.why_not_in_force(at)));
            return facts;
        };
        state("in force".to_owned(), "yes".to_owned());
        for rule in &period.windows {
            let span = rule.spoken_span(&self.zone);
            state(format!("units in {span}"), rule.spoken_units());
            state(format!("purchases in {span}"), rule.spoken_purchases());
        }
        if let Some(rotation) = self.rotation.as_ref().filter(|_| period.rotation) {
            state("day rotation".to_owned(), rotation.describe());
            let holidays = if period.holidays_free { "free days" } else { "ordinary days" };
            state("public holidays".to_owned(), holidays.to_owned());
            state("whose day counts".to_owned(), self.whose_days.now(at).spoken().to_owned());
        }
        if let (Scope::RulesAndDay, Some(why)) = (scope, self.why_free(period, self.zone.day(at))) {
            state("free day".to_owned(), why.to_owned());
        }
        state("channels".to_owned(), self.channels.spoken(at));
        state("foreigners".to_owned(), self.foreigners.describe(at));
        for (group, how) in self.proxies.describe(at) {
            state(format!("proxy for {group}"), how);
        }
        facts
    }
}

/// Whether what is special about one day belongs to the picture.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Rules,
    RulesAndDay,
}

fn write_changes(f: &mut fmt::Formatter<'_>, changes: &[Change]) -> fmt::Result {
    for change in changes {
        write!(f, "\n  {}\n    before  {}\n    after   {}", change.what, change.before, change.after)?;
    }
    Ok(())
}

/// A page for a person.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, from {} to {}", self.programme, self.from, self.to)?;
        if self.changes.is_empty() {
            return f.write_str("\n  nothing changes");
        }
        write_changes(f, &self.changes)
    }
}

/// A page for a person.
impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}; days in {})", self.programme, self.title, self.unit, self.zone)?;
        if let Some(at) = &self.at {
            write!(f, "\n\nAt {at}")?;
        }
        for rule in &self.rules {
            write!(f, "\n  {}: {}", rule.what, rule.value)?;
        }
        if !self.free_days.is_empty() {
            f.write_str("\n\nFree days")?;
        }
        for day in &self.free_days {
            write!(f, "\n  {}: {}", day.what, day.value)?;
        }
        for step in &self.calendar {
            write!(f, "\n\nFrom {}", step.at)?;
            write_changes(f, &step.changes)?;
        }
        Ok(())
    }
}
