//! How many bytes of Redis memory a buyer with one entry takes, and with two and three, key included, the outbox apart.
//!
//! `cargo run --example memory` fills a redis-server of its own with 1,000,000 buyers and prints the figures; with
//! `-- redis://HOST:PORT/` it uses the (empty) server there. Buyers are written by pipelined `SET` under the ledger's own
//! keys and layout; a sample of real claims shows that the scripts store the same bytes. Above 200 bytes for one entry it fails.
#![expect(clippy::print_stdout, reason = "the figure is what it is run for")]

#[allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::expect_used, reason = "the tests' own server")]
#[path = "../tests/support/redis.rs"]
mod server;

use std::error::Error;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use rationd::buyer::{BuyerKey, KeyMark, Pseudonym, Ring, Turn};
use rationd::ids::RequestId;
use rationd::ledger::redis::{FirstCheck, Lanes, RedisLedger, RedisOptions, Seen, keys};
use rationd::ledger::{Call, Claim, Claimed, Entry, Kept, Kind, Ledger, RecordKey, State, Terms, packed};
use rationd::redis_pool::RedisPool;
use rationd::time::{Clock, SystemClock, Timestamp};
use redis::aio::MultiplexedConnection;

const BUYERS: u64 = 1_000_000;
const SAMPLE: u64 = 100;
const PIPELINE: u64 = 10_000;
/// Of a buyer with one entry.
const MOST_BYTES: u64 = 200;
/// Somebody who buys every week has as many: the window is a week, and an entry is kept for eight days more.
const MOST_ENTRIES: u64 = 3;

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Failure> {
    // Only the memory is looked at, so a server of its own needs no files.
    let (_own, url) = match std::env::args().nth(1) {
        Some(url) => (None, url),
        None => {
            let own = server::RedisServer::start_with(&[]);
            let url = own.url();
            (Some(own), url)
        }
    };
    let mut connection = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
    let size: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
    if size != 0 {
        return Err(format!("{url} is not empty ({size} keys): give an empty server").into());
    }

    let before = used_memory(&mut connection).await?;
    let mut of_one = None;
    for entries in 1..=MOST_ENTRIES {
        for start in (0..BUYERS).step_by(usize::try_from(PIPELINE)?) {
            let mut pipeline = redis::pipe();
            for number in start..start + PIPELINE {
                let record = (0..entries).map(|_| sale(RequestId::random())).collect::<Result<Vec<_>, _>>()?;
                pipeline.cmd("SET").arg(keys::record(&buyer(number)?)).arg(packed::pack(&record)).ignore();
            }
            pipeline.exec_async(&mut connection).await?;
        }
        let each = (used_memory(&mut connection).await? - before).div_ceil(BUYERS);
        println!("entries of each of {BUYERS} buyers: {entries}; {each} bytes a buyer, key included, outbox apart");
        of_one.get_or_insert(each);
    }
    let fits = of_one.is_some_and(|each| each <= MOST_BYTES);

    let agree = claims_store_the_same(&url, &mut connection).await?;
    println!("{agree} of {SAMPLE} claims stored the same bytes under the same keys");
    Ok(if fits && agree == SAMPLE { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many of a sample of claims, made by the ledger, stand as the buyers above do.
async fn claims_store_the_same(url: &str, connection: &mut MultiplexedConnection) -> Result<u64, Failure> {
    let terms = Terms {
        turn: turn(),
        kept: Kept { now: Timestamp::EPOCH, length: Duration::ZERO },
        simulated_clock: false,
        programmes: Vec::new(),
    };
    let lanes = Lanes { count: NonZeroUsize::MIN, group: NonZeroUsize::MIN, queue: NonZeroUsize::MIN };
    let options = RedisOptions { allow_volatile: true, terms, lanes, witness: None, seen: Seen::default() };
    let ledger = RedisLedger::open(RedisPool::new(url, 2)?, options, SystemClock::real());
    match ledger.check_once().await {
        FirstCheck::Fit => {}
        other => return Err(format!("{other:?}").into()),
    }
    let mut agree = 0;
    for number in BUYERS..BUYERS + SAMPLE {
        let expected = sale(RequestId::random())?;
        let call = Call { request: expected.request, site: expected.site, terminal: "w1".parse()?, now: expected.at };
        let claim = Claim {
            quantity: expected.quantity,
            hold_for: None,
            windows: [].into_iter().collect(),
            good_until: Timestamp::NEVER,
            stated: String::new(),
        };
        let key = buyer(number)?;
        let sold = ledger.claim(key, call, claim).await?.outcome == Claimed::Recorded(expected);
        let stored: Vec<u8> = redis::cmd("GET").arg(keys::record(&key)).query_async(connection).await?;
        agree += u64::from(sold && stored == packed::pack([&expected]));
    }
    Ok(agree)
}

/// A buyer of a number of their own, in one of the partitions.
fn buyer(number: u64) -> Result<RecordKey, Failure> {
    // Spread like a keyed hash: every byte of a pseudonym may be anything.
    let high = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bytes = (u128::from(high) << 64 | u128::from(number)).to_be_bytes();
    let [partition, ..] = bytes;
    let buyer = BuyerKey { partition, pseudonym: Pseudonym::from_bytes(bytes) };
    Ok(RecordKey { programme: "km".parse()?, buyer, turn: turn() })
}

/// The ring of the keys of these buyers.
fn turn<T>() -> Turn<T> {
    Turn::at(Ring { id: 1, mark: KeyMark::from_bytes(*b"measured") })
}

/// A sale of two units now, at a site with a code of eight digits.
fn sale(request: RequestId) -> Result<Entry, Failure> {
    let at = SystemClock::real().now();
    let (state, kind, site) = (State::Sold, Kind::Sale, "11000001".parse()?);
    Ok(Entry { request, state, kind, late: false, over: false, quantity: 2, at, mark: at, site })
}

async fn used_memory(connection: &mut MultiplexedConnection) -> Result<u64, Failure> {
    let info: String = redis::cmd("INFO").arg("memory").query_async(connection).await?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).ok_or("INFO has no used_memory")?;
    Ok(used.trim().parse()?)
}
