//! Redis alone: the claim script of the service itself, pipelined by redis-benchmark.
//!
//! redis-benchmark writes a number of twelve digits over every `__rand_int__`, so that every claim is of another buyer.
//! It takes no argument with a zero byte. For each that has one it sends as many other bytes, and a line in front of the
//! script sets the true ones: that costs Redis next to nothing.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;
use std::time::Duration;

use rationd::buyer::{BuyerKey, KeyMark, Pseudonym, Ring, Turn};
use rationd::ids::RequestId;
use rationd::ledger::redis::raw_claim;
use rationd::ledger::{Call, Claim, RecordKey};
use rationd::policy::Window;
use rationd::time::{Clock, SystemClock};

use redis::aio::MultiplexedConnection;

use super::buyers;
use super::measure::{Latencies, Measured, Parts};
use super::processes::Cpu;
use super::redis::Redis;
use crate::Failure;

/// What redis-benchmark overwrites: with four bytes before it, as long as a pseudonym.
const OVERWRITTEN: &str = "__rand_int__";
/// From how many numbers it draws.
const NUMBERS: &str = "2000000000";
/// Commands to a pipeline and connections that are tried; the fastest are measured.
const TRIED: [(u32, u32); 7] = [(16, 8), (32, 8), (64, 2), (64, 8), (128, 2), (128, 8), (256, 1)];
/// How long each is tried, and how long Redis runs before it is measured.
const TRIAL: Duration = Duration::from_millis(700);
/// The words of the command before the script's keys: EVALSHA, its name, and how many keys there are.
const BEFORE_KEYS: usize = 3;

/// How redis-benchmark is called.
pub struct Raw {
    /// The name of the script as it is loaded.
    sha: OsString,
    port: u16,
    /// Runs so far. Two runs may draw the same numbers, for they are seeded by the time and the process: the run tells them
    /// apart.
    runs: u32,
    pub pipeline: u32,
    pub connections: u32,
    /// What the last run reached, to know how many requests fill a span.
    per_second: f64,
}

/// What redis-benchmark says.
struct Said {
    requests: u64,
    per_second: f64,
    /// Milliseconds, at quantiles.
    latencies: Vec<(f64, f64)>,
}

impl Raw {
    /// Loads the script and looks for the fastest way to have it pipelined.
    pub async fn start(redis: &Redis) -> Result<Self, Failure> {
        let (_, script) = without_zero_bytes(claim(0)?)?;
        let mut connection = redis.connect().await?;
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(&mut connection).await?;
        let (sha, port) = (sha.into(), redis.port());
        let mut raw = Self { sha, port, runs: 0, pipeline: 16, connections: 8, per_second: 3_000.0 };
        let mut best = (0.0, 0, 0);
        for (pipeline, connections) in TRIED {
            (raw.pipeline, raw.connections) = (pipeline, connections);
            raw.per_second = raw.run(TRIAL).await?.per_second;
            eprintln!("raw: -P {pipeline} -c {connections} gives {:.0} a second", raw.per_second);
            if raw.per_second > best.0 {
                best = (raw.per_second, pipeline, connections);
            }
        }
        (raw.per_second, raw.pipeline, raw.connections) = best;
        Ok(raw)
    }

    pub async fn measure(&mut self, redis: &Redis, span: Duration) -> Result<Measured, Failure> {
        self.per_second = self.run(TRIAL).await?.per_second;
        let parts = Parts { client: Cpu::Ended, server: None, store: Some(redis.cpu()) };
        let claims_before = Claims::count(redis).await?;
        let before = parts.used()?;
        let said = self.run(span).await?;
        let after = parts.used()?;
        claims_before.check(&Claims::count(redis).await?)?;
        self.per_second = said.per_second;
        let span = Duration::from_secs_f64(said.requests as f64 / said.per_second);
        Ok(after.measured(before, said.requests, span, Latencies::Told(said.latencies)))
    }

    async fn run(&mut self, span: Duration) -> Result<Said, Failure> {
        self.runs += 1;
        let (words, _) = without_zero_bytes(claim(self.runs)?)?;
        let mut command: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
        *command.get_mut(1).ok_or("a claim names no script")? = self.sha.clone();
        // Every connection sends whole pipelines.
        let step = f64::from(self.pipeline * self.connections);
        let requests = ((self.per_second * span.as_secs_f64() / step).ceil() * step) as u64;
        let ran = tokio::process::Command::new("redis-benchmark")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-r", NUMBERS, "--csv", "--precision", "3"])
            .args(["-P", &self.pipeline.to_string(), "-c", &self.connections.to_string()])
            .args(["-n", &requests.to_string()])
            .args(&command)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| format!("redis-benchmark cannot be started: {error}"))?;
        let said = String::from_utf8_lossy(&ran.stdout);
        Said::parse(requests, &said)
            .ok_or_else(|| format!("redis-benchmark said {said:?} {:?}", String::from_utf8_lossy(&ran.stderr)).into())
    }
}

