//! Time as the service knows it: instants in milliseconds, and the clock that gives them. The only caller of the
//! system clock.
//!
//! Knows nothing about calendars: what day it is somewhere is for `policy::calendar`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// An instant: milliseconds since 1970-01-01T00:00:00Z. One millisecond is the ledger's grain; window boundaries are
/// exact to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant that a stored entry can hold.
    pub const EPOCH: Self = Self(0);
    /// Later than any instant a rule or an entry can name (the store keeps 48 bits): "no end".
    pub const NEVER: Self = Self((1 << 48) - 1);

    /// From milliseconds since 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant and so much more, at most [`Timestamp::NEVER`].
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))).min(Self::NEVER)
    }

    /// This instant less so much, at least [`Timestamp::EPOCH`].
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))).max(Self::EPOCH)
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The month in UTC that this instant lies in.
    pub fn month(self) -> Month {
        let instant = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        let date = instant.to_zoned(jiff::tz::TimeZone::UTC).date();
        Month { year: date.year(), month: date.month() }
    }
}

/// RFC 3339 in UTC with milliseconds: `2020-03-11T00:00:00.000Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Why a text is not an instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an instant: {0:?}; write it with its offset, such as 2020-03-11T09:00:00+09:00")]
pub struct NotAnInstant(String);

/// From RFC 3339 with an offset; seconds may be left out (`2020-03-10T10:00+09:00`).
impl FromStr for Timestamp {
    type Err = NotAnInstant;

    fn from_str(text: &str) -> Result<Self, NotAnInstant> {
        text.parse::<jiff::Timestamp>()
            .map(|instant| Self(instant.as_millisecond()))
            .ok()
            .filter(|at| (Self::EPOCH..Self::NEVER).contains(at))
            .ok_or_else(|| NotAnInstant(text.chars().take(64).collect()))
    }
}

/// A civil date without a zone, as written on a calendar or in a registered number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Year of the common era.
    pub year: i16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

impl Date {
    /// `None` where the calendar has no such day.
    pub fn new(year: i16, month: u8, day: u8) -> Option<Self> {
        jiff::civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok().map(|_| Self {
            year,
            month,
            day,
        })
    }
}

/// Why a text is not a date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a date: {0:?}; write it as 2020-03-14")]
pub struct NotADate(String);

/// From ISO 8601: `2020-03-14`.
impl FromStr for Date {
    type Err = NotADate;

    fn from_str(text: &str) -> Result<Self, NotADate> {
        let date = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 10);
        let parts = date.and_then(|d| Some((d.year(), u8::try_from(d.month()).ok()?, u8::try_from(d.day()).ok()?)));
        parts
            .map(|(year, month, day)| Self { year, month, day })
            .ok_or_else(|| NotADate(text.chars().take(64).collect()))
    }
}

/// ISO 8601: `2020-03-14`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A calendar month in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i16,
    month: i8,
}

impl Month {
    /// The first instant after this month and so many more; [`Timestamp::NEVER`] where the calendar ends.
    pub fn end_after(self, months: u32) -> Timestamp {
        let first = jiff::civil::date(self.year, self.month, 1);
        let span = jiff::Span::new().try_months(i64::from(months) + 1);
        let end = span.and_then(|span| first.checked_add(span)).and_then(|end| end.to_zoned(jiff::tz::TimeZone::UTC));
        end.map_or(Timestamp::NEVER, |end| Timestamp(end.timestamp().as_millisecond()).min(Timestamp::NEVER))
    }
}

/// Why a text is not a month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a month: {0:?}; write it as 2020-03")]
pub struct NotAMonth(String);

/// From ISO 8601: `2020-03`.
impl FromStr for Month {
    type Err = NotAMonth;

    fn from_str(text: &str) -> Result<Self, NotAMonth> {
        let date = format!("{text}-01").parse::<jiff::civil::Date>().ok().filter(|_| text.len() == 7);
        date.map(|d| Self { year: d.year(), month: d.month() })
            .ok_or_else(|| NotAMonth(text.chars().take(64).collect()))
    }
}

