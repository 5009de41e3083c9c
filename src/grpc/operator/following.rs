//! `ReadEvents`: what happened, as fast as it is taken. A reader that is slow, or gone, leaves the store alone.

use std::time::Duration;

use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::super::convert;
use super::super::status::{self, BadField, Fault};
use super::super::v1::{self, read_events_request};
use super::Messages;
use crate::events::{Cursor, Events, From, Reading, Unreadable};
use crate::ledger::{Ledger, outbox::Outbox};

/// Events in a message, at most.
const MESSAGE_EVENTS: usize = 256;
/// How often whoever has caught up looks for more.
const LOOKS_EVERY: Duration = Duration::from_millis(250);

/// A reading between the outbox and the wire.
struct Following<L> {
    reading: Reading<L>,
    follow: bool,
    /// Where the reader knows that it stands; `None`: it was not told yet.
    told: Option<Cursor>,
    draining: CancellationToken,
    _room: OwnedSemaphorePermit,
}

/// The messages of a reading, once it has begun.
pub(super) async fn begin<L: Ledger + Outbox>(
    events: &Events<L>,
    wanted: v1::ReadEventsRequest,
    draining: CancellationToken,
    room: OwnedSemaphorePermit,
) -> Result<Messages<v1::ReadEventsResponse>, Fault> {
    let is_new = matches!(wanted.from, Some(read_events_request::From::New(_)));
    let from = match wanted.from {
        None => From::Oldest,
        Some(read_events_request::From::New(_)) => From::Newest,
        Some(read_events_request::From::Cursor(bytes)) => From::Cursor(bytes),
    };
    let reading = events.begin(from, &wanted.programme).await.map_err(unreadable)?;
    // Whoever begins behind the newest event does not know where that is.
    let told = (!is_new).then(|| reading.cursor().clone());
    let following = Following { reading, follow: wanted.follow, told, draining, _room: room };
    Ok(Box::pin(stream::try_unfold(following, Following::next)))
}

impl<L: Outbox> Following<L> {
    /// The next message; `None` when there are no more events, and nobody waits for others.
    async fn next(mut self) -> Result<Option<(v1::ReadEventsResponse, Self)>, Status> {
        if self.told.is_none() {
            return Ok(Some((self.message(&[]), self)));
        }
        loop {
            if self.reading.has_more() {
                // Also without events: who waits for those of one programme gets ahead, too.
                let taken = self.reading.take(MESSAGE_EVENTS);
                return Ok(Some((self.message(&taken), self)));
            }
            let draining = self.draining.clone();
            let read = draining.run_until_cancelled(self.reading.more()).await.ok_or_else(status::stopped_reading)?;
            let read = read.map_err(unreadable)?;
            // Also where nothing stands was learnt: who keeps the cursor would miss in silence what comes and goes there.
            if read == 0 && self.told.as_ref() != Some(self.reading.cursor()) {
                return Ok(Some((self.message(&[]), self)));
            }
            if read == 0 && !self.follow {
                return Ok(None);
            }
            if read == 0 {
                let pause = tokio::time::sleep(LOOKS_EVERY);
                draining.run_until_cancelled(pause).await.ok_or_else(status::stopped_reading)?;
            }
        }
    }

    fn message(&mut self, taken: &[crate::events::Told]) -> v1::ReadEventsResponse {
        let cursor = self.told.insert(self.reading.cursor().clone());
        v1::ReadEventsResponse {
            ledger_id: cursor.ledger.to_string(),
            events: taken.iter().map(|told| convert::event(told, self.reading.programme(told.programme))).collect(),
            cursor: cursor.to_bytes(),
        }
    }
}

fn unreadable(why: Unreadable) -> Fault {
    match why {
        Unreadable::UnknownProgramme(why) => status::invalid(vec![BadField::new("programme", why)]),
        Unreadable::NoCursor(why) => status::invalid(vec![BadField::new("cursor", why.to_string())]),
        Unreadable::OtherLedger(ours) => status::cursor_of_another_ledger(ours),
        Unreadable::Gone => status::events_gone(),
        Unreadable::Ledger(error) => {
            tracing::warn!(%error, "events could not be read");
            status::events_unread(error)
        }
    }
}
