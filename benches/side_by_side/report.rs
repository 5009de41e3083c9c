//! The figures as a page and as one JSON object.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::audited::{Audited, Pair};
use super::durability::{self, Cost, Durability, Promise, Spread};
use super::grown::Grown;
use super::machine::Machine;
use super::measure::{Measured, quantile};
use super::offered::Offered;
use super::options::{Options, ROUNDS, System};
use super::overload::Overload;
use super::stormed::Stormed;
use super::telemetry::Telemetry;
use super::uploaded::Uploaded;
use crate::Failure;

/// Everything that was measured.
pub struct Report {
    machine: Machine,
    options: Options,
    measured: BTreeMap<System, Measured>,
    notes: Vec<String>,
    failures: Vec<String>,
    pub open: Option<Open>,
    pub overload: Option<Overload>,
    pub durability: Option<Durability>,
    pub telemetry: Option<Telemetry>,
    pub audited: Option<Audited>,
    pub stormed: Option<Stormed>,
    pub uploaded: Option<Uploaded>,
    pub grown: Option<Grown>,
}

/// Purchases that came at a rate of their own.
pub struct Open {
    /// Calls a second that were offered.
    pub rate: f64,
    pub answered: Offered,
}

/// A ratio of two figures, and what it is to reach.
struct Ratio {
    name: &'static str,
    label: &'static str,
    goal: Goal,
    value: Option<f64>,
}

enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    pub fn new(machine: Machine, options: &Options) -> Self {
        let (options, measured, mut notes) = (options.clone(), BTreeMap::new(), Vec::new());
        if machine.syncs_for_nothing() {
            notes.push(
                "the stores' files are in memory, where a sync costs nothing: set TMPDIR to a place on a disk".into(),
            );
        }
        Self {
            machine,
            options,
            measured,
            notes,
            failures: Vec::new(),
            open: None,
            overload: None,
            durability: None,
            telemetry: None,
            audited: None,
            stormed: None,
            uploaded: None,
            grown: None,
        }
    }

    /// A round of a system.
    pub fn add(&mut self, system: System, round: Measured) {
        match self.measured.get_mut(&system) {
            Some(measured) => measured.add(round),
            None => drop(self.measured.insert(system, round)),
        }
    }

    /// What a reader of the figures should know of how they were had.
    pub fn note(&mut self, notes: &[String]) {
        self.notes.extend_from_slice(notes);
    }

    /// Forgets a system that failed in a later round.
    pub fn leave_out(&mut self, system: System) {
        self.measured.remove(&system);
    }

    /// What was measured did not work.
    pub fn failed(&mut self, what: &str, failure: &Failure) {
        eprintln!("{what}: {failure}");
        self.failures.push(format!("{what} failed: {failure}"));
    }

    /// Whether everything worked that was asked for.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// Decisions a second of a system; `None` if it was not measured.
    pub fn per_second(&self, system: System) -> Option<f64> {
        Some(self.measured.get(&system)?.per_second())
    }

    fn ratios(&self) -> Vec<Ratio> {
        let throughput = |a, b| Some(self.per_second(a)? / self.per_second(b)?);
        let server = |system| self.measured.get(&system).and_then(|measured| Some(measured.each(measured.server?)));
        let server_cpu = || Some(server(System::Unary)? / server(System::Echo)?);
        let open = |of| self.open.as_ref().and_then(|open| quantile(&open.answered.approved, of));
        let shed = self.overload.as_ref().and_then(|overload| quantile(&overload.answered.shed, 0.99));
        let ratio = |name, label, goal, value| Ratio { name, label, goal, value };
        vec![
            ratio("unary_over_echo", "unary ÷ echo", Goal::AtLeast(0.5), throughput(System::Unary, System::Echo)),
            ratio("server_cpu_unary_over_echo", "server CPU, unary ÷ echo", Goal::AtMost(1.4), server_cpu()),
            ratio(
                "stream_over_raw",
                "stream ÷ raw claim.lua",
                Goal::AtLeast(0.8),
                throughput(System::Stream, System::Raw),
            ),
            ratio(
                "unary_over_postgres",
                "unary ÷ PostgreSQL",
                Goal::AtLeast(3.0),
                throughput(System::Unary, System::Postgres),
            ),
            ratio(
                "stream_over_postgres",
                "stream ÷ PostgreSQL",
                Goal::AtLeast(8.0),
                throughput(System::Stream, System::Postgres),
            ),
            ratio(
                "embedded_over_postgres",
                "embedded ÷ PostgreSQL",
                Goal::AtLeast(1.0),
                throughput(System::Embedded, System::Postgres),
            ),
            ratio("open_p99_ms", "open loop at 70 %: p99, ms", Goal::AtMost(5.0), open(0.99)),
            ratio("open_p999_ms", "open loop at 70 %: p99.9, ms", Goal::AtMost(25.0), open(0.999)),
            ratio(
                "goodput_over_peak",
                "overload: goodput ÷ peak",
                Goal::AtLeast(0.9),
                self.overload.as_ref().map(Overload::goodput_over_peak),
            ),
            ratio("shed_p99_ms", "overload: p99 of refusals, ms", Goal::AtMost(5.0), shed),
            ratio(
                "audited_unary",
                "audit log, Purchase: with ÷ without",
                Goal::AtLeast(0.95),
                self.audited.as_ref().and_then(|audited| audited.median("unary")),
            ),
            ratio(
                "audited_stream",
                "audit log, PurchaseStream: with ÷ without",
                Goal::AtLeast(0.95),
                self.audited.as_ref().and_then(|audited| audited.median("stream")),
            ),
            ratio(
                "many_over_few",
                "10,000,000 ÷ 10,000 stored",
                Goal::AtLeast(0.9),
                self.grown.as_ref().map(Grown::ratio),
            ),
        ]
    }

    /// Everything as one object.
    pub fn json(&self) -> Value {
        let mut object = Map::new();
        for ratio in self.ratios() {
            object.insert(ratio.name.into(), json!(ratio.value.map(rounded)));
        }
        let systems = self.measured.iter().map(|(system, measured)| (system.name().to_owned(), figures(measured)));
        object.insert("systems".into(), Value::Object(systems.collect()));
        object.insert(
            "machine".into(),
            json!({
                "cores": self.machine.cores,
                "model": self.machine.model,
                "kernel": self.machine.kernel,
                "sync_us": rounded(self.machine.sync.as_secs_f64() * 1e6),
            }),
        );
        object.insert(
            "settings".into(),
            json!({
                "seconds": self.options.seconds,
                "rounds": ROUNDS,
                "connections": self.options.connections,
                "in_flight": self.options.in_flight_each() * self.options.connections,
                "on_stream": self.options.on_stream,
            }),
        );
        object.insert("notes".into(), json!(self.notes));
        object.insert("failures".into(), json!(self.failures));
        if let Some(Open { rate, answered }) = &self.open {
            object.insert("open".into(), offered(*rate, answered));
        }
        if let Some(Overload { group, peak, offered: rate, answered }) = &self.overload {
            object.insert(
                "overload".into(),
                json!({ "group": group, "peak": figures(peak), "answered": offered(*rate, answered) }),
            );
        }
        if let Some(durability) = &self.durability {
            object.insert("durability".into(), costs(durability.promises(), durability.costs()));
        }
        if let Some(telemetry) = &self.telemetry {
            object.insert("telemetry".into(), costs(telemetry.promises(), telemetry.costs()));
        }
        if let Some(audited) = &self.audited {
            let sum = |rounds: &[Measured]| Measured::sum(rounds).as_ref().map(figures);
            let pairs = audited.pairs().iter().map(|pair| {
                let throughput = pair.cost().as_ref().map(spread);
                let of_pair =
                    json!({ "throughput": throughput, "without": sum(&pair.without), "with": sum(&pair.with) });
                (pair.way.name().to_owned(), of_pair)
            });
            object.insert("audited".into(), Value::Object(pairs.collect()));
        }
        if let Some(Stormed { within, apart, alone, largest, resident }) = &self.stormed {
            let p99 = json!({ "within": spread(within), "apart": spread(apart) });
            object.insert(
                "feed".into(),
                json!({
                    "sale_p99": p99,
                    "alone_per_second": rounded(*alone),
                    "largest_bytes": largest,
                    "resident_mib": rounded(*resident),
                }),
            );
        }
        if let Some(Uploaded { beside, meanwhile, sheets, verdicts: (verdicts, took) }) = &self.uploaded {
            object.insert(
                "journal".into(),
                json!({
                    "sale_p99": spread(beside),
                    "meanwhile_per_second": rounded(*meanwhile),
                    "sheets": sheets,
                    "verdicts": verdicts,
                    "seconds": rounded(took.as_secs_f64()),
                }),
            );
        }
        if let Some(Grown { few, many }) = &self.grown {
            object.insert("grown".into(), json!({ "few": figures(few), "many": figures(many) }));
        }
        Value::Object(object)
    }
}

