//! Seeded bugs of the museum: what this ledger would be if it did not decide and write in one step, or did not wait for it.

use futures_util::future::BoxFuture;

use crate::ledger::{
    Answer, Call, Claim, Claimed, Ledger, LedgerError, OUTBOX_EVENTS, Record, RecordKey, outbox, packed, rules,
};
use crate::museum::Mutant;
use crate::time::Clock;

use super::{RedisLedger, encode, keys};

/// The claim of the bug that is switched on, if one is.
pub(super) fn claim<C: Clock>(
    ledger: &RedisLedger<C>,
    key: RecordKey,
    call: Call,
    claim: Claim,
) -> Option<BoxFuture<'_, Result<Answer<Claimed>, LedgerError>>> {
    if Mutant::CheckThenWrite.is_on() {
        return Some(Box::pin(check_then_write(ledger, key, call, claim)));
    }
    Mutant::AnsweredBeforeReply.is_on().then(|| answered_before_reply(ledger, key, call, claim))
}

/// A claim that is put into the queue and answered at once, as if nobody had bought before.
fn answered_before_reply<C: Clock>(
    ledger: &RedisLedger<C>,
    key: RecordKey,
    call: Call,
    claim: Claim,
) -> BoxFuture<'_, Result<Answer<Claimed>, LedgerError>> {
    let (ledger, cmd) = (ledger.clone(), encode::claim(&key, &call, &claim));
    Box::pin(async move {
        tokio::spawn(ledger.ask(&key, cmd));
        let step = rules::claim(&Record::default(), &call, &claim)?;
        let record = Record::default().with(&step.writes);
        Ok(Answer { outcome: step.outcome, replayed: step.replayed, at: step.at, record })
    })
}

/// A claim that reads in one command, decides here, and writes in another.
async fn check_then_write<C: Clock>(
    ledger: &RedisLedger<C>,
    key: RecordKey,
    call: Call,
    claim: Claim,
) -> Result<Answer<Claimed>, LedgerError> {
    let record = ledger.usage(key).await?;
    let step = rules::claim(&record, &call, &claim)?;
    let mut write = redis::pipe();
    let after = record.with(&step.writes);
    for event in &step.events {
        let value = outbox::write(event, key.programme, call.terminal, &claim.stated);
        let told = write.cmd("XADD").arg(&keys::outbox(key.buyer.partition));
        told.arg("MAXLEN").arg("~").arg(OUTBOX_EVENTS).arg("*").arg(event.kind.name()).arg(value);
    }
    write.cmd("SET").arg(keys::record(&key)).arg(packed::pack(after.entries()));
    if !step.writes.is_empty() {
        let shard = ledger.shards().of(key.buyer.partition)?;
        ledger.send(&shard, async move |mut connection| write.exec_async(&mut connection).await).await?;
    }
    Ok(Answer { outcome: step.outcome, replayed: step.replayed, at: step.at, record: after })
}
