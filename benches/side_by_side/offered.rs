//! What became of calls that were offered at a rate of their own.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use rationd::grpc::v1::PurchaseResponse;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::client::approved;
use super::measure::histogram;
use crate::Failure;

/// What became of them.
pub struct Offered {
    pub span: Duration,
    /// Microseconds from when the call was due to its approval.
    pub approved: Histogram<u64>,
    /// The same to a refusal to serve (`RESOURCE_EXHAUSTED`).
    pub shed: Histogram<u64>,
}

impl Offered {
    /// Sales a second.
    pub fn goodput(&self) -> f64 {
        self.approved.len() as f64 / self.span.as_secs_f64()
    }

    /// Refusals to serve a second.
    pub fn shed_per_second(&self) -> f64 {
        self.shed.len() as f64 / self.span.as_secs_f64()
    }
}

/// What calls that are under way report to.
pub struct Tallied(Mutex<Counts>);

struct Counts {
    approved: Histogram<u64>,
    shed: Histogram<u64>,
    wrong: u64,
    first_wrong: Option<String>,
}

impl Tallied {
    pub fn new() -> Result<Self, Failure> {
        let counts = Counts { approved: histogram()?, shed: histogram()?, wrong: 0, first_wrong: None };
        Ok(Self(Mutex::new(counts)))
    }

    /// A call that was due then has been answered.
    pub fn answered(&self, due: Instant, answer: Result<PurchaseResponse, Status>) {
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = match answer {
            Ok(answer) => match approved(&answer) {
                Ok(()) => return counts.approved.saturating_record(micros),
                Err(other) => other,
            },
            Err(status) if status.code() == Code::ResourceExhausted => return counts.shed.saturating_record(micros),
            Err(status) => status.to_string(),
        };
        counts.wrong += 1;
        counts.first_wrong.get_or_insert(wrong);
    }

    /// Everything so far, unless something was neither an approval nor a refusal to serve.
    pub fn take(&self, span: Duration) -> Result<Offered, Failure> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = counts.first_wrong.take() {
            return Err(format!("{} answers were wrong; the first: {first}", counts.wrong).into());
        }
        Ok(Offered { span, approved: counts.approved.clone(), shed: counts.shed.clone() })
    }
}
