//! Every call that takes a number, made with canaries: as it should be, mistyped, and in places where no number belongs.

use std::path::Path;
use std::process::Command;

use rationd::grpc::v1;
use rationd::ids::{RequestId, TerminalId};
use rationd::terminal::{CallError, Operator};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use super::traces::Artefacts;
use super::{ANSWER, CANARIES, MISTYPED, OPAQUE};
use crate::program::service::{Service, rationd, run};
use crate::program::shops::{PROGRAMME, buyer, get, purchase};
use crate::support::collector::Collector;

/// Everything is logged and traced, and sent at once.
pub const HEARD: [(&str, &str); 5] = [
    ("OTEL_TRACES_SAMPLER", "always_on"),
    ("RATIOND_TELEMETRY__LOG_FILTER", "trace"),
    ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
];
const ID: &str = "0190b7a4-0000-4000-8000-0000000000";

/// Where it is sent.
pub fn heard_by(collector: &Collector) -> (&'static str, &str) {
    ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
}

pub async fn every_kind(service: &Service, directory: &Path, collector: &Collector, artefacts: &mut Artefacts) {
    tokio::task::block_in_place(|| {
        commands(service, directory, collector, artefacts);
        operators(service, directory, artefacts);
    });
    misuse(service, artefacts).await;
    gateway(service, artefacts).await;
    strange(service, artefacts).await;
    let operator = Operator::connect(&format!("http://{}", service.admin)).await.unwrap();
    let export = operator.export(PROGRAMME).await.unwrap();
    assert!(export.records.len() >= CANARIES.len());
    artefacts.push(("export".into(), format!("{:?}", export.records).into_bytes()));
}

/// Keeps what a command said, which must end so.
fn keep(arguments: &[&str], (ran, code): (crate::program::service::Ran, i32), artefacts: &mut Artefacts) {
    assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    artefacts.push((format!("{ANSWER}{arguments:?}"), format!("{}{}", ran.out, ran.err).into_bytes()));
}

/// The commands of a counter, whose own telemetry is sent too.
fn commands(service: &Service, directory: &Path, collector: &Collector, artefacts: &mut Artefacts) {
    let mut call = |arguments: &[&str], stdin: &str, code: i32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rationd"));
        command.args(arguments).args(["--address", &service.address]).envs([heard_by(collector)]);
        keep(arguments, (run(command, directory, stdin), code), artefacts);
    };
    let id = |nth: u8| format!("{ID}{nth:02}");
    for (nth, number) in (0..).zip(CANARIES) {
        let (sale, hold) = (id(nth), id(10 + nth));
        call(&["check", "-n", "2", "--json"], number, 0);
        call(&["sell", "-n", "1", "--request-id", &sale], number, 0);
        call(&["sell", "-n", "1", "--request-id", &sale, "--json"], number, 0);
        call(&["sell", "-n", "2", "--request-id", &sale], number, 3);
        call(&["sell", "-n", "2"], number, 1);
        call(&["hold", "--request-id", &hold], number, 0);
        call(&["confirm", "--request-id", &hold], number, 0);
        call(&["release", "--request-id", &hold], number, 1);
        call(&["void", "--request-id", &sale], number, 0);
        call(&["void", "--request-id", &sale, "--site", "11000002"], number, 1);
        call(&["resolve", "--request-id", &sale], number, 1);
        call(&["resolve", "--request-id", &id(20 + nth)], number, 1);
        call(&["sell", "--relation", "family", "--agent-birth-year", "1980"], number, 1);
        call(&["check", "--programme", "kr-public-mask-2020", "-n", "2"], number, 0);
        call(&["check", "-n", "0"], number, 2);
        // Numbers in places where they do not belong.
        call(&["check", "--birth-date", "1977-07-07"], number, 2);
        call(&["check", "--birth-date", number], "card-1", 2);
        call(&["check", "--number", number], "", 2);
    }
    for number in MISTYPED {
        call(&["check"], number, 2);
        call(&["sell", "--json"], number, 2);
        call(&["void", "--request-id", &id(30)], number, 2);
    }
    let own = ["--programme", "us-pse-nplex", "--birth-date", "1977-07-07", "-n", "1000"];
    call(&[&["check"], &own[..]].concat(), OPAQUE, 0);
    call(&[&["sell", "--json"], &own[..]].concat(), OPAQUE, 0);
    call(&["health"], "", 0);
}

