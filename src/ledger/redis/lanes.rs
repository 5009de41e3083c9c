//! Lanes: how calls share trips to Redis.
//!
//! A lane is a task with one connection of its own. It takes whatever has queued while its last trip was under way, sends
//! it as one unit (`unit`) and then answers everybody. There is no timer: a lone call leaves at once, and groups form by
//! themselves when calls come faster than trips return. All lanes take from one queue: while one lane's trip is under way
//! another begins only when enough calls wait to be worth it, or one has waited longer than a trip that goes well takes.
//!
//! What waits longer than [`LONGEST_WAIT`], or is waited for by nobody any more (a client's deadline has passed, a caller
//! hung up), is dropped before it is sent. A trip that breaks or takes too long leaves the outcome of its whole group
//! unknown.
//!
//! Every trip is told to whoever measures ([`Seen`]), and to the span of each call that went along.
//!
//! Knows nothing about what the commands mean.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use redis::{Cmd, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Span;

use crate::ledger::LedgerError;
use crate::redis_pool::{Connection, Node, RedisAway, RedisPool, TRIP_TIMEOUT};

use super::standing::{Pass, Standing};
use super::unit::Asks;
use super::{faults, unit};

/// How long a call may wait for its trip to begin, dialling included. One that waits longer is told so: by then its clerk
/// has tried again.
const LONGEST_WAIT: Duration = Duration::from_millis(1_000);

/// A connection that was idle for so long is asked whether it still lives before a group is trusted to it. Under load that
/// never happens.
const ASKED_AFTER: Duration = Duration::from_millis(1_000);

/// How long it may take to say so: there must be time left to dial another one.
const PING_TIMEOUT: Duration = Duration::from_millis(250);

/// How many lanes there are, and how much they carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// Lanes, each with a connection.
    pub count: NonZeroUsize,
    /// The most calls that share a trip.
    pub group: NonZeroUsize,
    /// The most calls that wait for a trip; beyond it a caller is told that too much is waiting.
    pub queue: NonZeroUsize,
}

/// While a trip is under way another one begins only for so many calls: a trip costs the server and the service more than a
/// call does, and those that wait go with the trip that returns next. A full group is always worth one.
const WORTH_A_TRIP: usize = 64;

/// When a call has waited for so long, the trip under way is stuck, and is waited for no longer.
const STUCK_AFTER: Duration = Duration::from_millis(10);

/// A trip that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trip {
    /// How long the one of its calls that waited longest did so.
    pub waited: Duration,
    /// From sending until everything was answered, or was given up.
    pub took: Duration,
    /// Whether every call of it was answered.
    pub answered: bool,
}

/// Whoever measures trips; nobody by default. Called on the way of a sale: it must not wait.
#[derive(Clone)]
pub struct Seen(Arc<dyn Fn(Trip) + Send + Sync>);

