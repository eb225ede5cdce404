//! Ingest over Apache Kafka and a chain in process: what a broker may do to offsets.

use std::sync::atomic::AtomicU32;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};

use super::*;
use broker::Apache;

#[path = "../../../../tests/common/apache.rs"]
mod broker;

/// A stream of numbers in one partition of a topic that no other test has.
fn stream(gaps_allowed: bool) -> StreamDefinition {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let topic = format!("numbers-{}", NEXT.fetch_add(1, Ordering::SeqCst));
    StreamDefinition { topic, partitions: 1, gaps_allowed, ..numbers() }
}

/// A chain beside the broker that all tests here share; the topic is not made yet.
async fn city(definition: &StreamDefinition) -> Option<City> {
    let apache = tokio::task::spawn_blocking(broker::shared).await.unwrap()?;
    Some(city_on(apache, definition).await)
}

async fn city_on(apache: &Apache, definition: &StreamDefinition) -> City {
    let world = World::new().await;
    world.node.register(definition);
    City { world, broker: None, kafka: KafkaConfig::new(apache.bootstrap()) }
}

fn config(city: &City) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &city.kafka.brokers);
    config
}

fn admin(city: &City) -> AdminClient<DefaultClientContext> {
    config(city).create().unwrap()
}

async fn make_topic(city: &City, definition: &StreamDefinition, settings: &[(&str, &str)]) {
    let partitions = i32::try_from(definition.partitions).unwrap();
    let topic = NewTopic::new(&definition.topic, partitions, TopicReplication::Fixed(-1));
    let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let deadline = Instant::now() + PATIENCE;
    // A topic of that name may still be on its way out, and a broker that starts may drop the connection: then it is not
    // known whether it made the topic.
    let mut unknown = false;
    loop {
        match &admin(city).create_topics([&topic], &AdminOptions::new()).await {
            Ok(made) if made.iter().all(std::result::Result::is_ok) => break,
            Ok(made)
                if unknown
                    && made.iter().all(|made| matches!(made, Err((_, RDKafkaErrorCode::TopicAlreadyExists)))) =>
            {
                break;
            }
            other => {
                unknown |= other.is_err();
                assert!(Instant::now() < deadline, "{other:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The topic is there once every partition has a leader, which a broker may learn before it leads.
    loop {
        let found = crate::topics::probe(&city.kafka, &[spec(definition)]).await;
        if found.as_ref().is_ok_and(|found| found.len() == definition.partitions as usize) {
            return;
        }
        assert!(Instant::now() < deadline, "the topic has no leaders: {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn delete_topic(city: &City, definition: &StreamDefinition) {
    admin(city).delete_topics(&[&definition.topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

async fn delete_records(city: &City, definition: &StreamDefinition, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&definition.topic, 0, KafkaOffset::Offset(before)).unwrap();
    admin(city).delete_records(&list, &AdminOptions::new()).await.unwrap();
}

fn transactional(city: &City, definition: &StreamDefinition) -> BaseProducer {
    let producer: BaseProducer =
        config(city).set("transactional.id", format!("writer of {}", definition.topic)).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn send(producer: &BaseProducer, definition: &StreamDefinition, count: u64) {
    for v in 0..count {
        let value = format!("{{\"v\":{v}}}");
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&definition.topic).payload(value.as_bytes());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

fn stopped_with(all: &[PartitionStatus], words: &str) -> bool {
    !all.is_empty() && all.iter().all(|place| place.stopped.as_deref().is_some_and(|reason| reason.contains(words)))
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_leave_declared_gaps_also_at_the_end() {
    let stream = stream(true);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    let worker = city.ingest(0);
    let producer = transactional(&city, &stream);
    for (count, commit) in [(10, true), (7, false), (5, true), (3, false)] {
        producer.begin_transaction().unwrap();
        send(&producer, &stream, count);
        let ended = if commit { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) };
        ended.unwrap();
    }
    // 25 records of which 10 were aborted, 4 markers; the last 4 offsets hold nothing that a consumer gets.
    assert_eq!(city.wait_anchored(&stream).await, 15);
    let head = city.world.follower.ledger().state().head(&stream.name, Partition(0)).unwrap();
    assert_eq!(head.next, Offset(29));
    // What is not committed yet is not waited for, and not anchored.
    producer.begin_transaction().unwrap();
    send(&producer, &stream, 6);
    assert_eq!(city.wait_anchored(&stream).await, 15);
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(city.wait_anchored(&stream).await, 21);
    assert_eq!(city.audit().await, 21);
    assert_eq!(worker.metric("cairn_ingest_gap_offsets_total"), 15.0);
    assert_eq!(worker.metric("cairn_ingest_anchored_offset"), 36.0);
    worker.running.stop().await;
    // Nothing of what was declared is looked at again.
    let worker = city.ingest(0);
    worker.until("it rests", |all| all.iter().any(|place| place.end == Some(Offset(36)))).await;
    city.publish(&stream, 0, 4).await;
    assert_eq!(city.wait_anchored(&stream).await, 25);
    assert_eq!(city.audit().await, 25);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_stop_a_stream_that_allows_no_gaps_even_without_a_record_behind_them() {
    let stream = stream(false);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    let worker = city.ingest(0);
    let producer = transactional(&city, &stream);
    producer.begin_transaction().unwrap();
    send(&producer, &stream, 10);
    producer.commit_transaction(PATIENCE).unwrap();
    worker.until("it stops", |all| stopped_with(all, "no records at offsets 10 to 10")).await;
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compacted_records_are_declared_gaps() {
    let stream = stream(true);
    let Some(city) = city(&stream).await else { return };
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
    ];
    make_topic(&city, &stream, &settings).await;
    let publisher = Publisher::new(&city.kafka, &stream).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    // The cleaner leaves the last segment alone; each pause lets another one begin.
    while kept(&city, &stream) + 20 > sent {
        for n in 0..10u64 {
            let value = format!("{{\"v\":{n}}}");
            publisher.send_raw(Some(format!("key {n}").as_bytes()), Some(value.as_bytes()), None).await.unwrap();
            sent += 1;
        }
        publisher.flush().await.unwrap();
        assert!(Instant::now() < deadline, "the broker does not compact: {} of {sent}", kept(&city, &stream));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let worker = city.ingest(0);
    let anchored = city.wait_anchored(&stream).await;
    assert!(anchored < sent, "{anchored} of {sent}");
    assert_eq!(city.audit().await, anchored);
    assert_eq!(worker.metric("cairn_ingest_gap_offsets_total") + anchored as f64, sent as f64);
    worker.running.stop().await;
}

/// How many records a reader gets from the start.
fn kept(city: &City, definition: &StreamDefinition) -> u64 {
    let consumer: BaseConsumer =
        config(city).set("group.id", "counter").set("enable.partition.eof", "true").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&definition.topic, 0, KafkaOffset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut count = 0;
    while let Some(Ok(_)) = consumer.poll(Duration::from_secs(10)) {
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_a_declared_gap_even_where_none_are_left() {
    let stream = stream(true);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    city.publish(&stream, 0, 100).await;
    delete_records(&city, &stream, 40).await;
    let worker = city.ingest(0);
    assert_eq!(city.wait_anchored(&stream).await, 60);
    worker.running.stop().await;
    city.publish(&stream, 100, 50).await;
    delete_records(&city, &stream, 150).await;
    let worker = city.ingest(0);
    assert_eq!(city.wait_anchored(&stream).await, 60);
    assert_eq!(worker.metric("cairn_ingest_gap_offsets_total"), 50.0);
    city.publish(&stream, 150, 5).await;
    assert_eq!(city.wait_anchored(&stream).await, 65);
    assert_eq!(city.audit().await, 65);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_stop_a_stream_that_allows_no_gaps() {
    let stream = stream(false);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    city.publish(&stream, 0, 100).await;
    delete_records(&city, &stream, 40).await;
    let worker = city.ingest(0);
    worker.until("it stops", |all| stopped_with(all, "does not allow gaps")).await;
    assert!(city.world.follower.ledger().all_anchors().is_empty());
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_with_more_records_while_ingest_was_away_stops_its_stream() {
    let stream = stream(false);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    let worker = city.ingest(0);
    city.publish(&stream, 0, 100).await;
    assert_eq!(city.wait_anchored(&stream).await, 100);
    worker.running.stop().await;
    delete_topic(&city, &stream).await;
    make_topic(&city, &stream, &[]).await;
    city.publish(&stream, 1_000, 300).await;
    let worker = city.ingest(0);
    worker.until("it stops", |all| stopped_with(all, "is not what is anchored: the record at offset 92")).await;
    worker.running.stop().await;
    let anchored: u64 = city.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.count).sum();
    assert_eq!(anchored, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_with_more_records_before_the_eyes_of_ingest_stops_its_stream() {
    let stream = stream(false);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    let worker = city.ingest(0);
    city.publish(&stream, 0, 100).await;
    assert_eq!(city.wait_anchored(&stream).await, 100);
    delete_topic(&city, &stream).await;
    make_topic(&city, &stream, &[]).await;
    city.publish(&stream, 1_000, 300).await;
    worker.until("it stops", |all| stopped_with(all, "made anew")).await;
    worker.running.stop().await;
    let anchored: u64 = city.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.count).sum();
    assert_eq!(anchored, 100, "nothing of the new topic is anchored");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_shown_and_the_others_go_on() {
    let stream = stream(false);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    let worker = city.ingest(0);
    city.publish(&stream, 0, 10).await;
    assert_eq!(city.wait_anchored(&stream).await, 10);
    let more = NewPartitions::new(&stream.topic, 3);
    admin(&city).create_partitions(&[more], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while worker.metric("cairn_ingest_surplus_partitions") < 2.0 {
        assert!(Instant::now() < deadline, "the new partitions were not noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ends = crate::topics::probe(&city.kafka, &[spec(&stream)]).await.unwrap();
    assert_eq!(ends.len(), 3);
    assert!(worker.running.status().iter().all(|place| place.stopped.is_none()));
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_die_and_leaders_that_change_neither_lose_nor_double() {
    let stream = StreamDefinition { partitions: 3, ..stream(false) };
    let Some(apache) = tokio::task::spawn_blocking(|| Apache::start(3, false)).await.unwrap() else { return };
    let apache = Arc::new(std::sync::Mutex::new(apache));
    let city = {
        let bootstrap = apache.lock().unwrap().bootstrap();
        let world = World::new().await;
        world.node.register(&stream);
        City { world, broker: None, kafka: KafkaConfig::new(bootstrap) }
    };
    make_topic(&city, &stream, &[]).await;
    let worker = city.ingest(0);
    for round in 0..2u16 {
        city.publish(&stream, u64::from(round) * 3_000, 1_000).await;
        let cluster = apache.clone();
        let killing = tokio::task::spawn_blocking(move || cluster.lock().unwrap().kill(round));
        city.publish(&stream, u64::from(round) * 3_000 + 1_000, 2_000).await;
        killing.await.unwrap();
        let cluster = apache.clone();
        tokio::task::spawn_blocking(move || cluster.lock().unwrap().restart(round)).await.unwrap();
    }
    assert_eq!(city.wait_anchored(&stream).await, 6_000);
    assert_eq!(city.audit().await, 6_000);
    assert!(worker.running.status().iter().all(|place| place.stopped.is_none()));
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_quarantined_record_is_a_dead_letter_too() {
    let stream = stream(false);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    dead_letters::bad_records_arrive_as_they_were(&city, &stream).await;
}

/// The broker judges a batch of records: one that it never takes keeps none of the others from the topic.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_are_too_large_are_counted_and_the_others_arrive() {
    let stream = stream(false);
    let Some(city) = city(&stream).await else { return };
    make_topic(&city, &stream, &[]).await;
    let letters = StreamDefinition { topic: format!("{}.dlq", stream.topic), partitions: 1, ..stream.clone() };
    make_topic(&city, &letters, &[("max.message.bytes", "20000")]).await;
    let file = city.world.folder().join("data/dead-letters.json");
    let config = crate::dead_letter::DeadLetterConfig {
        backfill: true,
        ..crate::dead_letter::DeadLetterConfig::new("{topic}.dlq", file)
    };
    let worker = city.ingest_with(0, |settings| {
        settings.dead_letter = Some(config);
        settings.kafka.settings.insert("compression.type".into(), "none".into());
    });
    let publisher = Publisher::new(&city.kafka, &stream).unwrap();
    for value in [b"first".to_vec(), vec![b'x'; 50_000], b"last".to_vec()] {
        publisher.send_raw(None, Some(&value), Some(7)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    assert_eq!(city.wait_anchored(&stream).await, 3);
    let found = dead_letters::read(&city.kafka, &letters.topic, 2).await;
    let mut values: Vec<_> = found.iter().map(|message| rdkafka::message::Message::payload(message).unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, [&b"first"[..], b"last"]);
    let deadline = Instant::now() + PATIENCE;
    while worker.metric("cairn_ingest_dead_letters_waiting") > 0.0 {
        assert!(Instant::now() < deadline, "not delivered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(worker.metric("cairn_ingest_dead_letters_refused_total"), 1.0);
    assert_eq!(worker.metric("cairn_ingest_dead_letters_total"), 2.0);
    worker.running.stop().await;
}
