//! What an audit found, kept within bounds: every case is counted, the first of each kind are told.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::entries::Entry;
use crate::ids::{RequestId, SiteId};

/// The most cases of one kind that are told one by one.
const TOLD: usize = 20;

/// How a promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseKind {
    /// A receipt was given, and the ledger has no such sale.
    SaleLost,
    /// A request id stands in the ledger more than once.
    RecordedTwice,
    /// A buyer had more in a week than is allowed, at one time.
    AboveWindow,
    /// A refusal when enough was left, or one for another reason than what was left.
    RefusalUnjustified,
    /// It was said that no check is required, and every sale is to be checked.
    SoldUnrecorded,
    /// No was answered, and the ledger has a sale or a hold.
    RecordedAfterNo,
    /// Every attempt was said to have done nothing, and the ledger has something, or an answer says that it had.
    NotExecutedButRecorded,
    /// What stands is not what was answered, in another way.
    StandsOtherwise,
    /// An answer came that belongs to another call.
    AnswerOfAnother,
    /// Two answers about one id that cannot both be true.
    AnswersDisagree,
    /// Two receipts for one id that differ.
    ReceiptsDiffer,
    /// Two receipts for one id, each as if it were the first.
    ReplayNotMarked,
    /// What stands is not what was asked for: another site, quantity or verb.
    OtherContent,
    /// A sale counts at another time than its receipt says, or a hold ran out at another than was answered.
    OtherTime,
    /// A sale or hold is dated further from the rest of the run than the run was long.
    OutsideRun,
    /// What was asked for two buyers stands in one record.
    TwoBuyersInOneRecord,
    /// What was asked for one buyer stands in two records.
    OneBuyerInTwoRecords,
    /// In the record of one of the run's buyers stands what nobody of the run asked for, and did not stand there before.
    StrangerBesideOurs,
    /// An entry that cannot be read.
    Unreadable,
}

impl CaseKind {
    /// The kind in a few plain words.
    pub fn words(self) -> &'static str {
        match self {
            Self::SaleLost => "acknowledged sale not in the ledger",
            Self::RecordedTwice => "recorded more than once",
            Self::AboveWindow => "buyer above a window",
            Self::RefusalUnjustified => "refusal without a reason",
            Self::SoldUnrecorded => "free to sell without a record",
            Self::RecordedAfterNo => "recorded although the answer was no",
            Self::NotExecutedButRecorded => "recorded although said not to be executed",
            Self::StandsOtherwise => "stands otherwise than answered",
            Self::AnswerOfAnother => "answer that belongs to another call",
            Self::AnswersDisagree => "answers that cannot both be true",
            Self::ReceiptsDiffer => "two receipts that differ",
            Self::ReplayNotMarked => "repetition not marked as one",
            Self::OtherContent => "stands otherwise than asked for",
            Self::OtherTime => "counts at another time than was answered",
            Self::OutsideRun => "dated outside the run",
            Self::TwoBuyersInOneRecord => "two buyers in one record",
            Self::OneBuyerInTwoRecords => "one buyer in two records",
            Self::StrangerBesideOurs => "entry of nobody beside the run's own",
            Self::Unreadable => "entry that cannot be read",
        }
    }
}

impl fmt::Display for CaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// One broken promise. It names no buyer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Case {
    /// How it was broken.
    pub kind: CaseKind,
    /// Under which request id; `None` if it cannot be read.
    pub request: Option<RequestId>,
    /// At which site; `None` if it cannot be read.
    pub site: Option<SiteId>,
    /// What was to be expected.
    pub expected: String,
    /// What stands instead.
    pub stands: String,
}

/// Cases as they are found.
#[derive(Debug, Default)]
pub(super) struct Cases {
    found: BTreeMap<CaseKind, u64>,
    told: Vec<Case>,
}

impl Cases {
    pub(super) fn add(&mut self, case: Case) {
        let found = self.found.entry(case.kind).or_default();
        *found += 1;
        if *found <= TOLD as u64 {
            self.told.push(case);
        }
    }

    /// A case that shows at one entry of the ledger.
    pub(super) fn at(&mut self, kind: CaseKind, entry: &Entry, expected: impl Into<String>, stands: impl Into<String>) {
        let (request, site) = (Some(entry.request), Some(entry.site));
        self.add(Case { kind, request, site, expected: expected.into(), stands: stands.into() });
    }

    /// How many there are so far, of all kinds.
    pub(super) fn total(&self) -> u64 {
        self.found.values().sum()
    }

    /// The totals, and the cases told, kind by kind.
    pub(super) fn into_parts(mut self) -> (BTreeMap<CaseKind, u64>, Vec<Case>) {
        self.told.sort_by_key(|case| case.kind);
        (self.found, self.told)
    }
}
