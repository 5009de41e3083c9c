//! Id by id: whether what stands is what was answered, once, as asked for, and in the record of the right buyer.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::cases::{Case, CaseKind, Cases};
use super::dates;
use super::entries::{Entries, Entry};
use super::table::{Standing, Standings, after, is_by_ledger};
use super::{Audit, Unknowns};
use crate::ids::RequestId;
use crate::load::history::{Asked, Outcome, Verb};

/// The most calls of one id, all under way together, whose every order is tried; more are taken in the order in which they
/// were sent.
const AT_ONCE: usize = 8;

/// What the history knows of when an entry began and ceased to count, since the run began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// When the first answer was there that could not have been given without it; the longest time there is if none was.
    pub told: Duration,
    /// When the first call was sent that may have ended it; `None` if none was: then only its own time ends it.
    pub given_back: Option<Duration>,
}

impl Life {
    /// What nobody in the run asked for may have come and gone at any time.
    const STRANGER: Self = Self { told: Duration::MAX, given_back: Some(Duration::ZERO) };
}

/// Checks every id of the run; gives the life of every entry, by its place.
pub(super) fn check(
    history: &[Asked],
    entries: &Entries,
    before: &HashSet<RequestId>,
    audit: &mut Audit,
    cases: &mut Cases,
) -> Vec<Life> {
    let calls = by_request(history);
    let mut lives = vec![Life::STRANGER; entries.len()];
    let mut strangers = Vec::new();
    let mut homes = Vec::new();
    let mut standing = entries.by_request().peekable();
    for of_id in calls.chunk_by(|a, b| a.request == b.request) {
        let Some(first) = of_id.first() else { continue };
        while let Some((_, entry)) = standing.next_if(|(_, entry)| entry.request < first.request) {
            strangers.push(entry);
        }
        let mut ours = Vec::new();
        while let Some((place, entry)) = standing.next_if(|(_, entry)| entry.request == first.request) {
            if let Some(life) = lives.get_mut(place) {
                *life = life_of(of_id);
            }
            homes.push((first.buyer, entry));
            ours.push(entry);
        }
        audit.ids += 1;
        judge(of_id, &ours, audit, cases);
    }
    strangers.extend(standing.map(|(_, entry)| entry));
    audit.strangers = strangers.len() as u64;
    dates::check(history, homes.iter().map(|(_, entry)| *entry), &strangers, cases);
    check_homes(homes, &strangers, before, cases);
    lives
}

/// All calls by request id, and those of one id by when they were sent.
fn by_request(history: &[Asked]) -> Vec<&Asked> {
    // The ids stand beside each other while they are sorted: of millions of calls most of the time would go into fetching them.
    let mut calls: Vec<(RequestId, &Asked)> = history.iter().map(|call| (call.request, call)).collect();
    let when = |call: &Asked| (call.sent, call.answered);
    calls.sort_unstable_by(|(id, a), (other, b)| id.cmp(other).then_with(|| when(a).cmp(&when(b))));
    calls.into_iter().map(|(_, call)| call).collect()
}

fn life_of(calls: &[&Asked]) -> Life {
    let recorded = |call: &&&Asked| matches!(call.outcome, Outcome::Approved { .. } | Outcome::Held { .. });
    // Or found it run out, by a clock that may have been ahead of another's.
    let gave_back = |call: &&&Asked| matches!(call.outcome, Outcome::Released | Outcome::HoldExpired | Outcome::Voided);
    let perhaps = calls.iter().skip(1).filter(|call| call.outcome.is_unknown());
    Life {
        told: calls.iter().filter(recorded).map(|call| call.answered).min().unwrap_or(Duration::MAX),
        given_back: calls.iter().filter(gave_back).chain(perhaps).map(|call| call.sent).min(),
    }
}

