//! One call each, for people and scripts: check, sell, hold, confirm, release, void, resolve, health.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use clap::Args;

use super::shown::{Asked, Shown};
use super::tls::TlsFiles;
use super::{complain, exit, print};
use crate::grpc::{PURCHASE_SERVICE, v1};
use crate::ids::{LedgerId, Paper, ProgrammeId, Relation, RequestId, SiteId, TerminalId};
use crate::terminal::{CallError, Connection, Opened, Session, Terminal, Tls};

/// The first of the demo sites.
pub(super) const DEMO_SITE: &str = "11000001";

/// How long a call is made again where that helps. Whoever stands at the counter waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// The demo programme, the only one under which a number may stand on the command line.
pub(super) const DEMO: &str = "weekly-essentials";

/// Numbers invented for trying things out (`domain.md` 3.3); they belong to nobody.
pub(super) const SYNTHETIC: [&str; 12] = [
    "810305-1000112",
    "631120-2162511",
    "130704-3070126",
    "000229-4120317",
    "020101-3000413",
    "890612-5100163",
    "011231-4000511",
    "400101-2480219",
    "991231-9000131",
    "890612-5100164",
    "951130-6120183",
    "040315-7200178",
];

/// The one-call commands.
pub enum SaleCommand {
    /// `check`
    Check(Check),
    /// `sell`
    Sell(Sell),
    /// `hold`
    Hold(Hold),
    /// `confirm`
    Confirm(Follow),
    /// `release`
    Release(Follow),
    /// `void`
    Void(Follow),
    /// `resolve`
    Resolve(Follow),
    /// `health`
    Health(Health),
}

impl SaleCommand {
    /// As it stands on the command line.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Check(_) => "check",
            Self::Sell(_) => "sell",
            Self::Hold(_) => "hold",
            Self::Confirm(_) => "confirm",
            Self::Release(_) => "release",
            Self::Void(_) => "void",
            Self::Resolve(_) => "resolve",
            Self::Health(_) => "health",
        }
    }
}

/// Where the service is and who calls it.
#[derive(Args)]
pub(super) struct Where {
    /// Where the service listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7420", env = "RATIOND_ADDRESS")]
    address: String,
    /// The calling site's code [default: 11000001; with a certificate, the site that it names]
    #[arg(long, value_name = "CODE")]
    site: Option<SiteId>,
    /// The calling terminal's name; the same name is the same terminal
    #[arg(long, value_name = "NAME", default_value = "command-line")]
    terminal: TerminalId,
    #[command(flatten)]
    tls: TlsFiles,
    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

impl Where {
    /// The calling site, where it is named here and not by a certificate.
    pub(super) fn site(&self) -> Result<SiteId, String> {
        match self.site {
            Some(site) => Ok(site),
            None if self.address.starts_with("https") => {
                Err("name the site with --site: a late sale says at which it was made".to_owned())
            }
            None => DEMO_SITE.parse().map_err(|e| format!("{e}")),
        }
    }
}

/// Whose allowance is charged. The number comes from a prompt or from standard input.
#[derive(Args)]
pub(super) struct Whose {
    /// The programme
    #[arg(long, value_name = "ID", default_value = DEMO)]
    programme: ProgrammeId,
    /// A synthetic number, under the demo programme only: what stands on a command line is read by others
    #[arg(long, value_name = "NUMBER")]
    number: Option<String>,
    /// For programmes with numbers of their own: the date of birth on the card (ISO 8601)
    #[arg(long, value_name = "DATE")]
    birth_date: Option<String>,
}

impl Whose {
    /// The programme.
    pub(super) fn programme(&self) -> ProgrammeId {
        self.programme
    }
}

/// What is asked for.
#[derive(Args)]
pub(super) struct What {
    #[command(flatten)]
    whose: Whose,
    /// Units
    #[arg(long, short = 'n', default_value_t = 1)]
    quantity: u32,
    /// How the agent stands to the buyer, in the programme's words; makes it a proxy purchase
    #[arg(long, value_name = "WORD", requires = "agent_birth_year")]
    relation: Option<Relation>,
    /// The agent's year of birth
    #[arg(long, value_name = "YEAR", requires = "relation")]
    agent_birth_year: Option<i32>,
    /// A paper that was shown, in the programme's words; may be given several times
    #[arg(long = "paper", value_name = "WORD")]
    papers: Vec<Paper>,
}

/// `check`
#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    what: What,
}

/// `sell`
#[derive(Args)]
pub struct Sell {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    what: What,
    /// The request id of an attempt whose outcome is unknown; without it a new one is made
    #[arg(long, value_name = "UUID")]
    request_id: Option<RequestId>,
    /// The ledger that was written down with the request id; under another one nothing is done
    #[arg(long, value_name = "UUID")]
    ledger: Option<LedgerId>,
}

