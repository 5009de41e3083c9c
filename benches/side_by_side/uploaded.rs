//! What it costs a sale that others upload their paper: the same sales, at a rate of their own, in quiet and beside uploads as fast as
//! the service takes them. And how long an outage takes to come in: so many sites with forty sheets each, every sheet three times, a fifth
//! of them sold online as well; and whether the ledger is their union afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use rationd::grpc::v1::{self, upload_sales_response::Verdict};
use rationd::ids::RequestId;
use rationd::terminal::{Connection, Opened, Operator, Terminal, WireTimestamp};
use rationd::time::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::buyers;
use super::durability::Spread;
use super::measure::quantile;
use super::options::Options;
use super::redis::{DURABLE, Redis, free_port};
use super::stormed::{SITES, code, sites_of_a_nation};
use super::systems::OnRedis;
use crate::Failure;

/// Pairs of a quiet span and one with uploads.
const PAIRS: usize = 10;
/// Sales a second.
const SALES: f64 = 1_000.0;
/// Sheets of a site: what an office wrote on the morning of 11 March 2020.
const SHEETS: usize = 40;
/// Sites that upload at once. More would wait for each other in the service.
const AT_ONCE: usize = 64;
/// Connections of all of them.
const CONNECTIONS: usize = 8;
/// How often each sheet is sent.
const TIMES: usize = 3;
/// One of so many is sold online as well.
const ONLINE: usize = 5;
/// A rate that nothing is held back by.
const UNBOUNDED: &str = "100000";

/// What was reached.
pub struct Uploaded {
    /// The 99th percentile of sales beside uploads at the default rate, beside that in quiet.
    pub beside: Spread,
    /// Verdicts a second meanwhile.
    pub meanwhile: f64,
    /// Sheets of the outage.
    pub sheets: usize,
    /// Verdicts, in how long.
    pub verdicts: (u64, Duration),
}

impl Uploaded {
    pub async fn measure(options: &Options) -> Result<Self, Failure> {
        let files = tempfile::tempdir()?;
        let sites = files.path().join("sites.csv");
        std::fs::write(&sites, sites_of_a_nation())?;
        let sites = ("SITES", sites.to_string_lossy().into_owned());
        let (beside, meanwhile) = {
            let service = OnRedis::over(Redis::start(&DURABLE).await?, options, std::slice::from_ref(&sites)).await?;
            pairs(&service, options.span() / 2).await?
        };
        let admin = format!("127.0.0.1:{}", free_port()?);
        let settings =
            [sites, ("COUNTERS__LATE_SALES_PER_SECOND", UNBOUNDED.to_owned()), ("ADMIN__LISTEN", admin.clone())];
        let service = OnRedis::over(Redis::start(&DURABLE).await?, options, &settings).await?;
        let outage = Arc::new(Outage::of(options.late)?);
        let connections = connections(service.address()).await?;
        eprintln!("an outage of {} sheets: every fifth is sold online as well", outage.sheets.len());
        outage.sell(&connections).await?;
        let begun = Instant::now();
        let verdicts = outage.upload(&connections).await?;
        let took = begun.elapsed();
        outage.audit(&format!("http://{admin}")).await?;
        Ok(Self { beside, meanwhile, sheets: outage.sheets.len(), verdicts: (verdicts, took) })
    }
}

async fn connections(address: &str) -> Result<Vec<Connection>, Failure> {
    let address = format!("http://{address}");
    let open = |_| Connection::open(&address, None);
    Ok(stream::iter(0..CONNECTIONS).then(open).try_collect().await?)
}

fn terminal(connections: &[Connection], site: usize) -> Result<Terminal, Failure> {
    let connection = connections.get(site % connections.len()).ok_or("no connection")?;
    Ok(Terminal::on(connection, code(site).parse().map(Some)?, "paper".parse()?))
}

