//! The key file: the secrets that make pseudonyms and session tokens. Readable by its owner alone, or refused.
//!
//! ```toml
//! version = 1
//! [partition]
//! key = "…64 hexadecimal digits…"   # never changes
//! [ring.current]
//! id = 1
//! key = "…"
//! [door]
//! key = "…"
//! ```
//!
//! While the ring turns, `[ring.next]` or `[ring.previous]` stands beside `[ring.current]`, the previous key with `left`, the instant
//! when it was left; `turning` writes them. No message repeats a key.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::ConfigErrors;
use super::file::Settings;
use crate::buyer::{KeyId, KeyRing, RingKey, SecretKey, Side};
use crate::time::Timestamp;

/// The only layout of the key file that there is so far.
const VERSION: u32 = 1;

/// A key in hexadecimal digits.
const HEX_LENGTH: usize = 64;

/// The secrets of a service.
pub struct Keys {
    pub(super) partition: SecretKey,
    pub(super) current: RingKey,
    pub(super) beside: Option<Beside>,
    /// Makes and checks session tokens.
    pub door: SecretKey,
}

/// The key beside the current one, while the ring turns.
pub(super) enum Beside {
    /// The one that it will turn to.
    Next(RingKey),
    /// The one that it has left, and when.
    Previous(RingKey, Timestamp),
}

/// Which keys there are, by name.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ring().fmt(f)
    }
}

impl Keys {
    /// Reads the key file. It must be a file that nobody but its owner can read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = read_private(path, "copy the key file that the other instances use to here")?;
        Self::parse(&text, &path.display().to_string())
    }

    /// For development: reads the key file, or first makes one with random keys if there is none. The directory is made
    /// with mode 0700 and the file with mode 0600; of several processes that start at once all read the same file.
    ///
    /// New keys make every buyer a stranger. So none are made beside a database (`*.redb`), whose keys these would not be.
    pub fn load_or_create(path: &Path) -> Result<Self, ConfigErrors> {
        let exists =
            path.try_exists().map_err(|error| ConfigErrors::one(path.display(), cannot("be looked for", &error)))?;
        if !exists {
            create(path)?;
        }
        Self::load(path)
    }

    /// From the text of a key file; `source` names it in messages.
    pub fn parse(text: &str, source: &str) -> Result<Self, ConfigErrors> {
        let mut settings = Settings::parse(text, source)?;
        version(&mut settings);
        let mut uses = Uses::default();
        let partition = key(&mut settings, &["partition", "key"], &mut uses);
        let current = ring_key(&mut settings, "current", &mut uses);
        let [previous, next] = ["previous", "next"].map(|which| {
            let written = settings.has(&["ring", which]);
            written.then(|| ring_key(&mut settings, which, &mut uses)).flatten()
        });
        let left = match &previous {
            Some(_) if !settings.has(&["ring", "previous", "left"]) => {
                settings.missing(
                    &["ring", "previous", "left"],
                    "write when the ring left it, such as 2020-03-11T09:00:00+09:00",
                );
                None
            }
            _ => settings.text(&["ring", "previous", "left"], str::parse::<Timestamp>),
        };
        if let (Some(previous), Some(next)) = (&previous, &next) {
            let (previous, next) = (previous.id, next.id);
            settings.problem_at(
                "ring.next",
                format!("{next} stands beside a previous key, {previous}: a turn ends, by `rationd keys retire`, before another begins"),
            );
        }
        for (field, earlier, later) in [("current", &previous, &current), ("next", &current, &next)] {
            if let (Some(earlier), Some(later)) = (earlier, later)
                && earlier.id > later.id
            {
                settings.problem_at(
                    &format!("ring.{field}.id"),
                    format!("is {}, and the key before it is {}: numbers only go up", later.id, earlier.id),
                );
            }
        }
        let door = key(&mut settings, &["door", "key"], &mut uses);
        uses.check(&mut settings);
        settings.finish(&[
            &["partition"],
            &["ring"],
            &["ring", "current"],
            &["ring", "previous"],
            &["ring", "next"],
            &["door"],
        ])?;
        match (partition, current, door) {
            (Some(partition), Some(current), Some(door)) => {
                let previous = previous.zip(left).map(|(key, left)| Beside::Previous(key, left));
                Ok(Self { partition, current, beside: previous.or(next.map(Beside::Next)), door })
            }
            _ => Err(ConfigErrors::one(source, "is not complete")),
        }
    }
}

