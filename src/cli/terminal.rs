//! `rationd terminal`: the counter program. It joins the screen, which knows no service, and the counter, which knows no screen.

mod said;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::sale::{DEMO, DEMO_SITE};
use super::tls::TlsFiles;
use super::{complain, exit};
use crate::ids::{ProgrammeId, RequestId, SiteId, TerminalId};
use crate::policy::{BuyerIds, Policies};
use crate::terminal::counter::{self, Checked, Counter, Line, NotHandedOver, NotOpen, NotSold, NotTaken, Settings};
use crate::terminal::journal::{Buyer, Damage, Sale, Stands};
use crate::terminal::screen::{
    self, Answer, Ask, Door, Failure, Journal, Language, Moment, Number, Offline, Row, RowState, Screen, Setup, Teller,
    Told, Uploaded, Wish,
};
use crate::time::{Clock, SystemClock, Timestamp};

/// How long a purchase whose outcome is unknown is waited for when the clerk asks again.
const ASKS_AGAIN_FOR: Duration = Duration::from_secs(2);
/// How long the last wishes are waited for at the end, and then the counter: each is bounded by its own patience, which is shorter.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether another minute has begun.
const LOOKS_AT_THE_CLOCK: Duration = Duration::from_secs(1);
/// How long it is asked after a restart whether goods were handed over whose sale was not recorded.
const ASKS_FOR_GOODS: Duration = Duration::from_secs(86_400);
/// How far back sales are looked for that are not done with: the counter remembers no older ones.
const LOOKS_BACK: Duration = Duration::from_secs(8 * 86_400);

/// `terminal`
#[derive(Args)]
pub struct CounterProgram {
    /// Where the service listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7420", env = "RATIOND_ADDRESS")]
    address: String,
    /// The site's code [default without TLS: 11000001]
    #[arg(long, value_name = "CODE")]
    site: Option<SiteId>,
    /// The terminal's name; the same name is the same terminal, and one at a time uses its journal
    #[arg(long, value_name = "NAME", default_value = "window-1")]
    terminal: TerminalId,
    #[command(flatten)]
    tls: TlsFiles,
    /// The programme
    #[arg(long, value_name = "ID", default_value = DEMO)]
    programme: ProgrammeId,
    /// Units that a customer usually takes: what Enter alone sells
    #[arg(long, value_name = "UNITS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    usual: u32,
    /// Where sales are written down before they are sent, and while the service is away
    #[arg(long, value_name = "FILE", default_value = "rationd-counter.journal")]
    journal: PathBuf,
    /// The journal's key, made with it [default: beside the journal, `.key` behind its name]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// What the screen speaks first: ko or en; F2 changes it
    #[arg(long, value_name = "LANGUAGE", default_value = "en", env = "LANG", hide_env_values = true, value_parser = language)]
    language: Language,
    /// Starts a simulated clock at this instant (RFC 3339 with offset), which then runs; for development
    #[arg(long, value_name = "INSTANT")]
    clock: Option<Timestamp>,
}

#[expect(clippy::unnecessary_wraps, reason = "what a parser of clap looks like; the name of any locale is a language")]
fn language(locale: &str) -> Result<Language, String> {
    Ok(Language::of_locale(locale))
}

/// What the tasks share that carry out wishes.
#[derive(Clone)]
struct Desk {
    counter: Counter,
    teller: Teller,
    programme: ProgrammeId,
    local: said::Local,
    known: Arc<Mutex<Known>>,
}

/// What the screen has been told.
#[derive(Default)]
struct Known {
    rows: HashMap<RequestId, RowState>,
    /// Purchases of which nobody knew what became of them and nobody has said whether the goods were handed over.
    open: HashSet<RequestId>,
    /// Since when the service is away.
    away: Option<Moment>,
    /// What became of the uploads since the last sheet was waiting.
    uploaded: Uploaded,
}

pub(super) async fn run(command: CounterProgram) -> u8 {
    let opened = match settings(&command) {
        Ok(settings) => Counter::open(settings).await,
        Err(message) => {
            complain(format_args!("INVALID_REQUEST: {message}"));
            return exit::USAGE;
        }
    };
    match opened {
        Ok((counter, damage)) => serve(command, counter, damage).await,
        Err(error) => {
            complain(&error);
            if matches!(error, NotOpen::Address(_)) { exit::USAGE } else { exit::FAILED }
        }
    }
}

