//! Whoever abuses the protocol hurts nobody but itself: it is cut off, the service does not grow, and who sells beside it goes on
//! selling. What is announced, and what README.md says of it, is what the limits are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rationd::grpc::limits;
use rationd::ids::RequestId;
use rationd::terminal::{Connection, Terminal, Tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout, timeout_at};

use super::drain::{shake_hands, shake_hands_over};
use super::service::{Service, rationd};
use super::shops::{MANY_SEATS, SATURDAY, SITES, number, sell};
use super::tls::SERVED;
use crate::support::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, HEALTH, PADDED, PING, PREFACE, PRIORITY, RST_STREAM,
    Raw, SETTINGS, StuckReader, WINDOW_UPDATE, frame, headers, read,
};

/// The bound that is promised, and what a busy machine may take for it.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
const IN_TIME: Duration = Duration::from_secs(15);
/// How much the service may grow meanwhile, in KiB.
const GROWN: u64 = 64 * 1024;
/// How long the honest are watched before anybody abuses anything.
const WATCHED: Duration = Duration::from_secs(2);
/// How long a flood is kept up at full speed, by so many at once.
const FLOODED: Duration = Duration::from_millis(1_500);
const FLOODERS: usize = 2;
/// Of a machine that others use too, and that cannot give the abuser a core of its own: twice the quiet time is no bound there.
const FLOOR: Duration = Duration::from_secs(2);
/// Enough said for a flood that nobody stops.
const ENOUGH: u32 = 20_000;

fn host_port(service: &Service) -> SocketAddr {
    format!("127.0.0.1:{}", service.address.rsplit(':').next().unwrap()).parse().unwrap()
}

/// What the service takes of memory now, in KiB.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Those who sell beside it: how long each call took, and how many failed.
#[derive(Default)]
struct Honest {
    took: Mutex<Vec<Duration>>,
    failed: AtomicU64,
    over: AtomicBool,
}

