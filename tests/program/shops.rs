//! Terminals at counters: the client library against a real service, and the made-up people who buy.

use rationd::grpc::v1::{self, purchase_result::Outcome};
use rationd::ids::RequestId;
use rationd::terminal::{CallError, Opened, Session, Terminal};

use super::service::Service;

/// A Saturday, when everybody may buy under `weekly-essentials`.
pub const SATURDAY: &str = "2020-06-20T09:00:00+09:00";
/// Two units a week.
pub const PROGRAMME: &str = "weekly-essentials";
/// Enough seats for every terminal of a test.
pub const MANY_SEATS: (&str, &str) = ("RATIOND_SESSIONS__CAP_DEFAULT", "100");
/// Some of the demo sites.
pub const SITES: [&str; 6] = ["11000001", "11000002", "11000003", "21000001", "21000002", "31000001"];

/// The number of the nth made-up person, born between 1940 and 1994. Check digits are left to chance, as they may be.
pub fn number(nth: u64) -> String {
    let (month, day) = (1 + nth % 12, 1 + nth / 12 % 28);
    let (year, serial) = (40 + nth / 336 % 55, nth / 18_480);
    format!("{year:02}{month:02}{day:02}-1{serial:05}0")
}

pub fn buyer(number: &str) -> Option<v1::Buyer> {
    Some(v1::Buyer { id: Some(v1::buyer::Id::ResidentNumber(number.to_owned())) })
}

/// One person's purchase in person.
pub fn purchase(number: &str, quantity: u32, id: RequestId) -> v1::PurchaseRequest {
    let line = v1::Line { request_id: id.to_string(), buyer: buyer(number), quantity, ..Default::default() };
    v1::PurchaseRequest { programme: PROGRAMME.into(), lines: vec![line], ..Default::default() }
}

/// Which id of which person is asked about.
pub fn get(number: &str, id: RequestId) -> v1::GetPurchaseRequest {
    v1::GetPurchaseRequest {
        programme: PROGRAMME.into(),
        buyer: buyer(number),
        request_id: id.to_string(),
        ..Default::default()
    }
}

impl Service {
    /// A terminal of a site.
    pub async fn terminal(&self, site: &str, name: &str) -> Terminal {
        Terminal::connect(&self.address, site.parse().unwrap(), name.parse().unwrap()).await.unwrap()
    }

    /// A terminal with a session.
    pub async fn session(&self, site: &str, name: &str) -> (Terminal, Session) {
        let terminal = self.terminal(site, name).await;
        match terminal.open_session().await.unwrap() {
            Opened::Admitted(session) => (terminal, *session),
            Opened::SiteFull(full) => panic!("{site} is full: {full:?}"),
            Opened::Shut(_) => panic!("the door is shut"),
        }
    }
}

/// Sells, and gives the outcome of the one line.
pub async fn sell(session: &Session, number: &str, quantity: u32, id: RequestId) -> Result<Outcome, CallError> {
    let mut response = session.purchase(purchase(number, quantity, id)).await?;
    assert_eq!(response.results.len(), 1);
    Ok(response.results.remove(0).outcome.unwrap())
}

/// What became of an id.
pub async fn resolve(terminal: &Terminal, number: &str, id: RequestId) -> Outcome {
    terminal.resolve(get(number, id)).await.unwrap().result.unwrap().outcome.unwrap()
}

/// The quantities that count for a person now.
pub async fn bought(terminal: &Terminal, number: &str) -> u32 {
    let line = v1::Line { buyer: buyer(number), quantity: 1, ..Default::default() };
    let visit = v1::CheckPurchaseRequest { programme: PROGRAMME.into(), lines: vec![line], ..Default::default() };
    let result = terminal.check(visit).await.unwrap().results.remove(0);
    result.standing.unwrap().earlier.iter().map(|earlier| earlier.quantity).sum()
}
