//! Composition: from a checked configuration to a running service. The only module that names concrete stores.

mod certificates;
mod descriptors;
mod feed;
mod files;
mod keys;
mod objective;
mod observed;
mod tasks;
mod upkeep;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::{BoxFuture, Either, FutureExt};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, FileTrail, Trail};
use crate::config::{Config, ConfigErrors, Keys, LogFormat, RedisUrl, Store, TlsFiles, readable_environment};
use crate::drain::{Asked, Drain, TimeUp};
use crate::events::Events;
use crate::export::Exports;
use crate::grpc::{Admin, Counters, Health, Probes};
use crate::ids::LedgerId;
use crate::journal::embedded::EmbeddedBook;
use crate::journal::redis::{JOURNAL_TAG, RedisBook};
use crate::journal::{Book, Journals};
use crate::ledger::outbox::Outbox;
use crate::ledger::redis::{
    BadWitness, FirstCheck, Lanes, RedisLedger, RedisOptions, RedisReader, Seen, Trip, Witness,
};
use crate::ledger::{self, embedded::EmbeddedLedger};
use crate::ledger::{Durability, Kept, Ledger, Terms};
use crate::policy::{BuyerIds, Policies};
use crate::purchase::Purchases;
use crate::redis_pool::RedisPool;
use crate::session::embedded::EmbeddedDoor;
use crate::session::redis::{DOOR_TAG, RedisDoor};
use crate::session::registry::Configured;
use crate::session::token::DoorKey;
use crate::session::{Door, Lease, Registry};
use crate::sites::Sites;
use crate::stock::Shelf;
use crate::stock::embedded::EmbeddedShelf;
use crate::stock::intake::Intake;
use crate::stock::redis::{RedisShelf, STOCK_TAG};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::scrape::Page;
use crate::telemetry::{self, Program, Telemetry, TelemetryError, TelemetryOptions};
use crate::time::{Clock, SystemClock, Timestamp};
use certificates::Certificates;
use files::Loaded;
use keys::Ring;
use objective::Objective;
use observed::Observed;
use tasks::{Broke, End, Tasks};

/// Connections to Redis for sessions, and for claims those beside the lanes'.
const REDIS_CONNECTIONS: usize = 16;

/// Connections to Redis for the reports of sites, which are few; and for the feed, which reads one thing after the other, to read
/// events, and reports.
const STOCK_CONNECTIONS: usize = 4;
/// Connections to Redis for the books of late sales: a batch is looked up on one, and settled on one.
const JOURNAL_CONNECTIONS: usize = 4;

