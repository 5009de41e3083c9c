//! Watching over the server: every fresh connection is greeted, and once a second the server is looked at as a whole,
//! its settings, its role, its replicas, the ledger's name, how far it has got and its clock. What is found becomes the
//! [`Standing`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};
use tokio_util::sync::CancellationToken;

use crate::ids::LedgerId;
use crate::ledger::Terms;
use crate::museum::Mutant;
use crate::redis_pool::{Connection, Dialled, RedisPool};
use crate::time::Clock;

use super::replicated::{Known, NotNow};
use super::settings::Part;
use super::standing::{Standing, Verdict, other_ledger};
use super::{RedisLedger, encode, keys, settings, trip};

/// How often the server is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon after a look that failed the next one comes, at first; it doubles up to [`LOOK_EVERY`].
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(3);

/// What a first look at the store found; only an unfit one is a reason not to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstCheck {
    /// Claims can be recorded.
    Fit,
    /// The store is there and must not be used as it is: everything that is wrong, each with what puts it right.
    Unfit(Vec<String>),
    /// The store cannot be reached just now, and this is how that shows.
    Away(String),
}

/// Why a look gives no verdict that lets calls through.
enum Trouble {
    /// Everything that is wrong with the server.
    Unfit(Vec<String>),
    /// The connection or the server failed under the question.
    Failed(RedisError),
    /// The connection leads to another server than the newest one does, or to one that is the primary no more.
    Elsewhere,
    /// The Sentinels cannot say which replicas must have a sale.
    NoQuorum,
}

/// What one look leaves to the next.
#[derive(Default)]
struct Kept {
    connection: Option<Dialled>,
    replicas: Known,
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        Self::Failed(error)
    }
}

impl From<Trouble> for FirstCheck {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unfit(findings) => Self::Unfit(findings),
            Trouble::Failed(error) => Self::Away(error.to_string()),
            Trouble::Elsewhere => Self::Away("connections lead to different servers".into()),
            Trouble::NoQuorum => Self::Away(
                "too few Sentinels answer to know which replicas must have a sale: see that a majority of them is up"
                    .into(),
            ),
        }
    }
}

/// Makes every fresh connection of the pool known to `standing`, ready for the scripts, and refused if another ledger
/// stands behind it.
pub(super) fn greet(pool: &RedisPool, standing: &Arc<Standing>) {
    let standing = Arc::clone(standing);
    pool.greet_with(Box::new(move |mut connection| {
        let standing = Arc::clone(&standing);
        Box::pin(async move {
            let info = settings::unless_hidden(settings::info(&mut connection, &["server"]).await);
            let info = info.map_err(|error| error.to_string())?;
            let server = standing.dialled(info.as_deref().and_then(|info| settings::field(info, "run_id")));
            trip::load_scripts(&mut connection).await.map_err(|error| error.to_string())?;
            if let Some(ours) = standing.ledger() {
                still_ours(&mut connection, ours).await.map_err(|error| error.to_string())??;
            }
            Ok(server)
        })
    }));
}

/// Whether the ledger `ours` stands in the server; if not, what to tell the operator.
async fn still_ours(connection: &mut MultiplexedConnection, ours: LedgerId) -> RedisResult<Result<(), String>> {
    let found: Option<String> = redis::cmd("HGET").arg(keys::LEDGER).arg("id").query_async(connection).await?;
    Ok(if found.as_deref() == Some(ours.to_string().as_str()) {
        Ok(())
    } else {
        Err(other_ledger(ours, found.as_deref().unwrap_or("no ledger at all")))
    })
}

