//! Emergency incidents and their life: reported → dispatched → on scene → closed, one message for each step.
//!
//! All messages of one incident carry its id, count up from 0 and name the one before. Some incidents turn out to be
//! false alarms and are cancelled; some send more units while they last. Some traffic crashes happen near a detector and slow its road.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;

use super::clock::{DAY_S, DayCurve, Second, Weather};
use super::place::{Place, any_place, rounded};
use super::random::Random;

/// A record of `emergency.incident`; fields, units and order are those of the schema.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct IncidentMessage {
    /// Unique per message.
    pub(crate) message_id: String,
    /// The same in all messages about the incident.
    pub(crate) incident_id: String,
    /// 0, 1, 2 …
    pub(crate) update_no: i32,
    /// The message before this one.
    pub(crate) refers_to: Option<String>,
    /// Who issued it.
    pub(crate) sender: &'static str,
    /// Milliseconds since 1970.
    pub(crate) sent: i64,
    /// CAP `alert.status`.
    pub(crate) status: &'static str,
    /// CAP `alert.msgType`.
    pub(crate) message_type: &'static str,
    /// `reported`, `dispatched`, `on_scene` or `closed`.
    pub(crate) stage: &'static str,
    /// CAP `info.category`.
    pub(crate) category: &'static str,
    /// Smart Data Models `subCategory`.
    pub(crate) sub_category: Option<&'static str>,
    /// CAP `info.event`.
    pub(crate) event: &'static str,
    /// CAP `info.urgency`.
    pub(crate) urgency: &'static str,
    /// CAP `info.severity`.
    pub(crate) severity: &'static str,
    /// CAP `info.certainty`.
    pub(crate) certainty: &'static str,
    /// Milliseconds since 1970.
    pub(crate) onset: Option<i64>,
    /// One line for people.
    pub(crate) headline: Option<String>,
    /// Crews at work.
    pub(crate) units_assigned: Option<i32>,
    /// District.
    pub(crate) area: Option<&'static str>,
    /// WGS 84 degrees, three decimals.
    pub(crate) latitude: Option<f64>,
    /// WGS 84 degrees, three decimals.
    pub(crate) longitude: Option<f64>,
}

/// What happens to the roads because of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// A crash near the detector of this index begins to block it.
    CrashBegins(usize),
    /// That crash is cleared.
    CrashEnds(usize),
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    share: f64,
    category: &'static str,
    sub_category: Option<&'static str>,
    event: &'static str,
    sender: &'static str,
    severity: [&'static str; 2],
    /// Crews sent first.
    units: i32,
    /// Mean seconds from report to dispatch, from there to arrival, and from there to the end.
    mean_s: [f64; 3],
    on_road: bool,
}

/// How many crashes happen where a detector notices them.
const CRASH_NEAR_DETECTOR: f64 = 0.2;

const AMBULANCE: &str = "ambulance.city.example";
const FIRE: &str = "fire.city.example";
const POLICE: &str = "police.city.example";

const KINDS: [Kind; 8] = [
    kind(0.30, "Health", None, "Medical emergency", AMBULANCE, ["Moderate", "Minor"], 1, [70.0, 480.0, 2100.0], false),
    kind(
        0.14,
        "Health",
        Some("heartAttack"),
        "Chest pain",
        AMBULANCE,
        ["Severe", "Moderate"],
        2,
        [45.0, 390.0, 2400.0],
        false,
    ),
    kind(
        0.12,
        "Health",
        Some("fallenPatient"),
        "Fall",
        AMBULANCE,
        ["Minor", "Moderate"],
        1,
        [150.0, 700.0, 1800.0],
        false,
    ),
    kind(
        0.16,
        "Transport",
        Some("carAccident"),
        "Traffic crash",
        POLICE,
        ["Moderate", "Severe"],
        2,
        [60.0, 420.0, 2300.0],
        true,
    ),
    kind(
        0.08,
        "Fire",
        Some("buildingFire"),
        "Structure fire",
        FIRE,
        ["Severe", "Extreme"],
        4,
        [40.0, 360.0, 4200.0],
        false,
    ),
    kind(0.07, "Fire", None, "Automatic fire alarm", FIRE, ["Unknown", "Minor"], 2, [50.0, 400.0, 900.0], false),
    kind(0.09, "Security", Some("assault"), "Assault", POLICE, ["Moderate", "Severe"], 1, [80.0, 450.0, 1700.0], false),
    kind(
        0.04,
        "Env",
        Some("floodRisk"),
        "Street flooding",
        FIRE,
        ["Minor", "Moderate"],
        1,
        [240.0, 900.0, 3600.0],
        false,
    ),
];