/// What became of calls that came at a rate of their own.
fn offered(rate: f64, answered: &Offered) -> Value {
    let of = |histogram: &_, at| quantile(histogram, at).map(rounded);
    json!({
        "offered_per_second": rounded(rate),
        "approved_per_second": rounded(answered.goodput()),
        "shed_per_second": rounded(answered.shed_per_second()),
        "p50_ms": of(&answered.approved, 0.5),
        "p99_ms": of(&answered.approved, 0.99),
        "p999_ms": of(&answered.approved, 0.999),
        "shed_p50_ms": of(&answered.shed, 0.5),
        "shed_p99_ms": of(&answered.shed, 0.99),
    })
}

fn spread(Spread { least, median, most }: &Spread) -> Value {
    json!({ "least": rounded(*least), "median": rounded(*median), "most": rounded(*most) })
}

/// What promises cost, or being watched, and what was measured of each.
fn costs(promises: &[Promise], costs: Vec<Cost>) -> Value {
    let ratios = costs.into_iter().map(|Cost { name, throughput, p50, p99, .. }| {
        let (throughput, p50, p99) = (spread(&throughput), spread(&p50), spread(&p99));
        (name.to_owned(), json!({ "throughput": throughput, "alone_p50": p50, "alone_p99": p99 }))
    });
    let sum = |rounds: &[Measured]| Measured::sum(rounds).as_ref().map(figures);
    let promises = promises.iter().map(|Promise { name, busy, alone, .. }| {
        ((*name).to_owned(), json!({ "busy": sum(busy), "alone": sum(alone) }))
    });
    Value::Object(ratios.chain(promises).collect())
}

/// One system's figures.
fn figures(measured: &Measured) -> Value {
    let each = |cpu: Duration| rounded(measured.each(cpu));
    let at = |quantile| measured.latencies.quantile(quantile).map(rounded);
    json!({
        "decisions": measured.decisions,
        "seconds": rounded(measured.span.as_secs_f64()),
        "per_second": rounded(measured.per_second()),
        "per_second_of_rounds": measured.rounds.iter().copied().map(rounded).collect::<Vec<_>>(),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "p999_ms": at(0.999),
        "client_cpu_us": each(measured.client),
        "server_cpu_us": measured.server.map(each),
        "store_cpu_us": measured.store.map(each),
    })
}

/// Three digits behind the point.
fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

/// What the table calls a system.
fn label(system: System) -> &'static str {
    match system {
        System::Echo => "echo, no check",
        System::Unary => "Purchase on Redis",
        System::Stream => "PurchaseStream on Redis",
        System::Raw => "raw claim.lua, pipelined",
        System::Postgres => "PostgreSQL function",
        System::Embedded => "Purchase, embedded store",
    }
}

fn or_dash(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or("-".into(), |figure| format!("{figure:.decimals$}"))
}

