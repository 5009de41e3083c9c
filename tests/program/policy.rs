//! `rationd policy`: the two examples that the rules of 2020 are known by, for people and for scripts.

use super::service::{Ran, rationd};

fn policy(arguments: &[&str]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let programme = ["--programme", "kr-public-mask-2020"];
    let ran = rationd(directory.path(), &[&["policy"], arguments, &programme].concat(), "");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    ran
}

#[test]
fn explain_says_whose_day_it_is_and_when_next() {
    let ask = ["explain", "--birth-year", "1981", "--at", "2020-03-10T10:00+09:00"];
    let page = policy(&ask).out;
    println!("{page}");
    for said in ["decision     NOT_YOUR_DAY", "the day for 1981 is Monday", "next chance  2020-03-14"] {
        assert!(page.contains(said), "{said}: {page}");
    }
    let said = policy(&[&ask[..], &["--json"]].concat()).json();
    assert_eq!(said["decision"], "NOT_YOUR_DAY");
    assert_eq!(said["reasons"][0]["name"], "NOT_YOUR_DAY");
    assert_eq!(said["left"]["units"], 2);
    assert_eq!(said["next_chance"]["date"], "2020-03-14");
    // An earlier purchase moves the chance to the next week, and both reasons are told.
    let earlier = ["--earlier", "2020-03-09T10:00+09:00=2", "--json"];
    let said = policy(&[&ask[..], &earlier].concat()).json();
    let names: Vec<_> = said["reasons"].as_array().unwrap().iter().map(|reason| reason["name"].clone()).collect();
    assert_eq!(names, ["NOT_YOUR_DAY", "QUOTA_EXHAUSTED"]);
    assert_eq!(said["next_chance"]["date"], "2020-03-16");
    // On the day itself.
    let said = policy(&["explain", "--birth-year", "1981", "--at", "2020-03-09", "--json"]).json();
    assert_eq!((&said["decision"], &said["next_chance"]), (&"MAY_BUY".into(), &serde_json::Value::Null));
}

#[test]
fn diff_shows_the_change_in_mid_week() {
    let ask = ["diff", "--from", "2020-06-17", "--to", "2020-06-18"];
    let page = policy(&ask).out;
    println!("{page}");
    assert!(page.contains("before  3 (5 for those born in 2002 or later)") && page.contains("after   10"), "{page}");
    let said = policy(&[&ask[..], &["--json"]].concat()).json();
    assert_eq!(said["changes"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!(said["changes"][0]["before"], "3 (5 for those born in 2002 or later)");
    assert_eq!(said["changes"][0]["after"], "10");
    let nothing = policy(&["diff", "--from", "2020-06-15", "--to", "2020-06-16", "--json"]).json();
    assert_eq!(nothing["changes"].as_array().unwrap().len(), 0, "{nothing}");
}

#[test]
fn show_gives_the_rules_of_a_date_and_the_whole_calendar() {
    let day = policy(&["show", "--at", "2020-06-17", "--json"]).json();
    let rule = |what: &str| {
        let rules = day["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["what"] == what).unwrap_or_else(|| panic!("{what}: {day}"))["value"].clone()
    };
    assert_eq!(rule("units in a calendar week from Monday"), "3 (5 for those born in 2002 or later)");
    let calendar = policy(&["show"]).out;
    for date in ["2020-03-09", "2020-04-27", "2020-05-18", "2020-06-18", "2020-07-12"] {
        assert!(calendar.contains(date), "{date}: {calendar}");
    }
    let directory = tempfile::tempdir().unwrap();
    let unknown = rationd(directory.path(), &["policy", "show", "--programme", "kr-masks"], "");
    assert_eq!(unknown.code, 64);
    assert_eq!(unknown.err, "no programme kr-masks; known: kr-public-mask-2020, weekly-essentials\n");
    let when = rationd(
        directory.path(),
        &["policy", "diff", "--programme", "x", "--from", "tomorrow", "--to", "2020-06-18"],
        "",
    );
    assert_eq!((when.code, when.err.contains("write a date (2020-03-10) or an instant")), (2, true), "{when:?}");
}
