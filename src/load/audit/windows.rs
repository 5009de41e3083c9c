//! Record by record: nobody has more in a week than is allowed, at any one time, and nobody was refused who had enough left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::cases::{CaseKind, Cases};
use super::entries::{Entries, Entry};
use super::outcomes::Life;
use super::table::Standing;
use super::{Audit, Rule};

/// Milliseconds of a week.
const WEEK: i64 = 7 * 24 * 3_600_000;

/// From a Monday at 00:00 in Seoul to 1970-01-01T00:00:00Z, which was 09:00 on a Thursday there. Korea has no daylight saving
/// time.
const SINCE_MONDAY: i64 = (3 * 24 + 9) * 3_600_000;

/// Which calendar week, counted from the one of 1 January 1970.
pub(super) fn week(at: i64) -> i64 {
    (at + SINCE_MONDAY).div_euclid(WEEK)
}

/// What was used of a week: units, and purchases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Used {
    units: u64,
    purchases: u64,
}

impl Used {
    fn of(entry: &Entry) -> Self {
        Self { units: u64::from(entry.quantity), purchases: 1 }
    }

    fn plus(self, other: Self) -> Self {
        Self { units: self.units + other.units, purchases: self.purchases + other.purchases }
    }

    fn minus(self, other: Self) -> Self {
        let purchases = self.purchases.saturating_sub(other.purchases);
        Self { units: self.units.saturating_sub(other.units), purchases }
    }

    fn is_within(self, rule: &Rule) -> bool {
        rule.units_a_week.is_none_or(|limit| self.units <= u64::from(limit))
            && rule.purchases_a_week.is_none_or(|limit| self.purchases <= u64::from(limit))
    }
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} units in {} purchases", self.units, self.purchases)
    }
}

/// An entry that counts for some time.
#[derive(Debug, Clone, Copy)]
struct Span<'a> {
    entry: &'a Entry,
    life: Life,
    /// First millisecond in which it counts.
    from: i64,
    /// First millisecond in which it no longer counts.
    until: i64,
}

/// When an entry counts; `None` if it never does.
fn span<'a>(entry: &'a Entry, life: Life) -> Option<Span<'a>> {
    // A late entry counts from its arrival on, in the week of its sale.
    let from = if entry.late && entry.standing == Standing::Sold { entry.mark } else { entry.at };
    let until = match entry.standing {
        Standing::Sold => i64::MAX,
        Standing::Held | Standing::Released | Standing::Voided => entry.mark,
        Standing::Absent | Standing::Refused | Standing::Closed => return None,
    };
    Some(Span { entry, life, from, until })
}

/// Checks every week of every record.
pub(super) fn check(entries: &Entries, lives: &[Life], rule: &Rule, audit: &mut Audit, cases: &mut Cases) {
    let mut all: Vec<(&Entry, Life)> =
        entries.iter().filter_map(|(place, entry)| Some((entry, *lives.get(place)?))).collect();
    all.sort_unstable_by_key(|(entry, _)| (entry.record, week(entry.at), entry.at));
    let same = |a: &Entry, b: &Entry| a.record == b.record && week(a.at) == week(b.at);
    for of_week in all.chunk_by(|(a, _), (b, _)| same(a, b)) {
        audit.weeks += 1;
        let mut spans: Vec<Span<'_>> = of_week.iter().filter_map(|(entry, life)| span(entry, *life)).collect();
        spans.sort_unstable_by_key(|span| span.from);
        check_limit(&spans, rule, cases);
        let refused = of_week.iter().map(|(entry, _)| *entry).filter(|entry| entry.standing == Standing::Refused);
        check_refusals(refused, &spans, rule, audit, cases);
    }
}