impl Honest {
    async fn sells(self: Arc<Self>, terminal: Terminal, next: Arc<AtomicU64>) {
        let rationd::terminal::Opened::Admitted(session) = terminal.open_session().await.unwrap() else {
            panic!("a seat")
        };
        while !self.over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let who = next.fetch_add(1, Ordering::Relaxed);
            if sell(&session, &number(who), 1, RequestId::random()).await.is_err() {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            self.took.lock().unwrap().push(begun.elapsed());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// p99 and number of the calls since this was asked last, and how many have failed.
    fn since(&self) -> (Duration, usize, u64) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort();
        let p99 = took.get(took.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
        (p99, took.len(), self.failed.swap(0, Ordering::Relaxed))
    }
}

/// What one abuser came to.
struct Ended {
    /// `None`: it lives.
    after: Option<Duration>,
    frames: u32,
    /// Why it was told to go, as a code of HTTP/2.
    told: Option<u32>,
}

/// The nth piece of a flood, of so many frames.
type Flood = fn(u32) -> (Vec<u8>, u32);

/// So many of its pieces are said before anybody waits for an answer.
const PIECES: u32 = 10;

fn stream(nth: u32) -> u32 {
    2 * nth + 1
}

/// A call whose message is still to come.
fn call(nth: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream(nth), &headers(HEALTH))
}

fn rapid_reset(nth: u32) -> (Vec<u8>, u32) {
    let begun = frame(HEADERS, END_HEADERS | END_STREAM, stream(nth), &headers(HEALTH));
    ([begun, frame(RST_STREAM, 0, stream(nth), &[0, 0, 0, 8])].concat(), 2)
}

/// The call is under way when it is given up: what comes before it waits for the ping of its piece.
fn late_reset(nth: u32) -> (Vec<u8>, u32) {
    let given_up = if nth.is_multiple_of(PIECES) && nth > 0 {
        (nth - PIECES..nth).flat_map(|nth| frame(RST_STREAM, 0, stream(nth), &[0, 0, 0, 8])).collect()
    } else {
        Vec::new()
    };
    ([given_up, call(nth)].concat(), 2)
}

/// After the first piece, which opens a stream, the same again and again.
fn on_a_stream(nth: u32, again: Vec<u8>) -> (Vec<u8>, u32) {
    if nth > 0 { (again, 1) } else { ([call(0), frame(DATA, 0, 1, &[0, 0, 0, 0x3e, 0x80])].concat(), 2) }
}

/// Many megabytes in a frame: one header is remembered, and then named again and again.
fn header_bomb(nth: u32) -> (Vec<u8>, u32) {
    let mut block = headers(HEALTH);
    // A literal that is remembered: x: and 4,000 letters, whose length is written as 127 and the rest in sevens of bits.
    block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    block.extend([b'a'; 4000]);
    block.extend([0xbe; 12_000]);
    (frame(HEADERS, END_HEADERS, stream(nth), &block), 1)
}

/// Refused by itself: its connection ends only where the windows are not heeded either.
fn huge_message(nth: u32) -> (Vec<u8>, u32) {
    let claims = frame(DATA, 0, stream(nth), &[0, 4, 0, 0, 0]);
    ([call(nth), claims, frame(DATA, 0, stream(nth), &[0; 16_000])].concat(), 3)
}

/// As many pings as may just be said, and an end that is no error.
fn hangs_up(nth: u32) -> (Vec<u8>, u32) {
    match nth {
        ..900 => (frame(PING, 0, 0, &[7; 8]), 1),
        900 => (frame(GOAWAY, 0, 0, &[0; 8]), 1),
        _ => (Vec::new(), 0),
    }
}

/// Those that end their connection.
fn floods() -> [(&'static str, Flood); 12] {
    [
        ("rapid reset", rapid_reset),
        ("reset of calls under way", late_reset),
        ("empty data", |nth| on_a_stream(nth, frame(DATA, 0, 1, &[]))),
        ("data of a byte", |nth| on_a_stream(nth, frame(DATA, 0, 1, &[0]))),
        // The first byte says how many of them to throw away.
        ("padded data of a byte", |nth| {
            on_a_stream(nth, frame(DATA, PADDED, 1, &[14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        }),
        ("settings", |_| (frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]), 1)),
        ("pings", |_| (frame(PING, 0, 0, &[7; 8]), 1)),
        ("priorities", |nth| (frame(PRIORITY, 0, stream(nth), &[0, 0, 0, 0, 9]), 1)),
        ("windows", |_| (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 1)),
        ("unknown frames", |_| (frame(0xfa, 0, 0, &[0; 100]), 1)),
        ("streams beyond the limit", |nth| (call(nth), 1)),
        ("header bombs", header_bomb),
    ]
}

/// Floods piece by piece and waits after each for the service, so that what is counted is what has arrived.
async fn counted(at: SocketAddr, flood: Flood) -> Ended {
    let begun = Instant::now();
    let mut raw = Raw::begin(TcpStream::connect(at).await.unwrap(), &[]).await;
    let (mut nth, mut frames) = (0, 0);
    while frames < ENOUGH && begun.elapsed() < CLOSED_WITHIN {
        let mut said = Vec::new();
        for _ in 0..PIECES {
            let (piece, of_it) = flood(nth);
            said.extend(piece);
            nth += 1;
            frames += of_it;
        }
        if !timeout(IN_TIME, raw.says(&said)).await.unwrap_or(false) {
            return Ended { after: Some(begun.elapsed()), frames, told: raw.told };
        }
    }
    Ended { after: None, frames, told: raw.told }
}

/// How whoever floods comes to the service.
#[derive(Clone)]
enum Way {
    Clear(SocketAddr),
    /// With the certificate of a site, all of which are in a directory.
    Tls(PathBuf, String),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Way {
    async fn connect(&self) -> Option<Box<dyn Stream>> {
        match self {
            Self::Clear(at) => Some(Box::new(TcpStream::connect(at).await.ok()?)),
            Self::Tls(directory, address) => Some(Box::new(shake_hands(directory, "site-11000001", address).await)),
        }
    }
}

/// Floods as fast as it can, and connects again whenever it is cut off. Gives how often.
async fn at_full_speed(way: Way, flood: Flood, flooded: Duration) -> u32 {
    let (begun, mut cut) = (Instant::now(), 0);
    while begun.elapsed() < flooded {
        let Some(stream) = way.connect().await else { continue };
        let (mut answers, mut says) = split(stream);
        let mut takes = tokio::spawn(async move {
            let mut thrown_away = vec![0; 64 * 1024];
            while matches!(answers.read(&mut thrown_away).await, Ok(1..)) {}
        });
        let _ = says.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        for nth in (0..).step_by(PIECES as usize) {
            let said: Vec<u8> = (nth..nth + PIECES).flat_map(|nth| flood(nth).0).collect();
            if begun.elapsed() >= flooded || takes.is_finished() {
                break;
            }
            if said.is_empty() {
                let _ = timeout(flooded, &mut takes).await;
                break;
            }
            // TLS may keep it for a while.
            let written = async { says.write_all(&said).await.and(says.flush().await) };
            if !matches!(timeout(flooded, written).await, Ok(Ok(()))) {
                break;
            }
        }
        cut += u32::from(begun.elapsed() < flooded);
        takes.abort();
    }
    cut
}

/// A row of the table that is printed.
struct Row {
    what: &'static str,
    ended: Ended,
    cut: u32,
    grown: u64,
    honest: (Duration, usize, u64),
    /// p99 of the honest while nobody abuses anything.
    quiet: Duration,
}

impl Row {
    /// How many times as long as in quiet the honest wait.
    fn times(&self) -> f64 {
        self.honest.0.as_secs_f64() / self.quiet.as_secs_f64()
    }

    fn print(&self) {
        let closed = match self.ended.after {
            Some(after) => format!("{:.2} s", after.as_secs_f64()),
            None => "-".into(),
        };
        let told = self.ended.told.map_or("-".into(), |code| code.to_string());
        let (p99, calls, failed) = self.honest;
        println!(
            "{:26} {closed:>8} {:>7} {told:>5} {:>5} {:>8} KiB {:>8.1} ms {:>5.1} {calls:>6} {failed:>6}",
            self.what,
            self.ended.frames,
            self.cut,
            self.grown,
            p99.as_secs_f64() * 1e3,
            self.times()
        );
    }
}

const TITLE: &str =
    "                             closed  frames GOAWAY   cut       grown    p99 honest times  calls failed";

/// A service, and some who sell there.
struct Scene {
    service: Service,
    honest: Arc<Honest>,
    quiet: Duration,
    base: u64,
    selling: Vec<tokio::task::JoinHandle<()>>,
}

impl Scene {
    async fn new(service: Service, terminals: Vec<Terminal>, watched_for: Duration) -> Self {
        let (honest, next) = (Arc::new(Honest::default()), Arc::new(AtomicU64::new(0)));
        let selling = terminals.into_iter().map(|terminal| tokio::spawn(honest.clone().sells(terminal, next.clone())));
        let selling = selling.collect();
        sleep(Duration::from_secs(1)).await;
        honest.since();
        sleep(watched_for).await;
        let (quiet, calls, failed) = honest.since();
        assert!(calls > 20 && failed == 0, "{failed} of {calls}\n{}", service.log());
        let base = resident(&service);
        println!("quiet: p99 {:.1} ms of {calls} calls; the service takes {base} KiB", quiet.as_secs_f64() * 1e3);
        println!("{TITLE}");
        Self { service, honest, quiet, base, selling }
    }

    /// What has become of the service and of those who sell there since the last row.
    async fn row(&self, what: &'static str, ended: Ended, cut: u32) -> Row {
        let asked = Instant::now();
        while self.honest.took.lock().unwrap().is_empty() && asked.elapsed() < IN_TIME {
            sleep(Duration::from_millis(10)).await;
        }
        let grown = resident(&self.service).saturating_sub(self.base);
        let row = Row { what, ended, cut, grown, honest: self.honest.since(), quiet: self.quiet };
        row.print();
        let (p99, calls, failed) = row.honest;
        assert!(calls > 0 && failed == 0, "{what}: {failed} of {calls} failed\n{}", self.service.log());
        assert!(p99 <= 2 * self.quiet + FLOOR, "{what}: p99 {p99:?}, quiet {:?}", self.quiet);
        assert!(grown <= GROWN, "{what}: {grown} KiB more");
        row
    }

    async fn end(self) {
        self.honest.over.store(true, Ordering::Relaxed);
        for selling in self.selling {
            selling.await.unwrap();
        }
        tokio::task::block_in_place(|| self.service.stop());
    }
}

async fn in_the_clear(directory: &tempfile::TempDir) -> Scene {
    in_the_clear_watched(directory, WATCHED).await
}

async fn in_the_clear_watched(directory: &tempfile::TempDir, watched_for: Duration) -> Scene {
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[MANY_SEATS]);
    service.await_health(0);
    let mut terminals = Vec::new();
    for (nth, site) in SITES.iter().take(4).enumerate() {
        terminals.push(service.terminal(site, &format!("w{nth}")).await);
    }
    Scene::new(service, terminals, watched_for).await
}

/// The same over TLS, with terminals of a gateway.
async fn over_tls(directory: &tempfile::TempDir) -> Scene {
    over_tls_watched(directory, WATCHED).await
}

async fn over_tls_watched(directory: &tempfile::TempDir, watched_for: Duration) -> Scene {
    let at = directory.path();
    assert_eq!(rationd(at, &["dev-certs"], "").code, 0);
    let service = Service::start(at, &[&SERVED[..], &["--clock", SATURDAY]].concat(), &[MANY_SEATS]);
    let health = format!("http://{}", service.admin);
    while rationd(at, &["health", "--address", &health], "").code != 0 {
        sleep(Duration::from_millis(50)).await;
    }
    let read_file = |name: &str| std::fs::read(at.join("rationd-certs").join(name)).unwrap();
    let identity = Some((read_file("gateway-demo-gateway.pem"), read_file("gateway-demo-gateway.key")));
    let tls = Tls { authorities: read_file("ca.pem"), identity };
    let mut terminals = Vec::new();
    for (nth, site) in SITES.iter().take(4).enumerate() {
        let connection = Connection::open(&service.address, Some(&tls)).await.unwrap();
        terminals.push(Terminal::on(&connection, site.parse().ok(), format!("w{nth}").parse().unwrap()));
    }
    Scene::new(service, terminals, watched_for).await
}

/// Several flood for a while. Gives how often they were cut off.
async fn flooded(way: &Way, flood: Flood) -> u32 {
    let flooders = (0..FLOODERS).map(|_| tokio::spawn(at_full_speed(way.clone(), flood, FLOODED)));
    let mut cut = 0;
    for flooder in flooders.collect::<Vec<_>>() {
        cut += flooder.await.unwrap();
    }
    cut
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_comes_back_slowly_and_nobody_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let scene = over_tls(&directory).await;
    let way = Way::Tls(directory.path().to_owned(), scene.service.address.clone());
    // Held against it for what HTTP/2 forbids, and after a while for hanging up in time; then for what each flood does.
    let mut all = floods().to_vec();
    all.rotate_right(2);
    all.insert(1, ("pings, hangs up", hangs_up));
    for (what, flood) in all {
        if what == "pings, hangs up" {
            sleep(limits::HELD_AGAINST).await;
        }
        let cut = flooded(&way, flood).await;
        scene.row(what, Ended { after: None, frames: 0, told: None }, cut).await;
        // One of the flood before may still have been there, and the first begins at once.
        let most = FLOODED.as_millis() / limits::RETURNS_EVERY.as_millis() + 2 * FLOODERS as u128;
        // On a slow machine it gets no further than once.
        assert!((1..=most).contains(&cut.into()), "{what}: cut off {cut} times");
    }
    println!("{}", cut_off(&scene.service));
    // More come than are waited for, and whoever else it is begins at once beside them.
    let abuser = |_| shake_hands(directory.path(), "site-11000001", &scene.service.address);
    let come = futures_util::future::join_all((0..40).map(abuser)).await;
    let begun = Instant::now();
    let stream = shake_hands(directory.path(), "gateway-demo-gateway", &scene.service.address).await;
    assert!(Raw::begin(stream, &[]).await.says(&call(0)).await && begun.elapsed() < limits::RETURNS_WITHIN);
    let turned_away = || cut_because(&scene.service, "too_many");
    while turned_away() == 0 && begun.elapsed() < IN_TIME {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(turned_away() > 0, "{}", cut_off(&scene.service));
    drop(come);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_their_connection_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let scene = in_the_clear(&directory).await;
    let at = host_port(&scene.service);
    let refused_one_by_one = ("huge messages", huge_message as Flood);
    for (what, flood) in floods().into_iter().chain([refused_one_by_one]) {
        let ended = counted(at, flood).await;
        let cut = flooded(&Way::Clear(at), flood).await;
        let row = scene.row(what, ended, cut).await;
        let is_cut_off = row.ended.after.is_some_and(|after| after <= CLOSED_WITHIN);
        assert!(is_cut_off || what == refused_one_by_one.0, "{what} goes on");
    }
    // Every continuation is written apart, because between them nothing else may be said.
    let begun = Instant::now();
    let mut raw = Raw::begin(TcpStream::connect(at).await.unwrap(), &[]).await;
    let (mut frames, mut gone) = (1, false);
    let first = frame(HEADERS, END_STREAM, 1, &headers(HEALTH));
    gone |= raw.stream.write_all(&first).await.is_err();
    while !gone && begun.elapsed() < IN_TIME {
        // x: a
        let more = frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'a']);
        gone = raw.stream.write_all(&more).await.is_err() || !raw.lives_for(Duration::from_millis(1)).await;
        frames += 1;
    }
    let after = gone.then(|| begun.elapsed());
    let row = scene.row("continuations", Ended { after, frames, told: raw.told }, 0).await;
    assert!(row.ended.after.is_some_and(|after| after <= CLOSED_WITHIN));
    println!("{}", cut_off(&scene.service));
    scene.end().await;
}

/// How long the honest are watched in the long form, and every flood is kept up.
const LONG: Duration = Duration::from_secs(10);
/// How many times as long as in quiet the honest may wait where whoever floods has a core of its own.
const TIMES: f64 = 2.0;

/// The long form, of an optimized build: whoever floods has a core, and everything else another.
fn from_another_core(over_tls: bool) {
    let pinned = Command::new("taskset").args(["-acp", "0", &std::process::id().to_string()]).output().unwrap();
    assert!(pinned.status.success(), "{pinned:?}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let scene = if over_tls {
            over_tls_watched(&directory, LONG).await
        } else {
            in_the_clear_watched(&directory, LONG).await
        };
        let mut rows = Vec::new();
        for (what, _) in floods() {
            // Only what is sold beside the flood counts.
            scene.honest.since();
            let told = [("FLOOD", what), ("FLOODED", &scene.service.address)];
            let mut floods = Command::new("taskset");
            floods.args(["-c", "1"]).arg(std::env::current_exe().unwrap()).envs(told);
            floods.args(["--exact", "program::abuse::one_who_floods", "--ignored", "--nocapture"]);
            if over_tls {
                floods.env("FLOODED_OVER_TLS", directory.path());
            }
            let said = tokio::task::spawn_blocking(move || floods.output().unwrap()).await.unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            let cut = said.split_once("cut ").and_then(|(_, cut)| cut.split_whitespace().next()?.parse().ok());
            let ended = Ended { after: None, frames: 0, told: None };
            rows.push(scene.row(what, ended, cut.expect("a count")).await);
        }
        let slow: Vec<_> = rows.iter().filter(|row| row.times() > TIMES).map(|row| row.what).collect();
        scene.end().await;
        assert!(slow.is_empty(), "more than {TIMES} times as long beside {slow:?}");
    });
}

