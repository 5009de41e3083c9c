//! How this process is to run: one TOML file, overridden by the environment, overridden by the command line; secrets by
//! path. What comes out is valid as a whole; what is wrong is told all at once, each problem at its place.
//!
//! Relative paths are relative to the working directory of the process.
//!
//! Knows nothing about what the parts do with their settings, and opens no store and no listener.

mod effective;
mod environment;
mod file;
mod keys;
mod receipt_key;
mod store_url;
mod turning;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use environment::{environment, executable, program, readable_environment, scratch};
pub use keys::Keys;
pub use receipt_key::{load_receipt_key, save_receipt_key};
pub use store_url::{BadStore, RedisUrl, Store};
pub use turning::{KeyStep, NotNow};

use zeroize::Zeroizing;

use crate::ids::{Channel, ProgrammeId, SiteId};
use crate::sites::Sites;
use crate::time::Timestamp;
use crate::tls::{BadPem, Clients, Identity, Part};
use file::Settings;

/// Beside the place where the process was started, so that trying it out leaves nothing elsewhere.
const DEFAULT_DATA: &str = "./rationd-data";
/// The same under a simulated clock: a ledger of real sales and one of made-up times never meet.
const DEFAULT_SIMULATED_DATA: &str = "./rationd-data-simulated";
/// The key file's name beside the data.
const KEY_FILE: &str = "keys.toml";
/// Loopback, where nobody has to prove who they are.
const DEFAULT_COUNTERS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);
/// The next port after the counters'.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7421);
/// How many ports after the counters' the public feed's is: the one after the operators'.
const FEED_AFTER: usize = 2;
/// One thread beside those of the counters answers some ten thousand people a second, and takes no more of the machine than itself.
const DEFAULT_FEED_WORKERS: u32 = 1;
/// Long enough for a terminal's first reconnect after a lost instance (0 to 8 s), short enough that a broken terminal
/// does not keep its seat from a colleague for long.
const DEFAULT_LEASE_SECONDS: u32 = 15;
/// The rule that post offices were given in 2020, and that nothing enforced.
const DEFAULT_CAP: u32 = 1;
/// More than the 67,000 of 11 March 2020: until somebody has measured what a deployment bears, nobody waits.
const DEFAULT_CAPACITY: u32 = 100_000;
/// What an operator wants to read when nothing is wrong.
const DEFAULT_LOG_FILTER: &str = "info";
/// Switches and files act within 2 s everywhere.
const DEFAULT_RELOAD_SECONDS: u32 = 2;
/// A second's work of a small machine: what waits longer is better told to come back.
const DEFAULT_MAX_IN_FLIGHT: u32 = 1024;
/// Enough that one lane fills its group while others wait for the store's sync; more would only make groups smaller.
const DEFAULT_LANES: u32 = 3;
/// Enough to pay for a sync, short enough that nobody waits long behind it.
const DEFAULT_GROUP: u32 = 128;
/// Some groups for every lane: what would wait longer is better told to come back.
const DEFAULT_QUEUE: u32 = 4096;
/// Long enough that connecting anew costs nothing, short enough that new instances soon have their share.
const DEFAULT_CONNECTION_AGE_SECONDS: u32 = 600;
/// Four times what a trained seller manages: see `conduct`.
const DEFAULT_LOOK_UPS_PER_MINUTE: u32 = 4;
/// What a nation wrote on paper in a morning comes in in half an hour; and a fraction of what a store records.
const DEFAULT_LATE_SALES_PER_SECOND: u32 = 500;
/// What is asked for at the least: two years.
const DEFAULT_KEEP_MONTHS: u32 = 24;
/// The audit log's name beside the data.
const AUDIT: &str = "audit";
/// The bound on a clean stop.
const DEFAULT_DRAIN_SECONDS: u32 = 10;

