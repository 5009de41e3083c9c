//! The replicated store as the manifests start it: the very scripts and settings of the ConfigMaps, run as pods would run them. A
//! pod is a process here, its volume a folder, its address one of loopback, and names are found in a file (by `names.c`) that is
//! written anew whenever a pod comes back under another address.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::rendered::{Rendered, list, pod, text};
use crate::service::{Ran, Service, run, signal};
use crate::support::{preload, redis::free_port};

/// How long anything may take on a busy machine. Sentinels learn of replicas every ten seconds, and one that was not run for two
/// seconds trusts no clock, and does nothing, for thirty.
const PATIENCE: Duration = Duration::from_secs(150);
/// A Saturday, when everybody may buy.
const SATURDAY: &str = "2020-06-20T09:00:00+09:00";

/// A set of pods: its name, where its container's configuration is, what starts it.
struct Set {
    name: String,
    config: PathBuf,
    script: String,
}

impl Set {
    /// What the manifests say of this one.
    fn of(rendered: &Rendered, name: &str, at: &Path) -> Self {
        let config = at.join(name);
        fs::create_dir(&config).unwrap();
        let container = &pod(rendered.the("StatefulSet", name))["containers"][0];
        let map = rendered.all("ConfigMap").find(|it| {
            it["metadata"]["name"] == pod(rendered.the("StatefulSet", name))["volumes"][0]["configMap"]["name"]
        });
        for (file, content) in map.unwrap()["data"].as_object().unwrap() {
            fs::write(config.join(file), text(content)).unwrap();
        }
        let command = list(&container["command"]);
        assert_eq!(command[0], "sh");
        Self { name: name.to_owned(), config, script: text(&command[1]).rsplit('/').next().unwrap().to_owned() }
    }
}

/// Six pods that come and go.
struct Pods {
    at: TempDir,
    preloaded: PathBuf,
    sets: [Set; 2],
    ports: [u16; 2],
    /// The last part of each pod's address, by set and number; each start has another.
    addresses: [[u8; 3]; 2],
    next: u8,
    running: [[Option<Child>; 3]; 2],
}

const SERVERS: usize = 0;
const SENTINELS: usize = 1;

impl Pods {
    fn new(rendered: &Rendered) -> Self {
        let at = tempfile::tempdir().unwrap();
        let sets = ["rationd-redis", "rationd-sentinel"].map(|name| Set::of(rendered, name, at.path()));
        let ports = [free_port(), free_port()];
        let preloaded = preload::build(at.path(), include_str!("names.c"));
        Self { at, preloaded, sets, ports, addresses: [[0; 3]; 2], next: 1, running: Default::default() }
    }

    fn address(&self, set: usize, nth: usize) -> String {
        // A net of its own for each run of these tests.
        let run = std::process::id();
        format!("127.{}.{}.{}", 64 + run % 128, run / 128 % 256, self.addresses[set][nth])
    }

    /// The variables by which the pods differ from those in a cluster.
    fn variables(&self, set: usize, nth: usize) -> Vec<(&'static str, String)> {
        let folder = |path: PathBuf| path.to_str().unwrap().to_owned();
        vec![
            ("POD", format!("{}-{nth}", self.sets[set].name)),
            ("CONFIG", folder(self.sets[set].config.clone())),
            ("DATA", folder(self.data(set, nth))),
            ("LISTEN", self.address(set, nth)),
            ("PORT", self.ports[SERVERS].to_string()),
            ("SENTINEL_PORT", self.ports[SENTINELS].to_string()),
            ("LD_PRELOAD", folder(self.preloaded.clone())),
            ("NAMES", folder(self.names())),
        ]
    }

    fn names(&self) -> PathBuf {
        self.at.path().join("names")
    }

    fn data(&self, set: usize, nth: usize) -> PathBuf {
        self.at.path().join(format!("{}-{nth}", self.sets[set].name))
    }

    fn log(&self, set: usize, nth: usize) -> String {
        fs::read_to_string(self.data(set, nth).with_extension("log")).unwrap_or_default()
    }

    /// Starts a pod under an address that no pod had before.
    fn start(&mut self, set: usize, nth: usize) {
        self.addresses[set][nth] = self.next;
        self.next += 1;
        let pods = [SERVERS, SENTINELS].iter().flat_map(|&set| (0..3).map(move |nth| (set, nth)));
        let lines = pods.filter(|&(set, nth)| self.addresses[set][nth] > 0).map(|(set, nth)| {
            let name = &self.sets[set].name;
            format!("{} {name}-{nth}.{name}\n", self.address(set, nth))
        });
        // Replaced and not rewritten: somebody may be reading it.
        let (written, names) = (self.at.path().join("names.new"), self.names());
        fs::write(&written, lines.collect::<String>()).unwrap();
        fs::rename(written, names).unwrap();
        let data = self.data(set, nth);
        fs::create_dir_all(&data).unwrap();
        let log = fs::File::options().create(true).append(true).open(data.with_extension("log")).unwrap();
        let mut command = Command::new("sh");
        command.arg(self.sets[set].config.join(&self.sets[set].script)).envs(self.variables(set, nth));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running[set][nth] = Some(child);
    }

