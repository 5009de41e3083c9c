//! Who is calling, over TLS: what each kind of certificate may do, and what none may.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rationd::certs::{Authority, Pem, Subject};
use rationd::grpc::v1::{self, operator_service_client::OperatorServiceClient, purchase_stream_request::Call};
use rationd::terminal::{Connection, Operator, Tls};
use rationd::time::{Clock, SystemClock};
use rcgen::{SanType, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use super::harness::*;

const MONDAY: &str = "2020-06-15T09:00:00+09:00";

/// An authority of a test's own, and a service that believes it.
pub struct Encrypted {
    pub authority: Authority,
    pub ca: String,
    pub ca_key: String,
    pub world: World,
    pub service: Service,
}

impl Encrypted {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(World::embedded(), settings).await
    }

    pub async fn start_in(world: World, settings: &[(&str, &str)]) -> Self {
        let (authority, own) = Authority::new(SystemClock::real().now()).unwrap();
        let server = authority.issue(&Subject::Service(vec!["127.0.0.1".into()])).unwrap();
        let files = [
            ("TLS__CERTIFICATE", world.write("server.pem", &server.certificate)),
            ("TLS__KEY", world.write("server.key", &server.key)),
            ("TLS__CLIENT_CA", world.write("ca.pem", &own.certificate)),
            ("TLS__REVOKED", world.write("revoked.pem", &authority.revoked(&[]).unwrap())),
        ];
        std::fs::set_permissions(world.path("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let files = files.iter().map(|(name, file)| (*name, file.as_str()));
        let settings: Vec<_> = files.chain(settings.iter().copied()).collect();
        let service = world.serve_with(MONDAY, &settings).await;
        Self { authority, ca: own.certificate, ca_key: own.key.to_string(), world, service }
    }

    pub fn site(&self, code: &str) -> Pem {
        self.issue(Subject::Site(code.parse().unwrap()))
    }

    pub fn terminal(&self, code: &str, name: &str) -> Pem {
        self.issue(Subject::Terminal(code.parse().unwrap(), name.parse().unwrap()))
    }

    pub fn gateway(&self, name: &str) -> Pem {
        self.issue(Subject::Gateway(name.parse().unwrap()))
    }

    pub fn operator(&self) -> Pem {
        self.issue(Subject::Operator("kim".parse().unwrap()))
    }

    pub fn issue(&self, subject: Subject) -> Pem {
        self.authority.issue(&subject).unwrap()
    }

    /// Where it listens, by an address that stands in its certificate.
    pub fn counters(&self) -> String {
        format!("https://127.0.0.1:{}", self.service.address().rsplit(':').next().unwrap())
    }

    pub fn admin(&self) -> String {
        self.service.admin().replace("http:", "https:")
    }

    pub fn feed(&self) -> String {
        self.service.feed().replace("http:", "https:")
    }

    /// What a client of the library shows.
    pub fn shows(&self, pem: Option<&Pem>) -> Tls {
        let identity = pem.map(|pem| (pem.certificate.clone().into_bytes(), pem.key.as_bytes().to_vec()));
        Tls { authorities: self.ca.clone().into_bytes(), identity }
    }

    pub async fn channel_to(&self, address: String, pem: Option<&Pem>) -> Channel {
        self.channel_of(&self.ca, address, pem).await
    }

    /// Of a client who believes this authority about the service.
    pub async fn channel_of(&self, ca: &str, address: String, pem: Option<&Pem>) -> Channel {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        let tls = match pem {
            Some(pem) => tls.identity(Identity::from_pem(&pem.certificate, pem.key.as_bytes())),
            None => tls,
        };
        Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap().connect().await.unwrap()
    }

    /// A caller with this certificate who names this site and terminal; "" names none.
    pub async fn caller(&self, pem: &Pem, site: &str, terminal: &str) -> Caller {
        let channel = self.channel_to(self.counters(), Some(pem)).await;
        Caller { channel, site: site.into(), terminal: terminal.into(), token: None }
    }
}

pub fn masks(serial: u32) -> Visit {
    Visit::in_person(&number("900101", '1', serial), 1)
}

pub async fn admitted(caller: &Caller) -> Counter {
    match caller.open().await.unwrap() {
        Opened::Admitted(counter) => *counter,
        Opened::Full(full) => panic!("{full:?}"),
    }
}

/// Why a session is not opened.
async fn not_opened(caller: &Caller, code: Code) -> String {
    reason(caller.open().await.map(|_| ()), code)
}

/// Why everything for which a token is shown is refused: each call by itself, and one over a stream.
async fn refused(caller: &Caller, code: Code) -> Vec<String> {
    let hour = Duration::from_secs(3_600);
    let mut reasons = vec![
        reason(caller.purchase(&masks(900)).await, code),
        reason(caller.hold(&masks(900), hour).await, code),
        reason(caller.check(&masks(900)).await, code),
        reason(caller.resolve(&masks(900).known(0)).await, code),
        reason(caller.void(&masks(900).known(0)).await, code),
        reason(caller.renew().await, code),
        reason(caller.close().await, code),
    ];
    let session_token = caller.token.clone().unwrap_or_default();
    let call = Some(Call::Purchase(masks(900).purchase()));
    let asked = v1::PurchaseStreamRequest { call_id: 1, session_token, call };
    let request = caller.without_session().request(tokio_stream::iter([asked]));
    let mut answers = caller.purchases().purchase_stream(request).await.unwrap().into_inner();
    let failure = answers.message().await.unwrap().unwrap().failure.unwrap();
    assert!(!failure.outcome_unknown && failure.code == code as i32, "{failure:?}");
    reasons.push(failure.reason);
    reasons.dedup();
    reasons
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_sells_with_its_certificate() {
    let tls = Encrypted::start(&[]).await;
    for (named, serial) in [("", 1), (SEJONG, 2)] {
        let caller = tls.caller(&tls.site(SEJONG), named, "w1").await;
        assert_eq!(said(&caller.look_up(&masks(serial)).await), "MAY_BUY");
        let counter = admitted(&caller).await;
        let visit = masks(serial);
        assert_eq!(receipt(&counter.sell(&visit).await).site, SEJONG);
        assert_eq!(said(&caller.resolve(&visit.known(0)).await.unwrap()), "APPROVED");
        assert!(counter.renew().await.is_ok() && counter.close().await.unwrap());
    }
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_acts_for_itself_alone() {
    let tls = Encrypted::start(&[]).await;
    let pem = tls.site(SEJONG);
    for other in [BOM, "99999999", "no code"] {
        let caller = tls.caller(&pem, other, "w1").await;
        assert_eq!(not_opened(&caller, Code::PermissionDenied).await, "SITE_NOT_YOURS", "{other}");
        assert_eq!(reason(caller.check(&masks(1)).await, Code::PermissionDenied), "SITE_NOT_YOURS", "{other}");
        let resolved = caller.resolve(&masks(1).known(0)).await;
        assert_eq!(reason(resolved, Code::PermissionDenied), "SITE_NOT_YOURS", "{other}");
    }
    // A site that has left the registry is no site any more.
    let caller = tls.caller(&tls.site("99999999"), "", "w1").await;
    assert_eq!(not_opened(&caller, Code::Unauthenticated).await, "SITE_UNKNOWN");
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_terminal_is_that_terminals_alone() {
    let tls = Encrypted::start(&[("SESSIONS__CAP_DEFAULT", "3")]).await;
    let pem = tls.terminal(SEJONG, "w1");
    let another = tls.caller(&pem, SEJONG, "w2").await;
    assert_eq!(not_opened(&another, Code::PermissionDenied).await, "TERMINAL_NOT_YOURS");
    assert_eq!(reason(another.check(&masks(1)).await, Code::PermissionDenied), "TERMINAL_NOT_YOURS");
    let unnamed = tls.caller(&pem, "", "").await;
    assert_eq!(said(&unnamed.look_up(&masks(1)).await), "MAY_BUY");
    let counter = admitted(&tls.caller(&pem, "", "w1").await).await;
    assert_eq!(said(&counter.sell(&masks(1)).await), "APPROVED");
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_acts_for_the_sites_that_the_registry_gives_it() {
    const HEADER: &str = "code,name,channel,region,address,lat,lng,gateway";
    let registry = |of_bom: &str| {
        let line = |code: &str, gateway: &str| format!("{code},A,pharmacy,Seoul,Seoul Jongno-gu,,,{gateway}\n");
        let lines = [line(SEJONG, "vendor"), line(BOM, of_bom), line("3", ""), line("4", "another")];
        format!("{HEADER}\n{}", lines.concat())
    };
    let world = World::embedded();
    let sites = world.write("sites.csv", &registry("vendor"));
    let tls = Encrypted::start_in(world, &[("SITES", &sites)]).await;
    let pem = tls.gateway("vendor");
    let mut counters = Vec::new();
    for (serial, site) in [(1, SEJONG), (2, BOM)] {
        let counter = admitted(&tls.caller(&pem, site, "pos").await).await;
        assert_eq!(receipt(&counter.sell(&masks(serial)).await).site, site);
        counters.push(counter);
    }
    for (site, code, why) in [
        ("", Code::Unauthenticated, "SITE_REQUIRED"),
        ("99999999", Code::Unauthenticated, "SITE_UNKNOWN"),
        ("3", Code::PermissionDenied, "SITE_NOT_YOURS"),
        ("4", Code::PermissionDenied, "SITE_NOT_YOURS"),
    ] {
        let caller = tls.caller(&pem, site, "pos").await;
        assert_eq!(not_opened(&caller, code).await, why, "{site}");
        assert_eq!(reason(caller.check(&masks(1)).await, code), why, "{site}");
    }
    // What the registry takes away is gone with the next reading, and with it the sessions that were opened.
    tls.world.write("sites.csv", &registry(""));
    until("the registry to be read again", || async { counters[1].check(&masks(9)).await.is_err() }).await;
    assert_eq!(refused(&counters[1].caller, Code::PermissionDenied).await, ["SITE_NOT_YOURS"]);
    assert_eq!(said(&counters[0].sell(&masks(3)).await), "APPROVED");
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_only_with_the_key_to_which_it_was_given() {
    let tls = Encrypted::start(&[("SESSIONS__CAP_DEFAULT", "3")]).await;
    let seller = admitted(&tls.caller(&tls.site(SEJONG), "", "w1").await).await;
    let visit = masks(1);
    assert_eq!(said(&seller.sell(&visit).await), "APPROVED");
    let before = tls.world.stored().await;
    // Those who may act for the same site are no exception.
    for pem in [tls.site(SEJONG), tls.terminal(SEJONG, "w1"), tls.gateway("demo-gateway"), tls.site(BOM)] {
        let thief = Caller { token: seller.token.clone(), ..tls.caller(&pem, SEJONG, "w1").await };
        assert_eq!(refused(&thief, Code::PermissionDenied).await, ["SESSION_NOT_YOURS"]);
    }
    assert!(tls.world.stored().await == before, "nothing was recorded");
    // What was not given out at all is told as before.
    let forged = seller.token.as_ref().map(|token| format!("{}00", &token[..token.len() - 2]));
    let forger = Caller { token: forged, ..seller.caller.clone() };
    assert_eq!(refused(&forger, Code::Unauthenticated).await, ["SESSION_INVALID"]);
    assert_eq!(said(&seller.sell(&masks(2)).await), "APPROVED", "its holder sells on");
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sells_nothing_and_nobody_else_exports() {
    let tls = Encrypted::start(&[]).await;
    let operator = tls.caller(&tls.operator(), SEJONG, "w1").await;
    assert_eq!(not_opened(&operator, Code::PermissionDenied).await, "NOT_A_SITE");
    assert_eq!(reason(operator.check(&masks(1)).await, Code::PermissionDenied), "NOT_A_SITE");
    assert_eq!(reason(operator.purchase(&masks(1)).await, Code::PermissionDenied), "NOT_A_SITE");
    assert_eq!(said(&admitted(&tls.caller(&tls.site(SEJONG), "", "w1").await).await.sell(&masks(1)).await), "APPROVED");

    let export = |channel: Channel| async move {
        let request = v1::ExportRecordsRequest { programme: MASKS.into() };
        OperatorServiceClient::new(channel).export_records(request).await.map(|_| ())
    };
    for pem in [tls.site(SEJONG), tls.terminal(SEJONG, "w1"), tls.gateway("demo-gateway")] {
        let channel = tls.channel_to(tls.admin(), Some(&pem)).await;
        assert_eq!(reason(export(channel).await, Code::PermissionDenied), "NOT_AN_OPERATOR");
    }
    // Loopback is no excuse once there are certificates.
    let in_the_clear = Endpoint::from_shared(tls.service.admin()).unwrap().connect().await.unwrap();
    assert_eq!(reason(export(in_the_clear).await, Code::Unauthenticated), "CERTIFICATE_REQUIRED");
    let shows_none = tls.channel_to(tls.admin(), None).await;
    assert_eq!(reason(export(shows_none).await, Code::Unauthenticated), "CERTIFICATE_REQUIRED");

    let connection = Connection::open(&tls.admin(), Some(&tls.shows(Some(&tls.operator())))).await.unwrap();
    assert_eq!(Operator::on(&connection).export(MASKS).await.unwrap().records.len(), 1);
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_answered_in_the_clear_and_over_tls() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let tls = Encrypted::start(&[]).await;
    let in_the_clear = Endpoint::from_shared(tls.service.admin()).unwrap().connect().await.unwrap();
    for channel in [in_the_clear, tls.channel_to(tls.admin(), None).await] {
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
    }
    let mut socket = TcpStream::connect(tls.service.admin().trim_start_matches("http://")).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_without_a_good_certificate() {
    let tls = Encrypted::start(&[]).await;
    let (another, foreign_ca) = Authority::new(SystemClock::real().now()).unwrap();
    let foreign = another.issue(&Subject::Site(SEJONG.parse().unwrap())).unwrap();
    let mut params = Subject::Site(SEJONG.parse().unwrap()).params().unwrap();
    params.not_after = date_time_ymd(2020, 3, 11);
    let expired = tls.authority.sign(&params).unwrap();
    let server = tls.issue(Subject::Service(vec!["127.0.0.1".into()]));
    for shown in [None, Some(&foreign), Some(&expired), Some(&server)] {
        let told = Connection::open(&tls.counters(), Some(&tls.shows(shown))).await.err().unwrap().to_string();
        assert!(told.contains("the service does not accept the certificate that was shown"), "{told}");
    }
    let mistaken = Tls { authorities: foreign_ca.certificate.into_bytes(), ..tls.shows(Some(&server)) };
    let told = Connection::open(&tls.counters(), Some(&mistaken)).await.err().unwrap().to_string();
    assert!(told.contains("own certificate is not believed"), "{told}");
    // In the clear nothing is answered.
    let mut socket = TcpStream::connect(tls.service.address().trim_start_matches("http://")).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.is_empty() && answer[0] == 0x15, "a TLS alert and nothing else: {answer:?}");

    let mut params = tls.authority_params(&["rationd://site/11000001", "rationd://operator/kim"]);
    for names in [2, 0] {
        params.subject_alt_names.truncate(names);
        let caller = tls.caller(&tls.authority.sign(&params).unwrap(), SEJONG, "w1").await;
        assert_eq!(not_opened(&caller, Code::Unauthenticated).await, "CERTIFICATE_UNCLEAR");
        assert_eq!(reason(caller.check(&masks(1)).await, Code::Unauthenticated), "CERTIFICATE_UNCLEAR");
    }
    tls.service.stop().await;
}

impl Encrypted {
    fn authority_params(&self, names: &[&str]) -> rcgen::CertificateParams {
        let mut params = Subject::Site(SEJONG.parse().unwrap()).params().unwrap();
        params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        params
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stand_still_hold_up_nobody_and_are_ended() {
    let tls = Encrypted::start(&[]).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        for address in [tls.service.address(), tls.service.admin()] {
            silent.push(TcpStream::connect(address.trim_start_matches("http://")).await.unwrap());
        }
    }
    let begun = Instant::now();
    let counter = admitted(&tls.caller(&tls.site(SEJONG), "", "w1").await).await;
    assert_eq!(said(&counter.sell(&masks(1)).await), "APPROVED");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    for mut socket in silent {
        let ended = tokio::time::timeout(IN_TIME, socket.read(&mut [0; 8])).await.expect("an end");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_certificates_it_listens_off_loopback() {
    let tls = Encrypted::start(&[("COUNTERS__LISTEN", "0.0.0.0:0"), ("ADMIN__LISTEN", "0.0.0.0:0")]).await;
    let counter = admitted(&tls.caller(&tls.site(SEJONG), "", "w1").await).await;
    assert_eq!(said(&counter.sell(&masks(1)).await), "APPROVED");
    let admin = tls.admin().replace("0.0.0.0", "127.0.0.1");
    let connection = Connection::open(&admin, Some(&tls.shows(Some(&tls.operator())))).await.unwrap();
    assert_eq!(Operator::on(&connection).export(MASKS).await.unwrap().records.len(), 1);
    tls.service.stop().await;
}

/// A stop ends a stream over TLS in order, as it does in the clear.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_told_over_tls() {
    let tls = Encrypted::start(&[]).await;
    let mut counter = admitted(&tls.caller(&tls.site(SEJONG), "", "w1").await).await;
    let stopping = tokio::spawn(tls.service.stop());
    let end = tokio::time::timeout(IN_TIME, counter.events.message()).await.expect("in time");
    let ended: Result<_, Status> = end.map(|event| event.and_then(|event| event.event));
    let Ok(Some(v1::open_session_response::Event::Ended(ended))) = ended else { panic!("{ended:?}") };
    assert_eq!(ended.why(), v1::SessionEnd::Draining);
    drop(counter);
    stopping.await.unwrap();
}

/// A client of TLS that remembers its sessions, as they all do.
fn remembers(tls: &Encrypted, pem: Option<&Pem>, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(tls.ca.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
    let mut config = match pem {
        Some(pem) => {
            let chain = vec![CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols.push(b"h2".to_vec());
    TlsConnector::from(Arc::new(config))
}

/// Whoever takes up a session again shows no certificate: one that was revoked or has expired since would not be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_up_a_session_again() {
    let tls = Encrypted::start(&[]).await;
    let site = tls.site(SEJONG);
    for (address, pem) in [(tls.counters(), Some(&site)), (tls.admin(), Some(&site)), (tls.admin(), None)] {
        for version in [&TLS12, &TLS13] {
            let client = remembers(&tls, pem, version);
            for _ in 0..3 {
                let socket = TcpStream::connect(address.trim_start_matches("https://")).await.unwrap();
                let name = "127.0.0.1".try_into().unwrap();
                let mut stream = client.connect(name, socket).await.unwrap();
                stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
                // It is let in, and has been told all that comes before.
                stream.read_exact(&mut [0; 9]).await.unwrap();
                let connection = stream.get_ref().1;
                assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full), "{address} {version:?}");
                assert_eq!(connection.tls13_tickets_received(), 0, "{address} {version:?}");
            }
        }
    }
}
