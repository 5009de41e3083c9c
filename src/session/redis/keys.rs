//! Every key of the door, built here and nowhere else.
//!
//! All of them carry the hash tag `{door}`, so they share one slot and a script may touch them together: who may enter
//! is one small shard of its own, apart from the buyers' records. There are ten keys, however many sites there are, so
//! every script can declare what it touches:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{door}:gate` | hash | `now`: logical time in ms; `last`: the store's TIME at the last tick in ms; `seq`: the last number given out in the line; `fences`: no fence of a later grant is below it; `history`: the server's replication id, by which a server that has taken over, or was started anew, is known; `version`, `document`: the switches; `budget`, `burns`: the ramp's |
//! | `{door}:sites` | hash | a site's code → its slots as text: `FENCE`, then `;SLOT=TERMINAL FENCE GRANTED_MS` for each seat, with the `SEQ` of the place that it was behind it until its terminal has come, and `;SLOT~TERMINAL SEQ` for each place |
//! | `{door}:renewed` | sorted set | `SITE SLOT` of every seat, by the logical ms of its last renewal: the index of expiry |
//! | `{door}:sold` | sorted set | `SITE SLOT` of the seats that have sold, by the logical ms of the last sale |
//! | `{door}:ready` | sorted set | `SITE SLOT` of the places that may be admitted, by slot · 2^36 + seq |
//! | `{door}:held` | sorted set | the same of those that the ramp holds back, present or absent |
//! | `{door}:present` | sorted set | `SITE SLOT` of the places whose terminals are present, by the logical ms at which they are due |
//! | `{door}:absent` | sorted set | the same of those whose terminals are absent |
//! | `{door}:ramped` | set | the sites that have come off the ramp |
//! | `{door}:changes` | stream | one entry for every change, after one that only begins it; ids `NUMBER-NONCE`, numbers without holes |
//!
//! None of them has a TTL: no decision rests on one. A site's line stays when its slots are empty, because the fence must
//! go on from where it was.

/// What all of them carry: in a Cluster it says where they are kept.
pub const TAG: &[u8] = b"{door}";
/// Logical time, the line's counter, the switches.
pub(super) const GATE: &str = "{door}:gate";
/// Seats and places by site.
pub(super) const SITES: &str = "{door}:sites";
/// Seats by last renewal.
pub(super) const RENEWED: &str = "{door}:renewed";
/// Seats by last sale.
pub(super) const SOLD: &str = "{door}:sold";
/// Who may be admitted, in order.
pub(super) const READY: &str = "{door}:ready";
/// Whom the ramp holds back, in order.
pub(super) const HELD: &str = "{door}:held";
/// Present places by when they are due.
pub(super) const PRESENT: &str = "{door}:present";
/// Absent places by when they were due.
pub(super) const ABSENT: &str = "{door}:absent";
/// Sites off the ramp.
pub(super) const RAMPED: &str = "{door}:ramped";
/// Changes, in order.
pub(super) const CHANGES: &str = "{door}:changes";

/// All of them, in the order in which the scripts that touch them all take them.
pub(super) const ALL: [&str; 10] = [GATE, SITES, RENEWED, SOLD, READY, HELD, PRESENT, ABSENT, RAMPED, CHANGES];
