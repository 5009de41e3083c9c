//! What the ledger's own rules do is clean, whatever is asked, lost or under way together; and what they would never do is
//! found. Here, and only here, the two are set against each other.

use super::*;
use crate::ids::SiteId;
use crate::ledger::rules::{self, Step};
use crate::ledger::{self, Call, Claim, Claimed, Confirmed, LedgerError, Record, Released, Resolved, State, Voided};
use crate::policy::Window;
use crate::time::Timestamp;

/// Between one call and the next.
const STEP: i64 = 10;
/// How long a hold lasts.
const HOLD: Duration = Duration::from_millis(60);

/// A call as it is drawn.
#[derive(Debug, Clone)]
struct Drawn {
    buyer: usize,
    /// Which of the buyer's ids; the odd ones are holds.
    number: u8,
    verb: Verb,
    /// Another site than the id's own.
    elsewhere: bool,
    /// How far off the clock is that it is judged by, milliseconds.
    off: i64,
    /// From being sent to taking effect, and from there to the answer.
    under_way: (u64, u64),
    fate: Fate,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    /// It took effect, and the answer was lost.
    AnswerLost,
    CallLost,
    TurnedAway,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let verb = prop_oneof![
        4 => Just(Purchase), 4 => Just(Hold), 2 => Just(Confirm), 1 => Just(Release), 2 => Just(Void), 1 => Just(Resolve)
    ];
    let fate = prop_oneof![
        8 => Just(Fate::Answered), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::CallLost), 1 => Just(Fate::TurnedAway)
    ];
    let elsewhere = prop::bool::weighted(0.05);
    (0..2_usize, 0..6_u8, verb, elsewhere, -25..25_i64, (0..30_u64, 0..30_u64), fate).prop_map(
        |(buyer, number, verb, elsewhere, off, under_way, fate)| Drawn {
            buyer,
            number,
            verb,
            elsewhere,
            off,
            under_way,
            fate,
        },
    )
}

/// The rules' answer in the history's words, with what they write.
fn told<O>(
    step: Result<Step<O>, LedgerError>,
    outcome: impl FnOnce(O) -> Outcome,
) -> (Outcome, bool, Vec<ledger::Entry>) {
    match step {
        Ok(step) => (outcome(step.outcome), step.replayed, step.writes),
        Err(error) => (Outcome::NotExecuted(error.to_string()), false, Vec::new()),
    }
}

fn approved(entry: ledger::Entry) -> Outcome {
    Outcome::Approved { at: entry.at.as_millis() }
}

fn apply(verb: Verb, record: &Record, call: &Call, quantity: u32) -> (Outcome, bool, Vec<ledger::Entry>) {
    let week = Window {
        from: Timestamp::from_millis(MONDAY),
        until: Timestamp::from_millis(MONDAY + WEEK),
        max_units: RULE.units_a_week,
        max_purchases: RULE.purchases_a_week,
    };
    let claim = Claim {
        quantity,
        hold_for: (verb == Hold).then_some(HOLD),
        windows: smallvec::smallvec![week],
        good_until: Timestamp::NEVER,
        stated: String::new(),
    };
    match verb {
        Purchase | Hold => told(rules::claim(record, call, &claim), |claimed| match claimed {
            Claimed::Recorded(sale) => approved(sale),
            Claimed::Held(hold) => Outcome::Held { until: hold.mark.as_millis() },
            Claimed::Refused(_) => quota(),
            Claimed::Released(_) => Outcome::Released,
            Claimed::HoldExpired(_) => Outcome::HoldExpired,
            Claimed::Voided(_) => Outcome::Voided,
            Claimed::AssessAgain => not_executed(),
        }),
        Confirm => told(rules::confirm(record, call), |confirmed| match confirmed {
            Confirmed::Sold(sale) => approved(sale),
            Confirmed::HoldExpired(_) => Outcome::HoldExpired,
            Confirmed::Voided(_) => Outcome::Voided,
            Confirmed::NotFound => Outcome::NotFound,
            Confirmed::NotYours => Outcome::NotYours,
        }),
        Release => told(rules::release(record, call), |released| match released {
            Released::Released(_) => Outcome::Released,
            Released::AlreadySold(_) => Outcome::AlreadySold,
            Released::Voided(_) => Outcome::Voided,
            Released::NotFound => Outcome::NotFound,
            Released::NotYours => Outcome::NotYours,
        }),
        Void => told(rules::void(record, call), |voided| match voided {
            Voided::Voided(_) => Outcome::Voided,
            Voided::Released(_) => Outcome::Released,
            Voided::NotFound => Outcome::NotFound,
            Voided::NotYours => Outcome::NotYours,
        }),
        Resolve => told(rules::resolve(record, call), |resolved| match resolved {
            Resolved::Recorded(sale) => approved(sale),
            Resolved::Held(hold) => Outcome::Held { until: hold.mark.as_millis() },
            Resolved::Released(_) => Outcome::Released,
            Resolved::Voided(_) => Outcome::Voided,
            Resolved::Refused(_) => quota(),
            Resolved::NotRecorded => Outcome::NotRecorded,
            Resolved::NotYours => Outcome::NotYours,
        }),
    }
}

