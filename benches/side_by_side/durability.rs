//! What a promise costs: the same load over settings that promise more and over settings that promise less.
//!
//! Everything is measured in every round, so that each round gives a ratio of its own: their median is the answer, and how
//! far they lie apart is what it is worth. Throughput is that of many calls under way; what a call waits for shows where
//! it is the only one.

use rationd::config::Keys;

use super::client::Counters;
use super::measure::{Measured, Parts};
use super::options::Options;
use super::processes::Cpu;
use super::redis::{DURABLE, Redis};
use super::replicas::Replicas;
use super::service::Server;
use crate::Failure;

/// How often everything is measured, for its share of the time.
pub const ROUNDS: u32 = 5;

/// What was reached, from what promises least to what promises most.
pub struct Durability([Promise; 4]);

/// What was reached under one promise, by round.
pub struct Promise {
    pub name: &'static str,
    pub label: &'static str,
    /// With many calls under way.
    pub busy: Vec<Measured>,
    /// With one.
    pub alone: Vec<Measured>,
}

/// What one promise costs beside another.
pub struct Cost {
    pub name: &'static str,
    pub label: &'static str,
    pub throughput: Spread,
    /// Of a call that is alone.
    pub p50: Spread,
    pub p99: Spread,
}

/// Ratios, one of each round.
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

/// A service over a store, with its terminals.
pub struct Kept {
    counters: Counters,
    service: Server,
    store: Cpu,
    promise: Promise,
}

impl Durability {
    pub async fn measure(options: &Options) -> Result<Self, Failure> {
        // What is known beforehand to be weaker has to be allowed.
        let volatile = ("ALLOW_VOLATILE", "true".to_owned());
        let everysec = DURABLE.map(|word| if word == "always" { "everysec" } else { word });
        let (lazy, eager) = (Redis::start(&everysec).await?, Redis::start(&DURABLE).await?);
        let group = Replicas::start().await?;
        // A ledger belongs to its keys, and two of the services share one.
        let files = tempfile::tempdir()?;
        let keys = files.path().join("keys.toml");
        Keys::load_or_create(&keys).map_err(|errors| errors.to_string())?;
        let keys = ("KEYS", keys.to_string_lossy().into_owned());
        let unwaited = [volatile.clone(), keys.clone()];
        let (one, many) = (|redis: &Redis| (redis.url(), redis.cpu()), (group.url(), group.cpu()));
        let mut kept = [
            Kept::open("everysec", "Redis, everysec", one(&lazy), &[volatile], options).await?,
            Kept::open("always", "Redis, always", one(&eager), &[], options).await?,
            Kept::open("without_wait", "Sentinel, without WAIT", many.clone(), &unwaited, options).await?,
            Kept::open("wait", "Sentinel, WAIT 2", many, &[keys], options).await?,
        ];
        let span = options.span() / ROUNDS;
        for round in 1..=ROUNDS {
            for kept in &mut kept {
                kept.round(round, span).await?;
            }
        }
        Ok(Self(kept.map(|kept| kept.promise)))
    }

    pub fn promises(&self) -> &[Promise] {
        &self.0
    }

    pub fn costs(&self) -> Vec<Cost> {
        let [everysec, always, without_wait, wait] = &self.0;
        let costs = [
            Cost::of("always_over_everysec", "always ÷ everysec", always, everysec),
            Cost::of("wait_over_without", "WAIT 2 ÷ without WAIT", wait, without_wait),
            Cost::of("wait_over_always", "Sentinel, WAIT 2 ÷ Redis", wait, always),
        ];
        costs.into_iter().flatten().collect()
    }
}

impl Kept {
    pub async fn open(
        name: &'static str,
        label: &'static str,
        (url, store): (String, Cpu),
        settings: &[(&str, String)],
        options: &Options,
    ) -> Result<Self, Failure> {
        let service = Server::service(Some(&url), settings)?;
        let opened = Counters::open(&service.address, options).await;
        let counters = opened.map_err(|failure| service.explain(failure))?;
        Ok(Self { counters, service, store, promise: Promise { name, label, busy: Vec::new(), alone: Vec::new() } })
    }

    /// Measures it once with many calls under way and once with one.
    pub async fn round(&mut self, round: u32, span: std::time::Duration) -> Result<(), Failure> {
        eprintln!("round {round} of {ROUNDS}: {}", self.promise.label);
        let busy = self.sell(&self.counters, span).await?;
        let alone = self.sell(&self.counters.one(), span).await?;
        self.promise.busy.push(busy);
        self.promise.alone.push(alone);
        Ok(())
    }

    pub fn into_promise(self) -> Promise {
        self.promise
    }

    async fn sell(&self, counters: &Counters, span: std::time::Duration) -> Result<Measured, Failure> {
        let parts = Parts { client: Cpu::Own, server: Some(self.service.cpu()), store: Some(self.store) };
        counters.sell(parts, span).await.map_err(|failure| self.service.explain(failure))
    }
}

impl Cost {
    pub fn of(name: &'static str, label: &'static str, more: &Promise, less: &Promise) -> Option<Self> {
        let latency =
            |quantile| Spread::of(&more.alone, &less.alone, move |measured| measured.latencies.quantile(quantile));
        Some(Self {
            name,
            label,
            throughput: Spread::of(&more.busy, &less.busy, |measured| Some(measured.per_second()))?,
            p50: latency(0.5)?,
            p99: latency(0.99)?,
        })
    }
}

impl Spread {
    pub fn of(more: &[Measured], less: &[Measured], figure: impl Fn(&Measured) -> Option<f64>) -> Option<Self> {
        let pairs = more.iter().zip(less);
        Self::of_ratios(pairs.map(|(more, less)| Some(figure(more)? / figure(less)?)).collect::<Option<Vec<f64>>>()?)
    }

    pub fn of_ratios(mut ratios: Vec<f64>) -> Option<Self> {
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (*ratios.first()?, *ratios.last()?);
        Some(Self { least, median: *ratios.get(ratios.len() / 2)?, most })
    }
}
