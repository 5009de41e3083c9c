//! `OperatorService`: for those who run the service.
//!
//! Nobody who calls can be identified yet, and what is exported is a nation's purchases: the calls are answered only where
//! the listener is on loopback.
//!
//! An export is read as it is taken: a reader that is slow, or gone, leaves the store alone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::convert;
use super::status::{self, BadField};
use super::v1::{self, operator_service_server::OperatorService};
use crate::export::{Export, Exports, Record};
use crate::ledger::Ledger;

/// Records in a message, at most.
const MESSAGE_RECORDS: usize = 256;
/// A message takes no further record from this size on, in bytes: clients take 4 MiB unless told otherwise.
const MESSAGE_BYTES: usize = 256 * 1024;
/// Exports under way at once, at most: each remembers whom it has met.
const EXPORTS: usize = 2;

/// The service over one ledger.
pub(super) struct OperatorEdge<L> {
    exports: Exports<L>,
    on_loopback: bool,
    /// Cancelled when the instance begins to drain.
    draining: CancellationToken,
    room: Arc<Semaphore>,
}

impl<L> OperatorEdge<L> {
    /// `listens` is where it is served; `None` if nobody knows.
    pub(super) fn new(exports: Exports<L>, listens: Option<SocketAddr>, draining: CancellationToken) -> Self {
        Self { exports, on_loopback: is_on_loopback(listens), draining, room: Arc::new(Semaphore::new(EXPORTS)) }
    }
}

/// Whether nobody on another machine reaches what listens there.
fn is_on_loopback(listens: Option<SocketAddr>) -> bool {
    listens.is_some_and(|address| address.ip().is_loopback())
}

type Messages = Pin<Box<dyn Stream<Item = Result<v1::ExportRecordsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl<L: Ledger> OperatorService for OperatorEdge<L> {
    type ExportRecordsStream = Messages;

    async fn export_records(&self, request: Request<v1::ExportRecordsRequest>) -> Result<Response<Messages>, Status> {
        if !self.on_loopback {
            return Err(status::not_on_loopback().into());
        }
        let programme = request.into_inner().programme;
        let unknown = |e| status::invalid(vec![BadField::new("programme", format!("{e}"))]);
        let export = self.exports.begin(&programme).map_err(unknown)?;
        let ledger = self.exports.ledger_id().ok_or_else(status::ledger_away)?;
        let room = self.room.clone().try_acquire_owned().map_err(|_| status::overloaded())?;
        tracing::info!(programme, "an export of records begins");
        let sending = Sending {
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
}

/// An export between the ledger and the wire.
struct Sending<L> {
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
        message.complete = Some(v1::ExportComplete { records: self.sent, unreadable });
        Ok((message, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_not_loopback() {
        let is = |address: &str| is_on_loopback(Some(address.parse().unwrap()));
        assert!(is("127.0.0.1:7421") && is("[::1]:7421"));
        assert!(!is("0.0.0.0:7421") && !is("[::]:7421") && !is("10.0.0.1:7421") && !is_on_loopback(None));
    }
}
