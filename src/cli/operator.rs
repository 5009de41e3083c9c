//! `rationd operator …`: how the door stands and the switches of it, and what is done for a buyer who complains.

mod access;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::tls::TlsFiles;
use super::{complain, exit, print};
use crate::grpc::v1;
use crate::ids::{Channel, SiteId};
use crate::session::switches::Ramp;
use crate::session::{Mode, Switches};
use crate::terminal::{CallError, Connection, Operator};
use crate::time::{Clock, SystemClock};

/// Every instance goes by new switches within two seconds; longer than this is worth being told.
const IN_EFFECT_WITHIN: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "Every change is one document under a version: two operators cannot undo each other's work unseen. \
Every instance goes by it within two seconds.

Exit codes: 0 done; 1 refused, nothing was changed; 2 arguments; 3 not reached, or not executed; 4 nobody can say whether it \
was done: look with `rationd operator show`.";

/// `operator`
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct OperatorCommand {
    /// Where the service listens for operators
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7421", global = true)]
    address: String,
    #[command(flatten)]
    tls: TlsFiles,
    /// Why, for the log, the head of the document and the record of accesses
    #[arg(long, value_name = "TEXT", default_value = "", global = true)]
    reason: String,
    /// Answer as one line of JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Shows the switches, the live sessions and the line
    Show,
    /// Who may come in: open, queue_all, first_terminals_only, drain or closed
    Mode {
        /// The mode
        mode: Mode,
    },
    /// The most live sessions in the nation, or `configured`
    Capacity {
        /// How many
        #[arg(value_parser = number_or("configured"))]
        seats: NumberOr,
        /// Also below the number that is live: nobody is let in until there are fewer
        #[arg(long)]
        below_live: bool,
    },
    /// One session a site, whatever the caps say: on or off
    OneTerminal {
        /// On or off
        state: OnOff,
    },
    /// The most sessions of a site, or of each site of a channel, or `configured`
    Cap {
        #[command(flatten)]
        of: CapOf,
        /// How many
        #[arg(value_parser = number_or("configured"))]
        seats: NumberOr,
    },
    /// Lets the sites of a channel in gradually: `ramp post_office 20`, `ramp off`
    Ramp {
        /// The channel, or `off`
        channel: String,
        /// Sites a second; it pauses by itself while sales are slow
        #[arg(value_name = "SITES_PER_SECOND")]
        rate: Option<f64>,
    },
    /// Shows what is recorded for a buyer; needs --reason, and stands on record. The number comes as for `check`
    LookUp(access::LookUp),
    /// Takes a purchase back for a person who was wrongly blocked; needs --reason, and stands on record
    Void(access::Void),
    /// Puts a whole document (TOML, as `show` prints it) in the place of the one there is
    Apply {
        /// The document
        file: PathBuf,
        /// The version that it replaces; left out: the one there is
        #[arg(long, value_name = "VERSION")]
        replaces: Option<u64>,
        /// As for capacity
        #[arg(long)]
        below_live: bool,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct CapOf {
    /// Of this site
    #[arg(long, value_name = "CODE")]
    site: Option<SiteId>,
    /// Of each site of this channel
    #[arg(long, value_name = "NAME")]
    channel: Option<Channel>,
}

#[derive(Clone, Copy, ValueEnum)]
enum OnOff {
    /// On
    On,
    /// Off
    Off,
}

/// A number, or the word for what was configured.
type NumberOr = Option<u32>;

fn number_or(word: &'static str) -> impl Fn(&str) -> Result<NumberOr, String> + Clone {
    move |text| match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) if text == word => Ok(None),
        Err(_) => Err(format!("must be a whole number or `{word}`")),
    }
}

/// What one command changes of the switches.
struct Change {
    below_live: bool,
    /// The version that it replaces; `None`: the one there is.
    version: Option<u64>,
    switches: Box<dyn FnOnce(&mut Switches)>,
    /// Sent as it stands.
    document: Option<String>,
}

impl Change {
    fn of(switches: impl FnOnce(&mut Switches) + 'static) -> Self {
        Self { below_live: false, version: None, switches: Box::new(switches), document: None }
    }
}

pub(super) async fn run(command: OperatorCommand) -> u8 {
    let OperatorCommand { address, tls, reason, json, what } = command;
    let operator = match connect(&address, &tls).await {
        Ok(operator) => operator,
        Err((code, message)) => {
            complain(message);
            return code;
        }
    };
    let what = match what {
        What::LookUp(wanted) => return access::look_up(&operator, wanted, reason, json).await,
        What::Void(wanted) => return access::void(&operator, wanted, reason, json).await,
        what => what,
    };
    let Some(change) = (match change(what) {
        Ok(change) => change,
        Err(problem) => {
            complain(problem);
            return exit::USAGE;
        }
    }) else {
        return match operator.switches().await {
            Ok(status) => show(&status, json),
            Err(error) => failed(&error),
        };
    };
    put(&operator, change, reason, json).await
}

