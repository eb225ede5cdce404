//! What ingest counts, and what it says about it: one method for each thing that happens, which both counts and logs.
//!
//! | metric | labels | what |
//! | --- | --- | --- |
//! | `cairn_ingest_records_total` | stream | records read |
//! | `cairn_ingest_bytes_total` | stream | bytes of their keys, values and headers |
//! | `cairn_quarantined_records_total` | stream, reason | records quarantined when a batch was decoded |
//! | `cairn_ingest_kafka_end_offset` | stream, partition | the offset that the next published record will get |
//! | `cairn_ingest_anchored_offset` | stream, partition | the offset that the next anchor begins with |
//! | `cairn_anchoring_lag_records` | stream, partition | the difference of the two |
//! | `cairn_anchoring_lag_seconds` | stream, partition | since when the oldest record without an anchor is there |
//! | `cairn_ingest_paused_partitions` | | partitions that are not read because batches wait for the chain or for memory |
//! | `cairn_ingest_stopped_partitions` | stream | partitions that wait for a person |
//! | `cairn_ingest_surplus_partitions` | stream | partitions of the topic beyond those of its stream: not anchored |
//! | `cairn_ingest_held_bytes` | | bytes read and not yet anchored |
//! | `cairn_ingest_gap_offsets_total` | stream | offsets declared to hold no record |
//! | `cairn_ingest_kafka_errors_total` | code | errors of the connection to Kafka |
//! | `cairn_ingest_registry_answers_total` | answer | what the schema registry was asked: `schema`, `none`, `failed` |
//! | `cairn_ingest_registry_waiting_partitions` | | partitions whose batch waits for the schema registry |
//! | `cairn_ingest_schema_updates_total` | stream, outcome | versions of schemas that came while it was read: `taken`, `refused` |
//! | `cairn_ingest_dead_letters_total` | stream | dead letters that the topic acknowledged |
//! | `cairn_ingest_dead_letters_refused_total` | stream | quarantined records that the topic can never take: too large |
//! | `cairn_ingest_dead_letter_failures_total` | stream | attempts to deliver dead letters that failed and are made again |
//! | `cairn_ingest_dead_letters_waiting` | stream | quarantined records that are anchored and not delivered yet |

use cairn_proof::{Offset, Partition};
use prometheus::{Error, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use cairn_proof::statement::StreamDefinition;

use crate::decode::ReasonCode;
use crate::error::Error as IngestError;

/// Metrics of one ingest process; a clone counts into the same ones.
#[derive(Debug, Clone)]
pub struct Metrics {
    records: IntCounterVec,
    bytes: IntCounterVec,
    quarantined: IntCounterVec,
    gap_offsets: IntCounterVec,
    kafka_errors: IntCounterVec,
    end_offset: IntGaugeVec,
    anchored_offset: IntGaugeVec,
    lag_records: IntGaugeVec,
    lag_seconds: GaugeVec,
    stopped: IntGaugeVec,
    surplus: IntGaugeVec,
    paused: IntGauge,
    held_bytes: IntGauge,
    registry_answers: IntCounterVec,
    registry_waiting: IntGauge,
    schema_updates: IntCounterVec,
    dead_letters: DeadLetterMetrics,
}

#[derive(Debug, Clone)]
struct DeadLetterMetrics {
    delivered: IntCounterVec,
    refused: IntCounterVec,
    failures: IntCounterVec,
    waiting: IntGaugeVec,
}

impl DeadLetterMetrics {
    fn register(registry: &Registry) -> Result<Self, Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["stream"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, Error>(counter)
        };
        let waiting = Opts::new(
            "cairn_ingest_dead_letters_waiting",
            "Quarantined records that are anchored and not delivered yet.",
        );
        let waiting = IntGaugeVec::new(waiting, &["stream"])?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self {
            delivered: counter("cairn_ingest_dead_letters_total", "Dead letters that the topic acknowledged.")?,
            refused: counter(
                "cairn_ingest_dead_letters_refused_total",
                "Quarantined records that the topic of dead letters can never take.",
            )?,
            failures: counter(
                "cairn_ingest_dead_letter_failures_total",
                "Attempts to deliver dead letters that failed and are made again.",
            )?,
            waiting,
        })
    }
}

