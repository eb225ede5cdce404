//! Dates and times as text, with one meaning only.
//!
//! RFC 3339 with the limits that a column needs: years 0001 to 9999, no leap second (a count of seconds since 1970
//! has no place for one), and no digit finer than the column's unit, because it would be dropped in silence. Written
//! here and not taken from a library, because an audit years later must read the same text the same way.

use crate::schema::Unit;

const SECONDS_A_DAY: i64 = 86_400;
/// 0001-01-01 and 9999-12-31, as days since 1970.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// Days since 1970 of `2026-01-31`.
pub(crate) fn parse_date(text: &str) -> Result<i32, &'static str> {
    let mut rest = text.as_bytes();
    let days = date(&mut rest)?;
    if rest.is_empty() { i32::try_from(days).map_err(|_| NOT_A_DATE) } else { Err(NOT_A_DATE) }
}

/// Units since midnight of `08:15:00` or `08:15:00.250`.
pub(crate) fn parse_time(text: &str, unit: Unit) -> Result<i64, &'static str> {
    let mut rest = text.as_bytes();
    let (seconds, fraction) = time(&mut rest, unit)?;
    if rest.is_empty() { Ok(seconds * unit.per_second() + fraction) } else { Err(NOT_A_TIME) }
}

/// Units since 1970 of `2026-01-31T08:15:00Z`; without a zone when `utc` is false.
pub(crate) fn parse_timestamp(text: &str, unit: Unit, utc: bool) -> Result<i64, &'static str> {
    let mut rest = text.as_bytes();
    let days = date(&mut rest)?;
    match rest.split_first() {
        Some((b'T' | b't' | b' ', after)) => rest = after,
        _ => return Err("it has no time of day"),
    }
    let (seconds, fraction) = time(&mut rest, unit)?;
    let zone = match (utc, zone(&mut rest)?) {
        (true, Some(zone)) => zone,
        (false, None) => 0,
        (true, None) => return Err("it has no zone: Z or an offset such as +01:00"),
        (false, Some(_)) => return Err("it has a zone, and the field is a local time"),
    };
    if !rest.is_empty() {
        return Err("it has something after the time");
    }
    let instant = days * SECONDS_A_DAY + seconds - zone;
    instant
        .checked_mul(unit.per_second())
        .and_then(|units| units.checked_add(fraction))
        .filter(|&units| timestamp_in_range(units, unit))
        .ok_or("it is outside the years that the field can hold")
}

/// Whether a count of units since 1970 lies in the years 0001 to 9999.
pub(crate) fn timestamp_in_range(units: i64, unit: Unit) -> bool {
    DAYS.contains(&units.div_euclid(unit.per_second()).div_euclid(SECONDS_A_DAY))
}

/// Whether a count of days since 1970 lies in the years 0001 to 9999.
pub(crate) fn date_in_range(days: i32) -> bool {
    DAYS.contains(&i64::from(days))
}

/// Whether a count of units since midnight lies within a day.
pub(crate) fn time_in_range(units: i64, unit: Unit) -> bool {
    (0..SECONDS_A_DAY * unit.per_second()).contains(&units)
}

const NOT_A_DATE: &str = "it is not a date such as 2026-01-31";
const NOT_A_TIME: &str = "it has no time of day such as 08:15:00";

fn date(rest: &mut &[u8]) -> Result<i64, &'static str> {
    let year = digits(rest, 4).ok_or(NOT_A_DATE)?;
    literal(rest, b'-').ok_or(NOT_A_DATE)?;
    let month = digits(rest, 2).ok_or(NOT_A_DATE)?;
    literal(rest, b'-').ok_or(NOT_A_DATE)?;
    let day = digits(rest, 2).ok_or(NOT_A_DATE)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err("its month is not 01 to 12"),
    };
    if year == 0 || day == 0 || day > days_in_month {
        return Err("there is no such day");
    }
    Ok(days_from_civil(year, month, day))
}

fn time(rest: &mut &[u8], unit: Unit) -> Result<(i64, i64), &'static str> {
    let hour = digits(rest, 2).ok_or(NOT_A_TIME)?;
    literal(rest, b':').ok_or(NOT_A_TIME)?;
    let minute = digits(rest, 2).ok_or(NOT_A_TIME)?;
    literal(rest, b':').ok_or(NOT_A_TIME)?;
    let second = digits(rest, 2).ok_or(NOT_A_TIME)?;
    if second == 60 {
        return Err("it is a leap second, which a count of seconds cannot hold");
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err("there is no such time of day");
    }
    Ok((hour * 3_600 + minute * 60 + second, fraction(rest, unit)?))
}

fn fraction(rest: &mut &[u8], unit: Unit) -> Result<i64, &'static str> {
    if literal(rest, b'.').is_none() {
        return Ok(0);
    }
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (text, after) = rest.split_at(count);
    *rest = after;
    if text.is_empty() {
        return Err("it has a point and no digits after it");
    }
    let mut scale = unit.per_second();
    let mut value = 0;
    for &digit in text {
        scale /= 10;
        match (scale, digit - b'0') {
            (0, 0) => {}
            (0, _) => return Err("it is finer than the field's unit"),
            (scale, digit) => value += scale * i64::from(digit),
        }
    }
    Ok(value)
}

