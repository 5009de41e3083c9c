//! The use case: parse the number, make the pseudonym, assess by the rules, claim from the ledger, say what became of it.
//!
//! ```text
//! Asked ──prepare──> Prepared ──buy──> assess ──> claim ──> LineAnswer
//!                    (no number left)     └ refused by rule: one read-only trip, a known id answers from the ledger
//! ```
//!
//! Generic over where claims are recorded and whose time it is. Knows nothing about gRPC, Redis or files.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use smallvec::{SmallVec, smallvec};

pub use answer::{
    Asked, AskedLine, Caller, Earlier, Echo, Failure, Invalid, LineAnswer, Named, Outcome, Receipt, Standing,
};

pub use crate::ledger::{Durability, LedgerError};

use crate::buyer::{Buyer, BuyerKey, KeyRing, parse_kr_resident, parse_opaque};
use crate::ids::{ProgrammeId, RequestId};
use crate::ledger::{
    Answer, Call, Claim, Claimed, Confirmed, Entry, Ledger, Record, RecordKey, Released, Resolved, Voided, rules,
};
use crate::museum::Mutant;
use crate::policy::{
    self, Assessment, BuyerIds, Counted, Judgement, Line, LineSet, Person, Policies, Programme, Visit, Window, Windows,
};
use crate::time::{Clock, Timestamp};

/// The most units that one line may ask for.
pub const MAX_QUANTITY: u32 = 1_000_000;

/// How often a line is assessed anew when the ledger's time turns out to be past what the rules were asked for: a day
/// ends at most once while a request is under way, so more means that clocks run wild.
const ASSESSMENTS: usize = 3;

/// The shortest hold.
const MIN_HOLD: Duration = Duration::from_secs(1);

/// The use cases of a purchase over one ledger.
#[derive(Clone)]
pub struct Purchases<L, C> {
    ledger: L,
    clock: C,
    policies: Arc<ArcSwap<Policies>>,
    ring: Arc<KeyRing>,
}

/// One line, ready to be judged: the number is gone, its pseudonym and the facts that rules may see are left.
struct PreparedLine {
    request: Option<RequestId>,
    key: RecordKey,
    stated: String,
    echo: Echo,
}

/// A visit, checked and ready to be judged.
pub struct Prepared {
    programme: Arc<Programme>,
    visit: Visit,
    lines: Vec<PreparedLine>,
    hold_for: Option<Duration>,
}

/// A purchase that is asked about by its id.
pub struct Known {
    programme: Arc<Programme>,
    person: Person,
    request: RequestId,
    key: RecordKey,
    echo: Echo,
}

impl Prepared {
    /// Under which programme it is judged.
    pub fn programme(&self) -> ProgrammeId {
        self.programme.id()
    }
}

impl<L: Ledger, C: Clock> Purchases<L, C> {
    /// Over this ledger, clock, set of programmes (replaced as a whole when it is reloaded) and key ring.
    pub fn new(ledger: L, clock: C, policies: Arc<ArcSwap<Policies>>, ring: Arc<KeyRing>) -> Self {
        Self { ledger, clock, policies, ring }
    }

    /// Checks every field of a visit and makes the pseudonyms. All bad fields are reported together.
    pub fn prepare(&self, asked: &Asked<'_>) -> Result<Prepared, Vec<Invalid>> {
        let programme = self.programme(asked.programme).map_err(|e| vec![e])?;
        let mut bad = Vec::new();
        if let Some(span) = asked.hold_for
            && !(MIN_HOLD..=programme.longest_hold()).contains(&span)
        {
            let longest = programme.longest_hold().as_secs();
            bad.push(Invalid::visit("hold_for", format!("must be from 1 s to {longest} s, what the programme allows")));
        }
        let agent = asked.agent.map(|birth_year| Person { birth_year, foreign: false });
        let mut visit = Visit {
            agent,
            lines: SmallVec::new(),
            family: asked.family.iter().map(|&birth_year| Person { birth_year, foreign: false }).collect(),
        };
        let mut lines: Vec<PreparedLine> = Vec::with_capacity(asked.lines.len());
        for (index, line) in asked.lines.iter().enumerate() {
            let invalid = |field, problem: String| Invalid { line: Some(index), field, problem };
            if !(1..=MAX_QUANTITY).contains(&line.quantity) {
                bad.push(invalid("quantity", format!("must be from 1 to {MAX_QUANTITY}")));
            }
            let (person, key, echo) = match self.identify(&programme, line.buyer) {
                Ok(identified) => identified,
                Err((field, problem)) => {
                    bad.push(invalid(field, problem));
                    continue;
                }
            };
            if let Some(other) = lines.iter().position(|l| l.key == key) {
                bad.push(invalid("buyer", format!("is the same person as in line {other}; one line per person")));
            }
            if line.request.is_some() && lines.iter().any(|l| l.request == line.request) {
                bad.push(invalid("request_id", "stands in another line too; every line has its own".into()));
            }
            let judged =
                Line { buyer: person, relation: line.relation, papers: line.papers.clone(), quantity: line.quantity };
            if let Some(word) = programme.unknown_word(&judged) {
                let field = if word.what == "relation" { "relation" } else { "papers" };
                bad.push(invalid(field, word.to_string()));
            }
            lines.push(PreparedLine { request: line.request, key, stated: stated(line), echo });
            visit.lines.push(judged);
        }
        bad.extend(misfits(&visit));
        if bad.is_empty() { Ok(Prepared { programme, visit, lines, hold_for: asked.hold_for }) } else { Err(bad) }
    }

