//! How a report stands in a store: the same bytes in Redis and in redb.
//!
//! | bytes | of a report |
//! |---|---|
//! | 16 | the request id |
//! | 1 | what: 1 delivered, 2 counted, 3 paused, 4 resumed |
//! | 4 | units; 0 where it has none |
//! | 6 | `at`, milliseconds since 1970 |
//! | 6 | `received`, the same |
//! | 1 | how many bytes of the programme's code follow |
//! | 1 to 4 | the programme's code |
//! | 1 to 16 | the site's code |
//!
//! Numbers are big-endian. With codes of two and eight it is 44 bytes, and never more than [`LONGEST`]: Redis keeps a small hash in one
//! piece as long as no value in it is longer than 64. Whatever does not read as a whole report, to the last byte, is none.

use crate::ids::{ProgrammeCode, RequestId, SiteId};
use crate::ledger::packed::{instant, push_instant};

use super::{Key, Report, What};

/// Bytes between the request id and the names.
const FIXED: usize = 18;
/// Bytes of a report whose codes are as long as codes may be.
const LONGEST: usize = 16 + FIXED + 4 + 16;

/// The bytes are not a report of this layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored report cannot be read: {0}")]
pub(super) struct NotAReport(&'static str);

/// As it is stored.
pub(super) fn pack(report: &Report) -> Vec<u8> {
    let programme = report.key.programme.as_str().as_bytes();
    let (number, units) = match report.what {
        What::Delivered(units) => (1, units),
        What::Counted(units) => (2, units),
        What::Paused => (3, 0),
        What::Resumed => (4, 0),
    };
    let mut bytes = Vec::with_capacity(LONGEST);
    bytes.extend_from_slice(report.request.as_bytes());
    bytes.push(number);
    bytes.extend_from_slice(&units.to_be_bytes());
    push_instant(&mut bytes, report.at);
    push_instant(&mut bytes, report.received);
    // A programme's code has at most four bytes.
    bytes.extend(u8::try_from(programme.len()));
    bytes.extend_from_slice(programme);
    bytes.extend_from_slice(report.key.site.as_str().as_bytes());
    bytes
}

/// The report in these bytes.
pub(super) fn unpack(bytes: &[u8]) -> Result<Report, NotAReport> {
    const CUT_SHORT: NotAReport = NotAReport("it is cut short");
    let (request, rest) = bytes.split_first_chunk::<16>().ok_or(CUT_SHORT)?;
    let (fixed, names) = rest.split_first_chunk::<FIXED>().ok_or(CUT_SHORT)?;
    let [number, u0, u1, u2, u3, a0, a1, a2, a3, a4, a5, r0, r1, r2, r3, r4, r5, length] = *fixed;
    let (programme, site) = names.split_at_checked(usize::from(length)).ok_or(CUT_SHORT)?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let programme = text(programme).and_then(|code| code.parse::<ProgrammeCode>().ok());
    let site = text(site).and_then(|code| code.parse::<SiteId>().ok());
    Ok(Report {
        request: RequestId::from_bytes(*request).ok_or(NotAReport("it does not begin with a request id"))?,
        key: Key {
            programme: programme.ok_or(NotAReport("its programme is not a programme's code"))?,
            site: site.ok_or(NotAReport("its site is not a site code"))?,
        },
        what: what(number, u32::from_be_bytes([u0, u1, u2, u3])).ok_or(NotAReport("what it says is unknown"))?,
        at: instant([a0, a1, a2, a3, a4, a5]),
        received: instant([r0, r1, r2, r3, r4, r5]),
    })
}

fn what(number: u8, units: u32) -> Option<What> {
    match (number, units) {
        (1, units) => Some(What::Delivered(units)),
        (2, units) => Some(What::Counted(units)),
        (3, 0) => Some(What::Paused),
        (4, 0) => Some(What::Resumed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn report(what: What, programme: &str, site: &str) -> Report {
        Report {
            request: RequestId::from_bytes([7; 16]).unwrap(),
            key: Key { programme: programme.parse().unwrap(), site: site.parse().unwrap() },
            what,
            at: Timestamp::from_millis(1_583_884_800_123),
            received: Timestamp::NEVER,
        }
    }

    #[test]
    fn a_report_comes_back_as_it_was() {
        for what in [What::Delivered(1), What::Counted(0), What::Counted(u32::MAX), What::Paused, What::Resumed] {
            for (programme, site) in [("km", "11000001"), ("k", "s"), ("kmsk", "sixteen-letters_")] {
                let report = report(what, programme, site);
                let packed = pack(&report);
                assert_eq!(unpack(&packed), Ok(report));
                assert!(packed.len() <= LONGEST);
            }
        }
        assert_eq!(pack(&report(What::Paused, "km", "11000001")).len(), 44);
        assert_eq!(pack(&report(What::Paused, "kmsk", "sixteen-letters_")).len(), LONGEST);
    }

    #[test]
    fn the_layout_is_what_is_written_above() {
        let bytes = pack(&report(What::Counted(0x0102_0304), "km", "s"));
        let stated =
            [&[7; 16][..], &[2, 1, 2, 3, 4], &1_583_884_800_123_u64.to_be_bytes()[2..], &[0xff; 6], &[2], b"kms"];
        assert_eq!(bytes, stated.concat());
    }

    #[test]
    fn what_is_no_report_is_not_taken_for_one() {
        let good = pack(&report(What::Paused, "km", "s"));
        for short in 0..good.len() {
            assert!(unpack(&good[..short]).is_err(), "{short}");
        }
        for (at, byte) in [(16, 0), (16, 5), (20, 1), (33, 0), (33, 1), (33, 3), (33, 200), (34, b'K'), (36, 0xff)] {
            let mut bad = good.clone();
            bad[at] = byte;
            let read = unpack(&bad);
            // One letter more or less is another programme at another site, if there is one.
            assert!(read.is_err() || (at, byte) == (33, 1), "{at} {byte}: {read:?}");
        }
        assert!(unpack(&[[0; 16].as_slice(), &good[16..]].concat()).is_err(), "no id");
        assert!(unpack(&[good.as_slice(), b"!"].concat()).is_err(), "something behind it");
    }

    #[test]
    fn whatever_reads_as_a_report_is_written_the_same() {
        let good = pack(&report(What::Counted(3), "km", "11000001"));
        for at in 0..good.len() {
            for byte in 0..=u8::MAX {
                let mut other = good.clone();
                other[at] = byte;
                if let Ok(report) = unpack(&other) {
                    assert_eq!(pack(&report), other, "{at} {byte}");
                }
            }
        }
    }
}
