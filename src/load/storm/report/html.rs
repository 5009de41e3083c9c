//! The morning as one HTML page that needs nothing but itself.

use std::fmt::Write;

use super::super::{Outcome, Storm};
use super::Sales;
use crate::load::report::plot::{Axis, Hint, Line, Plot, escaped};
use crate::load::report::words::{by_count, grouped, length, milliseconds, milliseconds_or_dash};

const STYLE: &str = include_str!("../../report/style.css");

/// The most waits that are drawn.
const DRAWN: usize = 24;

/// Ranks that have a colour of their own; all later ones share the last.
const RANKS: [(&str, &str); 3] = [("rank 0", "decided"), ("rank 1", "half"), ("later ranks", "refused")];

type Points = Vec<(f64, Option<f64>)>;

impl Storm {
    /// One page to look at; it loads nothing.
    pub fn html(&self) -> String {
        let (title, words) = self.verdict();
        let name = escaped(self.morning.name);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>rationd load: {name}</title><style>{STYLE}</style></head><body>\n"
        );
        let _ = writeln!(out, "<h1>{name} <small>{}</small></h1>", length(self.run.elapsed));
        let _ = writeln!(
            out,
            "<p class=\"soft\">{}<br>{}</p>",
            escaped(self.morning.title),
            escaped(&self.setting().join(" · "))
        );
        let class = if self.is_clean() { "good" } else { "bad" };
        let _ = writeln!(out, "<div class=\"verdict {class}\"><b>{title}</b>{}.</div>", escaped(&words));
        if self.run.interrupted {
            out.push_str("<p class=\"warn\">The run was stopped before its end.</p>\n");
        }
        let sales = self.run.sales();
        self.tiles(&sales, &mut out);
        if let Some(words) = self.run.compared(&sales) {
            let _ = writeln!(out, "<p class=\"soft\">Sales: {}.</p>", escaped(&words));
        }
        if let Some(words) = self.run.switched() {
            let _ = writeln!(out, "<p class=\"soft\">Switch to {}.</p>", escaped(&words));
        }
        let other = self.contrast.as_ref().map(|contrast| (contrast, contrast.sales()));
        out.push_str(&self.sessions().html());
        out.push_str(&self.latency(&sales, other.as_ref()).html());
        out.push_str(&self.run.positions().html());
        if !self.run.returns.is_empty() {
            out.push_str(&self.run.coming_back().html());
        }
        self.checks(&mut out);
        self.run.reasons(&mut out);
        out.push_str("</body></html>\n");
        out
    }

    fn tiles(&self, sales: &Sales, out: &mut String) {
        let (live, line) = self.run.most_in_store();
        let p99 = |latency: &crate::load::report::tally::Latency| milliseconds_or_dash(latency.quantile(0.99));
        let tiles = [
            (grouped(self.morning.offered()), "sessions offered"),
            (grouped(live), "live at most"),
            (grouped(line), "in line at most"),
            (grouped(sales.sold), "sales acknowledged"),
            (p99(&sales.quiet), "sale p99 in the quiet"),
            (p99(&sales.storm), "in the storm"),
            (p99(&sales.after), "after it"),
            (grouped(self.run.refused.values().sum()), "log-ins turned back"),
        ];
        out.push_str("<div class=\"tiles\">");
        for (value, label) in tiles {
            let _ = write!(out, "<div class=\"tile\"><b>{value}</b><span>{label}</span></div>");
        }
        out.push_str("</div>\n");
    }

    fn sessions(&self) -> Plot {
        let (live, line) = (self.run.live(), self.run.line());
        let capacity = f64::from(self.morning.capacity);
        let end = self.run.elapsed.as_secs_f64();
        let mut lines = vec![
            Line { name: "live sessions", class: "decided", points: live, filled: true },
            Line { name: "in line", class: "refused", points: line, filled: false },
            Line {
                name: "capacity",
                class: "offered",
                points: vec![(0.0, Some(capacity)), (end, Some(capacity))],
                filled: false,
            },
        ];
        if let Some(contrast) = &self.contrast {
            lines.push(Line {
                name: "live without limits",
                class: "error",
                points: self.aligned(contrast, contrast.live()),
                filled: false,
            });
        }
        let greatest = lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value).fold(1.0, f64::max);
        Plot {
            title: "Sessions and the line",
            note: "as the store has them, over the time of the run".into(),
            x: self.run.time_axis(),
            y: Axis::linear(greatest, 4.0, |value| grouped(value.round() as u64)),
            hints: self.run.hints(|second| {
                let seen = self.run.samples.iter().find(|sample| sample.at.as_secs() == second)?.store?;
                Some(format!("live: {}\nin line: {}", grouped(seen.live), grouped(seen.line)))
            }),
            marks: self.run.marks(),
            lines,
        }
    }

    fn latency(&self, sales: &Sales, other: Option<&(&Outcome, Sales)>) -> Plot {
        let mut lines = vec![
            Line { name: "p50", class: "half", points: over_seconds(sales, 0.5), filled: false },
            Line { name: "p99", class: "most", points: over_seconds(sales, 0.99), filled: false },
        ];
        if let Some((contrast, sales)) = other {
            let points = self.aligned(contrast, over_seconds(sales, 0.99));
            lines.push(Line { name: "p99 without limits", class: "error", points, filled: false });
        }
        let values = || lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
        let (least, greatest) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        let least = if least.is_finite() { least } else { 1.0 };
        Plot {
            title: "Sales of the pharmacies",
            note: "from the intended time of a sale to its answer, each second, logarithmic".into(),
            x: self.run.time_axis(),
            y: Axis::logarithmic(least, greatest, |value| milliseconds(value).replace(".00", "").replace(".0", "")),
            hints: self.run.hints(|second| {
                let latency = sales.seconds.get(usize::try_from(second).ok()?)?;
                let quantile = |share| milliseconds_or_dash(latency.quantile(share));
                Some(format!("p50: {}\np99: {}\nmax: {}", quantile(0.5), quantile(0.99), quantile(1.0)))
            }),
            marks: self.run.marks(),
            lines,
        }
    }

    /// The points of another run so that its storm begins with this one's.
    fn aligned(&self, other: &Outcome, points: Points) -> Points {
        let shift = self.run.storm().0.as_secs_f64() - other.storm().0.as_secs_f64();
        let end = self.run.elapsed.as_secs_f64();
        let shifted = points.into_iter().map(|(at, value)| (at + shift, value));
        shifted.filter(|(at, _)| (0.0..=end).contains(at)).collect()
    }

    fn checks(&self, out: &mut String) {
        out.push_str("<h2>Checks</h2><table><tr><th>what must not be</th><th>found</th><th>of</th></tr>");
        let lost = self.run.lost().map(|(count, samples)| ("sales_lost", count, samples));
        let named = self.run.checks.named().map(|(name, counted)| (name, counted.count, counted.samples));
        for (name, count, samples) in named.into_iter().chain(lost) {
            let (count, samples) = (grouped(count), grouped(samples));
            let _ = write!(out, "<tr><td>{}</td><td>{count}</td><td>{samples}</td></tr>", name.replace('_', " "));
        }
        out.push_str("</table>\n");
    }
}

