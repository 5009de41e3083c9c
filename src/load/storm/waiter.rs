//! A terminal that stands in line, and to which everything happens meanwhile that may happen: its stream breaks, it goes on with
//! another service or from another device, its net is gone for a while. When it was in and has worked it comes again.
//!
//! Whether the place is the same as before it does not leave to the service to say: a place has a number, and that stands in
//! its token.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;

use super::guest::{Guest, Span, end, next, reason};
use super::thief::Loot;
use crate::grpc::v1::open_session_response::Event;
use crate::grpc::v1::poll_session_response::Outcome;
use crate::grpc::v1::session_service_client::SessionServiceClient;
use crate::grpc::v1::{self, RenewSessionRequest};
use crate::load::counter::RECONNECT;

/// How many of a hundred hold no stream and ask now and then.
const ASK: u64 = 15;
/// How many of a hundred only wait.
const PATIENT: u64 = 20;
/// How soon somebody is back whose stream broke.
const BACK_SOON: Span = (Duration::ZERO, Duration::from_secs(5));
/// How long after its work a terminal comes again.
const COMES_AGAIN: Span = (Duration::from_secs(1), Duration::from_secs(5));
/// How often a seat without a stream is renewed.
const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// When it is asked again after an answer that did not say.
const ASKED_AGAIN: Duration = Duration::from_secs(5);
/// One in so many questions comes later than it was due, because the net is gone.
const MISSED: u64 = 8;
/// One in so many place tokens falls into the hands of thieves.
const DROPPED: u64 = 8;
/// Where in a place's token its number stands, in bytes: after the position, the version and the thumbprint, then the length
/// and the text of the site, and the slot, as `session/token.rs` writes it.
const NUMBER_AT: usize = 8 + 1 + 16 + 1 + 2;

/// What happens to somebody who waits.
#[derive(Clone, Copy)]
enum Unrest {
    /// The stream breaks; the same service is asked again.
    Breaks,
    /// It goes on with another service.
    OtherService,
    /// It goes on from another device, while the first still waits; one that knows the place's token or does not.
    OtherDevice { with_token: bool },
    /// The net is gone.
    NoNet,
}

/// The terminal.
pub(super) struct Waiter {
    guest: Guest,
    /// A way to every service.
    ways: Arc<[Channel]>,
    /// Which of them it takes.
    way: usize,
    loot: Arc<Loot>,
    unrest: Span,
    away: Span,
    is_patient: bool,
    asks: bool,
    /// Its place as it was told last: rank and number.
    place: Option<(u32, u64)>,
    /// Whether it has missed something since.
    was_away: bool,
}

impl Waiter {
    /// The `nth` of all takes the way that is its turn.
    pub(super) fn new(
        mut guest: Guest,
        ways: Arc<[Channel]>,
        nth: usize,
        loot: Arc<Loot>,
        (unrest, away): (Span, Span),
    ) -> Self {
        let nature = guest.chance.below(100);
        let (asks, is_patient) = (nature < ASK, (ASK..ASK + PATIENT).contains(&nature));
        let way = nth % ways.len().max(1);
        Self { guest, ways, way, loot, unrest, away, is_patient, asks, place: None, was_away: false }
    }

