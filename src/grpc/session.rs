//! `SessionService`: a terminal's place in the line and its seat, held while its stream lives.
//!
//! A client that goes away drops its stream: the seat stays for the lease time and the place for the grace, so that a lost
//! connection costs nobody either. Opening and closing are one atomic step at the door and are not undone by a disconnect.

mod waiting;

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::connections::Link;
use super::convert::span;
use super::identity::{Callers, Credentials, Peer};
use super::status::{self, BadField, Fault};
use super::v1::{self, open_session_response::Event, session_service_server::SessionService};
use crate::ids::{LedgerId, SiteId, TerminalId};
use crate::session::registry::Update;
use crate::session::token::Thumbprint;
use crate::session::{Attachment, Door, DoorError, Holder, Opened, Place, Seat, Standing, token};
use crate::sites::Site;
use crate::telemetry::metrics::{Metrics, SessionOutcome};
use crate::time::Clock;
use waiting::{Shown, Waits};

/// Whoever finds the door shut should ask again after this long.
const SHUT_FOR: Duration = Duration::from_secs(30);
/// Who asks now and then has to ask no more often than this, also while the place has not been counted.
const POLLS_AT_LEAST: Duration = Duration::from_secs(2);
/// Until its first answer says otherwise, the next question of a terminal is due then.
const FIRST_POLL_DUE: Duration = Duration::from_secs(12);

/// The service over one door.
pub(super) struct SessionEdge<D, C> {
    pub(super) callers: Arc<Callers<D, C>>,
    pub(super) lease: Duration,
    /// The ledger behind this service, once it is known.
    pub(super) ledger: Arc<dyn Fn() -> Option<LedgerId> + Send + Sync>,
    /// What terminals do while nobody can be asked.
    pub(super) offline: Arc<dyn Fn() -> Vec<v1::OfflinePolicy> + Send + Sync>,
    pub(super) metrics: Arc<Metrics>,
    /// Streams of terminals that waited or paused, which ask the door at once.
    pub(super) asking_again: Semaphore,
}

/// How a session began and, if it did, how it ends. Dropped when the client has gone.
type Events = BoxStream<'static, Result<v1::OpenSessionResponse, Status>>;

/// A terminal that wants to come in.
#[derive(Clone)]
struct Entrant {
    site: Arc<Site>,
    terminal: TerminalId,
    ledger: LedgerId,
    /// Whose key tokens are bound to.
    given_to: Thumbprint,
    /// The place that it says it has, and what it was shown there.
    place: Option<(Place, Option<u64>)>,
    /// When its connection is to end.
    ending: CancellationToken,
}

#[tonic::async_trait]
impl<D: Door, C: Clock> SessionService for Arc<SessionEdge<D, C>> {
    type OpenSessionStream = Events;

    async fn open_session(&self, request: Request<v1::OpenSessionRequest>) -> Result<Response<Events>, Status> {
        let v1::OpenSessionRequest { terminal, place_token } = request.get_ref();
        let who = Credentials::of(request.metadata(), request.extensions());
        let entrant = self.entrant(who, terminal, place_token, Link::ending(request.extensions()))?;
        let Some(pause) = self.callers.registry.pause(entrant.site.id, entrant.terminal) else {
            return Ok(Response::new(self.clone().begin(entrant).await?));
        };
        let edge = self.clone();
        let later = async move {
            // A stream is under none of the limits of a call, and a switch ends all pauses at once.
            let turn = async {
                pause.over().await;
                edge.asking_again.acquire().await
            };
            let _turn = tokio::select! {
                turn = turn => turn,
                () = entrant.ending.cancelled() => return told_once(ended(v1::SessionEnd::Draining)),
            };
            edge.clone().begin(entrant).await.unwrap_or_else(|fault| stream::once(ready(Err(fault.into()))).boxed())
        };
        Ok(Response::new(stream::once(later).flatten().boxed()))
    }

    async fn poll_session(
        &self,
        request: Request<v1::PollSessionRequest>,
    ) -> Result<Response<v1::PollSessionResponse>, Status> {
        use v1::poll_session_response::Outcome;
        let v1::PollSessionRequest { terminal, place_token } = request.get_ref();
        let who = Credentials::of(request.metadata(), request.extensions());
        let entrant = self.entrant(who, terminal, place_token, CancellationToken::new())?;
        let registry = &self.callers.registry;
        if let Some((place, _)) = entrant.place {
            let update = polled(registry.update(&place));
            if update.position.is_some() && registry.still_waits(&place, update.next) {
                let mut shown = Shown::before(&entrant, &place, false);
                let waiting = self.waiting(&entrant, &place, update, &mut shown);
                return Ok(Response::new(v1::PollSessionResponse { outcome: Some(Outcome::Waiting(waiting)) }));
            }
        }
        let outcome = match self.open(&entrant, FIRST_POLL_DUE).await? {
            Opened::Granted { seat, replaced } => Outcome::Admitted(self.admitted(&entrant, &seat, replaced.is_some())),
            Opened::Waiting { place, is_new } => {
                let update = polled(registry.update(&place));
                registry.asks_again(&place, update.next);
                let mut shown = Shown::before(&entrant, &place, is_new);
                Outcome::Waiting(self.waiting(&entrant, &place, update, &mut shown))
            }
            Opened::SiteFull { holders } => Outcome::SiteFull(self.site_full(&entrant, holders)),
            Opened::Shut | Opened::OtherSwitches => Outcome::Shut(shut()),
        };
        Ok(Response::new(v1::PollSessionResponse { outcome: Some(outcome) }))
    }

