//! Style is a test: who may import whom, where each outside crate has its home, and what no file of the repository may
//! contain. A new edge is a new word in one of the tables below, and so a visible decision.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests fail by panicking")]
#![allow(missing_docs, unreachable_pub, reason = "nobody imports a test")]

mod tidy {
    pub mod imports;
    pub mod lua;
    pub mod source;
}

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rationd::museum::Mutant;
use rationd::policy::Refusal;
use tidy::imports::{Fences, Imports};
use tidy::source::{Source, Token, after_group, lex};

/// Who may import whom, beside its own children: imports go downward only. A name with `::` on the left is a house of
/// its own, which the row of its parent does not open. `anyone` is every module of the crate.
const IMPORTS_LINE: usize = line!() as usize + 1;
const IMPORTS: &str = "
    main               → cli, app
    app                → config, telemetry, drain, grpc, feed, purchase, export, events, stock, journal, redis_pool, sites, tls, audit
    app                → ledger, ledger::{redis, embedded}, session, session::{redis, embedded}, stock::{redis, embedded}, journal::{redis, embedded}
    app                → buyer, policy, ids, time
    cli                → config, policy, session::{switches, Mode, Switches}, terminal, terminal::screen, load, grpc::{v1, PURCHASE_SERVICE}, certs, tls, sites, ids, time
    cli                → purchase::receipt, telemetry, audit
    certs              → tls, ids, time
    grpc               → purchase, export, events, session, stock, journal, ledger::{Ledger, outbox::Outbox}, policy::{LineSet, Offline, Place, Refusal}
    grpc               → sites, ids, time, tls, telemetry, drain, audit, conduct
    feed               → stock, sites, ids, time
    terminal           → grpc::{v1, MAX_MESSAGE, code_name}, telemetry::propagation, ids, time
    terminal::screen   → ids, time
    load               → terminal, grpc::{v1, PURCHASE_SERVICE}, sites, ids, time
    purchase           → buyer, policy, ledger, sites, ids, time
    audit              → buyer::{SecretKey, keyed}, ledger::RecordKey, ids, time
    conduct            → ids
    export             → buyer::BuyerKey, policy::Policies, ledger, ids
    events             → policy::Policies, ledger, ids
    journal            → purchase, ledger, policy::Programme, ids, time
    journal::redis     → journal, ledger, ledger::redis::{beside, wrote_nothing}, redis_pool, ids, time
    journal::embedded  → journal, ledger, ledger::embedded::beside, ids, time
    stock              → ledger, policy::{Policies, Programme, StockLevels}, sites, ids, time
    stock::redis       → stock, ledger, ledger::redis::{beside, wrote_nothing}, redis_pool, ids, time
    stock::embedded    → stock, ledger, ledger::embedded::beside, ids, time
    ledger             → buyer::{BuyerKey, KeyMark, OtherRing, Pseudonym, Ring, Turn}, policy::{Used, Window, Windows}, ids, time
    ledger::redis      → ledger, redis_pool, buyer::{BuyerKey, KeyMark, Neighbour, OtherRing, Pseudonym, Ring, Side, Turn}, policy::{Used, Window, Windows}, ids, time
    ledger::embedded   → ledger, buyer::{BuyerKey, KeyMark, Neighbour, OtherRing, Pseudonym, Ring, Side, Turn}, policy::{Used, Window, Windows}, ids, time
    session            → sites, ids, time
    session::redis     → session, redis_pool, ids, time
    session::embedded  → session, ids, time
    policy             → ids, time
    buyer              → ids, time
    sites              → ids, time
    config             → buyer::{KeyId, KeyRing, RingKey, SecretKey, Side}, sites, tls, ids, time
    telemetry          → ids, tls
    drain              → time
    redis_pool         → time
    ids                →
    time               →
    tls                →
    museum             →
    fuzzing            → grpc, ledger, session, audit, buyer, policy, sites, config, ids, time
    anyone             → museum
";

