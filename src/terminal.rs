//! The client library of a counter terminal: connect, open a session, sell, and know what became of a purchase.
//!
//! A request id is made and shown to the caller before anything is sent, so that an unknown outcome can always be resolved.
//! Knows the wire, the largest message that it carries among it, and nothing of the server behind it.

mod connection;
pub mod counter;
mod gateway;
pub mod journal;
mod operator;
mod paper;
mod retry;
pub mod screen;
mod stock;
mod traced;
mod upload;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use connection::Repeats;
pub use connection::{Connection, Tls, Unreachable};
pub use gateway::Gateway;
pub use operator::{Events, Export, Operator, Unread};
pub use paper::sheet_id;
pub use prost_types::Timestamp as WireTimestamp;
pub use retry::COMES_BACK_WITHIN;
pub use stock::{Stock, Watch};
use tokio::time::{Instant, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Request, Status, Streaming};
use tonic_types::StatusExt;
use traced::traced;
pub use upload::Verdicts;

use crate::grpc::v1::{
    self, open_session_response::Event, purchase_service_client::PurchaseServiceClient,
    session_service_client::SessionServiceClient, stock_service_client::StockServiceClient,
};
use crate::ids::{SiteId, TerminalId};
use crate::time::Timestamp;

/// How long dialling may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call may take; longer than the service's own bound, so that its answer is the one that is seen.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);
/// How long the next word of a stream may be late.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often in a row the stream of a terminal that waits may break before it gives up: some minutes.
const BREAKS: u32 = 30;
/// The domain of reasons that this service gives.
const DOMAIN: &str = "rationd";
/// The reasons that mean that nothing was executed. One that a later service may add is not among them, and so leaves the
/// outcome unknown.
const NOT_EXECUTED: [&str; 40] = [
    "NOT_AN_OPERATOR",
    "NOT_ON_LOOPBACK",
    "SWITCHES_CHANGED",
    "CAPACITY_BELOW_LIVE",
    "INVALID_REQUEST",
    "MESSAGE_TOO_LARGE",
    "MESSAGE_MALFORMED",
    "METHOD_UNKNOWN",
    "OTHER_LISTENER",
    "TOO_MANY_WATCHERS",
    "COMPRESSION_UNKNOWN",
    "CERTIFICATE_REQUIRED",
    "CERTIFICATE_UNCLEAR",
    "CERTIFICATE_NOT_BELIEVED",
    "SITE_REQUIRED",
    "SITE_UNKNOWN",
    "SITE_NOT_YOURS",
    "TERMINAL_NOT_YOURS",
    "NOT_A_SITE",
    "SESSION_INVALID",
    "SESSION_NOT_YOURS",
    "PLACE_INVALID",
    "PLACE_NOT_YOURS",
    "SESSION_REQUIRED",
    "SESSION_REPLACED",
    "SESSION_LOST",
    "SESSION_UNCONFIRMED",
    "REQUEST_ID_REUSED",
    "REQUEST_ID_CLOSED",
    "OTHER_LEDGER",
    "OVERLOADED",
    "LOOK_UPS_WITHOUT_SALES",
    "LOOK_UPS_LIMITED",
    "AUDIT_UNAVAILABLE",
    "BUYER_RECORD_FULL",
    "BOOK_FULL",
    "STORE_UNAVAILABLE",
    "REPLICAS_MISSING",
    "CLOCKS_APART",
    "DEADLINE_PASSED",
];

/// An instant on the wire, to the millisecond.
pub fn instant(wire: &WireTimestamp) -> Timestamp {
    let millis = i64::from(wire.nanos / 1_000_000);
    Timestamp::from_millis(wire.seconds.saturating_mul(1_000).saturating_add(millis))
}

/// Why a call gave no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// This attempt certainly wrote nothing.
    #[error("{reason}: {message}")]
    NotExecuted {
        /// The reason in `ErrorInfo`.
        reason: String,
        /// For a person.
        message: String,
        /// When to try again; `None` where trying again does not help.
        retry_after: Option<Duration>,
    },
    /// Recorded or not, nobody can say yet: repeat with the same request id, or ask what became of it.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

