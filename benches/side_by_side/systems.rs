//! The systems that are compared, each started when it is asked for.

use std::time::Duration;

use super::client::Counters;
use super::measure::{Measured, Parts};
use super::offered::Offered;
use super::options::{Options, System};
use super::postgres::Postgres;
use super::processes::Cpu;
use super::raw::Raw;
use super::redis::{DURABLE, Redis};
use super::service::Server;
use crate::Failure;

/// What is compared, running.
pub struct Systems {
    names: Vec<System>,
    notes: Vec<String>,
    on_redis: Option<OnRedis>,
    raw: Option<Raw>,
    echo: Option<Alone>,
    embedded: Option<Alone>,
    postgres: Option<Postgres>,
}

/// The service on Redis.
pub struct OnRedis {
    // In the order in which they end.
    counters: Counters,
    service: Server,
    redis: Redis,
}

/// A server without a store beside it.
struct Alone {
    counters: Counters,
    server: Server,
}

impl Systems {
    pub async fn start(options: &Options) -> Result<Self, Failure> {
        let (names, notes) = (options.only.clone(), Vec::new());
        let mut systems = Self { names, notes, on_redis: None, raw: None, echo: None, embedded: None, postgres: None };
        for system in &options.only {
            systems.start_one(*system, options).await.map_err(|failure| format!("{system}: {failure}"))?;
        }
        Ok(systems)
    }

    async fn start_one(&mut self, system: System, options: &Options) -> Result<(), Failure> {
        match system {
            System::Unary | System::Stream => drop(self.on_redis(options).await?),
            System::Echo => {
                let like = &self.on_redis(options).await?.counters;
                let server = Server::echo(&like.sell_one().await?)?;
                let counters = Counters::bare(&server.address, like).await?;
                self.echo = Some(Alone { counters, server });
            }
            System::Raw => {
                let raw = Raw::start(&self.on_redis(options).await?.redis).await?;
                self.notes.push(format!("raw: redis-benchmark -P {} -c {}", raw.pipeline, raw.connections));
                self.raw = Some(raw);
            }
            System::Postgres => match Postgres::start(options).await? {
                Some(postgres) => {
                    self.notes.push(format!("PostgreSQL: pgbench -M prepared -c {}", postgres.clients));
                    self.postgres = Some(postgres);
                }
                None => {
                    self.notes.push("PostgreSQL: left out, it is not installed".into());
                    self.leave_out(system);
                }
            },
            System::Embedded => {
                // As those on Redis, which have none unless it is asked for.
                let server = Server::service(None, &[("AUDIT__ENABLED", "false".to_owned())])?;
                let counters = Counters::open(&server.address, options).await?;
                self.embedded = Some(Alone { counters, server });
            }
        }
        Ok(())
    }

    async fn on_redis(&mut self, options: &Options) -> Result<&OnRedis, Failure> {
        let on_redis = match self.on_redis.take() {
            Some(running) => running,
            None => OnRedis::over(Redis::start(&DURABLE).await?, options, &[]).await?,
        };
        Ok(self.on_redis.insert(on_redis))
    }

    /// What is there to be measured.
    pub fn names(&self) -> Vec<System> {
        self.names.clone()
    }

    /// Measures it no more.
    pub fn leave_out(&mut self, system: System) {
        self.names.retain(|name| *name != system);
    }

    /// What was chosen or left out.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub async fn measure(&mut self, system: System, span: Duration) -> Result<Measured, Failure> {
        let Self { on_redis, raw, echo, embedded, postgres, .. } = self;
        match (system, on_redis, raw, echo, embedded, postgres) {
            (System::Echo, _, _, Some(echo), ..) => echo.sell(span).await,
            (System::Embedded, .., Some(embedded), _) => embedded.sell(span).await,
            (System::Unary, Some(on_redis), ..) => on_redis.sell(span).await,
            (System::Stream, Some(on_redis), ..) => on_redis.stream(span).await,
            (System::Raw, Some(on_redis), Some(raw), ..) => raw.measure(&on_redis.redis, span).await,
            (System::Postgres, .., Some(postgres)) => postgres.measure(span).await,
            _ => Err("does not run".into()),
        }
    }

    /// Purchases on Redis at a rate of their own.
    pub async fn sell_open(&self, per_second: f64, span: Duration) -> Result<Offered, Failure> {
        let on_redis = self.on_redis.as_ref().ok_or("the service on Redis does not run")?;
        on_redis.sell_open(per_second, span).await
    }
}

impl OnRedis {
    /// The service over this server, with these settings, and its terminals.
    pub async fn over(redis: Redis, options: &Options, settings: &[(&str, String)]) -> Result<Self, Failure> {
        let service = Server::service(Some(&redis.url()), settings)?;
        let counters = Counters::open(&service.address, options).await?;
        Ok(Self { counters, service, redis })
    }

    fn parts(&self) -> Parts {
        Parts { client: Cpu::Own, server: Some(self.service.cpu()), store: Some(self.redis.cpu()) }
    }

    pub async fn sell(&self, span: Duration) -> Result<Measured, Failure> {
        self.counters.sell(self.parts(), span).await.map_err(|failure| self.service.explain(failure))
    }

    pub async fn stream(&self, span: Duration) -> Result<Measured, Failure> {
        self.counters.stream(self.parts(), span).await.map_err(|failure| self.service.explain(failure))
    }

    /// With one call under way.
    pub async fn sell_alone(&self, span: Duration) -> Result<Measured, Failure> {
        self.counters.one().sell(self.parts(), span).await.map_err(|failure| self.service.explain(failure))
    }

    /// Sells at a rate of its own.
    /// Where terminals call, as HOST:PORT.
    pub fn address(&self) -> &str {
        &self.service.address
    }

    pub async fn sell_open(&self, per_second: f64, span: Duration) -> Result<Offered, Failure> {
        let answered = self.counters.sell_open(per_second, span).await;
        answered.map_err(|failure| self.service.explain(failure))
    }
}

impl Alone {
    async fn sell(&self, span: Duration) -> Result<Measured, Failure> {
        let parts = Parts { client: Cpu::Own, server: Some(self.server.cpu()), store: None };
        self.counters.sell(parts, span).await.map_err(|failure| self.server.explain(failure))
    }
}
