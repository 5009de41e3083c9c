//! The registry of the ledger's Lua scripts: one file per verb, each with a header that is a contract.
//!
//! A test compares every header with the asserts below it and with the numbers given here.
//!
//! # What a claim costs
//!
//! Redis runs one script at a time, so what one claim costs is what a nation can buy in a second. Counted in instructions
//! of the server (callgrind), the usual claim of a new buyer in one window costs 74 thousand with the append-only file
//! on. 53 thousand of them are what any script pays that reads a string, adds to a stream and sets the string. That is why
//! everything has the shape it has:
//!
//! - A record is one string (`GET`, `SET`), an event one field of a stream, and a reply one string: what is small as
//!   bytes is cheap in Redis, in its file and for whoever parses it. Nine fields of text and nested arrays cost as much
//!   again as the whole claim does now.
//! - The ring that a partition is written under is read by the same command as the record (`MGET`), and while the ring turns the
//!   record under the previous key too: comparing them costs no command of its own.
//! - The first argument is the entry as it is to stand if it is granted, packed as it will be stored. In the usual case
//!   the script takes it over: the same bytes go into the record, the event and the reply.
//! - Numbers reach Redis as text: `OUTBOX` is a text constant, because a number of Lua is printed at every call.
//! - The outbox is cut in one step of sixteen only: looking for its oldest node costs 5 thousand each time.

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
    if Mutant::RingNotCompared.is_on() {
        source = source.replace("if read[1] ~= ours then", "if false then").into();
    }
    if Mutant::PreviousNotCounted.is_on() {
        source = source.replace("(read[2] or '') .. (read[3] or '')", "read[2] or ''").into();
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
    identity(1, 6),
    claim(4, 5),
    confirm(4, 4),
    release(4, 4),
    void(4, 4),
    late(4, 5),
    resolve(4, 4),
    ring(1, 2),
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
            let most = constant
                .and_then(|line| line.rsplit(", ").next())
                .and_then(|most| most.trim_matches('\'').parse().ok());
            assert_eq!(most, Some(OUTBOX_EVENTS), "{name}");
            let trim = "\n  if at % 16 == 0 then redis.call('XTRIM', outbox, 'MAXLEN', '~', OUTBOX) end\n";
            let written = source.split("\n-- Write. ").nth(1).unwrap();
            assert!(written.contains(trim) && written.contains("XADD"), "{name}");
        }
    }

    /// Nothing is shared between files, so what must be alike is compared: how a record is read, and for all but `claim`,
    /// which may write more than one entry, how it is written.
    #[test]
    fn every_verb_reads_a_record_in_the_same_words_and_writes_it_so() {
        let part = |script: &Script, from: &str, to: &str| {
            let after = script.source.split(from).nth(1).unwrap_or_else(|| panic!("{}: {from:?}", script.name));
            after.split(to).next().unwrap().to_owned()
        };
        let verbs: Vec<_> = all().filter(|script| script.source.contains("XADD")).collect();
        let read = part(claim(), "\n-- Read. ", "\n-- Decide: ");
        assert!(read.lines().count() > 15);
        let written = part(resolve(), "\n-- Write. ", "\n\n\n");
        for script in verbs {
            assert_eq!(part(script, "\n-- Read. ", "\n-- Decide: "), read, "{}", script.name);
            if script.name != "claim" {
                assert_eq!(part(script, "\n-- Write. ", "\n\n\n"), written, "{}", script.name);
            }
        }
    }

    #[test]
    fn no_script_asks_for_the_time() {
        for script in all() {
            assert!(!script.source.contains("'TIME'"), "{}", script.name);
        }
    }
}