impl CallError {
    /// Only a reason that is listed as not executed means that nothing was written.
    fn told(reason: &str, message: &str, retry_after: Option<Duration>) -> Self {
        if NOT_EXECUTED.contains(&reason) {
            Self::NotExecuted { reason: reason.to_owned(), message: message.to_owned(), retry_after }
        } else {
            Self::Unknown(message.to_owned())
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let ours = details.error_info().filter(|info| info.domain == DOMAIN);
        let retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        Self::told(ours.map_or("", |info| &info.reason), status.message(), retry_after)
    }
}

impl From<v1::Failure> for CallError {
    fn from(failure: v1::Failure) -> Self {
        let reason = if failure.outcome_unknown { "" } else { &failure.reason };
        Self::told(reason, &failure.message, failure.retry_after.and_then(|after| after.try_into().ok()))
    }
}

/// A terminal of one site, connected to the service.
#[derive(Clone)]
pub struct Terminal {
    channel: Channel,
    repeats: Arc<Repeats>,
    /// `None`: the one that its certificate names.
    site: Option<SiteId>,
    name: TerminalId,
}

/// What became of opening a session.
pub enum Opened {
    /// The terminal may sell.
    Admitted(Box<Session>),
    /// Others hold every slot of the site.
    SiteFull(v1::SiteFull),
    /// Operators let nobody new in at present.
    Shut(v1::Shut),
}

/// A live session. Its seat is held for as long as this is kept, and for the lease time after it is dropped.
pub struct Session {
    seat: Seat,
    /// What the service said when it let the terminal in.
    pub admitted: v1::Admitted,
    /// Further events of the session.
    pub events: Streaming<v1::OpenSessionResponse>,
}

/// What a terminal sells with while its session lives. Clones share the seat; none of them keeps it.
#[derive(Clone)]
pub struct Seat {
    terminal: Terminal,
    token: MetadataValue<Ascii>,
}

impl Terminal {
    /// Connects to `address` (`http://127.0.0.1:7420`).
    pub async fn connect(address: &str, site: SiteId, name: TerminalId) -> Result<Self, Unreachable> {
        Ok(Self::on(&Connection::open(address, None).await?, site, name))
    }

    /// On a connection that others may use too. Without a site it is that of the connection's certificate.
    pub fn on(connection: &Connection, site: impl Into<Option<SiteId>>, name: TerminalId) -> Self {
        Self { channel: connection.channel(), repeats: connection.repeats(), site: site.into(), name }
    }

    /// Makes a call, and makes it again while its outcome is unknown or the service says when to come back, for as long as
    /// `within`: with the same request ids, so that it is recorded once. All that use a connection repeat at most a tenth of
    /// the calls that they make like this in ten seconds, and one where they make fewer than ten.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use rationd::terminal::{CallError, Terminal};
    /// # use rationd::grpc::v1::{GetPurchaseRequest, GetPurchaseResponse};
    /// # async fn ask(terminal: Terminal, purchase: GetPurchaseRequest) -> Result<GetPurchaseResponse, CallError> {
    /// terminal.insist(Duration::from_secs(10), || terminal.resolve(purchase.clone())).await
    /// # }
    /// ```
    pub async fn insist<T, F>(&self, within: Duration, mut call: impl FnMut() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let give_up = Instant::now() + within;
        let mut open: Option<String> = None;
        self.repeats.call();
        for nth in 0.. {
            let answer = timeout_at(give_up, call()).await;
            let error = match answer.unwrap_or_else(|_| Err(CallError::Unknown("no answer in time".into()))) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = retry::pause(&error, nth, chance()).filter(|pause| Instant::now() + *pause < give_up);
            let Some(pause) = pause.filter(|_| self.repeats.repeat()) else { return Err(still_open(open, error)) };
            if let CallError::Unknown(why) = error {
                open.get_or_insert(why);
            }
            tokio::time::sleep(pause).await;
        }
        Err(still_open(open, CallError::Unknown("tried too often".into())))
    }

