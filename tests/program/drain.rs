//! A rolling restart under load, with peers that do nothing to help: every instance ends in time, and nobody who goes to
//! another one notices.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rationd::grpc::v1::purchase_result::Outcome;
use rationd::ids::RequestId;
use rationd::terminal::{Connection, Opened, Session, Terminal, Tls};
use rationd::time::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::service::{Service, rationd};
use super::shops::{MANY_SEATS, SATURDAY, SITES, bought, number, purchase, sell};
use super::tls::SERVED;
use crate::support::raw::StuckReader;
use crate::support::redis::RedisServer;

const INSTANCES: usize = 3;
const SELLERS: usize = 12;
/// A call that is not through by then has failed.
const IN_TIME: Duration = Duration::from_secs(15);
/// The bound that is promised.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// Where the instances listen now, and the certificates for them.
struct Fleet {
    addresses: Mutex<Vec<String>>,
    tls: Tls,
}

impl Fleet {
    /// A connection to any instance that takes one, beginning with the nth.
    async fn connect(&self, from: usize) -> Connection {
        for nth in from.. {
            let address = {
                let addresses = self.addresses.lock().unwrap();
                addresses[nth % addresses.len()].clone()
            };
            match Connection::open(&address, Some(&self.tls)).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        unreachable!()
    }
}

fn certificate(directory: &Path, who: &str) -> [Vec<u8>; 2] {
    ["pem", "key"].map(|kind| std::fs::read(directory.join(format!("rationd-certs/{who}.{kind}"))).unwrap())
}

/// A connection over TLS that is spoken over by hand.
pub async fn shake_hands(directory: &Path, who: &str, address: &str) -> TlsStream<tokio::net::TcpStream> {
    shake_hands_over(tokio::net::TcpSocket::new_v4().unwrap(), directory, who, address).await
}

/// The same over a socket of the caller's own.
pub async fn shake_hands_over(
    socket: tokio::net::TcpSocket,
    directory: &Path,
    who: &str,
    address: &str,
) -> TlsStream<tokio::net::TcpStream> {
    let [certificate, key] = certificate(directory, who);
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(directory.join("rationd-certs/ca.pem")).unwrap();
    roots.add(authority).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&certificate).unwrap()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = socket.connect(host_port(address).parse().unwrap()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

fn host_port(address: &str) -> String {
    format!("127.0.0.1:{}", address.rsplit(':').next().unwrap())
}

/// What a seller came to.
#[derive(Default)]
struct Sold {
    ids: Vec<(u64, RequestId)>,
    failed: u64,
    repeated: u64,
}

/// Sells until it is over, and goes to another instance whenever a call is not answered, with the same id.
async fn sell_on(fleet: Arc<Fleet>, place: usize, next: Arc<AtomicU64>, over: Arc<AtomicBool>) -> Sold {
    let (site, name) = (SITES[place % SITES.len()].parse().unwrap(), format!("t{place}").parse().unwrap());
    let open = async |from: usize| -> Option<Session> {
        let terminal = Terminal::on(&fleet.connect(from).await, Some(site), name);
        match terminal.open_session().await {
            Ok(Opened::Admitted(session)) => Some(*session),
            _ => None,
        }
    };
    let (mut at, mut sold) = (place, Sold::default());
    let mut session = open(at).await;
    while !over.load(Ordering::Relaxed) {
        // Enough at once for a stop to be felt; all of them are looked up afterwards.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (who, id, begun) = (next.fetch_add(1, Ordering::Relaxed), RequestId::random(), Instant::now());
        loop {
            let answer = match &session {
                Some(session) => sell(session, &number(who), 1, id).await.ok(),
                None => None,
            };
            match answer {
                Some(Outcome::Approved(_)) => break sold.ids.push((who, id)),
                Some(other) => panic!("nobody else buys for {who}: {other:?}"),
                None if begun.elapsed() > IN_TIME => break sold.failed += 1,
                None => {
                    sold.repeated += 1;
                    at += 1;
                    session = open(at).await;
                }
            }
        }
    }
    sold
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_ends_in_time_whatever_peers_do_and_fails_no_call() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_owned();
    assert_eq!(rationd(&at, &["dev-certs"], "").code, 0);
    let (url, begun) = (redis.url(), Instant::now());
    let start = || {
        // Simulated, and the same everywhere, as far as processes can start together.
        let saturday: Timestamp = SATURDAY.parse().unwrap();
        let now = saturday.plus(begun.elapsed()).to_string();
        let arguments = [&SERVED[..], &["--store", &url, "--clock", &now]].concat();
        let service = Service::start(&at, &arguments, &[MANY_SEATS]);
        let health = ["health", "--address", &format!("http://{}", service.admin)];
        while rationd(&at, &health, "").code != 0 {
            assert!(begun.elapsed() < Duration::from_secs(120), "{}", service.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        service
    };
    let mut services: Vec<Service> = (0..INSTANCES).map(|_| start()).collect();
    let [authority, _] = certificate(&at, "ca");
    let [own, key] = certificate(&at, "gateway-demo-gateway");
    let fleet = Arc::new(Fleet {
        addresses: Mutex::new(services.iter().map(|service| service.address.clone()).collect()),
        tls: Tls { authorities: authority, identity: Some((own, key)) },
    });
    let (next, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sellers: Vec<_> =
        (0..SELLERS).map(|place| tokio::spawn(sell_on(fleet.clone(), place, next.clone(), over.clone()))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut longest = Duration::ZERO;
    for (nth, service) in services.iter_mut().enumerate() {
        let address = service.address.clone();
        // They say nothing at all, to either listener; or begin to shake hands; or have shaken hands and say nothing more.
        let silent = [host_port(&address), service.admin.clone()].map(|at| TcpStream::connect(at).unwrap());
        let mut stuck = TcpStream::connect(host_port(&address)).unwrap();
        stuck.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
        let mute = shake_hands(&at, "gateway-demo-gateway", &address).await;
        // One asks and takes no answer, two hold streams open on which nothing happens.
        let reader = tokio::spawn(
            StuckReader::begin(shake_hands(&at, "gateway-demo-gateway", &address).await).await.told_to_go(),
        );
        let connection = Connection::open(&address, Some(&fleet.tls)).await.unwrap();
        let idle = Terminal::on(&connection, SITES[0].parse().ok(), format!("idle{nth}").parse().unwrap());
        let Opened::Admitted(held) = idle.open_session().await.unwrap() else { panic!("a seat") };
        let gateway = idle.gateway().await.unwrap();
        gateway
            .call(&held.admitted.session_token, purchase(&number(900_000 + nth as u64), 1, RequestId::random()))
            .await
            .unwrap();

        let asked = Instant::now();
        service.ask_to_stop();
        let code = tokio::task::block_in_place(|| service.ended(STOPPED_WITHIN));
        let took = asked.elapsed();
        println!("instance {nth} stopped after {took:?}, exit code {code}");
        assert_eq!(code, 0, "{}", service.log());
        assert!(reader.await.unwrap(), "the reader was told to go away before it was cut off");
        longest = longest.max(took);
        drop((silent, stuck, mute, held, gateway));

        let anew = tokio::task::block_in_place(start);
        fleet.addresses.lock().unwrap()[nth] = anew.address.clone();
        *service = anew;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    over.store(true, Ordering::Relaxed);
    let (mut sales, mut failed, mut repeated) = (Vec::new(), 0, 0);
    for seller in sellers {
        let sold = seller.await.unwrap();
        sales.extend(sold.ids);
        (failed, repeated) = (failed + sold.failed, repeated + sold.repeated);
    }
    let asks = Terminal::on(&fleet.connect(0).await, SITES[0].parse().ok(), "asks".parse().unwrap());
    let (mut lost, mut doubled) = (0, 0);
    for (who, _) in &sales {
        match bought(&asks, &number(*who)).await {
            0 => lost += 1,
            1 => {}
            _ => doubled += 1,
        }
    }
    println!(
        "rolling restart of {INSTANCES} under {SELLERS} sellers: {} sales, {failed} failed, {repeated} repeated, {lost} lost, \
         {doubled} double; longest stop {longest:?}",
        sales.len()
    );
    assert!(sales.len() > 100, "there was load");
    assert_eq!((failed, lost, doubled), (0, 0, 0));
}
