//! `rationd audit …`: whether an audit log is what was written, and what has been kept for long enough.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{complain, exit, print};
use crate::audit::chain::Link;
use crate::audit::verify::{Finding, Verified, verify};
use crate::audit::{Expired, OpenError, expire};
use crate::time::{Clock, SystemClock};

const AFTER_HELP: &str = "\
The chain shows that no single record was changed, taken out, put in or moved. Whoever can write to the directory could write all of \
it anew: against that, keep the newest link that is printed (SEQUENCE HASH) elsewhere, and hand it to a later run with --kept.

Examples:
  rationd audit verify ./rationd-data/audit
  rationd audit verify ./rationd-data/audit --kept '12 4a9f…'
  rationd audit expire ./rationd-data/audit

Exit codes: 0 every record follows, or done; 1 one does not; 2 arguments; 3 it cannot be read, or a process writes to it.";

/// Where an embedded store's service keeps it.
const DIRECTORY: &str = "./rationd-data/audit";

/// The commands about audit logs.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Follows the chain of records from the oldest kept to the newest, and names the first that does not follow
    #[command(after_help = AFTER_HELP)]
    Verify(Verify),
    /// Removes the segments and keys of months that have been kept for long enough, from a log to which no service writes: a service does it by itself
    Expire(Expire),
}

/// `audit verify`
#[derive(Args)]
pub struct Verify {
    /// The log's directory
    #[arg(value_name = "DIR", default_value = DIRECTORY)]
    directory: PathBuf,
    /// A link that an earlier run printed (SEQUENCE HASH): the log must still hold it
    #[arg(long, value_name = "LINK", value_parser = link)]
    kept: Option<Link>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// `audit expire`
#[derive(Args)]
pub struct Expire {
    /// The log's directory
    #[arg(value_name = "DIR", default_value = DIRECTORY)]
    directory: PathBuf,
    /// For how many whole months records are kept
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(24..=1200))]
    keep_months: u32,
}

fn link(text: &str) -> Result<Link, String> {
    text.parse().map_err(|why| format!("{why}; as `rationd audit verify` prints it"))
}

pub(super) fn run(command: AuditCommand) -> u8 {
    match command {
        AuditCommand::Verify(Verify { directory, kept, json }) => match verify(&directory, kept) {
            Ok(verdict) => tell(&verdict, json),
            Err(error) => {
                complain(format_args!("{}: cannot be read: {error}", directory.display()));
                exit::NOT_EXECUTED
            }
        },
        AuditCommand::Expire(Expire { directory, keep_months }) => {
            // One that is not there is not made.
            let is_there = std::fs::read_dir(&directory).map(drop);
            let is_there = is_there.map_err(|source| OpenError::Io { directory: directory.clone(), source });
            match is_there.and_then(|()| expire(&directory, SystemClock::real().now(), keep_months)) {
                Ok(None) => print("nothing is old enough"),
                Ok(Some(Expired { segments, until, month })) => {
                    print(format_args!("removed: {segments} segments, to record {until} of {month}, and their keys"));
                }
                Err(error) => {
                    complain(error);
                    return exit::NOT_EXECUTED;
                }
            }
            exit::YES
        }
    }
}

fn tell(verdict: &Result<Verified, Finding>, json: bool) -> u8 {
    match verdict {
        Ok(Verified { first, newest, not_recorded, unfinished }) => {
            if json {
                print(json!({
                    "verdict": "FOLLOWS", "first": first, "newest": newest.sequence, "hash": newest.hash,
                    "not_recorded": not_recorded, "unfinished_bytes": unfinished,
                }));
                return exit::YES;
            }
            print(format_args!("FOLLOWS  records {first} to {}", newest.sequence));
            print(format_args!("  newest       {newest}"));
            if *not_recorded > 0 {
                print(format_args!("  NOT RECORDED {not_recorded} accesses, as the log says itself"));
            }
            if *unfinished > 0 {
                print(format_args!(
                    "  unfinished   {unfinished} bytes: a record under way, or cut off at the next start"
                ));
            }
            exit::YES
        }
        Err(finding) => {
            if json {
                let (file, line) = finding.place.clone().unzip();
                let (sequence, why) = (finding.sequence, finding.to_string());
                print(json!({ "verdict": "BROKEN", "record": sequence, "file": file, "line": line, "why": why }));
            } else {
                print(format_args!("BROKEN   {finding}"));
            }
            exit::NO
        }
    }
}
