#[cfg(test)]
mod rules;

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::RequestId;
use crate::load::history::{Outcome, Verb};

/// Monday 2 March 2020, 00:00 in Seoul.
const MONDAY: i64 = 1_583_074_800_000;
const WEEK: i64 = 7 * 24 * 3_600_000;
const RULE: Rule = Rule { units_a_week: Some(2), purchases_a_week: Some(1) };

fn id(number: u8) -> RequestId {
    RequestId::from_bytes([number; 16]).unwrap()
}

fn quota() -> Outcome {
    Outcome::Refused(vec!["QUOTA_EXHAUSTED".into()])
}

fn approved(at: i64) -> Outcome {
    Outcome::Approved { at: MONDAY + at }
}

/// Held until 900 ms after [`MONDAY`].
fn held() -> Outcome {
    Outcome::Held { until: MONDAY + 900 }
}

fn unknown() -> Outcome {
    Outcome::Unknown("COMMIT_UNCONFIRMED".into())
}

fn not_executed() -> Outcome {
    Outcome::NotExecuted("OVERLOADED".into())
}

/// A call of buyer 1 at site `A` for two units, sent at `sent` and answered 5 ms later.
fn asked(number: u8, verb: Verb, sent: u64, outcome: Outcome) -> Asked {
    let claim = matches!(verb, Verb::Purchase | Verb::Hold);
    Asked {
        request: id(number),
        buyer: 1,
        site: "A".parse().unwrap(),
        verb,
        quantity: if claim { 2 } else { 0 },
        intended: Duration::from_millis(sent),
        sent: Duration::from_millis(sent),
        answered: Duration::from_millis(sent + 5),
        replayed: false,
        outcome,
    }
}

fn replayed(call: Asked) -> Asked {
    Asked { replayed: true, ..call }
}

fn by(buyer: u64, call: Asked) -> Asked {
    Asked { buyer, ..call }
}

fn time(millis: i64) -> prost_types::Timestamp {
    let millis = MONDAY + millis;
    let nanos = i32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap();
    prost_types::Timestamp { seconds: millis.div_euclid(1000), nanos }
}

/// An entry of two units at site `A`, with times since [`MONDAY`].
fn entry(number: u8, state: v1::EntryState, at: i64, mark: i64) -> v1::ExportedEntry {
    v1::ExportedEntry {
        request_id: id(number).to_string(),
        state: state.into(),
        site: "A".into(),
        quantity: if state == v1::EntryState::Closed { 0 } else { 2 },
        hold: matches!(state, v1::EntryState::Held | v1::EntryState::Released),
        late: false,
        over: false,
        at: Some(time(at)),
        mark: Some(time(mark)),
    }
}

fn sold(number: u8, at: i64) -> v1::ExportedEntry {
    entry(number, v1::EntryState::Sold, at, at)
}

fn records(records: &[&[v1::ExportedEntry]]) -> Vec<v1::ExportedRecord> {
    let numbered = (1..).zip(records);
    numbered.map(|(ordinal, entries)| v1::ExportedRecord { ordinal, entries: entries.to_vec() }).collect()
}

/// As where nobody has looked what stood there before.
fn audit(history: &[Asked], records: &[v1::ExportedRecord], rule: &Rule) -> Audit {
    super::audit(history, records, rule, &HashSet::new())
}

/// Exactly these kinds are found, once each.
fn finds(history: &[Asked], ledger: &[&[v1::ExportedEntry]], kinds: &[CaseKind]) {
    let audit = audit(history, &records(ledger), &RULE);
    let expected: BTreeMap<CaseKind, u64> = kinds.iter().map(|kind| (*kind, 1)).collect();
    assert_eq!(audit.found, expected, "{:#?}", audit.cases);
    assert_eq!(audit.is_clean(), kinds.is_empty());
}

use CaseKind::*;
use Verb::{Confirm, Hold, Purchase, Release, Resolve, Void};
use v1::EntryState::{Closed, Held, Refused, Released, Sold, Voided};

