//! A terminal at the door, as the harness plays it: what it says of itself, what it remembers of its place, and its work when it
//! is in.

use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::notes::{Notes, Trace};
use crate::grpc::v1::open_session_response::Event;
use crate::grpc::v1::session_service_client::SessionServiceClient;
use crate::grpc::v1::{self, OpenSessionResponse};
use crate::ids::{SiteId, TerminalId};
use crate::load::chance::Chance;
use crate::load::target::LoadError;
use crate::terminal::CallError;

/// How long one works that is let in, or whatever else takes at least and at most so long.
pub(super) type Span = (Duration, Duration);

/// The terminal.
pub(super) struct Guest {
    pub(super) notes: Arc<Notes>,
    /// The site's place among all sites.
    site_number: usize,
    site: MetadataValue<Ascii>,
    name: TerminalId,
    /// How long it works once it is in.
    stay: Span,
    pub(super) chance: Chance,
    pub(super) place_token: String,
    pub(super) trace: Trace,
}

impl Guest {
    pub(super) fn new(
        notes: Arc<Notes>,
        (site_number, site): (usize, SiteId),
        name: TerminalId,
        stay: Span,
        chance: Chance,
    ) -> Result<Self, LoadError> {
        let (place_token, trace) = (String::new(), Trace::new());
        Ok(Self { notes, site_number, site: metadata(site)?, name, stay, chance, place_token, trace })
    }

    /// Of the site's code, bytes.
    pub(super) fn site_length(&self) -> usize {
        self.site.as_encoded_bytes().len()
    }

    /// Opens a stream, and shows this place token unless it is empty.
    pub(super) async fn open(
        &self,
        channel: &Channel,
        place_token: String,
    ) -> Result<Streaming<OpenSessionResponse>, String> {
        let message = v1::OpenSessionRequest { terminal: self.name.to_string(), place_token };
        let opened = SessionServiceClient::new(channel.clone()).open_session(self.request(message)).await;
        Ok(opened.map_err(reason)?.into_inner())
    }

    /// Asks how it stands, without a stream.
    pub(super) async fn poll(&self, channel: &Channel) -> Result<v1::PollSessionResponse, String> {
        let message = v1::PollSessionRequest { terminal: self.name.to_string(), place_token: self.place_token.clone() };
        let polled = SessionServiceClient::new(channel.clone()).poll_session(self.request(message)).await;
        Ok(polled.map_err(reason)?.into_inner())
    }

    /// Works for a while. `end` is what tells that the service has ended the session; then it is told why.
    pub(super) async fn work(&mut self, end: impl Future<Output = String>) -> Result<(), String> {
        // Pinned before the seat is noted, so that the seat is let go before its stream.
        let end = std::pin::pin!(end);
        let held = self.notes.admitted(self.site_number);
        let stay = self.chance.within(self.stay);
        tokio::select! {
            () = tokio::time::sleep(stay) => Ok(()),
            why = end => {
                held.ended(&why);
                Err(why)
            }
        }
    }

    /// Gives the seat back, and says whether the service has answered. The seat comes free by itself if not.
    pub(super) async fn close(&self, channel: &Channel, session_token: &str) -> bool {
        let message = v1::CloseSessionRequest { session_token: session_token.to_owned(), place_token: String::new() };
        SessionServiceClient::new(channel.clone()).close_session(self.request(message)).await.is_ok()
    }

    /// Whatever it was told of its place is of no use any more.
    pub(super) fn forget(&mut self) {
        self.place_token.clear();
        self.notes.waited(&mut self.trace);
    }

    pub(super) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("rationd-site", self.site.clone());
        request
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.notes.waited(&mut self.trace);
    }
}

/// A site's code as it travels.
pub(super) fn metadata(site: SiteId) -> Result<MetadataValue<Ascii>, LoadError> {
    site.as_str().parse().map_err(|_| LoadError::Failed(format!("{site} cannot be sent")))
}

/// The next event of a stream, or why there is none.
pub(super) async fn next(events: &mut Streaming<OpenSessionResponse>) -> Result<Event, String> {
    loop {
        match events.message().await.map_err(reason)? {
            Some(OpenSessionResponse { event: Some(event) }) => return Ok(event),
            Some(OpenSessionResponse { event: None }) => {}
            None => return Err("STREAM_ENDED".into()),
        }
    }
}

/// Waits for the end of a session: the first event after the admission is the last one.
pub(super) async fn end(mut events: Streaming<OpenSessionResponse>) -> String {
    match next(&mut events).await {
        Ok(Event::Ended(ended)) => ended.why().as_str_name().to_owned(),
        Ok(_) => "ANOTHER_EVENT".to_owned(),
        Err(broken) => broken,
    }
}

pub(super) fn reason(status: tonic::Status) -> String {
    match CallError::from(status) {
        CallError::NotExecuted { reason, .. } => reason,
        CallError::Unknown(why) => why,
    }
}