    /// Opens this terminal's session, and waits in line if it must. One that it has already is replaced.
    pub async fn open_session(&self) -> Result<Opened, CallError> {
        self.enter(|_| {}).await
    }

    /// As [`Terminal::open_session`]; `told` hears where the terminal stands while it waits. A stream that breaks while it waits
    /// is opened again with the place it had, after a while that is drawn at random, so that those who lost the same
    /// instance do not come back together.
    pub async fn enter(&self, mut told: impl FnMut(&v1::Waiting)) -> Result<Opened, CallError> {
        let (mut place, mut breaks) = (String::new(), 0);
        loop {
            let before = place.clone();
            let ended = self.stand_in_line(&mut place, &mut told).await;
            let (broke, after) = match ended {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => (CallError::Unknown("the service ended the stream of a waiting terminal".into()), None),
                // It is lost, or the token is of another key of the service: stand in line without it.
                Err(CallError::NotExecuted { reason, .. })
                    if !place.is_empty() && (reason == "PLACE_LOST" || reason == "PLACE_INVALID") =>
                {
                    place.clear();
                    continue;
                }
                Err(error @ CallError::NotExecuted { retry_after: None, .. }) => return Err(error),
                Err(error @ CallError::NotExecuted { retry_after, .. }) => (error, retry_after),
                Err(error) => (error, None),
            };
            // It was told something on this stream: those breaks were not in a row.
            breaks = if place == before { breaks + 1 } else { 1 };
            if place.is_empty() {
                // Its old connection may have gone away under it, as old ones do.
                let went_away = breaks == 1 && matches!(broke, CallError::Unknown(_));
                if went_away && self.repeats.repeat() {
                    continue;
                }
                return Err(broke);
            }
            if breaks > BREAKS {
                return Err(broke);
            }
            tokio::time::sleep(retry::comes_back_after(breaks - 1, chance()).max(after.unwrap_or_default())).await;
        }
    }

    /// One stream, until the terminal is in, or is turned away. `None`: the stream is over and the place is not.
    async fn stand_in_line(
        &self,
        place: &mut String,
        told: &mut impl FnMut(&v1::Waiting),
    ) -> Result<Option<Opened>, CallError> {
        let message = v1::OpenSessionRequest { terminal: self.name.to_string(), place_token: place.clone() };
        let mut client = SessionServiceClient::new(self.channel.clone());
        let mut events = client.open_session(self.request(message)?).await?.into_inner();
        let mut patience = PATIENCE;
        // A service that has vanished without a word says nothing for ever.
        let silence = |_| CallError::Unknown("the service is silent".into());
        while let Some(v1::OpenSessionResponse { event }) =
            tokio::time::timeout(patience, events.message()).await.map_err(silence)??
        {
            match event {
                Some(Event::Admitted(admitted)) => {
                    let token = metadata(&admitted.session_token)?;
                    let seat = Seat { terminal: self.clone(), token };
                    return Ok(Some(Opened::Admitted(Box::new(Session { seat, admitted, events }))));
                }
                Some(Event::Waiting(waiting)) => {
                    place.clone_from(&waiting.place_token);
                    let next: Option<Duration> = waiting.next_update.and_then(|next| next.try_into().ok());
                    patience = PATIENCE + next.unwrap_or_default();
                    told(&waiting);
                }
                Some(Event::SiteFull(full)) => return Ok(Some(Opened::SiteFull(full))),
                Some(Event::Shut(shut)) => return Ok(Some(Opened::Shut(shut))),
                Some(Event::Ended(ended)) if ended.why() == v1::SessionEnd::Draining => return Ok(None),
                Some(Event::Ended(ended)) => return Err(over(&ended)),
                None => {}
            }
        }
        if place.is_empty() { Err(CallError::Unknown("the session ended before it began".into())) } else { Ok(None) }
    }

