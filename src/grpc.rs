//! The gRPC edge.

/// The generated types and services of package `rationd.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the comments stand in proto/")]
pub mod v1 {
    tonic::include_proto!("rationd.v1");
}
