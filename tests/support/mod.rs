//! What the integration tests share: real servers that they start and end themselves.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

pub mod cluster;
pub mod collector;
pub mod lossy;
pub mod preload;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod replicas;
pub mod workers;
