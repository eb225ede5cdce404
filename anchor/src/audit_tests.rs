//! What an audit finds, and what it must not mistake for a problem.

use super::*;
use crate::raw::RawBatchBuilder;
use crate::seal::{
    seal,
    tests::{decode, raw},
};
use crate::testing::World;
use arrow::array::{Float64Array, Int64Array};
use cairn_proof::record::BatchSecret;
use cairn_proof::statement::Body;
use std::path::PathBuf;

const ONE: Partition = Partition(1);

/// Decodes as the batches of these tests were decoded.
struct TestDecoder;

impl ValueDecoder for TestDecoder {
    fn decode(
        &self,
        _: &StreamDefinition,
        raw: &RawBatch,
        _: &ChainTag,
        _: &StringArray,
        _: &WriterSchemas,
    ) -> Result<DecodedColumns, String> {
        Ok(decode(raw))
    }
}

/// A world with two batches: 10,000 records, and 30 more after a gap of 5 offsets.
async fn anchored() -> World {
    let world = World::new().await;
    let mut builder = RawBatchBuilder::new(ONE, Offset(10_000));
    for offset in 10_005..10_035 {
        builder.append(Offset(offset), 7, None, Some(b"s,1,2"), &[]).unwrap();
    }
    let anchorer = world.anchorer(1);
    for raw in [raw(10_000, 0), builder.finish().unwrap()] {
        let previous = anchorer.head("traffic.flow", ONE).unwrap().anchor;
        anchorer.anchor(&Arc::new(World::stream()), &raw, &decode(&raw), previous).await.unwrap();
    }
    world
}

async fn run(world: &World, stream: Option<&str>) -> Report {
    let mut seen = Vec::new();
    let decoder = Arc::new(TestDecoder);
    let report = audit(&world.follower, &world.segments, &world.secrets, stream, decoder, |progress| {
        seen.push(progress.anchors);
    });
    let report = report.await.unwrap();
    assert_eq!(seen, (1..=report.checked.anchors_total).collect::<Vec<_>>());
    report
}

