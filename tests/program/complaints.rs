//! What is done for a buyer who complains, from the command line, and what the log and the metrics say of those who do too much.

use super::service::{Ran, Service, rationd};

const NUMBER: [&str; 2] = ["--number", "810305-1000112"];
/// The audit log of a service under the clock of these tests.
const RECORD: &str = "rationd-data-simulated/audit/000000000001-2020-06.log";
const WHY: [&str; 2] = ["--reason", "not theirs, ticket 2026-11-0042"];

fn operator(service: &Service, directory: &std::path::Path, command: &str, more: &[&str]) -> Ran {
    let address = format!("http://{}", service.admin);
    rationd(directory, &[&["operator", command, "--address", &address], more].concat(), "")
}

/// Whether the page of metrics has this line, whatever its other labels.
fn counted(service: &Service, name: &str, label: &str, value: &str) -> bool {
    let page = service.metrics();
    page.lines().any(|line| line.starts_with(name) && line.contains(label) && line.ends_with(value))
}

#[test]
fn an_operator_looks_and_takes_back_and_both_stand_on_record_without_a_number() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let service = Service::start(at, &["--clock", super::shops::SATURDAY], &[]);
    let sold = service.call(&[&["sell", "--json"], &NUMBER[..], &["--quantity", "2"]].concat(), "");
    let id = sold.json()["receipt"]["request_id"].as_str().unwrap().to_owned();

    let unreasoned = operator(&service, at, "look-up", &NUMBER);
    assert!(unreasoned.code == 2 && unreasoned.err.contains("reason: is required"), "{unreasoned:?}");
    let told = operator(&service, at, "look-up", &[&NUMBER[..], &["--reason", "asks for 810305-1000112"]].concat());
    assert!(told.code == 2 && told.err.contains("must not hold a buyer's number"), "{told:?}");
    let on_record = std::fs::read_to_string(at.join(RECORD)).unwrap();
    assert!(!on_record.contains("LOOK_UP"), "nothing was done: {on_record}");
    let found = operator(&service, at, "look-up", &[&NUMBER[..], &WHY, &["--json"]].concat());
    let entry = found.json()["entries"][0].clone();
    assert_eq!((&entry["state"], &entry["site"], &entry["quantity"]), (&"SOLD".into(), &"11000001".into(), &2.into()));
    assert_eq!(entry["request_id"], id);

    let of_it = [&NUMBER[..], &WHY, &["--request-id", &id, "--site"]].concat();
    let elsewhere = operator(&service, at, "void", &[&of_it[..], &["11000002"]].concat());
    assert!(elsewhere.code == 1 && elsewhere.out.contains("NOT_YOURS"), "{elsewhere:?}");
    let voided = operator(&service, at, "void", &[&of_it[..], &["11000001"]].concat());
    assert!(voided.code == 0 && voided.out.contains("VOIDED"), "{voided:?}");
    assert!(counted(&service, "rationd_voids_total", "by=\"operator\"", " 1"), "{}", service.metrics());

    let on_record = std::fs::read_to_string(at.join(RECORD)).unwrap();
    let records: Vec<_> =
        on_record.lines().filter(|line| line.contains("LOOK_UP") || line.contains("VOID_FOR")).collect();
    assert_eq!(records.len(), 6, "each before and after: {on_record}");
    let stages = ["ASKED", "SHOWN", "ASKED", "NOT_YOURS", "ASKED", "VOIDED"];
    assert!(
        records.iter().zip(stages).all(|(line, stage)| line.contains(&format!("\"result\":\"{stage}\""))),
        "{on_record}"
    );
    assert!(records.iter().all(|line| line.contains("somebody on this machine") && line.contains("2026-11-0042")));
    for text in [on_record, service.log()] {
        assert!(!text.contains("1000112"), "{text}");
    }
    service.stop();
}

#[test]
fn without_an_audit_log_what_operators_do_stands_in_the_programs_log() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let off = ("RATIOND_AUDIT__ENABLED", "false");
    let service = Service::start(at, &["--clock", super::shops::SATURDAY], &[off]);
    service.log_that_says("there is no audit log");
    assert_eq!(operator(&service, at, "look-up", &[&NUMBER[..], &WHY].concat()).code, 0);
    let log = service.log_that_says("SHOWN");
    let records: Vec<_> = log.lines().filter(|line| line.contains("audit:")).collect();
    assert!(records.len() == 2 && records[0].contains("ASKED") && records[1].contains("SHOWN"), "{log}");
    assert!(records.iter().all(|line| line.contains("2026-11-0042")) && !log.contains("1000112"), "{log}");
    assert!(!at.join("rationd-data-simulated/audit").exists());
    service.stop();
}

#[test]
fn a_site_that_tries_numbers_or_takes_back_too_much_is_named_and_counted_and_no_number_is() {
    let directory = tempfile::tempdir().unwrap();
    let few = ("RATIOND_COUNTERS__LOOK_UPS_PER_MINUTE", "1");
    let service = Service::start(directory.path(), &["--clock", super::shops::SATURDAY], &[few]);
    for _ in 0..12 {
        let sold = service.call(&[&["sell", "--json"], &NUMBER[..]].concat(), "");
        let id = sold.json()["receipt"]["request_id"].as_str().unwrap().to_owned();
        assert_eq!(service.call(&[&["void"], &NUMBER[..], &["--request-id", &id]].concat(), "").code, 0);
    }
    assert!(counted(&service, "rationd_voids_total", "by=\"site\"", " 12"), "{}", service.metrics());
    assert!(counted(&service, "rationd_voids_unusual_total", "", " 1"), "{}", service.metrics());
    let refused = (0..40).map(|_| service.call(&[&["check"], &NUMBER[..]].concat(), "")).find(|ran| ran.code != 0);
    let refused = refused.expect("an end");
    assert!(refused.code == 3 && refused.err.contains("LOOK_UPS_WITHOUT_SALES"), "{refused:?}");
    assert!(refused.err.contains("try again in"), "{refused:?}");
    assert!(counted(&service, "rationd_look_ups_slowed_total", "", " 1"), "{}", service.metrics());
    let log = service.log();
    for told in ["looks up many people to whom it does not sell", "takes back unusually many of its sales"] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(told)).collect();
        assert!(lines.len() == 1 && lines[0].contains("WARN") && lines[0].contains("11000001"), "{log}");
    }
    assert!(!log.contains("1000112"), "{log}");
    service.stop();
}
