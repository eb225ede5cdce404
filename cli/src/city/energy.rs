//! Smart meters: half-hourly load by kind of customer, heating, sunshine on the roof, and a register that never falls.

use serde::Serialize;

use super::clock::{DayCurve, Second, Weather};
use super::place::{any_place, rounded};
use super::random::Random;

/// Seconds that one reading covers.
pub(super) const INTERVAL_S: i64 = 1800;

/// Thirty minutes, delta, forward, electricity, energy, Wh (IEC 61968-9, annex C).
const READING_TYPE_FORWARD: &str = "0.0.5.4.1.1.12.0.0.0.0.0.0.0.0.0.72.0";
/// The same with flow direction 19, reverse.
const READING_TYPE_REVERSE: &str = "0.0.5.4.19.1.12.0.0.0.0.0.0.0.0.0.72.0";

/// A record of `energy.meter_reading`; fields, units and order are those of the schema.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MeterReading {
    /// Meter.
    pub(crate) meter_id: String,
    /// Pseudonymous connection point.
    pub(crate) usage_point_id: String,
    /// Milliseconds since 1970.
    pub(crate) interval_start: i64,
    /// Seconds.
    pub(crate) interval_s: i32,
    /// IEC 61968-9 reading type.
    pub(crate) reading_type: &'static str,
    /// `forward` or `reverse`.
    pub(crate) flow_direction: &'static str,
    /// Watt hours in the interval.
    pub(crate) energy_wh: Option<i64>,
    /// Watt hours since the meter was built in.
    pub(crate) register_wh: Option<i64>,
    /// Volts.
    pub(crate) voltage_v: Option<f64>,
    /// `valid`, `estimated`, `questionable` or `raw`.
    pub(crate) quality: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Customer {
    /// Share of all meters.
    share: f64,
    /// Mean power at 1.0 of the curve, watts.
    scale_w: f64,
    working_day: DayCurve,
    weekend: DayCurve,
    /// Watts per degree below 14 °C.
    heating_w: f64,
    solar_chance: f64,
}

const HOME_WORKING: DayCurve = DayCurve([
    0.30, 0.26, 0.24, 0.23, 0.24, 0.30, 0.55, 0.85, 0.75, 0.52, 0.45, 0.46, 0.52, 0.50, 0.47, 0.52, 0.72, 1.05, 1.25,
    1.20, 1.05, 0.88, 0.62, 0.42,
]);
const HOME_WEEKEND: DayCurve = DayCurve([
    0.36, 0.30, 0.27, 0.25, 0.25, 0.27, 0.35, 0.52, 0.75, 0.92, 0.95, 0.96, 1.00, 0.92, 0.84, 0.82, 0.92, 1.10, 1.22,
    1.15, 1.00, 0.88, 0.68, 0.48,
]);
const SHOP: DayCurve = DayCurve([
    0.22, 0.21, 0.20, 0.20, 0.21, 0.25, 0.40, 0.70, 0.95, 1.05, 1.10, 1.12, 1.12, 1.12, 1.10, 1.08, 1.05, 1.00, 0.85,
    0.65, 0.45, 0.33, 0.27, 0.24,
]);
const PLANT: DayCurve = DayCurve([
    0.80, 0.80, 0.79, 0.79, 0.80, 0.86, 1.00, 1.04, 1.05, 1.05, 1.05, 1.04, 1.00, 1.03, 1.05, 1.02, 0.97, 0.92, 0.88,
    0.86, 0.85, 0.84, 0.82, 0.81,
]);

const CUSTOMERS: [Customer; 4] = [
    Customer {
        share: 0.70,
        scale_w: 480.0,
        working_day: HOME_WORKING,
        weekend: HOME_WEEKEND,
        heating_w: 12.0,
        solar_chance: 0.10,
    },
    Customer {
        share: 0.18,
        scale_w: 520.0,
        working_day: HOME_WORKING,
        weekend: HOME_WEEKEND,
        heating_w: 110.0,
        solar_chance: 0.30,
    },
    Customer { share: 0.11, scale_w: 4_500.0, working_day: SHOP, weekend: SHOP, heating_w: 90.0, solar_chance: 0.08 },
    Customer { share: 0.01, scale_w: 60_000.0, working_day: PLANT, weekend: PLANT, heating_w: 0.0, solar_chance: 0.05 },
];

/// One meter.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    id: String,
    usage_point: String,
    customer: Customer,
    /// How much this customer uses in relation to others of its kind.
    size: f64,
    /// Watts of panels on the roof; 0 without.
    solar_w: f64,
    forward_wh: i64,
    reverse_wh: i64,
    /// Second after the end of an interval at which its reading arrives.
    pub(super) phase: i64,
    random: Random,
}

impl Meter {
    /// The `index`th meter of the city `seed`.
    pub(super) fn new(seed: u64, index: u32) -> Self {
        let mut random = Random::new(seed, &format!("meter {index}"));
        let place = any_place(&mut random);
        let customer = customer(&mut random);
        let solar = random.chance(customer.solar_chance);
        let size = random.between(0.5, 1.7);
        Self {
            id: format!("MTR-{index:07}"),
            usage_point: format!("UP-{}-{:08x}", place.code, random.below(1 << 32)),
            customer,
            size,
            solar_w: if solar { customer.scale_w * random.between(6.0, 11.0) } else { 0.0 },
            forward_wh: random.below(40_000_000) as i64,
            reverse_wh: if solar { random.below(9_000_000) as i64 } else { 0 },
            phase: random.below(INTERVAL_S as usize) as i64,
            random,
        }
    }

