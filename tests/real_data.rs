//! Real city data through the whole path: journey times, smart meters and incident changes, 1.37 million records.
//!
//! The data is not part of the project. It is looked for in `CAIRN_TEST_DATA`, else in `../shared/data` beside the
//! checkout; without it the test says so and passes. Best run with `--release`: it also prints the rate.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use common::{Network, cairn, run};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value};

fn data() -> Option<PathBuf> {
    let folder = match std::env::var_os("CAIRN_TEST_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    if folder.join("traffic/uk_highways_journey_times/journey_times.csv.gz").is_file() {
        return Some(folder);
    }
    // Straight to standard error: the line shows also where the harness keeps back what passing tests print.
    let line = format!("SKIPPED: no real data at {}; set CAIRN_TEST_DATA to its folder\n", folder.display());
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    None
}

/// What a column adds up to, however its rows are ordered.
#[derive(Debug, Default, Clone, PartialEq)]
struct Sums {
    rows: u64,
    present: u64,
    /// Of texts: bytes in all, least and greatest.
    bytes: u64,
    least: Option<String>,
    greatest: Option<String>,
    distinct: std::collections::BTreeSet<String>,
}

impl Sums {
    fn add(&mut self, cell: Option<&str>) {
        self.rows += 1;
        let Some(text) = cell else { return };
        self.present += 1;
        self.bytes += text.len() as u64;
        if self.least.as_deref().is_none_or(|least| text < least) {
            self.least = Some(text.to_owned());
        }
        if self.greatest.as_deref().is_none_or(|greatest| text > greatest) {
            self.greatest = Some(text.to_owned());
        }
        if !self.distinct.contains(text) {
            self.distinct.insert(text.to_owned());
        }
    }
}

fn check_text(network: &Network, stream: &str, column: &str, want: &Sums) {
    let rows = network.sql(&format!(
        "SELECT count(*) AS rows, count(\"{column}\") AS present, coalesce(sum(octet_length(\"{column}\")), 0) AS bytes, \
         min(\"{column}\") AS least, max(\"{column}\") AS greatest, count(DISTINCT \"{column}\") AS \"distinct\" FROM {stream}"
    ));
    let number = |name: &str| rows[0][name].as_u64().unwrap();
    assert_eq!(number("rows"), want.rows, "{stream}.{column}");
    assert_eq!(number("present"), want.present, "{stream}.{column}");
    assert_eq!(number("bytes"), want.bytes, "{stream}.{column}");
    assert_eq!(rows[0]["least"].as_str(), want.least.as_deref(), "{stream}.{column}");
    assert_eq!(rows[0]["greatest"].as_str(), want.greatest.as_deref(), "{stream}.{column}");
    assert_eq!(number("distinct"), want.distinct.len() as u64, "{stream}.{column}");
}

/// Sums of numbers are compared to the last thousandth, scaled to integers so that their order does not matter.
fn check_number(network: &Network, stream: &str, column: &str, present: u64, thousandths: i128) {
    let rows = network.sql(&format!(
        "SELECT count(\"{column}\") AS present, sum(CAST(round(CAST(\"{column}\" AS DOUBLE) * 1000) AS BIGINT)) AS total FROM {stream}"
    ));
    assert_eq!(rows[0]["present"].as_u64(), Some(present), "{stream}.{column}");
    assert_eq!(rows[0]["total"].to_string(), thousandths.to_string(), "{stream}.{column}");
}

fn thousandths(text: &str) -> i128 {
    #[allow(clippy::cast_possible_truncation)]
    let scaled = (text.parse::<f64>().unwrap() * 1000.0).round() as i128;
    scaled
}

fn field(name: &str, kind: &str) -> Value {
    match kind {
        "string" | "long" | "double" => serde_json::json!({"name": name, "type": kind}),
        "time" => serde_json::json!({"name": name, "type": {"type": "long", "logicalType": "timestamp-millis"}}),
        "strings?" => {
            serde_json::json!({"name": name, "type": ["null", {"type": "array", "items": "string"}], "default": null})
        }
        optional => {
            serde_json::json!({"name": name, "type": ["null", optional.trim_end_matches('?')], "default": null})
        }
    }
}

