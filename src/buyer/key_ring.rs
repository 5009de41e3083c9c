//! Pseudonyms and the secret keys that make them. Without the keys nobody can get from a stored record to a number,
//! not even by trying every number there is; with them, the same number always leads to the same record.

use std::fmt;

use hmac::digest::Output;
use hmac::digest::consts::{U8, U16};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Buyer;
use crate::ids::{ProgrammeId, RequestId};
use crate::museum::Mutant;
use crate::time::Timestamp;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// A turn of the ring: which key makes pseudonyms in it, by number and by mark. A ledger knows by it under which key it is
/// written. Numbers only go up, so of two turns the later one is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ring {
    /// The name of its current key.
    pub id: KeyId,
    /// The mark of its keys.
    pub mark: KeyMark,
}

/// The number and the mark, a space between them: as it stands in the stores.
impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.mark)
    }
}

impl Ring {
    /// Whether this text of a store names it. Ledgers that were begun before rings could turn have the mark alone.
    pub fn is(&self, written: &str) -> bool {
        written == self.to_string() || written == self.mark.to_string()
    }
}

/// Which neighbour of the current key is in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The key that the ring has left: what stands under it still counts.
    Previous,
    /// The key that the ring will turn to: what stands under it is read and never written.
    Next,
}

/// A key of the ring beside the current one, and what it makes of something: of a buyer a [`Pseudonym`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbour<T = ()> {
    /// Which one.
    pub side: Side,
    /// The ring in which it is the current key.
    pub ring: Ring,
    /// What it makes.
    pub makes: T,
}

/// How far a ring has turned: its current key, and the neighbour that is read with it while the ring turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn<T = ()> {
    /// The ring that is written under.
    pub ring: Ring,
    /// The neighbour, during a rotation.
    pub neighbour: Option<Neighbour<T>>,
}

impl<T> Turn<T> {
    /// The ring at rest.
    pub const fn at(ring: Ring) -> Self {
        Self { ring, neighbour: None }
    }

    /// The previous key and what it makes.
    pub fn previous(&self) -> Option<&Neighbour<T>> {
        self.neighbour.as_ref().filter(|neighbour| neighbour.side == Side::Previous)
    }

    /// Whether records that are written under this ring can be read: it is the current one, or that of the neighbour.
    pub fn reads(&self, written: &str) -> bool {
        self.ring.is(written) || self.neighbour.as_ref().is_some_and(|neighbour| neighbour.ring.is(written))
    }

    /// Without what the keys make.
    pub fn bare(&self) -> Turn {
        let bare = |Neighbour { side, ring, .. }: &Neighbour<T>| Neighbour { side: *side, ring: *ring, makes: () };
        Turn { ring: self.ring, neighbour: self.neighbour.as_ref().map(bare) }
    }

    /// Why a ledger that is written under another ring is not worked with, and what to do about it; `None` if it is this ring, or
    /// the one that this ring has left.
    pub fn refuses(&self, written: &str) -> Option<OtherRing> {
        let is = |ring: Ring| ring.is(written);
        if is(self.ring) || self.previous().is_some_and(|previous| is(previous.ring)) {
            return None;
        }
        let ours = self.ring.id;
        let theirs = written.split(' ').next().and_then(|id| id.parse::<KeyId>().ok());
        let next = self.neighbour.as_ref().is_some_and(|next| next.side == Side::Next && is(next.ring));
        Some(match theirs {
            _ if next => OtherRing::Behind { ours, theirs: theirs.unwrap_or_default() },
            Some(theirs) if theirs > ours => OtherRing::FarBehind { ours, theirs },
            Some(theirs) if theirs < ours => OtherRing::FarAhead { ours, theirs },
            _ => OtherRing::OtherKey { ours },
        })
    }
}

