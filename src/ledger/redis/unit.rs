//! A unit: what goes to the server as one pipeline on one connection, and is answered as one.
//!
//! Behind the calls stands a write, the barrier, and behind that, where there are replicas, `WAIT` for those that must have them.
//! `WAIT` speaks of everything that its own connection has written before it, so whoever sends a call again sends a whole unit
//! again. The barrier counts units, and is the last of a unit to be written: a store that has its count has its calls, wherever a
//! log was cut or a replica's stream broke off. With fewer replicas than asked for, or without a count, every answer of the unit is
//! unconfirmed, replays and refusals among them: what they rest on may vanish with the primary. A unit that only reads needs
//! neither where there are no replicas.
//!
//! Knows nothing about what the calls mean.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisResult, Value};

use crate::ledger::LedgerError;
use crate::museum::Mutant;

use super::standing::{Barrier, Behind, Pass, Standing};
use super::{faults, trip};

/// How long replicas are waited for: within the time of a trip.
const REPLICAS_WITHIN: Duration = Duration::from_millis(700);

/// How long an empty unit waits for them: what a look finds must not come late.
const LOOK_WITHIN: Duration = Duration::from_millis(100);

/// What a call, or all calls of a unit, may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asks {
    /// It changes nothing.
    Reads,
    /// It may change a record.
    MayWrite,
}

/// What came back of a call.
pub(super) type Reply = RedisResult<Value>;

/// Sends these calls as a unit. What came back of each of them, as it may be passed on; if it may have been executed and is not
/// confirmed, that. An error: it is not known of any.
pub(super) async fn send(
    connection: &mut MultiplexedConnection,
    standing: &Standing,
    pass: Pass,
    asks: Asks,
    calls: impl ExactSizeIterator<Item = Cmd>,
) -> RedisResult<Vec<Result<Reply, LedgerError>>> {
    if asks == Asks::Reads && pass.replicas == 0 {
        let mut unit = Pipeline::with_capacity(calls.len());
        calls.for_each(|call| {
            unit.add_command(call);
        });
        let replies = connection.req_packed_commands(&unit, 0, unit.len()).await?;
        return Ok(replies.into_iter().map(|reply| Ok(reply.extract_error())).collect());
    }
    let unit = unit(standing, calls, pass);
    let mut replies = sent(connection, standing, pass, &unit).await?;
    // Scripts that the server has lost were not run: they are loaded, and their calls alone are sent again.
    let lost = |reply: &Result<Reply, LedgerError>| matches!(reply, Ok(Err(error)) if faults::is_script_lost(error));
    if !replies.iter().any(lost) || trip::load_scripts(connection).await.is_err() {
        return Ok(replies);
    }
    let (places, again): (Vec<_>, Vec<_>) = replies
        .iter_mut()
        .zip(unit.cmd_iter())
        .filter(|(reply, _)| lost(reply))
        .map(|(reply, call)| (reply, call.clone()))
        .unzip();
    match sent(connection, standing, pass, &self::unit(standing, again.into_iter(), pass)).await {
        Ok(second) => places.into_iter().zip(second).for_each(|(place, reply)| *place = reply),
        Err(error) => places.into_iter().for_each(|place| *place = Ok(Err(error.clone()))),
    }
    Ok(replies)
}

/// Sends an empty unit: an instance that sells nothing knows by it, too, how far the store had got. Where nothing can be written or
/// replicas are missing, whoever asks for a sale is told so.
pub(super) async fn sign(connection: &mut MultiplexedConnection, standing: &Standing, pass: Pass) -> RedisResult<()> {
    let acknowledged = standing.acknowledged();
    let Barrier { key, process } = standing.barrier();
    let units: Option<u64> = redis::cmd("HGET").arg(key).arg(process).query_async(connection).await?;
    let units = units.unwrap_or_default();
    if units < acknowledged {
        found_behind(standing, pass, Behind { units, acknowledged });
        // It is not to catch up by being looked at.
        return Ok(());
    }
    let mut unit = Pipeline::with_capacity(2);
    raise(&mut unit, standing);
    wait(&mut unit, pass, LOOK_WITHIN);
    let replies = connection.req_packed_commands(&unit, 0, unit.len()).await?;
    let mut replies = replies.into_iter().map(|reply| number(reply.extract_error()));
    let (signed, had) = (replies.next().flatten(), replies.next().unwrap_or(Some(0)));
    if let Some(signed) = signed
        && had.is_some_and(|had| is_enough(had, pass.replicas))
    {
        standing.acknowledge(signed);
    }
    Ok(())
}

