//! The text of a programme file, field by field. Each table is read by asking for its fields; what was not asked for is
//! unknown and a problem. Reading goes on after a problem, so that one look at a file tells everything.
//!
//! Knows TOML, and nothing about what the fields mean.

use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::{Datetime, Offset};

use super::calendar::Zone;
use super::problems::Problems;
use crate::ids::IdError;
use crate::time::{Date, Timestamp};

/// A value and the byte of the file at which it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) byte: usize,
}

impl<T> Found<T> {
    fn with<U>(&self, value: U) -> Found<U> {
        Found { value, byte: self.byte }
    }
}

/// From when until when a line of a programme holds; without an end, [`Timestamp::NEVER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Effect {
    pub(super) fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

/// A table of the file while its fields are asked for.
#[derive(Debug)]
pub(super) struct Table<'a> {
    entries: &'a DeTable<'a>,
    byte: usize,
    asked: Vec<&'static str>,
}

type Value<'a> = Found<&'a DeValue<'a>>;

impl<'a> Table<'a> {
    /// The file's top level.
    pub(super) fn of_file(entries: &'a DeTable<'a>) -> Self {
        Self { entries, byte: 0, asked: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn byte(&self) -> usize {
        self.byte
    }

    /// Whether the field is there at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        self.entries.get(key).map(found)
    }

    /// A required field's value.
    fn need(&mut self, problems: &mut Problems<'_>, key: &'static str, shape: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            problems.at(self.byte, format!("`{key}` is missing"), format!("add `{key} = {shape}`"));
        }
        value
    }

