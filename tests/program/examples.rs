//! The examples for vendors of POS systems, in Python and in TypeScript, through mornings that go wrong: what they say to the clerk, and
//! what the service has of it in the end.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rationd::ids::RequestId;

use super::python::prepared;
use super::service::{Service, rationd, run};
use super::shops::{PROGRAMME, SATURDAY};
use super::tls::SERVED;
use crate::support::proxy::{Fault, Proxy};

const SITE: &str = "11000001";
/// Invented; it is nobody's.
const NUMBER: &str = "810305-1000112";
/// Of the number, what may stand nowhere but in the journal.
const SECRET: &str = "1000112";
/// A terminal that lost its stream comes back within so long, after a few failures.
const COMES_BACK: Duration = Duration::from_secs(60);
const ANY_PORTS: [&str; 2] = ["--feed-listen", "127.0.0.1:0"];
/// When the service is started again.
const LATER: &str = "2020-06-20T09:05:00+09:00";

fn python() -> Command {
    let (root, target) = (Path::new(env!("CARGO_MANIFEST_DIR")), prepared());
    let mut command = Command::new(target.join("python-venv/bin/python"));
    command.env("PYTHONPATH", target.join("python-client")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(root.join("examples/python/counter.py"));
    command
}

fn typescript() -> Command {
    static PREPARED: OnceLock<()> = OnceLock::new();
    // target/debug/rationd
    let target = Path::new(env!("CARGO_BIN_EXE_rationd")).ancestors().nth(2).unwrap();
    PREPARED.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut prepare = Command::new(root.join("examples/typescript/prepare"));
        prepare.env("CARGO_TARGET_DIR", target);
        let ready = run(prepare, root, "");
        assert_eq!(ready.code, 0, "the TypeScript client cannot be had, and it is no test without it: {ready:?}");
    });
    let mut command = Command::new("node");
    command.arg(target.join("typescript-client/dist/counter.js"));
    command
}

/// A counter that runs.
struct Counter {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Counter {
    /// With these arguments behind the program's own, in this directory.
    fn open(mut command: Command, directory: &Path, arguments: &[&str]) -> Self {
        command.args(arguments).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { stdin: child.stdin.take().unwrap(), child, lines, said: Vec::new() }
    }

    /// What it says up to and with the line that begins like this.
    fn says(&mut self, last: &str) -> String {
        let before = self.said.len();
        loop {
            let Ok(line) = self.lines.recv_timeout(COMES_BACK) else {
                panic!("{last} was not said after:\n{}", self.said.join("\n"));
            };
            self.said.push(line);
            if self.said.last().unwrap().starts_with(last) {
                return self.said[before..].join("\n");
            }
        }
    }

