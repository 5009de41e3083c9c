//! Libraries that are loaded into a process before all others, to stand between it and the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds one from this source, in a folder of the caller's, with the C compiler that links Rust programs too.
pub fn build(folder: &Path, source: &str) -> PathBuf {
    let (written, built) = (folder.join("preloaded.c"), folder.join("preloaded.so"));
    fs::write(&written, source).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-D_FILE_OFFSET_BITS=64", "-o"]);
    let said = command.arg(&built).arg(&written).arg("-ldl").output().expect("cc is needed");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    built
}
