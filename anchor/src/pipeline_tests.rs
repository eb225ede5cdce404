//! Batches onto the chain: lost races, refusals, retries, workers stopped at any instant.

use super::*;
use crate::seal::tests::{decode, raw, raw_of};
use crate::testing::World;
use futures::FutureExt as _;
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

/// The batches of all four partitions, prepared, from `first` on.
async fn prepared(anchorer: &Anchorer, first: u64) -> Vec<Prepared> {
    let mut all = Vec::new();
    for partition in 0..4 {
        let raw = raw_of(partition, 20, first);
        all.push(anchorer.prepare(&Arc::new(World::stream()), &raw, &decode(&raw)).await.unwrap());
    }
    all
}

/// Submits them all at once, as ingest does.
async fn submit_all(anchorer: &Anchorer, all: &[Prepared], previous: &[Digest]) -> Vec<Result<Outcome, AnchorError>> {
    let coming: Vec<_> = all.iter().map(|_| anchorer.announce()).collect();
    let submits = all.iter().zip(previous).zip(coming);
    let submits = submits.map(|((it, previous), coming)| anchorer.submit_announced(it, *previous, Some(coming)));
    join_all(submits).await
}

fn statements(world: &World, anchors: &str) -> u64 {
    let families = world.registry.gather();
    let family = families.iter().find(|family| family.name() == "cairn_anchor_statements_total");
    let metrics = family.into_iter().flat_map(|family| family.get_metric());
    let of = metrics.filter(|metric| metric.get_label()[0].value() == anchors);
    of.map(|metric| metric.get_counter().get_value() as u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_ready_together_share_a_statement() {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    let batches = prepared(&anchorer, 0).await;
    let first: Vec<_> = submit_all(&anchorer, &batches, &[Digest::ZERO; 4]).await;
    let first: Vec<_> = first.into_iter().map(|outcome| anchored(outcome.unwrap())).collect();
    assert_eq!((statements(&world, "several"), statements(&world, "one")), (1, 0));
    for (index, done) in (0..).zip(&first) {
        assert_eq!((done.height, done.log_index, done.next), (first[0].height, LeafIndex(index), Offset(20)));
        let head = anchorer.head("traffic.flow", Partition(u32::try_from(index).unwrap())).unwrap();
        assert_eq!((head.anchor, head.next), (done.id, Offset(20)));
    }
    // Each is asked about by itself, and the next ones follow each by its own id.
    assert_eq!(anchored(anchorer.submit(&batches[2], Digest::ZERO).await.unwrap()), first[2]);
    let previous: Vec<_> = first.iter().map(|done| done.id).collect();
    let second = submit_all(&anchorer, &prepared(&anchorer, 20).await, &previous).await;
    assert!(second.into_iter().all(|outcome| anchored(outcome.unwrap()).next == Offset(40)));
    // The one that was asked about again is counted again.
    assert_eq!((statements(&world, "several"), metric(&world, "cairn_anchor_batches_total")), (2, 9.0));
    let ledger = world.follower.ledger();
    let entries = ledger.all_anchors();
    let logged = cairn_proof::statement::LoggedAnchor::decode(&entries[6].log_entry()).unwrap();
    assert_eq!((entries[6].id, entries[6].place), (logged.id(), Some(LeafIndex(2))));
    assert_eq!(entries[6].statement_id(), entries[7].statement_id());
}

/// Atomicity: what one partition loses to another worker does not take the others along.
#[tokio::test(flavor = "multi_thread")]
async fn one_lost_race_does_not_lose_the_others() {
    let world = World::new().await;
    let (ours, zombie) = (world.anchorer(0), world.anchorer(1));
    let batches = prepared(&ours, 0).await;
    // Before ours is looked up the first time, so that the statement of all four is made and refused.
    let theirs = prepared(&zombie, 0).await;
    let (tell, told): (Vec<_>, Vec<_>) = (0..4).map(|_| oneshot::channel()).unzip();
    let won = anchored(zombie.submit(&theirs[1], Digest::ZERO).await.unwrap());
    let jobs = batches.iter().zip(tell).map(|(it, tell)| Job { anchor: it.anchor().clone(), tell });
    ours.settle(jobs.collect()).await;
    assert_eq!((statements(&world, "refused"), statements(&world, "one")), (1, 3));
    for (partition, told) in told.into_iter().enumerate() {
        match (partition, told.await.unwrap().unwrap()) {
            (1, Outcome::Lost { head }) => assert_eq!((head.anchor, head.next), (won.id, Offset(20))),
            (0 | 2 | 3, Outcome::Anchored(done)) => assert_eq!(done.next, Offset(20)),
            (_, other) => panic!("partition {partition}: {other:?}"),
        }
    }
    assert_eq!(world.follower.ledger().all_anchors().len(), 4, "every record once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_of_several_whose_answer_is_lost_is_found_on_the_chain() {
    let world = World::new().await;
    let anchorer = world.anchorer(0).with_patience(Duration::from_millis(500));
    let batches = prepared(&anchorer, 0).await;
    world.node.swallow.store(1, Ordering::SeqCst);
    let outcomes = join_all(batches.iter().map(|it| {
        let anchorer = &anchorer;
        anchorer.persist("traffic.flow", move || anchorer.submit(it, Digest::ZERO))
    }));
    assert!(outcomes.await.into_iter().all(|outcome| anchored(outcome.unwrap()).next == Offset(20)));
    assert_eq!(world.follower.ledger().all_anchors().len(), 4);
}

/// Whoever opened the round is dropped: the others are anchored all the same.
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_waiting_takes_nobody_along() {
    let world = World::new().await;
    let anchorer = world.anchorer(0);
    let batches = prepared(&anchorer, 0).await;
    let late = anchorer.announce();
    let first = anchorer.submit(&batches[0], Digest::ZERO);
    assert!(first.now_or_never().is_none(), "it waits for the one announced");
    let done = anchorer.submit_announced(&batches[1], Digest::ZERO, Some(late)).await.unwrap();
    assert_eq!(anchored(done).next, Offset(20));
    let heads = [0, 1].map(|partition| anchorer.head("traffic.flow", Partition(partition)).unwrap().next);
    assert_eq!(heads, [Offset(0), Offset(20)]);
}
