//! The program over TLS: certificates of `dev-certs`, the service that takes them, and every command that shows one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rationd::certs::Authority;
use rationd::grpc::v1;
use rationd::terminal::{Connection, Opened, Terminal, Tls};

use super::service::{Ran, Service, rationd, refused};
use super::shops::SATURDAY;

/// What `dev-certs` makes for the service without arguments.
pub const SERVED: [&str; 8] = [
    "--tls-certificate",
    "rationd-certs/server.pem",
    "--tls-key",
    "rationd-certs/server.key",
    "--tls-client-ca",
    "rationd-certs/ca.pem",
    "--tls-revoked",
    "rationd-certs/revoked.pem",
];
const NUMBER: [&str; 4] = ["--number", "810305-1000112", "--quantity", "1"];

fn dev_certs(directory: &Path, arguments: &[&str]) -> Ran {
    rationd(directory, &[&["dev-certs"], arguments].concat(), "")
}

fn with_certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = dev_certs(directory.path(), &[]);
    assert_eq!(made.code, 0, "{made:?}");
    directory
}

fn service(directory: &Path, more: &[&str]) -> Service {
    Service::start(directory, &[&SERVED[..], &["--clock", SATURDAY], more].concat(), &[])
}

/// A one-call command in the directory of the certificates, as whoever this is.
fn call(service: &Service, directory: &Path, command: &str, who: &str, more: &[&str]) -> Ran {
    let [certificate, key] = ["pem", "key"].map(|kind| format!("rationd-certs/{who}.{kind}"));
    let shown = ["--tls-ca", "rationd-certs/ca.pem", "--tls-certificate", &certificate, "--tls-key", &key];
    rationd(directory, &[&[command, "--address", &service.address], &shown[..], more].concat(), "")
}

#[test]
fn dev_certs_makes_what_the_lines_that_it_prints_use_and_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let made = dev_certs(at, &[]);
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.out.starts_with("FOR DEVELOPMENT"), "{}", made.out);
    let files = std::fs::read_dir(at.join("rationd-certs")).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let stems = ["ca", "gateway-demo-gateway", "operator-demo-operator", "server", "site-11000001"];
    let mut made_of: Vec<_> = stems.iter().flat_map(|s| [format!("{s}.key"), format!("{s}.pem")]).collect();
    made_of.insert(6, "revoked.pem".into());
    assert_eq!(names, made_of);
    let mode =
        |name: &str| std::fs::metadata(at.join("rationd-certs").join(name)).unwrap().permissions().mode() & 0o777;
    assert!(stems.iter().all(|stem| mode(&format!("{stem}.key")) == 0o600));

    // The printed lines, as they stand.
    let line = |word: &str| made.out.lines().find(|line| line.contains(word)).unwrap().trim().to_owned();
    let serve = line("rationd serve ");
    assert!(serve.ends_with(&SERVED.join(" ").replace("rationd-certs", "./rationd-certs")), "{serve}");
    let sell = line("rationd sell ");
    assert!(sell.contains("--address https://localhost:7420 --tls-ca ./rationd-certs/ca.pem"), "{sell}");

    let before = std::fs::read(at.join("rationd-certs/server.key")).unwrap();
    let again = dev_certs(at, &[]);
    assert!(
        again.code == 64 && again.err.contains("server.pem") && again.err.contains("nothing is overwritten"),
        "{again:?}"
    );
    let mixed = dev_certs(at, &["--site", "11000002", "--gateway", "demo-gateway"]);
    assert!(mixed.code == 64 && !at.join("rationd-certs/site-11000002.pem").exists(), "{mixed:?}");
    assert_eq!(std::fs::read(at.join("rationd-certs/server.key")).unwrap(), before);

    // The authority is used for more.
    let more = dev_certs(at, &["--site", "11000002", "--terminal", "11000001/w1", "--operator", "kim"]);
    assert!(more.code == 0 && !more.out.contains("ca.key") && more.out.contains("site-11000001.w1.pem"), "{more:?}");
    for (arguments, problem) in [(["--terminal", "11000001"], "CODE/NAME"), (["--site", "a b"], "a site code")] {
        let wrong = dev_certs(at, &arguments);
        assert!(wrong.code == 2 && wrong.err.contains(problem), "{wrong:?}");
    }
    // What is taken back stays so with the next one.
    for (lost, so_far) in [("site-11000002", "1 so far"), ("operator-kim", "2 so far"), ("operator-kim", "2 so far")] {
        let revoked = dev_certs(at, &["--revoke", &format!("rationd-certs/{lost}.pem")]);
        assert!(revoked.code == 0 && revoked.out.contains(so_far), "{revoked:?}");
    }
    let absent = dev_certs(at, &["--revoke", "rationd-certs/server.key"]);
    assert!(absent.code == 64 && absent.err.contains("server.key: the certificate holds no certificate"), "{absent:?}");
    std::fs::write(at.join("rationd-certs/ca.key"), &before).unwrap();
    let mixed = dev_certs(at, &["--site", "3"]);
    assert!(mixed.code == 64 && mixed.err.contains("the authority's key does not belong"), "{mixed:?}");
}

