//! The Dockerfile: linted, and held against the manifests. No engine builds it here.

use std::process::Command;

use super::rendered::{Rendered, pod, read, root, tool};
use crate::service::run;

#[test]
fn the_image_is_small_runs_as_nobody_and_starts_what_the_pods_start() {
    let mut lint = Command::new(tool("hadolint"));
    lint.args(["--failure-threshold", "style", "k8s/Dockerfile"]);
    let linted = run(lint, root(), "");
    assert_eq!((linted.code, linted.out.as_str()), (0, ""), "{}", linted.err);

    let file = read("k8s/Dockerfile");
    let last = file.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("gcr.io/distroless/static-debian12:nonroot"), "nothing to log in to, nobody's rights");
    // Static, or nothing in that image could start it.
    assert!(file.contains("-C target-feature=+crt-static") && file.contains("--target x86_64-unknown-linux-gnu"));
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(
        file.contains(&format!("FROM rust:{version}-bookworm AS build")),
        "the toolchain of the project, {version}"
    );
    let rendered = Rendered::of("national");
    for name in ["rationd", "rationd-feed"] {
        let container = &pod(rendered.the("Deployment", name))["containers"][0];
        assert_eq!(container["args"][0], "serve");
        assert!(container["command"].is_null() && file.contains("ENTRYPOINT [\"/usr/local/bin/rationd\"]"));
        assert_eq!(container["image"], format!("rationd:{}", env!("CARGO_PKG_VERSION")));
    }
}
