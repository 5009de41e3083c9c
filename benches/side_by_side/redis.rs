//! A redis-server of the run's own, with the settings that the service insists on.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::processes::{Cpu, Process};
use crate::Failure;

/// What the service insists on. The append-only file is not rewritten while others are measured: that is a matter of
/// minutes in a day, and would meet one of them and not the others.
pub const DURABLE: [&str; 8] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--no-appendfsync-on-rewrite",
    "no",
    "--auto-aof-rewrite-percentage",
    "0",
];

/// The name that a primary is watched under.
pub const WATCHED: &str = "store";
/// How long the server may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. Its files go with it.
pub struct Redis {
    process: Process,
    port: u16,
    _files: TempDir,
}

impl Redis {
    pub async fn start(settings: &[&str]) -> Result<Self, Failure> {
        let store = ["--save", "", "--maxmemory-policy", "noeviction"];
        Self::launch(tempfile::tempdir()?, &[&store, settings].concat()).await
    }

    /// One of the Sentinels that watch over this primary. Nobody is to fail over while something is measured, so it is as
    /// patient as it is without being told.
    pub async fn sentinel(primary: &Self) -> Result<Self, Failure> {
        let files = tempfile::tempdir()?;
        std::fs::write(
            files.path().join("sentinel.conf"),
            format!("sentinel monitor {WATCHED} 127.0.0.1 {} 2\n", primary.port),
        )?;
        Self::launch(files, &["sentinel.conf", "--sentinel"]).await
    }

    /// A file with settings comes first, if there is one.
    async fn launch(files: TempDir, settings: &[&str]) -> Result<Self, Failure> {
        let port = free_port()?;
        let process = Process::start(
            Command::new("redis-server")
                .args(settings)
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
                .current_dir(&files)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )?;
        let redis = Self { process, port, _files: files };
        let begun = Instant::now();
        while redis.connect().await.is_err() {
            if begun.elapsed() > PATIENCE {
                return Err("redis-server does not answer".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(redis)
    }

    /// Where it listens, as a store URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn process(&self) -> u32 {
        self.process.id()
    }

    pub fn cpu(&self) -> Cpu {
        Cpu::Of(self.process())
    }

    pub async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    }
}

/// A port of loopback that nobody listens on now.
pub fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