impl Metrics {
    /// Makes the metrics and shows them in `registry`.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, Error>(gauge)
        };
        let single = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, Error>(gauge)
        };
        let place = &["stream", "partition"];
        let lag_seconds = GaugeVec::new(
            Opts::new("cairn_anchoring_lag_seconds", "Since when the oldest record without an anchor is there."),
            place,
        )?;
        registry.register(Box::new(lag_seconds.clone()))?;
        Ok(Self {
            records: counter("cairn_ingest_records_total", "Records read from Kafka.", &["stream"])?,
            bytes: counter("cairn_ingest_bytes_total", "Bytes of keys, values and headers read.", &["stream"])?,
            quarantined: counter(
                "cairn_quarantined_records_total",
                "Records quarantined, by kind of reason.",
                &["stream", "reason"],
            )?,
            gap_offsets: counter("cairn_ingest_gap_offsets_total", "Offsets declared to hold no record.", &["stream"])?,
            kafka_errors: counter("cairn_ingest_kafka_errors_total", "Errors of the connection to Kafka.", &["code"])?,
            end_offset: gauge("cairn_ingest_kafka_end_offset", "Offset that the next record will get.", place)?,
            anchored_offset: gauge("cairn_ingest_anchored_offset", "Offset that the next anchor begins with.", place)?,
            lag_records: gauge("cairn_anchoring_lag_records", "Records without an anchor.", place)?,
            lag_seconds,
            stopped: gauge("cairn_ingest_stopped_partitions", "Partitions that wait for a person.", &["stream"])?,
            surplus: gauge(
                "cairn_ingest_surplus_partitions",
                "Partitions of the topic beyond those of its stream: not anchored.",
                &["stream"],
            )?,
            paused: single("cairn_ingest_paused_partitions", "Partitions not read for now: batches wait.")?,
            held_bytes: single("cairn_ingest_held_bytes", "Bytes read and not yet anchored.")?,
            registry_answers: counter(
                "cairn_ingest_registry_answers_total",
                "Answers of the schema registry: a schema, that there is none, or none that can be used.",
                &["answer"],
            )?,
            registry_waiting: single(
                "cairn_ingest_registry_waiting_partitions",
                "Partitions whose batch waits for the schema registry.",
            )?,
            schema_updates: counter(
                "cairn_ingest_schema_updates_total",
                "Versions of schemas that came while a stream was read.",
                &["stream", "outcome"],
            )?,
            dead_letters: DeadLetterMetrics::register(registry)?,
        })
    }

    pub(crate) fn read(&self, stream: &str, records: u64, bytes: u64) {
        self.records.with_label_values(&[stream]).inc_by(records);
        self.bytes.with_label_values(&[stream]).inc_by(bytes);
    }

    pub(crate) fn decoded(&self, stream: &str, partition: Partition, quarantined: &[(ReasonCode, u64)]) {
        for (code, count) in quarantined {
            self.quarantined.with_label_values(&[stream, code.label()]).inc_by(*count);
            tracing::info!(stream, partition = partition.0, reason = code.label(), count, "records quarantined");
        }
    }

    pub(crate) fn gap(&self, stream: &str, partition: Partition, first: Offset, last: Offset) {
        self.gap_offsets.with_label_values(&[stream]).inc_by(last.0 - first.0 + 1);
        tracing::info!(stream, partition = partition.0, first = first.0, last = last.0, "offsets hold no record");
    }

    pub(crate) fn kafka_error(&self, code: &str, message: &str) {
        self.kafka_errors.with_label_values(&[code]).inc();
        tracing::warn!(code, "Kafka: {message}");
    }

    pub(crate) fn stopped(&self, stream: &str, partition: Partition, reason: &str) {
        self.stopped.with_label_values(&[stream]).inc();
        tracing::error!(stream, partition = partition.0, "partition stopped: {reason}");
    }

    pub(crate) fn registry_answer(&self, answer: &str) {
        self.registry_answers.with_label_values(&[answer]).inc();
    }

    /// A partition waits for the schema registry, until what is returned is dropped.
    pub(crate) fn waits_for_registry(&self, stream: &str, partition: Partition, why: &str) -> Waiting {
        tracing::warn!(
            stream,
            partition = partition.0,
            "a batch waits for the schema registry, nothing is lost: {why}"
        );
        self.registry_waiting.inc();
        Waiting(self.registry_waiting.clone())
    }

    /// A stream is decoded by the last schema of a definition from now on, or would be if it could.
    pub(crate) fn schema_update(&self, definition: &StreamDefinition, refused: Option<&IngestError>) {
        let (stream, versions) = (definition.name.as_str(), definition.schemas.len());
        let outcome = if refused.is_some() { "refused" } else { "taken" };
        self.schema_updates.with_label_values(&[stream, outcome]).inc();
        match refused {
            None => tracing::info!(stream, versions, "decoded by a new version of its schema"),
            Some(error) => tracing::error!(stream, versions, %error, "a new version of its schema is passed over"),
        }
    }

    pub(crate) fn dead_letter(&self, stream: &str) {
        self.dead_letters.delivered.with_label_values(&[stream]).inc();
    }

    pub(crate) fn dead_letter_failed(&self, stream: &str) {
        self.dead_letters.failures.with_label_values(&[stream]).inc();
    }

    pub(crate) fn dead_letters_waiting(&self, stream: &str, records: u64) {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.dead_letters.waiting.with_label_values(&[stream]).set(records);
    }

    /// A quarantined record that can never be a dead letter.
    pub(crate) fn dead_letter_refused(&self, stream: &str, partition: u32, offset: i64, topic: &str, why: &str) {
        self.dead_letters.refused.with_label_values(&[stream]).inc();
        tracing::error!(
            stream,
            partition,
            offset,
            topic,
            "no dead letter, the record is in the quarantine alone: {why}"
        );
    }

    pub(crate) fn surplus(&self, stream: &str, partitions: usize) {
        self.surplus.with_label_values(&[stream]).set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    pub(crate) fn following(&self, stream: &str, partitions: u32) {
        self.stopped.with_label_values(&[stream]).add(0);
        tracing::info!(stream, partitions, "reading stream");
    }

    pub(crate) fn pressure(&self, paused: usize, held_bytes: u64) {
        self.paused.set(i64::try_from(paused).unwrap_or(i64::MAX));
        self.held_bytes.set(i64::try_from(held_bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn anchored(&self, stream: &str, partition: Partition, next: Offset) {
        let place = partition.to_string();
        self.anchored_offset.with_label_values(&[stream, &place]).set(gauge_value(next));
    }

    pub(crate) fn lag(&self, stream: &str, partition: Partition, end: Offset, next: Offset, seconds: f64) {
        let place = partition.to_string();
        let place = [stream, &place];
        self.end_offset.with_label_values(&place).set(gauge_value(end));
        self.lag_records.with_label_values(&place).set(gauge_value(Offset(end.0.saturating_sub(next.0))));
        self.lag_seconds.with_label_values(&place).set(seconds);
    }
}

/// One partition that waits.
#[derive(Debug)]
pub(crate) struct Waiting(IntGauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn gauge_value(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}
