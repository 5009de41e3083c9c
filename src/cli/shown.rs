//! An answer as a page that a clerk can read aloud, and as one JSON object.

use std::fmt;

use serde_json::{Value, json};

use super::exit;
use crate::grpc::v1::{self, purchase_result::Outcome};
use crate::ids::ProgrammeId;
use crate::policy::Policies;
use crate::terminal::{WireTimestamp, instant};

/// What a yes means: goods may be handed over, or a purchase is undone. A sale that was taken back is a yes to whoever wanted
/// it taken back, and a no to whoever would hand over goods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    ToSell,
    ToUndo,
}

/// A result, and the programme whose zone its times are shown in.
pub(super) struct Shown {
    asked: Asked,
    programme: ProgrammeId,
    result: v1::PurchaseResult,
}

impl Shown {
    pub(super) fn new(asked: Asked, programme: ProgrammeId, result: v1::PurchaseResult) -> Self {
        Self { asked, programme, result }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match &self.result.outcome {
            Some(Outcome::MayBuy(_) | Outcome::Approved(_) | Outcome::Held(_) | Outcome::NotRequired(_)) => exit::YES,
            Some(Outcome::Released(_) | Outcome::Voided(_)) if self.asked == Asked::ToUndo => exit::YES,
            Some(
                Outcome::Refused(_)
                | Outcome::Released(_)
                | Outcome::Voided(_)
                | Outcome::HoldExpired(_)
                | Outcome::AlreadySold(_)
                | Outcome::NotFound(_)
                | Outcome::NotRecorded(_)
                | Outcome::NotYours(_),
            ) => exit::NO,
            Some(Outcome::Failure(failure)) if !failure.outcome_unknown => exit::NOT_EXECUTED,
            Some(Outcome::Failure(_)) | None => exit::UNKNOWN,
        }
    }

