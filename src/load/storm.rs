//! Historic mornings of the waiting room, as runs of their own kind: not how many sales a service bears, but what becomes of
//! sessions, places and sales when far more terminals come than there are seats.
//!
//! The harness starts one Redis and several services of its own (`scene`). Pharmacies hold sessions and sell by a timetable
//! that waits for no answer (`pharmacy`); then a crowd comes (`crowd`): post offices whose clients know no patience (`clerk`),
//! or a line (`waiter`) with thieves about it (`thief`), in the middle of which everything is restarted (`outages`). Where sites
//! have several terminals, an operator leaves them one in the end (`switch`).
//! Everything is taken down as the clients saw it (`notes`) and held against what was promised (`checks`).

mod checks;
mod clerk;
mod crowd;
mod guest;
pub mod morning;
mod notes;
mod outages;
mod pharmacy;
mod report;
mod scene;
mod store;
mod switch;
mod thief;
mod waiter;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::audit::{self, Audit};
use super::chance::Chance;
use super::history::Asked;
use super::programme::Carried;
use super::recorder::RunClock;
use super::service::Own;
use super::sites::Places;
use super::target::LoadError;
use super::{Ending, export, listen, records};
use crate::terminal::Terminal;
use checks::Checks;
use crowd::Comers;
use morning::{Limits, Morning};
use notes::{Notes, Sample, Taken, Trace};
use pharmacy::{Pharmacies, Pharmacy};
use scene::Scene;

/// Sessions on one connection, as many as a gateway may hold and still make calls: the service takes 64 streams on each.
const ON_ONE: usize = 40;
/// Pharmacies that open their sessions in a second.
const OPENED_A_SECOND: u32 = 600;
/// So long after the last of them was to open, the morning begins without those that have no session.
const OPENING_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked how many sessions there are.
const LOOK: Duration = Duration::from_millis(200);
/// How long answers are waited for when the morning is over: longer than a call may take.
const LAST_ANSWERS: Duration = Duration::from_secs(15);

/// A morning to be run.
pub struct StormOrder {
    /// What it is to be.
    pub morning: Morning,
    /// What services are made of. Its store is not used: a morning has a Redis of its own.
    pub own: Own,
    /// Service processes.
    pub services: u32,
    /// Whether the same morning is run a second time, without limits.
    pub contrast: bool,
}

/// A morning that is over.
pub struct Storm {
    /// What it was.
    morning: Morning,
    services: u32,
    run: Outcome,
    /// The same without limits.
    contrast: Option<Outcome>,
    /// Where the ledger and the logs are kept, because something was found.
    pub kept: Option<PathBuf>,
}

