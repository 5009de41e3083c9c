//! Canary numbers (G36): after every kind of call, with everything logged that can be, the numbers are nowhere but in the
//! calls themselves.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rationd::buyer::{BuyerKey, parse_kr_resident};
use rationd::config::Keys;
use rationd::grpc::v1;
use rationd::ids::RequestId;
use rationd::terminal::CallError;
use rationd::time::Date;

use super::service::{Service, run};
use super::shops::{PROGRAMME, SATURDAY, get, purchase};
use crate::support::redis::RedisServer;

/// Numbers of nobody, whose last digits stand nowhere by chance.
const CANARIES: [&str; 3] = ["770707-1928374", "640229-2837465", "850919-1746382"];
/// Numbers that no calendar or scheme knows, typed by mistake. As secret as good ones.
const MISTYPED: [&str; 3] = ["771332-1928374", "770707-192837", "77070-71928374"];
const ID: &str = "0190b7a4-0000-4000-8000-0000000000";

/// Something that may hold a number, by name.
type Artefacts = Vec<(String, Vec<u8>)>;

/// Every way in which a number might have been written down, by name.
fn traces(number: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bare = number.replace('-', "");
    let mut found = vec![("with hyphen", number.as_bytes().to_vec()), ("without hyphen", bare.clone().into_bytes())];
    for text in [number, &bare] {
        found.push(("hex", hex(text.as_bytes()).into_bytes()));
        found.push(("HEX", hex(text.as_bytes()).to_uppercase().into_bytes()));
        found.push(("UTF-16LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect()));
        found.push(("UTF-16BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect()));
        found.push(("reversed", text.bytes().rev().collect()));
        // As `{:?}` writes bytes.
        let listed: Vec<_> = text.bytes().map(|byte| byte.to_string()).collect();
        found.push(("list of bytes", listed.join(", ").into_bytes()));
        // In base64 the same text looks three ways, by where it begins; the ends belong to its neighbours too.
        for offset in 0..3 {
            let encoded = base64(&[&[0; 2][..offset], text.as_bytes()].concat());
            found.push(("base64", encoded[if offset == 0 { 0 } else { 4 }..encoded.len() - 4].to_vec()));
        }
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for group in bytes.chunks(3) {
        let three = [group[0], *group.get(1).unwrap_or(&0), *group.get(2).unwrap_or(&0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        text.extend((0..4).map(|place| LETTERS[(bits >> (18 - 6 * place) & 63) as usize]));
    }
    text
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Six digits that stand by themselves, and are not the fraction of a second.
fn has_token(text: &[u8], digits: &[u8]) -> bool {
    let places = text.windows(digits.len()).enumerate().filter(|(_, window)| *window == digits);
    places.into_iter().any(|(at, _)| {
        let (before, after) = (at.checked_sub(1).map(|at| text[at]), text.get(at + digits.len()).copied());
        let apart = |byte: Option<u8>| !byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        apart(before) && before != Some(b'.') && apart(after)
    })
}

/// Where the numbers were found.
fn hits(artefacts: &Artefacts) -> Vec<String> {
    let mut hits = Vec::new();
    for number in CANARIES.iter().chain(&MISTYPED) {
        let tail = &number.as_bytes()[number.len() - 6..];
        for (name, text) in artefacts {
            for (how, trace) in traces(number) {
                if contains(text, &trace) {
                    hits.push(format!("{name}: {how}"));
                }
            }
            if has_token(text, tail) {
                hits.push(format!("{name}: last six digits"));
            }
        }
    }
    hits
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

/// Every kind of call with the canaries, and what came back.
fn scenario(service: &Service, artefacts: &mut Artefacts) {
    let mut call = |arguments: &[&str], stdin: &str, code: i32| {
        let ran = service.call(arguments, stdin);
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        artefacts.push((format!("answer to {arguments:?}"), format!("{}{}", ran.out, ran.err).into_bytes()));
    };
    let id = |nth: u8| format!("{ID}{nth:02}");
    for (nth, number) in (0..).zip(CANARIES) {
        let (sale, hold) = (id(nth), id(10 + nth));
        call(&["check", "-n", "2", "--json"], number, 0);
        call(&["sell", "-n", "1", "--request-id", &sale], number, 0);
        call(&["sell", "-n", "1", "--request-id", &sale, "--json"], number, 0);
        call(&["sell", "-n", "2", "--request-id", &sale], number, 3);
        call(&["sell", "-n", "2"], number, 1);
        call(&["hold", "--request-id", &hold], number, 0);
        call(&["confirm", "--request-id", &hold], number, 0);
        call(&["release", "--request-id", &hold], number, 1);
        call(&["void", "--request-id", &sale], number, 0);
        call(&["void", "--request-id", &sale, "--site", "11000002"], number, 1);
        call(&["resolve", "--request-id", &sale], number, 1);
        call(&["resolve", "--request-id", &id(20 + nth)], number, 1);
        call(&["sell", "--relation", "family", "--agent-birth-year", "1980"], number, 1);
        call(&["check", "--programme", "kr-public-mask-2020", "-n", "2"], number, 0);
        call(&["check", "-n", "0"], number, 2);
        // Numbers in places where they do not belong.
        call(&["check", "--birth-date", "1977-07-07"], number, 2);
        call(&["check", "--birth-date", number], "card-1", 2);
        call(&["check", "--number", number], "", 2);
    }
    for number in MISTYPED {
        call(&["check"], number, 2);
        call(&["sell", "--json"], number, 2);
        call(&["void", "--request-id", &id(30)], number, 2);
    }
}

/// Fields of the wire that a broken client may put a number into, and bytes that are no message.
async fn misuse(service: &Service, artefacts: &mut Artefacts) {
    let (terminal, session) = service.session("11000003", "misuse").await;
    let mut keep = |error: CallError| artefacts.push(("error".into(), error.to_string().into_bytes()));
    for number in CANARIES {
        let good = || purchase(number, 1, RequestId::random());
        let spoils: [fn(&mut v1::PurchaseRequest, &str); 8] = [
            |visit, number| visit.programme = number.into(),
            |visit, number| visit.lines[0].request_id = number.into(),
            |visit, number| visit.lines[0].relation = number.into(),
            |visit, number| visit.lines[0].relation = number.replace('-', ""),
            |visit, number| visit.lines[0].papers = vec![number.into()],
            |visit, number| visit.lines[0].papers = vec![number.replace('-', "")],
            |visit, number| visit.programme = number.replace('-', ""),
            |visit, _| visit.lines.push(visit.lines[0].clone()),
        ];
        for spoil in spoils {
            let mut visit = good();
            spoil(&mut visit, number);
            keep(session.purchase(visit).await.unwrap_err());
        }
        let huge = v1::GetPurchaseRequest { request_id: number.repeat(4_000), ..get(number, RequestId::random()) };
        keep(terminal.resolve(huge).await.unwrap_err());
    }
    session.close().await.unwrap();
}

/// What a log must not hold either: who the buyer is to the store.
fn pseudonyms(key_file: &Path) -> Vec<BuyerKey> {
    let keys = Keys::load(key_file).unwrap();
    let buyers = CANARIES.map(|number| parse_kr_resident(number, Date::new(2020, 6, 20).unwrap(), true).unwrap());
    buyers.iter().map(|buyer| keys.ring.key_of(buyer, PROGRAMME.parse().unwrap())).collect()
}

fn has_pseudonym(text: &[u8], key: &BuyerKey) -> bool {
    let bytes = key.pseudonym.as_bytes();
    let listed = bytes.map(|byte| byte.to_string()).join(", ");
    let written =
        [hex(bytes).into_bytes(), hex(bytes).to_uppercase().into_bytes(), listed.into_bytes(), bytes.to_vec()];
    written.iter().any(|trace| contains(text, trace))
}

/// Asserts that the numbers are nowhere and that the pseudonyms are in no log; says how much was searched.
fn search(what: &str, mut artefacts: Artefacts, logs: Artefacts, keys: &[BuyerKey]) {
    for (name, log) in &logs {
        assert!(keys.iter().all(|key| !has_pseudonym(log, key)), "{what}: a pseudonym in {name}");
    }
    artefacts.extend(logs);
    let bytes: usize = artefacts.iter().map(|(_, text)| text.len()).sum();
    assert_eq!(hits(&artefacts), Vec::<String>::new(), "{what}");
    println!("{what}: 0 hits in {} artefacts, {bytes} bytes", artefacts.len());
}

fn logs_of(service: &Service) -> Artefacts {
    let log = service.log();
    assert!(log.contains("TRACE") && log.len() > 10_000, "everything is logged that can be:\n{log}");
    let said = [("log", log), ("greeting", service.greeting.clone()), ("metrics", service.metrics())];
    said.map(|(name, text)| (name.to_owned(), text.into_bytes())).to_vec()
}

#[test]
fn the_search_finds_what_is_planted() {
    for number in CANARIES {
        for (how, trace) in traces(number) {
            let planted = [b"...", &trace[..], b"..."].concat();
            assert!(hits(&vec![("planted".into(), planted)]).contains(&format!("planted: {how}")), "{how}");
        }
        // Base64 is found wherever the number stands in the text that was encoded.
        for before in 0..3 {
            let encoded = base64(&[&b"id="[..before], number.as_bytes(), b"; quantity=2"].concat());
            assert!(hits(&vec![("planted".into(), encoded)]).contains(&"planted: base64".to_owned()));
        }
        let tail = format!("buyer …{}.", &number[8..]);
        assert_eq!(hits(&vec![("planted".into(), tail.into_bytes())]).first().unwrap(), "planted: last six digits");
        let fraction = format!("09:00:00.{}Z", &number[8..]);
        assert_eq!(hits(&vec![("clean".into(), fraction.into_bytes())]), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_is_found_with_the_embedded_store() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [("RATIOND_TELEMETRY__LOG_FILTER", "trace")];
    let service = Service::start(directory.path(), &["--clock", SATURDAY, "--log-format", "json"], &variables);
    let mut artefacts = Vec::new();
    tokio::task::block_in_place(|| scenario(&service, &mut artefacts));
    misuse(&service, &mut artefacts).await;
    let logs = logs_of(&service);
    service.stop();
    every_file(directory.path(), &mut artefacts);
    let keys = pseudonyms(&directory.path().join("rationd-data-simulated/keys.toml"));
    let (_, ledger) = artefacts.iter().find(|(name, _)| name.ends_with("ledger.redb")).unwrap();
    assert!(keys.iter().all(|key| has_pseudonym(ledger, key)), "the buyers are in the ledger, by their pseudonyms");
    search("embedded store, JSON log", artefacts, logs, &keys);
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
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let redis = RedisServer::start();
    let ask = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &redis.port().to_string()]).args(arguments);
        run(command, directory.path(), "").out
    };
    ask(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    ask(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    let monitored = redis.data().join("monitored");
    let monitor = Monitor::start(&redis, &monitored);
    let url = redis.url();
    let variables = [("RATIOND_TELEMETRY__LOG_FILTER", "trace")];
    let service = Service::start(directory.path(), &["--clock", SATURDAY, "--store", &url], &variables);
    service.await_health(0);
    let mut artefacts = Vec::new();
    tokio::task::block_in_place(|| scenario(&service, &mut artefacts));
    misuse(&service, &mut artefacts).await;
    let logs = logs_of(&service);
    service.stop();
    drop(monitor);
    artefacts.push(("slow log".into(), ask(&["SLOWLOG", "GET", "100000"]).into_bytes()));
    assert_eq!(ask(&["SAVE"]), "OK\n");
    every_file(redis.data(), &mut artefacts);
    every_file(directory.path(), &mut artefacts);
    let keys = pseudonyms(&directory.path().join("rationd-data/keys.toml"));
    let held = |part: &str| {
        let mut files = artefacts.iter().filter(|(name, _)| name.contains(part));
        files.any(|(_, text)| keys.iter().all(|key| has_pseudonym(text, key)))
    };
    assert!(held(".incr.aof") && held(".rdb"), "the buyers are in what Redis keeps, by their pseudonyms");
    let commands = fs::read_to_string(&monitored).unwrap_or_default();
    let spied = commands.to_ascii_uppercase();
    assert!(spied.contains("EVALSHA") || spied.contains("FCALL"), "the commands were overheard");
    search("Redis, human log", artefacts, logs, &keys);
}
