//! The task that makes up for an outage: as soon as the service is there, with a seat or without, it asks what became of purchases,
//! takes back what is to be taken back, and uploads what was sold meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::shared::{Hopeless, Shared, held};
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
    let mut hopeless = Hopeless::new();
    let (mut failed, mut session) = (0, 0);
    loop {
        let is_reached = shown.borrow_and_update().line.is_reached();
        // What had no hope may have some now: it was perhaps the certificate, the site or the hurry that was wrong.
        let number = held(&shared.seated).number;
        if std::mem::replace(&mut session, number) != number {
            hopeless.clear();
        }
        if !(is_reached && shared.has_work(&hopeless)) {
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
        match make_up(&shared, &mut hopeless, failed).await {
            Ok(()) => failed = 0,
            Err(TryAgain(after)) => {
                sleep(comes_back_after(failed, chance()).max(after.mul_f64(1.0 + chance()))).await;
                failed = failed.saturating_add(1);
            }
        }
    }
}

/// Whatever comes of the questions, sales are uploaded.
async fn make_up(shared: &Arc<Shared>, hopeless: &mut Hopeless, failed: u32) -> Result<(), TryAgain> {
    let asked = ask(shared, hopeless, failed).await;
    match (asked, upload(shared).await) {
        (Err(TryAgain(one)), Err(TryAgain(other))) => Err(TryAgain(one.max(other))),
        (asked, uploaded) => asked.and(uploaded),
    }
}

/// Asks about purchases, and takes back what is to be taken back, until one fails.
async fn ask(shared: &Arc<Shared>, hopeless: &mut Hopeless, failed: u32) -> Result<(), TryAgain> {
    let mut work = shared.questions(hopeless);
    // It begins with another one each time: one that always fails does not keep the others from their turn.
    let first = usize::try_from(failed).unwrap_or_default() % work.len().max(1);
    work.rotate_left(first);
    for (todo, entry) in work {
        let has_answer = match todo {
            Todo::Resolve => resolve(shared, &entry).await?,
            Todo::Void => void(shared, &entry).await?,
            Todo::Upload => true,
        };
        if !has_answer {
            hopeless.insert((todo, entry.id));
        }
    }
    Ok(())
}

/// Asks what became of a purchase. `false`: there is no answer, nor will there be.
async fn resolve(shared: &Arc<Shared>, entry: &Entry) -> Result<bool, TryAgain> {
    let begun = shared.confirmations.load(Ordering::SeqCst);
    let Some(request) = wire::get(entry) else { return Ok(false) };
    if shared.is_under_way(entry.id) {
        // It is asked about afterwards.
        return Ok(true);
    }
    let result = match shared.terminal.resolve(request).await {
        Ok(response) => response.result.unwrap_or_default(),
        Err(CallError::NotExecuted { retry_after: None, .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let Some(what) = wire::became(&result) else { return Ok(false) };
    // What somebody has begun to confirm since is asked about once more.
    shared.settle(entry.id, what, result.echo, begun).await?;
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

async fn upload(shared: &Arc<Shared>) -> Result<(), TryAgain> {
    let site = shared.site;
    // What is withdrawn until here is not sent; from here on it is taken back by the service.
    let choose = move |state: &State| {
        let waiting = state.todo().filter(|(todo, _)| *todo == Todo::Upload);
        let sales = waiting.filter_map(|(_, entry)| Some((entry, wire::offline_sale(entry, site)?)));
        let (batch, sales): (Vec<&Entry>, Vec<_>) = sales.take(BATCH).unzip();
        let new: Vec<RequestId> = batch.iter().filter(|entry| !entry.uploading).map(|entry| entry.id).collect();
        let facts = if new.is_empty() { Vec::new() } else { vec![Fact::Uploading { ids: new }] };
        let ids: Vec<RequestId> = batch.iter().map(|entry| entry.id).collect();
        Ok::<_, NotWritten>((facts, (ids, sales, state.waiting())))
    };
    let (ids, sales, waiting) = shared.write(choose).await?;
    if ids.is_empty() {
        // Of what waits and cannot be sent nothing is gained by trying at once.
        return if waiting == 0 { Ok(()) } else { Err(TryAgain(Duration::ZERO)) };
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
