//! Settings by path, gathered from a TOML file and from whatever stands above it, each with the place it came from, so
//! that every problem can be told at once and at its place.
//!
//! Knows nothing about which settings there are. No message here repeats a value: it may be a password or a key.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::{ConfigError, ConfigErrors};

/// Settings that have not been asked for yet, and the problems found so far.
pub(super) struct Settings {
    /// The name of the file, for fields that are missing from it.
    file: String,
    leaves: BTreeMap<Vec<String>, Setting>,
    /// Each with its line in the file, if it has one.
    problems: Vec<(Option<usize>, ConfigError)>,
}

/// A value and where it stands.
struct Setting {
    value: Value,
    origin: Origin,
}

/// A value as far as settings need to tell values apart. Texts are wiped on drop.
enum Value {
    Text(Zeroizing<String>),
    Integer(i64),
    Bool(bool),
    /// A section with nothing in it.
    Empty,
    /// A kind of value that no setting has.
    Other,
    /// From the environment or the command line, where everything is text.
    Untyped(Zeroizing<String>),
}

/// Where a setting was written.
enum Origin {
    File {
        line: usize,
    },
    /// A variable or a flag.
    Above {
        name: String,
    },
}

impl Settings {
    /// No file: every field has its default unless something above says otherwise.
    pub(super) fn none() -> Self {
        Self { file: String::new(), leaves: BTreeMap::new(), problems: Vec::new() }
    }

