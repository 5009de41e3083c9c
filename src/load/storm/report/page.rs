//! The morning as one page of a terminal, 80 columns wide.

use super::super::{Outcome, Storm};
use super::Sales;
use crate::load::report::page::{sparkline, wrapped};
use crate::load::report::tally::Latency;
use crate::load::report::words::{by_count, grouped, length, milliseconds, milliseconds_or_dash};

/// The most reasons of a kind that are told.
const REASONS: usize = 6;

impl Storm {
    /// A page for the terminal: the verdict, how many came, how sales went, how it went over time.
    pub fn page(&self) -> String {
        let (title, words) = self.verdict();
        let mut lines = vec![wrapped(&format!("{title}: {words}."), 7), String::new()];
        lines.push(wrapped(
            &format!("{} · {} · {}", self.morning.name, length(self.run.elapsed), self.morning.title),
            2,
        ));
        lines.push(wrapped(&self.setting().join(" · "), 2));
        lines.push(String::new());
        lines.extend(self.run.lines(self.morning.offered()));
        if let Some(contrast) = &self.contrast {
            lines.push(String::new());
            lines.push(wrapped("The same without limits: no cap, no capacity, every log-in a session of its own", 2));
            lines.push(String::new());
            lines.extend(contrast.lines(self.morning.offered()));
        }
        lines.join("\n") + "\n"
    }

    /// What was run, in pieces.
    pub(super) fn setting(&self) -> Vec<String> {
        let morning = &self.morning;
        let offices = grouped(morning.offices.into());
        let services = if self.services == 1 { "a service".to_owned() } else { format!("{} services", self.services) };
        vec![
            format!("scale {}", morning.scale),
            format!("{services} and one Redis of the harness's own"),
            format!("{} connections", grouped(self.run.connections as u64)),
            format!("{} pharmacies", grouped(morning.pharmacies.into())),
            match morning.logins() {
                Some(logins) => format!("{offices} post offices with {logins} log-ins each"),
                None => format!("{offices} post offices with a terminal each"),
            },
            format!("cap {}", morning.cap),
            format!("capacity {}", grouped(morning.capacity.into())),
            format!("seed {}", morning.seed),
        ]
    }
}

impl Outcome {
    fn lines(&self, offered: u64) -> Vec<String> {
        let sales = self.sales();
        let (live, line) = self.most_in_store();
        let mut lines = vec![
            wrapped(
                &format!(
                    "sessions    {} offered, {} admissions; {} live at most, {} in line at most",
                    grouped(offered),
                    grouped(self.admitted),
                    grouped(live),
                    grouped(line)
                ),
                12,
            ),
            wrapped(
                &format!(
                    "sales       {} acknowledged, {} refused, {} turned away, {} unknown",
                    grouped(sales.sold),
                    grouped(sales.refused),
                    grouped(sales.turned_away),
                    grouped(sales.unknown)
                ),
                12,
            ),
        ];
        for (name, reasons) in [("turned back", &self.refused), ("ended", &self.ended), ("thieves", &self.tries)] {
            if !reasons.is_empty() {
                let told = by_count(reasons).into_iter().take(REASONS);
                let told: Vec<String> = told.map(|(reason, count)| format!("{reason} {}", grouped(count))).collect();
                lines.push(wrapped(&format!("{name:<12}{}", told.join(" · ")), 12));
            }
        }
        lines.push(String::new());
        lines.push(format!("{:<12}{:>10}  {:>9}  {:>9}  {:>9}", "sales in the", "sales", "p50", "p99", "max"));
        let row = |name: &str, latency: &Latency| {
            let quantile = |share| milliseconds_or_dash(latency.quantile(share));
            let count = grouped(latency.count());
            format!("{name:<12}{count:>10}  {:>9}  {:>9}  {:>9}", quantile(0.5), quantile(0.99), quantile(1.0))
        };
        lines.extend(
            [("quiet", &sales.quiet), ("storm", &sales.storm), ("time after", &sales.after)].map(|(n, l)| row(n, l)),
        );
        lines.extend(self.compared(&sales).map(|words| wrapped(&words, 2)));
        lines.extend(self.switched().map(|words| wrapped(&words, 2)));
        lines.push(String::new());
        lines.extend(self.pictures(&sales));
        lines
    }

    /// The storm against the quiet; `None` where there were no sales to compare.
    pub(super) fn compared(&self, sales: &Sales) -> Option<String> {
        let ratio = sales.ratio()?;
        let back = match self.as_before(sales) {
            Some(0) => "below twice that as soon as the storm was over".to_owned(),
            Some(seconds) => format!("below twice that {seconds} s after the storm"),
            None => "not seen below twice that after the storm".to_owned(),
        };
        Some(format!("p99 in the storm {ratio:.2} times that of the quiet; {back}"))
    }

    /// What the switch to one terminal came to; `None` where nobody moved it.
    pub(super) fn switched(&self) -> Option<String> {
        let switch = self.checks.switch?;
        let extra = grouped(switch.extra);
        Some(match switch.took {
            Some(took) => {
                format!(
                    "one terminal a site: the last of {extra} extra sessions knew after {:.2} s",
                    took.as_secs_f64()
                )
            }
            None => format!("one terminal a site: of {extra} extra sessions not all knew when the run was over"),
        })
    }

    fn pictures(&self, sales: &Sales) -> Vec<String> {
        let of_store = |what: fn(super::super::store::Seen) -> u64| -> Vec<f64> {
            self.samples.iter().map(|sample| sample.store.map_or(0.0, |seen| what(seen) as f64)).collect()
        };
        let (live, line) = (of_store(|seen| seen.live), of_store(|seen| seen.line));
        let p99: Vec<f64> = sales.seconds.iter().map(|latency| latency.quantile(0.99).unwrap_or_default()).collect();
        let greatest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let counted = |name: &str, values: &[f64]| {
            format!("{name:<12}{} to {}", sparkline(values, false), grouped(greatest(values) as u64))
        };
        let came_back: Vec<f64> = self.returning().into_iter().filter_map(|(_, many)| many).collect();
        let came_back = (!self.returns.is_empty()).then(|| counted("came back/s", &came_back));
        [
            Some(counted("sessions", &live)),
            Some(counted("line", &line)),
            came_back,
            Some(format!("{:<12}{} to {}", "sale p99", sparkline(&p99, true), milliseconds(greatest(&p99)))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
