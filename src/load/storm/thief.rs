//! Thieves: who tries to come in, to sell, to renew or to close with what is no session's token of its own.
//!
//! Nobody of them has a certificate, as nobody has on loopback: there a live token is good for whoever holds it, so none of
//! those is shown. What is shown is a token with a bit changed, random bytes, the token of another site's or terminal's
//! place, the token of a place where a session's is asked for, and that of a session that has been closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::guest::{metadata, reason};
use super::notes::Notes;
use super::programme;
use crate::grpc::v1;
use crate::grpc::v1::purchase_service_client::PurchaseServiceClient;
use crate::grpc::v1::session_service_client::SessionServiceClient;
use crate::ids::{RequestId, SiteId};
use crate::load::chance::Chance;
use crate::load::population::People;
use crate::load::target::LoadError;

/// Tokens of each kind that are kept.
const KEPT: usize = 4_096;
/// A closed session may be taken for a live one by other services for two seconds; then by nobody.
const SURELY_ENDED: Duration = Duration::from_secs(5);
/// Bytes of a made-up token: about as many as a real one has.
const MADE_UP: usize = 60;
/// Tries are spread over this share of the time, so that those that no service looked at can be made again.
const IN_TIME: f64 = 0.9;
/// What a service says to whom it has looked at. Everything else proves nothing.
const REFUSED: [&str; 4] = ["SESSION_INVALID", "PLACE_INVALID", "SESSION_LOST", "SESSION_REPLACED"];

/// Tokens that were left lying about.
#[derive(Default)]
pub(super) struct Loot {
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// Of places.
    places: VecDeque<String>,
    /// Of sessions that were closed then.
    ended: VecDeque<(Duration, String)>,
}

impl Loot {
    /// The token of a place.
    pub(super) fn place(&self, token: &str) {
        keep(&mut self.found().places, token.to_owned());
    }

    /// The token of a session that was closed.
    pub(super) fn ended(&self, at: Duration, token: &str) {
        keep(&mut self.found().ended, (at, token.to_owned()));
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn any_place(&self, chance: &mut Chance) -> Option<String> {
        any(&self.found().places, chance)
    }

    fn any_ended(&self, chance: &mut Chance, now: Duration) -> Option<String> {
        any(&self.found().ended, chance).filter(|(at, _)| *at + SURELY_ENDED < now).map(|(_, token)| token)
    }
}

fn keep<T>(found: &mut VecDeque<T>, one: T) {
    if found.len() == KEPT {
        found.pop_front();
    }
    found.push_back(one);
}

fn any<T: Clone>(found: &VecDeque<T>, chance: &mut Chance) -> Option<T> {
    found.get(usize::try_from(chance.below(found.len() as u64)).ok()?).cloned()
}

/// One of them.
pub(super) struct Thief {
    notes: Arc<Notes>,
    loot: Arc<Loot>,
    channel: Channel,
    /// The sites as they are named on the wire.
    sites: Vec<MetadataValue<Ascii>>,
    chance: Chance,
}

impl Thief {
    pub(super) fn new(
        notes: Arc<Notes>,
        loot: Arc<Loot>,
        channel: Channel,
        sites: &[SiteId],
        chance: Chance,
    ) -> Result<Self, LoadError> {
        let sites = sites.iter().map(|site| metadata(*site)).collect::<Result<_, _>>()?;
        Ok(Self { notes, loot, channel, sites, chance })
    }

    /// Makes so many tries that count, spread over this time.
    pub(super) async fn steal(mut self, tries: u64, from: Duration, span: Duration) {
        let notes = self.notes.clone();
        let between = span.mul_f64(IN_TIME / tries.max(1) as f64);
        let (mut made, mut at) = (0, from);
        while made < tries {
            notes.clock().sleep_until(at).await;
            let (answer, succeeded) = self.attempt().await;
            notes.try_answered(&answer, succeeded);
            match succeeded {
                Some(_) => made += 1,
                // Whoever is not there is not asked again at once.
                None => tokio::time::sleep(between).await,
            }
            at += between;
        }
    }

