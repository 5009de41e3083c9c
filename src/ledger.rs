//! Where claims are recorded: the port that every store implements, its commands and outcomes.
//!
//! One record per (programme, buyer) is a small list of [`Entry`]; there is no separate counter. The transition function
//! in [`rules`] states the semantics once; `embedded/` runs it, the Lua scripts of `redis/` agree with it, and a slow model in
//! `tests/` checks both.
//!
//! Knows nothing about which programme rule made a window what it is, and nothing about numbers: a buyer is a
//! [`BuyerKey`].

pub mod embedded;
pub mod outbox;
pub mod packed;
pub mod redis;
pub mod rules;
mod terms;

use std::future::Future;
use std::time::Duration;

use crate::buyer::{BuyerKey, OtherRing, Pseudonym, Turn};
use crate::ids::{LedgerId, ProgrammeCode, RequestId, SiteId, TerminalId};
use crate::policy::{Window, Windows};
use crate::time::Timestamp;

pub use terms::{Kept, OtherTerms, Terms};

/// Which record: one buyer's, in one programme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// The programme's short code.
    pub programme: ProgrammeCode,
    /// The buyer, as a keyed pseudonym and its partition.
    pub buyer: BuyerKey,
    /// Under which ring, and who the buyer is under the key beside the current one while the ring turns. A buyer has one record: what
    /// stands under the previous key is read with it, and goes into it when it is written.
    pub turn: Turn<Pseudonym>,
}

/// What became of a request id. The numbers stand in the stores and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// A recorded sale.
    Sold = 1,
    /// A claim that expires unless confirmed.
    Held = 2,
    /// A hold given back or run out.
    Released = 3,
    /// A sale taken back.
    Voided = 4,
    /// A claim that did not fit its windows.
    Refused = 5,
    /// An id that was asked about before it was ever used, and can therefore never become a sale.
    Closed = 6,
}

/// Which verb made an entry; a replay must be of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Claimed as a sale (or entered late).
    Sale,
    /// Claimed as a hold.
    Hold,
}

/// One line of a buyer's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The id under which it was asked for.
    pub request: RequestId,
    /// What became of it.
    pub state: State,
    /// How it was asked for. Meaningless for `Closed`, where it is `Sale`.
    pub kind: Kind,
    /// Written on paper and entered afterwards; `at` is then what the paper says.
    pub late: bool,
    /// A late entry that did not fit its windows: recorded all the same, and marked.
    pub over: bool,
    /// Units; 0 for `Closed`.
    pub quantity: u32,
    /// The time at which it counts: when the ledger took the claim, or for a late entry the time of sale.
    pub at: Timestamp,
    /// For `Held` when it expires; for `Released` and `Voided` when that happened; for a confirmed hold when it was
    /// confirmed; for a late entry when it arrived; otherwise equal to `at`.
    pub mark: Timestamp,
    /// The site that asked.
    pub site: SiteId,
}

impl Entry {
    /// Whether it uses up the buyer's windows at this time: a sale, or a hold that has not expired.
    pub fn counts(&self, at: Timestamp) -> bool {
        match self.state {
            State::Sold => true,
            State::Held => at < self.mark,
            State::Released | State::Voided | State::Refused | State::Closed => false,
        }
    }

    /// Until when a hold lasts; `None` for anything that is not a hold now.
    pub fn held_until(&self) -> Option<Timestamp> {
        (self.state == State::Held).then_some(self.mark)
    }
}

/// All that the ledger keeps of one buyer in one programme, ordered by (time, request id).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record(Vec<Entry>);

impl Record {
    /// From entries in any order.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|e| (e.at, e.request));
        Self(entries)
    }

    /// The entries, by time.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The entry of a request id.
    pub fn find(&self, request: RequestId) -> Option<&Entry> {
        self.0.iter().find(|e| e.request == request)
    }

    /// The record with these entries put in, or in the place of those with the same id.
    #[must_use]
    pub fn with(&self, writes: &[Entry]) -> Self {
        let mut entries: Vec<Entry> =
            self.0.iter().filter(|e| writes.iter().all(|w| w.request != e.request)).copied().collect();
        entries.extend_from_slice(writes);
        Self::new(entries)
    }
}

