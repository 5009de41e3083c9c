//! `OperatorService`: for those who run the service.
//!
//! What is exported is a nation's purchases: the calls are answered to whoever shows an operator's certificate, and without
//! certificates only where the listener is on loopback.
//!
//! An export is read as it is taken: a reader that is slow, or gone, leaves the store alone.

mod accesses;
mod following;

use std::collections::VecDeque;
use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert;
pub(super) use accesses::Accesses;
use accesses::{MAX_REASON, holds_a_number};

use super::identity::{Identity, Peer};
use super::status::{self, BadField, Fault};
use super::v1::{self, operator_service_server::OperatorService};
use crate::audit::{Access, Action, Trail};
use crate::events::Events;
use crate::export::{Export, Exports, Record};
use crate::ids::ProgrammeId;
use crate::ledger::Ledger;
use crate::ledger::outbox::Outbox;
use crate::session::{Door, DoorError, Registry, Switches};
use crate::time::Clock;

/// Records in a message, at most.
const MESSAGE_RECORDS: usize = 256;
/// A message takes no further record from this size on, in bytes: clients take 4 MiB unless told otherwise.
const MESSAGE_BYTES: usize = 256 * 1024;
/// Exports under way at once, at most: each remembers whom it has met.
const EXPORTS: usize = 2;
/// Readers of events at once, at most: each keeps a round of them, 2 MiB, and looks for more four times a second.
const READERS: usize = 8;

/// The service over one ledger and one door.
pub(super) struct OperatorEdge<L, D, C> {
    exports: Exports<L>,
    events: Events<L>,
    accesses: Arc<Accesses<L, C>>,
    registry: Arc<Registry<D, C>>,
    answers: Answers,
    /// Cancelled when the instance begins to drain.
    draining: CancellationToken,
    room: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

/// Whose calls are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// Those of operators by their certificates.
    Operators,
    /// Those of whoever is on this machine.
    ThisMachine,
    /// Nobody's: there are no certificates, and anybody can call.
    Nobody,
}

impl Answers {
    /// Of a listener at this address, if it is known, with certificates or without.
    fn of(listens: Option<SocketAddr>, certificates: bool) -> Self {
        match listens {
            _ if certificates => Self::Operators,
            Some(address) if address.ip().is_loopback() => Self::ThisMachine,
            _ => Self::Nobody,
        }
    }

    /// Who calls, for the log.
    fn operator(self, peer: Peer) -> Result<Peer, Fault> {
        match (self, peer) {
            (Self::Operators, Peer::Clear) => Err(status::certificate_required()),
            (Self::Operators, _) => match peer.identity()? {
                Some(Identity::Operator(_)) => Ok(peer),
                _ => Err(status::not_an_operator()),
            },
            (Self::ThisMachine, _) => Ok(peer),
            (Self::Nobody, _) => Err(status::not_on_loopback()),
        }
    }
}

impl<L, D: Door, C: Clock> OperatorEdge<L, D, C> {
    /// `listens` is where it is served, `None` if nobody knows; `certificates` whether they tell there who calls.
    pub(super) fn new(
        exports: Exports<L>,
        events: Events<L>,
        accesses: Arc<Accesses<L, C>>,
        registry: Arc<Registry<D, C>>,
        listens: Option<SocketAddr>,
        certificates: bool,
        draining: CancellationToken,
    ) -> Self {
        let answers = Answers::of(listens, certificates);
        let [room, readers] = [EXPORTS, READERS].map(|most| Arc::new(Semaphore::new(most)));
        Self { exports, events, accesses, registry, answers, draining, room, readers }
    }

    /// Everything that is looked at before a document is put there.
    async fn checked(&self, wanted: &v1::SetSwitchesRequest) -> Result<Switches, Fault> {
        let switches = Switches::parse(&wanted.document).map_err(|bad| {
            let field = if bad.field == "document" { bad.field } else { format!("document.{}", bad.field) };
            status::invalid(vec![BadField::new(field, bad.problem)])
        })?;
        // It stands in a line of the document and of the log.
        if wanted.reason.chars().count() > MAX_REASON || wanted.reason.chars().any(char::is_control) {
            let problem = format!("must be one line of at most {MAX_REASON} characters");
            return Err(status::invalid(vec![BadField::new("reason", problem)]));
        }
        if holds_a_number(&wanted.reason) {
            let problem = "must not hold a buyer's number: it is kept, and shown to whoever looks next";
            return Err(status::invalid(vec![BadField::new("reason", problem)]));
        }
        let live = self.registry.status().await.map_err(|error| door_away(&error))?.live;
        match switches.capacity {
            Some(capacity) if capacity < live && !wanted.below_live => Err(status::capacity_below_live(capacity, live)),
            _ => Ok(switches),
        }
    }
}

