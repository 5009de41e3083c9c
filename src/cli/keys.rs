//! `rationd keys …`: turns the key ring, a step at a time, in the key file that every instance has. No service is asked: each takes up
//! its changed file by itself.

use clap::Subcommand;

use super::{Settings, complain, exit, print};
use crate::config::{KeyStep, Keys, read_policy_files};
use crate::policy::Policies;
use crate::time::{Clock, SystemClock};

/// The steps of a turn. Each takes the options and the configuration of `serve`: the key file and the programmes.
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Says how far the ring has turned and what comes next; shows no key
    Show(Settings),
    /// Puts a new key beside the current one, as the next: every instance learns to read both
    Prepare(Settings),
    /// Turns to the next key: what is written is written under it; the key that was left is still read
    Rotate(Settings),
    /// Forgets the key that was left, when nothing that was recorded under it is needed any more
    Retire(Settings),
}

/// Why a step was not taken.
enum Failed {
    Refused(String),
    Unfit(String),
}

/// Runs it and gives the exit code.
pub(super) fn run(command: KeysCommand) -> u8 {
    match step(command) {
        Ok(told) => {
            print(told);
            exit::YES
        }
        Err(Failed::Refused(why)) => {
            complain(why);
            exit::NO
        }
        Err(Failed::Unfit(why)) => {
            complain(why);
            exit::CONFIG
        }
    }
}

fn step(command: KeysCommand) -> Result<String, Failed> {
    let (settings, step) = match command {
        KeysCommand::Show(settings) => (settings, None),
        KeysCommand::Prepare(settings) => (settings, Some(KeyStep::Prepare)),
        KeysCommand::Rotate(settings) => (settings, Some(KeyStep::Rotate)),
        KeysCommand::Retire(settings) => (settings, Some(KeyStep::Retire)),
    };
    let unfit = |error: &dyn std::fmt::Display| Failed::Unfit(error.to_string());
    let config = settings.load().map_err(|e| unfit(&e))?;
    let files = config.policies.as_deref().map_or(Ok(Vec::new()), read_policy_files).map_err(|e| unfit(&e))?;
    let policies = Policies::with_files(&files).map_err(|e| unfit(&e))?;
    let kept = policies.kept();
    let (file, now) = (config.keys.display(), SystemClock::real().now());
    let mut keys = Keys::load(&config.keys).map_err(|e| unfit(&e))?;
    if let Some(step) = step {
        keys = keys.turned(step, now, kept).map_err(|why| Failed::Refused(format!("{file}: {why}")))?;
        keys.replace(&config.keys).map_err(|e| unfit(&e))?;
    }
    Ok(format!("{file}: {}", keys.told(now, kept)))
}
