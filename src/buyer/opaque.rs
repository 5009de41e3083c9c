//! Ids of a programme's own: the client gives the id and, because the rules go by the year, the birth date.

use super::{BadBuyer, Buyer, CanonicalId, FIRST_YEAR, Scheme, born};
use crate::time::Date;

/// Reads an id of 1 to 64 printable ASCII characters (spaces around it are dropped, upper and lower case differ) and a
/// birth date `YYYY-MM-DD`. `today` is the civil day of the sale in the programme's zone.
pub fn parse_opaque(id: &str, birth_date: Option<&str>, today: Date) -> Result<Buyer, BadBuyer> {
    let id = id.trim().as_bytes();
    if id.is_empty() || !id.iter().all(u8::is_ascii_graphic) {
        return Err(BadBuyer::OpaqueId);
    }
    let id = CanonicalId::new(Scheme::Opaque, id).ok_or(BadBuyer::OpaqueId)?;
    let birth = iso_date(birth_date.ok_or(BadBuyer::BirthDateMissing)?.trim()).ok_or(BadBuyer::BirthDate)?;
    if birth.year < FIRST_YEAR {
        return Err(BadBuyer::Century);
    }
    Ok(Buyer { birth_year: born(birth, today)?.year, foreign: false, warning: None, id })
}

/// `YYYY-MM-DD` and nothing else: the week and ordinal forms of ISO 8601 are not what people type.
fn iso_date(text: &str) -> Option<Date> {
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|c| c.is_ascii_digit());
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    if !digits(year, 4) || !digits(month, 2) || !digits(day, 2) {
        return None;
    }
    Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Date = Date { year: 2026, month: 3, day: 2 };

    fn read(id: &str, birth_date: Option<&str>) -> Result<i16, BadBuyer> {
        parse_opaque(id, birth_date, TODAY).map(|buyer| buyer.birth_year)
    }

    #[test]
    fn an_id_and_a_birth_date() {
        assert_eq!(read(" card#0001 ", Some("1990-02-28")), Ok(1990));
        assert_eq!(read("x", Some(" 2026-03-02\n")), Ok(2026));
        assert_eq!(read(&"x".repeat(64), Some("1800-01-01")), Ok(1800));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for id in ["", "   ", "a b", "tab\there", "번호", "\u{7f}", &"x".repeat(65), &"x".repeat(1000)] {
            assert_eq!(read(id, Some("1990-02-28")), Err(BadBuyer::OpaqueId), "{id:?}");
        }
        for date in ["", "1990", "19900228", "1990-2-28", "1990-02-30", "28-02-1990", "+990-02-28", "1990-02-28T00:00"]
        {
            assert_eq!(read("x", Some(date)), Err(BadBuyer::BirthDate), "{date:?}");
        }
        assert_eq!(read("x", None), Err(BadBuyer::BirthDateMissing));
        assert_eq!(read("x", Some("2026-03-03")), Err(BadBuyer::NotYetBorn));
        assert_eq!(read("x", Some("1799-12-31")), Err(BadBuyer::Century));
    }
}
