//! Several processes of one machine that share a run: each is this program again, as one of its workers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::driver::Ending;
use super::history::Asked;
use super::recorder::Tick;
use super::run::{Ended, RunFacts};
use super::scenario::Scenario;
use super::shared;
use super::sites::Places;
use super::target::{LoadError, Target};
use crate::ids::RequestId;
use crate::time::{Clock, SystemClock};

/// What a process takes to start, and what opening one session takes, on a busy machine.
const START: Duration = Duration::from_secs(2);
const SESSION: Duration = Duration::from_millis(3);

/// How workers are started.
pub struct Sharing {
    /// The program to start.
    pub program: PathBuf,
    /// The arguments after `load` that give a worker the same scenario, sites and certificates.
    pub arguments: Vec<OsString>,
    /// Where their histories are put until they are read.
    pub scratch: PathBuf,
    /// How many there are to be.
    pub processes: u32,
}

impl Sharing {
    /// Runs the whole with workers and puts their parts together.
    pub(super) async fn run(
        &self,
        scenario: &Scenario,
        places: &Places,
        target: &Target,
        ending: &Ending,
        gone: impl Future<Output = String>,
        mut tick: impl FnMut(Tick),
    ) -> Result<(RunFacts, Vec<Asked>), LoadError> {
        let terminals =
            u32::try_from(places.sites().len()).unwrap_or(u32::MAX).saturating_mul(scenario.sites.terminals);
        let start_at = SystemClock::real().now().plus(START + scenario.sites.opening + SESSION * terminals);
        let directory = self.scratch.join(format!("rationd-load-{}", RequestId::random()));
        std::fs::create_dir(&directory)
            .map_err(|error| LoadError::Failed(format!("{}: cannot be made: {error}", directory.display())))?;
        let file = |nth: u32| directory.join(format!("part-{nth}.jsonl"));
        let (ticks, mut ticked) = mpsc::channel(64);
        let workers = TaskTracker::new();
        let (report, mut reported) = mpsc::unbounded_channel();
        for nth in 1..=self.processes {
            let mut child = self.spawn(nth, &file(nth), target, start_at)?;
            let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
            let (ticks, report, ending) = (ticks.clone(), report.clone(), ending.clone());
            workers.spawn(async move {
                let how = attend(child, lines, ticks, ending).await;
                // Whoever listens listens until all have reported.
                let _ = report.send((nth, how));
            });
        }
        drop((ticks, report));

        let mut seconds: BTreeMap<u64, (u32, Tick)> = BTreeMap::new();
        let mut failures = Vec::new();
        let mut lost = None;
        tokio::pin!(gone);
        loop {
            tokio::select! {
                Some(part) = ticked.recv() => {
                    let (parts, sum) = seconds.entry(part.second).or_default();
                    (*parts, *sum) = (*parts + 1, sum.and(part));
                    if *parts == self.processes {
                        tick(*sum);
                    }
                }
                why = &mut gone, if lost.is_none() => {
                    lost = Some(why);
                    ending.enough.cancel();
                    ending.at_once.cancel();
                }
                report = reported.recv() => match report {
                    Some((nth, Err(why))) => failures.push(format!("worker {nth}: {why}")),
                    Some((_, Ok(()))) => {}
                    None => break,
                }
            }
        }
        let parts: Result<Vec<_>, _> =
            (1..=self.processes).map(&file).filter(|f| f.exists()).map(|f| shared::read(&f)).collect();
        // What is left behind hurts nobody.
        let _ = std::fs::remove_dir_all(&directory);
        let parts = parts?;
        if parts.is_empty() {
            return Err(LoadError::Failed(failures.join("; ")));
        }
        let (mut facts, history) = shared::together(parts)?;
        facts.processes = self.processes;
        if let (Some(why), Ended::ServiceLost { why: seen, .. }) = (lost, &mut facts.ended) {
            *seen = why;
        }
        if !failures.is_empty() {
            facts.ended = Ended::HarnessFailed(failures.join("; "));
        }
        Ok((facts, history))
    }

    fn spawn(
        &self,
        nth: u32,
        history: &Path,
        target: &Target,
        start_at: crate::time::Timestamp,
    ) -> Result<Child, LoadError> {
        let mut command = Command::new(&self.program);
        command
            .arg("load")
            .args(&self.arguments)
            .args(["--address", &target.address])
            .args(["--worker", &format!("{nth}/{}", self.processes)])
            .args(["--start-at", &start_at.to_string()])
            .arg("--history")
            .arg(history)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A Ctrl-C is passed on by the process that leads.
            .process_group(0)
            .kill_on_drop(true);
        command
            .spawn()
            .map_err(|error| LoadError::Failed(format!("{}: cannot be started: {error}", self.program.display())))
    }
}

/// Hears a worker out, and passes on what it must be told.
async fn attend(
    mut child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    ticks: mpsc::Sender<Tick>,
    ending: Ending,
) -> Result<(), String> {
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let tell = || {
        if let Some(pid) = pid {
            // It fails only if the worker has ended, which is what it is for.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    };
    let listen = async {
        let Some(mut lines) = lines else { return };
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(tick) = serde_json::from_str(&line) {
                // Nobody shows seconds any more when the run is over.
                let _ = ticks.send(tick).await;
            }
        }
    };
    let pass_on = async {
        ending.enough.cancelled().await;
        tell();
        ending.at_once.cancelled().await;
        tell();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = listen => {}
        () = pass_on => {}
    }
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
