//! Schemas with real processes: one that changes while everything runs, where the past stays as it was; and Protobuf.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use common::streams::{PARTITIONS, STREAM, csv, register};
use common::{Network, describe, run};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// `n` becomes a double, `note` goes, `lane` comes with a default and `unit` without.
const SCHEMA_2: &str = r#"{"type":"record","name":"Reading","namespace":"test","fields":[
  {"name":"n","type":"double"},
  {"name":"sensor","type":"string"},
  {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"lane","type":"int","default":7},
  {"name":"value","type":["null","double"],"default":null},
  {"name":"unit","type":["null","string"],"default":null}
]}"#;

/// A definition as `register` writes it, with other lines about its schemas.
fn definition(network: &Network, format: &str, partitions: u32, schemas: &str) -> PathBuf {
    let text = format!(
        "name = \"{STREAM}\"\npartitions = {partitions}\nformat = \"{format}\"\nkey_fields = [\"sensor\"]\n\
         event_time = \"at\"\n{schemas}\n[limits]\nrecords_max = 5000\nage_ms_max = 300\n"
    );
    let file = network.scratch("update.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Rows of the second schema.
fn csv_2(network: &Network, numbers: std::ops::Range<u64>) -> PathBuf {
    let mut text = String::from("n,sensor,at,lane,value,unit\n");
    for n in numbers.clone() {
        writeln!(text, "{n}.5,sensor-{},{},8,1.0,km/h", n % 97, 1_700_000_000_000 + n * 1000).unwrap();
    }
    let file = network.scratch("second.csv");
    std::fs::write(&file, text).unwrap();
    file
}

fn update(network: &Network, file: &PathBuf) -> Result<String, String> {
    let output = network.command_at(&["stream", "update"]).arg(file).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).unwrap()),
        Some(1) => Err(String::from_utf8(output.stderr).unwrap()),
        _ => panic!("{}", describe(&output)),
    }
}

#[test]
fn a_schema_changes_under_old_and_new_writers_and_each_height_keeps_its_columns() {
    let network = &Network::new(false);
    let mut up = network.up();
    register(network, "avro-confluent");
    run(network.command("publish").args(["--stream", STREAM]).arg(csv(network, 0..300)));
    network.wait_anchored(60);
    let height = network.status()["height"].as_u64().unwrap();

    refused_updates(network);
    std::fs::write(network.scratch("second.avsc"), SCHEMA_2).unwrap();
    let file = definition(network, "avro-confluent", PARTITIONS, "schema = \"second.avsc\"\nschema_id = 2");
    let said = update(network, &file).unwrap();
    assert!(said.contains("version 2, schema id 2, since height "), "{said}");
    assert!(update(network, &file).unwrap_err().contains("has every schema of the file"));

    // Both write at the same time, and nothing was restarted.
    run(network.command("publish").args(["--stream", STREAM]).arg(csv_2(network, 1000..1100)));
    publish_old(&network.brokers(), 50);
    network.wait_anchored(60);
    both_are_there(network, height);
    network.audit_is_clean();

    up.terminate(Duration::from_secs(30));
    let _up = network.up();
    network.wait_anchored(60);
    both_are_there(network, height);
    publish_old(&network.brokers(), 1);
    network.wait_anchored(60);
    assert_eq!(network.number(&format!("SELECT count(*) FROM {STREAM} WHERE lane = 7")), 351);
    network.audit_is_clean();
}

fn refused_updates(network: &Network) {
    let with = |name: &str, text: &str, format: &str, partitions: u32, id: u32| {
        std::fs::write(network.scratch(name), text).unwrap();
        let lines = format!("schema = \"{name}\"\nschema_id = {id}");
        update(network, &definition(network, format, partitions, &lines)).unwrap_err()
    };
    let narrower = SCHEMA_2.replace("\"double\"}", "\"int\"}");
    let said = with("narrower.avsc", &narrower, "avro-confluent", PARTITIONS, 2);
    assert!(said.contains("the field n") && said.contains("it was written as long"), "{said}");
    let said = with("other.avsc", SCHEMA_2, "avro-confluent", PARTITIONS + 1, 2);
    assert!(said.contains("partitions is not what stream"), "{said}");
    let said = with("other.avsc", SCHEMA_2, "json", PARTITIONS, 2);
    assert!(said.contains("format is not what stream"), "{said}");
    let said = with("other.avsc", SCHEMA_2, "avro-confluent", PARTITIONS, 1);
    assert!(said.contains("schema_id = 2"), "{said}");
    // The chain refuses whoever is not the owner.
    let file = definition(network, "avro-confluent", PARTITIONS, "schema = \"other.avsc\"\nschema_id = 2");
    let output = network.command_at(&["stream", "update"]).args(["--owner-key", "ingest"]).arg(file).output().unwrap();
    assert!(output.status.code() == Some(1) && describe(&output).contains("not_allowed"), "{}", describe(&output));
}

