//! What one instance knows of live seats and of the line, so that a sale asks nobody, and telling a terminal where it
//! stands neither.
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
//! It also does the door's housekeeping, as every instance does: it ticks, admits, renews, and after a change of the switches
//! trims sites to their caps.
//!
//! Knows nothing about tokens, purchases or which store the door is.

mod line;
mod pace;
mod renewals;
mod turned_back;
mod waiters;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use pace::Estimate;
pub use renewals::Attachment;
pub use turned_back::{PAUSE, Pause};
pub use waiters::{Wait, Waiter};

use super::{
    Attending, BATCH, Beat, Change, Changes, Cursor, Door, DoorError, Ended, EndedWhy, Holder, Kept, Lease, Mode,
    Opened, Opening, Place, Renewal, Seat, SeatKey, Standing, Switches, TICK, Terms,
};
use crate::ids::{Channel, SiteId, TerminalId};
use crate::time::Clock;
use line::{Line, Snapshot};
use pace::Pace;
use renewals::Renewals;
use turned_back::TurnedBack;
use waiters::Waiters;

/// How often the door's changes are read: a position is at most this old.
pub const READING: Duration = Duration::from_millis(250);
/// For how long after the beginning of a complete reading what is held may be relied on.
pub const GOOD_FOR: Duration = Duration::from_secs(2);
/// How often places are admitted while somebody waits.
const ADMITTING: Duration = Duration::from_millis(100);
/// After a change of the switches every instance first says what its seats sold, and trims only then.
const SALES_TOLD_WITHIN: Duration = Duration::from_millis(700);
/// A waiting terminal is told where it stands, or has to ask, this often at the most and at the least.
const UPDATES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// The same where nobody knows how long it takes.
const UPDATE_UNKNOWN: Duration = Duration::from_secs(10);
/// The same before the place is in the picture.
const UPDATE_FIRST: Duration = Duration::from_millis(300);

/// What is so until operators switch it.
#[derive(Clone)]
pub struct Configured {
    /// The most seats in the nation.
    pub capacity: u32,
    /// The most seats of a site of this channel.
    pub cap: Arc<dyn Fn(SiteId, Channel) -> u16 + Send + Sync>,
    /// The channel of a site; `None` for one that is not in the registry of sites any more.
    pub channel: Arc<dyn Fn(SiteId) -> Option<Channel> + Send + Sync>,
    /// Whether sales are slow on this instance just now.
    pub burning: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Switches as the store keeps them, and what they say.
#[derive(Debug, Default)]
pub struct InEffect {
    /// The document and its version.
    pub kept: Kept,
    /// What it says.
    pub switches: Switches,
}

/// How the door stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The switches.
    pub kept: Kept,
    /// Live seats in the nation.
    pub live: u32,
    /// The most there may be.
    pub capacity: u32,
    /// Places in the line, as read last.
    pub waiting: usize,
    /// Seats and places above the caps of their sites.
    pub above_caps: u64,
}

/// What a waiting terminal is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// From 1; `None` before the place has been counted.
    pub position: Option<u64>,
    /// `None`: nobody knows.
    pub estimate: Option<Estimate>,
    /// When it is told again, or should ask again.
    pub next: Duration,
}

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
    configured: Configured,
    known: Arc<Mutex<Known>>,
    room: Arc<Mutex<Room>>,
    renewals: Arc<Renewals>,
    waiters: Arc<Waiters>,
    turned_back: Arc<TurnedBack>,
    signals: Arc<Signals>,
}

impl<D: Clone, C: Clone> Clone for Registry<D, C> {
    fn clone(&self) -> Self {
        Self {
            door: self.door.clone(),
            clock: self.clock.clone(),
            configured: self.configured.clone(),
            known: self.known.clone(),
            room: self.room.clone(),
            renewals: self.renewals.clone(),
            waiters: self.waiters.clone(),
            turned_back: self.turned_back.clone(),
            signals: self.signals.clone(),
        }
    }
}

/// What should be done before its turn comes.
#[derive(Default)]
struct Signals {
    read: Notify,
    admit: Notify,
    trim: Notify,
    reading_switches: tokio::sync::Mutex<()>,
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
    in_effect: Arc<InEffect>,
}

