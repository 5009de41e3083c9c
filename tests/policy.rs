//! The rules of programmes against what was published about them: every example as a row of a CSV file, every digit on
//! every day of the rotation, the boundaries of windows, visits, and files that must not be accepted.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "helpers of tests; a panic is the failure"
)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rationd::ids::{Paper, Relation};
use rationd::policy::{
    Ask, Assessment, Counted, Judgement, Left, Line, LineSet, NOT_IN_FORCE, Person, Place, Policies, PolicyErrors,
    Programme, Refusal, Visit, Weekday, Window, left, quota_reason, used,
};
use rationd::time::{Date, Timestamp};
use smallvec::{SmallVec, smallvec};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn policies() -> Policies {
    let files = ["tw-masks-2020.toml", "us-pse-nplex.toml"].map(|name| (name.to_owned(), file(name)));
    Policies::with_files(&files).unwrap_or_else(|errors| panic!("{errors}"))
}

fn masks() -> Arc<Programme> {
    policies().get("kr-public-mask-2020".parse().unwrap()).unwrap().clone()
}

fn citizen(birth_year: i16) -> Person {
    Person { birth_year, foreign: false }
}

fn line(buyer: Person, quantity: u32) -> Line {
    Line { buyer, relation: None, papers: smallvec![], quantity }
}

fn in_person(birth_year: i16, quantity: u32) -> Visit {
    Visit { agent: None, lines: smallvec![line(citizen(birth_year), quantity)], family: smallvec![] }
}

/// Bought for by household or family, with the register shown.
fn bought_for(birth_year: i16, relation: &str) -> Line {
    let papers = smallvec!["resident_register".parse().unwrap()];
    Line { relation: Some(relation.parse().unwrap()), papers, ..line(citizen(birth_year), 1) }
}

fn pharmacy() -> Place {
    Place { channel: "pharmacy".parse().unwrap(), region: "Seoul".to_owned() }
}

fn judge(programme: &Programme, visit: &Visit, index: usize, at: Timestamp, approved: LineSet) -> Judgement {
    match programme.assess(visit, index, &pharmacy(), at, approved) {
        Assessment::Judged(judgement) => judgement,
        Assessment::NotRequired(why) => panic!("not in force: {why}"),
    }
}

fn refusals(judgement: &Judgement) -> Vec<Refusal> {
    judgement.refusals.iter().map(|reason| reason.refusal).collect()
}

// ---- The published examples ----

const VECTORS: [&str; 5] =
    ["kr-examples.csv", "kr-more.csv", "weekly-essentials.csv", "tw-masks-2020.csv", "us-pse-nplex.csv"];

#[derive(Debug, serde::Deserialize)]
struct Row {
    example: String,
    step: String,
    programme: String,
    at: String,
    channel: String,
    region: String,
    number: String,
    birth_date: String,
    relation: String,
    papers: String,
    agent_birth_year: Option<i16>,
    quantity: u32,
    decision: String,
    units_left: Option<u32>,
    purchases_left: Option<u32>,
    next_date: String,
    note: String,
}

impl Row {
    /// Year and kind from the number's century digit, or from the date stated beside an opaque id.
    fn buyer(&self) -> Person {
        if let Some((year, _)) = self.birth_date.split_once('-') {
            return citizen(year.parse().unwrap());
        }
        let century = match self.number.as_bytes()[6] {
            b'1' | b'2' | b'5' | b'6' => 1900,
            b'3' | b'4' | b'7' | b'8' => 2000,
            other => panic!("century digit {}", char::from(other)),
        };
        let year: i16 = self.number[..2].parse().unwrap();
        Person { birth_year: century + year, foreign: (b'5'..=b'8').contains(&self.number.as_bytes()[6]) }
    }

    fn visit(&self) -> Visit {
        let relation: Option<Relation> = (!self.relation.is_empty()).then(|| self.relation.parse().unwrap());
        let papers: SmallVec<[Paper; 2]> = self.papers.split_whitespace().map(|paper| paper.parse().unwrap()).collect();
        let line = Line { buyer: self.buyer(), relation, papers, quantity: self.quantity };
        Visit { agent: self.agent_birth_year.map(citizen), lines: smallvec![line], family: smallvec![] }
    }
}

/// What the rules and a history make of a row: decision, what is left afterwards, next date.
fn decide(programme: &Programme, row: &Row, history: &mut Vec<Counted>) -> (String, Left, String) {
    let (visit, now) = (row.visit(), at(&row.at));
    let place = Place { channel: row.channel.parse().unwrap(), region: row.region.clone() };
    assert_eq!(programme.unknown_word(&visit.lines[0]), None, "{row:?}");
    let judgement = match programme.assess(&visit, 0, &place, now, LineSet::default()) {
        Assessment::NotRequired(_) => {
            return ("NOT_REQUIRED".to_owned(), Left { units: None, purchases: None }, String::new());
        }
        Assessment::Judged(judgement) => judgement,
    };
    assert!(judgement.good_until > now, "{row:?}");
    let quota = quota_reason(&judgement.windows, history, row.quantity, now).map(|reason| reason.refusal);
    let names: Vec<Refusal> = refusals(&judgement).into_iter().chain(quota).collect();
    assert!(names.is_sorted(), "precedence: {names:?} of {row:?}");
    let decision = names.first().map_or("APPROVED", |refusal| refusal.name());
    let mut next = String::new();
    let chance = programme.next_chance(&visit, 0, &place, now, history);
    if names.is_empty() {
        assert_eq!(chance.map(|chance| chance.at), Some(now), "a yes is a chance: {row:?}");
        history.push(Counted { at: now, units: row.quantity, held_until: None });
    } else {
        next = chance.map(|chance| chance.date.to_string()).unwrap_or_default();
    }
    (decision.to_owned(), left(&judgement.windows, history, now), next)
}

