//! The books in Redis: a hash for each site. A batch that comes is one script, and what became of it another, so that looking and writing
//! are one step on any number of instances.
//!
//! An answer leaves when every replica that might take over has what it rests on ([`beside`](crate::ledger::redis)).

mod keys;

pub use keys::TAG as JOURNAL_TAG;

use std::sync::Arc;

use redis::FromRedisValue;

use super::{Arrived, Book, ROWS_OF_A_SITE, Row, Verdict, Why, packed};
use crate::ids::{RequestId, SiteId};
use crate::ledger::LedgerError;
use crate::ledger::redis::beside::{Beside, given_back, may_be_there, meaning};
use crate::ledger::redis::wrote_nothing;
use crate::redis_pool::{Dialled, RedisPool};

const ARRIVE: &str = include_str!("redis/arrive.lua");
const SETTLE: &str = include_str!("redis/settle.lua");
/// Rows of one reply when a book is read: a fraction of a millisecond of the server.
const STEP: usize = 500;

/// The books of every instance that uses this Redis.
#[derive(Clone)]
pub struct RedisBook {
    beside: Beside,
    scripts: Arc<Scripts>,
}

/// The scripts, each prepared once.
struct Scripts {
    arrive: redis::Script,
    settle: redis::Script,
}

impl RedisBook {
    /// Books over this pool, which must lead to where [`JOURNAL_TAG`] is kept. `allow_volatile`: the operator has decided that the
    /// store may lose what it has acknowledged, and no replica is waited for. Nothing is sent yet.
    pub fn new(pool: RedisPool, allow_volatile: bool) -> Self {
        let scripts = Scripts { arrive: redis::Script::new(ARRIVE), settle: redis::Script::new(SETTLE) };
        Self { beside: Beside::new(pool, allow_volatile, keys::BARRIER), scripts: Arc::new(scripts) }
    }

    async fn put(&self, connection: &mut Dialled, site: SiteId, rows: &[Row]) -> Result<Vec<Arrived>, LedgerError> {
        let mut script = self.scripts.arrive.prepare_invoke();
        script.key(keys::of(site)).arg(ROWS_OF_A_SITE).arg(rows.len());
        for row in rows {
            let aside = Row { verdict: Verdict::Quarantined(Why::EnteredDifferently), ..row.clone() };
            script.arg(row.sale.request.as_bytes()).arg(packed::pack(row)).arg(packed::pack(&aside));
        }
        let replies: Vec<Vec<u8>> = script.invoke_async(&mut **connection).await.map_err(meaning)?;
        self.beside.confirm(connection).await.map_err(may_be_there)?;
        let arrived = replies.iter().map(|reply| match reply.as_slice() {
            b"FIRST" => Some(Arrived::First),
            b"DIFFERENTLY" => Some(Arrived::Differently),
            b"FULL" => Some(Arrived::Full),
            [b'A', b'G', b'A', b'I', b'N', became, why] => packed::said(*became, *why).map(Arrived::Again),
            _ => None,
        });
        let arrived: Option<Vec<Arrived>> = arrived.collect();
        arrived
            .filter(|arrived| arrived.len() == rows.len())
            .ok_or_else(|| LedgerError::Corrupt("a reply of another shape".to_owned()))
    }

    async fn write(&self, connection: &mut Dialled, site: SiteId, rows: &[Row]) -> Result<(), LedgerError> {
        let mut script = self.scripts.settle.prepare_invoke();
        script.key(keys::of(site)).arg(rows.len());
        for row in rows {
            script.arg(row.sale.request.as_bytes()).arg(packed::pack(row));
        }
        let () = script.invoke_async(&mut **connection).await.map_err(meaning)?;
        self.beside.confirm(connection).await.map_err(may_be_there)
    }

    /// In steps: another may write meanwhile, and every row that stands throughout is given.
    async fn look(&self, connection: &mut Dialled, site: SiteId) -> Result<Vec<Row>, LedgerError> {
        let (mut cursor, mut rows) = ("0".to_owned(), std::collections::BTreeMap::new());
        loop {
            let mut step = redis::cmd("HSCAN");
            step.arg(keys::of(site)).arg(&cursor).arg("COUNT").arg(STEP);
            let reply: redis::Value = step.query_async(&mut **connection).await.map_err(meaning)?;
            let (next, found) = <(String, Vec<(Vec<u8>, Vec<u8>)>)>::from_redis_value(reply)
                .map_err(|error| LedgerError::Corrupt(format!("a book is no hash: {error}")))?;
            rows.extend(found);
            if next == "0" {
                break;
            }
            cursor = next;
        }
        self.beside.confirm(connection).await?;
        rows.into_iter().map(|(field, bytes)| row(site, &field, &bytes)).collect()
    }
}

impl Book for RedisBook {
    async fn arrive(&self, site: SiteId, rows: Vec<Row>) -> Result<Vec<Arrived>, LedgerError> {
        let mut connection = self.beside.connection().await?;
        let arrived = self.put(&mut connection, site, &rows).await;
        given_back(connection, arrived)
    }

    async fn settle(&self, site: SiteId, rows: Vec<Row>) -> Result<(), LedgerError> {
        let mut connection = self.beside.connection().await?;
        let settled = self.write(&mut connection, site, &rows).await;
        given_back(connection, settled)
    }

    async fn read(&self, site: SiteId) -> Result<Vec<Row>, LedgerError> {
        let mut connection = self.beside.connection().await?;
        let read = self.look(&mut connection, site).await;
        given_back(connection, read).map_err(wrote_nothing)
    }
}

fn row(site: SiteId, field: &[u8], bytes: &[u8]) -> Result<Row, LedgerError> {
    let request = field.first_chunk::<16>().and_then(|id| RequestId::from_bytes(*id));
    let request = request.ok_or_else(|| LedgerError::Corrupt(format!("a row of the book of {site} has no id")))?;
    packed::unpack(request, bytes).map_err(|error| LedgerError::Corrupt(format!("{error}; it is {request} of {site}")))
}
