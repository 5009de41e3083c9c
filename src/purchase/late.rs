//! A sale that was made while nobody could be asked: checked like any other, judged by nobody, recorded as it was.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::judging::earlier;
use super::prepare::{MAX_QUANTITY, stated};
use super::{Caller, Earlier, Invalid, Named, Purchases, Receipt};
use crate::ids::{Paper, ProgrammeCode, ProgrammeId, Relation, RequestId};
use crate::ledger::{self, Call, Entered, Ledger, LedgerError, RecordKey, State};
use crate::museum::Mutant;
use crate::policy::{Line, Programme, Window};
use crate::time::{Clock, Timestamp};

/// A sale, as it was sent.
pub struct AskedSale<'a> {
    /// Under which programme.
    pub programme: ProgrammeId,
    /// Its id.
    pub request: RequestId,
    /// Whose allowance is charged.
    pub buyer: Named<'a>,
    /// Units that were sold.
    pub quantity: u32,
    /// When.
    pub sold_at: Timestamp,
    /// How the agent stood to the buyer.
    pub relation: Option<Relation>,
    /// What was shown.
    pub papers: SmallVec<[Paper; 2]>,
}

/// A sale whose every field is good: the number is gone.
pub struct LateSale {
    programme: Arc<Programme>,
    request: RequestId,
    key: RecordKey,
    mark: [u8; 8],
    quantity: u32,
    /// When it was sold.
    pub sold_at: Timestamp,
    /// `None`: the programme was not in force then.
    windows: Option<Vec<Window>>,
    stated: String,
}

impl LateSale {
    /// Under which programme it was made.
    pub fn programme(&self) -> ProgrammeId {
        self.programme.id()
    }

    /// Its id.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// How long the ledger keeps purchases of its programme.
    pub fn kept(&self) -> Duration {
        self.programme.kept()
    }

    /// Whether the programme was in force when it was made.
    pub fn is_in_force(&self) -> bool {
        self.windows.is_some()
    }

    /// The programme's code.
    pub fn code(&self) -> ProgrammeCode {
        self.programme.code()
    }

    /// Units.
    pub fn quantity(&self) -> u32 {
        self.quantity
    }

    /// Tells two sales that come under one id apart: of whom, of what and how many units, under a key.
    pub fn mark(&self) -> [u8; 8] {
        self.mark
    }
}

/// What became of it in the ledger.
pub struct EnteredLate {
    /// How it stands there.
    pub stands: Stands,
    /// It stood so before.
    pub replayed: bool,
    /// What else counts in its windows, oldest first.
    pub earlier: Vec<Earlier>,
}

/// What stands in the ledger under a late sale's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stood {
    /// It was taken back.
    pub voided: bool,
    /// It was entered late, and not sold online.
    pub late: bool,
    /// It was entered late and is more than was allowed.
    pub over: bool,
}

/// How a late sale stands in the ledger.
pub enum Stands {
    /// It was entered late, now or before.
    Late {
        /// Proof of it.
        receipt: Receipt,
        /// It is more than was allowed.
        over: bool,
    },
    /// It was sold online.
    Online,
    /// It was taken back.
    Voided,
}

impl<L: Ledger, C: Clock> Purchases<L, C> {
    /// Checks every field of a late sale and makes the pseudonym. All bad fields are reported together.
    pub fn prepare_late(&self, asked: &AskedSale<'_>) -> Result<LateSale, Vec<Invalid>> {
        let programme = self.programme(asked.programme).map_err(|e| vec![e])?;
        let mut bad = Vec::new();
        if !(1..=MAX_QUANTITY).contains(&asked.quantity) {
            bad.push(Invalid::visit("quantity", format!("must be from 1 to {MAX_QUANTITY}")));
        }
        let said = [asked.quantity.to_be_bytes().as_slice(), programme.code().as_str().as_bytes()].concat();
        let identified = self.identify(&self.ring.load(), &programme, asked.buyer, |ring, buyer| {
            ring.mark_of(asked.request, buyer, &said)
        });
        let (buyer, key, _, mark) = match identified {
            Ok(identified) => identified,
            Err((field, problem)) => {
                bad.push(Invalid::visit(field, problem));
                return Err(bad);
            }
        };
        let line = Line { buyer, relation: asked.relation, papers: asked.papers.clone(), quantity: asked.quantity };
        if let Some(word) = programme.unknown_word(&line) {
            let field = if word.what == "relation" { "relation" } else { "papers" };
            bad.push(Invalid::visit(field, word.to_string()));
        }
        if !bad.is_empty() {
            return Err(bad);
        }
        Ok(LateSale {
            request: asked.request,
            key,
            mark,
            quantity: asked.quantity,
            sold_at: asked.sold_at,
            windows: programme.late_windows(buyer, asked.sold_at),
            stated: stated(asked.relation.as_ref(), &asked.papers),
            programme,
        })
    }

    /// Records a late sale. It happened, so nothing refuses it.
    pub async fn enter(&self, sale: &LateSale, caller: &Caller) -> Result<EnteredLate, LedgerError> {
        let windows = sale.windows.clone().unwrap_or_default();
        let call = Call { request: sale.request, site: caller.site, terminal: caller.terminal, now: self.clock.now() };
        let late = ledger::Late {
            quantity: sale.quantity,
            sold_at: sale.sold_at,
            windows: windows.clone(),
            stated: sale.stated.clone(),
        };
        if Mutant::LateOverQuotaDropped.is_on() && self.would_be_over(sale, &windows).await? {
            return Ok(EnteredLate { stands: Stands::Online, replayed: true, earlier: Vec::new() });
        }
        let answer = self.ledger.late(sale.key, call, late).await?;
        let entry = match answer.outcome {
            Entered::Sold(entry) => entry,
            Entered::AlreadyRecorded(entry) if entry.late => entry,
            Entered::AlreadyRecorded(_) => {
                return Ok(EnteredLate { stands: Stands::Online, replayed: true, earlier: Vec::new() });
            }
            Entered::AlreadyVoided(_) => {
                return Ok(EnteredLate { stands: Stands::Voided, replayed: true, earlier: Vec::new() });
            }
        };
        let receipt = self.receipt(&sale.programme, sale.key, entry)?;
        let earlier = earlier(&windows, &answer.record, answer.at, Some(sale.request));
        Ok(EnteredLate { stands: Stands::Late { receipt, over: entry.over }, replayed: answer.replayed, earlier })
    }

    /// What stands under its id; `None`: nothing that is or was a sale. Changes nothing.
    pub async fn stands(&self, sale: &LateSale) -> Result<Option<Stood>, LedgerError> {
        // A read that failed wrote nothing, however it failed.
        let record = self.ledger.usage(sale.key).await.map_err(|error| match error {
            LedgerError::Unconfirmed(why) => LedgerError::StoreUnavailable(why),
            other => other,
        })?;
        let entry = record.find(sale.request);
        let entry = entry.filter(|entry| matches!(entry.state, State::Sold | State::Voided));
        Ok(entry.map(|entry| Stood { voided: entry.state == State::Voided, late: entry.late, over: entry.over }))
    }

    async fn would_be_over(&self, sale: &LateSale, windows: &[Window]) -> Result<bool, LedgerError> {
        let record = self.ledger.usage(sale.key).await?;
        let used = |window| ledger::rules::used(&record, window, self.clock.now(), Some(sale.request));
        Ok(windows.iter().any(|window| !window.allows(used(window), sale.quantity)))
    }
}