fn settings(command: &CounterProgram) -> Result<Settings, String> {
    let tls = command.tls.for_somebody(&command.address)?;
    let site = match command.site {
        Some(site) => site,
        None if tls.is_none() => DEMO_SITE.parse().map_err(|error| format!("{error}"))?,
        None => {
            return Err("say which site it is, with --site CODE: what is sold offline is written down under it".into());
        }
    };
    let programme = Policies::built_in().get(command.programme).cloned();
    if programme.is_some_and(|programme| programme.buyer_ids() == BuyerIds::Opaque) {
        return Err(format!("{} has numbers of its own, which cannot be typed in here", command.programme));
    }
    let mut settings = Settings::new(&command.address, site, command.terminal, command.journal.clone());
    settings.tls = tls;
    settings.clock = clock(command);
    if let Some(key) = &command.key {
        settings.key.clone_from(key);
    }
    Ok(settings)
}

fn clock(command: &CounterProgram) -> SystemClock {
    command.clock.map_or_else(SystemClock::real, SystemClock::starting_at)
}

async fn serve(command: CounterProgram, counter: Counter, damage: Option<Damage>) -> u8 {
    let site = command.site.map_or_else(|| DEMO_SITE.to_owned(), |site| site.to_string());
    let programme = Policies::built_in().get(command.programme).cloned();
    let mut screen = Screen::new(Setup {
        language: command.language,
        programme: programme.as_ref().map_or_else(|| command.programme.to_string(), |known| known.title().to_owned()),
        site,
        terminal: command.terminal.to_string(),
        usual: command.usual,
        check_digit: programme.as_ref().is_none_or(|known| known.warns_of_check_digit()),
        relations: programme.as_ref().map(|known| known.relations()).unwrap_or_default(),
        papers: programme.as_ref().map(|known| known.papers()).unwrap_or_default(),
    });
    let (teller, happenings) = screen::channel();
    let (wish, mut wishes) = unbounded_channel();
    let clock = clock(&command);
    let desk = Desk {
        counter: counter.clone(),
        teller: teller.clone(),
        programme: command.programme,
        local: said::Local(programme),
        known: Arc::default(),
    };
    if let Some(damage) = &damage {
        teller.tell(Told::Journal(Journal::Damaged { lost: said::lost(damage) }));
    }
    desk.tell_rows(clock.now(), true);

    // A window that is closed, or whoever stops the program, ends it as the clerk does: the terminal and the seat are given back.
    let mut stops = match signals() {
        Ok(stops) => stops,
        Err(error) => {
            complain(format_args!("signals cannot be heard: {error}"));
            return exit::FAILED;
        }
    };
    let (closed, is_closed) = std::sync::mpsc::channel::<()>();
    let shown_on = spawn_blocking(move || {
        let wish = move |wished| {
            // Whoever carries wishes out ends after the screen.
            let _ = wish.send(wished);
        };
        // Nobody sends: it is over when the other end is dropped.
        let leave = || {
            let _ = is_closed.recv();
        };
        screen::run(&mut screen, &happenings, &clock, wish, leave)
    });
    let carried_out = TaskTracker::new();
    let mut shown = counter.shown();
    shown.mark_changed();
    let mut ticks = tokio::time::interval(LOOKS_AT_THE_CLOCK);
    let (mut minute, mut was_broken) = (None, false);
    loop {
        tokio::select! {
            wished = wishes.recv() => match wished {
                None | Some(Wish::Quit) => break,
                Some(wished) => {
                    carried_out.spawn(desk.clone().carry_out(wished, clock));
                }
            },
            () = stopped(&mut stops) => teller.end(),
            Ok(()) = shown.changed() => {
                let now = shown.borrow_and_update().clone();
                desk.tell_shown(&now, clock.now(), &mut was_broken);
            }
            _ = ticks.tick() => {
                let now = desk.local.moment(clock.now());
                if minute.replace(now) != Some(now) {
                    teller.tell(Told::Clock(now));
                }
            }
        }
    }
    // What the clerk wished for last is done before it is closed, and the terminal is held until then.
    carried_out.close();
    let _ = timeout(LEAVES_WITHIN, carried_out.wait()).await;
    let left = counter.shown().borrow().clone();
    let _ = timeout(LEAVES_WITHIN, counter.close()).await;
    drop(closed);
    let ended = shown_on.await;
    match ended {
        Ok(Ok(())) => {
            if left.waiting + left.unresolved > 0 {
                complain(format_args!(
                    "{} sales are to be sent and {} purchases are unresolved: they are in the journal, and are seen to when the \
                     program is started again",
                    left.waiting, left.unresolved
                ));
            }
            exit::YES
        }
        Ok(Err(error)) => {
            complain(format_args!("the screen cannot be shown: {error}"));
            exit::USAGE
        }
        Err(error) => {
            complain(format_args!("the screen broke down: {error}"));
            exit::FAILED
        }
    }
}

