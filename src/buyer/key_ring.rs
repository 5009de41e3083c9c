//! Pseudonyms and the secret keys that make them. Without the keys nobody can get from a stored record to a number,
//! not even by trying every number there is; with them, the same number always leads to the same record.

use std::fmt;

use hmac::digest::Output;
use hmac::digest::consts::{U8, U16};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Buyer;
use crate::ids::ProgrammeId;

/// A secret key of 256 bits: wiped on drop, absent from `Debug`.
pub type SecretKey = SecretBox<[u8; 32]>;

/// Who a record belongs to, within one programme: HMAC-SHA-256 of programme and number under the ring's current key,
/// cut to 128 bits. Two programmes share none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym([u8; 16]);

impl Pseudonym {
    /// A pseudonym that was stored.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes, for the store's key and nothing else.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// The first two bytes, so that a log cannot be joined with the store.
impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "{first:02x}{second:02x}…")
    }
}

/// Where a buyer's record stands in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuyerKey {
    /// Which of the 256 partitions. It depends on the number alone, not on the programme and not on a key that
    /// rotates, so a buyer's records stay together when the ring turns.
    pub partition: u8,
    /// The buyer within the programme.
    pub pseudonym: Pseudonym,
}

impl fmt::Debug for BuyerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.pseudonym, f)
    }
}

/// By what a ledger knows the keys that it was begun with: under others every buyer would be a stranger to it, and could
/// buy again. Says nothing about the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMark([u8; 8]);

impl KeyMark {
    /// A mark of one's own making, for ledgers without numbers.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

/// Sixteen hexadecimal digits.
impl fmt::Display for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// The name of a key of the ring: not secret, stored beside the data, never used twice.
pub type KeyId = u32;

/// A key of the ring with its name.
pub struct RingKey {
    /// Its name.
    pub id: KeyId,
    /// The key itself.
    pub key: SecretKey,
}

/// The keys that turn numbers into pseudonyms. `previous` and `next` are there for rotation, which is not built yet:
/// `current` alone makes pseudonyms.
pub struct KeyRing {
    partition: Hmac<Sha256>,
    current: Keyed,
    previous: Option<Keyed>,
    next: Option<Keyed>,
}

/// A ring key as the state of HMAC after it has taken the key in, so that a pseudonym costs only its message.
struct Keyed {
    id: KeyId,
    mac: Hmac<Sha256>,
}

impl From<RingKey> for Keyed {
    fn from(ring_key: RingKey) -> Self {
        Self { id: ring_key.id, mac: keyed(&ring_key.key) }
    }
}

/// The state of HMAC after it has taken this key in.
pub(crate) fn keyed(key: &SecretKey) -> Hmac<Sha256> {
    // A key of 32 bytes is its own block when padded with zeroes, so taking it as a block cannot fail.
    let mut block = Zeroizing::new([0; 64]);
    for (place, byte) in block.iter_mut().zip(key.expose_secret()) {
        *place = *byte;
    }
    Hmac::new((&*block).into())
}

impl KeyRing {
    /// A ring that is ready to work. The keys are wiped when this returns; what is kept can make pseudonyms but does
    /// not hold the keys in the clear.
    pub fn new(partition: SecretKey, current: RingKey, previous: Option<RingKey>, next: Option<RingKey>) -> Self {
        Self {
            partition: keyed(&partition),
            current: current.into(),
            previous: previous.map(Keyed::from),
            next: next.map(Keyed::from),
        }
    }

    /// The name of the key that makes pseudonyms now.
    pub fn current_id(&self) -> KeyId {
        self.current.id
    }

    /// By what a ledger knows the keys that make its records' names: the partition key and the current one.
    pub fn mark(&self) -> KeyMark {
        // No number and no programme's name holds a space, so this is no buyer's pseudonym.
        let partition = digest(&self.partition, [b"mark of the partition key".as_slice()]);
        let both = digest(&self.current.mac, [b"mark of the key ring ".as_slice(), partition.as_slice()]);
        let (mark, _) = both.split::<U8>();
        KeyMark(mark.into())
    }

