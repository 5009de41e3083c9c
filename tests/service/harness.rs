//! A service in this process, its store and its files, and the counters that call it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rationd::app::{self, Running, Watched};
use rationd::config::{Config, Keys, Overrides};
use rationd::grpc::v1::{
    self, open_session_response::Event, purchase_result::Outcome, purchase_service_client::PurchaseServiceClient,
    session_service_client::SessionServiceClient,
};
use rationd::ids::RequestId;
use rationd::telemetry::metrics::Metrics;
use rationd::time::{ManualClock, Timestamp};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

use crate::support::redis::RedisServer;

pub const MASKS: &str = "kr-public-mask-2020";
/// Two pharmacies and a post office of the demo sites.
pub const SEJONG: &str = "11000001";
pub const BOM: &str = "11000002";
pub const DAEGU_POST: &str = "21000002";

/// Everything that takes its time must have happened by then, even on a busy machine.
pub const IN_TIME: Duration = Duration::from_secs(10);

/// Runs each case over each store.
macro_rules! on_both_stores {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::$case($crate::service::harness::World::embedded()).await; })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::$case($crate::service::harness::World::redis()).await; })*
        }
    };
}

/// A store and the files beside it; services come and go over it.
pub struct World {
    pub dir: TempDir,
    pub redis: Option<RedisServer>,
}

/// A running service.
pub struct Service {
    pub clock: ManualClock,
    pub channel: Channel,
    running: Running,
}

impl World {
    pub fn embedded() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), redis: None }
    }

    pub fn redis() -> Self {
        Self { redis: Some(RedisServer::start()), ..Self::embedded() }
    }

    /// The store's name, for what is printed.
    pub fn name(&self) -> &'static str {
        if self.redis.is_some() { "redis" } else { "embedded" }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file into the directory of this world, and gives its path for a setting.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub async fn serve(&self, now: &str) -> Service {
        self.serve_with(now, &[]).await
    }

    /// A service with these settings, written as variables without their prefix (`SESSIONS__LEASE_SECONDS`).
    pub async fn serve_with(&self, now: &str, settings: &[(&str, &str)]) -> Service {
        let store = match &self.redis {
            Some(redis) => redis.url(),
            None => format!("embedded:{}", self.path("data").display()),
        };
        let mut all = BTreeMap::from([
            ("STORE", store),
            ("COUNTERS__LISTEN", "127.0.0.1:0".into()),
            ("ADMIN__LISTEN", "127.0.0.1:0".into()),
            ("KEYS", self.keys()),
            ("RELOAD_SECONDS", "1".into()),
            // Tests look people up at a speed that no counter has.
            ("COUNTERS__LOOK_UPS_PER_MINUTE", "0".into()),
        ]);
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let variables = all.into_iter().map(|(name, value)| (format!("RATIOND_{name}").into(), value.into()));
        let config = Config::load(None, Overrides::default(), variables).unwrap_or_else(|e| panic!("{e}"));
        let clock = ManualClock::new(at(now));
        // A service of this process that has just stopped may still have its file for a moment: until its last connection is gone.
        let started = Instant::now();
        let running = loop {
            let watched = Watched { metrics: Arc::new(Metrics::none()), scrape: Default::default() };
            match app::start(config.clone(), clock.clone(), watched).await {
                Ok(running) => break running,
                Err(e) if e.to_string().contains("in use by another process") && started.elapsed() < IN_TIME => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(e) => panic!("{e}"),
            }
        };
        let endpoint =
            Endpoint::from_shared(format!("http://{}", running.counters.unwrap())).unwrap().tcp_nodelay(true);
        // Where certificates are asked for, nobody is let in like this.
        let channel = if running.encrypted { endpoint.connect_lazy() } else { endpoint.connect().await.unwrap() };
        Service { clock, channel, running }
    }

    /// The same keys for every service of this world.
    fn keys(&self) -> String {
        let path = self.path("keys.toml");
        Keys::load_or_create(&path).unwrap_or_else(|e| panic!("{e}"));
        path.to_str().unwrap().to_owned()
    }

    /// Everything that the ledger has stored, bit for bit.
    pub async fn stored(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let Some(redis) = &self.redis else {
            let file = std::fs::read(self.path("data/ledger.redb")).unwrap();
            return BTreeMap::from([(b"ledger.redb".to_vec(), file)]);
        };
        let mut client = ::redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<Vec<u8>> = ::redis::cmd("KEYS").arg("*").query_async(&mut client).await.unwrap();
        let mut stored = BTreeMap::new();
        // How many trips there were is no record of anything, and levels of stock are made of what is recorded.
        let is_record = |key: &Vec<u8>| {
            let is_of_others = ["{door}", "{stock}", "{journal}"].iter().any(|tag| key.starts_with(tag.as_bytes()));
            !is_of_others && *key != rationd::ledger::redis::keys::UNITS.as_bytes()
        };
        for key in keys.into_iter().filter(is_record) {
            let dump = ::redis::cmd("DUMP").arg(&key).query_async(&mut client).await.unwrap();
            stored.insert(key, dump);
        }
        stored
    }
}

