//! Dead letters with real brokers: each quarantined record arrives as it was, whatever fails on the way.

use rdkafka::bindings::rd_kafka_resp_err_t as KafkaCode;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaApiKey;

use super::*;
use crate::dead_letter::DeadLetterConfig;

type Bytes<'b> = Option<&'b [u8]>;

const TOPIC: &str = "test-stream.dlq";

fn dead_letters(city: &City) -> impl FnOnce(&mut IngestConfig) {
    let file = city.world.folder().join("data/dead-letters.json");
    |config| config.dead_letter = Some(DeadLetterConfig::new("{topic}.dlq", file))
}

/// Everything in a topic of one partition, once it holds so many records; fails when there are more.
pub(super) async fn read(kafka: &KafkaConfig, topic: &str, count: u64) -> Vec<OwnedMessage> {
    let spec = TopicSpec { topic: topic.into(), partitions: 1 };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ends = crate::topics::probe(kafka, std::slice::from_ref(&spec)).await.unwrap();
        let end = ends.values().map(|ends| ends.end.0).sum::<u64>();
        assert!(end <= count, "{topic} holds {end} records, expected {count}");
        if end == count {
            break;
        }
        assert!(Instant::now() < deadline, "{topic} holds {end} records, expected {count}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut config = kafka.client_config();
    let consumer: BaseConsumer = config.set("group.id", "reader").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, KafkaOffset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = Vec::new();
    while found.len() as u64 != count {
        assert!(Instant::now() < deadline, "{} of {count} were read", found.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            found.push(message.unwrap().detach());
        }
    }
    found
}

pub(super) fn headers(message: &OwnedMessage) -> Vec<(String, Option<String>)> {
    let all = message.headers().unwrap().iter();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    all.map(|header| (header.key.to_owned(), header.value.map(text))).collect()
}

pub(super) fn header(message: &OwnedMessage, name: &str) -> String {
    headers(message).into_iter().find(|(key, _)| key == name).and_then(|(_, value)| value).unwrap_or_default()
}

/// Bad records among good ones, then the same after a restart: the topic has each once, as it was.
pub(super) async fn bad_records_arrive_as_they_were(city: &City, stream: &StreamDefinition) {
    let topic = format!("{}.dlq", stream.topic);
    let worker = city.ingest_with(0, dead_letters(city));
    city.publish(stream, 0, 100).await;
    let producer: ThreadedProducer<DefaultProducerContext> = city.kafka.client_config().create().unwrap();
    let key = [0u8, 255, 7];
    let own = OwnedHeaders::new()
        .insert(Header { key: "trace", value: Some("abc") })
        .insert(Header { key: "none", value: None::<&str> });
    let bad: [(Bytes<'_>, Bytes<'_>); 4] =
        [(Some(&key), Some(b"{\"v\":1.5}")), (None, Some(b"\xff\x00 not json")), (Some(b"k"), None), (None, Some(b""))];
    for (key, value) in bad {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&stream.topic).partition(0).timestamp(1_234);
        (record.key, record.payload) = (key, value);
        producer.send(record.headers(own.clone())).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(city.wait_anchored(stream).await, 104);
    let found = read(&city.kafka, &topic, 4).await;
    for (message, (key, value)) in found.iter().zip(bad) {
        assert_eq!((message.key(), message.payload()), (key, value));
        assert_eq!(message.timestamp().to_millis(), Some(1_234));
        let all = headers(message);
        assert_eq!(all[..2], [("trace".into(), Some("abc".into())), ("none".into(), None)]);
        assert_eq!(header(message, "__connect.errors.topic"), stream.topic);
        assert_eq!(header(message, "__connect.errors.partition"), "0");
        assert_eq!(header(message, "__connect.errors.connector.name"), stream.name);
        assert_eq!(header(message, "__connect.errors.task.id"), "0");
        assert_eq!(header(message, "__connect.errors.stage"), "VALUE_CONVERTER");
        assert_eq!(header(message, "__connect.errors.class.name"), "cairn.ingest.Decode");
        assert_eq!(header(message, "__connect.errors.exception.class.name"), "cairn.quarantine.Value");
        assert!(!all.iter().any(|(name, _)| name.ends_with("stacktrace")));
        // The offset and the anchor lead to the record, and the message is the reason that is stored.
        let offset = Offset(header(message, "__connect.errors.offset").parse().unwrap());
        let entry = city.world.follower.ledger().anchor_of(&stream.name, Partition(0), offset).cloned().unwrap();
        assert_eq!(header(message, "cairn.anchor"), entry.id.to_string());
        let (raw, reasons) = city.world.anchorer(0).quarantine_of(&entry).await.unwrap();
        let row = usize::try_from(entry.anchor.leaf_index(offset).unwrap().0).unwrap();
        assert_eq!(raw.value(row), value);
        assert_eq!(header(message, "__connect.errors.exception.message"), reasons.value(row));
    }
    assert_eq!(worker.metric("cairn_ingest_dead_letters_total"), 4.0);
    worker.running.stop().await;
    let worker = city.ingest_with(0, dead_letters(city));
    let publisher = Publisher::new(&city.kafka, stream).unwrap();
    publisher.send_raw(Some(b"k"), Some(b"bad again"), Some(7)).await.unwrap();
    publisher.flush().await.unwrap();
    assert_eq!(city.wait_anchored(stream).await, 105);
    let found = read(&city.kafka, &topic, 5).await;
    assert_eq!(found[4].payload(), Some(&b"bad again"[..]), "after an orderly end none is doubled");
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_quarantined_record_is_a_dead_letter() {
    let stream = numbers();
    let city = City::new(&stream).await;
    bad_records_arrive_as_they_were(&city, &stream).await;
    city.broker.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_where_it_is_told_to() {
    let stream = StreamDefinition { partitions: 1, ..numbers() };
    let city = City::new(&stream).await;
    let bad = async |text: &[u8]| {
        let publisher = Publisher::new(&city.kafka, &stream).unwrap();
        publisher.send_raw(None, Some(text), Some(7)).await.unwrap();
        publisher.flush().await.unwrap();
    };
    let worker = city.ingest(0);
    bad(b"before").await;
    assert_eq!(city.wait_anchored(&stream).await, 1);
    worker.running.stop().await;
    // From now on alone; another identity's anchors are its own to deliver.
    let worker = city.ingest_with(0, dead_letters(&city));
    worker.until("the stream is read", |all| !all.is_empty()).await;
    let file = city.world.folder().join("data/dead-letters.json");
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "no cursor was written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bad(b"after").await;
    assert_eq!(read(&city.kafka, TOPIC, 1).await[0].payload(), Some(&b"after"[..]));
    worker.running.stop().await;
    let other = city.world.folder().join("data/other.json");
    let all = |config: &mut IngestConfig| {
        let letters = DeadLetterConfig { backfill: true, ..DeadLetterConfig::new("all.{stream}", other) };
        config.dead_letter = Some(letters);
    };
    let worker = city.ingest_with(0, all);
    let values: Vec<_> = read(&city.kafka, "all.test.stream", 2).await;
    let values: Vec<_> = values.iter().map(|message| message.payload().unwrap_or_default()).collect();
    assert_eq!(values, [&b"before"[..], b"after"]);
    worker.running.stop().await;
}

/// The topic refuses for a while: records are anchored meanwhile, the failures counted, and all arrive in the end.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_topic_is_counted_and_holds_nothing_up() {
    let stream = StreamDefinition { partitions: 1, ..numbers() };
    let world = World::new().await;
    world.node.register(&stream);
    let mock = MockCluster::new(1).unwrap();
    for topic in [stream.topic.as_str(), TOPIC] {
        mock.create_topic(topic, 1, 1).unwrap();
    }
    let mut kafka = KafkaConfig::new(mock.bootstrap_servers());
    kafka.settings.insert("compression.type".into(), "none".into());
    let publisher = Publisher::new(&kafka, &stream).unwrap();
    for v in 0..50 {
        publisher.send_raw(None, Some(format!("bad {v}").as_bytes()), Some(7)).await.unwrap();
    }
    publisher.flush().await.unwrap();
    mock.request_errors(RDKafkaApiKey::Produce, &[KafkaCode::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 3]);
    let city = City { world, broker: None, kafka };
    let from_the_start = |config: &mut IngestConfig| {
        let file = city.world.folder().join("data/dead-letters.json");
        let letters = DeadLetterConfig { backfill: true, ..DeadLetterConfig::new("{topic}.dlq", file) };
        config.dead_letter = Some(letters);
    };
    let worker = city.ingest_with(0, from_the_start);
    assert_eq!(city.wait_anchored(&stream).await, 50);
    let deadline = Instant::now() + PATIENCE;
    while worker.metric("cairn_ingest_dead_letters_total") < 50.0 {
        assert!(Instant::now() < deadline, "not delivered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(worker.metric("cairn_ingest_dead_letter_failures_total") >= 1.0);
    assert_eq!(worker.metric("cairn_ingest_dead_letters_refused_total"), 0.0);
    let mut values: Vec<_> = read_at_least(&city.kafka, 50).await;
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 50, "none is lost");
    worker.running.stop().await;
}

async fn read_at_least(kafka: &KafkaConfig, count: u64) -> Vec<Vec<u8>> {
    let spec = TopicSpec { topic: TOPIC.into(), partitions: 1 };
    let ends = crate::topics::probe(kafka, &[spec]).await.unwrap();
    let end = ends.values().map(|ends| ends.end.0).sum::<u64>();
    assert!(end >= count, "{end}");
    read(kafka, TOPIC, end).await.iter().map(|message| message.payload().unwrap_or_default().to_vec()).collect()
}