    /// The key that receipts are made under. It follows from the one key that never rotates, which a ledger knows by its
    /// mark: so all instances on a ledger have the same, for the ledger's life, and no second secret need be handed out.
    /// Nobody gets from it back to the keys.
    pub fn receipt_key(&self) -> SecretKey {
        // No number holds a space, so this is nobody's partition either.
        let key = Zeroizing::new(digest(&self.partition, [b"key of receipts 1".as_slice()]).0);
        SecretKey::init_with_mut(|place: &mut [u8; 32]| *place = *key)
    }

    /// Where this buyer's record of this programme stands.
    pub fn key_of(&self, buyer: &Buyer, programme: ProgrammeId) -> BuyerKey {
        let id = buyer.id.bytes();
        let [partition, ..] = digest(&self.partition, [id]).0;
        // The zero byte ends the programme's name (no id holds one), so no two inputs run together.
        let message = [programme.as_str().as_bytes(), &[0, buyer.id.scheme.tag()], id];
        let (pseudonym, _) = digest(&self.current.mac, message).split::<U16>();
        BuyerKey { partition, pseudonym: Pseudonym(pseudonym.into()) }
    }
}

fn digest<const N: usize>(keyed: &Hmac<Sha256>, message: [&[u8]; N]) -> Output<Sha256> {
    let mut mac = keyed.clone();
    for part in message {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

/// Which keys there are, by name.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("current", &self.current.id)
            .field("previous", &self.previous.as_ref().map(|key| key.id))
            .field("next", &self.next.as_ref().map(|key| key.id))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buyer::{parse_kr_resident, parse_opaque};
    use crate::time::Date;

    const TODAY: Date = Date { year: 2020, month: 6, day: 1 };

    fn key(fill: u8) -> SecretKey {
        SecretKey::new(Box::new([fill; 32]))
    }

    fn ring() -> KeyRing {
        KeyRing::new(key(1), RingKey { id: 7, key: key(2) }, None, Some(RingKey { id: 8, key: key(3) }))
    }

    fn programme(name: &str) -> ProgrammeId {
        name.parse().unwrap()
    }

    fn kr(number: &str) -> Buyer {
        parse_kr_resident(number, TODAY, true).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Computed apart from this code, with Python's `hmac`:
    /// `hmac.new(bytes([2]*32), b"kr-public-mask-2020\0k8103051000112", "sha256").hexdigest()[:32]`, and the partition
    /// as `hmac.new(bytes([1]*32), b"8103051000112", "sha256").digest()[0]`.
    #[test]
    fn known_answers() {
        let opaque = |id: &str| parse_opaque(id, Some("1990-01-01"), TODAY).unwrap();
        let mask = programme("kr-public-mask-2020");
        let essentials = programme("weekly-essentials");
        for (buyer, programme, partition, pseudonym) in [
            (kr("810305-1000112"), mask, 154, "07aaf6dec41662db51350a729c19a86d"),
            (kr("810305-1000112"), essentials, 154, "e39e86ae0911ad0ace9acfa7d809709a"),
            (kr("000229-4120317"), mask, 54, "99eea7e6f93eee3ab9e48a25cf7c1078"),
            (kr("000229-4120317"), essentials, 54, "8511654bf8f66818c1c785f1fb31e0b4"),
            (opaque("card#0001"), mask, 169, "204f6f88db6e526374cc5f9d1f5378e9"),
            (opaque("card#0001"), essentials, 169, "da7c6dafda206bf61b1dbf04c7f53263"),
            (opaque(&"x".repeat(64)), mask, 135, "50ba5a0a573f01ac1badb2a84e21f71e"),
            (opaque(&"x".repeat(64)), essentials, 135, "b5494718cdd2a0e2c2e1740b912987d5"),
        ] {
            let key = ring().key_of(&buyer, programme);
            assert_eq!((key.partition, hex(key.pseudonym.as_bytes())), (partition, pseudonym.to_owned()));
        }
    }

    #[test]
    fn one_number_typed_in_many_ways_is_one_buyer() {
        let ring = ring();
        let mask = programme("kr-public-mask-2020");
        let key = ring.key_of(&kr("810305-1000112"), mask);
        for typed in ["8103051000112", " 810305 1000112 ", "８１０３０５－１０００１１２", "810305ㅡ1000112"]
        {
            assert_eq!(ring.key_of(&kr(typed), mask), key, "{typed}");
        }
        assert_ne!(ring.key_of(&kr("810305-1000113"), mask), key);
    }

    #[test]
    fn two_programmes_share_no_pseudonym_and_keep_a_buyer_in_one_partition() {
        let ring = ring();
        let mut seen = std::collections::HashSet::new();
        for serial in 0..500 {
            let buyer = kr(&format!("810305-1{serial:06}"));
            let [mask, essentials] =
                ["kr-public-mask-2020", "weekly-essentials"].map(|p| ring.key_of(&buyer, programme(p)));
            assert_eq!(mask.partition, essentials.partition);
            assert!(seen.insert(mask.pseudonym) && seen.insert(essentials.pseudonym));
        }
    }

    #[test]
    fn the_same_text_as_a_number_and_as_an_id_is_two_buyers() {
        let mask = programme("kr-public-mask-2020");
        let opaque = parse_opaque("8103051000112", Some("1981-03-05"), TODAY).unwrap();
        assert_ne!(ring().key_of(&opaque, mask).pseudonym, ring().key_of(&kr("810305-1000112"), mask).pseudonym);
    }

    #[test]
    fn the_current_key_alone_decides() {
        let mask = programme("kr-public-mask-2020");
        let buyer = kr("810305-1000112");
        let before = ring().key_of(&buyer, mask);
        let turned = KeyRing::new(key(1), RingKey { id: 8, key: key(3) }, Some(RingKey { id: 7, key: key(2) }), None);
        let after = turned.key_of(&buyer, mask);
        assert_eq!((ring().current_id(), turned.current_id()), (7, 8));
        assert_eq!(after.partition, before.partition);
        assert_ne!(after.pseudonym, before.pseudonym);
    }

    #[test]
    fn what_is_printed_names_nobody() {
        let key = BuyerKey { partition: 0x7f, pseudonym: Pseudonym::from_bytes([0xab; 16]) };
        assert_eq!(format!("{key:?} {:?}", key.pseudonym), "abab… abab…");
        assert_eq!(format!("{:?}", ring()), "KeyRing { current: 7, previous: None, next: Some(8), .. }");
        assert_eq!(format!("{:?}", self::key(5)), "SecretBox<[u8; 32]>([REDACTED])");
    }

    #[test]
    fn the_mark_tells_rings_apart_by_the_keys_that_name_records() {
        let with = |partition, current, next| {
            KeyRing::new(
                key(partition),
                RingKey { id: 7, key: key(current) },
                None,
                Some(RingKey { id: 8, key: key(next) }),
            )
            .mark()
        };
        assert_eq!(ring().mark(), with(1, 2, 9), "keys that are not in use yet do not change it");
        assert_ne!(ring().mark(), with(9, 2, 3));
        assert_ne!(ring().mark(), with(1, 9, 3));
        assert_eq!(ring().mark().to_string().len(), 16);
    }

    /// Computed apart from this code, with Python: `hmac.new(bytes([1]*32), b"key of receipts 1", "sha256").hexdigest()`.
    #[test]
    fn the_receipt_key_follows_from_the_key_that_never_rotates() {
        let turned = KeyRing::new(key(1), RingKey { id: 8, key: key(3) }, Some(RingKey { id: 7, key: key(2) }), None);
        for ring in [ring(), turned] {
            let derived = hex(ring.receipt_key().expose_secret());
            assert_eq!(derived, "1bce482a2051a7c7275d6dbd79a4d7863565a4ac5f74966666d57ed3b8149c9a");
        }
    }
}
