//! `SessionService`: a terminal's seat, held while its stream lives.
//!
//! A client that goes away drops its stream: the seat stays for the lease time, so that a lost connection costs nobody a
//! place. Opening and closing are one atomic step at the door and are not undone by a disconnect.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert::span;
use super::identity::{Callers, Credentials, Peer};
use super::status::{self, BadField, Fault};
use super::v1::{self, open_session_response::Event, session_service_server::SessionService};
use crate::ids::{Channel, LedgerId, SiteId, TerminalId};
use crate::session::{Attachment, Door, DoorError, Holder, Opened, Standing, token};
use crate::telemetry::metrics::{Metrics, SessionOutcome};
use crate::time::Clock;

/// The most live sessions of a site of this channel.
pub type Cap = Arc<dyn Fn(SiteId, Channel) -> u16 + Send + Sync>;

/// The service over one door.
pub(super) struct SessionEdge<D, C> {
    pub(super) callers: Arc<Callers<D, C>>,
    pub(super) cap: Cap,
    pub(super) lease: Duration,
    /// The ledger behind this service, once it is known.
    pub(super) ledger: Arc<dyn Fn() -> Option<LedgerId> + Send + Sync>,
    /// Cancelled when the instance begins to drain.
    pub(super) draining: CancellationToken,
    pub(super) metrics: Arc<Metrics>,
}

/// How a session began and, if it did, how it ends. Dropped when the client has gone.
type Events = BoxStream<'static, Result<v1::OpenSessionResponse, Status>>;

#[tonic::async_trait]
impl<D: Door, C: Clock> SessionService for SessionEdge<D, C> {
    type OpenSessionStream = Events;

    async fn open_session(&self, request: Request<v1::OpenSessionRequest>) -> Result<Response<Events>, Status> {
        let who = Credentials::of(request.metadata(), request.extensions());
        let terminal: TerminalId = request.get_ref().terminal.parse().map_err(|e| {
            self.metrics.session_opened(SessionOutcome::Rejected);
            status::invalid(vec![BadField::new("terminal", format!("cannot be accepted: {e}"))])
        })?;
        let site = self.callers.opening(who, terminal).inspect_err(|_| {
            self.metrics.session_opened(SessionOutcome::Rejected);
        })?;
        // Without its ledger's id a client could not tell later under which ledger its request ids mean something.
        let ledger = (self.ledger)().ok_or_else(|| {
            self.metrics.session_opened(SessionOutcome::Unavailable);
            status::ledger_away()
        })?;
        let cap = (self.cap)(site.id, site.channel);
        let opened = self.callers.registry.open(site.id, terminal, cap).await.map_err(|e| self.away(&e))?;
        let events = match opened {
            Opened::Granted { seat, replaced } => {
                self.metrics.session_opened(match replaced {
                    Some(_) => SessionOutcome::Replaced,
                    None => SessionOutcome::Admitted,
                });
                let attachment = self.callers.registry.attach(seat);
                let admitted = v1::Admitted {
                    session_token: token::mint(&seat, who.peer().thumbprint(), &self.callers.door_key),
                    lease: Some(span(self.lease)),
                    ledger_id: ledger.to_string(),
                    slot: seat.key.slot.into(),
                    replaced_earlier: replaced.is_some(),
                };
                let end = stream::once(the_end(attachment, self.draining.clone()));
                stream::once(ready(Event::Admitted(admitted))).chain(end).map(told).boxed()
            }
            Opened::SiteFull { holders } => {
                self.metrics.session_opened(SessionOutcome::SiteFull);
                let holders = holders.into_iter().map(holder).collect();
                stream::once(ready(Event::SiteFull(v1::SiteFull { cap: cap.into(), holders }))).map(told).boxed()
            }
        };
        Ok(Response::new(events))
    }

    async fn renew_session(
        &self,
        request: Request<v1::RenewSessionRequest>,
    ) -> Result<Response<v1::RenewSessionResponse>, Status> {
        let peer = *Peer::of(request.extensions());
        let seat = self.callers.read_token(peer, required_token(&request.get_ref().session_token)?)?;
        match self.callers.registry.renew(seat).await.map_err(|e| self.away(&e))? {
            Standing::Live => Ok(Response::new(v1::RenewSessionResponse { lease: Some(span(self.lease)) })),
            Standing::Replaced => Err(status::session_replaced().into()),
            Standing::Lost => Err(status::session_lost().into()),
        }
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let peer = *Peer::of(request.extensions());
        let seat = self.callers.read_token(peer, required_token(&request.get_ref().session_token)?)?;
        let closed = self.callers.registry.close(seat).await.map_err(|e| self.away(&e))?;
        Ok(Response::new(v1::CloseSessionResponse { closed }))
    }
}

impl<D, C> SessionEdge<D, C> {
    fn away(&self, error: &DoorError) -> Fault {
        tracing::warn!(%error, "a session call could not be decided");
        status::door_away()
    }
}

/// Waits for the end of a session. It is part of the stream and not a task of its own: there are as many as terminals.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps room for its arguments twice")]
fn the_end(mut attachment: Attachment, draining: CancellationToken) -> impl Future<Output = Event> + Send {
    async move {
        let why = tokio::select! {
            standing = attachment.ended() => match standing {
                Standing::Replaced => v1::SessionEnd::Replaced,
                Standing::Lost | Standing::Live => v1::SessionEnd::Lost,
            },
            () = draining.cancelled() => v1::SessionEnd::Draining,
        };
        Event::Ended(v1::Ended { why: why.into() })
    }
}

fn told(event: Event) -> Result<v1::OpenSessionResponse, Status> {
    Ok(v1::OpenSessionResponse { event: Some(event) })
}

fn required_token(token: &str) -> Result<&str, Fault> {
    let missing =
        || status::invalid(vec![BadField::new("session_token", "is required: the token that OpenSession gave")]);
    if token.is_empty() { Err(missing()) } else { Ok(token) }
}

fn holder(holder: Holder) -> v1::SeatHolder {
    v1::SeatHolder {
        terminal: holder.terminal.to_string(),
        slot: holder.slot.into(),
        held_for: Some(span(holder.held_for)),
        free_after: Some(span(holder.free_after)),
    }
}