#[test]
fn every_row_of_the_vectors_is_decided_as_published() {
    let policies = policies();
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut wrong = Vec::new();
    for name in VECTORS {
        let mut histories: HashMap<String, Vec<Counted>> = HashMap::new();
        for row in csv::Reader::from_reader(file(name).as_bytes()).deserialize() {
            let row: Row = row.unwrap();
            let programme = policies.get(row.programme.parse().unwrap()).unwrap();
            let history = histories.entry(row.number.clone()).or_default();
            let (decision, left, next) = decide(programme, &row, history);
            *seen.entry(decision.clone()).or_default() += 1;
            let decided = (decision.as_str(), left.units, left.purchases, next.as_str());
            let expected = (row.decision.as_str(), row.units_left, row.purchases_left, row.next_date.as_str());
            if decided != expected {
                let Row { example, step, note, .. } = &row;
                wrong.push(format!("{name} {example} {step} ({note}): {decided:?} instead of {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for refusal in Refusal::ALL {
        assert!(seen.contains_key(refusal.name()), "no row for {}", refusal.name());
    }
    println!("rows by decision: {seen:?}");
}

// ---- Rotation ----

#[test]
fn every_digit_on_every_day_of_the_rotation_weeks() {
    let masks = masks();
    // Written from the notices and not from the programme: digits by weekday from Monday, the free days by name.
    let digits_of: [&[i16]; 5] = [&[1, 6], &[2, 7], &[3, 8], &[4, 9], &[5, 0]];
    let free = ["2020-04-15", "2020-04-30", "2020-05-05"];
    let mut checked = 0;
    for day in 0..84u32 {
        let noon = at("2020-03-09T12:00:00+09:00").plus(Duration::from_secs(86_400 * u64::from(day)));
        for year in 1940..1960 {
            let weekday = (day % 7) as usize;
            let open = weekday > 4
                || free.contains(&masks.date(noon).to_string().as_str())
                || digits_of[weekday].contains(&(year % 10));
            let judgement = judge(&masks, &in_person(year, 1), 0, noon, LineSet::default());
            let expected: &[Refusal] = if open { &[] } else { &[Refusal::NotYourDay] };
            assert_eq!(refusals(&judgement), expected, "{year} on {}", masks.date(noon));
            checked += 1;
        }
    }
    assert_eq!(checked, 84 * 20);
    let after = judge(&masks, &in_person(1981, 1), 0, at("2020-06-02T12:00+09:00"), LineSet::default());
    assert_eq!(refusals(&after), []);
}

#[test]
fn the_own_day_is_the_one_that_was_given_officially() {
    let masks = masks();
    let march = at("2020-03-12T10:00+09:00");
    for (year, day) in [
        (1981, Weekday::Monday),
        (1963, Weekday::Wednesday),
        (1999, Weekday::Thursday),
        (2004, Weekday::Thursday),
        (1950, Weekday::Friday),
        (2000, Weekday::Friday),
        (1975, Weekday::Friday),
        (1899, Weekday::Thursday),
    ] {
        assert_eq!(masks.rotation_day(citizen(year), march), Some(day), "{year}");
    }
    assert_eq!(masks.rotation_day(citizen(1981), at("2020-06-01T00:00+09:00")), None);
    assert_eq!(masks.rotation_day(citizen(1981), at("2020-03-08T00:00+09:00")), None);
}

// ---- Windows and time ----

#[test]
fn a_judgement_is_good_until_something_can_change() {
    let masks = masks();
    let good_until = |instant: &str| judge(&masks, &in_person(1986, 1), 0, at(instant), LineSet::default()).good_until;
    assert_eq!(good_until("2020-03-15T23:59:59.999+09:00"), at("2020-03-16T00:00+09:00"));
    assert_eq!(good_until("2020-03-16T00:00:00+09:00"), at("2020-03-17T00:00+09:00"));
    assert_eq!(good_until("2020-06-17T12:00:00+09:00"), at("2020-06-18T00:00+09:00"));

    let noon = MINIMAL.replace("[[channels]]\nfrom = 2020-01-01", "[[channels]]\nfrom = 2020-03-20T12:00:00+09:00");
    let noon = Programme::parse(&noon, "test").unwrap_or_else(|errors| panic!("{errors}"));
    let before = judge(&noon, &in_person(1986, 1), 0, at("2020-03-20T11:59:59.999+09:00"), LineSet::default());
    assert_eq!(refusals(&before), [Refusal::ChannelNotEnrolled]);
    assert_eq!(before.good_until, at("2020-03-20T12:00+09:00"), "an instant in the middle of a day counts too");
    let after = judge(&noon, &in_person(1986, 1), 0, before.good_until, LineSet::default());
    assert_eq!(refusals(&after), []);
}

#[test]
fn windows_begin_and_end_to_the_millisecond() {
    let masks = masks();
    let windows = |instant: &str| judge(&masks, &in_person(1986, 1), 0, at(instant), LineSet::default()).windows;
    let week = windows("2020-03-15T23:59:59.999+09:00");
    assert_eq!((week[0].from, week[0].until), (at("2020-03-09T00:00+09:00"), at("2020-03-16T00:00+09:00")));
    assert_eq!(windows("2020-03-16T00:00:00.000+09:00")[0].from, week[0].until, "one ends where the next begins");
    assert!(!week[0].contains(week[0].until) && week[0].contains(week[0].from));

    let last = Counted { at: at("2020-03-15T23:59:59.999+09:00"), units: 2, held_until: None };
    assert_eq!(used(&week[0], &[last], last.at).units, 2);
    assert_eq!(used(&windows("2020-03-16T00:00:00+09:00")[0], &[last], at("2020-03-16T00:00+09:00")).units, 0);

    let transition = windows("2020-03-06T00:00:00+09:00");
    assert_eq!((transition[0].from, transition[0].until), (at("2020-03-06T00:00+09:00"), at("2020-03-09T00:00+09:00")));
    assert_eq!((transition[0].max_units, transition[0].max_purchases), (Some(2), Some(1)));
}

#[test]
fn a_new_limit_in_mid_week_opens_no_new_window() {
    let masks = masks();
    let window =
        |instant: &str, year| judge(&masks, &in_person(year, 1), 0, at(instant), LineSet::default()).windows[0];
    for year in [1981, 2002] {
        let (before, after) = (window("2020-06-17T23:59:59.999+09:00", year), window("2020-06-18T00:00+09:00", year));
        assert_eq!((before.from, before.until), (after.from, after.until));
        assert_eq!(before.max_units, Some(if year == 2002 { 5 } else { 3 }));
        assert_eq!(after.max_units, Some(10));
    }
}

#[test]
fn a_hold_counts_while_it_lives_and_a_chance_expects_its_confirmation() {
    let masks = masks();
    let now = at("2020-06-02T10:00+09:00");
    let visit = in_person(1981, 3);
    let windows = judge(&masks, &visit, 0, now, LineSet::default()).windows;
    let held = |until: &str| [Counted { at: now, units: 3, held_until: Some(at(until)) }];
    let (live, expired) = (held("2020-06-02T10:30+09:00"), held("2020-06-02T10:00+09:00"));
    assert_eq!(quota_reason(&windows, &live, 1, now).map(|r| r.refusal), Some(Refusal::QuotaExhausted));
    assert_eq!(quota_reason(&windows, &expired, 3, now), None, "its last instant is no longer inside");
    let chance = |history: &[Counted]| masks.next_chance(&visit, 0, &pharmacy(), now, history).unwrap();
    assert_eq!(chance(&live).date, Date::new(2020, 6, 8).unwrap());
    assert_eq!(chance(&expired).at, now);
}

#[test]
fn a_zone_with_summer_time_has_weeks_of_other_lengths() {
    let berlin = MINIMAL.replace("Asia/Seoul", "Europe/Berlin");
    let berlin = Programme::parse(&berlin, "berlin").unwrap_or_else(|errors| panic!("{errors}"));
    let window = |instant: &str| judge(&berlin, &in_person(1981, 1), 0, at(instant), LineSet::default()).windows[0];
    let week = window("2020-03-29T23:59:59.999+02:00");
    assert_eq!((week.from, week.until), (at("2020-03-23T00:00+01:00"), at("2020-03-30T00:00+02:00")));
    assert_eq!(week.until.since(week.from), Duration::from_secs(7 * 86_400 - 3_600));
    let week = window("2020-10-25T23:30+01:00");
    assert_eq!(week.until.since(week.from), Duration::from_secs(7 * 86_400 + 3_600));
    assert_eq!(berlin.local(week.until), "2020-10-26T00:00:00+01:00");
    let spring = judge(&berlin, &in_person(1981, 1), 0, at("2020-03-29T00:00+01:00"), LineSet::default());
    assert_eq!(spring.good_until.since(at("2020-03-29T00:00+01:00")), Duration::from_secs(23 * 3_600));
}

#[test]
fn a_rolling_window_stands_for_a_late_sale_as_every_run_of_days_around_it() {
    let policies = policies();
    let taiwan = policies.get("tw-masks-2020".parse().unwrap()).unwrap();
    let sold_at = at("2020-02-16T10:00+08:00");
    let windows = taiwan.late_windows(citizen(1980), sold_at).unwrap();
    assert_eq!(windows.len(), 7);
    assert_eq!(windows[0].from, at("2020-02-10T00:00+08:00"));
    assert_eq!(windows[6].until, at("2020-02-23T00:00+08:00"));
    assert!(windows.iter().all(|w| w.contains(sold_at) && w.until.since(w.from) == Duration::from_secs(7 * 86_400)));
    // An earlier and a later purchase, each within seven days of the sale but not of each other.
    let around = ["2020-02-11T10:00+08:00", "2020-02-21T10:00+08:00"];
    let history = around.map(|t| Counted { at: at(t), units: 1, held_until: None });
    assert!(windows.iter().all(|window| used(window, &history, sold_at).units <= 1));

    let week = masks().late_windows(citizen(1981), at("2020-03-11T09:40+09:00")).unwrap();
    assert_eq!(
        week,
        [Window {
            from: at("2020-03-09T00:00+09:00"),
            until: at("2020-03-16T00:00+09:00"),
            max_units: Some(2),
            max_purchases: Some(1),
        }]
    );
    assert_eq!(masks().late_windows(citizen(1981), at("2020-07-08T00:00+09:00")), None);
    assert_eq!(masks().late_windows(citizen(1981), at("2020-03-05T23:59+09:00")), None);
}

#[test]
fn what_is_kept_reaches_eight_days_beyond_the_longest_window() {
    let days = |n: u64| Duration::from_secs(n * 86_400);
    assert_eq!((masks().longest_window(), masks().kept()), (days(7), days(15)));
    let policies = policies();
    assert_eq!(policies.get("us-pse-nplex".parse().unwrap()).unwrap().kept(), days(38));
    assert_eq!(policies.get("tw-masks-2020".parse().unwrap()).unwrap().longest_window(), days(14));
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn nothing_changes_before_the_judgement_says_so() {
    let policies = policies();
    for (id, from, days) in
        [("kr-public-mask-2020", "2020-03-06T00:30+09:00", 124), ("tw-masks-2020", "2020-02-06T00:30+08:00", 100)]
    {
        let programme = policies.get(id.parse().unwrap()).unwrap();
        let visit = in_person(2002, 1);
        let mut now = at(from);
        for _ in 0..days * 24 - 1 {
            let (judgement, later) = (judge(programme, &visit, 0, now, LineSet::default()), now.plus(HOUR));
            assert!(judgement.good_until > now);
            if later < judgement.good_until {
                assert_eq!(judge(programme, &visit, 0, later, LineSet::default()), judgement, "{id} at {now}");
            }
            now = later;
        }
    }
}

#[test]
fn the_next_chance_is_the_first_time_at_which_everything_says_yes() {
    let masks = masks();
    // What a patient person would find out by asking every hour, beginning now.
    let patient = |visit: &Visit, start: Timestamp, history: &[Counted]| {
        let midnight = masks.midnight(masks.date(start));
        let hours = (0..1_000).map(|hour| midnight.plus(HOUR * hour)).filter(|&hour| hour > start);
        std::iter::once(start).chain(hours).find(|&hour| {
            let Assessment::Judged(judgement) = masks.assess(visit, 0, &pharmacy(), hour, LineSet::default()) else {
                return true;
            };
            let most = judgement.windows.iter().filter_map(|window| window.max_units).min().unwrap();
            let quantity = visit.lines[0].quantity.min(most);
            judgement.refusals.is_empty() && quota_reason(&judgement.windows, history, quantity, hour).is_none()
        })
    };
    let mut found = 0;
    for day in (0..118).step_by(3) {
        let start = at("2020-03-06T15:20+09:00").plus(HOUR * 24 * day);
        for year in [1981, 1983, 1990, 2002] {
            for (quantity, bought) in [(2, 0), (1, 1), (5, 2)] {
                let earlier = Counted { at: start.minus(HOUR * 20), units: bought, held_until: None };
                let history: &[Counted] = if bought == 0 { &[] } else { &[earlier] };
                let visit = in_person(year, quantity);
                let chance = masks.next_chance(&visit, 0, &pharmacy(), start, history).map(|chance| chance.at);
                assert_eq!(chance, patient(&visit, start, history), "{year} at {start}, {quantity} after {bought}");
                found += u32::from(chance.is_some());
            }
        }
    }
    assert_eq!(found, 40 * 4 * 3, "there is always a chance in this scheme");
}

// ---- Reasons ----

#[test]
fn all_that_applies_is_told_in_order_of_precedence_with_the_windows() {
    let masks = masks();
    let place = Place { channel: "mart".parse().unwrap(), region: "seoul".to_owned() };
    let monday = at("2020-03-16T10:00+09:00");
    let foreigner = Person { birth_year: 1982, foreign: true };
    let of = |relation: Option<&str>| {
        let line = Line { relation: relation.map(|r| r.parse().unwrap()), ..line(foreigner, 2) };
        let agent = relation.map(|_| citizen(1981));
        let visit = Visit { agent, lines: smallvec![line], family: smallvec![] };
        match masks.assess(&visit, 0, &place, monday, LineSet::default()) {
            Assessment::Judged(judgement) => judgement,
            Assessment::NotRequired(why) => panic!("{why}"),
        }
    };
    let judgement = of(None);
    assert_eq!(refusals(&judgement), [Refusal::ChannelNotEnrolled, Refusal::NotEligible, Refusal::NotYourDay]);
    assert_eq!(judgement.windows.len(), 1, "windows are given even to the refused");
    let judgement = of(Some("same_household"));
    assert_eq!(refusals(&judgement), [Refusal::ChannelNotEnrolled, Refusal::ProxyNotAllowed, Refusal::NotYourDay]);
    let whys: Vec<&str> = judgement.refusals.iter().map(|reason| reason.why.as_str()).collect();
    assert_eq!(
        whys,
        [
            "Sites of the kind mart in seoul are not part of the shared check.",
            "Nobody may buy for a foreigner now.",
            "Monday 16 March is for birth years ending in 1 or 6; the day for 1982 is Tuesday.",
        ]
    );
}

#[test]
fn a_line_that_is_not_there_is_never_a_yes() {
    let judgement = judge(&masks(), &in_person(1981, 1), 3, at("2020-03-09T10:00+09:00"), LineSet::default());
    assert_eq!(refusals(&judgement), [Refusal::NotEligible]);
    assert_eq!(masks().next_chance(&in_person(1981, 1), 3, &pharmacy(), at("2020-03-09T10:00+09:00"), &[]), None);
}

#[test]
fn a_programme_that_is_not_in_force_says_why() {
    let why = |instant: &str| match masks().assess(&in_person(1981, 1), 0, &pharmacy(), at(instant), LineSet::default())
    {
        Assessment::NotRequired(why) => why,
        Assessment::Judged(judgement) => panic!("{judgement:?}"),
    };
    assert_eq!(why("2020-03-05T23:59:59.999+09:00"), "The programme begins on Friday 6 March 2020.");
    assert!(why("2020-07-08T00:00+09:00").contains("without a limit"));
    assert_eq!(why("2020-07-12T00:00+09:00"), "The programme has ended.");
}

#[test]
fn there_is_no_next_chance_where_no_day_will_do() {
    let policies = policies();
    let weekly = policies.get("weekly-essentials".parse().unwrap()).unwrap();
    let bakery = Place { channel: "bakery".parse().unwrap(), region: String::new() };
    assert_eq!(weekly.next_chance(&in_person(1981, 1), 0, &bakery, at("2026-01-05T10:00+09:00"), &[]), None);
}

#[test]
fn a_word_that_no_rule_knows_is_told_with_those_that_are_known() {
    let masks = masks();
    let unknown = masks.unknown_word(&bought_for(2010, "neighbour")).unwrap();
    assert_eq!(
        unknown.to_string(),
        "this programme knows no such relation, but: anyone, family, same_household, staff"
    );
    let papers = smallvec!["disability_card".parse().unwrap(), "library_card".parse().unwrap()];
    let unknown = masks.unknown_word(&Line { papers, ..bought_for(2010, "anyone") }).unwrap();
    assert_eq!(unknown.what, "paper");
    assert!(unknown.known.contains(&"health_insurance_card".to_owned()));
}

// ---- Visits ----

#[test]
fn the_agents_own_line_comes_last() {
    let masks = masks();
    let mut visit = in_person(1981, 1);
    visit.lines.push(bought_for(2011, "same_household"));
    visit.lines.push(bought_for(2012, "same_household"));
    visit.agent = Some(citizen(1981));
    assert_eq!(masks.order(&visit).as_slice(), [1, 2, 0]);
    assert_eq!(masks.order(&in_person(1981, 1)).as_slice(), [0]);
}

/// An agent born in 1981 (Monday) who buys for himself and for a child born in 2012 (Tuesday).
fn parent_and_child() -> Visit {
    let own = line(citizen(1981), 1);
    Visit { agent: Some(own.buyer), lines: smallvec![own, bought_for(2012, "same_household")], family: smallvec![] }
}

#[test]
fn from_27_april_the_agents_own_line_leans_on_an_approved_line() {
    let masks = masks();
    let (visit, none, child) = (parent_and_child(), LineSet::default(), LineSet::default().with(1));
    let fits =
        |index, instant: &str, approved| refusals(&judge(&masks, &visit, index, at(instant), approved)).is_empty();
    for (monday, tuesday, wednesday) in [
        ("2020-04-27T00:00+09:00", "2020-04-28T10:00+09:00", "2020-04-29T10:00+09:00"),
        ("2020-05-11T10:00+09:00", "2020-05-12T10:00+09:00", "2020-05-13T10:00+09:00"),
    ] {
        assert!(fits(1, monday, none), "the child on the agent's day, because the agent is there");
        assert!(fits(1, tuesday, none), "the child on its own day");
        assert!(!fits(1, wednesday, none));
        assert!(fits(0, monday, none), "the agent on his own day");
        assert!(!fits(0, tuesday, none), "nothing was approved for the child");
        assert!(fits(0, tuesday, child));
        assert!(!fits(0, tuesday, LineSet::default().with(0)), "his own line is nobody to lean on");
        assert!(!fits(0, wednesday, child), "it is nobody's day");
    }
    // A day earlier only the beneficiary's day counted.
    assert!(!fits(1, "2020-04-20T10:00+09:00", none), "Monday is the agent's day");
    assert!(!fits(0, "2020-04-21T10:00+09:00", child), "Tuesday is the child's");
}

#[test]
fn from_18_may_the_day_of_anyone_named_will_do() {
    let masks = masks();
    // Parents on Monday and Tuesday, children on Wednesday and Thursday: every day but Friday.
    let mut visit = in_person(1981, 1);
    visit.agent = Some(citizen(1981));
    visit.lines.push(bought_for(2013, "family"));
    visit.family = smallvec![citizen(1982), citizen(2014)];
    let fits = |visit: &Visit, index, day: &str| {
        refusals(&judge(&masks, visit, index, at(&format!("{day}T10:00+09:00")), LineSet::default())).is_empty()
    };
    for index in [0, 1] {
        for day in ["2020-05-18", "2020-05-19", "2020-05-20", "2020-05-21", "2020-05-23", "2020-05-24"] {
            assert!(fits(&visit, index, day), "line {index} on {day}");
        }
        assert!(!fits(&visit, index, "2020-05-22"), "Friday is nobody's");
        assert!(!fits(&visit, index, "2020-05-15"), "and a week earlier the family did not count");
    }
    visit.family.clear();
    assert!(!fits(&visit, 0, "2020-05-19"), "who is not named does not help");
}

#[test]
fn the_chance_of_an_agents_own_line_leans_on_nobody() {
    let masks = masks();
    let chance = masks.next_chance(&parent_and_child(), 0, &pharmacy(), at("2020-05-12T10:00+09:00"), &[]).unwrap();
    assert_eq!(chance.date, Date::new(2020, 5, 16).unwrap(), "Tuesday is the child's; alone he waits for Saturday");
    let child = masks.next_chance(&parent_and_child(), 1, &pharmacy(), at("2020-05-13T10:00+09:00"), &[]).unwrap();
    assert_eq!(child.date, Date::new(2020, 5, 16).unwrap());
}

// ---- Explaining ----

fn ask(birth_year: i16, instant: &str) -> Ask {
    Ask {
        birth_year,
        foreign: false,
        at: at(instant),
        channel: "pharmacy".parse().unwrap(),
        region: String::new(),
        quantity: None,
        relation: None,
        papers: vec![],
        agent_birth_year: None,
        earlier: vec![],
    }
}

#[test]
fn explain_says_what_a_person_would_be_told() {
    let masks = masks();
    let explained = masks.explain(&ask(1981, "2020-03-10T10:00+09:00"));
    assert_eq!(
        serde_json::to_value(&explained).unwrap(),
        serde_json::json!({
            "programme": "kr-public-mask-2020",
            "at": "2020-03-10T10:00:00+09:00",
            "decision": "NOT_YOUR_DAY",
            "reasons": [{
                "name": "NOT_YOUR_DAY",
                "why": "Tuesday 10 March is for birth years ending in 2 or 7; the day for 1981 is Monday.",
            }],
            "quantity": 2,
            "rotation_day": "Monday",
            "left": { "units": 2, "purchases": 1 },
            "next_chance": { "date": "2020-03-14", "at": "2020-03-14T00:00:00+09:00" },
        })
    );
    let text = explained.to_string();
    assert!(text.contains("NOT_YOUR_DAY") && text.contains("next chance  2020-03-14"), "{text}");
    assert!(text.contains("2 units, 1 purchase\n"), "{text}");

    let yes = masks.explain(&ask(1981, "2020-03-09T10:00+09:00"));
    assert_eq!((yes.decision, yes.quantity, yes.next_chance), ("MAY_BUY", 2, None));
    let free = masks.explain(&ask(1981, "2020-07-09T10:00+09:00"));
    assert_eq!((free.decision, free.reasons[0].name, free.left), ("NOT_REQUIRED", NOT_IN_FORCE, None));
    let mut again = ask(1981, "2020-03-14T10:00+09:00");
    again.earlier = vec![(at("2020-03-09T10:00+09:00"), 2)];
    let again = masks.explain(&again);
    assert_eq!(again.decision, "QUOTA_EXHAUSTED");
    assert_eq!(again.next_chance.unwrap().date, "2020-03-16");
}

#[test]
fn diff_shows_what_changes_and_nothing_else() {
    let masks = masks();
    let midnight = |month, day| masks.midnight(Date::new(2020, month, day).unwrap());
    let diff = masks.diff(midnight(6, 17), midnight(6, 18));
    assert_eq!(
        serde_json::to_value(&diff.changes).unwrap(),
        serde_json::json!([{
            "what": "units in a calendar week from Monday",
            "before": "3 (5 for those born in 2002 or later)",
            "after": "10",
        }])
    );
    let text = diff.to_string();
    assert!(text.contains("before  3 (5 for those born in 2002 or later)") && text.contains("after   10"), "{text}");
    assert!(masks.diff(midnight(6, 16), midnight(6, 17)).changes.is_empty());
    let election = masks.diff(midnight(4, 14), midnight(4, 15)).changes;
    assert_eq!((election.len(), election[0].what.as_str()), (1, "free day"));
}

#[test]
fn the_calendar_names_every_date_of_the_scheme() {
    let shown = masks().show(None);
    let dates: Vec<&str> = shown.calendar.iter().map(|step| &step.at[..10]).collect();
    assert_eq!(
        dates,
        [
            "2020-03-06",
            "2020-03-09",
            "2020-03-11",
            "2020-03-14",
            "2020-03-23",
            "2020-04-06",
            "2020-04-20",
            "2020-04-27",
            "2020-05-18",
            "2020-06-01",
            "2020-06-18",
            "2020-07-08",
            "2020-07-12",
        ]
    );
    assert!(shown.calendar.iter().all(|step| !step.changes.is_empty()), "{shown}");
    let free: Vec<&str> = shown.free_days.iter().map(|day| day.what.as_str()).collect();
    assert_eq!(free, ["2020-04-15", "2020-04-30", "2020-05-05"]);
    let end = &shown.calendar[11].changes;
    assert_eq!((end.len(), end[0].what.as_str()), (1, "in force"), "the end of a programme ends all of it");
    let now = masks().show(Some(at("2020-03-11T09:00+09:00")));
    let channels = now.rules.iter().find(|fact| fact.what == "channels").unwrap();
    assert_eq!(channels.value, "pharmacy; post_office");
    assert_eq!(now.calendar.first().unwrap().at, "2020-03-14T00:00:00+09:00");
}

// ---- Files that must not be accepted ----

/// The smallest programme that says something; the tests below spoil it.
const MINIMAL: &str = r#"id = "minimal"
code = "mi"
title = "Minimal"
unit = "piece"
zone = "Asia/Seoul"
buyer_id = "opaque"
max_hold_minutes = 60

[[periods]]
from = 2020-01-01
until = 2020-03-23
windows = [{ kind = "week", starts = "mon", units = 2 }]

[[periods]]
from = 2020-03-23
windows = [{ kind = "week", starts = "mon", units = 3 }]

[[channels]]
from = 2020-01-01
channel = "pharmacy"
"#;

fn errors(text: &str) -> PolicyErrors {
    Programme::parse(text, "spoilt.toml").map(|p| p.id()).expect_err("a file that must not be accepted")
}

#[test]
fn the_smallest_programme_is_accepted() {
    Programme::parse(MINIMAL, "minimal.toml").unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn every_problem_names_its_line_and_the_remedy() {
    for (from, to, line, what) in [
        ("until = 2020-03-23", "until = 2020-03-22", 14, "there is a gap from 2020-03-22T00:00:00+09:00 to 2020-03-23"),
        ("until = 2020-03-23", "until = 2020-03-24", 14, "two periods overlap"),
        ("until = 2020-03-23\n", "", 13, "the period before this one has no end"),
        ("until = 2020-03-23", "until = 2019-03-23", 11, "`until` is not after `from`"),
        ("unit = \"piece\"", "unit = \"piece\"\ncolour = \"red\"", 5, "unknown field `colour`"),
        ("starts = \"mon\", units = 3", "starts = \"mon\", unit = 3, units = 3", 16, "unknown field `unit`"),
        ("Asia/Seoul", "Asia/Soul", 5, "no such time zone: \"Asia/Soul\""),
        (", units = 3", "", 16, "this window limits nothing"),
        ("units = 3", "units = 0", 16, "`units` cannot be read"),
        ("starts = \"mon\", units = 3", "units = 3", 16, "`starts` is missing"),
        (
            "\"week\", starts = \"mon\", units = 3",
            "\"fortnight\", units = 3",
            16,
            "no such kind of window: \"fortnight\"",
        ),
        ("windows = [{ kind = \"week\", starts = \"mon\", units = 3 }]", "", 14, "this period has no window"),
        ("from = 2020-03-23", "from = 2020-03-23\nrotation = true", 14, "there is no rotation table"),
        ("from = 2020-03-23", "from = \"2020-03-23\"", 15, "`from` cannot be read"),
        ("from = 2020-03-23", "from = 2020-03-23T06:00:00", 15, "`from` cannot be read"),
        ("code = \"mi\"\n", "", 1, "`code` is missing"),
        ("code = \"mi\"", "code = \"minimal\"", 2, "`code` cannot be \"minimal\""),
        ("\"opaque\"", "\"passport\"", 6, "no such scheme of buyer ids"),
        ("max_hold_minutes = 60", "max_hold_minutes = \"60\"", 7, "`max_hold_minutes` cannot be read"),
        ("channel = \"pharmacy\"", "channel = \"A pharmacy\"", 20, "`channel` cannot be \"A pharmacy\""),
        ("title = \"Minimal\"", "title = ", 3, "this is not TOML"),
        (
            "kind = \"week\", starts = \"mon\", units = 2",
            "kind = \"span\", from = 2020-01-01, until = 2020-03-22, units = 2",
            12,
            "a part of this period lies outside its window",
        ),
    ] {
        let spoilt = MINIMAL.replacen(from, to, 1);
        assert_ne!(spoilt, MINIMAL, "{from}");
        let errors = errors(&spoilt);
        let found = errors.iter().any(|e| e.line == Some(line) && e.what.contains(what) && !e.remedy.is_empty());
        assert!(found, "wanted line {line}: {what}\n{errors}");
        assert!(errors.to_string().contains(&format!("spoilt.toml:{line}: ")), "{errors}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let spoilt = MINIMAL
        .replace("Asia/Seoul", "Moon/Tycho")
        .replace("unit = \"piece\"", "unity = \"piece\"")
        .replace("until = 2020-03-23", "until = 2020-03-25")
        .replace("channel =", "chanel =");
    let errors = errors(&spoilt);
    let lines: Vec<Option<usize>> = errors.iter().map(|error| error.line).collect();
    // Line 1 misses `unit`, 4 has `unity`, 5 the zone, 14 the overlap, 18 misses `channel`, 20 has `chanel`.
    assert_eq!(lines, [1, 4, 5, 14, 18, 20].map(Some), "{errors}");
}

#[test]
fn tables_of_every_kind_are_checked() {
    for (table, what) in [
        ("[rotation]\nkey = \"birth_year_digit\"\nmon = [1, 2, 3, 4, 5, 6, 7, 8, 9]\n", "the digit 0 has no day"),
        ("[rotation]\nkey = \"id_digit\"\nmon = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n", "no rotation goes by \"id_digit\""),
        ("[rotation]\nkey = \"birth_year_digit\"\nmon = [10]\n", "`mon` cannot be read"),
        ("[[free_days]]\ndate = 2020-04-15\n", "`why` is missing"),
        (
            "[[free_days]]\ndate = 2020-04-15\nwhy = \"a\"\n[[free_days]]\ndate = 2020-04-15\nwhy = \"b\"\n",
            "listed twice",
        ),
        ("[[holidays]]\ndate = 2020-04-15T00:00:00Z\nwhy = \"a\"\n", "`date` cannot be read"),
        ("[[whose_day]]\nfrom = 2020-03-09\nrule = \"nobody\"\n", "no such rule: \"nobody\""),
        (
            "[[whose_day]]\nfrom = 2020-03-09\nrule = \"beneficiary\"\n[[whose_day]]\nfrom = 2020-03-09\nrule = \
             \"anyone_named\"\n",
            "does not follow the one before",
        ),
        ("[[proxy]]\nfrom = 2020-03-09\ngroup = \"g\"\n", "nobody may buy for this group"),
        ("[[proxy]]\nfrom = 2020-03-09\ngroup = \"g\"\nrelations = [\"a\"]\npapers = [[]]\n", "an empty set of papers"),
        (
            "[[proxy]]\nfrom = 2020-03-09\ngroup = \"g\"\nrelations = [\"a\"]\nborn_from = 2010\nborn_until = 2002\n",
            "`born_from` is after `born_until`",
        ),
        ("[[foreigners]]\ncards = [\"a\"]\n", "`from` is missing"),
        (
            "[[channels]]\nfrom = 2020-03-09\nchannel = \"mart\"\nonly_regions = [\"A\"]\nexcept_regions = [\"B\"]\n",
            "the regions are given twice",
        ),
        (
            "[[periods]]\nfrom = 2021-01-01\nin_force = false\nwhy = \"w\"\nwindows = [{ kind = \"day\", units = 1 }]\n",
            "not in force and has windows",
        ),
    ] {
        let errors = errors(&format!("{MINIMAL}\n{table}"));
        let found = errors.iter().any(|e| e.what.contains(what) && e.line.is_some_and(|line| line > 20));
        assert!(found, "wanted {what:?}:\n{errors}");
    }
    let overlapping =
        "units = 3, units_by_birth_year = [{ born_from = 2000, units = 5 }, { born_until = 2000, units = 4 }]";
    let errors = errors(&MINIMAL.replace("units = 3", overlapping));
    assert!(errors.to_string().contains("same birth year"), "{errors}");
}

#[test]
fn programmes_do_not_share_an_id_or_a_code() {
    let named = |name: &str, text: String| (name.to_owned(), text);
    let other = MINIMAL.replace("\"minimal\"", "\"other\"");
    let twice = [named("a.toml", MINIMAL.to_owned()), named("b.toml", MINIMAL.to_owned())];
    let errors = Policies::with_files(&twice).expect_err("one id twice").to_string();
    assert_eq!(errors, "b.toml: minimal is defined in a.toml too; give one of the two another `id`");
    let same_code = [named("a.toml", MINIMAL.to_owned()), named("b.toml", other.clone())];
    let errors = Policies::with_files(&same_code).expect_err("one code twice").to_string();
    assert!(errors.contains("other and minimal have the same code, mi"), "{errors}");
    let taken = [named("a.toml", MINIMAL.replace("\"mi\"", "\"km\""))];
    assert!(Policies::with_files(&taken).expect_err("a built-in's code").to_string().starts_with("a.toml: "));
    let both = [named("a.toml", MINIMAL.to_owned()), named("b.toml", other.replace("\"mi\"", "\"ot\""))];
    assert_eq!(Policies::with_files(&both).unwrap().iter().count(), 4);
    let bad = [named("a.toml", "id = 1".to_owned()), named("b.toml", "id = 2".to_owned())];
    let errors = Policies::with_files(&bad).expect_err("two bad files").to_string();
    assert!(errors.contains("a.toml:1: ") && errors.contains("b.toml:1: "), "{errors}");
}

#[test]
fn a_file_may_replace_a_programme_built_in() {
    let own = MINIMAL.replace("\"minimal\"", "\"weekly-essentials\"").replace("\"mi\"", "\"we\"");
    let policies = Policies::with_files(&[("own.toml".to_owned(), own)]).unwrap_or_else(|errors| panic!("{errors}"));
    let weekly = policies.get("weekly-essentials".parse().unwrap()).unwrap();
    assert_eq!((weekly.title(), weekly.is_demo()), ("Minimal", false));
    assert!(Policies::built_in().get("weekly-essentials".parse().unwrap()).unwrap().is_demo());
}