/// Seconds east of Greenwich, or nothing if there is no zone.
fn zone(rest: &mut &[u8]) -> Result<Option<i64>, &'static str> {
    const NOT_A_ZONE: &str = "its zone is not Z or an offset such as +01:00";
    let sign = match rest.split_first() {
        None => return Ok(None),
        Some((b'Z' | b'z', after)) => {
            *rest = after;
            return Ok(Some(0));
        }
        Some((b'+', after)) => (1, after),
        Some((b'-', after)) => (-1, after),
        Some(_) => return Err(NOT_A_ZONE),
    };
    *rest = sign.1;
    let hour = digits(rest, 2).ok_or(NOT_A_ZONE)?;
    literal(rest, b':').ok_or(NOT_A_ZONE)?;
    let minute = digits(rest, 2).ok_or(NOT_A_ZONE)?;
    if hour > 23 || minute > 59 { Err(NOT_A_ZONE) } else { Ok(Some(sign.0 * (hour * 3_600 + minute * 60))) }
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (text, after) = rest.split_at_checked(count)?;
    let value =
        text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))?;
    *rest = after;
    Some(value)
}

fn literal(rest: &mut &[u8], byte: u8) -> Option<()> {
    let after = rest.strip_prefix(&[byte])?;
    *rest = after;
    Some(())
}

/// Days since 1970 of a day in the Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The day in the Gregorian calendar of a count of days since 1970: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `2026-01-31` of a count of days since 1970.
pub(crate) fn format_date(days: i32) -> String {
    let (year, month, day) = civil_from_days(i64::from(days));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `08:15:00.250` of a count of units since midnight.
pub(crate) fn format_time(units: i64, unit: Unit) -> String {
    let seconds = units.div_euclid(unit.per_second());
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = match (units.rem_euclid(unit.per_second()), unit) {
        (0, _) => String::new(),
        (fraction, Unit::Millis) => format!(".{fraction:03}"),
        (fraction, Unit::Micros) => format!(".{fraction:06}"),
        (fraction, Unit::Nanos) => format!(".{fraction:09}"),
    };
    format!("{hour:02}:{minute:02}:{second:02}{fraction}")
}

/// `2026-01-31T08:15:00Z` of a count of units since 1970; without the Z when `utc` is false.
pub(crate) fn format_timestamp(units: i64, unit: Unit, utc: bool) -> String {
    let per_day = SECONDS_A_DAY * unit.per_second();
    // Checked to be in the years 0001 to 9999 when it was parsed, so the days fit.
    let days = i32::try_from(units.div_euclid(per_day)).unwrap_or_default();
    let zone = if utc { "Z" } else { "" };
    format!("{}T{}{zone}", format_date(days), format_time(units.rem_euclid(per_day), unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    #[test]
    fn instants() {
        let millis = |text| parse_timestamp(text, Unit::Millis, true);
        assert_eq!(millis("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(millis("2026-01-31T08:15:00.250+01:00"), Ok(1_769_843_700_250));
        assert_eq!(millis("1969-12-31t23:59:59.999z"), Ok(-1));
        assert_eq!(millis("2026-01-31 08:15:00.2500Z"), Ok(1_769_847_300_250));
        assert_eq!(parse_timestamp("2024-02-29T00:00:00", Unit::Micros, false), Ok(1_709_164_800_000_000));
        assert_eq!(parse_timestamp("2262-04-11T23:47:16.854775807Z", Unit::Nanos, true), Ok(i64::MAX));
    }

    #[test]
    fn what_would_be_changed_in_silence_is_refused() {
        let millis = |text| parse_timestamp(text, Unit::Millis, true).unwrap_err();
        assert!(millis("2026-01-31T08:15:00.2501Z").contains("finer"));
        assert!(millis("2026-01-31T08:15:60Z").contains("leap"));
        assert!(millis("2026-02-29T08:15:00Z").contains("day"));
        assert!(millis("2026-13-01T08:15:00Z").contains("month"));
        assert!(millis("2026-01-31T08:15:00").contains("zone"));
        assert!(millis("2026-01-31T24:00:00Z").contains("time of day"));
        assert!(millis("2026-01-31").contains("time of day"));
        assert!(millis("2026-01-31T08:15:00Z ").contains("after"));
        assert!(millis("0001-01-01T00:00:00+01:00").contains("years"));
        assert!(parse_timestamp("2026-01-31T08:15:00Z", Unit::Millis, false).unwrap_err().contains("local"));
        assert!(parse_timestamp("2263-01-01T00:00:00Z", Unit::Nanos, true).unwrap_err().contains("years"));
        assert!(parse_date("2026-1-31").is_err() && parse_date("2026-01-31T").is_err() && parse_date("").is_err());
        assert!(!timestamp_in_range(i64::MAX, Unit::Millis) && timestamp_in_range(i64::MAX, Unit::Nanos));
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(millis in -62_135_596_800_000_i64..253_402_300_799_999) {
            let text = DateTime::from_timestamp_millis(millis).unwrap().to_rfc3339();
            prop_assert_eq!(parse_timestamp(&text, Unit::Millis, true), Ok(millis));
            prop_assert_eq!(parse_timestamp(&format_timestamp(millis, Unit::Millis, true), Unit::Millis, true), Ok(millis));
            let days = i32::try_from(millis.div_euclid(86_400_000)).unwrap();
            let date = NaiveDate::from_epoch_days(days).unwrap().to_string();
            prop_assert_eq!(parse_date(&date), Ok(days));
            prop_assert_eq!(format_date(days), date);
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}", shaped in "[0-9:TZ+. -]{0,40}") {
            for text in [text, shaped] {
                let _ = parse_date(&text);
                let _ = parse_time(&text, Unit::Micros);
                let _ = parse_timestamp(&text, Unit::Nanos, true);
            }
        }
    }
}