/// The longest lease: a seat that nobody can take over for longer is a seat lost.
const MAX_LEASE_SECONDS: u32 = 600;
/// The largest cap: no site has so many windows; a larger number is a slip.
const MAX_CAP: u32 = 1000;
/// The largest capacity; a larger number is a slip.
const MAX_CAPACITY: u32 = 10_000_000;
/// The slowest reload.
const MAX_RELOAD_SECONDS: u32 = 3600;
/// The most calls at once.
const MAX_IN_FLIGHT: u32 = 1_000_000;
/// The most lanes: each is a connection.
const MAX_LANES: u32 = 256;
/// The largest group: a server that works on one trip for longer keeps everybody else waiting.
const MAX_GROUP: u32 = 4096;
/// The longest queue.
const MAX_QUEUE: u32 = 1_000_000;
/// The oldest connection: a day.
const MAX_CONNECTION_AGE_SECONDS: u32 = 86_400;
/// The most look-ups: a larger number is a slip, and 0 says the same.
const MAX_LOOK_UPS_PER_MINUTE: u32 = 6_000;
const MAX_LATE_SALES_PER_SECOND: u32 = 100_000;
/// A century: a larger number is a slip.
const MAX_KEEP_MONTHS: u32 = 1_200;
/// The most threads of the public feed.
const MAX_FEED_WORKERS: u32 = 256;
/// The longest stop.
const MAX_DRAIN_SECONDS: u32 = 600;

/// The fields of `[tls]` that must all be there or none.
const TLS: [&str; 3] = ["certificate", "key", "client_ca"];

/// The sections of the file.
const SECTIONS: [&[&str]; 10] = [
    &["tls"],
    &["counters"],
    &["admin"],
    &["feed"],
    &["sessions"],
    &["sessions", "cap_by_channel"],
    &["sessions", "cap_by_site"],
    &["lanes"],
    &["audit"],
    &["telemetry"],
];

/// How this process is to run. Every value has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where claims are recorded.
    pub store: Store,
    /// Whether a store that may lose confirmed sales is accepted; receipts then say so.
    pub allow_volatile: bool,
    /// The instant that a simulated clock starts from; `None`: the machine's own time. Only the command line can set it.
    pub clock: Option<Timestamp>,
    /// The files of certificates; `None`: nothing is encrypted, and nobody proves who they are.
    pub tls: Option<TlsFiles>,
    /// Where terminals call. Loopback unless there are certificates.
    pub counters: SocketAddr,
    /// How old a terminal's connection becomes, give or take a tenth, before it is asked to connect anew.
    pub connection_age: Duration,
    /// How many people a site may look up in a minute, for each of its seats, beside those to whom it sells; 0: any number.
    pub look_ups_per_minute: u32,
    /// How many late sales of uploaded journals each instance takes in a second.
    pub late_sales_per_second: u32,
    /// Where operators, metrics and health probes call.
    pub admin: SocketAddr,
    /// What this process does.
    pub roles: Roles,
    /// The public feed of stock.
    pub feed: Feed,
    /// The directory of the programme files; `None`: the built-in programmes.
    pub policies: Option<PathBuf>,
    /// The site registry; `None`: the demo sites.
    pub sites: Option<PathBuf>,
    /// The key file.
    pub keys: PathBuf,
    /// Whether the key file is made if it is missing: only where nobody named one and the store is on this machine. Two
    /// machines with keys of their own would take the same buyer for two.
    pub make_keys: bool,
    /// The file in which is kept how far a Redis had got by what was acknowledged; `None`: nowhere. Beside the key file where that is
    /// made.
    pub witness: Option<PathBuf>,
    /// Who may be connected.
    pub sessions: Sessions,
    /// How calls share trips to Redis. The embedded store shares its syncs by itself.
    pub lanes: Lanes,
    /// Where every access is put on record; `None`: only what operators do, and in the program's log.
    pub audit: Option<Audit>,
    /// What is logged, and how.
    pub telemetry: Telemetry,
    /// How often policies, sites and certificates are looked at for changes.
    pub reload: Duration,
    /// Whether clients may ask which services and messages there are.
    pub reflection: bool,
    /// The most calls that are worked on at once; more are told to come back.
    pub max_in_flight: NonZeroU32,
    /// How long calls under way may take to end after the process was told to stop.
    pub drain: Duration,
}

/// What a process does. Health and metrics it always tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Answers counters and operators.
    pub counters: bool,
    /// Answers whoever asks for stock.
    pub feed: bool,
}

impl Roles {
    const ALL: Self = Self { counters: true, feed: true };
}

/// The words that stand in the file.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.counters, self.feed) {
            (true, true) => "counters,feed",
            (true, false) => "counters",
            (false, _) => "feed",
        })
    }
}

