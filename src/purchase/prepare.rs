//! Before anything is judged: every field checked, the number read and left behind.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Asked, Echo, Invalid, Named, Purchases};
use crate::buyer::{Buyer, KeyRing, parse_kr_resident, parse_opaque};
use crate::ids::{Paper, ProgrammeId, Relation, RequestId};
use crate::ledger::{Ledger, RecordKey};
use crate::policy::{self, BuyerIds, Line, Person, Programme, Visit};
use crate::time::Clock;

/// The most units that one line may ask for.
pub const MAX_QUANTITY: u32 = 1_000_000;

/// The shortest hold.
const MIN_HOLD: Duration = Duration::from_secs(1);

/// One line, ready to be judged: the number is gone, its pseudonym and the facts that rules may see are left.
pub(super) struct PreparedLine {
    pub(super) request: Option<RequestId>,
    pub(super) key: RecordKey,
    pub(super) stated: String,
    pub(super) echo: Echo,
}

/// A visit, checked and ready to be judged.
pub struct Prepared {
    pub(super) programme: Arc<Programme>,
    pub(super) visit: Visit,
    pub(super) lines: Vec<PreparedLine>,
    pub(super) hold_for: Option<Duration>,
}

/// A purchase that is asked about by its id.
pub struct Known {
    pub(super) programme: Arc<Programme>,
    pub(super) person: Person,
    pub(super) request: RequestId,
    pub(super) key: RecordKey,
    pub(super) echo: Echo,
}

impl Prepared {
    /// How many lines it has.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Under which programme it is judged.
    pub fn programme(&self) -> ProgrammeId {
        self.programme.id()
    }

    /// Whether it is to hold instead of sell.
    pub fn is_hold(&self) -> bool {
        self.hold_for.is_some()
    }

    /// The request id of each line that has one.
    pub fn requests(&self) -> impl Iterator<Item = RequestId> {
        self.lines.iter().filter_map(|line| line.request)
    }

    /// Whose record each line is about.
    pub fn records(&self) -> impl Iterator<Item = RecordKey> {
        self.lines.iter().map(|line| line.key)
    }
}

impl Known {
    /// Under which programme it was bought.
    pub fn programme(&self) -> ProgrammeId {
        self.programme.id()
    }

    /// The id that it is asked about by.
    pub fn request(&self) -> RequestId {
        self.request
    }
}

impl<L: Ledger, C: Clock> Purchases<L, C> {
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
        // One ring for all lines: the same person has the same key in each.
        let ring = self.ring.load();
        let mut lines: Vec<PreparedLine> = Vec::with_capacity(asked.lines.len());
        for (index, line) in asked.lines.iter().enumerate() {
            let invalid = |field, problem: String| Invalid { line: Some(index), field, problem };
            if !(1..=MAX_QUANTITY).contains(&line.quantity) {
                bad.push(invalid("quantity", format!("must be from 1 to {MAX_QUANTITY}")));
            }
            let (person, key, echo) = match self.identify(&ring, &programme, line.buyer, |_, _| ()) {
                Ok((person, key, echo, ())) => (person, key, echo),
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
            lines.push(PreparedLine {
                request: line.request,
                key,
                stated: stated(line.relation.as_ref(), &line.papers),
                echo,
            });
            visit.lines.push(judged);
        }
        // With a line left out the others' places would be told wrong.
        if lines.len() == asked.lines.len() {
            bad.extend(misfits(&visit));
        }
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
        let (person, key, echo, ()) = self
            .identify(&self.ring.load(), &programme, buyer, |_, _| ())
            .map_err(|(field, problem)| vec![Invalid::visit(field, problem)])?;
        Ok(Known { programme, person, request, key, echo })
    }

    /// Checks the fields of a look into a buyer's record, and says which one it is.
    pub fn record_of(&self, programme: ProgrammeId, buyer: Named<'_>) -> Result<RecordKey, Vec<Invalid>> {
        let programme = self.programme(programme).map_err(|e| vec![e])?;
        let identified = self.identify(&self.ring.load(), &programme, buyer, |_, _| ());
        identified.map(|(_, key, ..)| key).map_err(|(field, problem)| vec![Invalid::visit(field, problem)])
    }

    /// The programme of this id.
    pub(crate) fn programme(&self, id: ProgrammeId) -> Result<Arc<Programme>, Invalid> {
        let policies = self.policies.load();
        policies.get(id).cloned().ok_or_else(|| Invalid::visit("programme", policies.not_known()))
    }

    /// From the number to what is left of it: facts, pseudonym, what may be echoed to the clerk, and what else is made of it.
    pub(super) fn identify<M>(
        &self,
        ring: &KeyRing,
        programme: &Programme,
        named: Named<'_>,
        mark: impl FnOnce(&KeyRing, &Buyer) -> M,
    ) -> Result<(Person, RecordKey, Echo, M), (&'static str, String)> {
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
        let (key, turn) = ring.key_of(&buyer, programme.id());
        let key = RecordKey { programme: programme.code(), buyer: key, turn };
        let echo = Echo {
            birth_year: buyer.birth_year,
            rotation_day: programme.rotation_day(person, now).map(policy::Weekday::name),
            masked_number: buyer.masked(),
            check_digit_warning: buyer.warning.is_some(),
        };
        let mark = mark(ring, &buyer);
        Ok((person, key, echo, mark))
    }
}

impl Invalid {
    pub(super) fn visit(field: &'static str, problem: String) -> Self {
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
pub(super) fn stated(relation: Option<&Relation>, papers: &[Paper]) -> String {
    let mut words: Vec<&str> = relation.into_iter().map(Relation::as_str).collect();
    words.extend(papers.iter().map(Paper::as_str));
    words.join(" ")
}
