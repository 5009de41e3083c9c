//! Numbers and verdicts as people read them.

use std::time::Duration;

use super::Summary;
use crate::load::run::{Arrivals, Ended, Wire};

/// `41232` as `41,232`.
pub(in crate::load) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<String> =
        digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join(",")
}

/// A rate: `998/s`, `9.5/s`.
pub(in crate::load) fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        format!("{per_second:.1}/s")
    } else {
        format!("{}/s", grouped(per_second.round() as u64))
    }
}

/// Milliseconds with three digits, in the unit that suits them: `840 µs`, `1.24 ms`, `12.4 s`.
pub(in crate::load) fn milliseconds(value: f64) -> String {
    let (value, unit) = match value {
        ..0.9995 => (value * 1000.0, "µs"),
        ..999.5 => (value, "ms"),
        _ => (value / 1000.0, "s"),
    };
    let digits = if unit == "µs" || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

/// The same; a dash where there is nothing to tell.
pub fn milliseconds_or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), milliseconds)
}

/// `42.0 s`, `1 min 05 s`.
pub(in crate::load) fn length(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{} min {:02} s", whole / 60, whole % 60)
}

/// Names with their counts, the most frequent first.
pub(in crate::load) fn by_count(counted: &std::collections::BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut counted: Vec<(&str, u64)> = counted.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// A verdict: whether it is good, bad or missing, its one word, and the words that follow.
pub(in crate::load) struct Verdict {
    /// `Some(true)`: clean. `None`: there is none.
    pub clean: Option<bool>,
    pub title: &'static str,
    pub words: String,
}

impl Summary {
    /// What the audit says, in plain words.
    pub(in crate::load) fn verdict(&self) -> Verdict {
        let Some(audit) = &self.audit else {
            let why = self.facts.not_audited.clone().unwrap_or_else(|| "nobody asked for it".to_owned());
            return Verdict { clean: None, title: "Not audited", words: why };
        };
        if !audit.is_clean() {
            let kinds: Vec<String> =
                audit.found.iter().map(|(kind, count)| format!("{} × {kind}", grouped(*count))).collect();
            let words = format!("{}: {}", plural(audit.total(), "case", "cases"), kinds.join("; "));
            return Verdict { clean: Some(false), title: "Audit: FAILED", words };
        }
        let mut words = match audit.sales_acknowledged {
            0 => "no sale was acknowledged".to_owned(),
            1 => "1 sale acknowledged, and in the ledger once".to_owned(),
            many => format!("{} sales acknowledged, every one in the ledger once", grouped(many)),
        };
        if audit.sales_taken_back > 0 {
            words += &format!(" ({} since taken back, as asked)", grouped(audit.sales_taken_back));
        }
        words += "; nobody above a window; ";
        words += &plural(audit.refusals_justified, "refusal justified", "refusals justified");
        let unknown = audit.unknown;
        if unknown.calls > 0 {
            words += &format!(
                "; of {} {} did nothing",
                plural(unknown.calls, "call without an answer", "calls without an answer"),
                grouped(unknown.not_recorded)
            );
        }
        if audit.strangers > 0 {
            words += &format!("; {} of other runs", plural(audit.strangers, "entry", "entries"));
        }
        Verdict { clean: Some(true), title: "Audit: clean", words }
    }

    /// How the run ended, where that is worth a line; `None` if it went as planned.
    pub(in crate::load) fn mishap(&self) -> Option<String> {
        let acknowledged = || format!("{} sales and holds had been acknowledged", grouped(self.all.accepted()));
        match &self.facts.ended {
            Ended::Complete => None,
            Ended::Interrupted => Some(format!("Interrupted after {}.", length(self.timeline.elapsed()))),
            Ended::ServiceLost { last_answer, why } => {
                let last = length(*last_answer);
                Some(format!("The service went away: {why}. Its last answer came after {last}; {}.", acknowledged()))
            }
            Ended::HarnessFailed(what) => Some(format!("The harness failed: {what}; {}.", acknowledged())),
        }
    }

    /// What the harness itself could not keep up with; `None` if it kept up.
    pub(in crate::load) fn behind(&self) -> Option<String> {
        let shortfall = &self.facts.shortfall;
        if shortfall.not_sent == 0 && shortfall.sent_late == 0 {
            return None;
        }
        let latest = milliseconds(shortfall.latest.as_secs_f64() * 1000.0);
        let late = format!("{} calls more than 10 ms late, the worst by {latest}", grouped(shortfall.sent_late));
        Some(match shortfall.not_sent {
            0 => format!("The harness sent {late}."),
            lost => format!("The harness left {} calls unsent and sent {late}.", grouped(lost)),
        })
    }

    /// Against what was run, and how, in pieces.
    pub(in crate::load) fn setting(&self) -> Vec<String> {
        let facts = &self.facts;
        let service = match &facts.own_service {
            Some(store) => format!("{} (own service, {store})", facts.address),
            None => facts.address.clone(),
        };
        let wire = match facts.wire {
            Wire::Unary => "unary",
            Wire::Stream => "streams",
        };
        let arrivals = match &facts.arrivals {
            Arrivals::Open(_) => "open loop".to_owned(),
            Arrivals::Closed { callers, .. } => {
                format!("closed loop of {}", plural((*callers).into(), "caller", "callers"))
            }
        };
        vec![
            service,
            format!("{wire}, {arrivals}"),
            plural(facts.sites.into(), "site", "sites"),
            plural(facts.connections.into(), "connection", "connections"),
            plural(facts.processes.into(), "process", "processes"),
            format!("{} people", grouped(facts.population)),
            format!("seed {}", facts.seed),
        ]
    }

    /// The sessions of the terminals; `None` if none were wanted.
    pub(in crate::load) fn sessions(&self) -> Option<String> {
        let sessions = &self.facts.sessions;
        if sessions.wanted == 0 {
            return None;
        }
        let mut words = format!("{} of {} open", grouped(sessions.admitted), grouped(sessions.wanted));
        if let (Some(half), Some(most)) = (self.openings.quantile(0.5), self.openings.quantile(0.99)) {
            words += &format!(", p50 {}, p99 {}", milliseconds(half), milliseconds(most));
        }
        for (count, what) in [(sessions.site_full, "site full"), (sessions.failed, "failed"), (sessions.lost, "lost")] {
            if count > 0 {
                words += &format!(", {} {what}", grouped(count));
            }
        }
        Some(words)
    }
}
