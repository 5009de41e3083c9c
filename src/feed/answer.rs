//! An answer over HTTP: with its tag, so that who has it already is not sent it again, and every problem in one form.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::sync::Semaphore;

use super::asked::Problem;

/// What JSON is called.
pub(super) const JSON: &str = "application/json";

/// How long an answer is good without asking again: no longer than a level takes to come round.
const KEPT: &str = "public, max-age=5";
const KEPT_BY_THE_ASKER: &str = "private, max-age=5";

/// Answers up to so many bytes are always there for the taking: there are no more of them than connections and their streams.
const SMALL: usize = 16 * 1024;
/// How many KiB of larger ones may be on their way at once, to however many who take them slowly or not at all.
const ROOM: usize = 64 * 1024;

/// Room for large answers.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

impl Room {
    /// The body, which keeps its room until it is gone; `None`: there is none. What is large goes out in pieces, so that no more of
    /// it waits in a connection than the peer takes.
    pub(super) fn take(&self, body: Bytes) -> Option<Body> {
        if body.len() <= SMALL {
            return Some(body.into());
        }
        let kib = u32::try_from(body.len().div_ceil(1024)).ok()?;
        let kept = self.0.clone().try_acquire_many_owned(kib).ok()?;
        let pieces = stream::unfold((body, kept), async |(mut rest, kept)| {
            let piece = rest.split_to(rest.len().min(SMALL));
            (!piece.is_empty()).then(|| (Ok::<_, Infallible>(piece), (rest, kept)))
        });
        // Whoever packs it asks once more behind its end.
        Some(Body::from_stream(pieces.fuse()))
    }
}

/// An answer.
pub(super) struct Answer {
    kind: &'static str,
    body: Bytes,
    /// What its tag is made of, where that is not all of it.
    tagged_by: Option<Bytes>,
    is_private: bool,
    others: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// Of this kind, with this body.
    pub(super) fn new(kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self { kind, body: body.into(), tagged_by: None, is_private: false, others: Vec::new() }
    }

    /// It says the same as long as these bytes are the same.
    pub(super) fn tagged_by(self, same: impl Into<Bytes>) -> Self {
        Self { tagged_by: Some(same.into()), ..self }
    }

    /// Where somebody stands is in the question: nobody between keeps the answer.
    pub(super) fn private(self) -> Self {
        Self { is_private: true, ..self }
    }

    /// The same with another header. What no header can hold is left out.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.others.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// For whoever sent these headers, if there is room for it.
    pub(super) fn to(self, asker: &HeaderMap, room: &Room) -> Response {
        let tag = tag(self.tagged_by.as_ref().unwrap_or(&self.body));
        let keeps = if self.is_private { KEPT_BY_THE_ASKER } else { KEPT };
        let kept =
            [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, keeps), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        let mut response = if has(asker, &tag) {
            (StatusCode::NOT_MODIFIED, kept).into_response()
        } else {
            // Of what goes out in pieces nobody would know it.
            let length = self.body.len();
            let Some(body) = room.take(self.body) else {
                let mut busy =
                    Problem::of_whole(StatusCode::SERVICE_UNAVAILABLE, "too much is asked at once").into_response();
                busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                return busy;
            };
            let mut response = (kept, [(header::CONTENT_TYPE, self.kind)], body).into_response();
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            response
        };
        response.headers_mut().extend(self.others);
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "parameter": self.parameter, "problem": self.problem } });
        let headers = [
            (header::CONTENT_TYPE, JSON),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (self.status, headers, body.to_string()).into_response()
    }
}

/// Weak, because the same answer goes out packed and not packed. The same in every process of one build.
fn tag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("W/\"{:016x}\"", hasher.finish())
}

fn has(asker: &HeaderMap, tag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let tags = asker.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|tags| tags.split(',')).any(|known| known.trim() == "*" || bare(known) == bare(tag))
}
