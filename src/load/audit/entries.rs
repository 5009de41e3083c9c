//! The ledger's records as they were exported, read once and put in the order of their request ids.

use std::str::FromStr;

use super::cases::{Case, CaseKind, Cases};
use super::table::Standing;
use crate::grpc::v1;
use crate::ids::{RequestId, SiteId};

/// One line of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Which record it stands in: its place in the export.
    pub record: usize,
    pub request: RequestId,
    pub standing: Standing,
    pub site: SiteId,
    pub quantity: u32,
    pub hold: bool,
    pub late: bool,
    pub over: bool,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Milliseconds since 1970.
    pub mark: i64,
}

/// All entries, record by record.
#[derive(Debug, Default)]
pub(super) struct Entries {
    all: Vec<Entry>,
    /// Places in `all`, by request id.
    by_request: Vec<(RequestId, usize)>,
}

impl Entries {
    pub(super) fn read(records: &[v1::ExportedRecord], cases: &mut Cases) -> Self {
        let mut all = Vec::with_capacity(records.iter().map(|record| record.entries.len()).sum());
        for (record, exported) in records.iter().enumerate() {
            for entry in &exported.entries {
                match read(record, entry) {
                    Some(entry) => all.push(entry),
                    None => cases.add(Case {
                        kind: CaseKind::Unreadable,
                        request: RequestId::from_str(&entry.request_id).ok(),
                        site: SiteId::from_str(&entry.site).ok(),
                        expected: "an entry with a request id, a state, a site and two times".into(),
                        stands: "one without".into(),
                    }),
                }
            }
        }
        let mut by_request: Vec<(RequestId, usize)> =
            all.iter().enumerate().map(|(place, entry): (usize, &Entry)| (entry.request, place)).collect();
        by_request.sort_unstable();
        Self { all, by_request }
    }

    /// Every entry with its place, record by record.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.all.iter().enumerate()
    }

    /// Every entry with its place, by request id.
    pub(super) fn by_request(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.by_request.iter().filter_map(|(_, place)| Some((*place, self.all.get(*place)?)))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

fn read(record: usize, entry: &v1::ExportedEntry) -> Option<Entry> {
    let standing = match entry.state() {
        v1::EntryState::Unspecified => return None,
        v1::EntryState::Sold => Standing::Sold,
        v1::EntryState::Held => Standing::Held,
        v1::EntryState::Released => Standing::Released,
        v1::EntryState::Voided => Standing::Voided,
        v1::EntryState::Refused => Standing::Refused,
        v1::EntryState::Closed => Standing::Closed,
    };
    let millis =
        |time: &prost_types::Timestamp| time.seconds.checked_mul(1000)?.checked_add(i64::from(time.nanos) / 1_000_000);
    Some(Entry {
        record,
        request: entry.request_id.parse().ok()?,
        standing,
        site: entry.site.parse().ok()?,
        quantity: entry.quantity,
        hold: entry.hold,
        late: entry.late,
        over: entry.over,
        at: entry.at.as_ref().and_then(millis)?,
        mark: entry.mark.as_ref().and_then(millis)?,
    })
}
