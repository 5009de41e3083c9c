//! The use case behind an audit: every record of a programme, each once, and whose it is for nobody.
//!
//! Knows nothing about the wire or about which store it reads.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::buyer::BuyerKey;
use crate::ids::{LedgerId, ProgrammeCode, ProgrammeId};
use crate::ledger::{Exported, Ledger};
use crate::policy::Policies;

pub use crate::ledger::{Entry, Kind, LedgerError, Record, State};

/// There is no programme of this id; holds the ids that there are, as a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnknownProgramme(String);

/// What can be exported.
#[derive(Clone)]
pub struct Exports<L> {
    ledger: L,
    policies: Arc<ArcSwap<Policies>>,
}

impl<L: Ledger> Exports<L> {
    /// From this ledger, by the programmes' ids.
    pub fn new(ledger: L, policies: Arc<ArcSwap<Policies>>) -> Self {
        Self { ledger, policies }
    }

    /// The ledger that is exported; `None` until it is known.
    pub fn ledger_id(&self) -> Option<LedgerId> {
        self.ledger.id()
    }

    /// An export of this programme's records. Nothing has been read yet.
    pub fn begin(&self, programme: &str) -> Result<Export<L>, UnknownProgramme> {
        let policies = self.policies.load();
        let found = programme.parse::<ProgrammeId>().ok().and_then(|id| policies.get(id));
        let programme = found.ok_or_else(|| UnknownProgramme(policies.not_known()))?;
        Ok(Export {
            ledger: self.ledger.clone(),
            programme: programme.code(),
            from: None,
            is_whole: false,
            met: Met::default(),
        })
    }
}

/// An export under way.
pub struct Export<L> {
    ledger: L,
    programme: ProgrammeCode,
    from: Option<Vec<u8>>,
    is_whole: bool,
    met: Met,
}

impl<L: Ledger> Export<L> {
    /// Records that were not given before, perhaps none; one step of the ledger. After an error the export is not whole and
    /// goes no further.
    pub async fn more(&mut self) -> Result<Vec<Record>, LedgerError> {
        let Exported { records, next } = self.ledger.export(self.programme, self.from.take()).await?;
        self.is_whole = next.is_none();
        self.from = next;
        Ok(self.met.news(records))
    }

    /// Whether every record has been given.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Records met so far that cannot be read, and so were not given.
    pub fn unreadable(&self) -> u64 {
        self.met.unreadable
    }
}

/// Whose records were met: some 30 bytes of memory a buyer, for as long as the export lasts.
#[derive(Default)]
struct Met {
    buyers: HashSet<BuyerKey>,
    unreadable: u64,
}

impl Met {
    /// Those of them that were not met before and can be read.
    fn news(&mut self, records: Vec<(BuyerKey, Option<Record>)>) -> Vec<Record> {
        let mut news = Vec::with_capacity(records.len());
        for (buyer, record) in records {
            if self.buyers.insert(buyer) {
                match record {
                    Some(record) => news.push(record),
                    None => self.unreadable += 1,
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buyer::Pseudonym;

    #[test]
    fn a_record_is_given_once_however_often_it_is_met() {
        let buyer = |number| BuyerKey { partition: number, pseudonym: Pseudonym::from_bytes([number; 16]) };
        let readable = |number| (buyer(number), Some(Record::default()));
        let mut met = Met::default();
        assert_eq!(met.news(vec![readable(1), readable(2), (buyer(3), None), readable(1)]).len(), 2);
        assert_eq!(met.news(vec![readable(2), (buyer(3), None), (buyer(4), None), readable(5)]).len(), 1);
        assert_eq!(met.unreadable, 2);
    }
}
