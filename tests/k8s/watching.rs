//! What people are called for and shown: rules and queries that Prometheus itself reads and tries, about metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rationd::telemetry::metrics::{Kind, StockState, TABLE};
use serde_json::{Value, json};

use super::rendered::{Rendered, chooses, documents, list, read, root, text};
use crate::service::run;

fn promtool(arguments: &[&str], at: &Path) -> Result<(), String> {
    let mut command = Command::new("promtool");
    command.args(arguments);
    let ran = run(command, at, "");
    if ran.code == 0 { Ok(()) } else { Err(format!("{}{}", ran.out, ran.err)) }
}

/// Where the cases stand in which alerts are tried; the first is a good day.
const CASES: &str = "k8s/components/monitoring/alerts.test.yaml";

/// Tries the rules in the cases of `CASES` that are chosen; what Prometheus says against them.
fn tried(rules: &Value, cases: &Value, chosen: impl Fn(usize, &Value) -> bool) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let mut chosen_cases = cases.clone();
    let kept: Vec<&Value> =
        list(&cases["tests"]).iter().enumerate().filter(|(n, case)| chosen(*n, case)).map(|(_, it)| it).collect();
    assert!(!kept.is_empty(), "it is tried in no case");
    chosen_cases["tests"] = json!(kept);
    fs::write(folder.path().join("alerts.yaml"), rules.to_string()).unwrap();
    fs::write(folder.path().join("cases.yaml"), chosen_cases.to_string()).unwrap();
    promtool(&["check", "rules", "--lint-fatal", "alerts.yaml"], folder.path())?;
    promtool(&["test", "rules", "cases.yaml"], folder.path())
}

fn spec(rendered: &Rendered) -> Value {
    rendered.the("PrometheusRule", "rationd")["spec"].clone()
}

fn alerts(spec: &Value) -> &[Value] {
    list(&spec["groups"][0]["rules"])
}

/// The names of time series that the service has, as Prometheus shows them.
fn series() -> BTreeSet<String> {
    let named = |name: &str| name.replace('.', "_");
    let shown = TABLE.iter().flat_map(|row| match (row.kind, row.unit) {
        (Kind::Counter, _) => vec![format!("{}_total", named(row.name))],
        (Kind::Gauge, "1") => vec![format!("{}_ratio", named(row.name))],
        (Kind::Gauge, "s") => vec![format!("{}_seconds", named(row.name))],
        (Kind::Gauge, _) => vec![named(row.name)],
        (Kind::Histogram, _) => {
            ["bucket", "count", "sum"].map(|part| format!("{}_seconds_{part}", named(row.name))).into()
        }
    });
    shown.chain(["up".to_owned()]).collect()
}

/// The names of time series in an expression: what stands before a brace.
fn asked(expression: &str) -> BTreeSet<String> {
    let before = expression.split('{').map(|it| it.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap());
    let mut names: Vec<String> = before.map(str::to_owned).collect();
    names.pop();
    names.into_iter().collect()
}

/// What an expression wants a label to be.
fn wanted<'a>(expression: &'a str, label: &str) -> BTreeSet<&'a str> {
    let begins = [format!("{label}=\""), format!("{label}=~\"")];
    let after = begins.iter().flat_map(|begin| expression.split(begin.as_str()).skip(1));
    after.flat_map(|it| it.split('"').next().unwrap().split('|')).collect()
}

/// Whether an expression asks pods that there are, and each of its series says which, for states that there are.
fn asks_somebody(rendered: &Rendered, expression: &str) {
    let monitor = &rendered.the("ServiceMonitor", "rationd")["spec"];
    let labels = rendered.all("Service").map(|it| &it["metadata"]["labels"]);
    let jobs: BTreeSet<&str> =
        labels.filter(|it| chooses(&monitor["selector"], it)).map(|it| text(&it[text(&monitor["jobLabel"])])).collect();
    assert_eq!(jobs, BTreeSet::from(["rationd", "rationd-feed"]));
    assert_eq!(expression.matches('{').count(), expression.matches("{job=").count(), "{expression}");
    assert!(wanted(expression, "job").is_subset(&jobs), "{expression}");
    let states = StockState::ALL.iter().map(|it| it.name()).collect();
    assert!(wanted(expression, "state").is_subset(&states), "{expression}");
}

