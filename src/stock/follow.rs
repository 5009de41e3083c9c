//! Following what happens: events of the ledger and reports of the sites into [`Levels`], and those on the [`Board`](super::board::Board).
//!
//! Levels and the places up to which they were read are kept together, and go on together: nothing is counted twice or passed over,
//! whenever this process ends and whatever fails. What is gone before it was read is told: every level is unverified then, until
//! somebody has counted.
//!
//! Knows nothing about which store it reads, or who looks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::ids::LedgerId;
use crate::ledger::LedgerError;
use crate::ledger::outbox::{After, Cursor, Outbox, PARTITIONS, Place};
use crate::museum::Mutant;
use crate::time::{Clock, Timestamp};

use super::intake::Stocks;
use super::levels::Levels;
use super::{Reports, Shelf};

/// How often it is looked for more by whoever has caught up: a change is on the board within a second, a trip of a slow store
/// included.
const LOOKS_EVERY: Duration = Duration::from_millis(250);
/// How often the board is put up at the least: what is shown also changes by nothing happening.
const PUBLISHED_EVERY: Duration = Duration::from_secs(1);
/// For how long what is shown may be taken for what is so, when nothing can be read.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// How often levels are kept for whoever starts: what happens in so long is read again.
const KEPT_EVERY: Duration = Duration::from_secs(300);
/// How many partitions are read together.
const TOGETHER: usize = 32;
/// How many events of a partition, or reports, are read in one go.
const AT_ONCE: usize = 512;
/// How soon a store that could not be read is tried again.
const TRIES_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Which ledger it is; `None`: that is not known yet.
pub type Named = Arc<dyn Fn() -> Option<LedgerId> + Send + Sync>;

/// Follows what happens, for as long as it runs.
pub struct Follower<O, S, C> {
    outbox: O,
    named: Named,
    shelf: S,
    clock: C,
    stocks: Stocks,
    kept_every: Duration,
}

/// What was made of what was read, and how far that is.
struct Read {
    levels: Levels,
    events: Cursor,
    reports: Place,
    /// Everything up to this time is in it.
    until: Option<Timestamp>,
}

impl<O: Outbox, S: Shelf, C: Clock> Follower<O, S, C> {
    /// Of this ledger's events and this shelf's reports, for the board of these stocks.
    pub fn new(outbox: O, named: Named, shelf: S, clock: C, stocks: Stocks) -> Self {
        Self { outbox, named, shelf, clock, stocks, kept_every: KEPT_EVERY }
    }

    /// Keeps its levels so often instead of every five minutes.
    #[must_use]
    pub fn keeping_every(self, kept_every: Duration) -> Self {
        Self { kept_every, ..self }
    }

    /// Follows until it is stopped, and keeps what it has made.
    pub async fn run(self, stop: CancellationToken) {
        let Some(mut read) = stop.run_until_cancelled(self.begin()).await else { return };
        // Broken off between two steps it would lose nothing, and what it keeps is whole.
        let following = self.follow(&mut read);
        stop.run_until_cancelled(following).await;
        if read.until.is_some() {
            self.keep(&read).await;
        }
    }

