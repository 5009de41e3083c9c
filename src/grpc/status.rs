//! The one place where failures become gRPC statuses. Every status carries `ErrorInfo{reason, domain}`; none is `UNKNOWN`.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::ids::LedgerId;
use crate::purchase::{Failure, LedgerError};

/// The domain of every reason.
pub(crate) const DOMAIN: &str = "rationd";

/// When to come back after the store was away: long enough for it to answer, short enough for a queue at a counter.
const RETRY_STORE: Duration = Duration::from_millis(500);
/// When to come back after load was shed.
const RETRY_LOAD: Duration = Duration::from_secs(1);

/// A field of a request that cannot be accepted, by its path in the message.
pub(crate) struct BadField {
    pub(crate) path: String,
    pub(crate) problem: String,
}

impl BadField {
    pub(crate) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

/// A status with its reason.
pub(crate) fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, details(reason))
}

fn details(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, [])
}

/// A status that says when to come back.
fn retry(code: Code, reason: &str, message: impl Into<String>, after: Duration) -> Status {
    let mut details = details(reason);
    details.set_retry_info(Some(after));
    Status::with_error_details(code, message, details)
}

/// Every bad field at once.
pub(crate) fn invalid(fields: Vec<BadField>) -> Status {
    let mut details = details("INVALID_REQUEST");
    let mut message = String::new();
    for field in fields {
        message.push_str(if message.is_empty() { "" } else { "; " });
        message.push_str(&format!("{}: {}", field.path, field.problem));
        details.add_bad_request_violation(field.path, field.problem);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// No decision could be had.
pub(crate) fn failure(failure: &Failure) -> Status {
    let (reason, message) = (failure.name(), message(failure));
    match failure {
        Failure::Ledger(LedgerError::RequestIdReused | LedgerError::RequestIdClosed) => {
            status(Code::FailedPrecondition, reason, message)
        }
        Failure::Ledger(LedgerError::BuyerRecordFull) => status(Code::ResourceExhausted, reason, message),
        Failure::Ledger(LedgerError::Overloaded) => retry(Code::ResourceExhausted, reason, message, RETRY_LOAD),
        Failure::Ledger(
            LedgerError::StoreUnavailable(_) | LedgerError::ClocksApart(_) | LedgerError::Unconfirmed(_),
        )
        | Failure::NotTried => retry(Code::Unavailable, reason, message, RETRY_STORE),
        Failure::Ledger(LedgerError::Corrupt(_)) => status(Code::Internal, reason, message),
    }
}

/// What a client is told. What the store itself said is for the log.
fn message(failure: &Failure) -> String {
    match failure {
        Failure::Ledger(LedgerError::StoreUnavailable(_)) => {
            "the store cannot decide now; nothing was recorded by this attempt; try again".into()
        }
        Failure::Ledger(LedgerError::Unconfirmed(_)) => {
            "recorded or not, nobody can say yet: repeat with the same request id, or ask GetPurchase".into()
        }
        Failure::Ledger(LedgerError::Corrupt(_)) => {
            "internal error; recorded or not, nobody can say: ask GetPurchase".into()
        }
        Failure::Ledger(decided) => decided.to_string(),
        Failure::NotTried => {
            "not tried: another line of this visit, on which this one leans, failed; settle that one first".into()
        }
    }
}

/// Whether a sale may have been recorded all the same.
pub(crate) fn outcome_unknown(failure: &Failure) -> bool {
    matches!(failure, Failure::Ledger(LedgerError::Unconfirmed(_) | LedgerError::Corrupt(_)))
}

/// The caller must say which site it is.
pub(crate) fn site_required() -> Status {
    status(Code::Unauthenticated, "SITE_REQUIRED", "name the calling site's code in the metadata rationd-site")
}

/// The site is not in the registry.
pub(crate) fn site_unknown() -> Status {
    status(Code::Unauthenticated, "SITE_UNKNOWN", "no site of this code is in the registry")
}

/// The call needs a live session.
pub(crate) fn session_required() -> Status {
    let message =
        "selling and holding need a session: OpenSession first, then its token in the metadata rationd-session";
    status(Code::FailedPrecondition, "SESSION_REQUIRED", message)
}

/// The token is not one of ours.
pub(crate) fn session_invalid() -> Status {
    status(Code::Unauthenticated, "SESSION_INVALID", "the session token was not given out by this service")
}

/// Another session took this one's place.
pub(crate) fn session_replaced() -> Status {
    status(Code::FailedPrecondition, "SESSION_REPLACED", "another session took its place; open a new one")
}

/// The session ended.
pub(crate) fn session_lost() -> Status {
    let message = "the session was closed, or its lease ran out; open a new one";
    status(Code::FailedPrecondition, "SESSION_LOST", message)
}

/// Nobody can say now whether the session lives.
pub(crate) fn session_unconfirmed() -> Status {
    let message = "the session cannot be confirmed now; nothing was recorded by this attempt; try again";
    retry(Code::Unavailable, "SESSION_UNCONFIRMED", message, RETRY_STORE)
}

/// The session store gave no answer: the session may have been opened or closed all the same. No sale hangs on it.
pub(crate) fn door_away() -> Status {
    retry(Code::Unavailable, "SESSION_UNCONFIRMED", "the session store gave no answer; try again", RETRY_STORE)
}

/// The ledger behind this service is not yet known.
pub(crate) fn ledger_away() -> Status {
    retry(Code::Unavailable, "STORE_UNAVAILABLE", "the store cannot be reached; try again", RETRY_STORE)
}

/// The client's request id belongs to another ledger.
pub(crate) fn other_ledger(ours: LedgerId) -> Status {
    let message =
        format!("this service works for the ledger {ours}; a request id means something only under its own ledger");
    status(Code::FailedPrecondition, "OTHER_LEDGER", message)
}

/// More calls are under way than the service takes at once.
pub(crate) fn overloaded() -> Status {
    retry(Code::ResourceExhausted, "OVERLOADED", "too many calls are under way; this one was not tried", RETRY_LOAD)
}

/// A task of ours broke. The call may have been recorded.
pub(crate) fn broken() -> Status {
    let message = "internal error; recorded or not, nobody can say: ask GetPurchase";
    status(Code::Internal, "INTERNAL", message)
}
