//! `rationd load`: which run, against which service, and where its report goes.

mod storm;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::tls::TlsFiles;
use super::{complain, exit, print};
use crate::config::{environment, executable, scratch};
use crate::load::driver::Part;
use crate::load::report::Summary;
use crate::load::run::{Ended, Wire};
use crate::load::scenario::{BUILT_IN, Scenario};
use crate::load::sites::Places;
use crate::load::target::{LoadError, Target};
use crate::load::workers::Sharing;
use crate::load::{self, Finished, Own, PartOrder, RunOrder, Serve, Tick, shared};
use crate::sites::Sites;
use crate::time::Timestamp;

/// Seconds between two lines of progress that nobody watches as they come.
const SELDOM: u64 = 5;

const AFTER_HELP: &str = "With no options: starts a service on loopback with an embedded store of its own, runs the scenario \
canonical against it (about 25 seconds), audits its ledger, prints one page and writes rationd-load.html.

Against a service that runs: put what --print-programme prints among its programmes, then give --address, --operator and \
--sites. Buyers and sales are made up; they stand under that programme alone. A second run on the same ledger wants another \
--seed, or its buyers have bought already.

On several machines: on each of them `rationd load --worker I/N --start-at INSTANT --history FILE` with the same scenario, \
--address and --sites; then gather the files and run `rationd load --merge FILE... --operator URL`.

A historic morning, `--scenario 2020-03-11`, starts a Redis (redis-server on PATH) and four services of its own, with fewer seats \
than there are comers: 12,000 pharmacies hold sessions and sell, then 1,406 post offices log in 40 times each within a minute and \
try again at once whenever they are turned back. It checks the cap of every site, the nation's capacity, places, positions, that \
nobody sells without a seat, and the ledger, and shows how long sales take before, in and after the storm. About two and a half \
minutes, twice that with --contrast; --scale 0.1 is a tenth of everybody, --seconds another length.

The historic morning `--scenario 2021-07-20` has a line: 30,500 terminals come for 500 seats, and while they wait their streams break, they go \
on with another service or device, or their net is gone for up to a minute. Thieves try a million times to get in with forged, \
copied and used tokens. In the middle Redis is killed and started again, and then every service. It checks the same, and that \
everybody who comes back has the place that it had. About four and a half minutes.

Exit codes: 0 the audit found nothing; 1 the audit, or a check of a morning, found cases; 2 arguments; 64 the scenario, the sites or the service's \
settings cannot be used; 70 the service was lost, or could not be audited, or the harness failed.";

/// How calls travel.
#[derive(Clone, Copy, ValueEnum)]
enum WireName {
    /// One request, one answer
    Unary,
    /// Many calls in flight on one stream for each connection
    Stream,
}

