//! The ledger's servers: what the service insists on, read from its own source, and names by which all find each other.

use serde_json::Value;

use super::rendered::{Rendered, bytes, list, number, pod, read, text};

pub fn wrongs(rendered: &Rendered) -> Vec<String> {
    let Some(servers) = rendered.find("StatefulSet", "rationd-redis") else { return Vec::new() };
    let conf = rendered.configured("rationd-redis-config", "redis.conf").unwrap();
    let mut wrong = Vec::new();
    for needed in insisted("REQUIRED") {
        if !has(conf, &needed) {
            wrong.push(format!("redis.conf lacks `{needed}`"));
        }
    }
    let memory = setting(conf, "maxmemory").and_then(|it| it.strip_suffix("gb")?.parse::<u64>().ok()).unwrap();
    let limit = bytes(text(&pod(servers)["containers"][0]["resources"]["limits"]["memory"]));
    if memory * (1 << 30) * 2 > limit {
        wrong.push("maxmemory is more than half of the container's memory: a rewrite of the file forks".into());
    }
    if let Some(sentinels) = rendered.find("StatefulSet", "rationd-sentinel") {
        wrong.extend(replicated(rendered, servers, sentinels, conf));
    }
    wrong
}

fn replicated(rendered: &Rendered, servers: &Value, sentinels: &Value, conf: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for needed in insisted("GUARDS").chain(["repl-diskless-sync-delay 0".to_owned()]) {
        if !has(conf, &needed) {
            wrong.push(format!("redis.conf lacks `{needed}`"));
        }
    }
    let watching = rendered.configured("rationd-sentinel-config", "sentinel.conf").unwrap();
    // An address is another one whenever a pod is, and servers that are named in two ways are taken for two.
    for needed in ["sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"] {
        if !has(watching, needed) {
            wrong.push(format!("sentinel.conf lacks `{needed}`"));
        }
    }
    for set in [servers, sentinels] {
        let name = text(&set["metadata"]["name"]);
        if set["spec"]["replicas"] != 3 {
            wrong.push(format!("{name}: the scripts and the promise are for three"));
        }
        if set["spec"]["podManagementPolicy"] != "Parallel" {
            wrong.push(format!("{name}: after all were gone the first waits for the others"));
        }
        let required = &pod(set)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        if !list(required).iter().any(|it| it["topologyKey"] == "kubernetes.io/hostname") {
            wrong.push(format!("{name}: two may be lost with one node"));
        }
        let service = rendered.the("Service", text(&set["spec"]["serviceName"]));
        if service["spec"]["clusterIP"] != "None" || service["spec"]["publishNotReadyAddresses"] != true {
            wrong.push(format!("{name}: a pod that is not ready has no name, and cannot become so"));
        }
        let claim = &set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"];
        let mounts = list(&pod(set)["containers"][0]["volumeMounts"]);
        if !mounts.iter().any(|it| it["name"] == *claim && it["mountPath"] == "/data") {
            wrong.push(format!("{name}: what is in /data does not outlive the pod"));
        }
    }
    // hand-over.sh waits for up to 10 s, the server for its replicas for up to 10 s more (shutdown-timeout).
    if pod(servers)["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1] != "/etc/redis/hand-over.sh"
        || number(&pod(servers)["terminationGracePeriodSeconds"]) < 30
    {
        wrong.push("a primary that is stopped has no time to hand over".into());
    }
    let variables = list(&pod(rendered.the("Deployment", "rationd"))["containers"][0]["env"]);
    let url = text(&variables.iter().find(|it| it["name"] == "RATIOND_STORE").unwrap()["value"]);
    let names: Vec<String> = (0..3).map(|n| format!("rationd-sentinel-{n}.rationd-sentinel:26379")).collect();
    if url != format!("redis+sentinel://{}/store", names.join(",")) {
        wrong.push(format!("{url} does not have the names of the Sentinels"));
    }
    wrong
}

/// The settings of a table of `settings.rs` as redis.conf has them: `("appendonly", "yes")`, `("min-replicas-max-lag", 1, MOST_LAG)`.
fn insisted(table: &str) -> impl Iterator<Item = String> {
    let source = read("src/ledger/redis/settings.rs");
    let most_lag = source.split("const MOST_LAG: u32 = ").nth(1).and_then(|it| it.split(';').next()).unwrap();
    let start = source.find(&format!("const {table}: ")).unwrap();
    let table = source[start..].split_once(" = [").unwrap().1.split("];").next().unwrap().to_owned();
    let rows: Vec<String> = table
        .split('(')
        .skip(1)
        .map(|row| {
            let words: Vec<&str> = row.split(')').next().unwrap().split(", ").map(|it| it.trim_matches('"')).collect();
            // Of a range the strictest that is needed: the least replicas, the most lag.
            let value = if words.last() == Some(&"MOST_LAG") { most_lag } else { words[1] };
            format!("{} {value}", words[0])
        })
        .collect();
    assert!(rows.len() > 1, "{table}");
    rows.into_iter()
}

fn has(conf: &str, line: &str) -> bool {
    conf.lines().any(|it| it == line)
}

fn setting<'a>(conf: &'a str, name: &str) -> Option<&'a str> {
    conf.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}
