//! What there is to look at where others watch over a primary with replicas: whether it still is the primary, which
//! replicas must have a sale ([`confirming`]), and whether every one of them keeps what it is given.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, timeout};

use crate::museum::Mutant;
use crate::redis_pool::{LISTED_PRIORITY, Node, View, Watchers};

use super::confirming::{self, Replicas};
use super::settings::{self, Found, Part};

/// How often the settings of replicas are read, and always after a change of them.
const REPLICAS_EVERY: Duration = Duration::from_secs(60);
/// How soon again where one has not answered.
const REPLICAS_AGAIN: Duration = Duration::from_secs(5);
/// How long it is waited for that a majority of the watchers knows a primary and its replicas: one that has just put it in its place
/// says so first.
const AGREED_WITHIN: Duration = Duration::from_millis(500);
/// How soon they are asked again meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long a replica is asked. One that does not answer is the watchers' business.
const REPLICA_WITHIN: Duration = Duration::from_millis(500);

/// What is known of the replicas of one primary.
#[derive(Default)]
pub(super) struct Known {
    /// Which server the rest is about.
    server: u64,
    /// Where it is, and its priority where it is a replica.
    primary: Option<(Node, Option<u32>)>,
    /// Which was the primary before; `None` too if it has been a replica of this one since, or its priority is better than that as
    /// which it is listed meanwhile.
    replaced: Option<Node>,
    /// Whether that one is there.
    expects_another: bool,
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
        self.begin(server, primary, found);
        let give_up = Instant::now() + AGREED_WITHIN;
        let counted = loop {
            let views = watchers.views().await;
            self.hear(primary, &views);
            let (replaced, before) = (self.replaced.as_ref(), self.counted.as_ref());
            let may_ask_again = Instant::now() < give_up;
            match confirming::count(primary, replaced, before, watchers.count(), &views, &found.attached) {
                // In a moment they may have heard that there is another one. It is not attached: nothing can be confirmed yet.
                Replicas::Counted(counted)
                    if may_ask_again && before.is_none() && replaced.is_some_and(|it| counted.contains(it)) => {}
                Replicas::Counted(counted) => break counted,
                Replicas::Unknown if may_ask_again => {}
                Replicas::Unknown => return Err(NotNow::Unknown),
                Replicas::Elsewhere(_) => return Err(NotNow::Elsewhere),
            }
            tokio::time::sleep(ASK_AGAIN).await;
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

    /// Forgets what is known of another server, but for what the primary before it was.
    fn begin(&mut self, server: u64, primary: &Node, found: &Found) {
        if self.server != server {
            let replaced = match self.primary.take().filter(|(before, _)| before != primary) {
                Some((before, priority)) => priority.filter(|priority| *priority >= LISTED_PRIORITY).map(|_| before),
                // It was started again.
                None => self.replaced.take(),
            };
            *self = Self { server, replaced, ..Self::default() };
        }
        self.primary = Some((primary.clone(), found.priority));
        self.forget_if(|replaced| found.attached.contains(replaced));
    }

    /// Takes from what the watchers say whether the primary before is a replica now, and whether it is there.
    fn hear(&mut self, primary: &Node, views: &[View]) {
        let listed = || views.iter().filter(|view| view.primary == *primary).flat_map(|view| &view.replicas);
        self.forget_if(|replaced| listed().any(|it| it.node == *replaced && it.is_one));
        self.expects_another =
            self.replaced.as_ref().is_some_and(|replaced| listed().any(|it| it.node == *replaced && !it.is_down));
    }

    fn forget_if(&mut self, is_replica: impl Fn(&Node) -> bool) {
        self.replaced.take_if(|replaced| is_replica(replaced) && !Mutant::StaysPassedOver.is_on());
    }

    /// Whether the primary before may become a replica at any moment and is to be waited for then.
    pub(super) fn expects_another(&self) -> bool {
        self.expects_another
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

/// How many replicas must have what this connection to the primary at this node writes, at least one, for whoever keeps something
/// beside the ledger and seldom writes: everybody is asked anew. The primary that was just replaced is waited for like any other.
/// `None`: it cannot be said, or the primary is another one.
pub(crate) async fn must_have(
    connection: &mut MultiplexedConnection,
    primary: &Node,
    watchers: &Watchers,
) -> RedisResult<Option<usize>> {
    let attached = settings::attached(&settings::info(connection, &["replication"]).await?);
    match confirming::count(primary, None, None, watchers.count(), &watchers.views().await, &attached) {
        Replicas::Counted(counted) => Ok(Some(counted.len().max(1))),
        Replicas::Unknown | Replicas::Elsewhere(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_pool::Replica;

    /// Whoever was promoted calls itself a primary while it is still listed as a replica: it must not be taken for one that is none
    /// yet.
    #[test]
    fn a_primary_that_has_been_a_replica_since_is_never_passed_over() {
        let node = |port| Node { host: "10.0.0.1".into(), port };
        let found = |priority, attached: &[u16]| {
            let mut found = Found::default();
            (found.priority, found.attached) = (priority, attached.iter().copied().map(node).collect());
            found
        };
        let usual = Some(LISTED_PRIORITY);
        let replaced = |known: &Known| known.replaced.as_ref().map(|node| node.port);
        let mut known = Known::default();
        known.begin(1, &node(1), &found(usual, &[2, 3]));
        assert_eq!(replaced(&known), None);
        known.begin(2, &node(2), &found(usual, &[3]));
        assert_eq!(replaced(&known), Some(1));
        known.begin(3, &node(2), &found(usual, &[3]));
        assert_eq!(replaced(&known), Some(1), "the new one was started again");
        for (server, attached) in [(3, &[1, 3][..]), (3, &[3]), (4, &[3])] {
            known.begin(server, &node(2), &found(usual, attached));
            assert_eq!(replaced(&known), None, "{server}, {attached:?}");
        }
        known.begin(5, &node(3), &found(Some(LISTED_PRIORITY - 1), &[1]));
        assert_eq!(replaced(&known), Some(2));
        let say = |is_down, is_one| {
            let replica = Replica { node: node(2), is_down, is_one, gives_way: !is_one };
            [View { primary: node(3), epoch: 7, watchers: 3, replicas: vec![replica] }]
        };
        known.hear(&node(3), &say(true, false));
        assert_eq!((replaced(&known), known.expects_another()), (Some(2), false));
        known.hear(&node(3), &say(false, false));
        assert_eq!((replaced(&known), known.expects_another()), (Some(2), true));
        known.hear(&node(1), &say(false, true));
        assert_eq!(replaced(&known), Some(2), "what is said of another primary's replicas says nothing");
        known.hear(&node(3), &say(false, true));
        assert_eq!((replaced(&known), known.expects_another()), (None, false));
        for priority in [usual, None] {
            known.begin(6, &node(1), &found(priority, &[2]));
            assert_eq!(replaced(&known), None, "3 would be chosen before those that are listed like it");
            known.begin(5, &node(3), &found(None, &[1]));
        }
    }
}
