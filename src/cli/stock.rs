//! `rationd stock …`: what a site reports of its stock, and what is known of stocks.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::sale::{self, DEMO, PATIENCE, Trouble, Where};
use super::tls::TlsFiles;
use super::{complain, exit, print, traced};
use crate::grpc::v1::{self, list_stock_request::Area, report_stock_request, watch_stock_response::Told};
use crate::ids::{ProgrammeId, RequestId};
use crate::terminal::{CallError, Connection, Stock, Unread, WireTimestamp, instant};
use crate::time::Timestamp;

/// How long a watcher waits before it tries again.
const TRIES_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Rows that are asked for at once.
const PAGE: i32 = 1000;

const AFTER_REPORT: &str = "The request id is told before anything is sent: the same report, sent again with it, is recorded once.

Exit codes: 0 recorded, now or before; 2 arguments; 3 nothing recorded; 4 outcome unknown, repeat with the same --request-id.";
const AFTER_SHOW: &str = "Units are shown to operators, to the feed, to a site its own, and on loopback.\n\nExit codes: 0 shown; 1 none there; 2 arguments, no such site among them; 3 not reached, or not allowed.";
const AFTER_WATCH: &str = "A service that has answered and goes away is waited for, and watched on from where it was. With --json: \
an object a line, of which `stock` says what is so now, `gone` that nothing is known of a site any more, `anew` that what was printed \
before is void, and `read_until` that everything until then was printed.

Exit codes: 0 nobody reads it any more; 2 arguments; 3 not reached, not allowed, or not written.";

/// `stock`
#[derive(Subcommand)]
pub enum StockCommand {
    /// Reports a delivery, a count, that a site does not sell for now, or that it sells again
    #[command(after_help = AFTER_REPORT)]
    Report(Report),
    /// Shows the stock of a site, of an area, or of all
    #[command(after_help = AFTER_SHOW)]
    Show(Show),
    /// Prints the stocks of all sites or of a region, and every change as it becomes known, until it is stopped
    #[command(after_help = AFTER_WATCH)]
    Watch(Watch),
}

/// `stock report`
#[derive(Args)]
pub struct Report {
    #[command(flatten)]
    at: Where,
    /// The programme
    #[arg(long, value_name = "ID", default_value = DEMO)]
    programme: ProgrammeId,
    #[command(flatten)]
    what: What,
    /// When it was so (RFC 3339 with offset) [default: now]
    #[arg(long = "at", value_name = "INSTANT")]
    when: Option<Timestamp>,
    /// The request id of an attempt whose outcome is unknown; without it a new one is made
    #[arg(long, value_name = "UUID")]
    request_id: Option<RequestId>,
}

/// What is reported: one of them.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// So many units came in
    #[arg(long, value_name = "UNITS", allow_negative_numbers = true)]
    delivered: Option<i32>,
    /// So many units were there when somebody counted, those promised to somebody included
    #[arg(long, value_name = "UNITS", allow_negative_numbers = true)]
    counted: Option<i32>,
    /// The site does not sell this for now, whatever it has
    #[arg(long)]
    pause: bool,
    /// It sells it again
    #[arg(long)]
    resume: bool,
}

impl What {
    /// On the wire, and in words.
    fn said(&self) -> (report_stock_request::Report, String) {
        use report_stock_request::Report;
        match self {
            Self { delivered: Some(units), .. } => {
                (Report::Delivery(v1::Delivery { units: *units }), format!("{units} delivered"))
            }
            Self { counted: Some(units), .. } => {
                (Report::Count(v1::Count { units: *units }), format!("{units} counted"))
            }
            Self { pause: true, .. } => (Report::Pause(v1::Pause {}), "paused".to_owned()),
            Self { .. } => (Report::Resume(v1::Resume {}), "resumed".to_owned()),
        }
    }
}

/// Where stock is asked for.
#[derive(Args)]
struct Feed {
    /// Where the service listens for the public
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7422", env = "RATIOND_FEED_ADDRESS")]
    address: String,
    #[command(flatten)]
    tls: TlsFiles,
    /// The programme
    #[arg(long, value_name = "ID", default_value = DEMO)]
    programme: ProgrammeId,
    /// Prints JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// `stock show`
#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    feed: Feed,
    /// Of the site with this code
    #[arg(long, value_name = "CODE", conflicts_with_all = ["region", "address_begins", "near"])]
    site: Option<String>,
    /// Of the sites of a region, in the words of the registry
    #[arg(long, value_name = "NAME", conflicts_with_all = ["address_begins", "near"])]
    region: Option<String>,
    /// Of the sites whose address begins with these words
    #[arg(long, value_name = "WORDS", conflicts_with = "near")]
    address_begins: Option<String>,
    /// Of the sites near this place, in degrees, the nearest first
    #[arg(long, value_name = "LAT,LNG", value_parser = place, requires = "metres", allow_hyphen_values = true)]
    near: Option<(f64, f64)>,
    /// How far from it, at most 20000
    #[arg(long, value_name = "M", requires = "near")]
    metres: Option<i32>,
}

