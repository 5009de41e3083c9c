//! One trip to Redis: a connection, a deadline over everything, and what a failure means.

use std::future::Future;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, RedisResult, Value};
use tokio::time::{Instant, timeout_at};

use crate::ledger::LedgerError;
use crate::redis_pool::{Connection, RedisAway, RedisPool};

use super::standing::{Pass, Standing};
use super::{faults, scripts};

/// How long a call may take, the wait for a connection and dialling it included.
const CALL_DEADLINE: Duration = Duration::from_millis(2_000);

/// Sends with a connection of the pool if the gate lets it, and says what it must keep to. Whatever fails before sending wrote nothing; a connection that broke, timed out or leads to the wrong server is not used again.
pub(super) async fn with_connection<T, F>(
    pool: &RedisPool,
    standing: &Standing,
    send: impl FnOnce(MultiplexedConnection, Pass) -> F,
) -> Result<T, LedgerError>
where
    F: Future<Output = RedisResult<T>>,
{
    standing.gate()?;
    let give_up = Instant::now() + CALL_DEADLINE;
    let connection = match timeout_at(give_up, pool.connection()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(RedisAway::AllInUse)) => return Err(LedgerError::Overloaded),
        Ok(Err(away)) => return Err(LedgerError::StoreUnavailable(away.to_string())),
        Err(_) => return Err(LedgerError::StoreUnavailable("no connection to Redis in time".into())),
    };
    // Dialling may have found a server that nobody has checked yet, and this may be a connection to one that is no more.
    let pass = standing.pass()?;
    if pass.server != connection.server() {
        drop(Connection::take(connection));
        return Err(LedgerError::StoreUnavailable("connections lead to different servers".into()));
    }
    match timeout_at(give_up, send(MultiplexedConnection::clone(&connection), pass)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            if faults::spoils_connection(&error) {
                drop(Connection::take(connection));
            }
            Err(faults::meaning(&error))
        }
        Err(_) => {
            drop(Connection::take(connection));
            Err(LedgerError::Unconfirmed("Redis did not answer in time".into()))
        }
    }
}

/// One command and its reply. A script that Redis has lost was not run: it is loaded and asked again.
pub(super) async fn ask(connection: &mut MultiplexedConnection, cmd: &Cmd) -> RedisResult<Value> {
    match connection.req_packed_command(cmd).await.and_then(Value::extract_error) {
        Err(error) if faults::is_script_lost(&error) => {
            load_scripts(connection).await?;
            connection.req_packed_command(cmd).await.and_then(Value::extract_error)
        }
        answer => answer,
    }
}

/// Makes every script known to the server.
pub(super) async fn load_scripts(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let mut load = redis::pipe();
    for script in scripts::all() {
        load.cmd("SCRIPT").arg("LOAD").arg(script.source.as_ref()).ignore();
    }
    load.query_async(connection).await
}
