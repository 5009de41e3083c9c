//! Receipts: the same from whichever instance, and checked by whoever has their key, without any service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use rationd::grpc::v1::{self, Receipt, purchase_result::Outcome};
use rationd::ids::RequestId;
use rationd::terminal::{Session, Terminal};
use serde_json::{Value, json};

use super::service::{Ran, Service, rationd};
use super::shops::{PROGRAMME, SATURDAY, SITES, buyer, number, purchase, resolve, sell};
use crate::support::redis::RedisServer;

const SITE: &str = SITES[0];
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// The bytes of the receipt in an outcome, as they are sent.
fn bytes(outcome: &Outcome) -> Vec<u8> {
    let receipt: Option<&Receipt> = match outcome {
        Outcome::Approved(approved) => approved.receipt.as_ref(),
        Outcome::AlreadySold(sold) => sold.receipt.as_ref(),
        other => panic!("no receipt: {other:?}"),
    };
    receipt.unwrap().encode_to_vec()
}

/// A sale and a confirmed hold, each of a buyer of its own.
#[derive(Clone, Copy)]
struct Made {
    sale: RequestId,
    hold: RequestId,
}

impl Made {
    fn confirm(self) -> v1::ConfirmHoldRequest {
        let (programme, request_id) = (PROGRAMME.to_owned(), self.hold.to_string());
        v1::ConfirmHoldRequest { programme, buyer: buyer(&number(2)), request_id, ..Default::default() }
    }

    fn release(self) -> v1::ReleaseHoldRequest {
        let (programme, request_id) = (PROGRAMME.to_owned(), self.hold.to_string());
        v1::ReleaseHoldRequest { programme, buyer: buyer(&number(2)), request_id, ..Default::default() }
    }