/// The name of the ledger in the server, given now if it has none yet; if it is not one that may be worked with under
/// these terms, everything that is wrong.
async fn identify(connection: &mut MultiplexedConnection, ours: &Terms) -> RedisResult<Result<LedgerId, Vec<String>>> {
    let reply = trip::ask(connection, &encode::identity(LedgerId::random(), ours)).await?;
    let stands: HashMap<String, String> = redis::from_redis_value(reply)?;
    let (id, layout) = (stands.get("id"), stands.get("layout"));
    if layout != Some(&keys::LAYOUT.to_string()) {
        let found = format!("{}: id {id:?}, layout {layout:?}", keys::LEDGER);
        return Ok(Err(vec![format!(
            "{found}: this version reads layout {} only; use the version that wrote it",
            keys::LAYOUT
        )]));
    }
    let other = ours.differences(|name| stands.get(name).cloned());
    if !other.is_empty() {
        return Ok(Err(other.iter().map(|other| format!("{}: {other}", keys::LEDGER)).collect()));
    }
    let id = id.and_then(|id| id.parse().ok());
    Ok(id.ok_or_else(|| {
        vec![format!("{}: it has no ledger id; bring the right data back, or use another Redis", keys::LEDGER)]
    }))
}

/// How many units the store has been sent, as it remembers it.
async fn units(connection: &mut MultiplexedConnection) -> RedisResult<u64> {
    let units: Option<u64> = redis::cmd("GET").arg(keys::BARRIER).query_async(connection).await?;
    Ok(units.unwrap_or_default())
}

/// How far the service's clock is ahead of the server's, in milliseconds, taking the server to have looked at its own
/// half way through the trip. A made-up clock agrees with every server.
async fn ahead_ms<C: Clock>(connection: &mut MultiplexedConnection, clock: &C) -> RedisResult<i64> {
    if clock.is_simulated() {
        return Ok(0);
    }
    let (sent, sent_at) = (clock.monotonic(), clock.now());
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(connection).await?;
    let half_trip = clock.monotonic().saturating_sub(sent) / 2;
    Ok(sent_at.plus(half_trip).as_millis() - (seconds * 1_000 + micros / 1_000))
}

impl<C: Clock> RedisLedger<C> {
    /// Looks at the store once and lets calls through if it is fit. Before anything else is asked of this ledger.
    pub async fn check_once(&self) -> FirstCheck {
        self.look(&mut Kept::default()).await
    }

    /// Looks at the store once a second, and sooner when there is cause, until `stop`. Should it end in any other way,
    /// the ledger says that it is not serving.
    pub async fn run(&self, stop: CancellationToken) {
        let mut unwatched = Unwatched { standing: &self.standing, armed: true };
        stop.run_until_cancelled(self.watch()).await;
        unwatched.armed = false;
    }

    /// Returns when sales can be made; [`RedisLedger::run`] must be running.
    pub async fn ready(&self) {
        self.standing.ready().await;
    }