/// The commands of whoever runs the service.
fn operators(service: &Service, directory: &Path, artefacts: &mut Artefacts) {
    let admin = format!("http://{}", service.admin);
    let mut call = |arguments: &[&str], stdin: &str, code: i32| {
        let all = [&["operator", "--address", &admin], arguments].concat();
        keep(&all, (rationd(directory, &all, stdin), code), artefacts);
    };
    let why = ["--reason", "not theirs, ticket 7"];
    let (number, hold) = (CANARIES[0], format!("{ID}10"));
    call(&[&["look-up"], &why[..]].concat(), number, 0);
    call(&[&["look-up", "--json"], &why[..]].concat(), number, 0);
    call(&["look-up", "--reason", number], number, 2);
    call(&["look-up", "--reason", &format!("asks for {}", number.replace('-', " "))], number, 2);
    call(&[&["void", "--request-id", &hold, "--site", "11000001"], &why[..]].concat(), number, 0);
    call(&[&["void", "--request-id", &hold, "--site", "11000002"], &why[..]].concat(), number, 1);
    call(&[&["look-up"], &why[..]].concat(), MISTYPED[0], 2);
    call(&["mode", "open", "--reason", number], "", 2);
    for (file, code) in [(format!("mode = \"{number}\"\n"), 2), (format!("# for {number}\nmode = \"open\"\n"), 0)] {
        std::fs::write(directory.join("switches.toml"), file).unwrap();
        call(&["apply", "switches.toml"], "", code);
    }
    call(&["show"], "", 0);
    for format in ["json", "csv"] {
        let all = ["events", "--address", &admin, "--format", format, "--cursor", "events.cursor"];
        let ran = rationd(directory, &all, "");
        assert!(ran.out.contains("sold"), "nothing has happened: {ran:?}");
        keep(&all, (ran, 0), artefacts);
        let cursor = std::fs::read(directory.join("events.cursor")).unwrap();
        artefacts.push(("a cursor".into(), cursor));
        std::fs::remove_file(directory.join("events.cursor")).unwrap();
    }
    std::fs::remove_file(directory.join("switches.toml")).unwrap();
}

/// Fields of the wire that a broken client may put a number into, and bytes that are no message.
async fn misuse(service: &Service, artefacts: &mut Artefacts) {
    let (terminal, session) = service.session("11000003", "misuse").await;
    let mut keep = |error: CallError| artefacts.push(("error".into(), error.to_string().into_bytes()));
    for number in CANARIES {
        let good = || purchase(number, 1, RequestId::random());
        let spoils: [fn(&mut v1::PurchaseRequest, &str); 9] = [
            |visit, number| visit.programme = number.into(),
            |visit, number| visit.lines[0].request_id = number.into(),
            |visit, number| visit.lines[0].relation = number.into(),
            |visit, number| visit.lines[0].relation = number.replace('-', ""),
            |visit, number| visit.lines[0].papers = vec![number.into()],
            |visit, number| visit.lines[0].papers = vec![number.replace('-', "")],
            |visit, number| visit.programme = number.replace('-', ""),
            |visit, number| visit.ledger_id = number.into(),
            |visit, _| visit.lines.push(visit.lines[0].clone()),
        ];
        for spoil in spoils {
            let mut visit = good();
            spoil(&mut visit, number);
            keep(session.purchase(visit).await.unwrap_err());
        }
        let huge = v1::GetPurchaseRequest { request_id: number.repeat(4_000), ..get(number, RequestId::random()) };
        keep(terminal.resolve(huge).await.unwrap_err());
        assert!(number.parse::<TerminalId>().is_err());
    }
    session.close().await.unwrap();
}

