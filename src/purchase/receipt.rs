//! Receipts: what the proof of a sale says, and the MAC by which anybody with the key can tell later that the service said so.
//!
//! ```text
//! Statement ──encode──> bytes ──HMAC-SHA-256 under the receipt key, cut to 128 bits──> Receipt
//! ```
//!
//! All that a receipt says follows from the stored entry, from where its record stands, and from what every instance on a
//! ledger is set up with; so does the key ([`KeyRing::receipt_key`](crate::buyer::KeyRing::receipt_key)). Whichever instance is
//! asked, and however often, gives the same receipt.
//!
//! The MAC says nothing about what has become of the sale since. Whoever can check it could have made it.
//!
//! Over which bytes it is made: `rationd receipt 1` and a zero byte, then each field with its length in one byte before it.
//!
//! | field | bytes |
//! |---|---|
//! | ledger id, request id | the sixteen of the UUID, each |
//! | programme, site | the text, each |
//! | quantity | 4, big-endian |
//! | time of sale | 8, milliseconds since 1970, big-endian |
//! | durability | 1: 1 synced, 2 volatile |
//! | simulated clock, late | 1: 0 no, 1 yes, each |
//! | partition | 1 |
//! | key id | 4, big-endian |

use std::fmt;
use std::str::FromStr;

use hmac::digest::consts::U16;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use smallvec::SmallVec;

use crate::buyer::{SecretKey, keyed};
use crate::ids::{LedgerId, ProgrammeId, RequestId, SiteId};
pub use crate::ledger::Durability;
use crate::museum::Mutant;
use crate::time::Timestamp;

/// What every message of this layout begins with. Another layout takes another number.
const LAYOUT: &[u8] = b"rationd receipt 1\0";
/// What a key's name is made from. No message begins like it.
const NAME_OF_KEY: &[u8] = b"rationd receipt key\0";

/// What a receipt says of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// The ledger in which it stands.
    pub ledger: LedgerId,
    /// The purchase's request id.
    pub request: RequestId,
    /// Under which programme.
    pub programme: ProgrammeId,
    /// The selling site.
    pub site: SiteId,
    /// Units.
    pub quantity: u32,
    /// The time at which it counts.
    pub sold_at: Timestamp,
    /// How durable it is.
    pub durability: Durability,
    /// Given under a simulated clock.
    pub simulated_clock: bool,
    /// Written on paper and entered afterwards.
    pub late: bool,
    /// In which of the ledger's 256 partitions it stands.
    pub partition: u8,
}

impl Statement {
    /// The bytes that the MAC is made over.
    fn encode(&self, key_id: KeyId) -> SmallVec<[u8; 256]> {
        let mut bytes = SmallVec::from_slice(LAYOUT);
        let mut put = |field: &[u8]| {
            // The longest is a programme's id of forty.
            bytes.extend(u8::try_from(field.len()));
            bytes.extend_from_slice(field);
        };
        put(self.ledger.as_bytes());
        put(self.request.as_bytes());
        put(self.programme.as_str().as_bytes());
        put(self.site.as_str().as_bytes());
        if !Mutant::ReceiptWithoutQuantity.is_on() {
            put(&self.quantity.to_be_bytes());
        }
        put(&self.sold_at.as_millis().to_be_bytes());
        put(&[match self.durability {
            Durability::Synced => 1,
            Durability::Volatile => 2,
            Durability::Replicated => 3,
        }]);
        put(&[self.simulated_clock.into()]);
        put(&[self.late.into()]);
        put(&[self.partition]);
        put(&key_id.0.to_be_bytes());
        bytes
    }
}

/// Proof of a recorded sale. One that came from outside proves nothing before [`verify`] has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// What it says.
    pub of: Statement,
    /// Under which key the MAC was made.
    pub key_id: KeyId,
    /// The MAC over all that.
    pub mac: Mac,
}

/// The name of a receipt key: it follows from the key and tells nothing of it. Eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId(u32);

/// The first 128 bits of an HMAC-SHA-256. Thirty-two hexadecimal digits, like the ids that are printed beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(u128);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The text is not so many hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {0} hexadecimal digits")]
pub struct NotHex(usize);

