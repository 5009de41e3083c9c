//! `rationd journal …`: sheets of paper typed in or imported, and what became of all that a site has uploaded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::sale::{self, DEMO, Trouble, Where};
use super::{complain, exit, print, traced};
use crate::grpc::v1::{self, upload_sales_response::Verdict};
use crate::ids::{ProgrammeId, RequestId, SiteId};
use crate::terminal::{CallError, Terminal, WireTimestamp, instant, sheet_id};
use crate::time::Timestamp;

/// After how long sales are sent again that could not be taken, if the service does not ask for more.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// And after how long where that was in vain several times.
const AGAIN_AT_THE_LATEST: Duration = Duration::from_secs(15);
/// Rows that are asked for at once.
const PAGE: i32 = 1000;

const AFTER_ENTER: &str =
    "Each line gets its request id from site, pad and line: typed in twice, by whomever, it is one sale. A sale \
that happened is recorded whatever the rules say, and marked where it was too much. Ends with a point for a line number.

Exit codes: as of `journal import`.";
const AFTER_IMPORT: &str = "Columns, in any order: pad, line, sold_at, number, quantity; and where they are needed birth_date, relation, \
papers (with spaces between them). sold_at is RFC 3339 with offset (2020-03-11T09:40:00+09:00) or a day and a time (2020-03-11 09:40), which \
--offset makes an instant. Importing a file again records nothing twice.

Exit codes: 0 all are in the ledger; 1 some are too much or were put aside for a person to look at; 2 arguments, or lines that cannot be \
read, which are named and left out; 3 some were not taken, import the file again; 4 of some nobody can say, import the file again.";
const AFTER_REPORT: &str = "Exit codes: 0 nothing needs a person; 1 some sales were too much, were put aside, or have no verdict yet; 2 \
arguments; 3 not reached, or not allowed.";

/// `journal`
#[derive(Subcommand)]
pub enum JournalCommand {
    /// Types in the lines of a pad of paper, one after the other; each is uploaded at once
    #[command(after_help = AFTER_ENTER)]
    Enter(Enter),
    /// Uploads lines of paper from a CSV file
    #[command(after_help = AFTER_IMPORT)]
    Import(Import),
    /// Shows what was uploaded of a day of sale, and what conflicts with what
    #[command(after_help = AFTER_REPORT)]
    Report(Report),
}

/// Where the sheets come from.
#[derive(Args)]
struct Sheets {
    #[command(flatten)]
    at: Where,
    /// The programme
    #[arg(long, value_name = "ID", default_value = DEMO)]
    programme: ProgrammeId,
    /// What a time without an offset is ahead of UTC
    #[arg(long, value_name = "OFFSET", default_value = "+09:00", allow_hyphen_values = true)]
    offset: String,
    /// How long, in seconds, the service is waited for, and sales are sent again that cannot be taken
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    within: u64,
}

/// `journal enter`
#[derive(Args)]
pub struct Enter {
    #[command(flatten)]
    sheets: Sheets,
    /// The pad, as it is named on its cover
    #[arg(long, value_name = "NAME")]
    pad: String,
    /// The day on which it was written
    #[arg(long, value_name = "DATE")]
    date: String,
}

/// `journal import`
#[derive(Args)]
pub struct Import {
    #[command(flatten)]
    sheets: Sheets,
    /// The file; `-`: standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Reads the file and says what is wrong with it, and uploads nothing
    #[arg(long)]
    dry_run: bool,
}

/// `journal report`
#[derive(Args)]
pub struct Report {
    #[command(flatten)]
    at: Where,
    /// The programme
    #[arg(long, value_name = "ID", default_value = DEMO)]
    programme: ProgrammeId,
    /// The day of sale (2020-03-11) [default: every day]
    #[arg(long, value_name = "DATE", default_value = "")]
    date: String,
    /// A table for people, lines of JSON, or CSV
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// An object a line
    Json,
    /// A table with a first line of names
    Csv,
}

/// A line of paper. Has no `Debug`: the number stands in it.
#[derive(Deserialize)]
struct Line {
    pad: String,
    line: u32,
    sold_at: String,
    number: String,
    quantity: u32,
    #[serde(default)]
    birth_date: String,
    #[serde(default)]
    relation: String,
    #[serde(default)]
    papers: String,
}