#[test]
fn a_run_that_kept_its_promises_is_clean_and_counted() {
    let history = [
        // Sold, retried, asked about.
        asked(1, Purchase, 0, approved(10)),
        replayed(asked(1, Purchase, 20, approved(10))),
        replayed(asked(1, Resolve, 30, approved(10))),
        // A second try of the same buyer at another site.
        asked(2, Purchase, 40, quota()),
        // Held, confirmed, taken back.
        by(2, asked(3, Hold, 0, held())),
        by(2, asked(3, Confirm, 10, approved(5))),
        by(2, asked(3, Void, 20, Outcome::Voided)),
        // Held and given back; then held and run out unseen, found to have run out.
        by(2, asked(4, Hold, 40, held())),
        by(2, asked(4, Release, 50, Outcome::Released)),
        by(3, asked(5, Hold, 0, held())),
        by(4, asked(6, Hold, 0, held())),
        by(4, asked(6, Confirm, 9_000, Outcome::HoldExpired)),
        // Unknown: one arrived, one did not and was closed, one that nobody asked about again.
        by(6, asked(9, Purchase, 0, unknown())),
        by(6, replayed(asked(9, Resolve, 100, approved(50)))),
        by(7, asked(10, Purchase, 0, unknown())),
        by(7, asked(10, Resolve, 100, Outcome::NotRecorded)),
        by(8, asked(11, Hold, 0, unknown())),
        // Turned away, then sold.
        by(9, asked(12, Purchase, 0, not_executed())),
        by(9, asked(12, Purchase, 50, approved(50))),
        // Turned away for good.
        by(9, asked(13, Purchase, 90, not_executed())),
    ];
    let ledger = records(&[
        &[sold(1, 10), entry(2, Refused, 40, 40)],
        &[v1::ExportedEntry { hold: true, ..entry(3, Voided, 5, 25) }, entry(4, Released, 45, 55)],
        &[entry(5, Held, 0, 900)],
        &[entry(6, Released, 0, 900)],
        &[sold(9, 50)],
        &[entry(10, Closed, 100, 100)],
        &[entry(11, Held, 5, 905)],
        &[sold(12, 50)],
        &[sold(99, 50)],
    ]);
    let audit = audit(&history, &ledger, &RULE);
    assert_eq!(audit.cases, []);
    let expected = Audit {
        calls: 20,
        ids: 11,
        sales_acknowledged: 4,
        sales_standing: 3,
        sales_taken_back: 1,
        holds_acknowledged: 3,
        refusals: 1,
        refusals_justified: 1,
        unknown: Unknowns { calls: 3, sold: 1, held: 1, not_recorded: 1, ..Unknowns::default() },
        records: 9,
        entries: 11,
        strangers: 1,
        weeks: 9,
        ..Audit::default()
    };
    assert_eq!(audit, expected);
}

#[test]
fn a_receipt_without_a_sale_is_a_case() {
    let sale = || asked(1, Purchase, 0, approved(10));
    finds(&[sale()], &[&[sold(1, 10)]], &[]);
    finds(&[sale()], &[], &[SaleLost]);
    finds(&[sale()], &[&[entry(1, Closed, 10, 10)]], &[SaleLost]);
    finds(&[sale()], &[&[entry(1, Voided, 10, 20)]], &[SaleLost]);
    finds(&[sale()], &[&[sold(1, 11)]], &[OtherTime]);
    finds(&[sale()], &[&[sold(1, 10), sold(1, 10)]], &[RecordedTwice, AboveWindow]);
    finds(&[sale()], &[&[sold(1, 10)], &[sold(1, 10)]], &[RecordedTwice, OneBuyerInTwoRecords]);
    // A confirmed hold too.
    let confirmed = [asked(1, Hold, 0, held()), asked(1, Confirm, 10, approved(10))];
    finds(&confirmed, &[&[v1::ExportedEntry { hold: true, ..sold(1, 10) }]], &[]);
    finds(&confirmed, &[&[entry(1, Held, 10, 99)]], &[SaleLost]);
    // An answer to the void or none: it may be taken back; one that did nothing did not.
    for (void, kinds) in [(Outcome::Voided, &[][..]), (unknown(), &[]), (not_executed(), &[SaleLost])] {
        finds(&[sale(), asked(1, Void, 10, void)], &[&[entry(1, Voided, 10, 20)]], kinds);
    }
    finds(&[sale(), asked(1, Void, 10, Outcome::Voided)], &[&[sold(1, 10)]], &[StandsOtherwise]);
}

