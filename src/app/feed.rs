//! The public feed of stock, apart from the counters: a listener, a runtime with threads of its own, and connections to the store of
//! its own. Those threads yield to everybody else's, so that whoever asks for stock never slows a sale.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::feed;
use crate::grpc::{self, Health, Tls};
use crate::ids::{LedgerId, ProgrammeId};
use crate::ledger::outbox::Outbox;
use crate::policy::Policies;
use crate::sites::Sites;
use crate::stock::board::{Board, Picture};
use crate::stock::follow::Follower;
use crate::stock::intake::Stocks;
use crate::stock::{Level, Shelf};
use crate::telemetry::metrics::{Metrics, StockState};
use crate::time::Clock;

use super::tasks::{End, Tasks};
use super::{AppError, address, bind, descriptors};

/// How much the feed's threads yield to others: with every thread busy the counters have ten times as much of the machine.
const YIELDS: i32 = 10;
/// How often health and measurements follow the board.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// Who follows says by itself, much sooner, that it cannot read; after so long without a reading it does not even say that.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(30);

/// What a feed is made of.
pub(super) struct Parts<O, S, C> {
    pub(super) outbox: O,
    pub(super) named: Arc<dyn Fn() -> Option<LedgerId> + Send + Sync>,
    pub(super) shelf: S,
    pub(super) clock: C,
    pub(super) policies: Arc<ArcSwap<Policies>>,
    pub(super) sites: Arc<ArcSwap<Sites>>,
    pub(super) tls: Option<Tls>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Health,
    pub(super) closing: CancellationToken,
}

/// A runtime that ends without waiting for what runs on it: its tasks have ended before, or are to be left.
pub(super) struct Apart(Option<Runtime>);

impl Apart {
    /// With so many threads.
    pub(super) fn new(workers: usize) -> Result<Self, AppError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("feed")
            .enable_all()
            // Of the thread alone that calls it. One that may not yield serves all the same.
            .on_thread_start(|| _ = rustix::process::nice(YIELDS))
            .build();
        Ok(Self(Some(runtime.map_err(AppError::Runtime)?)))
    }

    /// Where counters are answered too they are answered on, whatever breaks off here: that is told, and the levels go stale. A process
    /// that does nothing else ends, to be started anew.
    fn spawn(
        &self,
        tasks: &mut Tasks,
        name: &'static str,
        beside: Option<CancellationToken>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let Some(runtime) = &self.0 else { return };
        let running = runtime.spawn(work);
        tasks.spawn(name, async move {
            let ended = running.await.map_err(|error| error.to_string());
            match beside {
                Some(closing) if !closing.is_cancelled() => {
                    tracing::error!(task = name, ?ended, "it broke off; stock is shown no more before a new start");
                    closing.cancelled().await;
                    Ok(())
                }
                _ => ended,
            }
        });
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Of which programme the endpoints of 2020 speak.
pub(super) fn of_2020(config: &Config, policies: &Policies) -> Result<ProgrammeId, AppError> {
    let first = || policies.iter().next().map(|programme| programme.id());
    let wanted = config.feed.programme.or_else(first);
    let known = wanted.filter(|id| policies.get(*id).is_some());
    known.ok_or_else(|| AppError::Feed(format!("feed.programme: {}", policies.not_known())))
}

/// Serves the feed, as tasks of the service on threads of their own. Gives where it listens, and its runtime.
pub(super) async fn start<O: Outbox, S: Shelf, C: Clock>(
    config: &Config,
    parts: Parts<O, S, C>,
    tasks: &mut Tasks,
) -> Result<(std::net::SocketAddr, Apart), AppError> {
    let Parts { outbox, named, shelf, clock, policies, sites, tls, metrics, health, closing } = parts;
    let programme = of_2020(config, &policies.load())?;
    let listener = bind(config.feed.listen).await?;
    let at = address(&listener, config.feed.listen);
    let apart = Apart::new(config.feed.workers.get())?;
    let stocks = Stocks::new(Board::default(), sites, policies);
    let now = clock.clone();
    let (counted, measured) = (metrics.clone(), clock.clone());
    let pages = feed::router(stocks.clone(), programme, move || now.now());
    let pages = feed::watched(
        pages,
        move || measured.monotonic(),
        move |endpoint, status, took| {
            counted.feed_answered(endpoint, status, took);
        },
    );
    let edge = grpc::Feed {
        stocks: stocks.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        tls,
        max_connections: descriptors::feed_room(config),
        connection_age: config.connection_age,
        reflection: config.reflection,
    };
    let (shown, stop) = (health.clone(), closing.clone());
    let serving = async move {
        // A listener belongs to the runtime that its connections are served on.
        let Ok(listener) = listener.into_std().and_then(TcpListener::from_std) else { return };
        edge.serve(listener, shown, pages, stop).await;
    };
    let beside = config.roles.counters.then(|| closing.clone());
    apart.spawn(tasks, "the listener of the public feed", beside.clone(), serving);
    let follower = Follower::new(outbox, named, shelf, clock.clone(), stocks.clone());
    apart.spawn(tasks, "the levels of stock", beside, follower.run(closing.clone()));
    tasks.spawn("the health of the feed", async move {
        let looking = look(stocks.board, clock, metrics, health);
        closing.run_until_cancelled_owned(looking).await.unwrap_or(Ok(()))
    });
    Ok((at, apart))
}

/// Lets health and measurements follow the board.
async fn look<C: Clock>(board: Board, clock: C, metrics: Arc<Metrics>, health: Health) -> End {
    let begun = clock.now();
    loop {
        let picture = board.picture();
        let age = clock.now().since(picture.read_until.unwrap_or(begun));
        // Where nothing can be read any more, what is marked stale is better than nothing.
        health.set_stocked(picture.read_until.is_some()).await;
        if age > GIVEN_UP_AFTER {
            board.go_stale();
        }
        metrics.stock_age(age);
        for state in StockState::ALL {
            metrics.stock_shown(*state, shown(&picture, *state));
        }
        tokio::time::sleep(LOOKED_AT_EVERY).await;
    }
}

/// How many stocks are so.
fn shown(picture: &Picture, state: StockState) -> u64 {
    let is = |shown: &crate::stock::Shown| match state {
        StockState::Plenty => shown.level == Level::Plenty,
        StockState::Some => shown.level == Level::Some,
        StockState::Few => shown.level == Level::Few,
        StockState::Empty => shown.level == Level::Empty,
        StockState::Paused => shown.level == Level::Paused,
        StockState::Stale => shown.stale,
        StockState::Unverified => shown.unverified,
    };
    picture.rows.iter().filter(|(_, row)| is(row)).fold(0, |sites, _| sites + 1)
}