    fn decision(&self) -> &'static str {
        match &self.result.outcome {
            Some(Outcome::MayBuy(_)) => "MAY_BUY",
            Some(Outcome::Approved(_)) => "APPROVED",
            Some(Outcome::Held(_)) => "HELD",
            Some(Outcome::Refused(refused)) => refused.reasons.first().map_or("REFUSED", |r| name(r.refusal())),
            Some(Outcome::NotRequired(_)) => "NOT_REQUIRED",
            Some(Outcome::Released(_)) => "RELEASED",
            Some(Outcome::HoldExpired(_)) => "HOLD_EXPIRED",
            Some(Outcome::Voided(_)) => "VOIDED",
            Some(Outcome::AlreadySold(_)) => "ALREADY_SOLD",
            Some(Outcome::NotFound(_)) => "NOT_FOUND",
            Some(Outcome::NotRecorded(_)) => "NOT_RECORDED",
            Some(Outcome::NotYours(_)) => "NOT_YOURS",
            Some(Outcome::Failure(_)) => "FAILED",
            None => "UNKNOWN",
        }
    }

    /// What the clerk does.
    fn headline(&self) -> &'static str {
        match &self.result.outcome {
            Some(Outcome::MayBuy(_)) => "MAY BUY",
            Some(Outcome::Approved(_)) => "SELL",
            Some(Outcome::NotRequired(_)) => "SELL FREELY",
            Some(Outcome::Held(_)) => "HELD",
            Some(Outcome::Refused(_)) => "DO NOT SELL",
            Some(Outcome::Released(_)) => "HOLD GIVEN BACK",
            Some(Outcome::HoldExpired(_)) => "HOLD EXPIRED: DO NOT HAND OVER",
            Some(Outcome::Voided(_)) => "SALE TAKEN BACK",
            Some(Outcome::AlreadySold(_)) => "ALREADY SOLD: use void",
            Some(Outcome::NotFound(_)) => "NOTHING UNDER THIS ID",
            Some(Outcome::NotRecorded(_)) => "NOT RECORDED, and this id can never be",
            Some(Outcome::NotYours(_)) => "ANOTHER SITE'S PURCHASE: nothing changed",
            Some(Outcome::Failure(_)) | None => "NO DECISION",
        }
    }

    fn receipt(&self) -> Option<&v1::Receipt> {
        match &self.result.outcome {
            Some(Outcome::Approved(approved)) => approved.receipt.as_ref(),
            Some(Outcome::AlreadySold(sold)) => sold.receipt.as_ref(),
            _ => None,
        }
    }

    fn reasons(&self) -> &[v1::Reason] {
        match &self.result.outcome {
            Some(Outcome::Refused(refused)) => &refused.reasons,
            _ => &[],
        }
    }

    /// When the outcome came about, or will.
    fn instant(&self) -> Option<(&'static str, &WireTimestamp)> {
        match &self.result.outcome {
            Some(Outcome::Held(held)) => held.until.as_ref().map(|at| ("until", at)),
            Some(Outcome::Released(released)) => released.released_at.as_ref().map(|at| ("released_at", at)),
            Some(Outcome::HoldExpired(expired)) => expired.expired_at.as_ref().map(|at| ("expired_at", at)),
            Some(Outcome::Voided(voided)) => voided.voided_at.as_ref().map(|at| ("voided_at", at)),
            _ => None,
        }
    }

    /// In the programme's zone where this build knows the programme, in UTC otherwise.
    fn local(&self, at: &WireTimestamp) -> String {
        let at = instant(at);
        Policies::built_in().get(self.programme).map_or_else(|| at.to_string(), |programme| programme.local(at))
    }

    /// One object: `decision`, `reasons`, `left` and `next_chance` as `policy explain` names them, and what a call adds.
    pub(super) fn json(&self) -> Value {
        let result = &self.result;
        let standing = result.standing.as_ref();
        let mut object = json!({
            "decision": self.decision(),
            "programme": self.programme.to_string(),
            "request_id": result.request_id,
            "ledger_id": result.ledger_id,
            "replayed": result.replayed,
            "reasons": self.reasons().iter().map(|r| json!({ "name": name(r.refusal()), "why": r.why })).collect::<Vec<_>>(),
            "left": standing.map(|s| json!({ "units": s.units_left, "purchases": s.purchases_left })),
            "next_chance": standing.and_then(|s| s.next_chance.as_ref()).map(|chance| json!({
                "date": chance.date,
                "at": chance.at.as_ref().map(|at| self.local(at)),
            })),
            "earlier": standing.map(|s| s.earlier.iter().map(|e| json!({
                "at": e.at.as_ref().map(|at| self.local(at)),
                "quantity": e.quantity,
                "district": e.district,
                "held": e.held,
            })).collect::<Vec<_>>()).unwrap_or_default(),
            "receipt": self.receipt().map(|r| json!({
                "ledger_id": r.ledger_id,
                "request_id": r.request_id,
                "programme": r.programme,
                "site": r.site,
                "quantity": r.quantity,
                "sold_at": r.sold_at.as_ref().map(|at| self.local(at)),
                "durability": durability(r.durability()),
                "simulated_clock": r.simulated_clock,
                "late": r.late,
                "partition": r.partition,
                "key_id": r.key_id,
                "mac": r.mac,
            })),
            "echo": result.echo.as_ref().map(|e| json!({
                "birth_year": e.birth_year,
                "rotation_day": e.rotation_day,
                "masked_number": e.masked_number,
                "check_digit_warning": e.check_digit_warning,
            })),
        });
        if let (Some((key, at)), Some(map)) = (self.instant(), object.as_object_mut()) {
            map.insert(key.into(), self.local(at).into());
        }
        object
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = if self.result.replayed { " (as answered before)" } else { "" };
        write!(f, "{}  {}{again}", self.headline(), self.decision())?;
        for reason in self.reasons() {
            write!(f, "\n  why      {}: {}", name(reason.refusal()), reason.why)?;
        }
        match &self.result.outcome {
            Some(Outcome::NotRequired(not_required)) => write!(f, "\n  why      {}", not_required.why)?,
            Some(Outcome::Failure(failure)) => write!(f, "\n  why      {}: {}", failure.reason, failure.message)?,
            _ => {}
        }
        if let Some(echo) = &self.result.echo {
            write!(f, "\n  buyer    {} born {}", echo.masked_number, echo.birth_year)?;
            if !echo.rotation_day.is_empty() {
                write!(f, ", own day {}", echo.rotation_day)?;
            }
            if echo.check_digit_warning {
                write!(f, "\n  WARNING  the check digit does not fit: read the number again")?;
            }
        }
        if let Some(receipt) = self.receipt() {
            let at = receipt.sold_at.as_ref().map(|at| self.local(at)).unwrap_or_default();
            write!(f, "\n  receipt  {} of {} at {} on {at}", receipt.quantity, receipt.programme, receipt.site)?;
            write!(f, "\n           request id {}, ledger {}", receipt.request_id, receipt.ledger_id)?;
            let v1::Receipt { partition, key_id, mac, .. } = receipt;
            write!(f, "\n           mac {mac} under key {key_id}, partition {partition}")?;
            if receipt.durability() == v1::Durability::Volatile {
                write!(f, "\n           VOLATILE STORE: a crash may lose this sale")?;
            }
            if receipt.simulated_clock {
                write!(f, "\n           SIMULATED CLOCK: worth nothing outside a test")?;
            }
        }
        if let Some((key, at)) = self.instant() {
            write!(f, "\n  {:<8} {}", key.trim_end_matches("_at"), self.local(at))?;
        }
        if let Some(standing) = &self.result.standing {
            let units = standing.units_left.map_or("no limit in units".into(), |n| counted(n, "unit"));
            let purchases =
                standing.purchases_left.map(|n| format!(", {}", counted(n, "purchase"))).unwrap_or_default();
            write!(f, "\n  left     {units}{purchases}")?;
            for earlier in &standing.earlier {
                let at = earlier.at.as_ref().map(|at| self.local(at)).unwrap_or_default();
                let held = if earlier.held { ", held" } else { "" };
                write!(f, "\n  earlier  {} on {at} in {}{held}", earlier.quantity, earlier.district)?;
            }
            match &standing.next_chance {
                Some(chance) => write!(f, "\n  next     {}", chance.date)?,
                None => write!(f, "\n  next     not within a year")?,
            }
        }
        Ok(())
    }
}

fn counted(n: u32, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn name(refusal: v1::Refusal) -> &'static str {
    refusal.as_str_name().trim_start_matches("REFUSAL_")
}

fn durability(durability: v1::Durability) -> &'static str {
    durability.as_str_name().trim_start_matches("DURABILITY_")
}