/// The most entries of one site in one buyer's record that no longer count. Beyond it a new id is turned away, so that
/// nobody can fill a record.
pub const DEAD_ENTRIES_PER_SITE: usize = 16;

/// The most late entries of one site in one buyer's record. Nobody sells a person rationed goods on paper more often in a few weeks; beyond
/// it a new id is turned away, so that a record stays small.
pub const LATE_ENTRIES_PER_SITE: usize = 64;

/// The most events of a partition that the outbox keeps; the oldest go first. There are 256 partitions: this is about a
/// day of a nation's sales for each, and half a gigabyte at most for all of them, so that nobody who reads the outbox too
/// slowly, or not at all, can fill the store that sales are recorded in. Redis is cut in whole nodes of its stream and not
/// at every event, and keeps a hundred or two more.
pub const OUTBOX_EVENTS: u64 = 20_000;

/// Who asks, under which id, and when by the service's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The purchase's own request id.
    pub request: RequestId,
    /// The site that asks.
    pub site: SiteId,
    /// The terminal that asks; it stands in the outbox event, not in the entry.
    pub terminal: TerminalId,
    /// The service's clock when the call was judged.
    pub now: Timestamp,
}

/// The atomic check-and-set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Units asked for, at least 1.
    pub quantity: u32,
    /// `None`: a sale. Otherwise a hold of this length, counted from the time the ledger gives it.
    pub hold_for: Option<Duration>,
    /// Every one must allow it.
    pub windows: Windows,
    /// First instant at which the windows may no longer be the right ones ([`Claimed::AssessAgain`]).
    pub good_until: Timestamp,
    /// What the seller stated, kept in the outbox event beside the sale: relation and papers.
    pub stated: String,
}

impl Claim {
    /// The kind of entry it makes.
    pub fn kind(&self) -> Kind {
        if self.hold_for.is_some() { Kind::Hold } else { Kind::Sale }
    }
}

/// A sale that was made on paper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Units that were sold, at least 1.
    pub quantity: u32,
    /// When, as the paper says. It is data: no decision rests on it but in which windows it counts.
    pub sold_at: Timestamp,
    /// Windows that must all allow it, or the entry is marked over. A rolling window stands here as each of the fixed
    /// spans that contain the sale.
    pub windows: Vec<Window>,
    /// What the seller stated.
    pub stated: String,
}

/// What happened to a purchase, in the words of the outbox. The names stand in the stores and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A sale was claimed.
    Sold,
    /// A hold was claimed; it stops counting at the entry's `mark`.
    Held,
    /// A hold became a sale.
    Confirmed,
    /// A hold was given back or found to have run out.
    Released,
    /// A sale was taken back.
    Voided,
    /// A sale made on paper was entered.
    Late,
}

impl EventKind {
    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sold => "sold",
            Self::Held => "held",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
            Self::Voided => "voided",
            Self::Late => "late",
        }
    }
}

/// One event of the outbox, written in the same step as the entry. It names no buyer. The store adds the programme, the
/// calling terminal and what the seller stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The entry as it now stands.
    pub entry: Entry,
}

/// An answer of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Answer<O> {
    /// What became of the call.
    pub outcome: O,
    /// Whether the ledger was left as it was because the id had been used before.
    pub replayed: bool,
    /// The time that the ledger decided by: the later of the service's clock and the newest online entry of the record.
    pub at: Timestamp,
    /// The buyer's record after the call.
    pub record: Record,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is a sale: now, or already by the same id.
    Recorded(Entry),
    /// It is a live hold.
    Held(Entry),
    /// It did not fit; the refusal stands under its id.
    Refused(Entry),
    /// The same id was a hold that was given back.
    Released(Entry),
    /// The same id was a hold that has run out.
    HoldExpired(Entry),
    /// The same id was a sale that was taken back.
    Voided(Entry),
    /// Nothing was done: the ledger's time is past [`Claim::good_until`]. Assess at [`Answer::at`] and ask again.
    AssessAgain,
}

