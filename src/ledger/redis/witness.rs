//! The witness: a file in which an instance keeps how far it has seen the store get, for the process that is started next.
//!
//! A process knows by a number of its own (`unit`) whether the store has lost what was acknowledged, and forgets it when it ends. So about
//! once a second the newest number that was acknowledged is written down, for every shard, with the ledger's id. Before a new process records
//! anything it compares: a store that holds another ledger, or none, or in which such a number is lower, is refused until the right data
//! is back or somebody removes the file.
//!
//! Two things follow from how a store loses data, which is its newest part:
//!
//! - A process of which one unit was acknowledged is as good a witness as the one before it, whose number it needs no more.
//! - What was acknowledged after the last writing is not missed if nothing older is lost too.
//!
//! And processes that have the same file may write over each other: each has looked at the same ledger within a second.
//!
//! The file is whole or not there: it is written under another name, synced and renamed, by a thread of its own, so that nobody waits for a
//! slow disk. If it cannot be written the service says so and goes on, with the last one that could.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::ids::LedgerId;
use crate::museum::Mutant;
use crate::time::Clock;

use super::shards::Shard;
use super::standing::Behind;
use super::{RedisLedger, faults, keys};

/// How often it is written, if there is something new.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// How long a process that stops waits for the last writing.
const END_WITHIN: Duration = Duration::from_millis(500);

const KIND: &str = "rationd witness";
/// Counted up whenever what stands in the file changes its meaning.
const LAYOUT: u64 = 1;

/// Why a witness file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadWitness {
    /// The operating system does not let this process read it.
    #[error("{} cannot be read: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The operating system does not let this process write beside it.
    #[error("{} cannot be written: {source}; let this user write in its directory, or name another file with `witness`", file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// It was written by a later version of this program.
    #[error("{} has layout {found}, and this version understands layout {LAYOUT}; run the version that wrote it", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// The layout that stands in it.
        found: u64,
    },
    /// Something else stands there under that name, or it was altered.
    #[error(
        "{} is damaged, or is not a witness file of rationd ({why}): nobody can say whether the store has all that was acknowledged; \
         see that it has its newest data, and remove the file",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        why: String,
    },
}

/// The number of a process, and how far that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    process: String,
    acknowledged: u64,
}

/// What a process leaves to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    ledger: LedgerId,
    /// By the hashes in which the numbers stand, one of each shard.
    units: BTreeMap<String, Mark>,
}

/// The same as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    kind: String,
    layout: u64,
    ledger: String,
    units: BTreeMap<String, Mark>,
}

/// A witness file, and what it held when it was opened.
#[derive(Debug)]
pub struct Witness {
    file: PathBuf,
    found: Option<Remembered>,
    /// What it is called before it is whole. Processes may share a witness.
    unfinished: PathBuf,
    /// Held while it is written: whether the last word was.
    has_ended: Mutex<bool>,
}

impl Witness {
    /// Reads what an earlier process has left in this file, if there was one.
    pub fn read(file: &Path) -> Result<Self, BadWitness> {
        let found = match fs::read(file) {
            Ok(bytes) => Some(Remembered::parse(file, &bytes)?),
            Err(absent) if absent.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(BadWitness::Unreadable { file: file.to_owned(), source }),
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = file.with_file_name(format!(".{name}.{}.tmp", uuid::Uuid::new_v4()));
        Ok(Self { file: file.to_owned(), found, unfinished, has_ended: Mutex::default() })
    }

    /// The same for a process that is to go on with it, and so must be able to write the first one.
    pub fn open(file: &Path) -> Result<Self, BadWitness> {
        let witness = Self::read(file)?;
        if witness.found.is_none() {
            let tried = witness.begin().and_then(|_| fs::remove_file(&witness.unfinished));
            tried.map_err(|source| BadWitness::Unwritable { file: file.to_owned(), source })?;
        }
        Ok(witness)
    }

    /// An empty file beside it.
    fn begin(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.unfinished)
    }

    /// Writes it; nothing once the last word was written.
    fn write(&self, remembered: &Remembered, is_last: bool) -> io::Result<()> {
        let mut has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *has_ended || Mutant::WitnessNotKept.is_on() {
            return Ok(());
        }
        *has_ended = is_last;
        let mut file = self.begin()?;
        let written = file
            .write_all(remembered.to_string().as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&self.unfinished, &self.file));
        if written.is_err() {
            // Were it left, nothing would be written again.
            let _ = fs::remove_file(&self.unfinished);
        }
        written?;
        let directory = self.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// Writes what it is given until the other end is dropped.
    fn write_all(&self, given: &Receiver<Remembered>) {
        let (mut last, mut failed) = (self.found.clone(), false);
        for remembered in given {
            if last.as_ref() == Some(&remembered) {
                continue;
            }
            let (file, written) = (self.file.display(), self.write(&remembered, false));
            match &written {
                Ok(()) if failed => tracing::info!(%file, "the witness file is written again"),
                Err(error) if !failed => {
                    tracing::warn!(%file, %error, "the witness file cannot be written; sales go on, and a new start will know less");
                }
                _ => {}
            }
            failed = written.is_err();
            last = written.is_ok().then_some(remembered);
        }
    }

