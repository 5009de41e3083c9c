//! What is known of the server at this moment, and the gate that follows from it. No I/O. In a Cluster every shard has one: its
//! server is whoever is the shard's primary.
//!
//! Every start of a Redis server is a server of its own here, with a number: what was found out about one says nothing
//! about the next, which may have come back empty or with other settings. A fresh connection tells which server it leads
//! to before anybody uses it, so the gate is shut from the first moment of a new server until that one was checked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{Notify, watch};

use crate::ids::LedgerId;
use crate::ledger::{Health, LedgerError};

/// The service's clock and the store's may be so far apart, in milliseconds. Beyond it nothing is decided by the
/// service's clock, which is to say nothing at all: a wrong clock sells twice, but it also tells buyers that a programme is
/// not in force, lets live holds run out, dates entries so that every later call is judged in the future, and sweeps
/// sales that still count.
const MOST_APART_MS: u64 = 500;

/// The verdict on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server of this number was found fit, and the service's clock so many milliseconds ahead of its own.
    Fit {
        /// Which server.
        server: u64,
        /// Milliseconds; negative: behind.
        ahead_ms: i64,
        /// See [`Pass::replicas`].
        replicas: usize,
    },
    /// Nothing may be sent, for this reason.
    Unfit(String),
}

/// What a call must keep to that is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    /// It may be sent to the server of this number and to no other.
    pub(super) server: u64,
    /// So many replicas must have it before it is answered; 0 where there are none by design.
    pub(super) replicas: usize,
    /// Whether the store may lose what it has: `--allow-volatile`.
    pub(super) is_volatile: bool,
}

/// The number that every unit raises.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Barrier {
    /// The hash that it stands in.
    pub(super) key: Vec<u8>,
    /// Its field: nobody else raises it.
    pub(super) process: String,
}

/// A store has lost what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    /// How many units of this process it remembers.
    pub(super) units: u64,
    /// How many were acknowledged.
    pub(super) acknowledged: u64,
}

/// The verdict that stands, and what it hangs on.
pub(super) struct Standing {
    verdict: watch::Sender<Verdict>,
    /// The ledger that this process works for, one for all shards; once known it never changes.
    ledger: Arc<OnceLock<LedgerId>>,
    /// See [`super::unit`].
    barrier: Barrier,
    /// The server that was seen to have lost what was acknowledged, and how that showed.
    behind: Mutex<Option<(u64, Behind)>>,
    server: AtomicU64,
    run_id: Mutex<Option<String>>,
    /// The newest unit that was answered with a promise, see [`super::unit`].
    acknowledged: AtomicU64,
    is_volatile: bool,
    /// Rung when something was seen that calls for a check now.
    pub(super) alarm: Notify,
}

impl Standing {
    /// `is_volatile`: see [`Pass::is_volatile`].
    pub(super) fn new(is_volatile: bool, ledger: Arc<OnceLock<LedgerId>>, barrier: Barrier) -> Self {
        Self {
            is_volatile,
            ledger,
            barrier,
            behind: Mutex::new(None),
            verdict: watch::Sender::new(Verdict::Unfit("it has not been checked yet".into())),
            server: AtomicU64::new(0),
            run_id: Mutex::new(None),
            acknowledged: AtomicU64::new(0),
            alarm: Notify::new(),
        }
    }

    /// Whether a call may be sent, of whatever kind, and what it must keep to.
    pub(super) fn pass(&self) -> Result<Pass, LedgerError> {
        match &*self.verdict.borrow() {
            Verdict::Unfit(reason) => Err(LedgerError::StoreUnavailable(reason.clone())),
            Verdict::Fit { server, .. } if *server != self.server() => {
                Err(LedgerError::StoreUnavailable("Redis was started anew and is being checked".into()))
            }
            Verdict::Fit { server, .. } if self.behind(*server).is_some() => {
                Err(LedgerError::StoreUnavailable("Redis has lost what was acknowledged".into()))
            }
            Verdict::Fit { ahead_ms, .. } if ahead_ms.unsigned_abs() > MOST_APART_MS => {
                Err(LedgerError::ClocksApart(ahead_ms.saturating_abs()))
            }
            Verdict::Fit { server, replicas, .. } => {
                Ok(Pass { server: *server, replicas: *replicas, is_volatile: self.is_volatile })
            }
        }
    }

    /// Whether a call may be sent.
    pub(super) fn gate(&self) -> Result<(), LedgerError> {
        self.pass().map(|_| ())
    }

    /// What health says: serving only where a call would be let through.
    pub(super) fn health(&self) -> Health {
        match (self.gate(), self.ledger()) {
            (Ok(()), Some(ledger)) => Health::Serving(ledger),
            (Ok(()), None) => Health::NotServing("the ledger has no id yet".into()),
            (Err(LedgerError::StoreUnavailable(reason)), _) => Health::NotServing(reason),
            (Err(error), _) => Health::NotServing(error.to_string()),
        }
    }

    /// The verdict from now on.
    pub(super) fn decide(&self, verdict: Verdict) {
        self.verdict.send_if_modified(|standing| {
            let changed = *standing != verdict;
            match (&*standing, &verdict) {
                (_, Verdict::Unfit(reason)) if changed => tracing::warn!(%reason, "the ledger's store cannot be used"),
                (Verdict::Unfit(_), Verdict::Fit { .. }) => tracing::info!("the ledger's store is in use"),
                _ => {}
            }
            *standing = verdict;
            changed
        });
    }