    /// A required text.
    pub(super) fn text(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        shape: &str,
    ) -> Option<Found<&'a str>> {
        self.need(problems, key, shape).and_then(|value| text(problems, key, value))
    }

    /// A text that may be absent.
    pub(super) fn optional_text(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<Found<&'a str>> {
        self.get(key).and_then(|value| text(problems, key, value))
    }

    /// A required name of the kind `T`.
    pub(super) fn name<T>(&mut self, problems: &mut Problems<'_>, key: &'static str, shape: &str) -> Option<Found<T>>
    where
        T: FromStr<Err = IdError>,
    {
        self.text(problems, key, shape).and_then(|text| name(problems, key, text))
    }

    /// A name that may be absent.
    pub(super) fn optional_name<T>(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<T>
    where
        T: FromStr<Err = IdError>,
    {
        self.optional_text(problems, key).and_then(|text| name(problems, key, text)).map(|name| name.value)
    }

    /// A list of names; empty where the field is absent.
    pub(super) fn names<T>(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Vec<T>
    where
        T: FromStr<Err = IdError>,
    {
        let texts = self.texts(problems, key);
        texts.into_iter().filter_map(|text| name(problems, key, text)).map(|name| name.value).collect()
    }

    /// A list of texts; empty where the field is absent.
    pub(super) fn texts(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Vec<Found<&'a str>> {
        let list = self.list(problems, key);
        list.into_iter().filter_map(|value| text(problems, key, value)).collect()
    }

    /// A list of lists of names; empty where the field is absent.
    pub(super) fn lists_of_names<T>(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Vec<Vec<T>>
    where
        T: FromStr<Err = IdError>,
    {
        let mut lists = Vec::new();
        for inner in self.list(problems, key) {
            let names = list(problems, key, inner).into_iter().filter_map(|value| text(problems, key, value));
            let names: Vec<_> = names.collect();
            lists.push(names.into_iter().filter_map(|text| name(problems, key, text)).map(|name| name.value).collect());
        }
        lists
    }

    /// Whole numbers; empty where the field is absent.
    pub(super) fn integers(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Vec<Found<i64>> {
        let list = self.list(problems, key);
        list.into_iter().filter_map(|value| integer(problems, key, &range, value)).collect()
    }

    /// A whole number that may be absent.
    pub(super) fn optional_integer(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Option<Found<i64>> {
        self.get(key).and_then(|value| integer(problems, key, &range, value))
    }

    /// A required whole number.
    pub(super) fn integer(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Option<Found<i64>> {
        self.need(problems, key, "a whole number").and_then(|value| integer(problems, key, &range, value))
    }

    /// `true` or `false`; `absent` where the field is not there.
    pub(super) fn flag(&mut self, problems: &mut Problems<'_>, key: &'static str, absent: bool) -> bool {
        self.optional_flag(problems, key).unwrap_or(absent)
    }

    /// `true` or `false`, or not there.
    pub(super) fn optional_flag(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.value.as_bool();
        if flag.is_none() {
            wrong(problems, key, value, "`true` or `false`");
        }
        flag
    }

    /// A required civil date.
    pub(super) fn date(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<Found<Date>> {
        let value = self.need(problems, key, "2020-04-15")?;
        let date = value.value.as_datetime().filter(|d| d.time.is_none()).and_then(civil);
        if date.is_none() {
            wrong(problems, key, value, "a date such as 2020-04-15, without quotes");
        }
        date.map(|date| value.with(date))
    }

    /// A required instant: a civil date (its 00:00 in the programme's zone) or a full one with its offset.
    pub(super) fn instant(
        &mut self,
        problems: &mut Problems<'_>,
        key: &'static str,
        zone: &Zone,
    ) -> Option<Found<Timestamp>> {
        self.need(problems, key, "2020-03-09").and_then(|value| instant(problems, key, zone, value))
    }

    /// `from` and, unless it goes on, `until`.
    pub(super) fn effect(&mut self, problems: &mut Problems<'_>, zone: &Zone) -> Option<Effect> {
        let from = self.instant(problems, "from", zone);
        let until = match self.get("until") {
            Some(value) => instant(problems, "until", zone, value)?,
            None => Found { value: Timestamp::NEVER, byte: self.byte },
        };
        let effect = Effect { from: from?.value, until: until.value };
        if effect.from >= effect.until {
            problems.at(
                until.byte,
                "`until` is not after `from`",
                "`until` is the first instant that is no longer inside",
            );
            return None;
        }
        Some(effect)
    }

    /// `from` and `until`, both required.
    pub(super) fn effect_with_end(&mut self, problems: &mut Problems<'_>, zone: &Zone) -> Option<Effect> {
        if !self.has("until") {
            problems.at(self.byte, "`until` is missing", "add `until = 2020-03-12`: an explicit span has an end");
        }
        self.effect(problems, zone)
    }

    /// A table that may be absent.
    pub(super) fn table(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Option<Table<'a>> {
        self.get(key).and_then(|value| table(problems, key, value))
    }

    /// A list of tables; empty where the field is absent.
    pub(super) fn tables(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Vec<Table<'a>> {
        let list = self.list(problems, key);
        list.into_iter().filter_map(|value| table(problems, key, value)).collect()
    }

    /// Everything has been asked for: what is left is unknown.
    pub(super) fn close(self, problems: &mut Problems<'_>) {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let mut known = self.asked.clone();
                known.sort_unstable();
                problems.at(
                    key.span().start,
                    format!("unknown field `{name}`"),
                    format!("remove it, or write one of: {}", known.join(", ")),
                );
            }
        }
    }

    fn list(&mut self, problems: &mut Problems<'_>, key: &'static str) -> Vec<Value<'a>> {
        self.get(key).map(|value| list(problems, key, value)).unwrap_or_default()
    }
}

fn found<'a>(value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
    Found { value: value.get_ref(), byte: value.span().start }
}

fn wrong(problems: &mut Problems<'_>, key: &str, value: Value<'_>, wanted: &str) {
    problems.at(value.byte, format!("`{key}` cannot be read"), format!("write {wanted}"));
}

fn text<'a>(problems: &mut Problems<'_>, key: &str, value: Value<'a>) -> Option<Found<&'a str>> {
    let text = value.value.as_str().map(str::trim).filter(|text| !text.is_empty());
    if text.is_none() {
        wrong(problems, key, value, "a text in quotes");
    }
    text.map(|text| value.with(text))
}

fn name<T: FromStr<Err = IdError>>(problems: &mut Problems<'_>, key: &str, text: Found<&str>) -> Option<Found<T>> {
    match text.value.parse() {
        Ok(name) => Some(text.with(name)),
        Err(error) => {
            problems.at(text.byte, format!("`{key}` cannot be {:?}", text.value), error.to_string());
            None
        }
    }
}

fn integer(
    problems: &mut Problems<'_>,
    key: &str,
    range: &RangeInclusive<i64>,
    value: Value<'_>,
) -> Option<Found<i64>> {
    let number = value.value.as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
    let number = number.filter(|n| range.contains(n));
    if number.is_none() {
        wrong(problems, key, value, &format!("a whole number from {} to {}", range.start(), range.end()));
    }
    number.map(|n| value.with(n))
}

fn list<'a>(problems: &mut Problems<'_>, key: &str, value: Value<'a>) -> Vec<Value<'a>> {
    let list = value.value.as_array();
    if list.is_none() {
        wrong(problems, key, value, "a list in square brackets");
    }
    list.into_iter().flat_map(|list| list.iter()).map(found).collect()
}

fn table<'a>(problems: &mut Problems<'_>, key: &str, value: Value<'a>) -> Option<Table<'a>> {
    let table = value.value.as_table();
    if table.is_none() {
        wrong(problems, key, value, "a table");
    }
    table.map(|entries| Table { entries, byte: value.byte, asked: Vec::new() })
}

fn instant(problems: &mut Problems<'_>, key: &str, zone: &Zone, value: Value<'_>) -> Option<Found<Timestamp>> {
    let at = value.value.as_datetime().and_then(|written| match (civil(written), written.time, written.offset) {
        (Some(date), None, None) => Some(zone.midnight(date)),
        (Some(_), Some(_), Some(Offset::Z | Offset::Custom { .. })) => written.to_string().parse().ok(),
        _ => None,
    });
    if at.is_none() {
        let wanted = "a date such as 2020-03-09 (from 00:00 in the programme's zone) or an instant with its offset such as \
                      2020-03-09T06:00:00+09:00, without quotes";
        wrong(problems, key, value, wanted);
    }
    at.map(|at| value.with(at))
}

fn civil(written: &Datetime) -> Option<Date> {
    let date = written.date?;
    Date::new(i16::try_from(date.year).ok()?, date.month, date.day)
}
