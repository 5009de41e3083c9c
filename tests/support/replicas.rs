//! A primary with replicas and the Sentinels that watch over it: real processes on free ports, durable and guarded as the
//! service wants them, ended by their ids. Everybody reaches a server through its [`Front`], which can cut it off from some of
//! them, or hold up what it sends to one: servers and Sentinels call from addresses of their own.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::redis::{DURABLE, free_port};

/// The name that the primary is watched under.
const NAME: &str = "store";
/// After so long without an answer a server is held to be down, milliseconds.
const DOWN_AFTER_MS: u32 = 1_500;
/// How often a Sentinel asks a server who it is, and says who it holds to be the primary, milliseconds. By themselves they take
/// 10,000 and 2,000: what is down is found as late, and a server that comes back is made a replica ten seconds later.
const SENTINELS_LOOK: [&str; 4] = ["info-period", "1000", "publish-period", "500"];

/// A server or a Sentinel.
pub struct Process {
    pub port: u16,
    /// What starts redis-server: words before its name that end in becoming it, none as a rule.
    before: Vec<String>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub(super) fn start(port: u16, arguments: Vec<String>, log: PathBuf) -> Self {
        Self::start_behind(&[], port, arguments, log)
    }

    fn start_behind(before: &[String], port: u16, arguments: Vec<String>, log: PathBuf) -> Self {
        let mut process = Self { port, before: before.to_vec(), arguments, log, child: None };
        process.start_again();
        process
    }

    /// After [`Process::kill`], over the data that it has.
    pub fn start_again(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut words = self.before.iter().map(String::as_str).chain(["redis-server"]);
        let mut command = Command::new(words.next().expect("at least the last"));
        let child = command.args(words).args(&self.arguments).stdout(log).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server is needed on PATH; tests/run installs it"));
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "it did not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, also of one that is stopped.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let Some(child) = &self.child else { return };
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    }

    /// One command, outside of any service; `None` if it does not answer.
    pub async fn tell<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(1)));
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.ok()?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.ok()
    }

    /// One line of its `INFO replication`.
    pub async fn info(&self, name: &str) -> Option<String> {
        let info: String = self.tell(&["INFO", "replication"]).await?;
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Who calls a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// All other servers.
    Servers,
    /// This one of them.
    Server(usize),
    Sentinels,
    Instances,
}

impl Side {
    pub const ALL: [Self; 3] = [Self::Servers, Self::Sentinels, Self::Instances];

    /// Servers call from 127.0.1.1 and the addresses after it, Sentinels from 127.0.2.1.
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) if address.octets()[2] == 1 => Self::Server(usize::from(address.octets()[3]) - 1),
            IpAddr::V4(address) if address.octets()[2] == 2 => Self::Sentinels,
            _ => Self::Instances,
        }
    }
}

/// What a front does to what it carries.
#[derive(Debug, Clone, Default)]
struct Weather {
    cut: BTreeSet<Side>,
    /// What the server sends to these arrives so much later.
    late: Option<(Side, Duration)>,
}

impl Weather {
    /// When what was read at this time passes; `None`: not while it is so.
    fn passes(&self, side: Side, to_caller: bool, read: Instant) -> Option<Instant> {
        let is_of = |all: Side| all == side || (all == Side::Servers && matches!(side, Side::Server(_)));
        match self.late {
            _ if self.cut.iter().copied().any(is_of) => None,
            Some((held_up, late)) if to_caller && is_of(held_up) => Some(read + late),
            _ => Some(read),
        }
    }
}

/// Where a server is reached. Whoever is cut off is not told: nothing arrives any more, in either direction.
pub struct Front {
    port: u16,
    weather: watch::Sender<Weather>,
    _accepting: AbortOnDropHandle<()>,
}

