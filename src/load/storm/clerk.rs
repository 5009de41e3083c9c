//! A terminal of a post office whose client knows no patience: it tries again at once, then every second, for ever; and whoever
//! sits in front of it logs in again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use super::notes::{Notes, Trace};
use super::programme;
use crate::grpc::v1::open_session_response::Event;
use crate::grpc::v1::purchase_service_client::PurchaseServiceClient;
use crate::grpc::v1::session_service_client::SessionServiceClient;
use crate::grpc::v1::{self, OpenSessionResponse};
use crate::ids::{RequestId, SiteId, TerminalId};
use crate::load::chance::Chance;
use crate::load::population::People;
use crate::load::target::LoadError;
use crate::terminal::{CallError, Connection};

/// The pause after the second refusal in a row and every later one.
const AGAIN: Duration = Duration::from_secs(1);
/// What the service says to a sale that it did not look at: such a try proves nothing.
const NOT_LOOKED_AT: [&str; 2] = ["OVERLOADED", "STORE_UNAVAILABLE"];

/// The terminal with who sits in front of it.
pub(super) struct Clerk {
    notes: Arc<Notes>,
    channel: Channel,
    /// The site's place among all sites.
    site_number: usize,
    site: MetadataValue<Ascii>,
    name: TerminalId,
    /// Whether it shows the token of its place when it comes back.
    keeps_token: bool,
    /// How long it works once it is in.
    stay: (Duration, Duration),
    chance: Chance,
    place_token: String,
    trace: Trace,
    has_tried: bool,
}

impl Clerk {
    pub(super) fn new(
        notes: Arc<Notes>,
        connection: &Connection,
        (site_number, site): (usize, SiteId),
        name: TerminalId,
        keeps_token: bool,
        stay: (Duration, Duration),
        chance: Chance,
    ) -> Result<Self, LoadError> {
        let site = site.as_str().parse().map_err(|_| LoadError::Failed(format!("{site} cannot be sent")))?;
        let (channel, place_token, trace) = (connection.channel(), String::new(), Trace::new());
        Ok(Self {
            notes,
            channel,
            site_number,
            site,
            name,
            keeps_token,
            stay,
            chance,
            place_token,
            trace,
            has_tried: false,
        })
    }

    /// Logs in at these times. Each log-in ends what the one before has come to; the last goes on until the run is over.
    pub(super) async fn come(mut self, visits: Vec<Duration>, over: CancellationToken) {
        let (notes, mut visits) = (self.notes.clone(), visits.into_iter().peekable());
        while let Some(at) = visits.next() {
            tokio::select! {
                () = notes.clock().sleep_until(at) => {}
                () = over.cancelled() => return,
            }
            notes.login();
            let next = visits.peek().copied();
            let until = async {
                match next {
                    Some(next) => notes.clock().sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.insist() => {}
                () = until => {}
                () = over.cancelled() => break,
            }
        }
        notes.waited(&mut self.trace);
    }

    /// Tries until it was let in and its work is done.
    async fn insist(&mut self) {
        let mut pause = Duration::ZERO;
        while let Err(reason) = self.log_in().await {
            self.notes.refused(&reason);
            tokio::time::sleep(pause).await;
            pause = AGAIN;
        }
    }

    /// One stream. Fails if it was not let in, or lost what it had.
    async fn log_in(&mut self) -> Result<(), String> {
        // Who comes without its token is not known to have been shown anything.
        if !self.keeps_token {
            self.forget();
        }
        let mut returned = !self.place_token.is_empty();
        let place_token = self.place_token.clone();
        let message = v1::OpenSessionRequest { terminal: self.name.to_string(), place_token };
        let mut client = SessionServiceClient::new(self.channel.clone());
        let mut events = client.open_session(self.request(message)).await.map_err(reason)?.into_inner();
        let mut waits = None;
        loop {
            match next(&mut events).await? {
                Event::Waiting(waiting) => {
                    waits.get_or_insert_with(|| self.notes.waits());
                    self.notes.told(&mut self.trace, &waiting, std::mem::take(&mut returned));
                    if self.keeps_token {
                        self.place_token.clone_from(&waiting.place_token);
                    }
                    if !std::mem::replace(&mut self.has_tried, true) {
                        self.slip_in(&waiting.place_token).await;
                    }
                }
                Event::Admitted(admitted) => {
                    drop(waits.take());
                    self.forget();
                    return self.work(&admitted.session_token, events).await;
                }
                Event::SiteFull(_) => return Err("SITE_FULL".into()),
                Event::Shut(_) => return Err("SHUT".into()),
                Event::Ended(ended) => {
                    self.forget();
                    return Err(ended.why().as_str_name().to_owned());
                }
            }
        }
    }

    /// Works for a while and gives the seat back.
    async fn work(&mut self, session_token: &str, mut events: Streaming<OpenSessionResponse>) -> Result<(), String> {
        // Declared after the stream, so that it is let go before it.
        let held = self.notes.admitted(self.site_number);
        let (least, most) = self.stay;
        let stay = least + (most - least).mul_f64(self.chance.unit());
        let ended = tokio::select! {
            () = tokio::time::sleep(stay) => None,
            event = next(&mut events) => Some(event),
        };
        if let Some(event) = ended {
            let why = match event {
                Ok(Event::Ended(ended)) => ended.why().as_str_name().to_owned(),
                Ok(_) => "ANOTHER_EVENT".to_owned(),
                Err(broken) => broken,
            };
            held.ended(&why);
            return Err(why);
        }
        drop(held);
        let message = v1::CloseSessionRequest { session_token: session_token.to_owned(), place_token: String::new() };
        // The seat comes free by itself if this fails.
        let _ = SessionServiceClient::new(self.channel.clone()).close_session(self.request(message)).await;
        Ok(())
    }

    /// Tries to sell with the token of the place, which lets nobody in.
    async fn slip_in(&mut self, place_token: &str) {
        let Ok(token) = place_token.parse() else { return };
        let buyer = Some(People::new(self.chance.bits()).number(self.chance.below(1_000_000)).buyer());
        let request_id = RequestId::random().to_string();
        let visit = v1::PurchaseRequest {
            programme: programme().name.to_owned(),
            lines: vec![v1::Line { request_id, buyer, quantity: 1, ..v1::Line::default() }],
            ..v1::PurchaseRequest::default()
        };
        let mut request = self.request(visit);
        request.metadata_mut().insert("rationd-session", token);
        match PurchaseServiceClient::new(self.channel.clone()).purchase(request).await.map_err(CallError::from) {
            Ok(_) => self.notes.tried(true),
            Err(CallError::NotExecuted { reason, .. }) if !NOT_LOOKED_AT.contains(&reason.as_str()) => {
                self.notes.tried(false);
            }
            Err(_) => {}
        }
    }

    /// Whatever it was told of its place is of no use any more.
    fn forget(&mut self) {
        self.place_token.clear();
        self.notes.waited(&mut self.trace);
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("rationd-site", self.site.clone());
        request
    }
}

async fn next(events: &mut Streaming<OpenSessionResponse>) -> Result<Event, String> {
    loop {
        match events.message().await.map_err(reason)? {
            Some(OpenSessionResponse { event: Some(event) }) => return Ok(event),
            Some(OpenSessionResponse { event: None }) => {}
            None => return Err("STREAM_ENDED".into()),
        }
    }
}

fn reason(status: tonic::Status) -> String {
    match CallError::from(status) {
        CallError::NotExecuted { reason, .. } => reason,
        CallError::Unknown(why) => why,
    }
}