/// Where a crate, or a part of the standard library, may be named. A place is a file or a folder under `src/`.
const FENCES_LINE: usize = line!() as usize + 1;
const FENCES: &str = "
    tonic, tonic_prost, tonic_health, tonic_reflection, tonic_types, prost, prost_types → grpc.rs grpc/ terminal.rs terminal/ load.rs load/
    redis, deadpool, deadpool_redis → redis_pool.rs redis_pool/ ledger/redis.rs ledger/redis/ session/redis.rs session/redis/ stock/redis.rs stock/redis/ journal/redis.rs journal/redis/
    redb → ledger/embedded.rs ledger/embedded/ session/embedded.rs session/embedded/ stock/embedded.rs stock/embedded/ journal/embedded.rs
    clap, rpassword → cli.rs cli/
    ratatui, unicode_width → terminal/screen.rs terminal/screen/
    rustls → tls.rs tls/ grpc/ main.rs
    webpki → tls.rs tls/ grpc/
    tokio_rustls → grpc/
    rcgen → certs.rs
    axum → telemetry.rs telemetry/ feed.rs feed/
    tower_http → feed.rs feed/
    rstar → sites/near.rs
    postcard → stock/levels.rs stock/levels/ terminal/journal.rs terminal/journal/
    flate2 → stock/levels.rs stock/levels/
    chacha20poly1305 → terminal/journal/
    jiff → time.rs policy.rs policy/
    opentelemetry, opentelemetry_sdk, opentelemetry_otlp, opentelemetry_appender_tracing, opentelemetry_prometheus → telemetry.rs telemetry/
    tracing_subscriber → telemetry.rs telemetry/ config.rs
    tracing_opentelemetry, prometheus → telemetry.rs telemetry/
    hdrhistogram → load.rs load/
    h2, hyper_util → grpc/
    rustix → load.rs load/ app/descriptors.rs app/feed.rs config/keys.rs main.rs
    std::env → config.rs config/ museum.rs
    std::time::Instant, std::time::SystemTime → time.rs
    std::process::exit →
";

/// Parts that are pure: no I/O, no tasks, no logging.
const PURE_LINE: usize = line!() as usize + 1;
const PURE: &str = "
    ids.rs policy.rs policy/ buyer/kr_resident.rs buyer/opaque.rs ledger/rules.rs ledger/packed.rs purchase/receipt.rs sites.rs tls.rs tls/ certs.rs conduct.rs audit/chain.rs stock/levels.rs stock/levels/ stock/packed.rs journal/packed.rs terminal/retry.rs terminal/journal/facts.rs terminal/journal/state.rs terminal/journal/frames.rs terminal/counter/told.rs terminal/counter/wire.rs → tokio, tracing, std::fs, std::net, std::io
";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository, as (path from the root, text), but for what tools and runs put there.
fn files() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if [
                "target",
                ".git",
                "rationd-data",
                "rationd-data-simulated",
                "rationd-certs",
                "node_modules",
                "__pycache__",
            ]
            .contains(&name)
            {
                continue;
            }
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).expect("a path under the root").to_str()?.to_owned();
        // What is not text is nobody's prose.
        Some((name, fs::read_to_string(path).ok()?))
    };
    found.into_iter().filter_map(named).collect()
}

fn with_ending(ending: &str) -> Vec<(String, String)> {
    files().into_iter().filter(|(path, _)| path.ends_with(ending)).collect()
}

/// The crate's sources without their tests.
fn sources() -> Vec<Source> {
    let all: Vec<(String, String)> = with_ending(".rs")
        .into_iter()
        .filter_map(|(path, text)| Some((path.strip_prefix("src/")?.to_owned(), text)))
        .collect();
    let sources: Vec<Source> = all.iter().map(|(path, text)| Source::new(path, text)).collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    sources.into_iter().filter(|source| !tests.contains(&source.module.join("::"))).collect()
}

/// Fails with every finding at once.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn imports_go_downward_only() {
    let table = Imports::parse(IMPORTS, IMPORTS_LINE);
    none(sources().iter().flat_map(|source| table.violations(source)).collect());
}

#[test]
fn every_outside_crate_stays_in_its_house() {
    let fences = Fences::parse(FENCES, FENCES_LINE, PURE, PURE_LINE);
    none(sources().iter().flat_map(|source| fences.violations(source)).collect());
}

#[test]
fn every_source_file_is_part_of_the_crate() {
    let on_disk: BTreeSet<String> = with_ending(".rs").into_iter().map(|(path, _)| path).collect();
    let mut reached = BTreeSet::new();
    let mut open = vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()];
    while let Some(path) = open.pop() {
        let Some(text) = on_disk.get(&path).and_then(|path| fs::read_to_string(root().join(path)).ok()) else {
            continue;
        };
        let source = Source::new(path.trim_start_matches("src/"), &text);
        let children = source.declared_modules().into_iter().map(|module| format!("src/{}.rs", module.join("/")));
        open.extend(children);
        reached.insert(path);
    }
    let lost = on_disk.iter().filter(|path| path.starts_with("src/") && !reached.contains(*path));
    none(lost.map(|path| format!("{path}: no `mod` leads here; declare it or delete it")).collect());
}

