//! Brings the dead letters of one stream into its topic, and does not return before they are there.
//!
//! A record that the broker refuses for its size can never be delivered: it is counted and named in the log, and the others
//! go on. The broker judges what a producer sends together, and so refuses small records that travel with a large one: each of
//! them is sent once more alone before it counts. Everything else is tried again, from the first record that was not
//! acknowledged; those after it that were are doubled then.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array as _, StringArray};
use cairn_anchor::raw::RawBatch;
use cairn_chain_client::AnchorEntry;
use cairn_proof::statement::StreamDefinition;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError;
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;

use super::{DeadLetters, Pause, entry};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::{KafkaConfig, Quiet, reason};
use crate::topics::{TopicSpec, ensure_exists};

/// Records, and bytes of their keys and values, that may wait for their acknowledgement; one record may be larger.
const IN_FLIGHT_MAX: usize = 1_000;
const IN_FLIGHT_BYTES_MAX: usize = 16 << 20;

type Client = FutureProducer<Quiet>;

/// A record on its way.
struct Sent {
    row: usize,
    bytes: usize,
    delivery: DeliveryFuture,
}

/// Delivers to one topic.
pub(super) struct Delivery<'d> {
    by: &'d DeadLetters,
    definition: &'d StreamDefinition,
    topic: String,
    /// Made anew after a failure: an idempotent producer may be of no more use then.
    client: Option<Client>,
    /// Of the anchor that is delivered, the first row that is not.
    row: usize,
    /// Rows that were refused together with others, and are to be sent alone.
    alone: Vec<usize>,
}

impl<'d> Delivery<'d> {
    pub(super) fn new(by: &'d DeadLetters, definition: &'d StreamDefinition, topic: String) -> Self {
        Self { by, definition, topic, client: None, row: 0, alone: Vec::new() }
    }

    /// Delivers the quarantined records of an anchor, however long it takes.
    pub(super) async fn deliver(&mut self, entry: &Arc<AnchorEntry>) {
        let stream = self.definition.name.as_str();
        let mut pause = Pause::new();
        let mut complaint = String::new();
        self.row = 0;
        while let Err(error) = self.attempt(entry).await {
            self.by.metrics.dead_letter_failed(stream);
            if error.to_string() != complaint {
                complaint = error.to_string();
                let (partition, first) = (entry.anchor.partition.0, entry.anchor.first.0);
                tracing::warn!(stream, partition, first, %error, "dead letters wait, nothing is lost");
            }
            if let Some(client) = self.client.take() {
                // Ending a client waits for its thread.
                drop(tokio::task::spawn_blocking(move || drop(client)));
            }
            pause.pass().await;
        }
    }

