//! Wire to domain and back. Wire to domain reports every bad field by its path; domain to wire cannot fail.

use prost_types::{Duration as WireDuration, Timestamp as WireTimestamp};
use smallvec::SmallVec;

use super::status::{self, BadField, Fault};
use super::v1::{self, purchase_result::Outcome as WireOutcome};
use crate::events::{EventKind, Told};
use crate::export::{Entry, Kind, Record, State};
use crate::ids::{LedgerId, Paper, ProgrammeId, Relation, RequestId, SiteId};
use crate::museum::Mutant;
use crate::policy::{LineSet, Offline, Refusal};
use crate::purchase::{
    Asked, AskedLine, Durability, Earlier, Echo, Invalid, LineAnswer, Named, Outcome, Receipt, Standing,
};
use crate::time::Timestamp;

/// The most papers that one line may name.
const MAX_PAPERS: usize = 8;
/// The most family members that a visit may name.
const MAX_FAMILY: usize = 16;

/// What a call with a visit carries, whichever of the three it is.
pub(super) struct WireVisit<'a> {
    pub(super) programme: &'a str,
    pub(super) agent: Option<&'a v1::Agent>,
    pub(super) lines: &'a [v1::Line],
    pub(super) family: &'a [i32],
    /// `Some` for HoldPurchase, with what the field held.
    pub(super) hold_for: Option<Option<&'a WireDuration>>,
    /// Whether the lines carry request ids.
    pub(super) with_ids: bool,
}

impl<'a> WireVisit<'a> {
    /// A purchase: nothing is held, and the lines carry request ids.
    pub(super) fn of(
        programme: &'a str,
        agent: Option<&'a v1::Agent>,
        lines: &'a [v1::Line],
        family: &'a [i32],
    ) -> Self {
        Self { programme, agent, lines, family, hold_for: None, with_ids: true }
    }
}

/// A visit, and every field that cannot be accepted. `None` where too little of it can be read for more to be found.
pub(super) fn visit<'a>(wire: &WireVisit<'a>) -> (Option<Asked<'a>>, Vec<BadField>) {
    let mut bad = Vec::new();
    let programme = programme(wire.programme).map_err(|e| bad.push(e)).ok();
    let agent = wire.agent.and_then(|a| birth_year(a.birth_year, "agent.birth_year", &mut bad));
    if wire.family.len() > MAX_FAMILY {
        bad.push(BadField::new("family_birth_years", format!("may name at most {MAX_FAMILY} people")));
    }
    let family = wire.family.iter().take(MAX_FAMILY).enumerate();
    let family =
        family.filter_map(|(i, &year)| birth_year(year, &format!("family_birth_years[{i}]"), &mut bad)).collect();
    let hold_for = wire.hold_for.and_then(|span| length(span, &mut bad));
    if wire.lines.is_empty() || wire.lines.len() > LineSet::MAX_LINES {
        bad.push(BadField::new("lines", format!("must have 1 to {} lines", LineSet::MAX_LINES)));
    }
    let lines: Vec<AskedLine<'a>> = wire
        .lines
        .iter()
        .take(LineSet::MAX_LINES)
        .enumerate()
        .filter_map(|(index, wire_line)| line(index, wire_line, wire.with_ids, &mut bad))
        .collect();
    let whole = lines.len() == wire.lines.len();
    let asked = programme.filter(|_| whole).map(|programme| Asked { programme, agent, lines, family, hold_for });
    (asked, bad)
}

fn line<'a>(index: usize, wire: &'a v1::Line, with_id: bool, bad: &mut Vec<BadField>) -> Option<AskedLine<'a>> {
    let path = |field: &str| format!("lines[{index}].{field}");
    let request = match (with_id, wire.request_id.as_str()) {
        (false, "") => None,
        (false, _) => {
            bad.push(BadField::new(path("request_id"), "must be empty: a look-up records nothing"));
            None
        }
        (true, text) => request_id(text, path("request_id")).map_err(|e| bad.push(e)).ok(),
    };
    let (relation, papers) = stated(&wire.relation, &wire.papers, path, bad);
    let buyer = buyer(wire.buyer.as_ref(), &path("buyer")).map_err(|e| bad.push(e)).ok()?;
    Some(AskedLine { request, buyer, quantity: wire.quantity, relation, papers })
}

