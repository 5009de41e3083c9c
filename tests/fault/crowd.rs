//! The load under which faults strike: counters that sell without pause, take down every call, and settle what nobody could say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rationd::ids::{RequestId, TerminalId};
use rationd::load::chance::Chance;
use rationd::load::counter::{Counter, Matter};
use rationd::load::history::{Asked, Outcome, Verb};
use rationd::load::population::People;
use rationd::load::scenario::Scenario;
use rationd::load::sites::Places;
use rationd::load::workload::{Course, Errand, Workload};
use rationd::terminal::{Connection, Opened, Terminal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Who sells at the same time: that many calls are under way when a fault strikes, less those who are between two calls.
pub const CALLERS: u64 = 208;
/// From an answer to the next purchase of the same caller, milliseconds.
const PACE_MS: (u64, u64) = (200, 600);
/// The time over which goodput is measured.
pub const SPAN: Duration = Duration::from_millis(500);
/// How long what is unknown may stay so after the last fault.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many questions are asked at the same time in the end.
const AT_ONCE: usize = 64;
/// Of so many purchases of people who come again and again, the next are by others: nobody's record grows for ever.
const HOT_FOR: u64 = 2_000;
/// Numbers of people who come again and again begin here, beyond all others.
const HOT_FROM: u64 = 20_000_000;

/// Who buys what: contention on purpose, and enough people for the longest run. No hold runs out before the run is over.
pub fn scenario(seed: u64) -> Scenario {
    let mut scenario = Scenario::built_in("canonical").unwrap().unwrap();
    scenario.seed = seed;
    (scenario.sites.count, scenario.sites.terminals) = (8, 3);
    scenario.people.count = 5_000_000;
    scenario.holds.length = Duration::from_secs(50 * 60);
    (scenario.holds.confirmed, scenario.holds.late) = (0.65, 0.0);
    scenario
}

/// The purchases that follow from a seed.
pub fn workload(seed: u64) -> Workload {
    let scenario = scenario(seed);
    let sites = usize::try_from(scenario.sites.count).unwrap();
    Workload::new(&scenario, sites)
}

/// Counters with their callers at work.
pub struct Crowd {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
    keepers: JoinSet<()>,
}

/// The calls of a crowd, for whoever strikes.
#[derive(Clone)]
pub struct Calls(Arc<Shared>);

impl Calls {
    /// Has everybody who is between two calls make the next one now, and returns when so many calls are under way.
    pub async fn rush(&self, least: usize) -> usize {
        let begun = Instant::now();
        loop {
            self.0.rush.send_modify(|rush| *rush += 1);
            for _ in 0..200 {
                tokio::task::yield_now().await;
                let calls = self.under_way();
                if calls >= least {
                    return calls;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "{} calls under way, {least} are needed", self.under_way());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn under_way(&self) -> usize {
        self.0.under_way.load(Ordering::SeqCst)
    }
}

struct Shared {
    seed: u64,
    scenario: Scenario,
    workload: Workload,
    people: People,
    /// By site.
    counters: Vec<Vec<Arc<Counter>>>,
    begun: Instant,
    history: Mutex<Vec<Asked>>,
    under_way: AtomicUsize,
    /// Raised to have everybody who is between two calls make the next one at once.
    rush: watch::Sender<u64>,
    /// No new purchases; what is open is settled.
    enough: CancellationToken,
    /// Nothing is waited for any more.
    at_once: CancellationToken,
}

/// What a crowd has to tell when it is over.
pub struct Heard {
    /// When it began, from which calls count their times.
    pub begun: Instant,
    /// Every call.
    pub history: Vec<Asked>,
    /// The ids of which nobody could say what became of them, at some time.
    pub unknown: BTreeSet<RequestId>,
    /// Those of them for which that stayed so.
    pub unresolved: BTreeSet<RequestId>,
}

impl Crowd {
    /// Opens the counters of these sites at the service on this port, and begins to sell.
    pub async fn enter(port: u16, places: &Places, seed: u64) -> Self {
        let scenario = scenario(seed);
        let (mut counters, mut keepers) = (Vec::new(), JoinSet::new());
        let (enough, at_once) = (CancellationToken::new(), CancellationToken::new());
        for site in &places.sites()[..usize::try_from(scenario.sites.count).unwrap()] {
            let mut of_site = Vec::new();
            for number in 0..scenario.sites.terminals {
                let connection = Connection::open(&format!("http://127.0.0.1:{port}"), None).await.unwrap();
                let name: TerminalId = format!("t{number}").parse().unwrap();
                let terminal = Terminal::on(&connection, *site, name);
                let counter = Arc::new(Counter::new(*site, terminal.clone(), None));
                let (opened, is_open) = watch::channel(false);
                keepers.spawn(keep_session(counter.clone(), terminal, opened, at_once.clone()));
                of_site.push((counter, is_open));
            }
            counters.push(of_site);
        }
        let mut open = Vec::new();
        for of_site in counters {
            let mut ready = Vec::new();
            for (counter, mut is_open) in of_site {
                tokio::time::timeout(PATIENCE, is_open.wait_for(|open| *open)).await.expect("a session").unwrap();
                ready.push(counter);
            }
            open.push(ready);
        }
        let shared = Arc::new(Shared {
            seed,
            workload: workload(seed),
            people: People::new(seed),
            scenario,
            counters: open,
            begun: Instant::now(),
            history: Mutex::default(),
            under_way: AtomicUsize::new(0),
            rush: watch::Sender::new(0),
            enough,
            at_once,
        });
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(shared.clone().sell(caller));
        }
        Self { shared, callers, keepers }
    }

    /// Since selling began.
    pub fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// Decisions that were given in this span, a second.
    pub fn goodput(&self, from: Duration, until: Duration) -> f64 {
        let history = self.shared.history();
        // In the order of their answers, but for what a lock can change.
        let recent = history.iter().rev().take_while(|call| call.answered + SPAN > from);
        let decided = recent.filter(|call| call.answered > from && call.answered <= until && is_decided(&call.outcome));
        decided.count() as f64 / (until - from).as_secs_f64()
    }

    /// Its calls.
    pub fn calls(&self) -> Calls {
        Calls(self.shared.clone())
    }

    /// Waits until decisions come as fast as before, and says how long after `healed` that began; `None` if it does not begin in
    /// `patience`.
    pub async fn back(&self, before: f64, healed: Duration, patience: Duration) -> Option<Duration> {
        loop {
            let now = self.now();
            if now >= healed + SPAN && self.goodput(now - SPAN, now) >= 0.95 * before {
                return Some(now - SPAN - healed);
            }
            if now > healed + patience + SPAN {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the selling: what is open is settled, and everything that was ever unknown is asked about once more, by another
    /// counter of its site.
    pub async fn leave(mut self) -> Heard {
        self.shared.enough.cancel();
        let shared = self.shared.clone();
        let settled = async { while self.callers.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, settled).await.is_err() {
            self.shared.at_once.cancel();
            while self.callers.join_next().await.is_some() {}
        }
        let history = shared.history().clone();
        let unknown: BTreeSet<RequestId> =
            history.iter().filter(|call| call.outcome.is_unknown()).map(|call| call.request).collect();
        // By the call that names the quantity: those that follow a purchase do not.
        let mut open: BTreeMap<RequestId, &Asked> = BTreeMap::new();
        for call in history.iter().filter(|call| call.quantity > 0 && unknown.contains(&call.request)) {
            open.entry(call.request).or_insert(call);
        }
        // One patience for all of them: a store that stays away is to be told by the row, and soon.
        let until = tokio::time::Instant::now() + PATIENCE;
        let told = open.into_values().map(|call| async { (call.request, shared.ask_once_more(call, until).await) });
        let told: Vec<_> = futures_util::stream::iter(told).buffer_unordered(AT_ONCE).collect().await;
        let unresolved = told.into_iter().filter_map(|(request, is_told)| (!is_told).then_some(request)).collect();
        self.shared.at_once.cancel();
        self.keepers.shutdown().await;
        Heard { begun: shared.begun, history: std::mem::take(&mut *shared.history()), unknown, unresolved }
    }
}

/// Whether a call was given a decision, yes or no.
pub fn is_decided(outcome: &Outcome) -> bool {
    !outcome.is_unknown() && !matches!(outcome, Outcome::NotExecuted(_))
}

/// Keeps a counter's session, as a terminal does: it goes on selling with the one it had until it has another.
async fn keep_session(counter: Arc<Counter>, terminal: Terminal, opened: watch::Sender<bool>, over: CancellationToken) {
    let keeping = async {
        let mut pause = Duration::ZERO;
        loop {
            tokio::time::sleep(pause).await;
            pause = Duration::from_millis(250);
            let asked = Instant::now();
            if let Ok(Opened::Admitted(mut session)) = terminal.open_session().await {
                counter.admitted(&session, asked.elapsed());
                opened.send_replace(true);
                // Whatever comes after the admission is the end.
                let _ = session.events.message().await;
            }
        }
    };
    let _: Option<()> = over.run_until_cancelled(keeping).await;
}

impl Shared {
    /// The history is whole whenever the lock is free.
    fn history(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One caller: every so many-th purchase of the plan.
    async fn sell(self: Arc<Self>, caller: u64) {
        let mut chance = Chance::of(self.seed, "callers", caller);
        let mut rush = self.rush.subscribe();
        let mut ordinal = caller;
        loop {
            let pause = PACE_MS.0 + chance.below(PACE_MS.1 - PACE_MS.0);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
                _ = rush.changed() => {}
                () = self.enough.cancelled() => return,
            }
            for (nth, errand) in (0..).zip(self.workload.errands(ordinal)) {
                self.errand(errand, ordinal, nth, &mut chance).await;
            }
            ordinal += CALLERS;
        }
    }

    /// One person at one counter, with everything that follows, until it is settled.
    async fn errand(&self, errand: Errand, ordinal: u64, nth: u64, chance: &mut Chance) {
        let hot = self.scenario.people.hot;
        let buyer = if errand.buyer < hot { HOT_FROM + ordinal / HOT_FOR * hot + errand.buyer } else { errand.buyer };
        let counters = &self.counters[errand.site];
        let counter = &counters[usize::try_from(errand.terminal).unwrap()];
        let mut ids = Chance::of(self.seed, "ids", ordinal * 2 + nth);
        let bytes = (u128::from(ids.bits()) << 64 | u128::from(ids.bits())).to_be_bytes();
        let matter = self.matter(RequestId::from_bytes(bytes).unwrap(), buyer, errand.quantity);
        let verb = if matches!(errand.course, Course::Sale | Course::Voided(_)) { Verb::Purchase } else { Verb::Hold };
        let again = async {
            if let Some(gap) = errand.again {
                tokio::time::sleep(gap).await;
                self.ask(counter, verb, &matter, buyer).await;
            }
        };
        let (first, ()) = tokio::join!(self.ask(counter, verb, &matter, buyer), again);
        let mut last = (verb, first);
        if last.1.is_unknown() {
            last.1 = self.settle(counter, verb, &matter, buyer, chance).await;
        }
        let follows = match (&errand.course, &last.1) {
            (Course::Voided(_), Outcome::Approved { .. }) => Some(Verb::Void),
            (Course::Confirmed(_), Outcome::Held { .. }) => Some(Verb::Confirm),
            (Course::Released(_), Outcome::Held { .. }) => Some(Verb::Release),
            _ => None,
        };
        if let Some(verb) = follows {
            last = (verb, self.ask(counter, verb, &matter, buyer).await);
            if last.1.is_unknown() {
                self.settle(counter, verb, &matter, buyer, chance).await;
            }
        } else if errand.resolved {
            self.ask(counter, Verb::Resolve, &matter, buyer).await;
        }
    }

    fn matter(&self, request: RequestId, buyer: u64, quantity: u32) -> Matter {
        Matter {
            programme: self.scenario.carried().id(),
            request,
            number: self.people.number(buyer),
            quantity,
            hold_for: self.scenario.holds.length,
        }
    }

    /// Finds out what became of a call without an answer: asks, or makes the call again under the same id, until it is told.
    /// What it is told was never recorded is sent once more, late, as a copy may come that was under way for long.
    async fn settle(&self, counter: &Counter, verb: Verb, matter: &Matter, buyer: u64, chance: &mut Chance) -> Outcome {
        let by = if chance.happens(0.5) { Verb::Resolve } else { verb };
        loop {
            tokio::time::sleep(Duration::from_millis(100 + chance.below(300))).await;
            let outcome = self.ask(counter, by, matter, buyer).await;
            if outcome == Outcome::NotRecorded && matches!(verb, Verb::Purchase | Verb::Hold) {
                return self.ask(counter, verb, matter, buyer).await;
            }
            if is_decided(&outcome) || is_closed(&outcome) || self.at_once.is_cancelled() {
                return outcome;
            }
        }
    }

    /// Whether another counter of the site is told until then what became of this id.
    async fn ask_once_more(&self, call: &Asked, until: tokio::time::Instant) -> bool {
        let mut of_site = self.counters.iter().flatten().filter(|counter| counter.site() == call.site);
        let counter = of_site.next_back().unwrap();
        let matter = self.matter(call.request, call.buyer, call.quantity);
        let told = async {
            while !is_decided(&self.ask(counter, Verb::Resolve, &matter, call.buyer).await) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout_at(until, told).await.is_ok()
    }

    /// Makes one call and takes it down.
    async fn ask(&self, counter: &Counter, verb: Verb, matter: &Matter, buyer: u64) -> Outcome {
        let sent = self.begun.elapsed();
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let (outcome, replayed) = tokio::select! {
            answer = counter.ask(verb, matter) => answer,
            () = self.at_once.cancelled() => (Outcome::Unknown("nobody waited for it any more".into()), false),
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let answered = self.begun.elapsed();
        let quantity = if matches!(verb, Verb::Purchase | Verb::Hold) { matter.quantity } else { 0 };
        self.history().push(Asked {
            request: matter.request,
            buyer,
            site: counter.site(),
            verb,
            quantity,
            intended: sent,
            sent,
            answered,
            replayed,
            outcome: outcome.clone(),
        });
        outcome
    }
}

/// Whether the ledger has said that it was told before that this id is over.
fn is_closed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::NotExecuted(reason) if reason == "REQUEST_ID_CLOSED")
}
