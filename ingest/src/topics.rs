//! Topics: made when missing, refused when they do not fit, and their end offsets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cairn_proof::units::{Offset, Partition};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset as KafkaOffset;
use rdkafka::types::RDKafkaErrorCode;

use crate::error::{Error, Result};
use crate::kafka::{KafkaConfig, Quiet, REQUEST_PATIENCE, TopicIds, kafka_error, next_event};

/// How often a topic's number of partitions is looked at again.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// A topic as a stream's definition wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub topic: String,
    /// How many partitions it has; a topic's records are only contiguous as long as this does not change.
    pub partitions: u32,
}

/// What a partition holds at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The first offset that is still there.
    pub start: Offset,
    /// The offset that the next record will get.
    pub end: Offset,
}

/// Makes the topics that are missing, and refuses those whose partition count differs.
///
/// A new topic keeps its records for ever (`retention.ms=-1`): records are published with their event time, and a
/// broker would otherwise take the readings of last year for expired before they are anchored.
///
/// # Errors
/// [`Input`](crate::ErrorKind::Input) for a different partition count, [`Retry`](crate::ErrorKind::Retry) when no
/// broker answers.
pub async fn ensure_topics(kafka: &KafkaConfig, topics: &[TopicSpec]) -> Result<()> {
    let existing = partition_counts(kafka).await?;
    let mut missing = Vec::new();
    for spec in topics {
        match existing.get(&spec.topic) {
            Some(&found) if found == spec.partitions => {}
            Some(&found) => {
                return Err(Error::input(format!(
                    "the topic {} has {found} partitions, its stream is defined with {}: define the stream with \
                     {found}, or choose another topic",
                    spec.topic, spec.partitions
                )));
            }
            None => missing.push(spec),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    create(kafka, &missing).await
}

/// Makes a topic that is missing; one that is there is taken as it is.
///
/// # Errors
/// [`Retry`](crate::ErrorKind::Retry) when no broker answers.
pub(crate) async fn ensure_exists(kafka: &KafkaConfig, spec: &TopicSpec) -> Result<()> {
    if partition_counts(kafka).await?.contains_key(&spec.topic) {
        return Ok(());
    }
    create(kafka, &[spec]).await
}

async fn create(kafka: &KafkaConfig, missing: &[&TopicSpec]) -> Result<()> {
    let quiet = Quiet::default();
    let failed = |error: KafkaError| quiet.explain("making topics", &kafka.brokers, &error);
    let admin = AdminClient::from_config_and_context(&kafka.client_config(), quiet.clone()).map_err(failed)?;
    let new_topics = missing
        .iter()
        .map(|spec| {
            let partitions = i32::try_from(spec.partitions)
                .map_err(|_| Error::input(format!("{} partitions for {} are too many", spec.partitions, spec.topic)))?;
            Ok(NewTopic::new(&spec.topic, partitions, TopicReplication::Fixed(-1)).set("retention.ms", "-1"))
        })
        .collect::<Result<Vec<_>>>()?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_PATIENCE)).operation_timeout(Some(REQUEST_PATIENCE));
    let answers = admin.create_topics(&new_topics, &options).await.map_err(failed)?;
    for answer in answers {
        match answer {
            Ok(topic) => tracing::info!(topic, "topic made"),
            // Another process was faster; the partition count is checked once more below.
            Err((topic, RDKafkaErrorCode::TopicAlreadyExists)) => tracing::debug!(topic, "topic already there"),
            Err((topic, code)) => {
                return Err(Error::retry(format!("the broker did not make the topic {topic}: {code}")));
            }
        }
    }
    let counts = partition_counts(kafka).await?;
    match missing.iter().find(|spec| counts.get(&spec.topic).is_some_and(|&count| count != spec.partitions)) {
        None => Ok(()),
        Some(spec) => Err(Error::input(format!(
            "the topic {} was made by someone else at the same moment, not with {} partitions",
            spec.topic, spec.partitions
        ))),
    }
}

async fn partition_counts(kafka: &KafkaConfig) -> Result<BTreeMap<String, u32>> {
    let kafka = kafka.clone();
    blocking(move || {
        let client = client(&kafka, Quiet::default())?;
        let metadata = client.fetch_metadata(None, REQUEST_PATIENCE).map_err(|error| {
            listen(&client);
            client.context().explain("listing topics", &kafka.brokers, &error)
        })?;
        let count = |partitions: usize| u32::try_from(partitions).unwrap_or(u32::MAX);
        Ok(metadata
            .topics()
            .iter()
            .filter(|topic| !topic.partitions().is_empty())
            .map(|topic| (topic.name().to_owned(), count(topic.partitions().len())))
            .collect())
    })
    .await
}

