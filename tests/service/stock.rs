//! What sites have left, as whoever asks is told: over gRPC, over HTTP, and as it changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rationd::grpc::v1::{
    self, Level, StockSource, report_stock_request::Report, stock_service_client::StockServiceClient,
    watch_stock_response::Told,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::harness::*;

on_both_stores!(
    a_level_follows_what_happens,
    a_report_stands_once_and_only_for_its_own_site,
    what_was_reported_outlives_the_service,
    a_watcher_goes_on_where_it_was,
);

const NINE: &str = "2020-03-11T09:00:00+09:00";

async fn report(caller: &Caller, report: Report, request_id: &str) -> Result<v1::ReportStockResponse, Status> {
    let request = v1::ReportStockRequest {
        request_id: request_id.to_owned(),
        programme: MASKS.to_owned(),
        at: None,
        report: Some(report),
    };
    let mut client = StockServiceClient::new(caller.channel.clone());
    Ok(client.report_stock(caller.request(request)).await?.into_inner())
}

fn delivered(units: i32) -> Report {
    Report::Delivery(v1::Delivery { units })
}

fn counted(units: i32) -> Report {
    Report::Count(v1::Count { units })
}

async fn feed(service: &Service) -> StockServiceClient<Channel> {
    StockServiceClient::connect(service.feed()).await.unwrap()
}

async fn stock(service: &Service, site: &str) -> v1::StockLevel {
    let request = v1::GetStockRequest { programme: MASKS.to_owned(), site_code: site.to_owned() };
    feed(service).await.get_stock(request).await.unwrap().into_inner().stock.unwrap()
}

