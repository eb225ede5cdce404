//! Schemas of writers from a registry: over outages, without it afterwards, and what they may not keep waiting.

use super::*;
use crate::registry::RegistryConfig;
use crate::registry::tests::{Mood, TestRegistry};

const WAITING: &str = "cairn_ingest_registry_waiting_partitions";

/// A stream whose one field is a long; its schema has the id 1.
fn framed() -> StreamDefinition {
    StreamDefinition { partitions: 1, ..definition(Format::AvroConfluent, &[&one_field(r#""long""#)]) }
}

/// A stream that needs no registry.
fn other() -> StreamDefinition {
    StreamDefinition { name: "test.other".into(), topic: "test-other".into(), ..numbers() }
}

fn value(id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], datum].concat()
}

/// The writer knows a field more than the table, before the one that it has.
const WIDER: &str =
    r#"{"type":"record","name":"One","fields":[{"name":"note","type":"string"},{"name":"v","type":"int"}]}"#;

async fn send(city: &City, stream: &StreamDefinition, values: &[Vec<u8>]) {
    let publisher = Publisher::new(&city.kafka, stream).unwrap();
    for value in values {
        publisher.send_raw(None, Some(value), None).await.unwrap();
    }
    publisher.flush().await.unwrap();
}

async fn city_of_two() -> (City, TestRegistry) {
    let city = City::new(&framed()).await;
    city.world.node.register(&other());
    ensure_topics(&city.kafka, &[spec(&other())]).await.unwrap();
    (city, TestRegistry::start().await)
}

fn configured(registry: &TestRegistry) -> impl FnOnce(&mut IngestConfig) {
    let mut settings = RegistryConfig::new(&registry.url);
    settings.timeout_ms = 1_000;
    |config| config.registry = Some(settings)
}

async fn until_waiting(worker: &Worker, count: f64) {
    let deadline = Instant::now() + PATIENCE;
    while worker.metric(WAITING) != count {
        assert!(Instant::now() < deadline, "{count} partitions should wait, {} do", worker.metric(WAITING));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn quarantined(city: &City) -> u64 {
    city.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.quarantined).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_registry_loses_nothing_and_keeps_nobody_else_waiting() {
    let (city, registry) = city_of_two().await;
    registry.put(70_000, WIDER);
    registry.feel(Mood::Down);
    let worker = city.ingest_with(0, configured(&registry));
    let known = value(1, &[2]);
    let foreign = value(70_000, &[4, b'h', b'i', 6]);
    // The first one waits, so that no batch can be decided, however the records fall into batches.
    send(&city, &framed(), &[foreign.clone(), known.clone(), known.clone(), foreign.clone(), foreign.clone()]).await;
    until_waiting(&worker, 1.0).await;
    for mood in [Mood::Page, Mood::WrongPath, Mood::OtherJson] {
        registry.feel(mood);
        city.publish(&other(), 0, 10).await;
        city.wait_anchored(&other()).await;
        let head = city.world.follower.ledger().state().head(&framed().name, Partition(0)).unwrap();
        assert_eq!(head.next, Offset(0), "{mood:?}: nothing is decided");
        assert!(worker.running.status().iter().all(|place| place.stopped.is_none()));
    }
    registry.feel(Mood::Well);
    assert_eq!(city.wait_anchored(&framed()).await, 5);
    until_waiting(&worker, 0.0).await;
    assert_eq!(quarantined(&city), 0);
    let asked = registry.asked();
    send(&city, &framed(), std::slice::from_ref(&foreign)).await;
    assert_eq!(city.wait_anchored(&framed()).await, 6);
    assert_eq!(registry.asked(), asked, "the schema is kept");
    worker.running.stop().await;
    // Without any registry everything is decoded again, and by another process too.
    drop(registry);
    assert_eq!(city.audit().await, 36);
    let bare = city.ingest(1);
    send(&city, &framed(), &[foreign]).await;
    assert_eq!(city.wait_anchored(&framed()).await, 7);
    assert_eq!(quarantined(&city), 1, "without a registry an id is one of the stream's, or none");
    assert_eq!(city.audit().await, 37);
    bare.running.stop().await;
    city.broker.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_lead_to_no_schema_are_quarantined_and_the_others_go_on() {
    let (city, registry) = city_of_two().await;
    registry.put(2, WIDER);
    registry.put(3, &one_field(r#""string""#)); // does not resolve to a long
    registry.put(4, "no schema");
    registry.put(6, &"x".repeat(1 << 20));
    let worker = city.ingest_with(0, configured(&registry));
    let values = [
        value(2, &[0, 2]),
        value(3, &[0]),
        value(4, &[2]),
        value(5, &[2]), // 404
        value(6, &[2]), // larger than is taken
        vec![0, 0],
        value(1, &[2]),
    ];
    send(&city, &framed(), &values).await;
    assert_eq!(city.wait_anchored(&framed()).await, 7);
    assert_eq!(quarantined(&city), 5);
    let families = worker.registry.gather();
    let family = families.iter().find(|family| family.name() == "cairn_quarantined_records_total").unwrap();
    let reasons: Vec<_> = family.get_metric().iter().map(|metric| metric.get_label()[0].value().to_owned()).collect();
    assert_eq!(reasons, ["unknown_schema"]);
    assert_eq!(city.audit().await, 7);
    worker.running.stop().await;
    city.broker.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_registry_gives_its_memory_back() {
    let (city, registry) = city_of_two().await;
    registry.put(2, WIDER);
    registry.feel(Mood::Down);
    let configure = configured(&registry);
    let worker = city.ingest_with(0, |config| {
        configure(config);
        config.memory_bytes_max = 1 << 20;
    });
    let note = vec![b'x'; 300_000];
    let length = [0xc0, 0xcf, 0x24]; // 300,000 as Avro writes it
    let large = value(2, &[&length[..], &note, &[2]].concat());
    send(&city, &framed(), &vec![large; 8]).await;
    until_waiting(&worker, 1.0).await;
    city.publish(&other(), 0, 100).await;
    city.wait_anchored(&other()).await;
    registry.feel(Mood::Well);
    assert_eq!(city.wait_anchored(&framed()).await, 8);
    assert_eq!(quarantined(&city), 0);
    assert_eq!(city.audit().await, 108);
    worker.running.stop().await;
    city.broker.unwrap().stop().await;
}
