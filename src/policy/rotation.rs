//! Whose day it is: rotation by the last digit of the birth year, weekdays that belong to everybody, and free days.
//!
//! Knows nothing about proxy purchases: whose day counts is decided in [`super::proxy`].

use super::calendar::{Day, Weekday};
use super::file::Table;
use super::problems::Problems;
use super::wording::either;
use crate::time::Date;

/// The rotation table of a programme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rotation {
    /// By day from Monday: a bit for every digit.
    digits: [u16; 7],
    /// By day from Monday: whether anyone may come.
    free: [bool; 7],
}

/// The last digit of a birth year.
fn digit(birth_year: i16) -> u16 {
    birth_year.unsigned_abs() % 10
}

impl Rotation {
    pub(super) fn read(mut table: Table<'_>, problems: &mut Problems<'_>) -> Self {
        let mut rotation = Self { digits: [0; 7], free: [false; 7] };
        let byte = table.byte();
        if let Some(key) = table.text(problems, "key", "\"birth_year_digit\"")
            && key.value != "birth_year_digit"
        {
            let remedy = "write `key = \"birth_year_digit\"`, the only thing of a number that a rule may see";
            problems.at(key.byte, format!("no rotation goes by {:?}", key.value), remedy);
        }
        for text in table.texts(problems, "always_free") {
            match Weekday::from_short(text.value) {
                Some(day) => set(&mut rotation.free, day, true),
                None => problems.at(text.byte, format!("no such weekday: {:?}", text.value), "write mon, tue … sun"),
            }
        }
        for (day, key) in Weekday::ALL.into_iter().zip(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]) {
            let digits = table.integers(problems, key, 0..=9);
            set(&mut rotation.digits, day, digits.iter().fold(0, |bits, digit| bits | 1 << digit.value));
        }
        for digit in 0..=9 {
            if rotation.digits.iter().all(|bits| bits & (1 << digit) == 0) {
                problems.at(byte, format!("the digit {digit} has no day"), "put every digit from 0 to 9 on a day");
            }
        }
        table.close(problems);
        rotation
    }

    /// Whether the day belongs to this birth year's digit.
    pub(super) fn has(&self, birth_year: i16, day: Weekday) -> bool {
        self.bits(day) & (1 << digit(birth_year)) != 0
    }

    /// Whether the day belongs to everybody every week.
    pub(super) fn is_always_free(&self, day: Weekday) -> bool {
        self.free.get(usize::from(day.since_monday())).copied().unwrap_or(false)
    }

    /// This birth year's own weekday: from `today` on, the first.
    pub(super) fn own_day(&self, birth_year: i16, today: Weekday) -> Option<Weekday> {
        let mut days = Weekday::ALL;
        days.rotate_left(usize::from(today.since_monday()));
        days.into_iter().find(|&day| self.has(birth_year, day))
    }

    /// "birth years ending in 2 or 7"; `None` if nobody's digit is on that day.
    pub(super) fn spoken(&self, day: Weekday) -> Option<String> {
        let list = either(self.digits(day)?.into_iter());
        Some(format!("birth years ending in {list}"))
    }

    /// "Monday 1, 6; Tuesday 2, 7; Saturday all".
    pub(super) fn describe(&self) -> String {
        let days = Weekday::ALL.into_iter().filter_map(|day| {
            if self.is_always_free(day) {
                Some(format!("{day} all"))
            } else {
                Some(format!("{day} {}", self.digits(day)?.join(", ")))
            }
        });
        format!("by the last digit of the birth year: {}", days.collect::<Vec<_>>().join("; "))
    }

    /// The digits of a day, zero last as the tenth; `None` if it has none.
    fn digits(&self, day: Weekday) -> Option<Vec<String>> {
        let bits = self.bits(day);
        let digits = (1..=10).map(|n| n % 10).filter(|n| bits & (1 << n) != 0);
        Some(digits.map(|n| n.to_string()).collect::<Vec<_>>()).filter(|digits| !digits.is_empty())
    }

    fn bits(&self, day: Weekday) -> u16 {
        self.digits.get(usize::from(day.since_monday())).copied().unwrap_or(0)
    }
}

fn set<T>(days: &mut [T; 7], day: Weekday, value: T) {
    if let Some(slot) = days.get_mut(usize::from(day.since_monday())) {
        *slot = value;
    }
}

/// Dates on which the rotation does not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FreeDays(Vec<(Date, String)>);

impl FreeDays {
    pub(super) fn read(tables: Vec<Table<'_>>, problems: &mut Problems<'_>) -> Self {
        let mut days: Vec<(Date, String)> = Vec::new();
        for mut table in tables {
            let date = table.date(problems, "date");
            let why = table.text(problems, "why", "\"the reason, as a clerk would say it\"");
            if let (Some(date), Some(why)) = (date, why) {
                if days.iter().any(|(known, _)| *known == date.value) {
                    problems.at(date.byte, format!("{} is listed twice", date.value), "remove one of the two");
                }
                days.push((date.value, why.value.to_owned()));
            }
            table.close(problems);
        }
        days.sort();
        Self(days)
    }

    /// Why the day is free, if it is.
    pub(super) fn why(&self, day: Day) -> Option<&str> {
        let date = day.date();
        let nth = self.0.binary_search_by_key(&date, |(date, _)| *date).ok()?;
        self.0.get(nth).map(|(_, why)| why.as_str())
    }

    /// All of them, by date.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Date, &str)> {
        self.0.iter().map(|(date, why)| (*date, why.as_str()))
    }
}
