//! Certificates that change while the service runs: its own, those that it believes, and those that stop being good.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rationd::certs::{Authority, Pem, Subject};
use rationd::grpc::v1::{self, open_session_response::Event, purchase_stream_request::Call};
use rationd::terminal::Connection;
use rationd::time::{Clock, SystemClock};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::harness::*;
use super::tls::{Encrypted, admitted, masks};

/// Connects with this certificate; what the client says if that cannot be.
async fn connects(tls: &Encrypted, pem: &Pem) -> Result<(), String> {
    let opened = Connection::open(&tls.counters(), Some(&tls.shows(Some(pem)))).await;
    opened.map(drop).map_err(|error| error.to_string())
}

/// How a session's stream ends, in time.
async fn ends(events: &mut Streaming<v1::OpenSessionResponse>) -> Option<v1::SessionEnd> {
    match tokio::time::timeout(IN_TIME, events.message()).await.expect("an end in time") {
        Ok(Some(v1::OpenSessionResponse { event: Some(Event::Ended(ended)) })) => Some(ended.why()),
        _ => None,
    }
}

/// Puts a file in the place of another one in one step.
fn put(world: &World, name: &str, text: &str) {
    let new = world.write(&format!("{name}.new"), text);
    std::fs::rename(new, world.path(name)).unwrap();
}

