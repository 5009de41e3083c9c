//! Tokens: a seat or a place and the key of whoever opened it, written so that they can travel, under a MAC, so that nobody can
//! write one but the service.
//!
//! A token is only a handle: whether its seat is live, or its place in the line, is for the door to say, and whether the caller
//! holds the key for whoever knows the connection. Knows nothing about the door or about certificates.

use std::fmt;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Place, Seat, SeatKey};

/// The layout of the bytes under the hexadecimal: version, thumbprint, length and text of the site, slot, fence, terminal, tag.
/// Version 1 had no thumbprint. A place's token has its number for the fence, and before all of it the position that its
/// terminal was shown last (8 bytes).
const VERSION: u8 = 2;
/// The first 128 bits of an HMAC-SHA-256.
const TAG: usize = 16;

/// The key that tokens are made under, the same on every instance. Wiped from memory when dropped.
#[derive(Clone)]
pub struct DoorKey(Zeroizing<[u8; 32]>);

impl DoorKey {
    /// From 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    fn mac(&self, purpose: &[u8], payload: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "an HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("a key of any length");
        // The purpose stands first, so that a tag made under this key for anything else is no token.
        mac.update(purpose);
        mac.update(payload);
        mac
    }
}

impl fmt::Debug for DoorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DoorKey(…)")
    }
}

/// The first 128 bits of the SHA-256 of a public key (its SubjectPublicKeyInfo): which key a token is bound to. A new certificate
/// of the same key keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thumbprint([u8; 16]);

impl Thumbprint {
    /// Of whoever speaks in the clear and has no key.
    pub const NONE: Self = Self([0; 16]);

    /// Of a public key.
    pub fn of(public_key_info: &[u8]) -> Self {
        let mut thumbprint = [0; 16];
        thumbprint.iter_mut().zip(Sha256::digest(public_key_info)).for_each(|(to, from)| *to = from);
        Self(thumbprint)
    }
}

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The seat that it is a handle to.
    pub seat: Seat,
    /// The key of whoever it was given to.
    pub given_to: Thumbprint,
}

/// The text is not a token of this service. It does not say more, so that nobody can feel their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a session token of this service; open a session and use the token that it returns")]
pub struct BadToken;

/// What a tag under the key is for.
const SESSION: &[u8] = b"rationd session token\0";
/// As above.
const PLACE: &[u8] = b"rationd place token\0";

/// The token of a seat for whoever holds this key: lower-case hexadecimal.
pub fn mint(seat: &Seat, given_to: Thumbprint, key: &DoorKey) -> String {
    sealed(written(seat, given_to), SESSION, key)
}

/// The token of a place for whoever holds this key, with the position that its terminal was shown last.
pub fn mint_place(place: &Place, shown: Option<u64>, given_to: Thumbprint, key: &DoorKey) -> String {
    // Both have a site, a slot, a terminal and a number.
    let like_a_seat = Seat { key: place.key, terminal: place.terminal, fence: place.seq };
    let mut bytes = shown.unwrap_or(u64::MAX).to_be_bytes().to_vec();
    bytes.extend(written(&like_a_seat, given_to));
    sealed(bytes, PLACE, key)
}