#[test]
fn every_alert_fires_when_it_should_and_then_alone() {
    let rendered = Rendered::of("national");
    let spec = spec(&rendered);
    let cases = documents(&root().join(CASES)).remove(0);
    assert_eq!(tried(&spec, &cases, |_, _| true), Ok(()));
    let guide = read("k8s/README.md");
    for alert in alerts(&spec) {
        let name = text(&alert["alert"]);
        let anchor =
            text(&alert["annotations"]["runbook_url"]).strip_prefix("k8s/README.md#").expect("an entry of the guide");
        let heading = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let entries = guide.lines().filter(|line| line.starts_with("### ") && heading(line) == anchor).count();
        assert_eq!(entries, 1, "{name}: what to do is not under one heading #{anchor}");
        assert!(asked(text(&alert["expr"])).is_subset(&series()), "{name} asks for what nobody measures");
        asks_somebody(&rendered, text(&alert["expr"]));
    }
    // Whatever becomes of the feed, somebody is called.
    let called: BTreeSet<String> = alerts(&spec).iter().flat_map(|alert| asked(text(&alert["expr"]))).collect();
    for name in ["rationd_stock_sites", "rationd_stock_age_seconds", "rationd_feed_duration_seconds_count"] {
        assert!(called.contains(name), "nobody is called by {name}");
    }
    println!("{} alerts, each tried", alerts(&spec).len());
}

#[test]
fn an_alert_that_is_changed_fails_its_test() {
    let rendered = Rendered::of("national");
    let spec = spec(&rendered);
    let cases = documents(&root().join(CASES)).remove(0);
    for (nth, alert) in alerts(&spec).iter().enumerate() {
        let fires = format!("{{alertname=\"{}\"}}", text(&alert["alert"]));
        let with = |expression: &str, chosen: &dyn Fn(usize, &Value) -> bool| {
            let mut changed = spec.clone();
            changed["groups"][0]["rules"][nth]["expr"] = expression.into();
            tried(&changed, &cases, chosen)
        };
        // One that never fires, where it should; and one that always does, on a good day.
        assert!(
            with("vector(1) == 2", &|_, case| case.to_string().contains(&json!(fires).to_string())).is_err(),
            "{fires}"
        );
        assert!(with("vector(1)", &|n, _| n == 0).is_err(), "{fires}");
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let rendered = Rendered::of("national");
    let dashboard: Value =
        serde_json::from_str(rendered.configured("rationd-dashboard", "dashboard.json").unwrap()).unwrap();
    let queries: Vec<String> = list(&dashboard["panels"])
        .iter()
        .flat_map(|panel| list(&panel["targets"]))
        .map(|target| text(&target["expr"]).replace("$programme", "weekly-essentials"))
        .collect();
    assert!(queries.len() >= list(&dashboard["panels"]).len());
    queries.iter().for_each(|query| asks_somebody(&rendered, query));
    let rules: Vec<Value> =
        queries.iter().enumerate().map(|(n, query)| json!({ "record": format!("shown:{n}"), "expr": query })).collect();
    let folder = tempfile::tempdir().unwrap();
    let groups = json!({ "groups": [{ "name": "shown", "rules": rules }] });
    fs::write(folder.path().join("shown.yaml"), groups.to_string()).unwrap();
    assert_eq!(promtool(&["check", "rules", "shown.yaml"], folder.path()), Ok(()));
    let shown: BTreeSet<String> = queries.iter().flat_map(|query| asked(query)).collect();
    assert!(shown.is_subset(&series()), "{:?}", shown.difference(&series()));
    // Whatever is measured has a place where it is seen.
    for row in TABLE {
        let name = row.name.replace('.', "_");
        assert!(shown.iter().any(|it| it.starts_with(&name)), "{name} is on no panel");
    }
}
