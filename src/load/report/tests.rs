use std::time::Duration;

use super::*;
use crate::ids::RequestId;
use crate::load::audit::{Case, CaseKind};
use crate::load::run::{Ended, Shortfall};

fn id(number: u64) -> RequestId {
    let mut bytes = [1; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RequestId::from_bytes(bytes).unwrap()
}

/// A run that never was: a burst, an ebb, and a stall of two seconds in the middle with everything that follows from it.
fn history(seconds: u64) -> Vec<Asked> {
    let mut calls = Vec::new();
    // Numbers that look drawn and are the same each time.
    let mut drawn = 0x2545_F491_4F6C_DD1D_u64;
    let mut draw = move |below: u64| {
        drawn ^= drawn << 13;
        drawn ^= drawn >> 7;
        drawn ^= drawn << 17;
        drawn % below
    };
    let mut micros = 0;
    while micros < seconds * 1_000_000 {
        let now = micros / 1_000_000;
        let per_second = if now < seconds / 3 { 200 + 700 * now * 3 / seconds } else { 900 - 500 * now / seconds };
        micros += 500_000 / per_second + draw(1_000_000 / per_second);
        let stall = seconds / 2 * 1_000_000;
        let mut took = 500 + draw(400) + if draw(50) == 0 { draw(9_000) } else { 0 } + per_second * draw(3);
        let (verb, mut outcome) = match draw(20) {
            0 => (Verb::Resolve, Outcome::NotRecorded),
            1 => (Verb::Void, Outcome::Voided),
            2 | 3 => (Verb::Hold, Outcome::Held { until: 0 }),
            4..7 => (Verb::Purchase, Outcome::Refused(vec!["QUOTA_EXHAUSTED".into()])),
            7 => (Verb::Purchase, Outcome::Refused(vec!["NOT_YOUR_DAY".into(), "QUOTA_EXHAUSTED".into()])),
            _ => (Verb::Purchase, Outcome::Approved { at: 0 }),
        };
        if (stall..stall + 2_000_000).contains(&micros) {
            took += stall + 2_000_000 - micros;
            if draw(9) == 0 {
                outcome = Outcome::Unknown("DEADLINE_EXCEEDED".into());
            } else if draw(3) == 0 {
                (took, outcome) = (800, Outcome::NotExecuted("OVERLOADED".into()));
            }
        }
        let intended = Duration::from_micros(micros);
        calls.push(Asked {
            request: id(micros),
            buyer: draw(20_000),
            site: "S1".parse().unwrap(),
            verb,
            quantity: 2,
            intended,
            sent: intended,
            answered: intended + Duration::from_micros(took),
            replayed: false,
            outcome,
        });
    }
    calls
}

fn clean() -> Audit {
    Audit {
        sales_acknowledged: 41_232,
        sales_standing: 41_000,
        sales_taken_back: 232,
        refusals: 9_120,
        refusals_justified: 9_120,
        ..Audit::default()
    }
}

fn failed() -> Audit {
    let case = |number| Case {
        kind: CaseKind::SaleLost,
        request: Some(id(number)),
        site: Some("S1".parse().unwrap()),
        expected: "SOLD".into(),
        stands: "nothing".into(),
    };
    let found = BTreeMap::from([(CaseKind::SaleLost, 31), (CaseKind::AboveWindow, 1)]);
    Audit { found, cases: (0..20).map(case).collect(), ..clean() }
}

fn call(verb: Verb, intended: u64, answered: u64, outcome: Outcome) -> Asked {
    let site = "S1".parse().unwrap();
    let [intended, answered] = [intended, answered].map(Duration::from_millis);
    let sent = answered;
    Asked { request: id(1), buyer: 1, site, verb, quantity: 1, intended, sent, answered, replayed: false, outcome }
}

#[test]
fn every_call_is_counted_once_and_timed_from_when_it_was_to_be_sent() {
    let not_executed = |reason: &str| Outcome::NotExecuted(reason.into());
    let history = [
        call(Verb::Purchase, 0, 10, Outcome::Approved { at: 0 }),
        call(Verb::Hold, 100, 120, Outcome::Held { until: 0 }),
        call(Verb::Confirm, 200, 230, Outcome::Approved { at: 0 }),
        call(Verb::Purchase, 300, 340, Outcome::Refused(vec!["QUOTA_EXHAUSTED".into()])),
        call(Verb::Resolve, 400, 450, Outcome::NotRecorded),
        call(Verb::Purchase, 500, 501, not_executed("OVERLOADED")),
        call(Verb::Purchase, 600, 601, not_executed("OVERLOADED")),
        call(Verb::Purchase, 650, 650, not_executed("NO_SESSION")),
        call(Verb::Void, 700, 2_000, Outcome::Unknown("DEADLINE_EXCEEDED".into())),
        call(Verb::Resolve, 800, 860, Outcome::OfAnother("request_id".into())),
    ];
    let shortfall = Shortfall { not_sent: 5, sent_late: 2, latest: Duration::from_millis(33) };
    let facts = RunFacts { shortfall, ..RunFacts::example(Duration::from_secs(2)) };
    let json = Summary::new(&facts, &history, Some(&clean())).json();
    for (name, expected) in [
        ("offered", 15),
        ("sent", 10),
        ("not_sent", 5),
        ("accepted", 3),
        ("approved", 2),
        ("held", 1),
        ("refused", 1),
        ("otherwise_decided", 1),
        ("errors", 5),
        ("turned_away", 3),
        ("unknown", 2),
        ("decisions", 5),
    ] {
        assert_eq!(json[name], expected, "{name}");
    }
    assert_eq!(json["goodput_per_s"], 2.5);
    assert_eq!(json["turned_away_by_reason"]["OVERLOADED"], 2);
    assert_eq!(json["unknown_by_reason"]["DEADLINE_EXCEEDED"], 1);
    assert_eq!(json["unknown_by_reason"]["another call's answer (request_id)"], 1);
    assert_eq!(json["refused_by_reason"]["QUOTA_EXHAUSTED"], 1);
    let near = |value: &serde_json::Value, expected: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - expected).abs() <= expected / 900.0, "{value} is not {expected}");
    };
    // Of seven that were not turned away: 10, 20, 30, 40, 50, 60 and 1300 ms.
    near(&json["latency"]["p50"], 40.0);
    near(&json["latency"]["max"], 1_300.0);
    near(&json["latency_turned_away"]["max"], 1.0);
    assert_eq!(json["latency_turned_away"]["count"], 2);
    near(&json["verbs"]["hold"]["latency"]["p99_9"], 20.0);
    assert_eq!(json["verbs"]["release"], serde_json::Value::Null);
    assert_eq!(json["audit"]["clean"], true);
    assert_eq!(json["audit"]["sales_acknowledged"], 41_232);
}