    /// Checks the fields of a call that follows a purchase.
    pub fn prepare_known(
        &self,
        programme: ProgrammeId,
        buyer: Named<'_>,
        request: RequestId,
    ) -> Result<Known, Vec<Invalid>> {
        let programme = self.programme(programme).map_err(|e| vec![e])?;
        let (person, key, echo) =
            self.identify(&programme, buyer).map_err(|(field, problem)| vec![Invalid::visit(field, problem)])?;
        Ok(Known { programme, person, request, key, echo })
    }

    /// What [`Purchases::buy`] would answer for each line. Changes nothing.
    pub async fn check(&self, visit: Prepared, caller: &Caller) -> Vec<LineAnswer> {
        self.each_line(visit, caller, Verb::Check).await
    }

    /// Sells or holds each line that every rule and window allows. Lines that others lean on go first; a line that leans
    /// on one whose outcome is unknown is not tried.
    pub async fn buy(&self, visit: Prepared, caller: &Caller) -> Vec<LineAnswer> {
        self.each_line(visit, caller, Verb::Buy).await
    }

    async fn each_line(&self, visit: Prepared, caller: &Caller, verb: Verb) -> Vec<LineAnswer> {
        let mut answers: Vec<Option<LineAnswer>> = visit.lines.iter().map(|_| None).collect();
        let (mut granted, mut unknown) = (LineSet::default(), LineSet::default());
        for index in visit.programme.order(&visit.visit) {
            let Some(line) = visit.lines.get(index) else { continue };
            let line = Judging { visit: &visit, index, line, caller, granted, unknown };
            let answer = match verb {
                Verb::Check => self.check_line(line).await,
                Verb::Buy => self.buy_line(line).await,
            };
            if answer.outcome.is_granted() {
                granted = granted.with(index);
            } else if answer.outcome.is_unknown() {
                unknown = unknown.with(index);
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
            let judgement = match line.assess(now) {
                Assessment::NotRequired(why) => {
                    return match self.unless_known(&line, now).await {
                        Ok(_) => line.answer(Outcome::NotRequired(why), None),
                        Err(answer) => *answer,
                    };
                }
                Assessment::Judged(judgement) if judgement.refusals.is_empty() => judgement,
                Assessment::Judged(judgement) => {
                    let record = match self.unless_known(&line, now).await {
                        Ok(record) => record,
                        Err(answer) => return *answer,
                    };
                    if line.leans_on_unknown(now) {
                        return line.answer(Outcome::Failed(Failure::NotTried), None);
                    }
                    let at = rules::decides_at(&record, now);
                    if at >= judgement.good_until {
                        now = at;
                        continue;
                    }
                    let standing = line.standing(&judgement.windows, &record, at);
                    let reasons = line.every_reason(judgement, &record, at);
                    return line.answer(Outcome::Refused(reasons), Some(standing));
                }
            };
            let windows = judgement.windows.clone();
            match self.claim(&line, now, judgement.windows, judgement.good_until).await {
                Ok(Answer { outcome: Claimed::AssessAgain, at, .. }) => now = at,
                Ok(answer) => return self.claimed(&line, answer, &windows),
                Err(error) => return line.answer(Outcome::Failed(Failure::Ledger(error)), None),
            }
        }
        let wild = LedgerError::StoreUnavailable("the ledger's time runs ahead of the service's clock".into());
        line.answer(Outcome::Failed(Failure::Ledger(wild)), None)
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

    async fn claim(
        &self,
        line: &Judging<'_>,
        now: Timestamp,
        windows: Windows,
        good_until: Timestamp,
    ) -> Result<Answer<Claimed>, LedgerError> {
        let Some(request) = line.line.request else { return Err(LedgerError::RequestIdClosed) };
        let call = Call { request, site: line.caller.site, terminal: line.caller.terminal, now };
        let claim = Claim {
            quantity: line.asked().quantity,
            hold_for: line.visit.hold_for,
            windows,
            good_until,
            stated: line.line.stated.clone(),
        };
        self.ledger.claim(line.line.key, call, claim).await
    }

    fn claimed(&self, line: &Judging<'_>, answer: Answer<Claimed>, windows: &[Window]) -> LineAnswer {
        let outcome = match answer.outcome {
            Claimed::Recorded(sale) => self.receipt(&line.visit.programme, sale).map(Outcome::Approved),
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

    /// What became of a request id.
    pub async fn resolve(&self, known: Known, caller: &Caller) -> LineAnswer {
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
                let proof = |sale| self.receipt(&known.programme, sale);
                let outcome = tell(answer.outcome, &proof).unwrap_or_else(failed);
                // Another site's business is not shown to whoever guesses an id.
                let standing =
                    (outcome != Outcome::NotYours).then(|| known.standing(caller, &answer.record, answer.at)).flatten();
                LineAnswer { request, replayed: answer.replayed, outcome, standing, echo: known.echo }
            }
        }
    }

    fn receipt(&self, programme: &Programme, sale: Entry) -> Result<Receipt, LedgerError> {
        let ledger = self.ledger.id().ok_or_else(|| LedgerError::Corrupt("a sale in a ledger without an id".into()))?;
        Ok(Receipt {
            ledger,
            programme: programme.id(),
            sale,
            durability: self.ledger.durability(),
            simulated_clock: self.clock.is_simulated(),
        })
    }

    fn programme(&self, id: ProgrammeId) -> Result<Arc<Programme>, Invalid> {
        let policies = self.policies.load();
        policies.get(id).cloned().ok_or_else(|| {
            let known: Vec<_> = policies.iter().map(|p| p.id().to_string()).collect();
            Invalid::visit("programme", format!("is not known here; known: {}", known.join(", ")))
        })
    }

    /// From the number to what is left of it: facts, pseudonym and what may be echoed to the clerk.
    fn identify(
        &self,
        programme: &Programme,
        named: Named<'_>,
    ) -> Result<(Person, RecordKey, Echo), (&'static str, String)> {
        let now = self.clock.now();
        let today = programme.date(now);
        let buyer = match (named, programme.buyer_ids()) {
            (Named::Resident(number), BuyerIds::KrResident) => {
                parse_kr_resident(number, today, programme.warns_of_check_digit())
                    .map_err(|e| ("buyer.resident_number", e.to_string()))?
            }
            (Named::Opaque { id, birth_date }, BuyerIds::Opaque) => {
                parse_opaque(id, Some(birth_date), today).map_err(|e| ("buyer.opaque", e.to_string()))?
            }
            (_, BuyerIds::KrResident) => return Err(("buyer", "this programme wants a resident_number".into())),
            (_, BuyerIds::Opaque) => {
                return Err(("buyer", "this programme wants an opaque id with a birth date".into()));
            }
        };
        let person = Person { birth_year: buyer.birth_year, foreign: buyer.foreign };
        let key = RecordKey { programme: programme.code(), buyer: self.pseudonym(&buyer, programme) };
        let echo = Echo {
            birth_year: buyer.birth_year,
            rotation_day: programme.rotation_day(person, now).map(policy::Weekday::name),
            masked_number: buyer.masked(),
            check_digit_warning: buyer.warning.is_some(),
        };
        Ok((person, key, echo))
    }

    fn pseudonym(&self, buyer: &Buyer, programme: &Programme) -> BuyerKey {
        self.ring.key_of(buyer, programme.id())
    }
}

/// What is done with each line of a visit.
#[derive(Clone, Copy)]
enum Verb {
    Check,
    Buy,
}

/// One line while it is judged, with all that its judgement rests on.
#[derive(Clone, Copy)]
struct Judging<'a> {
    visit: &'a Prepared,
    index: usize,
    line: &'a PreparedLine,
    caller: &'a Caller,
    granted: LineSet,
    unknown: LineSet,
}

impl Judging<'_> {
    fn asked(&self) -> &Line {
        #[expect(clippy::indexing_slicing, reason = "`prepare` pushes both lists together")]
        &self.visit.visit.lines[self.index]
    }

