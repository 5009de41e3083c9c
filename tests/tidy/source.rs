//! Enough of Rust's grammar to see which paths a file names: tokens, test-only items, use trees.

/// A word, a sign, or a literal (whose text is kept out).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The word or sign; `""` with its quotes for every literal in quotes. `::` is one sign.
    pub text: String,
    /// Line of the file, from 1.
    pub line: usize,
}

/// A path that a file names, with groups written out: `use a::{b, c}` is two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub path: Vec<String>,
    pub line: usize,
}

/// A source file of the crate, without the items that only tests compile.
pub struct Source {
    /// Path under `src/`.
    pub path: String,
    /// The module that the file is; `main` for the binary, empty for the library's root.
    pub module: Vec<String>,
    tokens: Vec<Token>,
    test_modules: Vec<String>,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The text in tokens; comments and the inside of literals are gone.
pub fn lex(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let begun = i;
        let mut token = None;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            '"' => {
                i = after_string(&chars, i + 1);
                token = Some("\"\"".to_owned());
            }
            // A character, or a lifetime, whose name is a token of no interest.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
                token = Some("\"\"".to_owned());
            }
            '\'' if at(i + 2) == '\'' => {
                i += 3;
                token = Some("\"\"".to_owned());
            }
            '\'' => i += 1,
            c if c.is_alphanumeric() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = chars[begun..i].iter().collect();
                let hashes = (i..).take_while(|i| at(*i) == '#').count();
                if ["r", "br", "cr"].contains(&word.as_str()) && at(i + hashes) == '"' {
                    i = after_raw_string(&chars, i + hashes + 1, hashes);
                    token = Some("\"\"".to_owned());
                } else {
                    token = Some(word);
                }
            }
            ':' if at(i + 1) == ':' => {
                i += 2;
                token = Some("::".to_owned());
            }
            c => {
                i += 1;
                token = (!c.is_whitespace()).then(|| c.to_string());
            }
        }
        if let Some(text) = token {
            tokens.push(Token { text, line });
        }
        line += chars[begun..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn after_string(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn after_raw_string(chars: &[char], mut i: usize, hashes: usize) -> usize {
    let closes = |i: usize| chars[i] == '"' && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'));
    while i < chars.len() && !closes(i) {
        i += 1;
    }
    i + 1 + hashes
}

/// The index after the group that opens at `at`; `at` itself where none does.
pub fn after_group(tokens: &[Token], at: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return if i == at { at } else { i + 1 };
        }
    }
    tokens.len()
}

/// The index after the item (or field, or arm) that begins at `at`.
fn after_item(tokens: &[Token], mut at: usize) -> usize {
    const ITEMS: [&str; 16] = [
        "pub",
        "fn",
        "mod",
        "impl",
        "struct",
        "enum",
        "use",
        "const",
        "static",
        "type",
        "trait",
        "unsafe",
        "async",
        "let",
        "extern",
        "macro_rules",
    ];
    let is_item = tokens.get(at).is_some_and(|token| ITEMS.contains(&token.text.as_str()));
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            // `use a::{b};` ends with its semicolon, everything else with its block.
            "{" => {
                at = after_group(tokens, at);
                return if tokens.get(at).is_some_and(|token| token.text == ";") { at + 1 } else { at };
            }
            "(" | "[" => at = after_group(tokens, at),
            ")" | "]" | "}" => return at,
            _ => at += 1,
        }
    }
    at
}

/// Whether an attribute's tokens (without `#`) say that only tests compile what follows.
fn is_test_only(attribute: &[Token]) -> bool {
    let has = |word: &str| attribute.iter().any(|token| token.text == word);
    attribute.get(1).is_some_and(|token| token.text == "cfg") && has("test") && !has("not")
}

/// The tokens without test-only items, and the names of modules among those that stand in files of their own.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let inner = text(at) == "#" && text(at + 1) == "!" && text(at + 2) == "[";
        if inner && is_test_only(&tokens[at + 2..after_group(&tokens, at + 2)]) {
            return (Vec::new(), modules);
        }
        if text(at) == "#" && text(at + 1) == "[" {
            let end = after_group(&tokens, at + 1);
            if is_test_only(&tokens[at + 1..end]) {
                at = end;
                while text(at) == "#" && text(at + 1) == "[" {
                    at = after_group(&tokens, at + 1);
                }
                let declared = (at..at + 4).find(|i| text(*i) == "mod" && text(i + 2) == ";");
                modules.extend(declared.map(|i| text(i + 1).to_owned()));
                at = after_item(&tokens, at);
                continue;
            }
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    (kept, modules)
}