impl Service {
    pub fn set(&self, now: &str) {
        self.clock.set(at(now));
    }

    /// Where operators call.
    pub fn admin(&self) -> String {
        format!("http://{}", self.running.admin)
    }

    /// Where it listens, for clients that connect by themselves.
    pub fn address(&self) -> String {
        format!("http://{}", self.running.counters.unwrap())
    }

    /// Where anybody asks for stock.
    pub fn feed(&self) -> String {
        format!("http://{}", self.running.feed.unwrap())
    }

    /// A caller that has said who it is and has no session.
    pub fn caller(&self, site: &str, terminal: &str) -> Caller {
        Caller { channel: self.channel.clone(), site: site.into(), terminal: terminal.into(), token: None }
    }

    /// A counter whose session is open.
    pub async fn counter(&self, site: &str) -> Counter {
        self.terminal(site, "w1").await
    }

    pub async fn terminal(&self, site: &str, terminal: &str) -> Counter {
        match self.caller(site, terminal).open().await.unwrap() {
            Opened::Admitted(counter) => *counter,
            Opened::Full(full) => panic!("{site} is full: {full:?}"),
        }
    }

    /// What health says of a service ("" for the process).
    pub async fn is_serving(&self, name: &str) -> bool {
        use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
        let request = HealthCheckRequest { service: name.into() };
        let answer = HealthClient::new(self.channel.clone()).check(request).await.unwrap();
        answer.into_inner().status() == ServingStatus::Serving
    }

