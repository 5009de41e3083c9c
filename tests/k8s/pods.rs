//! What holds for every pod: it can do little, it wants what there is, and it is not alone.

use serde_json::{Value, json};

use super::rendered::{Rendered, bytes, chooses, containers, labels, list, pod, replicas, text};

pub fn wrongs(rendered: &Rendered) -> Vec<String> {
    let mut wrong = Vec::new();
    for workload in rendered.workloads() {
        let name = text(&workload["metadata"]["name"]);
        let mut say = |what: String| wrong.push(format!("{name}: {what}"));
        let (pod, labels) = (pod(workload), labels(workload));
        confined(pod).for_each(&mut say);
        for container in containers(workload) {
            bounded(container).for_each(&mut say);
            open(container).for_each(&mut say);
        }
        if !chooses(&workload["spec"]["selector"], labels) {
            say("its selector does not choose its pods".into());
        }
        absent(rendered, pod).for_each(&mut say);
        if replicas(rendered, workload) > 1 {
            apart(rendered, pod, labels).into_iter().for_each(&mut say);
        }
    }
    if rendered.all("Secret").count() > 0 {
        wrong.push("a secret stands in the manifests".into());
    }
    for scaler in rendered.all("HorizontalPodAutoscaler") {
        let of = text(&scaler["spec"]["scaleTargetRef"]["name"]);
        if rendered.find("Deployment", of).is_none() {
            wrong.push(format!("the autoscaler of {of} scales nothing"));
        }
    }
    wrong
}

/// What the pod as a whole may do.
fn confined(pod: &Value) -> impl Iterator<Item = String> {
    let context = &pod["securityContext"];
    let nobody = context["runAsNonRoot"] == true && context["runAsUser"].as_u64().is_some_and(|user| user > 0);
    [
        (!nobody, "it may run as root"),
        (context["seccompProfile"]["type"] != "RuntimeDefault", "it has no seccomp profile"),
        (pod["automountServiceAccountToken"] != false, "it holds a token of the cluster"),
        (pod["enableServiceLinks"] != false, "Services of others become its variables"),
    ]
    .into_iter()
    .filter(|(is, _)| *is)
    .map(|(_, what)| what.to_owned())
}

/// What a container may do and take.
fn bounded(container: &Value) -> impl Iterator<Item = String> {
    let (context, resources, image) =
        (&container["securityContext"], &container["resources"], text(&container["image"]));
    let memory = resources["limits"]["memory"].as_str().map(bytes);
    [
        (context["allowPrivilegeEscalation"] != false, "it may gain rights"),
        (context["readOnlyRootFilesystem"] != true, "it has a writable root"),
        (context["capabilities"]["drop"] != json!(["ALL"]), "it keeps capabilities"),
        (resources["requests"]["cpu"].is_null(), "it asks for no CPU time"),
        (memory.is_none() || memory < resources["requests"]["memory"].as_str().map(bytes), "its memory is not bounded"),
        (!image.contains(':') || image.ends_with(":latest"), "its image has no version"),
    ]
    .into_iter()
    .filter(|(is, _)| *is)
    .map(|(_, what)| what.to_owned())
}

/// What anybody may read who may look at pods.
fn open(container: &Value) -> impl Iterator<Item = String> {
    let variables = list(&container["env"]).iter().filter(|it| {
        let from = &it["valueFrom"];
        let value = it["value"].as_str().unwrap_or_default();
        !(from.is_null() || from.get("fieldRef").is_some()) || value.contains('@')
    });
    let whole = list(&container["envFrom"]).iter();
    variables.chain(whole).map(|it| format!("a secret in a variable: {}", it["name"]))
}

/// ConfigMaps that it wants and that nobody makes, and accounts of volumes that do not add up.
fn absent(rendered: &Rendered, pod: &Value) -> impl Iterator<Item = String> {
    list(&pod["volumes"]).iter().filter_map(|volume| {
        let together = list(&volume["projected"]["sources"]).iter().map(|it| &it["configMap"]);
        let mut maps = together.chain([&volume["configMap"]]).filter(|it| it["optional"] != true);
        let claim = &volume["persistentVolumeClaim"]["claimName"];
        let missing = |kind: &str, name: &Value| name.as_str().is_some_and(|it| rendered.find(kind, it).is_none());
        (maps.any(|it| missing("ConfigMap", &it["name"])) || missing("PersistentVolumeClaim", claim))
            .then(|| format!("nobody makes what its volume {} holds", volume["name"]))
    })
}

/// Where there are several: they are spread, and at most one of them is taken away at a time.
fn apart(rendered: &Rendered, pod: &Value, labels: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let spread = list(&pod["topologySpreadConstraints"]);
    if !spread.iter().any(|it| chooses(&it["labelSelector"], labels)) {
        wrong.push("its pods are not spread".into());
    }
    let budgets: Vec<&Value> =
        rendered.all("PodDisruptionBudget").filter(|it| chooses(&it["spec"]["selector"], labels)).collect();
    if !matches!(budgets[..], [budget] if budget["spec"]["maxUnavailable"] == 1) {
        wrong.push("its disruption budget lets more than one go".into());
    }
    wrong
}
