//! Where a row is played: a store, a service over it, and a proxy in front of each, so that both can be moved, cut off and killed.

use std::path::Path;
use std::time::{Duration, Instant};

use rationd::grpc::PURCHASE_SERVICE;
use rationd::grpc::v1::ExportedRecord;
use rationd::load::prepare;
use rationd::load::scenario::Scenario;
use rationd::load::sites::Places;
use rationd::terminal::{Connection, Operator, Terminal, Unread};
use tempfile::TempDir;
use tokio::task::block_in_place;

use super::crowd::Calls;
use super::line::Line;
use crate::program::service::{Ran, Service, signal};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::replicas::Replicas;

/// So many calls are under way when a fault strikes, at least.
pub const UNDER_WAY: usize = 100;
/// How long a process may take to do what it is asked, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// Seats and places that are younger at a failover may be lost, as they wait for no replica.
const OLD_ENOUGH: Duration = Duration::from_secs(5);
/// Seats for all terminals of a site.
const SEATS: (&str, &str) = ("RATIOND_SESSIONS__CAP_DEFAULT", "100");
/// Where the service keeps what it has seen acknowledged.
const WITNESS: (&str, &str) = ("RATIOND_WITNESS", "witness.json");

/// Where sales are recorded. Another topology is another one of these, with rows of its own.
pub enum Store {
    /// One Redis, and the proxy through which the service reaches it.
    Redis(Box<RedisServer>, Proxy),
    /// A primary with two replicas, and their Sentinels.
    Replicated(Box<Replicas>),
    /// A file in the service's directory.
    Embedded,
}

/// A time in which no decision could be given as soon as usual.
#[derive(Debug)]
pub struct Slow {
    pub from: Instant,
    pub until: Instant,
    /// Each of them, and there were some, took at least so long; `None`: there was none at all.
    pub least: Option<Duration>,
}

