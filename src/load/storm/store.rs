//! A Redis of the harness's own: a child process on loopback whose every write is synced, in the run's directory.
//!
//! Beside starting and stopping it, the harness asks it one thing, in words that need no client: how many seats and places
//! there are. What services and terminals believe is one thing, what the store grants another.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::load::target::LoadError;

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// An answer that takes longer than this is not waited for.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// Where seats and places are counted, as `session/redis/keys.rs` names them: seats, places of those who are there, places of
/// those who are absent.
const COUNTS: [&str; 3] = ["{door}:renewed", "{door}:present", "{door}:absent"];

/// What the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Seats.
    pub(super) live: u64,
    /// Places.
    pub(super) line: u64,
}

/// A Redis that runs.
pub(super) struct Store {
    child: Mutex<Child>,
    port: u16,
    asked: Mutex<Option<BufReader<TcpStream>>>,
}

impl Store {
    /// Starts it in this directory and waits until it answers.
    pub(super) async fn start(directory: &Path) -> Result<Self, LoadError> {
        // Free now; whoever takes it before the server does makes the start fail, and says so.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port =
            port.map_err(|error| LoadError::Failed(format!("redis-server has no port to listen on: {error}")))?;
        Self::start_on(directory, port.port()).await
    }

    /// Starts another one where this one was, over what it has written.
    pub(super) async fn start_again(&self, directory: &Path) -> Result<Self, LoadError> {
        Self::start_on(directory, self.port).await
    }

    async fn start_on(directory: &Path, port: u16) -> Result<Self, LoadError> {
        let failed = |what: String| LoadError::Failed(format!("redis-server {what}"));
        let log = directory.join("redis.log");
        let output = std::fs::File::create(&log).map_err(|error| failed(format!("has no log: {error}")))?;
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--protected-mode", "no", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"])
            .arg("--dir")
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => LoadError::Unfit(
                    "redis-server is needed on PATH, 7.0 or newer: a historic morning is played on a Redis of its own"
                        .into(),
                ),
                _ => failed(format!("cannot be started: {error}")),
            })?;
        let store = Self { child: Mutex::new(child), port, asked: Mutex::new(None) };
        let answers = async {
            while store.look().await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, answers).await {
            Ok(()) => Ok(store),
            Err(_) => {
                Err(failed(format!("does not answer; it said:\n{}", std::fs::read_to_string(&log).unwrap_or_default())))
            }
        }
    }

    /// As a service is told of it.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// How many seats and places there are; `None` where it does not say.
    pub(super) async fn look(&self) -> Option<Seen> {
        let mut asked = self.asked.lock().await;
        let seen = tokio::time::timeout(LOOK_PATIENCE, async {
            let connection = match asked.take() {
                Some(connection) => connection,
                None => BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await.ok()?),
            };
            counts(connection).await
        });
        let (connection, [live, present, absent]) = seen.await.ok().flatten()?;
        *asked = Some(connection);
        Some(Seen { live, line: present + absent })
    }

    /// Ends when it has ended, and says how.
    pub(super) async fn gone(&self) -> String {
        match self.child.lock().await.wait().await {
            Ok(status) => format!("redis-server ended: {status}"),
            Err(error) => format!("redis-server cannot be watched: {error}"),
        }
    }

    /// Stops it. Everything that counts has been synced.
    pub(super) async fn stop(&self) {
        // It fails only if the process has ended, which is what it is for.
        let _ = self.child.lock().await.kill().await;
    }
}

/// One question for all counts at once, so that they are of one moment or nearly so.
async fn counts(mut connection: BufReader<TcpStream>) -> Option<(BufReader<TcpStream>, [u64; 3])> {
    let question: String = COUNTS.map(|key| format!("ZCARD {key}\r\n")).concat();
    connection.get_mut().write_all(question.as_bytes()).await.ok()?;
    let mut numbers = [0; 3];
    for number in &mut numbers {
        let mut line = String::new();
        connection.read_line(&mut line).await.ok()?;
        *number = line.trim_end().strip_prefix(':')?.parse().ok()?;
    }
    Some((connection, numbers))
}
