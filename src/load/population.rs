//! The people who buy: as many as a scenario asks for, with the birth years of South Korea in 2020, and numbers that are well
//! formed and belong to nobody but by chance. Person number n is the same in every process of a run.
//!
//! A number can be sent and nothing else: it has no `Debug`, is in no report and is wiped when it is dropped.

use zeroize::Zeroizing;

use super::chance::{Chance, GOLDEN};
use crate::grpc::v1;

/// Birth years from, until (both included), and the people born in them, in ten thousands.
///
/// The two proxy groups of children (2010 and later 4.58 million, 2002 to 2009 3.83 million), the elders (1940 and earlier
/// 1.91 million) and the whole (51.8 million) are the figures that were published with the mask scheme of 2020. What lies
/// between is the resident register's ten-year age groups at the end of 2019, rounded. Nobody is born in 2020, so that nobody is
/// born after the day of the sale under a clock set to that spring. Foreigners are left out.
const BORN: [(u16, u16, u64); 10] = [
    (1920, 1929, 16),
    (1930, 1940, 175),
    (1941, 1949, 330),
    (1950, 1959, 620),
    (1960, 1969, 860),
    (1970, 1979, 840),
    (1980, 1989, 710),
    (1990, 2001, 788),
    (2002, 2009, 383),
    (2010, 2019, 458),
];

/// Numbers with five digits of place and serial that one birthday and sex has.
const SERIALS: u64 = 100_000;
/// Has no factor in common with [`SERIALS`]: neighbours in the population do not get neighbouring serials.
const SCATTER: u64 = 61_803;

/// A resident number of a made-up person.
pub struct Number(Zeroizing<String>);

impl Number {
    /// As the wire names a buyer.
    pub fn buyer(&self) -> v1::Buyer {
        v1::Buyer { id: Some(v1::buyer::Id::ResidentNumber(self.0.as_str().to_owned())) }
    }
}

/// A person's birthday: year, month, day.
type Birthday = (u16, u8, u8);

/// The made-up people of one seed.
#[derive(Clone, Copy)]
pub struct People {
    seed: u64,
}

impl People {
    /// The people of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The number of a person. No two people of a population have the same one: people with the same five digits of place and
    /// serial are spread over the birthdays by steps of the golden ratio, which never come near each other.
    pub fn number(self, person: u64) -> Number {
        let serial = person % SERIALS * SCATTER % SERIALS;
        let mut chance = Chance::of(self.seed, "people", serial);
        let place_in_life = chance.bits().wrapping_add((person / SERIALS).wrapping_mul(GOLDEN));
        let (year, month, day) = birthday(place_in_life);
        let female = Chance::of(self.seed, "sexes", person).bits() % 2;
        let century = if year < 2000 { 1 } else { 3 };
        let mut number = Zeroizing::new(format!("{:02}{month:02}{day:02}{}{serial:05}", year % 100, century + female));
        let check = check_digit(&number);
        number.push(check);
        Number(number)
    }
}

/// The day that lies so far along all birthdays, from 0 to 2^64.
fn birthday(along: u64) -> Birthday {
    let all: u64 = BORN.iter().map(|band| band.2).sum();
    // In people and fractions of one, so that a band of w ten thousands is w · 2^32 long.
    let mut rest = u64::try_from((u128::from(along) * (u128::from(all) << 32)) >> 64).unwrap_or_default();
    let mut born = (2019, 12, 31);
    for (from, until, people) in BORN {
        let length = people << 32;
        if rest < length {
            let days = u64::from(until - from + 1) * 365;
            let day = rest * days / length;
            born = on_day(from + u16::try_from(day / 365).unwrap_or_default(), day % 365);
            break;
        }
        rest -= length;
    }
    born
}

/// The nth day of a year that is not a leap year, counted from 0. Nobody is born on 29 February.
fn on_day(year: u16, nth: u64) -> Birthday {
    const MONTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut day = nth;
    for (month, days) in (1..).zip(MONTHS) {
        if day < days {
            return (year, month, u8::try_from(day + 1).unwrap_or(1));
        }
        day -= days;
    }
    (year, 12, 31)
}

/// The thirteenth digit that the first twelve ask for, of everybody who got a number before October 2020.
fn check_digit(twelve: &str) -> char {
    let weights = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5];
    let sum: u32 = twelve.bytes().zip(weights).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    char::from_digit((11 - sum % 11) % 10, 10).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buyer::parse_kr_resident;
    use crate::time::Date;

    fn today() -> Date {
        "2020-03-28".parse().unwrap()
    }

    #[test]
    fn everybody_has_a_number_of_their_own_that_is_read_without_a_warning() {
        // 300,000 of them, so that every serial is used three times.
        let people = People::new(2020);
        let mut seen = std::collections::HashSet::new();
        for person in 0..300_000 {
            let number = people.number(person);
            let buyer = parse_kr_resident(&number.0, today(), true);
            assert!(buyer.is_ok_and(|buyer| buyer.warning.is_none() && !buyer.foreign), "person {person}");
            assert!(seen.insert(number.0.parse::<u64>().unwrap()), "person {person} is somebody else too");
        }
    }

    #[test]
    fn the_birth_years_are_those_of_2020() {
        let (people, many) = (People::new(1), 200_000_u64);
        let years: Vec<i16> = (0..many)
            .map(|person| parse_kr_resident(&people.number(person).0, today(), false).unwrap().birth_year)
            .collect();
        // Millions of 51.8 (`BORN`): the published groups of the mask scheme.
        for (from, until, millions) in [(2010, 2019, 4.58), (2002, 2009, 3.83), (1900, 1940, 1.91), (1941, 2001, 41.48)]
        {
            let share = years.iter().filter(|year| (from..=until).contains(*year)).count() as f64 / many as f64;
            assert!((share - millions / 51.8).abs() < 0.003, "{from} to {until}: {share}");
        }
        // One pair of last digits, such as 1 and 6, is about ten million people.
        for digit in 0..5 {
            let share = years.iter().filter(|year| (*year % 5) == digit).count() as f64 / many as f64;
            assert!((0.17..0.23).contains(&share), "last digit {digit} or {}: {share}", digit + 5);
        }
    }

    #[test]
    fn a_person_is_the_same_again_and_another_under_another_seed() {
        let same = |a: Number, b: Number| a.0 == b.0;
        assert!(same(People::new(5).number(17), People::new(5).number(17)));
        assert!(!same(People::new(5).number(17), People::new(6).number(17)));
    }
}
