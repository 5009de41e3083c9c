//! The summary as one page of a terminal, 80 columns wide.

use super::words::{by_count, grouped, length, milliseconds, milliseconds_or_dash, rate};
use super::{Summary, verb_name};

const WIDTH: usize = 80;

/// The most cases that are told on the page.
const TOLD: usize = 6;

/// Columns of a small picture.
const COLUMNS: usize = 52;

/// Breaks words into lines of at most [`WIDTH`] columns, all but the first indented.
pub(in crate::load) fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if !line.trim().is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

/// A line of text that tells how something went, from the least step (0 on a linear scale) to the greatest of its values.
/// Where there is nothing there is a blank.
pub(in crate::load) fn sparkline(values: &[f64], logarithmic: bool) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let scale = |value: f64| if logarithmic { value.log10() } else { value };
    let there = || values.iter().copied().filter(|value| *value > 0.0);
    let least = if logarithmic { there().map(scale).fold(f64::INFINITY, f64::min) } else { 0.0 };
    let range = there().map(scale).fold(0.0_f64, |range, value| range.max(value - least)).max(1e-9);
    let columns = values.len().min(COLUMNS);
    let column = |which: usize| {
        let (from, until) = (which * values.len() / columns, (which + 1) * values.len() / columns);
        let value = values.get(from..until).unwrap_or_default().iter().copied().fold(0.0, f64::max);
        let step = ((scale(value) - least) / range * 7.0).round() as usize;
        if value > 0.0 { STEPS.get(step.min(7)).copied().unwrap_or(' ') } else { ' ' }
    };
    (0..columns).map(column).collect()
}

fn reasons(label: &str, counted: &std::collections::BTreeMap<String, u64>) -> Option<String> {
    const MOST: usize = 4;
    if counted.is_empty() {
        return None;
    }
    let sorted = by_count(counted);
    let mut named: Vec<String> =
        sorted.iter().take(MOST).map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    let rest: u64 = sorted.iter().skip(MOST).map(|(_, count)| count).sum();
    if rest > 0 {
        named.push(format!("others {}", grouped(rest)));
    }
    Some(wrapped(&format!("{label:<12}{}", named.join(" · ")), 12))
}

impl Summary {
    /// A page for the terminal: the audit's verdict first, then how much, how fast, and how it went over time.
    pub fn page(&self) -> String {
        let verdict = self.verdict();
        let mut lines = vec![wrapped(&format!("{}: {}.", verdict.title, verdict.words.trim_end_matches('.')), 7)];
        lines.extend(self.cases());
        lines.extend(self.mishap().map(|words| wrapped(&words, 7)));
        lines.extend(self.behind().map(|words| wrapped(&words, 7)));
        lines.push(String::new());
        lines.push(wrapped(
            &format!("{} · {} · {}", self.facts.scenario, length(self.timeline.elapsed()), self.facts.title),
            2,
        ));
        lines.push(wrapped(&self.setting().join(" · "), 2));
        lines.push(String::new());
        lines.extend(self.headline());
        lines.push(String::new());
        lines.extend(self.table());
        lines.push(String::new());
        lines.extend(reasons("refused", &self.refused_by_reason));
        lines.extend(reasons("turned away", &self.turned_away_by_reason));
        lines.extend(reasons("unknown", &self.unknown_by_reason));
        lines.extend(self.sessions().map(|words| wrapped(&format!("{:<12}{words}", "sessions"), 12)));
        lines.push(String::new());
        lines.extend(self.pictures());
        lines.join("\n") + "\n"
    }

    fn cases(&self) -> Vec<String> {
        let Some(audit) = &self.audit else { return Vec::new() };
        let name = |name: Option<String>| name.unwrap_or_else(|| "?".to_owned());
        let told = audit.cases.iter().take(TOLD).map(|case| {
            let request = name(case.request.map(|id| id.to_string()));
            let site = name(case.site.map(|site| site.to_string()));
            wrapped(
                &format!("- {request} at {site}: {}: expected {}, found {}", case.kind, case.expected, case.stands),
                4,
            )
        });
        let mut told: Vec<String> = told.collect();
        let more = audit.total().saturating_sub(told.len() as u64);
        if more > 0 {
            told.push(format!("  … and {} more; --json and the HTML page tell more of them", grouped(more)));
        }
        told
    }

    fn headline(&self) -> [String; 2] {
        let peak = self.timeline.rates(|slice| slice.decisions).into_iter().fold(0.0, f64::max);
        let all = &self.all;
        [
            format!(
                "offered {}   accepted {}   refused {}   errors {} ({} unknown)",
                grouped(self.offered()),
                grouped(all.accepted()),
                grouped(all.refused),
                grouped(all.errors()),
                grouped(all.unknown)
            ),
            wrapped(
                &format!(
                    "{} decided, {} at the peak; latency counts from the intended time",
                    rate(self.goodput()),
                    rate(peak)
                ),
                2,
            ),
        ]
    }

    /// A row for each verb, and one for all; latency counts from when the call was to be sent.
    fn table(&self) -> Vec<String> {
        let row = |name: &str, tally: &super::Tally| {
            let latency = &tally.latency;
            let quantile = |share| milliseconds_or_dash(latency.quantile(share));
            format!(
                "{name:<12}{:>10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
                grouped(tally.calls),
                quantile(0.5),
                quantile(0.9),
                quantile(0.99),
                quantile(0.999),
                milliseconds_or_dash(latency.max())
            )
        };
        let head = format!(
            "{:<12}{:>10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
            "latency of", "calls", "p50", "p90", "p99", "p99.9", "max"
        );
        let mut rows = vec![head, row("all", &self.all)];
        if self.by_verb.len() > 1 {
            rows.extend(self.by_verb.iter().map(|(verb, tally)| row(verb_name(*verb), tally)));
        }
        if self.all.turned_away > 0 {
            let turned_away = super::Tally {
                calls: self.all.turned_away,
                latency: self.all.turned_away_latency.clone(),
                ..super::Tally::default()
            };
            rows.push(row("turned away", &turned_away));
        }
        rows
    }

    fn pictures(&self) -> Vec<String> {
        let decisions = self.timeline.rates(|slice| slice.decisions);
        let p99: Vec<f64> = self.timeline.latencies(0.99).into_iter().map(Option::unwrap_or_default).collect();
        let greatest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let columns = decisions.len().min(COLUMNS);
        let end = length(self.timeline.elapsed());
        let axis = format!("{:<12}0{end:>width$}", "", width = columns.saturating_sub(1));
        vec![
            format!("{:<12}{} to {}", "decisions", sparkline(&decisions, false), rate(greatest(&decisions))),
            format!("{:<12}{} to {}", "p99", sparkline(&p99, true), milliseconds(greatest(&p99))),
            axis,
        ]
    }
}