    /// From the text of a TOML file; `file` names it in messages.
    pub(super) fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let line_of = |byte: usize| text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1;
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let problems = errors.iter().map(|error| {
                let line = error.span().map_or(1, |span| line_of(span.start));
                ConfigError::new(format!("{file}:{line}"), format!("not TOML: {}", error.message()))
            });
            return Err(ConfigErrors(problems.collect()));
        }
        let mut settings = Self { file: file.to_owned(), ..Self::none() };
        settings.flatten(&mut Vec::new(), table.get_ref(), &line_of);
        Ok(settings)
    }

    fn flatten(&mut self, path: &mut Vec<String>, table: &DeTable<'_>, line_of: &dyn Fn(usize) -> usize) {
        for (key, value) in table {
            path.push(key.get_ref().clone().into_owned());
            let leaf = match value.get_ref() {
                DeValue::Table(section) if section.is_empty() => Value::Empty,
                DeValue::Table(section) => {
                    self.flatten(path, section, line_of);
                    path.pop();
                    continue;
                }
                DeValue::String(text) => Value::Text(Zeroizing::new(text.clone().into_owned())),
                DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => Value::Other,
                },
                DeValue::Boolean(flag) => Value::Bool(*flag),
                DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) => Value::Other,
            };
            let origin = Origin::File { line: line_of(key.span().start) };
            self.leaves.insert(path.clone(), Setting { value: leaf, origin });
            path.pop();
        }
    }

    /// Puts a value from the environment or the command line in the place of whatever the field had. `name` is the
    /// variable's or the flag's.
    pub(super) fn override_with(&mut self, path: Vec<String>, name: &str, value: String) {
        let value = Value::Untyped(Zeroizing::new(value));
        self.leaves.insert(path, Setting { value, origin: Origin::Above { name: name.to_owned() } });
    }

    /// Notes a problem at a place of the caller's choosing.
    pub(super) fn problem(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        self.problems.push((None, ConfigError::new(place, problem)));
    }

    /// Whether the field, or any field below it, is written anywhere.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        self.leaves.keys().any(|leaf| starts_with(leaf, path))
    }

    /// The fields below a section whose names the file's author chooses.
    pub(super) fn names_below(&self, section: &[&str]) -> Vec<String> {
        let below = self.leaves.keys().filter(|leaf| leaf.len() == section.len() + 1 && starts_with(leaf, section));
        below.filter_map(|leaf| leaf.last().cloned()).collect()
    }

    /// Whether anything has been found wrong so far.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Takes a field and notes that it cannot be, whatever its value.
    pub(super) fn refuse(&mut self, path: &[&str], problem: String) {
        self.take(path, |_| Err::<(), _>(problem));
    }

    /// Takes a text and makes something of it. `None` if it is not written, or is noted as a problem.
    pub(super) fn text<T, E: fmt::Display>(
        &mut self,
        path: &[&str],
        make: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.take(path, |value| match value {
            Value::Text(text) | Value::Untyped(text) => make(text).map_err(|error| error.to_string()),
            _ => Err("must be a text in double quotes".to_owned()),
        })
    }

    /// Takes a whole number of the range, which ends are allowed.
    pub(super) fn number<T: TryFrom<i64> + Copy + Into<i64>>(&mut self, path: &[&str], least: T, most: T) -> Option<T> {
        let (low, high): (i64, i64) = (least.into(), most.into());
        self.take(path, |value| {
            let number = match value {
                Value::Integer(number) => Some(*number),
                Value::Untyped(text) => text.trim().parse().ok(),
                _ => None,
            };
            let number =
                number.filter(|number| (low..=high).contains(number)).and_then(|number| T::try_from(number).ok());
            number.ok_or_else(|| format!("must be a whole number from {low} to {high}"))
        })
    }

    /// Takes `true` or `false`.
    pub(super) fn flag(&mut self, path: &[&str]) -> Option<bool> {
        self.take(path, |value| match value {
            Value::Bool(flag) => Ok(*flag),
            Value::Untyped(text) if text.as_str() == "true" => Ok(true),
            Value::Untyped(text) if text.as_str() == "false" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })
    }

    fn problem_with(&mut self, origin: &Origin, path: &[String], problem: String) {
        match origin {
            Origin::File { line } => {
                let place = format!("{}:{line}: {}", self.file, path.join("."));
                self.problems.push((Some(*line), ConfigError::new(place, problem)));
            }
            Origin::Above { name } => self.problem(name, problem),
        }
    }

    /// Notes a problem with a field of the file as a whole, when its line is no longer known.
    pub(super) fn problem_at(&mut self, field: &str, problem: impl Into<String>) {
        self.problem(format!("{}: {field}", self.file), problem);
    }

    /// Notes that a field without a default is not written.
    pub(super) fn missing(&mut self, path: &[&str], remedy: &str) {
        self.problem_at(&path.join("."), format!("is missing: {remedy}"));
    }

    fn take<T>(&mut self, path: &[&str], make: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        let setting = self.leaves.remove(&path)?;
        match make(&setting.value) {
            Ok(made) => Some(made),
            Err(problem) => {
                self.problem_with(&setting.origin, &path, problem);
                None
            }
        }
    }

    /// Every problem, with the fields that nobody asked for among them. `sections` are the sections that exist.
    pub(super) fn finish(mut self, sections: &[&[&str]]) -> Result<(), ConfigErrors> {
        for (path, setting) in std::mem::take(&mut self.leaves) {
            let is_section = sections.iter().any(|section| path.iter().eq(*section));
            let problem = match (is_section, &setting.value) {
                (true, Value::Empty) => continue,
                (true, _) => format!("is a section: write [{}] and its fields below it", path.join(".")),
                (false, _) => "is not a setting: correct its spelling or remove it".to_owned(),
            };
            self.problem_with(&setting.origin, &path, problem);
        }
        // In the order of the file, then what has no line: the reader goes through the file once.
        self.problems.sort_by_key(|(line, _)| line.unwrap_or(usize::MAX));
        let problems: Vec<_> = self.problems.into_iter().map(|(_, problem)| problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigErrors(problems)) }
    }
}

fn starts_with(leaf: &[String], path: &[&str]) -> bool {
    leaf.len() >= path.len() && leaf.iter().zip(path).all(|(have, want)| have == want)
}
