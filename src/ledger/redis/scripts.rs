//! The registry of the ledger's Lua scripts: one file per verb, each with a header that is a contract.
//!
//! A test compares every header with the asserts below it and with the numbers given here.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::museum::Mutant;

/// One script: its text, its SHA-1 for `EVALSHA`, and how many keys and arguments it takes.
#[derive(Debug)]
pub(super) struct Script {
    /// The verb.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test compares it with the header"))]
    pub(super) name: &'static str,
    /// The Lua text.
    pub(super) source: Cow<'static, str>,
    /// The name that Redis gives it.
    pub(super) sha: String,
    /// How many keys it asserts.
    pub(super) keys: usize,
    /// How many arguments it asserts.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test compares it with header and asserts"))]
    pub(super) arguments: usize,
}

fn script(name: &'static str, source: &'static str, keys: usize, arguments: usize) -> Script {
    let mut source = Cow::Borrowed(source);
    if name == "claim" && Mutant::VoidedReplaysReceipt.is_on() {
        source = source.replace("[VOIDED] = 'VOIDED'", "[VOIDED] = 'RECORDED'").into();
    }
    let sha = redis::Script::new(&source).get_hash().to_owned();
    Script { name, source, sha, keys, arguments }
}

macro_rules! registry {
    ($($verb:ident($keys:literal, $arguments:literal)),* $(,)?) => {
        $(
            #[doc = concat!("The script of `", stringify!($verb), ".lua`.")]
            pub(super) fn $verb() -> &'static Script {
                static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
                    script(stringify!($verb), include_str!(concat!(stringify!($verb), ".lua")), $keys, $arguments)
                });
                &SCRIPT
            }
        )*

        /// Every script, to be loaded on every fresh connection.
        pub(super) fn all() -> impl Iterator<Item = &'static Script> {
            [$($verb as fn() -> &'static Script),*].into_iter().map(|script| script())
        }
    };
}

registry! {
    identity(1, 4),
    claim(2, 11),
    confirm(2, 6),
    release(2, 6),
    void(2, 6),
    late(2, 10),
    resolve(2, 6),
    sweep(1, 1),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::OUTBOX_EVENTS;

    fn header(script: &Script) -> Vec<&str> {
        script.source.lines().skip(1).take_while(|line| line.starts_with("--")).collect()
    }

    /// How many `-- KEYS[n] name: type` lines stand in the header, in order and each with a type.
    fn documented(script: &Script, what: &str) -> usize {
        let lines: Vec<&str> =
            header(script).into_iter().filter_map(|line| line.strip_prefix(&format!("-- {what}["))).collect();
        for (i, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("{}] ", i + 1)), "{}: {what}[{line}", script.name);
            assert!(line.contains(": "), "{}: {what}[{line} has no type", script.name);
        }
        lines.len()
    }

    #[test]
    fn every_header_asserts_and_the_registry_agree() {
        for script in all() {
            let Script { name, source, keys, arguments, .. } = script;
            assert!(source.starts_with(&format!("#!lua\n-- {name}: ")), "{name}: the first line names the verb");
            assert_eq!((documented(script, "KEYS"), documented(script, "ARGV")), (*keys, *arguments), "{name}: header");
            assert!(source.contains(&format!("\nassert(#KEYS == {keys}, '{name} takes {keys} keys')\n")), "{name}");
            assert!(
                source.contains(&format!("\nassert(#ARGV == {arguments}, '{name} takes {arguments} arguments')\n")),
                "{name}"
            );
            for part in ["-- Reply: ", "-- Invariants: "] {
                assert!(header(script).iter().any(|line| line.starts_with(part)), "{name}: {part}");
            }
        }
    }

    /// Named locals at the top: after the asserts every key and argument is read once and only there.
    #[test]
    fn every_key_and_argument_is_read_into_a_named_local() {
        for script in all() {
            for (what, count) in [("KEYS", script.keys), ("ARGV", script.arguments)] {
                for i in 1..=count {
                    let reads = script
                        .source
                        .lines()
                        .filter(|line| line.starts_with("local ") && line.contains(&format!("{what}[{i}]")))
                        .count();
                    assert_eq!(reads, 1, "{}: {what}[{i}]", script.name);
                }
            }
            let inside = script.source.lines().filter(|line| line.starts_with(' ')).collect::<Vec<_>>().join("\n");
            assert!(!inside.contains("KEYS[") && !inside.contains("ARGV["), "{}", script.name);
        }
    }

    #[test]
    fn every_script_that_tells_keeps_the_outbox_bounded() {
        let telling: Vec<_> = all().filter(|script| script.source.contains("XADD")).collect();
        assert_eq!(telling.len(), 6);
        for Script { name, source, .. } in telling {
            let constant = source.lines().find(|line| line.starts_with("local ") && line.contains(", OUTBOX = "));
            let most = constant.and_then(|line| line.rsplit(", ").next()).and_then(|most| most.parse().ok());
            assert_eq!(most, Some(OUTBOX_EVENTS), "{name}");
            assert_eq!(source.matches("XADD").count(), source.matches("'MAXLEN', '~', OUTBOX,").count(), "{name}");
        }
    }

    #[test]
    fn no_script_asks_for_the_time() {
        for script in all() {
            assert!(!script.source.contains("'TIME'"), "{}", script.name);
        }
    }
}
