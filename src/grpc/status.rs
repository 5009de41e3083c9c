//! The one place that says how failures are told. A [`Fault`] becomes the status of a call by itself, with
//! `ErrorInfo{reason, domain}` and never `UNKNOWN`, or a `Failure` within an answer.

use std::borrow::Cow;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::ids::LedgerId;
use crate::purchase::{Failure, LedgerError};

/// The domain of every reason.
pub(crate) const DOMAIN: &str = "rationd";

/// Whoever may not upload yet: others have their turn first, and nobody stands at a counter for it.
const RETRY_UPLOADS: Duration = Duration::from_secs(10);
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

/// Why a call, or one line of it, has no answer.
pub(crate) struct Fault {
    pub(crate) code: Code,
    /// The reason in `ErrorInfo`.
    pub(crate) reason: &'static str,
    /// For a person.
    pub(crate) message: Cow<'static, str>,
    /// When to come back; `None` where that does not help.
    pub(crate) retry_after: Option<Duration>,
    /// The fields that cannot be accepted.
    pub(crate) fields: Vec<BadField>,
    /// Whether a sale may have been recorded all the same.
    pub(crate) outcome_unknown: bool,
}

impl Fault {
    fn retry(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    fn unknown(self) -> Self {
        Self { outcome_unknown: true, ..self }
    }

    /// The response of a call that ends before its handler.
    pub(crate) fn into_http<B: Default>(self) -> http::Response<B> {
        Status::from(self).into_http()
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let mut details = ErrorDetails::with_error_info(fault.reason, DOMAIN, []);
        if fault.retry_after.is_some() {
            details.set_retry_info(fault.retry_after);
        }
        for BadField { path, problem } in fault.fields {
            details.add_bad_request_violation(path, problem);
        }
        Self::with_error_details(fault.code, fault.message, details)
    }
}

/// A fault with its reason.
pub(crate) fn status(code: Code, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Fault {
    let message = message.into();
    Fault { code, reason, message, retry_after: None, fields: Vec::new(), outcome_unknown: false }
}

/// Every bad field at once.
pub(crate) fn invalid(fields: Vec<BadField>) -> Fault {
    let problems: Vec<_> = fields.iter().map(|field| format!("{}: {}", field.path, field.problem)).collect();
    Fault { fields, ..status(Code::InvalidArgument, "INVALID_REQUEST", problems.join("; ")) }
}

/// No decision could be had.
pub(crate) fn failure(failure: &Failure) -> Fault {
    let told = |code| status(code, failure.name(), message(failure));
    match failure {
        Failure::Ledger(LedgerError::RequestIdReused | LedgerError::RequestIdClosed) => told(Code::FailedPrecondition),
        Failure::Ledger(LedgerError::BuyerRecordFull) => told(Code::ResourceExhausted),
        Failure::Ledger(LedgerError::Overloaded) => told(Code::ResourceExhausted).retry(RETRY_LOAD),
        Failure::Ledger(
            LedgerError::StoreUnavailable(_)
            | LedgerError::OtherRing(_)
            | LedgerError::ReplicasMissing
            | LedgerError::ClocksApart(_),
        )
        | Failure::NotTried => told(Code::Unavailable).retry(RETRY_STORE),
        Failure::Ledger(LedgerError::Unconfirmed(_)) => told(Code::Unavailable).retry(RETRY_STORE).unknown(),
        Failure::Ledger(LedgerError::Corrupt(_)) => told(Code::Internal).unknown(),
    }
}

/// What a client is told. What the store itself said is for the log.
fn message(failure: &Failure) -> Cow<'static, str> {
    match failure {
        Failure::Ledger(LedgerError::StoreUnavailable(_) | LedgerError::OtherRing(_)) => {
            "the store cannot decide now; nothing was recorded by this attempt; try again".into()
        }
        Failure::Ledger(LedgerError::Unconfirmed(_)) => {
            "recorded or not, nobody can say yet: repeat with the same request id, or ask GetPurchase".into()
        }
        Failure::Ledger(LedgerError::Corrupt(_)) => {
            "internal error; recorded or not, nobody can say: ask GetPurchase".into()
        }
        Failure::Ledger(decided) => decided.to_string().into(),
        Failure::NotTried => {
            "not tried: another line of this visit, on which this one leans, failed; settle that one first".into()
        }
    }
}

/// Only a certificate says who calls here.
pub(crate) fn certificate_required() -> Fault {
    let message = "show a certificate of this service's authority: only it says who is calling";
    status(Code::Unauthenticated, "CERTIFICATE_REQUIRED", message)
}

/// The certificate is good and says nothing that is clear.
pub(crate) fn certificate_unclear() -> Fault {
    let message = "the certificate must carry exactly one URI name of rationd://site/CODE, rationd://site/CODE/TERMINAL, \
                   rationd://gateway/NAME, rationd://operator/NAME or rationd://feed/NAME";
    status(Code::Unauthenticated, "CERTIFICATE_UNCLEAR", message)
}

/// The certificate of this connection was good once.
pub(crate) fn certificate_disbelieved() -> Fault {
    let message = "the certificate of this connection has expired, was revoked, or is of an authority that is not believed any \
                   more; nothing was executed";
    status(Code::Unauthenticated, "CERTIFICATE_NOT_BELIEVED", message)
}

/// The caller must say which site it is.
pub(crate) fn site_required() -> Fault {
    status(Code::Unauthenticated, "SITE_REQUIRED", "name the calling site's code in the metadata rationd-site")
}

/// The caller's certificate is not that of this site, nor of the gateway that the registry names for it.
pub(crate) fn site_not_yours() -> Fault {
    let message = "this certificate may not act for that site: a site acts for itself, a gateway for the sites whose line in the \
                   registry names it";
    status(Code::PermissionDenied, "SITE_NOT_YOURS", message)
}

/// The caller's certificate names another terminal.
pub(crate) fn terminal_not_yours() -> Fault {
    let message = "this certificate is that of another terminal of the site, and acts for that one alone";
    status(Code::PermissionDenied, "TERMINAL_NOT_YOURS", message)
}

/// Somebody else asked for what sites do.
pub(crate) fn not_a_site() -> Fault {
    let message =
        "this certificate is not that of a site or a gateway; only they check, sell, open sessions and report stock";
    status(Code::PermissionDenied, "NOT_A_SITE", message)
}

/// Somebody else asked for what operators do.
pub(crate) fn not_an_operator() -> Fault {
    status(Code::PermissionDenied, "NOT_AN_OPERATOR", "this certificate is not an operator's (rationd://operator/NAME)")
}

/// The site is not in the registry.
pub(crate) fn site_unknown() -> Fault {
    status(Code::Unauthenticated, "SITE_UNKNOWN", "no site of this code is in the registry")
}

/// The call needs a live session.
pub(crate) fn session_required() -> Fault {
    let message = "selling and holding need a session: OpenSession first, then its token in the metadata rationd-session, or \
                   on a stream in the request's session_token";
    status(Code::FailedPrecondition, "SESSION_REQUIRED", message)
}

/// The token is not one of ours.
pub(crate) fn session_invalid() -> Fault {
    status(Code::Unauthenticated, "SESSION_INVALID", "the session token was not given out by this service")
}

/// The token is one of ours and was given to somebody else.
pub(crate) fn session_not_yours() -> Fault {
    let message = "the session token was given to the holder of another key; open a session over this connection";
    status(Code::PermissionDenied, "SESSION_NOT_YOURS", message)
}

/// The token is one of ours and was given to somebody else.
pub(crate) fn place_not_yours() -> Fault {
    let message = "the place token was given to the holder of another key; leave it out to stand in the line";
    status(Code::PermissionDenied, "PLACE_NOT_YOURS", message)
}

/// The token is not one of ours, or not this terminal's.
pub(crate) fn place_invalid() -> Fault {
    let message =
        "the place token was not given out by this service to this terminal; leave it out to stand in the line";
    status(Code::Unauthenticated, "PLACE_INVALID", message)
}

/// Another session took this one's place.
pub(crate) fn session_replaced() -> Fault {
    status(Code::FailedPrecondition, "SESSION_REPLACED", "another session took its place; open a new one")
}

/// The session ended.
pub(crate) fn session_lost() -> Fault {
    let message = "the session was closed, or its lease ran out; open a new one";
    status(Code::FailedPrecondition, "SESSION_LOST", message)
}

/// Nobody can say now whether the session lives.
pub(crate) fn session_unconfirmed() -> Fault {
    let message = "the session cannot be confirmed now; nothing was recorded by this attempt; try again";
    status(Code::Unavailable, "SESSION_UNCONFIRMED", message).retry(RETRY_STORE)
}

/// The session store gave no answer: the session may have been opened or closed all the same. No sale hangs on it.
pub(crate) fn door_away() -> Fault {
    status(Code::Unavailable, "SESSION_UNCONFIRMED", "the session store gave no answer; try again").retry(RETRY_STORE)
}

/// The session store gave no answer to a change of the switches. It is not one of the reasons that mean that nothing was done.
pub(crate) fn switches_unconfirmed() -> Fault {
    let message = "the session store gave no answer: changed or not, nobody can say; read the switches";
    status(Code::Unavailable, "SWITCHES_UNCONFIRMED", message).retry(RETRY_STORE)
}

/// Somebody else has put another document there.
pub(crate) fn switches_changed(version: u64) -> Fault {
    let message = format!("the switches have version {version} by now; read them, and decide again");
    status(Code::FailedPrecondition, "SWITCHES_CHANGED", message)
}

/// It would let nobody in until sessions have ended.
pub(crate) fn capacity_below_live(capacity: u32, live: u32) -> Fault {
    let message = format!(
        "{live} sessions are live: a capacity of {capacity} ends none of them and lets nobody in until there are fewer; \
         say below_live to have it so"
    );
    status(Code::FailedPrecondition, "CAPACITY_BELOW_LIVE", message)
}

/// The ledger behind this service is not yet known.
pub(crate) fn ledger_away() -> Fault {
    status(Code::Unavailable, "STORE_UNAVAILABLE", "the store cannot be reached; try again").retry(RETRY_STORE)
}

/// Records could not be read.
pub(crate) fn unread(error: LedgerError) -> Fault {
    let again = "what has been sent is not the whole; begin the export again";
    match error {
        LedgerError::StoreUnavailable(_) | LedgerError::OtherRing(_) | LedgerError::Unconfirmed(_) => {
            let message = format!("the records cannot be read now; {again}");
            status(Code::Unavailable, "STORE_UNAVAILABLE", message).retry(RETRY_STORE)
        }
        LedgerError::Corrupt(_) => {
            status(Code::Internal, "INTERNAL", format!("the store's answer cannot be read; {again}"))
        }
        other => failure(&Failure::Ledger(other)),
    }
}

/// A cursor means nothing in another ledger.
pub(crate) fn cursor_of_another_ledger(ours: LedgerId) -> Fault {
    let message = format!("this service works for the ledger {ours}, and the cursor is of another: begin without it");
    status(Code::FailedPrecondition, "OTHER_LEDGER", message)
}

/// The outbox keeps so much and no more.
pub(crate) fn events_gone() -> Fault {
    let message = "too old: events after the cursor are kept no more; begin without it, and hold what was made of them to be \
                   unverified until it has been counted anew";
    status(Code::FailedPrecondition, "EVENTS_GONE", message)
}

/// Events could not be read.
pub(crate) fn events_unread(error: LedgerError) -> Fault {
    match error {
        LedgerError::StoreUnavailable(_) | LedgerError::OtherRing(_) | LedgerError::Unconfirmed(_) => {
            let message = "events cannot be read now; go on later from the cursor that was given last";
            status(Code::Unavailable, "STORE_UNAVAILABLE", message).retry(RETRY_STORE)
        }
        LedgerError::Corrupt(_) => status(
            Code::Internal,
            "INTERNAL",
            "the store holds an event that cannot be read, see the service's log; what is new can be read from behind it",
        ),
        other => failure(&Failure::Ledger(other)),
    }
}

/// The instance is being stopped.
pub(crate) fn stopped_reading() -> Fault {
    let message = "this instance is being stopped; go on at another one from the cursor that was given last";
    status(Code::Unavailable, "STOPPING", message).retry(RETRY_LOAD)
}

/// Whoever calls cannot be identified, and may be anybody.
pub(crate) fn not_on_loopback() -> Fault {
    let message = "the admin listener is not on loopback and has no certificates to tell who calls: set [tls] and call with an \
                   operator's certificate, or put admin.listen on loopback";
    status(Code::PermissionDenied, "NOT_ON_LOOPBACK", message)
}

/// Whoever calls cannot be identified, and may be anybody.
pub(crate) fn feed_not_on_loopback() -> Fault {
    let message = "the feed's listener is not on loopback and has no certificates to tell who calls: set [tls], put feed.listen on \
                   loopback, or read the public pages";
    status(Code::PermissionDenied, "NOT_ON_LOOPBACK", message)
}

/// The call is one of this service, and is answered on another listener.
pub(crate) fn other_listener(setting: &str) -> Fault {
    let message = format!("this call is answered on another listener of the service, that of its setting {setting}");
    status(Code::Unimplemented, "OTHER_LISTENER", message)
}

/// The shelf did not say that a report stands.
pub(crate) fn report_not_taken(error: LedgerError) -> Fault {
    let again = "recorded or not, nobody can say yet: send the same report again with the same request id";
    match error {
        LedgerError::RequestIdReused => report_reused(),
        LedgerError::StoreUnavailable(_) | LedgerError::OtherRing(_) => {
            let message = "the report cannot be recorded now, and was not by this attempt; send it again";
            status(Code::Unavailable, "STORE_UNAVAILABLE", message).retry(RETRY_STORE)
        }
        LedgerError::Unconfirmed(_) => {
            status(Code::Unavailable, "COMMIT_UNCONFIRMED", again).retry(RETRY_STORE).unknown()
        }
        LedgerError::Corrupt(_) => status(Code::Internal, "INTERNAL", format!("internal error; {again}")).unknown(),
        other => failure(&Failure::Ledger(other)),
    }
}

/// A late sale was not taken, or nobody knows.
pub(crate) fn sale_not_taken(error: LedgerError) -> Fault {
    let again = "recorded or not, nobody can say yet: send the same sale again with the same request id";
    match error {
        LedgerError::StoreUnavailable(_) | LedgerError::OtherRing(_) => {
            let message = "the sale cannot be taken now, and was not by this attempt; send it again later";
            status(Code::Unavailable, "STORE_UNAVAILABLE", message).retry(RETRY_STORE)
        }
        LedgerError::Unconfirmed(_) => {
            status(Code::Unavailable, "COMMIT_UNCONFIRMED", again).retry(RETRY_STORE).unknown()
        }
        LedgerError::Corrupt(_) => status(Code::Internal, "INTERNAL", format!("internal error; {again}")).unknown(),
        other => failure(&Failure::Ledger(other)),
    }
}

/// The book of a site holds so much and no more.
pub(crate) fn book_full() -> Fault {
    let message =
        "the site's book of late sales is full; nothing was recorded; keep the sale and tell whoever runs the service";
    status(Code::ResourceExhausted, "BOOK_FULL", message)
}

/// The book of a site could not be read.
pub(crate) fn book_unread(error: LedgerError) -> Fault {
    match error {
        LedgerError::StoreUnavailable(_) | LedgerError::OtherRing(_) | LedgerError::Unconfirmed(_) => {
            status(Code::Unavailable, "STORE_UNAVAILABLE", "the site's book cannot be read now").retry(RETRY_STORE)
        }
        LedgerError::Corrupt(_) => {
            status(Code::Internal, "INTERNAL", "a row of the site's book cannot be read, see the service's log")
        }
        other => failure(&Failure::Ledger(other)),
    }
}

/// As many upload as may.
pub(crate) fn too_many_uploads() -> Fault {
    let message = "as many journals are being uploaded as may be at once; send them later";
    status(Code::ResourceExhausted, "OVERLOADED", message).retry(RETRY_UPLOADS)
}

/// The report's id is taken.
pub(crate) fn report_reused() -> Fault {
    let message =
        "this request id was used before for another report of this site; nothing was changed; make a new one";
    status(Code::FailedPrecondition, "REQUEST_ID_REUSED", message)
}

/// As many watch as may.
pub(crate) fn too_many_watchers() -> Fault {
    let message = "as many watch the stock here as may; try again, or at another instance";
    status(Code::ResourceExhausted, "TOO_MANY_WATCHERS", message).retry(RETRY_LOAD)
}

/// The connection of a watcher comes to its end.
pub(crate) fn stopped_watching() -> Fault {
    let message = "this connection comes to its end; go on over another one from the resume token that was given last";
    status(Code::Unavailable, "STOPPING", message).retry(RETRY_LOAD)
}

/// The path leads nowhere.
pub(crate) fn method_unknown() -> Fault {
    status(Code::Unimplemented, "METHOD_UNKNOWN", "no such method; reflection lists what there is")
}

/// gRPC is not spoken over this version of HTTP.
pub(crate) fn not_http_2() -> Fault {
    status(Code::Unimplemented, "HTTP2_REQUIRED", "calls are answered over HTTP/2 only")
}

/// The instance is being stopped.
pub(crate) fn stopping() -> Fault {
    let message = "this instance is being stopped; what has been sent is not the whole; begin the export again";
    status(Code::Unavailable, "STOPPING", message).retry(RETRY_LOAD)
}

/// The client's request id belongs to another ledger.
pub(crate) fn other_ledger(ours: LedgerId) -> Fault {
    let message =
        format!("this service works for the ledger {ours}; a request id means something only under its own ledger");
    status(Code::FailedPrecondition, "OTHER_LEDGER", message)
}

/// More calls are under way than the service takes at once.
pub(crate) fn overloaded() -> Fault {
    status(Code::ResourceExhausted, "OVERLOADED", "too many calls are under way; this one was not tried")
        .retry(RETRY_LOAD)
}

/// The site looks people up to whom it does not sell.
pub(crate) fn looks_up_too_many(retry_after: Duration) -> Fault {
    let message = "this site has looked up many people to whom it does not sell; wait, or sell: sales are not held up";
    status(Code::ResourceExhausted, "LOOK_UPS_WITHOUT_SALES", message).retry(retry_after)
}

/// The operator looks into too many records.
pub(crate) fn looks_too_often(retry_after: Duration) -> Fault {
    let message = "you have looked into many buyers' records; nothing was shown or changed; wait";
    status(Code::ResourceExhausted, "LOOK_UPS_LIMITED", message).retry(retry_after)
}

/// What cannot be put on record is not done.
pub(crate) fn not_on_record() -> Fault {
    let message = "the access cannot be put on record now, so nothing was shown or changed; try again";
    status(Code::Unavailable, "AUDIT_UNAVAILABLE", message).retry(RETRY_STORE)
}

/// The caller's deadline had passed when the call came.
pub(crate) fn too_late() -> Fault {
    status(Code::DeadlineExceeded, "DEADLINE_PASSED", "the call's deadline had passed when it came; it was not tried")
}

/// The call's headers came, and its message did not.
pub(crate) fn message_missing() -> Fault {
    status(Code::DeadlineExceeded, "DEADLINE_PASSED", "the call's message did not come in time; it was not tried")
}

/// The call's time was up before its work was done.
pub(crate) fn time_up() -> Fault {
    let message = "the time for the call was up; recorded or not, nobody can say: ask GetPurchase";
    status(Code::DeadlineExceeded, "TIME_UP", message).unknown()
}

/// A task of ours broke. The call may have been recorded.
pub(crate) fn broken() -> Fault {
    let message = "internal error; recorded or not, nobody can say: ask GetPurchase";
    status(Code::Internal, "INTERNAL", message).unknown()
}

/// A message of a stream cannot be read. Neither it nor anything after it was looked at.
pub(crate) fn unreadable(why: &Status) -> Fault {
    match why.code() {
        Code::OutOfRange => status(Code::InvalidArgument, "MESSAGE_TOO_LARGE", why.message().to_owned()),
        _ => status(
            Code::InvalidArgument,
            "MESSAGE_MALFORMED",
            "a message of the stream cannot be read; this one and those after it were not looked at",
        ),
    }
}

/// gRPC's name of a code.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