#[test]
fn what_stands_is_what_was_asked_for() {
    let sale = || asked(1, Purchase, 0, approved(10));
    finds(&[sale()], &[&[v1::ExportedEntry { site: "B".into(), ..sold(1, 10) }]], &[OtherContent]);
    finds(&[sale()], &[&[v1::ExportedEntry { quantity: 1, ..sold(1, 10) }]], &[OtherContent]);
    finds(&[sale()], &[&[v1::ExportedEntry { hold: true, ..sold(1, 10) }]], &[OtherContent]);
    finds(&[sale()], &[&[v1::ExportedEntry { late: true, ..sold(1, 10) }]], &[OtherContent]);
    let broken = v1::ExportedEntry { at: None, ..sold(2, 10) };
    finds(&[sale()], &[&[sold(1, 10), broken]], &[Unreadable]);
}

#[test]
fn one_id_has_one_receipt() {
    let twice = |second: i64, mark: fn(Asked) -> Asked| {
        [asked(1, Purchase, 0, approved(10)), mark(asked(1, Purchase, 9, approved(second)))]
    };
    finds(&twice(10, replayed), &[&[sold(1, 10)]], &[]);
    finds(&twice(11, replayed), &[&[sold(1, 10)]], &[ReceiptsDiffer]);
    finds(&twice(10, |call| call), &[&[sold(1, 10)]], &[ReplayNotMarked]);
}

#[test]
fn a_no_stays_a_no() {
    let full = sold(9, 1);
    let before = || asked(9, Purchase, 0, approved(1));
    let by_rule = || Outcome::Refused(vec!["NOT_YOUR_DAY".into()]);
    for (no, besides) in
        [(quota(), None), (by_rule(), Some(RefusalUnjustified)), (Outcome::NotRequired, Some(SoldUnrecorded))]
    {
        let kinds: Vec<CaseKind> = besides.into_iter().chain([RecordedAfterNo]).collect();
        finds(&[asked(1, Purchase, 20, no.clone())], &[&[sold(1, 20)]], &kinds);
        finds(&[asked(1, Hold, 20, no)], &[&[entry(1, Held, 20, 99)]], &kinds);
    }
    // What the ledger refused it keeps; what a rule refused it does not.
    finds(&[before(), asked(1, Purchase, 20, quota())], &[std::slice::from_ref(&full)], &[StandsOtherwise]);
    finds(&[before(), asked(1, Purchase, 20, quota())], &[&[full, entry(1, Refused, 20, 20)]], &[]);
    // An id that was closed never becomes a sale, and one given back is no hold.
    let closed = [asked(1, Purchase, 0, unknown()), asked(1, Resolve, 20, Outcome::NotRecorded)];
    finds(&closed, &[&[entry(1, Closed, 20, 20)]], &[]);
    finds(&closed, &[&[sold(1, 20)]], &[RecordedAfterNo]);
    let released = [asked(1, Hold, 0, held()), asked(1, Release, 20, Outcome::Released)];
    finds(&released, &[&[entry(1, Released, 0, 20)]], &[]);
    finds(&released, &[&[entry(1, Held, 0, 20)]], &[StandsOtherwise]);
    let expired = [asked(1, Hold, 0, held()), asked(1, Confirm, 20, Outcome::HoldExpired)];
    finds(&expired, &[&[v1::ExportedEntry { hold: true, ..sold(1, 0) }]], &[StandsOtherwise]);
}

#[test]
fn every_sale_is_checked_and_refused_for_what_is_left_or_not_at_all() {
    finds(&[asked(1, Purchase, 0, Outcome::NotRequired)], &[], &[SoldUnrecorded]);
    finds(&[asked(1, Hold, 0, Outcome::NotRequired)], &[], &[SoldUnrecorded]);
    for reasons in [&[][..], &["NOT_YOUR_DAY"], &["NOT_YOUR_DAY", "QUOTA_EXHAUSTED"], &["QUOTA_EXHAUSTED"; 2]] {
        let refused = || Outcome::Refused(reasons.iter().map(|reason| (*reason).to_owned()).collect());
        let history = [asked(1, Purchase, 0, refused()), asked(1, Purchase, 9, refused())];
        let audit = audit(&history, &[], &RULE);
        assert_eq!(audit.found, BTreeMap::from([(RefusalUnjustified, 1)]), "{reasons:?}");
        let name = reasons.first().copied().unwrap_or_default();
        assert_eq!(audit.refused_by_rule, BTreeMap::from([(name.to_owned(), 1)]));
    }
}

