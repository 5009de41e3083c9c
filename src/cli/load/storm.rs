//! `rationd load --scenario 2020-03-11` or `2021-07-20`: a historic morning of the waiting room.

use std::io::IsTerminal;

use super::{Load, SELDOM, Trouble, own};
use crate::cli::{complain, exit, print};
use crate::config::executable;
use crate::load::report::milliseconds_or_dash;
use crate::load::storm::morning::Morning;
use crate::load::storm::{self, StormOrder, StormTick};

/// Service processes, unless the options say otherwise: as many as it takes to carry 67,000 connections.
const SERVICES: u32 = 4;

/// Whether this names a historic morning.
pub(super) fn is_one(scenario: &str) -> bool {
    Morning::NAMES.contains(&scenario)
}

/// Runs it and gives the exit code.
pub(super) async fn run(command: &Load) -> Result<u8, Trouble> {
    let morning = morning(command)?;
    let program = executable().map_err(|error| Trouble::Failed(format!("this program cannot be found: {error}")))?;
    if cfg!(debug_assertions) && !command.quiet {
        complain("this build is not optimised: figures are those of a development build");
    }
    let order = StormOrder {
        morning,
        own: own(command, &program),
        services: command.services.unwrap_or(SERVICES),
        contrast: command.contrast,
    };
    let quiet = command.quiet;
    let storm = storm::run(order, |tick| progress(&tick, quiet)).await?;
    if command.json {
        print(storm.json());
    } else {
        print(storm.page());
    }
    std::fs::write(&command.html, storm.html())
        .map_err(|error| Trouble::Failed(format!("{}: cannot be written: {error}", command.html.display())))?;
    complain(format_args!("page for browsers: {}", command.html.display()));
    if let Some(directory) = &storm.kept {
        complain(format_args!("the ledger and all logs are kept in {}", directory.display()));
    }
    Ok(if storm.is_clean() { exit::YES } else { exit::NO })
}

/// The morning as the options change it.
fn morning(command: &Load) -> Result<Morning, Trouble> {
    // A morning is played on services of its own, by one process; a person who asks for more is told.
    let unfit = [
        ("--address", command.address.is_some()),
        ("--store", command.store.is_some()),
        ("--sites", command.sites.is_some()),
        ("--rate (use --scale)", command.rate.is_some()),
        ("--wire", command.wire.is_some()),
        ("--processes", command.processes > 1),
        ("--worker", command.worker.is_some()),
        ("--merge", !command.merge.is_empty()),
        ("--history", command.history.is_some()),
        ("--without-audit", command.without_audit),
        ("--print-scenario", command.print_scenario),
        ("--print-programme", command.print_programme),
    ];
    let named: Vec<&str> = unfit.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
    if !named.is_empty() {
        return Err(Trouble::Config(format!("not for a historic morning: {}", named.join(", "))));
    }
    let unknown = || Trouble::Config(format!("{} is no historic morning", command.scenario));
    let mut morning = Morning::named(&command.scenario, command.scale.unwrap_or(1.0)).ok_or_else(unknown)?;
    if command.contrast && !morning.has_contrast() {
        let why = format!("--contrast is not for {}: without a capacity there is no line", command.scenario);
        return Err(Trouble::Config(why));
    }
    if let Some(seed) = command.seed {
        morning = morning.seeded(seed.into());
    }
    Ok(match command.seconds {
        Some(seconds) => morning.lasting(seconds),
        None => morning,
    })
}

/// One line a second for somebody who watches, one every five for a file.
fn progress(tick: &StormTick, quiet: bool) {
    let watched = std::io::stderr().is_terminal();
    if quiet || !(watched || tick.second.is_multiple_of(SELDOM)) {
        return;
    }
    let StormTick { second, phase, live, line, sold, p99, refused } = tick;
    let p99 = milliseconds_or_dash(*p99);
    complain(format_args!(
        "{second:>4} s  {phase:<16}  live {live:>6}  line {line:>6}  sales {sold:>5}/s  p99 {p99:>8}  turned back {refused:>5}/s"
    ));
}
