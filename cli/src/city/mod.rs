//! A simulated city: what `cairn simulate` and `cairn demo` publish.
//!
//! ```text
//!                 ┌─ weather ──────┬───────────────┐
//!                 ▼                ▼               ▼
//! seed, start ─▶ traffic      smart meters    emergencies ──crash──▶ traffic
//!                 │ 60 s           │ 30 min        │ life cycle
//!                 └────────────────┴───────┬───────┘
//!                                          ▼
//!                             a share of bad records ─▶ events in city time
//! ```
//!
//! [`City`] is an endless iterator of [`Event`]s and pure: no clock, no I/O, no global randomness. The same
//! [`CityConfig`] gives the same events on any machine. [`drive`] plays it at a target rate into any sink.
//!
//! City time is not wall time. A city of the default size says about ten records in a second of its time; at a rate of
//! 500 records/s its day passes in half an hour.

mod clock;
mod driver;
mod emergency;
mod energy;
mod fault;
mod place;
mod random;
mod record;
mod traffic;

use std::collections::VecDeque;

use anyhow::{Result, ensure};

pub(crate) use driver::{Drive, Stamp, Tally, drive};
pub(crate) use emergency::IncidentMessage;
pub(crate) use energy::MeterReading;
pub(crate) use record::CityEncoder;
pub(crate) use traffic::TrafficFlow;

use clock::{Second, Weather};
use emergency::{ControlRoom, Effect};
use energy::{INTERVAL_S, Meter};
use place::Place;
use random::Random;
use traffic::{PERIOD_S, Site};

/// Detectors and meters a city may have: each costs some hundred bytes.
const DEVICES_MAX: u32 = 2_000_000;
/// Incidents in a day: about twelve a second.
const INCIDENTS_PER_DAY_MAX: u32 = 1_000_000;

/// What city to simulate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CityConfig {
    /// The same seed and start give the same events.
    pub(crate) seed: u64,
    /// When city time begins, milliseconds since 1970; rounded down to a second.
    pub(crate) start_ms: i64,
    /// Traffic detector sites, 0 to 2,000,000; each has 1 to 3 lanes and reports every minute.
    pub(crate) detectors: u32,
    /// Smart meters, 0 to 2,000,000; each reports every half hour.
    pub(crate) meters: u32,
    /// Incidents in a day, 0 to 1,000,000; each has 3 to 10 messages.
    pub(crate) incidents_per_day: u32,
    /// Share of records that cannot be decoded, 0.0 to 1.0.
    pub(crate) bad_share: f64,
}

impl Default for CityConfig {
    /// About 60 % traffic, 38 % energy, 2 % emergency; one record in two hundred is bad.
    fn default() -> Self {
        Self {
            seed: 1,
            start_ms: 1_780_293_600_000, // Monday, 2026-06-01T06:00:00Z: the day's first peak is an hour off.
            detectors: 180,
            meters: 6_000,
            incidents_per_day: 6_000,
            bad_share: 0.005,
        }
    }
}

impl CityConfig {
    fn check(&self) -> Result<()> {
        let years = 9_000 * 365 * 86_400_000;
        ensure!(
            (0..=years).contains(&self.start_ms),
            "start_ms = {}: allowed are 0 to {years} (milliseconds since 1970)",
            self.start_ms
        );
        ensure!(self.detectors <= DEVICES_MAX, "detectors = {}: allowed are 0 to {DEVICES_MAX}", self.detectors);
        ensure!(self.meters <= DEVICES_MAX, "meters = {}: allowed are 0 to {DEVICES_MAX}", self.meters);
        ensure!(
            self.incidents_per_day <= INCIDENTS_PER_DAY_MAX,
            "incidents_per_day = {}: allowed are 0 to {INCIDENTS_PER_DAY_MAX}",
            self.incidents_per_day
        );
        ensure!(
            self.detectors > 0 || self.meters > 0 || self.incidents_per_day > 0,
            "the city has no detectors, no meters and no incidents: at least one of them has to be above 0"
        );
        ensure!((0.0..=1.0).contains(&self.bad_share), "bad_share = {}: allowed are 0.0 to 1.0", self.bad_share);
        Ok(())
    }
}

/// One of the three built-in streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CityStream {
    /// `traffic.flow`
    Traffic,
    /// `energy.meter_reading`
    Energy,
    /// `emergency.incident`
    Emergency,
}

impl CityStream {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Traffic, Self::Energy, Self::Emergency];

    /// The stream's name on the chain and in SQL.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic.flow",
            Self::Energy => "energy.meter_reading",
            Self::Emergency => "emergency.incident",
        }
    }

    /// Position in [`Self::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Traffic => 0,
            Self::Energy => 1,
            Self::Emergency => 2,
        }
    }
}

/// What a device or control room says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reading {
    /// Of `traffic.flow`.
    Traffic(TrafficFlow),
    /// Of `energy.meter_reading`.
    Energy(MeterReading),
    /// Of `emergency.incident`.
    Emergency(IncidentMessage),
}

impl Reading {
    /// The stream it belongs to.
    pub(crate) const fn stream(&self) -> CityStream {
        match self {
            Self::Traffic(_) => CityStream::Traffic,
            Self::Energy(_) => CityStream::Energy,
            Self::Emergency(_) => CityStream::Emergency,
        }
    }