/// In capitals too: somebody may have typed it from paper.
fn hex(text: &str, digits: usize) -> Result<u128, NotHex> {
    let well_formed = text.len() == digits && text.bytes().all(|c| c.is_ascii_hexdigit());
    let number = if well_formed { u128::from_str_radix(text, 16).ok() } else { None };
    number.ok_or(NotHex(digits))
}

impl FromStr for KeyId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        hex(text, 8).and_then(|number| u32::try_from(number).map_err(|_| NotHex(8))).map(Self)
    }
}

impl FromStr for Mac {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        hex(text, 32).map(Self)
    }
}

/// The key that receipts are made and checked under, as the state of HMAC after it has taken the key in.
#[derive(Clone)]
pub struct ReceiptKey {
    id: KeyId,
    mac: Hmac<Sha256>,
}

impl ReceiptKey {
    /// From the key itself.
    pub fn new(key: &SecretKey) -> Self {
        let mac = keyed(key);
        let [a, b, c, d, ..] = mac.clone().chain_update(NAME_OF_KEY).finalize().into_bytes().0;
        Self { id: KeyId(u32::from_be_bytes([a, b, c, d])), mac }
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The receipt that says this.
    pub fn seal(&self, of: Statement) -> Receipt {
        let (mac, _) = self.over(&of).finalize().into_bytes().split::<U16>();
        Receipt { of, key_id: self.id, mac: Mac(u128::from_be_bytes(mac.into())) }
    }

    fn over(&self, of: &Statement) -> Hmac<Sha256> {
        self.mac.clone().chain_update(of.encode(self.id))
    }
}

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A service with the key has given it as it stands.
    Valid,
    /// Nobody with the key has: it was changed, or made up.
    NotValid,
    /// It was made under none of the keys.
    UnknownKey,
}

/// Checks a receipt against the key of its name.
#[must_use]
pub fn verify(receipt: &Receipt, keys: &[ReceiptKey]) -> Verdict {
    let tag = receipt.mac.0.to_be_bytes();
    let mut named = keys.iter().filter(|key| key.id == receipt.key_id).peekable();
    if named.peek().is_none() {
        Verdict::UnknownKey
    } else if named.any(|key| key.over(&receipt.of).verify_truncated_left(&tag).is_ok()) {
        Verdict::Valid
    } else {
        Verdict::NotValid
    }
}