/// `hold`
#[derive(Args)]
pub struct Hold {
    #[command(flatten)]
    sell: Sell,
    /// How long, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    seconds: u32,
}

/// `confirm`, `release`, `void`, `resolve`
#[derive(Args)]
pub struct Follow {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    whose: Whose,
    /// The purchase's request id
    #[arg(long, value_name = "UUID")]
    request_id: RequestId,
    /// The ledger that was written down with the request id; under another one nothing is done
    #[arg(long, value_name = "UUID")]
    ledger: Option<LedgerId>,
}

impl Follow {
    /// Request id and ledger as they stand on the wire.
    fn ids(&self) -> (String, String) {
        (self.request_id.to_string(), self.ledger.map(|id| id.to_string()).unwrap_or_default())
    }
}

/// `health`
#[derive(Args)]
pub struct Health {
    /// Where the service listens; the admin listener answers too
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7420", env = "RATIOND_ADDRESS")]
    address: String,
    /// Which service; "" is the process itself
    #[arg(long, value_name = "NAME", default_value = PURCHASE_SERVICE)]
    service: String,
    #[command(flatten)]
    tls: TlsFiles,
}

/// Why a command could not be carried out.
pub(super) enum Trouble {
    /// The arguments or the number.
    Usage(String),
    /// Nothing was sent, and nothing can be before somebody has looked at the address or the certificates.
    Unreachable(String),
    /// Nothing was sent: nobody answers, and somebody may in a moment.
    Away(String),
    /// The call failed.
    Call(CallError),
    /// Every seat of the site is taken.
    SiteFull(v1::SiteFull),
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

pub(super) async fn run(command: SaleCommand) -> u8 {
    let (json, result) = match command {
        SaleCommand::Health(health) => return ask_health(health).await,
        SaleCommand::Check(c) => (c.at.json, check(c).await),
        SaleCommand::Sell(c) => (c.at.json, sell(c, None).await),
        SaleCommand::Hold(c) => (c.sell.at.json, sell(c.sell, Some(Duration::from_secs(c.seconds.into()))).await),
        SaleCommand::Confirm(c) => (c.at.json, confirm(c).await),
        SaleCommand::Release(c) => (c.at.json, follow(c, Following::Release).await),
        SaleCommand::Void(c) => (c.at.json, follow(c, Following::Void).await),
        SaleCommand::Resolve(c) => (c.at.json, follow(c, Following::Resolve).await),
    };
    match result {
        Ok(shown) => {
            if json {
                print(shown.json());
            } else {
                print(&shown);
            }
            shown.exit_code()
        }
        Err(trouble) => tell(trouble, json),
    }
}

fn tell(trouble: Trouble, json: bool) -> u8 {
    let advice = "recorded or not, nobody can say yet: repeat with the same --request-id, or ask `rationd resolve`";
    tell_with(trouble, json, advice)
}

/// Tells what is wrong; where nobody can say whether it was recorded, with this advice.
pub(super) fn tell_with(trouble: Trouble, json: bool, advice: &str) -> u8 {
    let (code, name, message) = match trouble {
        Trouble::Usage(message) => (exit::USAGE, "INVALID_REQUEST".to_string(), message),
        Trouble::Unreachable(message) | Trouble::Away(message) => (exit::NOT_EXECUTED, "UNREACHABLE".into(), message),
        Trouble::Call(CallError::NotExecuted { reason, message, retry_after }) => {
            let retry =
                retry_after.map(|after| format!(" (try again in {} ms)", after.as_millis())).unwrap_or_default();
            let code = if reason == "INVALID_REQUEST" { exit::USAGE } else { exit::NOT_EXECUTED };
            (code, reason, format!("{message}{retry}"))
        }
        Trouble::Call(CallError::Unknown(message)) => {
            (exit::UNKNOWN, "OUTCOME_UNKNOWN".into(), format!("{message}; {advice}"))
        }
        Trouble::SiteFull(full) => {
            let holders: Vec<_> = full.holders.iter().map(|h| h.terminal.as_str()).collect();
            let message = format!("every seat of the site is taken (cap {}); held by {}", full.cap, holders.join(", "));
            (exit::NOT_EXECUTED, "SITE_LIMIT".into(), message)
        }
    };
    if json {
        print(serde_json::json!({ "error": name, "message": message, "outcome_unknown": code == exit::UNKNOWN }));
    } else {
        complain(format_args!("{name}: {message}"));
    }
    code
}

async fn check(command: Check) -> Result<Shown, Trouble> {
    let programme = command.what.whose.programme;
    let line = line(&command.what, String::new())?;
    let terminal = connect(&command.at).await?;
    let visit = v1::CheckPurchaseRequest {
        programme: programme.to_string(),
        agent: agent(&command.what),
        lines: vec![line],
        family_birth_years: Vec::new(),
    };
    let response = terminal.insist(PATIENCE, || terminal.check(visit.clone())).await?;
    shown(Asked::ToSell, programme, response.results.into_iter().next())
}

async fn sell(command: Sell, hold_for: Option<Duration>) -> Result<Shown, Trouble> {
    let programme = command.what.whose.programme;
    let request = command.request_id.unwrap_or_else(RequestId::random);
    let line = line(&command.what, request.to_string())?;
    let terminal = connect(&command.at).await?;
    let session = open(&terminal).await?;
    // Written down before the first attempt: with it an unknown outcome can be resolved.
    let ledger: LedgerId = session.admitted.ledger_id.parse().map_err(|_| CallError::NotExecuted {
        reason: "OTHER_LEDGER".into(),
        message: "the service names no ledger".into(),
        retry_after: None,
    })?;
    complain(format_args!("request id {request} in ledger {ledger}"));
    let visit = v1::PurchaseRequest {
        programme: programme.to_string(),
        agent: agent(&command.what),
        lines: vec![line],
        family_birth_years: Vec::new(),
        ledger_id: command.ledger.unwrap_or(ledger).to_string(),
    };
    let results = match hold_for {
        None => session.seat().insist(visit, PATIENCE).await.map(|response| response.results),
        Some(span) => {
            let held = terminal.insist(PATIENCE, || session.hold(visit.clone(), span)).await;
            held.map(|response| response.results)
        }
    };
    close(session).await;
    shown(Asked::ToSell, programme, results?.into_iter().next())
}

async fn confirm(command: Follow) -> Result<Shown, Trouble> {
    let programme = command.whose.programme;
    let buyer = buyer(&command.whose).map_err(Trouble::Usage)?;
    let terminal = connect(&command.at).await?;
    let session = open(&terminal).await?;
    let (request_id, ledger_id) = command.ids();
    let hold = v1::ConfirmHoldRequest { programme: programme.to_string(), buyer: Some(buyer), request_id, ledger_id };
    let response = terminal.insist(PATIENCE, || session.confirm(hold.clone())).await;
    close(session).await;
    shown(Asked::ToSell, programme, response?.result)
}

/// The calls that need only the site's identity.
#[derive(Clone, Copy)]
enum Following {
    Release,
    Void,
    Resolve,
}

async fn follow(command: Follow, verb: Following) -> Result<Shown, Trouble> {
    let programme = command.whose.programme;
    let (programme_id, buyer) = (programme.to_string(), Some(buyer(&command.whose).map_err(Trouble::Usage)?));
    let (request_id, ledger_id) = command.ids();
    let terminal = connect(&command.at).await?;
    let result = match verb {
        Following::Release => {
            let hold = v1::ReleaseHoldRequest { programme: programme_id, buyer, request_id, ledger_id };
            terminal.insist(PATIENCE, || terminal.release(hold.clone())).await?.result
        }
        Following::Void => {
            let purchase = v1::VoidPurchaseRequest { programme: programme_id, buyer, request_id, ledger_id };
            terminal.insist(PATIENCE, || terminal.void(purchase.clone())).await?.result
        }
        Following::Resolve => {
            let purchase = v1::GetPurchaseRequest { programme: programme_id, buyer, request_id, ledger_id };
            terminal.insist(PATIENCE, || terminal.resolve(purchase.clone())).await?.result
        }
    };
    let asked = match verb {
        Following::Release | Following::Void => Asked::ToUndo,
        Following::Resolve => Asked::ToSell,
    };
    shown(asked, programme, result)
}

async fn ask_health(health: Health) -> u8 {
    let asked = async {
        let tls = health.tls.for_anybody(&health.address).map_err(Trouble::Usage)?;
        let connection = reach(&health.address, tls.as_ref(), &health.tls).await?;
        // Health needs no site, and does not look at the name.
        let name = "health".parse().map_err(|_| Trouble::Usage("a health check needs no name".into()))?;
        Ok::<bool, Trouble>(Terminal::on(&connection, None::<SiteId>, name).is_serving(&health.service).await?)
    };
    match asked.await {
        Ok(serving) => {
            print(if serving { "SERVING" } else { "NOT_SERVING" });
            if serving { exit::YES } else { exit::NO }
        }
        Err(trouble) => tell(trouble, false).max(exit::NO),
    }
}

pub(super) async fn connect(at: &Where) -> Result<Terminal, Trouble> {
    let tls = at.tls.for_somebody(&at.address).map_err(Trouble::Usage)?;
    let site = match at.site {
        None if tls.is_none() => Some(DEMO_SITE.parse().map_err(|e| Trouble::Usage(format!("{e}")))?),
        site => site,
    };
    Ok(Terminal::on(&reach(&at.address, tls.as_ref(), &at.tls).await?, site, at.terminal))
}

pub(super) async fn reach(address: &str, tls: Option<&Tls>, files: &TlsFiles) -> Result<Connection, Trouble> {
    Connection::open(address, tls).await.map_err(|unreachable| {
        let why = files.beside(&unreachable);
        if unreachable.may_pass() { Trouble::Away(why) } else { Trouble::Unreachable(why) }
    })
}

async fn open(terminal: &Terminal) -> Result<Session, Trouble> {
    match terminal.enter(tell_where_it_stands).await {
        Ok(Opened::Admitted(session)) => Ok(*session),
        Ok(Opened::SiteFull(full)) => Err(Trouble::SiteFull(full)),
        Ok(Opened::Shut(shut)) => {
            let message = "operators let nobody new in at present".into();
            let retry_after = shut.retry_after.and_then(|after| after.try_into().ok());
            Err(Trouble::Call(CallError::NotExecuted { reason: "DOOR_SHUT".into(), message, retry_after }))
        }
        // Opening a session sells nothing, however it fails.
        Err(CallError::Unknown(message)) => {
            Err(Trouble::Call(CallError::NotExecuted { reason: "SESSION_REQUIRED".into(), message, retry_after: None }))
        }
        Err(error) => Err(error.into()),
    }
}

/// For whoever stands at the counter; standard output is for the answer.
fn tell_where_it_stands(waiting: &v1::Waiting) {
    let Some(position) = waiting.position else { return };
    let begun = |seconds: i64, nanos: i32| seconds + i64::from(nanos > 0);
    let long = match &waiting.estimate {
        Some(estimate) => {
            let [p50, p90] = [estimate.p50, estimate.p90].map(|span| span.map_or(0, |s| begun(s.seconds, s.nanos)));
            format!("about {p50} s, at most {p90} s in nine cases of ten")
        }
        None => "nobody knows how long".into(),
    };
    let rank = if waiting.rank == 0 { String::new() } else { format!(" of rank {}", waiting.rank) };
    complain(format_args!("waiting in line: position {position}{rank}; {long}"));
}

/// The seat comes free by itself if this fails; the sale is what matters.
async fn close(session: Session) {
    if let Err(error) = session.close().await {
        complain(format_args!("the session could not be closed ({error}); its seat comes free when its lease ends"));
    }
}

fn shown(asked: Asked, programme: ProgrammeId, result: Option<v1::PurchaseResult>) -> Result<Shown, Trouble> {
    let nothing = || CallError::Unknown("the service answered without a result".into());
    Ok(Shown::new(asked, programme, result.ok_or_else(nothing)?))
}

fn agent(what: &What) -> Option<v1::Agent> {
    what.agent_birth_year.map(|birth_year| v1::Agent { birth_year })
}

fn line(what: &What, request_id: String) -> Result<v1::Line, Trouble> {
    Ok(v1::Line {
        request_id,
        buyer: Some(buyer(&what.whose).map_err(Trouble::Usage)?),
        quantity: what.quantity,
        relation: what.relation.map(|r| r.to_string()).unwrap_or_default(),
        papers: what.papers.iter().map(ToString::to_string).collect(),
    })
}

/// The buyer that is named; what is wrong otherwise.
pub(super) fn buyer(whose: &Whose) -> Result<v1::Buyer, String> {
    let number = match &whose.number {
        Some(number) if whose.programme.as_str() != DEMO || !SYNTHETIC.contains(&number.as_str()) => {
            return Err(format!(
                "a number on the command line is read by others: leave --number out and type it at the prompt or pipe it \
                 in; only the synthetic ones ({}, …) are taken there, under {DEMO}",
                SYNTHETIC.first().copied().unwrap_or_default()
            ));
        }
        Some(number) => number.clone(),
        None => ask_number()?,
    };
    let id = match &whose.birth_date {
        None => v1::buyer::Id::ResidentNumber(number),
        Some(date) => v1::buyer::Id::Opaque(v1::OpaqueBuyer { id: number, birth_date: date.clone() }),
    };
    Ok(v1::Buyer { id: Some(id) })
}

/// From a prompt that does not show what is typed, or the first line of standard input.
fn ask_number() -> Result<String, String> {
    let unread = |e: std::io::Error| format!("the buyer's number could not be read: {e}");
    let line = if std::io::stdin().is_terminal() {
        rpassword::prompt_password("buyer's number (not shown): ").map_err(unread)?
    } else {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(unread)?;
        line
    };
    let number = line.trim();
    if number.is_empty() {
        return Err("the buyer's number is missing: type it at the prompt, or pipe it in".into());
    }
    Ok(number.to_string())
}
