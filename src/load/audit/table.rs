//! What each verb may do to an id and what it then answers: the ledger's table, as a client may rely on it.

use std::fmt;

use crate::load::history::{Outcome, Verb};

/// What stands under a request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Absent,
    Sold,
    Held,
    Released,
    Voided,
    Refused,
    Closed,
}

use Standing::{Absent, Closed, Held, Refused, Released, Sold, Voided};

impl Standing {
    pub(super) const ALL: [Self; 7] = [Absent, Sold, Held, Released, Voided, Refused, Closed];
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Absent => "nothing",
            Sold => "SOLD",
            Held => "HELD",
            Released => "RELEASED",
            Voided => "VOIDED",
            Refused => "REFUSED",
            Closed => "CLOSED",
        })
    }
}

/// Whether a refusal is the ledger's, which keeps it. One that names another rule first is not kept.
pub(super) fn is_by_ledger(reasons: &[String]) -> bool {
    matches!(reasons, [only] if only == "QUOTA_EXHAUSTED")
}

/// What stands after a call that found `before` and was answered so. `None`: it cannot have been answered so.
pub(super) fn after(verb: Verb, before: Standing, outcome: &Outcome) -> Option<Standing> {
    let claim = matches!(verb, Verb::Purchase | Verb::Hold);
    match (before, outcome) {
        (Absent, Outcome::Approved { .. }) => (verb == Verb::Purchase).then_some(Sold),
        (Absent, Outcome::Held { .. }) => (verb == Verb::Hold).then_some(Held),
        (Absent, Outcome::Refused(reasons)) if is_by_ledger(reasons) => claim.then_some(Refused),
        (Absent, Outcome::Refused(_) | Outcome::NotRequired) => claim.then_some(Absent),
        (Absent, Outcome::NotFound) => (!claim && verb != Verb::Resolve).then_some(Closed),
        (Absent, Outcome::NotRecorded) => (verb == Verb::Resolve).then_some(Closed),

        (Sold, Outcome::Approved { .. }) => (!matches!(verb, Verb::Release | Verb::Void)).then_some(Sold),
        (Sold, Outcome::AlreadySold) => (verb == Verb::Release).then_some(Sold),
        (Sold, Outcome::Voided) => (verb == Verb::Void).then_some(Voided),

        (Held, Outcome::Held { .. }) => matches!(verb, Verb::Hold | Verb::Resolve).then_some(Held),
        (Held, Outcome::Approved { .. }) => (verb == Verb::Confirm).then_some(Sold),
        (Held, Outcome::Released) => matches!(verb, Verb::Release | Verb::Void | Verb::Resolve).then_some(Released),
        (Held, Outcome::HoldExpired) => matches!(verb, Verb::Hold | Verb::Confirm).then_some(Released),

        // Both say that the hold is gone; which of them depends on who asks and how it went.
        (Released, Outcome::Released | Outcome::HoldExpired) => (verb != Verb::Purchase).then_some(Released),
        (Voided, Outcome::Voided) => Some(Voided),
        (Refused, Outcome::Refused(_)) => (claim || verb == Verb::Resolve).then_some(Refused),
        (Refused | Closed, Outcome::NotFound) => (!claim && verb != Verb::Resolve).then_some(before),
        (Closed, Outcome::NotRecorded) => (verb == Verb::Resolve).then_some(Closed),
        (Sold | Held | Released | Voided | Refused | Closed, Outcome::NotYours) => (!claim).then_some(before),
        _ => None,
    }
}

/// What a call may have made of an id if nobody knows whether it arrived; it may also have changed nothing.
pub(super) fn perhaps(verb: Verb, before: Standing) -> &'static [Standing] {
    match (verb, before) {
        (Verb::Purchase, Absent) => &[Sold, Refused],
        (Verb::Hold, Absent) => &[Held, Refused],
        (Verb::Confirm | Verb::Release | Verb::Void | Verb::Resolve, Absent) => &[Closed],
        (Verb::Confirm, Held) => &[Sold],
        (Verb::Release | Verb::Void, Held) => &[Released],
        (Verb::Void, Sold) => &[Voided],
        _ => &[],
    }
}

/// Several possibilities of what stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standings(u8);

impl Standings {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn one(standing: Standing) -> Self {
        Self(1 << standing as u8)
    }

    pub(super) fn contains(self, standing: Standing) -> bool {
        self.0 & (1 << standing as u8) != 0
    }

    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Standing> {
        Standing::ALL.into_iter().filter(move |standing| self.contains(*standing))
    }

    /// These, and what may have come of them without an answer to anybody: calls of these verbs may arrive, in any order,
    /// and a hold runs out by itself.
    #[must_use]
    pub(super) fn and_later(self, unanswered: impl Iterator<Item = Verb> + Clone) -> Self {
        let mut all = self;
        loop {
            let mut more = if all.contains(Held) { all.or(Self::one(Released)) } else { all };
            for verb in unanswered.clone() {
                for before in all.iter() {
                    more = perhaps(verb, before).iter().fold(more, |more, after| more.or(Self::one(*after)));
                }
            }
            if more == all {
                return all;
            }
            all = more;
        }
    }
}

impl fmt::Display for Standings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(|standing| standing.to_string()).collect();
        f.write_str(&names.join(" or "))
    }
}
