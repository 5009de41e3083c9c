//! The two doors as tests hold them: with the store's clock in the test's hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rationd::ids::{SiteId, TerminalId};
use rationd::redis_pool::RedisPool;
use rationd::session::embedded::EmbeddedDoor;
use rationd::session::redis::RedisDoor;
use rationd::session::registry::Configured;
use rationd::session::{Beat, Door, DoorError, Lease, Mode, Opened, Opening, Renewal, Seat, Standing, Terms, Tick};
use rationd::time::{Clock, Timestamp};

use super::support::redis::RedisServer;

/// Ten steps of logical time are a lease, and thirty the grace.
pub const LEASE: Lease =
    Lease { length: Duration::from_secs(10), max_step: Duration::from_secs(1), grace: Duration::from_secs(30) };

/// A door on which nobody has touched a switch, and that is never full.
pub const OPEN: Terms = Terms { version: 0, mode: Mode::Open, capacity: 1_000_000 };

/// What an instance says with its tick there.
pub const BEAT: Beat = Beat { terms: OPEN, ramp: None, burning: false };

/// Somebody who wants to come in, and gives signs of life all the time while waiting.
pub fn opening(at: &str, who: &str, cap: u16) -> Opening {
    Opening { site: site(at), terminal: terminal(who), cap, ramped: false, due_in: Duration::ZERO }
}

/// A registry's door without switches: this cap for every site.
pub fn configured(cap: u16) -> Configured {
    Configured {
        capacity: OPEN.capacity,
        cap: Arc::new(move |_, _| cap),
        channel: Arc::new(|_| Some(channel())),
        burning: Arc::new(|| false),
    }
}

pub fn channel() -> rationd::ids::Channel {
    "pharmacy".parse().expect("a channel")
}

/// A door's verbs where neither line nor switches matter.
pub trait Plainly: Door {
    fn enter(
        &self,
        site: SiteId,
        terminal: TerminalId,
        cap: u16,
    ) -> impl Future<Output = Result<Opened, DoorError>> + Send {
        self.open(Opening { site, terminal, cap, ramped: false, due_in: Duration::ZERO }, OPEN)
    }

    fn renewed(&self, seats: &[Seat]) -> impl Future<Output = Result<Vec<Standing>, DoorError>> + Send {
        let renewals: Vec<Renewal> = seats.iter().map(|seat| Renewal { seat: *seat, sold_ago: None }).collect();
        async move { self.renew(&renewals).await }
    }

    fn ticked(&self) -> impl Future<Output = Result<Tick, DoorError>> + Send {
        self.tick(BEAT)
    }
}

impl<D: Door> Plainly for D {}

pub fn site(code: &str) -> SiteId {
    code.parse().expect("a site code")
}

pub fn terminal(name: &str) -> TerminalId {
    name.parse().expect("a terminal name")
}

/// A door whose store's clock the test moves.
pub trait Stand {
    /// What it is called where figures are printed.
    const NAME: &str;

    type Door: Door;

    fn door(&self) -> Self::Door;

    /// The store's clock goes a day forward; logical time goes one `max_step`.
    async fn passes(&self, beat: Beat) -> Tick;

    /// The store's clock goes a day back; logical time stands.
    async fn goes_back(&self, beat: Beat) -> Tick;

    /// One step of logical time. Says how many seats expired.
    async fn pass(&self) -> usize {
        self.passes(BEAT).await.expired
    }

    /// No time at all. Says how many seats expired.
    async fn clock_steps_back(&self) -> usize {
        self.goes_back(BEAT).await.expired
    }

    /// The same door through connections of its own, where there are any.
    fn other_door(&self) -> Self::Door;

    /// The store ends and starts again: Redis is killed, the file is closed and opened. Nobody may hold a door meanwhile.
    async fn restart(&mut self);

    /// The store loses the changes that it held.
    async fn forget_history(&self);

    /// How many seats the store holds.
    async fn live(&self) -> usize;

    /// So much logical time, in whole steps, during which nothing may expire.
    async fn pass_for(&self, span: Duration) {
        for _ in 0..span.as_millis() / LEASE.max_step.as_millis() {
            assert_eq!(self.pass().await, 0);
        }
    }
}

/// The door in a Redis of its own.
pub struct RedisStand {
    pub server: RedisServer,
    door: RedisDoor,
}

/// A pool of its own: what another instance would have.
pub fn redis_door(url: &str, lease: Lease) -> RedisDoor {
    RedisDoor::new(RedisPool::new(url, 16).expect("a good URL"), lease)
}