/// One system's line of the table.
fn line(f: &mut fmt::Formatter<'_>, label: &str, measured: &Measured) -> fmt::Result {
    let at = |quantile| or_dash(measured.latencies.quantile(quantile), 2);
    let each = |cpu: Option<Duration>| or_dash(cpu.map(|cpu| measured.each(cpu)), 1);
    let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
    let (client, server, store) = (each(Some(measured.client)), each(measured.server), each(measured.store));
    let per_second = measured.per_second();
    writeln!(f, "{label:26}{per_second:>11.0}{p50:>9}{p99:>9}{p999:>9}{client:>17}{server:>8}{store:>8}")
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, median, most } = self;
        write!(f, "{median:.2} ({least:.2} to {most:.2})")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, model, kernel, sync } = &self.machine;
        writeln!(
            f,
            "{cores} cores of {model}, Linux {kernel}, a synced write takes {:.2} ms",
            sync.as_secs_f64() * 1e3
        )?;
        let Options { seconds, connections, on_stream, .. } = &self.options;
        let in_flight = self.options.in_flight_each() * connections;
        writeln!(
            f,
            "{seconds} s each in {ROUNDS} rounds in turns, {connections} connections, {in_flight} calls in flight, {on_stream} on each stream\n"
        )?;
        writeln!(
            f,
            "{:26}{:>11}{:>9}{:>9}{:>9}   CPU µs: client  server   store",
            "", "decisions/s", "p50 ms", "p99 ms", "p99.9 ms"
        )?;
        for (system, measured) in &self.measured {
            line(f, label(*system), measured)?;
        }
        if let Some(Open { rate, answered }) = &self.open {
            let quantile = |at| or_dash(quantile(&answered.approved, at), 2);
            let (label, p50, p99, p999) = ("Purchase, open loop", quantile(0.5), quantile(0.99), quantile(0.999));
            writeln!(
                f,
                "{label:26}{:>11.0}{p50:>9}{p99:>9}{p999:>9}   {rate:.0} a second offered",
                answered.goodput()
            )?;
        }
        if let Some(Overload { peak, offered, answered, .. }) = &self.overload {
            let (label, goodput, shed) = ("Purchase, overload", answered.goodput(), answered.shed_per_second());
            let quantile = |at| or_dash(quantile(&answered.approved, at), 2);
            let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
            writeln!(
                f,
                "{label:26}{goodput:>11.0}{p50:>9}{p99:>9}{p999:>9}   {offered:.0} offered, peak {:.0}, {shed:.0} turned away",
                peak.per_second()
            )?;
        }
        if let Some(Grown { few, many }) = &self.grown {
            line(f, "Purchase, 10,000 stored", few)?;
            line(f, "Purchase, 10,000,000 stored", many)?;
        }
        let promises = self.durability.iter().flat_map(Durability::promises);
        for Promise { label, busy, alone, .. } in promises.chain(self.telemetry.iter().flat_map(Telemetry::promises)) {
            for (label, rounds) in [(*label, busy), ("  one call at a time", alone)] {
                if let Some(measured) = Measured::sum(rounds) {
                    line(f, label, &measured)?;
                }
            }
        }
        for Pair { way, without, with } in self.audited.iter().flat_map(Audited::pairs) {
            for (kept, rounds) in [("not audited", without), ("audited", with)] {
                if let Some(measured) = Measured::sum(rounds) {
                    line(f, &format!("{}, {kept}", way.label()), &measured)?;
                }
            }
        }
        writeln!(f)?;
        for Ratio { label, goal, value, .. } in self.ratios() {
            let Some(value) = value else { continue };
            let (reached, goal) = match goal {
                Goal::AtLeast(bound) => (value >= bound, format!("at least {bound}")),
                Goal::AtMost(bound) => (value <= bound, format!("at most {bound}")),
            };
            writeln!(f, "{label:30}{value:>8.2}   {goal}{}", if reached { "" } else { ": missed" })?;
        }
        let costs = self.durability.iter().flat_map(Durability::costs);
        let costs: Vec<Cost> = costs.chain(self.telemetry.iter().flat_map(Telemetry::costs)).collect();
        if !costs.is_empty() {
            let head = format!("\nmedian of {} pairs (least to most)", durability::ROUNDS);
            writeln!(f, "{head:37}{:>20}{:>26}{:>20}", "decisions/s", "one call at a time: p50", "p99")?;
            for Cost { label, throughput, p50, p99, .. } in costs {
                let [throughput, p50, p99] = [throughput, p50, p99].map(|spread| spread.to_string());
                writeln!(f, "{label:36}{throughput:>20}{p50:>26}{p99:>20}")?;
            }
        }
        if let Some(audited) = &self.audited {
            writeln!(f, "\nwith an audit log ÷ without, median of {} pairs (least to most)", durability::ROUNDS)?;
            for pair in audited.pairs() {
                let cost = pair.cost().map(|cost| cost.to_string()).unwrap_or_default();
                writeln!(f, "{:36}{cost:>20}", pair.way.label())?;
            }
        }
        if let Some(Stormed { within, apart, alone, largest, resident }) = &self.stormed {
            writeln!(
                f,
                "\nsale p99 beside 2,700 readers of stock a second ÷ in quiet, median of ten pairs (least to most)"
            )?;
            for (label, spread) in [("the feed in the service", within), ("the feed in a process of its own", apart)] {
                let spread = spread.to_string();
                writeln!(f, "{label:36}{spread:>20}   at most 1.1")?;
            }
            writeln!(f, "the feed alone answers {alone:.0} a second, of at most {largest} bytes   at least 20000")?;
            writeln!(f, "and takes {resident:.0} MiB with 24,000 sites and 200 who watch   at most 150")?;
        }
        if let Some(Uploaded { beside, meanwhile, sheets, verdicts: (verdicts, took) }) = &self.uploaded {
            writeln!(f, "\nsale p99 beside uploads of paper ÷ in quiet, median of ten pairs (least to most)")?;
            let label = format!("{meanwhile:.0} late sales a second");
            writeln!(f, "{label:36}{:>20}   at most 1.1", beside.to_string())?;
            let (seconds, minutes) = (took.as_secs_f64(), took.as_secs_f64() / 60.0);
            let rate = *verdicts as f64 / seconds;
            writeln!(
                f,
                "{sheets} sheets, each three times, a fifth sold online too: {verdicts} verdicts in {minutes:.1} min, {rate:.0} a second;"
            )?;
            writeln!(f, "the ledger is their union")?;
        }
        for (at, line) in self.notes.iter().chain(&self.failures).enumerate() {
            writeln!(f, "{}{line}", if at == 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}
