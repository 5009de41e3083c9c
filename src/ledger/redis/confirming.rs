//! Which replicas must have a sale before it is acknowledged. Pure.
//!
//! A failover makes one replica the primary, so an acknowledged sale is safe only if every replica that might be chosen has it:
//! those that its watchers (Sentinels, or the nodes of a Cluster) do not hold to be down, and whatever else is attached to the
//! primary. A primary that is cut off must not talk itself into needing fewer: the number falls only by what a majority of all
//! watchers says, which still hold this primary to be the primary.
//!
//! A replica that they say is down is not waited for. Nor is the primary that was just replaced, while they say that another would be
//! chosen before it: it is listed as a replica at once, although it is none before Sentinels have heard of it and made it one, four of
//! the periods in which they publish later. What is acknowledged then is safe as it is while the one that failed is down: until it is
//! back, the new primary and that other one must not both fail. When it has been a replica of the new primary it is one like
//! any other, for whoever calls itself a primary then has been chosen.

use std::collections::BTreeSet;

use crate::museum::Mutant;
use crate::redis_pool::{Node, Replica, View};

/// What the watchers come to for a primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replicas {
    /// These must have what is to be promised; as soon as there is one, at least one.
    Counted(BTreeSet<Node>),
    /// It cannot be said yet: a majority of the watchers has never been heard of this primary.
    Unknown,
    /// The primary is another one, here.
    Elsewhere(Node),
}

