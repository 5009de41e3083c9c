//! Every key of the door, built here and nowhere else.
//!
//! All of them carry the hash tag `{door}`, so they share one slot and a script may touch them together: who may enter
//! is one small shard of its own, apart from the buyers' records. There are four keys, however many sites there are, so
//! every script can declare what it touches:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{door}:gate` | hash | `now`: logical time in ms; `last`: the store's TIME at the last tick in ms |
//! | `{door}:sites` | hash | a site's code → its seats as text: `FENCE` then `;SLOT=TERMINAL FENCE GRANTED_MS` for each |
//! | `{door}:renewed` | sorted set | `SITE SLOT` of every seat, by the logical ms of its last renewal: the index of expiry |
//! | `{door}:changes` | stream | one entry for every seat that ended, after one that only begins it; ids `NUMBER-NONCE`, numbers without holes |
//!
//! None of them has a TTL: no decision rests on one. A site's line stays when its seats are gone, because the fence must
//! go on from where it was.

/// Logical time.
pub(super) const GATE: &str = "{door}:gate";
/// Seats by site.
pub(super) const SITES: &str = "{door}:sites";
/// Seats by last renewal.
pub(super) const RENEWED: &str = "{door}:renewed";
/// Endings, in order.
pub(super) const CHANGES: &str = "{door}:changes";
