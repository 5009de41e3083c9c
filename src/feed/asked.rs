//! What somebody asks, and what they are told when it cannot be answered: which parameter, and what to write instead.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::Query;
use axum::http::{StatusCode, Uri};

/// The longest text that is looked at, in characters: that of the longest address.
const MOST_CHARACTERS: usize = 200;

/// Why a question is not answered.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// The parameter that is to be written otherwise; `None`: it is about the whole.
    pub(super) parameter: Option<String>,
    /// What is wrong, and what to write instead.
    pub(super) problem: String,
}

impl Problem {
    /// The parameter is not right.
    pub(super) fn bad(parameter: &str, problem: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, parameter: Some(parameter.to_owned()), problem: problem.into() }
    }

    /// What the parameter names does not exist.
    pub(super) fn unknown(parameter: &str, problem: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, ..Self::bad(parameter, problem) }
    }

    /// It is about the whole request.
    pub(super) fn of_whole(status: StatusCode, problem: &str) -> Self {
        Self { status, parameter: None, problem: problem.to_owned() }
    }
}

/// The parameters that nobody has looked at yet.
#[derive(Debug)]
pub(super) struct Asked(Vec<(String, String)>);

impl Asked {
    /// Of this address.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let unreadable = |_| Problem::of_whole(StatusCode::BAD_REQUEST, "write the query as name=value&name=value");
        Query::try_from_uri(uri).map(|Query(pairs)| Self(pairs)).map_err(unreadable)
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(named, _)| named == name)
    }

    /// The text of this name.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut found: Vec<_> = self.0.extract_if(.., |(named, _)| named == name).map(|(_, value)| value).collect();
        match (found.pop(), found.is_empty()) {
            (Some(_), false) => Err(Problem::bad(name, "is given more than once; write it once")),
            (Some(text), _) if text.trim().is_empty() => {
                Err(Problem::bad(name, "is empty; write a value or leave it out"))
            }
            (Some(text), _) if text.chars().count() > MOST_CHARACTERS => {
                Err(Problem::bad(name, format!("is longer than {MOST_CHARACTERS} characters; shorten it")))
            }
            (text, _) => Ok(text),
        }
    }

    /// The same, where there must be one; `such_as` shows how it is written.
    pub(super) fn required(&mut self, name: &'static str, such_as: &str) -> Result<String, Problem> {
        self.text(name)?.ok_or_else(|| Problem::bad(name, format!("is missing; write {name}={such_as}")))
    }

    /// The number of this name.
    pub(super) fn number<N>(&mut self, name: &'static str, within: RangeInclusive<N>) -> Result<Option<N>, Problem>
    where
        N: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number = text.trim().parse().ok().filter(|number| within.contains(number));
        let remedy = || format!("must be a number from {} to {}", within.start(), within.end());
        number.map(Some).ok_or_else(|| Problem::bad(name, remedy()))
    }

    /// The same, where there must be one.
    pub(super) fn measure(&mut self, name: &'static str, within: RangeInclusive<f64>) -> Result<f64, Problem> {
        let remedy = format!("is missing; write a number from {} to {}", within.start(), within.end());
        self.number(name, within)?.ok_or_else(|| Problem::bad(name, remedy))
    }

    /// Nothing may be left: who has mistyped a name is not to get everything instead of what was meant.
    pub(super) fn done(self, known: &[&str]) -> Result<(), Problem> {
        let Some((name, _)) = self.0.into_iter().next() else { return Ok(()) };
        let name: String = name.chars().take(MOST_CHARACTERS).collect();
        let problem = match known {
            [] => "is not a parameter of this; there are none".to_owned(),
            _ => format!("is not a parameter of this; there are: {}", known.join(", ")),
        };
        Err(Problem::bad(&name, problem))
    }
}
