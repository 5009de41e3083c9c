//! What a morning comes to: a page of text, one JSON object, one page for browsers.

mod html;
mod page;

use std::time::Duration;

use serde_json::{Value, json};

use super::{Outcome, Storm};
use crate::load::history::{Asked, Outcome as Answer};
use crate::load::report::tally::{Latency, latency};
use crate::load::report::words::grouped;

/// A sale takes as long as before when 99 of 100 take less than so many times as long.
const AS_BEFORE: f64 = 2.0;

/// How the sales went.
struct Sales {
    sold: u64,
    refused: u64,
    /// Certainly not executed; those of pharmacies without a session among them.
    turned_away: u64,
    unknown: u64,
    quiet: Latency,
    storm: Latency,
    after: Latency,
    /// Of the sales that were to be made in each second.
    seconds: Vec<Latency>,
}

impl Outcome {
    /// Whether everything that was promised was kept.
    pub(super) fn is_clean(&self) -> bool {
        self.checks.are_clean() && self.audit.as_ref().is_ok_and(|audit| audit.is_clean())
    }

    /// When a phase begins and ends.
    fn span(&self, phase: &str) -> (Duration, Duration) {
        let place = self.phases.iter().position(|(_, name)| *name == phase);
        let from = place.and_then(|place| self.phases.get(place)).map_or(self.elapsed, |(from, _)| *from);
        let until = place.and_then(|place| self.phases.get(place + 1)).map_or(self.elapsed, |(from, _)| *from);
        (from, until.max(from))
    }

    /// From the end of the quiet to the beginning of the time after.
    fn storm(&self) -> (Duration, Duration) {
        (self.span("quiet").1, self.span("after").0)
    }

    fn sales(&self) -> Sales {
        let empty = || Latency::with_digits(3);
        let seconds = (0..=self.elapsed.as_secs()).map(|_| Latency::with_digits(2)).collect();
        let mut sales = Sales {
            sold: 0,
            refused: 0,
            turned_away: 0,
            unknown: 0,
            quiet: empty(),
            storm: empty(),
            after: empty(),
            seconds,
        };
        let (quiet, storm, after) = (self.span("quiet"), self.storm(), self.span("after"));
        let within = |sale: &Asked, (from, until)| (from..until).contains(&sale.intended);
        for sale in &self.sales {
            *match &sale.outcome {
                Answer::Approved { .. } => &mut sales.sold,
                Answer::NotExecuted(_) => &mut sales.turned_away,
                Answer::Unknown(_) | Answer::OfAnother(_) => &mut sales.unknown,
                _ => &mut sales.refused,
            } += 1;
            // Who is turned away at once is not served fast.
            if matches!(sale.outcome, Answer::NotExecuted(_)) {
                continue;
            }
            let second = usize::try_from(sale.intended.as_secs()).unwrap_or(usize::MAX);
            if let Some(second) = sales.seconds.get_mut(second) {
                second.record(latency(sale));
            }
            let phases = [(quiet, &mut sales.quiet), (storm, &mut sales.storm), (after, &mut sales.after)];
            for (_, of_phase) in phases.into_iter().filter(|(span, _)| within(sale, *span)) {
                of_phase.record(latency(sale));
            }
        }
        sales
    }

    /// The most seats that the store was seen to have, and the most places.
    fn most_in_store(&self) -> (u64, u64) {
        let seen = self.samples.iter().filter_map(|sample| sample.store);
        seen.fold((0, 0), |(live, line), seen| (live.max(seen.live), line.max(seen.line)))
    }

    fn json(&self, offered: u64) -> Value {
        let sales = self.sales();
        let (live, line) = self.most_in_store();
        let quantiles = |latency: &Latency| {
            json!({
                "count": latency.count(),
                "p50": thousandths(latency.quantile(0.5)),
                "p99": thousandths(latency.quantile(0.99)),
                "max": thousandths(latency.max()),
            })
        };
        let (audit, not_audited) = match &self.audit {
            Ok(audit) => (serde_json::to_value(audit).unwrap_or_default(), Value::Null),
            Err(why) => (Value::Null, why.clone().into()),
        };
        let mut object = json!({
            "elapsed_s": self.elapsed.as_secs_f64(),
            "interrupted": self.interrupted,
            "connections": self.connections,
            "sessions": {
                "offered": offered,
                "pharmacies_open": self.pharmacies,
                "logins": self.logins,
                "admitted": self.admitted,
                "refused": self.refused,
                "ended_by_service": self.ended,
                "most_live": live,
                "longest_line": line,
                "came_back": self.returns.values().sum::<u64>(),
                "most_came_back_in_a_second": self.returns.values().max(),
            },
            "tries": self.tries,
            "sales": {
                "acknowledged": sales.sold,
                "refused": sales.refused,
                "turned_away": sales.turned_away,
                "unknown": sales.unknown,
                "quiet": quantiles(&sales.quiet),
                "storm": quantiles(&sales.storm),
                "after": quantiles(&sales.after),
            },
            "sales_lost": self.lost().map_or(Value::Null, |(count, samples)| json!({ "count": count, "samples": samples })),
            "sale_p99_storm_over_quiet": { "ratio": thousandths(sales.ratio()), "samples": sales.storm.count() },
            "as_before_after_s": self.as_before(&sales),
            "switch_seconds": {
                "seconds": thousandths(self.checks.switch.and_then(|switch| switch.took).map(|took| took.as_secs_f64())),
                "samples": self.checks.switch.map_or(0, |switch| switch.extra),
            },
            "audit": audit,
            "not_audited": not_audited,
        });
        if let Some(fields) = object.as_object_mut() {
            for (name, counted) in self.checks.named() {
                fields.insert(name.to_owned(), json!(counted));
            }
        }
        object
    }

