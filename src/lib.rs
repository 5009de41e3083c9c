//! rationd (crate docs are written last).

pub mod buyer;
pub mod config;
pub mod ids;
pub mod museum;
pub mod redis_pool;
pub mod sites;
pub mod time;
