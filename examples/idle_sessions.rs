//! How much resident memory an idle terminal session costs the service.
//!
//! `cargo run --release --example idle_sessions` starts the `rationd` that stands beside it as a process of its own, with a
//! site for every terminal, opens 10,000 sessions (`-- N` opens N), each over a connection of its own as terminals do, waits
//! until leases have been renewed and memory is at rest, and prints the figure. Above 25 KiB a session it fails. Service and
//! terminals are two processes, so that either stays below the usual limit of open files.
//!
//! A connection's read buffer has 8 KiB, of which a new connection has touched the first half. Half an hour of pings or some
//! thirty calls touch all of it: `-- N CALLS` lets every terminal make so many calls before it rests, and shows that figure.
#![expect(clippy::print_stdout, reason = "the figure is what it is run for")]

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use rationd::terminal::{Opened, Session, Terminal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

const SESSIONS: u32 = 10_000;
const MOST_BYTES: u64 = 25 * 1024;
/// How many sessions are being opened at once.
const AT_ONCE: usize = 64;
/// The code of the first site.
const FIRST_SITE: u32 = 10_000_000;
/// Longer than a lease: every seat is renewed and every connection is asked for a sign of life several times.
const REST: Duration = Duration::from_secs(20);
/// How long the service may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let argument = |place, default| std::env::args().nth(place).map_or(Ok(default), |number| number.parse());
    let (sessions, calls): (u32, u32) = (argument(1, SESSIONS)?, argument(2, 0)?);
    let directory = tempfile::tempdir()?;
    let (mut service, address) = start(directory.path(), sessions).await?;
    let process = service.id().ok_or("the service has ended")?;

    sleep(Duration::from_secs(2)).await;
    let before = resident(process)?;
    // Renewals go on while terminals open their sessions, so opening takes as long as it takes.
    let open: Vec<Session> = stream::iter(0..sessions)
        .map(|number| open_session(&address, number, calls))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let opened = resident(process)?;
    sleep(REST).await;
    let after = resident(process)?;
    let live = still_live(open).await;
    let each = after.saturating_sub(before) / u64::from(sessions.max(1));
    println!("resident before {} KiB, all open {} KiB, at rest {} KiB", before / 1024, opened / 1024, after / 1024);
    println!(
        "{live} of {sessions} sessions idle and live, {calls} calls each: {each} bytes a session (at most {MOST_BYTES})"
    );

    service.kill().await?;
    Ok(if each <= MOST_BYTES && live == sessions { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The service of this build with so many sites, and where it listens. It is killed when the child is dropped.
async fn start(directory: &Path, sites: u32) -> Result<(Child, String), Failure> {
    let program = std::env::current_exe()?
        .ancestors()
        .nth(2)
        .map(|built| built.join("rationd"))
        .filter(|program| program.is_file())
        .ok_or("there is no rationd beside this example: `cargo build --release` makes it")?;
    let mut registry = String::from("code,name,channel,region,address,lat,lng\n");
    for number in 0..sites {
        let code = FIRST_SITE + number;
        writeln!(registry, "{code},Pharmacy {number},pharmacy,Seoul,Seoul Jongno-gu Saemunan-ro {number},,")?;
    }
    std::fs::write(directory.join("sites.csv"), registry)?;
    let mut service = Command::new(program)
        .args(["serve", "--sites", "sites.csv", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(service.stdout.take().ok_or("the service has no output")?).lines();
    let listens = async {
        while let Some(line) = lines.next_line().await? {
            if let Some((_, rest)) = line.split_once("listens on ") {
                return Ok(rest.split_whitespace().next().map(|address| format!("http://{address}")));
            }
        }
        Ok::<_, std::io::Error>(None)
    };
    let address = timeout(PATIENCE, listens).await??.ok_or("the service did not begin to listen")?;
    // What it prints later must find room.
    tokio::spawn(async move { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} });
    Ok((service, address))
}

async fn open_session(address: &str, number: u32, calls: u32) -> Result<Session, Failure> {
    let site = (FIRST_SITE + number).to_string().parse()?;
    let terminal = Terminal::connect(address, site, "w1".parse()?).await?;
    let session = match terminal.open_session().await? {
        Opened::Admitted(session) => *session,
        Opened::SiteFull(full) => return Err(format!("site {site} is full: {full:?}").into()),
        Opened::Shut(_) => return Err("the door is shut".into()),
    };
    for _ in 0..calls {
        terminal.is_serving("").await?;
    }
    Ok(session)
}

/// How many sessions have not been told anything since they began.
async fn still_live(open: Vec<Session>) -> u32 {
    let mut live = 0;
    for mut session in open {
        live += u32::from(timeout(Duration::ZERO, session.events.message()).await.is_err());
    }
    live
}

/// Resident memory of a process in bytes.
fn resident(process: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS: Linux is needed")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