/// The first and end offsets of every partition of the given topics, as the broker has them now.
///
/// What `cairn status` shows next to the anchored heads. A topic that does not exist is left out; partitions that it has
/// beyond those of its spec are not. The end is that of what is decided: records of a transaction that is still open
/// lie beyond it.
///
/// # Errors
/// [`Retry`](crate::ErrorKind::Retry) when no broker answers.
pub async fn probe(kafka: &KafkaConfig, topics: &[TopicSpec]) -> Result<BTreeMap<(String, Partition), Ends>> {
    let (kafka, topics) = (kafka.clone(), topics.to_vec());
    blocking(move || Prober::connect(&kafka, Quiet::default())?.ends(&topics)).await
}

/// A connection for asking where topics end.
pub(crate) struct Prober {
    client: BaseConsumer<Quiet>,
    brokers: String,
    /// How many partitions each topic has, and when that was asked.
    known: BTreeMap<String, (u32, Instant)>,
}

impl Prober {
    pub(crate) fn connect(kafka: &KafkaConfig, context: Quiet) -> Result<Self> {
        Ok(Self { client: client(kafka, context)?, brokers: kafka.brokers.clone(), known: BTreeMap::new() })
    }

    /// Asks for all partitions at once; blocks. Topics and partitions that do not exist are left out.
    pub(crate) fn ends(&mut self, topics: &[TopicSpec]) -> Result<BTreeMap<(String, Partition), Ends>> {
        // Nothing else empties the queue of what librdkafka says.
        listen(&self.client);
        let mut existing = Vec::with_capacity(topics.len());
        for spec in topics {
            let partitions = self.partitions(spec)?;
            if partitions > 0 {
                existing.push(TopicSpec { topic: spec.topic.clone(), partitions });
            }
        }
        if existing.is_empty() {
            return Ok(BTreeMap::new());
        }
        let starts = self.ask(&existing, KafkaOffset::Beginning)?;
        let mut ends = self.ask(&existing, KafkaOffset::End)?;
        Ok(starts
            .into_iter()
            .filter_map(|(place, start)| ends.remove(&place).map(|end| (place, Ends { start, end })))
            .collect())
    }

    fn partitions(&mut self, spec: &TopicSpec) -> Result<u32> {
        if let Some((count, _)) = self.known.get(&spec.topic).filter(|(_, asked)| asked.elapsed() < REFRESH_EVERY) {
            return Ok(*count);
        }
        let metadata = self
            .client
            .fetch_metadata(Some(&spec.topic), REQUEST_PATIENCE)
            .map_err(|error| self.explain(&format!("asking for the topic {}", spec.topic), &error))?;
        let found = metadata.topics().iter().find(|topic| topic.name() == spec.topic);
        let count = found.map_or(0, |topic| u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX));
        if count > spec.partitions {
            tracing::error!(
                topic = spec.topic,
                found = count,
                expected = spec.partitions,
                "the topic has more partitions than its stream: what is in the others is not anchored"
            );
        }
        if count > 0 {
            self.known.insert(spec.topic.clone(), (count, Instant::now()));
        } else if self.known.remove(&spec.topic).is_some() {
            tracing::error!(topic = spec.topic, "the topic is gone: nothing of it can be read");
        }
        Ok(count)
    }

    fn explain(&self, doing: &str, error: &KafkaError) -> Error {
        listen(&self.client);
        self.client.context().explain(doing, &self.brokers, error)
    }

    fn ask(&self, topics: &[TopicSpec], what: KafkaOffset) -> Result<BTreeMap<(String, Partition), Offset>> {
        let failed = |error: KafkaError| self.explain("asking where the topics end", &error);
        let mut list = TopicPartitionList::new();
        for spec in topics {
            for partition in 0..i32::try_from(spec.partitions).unwrap_or(i32::MAX) {
                list.add_partition_offset(&spec.topic, partition, what).map_err(failed)?;
            }
        }
        let answers = self.client.offsets_for_times(list, REQUEST_PATIENCE).map_err(failed)?;
        let mut offsets = BTreeMap::new();
        for answer in answers.elements() {
            let (Ok(()), KafkaOffset::Offset(offset)) = (answer.error(), answer.offset()) else { continue };
            if let (Ok(partition), Ok(offset)) = (u32::try_from(answer.partition()), u64::try_from(offset)) {
                offsets.insert((answer.topic().to_owned(), Partition(partition)), Offset(offset));
            }
        }
        Ok(offsets)
    }
}

/// Takes in what librdkafka has to say to a client that consumes nothing.
fn listen(client: &BaseConsumer<Quiet>) {
    while next_event(client).is_some() {}
}

/// A client for questions only: it has no group and consumes nothing.
fn client(kafka: &KafkaConfig, context: Quiet) -> Result<BaseConsumer<Quiet>> {
    let mut config = kafka.client_config();
    if context.notes_topics() {
        TopicIds::listen(&mut config);
    }
    BaseConsumer::from_config_and_context(&config, context)
        .map_err(|error| kafka_error("connecting", &kafka.brokers, &error))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::bug("a request to the broker did not finish").because(error))?
}
