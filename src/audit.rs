//! The hook for accesses to a buyer's record that are no business at a counter: who, when, to what, why, and what came of it.
//!
//! ```text
//! asked ──put(Asked)──> done ──put(Ended)──> answered
//!          └ not put: not done
//! ```
//!
//! Whatever is put is there for good when [`Trail::put`] returns. In this version it stands in the log ([`LogTrail`]).
//!
//! Knows nothing about who asks over which wire, and nothing about how a record is kept.

use futures_util::future::{BoxFuture, FutureExt, ready};

use crate::ids::{ProgrammeId, RequestId, SiteId};
use crate::ledger::RecordKey;
use crate::time::Timestamp;

/// Where accesses are put on record.
pub trait Trail: Send + Sync + 'static {
    /// Puts an access on record. It is there for good when this is `Ok`; otherwise it must not be made.
    fn put<'a>(&'a self, access: &'a Access) -> BoxFuture<'a, Result<(), NotOnRecord>>;
}

/// The record of accesses takes nothing now; the text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the access cannot be put on record: {0}")]
pub struct NotOnRecord(pub String);

/// One access, or what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// By the service's clock.
    pub at: Timestamp,
    /// Who, as their certificate names them.
    pub by: String,
    /// What.
    pub action: Action,
    /// Why, in their words. It holds no buyer's number.
    pub reason: String,
    /// How far it is.
    pub stage: Stage,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A buyer's record is shown. A trail must not keep the pseudonym as it is.
    LookUp {
        /// Under which programme.
        programme: ProgrammeId,
        /// Whose.
        record: RecordKey,
    },
    /// A purchase is taken back for its buyer.
    Void {
        /// Under which programme.
        programme: ProgrammeId,
        /// The site that sold.
        site: SiteId,
        /// Which one: never whose.
        request: RequestId,
    },
}

/// How far an access is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// About to be made.
    Asked,
    /// Made, with the stable name of what came of it.
    Ended(&'static str),
}

/// Puts accesses into the log. Of a look-up it tells the programme and nothing of whose record it was.
#[derive(Debug, Clone, Copy)]
pub struct LogTrail;

impl Trail for LogTrail {
    fn put<'a>(&'a self, access: &'a Access) -> BoxFuture<'a, Result<(), NotOnRecord>> {
        let Access { at, by, action, reason, stage } = access;
        let stage = match stage {
            Stage::Asked => "ASKED",
            Stage::Ended(outcome) => outcome,
        };
        match action {
            Action::LookUp { programme, record: _ } => {
                tracing::warn!(%at, by, %programme, reason, stage, "audit: a look-up of a buyer's record");
            }
            Action::Void { programme, site, request } => {
                tracing::warn!(%at, by, %programme, %site, %request, reason, stage, "audit: a void by an operator");
            }
        }
        ready(Ok(())).boxed()
    }
}
