//! What a purchase is asked with and what it is answered with, in the words of the domain.

use std::time::Duration;

use smallvec::SmallVec;

use super::receipt::Receipt;
use crate::ids::{Paper, ProgrammeId, Relation, RequestId, SiteId, TerminalId};
use crate::ledger::{Entry, LedgerError};
use crate::museum::Mutant;
use crate::policy::{Chance, Left, Place, Reason};
use crate::time::Timestamp;

/// Who asks, as the edge has made sure of it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The site.
    pub site: SiteId,
    /// The terminal, for the record.
    pub terminal: TerminalId,
    /// What a rule may know of the site.
    pub place: Place,
}

/// How a request names the buyer. Has no `Debug`: it is the number in the clear.
#[derive(Clone, Copy)]
pub enum Named<'a> {
    /// By a resident or alien registration number.
    Resident(&'a str),
    /// By the programme's own number.
    Opaque {
        /// The number.
        id: &'a str,
        /// The date of birth on the card.
        birth_date: &'a str,
    },
}

/// One person's line of a visit, as asked for.
pub struct AskedLine<'a> {
    /// Required to sell or hold; `None` for a look-up.
    pub request: Option<RequestId>,
    /// Whose allowance is charged.
    pub buyer: Named<'a>,
    /// Units.
    pub quantity: u32,
    /// How the agent stands to the buyer.
    pub relation: Option<Relation>,
    /// What was shown.
    pub papers: SmallVec<[Paper; 2]>,
}

/// A visit, as asked for.
pub struct Asked<'a> {
    /// Under which programme.
    pub programme: ProgrammeId,
    /// The agent's year of birth.
    pub agent: Option<i16>,
    /// One line per person who takes units.
    pub lines: Vec<AskedLine<'a>>,
    /// Years of birth of those named who take none.
    pub family: SmallVec<[i16; 1]>,
    /// `Some` to hold instead of sell.
    pub hold_for: Option<Duration>,
}

/// A field of a request that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Which line, counted from 0; `None` for a field of the visit.
    pub line: Option<usize>,
    /// The field, in the words of the wire ("buyer.resident_number").
    pub field: &'static str,
    /// What is wrong and what would be right, without the value.
    pub problem: String,
}

/// What became of a line or an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A look-up's yes.
    MayBuy,
    /// A recorded sale.
    Approved(Receipt),
    /// A live hold.
    Held(Entry),
    /// Reasons not to sell, the first the main one.
    Refused(SmallVec<[Reason; 1]>),
    /// No check applies, and why.
    NotRequired(String),
    /// A hold that was given back.
    Released(Entry),
    /// A hold that ran out.
    HoldExpired(Entry),
    /// A sale that was taken back.
    Voided(Entry),
    /// A hold that had been confirmed.
    AlreadySold(Receipt),
    /// Nothing to act on.
    NotFound,
    /// Nothing recorded, and never will be.
    NotRecorded,
    /// Another site's.
    NotYours,
    /// No decision.
    Failed(Failure),
}

impl Outcome {
    /// When a sale or hold that stands was made; `None` for every other outcome.
    pub fn granted_at(&self) -> Option<Timestamp> {
        match self {
            Self::Approved(receipt) => Some(receipt.of.sold_at),
            Self::Held(hold) => Some(hold.at),
            _ => None,
        }
    }

    /// The stable name: the same in JSON, metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MayBuy => "MAY_BUY",
            Self::Approved(_) => "APPROVED",
            Self::Held(_) => "HELD",
            Self::Refused(reasons) => reasons.first().map_or("REFUSED", |r| r.refusal.name()),
            Self::NotRequired(_) => "NOT_REQUIRED",
            Self::Released(_) => "RELEASED",
            Self::HoldExpired(_) => "HOLD_EXPIRED",
            Self::Voided(_) => "VOIDED",
            Self::AlreadySold(_) => "ALREADY_SOLD",
            Self::NotFound => "NOT_FOUND",
            Self::NotRecorded => "NOT_RECORDED",
            Self::NotYours => "NOT_YOURS",
            Self::Failed(failure) => failure.name(),
        }
    }
}

/// Why there is no decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The ledger gave none.
    Ledger(LedgerError),
    /// It leans on a line of the same visit that failed.
    NotTried,
}

impl Failure {
    /// The stable name, which is also the reason in `ErrorInfo`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ledger(LedgerError::RequestIdReused) => "REQUEST_ID_REUSED",
            Self::Ledger(LedgerError::RequestIdClosed) => "REQUEST_ID_CLOSED",
            Self::Ledger(LedgerError::BuyerRecordFull) => "BUYER_RECORD_FULL",
            Self::Ledger(LedgerError::StoreUnavailable(_) | LedgerError::OtherRing(_)) => "STORE_UNAVAILABLE",
            Self::Ledger(LedgerError::ReplicasMissing) => "REPLICAS_MISSING",
            Self::Ledger(LedgerError::ClocksApart(_)) => "CLOCKS_APART",
            Self::Ledger(LedgerError::Overloaded) => "OVERLOADED",
            Self::Ledger(LedgerError::Unconfirmed(_)) if Mutant::UnknownAsNotExecuted.is_on() => "STORE_UNAVAILABLE",
            Self::Ledger(LedgerError::Unconfirmed(_)) => "COMMIT_UNCONFIRMED",
            Self::Ledger(LedgerError::Corrupt(_)) => "INTERNAL",
            Self::NotTried => "NOT_TRIED",
        }
    }
}

/// A purchase that uses up a window now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// When it counts.
    pub at: Timestamp,
    /// Units.
    pub quantity: u32,
    /// Where.
    pub site: SiteId,
    /// Whether it is a hold that is not confirmed yet.
    pub held: bool,
}

/// What the buyer has left now, and when next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is left over all windows.
    pub left: Left,
    /// When this person may next buy with every rule satisfied.
    pub next: Option<Chance>,
    /// What counts now, newest last.
    pub earlier: Vec<Earlier>,
}

/// What the clerk compares with the paper.
#[derive(Clone, PartialEq, Eq)]
pub struct Echo {
    /// Birth year read from the number.
    pub birth_year: i16,
    /// The weekday of the rotation for that year; `None` when none applies now.
    pub rotation_day: Option<&'static str>,
    /// The number with its last digits masked.
    pub masked_number: String,
    /// Its check digit does not fit.
    pub check_digit_warning: bool,
}

/// In the words of the ledger's error; for the log.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ledger(error) => error.fmt(f),
            Self::NotTried => f.write_str("it leans on a line that failed"),
        }
    }
}

/// The answer for one line or one id.
#[derive(Clone, PartialEq, Eq)]
pub struct LineAnswer {
    /// The id asked about; `None` for a look-up.
    pub request: Option<RequestId>,
    /// The ledger knew the id and was left as it was.
    pub replayed: bool,
    /// What became of it.
    pub outcome: Outcome,
    /// What is left; `None` where no windows apply or there is no decision.
    pub standing: Option<Standing>,
    /// For the clerk.
    pub echo: Echo,
}
