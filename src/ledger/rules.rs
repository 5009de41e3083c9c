//! The ledger's semantics, stated once: from a record and a call to what is written and answered. The table of
//! `design.md` section 4, a function a column.
//!
//! Pure. The embedded store runs these functions; the Lua scripts of `redis/` restate them, and the slow model in `tests/`
//! checks both. Every function decides first and lists its writes last, so that a store can apply all of them or none.

use crate::ids::RequestId;
use crate::museum::Mutant;
use crate::policy::{Used, Window};
use crate::time::Timestamp;

use super::{
    Call, Claim, Claimed, Confirmed, DEAD_ENTRIES_PER_SITE, Entered, Entry, Event, EventKind, Kind,
    LATE_ENTRIES_PER_SITE, Late, LedgerError, Record, Released, Resolved, State, Voided,
};

/// What one call does to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<O> {
    /// What the caller is told.
    pub outcome: O,
    /// Entries to put in, or in the place of those with the same id. Empty: nothing changes.
    pub writes: Vec<Entry>,
    /// What goes to the outbox with them.
    pub events: Vec<Event>,
    /// The id was known and the record is left as it was.
    pub replayed: bool,
    /// The time that was decided by.
    pub at: Timestamp,
}

impl<O> Step<O> {
    fn replay(at: Timestamp, outcome: O) -> Self {
        Self { outcome, writes: Vec::new(), events: Vec::new(), replayed: true, at }
    }

    fn write(at: Timestamp, outcome: O, entry: Entry, event: Option<EventKind>) -> Self {
        let events = event.map(|kind| Event { kind, entry }).into_iter().collect();
        Self { outcome, writes: vec![entry], events, replayed: false, at }
    }
}

/// The time that decides: the later of the service's clock and the newest online entry, so that a clock that is behind
/// (or was set back) never dates a sale before one that is already there.
pub fn decides_at(record: &Record, now: Timestamp) -> Timestamp {
    record.entries().iter().filter(|e| !e.late).map(|e| e.at).max().map_or(now, |newest| newest.max(now))
}

/// What the record uses up of a window at `at`, the entry of `except` left out.
pub fn used(record: &Record, window: &Window, at: Timestamp, except: Option<RequestId>) -> Used {
    record.entries().iter().filter(|e| e.counts(at) && window.contains(e.at) && Some(e.request) != except).fold(
        Used::default(),
        |used, e| Used { units: used.units + u64::from(e.quantity), purchases: used.purchases.saturating_add(1) },
    )
}

/// A hold that has run out, as it is written when somebody passes over it.
fn run_out(hold: &Entry) -> Entry {
    Entry { state: State::Released, ..*hold }
}

fn expired(entry: &Entry, at: Timestamp) -> bool {
    entry.state == State::Held && !entry.counts(at)
}

/// A new id needs room: at most so many entries of one site that no longer count.
fn room(record: &Record, call: &Call, at: Timestamp) -> Result<(), LedgerError> {
    let dead = record.entries().iter().filter(|e| e.site == call.site && !e.counts(at)).count();
    if dead < DEAD_ENTRIES_PER_SITE { Ok(()) } else { Err(LedgerError::BuyerRecordFull) }
}

/// An id that was asked about before it was used can never become a sale afterwards.
fn close<O>(record: &Record, call: &Call, at: Timestamp, outcome: O) -> Result<Step<O>, LedgerError> {
    room(record, call, at)?;
    let closed = Entry {
        request: call.request,
        state: State::Closed,
        kind: Kind::Sale,
        late: false,
        over: false,
        quantity: 0,
        at,
        mark: at,
        site: call.site,
    };
    Ok(Step::write(at, outcome, closed, None))
}