    /// What a purchase would be answered. Changes nothing.
    pub async fn check(&self, visit: v1::CheckPurchaseRequest) -> Result<v1::CheckPurchaseResponse, CallError> {
        let request = self.request(visit)?;
        let call = |request| async move { self.purchases().check_purchase(request).await };
        traced("rationd.v1.PurchaseService/CheckPurchase", request, call).await
    }

    /// Gives a hold back.
    pub async fn release(&self, hold: v1::ReleaseHoldRequest) -> Result<v1::ReleaseHoldResponse, CallError> {
        let request = self.request(hold)?;
        let call = |request| async move { self.purchases().release_hold(request).await };
        traced("rationd.v1.PurchaseService/ReleaseHold", request, call).await
    }

    /// Takes a purchase back.
    pub async fn void(&self, purchase: v1::VoidPurchaseRequest) -> Result<v1::VoidPurchaseResponse, CallError> {
        let request = self.request(purchase)?;
        let call = |request| async move { self.purchases().void_purchase(request).await };
        traced("rationd.v1.PurchaseService/VoidPurchase", request, call).await
    }

    /// What became of a request id.
    pub async fn resolve(&self, purchase: v1::GetPurchaseRequest) -> Result<v1::GetPurchaseResponse, CallError> {
        let request = self.request(purchase)?;
        let call = |request| async move { self.purchases().get_purchase(request).await };
        traced("rationd.v1.PurchaseService/GetPurchase", request, call).await
    }

    /// Reports what its site has.
    pub async fn report_stock(&self, report: v1::ReportStockRequest) -> Result<v1::ReportStockResponse, CallError> {
        let request = self.request(report)?;
        let mut client = StockServiceClient::new(self.channel.clone());
        let call = |request| async move { client.report_stock(request).await };
        traced("rationd.v1.StockService/ReportStock", request, call).await
    }