impl Said {
    /// The last seven columns; the first one is the command, whatever that holds.
    fn parse(requests: u64, csv: &str) -> Option<Self> {
        let columns: Vec<f64> =
            csv.trim_end().rsplit(',').take(7).map_while(|column| column.trim_matches('"').parse().ok()).collect();
        let [_max, p99, _p95, p50, _min, _average, per_second] = columns.as_slice() else { return None };
        Some(Self { requests, per_second: *per_second, latencies: vec![(0.5, *p50), (0.99, *p99)] })
    }
}

/// What Redis has counted of scripts and of events: a claim writes one if it is a sale, and none otherwise.
struct Claims {
    scripts: u64,
    failed: u64,
    events: u64,
}

impl Claims {
    async fn count(redis: &Redis) -> Result<Self, Failure> {
        let mut connection = redis.connect().await?;
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await?;
        let counted = |command: &str, what: &str| {
            let line =
                info.lines().find_map(|line| line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(':'));
            let field =
                line.and_then(|line| line.split(',').find_map(|field| field.strip_prefix(what)?.strip_prefix('=')));
            field.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Ok(Self {
            scripts: counted("evalsha", "calls"),
            failed: counted("evalsha", "failed_calls"),
            events: counted("xadd", "calls"),
        })
    }

    fn check(&self, after: &Self) -> Result<(), Failure> {
        let (scripts, sales) = (after.scripts - self.scripts, after.events - self.events);
        // The service looks after its sessions meanwhile: a handful of scripts that sell nothing.
        if after.failed != self.failed || sales == 0 || scripts - sales > scripts / 100 + 50 {
            return Err(
                format!("of {scripts} scripts {sales} recorded a sale, {} failed", after.failed - self.failed).into()
            );
        }
        Ok(())
    }
}

/// Records one sale as the service would, and gives its record's key.
pub async fn one_sale(connection: &mut MultiplexedConnection) -> Result<Vec<u8>, Failure> {
    let (words, script) = claim(0)?;
    redis::cmd("SCRIPT").arg("LOAD").arg(script).exec_async(connection).await?;
    let (name, arguments) = words.split_first().ok_or("a claim of no words")?;
    redis::cmd(std::str::from_utf8(name)?).arg(arguments).exec_async(connection).await?;
    Ok(words.into_iter().nth(BEFORE_KEYS).ok_or("a claim has no key")?)
}

/// The claim of one unit with one weekly window, as the service sends it, for the buyers of this run.
fn claim(run: u32) -> Result<(Vec<Vec<u8>>, &'static str), Failure> {
    let now = SystemClock::real().now();
    let week = Duration::from_secs(7 * 86_400);
    let pseudonym = format!("{:04}{OVERWRITTEN}", run % 10_000).into_bytes();
    let pseudonym = Pseudonym::from_bytes(pseudonym.try_into().map_err(|_| "a pseudonym of another length")?);
    let turn = Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"measured") });
    let key = RecordKey { programme: buyers::CODE.parse()?, buyer: BuyerKey { partition: 0x7f, pseudonym }, turn };
    // An id means something only for one buyer, so one is enough. It has no zero byte.
    let request = RequestId::from_bytes(*b"one id for them!").ok_or("no request id")?;
    let call = Call { request, site: "11000001".parse()?, terminal: "w0".parse()?, now };
    let window =
        Window { from: now.minus(week / 2), until: now.plus(week / 2), max_units: Some(2), max_purchases: None };
    let claim = Claim {
        quantity: 1,
        hold_for: None,
        windows: [window].into_iter().collect(),
        good_until: now.plus(week / 2),
        stated: String::new(),
    };
    Ok(raw_claim(&key, &call, &claim))
}

/// The same command in words that redis-benchmark can send, and the script that takes them.
fn without_zero_bytes((mut words, script): (Vec<Vec<u8>>, &str)) -> Result<(Vec<Vec<u8>>, String), Failure> {
    let keys: usize = std::str::from_utf8(words.get(2).ok_or("a claim has no keys")?)?.parse()?;
    let mut line = String::new();
    for (at, word) in (1..).zip(words.iter_mut().skip(BEFORE_KEYS + keys)) {
        if word.contains(&0) {
            write!(line, "ARGV[{at}] = '")?;
            for byte in word.iter_mut() {
                write!(line, "\\{byte:03}")?;
                *byte = b'x';
            }
            line.push_str("' ");
        }
    }
    if line.is_empty() {
        return Ok((words, script.to_owned()));
    }
    // The first line names the language and must stay the first.
    let (first, rest) = script.split_once('\n').ok_or("a script of one line")?;
    Ok((words, format!("{first}\n{line}\n{rest}")))
}
