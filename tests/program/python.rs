//! A client in another language, generated from `proto/` by another implementation of gRPC.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::service::{Service, rationd, run};
use super::shops::SATURDAY;
use super::tls::SERVED;

/// What the client shows.
const SHOWN: [&str; 3] = ["rationd-certs/ca.pem", "rationd-certs/site-11000001.pem", "rationd-certs/site-11000001.key"];

/// Where `tests/python/prepare` puts what it makes, once it has.
pub fn prepared() -> &'static Path {
    static PREPARED: OnceLock<PathBuf> = OnceLock::new();
    PREPARED.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // target/debug/rationd
        let target = Path::new(env!("CARGO_BIN_EXE_rationd")).ancestors().nth(2).unwrap().to_owned();
        let mut prepare = Command::new(root.join("tests/python/prepare"));
        prepare.env("CARGO_TARGET_DIR", &target);
        let ready = run(prepare, root, "");
        assert_eq!(ready.code, 0, "the Python client cannot be had, and it is no test without it: {ready:?}");
        target
    })
}

/// The client against a service with these arguments, and with these of its own; what it said.
fn sells(directory: &Path, served: &[&str], shown: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = prepared();
    let service = Service::start(directory, &[&["--clock", SATURDAY], served].concat(), &[]);
    let mut client = Command::new(target.join("python-venv/bin/python"));
    client.env("PYTHONPATH", target.join("python-client")).env("PYTHONDONTWRITEBYTECODE", "1");
    client.arg(root.join("tests/python/client.py")).arg(service.address.split("//").nth(1).unwrap()).args(shown);
    let ran = run(client, directory, "");
    println!("{}", ran.out);
    assert_eq!(ran.code, 0, "{}{}\n{}", ran.out, ran.err, service.log());
    assert!(ran.out.ends_with("all as promised\n"), "{}", ran.out);
    service.stop();
    ran.out
}

#[test]
fn a_python_client_buys_is_refused_resolves_and_voids() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let said = sells(at, &[], &[]);
    // Its receipt, as Python prints the message, is one that anybody with the key can check.
    let receipt = said.lines().find_map(|line| line.strip_prefix("receipt ")).unwrap();
    let keys = ["--keys", "rationd-data-simulated/keys.toml", "--out", "receipt-key.toml"];
    assert_eq!(rationd(at, &[&["receipt", "key"], &keys[..]].concat(), "").code, 0);
    let verified = rationd(at, &["receipt", "verify", "--key", "receipt-key.toml"], receipt);
    assert!(verified.code == 0 && verified.out.starts_with("VALID "), "{verified:?}");
}

#[test]
fn a_python_client_sells_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let made = rationd(directory.path(), &["dev-certs"], "");
    assert_eq!(made.code, 0, "{made:?}");
    sells(directory.path(), &SERVED, &SHOWN);
}
