//! The task that makes up for an outage: as soon as the service is there, with a seat or without, it asks what became of purchases,
//! takes back what is to be taken back, and uploads what was sold meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::shared::Shared;
use super::wire;
use crate::ids::RequestId;
use crate::terminal::journal::{Became, Entry, Fact, NotWritten, State, Todo};
use crate::terminal::retry::comes_back_after;
use crate::terminal::{CallError, chance};

/// Sales of one upload.
const BATCH: usize = 1_000;
/// How often is looked whether another attempt has been paid for.
const PAID_YET: Duration = Duration::from_secs(1);

/// It did not come to its end: to be tried again no sooner than after this.
struct TryAgain(Duration);

impl From<CallError> for TryAgain {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotExecuted { retry_after, .. } => Self(retry_after.unwrap_or_default()),
            CallError::Unknown(_) => Self(Duration::ZERO),
        }
    }
}

impl From<NotWritten> for TryAgain {
    fn from(_: NotWritten) -> Self {
        Self(Duration::ZERO)
    }
}

/// Goes on for as long as the counter is open.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut shown = shared.shown.subscribe();
    // About these the service has nothing to say, and never will.
    let mut hopeless = HashSet::new();
    let mut failed = 0;
    loop {
        let is_needed = shown.borrow_and_update().line.is_reached() && shared.has_work(&hopeless);
        if !is_needed {
            if shown.changed().await.is_err() {
                return;
            }
            continue;
        }
        if failed == 0 {
            shared.terminal.repeats.call();
        } else if !shared.terminal.repeats.repeat() {
            sleep(PAID_YET.mul_f64(1.0 + chance())).await;
            continue;
        }
        match make_up(&shared, &mut hopeless).await {
            Ok(()) => failed = 0,
            Err(TryAgain(after)) => {
                sleep(comes_back_after(failed, chance()).max(after.mul_f64(1.0 + chance()))).await;
                failed = failed.saturating_add(1);
            }
        }
    }
}

async fn make_up(shared: &Arc<Shared>, hopeless: &mut HashSet<RequestId>) -> Result<(), TryAgain> {
    for (todo, entry) in shared.work(hopeless) {
        let has_answer = match todo {
            Todo::Resolve => resolve(shared, &entry).await?,
            Todo::Void => void(shared, &entry).await?,
            Todo::Upload => true,
        };
        if !has_answer {
            hopeless.insert(entry.id);
        }
    }
    upload(shared, hopeless).await
}

/// Asks what became of a purchase. `false`: there is no answer, nor will there be.
async fn resolve(shared: &Arc<Shared>, entry: &Entry) -> Result<bool, TryAgain> {
    let Some(request) = wire::get(entry) else { return Ok(false) };
    let result = match shared.terminal.resolve(request).await {
        Ok(response) => response.result.unwrap_or_default(),
        Err(CallError::NotExecuted { retry_after: None, .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let Some(what) = wire::became(&result) else { return Ok(false) };
    shared.write_became(entry.id, what, result.echo).await?;
    Ok(true)
}

/// Takes a purchase back that the service may have.
pub(super) async fn take_back(shared: &Arc<Shared>, entry: &Entry) -> Result<Option<Became>, CallError> {
    let Some(request) = wire::void(entry) else { return Ok(None) };
    let answer = shared.terminal.void(request).await?;
    Ok(wire::became(&answer.result.unwrap_or_default()))
}

async fn void(shared: &Arc<Shared>, entry: &Entry) -> Result<bool, TryAgain> {
    let id = entry.id;
    match take_back(shared, entry).await {
        Ok(Some(Became::Voided | Became::Released | Became::NotRecorded)) => {
            shared.write(move |_| Ok::<_, NotWritten>((vec![Fact::Voided { id }], ()))).await?;
            Ok(true)
        }
        Ok(_) | Err(CallError::NotExecuted { retry_after: None, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn upload(shared: &Arc<Shared>, hopeless: &HashSet<RequestId>) -> Result<(), TryAgain> {
    let (site, hopeless) = (shared.site, hopeless.clone());
    // What is withdrawn until here is not sent; from here on it is taken back by the service.
    let choose = move |state: &State| {
        let waiting = state.todo().filter(|(todo, entry)| *todo == Todo::Upload && !hopeless.contains(&entry.id));
        let batch: Vec<&Entry> = waiting.map(|(_, entry)| entry).take(BATCH).collect();
        let ids: Vec<RequestId> = batch.iter().filter(|entry| !entry.uploading).map(|entry| entry.id).collect();
        let sales = batch.iter().filter_map(|entry| Some((entry.id, wire::offline_sale(entry, site)?)));
        let sales: (Vec<_>, Vec<_>) = sales.unzip();
        let facts = if ids.is_empty() { Vec::new() } else { vec![Fact::Uploading { ids }] };
        Ok::<_, NotWritten>((facts, sales))
    };
    let (ids, sales) = shared.write(choose).await?;
    if ids.is_empty() {
        return Ok(());
    }
    let mut missing: HashSet<RequestId> = ids.iter().copied().collect();
    let mut again = None;
    let mut verdicts = shared.terminal.upload(sales).await?;
    while let Some(said) = verdicts.next().await? {
        let id = usize::try_from(said.call_id).ok().and_then(|nth| ids.get(nth).copied());
        let Some(id) = id.filter(|id| said.request_id == id.to_string()) else { continue };
        match said.verdict.map(wire::verdict) {
            Some(Ok(verdict)) => {
                missing.remove(&id);
                shared.write(move |_| Ok::<_, NotWritten>((vec![Fact::Judged { id, verdict }], ()))).await?;
            }
            Some(Err(failure)) => again = Some(TryAgain::from(CallError::from(failure))),
            None => {}
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(again.unwrap_or(TryAgain(Duration::ZERO))) }
}