fn written(seat: &Seat, given_to: Thumbprint) -> Vec<u8> {
    let site = seat.key.site.as_str().as_bytes();
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&given_to.0);
    bytes.push(u8::try_from(site.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(site);
    bytes.extend_from_slice(&seat.key.slot.to_be_bytes());
    bytes.extend_from_slice(&seat.fence.to_be_bytes());
    bytes.extend_from_slice(seat.terminal.as_str().as_bytes());
    bytes
}

fn sealed(mut bytes: Vec<u8>, purpose: &[u8], key: &DoorKey) -> String {
    let tag = key.mac(purpose, &bytes).finalize().into_bytes();
    bytes.extend(tag.iter().take(TAG));
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a token says, if this service has made it.
pub fn read(token: &str, key: &DoorKey) -> Result<Token, BadToken> {
    parse(&unsealed(token, SESSION, key)?).ok_or(BadToken)
}

/// What a place's token says, if this service has made it: the place, the position shown last, and who it was given to.
pub fn read_place(token: &str, key: &DoorKey) -> Result<(Place, Option<u64>, Thumbprint), BadToken> {
    let payload = unsealed(token, PLACE, key)?;
    let (shown, rest) = payload.split_first_chunk().ok_or(BadToken)?;
    let Token { seat: Seat { key, terminal, fence }, given_to } = parse(rest).ok_or(BadToken)?;
    let shown = Some(u64::from_be_bytes(*shown)).filter(|shown| *shown != u64::MAX);
    Ok((Place { key, terminal, seq: fence }, shown, given_to))
}

fn unsealed(token: &str, purpose: &[u8], key: &DoorKey) -> Result<Vec<u8>, BadToken> {
    let mut bytes = from_hex(token).ok_or(BadToken)?;
    let (payload, tag) = bytes.split_last_chunk::<TAG>().ok_or(BadToken)?;
    key.mac(purpose, payload).verify_truncated_left(tag).map_err(|_| BadToken)?;
    bytes.truncate(bytes.len() - TAG);
    Ok(bytes)
}

fn parse(payload: &[u8]) -> Option<Token> {
    let (&[version], rest) = payload.split_first_chunk()?;
    let (given_to, rest) = rest.split_first_chunk()?;
    let (&[site_length], rest) = rest.split_first_chunk()?;
    let (site, rest) = rest.split_at_checked(usize::from(site_length))?;
    let (slot, rest) = rest.split_first_chunk()?;
    let (fence, terminal) = rest.split_first_chunk()?;
    if version != VERSION {
        return None;
    }
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let seat = Seat {
        key: SeatKey { site: text(site)?.parse().ok()?, slot: u16::from_be_bytes(*slot) },
        fence: u64::from_be_bytes(*fence),
        terminal: text(terminal)?.parse().ok()?,
    };
    Some(Token { seat, given_to: Thumbprint(*given_to) })
}

/// Lower case only: a token has one spelling.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(site: &str, terminal: &str) -> Seat {
        Seat {
            key: SeatKey { site: site.parse().unwrap(), slot: 513 },
            terminal: terminal.parse().unwrap(),
            fence: 1 << 40,
        }
    }

    #[test]
    fn a_token_is_read_back_and_every_flipped_bit_is_refused() {
        let key = DoorKey::new([7; 32]);
        for (seat, given_to) in [
            (seat("12345678", "POS-1"), Thumbprint::NONE),
            (seat("a", "b"), Thumbprint::of(b"a key")),
            (seat(&"s".repeat(16), &"t".repeat(32)), Thumbprint::of(b"another key")),
        ] {
            let token = mint(&seat, given_to, &key);
            assert_eq!(read(&token, &key), Ok(Token { seat, given_to }));
            for at in 0..token.len() * 8 {
                let mut bytes = token.clone().into_bytes();
                bytes[at / 8] ^= 1 << (at % 8);
                if let Ok(flipped) = String::from_utf8(bytes) {
                    assert_eq!(read(&flipped, &key), Err(BadToken), "bit {at}");
                }
            }
            for end in 0..token.len() {
                assert_eq!(read(&token[..end], &key), Err(BadToken), "cut to {end}");
            }
            assert_eq!(read(&token.to_uppercase(), &key), Err(BadToken));
        }
    }

    #[test]
    fn a_place_token_holds_what_was_shown_and_is_no_session_token() {
        let key = DoorKey::new([7; 32]);
        let Seat { key: at, terminal, fence } = seat("12345678", "POS-1");
        let (place, given_to) = (Place { key: at, terminal, seq: fence }, Thumbprint::of(b"a key"));
        for shown in [None, Some(1), Some(67_000)] {
            let token = mint_place(&place, shown, given_to, &key);
            assert_eq!(read_place(&token, &key), Ok((place, shown, given_to)));
            assert_eq!(read(&token, &key), Err(BadToken));
            for at in 0..token.len() {
                let mut bytes = token.clone().into_bytes();
                bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
                assert_eq!(read_place(&String::from_utf8(bytes).unwrap(), &key), Err(BadToken), "digit {at}");
            }
        }
        assert_eq!(read_place(&mint(&seat("12345678", "POS-1"), given_to, &key), &key), Err(BadToken));
    }

    #[test]
    fn a_token_of_another_key_is_refused_and_a_key_does_not_print_itself() {
        let token = mint(&seat("12345678", "POS-1"), Thumbprint::NONE, &DoorKey::new([7; 32]));
        let other = DoorKey::new([8; 32]);
        assert_eq!(read(&token, &other), Err(BadToken));
        assert!(!format!("{other:?}").contains('8'));
    }
}
