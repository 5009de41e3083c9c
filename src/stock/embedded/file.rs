//! The shelf's file: a redb database of its own.
//!
//! Layout 1:
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `layout` | 1 |
//! | `reports` | place: milliseconds of the newest report so far, counted from 1 | the report, packed (`packed`); the newest [`REPORTS_KEPT`](crate::stock::REPORTS_KEPT) |
//! | `ids` | site, request id | its place; goes with the report |
//! | `picture` | `newest` | the bytes that were kept last |
//!
//! The lower number of a place is never given out twice. The higher one tells a report from the one that has this number after an older
//! copy of the file was put back; it never falls, so that places are in order.
//!
//! Measured: a report takes 270 bytes with its id, two million 540 MB.
//!
//! Knows nothing about how the file is opened and when it is written.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use crate::ledger::LedgerError;
use crate::ledger::embedded::beside::{Kind, Wrote, store};
use crate::stock::{Place, Recorded, Report, Reports, packed};

const REPORTS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("reports");
const IDS: TableDefinition<'_, (&str, &[u8; 16]), (u64, u64)> = TableDefinition::new("ids");
const PICTURE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("picture");
const NEWEST: &str = "newest";

/// What the file is.
pub(super) const KIND: Kind =
    Kind { of: "the stock", moved_away: "every site must then count what it has", layout: 1, tables: lay_out };

fn lay_out(write: &WriteTransaction) -> Result<(), redb::Error> {
    write.open_table(REPORTS)?;
    write.open_table(IDS)?;
    write.open_table(PICTURE)?;
    Ok(())
}

/// Puts a report there, unless its id stands. The oldest go when there are more than so many.
pub(super) fn record(write: &WriteTransaction, report: &Report, kept: u64) -> Result<(Recorded, Wrote), LedgerError> {
    let mut reports = write.open_table(REPORTS).map_err(store)?;
    let mut ids = write.open_table(IDS).map_err(store)?;
    let stood = ids.get(id(report)).map_err(store)?.map(|place| place.value());
    if let Some(stood) = stood {
        let bytes = reports.get(stood).map_err(store)?;
        let bytes = bytes.ok_or_else(|| LedgerError::Corrupt("an id stands for no report".to_owned()))?;
        return Ok((Recorded::again(unpack(stood, bytes.value())?, report), Wrote::Nothing));
    }
    let (high, low) = reports.last().map_err(store)?.map_or((0, 0), |(place, _)| place.value());
    let place = (high.max(u64::try_from(report.received.as_millis()).unwrap_or(0)), low + 1);
    reports.insert(place, packed::pack(report).as_slice()).map_err(store)?;
    ids.insert(id(report), place).map_err(store)?;
    while reports.len().map_err(store)? > kept
        && let Some((_, oldest)) = reports.pop_first().map_err(store)?
    {
        if let Ok(oldest) = packed::unpack(oldest.value()) {
            ids.remove(id(&oldest)).map_err(store)?;
        }
    }
    Ok((Recorded::Stands { report: *report, replayed: false }, Wrote::Something))
}

/// See [`Shelf::after`](crate::stock::Shelf::after).
pub(super) fn after(read: &ReadTransaction, place: Place, most: usize) -> Result<Reports, LedgerError> {
    let reports = read.open_table(REPORTS).map_err(store)?;
    let from = if place == Place::FIRST { (0, 0) } else { (place.high, place.low) };
    // The report of the place itself is read with them, to see whether it is still there.
    let found = reports.range(from..).map_err(store)?.take(most.saturating_add(1)).map(|row| {
        let (place, bytes) = row.map_err(store)?;
        let (high, low) = place.value();
        Ok((Place { high, low }, unpack((high, low), bytes.value())?))
    });
    let found = found.collect::<Result<Vec<_>, LedgerError>>()?;
    let is_whole = found.first().is_none_or(|(first, _)| first.low == 1);
    Ok(Reports::of(place, found, is_whole, most))
}

/// Keeps these bytes.
pub(super) fn keep(write: &WriteTransaction, picture: &[u8]) -> Result<((), Wrote), LedgerError> {
    write.open_table(PICTURE).map_err(store)?.insert(NEWEST, picture).map_err(store)?;
    Ok(((), Wrote::Something))
}