impl Outcome {
    fn time_axis(&self) -> Axis {
        let end = self.elapsed.as_secs_f64().max(1.0);
        Axis::linear(end, 6.0, |seconds| format!("{seconds:.0} s")).ending_at(end)
    }

    fn marks(&self) -> Vec<(f64, String)> {
        self.phases.iter().map(|(at, name)| (at.as_secs_f64(), (*name).to_owned())).collect()
    }

    fn live(&self) -> Points {
        let point =
            |sample: &super::super::Sample| (sample.at.as_secs_f64(), sample.store.map(|seen| seen.live as f64));
        self.samples.iter().map(point).collect()
    }

    fn line(&self) -> Points {
        let point =
            |sample: &super::super::Sample| (sample.at.as_secs_f64(), sample.store.map(|seen| seen.line as f64));
        self.samples.iter().map(point).collect()
    }

    /// One for each second of which there is something to tell.
    fn hints(&self, text: impl Fn(u64) -> Option<String>) -> Vec<Hint> {
        let hint = |second: u64| {
            let from = second as f64;
            Some(Hint { from, to: from + 1.0, text: format!("{second} s\n{}", text(second)?) })
        };
        (0..self.elapsed.as_secs()).filter_map(hint).collect()
    }

    /// Some of the longest waits of each kind.
    pub(super) fn positions(&self) -> Plot {
        let mut traces: Vec<&super::super::Trace> = self.traces.iter().collect();
        traces.sort_by_key(|trace| std::cmp::Reverse(trace.len()));
        let rank_of = |rank: u32| usize::try_from(rank).unwrap_or(usize::MAX).min(RANKS.len() - 1);
        let lines: Vec<Line> = RANKS
            .iter()
            .enumerate()
            .map(|(which, (name, class))| {
                let has_it = |trace: &&&super::super::Trace| trace.iter().any(|(_, rank, _)| rank_of(*rank) == which);
                let mut points = Points::new();
                for trace in traces.iter().filter(has_it).take(DRAWN) {
                    let value = |rank: u32, position: u64| (rank_of(rank) == which).then_some(position as f64);
                    // Positions of two ranks are never compared, so no line leads from one to the other.
                    for stretch in trace.chunk_by(|(_, one, _), (_, other, _)| one == other) {
                        points.extend(stretch.iter().map(|(at, rank, place)| (at.as_secs_f64(), value(*rank, *place))));
                        points.extend(stretch.last().map(|(at, ..)| (at.as_secs_f64(), None)));
                    }
                }
                Line { name, class, points, filled: false }
            })
            .collect();
        let greatest = lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value).fold(1.0, f64::max);
        Plot {
            title: "Positions",
            note: "what a sample of waiting terminals was told, each line one of them: it may only fall within a rank"
                .into(),
            x: self.time_axis(),
            y: Axis::linear(greatest, 4.0, |value| grouped(value.round() as u64)),
            hints: Vec::new(),
            marks: self.marks(),
            lines,
        }
    }

    /// How many came back to their places in each second.
    pub(super) fn returning(&self) -> Points {
        let many = |second: u64| self.returns.get(&second).copied().unwrap_or_default() as f64;
        (0..self.elapsed.as_secs()).map(|second| (second as f64 + 0.5, Some(many(second)))).collect()
    }

    fn coming_back(&self) -> Plot {
        let points = self.returning();
        let greatest = points.iter().filter_map(|(_, value)| *value).fold(1.0, f64::max);
        Plot {
            title: "Coming back",
            note: "terminals that came back to their places, each second; those of a service that is gone come within eight"
                .into(),
            x: self.time_axis(),
            y: Axis::linear(greatest, 4.0, |value| grouped(value.round() as u64)),
            hints: self.hints(|second| Some(format!("came back: {}", grouped(*self.returns.get(&second)?)))),
            marks: self.marks(),
            lines: vec![Line { name: "terminals a second", class: "decided", points, filled: true }],
        }
    }

    fn reasons(&self, out: &mut String) {
        out.push_str("<div class=\"columns\">");
        for (title, counted) in [
            ("Log-ins turned back", &self.refused),
            ("Ended by the service", &self.ended),
            ("What thieves were told", &self.tries),
        ] {
            if counted.is_empty() {
                continue;
            }
            let _ = write!(out, "<div><h2>{title}</h2><table class=\"reasons\">");
            for (name, count) in by_count(counted) {
                let _ = write!(out, "<tr><td><code>{}</code></td><td>{}</td></tr>", escaped(name), grouped(count));
            }
            out.push_str("</table></div>");
        }
        out.push_str("</div>\n");
    }
}

fn over_seconds(sales: &Sales, share: f64) -> Points {
    let middles = sales.seconds.iter().zip(0_u32..);
    let points = middles.map(|(latency, second)| (f64::from(second) + 0.5, latency.quantile(share)));
    points.skip_while(|(_, value)| value.is_none()).collect()
}