    fn start_all(&mut self) {
        // Servers first: they have to wait.
        for set in [SERVERS, SENTINELS] {
            (0..3).for_each(|nth| self.start(set, nth));
        }
    }

    /// SIGKILL. `exec` has made the script the server.
    fn kill(&mut self, set: usize, nth: usize) {
        if let Some(mut child) = self.running[set][nth].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What the kubelet does: the hook before the stop, SIGTERM, and the end.
    fn stop(&mut self, nth: usize) {
        let handed = self.script(nth, "hand-over.sh");
        assert_eq!(handed.code, 0, "{handed:?}");
        let mut child = self.running[SERVERS][nth].take().unwrap();
        signal(child.id(), "TERM");
        child.wait().unwrap();
    }

    /// A script of the servers, in this one's place.
    fn script(&self, nth: usize, name: &str) -> Ran {
        let mut command = Command::new("sh");
        command.arg(self.sets[SERVERS].config.join(name)).envs(self.variables(SERVERS, nth));
        run(command, self.at.path(), "")
    }

    /// What redis-cli prints.
    fn ask(&self, set: usize, nth: usize, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-h", &self.address(set, nth), "-p", &self.ports[set].to_string()]).args(words);
        run(command, self.at.path(), "").out
    }

    /// Who is the primary for every Sentinel that answers, if they agree.
    fn primary(&self) -> Option<usize> {
        let named: Vec<String> = (0..3)
            .map(|nth| self.ask(SENTINELS, nth, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "store"]))
            .filter_map(|said| said.lines().next().map(str::to_owned))
            .collect();
        let all_say = |nth: &usize| named.iter().all(|it| *it == format!("rationd-redis-{nth}.rationd-redis"));
        (0..3).find(|nth| named.len() >= 2 && all_say(nth))
    }

    /// Whether all is as it should be, by what everybody says of everybody: names and never addresses.
    fn is_whole(&self) -> bool {
        let Some(primary) = self.primary() else { return false };
        let name = |nth: usize| format!("rationd-redis-{nth}.rationd-redis");
        let others: Vec<usize> = (0..3).filter(|nth| *nth != primary).collect();
        let said = self.ask(SERVERS, primary, &["INFO", "replication"]);
        let attached = others.iter().all(|nth| said.contains(&format!("ip={},", name(*nth))));
        let following = others.iter().all(|nth| {
            let said = self.ask(SERVERS, *nth, &["INFO", "replication"]);
            said.contains(&format!("master_host:{}", name(primary))) && said.contains("master_link_status:up")
        });
        let known = (0..3).all(|nth| {
            let said = self.ask(SENTINELS, nth, &["SENTINEL", "REPLICAS", "store"]);
            let said: Vec<&str> = said.lines().collect();
            let fields = |field: &'static str| said.chunks(2).filter(move |it| it[0] == field).map(|it| it[1]);
            let mut names: Vec<&str> = fields("ip").collect();
            names.sort_unstable();
            names == others.iter().map(|it| name(*it)).collect::<Vec<_>>() && fields("flags").all(|it| it == "slave")
        });
        said.contains("role:master") && attached && following && known
    }