/// A sheet that was sold some minutes ago.
fn sheet(site: usize) -> Result<v1::OfflineSale, Failure> {
    let at = SystemClock::real().now().as_millis() - 600_000;
    let line = buyers::next_sale().lines.pop().ok_or("no line")?;
    Ok(v1::OfflineSale {
        request_id: line.request_id,
        programme: buyers::PROGRAMME.to_owned(),
        site_code: code(site),
        buyer: line.buyer,
        quantity: line.quantity,
        sold_at: Some(WireTimestamp { seconds: at / 1_000, nanos: 0 }),
        ..Default::default()
    })
}

/// What became of sheets, which must all be in the ledger. Each verdict is counted in `told` as it comes.
async fn verdicts(terminal: &Terminal, sheets: Vec<v1::OfflineSale>, told: &AtomicU64) -> Result<u64, Failure> {
    let (sent, mut came) = (u64::try_from(sheets.len())?, 0);
    let mut verdicts = terminal.upload(sheets).await?;
    while let Some(answer) = verdicts.next().await? {
        match answer.verdict {
            Some(Verdict::Recorded(_) | Verdict::AlreadyRecorded(_)) => {
                came += 1;
                told.fetch_add(1, Ordering::Relaxed);
            }
            Some(Verdict::Failure(failure)) => return Err(format!("not taken: {}", failure.message).into()),
            _ => return Err("a sheet has another verdict than it should".into()),
        }
    }
    if came == sent { Ok(came) } else { Err(format!("{came} verdicts for {sent} sheets").into()) }
}

/// Ratios of the 99th percentile, each of two spans next to each other; and how many verdicts there were a second.
async fn pairs(service: &OnRedis, span: Duration) -> Result<(Spread, f64), Failure> {
    let connections = Arc::new(connections(service.address()).await?);
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let quiet = async || -> Result<f64, Failure> {
            let answered = service.sell_open(SALES, span).await?;
            quantile(&answered.approved, 0.99).ok_or_else(|| "nothing was sold".into())
        };
        let uploading = async || -> Result<(f64, f64), Failure> {
            let uploads = Uploads::begin(&connections);
            let sold = quiet().await;
            let rate = uploads.finish().await?;
            Ok((sold?, rate))
        };
        // Whoever comes second has warmer caches.
        let (without, (with, rate)) = if pair % 2 == 0 {
            let without = quiet().await?;
            (without, uploading().await?)
        } else {
            let with = uploading().await?;
            (quiet().await?, with)
        };
        eprintln!(
            "uploads, pair {} of {PAIRS}: p99 {without:.2} ms in quiet, {with:.2} ms beside {rate:.0} late sales a second",
            pair + 1
        );
        ratios.push(with / without);
        rates.push(rate);
    }
    let rate = rates.iter().sum::<f64>() / rates.len() as f64;
    Ok((Spread::of_ratios(ratios).ok_or("no pair")?, rate))
}

/// Sites that upload one journal after the other, until they are told to stop.
struct Uploads {
    tasks: JoinSet<Result<(), String>>,
    came: Arc<AtomicU64>,
    begun: Instant,
}

impl Uploads {
    fn begin(connections: &Arc<Vec<Connection>>) -> Self {
        let (mut tasks, came) = (JoinSet::new(), Arc::<AtomicU64>::default());
        for site in 0..AT_ONCE {
            let (connections, came) = (connections.clone(), came.clone());
            tasks.spawn(async move { upload_on(&connections, site, &came).await.map_err(|e| e.to_string()) });
        }
        Self { tasks, came, begun: Instant::now() }
    }

    /// Verdicts a second.
    async fn finish(mut self) -> Result<f64, Failure> {
        let rate = self.came.load(Ordering::Relaxed) as f64 / self.begun.elapsed().as_secs_f64();
        // One that failed has ended.
        if let Some(ended) = self.tasks.try_join_next() {
            return Err(format!("an upload ended: {ended:?}").into());
        }
        self.tasks.shutdown().await;
        Ok(rate)
    }
}