/// What became of one run.
struct Outcome {
    /// What begins when, since the run began.
    phases: Vec<(Duration, &'static str)>,
    elapsed: Duration,
    interrupted: bool,
    /// Connections of the clients.
    connections: usize,
    /// Pharmacies that had a session when the quiet began.
    pharmacies: u64,
    /// Sessions that clerks asked for by the plan.
    logins: u64,
    /// How often they were let in.
    admitted: u64,
    /// How often they were not, or lost what they had, by reason.
    refused: BTreeMap<String, u64>,
    /// Sessions that the service ended, by reason.
    ended: BTreeMap<String, u64>,
    samples: Vec<Sample>,
    traces: Vec<Trace>,
    /// Terminals that came back to their places, by second.
    returns: BTreeMap<u64, u64>,
    /// What was said to thieves.
    tries: BTreeMap<String, u64>,
    sales: Vec<Asked>,
    audit: Result<Audit, String>,
    checks: Checks,
}

/// One second of a morning, for somebody who watches.
pub struct StormTick {
    /// Since the run began.
    pub second: u64,
    /// What it is called.
    pub phase: &'static str,
    /// Sessions that the clients hold.
    pub live: u64,
    /// Terminals that wait.
    pub line: u64,
    /// Sales that were acknowledged in it.
    pub sold: u64,
    /// 99 of 100 sales of it took at most so long, milliseconds.
    pub p99: Option<f64>,
    /// Log-ins that were refused in it.
    pub refused: u64,
}

/// Runs a morning. `tick` is told of every second. A signal ends it early: what was is reported.
pub async fn run(order: StormOrder, mut tick: impl FnMut(StormTick)) -> Result<Storm, LoadError> {
    let ending = Ending::default();
    let signals = tokio::spawn(listen(ending.clone())?);
    let StormOrder { morning, own, services, contrast } = order;
    let (run, kept) = one(&morning, &own, services, &morning.limits(), &ending, &mut tick).await?;
    let without = if contrast && !ending.enough.is_cancelled() {
        Some(one(&morning, &own, services, &Limits::NONE, &ending, &mut tick).await?.0)
    } else {
        None
    };
    signals.abort();
    Ok(Storm { morning, services, run, contrast: without, kept })
}

/// One run under these limits, with a Redis and services of its own.
async fn one(
    morning: &Morning,
    own: &Own,
    services: u32,
    limits: &Limits,
    ending: &Ending,
    tick: &mut impl FnMut(StormTick),
) -> Result<(Outcome, Option<PathBuf>), LoadError> {
    let places = Places::of_channels(&morning.sites()?);
    let scene = Scene::start(own, &places, limits.settings(), services).await?;
    let outcome = tokio::select! {
        outcome = play(morning, limits, &scene, &places, ending, tick) => outcome,
        how = scene.gone() => Err(LoadError::Failed(how)),
    };
    let keep = outcome.as_ref().map_or(true, |outcome| limits.are_set && !outcome.is_clean());
    let kept = scene.stop(keep).await;
    match (outcome, kept) {
        (Ok(outcome), kept) => Ok((outcome, kept)),
        (Err(error), Some(kept)) => Err(LoadError::Failed(format!("{error}; all logs are in {}", kept.display()))),
        (Err(error), None) => Err(error),
    }
}

async fn play(
    morning: &Morning,
    limits: &Limits,
    scene: &Scene,
    places: &Places,
    ending: &Ending,
    tick: &mut impl FnMut(StormTick),
) -> Result<Outcome, LoadError> {
    let pharmacies = morning.pharmacies as usize;
    let (chemists, offices) = places.sites().split_at_checked(pharmacies).unwrap_or((places.sites(), &[]));
    let comers = Comers { morning, limits, services: scene.services(), first: pharmacies, offices };
    let many = chemists.len().div_ceil(ON_ONE);
    let connections = scene.connect(many + comers.connections()).await?;
    let (for_chemists, for_crowd) = connections.split_at_checked(many).unwrap_or((&connections, &[]));

    let clock = RunClock::beginning_in(Duration::ZERO);
    let notes = Arc::new(Notes::new(clock));
    let (tasks, over) = (TaskTracker::new(), CancellationToken::new());
    let opening = Duration::from_secs(1).max(Duration::from_secs(1) * morning.pharmacies / OPENED_A_SECOND);

    let counters: Vec<Arc<Pharmacy>> = chemists
        .iter()
        .zip(for_chemists.iter().flat_map(|connection| std::iter::repeat_n(connection, ON_ONE)))
        .enumerate()
        .map(|(nth, (site, connection))| {
            Ok(Arc::new(Pharmacy::new(nth, *site, Terminal::on(connection, *site, terminal("till", 0)?))))
        })
        .collect::<Result<_, LoadError>>()?;
    for (nth, pharmacy) in counters.iter().enumerate() {
        let stagger = opening.mul_f64(nth as f64 / counters.len() as f64);
        let chance = Chance::of(morning.seed, "tills", u64::try_from(nth).unwrap_or_default());
        tasks.spawn(pharmacy.clone().keep_session(stagger, chance, notes.clone(), over.clone()));
    }

    let watching = watch(scene, &notes, tick);
    let playing = async {
        all_open(&notes, counters.len(), opening + OPENING_PATIENCE).await;
        let (open, quiet) = (notes.held(), clock.now());
        let phases = morning.phases(quiet);
        let (storm, end) = (quiet + morning.quiet, quiet + morning.length());
        notes.phases(&phases);
        comers.come(storm, for_crowd, &notes, &tasks, &over)?;
        let sales =
            Pharmacies { counters, rate: morning.sales_per_second, seed: morning.seed, from: quiet, until: end };
        let enough = &ending.enough;
        tokio::try_join!(
            async {
                sales.sell(&notes, &tasks, enough).await;
                Ok(())
            },
            // What is stopped early is left as it is.
            async { enough.run_until_cancelled(outages::restart(scene, &clock, &phases)).await.unwrap_or(Ok(())) },
            async { enough.run_until_cancelled(switch::one_terminal(scene, &notes, &phases)).await.unwrap_or(Ok(())) },
        )?;
        Ok::<_, LoadError>((phases, open))
    };
    let (phases, open) = tokio::select! {
        played = playing => played?,
        () = watching => return Err(LoadError::Failed("nobody watches the run any more".into())),
    };
    let interrupted = ending.enough.is_cancelled();
    let elapsed = clock.now();
    over.cancel();
    tasks.close();
    // What has no answer by then has none.
    let _ = tokio::time::timeout(LAST_ANSWERS, tasks.wait()).await;
    let audit = audit_of(scene, &notes.sales()).await;
    let taken = notes.take();
    let checks = Checks::of(&taken, limits, pharmacies);
    let Taken { sales, samples, traces, returns, tries, logins, admitted, refused, ended, .. } = taken;
    let connections = connections.len();
    Ok(Outcome {
        phases,
        elapsed,
        interrupted,
        connections,
        pharmacies: open,
        logins,
        admitted,
        refused,
        ended,
        samples,
        traces,
        returns,
        tries,
        sales,
        audit,
        checks,
    })
}

/// Waits until every pharmacy has its session, or until waiting has no more use.
async fn all_open(notes: &Notes, pharmacies: usize, patience: Duration) {
    let open = async {
        while notes.held() < pharmacies as u64 {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(patience, open).await;
}

/// Looks at the store and at the clients, again and again, and tells of every second. It never ends by itself.
async fn watch(scene: &Scene, notes: &Notes, tick: &mut impl FnMut(StormTick)) {
    let mut looks = tokio::time::interval(LOOK);
    let mut told = 0;
    loop {
        looks.tick().await;
        let seen = scene.look().await;
        notes.sample(seen);
        let second = notes.now().as_secs();
        if second > told {
            told = second;
            tick(notes.tick(second - 1));
        }
    }
}

/// Every acknowledged sale is looked for in the ledger, as after a run of sales.
async fn audit_of(scene: &Scene, sales: &[Asked]) -> Result<Audit, String> {
    let programme = programme();
    let ledger = None;
    let target = scene.target().ok_or("there is no service")?;
    let records = export(target, programme.id()).await.and_then(|export| records(export, ledger))?;
    Ok(audit::audit(sales, &records, &programme.rule(), &HashSet::new()))
}

/// Under which programme is sold.
fn programme() -> &'static Carried {
    let [first, ..] = &super::programme::CARRIED;
    first
}

fn terminal(kind: &str, number: u32) -> Result<crate::ids::TerminalId, LoadError> {
    format!("{kind}-{number}").parse().map_err(|error| LoadError::Failed(format!("{error}")))
}
