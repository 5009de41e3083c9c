//! The buyer's number while it is typed, and what can be seen to be wrong with it before anybody is asked.
//!
//! The service reads numbers by its own rules and decides. What is looked at here only spares a clerk the way there and back.

use zeroize::Zeroizing;

use super::vocabulary::Masked;
use crate::time::Date;

/// Digits of a number.
const LENGTH: usize = 13;
/// Digits before the hyphen.
const DATE_DIGITS: usize = 6;
/// What a finished number shows: the date of birth and the digit after it.
pub(super) const SHOWN: usize = DATE_DIGITS + 1;
/// Numbers given at birth from this day on have no check digit.
const NO_CHECK_DIGIT_FROM: Date = Date { year: 2020, month: 10, day: 5 };

/// A whole number. It shows itself to nobody but by [`Number::as_str`], and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Number(Zeroizing<[u8; LENGTH]>);

impl Number {
    /// From thirteen digits, with or without hyphens and spaces.
    pub fn new(text: &str) -> Option<Self> {
        let mut typed = Typed::default();
        for c in text.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
            typed.push(u8::try_from(c.to_digit(10)?).ok()?);
        }
        typed.whole()
    }

    /// The thirteen digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.0.as_slice()).unwrap_or_default()
    }

    /// As it may stand on a screen: `810305-1******`.
    pub fn masked(&self) -> Masked {
        let (date, rest) = self.as_str().split_at_checked(DATE_DIGITS).unwrap_or_default();
        Masked::of(&Zeroizing::new(format!("{date}-{rest}")))
    }

    /// What does not fit, on this day; `check_digit` is the programme's switch.
    pub(super) fn slip(&self, today: Option<Date>, check_digit: bool) -> Option<Slip> {
        let value = |at: usize| self.0.get(at).map_or(0, |digit| digit - b'0');
        let pair = |at: usize| value(at) * 10 + value(at + 1);
        let kind = value(DATE_DIGITS);
        let century = match kind {
            9 | 0 => 1800,
            1 | 2 | 5 | 6 => 1900,
            _ => 2000,
        };
        let Some(birth) = Date::new(century + i16::from(pair(0)), pair(2), pair(4)) else {
            return Some(Slip::NoSuchDate);
        };
        if today.is_some_and(|today| birth > today) {
            return Some(Slip::NotYetBorn);
        }
        // Real foreigners' numbers fail the rule that is told of them.
        let has_check_digit = check_digit && !matches!(kind, 5..=8) && birth < NO_CHECK_DIGIT_FROM;
        (has_check_digit && value(LENGTH - 1) != check_digit_of(value)).then_some(Slip::CheckDigit)
    }
}

/// The check digit that the first twelve digits ask for.
fn check_digit_of(value: impl Fn(usize) -> u8) -> u8 {
    const WEIGHTS: [u16; LENGTH - 1] = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5];
    let sum: u16 = WEIGHTS.iter().enumerate().map(|(at, weight)| weight * u16::from(value(at))).sum();
    u8::try_from((11 - sum % 11) % 10).unwrap_or_default()
}

/// What was found in what was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slip {
    /// Digits are missing: so many are there.
    Short(usize),
    /// There are too many.
    Long,
    /// The calendar has no such day of birth.
    NoSuchDate,
    /// The day of birth is yet to come.
    NotYetBorn,
    /// The last digit does not fit. Real people have such numbers: it warns, and no more.
    CheckDigit,
}

/// Digits as they are typed.
#[derive(Default)]
pub(super) struct Typed {
    digits: Zeroizing<[u8; LENGTH]>,
    /// May be more than are kept.
    count: usize,
}

impl Typed {
    /// One digit more, from 0 to 9. One too many is counted and not kept.
    pub(super) fn push(&mut self, digit: u8) {
        if let Some(free) = self.digits.get_mut(self.count) {
            *free = b'0' + digit.min(9);
        }
        self.count = self.count.saturating_add(1);
    }

