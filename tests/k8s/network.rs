//! Who may talk to whom: the policies are worked out as a cluster would, between all pods of an overlay and from outside.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rendered::{Rendered, chooses, containers, labels, list, text};

/// What may reach what within the namespace: from, to, port. Nothing else may.
const WANTED: [(&str, &str, u64); 8] = [
    ("rationd", "rationd-redis", 6379),
    ("rationd", "rationd-sentinel", 26379),
    ("rationd-feed", "rationd-redis", 6379),
    ("rationd-feed", "rationd-sentinel", 26379),
    ("rationd-redis", "rationd-redis", 6379),
    ("rationd-redis", "rationd-sentinel", 26379),
    ("rationd-sentinel", "rationd-redis", 6379),
    ("rationd-sentinel", "rationd-sentinel", 26379),
];

pub fn wrongs(rendered: &Rendered) -> Vec<String> {
    let mut wrong = Vec::new();
    let everything = rendered.find("NetworkPolicy", "nothing-else").map(|it| &it["spec"]);
    if everything != Some(&json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })) {
        wrong.push("everything else is not kept out and in".to_owned());
    }
    for workload in rendered.workloads() {
        wrong.extend(from_outside(rendered, workload));
        wrong.extend(opens_nothing(rendered, workload));
    }
    // Whom the whole world may talk to, talks to the store and asks for names.
    if let Some(feed) = rendered.find("Deployment", "rationd-feed") {
        let known = |rule: &&Value| {
            let ports = list(&rule["ports"]);
            !ports.is_empty() && ports.iter().all(|it| [json!(53), json!(6379), json!(26379)].contains(&it["port"]))
        };
        let further: Vec<&Value> = rules(rendered, labels(feed), "Egress").filter(|rule| !known(rule)).collect();
        if !further.is_empty() {
            wrong.push(format!("rationd-feed may go further than to the store: {further:?}"));
        }
    }
    for from in rendered.workloads() {
        for to in rendered.workloads() {
            let (of, at) = (text(&from["metadata"]["name"]), text(&to["metadata"]["name"]));
            for port in ports(to).into_values() {
                // A Redis alone talks to nobody.
                let is_alone = of == at && rendered.find("StatefulSet", "rationd-sentinel").is_none();
                let is_wanted = WANTED.contains(&(of, at, port)) && !is_alone;
                let may = goes(rendered, from, to, port) && comes(rendered, from, to, port);
                if may != is_wanted {
                    wrong.push(format!("{of} {} reach {at} at {port}", if may { "may" } else { "cannot" }));
                }
            }
        }
    }
    wrong
}

/// What those elsewhere may reach: counters the counters' port, anybody the feed's, the monitoring the admin port.
fn from_outside(rendered: &Rendered, workload: &Value) -> Vec<String> {
    let name = text(&workload["metadata"]["name"]);
    let mut wrong = Vec::new();
    for (port_name, port) in ports(workload) {
        let from = |rule: &Value| if rule["from"].is_null() { "anybody" } else { "somebody" };
        let reached: Vec<_> =
            rules(rendered, labels(workload), "Ingress").filter(|it| opens(it, workload, port)).map(from).collect();
        let wanted = if port_name == "grpc" || port_name == "feed" { "anybody" } else { "somebody" };
        if !reached.contains(&wanted) {
            wrong.push(format!("{name}: {wanted} should reach the port {port_name}"));
        }
        for rule in rules(rendered, labels(workload), "Ingress").filter(|it| opens(it, workload, port)) {
            let peers = list(&rule["from"]);
            let monitoring =
                json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } } });
            let is_right = match port_name.as_str() {
                "grpc" | "feed" => true,
                "admin" => peers == [monitoring],
                _ => !peers.is_empty() && peers.iter().all(|it| it.as_object().unwrap().keys().eq(["podSelector"])),
            };
            if !is_right {
                wrong.push(format!("{name}: the port {port_name} is open to more than it should be, from elsewhere"));
            }
        }
    }
    wrong
}

/// A rule for a port that its pods do not have: what it was meant to open stands open elsewhere, or nowhere.
fn opens_nothing(rendered: &Rendered, workload: &Value) -> Vec<String> {
    let named = ports(workload);
    let is_there = |it: &Value| match &it["port"] {
        Value::String(name) => named.contains_key(name),
        number => named.values().any(|port| *number == *port),
    };
    let opened = rules(rendered, labels(workload), "Ingress").flat_map(|rule| list(&rule["ports"]));
    let name = text(&workload["metadata"]["name"]);
    opened
        .filter(|it| !is_there(it))
        .map(|it| format!("{name}: a policy opens {}, which it does not have", it["port"]))
        .collect()
}

/// The ports of a workload by their names.
fn ports(workload: &Value) -> BTreeMap<String, u64> {
    let ports = containers(workload).flat_map(|it| list(&it["ports"]));
    ports.map(|port| (text(&port["name"]).to_owned(), port["containerPort"].as_u64().unwrap())).collect()
}

/// The rules of all policies that speak of pods with these labels.
fn rules<'a>(rendered: &'a Rendered, labels: &'a Value, direction: &'a str) -> impl Iterator<Item = &'a Value> {
    let policies = rendered.all("NetworkPolicy").filter(move |it| {
        chooses(&it["spec"]["podSelector"], labels) && list(&it["spec"]["policyTypes"]).contains(&direction.into())
    });
    policies.flat_map(move |it| list(&it["spec"][direction.to_lowercase()]))
}

/// Whether a rule opens this port of this workload.
fn opens(rule: &Value, of: &Value, port: u64) -> bool {
    let named = ports(of);
    rule["ports"].is_null()
        || list(&rule["ports"]).iter().any(|it| match &it["port"] {
            Value::String(name) => named.get(name) == Some(&port),
            number => *number == port,
        })
}

/// Whether peers of a rule include pods of the namespace with these labels.
fn includes(peers: &Value, labels: &Value) -> bool {
    peers.is_null()
        || list(peers).iter().any(|it| {
            it.get("podSelector").is_some_and(|selector| chooses(selector, labels))
                && it.get("namespaceSelector").is_none()
        })
}

fn goes(rendered: &Rendered, from: &Value, to: &Value, port: u64) -> bool {
    rules(rendered, labels(from), "Egress").any(|rule| opens(rule, to, port) && includes(&rule["to"], labels(to)))
}

fn comes(rendered: &Rendered, from: &Value, to: &Value, port: u64) -> bool {
    rules(rendered, labels(to), "Ingress").any(|rule| opens(rule, to, port) && includes(&rule["from"], labels(from)))
}
