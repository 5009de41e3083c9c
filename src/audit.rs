//! The audit log: every access to what is recorded of a buyer, in an append-only file in which each record covers the one before.
//!
//! ```text
//! counters   done ──tell──> written ──> the answer leaves   a sale never waits for the disk's sync
//! operators  asked ──put──> synced ──> done ──put──> synced ──> answered
//!                      └ not put: not done
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `000000000001-2026-11.log` | a segment: records from this sequence on, of this month (UTC) |
//! | `head` | the newest record that is known to be on the disk |
//! | `keys/2026-11.key` | the month's audit key: pseudonyms of look-ups are made with it, and it is destroyed with its month |
//! | `lock` | locked by the process that writes here |
//!
//! A record is a line, `SEQUENCE HASH BODY`: see [`chain`]. A purchase stands there by its request id, a look-up by a pseudonym that
//! is good for a month: the log rebuilds nobody's history.
//!
//! **What is written when.** Records are written in groups by a thread of their own and synced by another. An answer to a counter
//! leaves when its record has been handed to the operating system, which outlives the process; a sync follows within
//! a second. What an operator does waits for the sync.
//!
//! **When it cannot be written** (disk full, queue full), counters go on selling: how many records are missing is counted, shown, and
//! written into the chain as soon as it can be. What an operator asks for is refused.
//!
//! Knows nothing about who calls over which wire.

pub mod chain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod log;
mod month_keys;
mod segments;
pub mod verify;
mod writer;

pub use log::{Expired, OpenError, expire};
pub use writer::{FileTrail, Standing};

use std::borrow::Cow;

use futures_util::future::BoxFuture;

use crate::ids::{ProgrammeId, RequestId, SiteId, TerminalId};
use crate::ledger::RecordKey;
use crate::time::Timestamp;

/// One access, or what is about to be made of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// By the service's clock.
    pub at: Timestamp,
    /// Who, as their certificate names them.
    pub by: Cow<'static, str>,
    /// At which counter; `None` where an operator did it.
    pub counter: Option<(SiteId, TerminalId)>,
    /// What.
    pub action: Action,
    /// The stable name of what came of it.
    pub result: &'static str,
}

/// What is done, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A counter looks up what a buyer may have.
    Check {
        /// Under which programme.
        programme: ProgrammeId,
        /// Whose.
        record: RecordKey,
    },
    /// A counter does something with a purchase.
    Counter {
        /// What.
        deed: Deed,
        /// Under which programme.
        programme: ProgrammeId,
        /// With which purchase: never whose.
        request: RequestId,
    },
    /// An operator is shown a buyer's record.
    LookUp {
        /// Under which programme.
        programme: ProgrammeId,
        /// Whose.
        record: RecordKey,
        /// Why, in their words. It holds no buyer's number.
        reason: String,
    },
    /// An operator takes a purchase back for its buyer.
    VoidForBuyer {
        /// Under which programme.
        programme: ProgrammeId,
        /// The site that sold.
        site: SiteId,
        /// Which one: never whose.
        request: RequestId,
        /// Why, as above.
        reason: String,
    },
    /// An operator takes all records of a programme away.
    Export {
        /// Of which programme.
        programme: ProgrammeId,
    },
    /// An operator puts another document of switches in the place of this version.
    Switch {
        /// The version that is replaced.
        version: u64,
        /// Why, in their words.
        reason: String,
    },
}

/// What a counter does with a purchase that it names by its request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Sells.
    Sell,
    /// Holds.
    Hold,
    /// Makes a hold a sale.
    Confirm,
    /// Gives a hold back.
    Release,
    /// Takes a sale back.
    Void,
    /// Asks what became of it.
    Resolve,
    /// Enters it late.
    Enter,
}

/// The result of an access that is about to be made.
pub const ASKED: &str = "ASKED";
/// The result of an access for whose outcome nobody waited: the caller has gone.
pub const CALLER_GONE: &str = "CALLER_GONE";

/// The audit log takes nothing now; the text is for the program's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the access cannot be put on record: {0}")]
pub struct NotOnRecord(pub String);

/// Where accesses are put on record. Clones share it.
#[derive(Clone)]
pub enum Trail {
    /// In the program's log, and only what operators do: for a service that was given no place for an audit log.
    Log,
    /// In the audit log.
    File(FileTrail),
}

