//! The service as its clients meet it: started in this process as `serve` starts it, called over gRPC on loopback, on the
//! embedded store and on a real Redis, with a clock that stands still until a test moves it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test says what it expects by panicking, prints its figures, and measures real time"
)]

mod support;

mod service {
    #[macro_use]
    pub mod harness;

    mod accesses;
    mod ageing;
    mod audit;
    mod bad_input;
    mod behaviour;
    mod certificates;
    mod events;
    mod gateway;
    mod holds;
    mod instances;
    mod journal;
    mod line;
    mod operator;
    mod outages;
    mod replay;
    mod roles;
    mod sessions;
    mod stock;
    mod stream;
    mod stream_load;
    mod tls;
    mod vectors;
    mod visits;
}