    /// Comes at this time, and again and again.
    pub(super) async fn come(mut self, at: Duration) {
        let notes = self.guest.notes.clone();
        notes.clock().sleep_until(at).await;
        notes.login();
        loop {
            let turn = if self.asks { self.ask().await } else { self.stand().await };
            let pause = match turn {
                Ok(pause) => pause,
                // As a terminal does whose service is gone: to another one, at a moment of its own.
                Err(reason) => {
                    notes.refused(&reason);
                    self.other_way();
                    self.was_away = true;
                    RECONNECT.mul_f64(self.guest.chance.unit())
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One stream, or several without a gap between them. Says how long it stays away then.
    async fn stand(&mut self) -> Result<Duration, String> {
        let notes = self.guest.notes.clone();
        let mut returned = self.returns();
        let mut events = self.guest.open(&self.channel()?, self.guest.place_token.clone()).await?;
        let mut waits = None;
        let mut unrest = self.next_unrest();
        loop {
            let event = tokio::select! {
                event = next(&mut events) => event?,
                () = notes.clock().sleep_until(unrest.0) => {
                    match unrest.1 {
                        Unrest::Breaks => return Ok(self.guest.chance.within(BACK_SOON)),
                        Unrest::NoNet => return Ok(self.guest.chance.within(self.away)),
                        Unrest::OtherService => {
                            self.other_way();
                            return Ok(Duration::ZERO);
                        }
                        Unrest::OtherDevice { with_token } => {
                            self.other_way();
                            if !with_token {
                                // The service cannot know what the other one was shown.
                                self.guest.forget();
                            }
                            returned = self.returns();
                            // The first stream ends when the second has begun.
                            events = self.guest.open(&self.channel()?, self.guest.place_token.clone()).await?;
                            unrest = self.next_unrest();
                        }
                    }
                    continue;
                }
            };
            match event {
                Event::Waiting(waiting) => {
                    waits.get_or_insert_with(|| notes.waits());
                    self.told(&waiting, std::mem::take(&mut returned));
                }
                Event::Admitted(admitted) => {
                    drop(waits.take());
                    return self.work(&admitted.session_token, end(events)).await;
                }
                Event::SiteFull(_) => return Err("SITE_FULL".into()),
                Event::Shut(_) => return Err("SHUT".into()),
                Event::Ended(ended) => {
                    if ended.why() == v1::SessionEnd::PlaceLost {
                        notes.lost_place();
                        self.forget();
                    }
                    return Err(ended.why().as_str_name().to_owned());
                }
            }
        }
    }

    /// Asks once. Says when it asks again; every time it is another service.
    async fn ask(&mut self) -> Result<Duration, String> {
        let returned = self.was_away && self.returns();
        let polled = self.guest.poll(&self.channel()?).await?;
        self.was_away = false;
        self.other_way();
        match polled.outcome {
            Some(Outcome::Waiting(waiting)) => {
                self.told(&waiting, returned);
                let due: Option<Duration> = waiting.next_update.and_then(|next| next.try_into().ok());
                self.was_away = self.guest.chance.below(MISSED) == 0;
                let missed = if self.was_away { self.guest.chance.within(self.away) } else { Duration::ZERO };
                Ok(due.unwrap_or(ASKED_AGAIN) + missed)
            }
            Some(Outcome::Admitted(admitted)) => {
                let token = admitted.session_token;
                let end = renewed(self.channel()?, token.clone());
                self.work(&token, end).await
            }
            Some(Outcome::SiteFull(_)) => Err("SITE_FULL".into()),
            Some(Outcome::Shut(_)) => Err("SHUT".into()),
            None => Ok(ASKED_AGAIN),
        }
    }

    /// Works, gives the seat back, and says when it comes again.
    async fn work(&mut self, session_token: &str, end: impl Future<Output = String>) -> Result<Duration, String> {
        self.forget();
        self.guest.work(end).await?;
        if self.guest.close(&self.channel()?, session_token).await {
            self.loot.ended(self.guest.notes.now(), session_token);
        }
        self.guest.notes.login();
        Ok(self.guest.chance.within(COMES_AGAIN))
    }

    fn told(&mut self, waiting: &v1::Waiting, returned: bool) {
        let now = number_of(&waiting.place_token, self.guest.site_length()).map(|number| (waiting.rank, number));
        let lost = waiting.place_lost || is_lost(self.place, now);
        self.place = now;
        let guest = &mut self.guest;
        guest.notes.told(&mut guest.trace, waiting, returned, lost);
        guest.place_token.clone_from(&waiting.place_token);
        if guest.chance.below(DROPPED) == 0 {
            self.loot.place(&waiting.place_token);
        }
    }

    /// Whether it comes back to a place, which is noted.
    fn returns(&self) -> bool {
        if self.place.is_some() {
            self.guest.notes.comes_back();
        }
        self.place.is_some()
    }

    fn forget(&mut self) {
        self.place = None;
        self.guest.forget();
    }

    fn channel(&self) -> Result<Channel, String> {
        self.ways.get(self.way).cloned().ok_or_else(|| "NO_WAY".to_owned())
    }

    fn other_way(&mut self) {
        let others = self.ways.len().saturating_sub(1) as u64;
        let step = 1 + usize::try_from(self.guest.chance.below(others)).unwrap_or(0);
        self.way = (self.way + step) % self.ways.len().max(1);
    }

    /// When something happens next, and what.
    fn next_unrest(&mut self) -> (Duration, Unrest) {
        let chance = &mut self.guest.chance;
        let in_so_long = chance.within(self.unrest);
        let what = match chance.below(8) {
            0 | 1 => Unrest::Breaks,
            2 | 3 => Unrest::OtherService,
            4 => Unrest::OtherDevice { with_token: true },
            5 => Unrest::OtherDevice { with_token: false },
            _ => Unrest::NoNet,
        };
        let never = Duration::from_secs(86_400);
        (if self.is_patient { never } else { self.guest.notes.now() + in_so_long }, what)
    }
}

/// Renews a seat without a stream until the service says that it has ended.
async fn renewed(channel: Channel, session_token: String) -> String {
    loop {
        tokio::time::sleep(RENEWED_EVERY).await;
        let message = RenewSessionRequest { session_token: session_token.clone() };
        if let Err(status) = SessionServiceClient::new(channel.clone()).renew_session(message).await {
            let reason = reason(status);
            // Anything else may pass.
            if ["SESSION_LOST", "SESSION_REPLACED"].contains(&reason.as_str()) {
                return reason;
            }
        }
    }
}

/// The number of a place, from its token.
fn number_of(place_token: &str, site_length: usize) -> Option<u64> {
    let at = 2 * (NUMBER_AT + site_length);
    u64::from_str_radix(place_token.get(at..at + 16)?, 16).ok()
}

/// Whether a place is another one, and no better: the first of a site may leave its place to the second.
fn is_lost(before: Option<(u32, u64)>, now: Option<(u32, u64)>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => now.0 >= before.0 && now.1 > before.1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::token::{DoorKey, Thumbprint, mint_place};
    use crate::session::{Place, SeatKey};

    #[test]
    fn the_number_of_a_place_is_read_where_the_service_has_written_it() {
        for site in ["LOAD00042", "s"] {
            let key = SeatKey { site: site.parse().unwrap(), slot: 3 };
            let place = Place { key, terminal: "window-0".parse().unwrap(), seq: (7 << 40) + 5 };
            let token = mint_place(&place, Some(12), Thumbprint::NONE, &DoorKey::new([9; 32]));
            assert_eq!(number_of(&token, site.len()), Some((7 << 40) + 5));
        }
        assert_eq!(number_of("", 3), None);
    }

    #[test]
    fn a_greater_number_is_a_lost_place_unless_the_rank_is_a_better_one() {
        assert!(is_lost(Some((0, 7)), Some((0, 8))) && is_lost(Some((0, 7)), Some((1, 8))));
        assert!(!is_lost(Some((0, 7)), Some((0, 7))) && !is_lost(Some((1, 7)), Some((0, 9))));
        assert!(!is_lost(None, Some((0, 9))));
    }
}
