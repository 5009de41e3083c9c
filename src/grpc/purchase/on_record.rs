//! What a call does to whom, until it is on record.

use crate::audit::{Access, Action, CALLER_GONE, Deed, Trail};
use crate::grpc::identity::Peer;
use crate::purchase::{Caller, LineAnswer};
use crate::time::Clock;

use super::Act;

/// The accesses of a call that is under way. If its caller goes away before it is answered, that is what stands on record: what the
/// store has been asked runs to its end there.
pub(super) struct OnRecord<'a, C: Clock> {
    actions: Vec<Action>,
    peer: Peer,
    caller: &'a Caller,
    trail: &'a Trail,
    clock: &'a C,
}

impl<'a, C: Clock> OnRecord<'a, C> {
    pub(super) fn new(act: &Act, peer: Peer, caller: &'a Caller, trail: &'a Trail, clock: &'a C) -> Self {
        let actions = if trail.is_file() { actions(act) } else { Vec::new() };
        Self { actions, peer, caller, trail, clock }
    }

    /// Puts on record what the lines were answered, which stand in their own order.
    pub(super) fn answered(mut self, answers: &[LineAnswer]) {
        let actions = std::mem::take(&mut self.actions);
        let results = answers.iter().map(|answer| answer.outcome.name());
        self.trail.tell(actions.into_iter().zip(results).map(|(action, result)| self.access(action, result)));
    }

    fn access(&self, action: Action, result: &'static str) -> Access {
        let counter = Some((self.caller.site, self.caller.terminal));
        Access { at: self.clock.now(), by: self.peer.name(), counter, action, result }
    }
}

impl<C: Clock> Drop for OnRecord<'_, C> {
    fn drop(&mut self) {
        let actions = std::mem::take(&mut self.actions);
        self.trail.tell(actions.into_iter().map(|action| self.access(action, CALLER_GONE)));
    }
}

/// One for each line of a visit.
fn actions(act: &Act) -> Vec<Action> {
    let (deed, known) = match act {
        Act::Check(visit) => {
            let programme = visit.programme();
            return visit.records().map(|record| Action::Check { programme, record }).collect();
        }
        Act::Buy(visit) => {
            let deed = if visit.is_hold() { Deed::Hold } else { Deed::Sell };
            let programme = visit.programme();
            return visit.requests().map(|request| Action::Counter { deed, programme, request }).collect();
        }
        Act::Confirm(known) => (Deed::Confirm, known),
        Act::Release(known) => (Deed::Release, known),
        Act::Void(known) => (Deed::Void, known),
        Act::Resolve(known) => (Deed::Resolve, known),
    };
    vec![Action::Counter { deed, programme: known.programme(), request: known.request() }]
}
