//! Receipts of anchored records, and why there is none of others.

use super::*;
use crate::roots::Roots;
use crate::seal::tests::{decode, raw, raw_of};
use crate::secrets::SecretError;
use crate::testing::World;
use crate::verified::{Fault, Part};
use cairn_proof::Digest;
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{Body, RotateKey};
use std::sync::atomic::Ordering;

const ONE: Partition = Partition(1);

/// A world with three batches of 100, 1 and 50 records, a gap of 3 offsets before the last.
async fn anchored() -> World {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    let stream = Arc::new(World::stream());
    let mut builder = crate::raw::RawBatchBuilder::new(ONE, Offset(101));
    for offset in 104..154 {
        builder.append(Offset(offset), 5, None, Some(b"s,1,2"), &[("h", None)]).unwrap();
    }
    for raw in [raw(100, 0), raw(1, 100), builder.finish().unwrap()] {
        let previous = anchorer.head("traffic.flow", ONE).unwrap().anchor;
        anchorer.anchor(&stream, &raw, &decode(&raw), previous).await.unwrap();
    }
    world
}

async fn receipt(world: &World, stream: &str, partition: u32, offset: u64) -> Result<Receipt, ProveError> {
    let store = world.segments.verified(Arc::new(Roots::new())).unwrap();
    let sources = Sources { follower: &world.follower, store: &store, secrets: &world.secrets };
    prove(sources, stream, Partition(partition), Offset(offset)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_verifies_with_the_genesis_alone() {
    let world = anchored().await;
    for offset in [0, 57, 99, 100, 104, 153] {
        let receipt = receipt(&world, "traffic.flow", 1, offset).await.unwrap();
        let file = receipt.to_json().unwrap();
        let verified = Receipt::from_json(&file).unwrap().verify(&world.node.genesis).unwrap();
        assert_eq!((verified.record.offset, verified.record.topic.as_str()), (Offset(offset), "city.traffic.flow"));
        assert_ne!(verified.anchor.records_root, Digest::ZERO);
    }
}

/// The chain took the anchor with the key that its identity had then.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_verifies_after_the_anchorers_key_was_rotated() {
    let world = anchored().await;
    let (before, after) = (SigningKey::from_seed(&[3; 32]), SigningKey::from_seed(&[33; 32]));
    let rotation = RotateKey::new(before.identity(), &after, &world.node.genesis.tag());
    let patience = std::time::Duration::from_secs(10);
    world.submitter(0).submit(&Body::RotateKey(rotation), patience).await.unwrap();
    world.follower.catch_up(patience).await.unwrap();
    let current = world.follower.ledger().identities()[&before.identity()].public_key;
    assert_eq!(current, after.public());
    let receipt = receipt(&world, "traffic.flow", 1, 57).await.unwrap();
    assert_eq!(receipt.anchorer, before.public());
    receipt.verify(&world.node.genesis).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_brings_the_newest_checkpoint_along_and_goes_without_a_wrong_one() {
    let world = anchored().await;
    assert_eq!(receipt(&world, "traffic.flow", 1, 57).await.unwrap().checkpoint, None, "none is signed yet");
    world.node.sign_checkpoint(&SigningKey::from_seed(&[1; 32]));
    for offset in [57, 153] {
        let receipt = receipt(&world, "traffic.flow", 1, offset).await.unwrap();
        let verified = receipt.verify(&world.node.genesis).unwrap();
        assert_eq!(verified.header.log_size, TreeSize(3), "the log of the checkpoint");
        assert_eq!(verified.checkpoint.unwrap().validators, [SigningKey::from_seed(&[1; 32]).public()]);
    }
    // One that no validator signed.
    world.node.sign_checkpoint(&SigningKey::from_seed(&[2; 32]));
    let without = receipt(&world, "traffic.flow", 1, 57).await.unwrap();
    assert_eq!(without.checkpoint, None);
    without.verify(&world.node.genesis).unwrap();
    // One from before the anchor.
    world.node.sign_checkpoint(&SigningKey::from_seed(&[1; 32]));
    let (anchorer, stream) = (world.anchorer(1), Arc::new(World::stream()));
    let (batch, previous) = (raw(10, 154), anchorer.head("traffic.flow", ONE).unwrap().anchor);
    anchorer.anchor(&stream, &batch, &decode(&batch), previous).await.unwrap();
    assert_eq!(receipt(&world, "traffic.flow", 1, 160).await.unwrap().checkpoint, None);
    assert!(receipt(&world, "traffic.flow", 1, 57).await.unwrap().checkpoint.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_is_missing() {
    let world = anchored().await;
    let error = receipt(&world, "energy.meter", 0, 0).await.unwrap_err();
    assert!(matches!(&error, ProveError::UnknownStream { known, .. } if known == "traffic.flow"), "{error}");
    let error = receipt(&world, "traffic.flow", 4, 0).await.unwrap_err();
    assert!(matches!(error, ProveError::UnknownPartition { partitions: 4, .. }), "{error}");
    let error = receipt(&world, "traffic.flow", 1, 154).await.unwrap_err();
    assert!(matches!(error, ProveError::NotAnchored { next: Offset(154), .. }), "{error}");
    let error = receipt(&world, "traffic.flow", 0, 0).await.unwrap_err();
    assert!(matches!(error, ProveError::NotAnchored { next: Offset(0), .. }), "{error}");
    let error = receipt(&world, "traffic.flow", 1, 102).await.unwrap_err();
    assert!(matches!(error, ProveError::Gap { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_evidence_is_named() {
    let world = anchored().await;
    let anchor = world.follower.ledger().all_anchors()[0].anchor.clone();
    let file = world.folder.path().join("objects").join(&anchor.segment.path);
    let good = std::fs::read(&file).unwrap();
    let mut wrong = good.clone();
    wrong[10] ^= 1;
    std::fs::write(&file, wrong).unwrap();
    let error = receipt(&world, "traffic.flow", 1, 5).await.unwrap_err();
    let ProveError::Evidence(EvidenceError::Verify(refused)) = &error else { panic!("{error}") };
    assert_eq!((refused.part, refused.first, refused.last), (Part::Segment, Offset(0), Offset(99)));
    std::fs::remove_file(&file).unwrap();
    let error = receipt(&world, "traffic.flow", 1, 5).await.unwrap_err();
    let ProveError::Evidence(EvidenceError::Verify(refused)) = &error else { panic!("{error}") };
    assert_eq!(refused.fault, Fault::Missing);
    std::fs::write(&file, good).unwrap();
    world.secrets.put(&anchor.segment.path, &anchor.records_root, &cairn_proof::record::BatchSecret([3; 32])).unwrap();
    let error = receipt(&world, "traffic.flow", 1, 5).await.unwrap_err();
    assert!(matches!(error, ProveError::Evidence(EvidenceError::Root { .. })), "{error}");
    world.secrets.destroy(&anchor.segment.path, &anchor.records_root).unwrap();
    let error = receipt(&world, "traffic.flow", 1, 5).await.unwrap_err();
    assert!(matches!(error, ProveError::Evidence(EvidenceError::Secret(SecretError::Destroyed { .. }))), "{error}");
    world.node.down.store(true, Ordering::SeqCst);
    let error = receipt(&world, "traffic.flow", 1, 100).await.unwrap_err();
    assert!(matches!(error, ProveError::Chain { .. }), "{error}");
}

/// The receipt of an anchor that shares its statement carries the path to what was signed, and an audit finds nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_out_of_several_anchors_carries_its_place() {
    let world = World::new().await;
    let (anchorer, stream) = (world.anchorer(0), Arc::new(World::stream()));
    let mut batches = Vec::new();
    for partition in [0, 1, 3] {
        let raw = raw_of(partition, 30, 0);
        batches.push((anchorer.prepare(&stream, &raw, &decode(&raw)).await.unwrap(), anchorer.announce()));
    }
    let submits = batches.into_iter().map(|(batch, coming)| {
        let anchorer = &anchorer;
        async move { anchorer.submit_announced(&batch, Digest::ZERO, Some(coming)).await.unwrap() }
    });
    futures::future::join_all(submits).await;
    for (partition, place) in [(0, 0), (1, 1), (3, 2)] {
        let receipt = receipt(&world, "traffic.flow", partition, 7).await.unwrap();
        let verified = receipt.verify(&world.node.genesis).unwrap();
        let step = verified.steps.iter().find(|step| step.name == StepName::Statement).unwrap();
        assert!(step.detail.starts_with(&format!("anchor {place} of 3 signed together")), "{}", step.detail);
        assert_eq!(verified.record.partition, Partition(partition));
    }
}
