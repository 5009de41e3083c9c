//! Every call, by every role: over real connections with real certificates, from the descriptors of what there is.

use prost::Message;
use prost_types::FileDescriptorSet;
use rationd::certs::Subject;
use rationd::grpc::DESCRIPTORS;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::harness::*;
use super::tls::Encrypted;

/// Whose calls a service's are. A new service says it here, by hand, and a second time in the service's own table.
fn answers(service: &str, method: &str, role: &str) -> bool {
    let is_seller = ["site", "terminal", "gateway"].contains(&role);
    match (service, method) {
        ("PurchaseService" | "SessionService" | "JournalService", _) | ("StockService", "ReportStock") => is_seller,
        ("OperatorService", _) => role == "operator",
        // What each site has left may be known to everybody whom the service knows.
        ("StockService", _) => true,
        (new, _) => panic!("{new}: whose calls are these?"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_answered_to_the_roles_that_it_is_for_and_to_no_other() {
    let tls = Encrypted::start(&[]).await;
    let roles = [
        ("site", tls.site(SEJONG)),
        ("terminal", tls.terminal(SEJONG, "w1")),
        ("gateway", tls.gateway("demo-gateway")),
        ("operator", tls.operator()),
        ("feed", tls.issue(Subject::Feed("map".parse().unwrap()))),
    ];
    let described = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let files = described.file.iter().filter(|file| file.package() == "rationd.v1");
    let services: Vec<_> = files.flat_map(|file| file.service.clone()).collect();
    assert!(services.len() >= 4);
    let mut asked = 0;
    for (role, pem) in &roles {
        let channels = [tls.counters(), tls.admin(), tls.feed()].map(|address| tls.channel_to(address, Some(pem)));
        let [counters, admin, feed] = channels;
        let (counters, admin, feed) = (counters.await, admin.await, feed.await);
        for service in &services {
            for method in &service.method {
                let channel = match (service.name(), method.name()) {
                    ("OperatorService", _) => &admin,
                    ("PurchaseService" | "SessionService" | "JournalService", _) | (_, "ReportStock") => &counters,
                    _ => &feed,
                };
                let path = format!("/rationd.v1.{}/{}", service.name(), method.name());
                let mut client = Grpc::new(channel.clone());
                client.ready().await.unwrap();
                // An empty message: whoever is answered is told what is missing, and nothing is done.
                let path_and_query: PathAndQuery = path.parse().unwrap();
                let codec = ProstCodec::<(), ()>::default();
                let answer = client.server_streaming(Request::new(()), path_and_query, codec).await;
                let refused = answer
                    .err()
                    .map(|status| told(&status))
                    .filter(|told| ["NOT_A_SITE", "NOT_AN_OPERATOR"].contains(&told.reason.as_str()));
                assert_eq!(
                    refused.is_none(),
                    answers(service.name(), method.name(), role),
                    "{path} by {role}: {refused:?}"
                );
                assert!(refused.is_none_or(|told| told.code == Code::PermissionDenied));
                asked += 1;
            }
        }
    }
    println!("{asked} calls by {} roles", roles.len());
    tls.service.stop().await;
}
