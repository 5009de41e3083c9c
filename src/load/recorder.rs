//! Everything that was asked and answered in one process of a run, and how it goes at this moment.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::counter::{NO_SESSION, RECONNECT};
use super::history::{Asked, Outcome};
use super::run::Shortfall;
use crate::time::{Clock, SystemClock};

/// A call sent so much after it was to be sent was sent late: ten times what a timer is off by.
const LATE: Duration = Duration::from_millis(10);

/// The longest latency that is told from longer ones, microseconds.
const HOUR_US: u64 = 3_600_000_000;

/// The time of a run: zero is when its first call may be sent.
#[derive(Clone, Copy)]
pub(super) struct RunClock {
    machine: SystemClock,
    zero: Duration,
}

impl RunClock {
    /// Begins so long from now.
    pub(super) fn beginning_in(wait: Duration) -> Self {
        let machine = SystemClock::real();
        Self { machine, zero: machine.monotonic() + wait }
    }

    /// Since the run began; zero before that.
    pub(super) fn now(&self) -> Duration {
        self.machine.monotonic().saturating_sub(self.zero)
    }

    /// Waits until this time of the run.
    pub(super) async fn sleep_until(&self, at: Duration) {
        let wait = (self.zero + at).saturating_sub(self.machine.monotonic());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// What happened in one second of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tick {
    /// Since the run began.
    pub second: u64,
    /// Calls that were to be sent in it, those that the harness could not send among them.
    pub offered: u64,
    /// Calls that were answered in it.
    pub answered: u64,
    /// Those of them that said no.
    pub refused: u64,
    /// Calls that failed in it.
    pub failed: u64,
    /// 99 of 100 of those answered or failed took at most so long, from when they were to be sent. Microseconds.
    pub p99_us: u64,
}

impl Tick {
    /// The same second of two processes. The worse percentile stands for both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            second: self.second.max(other.second),
            offered: self.offered + other.offered,
            answered: self.answered + other.answered,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
            p99_us: self.p99_us.max(other.p99_us),
        }
    }
}

impl Inner {
    fn fails(&mut self, since: Duration, why: &str) {
        match &mut self.failing {
            Some((first, latest)) => {
                *first = since.min(*first);
                why.clone_into(latest);
            }
            failing => *failing = Some((since, why.to_owned())),
        }
    }
}

/// Takes down what happens.
pub(super) struct Recorder {
    inner: Mutex<Inner>,
}

