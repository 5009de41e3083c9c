//! The use case: parse the number, make the pseudonym, assess by the rules, claim from the ledger, say what became of it.
//!
//! ```text
//! Asked ──prepare──> Prepared ──buy──> assess ──> claim ──> LineAnswer
//!                    (no number left)     └ refused by rule: one read-only trip, a known id answers from the ledger
//! ```
//!
//! Generic over where claims are recorded and whose time it is. Knows nothing about gRPC, Redis or files.

mod answer;
mod judging;
mod late;
mod prepare;
pub mod receipt;

use std::future::{Future, ready};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::Either;
use smallvec::smallvec;

pub use crate::ledger::{Durability, LedgerError};
pub use answer::{Asked, AskedLine, Caller, Earlier, Echo, Failure, Invalid, LineAnswer, Named, Outcome, Standing};
pub use late::{AskedSale, EnteredLate, LateSale, Stands, Stood};
pub use prepare::{Known, MAX_QUANTITY, Prepared};
pub use receipt::Receipt;

use crate::buyer::KeyRing;
use crate::ids::{LedgerId, ProgrammeId};
use crate::ledger::{
    Answer, Call, Claim, Claimed, Confirmed, Entry, Ledger, Record, RecordKey, Released, Resolved, Voided, rules,
};
use crate::museum::Mutant;
use crate::policy::{Assessment, Judgement, LineSet, Offline, Policies, Programme, Window, Windows};
use crate::time::{Clock, Timestamp};
use judging::{Judging, unread};
use receipt::{ReceiptKey, Statement};

/// How often a line is assessed anew when the ledger's time turns out to be past what the rules were asked for: a day
/// ends at most once while a request is under way, so more means that clocks run wild.
const ASSESSMENTS: usize = 3;

/// The use cases of a purchase over one ledger.
#[derive(Clone)]
pub struct Purchases<L, C> {
    ledger: L,
    clock: C,
    policies: Arc<ArcSwap<Policies>>,
    ring: Arc<ArcSwap<KeyRing>>,
    receipts: Arc<ReceiptKey>,
}

impl<L: Ledger, C: Clock> Purchases<L, C> {
    /// Over this ledger, clock, set of programmes and key ring; both are replaced as a whole when they are reloaded.
    pub fn new(ledger: L, clock: C, policies: Arc<ArcSwap<Policies>>, ring: Arc<ArcSwap<KeyRing>>) -> Self {
        let receipts = Arc::new(ReceiptKey::new(&ring.load().receipt_key()));
        Self { ledger, clock, policies, ring, receipts }
    }

    /// The ledger behind these use cases; `None` until it has been seen once.
    pub fn ledger_id(&self) -> Option<LedgerId> {
        self.ledger.id()
    }

    /// What terminals do under each programme while nobody can be asked.
    pub fn offline(&self) -> Vec<(ProgrammeId, Offline)> {
        self.policies.load().iter().map(|programme| (programme.id(), programme.offline())).collect()
    }

    /// What [`Purchases::buy`] would answer for each line. Changes nothing.
    pub async fn check(&self, visit: &Prepared, caller: &Caller) -> Vec<LineAnswer> {
        self.each_line(visit, caller, Verb::Check).await
    }

    /// Sells or holds each line that every rule and window allows. Lines that others lean on go first; a line that leans
    /// on one that failed is not tried: what is not decided is no reason to refuse.
    pub async fn buy(&self, visit: &Prepared, caller: &Caller) -> Vec<LineAnswer> {
        self.each_line(visit, caller, Verb::Buy).await
    }

    async fn each_line(&self, visit: &Prepared, caller: &Caller, verb: Verb) -> Vec<LineAnswer> {
        let mut answers: Vec<Option<LineAnswer>> = visit.lines.iter().map(|_| None).collect();
        let (mut granted, mut unsettled) = (LineSet::default(), LineSet::default());
        let programme = &visit.programme;
        for index in programme.order(&visit.visit) {
            let Some(line) = visit.lines.get(index) else { continue };
            let line = Judging { visit, index, line, caller, granted, unsettled };
            let answer = match verb {
                Verb::Check => self.check_line(line).await,
                Verb::Buy => self.buy_line(line).await,
            };
            match answer.outcome.granted_at() {
                // A sale of another day, asked for again, lends its day to nobody.
                Some(at) if programme.date(at) == programme.date(self.clock.now()) => granted = granted.with(index),
                None if matches!(answer.outcome, Outcome::MayBuy) => granted = granted.with(index),
                None if matches!(answer.outcome, Outcome::Failed(_)) => unsettled = unsettled.with(index),
                _ => {}
            }
            if let Some(slot) = answers.get_mut(index) {
                *slot = Some(answer);
            }
        }
        answers.into_iter().flatten().collect()
    }