/// Which key it is.
impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiptKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8) -> ReceiptKey {
        ReceiptKey::new(&SecretKey::init_with_mut(|key: &mut [u8; 32]| {
            key.iter_mut().zip(first..).for_each(|(byte, value)| *byte = value);
        }))
    }

    fn usual() -> Statement {
        Statement {
            ledger: "9da1f55e-8437-4499-b907-e5c44ce6e6df".parse().unwrap(),
            request: "f1856e9e-5d46-4587-a143-5e01a034b55f".parse().unwrap(),
            programme: "weekly-essentials".parse().unwrap(),
            site: "11000001".parse().unwrap(),
            quantity: 2,
            sold_at: Timestamp::from_millis(1_795_310_483_291),
            durability: Durability::Synced,
            simulated_clock: false,
            late: false,
            partition: 127,
        }
    }

    fn extreme() -> Statement {
        Statement {
            ledger: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            request: "ffffffff-ffff-ffff-ffff-ffffffffffff".parse().unwrap(),
            programme: "p".repeat(40).parse().unwrap(),
            site: "sixteen-letters1".parse().unwrap(),
            quantity: 1_000_000,
            sold_at: Timestamp::EPOCH,
            durability: Durability::Volatile,
            simulated_clock: true,
            late: true,
            partition: 255,
        }
    }

    /// Computed apart from this code, with Python: the fields by `struct`, the MAC by
    /// `hmac.new(bytes(range(32)), message, "sha256").hexdigest()[:32]`.
    #[test]
    fn known_answers() {
        for (of, message, mac) in [
            (
                usual(),
                "726174696f6e642072656365697074203100109da1f55e84374499b907e5c44ce6e6df10f1856e9e5d464587a1435e01a034b55f\
                 117765656b6c792d657373656e7469616c73083131303030303031040000000208000001a200d7f75b010101000100017f04abace5\
                 68",
                "ee2ae16398d9c6b453c3c91f5dbce892",
            ),
            (
                extreme(),
                "726174696f6e642072656365697074203100100000000000000000000000000000000110ffffffffffffffffffffffffffffffff\
                 28707070707070707070707070707070707070707070707070707070707070707070707070707070701073697874656\
                 56e2d6c6574746572733104000f424008000000000000000001020101010101ff04abace568",
                "31dcbd8c294985ac8012d4c4622a054f",
            ),
        ] {
            let receipt = key(0).seal(of);
            let written: String = of.encode(receipt.key_id).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(written, message);
            assert_eq!((receipt.key_id.to_string().as_str(), receipt.mac.to_string().as_str()), ("abace568", mac));
        }
    }

    #[test]
    fn every_field_is_under_the_mac() {
        let (key, usual, other) = (key(0), usual(), extreme());
        let receipt = key.seal(usual);
        let verdict = |receipt| verify(&receipt, std::slice::from_ref(&key));
        assert_eq!((verdict(receipt), verdict(key.seal(other))), (Verdict::Valid, Verdict::Valid));
        let Statement {
            ledger,
            request,
            programme,
            site,
            quantity,
            sold_at,
            durability,
            simulated_clock,
            late,
            partition,
        } = other;
        for of in [
            Statement { ledger, ..usual },
            Statement { request, ..usual },
            Statement { programme, ..usual },
            Statement { site, ..usual },
            Statement { quantity, ..usual },
            Statement { sold_at, ..usual },
            Statement { durability, ..usual },
            Statement { simulated_clock, ..usual },
            Statement { late, ..usual },
            Statement { partition, ..usual },
        ] {
            assert_eq!(verdict(Receipt { of, ..receipt }), Verdict::NotValid, "{of:?}");
        }
        for bit in 0..128 {
            assert_eq!(verdict(Receipt { mac: Mac(receipt.mac.0 ^ 1 << bit), ..receipt }), Verdict::NotValid, "{bit}");
        }
    }

    /// Where one text ends and the next begins is part of what is sealed.
    #[test]
    fn no_two_receipts_are_the_same_bytes() {
        let of = |programme: &str, site: &str| {
            let (programme, site) = (programme.parse().unwrap(), site.parse().unwrap());
            Statement { programme, site, ..usual() }
        };
        assert_ne!(key(0).seal(of("a1", "1")).mac, key(0).seal(of("a", "11")).mac);
    }

    #[test]
    fn a_receipt_is_checked_under_the_key_of_its_name_among_many() {
        let [ours, old, another] = [0, 1, 2].map(key);
        let (receipt, older) = (ours.seal(usual()), old.seal(usual()));
        let both = [old.clone(), ours.clone()];
        assert_eq!((verify(&receipt, &both), verify(&older, &both)), (Verdict::Valid, Verdict::Valid));
        assert_eq!(verify(&another.seal(usual()), &both), Verdict::UnknownKey);
        assert_eq!(verify(&receipt, &[]), Verdict::UnknownKey);
        // The name of another key does not make it that key's.
        assert_eq!(verify(&Receipt { key_id: old.id(), ..receipt }, &both), Verdict::NotValid);
        let renamed = Receipt { key_id: another.id(), ..receipt };
        assert_eq!(verify(&renamed, &both), Verdict::UnknownKey);
        // Two keys of one name: whichever it was.
        let twin = ReceiptKey { id: ours.id(), ..old };
        assert_eq!(verify(&receipt, &[twin, ours]), Verdict::Valid);
    }

    #[test]
    fn what_is_printed_is_read_back_and_a_key_does_not_print_itself() {
        let Receipt { key_id, mac, .. } = key(0).seal(extreme());
        assert_eq!(key_id.to_string().parse(), Ok(key_id));
        assert_eq!(mac.to_string().to_uppercase().parse(), Ok(mac));
        assert_eq!(Mac(7).to_string().parse(), Ok(Mac(7)), "zeros in front are written");
        for bad in ["", "7", "+bace568", "abace56g", "abace5680"] {
            assert_eq!(bad.parse::<KeyId>(), Err(NotHex(8)), "{bad}");
            assert_eq!(bad.parse::<Mac>(), Err(NotHex(32)), "{bad}");
        }
        assert_eq!(format!("{:?}", key(0)), format!("ReceiptKey {{ id: {key_id:?}, .. }}"));
    }
}