    fn assess(&self, at: Timestamp) -> Assessment {
        self.visit.programme.assess(&self.visit.visit, self.index, &self.caller.place, at, self.granted)
    }

    /// Refused as things are known, but not if the lines whose outcome is unknown turn out to be granted.
    fn leans_on_unknown(&self, at: Timestamp) -> bool {
        let mut hoped = self.granted;
        for index in (0..self.visit.lines.len()).filter(|&index| self.unknown.contains(index)) {
            hoped = hoped.with(index);
        }
        let verdict = self.visit.programme.assess(&self.visit.visit, self.index, &self.caller.place, at, hoped);
        hoped != self.granted && matches!(verdict, Assessment::Judged(j) if j.refusals.is_empty())
    }

    fn every_reason(&self, judgement: Judgement, record: &Record, at: Timestamp) -> SmallVec<[policy::Reason; 1]> {
        let mut reasons = judgement.refusals;
        reasons.extend(policy::quota_reason(&judgement.windows, &history(record, at), self.asked().quantity, at));
        reasons
    }

    /// The reason of a stored refusal, as things stand now. It may be that nothing would stand in the way today.
    fn refused(&self, windows: &[Window], record: &Record, at: Timestamp) -> SmallVec<[policy::Reason; 1]> {
        stored_refusal(windows, record, self.asked().quantity, at)
    }

