//! Signed records through the whole of ingest: rights that change on the chain, replays, restarts.

use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::statement::{Body, RegisterIdentity, RevokeIdentity, Role, RotateKey, SetExpiry, SetRole, Signatures};

use super::*;
use crate::signer::Signer;

const DEVICE: u8 = 40;
const NEW_KEY: u8 = 41;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn stream(signatures: Signatures) -> StreamDefinition {
    StreamDefinition { partitions: 1, signatures, ..numbers() }
}

impl City {
    /// Registers a device that may publish to the stream.
    fn register_device(&self, stream: &StreamDefinition, seed: u8) {
        let (node, controller) = (&self.world.node, key(chain::OWNER).identity());
        let body = RegisterIdentity::new(&key(seed), IdentityKind::Device, "meter".into(), controller, &node.tag());
        node.say(Body::RegisterIdentity(body));
        self.set_role(stream, seed, true);
    }

    fn set_role(&self, stream: &StreamDefinition, seed: u8, granted: bool) {
        let (stream, identity) = (stream.name.clone(), key(seed).identity());
        self.world.node.say(Body::SetRole(SetRole { stream, identity, role: Role::Publisher, granted }));
    }

    /// Waits until the chain is followed to its last block.
    async fn followed(&self) {
        let height = self.world.node.height();
        self.world.follower.wait_for_height(height, PATIENCE).await.unwrap();
    }

    fn signing(&self, stream: &StreamDefinition, seed: u8, run: u32) -> Publisher {
        let signer = Signer::new(key(seed), self.world.node.tag()).in_runs(run).unwrap();
        Publisher::new(&self.kafka, stream).unwrap().signed(stream, signer.age_max(PATIENCE)).unwrap()
    }

    async fn publish_signed(&self, stream: &StreamDefinition, seed: u8, run: u32, count: u64) {
        let mut publisher = self.signing(stream, seed, run);
        for v in 0..count {
            publisher.send_object(serde_json::json!({ "v": v }).as_object().unwrap()).await.unwrap();
        }
        publisher.flush().await.unwrap();
    }

    fn quarantined(&self) -> u64 {
        self.world.follower.ledger().all_anchors().iter().map(|entry| entry.anchor.quarantined).sum()
    }
}

impl Worker {
    fn quarantined_for(&self, reason: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "cairn_quarantined_records_total");
        let of = |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|label| label.value() == reason);
        family
            .and_then(|family| family.get_metric().iter().find(of).map(|it| it.get_counter().get_value()))
            .unwrap_or(0.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_records_are_taken_singly_and_in_runs_and_others_quarantined() {
    let stream = stream(Signatures::Required);
    let city = City::new(&stream).await;
    city.register_device(&stream, DEVICE);
    city.followed().await;
    let worker = city.ingest(0);
    for run in [1, 7, 1_000] {
        city.publish_signed(&stream, DEVICE, run, 500).await;
    }
    assert_eq!(city.wait_anchored(&stream).await, 1_500);
    assert_eq!(city.quarantined(), 0);
    city.publish(&stream, 0, 3).await;
    city.publish_signed(&stream, 99, 2, 4).await;
    city.publish_signed(&stream, chain::OWNER, 2, 5).await;
    assert_eq!(city.wait_anchored(&stream).await, 1_512);
    let reasons = ["unsigned", "unknown_key", "not_publisher"].map(|reason| worker.quarantined_for(reason));
    assert_eq!(reasons, [3.0, 4.0, 5.0]);
    assert_eq!(city.quarantined(), 12);
    assert_eq!(city.audit().await, 1_512);
    worker.running.stop().await;
}

/// What a revocation, an expiry, a rotation or a role that is taken does to records that are published afterwards: as
/// soon as its block is followed, nothing is accepted. The block after it is the first that can hold such an anchor.
#[tokio::test(flavor = "multi_thread")]
async fn revoked_expired_rotated_and_unauthorised_keys_are_told_within_two_blocks() {
    let stream = stream(Signatures::Optional);
    let city = City::new(&stream).await;
    let node = &city.world.node;
    let seeds = [DEVICE, 50, 51, 52];
    seeds.iter().for_each(|seed| city.register_device(&stream, *seed));
    city.followed().await;
    let worker = city.ingest(0);
    for seed in seeds {
        city.publish_signed(&stream, seed, 3, 5).await;
    }
    assert_eq!(city.wait_anchored(&stream).await, 20);
    assert_eq!(city.quarantined(), 0);
    let identity = |seed: u8| key(seed).identity();
    node.say(Body::RevokeIdentity(RevokeIdentity { identity: identity(DEVICE), reason: "stolen".into() }));
    node.say(Body::SetExpiry(SetExpiry { identity: identity(50), expires_ms: Some(1) }));
    node.say(Body::RotateKey(RotateKey::new(identity(51), &key(NEW_KEY), &node.tag())));
    city.set_role(&stream, 52, false);
    let changed = node.height();
    city.world.follower.wait_for_height(changed, PATIENCE).await.unwrap();
    for seed in seeds {
        city.publish_signed(&stream, seed, 3, 5).await;
    }
    city.publish_signed(&stream, NEW_KEY, 3, 5).await;
    assert_eq!(city.wait_anchored(&stream).await, 45);
    let reasons = ["revoked_key", "expired_key", "rotated_key", "not_publisher"];
    assert_eq!(reasons.map(|reason| worker.quarantined_for(reason)), [5.0; 4]);
    let anchors = city.world.follower.ledger().all_anchors().to_vec();
    let after = anchors.iter().filter(|entry| entry.height > changed).map(|entry| &entry.anchor);
    assert_eq!(after.map(|anchor| anchor.count - anchor.quarantined).sum::<u64>(), 5, "those by the new key alone");
    assert_eq!(city.audit().await, 45);
    worker.running.stop().await;
}

/// A batch that was decoded before a revocation, and could not be submitted until after it, is checked anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_waits_is_checked_anew_when_rights_changed() {
    let mut stream = stream(Signatures::Required);
    stream.limits.age_ms_max = 10;
    let city = City::new(&stream).await;
    city.register_device(&stream, DEVICE);
    city.followed().await;
    city.world.node.deaf.store(true, Ordering::SeqCst);
    let worker = city.ingest(0);
    city.publish_signed(&stream, DEVICE, 5, 10).await;
    let deadline = Instant::now() + PATIENCE;
    while city.world.node.refused.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "nothing was submitted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let identity = key(DEVICE).identity();
    city.world.node.say(Body::RevokeIdentity(RevokeIdentity { identity, reason: "stolen".into() }));
    city.followed().await;
    city.world.node.deaf.store(false, Ordering::SeqCst);
    assert_eq!(city.wait_anchored(&stream).await, 10);
    assert_eq!(city.quarantined(), 10, "all of them by a revoked key");
    assert_eq!(city.audit().await, 10);
    worker.running.stop().await;
}