/// One id: its calls by the time they were sent, and what stands under it.
fn judge(calls: &[&Asked], entries: &[&Entry], audit: &mut Audit, cases: &mut Cases) {
    let before = cases.total();
    let entry = entries.first().copied();
    let stands = entry.map_or(Standing::Absent, |entry| entry.standing);
    if let [first, _, ..] = entries {
        cases.at(CaseKind::RecordedTwice, first, "one entry", format!("{} entries", entries.len()));
    }
    check_answers(calls, cases);
    check_standing(calls, stands, cases);
    check_reasons(calls, cases);
    check_repetitions(calls, cases);
    check_receipts(calls, entry, cases);
    if let Some(entry) = entry {
        check_content(calls, entry, cases);
        check_end(calls, entry, cases);
    }
    count(calls, stands, cases.total() == before, audit);
}

fn case(call: &Asked, kind: CaseKind, expected: impl Into<String>, stands: impl Into<String>) -> Case {
    let (request, site) = (Some(call.request), Some(call.site));
    Case { kind, request, site, expected: expected.into(), stands: stands.into() }
}

/// Every answer that came belongs to its call.
fn check_answers(calls: &[&Asked], cases: &mut Cases) {
    for call in calls.iter().filter(|call| matches!(call.outcome, Outcome::OfAnother(_))) {
        cases.add(case(call, CaseKind::AnswerOfAnother, "an answer to this call", told(call)));
    }
}

/// What stands must be what the answers, taken in some possible order, lead to.
fn check_standing(calls: &[&Asked], stands: Standing, cases: &mut Cases) {
    let Some(first) = calls.first() else { return };
    let possible = possible(calls);
    if possible.is_empty() {
        let told: Vec<String> = calls.iter().map(|call| told(call)).collect();
        cases.add(case(first, CaseKind::AnswersDisagree, "answers that can all be true", told.join(", ")));
        return;
    }
    if possible.contains(stands) {
        return;
    }
    let any = |is: fn(&Outcome) -> bool| calls.iter().any(|call| is(&call.outcome));
    let counts = matches!(stands, Standing::Sold | Standing::Held);
    let kind = if calls.iter().all(|call| matches!(call.outcome, Outcome::NotExecuted(_))) {
        CaseKind::NotExecutedButRecorded
    } else if any(|outcome| matches!(outcome, Outcome::Approved { .. })) && possible.contains(Standing::Sold) {
        CaseKind::SaleLost
    } else if counts && any(is_no) {
        CaseKind::RecordedAfterNo
    } else {
        CaseKind::StandsOtherwise
    };
    cases.add(case(first, kind, possible.to_string(), stands.to_string()));
}

/// Every sale is checked, and refused for what is left or not at all. One case of each kind for an id.
fn check_reasons(calls: &[&Asked], cases: &mut Cases) {
    let first = |is: fn(&Outcome) -> bool| calls.iter().find(|call| is(&call.outcome));
    if let Some(call) = first(|outcome| matches!(outcome, Outcome::NotRequired)) {
        cases.add(case(call, CaseKind::SoldUnrecorded, "every sale checked", told(call)));
    }
    if let Some(call) = first(|outcome| matches!(outcome, Outcome::Refused(reasons) if !is_by_ledger(reasons))) {
        cases.add(case(call, CaseKind::RefusalUnjustified, "refused (QUOTA_EXHAUSTED)", told(call)));
    }
}

