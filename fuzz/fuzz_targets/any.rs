//! One target of `rationd::fuzzing`, the one that has the name of this binary.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rationd::fuzzing::TARGETS;

fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = env!("CARGO_BIN_NAME");
        TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name").1
    });
    target(bytes);
});
