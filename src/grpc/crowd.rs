//! Who has how many connections, and calls under way on them: whoever a certificate names, and an address where nobody is known.
//! One of them is not everybody.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::identity::{Identity, Peer, Seller};
use super::limits::{CALLS_OF_A_GATEWAY, CALLS_OF_A_SITE, CONNECTIONS_OF_ONE_SITE, STREAMS};

/// Those who are here, by who they are: how many of each, and what they share while one of them is here.
pub(super) struct Crowd<K, V> {
    present: Mutex<HashMap<K, (usize, Arc<V>)>>,
}

/// One of the crowd, until it is dropped.
pub(super) struct Among<K: Eq + Hash, V> {
    crowd: Arc<Crowd<K, V>>,
    who: K,
    pub(super) shared: Arc<V>,
}

impl<K: Eq + Hash + Copy, V> Crowd<K, V> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { present: Mutex::default() })
    }

    /// One more, unless there are so many of it already. The first brings what all of them share.
    pub(super) fn join(self: &Arc<Self>, who: K, most: usize, brings: impl FnOnce() -> V) -> Option<Among<K, V>> {
        let mut present = self.present();
        let shared = match present.get_mut(&who) {
            Some((here, _)) if *here >= most => return None,
            Some((here, shared)) => {
                *here += 1;
                shared.clone()
            }
            None => present.entry(who).or_insert_with(|| (1, Arc::new(brings()))).1.clone(),
        };
        Some(Among { crowd: self.clone(), who, shared })
    }
}

impl<K, V> Crowd<K, V> {
    fn present(&self) -> MutexGuard<'_, HashMap<K, (usize, Arc<V>)>> {
        // Whole after every change.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Drop for Among<K, V> {
    fn drop(&mut self) {
        let mut present = self.crowd.present();
        let Some((here, _)) = present.get_mut(&self.who) else { return };
        *here = here.saturating_sub(1);
        if *here == 0 {
            present.remove(&self.who);
        }
    }
}

/// Whom a connection and its calls are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// Whoever its certificate names. A site's terminals are one with it.
    Named(Identity),
    /// Nobody is named: whoever has the address.
    At(IpAddr),
}

/// What there is of a listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// The most connections at once.
    pub(super) connections: usize,
    /// Of them from one address, where it is not known whose they are; `None`: any number, because one address is everybody.
    pub(super) of_one_address: Option<usize>,
    /// The most calls under way at once.
    pub(super) calls: usize,
}

/// What one of many may have of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) connections: usize,
    pub(super) calls: usize,
}

impl Room {
    /// Whom a peer is counted for, and what it may have.
    pub(super) fn share(&self, peer: Peer, from: Option<SocketAddr>) -> Option<(Who, Share)> {
        let Self { connections, of_one_address, calls } = *self;
        // One connection may always have as many as it is told.
        let of_all = |part: usize| (calls / part).max(STREAMS as usize);
        let as_site = |connections| Share { connections, calls: of_all(CALLS_OF_A_SITE) };
        let Peer::Certified(identity, _) = peer else {
            return Some((Who::At(network(from?.ip())), as_site(of_one_address?)));
        };
        Some(match identity {
            // It speaks for many sites, and not for all.
            Identity::Seller(Seller::Gateway(_)) => {
                (Who::Named(identity), Share { connections: connections / 2, calls: of_all(CALLS_OF_A_GATEWAY) })
            }
            Identity::Seller(Seller::Site(site, _)) => {
                (Who::Named(Identity::Seller(Seller::Site(site, None))), as_site(CONNECTIONS_OF_ONE_SITE))
            }
            Identity::Operator(_) | Identity::Feed(_) => (Who::Named(identity), as_site(CONNECTIONS_OF_ONE_SITE)),
        })
    }
}

/// What is one address here: of IPv6 the network that one household or firm is given, because whoever has one address of it has
/// all.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Ipv6Addr::from([a, b, c, 0, 0, 0, 0, 0]).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_them_has_so_many_and_others_theirs() {
        let crowd = Crowd::<u8, ()>::new();
        let join = |who, most| crowd.join(who, most, || ());
        let mut of_one: Vec<_> = (0..3).map_while(|_| join(1, 2)).collect();
        assert_eq!(of_one.len(), 2);
        let other = join(2, 1).unwrap();
        of_one.pop();
        of_one.push(join(1, 2).unwrap());
        assert!(join(1, 2).is_none() && join(2, 1).is_none());
        drop((of_one, other));
        assert!(crowd.present().is_empty(), "who has left is forgotten");
    }

    #[test]
    fn the_last_two_leave_nothing_when_they_leave_together() {
        let crowd = Crowd::<u32, ()>::new();
        for nth in 0..200 {
            let both = [crowd.join(nth, 2, || ()), crowd.join(nth, 2, || ())];
            // Both wait for it, so that one goes on in the moment in which the other has let it go.
            let held = crowd.present();
            let leaving = both.map(|among| std::thread::spawn(move || drop(among)));
            std::thread::park_timeout(std::time::Duration::from_millis(1));
            drop(held);
            for thread in leaving {
                thread.join().unwrap();
            }
        }
        assert_eq!(crowd.present().len(), 0);
    }

    #[test]
    fn a_site_is_one_with_its_terminals_and_a_gateway_is_not_everybody() {
        let peer = |name: &str| Peer::Certified(name.parse().unwrap(), crate::session::token::Thumbprint::of(b"key"));
        let room = Room { connections: 1_000, of_one_address: Some(10), calls: 1_600 };
        let named = |name: &str, connections, calls| {
            let who = Who::Named(name.parse().unwrap());
            Some((who, Share { connections, calls }))
        };
        let site = named("rationd://site/11000001", CONNECTIONS_OF_ONE_SITE, 100);
        assert_eq!(room.share(peer("rationd://site/11000001"), None), site);
        assert_eq!(room.share(peer("rationd://site/11000001/w1"), None), site);
        let gateway = "rationd://gateway/pos";
        assert_eq!(room.share(peer(gateway), None), named(gateway, 500, 800));
        // However few calls there may be, one connection's are among them.
        assert_eq!(Room { calls: 1, ..room }.share(peer(gateway), None), named(gateway, 500, 64));
        let from: SocketAddr = "192.0.2.7:4000".parse().unwrap();
        let at = Some((Who::At(from.ip()), Share { connections: 10, calls: 100 }));
        for nobody in [Peer::Clear, Peer::Uncertified, Peer::Unclear] {
            assert_eq!(room.share(nobody, Some(from)), at);
            assert_eq!(Room { of_one_address: None, ..room }.share(nobody, Some(from)), None);
        }
    }

    #[test]
    fn an_address_of_ipv6_is_its_network() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1::");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
