//! What is left of a process that crashes: nothing of its memory.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::service::Service;

#[test]
fn a_crash_leaves_no_core_behind() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start_to_dump_core(directory.path());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"], "{limits}");
    // Whoever may not dump may not be looked into either: not by a debugger, and not by reading this.
    let environment = std::fs::File::open(format!("/proc/{}/environ", service.pid()));
    println!("the environment can be read by whoever runs this test: {}", environment.is_ok());
    let crashed = service.crash();
    assert!(crashed.signal() == Some(6) && !crashed.core_dumped(), "{crashed:?}");
    let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["rationd-data"]);

    // The same crash of a program that does not mind.
    let mut other = Command::new("sh");
    let other =
        other.args(["-c", "ulimit -c unlimited; kill -ABRT $$"]).current_dir(directory.path()).status().unwrap();
    println!("another program dumps its core here: {}", other.core_dumped());
}
