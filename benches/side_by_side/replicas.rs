//! A primary with two replicas and the three Sentinels that watch over them, set up as the service insists on.

use std::collections::HashMap;

use tokio::time::{Duration, Instant, sleep};

use super::processes::Cpu;
use super::redis::{DURABLE, PATIENCE, Redis, WATCHED};
use crate::Failure;

/// How many replicas there are.
const REPLICAS: usize = 2;
/// How many Sentinels there are.
const SENTINELS: usize = 3;
/// What the service insists on where there are replicas.
const GUARDED: [&str; 6] = [
    "--min-replicas-to-write",
    "1",
    "--min-replicas-max-lag",
    "2",
    // So that the start of a run does not wait for it.
    "--repl-diskless-sync-delay",
    "0",
];

/// All of them, running. They end with this.
pub struct Replicas {
    primary: Redis,
    replicas: [Redis; REPLICAS],
    sentinels: Vec<Redis>,
}

impl Replicas {
    /// Returns when all know of each other.
    pub async fn start() -> Result<Self, Failure> {
        let settings = [&DURABLE[..], &GUARDED].concat();
        let primary = Redis::start(&settings).await?;
        let port = primary.port().to_string();
        let settings = [&settings[..], &["--replicaof", "127.0.0.1", &port]].concat();
        let mut group = Self {
            replicas: [Redis::start(&settings).await?, Redis::start(&settings).await?],
            primary,
            sentinels: Vec::new(),
        };
        // A Sentinel looks for replicas at once and then every ten seconds.
        let begun = Instant::now();
        while !group.replicate().await? {
            patience(begun, "the replicas do not replicate").await?;
        }
        for _ in 0..SENTINELS {
            group.sentinels.push(Redis::sentinel(&group.primary).await?);
        }
        let begun = Instant::now();
        while !group.is_watched().await? {
            patience(begun, "the Sentinels do not find the replicas and each other").await?;
        }
        Ok(group)
    }

    async fn replicate(&self) -> Result<bool, Failure> {
        let mut connection = self.primary.connect().await?;
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        Ok(info.matches("state=online").count() == REPLICAS)
    }

    async fn is_watched(&self) -> Result<bool, Failure> {
        type Seen = Vec<HashMap<String, String>>;
        for sentinel in &self.sentinels {
            let mut connection = sentinel.connect().await?;
            let (replicas, others): (Seen, Seen) = redis::pipe()
                .cmd("SENTINEL")
                .arg("REPLICAS")
                .arg(WATCHED)
                .cmd("SENTINEL")
                .arg("SENTINELS")
                .arg(WATCHED)
                .query_async(&mut connection)
                .await?;
            let is_up = |it: &&HashMap<String, String>| it.get("master-link-status").is_some_and(|link| link == "ok");
            if replicas.iter().filter(is_up).count() != REPLICAS || others.len() + 1 != SENTINELS {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As a store URL.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
        format!("redis+sentinel://{}/{WATCHED}", hosts.join(","))
    }

    /// That of the three servers.
    pub fn cpu(&self) -> Cpu {
        let [first, second] = &self.replicas;
        Cpu::Three([&self.primary, first, second].map(Redis::process))
    }
}

/// A moment, as long as there is time.
async fn patience(begun: Instant, what: &str) -> Result<(), Failure> {
    if begun.elapsed() > PATIENCE {
        return Err(what.into());
    }
    sleep(Duration::from_millis(100)).await;
    Ok(())
}
