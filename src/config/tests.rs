use super::*;

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn from_file(text: &str) -> Result<Config, ConfigErrors> {
    from_file_and(text, &[], Overrides::default())
}

fn from_file_and(text: &str, pairs: &[(&str, &str)], overrides: Overrides) -> Result<Config, ConfigErrors> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rationd.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path), overrides, variables(pairs)).map_err(|mut errors| {
        for error in &mut errors.0 {
            error.place = error.place.replace(&format!("{}/", directory.path().display()), "");
        }
        errors
    })
}

fn problems(result: Result<Config, ConfigErrors>) -> Vec<String> {
    result.unwrap_err().0.iter().map(ToString::to_string).collect()
}

const FULL: &str = r#"
store = "rediss://rationd:hunter2@redis.example:6380/0"
allow_volatile = true
policies = "policies"
sites = "sites.csv"
keys = "secret/keys.toml"
reload_seconds = 5
reflection = false
max_in_flight = 64
drain_seconds = 3

[tls]
certificate = "server.pem"
key = "server.key"
client_ca = "ca.pem"

[counters]
listen = "[::1]:8000"

[admin]
listen = "0.0.0.0:8001"

[sessions]
lease_seconds = 20
cap_default = 2

[sessions.cap_by_channel]
pharmacy = 3
post_office = 1

[sessions.cap_by_site]
"11000001" = 5

[telemetry]
log_format = "json"
log_filter = "warn,rationd::ledger=debug"
"#;

#[test]
fn with_nothing_written_everything_has_its_default() {
    let config = Config::load(None, Overrides::default(), []).unwrap();
    assert!(matches!(&config.store, Store::Embedded(directory) if directory == Path::new("./rationd-data")));
    assert_eq!(config.keys, Path::new("./rationd-data/keys.toml"));
    assert_eq!(
        (config.counters.to_string(), config.admin.to_string()),
        ("127.0.0.1:7420".into(), "127.0.0.1:7421".into())
    );
    assert_eq!((config.policies.as_ref(), config.sites.as_ref(), config.clock), (None, None, None));
    assert_eq!((config.allow_volatile, config.reflection, config.max_in_flight.get()), (false, true, 1024));
    assert_eq!((config.reload, config.drain), (Duration::from_secs(2), Duration::from_secs(10)));
    assert_eq!((config.sessions.lease, config.sessions.cap_default.get()), (Duration::from_secs(15), 1));
    assert_eq!(config.telemetry, Telemetry { log_format: LogFormat::Human, log_filter: "info".into() });
    assert_eq!(config.load_sites().unwrap().len(), Sites::demo().len());
    let empty_sections = "[counters]\n[admin]\n[sessions]\n[sessions.cap_by_site]\n[telemetry]\n";
    assert_eq!(from_file(empty_sections).unwrap().effective(), config.effective());
}

#[test]
fn a_full_file_is_read() {
    let config = from_file(FULL).unwrap();
    assert!(matches!(&config.store, Store::Redis(url) if url.expose().contains("hunter2")));
    assert_eq!((config.counters.port(), config.admin.port()), (8000, 8001));
    assert_eq!((config.policies, config.sites), (Some("policies".into()), Some("sites.csv".into())));
    assert_eq!(config.keys, Path::new("secret/keys.toml"));
    assert_eq!((config.allow_volatile, config.reflection, config.max_in_flight.get()), (true, false, 64));
    assert_eq!((config.reload, config.drain), (Duration::from_secs(5), Duration::from_secs(3)));
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
    let cap = |site: &str, channel: &str| config.sessions.cap(site.parse().unwrap(), channel.parse().unwrap()).get();
    assert_eq!(cap("11000001", "pharmacy"), 5, "the site's own");
    assert_eq!(cap("11000002", "pharmacy"), 3, "its channel's");
    assert_eq!(cap("31000001", "mart"), 2, "the default");
}

