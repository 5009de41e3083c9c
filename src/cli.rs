//! The command line: what may be asked, and the commands that are not the service itself.
//!
//! Reads arguments and prints answers. What is decided is decided elsewhere: by the rules (`policy`), by the service (every
//! one-call command is a client of it), by `config`.

mod audit;
mod dev_certs;
mod events;
mod greeting;
mod journal;
mod keys;
mod load;
mod operator;
mod policy;
mod receipt;
mod sale;
mod shown;
mod stock;
mod terminal;
mod tls;
mod traced;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigErrors, Overrides, environment};
use crate::time::Timestamp;

pub use greeting::Greeting;
pub use load::Load;
pub use sale::SaleCommand;

/// Exit codes, the same for every command.
pub mod exit {
    /// Done, or: sell.
    pub const YES: u8 = 0;
    /// A decision not to sell, or: nothing was found to act on.
    pub const NO: u8 = 1;
    /// The arguments cannot be read.
    pub const USAGE: u8 = 2;
    /// No decision; nothing was recorded by this attempt.
    pub const NOT_EXECUTED: u8 = 3;
    /// Recorded or not, nobody can say yet: resolve it by its request id.
    pub const UNKNOWN: u8 = 4;
    /// The configuration or the store's settings cannot be used (EX_USAGE of sysexits.h).
    pub const CONFIG: u8 = 64;
    /// The service ended because of a failure (EX_SOFTWARE of sysexits.h).
    pub const FAILED: u8 = 70;
}

const AFTER_HELP: &str = "Exit codes: 0 done or sell; 1 a decision not to sell; 2 arguments; 3 no decision, nothing \
recorded; 4 outcome unknown, resolve it by its request id; 64 configuration; 70 failure.";

/// May this person buy this rationed thing here, now? Asked, answered and recorded in one atomic step.
#[derive(Parser)]
#[command(name = "rationd", version, about, after_help = AFTER_HELP, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Runs the service; with no options on loopback with the embedded ledger, the built-in programmes and demo sites
    Serve(Settings),
    /// Checks the configuration, the key file, the programmes and the sites, and prints the effective configuration
    CheckConfig(Settings),
    /// Shows what the rules say on a date, and why, without any store
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Asks whether a person may buy; changes nothing
    Check(sale::Check),
    /// Sells: opens a session, records the sale if the rules allow it, closes the session
    Sell(sale::Sell),
    /// Holds units for a person for some time
    Hold(sale::Hold),
    /// Makes a hold a sale
    Confirm(sale::Follow),
    /// Gives a hold back
    Release(sale::Follow),
    /// Takes a sale back, or gives a hold back
    Void(sale::Follow),
    /// Says what became of a request id; closes an id that was never used
    Resolve(sale::Follow),
    /// Asks a running service whether it can record sales (exit code 0) or not (1)
    Health(sale::Health),
    /// Shows and moves the switches of the door: caps, capacity, mode, ramp
    Operator(Box<operator::OperatorCommand>),
    /// Prints what happened to purchases: what is kept, or as it comes
    Events(events::Events),
    /// Reports what a site has, and shows what is known of stocks: now, or as it changes
    #[command(subcommand)]
    Stock(stock::StockCommand),
    /// Enters sales that were made on paper, and shows what became of late sales
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// The counter program, on the whole screen: sells to a queue, and goes on as the programme says while the service is away
    Terminal(Box<terminal::CounterProgram>),
    /// Makes an authority and certificates, for development
    DevCerts(dev_certs::DevCerts),
    /// Turns the key ring: prepares the next key, rotates to it, retires the previous one
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Checks receipts, and puts the key that they are checked with into a file of its own
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// Verifies an audit log, and removes what has been kept for long enough
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Loads a service with made-up people at made-up counters, audits its ledger, and reports
    Load(Box<Load>),
}

