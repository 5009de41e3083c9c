//! What happened in a run: every call as the harness saw it, one after the other.
//!
//! Kept in memory by one process, written as JSON lines where several share a run. Knows nothing about who drove the calls
//! nor what is made of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{RequestId, SiteId};

/// Which call it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// A sale.
    Purchase,
    /// A hold.
    Hold,
    /// A hold made a sale.
    Confirm,
    /// A hold given back.
    Release,
    /// A sale or hold taken back.
    Void,
    /// What became of an id.
    Resolve,
}

/// What became of a call, as it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A receipt was given.
    Approved {
        /// When the sale counts, by the receipt, milliseconds since 1970.
        at: i64,
    },
    /// The units are held.
    Held {
        /// When the hold runs out, milliseconds since 1970.
        until: i64,
    },
    /// Do not sell: the names of the reasons, the first one first (`QUOTA_EXHAUSTED`).
    Refused(Vec<String>),
    /// Sell freely, nothing recorded.
    NotRequired,
    /// The hold is given back.
    Released,
    /// The hold had run out.
    HoldExpired,
    /// The sale is taken back.
    Voided,
    /// The hold had been confirmed.
    AlreadySold,
    /// Nothing to act on.
    NotFound,
    /// Never recorded, and never will be.
    NotRecorded,
    /// Another site's.
    NotYours,
    /// A failure that means that nothing was written: its reason (`OVERLOADED`).
    NotExecuted(String),
    /// Recorded or not, nobody can say: why.
    Unknown(String),
    /// An answer came that belongs to another call, so that nobody can say either: in which fields it differs. What stands in
    /// them may be about another person and is not repeated.
    OfAnother(String),
}

impl Outcome {
    /// Whether nobody can say what became of the call.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::OfAnother(_))
    }
}

/// One call of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The purchase's own request id.
    pub request: RequestId,
    /// Which buyer of the synthetic population; the same number is the same person in every process of a run.
    pub buyer: u64,
    /// The site that asked.
    pub site: SiteId,
    /// Which call.
    pub verb: Verb,
    /// Units; 0 on calls that follow a purchase.
    pub quantity: u32,
    /// When it was to be sent, since the run began. Latency counts from here, so that a stall is not hidden.
    pub intended: Duration,
    /// When it was sent, since the run began.
    pub sent: Duration,
    /// When its answer was there, since the run began.
    pub answered: Duration,
    /// Whether the answer said that the ledger knew the id already.
    pub replayed: bool,
    /// What was answered.
    pub outcome: Outcome,
}
