//! Watching over the server: every fresh connection is greeted, and once a second the server is looked at as a whole,
//! its settings, its role, its replicas, the ledger's name, how far it has got and its clock. What is found becomes the
//! [`Standing`]. Of a Cluster every shard is watched so, and who holds which slots is watched too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::redis_pool::{Connection, DialError, Dialled, RedisAway};
use crate::time::Clock;

use super::identity::{self, NotOurs};
use super::replicated::{Known, NotNow};
use super::settings::Part;
use super::shards::{Shard, Shards};
use super::standing::{Behind, Pass, Verdict};
use super::{RedisLedger, settings, trip, unit};

/// How often the server is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon after a look that failed the next one comes, at first; it doubles up to [`LOOK_EVERY`] unless there is a primary to be
/// found.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often the watchers are asked, while a look takes its time, whether the primary is another one now.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// The least time between two looks, whatever cause there is.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
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
    /// The watchers cannot say which replicas must have a sale.
    NoQuorum,
    /// A part of a Cluster cannot be worked with for now, for this reason.
    NotNow(String),
}

/// What one look leaves to the next.
#[derive(Default)]
struct Kept {
    connection: Option<Dialled>,
    replicas: Known,
    /// The weak settings that were last warned of.
    told: Vec<String>,
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        Self::Failed(error)
    }
}

impl From<NotOurs> for Trouble {
    fn from(not_ours: NotOurs) -> Self {
        match not_ours {
            NotOurs::Failed(error) => Self::Failed(error),
            NotOurs::Unfit(findings) => Self::Unfit(findings),
            NotOurs::NotNow(why) => Self::NotNow(why),
        }
    }
}

impl From<Trouble> for FirstCheck {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unfit(findings) => Self::Unfit(findings),
            Trouble::Failed(error) => Self::Away(error.to_string()),
            Trouble::Elsewhere => Self::Away("connections lead to different servers".into()),
            Trouble::NoQuorum => Self::Away(
                "too few Sentinels, or nodes of the Cluster, answer to know which replicas must have a sale: see that a majority of \
                 them is up"
                    .into(),
            ),
            Trouble::NotNow(why) => Self::Away(why),
        }
    }
}

impl FirstCheck {
    /// What two shards come to together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unfit(mut findings), Self::Unfit(more)) => {
                findings.extend(more.into_iter().filter(|it| !findings.contains(it)).collect::<Vec<_>>());
                Self::Unfit(findings)
            }
            (unfit @ Self::Unfit(_), _) | (_, unfit @ Self::Unfit(_)) => unfit,
            (away @ Self::Away(_), _) | (_, away @ Self::Away(_)) => away,
            (Self::Fit, Self::Fit) => Self::Fit,
        }
    }
}