/// `load`
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Load {
    /// canonical, morning, a scenario file (TOML), or a historic morning: 2020-03-11, 2021-07-20
    #[arg(long, value_name = "NAME|FILE", default_value = "canonical")]
    scenario: String,
    /// People a second at the scenario's height, instead of its own; the other phases follow
    #[arg(long, value_name = "PER_SECOND", value_parser = above_zero)]
    rate: Option<f64>,
    /// Length of the run, instead of the scenario's own; the phases keep their proportions
    #[arg(long, value_name = "SECONDS", value_parser = above_zero)]
    seconds: Option<f64>,
    /// Where every random choice comes from, instead of the scenario's own
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,
    /// How calls travel, instead of the scenario's own way
    #[arg(long)]
    wire: Option<WireName>,
    /// Processes of this machine that share the run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// Of a historic morning: which part of the real numbers of sites, sessions and sales [default: 1]
    #[arg(long, value_name = "FACTOR", value_parser = scale)]
    scale: Option<f64>,
    /// Of a historic morning: service processes [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    services: Option<u32>,
    /// Of a historic morning: runs it a second time without limits, for the same curves beside it
    #[arg(long)]
    contrast: bool,

    /// Where a service that runs listens for terminals; without it one is started
    #[arg(long, value_name = "URL")]
    address: Option<String>,
    /// Where that service listens for operators: the audit reads its ledger there
    #[arg(long, value_name = "URL")]
    operator: Option<String>,
    /// That service's site registry (CSV); the first sites of it sell, as many as the scenario says
    #[arg(long, value_name = "FILE")]
    sites: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFiles,
    /// Certificate (PEM) of the operator, on an https:// operator address; without it --tls-certificate is shown there too
    #[arg(long, value_name = "FILE", requires = "operator_key", requires = "operator")]
    operator_certificate: Option<PathBuf>,
    /// Private key (PEM) of --operator-certificate
    #[arg(long, value_name = "FILE", requires = "operator_certificate")]
    operator_key: Option<PathBuf>,
    /// Where the service that is started records: redis://HOST:PORT/ [default: an embedded store that is removed afterwards]
    #[arg(long, value_name = "URL", conflicts_with = "address")]
    store: Option<String>,
    /// Accepts a Redis whose settings may lose confirmed sales
    #[arg(long, requires = "store")]
    allow_volatile: bool,

    /// Prints one JSON object instead of the page
    #[arg(long)]
    json: bool,
    /// Where the page for browsers is written
    #[arg(long, value_name = "FILE", default_value = "rationd-load.html")]
    html: PathBuf,
    /// Shows no progress
    #[arg(long)]
    quiet: bool,
    /// Does not audit, where nobody may call as an operator; the report says so
    #[arg(long)]
    without_audit: bool,

    /// Does part I of N of a run and writes its history; for runs from several machines
    #[arg(long, value_name = "I/N", value_parser = part, requires_all = ["start_at", "history", "address"])]
    worker: Option<Part>,
    /// When the run of a worker begins (RFC 3339 with offset); its sessions are opened before
    #[arg(long, value_name = "INSTANT", requires = "worker")]
    start_at: Option<Timestamp>,
    /// Writes every call to this file as JSON lines
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Makes one run of the histories of workers, audits and reports it
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["worker", "address", "store"])]
    merge: Vec<PathBuf>,
    /// Prints the programme that the scenario sells under, to be put among those of a service, and ends
    #[arg(long)]
    print_programme: bool,
    /// Prints the scenario's file, to begin another with, and ends
    #[arg(long)]
    print_scenario: bool,
}

/// Why there is nothing to report.
enum Trouble {
    /// A file or an option.
    Config(String),
    /// Anything else.
    Failed(String),
}

