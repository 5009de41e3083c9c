//! Terminals that were turned back a moment ago. Whoever opens again at once is let ask only after a pause, or as soon as
//! something at its site has changed: clients that know no patience cost the door a trip every few seconds instead of one as
//! often as they can, and a slot that comes free is not kept from anybody.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::ids::{SiteId, TerminalId};

/// How long after it was turned back a terminal asks again, if nothing has changed.
pub const PAUSE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(super) struct TurnedBack(Mutex<Table>);

#[derive(Default)]
struct Table {
    sites: HashMap<SiteId, Unchanged>,
    /// How often something has changed anywhere.
    changes: u64,
    swept: Duration,
}

/// A site at which nothing has changed since somebody was turned back there.
#[derive(Default)]
struct Unchanged {
    /// When each was turned back last, in monotonic time.
    at: HashMap<TerminalId, Duration>,
    /// It goes when something changes.
    sender: watch::Sender<()>,
}

/// A pause that is to be waited for.
pub struct Pause {
    left: Duration,
    unchanged: watch::Receiver<()>,
}

impl Pause {
    /// Ends when the pause is over, or when something has changed at the site.
    pub async fn over(mut self) {
        // The sender says nothing; it goes.
        let _ = tokio::time::timeout(self.left, self.unchanged.changed()).await;
    }
}

impl TurnedBack {
    pub(super) fn changes(&self) -> u64 {
        self.table().changes
    }

    /// `changes`: how many there were before the door was asked. What has changed since may be what the terminal was turned back
    /// for, so then it is not taken down.
    pub(super) fn note(&self, site: SiteId, terminal: TerminalId, now: Duration, changes: u64) {
        let mut table = self.table();
        if table.changes != changes {
            return;
        }
        if now.saturating_sub(table.swept) > PAUSE {
            table.swept = now;
            table.sites.retain(|_, here| {
                here.at.retain(|_, at| now.saturating_sub(*at) <= PAUSE);
                !here.at.is_empty() || here.sender.receiver_count() > 0
            });
        }
        table.sites.entry(site).or_default().at.insert(terminal, now);
    }

    /// The pause of this terminal, if it was turned back so short a time ago.
    pub(super) fn pause(&self, site: SiteId, terminal: TerminalId, now: Duration) -> Option<Pause> {
        let table = self.table();
        let here = table.sites.get(&site)?;
        let left = PAUSE.saturating_sub(now.saturating_sub(*here.at.get(&terminal)?));
        (!left.is_zero()).then(|| Pause { left, unchanged: here.sender.subscribe() })
    }

    /// A slot of the site may have come free: whoever was turned back may ask.
    pub(super) fn changed(&self, site: SiteId) {
        let mut table = self.table();
        table.changes += 1;
        table.sites.remove(&site);
    }

    /// Everybody may ask.
    pub(super) fn all_changed(&self) {
        let mut table = self.table();
        table.changes += 1;
        table.sites.clear();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_turned_back_asks_again_after_a_pause_or_a_change() {
        let turned_back = TurnedBack::default();
        let (site, other): (SiteId, SiteId) = ("s".parse().unwrap(), "o".parse().unwrap());
        let (till, second): (TerminalId, TerminalId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let at = Duration::from_secs;
        turned_back.note(site, till, at(100), 0);
        turned_back.note(other, till, at(100), 0);
        assert!(turned_back.pause(site, second, at(100)).is_none(), "it was not turned back");
        assert!(turned_back.pause(site, till, at(105)).is_none(), "the pause is over");

        let (pause, began) = (turned_back.pause(site, till, at(102)).unwrap(), tokio::time::Instant::now());
        pause.over().await;
        assert_eq!(began.elapsed(), at(3));

        let (pause, began) = (turned_back.pause(site, till, at(102)).unwrap(), tokio::time::Instant::now());
        turned_back.changed(site);
        pause.over().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(turned_back.pause(site, till, at(102)).is_none(), "what changed before it came again counts too");
        assert!(turned_back.pause(other, till, at(102)).is_some());

        turned_back.note(site, till, at(106), 0);
        assert!(turned_back.pause(site, till, at(106)).is_none(), "something has changed while the door was asked");
        turned_back.note(other, second, at(106), turned_back.changes());
        assert!(turned_back.table().sites.values().all(|here| here.at.len() == 1), "what is over is forgotten");
        turned_back.all_changed();
        assert!(turned_back.table().sites.is_empty());
    }
}