    fn key(&self) -> &str {
        match self {
            Self::Traffic(flow) => &flow.detector_id,
            Self::Energy(reading) => &reading.meter_id,
            Self::Emergency(message) => &message.incident_id,
        }
    }
}

/// The value of a record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Payload {
    /// A row to encode by the stream's schema.
    Row(Box<Reading>),
    /// Bytes to send as they are; no reader of the stream can decode them.
    Bytes(Vec<u8>),
    /// No value at all.
    Null,
}

/// One record to publish.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Where to.
    pub(crate) stream: CityStream,
    /// The record's key: the detector, the meter or the incident.
    pub(crate) key: Vec<u8>,
    /// When it is sent, in city time, milliseconds since 1970. Never falls from one event to the next.
    pub(crate) timestamp_ms: i64,
    /// What is sent.
    pub(crate) payload: Payload,
}

impl Event {
    /// Whether this record has to end in quarantine.
    pub(crate) const fn is_bad(&self) -> bool {
        !matches!(self.payload, Payload::Row(_))
    }
}

/// The city and all that is going on in it.
#[derive(Debug, Clone)]
pub(crate) struct City {
    seed: u64,
    now: Second,
    bad_share: f64,
    sites: Vec<Site>,
    places: Vec<Place>,
    meters: Vec<Meter>,
    /// Indices of the sites that report in each second of the period.
    sites_by_phase: Vec<Vec<usize>>,
    /// Indices of the meters that report in each second after an interval.
    meters_by_phase: Vec<Vec<usize>>,
    control_room: ControlRoom,
    faults: Random,
    pending: VecDeque<Event>,
}

impl City {
    /// Builds the city at its start.
    ///
    /// # Errors
    /// When the configuration is outside its limits; names key, value and what is allowed.
    pub(crate) fn new(config: &CityConfig) -> Result<Self> {
        config.check()?;
        let sites: Vec<Site> = (0..config.detectors).map(|index| Site::new(config.seed, index)).collect();
        let meters: Vec<Meter> = (0..config.meters).map(|index| Meter::new(config.seed, index)).collect();
        Ok(Self {
            seed: config.seed,
            now: Second(config.start_ms.div_euclid(1000)),
            bad_share: config.bad_share,
            places: sites.iter().map(Site::place).collect(),
            sites_by_phase: by_phase(PERIOD_S, sites.iter().map(|site| site.phase)),
            meters_by_phase: by_phase(INTERVAL_S, meters.iter().map(|meter| meter.phase)),
            sites,
            meters,
            control_room: ControlRoom::new(config.seed, config.incidents_per_day),
            faults: Random::new(config.seed, "faults"),
            pending: VecDeque::new(),
        })
    }

    /// Lives through one second and queues what is said in it.
    fn step(&mut self) {
        let now = self.now;
        let weather = Weather::at(self.seed, now);
        let mut readings = Vec::new();

        let (mut messages, mut effects) = (Vec::new(), Vec::new());
        self.control_room.step(now, weather, &self.places, &mut messages, &mut effects);
        for effect in effects {
            match effect {
                Effect::CrashBegins(site) => self.sites[site].crash_begins(),
                Effect::CrashEnds(site) => self.sites[site].crash_ends(),
            }
        }
        readings.extend(messages.into_iter().map(Reading::Emergency));

        let mut flows = Vec::new();
        for index in &self.sites_by_phase[now.0.rem_euclid(PERIOD_S) as usize] {
            self.sites[*index].measure(now, weather, &mut flows);
        }
        readings.extend(flows.into_iter().map(Reading::Traffic));

        let mut metered = Vec::new();
        let since_interval = now.0.rem_euclid(INTERVAL_S);
        let interval = now.plus(-since_interval - INTERVAL_S);
        let weather_then = Weather::at(self.seed, interval.plus(INTERVAL_S / 2));
        for index in &self.meters_by_phase[since_interval as usize] {
            self.meters[*index].read(interval, weather_then, &mut metered);
        }
        readings.extend(metered.into_iter().map(Reading::Energy));

        let count = readings.len().max(1) as i64;
        for (index, reading) in readings.into_iter().enumerate() {
            let timestamp_ms = now.millis() + 1000 * index as i64 / count;
            let event = self.event(reading, timestamp_ms);
            self.pending.push_back(event);
        }
        self.now = now.plus(1);
    }

    fn event(&mut self, reading: Reading, timestamp_ms: i64) -> Event {
        let stream = reading.stream();
        let key = reading.key().as_bytes().to_vec();
        let payload = if self.faults.chance(self.bad_share) {
            fault::spoil(&reading, &mut self.faults)
        } else {
            Payload::Row(Box::new(reading))
        };
        Event { stream, key, timestamp_ms, payload }
    }
}

impl Iterator for City {
    type Item = Event;

    /// The next event; a city never ends.
    fn next(&mut self) -> Option<Event> {
        while self.pending.is_empty() {
            self.step();
        }
        self.pending.pop_front()
    }
}

/// Which indices have which phase, for each second of a period.
fn by_phase(period_s: i64, phases: impl Iterator<Item = i64>) -> Vec<Vec<usize>> {
    let mut table = vec![Vec::new(); period_s as usize];
    for (index, phase) in phases.enumerate() {
        table[phase.rem_euclid(period_s) as usize].push(index);
    }
    table
}

#[cfg(test)]
mod tests;