    /// Takes the last one back.
    pub(super) fn pop(&mut self) {
        self.count = self.count.saturating_sub(1);
        if let Some(last) = self.digits.get_mut(self.count) {
            *last = 0;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number, if it is whole.
    pub(super) fn whole(&self) -> Option<Number> {
        (self.count == LENGTH).then(|| Number(self.digits.clone()))
    }

    /// Why it is not whole.
    pub(super) fn length_slip(&self) -> Option<Slip> {
        match self.count {
            LENGTH => None,
            more if more > LENGTH => Some(Slip::Long),
            count => Some(Slip::Short(count)),
        }
    }

    /// What the digits are worth together.
    pub(super) fn value(&self) -> u32 {
        self.kept().iter().fold(0, |sum: u32, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
    }

    /// As it may stand on a screen while it is typed: what a finished number shows, and of the others only the last, so that whoever
    /// types sees what the finger did, and a glance or a photograph never has more than eight digits.
    pub(super) fn shown(&self) -> Zeroizing<String> {
        let mut shown = Zeroizing::new(String::with_capacity(LENGTH + 2));
        for (at, digit) in self.kept().iter().enumerate() {
            if at == DATE_DIGITS {
                shown.push('-');
            }
            let is_seen = at < SHOWN || at + 1 == self.count;
            shown.push(if is_seen { char::from(*digit) } else { '*' });
        }
        shown.push(if self.count > LENGTH { '!' } else { '_' });
        shown
    }

    fn kept(&self) -> &[u8] {
        self.digits.get(..self.count.min(LENGTH)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buyer::{BadBuyer, Warning, parse_kr_resident};
    use proptest::prelude::*;

    const TODAY: Date = Date { year: 2020, month: 6, day: 1 };

    fn slip(text: &str) -> Option<Slip> {
        Number::new(text).unwrap().slip(Some(TODAY), true)
    }

    #[test]
    fn the_synthetic_numbers_fit_and_their_slips_are_found() {
        for number in ["810305-1000112", "631120-2162511", "130704-3070126", "000229-4120317", "020101-3000413"] {
            assert_eq!(slip(number), None, "{number}");
        }
        for number in ["011231-4000511", "400101-2480219", "991231-9000131"] {
            assert_eq!(slip(number), None, "{number}");
        }
        for foreign in ["890612-5100163", "890612-5100164", "951130-6120183", "040315-7200178"] {
            assert_eq!(slip(foreign), None, "{foreign}");
        }
        assert_eq!(slip("810305-1000113"), Some(Slip::CheckDigit));
        assert_eq!(slip("010229-3000014"), Some(Slip::NoSuchDate));
        assert_eq!(slip("250101-3000016"), Some(Slip::NotYetBorn));
    }

    proptest! {
        /// The service's own rule is the one that decides: this one must say the same of every number.
        #[test]
        fn what_is_seen_here_is_what_the_service_sees(digits in "[0-9]{13}", near in "[0-9]{2}(0[1-9]|1[0-2])[0-2][0-9][0-9]{7}", warn: bool) {
            for number in [digits, near] {
                let theirs = parse_kr_resident(&number, TODAY, warn);
                let expected = match theirs {
                    Ok(buyer) => buyer.warning.map(|Warning::CheckDigit| Slip::CheckDigit),
                    Err(BadBuyer::NoSuchDate) => Some(Slip::NoSuchDate),
                    Err(BadBuyer::NotYetBorn) => Some(Slip::NotYetBorn),
                    Err(other) => panic!("{other}"),
                };
                prop_assert_eq!(Number::new(&number).unwrap().slip(Some(TODAY), warn), expected);
            }
        }

        #[test]
        fn no_more_than_eight_digits_are_ever_seen(digits in prop::collection::vec(0_u8..10, 0..20)) {
            let mut typed = Typed::default();
            for digit in digits {
                typed.push(digit);
                prop_assert!(typed.shown().chars().filter(char::is_ascii_digit).count() <= SHOWN + 1);
            }
        }
    }

    #[test]
    fn it_is_shown_as_it_is_typed_and_masked_when_it_is_whole() {
        let mut typed = Typed::default();
        let mut shown = vec![typed.shown().to_string()];
        for digit in [8, 1, 0, 3, 0, 5, 1, 0, 0, 0, 1, 1, 2, 9] {
            typed.push(digit);
            shown.push(typed.shown().to_string());
        }
        let [none, .., at_nine, _, _, _, whole, over] = shown.as_slice() else { panic!() };
        assert_eq!([none.as_str(), at_nine, whole], ["_", "810305-1*0_", "810305-1*****2_"]);
        assert_eq!((over.as_str(), typed.length_slip()), ("810305-1******!", Some(Slip::Long)));
        typed.pop();
        assert_eq!(typed.whole().unwrap().masked().to_string(), "810305-1******");
        typed.pop();
        assert_eq!((typed.length_slip(), typed.whole().is_none()), (Some(Slip::Short(12)), true));
    }
}