/// What tokens of a Rust file are never left behind.
fn leftovers(path: &str, text: &str) -> Vec<String> {
    let tokens = lex(text);
    let word = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let mut findings = Vec::new();
    for at in 0..tokens.len() {
        let line = tokens[at].line;
        if ["todo", "unimplemented", "dbg"].contains(&word(at)) && word(at + 1) == "!" {
            findings.push(format!("{path}:{line}: `{}!` is left behind", word(at)));
        }
        if word(at) == "#" && word(at + 1) == "[" && word(at + 2) == "ignore" && word(at + 3) == "]" {
            findings.push(format!("{path}:{line}: `#[ignore]` without a reason"));
        }
        let begins = at == 0 || [";", "{", "}"].contains(&word(at - 1));
        if begins && word(at) == "matches" && word(at + 1) == "!" && word(after_group(&tokens, at + 2)) == ";" {
            findings.push(format!("{path}:{line}: a bare `matches!(…);` asserts nothing"));
        }
    }
    findings
}

#[test]
fn nothing_is_left_behind() {
    let findings = with_ending(".rs").iter().flat_map(|(path, text)| leftovers(path, text)).collect();
    none(findings);
}

#[test]
fn every_script_is_what_its_header_says() {
    none(with_ending(".lua").iter().flat_map(|(path, text)| tidy::lua::findings(path, text)).collect());
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    // Written apart, so that this file is not a finding itself.
    let places = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/tm", "p/"]].map(|parts| parts.concat());
    let findings = files().into_iter().flat_map(|(path, text)| {
        let named = |line: &str| places.iter().find(|place| line.contains(place.as_str())).cloned();
        let lines = text.lines().enumerate().filter_map(|(at, line)| Some((at + 1, named(line)?)));
        lines.map(|(line, place)| format!("{path}:{line}: names {place}")).collect::<Vec<_>>()
    });
    none(findings.collect());
}

/// Names that no enum value of the proto files ends with.
fn without_value(names: &[&str], protos: &[(String, String)]) -> Vec<String> {
    let has_value = |name: &str, line: &str| {
        line.split_once('=').is_some_and(|(value, _)| {
            let value = value.trim();
            value == name || value.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('_'))
        })
    };
    let code =
        |text: &str| text.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect();
    let lines: Vec<String> = protos.iter().flat_map(|(_, text)| -> Vec<String> { code(text) }).collect();
    let missing = names.iter().filter(|name| !lines.iter().any(|line| has_value(name, line)));
    missing.map(|name| format!("{name}: no enum value in proto/ has this name")).collect()
}

#[test]
fn every_refusal_has_a_proto_value_and_a_row_in_the_vectors() {
    let names = Refusal::ALL.map(Refusal::name);
    let mut findings = Vec::new();
    // Each of these begins to bind with the first file of its kind.
    let protos = with_ending(".proto");
    if !protos.is_empty() {
        findings.extend(without_value(&names, &protos));
    }
    let vectors: Vec<String> = with_ending(".csv")
        .into_iter()
        .filter(|(path, _)| path.starts_with("tests/vectors/"))
        .map(|(_, t)| t)
        .collect();
    if !vectors.is_empty() {
        let rowless = names.iter().filter(|name| !vectors.iter().any(|text| text.contains(*name)));
        findings.extend(rowless.map(|name| format!("{name}: no row of tests/vectors/ ends in it")));
    }
    none(findings);
}