    /// What to do to go on with a store that is refused by it.
    pub(super) fn remove_it(&self) -> String {
        format!(
            "stop every instance, remove its witness file ({}) and start it",
            std::path::absolute(&self.file).as_deref().unwrap_or(&self.file).display()
        )
    }
}

impl Remembered {
    pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, BadWitness> {
        let damaged = |why: String| BadWitness::Damaged { file: file.to_owned(), why };
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if value.get("kind").and_then(|kind| kind.as_str()) != Some(KIND) {
            return Err(damaged("it does not say that it is one".into()));
        }
        match value.get("layout").and_then(serde_json::Value::as_u64) {
            Some(found) if found > LAYOUT => return Err(BadWitness::Newer { file: file.to_owned(), found }),
            _ => {}
        }
        let text: Text = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        let ledger = text.ledger.parse().map_err(|error: crate::ids::IdError| damaged(error.to_string()))?;
        Ok(Self { ledger, units: text.units })
    }
}

/// As it stands in the file.
impl fmt::Display for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, ledger) = (KIND.to_owned(), self.ledger.to_string());
        let text = Text { kind, layout: LAYOUT, ledger, units: self.units.clone() };
        let text = serde_json::to_string_pretty(&text).map_err(|_| fmt::Error)?;
        writeln!(f, "{text}")
    }
}

impl<C: Clock> RedisLedger<C> {
    /// The witness, where what is lost would be missed.
    pub(super) fn witness(&self) -> Option<&Arc<Witness>> {
        self.options.witness.as_ref().filter(|_| !self.options.allow_volatile)
    }

    /// The thread that writes the file, until what is given here is dropped.
    pub(super) fn scribe(&self) -> Option<SyncSender<Remembered>> {
        let Some(witness) = self.witness().cloned() else {
            if !self.options.allow_volatile {
                tracing::info!("there is no witness file: a new start cannot tell an old backup from the newest data");
            }
            return None;
        };
        let (give, given) = sync_channel(1);
        let begun = std::thread::Builder::new().name("witness".into()).spawn(move || witness.write_all(&given));
        begun.map_err(|error| tracing::warn!(%error, "nobody writes the witness file")).ok().map(|_| give)
    }

    /// Gives the thread what there is to write, again and again. It is given nothing while it is busy.
    pub(super) async fn testify(&self, scribe: Option<&SyncSender<Remembered>>) {
        let Some(scribe) = scribe else { return };
        loop {
            tokio::time::sleep(WRITE_EVERY).await;
            self.remembered().map(|remembered| scribe.try_send(remembered));
        }
    }

    /// Writes the witness a last time, after the last sale of a process that stops, if the disk lets it in time.
    pub async fn leave_witness(&self) {
        let Some((witness, remembered)) = self.witness().cloned().zip(self.remembered()) else { return };
        // A thread of its own: one of the runtime's would be waited for.
        let (tell, told) = oneshot::channel();
        let write = move || tell.send(witness.write(&remembered, true));
        let begun = std::thread::Builder::new().name("last witness".into()).spawn(write);
        let written = async { timeout(END_WITHIN, told).await.map_err(io::Error::from)?.map_err(io::Error::other)? };
        if let Err(error) = async { begun.map(drop).and(written.await) }.await {
            tracing::warn!(%error, "the witness file was not written at the end; the next start will know less");
        }
    }

    /// What there is to remember; nothing before anything was acknowledged.
    fn remembered(&self) -> Option<Remembered> {
        let (witness, ledger) = self.witness().zip(self.ledger.get())?;
        let mut units = witness.found.as_ref().map(|found| found.units.clone()).unwrap_or_default();
        for standing in self.shards().standings() {
            let (barrier, acknowledged) = (standing.barrier(), standing.acknowledged());
            if acknowledged > 0 {
                let mark = Mark { process: barrier.process.clone(), acknowledged };
                units.insert(String::from_utf8_lossy(&barrier.key).into_owned(), mark);
            }
        }
        (!units.is_empty()).then_some(Remembered { ledger: *ledger, units })
    }

