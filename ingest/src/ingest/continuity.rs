//! Whether a topic still is the one whose records are anchored.
//!
//! A topic can be deleted and made anew under its name, and then hold more records than were anchored: offsets alone do
//! not tell. So before a stream is read on, the last records of each partition's last anchor are compared with what Kafka
//! has at their offsets: time, key, value and headers. One that differs, or one where the anchor says there is none, is
//! proof that this is another topic, or that the broker lost records and gave their offsets to others.
//!
//! What this cannot know: where Kafka no longer has any of those records (retention, compaction) nothing can be compared;
//! and a copy that has the same record at the same offset looks the same, in which case what is anchored is there. While
//! ingest runs, a topic's id tells (`crate::kafka::TopicIds`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cairn_anchor::pipeline::Anchorer;
use cairn_chain_client::{AnchorEntry, Follower};
use cairn_proof::record::{BatchSecret, OwnedRecord};
use cairn_proof::statement::StreamDefinition;
use cairn_proof::{Offset, Partition};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use std::sync::Arc;

use super::source::{kafka_offset, kafka_partition, offset_of, readable_headers, timestamp_of};
use crate::error::{Error, Result};
use crate::kafka::{KafkaConfig, Quiet, TopicIds};
use crate::topics::{Ends, Prober, TopicSpec};

/// How many of a partition's last anchored records are compared at most.
const SAMPLE_RECORDS: usize = 8;
/// How many anchors are gone back for one that holds records.
const ANCHORS_BACK: usize = 16;
/// How long Kafka may take to give them.
const READ_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(1);

/// Compares topics with what is anchored of them.
#[derive(Clone)]
pub(super) struct History {
    anchorer: Anchorer,
    kafka: KafkaConfig,
    topics: TopicIds,
}

/// The last anchored records of one partition, in offset order, at least one.
type Sample = Vec<OwnedRecord>;

impl History {
    pub(super) fn new(anchorer: Anchorer, kafka: KafkaConfig, topics: TopicIds) -> Self {
        Self { anchorer, kafka, topics }
    }

    pub(super) fn follower(&self) -> &Follower {
        self.anchorer.follower()
    }

