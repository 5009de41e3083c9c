//! Stock as a whole: real stores, real followers, faults while much happens, and an audit of what is shown.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail by panicking, tells what it counted, and waits by the machine's clock"
)]

mod support;

mod stock {
    mod audit;
}
