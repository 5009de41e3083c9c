//! What a person meets who types `rationd serve` and then what it says: greeting, first sale, refusal, exit codes.

use std::io::Read;
use std::net::TcpListener;

use rationd::time::{Date, Timestamp};

use super::service::{Service, rationd, shell};
use super::shops::{PROGRAMME, SATURDAY, number};
use crate::support::redis::free_port;

/// Nobody's: an id that was never used.
const UNUSED: &str = "0190b7a4-0000-7000-8000-000000000001";

#[test]
fn the_first_sale_can_be_pasted_and_a_second_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &[], &[]);
    println!("{}", service.greeting);
    for said in ["embedded:./rationd-data", "kr-public-mask-2020", "not in force on", "weekly-essentials   in force on"]
    {
        assert!(service.greeting.contains(said), "{said}");
    }
    assert!(!service.greeting.contains("SIMULATED") && !service.greeting.contains("VOLATILE"));
    let paste = service.greeting.lines().last().unwrap().trim().to_owned();
    let today = service.greeting.split("in force on ").last().unwrap()[..10].parse::<Date>().unwrap();

    let first = shell(directory.path(), &paste);
    println!("$ {paste}\n{}", first.out);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.out.starts_with("SELL  APPROVED\n"), "{first:?}");
    assert!(first.out.contains("receipt  2 of weekly-essentials"), "{first:?}");
    assert!(first.err.starts_with("request id "), "the id is told before the sale: {first:?}");

    let second = shell(directory.path(), &paste);
    println!("$ {paste}\n{}", second.out);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.out.starts_with("DO NOT SELL  QUOTA_EXHAUSTED\n"), "{second:?}");
    assert!(second.out.contains(&format!("\n  earlier  2 on {today}T")), "{second:?}");
    let next = second.out.lines().find_map(|line| line.trim().strip_prefix("next     ")).unwrap();
    assert!(next.parse::<Date>().unwrap() > today, "{second:?}");

    let third = shell(directory.path(), &format!("{paste} --json"));
    let said = third.json();
    assert_eq!(third.code, 1);
    assert_eq!(said["decision"], "QUOTA_EXHAUSTED");
    assert_eq!(said["reasons"][0]["name"], "QUOTA_EXHAUSTED");
    assert!(said["reasons"][0]["why"].as_str().unwrap().len() > 10);
    assert_eq!(said["left"]["units"], 0);
    assert_eq!(said["next_chance"]["date"], next);
    assert_eq!(said["earlier"][0]["quantity"], 2);
    assert_eq!(service.await_health(0).out, "SERVING\n");
    service.stop();
}

