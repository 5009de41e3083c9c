//! A scenario's fields by path, each with its line, so that every problem is told at once and at its place.
//!
//! Knows nothing about which fields there are.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a scenario, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {field}: {problem}")]
pub struct ScenarioError {
    /// The file, as it was named to us.
    pub file: String,
    /// Its line, counted from 1.
    pub line: usize,
    /// The field's path, "scenario" where it is about the whole.
    pub field: String,
    /// What is wrong there, and what would be right.
    pub problem: String,
}

/// Everything that is wrong with a scenario, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioErrors(
    /// At least one.
    pub Vec<ScenarioError>,
);

/// One problem to a line.
impl fmt::Display for ScenarioErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, error) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ScenarioErrors {}

/// Fields that have not been asked for yet, and the problems found so far. The index of a table in an array is a part of its
/// path, counted from 1: `phases.2.rate`.
pub(super) struct Reader {
    file: String,
    fields: BTreeMap<String, (usize, Value)>,
    /// Where each table begins, for fields that are missing from it.
    tables: BTreeMap<String, usize>,
    problems: Vec<ScenarioError>,
}

enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Other,
}

impl Reader {
    /// From the text of a TOML file.
    pub(super) fn parse(text: &str, file: &str) -> Result<Self, ScenarioErrors> {
        let line_of = |byte: usize| text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1;
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut reader =
            Self { file: file.to_owned(), fields: BTreeMap::new(), tables: BTreeMap::new(), problems: Vec::new() };
        for error in &errors {
            let line = error.span().map_or(1, |span| line_of(span.start));
            reader.problem(line, "scenario", format!("this is not TOML: {}", error.message()));
        }
        if errors.is_empty() {
            reader.flatten("", table.get_ref(), &line_of);
        }
        if reader.problems.is_empty() { Ok(reader) } else { Err(ScenarioErrors(reader.problems)) }
    }

    fn flatten(&mut self, above: &str, table: &DeTable<'_>, line_of: &dyn Fn(usize) -> usize) {
        for (key, value) in table {
            let name = key.get_ref();
            let path = if above.is_empty() { name.to_string() } else { format!("{above}.{name}") };
            let line = line_of(key.span().start);
            let leaf = match value.get_ref() {
                DeValue::Table(inner) => {
                    self.tables.insert(path.clone(), line);
                    self.flatten(&path, inner, line_of);
                    continue;
                }
                DeValue::Array(items) if items.iter().all(|item| matches!(item.get_ref(), DeValue::Table(_))) => {
                    for (nth, item) in (1..).zip(items) {
                        if let DeValue::Table(inner) = item.get_ref() {
                            let path = format!("{path}.{nth}");
                            self.tables.insert(path.clone(), line_of(item.span().start));
                            self.flatten(&path, inner, line_of);
                        }
                    }
                    continue;
                }
                DeValue::String(text) => Value::Text(text.clone().into_owned()),
                DeValue::Integer(digits) => {
                    i64::from_str_radix(digits.as_str(), digits.radix()).map_or(Value::Other, Value::Integer)
                }
                DeValue::Float(digits) => digits.as_str().parse().map_or(Value::Other, Value::Float),
                DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) => Value::Other,
            };
            self.fields.insert(path, (line, leaf));
        }
    }

    /// Notes a problem.
    pub(super) fn problem(&mut self, line: usize, field: &str, problem: impl Into<String>) {
        let (file, field, problem) = (self.file.clone(), field.to_owned(), problem.into());
        self.problems.push(ScenarioError { file, line, field, problem });
    }

    /// Whether a table, or a field of it, is written.
    pub(super) fn has(&self, path: &str) -> bool {
        self.line(path).is_some()
    }

    /// The line of a field, or of the table that it is.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        let field = self.fields.get(path).map(|(line, _)| *line);
        field.or_else(|| self.tables.get(path).copied()).or_else(|| {
            let below = format!("{path}.");
            self.tables.iter().find(|(table, _)| table.starts_with(&below)).map(|(_, line)| *line)
        })
    }

    /// The names of the fields of a table whose author chooses them, each with its line.
    pub(super) fn names(&self, table: &str) -> Vec<(String, usize)> {
        let below = Range { start: format!("{table}."), end: format!("{table}/") };
        let fields = self.fields.range(below).map(|(path, (line, _))| (path, line));
        fields.filter_map(|(path, line)| Some((path.strip_prefix(table)?.get(1..)?.to_owned(), *line))).collect()
    }

    /// How many tables an array has.
    pub(super) fn count(&self, array: &str) -> usize {
        (1..).take_while(|nth| self.tables.contains_key(&format!("{array}.{nth}"))).count()
    }

    /// A text, made into something; `None` if it is not written, or is noted as a problem.
    pub(super) fn text<T, E: fmt::Display>(
        &mut self,
        path: &str,
        make: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(path, |value| match value {
            Value::Text(text) => make(text).map_err(|error| error.to_string()),
            _ => Err("must be a text in double quotes".to_owned()),
        })
    }

    /// A whole number of the range, whose ends are allowed.
    pub(super) fn whole<T: TryFrom<i64>>(&mut self, path: &str, least: i64, most: i64) -> Option<T> {
        self.take(path, |value| {
            let number = match value {
                Value::Integer(number) if (least..=most).contains(number) => T::try_from(*number).ok(),
                _ => None,
            };
            number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
        })
    }

    /// A number of the range, whose ends are allowed.
    pub(super) fn number(&mut self, path: &str, least: f64, most: f64) -> Option<f64> {
        self.take(path, |value| {
            let number = match value {
                #[expect(clippy::cast_precision_loss, reason = "the limits are far below what a float holds exactly")]
                Value::Integer(number) => Some(*number as f64),
                Value::Float(number) => Some(*number),
                _ => None,
            };
            let number = number.filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| format!("must be a number from {least} to {most}"))
        })
    }

    /// Notes that a field without a default is not written; the line is that of its table.
    pub(super) fn missing(&mut self, path: &str, remedy: &str) {
        let problems = &self.problems;
        if problems.iter().any(|problem| problem.field == path) {
            return;
        }
        let table = path.rsplit_once('.').map(|(table, _)| table);
        let line = table.and_then(|table| self.line(table)).unwrap_or(1);
        self.problem(line, path, format!("is missing: {remedy}"));
    }

    fn take<T>(&mut self, path: &str, make: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let (line, value) = self.fields.remove(path)?;
        match make(&value) {
            Ok(made) => Some(made),
            Err(problem) => {
                self.problem(line, path, problem);
                None
            }
        }
    }

    /// Every field that nobody asked for is a problem too. What was made is good only if there is none at all.
    pub(super) fn finish<T>(mut self, made: Option<T>) -> Result<T, ScenarioErrors> {
        for (path, (line, _)) in std::mem::take(&mut self.fields) {
            self.problem(line, &path, "there is no such field; the README lists those that there are");
        }
        self.problems.sort_by_key(|problem| problem.line);
        match made {
            Some(made) if self.problems.is_empty() => Ok(made),
            _ => {
                if self.problems.is_empty() {
                    self.problem(1, "scenario", "is not complete");
                }
                Err(ScenarioErrors(self.problems))
            }
        }
    }
}