    /// Returns when sales can be made.
    pub(super) async fn ready(&self) {
        let mut verdicts = self.verdict.subscribe();
        // The sender lives as long as `self`: this ends by a verdict only.
        let _ = verdicts.wait_for(|_| self.gate().is_ok()).await;
    }

    /// The number of the server that the newest connection leads to.
    pub(super) fn server(&self) -> u64 {
        self.server.load(Ordering::SeqCst)
    }

    /// A fresh connection leads to the server of this run id (`None`: it would not say, so it may be a new one). Its number.
    pub(super) fn dialled(&self, run_id: Option<&str>) -> u64 {
        let mut known = self.run_id.lock().unwrap_or_else(PoisonError::into_inner);
        if run_id.is_none() || known.as_deref() != run_id {
            *known = run_id.map(str::to_owned);
            self.server.fetch_add(1, Ordering::SeqCst);
            // Where nothing was fit before, the next look comes in its own time.
            if matches!(*self.verdict.borrow(), Verdict::Fit { .. }) {
                self.alarm.notify_one();
            }
        }
        self.server()
    }

    /// What every unit raises.
    pub(super) fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// This server has lost what was acknowledged. It stays so whatever number it reaches from here: only another one, over other
    /// data, may have it.
    pub(super) fn found_behind(&self, server: u64, behind: Behind) {
        let mut known = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|(known, _)| known != server) {
            *known = Some((server, behind));
            self.alarm.notify_one();
        }
    }

    /// How it showed that this server has lost what was acknowledged, if it did.
    pub(super) fn behind(&self, server: u64) -> Option<Behind> {
        let known = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(known, _)| *known == server).map(|(_, behind)| behind)
    }

    /// A unit of this number was answered.
    pub(super) fn acknowledge(&self, unit: u64) {
        self.acknowledged.fetch_max(unit, Ordering::SeqCst);
    }

    /// The newest unit that was answered. A store that has not got so far has lost sales.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The ledger that this process works for, once known.
    pub(super) fn ledger(&self) -> Option<LedgerId> {
        self.ledger.get().copied()
    }

    /// Settles on a ledger. An error, for the operator, if this process works for another.
    pub(super) fn settle(&self, found: LedgerId) -> Result<(), String> {
        let ours = *self.ledger.get_or_init(|| found);
        if ours == found { Ok(()) } else { Err(other_ledger(ours, &found.to_string())) }
    }
}

/// What is said when another ledger stands where ours was.
pub(super) fn other_ledger(ours: LedgerId, found: &str) -> String {
    format!(
        "this process works for the ledger {ours}, and Redis now holds {found}: bring the right data back; to work for \
         what is there, remove the witness file of each instance, if it has one, and start it anew"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving() -> Standing {
        let standing = Standing::new(false, Arc::default(), Barrier::default());
        standing.dialled(Some("first"));
        standing.settle(LedgerId::random()).unwrap();
        standing.decide(Verdict::Fit { server: standing.server(), ahead_ms: 0, replicas: 0 });
        standing
    }

    #[test]
    fn the_gate_is_shut_until_a_server_was_checked() {
        assert!(matches!(
            Standing::new(false, Arc::default(), Barrier::default()).gate(),
            Err(LedgerError::StoreUnavailable(_))
        ));
        assert_eq!(serving().gate(), Ok(()));
    }

    #[test]
    fn a_new_server_shuts_the_gate_and_another_connection_to_the_same_does_not() {
        let standing = serving();
        standing.dialled(Some("first"));
        assert_eq!(standing.gate(), Ok(()));
        standing.dialled(Some("second"));
        assert!(matches!(standing.gate(), Err(LedgerError::StoreUnavailable(_))));
        assert!(matches!(standing.health(), Health::NotServing(_)));
    }

    #[test]
    fn a_server_that_has_lost_what_was_acknowledged_stays_shut_and_another_is_not() {
        let standing = serving();
        standing.found_behind(standing.server(), Behind { units: 4, acknowledged: 9 });
        standing.found_behind(standing.server(), Behind { units: 9, acknowledged: 9 });
        assert!(matches!(standing.gate(), Err(LedgerError::StoreUnavailable(_))));
        assert_eq!(standing.behind(standing.server()), Some(Behind { units: 4, acknowledged: 9 }));
        standing.dialled(Some("second"));
        standing.decide(Verdict::Fit { server: standing.server(), ahead_ms: 0, replicas: 0 });
        assert_eq!(standing.gate(), Ok(()));
    }

    #[test]
    fn clocks_apart_stop_everything() {
        let standing = serving();
        for (ahead_ms, passes) in [(500, Ok(())), (-500, Ok(())), (501, Err(501)), (-501, Err(501))] {
            standing.decide(Verdict::Fit { server: standing.server(), ahead_ms, replicas: 0 });
            assert_eq!(standing.gate(), passes.map_err(LedgerError::ClocksApart), "{ahead_ms}");
        }
        assert!(matches!(standing.health(), Health::NotServing(reason) if reason.contains("501 ms")));
    }

    #[test]
    fn a_process_never_goes_over_to_another_ledger() {
        let standing = serving();
        let ours = standing.ledger().unwrap();
        assert_eq!(standing.settle(ours), Ok(()));
        let other = LedgerId::random();
        let said = standing.settle(other).unwrap_err();
        assert!(said.contains(&ours.to_string()) && said.contains(&other.to_string()));
        assert_eq!(standing.ledger(), Some(ours));
    }
}