    /// What to tell the operator if an earlier process has worked for another ledger than the one that stands under this key.
    pub(super) async fn other_than_witnessed(
        &self,
        connection: &mut MultiplexedConnection,
        key: &[u8],
    ) -> RedisResult<Option<String>> {
        let Some((witness, found)) = self.witness().and_then(|it| Some((it, it.found.as_ref()?))) else {
            return Ok(None);
        };
        let stands: Option<String> = redis::cmd("HGET").arg(key).arg("id").query_async(connection).await?;
        let (ours, stands) = (found.ledger.to_string(), stands.as_deref().unwrap_or("no ledger at all"));
        Ok((ours != stands).then(|| {
            format!(
                "{}: an earlier process of this instance worked for the ledger {ours}, and Redis now holds {stands}: bring the right data \
                 back, or name a witness file of its own for each ledger; to work for what is there, {}",
                String::from_utf8_lossy(key),
                witness.remove_it()
            )
        }))
    }

    /// What a shard has lost that an earlier process has seen acknowledged, and by which hash that shows. A process of which a unit was
    /// acknowledged has compared, and knows by itself.
    pub(super) async fn lost_by_witness(
        &self,
        shard: &Shard,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Option<(Vec<u8>, Behind)>> {
        let units = self.witness().and_then(|it| it.found.as_ref()).map(|found| &found.units);
        let Some(units) = units.filter(|_| shard.standing.acknowledged() == 0) else { return Ok(None) };
        let hashes = match shard.first {
            None => vec![keys::UNITS.as_bytes().to_vec()],
            Some(first) => self.shards().partitions(first).into_iter().map(keys::units_of).collect(),
        };
        for hash in hashes {
            let Some(Mark { process, acknowledged }) = units.get(&*String::from_utf8_lossy(&hash)) else { continue };
            let found = match redis::cmd("HGET").arg(&hash).arg(process).query_async::<Option<u64>>(connection).await {
                // Its slot is on its way to another shard, which compares it if it is new to it.
                Err(error) if faults::is_elsewhere(&error) => continue,
                found => found?.unwrap_or_default(),
            };
            if found < *acknowledged {
                return Ok(Some((hash, Behind { units: found, acknowledged: *acknowledged })));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(acknowledged: u64) -> Remembered {
        let mark = Mark { process: "0b5f".into(), acknowledged };
        Remembered { ledger: LedgerId::random(), units: [("rationd:units".to_owned(), mark)].into() }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("witness.json");
        let names = || fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect::<Vec<_>>();
        let witness = Witness::open(&file).unwrap();
        assert!(witness.found.is_none() && names().is_empty());
        for acknowledged in [7, u64::MAX] {
            let remembered = remembered(acknowledged);
            witness.write(&remembered, false).unwrap();
            assert_eq!(Witness::open(&file).unwrap().found, Some(remembered));
        }
        witness.write(&remembered(9), true).unwrap();
        let last = Witness::open(&file).unwrap().found;
        witness.write(&remembered(10), false).unwrap();
        assert_eq!(Witness::open(&file).unwrap().found, last, "nothing comes after the last word");
        assert_eq!(names(), ["witness.json"]);
    }

    #[test]
    fn whatever_else_stands_there_is_refused_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("witness.json");
        let whole = remembered(7).to_string();
        let refused = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            Witness::open(&file).unwrap_err().to_string()
        };
        for cut in 0..whole.trim_end().len() {
            let told = refused(&whole.as_bytes()[..cut]);
            assert!(told.contains("witness.json is damaged, or is not a witness file of rationd ("), "{told}");
            assert!(told.ends_with("see that it has its newest data, and remove the file"), "{told}");
        }
        for other in [
            whole.replace("rationd witness", "another"),
            whole.replace("\"acknowledged\"", "\"acknowledge\""),
            whole.replace("\"ledger\": \"", "\"ledger\": \"x"),
            whole.replace(": 7", ": -7"),
            whole.replace("\"layout\": 1", "\"layout\": \"1\""),
            "[]".to_owned(),
            "\u{feff}".to_owned() + &whole,
        ] {
            assert!(refused(other.as_bytes()).contains("is damaged, or is not"), "{other}");
        }
        let newer = refused(whole.replace("\"layout\": 1", "\"layout\": 2, \"more\": 3").as_bytes());
        assert!(newer.contains("has layout 2") && newer.ends_with("run the version that wrote it"), "{newer}");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(Witness::open(&file), Err(BadWitness::Unreadable { .. })));
        assert!(matches!(
            Witness::open(&directory.path().join("none/witness.json")),
            Err(BadWitness::Unwritable { .. })
        ));
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("data/witness.json");
        let witness = Witness::read(&file).unwrap();
        let (give, given) = sync_channel(3);
        give.send(remembered(1)).unwrap();
        drop(give);
        witness.write_all(&given);
        fs::create_dir(directory.path().join("data")).unwrap();
        let (give, given) = sync_channel(3);
        let last = remembered(2);
        give.send(last.clone()).unwrap();
        drop(give);
        witness.write_all(&given);
        assert_eq!(Witness::read(&file).unwrap().found, Some(last));
    }
}