#[test]
fn the_keys_lie_beside_embedded_data() {
    let keys = |store: &str| from_file(&format!("store = \"{store}\"")).unwrap().keys;
    assert_eq!(keys("embedded:/var/lib/rationd"), Path::new("/var/lib/rationd/keys.toml"));
    assert_eq!(keys("redis://localhost"), Path::new("./rationd-data/keys.toml"));
}

#[test]
fn keys_are_made_only_for_a_store_on_this_machine_and_where_nobody_named_them() {
    let makes = |text: &str| from_file(text).unwrap().make_keys;
    assert!(makes("") && makes("store = \"redis://127.0.0.1:6379\""));
    assert!(!makes("store = \"redis://redis:6379\"") && !makes("keys = \"keys.toml\""));

    let directory = tempfile::tempdir().unwrap();
    let mut config = from_file(&format!("store = \"embedded:{}/data\"", directory.path().display())).unwrap();
    assert!(config.load_keys().is_ok() && directory.path().join("data/keys.toml").exists());
    config.make_keys = false;
    config.keys = directory.path().join("other.toml");
    assert!(config.load_keys().unwrap_err().to_string().ends_with("use to here") && !config.keys.exists());
}

#[test]
fn a_witness_is_kept_beside_keys_that_are_made_or_where_somebody_says() {
    let witness = |text: &str| from_file(text).unwrap().witness;
    for (url, name) in [
        ("redis://localhost", "witness-localhost.json"),
        ("redis://user:hun?ter2@127.0.0.1/", "witness-.json"),
        ("redis://:secret@127.0.0.1:6379/1", "witness-127.0.0.1-6379-1.json"),
        (
            "redis+sentinel://me:secret@127.0.0.1:1,127.0.0.1:2/store?sentinel=you:secret",
            "witness-127.0.0.1-1-127.0.0.1-2-store.json",
        ),
    ] {
        assert_eq!(witness(&format!("store = \"{url}\"")), Some(Path::new("./rationd-data").join(name)));
    }
    let elsewhere = "store = \"redis://redis\"\n";
    assert_eq!(witness(&format!("{elsewhere}witness = \"/w/x\"")).as_deref(), Some(Path::new("/w/x")));
    for none in ["", elsewhere, "store = \"redis://localhost\"\nkeys = \"keys.toml\""] {
        assert_eq!(witness(none), None, "{none}");
    }
    let of_a_clock =
        Overrides { store: Some("redis://localhost".into()), clock: Some(Timestamp::EPOCH), ..Overrides::default() };
    assert_eq!(Config::load(None, of_a_clock, []).unwrap().witness, None);
    let effective = from_file("store = \"redis://localhost\"").unwrap().effective();
    assert!(effective.contains("\nwitness = \"./rationd-data/witness-localhost.json\"\n"), "{effective}");
}

#[test]
fn command_line_over_environment_over_file_over_default() {
    let file = "store = \"embedded:file\"\nreload_seconds = 3\n[counters]\nlisten = \"127.0.0.1:1\"\n";
    let pairs = [
        ("RATIOND_STORE", "embedded:environment"),
        ("RATIOND_COUNTERS__LISTEN", "127.0.0.1:2"),
        ("RATIOND_REFLECTION", "false"),
        ("RATIOND_MAX_IN_FLIGHT", "8"),
        ("RATIOND_SESSIONS__CAP_BY_CHANNEL__POST_OFFICE", "4"),
        ("RATIOND_SESSIONS__CAP_BY_SITE__Shop1", "6"),
        ("RATIOND_MUTANT", "control"),
        ("RATIOND_SERVICE_HOST", "10.0.0.1"),
        ("RATIOND_PORT", "tcp://10.0.0.1:7420"),
        ("HOME", "/root"),
    ];
    let clock: Timestamp = "2020-03-11T09:00:00+09:00".parse().unwrap();
    let overrides = Overrides {
        store: Some("embedded:flag".into()),
        clock: Some(clock),
        allow_volatile: true,
        ..Overrides::default()
    };
    let config = from_file_and(file, &pairs, overrides).unwrap();
    assert_eq!(config.store.to_string(), "embedded:flag");
    assert_eq!(config.counters.port(), 2);
    assert_eq!((config.reload, config.drain), (Duration::from_secs(3), Duration::from_secs(10)));
    assert_eq!((config.reflection, config.max_in_flight.get(), config.allow_volatile), (false, 8, true));
    let caps = &config.sessions;
    assert_eq!(caps.cap("Shop1".parse().unwrap(), "mart".parse().unwrap()).get(), 6);
    assert_eq!(caps.cap("x".parse().unwrap(), "post_office".parse().unwrap()).get(), 4);
    assert_eq!(config.clock, Some(clock));
    assert!(config.effective().starts_with("# SIMULATED CLOCK, started at 2020-03-11T00:00:00.000Z"));
}

