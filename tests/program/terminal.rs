//! The counter program at a terminal, which `script` of util-linux makes: keys go in, a sale is in the ledger, and the terminal is given back.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::service::{Service, rationd};
use super::shops::{PROGRAMME, SATURDAY, SITES};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// A made-up person, whose check digit fits.
const NUMBER: &str = "810305-1000112";
/// What a terminal is told when the screen it had is to come back.
const GIVEN_BACK: &str = "\u{1b}[?1049l";

/// A clerk in front of the program.
struct Clerk {
    program: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<String>>,
}

impl Clerk {
    fn sits_down(directory: &Path, service: &Service) -> Self {
        let options = format!(
            "--address {} --site {} --programme {PROGRAMME} --clock {SATURDAY} --usual 2 --language en",
            service.address, SITES[0]
        );
        let command = format!("stty cols 80 rows 24; exec {} terminal {options}", env!("CARGO_BIN_EXE_rationd"));
        let mut program = Command::new("script")
            .args(["-qefc", &command, "/dev/null"])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` of util-linux makes a terminal: install it");
        let (keys, mut shown) = (program.stdin.take().unwrap(), program.stdout.take().unwrap());
        let seen = Arc::new(Mutex::new(String::new()));
        let into = seen.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read) = shown.read(&mut bytes) {
                if read == 0 {
                    return;
                }
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { program, keys, seen }
    }

    fn presses(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
        // A second Enter of the same moment would not be the clerk's.
        thread::sleep(Duration::from_millis(300));
    }

    /// Waits for what was blank before, of which all is drawn.
    fn sees(&self, what: &str) {
        let begun = Instant::now();
        while !self.seen.lock().unwrap().contains(what) {
            assert!(begun.elapsed() < PATIENCE, "{what} is not seen in {:?}", self.seen.lock().unwrap());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The exit code, and all that was seen.
    fn leaves(mut self) -> (Option<i32>, String) {
        self.presses("q");
        self.presses("\r");
        let code = self.program.wait().unwrap().code();
        let seen = self.seen.lock().unwrap().clone();
        (code, seen)
    }
}

#[test]
fn a_clerk_sells_at_a_terminal_and_gives_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let mut clerk = Clerk::sits_down(directory.path(), &service);
    clerk.sees("Session open (seat 0)");
    clerk.presses(&format!("{NUMBER}\r"));
    clerk.sees("MAY BUY:");
    clerk.presses("\r");
    let asked = ["check", "--programme", PROGRAMME, "--site", SITES[0], "--quantity", "1"];
    let begun = Instant::now();
    let refused = loop {
        let ran = service.call(&asked, &format!("{NUMBER}\n"));
        if ran.code == 1 {
            break ran;
        }
        assert!(begun.elapsed() < PATIENCE, "not sold: {ran:?}");
    };
    assert!(refused.out.contains("QUOTA_EXHAUSTED") && refused.out.contains("earlier  2 on "), "{refused:?}");
    let (code, seen) = clerk.leaves();
    assert_eq!((code, seen.contains(GIVEN_BACK)), (Some(0), true));
    assert!(!seen.contains("000112"), "what is hidden of a number is never drawn");
    service.stop();
}

#[test]
fn without_a_terminal_it_says_what_it_takes() {
    let directory = tempfile::tempdir().unwrap();
    let ran = rationd(directory.path(), &["terminal", "--address", "http://127.0.0.1:1"], "");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("takes a terminal, with a keyboard"), "{ran:?}");
}

/// The state of a process, as the kernel tells it; `None`: it is gone.
fn state(process: &str) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    status.rsplit_once(") ")?.1.chars().next()
}

/// A window that is closed under it, or a line to it that is cut.
#[test]
fn it_ends_with_its_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let mut clerk = Clerk::sits_down(directory.path(), &service);
    clerk.sees("Type or scan");
    let script = clerk.program.id();
    let children = std::fs::read_to_string(format!("/proc/{script}/task/{script}/children")).unwrap();
    let program = children.split_whitespace().next().unwrap().to_owned();
    assert!(state(&program).is_some_and(|state| state != 'Z'), "it runs");
    clerk.program.kill().unwrap();
    clerk.program.wait().unwrap();
    let begun = Instant::now();
    while state(&program).is_some_and(|state| state != 'Z') {
        assert!(begun.elapsed() < PATIENCE, "it goes on without a terminal");
        thread::sleep(Duration::from_millis(50));
    }
    service.stop();
}
