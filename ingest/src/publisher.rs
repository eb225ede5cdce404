//! Publishing: rows in, Kafka records out.
//!
//! The producer is idempotent (a retry never doubles a record), batches and compresses, and waits when its queue is
//! full. Records with the same key go to the same partition, chosen with murmur2 as Java's default partitioner does, so
//! that they keep their order whoever else publishes to the topic; records without a key are spread.
//!
//! With a [`Signer`] each record is signed. Records then wait until their run is closed, in memory, and are sent in their
//! order; what was not flushed when the publisher is dropped was never sent.
//!
//! A record that was [`sent`](Counts::sent) is one that the broker acknowledged; nothing else counts as sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_proof::statement::{Signatures, StreamDefinition};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use serde_json::{Map, Value as Json};

use crate::encode::{Binding, Cell, EncodeError, Encoder, Message};
use crate::error::{Error, Result};
use crate::kafka::{KafkaConfig, Quiet, reason};
use crate::signer::{Run, Signer};

/// How long to wait when the producer's queue is full, before trying again.
const FULL_PAUSE: Duration = Duration::from_millis(5);
const FLUSH_STEP: Duration = Duration::from_millis(500);

/// How many records went where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the producer.
    pub queued: u64,
    /// Acknowledged by the broker.
    pub sent: u64,
    /// Given up.
    pub failed: u64,
}

