//! A real redis-server of its own for a test: started on a free port, durable as production must be, killed by its pid.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rationd::ledger::redis::Lanes;
use tempfile::TempDir;

/// The settings that the service insists on (`design.md` section 7).
pub const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "no"];

/// A running redis-server, its data directory and its port. Dropping it kills the process and removes the data.
pub struct RedisServer {
    port: u16,
    dir: TempDir,
    /// What starts redis-server: words before its name that end in becoming it (`env`, `sh -c 'exec …'`).
    before: Vec<String>,
    settings: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// A server with the settings that the service insists on.
    pub fn start() -> Self {
        Self::start_with(DURABLE)
    }

    /// A server with these settings instead, as command line arguments of redis-server.
    pub fn start_with(settings: &[&str]) -> Self {
        Self::start_behind(&[], settings)
    }

    /// The same, started by these words, which must end in becoming redis-server: `env NAME=VALUE`.
    pub fn start_behind(before: &[&str], settings: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let mut server = Self {
            port: free_port(),
            dir: tempfile::tempdir().expect("a temporary directory"),
            before: owned(before),
            settings: owned(settings),
            child: None,
        };
        server.restart();
        server
    }

    /// Where it listens, as a store URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The port alone, for redis-cli.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory, where the append-only files are.
    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    /// The process, for signals other than kill.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// SIGKILL: no farewell, no flush.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the process again on the same port and data; returns when it answers.
    pub fn restart(&mut self) {
        self.launch();
        let started = Instant::now();
        while !answers(self.port) {
            assert!(started.elapsed() < Duration::from_secs(20), "redis-server did not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the process again and does not wait for it: it may have a reason to end.
    pub fn launch(&mut self) {
        self.kill();
        let mut words = self.before.iter().map(String::as_str).chain(["redis-server"]);
        let child = Command::new(words.next().expect("at least the last"))
            .args(words)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--protected-mode", "no"])
            .args(["--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is needed on PATH; tests/run installs it");
        self.child = Some(child);
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some()))
    }

    /// The file that it appends to.
    pub fn log_file(&self) -> PathBuf {
        let folder = std::fs::read_dir(self.data().join("appendonlydir")).expect("it appends");
        let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with(".incr.aof"));
        files.sort();
        files.pop().expect("it appends")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port").local_addr().expect("an address").port()
}

/// Whether the server answers PING with PONG: it accepts connections while it still loads its data.
fn answers(port: u16) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut reply = [0; 5];
    stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut reply).is_ok() && &reply == b"+PONG"
}

/// Few lanes, so that calls share trips even in small tests.
pub fn lanes() -> Lanes {
    let size = |n| NonZeroUsize::new(n).expect("not zero");
    Lanes { count: size(2), group: size(256), queue: size(4_096) }
}
