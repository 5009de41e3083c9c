//! A client in another language, generated from `proto/` by another implementation of gRPC.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::service::{Service, run};
use super::shops::SATURDAY;

/// Where `tests/python/prepare` puts what it makes.
fn prepared() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_rationd"));
    // target/debug/rationd
    built.ancestors().nth(2).unwrap().to_owned()
}

#[test]
fn a_python_client_buys_is_refused_resolves_and_voids() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = prepared();
    let mut prepare = Command::new(root.join("tests/python/prepare"));
    prepare.env("CARGO_TARGET_DIR", &target);
    let ready = run(prepare, root, "");
    assert_eq!(ready.code, 0, "the Python client cannot be had, and it is no test without it: {ready:?}");

    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let mut client = Command::new(target.join("python-venv/bin/python"));
    client.env("PYTHONPATH", target.join("python-client")).env("PYTHONDONTWRITEBYTECODE", "1");
    client.arg(root.join("tests/python/client.py")).arg(service.address.trim_start_matches("http://"));
    let ran = run(client, directory.path(), "");
    println!("{}", ran.out);
    assert_eq!(ran.code, 0, "{}{}\n{}", ran.out, ran.err, service.log());
    assert!(ran.out.ends_with("all as promised\n"), "{}", ran.out);
    service.stop();
}