fn door_away(error: &DoorError) -> Fault {
    tracing::warn!(%error, "the switches could not be read or put");
    status::door_away()
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<L: Ledger + Outbox, D: Door, C: Clock> OperatorService for OperatorEdge<L, D, C> {
    type ExportRecordsStream = Messages<v1::ExportRecordsResponse>;
    type ReadEventsStream = Messages<v1::ReadEventsResponse>;

    async fn export_records(
        &self,
        request: Request<v1::ExportRecordsRequest>,
    ) -> Result<Response<Self::ExportRecordsStream>, Status> {
        let operator = self.answers.operator(*Peer::of(request.extensions()))?;
        let programme = request.into_inner().programme;
        let unknown = |e: &dyn Display| status::invalid(vec![BadField::new("programme", format!("{e}"))]);
        let export = self.exports.begin(&programme).map_err(|e| unknown(&e))?;
        let id: ProgrammeId = programme.parse().map_err(|e| unknown(&e))?;
        let ledger = self.exports.ledger_id().ok_or_else(status::ledger_away)?;
        let room = self.room.clone().try_acquire_owned().map_err(|_| status::overloaded())?;
        let asked = self.accesses.access(operator, Action::Export { programme: id });
        self.accesses.put(asked.clone()).await?;
        tracing::info!(programme, %operator, "an export of records begins");
        let ended = Access { result: "BROKEN_OFF", ..asked };
        let sending = Sending {
            on_record: Ended { ended, trail: self.accesses.trail.clone() },
            programme,
            ledger_id: ledger.to_string(),
            export,
            waiting: VecDeque::new(),
            sent: 0,
            draining: self.draining.clone(),
            _room: room,
        };
        Ok(Response::new(Box::pin(stream::try_unfold(Some(sending), async |sending| match sending {
            Some(sending) => sending.next().await.map(Some),
            None => Ok(None),
        }))))
    }

    async fn read_events(
        &self,
        request: Request<v1::ReadEventsRequest>,
    ) -> Result<Response<Self::ReadEventsStream>, Status> {
        self.answers.operator(*Peer::of(request.extensions()))?;
        let room = self.readers.clone().try_acquire_owned().map_err(|_| status::overloaded())?;
        let draining = self.draining.clone();
        Ok(Response::new(following::begin(&self.events, request.into_inner(), draining, room).await?))
    }

    async fn look_up_buyer(
        &self,
        request: Request<v1::LookUpBuyerRequest>,
    ) -> Result<Response<v1::LookUpBuyerResponse>, Status> {
        let operator = self.answers.operator(*Peer::of(request.extensions()))?;
        Ok(Response::new(self.accesses.look_up(operator, request.get_ref()).await?))
    }

    async fn void_for_buyer(
        &self,
        request: Request<v1::VoidForBuyerRequest>,
    ) -> Result<Response<v1::VoidForBuyerResponse>, Status> {
        let operator = self.answers.operator(*Peer::of(request.extensions()))?;
        Ok(Response::new(self.accesses.void(operator, request.get_ref()).await?))
    }

    async fn get_switches(
        &self,
        request: Request<v1::GetSwitchesRequest>,
    ) -> Result<Response<v1::GetSwitchesResponse>, Status> {
        self.answers.operator(*Peer::of(request.extensions()))?;
        let status = self.registry.status().await.map_err(|error| door_away(&error))?;
        Ok(Response::new(v1::GetSwitchesResponse {
            version: status.kept.version,
            document: status.kept.document,
            live: status.live,
            capacity: status.capacity,
            waiting: u64::try_from(status.waiting).unwrap_or(u64::MAX),
            above_caps: status.above_caps,
        }))
    }

    async fn set_switches(
        &self,
        request: Request<v1::SetSwitchesRequest>,
    ) -> Result<Response<v1::SetSwitchesResponse>, Status> {
        let operator = self.answers.operator(*Peer::of(request.extensions()))?;
        let wanted = request.into_inner();
        let switches = self.checked(&wanted).await?;
        let v1::SetSwitchesRequest { version, reason, .. } = wanted;
        let asked = self.accesses.access(operator, Action::Switch { version, reason: reason.clone() });
        let by = operator.name();
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let who = format!("set at {} by {by}{why}", self.accesses.clock.now());
        let (accesses, registry) = (self.accesses.clone(), self.registry.clone());
        let work = async move {
            accesses.put(asked.clone()).await?;
            let switched = registry.switch(version, &switches, &who).await;
            let result = match &switched {
                Ok(Some(_)) => "SWITCHED",
                Ok(None) => "OTHER_VERSION",
                Err(_) => "UNCONFIRMED",
            };
            accesses.trail.tell([Access { at: accesses.clock.now(), result, ..asked }]);
            Ok::<_, Fault>(switched)
        };
        let switched = self.accesses.tasks.spawn(work).await.map_err(|_| status::broken())??;
        let Some(kept) = switched.map_err(|error| {
            tracing::warn!(%error, %operator, version, "nobody can say whether the switches were changed");
            status::switches_unconfirmed()
        })?
        else {
            return Err(status::switches_changed(self.registry.in_effect().kept.version).into());
        };
        tracing::warn!(%operator, version = kept.version, reason, document = kept.document, "the switches were changed");
        Ok(Response::new(v1::SetSwitchesResponse { version: kept.version, document: kept.document }))
    }
}

/// An export between the ledger and the wire.
struct Sending<L> {
    on_record: Ended,
    programme: String,
    ledger_id: String,
    export: Export<L>,
    /// Read and not yet sent.
    waiting: VecDeque<Record>,
    /// Records sent.
    sent: u64,
    draining: CancellationToken,
    _room: OwnedSemaphorePermit,
}

/// Puts on record how far an export came, whatever ends it.
struct Ended {
    ended: Access,
    trail: Trail,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.trail.tell([self.ended.clone()]);
    }
}