#[test]
fn every_command_shows_its_certificate_and_says_what_is_missing() {
    let directory = with_certificates();
    let at = directory.path();
    assert_eq!(dev_certs(at, &["--terminal", "11000001/w1", "--site", "11000002"]).code, 0);
    let service = service(at, &[]);
    assert!(
        service.greeting.contains("over TLS") && service.greeting.contains("--tls-ca CA.pem"),
        "{}",
        service.greeting
    );
    let sold = call(&service, at, "sell", "site-11000001", &[&NUMBER[..], &["--json"]].concat());
    assert!(sold.code == 0 && sold.json()["receipt"]["site"] == "11000001", "{sold:?}");
    let id = sold.json()["receipt"]["request_id"].as_str().unwrap().to_owned();
    let of_it = [&NUMBER[..2], &["--request-id", &id]].concat();
    assert_eq!(call(&service, at, "resolve", "site-11000001", &of_it).code, 0);
    let voided = call(&service, at, "void", "gateway-demo-gateway", &[&of_it[..], &["--site", "11000001"]].concat());
    assert_eq!(voided.code, 0, "{voided:?}");
    for (command, who, more, code, reason) in [
        ("check", "site-11000002", &["--site", "11000001"][..], 3, "SITE_NOT_YOURS"),
        ("sell", "site-11000001.w1", &[], 3, "TERMINAL_NOT_YOURS"),
        ("sell", "site-11000001.w1", &["--terminal", "w1"], 0, ""),
        ("check", "gateway-demo-gateway", &[], 3, "SITE_REQUIRED"),
        ("check", "operator-demo-operator", &[], 3, "NOT_A_SITE"),
        ("check", "server", &[], 3, "does not accept the certificate"),
        ("check", "nobody", &[], 2, "rationd-certs/nobody.pem: cannot be read"),
    ] {
        let ran = call(&service, at, command, who, &[&NUMBER[..], more].concat());
        assert!(ran.code == code && ran.err.contains(reason), "{who}: {ran:?}");
    }
    let health = |arguments: &[&str]| rationd(at, &[&["health", "--address"], arguments].concat(), "");
    let in_the_clear = format!("http://{}", service.admin);
    let over_tls = format!("https://localhost:{}", service.admin.rsplit(':').next().unwrap());
    assert_eq!(health(&[&in_the_clear]).code, 0);
    assert_eq!(health(&[&over_tls, "--tls-ca", "rationd-certs/ca.pem"]).code, 0, "{:?}", health(&[&over_tls]));
    for (arguments, problem) in [
        (&[&over_tls[..]][..], "--tls-ca FILE"),
        (&[&in_the_clear, "--tls-ca", "rationd-certs/ca.pem"], "is not encrypted: write https://"),
        (&[&over_tls, "--tls-ca", "rationd-certs/ca.key"], "rationd-certs/ca.key: holds no certificate"),
    ] {
        let ran = health(arguments);
        assert!(ran.code == 2 && ran.err.contains(problem), "{ran:?}");
    }
    let nobody = rationd(at, &["check", "--address", &service.address, "--tls-ca", "rationd-certs/ca.pem"], "1\n");
    assert!(nobody.code == 2 && nobody.err.contains("--tls-certificate FILE"), "{nobody:?}");
    service.stop();
}

