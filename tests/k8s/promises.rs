//! Every overlay keeps every promise; and each promise, broken by a slip in a file, is seen to be broken.

use std::fs;
use std::process::Command;

use super::rendered::{OVERLAYS, Rendered, copy, list, read, root, text, tool};
use super::{counters, feed, network, pods, services, store};
use crate::service::run;

/// Everything that is wrong with what an overlay comes to.
fn wrongs(rendered: &Rendered) -> Vec<String> {
    let mut wrong = pods::wrongs(rendered);
    wrong.extend(services::wrongs(rendered));
    wrong.extend(counters::wrongs(rendered));
    wrong.extend(feed::wrongs(rendered));
    wrong.extend(network::wrongs(rendered));
    wrong.extend(store::wrongs(rendered));
    wrong
}

/// What the schemas of Kubernetes say against it; they know nothing about the operator's kinds.
fn invalid(rendered: &Rendered) -> String {
    let mut validate = Command::new(tool("kubernetes-validate"));
    validate.args(["--strict", "--no-warn", "--quiet"]).arg(&rendered.file);
    let ran = run(validate, root(), "");
    if ran.code == 0 { String::new() } else { format!("{}{}", ran.out, ran.err) }
}

#[test]
fn every_overlay_is_valid_and_keeps_every_promise() {
    for overlay in OVERLAYS {
        let rendered = Rendered::of(overlay);
        assert_eq!(invalid(&rendered), "", "{overlay}");
        assert_eq!(wrongs(&rendered), Vec::<String>::new(), "{overlay}");
        println!("{overlay}: {} objects, valid", rendered.objects.len());
    }
}

#[test]
fn whoever_runs_a_redis_of_their_own_gives_its_url_in_a_secret() {
    let copy = copy();
    let ours = copy.path().join("k8s/overlays/ours");
    fs::create_dir(&ours).unwrap();
    let kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../base]\n\
                         components: [../../components/feed, ../../components/external-redis]\n";
    fs::write(ours.join("kustomization.yaml"), kustomization).unwrap();
    let rendered = Rendered::at(&ours);
    assert_eq!(invalid(&rendered), "");
    assert_eq!(wrongs(&rendered), Vec::<String>::new());
    for name in ["rationd", "rationd-feed"] {
        let config = &super::rendered::pod(rendered.the("Deployment", name))["volumes"][0];
        assert_eq!((&config["name"], &config["secret"]["secretName"]), (&"config".into(), &"rationd-config".into()));
    }
    assert_eq!(rendered.all("ConfigMap").count(), 0);
}

#[test]
fn whoever_takes_certificates_back_names_the_list_that_is_mounted() {
    let copy = copy();
    let ours = copy.path().join("k8s/overlays/ours");
    fs::create_dir(&ours).unwrap();
    // As the guide says it.
    let guide = read("k8s/README.md");
    let patch = guide.lines().map(str::trim).find(|line| line.contains("RATIOND_TLS__REVOKED, value:")).unwrap();
    let kustomization = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../national]\npatches:\n  \
         - target: {{kind: Deployment, name: rationd|rationd-feed}}\n    patch: |\n      - op: add\n        \
         path: /spec/template/spec/containers/0/env/-\n        {patch}\n"
    );
    fs::write(ours.join("kustomization.yaml"), kustomization).unwrap();
    let rendered = Rendered::at(&ours);
    assert_eq!((invalid(&rendered), wrongs(&rendered)), (String::new(), Vec::new()));
    for name in ["rationd", "rationd-feed"] {
        let variables = &super::rendered::pod(rendered.the("Deployment", name))["containers"][0]["env"];
        assert!(variables.to_string().contains("/revoked.pem"), "{variables}");
    }
}

#[test]
fn the_ingress_of_the_guide_leads_to_the_feed() {
    let copy = copy();
    let ours = copy.path().join("k8s/overlays/ours");
    fs::create_dir(&ours).unwrap();
    let guide = read("k8s/README.md");
    let ingress = guide.split("```yaml\n").find(|it| it.contains("\nkind: Ingress\n")).unwrap();
    fs::write(ours.join("ingress.yaml"), ingress.split("```").next().unwrap()).unwrap();
    let kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: rationd\n\
                         resources: [../national, ingress.yaml]\n";
    fs::write(ours.join("kustomization.yaml"), kustomization).unwrap();
    let rendered = Rendered::at(&ours);
    assert_eq!((invalid(&rendered), wrongs(&rendered)), (String::new(), Vec::new()));
    let path = &rendered.the("Ingress", "rationd-feed")["spec"]["rules"][0]["http"]["paths"][0];
    let service = rendered.the("Service", text(&path["backend"]["service"]["name"]));
    let port =
        list(&service["spec"]["ports"]).iter().find(|it| it["name"] == path["backend"]["service"]["port"]["name"]);
    let port = port.expect("a port of that Service");
    assert_eq!((&port["targetPort"], &port["appProtocol"]), (&"feed".into(), &"http".into()));
}