/// A ledger is written under another turn of the ring than the key file has: what that means, and the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OtherRing {
    /// Others have turned the ring to the key that is the next one here.
    #[error("the ring was turned to key {theirs} and this key file is still at {ours}: give it the turned key file")]
    Behind {
        /// The current key here.
        ours: KeyId,
        /// The key that the ledger is written under.
        theirs: KeyId,
    },
    /// Others have turned it to a key that is not known here.
    #[error(
        "the ring was turned to key {theirs}, which this key file (at {ours}) does not hold: give it the key file of the other instances"
    )]
    FarBehind {
        /// The current key here.
        ours: KeyId,
        /// The key that the ledger is written under.
        theirs: KeyId,
    },
    /// This key file skips a turn, or has forgotten the key that records stand under.
    #[error(
        "this key file is at key {ours} and no longer reads what is written under {theirs}: bring back the key file in which {theirs} is the previous key"
    )]
    FarAhead {
        /// The current key here.
        ours: KeyId,
        /// The key that the ledger is written under.
        theirs: KeyId,
    },
    /// This key file has forgotten the key before its own too early.
    #[error(
        "the ring was turned to key {ours}, and what was recorded under the key before it counts, or may be asked for, until {until}: \
         bring back the key file in which that is the previous key"
    )]
    StillNeeded {
        /// The current key here.
        ours: KeyId,
        /// When it may be forgotten.
        until: Timestamp,
    },
    /// The same number, and another key.
    #[error(
        "this ledger was begun under another key file, and under this one (at key {ours}) every buyer could buy again; name that key \
         file (`keys`, --keys), or another store"
    )]
    OtherKey {
        /// The number.
        ours: KeyId,
    },
}

/// A key of the ring with its name.
pub struct RingKey {
    /// Its name.
    pub id: KeyId,
    /// The key itself.
    pub key: SecretKey,
}

/// The keys that turn numbers into pseudonyms. While the ring turns, the next or the previous key stands beside the current
/// one; never both: the previous one goes before another turn begins.
pub struct KeyRing {
    // Each as the state of HMAC after it has taken its key in, so that a pseudonym costs only its message.
    partition: Hmac<Sha256>,
    current: Hmac<Sha256>,
    /// There is one if and only if the turn has one.
    neighbour: Option<Hmac<Sha256>>,
    turn: Turn,
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
    pub fn new(partition: &SecretKey, current: &RingKey, neighbour: Option<(Side, &RingKey)>) -> Self {
        let partition = keyed(partition);
        // No number and no programme's name holds a space, so this is no buyer's pseudonym.
        let of_partition = digest(&partition, [b"mark of the partition key".as_slice()]);
        let ring = |RingKey { id, key }: &RingKey| {
            let both = digest(&keyed(key), [b"mark of the key ring ".as_slice(), of_partition.as_slice()]);
            Ring { id: *id, mark: KeyMark(both.split::<U8>().0.into()) }
        };
        let beside = neighbour.map(|(side, key)| Neighbour { side, ring: ring(key), makes: () });
        Self {
            turn: Turn { ring: ring(current), neighbour: beside },
            current: keyed(&current.key),
            neighbour: neighbour.map(|(_, key)| keyed(&key.key)),
            partition,
        }
    }

    /// How far it has turned: by what a ledger knows the keys that make its records' names.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// This ring turned to its next key, as others have turned theirs; `None` if it holds none.
    pub fn turned(&self) -> Option<Self> {
        let next = self.turn.neighbour.filter(|neighbour| neighbour.side == Side::Next)?;
        let left = Neighbour { side: Side::Previous, ring: self.turn.ring, makes: () };
        Some(Self {
            partition: self.partition.clone(),
            current: self.neighbour.clone()?,
            neighbour: Some(self.current.clone()),
            turn: Turn { ring: next.ring, neighbour: Some(left) },
        })
    }

    /// The key that receipts are made under. It follows from the one key that never rotates, which a ledger knows by its
    /// mark: so all instances on a ledger have the same, for the ledger's life, and no second secret need be handed out.
    /// Nobody gets from it back to the keys.
    pub fn receipt_key(&self) -> SecretKey {
        // No number holds a space, so this is nobody's partition either.
        let key = Zeroizing::new(digest(&self.partition, [b"key of receipts 1".as_slice()]).0);
        SecretKey::init_with_mut(|place: &mut [u8; 32]| *place = *key)
    }

    /// A mark of (request id, buyer, anything else), to see whether two that came under one id are the same sale. It does not change when
    /// the ring turns, and without the key nobody can tell from two marks that they are of one buyer: the id is in them.
    pub fn mark_of(&self, request: RequestId, buyer: &Buyer, said: &[u8]) -> [u8; 8] {
        let scheme = [buyer.id.scheme.tag()];
        let message = [b"mark of a sale ".as_slice(), request.as_bytes(), &scheme, said, &[0], buyer.id.bytes()];
        digest(&self.partition, message).split::<U8>().0.into()
    }

