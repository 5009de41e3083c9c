//! The race for the last unit: many callers at once, and exactly one winner in every round.

use std::collections::BTreeMap;
use std::ops::Range;

use rationd::ledger::{Ledger, LedgerError, State};

use super::histories::setting;
use super::places;
use super::steps::{Step, Verb, at, buyer, call, hold, sale, week};
use super::workers;
use crate::support::workers::{Worker, listen, say};

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
        won.extend(run(&ledger, 0, from..rounds().min(from + AT_ONCE)).await);
    }
    judge("embedded", &ledger, 1, &won).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_has_one_winner_between_processes() {
    let (ledger, place) = places::redis().await;
    between_processes("redis", &ledger, &format!("race-redis {}", place.url())).await;
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
            asked.push(tokio::spawn(async move { (round, ask_until_told(&step, &ledger).await) }));
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

/// Asks as a client does: with the same id until there is an answer.
async fn ask_until_told<L: Ledger>(step: &Step, ledger: &L) -> &'static str {
    loop {
        match step.ask_patiently(ledger).await {
            Ok(reply) => return reply.outcome,
            Err(LedgerError::Unconfirmed(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Exactly one winner in every round, told to one caller and standing in the record.
async fn judge<L: Ledger>(store: &str, ledger: &L, processes: u64, won: &BTreeMap<u64, u64>) {
    let rounds = rounds();
    let mut lost = 0;
    for round in 0..rounds {
        assert_eq!(won.get(&round), Some(&1), "round {round}: callers who were told that they had it");
        let record = ledger.usage(buyer(round)).await.unwrap();
        let winners = record.entries().iter().filter(|e| e.counts(at(0))).count();
        let refused = record.entries().iter().filter(|e| e.state == State::Refused).count();
        assert_eq!(winners, 1, "round {round}: {record:?}");
        assert_eq!(refused, record.entries().len() - 1, "round {round}: {record:?}");
        lost += refused;
    }
    println!(
        "{store}: {rounds} rounds for the last unit, {processes} process(es), {} callers a round: {rounds} winners, \
         {lost} refused",
        1 + lost as u64 / rounds
    );
}

/// Several processes of the service on one store: rounds are called out to all of them, in blocks.
async fn between_processes<L: Ledger>(store: &str, ledger: &L, order: &str) {
    const PROCESSES: u64 = 3;
    let mut workers: Vec<Worker> =
        (0..PROCESSES).map(|process| workers::start(&format!("{order} {process}"))).collect();
    for worker in &mut workers {
        assert_eq!(worker.hear().as_deref(), Some("ready"));
    }
    let mut won: BTreeMap<u64, u64> = BTreeMap::new();
    for from in (0..rounds()).step_by(AT_ONCE as usize) {
        let until = rounds().min(from + AT_ONCE);
        for worker in &mut workers {
            worker.tell(&format!("{from} {until}"));
        }
        for worker in &mut workers {
            let said = worker.hear().expect("a worker that still lives");
            for round in said.split_whitespace().skip(1) {
                *won.entry(round.parse().unwrap()).or_insert(0) += 1;
            }
        }
    }
    judge(store, ledger, PROCESSES, &won).await;
}

/// What a process of the race does: runs the rounds that it is told, and says which it won (twice, if it won twice).
pub async fn take_part<L: Ledger>(ledger: &L, process: u64) {
    say("ready");
    while let Some(line) = listen() {
        let (from, until) = line.split_once(' ').unwrap();
        let won = run(ledger, process, from.parse().unwrap()..until.parse().unwrap()).await;
        let won = won.iter().flat_map(|(round, times)| (0..*times).map(move |_| format!(" {round}")));
        say(&format!("won{}", won.collect::<String>()));
    }
}