#[test]
fn what_was_not_executed_is_not_there() {
    finds(&[asked(1, Purchase, 0, not_executed())], &[], &[]);
    finds(&[asked(1, Purchase, 0, not_executed())], &[&[sold(1, 0)]], &[NotExecutedButRecorded]);
    // Another attempt may have done it.
    finds(&[asked(1, Purchase, 0, unknown()), asked(1, Purchase, 9, not_executed())], &[&[sold(1, 0)]], &[]);
    // An unknown one did that, or nothing, and no other thing.
    finds(&[asked(1, Purchase, 0, unknown())], &[&[entry(1, Closed, 0, 0)]], &[StandsOtherwise]);
}

#[test]
fn a_hold_that_nobody_gave_back_ends_when_it_was_said_to() {
    let released = |mark, more: &[Asked], kinds: &[CaseKind]| {
        let history = [&[asked(1, Hold, 0, held())], more].concat();
        finds(&history, &[&[entry(1, Released, 0, mark)]], kinds);
    };
    released(900, &[], &[]);
    released(899, &[], &[OtherTime]);
    released(901, &[], &[OtherTime]);
    released(20, &[asked(1, Confirm, 10, Outcome::HoldExpired)], &[OtherTime]);
    released(20, &[asked(1, Release, 10, not_executed())], &[OtherTime]);
    released(20, &[asked(1, Release, 10, Outcome::NotYours)], &[OtherTime]);
    for verb in [Release, Void] {
        released(20, &[asked(1, verb, 10, Outcome::Released)], &[]);
        released(20, &[asked(1, verb, 10, unknown())], &[]);
    }
}

#[test]
fn what_was_not_executed_is_not_repeated() {
    let sale = || replayed(asked(1, Purchase, 20, approved(0)));
    let after = |first: Asked, kinds: &[CaseKind]| {
        finds(&[first.clone(), sale()], &[&[sold(1, 0)]], kinds);
        // Nor if a question is asked, or a later call is left unknown.
        let more = [first, sale(), replayed(asked(1, Resolve, 30, approved(0))), asked(1, Purchase, 40, unknown())];
        finds(&more, &[&[sold(1, 0)]], kinds);
    };
    after(asked(1, Purchase, 0, not_executed()), &[NotExecutedButRecorded]);
    after(asked(1, Purchase, 0, unknown()), &[]);
    after(asked(1, Purchase, 0, approved(0)), &[]);
    let unknown_too = [asked(1, Purchase, 0, not_executed()), asked(1, Purchase, 9, unknown()), sale()];
    finds(&unknown_too, &[&[sold(1, 0)]], &[]);
    // Two repetitions are one case.
    let twice = [asked(1, Purchase, 0, not_executed()), sale(), replayed(asked(1, Purchase, 30, approved(0)))];
    finds(&twice, &[&[sold(1, 0)]], &[NotExecutedButRecorded]);

    let again = replayed(asked(1, Hold, 20, held()));
    finds(&[asked(1, Hold, 0, not_executed()), again.clone()], &[&[entry(1, Held, 0, 99)]], &[NotExecutedButRecorded]);
    finds(&[asked(1, Hold, 0, unknown()), again], &[&[entry(1, Held, 0, 99)]], &[]);
    // Each step has its own first.
    let confirmed = |confirm: Asked| [asked(1, Hold, 0, held()), asked(1, Confirm, 10, not_executed()), confirm];
    let sale = v1::ExportedEntry { hold: true, ..sold(1, 0) };
    let again = replayed(asked(1, Confirm, 20, approved(0)));
    finds(&confirmed(again), &[std::slice::from_ref(&sale)], &[NotExecutedButRecorded]);
    finds(&confirmed(asked(1, Confirm, 20, approved(0))), &[&[sale]], &[]);
}

