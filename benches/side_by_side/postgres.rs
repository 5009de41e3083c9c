//! What people would write instead: a table with a unique key and a function that sells with an idempotency key, in a
//! PostgreSQL of the run's own, driven by pgbench.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rationd::time::{Clock, SystemClock, Timestamp};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::measure::{Latencies, Measured, Parts, histogram};
use super::options::Options;
use super::processes::{Cpu, Process};
use super::redis::free_port;
use crate::Failure;

const SCHEMA: &str = "
CREATE TABLE sale (
    request_id uuid PRIMARY KEY,
    buyer bigint NOT NULL,
    site text NOT NULL,
    quantity integer NOT NULL,
    approved boolean NOT NULL DEFAULT true,
    sold_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE allowance (
    buyer bigint,
    week date,
    used integer NOT NULL,
    PRIMARY KEY (buyer, week)
);
CREATE FUNCTION claim(request uuid, who bigint, place text, n integer, most integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    this_week date := date_trunc('week', now())::date;
    yes boolean;
BEGIN
    INSERT INTO sale (request_id, buyer, site, quantity) VALUES (request, who, place, n)
        ON CONFLICT (request_id) DO NOTHING;
    IF NOT FOUND THEN
        SELECT approved INTO yes FROM sale WHERE request_id = request;
        RETURN yes;
    END IF;
    INSERT INTO allowance AS a (buyer, week, used) SELECT who, this_week, n WHERE n <= most
        ON CONFLICT (buyer, week) DO UPDATE SET used = a.used + n WHERE a.used + n <= most;
    yes := FOUND;
    IF NOT yes THEN
        UPDATE sale SET approved = false WHERE request_id = request;
    END IF;
    RETURN yes;
END $$;
";

/// A sale to a buyer of a number that nobody else has.
const SCRIPT: &str = "\\set buyer random(1, 9000000000000000)
SELECT claim(gen_random_uuid(), :buyer, '11000001', 1, 2);
";

/// Settings of a server that is made for this work; what a promise rests on stays as strict as Redis's.
const SETTINGS: [&str; 10] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=on",
    "synchronous_commit=on",
    "shared_buffers=1GB",
    // As with Redis, nothing is tidied while others are measured.
    "max_wal_size=16GB",
    "checkpoint_timeout=1h",
    "autovacuum=off",
    "max_connections=1100",
    "log_min_messages=fatal",
];

/// How long connections take to open, before anything is counted.
const OPENING: Duration = Duration::from_millis(2_500);
/// How long each number of clients is tried.
const TRIAL: Duration = Duration::from_secs(1);
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Its files go with it.
pub struct Postgres {
    programs: PathBuf,
    process: Process,
    port: u16,
    files: TempDir,
    /// How many clients it is measured with.
    pub clients: usize,
}

impl Postgres {
    /// `None` if PostgreSQL is not installed.
    pub async fn start(options: &Options) -> Result<Option<Self>, Failure> {
        let Some(programs) = programs() else { return Ok(None) };
        let files = tempfile::tempdir()?;
        // It refuses to run as root.
        let user = user_for_root()?;
        if let Some((user, group)) = user {
            chown(&files, Some(user), Some(group))?;
        }
        let as_user = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(&files).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if let Some((user, group)) = user {
                command.uid(user).gid(group);
            }
            command
        };
        let data = files.path().join("data");
        let made = as_user("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(&data)
            .stderr(Stdio::piped())
            .output()?;
        succeeded("initdb", &made)?;
        let port = free_port()?;
        let mut command = as_user("postgres");
        command.arg("-D").arg(&data).arg("-c").arg(format!("port={port}"));
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let process = Process::start(&mut command)?.ending_with("-QUIT");
        let mut postgres = Self { programs, process, port, files, clients: 0 };
        let begun = Instant::now();
        while postgres.ask("SELECT 1").is_err() {
            if begun.elapsed() > PATIENCE || !postgres.process.runs() {
                return Err("PostgreSQL does not answer".into());
            }
            sleep(Duration::from_millis(100)).await;
        }
        postgres.ask(SCHEMA)?;
        fs::write(postgres.script(), SCRIPT)?;
        postgres.choose_clients(options).await?;
        Ok(Some(postgres))
    }

    /// As many as there are calls in flight, or fewer where that is faster: it must not lose by its scheduling alone.
    async fn choose_clients(&mut self, options: &Options) -> Result<(), Failure> {
        let all = options.in_flight_each() * options.connections;
        let mut best = (0.0, all);
        for clients in [all, 128, 64, 32].into_iter().filter(|clients| *clients <= all) {
            self.clients = clients;
            let reached = self.measure(TRIAL).await?.per_second();
            eprintln!("postgres: {clients} clients give {reached:.0} a second");
            if reached > best.0 {
                best = (reached, clients);
            }
        }
        self.clients = best.1;
        Ok(())
    }

    pub async fn measure(&mut self, span: Duration) -> Result<Measured, Failure> {
        let logs = tempfile::tempdir()?;
        // Each counts for itself how long it ran; what is counted here lies inside.
        let seconds = (OPENING + span).as_secs() + 2;
        let running = tokio::process::Command::new(self.programs.join("pgbench"))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                "postgres",
                "-n",
                "-M",
                "prepared",
                "-j",
                "2",
            ])
            .args(["-c", &self.clients.to_string(), "-T", &seconds.to_string(), "-l", "-f"])
            .arg(self.script())
            .arg("postgres")
            .current_dir(&logs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let client = running.id().ok_or("pgbench has ended before it began")?;
        let parts = Parts { client: Cpu::Of(client), server: Some(Cpu::Family(self.process.id())), store: None };
        let clock = SystemClock::real();
        sleep(OPENING).await;
        let (before, begun) = (parts.used()?, clock.now());
        sleep(span).await;
        let (after, ended) = (parts.used()?, clock.now());
        succeeded("pgbench", &running.wait_with_output().await?)?;
        let mut latencies = histogram()?;
        for log in fs::read_dir(logs.path())? {
            for line in fs::read_to_string(log?.path())?.lines() {
                let (micros, at) = transaction(line).ok_or_else(|| format!("pgbench logged {line:?}"))?;
                if begun <= at && at < ended {
                    latencies.saturating_record(micros);
                }
            }
        }
        self.check()?;
        Ok(after.measured(before, latencies.len(), ended.since(begun), Latencies::All(latencies)))
    }

    /// Fails if a buyer has been refused.
    fn check(&self) -> Result<(), Failure> {
        let refused = self.ask("SELECT count(*) FROM sale WHERE NOT approved")?;
        if refused.trim() == "0" { Ok(()) } else { Err(format!("{} sales were refused", refused.trim()).into()) }
    }

    fn script(&self) -> PathBuf {
        self.files.path().join("claim.sql")
    }

    fn ask(&self, sql: &str) -> Result<String, Failure> {
        let ran = Command::new(self.programs.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qtA"])
            .args(["-c", sql, "postgres"])
            .stdin(Stdio::null())
            .output()?;
        succeeded("psql", &ran)?;
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }
}

/// How long a transaction took in microseconds, and when it ended, from a line of pgbench's log: client, number, time,
/// script, seconds, microseconds.
fn transaction(line: &str) -> Option<(u64, Timestamp)> {
    let mut fields = line.split(' ').skip(2);
    let micros = fields.next()?.parse().ok()?;
    let seconds: i64 = fields.nth(1)?.parse().ok()?;
    let rest: i64 = fields.next()?.parse().ok()?;
    Some((micros, Timestamp::from_millis(seconds * 1_000 + rest / 1_000)))
}

fn succeeded(program: &str, ran: &Output) -> Result<(), Failure> {
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("{program} failed: {}", String::from_utf8_lossy(&ran.stderr).trim()).into())
}

/// Where the server's and the client's programs stand.
fn programs() -> Option<PathBuf> {
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.map(|told| PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()));
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    // The newest first.
    versions.sort();
    versions.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let complete =
        |place: &Path| ["initdb", "postgres", "pgbench", "psql"].iter().all(|name| place.join(name).is_file());
    told.into_iter().chain(versions).chain(std::env::split_paths(&path)).find(|place| complete(place))
}

/// Who is to run the server if this process is root's: user and group.
fn user_for_root() -> Result<Option<(u32, u32)>, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mine = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    if mine != Some("0") {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let user = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = user.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    found
        .map(Some)
        .ok_or_else(|| "PostgreSQL does not run as root, and there is neither `postgres` nor `nobody`".into())
}
