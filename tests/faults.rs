//! Nothing that was acknowledged is lost, whatever breaks: faults struck under load, one row each, on real processes.
//!
//! `tests/faults` runs the rows by themselves and prints their table; as a part of `cargo test` they run in their short form.
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails where it stands")]
#![allow(dead_code, reason = "of what other tests use too it needs a part")]
#![allow(clippy::panic, clippy::disallowed_methods, reason = "a test waits for real processes in real time")]
#![allow(clippy::print_stdout, reason = "what a test counted is worth reading")]

mod support;

/// Services of a test's own, as the tests of the program start them.
mod program {
    pub mod service;
}

mod fault {
    mod crowd;
    mod damage;
    mod disk;
    mod failover;
    mod kills;
    mod line;
    mod linear;
    mod network;
    mod proxy;
    mod row;
    mod scene;
    mod seeds;
    mod shim;
}