    /// Where this buyer's record of this programme stands, and what it would be under the neighbour.
    pub fn key_of(&self, buyer: &Buyer, programme: ProgrammeId) -> (BuyerKey, Turn<Pseudonym>) {
        let id = buyer.id.bytes();
        let [partition, ..] = digest(&self.partition, [id]).0;
        let pseudonym = |key: &Hmac<Sha256>| {
            if Mutant::PlainHash.is_on() {
                return Pseudonym(Sha256::digest(id).split::<U16>().0.into());
            }
            // The zero byte ends the programme's name (no id holds one), so no two inputs run together.
            let message = [programme.as_str().as_bytes(), &[0, buyer.id.scheme.tag()], id];
            Pseudonym(digest(key, message).split::<U16>().0.into())
        };
        let beside = self.turn.neighbour.zip(self.neighbour.as_ref());
        let neighbour =
            beside.map(|(Neighbour { side, ring, .. }, key)| Neighbour { side, ring, makes: pseudonym(key) });
        let turn = Turn { ring: self.turn.ring, neighbour };
        (BuyerKey { partition, pseudonym: pseudonym(&self.current) }, turn)
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
        let neighbour = self.turn.neighbour.map(|neighbour| (neighbour.side, neighbour.ring.id));
        f.debug_struct("KeyRing")
            .field("current", &self.turn.ring.id)
            .field("neighbour", &neighbour)
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
        ring_of(1, (7, 2), Some((Side::Next, 8, 3)))
    }

    fn ring_of(partition: u8, current: (KeyId, u8), neighbour: Option<(Side, KeyId, u8)>) -> KeyRing {
        let named = |(id, fill)| RingKey { id, key: key(fill) };
        let neighbour = neighbour.map(|(side, id, fill)| (side, named((id, fill))));
        KeyRing::new(&key(partition), &named(current), neighbour.as_ref().map(|(side, key)| (*side, key)))
    }

    fn turned() -> KeyRing {
        ring_of(1, (8, 3), Some((Side::Previous, 7, 2)))
    }