/// A sale, and what it is called on paper.
struct Sheet {
    name: String,
    sale: v1::OfflineSale,
}

pub(super) async fn run(command: JournalCommand) -> u8 {
    match command {
        JournalCommand::Enter(enter) => traced::traced("journal enter", self::enter(enter)).await,
        JournalCommand::Import(import) => traced::traced("journal import", self::import(import)).await,
        JournalCommand::Report(report) => traced::traced("journal report", self::report(report)).await,
    }
}

impl Sheets {
    /// When what begins now is given up.
    fn give_up(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.within)
    }

    fn sheet(&self, site: SiteId, line: Line) -> Result<Sheet, String> {
        let sold_at = moment(&line.sold_at, &self.offset)?;
        pad(&line.pad)?;
        let number = line.number.trim().to_owned();
        let id = match line.birth_date.trim() {
            "" => v1::buyer::Id::ResidentNumber(number),
            date => v1::buyer::Id::Opaque(v1::OpaqueBuyer { id: number, birth_date: date.to_owned() }),
        };
        let sale = v1::OfflineSale {
            request_id: sheet_id(site, &line.pad, line.line).to_string(),
            programme: self.programme.to_string(),
            site_code: site.to_string(),
            buyer: Some(v1::Buyer { id: Some(id) }),
            quantity: line.quantity,
            sold_at: Some(sold_at),
            relation: line.relation.trim().to_owned(),
            papers: line.papers.split_whitespace().map(str::to_owned).collect(),
        };
        Ok(Sheet { name: format!("pad {} line {}", line.pad.trim(), line.line), sale })
    }
}

/// It is printed, and stands in an id that anybody can make: a number in the wrong column must not be taken for a pad's name.
fn pad(name: &str) -> Result<(), String> {
    let is_number = name.chars().filter(char::is_ascii_digit).count() > 6;
    match name.trim().is_empty() {
        true => Err("pad: is empty".to_owned()),
        false if is_number => {
            Err("pad: has more than six digits, as if it were a buyer's number; name the pad".to_owned())
        }
        false => Ok(()),
    }
}

/// An instant, or a day and a time with this offset.
fn moment(text: &str, offset: &str) -> Result<WireTimestamp, String> {
    let text = text.trim();
    let seconds = if text.matches(':').count() == 1 { ":00" } else { "" };
    let whole = format!("{}{seconds}{offset}", text.replacen(' ', "T", 1));
    let at = text.parse::<Timestamp>().or_else(|_| whole.parse());
    let at = at.map_err(|_| {
        "sold_at: must be an instant (2020-03-11T09:40:00+09:00), or a day and a time (2020-03-11 09:40)".to_owned()
    })?;
    let millis = at.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).unwrap_or(0);
    Ok(WireTimestamp { seconds: millis.div_euclid(1_000), nanos })
}

/// What became of sheets, from best to worst.
#[derive(Default)]
struct Came {
    words: BTreeMap<&'static str, u32>,
    code: u8,
}

impl Came {
    /// Tells what became of a sheet; `false`: it is to be sent again.
    fn told(&mut self, sheet: &Sheet, verdict: &Verdict, json: bool) -> bool {
        let (word, why, code) = match verdict {
            Verdict::Recorded(_) => ("RECORDED", String::new(), exit::YES),
            Verdict::OverQuota(over) => ("OVER_QUOTA", beside(&over.earlier), exit::NO),
            Verdict::AlreadyRecorded(already) => match (already.voided, already.over_quota) {
                (true, _) => ("ALREADY_RECORDED", "and was taken back: look at it".to_owned(), exit::NO),
                (_, true) => ("ALREADY_RECORDED", "and is more than was allowed".to_owned(), exit::NO),
                _ => ("ALREADY_RECORDED", String::new(), exit::YES),
            },
            Verdict::Quarantined(aside) => ("QUARANTINED", aside.why.clone(), exit::NO),
            Verdict::Invalid(invalid) => {
                let fields = invalid.fields.iter();
                let fields: Vec<_> = fields.map(|field| format!("{}: {}", field.field, field.problem)).collect();
                ("INVALID", fields.join("; "), exit::USAGE)
            }
            Verdict::Failure(_) => return false,
        };
        self.count(word, code);
        if json {
            let id = &sheet.sale.request_id;
            print(serde_json::json!({ "sheet": sheet.name, "request_id": id, "verdict": word, "why": why }));
        } else {
            let why = if why.is_empty() { why } else { format!(": {why}") };
            print(format_args!("{}: {word}{why}", sheet.name));
        }
        true
    }