fn add_stream(network: &Network, name: &str, format: &str, keys: &str, time: &str, fields: &[Value]) {
    let schema = serde_json::json!({"type": "record", "name": "Row", "namespace": "real", "fields": fields});
    std::fs::write(network.scratch(&format!("{name}.avsc")), schema.to_string()).unwrap();
    let file = network.scratch(&format!("{name}.toml"));
    let event_time = if time.is_empty() { String::new() } else { format!("event_time = \"{time}\"\n") };
    let text = format!(
        "name = \"{name}\"\npartitions = 4\nformat = \"{format}\"\nschema = \"{name}.avsc\"\nkey_fields = [\"{keys}\"]\n{event_time}"
    );
    std::fs::write(&file, text).unwrap();
    run(network.command_at(&["stream", "add"]).arg(&file));
}

fn csv_reader(file: &Path) -> csv::Reader<Box<dyn Read>> {
    let file = std::fs::File::open(file).unwrap();
    csv::Reader::from_reader(Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))))
}

/// Sums of every column of a CSV file; an empty cell is null.
fn csv_sums(file: &Path, numbers: &[&str]) -> (BTreeMap<String, Sums>, BTreeMap<String, (u64, i128)>) {
    let mut reader = csv_reader(file);
    let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let (mut texts, mut totals): (BTreeMap<String, Sums>, BTreeMap<String, (u64, i128)>) = Default::default();
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).unwrap() {
        for (name, cell) in names.iter().zip(&row) {
            let cell = (!cell.is_empty()).then_some(cell);
            if numbers.contains(&name.as_str()) {
                let total = totals.entry(name.clone()).or_default();
                if let Some(text) = cell {
                    total.0 += 1;
                    total.1 += thousandths(text);
                }
            } else {
                texts.entry(name.clone()).or_default().add(cell);
            }
        }
    }
    (texts, totals)
}

const JOURNEY_NUMBERS: [&str; 3] = ["travel_time_s", "free_flow_travel_time_s", "normally_expected_travel_time_s"];

fn journey_times(network: &Network, file: &Path) {
    let mut fields = vec![field("publication_time", "string"), field("measured_time", "string")];
    fields.extend([field("section_id", "string"), field("source_id", "string")]);
    fields.extend(JOURNEY_NUMBERS.map(|name| field(name, "double?")));
    add_stream(network, "real.journey_time", "avro", "section_id", "", &fields);
    run(network.command("publish").args(["--stream", "real.journey_time"]).arg(file));
}

fn meters(network: &Network, file: &Path) {
    let fields =
        vec![field("customer_id", "long"), field("reading_datetime", "string"), field("general_supply_kwh", "double")];
    add_stream(network, "real.meter", "avro-confluent", "customer_id", "", &fields);
    run(network.command("publish").args(["--stream", "real.meter"]).arg(file));
}

const INCIDENT_TEXTS: [&str; 31] = [
    "title",
    "id",
    "latitude",
    "longitude",
    "node",
    "description",
    "link",
    "link_text",
    "region",
    "incident",
    "location",
    "status",
    "status_description",
    "status_icon",
    "status_filter_label",
    "suburb",
    "type",
    "type_description",
    "type_icon",
    "agency",
    "incident_number",
    "updated",
    "time_of_call",
    "alert_level",
    "alert_status",
    "alert_time",
    "event_type",
    "warning_level",
    "node_id",
    "last_updated",
    "banner_check",
];

fn incidents(network: &Network, file: &Path) {
    let mut fields = vec![field("snapshot_time", "time"), field("commit", "string")];
    fields.extend(INCIDENT_TEXTS.map(|name| field(name, "string?")));
    fields.extend([
        field("uuid", "string?"),
        field("updated_tag", "boolean?"),
        field("weight", "long?"),
        field("image_urls", "strings?"),
    ]);
    add_stream(network, "real.incident", "json", "id", "snapshot_time", &fields);
    // The outline of an area is an object whose members come and go; it is left out of the columns by name.
    let maps = ["--map", "record.*=*", "--map", "record.polygon="];
    run(network.command("publish").args(["--stream", "real.incident"]).args(maps).arg(file));
}

