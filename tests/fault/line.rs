//! Seats and places while faults strike: terminals that hold seats, and others that stand in line because no seat is free.
//!
//! Nobody gives a seat back, so nobody may come in, and every position must stay what it was.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rationd::grpc::v1::session_service_client::SessionServiceClient;
use rationd::grpc::v1::{OpenSessionRequest, OpenSessionResponse, RenewSessionRequest, open_session_response::Event};
use rationd::ids::SiteId;
use rationd::load::chance::Chance;
use serde::Serialize;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::failover::{Blow, takeover};
use super::kills::{a_while, row};
use super::row::alone;
use super::scene::Scene;

/// So many hold seats, and as many stand in line, each the only terminal of its site.
const EACH: u32 = 100;
/// Longer than a seat outlives the last sign of its terminal.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(8);
/// How long a terminal insists after a fault.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many seats and places were looked for after faults, and found as they were.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Kept {
    seats: u32,
    seats_kept: u32,
    places: u32,
    places_kept: u32,
}

impl Kept {
    /// Whether nobody has lost anything, and somebody was looked at.
    pub fn is_all(&self) -> bool {
        (self.seats, self.places) == (self.seats_kept, self.places_kept) && self.seats > 0 && self.places > 0
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seats, seats_kept, places, places_kept } = self;
        write!(f, "kept: {seats_kept} of {seats} seats, {places_kept} of {places} places")
    }
}

/// Who holds seats and who stands in line behind them and the crowd.
pub struct Line {
    seats: Vec<Standing>,
    places: Vec<Standing>,
    pub kept: Kept,
}

impl Line {
    /// Sites beside those of the crowd.
    pub const SITES: u32 = 2 * EACH;
    /// Seats in the nation for the crowd's 24 terminals and for those who hold seats here, with a short lease.
    pub const VARIABLES: [(&str, &str); 2] =
        [("RATIOND_SESSIONS__CAPACITY", "124"), ("RATIOND_SESSIONS__LEASE_SECONDS", "6")];

    /// Of the terminals of these sites, which find the service on this port.
    pub fn of(port: u16, sites: &[SiteId]) -> Self {
        let channel = || Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy();
        let mut all: Vec<_> = sites.iter().map(|site| Standing::new(channel(), *site)).collect();
        let places = all.split_off(all.len() / 2);
        Self { seats: all, places, kept: Kept::default() }
    }

    /// Lets them in, unless they are there already, and says whether it did: those for whom there are seats, and then the others,
    /// each to a place of its own.
    pub async fn forms(&mut self) -> bool {
        if self.places.iter().any(|terminal| terminal.position > 0) {
            return false;
        }
        let seats = join_all(self.seats.iter_mut().map(|terminal| terminal.opens(""))).await;
        assert!(seats.iter().all(|found| matches!(found, Found::Seat { .. })), "{seats:?}");
        let places = join_all(self.places.iter_mut().map(Standing::takes_its_place)).await;
        assert_eq!(BTreeSet::from_iter(places), (1..=u64::from(EACH)).collect());
        true
    }

    /// Looks after a fault who still has what they had.
    pub async fn look(&mut self) {
        let seats = join_all(self.seats.iter_mut().map(Standing::has_its_seat)).await;
        let places = join_all(self.places.iter_mut().map(Standing::has_its_place)).await;
        let many = |all: &[bool]| u32::try_from(all.iter().filter(|kept| **kept).count()).unwrap();
        self.kept.seats += EACH;
        self.kept.seats_kept += many(&seats);
        self.kept.places += EACH;
        self.kept.places_kept += many(&places);
    }
}

/// What a terminal found when it opened its session.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Seat { was_its_own: bool },
    Place { rank: u32, position: u64, lost: bool },
    Neither,
}

/// A terminal with the last token that it was given.
struct Standing {
    site: SiteId,
    client: SessionServiceClient<Channel>,
    token: String,
    /// Where it was in the line at first; 0: in no line.
    position: u64,
    /// Its session or its wait lives while this does.
    events: Option<Streaming<OpenSessionResponse>>,
}

