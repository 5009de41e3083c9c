//! The program itself: real processes on real stores, driven over gRPC, the command line and signals, and killed.
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails where it stands")]
#![allow(clippy::panic, clippy::disallowed_methods, reason = "a test waits for real processes in real time")]
#![allow(clippy::print_stdout, reason = "what a test counted is worth reading")]

mod support;

mod program {
    mod abuse;
    mod audit;
    mod broken;
    mod canary;
    mod cluster;
    mod command_line;
    mod complaints;
    mod crash;
    mod descriptors;
    mod drain;
    mod events;
    mod examples;
    mod files;
    mod insisting;
    mod journal;
    mod kill;
    mod load;
    mod policy;
    mod python;
    mod race;
    mod receipts;
    mod replay;
    mod rotation;
    mod selling;
    mod service;
    mod shops;
    mod stock;
    mod stop;
    mod storm;
    #[cfg(feature = "museum")]
    mod supervised;
    mod switch;
    mod telemetry;
    mod terminal;
    mod tls;
    mod unfit;
}