    fn standing(&self, windows: &[Window], record: &Record, at: Timestamp) -> Standing {
        let history = history(record, at);
        let place = &self.caller.place;
        let next = self.visit.programme.next_chance(&self.visit.visit, self.index, place, at, &history);
        Standing {
            left: policy::left(windows, &history, at),
            next,
            earlier: earlier(windows, record, at, self.line.request),
        }
    }

    fn answer(&self, outcome: Outcome, standing: Option<Standing>) -> LineAnswer {
        let (request, echo) = (self.line.request, self.line.echo.clone());
        LineAnswer { request, replayed: false, outcome, standing, echo }
    }
}

impl Known {
    /// Under which programme it was bought.
    pub fn programme(&self) -> ProgrammeId {
        self.programme.id()
    }

    fn call(&self, caller: &Caller, now: Timestamp) -> Call {
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

    fn refused(&self, caller: &Caller, record: &Record, at: Timestamp) -> SmallVec<[policy::Reason; 1]> {
        let quantity = record.find(self.request).map_or(1, |entry| entry.quantity);
        stored_refusal(&self.windows(caller, at), record, quantity, at)
    }

    fn standing(&self, caller: &Caller, record: &Record, at: Timestamp) -> Option<Standing> {
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

impl Invalid {
    fn visit(field: &'static str, problem: String) -> Self {
        Self { line: None, field, problem }
    }
}

/// Whether the visit hangs together: who may stand in it depends on whether there is an agent.
fn misfits(visit: &Visit) -> Vec<Invalid> {
    let in_person: Vec<usize> =
        (0..visit.lines.len()).filter(|&i| visit.lines.get(i).is_some_and(|l| l.relation.is_none())).collect();
    match visit.agent {
        None if visit.lines.iter().any(|l| l.relation.is_some()) => {
            vec![Invalid::visit(
                "agent",
                "is required when a line has a relation: it is who buys for the others".into(),
            )]
        }
        None if visit.lines.len() > 1 => {
            vec![Invalid::visit(
                "agent",
                "is required when there are several lines; without one each person makes a visit".into(),
            )]
        }
        Some(agent) => in_person
            .into_iter()
            .enumerate()
            .filter_map(|(nth, index)| {
                let problem = if nth > 0 {
                    "must be stated: only one line of the visit can be the agent's own"
                } else if visit.lines.get(index).is_some_and(|l| l.buyer.birth_year != agent.birth_year) {
                    "must be stated, or the number must be the agent's: its birth year is not the agent's"
                } else {
                    return None;
                };
                Some(Invalid { line: Some(index), field: "relation", problem: problem.into() })
            })
            .collect(),
        None => Vec::new(),
    }
}

/// What the seller stated, as it stands beside the sale in the outbox: no person can be told from it.
fn stated(line: &AskedLine<'_>) -> String {
    let mut words: Vec<&str> = line.relation.iter().map(crate::ids::Relation::as_str).collect();
    words.extend(line.papers.iter().map(crate::ids::Paper::as_str));
    words.join(" ")
}

/// A read that failed wrote nothing, however it failed.
fn unread(error: LedgerError) -> Failure {
    Failure::Ledger(match error {
        LedgerError::Unconfirmed(why) | LedgerError::Corrupt(why) => LedgerError::StoreUnavailable(why),
        other => other,
    })
}

/// The record as rules may see it: what counts, without ids and sites.
fn history(record: &Record, at: Timestamp) -> SmallVec<[Counted; 4]> {
    let counted = |e: &Entry| Counted { at: e.at, units: e.quantity, held_until: e.held_until() };
    record.entries().iter().filter(|e| e.counts(at)).map(counted).collect()
}

/// What counts in these windows, but for the purchase that is being answered.
fn earlier(windows: &[Window], record: &Record, at: Timestamp, own: Option<RequestId>) -> Vec<Earlier> {
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