/// The public feed of stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Where anybody asks, over HTTP and gRPC. Loopback unless there are certificates.
    pub listen: SocketAddr,
    /// Of which programme the endpoints of 2020 speak; `None`: of the first.
    pub programme: Option<ProgrammeId>,
    /// Threads of its own.
    pub workers: NonZeroUsize,
}

/// The files of certificates and keys, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The service's own certificate with its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose certificates callers show.
    pub client_ca: PathBuf,
    /// Their lists of revoked certificates; `None`: none is ever taken back.
    pub revoked: Option<PathBuf>,
}

/// A certificate with its chain, and its key, as they stand in their files.
pub type OwnText = (String, Zeroizing<String>);
/// Authorities, and their lists of revoked certificates, as they stand in their files.
pub type ClientsText = (String, Option<String>);

/// Who may be connected, and for how long without a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    /// How long a seat outlives the last sign of its terminal.
    pub lease: Duration,
    /// How many sessions may be live in the nation; more wait in line.
    pub capacity: NonZeroU32,
    /// How many seats a site has unless something below says otherwise.
    pub cap_default: NonZeroU32,
    /// How many seats the sites of a channel have.
    pub cap_by_channel: BTreeMap<Channel, NonZeroU32>,
    /// How many seats one site has: stronger than its channel's.
    pub cap_by_site: BTreeMap<SiteId, NonZeroU32>,
}

impl Sessions {
    /// How many seats this site has.
    pub fn cap(&self, site: SiteId, channel: Channel) -> NonZeroU32 {
        let own = self.cap_by_site.get(&site).or_else(|| self.cap_by_channel.get(&channel));
        own.copied().unwrap_or(self.cap_default)
    }
}

/// How calls share trips to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// Connections that carry calls.
    pub count: NonZeroUsize,
    /// The most calls that share a trip.
    pub group: NonZeroUsize,
    /// The most calls that wait for a trip; more are told to come back.
    pub queue: NonZeroUsize,
}

/// Where every access is put on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The directory, which is this process's alone.
    pub directory: PathBuf,
    /// For how many whole months a record and its month's key are kept.
    pub keep_months: u32,
}

/// What is logged, and how. Traces and metrics are sent where the standard `OTEL_…` variables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// How a log line is written.
    pub log_format: LogFormat,
    /// Which log lines are written, as `tracing` directives ("info,rationd::ledger=debug").
    pub log_filter: String,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// The word that stands in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

