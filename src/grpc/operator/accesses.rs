//! What operators do for a buyer: look into a record, and take back a purchase of somebody who was wrongly blocked. Each needs a
//! reason, is limited, and stands on record before it is done.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::audit::{ASKED, Access, Action, Trail};
use crate::conduct::Operators;
use crate::grpc::convert::{self, WireKnown};
use crate::grpc::identity::{Identity, OPERATOR, Peer};
use crate::grpc::status::{self, BadField, Fault};
use crate::grpc::v1;
use crate::ids::{OperatorId, SiteId, TerminalId};
use crate::ledger::Ledger;
use crate::policy::Place;
use crate::purchase::{Caller, Known, LineAnswer, Named, Outcome, Purchases};
use crate::sites::Sites;
use crate::telemetry::metrics::{Metrics, VoidedBy};
use crate::time::Clock;

/// The longest reason, in characters.
pub(super) const MAX_REASON: usize = 200;
/// A reason has no such run of digits: it could be a buyer's number, and reasons are kept.
const DIGITS_OF_A_NUMBER: usize = 12;

/// The accesses of operators to one ledger.
pub(in crate::grpc) struct Accesses<L, C> {
    pub(in crate::grpc) purchases: Purchases<L, C>,
    pub(in crate::grpc) sites: Arc<ArcSwap<Sites>>,
    pub(in crate::grpc) trail: Trail,
    /// What an operator has asked for is done to its end, and put on record, whoever still waits for it.
    pub(in crate::grpc) tasks: TaskTracker,
    /// How much each has done lately.
    pub(in crate::grpc) operators: Mutex<Operators>,
    pub(in crate::grpc) metrics: Arc<Metrics>,
    pub(in crate::grpc) clock: C,
}

/// Whose looks are counted; `None` is whoever is on this machine.
fn id(operator: Peer) -> Result<Option<OperatorId>, Fault> {
    Ok(match operator.identity()? {
        Some(Identity::Operator(id)) => Some(id),
        _ => None,
    })
}

impl<L: Ledger, C: Clock> Accesses<L, C> {
    /// Shows what is recorded for a buyer.
    pub(super) async fn look_up(
        &self,
        operator: Peer,
        wanted: &v1::LookUpBuyerRequest,
    ) -> Result<v1::LookUpBuyerResponse, Fault> {
        let whose = convert::whose(&wanted.programme, wanted.buyer.as_ref());
        let why = reason(&wanted.reason, whose.as_ref().ok().map(|(_, buyer)| *buyer));
        let ((programme, buyer), reason) = both(whose, why)?;
        let record = self.purchases.record_of(programme, buyer).map_err(convert::bad_fields)?;
        self.count(operator)?;
        let asked = self.access(operator, Action::LookUp { programme, record, reason });
        self.put(asked.clone()).await?;
        let found = self.purchases.record(record).await;
        if found.is_err() {
            self.give_back(operator);
        }
        let result = if found.is_ok() { "SHOWN" } else { "NOT_READ" };
        // What is not on record is not shown.
        self.put(Access { at: self.clock.now(), result, ..asked }).await?;
        let ledger_id = self.purchases.ledger_id().map(|id| id.to_string()).unwrap_or_default();
        let entries = found.map_err(status::unread)?.entries().iter().map(convert::exported_entry).collect();
        Ok(v1::LookUpBuyerResponse { ledger_id, entries })
    }

    /// Takes a purchase back.
    pub(super) async fn void(
        self: &Arc<Self>,
        operator: Peer,
        wanted: &v1::VoidForBuyerRequest,
    ) -> Result<v1::VoidForBuyerResponse, Fault> {
        let v1::VoidForBuyerRequest { programme, buyer, request_id, site, ledger_id, reason: why } = wanted;
        let known = convert::known(&WireKnown { programme, buyer: buyer.as_ref(), request_id, ledger_id });
        let why = reason(why, known.as_ref().ok().map(|(_, buyer, _)| *buyer));
        let caller = self.caller(site).map_err(|bad| vec![bad]);
        let (((programme, buyer, request), reason), caller) = both(both_fields(known, why), caller)?;
        let wanted = convert::ledger(ledger_id).map_err(|bad| status::invalid(vec![bad]))?;
        match (wanted, self.purchases.ledger_id()) {
            (Some(wanted), Some(ours)) if wanted != ours => return Err(status::other_ledger(ours)),
            (_, None) => return Err(status::ledger_away()),
            _ => {}
        }
        let known = self.purchases.prepare_known(programme, buyer, request).map_err(convert::bad_fields)?;
        self.count(operator)?;
        let asked = self.access(operator, Action::VoidForBuyer { programme, site: caller.site, request, reason });
        let accesses = Arc::clone(self);
        let work = async move { accesses.void_on_record(asked, known, caller).await };
        let answer = self.tasks.spawn(work.in_current_span()).await.map_err(|_| status::broken())??;
        match answer {
            LineAnswer { outcome: Outcome::Failed(why), .. } => {
                self.give_back(operator);
                Err(status::failure(&why))
            }
            answer => {
                let ledger = self.purchases.ledger_id().map(|id| id.to_string()).unwrap_or_default();
                let district = |site| self.sites.load().get(site).map(|s| s.district()).unwrap_or_default();
                Ok(v1::VoidForBuyerResponse { result: Some(convert::result(answer, ledger, district)) })
            }
        }
    }