    fn press_enter(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    /// Waits for its end, which must be a good one, and gives all that it said.
    fn closes(&mut self) -> String {
        let ended = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        let said = self.said.join("\n");
        assert!(ended.success(), "{ended}\n{said}");
        assert!(!said.contains(SECRET), "no number is shown:\n{said}");
        println!("{said}");
        said
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails unless each of these begins a line, one after the other, with whatever between them.
fn in_this_order(said: &str, wanted: &[&str]) {
    let mut lines = said.lines();
    for begins in wanted {
        assert!(lines.any(|line| line.starts_with(begins)), "{begins} is not in its place in:\n{said}");
    }
}

/// Sells, is refused, voids; sells two offline, of which one is too much; uploads them twice. It finds a journal of yesterday, when the
/// power failed between question and answer, twice, and in the middle of a line.
fn a_morning_with_an_outage(command: Command) {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut service = Service::start(at, &[&["--clock", SATURDAY], &ANY_PORTS[..]].concat(), &[]);
    let address = service.address.split("//").nth(1).unwrap().to_owned();
    let [recorded, never] = [RequestId::random(), RequestId::random()].map(|id| id.to_string());
    let sold = ["sell", "--site", SITE, "--number", NUMBER, "--quantity", "1", "--request-id", &recorded, "--json"];
    let sold = service.call(&sold, "");
    assert_eq!(sold.code, 0, "{sold:?}");
    let ledger = sold.json()["receipt"]["ledger_id"].as_str().unwrap().to_owned();
    let asked = [&recorded, &never].map(|id| {
        serde_json::json!({ "id": id, "number": NUMBER, "quantity": 1, "ledger": ledger }).to_string() + "\n"
    });
    std::fs::write(at.join("journal"), asked.concat() + r#"{"id": "0b5c"#).unwrap();

    let mut counter = Counter::open(command, at, &[&address, SITE, NUMBER, "journal"]);
    let yesterday = counter.says("--           watch the morning");
    in_this_order(
        &yesterday,
        &["session      seat 0", &format!("settled      {recorded} approved"), "void         voided"],
    );
    assert!(yesterday.lines().any(|line| line.starts_with(&format!("settled      {never} not"))), "{yesterday}");
    counter.press_enter();
    let sells = counter.says("--           kill the service");
    in_this_order(
        &sells,
        &["SELL         2 to 810305-1******, receipt ", "DO NOT SELL  Nothing more can", "void         voided"],
    );

    service.kill();
    counter.press_enter();
    let alone = counter.says("--           start the service again");
    in_this_order(
        &alone,
        &[
            "no answer    ",
            "away         ",
            "SELL         2, offline",
            "warning      this counter has sold 2",
            "SELL         1, offline",
        ],
    );
    assert_eq!(alone.matches("no answer").count(), 1, "whoever calls rarely repeats once: {alone}");
    let journal = std::fs::read_to_string(at.join("journal")).unwrap();
    assert_eq!(journal.matches("sold_at").count(), 2, "written down before it said so: {journal}");

    let again = ["--clock", LATER, "--listen", &address];
    let service = Service::start(at, &[&again, &ANY_PORTS[..]].concat(), &[]);
    counter.press_enter();
    let said = counter.closes();
    let uploaded: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("uploaded     ")).collect();
    let [first, second, first_again, second_again] = uploaded[..] else {
        panic!("four verdicts were expected in:\n{said}")
    };
    let (fits, too_much) = (&first[..36], &second[..36]);
    assert_eq!(first, format!("{fits} RECORDED"));
    assert_eq!(second, format!("{too_much} OVER_QUOTA 2 in Seoul Jongno-gu"));
    assert_eq!([first_again, second_again], [fits, too_much].map(|id| format!("{id} ALREADY_RECORDED")));
    in_this_order(&said, &["uploaded", "uploaded", "DO NOT SELL  Nothing more can"]);

    // The first was sent before it was sold: it kept the id that the service might have recorded.
    let asked = journal.lines().find(|line| line.contains(fits)).unwrap();
    assert!(asked.contains("ledger") && !asked.contains("sold_at"), "{asked}");
    let report = service.call(&["journal", "report", "--site", SITE, "--programme", PROGRAMME, "--format", "csv"], "");
    println!("{}", report.out);
    let rows: Vec<Vec<&str>> = report.out.lines().skip(1).map(|row| row.split(',').collect()).collect();
    let mut rows: Vec<_> = rows.iter().map(|row| (row[3], row[1], row[2])).collect();
    // Both may have been sold within a millisecond.
    rows.sort_unstable();
    assert_eq!(rows, [("OVER_QUOTA", too_much, "1"), ("RECORDED", fits, "2")], "{report:?}");
    service.stop();
}

/// Over TLS, by a line that loses an answer; under a programme that stops while nobody can be asked.
async fn a_lost_answer_and_a_programme_that_stops(command: Command) {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let made = rationd(at, &["dev-certs"], "");
    assert_eq!(made.code, 0, "{made:?}");
    std::fs::create_dir(at.join("programmes")).unwrap();
    let programme = include_str!("../../src/policy/programmes/weekly-essentials.toml");
    let stops = programme.replace("\ndemo = true\n", "\ndemo = true\noffline = \"stop\"\n");
    assert_ne!(programme, stops);
    std::fs::write(at.join("programmes/weekly-essentials.toml"), stops).unwrap();
    let start =
        |clock| Service::start(at, &[&["--policies", "programmes", "--clock", clock], &SERVED[..]].concat(), &[]);
    let port = |service: &Service| service.address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let mut service = start(SATURDAY);
    let line = Proxy::to(port(&service)).await;

    let address = format!("127.0.0.1:{}", line.port());
    let shown = [format!("site-{SITE}.pem"), format!("site-{SITE}.key"), "ca.pem".into()]
        .map(|file| format!("rationd-certs/{file}"));
    let arguments = [&address, SITE, NUMBER, "journal", &shown[2], &shown[0], &shown[1]];
    let mut counter = Counter::open(command, at, &arguments);
    counter.says("--           watch the morning");
    line.strike(Fault::CutBeforeReply);
    counter.press_enter();
    counter.says("no answer    ");
    let journal = std::fs::read_to_string(at.join("journal")).unwrap();
    assert_eq!(journal.matches("ledger").count(), 1, "written down before it was sent: {journal}");
    let sells = counter.says("--           kill the service");
    line.heal();
    in_this_order(
        &sells,
        &["SELL         2 to 810305-1******, receipt ", "DO NOT SELL  Nothing more can", "void         voided"],
    );
    assert!(sells.contains(", recorded by the first attempt"), "{sells}");

    service.kill();
    counter.press_enter();
    let alone = counter.says("--           start the service again");
    let stopped = "DO NOT SELL  the service is away";
    assert_eq!(alone.lines().filter(|line| line.starts_with(stopped)).count(), 2, "{alone}");
    assert!(!alone.contains("SELL         "), "nothing is sold: {alone}");

    let service = start(LATER);
    line.aim(port(&service));
    counter.press_enter();
    let said = counter.closes();
    // Of the two one was sent, and nobody recorded it; so there is something left for this person.
    let after = said.split("start the service again").nth(1).unwrap();
    in_this_order(after, &["session      seat 0", "settled      ", "SELL         1 to 810305-1******, receipt "]);
    assert!(!said.contains("uploaded"), "{said}");
    assert_eq!(after.matches("settled").count(), 1, "{after}");
    service.stop();
}

#[test]
fn the_python_example_sells_through_an_outage() {
    a_morning_with_an_outage(python());
}

#[test]
fn the_typescript_example_sells_through_an_outage() {
    a_morning_with_an_outage(typescript());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_resolves_a_lost_answer_and_stops_where_it_must() {
    a_lost_answer_and_a_programme_that_stops(python()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_example_resolves_a_lost_answer_and_stops_where_it_must() {
    a_lost_answer_and_a_programme_that_stops(typescript()).await;
}
