//! A row of the table: a fault struck again and again under load, and what that cost.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rationd::load::audit::{Audit, CaseKind, audit};
use rationd::load::chance::Chance;
use rationd::load::history::{Asked, Outcome};
use rationd::load::programme::Carried;
use serde::Serialize;

use super::crowd::{Crowd, Heard, is_decided, workload};
use super::line::Kept;
use super::linear;
use super::scene::{Scene, Slow, UNDER_WAY};
use super::seeds::{Plan, Settings};

/// Goodput is back within this time of every fault's end (`G28`).
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// The gap at a failover that is aimed at (`G23`). The Sentinels draw when they begin, and a row sees a draw or two of it: one
/// that is longer is told.
const AIMED_AT: Duration = Duration::from_secs(5);
/// One that is longer than this fails the row.
const TAKEN_OVER: Duration = Duration::from_secs(15);
/// How long each step of a row may take, a fault among them: its own bounds are shorter.
const STEP_WITHIN: Duration = Duration::from_secs(120);
/// How long the load runs before the first fault; goodput is what it was in the second half.
const QUIET: Duration = Duration::from_millis(1_000);

/// What is expected of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// All that is promised holds.
    Kept,
    /// A control: acknowledged sales must be seen to be lost.
    Lost,
}

/// What a fault is called, what it is in the fault matrix, and how often it strikes.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name, and where its plan's choices come from.
    pub name: &'static str,
    /// Its numbers in the fault matrix.
    pub matrix: &'static str,
    /// Where sales are recorded.
    pub store: &'static str,
    /// How often it strikes in the short form.
    pub short: u32,
    /// How often in the long form.
    pub long: u32,
    pub expected: Expected,
    /// Whether another server takes over, and sales go on in time.
    pub takeover: bool,
    /// The reason that counters must be given for what was not executed.
    pub given: Option<&'static str>,
}

/// What came of a row.
#[derive(Debug, Serialize)]
struct Result {
    row: &'static str,
    matrix: &'static str,
    store: &'static str,
    seed: u64,
    plan: String,
    injected: usize,
    /// The fewest calls that were under way when the fault struck.
    under_way: usize,
    calls: u64,
    acknowledged: u64,
    lost: u64,
    unknown: usize,
    resolved: usize,
    double_sales: u64,
    /// Everything else that was promised and not kept.
    other_findings: u64,
    /// Buyers whose answers were put in order by the linearizability tester.
    ordered_buyers: usize,
    /// The longest time without an acknowledged sale, seconds.
    gap_s: f64,
    /// Until goodput was back, seconds after the end of a fault, the longest; absent if it never was.
    back_s: Option<f64>,
    goodput: u64,
    /// What became of those who held seats and stood in line.
    line: Option<Kept>,
    note: &'static str,
}

/// Rows are played one after the other: each has the whole machine.
static ALONE: Mutex<()> = Mutex::new(());

/// Plays what a row is about, on a runtime of its own, when no other row is played.
pub fn alone(play: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(play);
}

/// What takes longer than its step of a row may is not waited for.
async fn in_time<T>(step: &str, does: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(STEP_WITHIN, does).await;
    done.unwrap_or_else(|_| panic!("{step} has not ended after {STEP_WITHIN:?}"))
}

impl Row {
    /// Strikes under load, as often as is asked for, and judges all that was heard against the ledger. `strike` returns when the
    /// fault is over.
    pub async fn play(self, scene: &mut Scene, mut strike: impl AsyncFnMut(&mut Scene, &mut Chance)) {
        let settings = Settings::read();
        let strikes = settings.strikes.unwrap_or(if settings.long { self.long } else { self.short });
        let Plan { pauses, mut chance } = Plan::of(settings.seed, &format!("{}, {}", self.store, self.name), strikes);
        let plan = Plan { pauses: pauses.clone(), chance: chance.clone() }.hash(&workload(settings.seed));
        println!("{}: seed {}, plan {plan}", self.name, settings.seed);

        let crowd = in_time("the crowd", Crowd::enter(scene.front.port(), &scene.places, settings.seed)).await;
        tokio::time::sleep(QUIET).await;
        let goodput = crowd.goodput(crowd.now() - QUIET / 2, crowd.now());
        let mut worst = Some(Duration::ZERO);
        scene.calls = Some(crowd.calls());
        let begun = crowd.now();
        for pause in &pauses {
            let strikes = async {
                scene.settled().await;
                tokio::time::sleep(*pause).await;
                scene.rush().await;
                strike(scene, &mut chance).await;
            };
            in_time("a fault", strikes).await;
            let back = crowd.back(goodput, crowd.now(), BACK_WITHIN).await;
            worst = worst.zip(back).map(|(worst, back)| worst.max(back));
            if let Some(line) = &mut scene.line {
                in_time("a look at the line", line.look()).await;
            }
        }
        let ended = crowd.now();
        scene.calls = None;
        let Heard { begun: origin, history, unknown, unresolved } = in_time("the crowd's leave", crowd.leave()).await;
        let found = audit(
            &history,
            &in_time("the records", scene.records()).await,
            &Carried::named("load-canonical").unwrap().rule(),
            &Default::default(),
        );
        let (ordered_buyers, unexplained) = linear::search(&history);
        let gap = longest_gap(&history, begun, ended);
        let count = |kinds: &[CaseKind]| kinds.iter().filter_map(|kind| found.found.get(kind)).sum();
        let (lost, double_sales) =
            (count(&[CaseKind::SaleLost]), count(&[CaseKind::RecordedTwice, CaseKind::AboveWindow]));
        let result = Result {
            row: self.name,
            matrix: self.matrix,
            store: self.store,
            seed: settings.seed,
            plan,
            injected: pauses.len(),
            under_way: scene.under_way,
            calls: found.calls,
            acknowledged: found.sales_acknowledged,
            lost,
            unknown: unknown.len(),
            resolved: unknown.len() - unresolved.len(),
            double_sales,
            other_findings: found.total() - lost - double_sales + unexplained.len() as u64,
            ordered_buyers,
            gap_s: gap.as_secs_f64(),
            back_s: worst.map(|worst| worst.as_secs_f64()),
            goodput: goodput as u64,
            line: scene.line.as_ref().map(|line| line.kept),
            note: match self.expected {
                Expected::Lost => "control: must lose",
                Expected::Kept if self.takeover && gap > AIMED_AT => "longer than is aimed at",
                Expected::Kept => "",
            },
        };
        let was_given =
            |reason| history.iter().any(|call| matches!(&call.outcome, Outcome::NotExecuted(given) if given == reason));
        assert!(self.given.is_none_or(was_given), "nobody was given {:?}: {}", self.given, result.line());
        for slow in &scene.slow {
            let (least, times) = (slow.least, times_of_decisions(&history, origin, slow));
            let fastest = times.iter().min().copied();
            assert!(
                least.map_or(fastest.is_none(), |least| fastest.is_some_and(|fastest| fastest >= least)),
                "{} decisions, the fastest in {fastest:?}, where {least:?} is the least: {}",
                times.len(),
                result.line()
            );
        }
        self.judge(&result, &found, &unexplained, goodput);
        // Only now: a row in the table has passed.
        result.write_down(settings.out.as_deref());
    }