struct Inner {
    history: Vec<Asked>,
    shortfall: Shortfall,
    second: Tick,
    latencies: Histogram<u64>,
    last_answer: Duration,
    /// Since when nothing but failures has come, and the latest of them.
    failing: Option<(Duration, String)>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        #[expect(clippy::expect_used, reason = "bounds and precision are ones that the library has")]
        let latencies = Histogram::new_with_bounds(1, HOUR_US, 3).expect("a histogram");
        Self {
            inner: Mutex::new(Inner {
                history: Vec::new(),
                shortfall: Shortfall::default(),
                second: Tick::default(),
                latencies,
                last_answer: Duration::ZERO,
                failing: None,
            }),
        }
    }

    /// A call is due.
    pub(super) fn offered(&self) {
        self.lock().second.offered += 1;
    }

    /// A call is due and will not be sent: as many are under way as may be.
    pub(super) fn not_sent(&self) {
        let mut inner = self.lock();
        inner.second.offered += 1;
        inner.shortfall.not_sent += 1;
    }

    /// A call has come to its end.
    pub(super) fn take(&self, asked: Asked) {
        let mut inner = self.lock();
        let late = asked.sent.saturating_sub(asked.intended);
        if late > LATE {
            inner.shortfall.sent_late += 1;
            inner.shortfall.latest = inner.shortfall.latest.max(late);
        }
        let latency = asked.answered.saturating_sub(asked.intended).as_micros();
        inner.latencies.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
        match &asked.outcome {
            Outcome::Unknown(why) => {
                inner.second.failed += 1;
                inner.fails(asked.answered, why);
            }
            // Not a word of the service: the terminal is on its way to a new session, and has so long for it.
            Outcome::NotExecuted(reason) if reason == NO_SESSION => {
                inner.second.failed += 1;
                inner.fails(asked.answered + RECONNECT, "terminals have lost their sessions and get no new ones");
            }
            outcome => {
                match outcome {
                    Outcome::NotExecuted(_) | Outcome::OfAnother(_) => inner.second.failed += 1,
                    Outcome::Refused(_) => {
                        inner.second.answered += 1;
                        inner.second.refused += 1;
                    }
                    _ => inner.second.answered += 1,
                }
                inner.last_answer = asked.answered;
                inner.failing = None;
            }
        }
        inner.history.push(asked);
    }

    /// The service's last answer, and why nothing but failures has come since, if that has been so for so long.
    pub(super) fn lost(&self, now: Duration, patience: Duration) -> Option<(Duration, String)> {
        let inner = self.lock();
        let (since, why) = inner.failing.as_ref()?;
        (now.saturating_sub(*since) >= patience).then(|| (inner.last_answer, why.clone()))
    }

    /// The service's last answer.
    pub(super) fn last_answer(&self) -> Duration {
        self.lock().last_answer
    }

    /// What has happened since this was last asked.
    pub(super) fn tick(&self, now: Duration) -> Tick {
        let mut inner = self.lock();
        let p99_us = inner.latencies.value_at_quantile(0.99);
        inner.latencies.reset();
        Tick { second: now.as_secs(), p99_us, ..std::mem::take(&mut inner.second) }
    }

    /// Everything; nothing is left behind.
    pub(super) fn finish(&self) -> (Vec<Asked>, Shortfall) {
        let mut inner = self.lock();
        (std::mem::take(&mut inner.history), std::mem::take(&mut inner.shortfall))
    }

    /// What is inside is whole whenever the lock is free.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RequestId;
    use crate::load::history::Verb;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn take(recorder: &Recorder, answered: u64, outcome: Outcome) {
        recorder.take(Asked {
            request: RequestId::random(),
            buyer: 0,
            site: "LOAD00000".parse().unwrap(),
            verb: Verb::Purchase,
            quantity: 1,
            intended: at(answered),
            sent: at(answered),
            answered: at(answered),
            replayed: false,
            outcome,
        });
    }

    #[test]
    fn a_service_is_lost_when_nothing_but_failures_has_come_for_so_long() {
        let recorder = Recorder::new();
        take(&recorder, 1, Outcome::Held { until: 0 });
        take(&recorder, 2, Outcome::Unknown("refused".into()));
        assert_eq!(recorder.lost(at(4), PATIENCE), None);
        take(&recorder, 4, Outcome::Unknown("refused again".into()));
        assert_eq!(recorder.lost(at(5), PATIENCE), Some((at(1), "refused again".into())));
        // Any word of it takes that back, also one that turns away or was meant for another.
        for word in [Outcome::NotExecuted("OVERLOADED".into()), Outcome::OfAnother("request_id".into())] {
            take(&recorder, 5, word);
            assert_eq!(recorder.lost(at(60), PATIENCE), None);
            take(&recorder, 6, Outcome::Unknown("refused".into()));
        }
    }

    #[test]
    fn terminals_without_sessions_are_given_the_time_to_come_back() {
        let recorder = Recorder::new();
        for second in 10..30 {
            take(&recorder, second, Outcome::NotExecuted(NO_SESSION.into()));
        }
        assert_eq!(recorder.lost(at(20), PATIENCE), None);
        assert!(recorder.lost(at(21), PATIENCE).is_some());
        take(&recorder, 30, Outcome::Held { until: 0 });
        assert_eq!(recorder.lost(at(60), PATIENCE), None);
    }

    #[test]
    fn a_second_is_counted_once() {
        let recorder = Recorder::new();
        recorder.offered();
        recorder.not_sent();
        take(&recorder, 1, Outcome::Refused(vec!["QUOTA_EXHAUSTED".into()]));
        take(&recorder, 1, Outcome::Unknown("no answer".into()));
        let tick = recorder.tick(at(1));
        assert_eq!((tick.offered, tick.answered, tick.refused, tick.failed), (2, 1, 1, 1));
        assert_eq!(recorder.tick(at(2)), Tick { second: 2, ..Tick::default() });
        let (history, shortfall) = recorder.finish();
        assert_eq!((history.len(), shortfall.not_sent), (2, 1));
    }
}
