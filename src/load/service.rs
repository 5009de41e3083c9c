//! A service of the harness's own: a child process on loopback with a store of its own, in a directory of its own.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

use super::programme::CARRIED;
use super::scenario::Scenario;
use super::sites::Places;
use super::target::{LoadError, Target};
use crate::grpc::PURCHASE_SERVICE;
use crate::ids::RequestId;
use crate::terminal::Terminal;
use crate::time::Timestamp;

/// How long it may take to start on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to stop: longer than it gives itself.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Keys for made-up people, the same for every run, so that a Redis may be used for more than one. They protect nobody.
const KEYS: &str = "version = 1
[partition]
key = \"6c6f6164206861726e6573732c20706172746974696f6e206b65792030303031\"
[ring.current]
id = 1
key = \"6c6f6164206861726e6573732c206b6579206f66207468652072696e67203031\"
[door]
key = \"6c6f6164206861726e6573732c206b6579206f662074686520646f6f72203031\"
";

/// What a service of one's own is made of.
#[derive(Clone)]
pub struct Own {
    /// The program to start.
    pub program: PathBuf,
    /// Where its directory is made.
    pub scratch: PathBuf,
    /// Where it records; `None`: the embedded store in its directory.
    pub store: Option<String>,
    /// Whether a store that may lose confirmed sales is accepted.
    pub allow_volatile: bool,
    /// Variables of this process that it must not see.
    pub unset: Vec<OsString>,
}

/// A service that runs.
pub(super) struct Service {
    directory: PathBuf,
    pid: Option<rustix::process::Pid>,
    ended: watch::Receiver<Option<String>>,
    pub(super) target: Target,
    /// Which kind of store it has.
    pub(super) store: String,
}

impl Own {
    /// Starts it and waits until it can record sales.
    pub(super) async fn start(&self, scenario: &Scenario, places: &Places) -> Result<Service, LoadError> {
        let directory = self.scratch.join(format!("rationd-load-{}", RequestId::random()));
        match self.start_in(&directory, scenario, places).await {
            Ok(service) => Ok(service),
            Err(error) => {
                // Whatever is left is of no use to anybody.
                let _ = fs::remove_dir_all(&directory);
                Err(error)
            }
        }
    }

    async fn start_in(&self, directory: &Path, scenario: &Scenario, places: &Places) -> Result<Service, LoadError> {
        prepare(directory, places).map_err(|error| LoadError::Failed(format!("{}: {error}", directory.display())))?;
        let seats = [("RATIOND_SESSIONS__CAP_DEFAULT", scenario.sites.terminals.to_string())];
        self.launch(directory, "service", scenario.clock, &seats, places, None).await
    }

    /// Starts one in a directory that is prepared, under settings of its own, and waits until it can record sales. `name` is
    /// that of its log. It listens where another one did, or on any ports.
    pub(super) async fn launch(
        &self,
        directory: &Path,
        name: &str,
        clock: Option<Timestamp>,
        settings: &[(&str, String)],
        places: &Places,
        another: Option<&Target>,
    ) -> Result<Service, LoadError> {
        let at = |address: Option<&str>| {
            address.and_then(|address| address.strip_prefix("http://")).unwrap_or("127.0.0.1:0").to_owned()
        };
        let listen = at(another.map(|another| another.address.as_str()));
        let admin_listen = at(another.and_then(|another| another.operator.as_deref()));
        let log = directory.join(format!("{name}.log"));
        let stderr = fs::File::create(&log).map_err(|e| LoadError::Failed(format!("{}: {e}", log.display())))?;
        let mut command = Command::new(&self.program);
        for name in &self.unset {
            command.env_remove(name);
        }
        let embedded = format!("embedded:{}", directory.join("data").display());
        command
            .arg("serve")
            .args(["--listen", &listen, "--admin-listen", &admin_listen])
            .args(["--store", self.store.as_ref().unwrap_or(&embedded)])
            .args(["--policies", "programmes", "--sites", "sites.csv", "--keys", "keys.toml"])
            .args(clock.iter().flat_map(|at| ["--clock".to_owned(), at.to_string()]))
            .args(self.allow_volatile.then_some("--allow-volatile"))
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // A Ctrl-C is for the harness, which stops the service itself, after the audit.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| LoadError::Failed(format!("{}: cannot be started: {error}", self.program.display())))?;
        let complaint = |what: &str| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            LoadError::Failed(format!("the service {what}:\n{}", tail(&said)))
        };
        let stdout = child.stdout.take().ok_or_else(|| complaint("has no output"))?;
        let greeted = tokio::time::timeout(START_PATIENCE, addresses(stdout)).await;
        let Ok(Some((counters, admin))) = greeted else { return Err(complaint("did not start")) };
        let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        let (tell, ended) = watch::channel(None);
        tokio::spawn(await_end(child, tell, log.clone()));
        let target = Target {
            address: format!("http://{counters}"),
            operator: Some(format!("http://{admin}")),
            tls: None,
            operator_tls: None,
        };
        let store = if self.store.is_some() { "redis" } else { "embedded" };
        let service = Service { directory: directory.to_owned(), pid, ended, target, store: store.to_owned() };
        if tokio::time::timeout(START_PATIENCE, service.ready(places)).await.is_err() {
            service.signal(rustix::process::Signal::KILL);
            return Err(complaint("cannot record sales"));
        }
        Ok(service)
    }
}