/// What the command line says: stronger than the environment and the file. Texts are checked like those of the file.
#[derive(Default)]
pub struct Overrides {
    /// `--store`
    pub store: Option<String>,
    /// `--listen`: where terminals call.
    pub listen: Option<String>,
    /// `--admin-listen`
    pub admin_listen: Option<String>,
    /// `--feed-listen`
    pub feed_listen: Option<String>,
    /// `--roles`
    pub roles: Option<String>,
    /// `--policies`
    pub policies: Option<String>,
    /// `--sites`
    pub sites: Option<String>,
    /// `--keys`
    pub keys: Option<String>,
    /// `--audit`
    pub audit: Option<String>,
    /// `--tls-certificate`
    pub tls_certificate: Option<String>,
    /// `--tls-key`
    pub tls_key: Option<String>,
    /// `--tls-client-ca`
    pub tls_client_ca: Option<String>,
    /// `--tls-revoked`
    pub tls_revoked: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--clock`
    pub clock: Option<Timestamp>,
    /// `--allow-volatile`
    pub allow_volatile: bool,
}

/// Something that is wrong, and where it stands: a file with line and field, a variable or a flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Where to look.
    pub place: String,
    /// What is wrong there, and what would be right. Never a secret.
    pub problem: String,
}

impl ConfigError {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// Everything that is wrong, at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(
    /// In the order in which they were found.
    pub Vec<ConfigError>,
);

impl ConfigErrors {
    pub(crate) fn one(place: impl fmt::Display, problem: impl Into<String>) -> Self {
        Self(vec![ConfigError::new(place.to_string(), problem)])
    }
}

/// One problem to a line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}

impl Config {
    /// Gathers the configuration. `path` names the file; without it `RATIOND_CONFIG` does, and without that there is
    /// no file and every field has its default. `variables` is the environment, [`environment()`] outside tests.
    pub fn load(
        path: Option<&Path>,
        overrides: Overrides,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let mut of_variables = Settings::none();
        let variables = environment::ours(variables, &mut of_variables);
        of_variables.finish(&[])?;

        let named =
            variables.iter().find(|(name, _)| name == environment::CONFIG_FILE).map(|(_, value)| Path::new(value));
        let mut settings = match path.or(named) {
            Some(path) => {
                let name = path.display().to_string();
                Settings::parse(&read(path)?, &name)?
            }
            None => Settings::none(),
        };
        environment::apply(variables, &mut settings);
        let clock = overrides.clock;
        overrides.apply(&mut settings);
        Self::check(settings, clock)
    }

    /// From a file's text alone.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_text(text: &str) -> Result<Self, ConfigErrors> {
        Self::check(Settings::parse(text, "rationd.toml")?, None)
    }

    fn check(mut settings: Settings, clock: Option<Timestamp>) -> Result<Self, ConfigErrors> {
        let s = &mut settings;
        let (encrypted, store_named) = (TLS.iter().any(|field| s.has(&["tls", field])), s.has(&["store"]));
        let store = s.text(&["store"], str::parse::<Store>);
        let allow_volatile = s.flag(&["allow_volatile"]).unwrap_or(false);
        let tls = tls_files(s);
        let counters = s.text(&["counters", "listen"], |text| exposed(text, encrypted, store_named));
        let connection_age = seconds(
            s,
            &["counters", "connection_age_seconds"],
            DEFAULT_CONNECTION_AGE_SECONDS,
            MAX_CONNECTION_AGE_SECONDS,
        );
        let late_sales = s.number(&["counters", "late_sales_per_second"], 1, MAX_LATE_SALES_PER_SECOND);
        let look_ups = s.number(&["counters", "look_ups_per_minute"], 0, MAX_LOOK_UPS_PER_MINUTE);
        let admin = s.text(&["admin", "listen"], address);
        let roles = s.text(&["roles"], roles);
        let feed = s.text(&["feed", "listen"], |text| exposed(text, encrypted, store_named));
        let feed_programme = s.text(&["feed", "programme"], str::parse::<ProgrammeId>);
        let feed_workers = size(s, &["feed", "workers"], DEFAULT_FEED_WORKERS, MAX_FEED_WORKERS);
        let policies = s.text(&["policies"], some_path);
        let sites = s.text(&["sites"], some_path);
        let keys = s.text(&["keys"], some_path);
        let witness = s.text(&["witness"], some_path);
        let lease = seconds(s, &["sessions", "lease_seconds"], DEFAULT_LEASE_SECONDS, MAX_LEASE_SECONDS);
        let capacity = positive(s, &["sessions", "capacity"], DEFAULT_CAPACITY, MAX_CAPACITY);
        let cap_default = positive(s, &["sessions", "cap_default"], DEFAULT_CAP, MAX_CAP);
        let cap_by_channel = caps(s, "cap_by_channel");
        let cap_by_site = caps(s, "cap_by_site");
        let lanes = Lanes {
            count: size(s, &["lanes", "count"], DEFAULT_LANES, MAX_LANES),
            group: size(s, &["lanes", "group"], DEFAULT_GROUP, MAX_GROUP),
            queue: size(s, &["lanes", "queue"], DEFAULT_QUEUE, MAX_QUEUE),
        };
        let audit = s.text(&["audit", "directory"], some_path);
        let is_audited = s.flag(&["audit", "enabled"]);
        let keep_months = s.number(&["audit", "keep_months"], DEFAULT_KEEP_MONTHS, MAX_KEEP_MONTHS);
        let log_format = s.text(&["telemetry", "log_format"], log_format).unwrap_or(LogFormat::Human);
        let log_filter = s.text(&["telemetry", "log_filter"], log_filter);
        let reload = seconds(s, &["reload_seconds"], DEFAULT_RELOAD_SECONDS, MAX_RELOAD_SECONDS);
        let reflection = s.flag(&["reflection"]).unwrap_or(true);
        let max_in_flight = positive(s, &["max_in_flight"], DEFAULT_MAX_IN_FLIGHT, MAX_IN_FLIGHT);
        let drain = seconds(s, &["drain_seconds"], DEFAULT_DRAIN_SECONDS, MAX_DRAIN_SECONDS);

        let data = if clock.is_some() { DEFAULT_SIMULATED_DATA } else { DEFAULT_DATA };
        let store = store.unwrap_or_else(|| Store::Embedded(data.into()));
        let counters = counters.unwrap_or(DEFAULT_COUNTERS);
        let admin = admin.unwrap_or(DEFAULT_ADMIN);
        let roles = roles.unwrap_or(Roles::ALL);
        let feed = feed.unwrap_or_else(|| {
            // The first one after the counters' that is nobody else's here.
            let mut ports = (counters.port()..=u16::MAX).skip(FEED_AFTER).filter(|port| *port != admin.port());
            let port = ports.next().filter(|_| counters.port() != 0).unwrap_or(0);
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
        });
        // Port 0 asks for any free port, so two of them do not collide. A refused address is told by itself.
        if counters == admin && counters.port() != 0 && !s.has_problems() {
            s.problem("admin.listen", format!("is {admin}, as counters.listen is: give each its own port"));
        }
        for (other, name, served) in [(counters, "counters.listen", roles.counters), (admin, "admin.listen", true)] {
            if roles.feed && served && feed == other && feed.port() != 0 && !s.has_problems() {
                s.problem("feed.listen", format!("is {feed}, as {name} is: give each its own port"));
            }
        }
        if !roles.counters && matches!(store, Store::Embedded(_)) && !s.has_problems() {
            s.problem("roles", "an embedded store is one process's alone: leave roles out, or set store to a Redis");
        }
        let audit = audit.or_else(|| match &store {
            Store::Embedded(directory) => Some(directory.join(AUDIT)),
            // Several instances may be started from one place, and each must have a directory of its own.
            Store::Redis(_) => None,
        });
        if is_audited == Some(true) && audit.is_none() && !s.has_problems() {
            s.problem("audit.directory", "is missing: name a directory that is this instance's alone and outlives it");
        }
        settings.finish(&SECTIONS)?;
        let make_keys = keys.is_none() && store.is_local();
        let keys = keys.unwrap_or_else(|| key_file(&store));
        // Made-up times are tried on one store after the other.
        let own_witness = store.witness_file().filter(|_| make_keys && clock.is_none());
        let keep_months = keep_months.unwrap_or(DEFAULT_KEEP_MONTHS);
        let audit = audit.filter(|_| is_audited != Some(false)).map(|directory| Audit { directory, keep_months });
        Ok(Self {
            make_keys,
            witness: witness.or_else(|| own_witness.map(|name| keys.with_file_name(name))),
            keys,
            store,
            allow_volatile,
            clock,
            tls,
            counters,
            connection_age,
            look_ups_per_minute: look_ups.unwrap_or(DEFAULT_LOOK_UPS_PER_MINUTE),
            late_sales_per_second: late_sales.unwrap_or(DEFAULT_LATE_SALES_PER_SECOND),
            admin,
            roles,
            feed: Feed { listen: feed, programme: feed_programme, workers: feed_workers },
            policies,
            sites,
            sessions: Sessions { lease, capacity, cap_default, cap_by_channel, cap_by_site },
            lanes,
            audit,
            telemetry: Telemetry {
                log_format,
                log_filter: log_filter.unwrap_or_else(|| DEFAULT_LOG_FILTER.to_owned()),
            },
            reload,
            reflection,
            max_in_flight,
            drain,
        })
    }

    /// The secret keys; on the first start in development they are made.
    pub fn load_keys(&self) -> Result<Keys, ConfigErrors> {
        if self.make_keys { Keys::load_or_create(&self.keys) } else { Keys::load(&self.keys) }
    }

    /// The site registry, or the demo sites if none is named.
    pub fn load_sites(&self) -> Result<Sites, ConfigErrors> {
        let Some(path) = &self.sites else { return Ok(Sites::demo()) };
        Sites::parse(&read(path)?, &path.display().to_string()).map_err(|errors| {
            let place = |error: &crate::sites::SiteError| format!("{}:{}: {}", error.file, error.line, error.column);
            ConfigErrors(errors.0.iter().map(|error| ConfigError::new(place(error), &error.problem)).collect())
        })
    }
}

impl TlsFiles {
    /// What the files of the service's own certificate and of its key hold.
    pub fn read_own(&self) -> Result<OwnText, ConfigErrors> {
        both(read(&self.certificate), keys::read_private(&self.key, "name the key of tls.certificate"))
    }

    /// The service's own certificate with its key. Everything that is wrong with the two files is told at once.
    pub fn own(&self, (certificate, key): &OwnText) -> Result<Identity, ConfigErrors> {
        Identity::from_pem(certificate.as_bytes(), key.as_bytes())
            .map_err(|bad| ConfigErrors(bad.into_iter().map(|bad| self.told(bad)).collect()))
    }

    /// What the files hold that say who is believed.
    pub fn read_clients(&self) -> Result<ClientsText, ConfigErrors> {
        Ok((read(&self.client_ca)?, self.revoked.as_deref().map(read).transpose()?))
    }

    /// Whose certificates are believed.
    pub fn clients(&self, (authorities, revoked): &ClientsText) -> Result<Clients, ConfigErrors> {
        Clients::from_pem(authorities.as_bytes(), revoked.as_ref().map(String::as_bytes))
            .map_err(|bad| ConfigErrors(vec![self.told(bad)]))
    }

    /// All of it, and everything that is wrong with any of it at once.
    pub fn load(&self) -> Result<(Identity, Clients), ConfigErrors> {
        let own = self.read_own().and_then(|text| self.own(&text));
        both(own, self.read_clients().and_then(|text| self.clients(&text)))
    }

    /// Something that is wrong with one of the files.
    pub fn told(&self, bad: BadPem) -> ConfigError {
        let path = match bad.part {
            Part::Certificate => &self.certificate,
            Part::Key => &self.key,
            Part::Authorities => &self.client_ca,
            Part::Revoked => self.revoked.as_ref().unwrap_or(&self.client_ca),
        };
        ConfigError::new(path.display().to_string(), bad.problem)
    }
}

/// Both, or everything that is wrong with either.
fn both<A, B>(a: Result<A, ConfigErrors>, b: Result<B, ConfigErrors>) -> Result<(A, B), ConfigErrors> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => {
            let errors = [a.err(), b.err()];
            Err(ConfigErrors(errors.into_iter().flatten().flat_map(|errors| errors.0).collect()))
        }
    }
}

/// The programme files of a directory (`*.toml`), each with its name for messages, in the order of their names.
/// Symbolic links are followed, so a mounted ConfigMap is a directory like any other.
pub fn read_policy_files(directory: &Path) -> Result<Vec<(String, String)>, ConfigErrors> {
    let error = |problem: String| ConfigErrors::one(directory.display(), problem);
    let unreadable = |e: std::io::Error| error(format!("cannot be read: {e}"));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(error("holds no programme: put NAME.toml files there, or leave `policies` out".into()));
    }
    paths.sort();
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        match read(&path) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(errors) => problems.extend(errors.0),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(ConfigErrors(problems)) }
}

impl Overrides {
    fn apply(self, settings: &mut Settings) {
        for (path, flag, value) in [
            (&["store"][..], "--store", self.store),
            (&["counters", "listen"], "--listen", self.listen),
            (&["admin", "listen"], "--admin-listen", self.admin_listen),
            (&["feed", "listen"], "--feed-listen", self.feed_listen),
            (&["roles"], "--roles", self.roles),
            (&["policies"], "--policies", self.policies),
            (&["sites"], "--sites", self.sites),
            (&["keys"], "--keys", self.keys),
            (&["audit", "directory"], "--audit", self.audit),
            (&["tls", "certificate"], "--tls-certificate", self.tls_certificate),
            (&["tls", "key"], "--tls-key", self.tls_key),
            (&["tls", "client_ca"], "--tls-client-ca", self.tls_client_ca),
            (&["tls", "revoked"], "--tls-revoked", self.tls_revoked),
            (&["telemetry", "log_format"], "--log-format", self.log_format),
            (&["allow_volatile"], "--allow-volatile", self.allow_volatile.then(|| "true".to_owned())),
        ] {
            if let Some(value) = value {
                settings.override_with(path.iter().map(|part| (*part).to_owned()).collect(), flag, value);
            }
        }
    }
}

fn seconds(settings: &mut Settings, path: &[&str], default: u32, most: u32) -> Duration {
    Duration::from_secs(settings.number(path, 1, most).unwrap_or(default).into())
}

fn positive(settings: &mut Settings, path: &[&str], default: u32, most: u32) -> NonZeroU32 {
    NonZeroU32::new(settings.number(path, 1, most).unwrap_or(default)).unwrap_or(NonZeroU32::MIN)
}

fn size(settings: &mut Settings, path: &[&str], default: u32, most: u32) -> NonZeroUsize {
    positive(settings, path, default, most).try_into().unwrap_or(NonZeroUsize::MIN)
}

/// The caps of a section whose keys are names of sites or channels.
fn caps<Name>(settings: &mut Settings, section: &str) -> BTreeMap<Name, NonZeroU32>
where
    Name: std::str::FromStr<Err = crate::ids::IdError> + Ord,
{
    let mut caps = BTreeMap::new();
    for written in settings.names_below(&["sessions", section]) {
        let path = ["sessions", section, &written];
        match written.parse() {
            Ok(name) => {
                caps.insert(name, positive(settings, &path, DEFAULT_CAP, MAX_CAP));
            }
            Err(error) => settings.refuse(&path, format!("{error}")),
        }
    }
    caps
}

fn key_file(store: &Store) -> PathBuf {
    match store {
        Store::Embedded(directory) => directory.join(KEY_FILE),
        Store::Redis(_) => Path::new(DEFAULT_DATA).join(KEY_FILE),
    }
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.trim().parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:7420")
}

fn roles(text: &str) -> Result<Roles, &'static str> {
    let mut roles = Roles { counters: false, feed: false };
    for word in text.split(',').map(str::trim) {
        match word {
            "counters" => roles.counters = true,
            "feed" => roles.feed = true,
            _ => return Err("must be \"counters\", \"feed\" or both, \"counters,feed\""),
        }
    }
    Ok(roles)
}

/// Off loopback everybody can call. So everybody must prove who they are, and where sales are recorded must have been thought of.
fn exposed(text: &str, encrypted: bool, store_named: bool) -> Result<SocketAddr, String> {
    let address = address(text)?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let missing = [
        (!encrypted).then_some(
            "callers can prove who they are (set tls.certificate, tls.key and tls.client_ca; for development `rationd dev-certs` \
             makes them)",
        ),
        (!store_named).then_some(
            "a store is named (set store to redis://HOST:PORT/, or to embedded:DIRECTORY to record all sales on this machine \
             alone)",
        ),
    ];
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    if missing.is_empty() {
        return Ok(address);
    }
    Err(format!("must be on loopback (127.0.0.1 or [::1]) unless {}", missing.join(" and ")))
}

/// All three files, or none; and with them a list of revoked certificates, or none.
fn tls_files(settings: &mut Settings) -> Option<TlsFiles> {
    let written = TLS.map(|field| settings.has(&["tls", field]));
    let files = TLS.map(|field| settings.text(&["tls", field], some_path));
    let revoked = settings.text(&["tls", "revoked"], some_path);
    for (field, written) in TLS.into_iter().zip(written) {
        if !written && (revoked.is_some() || files.iter().any(Option::is_some)) {
            let problem = "is missing: TLS needs certificate, key and client_ca; write all three or none";
            settings.problem(format!("tls.{field}"), problem);
        }
    }
    let [certificate, key, client_ca] = files;
    Some(TlsFiles { certificate: certificate?, key: key?, client_ca: client_ca?, revoked })
}

fn some_path(text: &str) -> Result<PathBuf, &'static str> {
    if text.trim().is_empty() { Err("is empty: write a path or leave it out") } else { Ok(text.into()) }
}

fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    [LogFormat::Human, LogFormat::Json]
        .into_iter()
        .find(|format| format.name() == text)
        .ok_or("must be \"human\" or \"json\"")
}

fn log_filter(text: &str) -> Result<String, String> {
    if text.contains('[') {
        return Err("must not name spans: log lines stand in none; write levels such as \"info,rationd=debug\"".into());
    }
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("must be tracing directives such as \"info,rationd=debug\": {error}")),
    }
}

fn read(path: &Path) -> Result<String, ConfigErrors> {
    std::fs::read_to_string(path).map_err(|error| ConfigErrors::one(path.display(), format!("cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