    /// Why the stream's topic is not the one that was anchored, if it is not. Waits for a broker that is out of reach.
    pub(super) async fn objection(&self, definition: &StreamDefinition) -> Option<String> {
        let samples = Arc::new(self.samples(definition).await);
        if samples.is_empty() {
            return None;
        }
        let mut complaint = String::new();
        loop {
            let (kafka, topics, samples) = (self.kafka.clone(), self.topics.clone(), samples.clone());
            let spec = TopicSpec { topic: definition.topic.clone(), partitions: definition.partitions };
            let compared = tokio::task::spawn_blocking(move || compare(&kafka, &topics, &spec, &samples)).await;
            let outcome = compared.unwrap_or_else(|ended| Err(Error::bug("comparing did not finish").because(ended)));
            match outcome {
                Ok(objection) => return objection,
                Err(error) => {
                    if error.to_string() != complaint {
                        complaint = error.to_string();
                        tracing::warn!(stream = definition.name, %error, "not read yet");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The last anchored records of each partition that has any.
    async fn samples(&self, definition: &StreamDefinition) -> BTreeMap<Partition, Sample> {
        let mut samples = BTreeMap::new();
        for partition in (0..definition.partitions).map(Partition) {
            let Some(entry) = self.last_with_records(&definition.name, partition) else { continue };
            match self.anchorer.records_of(&entry).await {
                Ok(raw) => {
                    let rows = raw.len().saturating_sub(SAMPLE_RECORDS)..raw.len();
                    let no_secret = BatchSecret([0; 32]);
                    let sample: Sample =
                        rows.filter_map(|row| raw.record(row, &definition.topic, &no_secret)).collect();
                    if !sample.is_empty() {
                        samples.insert(partition, sample);
                    }
                }
                Err(error) => tracing::warn!(
                    stream = definition.name, partition = partition.0, %error,
                    "the last anchored records cannot be compared with the topic's"
                ),
            }
        }
        samples
    }

    fn last_with_records(&self, stream: &str, partition: Partition) -> Option<Arc<AnchorEntry>> {
        let ledger = self.follower().ledger();
        let latest = ledger.partition(stream, partition).iter().rev().take(ANCHORS_BACK);
        latest.into_iter().find(|entry| entry.anchor.count > 0).cloned()
    }
}

/// Asks Kafka for what is at the sampled offsets; blocks.
fn compare(
    kafka: &KafkaConfig,
    topics: &TopicIds,
    spec: &TopicSpec,
    samples: &BTreeMap<Partition, Sample>,
) -> Result<Option<String>> {
    let ends = Prober::connect(kafka, Quiet::noting(topics))?.ends(std::slice::from_ref(spec))?;
    let mut open = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for (partition, sample) in samples {
        let Some((from, to)) = range(sample, ends.get(&(spec.topic.clone(), *partition))) else {
            tracing::debug!(topic = spec.topic, partition = partition.0, "none of the last anchored records are left");
            continue;
        };
        list.add_partition_offset(&spec.topic, kafka_partition(*partition)?, kafka_offset(from)?)
            .map_err(|error| Error::bug("a list of partitions cannot be made").because(error))?;
        open.insert(*partition, to);
    }
    if open.is_empty() {
        return Ok(None);
    }
    let consumer = connect(kafka, topics)?;
    let doing = format!("reading {} again", spec.topic);
    let failed = |error: &KafkaError| consumer.context().explain(&doing, &kafka.brokers, error);
    consumer.assign(&list).map_err(|error| failed(&error))?;
    let deadline = Instant::now() + READ_PATIENCE;
    while !open.is_empty() {
        if Instant::now() > deadline {
            return Err(Error::retry(format!("{doing}: {} did not give the records in time", kafka.brokers)));
        }
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                let partition = Partition(u32::try_from(message.partition()).unwrap_or(u32::MAX));
                let (Some(to), Some(sample)) = (open.get(&partition).copied(), samples.get(&partition)) else {
                    continue;
                };
                if offset_of(&message) <= to
                    && let Some(difference) = difference(&message, sample)
                {
                    return Ok(Some(objection(&spec.topic, partition, &difference)));
                }
                if offset_of(&message) >= to {
                    open.remove(&partition);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&Partition(u32::try_from(partition).unwrap_or(u32::MAX)));
            }
            Some(Err(error)) => return Err(failed(&error)),
        }
    }
    Ok(None)
}

/// The sampled offsets that the broker may still have, first and last.
fn range(sample: &[OwnedRecord], ends: Option<&Ends>) -> Option<(Offset, Offset)> {
    let (first, last, ends) = (sample.first()?.offset, sample.last()?.offset, ends?);
    let from = first.max(ends.start);
    (from <= last && from < ends.end).then_some((from, last))
}

fn connect(kafka: &KafkaConfig, topics: &TopicIds) -> Result<BaseConsumer<Quiet>> {
    let mut config = kafka.client_config();
    for (key, value) in [
        ("group.id", "cairn-ingest"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("enable.partition.eof", "true"),
        ("check.crcs", "true"),
        ("queued.min.messages", "1"),
        ("queued.max.messages.kbytes", "1024"),
    ] {
        config.set(key, value);
    }
    TopicIds::listen(&mut config);
    BaseConsumer::from_config_and_context(&config, Quiet::noting(topics))
        .map_err(|error| Quiet::default().explain("connecting", &kafka.brokers, &error))
}

/// How Kafka's record differs from the one that is anchored at its offset.
fn difference(message: &BorrowedMessage<'_>, sample: &[OwnedRecord]) -> Option<String> {
    let offset = offset_of(message);
    let Some(anchored) = sample.iter().find(|record| record.offset == offset) else {
        return Some(format!("offset {offset} holds a record, where the anchor says that there is none"));
    };
    let headers = message.headers().map(readable_headers).unwrap_or_default();
    let theirs = headers.iter().map(|(name, value)| (*name, *value));
    let ours = anchored.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    let differs = if timestamp_of(message) != anchored.timestamp_ms {
        "time"
    } else if message.key() != anchored.key.as_deref() {
        "key"
    } else if message.payload() != anchored.value.as_deref() {
        "value"
    } else if !theirs.eq(ours) {
        "headers"
    } else {
        return None;
    };
    Some(format!("the record at offset {offset} has another {differs} than the one that is anchored"))
}

fn objection(topic: &str, partition: Partition, difference: &str) -> String {
    format!(
        "partition {partition} of the topic {topic} is not what is anchored: {difference}; the topic was made anew, or the \
         broker lost records; restore it, or register a stream with another topic"
    )
}