#[allow(clippy::too_many_arguments)] // A row of the table above; each argument is a column.
const fn kind(
    share: f64,
    category: &'static str,
    sub_category: Option<&'static str>,
    event: &'static str,
    sender: &'static str,
    severity: [&'static str; 2],
    units: i32,
    mean_s: [f64; 3],
    on_road: bool,
) -> Kind {
    Kind { share, category, sub_category, event, sender, severity, units, mean_s, on_road }
}

/// Incidents by hour, around a mean of 1.
const BY_HOUR: DayCurve = DayCurve([
    0.72, 0.62, 0.54, 0.48, 0.46, 0.52, 0.68, 0.90, 1.10, 1.18, 1.20, 1.22, 1.24, 1.22, 1.22, 1.26, 1.32, 1.36, 1.32,
    1.24, 1.16, 1.08, 1.00, 0.86,
]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reported,
    Dispatched,
    OnScene,
    Closed,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Dispatched => "dispatched",
            Self::OnScene => "on_scene",
            Self::Closed => "closed",
        }
    }
}

#[derive(Debug, Clone)]
struct Incident {
    number: u64,
    id: String,
    kind: Kind,
    stage: Stage,
    opened: Second,
    update_no: i32,
    units: i32,
    severity: &'static str,
    exercise: bool,
    false_alarm: bool,
    place: Place,
    near_detector: Option<usize>,
}

/// A second at which something is due to happen to an incident; earlier ones and lower numbers first.
#[derive(Debug, Clone)]
struct Due {
    at: Second,
    incident: Incident,
}