    async fn attempt(&mut self, entry: &Arc<AnchorEntry>) -> Result<()> {
        let _turn = self.by.turns.acquire().await.map_err(|error| Error::bug("turns were closed").because(error))?;
        let (raw, reasons) = self.by.anchorer.quarantine_of(entry).await.map_err(|error| {
            Error::retry(format!("the segment {} cannot be read", entry.anchor.segment.path)).because(error)
        })?;
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let spec = TopicSpec { topic: self.topic.clone(), partitions: self.by.config.partitions };
                ensure_exists(&self.by.kafka, &spec).await?;
                self.client.insert(connect(&self.by.kafka)?).clone()
            }
        };
        self.send(&client, entry, &raw, &reasons).await
    }

    async fn send(
        &mut self,
        client: &Client,
        entry: &AnchorEntry,
        raw: &RawBatch,
        reasons: &StringArray,
    ) -> Result<()> {
        let mut in_flight: VecDeque<Sent> = VecDeque::new();
        self.alone.clear();
        for row in (self.row..raw.len()).filter(|row| reasons.is_valid(*row)) {
            let bytes = raw.key(row).map_or(0, <[u8]>::len) + raw.value(row).map_or(0, <[u8]>::len);
            let (mut records, mut held) = (in_flight.len(), in_flight.iter().map(|sent| sent.bytes).sum::<usize>());
            while records > 0 && (records >= IN_FLIGHT_MAX || held + bytes > IN_FLIGHT_BYTES_MAX) {
                (records, held) = (records - 1, held - self.acknowledged(&mut in_flight).await?);
            }
            match client.send_result(self.record(entry, raw, row, reasons)) {
                Ok(delivery) => in_flight.push_back(Sent { row, bytes, delivery }),
                Err((error, _)) if is_for_good(&error) => self.alone.push(row),
                Err((error, _)) => return Err(self.failed(&error)),
            }
        }
        while !in_flight.is_empty() {
            self.acknowledged(&mut in_flight).await?;
        }
        for row in std::mem::take(&mut self.alone) {
            let sent = client.send_result(self.record(entry, raw, row, reasons));
            match outcome(sent.map_err(|(error, _)| error)).await {
                Ok(()) => self.by.metrics.dead_letter(&self.definition.name),
                Err(error) if is_for_good(&error) => self.refused(raw, row, &error),
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(())
    }

    fn record<'r>(
        &'r self,
        entry: &AnchorEntry,
        raw: &'r RawBatch,
        row: usize,
        reasons: &StringArray,
    ) -> FutureRecord<'r, [u8], [u8]> {
        let mut record = FutureRecord::to(&self.topic);
        record.headers = Some(entry::headers(self.definition, raw, row, reasons.value(row), &entry.id));
        record.timestamp = raw.timestamps_ms().get(row).copied().filter(|time| *time >= 0);
        (record.key, record.payload) = (raw.key(row), raw.value(row));
        record
    }

    /// Waits until the oldest record on its way is acknowledged; returns its bytes. Those before it are.
    async fn acknowledged(&mut self, in_flight: &mut VecDeque<Sent>) -> Result<usize> {
        let Some(Sent { row, bytes, delivery }) = in_flight.pop_front() else { return Ok(0) };
        match outcome(Ok(delivery)).await {
            Ok(()) => {
                self.by.metrics.dead_letter(&self.definition.name);
                if self.alone.is_empty() {
                    self.row = row + 1;
                }
            }
            Err(error) if is_for_good(&error) => self.alone.push(row),
            Err(error) => return Err(self.failed(&error)),
        }
        Ok(bytes)
    }

    fn failed(&self, error: &KafkaError) -> Error {
        let doing = format!("delivering to {}", self.topic);
        let explained = Quiet::default().explain(&doing, &self.by.kafka.brokers, error);
        match explained.kind() {
            ErrorKind::NotAllowed => explained,
            _ => Error::retry(format!("{doing}: {}", reason(error))),
        }
    }

    fn refused(&self, raw: &RawBatch, row: usize, error: &KafkaError) {
        let (stream, partition) = (self.definition.name.as_str(), raw.partition().0);
        let offset = raw.offsets().get(row).copied().unwrap_or_default();
        self.by.metrics.dead_letter_refused(stream, partition, offset, &self.topic, &reason(error));
    }
}

/// What became of a record that was handed over.
async fn outcome(sent: std::result::Result<DeliveryFuture, KafkaError>) -> std::result::Result<(), KafkaError> {
    match sent?.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err((error, _))) => Err(error),
        Err(_) => Err(KafkaError::Canceled),
    }
}

/// Whether trying again cannot help.
fn is_for_good(error: &KafkaError) -> bool {
    let for_good =
        [RDKafkaErrorCode::MessageSizeTooLarge, RDKafkaErrorCode::InvalidMessageSize, RDKafkaErrorCode::InvalidRecord];
    error.rdkafka_error_code().is_some_and(|code| for_good.contains(&code))
}

fn connect(kafka: &KafkaConfig) -> Result<Client> {
    let mut config = kafka.client_config();
    for (key, value) in [
        ("compression.type", "zstd"),
        ("linger.ms", "20"),
        // What the broker takes is the broker's to say.
        ("message.max.bytes", "1000000000"),
        ("message.timeout.ms", "30000"),
        ("queue.buffering.max.kbytes", "1048576"),
    ] {
        if !kafka.settings.contains_key(key) {
            config.set(key, value);
        }
    }
    config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
    Client::from_config_and_context(&config, Quiet::default())
        .map_err(|error| Error::input(format!("a Kafka setting is wrong: {}", reason(&error))))
}
