use std::collections::BTreeMap;

use super::super::checks::{Checks, Counted, Switch};
use super::super::morning::Morning;
use super::super::notes::Sample;
use super::super::store::Seen;
use super::*;
use crate::ids::RequestId;
use crate::load::audit::{Rule, audit};
use crate::load::history::Verb;

/// A minute of quiet, a minute of storm and half a minute after it, with ten sales a second that take 10 ms, and 50 ms in the
/// storm and for five seconds after it.
fn outcome() -> Outcome {
    let at = |tenths: u64| Duration::from_millis(tenths * 100);
    let sale = |tenths: u64| Asked {
        request: RequestId::random(),
        buyer: tenths,
        site: "LOAD00000".parse().unwrap(),
        verb: Verb::Purchase,
        quantity: 1,
        intended: at(tenths),
        sent: at(tenths),
        answered: at(tenths) + Duration::from_millis(if (600..1250).contains(&tenths) { 50 } else { 10 }),
        replayed: false,
        outcome: Answer::NotExecuted("NO_SESSION".into()),
    };
    let sales: Vec<Asked> =
        (0..1500).map(|tenths| Asked { outcome: Answer::Refused(Vec::new()), ..sale(tenths) }).collect();
    let sample = |second: u64| Sample {
        at: Duration::from_secs(second),
        store: (second != 7).then_some(Seen { live: 100 + second, line: second / 2 }),
    };
    let trace = |rank: u32| (60..120).map(|second| (Duration::from_secs(second), rank, 200 - second)).collect();
    Outcome {
        phases: vec![(Duration::ZERO, "quiet"), (at(600), "storm"), (at(1200), "after")],
        elapsed: at(1500),
        interrupted: false,
        connections: 7,
        pharmacies: 100,
        logins: 400,
        admitted: 250,
        refused: BTreeMap::from([("SITE_<FULL>".to_owned(), 77)]),
        ended: BTreeMap::new(),
        samples: (0..150).map(sample).collect(),
        returns: BTreeMap::new(),
        tries: BTreeMap::new(),
        traces: (0..4).map(trace).collect(),
        sales,
        audit: Ok(audit(&[], &[], &Rule { units_a_week: Some(2), purchases_a_week: None }, &Default::default())),
        checks: Checks {
            position_rises: Counted { count: 0, samples: 240 },
            switch: Some(Switch { extra: 31, took: Some(Duration::from_millis(1_350)) }),
            ..Checks::default()
        },
    }
}

fn storm() -> Storm {
    let morning = Morning::named("2020-03-11", 0.01).unwrap();
    Storm { morning, services: 4, run: outcome(), contrast: Some(outcome()), kept: None }
}

#[test]
fn the_storm_is_compared_with_the_quiet() {
    let json = storm().json();
    let ratio = json["sale_p99_storm_over_quiet"]["ratio"].as_f64().unwrap();
    assert!((4.9..5.1).contains(&ratio), "{ratio}");
    assert_eq!(json["sale_p99_storm_over_quiet"]["samples"], 600);
    assert_eq!(json["as_before_after_s"], 5);
    assert_eq!(json["position_rises"], json!({ "count": 0, "samples": 240 }));
    assert_eq!(json["sessions"]["most_live"], 249);
    assert_eq!(json["switch_seconds"], json!({ "seconds": 1.35, "samples": 31 }));
}

#[test]
fn a_check_that_failed_is_the_verdict() {
    let mut storm = storm();
    assert!(storm.is_clean() && storm.page().starts_with("Clean: "), "{}", storm.page());
    storm.run.checks.cap_violations = Counted { count: 2, samples: 9 };
    assert!(!storm.is_clean());
    assert!(storm.page().starts_with("Found: 2 × cap_violations"), "{}", storm.page());
    assert!(storm.html().contains("verdict bad"));
    storm.run.checks = Checks { switch: Some(Switch { extra: 31, took: None }), ..Checks::default() };
    assert!(!storm.is_clean() && storm.page().starts_with("Found: a session outlived"), "{}", storm.page());
    storm.run.checks = Checks::default();
    storm.run.audit = Err("the service does not answer".into());
    assert!(!storm.is_clean() && storm.page().contains("could not be read"));
}

#[test]
fn no_line_leads_from_one_rank_to_another() {
    let at = Duration::from_secs;
    let moved = vec![(at(1), 4, 5), (at(2), 4, 3), (at(3), 3, 80)];
    let plot = Outcome { traces: vec![moved], ..outcome() }.positions();
    let values: Vec<Option<f64>> = plot.lines[2].points.iter().map(|(_, value)| *value).collect();
    assert_eq!(values, [Some(5.0), Some(3.0), None, Some(80.0), None]);
}

#[test]
fn the_pages_are_whole_and_hold_no_markup_of_others() {
    let storm = storm();
    let html = storm.html();
    for title in [
        "last of 31 extra sessions knew after 1.35 s",
        "Sessions and the line",
        "Sales of the pharmacies",
        "Positions",
        "p99 without limits",
    ] {
        assert!(html.contains(title), "{title}");
    }
    assert!(html.contains("SITE_&lt;FULL&gt;") && !html.contains("NaN") && !html.contains("inf"));
    assert!(storm.page().lines().all(|line| line.chars().count() <= 80), "{}", storm.page());
}

#[test]
fn a_line_shows_who_came_back_and_what_thieves_were_told() {
    let of_line = Outcome {
        returns: BTreeMap::from([(70, 12), (71, 9)]),
        tries: BTreeMap::from([("PLACE_INVALID".to_owned(), 30)]),
        phases: vec![
            (Duration::ZERO, "quiet"),
            (Duration::from_secs(60), "line fills"),
            (Duration::from_secs(90), "Redis restarts"),
            (Duration::from_secs(120), "after"),
        ],
        ..outcome()
    };
    let morning = Morning::named("2021-07-20", 0.01).unwrap();
    let storm = Storm { morning, services: 4, run: of_line, contrast: None, kept: None };
    let json = storm.json();
    // The storm is all that lies between the quiet and the time after.
    assert_eq!(json["sale_p99_storm_over_quiet"]["samples"], 600);
    assert_eq!((&json["sessions"]["came_back"], &json["tries"]["PLACE_INVALID"]), (&json!(21), &json!(30)));
    let (page, html) = (storm.page(), storm.html());
    assert!(page.contains("came back/s") && page.contains("thieves     PLACE_INVALID 30"), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert!(html.contains("Coming back") && html.contains("What thieves were told") && html.contains("Redis restarts"));
}
