//! Batches onto the chain: lost races, refusals, retries, workers stopped at any instant.

use super::*;
use crate::seal::tests::{decode, raw};
use crate::testing::World;
use std::sync::atomic::Ordering;

const ONE: Partition = Partition(1);

async fn anchor(anchorer: &Anchorer, count: u64, first: u64, previous: Digest) -> Result<Outcome, AnchorError> {
    let raw = raw(count, first);
    anchorer.anchor(&Arc::new(World::stream()), &raw, &decode(&raw), previous).await
}

fn anchored(outcome: Outcome) -> Anchored {
    match outcome {
        Outcome::Anchored(anchored) => anchored,
        Outcome::Lost { head } => panic!("lost to {head:?}"),
    }
}

fn metric(world: &World, name: &str) -> f64 {
    let families = world.registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    family.map_or(0.0, |family| family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_follow_each_other_and_are_counted() {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    assert_eq!(anchorer.head("traffic.flow", ONE), Some(Head::default()));
    assert_eq!(anchorer.head("traffic.flow", Partition(9)), None);
    let first = anchored(anchor(&anchorer, 200, 0, Digest::ZERO).await.unwrap());
    assert_eq!(first.next, Offset(200));
    let second = anchored(anchor(&anchorer, 100, 200, first.id).await.unwrap());
    assert!(second.height > first.height && second.log_index == first.log_index.next() && second.next == Offset(300));
    let head = anchorer.head("traffic.flow", ONE).unwrap();
    assert_eq!((head.next, head.anchor, head.records, head.quarantined), (Offset(300), second.id, 300, 3));
    assert_eq!(metric(&world, "cairn_anchor_records_total"), 300.0);
    assert_eq!(metric(&world, "cairn_anchor_quarantined_total"), 3.0);
    assert_eq!(metric(&world, "cairn_anchor_batches_total"), 2.0);
    let entry = world.follower.ledger().anchor_of("traffic.flow", ONE, Offset(250)).cloned().unwrap();
    assert!(world.secrets.get(&entry.anchor.segment.path, &entry.anchor.records_root).is_ok());
    let stored = world.folder.path().join("objects").join(&entry.anchor.segment.path);
    assert_eq!(std::fs::metadata(stored).unwrap().len(), entry.anchor.segment.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_loses_and_learns_where_to_resume() {
    let world = World::new().await;
    let (ours, zombie) = (world.anchorer(0), world.anchorer(1));
    let first = anchored(anchor(&ours, 50, 0, Digest::ZERO).await.unwrap());
    // The zombie has the same records: another secret makes another batch of them all the same.
    let Outcome::Lost { head } = anchor(&zombie, 50, 0, Digest::ZERO).await.unwrap() else { panic!("both won") };
    assert_eq!((head.next, head.anchor), (Offset(50), first.id));
    // Overlapping, and beyond the head: both resume from the head.
    for first in [20, 80] {
        let outcome = anchor(&zombie, 50, first, Digest::ZERO).await.unwrap();
        assert!(matches!(outcome, Outcome::Lost { head } if head.next == Offset(50)), "{outcome:?}");
    }
    assert_eq!(anchored(anchor(&zombie, 10, 50, head.anchor).await.unwrap()).next, Offset(60));
    assert_eq!(world.follower.ledger().all_anchors().len(), 2, "every record once");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_at_once_anchor_every_record_once() {
    let world = World::new().await;
    let stream = Arc::new(World::stream());
    let worker = |which: u8, size: u64| {
        let (anchorer, stream) = (world.anchorer(which), Arc::clone(&stream));
        tokio::spawn(async move {
            let mut head = anchorer.head("traffic.flow", ONE).unwrap();
            while head.next.0 < 300 {
                let raw = raw(size, head.next.0);
                let outcome = anchorer.anchor(&stream, &raw, &decode(&raw), head.anchor).await.unwrap();
                head = match outcome {
                    Outcome::Anchored(done) => Head { next: done.next, anchor: done.id, ..Head::default() },
                    Outcome::Lost { head } => head,
                };
            }
        })
    };
    let (a, b) = (worker(0, 30), worker(1, 17));
    a.await.unwrap();
    b.await.unwrap();
    let ledger = world.follower.ledger();
    let mut next = 0;
    for entry in ledger.partition("traffic.flow", ONE) {
        assert_eq!(entry.anchor.first.0, next);
        next = entry.anchor.last.0 + 1;
    }
    assert!(next >= 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_out_of_reach_loses_nothing() {
    let world = World::new().await;
    let anchorer = world.anchorer(0).with_patience(Duration::from_millis(300));
    let raw = raw(20, 0);
    let stream = Arc::new(World::stream());
    let prepared = anchorer.prepare(&stream, &raw, &decode(&raw)).await.unwrap();
    world.node.down.store(true, Ordering::SeqCst);
    let error = anchorer.submit(&prepared, Digest::ZERO).await.unwrap_err();
    assert!(matches!(error, AnchorError::Undecided { first: Offset(0), last: Offset(19), .. }), "{error}");
    assert_eq!(error.kind(), Kind::Retry);
    let node = Arc::clone(&world.node);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        node.down.store(false, Ordering::SeqCst);
    });
    let kept = anchorer.persist(&stream.name, || anchorer.submit(&prepared, Digest::ZERO)).await.unwrap();
    assert_eq!(anchored(kept).next, Offset(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_on_the_chain_already_is_a_success() {
    let world = World::new().await;
    let anchorer = world.anchorer(0).with_patience(Duration::from_millis(500));
    let raw = raw(20, 0);
    let stream = Arc::new(World::stream());
    let prepared = anchorer.prepare(&stream, &raw, &decode(&raw)).await.unwrap();
    // The node takes the statement in and its answer is lost: whatever is tried next must not count as lost to another.
    world.node.swallow.store(1, Ordering::SeqCst);
    let outcome = anchorer.persist(&stream.name, || anchorer.submit(&prepared, Digest::ZERO)).await.unwrap();
    let first = anchored(outcome);
    assert_eq!(anchored(anchorer.submit(&prepared, Digest::ZERO).await.unwrap()), first);
    assert_eq!(world.follower.ledger().all_anchors().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_nobodys_race_stops() {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    let raw = raw(20, 0);
    let unknown = StreamDefinition { name: "energy.meter".into(), ..World::stream() };
    let error = anchorer.anchor(&Arc::new(unknown), &raw, &decode(&raw), Digest::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Stop);
    assert!(error.to_string().contains("energy.meter"), "{error}");
    let head = anchorer.head("traffic.flow", ONE).unwrap();
    assert_eq!(head.next, Offset(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written_is_tried_again() {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    let objects = world.folder.path().join("objects");
    std::fs::write(objects.join("segments"), b"in the way").unwrap();
    let raw = raw(20, 0);
    let stream = Arc::new(World::stream());
    let error = anchorer.prepare(&stream, &raw, &decode(&raw)).await.unwrap_err();
    assert!(matches!(&error, AnchorError::Store(_)) && error.kind() == Kind::Retry, "{error}");
    let freed = objects.join("segments");
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::fs::remove_file(freed).unwrap();
    });
    assert_eq!(anchored(anchor(&anchorer, 20, 0, Digest::ZERO).await.unwrap()).next, Offset(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_at_any_instant_leaves_every_record_once() {
    let world = World::new().await;
    let stream = Arc::new(World::stream());
    let mut stopped = 0;
    // Pauses go from nothing to more than a batch takes, again and again, so that each step is cut short at some point;
    // each time to a longer one, so that it ends on a slow machine, too.
    for round in 0u64.. {
        world.follower.catch_up(Duration::from_secs(5)).await.unwrap();
        let anchorer = world.anchorer(1);
        let head = anchorer.head("traffic.flow", ONE).unwrap();
        if head.next.0 >= 1000 {
            break;
        }
        let raw = raw(50, head.next.0);
        let decoded = decode(&raw);
        let work = anchorer.anchor(&stream, &raw, &decoded, head.anchor);
        match tokio::time::timeout(Duration::from_micros(round % 40 * 500 * (1 + round / 40)), work).await {
            Ok(outcome) => assert_eq!(anchored(outcome.unwrap()).next, Offset(head.next.0 + 50)),
            Err(_) => stopped += 1,
        }
    }
    assert!(stopped > 0, "some were stopped");
    let mut next = 0;
    for entry in world.follower.ledger().partition("traffic.flow", ONE) {
        assert_eq!((entry.anchor.first.0, entry.anchor.count), (next, 50));
        assert!(
            world.secrets.get(&entry.anchor.segment.path, &entry.anchor.records_root).is_ok(),
            "what is anchored was durable before"
        );
        next += 50;
    }
    assert_eq!(next, 1000);
}
