//! The use case behind whoever follows what happened to purchases: the events of all partitions, from a cursor on.
//!
//! Knows nothing about the wire, or about which store it reads.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::ids::{LedgerId, ProgrammeCode, ProgrammeId};
use crate::ledger::Ledger;
use crate::ledger::outbox::{After, NoCursor, Outbox, PARTITIONS, Place};
use crate::policy::Policies;

pub use crate::ledger::outbox::{Cursor, Told};
pub use crate::ledger::{EventKind, LedgerError};

/// How many partitions are read together. Those before the next are read to their end: what is dropped of the oldest meanwhile is
/// dropped of those where nobody has got anywhere.
const TOGETHER: usize = 32;
/// How many events of a partition are read in a round: a round is kept in memory, some 2 MiB at most.
const IN_A_ROUND: usize = 256;

/// Where a reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// With the oldest event that is kept.
    Oldest,
    /// Behind the newest one.
    Newest,
    /// Where an earlier one has got.
    Cursor(Vec<u8>),
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// There is no programme of this id; holds the ids that there are, as a sentence.
    #[error("{0}")]
    UnknownProgramme(String),
    /// It was never given to anybody.
    #[error(transparent)]
    NoCursor(#[from] NoCursor),
    /// The cursor is of another ledger than this one.
    #[error("the cursor is of another ledger than {0}")]
    OtherLedger(LedgerId),
    /// Events behind the cursor are kept no more.
    #[error("events after the cursor are kept no more")]
    Gone,
    /// The store cannot say.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What happened, for whoever may read it.
#[derive(Clone)]
pub struct Events<L> {
    ledger: L,
    policies: Arc<ArcSwap<Policies>>,
}

impl<L: Ledger + Outbox> Events<L> {
    /// Of this ledger, by the programmes' ids.
    pub fn new(ledger: L, policies: Arc<ArcSwap<Policies>>) -> Self {
        Self { ledger, policies }
    }

    /// A reading of this programme's events, or of all programmes' where there is no id.
    pub async fn begin(&self, from: From, programme: &str) -> Result<Reading<L>, Unreadable> {
        let policies = self.policies.load_full();
        let only = match programme {
            "" => None,
            id => {
                let found = id.parse::<ProgrammeId>().ok().and_then(|id| policies.get(id));
                Some(found.ok_or_else(|| Unreadable::UnknownProgramme(policies.not_known()))?.code())
            }
        };
        let unknown = || LedgerError::StoreUnavailable("the ledger is not known yet".to_owned());
        let ledger = self.ledger.id().ok_or_else(unknown)?;
        let cursor = match from {
            From::Oldest => Cursor::beginning(ledger),
            From::Newest => Cursor::at(ledger, self.ledger.newest().await?),
            From::Cursor(bytes) => Cursor::from_bytes(&bytes)?,
        };
        if cursor.ledger != ledger {
            return Err(Unreadable::OtherLedger(ledger));
        }
        Ok(Reading {
            outbox: self.ledger.clone(),
            policies: self.policies.clone(),
            only,
            group: 0,
            read: cursor.clone(),
            taken: cursor,
            waiting: VecDeque::new(),
        })
    }
}

/// A reading under way.
pub struct Reading<L> {
    outbox: L,
    policies: Arc<ArcSwap<Policies>>,
    only: Option<ProgrammeCode>,
    /// Which partitions are read next.
    group: usize,
    /// Behind what was read.
    read: Cursor,
    /// Behind what was taken.
    taken: Cursor,
    /// Read and not yet taken.
    waiting: VecDeque<(u8, Place, Told)>,
}

impl<L: Outbox> Reading<L> {
    /// Reads some events. Says how many there were; none: whoever reads has caught up. After an error nothing is lost, and it can be
    /// called again.
    pub async fn more(&mut self) -> Result<usize, Unreadable> {
        for _ in 0..PARTITIONS / TOGETHER {
            let found = self.round().await?;
            if found > 0 {
                return Ok(found);
            }
        }
        Ok(0)
    }

    async fn round(&mut self) -> Result<usize, Unreadable> {
        let places: Vec<_> = self.read.places().skip(self.group * TOGETHER).take(TOGETHER).collect();
        let found = self.outbox.after(places.clone(), IN_A_ROUND).await?;
        let has_more = |after: &After| matches!(after, After::Events(events) if events.len() >= IN_A_ROUND);
        if !found.iter().any(has_more) {
            self.group = (self.group + 1) % (PARTITIONS / TOGETHER);
        }
        if found.contains(&After::Gone) {
            return Err(Unreadable::Gone);
        }
        let before = self.waiting.len();
        for ((partition, place), after) in places.into_iter().zip(found) {
            let After::Events(events) = after else { continue };
            if place == Place::BEGINNING && events.is_empty() {
                // Of what comes now nothing may be missed.
                self.read.has_read(partition, Place::FIRST);
                self.taken.has_read(partition, Place::FIRST);
            }
            for (place, told) in events {
                self.read.has_read(partition, place);
                self.waiting.push_back((partition, place, told));
            }
        }
        Ok(self.waiting.len() - before)
    }

    /// Whether something was read that is not taken yet.
    pub fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes what was read, up to so many events of the programme; the others are passed over.
    pub fn take(&mut self, most: usize) -> Vec<Told> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((partition, place, told)) = self.waiting.pop_front()
        {
            self.taken.has_read(partition, place);
            taken.extend(Some(told).filter(|told| self.only.is_none_or(|only| only == told.programme)));
        }
        taken
    }

    /// Where this reading has got with what was taken.
    pub fn cursor(&self) -> &Cursor {
        &self.taken
    }

    /// The id of a programme, or its code if there is none any more.
    pub fn programme(&self, code: ProgrammeCode) -> String {
        let policies = self.policies.load();
        let found = policies.iter().find(|programme| programme.code() == code);
        found.map_or_else(|| code.to_string(), |programme| programme.id().to_string())
    }
}