/// `stock watch`
#[derive(Args)]
pub struct Watch {
    #[command(flatten)]
    feed: Feed,
    /// Only of the sites of a region, in the words of the registry
    #[arg(long, value_name = "NAME", default_value = "")]
    region: String,
}

fn place(text: &str) -> Result<(f64, f64), String> {
    let degrees = |text: &str| text.trim().parse::<f64>().ok();
    let place = text.split_once(',').and_then(|(lat, lng)| Some((degrees(lat)?, degrees(lng)?)));
    place.ok_or_else(|| "write latitude and longitude in degrees, such as 37.5702,126.9768".to_owned())
}

pub(super) async fn run(command: StockCommand) -> u8 {
    match command {
        StockCommand::Report(command) => traced::traced("stock report", report(command)).await,
        StockCommand::Show(command) => traced::traced("stock show", show(command)).await,
        StockCommand::Watch(command) => watch(command).await,
    }
}

async fn report(command: Report) -> u8 {
    let Report { at, programme, what, when, request_id } = command;
    let request = request_id.unwrap_or_else(RequestId::random);
    let (report, words) = what.said();
    let message = v1::ReportStockRequest {
        request_id: request.to_string(),
        programme: programme.to_string(),
        at: when.map(wire),
        report: Some(report),
    };
    let reported = async {
        let terminal = sale::connect(&at).await?;
        // Told before the first attempt: with it an unknown outcome can be resolved.
        complain(format_args!("request id {request}"));
        Ok::<_, Trouble>(terminal.insist(PATIENCE, || terminal.report_stock(message.clone())).await?)
    };
    match reported.await {
        Ok(stands) => {
            let [so, received] = [&stands.at, &stands.received_at].map(|at| said_at(at.as_ref()));
            if at.json {
                print(serde_json::json!({
                    "request_id": request.to_string(), "programme": programme, "at": so, "received_at": received,
                    "replayed": stands.replayed,
                }));
            } else {
                let before = if stands.replayed { "; it stood already" } else { "" };
                print(format_args!("RECORDED  {words}, as of {so}, taken {received}{before}"));
            }
            exit::YES
        }
        Err(trouble) => {
            let advice = format!("recorded or not, nobody can say yet: repeat it with --request-id {request}");
            sale::tell_with(trouble, at.json, &advice)
        }
    }
}

async fn show(command: Show) -> u8 {
    let json = command.feed.json;
    let mut lines = Lines::new(json);
    match show_all(command, &mut lines).await {
        Ok(0) => {
            complain("no site is there");
            exit::NO
        }
        Ok(_) => exit::YES,
        // Asking changes nothing, however it fails.
        Err(Stopped::Trouble(Trouble::Call(CallError::Unknown(message)))) => {
            let not = CallError::NotExecuted { reason: "UNREACHABLE".to_owned(), message, retry_after: None };
            sale::tell_with(Trouble::Call(not), json, "")
        }
        Err(Stopped::Trouble(trouble)) => sale::tell_with(trouble, json, ""),
        Err(Stopped::NobodyReads) => exit::YES,
        Err(stopped) => told(&stopped),
    }
}

async fn show_all(command: Show, lines: &mut Lines) -> Result<usize, Stopped> {
    let Show { feed, site, region, address_begins, near, metres } = command;
    let (stock, programme) = (feed.connect().await?, feed.programme.to_string());
    if let Some(site_code) = site {
        let answer = stock.get(v1::GetStockRequest { programme, site_code }).await.map_err(Trouble::from)?;
        let stocks = answer.stock.into_iter().collect::<Vec<_>>();
        lines.stocks(&stocks, answer.read_until.as_ref())?;
        return Ok(stocks.len());
    }
    let near = near.map(|(lat, lng)| Area::Near(v1::Near { lat, lng, metres: metres.unwrap_or_default() }));
    let area = near.or(region.map(Area::Region)).or(address_begins.map(Area::Address));
    let mut of = v1::ListStockRequest { programme, area, page_size: PAGE, page_token: String::new() };
    let mut shown = 0;
    loop {
        let page = stock.list(of.clone()).await.map_err(Trouble::from)?;
        lines.stocks(&page.stocks, page.read_until.as_ref())?;
        shown += page.stocks.len();
        if page.next_page_token.is_empty() {
            return Ok(shown);
        }
        of.page_token = page.next_page_token;
    }
}