/// Adds up what counts whenever something begins to, and stops at the first time that it is too much.
fn check_limit(spans: &[Span<'_>], rule: &Rule, cases: &mut Cases) {
    // What happened on paper is outside the sum if it is marked so, or was taken back so that nothing tells when it came.
    let online = |span: &&Span<'_>| !(span.entry.over || span.entry.late && span.entry.standing == Standing::Voided);
    let counted: Vec<&Span<'_>> = spans.iter().filter(online).filter(|span| span.from < span.until).collect();
    let mut counting: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    let mut used = Used::default();
    for (which, new) in counted.iter().enumerate() {
        while let Some(Reverse((until, ended))) = counting.peek().copied()
            && until <= new.from
        {
            counting.pop();
            used = counted.get(ended).map_or(used, |span| used.minus(Used::of(span.entry)));
        }
        counting.push(Reverse((new.until, which)));
        used = used.plus(Used::of(new.entry));
        if used.is_within(rule) {
            continue;
        }
        // What a call ended that was sent before the new one was answered may have been gone by then: two calls under way
        // together read their clocks in one order and may be recorded in the other. Which of two is new that began in the
        // same millisecond nobody can tell.
        let counts = || counting.iter().filter_map(|Reverse((_, which))| counted.get(*which));
        let newest = || counts().filter(|span| span.from == new.from);
        let gone_before_another = |span: &Span<'_>| {
            let others = newest().filter(|other| other.entry.request != span.entry.request);
            span.life.given_back.is_some_and(|sent| others.map(|other| other.life.told).any(|told| sent <= told))
        };
        let perhaps_gone = counts()
            .filter(|span| matches!(span.entry.standing, Standing::Released | Standing::Voided))
            .filter(|span| gone_before_another(span))
            .fold(Used::default(), |gone, span| gone.plus(Used::of(span.entry)));
        let at_least = used.minus(perhaps_gone);
        if !at_least.is_within(rule) {
            cases.at(CaseKind::AboveWindow, new.entry, format!("at most {}", allowed(rule)), at_least.to_string());
            return;
        }
    }
}

fn allowed(rule: &Rule) -> String {
    let many = |limit: Option<u32>| limit.map_or("any number of".to_owned(), |limit| limit.to_string());
    format!("{} units in {} purchases a week", many(rule.units_a_week), many(rule.purchases_a_week))
}

/// A refusal is justified if with it there had been too much, counting all that counted at some moment of its millisecond.
fn check_refusals<'a>(
    refused: impl Iterator<Item = &'a Entry>,
    spans: &[Span<'_>],
    rule: &Rule,
    audit: &mut Audit,
    cases: &mut Cases,
) {
    let mut refused = refused.peekable();
    if refused.peek().is_none() {
        return;
    }
    // What has begun by a time less what has ended by it; each a list of (time, sum of all up to here).
    let begun = sums(spans.iter().map(|span| (if span.entry.late { i64::MIN } else { span.from }, span.entry)));
    let ended = sums(spans.iter().map(|span| (span.until, span.entry)));
    for refusal in refused {
        audit.refusals += 1;
        let counting = sum_up_to(&begun, |time| time <= refusal.at).minus(sum_up_to(&ended, |time| time < refusal.at));
        if counting.plus(Used::of(refusal)).is_within(rule) {
            let expected = format!("{} allowed beside {counting}", refusal.quantity);
            cases.at(CaseKind::RefusalUnjustified, refusal, expected, refusal.standing.to_string());
        } else {
            audit.refusals_justified += 1;
        }
    }
}

fn sums<'a>(times: impl Iterator<Item = (i64, &'a Entry)>) -> Vec<(i64, Used)> {
    let mut times: Vec<(i64, Used)> = times.map(|(time, entry)| (time, Used::of(entry))).collect();
    times.sort_unstable_by_key(|(time, _)| *time);
    let mut sum = Used::default();
    for (_, used) in &mut times {
        sum = sum.plus(*used);
        *used = sum;
    }
    times
}

fn sum_up_to(sums: &[(i64, Used)], is_in: impl Fn(i64) -> bool) -> Used {
    let many = sums.partition_point(|(time, _)| is_in(*time));
    many.checked_sub(1).and_then(|last| sums.get(last)).map_or_else(Used::default, |(_, sum)| *sum)
}