    /// Stops it as SIGTERM does; everything that was under way must have ended by itself.
    pub async fn stop(self) {
        drop(self.channel);
        self.running.stop().await.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Who calls.
#[derive(Clone)]
pub struct Caller {
    pub channel: Channel,
    pub site: String,
    pub terminal: String,
    pub token: Option<String>,
}

/// A caller with an open session, and the stream that keeps it.
pub struct Counter {
    pub caller: Caller,
    pub admitted: v1::Admitted,
    pub events: Streaming<v1::OpenSessionResponse>,
}

impl std::ops::Deref for Counter {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

pub enum Opened {
    Admitted(Box<Counter>),
    Full(v1::SiteFull),
}

impl Caller {
    pub fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        for (key, value) in [("rationd-site", &self.site), ("rationd-terminal", &self.terminal)] {
            if !value.is_empty() {
                request.metadata_mut().insert(key, value.parse().unwrap());
            }
        }
        if let Some(token) = &self.token {
            request.metadata_mut().insert("rationd-session", token.parse().unwrap());
        }
        request
    }

    pub fn without_session(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub fn purchases(&self) -> PurchaseServiceClient<Channel> {
        PurchaseServiceClient::new(self.channel.clone())
    }

    pub fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone())
    }

    pub async fn open(&self) -> Result<Opened, Status> {
        let request = self.request(v1::OpenSessionRequest { terminal: self.terminal.clone(), ..Default::default() });
        let mut events = self.sessions().open_session(request).await?.into_inner();
        match events.message().await?.and_then(|first| first.event) {
            Some(Event::Admitted(admitted)) => {
                let token = Some(admitted.session_token.clone());
                let caller = Self { token, ..self.clone() };
                Ok(Opened::Admitted(Box::new(Counter { caller, admitted, events })))
            }
            Some(Event::SiteFull(full)) => Ok(Opened::Full(full)),
            other => panic!("a session began with {other:?}"),
        }
    }

    pub async fn renew(&self) -> Result<v1::RenewSessionResponse, Status> {
        let session_token = self.token.clone().unwrap_or_default();
        let request = self.request(v1::RenewSessionRequest { session_token });
        Ok(self.sessions().renew_session(request).await?.into_inner())
    }

    pub async fn close(&self) -> Result<bool, Status> {
        let session_token = self.token.clone().unwrap_or_default();
        let request = self.request(v1::CloseSessionRequest { session_token, ..Default::default() });
        Ok(self.sessions().close_session(request).await?.into_inner().closed)
    }

    pub async fn check(&self, visit: &Visit) -> Result<Vec<v1::PurchaseResult>, Status> {
        let request = self.request(visit.check());
        Ok(self.purchases().check_purchase(request).await?.into_inner().results)
    }

    pub async fn purchase(&self, visit: &Visit) -> Result<Vec<v1::PurchaseResult>, Status> {
        let request = self.request(visit.purchase());
        Ok(self.purchases().purchase(request).await?.into_inner().results)
    }

    pub async fn hold(&self, visit: &Visit, length: Duration) -> Result<Vec<v1::PurchaseResult>, Status> {
        let request = self.request(visit.hold(length));
        Ok(self.purchases().hold_purchase(request).await?.into_inner().results)
    }

    pub async fn confirm(&self, of: &Known) -> Result<v1::PurchaseResult, Status> {
        let Known { programme, buyer, request_id } = of.clone();
        let request = self.request(v1::ConfirmHoldRequest { programme, buyer, request_id, ..Default::default() });
        Ok(self.purchases().confirm_hold(request).await?.into_inner().result.unwrap())
    }

    pub async fn release(&self, of: &Known) -> Result<v1::PurchaseResult, Status> {
        let Known { programme, buyer, request_id } = of.clone();
        let request = self.request(v1::ReleaseHoldRequest { programme, buyer, request_id, ..Default::default() });
        Ok(self.purchases().release_hold(request).await?.into_inner().result.unwrap())
    }

    pub async fn void(&self, of: &Known) -> Result<v1::PurchaseResult, Status> {
        let Known { programme, buyer, request_id } = of.clone();
        let request = self.request(v1::VoidPurchaseRequest { programme, buyer, request_id, ..Default::default() });
        Ok(self.purchases().void_purchase(request).await?.into_inner().result.unwrap())
    }

    pub async fn resolve(&self, of: &Known) -> Result<v1::PurchaseResult, Status> {
        let Known { programme, buyer, request_id } = of.clone();
        let request = self.request(v1::GetPurchaseRequest { programme, buyer, request_id, ..Default::default() });
        Ok(self.purchases().get_purchase(request).await?.into_inner().result.unwrap())
    }

    /// Sells one line; it must be decided.
    pub async fn sell(&self, visit: &Visit) -> v1::PurchaseResult {
        one(self.purchase(visit).await.unwrap())
    }

    /// Looks one line up; it must be decided.
    pub async fn look_up(&self, visit: &Visit) -> v1::PurchaseResult {
        one(self.check(visit).await.unwrap())
    }
}

pub fn one(mut results: Vec<v1::PurchaseResult>) -> v1::PurchaseResult {
    assert_eq!(results.len(), 1, "{results:?}");
    results.remove(0)
}

/// A visit, which can be sent as a look-up, a purchase or a hold.
#[derive(Clone)]
pub struct Visit {
    pub programme: String,
    pub agent: Option<v1::Agent>,
    pub lines: Vec<v1::Line>,
    pub family: Vec<i32>,
}

/// A purchase by its id.
#[derive(Clone)]
pub struct Known {
    pub programme: String,
    pub buyer: Option<v1::Buyer>,
    pub request_id: String,
}

impl Visit {
    /// One person who buys for themselves, under a new id.
    pub fn in_person(number: &str, quantity: u32) -> Self {
        Self::of(vec![own_line(number, quantity)])
    }

    pub fn of(lines: Vec<v1::Line>) -> Self {
        Self { programme: MASKS.into(), agent: None, lines, family: Vec::new() }
    }

    pub fn by(self, agent_birth_year: i32) -> Self {
        Self { agent: Some(v1::Agent { birth_year: agent_birth_year }), ..self }
    }

    pub fn under(self, programme: &str) -> Self {
        Self { programme: programme.into(), ..self }
    }

    /// The same visit under new ids.
    pub fn anew(&self) -> Self {
        let mut visit = self.clone();
        for line in &mut visit.lines {
            line.request_id = id();
        }
        visit
    }

    pub fn known(&self, line: usize) -> Known {
        let v1::Line { buyer, request_id, .. } = self.lines[line].clone();
        Known { programme: self.programme.clone(), buyer, request_id }
    }

    pub fn check(&self) -> v1::CheckPurchaseRequest {
        let Self { programme, agent, mut lines, family } = self.clone();
        for line in &mut lines {
            line.request_id.clear();
        }
        v1::CheckPurchaseRequest { programme, agent, lines, family_birth_years: family }
    }

    pub fn purchase(&self) -> v1::PurchaseRequest {
        let Self { programme, agent, lines, family } = self.clone();
        v1::PurchaseRequest { programme, agent, lines, family_birth_years: family, ..Default::default() }
    }

