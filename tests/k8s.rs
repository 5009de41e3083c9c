//! What `k8s/` holds agrees with the service and with itself: every overlay is rendered by kubectl, validated against the schemas of
//! Kubernetes, and read for what it promises; the scripts and settings of the replicated store are run; the alerts are tried.
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails where it stands")]
#![allow(clippy::panic, clippy::disallowed_methods, reason = "a test waits for real processes in real time")]
#![allow(clippy::print_stdout, reason = "what a test counted is worth reading")]

mod support;

#[allow(dead_code, reason = "these tests use a part of it")]
#[path = "program/service.rs"]
mod service;

mod k8s {
    mod counters;
    mod feed;
    mod image;
    mod network;
    mod pods;
    mod promises;
    mod rendered;
    mod replicas;
    mod services;
    mod store;
    mod watching;
}
