//! The service that is loaded: where it is, and its counters with their sessions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::chance::Chance;
use super::counter::{Counter, Doorway, Lane};
use super::driver::Part;
use super::population::People;
use super::run::{SessionFacts, Wire};
use super::scenario::Scenario;
use super::sites::Places;
use crate::grpc::v1;
use crate::ids::{Channel, LedgerId, ProgrammeId, SiteId};
use crate::terminal::{CallError, Connection, Terminal, Tls, Unreachable};

/// Terminals on one connection, at most: the service takes 64 streams on each, one is a session, and calls need some too.
const MOST_ON_ONE: u32 = 32;
/// As long as there are no more terminals, each has a connection of its own.
const MOST_OF_ONE: u32 = 256;
/// Sessions may take so long to be given beyond the time over which they are asked for; then the run begins without the rest.
const SESSION_PATIENCE: Duration = Duration::from_secs(30);

/// Where a service is.
#[derive(Clone)]
pub struct Target {
    /// Where its terminals call.
    pub address: String,
    /// Where its operators call; `None`: nobody may, and there is no audit.
    pub operator: Option<String>,
    /// Whom terminals trust and who they are, on an `https://` address.
    pub tls: Option<Tls>,
    /// The same for operators.
    pub operator_tls: Option<Tls>,
}

/// Why a run does not begin, or why it has no end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The service, the scenario and the sites do not fit together: what to do.
    #[error("{0}")]
    Unfit(String),
    /// Nobody is there.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// Something failed.
    #[error("{0}")]
    Failed(String),
}

impl Target {
    /// A connection for terminals.
    pub(super) async fn connect(&self) -> Result<Connection, Unreachable> {
        Connection::open(&self.address, self.tls.as_ref()).await
    }

    /// Makes sure that the service knows the programme and one site of every channel, and lets them sell, before anything else
    /// is asked of it. One that may not sell would refuse everybody, and rightly so, which the audit would take for refusals
    /// without a reason.
    pub(super) async fn check(&self, programme: ProgrammeId, places: &Places) -> Result<(), LoadError> {
        if places.sites().is_empty() {
            return Err(LoadError::Unfit("there is no site to sell at".into()));
        }
        for (channel, site) in places.channels() {
            self.check_one(programme, channel, site).await?;
        }
        Ok(())
    }

    async fn check_one(&self, programme: ProgrammeId, channel: Channel, site: SiteId) -> Result<(), LoadError> {
        let terminal = Terminal::on(&self.connect().await?, site, terminal_name(0)?);
        let buyer = People::new(0).number(0).buyer();
        let line = v1::Line { buyer: Some(buyer), quantity: 1, ..v1::Line::default() };
        let look_up = v1::CheckPurchaseRequest {
            programme: programme.to_string(),
            lines: vec![line],
            ..v1::CheckPurchaseRequest::default()
        };
        let outcome = match terminal.check(look_up).await {
            Ok(response) => response.results.into_iter().next().and_then(|result| result.outcome),
            Err(CallError::NotExecuted { reason, message, .. }) => {
                return Err(match reason.as_str() {
                    "SITE_UNKNOWN" => LoadError::Unfit(format!(
                        "the service does not know the site {site}: name its own registry with --sites FILE"
                    )),
                    "INVALID_REQUEST" => LoadError::Unfit(format!(
                        "the service does not sell under {programme} ({message}): put what `rationd load \
                         --print-programme` prints into a file among its programmes (`rationd serve --policies DIR`)"
                    )),
                    _ => LoadError::Failed(format!("{reason}: {message}")),
                });
            }
            Err(CallError::Unknown(why)) => {
                return Err(LoadError::Failed(format!("the service does not answer: {why}")));
            }
        };
        match outcome {
            Some(v1::purchase_result::Outcome::NotRequired(_)) => Err(LoadError::Unfit(format!(
                "{programme} is not in force on the day of the service's clock: nothing would be recorded"
            ))),
            Some(v1::purchase_result::Outcome::Refused(refused))
                if refused.reasons.iter().any(|reason| reason.refusal() == v1::Refusal::ChannelNotEnrolled) =>
            {
                Err(LoadError::Unfit(format!(
                    "{programme} does not enrol the channel {channel}, which is that of the site {site}: leave such sites out \
                     of the registry, or {channel} out of sites.channels in the scenario"
                )))
            }
            Some(v1::purchase_result::Outcome::Failure(v1::Failure { reason, message, .. })) => {
                Err(LoadError::Failed(format!("{reason}: {message}")))
            }
            _ => Ok(()),
        }
    }
}

