use std::collections::BTreeSet;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::policy::Policies;
use crate::sites::Sites;
use crate::stock::board::Board;
use crate::stock::{Key, Level, Shown, Source};

const MASKS: &str = "kr-public-mask-2020";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// When everybody looks, unless they look later.
fn noon() -> Timestamp {
    at("2020-03-11T12:00:00+09:00")
}

fn shown(level: Level, as_of: Timestamp) -> Shown {
    Shown {
        level,
        offered: 7_531,
        promised: 8_642,
        as_of,
        source: Source::Sales,
        delivered_at: None,
        counted_at: None,
        stale: false,
        unverified: false,
    }
}

fn masks(site: &str) -> Key {
    let programme = Policies::built_in().get(MASKS.parse().unwrap()).unwrap().code();
    Key { programme, site: site.parse().unwrap() }
}

/// What the demo sites have: every level, both marks, and nothing known of most.
fn invented() -> Vec<(Key, Shown)> {
    let as_of = at("2020-03-11T11:48:30+09:00");
    let delivered = Shown {
        source: Source::Delivery,
        delivered_at: Some(as_of),
        counted_at: Some(at("2020-03-11T09:00:00+09:00")),
        ..shown(Level::Plenty, as_of)
    };
    vec![
        (masks("11000001"), delivered),
        (masks("11000002"), Shown { stale: true, ..shown(Level::Some, as_of) }),
        (masks("11000003"), Shown { unverified: true, source: Source::Count, ..shown(Level::Few, as_of) }),
        (masks("11000004"), shown(Level::Empty, as_of)),
        (masks("11000005"), shown(Level::Paused, as_of)),
    ]
}