    /// The receipts of both, by every call that tells them.
    async fn told(self, terminal: &Terminal, session: &Session) -> [Vec<Vec<u8>>; 2] {
        let sold = sell(session, &number(1), 2, self.sale).await.unwrap();
        let resolved = resolve(terminal, &number(1), self.sale).await;
        let held = session
            .hold(purchase(&number(2), 1, self.hold), TEN_MINUTES)
            .await
            .unwrap()
            .results
            .remove(0)
            .outcome
            .unwrap();
        let confirmed = session.confirm(self.confirm()).await.unwrap().result.unwrap().outcome.unwrap();
        let kept = terminal.release(self.release()).await.unwrap().result.unwrap().outcome.unwrap();
        let looked_up = resolve(terminal, &number(2), self.hold).await;
        [
            [sold, resolved].iter().map(bytes).collect(),
            // The first time it is a hold and yields none.
            [held, confirmed, kept, looked_up]
                .iter()
                .filter(|outcome| !matches!(outcome, Outcome::Held(_)))
                .map(bytes)
                .collect(),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_gives_the_same_receipt_however_often_it_is_asked() {
    let redis = RedisServer::start();
    let url = redis.url();
    let directory = tempfile::tempdir().unwrap();
    Service::start(directory.path(), &[], &[]).stop();
    let serve = |clock| Service::start(directory.path(), &["--store", &url, "--clock", clock], &[]);
    let (one, other) = (serve(SATURDAY), serve("2020-06-20T09:03:00+09:00"));
    let made = Made { sale: RequestId::random(), hold: RequestId::random() };
    let mut told = [Vec::new(), Vec::new()];
    // The clocks of the two are minutes apart, and of the third a day: what was recorded is told, and not what it is now.
    let ask = async |service: &Service, told: &mut [Vec<Vec<u8>>; 2]| {
        service.await_health(0);
        let (terminal, session) = service.session(SITE, "w1").await;
        for (all, more) in told.iter_mut().zip(made.told(&terminal, &session).await) {
            all.extend(more);
        }
    };
    ask(&one, &mut told).await;
    ask(&other, &mut told).await;
    one.stop();
    other.stop();
    let third = serve("2020-06-21T09:00:00+09:00");
    ask(&third, &mut told).await;
    for (receipts, count) in told.iter().zip([6, 11]) {
        assert_eq!(receipts.len(), count);
        assert!(receipts.iter().all(|receipt| receipt == &receipts[0]), "{receipts:x?}");
    }
    assert_ne!(told[0][0], told[1][0]);

    // Taken back, it has none any more.
    let id = made.sale.to_string();
    let voided = third.call(&["void", "--request-id", &id, "--json"], &number(1));
    assert_eq!((voided.code, &voided.json()["receipt"]), (0, &Value::Null), "{voided:?}");
    let gone = resolve(&third.terminal(SITE, "w2").await, &number(1), made.sale).await;
    assert!(matches!(gone, Outcome::Voided(_)), "{gone:?}");
    third.stop();
}

/// The receipt that this service gives for a new sale, as `--json` prints it.
fn sold(service: &Service, nth: u64) -> Value {
    let ran = service.call(&["sell", "--json"], &number(nth));
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()
}

/// A service in this directory, and the file of its receipt key.
fn served(directory: &Path) -> Service {
    let service = Service::start(directory, &["--clock", SATURDAY], &[]);
    let keys = "rationd-data-simulated/keys.toml";
    let made = rationd(directory, &["receipt", "key", "--keys", keys, "--out", "receipt-key.toml"], "");
    assert_eq!(made.code, 0, "{made:?}");
    service
}

fn verify(directory: &Path, receipts: &str) -> Ran {
    rationd(directory, &["receipt", "verify", "--key", "receipt-key.toml"], receipts)
}

/// What `--json` says: the exit code, and the verdict and problems of each.
fn verdicts(directory: &Path, receipts: &str) -> (i32, Vec<(String, Vec<String>)>) {
    let ran = rationd(directory, &["receipt", "verify", "--key", "receipt-key.toml", "--json"], receipts);
    let line = |line: &str| {
        let said: Value = line.parse().unwrap();
        let problems = said["problems"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
        (said["verdict"].as_str().unwrap().to_owned(), problems.collect())
    };
    (ran.code, ran.out.lines().map(line).collect())
}

#[test]
fn a_receipt_is_valid_alone_in_its_answer_in_lines_and_in_lists() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let service = served(at);
    let answers = [1, 2, 3].map(|nth| sold(&service, nth));
    service.stop();
    let [one, two, three] = answers.clone().map(|answer| answer["receipt"].clone());
    let mode = fs::metadata(at.join("receipt-key.toml")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    let alone = verify(at, &one.to_string());
    println!("{}", alone.out);
    let sold = format!("VALID        1 of weekly-essentials at {SITE} on 2020-06-20T00:00:");
    assert!(alone.code == 0 && alone.out.starts_with(&sold), "{alone:?}");
    assert!(alone.out.contains("SIMULATED CLOCK") && !alone.out.contains("VOLATILE"), "{alone:?}");

    let pretty = serde_json::to_string_pretty(&[&two, &three]).unwrap();
    for (receipts, count) in [
        (format!("{}\n", answers[0]), 1),
        (format!("{one}\n{}\n\n{three}", answers[1]), 3),
        (json!([one, answers[1], three]).to_string(), 3),
        (format!(" {one}{pretty}[]"), 3),
    ] {
        let ran = verify(at, &receipts);
        assert_eq!((ran.code, ran.out.matches("VALID  ").count()), (0, count), "{ran:?}");
        assert_eq!(ran.out.ends_with("\n3 receipts, 3 valid, 0 not\n"), count == 3, "{ran:?}");
    }
    fs::write(at.join("receipts.jsonl"), format!("{one}\n{two}\n")).unwrap();
    let ran = rationd(at, &["receipt", "verify", "--key", "receipt-key.toml", "receipts.jsonl"], "");
    assert_eq!(ran.code, 0, "{ran:?}");

    // As typed from paper, and as a client prints it that knows the interface alone.
    let mut typed = one.clone();
    typed["mac"] = one["mac"].as_str().unwrap().to_uppercase().into();
    typed["durability"] = "DURABILITY_SYNCED".into();
    assert_eq!(verify(at, &typed.to_string()).code, 0);
}

#[test]
fn what_was_changed_is_not_valid() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let service = served(at);
    let receipt = sold(&service, 1)["receipt"].clone();
    service.stop();
    let changes = [
        ("ledger_id", RequestId::random().to_string().into()),
        ("request_id", RequestId::random().to_string().into()),
        ("programme", "kr-public-mask-2020".into()),
        ("site", "11000002".into()),
        ("quantity", 2.into()),
        ("sold_at", "2020-06-20T09:00:00.001+09:00".into()),
        ("durability", "VOLATILE".into()),
        ("simulated_clock", false.into()),
        ("late", true.into()),
        ("partition", (receipt["partition"].as_u64().unwrap() ^ 1).into()),
        ("mac", "0".repeat(32).into()),
        ("key_id", "00000000".into()),
    ];
    assert_eq!(changes.len(), receipt.as_object().unwrap().len(), "every field");
    for (field, to) in changes {
        let mut changed = receipt.clone();
        changed[field] = to;
        let (code, said) = verdicts(at, &format!("{receipt}{changed}"));
        let expected = if field == "key_id" { "UNKNOWN_KEY" } else { "NOT_VALID" };
        assert_eq!((code, said[0].0.as_str(), said[1].0.as_str()), (1, "VALID", expected), "{field}: {said:?}");

        let mut without = receipt.clone();
        without.as_object_mut().unwrap().remove(field);
        assert_eq!(
            verdicts(at, &without.to_string()),
            (1, vec![("MALFORMED".into(), vec![format!("{field}: is missing")])])
        );
        let mut odd = receipt.clone();
        odd[field] = json!([]);
        let (code, said) = verdicts(at, &odd.to_string());
        assert!(code == 1 && said[0].1[0].starts_with(&format!("{field}: must be ")), "{field}: {said:?}");
    }
    // All that is wrong with one is told at once, and nothing stands in it that the MAC does not cover.
    let mut bad = receipt.clone();
    for (field, value) in
        [("site", "a b"), ("sold_at", "2020-06-20T09:00:00.0001+09:00"), ("mac", "1"), ("buyer", "somebody")]
    {
        bad[field] = value.into();
    }
    let ran = verify(at, &format!("[{receipt}, {bad}]"));
    println!("{}", ran.out);
    let told: Vec<_> = ran.out.lines().skip(1).collect();
    let id = receipt["request_id"].as_str().unwrap();
    assert_eq!(
        told,
        [
            format!("MALFORMED    request id {id}"),
            "  site: a site code must be 1 to 16 letters, digits, hyphens or underscores, and no person's number"
                .to_owned(),
            "  sold_at: must be an instant to the millisecond, with its offset".to_owned(),
            "  mac: must be 32 hexadecimal digits".to_owned(),
            "  buyer: is no field of a receipt".to_owned(),
            "2 receipts, 1 valid, 1 not".to_owned(),
        ]
    );
    let refusal = verdicts(at, r#"{"decision":"QUOTA_EXHAUSTED","receipt":null}"#);
    assert_eq!(refusal, (1, vec![("MALFORMED".into(), vec!["receipt: this answer has none".into()])]));
}

#[test]
fn a_receipt_of_another_key_is_told_apart_and_the_codes_are_those_of_every_command() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let receipts = [&here, &there].map(|directory| {
        let service = served(directory.path());
        let receipt = sold(&service, 1)["receipt"].clone();
        service.stop();
        receipt
    });
    let [ours, theirs] = &receipts;
    assert_ne!(ours["key_id"], theirs["key_id"]);
    let both = format!("{ours}\n{theirs}\n");
    let told = verify(here.path(), &both);
    println!("{}", told.out);
    let key_id = theirs["key_id"].as_str().unwrap();
    let unknown = format!("\n  key_id: {key_id} is none of the given keys; name its file with --key\n");
    assert!(told.code == 1 && told.out.contains("\nUNKNOWN_KEY ") && told.out.contains(&unknown), "{told:?}");
    let other = there.path().join("receipt-key.toml");
    let both_keys = ["receipt", "verify", "--key", "receipt-key.toml", "--key", other.to_str().unwrap()];
    let ran = rationd(here.path(), &both_keys, &both);
    assert_eq!((ran.code, ran.out.lines().last()), (0, Some("2 receipts, 2 valid, 0 not")), "{ran:?}");

    // 2: the arguments, or what is no JSON, after what could be read of it.
    let no_key = rationd(here.path(), &["receipt", "verify"], &both);
    assert!(no_key.code == 2 && no_key.err.contains("--key <FILE>"), "{no_key:?}");
    for (input, why) in [
        ("", "there is no receipt to check"),
        ("[]", "there is no receipt to check"),
        ("receipt", "what follows receipt 0 cannot be read: expected value at line 1 column 1"),
        (
            "[7]",
            "what follows receipt 0 cannot be read: invalid type: integer `7`, expected a receipt or a list of them",
        ),
        (&both[..both.len() - 9], "what follows receipt 1 cannot be read: EOF while parsing"),
    ] {
        let ran = verify(here.path(), input);
        assert!(ran.code == 2 && ran.err.starts_with(why), "{input:?}: {ran:?}");
    }
    let absent = rationd(here.path(), &["receipt", "verify", "--key", "receipt-key.toml", "none.json"], "");
    assert!(absent.code == 2 && absent.err.starts_with("none.json: cannot be read: "), "{absent:?}");

    // 64: the key. The service's own key file is none that is to be handed round.
    for (keys, why) in [
        ("none.toml", "none.toml: does not exist: `rationd receipt key` makes it"),
        ("rationd-data-simulated/keys.toml", "partition.key: is not a setting"),
    ] {
        let ran = rationd(here.path(), &["receipt", "verify", "--key", keys], &both);
        assert!(ran.code == 64 && ran.err.contains(why), "{ran:?}");
    }
    let hand = ["receipt", "key", "--keys", "rationd-data-simulated/keys.toml", "--out", "receipt-key.toml"];
    let again = rationd(here.path(), &hand, "");
    assert!(again.code == 64 && again.err.starts_with("receipt-key.toml: cannot be made: "), "{again:?}");
    let hidden = fs::read_to_string(here.path().join("rationd-data-simulated/keys.toml")).unwrap();
    let handed = fs::read_to_string(here.path().join("receipt-key.toml")).unwrap();
    let secrets =
        |text: &str| text.lines().filter(|line| line.starts_with("key = ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((secrets(&hidden).len(), secrets(&handed).len()), (3, 1));
    assert!(!secrets(&hidden).contains(&secrets(&handed)[0]), "none of the service's own keys is handed out");
}
