//! One ledger, two stores: the same cases, the same random histories, the same races and the same crashes over the
//! embedded store and over Redis, all of them on real files and real servers.
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod support;

mod stores {
    mod crashes;
    mod disk;
    mod files;
    mod histories;
    mod model;
    mod places;
    mod race;
    mod steps;
    mod suite;
    mod workers;
}
