//! The Kafka consumer: one for all partitions, each partition with a queue of its own.
//!
//! A partition's messages come through its own queue, so that a partition whose batches wait is simply not polled:
//! its queue fills to its bound, librdkafka stops fetching it, and nothing fetched is thrown away as a pause would do.
//! The partitions that are polled are polled in turn, so that none starves.
//!
//! Positions come from the chain. Nothing is committed to Kafka, no group is joined (librdkafka wants a `group.id` for
//! assigning, and uses it for nothing else here), and a position that the broker does not have is an error to be
//! looked at, never a reset.

use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use cairn_proof::{Offset, Partition};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::topic_partition_list::Offset as KafkaOffset;

use cairn_anchor::raw::{RawBatchBuilder, RawError};
use cairn_proof::record::HEADERS_MAX;

use super::worker::Start;
use crate::config::IngestConfig;
use crate::decode::UNREADABLE_HEADER;
use crate::error::{Error, Result};
use crate::kafka::{Quiet, TopicIds, next_event, reason};

/// A seek is only an exchange between librdkafka's threads.
const SEEK_PATIENCE: Duration = Duration::from_secs(2);
/// Bounds of what librdkafka fetches ahead for one partition.
const QUEUE_KILOBYTES: std::ops::RangeInclusive<u64> = 256..=8_192;

/// One partition's messages.
pub(super) type Queue = PartitionQueue<Quiet>;

pub(super) struct Source {
    consumer: Arc<BaseConsumer<Quiet>>,
    brokers: String,
}