/// What the seller stated: relation and papers.
pub(super) fn stated(
    relation: &str,
    wire: &[String],
    path: impl Fn(&str) -> String,
    bad: &mut Vec<BadField>,
) -> (Option<Relation>, SmallVec<[Paper; 2]>) {
    let relation = match relation {
        "" => None,
        text => text.parse().map_err(|e| bad.push(BadField::new(path("relation"), format!("{e}")))).ok(),
    };
    if wire.len() > MAX_PAPERS {
        bad.push(BadField::new(path("papers"), format!("may name at most {MAX_PAPERS} papers")));
    }
    let mut papers = SmallVec::new();
    for (i, text) in wire.iter().take(MAX_PAPERS).enumerate() {
        match text.parse() {
            Ok(paper) => papers.push(paper),
            Err(e) => bad.push(BadField::new(path(&format!("papers[{i}]")), format!("{e}"))),
        }
    }
    (relation, papers)
}

/// What the calls that follow a purchase carry.
pub(super) struct WireKnown<'a> {
    pub(super) programme: &'a str,
    pub(super) buyer: Option<&'a v1::Buyer>,
    pub(super) request_id: &'a str,
    pub(super) ledger_id: &'a str,
}

/// Whose purchase, and which one.
pub(super) fn known<'a>(wire: &WireKnown<'a>) -> Result<(ProgrammeId, Named<'a>, RequestId), Vec<BadField>> {
    let request = request_id(wire.request_id, "request_id".into());
    match (programme(wire.programme), buyer(wire.buyer, "buyer"), request) {
        (Ok(programme), Ok(buyer), Ok(request)) => Ok((programme, buyer, request)),
        (programme, buyer, request) => {
            Err(programme.err().into_iter().chain(buyer.err()).chain(request.err()).collect())
        }
    }
}

/// Whose record.
pub(super) fn whose<'a>(
    wire: &str,
    wire_buyer: Option<&'a v1::Buyer>,
) -> Result<(ProgrammeId, Named<'a>), Vec<BadField>> {
    match (programme(wire), buyer(wire_buyer, "buyer")) {
        (Ok(programme), Ok(buyer)) => Ok((programme, buyer)),
        (programme, buyer) => Err(programme.err().into_iter().chain(buyer.err()).collect()),
    }
}

/// A ledger's id; `None` where the field is empty.
pub(super) fn ledger(text: &str) -> Result<Option<LedgerId>, BadField> {
    let unread = |e| BadField::new("ledger_id", format!("cannot be read: {e}"));
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(unread) }
}

/// A programme's id.
pub(super) fn programme(text: &str) -> Result<ProgrammeId, BadField> {
    text.parse().map_err(|e| BadField::new("programme", format!("is not a programme's id: {e}")))
}

/// The id that the caller has made.
pub(super) fn request_id(text: &str, path: String) -> Result<RequestId, BadField> {
    if text.is_empty() {
        return Err(BadField::new(path, "is required: a UUID that is made and written down before the first attempt"));
    }
    text.parse().map_err(|e| BadField::new(path, format!("cannot be read: {e}")))
}

/// Whom the field names.
pub(super) fn buyer<'a>(wire: Option<&'a v1::Buyer>, path: &str) -> Result<Named<'a>, BadField> {
    match wire.and_then(|b| b.id.as_ref()) {
        Some(v1::buyer::Id::ResidentNumber(number)) => {
            if Mutant::RequestPrinted.is_on() {
                tracing::debug!(number, "a request is read");
            }
            Ok(Named::Resident(number))
        }
        Some(v1::buyer::Id::Opaque(opaque)) => Ok(Named::Opaque { id: &opaque.id, birth_date: &opaque.birth_date }),
        None => Err(BadField::new(path, "is required: whose allowance is charged")),
    }
}

/// How long to hold. The sign is looked at first: the wire's type cannot turn its most negative values round.
fn length(wire: Option<&WireDuration>, bad: &mut Vec<BadField>) -> Option<std::time::Duration> {
    let problem = match wire {
        None => "is required: how long to hold the units",
        Some(span) if span.seconds < 0 || span.nanos < 0 => "must not be negative",
        Some(span) => match std::time::Duration::try_from(*span) {
            Ok(span) => return Some(span),
            Err(_) => "must be a length of time",
        },
    };
    bad.push(BadField::new("hold_for", problem));
    None
}

fn birth_year(year: i32, path: &str, bad: &mut Vec<BadField>) -> Option<i16> {
    let known = i16::try_from(year).ok().filter(|y| (1800..=2200).contains(y));
    if known.is_none() {
        bad.push(BadField::new(path, "must be a year of birth, 1800 to 2200"));
    }
    known
}

/// Fields that the use case did not accept.
pub(super) fn bad_fields(invalid: Vec<Invalid>) -> Fault {
    status::invalid(invalid.into_iter().map(bad_field).collect())
}

