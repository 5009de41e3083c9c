//! Where Services lead: to pods that have the port, to the admin listeners apart from everything else, and Prometheus to all of those.

use serde_json::{Value, json};

use super::rendered::{Rendered, chooses, containers, labels, list, text};

/// The component of a Service that leads to an admin listener.
const ADMIN: &str = "admin";

pub fn wrongs(rendered: &Rendered) -> Vec<String> {
    let mut wrong: Vec<String> = rendered.all("Service").filter_map(|service| leads_wrong(rendered, service)).collect();
    let (watched, others): (Vec<&Value>, Vec<&Value>) =
        rendered.all("Service").partition(|it| it["metadata"]["labels"]["app.kubernetes.io/component"] == ADMIN);
    let leading = |it: &Value| list(&it["spec"]["ports"]).iter().any(|port| port["targetPort"] == ADMIN);
    let names = |services: &[&Value]| -> Vec<String> {
        services.iter().map(|it| text(&it["metadata"]["name"]).to_owned()).collect()
    };
    wrong.extend(
        others
            .iter()
            .filter(|it| leading(it))
            .map(|it| format!("the Service {} leads to the admin listener", it["metadata"]["name"])),
    );
    let wanted: Vec<String> =
        rendered.all("Deployment").map(|it| format!("{}-admin", text(&it["metadata"]["name"]))).collect();
    if names(&watched) != wanted {
        wrong.push(format!("{wanted:?} lead to the admin listeners, and not {:?}", names(&watched)));
    }
    for monitor in rendered.all("ServiceMonitor") {
        let selector = &monitor["spec"]["selector"];
        let seen: Vec<&Value> =
            rendered.all("Service").filter(|it| chooses(selector, &it["metadata"]["labels"])).collect();
        let port = &monitor["spec"]["endpoints"][0]["port"];
        if names(&seen) != wanted || !seen.iter().all(|it| it["spec"]["ports"][0]["name"] == *port) {
            wrong.push("the ServiceMonitor does not see the admin Services alone".into());
        }
    }
    wrong
}

/// A Service that chooses no pods, or those of several, or leads to a port that they do not have.
fn leads_wrong(rendered: &Rendered, service: &Value) -> Option<String> {
    let name = text(&service["metadata"]["name"]);
    let selector = json!({ "matchLabels": service["spec"]["selector"] });
    let chosen: Vec<&Value> = rendered.workloads().filter(|it| chooses(&selector, labels(it))).collect();
    let [workload] = chosen[..] else {
        return Some(format!("the Service {name} chooses the pods of {} workloads", chosen.len()));
    };
    let ports: Vec<&Value> = containers(workload).flat_map(|it| list(&it["ports"])).map(|port| &port["name"]).collect();
    let missing = list(&service["spec"]["ports"]).iter().find(|port| !ports.contains(&&port["targetPort"]))?;
    Some(format!("the Service {name} leads to {}, which nobody has", missing["targetPort"]))
}
