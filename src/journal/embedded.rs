//! The books of one process on one machine: a redb file of its own.
//!
//! Layout 1:
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `layout` | 1 |
//! | `rows` | site, request id, and the mark of what was put beside another or nothing | the row, packed (`packed`) |
//! | `counts` | site | how many rows it has |
//!
//! Each batch is a transaction with a sync of its own.

use std::path::Path;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{Arrival, Arrived, Book, ROWS_OF_A_SITE, Row, Verdict, packed};
use crate::ids::{RequestId, SiteId};
use crate::ledger::LedgerError;
use crate::ledger::embedded::beside::{Beside, FileError, Kind, Wrote, store};

type Key<'a> = (&'a str, &'a [u8; 16], &'a [u8]);
const ROWS: TableDefinition<'_, Key<'_>, &[u8]> = TableDefinition::new("rows");
/// How many rows a site has.
const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts");

const KIND: Kind = Kind {
    of: "the journals",
    moved_away: "what became of late sales is then forgotten, the list of those put aside among it",
    layout: 1,
    tables: lay_out,
};

fn lay_out(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.open_table(ROWS)?;
    write.open_table(COUNTS)?;
    Ok(())
}

/// The books of one process. Clones share everything.
#[derive(Clone)]
pub struct EmbeddedBook(Beside);

impl EmbeddedBook {
    /// Opens the file, or makes it. Blocks meanwhile.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Beside::open(path, KIND).map(Self)
    }

    /// Books on a disk of the caller's making, for tests of what a crash leaves behind.
    #[doc(hidden)]
    pub fn open_with_backend(backend: impl redb::StorageBackend) -> Result<Self, FileError> {
        Beside::open_backend(backend, KIND).map(Self)
    }

    /// Waits until the books answer nothing more, which is for good: only a new start can open the file again.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Book for EmbeddedBook {
    async fn arrive(&self, site: SiteId, rows: Vec<Row>) -> Result<Vec<Arrived>, LedgerError> {
        let arrive = move |write: &WriteTransaction| {
            let mut table = write.open_table(ROWS).map_err(store)?;
            let mut counts = write.open_table(COUNTS).map_err(store)?;
            let mut count = counts.get(site.as_str()).map_err(store)?.map_or(0, |count| count.value());
            let mut arrived = Vec::with_capacity(rows.len());
            for row in rows {
                let request = row.sale.request;
                let stood = stood(&table, site, request)?;
                let Arrival { put, aside, arrived: became } = Arrival::of(row, stood.as_ref());
                let beside = |row: &Row| (site, request, row.sale.mark);
                let is_new = match &aside {
                    Some(aside) => table.get(key(&beside(aside))).map_err(store)?.is_none(),
                    None => false,
                };
                if count >= ROWS_OF_A_SITE as u64 && (is_new || (put.is_some() && stood.is_none())) {
                    arrived.push(Arrived::Full);
                    continue;
                }
                if let Some(row) = put {
                    let under = (site.as_str(), request.as_bytes(), [].as_slice());
                    let was = table.insert(under, packed::pack(&row).as_slice()).map_err(store)?.is_some();
                    let stood_beside = table.remove(key(&beside(&row))).map_err(store)?.is_some();
                    count = count + u64::from(!was) - u64::from(stood_beside);
                }
                if let Some(row) = aside {
                    table.insert(key(&beside(&row)), packed::pack(&row).as_slice()).map_err(store)?;
                    count += u64::from(is_new);
                }
                arrived.push(became);
            }
            counts.insert(site.as_str(), count).map_err(store)?;
            let changed = arrived.iter().any(|arrived| matches!(arrived, Arrived::First | Arrived::Differently));
            Ok((arrived, if changed { Wrote::Something } else { Wrote::Nothing }))
        };
        self.0.write(arrive).await
    }

    async fn settle(&self, site: SiteId, rows: Vec<Row>) -> Result<(), LedgerError> {
        let settle = move |write: &WriteTransaction| {
            let mut table = write.open_table(ROWS).map_err(store)?;
            for row in rows {
                let stood = stood(&table, site, row.sale.request)?;
                let pending = |stood: &Row| stood.sale.mark == row.sale.mark && stood.verdict == Verdict::Pending;
                if let Some(stood) = stood.filter(pending) {
                    let settled = Row { received: stood.received, ..row };
                    let key = (site.as_str(), row.sale.request.as_bytes(), [].as_slice());
                    table.insert(key, packed::pack(&settled).as_slice()).map_err(store)?;
                }
            }
            Ok(((), Wrote::Something))
        };
        self.0.write(settle).await
    }

    async fn read(&self, site: SiteId) -> Result<Vec<Row>, LedgerError> {
        let read = move |read: &redb::ReadTransaction| {
            let table = read.open_table(ROWS).map_err(store)?;
            let from: Key<'_> = (site.as_str(), &[0; 16], &[]);
            let rows = table.range(from..).map_err(store)?;
            let mut found = Vec::new();
            for row in rows {
                let (key, bytes) = row.map_err(store)?;
                let (of, request, _) = key.value();
                if of != site.as_str() {
                    break;
                }
                found.push(unpack(*request, bytes.value(), site)?);
            }
            Ok(found)
        };
        self.0.read(read).await
    }
}

/// Where a row stands that was put beside another.
fn key((site, request, mark): &(SiteId, RequestId, [u8; 8])) -> Key<'_> {
    (site.as_str(), request.as_bytes(), mark)
}

fn stood(
    table: &Table<'_, Key<'static>, &'static [u8]>,
    site: SiteId,
    request: RequestId,
) -> Result<Option<Row>, LedgerError> {
    let stood = table.get((site.as_str(), request.as_bytes(), [].as_slice())).map_err(store)?;
    stood.map(|bytes| unpack(*request.as_bytes(), bytes.value(), site)).transpose()
}

fn unpack(request: [u8; 16], bytes: &[u8], site: SiteId) -> Result<Row, LedgerError> {
    let request = RequestId::from_bytes(request)
        .ok_or_else(|| LedgerError::Corrupt(format!("a row of the book of {site} has no id")))?;
    packed::unpack(request, bytes).map_err(|error| LedgerError::Corrupt(format!("{error}; it is {request} of {site}")))
}