    async fn check_line(&self, line: Judging<'_>) -> LineAnswer {
        let record = match self.ledger.usage(line.line.key).await {
            Ok(record) => record,
            Err(error) => return line.answer(Outcome::Failed(unread(error)), None),
        };
        let at = rules::decides_at(&record, self.clock.now());
        let judgement = match line.assess(at) {
            Assessment::NotRequired(why) => return line.answer(Outcome::NotRequired(why), None),
            Assessment::Judged(judgement) => judgement,
        };
        let reasons = line.every_reason(judgement.clone(), &record, at);
        let outcome = if reasons.is_empty() { Outcome::MayBuy } else { Outcome::Refused(reasons) };
        line.answer(outcome, Some(line.standing(&judgement.windows, &record, at)))
    }

    async fn buy_line(&self, line: Judging<'_>) -> LineAnswer {
        let mut now = self.clock.now();
        for _ in 0..ASSESSMENTS {
            let (windows, good_until) = match line.assess(now) {
                Assessment::Judged(Judgement { refusals, windows, good_until }) if refusals.is_empty() => {
                    (windows, good_until)
                }
                // Rare, and boxed so that the many that wait for the store need no room for it.
                otherwise => match Box::pin(self.by_rule(&line, otherwise, now)).await {
                    Ruled::Answer(answer) => return *answer,
                    Ruled::AssessAgain(at) => {
                        now = at;
                        continue;
                    }
                },
            };
            match self.claim(&line, now, windows.clone(), good_until).await {
                Ok(Answer { outcome: Claimed::AssessAgain, at, .. }) => now = at,
                Ok(answer) => return self.claimed(&line, answer, &windows),
                Err(error) => return line.answer(Outcome::Failed(Failure::Ledger(error)), None),
            }
        }
        let wild = LedgerError::StoreUnavailable("the ledger's time runs ahead of the service's clock".into());
        line.answer(Outcome::Failed(Failure::Ledger(wild)), None)
    }

    /// A line that is not for the ledger to decide: refused by a rule, or free, unless its id is known.
    async fn by_rule(&self, line: &Judging<'_>, assessment: Assessment, now: Timestamp) -> Ruled {
        let answer = |outcome, standing| Ruled::Answer(Box::new(line.answer(outcome, standing)));
        let record = match self.unless_known(line, now).await {
            Ok(record) => record,
            Err(answer) => return Ruled::Answer(answer),
        };
        let at = rules::decides_at(&record, now);
        match assessment {
            Assessment::NotRequired(_) if at > now => Ruled::AssessAgain(at),
            Assessment::NotRequired(why) => answer(Outcome::NotRequired(why), None),
            Assessment::Judged(_) if line.leans_on_unsettled(now) => answer(Outcome::Failed(Failure::NotTried), None),
            Assessment::Judged(judgement) if at >= judgement.good_until => Ruled::AssessAgain(at),
            Assessment::Judged(judgement) => {
                let standing = line.standing(&judgement.windows, &record, at);
                answer(Outcome::Refused(line.every_reason(judgement, &record, at)), Some(standing))
            }
        }
    }