impl Seen {
    /// By this.
    pub fn by(measure: impl Fn(Trip) + Send + Sync + 'static) -> Self {
        Self(Arc::new(measure))
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self::by(|_| {})
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

/// One call in the queue.
struct Job {
    cmd: Cmd,
    asks: Asks,
    /// Of whoever asks.
    span: Span,
    give_up: Instant,
    reply: oneshot::Sender<Result<Value, LedgerError>>,
}

impl Job {
    /// When it began to wait.
    fn begun(&self) -> Instant {
        self.give_up - LONGEST_WAIT
    }

    /// Tells its span, if somebody takes it, where it goes, and with how many.
    fn tell_span(&self, node: &Node, calls: usize, now: Instant) {
        if self.span.is_disabled() {
            return;
        }
        if let Some(redis::Arg::Simple(name)) = self.cmd.args_iter().next() {
            self.span.record("db.operation.name", std::str::from_utf8(name).unwrap_or_default());
        }
        // The convention knows no group of one.
        if calls > 1 {
            self.span.record("db.operation.batch.size", calls);
        }
        self.span.record("server.address", node.host.as_str());
        self.span.record("server.port", node.port);
        self.span.record("rationd.waited_ms", now.saturating_duration_since(self.begun()).as_secs_f64() * 1_000.0);
    }
}

/// The end of the queue where calls are put in. When the last one is dropped the lanes end, after what has been put in.
#[derive(Clone)]
pub(super) struct Queue(Arc<Open>);

/// Closes the queue when it is dropped.
struct Open {
    line: Arc<Line>,
    most: usize,
}

/// The calls that wait, and how many trips are under way.
struct Line {
    state: Mutex<Waiting>,
    /// Rung when there may be a trip to begin.
    bell: Notify,
}

struct Waiting {
    jobs: VecDeque<Job>,
    /// So many of them are worth a trip beside another.
    worth: usize,
    trips: usize,
    closed: bool,
}

impl Queue {
    /// Starts the lanes; they belong to the runtime that this is called in.
    pub(super) fn open(lanes: Lanes, pool: &RedisPool, standing: &Arc<Standing>, seen: &Seen) -> Self {
        let line = Arc::new(Line { state: Mutex::new(Waiting::new(lanes)), bell: Notify::new() });
        for _ in 0..lanes.count.get() {
            let (line, pool, standing, seen) = (Arc::clone(&line), pool.clone(), Arc::clone(standing), seen.clone());
            tokio::spawn(Lane { line, group: lanes.group.get(), pool, standing, seen, connection: None }.run());
        }
        Self(Arc::new(Open { line, most: lanes.queue.get() }))
    }

    /// One command and its reply, over a trip that it shares with others, if the gate lets it through.
    pub(super) async fn ask(&self, gate: Result<(), LedgerError>, cmd: Cmd, asks: Asks) -> Result<Value, LedgerError> {
        gate?;
        let (reply, answer) = oneshot::channel();
        let give_up = Instant::now() + LONGEST_WAIT;
        self.0.line.add(Job { cmd, asks, span: Span::current(), give_up, reply }, self.0.most)?;
        // A lane answers everything that it has taken; only its panic breaks the promise.
        answer.await.unwrap_or_else(|_| Err(LedgerError::Unconfirmed("the lane to Redis broke off".into())))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.line.waiting().closed = true;
        // Every lane that ends rings for the next one.
        self.line.bell.notify_one();
    }
}

impl Line {
    fn add(&self, job: Job, most: usize) -> Result<(), LedgerError> {
        let now = job.begun();
        let rings = {
            let mut waiting = self.waiting();
            if waiting.jobs.len() >= most {
                return Err(LedgerError::Overloaded);
            }
            waiting.jobs.push_back(job);
            // The first to wait beside a trip has a lane look at the clock for it.
            waiting.jobs.len() == 1 || waiting.is_worth_a_trip(now)
        };
        if rings {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// The calls of the next trip; none when the queue is closed and empty.
    async fn next_group(&self, most: usize) -> Vec<Job> {
        loop {
            let first = {
                let mut waiting = self.waiting();
                if waiting.is_worth_a_trip(Instant::now()) {
                    waiting.trips += 1;
                    let most = most.min(waiting.jobs.len());
                    return waiting.jobs.drain(..most).collect();
                }
                if waiting.closed {
                    self.bell.notify_one();
                    return Vec::new();
                }
                waiting.jobs.front().map(Job::begun)
            };
            match first {
                None => self.bell.notified().await,
                // Whichever comes first: there is more to look at, or the trip under way is stuck.
                Some(begun) => drop(timeout_at(begun + STUCK_AFTER, self.bell.notified()).await),
            }
        }
    }

    /// The queue is whole whenever the lock is free.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn new(lanes: Lanes) -> Self {
        let worth = WORTH_A_TRIP.min(lanes.group.get()).min(lanes.queue.get());
        Self { jobs: VecDeque::new(), worth, trips: 0, closed: false }
    }

    fn is_worth_a_trip(&self, now: Instant) -> bool {
        let Some(first) = self.jobs.front() else { return false };
        let is_stuck = now.saturating_duration_since(first.begun()) >= STUCK_AFTER;
        self.trips == 0 || self.closed || self.jobs.len() >= self.worth || is_stuck
    }
}

/// A trip that is under way; however it ends, the next one may begin.
struct UnderWay<'a>(&'a Line);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.trips -= 1;
        if waiting.is_worth_a_trip(Instant::now()) {
            self.0.bell.notify_one();
        }
    }
}

struct Lane {
    line: Arc<Line>,
    group: usize,
    pool: RedisPool,
    standing: Arc<Standing>,
    seen: Seen,
    /// Its own for as long as it is good.
    connection: Option<Kept>,
}