fn signals() -> std::io::Result<[Signal; 3]> {
    Ok([signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?])
}

async fn stopped([terminate, hang_up, interrupt]: &mut [Signal; 3]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl Desk {
    fn answer(&self, ask: Ask, answer: Answer) {
        self.teller.tell(Told::Answer { ask, answer });
    }

    async fn carry_out(self, wish: Wish, clock: SystemClock) {
        match wish {
            Wish::Check { ask, purchase } => {
                let answer = self.check(said::sale(self.programme, &purchase)).await;
                self.answer(ask, answer);
            }
            Wish::Sell { ask, purchase } => {
                let answer = self.sell(said::sale(self.programme, &purchase)).await;
                self.tell_rows(clock.now(), false);
                self.answer(ask, answer);
            }
            Wish::SellOffline { ask, purchase } => {
                let answer = match self.counter.sell_offline(said::sale(self.programme, &purchase)).await {
                    Ok(row) => Answer::WrittenDown { row },
                    Err(NotSold::Stopped) => Answer::Unasked { offline: Offline::Stop, own: Vec::new() },
                    // It has come back while the clerk decided.
                    Err(NotSold::NotAway) => self.sell(said::sale(self.programme, &purchase)).await,
                    Err(NotSold::NotWritten(error)) => Answer::Failed(said::journal(&error)),
                };
                self.tell_rows(clock.now(), false);
                self.answer(ask, answer);
            }
            Wish::Resolve { ask, row } => {
                let answer = self.resolve(row, clock).await;
                self.answer(ask, answer);
            }
            Wish::HandedOver { ask, row } => {
                let answer = match self.counter.hand_over(row).await {
                    Ok(()) => {
                        self.known().open.remove(&row);
                        Answer::WrittenDown { row }
                    }
                    Err(NotHandedOver::NotAsked(_)) => Answer::Failed(Failure::NotOurs),
                    // What is wrong with the journal is shown by itself; the goods are gone, and the question stays open.
                    Err(NotHandedOver::Known(_) | NotHandedOver::Stopped | NotHandedOver::NotWritten(_)) => {
                        self.stands(row, clock)
                    }
                };
                self.tell_rows(clock.now(), false);
                self.answer(ask, answer);
            }
            Wish::NotHandedOver { row } => {
                let taken = self.counter.void(row).await;
                match taken {
                    // Where there is no sale, nothing is left to be done.
                    Ok(_) | Err(NotTaken::NotSold(_)) => {
                        self.known().open.remove(&row);
                    }
                    Err(error) => self.teller.tell(Told::NotVoided { row, why: said::not_taken(&error) }),
                }
                self.tell_rows(clock.now(), false);
            }
            Wish::Void { row, number } => self.take_back(row, number, clock).await,
            // The loop has seen to it.
            Wish::Quit => {}
        }
    }

    async fn take_back(&self, row: RequestId, number: Option<Number>, clock: SystemClock) {
        let taken = match (self.counter.void(row).await, number) {
            (Err(NotTaken::NumberGone), Some(number)) => {
                self.counter.void_by_number(row, Buyer::Resident(number.as_str().to_owned())).await
            }
            (taken, _) => taken,
        };
        self.tell_rows(clock.now(), false);
        if let Err(error) = taken {
            self.teller.tell(Told::NotVoided { row, why: said::not_taken(&error) });
        }
    }

    async fn check(&self, sale: Sale) -> Answer {
        match self.counter.check(&sale).await {
            Checked::Answered(result) => said::looked_up(*result, &self.local),
            Checked::Offline(offline) => self.unasked(&offline),
            Checked::NotYet(_) => Answer::Failed(Failure::NoSession),
            Checked::Failed(error) => Answer::Failed(said::failure(&error)),
        }
    }

    async fn sell(&self, sale: Sale) -> Answer {
        match self.counter.sell(sale).await {
            Ok(answer) => self.sold(answer),
            Err(error) => Answer::Failed(said::journal(&error)),
        }
    }

    fn sold(&self, answer: counter::Answer) -> Answer {
        match answer {
            counter::Answer::Approved(approved) => {
                let standing = said::standing(approved.standing, approved.echo.as_ref(), &self.local);
                Answer::Sold { row: approved.id, standing }
            }
            counter::Answer::Refused(refused) => Answer::Refused {
                reasons: refused.reasons.into_iter().map(said::reason).collect(),
                standing: said::standing(refused.standing, refused.echo.as_ref(), &self.local),
            },
            counter::Answer::NotRequired { why, .. } => Answer::NotRequired { why },
            counter::Answer::Offline(offline) => self.unasked(&offline),
            counter::Answer::Unknown { id, offline } => {
                self.known().open.insert(id);
                Answer::Unknown { row: id, offline: said::offline(offline.rule) }
            }
            counter::Answer::NotYet(_) => Answer::Failed(Failure::NoSession),
            counter::Answer::Failed(error) => Answer::Failed(said::failure(&error)),
        }
    }

    fn unasked(&self, offline: &counter::Offline) -> Answer {
        let own = offline.earlier.iter().map(|sale| self.local.earlier(sale)).collect();
        Answer::Unasked { offline: said::offline(offline.rule), own }
    }

    /// What a programme says of sales while nobody can be asked; there are none, where nobody has said anything.
    fn rule(&self, programme: ProgrammeId) -> Offline {
        said::offline(self.counter.when_away(programme))
    }

    /// How a purchase stands whose outcome is or was unknown.
    fn stands(&self, row: RequestId, clock: SystemClock) -> Answer {
        let rows = self.counter.sales(clock.now().minus(LOOKS_BACK));
        let sale = rows.into_iter().find(|sale| sale.id == row);
        sale.map_or(Answer::Failed(Failure::NotOurs), |sale| said::known(row, &sale.stands, self.rule(sale.programme)))
    }

    /// The counter asks by itself, as soon as it can.
    async fn resolve(&self, row: RequestId, clock: SystemClock) -> Answer {
        let mut shown = self.counter.shown();
        let settled = async {
            loop {
                shown.borrow_and_update();
                let answer = self.stands(row, clock);
                if !matches!(answer, Answer::Unknown { .. }) {
                    return answer;
                }
                if shown.changed().await.is_err() {
                    return Answer::Failed(Failure::Unreachable);
                }
            }
        };
        timeout(ASKS_AGAIN_FOR, settled).await.unwrap_or_else(|_| self.stands(row, clock))
    }

    /// The line, the sheets and the journal; what has become of sales.
    fn tell_shown(&self, shown: &counter::Shown, now: Timestamp, was_broken: &mut bool) {
        let offline = {
            let mut known = self.known();
            let is_away = shown.line == Line::Away;
            known.away = is_away.then(|| known.away.unwrap_or_else(|| self.local.moment(now)));
            known.away.map(|since| Door::Away { since, offline: self.rule(self.programme) })
        };
        self.teller.tell(Told::Door(offline.unwrap_or_else(|| said::door(&shown.line))));
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.teller.tell(Told::Sheets { waiting: count(shown.waiting), unresolved: count(shown.unresolved) });
        match &shown.trouble {
            Some(why) => self.teller.tell(Told::Journal(Journal::Broken { why: why.clone() })),
            None if *was_broken => self.teller.tell(Told::Journal(Journal::Sound)),
            None => {}
        }
        *was_broken = shown.trouble.is_some();
        self.tell_rows(now, false);
        let mut known = self.known();
        if shown.waiting == 0 && known.uploaded != Uploaded::default() {
            self.teller.tell(Told::Uploaded(std::mem::take(&mut known.uploaded)));
        }
    }

    /// What the screen does not know yet of today's sales and of those that are not done with. A purchase that is under way is none yet:
    /// one of which nobody knows is told when that is the answer, or `at_start`. What is no sale need not be known, unless it was unknown.
    fn tell_rows(&self, now: Timestamp, at_start: bool) {
        let mut known = self.known();
        for sale in self.counter.sales(now.minus(LOOKS_BACK)) {
            let before = known.rows.get(&sale.id).copied();
            let is_recent = sale.stands == Stands::Unknown || now.since(sale.at) < ASKS_FOR_GOODS;
            if at_start && is_recent && said::was_unknown(&sale.stands) {
                known.open.insert(sale.id);
            }
            let is_open = known.open.contains(&sale.id);
            let state = said::state(&sale.stands, is_open);
            let is_none_yet = before.is_none() && !is_open && matches!(state, RowState::Unknown | RowState::NotSold);
            if before == Some(state) || is_none_yet {
                continue;
            }
            if before == Some(RowState::Waiting) {
                said::count(&mut known.uploaded, state);
            }
            known.rows.insert(sale.id, state);
            let (at, number) = (self.local.moment(sale.at), screen::Masked::of(&sale.masked));
            self.teller.tell(Told::Row(Row { id: sale.id, at, number, quantity: sale.quantity, state }));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