/// Every call over a gateway's stream.
async fn gateway(service: &Service, artefacts: &mut Artefacts) {
    let (terminal, session) = service.session("11000003", "gateway").await;
    let gateway = terminal.gateway().await.unwrap();
    let token = session.admitted.session_token.clone();
    for number in CANARIES.into_iter().chain(MISTYPED) {
        let visit = || purchase(number, 1, RequestId::random());
        let v1::PurchaseRequest { programme, lines, .. } = visit();
        let (whose, request_id) = (buyer(number), RequestId::random().to_string());
        let hold_for = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let check =
            v1::CheckPurchaseRequest { programme: programme.clone(), lines: lines.clone(), ..Default::default() };
        let hold = v1::HoldPurchaseRequest { programme: programme.clone(), lines, hold_for, ..Default::default() };
        let confirm = v1::ConfirmHoldRequest {
            programme: programme.clone(),
            buyer: whose.clone(),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let release = v1::ReleaseHoldRequest {
            programme: programme.clone(),
            buyer: whose.clone(),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let void = v1::VoidPurchaseRequest { programme, buyer: whose, request_id, ..Default::default() };
        let answers = [
            gateway.call(&token, visit()).await,
            gateway.call(number, visit()).await,
            gateway.call(&token, check).await,
            gateway.call(&token, hold).await,
            gateway.call(&token, confirm).await,
            gateway.call(&token, release).await,
            gateway.call(&token, void).await,
            gateway.call(&token, get(number, RequestId::random())).await,
        ];
        artefacts.extend(answers.map(|answer| (format!("{ANSWER}a call on a stream"), format!("{answer:?}").into())));
    }
    session.close().await.unwrap();
}

/// A method, a site, a token and metadata that are numbers, and a terminal that is called like one.
async fn strange(service: &Service, artefacts: &mut Artefacts) {
    let channel = Endpoint::from_shared(service.address.clone()).unwrap().connect().await.unwrap();
    let mut client = Grpc::new(channel);
    for number in CANARIES {
        for path in [format!("/rationd.v1.PurchaseService/{number}"), format!("/{number}/Purchase?{number}")] {
            let metadata = ["rationd-site", "rationd-session", "user-agent", "x-number", "baggage", number];
            for name in metadata.into_iter().chain(["tracestate", "traceparent", "grpc-timeout"]) {
                let mut request =
                    tonic::Request::new(v1::OpenSessionRequest { terminal: number.into(), ..Default::default() });
                let value: AsciiMetadataValue =
                    if name == "tracestate" { format!("shop={number}") } else { number.into() }.parse().unwrap();
                request.metadata_mut().insert(AsciiMetadataKey::from_bytes(name.as_bytes()).unwrap(), value);
                if name == "tracestate" {
                    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
                    request.metadata_mut().insert("traceparent", parent);
                }
                client.ready().await.unwrap();
                let codec = ProstCodec::<v1::OpenSessionRequest, v1::OpenSessionResponse>::default();
                let path: PathAndQuery =
                    if name == number { "/rationd.v1.SessionService/OpenSession".parse() } else { path.parse() }
                        .unwrap();
                let error = client.unary(request, path, codec).await.unwrap_err();
                artefacts.push(("error".into(), format!("{error:?}").into()));
            }
        }
    }
}

/// Calls that the store does not answer any more.
pub async fn without_a_store(service: &Service, ends: impl FnOnce(), artefacts: &mut Artefacts) {
    let (terminal, session) = service.session("11000003", "left-alone").await;
    ends();
    for number in CANARIES {
        let error = session.purchase(purchase(number, 1, RequestId::random())).await.unwrap_err();
        artefacts.push(("error".into(), format!("{error:?}").into()));
        let error = terminal.resolve(get(number, RequestId::random())).await.unwrap_err();
        artefacts.push(("error".into(), format!("{error:?}").into()));
    }
}
