//! Which roles may make which calls: one table, asked before any call is begun. A call without a row in it is none.
//!
//! For which sites somebody may act is another question, which the calls themselves ask of `identity`.

use std::time::Duration;

use super::LONGEST_CALL;
use super::identity::{Identity, Peer, Seller};
use super::limits::MESSAGE_WITHIN;
use super::status::{self, Fault};

/// What the holder of a certificate is to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A pharmacy, a post office, a mart, or one terminal of it.
    Site,
    /// Whoever speaks for several sites.
    Gateway,
    /// Whoever runs the service.
    Operator,
    /// Whoever takes the stock of all sites to the public. Nothing else is for them.
    Feed,
}

/// Those who look up, sell, open sessions and report what they have.
const SELLERS: &[Role] = &[Role::Site, Role::Gateway];
/// Those who run the service.
const OPERATORS: &[Role] = &[Role::Operator];
/// What is told to the public need not be kept from anybody whom a certificate names.
const EVERYBODY: &[Role] = &[Role::Site, Role::Gateway, Role::Operator, Role::Feed];

/// Every call, and whose it is.
pub(super) const TABLE: [(&str, &[Role]); 24] = [
    ("rationd.v1.JournalService/UploadSales", SELLERS),
    ("rationd.v1.JournalService/ListUploads", SELLERS),
    ("rationd.v1.OperatorService/ExportRecords", OPERATORS),
    ("rationd.v1.OperatorService/ReadEvents", OPERATORS),
    ("rationd.v1.OperatorService/GetSwitches", OPERATORS),
    ("rationd.v1.OperatorService/SetSwitches", OPERATORS),
    ("rationd.v1.OperatorService/LookUpBuyer", OPERATORS),
    ("rationd.v1.OperatorService/VoidForBuyer", OPERATORS),
    ("rationd.v1.PurchaseService/CheckPurchase", SELLERS),
    ("rationd.v1.PurchaseService/Purchase", SELLERS),
    ("rationd.v1.PurchaseService/HoldPurchase", SELLERS),
    ("rationd.v1.PurchaseService/ConfirmHold", SELLERS),
    ("rationd.v1.PurchaseService/ReleaseHold", SELLERS),
    ("rationd.v1.PurchaseService/VoidPurchase", SELLERS),
    ("rationd.v1.PurchaseService/GetPurchase", SELLERS),
    ("rationd.v1.PurchaseService/PurchaseStream", SELLERS),
    ("rationd.v1.SessionService/OpenSession", SELLERS),
    ("rationd.v1.SessionService/PollSession", SELLERS),
    ("rationd.v1.SessionService/RenewSession", SELLERS),
    ("rationd.v1.SessionService/CloseSession", SELLERS),
    ("rationd.v1.StockService/ReportStock", SELLERS),
    ("rationd.v1.StockService/GetStock", EVERYBODY),
    ("rationd.v1.StockService/ListStock", EVERYBODY),
    ("rationd.v1.StockService/WatchStock", EVERYBODY),
];

/// What calls of ours begin with. Health and reflection are everybody's.
const OURS: &str = "rationd.";

/// The calls whose callers say message after message.
const STREAMED: [&str; 4] = [
    "/rationd.v1.JournalService/UploadSales",
    "/rationd.v1.PurchaseService/PurchaseStream",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How soon the message of this path's call must be there; `None`: it takes any number of them.
pub(super) fn message_within(path: &str) -> Option<Duration> {
    // An operator's may be many times as large.
    let within = if path.starts_with("/rationd.v1.OperatorService/") { LONGEST_CALL } else { MESSAGE_WITHIN };
    (!STREAMED.contains(&path)).then_some(within)
}

impl Identity {
    fn role(self) -> Role {
        match self {
            Self::Seller(Seller::Site(..)) => Role::Site,
            Self::Seller(Seller::Gateway(_)) => Role::Gateway,
            Self::Operator(_) => Role::Operator,
            Self::Feed(_) => Role::Feed,
        }
    }
}

/// The call of this path, as it is named in metrics; `None` where it is none of ours.
pub(super) fn method(path: &str) -> Option<&'static str> {
    row(path).map(|(method, _)| method)
}

/// That this peer may make the call of this path. In the clear, which is on loopback only, nobody has a role.
pub(super) fn may(peer: Peer, path: &str) -> Result<(), Fault> {
    let Some((_, roles)) = row(path) else {
        let ours = path.trim_start_matches('/').starts_with(OURS);
        return if ours { Err(status::method_unknown()) } else { Ok(()) };
    };
    match peer.identity()?.map(Identity::role) {
        Some(role) if !roles.contains(&role) => {
            Err(if roles == OPERATORS { status::not_an_operator() } else { status::not_a_site() })
        }
        _ => Ok(()),
    }
}

fn row(path: &str) -> Option<(&'static str, &'static [Role])> {
    let path = path.strip_prefix('/').unwrap_or(path);
    TABLE.into_iter().find(|(method, _)| *method == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_call_that_is_described_has_one_row_and_no_row_is_of_none() {
        let described = FileDescriptorSet::decode(crate::grpc::DESCRIPTORS).unwrap();
        let mut calls = BTreeSet::new();
        for file in described.file.iter().filter(|file| file.package().starts_with(OURS)) {
            for service in &file.service {
                let call = |method: &prost_types::MethodDescriptorProto| {
                    format!("{}.{}/{}", file.package(), service.name(), method.name())
                };
                calls.extend(service.method.iter().map(call));
                for method in &service.method {
                    let path = format!("/{}", call(method));
                    assert_eq!(message_within(&path).is_none(), method.client_streaming(), "{path}");
                }
            }
        }
        assert!(calls.iter().map(String::as_str).eq(TABLE.iter().map(|(method, _)| *method).collect::<BTreeSet<_>>()));
        assert_eq!(calls.len(), TABLE.len());
    }

    #[test]
    fn what_has_no_row_is_nobodys_and_what_is_not_ours_everybodys() {
        for path in ["/rationd.v1.PurchaseService/Purchase2", "/rationd.v2.PurchaseService/Purchase", "/rationd."] {
            assert_eq!(may(Peer::Clear, path).unwrap_err().reason, "METHOD_UNKNOWN", "{path}");
        }
        for path in ["/grpc.health.v1.Health/Check", "/metrics", ""] {
            assert!(may(Peer::Uncertified, path).is_ok(), "{path}");
        }
    }
}