/// What is repeated was done before, by a call that was answered so or left unknown: one that was said to have done nothing did
/// not do it. One case for an id.
fn check_repetitions(calls: &[&Asked], cases: &mut Cases) {
    let did_nothing_and_did =
        calls.iter().filter(|call| call.replayed && call.verb != Verb::Resolve).find_map(|call| {
            // Which verbs record what this one found.
            let by: &[Verb] = match call.outcome {
                Outcome::Approved { .. } => &[Verb::Purchase, Verb::Confirm],
                Outcome::Held { .. } => &[Verb::Hold],
                _ => return None,
            };
            let earlier = || calls.iter().filter(|other| by.contains(&other.verb) && other.sent <= call.answered);
            let same = |other: &Asked| std::mem::discriminant(&other.outcome) == std::mem::discriminant(&call.outcome);
            let did = |other: &&&Asked| other.outcome.is_unknown() || (!other.replayed && same(other));
            let said_not_to = earlier().find(|other| was_not_executed(&other.outcome))?;
            earlier().find(did).is_none().then_some((*said_not_to, *call))
        });
    if let Some((nothing, repetition)) = did_nothing_and_did {
        let stands = format!("{}, as a repetition", told(repetition));
        cases.add(case(nothing, CaseKind::NotExecutedButRecorded, told(nothing), stands));
    }
}

fn is_no(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(_) | Outcome::NotRequired | Outcome::NotRecorded | Outcome::NotFound)
}

/// A call and its answer in a few words.
fn told(call: &Asked) -> String {
    let answer = match &call.outcome {
        Outcome::Approved { .. } => "approved".to_owned(),
        Outcome::Held { .. } => "held".to_owned(),
        Outcome::Refused(reasons) => format!("refused ({})", reasons.join(", ")),
        Outcome::NotRequired => "not required".to_owned(),
        Outcome::Released => "released".to_owned(),
        Outcome::HoldExpired => "hold expired".to_owned(),
        Outcome::Voided => "voided".to_owned(),
        Outcome::AlreadySold => "already sold".to_owned(),
        Outcome::NotFound => "not found".to_owned(),
        Outcome::NotRecorded => "not recorded".to_owned(),
        Outcome::NotYours => "not yours".to_owned(),
        Outcome::NotExecuted(reason) => format!("not executed ({reason})"),
        Outcome::Unknown(why) => format!("unknown ({why})"),
        Outcome::OfAnother(fields) => format!("the answer of another call ({fields})"),
    };
    let verb = match call.verb {
        Verb::Purchase => "purchase",
        Verb::Hold => "hold",
        Verb::Confirm => "confirm",
        Verb::Release => "release",
        Verb::Void => "void",
        Verb::Resolve => "resolve",
    };
    format!("{verb}: {answer}")
}

/// What may stand after these calls, each of which took effect at one moment between being sent and being answered; one
/// without an answer at any later moment, or never. Empty: no order of them explains the answers.
fn possible(calls: &[&Asked]) -> Standings {
    let unanswered: Vec<&Asked> = calls.iter().copied().filter(|call| call.outcome.is_unknown()).collect();
    let answered = calls.iter().copied().filter(|call| !call.outcome.is_unknown() && !was_not_executed(&call.outcome));
    let mut standings = Standings::one(Standing::Absent);
    let mut together: Vec<&Asked> = Vec::new();
    let mut last_answer = Duration::ZERO;
    for call in answered {
        if !together.is_empty() && (call.sent >= last_answer || together.len() == AT_ONCE) {
            standings = after_all(standings, &together, &unanswered);
            together.clear();
        }
        last_answer = last_answer.max(call.answered);
        together.push(call);
    }
    if !together.is_empty() {
        standings = after_all(standings, &together, &unanswered);
    }
    standings.and_later(unanswered.iter().map(|call| call.verb))
}

fn was_not_executed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::NotExecuted(_))
}

/// What may stand after a call that was answered so, if calls without an answer may have arrived before it.
fn after_one(from: Standings, call: &Asked, unanswered: &[&Asked]) -> Standings {
    let arrived = unanswered.iter().filter(|lost| lost.sent <= call.answered).map(|lost| lost.verb);
    let found = from.and_later(arrived);
    let left = found.iter().filter_map(|found| after(call.verb, found, &call.outcome));
    left.fold(Standings::NONE, |left, one| left.or(Standings::one(one)))
}