struct Tried {
    pages: Pages,
    board: Board,
    sites: Arc<ArcSwap<Sites>>,
    now: Arc<std::sync::atomic::AtomicI64>,
}

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), JSON);
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Tried {
    fn of(sites: Sites) -> Self {
        let board = Board::default();
        let sites = Arc::new(ArcSwap::from_pointee(sites));
        let policies = Arc::new(ArcSwap::from_pointee(Policies::built_in()));
        let stocks = Stocks::new(board.clone(), sites.clone(), policies);
        let now = Arc::new(std::sync::atomic::AtomicI64::new(noon().as_millis()));
        let clock = now.clone();
        let pages = router(stocks, MASKS.parse().unwrap(), move || {
            Timestamp::from_millis(clock.load(std::sync::atomic::Ordering::SeqCst))
        });
        Self { pages, board, sites, now }
    }

    fn demo() -> Self {
        let tried = Self::of(Sites::demo());
        tried.board.publish(invented(), Some(noon()));
        tried
    }

    fn at(&self, now: Timestamp) {
        self.now.store(now.as_millis(), std::sync::atomic::Ordering::SeqCst);
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Got {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = self.pages.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Got { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Got {
        self.send("GET", path, &[]).await
    }

    /// What is answered where there is nothing to complain of.
    async fn ok(&self, path: &str) -> Value {
        let got = self.get(path).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text());
        got.json()
    }

    async fn problem(&self, path: &str) -> (u16, Value, String) {
        let got = self.get(path).await;
        let mut error = got.json()["error"].take();
        assert_eq!(error.as_object().unwrap().len(), 2, "{path}");
        assert_eq!(got.header("cache-control"), "no-store", "{path}");
        (got.status.as_u16(), error["parameter"].take(), error["problem"].as_str().unwrap().to_owned())
    }
}

const GEO: &str = "/corona19-masks/v1/storesByGeo/json?lat=37.5702&lng=126.9768&m=5000";
const SEOUL: &str = "/v1/stock?programme=kr-public-mask-2020&lat=37.5702&lng=126.9768&metres=20000";

#[tokio::test]
async fn the_paths_of_2020_have_the_fields_of_2020() {
    let tried = Tried::demo();
    let place = json!({
        "code": "11000001", "name": "Sejong Pharmacy", "addr": "Seoul Jongno-gu Saemunan-ro 7", "type": "01",
        "lat": 37.5702, "lng": 126.9768,
    });
    let stock = json!({
        "stock_at": "2020/03/11 11:48:30", "remain_stat": "plenty", "created_at": "2020/03/11 11:48:30",
        "stale": false, "unverified": false,
    });
    let joined =
        |parts: &[&Value]| Value::Object(parts.iter().flat_map(|part| part.as_object().unwrap().clone()).collect());
    let both = joined(&[&place, &stock]);
    assert_eq!(tried.ok(GEO).await, json!({ "count": 1, "stores": [both] }));

    let by_address = tried.ok("/corona19-masks/v1/storesByAddr/json?address=seoul+Jongno").await;
    assert_eq!(by_address, json!({ "address": "seoul Jongno", "count": 1, "stores": [both] }));

    let stores = tried.ok("/corona19-masks/v1/stores/json").await;
    assert_eq!(stores["storeInfos"][0], place);
    let sales = tried.ok("/corona19-masks/v1/sales/json?page=1&perPage=5000").await;
    assert_eq!(sales["sales"][0], joined(&[&json!({ "code": "11000001" }), &stock]));
    // One of thirteen has no position, and eight have never said what they have.
    for (page, rows, count) in [(stores, "storeInfos", 12), (sales, "sales", 5)] {
        let counts = ["totalPages", "totalCount", "page", "count"].map(|name| page[name].as_u64().unwrap());
        assert_eq!((counts, page[rows].as_array().unwrap().len()), ([1, count, 1, count], count as usize));
        assert_eq!(page.as_object().unwrap().len(), 5);
    }
}

#[tokio::test]
async fn every_level_and_kind_of_2020_has_its_word_and_nothing_is_null() {
    let tried = Tried::demo();
    let sales = tried.ok("/corona19-masks/v1/sales/json").await;
    let row = |nth: usize| {
        let row = &sales["sales"][nth];
        json!([row["remain_stat"], row["stock_at"], row["created_at"], row["stale"], row["unverified"]])
    };
    assert_eq!(row(1), json!(["some", "2020/03/11 11:48:30", "2020/03/11 11:48:30", true, false]));
    assert_eq!(row(2), json!(["few", "2020/03/11 11:48:30", "2020/03/11 11:48:30", false, true]));
    assert_eq!(row(3)[0], "empty");
    assert_eq!(row(4)[0], "break");
    // Also where only unknown ones are near.
    let near = tried.ok("/corona19-masks/v1/storesByGeo/json?lat=34.5713&lng=126.5989&m=5000").await;
    assert_eq!(near, json!({ "count": 0, "stores": [] }));
    let stores = tried.ok("/corona19-masks/v1/stores/json").await;
    let kinds: Vec<_> = stores["storeInfos"].as_array().unwrap().iter().map(|row| &row["type"]).collect();
    assert_eq!((kinds[0], kinds[6], kinds[9]), (&json!("01"), &json!("02"), &json!("03")));
    for answer in [&sales, &stores, &tried.ok("/corona19-masks/v1/storesByAddr/json?address=Daegu+Jung-gu").await] {
        assert!(!answer.to_string().contains("null"), "{answer}");
    }
}

#[tokio::test]
async fn what_stands_in_a_row_is_what_is_shown_and_no_quantity() {
    let tried = Tried::demo();
    let stock = tried.ok(SEOUL).await;
    assert_eq!(stock["programme"], MASKS);
    assert_eq!(stock["read_until"], "2020-03-11T03:00:00.000Z");
    assert_eq!(stock["next_page_token"], Value::Null);
    let sejong = json!({
        "site": "11000001", "name": "Sejong Pharmacy", "channel": "pharmacy", "region": "Seoul",
        "address": "Seoul Jongno-gu Saemunan-ro 7", "lat": 37.5702, "lng": 126.9768, "distance_metres": 0,
        "programme": MASKS, "level": "plenty", "as_of": "2020-03-11T02:48:30.000Z", "source": "delivery",
        "delivered_at": "2020-03-11T02:48:30.000Z", "counted_at": "2020-03-11T00:00:00.000Z",
        "stale": false, "unverified": false,
    });
    assert_eq!(stock["stock"][0], sejong);
    assert_eq!(stock["stock"][1]["site"], "11000002");
    assert_eq!(stock["stock"][1]["stale"], true);
    assert!(stock["stock"][1]["distance_metres"].as_u64().is_some_and(|far| (5_000..5_100).contains(&far)));

    let unknown = &tried.ok("/v1/stock?programme=kr-public-mask-2020&site=31000004").await["stock"][0];
    let told = ["level", "as_of", "source", "delivered_at", "counted_at", "stale", "unverified", "lat"];
    assert_eq!(
        told.map(|name| unknown[name].clone()).to_vec(),
        [json!("unknown"), Value::Null, Value::Null, Value::Null, Value::Null, json!(false), json!(false), Value::Null]
    );
    assert!(unknown.get("distance_metres").is_none());
    let paused = &tried.ok("/v1/stock?programme=kr-public-mask-2020&site=11000005").await["stock"][0];
    assert_eq!(paused["level"], "paused");

    for (path, _) in ROUTES {
        let path =
            format!("{path}?programme={MASKS}&lat=37.5702&lng=126.9768&metres=20000&m=5000&address=Seoul+Mapo-gu");
        let got = tried.get(&path).await;
        assert!(!got.text().contains("7531") && !got.text().contains("8642"), "{path}");
    }
}

#[tokio::test]
async fn sites_are_found_by_region_by_address_and_by_nothing() {
    let tried = Tried::demo();
    let found = async |filter: &str| -> Vec<String> {
        let stock = tried.ok(&format!("/v1/stock?programme=weekly-essentials&{filter}")).await;
        let rows = stock["stock"].as_array().unwrap().iter();
        rows.map(|row| row["site"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found("region=Daegu").await, ["11000004", "21000002"]);
    assert_eq!(found("region=Seou").await, [""; 0]);
    assert_eq!(found("address=daegu+JUNG-GU").await, ["11000004", "21000002"]);
    assert_eq!(found("address=jung-gu+daegu").await, [""; 0], "the largest unit comes first");
    assert_eq!(found("address=Jongno").await, ["11000001"]);
    assert_eq!(found("address=%28Wausan-ro%29+41").await, ["11000002"], "what stands around a word is not part of it");
    assert_eq!(found("address=ongno-gu").await, [""; 0], "a word is found by how it begins");
    assert_eq!(found("lat=-33&lng=151&metres=20000").await, [""; 0]);
    assert_eq!(found("page_size=500").await.len(), 13);
}

#[tokio::test]
async fn korean_addresses_are_found_by_korean_words() {
    let text = "code,name,channel,region,address,lat,lng\n\
                1,종로약국,pharmacy,서울,서울특별시 종로구 종로 1 (청진동),37.57,126.98\n\
                2,중구약국,pharmacy,서울,서울특별시 중구 명동길 2,37.56,126.98\n";
    let tried = Tried::of(Sites::parse(text, "sites.csv").unwrap());
    tried.board.publish(vec![(masks("1"), shown(Level::Few, noon()))], Some(noon()));
    let address = "%EC%84%9C%EC%9A%B8+%EC%A2%85%EB%A1%9C%EA%B5%AC+%EC%B2%AD%EC%A7%84%EB%8F%99"; // 서울 종로구 청진동
    let found = tried.ok(&format!("/corona19-masks/v1/storesByAddr/json?address={address}")).await;
    assert_eq!((&found["count"], &found["stores"][0]["name"]), (&json!(1), &json!("종로약국")));
}

#[tokio::test]
async fn bad_questions_name_the_parameter_and_the_remedy() {
    let tried = Tried::demo();
    let old = "/corona19-masks/v1";
    let new = format!("/v1/stock?programme={MASKS}");
    let from_to = |from: &str, to: &str| format!("must be a number from {from} to {to}");
    let long = "x".repeat(201);
    let rows = [
        (format!("{old}/storesByGeo/json"), "lat", "is missing; write a number from 33 to 43".to_owned()),
        (format!("{old}/storesByGeo/json?lat=37.5"), "lng", "is missing; write a number from 124 to 132".to_owned()),
        (
            format!("{old}/storesByGeo/json?lat=37.5&lng=127"),
            "m",
            "is missing; write a number from 1 to 5000".to_owned(),
        ),
        (format!("{old}/storesByGeo/json?lat=32.9&lng=127&m=1"), "lat", from_to("33", "43")),
        (format!("{old}/storesByGeo/json?lat=NaN&lng=127&m=1"), "lat", from_to("33", "43")),
        (format!("{old}/storesByGeo/json?lat=37&lng=132.01&m=1"), "lng", from_to("124", "132")),
        (format!("{old}/storesByGeo/json?lat=37&lng=inf&m=1"), "lng", from_to("124", "132")),
        (format!("{old}/storesByGeo/json?lat=37&lng=127&m=5001"), "m", from_to("1", "5000")),
        (format!("{old}/storesByGeo/json?lat=37&lng=127&m=0"), "m", from_to("1", "5000")),
        (
            format!("{old}/storesByGeo/json?lat=37&lng=127&m="),
            "m",
            "is empty; write a value or leave it out".to_owned(),
        ),
        (format!("{old}/stores/json?perPage=499"), "perPage", from_to("500", "5000")),
        (format!("{old}/sales/json?perPage=5001"), "perPage", from_to("500", "5000")),
        (format!("{old}/sales/json?perPage=many"), "perPage", from_to("500", "5000")),
        (format!("{old}/stores/json?page=0"), "page", from_to("1", "1000000")),
        (format!("{old}/stores/json?page=-1"), "page", from_to("1", "1000000")),
        (format!("{old}/stores/json?page=99999999999999999999"), "page", from_to("1", "1000000")),
        (format!("{old}/storesByAddr/json"), "address", "is missing; write address=Seoul%20Jongno-gu".to_owned()),
        (
            format!("{old}/storesByAddr/json?address=Seoul"),
            "address",
            "must name a district at least; write two words or more, such as Seoul Jongno-gu".to_owned(),
        ),
        (format!("{new}&address={long}"), "address", "is longer than 200 characters; shorten it".to_owned()),
        (format!("{new}&address=%2C"), "address", "has no word in it; write it as Seoul Jongno-gu".to_owned()),
        ("/v1/stock".to_owned(), "programme", "is missing; known: kr-public-mask-2020, weekly-essentials".to_owned()),
        (
            format!("{new}&adress=Seoul"),
            "adress",
            "is not a parameter of this; there are: programme, site, region, address, lat, lng, metres, page_size, \
             page_token"
                .to_owned(),
        ),
        ("/v1/programmes?all".to_owned(), "all", "is not a parameter of this; there are none".to_owned()),
        (format!("{new}&programme={MASKS}"), "programme", "is given more than once; write it once".to_owned()),
        (format!("{new}&metres=5"), "lat", "is missing; write a number from -90 to 90".to_owned()),
        (format!("{new}&lat=90.1&lng=0&metres=5"), "lat", from_to("-90", "90")),
        (format!("{new}&lat=9&lng=-180.1&metres=5"), "lng", from_to("-180", "180")),
        (format!("{new}&lat=9&lng=1&metres=20001"), "metres", from_to("1", "20000")),
        (format!("{new}&page_size=0"), "page_size", from_to("1", "5000")),
        (format!("{new}&page_size=5001"), "page_size", from_to("1", "5000")),
        (
            format!("{new}&region=Seoul&site=11000001"),
            "region",
            "write one of site, region, address, or lat with lng and metres".to_owned(),
        ),
        (
            format!("{new}&lat=37&lng=127&metres=1&address=Seoul"),
            "lat",
            "write one of site, region, address, or lat with lng and metres".to_owned(),
        ),
        (
            format!("{new}&page_token=%00"),
            "page_token",
            "must be the next_page_token of the same question's page before; leave it out to begin".to_owned(),
        ),
        (
            format!("{new}&lat=37&lng=127&metres=1&page_token=11000001"),
            "page_token",
            "must be the next_page_token of the same question's page before; leave it out to begin".to_owned(),
        ),
        (
            format!("{new}&site=1+2"),
            "site",
            "a site code must be 1 to 16 letters, digits, hyphens or underscores, and no person's number".to_owned(),
        ),
    ];
    for (path, parameter, problem) in rows {
        assert_eq!(tried.problem(&path).await, (400, json!(parameter), problem), "{path}");
        // What is refused as JSON is refused as CSV.
        let csv = path.replace("/v1/stock?", "/v1/stock.csv?");
        assert_eq!(tried.problem(&csv).await.0, 400, "{csv}");
    }
    let unknown = "is not known here; known: kr-public-mask-2020, weekly-essentials".to_owned();
    assert_eq!(tried.problem("/v1/stock?programme=masks").await, (404, json!("programme"), unknown));
    let nobody = "no site has this code".to_owned();
    assert_eq!(tried.problem(&format!("{new}&site=1")).await, (404, json!("site"), nobody));
    let nothing = "there is nothing here; /openapi.json says what there is".to_owned();
    assert_eq!(tried.problem("/v2/stock").await, (404, Value::Null, nothing));
    // Their callers are what they are.
    assert_eq!(tried.ok(&format!("{GEO}&serviceKey=abc&_=1")).await["count"], 1);
}

fn many(count: usize) -> Sites {
    let mut text = "code,name,channel,region,address,lat,lng\n".to_owned();
    for nth in 0..count {
        // Several at each place, so that some are equally far.
        let (lat, lng) = (37.0 + f64::from(u32::try_from(nth / 3).unwrap()) * 1e-5, 127.0);
        text += &format!("S{nth:05},Shop {nth},mart,Seoul,Seoul Jung-gu {nth},{lat},{lng}\n");
    }
    Sites::parse(&text, "sites.csv").unwrap()
}

#[tokio::test]
async fn the_pages_hold_every_site_exactly_once_while_others_come_and_go() {
    let tried = Tried::of(many(1_203));
    for filter in ["", "&region=Seoul", "&address=Seoul+Jung-gu", "&lat=37.001&lng=127&metres=20000"] {
        tried.sites.store(Arc::new(many(1_203)));
        let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let path = format!("/v1/stock?programme={MASKS}{filter}&page_size=100{token}");
            let page = tried.ok(&path).await;
            let rows = page["stock"].as_array().unwrap().clone();
            assert!(!rows.is_empty(), "{path}: a token of an empty page");
            seen.extend(rows.into_iter().map(|row| row["site"].as_str().unwrap().to_owned()));
            pages += 1;
            // Some that were seen, or not seen yet, are gone by the next page; those that stay are all seen.
            tried.sites.store(Arc::new(many(1_200)));
            let Some(next) = page["next_page_token"].as_str() else { break };
            token = format!("&page_token={next}");
        }
        let once: BTreeSet<_> = seen.iter().collect();
        assert_eq!(once.len(), seen.len(), "{filter}: one was told twice");
        assert!((0..1_200).all(|nth| once.contains(&format!("S{nth:05}"))), "{filter}: one was left out");
        assert_eq!(pages, seen.len().div_ceil(100), "{filter}");
    }

    let (mut seen, mut page) = (BTreeSet::new(), 1);
    loop {
        let answer = tried.ok(&format!("/corona19-masks/v1/stores/json?page={page}&perPage=500")).await;
        assert_eq!((&answer["totalPages"], &answer["totalCount"]), (&json!(3), &json!(1_200)));
        let rows = answer["storeInfos"].as_array().unwrap();
        assert_eq!(answer["count"], rows.len());
        if rows.is_empty() {
            break;
        }
        assert!(rows.iter().all(|row| seen.insert(row["code"].as_str().unwrap().to_owned())));
        page += 1;
    }
    assert_eq!((seen.len(), page), (1_200, 4));
}

#[tokio::test]
async fn the_table_says_what_the_json_says() {
    let tried = Tried::demo();
    for query in [
        format!("programme={MASKS}"),
        format!("programme={MASKS}&page_size=4"),
        format!("programme={MASKS}&lat=37.5702&lng=126.9768&metres=20000"),
        format!("programme={MASKS}&address=Nowhere"),
    ] {
        let told = tried.ok(&format!("/v1/stock?{query}")).await;
        let got = tried.get(&format!("/v1/stock.csv?{query}")).await;
        assert_eq!(got.header("content-type"), "text/csv; charset=utf-8");
        assert_eq!(got.header("read-until"), told["read_until"].as_str().unwrap());
        assert_eq!(got.header("next-page-token"), told["next_page_token"].as_str().unwrap_or_default());
        let mut table = csv::Reader::from_reader(&got.body[..]);
        let columns = table.headers().unwrap().clone();
        let rows: Vec<_> = table.records().map(Result::unwrap).collect();
        let expected = told["stock"].as_array().unwrap();
        assert_eq!(rows.len(), expected.len(), "{query}");
        for (row, expected) in rows.iter().zip(expected) {
            assert_eq!(columns.len(), expected.as_object().unwrap().len(), "{query}");
            for (column, cell) in columns.iter().zip(row) {
                let said = match &expected[column] {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                assert_eq!(cell, said, "{query}: {column}");
            }
        }
    }
}

#[tokio::test]
async fn whoever_has_the_answer_already_is_not_sent_it_again() {
    let tried = Tried::demo();
    for path in ["/", "/openapi.json", "/v1/programmes", SEOUL, GEO] {
        let first = tried.get(path).await;
        let tag = first.header("etag").to_owned();
        let who = if path.contains("lat=") { "private" } else { "public" };
        assert!(tag.starts_with("W/\"") && first.header("cache-control") == format!("{who}, max-age=5"), "{path}");
        let others = format!("\"x\", {}", tag.trim_start_matches("W/"));
        for known in [tag.as_str(), &others, "*"] {
            let again = tried.send("GET", path, &[("if-none-match", known)]).await;
            assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{path}: {known}");
            assert_eq!(again.header("etag"), tag);
        }
        assert_eq!(tried.send("GET", path, &[("if-none-match", "W/\"0\"")]).await.status, 200, "{path}");
    }
    // That more was read says nothing of what is in it.
    let tag = tried.get(SEOUL).await.header("etag").to_owned();
    tried.board.publish(invented(), Some(noon().plus(std::time::Duration::from_secs(1))));
    assert_eq!(tried.send("GET", SEOUL, &[("if-none-match", &tag)]).await.status, 304);
    let tag = tried.get(GEO).await.header("etag").to_owned();
    let mut rows = invented();
    rows[0].1.level = Level::Some;
    tried.board.publish(rows, Some(noon()));
    assert_eq!(tried.send("GET", GEO, &[("if-none-match", &tag)]).await.status, 304, "a second has not passed");
    tried.at(noon().plus(Duration::from_secs(1)));
    let now = tried.send("GET", GEO, &[("if-none-match", &tag)]).await;
    assert_eq!((now.status.as_u16(), &now.json()["stores"][0]["remain_stat"]), (200, &json!("some")));
}

#[tokio::test]
async fn answers_are_packed_for_whoever_can_unpack_them() {
    use std::io::Read;
    let tried = Tried::demo();
    // The page and the document are large, and go out in pieces.
    for path in [SEOUL, "/", "/openapi.json"] {
        let plain = tried.get(path).await;
        assert_eq!(plain.header("content-encoding"), "");
        assert_eq!(plain.header("content-length"), plain.body.len().to_string(), "{path}");
        let packed = tried.send("GET", path, &[("accept-encoding", "gzip")]).await;
        assert_eq!((packed.header("content-encoding"), packed.header("etag")), ("gzip", plain.header("etag")));
        assert!(packed.header("vary").contains("accept-encoding") && packed.body.len() < plain.body.len());
        assert_eq!(packed.header("content-length"), "");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain.body);
    }
}

#[tokio::test]
async fn any_page_may_read_and_nobody_may_write() {
    let tried = Tried::demo();
    for path in [GEO, "/v1/stock", "/nowhere"] {
        let got = tried.send("GET", path, &[("origin", "https://map.example")]).await;
        assert_eq!(got.header("access-control-allow-origin"), "*", "{path}");
        assert!(got.header("access-control-expose-headers").contains("etag"), "{path}");
    }
    let asked = [("origin", "https://map.example"), ("access-control-request-method", "GET")];
    let preflight = tried.send("OPTIONS", GEO, &asked).await;
    assert_eq!((preflight.status.as_u16(), preflight.header("access-control-allow-methods")), (200, "GET,HEAD"));
    for (path, _) in ROUTES {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let got = tried.send(method, path, &[]).await;
            assert_eq!((got.status.as_u16(), got.header("allow")), (405, "GET, HEAD"), "{method} {path}");
            assert_eq!(got.json()["error"]["problem"], "this is only read; use GET");
        }
    }
    let (get, head) = (tried.get(GEO).await, tried.send("HEAD", GEO, &[]).await);
    assert_eq!((head.status, head.body.len(), head.header("etag")), (get.status, 0, get.header("etag")));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
}

#[tokio::test]
async fn everything_is_stale_once_nothing_is_read_any_more() {
    let tried = Tried::demo();
    let stale = async || tried.ok(SEOUL).await["stock"][0]["stale"].clone();
    assert_eq!(stale().await, false);
    tried.at(noon().plus(Duration::from_secs(60)));
    assert_eq!(stale().await, false);
    tried.at(noon().plus(Duration::from_secs(61)));
    assert_eq!(stale().await, true);
    assert_eq!(tried.ok(GEO).await["stores"][0]["stale"], true);
    tried.board.publish(invented(), Some(noon().plus(Duration::from_secs(60))));
    assert_eq!(stale().await, false);
    assert_eq!(tried.ok(SEOUL).await["read_until"], "2020-03-11T03:01:00.000Z", "though nothing has changed");
    tried.board.publish(invented(), None);
    assert_eq!((stale().await, tried.ok(SEOUL).await["read_until"].clone()), (json!(true), Value::Null));
}

#[tokio::test]
async fn what_changes_is_seen_and_what_does_not_is_not_made_again() {
    let tried = Tried::demo();
    let stocks =
        Stocks::new(tried.board.clone(), tried.sites.clone(), Arc::new(ArcSwap::from_pointee(Policies::built_in())));
    let cache = Cache::new(stocks);
    let code = masks("11000001").programme;
    let before = cache.view(noon()).await.unwrap();
    let mut rows = invented();
    rows.remove(1);
    rows[0].1.level = Level::Few;
    tried.board.publish(rows, Some(noon()));
    let [soon, late] = [999, 1_000].map(|millis| noon().plus(Duration::from_millis(millis)));
    assert!(Arc::ptr_eq(&before.rendered, &cache.view(soon).await.unwrap().rendered), "made once a second at most");
    let after = cache.view(late).await.unwrap();
    assert!(Arc::ptr_eq(&before.places, &after.places));
    let same = before.of(code).iter().zip(after.of(code)).map(|(before, after)| Arc::ptr_eq(before, after));
    let others: Vec<_> = same.enumerate().filter(|(_, same)| !same).map(|(nth, _)| nth).collect();
    assert_eq!(others, [0, 1]);
    assert_eq!(after.of(code)[1].shown, None, "what is not on the board is not known");
    // Other sites: nothing is where it was.
    tried.sites.store(Arc::new(many(5)));
    let moved = cache.view(late).await.unwrap();
    assert_eq!((moved.places.len(), moved.of(code).len()), (5, 5));
    assert!(tried.ok(GEO).await["stores"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn the_page_runs_nothing_but_itself_and_writes_no_markup_from_data() {
    let tried = Tried::demo();
    let got = tried.get("/?lang=ko").await;
    let page = got.text();
    assert_eq!(got.header("content-type"), "text/html; charset=utf-8");
    assert_eq!((page.matches("<script").count(), page.matches("<style").count()), (1, 1));
    let policy = got.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    // Of nothing: the tags were not found.
    assert!(!policy.contains("47DEQpj8HBSa"), "{policy}");
    for loophole in [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "style=\"",
        " onclick",
        "http://",
        "https://",
    ] {
        let found = page.matches(loophole).count();
        let namespace = page.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(found, if loophole == "http://" { namespace } else { 0 }, "{loophole}");
    }
    // A name is data: it goes out in JSON and as nothing else.
    let name = "<script>alert(1)</script> \"&amp;'";
    let text = format!(
        "code,name,channel,region,address,lat,lng\n1,\"{}\",mart,Seoul,Seoul Jung-gu 1,37.57,126.97\n",
        name.replace('"', "\"\"")
    );
    let tried = Tried::of(Sites::parse(&text, "sites.csv").unwrap());
    tried.board.publish(vec![(masks("1"), shown(Level::Few, noon()))], Some(noon()));
    for path in [SEOUL, GEO] {
        let got = tried.get(path).await;
        assert_eq!(got.header("x-content-type-options"), "nosniff");
        let rows = [&got.json()["stock"][0]["name"], &got.json()["stores"][0]["name"]].map(Value::clone);
        assert!(rows.contains(&json!(name)), "{path}: {rows:?}");
    }
}

#[test]
fn the_page_says_the_same_in_both_languages() {
    let words = |lang: &str| -> BTreeSet<String> {
        let (_, rest) = page::PAGE.split_once(&format!("\n  {lang}: {{\n")).unwrap();
        let (inside, _) = rest.split_once("\n  },").unwrap();
        let named =
            |part: &str| part.trim().rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap().to_owned();
        inside.match_indices(": ").map(|(at, _)| named(&inside[..at])).collect()
    };
    let (english, korean) = (words("en"), words("ko"));
    for (_, rest) in page::PAGE.match_indices("data-text=\"").map(|(at, found)| page::PAGE.split_at(at + found.len())) {
        let name = rest.split('"').next().unwrap();
        assert!(english.contains(name) && korean.contains(name), "{name}");
    }
    for name in ["stale", "staleMeans", "unverified", "unverifiedMeans", "paused", "unknown", "pharmacy", "post_office"]
    {
        assert!(english.contains(name) && korean.contains(name), "{name}");
    }
}

/// What of this answer is not as the document says, each with where it is.
fn undocumented(document: &Value, schema: &Value, answer: &Value, place: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.trim_start_matches('#');
        return undocumented(document, document.pointer(pointer).unwrap(), answer, place, found);
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().map(|kind| kind.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    };
    let is = match answer {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() && types.contains(&"integer") => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.contains(&is) {
        found.push(format!("{place}: is {is}, not {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(answer)) {
        found.push(format!("{place}: {answer} is not in its list"));
    }
    for (nth, item) in answer.as_array().into_iter().flatten().enumerate() {
        undocumented(document, &schema["items"], item, &format!("{place}[{nth}]"), found);
    }
    let (Some(answer), Some(properties)) = (answer.as_object(), schema["properties"].as_object()) else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !answer.contains_key(name.as_str().unwrap()) {
            found.push(format!("{place}: has no {name}"));
        }
    }
    for (name, value) in answer {
        match properties.get(name) {
            Some(schema) => undocumented(document, schema, value, &format!("{place}.{name}"), found),
            None => found.push(format!("{place}.{name}: is not in the document")),
        }
    }
}

#[tokio::test]
async fn the_document_tells_of_every_path_parameter_and_field_and_of_no_other() {
    let tried = Tried::demo();
    let document = tried.ok("/openapi.json").await;
    let told: BTreeSet<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(told, ROUTES.map(|(path, _)| path).into_iter().collect());

    let resolved = |value: &Value| match value["$ref"].as_str() {
        Some(name) => document.pointer(name.trim_start_matches('#')).unwrap().clone(),
        None => value.clone(),
    };
    for (path, operation) in document["paths"].as_object().unwrap() {
        let parameters: Vec<_> = operation["get"]["parameters"].as_array().unwrap().iter().map(resolved).collect();
        let mut query = Vec::new();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            // Of the filters one.
            let example = parameter.get("example").or_else(|| parameter["schema"].get("default"));
            if let (Some(example), false) =
                (example, ["site", "region", "address"].contains(&name) && path.starts_with("/v1"))
            {
                let example = example.as_str().map_or_else(|| example.to_string(), |text| text.replace(' ', "+"));
                query.push(format!("{name}={example}"));
            }
            let schema = &parameter["schema"];
            for (limit, beyond) in [("minimum", -1.0), ("maximum", 1.0)] {
                let Some(limit) = schema[limit].as_f64() else { continue };
                let others: Vec<_> = parameters
                    .iter()
                    .filter(|other| other["name"] != *name)
                    .filter_map(|other| {
                        let needed = other["required"] == true
                            || (["lat", "lng", "metres"].contains(&name)
                                && ["lat", "lng", "metres"].contains(&other["name"].as_str()?));
                        let example = other.get("example").filter(|_| needed)?;
                        let example =
                            example.as_str().map_or_else(|| example.to_string(), |text| text.replace(' ', "+"));
                        Some(format!("{}={example}", other["name"].as_str()?))
                    })
                    .collect();
                let ask = |value: f64| format!("{path}?{}&{name}={value}", others.join("&"));
                assert_eq!(tried.get(&ask(limit)).await.status, 200, "{}", ask(limit));
                assert_eq!(tried.problem(&ask(limit + beyond)).await.1, json!(name), "{}", ask(limit + beyond));
            }
        }
        let path = format!("{path}?{}", query.join("&"));
        let got = tried.get(&path).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text());
        let mut found = Vec::new();
        for (status, response) in operation["get"]["responses"].as_object().unwrap() {
            let response = resolved(response);
            for (kind, content) in response["content"].as_object().into_iter().flatten() {
                let place = format!("{path} {status} example");
                undocumented(&document, &content["schema"], &content["example"], &place, &mut found);
                if status == "200" {
                    assert!(got.header("content-type").starts_with(kind.as_str()), "{path}");
                }
                if status == "200" && kind == JSON {
                    undocumented(&document, &content["schema"], &got.json(), &path, &mut found);
                }
            }
            for name in response["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
                assert!(status != "200" || got.headers.contains_key(name.as_str()), "{path}: {name}");
            }
        }
        assert_eq!(found, [""; 0]);
    }
    // Errors too, and levels that no example has.
    for path in ["/v1/stock", "/v1/stock?programme=x", "/nowhere"] {
        let mut found = Vec::new();
        let problem = json!({ "$ref": "#/components/schemas/Problem" });
        undocumented(&document, &problem, &tried.get(path).await.json(), path, &mut found);
        assert_eq!(found, [""; 0]);
    }
    for (path, schema) in [
        (format!("/v1/stock?programme={MASKS}"), "Stock"),
        ("/corona19-masks/v1/sales/json".to_owned(), "SalesPage2020"),
        ("/corona19-masks/v1/stores/json".to_owned(), "StoresPage2020"),
    ] {
        let mut found = Vec::new();
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        undocumented(&document, &schema, &tried.ok(&path).await, &path, &mut found);
        assert_eq!(found, [""; 0]);
    }
}

#[tokio::test]
async fn large_answers_have_so_much_room_and_go_out_whole() {
    let room = answer::Room::default();
    let half: Vec<u8> = (0..32 * 1024 * 1024_usize).map(|n| n.to_le_bytes()[1]).collect();
    let half = axum::body::Bytes::from(half);
    let (first, second) = (room.take(half.clone()).unwrap(), room.take(half.clone()).unwrap());
    assert!(room.take(half.clone()).is_none(), "who takes nothing keeps what waits for them");
    assert!(room.take(half.slice(..16 * 1024)).is_some(), "small ones are always answered");
    drop(first);
    assert!(room.take(half.clone()).is_some());
    assert_eq!(axum::body::to_bytes(second, usize::MAX).await.unwrap(), half);
}
