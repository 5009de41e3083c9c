//! rationd (crate docs are written last).

pub mod ids;
pub mod museum;
pub mod sites;
pub mod time;

pub mod buyer;
pub mod policy;

pub mod ledger;
pub mod redis_pool;
pub mod session;

pub mod purchase;

pub mod grpc;
pub mod terminal;

pub mod app;
pub mod cli;
pub mod config;
pub mod drain;
pub mod telemetry;