    /// One try: what the service says, and whether it let the thief in; `None` if it did not look.
    async fn attempt(&mut self) -> (String, Option<bool>) {
        let mut sessions = SessionServiceClient::new(self.channel.clone());
        match self.chance.below(20) {
            0..9 => {
                let session_token = self.no_session();
                judged(sessions.renew_session(v1::RenewSessionRequest { session_token }).await)
            }
            9..13 => {
                let (terminal, place_token) = self.not_its_place();
                let message = self.of_a_site(v1::PollSessionRequest { terminal, place_token });
                judged(sessions.poll_session(message).await)
            }
            13..15 => {
                let (terminal, place_token) = self.not_its_place();
                let message = self.of_a_site(v1::OpenSessionRequest { terminal, place_token });
                judged(sessions.open_session(message).await)
            }
            15..17 => {
                // What is nobody's: whoever holds the token of a place may give it up.
                let (session_token, place_token) = if self.chance.happens(0.5) {
                    (self.forged(), String::new())
                } else {
                    (String::new(), self.forged())
                };
                judged(sessions.close_session(v1::CloseSessionRequest { session_token, place_token }).await)
            }
            _ => self.sell().await,
        }
    }

    async fn sell(&mut self) -> (String, Option<bool>) {
        let (buyer, request_id) =
            (People::new(self.chance.bits()).number(self.chance.below(1_000_000)).buyer(), RequestId::random());
        let line =
            v1::Line { request_id: request_id.to_string(), buyer: Some(buyer), quantity: 1, ..v1::Line::default() };
        let visit = v1::PurchaseRequest {
            programme: programme().name.to_owned(),
            lines: vec![line],
            ..v1::PurchaseRequest::default()
        };
        let token = self.no_session();
        let mut request = self.of_a_site(visit);
        if let Ok(token) = token.parse() {
            request.metadata_mut().insert("rationd-session", token);
        }
        judged(PurchaseServiceClient::new(self.channel.clone()).purchase(request).await)
    }

    /// What is shown where a session's token is asked for.
    fn no_session(&mut self) -> String {
        let token = match self.chance.below(5) {
            0 => self.loot.any_ended(&mut self.chance, self.notes.now()),
            1 => self.loot.any_place(&mut self.chance),
            _ => None,
        };
        token.unwrap_or_else(|| self.forged())
    }

    /// A terminal that no site has, and what it shows where the token of its place is asked for.
    fn not_its_place(&mut self) -> (String, String) {
        let copied = if self.chance.happens(0.5) { self.loot.any_place(&mut self.chance) } else { None };
        ("thief".to_owned(), copied.unwrap_or_else(|| self.forged()))
    }

    /// A token with a bit changed, or random bytes.
    fn forged(&mut self) -> String {
        let token = if self.chance.happens(0.5) {
            self.loot.any_place(&mut self.chance)
        } else {
            self.loot.any_ended(&mut self.chance, self.notes.now())
        };
        match token {
            Some(token) if self.chance.happens(0.9) => flipped(&token, &mut self.chance),
            _ => (0..MADE_UP).map(|_| format!("{:02x}", self.chance.below(256))).collect(),
        }
    }

    fn of_a_site<M>(&mut self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(site) =
            usize::try_from(self.chance.below(self.sites.len() as u64)).ok().and_then(|n| self.sites.get(n))
        {
            request.metadata_mut().insert("rationd-site", site.clone());
        }
        request
    }
}

fn judged<T>(answer: Result<Response<T>, Status>) -> (String, Option<bool>) {
    match answer {
        Ok(_) => ("ACCEPTED".to_owned(), Some(true)),
        Err(status) => {
            let reason = reason(status);
            let looked = REFUSED.contains(&reason.as_str());
            (reason, looked.then_some(false))
        }
    }
}

/// The same but for one bit.
fn flipped(token: &str, chance: &mut Chance) -> String {
    let (at, bit) = (chance.below(token.len() as u64), 1 << chance.below(4));
    let change = |digit: char| digit.to_digit(16).and_then(|value| char::from_digit(value ^ bit, 16)).unwrap_or(digit);
    (0..).zip(token.chars()).map(|(nth, digit)| if nth == at { change(digit) } else { digit }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_token_differs_in_one_digit() {
        let token = "02ffa90c".repeat(12);
        let mut chance = Chance::of(1, "thieves", 0);
        for _ in 0..200 {
            let other = flipped(&token, &mut chance);
            let differ = token.bytes().zip(other.bytes()).filter(|(one, other)| one != other).count();
            assert_eq!((differ, other.len()), (1, token.len()));
        }
    }

    #[test]
    fn only_a_session_that_ended_some_time_ago_is_of_use() {
        let (loot, mut chance) = (Loot::default(), Chance::of(1, "thieves", 0));
        loot.ended(Duration::from_secs(10), "token");
        assert_eq!(loot.any_ended(&mut chance, Duration::from_secs(12)), None);
        assert_eq!(loot.any_ended(&mut chance, Duration::from_secs(20)).as_deref(), Some("token"));
    }
}
