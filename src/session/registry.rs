//! What one instance knows of live seats, so that a sale asks nobody.
//!
//! The registry reads the door's changes to their end every [`READING`]. What it holds is good while the last complete
//! reading began at most [`GOOD_FOR`] ago and did not name it; what it does not hold, or no longer trusts, it looks up at the
//! door; and when the door gives no answer the call is refused. So a seat that was replaced or has expired sells nowhere
//! later than [`GOOD_FOR`] after it ended.
//!
//! Two races are closed by the order of things. The cursor of a reading is older than every look-up whose answer is kept
//! after it, so an ending that the look-up could not see yet is named by a later reading. And an answer that was under way
//! while a reading was applied is used once and not kept, because that reading may have named it.
//!
//! Knows nothing about tokens, purchases or which store the door is.

mod renewals;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use renewals::Attachment;
use renewals::Renewals;

use super::{BATCH, Changes, Cursor, Door, DoorError, EndedWhy, Lease, Opened, Seat, SeatKey, Standing, TICK};
use crate::ids::{SiteId, TerminalId};
use crate::time::Clock;

/// How often the door's changes are read.
pub const READING: Duration = Duration::from_millis(500);
/// For how long after the beginning of a complete reading what is held may be relied on.
pub const GOOD_FOR: Duration = Duration::from_secs(2);

/// Why a seat may not sell or hold now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another session took the seat, or the terminal opened another one.
    #[error("this session was replaced by another one")]
    Replaced,
    /// The session was closed or has expired.
    #[error("this session is not live any more; open another one")]
    Lost,
    /// Nobody can say at the moment: fail closed.
    #[error("the session cannot be confirmed: {0}")]
    CannotConfirm(DoorError),
}

/// One instance's view of the door. Clones share it.
pub struct Registry<D, C> {
    door: D,
    clock: C,
    known: Arc<Mutex<Known>>,
    renewals: Arc<Renewals>,
}

impl<D: Clone, C: Clone> Clone for Registry<D, C> {
    fn clone(&self) -> Self {
        Self {
            door: self.door.clone(),
            clock: self.clock.clone(),
            known: self.known.clone(),
            renewals: self.renewals.clone(),
        }
    }
}

#[derive(Default)]
struct Known {
    /// The seats known to be live. Ended ones are removed, so it never holds more than there are live seats.
    live: HashMap<SeatKey, Seat>,
    cursor: Cursor,
    /// How many readings were applied.
    readings: u64,
    /// When the last complete reading began, in monotonic time; `None` before the first.
    read_at: Option<Duration>,
}

impl Known {
    fn remove(&mut self, key: SeatKey, fence: u64) {
        if self.live.get(&key).is_some_and(|live| live.fence == fence) {
            self.live.remove(&key);
        }
    }
}

impl<D: Door, C: Clock> Registry<D, C> {
    /// A registry that knows nothing yet. `lease` is the door's.
    pub fn new(door: D, clock: C, lease: Lease) -> Self {
        Self { door, clock, known: Arc::default(), renewals: Arc::new(Renewals::new(lease)) }
    }

    /// Opens a session at the door, see [`Door::open`]; a grant is known here at once.
    pub async fn open(&self, site: SiteId, terminal: TerminalId, cap: u16) -> Result<Opened, DoorError> {
        let readings = self.known().readings;
        let opened = self.door.open(site, terminal, cap).await?;
        if let Opened::Granted { seat, replaced } = &opened {
            if let Some(replaced) = replaced {
                self.forget(replaced.key, replaced.fence, Standing::Replaced);
            }
            self.keep(*seat, readings);
        }
        Ok(opened)
    }

    /// Closes a session at the door, see [`Door::close`]; it sells nothing here from now on.
    pub async fn close(&self, seat: Seat) -> Result<bool, DoorError> {
        let closed = self.door.close(seat).await?;
        self.forget(seat.key, seat.fence, Standing::Lost);
        Ok(closed)
    }

    /// Renews one lease by a call of its own, for terminals that cannot hold a stream.
    pub async fn renew(&self, seat: Seat) -> Result<Standing, DoorError> {
        let readings = self.known().readings;
        let standing = self.door.renew(&[seat]).await?;
        let standing = standing.first().copied().ok_or_else(|| DoorError::Corrupt("no standing for a seat".into()))?;
        self.learn(seat, standing, readings);
        Ok(standing)
    }

    /// Whether this seat may sell and hold now. Usually no trip: one the first time this instance sees a seat, and one a
    /// call while the changes cannot be read.
    pub async fn check(&self, seat: &Seat) -> Result<(), Refused> {
        let readings = {
            let known = self.known();
            let fresh = known.read_at.is_some_and(|at| self.clock.monotonic().saturating_sub(at) <= GOOD_FOR);
            match known.live.get(&seat.key) {
                Some(live) if fresh && live == seat => return Ok(()),
                Some(live) if live.fence > seat.fence => return Err(Refused::Replaced),
                _ => known.readings,
            }
        };
        // Boxed: the rare trip would otherwise be a part of every call.
        let standing = Box::pin(self.door.look_up(*seat)).await.map_err(Refused::CannotConfirm)?;
        self.learn(*seat, standing, readings);
        match standing {
            Standing::Live => Ok(()),
            Standing::Replaced => Err(Refused::Replaced),
            Standing::Lost => Err(Refused::Lost),
        }
    }