/// What may stand after some calls that were under way together, in any order in which none comes before another that had
/// been answered when it was sent.
fn after_all(from: Standings, together: &[&Asked], unanswered: &[&Asked]) -> Standings {
    if let [only] = together {
        return after_one(from, only, unanswered);
    }
    // By which of them have taken effect, a bit each.
    let mut reached = BTreeMap::from([(0_u32, from)]);
    for _ in together {
        let mut further: BTreeMap<u32, Standings> = BTreeMap::new();
        for (done, before) in reached {
            let open = || together.iter().enumerate().filter(|(which, _)| done & (1 << which) == 0);
            for (which, call) in open() {
                if open().any(|(_, other)| other.answered < call.sent) {
                    continue;
                }
                let left = after_one(before, call, unanswered);
                if !left.is_empty() {
                    let so_far = further.entry(done | (1 << which)).or_insert(Standings::NONE);
                    *so_far = so_far.or(left);
                }
            }
        }
        reached = further;
    }
    reached.into_values().fold(Standings::NONE, Standings::or)
}

/// All receipts of an id are one receipt, and the ledger has its time.
fn check_receipts(calls: &[&Asked], entry: Option<&Entry>, cases: &mut Cases) {
    let receipt = |call: &&&Asked| match call.outcome {
        Outcome::Approved { at } => Some(at),
        _ => None,
    };
    let mut receipts = calls.iter().filter_map(|call| Some((*call, receipt(&call)?)));
    let Some((first, at)) = receipts.next() else { return };
    if let Some((_, other)) = receipts.find(|(_, other)| *other != at) {
        cases.add(case(first, CaseKind::ReceiptsDiffer, format!("sold at {at} ms"), format!("sold at {other} ms")));
    } else if let Some(entry) = entry
        && matches!(entry.standing, Standing::Sold | Standing::Voided)
        && entry.at != at
    {
        cases.at(CaseKind::OtherTime, entry, format!("sold at {at} ms"), format!("sold at {} ms", entry.at));
    }
    // A question only reports; of the calls that record, one was the first.
    let as_if_first = |call: &&&Asked| receipt(call).is_some() && call.verb != Verb::Resolve && !call.replayed;
    let firsts = calls.iter().filter(as_if_first).count();
    if firsts > 1 {
        cases.add(case(first, CaseKind::ReplayNotMarked, "one that is no repetition", format!("{firsts}")));
    }
}

/// A hold that nobody gave back ran out when it was said that it would.
fn check_end(calls: &[&Asked], entry: &Entry, cases: &mut Cases) {
    let gave_back = |call: &&Asked| {
        matches!(call.verb, Verb::Release | Verb::Void)
            && (call.outcome == Outcome::Released || call.outcome.is_unknown())
    };
    let said = calls.iter().find_map(|call| match call.outcome {
        Outcome::Held { until } => Some(until),
        _ => None,
    });
    if let Some(until) = said
        && entry.standing == Standing::Released
        && entry.mark != until
        && !calls.iter().any(gave_back)
    {
        cases.at(
            CaseKind::OtherTime,
            entry,
            format!("held until {until} ms"),
            format!("released at {} ms", entry.mark),
        );
    }
}

/// What stands is what was asked for.
fn check_content(calls: &[&Asked], entry: &Entry, cases: &mut Cases) {
    let claims = |call: &&&Asked| matches!(call.verb, Verb::Purchase | Verb::Hold) && !was_not_executed(&call.outcome);
    let Some(claim) = calls.iter().find(claims) else { return };
    if entry.standing == Standing::Closed {
        return;
    }
    let hold = claim.verb == Verb::Hold;
    let same = (entry.site, entry.quantity, entry.hold, entry.late) == (claim.site, claim.quantity, hold, false);
    if !same {
        let words = |hold, late| match (hold, late) {
            (_, true) => "late sale",
            (true, false) => "hold",
            (false, false) => "sale",
        };
        let asked = format!("{} of {} at {}", words(hold, false), claim.quantity, claim.site);
        let stands = format!("{} of {} at {}", words(entry.hold, entry.late), entry.quantity, entry.site);
        cases.add(case(claim, CaseKind::OtherContent, asked, stands));
    }
}

