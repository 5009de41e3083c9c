//! rationd (crate docs are written last).

pub mod ids;
pub mod museum;
pub mod policy;
pub mod redis_pool;
pub mod telemetry;
pub mod time;