#[test]
fn a_flag_mends_what_the_file_has_wrong() {
    let overrides = Overrides { store: Some("embedded:flag".into()), ..Overrides::default() };
    assert!(from_file_and("store = 5\n", &[], overrides).is_ok());
}

#[test]
fn the_environment_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rationd.toml");
    std::fs::write(&path, "reload_seconds = 7\n").unwrap();
    let named = path.to_str().unwrap();
    let config = Config::load(None, Overrides::default(), variables(&[("RATIOND_CONFIG", named)])).unwrap();
    assert_eq!(config.reload, Duration::from_secs(7));
    let absent = variables(&[("RATIOND_CONFIG", "no/such/file.toml")]);
    let problem = problems(Config::load(None, Overrides::default(), absent));
    assert!(problem[0].starts_with("no/such/file.toml: cannot be read: "), "{problem:?}");
}

#[test]
fn every_problem_of_a_file_is_told_at_its_line() {
    let file = r#"store = "redis+cluster://:hunter2@a:1/7"
allow_volatile = "yes"
policies = ""
reload_seconds = 0
drain_seconds = 1.5
max_in_flight = 99999999999999999999
stoer = "embedded:x"
reflection = 1

[counters]
listen = "0.0.0.0:7420"
lisen = 1

[admin]
listen = "localhost:7421"

[sessions]
lease_seconds = 601
cap_by_channel = 2

[sessions.cap_by_site]
"a b" = 1
"11000001" = 0

[telemetry]
log_format = "xml"
log_filter = "rationd=loud"

[public]
[[listeners]]
"#;
    let found = problems(from_file(file));
    assert_eq!(
        found,
        [
            "rationd.toml:1: store: names a database: a Cluster has none but 0; end it behind the last node",
            "rationd.toml:2: allow_volatile: must be true or false",
            "rationd.toml:3: policies: is empty: write a path or leave it out",
            "rationd.toml:4: reload_seconds: must be a whole number from 1 to 3600",
            "rationd.toml:5: drain_seconds: must be a whole number from 1 to 600",
            "rationd.toml:6: max_in_flight: must be a whole number from 1 to 1000000",
            "rationd.toml:7: stoer: is not a setting: correct its spelling or remove it",
            "rationd.toml:8: reflection: must be true or false",
            "rationd.toml:11: counters.listen: must be on loopback (127.0.0.1 or [::1]) unless callers can prove who they \
             are (set tls.certificate, tls.key and tls.client_ca; for development `rationd dev-certs` makes them)",
            "rationd.toml:12: counters.lisen: is not a setting: correct its spelling or remove it",
            "rationd.toml:15: admin.listen: must be an IP address and a port, such as 127.0.0.1:7420",
            "rationd.toml:18: sessions.lease_seconds: must be a whole number from 1 to 600",
            "rationd.toml:19: sessions.cap_by_channel: is a section: write [sessions.cap_by_channel] and its fields below it",
            "rationd.toml:22: sessions.cap_by_site.a b: a site code must be 1 to 16 letters, digits, hyphens or underscores, and no person's number",
            "rationd.toml:23: sessions.cap_by_site.11000001: must be a whole number from 1 to 1000",
            "rationd.toml:26: telemetry.log_format: must be \"human\" or \"json\"",
            "rationd.toml:27: telemetry.log_filter: must be tracing directives such as \"info,rationd=debug\": error parsing \
             level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5",
            "rationd.toml:29: public: is not a setting: correct its spelling or remove it",
            "rationd.toml:30: listeners: is not a setting: correct its spelling or remove it",
        ]
    );
}