fn in_seconds(seconds: u64) -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_taken_back_ends_what_stands_with_it() {
    let tls = Encrypted::start(&[("SESSIONS__CAP_DEFAULT", "3")]).await;
    let (lost, kept, operator) = (tls.terminal(SEJONG, "w1"), tls.terminal(SEJONG, "w2"), tls.operator());
    let mut thief = admitted(&tls.caller(&lost, "", "w1").await).await;
    let mut seller = admitted(&tls.caller(&kept, "", "w2").await).await;
    let admin = tls.channel_to(tls.admin(), Some(&operator)).await;
    let (requests, sent) = tokio::sync::mpsc::channel(4);
    let request = thief.request(ReceiverStream::new(sent));
    let mut answers = thief.purchases().purchase_stream(request).await.unwrap().into_inner();
    let over_stream = |visit: &Visit| v1::PurchaseStreamRequest {
        call_id: 1,
        session_token: String::new(),
        call: Some(Call::Purchase(visit.purchase())),
    };
    requests.send(over_stream(&masks(1))).await.unwrap();
    assert!(answers.message().await.unwrap().unwrap().failure.is_none());

    let withdrawn = [&lost, &operator].map(|pem| tls.authority.withdraw(pem.certificate.as_bytes()).unwrap());
    put(&tls.world, "revoked.pem", &tls.authority.revoked(&withdrawn).unwrap());
    assert_eq!(ends(&mut thief.events).await, Some(v1::SessionEnd::Draining));
    // Nothing that is asked from now on is done: by itself, over the stream that stands, or with the token elsewhere.
    let before = tls.world.stored().await;
    assert!(thief.purchase(&masks(2)).await.is_err() && thief.check(&masks(2)).await.is_err());
    let _ = requests.send(over_stream(&masks(3))).await;
    let ended = tokio::time::timeout(IN_TIME, answers.message()).await.expect("an end in time");
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    until("new connections to be refused", || async { connects(&tls, &lost).await.is_err() }).await;
    let told = connects(&tls, &lost).await.unwrap_err();
    assert!(told.contains("does not accept the certificate"), "{told}");
    let elsewhere = Caller { token: thief.token.clone(), ..tls.caller(&kept, "", "w2").await };
    assert_eq!(reason(elsewhere.purchase(&masks(2)).await, Code::PermissionDenied), "SESSION_NOT_YOURS");
    until("the operator's connection to end", || async {
        let mut client = v1::operator_service_client::OperatorServiceClient::new(admin.clone());
        client.get_switches(v1::GetSwitchesRequest {}).await.is_err()
    })
    .await;
    assert!(tls.world.stored().await == before, "nothing was recorded");

    // Nobody else notices.
    assert_eq!(said(&seller.sell(&masks(4)).await), "APPROVED");
    assert!(seller.renew().await.is_ok());
    // What cannot be read changes nothing: who was out stays out, who was in stays in.
    let list = tls.authority.revoked(&withdrawn).unwrap();
    put(&tls.world, "revoked.pem", &list[..list.len() / 2]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(connects(&tls, &lost).await.is_err() && connects(&tls, &kept).await.is_ok());
    assert_eq!(said(&seller.sell(&masks(5)).await), "APPROVED");
    // Nor does an older list, though it is the authority's own: who was taken back since would be let in again.
    let earlier = SystemClock::real().now().minus(Duration::from_secs(86_400));
    let older = Authority::from_pem(&tls.ca, &tls.ca_key, earlier).unwrap().revoked(&[]).unwrap();
    put(&tls.world, "revoked.pem", &older);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(connects(&tls, &lost).await.is_err() && connects(&tls, &kept).await.is_ok());
    // What is taken off the list may come back.
    put(&tls.world, "revoked.pem", &tls.authority.revoked(&[]).unwrap());
    until("the list to be read again", || async { connects(&tls, &lost).await.is_ok() }).await;
    assert_eq!(said(&seller.sell(&masks(6)).await), "APPROVED");
    seller.close().await.unwrap();
    assert_eq!(ends(&mut seller.events).await, Some(v1::SessionEnd::Lost));
    drop((thief, requests, admin));
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_when_its_certificate_expires() {
    let tls = Encrypted::start(&[("SESSIONS__CAP_DEFAULT", "3")]).await;
    let mut params = Subject::Terminal(SEJONG.parse().unwrap(), "w1".parse().unwrap()).params().unwrap();
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + in_seconds(6);
    let short = tls.authority.sign(&params).unwrap();
    let mut expiring = admitted(&tls.caller(&short, "", "w1").await).await;
    let seller = admitted(&tls.caller(&tls.terminal(SEJONG, "w2"), "", "w2").await).await;
    assert_eq!(said(&expiring.sell(&masks(1)).await), "APPROVED", "it is good until then");
    assert_eq!(ends(&mut expiring.events).await, Some(v1::SessionEnd::Draining));
    assert!(expiring.purchase(&masks(2)).await.is_err() && connects(&tls, &short).await.is_err());
    assert_eq!(said(&seller.sell(&masks(3)).await), "APPROVED", "nobody else notices");
    drop(expiring);
    tls.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_believed_no_more_takes_its_connections_with_it() {
    let tls = Encrypted::start(&[("SESSIONS__CAP_DEFAULT", "3")]).await;
    let (another, other) = Authority::new(SystemClock::real().now()).unwrap();
    let of_another = another.issue(&Subject::Terminal(SEJONG.parse().unwrap(), "w2".parse().unwrap())).unwrap();
    assert!(connects(&tls, &of_another).await.is_err());
    // Two at once, as while one authority takes over from another.
    let lists = [&tls.authority, &another].map(|authority| authority.revoked(&[]).unwrap());
    put(&tls.world, "revoked.pem", &lists.concat());
    put(&tls.world, "ca.pem", &(tls.ca.clone() + &other.certificate));
    until("the new authority to be believed", || async { connects(&tls, &of_another).await.is_ok() }).await;
    let mut old = admitted(&tls.caller(&tls.terminal(SEJONG, "w1"), "", "w1").await).await;
    let new = admitted(&tls.caller(&of_another, "", "w2").await).await;
    put(&tls.world, "ca.pem", &other.certificate);
    put(&tls.world, "revoked.pem", &lists[1]);
    assert_eq!(ends(&mut old.events).await, Some(v1::SessionEnd::Draining));
    assert_eq!(said(&new.sell(&masks(1)).await), "APPROVED");
    drop(old);
    tls.service.stop().await;
}

/// As Kubernetes puts a Secret there: the files are links through a link to a directory, and that one link is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_without_a_restart_and_a_broken_one_never() {
    let world = World::embedded();
    let secret = tempfile::tempdir().unwrap();
    let at = |name: &str| secret.path().join(name);
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| {
        symlink(format!("..data/{name}"), at(name)).unwrap();
        at(name).display().to_string()
    });
    let mount = |version: &str, certificate: &str, key: &str, mode: u32| {
        let folder = at(&format!("..{version}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate).unwrap();
        std::fs::write(folder.join("tls.key"), key).unwrap();
        std::fs::set_permissions(folder.join("tls.key"), PermissionsExt::from_mode(mode)).unwrap();
        symlink(format!("..{version}"), at("..data.new")).unwrap();
        std::fs::rename(at("..data.new"), at("..data")).unwrap();
    };
    // Each has an authority of its own, so that a client knows which one it was shown.
    let made = || {
        let (authority, ca) = Authority::new(SystemClock::real().now()).unwrap();
        (authority.issue(&Subject::Service(vec!["127.0.0.1".into()])).unwrap(), ca.certificate)
    };
    let ((first, first_ca), (second, second_ca)) = (made(), made());
    mount("1", &first.certificate, &first.key, 0o600);
    let tls = Encrypted::start_in(world, &[("TLS__CERTIFICATE", &certificate), ("TLS__KEY", &key)]).await;
    let site = tls.site(SEJONG);
    let sees = |ca: &String| {
        let tls_of = rationd::terminal::Tls { authorities: ca.clone().into_bytes(), ..tls.shows(Some(&site)) };
        let address = tls.counters();
        async move { Connection::open(&address, Some(&tls_of)).await.is_ok() }
    };
    assert!(sees(&first_ca).await && !sees(&second_ca).await);
    let channel = tls.channel_of(&first_ca, tls.counters(), Some(&site)).await;
    let caller = Caller { channel, site: String::new(), terminal: "w1".into(), token: None };
    let counter = admitted(&caller).await;

    mount("2", &second.certificate, &second.key, 0o600);
    until("the new certificate to be shown", || sees(&second_ca)).await;
    assert!(!sees(&first_ca).await);
    assert_eq!(said(&counter.sell(&masks(1)).await), "APPROVED", "what stands goes on");

    let half = &first.certificate[..first.certificate.len() / 2];
    for (version, certificate, key, mode) in [
        ("3", half, first.key.as_str(), 0o600),
        ("4", first.certificate.as_str(), second.key.as_str(), 0o600),
        ("5", first.certificate.as_str(), first.key.as_str(), 0o644),
        ("6", "", "", 0o600),
    ] {
        mount(version, certificate, key, mode);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(sees(&second_ca).await && !sees(&first_ca).await, "{version}");
    }
    assert_eq!(said(&counter.sell(&masks(2)).await), "APPROVED");
    mount("7", &first.certificate, &first.key, 0o600);
    until("the first certificate to be shown again", || sees(&first_ca)).await;
    drop(counter);
    tls.service.stop().await;
}