/// A field that the use case did not accept, by its path in the message.
pub(super) fn bad_field(invalid: Invalid) -> BadField {
    let path = match invalid.line {
        Some(line) => format!("lines[{line}].{}", invalid.field),
        None => invalid.field.to_string(),
    };
    BadField::new(path, invalid.problem)
}

/// One answer on the wire. `district` tells where a site is.
pub(super) fn result(answer: LineAnswer, ledger_id: String, district: impl Fn(SiteId) -> String) -> v1::PurchaseResult {
    v1::PurchaseResult {
        request_id: answer.request.map(|id| id.to_string()).unwrap_or_default(),
        replayed: answer.replayed,
        outcome: Some(outcome(answer.outcome)),
        standing: answer.standing.map(|s| standing(s, district)),
        echo: Some(echo(answer.echo)),
        ledger_id,
    }
}

fn outcome(outcome: Outcome) -> WireOutcome {
    match outcome {
        Outcome::MayBuy => WireOutcome::MayBuy(v1::MayBuy {}),
        Outcome::Approved(proof) => WireOutcome::Approved(v1::Approved { receipt: Some(receipt(proof)) }),
        Outcome::Held(hold) => WireOutcome::Held(v1::Held { until: Some(instant(hold.mark)), quantity: hold.quantity }),
        Outcome::Refused(reasons) => WireOutcome::Refused(v1::Refused {
            reasons: reasons
                .into_iter()
                .map(|r| v1::Reason { refusal: refusal(r.refusal).into(), why: r.why })
                .collect(),
        }),
        Outcome::NotRequired(why) => WireOutcome::NotRequired(v1::NotRequired { why }),
        Outcome::Released(entry) => WireOutcome::Released(v1::Released { released_at: Some(instant(entry.mark)) }),
        Outcome::HoldExpired(entry) => {
            WireOutcome::HoldExpired(v1::HoldExpired { expired_at: Some(instant(entry.mark)) })
        }
        Outcome::Voided(entry) => {
            WireOutcome::Voided(v1::Voided { voided_at: Some(instant(entry.mark)), voided_by: entry.site.to_string() })
        }
        Outcome::AlreadySold(proof) => WireOutcome::AlreadySold(v1::AlreadySold { receipt: Some(receipt(proof)) }),
        Outcome::NotFound => WireOutcome::NotFound(v1::NotFound {}),
        Outcome::NotRecorded => WireOutcome::NotRecorded(v1::NotRecorded {}),
        Outcome::NotYours => WireOutcome::NotYours(v1::NotYours {}),
        Outcome::Failed(why) => WireOutcome::Failure(failure(status::failure(&why))),
    }
}

/// A failure that stands in an answer.
pub(super) fn failure(fault: Fault) -> v1::Failure {
    let invalid = |BadField { path, problem }| v1::InvalidField { field: path, problem };
    v1::Failure {
        code: fault.code.into(),
        reason: fault.reason.into(),
        message: fault.message.into(),
        outcome_unknown: fault.outcome_unknown,
        retry_after: fault.retry_after.map(span),
        invalid_fields: fault.fields.into_iter().map(invalid).collect(),
    }
}

/// A receipt on the wire.
pub(super) fn receipt(Receipt { of, key_id, mac }: Receipt) -> v1::Receipt {
    let durability = match of.durability {
        Durability::Synced => v1::Durability::Synced,
        Durability::Replicated => v1::Durability::Replicated,
        Durability::Volatile => v1::Durability::Volatile,
    };
    v1::Receipt {
        ledger_id: of.ledger.to_string(),
        request_id: of.request.to_string(),
        programme: of.programme.to_string(),
        site: of.site.to_string(),
        quantity: of.quantity,
        sold_at: Some(instant(of.sold_at)),
        durability: durability.into(),
        simulated_clock: of.simulated_clock,
        late: of.late,
        partition: of.partition.into(),
        key_id: key_id.to_string(),
        mac: mac.to_string(),
    }
}

fn standing(standing: Standing, district: impl Fn(SiteId) -> String) -> v1::Standing {
    v1::Standing {
        units_left: standing.left.units,
        purchases_left: standing.left.purchases,
        next_chance: standing
            .next
            .map(|chance| v1::NextChance { at: Some(instant(chance.at)), date: chance.date.to_string() }),
        earlier: standing.earlier.into_iter().map(|e| earlier(e, &district)).collect(),
    }
}

/// A purchase that counts, without its id. `district` tells where its site is.
pub(super) fn earlier(e: Earlier, district: impl Fn(SiteId) -> String) -> v1::EarlierPurchase {
    v1::EarlierPurchase { at: Some(instant(e.at)), quantity: e.quantity, district: district(e.site), held: e.held }
}

