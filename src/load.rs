//! The load harness: many terminals against one service, and an audit of what the service then has in its ledger.
//!
//! A [`scenario`] says how many sites and people there are, what they ask for and when. From its seed alone follow the
//! [`workload`], so that several processes can share a run, and the people, whose numbers are made up and never shown. The
//! [`driver`] sends by the timetable and takes everything down; afterwards the ledger is read through an operator call and held
//! against what was answered ([`audit`]). What comes of it is shown by [`report`].
//!
//! A historic morning of the waiting room is a run of another kind, with checks and a report of its own ([`storm`]).
//!
//! Anything but the public client is unknown here.

pub mod audit;
#[doc(hidden)]
pub mod chance;
#[doc(hidden)]
pub mod counter;
pub mod driver;
pub mod history;
mod part;
#[doc(hidden)]
pub mod population;
pub mod programme;
mod recorder;
pub mod report;
pub mod run;
pub mod scenario;
mod service;
pub mod shared;
pub mod sites;
pub mod storm;
pub mod target;
pub mod workers;
pub mod workload;

use std::collections::HashSet;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use crate::grpc::v1;
use crate::ids::{LedgerId, ProgrammeId, RequestId};
use crate::terminal::{Connection, Export, Operator};
use audit::Audit;
use driver::{Ending, Part};
use history::Asked;
pub use part::PartOrder;
use programme::Carried;
pub use recorder::Tick;
use run::{Ended, RunFacts};
use scenario::Scenario;
pub use service::Own;
#[doc(hidden)]
pub use service::prepare;
use sites::Places;
use target::{LoadError, Target};
use workers::Sharing;

/// Which service is loaded.
pub enum Serve {
    /// One that is started for the run.
    Own(Own),
    /// One that runs already.
    Running(Target),
}

/// A run to be made.
pub struct RunOrder {
    /// What it is to be.
    pub scenario: Scenario,
    /// Its sites.
    pub places: Places,
    /// The service.
    pub serve: Serve,
    /// The processes that share it; `None`: this one alone.
    pub sharing: Option<Sharing>,
    /// Whether the ledger is audited afterwards.
    pub audited: bool,
}

/// A run that is over.
pub struct Finished {
    /// What it was.
    pub facts: RunFacts,
    /// Every call.
    pub history: Vec<Asked>,
    /// What the audit found; `None` if there was none, and `facts` says why.
    pub audit: Option<Audit>,
    /// Where the ledger and the log of a service of the harness's own are kept, because something was found or it was lost.
    pub kept: Option<PathBuf>,
}

/// Makes a run and audits it. `tick` is told of every second. A signal ends it early: what was is reported.
pub async fn run(order: RunOrder, tick: impl FnMut(Tick)) -> Result<Finished, LoadError> {
    let ending = Ending::default();
    let signals = tokio::spawn(listen(ending.clone())?);
    let finished = match &order.serve {
        Serve::Running(target) => conduct(&order, target, &ending, std::future::pending(), tick).await,
        Serve::Own(own) => {
            let service = own.start(&order.scenario, &order.places).await?;
            let mut finished = conduct(&order, &service.target, &ending, service.gone(), tick).await;
            if let Ok(finished) = &mut finished {
                finished.facts.own_service = Some(service.store.clone());
            }
            let keep = finished.as_ref().is_ok_and(Finished::asks_for_a_look);
            let kept = service.stop(keep).await;
            finished.map(|finished| Finished { kept, ..finished })
        }
    };
    signals.abort();
    finished
}

/// Does one worker's part of a run and writes its history. `tick` is told of every second.
pub async fn work(order: &PartOrder<'_>, history: &std::path::Path, tick: impl FnMut(Tick)) -> Result<(), LoadError> {
    let ending = Ending::default();
    let signals = tokio::spawn(listen(ending.clone())?);
    let (facts, calls) = part::run(order, &ending, std::future::pending(), tick).await?;
    signals.abort();
    shared::write(history, &facts, &calls)
}

/// Makes one run of the histories of workers on several machines, and audits it.
pub async fn merge(files: &[PathBuf], target: &Target, audited: bool) -> Result<Finished, LoadError> {
    let parts: Result<Vec<_>, _> = files.iter().map(|file| shared::read(file)).collect();
    let parts = parts?;
    shared::complete(parts.iter().map(|(facts, _)| facts.part))?;
    let (facts, history) = shared::together(parts)?;
    let programme = Carried::named(facts.programme.as_str())
        .ok_or_else(|| LoadError::Unfit(format!("{} is no programme of this harness", facts.programme)))?;
    Ok(audit_of(programme, target, facts, history, audited, &HashSet::new()).await)
}

impl Finished {
    /// Whether somebody should look at what is left of the service.
    fn asks_for_a_look(&self) -> bool {
        self.audit.as_ref().is_some_and(|audit| !audit.is_clean())
            || matches!(self.facts.ended, Ended::ServiceLost { .. })
    }
}