/// Makes every fresh connection of the shard known to its standing, ready for the scripts, and refused if another ledger
/// stands behind it.
pub(super) fn greet(shard: &Shard) {
    let (standing, name) = (Arc::clone(&shard.standing), shard.name());
    shard.pool.greet_with(Box::new(move |mut connection| {
        let (standing, name) = (Arc::clone(&standing), name.clone());
        Box::pin(async move {
            let info = settings::unless_hidden(settings::info(&mut connection, &["server"]).await)?;
            let server = standing.dialled(info.as_deref().and_then(|info| settings::field(info, "run_id")));
            trip::load_scripts(&mut connection).await?;
            if let Some(ours) = standing.ledger() {
                identity::still_ours(&mut connection, vec![name], ours).await?.map_err(DialError::Wrong)?;
            }
            Ok(server)
        })
    }));
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
        if let Some(cluster) = self.pool.cluster() {
            cluster.look().await;
            if let Err(away) = self.regroup() {
                return away;
            }
        }
        let shards = self.shards();
        // The others are known to belong to it when it has a name.
        let (home, others): (Vec<_>, Vec<_>) = shards.all().values().partition(|shard| shard.is_home());
        let mut check = if shards.is_whole() { FirstCheck::Fit } else { FirstCheck::Away(self.nobody_holds_all()) };
        for group in [home, others] {
            let looks = join_all(group.into_iter().map(async |shard| self.look(shard, &mut Kept::default()).await));
            check = looks.await.into_iter().fold(check, FirstCheck::and);
        }
        check
    }

    /// Looks at the store once a second, and sooner when there is cause, until `stop`. Should it end in any other way,
    /// the ledger says that it is not serving.
    pub async fn run(&self, stop: CancellationToken) {
        let mut unwatched = Unwatched { shards: &self.shards, armed: true };
        let scribe = self.scribe();
        stop.run_until_cancelled(join(self.watch(), self.testify(scribe.as_ref()))).await;
        unwatched.armed = false;
    }

    /// Returns when sales can be made, of every buyer; [`RedisLedger::run`] must be running.
    pub async fn ready(&self) {
        let mut shards = self.shards.subscribe();
        loop {
            let now = Arc::clone(&shards.borrow_and_update());
            let all_ready = async {
                for shard in now.all().values() {
                    shard.standing.ready().await;
                }
            };
            tokio::select! {
                () = all_ready, if now.is_whole() => return,
                // The sender lives as long as `self`.
                _ = shards.changed() => {}
            }
        }
    }

    /// Watches over every shard, and over which there are.
    async fn watch(&self) {
        let (mut watching, mut watched) = (JoinSet::new(), BTreeMap::<u8, AbortHandle>::new());
        let mut layouts = self.pool.cluster().map(|cluster| cluster.layouts());
        loop {
            let looked_again = async {
                match (self.pool.cluster(), &mut layouts) {
                    (Some(cluster), Some(layouts)) => {
                        tokio::select! {
                            () = tokio::time::sleep(LOOK_EVERY) => {}
                            // The sender lives as long as the Cluster.
                            _ = layouts.changed() => {}
                        }
                        cluster.look().await;
                    }
                    _ => std::future::pending().await,
                }
            };
            if let Err(FirstCheck::Away(why)) = self.regroup() {
                tracing::warn!(why, "the Cluster cannot be used");
            }
            let shards = self.shards();
            watched.retain(|first, task| {
                let stands = shards.all().contains_key(first);
                if !stands {
                    task.abort();
                }
                stands
            });
            for (first, shard) in shards.all() {
                watched.entry(*first).or_insert_with(|| {
                    let (ledger, shard) = (self.clone(), Arc::clone(shard));
                    watching.spawn(async move { ledger.watch_over(&shard).await })
                });
            }
            tokio::select! {
                Some(Err(broke)) = watching.join_next() => {
                    if let Ok(panic) = broke.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
                () = looked_again => {}
            }
        }
    }

    /// Opens the shards of the Cluster's layout, if it has changed. Does nothing where there is no Cluster.
    pub(super) fn regroup(&self) -> Result<(), FirstCheck> {
        let Some(cluster) = self.pool.cluster() else { return Ok(()) };
        let (layout, mut failed) = (cluster.layout(), None);
        self.shards.send_if_modified(|shards| match shards.after(&layout, |first| self.shard_of(first)) {
            Ok(None) => false,
            Ok(Some(after)) => {
                let firsts: Vec<String> = after.all().keys().map(|first| format!("{first:02x}")).collect();
                tracing::info!(firsts = firsts.join(" "), is_whole = after.is_whole(), "the shards of the Cluster");
                *shards = Arc::new(after);
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        match failed {
            Some(error) => Err(FirstCheck::Away(error.to_string())),
            None if self.shards().all().is_empty() => Err(FirstCheck::Away(self.nobody_holds_all())),
            None => Ok(()),
        }
    }

    fn nobody_holds_all(&self) -> String {
        self.pool.cluster().map(|cluster| cluster.nobody_knows()).unwrap_or_default()
    }

    async fn watch_over(&self, shard: &Shard) {
        let mut kept = Kept::default();
        let mut again = LOOK_AGAIN;
        loop {
            let pause = match self.look(shard, &mut kept).await {
                FirstCheck::Fit => {
                    again = LOOK_AGAIN;
                    if kept.replicas.expects_another() { LOOK_AGAIN } else { LOOK_EVERY }
                }
                FirstCheck::Away(_) if shard.pool.watchers().is_some() => LOOK_AGAIN,
                FirstCheck::Unfit(_) | FirstCheck::Away(_) => {
                    let pause = again;
                    again = (again * 2).min(LOOK_EVERY);
                    pause
                }
            };
            tokio::time::sleep(LOOK_PAUSE).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shard.standing.alarm.notified() => {}
            }
        }
    }

    /// One look over a connection that is kept for the next one, and what follows from it.
    async fn look(&self, shard: &Shard, kept: &mut Kept) -> FirstCheck {
        let examined = async {
            match shard.pool.watchers() {
                None => self.examine_over(shard, kept).await,
                Some(watchers) => tokio::select! {
                    examined = self.examine_over(shard, kept) => examined,
                    never = watchers.keep_asking(ASK_EVERY) => match never {},
                },
            }
        };
        let looked = tokio::time::timeout(LOOK_DEADLINE, examined).await;
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
                let of_shard = shard.first.map(|first| format!("shard {first:02x}: ")).unwrap_or_default();
                (Verdict::Unfit(of_shard + &reason), check)
            }
        };
        shard.standing.decide(verdict);
        check
    }

    async fn examine_over(&self, shard: &Shard, kept: &mut Kept) -> Result<Verdict, FirstCheck> {
        if let Some(connection) = &mut kept.connection {
            match self.examine_while_there(shard, connection, &mut kept.replicas, &mut kept.told).await {
                // It may have been closed for any reason; only a fresh one tells how the server is.
                Err(Trouble::Elsewhere) => {}
                Err(Trouble::Failed(error)) if error.is_connection_dropped() => {}
                looked => return looked.map_err(FirstCheck::from),
            }
        }
        // Taken out of the pool for good: looking must not wait for a place behind sales.
        let fresh = shard.pool.connection().await.map_err(|away| match away {
            RedisAway::Wrong(what) if shard.is_home() => FirstCheck::Unfit(vec![what]),
            away => FirstCheck::Away(away.to_string()),
        })?;
        let connection = kept.connection.insert(Connection::take(fresh));
        Ok(self.examine_while_there(shard, connection, &mut kept.replicas, &mut kept.told).await?)
    }

    /// Examines it unless another server becomes the primary meanwhile: one that is cut off answers nobody, and would be waited for
    /// until a timeout.
    async fn examine_while_there(
        &self,
        shard: &Shard,
        connection: &mut Dialled,
        known: &mut Known,
        told: &mut Vec<String>,
    ) -> Result<Verdict, Trouble> {
        let Some(watchers) = shard.pool.watchers() else {
            return self.examine(shard, connection, known, told).await;
        };
        let node = connection.node().clone();
        tokio::select! {
            examined = self.examine(shard, connection, known, told) => examined,
            () = watchers.left(&node) => Err(Trouble::Elsewhere),
        }
    }

    async fn examine(
        &self,
        shard: &Shard,
        connection: &mut Dialled,
        known: &mut Known,
        told: &mut Vec<String>,
    ) -> Result<Verdict, Trouble> {
        let standing = &shard.standing;
        let server = standing.server();
        let replicated = shard.pool.watchers().map(|watchers| (watchers, connection.node().clone()));
        if connection.server() != server {
            return Err(Trouble::Elsewhere);
        }
        let found = settings::read(connection).await?;
        let mut findings = found.judge(if replicated.is_some() { Part::Primary } else { Part::Alone });
        if findings.unusable.is_empty() && self.options.allow_volatile {
            warn_of(&findings.weaker, told);
            findings.weaker.clear();
        }
        findings.unusable.append(&mut findings.weaker);
        if !findings.unusable.is_empty() {
            return Err(Trouble::Unfit(findings.unusable));
        }
        let replicas = match &replicated {
            // What may be lost need not be waited for.
            Some(_) if self.options.allow_volatile => 0,
            Some((watchers, node)) => {
                known.look(server, node, watchers, &found).await.map_err(|not_now| match not_now {
                    NotNow::Elsewhere => Trouble::Elsewhere,
                    NotNow::Unknown => Trouble::NoQuorum,
                    NotNow::Unfit(findings) => Trouble::Unfit(findings),
                })?
            }
            None => 0,
        };
        // What the watchers have just said may have taken partitions from it, above all one that was half moved.
        if let Some(first) = shard.first
            && (self.regroup().is_err() || !self.shards().all().contains_key(&first))
        {
            return Err(Trouble::NotNow("it holds no partition".into()));
        }
        self.recognize(shard, connection).await?;
        self.follow_ring(shard, connection).await?;
        if let Some((hash, lost)) = self.lost_by_witness(shard, connection).await? {
            let lost = self.behind(&hash, lost, "an earlier process of this instance");
            // What a part of a Cluster has lost keeps nobody from working with the others.
            return Err(if shard.is_home() { Trouble::Unfit(vec![lost]) } else { Trouble::NotNow(lost) });
        }
        let pass = Pass { server, replicas, is_volatile: self.options.allow_volatile };
        unit::sign(connection, standing, pass).await?;
        if let Some(lost) = standing.behind(server) {
            return Err(Trouble::Unfit(vec![self.behind(&standing.barrier().key, lost, "this process")]));
        }
        Ok(Verdict::Fit { server, ahead_ms: ahead_ms(connection, &self.clock).await?, replicas })
    }

    /// What is said when the store has lost what was acknowledged.
    fn behind(&self, hash: &[u8], Behind { units, acknowledged }: Behind, of: &str) -> String {
        format!(
            "Redis is behind what was acknowledged: the number of {of} in {} is {units}, and {acknowledged} was acknowledged. Sales were \
             lost: it came back with old data, or two servers failed at once. Bring the newer data back; what is lost stands in the \
             journals of the terminals and in the audit; to go on without it, and let those whose sales were lost buy again, {}",
            String::from_utf8_lossy(hash),
            self.witness().map_or_else(|| "start every instance anew".to_owned(), |witness| witness.remove_it()),
        )
    }
}

/// Says loudly what `--allow-volatile` has let pass, whenever that changes.
fn warn_of(weaker: &[String], told: &mut Vec<String>) {
    if *told != weaker {
        for finding in weaker {
            tracing::warn!(%finding, "sales can be lost: volatile settings were allowed");
        }
        *told = weaker.to_vec();
    }
}

/// Shuts every gate when the watching breaks off.
struct Unwatched<'a> {
    shards: &'a watch::Sender<Arc<Shards>>,
    armed: bool,
}

impl Drop for Unwatched<'_> {
    fn drop(&mut self) {
        if self.armed {
            for shard in self.shards.borrow().all().values() {
                let reason = "nobody watches over the store any more: restart the service".into();
                shard.standing.decide(Verdict::Unfit(reason));
            }
        }
    }
}
