//! Traffic detectors: demand by hour, weather and direction; queues where demand exceeds what the road carries.
//!
//! Each lane is a point queue. Below capacity the speed falls slowly with the load; above it the surplus waits, the
//! flow drops to the discharge rate and the speed collapses until the queue is gone. A crash nearby (from
//! [`super::emergency`]) takes capacity away while it is open, so that the two streams tell the same story.

use serde::Serialize;

use super::clock::{DayCurve, Second, Weather};
use super::place::{Place, any_place, rounded};
use super::random::Random;

/// Seconds that one measurement covers; each detector reports this often.
pub(super) const PERIOD_S: i64 = 60;

/// A record of `traffic.flow`; fields, units and order are those of the schema.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TrafficFlow {
    /// Measurement site.
    pub(crate) detector_id: String,
    /// From 1.
    pub(crate) lane: i32,
    /// End of the period, milliseconds since 1970.
    pub(crate) measured_at: i64,
    /// Seconds.
    pub(crate) period_s: i32,
    /// Road name.
    pub(crate) road: Option<String>,
    /// WGS 84 degrees.
    pub(crate) latitude: Option<f64>,
    /// WGS 84 degrees.
    pub(crate) longitude: Option<f64>,
    /// Vehicles in the period.
    pub(crate) vehicle_count: Option<i32>,
    /// Vehicles per hour.
    pub(crate) flow_vehicles_per_hour: Option<i32>,
    /// Percent.
    pub(crate) long_vehicles_percent: Option<f64>,
    /// Kilometres per hour.
    pub(crate) speed_km_per_hour: Option<f64>,
    /// Percent.
    pub(crate) occupancy_percent: Option<f64>,
    /// Seconds.
    pub(crate) headway_s: Option<f64>,
    /// DATEX II `TrafficStatusEnum`.
    pub(crate) traffic_status: Option<&'static str>,
    /// The detector does not trust itself.
    pub(crate) data_error: bool,
}

/// What kind of road a detector lies on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct RoadClass {
    prefix: &'static str,
    free_flow_km_per_hour: f64,
    capacity_per_lane: f64,
    lanes: i32,
    /// Demand at the top of the curve, as a share of capacity.
    peak_load: f64,
    long_vehicles_percent: f64,
}

const ROADS: [RoadClass; 4] = [
    road("Ring Road", 100.0, 2000.0, 3, 1.04, 14.0),
    road("Radial", 70.0, 1700.0, 2, 1.02, 9.0),
    road("Main Street", 50.0, 1000.0, 2, 0.92, 6.0),
    road("Side Street", 30.0, 600.0, 1, 0.55, 3.0),
];

const fn road(
    prefix: &'static str,
    free_flow_km_per_hour: f64,
    capacity_per_lane: f64,
    lanes: i32,
    peak_load: f64,
    long_vehicles_percent: f64,
) -> RoadClass {
    RoadClass { prefix, free_flow_km_per_hour, capacity_per_lane, lanes, peak_load, long_vehicles_percent }
}

/// Share of peak demand into the city on a working day.
const INBOUND: DayCurve = DayCurve([
    0.07, 0.05, 0.04, 0.04, 0.07, 0.20, 0.55, 0.95, 1.00, 0.78, 0.62, 0.60, 0.62, 0.63, 0.62, 0.66, 0.72, 0.74, 0.60,
    0.43, 0.32, 0.25, 0.19, 0.12,
]);
/// Out of the city on a working day.
const OUTBOUND: DayCurve = DayCurve([
    0.10, 0.06, 0.05, 0.04, 0.06, 0.12, 0.30, 0.52, 0.58, 0.54, 0.54, 0.58, 0.63, 0.66, 0.72, 0.86, 0.99, 1.00, 0.78,
    0.54, 0.40, 0.32, 0.25, 0.16,
]);
/// Either way on a Saturday or Sunday.
const WEEKEND: DayCurve = DayCurve([
    0.16, 0.11, 0.08, 0.06, 0.05, 0.06, 0.10, 0.17, 0.27, 0.42, 0.56, 0.64, 0.68, 0.67, 0.64, 0.62, 0.60, 0.56, 0.50,
    0.42, 0.34, 0.28, 0.24, 0.20,
]);

/// Metres of road that a passing vehicle occupies, its own length and the detector's.
const EFFECTIVE_LENGTH_M: f64 = 6.5;

/// One detector site with all its lanes.
#[derive(Debug, Clone)]
pub(super) struct Site {
    id: String,
    road: String,
    class: RoadClass,
    inbound: bool,
    place: Place,
    /// Second within the period at which it reports.
    pub(super) phase: i64,
    /// How busy this site is in relation to others of its class.
    popularity: f64,
    /// Slow random deviation of demand, a factor around 1.
    mood: f64,
    /// Vehicles waiting per lane.
    queue: f64,
    faulty_until: Second,
    /// Open crashes near it.
    crashes: u32,
    random: Random,
}