impl Front {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = watch::Sender::new(Weather::default());
        let watched = weather.clone();
        let accepting = tokio::spawn(async move {
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((caller, from)) = listener.accept().await {
                while carried.try_join_next().is_some() {}
                let (side, weather) = (Side::of(from.ip()), watched.subscribe());
                carried.spawn(async move {
                    let Ok(server) = tokio::net::TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let _ = (caller.set_nodelay(true), server.set_nodelay(true));
                    let ((from_caller, to_caller), (from_server, to_server)) =
                        (caller.into_split(), server.into_split());
                    tokio::select! {
                        () = carry(from_caller, to_server, (side, false), weather.clone()) => {}
                        () = carry(from_server, to_caller, (side, true), weather) => {}
                    }
                });
            }
        });
        Self { port, weather, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Nothing passes between the server and these.
    pub fn cut_off(&self, sides: &[Side]) {
        self.weather.send_modify(|weather| weather.cut = sides.iter().copied().collect());
    }

    /// What the server sends to these arrives so much later, in order and with nothing lost; what they send arrives at once.
    pub fn hold_up(&self, side: Side, late: Duration) {
        self.weather.send_modify(|weather| weather.late = Some((side, late)));
    }

    /// Everything passes, also what was sent meanwhile.
    pub fn heal(&self) {
        self.weather.send_replace(Weather::default());
    }
}

/// Ends when either end does, and never while it is cut.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (side, to_caller): (Side, bool),
    mut weather: watch::Receiver<Weather>,
) {
    let (queue, mut queued) = mpsc::unbounded_channel();
    let read = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // Nothing: the end.
            let read = from.read(&mut buffer).await.unwrap_or(0);
            let _ = queue.send((Instant::now(), buffer[..read].to_vec()));
            if read == 0 {
                std::future::pending::<()>().await;
            }
        }
    };
    let write = async {
        while let Some((read, bytes)) = queued.recv().await {
            loop {
                let passes = weather.borrow_and_update().passes(side, to_caller, read);
                let changed = match passes {
                    None => weather.changed().await,
                    Some(passes) if passes <= Instant::now() => break,
                    Some(passes) => match tokio::time::timeout_at(passes.into(), weather.changed()).await {
                        Ok(changed) => changed,
                        Err(_) => break,
                    },
                };
                if changed.is_err() {
                    return;
                }
            }
            if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

/// One primary, some replicas, three Sentinels.
pub struct Replicas {
    /// The servers; the first begins as the primary.
    pub servers: Vec<Process>,
    /// Where each of them is reached.
    pub fronts: Vec<Front>,
    pub sentinels: Vec<Process>,
    dir: TempDir,
}

impl Replicas {
    /// With so many replicas, and returns when the Sentinels know all of them and each other.
    pub async fn start(replicas: usize) -> Self {
        Self::start_behind(&vec![Vec::new(); replicas + 1]).await
    }

    /// The same, each server started by words of its own, which must end in becoming redis-server: `env NAME=VALUE`.
    pub async fn start_behind(words: &[Vec<String>]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut servers, mut fronts) = (Vec::new(), Vec::<Front>::new());
        for (nth, before) in words.iter().enumerate() {
            let port = free_port();
            let of = fronts.first().map(|primary| primary.port);
            fronts.push(Front::before(port).await);
            servers.push(Process::start_behind(
                before,
                port,
                server(dir.path(), nth, (port, fronts[nth].port), of),
                dir.path().join(format!("server-{nth}.log")),
            ));
        }
        let primary = fronts[0].port;
        let sentinels = (0..3)
            .map(|nth| {
                let port = free_port();
                let conf = dir.path().join(format!("sentinel-{nth}.conf"));
                std::fs::write(&conf, sentinel(port, primary)).unwrap();
                let arguments = vec![conf.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
                Process::start(port, arguments, dir.path().join(format!("sentinel-{nth}.log")))
            })
            .collect();
        let group = Self { servers, fronts, sentinels, dir };
        group.whole().await;
        group
    }

    /// Where a server is reached.
    pub fn address(&self, nth: usize) -> String {
        format!("127.0.0.1:{}", self.fronts[nth].port)
    }

    /// As a store URL.
    pub fn url(&self) -> String {
        let sentinels: Vec<String> = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
        format!("redis+sentinel://{}/{NAME}", sentinels.join(","))
    }

    /// Which server most Sentinels hold to be the primary.
    pub async fn primary(&self) -> Option<usize> {
        let mut named = Vec::new();
        for sentinel in &self.sentinels {
            let address: Option<(String, u16)> = sentinel.tell(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await;
            named.extend(address.and_then(|(_, port)| self.fronts.iter().position(|front| front.port == port)));
        }
        named.iter().copied().find(|nth| named.iter().filter(|it| *it == nth).count() * 2 > self.sentinels.len())
    }

    /// Waits for a primary that is another server than this one.
    pub async fn replaced(&self, old: usize) -> usize {
        let started = Instant::now();
        loop {
            match self.primary().await {
                Some(now) if now != old => return now,
                _ => assert!(started.elapsed() < Duration::from_secs(30), "no failover; see {}", self.logs()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Has the Sentinels choose this replica at the next failover, and returns when all of them know.
    pub async fn prefer(&self, chosen: usize) {
        let priority = |nth| if nth == chosen { "1" } else { "100" };
        for (nth, server) in self.servers.iter().enumerate() {
            let set: Option<String> = server.tell(&["CONFIG", "SET", "replica-priority", priority(nth)]).await;
            assert!(set.is_some(), "server {nth} does not answer");
        }
        let started = Instant::now();
        for sentinel in &self.sentinels {
            let knows = |it: &HashMap<String, String>| {
                let nth = self.fronts.iter().position(|front| it["port"] == front.port.to_string());
                nth.is_some_and(|nth| it["slave-priority"] == priority(nth))
            };
            while !replicas_of(sentinel).await.is_some_and(|all| all.iter().all(knows)) {
                assert!(started.elapsed() < Duration::from_secs(30), "it is not preferred; see {}", self.logs());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Has the Sentinels publish every so many milliseconds, until they are whole the next time. Four times as long after they have heard
    /// of a primary that another has replaced they make it a replica.
    pub async fn publish_every(&self, ms: &str) {
        for sentinel in &self.sentinels {
            let _: String = sentinel.tell(&["SENTINEL", "DEBUG", "publish-period", ms]).await.expect("a Sentinel");
        }
    }

    /// Returns when every server is there, all but one replicate the primary of all Sentinels, and none is held to be down.
    pub async fn whole(&self) {
        for sentinel in &self.sentinels {
            // One that was started again has forgotten it.
            let _: Option<String> = sentinel.tell(&[&["SENTINEL", "DEBUG"][..], &SENTINELS_LOOK].concat()).await;
        }
        let started = Instant::now();
        while !self.is_whole().await {
            assert!(started.elapsed() < Duration::from_secs(90), "not whole; see {}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether that is so now.
    pub async fn is_whole(&self) -> bool {
        let Some(primary) = self.primary().await else { return false };
        for (nth, server) in self.servers.iter().enumerate() {
            let (name, wanted) = match nth == primary {
                true => ("connected_slaves", (self.servers.len() - 1).to_string()),
                false => ("master_link_status", "up".to_owned()),
            };
            if server.info(name).await != Some(wanted) {
                return false;
            }
        }
        for sentinel in &self.sentinels {
            let replicas = replicas_of(sentinel).await;
            let up = |it: &HashMap<String, String>| !it["flags"].contains("down") && it["master-link-status"] == "ok";
            let others: Option<Vec<redis::Value>> = sentinel.tell(&["SENTINEL", "SENTINELS", NAME]).await;
            if replicas.is_none_or(|all| all.iter().filter(|it| up(it)).count() + 1 != self.servers.len())
                || others.is_none_or(|all| all.len() + 1 != self.sentinels.len())
            {
                return false;
            }
        }
        true
    }

    /// The end of every log, for a test that fails.
    fn logs(&self) -> String {
        let mut text = String::new();
        for log in self.servers.iter().chain(&self.sentinels).map(|it| &it.log) {
            let all = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = all.lines().collect();
            let _ = writeln!(text, "{}:\n{}", log.display(), lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        let _ = writeln!(text, "in {}", self.dir.path().display());
        text
    }
}

/// The replicas as this Sentinel sees them.
async fn replicas_of(sentinel: &Process) -> Option<Vec<HashMap<String, String>>> {
    sentinel.tell(&["SENTINEL", "REPLICAS", NAME]).await
}

fn server(dir: &Path, nth: usize, (port, front): (u16, u16), of: Option<u16>) -> Vec<String> {
    let data = dir.join(format!("server-{nth}"));
    std::fs::create_dir(&data).unwrap();
    let (port, front, source) = (port.to_string(), front.to_string(), format!("127.0.1.{}", nth + 1));
    let mut arguments: Vec<&str> = vec!["--port", &port, "--bind", "127.0.0.1", "--protected-mode", "no", "--save", ""];
    arguments.extend(["--maxmemory-policy", "noeviction", "--dir", data.to_str().unwrap()]);
    arguments.extend(DURABLE);
    arguments.extend(["--bind-source-addr", &source, "--replica-announce-ip", "127.0.0.1"]);
    arguments.extend(["--replica-announce-port", &front]);
    arguments.extend([
        "--min-replicas-to-write",
        "1",
        "--min-replicas-max-lag",
        "2",
        "--repl-diskless-sync-delay",
        "0",
    ]);
    let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    if let Some(primary) = of {
        arguments.extend(["--replicaof".to_owned(), "127.0.0.1".to_owned(), primary.to_string()]);
    }
    arguments
}

fn sentinel(port: u16, primary: u16) -> String {
    format!(
        "port {port}\nbind 127.0.0.1\nbind-source-addr 127.0.2.1\nprotected-mode no\nsentinel announce-ip 127.0.0.1\n\
         sentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 3000\n\
         sentinel parallel-syncs {NAME} 2\n"
    )
}
