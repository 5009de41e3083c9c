//! Sessions: which terminals of a site are admitted, no more of them than the site's cap and the nation's capacity, and who
//! of those that wait comes next.
//!
//! A **seat** is the lease of (site, slot) that a terminal holds. Its **fence** is a number that the site's counter gives
//! out once: every grant and every replacement raises it, so an older handle can never pass for a newer one. A seat is
//! live until something ends it (its terminal opens another session, closes it, stays silent for the lease, or the cap is
//! lowered), and every ending is named in the door's stream of changes.
//!
//! A **place** is what a terminal has that waits: (site, slot) too, with a number of its own, the `seq`, from one counter.
//! Its rank is its slot. Those of the lowest rank go first, among them the one with the smallest `seq`: so every site's
//! first terminal goes before anyone's second. Asking again returns the same place. One that stays silent is *absent*: it
//! is skipped, keeps its `seq`, and is removed only after [`Lease::grace`]. Being admitted is being granted the seat, in
//! the step that takes the place away: there is nothing in between to carry or to invent. Whose turn comes while it is away
//! has not lost it: until its terminal opens once more the seat remembers the place that it was, and is that place again,
//! when its lease ends or the
//! door is closed.
//!
//! [`limiter`] states the rules once, pure; [`embedded`] runs it over a file, the Lua scripts of [`redis`] agree with it, and one
//! suite checks both. [`Registry`] is what one instance knows of live seats and of the line, so that a sale costs no trip and
//! neither does telling a terminal where it stands.
//!
//! **Time.** No client's clock and no civil clock of ours decides anything. The store keeps a *logical time* that a tick
//! moves forward by what the store's own clock says has passed, but by no more than [`Lease::max_step`] a tick and never
//! back. While the store or all instances are away nobody ticks, so an outage costs nobody a seat or a place.
//!
//! **Switches.** What operators decide ([`Switches`]) is one versioned document that the store keeps and does not read. An
//! instance asks with the [`Terms`] that it took from the version it knows; a verb that grants answers with
//! [`Opened::OtherSwitches`] when the store has another version by now, and the instance reads it first.
//!
//! Knows nothing about purchases, about who may sign in as which terminal, or what a cap was before operators touched it.

pub mod embedded;
pub mod limiter;
pub mod redis;
pub mod registry;
pub mod switches;
pub mod token;

pub use registry::{Attachment, Refused, Registry};
pub use switches::{Mode, Switches};

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::ids::{SiteId, TerminalId};
use crate::museum::Mutant;

/// How long a silent terminal keeps its seat and its place, and how fast logical time may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// A seat that was not renewed for longer than this, in logical time, is free. A place whose terminal is overdue for
    /// longer than this is absent.
    pub length: Duration,
    /// The most that one tick moves logical time. Well below `length`, so that a clock step ends no lease.
    pub max_step: Duration,
    /// A place whose terminal is overdue for longer than this is removed.
    pub grace: Duration,
}

impl Lease {
    /// 15 s, 2 s a tick, and 120 s: a dead terminal's seat is free within 16 s.
    pub const DEFAULT: Self =
        Self { length: Duration::from_secs(15), max_step: Duration::from_secs(2), grace: Duration::from_secs(120) };

    /// [`Lease::max_step`] in milliseconds.
    fn step_ms(&self) -> u64 {
        // The seeded bug: a year is no bound.
        if Mutant::UnboundedStep.is_on() { 365 * 86_400_000 } else { millis(self.max_step) }
    }
}

/// The most seats or places that one trip renews, ends or removes: bounded work for the store.
pub const BATCH: usize = 256;

/// The most places that one trip admits; each costs the store several times what a renewal costs.
pub const ADMITTED: usize = 64;

/// How often an instance ticks.
pub const TICK: Duration = Duration::from_secs(1);

/// For how long nobody comes off the ramp after an instance has said that sales are slow.
pub const BURNS_FOR: Duration = Duration::from_secs(5);

/// One of a site's slots, counted from 0: a seat or a place, never both.
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

/// A place in the waiting room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Site and slot; the slot is the rank.
    pub key: SeatKey,
    /// Who waits in it.
    pub terminal: TerminalId,
    /// Its number, given out once: smaller ones go first within a rank.
    pub seq: u64,
}

/// Under which switches an instance asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The version of the switches that the rest was taken from.
    pub version: u64,
    /// Who may come in.
    pub mode: Mode,
    /// The most seats in the nation.
    pub capacity: u32,
}

