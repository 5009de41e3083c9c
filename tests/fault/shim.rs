//! A library that is preloaded into a process, so that its syncs stall and fail and its clock steps when a test says so.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::preload;

/// A shim that was built, and the files through which it is told what to do.
pub struct Shim {
    home: TempDir,
    library: PathBuf,
}

impl Shim {
    /// Builds it.
    pub fn build() -> Self {
        let home = tempfile::tempdir().unwrap();
        let library = preload::build(home.path(), include_str!("shim.c"));
        Self { home, library }
    }

    /// What a process must have in its environment.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        [("LD_PRELOAD", text(self.library.clone())), ("FAULT_SHIM", text(self.home.path().to_owned()))]
    }

    /// The words that start a program with it.
    pub fn words(&self) -> Vec<String> {
        let pairs = self.variables().map(|(name, value)| format!("{name}={value}"));
        ["env".to_owned()].into_iter().chain(pairs).collect()
    }

    /// Tells it something.
    pub fn say(&self, what: &str, order: &str) {
        // In one step: it is read at any moment.
        let next = self.home.path().join("next");
        fs::write(&next, order).unwrap();
        fs::rename(next, self.home.path().join(what)).unwrap();
    }

    /// Takes back what was said.
    pub fn unsay(&self, what: &str) {
        fs::remove_file(self.home.path().join(what)).unwrap();
    }

    /// How many bytes of which file are surely on the disk.
    pub fn synced(&self) -> (u64, PathBuf) {
        let noted = fs::read_to_string(self.home.path().join("synced")).unwrap();
        let (size, path) = noted.lines().next().unwrap().split_once(' ').unwrap();
        (size.parse().unwrap(), PathBuf::from(path))
    }
}
