//! Rounds: who is waited for, who is left out, and how a round is cut into statements.

use super::*;
use cairn_proof::statement::SegmentRef;
use cairn_proof::{Digest, Offset, Partition};

fn job(stream: &str, partition: u32, path: usize) -> (Job, oneshot::Receiver<Result<Outcome, AnchorError>>) {
    let anchor = Anchor {
        stream: stream.into(),
        partition: Partition(partition),
        first: Offset(0),
        last: Offset(9),
        gaps: vec![],
        count: 10,
        quarantined: 0,
        records_root: Digest::ZERO,
        timestamp_min_ms: 0,
        timestamp_max_ms: 0,
        schema_fingerprint: Digest::ZERO,
        segment: SegmentRef { path: "p".repeat(path), size: 1, blake3: Digest::ZERO },
        previous: Digest::ZERO,
    };
    let (tell, told) = oneshot::channel();
    (Job { anchor, tell }, told)
}

fn places(jobs: &[Job]) -> Vec<(String, u32)> {
    jobs.iter().map(|job| (job.anchor.stream.clone(), job.anchor.partition.0)).collect()
}

#[tokio::test(start_paused = true)]
async fn one_by_itself_waits_for_nobody() {
    let gathering = Gathering::default();
    let (job, _told) = job("a.b", 0, 9);
    assert!(gathering.wait(job, None), "the first one opens the round");
    let started = Instant::now();
    assert_eq!(gathering.round().await.len(), 1);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_round_waits_for_who_was_announced_and_not_longer_than_it_may() {
    let gathering = Gathering::default();
    let (second, late) = (gathering.announce(), gathering.announce());
    let (first_job, _told) = job("a.b", 0, 9);
    assert!(gathering.wait(first_job, None));
    let (second_job, _told) = job("a.b", 1, 9);
    let (started, theirs) = (Instant::now(), gathering.clone());
    let comes = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!theirs.wait(second_job, Some(second)), "the round is open");
    });
    assert_eq!(gathering.round().await.len(), 2, "without the one that did not come in time");
    assert_eq!(started.elapsed(), GATHER);
    comes.await.unwrap();
    let (late_job, _told) = job("a.b", 2, 9);
    assert!(gathering.wait(late_job, Some(late)), "it opens the next round");
    assert_eq!(gathering.round().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_will_not_come_is_not_waited_for_and_who_has_gone_is_left_out() {
    let gathering = Gathering::default();
    let coming = gathering.announce();
    let (first_job, told) = job("a.b", 0, 9);
    let (second_job, _told) = job("a.b", 1, 9);
    gathering.wait(first_job, None);
    gathering.wait(second_job, None);
    drop(told);
    let started = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(3)).await;
        drop(coming);
    });
    assert_eq!(places(&gathering.round().await), [("a.b".to_owned(), 1)]);
    assert_eq!(started.elapsed(), Duration::from_millis(3));
}

#[test]
fn a_statement_has_each_partition_once_in_order() {
    let jobs = [("b.a", 1), ("a.b", 7), ("a.b", 2), ("b.a", 0), ("a.b", 2)].map(|(stream, at)| job(stream, at, 9).0);
    let statements = into_statements(jobs.into());
    let named = |list: &[(&str, u32)]| list.iter().map(|(stream, at)| ((*stream).to_owned(), *at)).collect::<Vec<_>>();
    let found: Vec<_> = statements.iter().map(|jobs| places(jobs)).collect();
    assert_eq!(found, [named(&[("a.b", 2)]), named(&[("a.b", 2), ("a.b", 7), ("b.a", 0), ("b.a", 1)])]);
    assert!(into_statements(vec![]).is_empty());
}

/// Whatever is cut can be signed: the bounds are those of `proof`.
#[test]
fn statements_stay_within_their_bounds() {
    use cairn_proof::statement::{Body, ChainTag, Statement};
    let key = cairn_proof::identity::SigningKey::from_seed(&[1; 32]);
    for path in [1, 110, 400, 512] {
        let statements = into_statements((0..700).map(|at| job("traffic.flow", at, path).0).collect());
        assert_eq!(statements.iter().map(Vec::len).sum::<usize>(), 700);
        assert!(statements.len() <= 700_usize.div_ceil(80), "{path}: {} statements", statements.len());
        for jobs in statements {
            let anchors: Vec<Anchor> = jobs.iter().map(|job| job.anchor.clone()).collect();
            assert!(anchors.len() <= ANCHORS_MAX && anchors.len() > 1);
            let (signer, sequence) = (key.identity(), cairn_proof::Sequence(u64::MAX));
            let body = Body::Anchors(anchors);
            Statement { signer, sequence, body }.sign(&key, &ChainTag(Digest::ZERO)).unwrap();
        }
    }
}