    /// From the record that it is asked for to the record of what came of it.
    async fn void_on_record(&self, asked: Access, known: Known, caller: Caller) -> Result<LineAnswer, Fault> {
        self.put(asked.clone()).await?;
        let answer = self.purchases.void(known, &caller).await;
        if matches!(answer.outcome, Outcome::Voided(_)) && !answer.replayed {
            self.metrics.voided(VoidedBy::Operator);
        }
        let ended = Access { at: self.clock.now(), result: answer.outcome.name(), ..asked };
        if let Err(error) = self.trail.put(ended.clone()).await {
            tracing::error!(%error, access = ?ended, "what came of a void is not on record");
            // It is done. Once more, and counted if that fails too.
            self.trail.tell([ended]);
        }
        Ok(answer)
    }

    /// Limits how much an operator may do.
    fn count(&self, operator: Peer) -> Result<(), Fault> {
        let (id, now) = (id(operator)?, self.clock.monotonic());
        let looked = self.operators.lock().unwrap_or_else(PoisonError::into_inner).look(id, now);
        looked.map_err(status::looks_too_often)
    }

    /// A store that could not be asked costs nobody a look.
    fn give_back(&self, operator: Peer) {
        let id = id(operator).unwrap_or_default();
        self.operators.lock().unwrap_or_else(PoisonError::into_inner).give_back(id);
    }

    /// An access that is about to be made.
    pub(super) fn access(&self, operator: Peer, action: Action) -> Access {
        Access { at: self.clock.now(), by: operator.name(), counter: None, action, result: ASKED }
    }

    /// Puts an access on record, or refuses it.
    pub(super) async fn put(&self, access: Access) -> Result<(), Fault> {
        let by = access.by.clone();
        self.trail.put(access).await.map_err(|error| {
            tracing::error!(%error, %by, "an access was refused");
            status::not_on_record()
        })
    }

    /// The site that sold, as the one that takes back.
    fn caller(&self, code: &str) -> Result<Caller, BadField> {
        let bad = |problem: String| BadField::new("site", problem);
        let id: SiteId = code.parse().map_err(|error| bad(format!("cannot be read: {error}")))?;
        let sites = self.sites.load();
        let site =
            sites.get(id).ok_or_else(|| bad("is not in the registry of sites; put its line back to do this".into()))?;
        let terminal: TerminalId = OPERATOR.parse().map_err(|error| bad(format!("{error}")))?;
        Ok(Caller { site: id, terminal, place: Place { channel: site.channel, region: site.region.clone() } })
    }
}

/// Why, as one line without anybody's number.
pub(super) fn reason(text: &str, buyer: Option<Named<'_>>) -> Result<String, Vec<BadField>> {
    let bad = |problem: String| Err(vec![BadField::new("reason", problem)]);
    let text = text.trim();
    if text.is_empty() {
        return bad("is required: why this record is looked into or changed".into());
    }
    if text.chars().count() > MAX_REASON || text.chars().any(char::is_control) {
        return bad(format!("must be one line of at most {MAX_REASON} characters"));
    }
    let own = matches!(buyer, Some(Named::Opaque { id, .. }) if !bare(id).is_empty() && bare(text).contains(&bare(id)));
    if own || holds_a_number(text) {
        return bad("must not hold a buyer's number: reasons are kept".into());
    }
    Ok(text.to_owned())
}

/// Letters and digits alone, in small letters: however it is written.
fn bare(text: &str) -> String {
    text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether so many digits follow one another, whatever but a letter stands between them, that it may be somebody's number.
pub(super) fn holds_a_number(text: &str) -> bool {
    let longest = text.split(char::is_alphabetic).map(|part| part.chars().filter(|it| it.is_numeric()).count()).max();
    longest.is_some_and(|longest| longest >= DIGITS_OF_A_NUMBER)
}

fn both_fields<A, B>(a: Result<A, Vec<BadField>>, b: Result<B, Vec<BadField>>) -> Result<(A, B), Vec<BadField>> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err([a.err(), b.err()].into_iter().flatten().flatten().collect()),
    }
}

/// Both, or everything that is wrong with either.
fn both<A, B>(a: Result<A, Vec<BadField>>, b: Result<B, Vec<BadField>>) -> Result<(A, B), Fault> {
    both_fields(a, b).map_err(status::invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_and_nobodys_number() {
        let told =
            |text: &str| reason(text, Some(Named::Opaque { id: "K-77", birth_date: "" })).map_err(|bad| bad.len());
        assert_eq!(told(" wrongly blocked, ticket 2026-11-0042 "), Ok("wrongly blocked, ticket 2026-11-0042".into()));
        let long = "x".repeat(201);
        for bad in [
            "",
            "  ",
            "two\nlines",
            &long,
            "calls about 810305-1000112",
            "8103051000112",
            "8 1 0 3 0 5 1 0 0 0 1 1 2",
            "810305\u{2013}1000112",
            "(810305)_1000:112",
            "about K-77",
            "about k 77",
        ] {
            assert_eq!(told(bad), Err(1), "{bad}");
        }
    }
}
