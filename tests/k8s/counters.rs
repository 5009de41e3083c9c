//! The instances: their settings as the service itself reads them, their probes, their end, their number.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rationd::config::{Config, Overrides, Store};
use rationd::grpc::PURCHASE_SERVICE;
use serde_json::{Value, json};

use super::rendered::{Rendered, list, number, pod, replicas, text};

/// The configuration of the pods as the service reads it; an error if it does not. `None`: it is a Secret's.
pub fn config(rendered: &Rendered, container: &Value) -> Option<Result<Config, String>> {
    let file = rendered.configured("rationd-config", "rationd.toml")?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rationd.toml");
    fs::write(&path, file).unwrap();
    let variables = list(&container["env"]).iter();
    let variables =
        variables.filter_map(|it| Some((OsString::from(text(&it["name"])), OsString::from(it["value"].as_str()?))));
    Some(Config::load(Some(&path), Overrides::default(), variables).map_err(|errors| errors.to_string()))
}

pub fn wrongs(rendered: &Rendered) -> Vec<String> {
    let deployment = rendered.the("Deployment", "rationd");
    let (pod, container) = (pod(deployment), &pod(deployment)["containers"][0]);
    let mut wrong: Vec<String> = rolled(rendered, deployment);
    match config(rendered, container) {
        None => {}
        Some(Err(errors)) => wrong.push(errors),
        Some(Ok(config)) => {
            wrong.extend(configured(&config, pod, container, PURCHASE_SERVICE));
            wrong.extend(encrypted(&config, pod, container, "rationd-tls"));
            wrong.extend(kept(&config, pod, container, deployment));
        }
    }
    wrong
}

/// What the configuration and the manifest say of the same thing.
pub fn configured(config: &Config, pod: &Value, container: &Value, ready: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let admin = config.admin;
    let listens = [
        config.roles.counters.then_some(("grpc", config.counters)),
        Some(("admin", admin)),
        config.roles.feed.then_some(("feed", config.feed.listen)),
    ];
    let listens: Vec<_> = listens.into_iter().flatten().collect();
    if listens.iter().any(|(_, at)| !at.ip().is_unspecified()) {
        wrong.push("a listener is on loopback, where neither counters nor the kubelet reach it".to_owned());
    }
    let wanted: Vec<Value> =
        listens.iter().map(|(name, at)| json!({ "name": name, "containerPort": at.port() })).collect();
    if list(&container["ports"]) != wanted {
        wrong.push(format!("the ports of a pod that is {} are {}", config.roles, container["ports"]));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let asked = &container[probe]["grpc"];
        // Readiness follows the store; whether the process lives does not: it is not restarted because Redis is away.
        let service = (probe == "readinessProbe").then_some(ready);
        if asked["port"] != admin.port() || asked["service"].as_str() != service {
            wrong.push(format!("{probe} asks {asked}: liveness asks for nothing, readiness for {ready}"));
        }
    }
    let (before, drain) = (number(&container["lifecycle"]["preStop"]["sleep"]["seconds"]), config.drain.as_secs());
    let grace = number(&pod["terminationGracePeriodSeconds"]);
    if before + drain + 5 > grace {
        wrong.push(format!("{before} s, a drain of {drain} s and 5 s to spare do not fit into {grace} s"));
    }
    if config.allow_volatile || config.clock.is_some() {
        wrong.push("receipts are volatile, or the clock simulated".into());
    }
    wrong
}

/// The files that a container has of Secrets and ConfigMaps, and sees changed: by their paths, whose they are and their modes.
pub fn mounted<'a>(pod: &'a Value, container: &'a Value) -> BTreeMap<PathBuf, (&'a str, &'a Value)> {
    let mut files = BTreeMap::new();
    // What is mounted by a subPath stays as it was when the container started.
    for mount in list(&container["volumeMounts"]).iter().filter(|it| it["subPath"].is_null()) {
        let volume = list(&pod["volumes"]).iter().find(|it| it["name"] == mount["name"]).unwrap();
        let (alone, together) = (&volume["secret"], &volume["projected"]);
        let several = list(&together["sources"]).iter().flat_map(|it| [&it["secret"], &it["configMap"]]);
        let sources = several.map(|it| (it, &it["name"], together)).chain([(alone, &alone["secretName"], alone)]);
        for (source, name, volume) in sources {
            for item in list(&source["items"]) {
                let mode = item.get("mode").unwrap_or(&volume["defaultMode"]);
                files.insert(Path::new(text(&mount["mountPath"])).join(text(&item["path"])), (text(name), mode));
            }
        }
    }
    files
}