impl Site {
    /// The `index`th detector of the city `seed`.
    pub(super) fn new(seed: u64, index: u32) -> Self {
        let mut random = Random::new(seed, &format!("detector {index}"));
        let place = any_place(&mut random);
        let class = ROADS[random.below(ROADS.len())];
        let number = 1 + random.below(40);
        Self {
            id: format!("DET-{}-{index:05}", place.code),
            road: format!("{} {number}", class.prefix),
            class,
            inbound: random.chance(0.5),
            place,
            phase: random.below(PERIOD_S as usize) as i64,
            popularity: random.between(0.75, 1.08),
            mood: 1.0,
            queue: 0.0,
            faulty_until: Second(i64::MIN),
            crashes: 0,
            random,
        }
    }

    /// How many lanes, and so records in each period, it has.
    #[cfg(test)]
    pub(super) fn lanes(&self) -> i32 {
        self.class.lanes
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn crash_begins(&mut self) {
        self.crashes = self.crashes.saturating_add(1);
    }

    pub(super) fn crash_ends(&mut self) {
        self.crashes = self.crashes.saturating_sub(1);
    }

    /// Measures the period that ends at `now`: one record for each lane.
    pub(super) fn measure(&mut self, now: Second, weather: Weather, out: &mut Vec<TrafficFlow>) {
        let flow = self.step(now, weather);
        if self.faulty_until < now && self.random.chance(0.000_1) {
            self.faulty_until = now.plus(600 + self.random.below(7200) as i64);
        }
        let faulty = now <= self.faulty_until;
        for lane in 1..=self.class.lanes {
            let record = if faulty { self.silent(lane, now) } else { self.lane(lane, now, flow) };
            out.push(record);
        }
    }

    /// Advances demand and queue by one period; gives flow per lane and speed.
    fn step(&mut self, now: Second, weather: Weather) -> Flow {
        let curve = match (now.is_weekend(), self.inbound) {
            (true, _) => &WEEKEND,
            (false, true) => &INBOUND,
            (false, false) => &OUTBOUND,
        };
        self.mood = (self.mood + 0.08 * (1.0 - self.mood) + 0.025 * self.random.normal()).clamp(0.6, 1.4);
        let busy = curve.at(now.hour()) * self.class.peak_load * self.popularity * self.mood;
        let demand = self.class.capacity_per_lane * busy * (1.0 + 0.04 * weather.rain);
        let blocked = match self.crashes {
            0 => 1.0,
            1 => 0.35,
            _ => 0.15,
        };
        let capacity = self.class.capacity_per_lane * (1.0 - 0.12 * weather.rain) * blocked;
        let free = self.class.free_flow_km_per_hour * (1.0 - 0.10 * weather.rain);
        let hours = PERIOD_S as f64 / 3600.0;
        if self.queue > 0.0 || demand > capacity {
            let discharge = 0.94 * capacity;
            let held = (self.queue + (demand - discharge) * hours).max(0.0);
            // Drivers who see a long queue take another way, so it does not grow for ever.
            self.queue = held.min(120.0);
            let slowness = 0.62 - 0.54 * (self.queue / 120.0);
            return Flow { per_lane: discharge.min(demand + self.queue / hours), speed: free * slowness };
        }
        let load = demand / capacity;
        let squared = load * load;
        Flow { per_lane: demand, speed: free / (1.0 + 0.18 * squared * squared) }
    }

    fn lane(&mut self, lane: i32, now: Second, flow: Flow) -> TrafficFlow {
        // Slow traffic keeps to lane 1, the lanes further in carry more and faster cars.
        let inner = f64::from(lane - 1);
        let share = 0.9 + 0.1 * inner.min(2.0);
        let expected = flow.per_lane * share * PERIOD_S as f64 / 3600.0;
        let count = (expected + expected.sqrt() * self.random.normal()).round().max(0.0);
        let per_hour = count * 3600.0 / PERIOD_S as f64;
        let speed = (flow.speed * (0.96 + 0.05 * inner) * (1.0 + 0.03 * self.random.normal())).max(1.0);
        let density = per_hour / speed;
        let long = (self.class.long_vehicles_percent / (1.0 + inner) * (1.0 + 0.3 * self.random.normal())).max(0.0);
        let moving = count > 0.0;
        TrafficFlow {
            vehicle_count: Some(count as i32),
            flow_vehicles_per_hour: Some(per_hour as i32),
            long_vehicles_percent: moving.then(|| rounded(long.min(100.0), 1)),
            speed_km_per_hour: moving.then(|| rounded(speed, 1)),
            occupancy_percent: Some(rounded((density * EFFECTIVE_LENGTH_M / 10.0).min(100.0), 1)),
            headway_s: moving.then(|| rounded(PERIOD_S as f64 / count, 2)),
            traffic_status: Some(self.status(flow)),
            data_error: false,
            ..self.silent(lane, now)
        }
    }

    /// What a faulty detector sends: where and when it is, no values, and that it is faulty.
    fn silent(&self, lane: i32, now: Second) -> TrafficFlow {
        TrafficFlow {
            detector_id: self.id.clone(),
            lane,
            measured_at: now.millis(),
            period_s: PERIOD_S as i32,
            road: Some(self.road.clone()),
            latitude: Some(self.place.latitude),
            longitude: Some(self.place.longitude),
            vehicle_count: None,
            flow_vehicles_per_hour: None,
            long_vehicles_percent: None,
            speed_km_per_hour: None,
            occupancy_percent: None,
            headway_s: None,
            traffic_status: Some("unknown"),
            data_error: true,
        }
    }

    /// The thresholds of DATEX II's `TrafficStatusEnum`: 10, 25 and 75 percent of the free-flow speed.
    fn status(&self, flow: Flow) -> &'static str {
        let ratio = flow.speed / self.class.free_flow_km_per_hour;
        match ratio {
            ratio if ratio < 0.10 => "stationary",
            ratio if ratio < 0.25 => "queuing",
            ratio if ratio < 0.75 => "slow",
            _ if flow.per_lane > 0.8 * self.class.capacity_per_lane => "heavy",
            _ => "freeFlow",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    /// Vehicles per hour and lane.
    per_lane: f64,
    /// Kilometres per hour.
    speed: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::clock::DAY_S;

    /// 2026-06-01T00:00:00Z, a Monday.
    const MONDAY: Second = Second(1_780_272_000);
    const DRY: Weather = Weather { rain: 0.0, temperature: 15.0, sun: 0.5 };

    fn day(site: &mut Site, from: Second) -> Vec<TrafficFlow> {
        let mut records = Vec::new();
        for minute in 1..=DAY_S / PERIOD_S {
            site.measure(from.plus(minute * PERIOD_S), DRY, &mut records);
        }
        records
    }

    fn vehicles(records: &[TrafficFlow], from_hour: i64, to_hour: i64) -> i32 {
        let hour = |record: &TrafficFlow| (record.measured_at - MONDAY.millis()) / 3_600_000;
        records.iter().filter(|r| (from_hour..to_hour).contains(&hour(r))).filter_map(|r| r.vehicle_count).sum()
    }

    #[test]
    fn a_working_day_has_its_peaks_by_direction() {
        for index in 0..20 {
            let mut site = Site::new(3, index);
            let records = day(&mut site, MONDAY);
            assert_eq!(records.len() as i64, 1440 * i64::from(site.lanes()));
            let (night, morning) = (vehicles(&records, 2, 4), vehicles(&records, 7, 9));
            assert!(morning > 4 * night, "{} {morning} {night}", site.id);
            let quiet = vehicles(&records, 20, 22);
            assert!(morning.max(vehicles(&records, 16, 18)) > 2 * quiet, "{}", site.id);
        }
    }

    #[test]
    fn values_agree_with_each_other_and_with_their_limits() {
        let mut slow = 0;
        for index in 0..20 {
            let mut site = Site::new(4, index);
            for record in day(&mut site, MONDAY) {
                if record.data_error {
                    assert_eq!(record.vehicle_count, None);
                    assert_eq!(record.traffic_status, Some("unknown"));
                    continue;
                }
                let count = record.vehicle_count.unwrap();
                assert_eq!(record.flow_vehicles_per_hour, Some(count * 60));
                assert!((0.0..=100.0).contains(&record.occupancy_percent.unwrap()), "{record:?}");
                assert_eq!(record.speed_km_per_hour.is_some(), count > 0, "{record:?}");
                assert!(record.speed_km_per_hour.unwrap_or(1.0) < 140.0, "{record:?}");
                slow += i32::from(record.traffic_status == Some("slow"));
            }
        }
        assert!(slow > 0, "no site was congested on a whole working day");
    }

    #[test]
    fn a_crash_slows_the_traffic_until_it_is_cleared() {
        let mut site = Site::new(5, 1);
        let noon = MONDAY.plus(DAY_S / 2);
        let mean_speed = |site: &mut Site, from: i64| {
            let mut records = Vec::new();
            (0..30).for_each(|minute| site.measure(noon.plus((from + minute) * 60), DRY, &mut records));
            let speeds: Vec<f64> = records.iter().filter_map(|r| r.speed_km_per_hour).collect();
            speeds.iter().sum::<f64>() / speeds.len() as f64
        };
        let before = mean_speed(&mut site, 0);
        site.crash_begins();
        site.crash_begins();
        let during = mean_speed(&mut site, 30);
        site.crash_ends();
        site.crash_ends();
        mean_speed(&mut site, 60);
        let after = mean_speed(&mut site, 150);
        assert!(during < 0.7 * before, "{before} {during}");
        assert!(after > 0.85 * before, "{before} {after}");
    }
}