    /// Replay comes before rules: what the rules would refuse today may have been sold yesterday under the same id. One
    /// read-only trip; the answer of a known id is the ledger's.
    async fn unless_known(&self, line: &Judging<'_>, now: Timestamp) -> Result<Record, Box<LineAnswer>> {
        let failed = |failure| Box::new(line.answer(Outcome::Failed(failure), None));
        let record = self.ledger.usage(line.line.key).await.map_err(|error| failed(unread(error)))?;
        let known = line.line.request.is_some_and(|request| record.find(request).is_some());
        if !known || Mutant::PolicyBeforeReplay.is_on() {
            return Ok(record);
        }
        // The ledger never judges a known id, so it needs no windows; one that allows nothing keeps it from selling if the
        // entry were swept between the two trips.
        let shut =
            Window { from: Timestamp::EPOCH, until: Timestamp::NEVER, max_units: Some(0), max_purchases: Some(0) };
        let windows = match line.assess(now) {
            Assessment::Judged(judgement) => judgement.windows,
            Assessment::NotRequired(_) => Windows::new(),
        };
        match self.claim(line, now, smallvec![shut], Timestamp::NEVER).await {
            Ok(answer) => Err(Box::new(self.claimed(line, answer, &windows))),
            Err(error) => Err(failed(Failure::Ledger(error))),
        }
    }

    fn claim(
        &self,
        line: &Judging<'_>,
        now: Timestamp,
        windows: Windows,
        good_until: Timestamp,
    ) -> impl Future<Output = Result<Answer<Claimed>, LedgerError>> + Send {
        let Some(request) = line.line.request else {
            return Either::Left(ready(Err(LedgerError::RequestIdClosed)));
        };
        let call = Call { request, site: line.caller.site, terminal: line.caller.terminal, now };
        let claim = Claim {
            quantity: line.asked().quantity,
            hold_for: line.visit.hold_for,
            windows,
            good_until,
            stated: line.line.stated.clone(),
        };
        Either::Right(self.ledger.claim(line.line.key, call, claim))
    }

    fn claimed(&self, line: &Judging<'_>, answer: Answer<Claimed>, windows: &[Window]) -> LineAnswer {
        let outcome = match answer.outcome {
            Claimed::Recorded(sale) => self.receipt(&line.visit.programme, line.line.key, sale).map(Outcome::Approved),
            Claimed::Held(hold) => Ok(Outcome::Held(hold)),
            Claimed::Refused(_) => Ok(Outcome::Refused(line.refused(windows, &answer.record, answer.at))),
            Claimed::Released(entry) => Ok(Outcome::Released(entry)),
            Claimed::HoldExpired(entry) => Ok(Outcome::HoldExpired(entry)),
            Claimed::Voided(entry) => Ok(Outcome::Voided(entry)),
            Claimed::AssessAgain => Err(LedgerError::StoreUnavailable("the day ended while it was judged".into())),
        };
        let standing = line.standing(windows, &answer.record, answer.at);
        LineAnswer {
            replayed: answer.replayed,
            ..line.answer(outcome.unwrap_or_else(|e| Outcome::Failed(Failure::Ledger(e))), Some(standing))
        }
    }

    /// Makes a live hold a sale.
    pub async fn confirm(&self, known: Known, caller: &Caller) -> LineAnswer {
        let answer = self.ledger.confirm(known.key, known.call(caller, self.clock.now())).await;
        self.became(known, caller, answer, |confirmed, proof| match confirmed {
            Confirmed::Sold(sale) => proof(sale).map(Outcome::Approved),
            Confirmed::HoldExpired(entry) => Ok(Outcome::HoldExpired(entry)),
            Confirmed::Voided(entry) => Ok(Outcome::Voided(entry)),
            Confirmed::NotFound => Ok(Outcome::NotFound),
            Confirmed::NotYours => Ok(Outcome::NotYours),
        })
    }

    /// Gives a hold back.
    pub async fn release(&self, known: Known, caller: &Caller) -> LineAnswer {
        let answer = self.ledger.release(known.key, known.call(caller, self.clock.now())).await;
        self.became(known, caller, answer, |released, proof| match released {
            Released::Released(entry) => Ok(Outcome::Released(entry)),
            Released::AlreadySold(sale) => proof(sale).map(Outcome::AlreadySold),
            Released::Voided(entry) => Ok(Outcome::Voided(entry)),
            Released::NotFound => Ok(Outcome::NotFound),
            Released::NotYours => Ok(Outcome::NotYours),
        })
    }

