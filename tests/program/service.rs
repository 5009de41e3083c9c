//! A `rationd serve` of a test's own, and one-call commands against it. Every process is ended by its id.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rationd::config::environment;
use tempfile::TempDir;

/// On any free ports.
pub const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
/// How long a process may take to start, or a command to end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A service that listens.
pub struct Service {
    child: Child,
    logs: TempDir,
    /// What it printed when it began to listen.
    pub greeting: String,
    /// Where terminals call, as a URL; over TLS by the name that its certificate has.
    pub address: String,
    /// Where health and metrics are asked for, as HOST:PORT.
    pub admin: String,
    /// Where anybody asks for stock, as a URL; empty where that is another process's.
    pub feed: String,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Standard output as one JSON value.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Sets a command up so that nothing of the caller's environment that the program reads reaches it, but for the museum's choice.
fn prepare(command: &mut Command, directory: &Path) {
    for (name, _) in environment() {
        let told = name.to_string_lossy();
        let read = ["RATIOND_", "OTEL_", "TRACEPARENT", "TRACESTATE"].iter().any(|begins| told.starts_with(begins));
        if read && name != "RATIOND_MUTANT" {
            command.env_remove(name);
        }
    }
    command.current_dir(directory);
}

impl Service {
    /// `rationd serve` in this directory with these arguments and variables. Fails if it does not begin to listen.
    pub fn start(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_rationd")), directory, arguments, variables)
    }

    /// The same, of a process that a write beyond the limit of its files' size fails and does not kill.
    pub fn start_to_survive_full_disks(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rationd")]);
        Self::start_as(command, directory, arguments, variables)
    }

    /// The same, of a process that may have so many files open.
    pub fn start_with_files(most: usize, directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_rationd")]);
        Self::start_as(command, directory, arguments, variables)
    }

    /// The same, of a process whose memory would be written into a file if it crashed, whatever is usual on this machine.
    pub fn start_to_dump_core(directory: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rationd")]);
        Self::start_as(command, directory, &[], &[])
    }

    fn start_as(mut command: Command, directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let logs = tempfile::tempdir().unwrap();
        prepare(&mut command, directory);
        let into = |name| File::create(logs.path().join(name)).unwrap();
        // Whoever comes back to a port says which.
        let anywhere = if arguments.contains(&"--listen") { &ANYWHERE[2..] } else { &ANYWHERE };
        command.arg("serve").args(anywhere).args(arguments).envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(into("stdout")).stderr(into("stderr")).spawn().unwrap();
        let begun = Instant::now();
        let greeting = loop {
            let said = std::fs::read_to_string(logs.path().join("stdout")).unwrap();
            let complete = said.split_once("A first sale").map_or(
                said.contains("No programme sells") || said.contains("Counters are answered by other processes"),
                |(_, sale)| sale.lines().count() > 1,
            );
            if complete && said.ends_with('\n') {
                break said;
            }
            let ended = child.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let _ = child.kill();
                let complaint = std::fs::read_to_string(logs.path().join("stderr")).unwrap();
                panic!("the service did not begin to listen ({ended:?}): {said}{complaint}");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let after = |mark: &str| {
            let rest = &greeting[greeting.find(mark).unwrap() + mark.len()..];
            rest.split_whitespace().next().unwrap().to_owned()
        };
        let (counters, admin) = (after("listens on "), after("health and metrics  "));
        let address = match greeting.contains("over TLS") {
            true => format!("https://localhost:{}", counters.rsplit(':').next().unwrap()),
            false => format!("http://{counters}"),
        };
        let feed = match greeting.contains("stock, for anybody") {
            true => after("stock, for anybody  ").trim_end_matches('/').to_owned(),
            false => String::new(),
        };
        Self { child, logs, greeting, address, admin, feed }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.logs.path().join("stderr")).unwrap()
    }

    /// What it has logged once that says so: its lines are written by a thread of their own.
    pub fn log_that_says(&self, part: &str) -> String {
        let begun = Instant::now();
        loop {
            let log = self.log();
            if log.contains(part) {
                return log;
            }
            assert!(begun.elapsed() < PATIENCE, "{part} is not in the log:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGABRT, and how it ended.
    pub fn crash(mut self) -> ExitStatus {
        signal(self.pid(), "ABRT");
        self.child.wait().unwrap()
    }

    /// SIGTERM; does not wait.
    pub fn ask_to_stop(&self) {
        signal(self.pid(), "TERM");
    }

    /// Waits for the end and gives the exit code.
    pub fn ended(&mut self, within: Duration) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| -status.signal().unwrap_or_default());
            }
            assert!(begun.elapsed() < within, "the service still runs after {within:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and a clean end.
    pub fn stop(mut self) {
        self.ask_to_stop();
        assert_eq!(self.ended(PATIENCE), 0, "{}", self.log());
    }

    /// A one-call command against this service, with this on standard input.
    pub fn call(&self, arguments: &[&str], stdin: &str) -> Ran {
        rationd(self.logs.path(), &[arguments, &["--address", &self.address]].concat(), stdin)
    }

    /// Waits until `rationd health` gives this exit code.
    pub fn await_health(&self, code: i32) -> Ran {
        let begun = Instant::now();
        loop {
            let ran = self.call(&["health"], "");
            if ran.code == code {
                return ran;
            }
            assert!(begun.elapsed() < PATIENCE, "health stays {ran:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The page of metrics.
    pub fn metrics(&self) -> String {
        use std::io::Read;
        let mut stream = std::net::TcpStream::connect(&self.admin).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        page
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// `rationd` in this directory with these arguments and this on standard input.
pub fn rationd(directory: &Path, arguments: &[&str], stdin: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
    command.args(arguments);
    run(command, directory, stdin)
}

/// A line of shell in this directory.
pub fn shell(directory: &Path, line: &str) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    run(command, directory, "")
}

/// Runs a command to its end; one that does not end is killed and fails the test.
pub fn run(mut command: Command, directory: &Path, stdin: &str) -> Ran {
    prepare(&mut command, directory);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that never reads has ended already; that is for its caller to judge.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let pid = child.id();
    let (ended, output) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    match output.recv_timeout(PATIENCE) {
        Ok(output) => {
            let output = output.unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
        }
        Err(_) => {
            signal(pid, "KILL");
            panic!("{command:?} did not end in {PATIENCE:?}");
        }
    }
}

/// `rationd serve` that must end by itself, because something is wrong.
pub fn refused(directory: &Path, arguments: &[&str]) -> Ran {
    rationd(directory, &[&["serve"], &ANYWHERE[..], arguments].concat(), "")
}
