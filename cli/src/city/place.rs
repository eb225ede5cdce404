//! Where things are in the simulated city.
//!
//! The districts are invented; the coordinates lie around 55.95 N, 3.20 W so that a map has something to show.

use super::random::Random;

/// A point in a district of the city.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// The district's name.
    pub(super) district: &'static str,
    /// Three letters for the district in identifiers.
    pub(super) code: &'static str,
    /// WGS 84 degrees, five decimals (about a metre).
    pub(super) latitude: f64,
    /// WGS 84 degrees, five decimals.
    pub(super) longitude: f64,
}

#[derive(Debug, Clone, Copy)]
struct District {
    name: &'static str,
    code: &'static str,
    latitude: f64,
    longitude: f64,
    /// How much of the city's life happens here, in relation to the others.
    weight: f64,
}

const fn district(name: &'static str, code: &'static str, north: f64, east: f64, weight: f64) -> District {
    District { name, code, latitude: 55.95 + north * 0.01, longitude: -3.20 + east * 0.018, weight }
}

const DISTRICTS: [District; 10] = [
    district("Old Market", "OLD", 0.0, 0.0, 3.0),
    district("Harbour", "HAR", 2.4, 1.1, 2.0),
    district("Foundry Quarter", "FOU", 0.6, -1.4, 1.6),
    district("University", "UNI", -1.0, 0.5, 1.8),
    district("Northgate", "NOR", 3.1, -0.6, 1.2),
    district("Westfield", "WES", 0.2, -3.2, 1.1),
    district("Stadium", "STA", -0.5, -2.1, 0.9),
    district("Kiln Hill", "KIL", -2.6, -0.4, 0.9),
    district("Eastmoor", "EAS", 0.4, 3.0, 1.0),
    district("Airport", "AIR", 0.9, -5.6, 0.5),
];

/// A place in a district that is chosen by weight.
pub(super) fn any_place(random: &mut Random) -> Place {
    let total: f64 = DISTRICTS.iter().map(|district| district.weight).sum();
    let mut left = random.between(0.0, total);
    let mut chosen = DISTRICTS[0];
    for district in DISTRICTS {
        left -= district.weight;
        if left < 0.0 {
            chosen = district;
            break;
        }
    }
    Place {
        district: chosen.name,
        code: chosen.code,
        latitude: rounded(chosen.latitude + 0.006 * random.normal(), 5),
        longitude: rounded(chosen.longitude + 0.010 * random.normal(), 5),
    }
}

/// `value` rounded to `decimals` places.
pub(super) fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_in_the_city_and_busy_districts_come_up_more() {
        let mut random = Random::new(1, "place");
        let mut old = 0;
        let mut airport = 0;
        for _ in 0..4000 {
            let place = any_place(&mut random);
            assert!((55.8..56.1).contains(&place.latitude), "{place:?}");
            assert!((-3.5..-3.0).contains(&place.longitude), "{place:?}");
            old += i32::from(place.code == "OLD");
            airport += i32::from(place.district == "Airport");
        }
        assert!(old > 3 * airport && airport > 0, "{old} {airport}");
        assert_eq!(rounded(1.23456, 2), 1.23);
    }
}
