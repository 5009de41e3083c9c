//! `rationd policy …`: what the rules say on a date, and why. No store and no service is asked.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{complain, exit, print};
use crate::config::read_policy_files;
use crate::ids::{Channel, Paper, ProgrammeId, Relation};
use crate::policy::{Ask, Policies, Programme};
use crate::time::{Clock, Date, SystemClock, Timestamp};

/// The policy commands.
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Shows a programme: its rules on a date, or its whole calendar of changes
    Show(Show),
    /// Says what a person would be told on a date, and why
    Explain(Explain),
    /// Shows what changes between two dates
    Diff(Diff),
}

/// Which programme.
#[derive(Args)]
struct Which {
    /// The programme, such as kr-public-mask-2020
    #[arg(long, value_name = "ID")]
    programme: ProgrammeId,
    /// Directory of programme files (*.toml) beside the built-in ones
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// `policy show`
#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    which: Which,
    /// A date or an instant; without it the whole calendar is shown
    #[arg(long, value_name = "WHEN")]
    at: Option<When>,
}

/// `policy explain`
#[derive(Args)]
pub struct Explain {
    #[command(flatten)]
    which: Which,
    /// The buyer's year of birth
    #[arg(long, value_name = "YEAR")]
    birth_year: i16,
    /// When: an instant (2020-03-10T10:00+09:00) or a date [default: now]
    #[arg(long, value_name = "WHEN")]
    at: Option<When>,
    /// The buyer's number is a foreigner's
    #[arg(long)]
    foreign: bool,
    /// The site's channel
    #[arg(long, value_name = "WORD", default_value = "pharmacy")]
    channel: Channel,
    /// The site's region, such as Seoul
    #[arg(long, value_name = "REGION", default_value = "")]
    region: String,
    /// Units asked for [default: all that the rules allow this buyer]
    #[arg(long, short = 'n')]
    quantity: Option<u32>,
    /// How the agent stands to the buyer; makes it a proxy purchase
    #[arg(long, value_name = "WORD")]
    relation: Option<Relation>,
    /// The agent's year of birth
    #[arg(long, value_name = "YEAR", requires = "relation")]
    agent_birth_year: Option<i16>,
    /// A paper that is shown; may be given several times
    #[arg(long = "paper", value_name = "WORD")]
    papers: Vec<Paper>,
    /// An earlier purchase: INSTANT=UNITS; may be given several times
    #[arg(long, value_name = "INSTANT=UNITS")]
    earlier: Vec<EarlierPurchase>,
}

/// `policy diff`
#[derive(Args)]
pub struct Diff {
    #[command(flatten)]
    which: Which,
    /// The earlier date or instant
    #[arg(long, value_name = "WHEN")]
    from: When,
    /// The later date or instant
    #[arg(long, value_name = "WHEN")]
    to: When,
}

/// A date, meant as its first instant in the programme's zone, or an instant.
#[derive(Debug, Clone, Copy)]
enum When {
    Day(Date),
    Instant(Timestamp),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = text.parse().map(Self::Day).ok();
        day.or_else(|| text.parse().map(Self::Instant).ok()).ok_or_else(|| {
            "write a date (2020-03-10) or an instant with its offset (2020-03-10T10:00+09:00)".to_string()
        })
    }
}

impl When {
    fn of(self, programme: &Programme) -> Timestamp {
        match self {
            Self::Day(date) => programme.midnight(date),
            Self::Instant(at) => at,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct EarlierPurchase(Timestamp, u32);

impl FromStr for EarlierPurchase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, units) = text.split_once('=').ok_or("write INSTANT=UNITS, such as 2020-03-09T10:00+09:00=2")?;
        let at = at.parse::<Timestamp>().map_err(|e| e.to_string())?;
        Ok(Self(at, units.parse().map_err(|_| format!("not a number of units: {units:?}"))?))
    }
}

pub(super) fn run(command: PolicyCommand) -> u8 {
    let told = match command {
        PolicyCommand::Show(show) => programme(&show.which).map(|p| {
            tell(&p.show(show.at.map(|at| at.of(&p))), show.which.json);
        }),
        PolicyCommand::Explain(ask) => programme(&ask.which).map(|p| {
            let at = ask.at.map_or_else(|| SystemClock::real().now(), |at| at.of(&p));
            let explained = p.explain(&Ask {
                birth_year: ask.birth_year,
                foreign: ask.foreign,
                at,
                channel: ask.channel,
                region: ask.region,
                quantity: ask.quantity,
                relation: ask.relation,
                papers: ask.papers,
                agent_birth_year: ask.agent_birth_year,
                earlier: ask.earlier.iter().map(|e| (e.0, e.1)).collect(),
            });
            tell(&explained, ask.which.json);
        }),
        PolicyCommand::Diff(diff) => programme(&diff.which).map(|p| {
            tell(&p.diff(diff.from.of(&p), diff.to.of(&p)), diff.which.json);
        }),
    };
    match told {
        Ok(()) => exit::YES,
        Err(problem) => {
            complain(problem);
            exit::CONFIG
        }
    }
}

fn programme(which: &Which) -> Result<Arc<Programme>, String> {
    let policies = load(which.policies.as_deref())?;
    policies.get(which.programme).cloned().ok_or_else(|| {
        let known: Vec<_> = policies.iter().map(|p| p.id().to_string()).collect();
        format!("no programme {}; known: {}", which.programme, known.join(", "))
    })
}

fn load(directory: Option<&Path>) -> Result<Policies, String> {
    let Some(directory) = directory else { return Ok(Policies::built_in()) };
    let files = read_policy_files(directory).map_err(|e| e.to_string())?;
    Policies::with_files(&files).map_err(|e| e.to_string())
}

fn tell<T: Serialize + std::fmt::Display>(page: &T, json: bool) {
    match serde_json::to_string_pretty(page) {
        Ok(text) if json => print(text),
        _ => print(page),
    }
}