impl From<LoadError> for Trouble {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unfit(what) => Self::Config(what),
            LoadError::Unreachable(_) | LoadError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

pub(super) async fn run(command: Load) -> u8 {
    let done = match () {
        () if storm::is_one(&command.scenario) => storm::run(&command).await,
        () if command.scale.is_some() || command.services.is_some() || command.contrast => Err(Trouble::Config(
            "--scale, --services and --contrast belong to a historic morning: --scenario 2020-03-11 or 2021-07-20"
                .into(),
        )),
        () if command.print_scenario => {
            scenario_text(&command.scenario).map(|(text, _)| super::report(text.trim_end()))
        }
        () if command.print_programme => {
            scenario(&command).map(|scenario| super::report(scenario.carried().text.trim_end()))
        }
        () if command.worker.is_some() => work(&command).await,
        () if !command.merge.is_empty() => merge(&command).await,
        () => whole(&command).await,
    };
    match done {
        Ok(code) => code,
        Err(Trouble::Config(what)) => {
            complain(what);
            exit::CONFIG
        }
        Err(Trouble::Failed(what)) => {
            complain(what);
            exit::FAILED
        }
    }
}

async fn whole(command: &Load) -> Result<u8, Trouble> {
    let scenario = scenario(command)?;
    let places = places(command, &scenario)?;
    let program = executable().map_err(|error| Trouble::Failed(format!("this program cannot be found: {error}")))?;
    let serve = match target(command)? {
        Some(target) => Serve::Running(target),
        None => Serve::Own(own(command, &program)),
    };
    let sharing = (command.processes > 1).then(|| Sharing {
        program,
        arguments: same_again(command),
        scratch: scratch(),
        processes: command.processes,
    });
    if cfg!(debug_assertions) && !command.quiet {
        complain("this build is not optimised: figures are those of a development build");
    }
    let audited = !command.without_audit;
    let order = RunOrder { scenario, places, serve, sharing, audited };
    let quiet = command.quiet;
    let finished = load::run(order, |tick| progress(tick, quiet)).await?;
    report(command, &finished)
}

async fn work(command: &Load) -> Result<u8, Trouble> {
    let scenario = scenario(command)?;
    let places = places(command, &scenario)?;
    let (Some(part), Some(history), Some(target)) = (command.worker, &command.history, target(command)?) else {
        return Err(Trouble::Config("a worker needs --start-at, --history and --address".into()));
    };
    let order = PartOrder { scenario: &scenario, places: &places, target: &target, part, start_at: command.start_at };
    load::work(&order, history, |tick| print(serde_json::json!(tick))).await?;
    Ok(exit::YES)
}

async fn merge(command: &Load) -> Result<u8, Trouble> {
    let target = operators(command)?;
    let finished = load::merge(&command.merge, &target, !command.without_audit).await?;
    report(command, &finished)
}

/// Shows a run that is over, and gives the exit code.
fn report(command: &Load, finished: &Finished) -> Result<u8, Trouble> {
    let Finished { facts, history, audit, kept } = finished;
    let summary = Summary::new(facts, history, audit.as_ref());
    if command.json {
        print(summary.json());
    } else {
        print(summary.page());
    }
    if let Some(file) = &command.history {
        shared::write(file, facts, history)?;
    }
    std::fs::write(&command.html, summary.html())
        .map_err(|error| Trouble::Failed(format!("{}: cannot be written: {error}", command.html.display())))?;
    complain(format_args!("page for browsers: {}", command.html.display()));
    if let Some(directory) = kept {
        complain(format_args!("the service's ledger and log are kept in {}", directory.display()));
    }
    let failed = matches!(facts.ended, Ended::ServiceLost { .. } | Ended::HarnessFailed(_));
    Ok(match audit {
        _ if failed => exit::FAILED,
        Some(audit) if audit.is_clean() => exit::YES,
        Some(_) => exit::NO,
        None if command.without_audit => exit::YES,
        None => {
            complain(format_args!("not audited: {}", facts.not_audited.as_deref().unwrap_or("nobody knows why")));
            exit::FAILED
        }
    })
}

/// One line a second for somebody who watches, one every five for a file.
fn progress(tick: Tick, quiet: bool) {
    let watched = std::io::stderr().is_terminal();
    if quiet || !(watched || tick.second.is_multiple_of(SELDOM)) {
        return;
    }
    let Tick { second, offered, answered, refused, failed, p99_us } = tick;
    let (millis, tenths) = (p99_us / 1_000, p99_us / 100 % 10);
    complain(format_args!(
        "{second:>4} s  offered {offered:>6}/s  answered {answered:>6}/s  p99 {millis:>5}.{tenths} ms  refused \
         {refused:>5}  errors {failed}"
    ));
}

/// The scenario as the options change it.
fn scenario(command: &Load) -> Result<Scenario, Trouble> {
    let (text, source) = scenario_text(&command.scenario)?;
    let mut scenario = Scenario::parse(&text, &source).map_err(|errors| Trouble::Config(errors.to_string()))?;
    if let Some(seed) = command.seed {
        scenario.seed = seed.into();
    }
    if let Some(wire) = command.wire {
        scenario.wire = match wire {
            WireName::Unary => Wire::Unary,
            WireName::Stream => Wire::Stream,
        };
    }
    if let Some(seconds) = command.seconds {
        scenario = scenario.lasting(seconds);
    }
    match command.rate {
        None => Ok(scenario),
        Some(rate) => scenario.at_rate(rate).ok_or_else(|| {
            Trouble::Config(format!(
                "{source} is a closed loop, which has no rate; leave --rate out, or write [[phases]]"
            ))
        }),
    }
}

fn scenario_text(name: &str) -> Result<(String, String), Trouble> {
    match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        Some((_, text)) => Ok(((*text).to_owned(), format!("built-in {name}.toml"))),
        None => match std::fs::read_to_string(name) {
            Ok(text) => Ok((text, name.to_owned())),
            Err(error) => {
                let names = BUILT_IN.map(|(name, _)| name).join(", ");
                Err(Trouble::Config(format!("{name}: cannot be read: {error}; built in are {names}")))
            }
        },
    }
}

