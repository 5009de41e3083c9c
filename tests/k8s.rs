//! The manifests agree with the service: what they promise each other is read here from the files that are shipped.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// The longest drain (G34): after SIGTERM the process is gone within this time, whatever its peers do.
const DRAIN_SECONDS: u64 = 10;

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

fn config() -> toml::Table {
    base("rationd.toml").parse().expect("k8s/base/rationd.toml is TOML")
}

fn listener(config: &toml::Table, name: &str) -> SocketAddr {
    let listen = config.get(name).and_then(|table| table.get("listen")).and_then(toml::Value::as_str);
    listen.unwrap_or_else(|| panic!("[{name}] listen is missing")).parse().expect("an address and a port")
}

#[test]
fn the_grace_period_exceeds_what_happens_in_it() {
    let deployment = base("deployment.yaml");
    let grace: u64 = values(&deployment, "terminationGracePeriodSeconds")[0].parse().expect("a number");
    let before = numbers_in(&deployment, "sleep", "seconds");
    assert_eq!(before.len(), 1, "one sleep before the drain");
    assert!(
        before[0] + DRAIN_SECONDS < grace,
        "{before:?} s and a drain of {DRAIN_SECONDS} s do not fit into {grace} s"
    );
}

#[test]
fn probes_ask_the_admin_listener_for_services_that_exist() {
    let (deployment, config) = (base("deployment.yaml"), config());
    let admin = listener(&config, "admin");
    assert!(!admin.ip().is_loopback(), "the kubelet probes the pod's address");
    assert_eq!(numbers_in(&deployment, "grpc", "port"), [u64::from(admin.port()); 3], "liveness, readiness, start");
    assert_eq!(values(&deployment, "prometheus.io/port"), [admin.port().to_string()]);
    assert_eq!(values(&deployment, "service"), ["rationd.v1.PurchaseService"], "readiness alone names a service");
    let ports = values(&deployment, "containerPort").join(" ");
    assert_eq!(ports, format!("{} {}", listener(&config, "counters").port(), admin.port()));
}

#[test]
fn counters_stay_on_loopback_until_certificates_come() {
    assert!(listener(&config(), "counters").ip().is_loopback());
}

#[test]
fn redis_has_the_settings_that_the_service_insists_on() {
    let redis = base("redis.conf");
    for setting in
        ["appendonly yes", "appendfsync always", "no-appendfsync-on-rewrite no", "maxmemory-policy noeviction"]
    {
        assert!(redis.lines().any(|line| line == setting), "redis.conf lacks `{setting}`");
    }
    let url = config()["store"]["url"].as_str().expect("a URL").to_owned();
    assert_eq!(url, "redis://rationd-redis:6379/");
    assert!(base("redis.yaml").contains("name: rationd-redis"), "the host of the store's URL is Redis's Service");
}

#[test]
fn the_key_ring_stands_where_the_secret_is_mounted() {
    let path = config()["keys"]["path"].as_str().expect("a path").to_owned();
    let folder = Path::new(&path).parent().and_then(Path::to_str).expect("a folder").to_owned();
    assert!(values(&base("deployment.yaml"), "mountPath").contains(&folder.as_str()), "nothing is mounted at {folder}");
}