/// ISO 8601: `2020-03`.
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// Where a part of the service gets its time from. Everything that decides takes the time as an argument; the use
/// cases and the edges hold a clock.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The civil time that rules and records go by.
    fn now(&self) -> Timestamp;

    /// Time that only ever goes forward at the rate of the machine, counted from an arbitrary start: for leases and
    /// freshness, never for records.
    fn monotonic(&self) -> Duration;

    /// Whether `now` is made up. Receipts given under such a clock say so.
    fn is_simulated(&self) -> bool;
}

/// The machine's clock, or one that was set to another instant when the process started and runs from there.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: std::time::Instant,
    shift_ms: Option<i64>,
}

#[expect(clippy::disallowed_methods, reason = "the one place that may ask the system")]
fn system_now() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the one place that may ask the system")]
fn system_instant() -> std::time::Instant {
    std::time::Instant::now()
}

impl SystemClock {
    /// The machine's own time.
    pub fn real() -> Self {
        Self { started: system_instant(), shift_ms: None }
    }

    /// A simulated clock: it shows `start` now and runs on at the machine's rate. For development only.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { started: system_instant(), shift_ms: Some(start.as_millis() - system_now()) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(system_now() + self.shift_ms.unwrap_or(0))
    }

    fn monotonic(&self) -> Duration {
        system_instant().duration_since(self.started)
    }

    fn is_simulated(&self) -> bool {
        self.shift_ms.is_some()
    }
}

/// A clock that stands still until it is moved; all clones show the same time. Monotonic time is the machine's, so
/// that leases and deadlines behave while civil time is held.
#[derive(Debug, Clone)]
pub struct ManualClock {
    now_ms: Arc<AtomicI64>,
    machine: SystemClock,
}

impl ManualClock {
    /// Shows `start` until [`ManualClock::set`] is called.
    pub fn new(start: Timestamp) -> Self {
        Self { now_ms: Arc::new(AtomicI64::new(start.as_millis())), machine: SystemClock::real() }
    }

    /// Moves every clone to `now`, forwards or backwards: a server's clock can step.
    pub fn set(&self, now: Timestamp) {
        self.now_ms.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_with_their_offset_and_shown_in_utc() {
        let at: Timestamp = "2020-03-11T09:00:00+09:00".parse().unwrap();
        assert_eq!(at.to_string(), "2020-03-11T00:00:00.000Z");
        assert_eq!("2020-03-11T09:00+09:00".parse::<Timestamp>().unwrap(), at);
        for bad in ["2020-03-11", "2020-03-11T09:00:00", "yesterday", "", "1969-12-31T23:59:59Z"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn there_is_no_thirtieth_of_february() {
        assert!(Date::new(2020, 2, 29).is_some());
        assert!(Date::new(2021, 2, 29).is_none());
        assert!(Date::new(2020, 2, 30).is_none());
    }

    #[test]
    fn a_month_is_kept_until_so_many_have_followed_it() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let month = at("2024-12-31T23:59:59.999Z").month();
        assert_eq!((month.to_string(), "2024-12".parse()), ("2024-12".to_owned(), Ok(month)));
        assert_eq!(month.end_after(0), at("2025-01-01T00:00:00Z"));
        assert_eq!(month.end_after(24), at("2027-01-01T00:00:00Z"));
        assert_eq!(month.end_after(u32::MAX), Timestamp::NEVER);
        for bad in ["2024-13", "2024-1", "24-01", "", "2024-01-01"] {
            assert!(bad.parse::<Month>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_simulated_clock_runs_and_says_so() {
        let start: Timestamp = "2020-03-11T09:00:00+09:00".parse().unwrap();
        let clock = SystemClock::starting_at(start);
        assert!(clock.is_simulated() && !SystemClock::real().is_simulated());
        assert!(clock.now().since(start) < Duration::from_secs(5));
    }
}