/// A store, a service and what is between them and the counters.
pub struct Scene {
    pub store: Store,
    /// Between counters and service.
    pub front: Proxy,
    /// The sites: first those of the crowd, then those of the line.
    pub places: Places,
    /// Who stands behind the crowd, where a row is about them.
    pub line: Option<Line>,
    /// When decisions had to take their time.
    pub slow: Vec<Slow>,
    /// The crowd's calls, while there is one.
    pub calls: Option<Calls>,
    /// The fewest of them that were under way when a fault struck.
    pub under_way: usize,
    service: Option<Service>,
    home: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A row that fails shows what the service said.
impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(service) = self.service.as_ref().filter(|_| std::thread::panicking()) {
            let log = service.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("no decision")).collect();
            println!("the end of the service's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

impl Scene {
    /// A service on one Redis.
    pub async fn redis() -> Self {
        Self::on_redis(RedisServer::start(), &[]).await
    }

    /// A service with these further arguments on this Redis.
    pub async fn on_redis(server: RedisServer, arguments: &[&str]) -> Self {
        let back = Proxy::to(server.port()).await;
        Self::start(Store::Redis(Box::new(server), back), arguments, &[]).await
    }

    /// A service on one Redis, and a line in front of it.
    pub async fn redis_with_a_line() -> Self {
        let server = RedisServer::start();
        let back = Proxy::to(server.port()).await;
        Self::start(Store::Redis(Box::new(server), back), &[], &Line::VARIABLES).await.with_a_line()
    }

    /// A service with these further arguments on a primary with two replicas.
    pub async fn replicated(arguments: &[&str]) -> Self {
        Self::start(Store::Replicated(Box::new(Replicas::start(2).await)), arguments, &[]).await
    }

    /// The same on servers that are started by these words, each by its own.
    pub async fn replicated_behind(words: &[Vec<String>]) -> Self {
        Self::start(Store::Replicated(Box::new(Replicas::start_behind(words).await)), &[], &[]).await
    }

    /// A primary with two replicas, and a line in front of the service.
    pub async fn replicated_with_a_line() -> Self {
        let group = Replicas::start(2).await;
        Self::start(Store::Replicated(Box::new(group)), &[], &Line::VARIABLES).await.with_a_line()
    }

    /// A service on the embedded store, with these variables in its environment.
    pub async fn embedded(variables: &[(&str, &str)]) -> Self {
        Self::start(Store::Embedded, &[], variables).await
    }

    async fn start(store: Store, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let scenario = Scenario::built_in("canonical").unwrap().unwrap();
        let mut sites = super::crowd::scenario(scenario.seed).sites;
        sites.count += Line::SITES;
        let places = Places::made_up(&sites, scenario.seed);
        let url = match &store {
            Store::Redis(_, back) => format!("redis://127.0.0.1:{}/", back.port()),
            Store::Replicated(group) => group.url(),
            Store::Embedded => "embedded:./data".to_owned(),
        };
        let home = tempfile::tempdir().unwrap();
        prepare(&home.path().join("service"), &places).unwrap();
        let files = ["--policies", "programmes", "--sites", "sites.csv", "--keys", "keys.toml"];
        let arguments =
            ["--store", url.as_str()].iter().chain(&files).chain(arguments).map(ToString::to_string).collect();
        let variables = [SEATS, WITNESS]
            .iter()
            .chain(variables)
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        // Nobody calls before there is somebody behind it.
        let front = Proxy::to(0).await;
        let mut scene = Self {
            store,
            front,
            places,
            line: None,
            slow: Vec::new(),
            calls: None,
            under_way: usize::MAX,
            service: None,
            home,
            arguments,
            variables,
        };
        scene.start_service();
        scene.serving().await;
        scene
    }

    /// Returns when enough calls are under way for a fault to strike: before each strike, and within one whose blow falls later.
    pub async fn rush(&mut self) {
        let calls = self.calls.as_ref().expect("a crowd");
        self.under_way = self.under_way.min(calls.rush(UNDER_WAY).await);
    }

    /// Since then and until now decisions must have been given, and each must have taken at least so long; `None`: none may have been.
    pub fn was_slow(&mut self, from: Instant, least: Option<Duration>) {
        self.slow.push(Slow { from, until: Instant::now(), least });
    }

    fn with_a_line(mut self) -> Self {
        let of_line = usize::try_from(Line::SITES).unwrap();
        let (_, sites) = self.places.sites().split_at(self.places.sites().len() - of_line);
        self.line = Some(Line::of(self.front.port(), sites));
        self
    }

    /// Returns when everything is as it is to be at the next strike: servers have found each other again, and the line stands.
    pub async fn settled(&mut self) {
        if let Store::Replicated(group) = &self.store {
            group.whole().await;
        }
        if let Some(line) = &mut self.line
            && line.forms().await
            && matches!(self.store, Store::Replicated(_))
        {
            tokio::time::sleep(OLD_ENOUGH).await;
        }
    }

    /// The service's directory.
    pub fn directory(&self) -> std::path::PathBuf {
        self.home.path().join("service")
    }

    pub fn service(&mut self) -> &mut Service {
        self.service.as_mut().unwrap()
    }

    /// Starts the service, which is not running, where counters find it.
    pub fn start_service(&mut self) {
        let service = block_in_place(|| {
            let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
            let variables: Vec<_> =
                self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            Service::start_to_survive_full_disks(&self.directory(), &arguments, &variables)
        });
        self.front.aim(service.address.rsplit(':').next().unwrap().parse().unwrap());
        self.service = Some(service);
    }

    /// SIGKILL.
    pub fn kill_service(&mut self) {
        block_in_place(|| self.service().kill());
    }

    /// Waits until the service has ended by itself, and gives its exit code.
    pub fn service_ended(&mut self) -> i32 {
        block_in_place(|| self.service().ended(PATIENCE))
    }

    /// What a service says that refuses to start here.
    pub fn refused(&self) -> Ran {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rationd"));
        command.arg("serve").args(crate::program::service::ANYWHERE).args(&self.arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        block_in_place(|| crate::program::service::run(command, &self.directory(), ""))
    }

    /// An operator's word that the service is to go on with what the store has, whatever was lost.
    pub fn give_up_what_is_lost(&self) {
        std::fs::remove_file(self.directory().join(WITNESS.1)).unwrap();
    }

    /// Sends a signal to the service.
    pub fn signal_service(&mut self, name: &str) {
        signal(self.service().pid(), name);
    }

    pub fn server(&mut self) -> &mut RedisServer {
        let Store::Redis(server, _) = &mut self.store else { panic!("there is no Redis here") };
        server
    }

    /// The primary and its replicas.
    pub fn group(&mut self) -> &mut Replicas {
        let Store::Replicated(group) = &mut self.store else { panic!("there are no replicas here") };
        group
    }

    /// Between service and Redis.
    pub fn back(&self) -> &Proxy {
        let Store::Redis(_, back) = &self.store else { panic!("there is no Redis here") };
        back
    }

    /// Sends a signal to Redis.
    pub fn signal_redis(&mut self, name: &str) {
        signal(self.server().pid(), name);
    }

    /// Starts Redis again over what it has.
    pub fn restart_redis(&mut self) {
        block_in_place(|| self.server().restart());
    }

    /// A command to Redis.
    pub fn redis_cli(&mut self, words: &[&str]) -> String {
        let port = self.server().port().to_string();
        let mut command = std::process::Command::new("redis-cli");
        command.args(["-p", &port]).args(words);
        let ran = block_in_place(|| crate::program::service::run(command, Path::new("."), ""));
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        ran.out
    }

    /// Whether the service says that it can record sales.
    pub async fn is_serving(&mut self) -> bool {
        let address = self.service().address.clone();
        let Ok(connection) = Connection::open(&address, None).await else { return false };
        let terminal = Terminal::on(&connection, None, "watcher".parse().unwrap());
        terminal.is_serving(PURCHASE_SERVICE).await.unwrap_or(false)
    }

    /// Waits until it says so.
    pub async fn serving(&mut self) {
        self.until("the service to serve", async |scene| scene.is_serving().await).await;
    }

    /// Waits until it says that it cannot: a moment after it has stopped recording them.
    pub async fn serves_no_more(&mut self) {
        self.until("the service to serve no more", async |scene| !scene.is_serving().await).await;
    }

    /// Waits until the service has logged this.
    pub async fn logged(&mut self, words: &str) {
        self.until(words, async |scene| scene.service().log().contains(words)).await;
    }

    pub async fn until(&mut self, what: &str, mut is_so: impl AsyncFnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self).await {
            assert!(begun.elapsed() < PATIENCE, "waited for {what}\n{}", self.service().log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every record of the ledger, read through the operators' call.
    pub async fn records(&mut self) -> Vec<ExportedRecord> {
        let address = format!("http://{}", self.service().admin);
        let operator = Operator::connect(&address).await.unwrap();
        let begun = Instant::now();
        loop {
            match operator.export("load-canonical").await {
                Ok(export) => {
                    assert_eq!(export.unreadable, 0);
                    return export.records;
                }
                // On a busy machine a store that has just come back may be slow once more; we are told to begin again.
                Err(Unread::Told { retry_after: Some(after), .. }) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(after).await;
                }
                Err(told) => panic!("{told}"),
            }
        }
    }
}