/// Why a row was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The row does not fit the schema. Nothing was sent of it; the next row may well fit.
    #[error(transparent)]
    Row(#[from] EncodeError),
    /// The broker or the producer.
    #[error(transparent)]
    Kafka(#[from] Error),
}

/// Publishes records of one stream.
pub struct Publisher {
    kafka: KafkaConfig,
    topic: String,
    encoder: Encoder,
    producer: ThreadedProducer<Deliveries>,
    message: Message,
    signing: Option<tokio::sync::Mutex<Run>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.topic).field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// A publisher for the stream. Connects lazily: a broker that is out of reach shows at the first flush.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) for a definition or a setting that is wrong.
    pub fn new(kafka: &KafkaConfig, definition: &StreamDefinition) -> Result<Self> {
        kafka.check()?;
        let encoder = Encoder::new(definition)?;
        let mut config = kafka.client_config();
        for (key, value) in [
            ("compression.type", "zstd"),
            ("linger.ms", "20"),
            ("batch.num.messages", "10000"),
            ("queue.buffering.max.messages", "100000"),
            ("queue.buffering.max.kbytes", "65536"),
        ] {
            if !kafka.settings.contains_key(key) {
                config.set(key, value);
            }
        }
        config.set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        let producer = ThreadedProducer::from_config_and_context(&config, Deliveries::default())
            .map_err(|error| Error::input(format!("a Kafka setting is wrong: {}", reason(&error))))?;
        Ok(Self {
            kafka: kafka.clone(),
            topic: definition.topic.clone(),
            encoder,
            producer,
            message: Message::default(),
            signing: None,
        })
    }

    /// The same publisher, whose records are signed from now on.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) when `definition`, which must be the publisher's own, refuses signatures.
    pub fn signed(self, definition: &StreamDefinition, signer: Signer) -> Result<Self> {
        if definition.signatures == Signatures::Refused {
            return Err(Error::input(format!("the stream {} takes unsigned records alone", definition.name)));
        }
        Ok(Self { signing: Some(tokio::sync::Mutex::new(Run::new(signer, definition))), ..self })
    }

    /// A publisher for another stream over the same connection, with counts in common. It does not sign.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) for a definition that is wrong.
    pub fn and_for(&self, definition: &StreamDefinition) -> Result<Self> {
        Ok(Self {
            kafka: self.kafka.clone(),
            topic: definition.topic.clone(),
            encoder: Encoder::new(definition)?,
            producer: self.producer.clone(),
            message: Message::default(),
            signing: None,
        })
    }

    /// The encoder, for [`Encoder::bind`] and [`Encoder::fields`].
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Publishes one row; waits while the producer's queue is full.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn send(&mut self, binding: &Binding, row: &[Cell<'_>]) -> Result<(), PublishError> {
        self.encoder.encode(binding, row, &mut self.message)?;
        Ok(self.send_message().await?)
    }

    /// Publishes one JSON object.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn send_object(&mut self, row: &Map<String, Json>) -> Result<(), PublishError> {
        self.encoder.encode_object(row, &mut self.message)?;
        Ok(self.send_message().await?)
    }

    /// Publishes bytes as they are, whether the stream's schema allows them or not: for tests and for a simulator that
    /// shows what happens to bad records.
    ///
    /// # Errors
    /// When the producer refuses the record, for example because it is larger than the broker takes.
    pub async fn send_raw(&self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp_ms: Option<i64>) -> Result<()> {
        let timestamp_ms = timestamp_ms.filter(|&time| time >= 0).unwrap_or_else(now_ms);
        let Some(signing) = &self.signing else {
            return self.produce(self.record(timestamp_ms, key, value)).await;
        };
        let mut run = signing.lock().await;
        if run.push(key, value, timestamp_ms) { self.produce_run(&mut run).await } else { Ok(()) }
    }

    fn record<'r>(
        &'r self,
        timestamp_ms: i64,
        key: Option<&'r [u8]>,
        value: Option<&'r [u8]>,
    ) -> BaseRecord<'r, [u8], [u8]> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic).timestamp(timestamp_ms);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        record
    }

    /// Signs and sends what waits. A record that the producer refuses does not keep back the others of its run.
    async fn produce_run(&self, run: &mut Run) -> Result<()> {
        let mut outcome = Ok(());
        for signed in run.close()? {
            let mut headers = OwnedHeaders::new_with_capacity(signed.headers.len());
            for (key, value) in &signed.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let partition = i32::try_from(signed.partition.0).unwrap_or(i32::MAX);
            let record = self.record(signed.timestamp_ms, signed.key.as_deref(), signed.value.as_deref());
            let sent = self.produce(record.partition(partition).headers(headers)).await;
            outcome = outcome.and(sent);
        }
        outcome
    }

    /// Hands a record to the producer; waits while its queue is full.
    async fn produce(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.producer.context().queued.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                Err((error, _)) => {
                    let doing = format!("publishing to {}", self.topic);
                    return Err(self.producer.context().quiet.explain(&doing, &self.kafka.brokers, &error));
                }
            }
        }
    }

    async fn send_message(&mut self) -> Result<()> {
        // Taken out and put back, so that its buffers serve the next row too.
        let message = std::mem::take(&mut self.message);
        let key = message.key.as_deref().map(str::as_bytes);
        let outcome = self.send_raw(key, Some(&message.value), message.event_time_ms).await;
        self.message = message;
        outcome
    }

    /// Waits until every record handed over is acknowledged or given up.
    ///
    /// # Errors
    /// [`Retry`](crate::ErrorKind::Retry) when records were given up since the last flush: how many, and why the last.
    pub async fn flush(&self) -> Result<Counts> {
        if let Some(signing) = &self.signing {
            self.produce_run(&mut *signing.lock().await).await?;
        }
        loop {
            let producer = self.producer.clone();
            let flushed = tokio::task::spawn_blocking(move || producer.flush(FLUSH_STEP))
                .await
                .map_err(|error| Error::bug("flushing did not finish").because(error))?;
            match flushed {
                Ok(()) => break,
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut) => {}
                Err(error) => {
                    let doing = format!("publishing to {}", self.topic);
                    return Err(self.producer.context().quiet.explain(&doing, &self.kafka.brokers, &error));
                }
            }
        }
        let context = self.producer.context();
        match context.take_failure() {
            None => Ok(self.counts()),
            Some(why) => Err(Error::retry(format!(
                "publishing to {}: {} records were not acknowledged by {}; the last because of: {}",
                self.topic,
                self.counts().failed,
                self.kafka.brokers,
                context.quiet.refusal().map_or_else(|| why.clone(), |refusal| format!("{why}: {refusal}"))
            ))),
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let context = self.producer.context();
        Counts {
            queued: context.queued.load(Ordering::Relaxed),
            sent: context.sent.load(Ordering::Relaxed),
            failed: context.failed.load(Ordering::Relaxed),
        }
    }
}

/// Counts the broker's answers.
#[derive(Debug, Clone, Default)]
struct Deliveries(Arc<Tally>);

#[derive(Debug, Default)]
struct Tally {
    quiet: Quiet,
    queued: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl std::ops::Deref for Deliveries {
    type Target = Tally;

    fn deref(&self) -> &Tally {
        &self.0
    }
}

impl Deliveries {
    fn take_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, message: &str) {
        self.quiet.error(error, message);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason(error));
            }
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
