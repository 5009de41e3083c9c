//! Where the public feed is: in the instances, or in pods of its own, which can do nothing that a feed need not.

use rationd::config::Config;
use rationd::grpc::STOCK_SERVICE;
use serde_json::Value;

use super::counters::{config, configured, encrypted, rolled};
use super::rendered::{Rendered, list, pod, text};

/// The Secrets that a feed has: a certificate, whom it believes, and the configuration where that is one. No keys of buyers, and not
/// the certificate that counters believe.
const HAS: [&str; 3] = ["rationd-feed-tls", "rationd-client-ca", "rationd-config"];

pub fn wrongs(rendered: &Rendered) -> Vec<String> {
    let instances = &pod(rendered.the("Deployment", "rationd"))["containers"][0];
    let Some(deployment) = rendered.find("Deployment", "rationd-feed") else {
        return does(rendered, "rationd", instances, "counters,feed").into_iter().collect();
    };
    let (pod, container) = (pod(deployment), &pod(deployment)["containers"][0]);
    let mut wrong = Vec::new();
    wrong.extend(does(rendered, "rationd", instances, "counters"));
    wrong.extend(does(rendered, "rationd-feed", container, "feed"));
    wrong.extend(rolled(rendered, deployment));
    wrong.extend(has_too_much(pod));
    for of in ["image", "args"] {
        if container[of] != instances[of] {
            wrong.push(format!("the feed and the instances have different {of}"));
        }
    }
    match (config(rendered, container), config(rendered, instances)) {
        (Some(Ok(config)), Some(Ok(instances))) => {
            wrong.extend(configured(&config, pod, container, STOCK_SERVICE));
            wrong.extend(encrypted(&config, pod, container, "rationd-feed-tls"));
            wrong.extend(other_than(&instances, &config));
        }
        (Some(Err(errors)), _) => wrong.push(errors),
        // Told of the instances; or they are a Secret's.
        _ => {}
    }
    wrong
}

/// A process that does something else than it should. Where the configuration is a Secret, by what is said beside it.
fn does(rendered: &Rendered, name: &str, container: &Value, wanted: &str) -> Option<String> {
    let said = list(&container["env"]).iter().find(|it| it["name"] == "RATIOND_ROLES").map(|it| text(&it["value"]));
    let roles = match config(rendered, container) {
        Some(config) => config.ok()?.roles.to_string(),
        None => said.unwrap_or("counters,feed").to_owned(),
    };
    (roles != wanted).then(|| format!("{name} is {roles} and not {wanted}"))
}

/// Secrets that it has no use for, and anything that it could keep: what it shows is in the store.
fn has_too_much(pod: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for volume in list(&pod["volumes"]) {
        let together = list(&volume["projected"]["sources"]).iter().map(|it| &it["secret"]["name"]);
        let secrets = together.chain([&volume["secret"]["secretName"]]).filter_map(Value::as_str);
        wrong.extend(secrets.filter(|it| !HAS.contains(it)).map(|it| format!("the feed has the Secret {it}")));
        if !["configMap", "projected", "secret"].iter().any(|kind| volume.get(kind).is_some()) {
            wrong.push(format!("the feed keeps something in {}", volume["name"]));
        }
    }
    wrong
}

/// What the feed sees otherwise than those who sell.
fn other_than(instances: &Config, feed: &Config) -> Vec<String> {
    [
        (instances.store.to_string() != feed.store.to_string(), "reads another store than the instances write"),
        (instances.policies != feed.policies, "goes by other programmes than the instances"),
        (instances.sites != feed.sites, "knows other sites than the instances"),
        (feed.audit.is_some(), "keeps an audit log of nothing"),
    ]
    .into_iter()
    .filter(|(is, _)| *is)
    .map(|(_, what)| format!("the feed {what}"))
    .collect()
}
