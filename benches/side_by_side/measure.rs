//! One measurement: what was decided in a span of time, how long each took, and what CPU time it cost whom.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::side_by_side::processes::Cpu;

/// How long a system runs before it is measured, in every round.
const WARM_UP: Duration = Duration::from_millis(700);

/// What was measured; rounds add up.
#[derive(Debug, Clone)]
pub struct Measured {
    pub decisions: u64,
    pub span: Duration,
    pub latencies: Latencies,
    pub client: Duration,
    pub server: Option<Duration>,
    pub store: Option<Duration>,
    /// Decisions a second of each round, for the spread.
    pub rounds: Vec<f64>,
}

/// How long calls took.
#[derive(Debug, Clone)]
pub enum Latencies {
    /// Every single one, in microseconds.
    All(Histogram<u64>),
    /// What another program says of a round, in milliseconds, at these quantiles.
    Told(Vec<(f64, f64)>),
}

impl Latencies {
    /// In milliseconds; `None` where nobody has measured it.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        match self {
            Self::All(histogram) => self::quantile(histogram, quantile),
            Self::Told(told) => {
                let of: Vec<f64> = told.iter().filter(|(of, _)| *of == quantile).map(|(_, millis)| *millis).collect();
                // Rounds cannot be merged: their worst is never too good.
                of.into_iter().reduce(f64::max)
            }
        }
    }
}

/// A quantile of microseconds, in milliseconds; `None` if there are none.
pub fn quantile(micros: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!micros.is_empty()).then(|| micros.value_at_quantile(quantile) as f64 / 1_000.0)
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.decisions as f64 / self.span.as_secs_f64()
    }

    /// CPU microseconds for each decision.
    pub fn each(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.decisions.max(1) as f64
    }

    /// All rounds of one system.
    pub fn sum(rounds: &[Self]) -> Option<Self> {
        rounds.iter().cloned().reduce(|mut sum, round| {
            sum.add(round);
            sum
        })
    }

    /// Adds another round of the same system.
    pub fn add(&mut self, round: Self) {
        let sum = |a: Option<Duration>, b: Option<Duration>| a.zip(b).map(|(a, b)| a + b);
        self.decisions += round.decisions;
        self.span += round.span;
        self.client += round.client;
        self.server = sum(self.server, round.server);
        self.store = sum(self.store, round.store);
        self.rounds.extend(round.rounds);
        match (&mut self.latencies, round.latencies) {
            // Both count the same range, so nothing can be out of it.
            (Latencies::All(mine), Latencies::All(other)) => mine.add(other).unwrap_or_default(),
            (Latencies::Told(mine), Latencies::Told(other)) => mine.extend(other),
            _ => {}
        }
    }
}

/// What the calls of a measurement report to.
pub struct Tally {
    counting: AtomicBool,
    over: AtomicBool,
    decisions: AtomicU64,
    wrong: AtomicU64,
    first_wrong: Mutex<Option<String>>,
}

impl Tally {
    fn new() -> Self {
        Self {
            counting: AtomicBool::new(false),
            over: AtomicBool::new(false),
            decisions: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            first_wrong: Mutex::new(None),
        }
    }

    /// Whether no further call is to be made.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A call that began then has been answered with what it asked for.
    pub fn right(&self, begun: Instant, micros: &mut Vec<u32>) {
        if self.counting.load(Ordering::Relaxed) {
            self.decisions.fetch_add(1, Ordering::Relaxed);
            micros.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Something else came.
    pub fn wrong(&self, what: impl std::fmt::Display) {
        self.wrong.fetch_add(1, Ordering::Relaxed);
        self.first_wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| what.to_string());
    }

    /// Fails if anything but what was asked for has come.
    pub fn check(&self) -> Result<(), Failure> {
        let wrong = self.wrong.load(Ordering::Relaxed);
        let first = self.first_wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(first) => Err(format!("{wrong} answers were wrong; the first: {first}").into()),
            None => Ok(()),
        }
    }
}

/// A histogram of microseconds up to a minute.
pub fn histogram() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// Whose CPU time belongs to a system: client, server and store.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    pub client: Cpu,
    pub server: Option<Cpu>,
    pub store: Option<Cpu>,
}

/// What the parts have used so far.
pub struct Used {
    client: Duration,
    server: Option<Duration>,
    store: Option<Duration>,
}

impl Parts {
    pub fn used(self) -> Result<Used, Failure> {
        let server = self.server.map(Cpu::used).transpose()?;
        let store = self.store.map(Cpu::used).transpose()?;
        Ok(Used { client: self.client.used()?, server, store })
    }
}

impl Used {
    /// What was decided since `before`.
    pub fn measured(self, before: Used, decisions: u64, span: Duration, latencies: Latencies) -> Measured {
        let since = |after: Option<Duration>, before: Option<Duration>| {
            after.zip(before).map(|(after, before)| after.saturating_sub(before))
        };
        let mut measured = Measured {
            decisions,
            span,
            latencies,
            client: self.client.saturating_sub(before.client),
            server: since(self.server, before.server),
            store: since(self.store, before.store),
            rounds: Vec::new(),
        };
        measured.rounds.push(measured.per_second());
        measured
    }
}

/// Lets callers run: each makes its calls one after the other until the tally says that it is over, and returns the
/// latencies that it was told to count.
pub async fn closed_loop<C>(
    parts: Parts,
    span: Duration,
    callers: impl Iterator<Item = impl FnOnce(Arc<Tally>) -> C>,
) -> Result<Measured, Failure>
where
    C: Future<Output = Vec<u32>> + Send + 'static,
{
    let tally = Arc::new(Tally::new());
    let mut running = JoinSet::new();
    for caller in callers {
        running.spawn(caller(tally.clone()));
    }
    sleep(WARM_UP).await;
    let (before, begun) = (parts.used()?, Instant::now());
    tally.counting.store(true, Ordering::Relaxed);
    sleep(span).await;
    tally.counting.store(false, Ordering::Relaxed);
    let (after, span) = (parts.used()?, begun.elapsed());
    tally.over.store(true, Ordering::Relaxed);
    let mut latencies = histogram()?;
    while let Some(micros) = running.join_next().await {
        for micros in micros? {
            latencies.saturating_record(micros.into());
        }
    }
    tally.check()?;
    let decisions = tally.decisions.load(Ordering::Relaxed);
    Ok(after.measured(before, decisions, span, Latencies::All(latencies)))
}