/// Records of a writer that knows the first schema alone: n = 1, sensor "a", at = 0, two nulls.
fn publish_old(brokers: &str, count: usize) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    for _ in 0..count {
        let value = [0, 0, 0, 0, 1, 0x02, 0x02, b'a', 0x00, 0x00, 0x00];
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(STREAM).partition(0).key(&b"a"[..]).payload(&value[..]);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

fn both_are_there(network: &Network, before: u64) {
    let count = |what: &str| network.number(&format!("SELECT count(*) FROM {STREAM} WHERE {what}"));
    assert_eq!(network.number("SELECT count(*) FROM cairn.quarantine"), 0);
    // The default stands where the field was not there yet: in old segments, and in what old writers still publish.
    assert_eq!(count("lane = 7"), 350);
    assert_eq!(count("lane = 8 AND unit = 'km/h'"), 100);
    assert_eq!(count("lane IS NULL"), 0);
    assert_eq!(count("unit IS NULL"), 350);
    // 0 to 299 were written as long.
    assert_eq!(count("n < 300.0 AND sensor <> 'a'"), 300);
    assert_eq!(count("n = 1099.5"), 1);
    let kinds = network.sql(&format!("SELECT arrow_typeof(n) AS ty, count(*) AS c FROM {STREAM} GROUP BY 1"));
    assert_eq!((kinds.len(), kinds[0]["ty"].as_str()), (1, Some("Float64")), "{kinds:?}");
    let columns = |at: Option<u64>| {
        let mut command = network.command("sql");
        if let Some(height) = at {
            command.args(["--as-of", &height.to_string()]);
        }
        let rows = run(command.args(["--format", "csv", &format!("SELECT * FROM {STREAM} ORDER BY n LIMIT 1")]));
        rows.lines().next().unwrap_or_default().to_owned()
    };
    assert!(columns(None).starts_with("n,sensor,at,lane,value,unit,_partition"), "{}", columns(None));
    assert!(columns(Some(before)).starts_with("n,sensor,at,value,note,_partition"), "{}", columns(Some(before)));
    let old = format!("SELECT count(*) AS rows FROM {STREAM} WHERE note LIKE 'note, %'");
    let as_of = run(network.command("sql").args(["--format", "csv", "--as-of", &before.to_string(), &old]));
    assert_eq!(as_of, "rows\n100\n");
    let gone = network.command("sql").arg(&old).output().unwrap();
    assert!(gone.status.code() == Some(1) && describe(&gone).contains("note"), "{}", describe(&gone));
    let versions = network.sql(&format!("SELECT schema_id FROM cairn.schemas WHERE stream = '{STREAM}' ORDER BY 1"));
    assert_eq!(versions.len(), 2, "{versions:?}");
}

const PROTO: &str = r#"syntax = "proto3";
package city;
import "google/protobuf/timestamp.proto";
import "state.proto";
message Reading {
  string sensor = 1;
  google.protobuf.Timestamp at = 2;
  State state = 3;
  Place place = 4;
  repeated int32 counts = 5;
  optional double value = 6;
}
message Place { double lat = 1; double lon = 2; }"#;

#[test]
fn protobuf_messages_are_rows() {
    let network = &Network::new(false);
    let _up = network.up();
    std::fs::write(network.scratch("reading.proto"), PROTO).unwrap();
    let states = "syntax = \"proto3\"; package city; enum State { UNKNOWN = 0; OPEN = 1; }";
    let file = network.scratch("proto.toml");
    let text = format!(
        "name = \"{STREAM}\"\npartitions = 1\nformat = \"protobuf\"\nschema = \"reading.proto\"\n\
         message = \"city.Reading\"\nkey_fields = [\"sensor\"]\nevent_time = \"at\"\n[limits]\nage_ms_max = 300\n"
    );
    std::fs::write(&file, text).unwrap();
    let missing = network.command_at(&["stream", "add"]).arg(&file).output().unwrap();
    assert!(missing.status.code() == Some(1) && describe(&missing).contains("state.proto"), "{}", describe(&missing));
    std::fs::write(network.scratch("state.proto"), states).unwrap();
    run(network.command_at(&["stream", "add"]).arg(&file));

    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", network.brokers()).create().unwrap();
    // sensor "a", at 1970-01-01T00:00:01.5Z, open, a place at (1.0, 0), counts 1 and 2; then nothing; then no message.
    let whole = [
        &[0x0a, 1, b'a', 0x12, 8, 0x08, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 1, 0x18, 1][..],
        &[0x22, 9, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x2a, 2, 1, 2],
    ]
    .concat();
    for value in [&whole[..], b"", b"\x0a\xff"] {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(STREAM).partition(0).payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    network.wait_anchored(60);
    let rows = network.sql(&format!(
        "SELECT sensor, CAST(at AS BIGINT) AS at, state, place['lat'] AS lat, counts[2] AS second, value IS NULL AS missing \
         FROM {STREAM} ORDER BY _offset"
    ));
    let expected = [
        serde_json::json!({ "sensor": "a", "at": 1_500_000_000, "state": "OPEN", "lat": 1.0, "second": 2, "missing": true }),
        serde_json::json!({ "sensor": "", "at": null, "state": "UNKNOWN", "lat": null, "second": null, "missing": true }),
    ];
    assert_eq!(rows, expected);
    let reasons = network.sql("SELECT reason FROM cairn.quarantine");
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[0]["reason"], "not a Protobuf message of the type city.Reading");
    network.audit_is_clean();
}
