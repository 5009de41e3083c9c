//! The summary as one JSON object.

use serde_json::{Value, json};

use super::tally::{Latency, Tally};
use super::{Summary, verb_name};

/// Milliseconds to three digits after the point; null where there is none.
fn number(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| json!((value * 1000.0).round() / 1000.0))
}

fn latency(latency: &Latency) -> Value {
    json!({
        "count": latency.count(),
        "p50": number(latency.quantile(0.5)),
        "p90": number(latency.quantile(0.9)),
        "p99": number(latency.quantile(0.99)),
        "p99_9": number(latency.quantile(0.999)),
        "max": number(latency.max()),
    })
}

fn tally(tally: &Tally) -> Value {
    json!({
        "calls": tally.calls,
        "approved": tally.approved,
        "held": tally.held,
        "refused": tally.refused,
        "otherwise_decided": tally.other,
        "turned_away": tally.turned_away,
        "unknown": tally.unknown,
        "latency": latency(&tally.latency),
    })
}

impl Summary {
    /// One object: `offered`, `accepted`, `refused`, `errors` as counts of calls, latencies in milliseconds from the intended
    /// time, and the audit (null if there is none; `not_audited` then says why).
    ///
    /// `errors` is all that was not decided: `turned_away` (nothing was written) and `unknown`. `latency` is of all calls but
    /// those turned away, which have their own; a call that a terminal without a session could not make has none.
    pub fn json(&self) -> Value {
        let facts = &self.facts;
        let sessions = &facts.sessions;
        let verbs = self.by_verb.iter().map(|(verb, counts)| (verb_name(*verb).to_owned(), tally(counts)));
        let rates = |count: fn(&super::timeline::Slice) -> u64| -> Value {
            self.timeline.rates(count).into_iter().map(|rate| number(Some(rate))).collect()
        };
        let latencies = |share| -> Value { self.timeline.latencies(share).into_iter().map(number).collect() };
        let audit = self.audit.as_ref().map(|audit| {
            let mut object = serde_json::to_value(audit).unwrap_or_default();
            if let Some(fields) = object.as_object_mut() {
                fields.insert("clean".into(), audit.is_clean().into());
            }
            object
        });
        let run = json!({
            "scenario": facts.scenario,
            "title": facts.title,
            "seed": facts.seed,
            "address": facts.address,
            "own_service": facts.own_service,
            "programme": facts.programme,
            "ledger": facts.ledger,
            "wire": facts.wire,
            "processes": facts.processes,
            "sites": facts.sites,
            "connections": facts.connections,
            "population": facts.population,
            "ended": facts.ended,
        });
        let sessions = json!({
            "wanted": sessions.wanted,
            "admitted": sessions.admitted,
            "site_full": sessions.site_full,
            "failed": sessions.failed,
            "lost": sessions.lost,
            "opening": latency(&self.openings),
        });
        let over_time = json!({
            "slice_s": self.timeline.length().as_secs_f64(),
            "offered_per_s": rates(|slice| slice.offered),
            "decisions_per_s": rates(|slice| slice.decisions),
            "refused_per_s": rates(|slice| slice.refused),
            "errors_per_s": rates(|slice| slice.errors),
            "p50": latencies(0.5),
            "p99": latencies(0.99),
            "max": latencies(1.0),
        });
        json!({
            "run": run,
            "elapsed_s": self.timeline.elapsed().as_secs_f64(),
            "offered": self.offered(),
            "sent": self.all.calls,
            "not_sent": facts.shortfall.not_sent,
            "sent_late": facts.shortfall.sent_late,
            "latest_ms": facts.shortfall.latest.as_secs_f64() * 1000.0,
            "accepted": self.all.accepted(),
            "approved": self.all.approved,
            "held": self.all.held,
            "refused": self.all.refused,
            "refused_by_reason": self.refused_by_reason,
            "otherwise_decided": self.all.other,
            "errors": self.all.errors(),
            "turned_away": self.all.turned_away,
            "turned_away_by_reason": self.turned_away_by_reason,
            "unknown": self.all.unknown,
            "unknown_by_reason": self.unknown_by_reason,
            "decisions": self.all.decisions(),
            "goodput_per_s": number(Some(self.goodput())),
            "latency": latency(&self.all.latency),
            "latency_turned_away": latency(&self.all.turned_away_latency),
            "verbs": verbs.collect::<serde_json::Map<_, _>>(),
            "sessions": sessions,
            "over_time": over_time,
            "audit": audit,
            "not_audited": facts.not_audited,
        })
    }
}
