//! Pharmacies: one session each for the whole morning, and sales by a timetable that waits for no answer.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::notes::{Held, Notes};
use super::programme;
use crate::ids::{RequestId, SiteId};
use crate::load::chance::Chance;
use crate::load::counter::{Counter, Matter, asks_again};
use crate::load::history::{Asked, Verb};
use crate::load::population::People;
use crate::terminal::{CallError, Opened, Session, Terminal};

/// A pharmacy with its one terminal.
pub(super) struct Pharmacy {
    /// The site's place among all sites.
    number: usize,
    terminal: Terminal,
    counter: Counter,
}

impl Pharmacy {
    pub(super) fn new(number: usize, site: SiteId, terminal: Terminal) -> Self {
        Self { number, counter: Counter::new(site, terminal.clone(), None), terminal }
    }

    /// Opens the session and keeps it, and opens another when it is lost, until the run is over.
    pub(super) async fn keep_session(
        self: Arc<Self>,
        stagger: Duration,
        mut chance: Chance,
        notes: Arc<Notes>,
        over: CancellationToken,
    ) {
        over.run_until_cancelled(async {
            tokio::time::sleep(stagger).await;
            loop {
                let asked = notes.now();
                let mut told = None;
                match self.terminal.open_session().await {
                    Ok(Opened::Admitted(session)) => {
                        self.counter.admitted(&session, notes.now() - asked);
                        self.hold(*session, notes.admitted(self.number)).await;
                    }
                    Ok(Opened::SiteFull(_)) => notes.refused("SITE_FULL"),
                    Ok(Opened::Shut(shut)) => {
                        notes.refused("SHUT");
                        told = shut.retry_after.and_then(|after| after.try_into().ok());
                    }
                    Err(CallError::NotExecuted { reason, retry_after, .. }) => {
                        notes.refused(&reason);
                        told = retry_after;
                    }
                    Err(CallError::Unknown(why)) => notes.refused(&why),
                }
                tokio::time::sleep(asks_again(told, &mut chance)).await;
            }
        })
        .await;
    }

    /// Until the service ends it: the first event after the admission is the last one.
    async fn hold(&self, mut session: Session, held: Held) {
        let last = session.events.message().await;
        self.counter.set(None);
        held.ended(if last.is_ok() { "ENDED" } else { "BROKEN" });
    }
}

/// All of them, while they sell.
pub(super) struct Pharmacies {
    pub(super) counters: Vec<Arc<Pharmacy>>,
    /// Sales a second.
    pub(super) rate: f64,
    pub(super) seed: u64,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

impl Pharmacies {
    /// Sells, one pharmacy after the other, each time to somebody else. Ends when the last sale has been sent.
    pub(super) async fn sell(&self, notes: &Arc<Notes>, tasks: &TaskTracker, enough: &CancellationToken) {
        let people = People::new(self.seed);
        for (nth, pharmacy) in (0_u64..).zip(self.counters.iter().cycle()) {
            let at = self.from + Duration::from_secs_f64(nth as f64 / self.rate);
            let wake = notes.clock().sleep_until(at.min(self.until));
            if enough.run_until_cancelled(wake).await.is_none() || at >= self.until {
                return;
            }
            tasks.spawn(sell(pharmacy.clone(), notes.clone(), people, nth, at));
        }
    }
}

async fn sell(pharmacy: Arc<Pharmacy>, notes: Arc<Notes>, people: People, buyer: u64, intended: Duration) {
    let matter = Matter {
        programme: programme().id(),
        request: RequestId::random(),
        number: people.number(buyer),
        quantity: 1,
        hold_for: Duration::ZERO,
    };
    let sent = notes.now();
    let (outcome, replayed) = pharmacy.counter.ask(Verb::Purchase, &matter).await;
    notes.sale(Asked {
        request: matter.request,
        buyer,
        site: pharmacy.counter.site(),
        verb: Verb::Purchase,
        quantity: matter.quantity,
        intended,
        sent,
        answered: notes.now(),
        replayed,
        outcome,
    });
}
