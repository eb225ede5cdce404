//! The city's time and weather: hour curves, weekdays, seasons, rain and temperature.
//!
//! City time is UTC without daylight saving. All curves are piecewise linear, so that they are the same on any machine.

use super::random::fixed;

const HOUR_S: i64 = 3600;
/// Seconds in a day.
pub(super) const DAY_S: i64 = 24 * HOUR_S;
/// Rain comes and goes in blocks of this length.
const RAIN_BLOCK_S: i64 = 2 * HOUR_S;

/// A second of city time, counted from 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Second(pub(super) i64);

impl Second {
    /// Milliseconds since 1970.
    pub(super) fn millis(self) -> i64 {
        self.0.saturating_mul(1000)
    }

    /// This second plus `seconds`.
    pub(super) fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Hour of the day with its fraction, `0.0..24.0`.
    pub(super) fn hour(self) -> f64 {
        self.0.rem_euclid(DAY_S) as f64 / HOUR_S as f64
    }

    /// Whether it is a Saturday or a Sunday.
    pub(super) fn is_weekend(self) -> bool {
        // 1970-01-01 was a Thursday; counted from Monday it was day 3.
        (self.0.div_euclid(DAY_S) + 3).rem_euclid(7) >= 5
    }

    /// 0.0 at midwinter, 1.0 at midsummer (northern hemisphere).
    fn summer(self) -> f64 {
        let day_of_year = self.0.div_euclid(DAY_S).rem_euclid(365) as f64;
        let from_midwinter = (day_of_year + 10.0) % 365.0;
        1.0 - (from_midwinter - 182.5).abs() / 182.5
    }

    /// `YYYYMMDD` of the day, for identifiers.
    pub(super) fn day_text(self) -> String {
        chrono::DateTime::from_timestamp(self.0, 0)
            .map_or_else(|| "00000000".to_owned(), |time| time.format("%Y%m%d").to_string())
    }
}

/// A value for each full hour of the day, straight lines between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct DayCurve(pub(super) [f64; 24]);

impl DayCurve {
    /// The value at `hour` (`0.0..24.0`).
    pub(super) fn at(&self, hour: f64) -> f64 {
        let from = hour.floor();
        let index = (from as usize) % 24;
        let next = (index + 1) % 24;
        self.0[index] + (self.0[next] - self.0[index]) * (hour - from)
    }
}

/// The weather at one moment, the same everywhere in the city.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weather {
    /// 0.0 dry to 1.0 heavy rain.
    pub(super) rain: f64,
    /// Degrees Celsius.
    pub(super) temperature: f64,
    /// 0.0 at night to 1.0 at noon of a clear midsummer day.
    pub(super) sun: f64,
}

impl Weather {
    /// The weather of the city `seed` at `now`.
    pub(super) fn at(seed: u64, now: Second) -> Self {
        let block = now.0.div_euclid(RAIN_BLOCK_S);
        let into = now.0.rem_euclid(RAIN_BLOCK_S) as f64 / RAIN_BLOCK_S as f64;
        let rain = blend(rain_of(seed, block), rain_of(seed, block + 1), into);
        let summer = now.summer();
        let day = now.0.div_euclid(DAY_S);
        let of_day = blend(fixed(seed ^ 1, day), fixed(seed ^ 1, day + 1), now.hour() / 24.0) - 0.5;
        let daily = 1.0 - (now.hour() - 15.0).abs().min(24.0 - (now.hour() - 15.0).abs()) / 12.0;
        let half_day = 4.0 + 4.5 * summer;
        let height = (1.0 - (now.hour() - 12.0).abs() / half_day).max(0.0);
        Self {
            rain,
            temperature: 1.0 + 15.0 * summer + 8.0 * of_day + 6.0 * (daily - 0.5) - 2.0 * rain,
            sun: height * (0.35 + 0.65 * summer) * (1.0 - 0.75 * rain),
        }
    }
}

fn rain_of(seed: u64, block: i64) -> f64 {
    let chance = fixed(seed, block);
    if chance < 0.22 { 0.3 + 0.7 * fixed(seed ^ 2, block) } else { 0.0 }
}

fn blend(from: f64, to: f64, share: f64) -> f64 {
    from + (to - from) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-31T00:00:00Z, a Saturday.
    const SATURDAY: Second = Second(1_769_817_600);

    #[test]
    fn the_calendar_is_right() {
        assert_eq!(SATURDAY.day_text(), "20260131");
        assert!(SATURDAY.is_weekend());
        assert!(SATURDAY.plus(DAY_S).is_weekend());
        assert!(!SATURDAY.plus(2 * DAY_S).is_weekend());
        assert!(!SATURDAY.plus(-1).is_weekend());
        assert_eq!(SATURDAY.plus(5400).hour(), 1.5);
        assert_eq!(SATURDAY.millis(), 1_769_817_600_000);
    }

    #[test]
    fn a_curve_is_straight_between_hours_and_closes_at_midnight() {
        let mut values = [0.0; 24];
        values[23] = 10.0;
        values[0] = 20.0;
        let curve = DayCurve(values);
        assert_eq!(curve.at(23.0), 10.0);
        assert_eq!(curve.at(23.5), 15.0);
        assert_eq!(curve.at(0.5), 10.0);
    }

    #[test]
    fn weather_is_plausible_for_a_year_and_has_no_jumps() {
        let mut rainy = 0;
        let mut before = Weather::at(5, SATURDAY);
        let (mut coldest, mut warmest) = (f64::MAX, f64::MIN);
        for step in 1..=365 * 24 * 4 {
            let now = SATURDAY.plus(step * 900);
            let weather = Weather::at(5, now);
            assert!((0.0..=1.0).contains(&weather.rain), "{weather:?}");
            assert!((0.0..=1.0).contains(&weather.sun), "{weather:?}");
            assert!((weather.temperature - before.temperature).abs() < 3.0, "{before:?} {weather:?}");
            if now.hour() < 3.0 {
                assert_eq!(weather.sun, 0.0);
            }
            rainy += i32::from(weather.rain > 0.2);
            coldest = coldest.min(weather.temperature);
            warmest = warmest.max(weather.temperature);
            before = weather;
        }
        let share = f64::from(rainy) / (365.0 * 96.0);
        assert!((0.1..0.5).contains(&share), "rains {share} of the year");
        assert!(coldest < 0.0 && warmest > 18.0, "{coldest} {warmest}");
    }
}