/// What became of a confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// The hold is a sale.
    Sold(Entry),
    /// The hold had run out, or had been given back.
    HoldExpired(Entry),
    /// It was sold and then taken back.
    Voided(Entry),
    /// No hold under this id; the id is closed, or was refused.
    NotFound,
    /// The id is another site's.
    NotYours,
}

/// What became of giving a hold back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// It is given back, now or before.
    Released(Entry),
    /// It had been confirmed: only a void undoes a sale.
    AlreadySold(Entry),
    /// It was sold and then taken back.
    Voided(Entry),
    /// No hold under this id; the id is closed, or was refused.
    NotFound,
    /// The id is another site's.
    NotYours,
}

/// What became of taking a purchase back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Voided {
    /// The sale is taken back, now or before (`mark` says when).
    Voided(Entry),
    /// It was a hold, and is given back.
    Released(Entry),
    /// Nothing to take back; the id is closed, or was refused.
    NotFound,
    /// The id is another site's.
    NotYours,
}

/// What became of a late entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entered {
    /// Recorded now, within its windows or marked over.
    Sold(Entry),
    /// The sale was in the ledger already.
    AlreadyRecorded(Entry),
    /// The sale was in the ledger and had been taken back: a conflict for the report.
    AlreadyVoided(Entry),
}

/// What became of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// It is a sale.
    Recorded(Entry),
    /// It is a live hold.
    Held(Entry),
    /// It was a hold, given back or run out.
    Released(Entry),
    /// It was a sale, taken back.
    Voided(Entry),
    /// It was refused.
    Refused(Entry),
    /// It was never recorded, and from now on cannot be.
    NotRecorded,
    /// The id is another site's.
    NotYours,
}

/// Why the ledger gave no answer. Every variant but [`LedgerError::Unconfirmed`] means that this call wrote nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The id stands in the ledger with another quantity, site or kind.
    #[error("this request id was used before with another quantity, site or kind of claim")]
    RequestIdReused,
    /// The id was asked about before it was used.
    #[error("this request id was closed when somebody asked what became of it; take a new id")]
    RequestIdClosed,
    /// This site has left too many dead entries in this buyer's record, or too many late ones.
    #[error(
        "this site has {DEAD_ENTRIES_PER_SITE} requests in this buyer's record that no longer count, or \
         {LATE_ENTRIES_PER_SITE} late sales"
    )]
    BuyerRecordFull,
    /// The store cannot be reached, or is not fit to be written to; the reason is for the log.
    #[error("the store cannot be used: {0}")]
    StoreUnavailable(String),
    /// The store has fewer replicas than a promise needs, and wrote nothing.
    #[error("the store has too few replicas to write anything")]
    ReplicasMissing,
    /// The service's clock and the store's are too far apart to decide anything by either.
    #[error(
        "the service's clock and the store's are {0} ms apart; everything stops above 500 ms: set the clocks right"
    )]
    ClocksApart(i64),
    /// The ledger is written under another turn of the key ring.
    #[error("{0}")]
    OtherRing(OtherRing),
    /// Too much is waiting for the store already.
    #[error("too much is waiting for the store")]
    Overloaded,
    /// Sent, and no answer came: recorded or not, nobody can say yet.
    #[error("the store did not confirm: {0}")]
    Unconfirmed(String),
    /// The store answered something that this version does not understand. Nobody can say what was written.
    #[error("the store's answer cannot be read: {0}")]
    Corrupt(String),
}

/// What the service is told about its store: serving or not, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Claims can be recorded in the ledger of this id.
    Serving(LedgerId),
    /// They cannot, for this reason.
    NotServing(String),
}

/// How durable an acknowledged sale is; it stands in every receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced to the disk of one machine before the answer left.
    Synced,
    /// The same, and every replica that might take over had it.
    Replicated,
    /// The store runs with weaker settings, by `--allow-volatile`.
    Volatile,
}