#[test]
#[ignore = "takes minutes and two cores"]
fn floods_in_the_clear_from_another_core_leave_everybody_at_twice_their_quiet_time() {
    from_another_core(false);
}

#[test]
#[ignore = "takes minutes and two cores"]
fn floods_over_tls_from_another_core_leave_everybody_at_twice_their_quiet_time() {
    from_another_core(true);
}

/// A process of its own of the long form.
#[tokio::test]
#[ignore = "is started by the long form"]
async fn one_who_floods() {
    let (Ok(what), Ok(address)) = (std::env::var("FLOOD"), std::env::var("FLOODED")) else { return };
    let (_, flood) = floods().into_iter().find(|(name, _)| *name == what).unwrap();
    let way = match std::env::var_os("FLOODED_OVER_TLS") {
        Some(directory) => Way::Tls(directory.into(), address),
        None => Way::Clear(address.rsplit('/').next().unwrap().parse().unwrap()),
    };
    let (one, another) = tokio::join!(at_full_speed(way.clone(), flood, LONG), at_full_speed(way, flood, LONG));
    println!("cut {}", one + another);
}

/// What the service has counted of whom it cut off.
fn cut_off(service: &Service) -> String {
    let page = service.metrics();
    let lines = page.lines().filter(|line| line.starts_with("rationd_connections_cut_total{"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// How many of them for this reason.
fn cut_because(service: &Service, why: &str) -> u64 {
    let (cut, why) = (cut_off(service), format!("{{why=\"{why}\""));
    let line = cut.lines().find(|line| line.contains(&why));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

/// Says these bytes one by one, two a second, and answers pings if it can. How long it lives.
async fn trickles(at: SocketAddr, settled: bool, bytes: Vec<u8>) -> Ended {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(at).await.unwrap();
    if settled {
        stream = Raw::begin(stream, &[]).await.stream;
    }
    let (mut answers, mut says) = stream.into_split();
    let gone = tokio::spawn(async move { while read(&mut answers).await.is_some() {} });
    let mut frames = 0;
    for byte in bytes {
        if gone.is_finished() || begun.elapsed() > IN_TIME || says.write_all(&[byte]).await.is_err() {
            break;
        }
        frames += 1;
        sleep(Duration::from_millis(500)).await;
    }
    let is_gone = timeout(IN_TIME.saturating_sub(begun.elapsed()), gone).await.is_ok();
    Ended { after: is_gone.then(|| begun.elapsed()), frames, told: None }
}

/// Says nothing more, but answers pings.
async fn lives(mut raw: Raw<TcpStream>, begun: Instant) -> Ended {
    let lives = raw.lives_for(IN_TIME).await;
    Ended { after: (!lives).then(|| begun.elapsed()), frames: 1, told: raw.told }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let scene = in_the_clear(&directory).await;
    let at = host_port(&scene.service);
    let begun = Instant::now();
    let asks = async || Raw::begin(TcpStream::connect(at).await.unwrap(), &[]).await;
    let slow = [
        ("silence", tokio::spawn(trickles(at, false, vec![]))),
        ("slow preface", tokio::spawn(trickles(at, false, PREFACE.to_vec()))),
        ("headers byte by byte", tokio::spawn(trickles(at, true, call(0)))),
        ("nothing asked", tokio::spawn(lives(asks().await, begun))),
        ("answers not taken", {
            let reader = StuckReader::begin(TcpStream::connect(at).await.unwrap()).await;
            tokio::spawn(async move {
                reader.told_to_go().await;
                Ended { after: Some(begun.elapsed()), frames: 3, told: None }
            })
        }),
    ];
    let mut rows = Vec::new();
    for (what, abuser) in slow {
        rows.push((what, timeout(IN_TIME + IN_TIME, abuser).await.expect("an end").unwrap()));
    }
    for (what, ended) in rows {
        let row = scene.row(what, ended, 0).await;
        assert!(row.ended.after.is_some_and(|after| after <= CLOSED_WITHIN), "{what} goes on");
    }
    // A message byte by byte is a call like another, and ends as every call: the connection has done nothing wrong.
    let mut raw = asks().await;
    assert!(raw.says(&[call(0), frame(DATA, 0, 1, &[0, 0, 0, 0, 40])].concat()).await);
    let begun = Instant::now();
    let ended = loop {
        raw.stream.write_all(&frame(DATA, 0, 1, &[0])).await.unwrap();
        let next = timeout(Duration::from_millis(500), raw.next()).await;
        if next.is_ok_and(|next| next.is_some_and(|next| next.stream == 1 && next.kind == HEADERS)) {
            break begun.elapsed();
        }
        assert!(begun.elapsed() < CLOSED_WITHIN, "the call goes on");
    };
    assert!(ended < 3 * limits::MESSAGE_WITHIN, "{ended:?}");
    scene.row("a message byte by byte", Ended { after: Some(ended), frames: 0, told: raw.told }, 0).await;
    println!("{}", cut_off(&scene.service));
    scene.end().await;
}

/// Asks for far more than fits into all buffers on the way, with windows as large as they can be, reads none of it and says
/// nothing more: whoever cannot write does not read either.
async fn asks_and_never_reads(stream: &mut (impl AsyncWrite + Unpin)) {
    let windows = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let begins = [PREFACE, &frame(SETTINGS, 0, 0, &windows), &frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])].concat();
    let asks = frame(HEADERS, END_HEADERS, 1, &headers("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"));
    let symbol = "rationd.v1.PurchaseService";
    let message = [&[0, 0, 0, 0, 28, 0x22, 26], symbol.as_bytes()].concat();
    // In one frame: many of a few bytes end their connection.
    let again = frame(DATA, 0, 1, &message.repeat(480));
    stream.write_all(&[begins, asks, again].concat()).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_is_not_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let scene = over_tls(&directory).await;
    let address = scene.service.address.clone();
    let narrow = TcpSocket::new_v4().unwrap();
    narrow.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = shake_hands_over(narrow, directory.path(), "site-11000001", &address).await;
    never_reads(&scene, "reads nothing, over TLS", &mut stream).await;
    scene.end().await;

    let directory = tempfile::tempdir().unwrap();
    let scene = in_the_clear(&directory).await;
    let narrow = TcpSocket::new_v4().unwrap();
    narrow.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = narrow.connect(host_port(&scene.service)).await.unwrap();
    never_reads(&scene, "reads nothing", &mut stream).await;
    scene.end().await;
}

async fn never_reads(scene: &Scene, what: &'static str, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let begun = Instant::now();
    asks_and_never_reads(stream).await;
    while cut_because(&scene.service, "takes_nothing") == 0 && begun.elapsed() < IN_TIME {
        sleep(Duration::from_millis(100)).await;
    }
    let after = Some(begun.elapsed()).filter(|_| cut_because(&scene.service, "takes_nothing") == 1);
    // Its end is behind what was on its way.
    let ended = async { while matches!(stream.read(&mut [0; 16 * 1024]).await, Ok(1..)) {} };
    assert!(timeout(IN_TIME, ended).await.is_ok(), "{what} goes on");
    let row = scene.row(what, Ended { after, frames: 2, told: None }, 0).await;
    assert!(row.ended.after.is_some_and(|after| after <= CLOSED_WITHIN), "{what}: {after:?}");
}

/// Begins as many calls as it may have under way on a connection, and another for each that is answered, and never says what
/// they are for. How many it began, and how many were answered.
async fn begins_calls(mut raw: Raw<impl AsyncRead + AsyncWrite + Unpin>) -> (u32, u32) {
    let (begun, mut calls, mut answered) = (Instant::now(), 0, 0);
    while begun.elapsed() < BEGINS_FOR {
        let more: Vec<u8> = (calls..answered + limits::STREAMS).flat_map(call).collect();
        calls = answered + limits::STREAMS;
        assert!(raw.stream.write_all(&more).await.is_ok(), "it does nothing that ends its connection");
        let round = Instant::now() + Duration::from_millis(500);
        while let Ok(read) = timeout_at(round.into(), raw.next()).await {
            let read = read.expect("it does nothing that ends its connection");
            answered += u32::from(read.kind == HEADERS && read.flags & END_STREAM != 0);
        }
    }
    (calls, answered)
}

/// For longer than a message may be missing.
const BEGINS_FOR: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_a_message_take_the_places_of_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let scene = over_tls(&directory).await;
    let mut raws = Vec::new();
    // More than there may be calls under way at all.
    for _ in 0..20 {
        let stream = shake_hands(directory.path(), "site-11000001", &scene.service.address).await;
        raws.push(Raw::begin(stream, &[]).await);
    }
    let abusers: Vec<_> = raws.into_iter().map(|raw| tokio::spawn(begins_calls(raw))).collect();
    let (mut calls, mut answered) = (0, 0);
    for abuser in abusers {
        let of_one = abuser.await.unwrap();
        (calls, answered) = (calls + of_one.0, answered + of_one.1);
    }
    scene.row("calls without a message", Ended { after: None, frames: calls, told: None }, answered).await;
    assert!(answered > 0, "those beyond its share are turned away");
    scene.end().await;
}

/// Of the same machine, with another address.
async fn from_elsewhere(at: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(at).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greetings_that_stand_still_hold_up_nobody_of_another_address() {
    let directory = tempfile::tempdir().unwrap();
    let scene = over_tls(&directory).await;
    let listener = host_port(&scene.service);

    // More than are greeted at once at all; each begins to shake hands and says no more.
    let begun = Instant::now();
    let mut still = Vec::new();
    for _ in 0..limits::GREETINGS + 200 {
        let mut socket = TcpStream::connect(listener).await.unwrap();
        socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
        still.push(socket);
    }
    // Somebody of another address is greeted at once: a fatal alert to what is no handshake is an answer too.
    let asked = Instant::now();
    let mut elsewhere = from_elsewhere(listener).await;
    elsewhere.write_all(PREFACE).await.unwrap();
    let mut alert = Vec::new();
    timeout(IN_TIME, elsewhere.read_to_end(&mut alert)).await.unwrap().unwrap();
    let greeted = asked.elapsed();
    assert!(alert.first() == Some(&0x15), "{alert:?}");
    println!("{} greetings stand still; another address is answered after {greeted:?}", still.len());
    assert!(greeted < limits::GREETED_WITHIN / 2, "{greeted:?}");
    for mut socket in still {
        let ended = timeout(IN_TIME, socket.read(&mut [0; 8])).await.expect("an end");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    let row = scene.row("slow handshakes", Ended { after: Some(begun.elapsed()), frames: 0, told: None }, 0).await;
    assert!(row.ended.after.is_some_and(|after| after <= CLOSED_WITHIN));

    // More at once than may wait to be greeted.
    let (begun, mut more) = (Instant::now(), Vec::new());
    for _ in 0..limits::UNGREETED_OF_ONE_ADDRESS + 50 {
        more.push(TcpStream::connect(listener).await.unwrap());
    }
    let is_turned_away = |socket: &&TcpStream| matches!(socket.try_read(&mut [0; 1]), Ok(0));
    while more.iter().filter(is_turned_away).count() == 0 {
        assert!(begun.elapsed() < IN_TIME, "nobody is turned away");
        sleep(Duration::from_millis(50)).await;
    }
    let turned_away = cut_because(&scene.service, "too_many");
    assert!((1..=100).contains(&turned_away), "{turned_away} turned away");
    drop(more);
    println!("{}", cut_off(&scene.service));
    scene.end().await;
}

/// A gateway speaks for many sites, and not for all: others come in while it has taken all that it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_does_not_take_every_connection() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    assert_eq!(rationd(at, &["dev-certs"], "").code, 0);
    let service =
        Service::start_with_files(400, at, &[&SERVED[..], &["--clock", SATURDAY, "--roles", "counters"]].concat(), &[]);
    let (mut taken, mut turned_away) = (Vec::new(), 0);
    for _ in 0..150 {
        let mut raw = Raw::begin(shake_hands(at, "gateway-demo-gateway", &service.address).await, &[]).await;
        match timeout(IN_TIME, raw.says(&call(0))).await.unwrap() {
            true => taken.push(raw),
            false => turned_away += 1,
        }
    }
    println!("of 400 files: {} connections of one gateway, {turned_away} turned away", taken.len());
    assert!((90..=130).contains(&taken.len()), "{}", taken.len());
    let mut site = Raw::begin(shake_hands(at, "site-11000001", &service.address).await, &[]).await;
    assert!(site.says(&call(0)).await, "a site is let in");
    // Where one goes, there is room for another.
    drop(taken.pop());
    let begun = Instant::now();
    while !Raw::begin(shake_hands(at, "gateway-demo-gateway", &service.address).await, &[]).await.says(&call(0)).await {
        assert!(begun.elapsed() < IN_TIME);
    }
    assert!(cut_off(&service).contains("why=\"too_many\""), "{}", service.metrics());
    drop((taken, site));
    tokio::task::block_in_place(|| service.stop());
}

/// Probes and operators come from other addresses: whoever shows no certificate leaves room for them, and does not stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_does_not_take_the_admin_listener() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    assert_eq!(rationd(at, &["dev-certs"], "").code, 0);
    let service = Service::start(at, &SERVED, &[("RATIOND_COUNTERS__CONNECTION_AGE_SECONDS", "5")]);
    let admin = service.admin.parse().unwrap();
    let mut taken = Vec::new();
    for _ in 0..limits::MAX_ADMIN_CONNECTIONS {
        let mut raw = Raw::begin(TcpStream::connect(admin).await.unwrap(), &[]).await;
        if timeout(IN_TIME, raw.says(&call(0))).await.unwrap() {
            taken.push(raw);
        }
    }
    assert_eq!(taken.len(), limits::ADMIN_CONNECTIONS_OF_ONE_ADDRESS);
    let mut probe = Raw::begin(from_elsewhere(admin).await, &[]).await;
    assert!(timeout(IN_TIME, probe.says(&call(0))).await.expect("another address is let in"));
    for raw in &mut taken {
        assert!(!raw.lives_for(IN_TIME).await, "it stays");
        assert_eq!(raw.told, Some(0), "it is told to go");
    }
    tokio::task::block_in_place(|| service.stop());
}

/// What a listener says of itself, by the numbers of HTTP/2's settings; 0 is the window of the whole connection.
async fn announced(at: &str) -> BTreeMap<u16, u32> {
    let mut raw = Raw::begin(TcpStream::connect(at).await.unwrap(), &[]).await;
    let mut told = BTreeMap::new();
    // It comes first or not at all.
    for _ in 0..3 {
        let Ok(Some(next)) = timeout(Duration::from_secs(2), raw.next()).await else { break };
        match next.kind {
            SETTINGS => told.extend(next.payload.chunks(6).map(|setting| {
                let [a, b, value @ ..]: [u8; 6] = setting.try_into().unwrap();
                (u16::from_be_bytes([a, b]), u32::from_be_bytes(value))
            })),
            WINDOW_UPDATE if next.stream == 0 => {
                told.insert(0, 65_535 + u32::from_be_bytes(next.payload.try_into().unwrap()));
            }
            _ => {}
        }
    }
    told
}

/// With certificates and without: terminals speak HTTP/2, and nobody else is answered.
#[tokio::test]
async fn the_counters_listener_speaks_no_http_1() {
    async fn asks(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // However it ends.
        let _ = timeout(CLOSED_WITHIN, stream.read_to_end(&mut answer)).await.expect("an end");
        assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
    }
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &[], &[]);
    asks(TcpStream::connect(host_port(&service)).await.unwrap()).await;
    service.stop();
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(rationd(directory.path(), &["dev-certs"], "").code, 0);
    let service = Service::start(directory.path(), &SERVED, &[]);
    asks(shake_hands(directory.path(), "site-11000001", &service.address).await).await;
    service.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_is_what_the_limits_are() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &[], &[]);
    for listener in [host_port(&service).to_string(), service.admin.clone()] {
        let told = announced(&listener).await;
        println!("{listener} announces {told:?}");
        let said = |setting: u16| told.get(&setting).copied();
        assert_eq!(said(3), Some(limits::STREAMS), "streams at once");
        assert_eq!(said(4), Some(limits::STREAM_WINDOW), "the window of a stream");
        assert_eq!(said(0), Some(limits::CONNECTION_WINDOW), "the window of the connection");
        // What is not said is the smallest that there is.
        assert_eq!(said(5).unwrap_or(16_384), limits::FRAME, "the largest frame");
        assert_eq!(said(6), Some(limits::HEADERS), "headers of a call");
    }
    tokio::task::block_in_place(|| service.stop());
}