/// A sale's life from the command line, with every exit code that `rationd --help` documents but 70.
#[test]
fn exit_codes_are_what_the_help_says() {
    let directory = tempfile::tempdir().unwrap();
    let help = rationd(directory.path(), &["--help"], "");
    let documented = "Exit codes: 0 done or sell; 1 a decision not to sell; 2 arguments; 3 no decision, nothing recorded; \
                      4 outcome unknown, resolve it by its request id; 64 configuration; 70 failure.";
    assert!(help.out.split_whitespace().collect::<Vec<_>>().join(" ").contains(documented), "{}", help.out);

    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let (who, other) = (number(1), number(2));
    let ask = |arguments: &[&str]| {
        let ran = service.call(&[arguments, &["--json"]].concat(), &format!("{who}\n"));
        (ran.code, ran.json())
    };
    let (code, may_buy) = ask(&["check", "-n", "2"]);
    assert_eq!((code, &may_buy["decision"], &may_buy["left"]["units"]), (0, &"MAY_BUY".into(), &2.into()));
    let (code, sold) = ask(&["sell", "-n", "2"]);
    assert_eq!((code, &sold["decision"]), (0, &"APPROVED".into()));
    assert_eq!(sold["receipt"]["simulated_clock"], true);
    assert_eq!(sold["receipt"]["durability"], "SYNCED");
    assert!(sold["receipt"]["sold_at"].as_str().unwrap().starts_with("2020-06-20T09:0"));
    let id = sold["request_id"].as_str().unwrap().to_owned();
    let same = ["--request-id", &id];
    let (code, again) = ask(&[&["sell", "-n", "2"][..], &same].concat());
    assert_eq!((code, &again["replayed"], &again["receipt"]), (0, &true.into(), &sold["receipt"]));
    let (code, reused) = ask(&[&["sell", "-n", "1"][..], &same].concat());
    assert_eq!((code, &reused["error"]), (3, &"REQUEST_ID_REUSED".into()));
    let (code, resolved) = ask(&[&["resolve"][..], &same].concat());
    assert_eq!((code, &resolved["receipt"]), (0, &sold["receipt"]));
    let (code, not_ours) = ask(&[&["void", "--site", "11000002"][..], &same].concat());
    assert_eq!((code, &not_ours["decision"]), (1, &"NOT_YOURS".into()));
    let (code, voided) = ask(&[&["void"][..], &same].concat());
    assert_eq!((code, &voided["decision"]), (0, &"VOIDED".into()));
    assert!(voided["voided_at"].as_str().unwrap().parse::<Timestamp>().is_ok());
    let (code, gone) = ask(&[&["sell", "-n", "2"][..], &same].concat());
    assert_eq!((code, &gone["decision"], &gone["receipt"]), (1, &"VOIDED".into(), &serde_json::Value::Null));
    let (code, resolved) = ask(&[&["resolve"][..], &same].concat());
    assert_eq!((code, &resolved["decision"]), (1, &"VOIDED".into()), "nothing may be handed over for it");
    let elsewhere = ["--request-id", &id, "--ledger", UNUSED];
    for verb in [&["sell", "-n", "2"][..], &["confirm"], &["release"], &["void"], &["resolve"]] {
        let (code, other) = ask(&[verb, &elsewhere].concat());
        assert_eq!((code, &other["error"]), (3, &"OTHER_LEDGER".into()), "{verb:?}");
    }
    let (code, closed) = ask(&["resolve", "--request-id", UNUSED]);
    assert_eq!((code, &closed["decision"]), (1, &"NOT_RECORDED".into()));
    let (code, never) = ask(&["sell", "--request-id", UNUSED]);
    assert_eq!((code, &never["error"]), (3, &"REQUEST_ID_CLOSED".into()));

    // A hold: given back, confirmed, and then no hold any more.
    let (code, held) = ask(&["hold", "--seconds", "60"]);
    let hold = held["request_id"].as_str().unwrap().to_owned();
    assert_eq!((code, &held["decision"]), (0, &"HELD".into()));
    assert_eq!(ask(&["confirm", "--request-id", &hold]).1["decision"], "APPROVED");
    let (code, kept) = ask(&["release", "--request-id", &hold]);
    assert_eq!((code, &kept["decision"]), (1, &"ALREADY_SOLD".into()));
    let held = ask(&["hold"]).1;
    let (code, released) = ask(&["release", "--request-id", held["request_id"].as_str().unwrap()]);
    assert_eq!((code, &released["decision"]), (0, &"RELEASED".into()));

    // 2: what cannot be read, by us or by the service; the answer never repeats the number.
    let unknown = service.call(&["sell", "--colour", "red"], "");
    assert_eq!(unknown.code, 2);
    for (typed, why) in [("", "missing"), ("810305-100011", "13 digits"), ("811332-1000112", "no such")] {
        let bad = service.call(&["check", "--json"], typed);
        assert_eq!((bad.code, &bad.json()["error"]), (2, &"INVALID_REQUEST".into()), "{typed}: {bad:?}");
        assert!(bad.json()["message"].as_str().unwrap().contains(why), "{typed}: {bad:?}");
        assert!(typed.is_empty() || !format!("{bad:?}").contains(&typed[7..]), "{bad:?}");
    }
    let none = service.call(&["check", "-n", "0"], &other);
    assert_eq!((none.code, none.err.contains("quantity")), (2, true), "{none:?}");

    // 3: nobody is there. A site that is full says who holds the seat.
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let away = rationd(directory.path(), &["sell", "--address", &nobody, "--json"], &other);
    assert_eq!(
        (away.code, &away.json()["error"], &away.json()["outcome_unknown"]),
        (3, &"UNREACHABLE".into(), &false.into())
    );
    let away = rationd(directory.path(), &["health", "--address", &nobody], "");
    assert_eq!(away.code, 3, "{away:?}");

    // 4: somebody takes the call and never answers it.
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", trap.local_addr().unwrap());
    let taken = std::thread::spawn(move || {
        let (mut stream, _) = trap.accept().unwrap();
        // The preface and the call itself, as far as they come at once.
        let _ = stream.read(&mut [0; 64]);
        std::thread::sleep(std::time::Duration::from_millis(100));
    });
    let lost = rationd(directory.path(), &["void", "--request-id", &id, "--address", &address, "--json"], &who);
    taken.join().unwrap();
    assert_eq!((lost.code, &lost.json()["outcome_unknown"]), (4, &true.into()), "{lost:?}");

    // 64: the configuration.
    assert_eq!(rationd(directory.path(), &["check-config", "--store", "mysql://x"], "").code, 64);
    service.stop();
}

#[test]
fn a_number_on_the_command_line_is_refused_unless_it_is_synthetic() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path(), &["--clock", SATURDAY], &[]);
    let real = number(77);
    for arguments in [
        &["check", "--number", &real][..],
        &["check", "--programme", "kr-public-mask-2020", "--number", "810305-1000112"],
        &["resolve", "--request-id", UNUSED, "--number", &real],
    ] {
        let ran = service.call(arguments, "");
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("a number on the command line is read by others"), "{ran:?}");
        assert!(!ran.err.contains(&real), "{ran:?}");
    }
    let ran = service.call(&["check", "--programme", PROGRAMME, "--number", "810305-1000112"], "");
    assert_eq!(ran.code, 0, "{ran:?}");
    // The number is the first line of standard input, as people type it.
    for typed in ["810305-1000112\n", "8103051000112\r\n", " 810305 - 1000112 \nmore\n", "８１０３０５１０００１１２"]
    {
        let ran = service.call(&["check"], typed);
        assert!(ran.code == 0 && ran.out.contains("810305-1******"), "{typed:?}: {ran:?}");
        assert!(!ran.out.contains("000112"), "{ran:?}");
    }
    service.stop();
}