fn places(command: &Load, scenario: &Scenario) -> Result<Places, Trouble> {
    let of_scenario = scenario.sites.file.as_ref().map(PathBuf::from);
    match command.sites.as_ref().or(of_scenario.as_ref()) {
        None => Ok(Places::made_up(&scenario.sites, scenario.seed)),
        Some(path) => {
            let text = read(path)?;
            let text =
                String::from_utf8(text).map_err(|_| Trouble::Config(format!("{}: is not UTF-8", path.display())))?;
            let sites = Sites::parse(&text, &path.display().to_string())
                .map_err(|errors| Trouble::Config(errors.to_string()))?;
            Ok(Places::of_registry(&sites, text, &scenario.sites))
        }
    }
}

/// The service that runs; `None`: one is to be started.
fn target(command: &Load) -> Result<Option<Target>, Trouble> {
    let Some(address) = &command.address else {
        return match &command.operator {
            Some(_) => Err(Trouble::Config("--operator goes with the --address of a service that runs".into())),
            None => Ok(None),
        };
    };
    let tls = command.tls.for_somebody(address).map_err(Trouble::Config)?;
    Ok(Some(Target { address: address.clone(), tls, ..operators(command)? }))
}

/// Where operators call, and as whom.
fn operators(command: &Load) -> Result<Target, Trouble> {
    let files = command.tls.with(command.operator_certificate.as_ref(), command.operator_key.as_ref());
    let tls = command.operator.as_ref().map(|operator| files.for_somebody(operator).map_err(Trouble::Config));
    let operator_tls = tls.transpose()?.flatten();
    Ok(Target { address: String::new(), operator: command.operator.clone(), tls: None, operator_tls })
}

fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    std::fs::read(path).map_err(|error| Trouble::Config(format!("{}: cannot be read: {error}", path.display())))
}

/// The arguments that give a worker the same scenario, sites and certificates.
fn same_again(command: &Load) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--scenario".into(), command.scenario.clone().into()];
    let mut add = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            arguments.extend([name.into(), value]);
        }
    };
    let text = |value: Option<String>| value.map(OsString::from);
    let file = |value: &Option<PathBuf>| value.clone().map(OsString::from);
    add("--rate", text(command.rate.map(|rate| rate.to_string())));
    add("--seconds", text(command.seconds.map(|seconds| seconds.to_string())));
    add("--seed", text(command.seed.map(|seed| seed.to_string())));
    add("--wire", text(command.wire.and_then(|wire| Some(wire.to_possible_value()?.get_name().to_owned()))));
    add("--sites", file(&command.sites));
    for (option, path) in command.tls.options() {
        add(option, file(path));
    }
    arguments
}

/// What a service of the harness's own is made of.
fn own(command: &Load, program: &Path) -> Own {
    Own {
        program: program.to_owned(),
        scratch: scratch(),
        store: command.store.clone(),
        allow_volatile: command.allow_volatile,
        unset: environment().map(|(name, _)| name).filter(is_setting).collect(),
    }
}

/// A variable that would set a service up in another way than the run wants it.
fn is_setting(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("RATIOND_") && name != "RATIOND_MUTANT"
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.01..=1e6).contains(number));
    number.ok_or_else(|| "must be a number from 0.01 to 1000000".into())
}

fn scale(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.001..=10.0).contains(number));
    number.ok_or_else(|| "must be a number from 0.001 to 10".into())
}

/// `I/N`, counted from 1.
fn part(text: &str) -> Result<Part, String> {
    let read = |text: &str| text.parse::<u32>().ok().filter(|number| (1..=1000).contains(number));
    let part = text.split_once('/').and_then(|(index, of)| Some((read(index)?, read(of)?)));
    match part {
        Some((index, of)) if index <= of => Ok(Part { index: index - 1, of }),
        _ => Err("must be I/N, such as 1/3: the first of three parts".into()),
    }
}