/// A slip: the overlay in which it shows, the file, what stands there, what stands there instead, and a part of what is said.
type Slip = (&'static str, &'static str, &'static str, &'static str, &'static str);

const SLIPS: [Slip; 67] = [
    ("national", "base/deployment.yaml", "GracePeriodSeconds: 30", "GracePeriodSeconds: 15", "do not fit"),
    ("national", "base/rationd.toml", "drain_seconds = 10", "drain_seconds = 26", "do not fit"),
    ("national", "base/rationd.toml", "\"0.0.0.0:7421\"", "\"127.0.0.1:7421\"", "loopback"),
    ("national", "base/rationd.toml", "[counters]", "[counter]", "counter"),
    (
        "national",
        "base/deployment.yaml",
        "service: rationd.v1.PurchaseService",
        "service: rationd.v1.Purchases",
        "readiness",
    ),
    (
        "national",
        "base/deployment.yaml",
        "periodSeconds: 10",
        "periodSeconds: 10\n            initialDelay: 1",
        "initialDelay",
    ),
    (
        "national",
        "base/deployment.yaml",
        "grpc:\n              port: 7421\n            periodSeconds: 10",
        "grpc:\n              port: 7421\n              service: rationd.v1.PurchaseService\n            periodSeconds: 10",
        "liveness",
    ),
    ("national", "base/deployment.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "root"),
    (
        "national",
        "base/deployment.yaml",
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        "writable root",
    ),
    ("national", "components/sentinel/redis.yaml", "type: RuntimeDefault", "type: Unconfined", "seccomp"),
    ("national", "base/deployment.yaml", "fsGroup: 65532", "fsGroup: 0", "no group"),
    (
        "national",
        "base/deployment.yaml",
        "projected:\n            defaultMode: 288",
        "projected:\n            defaultMode: 292",
        "tls.key is not rationd-tls itself with mode 0440",
    ),
    (
        "national",
        "base/deployment.yaml",
        "mountPath: /run/rationd/tls",
        "mountPath: /run/rationd/keys",
        "ca.crt is not rationd-client-ca",
    ),
    (
        "national",
        "base/deployment.yaml",
        "mountPath: /run/rationd/ring",
        "mountPath: /run/rationd/ring/keys.toml\n              subPath: keys.toml",
        "keys.toml is not rationd-keys",
    ),
    (
        "national",
        "base/rationd.toml",
        "ca.crt\"",
        "ca.crt\"\nrevoked = \"/run/rationd/tls/ca.crl\"",
        "ca.crl is not rationd-revoked",
    ),
    (
        "national",
        "base/deployment.yaml",
        "name: rationd-revoked\n                  optional: true",
        "name: rationd-revoked",
        "nobody makes",
    ),
    (
        "national",
        "base/deployment.yaml",
        "value: k8s.pod.name=$(POD_NAME)",
        "valueFrom: {secretKeyRef: {name: rationd-keys, key: keys.toml}}",
        "a secret in a variable",
    ),
    (
        "national",
        "components/sentinel/kustomization.yaml",
        "redis+sentinel://",
        "redis+sentinel://:pw@",
        "a secret in a variable",
    ),
    ("national", "base/disruption-budget.yaml", "maxUnavailable: 1", "maxUnavailable: 2", "budget"),
    ("national", "base/deployment.yaml", "maxUnavailable: 0", "maxUnavailable: 1", "fewer instances"),
    (
        "national",
        "base/network-policies.yaml",
        "kubernetes.io/metadata.name: monitoring\n      ports:\n        - port: admin",
        "team: shop\n      ports:\n        - port: admin",
        "admin",
    ),
    (
        "national",
        "base/network-policies.yaml",
        "        - port: grpc\n",
        "        - port: grpc\n        - port: 7421\n",
        "admin",
    ),
    (
        "national",
        "base/network-policies.yaml",
        "podSelector: {}\n  policyTypes: [Ingress, Egress]",
        "podSelector: {}\n  policyTypes: [Ingress]",
        "everything else",
    ),
    (
        "national",
        "base/service.yaml",
        "  ports:\n    - name: grpc",
        "  ports:\n    - {name: admin, port: 7421, targetPort: admin}\n    - name: grpc",
        "admin",
    ),
    ("national", "components/sentinel/network-policies.yaml", "- port: sentinel", "- port: redis", "26379"),
    (
        "national",
        "components/sentinel/network-policies.yaml",
        "ingress:\n    - from:\n        - podSelector:",
        "ingress:\n    - from:\n        - namespaceSelector: {}\n          podSelector:",
        "from elsewhere",
    ),
    ("national", "components/sentinel/redis.conf", "appendfsync always", "appendfsync everysec", "appendfsync"),
    (
        "national",
        "components/sentinel/redis.conf",
        "min-replicas-max-lag 2",
        "min-replicas-max-lag 10",
        "min-replicas-max-lag",
    ),
    ("national", "components/sentinel/redis.conf", "maxmemory 12gb", "maxmemory 20gb", "half"),
    ("national", "components/sentinel/redis.conf", "repl-diskless-sync-delay 0", "", "repl-diskless-sync-delay"),
    (
        "national",
        "components/sentinel/sentinel.conf",
        "announce-hostnames yes",
        "announce-hostnames no",
        "announce-hostnames",
    ),
    (
        "national",
        "components/sentinel/redis.yaml",
        "topologyKey: kubernetes.io/hostname",
        "topologyKey: example.com/rack",
        "one node",
    ),
    (
        "national",
        "components/sentinel/redis.yaml",
        "publishNotReadyAddresses: true",
        "publishNotReadyAddresses: false",
        "not ready",
    ),
    (
        "national",
        "components/sentinel/redis.yaml",
        "terminationGracePeriodSeconds: 60",
        "terminationGracePeriodSeconds: 20",
        "hand over",
    ),
    ("national", "components/sentinel/kustomization.yaml", "rationd-sentinel-2.", "rationd-sentinel-3.", "names"),
    ("national", "components/sentinel/sentinel.yaml", "replicas: 3", "replicas: 2", "three"),
    (
        "national",
        "components/autoscaling/kustomization.yaml",
        "op: remove\n        path: /spec/replicas",
        "op: replace\n        path: /spec/replicas\n        value: 3",
        "autoscaler",
    ),
    (
        "national",
        "components/monitoring/service-monitor.yaml",
        "component: admin",
        "component: metrics",
        "ServiceMonitor",
    ),
    ("development", "components/redis/redis.conf", "appendonly yes", "appendonly no", "appendonly"),
    (
        "development",
        "base/deployment.yaml",
        "mountPath: /run/rationd/witness",
        "mountPath: /run/witness",
        "has forgotten",
    ),
    (
        "single-machine",
        "overlays/single-machine/kustomization.yaml",
        "{type: Recreate}",
        "{type: RollingUpdate}",
        "Recreate",
    ),
    (
        "single-machine",
        "overlays/single-machine/kustomization.yaml",
        "mountPath: /var/lib/rationd",
        "mountPath: /var/lib/ledger",
        "no volume",
    ),
    // The feed, in pods of its own.
    (
        "national",
        "components/feed/deployment.yaml",
        "value: feed",
        "value: \"counters,feed\"",
        "rationd-feed is counters,feed",
    ),
    (
        "national",
        "components/feed/kustomization.yaml",
        "value: counters}",
        "value: \"counters,feed\"}",
        "rationd is counters,feed",
    ),
    (
        "national",
        "components/feed/kustomization.yaml",
        "        path: /spec/template/spec/containers/0/ports/2\n  # Who",
        "        path: /spec/template/spec/containers/0/ports/1\n  # Who",
        "the ports of a pod that is counters",
    ),
    (
        "national",
        "components/feed/deployment.yaml",
        "service: rationd.v1.StockService",
        "service: rationd.v1.PurchaseService",
        "readiness",
    ),
    (
        "national",
        "components/feed/deployment.yaml",
        "- name: policies\n          configMap:",
        "- {name: ring, secret: {secretName: rationd-keys}}\n        - name: policies\n          configMap:",
        "the feed has the Secret rationd-keys",
    ),
    (
        "national",
        "components/feed/deployment.yaml",
        "name: rationd-feed-tls",
        "name: rationd-tls",
        "the feed has the Secret rationd-tls",
    ),
    (
        "national",
        "components/feed/deployment.yaml",
        "- name: policies\n          configMap:",
        "- {name: audit, emptyDir: {}}\n        - name: policies\n          configMap:",
        "the feed keeps something",
    ),
    (
        "national",
        "components/feed/deployment.yaml",
        "- name: RATIOND_ROLES",
        "- {name: RATIOND_SITES, value: /etc/rationd/sites/sites.csv}\n            - name: RATIOND_ROLES",
        "other sites",
    ),
    (
        "national",
        "components/feed/deployment.yaml",
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        "writable root",
    ),
    ("national", "components/feed/disruption-budget.yaml", "maxUnavailable: 1", "maxUnavailable: 2", "budget"),
    ("national", "components/feed/deployment.yaml", "image: rationd", "image: rationd-feed", "different image"),
    (
        "national",
        "components/sentinel/kustomization.yaml",
        "name: rationd|rationd-feed",
        "name: rationd",
        "unless a store is named",
    ),
    (
        "national",
        "components/sentinel/network-policies.yaml",
        "values: [rationd, rationd-feed, rationd-redis, rationd-sentinel]\n      ports:\n        - port: redis",
        "values: [rationd, rationd-redis, rationd-sentinel]\n      ports:\n        - port: redis",
        "rationd-feed cannot reach rationd-redis",
    ),
    (
        "national",
        "components/sentinel/network-policies.yaml",
        "values: [rationd, rationd-feed, rationd-redis, rationd-sentinel]\n  policyTypes: [Egress]",
        "values: [rationd, rationd-redis, rationd-sentinel]\n  policyTypes: [Egress]",
        "rationd-feed cannot reach rationd-sentinel",
    ),
    (
        "national",
        "components/feed/kustomization.yaml",
        "path: /spec/podSelector/matchLabels/app.kubernetes.io~1name\n        value: rationd-feed",
        "path: /spec/podSelector/matchLabels/app.kubernetes.io~1name\n        value: rationd",
        "anybody should reach the port feed",
    ),
    (
        "national",
        "components/feed/kustomization.yaml",
        "          from:\n            - namespaceSelector:\n                matchLabels:\n                  \
         kubernetes.io/metadata.name: monitoring\n          ports:",
        "          ports:",
        "the port admin is open",
    ),
    (
        "national",
        "components/feed/kustomization.yaml",
        "op: add\n        path: /spec/ingress/-",
        "op: add\n        path: /spec/egress\n        value: [{}]\n      - op: replace\n        path: /spec/policyTypes\n        \
         value: [Egress, Ingress]\n      - op: add\n        path: /spec/ingress/-",
        "further than to the store",
    ),
    (
        "national",
        "components/feed/kustomization.yaml",
        "path: /spec/selector/app.kubernetes.io~1name\n        value: rationd-feed",
        "path: /spec/selector/app.kubernetes.io~1name\n        value: rationd",
        "leads to \"feed\", which nobody has",
    ),
    (
        "national",
        "components/feed/service.yaml",
        "app.kubernetes.io/component: admin",
        "app.kubernetes.io/component: metrics",
        "leads to the admin listener",
    ),
    (
        "national",
        "components/monitoring/service-monitor.yaml",
        "values: [rationd, rationd-feed]",
        "values: [rationd]",
        "ServiceMonitor",
    ),
    (
        "national",
        "components/autoscaling/kustomization.yaml",
        "name: rationd|rationd-feed",
        "name: rationd",
        "autoscaler",
    ),
    ("national", "overlays/national/kustomization.yaml", "  - ../../components/feed\n", "", "scales nothing"),
    // And in the instances.
    ("single-machine", "base/rationd.toml", "\"0.0.0.0:7422\"", "\"127.0.0.1:7422\"", "loopback"),
    (
        "development",
        "base/deployment.yaml",
        "            - name: feed\n              containerPort: 7422\n",
        "",
        "the ports of a pod that is counters,feed",
    ),
    ("development", "base/network-policies.yaml", "- port: feed", "- port: 7423", "opens 7423"),
];

#[test]
fn a_slip_in_a_file_is_seen() {
    let mut unseen = Vec::new();
    for (overlay, file, from, to, said) in SLIPS {
        let copy = copy();
        let path = copy.path().join("k8s").join(file);
        let before = fs::read_to_string(&path).unwrap();
        let after = before.replacen(from, to, 1);
        assert_ne!(before, after, "{file} has no `{from}`");
        fs::write(path, after).unwrap();
        let rendered = Rendered::at(&copy.path().join("k8s/overlays").join(overlay));
        let mut seen = wrongs(&rendered);
        if seen.is_empty() {
            seen.push(invalid(&rendered));
        }
        if !seen.iter().any(|wrong| wrong.contains(said)) {
            unseen.push(format!("{file}: `{from}` → `{to}`: {seen:?}"));
        }
    }
    assert_eq!(unseen, Vec::<String>::new());
    println!("{} slips, each seen", SLIPS.len());
}
