use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as ClientIdentity};
use tonic::{Code, Streaming};
use tonic_types::StatusExt;
use tower::Layer;

use super::v1::anew::Reason;
use super::v1::list_stock_request::Area;
use super::v1::report_stock_request::Report as WireReport;
use super::v1::stock_service_client::StockServiceClient;
use super::v1::stock_service_server::StockServiceServer;
use super::v1::watch_stock_response::Told;
use super::*;
use crate::audit::Trail;
use crate::certs::{Authority, Pem, Subject};
use crate::grpc::accept::Speaks;
use crate::grpc::connections::Listens;
use crate::grpc::crowd::Room;
use crate::grpc::layers::OutermostLayer;
use crate::grpc::{Feed, Health, Tls, limits};
use crate::ids::RequestId;
use crate::ledger::LedgerError;
use crate::policy::Policies;
use crate::session::embedded::EmbeddedDoor;
use crate::session::registry::Configured;
use crate::session::token::DoorKey;
use crate::session::{Lease, Registry};
use crate::sites::Sites;
use crate::stock::board::Board;
use crate::stock::{Level, Place, Recorded, Report, Reports, Shown, Source, What};
use crate::telemetry::metrics::Metrics;
use crate::time::{SystemClock, Timestamp};
use crate::tls::{Clients, Identity};

const PROGRAMME: &str = "weekly-essentials";
const OTHER: &str = "kr-public-mask-2020";
const SITE: &str = "11000001";

/// A shelf in memory; `fails` answers instead of it.
#[derive(Clone, Default)]
struct Memory {
    reports: Arc<Mutex<HashMap<(SiteId, RequestId), Report>>>,
    fails: Arc<Mutex<Option<LedgerError>>>,
}

impl Shelf for Memory {
    async fn record(&self, report: Report) -> Result<Recorded, LedgerError> {
        if let Some(error) = self.fails.lock().unwrap().clone() {
            return Err(error);
        }
        let mut reports = self.reports.lock().unwrap();
        let stands = reports.get(&(report.key.site, report.request)).copied();
        Ok(match stands {
            Some(stands) if (stands.key, stands.what) != (report.key, report.what) => Recorded::OtherReport,
            Some(report) => Recorded::Stands { report, replayed: true },
            None => {
                reports.insert((report.key.site, report.request), report);
                Recorded::Stands { report, replayed: false }
            }
        })
    }

    async fn after(&self, _: Place, _: usize) -> Result<Reports, LedgerError> {
        Ok(Reports::Next(Vec::new()))
    }

    async fn keep(&self, _: Vec<u8>) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn kept(&self) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(None)
    }
}

fn stocks() -> Stocks {
    let policies = Arc::new(ArcSwap::from_pointee(Policies::built_in()));
    Stocks::new(Board::default(), Arc::new(ArcSwap::from_pointee(Sites::demo())), policies)
}

/// How TLS is spoken here, and by whom.
struct Certified {
    authority: Authority,
    pem: Pem,
}

impl Certified {
    fn new() -> Self {
        let (authority, pem) = Authority::new(SystemClock::real().now()).unwrap();
        Self { authority, pem }
    }

    fn tls(&self) -> Tls {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = self.authority.issue(&Subject::Service(vec!["127.0.0.1".to_owned()])).unwrap();
        let own = Identity::from_pem(own.certificate.as_bytes(), own.key.as_bytes()).unwrap();
        let clients = Clients::from_pem(self.pem.certificate.as_bytes(), None).unwrap();
        Tls::new(own, Arc::new(clients), Arc::new(Metrics::none()))
    }

    async fn connect(&self, at: SocketAddr, subject: Option<Subject>) -> StockServiceClient<Channel> {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.pem.certificate));
        let config = match subject.map(|subject| self.authority.issue(&subject).unwrap()) {
            Some(own) => config.identity(ClientIdentity::from_pem(&own.certificate, own.key.as_str())),
            None => config,
        };
        let endpoint = Endpoint::from_shared(format!("https://{at}")).unwrap().tls_config(config).unwrap();
        StockServiceClient::new(endpoint.connect().await.unwrap())
    }
}

async fn connect(at: SocketAddr) -> StockServiceClient<Channel> {
    StockServiceClient::connect(format!("http://{at}")).await.unwrap()
}

