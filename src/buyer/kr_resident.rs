//! Korean resident registration numbers and the foreigners' numbers that share their shape: `YYMMDD-GXXXXXX`, where G
//! names the century and the kind.

use zeroize::Zeroizing;

use super::{BadBuyer, Buyer, CanonicalId, Scheme, Warning, born};
use crate::time::Date;

/// Digits of a number.
const LENGTH: usize = 13;

/// Digits before the hyphen.
const DATE_DIGITS: usize = 6;

/// No hand types a number with so many spaces (bytes). A longer text is refused before it is read.
const MAX_TYPED: usize = 128;

/// Numbers given at birth from this day on have no check digit.
const NO_CHECK_DIGIT_FROM: Date = Date { year: 2020, month: 10, day: 5 };

/// Reads a number as people type it: with or without the hyphen, in ASCII or full-width digits, with spaces anywhere.
/// `today` is the civil day of the sale in the programme's zone; `warn` is the programme's switch for the check digit.
///
/// ```
/// use rationd::buyer::parse_kr_resident;
/// use rationd::time::Date;
///
/// let today = Date::new(2020, 3, 10).unwrap();
/// let buyer = parse_kr_resident(" ８１０３０５ － 1000112", today, true).unwrap();
/// assert_eq!((buyer.birth_year, buyer.foreign, buyer.warning), (1981, false, None));
/// ```
pub fn parse_kr_resident(text: &str, today: Date, warn: bool) -> Result<Buyer, BadBuyer> {
    let digits = read_digits(text)?;
    let value = |i: usize| digits.get(i).map_or(0, |digit| digit - b'0');
    let pair = |i: usize| value(i) * 10 + value(i + 1);

    let kind = value(DATE_DIGITS);
    let century = match kind {
        9 | 0 => 1800,
        1 | 2 | 5 | 6 => 1900,
        _ => 2000,
    };
    let foreign = matches!(kind, 5..=8);
    let birth = Date::new(century + i16::from(pair(0)), pair(2), pair(4)).ok_or(BadBuyer::NoSuchDate)?;
    let birth = born(birth, today)?;

    // Never for foreigners: the true rule is unpublished, and real people's numbers fail the one that is told.
    let has_check_digit = !foreign && birth < NO_CHECK_DIGIT_FROM;
    let doubtful = warn && has_check_digit && value(LENGTH - 1) != check_digit(value);
    Ok(Buyer {
        birth_year: birth.year,
        foreign,
        warning: doubtful.then_some(Warning::CheckDigit),
        id: CanonicalId::new(Scheme::KrResident, digits.as_slice()).ok_or(BadBuyer::Length)?,
    })
}

/// The check digit that the first twelve digits of a citizen's number ask for.
fn check_digit(value: impl Fn(usize) -> u8) -> u8 {
    const WEIGHTS: [u16; LENGTH - 1] = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5];
    let sum: u16 = WEIGHTS.iter().enumerate().map(|(i, weight)| weight * u16::from(value(i))).sum();
    u8::try_from((11 - sum % 11) % 10).unwrap_or_default()
}

/// The thirteen digits as ASCII.
fn read_digits(text: &str) -> Result<Zeroizing<[u8; LENGTH]>, BadBuyer> {
    if text.len() > MAX_TYPED {
        return Err(BadBuyer::Length);
    }
    let mut digits = Zeroizing::new([0; LENGTH]);
    let mut count = 0;
    let mut hyphen_astray = false;
    for c in text.chars() {
        if let Some(digit) = ascii_digit(c) {
            // A digit too many is counted but not kept: a wrong character further on is the better thing to name.
            if let Some(free) = digits.get_mut(count) {
                *free = digit;
            }
            count += 1;
        } else if is_hyphen(c) {
            hyphen_astray |= count != DATE_DIGITS;
        } else if !is_space(c) {
            return Err(BadBuyer::NotDigits);
        }
    }
    if count != LENGTH {
        return Err(BadBuyer::Length);
    }
    if hyphen_astray {
        return Err(BadBuyer::Hyphen);
    }
    Ok(digits)
}

/// ASCII digits, and the full-width ones of an East Asian keyboard.
fn ascii_digit(c: char) -> Option<u8> {
    let value = match c {
        '0'..='9' => u32::from(c) - u32::from('0'),
        '\u{FF10}'..='\u{FF19}' => u32::from(c) - 0xFF10,
        _ => return None,
    };
    u8::try_from(value).ok().map(|value| b'0' + value)
}

/// Whatever looks like the hyphen on the card: hyphens, dashes and minus signs in half and full width, the long-vowel
/// mark of a Japanese keyboard and the vowel EU of a Korean one.
fn is_hyphen(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{AD}' | '\u{2010}'
            ..='\u{2015}'
                | '\u{2043}'
                | '\u{2212}'
                | '\u{30FC}'
                | '\u{3161}'
                | '\u{FE58}'
                | '\u{FE63}'
                | '\u{FF0D}'
                | '\u{FF70}'
    )
}

