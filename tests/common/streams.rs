//! A stream of numbered readings for tests: its definition, rows for it, and what Kafka holds of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{Network, run};

/// The stream's name and topic.
pub const STREAM: &str = "test.reading";
/// Its partitions.
pub const PARTITIONS: u32 = 4;

const SCHEMA: &str = r#"{"type":"record","name":"Reading","namespace":"test","fields":[
  {"name":"n","type":"long","doc":"Number of the reading, each one once."},
  {"name":"sensor","type":"string"},
  {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"value","type":["null","double"],"default":null},
  {"name":"note","type":["null","string"],"default":null}
]}"#;

/// Writes the definition and registers the stream.
pub fn register(network: &Network, format: &str) {
    register_with(network, format, "");
}

/// Writes the definition, with further lines, and registers the stream.
pub fn register_with(network: &Network, format: &str, lines: &str) {
    let file = network.scratch("test.reading.toml");
    let text = format!(
        "name = \"{STREAM}\"\npartitions = {PARTITIONS}\nformat = \"{format}\"\nschema = \"test.reading.avsc\"\n\
         key_fields = [\"sensor\"]\nevent_time = \"at\"\n{lines}\n[limits]\nrecords_max = 5000\nage_ms_max = 300\n"
    );
    std::fs::write(&file, text).unwrap();
    std::fs::write(network.scratch("test.reading.avsc"), SCHEMA).unwrap();
    run(network.command_at(&["stream", "add"]).arg(&file));
}

/// A CSV file of the readings with these numbers.
pub fn csv(network: &Network, numbers: std::ops::Range<u64>) -> PathBuf {
    let mut text = String::from("n,sensor,at,value,note\n");
    for n in numbers.clone() {
        let note = if n % 3 == 0 { format!("\"note, {n}\"") } else { String::new() };
        let value = if n % 10 == 0 { String::new() } else { format!("{}.5", n % 1000) };
        writeln!(text, "{n},sensor-{},{},{value},{note}", n % 97, 1_700_000_000_000 + n * 1000).unwrap();
    }
    let file = network.scratch(&format!("readings-{}.csv", numbers.start));
    std::fs::write(&file, text).unwrap();
    file
}

/// What the topic holds: per partition the end offset, and how often each value of `n` occurs (plain Avro: the first varint).
pub fn topic_contents(brokers: &str) -> (BTreeMap<u32, u64>, BTreeMap<i64, u64>) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test-reader")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut ends = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(PARTITIONS).unwrap() {
        let (_, end) = consumer.fetch_watermarks(STREAM, partition, Duration::from_secs(10)).unwrap();
        ends.insert(u32::try_from(partition).unwrap(), u64::try_from(end).unwrap());
        list.add_partition_offset(STREAM, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let total: u64 = ends.values().sum();
    let (mut seen, mut numbers) = (0, BTreeMap::new());
    let deadline = Instant::now() + Duration::from_secs(120);
    while seen < total {
        assert!(Instant::now() < deadline, "{seen} of {total} records read");
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let message = message.unwrap();
            *numbers.entry(first_varint(message.payload().unwrap())).or_insert(0) += 1;
            seen += 1;
        }
    }
    (ends, numbers)
}

/// The first field of a plain Avro datum: a long as a zig-zag varint.
fn first_varint(bytes: &[u8]) -> i64 {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    i64::try_from(value >> 1).unwrap() ^ -i64::try_from(value & 1).unwrap()
}

/// Every record of the topic is in exactly one batch and one row: compares Kafka with SQL.
pub fn every_record_is_there_once(network: &Network, brokers: &str) -> u64 {
    let (ends, numbers) = topic_contents(brokers);
    for (partition, end) in &ends {
        let rows = network.sql(&format!(
            "SELECT count(*) AS rows, count(DISTINCT _offset) AS offsets, coalesce(max(_offset), -1) AS last \
             FROM {STREAM} WHERE _partition = {partition}"
        ));
        assert_eq!(rows[0]["rows"].as_u64(), Some(*end), "partition {partition}: {rows:?}");
        assert_eq!(rows[0]["offsets"].as_u64(), Some(*end), "partition {partition}: {rows:?}");
        assert_eq!(rows[0]["last"].as_i64(), Some(i64::try_from(*end).unwrap() - 1), "partition {partition}");
    }
    let total: u64 = numbers.values().sum();
    let sum: i64 = numbers.iter().map(|(n, times)| n * i64::try_from(*times).unwrap()).sum();
    let rows =
        network.sql(&format!("SELECT count(*) AS rows, count(DISTINCT n) AS numbers, sum(n) AS sum FROM {STREAM}"));
    assert_eq!(rows[0]["rows"].as_u64(), Some(total));
    assert_eq!(rows[0]["numbers"].as_u64(), Some(numbers.len() as u64));
    assert_eq!(rows[0]["sum"].as_i64(), Some(sum));
    total
}
