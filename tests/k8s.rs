//! The manifests agree with the service: what they promise each other is read here from the files that are shipped.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::path::Path;

use rationd::config::{Config, Overrides, Store};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn base(file: &str) -> String {
    read(&format!("k8s/base/{file}"))
}

/// The values of a key wherever it stands in a manifest, quotes removed.
fn values<'a>(manifest: &'a str, key: &str) -> Vec<&'a str> {
    let value = |line: &'a str| line.trim_start_matches([' ', '-']).strip_prefix(key)?.strip_prefix(": ");
    manifest.lines().filter_map(value).map(|value| value.trim_matches('"')).collect()
}

/// The numbers of a key that stands inside a block of this name.
fn numbers_in(manifest: &str, block: &str, key: &str) -> Vec<u64> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = manifest.lines().collect();
    let opened =
        lines.iter().enumerate().filter(|(_, line)| line.trim_start_matches([' ', '-']) == format!("{block}:"));
    opened
        .flat_map(|(at, opening)| {
            let inside = lines.iter().skip(at + 1).take_while(|line| indent(line) > indent(opening));
            inside.flat_map(|line| values(line, key)).map(|value| value.parse().expect("a number")).collect::<Vec<_>>()
        })
        .collect()
}

/// The shipped configuration, as the service reads it in a pod: a field that it does not know would be an error.
fn config() -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("k8s/base/rationd.toml");
    Config::load(Some(&path), Overrides::default(), []).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_grace_period_exceeds_what_happens_in_it() {
    let deployment = base("deployment.yaml");
    let grace: u64 = values(&deployment, "terminationGracePeriodSeconds")[0].parse().expect("a number");
    let before = numbers_in(&deployment, "sleep", "seconds");
    assert_eq!(before.len(), 1, "one sleep before the drain");
    let drain = config().drain.as_secs();
    assert!(before[0] + drain < grace, "{before:?} s and a drain of {drain} s do not fit into {grace} s");
}

#[test]
fn probes_ask_the_admin_listener_for_services_that_exist() {
    let (deployment, config) = (base("deployment.yaml"), config());
    let admin = config.admin;
    assert!(!admin.ip().is_loopback(), "the kubelet probes the pod's address");
    assert_eq!(numbers_in(&deployment, "grpc", "port"), [u64::from(admin.port()); 3], "liveness, readiness, start");
    assert_eq!(values(&deployment, "prometheus.io/port"), [admin.port().to_string()]);
    assert_eq!(values(&deployment, "service"), ["rationd.v1.PurchaseService"], "readiness alone names a service");
    let ports = values(&deployment, "containerPort").join(" ");
    assert_eq!(ports, format!("{} {}", config.counters.port(), admin.port()));
}

#[test]
fn counters_are_reached_and_must_show_certificates() {
    let (config, deployment) = (config(), base("deployment.yaml"));
    assert!(config.counters.ip().is_unspecified(), "the Services lead to the pod's address");
    let tls = config.tls.expect("certificates");
    for file in [&tls.certificate, &tls.key, &tls.client_ca] {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(values(&deployment, "path").contains(&name), "{}", file.display());
        assert_eq!(file.parent(), config.keys.parent(), "the init container copies what belongs together to one place");
    }
    let policies = base("network-policies.yaml");
    assert_eq!(values(&policies, "port").iter().filter(|port| **port == "grpc").count(), 1);
}

#[test]
fn redis_has_the_settings_that_the_service_insists_on() {
    let redis = base("redis.conf");
    for setting in
        ["appendonly yes", "appendfsync always", "no-appendfsync-on-rewrite no", "maxmemory-policy noeviction"]
    {
        assert!(redis.lines().any(|line| line == setting), "redis.conf lacks `{setting}`");
    }
    assert!(matches!(config().store, Store::Redis(_)));
    let host = base("rationd.toml")
        .lines()
        .find_map(|line| Some(line.strip_prefix("store = \"redis://")?.split(':').next()?.to_owned()));
    let host = host.expect("a Redis URL");
    assert!(values(&base("redis.yaml"), "name").contains(&host.as_str()), "no Service is called {host}");
}

#[test]
fn the_key_ring_stands_where_the_init_container_puts_it() {
    let (config, deployment) = (config(), base("deployment.yaml"));
    assert!(config.keys.ends_with("keys.toml"), "the copy keeps its name");
    let folder = config.keys.parent().and_then(Path::to_str).expect("a folder");
    assert_eq!(values(&deployment, "mountPath").iter().filter(|mount| **mount == folder).count(), 2, "mounted in both");
    // Mode 0400: the loader refuses a key ring that others can read.
    let files = "\"/secret/keys.toml\", \"/secret/tls.key\", \"/secret/tls.crt\", \"/secret/ca.crt\"";
    let install = format!("[\"install\", \"-m\", \"0400\", {files}, \"{folder}/\"]");
    assert_eq!(values(&deployment, "command"), [install]);
    assert!(!config.make_keys, "two pods with keys of their own would take the same buyer for two");
}