#[test]
fn every_problem_above_the_file_is_told_by_its_name() {
    let overrides =
        Overrides { listen: Some("10.0.0.1:7420".into()), store: Some("mysql://x".into()), ..Overrides::default() };
    let pairs = [
        ("RATIOND_STOER", "x"),
        ("RATIOND_ADMIN__LISTEN", ""),
        ("RATIOND_RELOAD_SECONDS", "2s"),
        ("RATIOND_REFLECTION", "yes"),
        ("RATIOND_COUNTERS__LISTEN", "overridden, so nobody minds"),
    ];
    assert_eq!(
        problems(Config::load(None, overrides, variables(&pairs))),
        [
            "--store: must be embedded:DIRECTORY, redis://HOST:PORT/, redis+sentinel://HOST:PORT,HOST:PORT,HOST:PORT/NAME or \
             redis+cluster://HOST:PORT,HOST:PORT,HOST:PORT/, with rediss for TLS",
            "--listen: must be on loopback (127.0.0.1 or [::1]) unless callers can prove who they \
             are (set tls.certificate, tls.key and tls.client_ca; for development `rationd dev-certs` makes them)",
            "RATIOND_ADMIN__LISTEN: must be an IP address and a port, such as 127.0.0.1:7420",
            "RATIOND_RELOAD_SECONDS: must be a whole number from 1 to 3600",
            "RATIOND_REFLECTION: must be true or false",
            "RATIOND_STOER: is not a setting: correct its spelling or remove it",
        ]
    );
    use std::os::unix::ffi::OsStringExt;
    let garbled = [(OsString::from("RATIOND_STORE"), OsString::from_vec(vec![0xff]))];
    assert_eq!(problems(Config::load(None, Overrides::default(), garbled)), ["RATIOND_STORE: must be UTF-8"]);
}

#[test]
fn two_listeners_need_two_ports() {
    let both = |address: &str| format!("[counters]\nlisten = \"{address}\"\n[admin]\nlisten = \"{address}\"\n");
    assert_eq!(
        problems(from_file(&both("127.0.0.1:9"))),
        ["admin.listen: is 127.0.0.1:9, as counters.listen is: give each its own port"]
    );
    assert!(from_file(&both("127.0.0.1:0")).is_ok());
}

#[test]
fn what_is_not_toml_is_told_without_its_text() {
    let found = problems(from_file("store = \"redis://:hunter2@host\nreflection = true\nreload_seconds =\n"));
    assert!(found.len() >= 2, "{found:?}");
    assert!(
        found[0].starts_with("rationd.toml:1: not TOML: ") && found[1].starts_with("rationd.toml:3: not TOML: "),
        "{found:?}"
    );
    assert!(!found.concat().contains("hunter2"), "{found:?}");
    assert!(
        problems(from_file("reflection = true\nreflection = true\n"))[0]
            .starts_with("rationd.toml:2: not TOML: duplicate key")
    );
}

#[test]
fn the_effective_configuration_is_a_file_without_secrets() {
    for text in ["", FULL, "policies = \"a \\\"quoted\\\\ path\"\n"] {
        let config = from_file(text).unwrap();
        let shown = config.effective();
        assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"), "{shown}");
        assert_eq!(from_file(&shown).unwrap().effective(), shown);
        assert_eq!(shown.contains("rediss://rationd:***@redis.example:6380/0"), text == FULL);
    }
    let shown = from_file(FULL).unwrap().effective();
    for line in FULL.lines().filter(|line| !line.starts_with("store")) {
        assert!(shown.contains(line), "{line:?} is not in:\n{shown}");
    }
}

