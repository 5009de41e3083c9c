//! rationd (crate docs are written last).

pub mod buyer;
pub mod ids;
pub mod ledger;
pub mod museum;
pub mod policy;
pub mod redis_pool;
pub mod telemetry;
pub mod time;
pub mod grpc;