/// `claim`: sells or holds if every window allows it. A known id answers with what became of it.
pub fn claim(record: &Record, call: &Call, claim: &Claim) -> Result<Step<Claimed>, LedgerError> {
    let at = decides_at(record, call.now);
    if let Some(entry) = record.find(call.request) {
        return claim_again(entry, call, claim, at);
    }
    if at >= claim.good_until {
        return Ok(Step { replayed: false, ..Step::replay(at, Claimed::AssessAgain) });
    }
    room(record, call, at)?;
    let fits = claim.windows.iter().all(|w| w.allows(used(record, w, at, None), claim.quantity));
    let (state, mark, event) = match (fits, claim.hold_for) {
        (false, _) => (State::Refused, at, None),
        (true, None) => (State::Sold, at, Some(EventKind::Sold)),
        (true, Some(span)) => (State::Held, at.plus(span), Some(EventKind::Held)),
    };
    let entry = Entry {
        request: call.request,
        state,
        kind: claim.kind(),
        late: false,
        over: false,
        quantity: claim.quantity,
        at,
        mark,
        site: call.site,
    };
    let outcome = match state {
        State::Sold => Claimed::Recorded(entry),
        State::Held => Claimed::Held(entry),
        _ => Claimed::Refused(entry),
    };
    let mut step = Step::write(at, outcome, entry, event);
    for hold in record.entries().iter().filter(|e| expired(e, at)) {
        step.writes.push(run_out(hold));
        step.events.push(Event { kind: EventKind::Released, entry: run_out(hold) });
    }
    Ok(step)
}

fn claim_again(entry: &Entry, call: &Call, claim: &Claim, at: Timestamp) -> Result<Step<Claimed>, LedgerError> {
    if entry.state == State::Closed {
        return Err(LedgerError::RequestIdClosed);
    }
    if entry.site != call.site || entry.quantity != claim.quantity || entry.kind != claim.kind() {
        return Err(LedgerError::RequestIdReused);
    }
    let outcome = match entry.state {
        State::Sold => Claimed::Recorded(*entry),
        State::Held if expired(entry, at) => {
            let released = run_out(entry);
            return Ok(Step::write(at, Claimed::HoldExpired(released), released, Some(EventKind::Released)));
        }
        State::Held => Claimed::Held(*entry),
        State::Released => Claimed::Released(*entry),
        State::Voided if Mutant::VoidedReplaysReceipt.is_on() => Claimed::Recorded(*entry),
        State::Voided => Claimed::Voided(*entry),
        State::Refused => Claimed::Refused(*entry),
        State::Closed => return Err(LedgerError::RequestIdClosed),
    };
    Ok(Step::replay(at, outcome))
}

/// `confirm`: makes a live hold a sale, at the time the hold was made.
pub fn confirm(record: &Record, call: &Call) -> Result<Step<Confirmed>, LedgerError> {
    let at = decides_at(record, call.now);
    let Some(entry) = record.find(call.request) else {
        return close(record, call, at, Confirmed::NotFound);
    };
    let outcome = match entry.state {
        _ if entry.site != call.site => Confirmed::NotYours,
        State::Held if expired(entry, at) => {
            let released = run_out(entry);
            return Ok(Step::write(at, Confirmed::HoldExpired(released), released, Some(EventKind::Released)));
        }
        State::Held => {
            let sold = Entry { state: State::Sold, mark: at, ..*entry };
            return Ok(Step::write(at, Confirmed::Sold(sold), sold, Some(EventKind::Confirmed)));
        }
        State::Sold => Confirmed::Sold(*entry),
        State::Released => Confirmed::HoldExpired(*entry),
        State::Voided => Confirmed::Voided(*entry),
        State::Refused | State::Closed => Confirmed::NotFound,
    };
    Ok(Step::replay(at, outcome))
}

/// `release`: gives a hold back.
pub fn release(record: &Record, call: &Call) -> Result<Step<Released>, LedgerError> {
    let at = decides_at(record, call.now);
    let Some(entry) = record.find(call.request) else {
        return close(record, call, at, Released::NotFound);
    };
    let outcome = match entry.state {
        _ if entry.site != call.site => Released::NotYours,
        State::Held => {
            let released = give_back(entry, at);
            return Ok(Step::write(at, Released::Released(released), released, Some(EventKind::Released)));
        }
        State::Sold => Released::AlreadySold(*entry),
        State::Released => Released::Released(*entry),
        State::Voided => Released::Voided(*entry),
        State::Refused | State::Closed => Released::NotFound,
    };
    Ok(Step::replay(at, outcome))
}

