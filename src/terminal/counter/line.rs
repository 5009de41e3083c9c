//! The task that keeps a counter's line to the service: it comes in, waits in line if it must, and comes back when it was cut off.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::shared::{NOBODY_TO_ASK, Shared};
use super::{Line, Shown, wire};
use crate::grpc::v1::{self, SessionEnd, open_session_response::Event};
use crate::terminal::connection::Unreached;
use crate::terminal::journal::{Fact, NotWritten};
use crate::terminal::retry::comes_back_after;
use crate::terminal::{CallError, Connection, Opened, Session, chance};

/// How soon it comes back whose seat is gone and whose service is there.
const LOGS_IN_AGAIN: Duration = Duration::from_secs(1);
/// How long a terminal stays away for which its site has no room.
const NO_ROOM: Duration = Duration::from_secs(5);
/// How long a terminal stays away whose name another one has taken: two of one name would put each other out for ever.
const REPLACED: Duration = Duration::from_secs(60);
/// How often is looked whether another attempt has been paid for.
const PAID_YET: Duration = Duration::from_secs(1);

/// How a session ended, for the terminal.
enum Ended {
    /// The stream did; the seat is kept for the lease time, and sells.
    Stream,
    /// The seat is gone.
    Seat,
    /// Another terminal of this name has it.
    Replaced,
    /// Somebody who wanted to sell got no answer.
    Silent,
}

/// Goes on for as long as the counter is open.
pub(super) async fn keep(shared: Arc<Shared>) {
    let (mut place, mut failed) = (String::new(), Failed::default());
    shared.terminal.repeats.call();
    loop {
        let pause = come_in(&shared, &mut place, &mut failed).await;
        sleep(pause).await;
        // Whatever calls, sells or is dialled: together they are no storm.
        while !shared.terminal.repeats.repeat() {
            sleep(PAID_YET.mul_f64(1.0 + chance())).await;
        }
    }
}

/// How the attempts came out since the last one that did not fail.
#[derive(Default)]
struct Failed {
    /// So many did.
    count: u32,
    /// Because the service does not accept the certificate, as far as is known.
    certificate: Option<String>,
    /// It hung up after the handshake when that was looked into last. Who does so twice does not accept the certificate.
    hung_up: bool,
}

impl Failed {
    /// Whether the next attempt dials anew and looks why it fails: over TLS a service that does not accept a certificate hangs up on a
    /// call as if it were away. The second attempt does, and then each fourth.
    fn looks_why(&self) -> bool {
        self.count % 4 == 1 || (self.hung_up && self.certificate.is_none())
    }

    /// Nobody answers: how the line stands, and how long to stay away.
    fn stays_away(&mut self, shared: &Shared, why: String) -> Duration {
        let line = self.certificate.clone().map_or(Line::Away, Line::TurnedAway);
        shared.has_no_seat(line, Some(why));
        self.once_more()
    }

    fn once_more(&mut self) -> Duration {
        let pause = comes_back_after(self.count, chance());
        self.count = self.count.saturating_add(1);
        pause
    }
}

