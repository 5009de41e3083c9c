//! The import table and the fences, read from text that reads like the design.

use crate::tidy::source::{Named, Source, lex};

/// A path, one word per module.
type Path = Vec<String>;

fn begins_with(path: &[String], prefix: &[String]) -> bool {
    path.len() >= prefix.len() && path[..prefix.len()] == *prefix
}

/// `a, b::{c, d}` as paths.
fn paths(text: &str) -> Vec<Path> {
    let source = Source::new("table.rs", &format!("use {{{text}}};"));
    source.outer_paths().into_iter().map(|named| named.path).collect()
}

/// The rows of a table: line number, left side, right side.
fn rows(text: &str, first_line: usize) -> Vec<(usize, &str, &str)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let (left, right) = line.split_once('→').unwrap_or_else(|| panic!("a row without an arrow: {line}"));
            (first_line + at, left.trim(), right.trim())
        })
        .collect()
}

struct Row {
    line: usize,
    from: Path,
    to: Vec<Path>,
    text: String,
}

/// Who may import whom.
pub struct Imports(Vec<Row>);

impl Imports {
    /// From text whose first line is line `first_line` of `tests/tidy.rs`.
    pub fn parse(text: &str, first_line: usize) -> Self {
        let row = |(line, from, to): (usize, &str, &str)| Row {
            line,
            from: from.split("::").map(str::to_owned).collect(),
            to: paths(to),
            text: to.to_owned(),
        };
        Self(rows(text, first_line).into_iter().map(row).collect())
    }

    /// The longest row name that a path lies under.
    fn house(&self, path: &[String]) -> Option<&Path> {
        let rows = self.0.iter().map(|row| &row.from).filter(|from| begins_with(path, from));
        rows.max_by_key(|from| from.len())
    }

    fn allows(&self, row: &Row, house: &Path, path: &[String]) -> bool {
        row.to.iter().any(|to| begins_with(path, to) && self.house(to) == Some(house))
    }

    /// Imports of this file that no row allows.
    pub fn violations(&self, source: &Source) -> Vec<String> {
        // The library's root only declares.
        let Some(top) = source.module.first() else { return Vec::new() };
        let Some(own) = self.house(&source.module) else {
            return vec![format!("src/{}: the table in tests/tidy.rs has no row for {top}", source.path)];
        };
        let rows: Vec<&Row> = self.0.iter().filter(|row| row.from == *own || row.from == ["anyone"]).collect();
        let violation = |named: Named| {
            let house = self.house(&named.path);
            let allowed = house == Some(own)
                || house.is_some_and(|house| rows.iter().any(|row| self.allows(row, house, &named.path)));
            let mine = rows.iter().find(|row| row.from == *own)?;
            (!allowed).then(|| {
                format!(
                    "src/{}:{}: {} imports {}; tests/tidy.rs:{} allows `{}`",
                    source.path,
                    named.line,
                    own.join("::"),
                    named.path.join("::"),
                    mine.line,
                    mine.text
                )
            })
        };
        source.inner_paths().into_iter().filter_map(violation).collect()
    }
}

struct Fence {
    line: usize,
    names: Vec<Path>,
    places: Vec<String>,
    text: String,
}

impl Fence {
    fn holds(&self, path: &str) -> bool {
        let at = |place: &String| if place.ends_with('/') { path.starts_with(place.as_str()) } else { path == place };
        self.places.iter().any(at)
    }

    fn names(&self, named: &Named) -> Option<String> {
        self.names.iter().find(|name| begins_with(&named.path, name)).map(|name| name.join("::"))
    }
}

/// Where outside crates may be named, and where they may not.
pub struct Fences {
    homes: Vec<Fence>,
    pure: Vec<Fence>,
}

impl Fences {
    /// `homes` has names on the left and places on the right; `pure` has places that must not name what is on the right.
    pub fn parse(homes: &str, homes_line: usize, pure: &str, pure_line: usize) -> Self {
        let fence = |line, names: &str, places: &str| Fence {
            line,
            names: paths(names),
            places: places.split_whitespace().map(str::to_owned).collect(),
            text: places.to_owned(),
        };
        Self {
            homes: rows(homes, homes_line)
                .into_iter()
                .map(|(line, names, places)| fence(line, names, places))
                .collect(),
            pure: rows(pure, pure_line).into_iter().map(|(line, places, names)| fence(line, names, places)).collect(),
        }
    }

    /// What this file names and must not.
    pub fn violations(&self, source: &Source) -> Vec<String> {
        let mut findings = Vec::new();
        for named in source.outer_paths() {
            let place = format!("src/{}:{}: names {}", source.path, named.line, named.path.join("::"));
            for fence in self.homes.iter().filter(|fence| !fence.holds(&source.path)) {
                if let Some(name) = fence.names(&named) {
                    findings.push(format!("{place}; tests/tidy.rs:{} keeps {name} in `{}`", fence.line, fence.text));
                }
            }
            for fence in self.pure.iter().filter(|fence| fence.holds(&source.path)) {
                if let Some(name) = fence.names(&named) {
                    findings.push(format!("{place}; tests/tidy.rs:{} keeps {name} out of what is pure", fence.line));
                }
            }
        }
        findings
    }
}

/// A table is read by the same eyes as the sources.
#[test]
fn a_table_is_read_as_it_reads() {
    assert_eq!(paths("a, b::{c, d}"), [vec!["a"], vec!["b", "c"], vec!["b", "d"]]);
    assert_eq!(paths(""), Vec::<Path>::new());
    assert_eq!(lex("a::b").len(), 3);
}
