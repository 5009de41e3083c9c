//! What is wrong with programme files: every problem names its file, its line and the remedy, and all that can be
//! found at once are told at once.

use std::fmt;

/// One thing that is wrong with a programme file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file, as the reader of the message knows it.
    pub source: String,
    /// The line, counted from 1; `None` where no single line is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

/// Everything that is wrong with one or several programme files, in order of file and line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(pub(super) Vec<PolicyError>);

impl PolicyErrors {
    /// The problems, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &PolicyError> {
        self.0.iter()
    }
}

/// One problem a line.
impl fmt::Display for PolicyErrors {
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

impl std::error::Error for PolicyErrors {}

/// Collects the problems of one file while it is read.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    source: &'a str,
    text: &'a str,
    found: Vec<PolicyError>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(source: &'a str, text: &'a str) -> Self {
        Self { source, text, found: Vec::new() }
    }

    /// Notes a problem that begins at this byte of the file.
    pub(super) fn at(&mut self, byte: usize, what: impl Into<String>, remedy: impl Into<String>) {
        let line = self.text.as_bytes().iter().take(byte).filter(|&&b| b == b'\n').count() + 1;
        self.note(Some(line), what.into(), remedy.into());
    }

    /// Notes a problem of the file as a whole.
    pub(super) fn of_file(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.note(None, what.into(), remedy.into());
    }

    fn note(&mut self, line: Option<usize>, what: String, remedy: String) {
        self.found.push(PolicyError { source: self.source.to_owned(), line, what, remedy });
    }

    /// The value, if nothing was wrong.
    pub(super) fn unless_any<T>(mut self, value: Option<T>) -> Result<T, PolicyErrors> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => {
                self.found.sort_by_key(|e| e.line);
                Err(PolicyErrors(self.found))
            }
        }
    }
}
