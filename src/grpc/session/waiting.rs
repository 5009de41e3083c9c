//! The stream of a terminal that waits: where it stands, again and again, until it is admitted, and then the session's end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;

use super::{Entrant, SessionEdge, ended, shut};
use crate::grpc::v1::{self, open_session_response::Event};
use crate::museum::Mutant;
use crate::session::registry::{Wait, Waiter};
use crate::session::{Attachment, Door, LeftWhy, Opened, Place};
use crate::time::Clock;

/// How soon a door that gave no answer is asked again: drawn at random, because thousands ask.
fn again() -> Duration {
    Duration::from_millis(1_000 + u64::from(getrandom::u32().unwrap_or(0)) % 4_000)
}

/// What a terminal was shown of its place.
pub(super) struct Shown {
    /// In which place, and the position there.
    last: Option<(Place, u64)>,
    /// Whether it has to be told that its place was lost.
    lost: bool,
}

impl Shown {
    /// By what its token says. A token of another place than it has now is of a lost one, unless the terminal has moved up.
    pub(super) fn before(entrant: &Entrant, place: &Place, is_new: bool) -> Self {
        let last = entrant.place.and_then(|(place, shown)| Some((place, shown?)));
        Self { last, lost: entrant.place.is_some_and(|(before, _)| is_lost(&before, place, is_new)) }
    }

    /// The position to be shown: never higher than before in the same place.
    pub(super) fn next(&mut self, place: &Place, position: Option<u64>) -> Option<u64> {
        let before = self.last.filter(|(last, _)| last == place).map(|(_, position)| position);
        let next = match (before, position) {
            (Some(before), Some(now)) => Some(if Mutant::PositionAsCounted.is_on() { now } else { before.min(now) }),
            (before, now) => now.or(before),
        };
        self.last = next.map(|next| (*place, next)).or(self.last);
        next
    }

    pub(super) fn say_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }
}

/// Whether a place is another one, and no better.
fn is_lost(before: &Place, now: &Place, is_new: bool) -> bool {
    let is_worse = now.key.slot >= before.key.slot && now.seq > before.seq;
    before != now && (is_new || is_worse)
}

/// A terminal that waits.
pub(super) struct Waits<D, C> {
    edge: Arc<SessionEdge<D, C>>,
    entrant: Entrant,
    place: Place,
    shown: Shown,
    waiter: Waiter,
    /// When it is told again; nothing before it was told once.
    next: Duration,
}

/// Where the stream stands.
enum Stage<D, C> {
    Waits(Box<Waits<D, C>>),
    Lives(Arc<SessionEdge<D, C>>, Attachment, CancellationToken),
    Over,
}

impl<D: Door, C: Clock> Waits<D, C> {
    pub(super) fn begin(edge: Arc<SessionEdge<D, C>>, entrant: Entrant, place: Place, shown: Shown) -> Self {
        let waiter = edge.callers.registry.wait(place);
        Self { edge, entrant, place, shown, waiter, next: Duration::ZERO }
    }

    /// Everything that the terminal is told.
    pub(super) fn events(self) -> impl Stream<Item = Event> + Send {
        stream::unfold(Stage::Waits(Box::new(self)), |stage| async {
            match stage {
                Stage::Waits(waits) => Some(waits.step().await),
                Stage::Lives(edge, attachment, ending) => Some((edge.the_end(attachment, ending).await, Stage::Over)),
                Stage::Over => None,
            }
        })
    }

    /// The next event, and what comes after it.
    async fn step(mut self: Box<Self>) -> (Event, Stage<D, C>) {
        let wait = tokio::select! {
            wait = self.waiter.changed() => wait,
            () = tokio::time::sleep(self.next) => self.waiter.now(),
            () = self.entrant.ending.cancelled() => return (ended(v1::SessionEnd::Draining), Stage::Over),
        };
        match wait {
            Wait::Waits(place) => self.stands(place),
            // Opened once more, it has the seat under a fence of its own: should the terminal wait with another stream elsewhere, one
            // of the two replaces the other.
            Wait::Admitted(_) | Wait::AskAgain => self.ask_again().await,
            Wait::Gone(LeftWhy::CapLowered) => (self.edge.capped(self.place.key.site).await, Stage::Over),
            Wait::Gone(_) => (ended(v1::SessionEnd::PlaceLost), Stage::Over),
            Wait::Replaced => (ended(v1::SessionEnd::PlaceTaken), Stage::Over),
        }
    }

    fn stands(mut self: Box<Self>, place: Place) -> (Event, Stage<D, C>) {
        self.place = place;
        let update = self.edge.callers.registry.update(&place);
        self.next = update.next;
        let waiting = self.edge.waiting(&self.entrant, &place, update, &mut self.shown);
        (Event::Waiting(waiting), Stage::Waits(self))
    }

    async fn ask_again(mut self: Box<Self>) -> (Event, Stage<D, C>) {
        let opened = loop {
            // As many at once as do not keep the door's other calls from their connections.
            let asking = async {
                let _turn = self.edge.asking_again.acquire().await;
                self.edge.open_again(&self.entrant).await
            };
            let opened = tokio::select! {
                opened = asking => opened,
                () = self.entrant.ending.cancelled() => return (ended(v1::SessionEnd::Draining), Stage::Over),
            };
            match opened {
                Ok(opened) => break opened,
                Err(_) => tokio::time::sleep(again()).await,
            }
        };
        match opened {
            Opened::Granted { seat, .. } => {
                let event = Event::Admitted(self.edge.admitted(&self.entrant, &seat, false));
                let attachment = self.edge.callers.registry.attach(seat);
                (event, Stage::Lives(self.edge, attachment, self.entrant.ending))
            }
            Opened::Waiting { place, is_new } => {
                self.shown.lost |= is_lost(&self.place, &place, is_new);
                self.waiter = self.edge.callers.registry.wait(place);
                self.stands(place)
            }
            Opened::SiteFull { holders } => (Event::SiteFull(self.edge.site_full(&self.entrant, holders)), Stage::Over),
            Opened::Shut | Opened::OtherSwitches => (Event::Shut(shut()), Stage::Over),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SeatKey;

    #[test]
    fn a_position_shown_never_rises_whoever_counted_it() {
        let place = |slot, seq| Place {
            key: SeatKey { site: "s".parse().unwrap(), slot },
            terminal: "t".parse().unwrap(),
            seq,
        };
        let mut shown = Shown { last: Some((place(1, 7), 40)), lost: false };
        // One instance reads the line later than the other; a new one has not counted the place yet.
        let counted = [Some(41), Some(38), None, Some(40), Some(37), Some(38)];
        let told = counted.map(|position| shown.next(&place(1, 7), position));
        assert_eq!(told, [40, 38, 38, 38, 37, 37].map(Some));
        assert_eq!(shown.next(&place(0, 9), None), None, "another place has nothing to do with it");
        assert_eq!(shown.next(&place(0, 9), Some(200)), Some(200));
    }
}