#[test]
fn answers_that_cannot_both_be_true_are_a_case() {
    let history = [asked(1, Purchase, 0, approved(0)), asked(1, Resolve, 20, Outcome::NotRecorded)];
    finds(&history, &[&[sold(1, 0)]], &[AnswersDisagree]);
    let voided =
        [asked(1, Purchase, 0, approved(0)), asked(1, Void, 20, Outcome::Voided), asked(1, Purchase, 40, approved(0))];
    finds(&voided, &[&[entry(1, Voided, 0, 20)]], &[AnswersDisagree, ReplayNotMarked]);
    // Under way together, the question came first.
    let together = [asked(1, Purchase, 0, not_executed()), asked(1, Resolve, 2, Outcome::NotRecorded)];
    finds(&together, &[&[entry(1, Closed, 2, 2)]], &[]);
    let either_way = [
        asked(1, Hold, 0, held()),
        asked(1, Confirm, 10, Outcome::HoldExpired),
        asked(1, Release, 12, Outcome::Released),
    ];
    finds(&either_way, &[&[entry(1, Released, 0, 14)]], &[]);
    let sold_first =
        [asked(1, Hold, 0, held()), asked(1, Release, 10, Outcome::AlreadySold), asked(1, Confirm, 12, approved(0))];
    finds(&sold_first, &[&[v1::ExportedEntry { hold: true, ..sold(1, 0) }]], &[]);
    let not_yet =
        [asked(1, Hold, 0, held()), asked(1, Release, 10, Outcome::AlreadySold), asked(1, Confirm, 16, approved(0))];
    finds(&not_yet, &[&[v1::ExportedEntry { hold: true, ..sold(1, 0) }]], &[AnswersDisagree]);
}

#[test]
fn an_answer_of_another_call_is_a_case_and_says_nothing_of_its_own() {
    let of_another = |verb, sent| asked(1, verb, sent, Outcome::OfAnother("receipt.request_id".into()));
    let sale = || [of_another(Purchase, 0)];
    finds(&sale(), &[], &[AnswerOfAnother]);
    finds(&sale(), &[&[sold(1, 0)]], &[AnswerOfAnother]);
    finds(&sale(), &[&[entry(1, Closed, 0, 0)]], &[AnswerOfAnother, StandsOtherwise]);
    let resolved = [of_another(Purchase, 0), asked(1, Resolve, 20, Outcome::NotRecorded)];
    finds(&resolved, &[&[entry(1, Closed, 20, 20)]], &[AnswerOfAnother]);
    finds(&[asked(1, Hold, 0, held()), of_another(Release, 10)], &[&[entry(1, Released, 0, 20)]], &[AnswerOfAnother]);
    let twice = audit(&[of_another(Purchase, 0), of_another(Resolve, 20)], &records(&[&[sold(1, 0)]]), &RULE);
    assert_eq!(twice.found, BTreeMap::from([(AnswerOfAnother, 2)]));
    assert_eq!(twice.unknown, Unknowns { calls: 2, sold: 2, ..Unknowns::default() });
}

#[test]
fn a_record_is_one_buyers() {
    let two = [asked(1, Purchase, 0, approved(0)), by(2, asked(2, Hold, 0, held()))];
    let hold = |at| entry(2, Held, at, at + 1);
    finds(&two, &[&[sold(1, 0)], &[hold(0)]], &[]);
    finds(&two, &[&[hold(-9), sold(1, 0)]], &[TwoBuyersInOneRecord]);
    let one = [asked(1, Purchase, 0, approved(0)), asked(2, Hold, 0, held())];
    finds(&one, &[&[hold(-9), sold(1, 0)]], &[]);
    finds(&one, &[&[sold(1, 0)], &[hold(0)]], &[OneBuyerInTwoRecords]);
    finds(&one[..1], &[&[sold(1, 0)], &[hold(0)]], &[]);
    finds(&one[..1], &[&[entry(2, Closed, 0, 0), sold(1, 0)]], &[StrangerBesideOurs]);
}

