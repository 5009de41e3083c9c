//! What there is to look at where others watch over a primary with replicas: whether it still is the primary, which
//! replicas must have a sale ([`confirming`]), and whether every one of them keeps what it is given.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::museum::Mutant;
use crate::redis_pool::{Node, Watchers};

use super::confirming::{self, Replicas};
use super::settings::{self, Found, Part};

/// For so long after a failover it is looked for again and again whether the primary before is there as a replica. Sentinels make it
/// one 8 s after they hear of it again, if they publish every 2 s as by themselves they do.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(15);
/// How often the settings of replicas are read, and always after a change of them.
const REPLICAS_EVERY: Duration = Duration::from_secs(60);
/// How soon again where one has not answered.
const REPLICAS_AGAIN: Duration = Duration::from_secs(5);
/// How long it is waited for that a majority of the watchers knows a primary: one that has just put it in its place says so first.
const AGREED_WITHIN: Duration = Duration::from_millis(200);
/// How long a replica is asked. One that does not answer is the watchers' business.
const REPLICA_WITHIN: Duration = Duration::from_millis(500);

/// What is known of the replicas of one primary.
#[derive(Default)]
pub(super) struct Known {
    /// Which server the rest is about.
    server: u64,
    /// Where it is.
    primary: Option<Node>,
    /// Which was the primary before, and since when it is not.
    replaced: Option<(Node, Instant)>,
    /// Those that were counted last.
    counted: Option<BTreeSet<Node>>,
    /// Until when these count as being as they must be.
    good: Option<(Instant, BTreeSet<Node>)>,
}

/// Why a primary with replicas cannot be used just now.
pub(super) enum NotNow {
    /// It is none any more.
    Elsewhere,
    /// Nobody can say which replicas must have a sale.
    Unknown,
    /// Everything that is wrong with its replicas.
    Unfit(Vec<String>),
}

impl Known {
    /// How many replicas must have a sale, at least one, if the primary at this node is the one of all watchers.
    pub(super) async fn look(
        &mut self,
        server: u64,
        primary: &Node,
        watchers: &Watchers,
        found: &Found,
    ) -> Result<usize, NotNow> {
        if self.server != server {
            let replaced = match self.primary.take().filter(|before| before != primary) {
                Some(before) => Some((before, Instant::now())),
                None => self.replaced.take(),
            };
            *self = Self { server, primary: Some(primary.clone()), replaced, ..Self::default() };
        }
        let replaced = self.replaced.as_ref().map(|(replaced, _)| replaced);
        let (before, give_up) = (self.counted.as_ref(), Instant::now() + AGREED_WITHIN);
        let counted = loop {
            let views = watchers.views().await;
            match confirming::count(primary, replaced, before, watchers.count(), &views, &found.attached) {
                Replicas::Counted(counted) => break counted,
                Replicas::Unknown if Instant::now() < give_up => tokio::time::sleep(AGREED_WITHIN / 10).await,
                Replicas::Unknown => return Err(NotNow::Unknown),
                Replicas::Elsewhere(_) => return Err(NotNow::Elsewhere),
            }
        };
        if self.counted.as_ref() != Some(&counted) {
            let replicas: Vec<String> = counted.iter().map(Node::to_string).collect();
            tracing::info!(%primary, replicas = replicas.join(" "), "these replicas must have a sale before it is acknowledged");
        }
        self.check(watchers, &counted).await.map_err(NotNow::Unfit)?;
        let replicas = if Mutant::FixedOneReplica.is_on() { 1 } else { counted.len().max(1) };
        self.counted = Some(counted);
        Ok(replicas)
    }

    /// Whether the primary before may come back at any moment and is to be waited for then.
    pub(super) fn expects_another(&self) -> bool {
        let is_counted = |node| self.counted.as_ref().is_some_and(|counted| counted.contains(node));
        self.replaced.as_ref().is_some_and(|(node, since)| since.elapsed() < COMES_BACK_WITHIN && !is_counted(node))
    }

    /// Reads the settings of all replicas that answer, now and then.
    async fn check(&mut self, watchers: &Watchers, replicas: &BTreeSet<Node>) -> Result<(), Vec<String>> {
        if self.good.as_ref().is_some_and(|(until, good)| good == replicas && Instant::now() < *until) {
            return Ok(());
        }
        let asked = replicas.iter().map(|node| async move {
            let found = timeout(REPLICA_WITHIN, async { settings::read(&mut watchers.visit(node).await?).await }).await;
            found.ok().and_then(Result::ok).map(|found| (node, found.judge(Part::Replica)))
        });
        let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let again = if answers.len() == replicas.len() { REPLICAS_EVERY } else { REPLICAS_AGAIN };
        let findings: Vec<String> = answers
            .into_iter()
            .flat_map(|(node, found)| {
                found.unusable.into_iter().chain(found.weaker).map(move |it| format!("replica {node}: {it}"))
            })
            .collect();
        if !findings.is_empty() {
            return Err(findings);
        }
        self.good = Some((Instant::now() + again, replicas.clone()));
        Ok(())
    }
}