#[test]
fn the_configuration_shows_the_files_and_is_refused_with_what_is_wrong() {
    let directory = with_certificates();
    let at = directory.path();
    let check = |arguments: &[&str]| rationd(at, &[&["check-config"], arguments].concat(), "");
    let shown = check(&SERVED);
    assert!(shown.code == 0 && shown.out.contains("key = \"rationd-certs/server.key\""), "{shown:?}");
    let everywhere = ["--listen", "0.0.0.0:0", "--store", "embedded:./data"];
    assert_eq!(check(&[&SERVED[..], &everywhere].concat()).code, 0);
    let open = check(&everywhere);
    assert!(
        open.code == 64 && open.err.contains("--listen: must be on loopback") && open.err.contains("dev-certs"),
        "{open:?}"
    );
    std::fs::set_permissions(at.join("rationd-certs/server.key"), PermissionsExt::from_mode(0o644)).unwrap();
    for ran in [check(&SERVED), refused(at, &SERVED)] {
        assert!(ran.code == 64 && ran.err.contains("chmod 600 rationd-certs/server.key"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_token_in_other_hands_is_refused_logged_and_counted() {
    let directory = with_certificates();
    let at = directory.path();
    let service = service(at, &[]);
    let read = |name: &str| std::fs::read(at.join("rationd-certs").join(name)).unwrap();
    let connect = |who: &str| {
        let identity = Some((read(&format!("{who}.pem")), read(&format!("{who}.key"))));
        let (address, tls) = (service.address.clone(), Tls { authorities: read("ca.pem"), identity });
        async move { Connection::open(&address, Some(&tls)).await.unwrap() }
    };
    let seller = Terminal::on(&connect("site-11000001").await, None, "w1".parse().unwrap());
    let Opened::Admitted(session) = seller.open_session().await.unwrap() else { panic!("a seat") };
    let thief = connect("gateway-demo-gateway").await;
    let gateway = Terminal::on(&thief, "11000001".parse().ok(), "w1".parse().unwrap()).gateway().await.unwrap();
    let token = session.admitted.session_token.clone();
    let stolen = gateway.call(&token, v1::PurchaseRequest::default()).await.unwrap_err();
    assert!(stolen.to_string().starts_with("SESSION_NOT_YOURS"), "{stolen}");
    let told = await_line(&service, "to whom it was not given");
    assert!(
        told.contains("WARN") && told.contains("rationd://gateway/demo-gateway") && told.contains("11000001"),
        "{told}"
    );
    let log = service.log();
    assert!(!log.contains(&token) && !log.contains(&token[..24]), "{log}");
    let metrics = service.metrics();
    assert!(
        metrics.lines().any(|l| l.starts_with("rationd_sessions_foreign_tokens_total") && l.ends_with(" 1")),
        "{metrics}"
    );
    drop((session, gateway));
    tokio::task::spawn_blocking(move || service.stop()).await.unwrap();
}

/// Waits until the log says this.
fn await_line(service: &Service, said: &str) -> String {
    let begun = std::time::Instant::now();
    loop {
        let log = service.log();
        if let Some(line) = log.lines().find(|line| line.contains(said)) {
            return line.to_owned();
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{said}: {log}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// The value of a time series, by its name and a part of its labels.
fn value(service: &Service, name: &str, label: &str) -> f64 {
    let page = service.metrics();
    let line = page.lines().find(|line| line.starts_with(name) && line.contains(label));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

#[test]
fn broken_certificates_are_told_once_with_the_file_and_the_remedy_and_counted() {
    let directory = with_certificates();
    let at = directory.path();
    let file = |name: &str| at.join("rationd-certs").join(name);
    let clock = ["--clock", SATURDAY];
    let service = Service::start(at, &[&SERVED[..], &clock].concat(), &[("RATIOND_RELOAD_SECONDS", "1")]);
    let expires = value(&service, "rationd_tls_certificate_expiry_seconds", "");
    assert!(expires > 1_800_000_000.0, "{expires}");
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let (good, key, ca) = (read("server.pem"), read("server.key"), read("ca.pem"));
    let sells = || call(&service, at, "sell", "site-11000001", &NUMBER).code == 0;

    std::fs::write(file("server.pem"), &good[..good.len() / 2]).unwrap();
    let line = await_line(&service, "server.pem: is not PEM from end to end: copy it again");
    assert!(line.contains("ERROR") && line.contains("those that were in force stay so"), "{line}");
    assert!(sells());
    std::fs::write(file("server.pem"), &ca).unwrap();
    await_line(&service, "server.key: does not belong to the certificate");
    std::fs::write(file("server.pem"), &good).unwrap();
    std::fs::set_permissions(file("server.key"), PermissionsExt::from_mode(0o644)).unwrap();
    await_line(&service, "server.key: can be read by others than its owner (mode 0644): run `chmod 600 ");
    std::fs::set_permissions(file("server.key"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(file("revoked.pem"), &ca).unwrap();
    await_line(&service, "revoked.pem: holds no list of revoked certificates in PEM");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let told = service.log().lines().filter(|line| line.contains("are refused; those that were")).count();
    assert_eq!(told, 4, "each once: {}", service.log());
    let rejected = |part: &str| {
        let page = service.metrics();
        let mut lines = page.lines().filter(|line| line.starts_with("rationd_tls_reloads_total"));
        let line = lines.find(|line| line.contains("rejected") && line.contains(part));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
    };
    assert_eq!((rejected("own"), rejected("clients")), (Some(3), Some(1)));

    // Taken back with the command, refused and counted; a key is nowhere in the log.
    std::fs::remove_file(file("revoked.pem")).unwrap();
    assert_eq!(dev_certs(at, &["--revoke", "rationd-certs/site-11000001.pem"]).code, 0);
    await_line(&service, "other lists of revoked certificates, are in force");
    let refused = call(&service, at, "check", "site-11000001", &NUMBER[..2]);
    assert!(refused.code == 3 && refused.err.contains("does not accept the certificate"), "{refused:?}");
    await_line(&service, "Revoked");
    assert_eq!(value(&service, "rationd_tls_revoked", ""), 1.0);
    assert!(value(&service, "rationd_tls_refused_total", "revoked") >= 1.0, "{}", service.metrics());
    assert!(key.lines().filter(|line| line.len() > 40).all(|line| !service.log().contains(line)));
    let authority = Authority::from_pem(&ca, &read("ca.key"), "2026-11-22T10:00:00Z".parse().unwrap()).unwrap();
    let renewed = authority.issue(&rationd::certs::Subject::Service(vec!["localhost".into()])).unwrap();
    std::fs::write(file("server.pem"), &renewed.certificate).unwrap();
    std::fs::write(file("server.key"), renewed.key.as_str()).unwrap();
    await_line(&service, "the service shows another certificate from now on");
    assert_ne!(value(&service, "rationd_tls_certificate_expiry_seconds", ""), expires);
    service.stop();
}

#[test]
fn a_run_of_the_harness_sells_as_a_gateway_and_audits_as_an_operator() {
    let directory = with_certificates();
    let at = directory.path();
    let printed = rationd(at, &["load", "--print-programme"], "");
    std::fs::create_dir(at.join("programmes")).unwrap();
    std::fs::write(at.join("programmes/load-canonical.toml"), &printed.out).unwrap();
    let lines = (0..40).map(|n| format!("t{n:04},A,pharmacy,Seoul,Seoul Jongno-gu,,,demo-gateway\n"));
    let registry = format!("code,name,channel,region,address,lat,lng,gateway\n{}", lines.collect::<String>());
    std::fs::write(at.join("sites.csv"), registry).unwrap();
    let served = [&SERVED[..], &["--policies", "programmes", "--sites", "sites.csv"]].concat();
    let service = Service::start(at, &served, &[]);
    let operator = format!("https://localhost:{}", service.admin.rsplit(':').next().unwrap());
    let run = ["--seconds", "3", "--quiet", "--json", "--sites", "sites.csv", "--operator", &operator];
    let as_operator = [
        "--operator-certificate",
        "rationd-certs/operator-demo-operator.pem",
        "--operator-key",
        "rationd-certs/operator-demo-operator.key",
    ];
    let ran = call(&service, at, "load", "gateway-demo-gateway", &[&run[..], &as_operator].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.json()["accepted"].as_u64().unwrap() > 20, "{}", ran.out);
    let ran = call(&service, at, "load", "gateway-demo-gateway", &run);
    assert!(ran.code == 70 && ran.err.contains("NOT_AN_OPERATOR"), "{ran:?}");
    service.stop();
}

/// What waiting does not mend is not waited for: whoever answers in the clear, or under another authority.
#[test]
fn sheets_do_not_wait_for_a_service_that_is_not_believed() {
    let (directory, elsewhere) = (with_certificates(), with_certificates());
    let at = directory.path();
    let paper = "pad,line,sold_at,number,quantity\nA-17,1,2020-06-20 08:10,810305-1000112,1\n";
    std::fs::write(at.join("paper.csv"), paper).unwrap();
    let strange = elsewhere.path().join("rationd-certs/ca.pem");
    let (secret, open) = (service(at, &[]), Service::start(elsewhere.path(), &["--clock", SATURDAY], &[]));
    let in_the_clear = open.address.replace("http://127.0.0.1", "https://localhost");
    for (address, ca) in [(&secret.address, strange.to_str().unwrap()), (&in_the_clear, "rationd-certs/ca.pem")] {
        let to = ["--address", address, "--tls-ca", ca, "--within", "600"];
        let [certificate, key] = ["pem", "key"].map(|kind| format!("rationd-certs/site-11000001.{kind}"));
        let who = ["--site", "11000001", "--tls-certificate", &certificate, "--tls-key", &key];
        let ran = rationd(at, &[&["journal", "import", "paper.csv"], &to[..], &who[..]].concat(), "");
        assert!(ran.code == 3 && ran.err.contains("UNREACHABLE") && !ran.err.contains("waiting"), "{ran:?}");
    }
    secret.stop();
    open.stop();
}
