//! One buyer's record as a sequential object, and a search for an order of all calls about it that explains every answer
//! (stateright's linearizability tester). It shares nothing with the audit: two ways to the same truth.
//!
//! Written from the table of verbs in which no hold runs out, for a programme of two units a week.

use std::collections::BTreeMap;

use rationd::ids::RequestId;
use rationd::load::history::{Asked, Outcome, Verb};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

/// What one buyer may have in a week.
const UNITS: u32 = 2;
/// The search tries orders: a record with more calls is left to the audit.
const MOST_CALLS: usize = 18;
/// As many records are searched.
const SAMPLED: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sold,
    Held,
    Released,
    Voided,
    Refused,
    Closed,
}

/// What a call is told, as far as it can be told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Approved,
    Held,
    Refused,
    Released,
    HoldExpired,
    Voided,
    AlreadySold,
    NotFound,
    NotRecorded,
    /// The id was closed before: `REQUEST_ID_CLOSED`.
    Closed,
    /// What no order of calls explains.
    Never,
}

#[derive(Debug, Clone)]
struct Op {
    verb: Verb,
    request: RequestId,
    quantity: u32,
}

/// One buyer's entries.
#[derive(Debug, Clone, Default)]
struct Record(BTreeMap<RequestId, (State, u32)>);

impl SequentialSpec for Record {
    type Op = Op;
    type Ret = Told;

    fn invoke(&mut self, op: &Op) -> Told {
        let counting = |(state, units): &(State, u32)| matches!(state, State::Sold | State::Held).then_some(*units);
        let used: u32 = self.0.values().filter_map(counting).sum();
        let before = self.0.get(&op.request).map(|(state, _)| *state);
        let units = self.0.get(&op.request).map_or(op.quantity, |(_, units)| *units);
        let fits = used + op.quantity <= UNITS;
        let (told, after) = match (op.verb, before) {
            (Verb::Purchase | Verb::Hold, None) if !fits => (Told::Refused, State::Refused),
            (Verb::Purchase, None) => (Told::Approved, State::Sold),
            (Verb::Hold, None) => (Told::Held, State::Held),
            (Verb::Purchase | Verb::Hold, Some(State::Closed)) => (Told::Closed, State::Closed),
            (Verb::Resolve, None | Some(State::Closed)) => (Told::NotRecorded, State::Closed),
            (_, None | Some(State::Closed)) => (Told::NotFound, State::Closed),
            (Verb::Confirm, Some(State::Held)) => (Told::Approved, State::Sold),
            (Verb::Confirm, Some(State::Released)) => (Told::HoldExpired, State::Released),
            (Verb::Release | Verb::Void, Some(State::Held)) => (Told::Released, State::Released),
            (Verb::Release, Some(State::Sold)) => (Told::AlreadySold, State::Sold),
            (Verb::Void, Some(State::Sold)) => (Told::Voided, State::Voided),
            (Verb::Confirm | Verb::Release | Verb::Void, Some(State::Refused)) => (Told::NotFound, State::Refused),
            (_, Some(State::Sold)) => (Told::Approved, State::Sold),
            (_, Some(State::Held)) => (Told::Held, State::Held),
            (_, Some(State::Released)) => (Told::Released, State::Released),
            (_, Some(State::Voided)) => (Told::Voided, State::Voided),
            (_, Some(State::Refused)) => (Told::Refused, State::Refused),
        };
        self.0.insert(op.request, (after, units));
        told
    }
}

/// What the answer says; `None`: the call did nothing and says nothing.
fn told(outcome: &Outcome) -> Option<Told> {
    Some(match outcome {
        Outcome::Approved { .. } => Told::Approved,
        Outcome::Held { .. } => Told::Held,
        Outcome::Refused(_) => Told::Refused,
        Outcome::Released => Told::Released,
        Outcome::HoldExpired => Told::HoldExpired,
        Outcome::Voided => Told::Voided,
        Outcome::AlreadySold => Told::AlreadySold,
        Outcome::NotFound => Told::NotFound,
        Outcome::NotRecorded => Told::NotRecorded,
        Outcome::NotExecuted(reason) if reason == "REQUEST_ID_CLOSED" => Told::Closed,
        Outcome::NotExecuted(_) => return None,
        Outcome::NotRequired | Outcome::NotYours | Outcome::Unknown(_) | Outcome::OfAnother(_) => Told::Never,
    })
}

