//! Further processes: this test binary started again with an order in its environment, so that a test can kill a terminal.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{files, kills};
use rationd::config::environment;

const ORDER: &str = "RATIOND_TEST_WORKER";

/// A process of this binary that carries out an order. Dropping it kills it.
pub struct Worker {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts one with an order: its kind and its arguments, separated by spaces.
    pub fn start(order: &str) -> Self {
        Self::start_as(Command::new(std::env::current_exe().unwrap()), order)
    }

    /// The same, whose files may become no longer than so many blocks of 512 bytes: a write beyond fails, as on a full disk.
    pub fn start_on_a_full_disk(blocks: u32, order: &str) -> Self {
        let mut command = Command::new("sh");
        let line = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &line]).arg(std::env::current_exe().unwrap());
        Self::start_as(command, order)
    }

    fn start_as(mut command: Command, order: &str) -> Self {
        let mut child = command
            .args(["--exact", "counter::workers::worker", "--nocapture"])
            .env(ORDER, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// Tells the worker something.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap();
    }

    /// The next thing that it says; `None` when it has ended. A line that the worker's death cut off is not said.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            let line = self.said.next()?.ok()?;
            if let Some(said) = line.strip_prefix('@').and_then(|said| said.strip_suffix('.')) {
                return Some(said.to_owned());
            }
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Says something to the process that started this one, in one write.
pub fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{words}.\n").as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// The next line from the process that started this one.
pub fn listen() -> String {
    std::io::stdin().lines().next().unwrap().unwrap()
}

/// A setting of this run.
pub fn setting(name: &str) -> Option<String> {
    let found = environment().find(|(variable, _)| variable == name);
    found.map(|(_, value)| value.into_string().unwrap())
}

/// What a started process does. In an ordinary run there is no order and nothing to do.
#[test]
fn worker() {
    let Some(order) = setting(ORDER) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    match words.as_slice() {
        ["write", journal, day] => kills::write_until_killed(journal, day.parse().unwrap()),
        ["fill", journal] => files::fill(journal),
        ["sell-until-full", address, journal] => files::sell_until_full(address, journal),
        ["sell", address, journal] => kills::sell_once(address, journal),
        other => panic!("an order of {other:?}"),
    }
}
