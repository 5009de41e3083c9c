//! Every row of `tests/vectors/*.csv` over gRPC on both stores: decision, what is left, next chance. Each row is looked up
//! first, bought, and repeated under its id; the three must agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use rationd::grpc::v1;
use rationd::policy::Refusal;

use super::harness::*;

on_both_stores!(every_row_is_decided_as_published);

const FILES: [&str; 5] =
    ["kr-examples.csv", "kr-more.csv", "weekly-essentials.csv", "tw-masks-2020.csv", "us-pse-nplex.csv"];
const PROGRAMMES: [&str; 2] = ["tw-masks-2020.toml", "us-pse-nplex.toml"];

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
    agent_birth_year: Option<i32>,
    quantity: u32,
    decision: String,
    units_left: Option<u32>,
    purchases_left: Option<u32>,
    next_date: String,
}

impl Row {
    fn visit(&self) -> Visit {
        let buyer = match self.birth_date.as_str() {
            "" => resident(&self.number),
            date => opaque(&self.number, date),
        };
        let papers: Vec<&str> = self.papers.split_whitespace().collect();
        let agent = self.agent_birth_year.map(|birth_year| v1::Agent { birth_year });
        Visit { agent, ..Visit::of(vec![line(buyer, self.quantity, &self.relation, &papers)]).under(&self.programme) }
    }

    fn expected(&self) -> (&str, Option<u32>, Option<u32>, &str) {
        (&self.decision, self.units_left, self.purchases_left, &self.next_date)
    }
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// As a row of the file has it: the next chance is told of refusals only.
fn decided(result: &v1::PurchaseResult) -> (&'static str, Option<u32>, Option<u32>, &str) {
    let (decision, standing) = (said(result), result.standing.as_ref());
    assert_eq!(standing.is_none(), decision == "NOT_REQUIRED", "{result:?}");
    let told = !["APPROVED", "MAY_BUY"].contains(&decision);
    let next = next_date(result).filter(|_| told).unwrap_or_default();
    (decision, standing.and_then(|s| s.units_left), standing.and_then(|s| s.purchases_left), next)
}

async fn every_row_is_decided_as_published(world: World) {
    let rows: Vec<Row> = FILES
        .iter()
        .flat_map(|name| csv::Reader::from_reader(file(name).as_bytes()).into_deserialize().collect::<Vec<_>>())
        .collect::<Result<_, _>>()
        .unwrap();
    // A site for each kind of place that the rows need.
    let places: BTreeSet<(String, String)> = rows.iter().map(|r| (r.channel.clone(), r.region.clone())).collect();
    let mut sites = "code,name,channel,region,address,lat,lng\n".to_owned();
    for (n, (channel, region)) in places.iter().enumerate() {
        let region = if region.is_empty() { "Taipei" } else { region };
        writeln!(sites, "site{n},Site {n},{channel},{region},{region} Mid-gu Long-ro {n},,").unwrap();
    }
    for name in PROGRAMMES {
        world.write(&format!("policies/{name}"), &file(name));
    }
    let sites = world.write("sites.csv", &sites);
    let policies = world.path("policies");
    let settings = [("SITES", sites.as_str()), ("POLICIES", policies.to_str().unwrap())];
    let service = world.serve_with("2020-03-09T10:00:00+09:00", &settings).await;
    let mut counters = BTreeMap::new();
    for (n, place) in places.into_iter().enumerate() {
        counters.insert(place, service.counter(&format!("site{n}")).await);
    }

    let mut wrong = Vec::new();
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for row in &rows {
        service.set(&row.at);
        let (visit, counter) = (row.visit(), &counters[&(row.channel.clone(), row.region.clone())]);
        let looked_up = counter.look_up(&visit).await;
        let bought = counter.sell(&visit).await;
        let again = counter.sell(&visit).await;
        if decided(&bought) != row.expected() {
            wrong.push(format!("{row:?}: {:?}", decided(&bought)));
            continue;
        }
        let promised = if said(&looked_up) == "MAY_BUY" { "APPROVED" } else { said(&looked_up) };
        assert_eq!(promised, row.decision, "the look-up of {} {}", row.example, row.step);
        assert_eq!(decided(&again), row.expected(), "the repetition of {} {}", row.example, row.step);
        let recorded = ["APPROVED", "QUOTA_EXHAUSTED"].contains(&row.decision.as_str());
        assert_eq!((bought.replayed, again.replayed), (false, recorded), "{} {}", row.example, row.step);
        if row.decision == "APPROVED" {
            assert_eq!(receipt(&bought), receipt(&again));
            assert_eq!(instant(receipt(&bought).sold_at), at(&row.at));
        }
        *seen.entry(said(&bought)).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for refusal in Refusal::ALL {
        assert!(seen.contains_key(refusal.name()), "no row for {}", refusal.name());
    }
    assert!(seen.contains_key("APPROVED") && seen.contains_key("NOT_REQUIRED"));
    println!("vectors on {}: {} rows over gRPC as published: {seen:?}", world.name(), rows.len());
}
