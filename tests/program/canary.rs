//! Canary numbers (G36): after every kind of call, with everything logged that can be, the numbers are nowhere but in the
//! calls themselves.

mod calls;
mod harness;
mod traces;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rationd::buyer::{BuyerKey, parse_kr_resident};
use rationd::config::Keys;
use rationd::time::Date;

use self::traces::{Artefacts, Hunt, hex};
use super::service::{Service, rationd, run};
use super::shops::{PROGRAMME, SATURDAY};
use crate::support::collector::Collector;
use crate::support::redis::RedisServer;

/// Numbers of nobody, whose last digits stand nowhere by chance.
const CANARIES: [&str; 3] = ["770707-1928374", "640229-2837465", "850919-1746382"];
/// Numbers that no calendar or scheme knows, typed by mistake. As secret as good ones.
const MISTYPED: [&str; 3] = ["771332-1928374", "770707-192837", "77070-71928374"];
/// Of a programme that has numbers of its own.
const OPAQUE: &str = "QX91827364";
/// What is told to whoever typed a number.
const ANSWER: &str = "answer to ";

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn every_file(directory: &Path, into: &mut Artefacts) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            every_file(&path, into);
        } else {
            into.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}

/// A directory with a programme that has numbers of its own.
fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let programmes = directory.path().join("programmes");
    fs::create_dir(&programmes).unwrap();
    fs::write(programmes.join("opaque.toml"), include_str!("../vectors/us-pse-nplex.toml")).unwrap();
    directory
}

/// A service that says all it can to everybody who hears it.
fn talkative(directory: &Path, arguments: &[&str], collector: &Collector) -> Service {
    let arguments = [&["--clock", SATURDAY, "--policies", "programmes"], arguments].concat();
    let environment = [&calls::HEARD[..], &[calls::heard_by(collector), ("RATIOND_WITNESS", "witness.json")]].concat();
    let service = Service::start(directory, &arguments, &environment);
    service.await_health(0);
    service
}

/// What a log must not hold either: who the buyer is to the store.
fn pseudonyms(key_file: &Path) -> Vec<BuyerKey> {
    let keys = Keys::load(key_file).unwrap();
    let buyers = CANARIES.map(|number| parse_kr_resident(number, Date::new(2020, 6, 20).unwrap(), true).unwrap());
    buyers.iter().map(|buyer| keys.ring().key_of(buyer, PROGRAMME.parse().unwrap()).0).collect()
}

fn has_pseudonym(text: &[u8], key: &BuyerKey) -> bool {
    let bytes = key.pseudonym.as_bytes();
    let listed = bytes.map(|byte| byte.to_string()).join(", ");
    let written =
        [hex(bytes).into_bytes(), hex(bytes).to_uppercase().into_bytes(), listed.into_bytes(), bytes.to_vec()];
    written.iter().any(|trace| contains(text, trace))
}

