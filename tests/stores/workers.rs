//! Further processes: this test binary started again with an order in its environment, so that a test can race several
//! service processes, or kill one.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::histories::setting;
use super::{crashes, files};

const ORDER: &str = "RATIOND_TEST_WORKER";

/// A process of this binary that carries out an order. Dropping it kills it.
pub struct Worker {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts one with an order: its kind and its arguments, separated by spaces.
    pub fn start(order: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stores::workers::worker", "--nocapture"])
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

/// The next line from the process that started this one; `None` when it has gone.
pub fn listen() -> Option<String> {
    std::io::stdin().lines().next()?.ok()
}

/// What a started process does. In an ordinary run there is no order and nothing to do.
#[test]
fn worker() {
    let Some(order) = setting(ORDER) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match words.as_slice() {
            ["sell", directory, from] => crashes::sell(directory, from.parse().unwrap()).await,
            ["keep-open", directory] => files::keep_open(directory),
            // Redis stands here: `["race-redis", url, process] => race::take_part(&ledger, process).await`.
            _ => panic!("no such order: {order}"),
        }
    });
}