/// Whether some order of one buyer's calls explains all answers. One without an answer may have been done at any time after it
/// was sent, or never.
fn is_linearizable(calls: &[&Asked]) -> bool {
    let calls: Vec<(usize, &Asked)> =
        calls.iter().copied().enumerate().filter(|(_, call)| told(&call.outcome).is_some()).collect();
    // Everything that was sent before it was answered overlaps: of equal times the sending comes first.
    let mut events: Vec<_> = calls
        .iter()
        .flat_map(|(thread, call)| [(call.sent, false, *thread, *call), (call.answered, true, *thread, *call)])
        .collect();
    events.sort_by_key(|(at, is_answer, thread, _)| (*at, *is_answer, *thread));
    let mut tester = LinearizabilityTester::new(Record::default());
    for (_, is_answer, thread, call) in events {
        if !is_answer {
            let op = Op { verb: call.verb, request: call.request, quantity: call.quantity };
            tester.on_invoke(thread, op).unwrap();
        } else if !call.outcome.is_unknown() {
            tester.on_return(thread, told(&call.outcome).unwrap_or(Told::Never)).unwrap();
        }
    }
    tester.is_consistent()
}

/// Searches the records with the most calls, and gives how many there were and those buyers whose answers no order explains.
pub fn search(history: &[Asked]) -> (usize, Vec<u64>) {
    let mut by_buyer: BTreeMap<u64, Vec<&Asked>> = BTreeMap::new();
    for call in history {
        by_buyer.entry(call.buyer).or_default().push(call);
    }
    let mut sampled: Vec<_> =
        by_buyer.into_iter().filter(|(_, calls)| (2..=MOST_CALLS).contains(&calls.len())).collect();
    sampled.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.len()));
    sampled.truncate(SAMPLED);
    let unexplained = sampled.iter().filter(|(_, calls)| !is_linearizable(calls)).map(|(buyer, _)| *buyer).collect();
    (sampled.len(), unexplained)
}

#[cfg(test)]
mod proofs {
    use std::time::Duration;

    use super::*;

    fn call(id: u8, verb: Verb, (sent, answered): (u64, u64), outcome: Outcome) -> Asked {
        Asked {
            request: RequestId::from_bytes([id; 16]).unwrap(),
            buyer: 1,
            site: "LOAD00000".parse().unwrap(),
            verb,
            quantity: if matches!(verb, Verb::Purchase | Verb::Hold) { 2 } else { 0 },
            intended: Duration::from_millis(sent),
            sent: Duration::from_millis(sent),
            answered: Duration::from_millis(answered),
            replayed: false,
            outcome,
        }
    }

    fn check(calls: &[Asked]) -> bool {
        search(calls) == (1, Vec::new())
    }

    const SOLD: Outcome = Outcome::Approved { at: 0 };

    fn refused() -> Outcome {
        Outcome::Refused(vec!["QUOTA_EXHAUSTED".into()])
    }

    fn unknown() -> Outcome {
        Outcome::Unknown(String::new())
    }

    #[test]
    fn what_some_order_explains_passes() {
        use Verb::{Purchase, Resolve, Void};
        assert!(
            check(&[call(1, Purchase, (0, 9), refused()), call(2, Purchase, (1, 8), SOLD)]),
            "together, either first"
        );
        assert!(check(&[call(1, Purchase, (0, 1), unknown()), call(2, Purchase, (5, 6), refused())]), "it had arrived");
        assert!(check(&[call(1, Purchase, (0, 1), unknown()), call(2, Purchase, (5, 6), SOLD)]), "it had not");
        let voided =
            [call(1, Purchase, (0, 1), SOLD), call(1, Void, (2, 3), Outcome::Voided), call(2, Purchase, (4, 5), SOLD)];
        assert!(check(&voided));
        let closed = Outcome::NotExecuted("REQUEST_ID_CLOSED".into());
        assert!(check(&[call(1, Resolve, (0, 1), Outcome::NotRecorded), call(1, Purchase, (2, 3), closed)]));
    }

    #[test]
    fn what_no_order_explains_is_found() {
        use Verb::{Purchase, Resolve};
        assert!(!check(&[call(1, Purchase, (0, 1), SOLD), call(2, Purchase, (2, 3), SOLD)]), "sold twice");
        assert!(!check(&[call(1, Purchase, (0, 1), refused()), call(2, Purchase, (2, 3), SOLD)]), "refused too early");
        let both = [call(1, Purchase, (0, 1), unknown()), call(1, Resolve, (2, 3), Outcome::NotRecorded)];
        assert!(check(&both));
        let sold_after_all = call(1, Purchase, (4, 5), SOLD);
        assert!(!check(&[both[0].clone(), both[1].clone(), sold_after_all]), "never, and then sold");
        let not_executed = [
            call(1, Purchase, (0, 1), Outcome::NotExecuted("OVERLOADED".into())),
            call(2, Purchase, (2, 3), refused()),
        ];
        assert!(!check(&not_executed), "a refusal that rests on a sale that was not made");
    }
}
