//! One process's part of a run, from the first session to the last answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::driver::{Crew, Ending, Part};
use super::history::Asked;
use super::population::People;
use super::recorder::{Recorder, RunClock, Tick};
use super::run::{Ended, RunFacts};
use super::scenario::Scenario;
use super::sites::Places;
use super::target::{Counters, LoadError, Target};
use crate::time::{Clock, SystemClock, Timestamp};

/// A service from which nothing but failures has come for so long is taken for lost. A pause of a second or two, a restart
/// behind a balancer or a stalled disk, is not.
const PATIENCE: Duration = Duration::from_secs(3);
/// A worker that comes so late joins a run of its own.
const LATEST: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What a process does.
pub struct PartOrder<'a> {
    /// What the run is to be.
    pub scenario: &'a Scenario,
    /// The sites, the same in every process.
    pub places: &'a Places,
    /// Where.
    pub target: &'a Target,
    /// Which part.
    pub part: Part,
    /// When the run begins, by the machine's clock; `None`: when the sessions are open.
    pub start_at: Option<Timestamp>,
}

/// Does it. `gone` ends when the service is known to have ended, and says how; `tick` is told of every second.
pub(super) async fn run(
    order: &PartOrder<'_>,
    ending: &Ending,
    gone: impl Future<Output = String>,
    mut tick: impl FnMut(Tick),
) -> Result<(RunFacts, Vec<Asked>), LoadError> {
    let PartOrder { scenario, places, target, part, start_at } = order;
    let programme = scenario.carried().id();
    if let Some(at) = start_at
        && SystemClock::real().now().since(*at) > LATEST
    {
        return Err(LoadError::Unfit(format!(
            "the run was to begin at {at}, which is past: its parts would not be those of one time. Name a later one"
        )));
    }
    target.check(programme, places).await?;
    let mut counters = Counters::open(target, scenario, places.sites(), *part).await?;
    let clock = match start_at {
        None => {
            tokio::select! {
                () = counters.settled() => {}
                () = ending.enough.cancelled() => {}
            }
            RunClock::beginning_in(LOOK)
        }
        Some(at) => {
            let clock = RunClock::beginning_in(at.since(SystemClock::real().now()));
            clock.sleep_until(Duration::ZERO).await;
            clock
        }
    };
    let ledger = counters.ledger();
    let crew = Arc::new(Crew {
        part: *part,
        scenario: (*scenario).clone(),
        programme,
        counters: counters.by_site.clone(),
        people: People::new(scenario.seed),
        recorder: Recorder::new(),
        clock,
        ending: ending.clone(),
    });

    let mut ended = Ended::Complete;
    tokio::pin!(gone);
    {
        let work = crew.run();
        tokio::pin!(work);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut told = 0;
        loop {
            let lost = tokio::select! {
                () = &mut work => break,
                why = &mut gone, if ended == Ended::Complete => Some((crew.recorder.last_answer(), why)),
                _ = looks.tick() => {
                    let now = clock.now();
                    if now.as_secs() > told {
                        told = now.as_secs();
                        tick(crew.recorder.tick(now));
                    }
                    crew.recorder.lost(now, PATIENCE)
                }
            };
            if let Some((last_answer, why)) = lost
                && ended == Ended::Complete
            {
                ended = Ended::ServiceLost { last_answer, why };
                ending.enough.cancel();
                ending.at_once.cancel();
            }
        }
    }
    if ended == Ended::Complete && ending.enough.is_cancelled() {
        ended = Ended::Interrupted;
    }
    let elapsed = clock.now();
    let (history, shortfall) = crew.recorder.finish();
    let connections = counters.connections;
    let sites = counters.by_site.iter().filter(|counters| !counters.is_empty()).count();
    drop(crew);
    let facts = RunFacts {
        scenario: scenario.name.clone(),
        title: scenario.title.clone(),
        seed: scenario.seed,
        address: target.address.clone(),
        own_service: None,
        programme,
        ledger,
        wire: scenario.wire,
        arrivals: scenario.arrivals.clone(),
        part: *part,
        start_at: start_at.map(|at| at.to_string()),
        processes: 1,
        sites: u32::try_from(sites).unwrap_or(u32::MAX),
        connections,
        population: scenario.people.count,
        elapsed,
        sessions: counters.close().await,
        shortfall,
        ended,
        not_audited: None,
    };
    Ok((facts, history))
}