    fn judge(self, result: &Result, found: &Audit, unexplained: &[u64], goodput: f64) {
        let told = || {
            format!(
                "{}\n{:?}\n{:#?}\nbuyers without an order: {unexplained:?}",
                result.line(),
                found.found,
                found.cases.iter().take(6).collect::<Vec<_>>()
            )
        };
        assert!(result.under_way >= UNDER_WAY && result.injected > 0 && goodput > 20.0, "no load: {}", told());
        assert!(result.acknowledged > 100 && result.ordered_buyers > 10, "nothing was shown: {}", told());
        assert_eq!((result.unknown, result.double_sales), (result.resolved, 0), "{}", told());
        match self.expected {
            Expected::Kept => {
                assert_eq!((result.lost, result.other_findings), (0, 0), "{}", told());
                assert!(result.back_s.is_some(), "goodput did not come back: {}", told());
                assert!(result.line.as_ref().is_none_or(Kept::is_all), "seats or places were lost: {}", told());
                let in_time = !self.takeover || result.gap_s <= TAKEN_OVER.as_secs_f64();
                assert!(in_time, "nobody took over in time: {}", told());
            }
            Expected::Lost => assert!(result.lost > 0, "the control has lost nothing: {}", told()),
        }
    }
}

/// How long each call took that was made in this time and given a decision in it.
fn times_of_decisions(history: &[Asked], origin: Instant, slow: &Slow) -> Vec<Duration> {
    let is_within = |call: &&Asked| origin + call.sent >= slow.from && origin + call.answered <= slow.until;
    let decided = history.iter().filter(is_within).filter(|call| is_decided(&call.outcome));
    decided.map(|call| call.answered - call.sent).collect()
}

/// The longest time between two acknowledged sales that follow each other, in this span.
fn longest_gap(history: &[Asked], from: Duration, until: Duration) -> Duration {
    let sales = history.iter().filter(|call| matches!(call.outcome, Outcome::Approved { .. }));
    let mut times: Vec<Duration> = sales.map(|call| call.answered.clamp(from, until)).chain([from, until]).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// The table's first line.
pub const HEADER: &str = "fault                                 matrix    injected  under way  acknowledged  lost  unknown  resolved  double  other   gap s  back s";

impl Result {
    fn line(&self) -> String {
        let back = self.back_s.map_or("never".to_owned(), |back| format!("{back:.1}"));
        let name = format!("{}, {}", self.store, self.row);
        let mut line = format!(
            "{name:<37} {:<9} {:>8}  {:>9}  {:>12}  {:>4}  {:>7}  {:>8}  {:>6}  {:>5}  {:>6.1}  {back:>6}",
            self.matrix,
            self.injected,
            self.under_way,
            self.acknowledged,
            self.lost,
            self.unknown,
            self.resolved,
            self.double_sales,
            self.other_findings,
            self.gap_s,
        );
        if let Some(kept) = &self.line {
            let _ = write!(line, "  ({kept})");
        }
        if !self.note.is_empty() {
            let _ = write!(line, "  ({})", self.note);
        }
        line
    }

    /// Prints the row, and adds it to the files of the run, if it is one of `tests/faults`.
    fn write_down(&self, out: Option<&str>) {
        println!("{HEADER}\n{}", self.line());
        let Some(out) = out else { return };
        for (file, line) in [("rows.txt", self.line()), ("rows.json", serde_json::to_string(self).unwrap())] {
            let path = std::path::Path::new(out).join(file);
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "{line}").unwrap();
        }
    }
}
