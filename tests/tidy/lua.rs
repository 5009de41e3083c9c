//! A Lua script begins with a header, and the header tells the truth: what it lists is asserted and read, and nothing else.
//!
//! ```text
//! #!lua                     (or without)
//! -- name: what it is for.
//! -- KEYS[1] …
//! -- ARGV[1] …, with unit
//! -- then for each …        (only where the number of arguments varies)
//! -- Reply: …
//! assert(#KEYS == 1, …)
//! assert(#ARGV == 1, …)     (or `1 + 4 * count`)
//! ```

use std::collections::BTreeSet;

/// What does not hold in this script.
pub fn findings(path: &str, text: &str) -> Vec<String> {
    let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".lua");
    let begins_with_name = |line: &&str| {
        let rest = line.strip_prefix("-- ").and_then(|line| line.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(": ") || rest.starts_with(".lua: "))
    };
    let header: Vec<&str> =
        text.lines().skip_while(|line| *line == "#!lua").take_while(|line| line.starts_with("--")).collect();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n");
    let mut findings = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            findings.push(format!("{path}: {what}"));
        }
    };
    expect(
        header.first().is_some_and(begins_with_name),
        format!("the first line must be `-- {name}: ` and what it is for"),
    );
    expect(header.iter().any(|line| line.starts_with("-- Reply: ")), "the header has no line `-- Reply: …`".to_owned());
    let varies = header.iter().any(|line| line.starts_with("-- then for each "));
    for array in ["KEYS", "ARGV"] {
        let begins = format!("-- {array}[");
        let listed: Vec<usize> = header.iter().filter_map(|line| number(line.strip_prefix(&begins)?)).collect();
        expect(
            listed.iter().copied().eq(1..=listed.len()),
            format!("the header must list {array}[1], {array}[2] … in order, each once"),
        );
        let used = indexes(&code, array);
        let known: BTreeSet<usize> = listed.iter().copied().collect();
        for index in known.difference(&used) {
            expect(false, format!("the header lists {array}[{index}], which is never read"));
        }
        for index in used.difference(&known) {
            expect(false, format!("{array}[{index}] is read and not in the header"));
        }
        let asserted =
            code.lines().find_map(|line| line.trim().strip_prefix(&format!("assert(#{array} == ")).map(str::to_owned));
        let counts = |text: &str| {
            let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
            number(text) == Some(listed.len())
                && (rest.starts_with(',') || (array == "ARGV" && varies && rest.starts_with(" + ")))
        };
        expect(
            asserted.as_deref().is_some_and(counts),
            format!("`assert(#{array} == {}, …)` must follow the header", listed.len()),
        );
    }
    findings
}

/// The number that the text begins with.
fn number(text: &str) -> Option<usize> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Every literal index under which the code reads the array.
fn indexes(code: &str, array: &str) -> BTreeSet<usize> {
    code.split(&format!("{array}["))
        .skip(1)
        .filter(|rest| rest[digits(rest)..].starts_with(']'))
        .filter_map(number)
        .collect()
}

fn digits(text: &str) -> usize {
    text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "-- close.lua: free a seat.\n-- KEYS[1] sites\n-- ARGV[1] site code, text\n-- ARGV[2] slot\n\
                        -- Reply: CLOSED or GONE.\nassert(#KEYS == 1, 'one key')\nassert(#ARGV == 2, 'two')\n\
                        local sites, site, slot = KEYS[1], ARGV[1], ARGV[2]\nreturn 'CLOSED'\n";

    #[test]
    fn a_true_header_passes() {
        assert_eq!(findings("src/session/redis/close.lua", GOOD), Vec::<String>::new());
        let shebang = GOOD.replacen("-- close.lua: ", "#!lua\n-- close: ", 1);
        assert_eq!(findings("close.lua", &shebang), Vec::<String>::new());
        let varying = "-- renew.lua: renew.\n-- ARGV[1] count\n-- then for each seat, its code\n-- Reply: words.\n\
                       assert(#KEYS == 0, 'none')\nlocal count = ARGV[1]\nassert(#ARGV == 1 + 4 * count, 'x')\nx(ARGV[i], ARGV[4 * i])\n";
        assert_eq!(findings("renew.lua", varying), Vec::<String>::new());
    }

    #[test]
    fn a_header_that_lies_is_found() {
        for (from, to) in [
            ("-- close.lua: ", "-- open.lua: "),
            ("-- Reply: ", "-- Answer: "),
            ("-- ARGV[2] slot\n", ""),
            ("-- ARGV[2]", "-- ARGV[3]"),
            ("#KEYS == 1", "#KEYS == 2"),
            ("assert(#ARGV == 2, 'two')\n", ""),
            ("#ARGV == 2,", "#ARGV == 2 + n,"),
            (", ARGV[2]\n", ", 0\n"),
            ("return 'CLOSED'", "return ARGV[7]"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD, "{from}");
            assert!(!findings("close.lua", &bad).is_empty(), "{from} → {to}");
        }
    }
}