/// The table of README.md, row by row.
#[test]
fn the_readme_names_the_limits() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let kib = |bytes: u32| format!("{} KiB", bytes / 1024);
    let seconds = |span: Duration| format!("{} s", span.as_secs());
    let rate = |rate: limits::Rate| format!("{} at once, {} a second", rate.at_once, rate.per_second);
    for (what, limit) in [
        ("a TLS handshake; then the first words; then the first call", seconds(limits::GREETED_WITHIN)),
        (
            "handshakes under way; of one address",
            format!("{}; {}", limits::GREETINGS, limits::GREETINGS_OF_ONE_ADDRESS),
        ),
        ("connections of one address that wait to be greeted", limits::UNGREETED_OF_ONE_ADDRESS.to_string()),
        ("connections of one site; of one gateway", format!("{}; half of all", limits::CONNECTIONS_OF_ONE_SITE)),
        (
            "connections of one that was cut off; for how long after the last time",
            format!(
                "one every {} ms, of a gateway {} ms, and those that would wait for more than {} s none; {} s",
                limits::RETURNS_EVERY.as_millis(),
                limits::RETURNS_OF_A_GATEWAY_EVERY.as_millis(),
                limits::RETURNS_WITHIN.as_secs(),
                limits::HELD_AGAINST.as_secs()
            ),
        ),
        (
            "connections to the admin listener; of one address",
            format!("{}; {}", limits::MAX_ADMIN_CONNECTIONS, limits::ADMIN_CONNECTIONS_OF_ONE_ADDRESS),
        ),
        (
            "connections to the public feed's listener beside the counters'; apart",
            format!("{}; {}", limits::MAX_FEED_CONNECTIONS, limits::MAX_FEED_CONNECTIONS_APART),
        ),
        ("calls for stock under way; who watch", format!("{}; {}", limits::FEED_CALLS, limits::WATCHERS)),
        ("calls under way in all; of one site; of one gateway", {
            let (site, least) = (limits::CALLS_OF_A_SITE, limits::STREAMS);
            format!("`max_in_flight`; 1 in {site}, or {least}; 1 in {}", limits::CALLS_OF_A_GATEWAY)
        }),
        (
            "the message of a call, after its headers; an operator's",
            format!("{}; 10 s", seconds(limits::MESSAGE_WITHIN)),
        ),
        ("calls and streams at once on a connection", limits::STREAMS.to_string()),
        ("sent and not yet taken, on a stream; on a connection", {
            format!("{}; {}", kib(limits::STREAM_WINDOW), kib(limits::CONNECTION_WINDOW))
        }),
        ("a frame; all headers of a call; a message; an operator's", {
            let [message, operators] = [limits::MESSAGE, limits::OPERATORS_MESSAGE].map(|m| u32::try_from(m).unwrap());
            [limits::FRAME, limits::HEADERS, message, operators].map(kib).join("; ")
        }),
        ("answers kept for a stream whose client does not take them", kib(u32::try_from(limits::UNTAKEN).unwrap())),
        ("a client that takes none of the answers that wait; of the feed's", {
            format!("{}; {}", seconds(limits::TAKEN_WITHIN), seconds(limits::TAKEN_WITHIN_BY_FEEDS))
        }),
        ("streams given up", rate(limits::RESETS)),
        ("streams given up before anybody looked at them", format!("{} at once", limits::RESETS_PENDING)),
        ("streams that the client's errors end", format!("{} in all", limits::RESETS_PROVOKED)),
        ("frames that bring nothing", {
            format!("{}, {} for each that does", rate(limits::IDLE_FRAMES), limits::IDLE_FRAMES_EARNED)
        }),
        ("lines in the log of handshakes that failed; of connections cut off", rate(limits::LINES)),
        ("a client that says nothing is asked; answers", {
            format!("{}; {}", seconds(limits::PEER_ASKED_EVERY), seconds(limits::PEER_ANSWERS_WITHIN))
        }),
    ] {
        let row = format!("| {what} | {limit} |");
        assert!(readme.contains(&row), "README.md has no row\n{row}");
    }
}

/// What h2 does itself against empty data and provoked resets is whole since this version.
#[test]
fn the_locked_h2_counts_what_it_should() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    let versions: Vec<Vec<u32>> = lock
        .split("name = \"h2\"\nversion = \"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().split('.').map(|part| part.parse().unwrap()).collect())
        .collect();
    assert!(versions.len() == 1 && versions[0] >= vec![0, 4, 20], "{versions:?}");
}
