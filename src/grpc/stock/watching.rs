//! `WatchStock`: what is new, as fast as it is taken. A watcher that is slow keeps a version and nothing else.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::convert::instant;
use super::super::status;
use super::super::v1::{self, anew::Reason, watch_stock_response::Told};
use super::shown::{self, Asker};
use crate::ids::SiteId;
use crate::stock::Shown;
use crate::stock::board::{Next, Watcher, Why};
use crate::stock::intake::Stocks;

/// Rows in a message, at most.
const MESSAGE_ROWS: usize = 256;
/// How long a watcher waits to be told that nothing has changed.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A watcher between the board and the wire.
pub(super) struct Watching {
    stocks: Stocks,
    watcher: Watcher,
    published: watch::Receiver<u64>,
    programme: String,
    region: String,
    asker: Asker,
    /// Something was told since it was told how far it is.
    has_told: bool,
    /// When it was told that.
    told_at: Instant,
    ending: CancellationToken,
    _room: OwnedSemaphorePermit,
}

impl Watching {
    pub(super) fn new(
        stocks: Stocks,
        watcher: Watcher,
        (wanted, asker): (v1::WatchStockRequest, Asker),
        ending: CancellationToken,
        room: OwnedSemaphorePermit,
    ) -> Self {
        let published = stocks.board.published();
        let v1::WatchStockRequest { programme, region, .. } = wanted;
        let told_at = Instant::now();
        // Whoever comes back hears at once that it is there, and how far.
        Self { stocks, watcher, published, programme, region, asker, has_told: true, told_at, ending, _room: room }
    }

    /// The next message. It has no end of its own.
    pub(super) async fn next(mut self) -> Result<Option<(v1::WatchStockResponse, Self)>, Status> {
        loop {
            if self.ending.is_cancelled() {
                return Err(status::stopped_watching().into());
            }
            // Before it is asked: what is published from here on wakes.
            self.published.mark_unchanged();
            let due = self.has_told || self.told_at.elapsed() >= PROGRESS_EVERY;
            let (sites, region) = (self.stocks.sites(), &self.region);
            let is_ours =
                |site: SiteId| region.is_empty() || sites.get(site).is_some_and(|site| site.region == *region);
            let told = match self.watcher.next(MESSAGE_ROWS, due, is_ours) {
                Some(Next::Anew(why)) => {
                    self.has_told = true;
                    let reason = match why {
                        Why::Begins => Reason::Begins,
                        Why::TooOld => Reason::TooOld,
                    };
                    Told::Anew(v1::Anew { reason: reason.into() })
                }
                Some(Next::Changes(rows)) => {
                    self.has_told = true;
                    Told::Changes(self.changes(rows))
                }
                // Only others' stocks have changed.
                Some(Next::Reached(_)) if !due => continue,
                Some(Next::Reached(read_until)) => {
                    (self.has_told, self.told_at) = (false, Instant::now());
                    let resume_token = self.watcher.resume(&self.region).to_bytes();
                    Told::Progress(v1::Progress { read_until: read_until.map(instant), resume_token })
                }
                None => {
                    let (ending, due) = (self.ending.clone(), self.told_at + PROGRESS_EVERY);
                    // Its time is up, or somebody has published: both are looked at above.
                    let _ = ending.run_until_cancelled(timeout_at(due, self.published.changed())).await;
                    continue;
                }
            };
            return Ok(Some((v1::WatchStockResponse { told: Some(told) }, self)));
        }
    }

    fn changes(&self, rows: Vec<(SiteId, Option<Shown>)>) -> v1::Changes {
        let mut changes = v1::Changes::default();
        for (site, shown) in rows {
            match shown {
                Some(shown) => changes.levels.push(shown::row(&self.programme, site, Some(&shown), self.asker)),
                None => changes.gone.push(site.to_string()),
            }
        }
        changes
    }
}