#[test]
fn policy_files_are_read_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let shown = |name: &str| at(name).display().to_string();
    assert_eq!(
        read_policy_files(directory.path()).unwrap_err().to_string(),
        format!(
            "{}: holds no programme: put NAME.toml files there, or leave `policies` out",
            directory.path().display()
        )
    );
    // As a ConfigMap is mounted: links into a hidden directory.
    std::fs::create_dir(at("..data")).unwrap();
    std::fs::write(at("..data/b.toml"), "b").unwrap();
    std::os::unix::fs::symlink(at("..data/b.toml"), at("b.toml")).unwrap();
    for (name, text) in [("a.toml", "a"), (".hidden.toml", "x"), ("notes.txt", "x"), ("c.toml~", "x")] {
        std::fs::write(at(name), text).unwrap();
    }
    let files = read_policy_files(directory.path()).unwrap();
    assert_eq!(files, [(shown("a.toml"), "a".to_owned()), (shown("b.toml"), "b".to_owned())]);

    std::fs::write(at("c.toml"), [0xff, 0xfe]).unwrap();
    std::fs::create_dir(at("d.toml")).unwrap();
    let errors = read_policy_files(directory.path()).unwrap_err();
    let places: Vec<&str> = errors.0.iter().map(|error| error.place.as_str()).collect();
    assert_eq!(places, [shown("c.toml"), shown("d.toml")]);
    assert!(read_policy_files(&at("absent")).unwrap_err().to_string().contains("absent: cannot be read: "));
}

#[test]
fn sites_are_read_from_their_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sites.csv");
    let load = || from_file(&format!("sites = {path:?}\n")).unwrap().load_sites();
    assert!(load().unwrap_err().to_string().contains("sites.csv: cannot be read: "));
    std::fs::write(&path, "code,name,channel,region,address,lat,lng\n1,One,mart,Jeju,Jeju A,,\n").unwrap();
    assert_eq!(load().unwrap().len(), 1);
    std::fs::write(&path, "code,name,channel,region,address,lat,lng\n1,,mart,Jeju,Jeju A,,\n").unwrap();
    let expected = format!("{}:2: name: is empty; write what people call it", path.display());
    assert_eq!(load().unwrap_err().to_string(), expected);
}