/// One step of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Entries removed in this step.
    pub removed: u64,
    /// Records that were passed over in this step because they cannot be read. They are left as they are.
    pub unreadable: u64,
    /// Where to go on; `None` when everything has been seen.
    pub next: Option<Vec<u8>>,
}

impl Swept {
    /// Itself, once the log has been told how many records were passed over. Not which: their keys hold pseudonyms.
    fn told(self, programme: ProgrammeCode) -> Self {
        if self.unreadable > 0 {
            tracing::error!(%programme, records = self.unreadable, "a sweep passed over records that cannot be read");
        }
        self
    }
}

/// One step of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Records, each with its buyer: to tell them apart, because a later step may give one again. The buyer's key must not
    /// leave the process. `None` stands for a record that cannot be read.
    pub records: Vec<(BuyerKey, Option<Record>)>,
    /// Where to go on; `None` when everything has been given.
    pub next: Option<Vec<u8>>,
}

/// The store of claims. Every verb is one atomic step: check all, then write all, the outbox event with the record.
/// Dropping a returned future never leaves half a state, but may leave the outcome unknown to the caller.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Sells, or holds; a known id answers with what became of it.
    fn claim(
        &self,
        key: RecordKey,
        call: Call,
        claim: Claim,
    ) -> impl Future<Output = Result<Answer<Claimed>, LedgerError>> + Send;

    /// Makes a live hold a sale.
    fn confirm(
        &self,
        key: RecordKey,
        call: Call,
    ) -> impl Future<Output = Result<Answer<Confirmed>, LedgerError>> + Send;

    /// Gives a hold back.
    fn release(&self, key: RecordKey, call: Call)
    -> impl Future<Output = Result<Answer<Released>, LedgerError>> + Send;

    /// Takes a sale or a hold back.
    fn void(&self, key: RecordKey, call: Call) -> impl Future<Output = Result<Answer<Voided>, LedgerError>> + Send;

    /// Records a sale made on paper; never refused for quota, and turned away only beyond [`LATE_ENTRIES_PER_SITE`].
    fn late(
        &self,
        key: RecordKey,
        call: Call,
        late: Late,
    ) -> impl Future<Output = Result<Answer<Entered>, LedgerError>> + Send;

    /// What became of this id; an id never used is closed.
    fn resolve(&self, key: RecordKey, call: Call)
    -> impl Future<Output = Result<Answer<Resolved>, LedgerError>> + Send;

    /// The buyer's record, read only.
    fn usage(&self, key: RecordKey) -> impl Future<Output = Result<Record, LedgerError>> + Send;

    /// Removes entries of a programme whose `at` and `mark` are both before `before`, in whatever state they are: what was
    /// confirmed, taken back or entered since then is kept, because its retries are still to come. At most some hundreds
    /// of records a step, starting from `from` (`None` at first). A record that cannot be read is counted and left.
    fn sweep(
        &self,
        programme: ProgrammeCode,
        before: Timestamp,
        from: Option<Vec<u8>>,
    ) -> impl Future<Output = Result<Swept, LedgerError>> + Send;

    /// Reads the records of a programme: at most some hundreds a step, starting from `from` (`None` at first). Over all the
    /// steps each record that stands still is given at least once and alike. A later step fails rather than leave any out. While the
    /// key ring turns, the first write after the turn moves a record: it does not stand still, and may be left out or given twice.
    fn export(
        &self,
        programme: ProgrammeCode,
        from: Option<Vec<u8>>,
    ) -> impl Future<Output = Result<Exported, LedgerError>> + Send;

    /// Goes over to this turn of the key ring, from which the calls that follow are made: every partition that is still written
    /// under the ring before it is written under it from now on. A turn without the previous key is refused, and changes nothing, if the
    /// ledger stands at another ring, or went over to this one so lately that the previous key is needed.
    fn turn(&self, to: Turn, kept: Kept) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The store's state as last known, for health and for opening sessions. Never asks the store.
    fn health(&self) -> Health;

    /// The ledger's id; `None` until it has been seen once. It never changes while the process lives.
    fn id(&self) -> Option<LedgerId>;

    /// How durable an acknowledged sale is.
    fn durability(&self) -> Durability;
}
