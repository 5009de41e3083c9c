//! Where a buyer's record is: on the one server, or in a Cluster on the shard that holds the buyer's partition.
//!
//! A shard is what one primary holds, whichever server that is just now: it is known by the first of its partitions, has lanes, a
//! standing and a barrier of its own, and goes through a failover as a primary behind Sentinels does. When slots have moved to
//! another primary, partitions go over to its shard. A call that is on its way to the old one meanwhile is not executed there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ledger::LedgerError;
use crate::redis_pool::{Layout, RedisPool, Slot};

use super::identity::Name;
use super::keys;
use super::lanes::Queue;
use super::standing::{Standing, Verdict};

/// A part of the ledger that stands on one server.
pub(super) struct Shard {
    /// Its first partition; `None` where it is all of the ledger.
    pub(super) first: Option<u8>,
    pub(super) pool: RedisPool,
    pub(super) queue: Queue,
    pub(super) standing: Arc<Standing>,
}

impl Shard {
    /// Where the ledger's id stands that it is known by: that of its first partition.
    pub(super) fn name(&self) -> Name {
        self.first.map_or_else(|| Name::Identity(keys::LEDGER.into()), Name::of)
    }

    /// Whether the ledger's identity stands here.
    pub(super) fn is_home(&self) -> bool {
        matches!(self.name(), Name::Identity(_))
    }
}

/// All shards, and which partition belongs to which.
#[derive(Default)]
pub(super) struct Shards {
    /// By their first partitions.
    all: BTreeMap<u8, Arc<Shard>>,
    /// Those that have no partition at present: what they know of the store they are to know again.
    parked: BTreeMap<u8, Arc<Shard>>,
    /// The shard of every partition; `None`: no primary holds its slot.
    first_of: Vec<Option<u8>>,
    /// How often partitions have gone over to other shards.
    generation: u64,
}

/// How far a walk over all shards has got.
pub(super) struct Walk {
    /// The shard that it is at.
    pub(super) shard: Arc<Shard>,
    at: u8,
    /// The shards have changed since it began.
    pub(super) is_out_of_date: bool,
    /// Where it is in this shard, in words of the walker; `None`: at its beginning.
    pub(super) cursor: Option<Vec<u8>>,
}

impl Shards {
    /// The only one.
    pub(super) fn alone(shard: Shard) -> Self {
        Self {
            all: BTreeMap::from([(0, Arc::new(shard))]),
            parked: BTreeMap::new(),
            first_of: vec![Some(0); 256],
            generation: 0,
        }
    }

    /// Those of this layout: the ones that there are, and what `open` makes of the first partition of each that is new. `None`:
    /// they are the same.
    pub(super) fn after<E>(&self, layout: &Layout, open: impl Fn(u8) -> Result<Shard, E>) -> Result<Option<Self>, E> {
        let first_of = firsts(layout);
        if first_of == self.first_of {
            return Ok(None);
        }
        let mut parked: BTreeMap<u8, Arc<Shard>> =
            self.parked.iter().chain(&self.all).map(|(first, shard)| (*first, Arc::clone(shard))).collect();
        let mut all = BTreeMap::new();
        for first in first_of.iter().flatten() {
            if !all.contains_key(first) {
                let shard = match parked.remove(first) {
                    Some(shard) => {
                        if self.parked.contains_key(first) {
                            shard.standing.decide(Verdict::Unfit("it has not been looked at again yet".into()));
                        }
                        shard
                    }
                    None => Arc::new(open(*first)?),
                };
                all.insert(*first, shard);
            }
        }
        for shard in parked.values() {
            shard.standing.decide(Verdict::Unfit("it holds no partition".into()));
        }
        Ok(Some(Self { all, parked, first_of, generation: self.generation + 1 }))
    }

    /// By their first partitions, the identity's home first.
    pub(super) fn all(&self) -> &BTreeMap<u8, Arc<Shard>> {
        &self.all
    }

    /// What is known of each, and of those that have no partition at present.
    pub(super) fn standings(&self) -> impl Iterator<Item = &Standing> {
        self.all.values().chain(self.parked.values()).map(|shard| &*shard.standing)
    }

    /// Whether every partition has one.
    pub(super) fn is_whole(&self) -> bool {
        !self.first_of.is_empty() && self.first_of.iter().all(Option::is_some)
    }

    /// The one that holds a partition.
    pub(super) fn of(&self, partition: u8) -> Result<Arc<Shard>, LedgerError> {
        let first = self.first_of.get(usize::from(partition)).copied().flatten();
        first.and_then(|first| self.all.get(&first)).map(Arc::clone).ok_or_else(|| {
            LedgerError::StoreUnavailable(format!(
                "no primary of the Cluster is known to hold the slot of partition {partition:02x} whole"
            ))
        })
    }

    /// The partitions of the shard whose first one this is.
    pub(super) fn partitions(&self, first: u8) -> Vec<u8> {
        (0..=u8::MAX)
            .zip(&self.first_of)
            .filter(|(_, of)| **of == Some(first))
            .map(|(partition, _)| partition)
            .collect()
    }

    /// Begins a walk, or goes on with it from what [`Shards::step`] has given.
    pub(super) fn walk(&self, from: Option<&[u8]>) -> Result<Walk, LedgerError> {
        let (at, generation, cursor) = match from.map(|from| from.split_first_chunk::<9>()) {
            None => (0, self.generation, [].as_slice()),
            Some(None) => return Err(LedgerError::Corrupt("no walk stopped there".to_owned())),
            Some(Some((&[at, ref generation @ ..], cursor))) => (at, u64::from_be_bytes(*generation), cursor),
        };
        let (found, shard) = self.all.range(at..).next().ok_or_else(|| {
            LedgerError::StoreUnavailable("no node of the Cluster says who holds which slots".to_owned())
        })?;
        let is_out_of_date = generation != self.generation || !self.is_whole();
        let cursor = (!cursor.is_empty() && *found == at).then(|| cursor.to_vec());
        Ok(Walk { shard: Arc::clone(shard), at: *found, is_out_of_date, cursor })
    }

    /// From where a walk goes on when its shard goes on from this cursor, or is done.
    pub(super) fn step(&self, walk: &Walk, cursor: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let (at, cursor) = match cursor {
            Some(cursor) => (walk.at, cursor),
            None => (*self.all.range(walk.at..).nth(1)?.0, Vec::new()),
        };
        Some([[at].as_slice(), &self.generation.to_be_bytes(), &cursor].concat())
    }
}

/// The slots of these partitions.
pub(super) fn slots(partitions: impl IntoIterator<Item = u8>) -> impl Iterator<Item = Slot> {
    partitions.into_iter().map(|partition| Slot::of(&keys::tag(partition)))
}

/// For every partition, the first one whose slot the same primary holds.
fn firsts(layout: &Layout) -> Vec<Option<u8>> {
    let mut firsts = BTreeMap::new();
    let mut first = |partition: u8| {
        let owner = layout.owner(Slot::of(&keys::tag(partition)))?;
        Some(*firsts.entry(owner.clone()).or_insert(partition))
    };
    (0..=u8::MAX).map(&mut first).collect()
}
