//! All together: what the run recorded is dated within one length of the run of its middle entry, whatever the clock said.
//!
//! That every instance's clock went on while the run did is taken for granted: simulated clocks that were started apart, or again
//! in mid-run, make this find what is no fault.

use std::collections::BTreeMap;
use std::time::Duration;

use super::cases::{CaseKind, Cases};
use super::entries::Entry;
use super::table::Standing;
use crate::load::history::Asked;

/// Beyond the length of the run: a call that was given up may be recorded until its deadline has passed, and the clocks of two
/// instances may differ. Both are seconds; a wrong week is far more.
const SLACK: Duration = Duration::from_secs(10);

/// Checks the run's own entries, each against the one in the middle.
pub(super) fn check<'a>(
    history: &[Asked],
    own: impl Iterator<Item = &'a Entry>,
    strangers: &[&Entry],
    cases: &mut Cases,
) {
    let first = history.iter().map(|call| call.sent).min().unwrap_or_default();
    let last = history.iter().map(|call| call.answered).max().unwrap_or_default();
    let length = (last.saturating_sub(first) + SLACK).as_millis();
    // Nothing is dated before what stands in its record already, and that may be an earlier run's with a clock ahead: what has
    // the very time of such an entry, or an earlier one, may have been put off to it.
    let mut put_off: BTreeMap<usize, i64> = BTreeMap::new();
    for stranger in strangers.iter().filter(|stranger| !stranger.late) {
        let newest = put_off.entry(stranger.record).or_insert(stranger.at);
        *newest = stranger.at.max(*newest);
    }
    let recorded = |entry: &&Entry| {
        matches!(entry.standing, Standing::Sold | Standing::Held | Standing::Released | Standing::Voided)
            && !entry.late
            && put_off.get(&entry.record).is_none_or(|newest| entry.at > *newest)
    };
    let mut own: Vec<&Entry> = own.filter(recorded).collect();
    own.sort_unstable_by_key(|entry| entry.at);
    let Some(middle) = own.get(own.len() / 2).map(|entry| entry.at) else { return };
    for entry in own.into_iter().filter(|entry| u128::from(entry.at.abs_diff(middle)) > length) {
        let expected = format!("dated within {length} ms of {middle} ms, as the run was");
        cases.at(CaseKind::OutsideRun, entry, expected, format!("at {} ms", entry.at));
    }
}