    fn not_taken(&mut self, sheet: &Sheet, code: u8, why: &str) {
        complain(format_args!("{}: NOT_TAKEN: {why}", sheet.name));
        self.count("NOT_TAKEN", code);
    }

    fn count(&mut self, word: &'static str, code: u8) {
        *self.words.entry(word).or_default() += 1;
        self.code = self.code.max(code);
    }
}

fn beside(earlier: &[v1::EarlierPurchase]) -> String {
    let bought = |e: &v1::EarlierPurchase| {
        let at = e.at.as_ref().map(|at| instant(at).to_string()).unwrap_or_default();
        format!("{} at {at} in {}", e.quantity, e.district)
    };
    match earlier {
        [] => "more than is allowed by itself".to_owned(),
        earlier => format!("beside {}", earlier.iter().map(bought).collect::<Vec<_>>().join(", ")),
    }
}

/// Why sheets have no verdict.
struct NoVerdict {
    code: u8,
    why: String,
    /// When it is worth sending them again; `None`: it is not.
    again: Option<Duration>,
}

impl NoVerdict {
    fn of(error: &CallError) -> Self {
        match error {
            CallError::NotExecuted { reason, message, retry_after } => {
                Self { code: exit::NOT_EXECUTED, why: format!("{reason}: {message}"), again: *retry_after }
            }
            CallError::Unknown(message) => {
                Self { code: exit::UNKNOWN, why: message.clone(), again: Some(Duration::ZERO) }
            }
        }
    }
}

/// For how long it is waited after the nth failure, and no less than this: each time twice as long, and never for a fixed time, for others
/// were told the same.
fn pause(nth: u32, least: Duration) -> Duration {
    let chance = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    let least = AGAIN_AFTER.saturating_mul(2_u32.saturating_pow(nth)).min(AGAIN_AT_THE_LATEST).max(least);
    least.mul_f64(1.0 + chance)
}

/// Connects; where nobody answers, again and again.
async fn connect(at: &Where, give_up: Instant) -> Result<Terminal, Trouble> {
    let mut nth = 0;
    loop {
        let pause = pause(nth, Duration::ZERO);
        match sale::connect(at).await {
            Err(Trouble::Away(why)) if Instant::now() + pause < give_up => {
                if nth == 0 {
                    let seconds = give_up.duration_since(Instant::now()).as_secs_f64().round();
                    complain(format_args!("waiting for {seconds} s at the most: {why}"));
                }
                tokio::time::sleep(pause).await;
                nth += 1;
            }
            answer => return answer,
        }
    }
}