impl Keys {
    /// Makes pseudonyms of buyers' numbers.
    pub fn ring(&self) -> KeyRing {
        let beside = self.beside.as_ref().map(|beside| match beside {
            Beside::Next(key) => (Side::Next, key),
            Beside::Previous(key, _) => (Side::Previous, key),
        });
        KeyRing::new(&self.partition, &self.current, beside)
    }
}

/// Notes a layout that cannot be read.
pub(super) fn version(settings: &mut Settings) {
    if !settings.has(&["version"]) {
        settings.missing(&["version"], "write version = 1");
    }
    if settings.number::<u32>(&["version"], 1, u32::MAX).is_some_and(|version| version != VERSION) {
        settings.problem_at("version", format!("is not {VERSION}, the only layout that this rationd can read"));
    }
}

/// What each key and each id of the file is used for, to find one that is used twice.
#[derive(Default)]
pub(super) struct Uses {
    keys: Vec<(String, Zeroizing<[u8; 32]>)>,
    ids: Vec<(String, KeyId)>,
}

impl Uses {
    fn check(&self, settings: &mut Settings) {
        for (i, (field, key)) in self.keys.iter().enumerate() {
            let twin = self.keys.iter().take(i).find(|(_, other)| other == key);
            if let Some((other, _)) = twin {
                settings.problem_at(field, format!("is the same key as {other}: every use needs a key of its own"));
            }
        }
        for (i, (field, id)) in self.ids.iter().enumerate() {
            if let Some((other, _)) = self.ids.iter().take(i).find(|(_, other)| other == id) {
                settings.problem_at(field, format!("is the same id as {other}: a new key takes a new id"));
            }
        }
    }
}

fn ring_key(settings: &mut Settings, which: &str, uses: &mut Uses) -> Option<RingKey> {
    let path = ["ring", which, "id"];
    let id = if settings.has(&path) {
        settings.number::<u32>(&path, 1, KeyId::MAX)
    } else {
        settings.missing(&path, "number the keys from 1");
        None
    };
    uses.ids.extend(id.map(|id| (path.join("."), id)));
    let key = key(settings, &["ring", which, "key"], uses);
    Some(RingKey { id: id?, key: key? })
}