impl Trail {
    /// Whether what counters do is kept too.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Puts an access of an operator on record. It is there for good when this is `Ok`; otherwise it must not be made.
    pub async fn put(&self, access: Access) -> Result<(), NotOnRecord> {
        match self {
            Self::File(file) => file.put(access).await,
            Self::Log => {
                let Access { at, by, action, result, .. } = access;
                match action {
                    Action::LookUp { programme, record: _, reason } => {
                        tracing::warn!(%at, %by, %programme, reason, result, "audit: a look-up of a buyer's record");
                    }
                    Action::VoidForBuyer { programme, site, request, reason } => {
                        tracing::warn!(%at, %by, %programme, %site, %request, reason, result, "audit: a void by an operator");
                    }
                    // Those who do these say so themselves.
                    Action::Export { .. } | Action::Switch { .. } | Action::Check { .. } | Action::Counter { .. } => {}
                }
                Ok(())
            }
        }
    }

    /// Hands on what was done, to be put on record: it does not fail, and what cannot be put is counted. Whoever did it is answered
    /// only when [`Trail::unwritten`] lets it.
    pub fn tell(&self, accesses: impl IntoIterator<Item = Access>) {
        if let Self::File(file) = self {
            file.tell(accesses);
        }
    }

    /// Comes when all that was told so far is written, as far as it can be; `None`: it is.
    pub fn unwritten(&self) -> Option<BoxFuture<'static, ()>> {
        match self {
            Self::File(file) => file.unwritten(),
            Self::Log => None,
        }
    }

    /// Ends the log: everything told so far is on the disk afterwards.
    pub async fn close(&self) {
        if let Self::File(file) = self {
            file.close().await;
        }
    }
}

impl Access {
    /// Whose record it was, where it names somebody: a pseudonym is then needed.
    fn whose(&self) -> Option<&RecordKey> {
        match &self.action {
            Action::Check { record, .. } | Action::LookUp { record, .. } => Some(record),
            _ => None,
        }
    }

    /// Writes it as it stands in a record; `at` is its time as a text, `buyer` the pseudonym of whoever it names. By hand, for it is
    /// done for every sale: names and ids hold nothing that JSON would write otherwise.
    fn write(&self, out: &mut Vec<u8>, at: &str, buyer: &str) {
        out.extend_from_slice(b"{\"at\":\"");
        out.extend_from_slice(at.as_bytes());
        out.extend_from_slice(b"\",\"by\":");
        escaped(out, &self.by);
        if let Some((site, terminal)) = &self.counter {
            plain(out, "site", site.as_str());
            plain(out, "terminal", terminal.as_str());
        }
        if let Action::VoidForBuyer { site, .. } = &self.action {
            plain(out, "site", site.as_str());
        }
        plain(out, "action", self.action.name());
        if let Some(programme) = self.action.programme() {
            plain(out, "programme", programme.as_str());
        }
        match &self.action {
            Action::Check { .. } | Action::LookUp { .. } => plain(out, "subject", buyer),
            Action::Counter { request, .. } | Action::VoidForBuyer { request, .. } => {
                plain(out, "subject", &request.to_string());
            }
            Action::Export { .. } => plain(out, "subject", "every record"),
            Action::Switch { version, .. } => plain(out, "subject", &version.to_string()),
        }
        if let Action::LookUp { reason, .. } | Action::VoidForBuyer { reason, .. } | Action::Switch { reason, .. } =
            &self.action
        {
            out.extend_from_slice(b",\"reason\":");
            escaped(out, reason);
        }
        plain(out, "result", self.result);
        out.push(b'}');
    }
}

impl Action {
    fn name(&self) -> &'static str {
        match self {
            Self::Check { .. } => "CHECK",
            Self::Counter { deed, .. } => deed.name(),
            Self::LookUp { .. } => "LOOK_UP",
            Self::VoidForBuyer { .. } => "VOID_FOR_BUYER",
            Self::Export { .. } => "EXPORT",
            Self::Switch { .. } => "SWITCH",
        }
    }

    fn programme(&self) -> Option<&ProgrammeId> {
        match self {
            Self::Check { programme, .. }
            | Self::Counter { programme, .. }
            | Self::LookUp { programme, .. }
            | Self::VoidForBuyer { programme, .. }
            | Self::Export { programme } => Some(programme),
            Self::Switch { .. } => None,
        }
    }
}

impl Deed {
    fn name(self) -> &'static str {
        match self {
            Self::Sell => "SELL",
            Self::Hold => "HOLD",
            Self::Confirm => "CONFIRM",
            Self::Release => "RELEASE",
            Self::Void => "VOID",
            Self::Resolve => "RESOLVE",
            Self::Enter => "ENTER",
        }
    }
}

/// A field whose value JSON writes as it is.
fn plain(out: &mut Vec<u8>, field: &str, value: &str) {
    for part in [",\"", field, "\":\"", value, "\""] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Somebody's words.
fn escaped(out: &mut Vec<u8>, words: &str) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(out, words);
}