async fn watch(command: Watch) -> u8 {
    let mut watching = Watching { lines: Lines::new(command.feed.json), command, token: Vec::new(), has_begun: false };
    let mut is_away = false;
    loop {
        let had = watching.token.clone();
        let Err(stopped) = watching.go_on().await;
        if matches!(stopped, Stopped::NobodyReads) {
            return exit::YES;
        }
        is_away &= had == watching.token;
        let for_good = match &stopped {
            Stopped::NotWritten(_) | Stopped::Unread(Unread::Told { retry_after: None, .. }) => true,
            _ => !watching.has_begun,
        };
        if for_good {
            return told(&stopped);
        }
        if !std::mem::replace(&mut is_away, true) && !stopped.is_an_end() {
            complain(format_args!("{}; trying again until it is there", stopped.message()));
        }
        tokio::time::sleep(TRIES_AGAIN_AFTER).await;
    }
}

/// How far it is, over however many connections.
struct Watching {
    command: Watch,
    lines: Lines,
    token: Vec<u8>,
    /// It has been answered once.
    has_begun: bool,
}

impl Watching {
    /// Prints what comes, until something is wrong.
    async fn go_on(&mut self) -> Result<std::convert::Infallible, Stopped> {
        let Watch { feed, region } = &self.command;
        let from = v1::WatchStockRequest {
            programme: feed.programme.to_string(),
            resume_token: self.token.clone(),
            region: region.clone(),
        };
        let mut changes = feed.connect().await?.watch(from).await?;
        while let Some(message) = changes.next().await? {
            self.has_begun = true;
            match message.told {
                Some(Told::Anew(anew)) => self.lines.anew(anew.reason())?,
                Some(Told::Changes(changes)) => {
                    self.lines.stocks(&changes.levels, None)?;
                    self.lines.gone(&changes.gone)?;
                }
                Some(Told::Progress(progress)) => {
                    self.lines.read_until(progress.read_until.as_ref())?;
                    self.token = progress.resume_token;
                }
                None => {}
            }
            self.lines.out.flush()?;
        }
        Err(Unread::NotWhole("the service has ended it".to_owned()).into())
    }
}

impl Feed {
    async fn connect(&self) -> Result<Stock, Trouble> {
        let tls = self.tls.for_somebody(&self.address).map_err(Trouble::Usage)?;
        let connection: Connection = sale::reach(&self.address, tls.as_ref(), &self.tls).await?;
        Ok(Stock::on(&connection))
    }
}

/// Why it goes no further.
enum Stopped {
    /// As with any call.
    Trouble(Trouble),
    /// The watch ended.
    Unread(Unread),
    /// Nobody takes the lines any more.
    NobodyReads,
    /// The lines cannot be written.
    NotWritten(String),
}

impl From<Trouble> for Stopped {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Unread> for Stopped {
    fn from(why: Unread) -> Self {
        Self::Unread(why)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::NotWritten(format!("the lines cannot be written: {error}")),
        }
    }
}

impl Stopped {
    /// A connection that comes to its end, as all do.
    fn is_an_end(&self) -> bool {
        matches!(self, Self::Unread(Unread::Told { reason, .. }) if reason == "STOPPING")
    }

    fn message(&self) -> String {
        match self {
            Self::Trouble(Trouble::Usage(why) | Trouble::Unreachable(why) | Trouble::Away(why))
            | Self::NotWritten(why) => why.clone(),
            Self::Trouble(Trouble::Call(error)) => error.to_string(),
            Self::Trouble(Trouble::SiteFull(_)) | Self::NobodyReads => String::new(),
            Self::Unread(why) => why.to_string(),
        }
    }
}

fn told(stopped: &Stopped) -> u8 {
    complain(stopped.message());
    match stopped {
        Stopped::Trouble(Trouble::Usage(_)) => exit::USAGE,
        Stopped::Unread(Unread::Told { reason, .. }) if reason == "INVALID_REQUEST" => exit::USAGE,
        _ => exit::NOT_EXECUTED,
    }
}

/// A stock as it is printed: times in RFC 3339, the words of `rationd.v1` in small letters; `unknown` where nobody knows.
#[derive(Serialize)]
struct Row<'a> {
    site: &'a str,
    programme: &'a str,
    level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    offered: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promised: Option<u32>,
    as_of: Option<String>,
    source: String,
    delivered_at: Option<String>,
    counted_at: Option<String>,
    stale: bool,
    unverified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance_metres: Option<u32>,
}

impl<'a> Row<'a> {
    fn of(stock: &'a v1::StockLevel) -> Self {
        let time = |at: Option<&WireTimestamp>| at.map(|at| instant(at).to_string());
        Self {
            site: &stock.site_code,
            programme: &stock.programme,
            level: word(stock.level().as_str_name(), "LEVEL_"),
            offered: stock.offered_units,
            promised: stock.promised_units,
            as_of: time(stock.as_of.as_ref()),
            source: word(stock.source().as_str_name(), "STOCK_SOURCE_"),
            delivered_at: time(stock.delivered_at.as_ref()),
            counted_at: time(stock.counted_at.as_ref()),
            stale: stock.stale,
            unverified: stock.unverified,
            distance_metres: stock.distance_metres,
        }
    }
}

