//! What a storm of people who ask for stock costs a sale: the same sales, at a rate of their own, in quiet and beside readers at the
//! rate of the worst hour of 2020; the feed in the service itself, and in a process of its own. And how many the feed answers when
//! it has nothing else to do.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rationd::grpc::v1::{self, report_stock_request, stock_service_client::StockServiceClient};
use rationd::ids::RequestId;
use rationd::sites::Sites;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use super::buyers;
use super::durability::Spread;
use super::measure::quantile;
use super::options::Options;
use super::redis::{DURABLE, Redis, free_port};
use super::service::Server;
use super::systems::OnRedis;
use crate::Failure;

/// Pairs of a quiet span and a stormy one.
const PAIRS: usize = 10;
/// Sales a second.
const SALES: f64 = 1_000.0;
/// Readers a second: the worst hour of 2020 had 2,680 on average.
const READERS: f64 = 2_700.0;
/// As many sites as there were.
pub const SITES: usize = 24_000;
/// Connections of the readers.
const CONNECTIONS: usize = 32;
/// Those who watch.
const WATCHERS: usize = 200;
/// What most of them asked: what is near me.
const NEAR: &str = "/corona19-masks/v1/storesByGeo/json?lat=LAT&lng=LNG&m=1000";

/// What was reached.
pub struct Stormed {
    /// The 99th percentile of sales in a storm beside that in quiet, the feed in the service itself.
    pub within: Spread,
    /// The same with the feed in a process of its own.
    pub apart: Spread,
    /// Answers a second of the feed alone.
    pub alone: f64,
    /// The bytes of the largest of them.
    pub largest: u64,
    /// Memory of the feed apart with everything that is known and everybody who watches, in MiB.
    pub resident: f64,
}

impl Stormed {
    pub async fn measure(options: &Options) -> Result<Self, Failure> {
        let files = tempfile::tempdir()?;
        let sites = files.path().join("sites.csv");
        std::fs::write(&sites, sites_of_a_nation())?;
        let sites = ("SITES", sites.to_string_lossy().into_owned());
        let span = options.span() / 2;
        let within = {
            let feed = format!("127.0.0.1:{}", free_port()?);
            let settings = [sites.clone(), ("FEED__LISTEN", feed.clone())];
            let service = OnRedis::over(Redis::start(&DURABLE).await?, options, &settings).await?;
            pairs("the feed in the service", &service, &feed, span).await?
        };
        let redis = Redis::start(&DURABLE).await?;
        let url = redis.url();
        let counters = [sites.clone(), ("ROLES", "counters".to_owned())];
        let service = OnRedis::over(redis, options, &counters).await?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let programme = ("FEED__PROGRAMME", buyers::PROGRAMME.to_owned());
        let settings = [sites, programme, ("ROLES", "feed".to_owned()), ("FEED__LISTEN", address.clone())];
        eprintln!("every site says what it has");
        report(service.address()).await?;
        let feed = Server::service(Some(&url), &settings)?;
        let apart = pairs("the feed apart", &service, &address, span).await?;
        drop(feed);
        eprintln!("the feed alone, with a thread for each of two cores, and {WATCHERS} who watch");
        let feed = Server::service(Some(&url), &[&settings[..], &[("FEED__WORKERS", "2".to_owned())]].concat())?;
        let watchers = watch(&address).await?;
        let readers = Readers::begin(&address, None).await?;
        tokio::time::sleep(options.span()).await;
        let (alone, largest) = readers.finish().await.map_err(|failure| feed.explain(failure))?;
        let resident = resident(feed.id())?;
        drop(watchers);
        Ok(Self { within, apart, alone, largest, resident })
    }
}

/// Every site has a delivery of its own.
async fn report(counters: &str) -> Result<(), Failure> {
    let channel = Endpoint::from_shared(format!("http://{counters}"))?.connect().await?;
    let said = futures_util::stream::iter(0..SITES).map(|site| {
        let mut client = StockServiceClient::new(channel.clone());
        async move {
            let units = i32::try_from(1 + site % 200)?;
            let report = Some(report_stock_request::Report::Delivery(v1::Delivery { units }));
            let (request_id, programme) = (RequestId::random().to_string(), buyers::PROGRAMME.to_owned());
            let mut request = Request::new(v1::ReportStockRequest { request_id, programme, at: None, report });
            request.metadata_mut().insert("rationd-site", code(site).parse()?);
            Ok::<_, Failure>(client.report_stock(request).await?)
        }
    });
    said.buffer_unordered(32).try_for_each(async |_| Ok(())).await
}

/// Those who watch, each of whom has been told everything.
async fn watch(feed: &str) -> Result<Vec<Streaming<v1::WatchStockResponse>>, Failure> {
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let channel = Endpoint::from_shared(format!("http://{feed}"))?.connect().await?;
        let request = v1::WatchStockRequest { programme: buyers::PROGRAMME.to_owned(), ..Default::default() };
        let mut told = StockServiceClient::new(channel).watch_stock(request).await?.into_inner();
        let mut rows = 0;
        while rows < SITES {
            match told.message().await?.and_then(|message| message.told) {
                Some(v1::watch_stock_response::Told::Changes(changes)) => rows += changes.levels.len(),
                Some(_) => {}
                None => return Err("a watcher was told to go".into()),
            }
        }
        watchers.push(told);
    }
    Ok(watchers)
}