/// The line as it was read last. Apart from [`Known`], because taking its picture is long for a sale to wait.
#[derive(Default)]
struct Room {
    line: Line,
    picture: Arc<Snapshot>,
    pictured_at: Option<Duration>,
    pace: Pace,
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
    pub fn new(door: D, clock: C, lease: Lease, configured: Configured) -> Self {
        Self {
            door,
            clock,
            configured,
            known: Arc::default(),
            room: Arc::default(),
            renewals: Arc::new(Renewals::new(lease)),
            waiters: Arc::default(),
            turned_back: Arc::default(),
            signals: Arc::default(),
        }
    }

    /// Opens a session at the door, see [`Door::open`]; a grant is known here at once. `due_in`: when the terminal's next
    /// sign of life is due if it has to wait; nothing where a stream gives it.
    pub async fn open(
        &self,
        site: SiteId,
        channel: Channel,
        terminal: TerminalId,
        due_in: Duration,
    ) -> Result<Opened, DoorError> {
        // Switches are moved by hand: twice in the course of one opening is unheard of.
        for _ in 0..3 {
            let in_effect = self.in_effect();
            let ramped = in_effect.switches.ramp.is_some_and(|ramp| ramp.channel == channel);
            let opening = Opening { site, terminal, cap: self.cap_under(&in_effect, site, channel), ramped, due_in };
            let (readings, changes) = (self.known().readings, self.turned_back.changes());
            let opened = self.door.open(opening, self.terms(&in_effect)).await?;
            match &opened {
                Opened::OtherSwitches => {
                    self.read_switches().await?;
                    continue;
                }
                Opened::Granted { seat, replaced } => {
                    if let Some(replaced) = replaced {
                        self.forget(replaced.key, replaced.fence, Standing::Replaced);
                    }
                    self.keep(*seat, readings);
                }
                Opened::Waiting { .. } => {
                    self.signals.admit.notify_one();
                    self.signals.read.notify_one();
                }
                Opened::SiteFull { .. } | Opened::Shut => {
                    self.turned_back.note(site, terminal, self.clock.monotonic(), changes);
                }
            }
            return Ok(opened);
        }
        Err(DoorError::Away("the switches change faster than they can be read".into()))
    }

    /// For how long a terminal that was turned back just now pauses before it is let ask again; see [`PAUSE`].
    pub fn pause(&self, site: SiteId, terminal: TerminalId) -> Option<Pause> {
        self.turned_back.pause(site, terminal, self.clock.monotonic())
    }

    /// The most seats and places of a site, under the switches that this instance goes by.
    pub fn cap(&self, site: SiteId, channel: Channel) -> u16 {
        self.cap_under(&self.in_effect(), site, channel)
    }

    fn cap_under(&self, in_effect: &InEffect, site: SiteId, channel: Channel) -> u16 {
        in_effect.switches.cap(site, channel, (self.configured.cap)(site, channel))
    }

    /// Who holds the slots of a site. Changes nothing, except that what has expired ends.
    pub async fn holders(&self, site: SiteId) -> Result<Vec<Holder>, DoorError> {
        #[expect(clippy::expect_used, reason = "a name of letters, digits and hyphens")]
        let nobody = "-".parse().expect("a terminal name");
        let opening = Opening { site, terminal: nobody, cap: 0, ramped: false, due_in: Duration::ZERO };
        for _ in 0..3 {
            match self.door.open(opening, self.terms(&self.in_effect())).await? {
                Opened::SiteFull { holders } => return Ok(holders),
                Opened::OtherSwitches => self.read_switches().await?,
                Opened::Granted { .. } | Opened::Waiting { .. } | Opened::Shut => break,
            }
        }
        Ok(Vec::new())
    }

    /// Closes a session at the door, see [`Door::close`]; it sells nothing here from now on.
    pub async fn close(&self, seat: Seat) -> Result<bool, DoorError> {
        let closed = self.door.close(seat).await?;
        self.forget(seat.key, seat.fence, Standing::Lost);
        self.turned_back.changed(seat.key.site);
        if self.room().line.len() > 0 {
            self.signals.admit.notify_one();
        }
        Ok(closed)
    }

    /// Gives a place up at the door, see [`Door::leave`].
    pub async fn leave(&self, place: Place) -> Result<bool, DoorError> {
        let left = self.door.leave(place).await?;
        self.turned_back.changed(place.key.site);
        // It may have been a seat by now.
        self.signals.admit.notify_one();
        Ok(left)
    }