    /// Takes a sale or a hold back.
    pub async fn void(&self, known: Known, caller: &Caller) -> LineAnswer {
        let answer = self.ledger.void(known.key, known.call(caller, self.clock.now())).await;
        self.became(known, caller, answer, |voided, _| match voided {
            Voided::Voided(entry) => Ok(Outcome::Voided(entry)),
            Voided::Released(entry) => Ok(Outcome::Released(entry)),
            Voided::NotFound => Ok(Outcome::NotFound),
            Voided::NotYours => Ok(Outcome::NotYours),
        })
    }

    /// Everything that is recorded for a buyer.
    pub async fn record(&self, of: RecordKey) -> Result<Record, LedgerError> {
        self.ledger.usage(of).await
    }

    /// What became of a request id.
    pub async fn resolve(&self, known: Known, caller: &Caller) -> LineAnswer {
        if Mutant::NotRecordedWithoutClosing.is_on()
            && self.ledger.usage(known.key).await.is_ok_and(|record| record.find(known.request).is_none())
        {
            let (request, outcome) = (Some(known.request), Outcome::NotRecorded);
            return LineAnswer { request, replayed: false, outcome, standing: None, echo: known.echo };
        }
        let answer = self.ledger.resolve(known.key, known.call(caller, self.clock.now())).await;
        let refused = answer.as_ref().ok().map(|a| known.refused(caller, &a.record, a.at));
        self.became(known, caller, answer, |resolved, proof| match resolved {
            Resolved::Recorded(sale) => proof(sale).map(Outcome::Approved),
            Resolved::Held(hold) => Ok(Outcome::Held(hold)),
            Resolved::Released(entry) => Ok(Outcome::Released(entry)),
            Resolved::Voided(entry) => Ok(Outcome::Voided(entry)),
            Resolved::Refused(_) => Ok(Outcome::Refused(refused.unwrap_or_default())),
            Resolved::NotRecorded => Ok(Outcome::NotRecorded),
            Resolved::NotYours => Ok(Outcome::NotYours),
        })
    }

    fn became<O>(
        &self,
        known: Known,
        caller: &Caller,
        answer: Result<Answer<O>, LedgerError>,
        tell: impl FnOnce(O, &dyn Fn(Entry) -> Result<Receipt, LedgerError>) -> Result<Outcome, LedgerError>,
    ) -> LineAnswer {
        let failed = |error| Outcome::Failed(Failure::Ledger(error));
        let request = Some(known.request);
        match answer {
            Err(error) => {
                LineAnswer { request, replayed: false, outcome: failed(error), standing: None, echo: known.echo }
            }
            Ok(answer) => {
                let proof = |sale| self.receipt(&known.programme, known.key, sale);
                let outcome = tell(answer.outcome, &proof).unwrap_or_else(failed);
                // Another site's business is not shown to whoever guesses an id, and nobody's to whoever makes one up.
                let is_theirs = !matches!(outcome, Outcome::NotYours | Outcome::NotFound | Outcome::NotRecorded);
                let standing = is_theirs.then(|| known.standing(caller, &answer.record, answer.at)).flatten();
                LineAnswer { request, replayed: answer.replayed, outcome, standing, echo: known.echo }
            }
        }
    }

    /// The proof of a sale. Made from the ledger's answer, so never before the sale is as durable as promised.
    fn receipt(&self, programme: &Programme, key: RecordKey, sale: Entry) -> Result<Receipt, LedgerError> {
        let ledger = self.ledger.id().ok_or_else(|| LedgerError::Corrupt("a sale in a ledger without an id".into()))?;
        Ok(self.receipts.seal(Statement {
            ledger,
            request: sale.request,
            programme: programme.id(),
            site: sale.site,
            quantity: sale.quantity,
            sold_at: sale.at,
            durability: self.ledger.durability(),
            simulated_clock: self.clock.is_simulated(),
            late: sale.late,
            partition: key.buyer.partition,
        }))
    }
}

/// What the rules make of a line that is not for the ledger to decide.
enum Ruled {
    Answer(Box<LineAnswer>),
    /// The ledger's time is past what the rules were asked for.
    AssessAgain(Timestamp),
}

/// What is done with each line of a visit.
#[derive(Clone, Copy)]
enum Verb {
    Check,
    Buy,
}
