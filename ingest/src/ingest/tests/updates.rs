//! A schema that changes while a stream is read: nothing is restarted, nothing quarantined that need not be.

use cairn_proof::statement::{Body, SchemaVersion, UpdateStream};

use super::*;
use crate::update::followed_by;

const MORE: &str = r#"{"type":"record","name":"One","fields":[{"name":"v","type":"double"},
    {"name":"lane","type":"int","default":7}]}"#;

fn framed() -> StreamDefinition {
    definition(Format::AvroConfluent, &[&one_field(r#""long""#)])
}

impl City {
    /// Adds a version to the stream's schema, whatever it says.
    fn update(&self, stream: &StreamDefinition, schema: &SchemaVersion) {
        let (name, format) = (stream.name.clone(), stream.format);
        let versions = u32::try_from(stream.schemas.len()).unwrap();
        let body = UpdateStream { stream: name, format, versions, schema: schema.clone() };
        self.world.node.say(Body::UpdateStream(body));
    }

    async fn publish_object(&self, stream: &StreamDefinition, object: serde_json::Value) {
        let mut publisher = Publisher::new(&self.kafka, stream).unwrap();
        publisher.send_object(object.as_object().unwrap()).await.unwrap();
        publisher.flush().await.unwrap();
    }

    fn fingerprints(&self) -> Vec<cairn_proof::Digest> {
        self.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.schema_fingerprint).collect()
    }
}

/// Each batch has the fingerprint of the schema that it was decoded with, and an audit decodes it by that one again.
async fn taken_up_at_once(stream: StreamDefinition) {
    let stream = StreamDefinition { partitions: 1, ..stream };
    let city = City::new(&stream).await;
    let worker = city.ingest(0);
    city.publish(&stream, 0, 100).await;
    assert_eq!(city.wait_anchored(&stream).await, 100);
    let next = SchemaVersion { id: 2, text: MORE.into() };
    let updated = followed_by(&stream, next.clone()).unwrap();
    city.update(&stream, &next);
    // At once, by both: the new writer may know of the update before ingest does.
    for round in 0..5 {
        city.publish_object(&updated, serde_json::json!({ "v": 0.5, "lane": round })).await;
        city.publish(&stream, round * 10, 10).await;
    }
    assert_eq!(city.wait_anchored(&stream).await, 155);
    let quarantined: u64 =
        city.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.quarantined).sum();
    let fingerprints = city.fingerprints();
    assert_eq!(fingerprints[0], stream.schemas[0].fingerprint());
    if stream.format == Format::AvroConfluent {
        assert_eq!(quarantined, 0);
        assert_eq!(fingerprints.last(), Some(&next.fingerprint()));
    }
    assert_eq!(city.audit().await, 155);
    worker.running.stop().await;
    // A restart begins with the version that there is.
    let worker = city.ingest(0);
    city.publish_object(&updated, serde_json::json!({ "v": 1.5, "lane": 1 })).await;
    assert_eq!(city.wait_anchored(&stream).await, 156);
    assert_eq!(city.fingerprints().last(), Some(&next.fingerprint()));
    assert_eq!(city.audit().await, 156);
    worker.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_taken_up_without_a_restart() {
    taken_up_at_once(framed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_of_json_is_taken_up_too() {
    taken_up_at_once(numbers()).await;
}

/// The chain takes what its owner says. A version that decodes nothing of what there is stops nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_be_decoded_by_is_passed_over() {
    let stream = StreamDefinition { partitions: 1, ..framed() };
    let city = City::new(&stream).await;
    let worker = city.ingest(0);
    let wrong = SchemaVersion { id: 2, text: one_field(r#""boolean""#) };
    assert!(followed_by(&stream, wrong.clone()).is_err(), "the command refuses it before");
    city.update(&stream, &wrong);
    city.publish(&stream, 0, 50).await;
    assert_eq!(city.wait_anchored(&stream).await, 50);
    assert_eq!(city.fingerprints().last(), Some(&stream.schemas[0].fingerprint()));
    assert_eq!(city.audit().await, 50);
    worker.running.stop().await;
    let worker = city.ingest(0);
    city.publish(&stream, 50, 50).await;
    assert_eq!(city.wait_anchored(&stream).await, 100);
    assert_eq!(worker.metric("cairn_ingest_schema_updates_total"), 1.0, "said at the restart too");
    assert_eq!(city.audit().await, 100);
    worker.running.stop().await;
}