/// Certificates are mounted where they are looked for, none of them a copy, for the pod's group alone.
pub fn encrypted(config: &Config, pod: &Value, container: &Value, own: &str) -> Vec<String> {
    let Some(tls) = &config.tls else { return vec!["no certificates".into()] };
    let believed = [(&tls.client_ca, "rationd-client-ca")];
    let revoked = tls.revoked.iter().map(|file| (file, "rationd-revoked"));
    let files = [(&tls.certificate, own), (&tls.key, own)].into_iter().chain(believed).chain(revoked);
    let mut wrong = themselves(files, pod, container);
    if pod["securityContext"]["fsGroup"].as_u64().is_none_or(|group| group == 0) {
        wrong.push("no group of the pod's own may read keys and certificates".into());
    }
    wrong
}

/// Files that are not the Secrets and ConfigMaps that they should be, themselves and not readable by others.
fn themselves<'a>(
    files: impl IntoIterator<Item = (&'a PathBuf, &'a str)>,
    pod: &Value,
    container: &Value,
) -> Vec<String> {
    let mounted = mounted(pod, container);
    let found = files.into_iter().map(|(file, of)| (file, of, mounted.get(file)));
    found
        .filter(|(_, of, found)| !found.is_some_and(|(name, mode)| name == of && *mode == 0o440))
        .map(|(file, of, found)| format!("{} is not {of} itself with mode 0440: {found:?}", file.display()))
        .collect()
}

/// The keys are mounted where they are looked for, and a ledger of its own has its volume.
fn kept(config: &Config, pod: &Value, container: &Value, deployment: &Value) -> Vec<String> {
    let mut wrong = themselves([(&config.keys, "rationd-keys")], pod, container);
    let mounts = |of: &Value, path: &str| list(&of["volumeMounts"]).iter().any(|it| it["mountPath"] == path);
    let remembers = config.witness.as_ref().and_then(|file| file.parent()?.to_str());
    if !remembers.is_some_and(|folder| mounts(container, folder)) {
        wrong.push(format!("a container that starts again has forgotten what it acknowledged: {:?}", config.witness));
    }
    if config.make_keys {
        wrong.push("pods make keys of their own: they would take the same buyer for two".into());
    }
    if let Store::Embedded(ledger) = &config.store {
        let on = list(&container["volumeMounts"]).iter().any(|it| ledger.starts_with(text(&it["mountPath"])));
        if !on {
            wrong.push(format!("no volume holds {}", ledger.display()));
        }
        if deployment["spec"]["strategy"]["type"] != "Recreate" || deployment["spec"]["replicas"] != 1 {
            wrong.push("one instance has the ledger open: its strategy is Recreate".into());
        }
    }
    wrong
}

/// How many there are, and how they are exchanged.
pub fn rolled(rendered: &Rendered, deployment: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = text(&deployment["metadata"]["name"]);
    let (strategy, scaler) = (&deployment["spec"]["strategy"], rendered.find("HorizontalPodAutoscaler", name));
    if strategy["type"] == "RollingUpdate" && strategy["rollingUpdate"]["maxUnavailable"] != 0 {
        wrong.push("an upgrade leaves fewer instances than before".to_owned());
    }
    if scaler.is_some() != deployment["spec"]["replicas"].is_null() {
        wrong.push("either the autoscaler says how many instances there are or the Deployment".into());
    }
    if scaler.is_some() && replicas(rendered, deployment) < 2 {
        wrong.push("the autoscaler may leave one alone".into());
    }
    wrong
}
