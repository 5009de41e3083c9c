//! One ledger, two stores: the same cases, the same random histories, the same races and the same crashes over the
//! embedded store and over Redis, all of them on real files and real servers.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail by panicking, tells what it counted, and waits by the machine's clock"
)]

mod support;

mod stores {
    mod books;
    mod crashes;
    mod disk;
    mod files;
    mod histories;
    mod model;
    mod places;
    mod race;
    mod shelves;
    mod steps;
    mod suite;
    mod workers;
}