impl Due {
    fn order(&self) -> (Second, u64) {
        (self.at, self.incident.number)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// The emergency services of the city.
#[derive(Debug, Clone)]
pub(super) struct ControlRoom {
    incidents_per_day: f64,
    due: BinaryHeap<Reverse<Due>>,
    opened: u64,
    random: Random,
}

impl ControlRoom {
    /// Nothing has happened yet; about `incidents_per_day` incidents will be reported.
    pub(super) fn new(seed: u64, incidents_per_day: u32) -> Self {
        Self {
            incidents_per_day: f64::from(incidents_per_day),
            due: BinaryHeap::new(),
            opened: 0,
            random: Random::new(seed, "emergency"),
        }
    }

    /// One second of work: what is due and what is newly reported. `detectors` are the places where crashes can be.
    pub(super) fn step(
        &mut self,
        now: Second,
        weather: Weather,
        detectors: &[Place],
        out: &mut Vec<IncidentMessage>,
        effects: &mut Vec<Effect>,
    ) {
        while self.due.peek().is_some_and(|next| next.0.at <= now) {
            if let Some(Reverse(due)) = self.due.pop() {
                self.advance(due.incident, now, out, effects);
            }
        }
        let mean = self.incidents_per_day / DAY_S as f64 * BY_HOUR.at(now.hour()) * (1.0 + 0.5 * weather.rain);
        for _ in 0..self.random.arrivals(mean) {
            let incident = self.report(now, weather, detectors);
            if let Some(detector) = incident.near_detector {
                effects.push(Effect::CrashBegins(detector));
            }
            out.push(incident.message(now));
            self.schedule(incident, now, 0);
        }
    }

    fn report(&mut self, now: Second, weather: Weather, detectors: &[Place]) -> Incident {
        let kind = self.kind(weather);
        let number = self.opened;
        self.opened += 1;
        let random = &mut self.random;
        let anywhere = any_place(random);
        let measured = kind.on_road && random.chance(CRASH_NEAR_DETECTOR);
        let near_detector = (measured && !detectors.is_empty()).then(|| random.below(detectors.len()));
        let place = near_detector.and_then(|index| detectors.get(index)).copied().unwrap_or(anywhere);
        Incident {
            number,
            id: format!("INC-{}-{number:06}", now.day_text()),
            kind,
            stage: Stage::Reported,
            opened: now.plus(-(30 + random.below(240) as i64)),
            update_no: 0,
            units: 0,
            severity: kind.severity[usize::from(random.chance(0.3))],
            exercise: random.chance(0.005),
            false_alarm: random.chance(if kind.event == "Automatic fire alarm" { 0.6 } else { 0.03 }),
            place,
            near_detector,
        }
    }

    fn kind(&mut self, weather: Weather) -> Kind {
        let weight = |kind: &Kind| match kind.event {
            "Street flooding" => kind.share * 4.0 * weather.rain,
            "Traffic crash" => kind.share * (1.0 + weather.rain),
            _ => kind.share,
        };
        let mut left = self.random.between(0.0, KINDS.iter().map(weight).sum());
        for kind in KINDS {
            left -= weight(&kind);
            if left < 0.0 {
                return kind;
            }
        }
        KINDS[0]
    }

    fn schedule(&mut self, incident: Incident, now: Second, step: usize) {
        let mean = incident.kind.mean_s[step];
        let wait = (mean * self.random.between(0.4, 1.6)).round() as i64;
        self.due.push(Reverse(Due { at: now.plus(wait.max(1)), incident }));
    }

    fn advance(
        &mut self,
        mut incident: Incident,
        now: Second,
        out: &mut Vec<IncidentMessage>,
        effects: &mut Vec<Effect>,
    ) {
        incident.update_no = incident.update_no.saturating_add(1);
        let more_help = self.random.chance(0.25) && incident.update_no < 8;
        let (stage, units, wait) = match incident.stage {
            Stage::Reported => (Stage::Dispatched, incident.kind.units, Some(1)),
            Stage::Dispatched if !incident.false_alarm => (Stage::OnScene, incident.units, Some(2)),
            Stage::OnScene if more_help => {
                (Stage::OnScene, incident.units.saturating_add(1 + self.random.below(3) as i32), Some(2))
            }
            Stage::Dispatched | Stage::OnScene | Stage::Closed => (Stage::Closed, 0, None),
        };
        incident.stage = stage;
        incident.units = units;
        out.push(incident.message(now));
        match (wait, incident.near_detector) {
            (Some(step), _) => self.schedule(incident, now, step),
            (None, Some(detector)) => effects.push(Effect::CrashEnds(detector)),
            (None, None) => {}
        }
    }
}

impl Incident {
    fn message(&self, now: Second) -> IncidentMessage {
        let message_id = |update_no: i32| format!("{}/{}/{update_no}", self.kind.sender, self.id);
        let closed = self.stage == Stage::Closed;
        let message_type = match (self.update_no, closed && self.false_alarm) {
            (0, _) => "Alert",
            (_, true) => "Cancel",
            (_, false) => "Update",
        };
        let urgency = match self.stage {
            Stage::Reported | Stage::Dispatched => "Immediate",
            Stage::OnScene => "Expected",
            Stage::Closed => "Past",
        };
        let certainty = match self.stage {
            Stage::Reported | Stage::Dispatched => "Likely",
            Stage::Closed if self.false_alarm => "Unlikely",
            Stage::OnScene | Stage::Closed => "Observed",
        };
        IncidentMessage {
            message_id: message_id(self.update_no),
            incident_id: self.id.clone(),
            update_no: self.update_no,
            refers_to: (self.update_no > 0).then(|| message_id(self.update_no - 1)),
            sender: self.kind.sender,
            sent: now.millis(),
            status: if self.exercise { "Exercise" } else { "Actual" },
            message_type,
            stage: self.stage.name(),
            category: self.kind.category,
            sub_category: self.kind.sub_category,
            event: self.kind.event,
            urgency,
            severity: self.severity,
            certainty,
            onset: Some(self.opened.millis()),
            headline: Some(format!("{} in {}", self.kind.event, self.place.district)),
            units_assigned: Some(self.units),
            area: Some(self.place.district),
            latitude: Some(rounded(self.place.latitude, 3)),
            longitude: Some(rounded(self.place.longitude, 3)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const START: Second = Second(1_780_272_000);
    const DRY: Weather = Weather { rain: 0.0, temperature: 10.0, sun: 0.0 };

    fn run(seconds: i64) -> (Vec<IncidentMessage>, Vec<Effect>) {
        let mut room = ControlRoom::new(11, 4000);
        let detectors = [Place { district: "Harbour", code: "HAR", latitude: 55.95, longitude: -3.2 }; 3];
        let (mut messages, mut effects) = (Vec::new(), Vec::new());
        for second in 0..seconds {
            room.step(START.plus(second), DRY, &detectors, &mut messages, &mut effects);
        }
        (messages, effects)
    }

    #[test]
    fn each_incident_goes_through_its_stages_in_order() {
        let (messages, _) = run(DAY_S);
        let mut by_incident: BTreeMap<&str, Vec<&IncidentMessage>> = BTreeMap::new();
        for message in &messages {
            by_incident.entry(&message.incident_id).or_default().push(message);
        }
        assert!((3000..5000).contains(&by_incident.len()), "{}", by_incident.len());
        let mut closed = 0;
        for messages in by_incident.values() {
            for (index, message) in messages.iter().enumerate() {
                assert_eq!(message.update_no as usize, index);
                let before = index.checked_sub(1).map(|before| messages[before].message_id.clone());
                assert_eq!(message.refers_to, before);
                assert_eq!(message.message_type == "Alert", index == 0);
                let last = index + 1 == messages.len();
                assert!(message.stage != "closed" || last, "something follows the end of {}", message.incident_id);
            }
            let stages: Vec<&str> = messages.iter().map(|message| message.stage).collect();
            let order = ["reported", "dispatched", "on_scene", "closed"];
            let ranks: Vec<_> = stages.iter().map(|stage| order.iter().position(|name| name == stage)).collect();
            assert!(ranks.is_sorted(), "{stages:?}");
            closed += usize::from(stages.contains(&"closed"));
        }
        assert!(closed * 10 > by_incident.len() * 9, "{closed} of {} closed", by_incident.len());
    }

    #[test]
    fn every_crash_that_ends_has_begun() {
        let (messages, effects) = run(DAY_S);
        let mut open = [0_i32; 3];
        let mut crashes = 0;
        for effect in effects {
            match effect {
                Effect::CrashBegins(index) => {
                    open[index] += 1;
                    crashes += 1;
                }
                Effect::CrashEnds(index) => open[index] -= 1,
            }
            assert!(open.iter().all(|count| *count >= 0));
        }
        let reported = messages.iter().filter(|m| m.update_no == 0 && m.sub_category == Some("carAccident")).count();
        assert!(crashes > 50 && crashes < reported / 3, "{crashes} of {reported} crashes block a road");
    }
}
