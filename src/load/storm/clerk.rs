//! A terminal of a post office whose client knows no patience: it tries again at once, then every second, for ever; and whoever
//! sits in front of it logs in again and again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::guest::{Guest, end, next};
use super::programme;
use crate::grpc::v1;
use crate::grpc::v1::open_session_response::Event;
use crate::grpc::v1::purchase_service_client::PurchaseServiceClient;
use crate::ids::RequestId;
use crate::load::population::People;
use crate::terminal::{CallError, Connection};

/// The pause after the second refusal in a row and every later one.
const AGAIN: Duration = Duration::from_secs(1);
/// What the service says to a sale that it did not look at: such a try proves nothing.
const NOT_LOOKED_AT: [&str; 2] = ["OVERLOADED", "STORE_UNAVAILABLE"];

/// The terminal with who sits in front of it.
pub(super) struct Clerk {
    guest: Guest,
    channel: Channel,
    /// Whether it shows the token of its place when it comes back.
    keeps_token: bool,
    has_tried: bool,
}

impl Clerk {
    pub(super) fn new(guest: Guest, connection: &Connection, keeps_token: bool) -> Self {
        Self { guest, channel: connection.channel(), keeps_token, has_tried: false }
    }

    /// Logs in at these times. Each log-in ends what the one before has come to; the last goes on until the run is over.
    pub(super) async fn come(mut self, visits: Vec<Duration>, over: CancellationToken) {
        let (notes, mut visits) = (self.guest.notes.clone(), visits.into_iter().peekable());
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
                () = over.cancelled() => return,
            }
        }
    }

    /// Tries until it was let in and its work is done.
    async fn insist(&mut self) {
        let mut pause = Duration::ZERO;
        while let Err(reason) = self.log_in().await {
            self.guest.notes.refused(&reason);
            tokio::time::sleep(pause).await;
            pause = AGAIN;
        }
    }

    /// One stream. Fails if it was not let in, or lost what it had.
    async fn log_in(&mut self) -> Result<(), String> {
        // Who comes without its token is not known to have been shown anything.
        if !self.keeps_token {
            self.guest.forget();
        }
        let mut returned = !self.guest.place_token.is_empty();
        let mut events = self.guest.open(&self.channel, self.guest.place_token.clone()).await?;
        let mut waits = None;
        loop {
            match next(&mut events).await? {
                Event::Waiting(waiting) => {
                    waits.get_or_insert_with(|| self.guest.notes.waits());
                    let (returned, lost) = (std::mem::take(&mut returned), waiting.place_lost);
                    self.guest.notes.told(&mut self.guest.trace, &waiting, returned, lost);
                    if self.keeps_token {
                        self.guest.place_token.clone_from(&waiting.place_token);
                    }
                    if !std::mem::replace(&mut self.has_tried, true) {
                        self.slip_in(&waiting.place_token).await;
                    }
                }
                Event::Admitted(admitted) => {
                    drop(waits.take());
                    self.guest.forget();
                    self.guest.work(end(events)).await?;
                    self.guest.close(&self.channel, &admitted.session_token).await;
                    return Ok(());
                }
                Event::SiteFull(_) => return Err("SITE_FULL".into()),
                Event::Shut(_) => return Err("SHUT".into()),
                Event::Ended(ended) => {
                    self.guest.forget();
                    return Err(ended.why().as_str_name().to_owned());
                }
            }
        }
    }

    /// Tries to sell with the token of the place, which lets nobody in.
    async fn slip_in(&mut self, place_token: &str) {
        let Ok(token) = place_token.parse() else { return };
        let chance = &mut self.guest.chance;
        let buyer = Some(People::new(chance.bits()).number(chance.below(1_000_000)).buyer());
        let request_id = RequestId::random().to_string();
        let visit = v1::PurchaseRequest {
            programme: programme().name.to_owned(),
            lines: vec![v1::Line { request_id, buyer, quantity: 1, ..v1::Line::default() }],
            ..v1::PurchaseRequest::default()
        };
        let mut request = self.guest.request(visit);
        request.metadata_mut().insert("rationd-session", token);
        let notes = &self.guest.notes;
        match PurchaseServiceClient::new(self.channel.clone()).purchase(request).await.map_err(CallError::from) {
            Ok(_) => notes.tried(true),
            Err(CallError::NotExecuted { reason, .. }) if !NOT_LOOKED_AT.contains(&reason.as_str()) => {
                notes.tried(false);
            }
            Err(_) => {}
        }
    }
}