/// One attempt, and the session that comes of it. Gives how long to stay away.
async fn come_in(shared: &Arc<Shared>, place: &mut String, failed: &mut Failed) -> Duration {
    let mut told = |waiting: &v1::Waiting| shared.show(Line::waiting(waiting), None);
    let asked_after = |after: Option<Duration>| after.unwrap_or_default().mul_f64(1.0 + chance());
    if let Some(tls) = &shared.tls
        && failed.looks_why()
    {
        match Connection::open(&shared.address, Some(tls)).await {
            Ok(_) => (failed.certificate, failed.hung_up) = (None, false),
            Err(unreachable) => {
                let why = unreachable.to_string();
                let hung_up = std::mem::replace(&mut failed.hung_up, unreachable.what == Unreached::HungUp);
                // Who is not believed here may be anybody in between: then the service cannot be asked.
                let is_refused = unreachable.what == Unreached::NotAccepted || (hung_up && failed.hung_up);
                failed.certificate = is_refused.then(|| why.clone());
                return failed.stays_away(shared, why);
            }
        }
    }
    let answer = shared.terminal.stand_in_line(place, &mut told).await;
    if !matches!(answer, Err(CallError::Unknown(_))) {
        (failed.certificate, failed.hung_up) = (None, false);
    }
    match answer {
        Ok(Some(Opened::Admitted(session))) => {
            place.clear();
            *failed = Failed::default();
            match sell_until_it_ends(shared, *session).await {
                Ended::Seat => LOGS_IN_AGAIN.mul_f64(chance()),
                Ended::Replaced => {
                    let why = "another terminal has come in under this name: two windows need two names";
                    shared.has_no_seat(Line::TurnedAway(why.into()), None);
                    REPLACED.mul_f64(1.0 + chance())
                }
                Ended::Stream | Ended::Silent => comes_back_after(0, chance()),
            }
        }
        Ok(Some(Opened::SiteFull(v1::SiteFull { cap, holders }))) => {
            let holders = holders.into_iter().map(|holder| holder.terminal).collect();
            shared.has_no_seat(Line::SiteFull { cap, holders }, None);
            NO_ROOM.mul_f64(1.0 + chance())
        }
        Ok(Some(Opened::Shut(shut))) => {
            shared.has_no_seat(Line::Shut, None);
            asked_after(shut.retry_after.and_then(|after| after.try_into().ok())).max(NO_ROOM)
        }
        Ok(None) => comes_back_after(0, chance()),
        Err(CallError::NotExecuted { reason, .. }) if reason == "PLACE_LOST" || reason == "PLACE_INVALID" => {
            place.clear();
            LOGS_IN_AGAIN.mul_f64(chance())
        }
        Err(CallError::Unknown(why)) => failed.stays_away(shared, CallError::Unknown(why).to_string()),
        Err(error @ CallError::NotExecuted { .. }) => {
            let why = error.to_string();
            let (line, after) = match error {
                CallError::NotExecuted { reason, retry_after, .. } if NOBODY_TO_ASK.contains(&&*reason) => {
                    (Line::Away, retry_after)
                }
                CallError::NotExecuted { retry_after: Some(after), .. } => (Line::Busy, Some(after)),
                _ => (Line::TurnedAway(why.clone()), None),
            };
            shared.has_no_seat(line, Some(why));
            failed.once_more().max(asked_after(after))
        }
    }
}

/// Lets the counter sell for as long as the session lives.
async fn sell_until_it_ends(shared: &Arc<Shared>, mut session: Session) -> Ended {
    let Ok(ledger) = session.admitted.ledger_id.parse() else {
        shared.has_no_seat(Line::TurnedAway("the service does not say which ledger it has".into()), None);
        return Ended::Seat;
    };
    let when_away = wire::when_away(&session.admitted.offline);
    let written = shared.write::<_, NotWritten>(move |state| {
        let is_new = !state.was_told(ledger, &when_away);
        Ok((is_new.then_some(Fact::Told { ledger, when_away }).into_iter().collect(), ()))
    });
    // Under a ledger that the journal does not know nothing could be asked about afterwards.
    if let Err(error) = written.await {
        shared.has_no_seat(Line::TurnedAway(error.to_string()), None);
        return Ended::Silent;
    }
    let mut shown = shared.shown.subscribe();
    let number = shared.has_seat(session.seat(), ledger, session.admitted.slot);
    loop {
        tokio::select! {
            event = session.events.message() => match event.map(|told| told.and_then(|told| told.event)) {
                Ok(Some(Event::Ended(ended))) if ended.why() == SessionEnd::Replaced => return Ended::Replaced,
                Ok(Some(Event::Ended(ended))) if ended.why() != SessionEnd::Draining => {
                    shared.lost(number, Line::Connecting, ended.why().as_str_name());
                    return Ended::Seat;
                }
                Ok(Some(Event::Ended(_)) | None) | Err(_) => return Ended::Stream,
                Ok(Some(_)) => {}
            },
            ended = no_longer_sells(&mut shown) => return ended,
        }
    }
}

/// Waits until somebody who wanted to sell could not; says for want of what.
async fn no_longer_sells(shown: &mut watch::Receiver<Shown>) -> Ended {
    let Ok(shown) = shown.wait_for(|shown| !matches!(shown.line, Line::Selling { .. })).await else {
        return Ended::Silent;
    };
    match (&shown.line, shown.why.as_deref()) {
        // A sale may hear of it before the session does.
        (Line::Connecting, Some("SESSION_REPLACED")) => Ended::Replaced,
        (Line::Connecting, _) => Ended::Seat,
        _ => Ended::Silent,
    }
}
