//! Sessions: which terminals of a site are admitted, and no more of them than the site's cap.
//!
//! A **seat** is the lease of (site, slot) that a terminal holds. Its **fence** is a number that the site's counter gives
//! out once: every grant and every replacement raises it, so an older handle can never pass for a newer one. A seat is
//! live until something ends it (its terminal opens another session, closes it, or stays silent for the lease), and every
//! ending is named in the door's stream of changes.
//!
//! [`limiter`] states the rules once, pure; [`embedded`] runs it over a file, the Lua scripts of [`redis`] agree with it, and one
//! suite checks both. [`Registry`] is what one instance knows of live seats, so that a sale costs no trip.
//!
//! **Time.** No client's clock and no civil clock of ours decides anything. The store keeps a *logical time* that a tick
//! moves forward by what the store's own clock says has passed, but by no more than [`Lease::max_step`] a tick and never
//! back. While the store or all instances are away nobody ticks, so an outage costs nobody a seat.
//!
//! Knows nothing about purchases, about who may sign in as which terminal, or where a cap comes from.

pub mod embedded;
pub mod limiter;
pub mod redis;
pub mod registry;
pub mod token;

pub use registry::{Attachment, Refused, Registry};

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::ids::{SiteId, TerminalId};

/// How long a silent terminal keeps its seat, and how fast logical time may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// A seat that was not renewed for longer than this, in logical time, is free.
    pub length: Duration,
    /// The most that one tick moves logical time. Well below `length`, so that a clock step ends no lease.
    pub max_step: Duration,
}

impl Lease {
    /// 15 s, and 2 s a tick: a dead terminal's seat is free within 16 s.
    pub const DEFAULT: Self = Self { length: Duration::from_secs(15), max_step: Duration::from_secs(2) };
}

/// The most seats that one trip renews, and the most that one tick reaps: bounded work for the store.
pub const BATCH: usize = 256;

/// How often an instance ticks.
pub const TICK: Duration = Duration::from_secs(1);

/// The place of a seat: one of the site's slots, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatKey {
    /// The site.
    pub site: SiteId,
    /// The slot; slots from the site's cap upwards are not granted.
    pub slot: u16,
}

/// A seat as it was granted: what a session token is a handle to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seat {
    /// Site and slot.
    pub key: SeatKey,
    /// Who holds it.
    pub terminal: TerminalId,
    /// The number of this grant, rising within the site.
    pub fence: u64,
}

/// One of those who hold the seats of a full site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Who holds the seat.
    pub terminal: TerminalId,
    /// In which slot.
    pub slot: u16,
    /// For how long already.
    pub held_for: Duration,
    /// When the seat is free unless it is renewed before.
    pub free_after: Duration,
}

/// What became of opening a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Opened {
    /// The terminal holds this seat from now on.
    Granted {
        /// The new seat.
        seat: Seat,
        /// The same terminal's earlier seat, which ended with this grant.
        replaced: Option<Seat>,
    },
    /// Every seat of the site is held by others.
    SiteFull {
        /// Who holds them, in order of slots.
        holders: Vec<Holder>,
    },
}

/// How a seat stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// Its terminal holds it.
    Live,
    /// Another session took its slot, or its terminal opened another session.
    Replaced,
    /// It was closed, it expired, or the door never knew it.
    Lost,
}

/// Why a seat ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedWhy {
    /// Its terminal opened another session.
    Replaced,
    /// Its terminal closed it.
    Closed,
    /// Its terminal was silent for longer than the lease.
    Expired,
}

/// A change at the door: a seat that is live no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Site and slot.
    pub seat: SeatKey,
    /// Which grant of it.
    pub fence: u64,
    /// Why.
    pub why: EndedWhy,
}

/// How far a reader has read the door's changes: the number of the last one read and its nonce, by which the door knows
/// that the reader read this very history and not another of the same length. The default has read nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    number: u64,
    nonce: u64,
}

/// What has changed at the door since a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Changes {
    /// The seats that ended, in order; empty after a gap.
    pub ended: Vec<Ended>,
    /// Where to read on.
    pub upto: Cursor,
    /// Whether changes may be missing between the cursor and `upto`: the reader must forget what it knew.
    pub gap: bool,
}

/// What a tick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Tick {
    /// Seats that ended because they had expired; [`BATCH`] of them means that more may be waiting.
    pub expired: usize,
}

/// Why the door gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// The store cannot be reached or did not confirm; whether the call took effect is not known.
    #[error("the session store cannot be used: {0}")]
    Away(String),
    /// The store answered something that this version does not understand.
    #[error("the session store's answer cannot be read: {0}")]
    Corrupt(String),
}

/// The store of seats, shared by every instance. Every verb is one atomic step.
pub trait Door: Clone + Send + Sync + 'static {
    /// Gives the terminal a seat of the site, if one of `cap` is free. The same terminal opening again gets its own slot
    /// back at once with a new fence. A seat that has expired counts as free.
    fn open(
        &self,
        site: SiteId,
        terminal: TerminalId,
        cap: u16,
    ) -> impl Future<Output = Result<Opened, DoorError>> + Send;

    /// Renews the leases of these seats, [`BATCH`] of them a trip; the answers are in the same order.
    fn renew(&self, seats: &[Seat]) -> impl Future<Output = Result<Vec<Standing>, DoorError>> + Send;

    /// Frees the seat at once. `false` when it was not live any more; nothing changes then.
    fn close(&self, seat: Seat) -> impl Future<Output = Result<bool, DoorError>> + Send;

    /// How the seat stands now; changes nothing.
    fn look_up(&self, seat: Seat) -> impl Future<Output = Result<Standing, DoorError>> + Send;

    /// Every seat that ended since `after`, read to the end.
    fn changes(&self, after: Cursor) -> impl Future<Output = Result<Changes, DoorError>> + Send;

    /// Moves logical time and ends at most [`BATCH`] seats that have expired. Every instance ticks; several ticks a second
    /// are harmless.
    fn tick(&self) -> impl Future<Output = Result<Tick, DoorError>> + Send;
}

impl Cursor {
    /// From the number of a change and its nonce.
    fn new(number: u64, nonce: u64) -> Self {
        Self { number, nonce }
    }
}

impl fmt::Display for SeatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.site, self.slot)
    }
}

/// Whole milliseconds, the grain of logical time.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