fn exported(entry: &ledger::Entry) -> v1::ExportedEntry {
    let state = match entry.state {
        State::Sold => Sold,
        State::Held => super::Held,
        State::Released => super::Released,
        State::Voided => super::Voided,
        State::Refused => Refused,
        State::Closed => Closed,
    };
    v1::ExportedEntry {
        request_id: entry.request.to_string(),
        state: state.into(),
        site: entry.site.to_string(),
        quantity: entry.quantity,
        hold: entry.kind == ledger::Kind::Hold,
        late: entry.late,
        over: entry.over,
        at: Some(time(entry.at.as_millis() - MONDAY)),
        mark: Some(time(entry.mark.as_millis() - MONDAY)),
    }
}

/// Runs what was drawn, one after the other in the ledger and overlapping at the counters.
fn run(drawn: &[Drawn]) -> (Vec<Asked>, Vec<Vec<v1::ExportedEntry>>) {
    let sites: [SiteId; 2] = ["A", "B"].map(|site| site.parse().unwrap());
    let mut ledger = [Record::default(), Record::default()];
    let mut history = Vec::new();
    for (which, drawn) in (10..).zip(drawn) {
        let request = id(drawn.number + 1 + 100 * drawn.buyer as u8);
        // A claim is always what the id stands for: content and site.
        let verb = match drawn.verb {
            Purchase | Hold => {
                if drawn.number % 2 == 1 {
                    Hold
                } else {
                    Purchase
                }
            }
            other => other,
        };
        let claim = matches!(verb, Purchase | Hold);
        let own = usize::from(drawn.number % 3 == 0);
        let site = sites[if drawn.elsewhere && !claim { 1 - own } else { own }];
        let quantity = 1 + u32::from(drawn.number / 2);
        let now = Timestamp::from_millis(MONDAY + which * STEP + drawn.off);
        let call = Call { request, site, terminal: "T".parse().unwrap(), now };
        let (answer, replayed, writes) = apply(verb, &ledger[drawn.buyer], &call, quantity);
        let outcome = match drawn.fate {
            Fate::Answered => answer,
            Fate::AnswerLost | Fate::CallLost => unknown(),
            Fate::TurnedAway => not_executed(),
        };
        if matches!(drawn.fate, Fate::Answered | Fate::AnswerLost) {
            ledger[drawn.buyer] = ledger[drawn.buyer].with(&writes);
        }
        let effect = which as u64 * STEP as u64;
        let sent = Duration::from_millis(effect - drawn.under_way.0);
        let answered = Duration::from_millis(effect + drawn.under_way.1);
        let buyer = drawn.buyer as u64;
        let quantity = if claim { quantity } else { 0 };
        history.push(Asked { request, buyer, site, verb, quantity, intended: sent, sent, answered, replayed, outcome });
    }
    let records = ledger.iter().map(|record| record.entries().iter().map(exported).collect());
    (history, records.collect())
}

fn audited(history: &[Asked], ledger: &[Vec<v1::ExportedEntry>]) -> Audit {
    let ledger: Vec<&[v1::ExportedEntry]> = ledger.iter().map(Vec::as_slice).collect();
    audit(history, &records(&ledger), &RULE)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_the_rules_do_is_clean(drawn in prop::collection::vec(drawn(), 0..40)) {
        let (history, ledger) = run(&drawn);
        let audit = audited(&history, &ledger);
        prop_assert!(audit.is_clean(), "{:#?}", audit.cases);
    }

    #[test]
    fn a_sale_that_the_ledger_lost_is_found(drawn in prop::collection::vec(drawn(), 1..40), which in any::<prop::sample::Index>()) {
        let (history, mut ledger) = run(&drawn);
        let acknowledged = |entry: &v1::ExportedEntry| {
            let receipt = |call: &Asked| matches!(call.outcome, Outcome::Approved { .. });
            history.iter().any(|call| receipt(call) && call.request.to_string() == entry.request_id)
        };
        let sales: Vec<String> = ledger.iter().flatten().filter(|e| acknowledged(e)).map(|e| e.request_id.clone()).collect();
        if sales.is_empty() {
            return Ok(());
        }
        let lost = which.get(&sales);
        ledger.iter_mut().for_each(|record| record.retain(|entry| entry.request_id != *lost));
        prop_assert!(!audited(&history, &ledger).is_clean());
    }
}
