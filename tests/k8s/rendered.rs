//! Overlays as kubectl renders them, and the few ways in which the checks look at what came out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::service::run;

/// The overlays that are shipped.
pub const OVERLAYS: [&str; 3] = ["development", "national", "single-machine"];

/// Turns a stream of YAML documents into a list.
const TO_JSON: &str =
    "import json, sys, yaml; json.dump(list(yaml.load_all(open(sys.argv[1]), yaml.CSafeLoader)), sys.stdout)";

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program that `tests/python/prepare` has installed, once it has.
pub fn tool(name: &str) -> PathBuf {
    static PREPARED: OnceLock<PathBuf> = OnceLock::new();
    let tools = PREPARED.get_or_init(|| {
        // target/debug/rationd
        let target = Path::new(env!("CARGO_BIN_EXE_rationd")).ancestors().nth(2).unwrap().to_owned();
        let mut prepare = Command::new(root().join("tests/python/prepare"));
        prepare.env("CARGO_TARGET_DIR", &target);
        let ready = run(prepare, root(), "");
        assert_eq!(ready.code, 0, "the tools cannot be had, and it is no test without them: {ready:?}");
        target.join("python-venv/bin")
    });
    tools.join(name)
}

/// The documents of a file of YAML.
pub fn documents(file: &Path) -> Vec<Value> {
    let mut python = Command::new(tool("python"));
    python.args(["-c", TO_JSON]).arg(file);
    let Value::Array(documents) = run(python, root(), "").json() else { panic!("{} holds no list", file.display()) };
    documents
}

/// A copy of `k8s/` to be changed.
pub fn copy() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(root().join("k8s")).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    copy
}

/// What an overlay comes to.
pub struct Rendered {
    pub objects: Vec<Value>,
    /// As kubectl wrote it.
    pub file: PathBuf,
    _scratch: TempDir,
}

impl Rendered {
    /// An overlay that is shipped.
    pub fn of(overlay: &str) -> Self {
        Self::at(&root().join("k8s/overlays").join(overlay))
    }

    /// The overlay in this folder.
    pub fn at(folder: &Path) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("rendered.yaml");
        let mut kubectl = Command::new(tool("kubectl"));
        kubectl.arg("kustomize").arg(folder).arg("-o").arg(&file);
        let rendered = run(kubectl, scratch.path(), "");
        assert_eq!(rendered.code, 0, "{}: {}", folder.display(), rendered.err);
        Self { objects: documents(&file), file, _scratch: scratch }
    }

    pub fn all<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The one with this name, if there is one.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.all(kind).find(|object| object["metadata"]["name"] == name)
    }

    pub fn the(&self, kind: &str, name: &str) -> &Value {
        self.find(kind, name).unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    /// Everything that makes pods.
    pub fn workloads(&self) -> impl Iterator<Item = &Value> {
        self.all("Deployment").chain(self.all("StatefulSet"))
    }

    /// A file of a ConfigMap whose name begins so: behind it stands a hash.
    pub fn configured<'a>(&'a self, map: &str, file: &str) -> Option<&'a str> {
        let map = self.all("ConfigMap").find(|it| text(&it["metadata"]["name"]).starts_with(map))?;
        map["data"][file].as_str()
    }
}

/// A text that must be there.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The elements of a list; none if it is not written.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A number that must be there.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The pod of a workload.
pub fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}

/// The containers of a workload's pod, those that run first included.
pub fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    list(&pod(workload)["initContainers"]).iter().chain(list(&pod(workload)["containers"]))
}

/// The labels of a workload's pods.
pub fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

/// Whether a selector (`matchLabels`, `matchExpressions` with `In`) chooses what has these labels.
pub fn chooses(selector: &Value, labels: &Value) -> bool {
    let named = selector["matchLabels"].as_object().into_iter().flatten().all(|(name, value)| labels[name] == *value);
    let among = list(&selector["matchExpressions"]).iter().all(|it| {
        assert_eq!(it["operator"], "In", "only `In` is understood here");
        list(&it["values"]).contains(&labels[text(&it["key"])])
    });
    named && among
}

/// How many pods of a workload there are at least.
pub fn replicas(rendered: &Rendered, workload: &Value) -> u64 {
    let name = &workload["metadata"]["name"];
    let scaler = rendered.all("HorizontalPodAutoscaler").find(|it| it["spec"]["scaleTargetRef"]["name"] == *name);
    scaler.map_or_else(|| number(&workload["spec"]["replicas"]), |it| number(&it["spec"]["minReplicas"]))
}

/// A quantity of memory or disk in bytes.
pub fn bytes(quantity: &str) -> u64 {
    let units = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)];
    let (digits, unit) =
        units.iter().find_map(|(suffix, unit)| Some((quantity.strip_suffix(suffix)?, *unit))).unwrap_or((quantity, 1));
    digits.parse::<u64>().unwrap_or_else(|_| panic!("{quantity} is no quantity")) * unit
}
