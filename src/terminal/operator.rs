//! The client of those who run the service, for the admin listener.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::{CallError, Connection, DOMAIN, Unreachable};
use crate::grpc::v1::{self, operator_service_client::OperatorServiceClient};

/// The largest message that is taken: a single record is never split, whatever its size.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// How long any one message of an export may take, however long all of them take: the service reads on while it sends. For the
/// beginning of its answer the connection has a limit of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked whether the switches are in effect.
const IN_EFFECT_ASKED_EVERY: Duration = Duration::from_millis(200);

/// Every record of a programme.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// The ledger that it comes from.
    pub ledger_id: String,
    /// The records, in no order.
    pub records: Vec<v1::ExportedRecord>,
    /// Records that the service could not read; they are not in it.
    pub unreadable: u64,
}

/// Why what was asked for was not read, or not to its end. A part of an export is never given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The service said why, at the beginning or in the middle.
    #[error("{reason}: {message}")]
    Told {
        /// The reason in `ErrorInfo`.
        reason: String,
        /// For a person.
        message: String,
        /// When to try again; `None` where trying again does not help.
        retry_after: Option<Duration>,
    },
    /// The stream ended without saying that it was the whole, stood still, or contradicts itself.
    #[error("it is not whole: {0}")]
    NotWhole(String),
}

impl From<Status> for Unread {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        match details.error_info().filter(|info| info.domain == DOMAIN) {
            Some(info) => Self::Told {
                reason: info.reason.clone(),
                message: status.message().to_string(),
                retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            },
            // Not our word: a connection that broke, or another program that listens there.
            None => Self::NotWhole(format!("{:?}: {}", status.code(), status.message())),
        }
    }
}

/// Somebody who runs the service, connected to its admin listener.
#[derive(Clone)]
pub struct Operator {
    channel: Channel,
}

impl Operator {
    /// Connects to `address` (`http://127.0.0.1:7421`).
    pub async fn connect(address: &str) -> Result<Self, Unreachable> {
        Ok(Self::on(&Connection::open(address, None).await?))
    }

    /// On a connection to the admin listener.
    pub fn on(connection: &Connection) -> Self {
        Self { channel: connection.channel() }
    }

    /// The switches of the door, and how it stands.
    pub async fn switches(&self) -> Result<v1::GetSwitchesResponse, CallError> {
        let mut client = OperatorServiceClient::new(self.channel.clone());
        Ok(client.get_switches(v1::GetSwitchesRequest {}).await?.into_inner())
    }

    /// Puts another document of switches in the place of the one of this version.
    pub async fn set_switches(&self, wanted: v1::SetSwitchesRequest) -> Result<v1::SetSwitchesResponse, CallError> {
        let mut client = OperatorServiceClient::new(self.channel.clone());
        Ok(client.set_switches(wanted).await?.into_inner())
    }

    /// What is recorded for a buyer.
    pub async fn look_up(&self, whose: v1::LookUpBuyerRequest) -> Result<v1::LookUpBuyerResponse, CallError> {
        let mut client = OperatorServiceClient::new(self.channel.clone());
        Ok(client.look_up_buyer(whose).await?.into_inner())
    }

    /// Takes a purchase back for a buyer.
    pub async fn void(&self, purchase: v1::VoidForBuyerRequest) -> Result<v1::VoidForBuyerResponse, CallError> {
        let mut client = OperatorServiceClient::new(self.channel.clone());
        Ok(client.void_for_buyer(purchase).await?.into_inner())
    }

    /// Waits until no site has more sessions and places than its cap, as far as `patience` goes; says whether that is so.
    pub async fn within_caps(&self, patience: Duration) -> Result<bool, CallError> {
        let asking = async {
            while self.switches().await?.above_caps > 0 {
                tokio::time::sleep(IN_EFFECT_ASKED_EVERY).await;
            }
            Ok(true)
        };
        tokio::time::timeout(patience, asking).await.unwrap_or(Ok(false))
    }

    /// What happened to purchases, from where is asked for.
    pub async fn events(&self, from: v1::ReadEventsRequest) -> Result<Events, Unread> {
        let mut client = OperatorServiceClient::new(self.channel.clone());
        Ok(Events(client.read_events(from).await?.into_inner()))
    }

    /// Every record of a programme. It is the whole, or an error, one also if nothing comes for 30 seconds.
    pub async fn export(&self, programme: &str) -> Result<Export, Unread> {
        let mut client = OperatorServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = v1::ExportRecordsRequest { programme: programme.to_string() };
        let mut messages = client.export_records(request).await?.into_inner();
        let (mut records, mut ledger_id) = (Vec::new(), None);
        while let Some(message) = within_patience(messages.message()).await? {
            if *ledger_id.get_or_insert_with(|| message.ledger_id.clone()) != message.ledger_id {
                return Err(Unread::NotWhole("it comes from two ledgers".into()));
            }
            records.extend(message.records);
            if let Some(complete) = message.complete {
                let (found, said) = (records.len(), complete.records);
                if u64::try_from(found) != Ok(said) {
                    return Err(Unread::NotWhole(format!("{said} records were said to come and {found} came")));
                }
                return Ok(Export { ledger_id: message.ledger_id, records, unreadable: complete.unreadable });
            }
        }
        Err(Unread::NotWhole(format!("it ended after {} records", records.len())))
    }
}

/// Events as they come.
pub struct Events(Streaming<v1::ReadEventsResponse>);

impl Events {
    /// The next of them; `None`: there are no more.
    pub async fn next(&mut self) -> Result<Option<v1::ReadEventsResponse>, Unread> {
        Ok(self.0.message().await?)
    }
}

/// What the service says next. One that stands still keeps nobody for ever.
pub(super) async fn within_patience<T>(next: impl Future<Output = Result<T, Status>>) -> Result<T, Unread> {
    match tokio::time::timeout(PATIENCE, next).await {
        Ok(next) => Ok(next?),
        Err(_) => Err(Unread::NotWhole(format!(
            "nothing came for {} s; look whether the service stands still",
            PATIENCE.as_secs()
        ))),
    }
}
