//! The race for the last unit: many callers at once, and exactly one winner in every round.

use std::collections::BTreeMap;
use std::ops::Range;

use rationd::ledger::{Ledger, State};

use super::histories::setting;
use super::places;
use super::steps::{Step, Verb, at, buyer, call, hold, sale, week};
use super::workers::{Worker, listen, say};

/// `RATIOND_RACE_ROUNDS` asks for more.
const ROUNDS: u64 = 2_000;
/// Rounds whose callers are let go together.
const AT_ONCE: u64 = 50;
/// Callers of one process in a round.
const CALLERS: u64 = 8;

fn rounds() -> u64 {
    setting("RATIOND_RACE_ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_has_one_winner_in_every_round() {
    let (ledger, _place) = places::embedded().await;
    let mut won = BTreeMap::new();
    for from in (0..rounds()).step_by(AT_ONCE as usize) {
        for process in 0..2 {
            won.extend(run(&ledger, process, from..rounds().min(from + AT_ONCE)).await);
        }
    }
    judge("embedded", &ledger, 1, &won).await;
}

/// The callers of one process in these rounds, all at once; which rounds they won, and how often.
async fn run<L: Ledger>(ledger: &L, process: u64, rounds: Range<u64>) -> BTreeMap<u64, u64> {
    let mut asked = Vec::new();
    // Callers in the outer loop: the rivals of a round are spread over the groups that the store forms.
    for caller in 0..CALLERS {
        for round in rounds.clone() {
            let windows = [week(3), week(1)];
            // A site of its own for each, because a site may be refused only so often.
            let who = process * CALLERS + caller + 1;
            let claim = if caller % 2 == 0 { sale(1, &windows) } else { hold(1, 60_000, &windows) };
            let step = Step { key: buyer(round), call: call(who, who, at(0)), verb: Verb::Claim(claim) };
            let ledger = ledger.clone();
            asked.push(tokio::spawn(async move { (round, step.ask(&ledger).await.unwrap().outcome) }));
        }
    }
    let mut won = BTreeMap::new();
    for answer in asked {
        match answer.await.unwrap() {
            (round, "Recorded" | "Held") => *won.entry(round).or_insert(0) += 1,
            (_, outcome) => assert_eq!(outcome, "Refused"),
        }
    }
    won
}