#[test]
fn what_earlier_runs_left_in_a_record_is_only_counted() {
    // The run began when buyer 2 held something.
    let history = [asked(1, Hold, 50, held()), by(2, asked(2, Hold, 0, held()))];
    let beside = |state, at, mark, kinds: &[CaseKind]| {
        let ledger: &[&[v1::ExportedEntry]] =
            &[&[entry(9, state, at, mark), entry(1, Held, 50, 99)], &[entry(2, Held, 0, 9)]];
        finds(&history, ledger, kinds);
        assert_eq!(audit(&history, &records(ledger), &RULE).strangers, 1);
    };
    beside(Released, -9, -1, &[]);
    beside(Closed, -1, -1, &[]);
    beside(Sold, -WEEK, -WEEK, &[]);
    beside(Released, -9, 0, &[]);
    beside(Held, -1, 9, &[]);
    beside(Closed, 0, 0, &[StrangerBesideOurs]);
    beside(Closed, 40, 40, &[StrangerBesideOurs]);
}

#[test]
fn what_is_known_to_have_stood_before_is_no_stranger_whenever_it_is_dated() {
    let history = [asked(1, Hold, 0, held())];
    let ledger = |at| records(&[&[entry(9, Closed, at, at), entry(1, Held, 0, 900)]]);
    let strangers = |at, before: &[RequestId]| {
        let audit = super::audit(&history, &ledger(at), &RULE, &before.iter().copied().collect());
        assert_eq!(audit.strangers, 1);
        audit.found.get(&StrangerBesideOurs).copied()
    };
    // The clock of the run before was ahead.
    assert_eq!(strangers(40, &[id(9)]), None);
    assert_eq!(strangers(40, &[id(8)]), Some(1));
    // Nor is what is dated before the run, whoever has looked.
    assert_eq!(strangers(-9, &[]), None);
}

#[test]
fn nobody_has_more_than_a_week_allows() {
    // So long as the ledger's time between them takes.
    let two = |a: i64, b: i64| [asked(1, Purchase, 0, approved(a)), asked(2, Purchase, a.abs_diff(b) + 9, approved(b))];
    finds(&two(0, 10), &[&[sold(1, 0), sold(2, 10)]], &[AboveWindow]);
    // Sunday's last millisecond and Monday's first are two weeks, Monday's first and Sunday's last one.
    finds(&two(-1, 0), &[&[sold(1, -1), sold(2, 0)]], &[]);
    finds(&two(0, WEEK - 1), &[&[sold(1, 0), sold(2, WEEK - 1)]], &[AboveWindow]);
    // A hold counts until it runs out, to the millisecond.
    let held = |b| [asked(1, Hold, 0, held()), asked(2, Purchase, 50, approved(b))];
    finds(&held(899), &[&[entry(1, Released, 0, 900), sold(2, 899)]], &[AboveWindow]);
    finds(&held(900), &[&[entry(1, Released, 0, 900), sold(2, 900)]], &[]);
    let seen = [&held(899)[..], &[asked(1, Resolve, 40, Outcome::Released)]].concat();
    finds(&seen, &[&[entry(1, Released, 0, 900), sold(2, 899)]], &[]);
    finds(&held(899), &[&[entry(1, Held, 0, 900), sold(2, 899)]], &[AboveWindow]);
    // A sale taken back counts until then. Two calls under way together may have come in either order.
    let voided = |second: u64, void: u64| {
        let sales = [asked(1, Purchase, 0, approved(0)), asked(2, Purchase, second, approved(10))];
        [&sales[..], &[asked(1, Void, void, Outcome::Voided)]].concat()
    };
    let ledger: &[&[v1::ExportedEntry]] = &[&[entry(1, Voided, 0, 20), sold(2, 10)]];
    finds(&voided(50, 60), ledger, &[AboveWindow]);
    finds(&voided(50, 54), ledger, &[]);
    finds(&voided(50, 30), &[&[entry(1, Voided, 0, 10), sold(2, 10)]], &[]);
    // What was marked as over when it was entered late is outside the sum.
    let late = |over| v1::ExportedEntry { late: true, over, ..sold(9, 5) };
    finds(&[], &[&[sold(1, 0), late(true)]], &[]);
    finds(&[], &[&[sold(1, 0), late(false)]], &[AboveWindow]);
}