async fn conduct(
    order: &RunOrder,
    target: &Target,
    ending: &Ending,
    gone: impl Future<Output = String>,
    tick: impl FnMut(Tick),
) -> Result<Finished, LoadError> {
    let RunOrder { scenario, places, sharing, audited, .. } = order;
    let programme = scenario.carried();
    let before = match audited {
        true => ending.enough.run_until_cancelled(recorded(target, programme.id())).await.unwrap_or_default(),
        false => HashSet::new(),
    };
    let (facts, history) = match sharing {
        Some(sharing) => sharing.run(scenario, places, target, ending, gone, tick).await?,
        None => {
            let part = PartOrder { scenario, places, target, part: Part::WHOLE, start_at: None };
            part::run(&part, ending, gone, tick).await?
        }
    };
    Ok(audit_of(programme, target, facts, history, *audited, &before).await)
}

/// The request ids that stand under the programme. None if they cannot be read, which is no reason not to run: if it stays so,
/// there is no audit, and the report says why.
async fn recorded(target: &Target, programme: ProgrammeId) -> HashSet<RequestId> {
    let records = export(target, programme).await.map(|export| export.records).unwrap_or_default();
    let entries = records.iter().flat_map(|record| &record.entries);
    entries.filter_map(|entry| entry.request_id.parse().ok()).collect()
}

async fn audit_of(
    programme: &Carried,
    target: &Target,
    mut facts: RunFacts,
    history: Vec<Asked>,
    audited: bool,
    before: &HashSet<RequestId>,
) -> Finished {
    let records = match tells_nothing(&facts.ended) {
        Some(why) => Err(why.to_owned()),
        None if !audited => Err("it was asked for not to be (--without-audit)".to_owned()),
        None => export(target, facts.programme).await.and_then(|export| records(export, facts.ledger)),
    };
    let audit = match records {
        Ok(records) => Some(audit::audit(&history, &records, &programme.rule(), before)),
        Err(why) => {
            facts.not_audited = Some(why);
            None
        }
    };
    Finished { facts, history, audit, kept: None }
}

/// Why a run that ended so cannot be held against the ledger, if it cannot.
fn tells_nothing(ended: &Ended) -> Option<&'static str> {
    match ended {
        Ended::Complete | Ended::Interrupted => None,
        Ended::ServiceLost { .. } => Some("the service was lost: its ledger cannot be read"),
        // What a worker sold that died would be sales that nobody asked for.
        Ended::HarnessFailed(_) => Some("the harness failed: a part of its calls is not known"),
    }
}

/// Every record of the programme, or why there is none.
async fn export(target: &Target, programme: ProgrammeId) -> Result<Export, String> {
    let operator = target.operator.as_ref().ok_or("nobody said where operators call (--operator URL)")?;
    let operator = Connection::open(operator, target.operator_tls.as_ref())
        .await
        .map_err(|unreachable| unreachable.to_string())?;
    Operator::on(&operator).export(programme.as_str()).await.map_err(|error| error.to_string())
}

/// All records of an export, or why they cannot be held against a run that sold into `ledger`; `None`: into no ledger at all.
fn records(export: Export, ledger: Option<LedgerId>) -> Result<Vec<v1::ExportedRecord>, String> {
    if let Some(sold) = ledger
        && export.ledger_id.parse() != Ok(sold)
    {
        return Err(format!(
            "the operator's ledger is {}, the run sold into {sold}: name the operator address of that service",
            export.ledger_id
        ));
    }
    match export.unreadable {
        0 => Ok(export.records),
        unreadable => Err(format!("{unreadable} records of the ledger cannot be read")),
    }
}

/// Ends the run early at the first signal, and at once at the second.
fn listen(ending: Ending) -> Result<impl Future<Output = ()>, LoadError> {
    let failed = |error| LoadError::Failed(format!("signals cannot be heard: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        for token in [&ending.enough, &ending.at_once] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_ledger_that_was_sold_into_is_audited() {
        let [ours, other]: [LedgerId; 2] = [[1; 16], [2; 16]].map(|bytes| LedgerId::from_bytes(bytes).unwrap());
        let export = |unreadable| Export { ledger_id: ours.to_string(), records: Vec::new(), unreadable };
        assert_eq!(records(export(0), Some(ours)), Ok(Vec::new()));
        assert_eq!(records(export(0), None), Ok(Vec::new()));
        let why = records(export(0), Some(other)).unwrap_err();
        assert!(why.contains(&format!("the operator's ledger is {ours}, the run sold into {other}")), "{why}");
        assert!(records(export(3), Some(ours)).unwrap_err().starts_with("3 records"));
    }

    #[test]
    fn a_run_of_which_a_part_is_missing_is_not_audited() {
        assert_eq!([Ended::Complete, Ended::Interrupted].map(|ended| tells_nothing(&ended)), [None, None]);
        let died = Ended::HarnessFailed("worker 2: signal: 9".into());
        assert!(tells_nothing(&died).is_some_and(|why| why.contains("the harness failed")));
        let lost = Ended::ServiceLost { last_answer: std::time::Duration::ZERO, why: String::new() };
        assert!(tells_nothing(&lost).is_some_and(|why| why.contains("the service was lost")));
    }
}