    /// Whether the named service is serving ("" for the process itself).
    pub async fn is_serving(&self, service: &str) -> Result<bool, CallError> {
        use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
        let request = HealthCheckRequest { service: service.to_string() };
        match HealthClient::new(self.channel.clone()).check(request).await {
            Ok(response) => Ok(response.into_inner().status() == ServingStatus::Serving),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    fn purchases(&self) -> PurchaseServiceClient<Channel> {
        PurchaseServiceClient::new(self.channel.clone())
    }

    fn request<M>(&self, message: M) -> Result<Request<M>, CallError> {
        let mut request = Request::new(message);
        if let Some(site) = self.site {
            request.metadata_mut().insert("rationd-site", metadata(site.as_str())?);
        }
        request.metadata_mut().insert("rationd-terminal", metadata(self.name.as_str())?);
        Ok(request)
    }
}

impl Seat {
    /// Sells, and makes the call again as [`Terminal::insist`] does.
    pub async fn insist(
        &self,
        visit: v1::PurchaseRequest,
        within: Duration,
    ) -> Result<v1::PurchaseResponse, CallError> {
        self.terminal.insist(within, || self.purchase(visit.clone())).await
    }

    /// Sells.
    pub async fn purchase(&self, visit: v1::PurchaseRequest) -> Result<v1::PurchaseResponse, CallError> {
        Ok(self.send_purchase(visit).await?)
    }

    /// Sells. Like all that sends, it keeps what a failure says of whether anything was sent.
    async fn send_purchase(&self, visit: v1::PurchaseRequest) -> Result<v1::PurchaseResponse, Status> {
        let call = |request| async move { self.terminal.purchases().purchase(request).await };
        traced("rationd.v1.PurchaseService/Purchase", self.request(visit), call).await
    }

    async fn send_hold(&self, visit: v1::HoldPurchaseRequest) -> Result<v1::HoldPurchaseResponse, Status> {
        let call = |request| async move { self.terminal.purchases().hold_purchase(request).await };
        traced("rationd.v1.PurchaseService/HoldPurchase", self.request(visit), call).await
    }

    async fn send_confirm(&self, hold: v1::ConfirmHoldRequest) -> Result<v1::ConfirmHoldResponse, Status> {
        let call = |request| async move { self.terminal.purchases().confirm_hold(request).await };
        traced("rationd.v1.PurchaseService/ConfirmHold", self.request(hold), call).await
    }

    /// Gives the seat back at once.
    async fn close(&self) -> Result<bool, CallError> {
        let session_token = self.token.to_str().unwrap_or_default().to_owned();
        let request = v1::CloseSessionRequest { session_token, place_token: String::new() };
        let mut client = SessionServiceClient::new(self.terminal.channel.clone());
        Ok(client.close_session(request).await?.into_inner().closed)
    }

    /// Holds for so long.
    pub async fn hold(
        &self,
        visit: v1::PurchaseRequest,
        span: Duration,
    ) -> Result<v1::HoldPurchaseResponse, CallError> {
        Ok(self.send_hold(for_so_long(visit, span)).await?)
    }

    /// Makes a hold a sale.
    pub async fn confirm(&self, hold: v1::ConfirmHoldRequest) -> Result<v1::ConfirmHoldResponse, CallError> {
        Ok(self.send_confirm(hold).await?)
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("rationd-session", self.token.clone());
        request
    }
}

impl Session {
    /// What the terminal sells with, for as long as this session is kept.
    pub fn seat(&self) -> Seat {
        self.seat.clone()
    }

    /// Sells.
    pub async fn purchase(&self, visit: v1::PurchaseRequest) -> Result<v1::PurchaseResponse, CallError> {
        self.seat.purchase(visit).await
    }

    /// Holds for so long.
    pub async fn hold(
        &self,
        visit: v1::PurchaseRequest,
        span: Duration,
    ) -> Result<v1::HoldPurchaseResponse, CallError> {
        self.seat.hold(visit, span).await
    }

    /// Makes a hold a sale.
    pub async fn confirm(&self, hold: v1::ConfirmHoldRequest) -> Result<v1::ConfirmHoldResponse, CallError> {
        self.seat.confirm(hold).await
    }

    /// Gives the seat back at once.
    pub async fn close(self) -> Result<bool, CallError> {
        self.seat.close().await
    }
}

/// A visit that is only held, for so long.
fn for_so_long(visit: v1::PurchaseRequest, span: Duration) -> v1::HoldPurchaseRequest {
    let v1::PurchaseRequest { programme, agent, lines, family_birth_years, ledger_id } = visit;
    let hold_for = prost_types::Duration::try_from(span).ok();
    v1::HoldPurchaseRequest { programme, agent, lines, family_birth_years, hold_for, ledger_id }
}

/// The wait is over, and not because the terminal was admitted.
fn over(ended: &v1::Ended) -> CallError {
    let (reason, message) = match ended.why() {
        v1::SessionEnd::PlaceTaken => ("PLACE_TAKEN", "another terminal of the site goes on in this place"),
        v1::SessionEnd::CapLowered => ("SITE_LIMIT", "the site's cap was lowered, and others hold its seats"),
        _ => ("PLACE_LOST", "the place is no more; open a session to stand in line again"),
    };
    CallError::NotExecuted { reason: reason.into(), message: message.into(), retry_after: None }
}

/// That the last attempt wrote nothing says nothing of an earlier one whose outcome is unknown.
fn still_open(earlier: Option<String>, last: CallError) -> CallError {
    match (earlier, last) {
        (Some(why), last @ CallError::NotExecuted { .. }) => {
            CallError::Unknown(format!("{why}; and when it was repeated: {last}"))
        }
        (_, last) => last,
    }
}

/// Whether a call failed before there was a connection to send it over: then the service has nothing of it.
fn was_not_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// From 0 to 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

fn metadata(text: &str) -> Result<MetadataValue<Ascii>, CallError> {
    text.parse().map_err(|_| CallError::NotExecuted {
        reason: "INVALID_REQUEST".into(),
        message: "a name or token that cannot be sent as metadata".into(),
        retry_after: None,
    })
}
