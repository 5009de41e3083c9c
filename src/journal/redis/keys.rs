//! Every key of the books, built here and nowhere else.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{journal}:SITE` | hash | the site's book: by request id (16 raw bytes) what became of a sale, packed (`packed`); by request id and mark (24 raw bytes) what was put beside another under the same id |
//! | `{journal}:barrier:` | number | raised before replicas are waited for: `WAIT` speaks of what its own connection has written |
//!
//! All of them carry the hash tag `{journal}`, so they share one slot, apart from the buyers' records: a book names no buyer, and none of
//! its scripts touches a record. Nothing has a TTL: what was put aside waits for a person.

use crate::ids::SiteId;

/// What all of them carry: in a Cluster it says where they are kept.
pub const TAG: &[u8] = b"{journal}";
/// What is written before replicas are waited for. No site is called so: a site's code has no colon before it.
pub(super) const BARRIER: &str = "{journal}:barrier:";

/// The book of a site.
pub(super) fn of(site: SiteId) -> String {
    format!("{{journal}}:{site}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_pool::Slot;

    #[test]
    fn keys_read_as_they_always_have_and_share_a_slot() {
        let (book, barrier) = (of("11000001".parse().unwrap()), BARRIER.to_owned());
        assert_eq!((book.as_str(), barrier.as_str()), ("{journal}:11000001", "{journal}:barrier:"));
        for key in [book, barrier] {
            assert_eq!(Slot::of(key.as_bytes()), Slot::of(TAG));
        }
    }
}