/// Where reports are taken, as the counters' listener takes them.
async fn counters(shelf: Memory, tls: Option<Tls>) -> (SocketAddr, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let clock = SystemClock::real();
    let door = EmbeddedDoor::open(&directory.path().join("door.redb"), Lease::DEFAULT, clock).unwrap();
    let configured =
        Configured { capacity: 1, cap: Arc::new(|_, _| 1), channel: Arc::new(|_| None), burning: Arc::new(|| false) };
    let (stocks, metrics) = (stocks(), Arc::new(Metrics::none()));
    let callers = Callers {
        sites: Arc::new(ArcSwap::new(stocks.sites())),
        registry: Arc::new(Registry::new(door, clock, Lease::DEFAULT, configured)),
        door_key: Arc::new(DoorKey::new([7; 32])),
        metrics: metrics.clone(),
    };
    let policies = Arc::new(ArcSwap::from_pointee(Policies::built_in()));
    let intake = Intake::new(shelf, clock, policies, Arc::new(|| None));
    let edge = ReportEdge { intake, callers: Arc::new(callers), tasks: TaskTracker::new() };
    let listens = Listens {
        idle: Duration::from_secs(5),
        speaks: tls.map_or(Speaks::Clear, Speaks::Tls),
        http1: false,
        room: Room { connections: 64, of_one_address: None, calls: 64 },
        patience: limits::TAKEN_WITHIN,
        metrics: metrics.clone(),
        age: None,
        trail: Trail::Log,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let service = OutermostLayer::new(metrics, clock, 64).layer(StockServiceServer::new(edge));
    let routes = tonic::service::Routes::default().add_service(service);
    tokio::spawn(listens.serve(listener, routes.prepare(), CancellationToken::new()));
    (at, directory)
}

/// Where stock is told.
async fn feed(stocks: &Stocks, tls: Option<Tls>, stop: CancellationToken) -> SocketAddr {
    let feed = Feed {
        max_connections: 64,
        stocks: stocks.clone(),
        metrics: Arc::new(Metrics::none()),
        clock: SystemClock::real(),
        tls,
        connection_age: Duration::from_secs(3600),
        reflection: true,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let pages = axum::Router::new().route("/page", axum::routing::get(async || "a page"));
    let health = Health::starting().await;
    tokio::spawn(feed.serve(listener, health, pages, stop));
    at
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// The fields that were not accepted.
fn fields(status: &Status) -> Vec<String> {
    assert_eq!((status.code(), reason(status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{status:?}");
    status.get_details_bad_request().unwrap().field_violations.into_iter().map(|bad| bad.field).collect()
}

fn delivery(units: i32) -> Option<WireReport> {
    Some(WireReport::Delivery(v1::Delivery { units }))
}

fn count(units: i32) -> Option<WireReport> {
    Some(WireReport::Count(v1::Count { units }))
}

fn report_of(report: Option<WireReport>) -> v1::ReportStockRequest {
    v1::ReportStockRequest {
        request_id: RequestId::random().to_string(),
        programme: PROGRAMME.to_owned(),
        at: None,
        report,
    }
}

fn from_site<M>(message: M, site: &str) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("rationd-site", site.parse().unwrap());
    request
}

#[tokio::test]
async fn a_report_stands_once_however_often_it_is_sent() {
    let shelf = Memory::default();
    let (at, _directory) = counters(shelf.clone(), None).await;
    let mut client = connect(at).await;
    let before = SystemClock::real().now();
    let delivered = report_of(delivery(250));
    let first = client.report_stock(from_site(delivered.clone(), SITE)).await.unwrap().into_inner();
    assert!(!first.replayed && first.at == first.received_at);
    assert!(crate::terminal::instant(&first.at.unwrap()).since(before) < Duration::from_secs(60));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let again = client.report_stock(from_site(delivered.clone(), SITE)).await.unwrap().into_inner();
    assert_eq!(again, v1::ReportStockResponse { replayed: true, ..first });
    // The scope of an id is the site.
    let of_another = client.report_stock(from_site(delivered.clone(), "11000002")).await.unwrap().into_inner();
    assert!(!of_another.replayed);
    for report in [count(250), delivery(251)] {
        let other = v1::ReportStockRequest { report, ..delivered.clone() };
        let status = client.report_stock(from_site(other, SITE)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "REQUEST_ID_REUSED"));
    }
    for report in [count(0), Some(WireReport::Pause(v1::Pause {})), Some(WireReport::Resume(v1::Resume {}))] {
        assert!(!client.report_stock(from_site(report_of(report), SITE)).await.unwrap().into_inner().replayed);
    }
    let mut whats: Vec<_> = shelf.reports.lock().unwrap().values().map(|report| report.what).collect();
    whats.sort_by_key(|what| format!("{what:?}"));
    let delivered = What::Delivered(250);
    assert_eq!(whats, [What::Counted(0), delivered, delivered, What::Paused, What::Resumed]);
}

#[tokio::test]
async fn what_cannot_be_true_is_refused_by_the_name_of_its_field() {
    let shelf = Memory::default();
    let (at, _directory) = counters(shelf.clone(), None).await;
    let mut client = connect(at).await;
    let moment = |ahead_ms: i64| {
        let at = Timestamp::from_millis(SystemClock::real().now().as_millis() + ahead_ms);
        v1::ReportStockRequest { at: Some(instant(at)), ..report_of(count(1)) }
    };
    let wire = |seconds, nanos| v1::ReportStockRequest {
        at: Some(prost_types::Timestamp { seconds, nanos }),
        ..report_of(delivery(1))
    };
    let cases: Vec<(v1::ReportStockRequest, &[&str])> = vec![
        (report_of(count(-1)), &["count.units"]),
        (report_of(count(1_000_001)), &["count.units"]),
        (report_of(delivery(0)), &["delivery.units"]),
        (report_of(delivery(i32::MIN)), &["delivery.units"]),
        (report_of(None), &["report"]),
        (v1::ReportStockRequest { request_id: String::new(), ..report_of(count(1)) }, &["request_id"]),
        (v1::ReportStockRequest { request_id: "1".to_owned(), ..report_of(count(-1)) }, &["request_id", "count.units"]),
        (v1::ReportStockRequest { programme: "kr-masks".to_owned(), ..report_of(count(1)) }, &["programme"]),
        (v1::ReportStockRequest { programme: String::new(), ..report_of(count(1)) }, &["programme"]),
        (moment(120_000), &["at"]),
        (moment(-3 * 3_600_000), &["at"]),
        (wire(-1, 0), &["at"]),
        (wire(i64::MAX, 0), &["at"]),
        (wire(0, -1), &["at"]),
        (wire(0, 1_000_000_000), &["at"]),
    ];
    for (message, bad) in cases {
        let status = client.report_stock(from_site(message.clone(), SITE)).await.unwrap_err();
        assert_eq!(fields(&status), bad, "{message:?}");
    }
    let nobody = client.report_stock(report_of(count(1))).await.unwrap_err();
    let unknown = client.report_stock(from_site(report_of(count(1)), "99999999")).await.unwrap_err();
    assert_eq!([reason(&nobody), reason(&unknown)], ["SITE_REQUIRED", "SITE_UNKNOWN"]);
    assert!(shelf.reports.lock().unwrap().is_empty());
    // A little ahead is now.
    let ahead = client.report_stock(from_site(moment(30_000), SITE)).await.unwrap().into_inner();
    assert_eq!(ahead.at, ahead.received_at);
}

#[tokio::test]
async fn a_shelf_that_cannot_say_is_told_as_it_is() {
    let shelf = Memory::default();
    let (at, _directory) = counters(shelf.clone(), None).await;
    let mut client = connect(at).await;
    for (error, code, told, retry) in [
        (LedgerError::StoreUnavailable("x".to_owned()), Code::Unavailable, "STORE_UNAVAILABLE", true),
        (LedgerError::ReplicasMissing, Code::Unavailable, "REPLICAS_MISSING", true),
        (LedgerError::Overloaded, Code::ResourceExhausted, "OVERLOADED", true),
        (LedgerError::Unconfirmed("secret".to_owned()), Code::Unavailable, "COMMIT_UNCONFIRMED", true),
        (LedgerError::Corrupt("secret".to_owned()), Code::Internal, "INTERNAL", false),
    ] {
        *shelf.fails.lock().unwrap() = Some(error);
        let status = client.report_stock(from_site(report_of(count(1)), SITE)).await.unwrap_err();
        let again = status.get_details_retry_info().and_then(|retry| retry.retry_delay).is_some();
        assert_eq!((status.code(), reason(&status).as_str(), again), (code, told, retry));
        assert!(!status.message().contains("secret") && !status.message().contains("GetPurchase"), "{status:?}");
        // Whether a retry is needed before anybody knows is what a client goes by.
        let is_known = matches!(told, "STORE_UNAVAILABLE" | "REPLICAS_MISSING" | "OVERLOADED");
        let error = crate::terminal::CallError::from(status);
        assert_eq!(matches!(error, crate::terminal::CallError::NotExecuted { .. }), is_known, "{told}");
    }
}

#[tokio::test]
async fn a_site_reports_its_own_stock_and_no_other() {
    let (shelf, certified) = (Memory::default(), Certified::new());
    let (at, _directory) = counters(shelf.clone(), Some(certified.tls())).await;
    let mut site = certified.connect(at, Some(Subject::Site(SITE.parse().unwrap()))).await;
    site.report_stock(report_of(count(3))).await.unwrap();
    site.report_stock(from_site(report_of(count(4)), SITE)).await.unwrap();
    let other = site.report_stock(from_site(report_of(count(5)), "11000002")).await.unwrap_err();
    assert_eq!((other.code(), reason(&other).as_str()), (Code::PermissionDenied, "SITE_NOT_YOURS"));
    let mut gateway = certified.connect(at, Some(Subject::Gateway("demo-gateway".parse().unwrap()))).await;
    gateway.report_stock(from_site(report_of(count(6)), "11000002")).await.unwrap();
    let mut strange = certified.connect(at, Some(Subject::Gateway("another".parse().unwrap()))).await;
    let other = strange.report_stock(from_site(report_of(count(7)), "11000002")).await.unwrap_err();
    assert_eq!(reason(&other), "SITE_NOT_YOURS");
    for subject in [Subject::Feed("map".parse().unwrap()), Subject::Operator("kim".parse().unwrap())] {
        let mut nobody = certified.connect(at, Some(subject)).await;
        let status = nobody.report_stock(from_site(report_of(count(8)), SITE)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "NOT_A_SITE"));
    }
    assert_eq!(shelf.reports.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn each_listener_names_the_other_for_the_calls_that_it_does_not_serve() {
    let (at, _directory) = counters(Memory::default(), None).await;
    let mut client = connect(at).await;
    let elsewhere = [
        client.get_stock(v1::GetStockRequest::default()).await.unwrap_err(),
        client.list_stock(v1::ListStockRequest::default()).await.unwrap_err(),
        client.watch_stock(v1::WatchStockRequest::default()).await.map(|_| ()).unwrap_err(),
    ];
    for status in elsewhere {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "OTHER_LISTENER"));
        assert!(status.message().ends_with(FEED));
    }
    let stocks = stocks();
    let mut client = connect(feed(&stocks, None, CancellationToken::new()).await).await;
    let status = client.report_stock(from_site(report_of(count(1)), SITE)).await.unwrap_err();
    assert_eq!((reason(&status).as_str(), status.message().ends_with(" listen")), ("OTHER_LISTENER", true));
}

fn shown(offered: u32) -> Shown {
    Shown {
        level: Level::Some,
        offered,
        promised: 2,
        as_of: Timestamp::from_millis(1_600_000_000_123),
        source: Source::Delivery,
        delivered_at: Some(Timestamp::from_millis(1_600_000_000_123)),
        counted_at: None,
        stale: false,
        unverified: true,
    }
}

/// Puts these stocks up, and nothing else.
fn publish(stocks: &Stocks, programme: &str, rows: &BTreeMap<SiteId, u32>) {
    let programme = stocks.programme(programme).unwrap();
    let rows = rows.iter().map(|(&site, &units)| (Key { programme, site }, shown(units)));
    stocks.board.publish(rows.collect(), Some(Timestamp::from_millis(1_600_000_001_000)));
}

fn rows(rows: &[(&str, u32)]) -> BTreeMap<SiteId, u32> {
    rows.iter().map(|(site, units)| (site.parse().unwrap(), *units)).collect()
}

fn listed(area: Option<Area>) -> v1::ListStockRequest {
    v1::ListStockRequest { programme: PROGRAMME.to_owned(), area, page_size: 0, page_token: String::new() }
}

fn near(lat: f64, lng: f64, metres: i32) -> Option<Area> {
    Some(Area::Near(v1::Near { lat, lng, metres }))
}

#[tokio::test]
async fn stock_is_told_of_a_site_of_an_area_and_page_by_page() {
    let stocks = stocks();
    publish(&stocks, PROGRAMME, &rows(&[(SITE, 40)]));
    let mut client = connect(feed(&stocks, None, CancellationToken::new()).await).await;
    let get = |site: &str| v1::GetStockRequest { programme: PROGRAMME.to_owned(), site_code: site.to_owned() };
    let told = client.get_stock(get(SITE)).await.unwrap().into_inner();
    let at = Some(instant(Timestamp::from_millis(1_600_000_000_123)));
    let expected = v1::StockLevel {
        site_code: SITE.to_owned(),
        programme: PROGRAMME.to_owned(),
        level: v1::Level::Some.into(),
        offered_units: Some(40),
        promised_units: Some(2),
        as_of: at,
        source: v1::StockSource::Delivery.into(),
        delivered_at: at,
        counted_at: None,
        stale: false,
        unverified: true,
        distance_metres: None,
    };
    assert_eq!(told.stock.as_ref(), Some(&expected));
    assert_eq!(told.read_until, Some(instant(Timestamp::from_millis(1_600_000_001_000))));
    // Of a site that never reported nobody knows, nor of another programme's.
    let unknown = client.get_stock(get("11000002")).await.unwrap().into_inner().stock.unwrap();
    assert_eq!((unknown.level(), unknown.as_of), (v1::Level::Unspecified, None));
    let other = v1::GetStockRequest { programme: OTHER.to_owned(), ..get(SITE) };
    assert_eq!(client.get_stock(other).await.unwrap().into_inner().stock.unwrap().level(), v1::Level::Unspecified);

    let mut codes = async |area: Option<Area>| -> Vec<String> {
        let stocks = client.list_stock(listed(area)).await.unwrap().into_inner().stocks;
        stocks.into_iter().map(|stock| stock.site_code).collect()
    };
    let seoul = ["11000001", "11000002", "31000003"];
    assert_eq!(codes(Some(Area::Region("Seoul".to_owned()))).await, seoul);
    assert_eq!(codes(Some(Area::Address("Seoul  Jongno-gu".to_owned()))).await, [SITE]);
    // Words, and not letters.
    assert_eq!(codes(Some(Area::Address("Seoul Jong".to_owned()))).await, [""; 0]);
    assert_eq!(codes(near(37.5519, 126.9245, 6_000)).await, ["11000002", SITE]);
    assert_eq!(codes(near(-37.0, 100.0, 20_000)).await, [""; 0]);
    assert_eq!(codes(None).await.len(), 13);

    let bom = client.list_stock(listed(near(37.5702, 126.9768, 6_000))).await.unwrap().into_inner().stocks;
    assert_eq!(bom.iter().map(|stock| stock.distance_metres.unwrap()).collect::<Vec<_>>(), [0, 5039]);
    assert_eq!(bom[0], v1::StockLevel { distance_metres: Some(0), ..expected });

    for (area, size) in [(None, 5), (near(36.5, 127.5, 20_000), 1), (Some(Area::Region("Seoul".to_owned())), 3)] {
        let whole = client.list_stock(listed(area.clone())).await.unwrap().into_inner();
        assert_eq!(whole.next_page_token, "");
        let (mut paged, mut request) = (Vec::new(), v1::ListStockRequest { page_size: size, ..listed(area) });
        loop {
            let page = client.list_stock(request.clone()).await.unwrap().into_inner();
            assert!(page.stocks.len() <= usize::try_from(size).unwrap());
            paged.extend(page.stocks);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(paged, whole.stocks);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_by_the_name_of_its_field() {
    let stocks = stocks();
    let mut client = connect(feed(&stocks, None, CancellationToken::new()).await).await;
    for (programme, site, bad) in
        [(PROGRAMME, "99999999", "site_code"), (PROGRAMME, "", "site_code"), ("x", SITE, "programme")]
    {
        let request = v1::GetStockRequest { programme: programme.to_owned(), site_code: site.to_owned() };
        assert_eq!(fields(&client.get_stock(request).await.unwrap_err()), [bad]);
    }
    let token = {
        let first = v1::ListStockRequest { page_size: 1, ..listed(None) };
        client.list_stock(first).await.unwrap().into_inner().next_page_token
    };
    let sized = |page_size, area| v1::ListStockRequest { page_size, ..listed(area) };
    let paged = |page_token: &str, area| v1::ListStockRequest { page_token: page_token.to_owned(), ..listed(area) };
    let cases: Vec<(v1::ListStockRequest, &[&str])> = vec![
        (listed(near(90.1, 0.0, 1)), &["near.lat"]),
        (listed(near(f64::NAN, -180.5, 0)), &["near.lat", "near.lng", "near.metres"]),
        (listed(near(37.5, f64::INFINITY, 20_001)), &["near.lng", "near.metres"]),
        (listed(near(37.5, 127.0, -1)), &["near.metres"]),
        (listed(Some(Area::Region("Soul".to_owned()))), &["region"]),
        (listed(Some(Area::Region(String::new()))), &["region"]),
        (listed(Some(Area::Address(" ".to_owned()))), &["address"]),
        (listed(Some(Area::Address("x".repeat(201)))), &["address"]),
        (sized(-1, None), &["page_size"]),
        (sized(1_001, near(0.0, 0.0, 0)), &["near.metres", "page_size"]),
        (paged("x", None), &["page_token"]),
        (paged(&token, Some(Area::Region("Seoul".to_owned()))), &["page_token"]),
        (v1::ListStockRequest { programme: OTHER.to_owned(), ..paged(&token, None) }, &["page_token"]),
        (paged(&token.replacen(SITE, "11999999", 1), None), &["page_token"]),
        (v1::ListStockRequest { programme: String::new(), ..listed(None) }, &["programme"]),
    ];
    for (message, bad) in cases {
        let status = client.list_stock(message.clone()).await.unwrap_err();
        assert_eq!(fields(&status), bad, "{message:?}");
    }
    assert_eq!(client.list_stock(paged(&token, None)).await.unwrap().into_inner().stocks.len(), 12);
}

#[tokio::test]
async fn pages_are_for_anybody_and_calls_for_those_with_a_certificate() {
    let (stocks, certified) = (stocks(), Certified::new());
    let at = feed(&stocks, Some(certified.tls()), CancellationToken::new()).await;
    let get = v1::GetStockRequest { programme: PROGRAMME.to_owned(), site_code: SITE.to_owned() };
    let mut nobody = certified.connect(at, None).await;
    let status = nobody.get_stock(get.clone()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "CERTIFICATE_REQUIRED"));
    for subject in [
        Subject::Feed("map".parse().unwrap()),
        Subject::Site(SITE.parse().unwrap()),
        Subject::Operator("kim".parse().unwrap()),
    ] {
        certified.connect(at, Some(subject)).await.get_stock(get.clone()).await.unwrap();
    }
    // How many units another has is nobody's business who only sells.
    publish(&stocks, PROGRAMME, &rows(&[(SITE, 40)]));
    let units = async |subject| {
        let stock = certified.connect(at, Some(subject)).await.get_stock(get.clone()).await.unwrap().into_inner().stock;
        stock.unwrap().offered_units
    };
    assert!(units(Subject::Site(SITE.parse().unwrap())).await.is_some());
    assert_eq!(units(Subject::Site("21000001".parse().unwrap())).await, None);
    assert_eq!(units(Subject::Gateway("demo-gateway".parse().unwrap())).await, None);
    // In the clear nobody has shown one.
    let mut clear = StockServiceClient::connect(format!("http://{at}")).await.unwrap();
    let status = clear.get_stock(get.clone()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "CERTIFICATE_REQUIRED"));
    let list = v1::ListStockRequest { programme: PROGRAMME.to_owned(), ..Default::default() };
    assert_eq!(reason(&clear.list_stock(list).await.unwrap_err()), "CERTIFICATE_REQUIRED");
    let watch = v1::WatchStockRequest { programme: PROGRAMME.to_owned(), ..Default::default() };
    assert_eq!(reason(&clear.watch_stock(watch).await.map(|_| ()).unwrap_err()), "CERTIFICATE_REQUIRED");
    // Pages also where nothing is encrypted, on the same listener.
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(b"GET /page HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("a page"), "{answer}");
}

#[tokio::test]
async fn without_certificates_calls_are_answered_on_loopback_alone() {
    let edge = StockEdge::new(stocks(), Answers::Nobody);
    let get = v1::GetStockRequest { programme: PROGRAMME.to_owned(), site_code: SITE.to_owned() };
    let status = edge.get_stock(Request::new(get)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "NOT_ON_LOOPBACK"));
}

/// Somebody who watches over a socket and applies what they are told.
struct Watches {
    stream: Streaming<v1::WatchStockResponse>,
    has: BTreeMap<SiteId, u32>,
    anew: Vec<Reason>,
    messages: usize,
    token: Vec<u8>,
}

impl Watches {
    async fn begin(client: &mut StockServiceClient<Channel>, wanted: v1::WatchStockRequest) -> Result<Self, Status> {
        let stream = client.watch_stock(wanted).await?.into_inner();
        Ok(Self { stream, has: BTreeMap::new(), anew: Vec::new(), messages: 0, token: Vec::new() })
    }

    /// Takes messages until it is told how far it is.
    async fn take(&mut self) -> Result<(), Status> {
        loop {
            let message = timeout(Duration::from_secs(20), self.stream.message()).await.unwrap()?.unwrap();
            self.messages += 1;
            match message.told.unwrap() {
                Told::Anew(anew) => {
                    self.anew.push(anew.reason());
                    self.has.clear();
                }
                Told::Changes(changes) => {
                    assert!((1..=256).contains(&(changes.levels.len() + changes.gone.len())));
                    for level in changes.levels {
                        assert_eq!((level.programme.as_str(), level.level()), (PROGRAMME, v1::Level::Some));
                        self.has.insert(level.site_code.parse().unwrap(), level.offered_units());
                    }
                    for site in changes.gone {
                        self.has.remove(&site.parse().unwrap());
                    }
                }
                Told::Progress(progress) => {
                    self.token = progress.resume_token;
                    return Ok(());
                }
            }
        }
    }

    async fn take_until(&mut self, rows: &BTreeMap<SiteId, u32>) {
        while self.has != *rows {
            self.take().await.unwrap();
        }
    }
}

fn watched() -> v1::WatchStockRequest {
    v1::WatchStockRequest { programme: PROGRAMME.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_watcher_is_told_everything_then_every_change_and_goes_on_where_it_was() {
    let (stocks, mut now) = (stocks(), rows(&[(SITE, 40), ("31000002", 7)]));
    publish(&stocks, PROGRAMME, &now);
    let mut client = connect(feed(&stocks, None, CancellationToken::new()).await).await;
    let mut watch = Watches::begin(&mut client, watched()).await.unwrap();
    watch.take().await.unwrap();
    assert_eq!((&watch.has, watch.anew.as_slice()), (&now, [Reason::Begins].as_slice()));
    now.insert(SITE.parse().unwrap(), 39);
    now.remove(&"31000002".parse::<SiteId>().unwrap());
    publish(&stocks, PROGRAMME, &now);
    watch.take_until(&now).await;
    let token = watch.token.clone();
    drop(watch);
    now.insert("11000002".parse().unwrap(), 1);
    publish(&stocks, PROGRAMME, &now);

    let resumed = v1::WatchStockRequest { resume_token: token.clone(), ..watched() };
    let mut watch = Watches::begin(&mut client, resumed.clone()).await.unwrap();
    watch.take().await.unwrap();
    assert_eq!((&watch.has, watch.anew.as_slice()), (&rows(&[("11000002", 1)]), [].as_slice()));
    // Whoever has missed nothing hears at once that it is there.
    let newest = v1::WatchStockRequest { resume_token: watch.token.clone(), ..watched() };
    let mut newest = Watches::begin(&mut client, newest).await.unwrap();
    newest.take().await.unwrap();
    assert_eq!(newest.messages, 1);

    // Another process has other pictures.
    let others = super::tests::stocks();
    publish(&others, PROGRAMME, &now);
    let mut client = connect(feed(&others, None, CancellationToken::new()).await).await;
    let mut watch = Watches::begin(&mut client, resumed).await.unwrap();
    watch.take().await.unwrap();
    assert_eq!((&watch.has, watch.anew.as_slice()), (&now, [Reason::TooOld].as_slice()));

    let mut of_seoul =
        Watches::begin(&mut client, v1::WatchStockRequest { region: "Seoul".to_owned(), ..watched() }).await.unwrap();
    now.insert("31000002".parse().unwrap(), 5);
    now.insert("31000003".parse().unwrap(), 6);
    publish(&others, PROGRAMME, &now);
    now.remove(&"31000002".parse::<SiteId>().unwrap());
    of_seoul.take_until(&now).await;

    let bad = |wanted| async { fields(&Watches::begin(&mut client.clone(), wanted).await.map(|_| ()).unwrap_err()) };
    let with = |resume_token: &[u8]| v1::WatchStockRequest { resume_token: resume_token.to_vec(), ..watched() };
    assert_eq!(bad(v1::WatchStockRequest { programme: OTHER.to_owned(), ..with(&token) }).await, ["resume_token"]);
    assert_eq!(bad(with(&of_seoul.token)).await, ["resume_token"]);
    assert_eq!(bad(with(b"garbage")).await, ["resume_token"]);
    assert_eq!(bad(v1::WatchStockRequest { region: "Soul".to_owned(), ..watched() }).await, ["region"]);
    assert_eq!(bad(v1::WatchStockRequest { programme: "x".to_owned(), ..watched() }).await, ["programme"]);
}

/// Hundred thousand changes: how long it takes to put them up.
fn publish_many(stocks: &Stocks) -> (Duration, BTreeMap<SiteId, u32>) {
    let sites: Vec<SiteId> = (0..1_000).map(|nth| format!("s{nth:04}").parse().unwrap()).collect();
    let (clock, mut now) = (SystemClock::real(), BTreeMap::new());
    for round in 0..100 {
        now = sites.iter().map(|site| (*site, round)).collect();
        publish(stocks, PROGRAMME, &now);
    }
    (clock.monotonic(), now)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_stops_reading_slows_nobody_and_then_finds_the_newest() {
    let (unwatched, _) = publish_many(&stocks());
    let stocks = stocks();
    let mut client = connect(feed(&stocks, None, CancellationToken::new()).await).await;
    let mut watch = Watches::begin(&mut client, watched()).await.unwrap();
    watch.take().await.unwrap();
    let (beside, now) = publish_many(&stocks);
    assert!(beside < 4 * unwatched + Duration::from_secs(1), "{beside:?} beside it, {unwatched:?} without");
    // What it did not take was not kept for it: it is told what is so now, not how that came about.
    let picture = stocks.board.picture();
    let only_the_board_s = async {
        while Arc::strong_count(&picture) > 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), only_the_board_s).await.expect("a picture is kept for a watcher");
    watch.messages = 0;
    watch.take_until(&now).await;
    assert!(watch.messages < 200, "{} messages for 100,000 changes", watch.messages);
}

#[tokio::test(start_paused = true)]
async fn there_are_so_many_watchers_and_each_hears_every_five_seconds_that_it_is_there() {
    let stocks = stocks();
    publish(&stocks, PROGRAMME, &rows(&[(SITE, 1)]));
    let edge = StockEdge { room: Arc::new(Semaphore::new(1)), ..StockEdge::new(stocks.clone(), Answers::ThisMachine) };
    let mut watch = edge.watch_stock(Request::new(watched())).await.unwrap().into_inner();
    let status = edge.watch_stock(Request::new(watched())).await.map(|_| ()).unwrap_err();
    let retry = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_WATCHERS"));
    assert!(retry.is_some());
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(std::mem::discriminant(&watch.next().await.unwrap().unwrap().told.unwrap()));
    }
    let progress = std::mem::discriminant(&Told::Progress(v1::Progress::default()));
    assert_eq!(kinds[2], progress, "after the first batch");
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        // What changes for others alone is no news.
        let others = stocks.programme(OTHER).unwrap();
        let mut rows = stocks.board.picture().rows.clone();
        rows.push((Key { programme: others, site: format!("s{}", rows.len()).parse().unwrap() }, shown(1)));
        rows.sort_by_key(|(key, _)| *key);
        stocks.board.publish(rows, None);
        assert_eq!(std::mem::discriminant(&watch.next().await.unwrap().unwrap().told.unwrap()), progress);
    }
    assert!((14..=16).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    drop(watch);
    assert!(edge.watch_stock(Request::new(watched())).await.is_ok());
}

#[tokio::test]
async fn watchers_are_told_when_their_connection_ends() {
    let (stocks, stop) = (stocks(), CancellationToken::new());
    publish(&stocks, PROGRAMME, &rows(&[(SITE, 1)]));
    let mut client = connect(feed(&stocks, None, stop.clone()).await).await;
    let mut watch = Watches::begin(&mut client, watched()).await.unwrap();
    watch.take().await.unwrap();
    stop.cancel();
    let ended = timeout(Duration::from_secs(2), watch.take()).await.unwrap().unwrap_err();
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unavailable, "STOPPING"));
}
