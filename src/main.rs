//! Parse the command line, build the runtime, give the exit code.

use std::process::ExitCode;

use clap::Parser;
use rationd::app::{self, Watched};
use rationd::cli::{self, Cli, Command, SaleCommand, complain, exit};
use rationd::config::{Config, LogFormat};
use rationd::drain::signalled;
use rationd::telemetry::{self, Telemetry, TelemetryOptions};
use rationd::time::SystemClock;

fn main() -> ExitCode {
    // Refuses only if somebody was first, and then there is a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let code = match Cli::parse().command {
        Command::Serve(settings) => match settings.load() {
            Ok(config) => on_runtime(serve(config)),
            Err(errors) => refuse(errors),
        },
        Command::CheckConfig(settings) => match settings.load().map_err(|e| e.to_string()).and_then(|c| app::check(&c)) {
            Ok(report) => cli::report(report),
            Err(errors) => refuse(errors),
        },
        Command::Policy(command) => cli::run_policy(command),
        Command::Check(c) => on_runtime(cli::run_sale(SaleCommand::Check(c))),
        Command::Sell(c) => on_runtime(cli::run_sale(SaleCommand::Sell(c))),
        Command::Hold(c) => on_runtime(cli::run_sale(SaleCommand::Hold(c))),
        Command::Confirm(c) => on_runtime(cli::run_sale(SaleCommand::Confirm(c))),
        Command::Release(c) => on_runtime(cli::run_sale(SaleCommand::Release(c))),
        Command::Void(c) => on_runtime(cli::run_sale(SaleCommand::Void(c))),
        Command::Resolve(c) => on_runtime(cli::run_sale(SaleCommand::Resolve(c))),
        Command::Health(c) => on_runtime(cli::run_sale(SaleCommand::Health(c))),
    };
    ExitCode::from(code)
}

fn on_runtime(work: impl Future<Output = u8>) -> u8 {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            complain(format_args!("the runtime cannot be started: {error}"));
            exit::FAILED
        }
    }
}

fn refuse(errors: impl std::fmt::Display) -> u8 {
    complain(errors);
    exit::CONFIG
}

async fn serve(config: Config) -> u8 {
    let options = TelemetryOptions {
        json: config.telemetry.log_format == LogFormat::Json,
        filter: config.telemetry.log_filter.clone(),
        environment: rationd::config::standard_environment(),
    };
    let telemetry = match telemetry::start(options) {
        Ok(telemetry) => telemetry,
        Err(error) => return refuse(error),
    };
    let code = run(config, &telemetry).await;
    telemetry.shutdown().await;
    code
}

async fn run(config: Config, telemetry: &Telemetry) -> u8 {
    let clock = config.clock.map_or_else(SystemClock::real, SystemClock::starting_at);
    let watched = Watched { metrics: telemetry.metrics(), scrape: telemetry.scrape_router().into() };
    let store = config.store.clone();
    let running = match app::start(config, clock, watched).await {
        Ok(running) => running,
        Err(error) if error.is_configuration() => return refuse(error),
        Err(error) => {
            complain(error);
            return exit::FAILED;
        }
    };
    cli::greet(&running.greeting(&store, &clock));
    if let Err(error) = signalled().await {
        complain(format_args!("signals cannot be heard: {error}"));
    }
    tracing::info!("asked to stop");
    match running.stop().await {
        Ok(()) => exit::YES,
        Err(error) => {
            complain(error);
            exit::FAILED
        }
    }
}
