//! Who has how many connections: whoever a certificate names, and an address while nobody is known yet. One of them is not
//! everybody.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::identity::{Identity, Peer, Seller};
use super::limits::CONNECTIONS_OF_ONE_SITE;

/// Those who are here, by who they are; what they share while one of them is here.
pub(super) struct Crowd<K, V> {
    present: Mutex<HashMap<K, Arc<V>>>,
}

/// One of the crowd, until it is dropped.
pub(super) struct Among<K: Eq + Hash, V> {
    crowd: Arc<Crowd<K, V>>,
    who: K,
    pub(super) shared: Arc<V>,
}

impl<K: Eq + Hash + Copy, V: Default> Crowd<K, V> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { present: Mutex::default() })
    }

    /// One more, unless there are so many of it already.
    pub(super) fn join(self: &Arc<Self>, who: K, most: usize) -> Option<Among<K, V>> {
        let mut present = self.present();
        let shared = present.entry(who).or_default();
        // The crowd holds one itself.
        (Arc::strong_count(shared) <= most).then(|| Among { crowd: self.clone(), who, shared: shared.clone() })
    }
}

impl<K, V> Crowd<K, V> {
    fn present(&self) -> MutexGuard<'_, HashMap<K, Arc<V>>> {
        // Whole after every change.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Drop for Among<K, V> {
    fn drop(&mut self) {
        let mut present = self.crowd.present();
        // The crowd's own and this one.
        if Arc::strong_count(&self.shared) <= 2 {
            present.remove(&self.who);
        }
    }
}

/// Whom a peer's connections are counted for, and how many it may have where there are so many in all. A site's terminals are one
/// with it. Who has shown no certificate is not known.
pub(super) fn counted_for(peer: Peer, in_all: usize) -> Option<(Identity, usize)> {
    let Peer::Certified(identity, _) = peer else { return None };
    Some(match identity {
        // It speaks for many sites, and not for all.
        Identity::Seller(Seller::Gateway(_)) => (identity, in_all / 2),
        Identity::Seller(Seller::Site(site, _)) => {
            (Identity::Seller(Seller::Site(site, None)), CONNECTIONS_OF_ONE_SITE)
        }
        Identity::Operator(_) | Identity::Feed(_) => (identity, CONNECTIONS_OF_ONE_SITE),
    })
}

/// What is one address here: of IPv6 the network, because whoever has one address of it has all.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0]).into()
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
        let mut of_one: Vec<_> = (0..3).map_while(|_| crowd.join(1, 2)).collect();
        assert_eq!(of_one.len(), 2);
        let other = crowd.join(2, 1).unwrap();
        of_one.pop();
        of_one.push(crowd.join(1, 2).unwrap());
        assert!(crowd.join(1, 2).is_none() && crowd.join(2, 1).is_none());
        drop((of_one, other));
        assert!(crowd.present().is_empty(), "who has left is forgotten");
        assert!(crowd.join(3, 0).is_none());
    }

    #[test]
    fn a_site_is_one_with_its_terminals_and_a_gateway_is_not_everybody() {
        let peer = |name: &str| Peer::Certified(name.parse().unwrap(), crate::session::token::Thumbprint::of(b"key"));
        let of = |name| counted_for(peer(name), 1_000).map(|(identity, most)| (identity.to_string(), most));
        let site = Some(("rationd://site/11000001".to_owned(), CONNECTIONS_OF_ONE_SITE));
        assert_eq!(of("rationd://site/11000001"), site);
        assert_eq!(of("rationd://site/11000001/w1"), site);
        assert_eq!(of("rationd://gateway/pos"), Some(("rationd://gateway/pos".to_owned(), 500)));
        assert_eq!(counted_for(Peer::Clear, 1_000), None);
    }

    #[test]
    fn an_address_of_ipv6_is_its_network() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
    }
}