fn check_incidents(network: &Network, file: &Path) {
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    let (mut rows, mut tagged, mut weights) = (0u64, 0u64, 0u64);
    let reader = liblzma::read::XzDecoder::new_multi_decoder(std::fs::File::open(file).unwrap());
    for line in BufReader::new(reader).lines() {
        let line: Map<String, Value> = serde_json::from_str(&line.unwrap()).unwrap();
        let record = line["record"].as_object().unwrap();
        rows += 1;
        tagged += u64::from(record.contains_key("updated_tag"));
        weights += u64::from(record.contains_key("weight"));
        for name in INCIDENT_TEXTS.iter().chain(&["uuid"]) {
            sums.entry(name).or_default().add(record.get(*name).and_then(Value::as_str));
        }
        sums.entry("commit").or_default().add(line["commit"].as_str());
    }
    assert_eq!(rows, 392_481);
    for (name, want) in &sums {
        check_text(network, "real.incident", name, want);
    }
    assert_eq!(network.number("SELECT count(updated_tag) FROM real.incident"), tagged);
    assert_eq!(network.number("SELECT count(weight) FROM real.incident"), weights);
}

fn receipts(network: &Network, count: usize) {
    let genesis = network.dir().join("genesis.json");
    let alone = network.scratch("alone");
    std::fs::create_dir(&alone).unwrap();
    std::fs::copy(&genesis, alone.join("genesis.json")).unwrap();
    let status = network.status();
    // Ten households have ten keys: a partition may well stay empty.
    let all = status["partitions"].as_array().unwrap().iter();
    let partitions: Vec<_> = all.filter(|partition| partition["anchored"].as_u64() > Some(0)).collect();
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    for number in 0..count {
        let partition = &partitions[random.random_range(0..partitions.len())];
        let stream = partition["stream"].as_str().unwrap();
        let (place, end) = (partition["partition"].as_u64().unwrap(), partition["anchored"].as_u64().unwrap());
        let offset = random.random_range(0..end);
        let file = alone.join(format!("receipt-{number}.json"));
        let arguments =
            ["--partition", &place.to_string(), "--offset", &offset.to_string(), "--stream", stream, "--out"];
        run(network.command("prove").args(arguments).arg(&file));
        let said = run(cairn().current_dir(&alone).arg("verify").arg(&file).args(["--genesis", "genesis.json"]));
        assert!(said.contains("VERIFIED"), "{stream} {place} {offset}: {said}");
    }
}

#[test]
fn real_data_is_anchored_whole_and_adds_up() {
    let Some(data) = data() else { return };
    let traffic = data.join("traffic/uk_highways_journey_times/journey_times.csv.gz");
    let energy = data.join("energy/sgsc_smart_meters/smart_meter10.csv.gz");
    let emergency = data.join("emergency/act_esa_incidents/incident_changes_act.ndjson.xz");
    let network = Network::new(false);
    let _up = network.up();
    let started = Instant::now();
    journey_times(&network, &traffic);
    meters(&network, &energy);
    incidents(&network, &emergency);
    let published = started.elapsed();
    network.wait_anchored(900);
    let anchored = started.elapsed();
    let (rows, seconds) = (687_465 + 293_874 + 392_481, anchored.as_secs_f64());
    eprintln!(
        "{rows} records: published in {:.1} s, all anchored after {seconds:.1} s: {:.0} rows/s",
        published.as_secs_f64(),
        f64::from(rows) / seconds
    );
    assert_eq!(network.number("SELECT count(*) FROM real.journey_time"), 687_465);
    assert_eq!(network.number("SELECT count(*) FROM real.meter"), 293_874);
    assert_eq!(network.number("SELECT count(*) FROM real.incident"), 392_481);
    assert_eq!(network.number("SELECT count(*) FROM cairn.quarantine"), 0);
    let (texts, totals) = csv_sums(&traffic, &JOURNEY_NUMBERS);
    texts.iter().for_each(|(column, want)| check_text(&network, "real.journey_time", column, want));
    totals
        .iter()
        .for_each(|(column, (present, total))| check_number(&network, "real.journey_time", column, *present, *total));
    let (texts, totals) = csv_sums(&energy, &["customer_id", "general_supply_kwh"]);
    texts.iter().for_each(|(column, want)| check_text(&network, "real.meter", column, want));
    totals.iter().for_each(|(column, (present, total))| check_number(&network, "real.meter", column, *present, *total));
    check_incidents(&network, &emergency);
    receipts(&network, 100);
    network.audit_is_clean();
}
