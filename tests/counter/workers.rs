//! What further processes of this binary do, so that a test can kill a terminal.

use super::{files, kills};
use crate::support::workers::{self, Worker};

const WORKER: &str = "counter::workers::worker";

/// Starts one with an order.
pub fn start(order: &str) -> Worker {
    Worker::start(WORKER, order)
}

/// The same on a disk that is full after so many blocks of 512 bytes in a file.
pub fn start_on_a_full_disk(blocks: u32, order: &str) -> Worker {
    Worker::start_on_a_full_disk(blocks, WORKER, order)
}

/// What a started process does. In an ordinary run there is no order and nothing to do.
#[test]
fn worker() {
    let Some(order) = workers::order() else { return };
    let words: Vec<&str> = order.split(' ').collect();
    match words.as_slice() {
        ["write", journal, day] => kills::write_until_killed(journal, day.parse().unwrap()),
        ["fill", journal] => files::fill(journal),
        ["sell-until-full", address, journal] => files::sell_until_full(address, journal),
        ["sell", address, journal] => kills::sell_once(address, journal),
        other => panic!("an order of {other:?}"),
    }
}
