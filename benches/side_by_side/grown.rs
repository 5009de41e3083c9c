//! Whether the cost of a decision grows with what is stored: the same load over ten thousand buyers and over ten million.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use super::measure::Measured;
use super::options::{Options, ROUNDS};
use super::raw;
use super::redis::{DURABLE, Redis};
use super::systems::OnRedis;
use crate::Failure;

const FEW: u64 = 10_000;
const MANY: u64 = 10_000_000;
/// Buyers that one script stores.
const STEP: u64 = 20_000;

/// Copies the record of one sale for other buyers, ARGV[1] and those before ARGV[2], spread over the partitions as theirs
/// are. A key begins with the partition in braces and ends with sixteen bytes of pseudonym.
const FILL: &str = "
local middle = string.sub(KEYS[1], 5, -17)
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
  local spread = (n * 69069 + 1) % 4294967296
  local buyer = struct.pack('>I4I4I4I4', spread, n, 4294967295 - spread, n)
  redis.call('COPY', KEYS[1], string.format('{%02x}', math.floor(spread / 16777216)) .. middle .. buyer)
end";

/// What was reached with few buyers stored and with many.
pub struct Grown {
    pub few: Measured,
    pub many: Measured,
}

impl Grown {
    pub fn ratio(&self) -> f64 {
        self.many.per_second() / self.few.per_second()
    }

    pub async fn measure(options: &Options) -> Result<Self, Failure> {
        let (few, many) = (filled(FEW, options).await?, filled(MANY, options).await?);
        let (mut with_few, mut with_many) = (None, None);
        for round in 1..=ROUNDS {
            for (world, measured, stored) in [(&few, &mut with_few, FEW), (&many, &mut with_many, MANY)] {
                eprintln!("round {round} of {ROUNDS}: unary with {stored} buyers stored");
                let round = world.sell(options.round()).await?;
                match measured {
                    None => *measured = Some(round),
                    Some(measured) => Measured::add(measured, round),
                }
            }
        }
        let (few, many) = with_few.zip(with_many).ok_or("nothing was measured")?;
        Ok(Self { few, many })
    }
}

/// A service over a Redis that holds so many buyers.
async fn filled(buyers: u64, options: &Options) -> Result<OnRedis, Failure> {
    eprintln!("storing {buyers} buyers");
    // Durable when they are in: nobody has been promised anything before.
    let durable: Vec<&str> = DURABLE.iter().map(|word| if *word == "yes" { "no" } else { word }).collect();
    let redis = Redis::start(&[&durable[..], &["--enable-debug-command", "local"]].concat()).await?;
    let mut connection = redis.connect().await?;
    let record = raw::one_sale(&mut connection).await?;
    for from in (0..buyers).step_by(usize::try_from(STEP)?) {
        let mut script = redis::cmd("EVAL");
        script.arg(FILL).arg(1).arg(&record).arg(from).arg(buyers.min(from + STEP));
        script.exec_async(&mut connection).await?;
    }
    // The sale itself and its outbox are there too.
    let stored: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
    if stored != buyers + 2 {
        return Err(format!("{stored} buyers are stored instead of {buyers}").into());
    }
    make_durable(&mut connection).await?;
    settle(&mut connection).await?;
    OnRedis::over(redis, options, &[]).await
}

async fn make_durable(connection: &mut MultiplexedConnection) -> Result<(), Failure> {
    redis::cmd("CONFIG").arg("SET").arg("appendonly").arg("yes").exec_async(connection).await?;
    loop {
        sleep(Duration::from_millis(200)).await;
        let info: String = redis::cmd("INFO").arg("persistence").query_async(connection).await?;
        let says = |what: &str| info.lines().any(|line| line.trim() == what);
        if says("aof_rewrite_in_progress:0") && says("aof_rewrite_scheduled:0") {
            return if says("aof_last_bgrewrite_status:ok") {
                Ok(())
            } else {
                Err("the append-only file failed".into())
            };
        }
    }
}

/// Waits until the table of keys has grown: Redis moves it bit by bit, which a store that grew over weeks has long behind it.
async fn settle(connection: &mut MultiplexedConnection) -> Result<(), Failure> {
    loop {
        let tables: String = redis::cmd("DEBUG").arg("HTSTATS").arg(0).query_async(connection).await?;
        if !tables.contains("rehashing target") {
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
}
