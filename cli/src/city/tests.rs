//! The simulated city: deterministic, plausible, and bad exactly where it says so.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn config() -> CityConfig {
    CityConfig { bad_share: 0.02, ..CityConfig::default() }
}

#[test]
fn the_same_configuration_gives_the_same_events_and_another_seed_others() {
    let take = |config: &CityConfig| City::new(config).unwrap().take(20_000).collect::<Vec<_>>();
    let events = take(&config());
    assert!(events == take(&config()), "two runs of one seed differ");
    assert!(events != take(&CityConfig { seed: 2, ..config() }), "the seed has no effect");
    let later = take(&CityConfig { start_ms: config().start_ms + 3_600_000, ..config() });
    assert!(events != later, "the start has no effect");
}

#[test]
fn time_never_falls_and_starts_at_the_start() {
    let mut before = config().start_ms;
    for event in City::new(&config()).unwrap().take(30_000) {
        assert!(event.timestamp_ms >= before, "{} after {before}", event.timestamp_ms);
        before = event.timestamp_ms;
    }
    assert!(before > config().start_ms + 600_000);
}

#[test]
fn streams_are_split_as_promised_and_all_three_are_there() {
    let mut counts = BTreeMap::<CityStream, u32>::new();
    let total = 60_000;
    let mut bad = 0;
    for event in City::new(&config()).unwrap().take(total as usize) {
        *counts.entry(event.stream).or_default() += 1;
        bad += i32::from(event.is_bad());
    }
    let percent = |stream| counts[&stream] * 100 / total;
    assert!((50..75).contains(&percent(CityStream::Traffic)), "{counts:?}");
    assert!((25..45).contains(&percent(CityStream::Energy)), "{counts:?}");
    assert!((1..5).contains(&percent(CityStream::Emergency)), "{counts:?}");
    assert!((1_000..1_400).contains(&bad), "{bad} bad ones instead of about 1,200");
}

#[test]
fn devices_report_once_per_period_and_keys_name_them() {
    let mut seen = BTreeSet::new();
    let mut lanes = BTreeMap::<String, i32>::new();
    for event in City::new(&CityConfig { bad_share: 0.0, ..config() }).unwrap().take(40_000) {
        let Payload::Row(reading) = event.payload else { panic!("a bad record in a city without any: {event:?}") };
        match *reading {
            Reading::Traffic(flow) => {
                assert_eq!(event.key, flow.detector_id.as_bytes());
                assert!(seen.insert((flow.detector_id.clone(), flow.lane.to_string(), flow.measured_at)));
                let lane = lanes.entry(flow.detector_id).or_default();
                *lane = (*lane).max(flow.lane);
            }
            Reading::Energy(reading) => {
                assert_eq!(event.key, reading.meter_id.as_bytes());
                assert!(seen.insert((reading.meter_id, reading.flow_direction.to_owned(), reading.interval_start)));
                assert!(reading.interval_start + 1_800_000 <= event.timestamp_ms);
            }
            Reading::Emergency(message) => {
                assert_eq!(event.key, message.incident_id.as_bytes());
                assert!(seen.insert((message.message_id, String::new(), 0)));
                assert!((0..1000).contains(&(event.timestamp_ms - message.sent)));
            }
        }
    }
    assert_eq!(lanes.len(), 180, "each detector has reported");
}

#[test]
fn a_configuration_outside_its_limits_is_refused_by_key() {
    for (config, part) in [
        (CityConfig { detectors: DEVICES_MAX + 1, ..config() }, "detectors = 2000001"),
        (CityConfig { meters: u32::MAX, ..config() }, "meters"),
        (CityConfig { incidents_per_day: u32::MAX, ..config() }, "incidents_per_day"),
        (CityConfig { bad_share: 1.5, ..config() }, "bad_share = 1.5"),
        (CityConfig { bad_share: f64::NAN, ..config() }, "bad_share"),
        (CityConfig { start_ms: -1, ..config() }, "start_ms = -1"),
        (CityConfig { detectors: 0, meters: 0, incidents_per_day: 0, ..config() }, "no detectors"),
    ] {
        let text = City::new(&config).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}
