//! The use cases in front of the stock: taking what a site reports, and finding what is shown.
//!
//! Knows nothing about the wire or about which shelf it is.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::ids::{ProgrammeCode, ProgrammeId, RequestId, SiteId};
use crate::ledger::LedgerError;
use crate::policy::{Policies, Programme, StockLevels};
use crate::sites::Sites;
use crate::sites::near::Map;
use crate::time::{Clock, Timestamp};

use super::board::Board;
use super::levels::COUNTS_REACH_BACK;
use super::{Key, Recorded, Report, Shelf, Thresholds, What};

/// The most units in a report: a larger number is a slip.
pub const MOST_UNITS: u32 = 1_000_000;

/// How far back a delivery, a pause or a resumption may be dated when it is reported: for as long as the ids of reports are remembered,
/// so that none can be sent again when nobody knows it any more.
const REPORTS_REACH_BACK: Duration = Duration::from_secs(24 * 60 * 60);

/// How far the clock of a site may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(60);

/// What a site says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The report's own id.
    pub request: RequestId,
    /// The programme's id, as it was written.
    pub programme: String,
    /// Whose stock.
    pub site: SiteId,
    /// What is said.
    pub what: What,
    /// When it was so; `None`: now.
    pub at: Option<Timestamp>,
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// A field is not right: which, in the words of the interface, and what would be.
    #[error("{0}: {1}")]
    Field(&'static str, String),
    /// The id stands for another report of this site.
    #[error("this id stands for another report")]
    Reused,
    /// The store cannot say.
    #[error(transparent)]
    Shelf(#[from] LedgerError),
}

/// Takes what sites report.
#[derive(Clone)]
pub struct Intake<S, C> {
    shelf: S,
    clock: C,
    policies: Arc<ArcSwap<Policies>>,
    gate: Gate,
}

/// Why nothing can be recorded now; `None`: it can. Where sales stop, for a clock that is off or a store that has lost something, reports
/// do, too.
pub type Gate = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl<S: Shelf, C: Clock> Intake<S, C> {
    /// For this shelf, by the programmes' ids.
    pub fn new(shelf: S, clock: C, policies: Arc<ArcSwap<Policies>>, gate: Gate) -> Self {
        Self { shelf, clock, policies, gate }
    }

    /// Takes a report. Sent again, it gives the report as it stands and `true`.
    pub async fn take(&self, said: Said) -> Result<(Report, bool), NotTaken> {
        let programme =
            known(&self.policies.load(), &said.programme).map_err(|why| NotTaken::Field("programme", why))?;
        let received = self.clock.now();
        let at = said.at.unwrap_or(received);
        units(said.what)?;
        if at > received.plus(AHEAD) {
            return Err(NotTaken::Field("at", format!("{at} is yet to come; leave it out for now")));
        }
        // What is a little ahead was so when it came.
        let at = at.min(received);
        let (back, remedy) = match said.what {
            What::Counted(_) => (COUNTS_REACH_BACK, "count again"),
            What::Delivered(_) | What::Paused | What::Resumed => {
                (REPORTS_REACH_BACK, "count what is there and report that")
            }
        };
        if at < received.minus(back) {
            let hours = back.as_secs() / 3600;
            return Err(NotTaken::Field("at", format!("{at} is more than {hours} hours ago; {remedy}")));
        }
        let key = Key { programme, site: said.site };
        if let Some(why) = (self.gate)() {
            return Err(LedgerError::StoreUnavailable(why).into());
        }
        match self.shelf.record(Report { request: said.request, key, what: said.what, at, received }).await? {
            Recorded::Stands { report, replayed } => Ok((report, replayed)),
            Recorded::OtherReport => Err(NotTaken::Reused),
        }
    }
}

fn units(what: What) -> Result<(), NotTaken> {
    match what {
        What::Delivered(0) => Err(NotTaken::Field("delivery.units", "must be at least 1".to_owned())),
        What::Delivered(units) if units > MOST_UNITS => Err(too_many("delivery.units")),
        What::Counted(units) if units > MOST_UNITS => Err(too_many("count.units")),
        _ => Ok(()),
    }
}

fn too_many(field: &'static str) -> NotTaken {
    NotTaken::Field(field, format!("must be at most {MOST_UNITS}"))
}

/// The code of the programme with this id, or what to write instead.
fn known(policies: &Policies, id: &str) -> Result<ProgrammeCode, String> {
    let found = id.parse::<ProgrammeId>().ok().and_then(|id| policies.get(id));
    found.map(|programme| programme.code()).ok_or_else(|| policies.not_known())
}

/// What is shown, and what is needed to say of whom.
#[derive(Clone)]
pub struct Stocks {
    /// What is shown.
    pub board: Board,
    sites: Arc<ArcSwap<Sites>>,
    policies: Arc<ArcSwap<Policies>>,
    map: Arc<ArcSwap<Option<Placed>>>,
}

/// Sites, and the same by where they are.
type Placed = (Arc<Sites>, Arc<Map>);

impl Stocks {
    /// On this board, of these sites and programmes, which may change meanwhile.
    pub fn new(board: Board, sites: Arc<ArcSwap<Sites>>, policies: Arc<ArcSwap<Policies>>) -> Self {
        Self { board, sites, policies, map: Arc::default() }
    }

    /// The sites as they are now.
    pub fn sites(&self) -> Arc<Sites> {
        self.sites.load_full()
    }

    /// The sites by where they are, and all of them, both of the same moment. Made anew when the sites have changed.
    pub fn map(&self) -> Placed {
        let sites = self.sites.load_full();
        let kept: Guard<_> = self.map.load();
        if let Some((of, map)) = &**kept
            && Arc::ptr_eq(of, &sites)
        {
            return (sites, map.clone());
        }
        let map = Arc::new(Map::of(&sites));
        self.map.store(Arc::new(Some((sites.clone(), map.clone()))));
        (sites, map)
    }

    /// The code of the programme with this id, or what to write instead.
    pub fn programme(&self, id: &str) -> Result<ProgrammeCode, String> {
        known(&self.policies.load(), id)
    }

    /// Every programme: its code, its id and what it is called.
    pub fn programmes(&self) -> Vec<(ProgrammeCode, ProgrammeId, String)> {
        let told = |programme: &Arc<Programme>| (programme.code(), programme.id(), programme.title().to_owned());
        self.policies.load().iter().map(told).collect()
    }

    /// How many units make which level of this programme's.
    pub fn thresholds(&self, code: ProgrammeCode) -> Thresholds {
        let policies = self.policies.load();
        let found = policies.iter().find(|programme| programme.code() == code);
        found.map_or(Thresholds::OF_2020, |programme| {
            let StockLevels { plenty, some, few } = programme.stock_levels();
            Thresholds { plenty, some, few }
        })
    }

    /// An instant in the time of the programme's country, as the feed of 2020 wrote it: `2020/03/11 09:00:00`.
    pub fn local(&self, code: ProgrammeCode, at: Timestamp) -> String {
        let policies = self.policies.load();
        let found = policies.iter().find(|programme| programme.code() == code);
        found.map_or_else(|| at.to_string(), |programme| programme.stamp(at))
    }
}
