//! `rationd serve`, and the echo, as processes of the run's own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use prost::Message;
use rationd::grpc::v1::PurchaseResponse;
use tempfile::TempDir;

use super::buyers;
use super::processes::{Cpu, Process};
use crate::Failure;

/// What a server logs, among its files.
const LOG: &str = "log";
/// How much of it is shown when something failed.
const LAST_LINES: usize = 10;

/// A server that listens.
pub struct Server {
    process: Process,
    /// Where terminals call, as HOST:PORT.
    pub address: String,
    files: TempDir,
}

impl Server {
    /// The service over this store, `None` for the embedded one, with these settings as variables, without their prefix where it
    /// is ours.
    pub fn service(store: Option<&str>, settings: &[(&str, String)]) -> Result<Self, Failure> {
        let files = tempfile::tempdir()?;
        let policies = files.path().join("policies");
        std::fs::create_dir(&policies)?;
        std::fs::write(policies.join("side-by-side.toml"), buyers::PROGRAMME_FILE)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
        command
            .arg("serve")
            .env("RATIOND_COUNTERS__LISTEN", "127.0.0.1:0")
            .env("RATIOND_ADMIN__LISTEN", "127.0.0.1:0")
            .env("RATIOND_POLICIES", &policies)
            .env("RATIOND_SESSIONS__CAP_DEFAULT", "1000")
            .env("RATIOND_TELEMETRY__LOG_FILTER", "warn")
            .envs(settings.iter().map(|(name, value)| match name.starts_with("OTEL_") {
                true => ((*name).to_owned(), value),
                false => (format!("RATIOND_{name}"), value),
            }));
        if let Some(store) = store {
            command.env("RATIOND_STORE", store);
        }
        Self::start(command, files, "rationd ")
    }

    /// The echo, which answers with this message.
    pub fn echo(answer: &PurchaseResponse) -> Result<Self, Failure> {
        let answer: String = answer.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--echo", &answer]);
        Self::start(command, tempfile::tempdir()?, "echo ")
    }

    /// Waits for the line on which the program says where it listens.
    pub fn start(mut command: Command, files: TempDir, name: &str) -> Result<Self, Failure> {
        for (variable, _) in std::env::vars_os() {
            let of_others = ["RATIOND_", "OTEL_"].iter().any(|start| variable.to_string_lossy().starts_with(start));
            if of_others && !command.get_envs().any(|(ours, _)| ours == variable) {
                command.env_remove(variable);
            }
        }
        let log = files.path().join(LOG);
        command.current_dir(&files).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = Process::start(&mut command)?;
        let said = process.child().stdout.take().ok_or("no standard output")?;
        for line in BufReader::new(said).lines() {
            let line = line?;
            if let Some(rest) = line.strip_prefix(name).and_then(|line| line.split_once("listens on ")) {
                let address = rest.1.split_whitespace().next().unwrap_or_default().to_owned();
                return Ok(Self { process, address, files });
            }
        }
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        Err(format!("{name}did not begin to listen: {log}").into())
    }

    /// A failure with what the server had to say of it.
    pub fn explain(&self, failure: Failure) -> Failure {
        let log = std::fs::read_to_string(self.files.path().join(LOG)).unwrap_or_default();
        let mut last: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
        if last.is_empty() {
            return failure;
        }
        last.reverse();
        format!("{failure}\nThe server's log ends so:\n{}", last.join("\n")).into()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn cpu(&self) -> Cpu {
        Cpu::Of(self.process.id())
    }
}
