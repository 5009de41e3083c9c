//! What the check costs beside what it could cost at the least, and beside what people would write instead, in one run on
//! one machine: `cargo bench --bench side_by_side`. `-- --help` lists what it can be asked for.
//!
//! Every system is a process of its own, so that its CPU time can be told from that of the others; the load client is
//! this process. Systems take turns in short rounds, so that whatever else the machine does meets all of them. Every
//! answer is looked at: one that is not an APPROVED fails the run.

#![allow(missing_docs, unreachable_pub, reason = "nobody imports a benchmark")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures and progress are what it is run for")]

mod side_by_side {
    pub mod audited;
    pub mod buyers;
    pub mod client;
    pub mod durability;
    pub mod echo;
    pub mod grown;
    pub mod machine;
    pub mod measure;
    pub mod offered;
    pub mod options;
    pub mod overload;
    pub mod postgres;
    pub mod processes;
    pub mod raw;
    pub mod redis;
    pub mod replicas;
    pub mod report;
    pub mod service;
    pub mod stormed;
    pub mod systems;
    pub mod telemetry;
    pub mod uploaded;
}

use std::process::ExitCode;

use side_by_side::audited::Audited;
use side_by_side::durability::Durability;
use side_by_side::grown::Grown;
use side_by_side::machine::Machine;
use side_by_side::options::{Asked, Options, System};
use side_by_side::overload::Overload;
use side_by_side::report::{Open, Report};
use side_by_side::stormed::Stormed;
use side_by_side::systems::Systems;
use side_by_side::telemetry::{Telemetry, collect};
use side_by_side::uploaded::Uploaded;
use side_by_side::{echo, options};
use tokio::signal::unix::{SignalKind, signal};

/// Whatever goes wrong ends the run with a sentence.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let asked = match options::parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let ended = match asked {
        Asked::Help => {
            println!("{}", options::HELP);
            Ok(())
        }
        // As the service does: as many threads as there are cores.
        Asked::Echo { answer } => run(tokio::runtime::Builder::new_multi_thread(), echo::serve(answer)),
        Asked::Collector { takes } => run(tokio::runtime::Builder::new_current_thread(), collect(takes)),
        Asked::Compare(options) => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(2);
            run(runtime, compare(options))
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("side_by_side: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut runtime: tokio::runtime::Builder, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime.enable_all().build()?.block_on(work)
}

/// Everything that was started ends with this, also when a signal breaks it off.
async fn compare(options: Options) -> Result<(), Failure> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let report = tokio::select! {
        report = measure(&options) => report?,
        _ = interrupt.recv() => return Err("interrupted; everything that was started has been ended".into()),
        _ = terminate.recv() => return Err("told to end; everything that was started has been ended".into()),
    };
    if options.json {
        println!("{}", report.json())
    } else {
        print!("{report}")
    }
    if report.is_complete() { Ok(()) } else { Err("something failed; the figures above are without it".into()) }
}

/// What fails is left out of the report, and said in it; everything else is measured all the same.
async fn measure(options: &Options) -> Result<Report, Failure> {
    let machine = Machine::look()?;
    let mut systems = Systems::start(options).await?;
    let mut report = Report::new(machine, options);
    report.note(systems.notes());
    for round in 1..=options::ROUNDS {
        for system in systems.names() {
            eprintln!("round {round} of {}: {system}", options::ROUNDS);
            match systems.measure(system, options.round()).await {
                Ok(measured) => report.add(system, measured),
                Err(failure) => {
                    systems.leave_out(system);
                    report.leave_out(system);
                    report.failed(system.name(), &failure);
                }
            }
        }
    }
    if let (true, Some(saturated)) = (options.open, report.per_second(System::Unary)) {
        let rate = options::OPEN_SHARE * saturated;
        eprintln!("open loop: {rate:.0} a second");
        match systems.sell_open(rate, options.span()).await {
            Ok(answered) if answered.shed.is_empty() => report.open = Some(Open { rate, answered }),
            Ok(answered) => {
                let refused = format!("{:.0} calls a second were refused", answered.shed_per_second());
                report.failed("open", &refused.into());
            }
            Err(failure) => report.failed("open", &failure),
        }
    }
    // What follows has services and stores of its own.
    drop(systems);
    if options.overload {
        match Overload::measure(options).await {
            Ok(overload) => report.overload = Some(overload),
            Err(failure) => report.failed("overload", &failure),
        }
    }
    if options.durability {
        match Durability::measure(options).await {
            Ok(durability) => report.durability = Some(durability),
            Err(failure) => report.failed("durability", &failure),
        }
    }
    if options.telemetry {
        match Telemetry::measure(options).await {
            Ok(telemetry) => report.telemetry = Some(telemetry),
            Err(failure) => report.failed("telemetry", &failure),
        }
    }
    if options.audit {
        match Audited::measure(options).await {
            Ok(audited) => report.audited = Some(audited),
            Err(failure) => report.failed("audit", &failure),
        }
    }
    if options.journal {
        match Uploaded::measure(options).await {
            Ok(uploaded) => report.uploaded = Some(uploaded),
            Err(failure) => report.failed("journal", &failure),
        }
    }
    if options.feed {
        match Stormed::measure(options).await {
            Ok(stormed) => report.stormed = Some(stormed),
            Err(failure) => report.failed("feed", &failure),
        }
    }
    if options.grown {
        match Grown::measure(options).await {
            Ok(grown) => report.grown = Some(grown),
            Err(failure) => report.failed("grown", &failure),
        }
    }
    Ok(report)
}
