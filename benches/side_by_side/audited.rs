//! What the audit log costs: the same load on two services that differ in nothing else, each over a Redis of its own.

use std::time::Duration;

use super::durability::{ROUNDS, Spread};
use super::measure::Measured;
use super::options::Options;
use super::redis::{DURABLE, Redis};
use super::systems::OnRedis;
use crate::Failure;

/// How purchases come.
#[derive(Clone, Copy)]
pub enum Way {
    Unary,
    Stream,
    /// One call at a time.
    Alone,
}

impl Way {
    const ALL: [Self; 3] = [Self::Unary, Self::Stream, Self::Alone];

    pub fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Stream => "stream",
            Self::Alone => "alone",
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Unary => "Purchase",
            Self::Stream => "on a stream",
            Self::Alone => "one at a time",
        }
    }
}

/// What was reached without an audit log and with one, by round.
pub struct Audited(Vec<Pair>);

/// The same of one way.
pub struct Pair {
    pub way: Way,
    pub without: Vec<Measured>,
    pub with: Vec<Measured>,
}

impl Pair {
    /// Throughput with the log beside that without.
    pub fn cost(&self) -> Option<Spread> {
        Spread::of(&self.with, &self.without, |measured| Some(measured.per_second()))
    }
}

impl Audited {
    pub async fn measure(options: &Options) -> Result<Self, Failure> {
        let log = ("AUDIT__DIRECTORY", "audit".to_owned());
        let without = OnRedis::over(Redis::start(&DURABLE).await?, options, &[]).await?;
        let with = OnRedis::over(Redis::start(&DURABLE).await?, options, &[log]).await?;
        let mut pairs: Vec<Pair> =
            Way::ALL.map(|way| Pair { way, without: Vec::new(), with: Vec::new() }).into_iter().collect();
        let span = options.span() / ROUNDS;
        for round in 1..=ROUNDS {
            for Pair { way, without: before, with: after } in &mut pairs {
                eprintln!("round {round} of {ROUNDS}: {}, without and with an audit log", way.label());
                // Whoever comes second has warmer caches.
                if round % 2 == 0 {
                    before.push(sell(&without, *way, span).await?);
                    after.push(sell(&with, *way, span).await?);
                } else {
                    after.push(sell(&with, *way, span).await?);
                    before.push(sell(&without, *way, span).await?);
                }
            }
        }
        Ok(Self(pairs))
    }

    pub fn pairs(&self) -> &[Pair] {
        &self.0
    }

    /// The median of the ratios of one way.
    pub fn median(&self, name: &str) -> Option<f64> {
        Some(self.0.iter().find(|pair| pair.way.name() == name)?.cost()?.median)
    }
}

async fn sell(service: &OnRedis, way: Way, span: Duration) -> Result<Measured, Failure> {
    match way {
        Way::Unary => service.sell(span).await,
        Way::Stream => service.stream(span).await,
        Way::Alone => service.sell_alone(span).await,
    }
}
