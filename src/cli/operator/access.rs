//! `rationd operator look-up` and `rationd operator void`: what is done for a buyer who complains.

use clap::Args;

use super::failed;
use crate::cli::sale::{Whose, buyer};
use crate::cli::shown::{Asked, Shown};
use crate::cli::{complain, exit, print};
use crate::grpc::v1;
use crate::ids::{LedgerId, RequestId, SiteId};
use crate::terminal::{Operator, instant};

/// `look-up`
#[derive(Args)]
pub(super) struct LookUp {
    #[command(flatten)]
    whose: Whose,
}

/// `void`
#[derive(Args)]
pub(super) struct Void {
    #[command(flatten)]
    whose: Whose,
    /// The purchase's request id
    #[arg(long, value_name = "UUID")]
    request_id: RequestId,
    /// The site that sold, as `look-up` shows it
    #[arg(long, value_name = "CODE")]
    site: SiteId,
    /// The ledger that `look-up` has shown; under another one nothing is done
    #[arg(long, value_name = "UUID")]
    ledger: Option<LedgerId>,
}

pub(super) async fn look_up(operator: &Operator, wanted: LookUp, reason: String, json: bool) -> u8 {
    let Some(buyer) = named(&wanted.whose) else { return exit::USAGE };
    let programme = wanted.whose.programme().to_string();
    let found = match operator.look_up(v1::LookUpBuyerRequest { programme, buyer: Some(buyer), reason }).await {
        Ok(found) => found,
        Err(error) => return failed(&error),
    };
    let lines = found.entries.iter().map(|entry| {
        let at = entry.at.as_ref().map(|at| instant(at).to_string()).unwrap_or_default();
        (entry, state(entry), at)
    });
    if json {
        let entries: Vec<_> = lines
            .map(|(entry, state, at)| {
                serde_json::json!({
                    "request_id": entry.request_id, "state": state, "site": entry.site, "quantity": entry.quantity,
                    "at": at, "late": entry.late,
                })
            })
            .collect();
        print(serde_json::json!({ "ledger_id": found.ledger_id, "entries": entries }));
        return exit::YES;
    }
    print(format_args!("{} recorded in ledger {}", found.entries.len(), found.ledger_id));
    for (entry, state, at) in lines {
        let v1::ExportedEntry { request_id, site, quantity, .. } = entry;
        print(format_args!("  {at}  {state:<8}  {quantity:>3}  site {site}  request id {request_id}"));
    }
    exit::YES
}

pub(super) async fn void(operator: &Operator, wanted: Void, reason: String, json: bool) -> u8 {
    let Some(buyer) = named(&wanted.whose) else { return exit::USAGE };
    let Void { whose, request_id, site, ledger } = wanted;
    let wanted = v1::VoidForBuyerRequest {
        programme: whose.programme().to_string(),
        buyer: Some(buyer),
        request_id: request_id.to_string(),
        site: site.to_string(),
        ledger_id: ledger.map(|id| id.to_string()).unwrap_or_default(),
        reason,
    };
    let result = match operator.void(wanted).await {
        Ok(answer) => answer.result.unwrap_or_default(),
        Err(error) => return failed(&error),
    };
    let shown = Shown::new(Asked::ToUndo, whose.programme(), result);
    if json {
        print(shown.json())
    } else {
        print(&shown)
    }
    shown.exit_code()
}

fn named(whose: &Whose) -> Option<v1::Buyer> {
    buyer(whose).map_err(complain).ok()
}

/// What became of it, in one word.
fn state(entry: &v1::ExportedEntry) -> &'static str {
    let name = entry.state().as_str_name();
    name.strip_prefix("ENTRY_STATE_").unwrap_or(name)
}
