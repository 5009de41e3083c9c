//! Windows: from a rule ("a calendar week from Monday, 3 units, 5 for the young") and an instant to the span of time
//! that a claim must fit into, and what of it has been used.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::calendar::{Day, Every, TimeOfDay, Weekday, Zone};
use super::file::{Effect, Table};
use super::problems::Problems;
use super::{Counted, Left, Reason, Refusal, Used, Window};
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// No programme looks back further than ten years.
const MAX_ROLLING_DAYS: i64 = 3_660;
pub(super) const UNITS: RangeInclusive<i64> = 1..=1_000_000_000;
pub(super) const YEARS: RangeInclusive<i64> = 1800..=2199;

/// Which span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Span {
    /// A period of the calendar in the programme's zone.
    Calendar { every: Every, start: TimeOfDay },
    /// From one instant to another.
    Explicit(Effect),
    /// Today and the days before it, so many in all; no upper end.
    Rolling { days: u16 },
}

/// A range of birth years, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BirthYears {
    first: Option<i16>,
    last: Option<i16>,
}

impl BirthYears {
    /// `born_from` and `born_until`, either of which may be absent.
    pub(super) fn read(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Self {
        let mut year = |key| table.optional_integer(problems, key, YEARS).and_then(|n| i16::try_from(n.value).ok());
        let years = Self { first: year("born_from"), last: year("born_until") };
        if let (Some(first), Some(last)) = (years.first, years.last)
            && first > last
        {
            problems.at(table.byte(), "`born_from` is after `born_until`", "both years are included in the range");
        }
        years
    }

    pub(super) fn contains(&self, year: i16) -> bool {
        self.first.is_none_or(|first| first <= year) && self.last.is_none_or(|last| year <= last)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let before = |last: Option<i16>, first: Option<i16>| matches!((last, first), (Some(l), Some(f)) if l < f);
        !before(self.last, other.first) && !before(other.last, self.first)
    }

    /// "born in 2002 or later"; `None` for all years.
    pub(super) fn spoken(&self) -> Option<String> {
        match (self.first, self.last) {
            (None, None) => None,
            (Some(first), None) => Some(format!("born in {first} or later")),
            (None, Some(last)) => Some(format!("born in {last} or earlier")),
            (Some(first), Some(last)) if first == last => Some(format!("born in {first}")),
            (Some(first), Some(last)) => Some(format!("born from {first} to {last}")),
        }
    }
}

/// A window as a programme states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WindowRule {
    span: Span,
    max_units: Option<u32>,
    overrides: Vec<(BirthYears, u32)>,
    max_purchases: Option<u32>,
}

impl WindowRule {
    pub(super) fn read(mut table: Table<'_>, zone: &Zone, problems: &mut Problems<'_>) -> Option<(Self, usize)> {
        let byte = table.byte();
        let span = read_span(&mut table, zone, problems);
        let max_units = table.optional_integer(problems, "units", UNITS).and_then(|n| u32::try_from(n.value).ok());
        let max_purchases =
            table.optional_integer(problems, "purchases", UNITS).and_then(|n| u32::try_from(n.value).ok());
        if !table.has("units") && !table.has("purchases") {
            problems.at(byte, "this window limits nothing", "add `units = …`, `purchases = …` or both");
        }
        let mut overrides: Vec<(BirthYears, u32)> = Vec::new();
        for mut row in table.tables(problems, "units_by_birth_year") {
            let years = BirthYears::read(&mut row, problems);
            let units = row.integer(problems, "units", UNITS).and_then(|n| u32::try_from(n.value).ok());
            if overrides.iter().any(|(other, _)| other.overlaps(&years)) {
                problems.at(
                    row.byte(),
                    "two overrides hold for the same birth year",
                    "let no birth year fall into both",
                );
            }
            overrides.extend(units.map(|units| (years, units)));
            row.close(problems);
        }
        if !overrides.is_empty() && max_units.is_none() {
            problems.at(byte, "there are overrides but no `units`", "add the `units` of everybody else");
        }
        table.close(problems);
        Some((Self { span: span?, max_units, overrides, max_purchases }, byte))
    }

    /// The window that contains `at`, with the limits for this birth year.
    pub(super) fn window(&self, zone: &Zone, at: Timestamp, day: Day, birth_year: i16) -> Window {
        let (from, until) = match self.span {
            Span::Calendar { every, start } => zone.period(every, start, at, day),
            Span::Explicit(effect) => (effect.from, effect.until),
            Span::Rolling { days } => (zone.midnight_from(day, 1 - i64::from(days)), Timestamp::NEVER),
        };
        self.limited(from, until, birth_year)
    }

    /// The fixed spans that contain a sale at `sold_at`: one for a fixed window; for a rolling one each run of days that
    /// includes the day of sale.
    pub(super) fn spans_of(&self, zone: &Zone, sold_at: Timestamp, day: Day, birth_year: i16) -> Vec<Window> {
        let Span::Rolling { days } = self.span else {
            return vec![self.window(zone, sold_at, day, birth_year)];
        };
        let days = i64::from(days);
        let first_days = (1 - days)..=0;
        first_days
            .map(|first| {
                self.limited(zone.midnight_from(day, first), zone.midnight_from(day, first + days), birth_year)
            })
            .collect()
    }

    fn limited(&self, from: Timestamp, until: Timestamp, birth_year: i16) -> Window {
        let own = self.overrides.iter().find(|(years, _)| years.contains(birth_year)).map(|(_, units)| *units);
        Window { from, until, max_units: own.or(self.max_units), max_purchases: self.max_purchases }
    }