    /// Acknowledged sales that are not in the ledger, of how many; `None` if nobody could look.
    fn lost(&self) -> Option<(u64, u64)> {
        let audit = self.audit.as_ref().ok()?;
        let there = audit.sales_standing + audit.sales_taken_back;
        Some((audit.sales_acknowledged.saturating_sub(there), audit.sales_acknowledged))
    }

    /// Seconds from the end of the storm until a second's sales take as long as before; `None` if that was not seen.
    fn as_before(&self, sales: &Sales) -> Option<u64> {
        let enough = sales.quiet.quantile(0.99)? * AS_BEFORE;
        let end = self.span("after").0.as_secs();
        let mut seconds = sales.seconds.iter().skip(usize::try_from(end).unwrap_or(usize::MAX)).zip(0..);
        let is_as_before = |latency: &Latency| latency.quantile(0.99).is_some_and(|p99| p99 < enough);
        seconds.find(|(latency, _)| is_as_before(latency)).map(|(_, seconds)| seconds)
    }
}

impl Sales {
    /// How much longer 99 of 100 sales took in the storm than in the quiet.
    fn ratio(&self) -> Option<f64> {
        Some(self.storm.quantile(0.99)? / self.quiet.quantile(0.99)?)
    }
}

impl Storm {
    /// Whether everything that was promised was kept.
    pub fn is_clean(&self) -> bool {
        self.run.is_clean()
    }

    /// One object. Each check is `{count, samples}`: what was found that must not be, in how many cases. Latencies are in
    /// milliseconds from the intended time.
    pub fn json(&self) -> Value {
        let morning = &self.morning;
        let mut object = self.run.json(morning.offered());
        let run = json!({
            "scenario": morning.name,
            "title": morning.title,
            "scale": morning.scale,
            "seed": morning.seed,
            "services": self.services,
            "pharmacies": morning.pharmacies,
            "offices": morning.offices,
            "logins_of_each": morning.logins(),
            "tries": morning.tries(),
            "cap": morning.cap,
            "capacity": morning.capacity,
            "sales_per_s": morning.sales_per_second,
            "optimised": !cfg!(debug_assertions),
        });
        let contrast = self.contrast.as_ref().map_or(Value::Null, |run| run.json(morning.offered()));
        if let Some(fields) = object.as_object_mut() {
            fields.extend([("run".to_owned(), run), ("without_limits".to_owned(), contrast)]);
        }
        object
    }

    /// Whether it is good, in one word and in many.
    fn verdict(&self) -> (&'static str, String) {
        let run = &self.run;
        let checks = run.checks;
        let found: Vec<String> = checks
            .named()
            .into_iter()
            .filter(|(_, counted)| counted.count > 0)
            .map(|(name, counted)| format!("{} × {name}", grouped(counted.count)))
            .chain(checks.switch_failed().then(|| "a session outlived the switch to one terminal".to_owned()))
            .chain(match &run.audit {
                Ok(audit) => audit.found.iter().map(|(kind, count)| format!("{} × {kind}", grouped(*count))).collect(),
                Err(why) => vec![format!("the ledger could not be read: {why}")],
            })
            .collect();
        if !found.is_empty() {
            return ("Found", found.join("; "));
        }
        let tries = match self.morning.tries() {
            Some(_) => "with what is no session's token and none let in",
            None => "to sell without a seat and none did",
        };
        let words = format!(
            "{} admissions and no site above its cap, nor the nation above its capacity; {} positions and none rose; {} places \
             asked for again and none lost; {} tries {tries}; {} sales acknowledged, every one in the ledger once",
            grouped(checks.cap_violations.samples),
            grouped(checks.position_rises.samples),
            grouped(checks.place_resets.samples),
            grouped(checks.bypasses.samples),
            grouped(run.lost().map_or(0, |(_, samples)| samples)),
        );
        ("Clean", words)
    }
}

/// To three digits after the point; null where there is none.
fn thousandths(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| json!((value * 1000.0).round() / 1000.0))
}

#[cfg(test)]
mod tests;
