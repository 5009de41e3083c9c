//! Scenario files, the good and the bad.

use super::*;

/// A scenario in which the text `old` is replaced.
fn changed(old: &str, new: &str) -> Result<Scenario, ScenarioErrors> {
    let text = BUILT_IN[0].1;
    assert!(text.contains(old), "{old}");
    Scenario::parse(&text.replacen(old, new, 1), "mine.toml")
}

/// What is said, line by line.
fn problems(old: &str, new: &str) -> String {
    changed(old, new).unwrap_err().to_string()
}

/// The line of the canonical scenario that begins so.
fn line_of(start: &str) -> usize {
    BUILT_IN[0].1.lines().position(|line| line.starts_with(start)).unwrap() + 1
}

#[test]
fn the_built_in_scenarios_are_right() {
    for (name, _) in BUILT_IN {
        let scenario = Scenario::built_in(name).unwrap().unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(scenario.name, name);
        assert!(matches!(scenario.arrivals, Arrivals::Open(_)));
    }
    let canonical = Scenario::built_in("canonical").unwrap().unwrap();
    assert_eq!(canonical.arrivals.length(), Duration::from_secs(20));
    let morning = Scenario::built_in("morning").unwrap().unwrap();
    assert_eq!(morning.arrivals.length(), Duration::from_secs(60));
    assert_eq!(morning.clock, Some("2020-03-28T08:59:50+09:00".parse().unwrap()));
    assert!(Scenario::built_in("nonsense").is_none());
}

#[test]
fn a_problem_names_its_line_and_field_and_what_would_be_right() {
    let line = line_of("hot_share");
    assert_eq!(
        problems("hot_share = 0.1", "hot_share = 10"),
        format!("mine.toml:{line}: people.hot_share: must be a number from 0 to 1")
    );
    let line = line_of("twice_share");
    assert_eq!(
        problems("twice_share", "thrice_share"),
        format!("mine.toml:{line}: people.thrice_share: there is no such field; the README lists those that there are")
    );
    let said = problems("programme = \"load-canonical\"", "programme = \"kr-public-mask-2020\"");
    assert!(
        said.starts_with(&format!("mine.toml:{}: programme: must be load-canonical", line_of("programme"))),
        "{said}"
    );
    let said = problems("count = 40", "");
    assert_eq!(said, format!("mine.toml:{}: sites.count: is missing: write count = 40", line_of("[sites]")));
    let said = problems("rate = 400", "");
    assert!(said.contains("phases.2.rate: write either rate, or from and to"), "{said}");
    let said = problems("seed = 2020", "seed = = 2020");
    assert!(said.starts_with(&format!("mine.toml:{}: scenario: this is not TOML", line_of("seed"))), "{said}");
    assert!(problems("units = { 1 = 45", "units = { x = 45").contains("purchases.units.x: a number of units"));
    assert!(problems("confirmed = 0.55", "confirmed = 0.95").contains("together must be at most 1"));
    assert!(problems("hot = 50", "hot = 50_000").contains("people.hot: must be at most people.count"));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_lines() {
    let text = BUILT_IN[0].1.replacen("count = 40", "count = 0", 1).replacen("hot_share", "hat_share", 1);
    let said = Scenario::parse(&text, "mine.toml").unwrap_err();
    let fields: Vec<_> = said.0.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["sites.count", "people.hat_share"]);
}

#[test]
fn a_closed_loop_is_a_scenario_too_but_not_both() {
    let without = BUILT_IN[0].1.split("[[phases]]").next().unwrap().to_owned();
    let closed = format!("{without}[closed]\ncallers = 8\nthink_ms = 20\nseconds = 2.5\n");
    let scenario = Scenario::parse(&closed, "closed.toml").unwrap();
    let expected =
        Arrivals::Closed { callers: 8, think: Duration::from_millis(20), length: Duration::from_millis(2500) };
    assert_eq!(scenario.arrivals, expected);
    assert!(scenario.at_rate(10.0).is_none());
    assert!(Scenario::parse(&without, "none.toml").unwrap_err().to_string().contains("phases: is missing"));
    let both = format!("{}{}", BUILT_IN[0].1, "[closed]\ncallers = 8\nseconds = 1\n");
    assert!(Scenario::parse(&both, "both.toml").unwrap_err().to_string().contains("either [[phases]]"));
}

#[test]
fn another_length_and_rate_keep_the_shape() {
    let scenario = Scenario::built_in("canonical").unwrap().unwrap().lasting(10.0).at_rate(200.0).unwrap();
    assert_eq!(scenario.arrivals.length(), Duration::from_secs(10));
    let Arrivals::Open(phases) = scenario.arrivals else { panic!("an open loop") };
    let rates: Vec<_> = phases.iter().map(|phase| (phase.from, phase.to)).collect();
    assert_eq!(rates, [(12.5, 100.0), (100.0, 100.0), (200.0, 200.0), (50.0, 50.0)]);
}