/// Everything that the service and its collector can be heard to say, as the service stands, and what everybody on the machine
/// can read of its process.
fn said(service: &Service, collector: &Collector) -> Artefacts {
    let log = service.log();
    assert!(log.contains("TRACE") && log.len() > 10_000, "everything is logged that can be:\n{log}");
    // Where it cannot be read, nobody else can read it either.
    let process = |file: &str| fs::read(format!("/proc/{}/{file}", service.pid())).unwrap_or_default();
    let sent = collector.bytes();
    for part in ["PurchaseService/Purchase", "OperatorService/LookUpBuyer", "_OTHER", "rationd.decisions"] {
        assert!(contains(&sent, part.as_bytes()), "spans and measurements: {part}");
    }
    [
        ("log", log.into_bytes()),
        ("greeting", service.greeting.clone().into_bytes()),
        ("metrics", service.metrics().into_bytes()),
        ("sent to the collector", sent),
        ("command line", process("cmdline")),
        ("environment", process("environ")),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .to_vec()
}

/// Asserts that the numbers are nowhere and that the pseudonyms are in no log; says how much was searched. That the search
/// looks into all of it is proved by a number that is put into the middle of each.
fn search(what: &str, mut artefacts: Artefacts, said: Artefacts, keys: &[BuyerKey]) {
    for (name, text) in &said {
        assert!(keys.iter().all(|key| !has_pseudonym(text, key)), "{what}: a pseudonym in {name}");
    }
    artefacts.extend(said);
    let hunt = Hunt::of(&[&CANARIES[..], &MISTYPED, &[OPAQUE]].concat());
    let bytes: usize = artefacts.iter().map(|(_, text)| text.len()).sum();
    let hits = |(name, text): &(String, Vec<u8>)| hunt.hits(text, name.starts_with(ANSWER));
    let found: Vec<_> = artefacts.iter().map(|artefact| (&artefact.0, hits(artefact))).collect();
    let found: Vec<_> = found.into_iter().filter(|(_, how)| !how.is_empty()).collect();
    assert!(found.is_empty(), "{what}: {found:?}");
    println!("{what}: 0 hits in {} artefacts, {bytes} bytes", artefacts.len());
    for (name, mut text) in artefacts {
        let middle = text.len() / 2;
        text.splice(middle..middle, CANARIES[1].bytes());
        assert!(hits(&(name.clone(), text)).contains("with hyphen"), "{what}: planted in {name}");
    }
}

/// What is done with what the service leaves behind.
fn afterwards(directory: &Path, data: &str, audit: &str, artefacts: &mut Artefacts) {
    let keys = format!("{data}/keys.toml");
    let answers: Vec<u8> =
        artefacts.iter().filter(|(name, _)| name.starts_with(ANSWER)).fold(Vec::new(), |all, one| {
            let json = one.1.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
            [all, json.collect::<Vec<_>>().join(&b'\n')].concat()
        });
    fs::write(directory.join("answers.jsonl"), answers).unwrap();
    for (arguments, codes) in [
        (&["receipt", "key", "--keys", &keys, "--out", "receipt-key.toml"][..], 0..1),
        (&["receipt", "verify", "--key", "receipt-key.toml", "answers.jsonl"], 0..2),
        (&["receipt", "verify", "--key", "receipt-key.toml", "--json", "answers.jsonl"], 0..2),
        (&["audit", "verify", audit], 0..1),
        (&["audit", "verify", audit, "--json"], 0..1),
    ] {
        let ran = rationd(directory, arguments, "");
        assert!(codes.contains(&ran.code), "{arguments:?}: {ran:?}");
        artefacts.push((format!("{arguments:?}"), format!("{}{}", ran.out, ran.err).into_bytes()));
    }
    // The test's own; what is in it was searched where it was said.
    fs::remove_file(directory.join("answers.jsonl")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_is_found_with_the_embedded_store() {
    let (directory, collector) = (prepared(), Collector::start());
    let service = talkative(directory.path(), &["--log-format", "json"], &collector);
    let mut artefacts = Vec::new();
    calls::every_kind(&service, directory.path(), &collector, &mut artefacts).await;
    let said = said(&service, &collector);
    service.stop();
    let (data, audit) = ("rationd-data-simulated", "rationd-data-simulated/audit");
    afterwards(directory.path(), data, audit, &mut artefacts);
    every_file(directory.path(), &mut artefacts);
    let keys = pseudonyms(&directory.path().join(data).join("keys.toml"));
    let file = |part: &str| artefacts.iter().find(|(name, _)| name.contains(part)).map(|(_, text)| text).expect(part);
    assert!(
        keys.iter().all(|key| has_pseudonym(file("ledger.redb"), key)),
        "the buyers are in the ledger, by their pseudonyms"
    );
    assert!(contains(file("audit/000000000001-2020-06.log"), b"LOOK_UP"));
    search("embedded store, JSON log", artefacts, said, &keys);
}

/// Writes down every command that Redis is sent. Dropping it ends it.
struct Monitor(Child);

impl Monitor {
    fn start(redis: &RedisServer, file: &Path) -> Self {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &redis.port().to_string(), "MONITOR"]);
        let child = command.stdin(Stdio::null()).stdout(File::create(file).unwrap()).spawn().unwrap();
        let monitor = Self(child);
        while !fs::read_to_string(file).unwrap().starts_with("OK") {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        monitor
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_is_found_with_redis() {
    let (directory, collector) = (prepared(), Collector::start());
    Service::start(directory.path(), &[], &[]).stop();
    let mut redis = RedisServer::start();
    let port = redis.port().to_string();
    let ask = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &port]).args(arguments);
        run(command, directory.path(), "").out
    };
    ask(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    ask(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    let monitored = redis.data().join("monitored");
    let monitor = Monitor::start(&redis, &monitored);
    let service = talkative(directory.path(), &["--store", &redis.url(), "--audit", "audit"], &collector);
    let mut artefacts = Vec::new();
    calls::every_kind(&service, directory.path(), &collector, &mut artefacts).await;
    artefacts.push(("slow log".into(), ask(&["SLOWLOG", "GET", "100000"]).into_bytes()));
    let saved = ask(&["LASTSAVE"]);
    // Its answer has whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    ask(&["BGSAVE"]);
    while ask(&["LASTSAVE"]) == saved {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(monitor);
    // What is said of calls that the store does not answer any more.
    calls::without_a_store(&service, || redis.kill(), &mut artefacts).await;
    let said = said(&service, &collector);
    service.stop();
    afterwards(directory.path(), "rationd-data", "audit", &mut artefacts);
    every_file(redis.data(), &mut artefacts);
    every_file(directory.path(), &mut artefacts);
    let keys = pseudonyms(&directory.path().join("rationd-data/keys.toml"));
    let held = |part: &str| {
        let mut files = artefacts.iter().filter(|(name, _)| name.contains(part));
        files.any(|(_, text)| keys.iter().all(|key| has_pseudonym(text, key)))
    };
    assert!(held(".incr.aof") && held(".rdb"), "the buyers are in what Redis keeps, by their pseudonyms");
    assert!(artefacts.iter().any(|(name, _)| name.ends_with("witness.json")), "a witness file is kept");
    let spied = fs::read_to_string(&monitored).unwrap_or_default().to_ascii_uppercase();
    assert!(spied.contains("EVALSHA") || spied.contains("FCALL"), "the commands were overheard");
    search("Redis, human log", artefacts, said, &keys);
}