/// Reads the path or use tree that begins at `at` into `found`; returns the index after it.
fn read_path(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let line = tokens.get(at).map_or(0, |token| token.line);
    let mut path = prefix.to_vec();
    loop {
        match text(at) {
            "{" => {
                let end = after_group(tokens, at);
                at += 1;
                while at < end.saturating_sub(1) {
                    let next = read_path(tokens, at, &path, found);
                    at = if text(next) == "as" { next + 2 } else { next }.max(at + 1);
                    if text(at) == "," {
                        at += 1;
                    }
                }
                return end;
            }
            "self" if !path.is_empty() => at += 1,
            word if is_word(word) || word == "*" => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    found.push(Named { path, line });
    at
}

impl Source {
    /// A file at this path under `src/`.
    pub fn new(path: &str, text: &str) -> Self {
        let module = match path {
            "lib.rs" => Vec::new(),
            path => path.trim_end_matches(".rs").split('/').map(str::to_owned).collect(),
        };
        let (tokens, test_modules) = without_tests(lex(text));
        Self { path: path.to_owned(), module, tokens, test_modules }
    }

    /// Modules that only tests compile and that stand in files of their own, as `a::b`.
    pub fn test_modules(&self) -> Vec<String> {
        self.test_modules.iter().map(|name| self.child(name).join("::")).collect()
    }

    /// Modules that this file says stand in files of their own, tests first.
    pub fn declared_modules(&self) -> Vec<Vec<String>> {
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text.as_str());
        let declared = (0..self.tokens.len()).filter(|at| text(*at) == "mod" && text(at + 2) == ";");
        let declared: Vec<&str> = declared.map(|at| text(at + 1)).collect();
        self.test_modules.iter().map(String::as_str).chain(declared).map(|name| self.child(name)).collect()
    }

    fn child(&self, name: &str) -> Vec<String> {
        let parent = if self.module == ["main"] { &[] } else { self.module.as_slice() };
        parent.iter().cloned().chain([name.to_owned()]).collect()
    }

    /// Every path with `::` that the file names, and every `use x;`, as written.
    fn named(&self) -> Vec<(Named, Vec<String>)> {
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text.as_str());
        let mut all = Vec::new();
        // Modules written inside the file, each with the brace depth of its block.
        let mut inside: Vec<(String, usize)> = Vec::new();
        let (mut at, mut depth) = (0, 0usize);
        while at < self.tokens.len() {
            match text(at) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    inside.retain(|(_, opened)| *opened <= depth);
                }
                "mod" if text(at + 2) == "{" => inside.push((text(at + 1).to_owned(), depth + 1)),
                _ => {}
            }
            let before = at.checked_sub(1).map_or("", text);
            let before_that = at.checked_sub(2).map_or("", text);
            let continues = before == "."
                || (before == "::" && (is_word(before_that) && before_that != "use" || before_that == ">"));
            let begins = is_word(text(at)) && !continues && (text(at + 1) == "::" || before == "use");
            let group = text(at) == "{" && before == "use";
            if begins || group {
                let mut found = Vec::new();
                at = read_path(&self.tokens, at, &[], &mut found);
                let module: Vec<String> =
                    self.module.iter().cloned().chain(inside.iter().map(|(name, _)| name.clone())).collect();
                all.extend(found.into_iter().map(|named| (named, module.clone())));
                if group {
                    depth = depth.saturating_sub(1);
                }
            } else {
                at += 1;
            }
        }
        all
    }

    /// Paths into this crate, from its root.
    pub fn inner_paths(&self) -> Vec<Named> {
        let from_root = |(named, module): (Named, Vec<String>)| {
            let head = named.path.first()?.as_str();
            let path = match head {
                "crate" | "rationd" => named.path[1..].to_vec(),
                "super" => {
                    let ups = named.path.iter().take_while(|word| *word == "super").count();
                    let kept = module.len().saturating_sub(ups);
                    module[..kept].iter().chain(&named.path[ups..]).cloned().collect()
                }
                _ => return None,
            };
            Some(Named { path, line: named.line })
        };
        let mut paths: Vec<Named> = self.named().into_iter().filter_map(from_root).collect();
        // What was brought in by name leads further under that name: `use crate::session;` and then `session::redis::x`.
        let onward = self.outer_paths().into_iter().filter_map(|outer| {
            let (head, rest) = outer.path.split_first()?;
            let brought = paths.iter().find(|named| named.path.last() == Some(head))?;
            let path = brought.path.iter().chain(rest).cloned().collect();
            (!rest.is_empty()).then_some(Named { path, line: outer.line })
        });
        let onward: Vec<Named> = onward.collect();
        paths.extend(onward);
        paths
    }

    /// Paths out of this crate: those that begin neither with `crate` nor `self` nor `super`.
    pub fn outer_paths(&self) -> Vec<Named> {
        let inner = ["crate", "rationd", "self", "super", "Self"];
        let named = self.named().into_iter().map(|(named, _)| named);
        named.filter(|named| named.path.first().is_some_and(|head| !inner.contains(&head.as_str()))).collect()
    }
}