/// One command, outside of any door.
pub async fn redis_command(url: &str, words: &[&str]) -> redis::Value {
    // The machine may be busy with other tests.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
    let client = redis::Client::open(url).expect("a good URL");
    let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.expect("Redis answers");
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query_async(&mut connection).await.expect("a good command")
}

impl RedisStand {
    pub async fn start() -> Self {
        let server = RedisServer::start();
        let door = redis_door(&server.url(), LEASE);
        let stand = Self { server, door };
        let _ = stand.door.ticked().await.expect("the door answers");
        stand
    }

    async fn tick_with_last(&self, last_ms: &str, beat: Beat) -> Tick {
        redis_command(&self.server.url(), &["HSET", "{door}:gate", "last", last_ms]).await;
        self.door.tick(beat).await.expect("the door answers")
    }
}

impl Stand for RedisStand {
    const NAME: &str = "Redis";
    type Door = RedisDoor;

    fn door(&self) -> RedisDoor {
        self.door.clone()
    }

    fn other_door(&self) -> RedisDoor {
        redis_door(&self.server.url(), LEASE)
    }

    async fn restart(&mut self) {
        self.server.restart();
        self.door = self.other_door();
        let _ = self.door.ticked().await.expect("the door answers");
    }

    async fn passes(&self, beat: Beat) -> Tick {
        self.tick_with_last("1000", beat).await
    }

    async fn goes_back(&self, beat: Beat) -> Tick {
        self.tick_with_last("99999999999999", beat).await
    }

    async fn forget_history(&self) {
        redis_command(&self.server.url(), &["XTRIM", "{door}:changes", "MAXLEN", "10"]).await;
    }

    async fn live(&self) -> usize {
        let url = self.server.url();
        let redis::Value::Int(indexed) = redis_command(&url, &["ZCARD", "{door}:renewed"]).await else { panic!() };
        let lines = redis_command(&url, &["HVALS", "{door}:sites"]).await;
        let lines: Vec<String> = redis::from_redis_value(lines).expect("texts");
        let live = lines.iter().map(|line| line.matches(';').count()).sum();
        assert_eq!(usize::try_from(indexed).unwrap(), live, "the index of expiry holds every seat once");
        live
    }
}

/// A clock whose monotonic time stands until it is moved, by hand even backwards.
#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub fn go_back(&self, span: Duration) {
        self.0.fetch_sub(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        panic!("no decision of the door rests on civil time")
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// The door in a file of its own.
pub struct EmbeddedStand {
    dir: tempfile::TempDir,
    clock: TestClock,
    door: std::sync::Mutex<Option<EmbeddedDoor>>,
}

impl EmbeddedStand {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let stand = Self { dir, clock: TestClock::default(), door: std::sync::Mutex::default() };
        stand.clock.advance(DAY * 1_000);
        stand.reopen().await;
        stand
    }

    async fn reopen(&self) {
        drop(self.door.lock().unwrap().take());
        let path = self.dir.path().join("door.redb");
        let door = EmbeddedDoor::open(&path, LEASE, self.clock.clone()).expect("the file opens");
        *self.door.lock().unwrap() = Some(door.clone());
        let _ = door.ticked().await.expect("the door answers");
    }
}

impl Stand for EmbeddedStand {
    const NAME: &str = "the file";
    type Door = EmbeddedDoor;

    fn door(&self) -> EmbeddedDoor {
        self.door.lock().unwrap().clone().expect("it is open")
    }

    fn other_door(&self) -> EmbeddedDoor {
        self.door()
    }

    async fn restart(&mut self) {
        self.reopen().await;
    }

    async fn passes(&self, beat: Beat) -> Tick {
        self.clock.advance(DAY);
        self.door().tick(beat).await.expect("the door answers")
    }

    async fn goes_back(&self, beat: Beat) -> Tick {
        self.clock.go_back(DAY);
        self.door().tick(beat).await.expect("the door answers")
    }

    /// Its log is as long as Redis's; more changes than that must pass.
    async fn forget_history(&self) {
        let door = self.door();
        let mut work = tokio::task::JoinSet::new();
        for worker in 0..256 {
            let door = door.clone();
            work.spawn(async move {
                for _ in 0..400 {
                    let _ = super::granted(&door, &format!("w{worker}"), "a", 1).await;
                }
            });
        }
        work.join_all().await;
    }

    /// Opens and asks one more at a cap of nothing: the answer names every seat of a site. Sites are those of the suite.
    async fn live(&self) -> usize {
        let door = self.door();
        let mut live = 0;
        for n in 0..400 {
            match door.enter(site(&format!("s{n}")), terminal("nobody"), 0).await.expect("the door answers") {
                Opened::SiteFull { holders } => live += holders.len(),
                granted => panic!("{granted:?} with a cap of 0"),
            }
        }
        live
    }
}