    /// Keeps the lease alive for as long as the attachment lives, and tells it when the seat has ended. Dropping it leaves
    /// the seat to its terminal until the lease ends. A second attachment to the same slot ends the first.
    #[must_use = "the lease is renewed only while the attachment lives"]
    pub fn attach(&self, seat: Seat) -> Attachment {
        let attachment = self.renewals.attach(seat);
        // A later opening of the same terminal may have been granted while this one was on its way here.
        if self.known().live.get(&seat.key).is_some_and(|live| live.fence > seat.fence) {
            self.renewals.end(seat.key, seat.fence, Standing::Replaced);
        }
        attachment
    }

    /// How many sessions' streams are open on this instance.
    pub fn attached(&self) -> usize {
        self.renewals.attached()
    }

    /// How long ago the last complete reading of the door's changes began; `None` before the first. Above [`GOOD_FOR`] every
    /// sale costs a trip.
    pub fn reading_age(&self) -> Option<Duration> {
        let read_at = self.known().read_at;
        read_at.map(|at| self.clock.monotonic().saturating_sub(at))
    }

    /// Reads the changes, ticks and renews the attached seats until cancelled. Every instance runs it once.
    pub async fn run(&self, stop: CancellationToken) {
        // Boxed, or the compiler has to lay out the pool, the connection and the script inside of the caller's task.
        let (reading, ticking) = (Box::pin(self.keep_reading()), Box::pin(self.keep_ticking()));
        let work = async { tokio::join!(reading, ticking, Box::pin(self.keep_renewing())) };
        stop.run_until_cancelled(work).await;
    }

    async fn keep_reading(&self) {
        let mut reading = every(READING);
        let mut away = false;
        loop {
            reading.tick().await;
            match self.read_changes().await {
                Ok(()) if away => {
                    tracing::info!("the session store answers again");
                    away = false;
                }
                Err(error) if !away => {
                    tracing::warn!(%error, "sessions cannot be confirmed until the session store answers");
                    away = true;
                }
                _ => {}
            }
        }
    }

    /// Reads the door's changes to their end, once.
    pub async fn read_changes(&self) -> Result<(), DoorError> {
        let began = self.clock.monotonic();
        let cursor = self.known().cursor;
        let Changes { ended, upto, gap } = self.door.changes(cursor).await?;
        {
            let mut known = self.known();
            if gap {
                known.live.clear();
            }
            for ended in &ended {
                known.remove(ended.seat, ended.fence);
            }
            known.cursor = upto;
            known.readings += 1;
            known.read_at = Some(began);
        }
        for ended in ended {
            let standing = match ended.why {
                EndedWhy::Replaced => Standing::Replaced,
                EndedWhy::Closed | EndedWhy::Expired => Standing::Lost,
            };
            self.renewals.end(ended.seat, ended.fence, standing);
        }
        Ok(())
    }

    /// A door that is away says so to [`Registry::keep_reading`]; without ticks no lease ends.
    async fn keep_ticking(&self) {
        let mut ticking = every(TICK);
        loop {
            ticking.tick().await;
            while self.door.tick().await.is_ok_and(|tick| tick.expired == BATCH) {}
        }
    }

    /// One turn of the renewals after the other, evenly spread; what fails waits for its next turn, well inside the lease.
    async fn keep_renewing(&self) {
        let mut turns = every(self.renewals.turn_length());
        loop {
            turns.tick().await;
            let due = self.renewals.next_turn();
            for batch in due.chunks(BATCH) {
                let readings = self.known().readings;
                let Ok(standings) = self.door.renew(batch).await else { continue };
                for (seat, standing) in batch.iter().zip(standings) {
                    self.learn(*seat, standing, readings);
                }
            }
        }
    }

    /// Takes up what the door said of a seat; `readings` is their number from before the door was asked.
    fn learn(&self, seat: Seat, standing: Standing, readings: u64) {
        match standing {
            Standing::Live => self.keep(seat, readings),
            Standing::Replaced | Standing::Lost => self.forget(seat.key, seat.fence, standing),
        }
    }

    fn keep(&self, seat: Seat, readings: u64) {
        let mut known = self.known();
        if known.live.get(&seat.key).is_some_and(|live| live.fence > seat.fence) {
            return;
        }
        // A grant ends every older one of its slot, whether or not this answer may be kept.
        if known.live.get(&seat.key).is_some_and(|live| live.fence < seat.fence) {
            known.live.remove(&seat.key);
        }
        if known.readings == readings {
            known.live.insert(seat.key, seat);
        }
    }

    fn forget(&self, key: SeatKey, fence: u64, standing: Standing) {
        self.known().remove(key, fence);
        self.renewals.end(key, fence, standing);
    }

    /// The map is whole whenever the lock is free, so a panic elsewhere does not spoil it.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An even beat that does not hurry after a pause.
fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