/// Raises the number of this process.
fn raise(unit: &mut Pipeline, standing: &Standing) {
    let Barrier { key, process } = standing.barrier();
    unit.cmd("HINCRBY").arg(key).arg(process).arg(1);
}

/// What may be lost by what the operator has decided is not missed.
fn found_behind(standing: &Standing, pass: Pass, behind: Behind) {
    if !pass.is_volatile && !Mutant::WitnessSkipped.is_on() {
        standing.found_behind(pass.server, behind);
    }
}

/// The calls, the barrier, and the wait for replicas.
fn unit(standing: &Standing, calls: impl ExactSizeIterator<Item = Cmd>, pass: Pass) -> Pipeline {
    let mut unit = Pipeline::with_capacity(calls.len() + 2);
    if Mutant::WaitBeforeWrite.is_on() {
        wait(&mut unit, pass, REPLICAS_WITHIN);
    }
    if Mutant::CountedFirst.is_on() {
        raise(&mut unit, standing);
    }
    for call in calls {
        unit.add_command(call);
    }
    if !Mutant::CountedFirst.is_on() {
        raise(&mut unit, standing);
    }
    if !Mutant::WaitBeforeWrite.is_on() {
        wait(&mut unit, pass, REPLICAS_WITHIN);
    }
    unit
}

/// Waits for replicas, where there are any.
fn wait(unit: &mut Pipeline, pass: Pass, within: Duration) {
    if pass.replicas > 0 {
        unit.cmd("WAIT").arg(pass.replicas).arg(within.as_millis().to_string());
    }
}

async fn sent(
    connection: &mut MultiplexedConnection,
    standing: &Standing,
    pass: Pass,
    unit: &Pipeline,
) -> RedisResult<Vec<Result<Reply, LedgerError>>> {
    let (answers, confirmed) = counted(connection, standing, pass, unit).await?;
    // What surely was not executed needs no confirmation.
    let passed_on = |answer: Reply| match &confirmed {
        Err(unconfirmed) if answer.is_ok() => Err(unconfirmed.clone()),
        _ => Ok(answer),
    };
    Ok(answers.into_iter().map(passed_on).collect())
}

/// Confirms what this connection has read.
pub(super) async fn confirm(
    connection: &mut MultiplexedConnection,
    standing: &Standing,
    pass: Pass,
) -> RedisResult<Result<(), LedgerError>> {
    let (_, confirmed) = counted(connection, standing, pass, &unit(standing, std::iter::empty(), pass)).await?;
    Ok(confirmed)
}

/// What came back of the calls of a unit, and whether it may be passed on.
async fn counted(
    connection: &mut MultiplexedConnection,
    standing: &Standing,
    pass: Pass,
    unit: &Pipeline,
) -> RedisResult<(Vec<Reply>, Result<(), LedgerError>)> {
    let acknowledged = standing.acknowledged();
    let replies = connection.req_packed_commands(unit, 0, unit.len()).await?;
    let mut answers: Vec<Reply> = replies.into_iter().map(Value::extract_error).collect();
    if Mutant::WaitBeforeWrite.is_on() && pass.replicas > 0 {
        answers.rotate_left(1);
    }
    let had = if pass.replicas > 0 { answers.pop().and_then(number) } else { Some(0) };
    if Mutant::CountedFirst.is_on() {
        answers.rotate_left(1);
    }
    let barrier = answers.pop().and_then(number);
    // A store that is whole gives every unit a number above those that were acknowledged before it was sent.
    if let Some(unit) = barrier
        && unit <= acknowledged
    {
        found_behind(standing, pass, Behind { units: unit - 1, acknowledged });
    }
    let is_behind = standing.behind(pass.server).is_some();
    if let Some(unit) = barrier
        && !is_behind
        && had.is_some_and(|had| is_enough(had, pass.replicas))
    {
        standing.acknowledge(unit);
        return Ok((answers, Ok(())));
    }
    // The next look finds out whether there are fewer replicas now, or what became of the store.
    standing.alarm.notify_one();
    let why = if is_behind {
        "the store has lost what was acknowledged".into()
    } else {
        match had {
            Some(had) if barrier.is_some() => format!("{had} of {} replicas have it", pass.replicas),
            _ => "the store did not count it".into(),
        }
    };
    Ok((answers, Err(LedgerError::Unconfirmed(why))))
}

fn number(reply: Reply) -> Option<u64> {
    match reply {
        Ok(Value::Int(number)) => u64::try_from(number).ok(),
        _ => None,
    }
}

/// Whether so many replicas are as many as asked for.
fn is_enough(had: u64, replicas: usize) -> bool {
    had >= replicas as u64 || Mutant::WaitNotCompared.is_on()
}
