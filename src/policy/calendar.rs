//! Civil days in a programme's zone: what day an instant falls on, when that day begins and ends. The only user of
//! time zones, and of the library that knows them.
//!
//! Knows nothing about rules.

use std::fmt;

use jiff::ToSpan;
use jiff::civil;
use jiff::tz::TimeZone;

use crate::time::{Date, Timestamp};

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Weekday {
    /// Monday.
    Monday = 0,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

impl Weekday {
    /// Monday to Sunday.
    pub const ALL: [Self; 7] =
        [Self::Monday, Self::Tuesday, Self::Wednesday, Self::Thursday, Self::Friday, Self::Saturday, Self::Sunday];

    /// The English name, as a clerk reads it: `Monday`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Monday => "Monday",
            Self::Tuesday => "Tuesday",
            Self::Wednesday => "Wednesday",
            Self::Thursday => "Thursday",
            Self::Friday => "Friday",
            Self::Saturday => "Saturday",
            Self::Sunday => "Sunday",
        }
    }

    /// The day that a programme file means by `mon`, `tue` …
    pub(super) fn from_short(text: &str) -> Option<Self> {
        let short = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        Self::ALL.into_iter().zip(short).find_map(|(day, name)| (name == text).then_some(day))
    }

    /// Days from Monday: 0 to 6.
    pub(super) fn since_monday(self) -> u8 {
        self as u8
    }

    /// How many days `earlier` lies back from this day: 0 to 6.
    fn days_after(self, earlier: Self) -> i64 {
        i64::from((self.since_monday() + 7 - earlier.since_monday()) % 7)
    }
}

impl fmt::Display for Weekday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for Weekday {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A time of day at which a calendar window may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeOfDay(civil::Time);

impl TimeOfDay {
    /// From `HH:MM`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (hour, minute) = text.split_once(':')?;
        let two_digits = |part: &str| (part.len() == 2).then(|| part.parse::<i8>().ok()).flatten();
        civil::Time::new(two_digits(hour)?, two_digits(minute)?, 0, 0).ok().map(Self)
    }

    /// 00:00.
    pub(super) const MIDNIGHT: Self = Self(civil::Time::midnight());
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0.hour(), self.0.minute())
    }
}

/// One civil day, and when it ends in the programme's zone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Day {
    date: civil::Date,
    /// The first instant of the next day.
    pub(super) ends: Timestamp,
}

impl Day {
    /// Its date.
    pub(super) fn date(self) -> Date {
        own(self.date)
    }

    pub(super) fn weekday(self) -> Weekday {
        weekday(self.date)
    }

    /// "Tuesday 10 March".
    pub(super) fn spoken(self) -> String {
        self.date.strftime("%A %-d %B").to_string()
    }
}

/// Which calendar period a window is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Every {
    /// A civil day.
    Day,
    /// Seven civil days beginning with this one.
    Week(Weekday),
    /// A month of the calendar.
    Month,
}

/// A time zone of the programme, by its IANA name.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    zone: TimeZone,
    name: String,
}

/// The library knows the years -9999 to 9999 and the store 48 bits of milliseconds; what lies outside the range that
/// both know with a year to spare is treated as its edge.
const FIRST_MS: i64 = 0;
const LAST_MS: i64 = 253_370_764_800_000; // 9999-01-01T00:00:00Z

fn instant(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.as_millis().clamp(FIRST_MS, LAST_MS)).unwrap_or_default()
}

fn own(date: civil::Date) -> Date {
    // The library's months and days are never negative.
    Date { year: date.year(), month: date.month().unsigned_abs(), day: date.day().unsigned_abs() }
}

fn weekday(date: civil::Date) -> Weekday {
    match date.weekday() {
        civil::Weekday::Monday => Weekday::Monday,
        civil::Weekday::Tuesday => Weekday::Tuesday,
        civil::Weekday::Wednesday => Weekday::Wednesday,
        civil::Weekday::Thursday => Weekday::Thursday,
        civil::Weekday::Friday => Weekday::Friday,
        civil::Weekday::Saturday => Weekday::Saturday,
        civil::Weekday::Sunday => Weekday::Sunday,
    }
}

impl Zone {
    /// `None` if there is no such zone.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(Self { zone: TimeZone::get(name).ok()?, name: name.to_owned() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The civil day of an instant.
    pub(super) fn day(&self, at: Timestamp) -> Day {
        let date = self.zone.to_datetime(instant(at)).date();
        Day { date, ends: self.start(shift(date, 1), TimeOfDay::MIDNIGHT) }
    }

    /// The first instant of a civil date.
    pub(super) fn midnight(&self, date: Date) -> Timestamp {
        let date = civil::Date::new(date.year, date.month.cast_signed(), date.day.cast_signed());
        date.map_or(Timestamp::EPOCH, |date| self.start(date, TimeOfDay::MIDNIGHT))
    }

    /// The first instant of the day that lies `days` after (or, negative, before) `day`.
    pub(super) fn midnight_from(&self, day: Day, days: i64) -> Timestamp {
        self.start(shift(day.date, days), TimeOfDay::MIDNIGHT)
    }

