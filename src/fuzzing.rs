//! What is read from outside, one function for each kind of it, for `fuzz/` and for the test that reads its seeds. Each takes any
//! bytes, and panics where what was read is not what it says.
//!
//! In no build but a test's or a fuzzer's is any of this there.

use crate::buyer::{parse_kr_resident, parse_opaque};
use crate::config::{Config, Keys, Store};
use crate::ids::{FeedId, GatewayId, LedgerId, OperatorId, ProgrammeCode, ProgrammeId, RequestId, SiteId, TerminalId};
use crate::policy::{Policies, Programme};
use crate::session::switches::Switches;
use crate::session::token::{self, DoorKey, Token};
use crate::sites::Sites;
use crate::time::{Date, Timestamp};

/// A kind, by its name, and what reads it.
pub type Target = (&'static str, fn(&[u8]));

/// Every kind.
pub const TARGETS: [Target; 11] = [
    ("wire", crate::grpc::fuzzing::wire),
    ("frames", crate::grpc::fuzzing::frames),
    ("numbers", numbers),
    ("tokens", tokens),
    ("policies", policies),
    ("sites", sites),
    ("replies", crate::ledger::redis::fuzzing::replies),
    ("stores", stores),
    ("config", config),
    ("audit", crate::audit::fuzzing::records),
    ("witness", crate::ledger::redis::fuzzing::witness),
];

/// A buyer's number or id, as somebody typed it: what is wrong with it is said without a part of it.
fn numbers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (id, birth) = text.split_once('\n').map_or((&*text, None), |(id, birth)| (id, Some(birth)));
    let Some(today) = Date::new(2020, 3, 10) else { return };
    for read in [parse_kr_resident(&text, today, true), parse_opaque(id, birth, today)] {
        match read {
            Ok(buyer) => {
                assert!(buyer.birth_year <= 2020, "born in {}", buyer.birth_year);
                assert!(buyer.masked().ends_with("******"));
            }
            Err(problem) => {
                let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
                assert!(digits(&problem.to_string()) < 10);
            }
        }
    }
}

/// A token or an id, as a caller wrote it: only what the service has made is a token, and an id says itself.
fn tokens(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // A fuzzer cannot find a tag; the seeds hold tokens made under this key.
    let key = DoorKey::new([7; 32]);
    if let Ok(Token { seat, given_to }) = token::read(&text, &key) {
        assert_eq!(token::mint(&seat, given_to, &key), text.to_ascii_lowercase());
    }
    if let Ok((place, shown, given_to)) = token::read_place(&text, &key) {
        assert_eq!(token::mint_place(&place, shown, given_to, &key), text.to_ascii_lowercase());
    }
    says_itself::<SiteId>(&text);
    says_itself::<TerminalId>(&text);
    says_itself::<GatewayId>(&text);
    says_itself::<OperatorId>(&text);
    says_itself::<FeedId>(&text);
    says_itself::<ProgrammeId>(&text);
    says_itself::<ProgrammeCode>(&text);
    says_itself::<RequestId>(&text);
    says_itself::<LedgerId>(&text);
    says_itself::<Timestamp>(&text);
}

/// What was read is the same when it is read again as it is written.
fn says_itself<T: std::str::FromStr + ToString + PartialEq>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        let written = read.to_string();
        assert!(written.parse().is_ok_and(|again: T| again == read), "{written:?} of {text:?}");
    }
}

/// A programme file.
fn policies(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Programme::parse(&text, "p.toml") {
        Ok(programme) => {
            let _ = programme.show(None);
            assert!(programme.kept() >= programme.longest_window());
        }
        Err(problems) => assert!(problems.iter().next().is_some(), "refused without a problem"),
    }
    let _ = Policies::with_files(&[("p.toml".into(), text.into_owned())]);
}

/// A site registry.
fn sites(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Sites::parse(&text, "s.csv") {
        Ok(sites) => assert!(sites.iter().all(|site| sites.get(site.id).is_some_and(|same| same.id == site.id))),
        Err(problems) => assert!(!problems.to_string().is_empty(), "refused without a problem"),
    }
}

/// The URL of a store: a password in it is not shown.
fn stores(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(store) = text.parse::<Store>() else { return };
    let _ = store.is_local();
    let shown = store.to_string();
    let password = text
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .and_then(|(who, _)| who.split_once(':'))
        .map_or("", |(_, password)| password);
    // One that stands elsewhere too is no secret, and neither is one that looks like the stars in its place.
    let is_secret = password.len() >= 8 && !password.contains('*') && text.matches(password).count() == 1;
    if matches!(store, Store::Redis(_)) && is_secret {
        assert!(!shown.contains(password), "{shown}");
    }
}

/// A configuration, a key file, a document of switches, and the variables of a process.
fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(problems) = Config::of_text(&text) {
        assert!(!problems.0.is_empty(), "refused without a problem");
    }
    let _ = Keys::parse(&text, "k.toml");
    if let Ok(switches) = Switches::parse(&text) {
        assert!(Switches::parse(&switches.document()).is_ok_and(|again| again == switches));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What `fuzz/` begins with, and what it has found before.
    #[test]
    fn every_seed_is_read() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
            let mut read = 0;
            for seed in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
                target(&std::fs::read(seed.unwrap().path()).unwrap());
                read += 1;
            }
            assert!(read > 0, "{name} has no seed");
        }
    }

    /// The tokens among the seeds are some.
    #[test]
    fn seeds_hold_tokens() {
        let key = DoorKey::new([7; 32]);
        let read = |name: &str| {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/tokens");
            std::fs::read_to_string(seeds.join(name)).unwrap()
        };
        assert!(token::read(&read("seat"), &key).is_ok());
        assert!(token::read_place(&read("place"), &key).is_ok());
    }
}
