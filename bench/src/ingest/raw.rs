//! What a bare consumer manages: librdkafka's own settings as ingest sets them, all partitions, every record dropped.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cairn_ingest::KafkaConfig;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::load::Topic;

const PATIENCE: Duration = Duration::from_secs(60);
/// As ingest fetches: see its `source`.
const SETTINGS: [(&str, &str); 7] = [
    ("group.id", "cairn-bench"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("check.crcs", "true"),
    ("isolation.level", "read_committed"),
    ("queued.min.messages", "100000"),
    ("fetch.wait.max.ms", "100"),
];

/// Time to read the whole topic.
pub(super) async fn consume(kafka: &KafkaConfig, topic: &Topic) -> Result<Duration> {
    let started = Instant::now();
    each(kafka, topic, |_| ()).await?;
    Ok(started.elapsed())
}

/// Shows each record of the topic to `see`.
async fn each<S>(kafka: &KafkaConfig, topic: &Topic, see: S) -> Result<()>
where
    S: FnMut(&BorrowedMessage<'_>) + Send + 'static,
{
    let (brokers, name) = (kafka.brokers.clone(), topic.definition.topic.clone());
    let (partitions, records) = (topic.definition.partitions, topic.records);
    tokio::task::spawn_blocking(move || read(&brokers, &name, partitions, records, see)).await?
}

fn read<S>(brokers: &str, topic: &str, partitions: u32, records: u64, mut see: S) -> Result<()>
where
    S: FnMut(&BorrowedMessage<'_>),
{
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    for (key, value) in SETTINGS {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create().context("a consumer")?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, i32::try_from(partition)?, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut seen, mut last) = (0, Instant::now());
    while seen < records {
        match consumer.poll(Duration::from_millis(100)) {
            Some(message) => {
                see(&message?);
                seen += 1;
                if seen % 100_000 == 0 {
                    last = Instant::now();
                }
            }
            None => ensure!(last.elapsed() < PATIENCE, "{topic}: {seen} of {records} records came, then none"),
        }
    }
    Ok(())
}

/// Offset and timestamp in milliseconds of each record, by partition.
pub(super) async fn timestamps(kafka: &KafkaConfig, topic: &Topic) -> Result<Vec<Vec<(u64, u64)>>> {
    let (send, receive) = std::sync::mpsc::channel();
    each(kafka, topic, move |message| {
        let time = message.timestamp().to_millis().unwrap_or_default();
        let _ = send.send((message.partition(), message.offset(), time));
    })
    .await?;
    let mut found = vec![Vec::new(); topic.definition.partitions as usize];
    for (partition, offset, time) in receive {
        found[usize::try_from(partition)?].push((u64::try_from(offset)?, u64::try_from(time)?));
    }
    Ok(found)
}