    async fn renew_session(
        &self,
        request: Request<v1::RenewSessionRequest>,
    ) -> Result<Response<v1::RenewSessionResponse>, Status> {
        let token = &request.get_ref().session_token;
        if token.is_empty() {
            return Err(required("session_token", "is required: the token that OpenSession gave").into());
        }
        let seat = self.callers.read_token(*Peer::of(request.extensions()), token)?;
        match self.callers.registry.renew(seat).await.map_err(|e| self.away(&e))? {
            Standing::Live => Ok(Response::new(v1::RenewSessionResponse { lease: Some(span(self.lease)) })),
            Standing::Replaced => Err(status::session_replaced().into()),
            Standing::Lost | Standing::Capped | Standing::Shut => Err(status::session_lost().into()),
        }
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let v1::CloseSessionRequest { session_token, place_token } = request.get_ref();
        let (registry, peer) = (&self.callers.registry, *Peer::of(request.extensions()));
        let closed = match (session_token.as_str(), place_token.as_str()) {
            ("", "") => {
                return Err(required("session_token", "or place_token is required, as OpenSession gave it").into());
            }
            (session, "") => registry.close(self.callers.read_token(peer, session)?).await,
            ("", place) => registry.leave(self.callers.read_place(peer, place)?.0).await,
            _ => return Err(required("place_token", "must be left out beside session_token").into()),
        };
        Ok(Response::new(v1::CloseSessionResponse { closed: closed.map_err(|e| self.away(&e))? }))
    }
}

impl<D: Door, C: Clock> SessionEdge<D, C> {
    /// Who calls, and that everything it says of itself can be read.
    fn entrant(
        &self,
        who: Credentials<'_>,
        terminal: &str,
        place_token: &str,
        ending: CancellationToken,
    ) -> Result<Entrant, Fault> {
        let rejected = |_: &Fault| self.metrics.session_opened(SessionOutcome::Rejected);
        let terminal: TerminalId = terminal
            .parse()
            .map_err(|e| required("terminal", &format!("cannot be accepted: {e}")))
            .inspect_err(rejected)?;
        let site = self.callers.opening(who, terminal).inspect_err(rejected)?;
        let place = match place_token {
            "" => None,
            token => Some(self.callers.read_place(who.peer(), token).inspect_err(rejected)?),
        };
        // Its own place or nobody's: with the token of another one, nothing is to be had.
        if place.is_some_and(|(place, _)| place.key.site != site.id || place.terminal != terminal) {
            return Err(status::place_invalid()).inspect_err(rejected);
        }
        // Without its ledger's id a client could not tell later under which ledger its request ids mean something.
        let ledger = (self.ledger)().ok_or_else(|| {
            self.metrics.session_opened(SessionOutcome::Unavailable);
            status::ledger_away()
        })?;
        Ok(Entrant { site, terminal, ledger, given_to: who.peer().thumbprint(), place, ending })
    }

    /// Opens a session, and all that its terminal is told.
    async fn begin(self: Arc<Self>, entrant: Entrant) -> Result<Events, Fault> {
        Ok(match self.open(&entrant, Duration::ZERO).await? {
            Opened::Granted { seat, replaced } => {
                let attachment = self.callers.registry.attach(seat);
                let admitted = self.admitted(&entrant, &seat, replaced.is_some());
                let end = stream::once(self.clone().the_end(attachment, entrant.ending));
                // Boxed: the stream would keep the room of its first event for as long as the session lives.
                let first = stream::once(ready(Box::new(Event::Admitted(admitted)))).map(|first| *first);
                first.chain(end).map(told).boxed()
            }
            Opened::Waiting { place, is_new } => {
                let shown = Shown::before(&entrant, &place, is_new);
                Waits::begin(self.clone(), entrant, place, shown).events().map(told).boxed()
            }
            Opened::SiteFull { holders } => {
                stream::once(ready(Event::SiteFull(self.site_full(&entrant, holders)))).map(told).boxed()
            }
            Opened::Shut | Opened::OtherSwitches => stream::once(ready(Event::Shut(shut()))).map(told).boxed(),
        })
    }