/// One journal after the other.
async fn upload_on(connections: &[Connection], site: usize, came: &AtomicU64) -> Result<(), Failure> {
    loop {
        let sheets = (0..SHEETS).map(|_| sheet(site)).collect::<Result<_, Failure>>()?;
        verdicts(&terminal(connections, site)?, sheets, came).await?;
    }
}

/// What was written on paper everywhere.
struct Outage {
    /// Forty of a site stand together.
    sheets: Vec<v1::OfflineSale>,
}

impl Outage {
    fn of(sheets: usize) -> Result<Self, Failure> {
        let sites = sheets.div_ceil(SHEETS).min(SITES);
        let sheets = (0..sites).flat_map(|site| (0..SHEETS).map(move |_| sheet(site)));
        Ok(Self { sheets: sheets.collect::<Result<_, _>>()? })
    }

    fn of_site(&self, site: usize) -> Vec<v1::OfflineSale> {
        self.sheets.chunks(SHEETS).nth(site).unwrap_or_default().to_vec()
    }

    fn sites(&self) -> usize {
        self.sheets.len() / SHEETS
    }

    /// One of five is sold online by its site.
    async fn sell(&self, connections: &[Connection]) -> Result<(), Failure> {
        let sold = stream::iter(0..self.sites()).map(|site| async move {
            let terminal = terminal(connections, site)?;
            let Opened::Admitted(session) = terminal.open_session().await? else {
                return Err("a site's only terminal is not let in".into());
            };
            for sale in self.of_site(site).into_iter().step_by(ONLINE) {
                let v1::OfflineSale { request_id, programme, buyer, quantity, .. } = sale;
                let line = v1::Line { request_id, buyer, quantity, ..Default::default() };
                let visit = v1::PurchaseRequest { programme, lines: vec![line], ..Default::default() };
                session.purchase(visit).await?;
            }
            session.close().await?;
            Ok::<_, Failure>(())
        });
        sold.buffer_unordered(AT_ONCE).try_for_each(async |()| Ok(())).await
    }

    /// Every journal three times, those of all sites between each other. Verdicts in all.
    async fn upload(&self, connections: &[Connection]) -> Result<u64, Failure> {
        let sites = self.sites();
        let told = AtomicU64::new(0);
        let upload = |nth: usize| {
            let told = &told;
            async move {
                // Each round begins elsewhere, so that copies of a sheet are sometimes under way at once.
                let site = (nth + nth / sites * (sites / 2)) % sites;
                verdicts(&terminal(connections, site)?, self.of_site(site), told).await
            }
        };
        let uploads = stream::iter(0..TIMES * sites).map(upload).buffer_unordered(AT_ONCE);
        uploads.try_fold(0, async |all, came| Ok(all + came)).await
    }

    /// The ledger holds each sheet once, and nothing else; late where it was not sold online.
    async fn audit(&self, admin: &str) -> Result<(), Failure> {
        let export = Operator::connect(admin).await?.export(buyers::PROGRAMME).await?;
        let mut recorded: BTreeMap<RequestId, bool> = BTreeMap::new();
        for entry in export.records.into_iter().flat_map(|record| record.entries) {
            let stood = recorded.insert(entry.request_id.parse()?, entry.late);
            if stood.is_some() || entry.state() != v1::EntryState::Sold || entry.over {
                return Err(format!("the ledger has {} otherwise than it was sold", entry.request_id).into());
            }
        }
        for (nth, sale) in self.sheets.iter().enumerate() {
            let is_late = !(nth % SHEETS).is_multiple_of(ONLINE);
            if recorded.remove(&sale.request_id.parse()?) != Some(is_late) {
                return Err(format!("the ledger has not {} as it was sold", sale.request_id).into());
            }
        }
        if recorded.is_empty() { Ok(()) } else { Err(format!("{} sales that nobody made", recorded.len()).into()) }
    }
}
