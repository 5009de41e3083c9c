//! What the run is asked to do.

use std::fmt;
use std::time::Duration;

/// The open loop's share of what the service took in the closed one.
pub const OPEN_SHARE: f64 = 0.7;

/// Every system is measured so often, for its share of the time, in turns with the others.
pub const ROUNDS: u32 = 3;

pub const HELP: &str = "\
cargo bench --bench side_by_side -- [OPTION...]

  --seconds N        length of each measurement, in three rounds in turns with the others (10)
  --only A,B         only these: echo, unary, stream, raw, postgres, embedded, open (an open loop at 70 % of unary)
  --connections N    connections of the load client (8)
  --in-flight N      calls under way at once, over all connections (256)
  --on-stream N      calls under way on each stream (128: a gateway keeps its stream full, as redis-benchmark its pipeline)
  --grown            also: unary with 10,000,000 buyers stored beside 10,000 (minutes, 4 GB of memory, 2 GB of disk)
  --overload         also: five times the load that the service can take
  --durability       also: what `appendfsync always` costs beside `everysec`, and what `WAIT` costs behind Sentinels
  --telemetry        also: what it costs to be watched: by nobody, scraped, by a collector, by one that is frozen
  --audit            also: what the audit log costs
  --feed             also: what readers of stock at the rate of 2020's worst hour cost a sale, and how many the feed answers (minutes)
  --journal          also: what uploads of paper cost a sale, and how long an outage takes to come in (minutes)
  --late N           sheets of that outage (46,000; a nation wrote 920,000)
  --all              all of these
  --json             one object with every figure instead of the table
  --help             this text

Needs redis-server and redis-benchmark on PATH. Files go where TMPDIR says; choose a real disk, not memory.";

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// The least that a call costs: the same messages on the same settings, and no check.
    Echo,
    /// Purchase on Redis.
    Unary,
    /// PurchaseStream on Redis.
    Stream,
    /// The claim script alone, pipelined by redis-benchmark.
    Raw,
    /// What people would write instead.
    Postgres,
    /// Purchase on the embedded store.
    Embedded,
}

impl System {
    pub const ALL: [Self; 6] = [Self::Echo, Self::Unary, Self::Stream, Self::Raw, Self::Postgres, Self::Embedded];

    /// Its name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Unary => "unary",
            Self::Stream => "stream",
            Self::Raw => "raw",
            Self::Postgres => "postgres",
            Self::Embedded => "embedded",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The open loop's name beside those of the systems.
const OPEN: &str = "open";

/// How to compare.
#[derive(Debug, Clone)]
pub struct Options {
    pub seconds: f64,
    pub only: Vec<System>,
    pub connections: usize,
    pub in_flight: usize,
    /// Calls under way on one stream.
    pub on_stream: usize,
    /// Measure an open loop too.
    pub open: bool,
    /// Measure over many stored buyers too.
    pub grown: bool,
    /// Measure under too much load too.
    pub overload: bool,
    /// Measure weaker promises too.
    pub durability: bool,
    /// Measure what it costs to be watched too.
    pub telemetry: bool,
    /// Measure with an audit log and without too.
    pub audit: bool,
    /// Measure beside readers of stock too.
    pub feed: bool,
    /// Measure beside uploads of paper too.
    pub journal: bool,
    /// Sheets of an outage.
    pub late: usize,
    pub json: bool,
}

impl Options {
    /// How long each measurement takes.
    pub fn span(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// How long one system is measured in one round.
    pub fn round(&self) -> Duration {
        self.span() / ROUNDS
    }

    /// Calls under way on one connection.
    pub fn in_flight_each(&self) -> usize {
        self.in_flight.div_ceil(self.connections)
    }
}

/// What this process is to be.
pub enum Asked {
    Help,
    /// The echo that another process of this program measures; `answer` is the message that it sends.
    Echo {
        answer: Vec<u8>,
    },
    /// The collector that services of another process of this program send to.
    Collector {
        /// How long it takes for each.
        takes: Duration,
    },
    Compare(Options),
}

pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut options = Options {
        seconds: 10.0,
        only: System::ALL.to_vec(),
        connections: 8,
        in_flight: 256,
        on_stream: 128,
        open: true,
        grown: false,
        overload: false,
        durability: false,
        telemetry: false,
        audit: false,
        feed: false,
        journal: false,
        late: 46_000,
        json: false,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value; see --help"));
        match argument.as_str() {
            // Cargo says it to every benchmark.
            "--bench" => {}
            "--help" | "-h" => return Ok(Asked::Help),
            "--echo" => return Ok(Asked::Echo { answer: bytes(&value()?)? }),
            "--json" => options.json = true,
            "--grown" => options.grown = true,
            "--overload" => options.overload = true,
            "--durability" => options.durability = true,
            "--telemetry" => options.telemetry = true,
            "--collector" => return Ok(Asked::Collector { takes: Duration::from_secs(number(&argument, &value()?)?) }),
            "--audit" => options.audit = true,
            "--feed" => options.feed = true,
            "--journal" => options.journal = true,
            "--late" => options.late = number::<usize>(&argument, &value()?)?.clamp(40, 960_000),
            "--all" => {
                (options.grown, options.overload, options.durability) = (true, true, true);
                (options.telemetry, options.audit, options.feed, options.journal) = (true, true, true, true);
            }
            "--seconds" => {
                let seconds: f64 = number(&argument, &value()?)?;
                if !(0.3..=3600.0).contains(&seconds) {
                    return Err("--seconds must be from 0.3 to 3600".into());
                }
                options.seconds = seconds;
            }
            "--connections" => options.connections = number::<usize>(&argument, &value()?)?.clamp(1, 1000),
            "--in-flight" => options.in_flight = number::<usize>(&argument, &value()?)?.clamp(1, 100_000),
            "--on-stream" => options.on_stream = number::<usize>(&argument, &value()?)?.clamp(1, 256),
            "--only" => {
                let names = value()?;
                options.open = names.split(',').any(|name| name == OPEN);
                let systems = names.split(',').filter(|name| *name != OPEN).map(system);
                options.only = systems.collect::<Result<Vec<_>, _>>()?;
                options.only.sort_unstable();
                options.only.dedup();
                if options.open && !options.only.contains(&System::Unary) {
                    return Err("--only open needs unary too, which tells how much is 70 %".into());
                }
            }
            other => return Err(format!("{other} is not known; see --help")),
        }
    }
    // The service takes 64 streams on a connection, and the session is one of them.
    if options.in_flight_each() > 63 {
        return Err(
            "--in-flight is more than 63 for each of --connections, which is all that a connection takes".into()
        );
    }
    Ok(Asked::Compare(options))
}

fn number<N: std::str::FromStr>(option: &str, text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{option} {text}: must be a number"))
}

fn system(name: &str) -> Result<System, String> {
    let found = System::ALL.into_iter().find(|system| system.name() == name);
    found.ok_or_else(|| format!("--only {name}: must be of {}, {OPEN}", System::ALL.map(System::name).join(", ")))
}

/// Bytes from two hexadecimal digits each.
fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    bytes.ok_or_else(|| "--echo takes pairs of hexadecimal digits".into())
}
