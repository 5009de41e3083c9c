//! The summary as one HTML page that needs nothing but itself.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::plot::{Axis, Hint, Line, Plot, escaped};
use super::tally::{Latency, Tally};
use super::words::{by_count, grouped, length, milliseconds, milliseconds_or_dash, rate};
use super::{Summary, verb_name};
use crate::load::run::Arrivals;

const STYLE: &str = include_str!("style.css");

/// The curve of latencies has so many steps for each nine.
const STEPS_A_NINE: u32 = 20;

impl Summary {
    /// One page to look at, in light or dark, on a screen or a telephone; it loads nothing.
    pub fn html(&self) -> String {
        let facts = &self.facts;
        let name = escaped(&facts.scenario);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>rationd load: {name}</title><style>{STYLE}</style></head><body>\n"
        );
        let _ = writeln!(out, "<h1>{name} <small>{}</small></h1>", length(self.timeline.elapsed()));
        let _ = writeln!(
            out,
            "<p class=\"soft\">{}<br>{}</p>",
            escaped(&facts.title),
            escaped(&self.setting().join(" · "))
        );
        let verdict = self.verdict();
        let class = verdict.clean.map_or("none", |clean| if clean { "good" } else { "bad" });
        let words = escaped(&verdict.words);
        let _ = writeln!(out, "<div class=\"verdict {class}\"><b>{}</b>{words}.</div>", verdict.title);
        for warning in [self.mishap(), self.behind()].into_iter().flatten() {
            let _ = writeln!(out, "<p class=\"warn\">{}</p>", escaped(&warning));
        }
        self.tiles(&mut out);
        self.cases_table(&mut out);
        out.push_str(&self.throughput().html());
        out.push_str(&self.latency_over_time().html());
        out.push_str(&self.distribution().html());
        self.verbs_table(&mut out);
        self.reasons_tables(&mut out);
        out.push_str("</body></html>\n");
        out
    }

    fn tiles(&self, out: &mut String) {
        let all = &self.all;
        let latency = |share| milliseconds_or_dash(all.latency.quantile(share));
        let unknown = format!("errors, {} unknown", grouped(all.unknown));
        let tiles = [
            (grouped(self.offered()), "offered"),
            (grouped(all.accepted()), "accepted"),
            (grouped(all.refused), "refused"),
            (grouped(all.errors()), unknown.as_str()),
            (rate(self.goodput()), "decisions"),
            (latency(0.5), "p50 latency"),
            (latency(0.99), "p99"),
            (latency(0.999), "p99.9"),
        ];
        out.push_str("<div class=\"tiles\">");
        for (value, label) in tiles {
            let _ = write!(out, "<div class=\"tile\"><b>{value}</b><span>{label}</span></div>");
        }
        out.push_str("</div>\n");
    }

    fn cases_table(&self, out: &mut String) {
        let Some(audit) = self.audit.as_ref().filter(|audit| !audit.is_clean()) else { return };
        out.push_str(
            "<h2>Cases</h2><div class=\"wide\"><table class=\"words\"><tr><th>what</th><th>expected</th><th>found</th>\
             <th>site</th><th>request id</th></tr>",
        );
        for case in &audit.cases {
            let request = case.request.map_or_else(|| "?".to_owned(), |id| id.to_string());
            let site = case.site.map_or_else(|| "?".to_owned(), |site| site.to_string());
            let cells = [case.kind.words(), &case.expected, &case.stands, &site].map(escaped).join("</td><td>");
            let _ = write!(out, "<tr><td>{cells}</td><td><code>{request}</code></td></tr>");
        }
        out.push_str("</table></div>\n");
        let more = audit.total().saturating_sub(audit.cases.len() as u64);
        if more > 0 {
            let _ = writeln!(out, "<p class=\"soft\">… and {} more.</p>", grouped(more));
        }
    }

    fn time_axis(&self) -> Axis {
        let end = self.timeline.elapsed().as_secs_f64().max(0.001);
        if end < 120.0 {
            return Axis::linear(end, 5.0, |seconds| format!("{} s", (seconds * 10.0).round() / 10.0)).ending_at(end);
        }
        let steps = [30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400];
        let step = steps.into_iter().find(|step| end / f64::from(*step) <= 6.0).unwrap_or(864_000);
        let times = (0..).step_by(step as usize).take_while(|time: &u32| f64::from(*time) <= end);
        let label = |time: u32| match time {
            3_600.. => format!("{}:{:02} h", time / 3_600, time % 3_600 / 60),
            _ => format!("{}:{:02} min", time / 60, time % 60),
        };
        Axis::labelled(end, times.map(|time| (f64::from(time), label(time))).collect())
    }

    /// Where the phases of the timetable begin, the first one too; none if there is only one.
    fn phases(&self) -> Vec<(f64, String)> {
        let Arrivals::Open(phases) = &self.facts.arrivals else { return Vec::new() };
        if phases.len() < 2 {
            return Vec::new();
        }
        let mut begins = 0.0;
        let begin = phases.iter().map(|phase| {
            let at = begins;
            begins += phase.length.as_secs_f64();
            (at, phase.name.clone())
        });
        begin.filter(|(at, _)| *at <= self.timeline.elapsed().as_secs_f64()).collect()
    }

    fn over_time(&self, values: Vec<Option<f64>>) -> Vec<(f64, Option<f64>)> {
        let middle = |which| {
            let (from, until) = self.timeline.span(which);
            (from + until) / 2.0
        };
        values.into_iter().enumerate().map(|(which, value)| (middle(which), value)).collect()
    }

    fn hints(&self, text: impl Fn(usize) -> String) -> Vec<Hint> {
        let hint = |which| {
            let (from, to) = self.timeline.span(which);
            Hint { from, to, text: format!("{from:.1} to {to:.1} s\n{}", text(which)) }
        };
        (0..self.timeline.slices().len()).map(hint).collect()
    }

    fn throughput(&self) -> Plot {
        let kinds: [(&'static str, &'static str, Vec<f64>); 4] = [
            ("offered", "offered", self.timeline.rates(|slice| slice.offered)),
            ("decisions", "decided", self.timeline.rates(|slice| slice.decisions)),
            ("of them refusals", "refused", self.timeline.rates(|slice| slice.refused)),
            ("errors", "error", self.timeline.rates(|slice| slice.errors)),
        ];
        let greatest = kinds.iter().flat_map(|(_, _, rates)| rates).copied().fold(1.0, f64::max);
        let hint = |which| {
            let told = kinds
                .iter()
                .map(|(name, _, rates)| format!("{name}: {}", rate(rates.get(which).copied().unwrap_or_default())));
            told.collect::<Vec<_>>().join("\n")
        };
        let hints = self.hints(hint);
        let line = |(name, class, rates): (&'static str, &'static str, Vec<f64>)| Line {
            name,
            class,
            points: self.over_time(rates.into_iter().map(Some).collect()),
            filled: class == "decided",
        };
        Plot {
            title: "Throughput",
            note: "calls per second, over the time of the run".into(),
            x: self.time_axis(),
            y: Axis::linear(greatest, 4.0, |value| grouped(value.round() as u64)),
            hints,
            marks: self.phases(),
            lines: kinds.into_iter().map(line).collect(),
        }
    }

    fn latency_over_time(&self) -> Plot {
        let kinds = [("p50", "half", 0.5), ("p99", "most", 0.99), ("max", "worst", 1.0)]
            .map(|(name, class, share)| (name, class, self.timeline.latencies(share)));
        let hint = |which: usize| {
            let told = kinds.iter().map(|(name, _, values)| {
                format!("{name}: {}", milliseconds_or_dash(values.get(which).copied().flatten()))
            });
            told.collect::<Vec<_>>().join("\n")
        };
        let hints = self.hints(hint);
        let y = latency_axis(kinds.iter().flat_map(|(_, _, values)| values).flatten().copied());
        let line = |(name, class, values)| Line { name, class, points: self.over_time(values), filled: false };
        Plot {
            title: "Latency over time",
            note: "from the intended time of a call to its answer, logarithmic; by when it was to be sent".into(),
            x: self.time_axis(),
            y,
            hints,
            marks: self.phases(),
            lines: kinds.into_iter().map(line).collect(),
        }
    }

    fn distribution(&self) -> Plot {
        let all = [
            ("answered or unknown", "most", &self.all.latency),
            ("turned away", "error", &self.all.turned_away_latency),
        ];
        let kinds: Vec<_> = all.into_iter().filter(|(_, _, latency)| latency.count() > 0).collect();
        let calls = kinds.iter().map(|(_, _, latency)| latency.count()).max().unwrap_or(1);
        let nines = (calls as f64).log10().clamp(1.0, 7.0);
        let lines: Vec<Line> = kinds
            .iter()
            .map(|(name, class, latency)| Line { name, class, points: curve(latency, nines), filled: false })
            .collect();
        let steps = (nines * f64::from(STEPS_A_NINE)).ceil() as u32;
        let hint = |step: u32| {
            let (from, to) = (nine(step), nine(step + 1));
            let share = 1.0 - 10_f64.powf(-to);
            let digits = if to <= 1.0 { 0 } else { (to - 0.01).floor() as usize };
            let told = kinds
                .iter()
                .map(|(name, _, latency)| format!("{name}: within {}", milliseconds_or_dash(latency.quantile(share))));
            Hint { from, to, text: format!("{:.digits$} %\n{}", share * 100.0, told.collect::<Vec<_>>().join("\n")) }
        };
        let hints = (0..steps).map(hint).collect();
        let tick = |nine: u32| match nine {
            ..2 => "90 %".to_owned(),
            _ => format!("{:.*}", nine.saturating_sub(2) as usize, 100.0 - 10_f64.powi(2 - nine as i32)),
        };
        let half = (2_f64.log10(), "50".to_owned());
        let ticks = std::iter::once(half).chain((1..=nines as u32).map(|nine| (f64::from(nine), tick(nine)))).collect();
        Plot {
            title: "Latency distribution",
            note: "which share of calls, in per cent, was answered within which time; logarithmic".into(),
            x: Axis::labelled(nines, ticks),
            y: latency_axis(lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value)),
            hints,
            marks: Vec::new(),
            lines,
        }
    }

    fn verbs_table(&self, out: &mut String) {
        out.push_str("<h2>By call</h2><div class=\"wide\"><table><tr><th>call</th><th>calls</th><th>accepted</th>\
                      <th>refused</th><th>other</th><th>turned away</th><th>unknown</th><th>p50</th><th>p90</th><th>p99</th>\
                      <th>p99.9</th><th>max</th></tr>");
        let mut row = |name: &str, tally: &Tally| {
            let counts = [tally.calls, tally.accepted(), tally.refused, tally.other, tally.turned_away, tally.unknown];
            let times = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| milliseconds_or_dash(tally.latency.quantile(share)));
            let cells: Vec<String> = counts.into_iter().map(grouped).chain(times).collect();
            let _ = write!(out, "<tr><td>{name}</td><td>{}</td></tr>", cells.join("</td><td>"));
        };
        for (verb, tally) in &self.by_verb {
            row(verb_name(*verb), tally);
        }
        row("all", &self.all);
        out.push_str("</table></div>\n");
    }

    fn reasons_tables(&self, out: &mut String) {
        out.push_str("<div class=\"columns\">");
        let mut table = |title: &str, counted: &BTreeMap<String, u64>| {
            if counted.is_empty() {
                return;
            }
            let _ = write!(out, "<div><h2>{title}</h2><table class=\"reasons\">");
            for (name, count) in by_count(counted) {
                let _ = write!(out, "<tr><td><code>{}</code></td><td>{}</td></tr>", escaped(name), grouped(count));
            }
            out.push_str("</table></div>");
        };
        table("Refused", &self.refused_by_reason);
        table("Turned away, nothing written", &self.turned_away_by_reason);
        table("Outcome unknown", &self.unknown_by_reason);
        out.push_str("</div>\n");
        if let Some(sessions) = self.sessions() {
            let _ = writeln!(out, "<h2>Sessions</h2><p>{}</p>", escaped(&sessions));
        }
    }
}

fn latency_axis(values: impl Iterator<Item = f64> + Clone) -> Axis {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let greatest = values.fold(0.0, f64::max);
    let (least, greatest) = if least.is_finite() { (least, greatest) } else { (1.0, 10.0) };
    Axis::logarithmic(least, greatest, |value| milliseconds(value).replace(".00", "").replace(".0", ""))
}

/// Where a step of the curve lies, in nines: 1 is 90 %, 2 is 99 %.
fn nine(step: u32) -> f64 {
    f64::from(step) / f64::from(STEPS_A_NINE)
}

/// Latencies by nines, as far as there are calls to tell them.
fn curve(latency: &Latency, nines: f64) -> Vec<(f64, Option<f64>)> {
    let known = (latency.count().max(1) as f64).log10();
    let steps = (0..=(nines.min(known) * f64::from(STEPS_A_NINE)) as u32).map(nine);
    let mut points: Vec<(f64, Option<f64>)> =
        steps.map(|nine| (nine, latency.quantile(1.0 - 10_f64.powf(-nine)))).collect();
    points.push((nines.min(known), latency.max()));
    points
}
