//! Data that was damaged, lost or exchanged behind the service's back: it refuses, says why, and goes on when the right data is back.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rationd::load::chance::Chance;

use super::kills::row;
use super::row::{Row, alone};
use super::scene::Scene;
use crate::support::proxy::Fault;

/// Where redis-server keeps what it appends.
const LOGS: &str = "appendonlydir";

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Nothing of what Redis writes from some moment on is answered; then it dies, and a part of that is gone.
#[test]
fn redis_log_cut_at_its_tail() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            let log = scene.server().log_file();
            // Until a moment is met in which Redis has yet to write what it was sent.
            let answered = loop {
                scene.back().strike(Fault::Mute);
                let answered = fs::metadata(&log).unwrap().len();
                tokio::time::sleep(Duration::from_millis(150)).await;
                if fs::metadata(&log).unwrap().len() > answered {
                    break answered;
                }
                scene.back().heal();
                scene.rush().await;
            };
            scene.server().kill();
            // What is held is not let go: nobody may be told of what is gone.
            scene.back().strike(Fault::Reset);
            let written = fs::metadata(&log).unwrap().len();
            let left = answered + chance.below(written - answered);
            OpenOptions::new().write(true).open(&log).unwrap().set_len(left).unwrap();
            scene.restart_redis();
            scene.back().heal();
        };
        row("log cut at its tail", "F15", "redis", 2, 300).play(&mut scene, strike).await;
    });
}

/// Redis itself refuses to start over such a file. Its operator has the whole file.
#[test]
fn redis_log_damaged_in_its_body() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, chance: &mut Chance| {
            scene.server().kill();
            let log = scene.server().log_file();
            let whole = fs::read(&log).unwrap();
            let somewhere = whole.len() / 4 + usize::try_from(chance.below(10_000)).unwrap();
            // From the head of a command on: the inside of a long value could be anything.
            let head = whole[somewhere..].windows(3).position(|three| three == b"\r\n*").unwrap();
            let at = u64::try_from(somewhere + head).unwrap();
            OpenOptions::new().write(true).open(&log).unwrap().write_all_at(&[b'x'; 300], at).unwrap();
            scene.server().launch();
            scene.until("Redis not to start over a damaged file", async |scene| scene.server().has_ended()).await;
            scene.serves_no_more().await;
            fs::write(&log, whole).unwrap();
            scene.restart_redis();
        };
        row("log damaged in its body", "F16", "redis", 1, 10).play(&mut scene, strike).await;
    });
}

/// Redis is killed and starts again with this in the place of what it has, which is kept or gone.
fn restored(scene: &mut Scene, with: &Path, kept: Option<&Path>) {
    let logs = scene.server().data().join(LOGS);
    scene.server().kill();
    match kept {
        Some(kept) => fs::rename(&logs, kept).unwrap(),
        None => fs::remove_dir_all(&logs).unwrap(),
    }
    fs::rename(with, &logs).unwrap();
    scene.restart_redis();
}

#[test]
fn redis_data_gone() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            scene.server().kill();
            let (logs, away) = (scene.server().data().join(LOGS), scene.server().data().join("away"));
            fs::rename(&logs, &away).unwrap();
            scene.restart_redis();
            scene.logged("bring the right data back").await;
            scene.serves_no_more().await;
            restored(scene, &away, None);
        };
        row("data gone", "F16", "redis", 1, 10).play(&mut scene, strike).await;
    });
}

#[test]
fn redis_an_old_backup() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let mut at = |name| scene.server().data().join(name);
            let (backup, away) = (at("backup"), at("away"));
            copy_folder(&at(LOGS), &backup);
            tokio::time::sleep(Duration::from_millis(700)).await;
            restored(scene, &backup, Some(&away));
            scene.logged("Redis is behind what was acknowledged").await;
            scene.serves_no_more().await;
            restored(scene, &away, None);
        };
        row("old backup", "F16", "redis", 1, 10).play(&mut scene, strike).await;
    });
}

/// The service that knew better is gone too.
#[test]
fn redis_an_old_backup_and_a_new_start() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            let mut at = |name| scene.server().data().join(name);
            let (backup, away) = (at("backup"), at("away"));
            copy_folder(&at(LOGS), &backup);
            // What is acknowledged is written down within a second.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            scene.kill_service();
            restored(scene, &backup, Some(&away));
            let ran = scene.refused();
            assert!(ran.code == 64 && ran.err.contains("Redis is behind what was acknowledged"), "{ran:?}");
            restored(scene, &away, None);
            scene.start_service();
        };
        row("old backup, new start", "F16", "redis", 1, 10).play(&mut scene, strike).await;
    });
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/redis_store.rs sets one at run time, without load"]
fn redis_weaker_settings_at_run_time() {
    alone(async {
        let mut scene = Scene::redis().await;
        let strike = async |scene: &mut Scene, _: &mut Chance| {
            scene.redis_cli(&["CONFIG", "SET", "appendfsync", "everysec"]);
            scene.serves_no_more().await;
            assert!(scene.service().log().contains("CONFIG SET appendfsync always"), "{}", scene.service().log());
            scene.redis_cli(&["CONFIG", "SET", "appendfsync", "always"]);
        };
        row("weaker settings set", "F50", "redis", 1, 10).play(&mut scene, strike).await;
    });
}

/// Spoils the file of a killed service so, sees it refused with these words, and puts the whole one back.
async fn file_refused(row: Row, words: &str, spoil: impl Fn(&Path, &mut Chance)) {
    let mut scene = Scene::embedded(&[]).await;
    let strike = async |scene: &mut Scene, chance: &mut Chance| {
        scene.kill_service();
        let file = scene.directory().join("data").join("ledger.redb");
        let whole = fs::read(&file).unwrap();
        spoil(&file, chance);
        let ran = scene.refused();
        assert!(ran.code == 64 && ran.err.contains(words), "{ran:?}");
        fs::write(&file, whole).unwrap();
        scene.start_service();
    };
    row.play(&mut scene, strike).await;
}

#[test]
fn embedded_damaged_page() {
    let spoil = |file: &Path, _: &mut Chance| {
        // A page somewhere may be one that nothing stands on; of a quarter of the file some are in use.
        let quarter = fs::metadata(file).unwrap().len() / 4;
        let damage = vec![b'x'; usize::try_from(quarter).unwrap()];
        OpenOptions::new().write(true).open(file).unwrap().write_all_at(&damage, quarter).unwrap();
    };
    alone(file_refused(row("damaged page", "F16", "embedded", 1, 10), "put a whole copy in its place", spoil));
}

#[test]
#[ignore = "tests/faults runs it; in CI tests/stores/files.rs has such a file refused, without load"]
fn embedded_newer_file() {
    let spoil = |file: &Path, _: &mut Chance| {
        let database = redb::Database::create(file).unwrap();
        let change = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, &str>::new("meta");
        change.open_table(meta).unwrap().insert("layout", "99").unwrap();
        change.commit().unwrap();
    };
    alone(file_refused(row("newer file", "F39", "embedded", 1, 10), "run the version that wrote it", spoil));
}
