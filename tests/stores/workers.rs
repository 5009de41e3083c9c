//! What further processes of this binary do, so that a test can race several service processes, or kill one.

use super::{crashes, files, places, race};
use crate::support::workers::{self, Worker};

/// Starts one with an order.
pub fn start(order: &str) -> Worker {
    Worker::start("stores::workers::worker", order)
}

/// What a started process does. In an ordinary run there is no order and nothing to do.
#[test]
fn worker() {
    let Some(order) = workers::order() else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match words.as_slice() {
            ["sell", directory, from] => crashes::sell(directory, from.parse().unwrap()).await,
            ["keep-open", directory] => files::keep_open(directory),
            ["race-redis", url, process] => {
                let ledger = places::redis_ledger(url, 8).await;
                race::take_part(&ledger, process.parse().unwrap()).await;
            }
            _ => panic!("no such order: {order}"),
        }
    });
}
