//! The records of a run: meter readings of about 200 bytes, made and published before any clock starts.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use cairn_ingest::encode::Cell;
use cairn_ingest::topics::{TopicSpec, ensure_topics};
use cairn_ingest::{KafkaConfig, Publisher, Signer};
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{BatchLimits, ChainTag, Format, SchemaVersion, Signatures, StreamDefinition};

use super::{RUN, progress};

const SCHEMA: &str = r#"{"type":"record","name":"Reading","fields":[
{"name":"meter","type":"string"},
{"name":"read_at","type":{"type":"long","logicalType":"timestamp-millis"}},
{"name":"energy_wh","type":"long"},
{"name":"power_w","type":"double"},
{"name":"voltage_v","type":"double"},
{"name":"current_a","type":["null","double"]},
{"name":"quality","type":"int"},
{"name":"district","type":"string"},
{"name":"trace","type":"string"}]}"#;
pub(super) const COLUMNS: [&str; 9] =
    ["meter", "read_at", "energy_wh", "power_w", "voltage_v", "current_a", "quality", "district", "trace"];
const DISTRICTS: [&str; 8] = ["north", "north-east", "east", "harbour", "south", "old town", "west", "university"];
const METERS: u64 = 50_000;
/// Hexadecimal digits that bring a value to about 200 bytes; a trace id and the like compresses no better.
const TRACE_DIGITS: usize = 128;

/// Who reads and who signs.
pub(super) struct People {
    pub(super) ingest: SigningKey,
    pub(super) publisher: SigningKey,
    pub(super) chain: ChainTag,
}

/// A topic of so many records.
pub(super) struct Topic {
    pub(super) definition: StreamDefinition,
    pub(super) records: u64,
    pub(super) value_bytes: usize,
}

pub(super) fn definition(name: &str, partitions: u32, signatures: Signatures, ingest: &SigningKey) -> StreamDefinition {
    StreamDefinition {
        name: name.to_owned(),
        topic: name.to_owned(),
        partitions,
        format: Format::Avro,
        key_fields: vec!["meter".to_owned()],
        event_time: Some("read_at".to_owned()),
        limits: BatchLimits::default(),
        gaps_allowed: false,
        anchorers: vec![ingest.identity()],
        signatures,
        schemas: vec![SchemaVersion { id: 1, text: SCHEMA.to_owned() }],
    }
}

/// Makes readings: what differs from record to record follows from a number alone.
pub(super) struct Readings {
    state: u64,
    row: [String; COLUMNS.len()],
}

impl Readings {
    pub(super) fn new() -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, row: Default::default() }
    }

    fn next_number(&mut self) -> u64 {
        // xorshift64: cheap, and the same in every run.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// The row of the next reading, at `milliseconds`.
    pub(super) fn row(&mut self, milliseconds: u64) -> [Cell<'_>; COLUMNS.len()] {
        use std::fmt::Write as _;
        let numbers = [self.next_number(), self.next_number(), self.next_number()];
        for cell in &mut self.row {
            cell.clear();
        }
        let [meter, read_at, energy, power, voltage, current, quality, district, trace] = &mut self.row;
        let _ = write!(meter, "meter-{:08}", numbers[0] % METERS);
        let _ = write!(read_at, "{milliseconds}");
        let _ = write!(energy, "{}", numbers[0] >> 40);
        let _ = write!(power, "{}.{}", numbers[1] % 5_000, numbers[1] % 10);
        let _ = write!(voltage, "{}.{}", 220 + numbers[1] % 20, numbers[2] % 10);
        let _ = write!(current, "{}.{}", numbers[2] % 20, numbers[0] % 10);
        let _ = write!(quality, "{}", numbers[2] % 3);
        district.push_str(DISTRICTS[(numbers[2] >> 32) as usize % DISTRICTS.len()]);
        for turn in 0..TRACE_DIGITS / 16 {
            let _ = write!(
                trace,
                "{:016x}",
                numbers[turn % 3].rotate_left(turn as u32 * 7).wrapping_mul(0x2545_f491_4f6c_dd1d)
            );
        }
        self.row.each_ref().map(|text| Cell::Text(text))
    }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Topic {
    /// A topic with records: without signatures, or in runs of [`RUN`] if they are required.
    pub(super) async fn make(
        kafka: &KafkaConfig,
        name: &str,
        partitions: u32,
        records: u64,
        signatures: Signatures,
        people: &People,
    ) -> Result<Self> {
        let topic = Self::empty(kafka, name, partitions, records, signatures, people).await?;
        let mut publisher = Publisher::new(kafka, &topic.definition)?;
        if signatures == Signatures::Required {
            publisher = publisher.signed(&topic.definition, people.signer().in_runs(RUN)?)?;
        }
        topic.fill(publisher).await
    }

    /// A topic whose records are signed each by itself.
    pub(super) async fn signed_singly(
        kafka: &KafkaConfig,
        name: &str,
        partitions: u32,
        records: u64,
        people: &People,
    ) -> Result<Self> {
        let topic = Self::empty(kafka, name, partitions, records, Signatures::Required, people).await?;
        let publisher = Publisher::new(kafka, &topic.definition)?.signed(&topic.definition, people.signer())?;
        topic.fill(publisher).await
    }

    /// A topic without records as yet.
    pub(super) async fn empty(
        kafka: &KafkaConfig,
        name: &str,
        partitions: u32,
        records: u64,
        signatures: Signatures,
        people: &People,
    ) -> Result<Self> {
        // A topic of its own in each run, for a broker that is used again.
        let topic = format!("{name}.r{}", now_ms());
        let definition =
            StreamDefinition { topic: topic.clone(), ..definition(name, partitions, signatures, &people.ingest) };
        ensure_topics(kafka, &[TopicSpec { topic, partitions }]).await?;
        Ok(Self { definition, records, value_bytes: 0 })
    }

    async fn fill(mut self, mut publisher: Publisher) -> Result<Self> {
        progress(&format!("publishing {} records to {}", self.records, self.definition.topic));
        let binding = publisher.encoder().bind(&COLUMNS)?;
        let mut readings = Readings::new();
        let (started, base) = (Instant::now(), now_ms());
        for number in 0..self.records {
            publisher.send(&binding, &readings.row(base + number / 100)).await?;
        }
        let counts = publisher.flush().await?;
        ensure!(counts.sent == self.records, "{} of {} records were published", counts.sent, self.records);
        self.value_bytes = sample(&self.definition)?;
        progress(&format!("published in {} s", started.elapsed().as_secs()));
        Ok(self)
    }
}

impl People {
    fn signer(&self) -> Signer {
        Signer::new(self.publisher.clone(), self.chain)
    }
}

/// Length of an encoded value.
fn sample(definition: &StreamDefinition) -> Result<usize> {
    Ok(values(definition, 1)?.first().map_or(0, Vec::len))
}

/// So many encoded values.
pub(super) fn values(definition: &StreamDefinition, count: u64) -> Result<Vec<Vec<u8>>> {
    let encoder = cairn_ingest::Encoder::new(definition)?;
    let binding = encoder.bind(&COLUMNS)?;
    let (mut readings, mut message) = (Readings::new(), cairn_ingest::encode::Message::default());
    let mut values = Vec::new();
    for number in 0..count {
        encoder.encode(&binding, &readings.row(1_700_000_000_000 + number), &mut message)?;
        values.push(message.value.clone());
    }
    Ok(values)
}
