//! The terminals that wait with a stream on this instance, and the signs of life of those that ask now and then.
//!
//! As with renewals, a third of the lease is cut into turns, and every stream's terminal attends in one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::ids::{SiteId, TerminalId};
use crate::session::{Attending, LeftWhy, Place, Seat};

use super::renewals::TURNS;

/// What has become of a terminal that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It waits in this place.
    Waits(Place),
    /// It has this seat.
    Admitted(Seat),
    /// It has no place any more.
    Gone(LeftWhy),
    /// Another stream waits for it, or another terminal of its site goes on in its place.
    Replaced,
    /// What has become of it was not heard here: ask the door.
    AskAgain,
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiters {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    attached: HashMap<(SiteId, TerminalId), Attached>,
    /// Signs of life to be passed on, and when the next ones are due, in monotonic time.
    asked: HashMap<(SiteId, TerminalId), Duration>,
    turn: u8,
    last: u64,
}

struct Attached {
    turn: u8,
    number: u64,
    told: watch::Sender<Wait>,
}

/// Keeps a place for as long as it lives, and hears of what becomes of it. Dropping it leaves the place to its terminal
/// until the grace ends.
pub struct Waiter {
    key: (SiteId, TerminalId),
    number: u64,
    told: watch::Receiver<Wait>,
    waiters: Arc<Waiters>,
}

impl Waiter {
    /// How it stands now.
    pub fn now(&mut self) -> Wait {
        *self.told.borrow_and_update()
    }

    /// Waits until something has become of it. May be dropped and called again.
    pub async fn changed(&mut self) -> Wait {
        // The sender goes without a word only when another stream has its place.
        if self.told.changed().await.is_err() {
            return match *self.told.borrow() {
                Wait::Waits(_) => Wait::Replaced,
                other => other,
            };
        }
        *self.told.borrow_and_update()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.waiters.table();
        if table.attached.get(&self.key).is_some_and(|attached| attached.number == self.number) {
            table.attached.remove(&self.key);
        }
    }
}

impl Waiters {
    pub(super) fn attach(self: &Arc<Self>, place: Place) -> Waiter {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        let draw = getrandom::u64().unwrap_or(number) % u64::from(TURNS);
        let (sender, told) = watch::channel(Wait::Waits(place));
        let key = (place.key.site, place.terminal);
        let attached = Attached { turn: u8::try_from(draw).unwrap_or(0), number, told: sender };
        table.attached.insert(key, attached);
        drop(table);
        Waiter { key, number, told, waiters: self.clone() }
    }

    /// The terminal's place, as the door has it now.
    pub(super) fn stands(&self, place: Place) {
        self.tell((place.key.site, place.terminal), Wait::Waits(place));
    }

    /// The terminal has a seat, has lost its place, or has lost it to another.
    pub(super) fn tell(&self, key: (SiteId, TerminalId), wait: Wait) {
        let mut table = self.table();
        let Some(attached) = table.attached.get(&key) else { return };
        attached.told.send_if_modified(|told| std::mem::replace(told, wait) != wait);
        if !matches!(wait, Wait::Waits(_)) {
            table.attached.remove(&key);
        }
    }

    /// A terminal has asked; its next question is due then.
    pub(super) fn asked(&self, site: SiteId, terminal: TerminalId, due: Duration) {
        self.table().asked.insert((site, terminal), due);
    }

    /// The door gave no answer to these at that time: the signs of those that ask now and then are kept, unless there are newer
    /// ones.
    pub(super) fn not_passed_on(&self, batch: &[Attending], at: Duration) {
        let mut table = self.table();
        for Attending { site, terminal, due_in } in batch.iter().filter(|attending| !attending.due_in.is_zero()) {
            table.asked.entry((*site, *terminal)).or_insert(at + *due_in);
        }
    }

    /// Every sign of life since the last time, and those whose turn it is.
    pub(super) fn next_turn(&self, now: Duration) -> Vec<Attending> {
        let mut table = self.table();
        table.turn = (table.turn + 1) % TURNS;
        let turn = table.turn;
        let asked = std::mem::take(&mut table.asked);
        let asked = asked.into_iter().map(|((site, terminal), due)| Attending {
            site,
            terminal,
            due_in: due.saturating_sub(now),
        });
        let streams = table.attached.iter().filter(|(_, attached)| attached.turn == turn);
        let streams =
            streams.map(|((site, terminal), _)| Attending { site: *site, terminal: *terminal, due_in: Duration::ZERO });
        streams.chain(asked).collect()
    }

    /// Every terminal that waits with a stream here, and in which place as far as it was told.
    pub(super) fn places(&self) -> Vec<Place> {
        let table = self.table();
        let place = |attached: &Attached| match *attached.told.borrow() {
            Wait::Waits(place) => Some(place),
            _ => None,
        };
        table.attached.values().filter_map(place).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