/// In MiB.
fn resident(process: u32) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Ratios of the 99th percentile, each of two spans next to each other.
async fn pairs(name: &str, service: &OnRedis, feed: &str, span: Duration) -> Result<Spread, Failure> {
    let mut ratios = Vec::new();
    for pair in 0..PAIRS {
        let quiet = async || -> Result<f64, Failure> {
            let answered = service.sell_open(SALES, span).await?;
            quantile(&answered.approved, 0.99).ok_or_else(|| "nothing was sold".into())
        };
        let stormy = async || -> Result<f64, Failure> {
            let readers = Readers::begin(feed, Some(READERS)).await?;
            let sold = quiet().await;
            let (answered, _) = readers.finish().await?;
            if answered < 0.95 * READERS {
                return Err(format!("only {answered:.0} readers a second were answered").into());
            }
            sold
        };
        // Whoever comes second has warmer caches.
        let (without, with) = if pair % 2 == 0 {
            let without = quiet().await?;
            (without, stormy().await?)
        } else {
            let with = stormy().await?;
            (quiet().await?, with)
        };
        eprintln!("{name}, pair {} of {PAIRS}: p99 {without:.2} ms in quiet, {with:.2} ms in the storm", pair + 1);
        ratios.push(with / without);
    }
    Spread::of_ratios(ratios).ok_or_else(|| "no pair".into())
}

/// Those who read, until they are told to stop. On threads of their own, which yield: elsewhere they would be on other machines, and
/// what they cost themselves is no part of a sale.
struct Readers {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    tasks: JoinSet<Result<(), String>>,
    answered: Arc<AtomicU64>,
    largest: Arc<AtomicU64>,
    begun: Instant,
}

impl Readers {
    /// At this rate altogether; `None`: as fast as they are answered.
    async fn begin(feed: &str, per_second: Option<f64>) -> Result<Self, Failure> {
        let (answered, largest) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        let threads = if per_second.is_some() { 1 } else { 2 };
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .on_thread_start(|| _ = rustix::process::nice(10))
            .build()?;
        let begun = Instant::now();
        for nth in 0..CONNECTIONS {
            let feed = feed.to_owned();
            let gap = per_second.map(|rate| Duration::from_secs_f64(CONNECTIONS as f64 / rate));
            let first = begun + gap.unwrap_or_default() * u32::try_from(nth)? / u32::try_from(CONNECTIONS)?;
            let (answered, largest) = (answered.clone(), largest.clone());
            let reading =
                async move { read(&feed, nth, first, gap, &answered, &largest).await.map_err(|e| e.to_string()) };
            tasks.spawn_on(reading, runtime.handle());
        }
        Ok(Self { runtime: Some(runtime), tasks, answered, largest, begun })
    }

    /// Answers a second, and the bytes of the largest.
    async fn finish(mut self) -> Result<(f64, u64), Failure> {
        let answered = self.answered.load(Ordering::Relaxed) as f64 / self.begun.elapsed().as_secs_f64();
        // One that failed has ended.
        if let Some(ended) = self.tasks.try_join_next() {
            return Err(format!("a reader ended: {ended:?}").into());
        }
        self.tasks.shutdown().await;
        Ok((answered, self.largest.load(Ordering::Relaxed)))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn read(
    feed: &str,
    nth: usize,
    first: Instant,
    gap: Option<Duration>,
    answered: &AtomicU64,
    largest: &AtomicU64,
) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(feed).await?;
    stream.set_nodelay(true)?;
    let (mut due, mut buffer) = (first, Vec::with_capacity(64 * 1024));
    for round in nth.. {
        if let Some(gap) = gap {
            sleep_until(due).await;
            due += gap;
        }
        // Somewhere near one of the sites.
        let (lat, lng) = place(round * 7_919 % SITES);
        let path = NEAR.replace("LAT", &format!("{lat:.5}")).replace("LNG", &format!("{lng:.5}"));
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: feed\r\n\r\n").as_bytes()).await?;
        buffer.clear();
        let body = loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err("the feed hung up".into());
            }
            let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let said = String::from_utf8_lossy(buffer.get(..head).unwrap_or_default()).to_lowercase();
            if !said.starts_with("http/1.1 200") {
                return Err(format!("the feed said {said}").into());
            }
            let length = said.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
            let length: usize = length.trim().parse()?;
            if buffer.len() >= head + 4 + length {
                break length;
            }
        };
        answered.fetch_add(1, Ordering::Relaxed);
        largest.fetch_max(u64::try_from(body)?, Ordering::Relaxed);
    }
    Ok(())
}

/// Where this site is: spread over the country on a grid, so that some eight are within a kilometre of each other, as in a town.
fn place(site: usize) -> (f64, f64) {
    let (row, column) = (site / 160, site % 160);
    (34.0 + row as f64 * 0.0055, 126.0 + column as f64 * 0.007)
}

/// Its code: the first of them are called as those at which sessions are opened.
pub fn code(site: usize) -> String {
    format!("{:08}", 11_000_001 + site)
}

pub fn sites_of_a_nation() -> String {
    let mut csv = String::from("code,name,channel,region,address,lat,lng\n");
    // Those at which sessions are opened.
    for site in Sites::demo().iter().filter(|site| !site.id.as_str().starts_with("110000")) {
        let _ = writeln!(csv, "{},{},{},{},{},,", site.id, site.name, site.channel, site.region, site.address);
    }
    for site in 0..SITES {
        let (lat, lng) = place(site);
        // As the first of them are called where sessions are opened.
        let _ = writeln!(
            csv,
            "{:08},Pharmacy {site},pharmacy,Seoul,Seoul Jongno-gu Saemunan-ro {site},{lat:.4},{lng:.4}",
            11_000_001 + site
        );
    }
    csv
}
