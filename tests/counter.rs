//! A counter terminal: its journal through kills, damage and full disks, and what it does while the service is away, against real
//! processes of the service.
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails where it stands")]
#![allow(clippy::panic, clippy::disallowed_methods, reason = "a test waits for real processes in real time")]
#![allow(clippy::print_stdout, reason = "what a test counted is worth reading")]

mod support;

#[allow(dead_code, reason = "of what the tests of the program share, a part is needed")]
#[path = "program/service.rs"]
mod service;
#[allow(dead_code, reason = "of what the tests of the program share, a part is needed")]
#[path = "program/shops.rs"]
mod shops;

mod counter {
    mod files;
    mod holds;
    mod kills;
    mod outage;
    mod scene;
    mod tls;
    mod upload;
    mod workers;
}