/// The bytes that were kept last.
pub(super) fn kept(read: &ReadTransaction) -> Result<Option<Vec<u8>>, LedgerError> {
    let picture = read.open_table(PICTURE).map_err(store)?;
    Ok(picture.get(NEWEST).map_err(store)?.map(|bytes| bytes.value().to_vec()))
}

/// Where the place of a report stands.
fn id(report: &Report) -> (&str, &[u8; 16]) {
    (report.key.site.as_str(), report.request.as_bytes())
}

fn unpack((high, low): (u64, u64), bytes: &[u8]) -> Result<Report, LedgerError> {
    packed::unpack(bytes).map_err(|error| LedgerError::Corrupt(format!("{error}; it is {high}-{low}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RequestId;
    use crate::ledger::embedded::beside::Beside;
    use crate::stock::{Key, What};
    use crate::time::Timestamp;

    fn report(number: u8, received: i64) -> Report {
        Report {
            request: RequestId::from_bytes([number; 16]).unwrap(),
            key: Key { programme: "km".parse().unwrap(), site: "s".parse().unwrap() },
            what: What::Delivered(u32::from(number)),
            at: Timestamp::from_millis(received),
            received: Timestamp::from_millis(received),
        }
    }

    async fn put(file: &Beside, report: Report, most: u64) -> Result<Recorded, LedgerError> {
        file.write(move |write| record(write, &report, most)).await
    }

    async fn next(file: &Beside, place: Place) -> Option<Vec<(Place, Report)>> {
        match file.read(move |read| after(read, place, 9)).await.unwrap() {
            Reports::Next(next) => Some(next),
            Reports::Gone => None,
        }
    }

    #[tokio::test]
    async fn the_oldest_go_with_their_ids_and_whoever_stood_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = Beside::open(&dir.path().join("stock.redb"), KIND).unwrap();
        for number in 1..=3 {
            put(&file, report(number, 1_000), 3).await.unwrap();
        }
        let all = next(&file, Place::FIRST).await.unwrap();
        assert_eq!(all.len(), 3);
        // A clock that was set back: places stay in order.
        put(&file, report(4, 500), 3).await.unwrap();
        let left = next(&file, Place::BEGINNING).await.unwrap();
        let places: Vec<Place> = left.into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, [2, 3, 4].map(|low| Place { high: 1_000, low }));
        assert_eq!(next(&file, Place::FIRST).await, None, "something was dropped");
        assert_eq!(next(&file, all[0].0).await, None);
        assert_eq!(next(&file, places[0]).await.unwrap().len(), 2);
        assert_eq!(next(&file, places[2]).await, Some(Vec::new()));
        // Of another copy of the file.
        assert_eq!(next(&file, Place { high: 999, low: 4 }).await, None);
        let ids = file.read(|read| read.open_table(IDS).map_err(store)?.len().map_err(store)).await;
        assert_eq!(ids, Ok(3));
        let again = put(&file, report(1, 2_000), 3).await.unwrap();
        assert!(matches!(again, Recorded::Stands { replayed: false, .. }), "its id is forgotten: {again:?}");
    }

    #[tokio::test]
    async fn what_is_damaged_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = Beside::open(&dir.path().join("stock.redb"), KIND).unwrap();
        put(&file, report(1, 1_000), 9).await.unwrap();
        let damage = |write: &WriteTransaction| {
            let mut reports = write.open_table(REPORTS).map_err(store)?;
            reports.insert((1_000, 1), b"no report".as_slice()).map_err(store)?;
            Ok(((), Wrote::Something))
        };
        file.write(damage).await.unwrap();
        let read = file.read(|read| after(read, Place::BEGINNING, 9)).await;
        assert!(matches!(read, Err(LedgerError::Corrupt(_))));
        assert!(matches!(put(&file, report(1, 1_000), 9).await, Err(LedgerError::Corrupt(_))));
        assert!(put(&file, report(2, 1_000), 9).await.is_ok());
    }
}
