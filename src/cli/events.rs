//! `rationd events`: what happened to purchases, as lines for other programs.

use std::fs::File;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::tls::TlsFiles;
use super::{complain, exit};
use crate::grpc::v1::{self, read_events_request};
use crate::terminal::{Connection, Operator, Unread, instant};

/// How long a reader that follows waits before it tries again.
const TRIES_AGAIN_AFTER: Duration = Duration::from_secs(1);

const AFTER_HELP: &str = "One line an event, in the order of what happened to each purchase; between purchases there is no order. \
With --cursor every event is printed at least once; what was printed just before a run was ended may come again: a line is \
printed before it counts as read. \
The service keeps the newest 20,000 events of each of its 256 partitions.

Exit codes: 0 all there is was printed, or nobody reads it any more; 1 events after the cursor are kept no more, or it is another \
ledger's; 2 arguments; 3 not reached, not allowed, broken off, or not written.";

/// `events`
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Events {
    /// Where the service listens for operators
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7421")]
    address: String,
    #[command(flatten)]
    tls: TlsFiles,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = Begins::Oldest)]
    from: Begins,
    /// Goes on where this file says, and keeps in it how far it got; without the file it begins as --from says
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,
    /// Only events of this programme
    #[arg(long, value_name = "ID", default_value = "")]
    programme: String,
    /// Goes on with what comes, until it is stopped; where a service that has answered goes away, it waits for it
    #[arg(long)]
    follow: bool,
    /// Lines of JSON, or CSV
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Begins {
    /// With the oldest event that is kept
    Oldest,
    /// With the next one
    Now,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// An object a line
    Json,
    /// A table with a first line of names
    Csv,
}

/// An event as it is printed: times in RFC 3339, the words of `rationd.v1` in small letters.
#[derive(Serialize)]
struct Line<'a> {
    kind: String,
    programme: &'a str,
    request_id: &'a str,
    site: &'a str,
    terminal: &'a str,
    quantity: u32,
    at: String,
    mark: String,
    over: bool,
    stated: &'a str,
}

/// Why it goes no further.
enum Stopped {
    /// The service says no, or is not there.
    Unread(Unread),
    /// It could not be reached at all.
    Unreachable(String),
    /// The files of certificates cannot be used.
    Files(String),
    /// Nobody takes the lines any more.
    NobodyReads,
    /// The lines, or how far it got, cannot be written.
    NotWritten(String),
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
            _ => Self::NotWritten(format!("the lines cannot be written: {error}; they will come again")),
        }
    }
}

pub(super) async fn run(wanted: Events) -> u8 {
    let from = match begins(&wanted) {
        Ok(from) => from,
        Err(problem) => {
            complain(problem);
            return exit::USAGE;
        }
    };
    let lines = Lines { out: BufWriter::new(io::stdout().lock()), format: wanted.format, is_begun: false };
    let mut reading = Reading { wanted, from, lines, has_begun: false, is_away: false };
    loop {
        let (code, why) = match reading.go_on().await {
            Ok(()) | Err(Stopped::NobodyReads) => return exit::YES,
            Err(Stopped::Unread(Unread::Told { reason, message, retry_after: None })) => {
                complain(format_args!("{reason}: {message}{}", remedy(&reason, reading.wanted.cursor.as_deref())));
                return match reason.as_str() {
                    "INVALID_REQUEST" => exit::USAGE,
                    "EVENTS_GONE" | "OTHER_LEDGER" => exit::NO,
                    _ => exit::NOT_EXECUTED,
                };
            }
            // While it follows they may be on their way of being replaced.
            Err(Stopped::Files(why)) => ((!reading.has_begun).then_some(exit::USAGE), why),
            Err(Stopped::NotWritten(why)) => (Some(exit::NOT_EXECUTED), why),
            Err(Stopped::Unreachable(why)) => (None, why),
            Err(Stopped::Unread(why)) => (None, why.to_string()),
        };
        let waits = reading.wanted.follow && reading.has_begun;
        if let Some(code) = code.or((!waits).then_some(exit::NOT_EXECUTED)) {
            complain(why);
            return code;
        }
        if !std::mem::replace(&mut reading.is_away, true) {
            complain(format_args!("{why}; trying again until it is there"));
        }
        tokio::time::sleep(TRIES_AGAIN_AFTER).await;
    }
}

