//! Further processes: a test binary started again with an order in its environment, so that a test can race several of them, or kill
//! one.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use rationd::config::environment;

const ORDER: &str = "RATIOND_TEST_WORKER";

/// A process of this binary that carries out an order. Dropping it kills it.
pub struct Worker {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts one that runs this test of the binary, with an order: its kind and its arguments, separated by spaces.
    pub fn start(test: &str, order: &str) -> Self {
        Self::start_as(Command::new(std::env::current_exe().unwrap()), test, order)
    }

    /// The same, whose files may become no longer than so many blocks of 512 bytes: a write beyond fails, as on a full disk.
    pub fn start_on_a_full_disk(blocks: u32, test: &str, order: &str) -> Self {
        let mut command = Command::new("sh");
        let line = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        command.args(["-c", &line]).arg(std::env::current_exe().unwrap());
        Self::start_as(command, test, order)
    }

    fn start_as(mut command: Command, test: &str, order: &str) -> Self {
        let mut child = command
            .args(["--exact", test, "--nocapture"])
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

/// The order of this process; `None`: it is an ordinary run.
pub fn order() -> Option<String> {
    setting(ORDER)
}

/// A setting of this run.
pub fn setting(name: &str) -> Option<String> {
    let found = environment().find(|(variable, _)| variable == name);
    found.map(|(_, value)| value.into_string().unwrap())
}

/// Says something to the process that started this one, in one write.
pub fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{words}.\n").as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// The next line from the process that started this one; `None` when it has gone.
pub fn listen() -> Option<String> {
    std::io::stdin().lines().next()?.ok()
}