/// A terminal that wants to come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Of which site.
    pub site: SiteId,
    /// Which terminal.
    pub terminal: TerminalId,
    /// The most seats and places of this site.
    pub cap: u16,
    /// Whether this site's channel is being let in gradually.
    pub ramped: bool,
    /// When its next sign of life is due, if it has to wait.
    pub due_in: Duration,
}

/// A sign of life of a seat's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The seat.
    pub seat: Seat,
    /// How long ago it sold last, if that is news.
    pub sold_ago: Option<Duration>,
}

/// A sign of life of a terminal that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attending {
    /// Of which site.
    pub site: SiteId,
    /// Which terminal.
    pub terminal: TerminalId,
    /// When its next sign of life is due.
    pub due_in: Duration,
}

/// One of those who hold the slots of a full site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Who holds the slot.
    pub terminal: TerminalId,
    /// Which slot.
    pub slot: u16,
    /// Whether it waits there, and does not sell yet.
    pub waiting: bool,
    /// For how long already; nothing of one that waits.
    pub held_for: Duration,
    /// When the slot may be taken over unless its terminal gives a sign of life before.
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
    /// The terminal waits in this place.
    Waiting {
        /// The place.
        place: Place,
        /// Whether its number was given out just now. It was not if the terminal waited here before, or took over the place of
        /// a terminal of its site that is absent.
        is_new: bool,
    },
    /// Every slot of the site is taken by others.
    SiteFull {
        /// Who holds them, in order of slots.
        holders: Vec<Holder>,
    },
    /// Nobody new is let in.
    Shut,
    /// The store's switches are not those of the terms: read them and ask again. Nothing changed.
    OtherSwitches,
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
    /// It ended because the site's cap was lowered. Only who hears of the ending learns this; the door says that it is lost.
    Capped,
    /// It ended because the door was closed. As above.
    Shut,
}

/// Why a seat ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndedWhy {
    /// Its terminal opened another session.
    Replaced,
    /// Its terminal closed it.
    Closed,
    /// Its terminal was silent for longer than the lease.
    Expired,
    /// The site's cap was lowered, and others of the site have sold since this one did.
    CapLowered,
    /// Operators have closed the door.
    Shut,
}

/// A seat that is live no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Site and slot.
    pub seat: SeatKey,
    /// Which grant of it.
    pub fence: u64,
    /// Why.
    pub why: EndedWhy,
}

/// Why a place is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftWhy {
    /// Its terminal is admitted: it has the seat of the same slot.
    Admitted,
    /// Its terminal has another place now, of a better rank.
    Moved,
    /// Its terminal gave it up.
    Closed,
    /// Its terminal was absent for longer than the grace.
    Absent,
    /// The site's cap was lowered.
    CapLowered,
}

/// A change at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A seat is live no more.
    Ended(Ended),
    /// A place was granted its seat.
    Admitted {
        /// The seat.
        seat: Seat,
        /// The number of the place that it was.
        seq: u64,
    },
    /// A terminal waits in a place that was not there before, or that another terminal had; it is present.
    Waits(Place),
    /// A place is no more.
    Left {
        /// Site and slot.
        key: SeatKey,
        /// Its number.
        seq: u64,
        /// Why.
        why: LeftWhy,
    },
    /// A place's terminal is overdue, and the place is skipped.
    Absent(SeatKey),
    /// A place's terminal has given a sign of life again.
    Present(SeatKey),
    /// The switches have another version.
    Switched,
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
    /// The changes, in order; empty after a gap.
    pub changes: Vec<Change>,
    /// Where to read on.
    pub upto: Cursor,
    /// Whether changes may be missing between the cursor and `upto`: the reader must forget what it knew.
    pub gap: bool,
}

/// A place, or what may become one again, as the door has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InLine {
    /// The place.
    pub place: Place,
    /// How it stands there.
    pub presence: Presence,
}

/// How somebody stands in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It gives its signs of life.
    Present,
    /// It is overdue, and skipped.
    Absent,
    /// It has been granted its seat and has not come for it: the place is its again if it does not.
    Granted {
        /// By which grant.
        fence: u64,
    },
}

/// What an instance says with its tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Under which switches.
    pub terms: Terms,
    /// How many sites a second come off the ramp, in thousandths; without a ramp everybody does.
    pub ramp: Option<u32>,
    /// Whether sales are slow here: nobody comes off the ramp for [`BURNS_FOR`].
    pub burning: bool,
}

/// What a tick did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Tick {
    /// Seats that ended: their lease is over, or the door was closed.
    pub expired: usize,
    /// Whether it stopped at its bound and should be called again.
    pub more: bool,
    /// Whether the store's switches are others than those of the terms; then only time passed and leases ended.
    pub other_switches: bool,
}

