//! The page for whoever looks for a shop: one file, which loads nothing and may run nothing but what is in it.

use std::sync::LazyLock;

use axum::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::answer::Answer;

/// The page.
pub(super) const PAGE: &str = include_str!("page.html");

/// What the page may do: run and look as it is written, and ask this feed.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let (script, style) = (hash("script"), hash("style"));
    format!(
        "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
});

/// The page with what it may do.
pub(super) fn answer() -> Answer {
    Answer::new("text/html; charset=utf-8", PAGE)
        .with(header::CONTENT_SECURITY_POLICY, &POLICY)
        .with(header::REFERRER_POLICY, "no-referrer")
}

/// Of what stands between the only two tags of this name.
fn hash(tag: &str) -> String {
    let begins = PAGE.split_once(&format!("<{tag}>")).map(|(_, rest)| rest).unwrap_or_default();
    let inside = begins.split_once(&format!("</{tag}>")).map(|(inside, _)| inside).unwrap_or_default();
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inside)))
}
