//! What the integration tests share: real servers that they start and end themselves.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod redis;