    /// How far back from an instant inside it the window can reach.
    pub(super) fn longest(&self) -> Duration {
        match self.span {
            Span::Calendar { every: Every::Day, .. } => DAY,
            Span::Calendar { every: Every::Week(_), .. } => 7 * DAY,
            Span::Calendar { every: Every::Month, .. } => 31 * DAY,
            Span::Explicit(effect) => effect.until.since(effect.from),
            Span::Rolling { days } => u32::from(days) * DAY,
        }
    }

    /// The explicit span, if it is one.
    pub(super) fn explicit(&self) -> Option<Effect> {
        match self.span {
            Span::Explicit(effect) => Some(effect),
            Span::Calendar { .. } | Span::Rolling { .. } => None,
        }
    }

    /// "a calendar week from Monday".
    pub(super) fn spoken_span(&self, zone: &Zone) -> String {
        match self.span {
            Span::Calendar { every, start } => {
                let hour = if start == TimeOfDay::MIDNIGHT { String::new() } else { format!(" at {start}") };
                match every {
                    Every::Day if hour.is_empty() => "a day".to_owned(),
                    Every::Day => format!("a day from{}", hour.trim_start_matches(" at")),
                    Every::Week(day) => format!("a calendar week from {day}{hour}"),
                    Every::Month => format!("a calendar month{}", hour.replace(" at", " from")),
                }
            }
            Span::Explicit(effect) => {
                format!("one span from {} until {}", zone.local(effect.from), zone.local(effect.until))
            }
            Span::Rolling { days } => format!("{days} days running"),
        }
    }

    /// "3 (5 for those born in 2002 or later)", or "no limit".
    pub(super) fn spoken_units(&self) -> String {
        let Some(units) = self.max_units else { return "no limit".to_owned() };
        let others: Vec<String> = self
            .overrides
            .iter()
            .map(|(years, units)| {
                format!("{units} for those {}", years.spoken().unwrap_or_else(|| "of any age".to_owned()))
            })
            .collect();
        if others.is_empty() { units.to_string() } else { format!("{units} ({})", others.join("; ")) }
    }

    /// "1", or "no limit".
    pub(super) fn spoken_purchases(&self) -> String {
        self.max_purchases.map_or_else(|| "no limit".to_owned(), |max| max.to_string())
    }
}

fn read_span(table: &mut Table<'_>, zone: &Zone, problems: &mut Problems<'_>) -> Option<Span> {
    let kind = table.text(problems, "kind", "\"week\"")?;
    let every = match kind.value {
        "day" => Every::Day,
        "month" => Every::Month,
        "week" => {
            let text = table.text(problems, "starts", "\"mon\"")?;
            match Weekday::from_short(text.value) {
                Some(day) => Every::Week(day),
                None => {
                    problems.at(text.byte, format!("no such weekday: {:?}", text.value), "write mon, tue … sun");
                    return None;
                }
            }
        }
        "span" => return table.effect_with_end(problems, zone).map(Span::Explicit),
        "rolling_days" => {
            let days = table.integer(problems, "days", 1..=MAX_ROLLING_DAYS)?;
            return u16::try_from(days.value).ok().map(|days| Span::Rolling { days });
        }
        other => {
            let remedy = "write day, week, month, span or rolling_days";
            problems.at(kind.byte, format!("no such kind of window: {other:?}"), remedy);
            return None;
        }
    };
    let start = match table.optional_text(problems, "starts_at") {
        None => TimeOfDay::MIDNIGHT,
        Some(text) => match TimeOfDay::parse(text.value) {
            Some(start) => start,
            None => {
                problems.at(text.byte, format!("no such time of day: {:?}", text.value), "write it as \"06:00\"");
                return None;
            }
        },
    };
    Some(Span::Calendar { every, start })
}

/// What counts at `at` of the purchases inside a window: sales, and holds that have not run out.
pub fn used(window: &Window, history: &[Counted], at: Timestamp) -> Used {
    let counting = history.iter().filter(|c| window.contains(c.at) && c.held_until.is_none_or(|until| at < until));
    counting.fold(Used::default(), |used, counted| Used {
        units: used.units + u64::from(counted.units),
        purchases: used.purchases.saturating_add(1),
    })
}

/// What is left at `at`: the least over all windows.
pub fn left(windows: &[Window], history: &[Counted], at: Timestamp) -> Left {
    let least = |a: Option<u32>, b: Option<u32>| a.into_iter().chain(b).min();
    windows.iter().fold(Left { units: None, purchases: None }, |left, window| {
        let used = used(window, history, at);
        let units = window.max_units.map(|max| max.saturating_sub(u32::try_from(used.units).unwrap_or(u32::MAX)));
        let purchases = window.max_purchases.map(|max| max.saturating_sub(used.purchases));
        Left { units: least(left.units, units), purchases: least(left.purchases, purchases) }
    })
}

/// `QUOTA_EXHAUSTED` and why, if `quantity` more does not fit into every window; `None` if it fits.
pub fn quota_reason(windows: &[Window], history: &[Counted], quantity: u32, at: Timestamp) -> Option<Reason> {
    if windows.iter().all(|window| window.allows(used(window, history, at), quantity)) {
        return None;
    }
    let left = left(windows, history, at);
    let why = match (left.purchases, left.units) {
        (Some(0), _) => {
            "Nothing more can be bought in this window: the purchases allowed in it have been made.".to_owned()
        }
        (_, Some(0)) => "Nothing more can be bought in this window: all units of it have been used.".to_owned(),
        (_, Some(units)) => format!("{quantity} asked for, but at most {units} can be bought now."),
        (_, None) => "Nothing more can be bought in this window.".to_owned(),
    };
    Some(Reason { refusal: Refusal::QuotaExhausted, why })
}