impl Standing {
    fn new(channel: Channel, site: SiteId) -> Self {
        Self { site, client: SessionServiceClient::new(channel), token: String::new(), position: 0, events: None }
    }

    /// Opens its session anew, with this token of a place, as often as it takes to be told how it stands.
    async fn opens(&mut self, place_token: &str) -> Found {
        let begun = Instant::now();
        loop {
            match self.open(place_token).await {
                Ok(found) => return found,
                Err(status) => assert!(begun.elapsed() < PATIENCE, "{}: {status}", self.site),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn open(&mut self, place_token: &str) -> Result<Found, Status> {
        let message = OpenSessionRequest { terminal: "w1".to_owned(), place_token: place_token.to_owned() };
        let request = self.request(message);
        let mut events = self.client.open_session(request).await?.into_inner();
        let mut lost = false;
        loop {
            let said = tokio::time::timeout(PATIENCE, events.message()).await;
            let event = said.map_err(|_| Status::deadline_exceeded("it is told nothing"))??.and_then(|it| it.event);
            let found = match event {
                Some(Event::Admitted(admitted)) => {
                    self.token = admitted.session_token;
                    Found::Seat { was_its_own: admitted.replaced_earlier }
                }
                Some(Event::Waiting(waiting)) => {
                    self.token = waiting.place_token;
                    lost |= waiting.place_lost;
                    let Some(position) = waiting.position else { continue };
                    Found::Place { rank: waiting.rank, position, lost }
                }
                _ => Found::Neither,
            };
            self.events = Some(events);
            return Ok(found);
        }
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        for (name, value) in [("rationd-site", self.site.as_str()), ("rationd-terminal", "w1")] {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        request
    }

    /// Whether its token is still that of a live seat, and its next session replaces one of its own.
    async fn has_its_seat(&mut self) -> bool {
        let begun = Instant::now();
        let renewed = loop {
            let request = self.request(RenewSessionRequest { session_token: self.token.clone() });
            match self.client.renew_session(request).await {
                Ok(_) => break true,
                Err(status) if status.code() == Code::FailedPrecondition => break false,
                Err(status) => assert!(begun.elapsed() < PATIENCE, "{}: {status}", self.site),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        renewed & (self.opens("").await == Found::Seat { was_its_own: true })
    }

    /// Stands in line for the first time, and gives its position.
    async fn takes_its_place(&mut self) -> u64 {
        let found = self.opens("").await;
        let Found::Place { rank: 0, position, lost: false } = found else { panic!("{}: {found:?}", self.site) };
        self.position = position;
        position
    }

    /// Whether it is told by its token that its place is not lost, and without one, so from the store, that it is where it was.
    async fn has_its_place(&mut self) -> bool {
        let token = self.token.clone();
        let (shown, kept) = (self.opens(&token).await, self.opens("").await);
        let same = Found::Place { rank: 0, position: self.position, lost: false };
        (shown == same) & (kept == same)
    }
}

/// Longer than a lease: time during which nobody could renew does not count.
#[test]
fn redis_away_for_longer_than_a_lease() {
    alone(async {
        let mut scene = Scene::redis_with_a_line().await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            scene.server().kill();
            tokio::time::sleep(LONGER_THAN_A_LEASE).await;
            scene.restart_redis();
        };
        row("line: away longer than a lease", "F4", "redis", 1, 30).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/service/line.rs stops a service and looks for one seat and two places"]
fn service_killed() {
    alone(async {
        let mut scene = Scene::redis_with_a_line().await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            scene.kill_service();
            a_while(chance).await;
            scene.start_service();
        };
        row("line: service killed", "F1", "redis", 3, 30).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/replicated.rs looks for 200 places after a failover, and for no seats"]
fn failover() {
    alone(async {
        let mut scene = Scene::replicated_with_a_line().await;
        let strike = async |scene: &mut Scene, _: &mut Chance| Blow::Killed.strike(scene).await;
        takeover("line: failover", "F6").play(&mut scene, strike).await;
    });
}
