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
fn config(rendered: &Rendered, container: &Value) -> Option<Result<Config, String>> {
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
            wrong.extend(configured(&config, pod, container));
            wrong.extend(kept(&config, pod, container, deployment));
        }
    }
    let wanted = rendered.find("Service", "rationd-admin").map(|it| &it["spec"]["ports"][0]["targetPort"]);
    let others = rendered.all("Service").filter(|it| it["metadata"]["name"] != "rationd-admin");
    let leading = others.filter(|it| list(&it["spec"]["ports"]).iter().any(|port| Some(&port["targetPort"]) == wanted));
    wrong.extend(leading.map(|it| format!("the Service {} leads to the admin listener", it["metadata"]["name"])));
    for monitor in rendered.all("ServiceMonitor") {
        let admin = rendered.the("Service", "rationd-admin");
        let selector = &monitor["spec"]["selector"];
        let seen = rendered.all("Service").filter(|it| super::rendered::chooses(selector, &it["metadata"]["labels"]));
        if seen.map(|it| &it["metadata"]["name"]).collect::<Vec<_>>() != [&admin["metadata"]["name"]]
            || monitor["spec"]["endpoints"][0]["port"] != admin["spec"]["ports"][0]["name"]
        {
            wrong.push("the ServiceMonitor does not see the admin Service alone".into());
        }
    }
    wrong
}

/// What the configuration and the manifest say of the same thing.
fn configured(config: &Config, pod: &Value, container: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let (counters, admin) = (config.counters, config.admin);
    if !counters.ip().is_unspecified() || !admin.ip().is_unspecified() {
        wrong.push("a listener is on loopback, where neither counters nor the kubelet reach it".to_owned());
    }
    let ports: Vec<&Value> = list(&container["ports"]).iter().map(|port| &port["containerPort"]).collect();
    if ports != [&json!(counters.port()), &json!(admin.port())] {
        wrong.push(format!("the container's ports are {ports:?}"));
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let asked = &container[probe]["grpc"];
        // Readiness follows the store; whether the process lives does not: it is not restarted because Redis is away.
        let service = (probe == "readinessProbe").then_some(PURCHASE_SERVICE);
        if asked["port"] != admin.port() || asked["service"].as_str() != service {
            wrong.push(format!("{probe} asks {asked}: liveness asks for nothing, readiness for {PURCHASE_SERVICE}"));
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
fn mounted<'a>(pod: &'a Value, container: &'a Value) -> BTreeMap<PathBuf, (&'a str, &'a Value)> {
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

/// Keys and certificates are mounted where they are looked for, none of them a copy, for the pod's group alone; and a ledger of its
/// own has its volume.
fn kept(config: &Config, pod: &Value, container: &Value, deployment: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(tls) = &config.tls else { return vec!["no certificates".into()] };
    let files = mounted(pod, container);
    let own = [(&tls.certificate, "rationd-tls"), (&tls.key, "rationd-tls"), (&config.keys, "rationd-keys")];
    let believed = [(&tls.client_ca, "rationd-client-ca")];
    let revoked = tls.revoked.iter().map(|file| (file, "rationd-revoked"));
    for (file, of) in own.into_iter().chain(believed).chain(revoked) {
        let found = files.get(file);
        if !found.is_some_and(|(name, mode)| *name == of && **mode == 0o440) {
            wrong.push(format!("{} is not {of} itself with mode 0440: {found:?}", file.display()));
        }
    }
    if pod["securityContext"]["fsGroup"].as_u64().is_none_or(|group| group == 0) {
        wrong.push("no group of the pod's own may read keys and certificates".into());
    }
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
fn rolled(rendered: &Rendered, deployment: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let (strategy, scaler) = (&deployment["spec"]["strategy"], rendered.find("HorizontalPodAutoscaler", "rationd"));
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