fn file(world: &World, index: usize, suffix: &str) -> PathBuf {
    let path = world.follower.ledger().all_anchors()[index].anchor.segment.path.clone();
    world.folder.path().join("objects").join(format!("{path}{suffix}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_anchored_passes() {
    let world = anchored().await;
    let report = run(&world, None).await;
    assert_eq!(report.problems, []);
    assert!(report.is_clean());
    assert_eq!((report.checked.anchors, report.checked.records), (2, 10_030));
    assert_eq!((report.destroyed.len(), report.orphans_total), (0, 0));
    assert_eq!(run(&world, Some("traffic.flow")).await.checked.anchors, 2);
    let unknown = audit(&world.follower, &world.segments, &world.secrets, Some("x.y"), Arc::new(TestDecoder), |_| {});
    assert!(matches!(unknown.await, Err(AuditError::UnknownStream { known, .. }) if known == "traffic.flow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_bit_is_found_and_named() {
    let world = anchored().await;
    for suffix in ["", ".obao"] {
        let file = file(&world, 0, suffix);
        let good = std::fs::read(&file).unwrap();
        assert!(!good.is_empty(), "the first batch is large enough to have a tree");
        for step in 0..40 {
            let at = step * (good.len() - 1) / 39;
            let mut wrong = good.clone();
            wrong[at] ^= 1 << (step % 8);
            std::fs::write(&file, &wrong).unwrap();
            let report = run(&world, None).await;
            let [problem] = &report.problems[..] else { panic!("{suffix} byte {at}: {:?}", report.problems) };
            assert_eq!((problem.check, problem.first, problem.last), (Check::Object, Offset(0), Offset(9999)));
            assert!(problem.detail.contains(if suffix.is_empty() { "segment" } else { "hash tree" }), "{problem}");
        }
        std::fs::write(&file, &good).unwrap();
    }
    assert!(run(&world, None).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_shortened_objects_are_named() {
    let world = anchored().await;
    for (index, suffix) in [(0, ""), (0, ".obao"), (1, ""), (1, ".obao")] {
        let file = file(&world, index, suffix);
        let good = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let report = run(&world, None).await;
        assert!(report.problems.len() == 1 && report.problems[0].detail.contains("missing"), "{:?}", report.problems);
        if !good.is_empty() {
            std::fs::write(&file, &good[1..]).unwrap();
            let report = run(&world, None).await;
            assert!(
                report.problems[0].detail.contains(&format!("must have {} bytes", good.len())),
                "{:?}",
                report.problems
            );
        }
        std::fs::write(&file, &good).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_secret_is_no_problem_and_a_missing_or_wrong_one_is() {
    let world = anchored().await;
    let anchor = world.follower.ledger().all_anchors()[1].anchor.clone();
    let (path, root) = (anchor.segment.path, anchor.records_root);
    world.secrets.put(&path, &root, &BatchSecret([1; 32])).unwrap();
    let report = run(&world, None).await;
    assert!(report.problems.len() == 1 && report.problems[0].check == Check::Root, "{:?}", report.problems);
    world.secrets.destroy(&path, &root).unwrap();
    let report = run(&world, None).await;
    assert!(report.is_clean());
    assert_eq!(report.destroyed, std::slice::from_ref(&path));
    let secret = path.replacen("segments", "secrets", 1).replace(".parquet", &format!(".{root}.secret"));
    std::fs::remove_file(world.folder.path().join(secret)).unwrap();
    let report = run(&world, None).await;
    assert!(report.problems.len() == 1 && report.problems[0].check == Check::Secret, "{:?}", report.problems);
}

/// What a dishonest anchorer could do: anchor something that verifies, and does not say what the records say.
#[tokio::test(flavor = "multi_thread")]
async fn a_dishonest_anchorer_is_found_out() {
    let first = raw(100, 0);
    let honest = decode(&first);
    let mut columns = honest.batch.columns().to_vec();
    let speeds = columns[2].as_any().downcast_ref::<Float64Array>().unwrap();
    columns[2] = Arc::new(
        speeds.iter().enumerate().map(|(row, v)| if row == 41 { Some(99.0) } else { v }).collect::<Float64Array>(),
    );
    let changed =
        DecodedColumns { batch: RecordBatch::try_new(honest.batch.schema(), columns).unwrap(), ..honest.clone() };
    let hidden = DecodedColumns { errors: arrow::array::StringArray::new_null(100), ..honest.clone() };
    type Change = fn(&mut Anchor);
    let same: Change = |_| {};
    let cases: [(&str, &DecodedColumns, Change, Check); 5] = [
        ("a changed value", &changed, same, Check::Columns),
        ("a hidden quarantine", &hidden, same, Check::Columns),
        ("another root", &honest, |anchor| anchor.records_root = Digest([5; 32]), Check::Root),
        ("another time", &honest, |anchor| anchor.timestamp_min_ms -= 1, Check::Facts),
        ("another count of quarantined", &honest, |anchor| anchor.quarantined = 0, Check::Facts),
    ];
    for (name, decoded, change, check) in cases {
        let world = World::new().await;
        let mut sealed = seal(&World::stream(), &first, decoded, BatchSecret([4; 32]), Digest::ZERO).unwrap();
        change(&mut sealed.anchor);
        anchor_as_it_is(&world, &sealed).await;
        let report = run(&world, None).await;
        assert!(report.problems.iter().any(|problem| problem.check == check), "{name}: {:?}", report.problems);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_of_other_rows_or_another_path_is_found_out() {
    let world = World::new().await;
    let ten = raw(10, 0);
    let mut sealed = seal(&World::stream(), &ten, &decode(&ten), BatchSecret([4; 32]), Digest::ZERO).unwrap();
    // Ten stored records, anchored as eleven.
    (sealed.anchor.last, sealed.anchor.count) = (Offset(10), 11);
    anchor_as_it_is(&world, &sealed).await;
    let report = run(&world, None).await;
    assert!(report.problems.len() == 1 && report.problems[0].check == Check::Rows, "{:?}", report.problems);
    let world = World::new().await;
    let mut sealed = seal(&World::stream(), &ten, &decode(&ten), BatchSecret([4; 32]), Digest::ZERO).unwrap();
    sealed.anchor.segment.path = "segments/energy.meter/0/x.parquet".into();
    anchor_as_it_is(&world, &sealed).await;
    let report = run(&world, None).await;
    assert!(report.problems.len() == 1 && report.problems[0].detail.contains("energy.meter"), "{:?}", report.problems);
}

/// Stores and submits whatever it is given.
async fn anchor_as_it_is(world: &World, sealed: &crate::seal::Sealed) {
    world.segments.put(sealed).await.unwrap();
    let _ = world.secrets.put(&sealed.anchor.segment.path, &sealed.anchor.records_root, &sealed.secret);
    let submitter = world.submitter(0);
    let body = Body::Anchor(sealed.anchor.clone());
    let finalized = submitter.submit(&body, std::time::Duration::from_secs(5)).await.unwrap();
    world.follower.wait_for_height(finalized.height, std::time::Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_noted() {
    let world = anchored().await;
    let orphan = raw(10, 50_000);
    let anchorer = world.anchorer(0);
    anchorer.prepare(&Arc::new(World::stream()), &orphan, &decode(&orphan)).await.unwrap();
    let report = run(&world, None).await;
    assert!(report.is_clean());
    assert_eq!((report.orphans_total, report.orphans.len()), (2, 2));
    assert!(report.orphans.iter().all(|orphan| orphan.contains("/00000000000000050000-")), "{:?}", report.orphans);
}

#[test]
fn the_first_difference_is_found() {
    let expected = Int64Array::from_iter_values(0..1000);
    assert_eq!(first_difference(&expected, &expected), None);
    for row in [0, 1, 499, 500, 998, 999] {
        let found = Int64Array::from_iter_values((0..1000).map(|i| if i == row { -1 } else { i }));
        assert_eq!(first_difference(&found, &expected), Some(row as usize));
    }
    assert_eq!(first_difference(&Int64Array::from_iter_values(0..10), &expected), Some(10));
    let nan = Float64Array::from(vec![1.0, f64::NAN]);
    assert_eq!(first_difference(&nan, &nan.clone()), None);
}