/// A key of the file.
pub(super) fn key(settings: &mut Settings, path: &[&str], uses: &mut Uses) -> Option<SecretKey> {
    if !settings.has(path) {
        settings.missing(path, "write 64 hexadecimal digits, such as `openssl rand -hex 32` prints");
        return None;
    }
    let key = settings.text(path, unhex)?;
    uses.keys.push((path.join("."), Zeroizing::new(*key.expose_secret())));
    Some(key)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum BadKey {
    #[error("must be 64 hexadecimal digits (256 bits), and has {0} characters")]
    Length(usize),
    #[error("must be 64 hexadecimal digits (256 bits), and holds something else")]
    NotHex,
    #[error("is not random: make it with `openssl rand -hex 32`")]
    NotRandom,
}

fn unhex(text: &str) -> Result<SecretKey, BadKey> {
    if text.len() != HEX_LENGTH {
        return Err(BadKey::Length(text.chars().count()));
    }
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(BadKey::NotHex);
    let mut key = Zeroizing::new([0; 32]);
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        if let [high, low] = pair {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
    }
    // A placeholder that was never replaced.
    if key.iter().all(|byte| Some(byte) == key.first()) {
        return Err(BadKey::NotRandom);
    }
    Ok(SecretKey::init_with_mut(|place: &mut [u8; 32]| *place = *key))
}

fn cannot(what: &str, error: &io::Error) -> String {
    format!("cannot {what}: {error}")
}

/// The text of a file that only its owner can read; what to do if there is none.
pub(super) fn read_private(path: &Path, if_absent: &str) -> Result<Zeroizing<String>, ConfigErrors> {
    let error = |problem: String| ConfigErrors::one(path.display(), problem);
    let mut file = fs::File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => error(format!("does not exist: {if_absent}")),
        _ => error(cannot("be read", &e)),
    })?;
    let metadata = file.metadata().map_err(|e| error(cannot("be looked at", &e)))?;
    if !metadata.is_file() {
        return Err(error("is not a file; name the key file itself".into()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if others_can_read(mode, (metadata.uid(), metadata.gid()), (rustix::process::geteuid().as_raw(), &our_groups())) {
        let path = path.display();
        return Err(error(format!("can be read by others than its owner (mode {mode:04o}): run `chmod 600 {path}`")));
    }
    // Room for the whole file at once, so that no half-read copy is left behind in memory.
    let size = usize::try_from(metadata.len()).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(size + 1));
    file.read_to_string(&mut text).map_err(|e| error(cannot("be read", &e)))?;
    Ok(text)
}

/// The groups that this process is in, but for root's: whoever is in that one may be anybody.
fn our_groups() -> Vec<u32> {
    let others = rustix::process::getgroups().unwrap_or_default();
    let groups = others.into_iter().chain([rustix::process::getegid()]);
    groups.map(|group| group.as_raw()).filter(|group| *group != 0).collect()
}

/// Whether anybody can read a file of this mode, user and group but its user and us, who are a user of some groups. A Kubernetes
/// Secret is root's, and reaches us through a group that the pod was given for it: then that group may read it.
fn others_can_read(mode: u32, (owner, group): (u32, u32), (we, our_groups): (u32, &[u32])) -> bool {
    let through_our_group = owner == 0 && we != 0 && our_groups.contains(&group);
    let allowed = if through_our_group { 0o740 } else { 0o700 };
    mode & !allowed != 0
}

/// Makes a key file with random keys. If another process was faster, its file stays.
fn create(path: &Path) -> Result<(), ConfigErrors> {
    let error = |problem: String| ConfigErrors::one(path.display(), problem);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|e| error(cannot("have its directory made", &e)))?;
    let database = find_database(directory).map_err(|e| error(cannot("have its directory read", &e)))?;
    // A database that appeared with its keys since we looked is another starter's.
    if let Some(database) = database
        && !path.exists()
    {
        return Err(error(format!(
            "is missing although {} is there, whose buyers nobody would know again under new keys: bring the key file \
             back, or move the database away to start afresh",
            database.display()
        )));
    }

    let text = new_key_file().map_err(|e| error(format!("cannot be made: no randomness: {e}")))?;
    let temporary = beside_it(path, directory);
    let written = write_private(&temporary, &text).and_then(|()| publish(&temporary, path, directory));
    let removed = fs::remove_file(&temporary);
    written.and(removed).map_err(|e| error(cannot("be made", &e)))
}

/// A name in the same directory that nobody else uses.
pub(super) fn beside_it(path: &Path, directory: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    directory.join(format!(".{name}.{}.tmp", uuid::Uuid::new_v4()))
}

fn find_database(directory: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "redb") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Makes a file that only its owner can read; fails if there is one.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Gives the finished file its name. A link, unlike a rename, fails if the name is taken: the first starter wins.
fn publish(temporary: &Path, path: &Path, directory: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::File::open(directory)?.sync_all()
}

fn new_key_file() -> Result<Zeroizing<String>, getrandom::Error> {
    let current = RingKey { id: 1, key: random_key()? };
    Ok(Keys { partition: random_key()?, current, beside: None, door: random_key()? }.text())
}

/// A key that nobody has seen.
pub(super) fn random_key() -> Result<SecretKey, getrandom::Error> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut_slice())?;
    Ok(SecretKey::init_with_mut(|place: &mut [u8; 32]| *place = *key))
}

impl Keys {
    /// The key file.
    pub(super) fn text(&self) -> Zeroizing<String> {
        // Large enough that the text never moves and leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(2048));
        text.push_str(
            "# The secret keys of this rationd. Whoever has them and the data can test numbers one by one;\n",
        );
        text.push_str("# whoever loses them loses every buyer's history. Keep a copy apart from the data.\n");
        text.push_str("version = 1\n");
        fn ring<'a>(which: &str, RingKey { id, key }: &'a RingKey, more: &str) -> (String, String, &'a SecretKey) {
            (format!("ring.{which}"), format!("id = {id}\n{more}"), key)
        }
        let beside = self.beside.as_ref().map(|beside| match beside {
            Beside::Next(key) => ring("next", key, ""),
            Beside::Previous(key, left) => ring("previous", key, &format!("left = \"{left}\"\n")),
        });
        let partition = ("partition".to_owned(), String::new(), &self.partition);
        let door = ("door".to_owned(), String::new(), &self.door);
        let sections = [Some(partition), Some(ring("current", &self.current, "")), beside, Some(door)];
        for (section, lines, key) in sections.into_iter().flatten() {
            text.push_str(&format!("\n[{section}]\n{lines}"));
            push_key(&mut text, key.expose_secret());
        }
        text
    }
}

