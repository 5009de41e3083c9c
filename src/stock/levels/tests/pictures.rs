use proptest::prelude::*;

use super::*;
use crate::ids::LedgerId;
use crate::stock::levels::picture::{seal, unseal};

/// Something of everything.
fn full() -> (Levels, Cursor, Place) {
    let mut one = One::default();
    one.delivered(100, 0).counted(50, 10).says(What::Paused, 20, 25).sold(2, 30).sold(3, 31).late(1, 35, 40);
    one.event(EventKind::Held, 1, 3, 50, HOUR).settle(2 * HOUR).sold(1, 3 * HOUR).late(1, HOUR, 3 * HOUR);
    one.levels.missed_until(at(1));
    let other = Key { programme: "zz".parse().unwrap(), site: "a-site_of-16-let".parse().unwrap() };
    one.levels.event(&told(EventKind::Held, other, 7, u32::MAX, Timestamp::EPOCH, Timestamp::NEVER));
    let mut events = Cursor::beginning(LedgerId::random());
    events.has_read(3, Place { high: u64::MAX, low: 1 });
    (one.levels, events, Place::FIRST)
}

#[test]
fn a_picture_comes_back_as_it_was() {
    let (levels, events, reports) = full();
    let bytes = levels.to_bytes(&events, reports);
    assert_eq!(Levels::from_bytes(&bytes), Ok((levels, events.clone(), reports)));
    let empty = Levels::new();
    assert_eq!(Levels::from_bytes(&empty.to_bytes(&events, reports)), Ok((empty, events, reports)));
}

#[test]
fn what_is_not_whole_is_none() {
    let (levels, events, reports) = full();
    let bytes = levels.to_bytes(&events, reports);
    for short in 0..bytes.len() {
        assert_eq!(Levels::from_bytes(&bytes[..short]), Err(NoPicture), "{short}");
    }
    for wrong in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[wrong] ^= 1;
        assert_eq!(Levels::from_bytes(&bytes), Err(NoPicture), "{wrong}");
    }
    assert_eq!(Levels::from_bytes(&[bytes.as_slice(), &[0]].concat()), Err(NoPicture));
    // Under a sum that is right.
    let plain = unseal(&bytes, 1 << 20).unwrap();
    for short in 0..plain.len() {
        assert_eq!(Levels::from_bytes(&seal(&plain[..short])), Err(NoPicture), "{short}");
    }
    assert_eq!(Levels::from_bytes(&seal(&[plain.as_slice(), &[0]].concat())), Err(NoPicture));
}

#[test]
fn what_would_be_absurdly_large_is_refused() {
    let bytes = seal(&vec![0; 1 << 24]);
    assert!(bytes.len() < 1 << 17, "16 MiB in {} bytes", bytes.len());
    assert_eq!(unseal(&bytes, 1 << 24), Some(vec![0; 1 << 24]));
    assert_eq!(unseal(&bytes, (1 << 24) - 1), None);
    // A list that says that it is very long, and is not.
    for lead in [&[0, 0, 0, 0, 0][..], &[]] {
        assert_eq!(Levels::from_bytes(&seal(&[lead, &[0xff; 9], &[0x01]].concat())), Err(NoPicture));
    }
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(Levels::from_bytes(&bytes), Err(NoPicture));
        prop_assert_eq!(Levels::from_bytes(&[&[1], bytes.as_slice()].concat()), Err(NoPicture));
    }

    /// Under a right sum anything may stand. What is read of it can be written and shown, and goes on.
    #[test]
    fn no_picture_that_somebody_made_up_does_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (levels, events, reports) = full();
        let mut plain = unseal(&levels.to_bytes(&events, reports), 1 << 20).unwrap();
        // The cursor is most of it, and not what is tried here.
        let begins = events.to_bytes().len();
        for (nth, byte) in changes {
            let nth = begins + nth.index(plain.len() - begins);
            plain[nth] = byte;
        }
        if let Ok((mut levels, events, reports)) = Levels::from_bytes(&seal(&plain)) {
            let again = Levels::from_bytes(&levels.to_bytes(&events, reports));
            prop_assert_eq!(again, Ok((levels.clone(), events, reports)));
            levels.event(&told(EventKind::Sold, key(), 9, 1, at(0), at(0)));
            levels.settle(at(5 * HOUR));
            levels.shown(at(5 * HOUR), true, |_| Thresholds::OF_2020);
        }
    }
}