    /// The calendar period that contains `at`: its first instant and the first after it.
    pub(super) fn period(&self, every: Every, start: TimeOfDay, at: Timestamp, day: Day) -> (Timestamp, Timestamp) {
        let first = |date: civil::Date| match every {
            Every::Day => date,
            Every::Week(first) => shift(date, -weekday(date).days_after(first)),
            Every::Month => date.first_of_month(),
        };
        let next = |begin: civil::Date| match every {
            Every::Day => shift(begin, 1),
            Every::Week(_) => shift(begin, 7),
            Every::Month => begin.checked_add(1.month()).unwrap_or(begin),
        };
        // Where a period begins at another hour than midnight, the early hours of its first day belong to the one before.
        let mut begin = first(day.date);
        if at < self.start(begin, start) {
            begin = first(shift(begin, -1));
        }
        (self.start(begin, start), self.start(next(begin), start))
    }

    /// RFC 3339 with the zone's offset then: `2020-03-14T00:00:00+09:00`.
    pub(super) fn local(&self, at: Timestamp) -> String {
        let at = instant(at);
        at.display_with_offset(self.zone.to_offset(at)).to_string()
    }

    /// Without the zone, as the public feed of 2020 wrote it: `2020/03/14 00:00:00`.
    pub(super) fn stamp(&self, at: Timestamp) -> String {
        self.zone.to_datetime(instant(at)).strftime("%Y/%m/%d %H:%M:%S").to_string()
    }

    /// The instant at which a civil time is first reached. A time that a change of clocks skips is reached when the
    /// clocks have jumped; of a time that occurs twice the first counts.
    fn start(&self, date: civil::Date, time: TimeOfDay) -> Timestamp {
        let reached = self.zone.to_ambiguous_timestamp(date.to_datetime(time.0)).compatible();
        let reached = reached.map_or(LAST_MS, jiff::Timestamp::as_millisecond);
        Timestamp::from_millis(reached.clamp(FIRST_MS, LAST_MS))
    }
}

/// The day that lies `days` after a date; the date itself at the ends of the calendar.
fn shift(date: civil::Date, days: i64) -> civil::Date {
    date.checked_add(days.days()).unwrap_or(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_week_in_a_zone_with_summer_time_may_be_an_hour_shorter_or_longer() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let week = |instant: Timestamp| {
            berlin.period(Every::Week(Weekday::Monday), TimeOfDay::MIDNIGHT, instant, berlin.day(instant))
        };
        let (from, until) = week(at("2020-03-29T12:00+02:00"));
        assert_eq!((from, until), (at("2020-03-23T00:00+01:00"), at("2020-03-30T00:00+02:00")));
        assert_eq!(until.since(from).as_secs(), 7 * 86_400 - 3_600);
        let (from, until) = week(at("2020-10-25T12:00+01:00"));
        assert_eq!(until.since(from).as_secs(), 7 * 86_400 + 3_600);
    }

    #[test]
    fn a_period_may_begin_at_any_day_and_hour() {
        let seoul = Zone::named("Asia/Seoul").unwrap();
        let six = TimeOfDay::parse("06:00").unwrap();
        let period = |every, instant: &str| seoul.period(every, six, at(instant), seoul.day(at(instant)));
        let thursday = Every::Week(Weekday::Thursday);
        assert_eq!(
            period(thursday, "2020-03-12T05:59:59.999+09:00"),
            (at("2020-03-05T06:00+09:00"), at("2020-03-12T06:00+09:00"))
        );
        assert_eq!(period(thursday, "2020-03-12T06:00+09:00").0, at("2020-03-12T06:00+09:00"));
        assert_eq!(
            period(Every::Month, "2020-03-01T01:00+09:00"),
            (at("2020-02-01T06:00+09:00"), at("2020-03-01T06:00+09:00"))
        );
        assert_eq!(period(Every::Day, "2020-03-01T01:00+09:00").0, at("2020-02-29T06:00+09:00"));
    }

    #[test]
    fn a_day_without_midnight_begins_when_the_clocks_have_jumped() {
        let sao_paulo = Zone::named("America/Sao_Paulo").unwrap();
        let day = sao_paulo.day(at("2018-11-04T12:00-02:00"));
        let begins = sao_paulo.midnight_from(day, 0);
        assert_eq!(begins, at("2018-11-04T01:00-02:00"));
        assert_eq!(day.ends.since(begins).as_secs(), 23 * 3_600);
    }

    #[test]
    fn the_ends_of_time_have_days_too() {
        let zone = Zone::named("Asia/Seoul").unwrap();
        for at in [Timestamp::EPOCH, Timestamp::from_millis(-5), Timestamp::NEVER] {
            let day = zone.day(at);
            assert!(zone.midnight_from(day, 0) < day.ends);
            assert!(!zone.local(at).is_empty());
        }
    }

    #[test]
    fn a_time_of_day_has_two_digits_on_either_side() {
        assert!(TimeOfDay::parse("06:00").is_some());
        for bad in ["6:00", "24:00", "06:60", "06", "-1:00", "06:00:00"] {
            assert!(TimeOfDay::parse(bad).is_none(), "{bad}");
        }
    }
}
