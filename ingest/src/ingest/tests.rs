//! Ingest over the embedded broker and a chain in process.

use std::sync::atomic::Ordering;
use std::time::Instant;

use cairn_anchor::audit::audit;
use cairn_proof::Offset;
use cairn_proof::statement::Format;
use prometheus::Registry;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::*;
use crate::broker::EmbeddedBroker;
use crate::decode::{AuditDecoder, UNREADABLE_HEADER};
use crate::publisher::Publisher;
use crate::testing::{definition, one_field};
use crate::topics::{Ends, TopicSpec, ensure_topics};
use chain::{World, anchorer};

mod apache;
mod chain;
mod dead_letters;
mod protobuf;
mod registry;
mod signed;
mod updates;

const PATIENCE: Duration = Duration::from_secs(60);

struct City {
    world: World,
    broker: Option<EmbeddedBroker>,
    kafka: KafkaConfig,
}

struct Worker {
    running: RunningIngest,
    registry: Registry,
}

fn numbers() -> StreamDefinition {
    definition(Format::Json, &[&one_field(r#""long""#)])
}

fn spec(definition: &StreamDefinition) -> TopicSpec {
    TopicSpec { topic: definition.topic.clone(), partitions: definition.partitions }
}

impl City {
    async fn new(definition: &StreamDefinition) -> Self {
        let world = World::new().await;
        world.node.register(definition);
        let broker =
            EmbeddedBroker::start(&world.folder().join("broker"), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let kafka = KafkaConfig::new(broker.bootstrap());
        ensure_topics(&kafka, &[spec(definition)]).await.unwrap();
        Self { world, broker: Some(broker), kafka }
    }

    fn ingest_with(&self, which: u8, change: impl FnOnce(&mut IngestConfig)) -> Worker {
        let registry = Registry::new();
        let mut config = IngestConfig::new(self.kafka.clone());
        config.probe_interval_ms = 100;
        change(&mut config);
        let metrics = Metrics::register(&registry).unwrap();
        let running = Ingest::start(&config, self.world.anchorer(which), anchorer(which), metrics).unwrap();
        Worker { running, registry }
    }

    fn ingest(&self, which: u8) -> Worker {
        self.ingest_with(which, |_| {})
    }

    /// Publishes so many numbers, counted from `from`, without keys.
    async fn publish(&self, definition: &StreamDefinition, from: u64, count: u64) {
        let mut publisher = Publisher::new(&self.kafka, definition).unwrap();
        for v in from..from + count {
            publisher.send_object(serde_json::json!({ "v": v }).as_object().unwrap()).await.unwrap();
        }
        publisher.flush().await.unwrap();
    }

    /// Waits until all that the topic holds is anchored; returns how many records that are.
    async fn wait_anchored(&self, definition: &StreamDefinition) -> u64 {
        let ends = crate::topics::probe(&self.kafka, &[spec(definition)]).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heads: Vec<_> = {
                let ledger = self.world.follower.ledger();
                let head = |partition| ledger.state().head(&definition.name, partition).unwrap_or_default();
                ends.iter().map(|((_, partition), ends)| (head(*partition), *ends)).collect()
            };
            if heads.iter().all(|(head, ends)| head.next >= ends.end) {
                return heads.iter().map(|(head, _)| head.records).sum();
            }
            assert!(Instant::now() < deadline, "not anchored in time: {heads:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Checks everything stored against the chain; returns how many records were checked.
    async fn audit(&self) -> u64 {
        let (world, decoder) = (&self.world, Arc::new(AuditDecoder));
        let report = audit(&world.follower, &world.segments, &world.secrets, None, decoder, |_| {}).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        report.checked.records
    }
}

impl Worker {
    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let value =
            |metric: &prometheus::proto::Metric| metric.get_counter().get_value() + metric.get_gauge().get_value();
        family.map_or(0.0, |family| family.get_metric().iter().map(value).sum())
    }

    async fn until(&self, what: &str, holds: impl Fn(&[PartitionStatus]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.running.status()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.running.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Batches of many partitions that are ready at the same time share statements; all of it is contiguous and proven.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_ready_together_share_a_statement() {
    let mut stream = StreamDefinition { partitions: 16, ..numbers() };
    stream.limits.age_ms_max = 100;
    let city = City::new(&stream).await;
    let worker = city.ingest(0);
    let (deadline, mut published) = (Instant::now() + PATIENCE, 0);
    let together = || city.world.follower.ledger().all_anchors().iter().filter(|entry| entry.place.is_some()).count();
    // Which batches are ready at one time is up to the machine: so again, until some were.
    while together() == 0 {
        assert!(Instant::now() < deadline, "no two batches ever shared a statement");
        city.publish(&stream, published, 640).await;
        published += 640;
        assert_eq!(city.wait_anchored(&stream).await, published);
    }
    let (anchors, statements) = {
        let ledger = city.world.follower.ledger();
        let statements: std::collections::BTreeSet<_> =
            ledger.all_anchors().iter().map(|entry| entry.statement_id()).collect();
        (ledger.all_anchors().len(), statements.len())
    };
    assert!(statements < anchors, "{statements} statements for {anchors} anchors");
    assert_eq!(city.audit().await, published);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_anchored_once_and_bad_ones_are_quarantined() {
    let stream = numbers();
    let city = City::new(&stream).await;
    city.publish(&stream, 0, 5_000).await;
    let worker = city.ingest(0);
    let publisher = Publisher::new(&city.kafka, &stream).unwrap();
    let bad: [Option<&[u8]>; 4] = [Some(b"{\"v\":1.5}"), Some(b"not json"), None, Some(b"")];
    for value in bad {
        publisher.send_raw(Some(b"k"), value, Some(7)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    assert_eq!(city.wait_anchored(&stream).await, 5_004);
    assert_eq!(city.audit().await, 5_004);
    let quarantined: u64 =
        city.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.quarantined).sum();
    assert_eq!(quarantined, 4);
    worker.until("the lag is zero", |all| all.iter().all(|place| place.end == Some(place.anchored))).await;
    worker.until("no lag in seconds", |all| all.iter().all(|place| place.lag_seconds == 0.0)).await;
    assert_eq!(worker.metric("cairn_ingest_records_total"), 5_004.0);
    assert_eq!(worker.metric("cairn_quarantined_records_total"), 4.0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(worker.metric("cairn_ingest_kafka_end_offset"), 5_004.0);
    assert_eq!(worker.metric("cairn_ingest_anchored_offset"), 5_004.0);
    assert_eq!(worker.metric("cairn_anchoring_lag_records"), 0.0);
    assert_eq!(worker.metric("cairn_ingest_held_bytes"), 0.0);
    worker.running.stop().await;
    city.broker.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_in_an_idle_stream_is_anchored_by_age() {
    let stream = numbers();
    let city = City::new(&stream).await;
    let worker = city.ingest(0);
    worker.until("both partitions are read", |all| all.len() == 2).await;
    let before = Instant::now();
    city.publish(&stream, 0, 1).await;
    assert_eq!(city.wait_anchored(&stream).await, 1);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_at_any_moment_neither_lose_nor_double() {
    let stream = numbers();
    let city = City::new(&stream).await;
    for round in 0..6 {
        let worker = city.ingest(0);
        city.publish(&stream, round * 3_000, 3_000).await;
        tokio::time::sleep(Duration::from_millis(37 * round)).await;
        if round % 2 == 0 {
            worker.running.stop().await;
        } else {
            drop(worker); // without an orderly end
        }
    }
    let worker = city.ingest(0);
    assert_eq!(city.wait_anchored(&stream).await, 18_000);
    assert_eq!(city.audit().await, 18_000);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_on_the_same_partitions_anchor_each_record_once() {
    let stream = numbers();
    let city = City::new(&stream).await;
    let workers = [city.ingest(0), city.ingest(1)];
    for round in 0..5 {
        city.publish(&stream, round * 2_000, 2_000).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(city.wait_anchored(&stream).await, 10_000);
    let anchors = city.world.follower.ledger().all_anchors().to_vec();
    assert_eq!(anchors.iter().map(|entry| entry.anchor.count).sum::<u64>(), 10_000);
    // A batch that both sealed has one segment and two secrets; the one that was anchored must be there.
    assert_eq!(city.audit().await, 10_000);
    for worker in workers {
        assert!(worker.running.status().iter().all(|place| place.stopped.is_none()), "{:?}", worker.running.status());
        worker.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_out_of_reach_pauses_within_bounded_memory() {
    let mut stream = definition(Format::Json, &[&one_field(r#""string""#)]);
    stream.limits.bytes_max = 100_000;
    let city = City::new(&stream).await;
    let worker = city.ingest_with(0, |config| config.memory_bytes_max = 1 << 20);
    worker.until("both partitions are read", |all| all.len() == 2).await;
    city.world.node.down.store(true, Ordering::SeqCst);
    let mut publisher = Publisher::new(&city.kafka, &stream).unwrap();
    let text = "x".repeat(1_000);
    for _ in 0..4_000 {
        publisher.send_object(serde_json::json!({ "v": text }).as_object().unwrap()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while worker.metric("cairn_ingest_paused_partitions") < 1.0 {
        assert!(Instant::now() < deadline, "never paused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(worker.metric("cairn_ingest_held_bytes") <= f64::from(1 << 20));
    worker.until("the lag grows", |all| all.iter().any(|place| place.lag_seconds > 1.0)).await;
    city.world.node.down.store(false, Ordering::SeqCst);
    assert_eq!(city.wait_anchored(&stream).await, 4_000);
    assert_eq!(city.audit().await, 4_000);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_pauses_within_bounded_memory_and_nothing_is_lost() {
    let mut stream = definition(Format::Json, &[&one_field(r#""string""#)]);
    (stream.limits.bytes_max, stream.partitions) = (100_000, 8);
    let city = City::new(&stream).await;
    // A file where the folder of the segments belongs: every write fails.
    let segments = city.world.folder().join("objects/segments");
    std::fs::write(&segments, b"in the way").unwrap();
    let worker = city.ingest_with(0, |config| (config.memory_bytes_max, config.seal_tasks_max) = (1 << 20, 2));
    worker.until("all partitions are read", |all| all.len() == 8).await;
    let mut publisher = Publisher::new(&city.kafka, &stream).unwrap();
    let text = "x".repeat(1_000);
    for _ in 0..4_000 {
        publisher.send_object(serde_json::json!({ "v": text }).as_object().unwrap()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while worker.metric("cairn_ingest_paused_partitions") < 1.0 || city.world.retries() < 10.0 {
        assert!(Instant::now() < deadline, "never paused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(worker.metric("cairn_ingest_held_bytes") <= f64::from(1 << 20));
    assert!(city.world.follower.ledger().all_anchors().is_empty(), "nothing is anchored that is not stored");
    let secrets = || walk(&city.world.folder().join("secrets")).len();
    assert!(secrets() <= 1 + 8, "an attempt that failed leaves no secret behind: {}", secrets());
    std::fs::remove_file(&segments).unwrap();
    assert_eq!(city.wait_anchored(&stream).await, 4_000);
    assert_eq!(city.audit().await, 4_000);
    worker.running.stop().await;
}

/// All files below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// One object that cannot be stored holds up its partition and no other, however few batches are sealed at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_cannot_be_stored_keeps_no_other_partition_from_its_turn() {
    let mut stream = numbers();
    stream.partitions = 2;
    let city = City::new(&stream).await;
    let blocked = city.world.folder().join(format!("objects/segments/{}/0", stream.name));
    std::fs::create_dir_all(blocked.parent().unwrap()).unwrap();
    std::fs::write(&blocked, b"in the way").unwrap();
    let worker = city.ingest_with(0, |config| config.seal_tasks_max = 1);
    let producer: ThreadedProducer<DefaultProducerContext> = city.kafka.client_config().create().unwrap();
    let send = |partition: i32, v: u64| {
        let value = format!(r#"{{"v":{v}}}"#);
        let record = BaseRecord::<[u8], _>::to(&stream.topic).partition(partition).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    };
    (0..100).for_each(|v| send(0, v));
    producer.flush(PATIENCE).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while city.world.retries() < 2.0 {
        assert!(Instant::now() < deadline, "the batch was never tried");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (0..100).for_each(|v| send(1, v));
    producer.flush(PATIENCE).unwrap();
    let one = |all: &[PartitionStatus]| all.iter().map(|place| place.anchored.0).collect::<Vec<_>>() == [0, 100];
    worker.until("the other partition goes on", one).await;
    std::fs::remove_file(&blocked).unwrap();
    assert_eq!(city.wait_anchored(&stream).await, 200);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_short_for_many_partitions_does_not_stall_them() {
    let mut stream = definition(Format::Json, &[&one_field(r#""string""#)]);
    (stream.partitions, stream.limits.age_ms_max) = (16, 600_000);
    let city = City::new(&stream).await;
    let worker = city.ingest_with(0, |config| config.memory_bytes_max = 1 << 20);
    let mut publisher = Publisher::new(&city.kafka, &stream).unwrap();
    let text = "x".repeat(1_000);
    for _ in 0..8_000 {
        publisher.send_object(serde_json::json!({ "v": text }).as_object().unwrap()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    // Batches are neither full nor old: only the shortage of memory closes them.
    let deadline = Instant::now() + PATIENCE;
    while city.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.count).sum::<u64>() < 6_900 {
        assert!(Instant::now() < deadline, "stalled: {:?}", worker.running.status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_registered_later_are_read() {
    let first = numbers();
    let city = City::new(&first).await;
    let worker = city.ingest(0);
    city.publish(&first, 0, 100).await;
    assert_eq!(city.wait_anchored(&first).await, 100);
    let mut second = numbers();
    (second.name, second.topic, second.partitions) = ("test.later".into(), "later".into(), 3);
    ensure_topics(&city.kafka, &[spec(&second)]).await.unwrap();
    city.publish(&second, 0, 100).await;
    city.world.node.register(&second);
    assert_eq!(city.wait_anchored(&second).await, 100);
    city.publish(&first, 100, 100).await;
    assert_eq!(city.wait_anchored(&first).await, 200);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_stops_its_stream_with_a_reason() {
    let mut stream = numbers();
    // Where records have no key, all of a batch go to one partition that is drawn: the new topic's could hold more.
    stream.partitions = 1;
    let mut city = City::new(&stream).await;
    let worker = city.ingest(0);
    city.publish(&stream, 0, 1_000).await;
    assert_eq!(city.wait_anchored(&stream).await, 1_000);
    worker.running.stop().await;
    let broker = city.broker.take().unwrap();
    let address = broker.address();
    broker.stop().await;
    let another = EmbeddedBroker::start(&city.world.folder().join("another"), address).await.unwrap();
    city.broker = Some(another);
    ensure_topics(&city.kafka, &[spec(&stream)]).await.unwrap();
    city.publish(&stream, 0, 10).await;
    let worker = city.ingest(0);
    let stopped = |all: &[PartitionStatus]| {
        let reasons: Vec<_> = all.iter().filter_map(|place| place.stopped.as_deref()).collect();
        reasons.len() == 1 && reasons.iter().all(|reason| reason.contains("made anew"))
    };
    worker.until("the partition stops", stopped).await;
    assert_eq!(worker.metric("cairn_ingest_stopped_partitions"), 1.0);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_before_they_were_anchored() {
    // Where the broker is asked for its ends late, librdkafka has given the partition up by then.
    for (gaps_allowed, probe_interval_ms) in [(false, 100), (true, 100), (true, 2_000)] {
        let mut stream = definition(Format::Json, &[&one_field(r#""string""#)]);
        (stream.partitions, stream.gaps_allowed) = (1, gaps_allowed);
        let world = World::new().await;
        world.node.register(&stream);
        // librdkafka's own mock broker keeps 5 MB of a partition and deletes what is older.
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(&stream.topic, 1, 1).unwrap();
        let mut kafka = KafkaConfig::new(mock.bootstrap_servers());
        kafka.settings.insert("compression.type".into(), "none".into());
        let mut publisher = Publisher::new(&kafka, &stream).unwrap();
        let text = "x".repeat(1_000);
        for _ in 0..10_000 {
            publisher.send_object(serde_json::json!({ "v": text }).as_object().unwrap()).await.unwrap();
        }
        publisher.flush().await.unwrap();
        let ends = crate::topics::probe(&kafka, &[spec(&stream)]).await.unwrap();
        let Ends { start, end } = ends[&(stream.topic.clone(), Partition(0))];
        assert!(start > Offset(0) && end == Offset(10_000), "the mock deletes records: {ends:?}");
        let city = City { world, broker: None, kafka };
        let worker = city.ingest_with(0, |config| config.probe_interval_ms = probe_interval_ms);
        if gaps_allowed {
            assert_eq!(city.wait_anchored(&stream).await, end.0 - start.0);
            assert_eq!(worker.metric("cairn_ingest_gap_offsets_total"), f64::from(u32::try_from(start.0).unwrap()));
            assert_eq!(city.audit().await, end.0 - start.0);
        } else {
            let stopped = |all: &[PartitionStatus]| {
                all.iter().any(|place| place.stopped.as_ref().is_some_and(|why| why.contains("does not allow gaps")))
            };
            worker.until("the partition stops", stopped).await;
            assert!(city.world.follower.ledger().all_anchors().is_empty());
        }
        worker.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_keys_and_timestamps_are_kept() {
    let stream = numbers();
    let city = City::new(&stream).await;
    let context = DefaultProducerContext;
    let producer = ThreadedProducer::from_config_and_context(&city.kafka.client_config(), context).unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("abc") })
        .insert(Header { key: "empty", value: Some("") })
        .insert(Header { key: "none", value: None::<&str> });
    let record = BaseRecord::to(&stream.topic).partition(1).key(&[0u8, 255][..]).payload(&br#"{"v":1}"#[..]);
    producer.send(record.timestamp(1_234).headers(headers)).map_err(|(error, _)| error).unwrap();
    let unreadable = OwnedHeaders::new().insert(Header { key: UNREADABLE_HEADER, value: Some("x") });
    let record = BaseRecord::<[u8], [u8]>::to(&stream.topic).partition(1).payload(&br#"{"v":2}"#[..]);
    producer.send(record.headers(unreadable)).map_err(|(error, _)| error).unwrap();
    producer.flush(PATIENCE).unwrap();
    let worker = city.ingest(0);
    assert_eq!(city.wait_anchored(&stream).await, 2);
    assert_eq!(city.audit().await, 2);
    let anchors = city.world.follower.ledger().all_anchors().to_vec();
    assert_eq!(anchors.iter().map(|entry| entry.anchor.quarantined).sum::<u64>(), 1);
    assert_eq!(anchors[0].anchor.timestamp_min_ms, 1_234);
    worker.running.stop().await;
}

/// Headers of which the second panics, as rdkafka does for a name that is not UTF-8.
struct Poisoned(usize);

impl Headers for Poisoned {
    fn count(&self) -> usize {
        self.0
    }

    fn try_get(&self, at: usize) -> Option<Header<'_, &[u8]>> {
        assert!(at != 1, "a name that is not UTF-8");
        Some(Header { key: "ok", value: None })
    }
}

#[test]
fn headers_that_cannot_be_kept_are_marked() {
    assert_eq!(source::readable_headers(&Poisoned(3)), [("ok", None), (UNREADABLE_HEADER, None), ("ok", None)]);
    let many = source::readable_headers(&Poisoned(5_000));
    assert_eq!((many.len(), many.last().unwrap().0), (1_024, UNREADABLE_HEADER));
}