    /// Renews one lease by a call of its own, for terminals that cannot hold a stream.
    pub async fn renew(&self, seat: Seat) -> Result<Standing, DoorError> {
        let readings = self.known().readings;
        let standing = self.door.renew(&[self.renewal(seat)]).await?;
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
            Standing::Lost | Standing::Capped | Standing::Shut => Err(Refused::Lost),
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

    /// A seat's terminal has sold. The door hears of it with a later renewal.
    pub fn sold(&self, seat: &Seat) {
        self.renewals.sold(seat, self.clock.monotonic());
    }

    /// Keeps the place for as long as the waiter lives, and tells it what becomes of the place. A second waiter for the same
    /// terminal ends the first.
    #[must_use = "the place is kept only while the waiter lives"]
    pub fn wait(&self, place: Place) -> Waiter {
        self.waiters.attach(place)
    }

    /// Whether this very place is in the line, as far as is known here. Then its terminal is taken to be present, and its next
    /// question to be due so much later; nobody is asked.
    pub fn still_waits(&self, place: &Place, due_in: Duration) -> bool {
        let waits = self.is_fresh() && self.room().line.has(place);
        if waits {
            self.asks_again(place, due_in);
        }
        waits
    }

    /// The terminal of this place asks again so much later.
    pub fn asks_again(&self, place: &Place, due_in: Duration) {
        self.waiters.asked(place.key.site, place.terminal, self.clock.monotonic() + due_in);
    }

    /// Where the place stands and how long it takes, from memory.
    pub fn update(&self, place: &Place) -> Update {
        let in_effect = self.in_effect();
        let (stands, estimate) = {
            let mut room = self.room();
            let stands = room.picture.stands(place);
            // Whom a ramp holds back is not known here, and how long it pauses to nobody.
            let steady = in_effect.switches.mode == Mode::Open && in_effect.switches.ramp.is_none();
            let told = steady && !room.picture.somebody_goes_before(place.key.slot);
            let estimate = stands.filter(|_| told).and_then(|s| room.pace.estimate(s.ahead, self.clock.monotonic()));
            (stands, estimate)
        };
        let next = match (stands, estimate) {
            (None, _) => UPDATE_FIRST,
            (Some(_), None) => UPDATE_UNKNOWN,
            (Some(_), Some(estimate)) => (estimate.p50 / 20).clamp(UPDATES.0, UPDATES.1),
        };
        Update { position: stands.map(|s| s.position), estimate, next: jittered(next) }
    }

    /// How many sessions' streams are open on this instance.
    pub fn attached(&self) -> usize {
        self.renewals.attached()
    }

    /// How many places there are in the nation, as read last.
    pub fn waiting(&self) -> usize {
        self.room().picture.waiting()
    }

    /// The most seats in the nation, under the switches that this instance goes by.
    pub fn capacity(&self) -> u32 {
        self.terms(&self.in_effect()).capacity
    }

    /// How the door stands, asked there.
    pub async fn status(&self) -> Result<Status, DoorError> {
        self.read_switches().await?;
        let (kept, live) = (self.door.switches().await?, self.door.live().await?);
        let mut above_caps = 0;
        for (site, taken) in self.door.occupancy().await? {
            let cap = (self.configured.channel)(site).map_or(taken, |channel| self.cap(site, channel));
            above_caps += u64::from(taken.saturating_sub(cap));
        }
        Ok(Status { kept, live, capacity: self.capacity(), waiting: self.waiting(), above_caps })
    }

    /// How long ago the last complete reading of the door's changes began; `None` before the first. Above [`GOOD_FOR`] every
    /// sale costs a trip.
    pub fn reading_age(&self) -> Option<Duration> {
        let read_at = self.known().read_at;
        read_at.map(|at| self.clock.monotonic().saturating_sub(at))
    }

    /// The switches that this instance goes by.
    pub fn in_effect(&self) -> Arc<InEffect> {
        self.known().in_effect.clone()
    }

    /// Puts other switches in the place of those of this version, under a line that says who did it: what the store has now by
    /// this call, or that another version stood there. An error leaves it open whether it took effect.
    pub async fn switch(&self, version: u64, switches: &Switches, who: &str) -> Result<Option<Kept>, DoorError> {
        let before = self.door.switches().await?;
        let ramp_of = |switches: &Switches| switches.ramp.map(|ramp| ramp.channel);
        let new_ramp = Switches::parse(&before.document).map_or(true, |before| ramp_of(&before) != ramp_of(switches));
        let document = format!("# {who}\n{}", switches.document());
        let switched = self.door.switch(version, &document, new_ramp).await?;
        // It is done, or was not to be done, whether or not it can be read back here at once.
        let _ = self.read_switches().await;
        Ok(switched.then_some(Kept { version: version + 1, document }))
    }

    /// Reads the changes, ticks, admits, renews and attends until cancelled. Every instance runs it once.
    pub async fn run(&self, stop: CancellationToken) {
        // Boxed, or the compiler has to lay out the pool, the connection and the script inside of the caller's task.
        let (reading, ticking) = (Box::pin(self.keep_reading()), Box::pin(self.keep_ticking()));
        let (renewing, attending) = (Box::pin(self.keep_renewing()), Box::pin(self.keep_attending()));
        let (admitting, trimming) = (Box::pin(self.keep_admitting()), Box::pin(self.keep_trimming()));
        let work = async { tokio::join!(reading, ticking, renewing, attending, admitting, trimming) };
        stop.run_until_cancelled(work).await;
    }

    async fn keep_reading(&self) {
        let mut reading = every(READING);
        let mut away = false;
        loop {
            tokio::select! {
                _ = reading.tick() => {}
                // Those who came in together are read together.
                () = self.signals.read.notified() => tokio::time::sleep(READING / 10).await,
            }
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

    /// Reads the door's changes to their end, once. After a gap, also what has happened while the whole line was read: before
    /// that nobody is told a position, which could be too low.
    pub async fn read_changes(&self) -> Result<(), DoorError> {
        if self.read_and_see_a_gap().await? {
            self.read_and_see_a_gap().await?;
        }
        Ok(())
    }

    async fn read_and_see_a_gap(&self) -> Result<bool, DoorError> {
        let began = self.clock.monotonic();
        let cursor = self.known().cursor;
        let Changes { changes, upto, gap } = self.door.changes(cursor).await?;
        if gap {
            self.begin_anew().await?;
        }
        {
            let mut known = self.known();
            if gap {
                known.live.clear();
            }
            for change in &changes {
                if let Change::Ended(ended) = change {
                    known.remove(ended.seat, ended.fence);
                }
            }
            known.cursor = upto;
            known.readings += 1;
            known.read_at = Some(began);
        }
        if gap {
            return Ok(true);
        }
        self.follow(&changes);
        if changes.contains(&Change::Switched) {
            self.read_switches().await?;
        }
        Ok(false)
    }

    /// Reads the switches and the whole line, after the cursor from which the changes go on.
    async fn begin_anew(&self) -> Result<(), DoorError> {
        self.read_switches().await?;
        let line = self.door.line().await?;
        self.turned_back.all_changed();
        let mut room = self.room();
        room.line.begin(line);
        for place in self.waiters.places() {
            if !room.line.has(&place) {
                self.waiters.tell((place.key.site, place.terminal), Wait::AskAgain);
            }
        }
        Ok(())
    }

    /// Takes the line's changes up, and tells those whom they concern.
    fn follow(&self, changes: &[Change]) {
        let mut room = self.room();
        let mut admitted = 0;
        for change in changes {
            self.free_for_others(change);
            match change {
                Change::Ended(ended) => {
                    let standing = match ended.why {
                        EndedWhy::Replaced => Standing::Replaced,
                        EndedWhy::Closed | EndedWhy::Expired => Standing::Lost,
                        EndedWhy::CapLowered => Standing::Capped,
                        EndedWhy::Shut => Standing::Shut,
                    };
                    self.renewals.end(ended.seat, ended.fence, standing);
                }
                Change::Admitted { seat, .. } => {
                    admitted += 1;
                    self.waiters.tell((seat.key.site, seat.terminal), Wait::Admitted(*seat));
                }
                Change::Waits(place) => {
                    // An absent terminal's place is gone on with by another one.
                    if let Some(before) = room.line.who(place.key).filter(|before| *before != place.terminal) {
                        self.waiters.tell((place.key.site, before), Wait::Replaced);
                    }
                    self.waiters.stands(*place);
                }
                Change::Left { why: super::LeftWhy::Moved | super::LeftWhy::Admitted, .. } => {}
                Change::Left { key, why, .. } => {
                    if let Some(who) = room.line.who(*key) {
                        self.waiters.tell((key.site, who), Wait::Gone(*why));
                    }
                }
                Change::Absent(_) | Change::Present(_) | Change::Switched => {}
            }
            room.line.apply(change);
        }
        let now = self.clock.monotonic();
        if admitted > 0 {
            room.pace.admitted(admitted, now);
        }
        // With a long line a picture is work, and in a wave of logins readings come faster than anybody looks at it.
        let is_recent = room.pictured_at.is_some_and(|at| now.saturating_sub(at) < READING / 2);
        if !is_recent && let Some(picture) = room.line.picture() {
            room.picture = Arc::new(picture);
            room.pictured_at = Some(now);
        }
    }

    /// Those who were turned back at a site may ask again when a seat or a place of it has ended, or may be gone on with.
    fn free_for_others(&self, change: &Change) {
        match change {
            Change::Ended(Ended { why: EndedWhy::Replaced, .. }) => {}
            Change::Ended(Ended { seat: key, .. }) | Change::Left { key, .. } | Change::Absent(key) => {
                self.turned_back.changed(key.site);
            }
            Change::Admitted { .. } | Change::Waits(_) | Change::Present(_) | Change::Switched => {}
        }
    }

    /// Reads the switches; when they are new here, sites are trimmed to their caps.
    async fn read_switches(&self) -> Result<(), DoorError> {
        // One after the other: an older answer must not come after a newer one.
        let _in_order = self.signals.reading_switches.lock().await;
        let kept = self.door.switches().await?;
        let before = self.in_effect();
        if kept == before.kept {
            return Ok(());
        }
        let switches = Switches::parse(&kept.document)
            .map_err(|error| DoorError::Corrupt(format!("version {} of the switches: {error}", kept.version)))?;
        tracing::info!(version = kept.version, mode = %switches.mode, "other switches are in effect");
        let says = |s: &Switches| (s.mode, s.capacity, s.ramp.map(|ramp| ramp.millisites()));
        if says(&switches) != says(&before.switches) {
            self.room().pace.forget();
        }
        self.known().in_effect = Arc::new(InEffect { kept, switches });
        self.turned_back.all_changed();
        self.signals.trim.notify_one();
        self.signals.admit.notify_one();
        Ok(())
    }

    fn terms(&self, in_effect: &InEffect) -> Terms {
        Terms {
            version: in_effect.kept.version,
            mode: in_effect.switches.mode,
            capacity: in_effect.switches.capacity.unwrap_or(self.configured.capacity),
        }
    }

    /// A door that is away says so to [`Registry::keep_reading`]; without ticks no lease ends.
    async fn keep_ticking(&self) {
        let mut ticking = every(TICK);
        loop {
            ticking.tick().await;
            loop {
                let in_effect = self.in_effect();
                let beat = Beat {
                    terms: self.terms(&in_effect),
                    ramp: in_effect.switches.ramp.map(|ramp| ramp.millisites()),
                    burning: (self.configured.burning)(),
                };
                let Ok(tick) = self.door.tick(beat).await else { break };
                if tick.other_switches && self.read_switches().await.is_err() || !tick.more {
                    break;
                }
            }
            if self.room().line.len() > 0 {
                self.signals.admit.notify_one();
            }
        }
    }

    /// Admits while somebody waits.
    async fn keep_admitting(&self) {
        let mut admitting = every(ADMITTING);
        loop {
            tokio::select! {
                _ = admitting.tick(), if self.room().line.len() > 0 => {}
                () = self.signals.admit.notified() => {}
            }
            loop {
                let in_effect = self.in_effect();
                let Ok(admitted) = self.door.admit(self.terms(&in_effect)).await else { break };
                if admitted.admitted > 0 {
                    self.signals.read.notify_one();
                }
                if admitted.other_switches && self.read_switches().await.is_err() || !admitted.more {
                    break;
                }
            }
            // In a wave of logins everybody who has to wait asks for it.
            tokio::time::sleep(ADMITTING / 4).await;
        }
    }

    /// One turn of the renewals after the other, evenly spread; what fails waits for its next turn, well inside the lease.
    async fn keep_renewing(&self) {
        let mut turns = every(self.renewals.turn_length());
        loop {
            turns.tick().await;
            self.renew_all(self.renewals.next_turn()).await;
        }
    }

    async fn renew_all(&self, due: Vec<Seat>) {
        let due: Vec<Renewal> = due.into_iter().map(|seat| self.renewal(seat)).collect();
        for batch in due.chunks(BATCH) {
            let readings = self.known().readings;
            let Ok(standings) = self.door.renew(batch).await else { continue };
            for (renewal, standing) in batch.iter().zip(standings) {
                self.learn(renewal.seat, standing, readings);
            }
        }
    }

    fn renewal(&self, seat: Seat) -> Renewal {
        let sold_at = self.renewals.take_sale(&seat);
        Renewal { seat, sold_ago: sold_at.map(|at| self.clock.monotonic().saturating_sub(at)) }
    }

    /// The same for places. What is heard of one that has none here is told by the changes, or by the door.
    async fn keep_attending(&self) {
        let mut turns = every(self.renewals.turn_length());
        loop {
            turns.tick().await;
            let due = self.waiters.next_turn(self.clock.monotonic());
            for batch in due.chunks(BATCH) {
                let asked = self.clock.monotonic();
                let Ok(places) = self.door.attend(batch).await else {
                    // Streams have their next turn; who asks now and then has given its sign, and it is passed on later.
                    self.waiters.not_passed_on(batch, asked);
                    continue;
                };
                for (Attending { site, terminal, .. }, place) in batch.iter().zip(places) {
                    match place {
                        Some(place) => self.waiters.stands(place),
                        None => self.waiters.tell((*site, *terminal), Wait::AskAgain),
                    }
                }
            }
        }
    }

    /// After every change of the switches: says what the seats sold last, so that the door knows whose seat to keep, and
    /// trims sites to their caps. Every instance does; the second one finds nothing to do.
    async fn keep_trimming(&self) {
        // Also at the start: what is configured may have become less while nobody touched a switch.
        self.signals.trim.notify_one();
        loop {
            self.signals.trim.notified().await;
            self.renew_all(self.renewals.with_sales()).await;
            tokio::time::sleep(SALES_TOLD_WITHIN).await;
            while let Err(error) = self.trim().await {
                tracing::warn!(%error, "sites are not trimmed to their caps yet");
                tokio::time::sleep(READING).await;
            }
        }
    }

    async fn trim(&self) -> Result<(), DoorError> {
        let in_effect = self.in_effect();
        let over = |(site, taken): (SiteId, u16)| {
            let channel = (self.configured.channel)(site)?;
            let cap = self.cap_under(&in_effect, site, channel);
            (taken > cap).then_some((site, cap))
        };
        let over: Vec<(SiteId, u16)> = self.door.occupancy().await?.into_iter().filter_map(over).collect();
        let trimmed = self.door.trim(&over, in_effect.kept.version).await?;
        if trimmed > 0 {
            tracing::info!(version = in_effect.kept.version, trimmed, "sessions and places above the caps have ended");
            self.signals.read.notify_one();
        }
        Ok(())
    }

    /// Takes up what the door said of a seat; `readings` is their number from before the door was asked. One that is live no
    /// more sells nothing here from now on; its stream is told by the reading that says why, or when the door says it again.
    fn learn(&self, seat: Seat, standing: Standing, readings: u64) {
        match standing {
            Standing::Live => self.keep(seat, readings),
            Standing::Replaced | Standing::Lost | Standing::Capped | Standing::Shut => {
                self.known().remove(seat.key, seat.fence);
                self.renewals.doubt(seat.key, seat.fence, standing);
            }
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

    fn is_fresh(&self) -> bool {
        self.reading_age().is_some_and(|age| age <= GOOD_FOR)
    }

    /// As [`Registry::known`].
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A fifth more or less, so that those who were told together are not told together again.
fn jittered(span: Duration) -> Duration {
    let draw = getrandom::u32().unwrap_or(u32::MAX / 2);
    span.mul_f64(0.8 + 0.4 * f64::from(draw) / f64::from(u32::MAX))
}