    pub fn hold(&self, length: Duration) -> v1::HoldPurchaseRequest {
        let Self { programme, agent, lines, family } = self.clone();
        let hold_for = Some(length.try_into().unwrap());
        v1::HoldPurchaseRequest { programme, agent, lines, family_birth_years: family, hold_for, ..Default::default() }
    }
}

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

pub fn id() -> String {
    RequestId::random().to_string()
}

pub fn resident(number: &str) -> Option<v1::Buyer> {
    Some(v1::Buyer { id: Some(v1::buyer::Id::ResidentNumber(number.into())) })
}

pub fn opaque(name: &str, birth_date: &str) -> Option<v1::Buyer> {
    let buyer = v1::OpaqueBuyer { id: name.into(), birth_date: birth_date.into() };
    Some(v1::Buyer { id: Some(v1::buyer::Id::Opaque(buyer)) })
}

pub fn own_line(number: &str, quantity: u32) -> v1::Line {
    line(resident(number), quantity, "", &[])
}

pub fn line(buyer: Option<v1::Buyer>, quantity: u32, relation: &str, papers: &[&str]) -> v1::Line {
    let papers = papers.iter().map(ToString::to_string).collect();
    v1::Line { request_id: id(), buyer, quantity, relation: relation.into(), papers }
}

/// A made-up number: birth date as YYMMDD, century digit, and a serial that makes it one of its own.
pub fn number(birth: &str, century: char, serial: u32) -> String {
    let twelve = format!("{birth}{century}{serial:05}");
    let weights = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5];
    let sum: u32 = twelve.chars().zip(weights).map(|(digit, weight)| digit.to_digit(10).unwrap() * weight).sum();
    format!("{twelve}{}", (11 - sum % 11) % 10)
}

/// The outcome's name; of a refusal the first reason's.
pub fn said(result: &v1::PurchaseResult) -> &'static str {
    match result.outcome.as_ref().expect("an outcome") {
        Outcome::MayBuy(_) => "MAY_BUY",
        Outcome::Approved(_) => "APPROVED",
        Outcome::Held(_) => "HELD",
        Outcome::Refused(refused) => refused.reasons[0].refusal().as_str_name().strip_prefix("REFUSAL_").unwrap(),
        Outcome::NotRequired(_) => "NOT_REQUIRED",
        Outcome::Released(_) => "RELEASED",
        Outcome::HoldExpired(_) => "HOLD_EXPIRED",
        Outcome::Voided(_) => "VOIDED",
        Outcome::AlreadySold(_) => "ALREADY_SOLD",
        Outcome::NotFound(_) => "NOT_FOUND",
        Outcome::NotRecorded(_) => "NOT_RECORDED",
        Outcome::NotYours(_) => "NOT_YOURS",
        Outcome::Failure(_) => "FAILURE",
    }
}

pub fn all_said(results: &[v1::PurchaseResult]) -> Vec<&'static str> {
    results.iter().map(said).collect()
}

pub fn receipt(result: &v1::PurchaseResult) -> v1::Receipt {
    match &result.outcome {
        Some(Outcome::Approved(approved)) => approved.receipt.clone().expect("a receipt"),
        other => panic!("no receipt: {other:?}"),
    }
}

pub fn units_left(result: &v1::PurchaseResult) -> Option<u32> {
    result.standing.as_ref().expect("a standing").units_left
}

pub fn next_date(result: &v1::PurchaseResult) -> Option<&str> {
    Some(result.standing.as_ref()?.next_chance.as_ref()?.date.as_str())
}

pub fn instant(wire: Option<prost_types::Timestamp>) -> Timestamp {
    let wire = wire.expect("an instant");
    Timestamp::from_millis(wire.seconds * 1_000 + i64::from(wire.nanos) / 1_000_000)
}

/// What an error says. Every one has a reason of ours, and none is UNKNOWN.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub code: Code,
    pub reason: String,
    pub message: String,
    /// Path and problem of each bad field.
    pub fields: Vec<(String, String)>,
    pub retry_after: Option<Duration>,
}

pub fn told(status: &Status) -> Told {
    assert_ne!(status.code(), Code::Unknown, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "rationd");
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    Told {
        code: status.code(),
        reason: info.reason.clone(),
        message: status.message().to_owned(),
        fields: fields.iter().map(|field| (field.field.clone(), field.description.clone())).collect(),
        retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
    }
}

/// What a failure that stands in an answer says, in the same terms.
pub fn told_in_answer(failure: &v1::Failure) -> Told {
    let fields = failure.invalid_fields.iter().map(|bad| (bad.field.clone(), bad.problem.clone())).collect();
    Told {
        code: Code::from(failure.code),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        fields,
        retry_after: failure.retry_after.map(|after| after.try_into().unwrap()),
    }
}

/// The error's reason, after its code was found to be this.
pub fn reason<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code) -> String {
    let told = told(&answer.expect_err("an error"));
    assert_eq!(told.code, code, "{told:?}");
    told.reason
}

/// Asks again and again until it is so; returns how long that took.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) -> Duration {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < IN_TIME, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    started.elapsed()
}
