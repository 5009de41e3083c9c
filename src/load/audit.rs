//! Holds what a run was told against what the ledger then has.
//!
//! Written from what is promised (the table of verbs and the guarantees), not from how it is kept: no code is shared with the
//! rules that it judges, and where two ways lead to the same finding it takes the more obvious one. What cannot be known
//! from outside (which of two calls under way together came first, whether an unanswered call arrived) is never held against
//! the service.
//!
//! Knows neither clocks nor the service; the history's times and the ledger's times are never compared with each other, only how
//! long the one and the other lasted.

mod cases;
mod dates;
mod entries;
mod outcomes;
mod table;
mod windows;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::history::Asked;
use crate::grpc::v1;
use crate::ids::RequestId;
use cases::Cases;
pub use cases::{Case, CaseKind};
use entries::Entries;

/// What a programme allows one buyer in a calendar week, which begins on Monday at 00:00 in Seoul. There is no other rule: every
/// sale is checked, and nothing but what is left of the week is a reason to refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Units a week; `None`: no limit in units.
    pub units_a_week: Option<u32>,
    /// Purchases a week; `None`: no limit in purchases.
    pub purchases_a_week: Option<u32>,
}

/// What became of the calls that were left without an answer of their own, by what stands under their ids. Calls, not ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Unknowns {
    /// All of them.
    pub calls: u64,
    /// Their ids stand as sales.
    pub sold: u64,
    /// Their ids stand as holds.
    pub held: u64,
    /// Their ids stand as holds given back or sales taken back.
    pub taken_back: u64,
    /// Their ids stand as refusals.
    pub refused: u64,
    /// Nothing is recorded under their ids.
    pub not_recorded: u64,
}

/// What an audit counted and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Audit {
    /// Calls of the run.
    pub calls: u64,
    /// Request ids of the run.
    pub ids: u64,
    /// Ids for which a receipt was given.
    pub sales_acknowledged: u64,
    /// Those of them that stand as sales, once and as asked for.
    pub sales_standing: u64,
    /// Those of them that were taken back afterwards, as was asked for.
    pub sales_taken_back: u64,
    /// Ids for which units were held and no receipt was given.
    pub holds_acknowledged: u64,
    /// Refusals that stand in the ledger: more was asked for than was left of a window.
    pub refusals: u64,
    /// Those of them at whose time that was so.
    pub refusals_justified: u64,
    /// Ids that were refused by another rule, by the first reason's name. The ledger keeps nothing of them, and there is no
    /// such rule: each is a case.
    pub refused_by_rule: BTreeMap<String, u64>,
    /// Calls that were left without an answer of their own.
    pub unknown: Unknowns,
    /// Records in the ledger.
    pub records: u64,
    /// Entries in them.
    pub entries: u64,
    /// Entries for which nobody in the run asked, those of earlier runs among them.
    pub strangers: u64,
    /// Buyers' weeks that were added up.
    pub weeks: u64,
    /// How often each kind of case was found. Empty if none was.
    pub found: BTreeMap<CaseKind, u64>,
    /// The first cases of each kind.
    pub cases: Vec<Case>,
}

impl Audit {
    /// Whether all that was promised was kept.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// How many cases were found, of all kinds.
    pub fn total(&self) -> u64 {
        self.found.values().sum()
    }
}

/// Audits a run: its calls against all records of the ledger it sold into, read after its last call. `before` are the request ids
/// that stood there before it; empty where nobody has looked.
///
/// Takes time in proportion to n log n of calls and entries.
pub fn audit(history: &[Asked], records: &[v1::ExportedRecord], rule: &Rule, before: &HashSet<RequestId>) -> Audit {
    let mut cases = Cases::default();
    let entries = Entries::read(records, &mut cases);
    let mut audit = Audit {
        calls: history.len() as u64,
        records: records.len() as u64,
        entries: records.iter().map(|record| record.entries.len() as u64).sum(),
        ..Audit::default()
    };
    let lives = outcomes::check(history, &entries, before, &mut audit, &mut cases);
    windows::check(&entries, &lives, rule, &mut audit, &mut cases);
    (audit.found, audit.cases) = cases.into_parts();
    audit
}
