//! What lies on disk and is wrong: configuration, keys, programmes, databases. Each is refused with its name, the place
//! in it and the remedy, before anything listens.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::service::{Service, rationd, refused};
use super::shops::SATURDAY;

#[test]
fn check_config_prints_what_is_in_effect() {
    let directory = tempfile::tempdir().unwrap();
    let defaults = rationd(directory.path(), &["check-config"], "");
    assert_eq!(defaults.code, 0, "{defaults:?}");
    for said in ["listen = \"127.0.0.1:7420\"", "lease_seconds = 15", "will be made at the first start", "# sites: 13"]
    {
        assert!(defaults.out.contains(said), "{said}: {}", defaults.out);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is made");

    let file = directory.path().join("rationd.toml");
    fs::write(&file, "store = \"redis://user:hunter2@127.0.0.1:6379/\"\nallow_volatile = true\n").unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let named = rationd(directory.path(), &["check-config", "--config", "rationd.toml", "--log-format", "json"], "");
    assert_eq!(named.code, 0, "{named:?}");
    assert!(
        named.out.contains("allow_volatile = true") && named.out.contains("log_format = \"json\""),
        "{}",
        named.out
    );
    assert!(named.out.contains("keys.toml are good"), "{}", named.out);
    assert!(!named.out.contains("hunter2"), "{}", named.out);
    // What is printed is a configuration again.
    let printed = rationd(directory.path(), &["check-config"], "").out;
    fs::write(&file, &printed).unwrap();
    assert_eq!(rationd(directory.path(), &["check-config", "--config", "rationd.toml"], "").out, printed);
}

#[test]
fn check_config_tells_every_problem_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let text =
        "stoer = \"x\"\n[counters]\nlisten = \"0.0.0.0:7420\"\n[sessions]\nlease_seconds = 0\n[colours]\nred = 1\n";
    fs::write(directory.path().join("bad.toml"), text).unwrap();
    for command in ["check-config", "serve"] {
        let ran = rationd(directory.path(), &[command, "--config", "bad.toml", "--log-format", "xml"], "");
        assert_eq!((ran.code, ran.out.as_str()), (64, ""), "{ran:?}");
        for place in [
            "bad.toml:1: stoer: ",
            "bad.toml:3: counters.listen: must be on loopback",
            "bad.toml:5: sessions.lease_seconds: must be a whole number from 1 to 600",
            "bad.toml:7: colours.red: ",
            "--log-format: must be \"human\" or \"json\"",
        ] {
            assert!(ran.err.contains(place), "{place}: {}", ran.err);
        }
    }
    let away = refused(directory.path(), &["--config", "nowhere.toml"]);
    assert_eq!((away.code, away.err.contains("nowhere.toml: cannot be read")), (64, true), "{away:?}");
    let open = refused(directory.path(), &["--listen", "0.0.0.0:0"]);
    assert_eq!(open.code, 2, "given twice: {open:?}");
    let open = rationd(directory.path(), &["serve", "--listen", "192.0.2.1:7420"], "");
    assert_eq!(open.code, 64, "{open:?}");
    assert!(open.err.starts_with("--listen: must be on loopback"), "{open:?}");
    assert!(!directory.path().join("rationd-data").exists(), "nothing is made");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let keys = directory.path().join("rationd-data/keys.toml");
    assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(keys.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    for command in ["serve", "check-config"] {
        let ran = rationd(directory.path(), &[command, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"], "");
        assert_eq!(ran.code, 64, "{ran:?}");
        assert!(
            ran.err.contains("keys.toml: can be read by others than its owner (mode 0644): run `chmod 600 "),
            "{ran:?}"
        );
    }
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    // New keys beside an old ledger would make every buyer a stranger.
    fs::rename(&keys, directory.path().join("away.toml")).unwrap();
    let ran = refused(directory.path(), &[]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(
        ran.err.contains("keys.toml: is missing although") && ran.err.contains("bring the key file back"),
        "{ran:?}"
    );
}

#[test]
fn a_bad_programme_names_its_file_its_line_and_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let programmes = directory.path().join("programmes");
    fs::create_dir(&programmes).unwrap();
    let good = include_str!("../vectors/tw-masks-2020.toml");
    fs::write(programmes.join("tw.toml"), good).unwrap();
    let show = ["policy", "show", "--programme", "tw-masks-2020", "--policies", "programmes"];
    assert_eq!(rationd(directory.path(), &show, "").code, 0);
    let line = good.lines().position(|line| line.starts_with("unit")).unwrap();
    fs::write(programmes.join("tw.toml"), good.replacen("\nunit", "\ncolour", 1)).unwrap();
    let place = format!("programmes/tw.toml:{}: unknown field `colour`; remove it, or write one of: ", line + 1);
    let serve = ["serve", "--policies", "programmes", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for arguments in [&show[..], &["check-config", "--policies", "programmes"], &serve] {
        let ran = rationd(directory.path(), arguments, "");
        assert_eq!(ran.code, 64, "{ran:?}");
        assert!(ran.err.contains(&place), "{place}: {ran:?}");
        assert!(ran.err.contains("`unit` is missing; add `unit = "), "all at once: {ran:?}");
    }
}

#[test]
fn a_foreign_or_truncated_database_is_refused_and_left_alone() {
    for (what, spoil) in [
        ("foreign", (|whole: Vec<u8>| vec![b'x'; whole.len()]) as fn(Vec<u8>) -> Vec<u8>),
        ("truncated", |whole| whole[..whole.len() / 3].to_vec()),
    ] {
        for name in ["ledger.redb", "door.redb"] {
            let directory = tempfile::tempdir().unwrap();
            Service::start(directory.path(), &["--clock", SATURDAY], &[]).stop();
            let file = directory.path().join("rationd-data-simulated").join(name);
            let spoilt = spoil(fs::read(&file).unwrap());
            fs::write(&file, &spoilt).unwrap();
            let ran = refused(directory.path(), &["--clock", SATURDAY]);
            println!("{what} {name}: {}", ran.err.trim());
            assert_eq!(ran.code, 64, "{what} {name}: {ran:?}");
            assert!(ran.err.contains(name), "{what}: {ran:?}");
            let remedy =
                ["move it away", "put a whole copy in its place", "remove"].iter().any(|r| ran.err.contains(r));
            assert!(remedy, "{what} {name}: {ran:?}");
            assert!(fs::read(&file).unwrap() == spoilt, "{what} {name} is left as it was");
        }
    }
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let second = refused(directory.path(), &["--clock", SATURDAY]);
    assert_eq!(second.code, 64, "{second:?}");
    assert!(second.err.contains("ledger.redb is in use by another process; stop that one"), "{second:?}");
    first.await_health(0);
    // A lock that dies with its holder: nothing has to be cleaned up after a crash.
    first.kill();
    Service::start(directory.path(), &["--clock", SATURDAY], &[]).stop();
    // A port that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = ["serve", "--clock", SATURDAY, "--listen", &address, "--admin-listen", "127.0.0.1:0"];
    let ran = rationd(directory.path(), &serve, "");
    assert_eq!((ran.code, ran.err.contains(&format!("{address}: cannot listen there"))), (64, true), "{ran:?}");
}
