//! The rules, slowly: from the list of all facts, in whatever order, each rule by looking at all of them.

use std::collections::BTreeSet;

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Fact {
    Event(Told),
    Report(Place, Report),
    Missed(Timestamp),
}

impl Fact {
    pub(super) fn key(&self) -> Option<Key> {
        match self {
            Self::Event(told) => Some(Key { programme: told.programme, site: told.event.entry.site }),
            Self::Report(_, report) => Some(report.key),
            Self::Missed(_) => None,
        }
    }
}

/// Everything that is shown if these are all the facts.
pub(super) fn shown(facts: &[Fact], now: i64, fresh: bool) -> Vec<(Key, Shown)> {
    let keys: BTreeSet<Key> = facts.iter().filter_map(Fact::key).collect();
    keys.into_iter().filter_map(|key| Some((key, of(key, facts, now, fresh)?))).collect()
}

fn of(key: Key, facts: &[Fact], now: i64, fresh: bool) -> Option<Shown> {
    let mut counts = Vec::new();
    let mut pauses = Vec::new();
    let mut deliveries = Vec::new();
    let mut moved: Vec<(i64, i64)> = Vec::new();
    let mut sales = Vec::new();
    let mut sounds = Vec::new();
    let mut held = Vec::new();
    let mut ended = Vec::new();
    let mut missed = None;
    for fact in facts {
        match fact {
            Fact::Missed(until) => missed = missed.max(Some(until.as_millis())),
            Fact::Report(place, report) if report.key == key => {
                let when = report.at.as_millis();
                sounds.push(report.received.as_millis());
                match report.what {
                    What::Delivered(units) => {
                        deliveries.push(when);
                        moved.push((when, i64::from(units)));
                    }
                    What::Counted(units) => counts.push((when, *place, units)),
                    What::Paused => pauses.push((when, *place, true)),
                    What::Resumed => pauses.push((when, *place, false)),
                }
            }
            Fact::Event(told) if fact.key() == Some(key) => {
                let Event { kind, entry } = told.event;
                let (from, mark) = (entry.at.as_millis(), entry.mark.as_millis());
                let units = i64::from(entry.quantity);
                match kind {
                    EventKind::Sold => {
                        moved.push((from, -units));
                        sounds.push(from);
                        sales.push(from);
                    }
                    EventKind::Held => {
                        held.push((entry.request, mark, units));
                        sounds.push(from);
                        sales.push(from);
                    }
                    EventKind::Confirmed => {
                        ended.push(entry.request);
                        moved.push((mark, -units));
                        sounds.push(mark);
                        sales.push(mark);
                    }
                    EventKind::Released => {
                        ended.push(entry.request);
                        sales.push(mark);
                    }
                    EventKind::Voided => {
                        moved.push((mark, units));
                        sounds.push(mark);
                        sales.push(mark);
                    }
                    EventKind::Late => {
                        ended.push(entry.request);
                        moved.push((from, -units));
                        sales.push(from);
                    }
                }
            }
            Fact::Report(..) | Fact::Event(_) => {}
        }
    }
    let count = counts.iter().max();
    let pause = pauses.iter().max();
    let is_paused = pause.is_some_and(|(.., paused)| *paused);
    if counts.is_empty() && deliveries.is_empty() && !is_paused {
        return None;
    }

    let counted_at = count.map(|(when, ..)| *when);
    let mut there = count.map_or(0, |(.., units)| i64::from(*units));
    for (when, units) in moved {
        if counted_at.is_none_or(|counted| when > counted) {
            there += units;
        }
    }
    let live: i64 =
        held.iter().filter(|(id, until, _)| now < *until && !ended.contains(id)).map(|(.., units)| units).sum();
    let promised = live.min(there.max(0));
    let offered = u32::try_from((there - promised).max(0)).unwrap();

    sounds.sort_unstable();
    let (mut habit, mut gap) = (30 * MINUTE, None);
    for pair in sounds.windows(2) {
        let silence = pair[1] - pair[0];
        if silence < 6 * HOUR {
            if silence > 2 * habit {
                gap = Some(pair[1]);
            }
            if silence > habit {
                habit += (silence - habit) / 4;
            } else {
                habit -= (habit - silence) / 64;
            }
            habit = habit.clamp(10 * MINUTE, 3 * HOUR);
        }
    }
    let is_silent = sounds.last().is_none_or(|last| now - last > 2 * habit);
    let missed_since = missed.is_some_and(|missed| counted_at.is_none_or(|counted| counted <= missed));
    let gap_since = gap.is_some_and(|gap| counted_at.is_none_or(|counted| counted < gap - 10 * MINUTE));

    let (delivered, sold) = (deliveries.iter().max().copied(), sales.iter().max().copied());
    let source = match (counted_at, delivered, sold) {
        (Some(_), ..) if counted_at >= delivered && counted_at >= sold => Source::Count,
        (_, Some(_), _) if delivered >= sold => Source::Delivery,
        _ => Source::Sales,
    };
    let newest = [counted_at, delivered, sold, pause.map(|(when, ..)| *when)].into_iter().max().flatten().unwrap();
    Some(Shown {
        level: match offered {
            _ if is_paused => Level::Paused,
            100.. => Level::Plenty,
            30..=99 => Level::Some,
            2..=29 => Level::Few,
            0..=1 => Level::Empty,
        },
        offered,
        promised: u32::try_from(promised).unwrap(),
        as_of: Timestamp::from_millis(newest.min(now)),
        source,
        delivered_at: delivered.map(Timestamp::from_millis),
        counted_at: counted_at.map(Timestamp::from_millis),
        stale: !fresh || is_silent,
        unverified: there < 0 || missed_since || gap_since,
    })
}