/// What `serve` and `check-config` take. Everything else is in the file and in RATIOND_… variables.
#[derive(Args)]
pub struct Settings {
    /// Configuration file (TOML); also RATIOND_CONFIG
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where sales are recorded: embedded:PATH, redis://HOST:PORT/, redis+sentinel://HOST:PORT,…/NAME or redis+cluster://HOST:PORT,…, with rediss for TLS [default: embedded:./rationd-data, with --clock embedded:./rationd-data-simulated]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Where terminals call; off loopback only with TLS [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where health and metrics are asked for [default: 127.0.0.1:7421]
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Where anybody asks for stock, over HTTP and gRPC; off loopback only with TLS beside it [default: 127.0.0.1, two ports after the counters']
    #[arg(long, value_name = "ADDRESS")]
    feed_listen: Option<String>,
    /// What this process does: counters, feed, or counters,feed [default: counters,feed]
    #[arg(long, value_name = "ROLES")]
    roles: Option<String>,
    /// Directory of programme files (*.toml) beside the built-in ones
    #[arg(long, value_name = "DIR")]
    policies: Option<String>,
    /// Site registry (CSV: code,name,channel,region,address,lat,lng and, if wanted, gateway) instead of the demo sites
    #[arg(long, value_name = "FILE")]
    sites: Option<String>,
    /// Key file; made at first start with the embedded store
    #[arg(long, value_name = "FILE")]
    keys: Option<String>,
    /// Directory of the audit log, this instance's alone [default: `audit` beside an embedded store; with Redis none]
    #[arg(long, value_name = "DIR")]
    audit: Option<String>,
    /// The service's certificate with its chain (PEM): terminals then call over TLS and show certificates of their own
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// Its private key (PEM), readable by its owner alone
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// The authorities of callers' certificates (PEM)
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// The authorities' lists of certificates that they have revoked (PEM, CRL), one of each
    #[arg(long, value_name = "FILE")]
    tls_revoked: Option<String>,
    /// Log lines for people or as JSON: human or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Starts a simulated clock at this instant (RFC 3339 with offset), which then runs; for development, receipts are marked
    #[arg(long, value_name = "INSTANT")]
    clock: Option<Timestamp>,
    /// Accepts a Redis whose settings may lose confirmed sales; every receipt says so
    #[arg(long)]
    allow_volatile: bool,
}

impl Cli {
    /// From the arguments of the process; prints help or a usage error and ends the process where they ask for it.
    pub fn from_arguments() -> Self {
        Self::parse()
    }
}

impl Settings {
    /// The configuration that these options, the environment and the file make together.
    pub fn load(self) -> Result<Config, ConfigErrors> {
        let overrides = Overrides {
            store: self.store,
            listen: self.listen,
            admin_listen: self.admin_listen,
            feed_listen: self.feed_listen,
            roles: self.roles,
            policies: self.policies,
            sites: self.sites,
            keys: self.keys,
            audit: self.audit,
            tls_certificate: self.tls_certificate,
            tls_key: self.tls_key,
            tls_client_ca: self.tls_client_ca,
            tls_revoked: self.tls_revoked,
            log_format: self.log_format,
            clock: self.clock,
            allow_volatile: self.allow_volatile,
        };
        Config::load(self.config.as_deref(), overrides, environment())
    }
}

/// Runs `policy …` and gives the exit code.
pub fn run_policy(command: policy::PolicyCommand) -> u8 {
    policy::run(command)
}

/// Runs a one-call command against a running service and gives the exit code.
pub async fn run_sale(command: SaleCommand) -> u8 {
    traced::traced(command.name(), sale::run(command)).await
}

/// Runs `operator …` and gives the exit code.
pub async fn run_operator(command: operator::OperatorCommand) -> u8 {
    operator::run(command).await
}

/// Runs `events` and gives the exit code.
pub async fn run_events(command: events::Events) -> u8 {
    events::run(command).await
}

/// Runs `stock …` and gives the exit code.
pub async fn run_stock(command: stock::StockCommand) -> u8 {
    stock::run(command).await
}

/// Runs `journal …` and gives the exit code.
pub async fn run_journal(command: journal::JournalCommand) -> u8 {
    journal::run(command).await
}

/// Runs `terminal` and gives the exit code.
pub async fn run_terminal(command: terminal::CounterProgram) -> u8 {
    terminal::run(command).await
}

/// Runs `dev-certs` and gives the exit code.
pub fn run_dev_certs(command: dev_certs::DevCerts) -> u8 {
    dev_certs::run(command)
}

/// Runs `receipt …` and gives the exit code.
pub fn run_receipt(command: receipt::ReceiptCommand) -> u8 {
    receipt::run(command)
}

/// Runs `audit …` and gives the exit code.
pub fn run_audit(command: audit::AuditCommand) -> u8 {
    audit::run(command)
}

/// Runs `keys …` and gives the exit code.
pub fn run_keys(command: keys::KeysCommand) -> u8 {
    keys::run(command)
}

/// Runs `load` and gives the exit code.
pub async fn run_load(command: Load) -> u8 {
    load::run(command).await
}

/// Prints a report and gives the exit code.
pub fn report(text: impl std::fmt::Display) -> u8 {
    print(text);
    exit::YES
}

/// Prints to standard output; a reader that has gone away is no error of ours.
fn print(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints to standard error.
pub fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
