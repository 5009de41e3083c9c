//! What a greeting costs the service: CPU time of its process for each full handshake of TLS with a client's certificate.
//!
//! `cargo run --release --example handshakes` starts the `rationd` that stands beside it as a process of its own, makes 2,000
//! connections (`-- N` makes N), eight at once, each with a full handshake on both sides, the first words of HTTP/2 and an end, and
//! divides the CPU time that the process took meanwhile. As many connections in the clear, to the listener that takes both, tell
//! what of it is not TLS. Above 0.5 ms it fails.
//!
//! The service lets nobody take up a session again, so what that would save is measured beside it, in memory and on the server's
//! side alone: TLS with the same certificates and a client who takes up sessions, once from the beginning and once again.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "the figures are what it is run for")]

use std::error::Error;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const HANDSHAKES: u32 = 2_000;
const MOST: Duration = Duration::from_micros(500);
const AT_ONCE: usize = 8;
/// One of `/proc/ID/stat`.
const TICK: Duration = Duration::from_millis(10);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a client of HTTP/2 says first.
const FIRST_WORDS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Failure> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(HANDSHAKES), |number| number.parse())?;
    let directory = tempfile::tempdir()?;
    let (mut service, [counters, admin]) = start(directory.path()).await?;
    let process = service.id().ok_or("the service has ended")?;
    let parties = Parties::read(&directory.path().join("rationd-certs"))?;
    let connector = TlsConnector::from(Arc::new(parties.client()?));
    let name = ServerName::try_from("localhost")?;

    let over_tls = async || {
        let stream = connector.connect(name.clone(), TcpStream::connect(&counters).await?).await?;
        if stream.get_ref().1.handshake_kind() != Some(HandshakeKind::Full) {
            return Err("a handshake was not full".into());
        }
        speak(stream).await
    };
    let in_the_clear = async || speak(TcpStream::connect(&admin).await?).await;
    // What is done once only is over before anything is counted.
    each(process, count / 10, &over_tls).await?;
    let full = each(process, count, &over_tls).await?;
    let clear = each(process, count, &in_the_clear).await?;
    let micros = |span: Duration| span.as_secs_f64() * 1e6;
    println!(
        "{count} full handshakes with certificates of both: {:.0} us of the service's CPU time each (at most {:.0})",
        micros(full),
        micros(MOST)
    );
    println!("{count} connections in the clear: {:.0} us each", micros(clear));
    service.kill().await?;
    let (anew, again) = parties.in_memory(count)?;
    println!(
        "TLS alone, in memory, the server's side: {:.0} us from the beginning, {:.0} us of a session that is taken up again",
        micros(anew),
        micros(again)
    );
    Ok(if full <= MOST { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The service of this build with certificates for development, and where it listens for terminals and operators.
async fn start(directory: &Path) -> Result<(Child, [String; 2]), Failure> {
    let program = std::env::current_exe()?
        .ancestors()
        .nth(2)
        .map(|built| built.join("rationd"))
        .filter(|program| program.is_file())
        .ok_or("there is no rationd beside this example: `cargo build --release` makes it")?;
    if !Command::new(&program).arg("dev-certs").current_dir(directory).stdout(Stdio::null()).status().await?.success() {
        return Err("there are no certificates".into());
    }
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    for (option, file) in
        [("certificate", "server.pem"), ("key", "server.key"), ("client-ca", "ca.pem"), ("revoked", "revoked.pem")]
    {
        command.args([format!("--tls-{option}"), format!("rationd-certs/{file}")]);
    }
    let command = command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut service = command.kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(service.stdout.take().ok_or("the service has no output")?).lines();
    let mut after = async |mark: &str| {
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await?? {
            if let Some(word) = line.split_once(mark).and_then(|(_, rest)| rest.split_whitespace().next()) {
                return Ok::<_, Failure>(word.to_owned());
            }
        }
        Err("the service did not begin to listen".into())
    };
    let listens = [after("listens on ").await?, after("health and metrics ").await?];
    // What it prints later must find room.
    tokio::spawn(async move { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} });
    Ok((service, listens))
}

/// The CPU time of a process for each of so many connections.
async fn each(process: u32, count: u32, connect: &impl AsyncFn() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let before = used(process)?;
    stream::iter(0..count).map(|_| connect()).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok((used(process)? - before) / count.max(1))
}

/// Says the first words and hears the first of the answer: until then a certificate may still be refused.
async fn speak(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Failure> {
    stream.write_all(FIRST_WORDS).await?;
    timeout(PATIENCE, stream.read_exact(&mut [0; 9])).await??;
    Ok(stream.shutdown().await?)
}

/// CPU time of a process so far.
fn used(process: u32) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which may hold anything.
    let fields = stat.rsplit_once(')').ok_or("a stat file without a name")?.1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

/// Who shakes hands.
struct Parties {
    authority: CertificateDer<'static>,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
    site: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

impl Parties {
    fn read(certificates: &Path) -> Result<Self, Failure> {
        let certificate = |name: &str| CertificateDer::from_pem_file(certificates.join(format!("{name}.pem")));
        let key = |name: &str| PrivateKeyDer::from_pem_file(certificates.join(format!("{name}.key")));
        let (server, site) = ("server", "site-11000001");
        let (server, site) = ((certificate(server)?, key(server)?), (certificate(site)?, key(site)?));
        Ok(Self { authority: certificate("ca")?, server, site })
    }

    fn roots(&self) -> Result<RootCertStore, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        Ok(roots)
    }

    fn client(&self) -> Result<ClientConfig, Failure> {
        let (certificate, key) = &self.site;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions()?.with_root_certificates(self.roots()?);
        let mut config = config.with_client_auth_cert(vec![certificate.clone()], key.clone_key())?;
        config.alpn_protocols.push(b"h2".to_vec());
        Ok(config)
    }

    /// The server's time for each of so many handshakes, from the beginning and of sessions that are taken up again.
    fn in_memory(&self, count: u32) -> Result<(Duration, Duration), Failure> {
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone()).build()?;
        let (certificate, key) = &self.server;
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_client_cert_verifier(verifier);
        let mut config = config.with_single_cert(vec![certificate.clone()], key.clone_key())?;
        config.alpn_protocols.push(b"h2".to_vec());
        config.ticketer = Ticketer::new()?;
        let (server, client) = (Arc::new(config), Arc::new(self.client()?));
        let mut spent = [Duration::ZERO; 2];
        shake_hands(&client, &server)?;
        for _ in 0..count {
            for (spent, (client, kind)) in spent
                .iter_mut()
                .zip([(Arc::new(self.client()?), HandshakeKind::Full), (client.clone(), HandshakeKind::Resumed)])
            {
                let (took, was) = shake_hands(&client, &server)?;
                if was != Some(kind) {
                    return Err(format!("a handshake was {was:?} and not {kind:?}").into());
                }
                *spent += took;
            }
        }
        let [anew, again] = spent.map(|spent| spent / count.max(1));
        Ok((anew, again))
    }
}

/// A whole handshake with what follows it, the server's time, and of which kind it was.
fn shake_hands(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(Duration, Option<HandshakeKind>), Failure> {
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from("localhost")?)?;
    let (mut server, mut spent) = (ServerConnection::new(server.clone())?, Duration::ZERO);
    loop {
        let (mut said, mut answer) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut said)?;
        }
        let begun = Instant::now();
        let mut said = said.as_slice();
        while !said.is_empty() {
            server.read_tls(&mut said)?;
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut answer)?;
        }
        spent += begun.elapsed();
        let mut answer = answer.as_slice();
        if answer.is_empty() && !client.wants_write() {
            return Ok((spent, server.handshake_kind()));
        }
        while !answer.is_empty() {
            client.read_tls(&mut answer)?;
            client.process_new_packets()?;
        }
    }
}