impl Source {
    /// `partitions` is how many are expected: what may be fetched ahead is divided among them. The ids of the topics are
    /// noted in `ids`.
    pub(super) fn connect(config: &IngestConfig, partitions: usize, ids: &TopicIds) -> Result<Self> {
        let share = config.fetch_bytes_max / 1_024 / u64::try_from(partitions.max(1)).unwrap_or(1);
        let kilobytes = share.clamp(*QUEUE_KILOBYTES.start(), *QUEUE_KILOBYTES.end());
        let mut client = config.kafka.client_config();
        for (key, value) in [
            ("queued.max.messages.kbytes", kilobytes.to_string()),
            ("queued.min.messages", "100000".to_owned()),
            ("fetch.wait.max.ms", "100".to_owned()),
            ("fetch.error.backoff.ms", "200".to_owned()),
        ] {
            if !config.kafka.settings.contains_key(key) {
                client.set(key, value);
            }
        }
        for (key, value) in [
            ("group.id", "cairn-ingest"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("check.crcs", "true"),
            ("isolation.level", "read_committed"),
        ] {
            client.set(key, value);
        }
        TopicIds::listen(&mut client);
        let consumer = BaseConsumer::from_config_and_context(&client, Quiet::noting(ids))
            .map_err(|error| Error::input(format!("a Kafka setting is wrong: {}", reason(&error))))?;
        Ok(Self { consumer: Arc::new(consumer), brokers: config.kafka.brokers.clone() })
    }

    /// Begins to read partitions of a topic at the given offsets; `wake` is unparked when messages arrive.
    pub(super) fn assign(&self, topic: &str, starts: &[Start], wake: &Thread) -> Result<Vec<Queue>> {
        let mut queues = Vec::with_capacity(starts.len());
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for start in starts {
            let number = kafka_partition(start.partition)?;
            // Split before it is assigned: from the first message on, all come through this queue.
            let mut queue = self
                .consumer
                .split_partition_queue(topic, number)
                .ok_or_else(|| Error::input(format!("{topic} is not a topic's name")))?;
            let thread = wake.clone();
            queue.set_nonempty_callback(move || thread.unpark());
            queues.push(queue);
            list.add_partition_offset(topic, number, kafka_offset(start.next)?)
                .map_err(|error| self.explain(&format!("reading {topic}"), &error))?;
        }
        self.consumer.incremental_assign(&list).map_err(|error| self.explain(&format!("reading {topic}"), &error))?;
        Ok(queues)
    }

    /// Continues to read a partition at another offset.
    ///
    /// After an offset that the broker does not have librdkafka has given the partition up, and takes no seek for it any
    /// more: then it is assigned anew. Its queue stays the same, and [`position`](Self::position) may for a while be what it
    /// was before, which is returned then.
    pub(super) fn seek(&self, topic: &str, partition: Partition, to: Offset) -> Result<Option<Offset>> {
        let number = kafka_partition(partition)?;
        let failed = |error: &KafkaError| self.explain(&format!("seeking to offset {to} of {topic}"), error);
        match self.consumer.seek(topic, number, kafka_offset(to)?, SEEK_PATIENCE) {
            Ok(()) => Ok(None),
            Err(KafkaError::Seek(_)) => {
                let before = self.position(topic, partition)?;
                self.unassign(topic, partition)?;
                let mut list = TopicPartitionList::with_capacity(1);
                list.add_partition_offset(topic, number, kafka_offset(to)?).map_err(|error| failed(&error))?;
                self.consumer.incremental_assign(&list).map_err(|error| failed(&error))?;
                Ok(before)
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// The offset behind the last message that came out of a partition's queue since the last seek. Messages that only
    /// librdkafka sees count too: the markers of transactions.
    pub(super) fn position(&self, topic: &str, partition: Partition) -> Result<Option<Offset>> {
        let number = kafka_partition(partition)?;
        let list = self.consumer.position().map_err(|error| self.explain(&format!("reading {topic}"), &error))?;
        let offset = list.find_partition(topic, number).map(|found| found.offset());
        Ok(match offset {
            Some(KafkaOffset::Offset(offset)) => u64::try_from(offset).ok().map(Offset),
            _ => None,
        })
    }

    /// Ends reading a partition.
    pub(super) fn unassign(&self, topic: &str, partition: Partition) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(topic, kafka_partition(partition)?);
        self.consumer.incremental_unassign(&list).map_err(|error| self.explain(&format!("leaving {topic}"), &error))
    }

    fn explain(&self, doing: &str, error: &KafkaError) -> Error {
        self.consumer.context().explain(doing, &self.brokers, error)
    }

    /// What is not of one partition: errors of the connection, and what librdkafka says. Must be called regularly.
    pub(super) fn event(&self) -> Option<std::result::Result<BorrowedMessage<'_>, KafkaError>> {
        next_event(&self.consumer)
    }
}

/// Kafka's number of a partition.
pub(super) fn kafka_partition(partition: Partition) -> Result<i32> {
    i32::try_from(partition.0).map_err(|_| Error::input(format!("Kafka has no partition {partition}")))
}

/// Kafka's form of an offset.
pub(super) fn kafka_offset(offset: Offset) -> Result<KafkaOffset> {
    i64::try_from(offset.0).map(KafkaOffset::Offset).map_err(|_| Error::input(format!("Kafka has no offset {offset}")))
}

/// The offset of a message.
pub(super) fn offset_of(message: &BorrowedMessage<'_>) -> Offset {
    Offset(u64::try_from(message.offset()).unwrap_or_default())
}

/// When a message was published, -1 if it does not say.
pub(super) fn timestamp_of(message: &BorrowedMessage<'_>) -> i64 {
    match message.timestamp() {
        Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => time,
        Timestamp::NotAvailable => -1,
    }
}

/// Appends a message to a batch, without an allocation of its own unless it has headers.
pub(super) fn append(message: &BorrowedMessage<'_>, batch: &mut RawBatchBuilder) -> std::result::Result<(), RawError> {
    let timestamp_ms = timestamp_of(message);
    let (key, value) = (message.key(), message.payload());
    match message.headers() {
        None => batch.append(offset_of(message), timestamp_ms, key, value, &[]),
        Some(headers) => {
            let headers = readable_headers(headers);
            batch.append(offset_of(message), timestamp_ms, key, value, &headers)
        }
    }
}

/// The headers, with [`UNREADABLE_HEADER`] in the place of those that a record cannot hold.
///
/// rdkafka panics on a header whose name is not UTF-8, and offers no other way to it; such a panic is caught here.
/// The decoder quarantines records with the marker, so that the loss shows.
pub(super) fn readable_headers<H: Headers>(headers: &H) -> Vec<(&str, Option<&[u8]>)> {
    let count = headers.count();
    let mut readable = Vec::with_capacity(count.min(HEADERS_MAX));
    for at in 0..count {
        if readable.len() + 1 == HEADERS_MAX && count > HEADERS_MAX {
            readable.push((UNREADABLE_HEADER, None));
            break;
        }
        let header = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| headers.try_get(at)));
        readable.push(match header {
            Ok(Some(header)) => (header.key, header.value),
            Ok(None) | Err(_) => (UNREADABLE_HEADER, None),
        });
    }
    readable
}