    async fn watch(&self) {
        let mut kept = Kept::default();
        let mut again = LOOK_AGAIN;
        loop {
            let pause = match self.look(&mut kept).await {
                FirstCheck::Fit => {
                    again = LOOK_AGAIN;
                    LOOK_EVERY
                }
                FirstCheck::Unfit(_) | FirstCheck::Away(_) => {
                    let pause = again;
                    again = (again * 2).min(LOOK_EVERY);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.standing.alarm.notified() => {}
            }
        }
    }

    /// One look over a connection that is kept for the next one, and what follows from it.
    async fn look(&self, kept: &mut Kept) -> FirstCheck {
        let looked = tokio::time::timeout(LOOK_DEADLINE, self.examine_over(kept)).await;
        let looked = looked.unwrap_or_else(|_| Err(FirstCheck::Away("Redis does not answer in time".into())));
        let (verdict, check) = match looked {
            Ok(verdict) => (verdict, FirstCheck::Fit),
            Err(check) => {
                kept.connection = None;
                let reason = match &check {
                    FirstCheck::Unfit(findings) => findings.join("; "),
                    FirstCheck::Away(reason) => reason.clone(),
                    FirstCheck::Fit => String::new(),
                };
                (Verdict::Unfit(reason), check)
            }
        };
        self.standing.decide(verdict);
        check
    }

    async fn examine_over(&self, kept: &mut Kept) -> Result<Verdict, FirstCheck> {
        if let Some(connection) = &mut kept.connection {
            match self.examine(connection, &mut kept.replicas).await {
                // It may have been closed for any reason; only a fresh one tells how the server is.
                Err(Trouble::Elsewhere) => {}
                Err(Trouble::Failed(error)) if error.is_connection_dropped() => {}
                looked => return looked.map_err(FirstCheck::from),
            }
        }
        // Taken out of the pool for good: looking must not wait for a place behind sales.
        let fresh = self.pool.connection().await.map_err(|error| FirstCheck::Away(error.to_string()))?;
        Ok(self.examine(kept.connection.insert(Connection::take(fresh)), &mut kept.replicas).await?)
    }

    async fn examine(&self, connection: &mut Dialled, known: &mut Known) -> Result<Verdict, Trouble> {
        let server = self.standing.server();
        let replicated = self.pool.sentinels().zip(connection.node().cloned());
        if connection.server() != server {
            return Err(Trouble::Elsewhere);
        }
        let acknowledged = self.standing.acknowledged();
        let found = settings::read(connection).await?;
        let mut findings = found.judge(if replicated.is_some() { Part::Primary } else { Part::Alone });
        if findings.unusable.is_empty() && self.options.allow_volatile {
            self.warn_of(&findings.weaker);
            findings.weaker.clear();
        }
        findings.unusable.append(&mut findings.weaker);
        if !findings.unusable.is_empty() {
            return Err(Trouble::Unfit(findings.unusable));
        }
        let replicas = match &replicated {
            // What may be lost need not be waited for.
            Some(_) if self.options.allow_volatile => 0,
            Some((sentinels, node)) => {
                known.look(server, node, sentinels, &found).await.map_err(|not_now| match not_now {
                    NotNow::Elsewhere => Trouble::Elsewhere,
                    NotNow::Unknown => Trouble::NoQuorum,
                    NotNow::Unfit(findings) => Trouble::Unfit(findings),
                })?
            }
            None => 0,
        };
        match self.standing.ledger() {
            Some(ours) => still_ours(connection, ours).await?.map_err(|finding| vec![finding]),
            None => identify(connection, &self.options.terms)
                .await?
                .and_then(|found| self.standing.settle(found).map_err(|finding| vec![finding])),
        }
        .map_err(Trouble::Unfit)?;
        let units = units(connection).await?;
        if units < acknowledged && !self.options.allow_volatile && !Mutant::WitnessSkipped.is_on() {
            return Err(Trouble::Unfit(vec![behind(units, acknowledged)]));
        }
        Ok(Verdict::Fit { server, ahead_ms: ahead_ms(connection, &self.clock).await?, replicas })
    }

    /// Says loudly what `--allow-volatile` has let pass, whenever that changes.
    fn warn_of(&self, weaker: &[String]) {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *told != weaker {
            for finding in weaker {
                tracing::warn!(%finding, "sales can be lost: volatile settings were allowed");
            }
            *told = weaker.to_vec();
        }
    }
}

/// What is said when the store has lost what was acknowledged.
fn behind(units: u64, acknowledged: u64) -> String {
    format!(
        "Redis is behind what was acknowledged: {} is {units}, and {acknowledged} was acknowledged. Sales were lost: it came back \
         with old data, or two servers failed at once. Bring the newer data back; what is lost stands in the journals of the \
         terminals and in the audit; to go on without it, start every instance anew",
        keys::BARRIER
    )
}

/// Shuts the gate when the watching breaks off.
struct Unwatched<'a> {
    standing: &'a Standing,
    armed: bool,
}

impl Drop for Unwatched<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.standing.decide(Verdict::Unfit("nobody watches over the store any more: restart the service".into()));
        }
    }
}