/// Where the museum's table in this text is not what `tests/run museum` prints of these mutants and this catalogue.
fn museum_findings(readme: &str, catalogue: &str, mutants: &[&str]) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let table = readme.lines().skip_while(|line| words(line) != ["mutant", "verdict", "caught", "by"]).skip(1);
    let rows: Vec<Vec<String>> = table.take_while(|line| *line != "```").map(words).collect();
    let tests: Vec<Vec<String>> = catalogue.lines().map(words).filter(|test| test.len() == 3).collect();
    let is_true = |row: &[String]| match row {
        [name, verdict, ..] if name == "control" => verdict == "alive",
        [name, verdict, by @ ..] => {
            let has = |test: &Vec<String>| test[0] == *name && by.iter().any(|by| by.contains(&test[2]));
            verdict == "caught" && tests.iter().any(has)
        }
        _ => false,
    };
    let shown: Vec<&str> = rows.iter().filter_map(|row| row.first().map(String::as_str)).collect();
    let others =
        (shown != mutants).then(|| format!("README.md: its museum shows {shown:?}, src/museum.rs {mutants:?}"));
    let untrue = rows.iter().filter(|row| !is_true(row));
    let untrue = untrue.map(|row| format!("README.md: {row:?} is not what tests/museum/catalogue makes of it"));
    others.into_iter().chain(untrue).collect()
}

#[test]
fn the_readme_shows_the_whole_museum() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a readable file");
    none(museum_findings(&read("README.md"), &read("tests/museum/catalogue"), &Mutant::ALL.map(|(_, name)| name)));
}

/// The checks themselves, on small texts: each finds what it is there to find, and no more.
mod proofs {
    use super::*;

    fn imports(path: &str, text: &str) -> Vec<String> {
        let table = "\n main → app\n app → ledger, ledger::redis\n grpc → policy::Refusal\n ledger → policy::{Used, Window}, ids\n\
                     ledger::redis → ledger\n policy → ids\n ids →\n museum →\n anyone → museum";
        Imports::parse(table, 100).violations(&Source::new(path, text))
    }

    #[test]
    fn a_museum_that_is_told_otherwise_is_found() {
        let table = |rows: &str| format!("Text\n```text\nmutant  verdict  caught by\n{rows}```\n");
        let found = |rows, mutants: &[&str]| {
            museum_findings(&table(rows), "# Which\nno-wait  stores  waits_for\nno-wait  lib  waits_too", mutants).len()
        };
        let true_rows = "control  alive   -\nno-wait  caught  a::it_waits_too b::…\n";
        assert_eq!(found(true_rows, &["control", "no-wait"]), 0);
        assert_eq!(found(true_rows, &["control", "no-wait", "new"]), 1);
        assert_eq!(found("control  alive -\nno-wait  caught  it_waits\n", &["control", "no-wait"]), 1);
        assert_eq!(found("control  caught -\nno-wait  alive  it_waits_too\n", &["control", "no-wait"]), 2);
    }

    #[test]
    fn an_import_that_is_not_in_the_table_is_found() {
        let findings = imports("ledger.rs", "use crate::ids::Id;\n\nuse crate::grpc::Server;");
        assert_eq!(
            findings,
            ["src/ledger.rs:3: ledger imports grpc::Server; tests/tidy.rs:104 allows `policy::{Used, Window}, ids`"]
        );
    }

    #[test]
    fn imports_are_read_wherever_and_however_they_are_written() {
        let clean = |path, text| assert_eq!(imports(path, text), Vec::<String>::new(), "{path}: {text}");
        let found = |path, text| assert_eq!(imports(path, text).len(), 1, "{path}: {text}");
        // In groups, in the middle of code, through `super`, under another name, in a `pub use`, from the binary.
        found("ledger.rs", "use crate::{ids::Id, policy::{Window, Refusal}};");
        found("ledger/rules.rs", "fn f() -> crate::policy::Refusal { todo() }");
        found("ledger/rules.rs", "use super::super::policy::Refusal;");
        found("ledger/rules.rs", "mod inner { use super::super::super::grpc; }");
        found("ledger.rs", "pub use crate::grpc as edge;");
        found("ledger.rs", "use crate::policy::*;");
        found("main.rs", "use rationd::ledger::Ledger;");
        found("grpc/convert.rs", "fn f<T: From<crate::ledger::Entry>>() {}");
        // A parent's row does not open its stores, and a store is no neighbour of its parent's other children.
        found("ledger.rs", "use crate::ledger::redis::Store;");
        found("ledger.rs", "use crate::ledger; type A = ledger::redis::Store;");
        found("newcomer.rs", "use crate::ids::Id;");
        clean("ledger.rs", "use crate::{ids::Id, policy::{Used, Window}};");
        clean("ledger/redis/keys.rs", "use super::super::Entry; use crate::ledger::rules; use super::lanes;");
        clean("app.rs", "use crate::ledger::redis::Store;");
        clean("policy.rs", "use crate::museum::Mutant;");
        clean("grpc.rs", "use crate::policy::Refusal::{self, NotYourDay};");
    }

