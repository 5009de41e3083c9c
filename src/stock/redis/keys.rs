//! Every key of the shelf, built here and nowhere else.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{stock}:reports` | stream | every report, packed (`packed`), as the one field of a message; about the newest [`REPORTS_KEPT`](crate::stock::REPORTS_KEPT) |
//! | `{stock}:ids:SITE:DAY` | hash | the reports that a site has made on a day, packed, by request id (16 raw bytes); the day is counted from 1970 in UTC, by when the service took them |
//! | `{stock}:picture` | hash | which picture was kept last: `generation`, `length` in bytes, `checksum` (SHA-256) |
//! | `{stock}:picture:GENERATION` | hash | its chunks, numbered from 0 |
//! | `{stock}:barrier` | number | raised before replicas are waited for: `WAIT` speaks of what its own connection has written |
//!
//! All of them carry the hash tag `{stock}`, so they share one slot and a script may touch them together: reports are one small
//! stream in one order, apart from the buyers' records. A nation reports twice a second.
//!
//! The ids of a day go three days after its last report (a TTL, which Redis counts): that is a memory of what may be sent again and
//! nothing else, and the report itself stays. So an id is remembered for a day at least, for a report is looked for on its own day,
//! the one before it, and the one after it, in which an instance whose clock is ahead has put it. Chunks that nobody has pointed to for
//! an hour go, too: whoever wrote them has not come to an end. Nothing else has a TTL.
//!
//! Measured with Redis 7.0: two million reports of 24,000 sites take 125 MB, and the ids of a day of 144,000 reports 13 MB, so that those
//! of three or four days take 50 MB at most.

use crate::ids::SiteId;

/// What all of them carry: in a Cluster it says where they are kept.
pub const TAG: &[u8] = b"{stock}";
/// Reports, in order.
pub(super) const REPORTS: &str = "{stock}:reports";
/// Which picture was kept last.
pub(super) const PICTURE: &str = "{stock}:picture";
/// What is written before replicas are waited for.
pub(super) const BARRIER: &str = "{stock}:barrier";

/// The ids of a site on a day.
pub(super) fn ids(site: SiteId, day: i64) -> String {
    format!("{{stock}}:ids:{site}:{day}")
}

/// The chunks of a picture.
pub(super) fn picture_of(generation: &str) -> String {
    format!("{PICTURE}:{generation}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis_pool::Slot;

    #[test]
    fn keys_read_as_they_always_have_and_share_a_slot() {
        let all = [
            REPORTS.to_owned(),
            PICTURE.to_owned(),
            BARRIER.to_owned(),
            ids("11000001".parse().unwrap(), 18_332),
            picture_of("00c0ffee"),
        ];
        let stand = ["reports", "picture", "barrier", "ids:11000001:18332", "picture:00c0ffee"];
        for (key, stands) in all.iter().zip(stand) {
            assert_eq!(*key, format!("{{stock}}:{stands}"));
            assert_eq!(Slot::of(key.as_bytes()), Slot::of(TAG));
        }
    }
}