/// What an attempt to admit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Admitted {
    /// Places that were granted their seat.
    pub admitted: usize,
    /// Whether it stopped at its bound and should be called again.
    pub more: bool,
    /// Seats live in the nation afterwards, those included whose lease is over and that nobody has reaped.
    pub live: u32,
    /// Whether the store's switches are others than those of the terms; then nothing was done.
    pub other_switches: bool,
}

/// The switches as the store keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Raised with every change; 0 where nobody has ever touched a switch.
    pub version: u64,
    /// The document, see [`Switches`]; empty at version 0.
    pub document: String,
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

/// The store of seats and places, shared by every instance. Every verb is one atomic step, `line` excepted.
pub trait Door: Clone + Send + Sync + 'static {
    /// Gives the terminal a seat of the site if one of its cap and of the nation's capacity is free and nobody waits;
    /// otherwise a place. The same terminal opening again gets its own slot back at once with a new fence, or its own place
    /// unchanged. A seat that has expired counts as free.
    fn open(&self, opening: Opening, terms: Terms) -> impl Future<Output = Result<Opened, DoorError>> + Send;

    /// Renews the leases of these seats, [`BATCH`] of them a trip; the answers are in the same order.
    fn renew(&self, renewals: &[Renewal]) -> impl Future<Output = Result<Vec<Standing>, DoorError>> + Send;

    /// Keeps the places of these terminals, [`BATCH`] of them a trip; the answers are in the same order: the place, or that
    /// there is none. A terminal moves to a lower slot of its site, with a new number, if nobody of the site has that slot. One
    /// that has been admitted and gives its sign as if it waited keeps its seat until its next sign is due.
    fn attend(&self, attending: &[Attending]) -> impl Future<Output = Result<Vec<Option<Place>>, DoorError>> + Send;

    /// Frees the seat at once. `false` when it was not live any more; nothing changes then.
    fn close(&self, seat: Seat) -> impl Future<Output = Result<bool, DoorError>> + Send;

    /// Gives the place up, or the seat that it has become if its terminal has not come for it. `false` when it is another one by now, or none; nothing changes then.
    fn leave(&self, place: Place) -> impl Future<Output = Result<bool, DoorError>> + Send;

    /// How the seat stands now; changes nothing.
    fn look_up(&self, seat: Seat) -> impl Future<Output = Result<Standing, DoorError>> + Send;

    /// Every change since `after`, read to the end.
    fn changes(&self, after: Cursor) -> impl Future<Output = Result<Changes, DoorError>> + Send;

    /// Every place, and every seat that its terminal has not come for, in any order. It is read in parts: the changes since a cursor that was taken before make it whole.
    fn line(&self) -> impl Future<Output = Result<Vec<InLine>, DoorError>> + Send;

    /// Grants seats to those who are next, [`ADMITTED`] of them at the most, while the capacity and the mode let them.
    fn admit(&self, terms: Terms) -> impl Future<Output = Result<Admitted, DoorError>> + Send;

    /// Moves logical time, ends seats that have expired, skips places that are overdue, removes those that were absent for
    /// the grace, and lets sites off the ramp; [`BATCH`] of each at the most. Every instance ticks; several ticks a second
    /// are harmless.
    fn tick(&self, beat: Beat) -> impl Future<Output = Result<Tick, DoorError>> + Send;

    /// Ends seats and removes places of these sites above these caps, [`BATCH`] sites a trip; says how many. Seats stay
    /// before places, the seat that sold last before others (logical time moves in ticks, so this is known to the second). Nothing happens under other switches.
    fn trim(&self, caps: &[(SiteId, u16)], version: u64) -> impl Future<Output = Result<usize, DoorError>> + Send;

    /// Live seats in the nation, those included whose lease is over and that nobody has reaped.
    fn live(&self) -> impl Future<Output = Result<u32, DoorError>> + Send;

    /// How many seats and places each site has that has any.
    fn occupancy(&self) -> impl Future<Output = Result<Vec<(SiteId, u16)>, DoorError>> + Send;

    /// The switches.
    fn switches(&self) -> impl Future<Output = Result<Kept, DoorError>> + Send;

    /// Writes another document if the version is still this one, and says whether it was. `new_ramp`: those who came off the
    /// ramp before do not count.
    fn switch(
        &self,
        version: u64,
        document: &str,
        new_ramp: bool,
    ) -> impl Future<Output = Result<bool, DoorError>> + Send;
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