async fn connect(address: &str, tls: &TlsFiles) -> Result<Operator, (u8, String)> {
    let files = tls.for_somebody(address).map_err(|problem| (exit::USAGE, problem))?;
    let connection = Connection::open(address, files.as_ref()).await;
    connection.map(|connection| Operator::on(&connection)).map_err(|error| (exit::NOT_EXECUTED, tls.beside(&error)))
}

/// `None`: nothing is to be changed.
fn change(what: What) -> Result<Option<Change>, String> {
    let cap = |seats: u32| u16::try_from(seats).map_err(|_| format!("{seats} seats are more than any site has"));
    Ok(Some(match what {
        What::Show | What::LookUp(_) | What::Void(_) => return Ok(None),
        What::Mode { mode } => Change::of(move |s| s.mode = mode),
        What::Capacity { seats, below_live } => Change { below_live, ..Change::of(move |s| s.capacity = seats) },
        What::OneTerminal { state } => Change::of(move |s| s.one_terminal = matches!(state, OnOff::On)),
        What::Cap { of: CapOf { site: Some(site), .. }, seats } => {
            let seats = seats.map(cap).transpose()?;
            Change::of(move |s| set(&mut s.cap_by_site, site, seats))
        }
        What::Cap { of: CapOf { channel: Some(channel), .. }, seats } => {
            let seats = seats.map(cap).transpose()?;
            Change::of(move |s| set(&mut s.cap_by_channel, channel, seats))
        }
        What::Cap { .. } => return Err("--site CODE or --channel NAME is required".into()),
        What::Ramp { channel, rate: None } if channel == "off" => Change::of(|s| s.ramp = None),
        What::Ramp { channel, rate: Some(sites_per_second) } => {
            let channel = channel.parse().map_err(|error| format!("{channel}: {error}"))?;
            Change::of(move |s| s.ramp = Some(Ramp { channel, sites_per_second }))
        }
        What::Ramp { .. } => return Err("`ramp CHANNEL SITES_PER_SECOND` or `ramp off`".into()),
        What::Apply { file, replaces, below_live } => {
            let read = std::fs::read_to_string(&file);
            let document = Some(read.map_err(|error| format!("{}: cannot be read: {error}", file.display()))?);
            Change { below_live, version: replaces, document, ..Change::of(|_| {}) }
        }
    }))
}

fn set<K: Ord>(caps: &mut std::collections::BTreeMap<K, u16>, of: K, seats: Option<u16>) {
    match seats {
        Some(seats) => caps.insert(of, seats),
        None => caps.remove(&of),
    };
}

async fn put(operator: &Operator, change: Change, reason: String, json: bool) -> u8 {
    let before = match operator.switches().await {
        Ok(before) => before,
        Err(error) => return failed(&error),
    };
    let document = match change.document {
        Some(document) => document,
        None => {
            let mut switches = match Switches::parse(&before.document) {
                Ok(switches) => switches,
                Err(error) => {
                    complain(format_args!("the service's switches are of another version of this program: {error}"));
                    return exit::NOT_EXECUTED;
                }
            };
            (change.switches)(&mut switches);
            switches.document()
        }
    };
    let version = change.version.unwrap_or(before.version);
    let clock = SystemClock::real();
    let wanted = v1::SetSwitchesRequest { version, document, reason, below_live: change.below_live };
    let kept = match operator.set_switches(wanted).await {
        Ok(kept) => kept,
        Err(error) => return failed(&error),
    };
    // It is done, whether or not it can be watched.
    let within = operator.within_caps(IN_EFFECT_WITHIN).await.unwrap_or_else(|error| {
        complain(format_args!(
            "version {} is there; whether all sites are within it cannot be asked: {error}",
            kept.version
        ));
        false
    });
    let seconds = clock.monotonic().as_secs_f64();
    if json {
        print(serde_json::json!({
            "version": kept.version, "document": kept.document, "within_caps": within, "seconds": seconds,
        }));
    } else if within {
        print(format_args!("version {}; no site is above its cap after {seconds:.2} s", kept.version));
    } else {
        print(format_args!("version {}; not yet seen within all caps after {seconds:.2} s", kept.version));
    }
    exit::YES
}

fn show(status: &v1::GetSwitchesResponse, json: bool) -> u8 {
    if json {
        print(serde_json::json!({
            "version": status.version, "document": status.document, "live": status.live,
            "capacity": status.capacity, "waiting": status.waiting, "above_caps": status.above_caps,
        }));
        return exit::YES;
    }
    print(format_args!(
        "version {}: {} of {} sessions live, {} waiting in line, {} above the caps of their sites",
        status.version, status.live, status.capacity, status.waiting, status.above_caps
    ));
    if status.document.is_empty() {
        print("no switch was ever touched: everything is as configured");
    } else {
        print(status.document.trim_end());
    }
    exit::YES
}

fn failed(error: &CallError) -> u8 {
    complain(error);
    match error {
        CallError::NotExecuted { reason, .. } if reason == "INVALID_REQUEST" => exit::USAGE,
        CallError::NotExecuted { retry_after: Some(_), .. } => exit::NOT_EXECUTED,
        CallError::NotExecuted { .. } => exit::NO,
        CallError::Unknown(_) => exit::UNKNOWN,
    }
}
