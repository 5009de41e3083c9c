//! Sheets of paper, and what a site has uploaded of them and of its journals.

use sha2::{Digest, Sha256};
use uuid::Builder;

use super::{CallError, Terminal, traced};
use crate::grpc::v1::{self, journal_service_client::JournalServiceClient};
use crate::ids::{RequestId, SiteId};

/// The request id of a line of a pad of paper: whoever types it in makes the same one, so that it becomes one sale. It is a UUID of
/// version 8, made of the SHA-256 of the site's code, the pad and the line. Capitals and spaces around a pad's name do not count: clerks
/// write them as they like.
///
/// ```
/// # use rationd::terminal::sheet_id;
/// let site = "11000001".parse().unwrap();
/// assert_eq!(sheet_id(site, "A-17", 3), sheet_id(site, " a-17", 3));
/// assert_ne!(sheet_id(site, "A-17", 3), sheet_id(site, "A-17", 4));
/// ```
pub fn sheet_id(site: SiteId, pad: &str, line: u32) -> RequestId {
    let pad = pad.trim().to_lowercase();
    let named = format!("rationd sheet 1\0{site}\0{pad}\0{line}");
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(Sha256::digest(named)).for_each(|(byte, made)| *byte = made);
    // Its version is in it, so it is never the id of nothing.
    let id = Builder::from_custom_bytes(bytes).into_uuid();
    RequestId::from_bytes(*id.as_bytes()).unwrap_or_else(RequestId::random)
}

impl Terminal {
    /// What the site has uploaded of a day of sale, a page of it.
    pub async fn uploads(&self, of: v1::ListUploadsRequest) -> Result<v1::ListUploadsResponse, CallError> {
        let request = self.request(of)?;
        let mut client = JournalServiceClient::new(self.channel.clone());
        let call = |request| async move { client.list_uploads(request).await };
        traced("rationd.v1.JournalService/ListUploads", request, call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sha256("rationd sheet 1\0" "11000001\0" "a-17\0" "3")`, its first sixteen bytes, version 8 and variant set in them.
    #[test]
    fn an_id_is_what_it_always_was() {
        let id = sheet_id("11000001".parse().unwrap(), "A-17", 3);
        assert_eq!(id.to_string(), EXPECTED);
        assert_ne!(sheet_id("11000002".parse().unwrap(), "A-17", 3), id);
        assert_ne!(sheet_id("11000001".parse().unwrap(), "A-1", 73), sheet_id("11000001".parse().unwrap(), "A-17", 3));
    }

    const EXPECTED: &str = "bacc2f3e-03f2-8723-aef8-1d17def75dae";
}