    /// Where somebody has left off, or at the beginning of everything.
    async fn begin(&self) -> Read {
        let mut told = None;
        loop {
            match self.left_off().await {
                Ok(read) => return read,
                Err(error) => {
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(%error, "stock cannot be read; it is tried again");
                    }
                    told = Some(error);
                }
            }
            sleep(TRIES_AGAIN_AFTER).await;
        }
    }

    async fn left_off(&self) -> Result<Read, LedgerError> {
        let unknown = || LedgerError::StoreUnavailable("the ledger is not known yet".to_owned());
        let ledger = (self.named)().ok_or_else(unknown)?;
        // Who stands before the first event is told when it is gone.
        let nothing = || Read {
            levels: Levels::new(),
            events: Cursor::at(ledger, [Place::FIRST; PARTITIONS]),
            reports: Place::FIRST,
            until: None,
        };
        let Some(bytes) = self.shelf.kept().await? else { return Ok(nothing()) };
        let missed = |why: &str| {
            tracing::warn!(why, "the levels that were kept are of no use; they are made anew, and unverified");
            let mut read = nothing();
            read.levels.missed_until(self.clock.now());
            read
        };
        Ok(match Levels::from_bytes(&bytes) {
            Ok((_, events, _)) if events.ledger != ledger => missed("they are of another ledger"),
            Ok((levels, _, reports)) if Mutant::KeptWithoutPlaces.is_on() => Read { levels, reports, ..nothing() },
            Ok((levels, _, reports)) if Mutant::SkipsWhileAway.is_on() => {
                Read { levels, events: Cursor::at(ledger, self.outbox.newest().await?), reports, until: None }
            }
            Ok((levels, events, reports)) => Read { levels, events, reports, until: None },
            Err(error) => missed(&error.to_string()),
        })
    }

    async fn follow(&self, read: &mut Read) {
        // What took long to read for the first time is kept at once.
        let (mut published, mut kept) = (Duration::ZERO, None);
        let (mut read_at, mut told) = (None, None);
        loop {
            let begun = self.clock.monotonic();
            let passed = self.pass(read).await;
            let now = self.clock.monotonic();
            let news = match passed {
                Ok(news) => {
                    if told.take().is_some() {
                        tracing::info!("stock can be read again");
                    }
                    read_at = Some(begun);
                    news
                }
                Err(error) => {
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(%error, "stock cannot be read; what is shown will be marked stale");
                    }
                    told = Some(error);
                    false
                }
            };
            if news || now.saturating_sub(published) >= PUBLISHED_EVERY {
                let fresh = read_at.is_some_and(|at| now.saturating_sub(at) <= FRESH_FOR);
                // Before everything was read once, what is known may be of any day.
                if read_at.is_some() {
                    self.publish(read, fresh);
                }
                published = now;
            }
            let is_due = kept.is_none_or(|kept| now.saturating_sub(kept) >= self.kept_every);
            if read_at == Some(begun) && is_due {
                self.keep(read).await;
                kept = Some(now);
            }
            sleep(LOOKS_EVERY).await;
        }
    }

    fn publish(&self, read: &Read, fresh: bool) {
        let rows = read.levels.shown(self.clock.now(), fresh, |code| self.stocks.thresholds(code));
        self.stocks.board.publish(rows, read.until);
    }

    async fn keep(&self, read: &Read) {
        // It takes a third of a second for a nation.
        let bytes = tokio::task::block_in_place(|| read.levels.to_bytes(&read.events, read.reports));
        if let Err(error) = self.shelf.keep(bytes).await {
            tracing::warn!(%error, "levels of stock could not be kept; whoever starts reads more");
        }
    }

    /// Reads everything that there is. Says whether there was anything. After an error what was read so far counts.
    async fn pass(&self, read: &mut Read) -> Result<bool, LedgerError> {
        if (self.named)().is_some_and(|ledger| ledger != read.events.ledger) {
            return Err(LedgerError::StoreUnavailable("it is another ledger now".to_owned()));
        }
        let begun = self.clock.now();
        // What one of them cannot be read for keeps nobody from the other.
        let reports = self.reports(read).await;
        let events = self.events(read).await;
        let news = events? | reports?;
        read.levels.settle(begun);
        read.until = Some(begun);
        Ok(news)
    }

    async fn events(&self, read: &mut Read) -> Result<bool, LedgerError> {
        let places: Vec<_> = read.events.places().collect();
        let mut news = false;
        for group in places.chunks(TOGETHER) {
            let mut left = group.to_vec();
            while !left.is_empty() {
                let found = self.outbox.after(left.clone(), AT_ONCE).await?;
                let mut more = Vec::new();
                for ((partition, place), after) in left.into_iter().zip(found) {
                    let After::Events(events) = after else {
                        tracing::warn!(partition, "events are gone that were not read; levels are unverified");
                        read.levels.missed_until(self.clock.now());
                        read.events.has_read(partition, Place::BEGINNING);
                        more.push((partition, Place::BEGINNING));
                        continue;
                    };
                    events.iter().for_each(|(_, told)| read.levels.event(told));
                    if events.is_empty() && place == Place::BEGINNING {
                        // Of what comes now nothing may be missed.
                        read.events.has_read(partition, Place::FIRST);
                    }
                    if let Some((last, _)) = events.last() {
                        news = true;
                        read.events.has_read(partition, *last);
                        // What was full may hold more.
                        more.extend((events.len() >= AT_ONCE).then_some((partition, *last)));
                    }
                }
                left = more;
            }
        }
        Ok(news)
    }

    async fn reports(&self, read: &mut Read) -> Result<bool, LedgerError> {
        let mut news = false;
        loop {
            match self.shelf.after(read.reports, AT_ONCE).await? {
                Reports::Gone => {
                    tracing::warn!("reports of stock are gone that were not read; levels are unverified");
                    read.levels.missed_until(self.clock.now());
                    read.reports = Place::BEGINNING;
                }
                Reports::Next(reports) => {
                    if reports.is_empty() && read.reports == Place::BEGINNING {
                        read.reports = Place::FIRST;
                    }
                    for (place, report) in &reports {
                        read.levels.report(*place, report);
                        read.reports = *place;
                        news = true;
                    }
                    if reports.len() < AT_ONCE {
                        return Ok(news);
                    }
                }
            }
        }
    }
}