/// The counters of one process.
pub(super) struct Counters {
    /// By site, in the order of all sites; none at a site of another process.
    pub(super) by_site: Vec<Vec<Arc<Counter>>>,
    pub(super) connections: u32,
    sessions: TaskTracker,
    over: CancellationToken,
    known: mpsc::Receiver<()>,
    patience: Duration,
}

impl Counters {
    /// Connects the counters of this part's sites and begins to open their sessions.
    pub(super) async fn open(
        target: &Target,
        scenario: &Scenario,
        sites: &[SiteId],
        part: Part,
    ) -> Result<Self, LoadError> {
        let own = sites.iter().enumerate().filter(|(nth, _)| part.owns(*nth)).count();
        let terminals = u32::try_from(own).unwrap_or(u32::MAX).saturating_mul(scenario.sites.terminals).max(1);
        let least = terminals.div_ceil(MOST_ON_ONE);
        let asked_for = scenario.sites.connections.unwrap_or_else(|| terminals.min(MOST_OF_ONE));
        let wanted = asked_for.clamp(least, terminals);
        let connections = try_join_all((0..wanted).map(|_| target.connect())).await?;
        let streams = scenario.wire == Wire::Stream;
        let mut lanes = Vec::new();
        for connection in connections {
            // The stream's own site and terminal are those of its first caller; every call names its session.
            let site = sites.first().copied().ok_or_else(|| LoadError::Unfit("there is no site to sell at".into()))?;
            let lane = streams.then(|| terminal_name(0).map(|name| Terminal::on(&connection, site, name)));
            lanes.push((connection, lane.transpose()?.map(|terminal| Arc::new(Lane::new(terminal)))));
        }
        let mut shared = lanes.iter().cycle();
        let (sessions, over) = (TaskTracker::new(), CancellationToken::new());
        let (known_by_all, known) = mpsc::channel(1);
        let mut by_site = Vec::new();
        let mut nth: u32 = 0;
        for (at, site) in sites.iter().enumerate() {
            let mut counters = Vec::new();
            for number in 0..if part.owns(at) { scenario.sites.terminals } else { 0 } {
                let Some((connection, lane)) = shared.next() else { break };
                let terminal = Terminal::on(connection, *site, terminal_name(number)?);
                let counter = Arc::new(Counter::new(*site, terminal, lane.clone()));
                let stagger = scenario.sites.opening.mul_f64(f64::from(nth) / f64::from(terminals));
                let chance = Chance::of(scenario.seed, "reconnects", nth.into());
                let (keeper, over, known) = (counter.clone(), over.clone(), known_by_all.clone());
                sessions.spawn(async move { keeper.keep_session(stagger, chance, over, known).await });
                counters.push(counter);
                nth += 1;
            }
            by_site.push(counters);
        }
        let patience = scenario.sites.opening + SESSION_PATIENCE;
        Ok(Self { by_site, connections: wanted, sessions, over, known, patience })
    }

    /// Waits until it is clear of every counter whether it has a session, or until waiting has no more use.
    pub(super) async fn settled(&mut self) {
        // Every counter holds a sender for as long as it is not clear. Nobody sends.
        let _ = tokio::time::timeout(self.patience, self.known.recv()).await;
    }

    /// The ledger that the sessions name; `None` while there is none.
    pub(super) fn ledger(&self) -> Option<LedgerId> {
        self.by_site.iter().flatten().find_map(|counter| counter.ledger())
    }

    /// Gives every seat back and says how it went.
    pub(super) async fn close(self) -> SessionFacts {
        let mut facts = SessionFacts::default();
        for counter in self.by_site.iter().flatten() {
            let (doorway, lost) = counter.doorway();
            facts.wanted += 1;
            facts.lost += lost;
            match doorway {
                Doorway::Admitted(took) => {
                    facts.admitted += 1;
                    facts.opening_ms.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
                }
                Doorway::SiteFull => facts.site_full += 1,
                Doorway::Outside => facts.failed += 1,
            }
        }
        self.over.cancel();
        self.sessions.close();
        // A service that is gone takes nothing back.
        let _ = tokio::time::timeout(Duration::from_secs(3), self.sessions.wait()).await;
        facts
    }
}

fn terminal_name(number: u32) -> Result<crate::ids::TerminalId, LoadError> {
    format!("load-{number}").parse().map_err(|error| LoadError::Failed(format!("{error}")))
}