/// A key as it stands in a file. Makes no copy of it if the text has room for 100 bytes more.
pub(super) fn push_key(text: &mut String, key: &[u8; 32]) {
    text.push_str("key = \"");
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text.push_str("\"\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buyer::parse_kr_resident;
    use crate::time::Date;

    /// 64 hexadecimal digits that begin with `n` and are not all the same.
    fn hex(n: u8) -> String {
        format!("{n:02x}{}", "a1".repeat(31))
    }

    fn good() -> String {
        format!(
            "version = 1\n[partition]\nkey = \"{}\"\n[ring.current]\nid = 1\nkey = \"{}\"\n[door]\nkey = \"{}\"\n",
            hex(1),
            hex(2),
            hex(3)
        )
    }

    fn problems(text: &str) -> Vec<String> {
        let errors = Keys::parse(text, "keys.toml").unwrap_err();
        let shown = format!("{errors} {errors:?}");
        assert!(!shown.contains("a1a1"), "a key is shown: {shown}");
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn file_with_mode(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        fs::write(&path, good()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn a_key_file_is_read_and_never_shown() {
        let keys = Keys::parse(&good(), "keys.toml").unwrap();
        assert_eq!(keys.ring().turn().ring.id, 1);
        assert_eq!(keys.door.expose_secret()[..2], [3, 0xa1]);
        assert!(!format!("{keys:?}").contains("161"), "{keys:?}");
    }

    #[test]
    fn the_ring_may_hold_one_neighbour() {
        let next = format!("[ring.next]\nid = 4\nkey = \"{}\"\n", hex(4).to_uppercase());
        let left = "left = \"2020-03-11T09:00:00+09:00\"";
        let previous = format!("[ring.previous]\nid = 1\nkey = \"{}\"\n", hex(5));
        let good = good().replace("id = 1", "id = 3");
        let keys = Keys::parse(&(good.clone() + &next), "keys.toml").unwrap();
        assert_eq!(format!("{keys:?}"), "KeyRing { current: 3, neighbour: Some((Next, 4)), .. }");
        let turned = good.clone() + &previous + left;
        let keys = Keys::parse(&turned, "keys.toml").unwrap();
        assert_eq!(format!("{keys:?}"), "KeyRing { current: 3, neighbour: Some((Previous, 1)), .. }");
        for keys in [Keys::parse(&turned, "a").unwrap(), keys] {
            assert_eq!(format!("{:?}", Keys::parse(&keys.text(), "b").unwrap()), format!("{keys:?}"));
        }
        let told = [
            problems(&(turned.clone() + "\n" + &next)),
            problems(&(good.clone() + &previous)),
            problems(&turned.replace("id = 3", "id = 9").replace("id = 1", "id = 10")),
        ];
        assert_eq!(
            told.concat(),
            [
                "keys.toml: ring.next: 4 stands beside a previous key, 1: a turn ends, by `rationd keys retire`, before another begins",
                "keys.toml: ring.previous.left: is missing: write when the ring left it, such as 2020-03-11T09:00:00+09:00",
                "keys.toml: ring.current.id: is 9, and the key before it is 10: numbers only go up",
            ]
        );
    }

    #[test]
    fn every_problem_is_told_without_a_key() {
        assert_eq!(
            problems("[partition]\n[ring.next]\n"),
            [
                "keys.toml: version: is missing: write version = 1",
                "keys.toml: partition.key: is missing: write 64 hexadecimal digits, such as `openssl rand -hex 32` prints",
                "keys.toml: ring.current.id: is missing: number the keys from 1",
                "keys.toml: ring.current.key: is missing: write 64 hexadecimal digits, such as `openssl rand -hex 32` prints",
                "keys.toml: ring.next.id: is missing: number the keys from 1",
                "keys.toml: ring.next.key: is missing: write 64 hexadecimal digits, such as `openssl rand -hex 32` prints",
                "keys.toml: door.key: is missing: write 64 hexadecimal digits, such as `openssl rand -hex 32` prints",
            ]
        );
        let text = format!(
            "version = 2\n[partition]\nkey = \"a1a1\"\n[ring.current]\nid = 0\nkey = \"{}\"\n[door]\nkey = 5\nlock = \"{}\"\n",
            hex(1).replacen('1', "g", 1),
            hex(1)
        );
        assert_eq!(
            problems(&text),
            [
                "keys.toml:3: partition.key: must be 64 hexadecimal digits (256 bits), and has 4 characters",
                "keys.toml:5: ring.current.id: must be a whole number from 1 to 4294967295",
                "keys.toml:6: ring.current.key: must be 64 hexadecimal digits (256 bits), and holds something else",
                "keys.toml:8: door.key: must be a text in double quotes",
                "keys.toml:9: door.lock: is not a setting: correct its spelling or remove it",
                "keys.toml: version: is not 1, the only layout that this rationd can read",
            ]
        );
        assert_eq!(
            problems(&good().replace(&hex(3), &"0".repeat(64))),
            ["keys.toml:8: door.key: is not random: make it with `openssl rand -hex 32`"]
        );
        assert_eq!(problems(&format!("version = 1\nkey = {}\n", hex(1))).len(), 1);
    }

    #[test]
    fn one_key_for_two_uses_is_refused() {
        assert_eq!(
            problems(&good().replace(&hex(3), &hex(1))),
            ["keys.toml: door.key: is the same key as partition.key: every use needs a key of its own"]
        );
        let next = format!("[ring.next]\nid = 1\nkey = \"{}\"\n", hex(4));
        assert_eq!(
            problems(&(good() + &next)),
            ["keys.toml: ring.next.id: is the same id as ring.current.id: a new key takes a new id"]
        );
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o600, 0o400] {
            let (_directory, path) = file_with_mode(mode);
            assert!(Keys::load(&path).is_ok(), "{mode:o}");
        }
        for mode in [0o640, 0o604, 0o620, 0o601, 0o644, 0o777] {
            let (_directory, path) = file_with_mode(mode);
            let shown = path.display();
            assert_eq!(
                Keys::load(&path).unwrap_err().to_string(),
                format!("{shown}: can be read by others than its owner (mode {mode:04o}): run `chmod 600 {shown}`")
            );
        }
    }

    #[test]
    fn what_is_roots_may_reach_us_through_our_group() {
        let (root, us, others) = (0, 65_532, 7);
        let may_others = |mode, of, we| others_can_read(mode, of, (we, &[us]));
        assert!(!may_others(0o440, (root, us), us) && !may_others(0o400, (root, others), us));
        for (mode, of, we) in [
            (0o440, (us, us), us),
            (0o440, (root, us), root),
            (0o460, (root, us), us),
            (0o444, (root, us), us),
            (0o440, (root, others), us),
            (0o440, (root, root), us),
        ] {
            assert!(may_others(mode, of, we), "{mode:o} of {of:?} for {we}");
        }
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let shown = directory.path().display().to_string();
        assert_eq!(
            Keys::load(directory.path()).unwrap_err().to_string(),
            format!("{shown}: is not a file; name the key file itself")
        );
        let absent = directory.path().join("keys.toml");
        assert_eq!(
            Keys::load(&absent).unwrap_err().to_string(),
            format!("{shown}/keys.toml: does not exist: copy the key file that the other instances use to here")
        );
    }

    #[test]
    fn keys_are_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/inner/keys.toml");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let today = Date { year: 2020, month: 6, day: 1 };
        let key = |keys: &Keys| {
            let buyer = parse_kr_resident("810305-1000112", today, true).unwrap();
            keys.ring().key_of(&buyer, "kr-public-mask-2020".parse().unwrap())
        };

        let starters: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || Keys::load_or_create(&path).unwrap())
            })
            .collect();
        let keys: Vec<Keys> = starters.into_iter().map(|starter| starter.join().unwrap()).collect();
        assert!(keys.iter().all(|one| key(one) == key(&keys[0])), "two starters have different keys");
        assert_eq!(key(&Keys::load_or_create(&path).unwrap()), key(&keys[0]));
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary file is left");

        let elsewhere = Keys::load_or_create(&directory.path().join("other/keys.toml")).unwrap();
        assert_ne!(key(&elsewhere).0.pseudonym, key(&keys[0]).0.pseudonym);
    }

    #[test]
    fn no_new_keys_beside_old_data() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ledger.redb"), "").unwrap();
        let error = Keys::load_or_create(&directory.path().join("keys.toml")).unwrap_err().to_string();
        assert!(error.contains("ledger.redb is there") && error.contains("bring the key file back"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