/// A header of a record, owned.
type Copied = (Vec<u8>, i64, Vec<(String, Vec<u8>)>);

/// The records of the topic as anybody who can read it has them.
fn copies(city: &City, stream: &StreamDefinition, count: usize) -> Vec<Copied> {
    use rdkafka::consumer::{BaseConsumer, Consumer as _, DefaultConsumerContext};
    use rdkafka::message::Message as _;
    let mut config = city.kafka.client_config();
    config.set("group.id", "copier").set("auto.offset.reset", "earliest");
    let consumer = BaseConsumer::from_config_and_context(&config, DefaultConsumerContext).unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&stream.topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut copies = vec![];
    while copies.len() < count {
        assert!(Instant::now() < deadline, "only {} records came", copies.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let headers = message.headers().unwrap().iter();
        let headers = headers.map(|header| (header.key.to_owned(), header.value.unwrap().to_vec())).collect();
        copies.push((message.payload().unwrap().to_vec(), message.timestamp().to_millis().unwrap(), headers));
    }
    copies
}

fn replay(city: &City, stream: &StreamDefinition, copies: &[Copied]) {
    let context = DefaultProducerContext;
    let producer = ThreadedProducer::from_config_and_context(&city.kafka.client_config(), context).unwrap();
    for (value, timestamp_ms, headers) in copies {
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(value) });
        }
        let record = BaseRecord::<[u8], [u8]>::to(&stream.topic).partition(0).payload(value).timestamp(*timestamp_ms);
        producer.send(record.headers(owned)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_are_told_also_after_a_restart_and_after_unsigned_batches() {
    let stream = stream(Signatures::Optional);
    let city = City::new(&stream).await;
    city.register_device(&stream, DEVICE);
    city.followed().await;
    let worker = city.ingest(0);
    city.publish_signed(&stream, DEVICE, 4, 10).await;
    assert_eq!(city.wait_anchored(&stream).await, 10);
    let copies = copies(&city, &stream, 10);
    replay(&city, &stream, &copies);
    assert_eq!(city.wait_anchored(&stream).await, 20);
    assert_eq!(worker.quarantined_for("replayed"), 10.0);
    worker.running.stop().await;
    // A batch without a signed record, by a process that begins with the segment of the last one.
    let worker = city.ingest(0);
    city.publish(&stream, 0, 5).await;
    assert_eq!(city.wait_anchored(&stream).await, 25);
    worker.running.stop().await;
    let worker = city.ingest(1);
    replay(&city, &stream, &copies[3..6]);
    city.publish_signed(&stream, DEVICE, 4, 10).await;
    assert_eq!(city.wait_anchored(&stream).await, 38);
    assert_eq!(worker.quarantined_for("replayed"), 3.0);
    assert_eq!(city.quarantined(), 13);
    assert_eq!(city.audit().await, 38);
    worker.running.stop().await;
}
