//! Parse the command line, build the runtime, give the exit code.

use std::process::ExitCode;
use std::time::Duration;

use rationd::app;
use rationd::cli::{self, Cli, Command, Greeting, SaleCommand, complain, exit};
use rustix::process::{Resource, Rlimit, setrlimit};

/// How long the end waits for what nobody waits for.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Err(error) = keep_memory_private() {
        complain(format_args!("the process cannot keep what it knows out of core files: {error}"));
        return ExitCode::from(exit::FAILED);
    }
    // Refuses only if somebody was first, and then there is a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let code = match Cli::from_arguments().command {
        Command::Serve(settings) => match settings.load() {
            Ok(config) => on_runtime(async {
                match app::serve(config, greet).await {
                    Ok(()) => exit::YES,
                    Err(error) => {
                        complain(&error);
                        if error.is_configuration() { exit::CONFIG } else { exit::FAILED }
                    }
                }
            }),
            Err(errors) => refuse(errors),
        },
        Command::CheckConfig(settings) => match settings.load().map_err(|e| e.to_string()).and_then(|c| app::check(&c))
        {
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
        Command::Operator(c) => on_runtime(cli::run_operator(*c)),
        Command::Events(c) => on_runtime(cli::run_events(c)),
        Command::Stock(command) => on_runtime(cli::run_stock(command)),
        Command::Journal(command) => on_runtime(cli::run_journal(command)),
        Command::Terminal(c) => on_runtime(cli::run_terminal(*c)),
        Command::Audit(command) => cli::run_audit(command),
        Command::Keys(command) => cli::run_keys(command),
        Command::Receipt(command) => cli::run_receipt(command),
        Command::DevCerts(c) => cli::run_dev_certs(c),
        Command::Load(c) => on_runtime(cli::run_load(*c)),
    };
    ExitCode::from(code)
}

/// Numbers and keys pass through this process. Whatever becomes of it, the kernel writes its memory into no file and hands it to no
/// program that collects crashes, which it would do whatever the limit; and nobody else of the same user may look into it.
fn keep_memory_private() -> std::io::Result<()> {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, nothing)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn greet(running: &app::Running) {
    cli::report(Greeting {
        counters: running.counters,
        feed: running.feed,
        encrypted: running.encrypted,
        admin: running.admin,
        store: &running.store,
        volatile: running.volatile,
        policies: &running.policies,
        sites: &running.sites,
        now: running.since,
        simulated: running.simulated,
    });
}

fn on_runtime(work: impl Future<Output = u8>) -> u8 {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A name that is being looked up cannot be called off; it holds nobody up.
            runtime.shutdown_timeout(LEFT_BEHIND);
            code
        }
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
