//! What a run was, apart from its calls: which scenario against which service, by how many processes, and how it ended.
//!
//! Knows nothing of the calls themselves (`history`) and of how any of it is shown (`report`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::driver::Part;
use crate::ids::{LedgerId, ProgrammeId};

/// How calls travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// One request and one answer.
    Unary,
    /// One `PurchaseStream` for each connection, many calls in flight on it.
    Stream,
}

/// A stretch of an open loop: the offered rate goes in a straight line from one value to another. The rate is that of people who
/// come to a counter; what follows a purchase (a retry, a confirmation, a void, a second try at another site) comes on top.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// What it is called in the scenario ("opening burst").
    pub name: String,
    /// Its length.
    pub length: Duration,
    /// People per second at its beginning, of all processes together.
    pub from: f64,
    /// People per second at its end.
    pub to: f64,
}

/// When calls are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// By a timetable that waits for no answer.
    Open(Vec<Phase>),
    /// So many callers, each of which sends its next call when it has been answered and has thought.
    Closed {
        /// Callers, of all processes together.
        callers: u32,
        /// From an answer to the next call.
        think: Duration,
        /// How long they go on.
        length: Duration,
    },
}

impl Arrivals {
    /// How long calls are sent.
    pub fn length(&self) -> Duration {
        match self {
            Self::Open(phases) => phases.iter().map(|phase| phase.length).sum(),
            Self::Closed { length, .. } => *length,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself, as planned.
    Complete,
    /// Somebody asked it to stop.
    Interrupted,
    /// The service went away and stayed away.
    ServiceLost {
        /// Its last answer, since the run began.
        last_answer: Duration,
        /// What the harness saw instead of answers.
        why: String,
    },
    /// Something of the harness itself failed, a worker process for one: what.
    HarnessFailed(String),
}

/// The sessions of a run's terminals.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Terminals that were to open one.
    pub wanted: u64,
    /// Those that were let in.
    pub admitted: u64,
    /// Those that found every seat of their site taken.
    pub site_full: u64,
    /// Those that had no answer or an error.
    pub failed: u64,
    /// Sessions that ended before the run did.
    pub lost: u64,
    /// From asking to being let in, milliseconds, one for each that was admitted, in no order.
    pub opening_ms: Vec<u32>,
}

/// What the harness itself could not keep up with. Anything but zeros belongs on the first page of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shortfall {
    /// Calls of the timetable that were never sent, because as many calls as the harness may hold were under way.
    pub not_sent: u64,
    /// Calls sent more than ten milliseconds after they were to be. Their latency counts from when they were to be sent.
    pub sent_late: u64,
    /// The worst of them.
    pub latest: Duration,
}

/// What a run was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The scenario's name.
    pub scenario: String,
    /// What the scenario is about, one line.
    pub title: String,
    /// Where every random choice of the run comes from.
    pub seed: u64,
    /// Where the terminals call.
    pub address: String,
    /// Whether the harness started the service itself; then on which kind of store ("embedded", "redis").
    pub own_service: Option<String>,
    /// Under which programme was sold.
    pub programme: ProgrammeId,
    /// The ledger that the sales are in; `None` if no session was ever opened.
    pub ledger: Option<LedgerId>,
    /// How calls travelled.
    pub wire: Wire,
    /// When calls were to be sent.
    pub arrivals: Arrivals,
    /// Which part of the run this is.
    pub part: Part,
    /// When its parts were to begin, RFC 3339; `None`: it has only one.
    pub start_at: Option<String>,
    /// Processes that shared the run.
    pub processes: u32,
    /// Sites that took part.
    pub sites: u32,
    /// HTTP/2 connections, of all processes together.
    pub connections: u32,
    /// People of the synthetic population.
    pub population: u64,
    /// Length of the run from the first call's intended time, until the last answer or the end.
    pub elapsed: Duration,
    /// Sessions of the terminals.
    pub sessions: SessionFacts,
    /// What the harness could not keep up with.
    pub shortfall: Shortfall,
    /// How it ended.
    pub ended: Ended,
    /// Why there is no audit, where there is none.
    pub not_audited: Option<String>,
}

#[cfg(test)]
impl RunFacts {
    /// A run that might have been.
    pub(super) fn example(elapsed: Duration) -> Self {
        let phase =
            |name: &str, seconds, from, to| Phase { name: name.into(), length: Duration::from_secs(seconds), from, to };
        Self {
            scenario: "morning".into(),
            title: "a Saturday of the peak week of 2020, compressed <2 min>".into(),
            seed: 7,
            address: "http://127.0.0.1:50051".into(),
            own_service: Some("embedded".into()),
            programme: "load".parse().unwrap(),
            ledger: None,
            wire: Wire::Unary,
            arrivals: Arrivals::Open(vec![phase("doors open", 30, 200.0, 900.0), phase("ebb", 60, 900.0, 300.0)]),
            part: Part::WHOLE,
            start_at: None,
            processes: 1,
            sites: 40,
            connections: 8,
            population: 20_000,
            elapsed,
            sessions: SessionFacts {
                wanted: 40,
                admitted: 40,
                opening_ms: (1..=40).collect(),
                ..SessionFacts::default()
            },
            shortfall: Shortfall::default(),
            ended: Ended::Complete,
            not_audited: None,
        }
    }
}