/// Spaces of every width, and the invisible marks that come along when a number is pasted.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The day of sale of most vectors, in the middle of the mask scheme.
    const SALE: Date = Date { year: 2020, month: 6, day: 1 };

    fn read(text: &str) -> Result<(i16, bool, Option<Warning>), BadBuyer> {
        parse_kr_resident(text, SALE, true).map(|buyer| (buyer.birth_year, buyer.foreign, buyer.warning))
    }

    /// The invented numbers of the published table, each with what must come of it.
    #[test]
    fn synthetic_vectors() {
        let slip = Some(Warning::CheckDigit);
        for (number, expected) in [
            ("810305-1000112", Ok((1981, false, None))),
            ("631120-2162511", Ok((1963, false, None))),
            ("130704-3070126", Ok((2013, false, None))),
            ("000229-4120317", Ok((2000, false, None))),
            ("020101-3000413", Ok((2002, false, None))),
            ("011231-4000511", Ok((2001, false, None))),
            ("400101-2480219", Ok((1940, false, None))),
            ("991231-9000131", Ok((1899, false, None))),
            ("890612-5100163", Ok((1989, true, None))),
            ("890612-5100164", Ok((1989, true, None))),
            ("951130-6120183", Ok((1995, true, None))),
            ("040315-7200178", Ok((2004, true, None))),
            ("810305-1000113", Ok((1981, false, slip))),
            ("010229-3000014", Err(BadBuyer::NoSuchDate)),
            ("991301-1000014", Err(BadBuyer::NoSuchDate)),
            ("250101-3000016", Err(BadBuyer::NotYetBorn)),
        ] {
            assert_eq!(read(number), expected, "{number}");
        }
    }

    #[test]
    fn as_people_type_it() {
        for typed in [
            "8103051000112",
            "810305-1000112",
            "  810305-1000112\n",
            "810305 1000112",
            "810305 - 1000112",
            "81 03 05 - 1 000112",
            "810305--1000112",
            "８１０３０５－１０００１１２",
            "８１０３０５ｰ1000112",
            "810305ー1000112",
            "810305ㅡ1000112",
            "810305–1000112",
            "810305—1000112",
            "810305−1000112",
            "810305\u{3000}1000112",
            "\u{FEFF}810305-1000112\u{200B}",
        ] {
            assert_eq!(read(typed), Ok((1981, false, None)), "{typed:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (typed, expected) in [
            ("", BadBuyer::Length),
            ("-", BadBuyer::Length),
            ("810305-100011", BadBuyer::Length),
            ("810305-10001122", BadBuyer::Length),
            ("810305-1OOO112", BadBuyer::NotDigits),
            ("810305-1000112x", BadBuyer::NotDigits),
            ("810305-10001122222x", BadBuyer::NotDigits),
            ("81.03.05-1000112", BadBuyer::NotDigits),
            ("٨١٠٣٠٥-١٠٠٠١١٢", BadBuyer::NotDigits),
            ("81030-51000112", BadBuyer::Hyphen),
            ("810305-100-0112", BadBuyer::Hyphen),
            ("-8103051000112", BadBuyer::Hyphen),
            ("000000-1000112", BadBuyer::NoSuchDate),
            ("810300-1000112", BadBuyer::NoSuchDate),
            ("810431-1000112", BadBuyer::NoSuchDate),
            ("200602-3000112", BadBuyer::NotYetBorn),
        ] {
            assert_eq!(read(typed), Err(expected), "{typed:?}");
        }
        assert_eq!(read(&" ".repeat(MAX_TYPED + 1)), Err(BadBuyer::Length));
    }

    #[test]
    fn no_message_repeats_what_was_typed() {
        for bad in ["8103051000", "810305-1000x12", "810399-1000112", "250101-3000016", "81030-51000112"] {
            let message = read(bad).unwrap_err().to_string();
            assert!(!message.contains("8103") && !message.contains("1000") && !message.contains("2501"), "{message}");
        }
    }

    #[test]
    fn the_seventh_digit_names_century_and_kind() {
        let expected = [
            (1800, false),
            (1900, false),
            (1900, false),
            (2000, false),
            (2000, false),
            (1900, true),
            (1900, true),
            (2000, true),
            (2000, true),
            (1800, false),
        ];
        for (kind, (century, foreign)) in expected.into_iter().enumerate() {
            let (year, is_foreign, _) = read(&format!("100101-{kind}000000")).unwrap();
            assert_eq!((year, is_foreign), (century + 10, foreign), "{kind}");
        }
    }

    #[test]
    fn born_today_buys_today() {
        let today = Date { year: 2020, month: 2, day: 29 };
        assert!(parse_kr_resident("200229-3000011", today, true).is_ok());
        let eve = Date { year: 2020, month: 2, day: 28 };
        assert_eq!(parse_kr_resident("200229-3000011", eve, true).err(), Some(BadBuyer::NotYetBorn));
    }

    /// Every last digit of one number: exactly one is right for a citizen born before the change, and none is looked
    /// at afterwards, for foreigners, or when the programme has switched the warning off.
    #[test]
    fn the_check_digit_warns_where_there_is_one() {
        let today = Date { year: 2021, month: 1, day: 1 };
        let warnings = |stem: &str, warn: bool| {
            (0..10)
                .filter(|last| parse_kr_resident(&format!("{stem}{last}"), today, warn).unwrap().warning.is_some())
                .count()
        };
        assert_eq!(warnings("810305-100011", true), 9);
        assert_eq!(warnings("810305-100011", false), 0);
        assert_eq!(warnings("201004-300011", true), 9);
        assert_eq!(warnings("201005-300011", true), 0);
        for kind in 5..=8 {
            assert_eq!(warnings(&format!("100101-{kind}00011"), true), 0, "{kind}");
        }
        for kind in [0, 1, 2, 3, 4, 9] {
            assert_eq!(warnings(&format!("100101-{kind}00011"), true), 9, "{kind}");
        }
    }
}