fn echo(echo: Echo) -> v1::Echo {
    v1::Echo {
        birth_year: echo.birth_year.into(),
        rotation_day: echo.rotation_day.unwrap_or_default().into(),
        masked_number: echo.masked_number,
        check_digit_warning: echo.check_digit_warning,
    }
}

/// What terminals do under a programme while nobody can be asked.
pub(super) fn offline((programme, policy): (ProgrammeId, Offline)) -> v1::OfflinePolicy {
    let mode = match policy {
        Offline::SellAndRecord => v1::OfflineMode::SellAndRecord,
        Offline::Stop => v1::OfflineMode::Stop,
    };
    v1::OfflinePolicy { programme: programme.to_string(), mode: mode.into() }
}

/// The wire's value of a refusal.
pub(super) fn refusal(refusal: Refusal) -> v1::Refusal {
    match refusal {
        Refusal::ChannelNotEnrolled => v1::Refusal::ChannelNotEnrolled,
        Refusal::NotEligible => v1::Refusal::NotEligible,
        Refusal::ProxyNotAllowed => v1::Refusal::ProxyNotAllowed,
        Refusal::NotYourDay => v1::Refusal::NotYourDay,
        Refusal::QuotaExhausted => v1::Refusal::QuotaExhausted,
    }
}

/// A record on the wire. It says no more about whose it is than its place in the export.
pub(super) fn exported(ordinal: u64, record: &Record) -> v1::ExportedRecord {
    v1::ExportedRecord { ordinal, entries: record.entries().iter().map(exported_entry).collect() }
}

/// One line of a record.
pub(super) fn exported_entry(entry: &Entry) -> v1::ExportedEntry {
    let state = match entry.state {
        State::Sold => v1::EntryState::Sold,
        State::Held => v1::EntryState::Held,
        State::Released => v1::EntryState::Released,
        State::Voided => v1::EntryState::Voided,
        State::Refused => v1::EntryState::Refused,
        State::Closed => v1::EntryState::Closed,
    };
    v1::ExportedEntry {
        request_id: entry.request.to_string(),
        state: state.into(),
        site: entry.site.to_string(),
        quantity: entry.quantity,
        hold: entry.kind == Kind::Hold,
        late: entry.late,
        over: entry.over,
        at: Some(instant(entry.at)),
        mark: Some(instant(entry.mark)),
    }
}

/// An event on the wire; `programme` is the id of its programme.
pub(super) fn event(told: &Told, programme: String) -> v1::PurchaseEvent {
    let kind = match told.event.kind {
        EventKind::Sold => v1::PurchaseEventKind::Sold,
        EventKind::Held => v1::PurchaseEventKind::Held,
        EventKind::Confirmed => v1::PurchaseEventKind::Confirmed,
        EventKind::Released => v1::PurchaseEventKind::Released,
        EventKind::Voided => v1::PurchaseEventKind::Voided,
        EventKind::Late => v1::PurchaseEventKind::Late,
    };
    let entry = &told.event.entry;
    v1::PurchaseEvent {
        kind: kind.into(),
        programme,
        request_id: entry.request.to_string(),
        site: entry.site.to_string(),
        terminal: told.terminal.to_string(),
        quantity: entry.quantity,
        at: Some(instant(entry.at)),
        mark: Some(instant(entry.mark)),
        over: entry.over,
        stated: told.stated.clone(),
    }
}

/// An instant that a caller names.
pub(super) fn moment(wire: WireTimestamp, path: &str) -> Result<Timestamp, BadField> {
    let millis = wire.seconds.checked_mul(1_000).and_then(|s| s.checked_add(i64::from(wire.nanos / 1_000_000)));
    let known = millis.filter(|_| (0..1_000_000_000).contains(&wire.nanos)).map(Timestamp::from_millis);
    let known = known.filter(|at| (Timestamp::EPOCH..Timestamp::NEVER).contains(at));
    known.ok_or_else(|| BadField::new(path, "must be an instant of 1970 or later, with nanos from 0 to 999,999,999"))
}

/// An instant on the wire.
pub(super) fn instant(at: Timestamp) -> WireTimestamp {
    let millis = at.as_millis();
    WireTimestamp {
        seconds: millis.div_euclid(1_000),
        nanos: i32::try_from(millis.rem_euclid(1_000) * 1_000_000).unwrap_or(0),
    }
}

/// A length of time on the wire.
pub(super) fn span(length: std::time::Duration) -> WireDuration {
    WireDuration::try_from(length).unwrap_or_default()
}
