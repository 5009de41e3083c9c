//! A Redis Cluster: real processes on free ports, durable and guarded as the service wants them, put together by redis-cli and
//! ended by their ids.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::redis::{DURABLE, free_port};
use super::replicas::Process;

/// After so long without an answer a node is held to be down, milliseconds.
const NODE_TIMEOUT_MS: u32 = 1_500;

/// Primaries and their replicas.
pub struct Nodes {
    pub all: Vec<Process>,
    dir: TempDir,
}

/// A line of `CLUSTER NODES`.
#[derive(Debug, Clone)]
pub struct Line {
    pub id: String,
    /// Which process it is.
    pub nth: usize,
    pub replicates: Option<String>,
    pub has_slots: bool,
}

impl Nodes {
    /// Three shards with so many replicas each; returns when every slot is held and every replica attached.
    pub async fn start(replicas: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let all = (0..3 * (1 + replicas)).map(|nth| node(dir.path(), nth)).collect();
        let nodes = Self { all, dir };
        let mut words: Vec<String> = ["--cluster", "create"].map(str::to_owned).into();
        words.extend(nodes.all.iter().map(|it| format!("127.0.0.1:{}", it.port)));
        words.extend(["--cluster-replicas".to_owned(), replicas.to_string(), "--cluster-yes".to_owned()]);
        nodes.redis_cli(&words);
        nodes.whole().await;
        nodes
    }

    /// As a store URL: not all of them are named.
    pub fn url(&self) -> String {
        format!(
            "redis+cluster://127.0.0.1:{},127.0.0.1:{},127.0.0.1:{}/",
            self.all[0].port, self.all[1].port, self.all[2].port
        )
    }

    /// redis-cli does this, as soon as all nodes agree on who holds what.
    pub fn redis_cli(&self, words: &[String]) {
        let started = Instant::now();
        loop {
            let said = Command::new("redis-cli").args(words).output().expect("redis-cli comes with redis-server");
            if said.status.success() {
                return;
            }
            let text = String::from_utf8_lossy(&said.stdout);
            let may_settle = text.contains("Nodes don't agree") && started.elapsed() < Duration::from_secs(20);
            assert!(may_settle, "{words:?}: {text}{}", String::from_utf8_lossy(&said.stderr));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The nodes as the first one that answers sees them.
    pub async fn lines(&self) -> Vec<Line> {
        for process in &self.all {
            if let Some(text) = process.tell::<String>(&["CLUSTER", "NODES"]).await {
                return self.read(&text);
            }
        }
        panic!("no node answers; see {}", self.dir.path().display());
    }

    fn read(&self, text: &str) -> Vec<Line> {
        let line = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let port: u16 = words[1].split('@').next()?.rsplit_once(':')?.1.parse().ok()?;
            Some(Line {
                id: words[0].to_owned(),
                nth: self.all.iter().position(|it| it.port == port)?,
                replicates: (words[3] != "-").then(|| words[3].to_owned()),
                has_slots: words.len() > 8,
            })
        };
        text.lines().filter_map(line).collect()
    }

    /// The primaries that hold slots, in the order of their ports, each with its replicas.
    pub async fn shards(&self) -> BTreeMap<usize, Vec<usize>> {
        let lines = self.lines().await;
        let replicas = |id: &String| {
            lines.iter().filter(|it| it.replicates.as_ref() == Some(id)).map(|it| it.nth).collect::<Vec<_>>()
        };
        lines.iter().filter(|it| it.has_slots).map(|it| (it.nth, replicas(&it.id))).collect()
    }

    /// The primary that has something under this tag.
    pub async fn keeper(&self, tag: &str) -> usize {
        let slot: u16 = self.all[0].tell(&["CLUSTER", "KEYSLOT", tag]).await.unwrap();
        for (primary, _) in self.shards().await {
            let keys: u64 = self.all[primary].tell(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await.unwrap();
            if keys > 0 {
                return primary;
            }
        }
        panic!("nobody has anything under {tag}");
    }

    /// Waits until this one is the primary of nothing any more.
    pub async fn replaced(&self, old: usize) {
        let started = Instant::now();
        loop {
            // It may say so of itself for a while: another is asked.
            let other = &self.all[(old + 1) % self.all.len()];
            if let Some(text) = other.tell::<String>(&["CLUSTER", "NODES"]).await
                && self.read(&text).iter().any(|line| line.nth == old && !line.has_slots)
            {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "no failover; see {}", self.dir.path().display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns when every node knows who holds what, and every replica is attached.
    pub async fn whole(&self) {
        let started = Instant::now();
        while !self.is_whole().await {
            assert!(started.elapsed() < Duration::from_secs(60), "not whole; see {}", self.dir.path().display());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn is_whole(&self) -> bool {
        let of_each = self.all.len() / 3 - 1;
        for process in &self.all {
            let Some(text) = process.tell::<String>(&["CLUSTER", "NODES"]).await else { return false };
            let Some(state) = process.tell::<String>(&["CLUSTER", "INFO"]).await else { return false };
            if text.contains("fail") || text.contains("handshake") || !state.contains("cluster_state:ok") {
                return false;
            }
            // It may have heard that a node is there and not yet whose replica it is.
            if self.read(&text).iter().filter(|line| line.replicates.is_some()).count() != 3 * of_each {
                return false;
            }
            let attached = match process.info("role").await.as_deref() {
                Some("master") => process.info("connected_slaves").await == Some(of_each.to_string()),
                _ => process.info("master_link_status").await.as_deref() == Some("up"),
            };
            if !attached {
                return false;
            }
        }
        true
    }

    /// Kills a node and takes away all that it has, but not its name.
    pub fn empty(&mut self, nth: usize) {
        self.all[nth].kill();
        let data: PathBuf = self.dir.path().join(format!("node-{nth}")).join("appendonlydir");
        std::fs::remove_dir_all(data).unwrap();
    }
}

fn node(dir: &Path, nth: usize) -> Process {
    let (data, port) = (dir.join(format!("node-{nth}")), free_port());
    std::fs::create_dir(&data).unwrap();
    let (text, bus) = (port.to_string(), free_port().to_string());
    let mut arguments = vec!["--port", &text, "--bind", "127.0.0.1", "--protected-mode", "no", "--save", ""];
    arguments.extend(["--maxmemory-policy", "noeviction", "--dir", data.to_str().unwrap()]);
    arguments.extend(DURABLE);
    let timeout = NODE_TIMEOUT_MS.to_string();
    arguments.extend(["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", &timeout]);
    arguments.extend(["--cluster-require-full-coverage", "no", "--min-replicas-to-write", "1"]);
    arguments.extend(["--min-replicas-max-lag", "2", "--repl-diskless-sync-delay", "0"]);
    Process::start(port, arguments.into_iter().map(str::to_owned).collect(), dir.join(format!("node-{nth}.log")))
}