impl<L: Ledger> Sending<L> {
    /// The next message, and what comes after it; nothing comes after the last.
    async fn next(mut self) -> Result<(v1::ExportRecordsResponse, Option<Self>), Status> {
        while self.waiting.len() < MESSAGE_RECORDS && !self.export.is_whole() {
            let read = self.draining.run_until_cancelled(self.export.more()).await.ok_or_else(status::stopping)?;
            self.waiting.extend(read.map_err(|error| {
                tracing::warn!(programme = self.programme, %error, "an export of records broke off");
                status::unread(error)
            })?);
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < MESSAGE_RECORDS
            && bytes < MESSAGE_BYTES
            && let Some(record) = self.waiting.pop_front()
        {
            self.sent += 1;
            let record = convert::exported(self.sent, &record);
            bytes += record.encoded_len();
            records.push(record);
        }
        let mut message = v1::ExportRecordsResponse { ledger_id: self.ledger_id.clone(), records, complete: None };
        if !self.waiting.is_empty() || !self.export.is_whole() {
            return Ok((message, Some(self)));
        }
        let unreadable = self.export.unreadable();
        tracing::info!(programme = self.programme, records = self.sent, unreadable, "an export of records is complete");
        self.on_record.ended.result = "COMPLETE";
        message.complete = Some(v1::ExportComplete { records: self.sent, unreadable });
        Ok((message, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_certificates_only_this_machine_is_answered() {
        let answers = |address: &str, certificates| Answers::of(Some(address.parse().unwrap()), certificates);
        for address in ["127.0.0.1:7421", "[::1]:7421"] {
            assert_eq!(answers(address, false), Answers::ThisMachine, "{address}");
        }
        for address in ["0.0.0.0:7421", "[::]:7421", "10.0.0.1:7421"] {
            assert_eq!(answers(address, false), Answers::Nobody, "{address}");
        }
        assert_eq!(Answers::of(None, false), Answers::Nobody);
        assert_eq!(answers("127.0.0.1:7421", true), Answers::Operators, "not even this machine");
    }
}