/// A connection between two trips.
struct Kept {
    connection: Connection,
    used: Instant,
}

impl Lane {
    /// Goes on until the queue is closed and empty, whatever happens on a trip.
    async fn run(mut self) {
        while AssertUnwindSafe(self.trips()).catch_unwind().await.is_err() {
            tracing::error!("a lane to Redis broke off and begins anew");
            self.connection = None;
        }
    }

    async fn trips(&mut self) {
        let line = Arc::clone(&self.line);
        loop {
            let mut group = line.next_group(self.group).await;
            if group.is_empty() {
                return;
            }
            let _under_way = UnderWay(&line);
            self.trip(&mut group).await;
        }
    }

    /// Sends a group and answers it.
    async fn trip(&mut self, group: &mut Vec<Job>) {
        // What waited behind a trip that failed waited for the store, and what waited behind good ones for its turn.
        let waited_for = match &self.connection {
            None => LedgerError::StoreUnavailable("Redis does not answer in time".into()),
            Some(_) => LedgerError::Overloaded,
        };
        turn_late_away(group, &waited_for);
        let Some(give_up) = group.iter().map(|job| job.give_up).max() else { return };
        let (Kept { mut connection, .. }, pass) = match self.connection(give_up).await {
            Ok(kept) => kept,
            Err(error) => return answer_all(group, &error),
        };
        // Dialling takes its time too.
        turn_late_away(group, &waited_for);
        if group.is_empty() {
            self.connection = Some(Kept { connection, used: Instant::now() });
            return;
        }
        let asks = group.iter().map(|job| job.asks).max().unwrap_or(Asks::Reads);
        let (sent, size) = (Instant::now(), group.len());
        let waited = group.iter().map(|job| sent.saturating_duration_since(job.begun())).max().unwrap_or_default();
        group.iter().for_each(|job| job.tell_span(connection.node(), size, sent));
        let calls = group.iter_mut().map(|job| std::mem::take(&mut job.cmd));
        let replies = timeout(TRIP_TIMEOUT, unit::send(&mut connection, &self.standing, pass, asks, calls)).await;
        let answered = matches!(&replies, Ok(Ok(replies)) if replies.iter().all(Result::is_ok));
        (self.seen.0)(Trip { waited, took: sent.elapsed(), answered });
        match replies {
            Ok(Ok(replies)) if replies.len() == group.len() => {
                let mut spoilt = false;
                for (job, reply) in group.drain(..).zip(replies) {
                    // A script that is lost still could not be loaded.
                    let spoils = |error| faults::spoils_connection(error) || faults::is_script_lost(error);
                    // One whose unit was not confirmed may lead to a primary that is none any more.
                    spoilt |= match &reply {
                        Ok(reply) => reply.as_ref().is_err_and(spoils),
                        Err(_) => true,
                    };
                    let reply = reply.and_then(|reply| reply.map_err(|error| faults::meaning(&error)));
                    let _ = job.reply.send(reply);
                }
                if !spoilt {
                    self.connection = Some(Kept { connection, used: Instant::now() });
                    return;
                }
            }
            Ok(Ok(_)) => answer_all(group, &LedgerError::Corrupt("not as many replies as commands".into())),
            Ok(Err(error)) => answer_all(group, &faults::meaning(&error)),
            Err(_) => answer_all(group, &LedgerError::Unconfirmed("Redis did not answer in time".into())),
        }
        self.give_back(connection);
    }