/// Waits until this site's stock is so.
async fn shown(service: &Service, site: &str, is: impl Fn(&v1::StockLevel) -> bool) -> v1::StockLevel {
    let begun = Instant::now();
    loop {
        let stock = stock(service, site).await;
        if is(&stock) {
            return stock;
        }
        assert!(begun.elapsed() < IN_TIME, "{stock:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the feed answers over HTTP.
async fn get(service: &Service, path: &str) -> serde_json::Value {
    let address = service.feed();
    let mut stream = tokio::net::TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: feed\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

async fn a_level_follows_what_happens(world: World) {
    let service = world.serve(NINE).await;
    let seller = service.counter(SEJONG).await;
    assert_eq!(stock(&service, SEJONG).await.level(), Level::Unspecified, "nobody knows");
    report(&seller, delivered(101), &id()).await.unwrap();
    let level = shown(&service, SEJONG, |stock| stock.level() == Level::Plenty).await;
    assert_eq!((level.offered_units(), level.source(), level.unverified), (101, StockSource::Delivery, false));

    // A sale, and within a second it is known; a hold is not offered, and stands in the shop.
    service.set("2020-03-11T09:01:00+09:00");
    let (buyer, other) = (number("830101", '1', 1), number("880101", '1', 2));
    let sale = Visit::in_person(&buyer, 2);
    assert_eq!(said(&seller.sell(&sale).await), "APPROVED");
    let sold = Instant::now();
    let level = shown(&service, SEJONG, |stock| stock.offered_units() == 99).await;
    assert!(sold.elapsed() < Duration::from_secs(1), "{:?}", sold.elapsed());
    assert_eq!((level.level(), level.source()), (Level::Some, StockSource::Sales));
    let held = Visit::in_person(&other, 1);
    assert_eq!(said(&one(seller.hold(&held, Duration::from_secs(600)).await.unwrap())), "HELD");
    let level = shown(&service, SEJONG, |stock| stock.promised_units() == 1).await;
    assert_eq!(level.offered_units(), 98);
    // It runs out by itself, without anybody saying so.
    service.set("2020-03-11T09:12:00+09:00");
    shown(&service, SEJONG, |stock| (stock.promised_units(), stock.offered_units()) == (0, 99)).await;
    assert_eq!(said(&seller.void(&sale.known(0)).await.unwrap()), "VOIDED");
    shown(&service, SEJONG, |stock| stock.offered_units() == 101).await;

    // A count stands for everything before it. Who does not sell says so, whatever there is.
    service.set("2020-03-11T09:13:00+09:00");
    report(&seller, counted(31), &id()).await.unwrap();
    let level = shown(&service, SEJONG, |stock| stock.offered_units() == 31).await;
    assert_eq!((level.level(), level.source()), (Level::Some, StockSource::Count));
    service.set("2020-03-11T09:14:00+09:00");
    report(&seller, Report::Pause(v1::Pause {}), &id()).await.unwrap();
    shown(&service, SEJONG, |stock| stock.level() == Level::Paused).await;
    let near = get(&service, "/corona19-masks/v1/storesByGeo/json?lat=37.5702&lng=126.9768&m=500").await;
    assert_eq!((&near["count"], &near["stores"][0]["remain_stat"]), (&1.into(), &"break".into()));
    service.set("2020-03-11T09:15:00+09:00");
    report(&seller, Report::Resume(v1::Resume {}), &id()).await.unwrap();
    shown(&service, SEJONG, |stock| stock.level() == Level::Some).await;
    let changed = Instant::now();
    loop {
        let near = get(&service, "/corona19-masks/v1/storesByGeo/json?lat=37.5702&lng=126.9768&m=500").await;
        if near["stores"][0]["remain_stat"] == "some" {
            assert_eq!(near["stores"][0]["stock_at"], "2020/03/11 09:00:00");
            break;
        }
        assert!(changed.elapsed() < Duration::from_secs(5), "{near}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // More is sold than there was: something is not known, and that is said.
    report(&seller, counted(1), &id()).await.unwrap();
    service.set("2020-03-11T09:16:00+09:00");
    assert_eq!(said(&seller.sell(&Visit::in_person(&number("830101", '1', 3), 2)).await), "APPROVED");
    let level = shown(&service, SEJONG, |stock| stock.unverified).await;
    assert_eq!((level.level(), level.offered_units()), (Level::Empty, 0));
    // Hours of silence are not usual.
    service.set("2020-03-11T14:00:00+09:00");
    let level = shown(&service, SEJONG, |stock| stock.stale).await;
    assert_eq!(level.as_of.unwrap().seconds, at("2020-03-11T09:16:00+09:00").as_millis() / 1000);
    service.stop().await;
}

async fn a_report_stands_once_and_only_for_its_own_site(world: World) {
    let service = world.serve(NINE).await;
    let seller = service.caller(SEJONG, "w1");
    let first = id();
    let taken = report(&seller, delivered(40), &first).await.unwrap();
    assert!(!taken.replayed);
    service.set("2020-03-11T09:00:05+09:00");
    let again = report(&seller, delivered(40), &first).await.unwrap();
    assert!(again.replayed && again.at == taken.at && again.received_at == taken.received_at, "{again:?}");
    let other = told(&report(&seller, delivered(41), &first).await.unwrap_err());
    assert_eq!((other.code, other.reason.as_str()), (Code::FailedPrecondition, "REQUEST_ID_REUSED"));
    // The id means something for its site alone.
    assert!(!report(&service.caller(BOM, "w1"), delivered(7), &first).await.unwrap().replayed);
    shown(&service, SEJONG, |stock| stock.offered_units() == 40).await;
    shown(&service, BOM, |stock| stock.offered_units() == 7).await;
    for (wrong, field) in [
        (counted(-1), "count.units"),
        (counted(1_000_001), "count.units"),
        (delivered(0), "delivery.units"),
        (delivered(-5), "delivery.units"),
    ] {
        let told = told(&report(&seller, wrong, &id()).await.unwrap_err());
        assert_eq!((told.code, told.fields[0].0.as_str()), (Code::InvalidArgument, field), "{told:?}");
    }
    let nowhere = told(&report(&service.caller("99999999", "w1"), delivered(1), &id()).await.unwrap_err());
    assert_eq!((nowhere.code, nowhere.reason.as_str()), (Code::Unauthenticated, "SITE_UNKNOWN"));
    assert_eq!(stock(&service, SEJONG).await.offered_units(), 40);
    // Who calls at the wrong place is told where the right one is.
    let request = v1::GetStockRequest { programme: MASKS.to_owned(), site_code: SEJONG.to_owned() };
    let wrong = StockServiceClient::new(service.channel.clone()).get_stock(request).await.unwrap_err();
    assert_eq!(told(&wrong).reason, "OTHER_LISTENER");
    service.stop().await;
}

async fn what_was_reported_outlives_the_service(world: World) {
    let service = world.serve(NINE).await;
    let seller = service.counter(SEJONG).await;
    let delivery = id();
    report(&seller, delivered(100), &delivery).await.unwrap();
    assert_eq!(said(&seller.sell(&Visit::in_person(&number("830101", '1', 1), 2)).await), "APPROVED");
    shown(&service, SEJONG, |stock| stock.offered_units() == 98).await;
    drop(seller);
    service.stop().await;
    // What is sold while nobody shows it is in what is shown next.
    let blind = world.serve_with("2020-03-11T09:40:00+09:00", &[("ROLES", "counters")]).await;
    let seller = blind.counter(SEJONG).await;
    assert_eq!(said(&seller.sell(&Visit::in_person(&number("880101", '1', 2), 2)).await), "APPROVED");
    assert!(report(&seller, delivered(100), &delivery).await.unwrap().replayed);
    drop(seller);
    blind.stop().await;
    let service = world.serve("2020-03-11T09:41:00+09:00").await;
    let level = shown(&service, SEJONG, |stock| stock.offered_units() > 0).await;
    assert_eq!((level.offered_units(), level.unverified), (96, false));
    service.stop().await;
}

/// What a watcher knows.
#[derive(Default)]
struct Watched {
    rows: BTreeMap<String, v1::StockLevel>,
    token: Vec<u8>,
    anew: Vec<v1::anew::Reason>,
}

impl Watched {
    /// Hears on until this is so.
    async fn until(&mut self, stream: &mut Streaming<v1::WatchStockResponse>, is: impl Fn(&Self) -> bool) {
        let hearing = async {
            while !is(self) {
                match stream.message().await.unwrap().unwrap().told.unwrap() {
                    Told::Anew(anew) => {
                        self.rows.clear();
                        self.anew.push(anew.reason());
                    }
                    Told::Changes(changes) => {
                        assert!(changes.levels.len() + changes.gone.len() <= 256);
                        self.rows.extend(changes.levels.into_iter().map(|level| (level.site_code.clone(), level)));
                        changes.gone.iter().for_each(|site| drop(self.rows.remove(site)));
                    }
                    Told::Progress(progress) => self.token = progress.resume_token,
                }
            }
        };
        tokio::time::timeout(IN_TIME, hearing).await.expect("told in time");
    }

    fn offered(&self, site: &str) -> Option<u32> {
        self.rows.get(site).map(|level| level.offered_units())
    }
}

async fn watch(service: &Service, token: &[u8]) -> Result<Streaming<v1::WatchStockResponse>, Status> {
    let request =
        v1::WatchStockRequest { programme: MASKS.to_owned(), resume_token: token.to_vec(), region: String::new() };
    Ok(feed(service).await.watch_stock(request).await?.into_inner())
}

async fn a_watcher_goes_on_where_it_was(world: World) {
    let service = world.serve(NINE).await;
    let (sejong, bom) = (service.counter(SEJONG).await, service.counter(BOM).await);
    report(&sejong, delivered(50), &id()).await.unwrap();
    shown(&service, SEJONG, |stock| stock.offered_units() == 50).await;
    let mut stream = watch(&service, &[]).await.unwrap();
    let mut seen = Watched::default();
    seen.until(&mut stream, |seen| !seen.token.is_empty()).await;
    assert_eq!((seen.offered(SEJONG), seen.anew.as_slice()), (Some(50), [v1::anew::Reason::Begins].as_slice()));
    for serial in 0..3 {
        assert_eq!(said(&sejong.sell(&Visit::in_person(&number("830101", '1', serial), 1)).await), "APPROVED");
        let sold = Instant::now();
        seen.until(&mut stream, |seen| seen.offered(SEJONG) == Some(49 - serial)).await;
        assert!(sold.elapsed() < Duration::from_secs(1), "{:?}", sold.elapsed());
    }
    seen.token.clear();
    seen.until(&mut stream, |seen| !seen.token.is_empty()).await;
    drop(stream);
    // What changes while it is away is told when it comes back, and nothing else.
    report(&bom, delivered(9), &id()).await.unwrap();
    shown(&service, BOM, |stock| stock.offered_units() == 9).await;
    let mut stream = watch(&service, &seen.token.clone()).await.unwrap();
    let mut back = Watched::default();
    back.until(&mut stream, |back| back.offered(BOM).is_some()).await;
    assert_eq!((back.offered(SEJONG), back.anew.len()), (None, 0));
    drop(stream);
    let wrong = watch(&service, b"no token").await.map(|_| ()).unwrap_err();
    assert_eq!(told(&wrong).fields[0].0, "resume_token");
    let request = v1::WatchStockRequest {
        programme: "weekly-essentials".to_owned(),
        resume_token: seen.token.clone(),
        region: String::new(),
    };
    let wrong = feed(&service).await.watch_stock(request).await.map(|_| ()).unwrap_err();
    assert_eq!(told(&wrong).fields[0].0, "resume_token", "it is another programme's");
    drop((sejong, bom));
    service.stop().await;
    // Another process cannot go on: it says so and tells everything.
    let service = world.serve("2020-03-11T09:05:00+09:00").await;
    let mut stream = watch(&service, &seen.token).await.unwrap();
    let mut anew = Watched::default();
    anew.until(&mut stream, |anew| anew.offered(SEJONG) == Some(47) && anew.offered(BOM) == Some(9)).await;
    assert_eq!(anew.anew.first(), Some(&v1::anew::Reason::TooOld));
    drop(stream);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_refused_where_sales_are_and_taken_once_when_they_go_on() {
    let mut world = World::redis();
    let service = world.serve(NINE).await;
    let seller = service.caller(SEJONG, "w1");
    report(&seller, delivered(10), &id()).await.unwrap();
    shown(&service, SEJONG, |stock| stock.offered_units() == 10).await;
    world.redis.as_mut().unwrap().kill();
    until("sales to stop", || async { !service.is_serving("rationd.v1.PurchaseService").await }).await;
    let request = id();
    let refused = told(&report(&seller, delivered(5), &request).await.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"), "{refused:?}");
    assert!(refused.retry_after.is_some());
    // What was known is shown all the same, and says that it may be otherwise.
    assert_eq!(shown(&service, SEJONG, |stock| stock.stale).await.offered_units(), 10);
    world.redis.as_mut().unwrap().restart();
    until("the report to be taken", || async { report(&seller, delivered(5), &request).await.is_ok() }).await;
    assert!(report(&seller, delivered(5), &request).await.unwrap().replayed);
    let fresh = shown(&service, SEJONG, |stock| stock.offered_units() == 15 && !stock.stale).await;
    assert!(!fresh.unverified);
    service.stop().await;
}