#[test]
fn what_a_run_recorded_is_dated_within_its_length() {
    // Four buyers in one second, the third of whom is sold to at this time.
    let dated = |at: i64, entry: fn(u8, i64) -> v1::ExportedEntry, kinds: &[CaseKind]| {
        let at_of = |n: u8| if n == 3 { at } else { 300 * i64::from(n) };
        let history: Vec<Asked> =
            (1..=4).map(|n| by(n.into(), asked(n, Purchase, 300 * u64::from(n), approved(at_of(n))))).collect();
        let entries: Vec<_> = (1..=4).map(|n| [if n == 3 { entry(n, at_of(n)) } else { sold(n, at_of(n)) }]).collect();
        let ledger: Vec<&[v1::ExportedEntry]> = entries.iter().map(<[_; 1]>::as_slice).collect();
        finds(&history, &ledger, kinds);
    };
    dated(900, sold, &[]);
    dated(WEEK, sold, &[OutsideRun]);
    dated(-WEEK, sold, &[OutsideRun]);
    // 905 ms of history and ten seconds from the middle, which is at 1200 ms or 600 ms.
    dated(1_200 + 10_905, sold, &[]);
    dated(1_200 + 10_906, sold, &[OutsideRun]);
    dated(600 - 10_905, sold, &[]);
    dated(600 - 10_906, sold, &[OutsideRun]);
    dated(WEEK, |n, at| v1::ExportedEntry { late: true, ..sold(n, at) }, &[OtherContent]);
    // A hold is dated too; what was never recorded is not.
    let hold = |state| [entry(1, state, WEEK, WEEK + 900)];
    let history = [
        asked(1, Hold, 0, Outcome::Held { until: MONDAY + WEEK + 900 }),
        by(2, asked(2, Purchase, 0, approved(0))),
        by(3, asked(3, Purchase, 0, approved(0))),
    ];
    for state in [Held, Released] {
        finds(&history, &[&hold(state), &[sold(2, 0)], &[sold(3, 0)]], &[OutsideRun]);
    }
    let closed = [asked(1, Resolve, 0, Outcome::NotRecorded), by(2, asked(2, Purchase, 0, approved(0)))];
    finds(&closed, &[&[entry(1, Closed, WEEK, WEEK)], &[sold(2, 0)]], &[]);
    // Nor is one that an earlier run's clock may have put off, to the time of its own entry and not beyond it.
    let beside = |at: i64, kinds: &[CaseKind]| {
        let ledger: [&[_]; 3] = [&[entry(9, Closed, at, at), hold(Held)[0].clone()], &[sold(2, 0)], &[sold(3, 0)]];
        let audit = super::audit(&history, &records(&ledger), &RULE, &HashSet::from([id(9)]));
        assert_eq!(audit.found.into_keys().collect::<Vec<_>>(), kinds);
    };
    beside(WEEK, &[]);
    beside(WEEK - 1, &[OutsideRun]);
    beside(-WEEK, &[OutsideRun]);
}

#[test]
fn limits_hold_for_units_and_for_purchases() {
    let small = |number, at| v1::ExportedEntry { quantity: 1, ..sold(number, at) };
    let ledger = records(&[&[small(1, 0), small(2, 1)]]);
    let found = |units_a_week, purchases_a_week| {
        audit(&[], &ledger, &Rule { units_a_week, purchases_a_week }).found.contains_key(&AboveWindow)
    };
    assert!(!found(Some(2), None));
    assert!(found(Some(1), None));
    assert!(found(None, Some(1)));
    assert!(!found(None, None));
}