#[test]
fn slices_add_up_to_the_whole() {
    let history = history(10);
    let summary = Summary::new(&RunFacts::example(Duration::from_secs(10)), &history, None);
    let slices = summary.timeline.slices();
    assert_eq!(slices.iter().map(|slice| slice.offered).sum::<u64>(), history.len() as u64);
    assert_eq!(slices.iter().map(|slice| slice.decisions).sum::<u64>(), summary.all.decisions());
    assert_eq!(slices.iter().map(|slice| slice.errors).sum::<u64>(), summary.all.errors());
    assert!((60..=100).contains(&slices.len()), "{}", slices.len());
    // Runs of any length, an empty one too, are cut into some.
    for seconds in [0, 1, 59, 3_600, 86_400, 900_000] {
        let empty = Summary::new(&RunFacts::example(Duration::from_secs(seconds)), &[], None);
        assert!((1..=300).contains(&empty.timeline.slices().len()), "{seconds} s");
        assert!(empty.page().contains("offered 0") && empty.html().ends_with("</html>\n"));
    }
}

#[test]
fn the_page_fits_a_terminal_and_says_first_what_the_audit_says() {
    let history = history(20);
    let page = Summary::new(&RunFacts::example(Duration::from_secs(20)), &history, Some(&clean())).page();
    println!("{page}");
    let first = page.split("\n\n").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        first,
        "Audit: clean: 41,232 sales acknowledged, every one in the ledger once (232 since taken back, as asked); \
         nobody above a window; 9,120 refusals justified."
    );
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert!(page.lines().count() <= 26, "{} lines", page.lines().count());
}

#[test]
fn a_failed_audit_and_a_lost_service_come_first() {
    let ended = Ended::ServiceLost { last_answer: Duration::from_millis(12_300), why: "connection refused".into() };
    let facts = RunFacts { ended, ..RunFacts::example(Duration::from_secs(20)) };
    let summary = Summary::new(&facts, &history(20), Some(&failed()));
    let page = summary.page();
    println!("{page}");
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let verdict =
        "Audit: FAILED: 32 cases: 31 × acknowledged sale not in the ledger; 1 × buyer above a window. - 00000000";
    assert!(words.starts_with(verdict), "{page}");
    assert!(page.contains("… and 26 more"), "{page}");
    assert!(words.contains("connection refused. Its last answer came after 12.3 s; "), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    let html = summary.html();
    assert!(html.contains("verdict bad") && html.contains(&id(3).to_string()));
    let facts = RunFacts { not_audited: Some("the service is gone".into()), ..facts };
    assert!(Summary::new(&facts, &[], None).page().starts_with("Not audited: the service is gone."));
}

#[test]
fn the_html_page_needs_nothing_but_itself_and_lets_nothing_in() {
    let mut history = history(20);
    history.push(call(Verb::Purchase, 1, 2, Outcome::Unknown("<script>\"alert\"</script>".into())));
    let html = Summary::new(&RunFacts::example(Duration::from_secs(20)), &history, Some(&clean())).html();
    for outside in ["<script", "http-equiv", "src=", "href=", "url(", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("&lt;script&gt;&quot;alert&quot;") && html.contains("compressed &lt;2 min&gt;"));
    assert!(!html.contains("NaN") && !html.contains("inf"), "a number that is none");
    for tag in ["svg", "figure", "div", "table", "span", "tr", "td", "title"] {
        let opened = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    std::fs::write(&file, &html).unwrap();
    assert!(std::fs::metadata(&file).unwrap().len() < 200_000, "{} bytes", html.len());
}

#[test]
fn numbers_read_well() {
    assert_eq!([0, 999, 1_000, 1_234_567].map(words::grouped), ["0", "999", "1,000", "1,234,567"]);
    let times = [0.0845, 0.9994, 0.9996, 1.2345, 12.34, 123.4, 999.6, 61_000.0].map(words::milliseconds);
    assert_eq!(times, ["84 µs", "999 µs", "1.00 ms", "1.23 ms", "12.3 ms", "123 ms", "1.00 s", "61.0 s"]);
    assert_eq!([0.0, 2.5, 9.96, 1_234.4].map(words::rate), ["0/s", "2.5/s", "10/s", "1,234/s"]);
    assert_eq!(words::length(Duration::from_secs(125)), "2 min 05 s");
}
