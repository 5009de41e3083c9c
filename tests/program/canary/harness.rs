//! The load harness: the numbers of its made-up people are in nothing that it writes. They are read off the wire.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rationd::buyer::parse_kr_resident;
use rationd::time::Date;

use super::every_file;
use super::traces::Hunt;
use crate::program::service::{Service, rationd};

/// Passes everything on to the service, and keeps what it is sent.
fn overhear(service: &Service) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, target) = (listener.local_addr().unwrap(), service.address.trim_start_matches("http://").to_owned());
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let kept = heard.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&target).unwrap());
            for (from, to, keep) in [(&client, &server, Some(kept.clone())), (&server, &client, None)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    let mut piece = [0; 16 * 1024];
                    while let Ok(length @ 1..) = from.read(&mut piece) {
                        if let Some(keep) = &keep {
                            keep.lock().unwrap().extend(&piece[..length]);
                        }
                        if to.write_all(&piece[..length]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (format!("http://{address}"), heard)
}

/// Every number that stands as a field of a message: its tag, its length, its digits.
fn numbers(sent: &[u8]) -> BTreeSet<String> {
    let today = Date::new(2026, 1, 1).unwrap();
    let at = |(place, _): (usize, &[u8])| {
        let length = usize::from(sent[place + 1]);
        let text = std::str::from_utf8(sent.get(place + 2..place + 2 + length)?).ok()?;
        parse_kr_resident(text, today, true).is_ok().then(|| text.to_owned())
    };
    sent.windows(2)
        .enumerate()
        .filter(|(_, field)| field[0] == 0x0a && matches!(field[1], 13 | 14))
        .filter_map(at)
        .collect()
}

#[test]
fn nobody_whom_the_load_harness_makes_up_is_found_in_what_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let programme = rationd(at, &["load", "--print-programme"], "");
    std::fs::create_dir(at.join("programmes")).unwrap();
    std::fs::write(at.join("programmes/load.toml"), programme.out).unwrap();
    std::fs::write(at.join("sites.csv"), include_str!("../../../src/sites/demo.csv")).unwrap();
    let variables = [("RATIOND_SESSIONS__CAP_DEFAULT", "2"), ("RATIOND_TELEMETRY__LOG_FILTER", "trace")];
    let service = Service::start(at, &["--policies", "programmes"], &variables);
    service.await_health(0);
    let (address, heard) = overhear(&service);
    let operator = format!("http://{}", service.admin);
    let run = ["load", "--seconds", "3", "--rate", "60", "--history", "calls.jsonl", "--sites", "sites.csv"];
    let mut written = Vec::new();
    for (way, seed) in [(&[][..], "1"), (&["--json"], "2")] {
        let ran = rationd(
            at,
            &[&run[..], &["--address", &address, "--operator", &operator, "--seed", seed], way].concat(),
            "",
        );
        assert_eq!(ran.code, 0, "{ran:?}");
        written.push((format!("output {way:?}"), ran.out.into_bytes()));
        written.push((format!("progress {way:?}"), ran.err.into_bytes()));
    }
    written.push(("log".into(), service.log().into_bytes()));
    written.push(("metrics".into(), service.metrics().into_bytes()));
    service.stop();
    every_file(at, &mut written);
    assert!(
        ["rationd-load.html", "calls.jsonl"].iter().all(|file| written.iter().any(|(name, _)| name.ends_with(file)))
    );

    let numbers = numbers(&heard.lock().unwrap());
    assert!(numbers.len() > 100, "{} numbers were overheard", numbers.len());
    let hunt = Hunt::of_whole(&numbers.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!hunt.hits(&heard.lock().unwrap(), false).is_empty(), "they are on the wire");
    for (name, text) in &written {
        assert!(hunt.hits(text, false).is_empty(), "{name}: {:?}", hunt.hits(text, false));
    }
    let bytes: usize = written.iter().map(|(_, text)| text.len()).sum();
    println!("load harness: 0 hits of {} numbers in {} artefacts, {bytes} bytes", numbers.len(), written.len());
}