/// A value of the wire as a word.
fn word(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => "unknown".to_owned(),
        name => name.to_lowercase(),
    }
}

struct Lines {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
}

impl Lines {
    fn new(json: bool) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), json }
    }

    fn object(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }

    /// Rows, and until when everything is in them where that is known of each page.
    fn stocks(&mut self, stocks: &[v1::StockLevel], read_until: Option<&WireTimestamp>) -> io::Result<()> {
        for stock in stocks {
            let row = Row::of(stock);
            if self.json {
                let until = read_until.map(|at| instant(at).to_string());
                let object = match until {
                    Some(until) => serde_json::json!({ "stock": row, "read_until": until }),
                    None => serde_json::json!({ "stock": row }),
                };
                self.object(&object)?;
                continue;
            }
            let Row { site, level, offered, promised, as_of, source, stale, unverified, distance_metres, .. } = row;
            write!(self.out, "{site:<16}  {level:<7}")?;
            if let Some(as_of) = as_of {
                if let Some((offered, promised)) = offered.zip(promised) {
                    write!(self.out, "  {offered} offered, {promised} promised;")?;
                }
                write!(self.out, "  {source} {as_of}")?;
            }
            if let Some(metres) = distance_metres {
                write!(self.out, "  {metres} m")?;
            }
            let marks = [(stale, "  STALE"), (unverified, "  UNVERIFIED")];
            for (_, mark) in marks.into_iter().filter(|(is, _)| *is) {
                self.out.write_all(mark.as_bytes())?;
            }
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    fn gone(&mut self, gone: &[String]) -> io::Result<()> {
        for site in gone {
            if self.json {
                self.object(&serde_json::json!({ "gone": site }))?;
            } else {
                writeln!(self.out, "{site:<16}  gone: nothing is known of it any more")?;
            }
        }
        Ok(())
    }

    fn anew(&mut self, reason: v1::anew::Reason) -> io::Result<()> {
        let why = word(reason.as_str_name(), "REASON_");
        match (self.json, reason) {
            (true, _) => self.object(&serde_json::json!({ "anew": why })),
            // Nothing was printed before it.
            (false, v1::anew::Reason::Begins) => Ok(()),
            (false, _) => writeln!(self.out, "anew: what was printed before is void"),
        }
    }

    fn read_until(&mut self, read_until: Option<&WireTimestamp>) -> io::Result<()> {
        // For people the lines themselves are enough.
        if !self.json {
            return Ok(());
        }
        self.object(&serde_json::json!({ "read_until": read_until.map(|at| instant(at).to_string()) }))
    }
}

fn wire(at: Timestamp) -> WireTimestamp {
    let millis = at.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
    WireTimestamp { seconds: millis.div_euclid(1_000), nanos }
}

fn said_at(at: Option<&WireTimestamp>) -> String {
    at.map(|at| instant(at).to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: StockCommand,
    }

    fn parsed(line: &str) -> Result<StockCommand, String> {
        let words = std::iter::once("stock").chain(line.split_whitespace());
        Program::try_parse_from(words).map(|program| program.command).map_err(|error| error.to_string())
    }

    #[test]
    fn a_report_says_one_thing() {
        Program::command().debug_assert();
        let said = |line: &str| match parsed(line) {
            Ok(StockCommand::Report(report)) => report.what.said().1,
            Ok(_) => panic!("{line}"),
            Err(why) => why,
        };
        for (line, words) in [
            ("report --site 11000001 --delivered 250", "250 delivered"),
            // What is wrong with it the service says, by the name of its field.
            ("report --counted -1", "-1 counted"),
            ("report --pause --at 2020-03-11T09:00+09:00", "paused"),
            ("report --resume", "resumed"),
        ] {
            assert_eq!(said(line), words, "{line}");
        }
        for line in ["report", "report --pause --resume", "report --delivered 1 --counted 1", "report --delivered x"] {
            assert!(said(line).starts_with("error:"), "{line}");
        }
    }

    #[test]
    fn an_area_is_one_of_them() {
        let near = match parsed("show --near -37.5,126.9768 --metres 700") {
            Ok(StockCommand::Show(show)) => show.near,
            _ => None,
        };
        assert_eq!(near, Some((-37.5, 126.9768)));
        for line in [
            "show --near 37.5,126.9",
            "show --near 37.5 --metres 1",
            "show --metres 1",
            "show --site 1 --region Seoul",
            "show --region Seoul --near 1,1 --metres 1",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(parsed("show").is_ok() && parsed("watch --region Seoul --json").is_ok());
    }
}