fn remedy(reason: &str, cursor: Option<&Path>) -> String {
    match cursor {
        Some(file) if matches!(reason, "EVENTS_GONE" | "OTHER_LEDGER") => format!(" (remove {})", file.display()),
        _ => String::new(),
    }
}

fn begins(wanted: &Events) -> Result<Option<read_events_request::From>, String> {
    let as_said = match wanted.from {
        Begins::Oldest => None,
        Begins::Now => Some(read_events_request::From::New(v1::NewEvents {})),
    };
    let Some(file) = &wanted.cursor else { return Ok(as_said) };
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(read_events_request::From::Cursor(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(as_said),
        Err(error) => Err(format!("{}: cannot be read: {error}", file.display())),
    }
}

/// How far it is, over however many connections.
struct Reading {
    wanted: Events,
    from: Option<read_events_request::From>,
    lines: Lines,
    /// It has been answered once.
    has_begun: bool,
    /// That the service is away has been told.
    is_away: bool,
}

impl Reading {
    /// Prints what comes, until there is no more or something is wrong.
    async fn go_on(&mut self) -> Result<(), Stopped> {
        let Events { address, tls, programme, follow, cursor, .. } = &self.wanted;
        let files = tls.for_somebody(address).map_err(Stopped::Files)?;
        let connection = Connection::open(address, files.as_ref()).await;
        let connection = connection.map_err(|error| Stopped::Unreachable(tls.beside(&error)))?;
        let request = v1::ReadEventsRequest { from: self.from.clone(), programme: programme.clone(), follow: *follow };
        let mut events = Operator::on(&connection).events(request).await?;
        // Who begins with what is new has begun when it knows where that is.
        self.has_begun |= !matches!(self.from, Some(read_events_request::From::New(_)));
        self.is_away = false;
        while let Some(message) = events.next().await? {
            self.has_begun = true;
            self.lines.print(&message.events)?;
            if let Some(file) = cursor {
                self.lines.sync()?;
                let told =
                    |error| format!("{}: cannot be written: {error}; the last lines will come again", file.display());
                keep(file, &message.cursor).map_err(|error| Stopped::NotWritten(told(error)))?;
            }
            self.from = Some(read_events_request::From::Cursor(message.cursor));
        }
        Ok(())
    }
}

/// The whole cursor, or the one that was there.
fn keep(file: &Path, cursor: &[u8]) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".new");
    let mut written = File::create(&unfinished)?;
    written.write_all(cursor)?;
    written.sync_all()?;
    std::fs::rename(&unfinished, file)
}

struct Lines {
    out: BufWriter<StdoutLock<'static>>,
    format: Format,
    is_begun: bool,
}

impl Lines {
    fn print(&mut self, events: &[v1::PurchaseEvent]) -> io::Result<()> {
        let time = |at: &Option<_>| at.as_ref().map(|at| instant(at).to_string()).unwrap_or_default();
        let lines = events.iter().map(|event| Line {
            kind: kind(event),
            programme: &event.programme,
            request_id: &event.request_id,
            site: &event.site,
            terminal: &event.terminal,
            quantity: event.quantity,
            at: time(&event.at),
            mark: time(&event.mark),
            over: event.over,
            stated: &event.stated,
        });
        match self.format {
            Format::Json => {
                for line in lines {
                    serde_json::to_writer(&mut self.out, &line)?;
                    self.out.write_all(b"\n")?;
                }
            }
            Format::Csv => {
                let mut table = csv::WriterBuilder::new().has_headers(!self.is_begun).from_writer(&mut self.out);
                self.is_begun |= !events.is_empty();
                for line in lines {
                    table.serialize(line).map_err(io::Error::from)?;
                }
                table.flush()?;
            }
        }
        self.out.flush()
    }

    /// Has what was printed on the disk, where it goes to a file.
    fn sync(&self) -> io::Result<()> {
        let out = File::from(self.out.get_ref().as_fd().try_clone_to_owned()?);
        if out.metadata()?.is_file() { out.sync_data() } else { Ok(()) }
    }
}

fn kind(event: &v1::PurchaseEvent) -> String {
    let name = event.kind().as_str_name();
    name.strip_prefix("PURCHASE_EVENT_KIND_").unwrap_or(name).to_lowercase()
}