#[test]
fn a_refusal_needs_a_reason_at_its_own_time() {
    let refused = [asked(1, Purchase, 50, quota())];
    let refusal = || entry(1, Refused, 50, 50);
    let beside = |other: v1::ExportedEntry, kinds: &[CaseKind]| {
        let mut history = refused.to_vec();
        history.push(asked(2, if other.hold { Hold } else { Purchase }, 0, unknown()));
        history.push(asked(2, Void, 20, unknown()));
        finds(&history, &[&[other, refusal()]], kinds);
    };
    finds(&refused, &[&[refusal()]], &[RefusalUnjustified]);
    beside(sold(2, 50), &[]);
    beside(sold(2, 51), &[RefusalUnjustified]);
    beside(sold(2, -1), &[RefusalUnjustified]);
    beside(entry(2, Voided, 0, 50), &[]);
    beside(entry(2, Voided, 0, 49), &[RefusalUnjustified]);
    beside(entry(2, Released, 0, 60), &[]);
    beside(entry(2, Held, 0, 49), &[RefusalUnjustified]);
    // More than the limit is never allowed.
    let much = asked(1, Purchase, 50, quota());
    finds(&[Asked { quantity: 3, ..much }], &[&[v1::ExportedEntry { quantity: 3, ..refusal() }]], &[]);
}

#[test]
fn cases_are_counted_and_the_first_are_told() {
    let history: Vec<Asked> = (1..=90).map(|n| by(n.into(), asked(n, Purchase, 0, approved(0)))).collect();
    let audit = audit(&history, &[], &RULE);
    assert_eq!((audit.total(), audit.cases.len()), (90, 20));
    assert_eq!(audit.found, BTreeMap::from([(SaleLost, 90)]));
    let told = &audit.cases[0];
    assert_eq!((told.expected.as_str(), told.stands.as_str()), ("SOLD", "nothing"));
}

#[test]
fn a_week_begins_on_monday_in_seoul() {
    let weeks_after = |millis: i64| windows::week(MONDAY + millis) - windows::week(MONDAY);
    assert_eq!([-1, 0, WEEK - 1, WEEK].map(weeks_after), [-1, 0, 0, 1]);
    // 1 January 1970 was a Thursday; the Monday of its week came before it.
    assert_eq!((windows::week(0), windows::week(-3 * 24 * 3_600_000 - 9 * 3_600_000 - 1)), (0, -1));
}

/// An interval as an entry: sold, held or voided, of some units.
fn interval(number: usize, kind: u8, from: i64, length: i64, units: u32) -> v1::ExportedEntry {
    let state = [Sold, Held, Refused][usize::from(kind)];
    let mark = if state == Held { from + length } else { from };
    v1::ExportedEntry { quantity: units, ..entry(u8::try_from(number + 1).unwrap(), state, from, mark) }
}

proptest! {
    #[test]
    fn sums_agree_with_counting_every_millisecond(
        drawn in prop::collection::vec((0_u8..3, 0_i64..40, 0_i64..20, 1_u32..4), 0..12),
        units in prop::option::of(0_u32..8),
        purchases in prop::option::of(0_u32..5),
    ) {
        let entries: Vec<v1::ExportedEntry> =
            drawn.iter().enumerate().map(|(n, (kind, from, length, units))| interval(n, *kind, *from, *length, *units)).collect();
        let audit = audit(&[], &records(&[&entries]), &Rule { units_a_week: units, purchases_a_week: purchases });

        let ends = |kind: u8, from: i64, length: i64| if kind == 0 { i64::MAX } else { from + length };
        let too_much = |sum: u32, many: u32| units.is_some_and(|max| sum > max) || purchases.is_some_and(|max| many > max);
        let above = (0..70).any(|now| {
            let counting = drawn.iter().filter(|(kind, from, length, _)| {
                *kind != 2 && *from <= now && now < ends(*kind, *from, *length)
            });
            too_much(counting.clone().map(|drawn| drawn.3).sum(), counting.count() as u32)
        });
        let unjustified = drawn.iter().filter(|(kind, ..)| *kind == 2).filter(|(_, now, _, asked)| {
            let counting = drawn.iter().filter(|(kind, from, length, _)| {
                *kind != 2 && from <= now && *now <= ends(*kind, *from, *length)
            });
            !too_much(counting.clone().map(|drawn| drawn.3).sum::<u32>() + asked, counting.count() as u32 + 1)
        });
        prop_assert_eq!(audit.found.contains_key(&AboveWindow), above);
        prop_assert_eq!(audit.found.get(&RefusalUnjustified).copied().unwrap_or(0), unjustified.count() as u64);
    }
}
