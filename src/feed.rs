//! The public stock feed over HTTP: the feed of 2020 for what was written for it, its own form beside it, and a page for whoever
//! stands in the street and looks for a shop. Everybody is answered from memory, off the path of the checks, and told of
//! every figure as of when it is and whether it may be otherwise by now.
//!
//! Knows nothing about buyers, and tells nobody exact quantities.

mod addresses;
mod answer;
mod asked;
mod of_2020;
mod page;
mod rendered;
mod stock;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{Any, CorsLayer};

use crate::ids::{ProgrammeCode, ProgrammeId};
use crate::stock::intake::Stocks;
use crate::time::Timestamp;

use answer::{Answer, JSON, Room};
use asked::{Asked, Problem};
use rendered::{Cache, View};

/// The feed as a service, for a listener.
pub type Pages = Router;

/// What the feed is asked over HTTP is described here.
const OPENAPI: &str = include_str!("feed/openapi.json");

/// Which question is answered how.
type Answered = fn(&Feed, &View, Asked) -> Result<Answer, Problem>;

const ROUTES: [(&str, Answered); 9] = [
    ("/", |_, _, _| Ok(page::answer())),
    ("/openapi.json", |_, _, _| Ok(Answer::new(JSON, OPENAPI))),
    ("/v1/programmes", |feed, _, asked| stock::programmes(&feed.stocks, asked)),
    ("/v1/stock", |feed, view, asked| stock::json(&feed.stocks, view, asked)),
    ("/v1/stock.csv", |feed, view, asked| stock::csv(&feed.stocks, view, asked)),
    ("/corona19-masks/v1/stores/json", |_, view, asked| of_2020::stores(view, asked)),
    ("/corona19-masks/v1/sales/json", |feed, view, asked| of_2020::sales(view, feed.programme_of_2020()?, asked)),
    ("/corona19-masks/v1/storesByGeo/json", |feed, view, asked| {
        of_2020::by_geo(view, feed.programme_of_2020()?, asked)
    }),
    ("/corona19-masks/v1/storesByAddr/json", |feed, view, asked| {
        of_2020::by_address(view, feed.programme_of_2020()?, asked)
    }),
];

/// The feed of these stocks, at the time that `now` gives. The paths of 2020 speak of this programme.
pub fn router(
    stocks: Stocks,
    programme_of_2020: ProgrammeId,
    now: impl Fn() -> Timestamp + Clone + Send + Sync + 'static,
) -> Pages {
    let cache = Cache::new(stocks.clone());
    let feed = Feed { stocks, cache, programme_of_2020, room: Room::default(), now: Arc::new(now) };
    let pages = ROUTES.into_iter().fold(Router::new(), |pages, (path, answered)| {
        let serve =
            async move |State(feed): State<Feed>, uri: Uri, asker: HeaderMap| feed.serve(answered, &uri, &asker).await;
        pages.route(path, get(serve))
    });
    let readable_anywhere = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::IF_NONE_MATCH])
        .expose_headers([header::ETAG, stock::READ_UNTIL, stock::NEXT_PAGE_TOKEN]);
    pages
        .fallback(async || {
            Problem::of_whole(StatusCode::NOT_FOUND, "there is nothing here; /openapi.json says what there is")
        })
        .method_not_allowed_fallback(only_read)
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .layer(readable_anywhere)
        .with_state(feed)
}

/// The same pages; of every answer it is told to which path it is ("other": to none of them), its status, and how long it took to make.
pub fn watched(
    pages: Pages,
    monotonic: impl Fn() -> Duration + Clone + Send + Sync + 'static,
    told: impl Fn(&'static str, u16, Duration) + Clone + Send + Sync + 'static,
) -> Pages {
    let watch = move |request: Request, next: Next| {
        let (monotonic, told) = (monotonic.clone(), told.clone());
        async move {
            let found = ROUTES.iter().find(|(path, _)| *path == request.uri().path());
            let (path, begun) = (found.map_or("other", |(path, _)| *path), monotonic());
            let answer = next.run(request).await;
            told(path, answer.status().as_u16(), monotonic().saturating_sub(begun));
            answer
        }
    };
    pages.layer(axum::middleware::from_fn(watch))
}

async fn only_read() -> Response {
    let problem = Problem::of_whole(StatusCode::METHOD_NOT_ALLOWED, "this is only read; use GET");
    let mut response = problem.into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

#[derive(Clone)]
struct Feed {
    stocks: Stocks,
    cache: Cache,
    programme_of_2020: ProgrammeId,
    room: Room,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Feed {
    async fn serve(&self, answered: Answered, uri: &Uri, asker: &HeaderMap) -> Response {
        let Ok(view) = self.cache.view((self.now)()).await else {
            return Problem::of_whole(StatusCode::SERVICE_UNAVAILABLE, "ask again in a moment").into_response();
        };
        match Asked::of(uri).and_then(|asked| answered(self, &view, asked)) {
            Ok(answer) => answer.to(asker, &self.room),
            Err(problem) => problem.into_response(),
        }
    }

    fn programme_of_2020(&self) -> Result<ProgrammeCode, Problem> {
        let gone = |why: String| Problem::of_whole(StatusCode::NOT_FOUND, &format!("the programme {why}"));
        self.stocks.programme(self.programme_of_2020.as_str()).map_err(gone)
    }
}