    async fn open(&self, entrant: &Entrant, due_in: Duration) -> Result<Opened, Fault> {
        let Entrant { site, terminal, .. } = entrant;
        let opened = self.callers.registry.open(site.id, site.channel, *terminal, due_in).await;
        let opened = opened.map_err(|e| self.away(&e))?;
        self.metrics.session_opened(match &opened {
            Opened::Granted { replaced: Some(_), .. } => SessionOutcome::Replaced,
            Opened::Granted { replaced: None, .. } => SessionOutcome::Admitted,
            Opened::Waiting { .. } => SessionOutcome::Waiting,
            Opened::SiteFull { .. } => SessionOutcome::SiteFull,
            Opened::Shut | Opened::OtherSwitches => SessionOutcome::Shut,
        });
        Ok(opened)
    }

    /// Of a terminal that has waited, or should have the seat by now.
    async fn open_again(&self, entrant: &Entrant) -> Result<Opened, DoorError> {
        let opened =
            self.callers.registry.open(entrant.site.id, entrant.site.channel, entrant.terminal, Duration::ZERO).await?;
        if matches!(opened, Opened::Granted { .. }) {
            self.metrics.session_opened(SessionOutcome::Admitted);
        }
        Ok(opened)
    }

    fn admitted(&self, entrant: &Entrant, seat: &Seat, replaced_earlier: bool) -> v1::Admitted {
        v1::Admitted {
            session_token: token::mint(seat, entrant.given_to, &self.callers.door_key),
            lease: Some(span(self.lease)),
            ledger_id: entrant.ledger.to_string(),
            slot: seat.key.slot.into(),
            replaced_earlier,
            offline: (self.offline)(),
        }
    }

    /// What a waiting terminal is told; never a higher position than it was shown before in this place.
    fn waiting(&self, entrant: &Entrant, place: &Place, update: Update, shown: &mut Shown) -> v1::Waiting {
        let position = shown.next(place, update.position);
        let estimate = update.estimate.map(|e| v1::Estimate { p50: Some(span(e.p50)), p90: Some(span(e.p90)) });
        v1::Waiting {
            place_token: token::mint_place(place, position, entrant.given_to, &self.callers.door_key),
            rank: place.key.slot.into(),
            position,
            estimate,
            next_update: Some(span(update.next)),
            place_lost: shown.say_lost(),
        }
    }

    fn site_full(&self, entrant: &Entrant, holders: Vec<Holder>) -> v1::SiteFull {
        let cap = self.callers.registry.cap(entrant.site.id, entrant.site.channel);
        v1::SiteFull { cap: cap.into(), holders: holders.into_iter().map(holder).collect() }
    }

    fn away(&self, error: &DoorError) -> Fault {
        tracing::warn!(%error, "a session call could not be decided");
        status::door_away()
    }

    /// Waits for the end of a session. It is part of the stream and not a task of its own: there are as many as terminals.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps room for its arguments twice")]
    fn the_end(
        self: Arc<Self>,
        mut attachment: Attachment,
        ending: CancellationToken,
    ) -> impl Future<Output = Event> + Send {
        async move {
            let standing = tokio::select! {
                standing = attachment.ended() => Some(standing),
                () = ending.cancelled() => None,
            };
            let why = match standing {
                None => v1::SessionEnd::Draining,
                Some(Standing::Replaced) => v1::SessionEnd::Replaced,
                Some(Standing::Lost | Standing::Live) => v1::SessionEnd::Lost,
                Some(Standing::Shut) => v1::SessionEnd::Shut,
                // Boxed: the rare trip would otherwise be a part of every session.
                Some(Standing::Capped) => return Box::pin(self.capped(attachment.seat().key.site)).await,
            };
            ended(why)
        }
    }

    /// The end of a session or a wait whose site's cap was lowered: who holds the seats is told too, if the door says it.
    async fn capped(&self, site: SiteId) -> Event {
        let holders = self.callers.registry.holders(site).await.unwrap_or_default();
        let why = v1::SessionEnd::CapLowered.into();
        Event::Ended(v1::Ended { why, holders: holders.into_iter().map(holder).collect() })
    }
}

fn ended(why: v1::SessionEnd) -> Event {
    Event::Ended(v1::Ended { why: why.into(), holders: Vec::new() })
}

fn told(event: Event) -> Result<v1::OpenSessionResponse, Status> {
    Ok(v1::OpenSessionResponse { event: Some(event) })
}

fn told_once(event: Event) -> Events {
    stream::once(ready(told(event))).boxed()
}

fn required(field: &str, problem: &str) -> Fault {
    status::invalid(vec![BadField::new(field, problem)])
}

/// A question costs more than an event, so it comes no sooner than [`POLLS_AT_LEAST`].
fn polled(update: Update) -> Update {
    Update { next: update.next.max(POLLS_AT_LEAST), ..update }
}

fn shut() -> v1::Shut {
    v1::Shut { retry_after: Some(span(SHUT_FOR)) }
}

fn holder(holder: Holder) -> v1::SeatHolder {
    v1::SeatHolder {
        terminal: holder.terminal.to_string(),
        slot: holder.slot.into(),
        held_for: Some(span(holder.held_for)),
        free_after: Some(span(holder.free_after)),
        waiting: holder.waiting,
    }
}