    /// Where a ring would write.
    fn key_of(ring: &KeyRing, buyer: &Buyer, programme: ProgrammeId) -> BuyerKey {
        ring.key_of(buyer, programme).0
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
            let key = key_of(&ring(), &buyer, programme);
            assert_eq!((key.partition, hex(key.pseudonym.as_bytes())), (partition, pseudonym.to_owned()));
        }
    }

    #[test]
    fn one_number_typed_in_many_ways_is_one_buyer() {
        let ring = ring();
        let mask = programme("kr-public-mask-2020");
        let key = key_of(&ring, &kr("810305-1000112"), mask);
        for typed in ["8103051000112", " 810305 1000112 ", "８１０３０５－１０００１１２", "810305ㅡ1000112"]
        {
            assert_eq!(key_of(&ring, &kr(typed), mask), key, "{typed}");
        }
        assert_ne!(key_of(&ring, &kr("810305-1000113"), mask), key);
    }

    #[test]
    fn two_programmes_share_no_pseudonym_and_keep_a_buyer_in_one_partition() {
        let ring = ring();
        let mut seen = std::collections::HashSet::new();
        for serial in 0..500 {
            let buyer = kr(&format!("810305-1{serial:06}"));
            let [mask, essentials] =
                ["kr-public-mask-2020", "weekly-essentials"].map(|p| key_of(&ring, &buyer, programme(p)));
            assert_eq!(mask.partition, essentials.partition);
            assert!(seen.insert(mask.pseudonym) && seen.insert(essentials.pseudonym));
        }
    }

    #[test]
    fn the_same_text_as_a_number_and_as_an_id_is_two_buyers() {
        let mask = programme("kr-public-mask-2020");
        let opaque = parse_opaque("8103051000112", Some("1981-03-05"), TODAY).unwrap();
        assert_ne!(key_of(&ring(), &opaque, mask).pseudonym, key_of(&ring(), &kr("810305-1000112"), mask).pseudonym);
    }

    #[test]
    fn a_turned_ring_writes_under_the_key_that_was_next_and_reads_what_was_current() {
        let mask = programme("kr-public-mask-2020");
        let buyer = kr("810305-1000112");
        let (before, sees) = ring().key_of(&buyer, mask);
        let (after, saw) = turned().key_of(&buyer, mask);
        assert_eq!((sees.ring.id, saw.ring.id), (7, 8));
        assert_eq!(after.partition, before.partition);
        assert_ne!(after.pseudonym, before.pseudonym);
        let (next, previous) = (sees.neighbour.unwrap(), *saw.previous().unwrap());
        assert_eq!((next.side, next.makes, next.ring), (Side::Next, after.pseudonym, saw.ring));
        assert_eq!((previous.makes, previous.ring), (before.pseudonym, sees.ring));
        assert!(sees.previous().is_none() && sees.reads(&saw.ring.to_string()) && saw.reads(&sees.ring.to_string()));
    }

    #[test]
    fn a_ring_that_follows_others_is_the_ring_that_they_have() {
        let (mask, buyer) = (programme("kr-public-mask-2020"), kr("810305-1000112"));
        let follows = ring().turned().unwrap();
        assert_eq!(follows.turn(), turned().turn());
        assert_eq!(follows.key_of(&buyer, mask), turned().key_of(&buyer, mask));
        assert!(turned().turned().is_none() && ring_of(1, (7, 2), None).turned().is_none());
    }

    #[test]
    fn a_ledger_of_another_turn_is_refused_with_a_remedy() {
        let [first, next, turned, retired] =
            [ring_of(1, (7, 2), None), ring(), turned(), ring_of(1, (8, 3), None)].map(|ring| ring.turn());
        let refuses = |turn: Turn, written: Turn| turn.refuses(&written.ring.to_string());
        assert_eq!([first, next, retired].map(|turn| refuses(turn, turn)), [None; 3]);
        assert_eq!(refuses(turned, first), None, "it moves on from there");
        assert_eq!(refuses(next, turned), Some(OtherRing::Behind { ours: 7, theirs: 8 }));
        assert_eq!(refuses(first, turned), Some(OtherRing::FarBehind { ours: 7, theirs: 8 }));
        assert_eq!(refuses(retired, first), Some(OtherRing::FarAhead { ours: 8, theirs: 7 }));
        let other = ring_of(1, (7, 9), None).turn();
        assert_eq!(refuses(first, other), Some(OtherRing::OtherKey { ours: 7 }));
        assert_eq!(first.refuses("nonsense"), Some(OtherRing::OtherKey { ours: 7 }));
    }

    #[test]
    fn what_is_printed_names_nobody() {
        let key = BuyerKey { partition: 0x7f, pseudonym: Pseudonym::from_bytes([0xab; 16]) };
        assert_eq!(format!("{key:?} {:?}", key.pseudonym), "abab… abab…");
        assert_eq!(format!("{:?}", ring()), "KeyRing { current: 7, neighbour: Some((Next, 8)), .. }");
        assert_eq!(format!("{:?}", self::key(5)), "SecretBox<[u8; 32]>([REDACTED])");
    }

    #[test]
    fn the_mark_tells_rings_apart_by_the_keys_that_name_records() {
        let with =
            |partition, current, next| ring_of(partition, (7, current), Some((Side::Next, 8, next))).turn().ring.mark;
        let ring = ring().turn().ring;
        assert_eq!(ring.mark, with(1, 2, 9), "keys that are not in use yet do not change it");
        assert_ne!(ring.mark, with(9, 2, 3));
        assert_ne!(ring.mark, with(1, 9, 3));
        assert_eq!(ring.mark.to_string().len(), 16);
    }

    /// Computed apart from this code, with Python: `hmac.new(bytes([1]*32), b"key of receipts 1", "sha256").hexdigest()`.
    #[test]
    fn the_receipt_key_follows_from_the_key_that_never_rotates() {
        for ring in [ring(), turned()] {
            let derived = hex(ring.receipt_key().expose_secret());
            assert_eq!(derived, "1bce482a2051a7c7275d6dbd79a4d7863565a4ac5f74966666d57ed3b8149c9a");
        }
    }
}
