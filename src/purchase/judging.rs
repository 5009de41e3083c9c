//! One line, or one id, while it is judged: what the rules say of it, and what its buyer has left.

use smallvec::{SmallVec, smallvec};

use super::prepare::{Known, Prepared, PreparedLine};
use super::{Caller, Earlier, Failure, LineAnswer, Outcome, Standing};
use crate::ids::RequestId;
use crate::ledger::{Call, Entry, LedgerError, Record};
use crate::policy::{self, Assessment, Counted, Judgement, Line, LineSet, Visit, Window, Windows};
use crate::time::Timestamp;

/// One line while it is judged, with all that its judgement rests on.
#[derive(Clone, Copy)]
pub(super) struct Judging<'a> {
    pub(super) visit: &'a Prepared,
    pub(super) index: usize,
    pub(super) line: &'a PreparedLine,
    pub(super) caller: &'a Caller,
    pub(super) granted: LineSet,
    pub(super) unsettled: LineSet,
}

impl Judging<'_> {
    pub(super) fn asked(&self) -> &Line {
        #[expect(clippy::indexing_slicing, reason = "`prepare` pushes both lists together")]
        &self.visit.visit.lines[self.index]
    }

    pub(super) fn assess(&self, at: Timestamp) -> Assessment {
        self.visit.programme.assess(&self.visit.visit, self.index, &self.caller.place, at, self.granted)
    }

    /// Refused as things stand, but not if the lines that failed turn out to be granted.
    pub(super) fn leans_on_unsettled(&self, at: Timestamp) -> bool {
        let mut hoped = self.granted;
        for index in (0..self.visit.lines.len()).filter(|&index| self.unsettled.contains(index)) {
            hoped = hoped.with(index);
        }
        let verdict = self.visit.programme.assess(&self.visit.visit, self.index, &self.caller.place, at, hoped);
        hoped != self.granted && matches!(verdict, Assessment::Judged(j) if j.refusals.is_empty())
    }

    pub(super) fn every_reason(
        &self,
        judgement: Judgement,
        record: &Record,
        at: Timestamp,
    ) -> SmallVec<[policy::Reason; 1]> {
        let mut reasons = judgement.refusals;
        reasons.extend(policy::quota_reason(&judgement.windows, &history(record, at), self.asked().quantity, at));
        reasons
    }

    /// The reason of a stored refusal, as things stand now. It may be that nothing would stand in the way today.
    pub(super) fn refused(&self, windows: &[Window], record: &Record, at: Timestamp) -> SmallVec<[policy::Reason; 1]> {
        stored_refusal(windows, record, self.asked().quantity, at)
    }

    pub(super) fn standing(&self, windows: &[Window], record: &Record, at: Timestamp) -> Standing {
        let history = history(record, at);
        let place = &self.caller.place;
        let next = self.visit.programme.next_chance(&self.visit.visit, self.index, place, at, &history);
        Standing {
            left: policy::left(windows, &history, at),
            next,
            earlier: earlier(windows, record, at, self.line.request),
        }
    }

    pub(super) fn answer(&self, outcome: Outcome, standing: Option<Standing>) -> LineAnswer {
        let (request, echo) = (self.line.request, self.line.echo.clone());
        LineAnswer { request, replayed: false, outcome, standing, echo }
    }
}

impl Known {
    pub(super) fn call(&self, caller: &Caller, now: Timestamp) -> Call {
        Call { request: self.request, site: caller.site, terminal: caller.terminal, now }
    }

    /// The call names no visit, so what is left and when next are told for the buyer in person, one unit.
    fn in_person(&self) -> Visit {
        let line = Line { buyer: self.person, relation: None, papers: SmallVec::new(), quantity: 1 };
        Visit { agent: None, lines: smallvec![line], family: SmallVec::new() }
    }

    fn windows(&self, caller: &Caller, at: Timestamp) -> Windows {
        match self.programme.assess(&self.in_person(), 0, &caller.place, at, LineSet::default()) {
            Assessment::Judged(judgement) => judgement.windows,
            Assessment::NotRequired(_) => Windows::new(),
        }
    }

    pub(super) fn refused(&self, caller: &Caller, record: &Record, at: Timestamp) -> SmallVec<[policy::Reason; 1]> {
        let quantity = record.find(self.request).map_or(1, |entry| entry.quantity);
        stored_refusal(&self.windows(caller, at), record, quantity, at)
    }

    pub(super) fn standing(&self, caller: &Caller, record: &Record, at: Timestamp) -> Option<Standing> {
        let windows = self.windows(caller, at);
        if windows.is_empty() {
            return None;
        }
        let history = history(record, at);
        let next = self.programme.next_chance(&self.in_person(), 0, &caller.place, at, &history);
        Some(Standing {
            left: policy::left(&windows, &history, at),
            next,
            earlier: earlier(&windows, record, at, Some(self.request)),
        })
    }
}

/// A read that failed wrote nothing, however it failed.
pub(super) fn unread(error: LedgerError) -> Failure {
    Failure::Ledger(match error {
        LedgerError::Unconfirmed(why) => LedgerError::StoreUnavailable(why),
        other => other,
    })
}

/// The record as rules may see it: what counts, without ids and sites.
fn history(record: &Record, at: Timestamp) -> SmallVec<[Counted; 4]> {
    let counted = |e: &Entry| Counted { at: e.at, units: e.quantity, held_until: e.held_until() };
    record.entries().iter().filter(|e| e.counts(at)).map(counted).collect()
}

/// What counts in these windows, but for the purchase that is being answered.
pub(super) fn earlier(windows: &[Window], record: &Record, at: Timestamp, own: Option<RequestId>) -> Vec<Earlier> {
    let entries = record.entries().iter();
    entries
        .filter(|e| e.counts(at) && Some(e.request) != own && windows.iter().any(|w| w.contains(e.at)))
        .map(|e| Earlier { at: e.at, quantity: e.quantity, site: e.site, held: e.held_until().is_some() })
        .collect()
}

/// A stored refusal stays refused. Why, as things stand now; where nothing would stand in the way any more, that it was.
fn stored_refusal(windows: &[Window], record: &Record, quantity: u32, at: Timestamp) -> SmallVec<[policy::Reason; 1]> {
    let reason = policy::quota_reason(windows, &history(record, at), quantity, at).unwrap_or_else(|| policy::Reason {
        refusal: policy::Refusal::QuotaExhausted,
        why: "This request was refused when it was made, and stays refused; a new attempt takes a new request id."
            .into(),
    });
    smallvec![reason]
}