impl Service {
    /// Waits until it says that it can record sales.
    async fn ready(&self, places: &Places) {
        let (Some(site), Ok(name)) = (places.sites().first(), "load-0".parse()) else { return };
        loop {
            if let Ok(connection) = self.target.connect().await
                && let Ok(true) = Terminal::on(&connection, *site, name).is_serving(PURCHASE_SERVICE).await
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends when it has ended, and says how.
    pub(super) async fn gone(&self) -> String {
        let mut ended = self.ended.clone();
        let gone = ended.wait_for(Option::is_some).await.ok().and_then(|how| how.clone());
        gone.unwrap_or_else(|| "nobody watches the service any more".into())
    }

    /// Asks it to stop and waits for that. Its directory is removed unless it is to be kept; then it is named.
    pub(super) async fn stop(self, keep: bool) -> Option<PathBuf> {
        self.end().await;
        if keep {
            return Some(self.directory);
        }
        // What cannot be removed hurts nobody where it is.
        let _ = fs::remove_dir_all(&self.directory);
        None
    }

    /// Asks it to stop and waits for that; its directory stays.
    pub(super) async fn end(&self) {
        if self.ended.borrow().is_none() {
            self.signal(rustix::process::Signal::TERM);
            if tokio::time::timeout(STOP_PATIENCE, self.gone()).await.is_err() {
                self.signal(rustix::process::Signal::KILL);
                self.gone().await;
            }
        }
    }

    /// Ends it without a word and waits for that.
    pub(super) async fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
        self.gone().await;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = self.pid {
            // It fails only if the process has ended, which is what it is for.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// What the service reads: sites, the programmes of the harness, keys.
pub fn prepare(directory: &Path, places: &Places) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(directory)?;
    fs::write(directory.join("sites.csv"), places.registry())?;
    let programmes = directory.join("programmes");
    fs::create_dir(&programmes)?;
    for carried in CARRIED {
        fs::write(programmes.join(carried.file()), carried.text)?;
    }
    let mut keys = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join("keys.toml"))?;
    keys.write_all(KEYS.as_bytes())
}

/// Where the service says that it listens, for terminals and for operators. `None` if it ends before it says so.
async fn addresses(stdout: ChildStdout) -> Option<(String, String)> {
    let mut lines = BufReader::new(stdout).lines();
    let (mut counters, mut admin) = (None, None);
    while let Ok(Some(line)) = lines.next_line().await {
        let after = |mark: &str| Some(line.split_once(mark)?.1.split_whitespace().next()?.to_owned());
        counters = counters.or_else(|| after("listens on "));
        admin = admin.or_else(|| after("health and metrics  "));
        if let (Some(counters), Some(admin)) = (&counters, &admin) {
            let found = (counters.clone(), admin.clone());
            // Whatever else it prints is read, so that it never waits for a reader.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(found);
        }
    }
    None
}

async fn await_end(mut child: Child, tell: watch::Sender<Option<String>>, log: PathBuf) {
    let how = match child.wait().await {
        Ok(status) => format!("the service ended: {status}"),
        Err(error) => format!("the service cannot be watched: {error}"),
    };
    let said = fs::read_to_string(&log).unwrap_or_default();
    let said = said.lines().last().map(|line| format!("; it last said: {line}")).unwrap_or_default();
    tell.send_replace(Some(how + &said));
}

/// The last lines.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
}