/// Counts the replicas of a primary. `replaced`: the primary before it, if it has not been its replica since; `before`: those counted
/// when it was last looked at; `configured`: the watchers of the URL; `attached`: the replicas that the primary itself has.
pub(super) fn count(
    primary: &Node,
    replaced: Option<&Node>,
    before: Option<&BTreeSet<Node>>,
    configured: usize,
    views: &[View],
    attached: &BTreeSet<Node>,
) -> Replicas {
    if Mutant::ReplicasByPrimary.is_on() {
        return Replicas::Counted(attached.clone());
    }
    if let Some(latest) = views.iter().max_by_key(|view| view.epoch)
        && latest.primary != *primary
    {
        return Replicas::Elsewhere(latest.primary.clone());
    }
    let ours: Vec<&View> = views.iter().filter(|view| view.primary == *primary).collect();
    let all = ours.iter().map(|view| view.watchers).fold(configured, usize::max);
    let majority = all / 2 + 1;
    let most_say = |node: &Node, what: fn(&Replica) -> bool| {
        ours.iter().filter(|view| view.replicas.iter().any(|replica| replica.node == *node && what(replica))).count()
            >= majority
    };
    let may_take_over = |node: &Node| {
        !most_say(node, |replica| replica.is_down)
            && (replaced != Some(node) || !most_say(node, |replica| replica.gives_way))
    };
    let known = ours.iter().flat_map(|view| &view.replicas).map(|replica| &replica.node);
    // The watcher that leads a failover names the new primary before it has struck it off the replicas.
    let alive = known.filter(|node| *node != primary && may_take_over(node)).chain(attached).cloned();
    if ours.len() >= majority {
        return Replicas::Counted(alive.collect());
    }
    match before {
        Some(before) => Replicas::Counted(alive.chain(before.iter().cloned()).collect()),
        None => Replicas::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Node {
        Node { host: "10.0.0.1".into(), port }
    }

    fn nodes(ports: &[u16]) -> BTreeSet<Node> {
        ports.iter().copied().map(node).collect()
    }

    /// A view of one of three watchers: replicas that are up, then replicas that are down.
    fn view(primary: u16, epoch: u64, up: &[u16], down: &[u16]) -> View {
        let replica =
            |is_down| move |port: &u16| Replica { node: node(*port), is_down, is_one: true, gives_way: false };
        let replicas = up.iter().map(replica(false)).chain(down.iter().map(replica(true))).collect();
        View { primary: node(primary), epoch, watchers: 3, replicas }
    }

    fn counted(before: Option<&[u16]>, views: &[View], attached: &[u16]) -> Replicas {
        count(&node(1), Some(&node(2)), before.map(nodes).as_ref(), 3, views, &nodes(attached))
    }

    #[test]
    fn every_replica_that_might_take_over_counts() {
        let all = Replicas::Counted(nodes(&[2, 3]));
        let usual = vec![view(1, 0, &[2, 3], &[]); 3];
        assert_eq!(counted(None, &usual, &[2, 3]), all);
        assert_eq!(counted(None, &usual, &[2]), all, "one that is alive and not attached may be chosen");
        assert_eq!(
            counted(None, &usual, &[2, 3, 4]),
            Replicas::Counted(nodes(&[2, 3, 4])),
            "one that nobody has heard of yet"
        );
    }

    #[test]
    fn the_number_falls_only_by_a_majority_of_all_watchers() {
        let both = Replicas::Counted(nodes(&[2, 3]));
        let (up, down) = (view(1, 0, &[2, 3], &[]), view(1, 0, &[3], &[2]));
        assert_eq!(counted(Some(&[2, 3]), &[down.clone(), up.clone(), up], &[3]), both, "one of three");
        assert_eq!(counted(Some(&[2, 3]), std::slice::from_ref(&down), &[3]), both, "one that is alone");
        assert_eq!(counted(Some(&[2, 3]), &[down.clone(), down.clone()], &[3]), Replicas::Counted(nodes(&[3])));
        assert_eq!(counted(Some(&[2, 3]), &[down.clone(), down], &[2, 3]), both, "attached all the same");
        assert_eq!(counted(Some(&[2, 3]), &[], &[]), both, "nobody can be asked");
        assert_eq!(counted(None, &[], &[2, 3]), Replicas::Unknown, "the primary alone is not believed");
        // Five watch, of which three are named: two are no majority.
        let of_five = View { watchers: 5, ..view(1, 0, &[3], &[2]) };
        assert_eq!(counted(Some(&[2, 3]), &[of_five.clone(), of_five], &[3]), both);
    }

    #[test]
    fn a_primary_is_no_replica_of_itself() {
        assert_eq!(counted(None, &vec![view(1, 5, &[1, 3], &[]); 3], &[3]), Replicas::Counted(nodes(&[3])));
    }

    #[test]
    fn the_primary_that_was_replaced_is_not_waited_for_where_another_would_be_chosen_first() {
        let views = |replica: u16, gives_way: [bool; 3]| {
            gives_way.map(|gives_way| {
                let mut view = view(1, 0, &[2, 3], &[]);
                view.replicas.iter_mut().filter(|it| it.node == node(replica)).for_each(|it| it.gives_way = gives_way);
                view
            })
        };
        let (both, other) = (Replicas::Counted(nodes(&[2, 3])), Replicas::Counted(nodes(&[3])));
        assert_eq!(counted(None, &views(2, [true, false, true]), &[3]), other);
        assert_eq!(counted(None, &views(2, [true, false, false]), &[3]), both, "one is not enough");
        assert_eq!(
            counted(Some(&[2, 3]), &views(2, [true; 3]), &[3]),
            other,
            "it might have been chosen, and may not now"
        );
        assert_eq!(counted(None, &views(2, [true; 3]), &[2, 3]), both, "it is attached");
        assert_eq!(counted(None, &views(3, [true; 3]), &[]), both, "no other is passed over");
        let all = views(2, [true; 3]);
        assert_eq!(count(&node(1), None, None, 3, &all, &nodes(&[3])), both, "it was its replica, and has been chosen");
    }

    #[test]
    fn a_primary_that_was_replaced_is_left_even_if_only_one_knows() {
        let views = [view(1, 4, &[2, 3], &[]), view(2, 5, &[3], &[1]), view(1, 4, &[2, 3], &[])];
        assert_eq!(counted(Some(&[2, 3]), &views, &[2, 3]), Replicas::Elsewhere(node(2)));
        // What is said of the replicas of another primary says nothing of this one's.
        let old = [view(2, 3, &[], &[3]), view(2, 3, &[], &[3]), view(1, 4, &[3], &[])];
        assert_eq!(counted(Some(&[3]), &old, &[3]), Replicas::Counted(nodes(&[3])));
    }
}