#[test]
fn off_loopback_certificates_and_a_store_must_be_named() {
    let with = |pairs: &[(&str, &str)]| Config::load(None, Overrides::default(), variables(pairs));
    let files = [
        ("RATIOND_TLS__CERTIFICATE", "server.pem"),
        ("RATIOND_TLS__KEY", "server.key"),
        ("RATIOND_TLS__CLIENT_CA", "ca.pem"),
    ];
    let everywhere = ("RATIOND_COUNTERS__LISTEN", "0.0.0.0:7420");
    let found = problems(with(&[everywhere]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("RATIOND_COUNTERS__LISTEN: must be on loopback"), "{found:?}");
    assert!(
        found[0].contains("tls.certificate") && found[0].contains(" and a store is named (set store to "),
        "{found:?}"
    );
    let found = problems(with(&[&files[..], &[everywhere]].concat()));
    assert!(found[0].contains("unless a store is named") && !found[0].contains("tls."), "{found:?}");
    for store in ["embedded:./here-on-purpose", "redis://redis/"] {
        let config = with(&[&files[..], &[everywhere, ("RATIOND_STORE", store)]].concat()).unwrap();
        assert_eq!(config.counters.to_string(), "0.0.0.0:7420");
        assert_eq!(config.tls.unwrap().client_ca, Path::new("ca.pem"));
    }
    assert_eq!(
        problems(with(&files[1..2])),
        ["certificate", "client_ca"].map(|field| format!(
            "tls.{field}: is missing: TLS needs certificate, key and client_ca; write all three or none"
        ))
    );
    assert_eq!(problems(with(&[("RATIOND_TLS__REVOKED", "revoked.pem")])).len(), 3);
    assert!(with(&files).is_ok(), "on loopback too");
}

#[test]
fn everything_that_is_wrong_with_the_files_of_certificates_is_told_at_once() {
    use crate::certs::{Authority, Subject};
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let config = from_file(&format!(
        "[tls]\ncertificate = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
        at("server.pem"),
        at("server.key"),
        at("ca.pem")
    ))
    .unwrap();
    let found = || -> Vec<String> {
        let loaded = config.tls.as_ref().unwrap().load();
        let shown: Vec<_> = loaded.err().into_iter().flat_map(|errors| errors.0).map(|e| e.to_string()).collect();
        shown.iter().map(|problem| problem.replace(&format!("{}/", directory.path().display()), "")).collect()
    };
    assert_eq!(found().len(), 3, "{:?}", found());
    assert!(found()[1].starts_with("server.key: does not exist: name the key of tls.certificate"), "{:?}", found());

    let (authority, ca) = Authority::new("2026-11-22T10:00:00Z".parse().unwrap()).unwrap();
    let server = authority.issue(&Subject::Service(vec!["localhost".into()])).unwrap();
    std::fs::write(at("server.pem"), "no certificate").unwrap();
    std::fs::write(at("server.key"), server.key.as_str()).unwrap();
    std::fs::write(at("ca.pem"), server.key.as_str()).unwrap();
    std::fs::set_permissions(at("server.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let all = found();
    assert!(
        all.len() == 2 && all[0].contains("chmod 600") && all[1].starts_with("ca.pem: holds no certificate"),
        "{all:?}"
    );
    std::fs::set_permissions(at("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let all = found();
    assert!(all.len() == 2 && all[0].starts_with("server.pem: holds no certificate"), "{all:?}");
    std::fs::write(at("server.pem"), &server.certificate).unwrap();
    std::fs::write(at("ca.pem"), &ca.certificate).unwrap();
    assert_eq!(found(), [""; 0]);
    std::fs::write(at("server.key"), ca.key.as_str()).unwrap();
    assert_eq!(found(), ["server.key: does not belong to the certificate: name the key that was made with it"]);
}

#[test]
fn an_audit_log_lies_beside_embedded_data_and_elsewhere_where_it_is_named() {
    let audit = |text: &str| from_file(text).unwrap().audit.map(|audit| (audit.directory, audit.keep_months));
    assert_eq!(audit(""), Some(("./rationd-data/audit".into(), 24)));
    assert_eq!(audit("store = \"embedded:/var/lib/rationd\""), Some(("/var/lib/rationd/audit".into(), 24)));
    assert_eq!(audit("store = \"redis://localhost\""), None);
    let named = "store = \"redis://localhost\"\n[audit]\ndirectory = \"log\"\nkeep_months = 60";
    assert_eq!(audit(named), Some(("log".into(), 60)));
    assert_eq!(audit("[audit]\nenabled = false\ndirectory = \"log\""), None);
    let overrides = Overrides { audit: Some("elsewhere".into()), ..Overrides::default() };
    assert_eq!(from_file_and(named, &[], overrides).unwrap().audit.unwrap().directory, Path::new("elsewhere"));
    for text in [named, "", "store = \"redis://localhost\""] {
        let config = from_file(text).unwrap();
        assert_eq!(from_file(&config.effective()).unwrap().audit, config.audit, "{text}");
    }
    assert_eq!(
        problems(from_file("store = \"redis://localhost\"\n[audit]\nenabled = true\nkeep_months = 23")),
        ["rationd.toml:4: audit.keep_months: must be a whole number from 24 to 1200"]
    );
    assert_eq!(
        problems(from_file("store = \"redis://localhost\"\n[audit]\nenabled = true")),
        ["audit.directory: is missing: name a directory that is this instance's alone and outlives it"]
    );
}