    /// Waits for it, and for every pod to be ready.
    fn whole(&self) {
        let begun = Instant::now();
        while !(self.is_whole() && (0..3).all(|nth| self.script(nth, "ready.sh").code == 0)) {
            assert!(begun.elapsed() < PATIENCE, "{:?} is the primary; {}", self.primary(), self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// How often servers were started as the primary.
    fn begun_as_primary(&self) -> usize {
        (0..3).map(|nth| self.log(SERVERS, nth).matches("starts as the primary").count()).sum()
    }

    fn logs(&self) -> String {
        let end = |log: String| log.lines().rev().take(12).map(|line| format!("{line}\n")).collect::<String>();
        [SERVERS, SENTINELS]
            .iter()
            .flat_map(|&set| (0..3).map(move |nth| (set, nth)))
            .map(|(set, nth)| format!("{}-{nth}, last first:\n{}", self.sets[set].name, end(self.log(set, nth))))
            .collect()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for set in [SERVERS, SENTINELS] {
            (0..3).for_each(|nth| self.kill(set, nth));
        }
    }
}

/// A service that finds the store by the URL of the manifests.
fn serve(pods: &Pods, rendered: &Rendered, at: &Path) -> Service {
    // A key file, as somebody would have made it who installs it.
    Service::start(at, &["--clock", SATURDAY], &[]).stop();
    let keys = at.join("rationd-data-simulated/keys.toml");
    let variables = list(&pod(rendered.the("Deployment", "rationd"))["containers"][0]["env"]);
    let store: &Value = &variables.iter().find(|it| it["name"] == "RATIOND_STORE").unwrap()["value"];
    let store = text(store).replace(":26379", &format!(":{}", pods.ports[SENTINELS]));
    let names = pods.names();
    let found = [("LD_PRELOAD", pods.preloaded.to_str().unwrap()), ("NAMES", names.to_str().unwrap())];
    Service::start(at, &["--clock", SATURDAY, "--store", &store, "--keys", keys.to_str().unwrap()], &found)
}

/// Sells one unit to somebody who has bought nothing, and insists; gives the id of the sale.
fn sell(service: &Service, nth: u32) -> (String, String) {
    let (number, id) =
        (format!("8103{:02}-1000{nth:02}0", nth % 28 + 1), format!("0198f3a2-5c1e-7b44-9d0a-3f6f1c2b{nth:04x}"));
    let words = ["sell", "--site", "11000001", "--quantity", "1", "--request-id", &id];
    let begun = Instant::now();
    loop {
        let ran = service.call(&words, &number);
        if ran.code == 0 {
            assert!(ran.out.contains("APPROVED"), "{ran:?}");
            return (number, id);
        }
        assert!(ran.code >= 3 && begun.elapsed() < PATIENCE, "{ran:?}\n{}", service.log());
    }
}

#[test]
fn the_store_of_the_manifests_sells_on_whatever_becomes_of_one_pod_and_comes_back_after_all() {
    let rendered = Rendered::of("national");
    let mut pods = Pods::new(&rendered);
    let at = tempfile::tempdir().unwrap();
    pods.start_all();
    let service = serve(&pods, &rendered, at.path());
    let mut sold = vec![sell(&service, 1)];
    pods.whole();
    assert_eq!((pods.primary(), pods.begun_as_primary()), (Some(0), 1), "the first pod begins, and no other");

    // The node of the primary is gone, disk and all, and the pod is back at once on another one: it has nothing, and what the
    // replicas have must not be overwritten with it.
    pods.kill(SERVERS, 0);
    fs::remove_dir_all(pods.data(SERVERS, 0)).unwrap();
    pods.start(SERVERS, 0);
    sold.push(sell(&service, 2));
    pods.whole();
    assert_eq!(pods.begun_as_primary(), 1, "a pod without data does not begin as the primary");
    assert!(pods.log(SERVERS, 0).contains("waiting until the Sentinels choose"), "{}", pods.log(SERVERS, 0));

    // An upgrade comes to the primary: it hands over, ends, and comes back as a replica. A Sentinel loses its disk meanwhile.
    let second = pods.primary().unwrap();
    assert_ne!(second, 0);
    pods.stop(second);
    assert_ne!(pods.primary(), Some(second), "it has handed over");
    sold.push(sell(&service, 3));
    pods.start(SERVERS, second);
    pods.kill(SENTINELS, 0);
    fs::remove_dir_all(pods.data(SENTINELS, 0)).unwrap();
    pods.start(SENTINELS, 0);
    pods.whole();
    assert_eq!(pods.begun_as_primary(), 1);

    // Everything is gone at once and comes back, every pod under another address; the replicas first.
    let third = pods.primary().unwrap();
    for set in [SERVERS, SENTINELS] {
        (0..3).for_each(|nth| pods.kill(set, nth));
    }
    for nth in (0..3).filter(|nth| *nth != third).chain([third]) {
        pods.start(SERVERS, nth);
        pods.start(SENTINELS, nth);
    }
    sold.push(sell(&service, 4));
    pods.whole();
    assert_eq!(
        (pods.primary(), pods.begun_as_primary()),
        (Some(third), 2),
        "who was the primary is it again, and no other"
    );

    for (number, id) in &sold {
        let ran = service.call(&["resolve", "--request-id", id], number);
        assert!(ran.code == 0 && ran.out.contains("APPROVED"), "{id}: {ran:?}");
    }
    println!("{} sales through {} starts of 6 pods, none lost", sold.len(), pods.next - 1);
    service.stop();
}

#[test]
fn nobody_begins_as_the_primary_on_its_own_word() {
    let rendered = Rendered::of("national");
    let mut pods = Pods::new(&rendered);
    // One Sentinel alone cannot know what the two others have decided.
    (0..3).for_each(|nth| pods.start(SERVERS, nth));
    pods.start(SENTINELS, 1);
    let begun = Instant::now();
    while !(0..3).all(|nth| pods.log(SERVERS, nth).matches("1 of 3 Sentinels answer").count() >= 3) {
        assert!(begun.elapsed() < PATIENCE, "{}", pods.logs());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(pods.begun_as_primary(), 0);
    assert!((0..3).all(|nth| pods.script(nth, "ready.sh").code != 0), "nor is it ready");
}