/// A hold given back: at once, or when it ran out if that was before.
fn give_back(hold: &Entry, at: Timestamp) -> Entry {
    Entry { state: State::Released, mark: hold.mark.min(at), ..*hold }
}

/// `void`: takes a sale back, or gives a hold back. What it used of the windows of its own time is free again.
pub fn void(record: &Record, call: &Call) -> Result<Step<Voided>, LedgerError> {
    let at = decides_at(record, call.now);
    let Some(entry) = record.find(call.request) else {
        return close(record, call, at, Voided::NotFound);
    };
    let outcome = match entry.state {
        _ if entry.site != call.site => Voided::NotYours,
        State::Held => {
            let released = give_back(entry, at);
            return Ok(Step::write(at, Voided::Released(released), released, Some(EventKind::Released)));
        }
        State::Sold => {
            let voided = Entry { state: State::Voided, mark: at, ..*entry };
            return Ok(Step::write(at, Voided::Voided(voided), voided, Some(EventKind::Voided)));
        }
        State::Released => Voided::Released(*entry),
        State::Voided => Voided::Voided(*entry),
        State::Refused | State::Closed => Voided::NotFound,
    };
    Ok(Step::replay(at, outcome))
}

/// `late`: records a sale that was made on paper. It happened, so no limit refuses it; what does not fit is marked over.
pub fn late(record: &Record, call: &Call, late: &Late) -> Result<Step<Entered>, LedgerError> {
    let at = decides_at(record, call.now);
    let earlier = record.find(call.request);
    if let Some(entry) = earlier {
        let same = entry.site == call.site && entry.quantity == late.quantity;
        match entry.state {
            State::Closed => {}
            _ if !same => return Err(LedgerError::RequestIdReused),
            State::Sold => return Ok(Step::replay(at, Entered::AlreadyRecorded(*entry))),
            State::Voided => return Ok(Step::replay(at, Entered::AlreadyVoided(*entry))),
            State::Held | State::Released | State::Refused => {}
        }
    }
    let entered = record.entries().iter().filter(|e| e.late && e.site == call.site).count();
    if earlier.is_none() && entered >= LATE_ENTRIES_PER_SITE {
        return Err(LedgerError::BuyerRecordFull);
    }
    let fits = late.windows.iter().all(|w| w.allows(used(record, w, at, Some(call.request)), late.quantity));
    let was_refused = earlier.is_some_and(|e| e.state == State::Refused);
    let sold = Entry {
        request: call.request,
        state: State::Sold,
        kind: earlier.map_or(Kind::Sale, |e| e.kind),
        late: true,
        over: !fits || was_refused,
        quantity: late.quantity,
        at: late.sold_at,
        mark: at,
        site: call.site,
    };
    Ok(Step::write(at, Entered::Sold(sold), sold, Some(EventKind::Late)))
}

/// `resolve`: what became of this id. An id that was never used is closed by the question.
pub fn resolve(record: &Record, call: &Call) -> Result<Step<Resolved>, LedgerError> {
    let at = decides_at(record, call.now);
    let Some(entry) = record.find(call.request) else {
        return close(record, call, at, Resolved::NotRecorded);
    };
    let outcome = match entry.state {
        _ if entry.site != call.site => Resolved::NotYours,
        State::Held if expired(entry, at) => {
            let released = run_out(entry);
            return Ok(Step::write(at, Resolved::Released(released), released, Some(EventKind::Released)));
        }
        State::Sold => Resolved::Recorded(*entry),
        State::Held => Resolved::Held(*entry),
        State::Released => Resolved::Released(*entry),
        State::Voided => Resolved::Voided(*entry),
        State::Refused => Resolved::Refused(*entry),
        State::Closed => Resolved::NotRecorded,
    };
    Ok(Step::replay(at, outcome))
}