fn count(calls: &[&Asked], stands: Standing, clean: bool, audit: &mut Audit) {
    let any = |is: fn(&Outcome) -> bool| calls.iter().any(|call| is(&call.outcome));
    if any(|outcome| matches!(outcome, Outcome::Approved { .. })) {
        audit.sales_acknowledged += 1;
        audit.sales_standing += u64::from(clean && stands == Standing::Sold);
        audit.sales_taken_back += u64::from(clean && stands == Standing::Voided);
    } else if any(|outcome| matches!(outcome, Outcome::Held { .. })) {
        audit.holds_acknowledged += 1;
    }
    let by_rule = calls.iter().find_map(|call| match &call.outcome {
        Outcome::Refused(reasons) if !is_by_ledger(reasons) => Some(reasons),
        _ => None,
    });
    if let Some(reasons) = by_rule
        && stands != Standing::Refused
    {
        let name = reasons.first().cloned().unwrap_or_default();
        *audit.refused_by_rule.entry(name).or_default() += 1;
    }
    let unknown = calls.iter().filter(|call| call.outcome.is_unknown()).count() as u64;
    let Unknowns { calls, sold, held, taken_back, refused, not_recorded } = &mut audit.unknown;
    *calls += unknown;
    *match stands {
        Standing::Sold => sold,
        Standing::Held => held,
        Standing::Released | Standing::Voided => taken_back,
        Standing::Refused => refused,
        Standing::Absent | Standing::Closed => not_recorded,
    } += unknown;
}

/// A buyer's entries stand in one record, and in it stand no others. One case for each buyer or record.
fn check_homes(mut homes: Vec<(u64, &Entry)>, strangers: &[&Entry], before: &HashSet<RequestId>, cases: &mut Cases) {
    homes.sort_unstable_by_key(|(buyer, entry)| (*buyer, entry.record));
    for of_buyer in homes.chunk_by(|(a, _), (b, _)| a == b) {
        if let ([(_, first), ..], [.., (_, last)]) = (of_buyer, of_buyer)
            && first.record != last.record
        {
            let kind = CaseKind::OneBuyerInTwoRecords;
            cases.at(kind, last, format!("the record of {}", first.request), "another record");
        }
    }
    homes.sort_unstable_by_key(|(buyer, entry)| (entry.record, *buyer));
    for in_record in homes.chunk_by(|(_, a), (_, b)| a.record == b.record) {
        if let ([(one, first), ..], [.., (other, last)]) = (in_record, in_record)
            && one != other
        {
            let kind = CaseKind::TwoBuyersInOneRecord;
            cases.at(kind, last, format!("not in the record of {}", first.request), "the same record");
        }
    }
    // What was recorded before the run began is an earlier run's, whose made-up people may have had the same numbers; a hold
    // that it forgot may run out meanwhile. Nothing that this run causes is dated before its first entry; and what was seen
    // before the run is earlier whatever its date, which a simulated clock that starts again puts into this run's time.
    let begun = homes.iter().map(|(_, entry)| entry.at).min();
    let earlier = |entry: &Entry| begun.is_some_and(|begun| entry.at < begun) || before.contains(&entry.request);
    for stranger in strangers.iter().filter(|stranger| !earlier(stranger)) {
        let beside = homes.partition_point(|(_, entry)| entry.record < stranger.record);
        if let Some((_, ours)) = homes.get(beside).filter(|(_, entry)| entry.record == stranger.record) {
            let expected = format!("only the run's own beside {}", ours.request);
            cases.at(CaseKind::StrangerBesideOurs, stranger, expected, stranger.standing.to_string());
        }
    }
}
