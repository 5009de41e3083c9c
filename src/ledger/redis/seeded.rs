//! A seeded bug of the museum: what this ledger would be if it did not decide and write in one step.

use crate::ledger::{
    Answer, Call, Claim, Claimed, EventKind, Ledger, LedgerError, OUTBOX_EVENTS, RecordKey, packed, rules,
};
use crate::time::Clock;

use super::{RedisLedger, keys};

/// A claim that reads in one command, decides here, and writes in another.
pub(super) async fn check_then_write<C: Clock>(
    ledger: &RedisLedger<C>,
    key: RecordKey,
    call: Call,
    claim: Claim,
) -> Result<Answer<Claimed>, LedgerError> {
    let record = ledger.usage(key).await?;
    let step = rules::claim(&record, &call, &claim)?;
    let mut write = redis::pipe();
    for event in &step.events {
        let entry = &event.entry;
        let told = write.cmd("XADD").arg(keys::outbox(key.buyer.partition));
        told.arg("MAXLEN").arg("~").arg(OUTBOX_EVENTS).arg("*");
        told.arg("kind").arg(event.kind.name()).arg("programme").arg(key.programme.as_str());
        told.arg("request").arg(entry.request.to_string()).arg("site").arg(entry.site.as_str());
        told.arg("terminal").arg(call.terminal.as_str()).arg("quantity").arg(entry.quantity);
        let stated = if event.kind == EventKind::Released { "" } else { claim.stated.as_str() };
        told.arg("at").arg(entry.at.as_millis()).arg("stated").arg(stated);
        if let Some(until) = entry.held_until() {
            told.arg("until").arg(until.as_millis());
        }
    }
    for entry in &step.writes {
        write.cmd("HSET").arg(keys::record(&key)).arg(entry.request.as_bytes().as_slice()).arg(packed::pack(entry));
    }
    if !step.writes.is_empty() {
        let written = ledger.send(async move |mut connection| write.exec_async(&mut connection).await).await;
        written?;
    }
    Ok(Answer { outcome: step.outcome, replayed: step.replayed, at: step.at, record: record.with(&step.writes) })
}