    /// The lane's connection, dialled if it has none that is good, and what the unit that it carries must keep to.
    async fn connection(&mut self, give_up: Instant) -> Result<(Kept, Pass), LedgerError> {
        let pass = self.standing.pass()?;
        match self.connection.take() {
            Some(kept) if kept.connection.server() != pass.server => {
                // It leads to a server that is no more.
                drop(Connection::take(kept.connection));
            }
            Some(kept) if kept.used.elapsed() < ASKED_AFTER => return Ok((kept, pass)),
            Some(Kept { mut connection, used }) => {
                // A connection that broke while it was idle would leave the outcome of the next group unknown.
                match timeout(PING_TIMEOUT, redis::cmd("PING").query_async::<Value>(&mut **connection)).await {
                    Ok(Ok(_)) => return Ok((Kept { connection, used }, pass)),
                    Ok(Err(_)) | Err(_) => self.give_back(connection),
                }
            }
            None => {}
        }
        let connection = match timeout_at(give_up, self.pool.connection()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(RedisAway::AllInUse)) => return Err(LedgerError::Overloaded),
            Ok(Err(away)) => return Err(LedgerError::StoreUnavailable(away.to_string())),
            Err(_) => return Err(LedgerError::StoreUnavailable("no connection to Redis in time".into())),
        };
        // Dialling may have found a server that nobody has checked yet, and this may be a connection to one that is no more.
        let pass = self.standing.pass()?;
        if connection.server() != pass.server {
            drop(Connection::take(connection));
            return Err(LedgerError::StoreUnavailable("connections lead to different servers".into()));
        }
        Ok((Kept { connection, used: Instant::now() }, pass))
    }

    /// Whatever is wrong with this connection, nobody must use it again; and the server is worth a look.
    fn give_back(&self, connection: Connection) {
        drop(Connection::take(connection));
        self.standing.alarm.notify_one();
    }
}

/// Calls that have waited for too long, and those that nobody waits for any more, are never sent.
fn turn_late_away(group: &mut Vec<Job>, error: &LedgerError) {
    let now = Instant::now();
    for late in group.extract_if(.., |job| job.give_up <= now || job.reply.is_closed()) {
        let _ = late.reply.send(Err(error.clone()));
    }
}

fn answer_all(group: &mut Vec<Job>, error: &LedgerError) {
    for job in group.drain(..) {
        let _ = job.reply.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(group: usize, queue: usize) -> Lanes {
        let size = |n| NonZeroUsize::new(n).unwrap();
        Lanes { count: size(3), group: size(group), queue: size(queue) }
    }

    fn job() -> Job {
        let (give_up, reply) = (Instant::now() + LONGEST_WAIT, oneshot::channel().0);
        Job { cmd: Cmd::new(), asks: Asks::Reads, span: Span::none(), give_up, reply }
    }

    /// Whether so many calls are worth a trip beside so many, when the first has waited so many milliseconds.
    fn is_worth_it(lanes: Lanes, calls: usize, waited: u64, trips: usize) -> bool {
        let first = Instant::now();
        let jobs = (0..calls).map(|_| Job { give_up: first + LONGEST_WAIT, ..job() }).collect();
        Waiting { jobs, trips, ..Waiting::new(lanes) }.is_worth_a_trip(first + Duration::from_millis(waited))
    }

    #[test]
    fn a_trip_begins_for_one_call_and_another_beside_it_only_where_it_pays() {
        let usual = lanes(256, 4_096);
        assert!(!is_worth_it(usual, 0, 0, 0), "nobody waits");
        assert!(is_worth_it(usual, 1, 0, 0), "a lone call leaves at once");
        assert!(!is_worth_it(usual, 63, 0, 1));
        assert!(is_worth_it(usual, 64, 0, 1));
        assert!(!is_worth_it(usual, 1, 9, 1));
        assert!(is_worth_it(usual, 1, 10, 1), "the trip under way is stuck");
    }

    #[test]
    fn small_groups_and_queues_use_every_lane_all_the_same() {
        assert!(is_worth_it(lanes(1, 4_096), 1, 0, 2));
        assert!(is_worth_it(lanes(256, 4), 4, 0, 2));
        assert!(!is_worth_it(lanes(256, 4), 3, 0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_behind_a_stuck_trip_leaves_by_another_lane_although_none_comes_after_it() {
        let line = Arc::new(Line { state: Mutex::new(Waiting::new(lanes(256, 4_096))), bell: Notify::new() });
        line.waiting().trips = 1;
        let (idle, began) = (Arc::clone(&line), Instant::now());
        let lane = tokio::spawn(async move { idle.next_group(256).await.len() });
        tokio::task::yield_now().await;
        line.add(job(), 4_096).unwrap();
        let left = timeout(Duration::from_secs(5), lane).await;
        assert_eq!(left.expect("it waits for the trip").unwrap(), 1);
        assert!((STUCK_AFTER..2 * STUCK_AFTER).contains(&began.elapsed()), "{:?}", began.elapsed());
    }
}