    /// Whether it also sends readings of what goes back into the grid.
    #[cfg(test)]
    pub(super) fn has_solar(&self) -> bool {
        self.solar_w > 0.0
    }

    /// The readings of the interval that begins at `start`: forward, and reverse where there are panels.
    pub(super) fn read(&mut self, start: Second, weather: Weather, out: &mut Vec<MeterReading>) {
        let net_w = self.load_w(start, weather) - self.solar_w * weather.sun * self.random.between(0.85, 1.0);
        let hours = INTERVAL_S as f64 / 3600.0;
        let forward = (net_w.max(0.0) * hours).round() as i64;
        let reverse = ((-net_w).max(0.0) * hours).round() as i64;
        self.forward_wh = self.forward_wh.saturating_add(forward);
        self.reverse_wh = self.reverse_wh.saturating_add(reverse);
        let voltage = rounded(231.0 - 4.0 * self.size + 1.5 * self.random.normal(), 1);
        let quality = self.quality();
        let reading = |reading_type, flow_direction, energy: i64, register: i64| MeterReading {
            meter_id: self.id.clone(),
            usage_point_id: self.usage_point.clone(),
            interval_start: start.millis(),
            interval_s: INTERVAL_S as i32,
            reading_type,
            flow_direction,
            energy_wh: Some(energy),
            register_wh: Some(register),
            voltage_v: (quality == "valid").then_some(voltage),
            quality,
        };
        out.push(reading(READING_TYPE_FORWARD, "forward", forward, self.forward_wh));
        if self.solar_w > 0.0 {
            out.push(reading(READING_TYPE_REVERSE, "reverse", reverse, self.reverse_wh));
        }
    }

    fn load_w(&mut self, start: Second, weather: Weather) -> f64 {
        let curve = if start.is_weekend() { &self.customer.weekend } else { &self.customer.working_day };
        let habit = self.customer.scale_w * self.size * curve.at(start.hour());
        let heating = self.customer.heating_w * self.size * (14.0 - weather.temperature).max(0.0);
        // Now and then a kettle, an oven or a car charges through the whole half hour.
        let appliance =
            if self.random.chance(0.06) { self.customer.scale_w * self.random.between(1.0, 4.0) } else { 0.0 };
        (habit * (1.0 + 0.2 * self.random.normal()) + heating + appliance).max(0.0)
    }

    fn quality(&mut self) -> &'static str {
        match self.random.unit() {
            x if x < 0.008 => "estimated",
            x if x < 0.010 => "questionable",
            _ => "valid",
        }
    }
}

fn customer(random: &mut Random) -> Customer {
    let mut left = random.unit();
    for customer in CUSTOMERS {
        left -= customer.share;
        if left < 0.0 {
            return customer;
        }
    }
    CUSTOMERS[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-06-01T00:00:00Z, a Monday.
    const MONDAY: Second = Second(1_780_272_000);

    fn readings(meter: &mut Meter, days: i64) -> Vec<MeterReading> {
        let mut out = Vec::new();
        for interval in 0..days * 48 {
            let start = MONDAY.plus(interval * INTERVAL_S);
            meter.read(start, Weather::at(1, start), &mut out);
        }
        out
    }

    #[test]
    fn the_register_is_the_running_sum_of_the_intervals() {
        for index in 0..200 {
            let mut meter = Meter::new(9, index);
            let (mut forward, mut reverse) = (meter.forward_wh, meter.reverse_wh);
            for reading in readings(&mut meter, 2) {
                let register = if reading.flow_direction == "forward" { &mut forward } else { &mut reverse };
                assert!(reading.energy_wh.unwrap() >= 0);
                *register += reading.energy_wh.unwrap();
                assert_eq!(reading.register_wh, Some(*register));
                assert_eq!(reading.interval_start % 1_800_000, 0);
            }
        }
    }

    #[test]
    fn evenings_cost_more_than_nights_and_panels_feed_in_at_noon_alone() {
        let (mut night, mut evening, mut fed_at_noon, mut fed_at_night) = (0, 0, 0, 0);
        for index in 0..400 {
            let mut meter = Meter::new(9, index);
            let solar = meter.has_solar();
            let day = readings(&mut meter, 1);
            assert_eq!(day.len(), if solar { 96 } else { 48 });
            for reading in day {
                let interval = (reading.interval_start - MONDAY.millis()) / 1_800_000;
                let energy = reading.energy_wh.unwrap();
                match (reading.flow_direction, interval) {
                    ("forward", 4..8) => night += energy,
                    ("forward", 36..40) => evening += energy,
                    ("reverse", 22..28) => fed_at_noon += energy,
                    ("reverse", 0..6 | 44..48) => fed_at_night += energy,
                    _ => {}
                }
            }
        }
        assert!(evening > night * 3 / 2, "{evening} {night}");
        assert!(fed_at_noon > 0);
        assert_eq!(fed_at_night, 0);
    }
}
