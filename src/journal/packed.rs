//! How a row of a book stands in a store: the same bytes in Redis and in redb.
//!
//! | bytes | of a row |
//! |---|---|
//! | 8 | the mark |
//! | 1 | the verdict: 1 pending, 2 recorded, 3 over quota, 4 already recorded, 5 already voided, 6 quarantined |
//! | 1 | why it was put aside; 0 where it was not |
//! | 4 | units |
//! | 6 | when it was sold, milliseconds since 1970 |
//! | 6 | when it came, the same |
//! | 1 | how many bytes of the programme's code follow |
//! | 1 to 4 | the programme's code |
//! | for each conflict: 6, 4, 1, 1 to 16 | when it counts, units, how many bytes of the site's code follow, the site's code |
//!
//! Numbers are big-endian. The request id is the key. The script `arrive` compares the first nine bytes as they are. Whatever does not
//! read as a whole row, to the last byte, is none.

use super::{Conflict, Row, Said, Sale, Verdict, Why};
use crate::ids::RequestId;
use crate::ledger::packed::{instant, push_instant};

/// Bytes before the names.
const FIXED: usize = 27;
/// Bytes of a conflict before its site.
const CONFLICT: usize = 11;

/// The bytes are not a row of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row of a site's book cannot be read: {0}")]
pub(super) struct NotARow(&'static str);

/// As it is stored.
pub(super) fn pack(row: &Row) -> Vec<u8> {
    let (number, why, conflicts): (u8, u8, &[Conflict]) = match &row.verdict {
        Verdict::Pending => (1, 0, &[]),
        Verdict::Recorded => (2, 0, &[]),
        Verdict::OverQuota(conflicts) => (3, 0, conflicts),
        Verdict::AlreadyRecorded => (4, 0, &[]),
        Verdict::AlreadyVoided => (5, 0, &[]),
        Verdict::Quarantined(why) => (6, *why as u8, &[]),
    };
    let mut bytes = Vec::with_capacity(FIXED + 4);
    bytes.extend_from_slice(&row.sale.mark);
    bytes.extend_from_slice(&[number, why]);
    bytes.extend_from_slice(&row.sale.quantity.to_be_bytes());
    push_instant(&mut bytes, row.sale.sold_at);
    push_instant(&mut bytes, row.received);
    push_name(&mut bytes, row.sale.programme.as_str());
    for conflict in conflicts {
        push_instant(&mut bytes, conflict.at);
        bytes.extend_from_slice(&conflict.quantity.to_be_bytes());
        push_name(&mut bytes, conflict.site.as_str());
    }
    bytes
}

/// A code has at most sixteen bytes.
fn push_name(bytes: &mut Vec<u8>, name: &str) {
    bytes.extend(u8::try_from(name.len()));
    bytes.extend_from_slice(name.as_bytes());
}

/// The row of this id in these bytes.
pub(super) fn unpack(request: RequestId, bytes: &[u8]) -> Result<Row, NotARow> {
    const CUT_SHORT: NotARow = NotARow("it is cut short");
    let (mark, rest) = bytes.split_first_chunk::<8>().ok_or(CUT_SHORT)?;
    let (fixed, rest) = rest.split_first_chunk::<{ FIXED - 8 }>().ok_or(CUT_SHORT)?;
    let [number, why, u0, u1, u2, u3, s0, s1, s2, s3, s4, s5, r0, r1, r2, r3, r4, r5, length] = *fixed;
    let (programme, mut rest) = rest.split_at_checked(usize::from(length)).ok_or(CUT_SHORT)?;
    let mut conflicts = Vec::new();
    while !rest.is_empty() {
        let (fixed, names) = rest.split_first_chunk::<CONFLICT>().ok_or(CUT_SHORT)?;
        let [a0, a1, a2, a3, a4, a5, u0, u1, u2, u3, length] = *fixed;
        let (site, more) = names.split_at_checked(usize::from(length)).ok_or(CUT_SHORT)?;
        conflicts.push(Conflict {
            at: instant([a0, a1, a2, a3, a4, a5]),
            quantity: u32::from_be_bytes([u0, u1, u2, u3]),
            site: text(site).ok_or(NotARow("a site is not a site code"))?,
        });
        rest = more;
    }
    let verdict = match (said(number, why), conflicts.is_empty()) {
        (Some(Said::OverQuota), _) => Verdict::OverQuota(conflicts),
        (Some(Said::Pending), true) => Verdict::Pending,
        (Some(Said::Recorded), true) => Verdict::Recorded,
        (Some(Said::AlreadyRecorded), true) => Verdict::AlreadyRecorded,
        (Some(Said::AlreadyVoided), true) => Verdict::AlreadyVoided,
        (Some(Said::Quarantined(why)), true) => Verdict::Quarantined(why),
        _ => return Err(NotARow("what became of it is unknown")),
    };
    Ok(Row {
        sale: Sale {
            request,
            mark: *mark,
            programme: text(programme).ok_or(NotARow("its programme is not a programme's code"))?,
            quantity: u32::from_be_bytes([u0, u1, u2, u3]),
            sold_at: instant([s0, s1, s2, s3, s4, s5]),
        },
        received: instant([r0, r1, r2, r3, r4, r5]),
        verdict,
    })
}

fn text<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// What these two bytes of a row say became of it.
pub(super) fn said(became: u8, why: u8) -> Option<Said> {
    match (became, why) {
        (1, 0) => Some(Said::Pending),
        (2, 0) => Some(Said::Recorded),
        (3, 0) => Some(Said::OverQuota),
        (4, 0) => Some(Said::AlreadyRecorded),
        (5, 0) => Some(Said::AlreadyVoided),
        (6, why) => why_of(why).map(Said::Quarantined),
        _ => None,
    }
}

fn why_of(number: u8) -> Option<Why> {
    [Why::InTheFuture, Why::TooOld, Why::NotInForce, Why::EnteredDifferently, Why::TooMany]
        .into_iter()
        .find(|why| *why as u8 == number)
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;
    use crate::time::Timestamp;
    use proptest::prelude::*;

    fn conflict(site: &str) -> Conflict {
        Conflict { at: Timestamp::from_millis(1_583_884_800_000), quantity: 1, site: site.parse().unwrap() }
    }

    fn every() -> Vec<Row> {
        let verdicts = [
            Verdict::Pending,
            Verdict::Recorded,
            Verdict::OverQuota(Vec::new()),
            Verdict::OverQuota(vec![conflict("11000001"), conflict("a-long-site-code")]),
            Verdict::AlreadyRecorded,
            Verdict::AlreadyVoided,
            Verdict::Quarantined(Why::TooOld),
            Verdict::Quarantined(Why::EnteredDifferently),
        ];
        verdicts.into_iter().map(|verdict| row(7, 3, verdict)).collect()
    }

    #[test]
    fn what_is_packed_reads_as_it_was_and_nothing_shorter_does() {
        for row in every() {
            let bytes = pack(&row);
            assert_eq!(unpack(row.sale.request, &bytes), Ok(row.clone()));
            for length in 0..bytes.len() {
                // A whole number of conflicts fewer is a row; nothing else is.
                let shorter = unpack(row.sale.request, &bytes[..length]);
                let fewer = |shorter: &Row| matches!(shorter.verdict, Verdict::OverQuota(_));
                assert!(shorter.as_ref().is_err() || shorter.as_ref().is_ok_and(fewer), "{shorter:?}");
            }
        }
    }

    #[test]
    fn the_bytes_are_as_they_always_were() {
        let bytes = pack(&row(7, 3, Verdict::OverQuota(vec![conflict("11000001")])));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let whole = "0303030303030303 03 00 00000002 0170c708af00 0170c82da700 02 6b6d 0170c6e41000 00000001 08 3131303030303031";
        assert_eq!(hex, whole.replace(' ', ""));
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_as_anything_but_what_packs_to_them(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let request = RequestId::from_bytes([7; 16]).unwrap();
            if let Ok(row) = unpack(request, &bytes) {
                prop_assert_eq!(pack(&row), bytes);
            }
        }
    }
}
