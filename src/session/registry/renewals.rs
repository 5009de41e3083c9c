//! Which seats this instance renews, and when: those whose terminal holds a stream here.
//!
//! A third of the lease is cut into [`TURNS`] turns, and every seat is renewed in one of them, drawn when it is attached. So
//! renewals are an even trickle whatever happened before: after an outage they go on at the same rate, and seats that
//! were opened together are not renewed together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::session::{Lease, Seat, SeatKey, Standing};

/// Into how many turns a third of the lease is cut.
pub(super) const TURNS: u8 = 32;

/// The attached seats.
pub(super) struct Renewals {
    turn_length: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    attached: HashMap<SeatKey, Attached>,
    /// Sales that the door has not heard of: which seat, and when in monotonic time.
    sales: HashMap<SeatKey, (Seat, Duration)>,
    turn: u8,
    /// The number of the last attachment.
    last: u64,
}

struct Attached {
    seat: Seat,
    turn: u8,
    number: u64,
    /// Whether the door has said once that it is live no more.
    doubted: bool,
    ended: oneshot::Sender<Standing>,
}

/// What an attachment knows of the end of its seat.
enum End {
    Awaited(oneshot::Receiver<Standing>),
    Known(Standing),
}

/// Keeps a seat's lease alive while it lives, and hears of its end.
pub struct Attachment {
    seat: Seat,
    number: u64,
    end: End,
    renewals: Arc<Renewals>,
}

impl Attachment {
    /// The seat.
    pub fn seat(&self) -> Seat {
        self.seat
    }

    /// Waits until the seat is live no more, and says how it stands then. May be dropped and called again.
    pub async fn ended(&mut self) -> Standing {
        let standing = match &mut self.end {
            End::Known(standing) => *standing,
            // The sender goes without a word only when another attachment has its place.
            End::Awaited(told) => told.await.unwrap_or(Standing::Replaced),
        };
        self.end = End::Known(standing);
        standing
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut table = self.renewals.table();
        if table.attached.get(&self.seat.key).is_some_and(|attached| attached.number == self.number) {
            table.attached.remove(&self.seat.key);
        }
    }
}

impl Renewals {
    pub(super) fn new(lease: Lease) -> Self {
        Self { turn_length: lease.length / 3 / u32::from(TURNS), table: Mutex::default() }
    }

    pub(super) fn attach(self: &Arc<Self>, seat: Seat) -> Attachment {
        let mut table = self.table();
        table.last += 1;
        let number = table.last;
        // Without random numbers the seats take their turns in order.
        let draw = getrandom::u64().unwrap_or(number) % u64::from(TURNS);
        let turn = u8::try_from(draw).unwrap_or(0);
        let (sender, told) = oneshot::channel();
        // Two openings of one terminal may arrive here in the other order: the newer grant stays.
        if table.attached.get(&seat.key).is_none_or(|attached| attached.seat.fence <= seat.fence) {
            table.attached.insert(seat.key, Attached { seat, turn, number, doubted: false, ended: sender });
        }
        drop(table);
        Attachment { seat, number, end: End::Awaited(told), renewals: self.clone() }
    }

    /// Tells the attachment of this grant, if there is one, and lets go of it.
    pub(super) fn end(&self, key: SeatKey, fence: u64, standing: Standing) {
        let mut table = self.table();
        if table.attached.get(&key).is_some_and(|attached| attached.seat.fence == fence)
            && let Some(attached) = table.attached.remove(&key)
        {
            let _ = attached.ended.send(standing);
        }
    }

    /// The seat's terminal has sold.
    pub(super) fn sold(&self, seat: &Seat, at: Duration) {
        self.table().sales.insert(seat.key, (*seat, at));
    }

    /// The seat's last sale, if the door has not heard of it. It is passed on once: what is lost on the way was said too early
    /// to decide anything, or is said again with the next sale.
    pub(super) fn take_sale(&self, seat: &Seat) -> Option<Duration> {
        let mut table = self.table();
        table.sales.get(&seat.key).filter(|(sold, _)| sold == seat)?;
        table.sales.remove(&seat.key).map(|(_, at)| at)
    }

    /// The seats that have sold since the door heard of it last.
    pub(super) fn with_sales(&self) -> Vec<Seat> {
        self.table().sales.values().map(|(seat, _)| *seat).collect()
    }

    /// The door says that the seat is live no more, and not why: the attachment is told when it says so for the second time.
    pub(super) fn doubt(&self, key: SeatKey, fence: u64, standing: Standing) {
        let mut table = self.table();
        let attached = table.attached.get_mut(&key).filter(|attached| attached.seat.fence == fence);
        if attached.is_some_and(|attached| std::mem::replace(&mut attached.doubted, true)) {
            drop(table);
            self.end(key, fence, standing);
        }
    }

    /// How many attachments live.
    pub(super) fn attached(&self) -> usize {
        self.table().attached.len()
    }

    /// How long one turn is.
    pub(super) fn turn_length(&self) -> Duration {
        self.turn_length.max(Duration::from_millis(1))
    }

    /// The seats whose turn it is; once in a round also those that have sold here and have their stream elsewhere, or none.
    pub(super) fn next_turn(&self) -> Vec<Seat> {
        let mut table = self.table();
        table.turn = (table.turn + 1) % TURNS;
        let turn = table.turn;
        let attached = table.attached.values().filter(|attached| attached.turn == turn).map(|attached| attached.seat);
        let elsewhere = |seat: &Seat| turn == 0 && table.attached.get(&seat.key).is_none_or(|a| a.seat != *seat);
        attached.chain(table.sales.values().map(|(seat, _)| *seat).filter(elsewhere)).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seat_has_one_turn_in_a_third_of_the_lease_and_turns_are_even() {
        let renewals = Arc::new(Renewals::new(Lease::DEFAULT));
        assert_eq!(renewals.turn_length() * u32::from(TURNS), Lease::DEFAULT.length / 3);
        let mut attachments: Vec<Attachment> = (0..3_200)
            .map(|slot| {
                let key = SeatKey { site: "s".parse().unwrap(), slot };
                renewals.attach(Seat { key, terminal: "t".parse().unwrap(), fence: 1 })
            })
            .collect();
        let round = || (0..TURNS).map(|_| renewals.next_turn()).collect::<Vec<_>>();
        let turns = round();
        let mut slots: Vec<u16> = turns.iter().flatten().map(|seat| seat.key.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..3_200).collect::<Vec<u16>>());
        // A hundred a turn on average; five standard deviations are fifty.
        assert!(turns.iter().all(|turn| (50..=150).contains(&turn.len())));

        attachments.truncate(1);
        assert_eq!(round().concat(), [attachments[0].seat()]);
    }
}