/// Uploads sheets, and sends those again that could not be taken.
async fn upload(terminal: &Terminal, sheets: Vec<Sheet>, give_up: Instant, json: bool, came: &mut Came) {
    let (mut waiting, mut said) = (sheets, None);
    for nth in 0.. {
        let failed = round(terminal, &mut waiting, json, came).await;
        if waiting.is_empty() {
            return;
        }
        let silent =
            || NoVerdict { code: exit::UNKNOWN, why: "no verdict came".to_owned(), again: Some(Duration::ZERO) };
        let NoVerdict { code, why, again } = failed.unwrap_or_else(silent);
        let pause = again.map(|after| pause(nth, after)).filter(|pause| Instant::now() + *pause < give_up);
        let left = waiting.len();
        let Some(pause) = pause else {
            waiting.iter().for_each(|sheet| came.not_taken(sheet, code, &why));
            complain(format_args!("{left} not taken: nothing is lost on paper; run this again later"));
            return;
        };
        if said.as_ref() != Some(&why) {
            complain(format_args!("{left} wait: {why}"));
            said = Some(why);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Sends all that wait once. What got a verdict, or never will, waits no more.
async fn round(terminal: &Terminal, waiting: &mut Vec<Sheet>, json: bool, came: &mut Came) -> Option<NoVerdict> {
    let mut verdicts = match terminal.upload(waiting.iter().map(|sheet| sheet.sale.clone()).collect()).await {
        Ok(verdicts) => verdicts,
        Err(error) => return Some(NoVerdict::of(&error)),
    };
    let (mut done, mut later) = (vec![false; waiting.len()], None);
    loop {
        match verdicts.next().await {
            Ok(Some(v1::UploadSalesResponse { call_id, verdict: Some(verdict), .. })) => {
                let place = usize::try_from(call_id).unwrap_or(usize::MAX);
                let (Some(sheet), Some(done)) = (waiting.get(place), done.get_mut(place)) else { continue };
                *done = came.told(sheet, &verdict, json);
                if let Verdict::Failure(failure) = verdict {
                    let failed = NoVerdict::of(&failure.into());
                    if failed.again.is_none() {
                        came.not_taken(sheet, failed.code, &failed.why);
                        *done = true;
                    } else {
                        later = Some(failed);
                    }
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                later = Some(NoVerdict::of(&error));
                break;
            }
        }
    }
    let mut done = done.into_iter();
    waiting.retain(|_| !done.next().unwrap_or(false));
    later
}

async fn import(command: Import) -> u8 {
    let site = match command.sheets.at.site() {
        Ok(site) => site,
        Err(why) => return tell(Trouble::Usage(why), false),
    };
    let file: Box<dyn Read> = match command.file.as_path() {
        path if path == Path::new("-") => Box::new(io::stdin()),
        path => match File::open(path) {
            Ok(file) => Box::new(file),
            Err(error) => return tell(Trouble::Usage(format!("{}: {error}", path.display())), false),
        },
    };
    let (mut sheets, mut came) = (Vec::new(), Came::default());
    let mut known: BTreeMap<RequestId, u64> = BTreeMap::new();
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let headers = match reader.headers() {
        Ok(headers) => headers.clone(),
        Err(error) => return tell(Trouble::Usage(format!("the first line cannot be read: {}", unread(&error))), false),
    };
    for (nth, record) in (2_u64..).zip(reader.into_records()) {
        let place = record.as_ref().ok().and_then(|record| record.position().map(csv::Position::line)).unwrap_or(nth);
        let line = record.and_then(|record| record.deserialize::<Line>(Some(&headers)));
        let sheet = line.map_err(|error| unread(&error)).and_then(|line| command.sheets.sheet(site, line));
        match sheet {
            Ok(sheet) => {
                let id = sheet.sale.request_id.parse().unwrap_or_else(|_| RequestId::random());
                if let Some(before) = known.insert(id, place) {
                    complain(format_args!("line {place}: is {} of line {before} again", sheet.name));
                }
                sheets.push(sheet);
            }
            Err(why) => {
                complain(format_args!("line {place}: {why}"));
                came.count("UNREADABLE", exit::USAGE);
            }
        }
    }
    if command.dry_run {
        print(format_args!(
            "{} lines can be uploaded, {} cannot be read",
            sheets.len(),
            came.words.values().sum::<u32>()
        ));
        return came.code;
    }
    let json = command.sheets.at.json;
    let give_up = command.sheets.give_up();
    let terminal = match connect(&command.sheets.at, give_up).await {
        Ok(terminal) => terminal,
        Err(trouble) => return tell(trouble, json),
    };
    upload(&terminal, sheets, give_up, json, &mut came).await;
    sum(&came, json);
    came.code
}

/// What is wrong with a line, without what stands in it: that may be a number.
fn unread(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => match err.kind() {
            csv::DeserializeErrorKind::Message(what) if what.starts_with("missing field") => what.clone(),
            _ => format!("column {} cannot be read", err.field().map_or(0, |field| field + 1)),
        },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} columns, and the first line has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        csv::ErrorKind::Io(error) => error.to_string(),
        _ => "cannot be read".to_owned(),
    }
}

fn sum(came: &Came, json: bool) {
    let words: Vec<_> = came.words.iter().map(|(word, count)| format!("{count} {word}")).collect();
    if json {
        print(serde_json::json!({ "sum": came.words }));
    } else {
        print(if words.is_empty() { "nothing".to_owned() } else { words.join(", ") });
    }
}

async fn enter(command: Enter) -> u8 {
    let json = command.sheets.at.json;
    let site = match command.sheets.at.site() {
        Ok(site) => site,
        Err(why) => return tell(Trouble::Usage(why), json),
    };
    let terminal = match connect(&command.sheets.at, command.sheets.give_up()).await {
        Ok(terminal) => terminal,
        Err(trouble) => return tell(trouble, json),
    };
    let (mut came, mut next) = (Came::default(), 1_u32);
    loop {
        match asked(&command, next) {
            Ok(None) => break,
            Ok(Some(line)) => {
                let number = line.line;
                match command.sheets.sheet(site, line) {
                    Ok(sheet) => {
                        upload(&terminal, vec![sheet], command.sheets.give_up(), json, &mut came).await;
                        next = number.saturating_add(1);
                    }
                    Err(why) => complain(format_args!("line {number}: {why}; type it again")),
                }
            }
            Err(why) => complain(format_args!("{why}; type it again")),
        }
    }
    sum(&came, json);
    came.code
}

/// The next line of the pad; `None`: there are no more.
fn asked(command: &Enter, next: u32) -> Result<Option<Line>, String> {
    let line = match prompt(&format!("line [{next}, . to end]: "))?.as_deref() {
        None | Some(".") => return Ok(None),
        Some("") if io::stdin().is_terminal() => next,
        Some("") => return Ok(None),
        Some(text) => text.parse().map_err(|_| "a line has a number".to_owned())?,
    };
    let needed =
        |what: &str, text: Option<String>| text.filter(|text| !text.is_empty()).ok_or(format!("{what} is missing"));
    let time = needed("the time", prompt("sold at (HH:MM): ")?)?;
    let number = if io::stdin().is_terminal() {
        rpassword::prompt_password("buyer's number (not shown): ").map_err(|error| error.to_string())?
    } else {
        needed("the number", prompt("")?)?
    };
    let quantity = prompt("units [1]: ")?.unwrap_or_default();
    let quantity = if quantity.is_empty() { Ok(1) } else { quantity.parse() };
    Ok(Some(Line {
        pad: command.pad.clone(),
        line,
        sold_at: format!("{} {time}", command.date),
        number,
        quantity: quantity.map_err(|_| "units are a number".to_owned())?,
        birth_date: String::new(),
        relation: String::new(),
        papers: String::new(),
    }))
}

/// What is typed; `None`: nobody types any more.
fn prompt(words: &str) -> Result<Option<String>, String> {
    let unread = |error: io::Error| format!("what is typed cannot be read: {error}");
    if io::stdin().is_terminal() {
        let mut out = io::stderr().lock();
        out.write_all(words.as_bytes()).and_then(|()| out.flush()).map_err(unread)?;
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line).map_err(unread)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}

/// A row of the report as it is printed.
#[derive(Serialize)]
struct Row {
    sold_at: String,
    request_id: String,
    quantity: u32,
    verdict: String,
    reason: String,
    received_at: String,
    conflicts: String,
}

async fn report(command: Report) -> u8 {
    let json = command.format == Format::Json;
    let terminal = match sale::connect(&command.at).await {
        Ok(terminal) => terminal,
        Err(trouble) => return tell(trouble, json),
    };
    let (mut sales, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = v1::ListUploadsRequest {
            programme: command.programme.to_string(),
            date: command.date.clone(),
            page_size: PAGE,
            page_token,
        };
        match terminal.insist(sale::PATIENCE, || terminal.uploads(page.clone())).await {
            Ok(page) => {
                sales.extend(page.sales);
                page_token = page.next_page_token;
            }
            // Nothing is recorded by asking.
            Err(CallError::Unknown(message)) => return tell(Trouble::Unreachable(message), json),
            Err(error) => return tell(error.into(), json),
        }
        if page_token.is_empty() {
            break;
        }
    }
    let rows: Vec<Row> = sales.iter().map(row).collect();
    let needs_somebody =
        |row: &&Row| matches!(row.verdict.as_str(), "OVER_QUOTA" | "ALREADY_VOIDED" | "QUARANTINED" | "PENDING");
    let needs = rows.iter().filter(needs_somebody).count();
    match command.format {
        Format::Json => rows.iter().zip(&sales).for_each(|(row, sale)| print(object(row, sale))),
        Format::Csv => {
            let mut out = csv::Writer::from_writer(io::stdout().lock());
            let written = rows.iter().try_for_each(|row| out.serialize(row)).and_then(|()| Ok(out.flush()?));
            if let Err(error) = written {
                complain(format_args!("the report cannot be written: {error}"));
                return exit::NOT_EXECUTED;
            }
        }
        Format::Table => table(&rows, needs),
    }
    if needs > 0 { exit::NO } else { exit::YES }
}

fn table(rows: &[Row], needs: usize) {
    if !rows.is_empty() {
        print(format_args!(
            "{:<25} {:>5}  {:<36}  {:<16} what it conflicts with",
            "sold at", "units", "request id", "verdict"
        ));
    }
    for row in rows {
        let Row { sold_at, quantity, request_id, verdict, reason, conflicts, .. } = row;
        let why = [reason.as_str(), conflicts.as_str()].join("");
        print(
            format_args!("{sold_at:<25} {quantity:>5}  {request_id:<36}  {verdict:<16} {why}").to_string().trim_end(),
        );
    }
    let mut words: BTreeMap<&str, (u32, u64)> = BTreeMap::new();
    for row in rows {
        let (count, units) = words.entry(&row.verdict).or_default();
        *count += 1;
        *units += u64::from(row.quantity);
    }
    let words: Vec<_> = words.iter().map(|(word, (count, units))| format!("{count} {word} ({units} units)")).collect();
    print(if words.is_empty() { "nothing was uploaded".to_owned() } else { words.join(", ") });
    if needs > 0 {
        print(format_args!("{needs} need somebody to look at them"));
    }
}

/// As it is printed for programs: each conflict by itself.
fn object(row: &Row, sale: &v1::UploadedSale) -> serde_json::Value {
    let conflict = |c: &v1::ConflictingSale| {
        let at = c.at.as_ref().map(|at| instant(at).to_string());
        serde_json::json!({ "at": at, "quantity": c.quantity, "district": c.district })
    };
    let mut object = serde_json::json!(row);
    if let Some(conflicts) = object.get_mut("conflicts") {
        *conflicts = sale.conflicts.iter().map(conflict).collect();
    }
    object
}

fn row(sale: &v1::UploadedSale) -> Row {
    let at = |at: Option<&WireTimestamp>| at.map(|at| instant(at).to_string()).unwrap_or_default();
    let conflict = |c: &v1::ConflictingSale| format!("{} at {} in {}", c.quantity, at(c.at.as_ref()), c.district);
    let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_owned();
    let reason = match sale.reason() {
        v1::QuarantineReason::Unspecified => String::new(),
        reason => word(reason.as_str_name(), "QUARANTINE_REASON_"),
    };
    Row {
        sold_at: at(sale.sold_at.as_ref()),
        request_id: sale.request_id.clone(),
        quantity: sale.quantity,
        verdict: word(sale.verdict().as_str_name(), "UPLOAD_VERDICT_"),
        reason,
        received_at: at(sale.received_at.as_ref()),
        conflicts: sale.conflicts.iter().map(conflict).collect::<Vec<_>>().join("; "),
    }
}

fn tell(trouble: Trouble, json: bool) -> u8 {
    sale::tell_with(trouble, json, "send it again: a sale is recorded once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_instant_or_a_day_and_a_time() {
        let seconds = |text| moment(text, "+09:00").map(|at| at.seconds);
        let nine_forty = Ok(1_583_887_200);
        assert_eq!(seconds("2020-03-11T09:40:00+09:00"), nine_forty);
        assert_eq!(seconds("2020-03-11 09:40"), nine_forty);
        assert_eq!(seconds("2020-03-11 09:40:00"), nine_forty);
        assert_eq!(seconds("2020-03-11T00:40:00Z"), nine_forty);
        for bad in ["", "09:40", "2020-03-11", "2020-13-11 09:40", "11.3.2020 09:40"] {
            assert!(seconds(bad).unwrap_err().starts_with("sold_at: "), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_never_repeats_it() {
        let text =
            "pad,line,sold_at,number,quantity\nA,1,2020-03-11 09:40,810305-1000112,two\nA,810305-1000112,x,y,1\nA\n";
        let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
        let said: Vec<String> =
            reader.deserialize::<Line>().map(|line| unread(&line.err().expect("no line can be read"))).collect();
        assert_eq!(said[0], "column 5 cannot be read");
        assert_eq!(said[1], "column 2 cannot be read");
        assert!(said[2].contains("1 columns"), "{said:?}");
    }
}