/// Why the service does not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration or the key file.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// Programmes or sites.
    #[error(transparent)]
    Files(#[from] files::BadFiles),
    /// The store is there and is not fit to hold sales.
    #[error("the store is not fit to hold sales:\n{0}")]
    Unfit(String),
    /// The witness file.
    #[error(transparent)]
    Witness(#[from] BadWitness),
    /// The store cannot be opened.
    #[error("the store cannot be opened: {0}")]
    Store(String),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    /// A listener cannot be had.
    #[error("{address}: cannot listen there: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Telemetry.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The feed's settings do not fit the programmes.
    #[error("{0}")]
    Feed(String),
    /// The feed has no threads.
    #[error("the threads of the public feed cannot be started: {0}")]
    Runtime(std::io::Error),
    /// The process cannot hear signals.
    #[error("signals cannot be heard: {0}")]
    Signals(std::io::Error),
    /// The stop took too long.
    #[error(transparent)]
    TimeUp(#[from] TimeUp),
    /// A part of the service ended before it; whoever runs the service should start it anew.
    #[error(transparent)]
    Broke(#[from] Broke),
}

impl AppError {
    /// Whether the operator's settings are at fault, and not the run.
    pub fn is_configuration(&self) -> bool {
        !matches!(self, Self::TimeUp(_) | Self::Signals(_) | Self::Broke(_))
    }
}

/// A service that listens.
pub struct Running {
    /// Where terminals call; `None`: another process answers them.
    pub counters: Option<SocketAddr>,
    /// Where anybody asks for stock; `None`: another process answers them.
    pub feed: Option<SocketAddr>,
    /// Where health and metrics are asked for.
    pub admin: SocketAddr,
    /// The programmes as they were at the start.
    pub policies: Arc<Policies>,
    /// The sites as they were at the start.
    pub sites: Arc<Sites>,
    /// Where sales are recorded, without passwords.
    pub store: String,
    /// Whether the store may lose confirmed sales.
    pub volatile: bool,
    /// The service's time when it began to listen.
    pub since: Timestamp,
    /// Whether that time is made up.
    pub simulated: bool,
    /// Whether terminals call over TLS.
    pub encrypted: bool,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<Result<(), AppError>>,
}

impl Running {
    /// Stops in order and waits for the end. Fails too when the service had to stop by itself.
    pub async fn stop(self) -> Result<(), AppError> {
        self.stop.cancel();
        self.ended.await.unwrap_or_else(|error| Err(Broke { task: "its stop", why: error.to_string() }.into()))
    }
}

/// What is counted, and the page on which it is shown.
pub struct Watched {
    /// The instruments.
    pub metrics: Arc<Metrics>,
    /// `GET /metrics`.
    pub scrape: Page,
}

/// Runs the service until the process is asked to stop. `greet` is told when it listens.
pub async fn serve(config: Config, greet: impl FnOnce(&Running)) -> Result<(), AppError> {
    let telemetry = telemetry::start(TelemetryOptions {
        program: Program::Service,
        json: config.telemetry.log_format == LogFormat::Json,
        filter: config.telemetry.log_filter.clone(),
        environment: readable_environment(),
    })?;
    let ended = serve_watched(config, &telemetry, greet).await;
    telemetry.shutdown().await;
    ended
}

async fn serve_watched(config: Config, telemetry: &Telemetry, greet: impl FnOnce(&Running)) -> Result<(), AppError> {
    let mut asked = Asked::listen().map_err(AppError::Signals)?;
    let clock = config.clock.map_or_else(SystemClock::real, SystemClock::starting_at);
    let watched = Watched { metrics: telemetry.metrics(), scrape: telemetry.scrape_router() };
    let running = start(config, clock, watched).await?;
    greet(&running);
    tokio::select! {
        () = asked.to_stop() => tracing::info!("asked to stop"),
        // It stops by itself only because something broke.
        () = running.stop.cancelled() => {}
    }
    running.stop().await
}

/// Starts the service. When this returns, it listens. Problems with the configuration are found before anything is bound.
pub async fn start<C: Clock>(config: Config, clock: C, watched: Watched) -> Result<Running, AppError> {
    if !config.roles.counters {
        return start_feed(config, clock, watched).await;
    }
    let keys = config.load_keys()?;
    let load = |files| Certificates::load(files, watched.metrics.clone());
    let certificates = config.tls.clone().map(load).transpose()?;
    let loaded = Loaded::read(&config)?;
    let lease = Lease { length: config.sessions.lease, ..Lease::DEFAULT };
    let drain = Drain::default();
    let ring = Ring::new(&keys);
    let objective = Arc::<Objective>::default();
    let terms = Terms {
        turn: keys.ring().turn(),
        kept: Kept { now: clock.now(), length: loaded.policies.load().kept() },
        simulated_clock: clock.is_simulated(),
        programmes: loaded
            .policies
            .load()
            .iter()
            .map(|p| (p.code(), format!("{} {}", p.id(), scheme(p.buyer_ids()))))
            .collect(),
    };
    match &config.store {
        Store::Embedded(directory) => {
            let ledger = EmbeddedLedger::open(directory, &terms).map_err(|e| AppError::Store(e.to_string()))?;
            let door = EmbeddedDoor::open(&directory.join("door.redb"), lease, clock.clone())
                .map_err(|e| AppError::Store(e.to_string()))?;
            let shelf =
                EmbeddedShelf::open(&directory.join("stock.redb")).map_err(|e| AppError::Store(e.to_string()))?;
            let book =
                EmbeddedBook::open(&directory.join("journal.redb")).map_err(|e| AppError::Store(e.to_string()))?;
            // They close for good after a failed sync. What is on the disk is known again only when a new start opens it.
            let anew = "only a new start can open it again";
            let (ledger_closed, door_closed, shelf_closed, book_closed) =
                (upkeep::closed(ledger.clone()), door.clone(), shelf.clone(), book.clone());
            let store = vec![
                (
                    "the file of stock",
                    until(&drain.closing, async move {
                        // Counters sell without it.
                        shelf_closed.closed().await;
                        tracing::error!("no report of stock is taken any more: a commit failed; {anew}");
                        pending().await
                    }),
                ),
                (
                    "the file of journals",
                    until(&drain.closing, async move {
                        // Counters sell without it, and journals are kept where they are.
                        book_closed.closed().await;
                        tracing::error!("no late sale is taken any more: a commit failed; {anew}");
                        pending().await
                    }),
                ),
                (
                    "the ledger's file",
                    until(&drain.closing, ledger_closed.map(move |why| Err(format!("{why}; {anew}")))),
                ),
                (
                    "the door's file",
                    until(&drain.closing, async move {
                        door_closed.closed().await;
                        Err(format!("a commit failed; {anew}"))
                    }),
                ),
            ];
            let ledger = Observed::new(
                ledger,
                clock.clone(),
                watched.metrics.clone(),
                objective.clone(),
                ring.turned_to.clone(),
                "redb",
            );
            let named = ledger.clone();
            let follow = Follow { outbox: ledger.clone(), named: Arc::new(move || named.id()), shelf: shelf.clone() };
            let follow = config.roles.feed.then_some(follow);
            run(Parts {
                config,
                clock,
                watched,
                keys,
                ring,
                certificates,
                loaded,
                lease,
                ledger,
                objective,
                door,
                shelf,
                book,
                follow,
                drain,
                store,
                last: Box::pin(async {}),
            })
            .await
        }
        Store::Redis(url) => {
            let unusable = |error: crate::redis_pool::BadRedisUrl| AppError::Store(error.to_string());
            let lanes = Lanes { count: config.lanes.count, group: config.lanes.group, queue: config.lanes.queue };
            let witness = config.witness.as_deref().filter(|_| !config.allow_volatile);
            let witness = witness.map(Witness::open).transpose()?.map(Arc::new);
            let metrics = watched.metrics.clone();
            let seen = Seen::by(move |trip: Trip| metrics.carried(trip.waited, trip.took, trip.answered));
            let options = RedisOptions { allow_volatile: config.allow_volatile, terms, lanes, witness, seen };
            let pool = RedisPool::new(url.expose(), lanes.count.get() + REDIS_CONNECTIONS).map_err(unusable)?;
            let ledger = RedisLedger::open(pool.clone(), options, clock.clone());
            match ledger.check_once().await {
                FirstCheck::Fit => {}
                FirstCheck::Unfit(problems) => return Err(AppError::Unfit(problems.join("\n"))),
                FirstCheck::Away(why) => {
                    tracing::warn!(%why, "the store is away; the service starts and keeps trying");
                }
            }
            let door = RedisDoor::new(pool.for_key(DOOR_TAG, REDIS_CONNECTIONS).map_err(unusable)?, lease);
            // It ends by itself at the stop: broken off, it would shut the ledger to calls under way.
            let (watching, closing) = (ledger.clone(), drain.closing.clone());
            let watch = async move {
                watching.run(closing).await;
                Ok(())
            };
            let mut store: Vec<(_, BoxFuture<'static, End>)> = vec![("the watch over Redis", Box::pin(watch))];
            let leaving = ledger.clone();
            let last = async move { leaving.leave_witness().await };
            let ledger = Observed::new(
                ledger,
                clock.clone(),
                watched.metrics.clone(),
                objective.clone(),
                ring.turned_to.clone(),
                "redis",
            );
            let shelf =
                RedisShelf::new(pool.for_key(STOCK_TAG, STOCK_CONNECTIONS).map_err(unusable)?, config.allow_volatile);
            let book = RedisBook::new(
                pool.for_key(JOURNAL_TAG, JOURNAL_CONNECTIONS).map_err(unusable)?,
                config.allow_volatile,
            );
            let follow = match config.roles.feed {
                true => {
                    let (follow, watch) = follow_redis(&config, url, &clock, &drain)?;
                    store.push(watch);
                    Some(follow)
                }
                false => None,
            };
            run(Parts {
                config,
                clock,
                watched,
                keys,
                ring,
                certificates,
                loaded,
                lease,
                ledger,
                objective,
                door,
                shelf,
                book,
                follow,
                drain,
                store,
                last: Box::pin(last),
            })
            .await
        }
    }
}

/// What the feed follows, over connections of its own.
struct Follow<O, S> {
    outbox: O,
    named: Arc<dyn Fn() -> Option<LedgerId> + Send + Sync>,
    shelf: S,
}

/// That of a Redis, with the watch over it.
#[expect(clippy::type_complexity, reason = "made and taken apart once")]
fn follow_redis<C: Clock>(
    config: &Config,
    url: &RedisUrl,
    clock: &C,
    drain: &Drain,
) -> Result<(Follow<RedisReader<C>, RedisShelf>, (&'static str, BoxFuture<'static, End>)), AppError> {
    let unusable = |error: crate::redis_pool::BadRedisUrl| AppError::Store(error.to_string());
    let pool = RedisPool::new(url.expose(), STOCK_CONNECTIONS).map_err(unusable)?;
    let shelf = RedisShelf::new(pool.for_key(STOCK_TAG, STOCK_CONNECTIONS).map_err(unusable)?, config.allow_volatile);
    let outbox = RedisReader::open(pool, config.allow_volatile, clock.clone());
    let (watching, closing, named) = (outbox.clone(), drain.closing.clone(), outbox.clone());
    let watch = async move {
        watching.run(closing).await;
        Ok(())
    };
    let follow = Follow { outbox, named: Arc::new(move || named.id()), shelf };
    Ok((follow, ("the feed's watch over Redis", Box::pin(watch))))
}

/// Starts a service that answers whoever asks for stock, and no counter: it knows no key and records nothing.
async fn start_feed<C: Clock>(config: Config, clock: C, watched: Watched) -> Result<Running, AppError> {
    let Store::Redis(url) = &config.store else {
        return Err(AppError::Feed("roles: an embedded store is one process's alone".to_owned()));
    };
    let load = |files| Certificates::load(files, watched.metrics.clone());
    let certificates = config.tls.clone().map(load).transpose()?;
    let loaded = Loaded::read(&config)?;
    let drain = Drain::default();
    let (follow, watch) = follow_redis(&config, url, &clock, &drain)?;
    if let FirstCheck::Unfit(problems) = follow.outbox.check_once().await {
        return Err(AppError::Unfit(problems.join("\n")));
    }
    let admin = bind(config.admin).await?;
    let admin_at = address(&admin, config.admin);
    let health = Health::starting().await;
    let (policies, sites) = (loaded.policies.clone(), loaded.sites.clone());
    let (at_start, sites_at_start) = (policies.load_full(), sites.load_full());
    let (store, since, simulated) = (config.store.to_string(), clock.now(), clock.is_simulated());
    let (encrypted, volatile) = (certificates.is_some(), config.allow_volatile);
    let tls = certificates.as_ref().map(Certificates::tls);
    let follow_certificates = match certificates.zip(tls.clone()) {
        Some((certificates, tls)) => Either::Left(certificates.follow(tls, config.reload)),
        None => Either::Right(pending()),
    };
    let metrics = watched.metrics;
    let mut tasks = Tasks::default();
    let Follow { outbox, named, shelf } = follow;
    let parts = feed::Parts {
        outbox,
        named,
        shelf,
        clock: clock.clone(),
        policies,
        sites,
        tls,
        metrics: metrics.clone(),
        health: health.clone(),
        closing: drain.closing.clone(),
    };
    let (feed_at, apart) = feed::start(&config, parts, &mut tasks).await?;
    let probes = Probes { metrics: metrics.clone() };
    let (shown, quiet) = (health.clone(), drain.closing.clone());
    tasks.spawn("the listener for health and metrics", async move {
        probes.serve(admin, shown, watched.scrape, quiet).await;
        Ok(())
    });
    let upkeep = [
        watch,
        ("the reload of certificates", until(&drain.closing, follow_certificates.map(Ok))),
        ("the reload of files", until(&drain.closing, loaded.follow(config.clone(), metrics).map(Ok))),
    ];
    for (name, work) in upkeep {
        tasks.spawn(name, work);
    }
    let stop = CancellationToken::new();
    let last = Box::pin(async move { drop(apart) });
    let ended = tokio::spawn(run_until(stop.clone(), tasks, health, drain, config.drain, last));
    Ok(Running {
        counters: None,
        feed: Some(feed_at),
        admin: admin_at,
        policies: at_start,
        sites: sites_at_start,
        store,
        volatile,
        since,
        simulated,
        encrypted,
        stop,
        ended,
    })
}

/// Reads everything that [`start`] would read, and gives the effective configuration and what was found, without making
/// or binding anything.
pub fn check(config: &Config) -> Result<String, String> {
    let loaded = Loaded::read(config).map_err(|e| e.to_string())?;
    feed::of_2020(config, &loaded.policies.load()).map_err(|e| e.to_string())?;
    let keys = match config.keys.try_exists() {
        _ if !config.roles.counters => "are not needed",
        Ok(true) => {
            Keys::load(&config.keys).map_err(|e| e.to_string())?;
            "are good"
        }
        _ if config.make_keys => "will be made at the first start",
        _ => return Err(format!("{}: there is no key file; put one there with mode 0600", config.keys.display())),
    };
    config.tls.as_ref().map(TlsFiles::load).transpose().map_err(|e| e.to_string())?;
    config.witness.as_deref().map(Witness::read).transpose().map_err(|e| e.to_string())?;
    let programmes: Vec<_> = loaded.policies.load().iter().map(|p| p.id().to_string()).collect();
    Ok(format!(
        "{}\n# programmes: {}\n# sites: {}\n# keys: {} {keys}",
        config.effective().trim_end(),
        programmes.join(", "),
        loaded.sites.load().len(),
        config.keys.display(),
    ))
}

/// Everything that a service is made of.
struct Parts<L, D, C, O, S, B> {
    config: Config,
    clock: C,
    watched: Watched,
    keys: Keys,
    ring: Ring,
    certificates: Option<Certificates>,
    loaded: Loaded,
    lease: Lease,
    ledger: L,
    objective: Arc<Objective>,
    door: D,
    /// For what sites report.
    shelf: S,
    /// For what became of late sales.
    book: B,
    /// `None`: the feed is another process's.
    follow: Option<Follow<O, S>>,
    drain: Drain,
    /// What goes on inside of the store for as long as the service runs.
    store: Vec<(&'static str, BoxFuture<'static, End>)>,
    /// What is left to do when nobody is served any more.
    last: BoxFuture<'static, ()>,
}

async fn run<L: Ledger + Outbox, D: Door, C: Clock, O: Outbox, S: Shelf, B: Book>(
    parts: Parts<L, D, C, O, S, B>,
) -> Result<Running, AppError> {
    let Parts {
        config,
        clock,
        watched,
        keys,
        ring,
        certificates,
        loaded,
        lease,
        ledger,
        objective,
        door,
        shelf,
        book,
        follow,
        drain,
        store: store_tasks,
        last,
    } = parts;
    let counters = bind(config.counters).await?;
    let admin = bind(config.admin).await?;
    let (counters_at, admin_at) = (address(&counters, config.counters), address(&admin, config.admin));

    let health = Health::starting().await;
    let log = config.audit.as_ref().map(|audit| FileTrail::open(&audit.directory, clock.clone())).transpose()?;
    if log.is_none() {
        tracing::warn!(
            "there is no audit log: what operators do stands in this log alone; name a place in audit.directory"
        );
    }
    let trail = log.clone().map_or(Trail::Log, Trail::File);
    let (policies, sites) = (loaded.policies.clone(), loaded.sites.clone());
    let registry = Arc::new(Registry::new(door, clock.clone(), lease, configured(&config, sites.clone(), objective)));
    let (at_start, sites_at_start) = (policies.load_full(), sites.load_full());
    let volatile = ledger.durability() == Durability::Volatile;
    let (store, since, simulated) = (config.store.to_string(), clock.now(), clock.is_simulated());
    let encrypted = certificates.is_some();
    let tls = certificates.as_ref().map(Certificates::tls);
    let follow_certificates = match certificates.zip(tls.clone()) {
        Some((certificates, tls)) => Either::Left(certificates.follow(tls, config.reload)),
        None => Either::Right(pending()),
    };
    let (named, judged) = (ledger.clone(), ledger.clone());
    let gate = Arc::new(move || match judged.health() {
        ledger::Health::Serving(_) => None,
        ledger::Health::NotServing(why) => Some(why),
    });
    let purchases = Purchases::new(ledger.clone(), clock.clone(), policies.clone(), ring.held.clone());
    let edge = Counters {
        purchases: purchases.clone(),
        intake: Intake::new(shelf, clock.clone(), policies.clone(), gate),
        journals: Journals::new(purchases.clone(), book, clock.clone(), config.late_sales_per_second),
        registry: registry.clone(),
        sites: sites.clone(),
        door_key: Arc::new(DoorKey::new(*keys.door.expose_secret())),
        lease: lease.length,
        ledger: Arc::new(move || named.id()),
        tasks: drain.tasks.clone(),
        metrics: watched.metrics.clone(),
        clock: clock.clone(),
        tls: tls.clone(),
        max_in_flight: usize::try_from(config.max_in_flight.get()).unwrap_or(usize::MAX),
        max_connections: descriptors::room(&config),
        connection_age: config.connection_age,
        look_ups_per_minute: config.look_ups_per_minute,
        trail: trail.clone(),
        reflection: config.reflection,
    };

    let mut tasks = Tasks::default();
    let feed = match follow {
        Some(Follow { outbox, named, shelf }) => {
            let parts = feed::Parts {
                outbox,
                named,
                shelf,
                clock: clock.clone(),
                policies: policies.clone(),
                sites: sites.clone(),
                tls: tls.clone(),
                metrics: watched.metrics.clone(),
                health: health.clone(),
                closing: drain.closing.clone(),
            };
            Some(feed::start(&config, parts, &mut tasks).await?)
        }
        None => None,
    };
    let (feed_at, apart) = feed.unzip();
    let last = Box::pin(async move {
        drop(apart);
        last.await;
    });
    // Probes and metrics are answered until the last call has been.
    let quiet = CancellationToken::new();
    let (answered, closing, shown) = (quiet.clone().drop_guard(), drain.closing.clone(), health.clone());
    tasks.spawn("the listener for terminals", async move {
        let _answered = answered;
        edge.serve(counters, shown, closing).await;
        Ok(())
    });
    let operators = Admin {
        exports: Exports::new(ledger.clone(), policies.clone()),
        events: Events::new(ledger.clone(), policies.clone()),
        purchases,
        sites,
        trail: trail.clone(),
        tasks: drain.tasks.clone(),
        registry: registry.clone(),
        draining: drain.closing.clone(),
        metrics: watched.metrics.clone(),
        clock: clock.clone(),
        tls,
        connection_age: config.connection_age,
    };
    let (shown, scrape) = (health.clone(), watched.scrape);
    tasks.spawn("the listener for operators, health and metrics", async move {
        operators.serve(admin, shown, scrape, quiet).await;
        Ok(())
    });
    let metrics = watched.metrics;
    let follow_health = upkeep::follow_health(ledger.clone(), registry.clone(), health.clone(), metrics.clone());
    let closing = drain.closing.clone();
    let keep_registry = async move {
        registry.run(closing).await;
        Ok(())
    };
    if let Some((log, audit)) = log.zip(config.audit.as_ref()) {
        let ended = log.clone();
        let ended = async move { Err(ended.ended().map(|()| "its writer has ended".to_owned()).await) };
        let follow = upkeep::follow_audit(log.clone(), health.clone(), metrics.clone());
        let expire = upkeep::expire_audit(log, clock.clone(), audit.keep_months);
        tasks.spawn("the audit log", until(&drain.closing, ended));
        tasks.spawn("the audit log's health", until(&drain.closing, follow.map(Ok)));
        tasks.spawn("the end of old records", until(&drain.closing, expire.map(Ok)));
    }
    let follow_keys = ring.follow(config.clone(), ledger.clone(), clock.clone(), policies.clone());
    let upkeep = [
        ("health", until(&drain.closing, follow_health.map(Ok))),
        ("the reload of certificates", until(&drain.closing, follow_certificates.map(Ok))),
        ("the reload of keys", until(&drain.closing, follow_keys.map(Ok))),
        ("the reload of files", until(&drain.closing, loaded.follow(config.clone(), metrics).map(Ok))),
        ("the sweep", until(&drain.closing, upkeep::sweep(ledger, clock, policies).map(Ok))),
        ("the registry of sessions", until(&drain.closing, keep_registry)),
    ];
    for (name, work) in store_tasks.into_iter().chain(upkeep) {
        tasks.spawn(name, work);
    }

    let stop = CancellationToken::new();
    let running = run_until(stop.clone(), tasks, health, drain, config.drain, last);
    let ended = tokio::spawn(async move {
        let ended = running.await;
        trail.close().await;
        ended
    });
    Ok(Running {
        counters: Some(counters_at),
        feed: feed_at,
        admin: admin_at,
        policies: at_start,
        sites: sites_at_start,
        store,
        volatile,
        since,
        simulated,
        encrypted,
        stop,
        ended,
    })
}

/// What is so at the door until operators switch it.
fn configured(config: &Config, sites: Arc<ArcSwap<Sites>>, objective: Arc<Objective>) -> Configured {
    let caps = config.sessions.clone();
    Configured {
        capacity: config.sessions.capacity.get(),
        cap: Arc::new(move |site, channel| u16::try_from(caps.cap(site, channel).get()).unwrap_or(u16::MAX)),
        channel: Arc::new(move |site| sites.load().get(site).map(|site| site.channel)),
        burning: Arc::new(move || objective.burns()),
    }
}

/// Work that is broken off when the listeners close.
fn until(closing: &CancellationToken, work: impl Future<Output = End> + Send + 'static) -> BoxFuture<'static, End> {
    let closing = closing.clone();
    Box::pin(async move { closing.run_until_cancelled_owned(work).await.unwrap_or(Ok(())) })
}

/// Waits until the service is asked to stop or one of its tasks breaks off, and stops in order.
async fn run_until(
    stop: CancellationToken,
    mut tasks: Tasks,
    health: Health,
    drain: Drain,
    limit: Duration,
    last: BoxFuture<'static, ()>,
) -> Result<(), AppError> {
    // Cancelled in any case when this ends, so that nobody waits for a service that is no more.
    let _over = stop.clone().drop_guard();
    let broke = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        broke = tasks.first_end() => Some(broke),
    };
    health.end().await;
    if let Some(broke) = &broke {
        tracing::error!(task = broke.task, why = broke.why, "a task broke off; the service stops, to be started anew");
        stop.cancel();
    }
    let drained = drain.run(tasks.all_ended(), limit).await;
    last.await;
    broke.map_or(Ok(()), Err)?;
    Ok(drained?)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Listen { address, source })
}

/// Where a listener really listens: a port 0 was given one.
fn address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// The name of a scheme of numbers in a ledger's terms. It stands in the stores and is never reused.
fn scheme(ids: BuyerIds) -> &'static str {
    match ids {
        BuyerIds::KrResident => "kr_resident",
        BuyerIds::Opaque => "opaque",
    }
}