    #[test]
    fn comments_strings_and_tests_import_nothing() {
        let clean = |text| assert_eq!(imports("policy.rs", text), Vec::<String>::new(), "{text}");
        clean("// use crate::grpc;\n/* crate::grpc::x /* nested */ crate::grpc::y */ /// [`crate::grpc`]");
        clean(r####"const A: &str = "crate::grpc::x \" crate::grpc::y"; const B: &str = r#"crate::grpc::"z""#; "####);
        clean("#[cfg(test)] mod tests { use crate::grpc::x; }");
        clean("#[cfg(test)]\n#[rustfmt::skip]\nfn f(x: [u8; 3]) -> crate::grpc::x { crate::grpc::y }");
        clean("fn f<'a>(x: &'a str) -> char { '\"' }");
        let after = "#[cfg(test)] mod tests { fn f() {} }\nuse crate::grpc::x;";
        assert_eq!(imports("policy.rs", after).len(), 1, "what comes after the tests counts");
        assert_eq!(imports("policy.rs", "#[cfg(not(test))] use crate::grpc::x;").len(), 1);
    }

    #[test]
    fn a_test_module_in_its_own_file_is_known() {
        let source = Source::new("ledger.rs", "#[cfg(test)] mod tests; mod rules;");
        assert_eq!(source.test_modules(), ["ledger::tests"]);
        assert_eq!(source.declared_modules(), [["ledger", "tests"], ["ledger", "rules"]]);
        assert_eq!(Source::new("lib.rs", "pub mod ids;").declared_modules(), [["ids"]]);
    }

    #[test]
    fn an_outside_crate_in_another_house_is_found() {
        let fences =
            Fences::parse("\n tonic → grpc.rs grpc/\n std::env → config.rs", 10, "\n policy/ ids.rs → tokio", 20);
        let check = |path: &str, text: &str| fences.violations(&Source::new(path, text));
        let finding = check("ledger.rs", "\nuse tonic::Status;");
        assert_eq!(finding, ["src/ledger.rs:2: names tonic::Status; tests/tidy.rs:11 keeps tonic in `grpc.rs grpc/`"]);
        assert_eq!(check("app.rs", "#[tonic::async_trait] impl A for B {}").len(), 1);
        assert_eq!(check("app.rs", "use std::{env, fs};").len(), 1);
        assert_eq!(check("app.rs", "let x = ::std::env::var(\"X\");").len(), 1);
        assert_eq!(check("app.rs", "use tonic;").len(), 1);
        assert_eq!(check("policy/calendar.rs", "use tokio::task;").len(), 1);
        for (path, text) in [
            ("grpc/convert.rs", "use tonic::Status;"),
            ("config.rs", "use std::env;"),
            ("app.rs", "use tokio::task; use crate::{tonic::x}; use std::environment; let tonic = 1;"),
            ("idship.rs", "use tokio::task;"),
        ] {
            assert_eq!(check(path, text), Vec::<String>::new(), "{path}: {text}");
        }
    }

    #[test]
    fn leftovers_are_found() {
        let found = |text: &str| leftovers("a.rs", text).len();
        // Written in pieces, because this file is looked at too.
        assert_eq!(found("fn f() { matches!(x, Some(_)); }"), 1);
        assert_eq!(found("fn f() { matches!(x, Some(_)) }"), 0);
        assert_eq!(found("fn f() { assert!(matches!(x, Some(_))); let y = matches!(x, 1); }"), 0);
        assert_eq!(found("fn f() { todo!() } fn g() { dbg!(1); }"), 2);
        assert_eq!(found("#[ignore] fn f() {}"), 1);
        assert_eq!(found("#[ignore = \"a minute long\"] fn f() {}"), 0);
    }

    #[test]
    fn a_missing_proto_value_is_found() {
        let protos = [("a.proto".to_owned(), "// NOT_ELIGIBLE = 1\n  REFUSAL_NOT_YOUR_DAY = 4;".to_owned())];
        assert_eq!(without_value(&["NOT_YOUR_DAY"], &protos), Vec::<String>::new());
        assert_eq!(without_value(&["NOT_ELIGIBLE", "YOUR_DA"], &protos).len(), 2);
    }
}
